/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * blob.h - what the tests of firmware readers share, hosted: blobs that end at
 * an unreadable page, files of tests/data, and physical memory made of pieces.
 */
#ifndef BLOB_H
#define BLOB_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hx_test.h"

#include <hx/discovery.h>

/* ---- A place whose last byte is followed by an unreadable page ---- */

struct fence {
	uint8_t *end;
	size_t bytes;
};

static inline struct fence fence_make(size_t bytes)
{
	size_t pages = (bytes + 4095) & ~(size_t)4095;
	uint8_t *at = mmap(NULL, pages + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	if (at == MAP_FAILED || mprotect(at + pages, 4096, PROT_NONE) != 0) {
		abort();
	}
	return (struct fence){at + pages, pages};
}

/** Put a copy of @p n bytes right before the fence. */
static inline uint8_t *fence_put(const struct fence *f, const void *data, size_t n)
{
	if (n > f->bytes) {
		abort();
	}
	return n > 0 ? memcpy(f->end - n, data, n) : f->end;
}

/* ---- Files ---- */

#ifdef HX_TEST_DATA /* where tests/data is */

/** Read a file of tests/data; the caller frees. */
static inline uint8_t *load_data(const char *name, size_t *bytes)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", HX_TEST_DATA, name);
	FILE *f = fopen(path, "rb");
	if (!f || fseek(f, 0, SEEK_END) != 0) {
		fprintf(stderr, "cannot read %s\n", path);
		abort();
	}
	*bytes = (size_t)ftell(f);
	rewind(f);
	uint8_t *data = malloc(*bytes + 1);
	if (!data || fread(data, 1, *bytes, f) != *bytes) {
		abort();
	}
	fclose(f);
	return data;
}

#endif

/* ---- Physical memory in pieces ---- */

enum { PIECES_MAX = 32, LENT_MAX = 20000 };

struct piece {
	uint64_t base;
	uint32_t bytes;
	uint8_t *data;
};

/*
 * Every request must lie in one piece, and is answered with a copy of exactly
 * that length on the heap: a read beyond it is the sanitizer's to see.
 */
struct memory {
	struct piece pieces[PIECES_MAX];
	unsigned count;
	void *lent[LENT_MAX];
	unsigned lent_count;
	unsigned fail_at; /* the n-th request from now is refused; 0: none */
};

static inline const void *memory_at(void *context, struct hx_pa a, uint64_t bytes)
{
	struct memory *m = context;
	if (m->fail_at > 0 && --m->fail_at == 0) {
		return NULL;
	}
	for (unsigned i = 0; i < m->count; i++) {
		const struct piece *p = &m->pieces[i];
		uint64_t offset = a.v - p->base;
		if (a.v < p->base || offset > p->bytes || bytes > p->bytes - offset) {
			continue;
		}
		if (m->lent_count == LENT_MAX) {
			abort();
		}
		uint8_t *copy = malloc(bytes ? bytes : 1);
		if (!copy) {
			abort();
		}
		m->lent[m->lent_count++] = memcpy(copy, p->data + offset, bytes);
		return copy;
	}
	return NULL;
}

static inline struct hx_physical memory_access(struct memory *m)
{
	return (struct hx_physical){memory_at, m};
}

/** Take back what was lent. */
static inline void memory_release(struct memory *m)
{
	while (m->lent_count > 0) {
		free(m->lent[--m->lent_count]);
	}
}

static inline uint8_t *memory_add(struct memory *m, uint64_t base, const void *data, uint32_t bytes)
{
	if (m->count == PIECES_MAX) {
		abort();
	}
	struct piece *p = &m->pieces[m->count++];
	*p = (struct piece){base, bytes, malloc(bytes + 1u)};
	if (!p->data) {
		abort();
	}
	return data ? memcpy(p->data, data, bytes) : memset(p->data, 0, bytes);
}

static inline void memory_free(struct memory *m)
{
	memory_release(m);
	while (m->count > 0) {
		free(m->pieces[--m->count].data);
	}
}

/**
 * Pieces from bytes: address (64 bits), length (32 bits), content, repeated;
 * little-endian. What does not fit into the bytes is left out.
 */
static inline void memory_parse(struct memory *m, const uint8_t *data, size_t bytes)
{
	while (bytes >= 12 && m->count < PIECES_MAX) {
		uint64_t base;
		uint32_t length;
		memcpy(&base, data, 8);
		memcpy(&length, data + 8, 4);
		data += 12;
		bytes -= 12;
		if (length > bytes) {
			length = (uint32_t)bytes;
		}
		memory_add(m, base, data, length);
		data += length;
		bytes -= length;
	}
}

#ifdef HX_TEST_DATA
static inline void memory_load(struct memory *m, const char *name)
{
	size_t bytes;
	uint8_t *data = load_data(name, &bytes);
	memory_parse(m, data, bytes);
	free(data);
}
#endif

#endif
