/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * simple: first fit over an address-ordered free list, for reading and for
 * machines where the heap hardly matters.
 *
 * Memory is chunks (chunk.h) that blocks fill from end to end. The free blocks
 * of all chunks are one list, lowest address first; a free block holds its link
 * where the object was, with a check word of its own:
 *
 *      | word | check |  next | link check | ...
 *        header          the object's first 16 bytes
 *
 * allocate takes the first block that fits and cuts off what it does not need;
 * free walks to the block's place in the list and joins it with its neighbours
 * when they touch. A chunk header stands between chunks, so that blocks of two
 * chunks never touch. A header that a neighbour swallows is marked FREE before,
 * so that a stale pointer is still known for a double free.
 *
 * Invariants: every header is sound; a block is FREE exactly when it is in the
 * list; the list ascends; no two FREE blocks touch.
 *
 * Cost: allocate and free O(free blocks), find O(chunks).
 * Source: Kernighan and Ritchie 1978 (the address-ordered list); Wilson,
 * Johnstone, Neely, Boles 1995 (why that order keeps fragmentation low).
 */
#include "chunk.h"

/* What a free block holds behind its header. */
struct link {
	struct hx_heap_block *next;
	uint64_t check;
};

enum { BLOCK_MIN = HX_HEAP_BLOCK_BYTES + sizeof(struct link) };

struct __attribute__((may_alias)) simple {
	struct hx_heap_chunks chunks;
	struct link free; /* its next: the lowest free block */
};
_Static_assert(sizeof(struct simple) <= sizeof((struct hx_heap_backend *)0)->private, "fits");

static struct simple *simple_of(const struct hx_heap_backend *b)
{
	return (struct simple *)(uintptr_t)b->private;
}

static struct link *link_of(struct hx_heap_block *free)
{
	return hx_heap_block_object(free);
}

static void set_next(const struct hx_heap_backend *b, struct link *link, struct hx_heap_block *next)
{
	link->next = next;
	link->check = hx_heap_check(b, link, (uint64_t)(uintptr_t)next);
}

/* Follow @link; CORRUPTED when it or the block that it names is damaged. */
static hx_status next_free(const struct hx_heap_backend *b, const struct link *link,
			   struct hx_heap_block **out)
{
	if (link->check != hx_heap_check(b, link, (uint64_t)(uintptr_t)link->next)) {
		return HX_CORRUPTED;
	}
	*out = link->next;
	if (*out != NULL &&
	    (!hx_heap_block_sound(b, *out) || hx_heap_block_state(*out) != HX_HEAP_BLOCK_FREE)) {
		return HX_CORRUPTED;
	}
	return HX_OK;
}

/* Blocks are at least large enough for their link once they are free. */
static uint64_t block_need(uint64_t bytes)
{
	uint64_t need = hx_heap_block_need(bytes);
	return need < BLOCK_MIN ? (uint64_t)BLOCK_MIN : need;
}

/* ---- The free list; the lock is held ---- */

/* Where a block at @at stands: behind @before (NULL: first), in front of @after. */
struct place {
	struct link *link; /* the link that names @after */
	struct hx_heap_block *before, *after;
};

static hx_status find_place(struct hx_heap_backend *b, const struct hx_heap_block *at,
			    struct place *out)
{
	*out = (struct place){.link = &simple_of(b)->free};
	for (;;) {
		hx_status status = next_free(b, out->link, &out->after);
		if (status != HX_OK || out->after == NULL || out->after >= at) {
			return status;
		}
		out->before = out->after;
		out->link = link_of(out->before);
	}
}

/* Make [@block, +@bytes) free at its @place and join it with what it touches. */
static void put(struct hx_heap_backend *b, const struct place *place, struct hx_heap_block *block,
		uint64_t bytes)
{
	hx_heap_block_write(b, block, bytes, HX_HEAP_BLOCK_FREE);
	struct hx_heap_block *next = place->after;
	if (next != NULL && hx_heap_block_after(block) == next) {
		bytes += hx_heap_block_bytes(next);
		next = link_of(next)->next;
	}
	if (place->before != NULL && hx_heap_block_after(place->before) == block) {
		block = place->before;
		bytes += hx_heap_block_bytes(block);
	} else {
		set_next(b, place->link, block);
	}
	hx_heap_block_write(b, block, bytes, HX_HEAP_BLOCK_FREE);
	set_next(b, link_of(block), next);
}

