/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The input is a multiboot2 information structure. */
#include "fuzz.h"

#include <string.h>

static struct hx_multiboot2 m;

bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	return hx_multiboot2_memory_next(&m, iterator, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (!hx_multiboot2_open(&m, data, bytes)) {
		return 0;
	}
	PROMISE(m.total_bytes <= bytes);
	fuzz_normalise();
	if (m.info.command_line) {
		PROMISE(fuzz_inside(data, bytes, m.info.command_line,
				    strlen(m.info.command_line) + 1));
	}
	PROMISE(m.info.rsdp_inline == 0 ||
		(m.info.rsdp_inline <= bytes && bytes - m.info.rsdp_inline >= 20));
	return 0;
}
