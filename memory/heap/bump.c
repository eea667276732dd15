/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * bump: a pointer that only goes up. For early boot, and for kernels that
 * allocate once.
 *
 * Memory is a list of chunks (chunk.h), newest first; the newest is served
 * from, what is left of an older one is lost, except that an arena's rest can
 * be donated (hx_heap_bump_top()). Nothing is ever handed out twice. A free
 * marks the object, so that a second one is refused, and nothing more: also
 * when every object has been freed, no memory goes back.
 *
 * Invariants, per chunk: the blocks from the first to `top` follow each other
 * without a gap and are all sound (alignment leaves a block in state GAP);
 * `top` only rises. No chunk ever leaves the list.
 *
 * Cost: allocate and free O(1) in one chunk, a free that is refused O(blocks).
 */
#include "chunk.h"

hx_status hx_heap_bump_init(struct hx_heap_backend *b)
{
	hx_heap_chunks_init(b);
	if (b->arena != NULL) {
		hx_heap_chunks_of(b)->newest = hx_heap_chunk_of_arena(b);
	}
	return b->arena == NULL || hx_heap_chunks_of(b)->newest != NULL ? HX_OK
									: HX_INVALID_ARGUMENT;
}

/* From the top of @c, NULL when it does not fit there. The lock is held. */
static void *carve(const struct hx_heap_backend *b, struct hx_heap_chunk *c, size_t bytes,
		   size_t align, size_t *usable)
{
	uint64_t need = hx_heap_block_need(bytes);
	uint64_t room = (uint64_t)(c->end - c->top);
	/* top and align are multiples of 16, so that a gap is none or holds a header. */
	uint64_t gap = -((uintptr_t)c->top + HX_HEAP_BLOCK_BYTES) & (align - 1);
	if (room < gap || room - gap < need) {
		return NULL;
	}
	struct hx_heap_block *block = (struct hx_heap_block *)(void *)c->top;
	if (gap != 0) {
		hx_heap_block_write(b, block, gap, HX_HEAP_BLOCK_GAP);
		block = hx_heap_block_after(block);
	}
	hx_heap_block_write(b, block, need, HX_HEAP_BLOCK_LIVE);
	c->top += gap + need;
	*usable = need - HX_HEAP_BLOCK_BYTES;
	return hx_heap_block_object(block);
}

struct hx_ptr_result hx_heap_bump_allocate(struct hx_heap_backend *b, size_t bytes, size_t align,
					   size_t *usable)
{
	struct hx_heap_chunks *s = hx_heap_chunks_of(b);
	unsigned long irq = hx_lock_acquire(&b->lock);
	void *p = s->newest == NULL ? NULL : carve(b, s->newest, bytes, align, usable);
	hx_lock_release(&b->lock, irq);
	if (p == NULL) {
		struct hx_heap_chunk *fresh = hx_heap_chunk_grow(b, bytes, align);
		if (fresh != NULL) {
			irq = hx_lock_acquire(&b->lock);
			p = carve(b, fresh, bytes, align, usable);
			fresh->next = s->newest;
			s->newest = fresh;
			hx_lock_release(&b->lock, irq);
		}
	}
	return (struct hx_ptr_result){p == NULL ? HX_OUT_OF_MEMORY : HX_OK, p};
}

hx_status hx_heap_bump_free(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable)
{
	struct hx_heap_block *block;
	unsigned long irq = hx_lock_acquire(&b->lock);
	hx_status status = hx_heap_block_find(b, p, &block);
	if (status == HX_OK) {
		uint64_t size = hx_heap_block_bytes(block);
		bool shrunk = hx_heap_block_state(block) == HX_HEAP_BLOCK_SHRUNK;
		uint64_t need = hx_heap_block_need(bytes);
		if (bytes != 0 && (bytes > size || need > size || (need < size && !shrunk))) {
			status = HX_WRONG_SIZE_FREE;
		} else {
			hx_heap_block_write(b, block, size, HX_HEAP_BLOCK_FREE);
			*usable = size - HX_HEAP_BLOCK_BYTES;
		}
	}
	hx_lock_release(&b->lock, irq);
	return status;
}