/* How a free block serves a request: [ gap | object's block | rest ]. */
static bool fits(const struct hx_heap_block *block, uint64_t need, uint64_t align, uint64_t *gap)
{
	uintptr_t object = (uintptr_t)block + HX_HEAP_BLOCK_BYTES;
	*gap = -object & (align - 1);
	while (*gap != 0 && *gap < BLOCK_MIN) {
		*gap += align; /* too small for a free block: the next aligned place */
	}
	uint64_t bytes = hx_heap_block_bytes(block);
	return bytes >= *gap && bytes - *gap >= need;
}

/* Cut a block of @need bytes out of @free, @gap bytes into it; @link names @free. */
static struct hx_heap_block *take(struct hx_heap_backend *b, struct link *link,
				  struct hx_heap_block *free, uint64_t gap, uint64_t need)
{
	uint64_t bytes = hx_heap_block_bytes(free) - gap;
	struct hx_heap_block *next = link_of(free)->next;
	struct hx_heap_block *block = (void *)((uint8_t *)free + gap);
	if (bytes - need >= BLOCK_MIN) {
		struct hx_heap_block *rest = (void *)((uint8_t *)block + need);
		hx_heap_block_write(b, rest, bytes - need, HX_HEAP_BLOCK_FREE);
		set_next(b, link_of(rest), next);
		next = rest;
		bytes = need;
	}
	if (gap != 0) {
		hx_heap_block_write(b, free, gap, HX_HEAP_BLOCK_FREE);
		link = link_of(free);
	}
	set_next(b, link, next);
	hx_heap_block_write(b, block, bytes, HX_HEAP_BLOCK_LIVE);
	return block;
}

static hx_status first_fit(struct hx_heap_backend *b, uint64_t need, uint64_t align,
			   struct hx_heap_block **out)
{
	struct link *link = &simple_of(b)->free;
	for (;;) {
		struct hx_heap_block *free;
		uint64_t gap;
		hx_status status = next_free(b, link, &free);
		if (status != HX_OK) {
			return status;
		}
		if (free == NULL) {
			return HX_OUT_OF_MEMORY;
		}
		if (fits(free, need, align, &gap)) {
			*out = take(b, link, free, gap, need);
			return HX_OK;
		}
		link = link_of(free);
	}
}

static hx_status add_chunk(struct hx_heap_backend *b, struct hx_heap_chunk *c)
{
	struct hx_heap_block *first = hx_heap_chunk_first(c);
	struct place place;
	hx_status status = find_place(b, first, &place);
	if (status == HX_OK) {
		c->top = c->end;
		c->next = hx_heap_chunks_of(b)->newest;
		hx_heap_chunks_of(b)->newest = c;
		put(b, &place, first, (uint64_t)(c->end - (uint8_t *)first));
	}
	return status;
}

/* ---- The trait ---- */

hx_status hx_heap_simple_init(struct hx_heap_backend *b)
{
	hx_heap_chunks_init(b);
	set_next(b, &simple_of(b)->free, NULL);
	if (b->arena == NULL) {
		return HX_OK;
	}
	struct hx_heap_chunk *c = hx_heap_chunk_of_arena(b);
	if (c == NULL || c->end - c->top < BLOCK_MIN) {
		return HX_INVALID_ARGUMENT;
	}
	return add_chunk(b, c);
}

