/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * fuzz.h - one shape of fuzz target, for libFuzzer and for replay.c: the input is
 * what firmware hands over, and nothing that it holds may make a reader touch a
 * byte outside it, run without end, or say a thing that is not so.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include <hx/discovery.h>
#include <hx/memmap.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* A broken promise ends the program, as a crash would. */
#define PROMISE(c)                                                                                 \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #c);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/*
 * Normalise, as boot does, what the target's hx_hal_memory_next() says: the
 * firmware of this machine is the reader under test.
 */
static inline void fuzz_normalise(void)
{
	static struct hx_memmap map;
	hx_memmap_init(&map);
	hx_status s = hx_memmap_read_firmware(&map);
	PROMISE(s == HX_OK || (s == HX_OUT_OF_MEMORY && map.count > HX_MEMMAP_REGIONS_MAX / 2));
	PROMISE(hx_memmap_validate(&map) == HX_OK);
}

/* True when [p, p + bytes) lies within the input. */
static inline bool fuzz_inside(const uint8_t *data, size_t total, const void *p, uint64_t bytes)
{
	uintptr_t offset = (uintptr_t)p - (uintptr_t)data;
	return offset <= total && bytes <= total - offset;
}

#endif
