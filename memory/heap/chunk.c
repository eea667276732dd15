/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Chunks and blocks; see chunk.h. */
#include "chunk.h"

uint64_t hx_heap_check(const struct hx_heap_backend *b, const void *at, uint64_t word)
{
	/* Two rounds of multiply and fold; the odd constants are 2^64 by the golden
	 * ratio and by the square root of two. */
	uint64_t x = (uint64_t)(uintptr_t)at ^ hx_heap_chunks_of(b)->salt;
	x = (x ^ x >> 32) * UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 29 ^ word) * UINT64_C(0xb504f333f9de6485);
	return x ^ x >> 32;
}

void hx_heap_chunks_init(struct hx_heap_backend *b)
{
	static uint64_t backends;
	uint64_t n = __atomic_add_fetch(&backends, 1, __ATOMIC_RELAXED);
	hx_heap_chunks_of(b)->salt = n * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t chunk_check(const struct hx_heap_backend *b, const struct hx_heap_chunk *c)
{
	return hx_heap_check(b, c,
			     (uint64_t)(uintptr_t)c->end ^ c->run.first.v << 32 ^ c->run.frames);
}

bool hx_heap_chunk_sound(const struct hx_heap_backend *b, const struct hx_heap_chunk *c)
{
	return c->check == chunk_check(b, c);
}

static struct hx_heap_chunk *chunk_make(const struct hx_heap_backend *b, void *start, uint8_t *end,
					struct hx_heap_run run)
{
	struct hx_heap_chunk *c = start;
	*c = (struct hx_heap_chunk){.end = end, .run = run};
	c->top = (uint8_t *)hx_heap_chunk_first(c);
	c->check = chunk_check(b, c);
	return c;
}

void hx_heap_chunk_cut(const struct hx_heap_backend *b, struct hx_heap_chunk *c, uint8_t *end)
{
	HX_ASSERT(c->top <= end && end <= c->end);
	c->end = end;
	c->check = chunk_check(b, c);
}

struct hx_heap_chunk *hx_heap_chunk_of_arena(struct hx_heap_backend *b)
{
	uintptr_t start = (uintptr_t)b->arena, end;
	if (__builtin_add_overflow(start, b->arena_bytes, &end) ||
	    __builtin_add_overflow(start, HX_HEAP_GRAIN - 1, &start)) {
		return NULL;
	}
	start &= ~(uintptr_t)(HX_HEAP_GRAIN - 1);
	end &= ~(uintptr_t)(HX_HEAP_GRAIN - 1);
	if (end < start || end - start < sizeof(struct hx_heap_chunk) + hx_heap_block_need(1)) {
		return NULL;
	}
	return chunk_make(b, (void *)start, (uint8_t *)end, (struct hx_heap_run){.frames = 0});
}

struct hx_heap_chunk *hx_heap_chunk_grow(struct hx_heap_backend *b, uint64_t bytes, uint64_t align)
{
	/* Twice the room, up to a limit: the number of chunks stays logarithmic at
	 * first, and a large heap does not ask for pieces that nobody has. */
	static const uint64_t smallest = HX_KIB(64), largest = HX_MIB(4);
	uint64_t need = sizeof(struct hx_heap_chunk) + hx_heap_block_need(bytes);
	if (align > HX_HEAP_GRAIN) {
		/* The object may start anywhere past a gap that holds a block. */
		need += align + HX_HEAP_BLOCK_BYTES + HX_HEAP_GRAIN;
	}
	if (!hx_align_up(need, HX_FRAME_BYTES, &need)) {
		return NULL;
	}
	uint64_t taken = __atomic_load_n(&b->taken_bytes, __ATOMIC_RELAXED);
	uint64_t wish = taken < smallest  ? smallest
			: taken > largest ? largest
					  : UINT64_C(1) << hx_log2_floor(taken);
	struct hx_heap_run run;
	void *start;
	uint64_t size = wish > need ? wish : need;
	if (hx_heap_run_take(b, size, HX_FRAME_BYTES, &run, &start) != HX_OK) {
		size = need;
		if (wish <= need ||
		    hx_heap_run_take(b, size, HX_FRAME_BYTES, &run, &start) != HX_OK) {
			return NULL;
		}
	}
	return chunk_make(b, start, (uint8_t *)start + size, run);
}

struct hx_heap_chunk *hx_heap_chunk_find(const struct hx_heap_backend *b, const void *p)
{
	for (struct hx_heap_chunk *c = hx_heap_chunks_of(b)->newest; c != NULL; c = c->next) {
		uintptr_t first = (uintptr_t)hx_heap_chunk_first(c);
		if ((uintptr_t)p - first < (uintptr_t)c->top - first) {
			return c;
		}
	}
	return NULL;
}

/* Why is there no sound header before @p? Walk up to it and see. */
static hx_status diagnose(const struct hx_heap_backend *b, struct hx_heap_chunk *chunk,
			  const struct hx_heap_block *at)
{
	for (struct hx_heap_block *k = hx_heap_chunk_first(chunk); k <= at;
	     k = hx_heap_block_after(k)) {
		if (!hx_heap_block_sound(b, k)) {
			return HX_CORRUPTED;
		}
	}
	return HX_FOREIGN_FREE;
}

hx_status hx_heap_block_find(const struct hx_heap_backend *b, const void *p,
			     struct hx_heap_block **out)
{
	struct hx_heap_chunk *chunk = hx_heap_chunk_find(b, p);
	if (chunk == NULL || ((uintptr_t)p & (HX_HEAP_GRAIN - 1)) != 0 ||
	    (uintptr_t)p - (uintptr_t)hx_heap_chunk_first(chunk) < HX_HEAP_BLOCK_BYTES) {
		return HX_FOREIGN_FREE;
	}
	struct hx_heap_block *block = hx_heap_block_of(p);
	if (!hx_heap_block_sound(b, block)) {
		return diagnose(b, chunk, block);
	}
	switch (hx_heap_block_state(block)) {
	case HX_HEAP_BLOCK_LIVE:
	case HX_HEAP_BLOCK_SHRUNK:
		*out = block;
		return HX_OK;
	case HX_HEAP_BLOCK_FREE:
		return HX_DOUBLE_FREE;
	default:
		return HX_FOREIGN_FREE;
	}
}

hx_status hx_heap_block_usable(struct hx_heap_backend *b, const void *p, size_t *usable)
{
	struct hx_heap_block *block;
	unsigned long irq = hx_lock_acquire(&b->lock);
	hx_status status = hx_heap_block_find(b, p, &block);
	if (status == HX_OK) {
		/* OK comes with a block. NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage) */
		*usable = hx_heap_block_bytes(block) - HX_HEAP_BLOCK_BYTES;
	}
	hx_lock_release(&b->lock, irq);
	return status;
}