struct hx_ptr_result hx_heap_simple_allocate(struct hx_heap_backend *b, size_t bytes, size_t align,
					     size_t *usable)
{
	struct hx_heap_block *block = NULL;
	uint64_t need = block_need(bytes);
	unsigned long irq = hx_lock_acquire(&b->lock);
	hx_status status = first_fit(b, need, align, &block);
	hx_lock_release(&b->lock, irq);
	if (status == HX_OUT_OF_MEMORY) {
		struct hx_heap_chunk *fresh = hx_heap_chunk_grow(b, bytes, align);
		if (fresh != NULL) {
			struct hx_heap_run run = fresh->run;
			irq = hx_lock_acquire(&b->lock);
			status = add_chunk(b, fresh);
			bool added = status == HX_OK;
			if (added) { /* in the same hold: nobody takes it away */
				status = first_fit(b, need, align, &block);
			}
			hx_lock_release(&b->lock, irq);
			if (!added) {
				hx_heap_run_give(b, run);
			}
		}
	}
	if (status != HX_OK) {
		return (struct hx_ptr_result){status, NULL};
	}
	*usable = hx_heap_block_bytes(block) - HX_HEAP_BLOCK_BYTES;
	return (struct hx_ptr_result){HX_OK, hx_heap_block_object(block)};
}

hx_status hx_heap_simple_free(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable)
{
	struct hx_heap_block *block;
	struct place place;
	unsigned long irq = hx_lock_acquire(&b->lock);
	hx_status status = hx_heap_block_find(b, p, &block);
	if (status == HX_OK && bytes != 0) {
		uint64_t size = hx_heap_block_bytes(block);
		if (bytes > size || block_need(bytes) > size ||
		    size - block_need(bytes) >= BLOCK_MIN) {
			status = HX_WRONG_SIZE_FREE;
		}
	}
	if (status == HX_OK) {
		status = find_place(b, block, &place);
	}
	if (status == HX_OK) {
		*usable = hx_heap_block_bytes(block) - HX_HEAP_BLOCK_BYTES;
		put(b, &place, block, hx_heap_block_bytes(block));
	}
	hx_lock_release(&b->lock, irq);
	return status;
}

hx_status hx_heap_simple_find(struct hx_heap_backend *b, const void *p, size_t *usable)
{
	return hx_heap_block_usable(b, p, usable);
}

/* Make the live @block one for @need bytes, using what is free behind it. */
static hx_status resize_block(struct hx_heap_backend *b, struct hx_heap_block *block, uint64_t need)
{
	uint64_t size = hx_heap_block_bytes(block);
	struct place place;
	hx_status status = find_place(b, block, &place);
	if (status != HX_OK) {
		return status;
	}
	if (need > size) {
		struct hx_heap_block *next = place.after;
		if (next == NULL || hx_heap_block_after(block) != next ||
		    hx_heap_block_bytes(next) < need - size) {
			return HX_OUT_OF_MEMORY;
		}
		size += hx_heap_block_bytes(next);
		place.after = link_of(next)->next;
		set_next(b, place.link, place.after);
	}
	uint64_t rest = size - need;
	if (rest >= BLOCK_MIN) {
		size = need;
		put(b, &place, (void *)((uint8_t *)block + need), rest);
	}
	hx_heap_block_write(b, block, size, HX_HEAP_BLOCK_LIVE);
	return HX_OK;
}

hx_status hx_heap_simple_resize(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable)
{
	struct hx_heap_block *block;
	unsigned long irq = hx_lock_acquire(&b->lock);
	hx_status status = hx_heap_block_find(b, p, &block);
	if (status == HX_OK) {
		status = resize_block(b, block, block_need(bytes));
	}
	if (status == HX_OK) {
		*usable = hx_heap_block_bytes(block) - HX_HEAP_BLOCK_BYTES;
	}
	hx_lock_release(&b->lock, irq);
	return status;
}

