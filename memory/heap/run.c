/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Memory for the backends from the frames: one place that knows the limit, the
 * frame database's tags and how to align a pointer.
 *
 * A pointer is its physical address plus hx_hal_direct_offset, so it is aligned
 * as its frame is only where the offset is aligned as well. Boards have such an
 * offset; a hosted machine need not, and there a larger run is taken and the
 * aligned part of it used.
 */
#include "backend.h"

/* Claim @bytes of the limit; false when that would exceed it. */
static bool charge(struct hx_heap_backend *b, uint64_t bytes)
{
	uint64_t before = __atomic_load_n(&b->taken_bytes, __ATOMIC_RELAXED);
	uint64_t after;
	do {
		if (__builtin_add_overflow(before, bytes, &after) ||
		    (b->limit_bytes != 0 && after > b->limit_bytes)) {
			return false;
		}
	} while (!__atomic_compare_exchange_n(&b->taken_bytes, &before, after, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

static void discharge(struct hx_heap_backend *b, uint64_t bytes)
{
	__atomic_fetch_sub(&b->taken_bytes, bytes, __ATOMIC_RELAXED);
}

/* First frame that the direct map does not reach: HIGH zones lie above all others. */
static struct hx_pfn direct_end(const struct hx_frames *f)
{
	struct hx_pfn end = hx_pfn(0); /* as a limit: none */
	for (unsigned i = 0; i < f->zone_count; i++) {
		const struct hx_zone *z = &f->zones[i];
		if (z->kind == HX_ZONE_HIGH && (end.v == 0 || z->front->base < end.v)) {
			end = hx_pfn(z->front->base);
		}
	}
	return end;
}

/* How to ask for a run: @blocks blocks of 2^order frames, @align_frames 0: natural. */
struct request {
	uint64_t blocks;
	unsigned order;
	uint64_t align_frames;
};

/* The smallest request whose result holds @frames frames at @align; false: none can. */
static bool plan(uint64_t frames, uint64_t align, struct request *r)
{
	uint64_t align_frames = align >> HX_FRAME_SHIFT;
	*r = (struct request){frames, 0, 0};
	if (align_frames > 1 && !hx_is_aligned(hx_hal_direct_offset, align)) {
		return !__builtin_add_overflow(frames, align_frames - 1, &r->blocks);
	}
	unsigned order = hx_log2_ceil(frames);
	if (align_frames > frames) {
		*r = (struct request){1, order, align_frames};
	} else if ((frames & (frames - 1)) == 0 && order <= HX_ORDER_MAX) {
		*r = (struct request){1, order, 0}; /* natural alignment is at least align */
	} else if (align_frames > 1) {
		order = hx_log2_floor(align_frames);
		*r = (struct request){(frames + align_frames - 1) >> order, order, 0};
	}
	return true;
}

/* The bump allocator takes nothing back: there the frames are lost. */
static void take_back(struct hx_heap_backend *b, struct hx_pfn first)
{
	hx_status s = hx_frames_deallocate(b->frames, first);
	HX_ASSERT(s == HX_OK || s == HX_NOT_SUPPORTED);
}

hx_status hx_heap_run_take(struct hx_heap_backend *b, uint64_t bytes, uint64_t align,
			   struct hx_heap_run *run, void **start)
{
	struct request r;
	uint64_t size;
	if (b->frames == NULL || !plan(bytes >> HX_FRAME_SHIFT, align, &r) ||
	    __builtin_mul_overflow(r.blocks, HX_FRAME_BYTES << r.order, &size) ||
	    !charge(b, size)) {
		return HX_OUT_OF_MEMORY;
	}
	const unsigned flags = HX_ALLOC_NO_PRESSURE | HX_FRAMES_PINNED;
	struct hx_pfn_result got;
	if (r.align_frames != 0) {
		struct hx_frame_constraint c = {.limit = direct_end(b->frames),
						.align_frames = r.align_frames};
		got = hx_frames_allocate_constrained(b->frames, r.order, &c, flags);
	} else if (r.blocks == 1) {
		got = hx_frames_allocate(b->frames, r.order, flags);
	} else {
		got = hx_frames_allocate_contiguous(b->frames, r.blocks, r.order, flags);
	}
	if (got.status != HX_OK) {
		discharge(b, size);
		return HX_OUT_OF_MEMORY;
	}
	*run = (struct hx_heap_run){got.value, size >> HX_FRAME_SHIFT};
	if (b->db != NULL &&
	    hx_framedb_set(b->db, run->first, run->frames, HX_TAG_HEAP, b) != HX_OK) {
		take_back(b, run->first);
		discharge(b, size);
		return HX_OUT_OF_MEMORY;
	}
	uintptr_t at = (uintptr_t)hx_ptr(hx_pfn_to_pa(run->first));
	*start = (void *)(uintptr_t)((at + align - 1) & ~(align - 1));
	return HX_OK;
}

void hx_heap_run_give(struct hx_heap_backend *b, struct hx_heap_run run)
{
	if (b->db != NULL) { /* cannot fail: the entries exist since they were tagged */
		HX_ASSERT(hx_framedb_set(b->db, run.first, run.frames, HX_TAG_FREE, NULL) == HX_OK);
	}
	take_back(b, run.first);
	discharge(b, run.frames << HX_FRAME_SHIFT);
}