hx_status hx_heap_bump_find(struct hx_heap_backend *b, const void *p, size_t *usable)
{
	return hx_heap_block_usable(b, p, usable);
}

hx_status hx_heap_bump_resize(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable)
{
	struct hx_heap_block *block;
	unsigned long irq = hx_lock_acquire(&b->lock);
	hx_status status = hx_heap_block_find(b, p, &block);
	if (status == HX_OK) {
		uint64_t size = hx_heap_block_bytes(block);
		uint64_t need = hx_heap_block_need(bytes);
		if (need > size) {
			status = HX_OUT_OF_MEMORY;
		} else {
			hx_heap_block_write(b, block, size,
					    need == size ? HX_HEAP_BLOCK_LIVE
							 : HX_HEAP_BLOCK_SHRUNK);
			*usable = size - HX_HEAP_BLOCK_BYTES;
		}
	}
	hx_lock_release(&b->lock, irq);
	return status;
}

uint64_t hx_heap_bump_shrink(struct hx_heap_backend *b)
{
	(void)b;
	return 0;
}

void hx_heap_bump_stats(struct hx_heap_backend *b, struct hx_heap_stats *out)
{
	unsigned long irq = hx_lock_acquire(&b->lock);
	const struct hx_heap_chunk *newest = hx_heap_chunks_of(b)->newest;
	uint64_t room = newest == NULL ? 0 : (uint64_t)(newest->end - newest->top);
	hx_lock_release(&b->lock, irq);
	out->managed_bytes = b->arena_bytes + __atomic_load_n(&b->taken_bytes, __ATOMIC_RELAXED);
	out->largest_free = room > HX_HEAP_BLOCK_BYTES ? room - HX_HEAP_BLOCK_BYTES : 0;
}

hx_status hx_heap_bump_validate(struct hx_heap_backend *b)
{
	uint64_t taken = 0;
	for (struct hx_heap_chunk *c = hx_heap_chunks_of(b)->newest; c != NULL; c = c->next) {
		if (!hx_heap_chunk_sound(b, c) || c->top > c->end) {
			return HX_CORRUPTED;
		}
		struct hx_heap_block *block = hx_heap_chunk_first(c);
		while ((uint8_t *)block < c->top) {
			unsigned state = hx_heap_block_state(block);
			if (!hx_heap_block_sound(b, block) || state < HX_HEAP_BLOCK_FREE ||
			    state > HX_HEAP_BLOCK_GAP) {
				return HX_CORRUPTED;
			}
			block = hx_heap_block_after(block);
		}
		if ((uint8_t *)block != c->top) {
			return HX_CORRUPTED;
		}
		taken += c->run.frames << HX_FRAME_SHIFT;
	}
	return taken == b->taken_bytes ? HX_OK : HX_CORRUPTED;
}

static struct hx_heap_chunk *arena_chunk(const struct hx_heap_backend *b)
{
	struct hx_heap_chunk *c = hx_heap_chunks_of(b)->newest;
	while (c != NULL && c->run.frames != 0) {
		c = c->next;
	}
	return c;
}

void *hx_heap_bump_top(const struct hx_heap_backend *b)
{
	const struct hx_heap_chunk *c = arena_chunk(b);
	return c != NULL ? c->top : NULL;
}

hx_status hx_heap_bump_cut(struct hx_heap_backend *b, uint64_t bytes)
{
	struct hx_heap_chunk *c = arena_chunk(b);
	uint8_t *end = (uint8_t *)b->arena + bytes;
	hx_status status = HX_INVALID_SIZE;
	unsigned long irq = hx_lock_acquire(&b->lock);
	if (c != NULL && bytes <= b->arena_bytes && end >= c->top && end <= c->end) {
		hx_heap_chunk_cut(b, c, end);
		b->arena_bytes = bytes;
		status = HX_OK;
	}
	hx_lock_release(&b->lock, irq);
	return status;
}

HX_HEAP_TRAIT_DEFINE(bump);