/* Unlink one chunk from frames that holds no object, NULL when there is none. */
static struct hx_heap_chunk *unlink_empty(struct hx_heap_backend *b)
{
	for (struct hx_heap_chunk **at = &hx_heap_chunks_of(b)->newest; *at != NULL;
	     at = &(*at)->next) {
		struct hx_heap_chunk *c = *at;
		struct hx_heap_block *first = hx_heap_chunk_first(c);
		struct place place;
		if (c->run.frames != 0 && hx_heap_block_sound(b, first) &&
		    hx_heap_block_state(first) == HX_HEAP_BLOCK_FREE &&
		    (uint8_t *)hx_heap_block_after(first) == c->end &&
		    find_place(b, first, &place) == HX_OK && place.after == first) {
			set_next(b, place.link, link_of(first)->next);
			*at = c->next;
			return c;
		}
	}
	return NULL;
}

uint64_t hx_heap_simple_shrink(struct hx_heap_backend *b)
{
	uint64_t frames = 0;
	for (;;) {
		unsigned long irq = hx_lock_acquire(&b->lock);
		struct hx_heap_chunk *c = unlink_empty(b);
		hx_lock_release(&b->lock, irq);
		if (c == NULL) {
			return frames;
		}
		frames += c->run.frames;
		hx_heap_run_give(b, c->run);
	}
}

void hx_heap_simple_stats(struct hx_heap_backend *b, struct hx_heap_stats *out)
{
	uint64_t largest = 0;
	unsigned long irq = hx_lock_acquire(&b->lock);
	struct hx_heap_block *free;
	for (struct link *l = &simple_of(b)->free; next_free(b, l, &free) == HX_OK && free != NULL;
	     l = link_of(free)) {
		uint64_t bytes = hx_heap_block_bytes(free) - HX_HEAP_BLOCK_BYTES;
		if (bytes > largest) {
			largest = bytes;
		}
	}
	hx_lock_release(&b->lock, irq);
	out->managed_bytes = b->arena_bytes + __atomic_load_n(&b->taken_bytes, __ATOMIC_RELAXED);
	out->largest_free = largest;
}

/* All blocks of @c; adds its free ones to *@free_blocks. */
static hx_status validate_chunk(struct hx_heap_backend *b, struct hx_heap_chunk *c,
				uint64_t *free_blocks)
{
	if (!hx_heap_chunk_sound(b, c) || c->top != c->end) {
		return HX_CORRUPTED;
	}
	bool was_free = false;
	struct hx_heap_block *block = hx_heap_chunk_first(c);
	while ((uint8_t *)block < c->end) {
		unsigned state = hx_heap_block_state(block);
		bool is_free = state == HX_HEAP_BLOCK_FREE;
		if (!hx_heap_block_sound(b, block) || hx_heap_block_bytes(block) < BLOCK_MIN ||
		    (!is_free && state != HX_HEAP_BLOCK_LIVE) || (is_free && was_free)) {
			return HX_CORRUPTED;
		}
		*free_blocks += is_free;
		was_free = is_free;
		block = hx_heap_block_after(block);
	}
	return (uint8_t *)block == c->end ? HX_OK : HX_CORRUPTED;
}

hx_status hx_heap_simple_validate(struct hx_heap_backend *b)
{
	uint64_t free_blocks = 0, taken = 0, listed = 0;
	for (struct hx_heap_chunk *c = hx_heap_chunks_of(b)->newest; c != NULL; c = c->next) {
		if (validate_chunk(b, c, &free_blocks) != HX_OK) {
			return HX_CORRUPTED;
		}
		taken += c->run.frames << HX_FRAME_SHIFT;
	}
	/* As many in the list as in the chunks, ascending, hence the same ones. */
	struct hx_heap_block *free, *before = NULL;
	struct link *link = &simple_of(b)->free;
	for (;;) {
		if (next_free(b, link, &free) != HX_OK) {
			return HX_CORRUPTED;
		}
		if (free == NULL) {
			break;
		}
		if (free <= before || hx_heap_chunk_find(b, free) == NULL) {
			return HX_CORRUPTED;
		}
		listed++;
		before = free;
		link = link_of(free);
	}
	return listed == free_blocks && taken == b->taken_bytes ? HX_OK : HX_CORRUPTED;
}

HX_HEAP_TRAIT_DEFINE(simple);
