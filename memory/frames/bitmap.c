/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * bitmap - two bits a frame, first fit in address order.
 *
 *      taken end
 *        0    0   free
 *        1    0   allocated, the block goes on in the next frame
 *        1    1   allocated, last frame of its block
 *        0    1   hole: not ours to give
 *
 * The bits stand in cells of 64 frames, frame f being bit f % 64 of the cell of
 * its absolute number, so that aligned blocks are aligned in the words as well:
 *
 *      metadata:  hints | cell(base / 64) | cell(base / 64 + 1) | ...
 *                          { taken, end }
 *
 * A block begins where the frame before it does not go on, and ends at the next
 * end bit: every wrong free is seen from these bits alone.
 *
 * The search takes the lowest start that fits and looks at its block from the
 * far end: the last frame that is not free is where the next try may begin. For
 * each order a hint says below which frame no free aligned block of that order
 * starts; it keeps repeated requests from looking at the same full words again.
 *
 * Invariants (validate): frames outside the span are holes; every run of
 * allocated frames ends in an end bit before a hole or a free frame; hints hold;
 * counters equal the bits.
 *
 * Source: Knuth, The Art of Computer Programming 1, 2.5 (first fit); Wilson,
 * Johnstone, Neely, Boles 1995 (bitmapped fits).
 */
#include "trait.h"

struct cell {
	uint64_t taken;
	uint64_t end;
};

struct bitmap {
	/* No free block of 2^o frames, aligned to its size, starts below hint[o]. */
	uint64_t hint[HX_ORDER_MAX + 1];
	uint64_t pad; /* cells keep to the alignment of the metadata */
	struct cell cells[];
};

static struct bitmap *bitmap_of(const struct hx_frame_allocator *a)
{
	return a->metadata;
}

static struct cell *cell_of(const struct hx_frame_allocator *a, uint64_t f)
{
	return &bitmap_of(a)->cells[(f >> 6) - (a->base >> 6)];
}

static uint64_t free_bits(const struct cell *c)
{
	return ~(c->taken | c->end);
}

static bool bit(uint64_t word, uint64_t f)
{
	return (word >> (f & 63) & 1) != 0;
}

/* Lowest frame in [f, end) whose bit of free_bits() is @want; end when none. */
static uint64_t next_frame(const struct hx_frame_allocator *a, uint64_t f, uint64_t end, bool want)
{
	while (f < end) {
		uint64_t n, mask = hx_frame_word_mask(f, end - f, &n);
		uint64_t bits = free_bits(cell_of(a, f));
		bits = (want ? bits : ~bits) & mask;
		if (bits != 0) {
			return (f & ~UINT64_C(63)) + hx_ctz64(bits);
		}
		f += n;
	}
	return end;
}

/* Highest frame in [first, end) that is not free; false when all are. */
static bool last_used(const struct hx_frame_allocator *a, uint64_t first, uint64_t end,
		      uint64_t *out)
{
	while (end > first) {
		uint64_t from = hx_align_down(end - 1, 64);
		from = from < first ? first : from;
		uint64_t n, mask = hx_frame_word_mask(from, end - from, &n);
		uint64_t bits = ~free_bits(cell_of(a, from)) & mask;
		if (bits != 0) {
			*out = hx_align_down(from, 64) + hx_log2_floor(bits);
			return true;
		}
		end = from;
	}
	return false;
}

/* The last frame of the allocated block that goes through @f, at most @end - 1. */
static uint64_t block_last(const struct hx_frame_allocator *a, uint64_t f, uint64_t end)
{
	while (f < end) {
		uint64_t n, mask = hx_frame_word_mask(f, end - f, &n);
		uint64_t bits = cell_of(a, f)->end & mask;
		if (bits != 0) {
			return (f & ~UINT64_C(63)) + hx_ctz64(bits);
		}
		f += n;
	}
	return end - 1;
}

static void lower_hints(const struct hx_frame_allocator *a, uint64_t first)
{
	uint64_t *hint = bitmap_of(a)->hint;
	for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
		uint64_t start = hx_align_down(first, UINT64_C(1) << o);
		hint[o] = hint[o] < start ? hint[o] : start;
	}
}

/* Order of the smallest aligned block that every placement has at its start. */
static unsigned hint_order(const struct hx_frame_window *w, uint64_t count)
{
	unsigned order = hx_log2_floor(count < w->align ? count : w->align);
	return order < HX_ORDER_MAX ? order : HX_ORDER_MAX;
}

static bool search(const struct hx_frame_allocator *a, const struct hx_frame_window *w,
		   uint64_t count, uint64_t *start)
{
	uint64_t *hint = &bitmap_of(a)->hint[hint_order(w, count)];
	bool natural = !w->narrowed && count == w->align && count <= UINT64_C(1) << HX_ORDER_MAX;
	uint64_t from = *hint;
	while (hx_frame_fit(w, from, w->high, count, start)) {
		uint64_t used;
		if (!last_used(a, *start, *start + count, &used)) {
			if (natural) {
				*hint = *start + count;
			}
			return true;
		}
		from = next_frame(a, used + 1, w->high, true);
	}
	if (natural) {
		*hint = w->high;
	}
	return false;
}

static void take(struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	uint64_t n;
	for (uint64_t f = first, left = count; left > 0; f += n, left -= n) {
		cell_of(a, f)->taken |= hx_frame_word_mask(f, left, &n);
	}
	uint64_t last = first + count - 1;
	cell_of(a, last)->end |= UINT64_C(1) << (last & 63);
	hx_frame_note_taken(a, count);
}

static struct hx_pfn_result allocate(struct hx_frame_allocator *a, uint64_t count, uint64_t natural,
				     const struct hx_frame_constraint *c)
{
	struct hx_frame_window w;
	hx_status status = hx_frame_window(a, count, natural, c, &w);
	if (status != HX_OK) {
		return hx_frame_refused(status);
	}
	unsigned long irq = hx_frame_lock(a);
	uint64_t start = 0;
	bool found = count <= a->free_frames && search(a, &w, count, &start);
	if (found) {
		take(a, start, count);
	} else {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return found ? hx_frame_found(start) : hx_frame_refused(HX_OUT_OF_MEMORY);
}

/* The length of the block that starts at @first, or why there is none. */
static hx_status block_at(const struct hx_frame_allocator *a, uint64_t first, uint64_t *count)
{
	if (!hx_frame_in_span(a, first, 1)) {
		return HX_FOREIGN_FREE;
	}
	const struct cell *c = cell_of(a, first);
	if (!bit(c->taken, first)) {
		return bit(c->end, first) ? HX_FOREIGN_FREE : HX_DOUBLE_FREE;
	}
	if (first > a->base) {
		const struct cell *before = cell_of(a, first - 1);
		if (bit(before->taken & ~before->end, first - 1)) {
			return HX_FOREIGN_FREE;
		}
	}
	*count = block_last(a, first, a->base + a->span_frames) - first + 1;
	return HX_OK;
}

uint64_t hx_frames_bitmap_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	if (!hx_frame_span_valid(base, span_frames)) {
		return 0;
	}
	uint64_t cells = ((base + span_frames - 1) >> 6) - (base >> 6) + 1;
	return sizeof(struct bitmap) + cells * sizeof(struct cell);
}

hx_status hx_frames_bitmap_init(struct hx_frame_allocator *a)
{
	uint64_t need = hx_frames_bitmap_metadata_bytes(a->base, a->span_frames);
	if (need == 0 || !a->metadata || a->metadata_bytes < need) {
		return HX_INVALID_SIZE;
	}
	struct bitmap *b = bitmap_of(a);
	for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
		b->hint[o] = a->base + a->span_frames;
	}
	const struct cell *end = cell_of(a, a->base + a->span_frames - 1) + 1;
	for (struct cell *c = b->cells; c < end; c++) {
		*c = (struct cell){.taken = 0, .end = UINT64_MAX};
	}
	return HX_OK;
}

static bool holes(const struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	for (uint64_t n; count > 0; first += n, count -= n) {
		const struct cell *c = cell_of(a, first);
		uint64_t mask = hx_frame_word_mask(first, count, &n);
		if ((~c->taken & c->end & mask) != mask) {
			return false;
		}
	}
	return true;
}

bool hx_frames_bitmap_holes(const struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return false;
	}
	unsigned long irq = hx_frame_lock(a);
	bool all = holes(a, first.v, count);
	hx_frame_unlock(a, irq);
	return all;
}

hx_status hx_frames_bitmap_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_INVALID_ARGUMENT;
	}
	unsigned long irq = hx_frame_lock(a);
	bool all = holes(a, first.v, count);
	if (all) {
		uint64_t n;
		for (uint64_t f = first.v, left = count; left > 0; f += n, left -= n) {
			cell_of(a, f)->end &= ~hx_frame_word_mask(f, left, &n);
		}
		lower_hints(a, first.v);
		hx_frame_note_added(a, count);
	}
	hx_frame_unlock(a, irq);
	return all ? HX_OK : HX_INVALID_ARGUMENT;
}

struct hx_pfn_result hx_frames_bitmap_allocate(struct hx_frame_allocator *a, unsigned order,
					       unsigned flags, const struct hx_frame_constraint *c)
{
	(void)flags; /* one order of addresses for all lifetimes */
	if (order > HX_ORDER_MAX) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	return allocate(a, UINT64_C(1) << order, UINT64_C(1) << order, c);
}

struct hx_pfn_result hx_frames_bitmap_allocate_run(struct hx_frame_allocator *a, uint64_t count,
						   unsigned flags,
						   const struct hx_frame_constraint *c)
{
	(void)flags;
	return allocate(a, count, 1, c);
}

uint64_t hx_frames_bitmap_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
					uint64_t count, unsigned flags)
{
	(void)flags;
	uint64_t *hint = &bitmap_of(a)->hint[0];
	uint64_t n = 0, end = a->base + a->span_frames;
	unsigned long irq = hx_frame_lock(a);
	for (; n < count; n++) {
		*hint = next_frame(a, *hint, end, true);
		if (*hint == end) {
			hx_frame_counter_add(&a->failures, 1);
			break;
		}
		take(a, *hint, 1);
		out[n] = hx_pfn(*hint);
	}
	hx_frame_unlock(a, irq);
	return n;
}

hx_status hx_frames_bitmap_reserve(struct hx_frame_allocator *a, struct hx_pfn first,
				   uint64_t count)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_ALREADY_MAPPED;
	}
	unsigned long irq = hx_frame_lock(a);
	uint64_t used;
	bool all_free = !last_used(a, first.v, first.v + count, &used);
	if (all_free) {
		take(a, first.v, count);
	}
	hx_frame_unlock(a, irq);
	return all_free ? HX_OK : HX_ALREADY_MAPPED;
}

/* Is [first, first + count) a block? Under the lock; a refusal is counted. */
static hx_status check_block(struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	uint64_t length = 0;
	hx_status status = block_at(a, first, &length);
	if (status == HX_OK && length != count) {
		status = HX_WRONG_SIZE_FREE;
	}
	if (status != HX_OK) {
		hx_frame_counter_add(&a->refused_frees, 1);
	}
	return status;
}

static hx_status release(struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	hx_status status = check_block(a, first, count);
	if (status == HX_OK) {
		uint64_t n;
		for (uint64_t f = first, left = count; left > 0; f += n, left -= n) {
			struct cell *c = cell_of(a, f);
			uint64_t mask = hx_frame_word_mask(f, left, &n);
			c->taken &= ~mask;
			c->end &= ~mask;
		}
		lower_hints(a, first);
		hx_frame_note_freed(a, count);
	}
	return status;
}

hx_status hx_frames_bitmap_free_run(struct hx_frame_allocator *a, struct hx_pfn first,
				    uint64_t count)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	unsigned long irq = hx_frame_lock(a);
	hx_status status = release(a, first.v, count);
	hx_frame_unlock(a, irq);
	return status;
}

hx_status hx_frames_bitmap_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	if (order > HX_ORDER_MAX) {
		return HX_INVALID_SIZE;
	}
	return hx_frames_bitmap_free_run(a, first, UINT64_C(1) << order);
}

uint64_t hx_frames_bitmap_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				    uint64_t count, hx_status *status)
{
	uint64_t n = 0;
	*status = HX_OK;
	unsigned long irq = hx_frame_lock(a);
	while (n < count && (*status = release(a, frames[n].v, 1)) == HX_OK) {
		n++;
	}
	hx_frame_unlock(a, irq);
	return n;
}

hx_status hx_frames_bitmap_split(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
				 uint64_t part)
{
	if (!hx_frame_split_valid(count, part)) {
		return HX_INVALID_SIZE;
	}
	unsigned long irq = hx_frame_lock(a);
	hx_status status = check_block(a, first.v, count);
	if (status == HX_OK) {
		for (uint64_t at = part; at < count; at += part) {
			uint64_t last = first.v + at - 1;
			cell_of(a, last)->end |= UINT64_C(1) << (last & 63);
		}
		hx_frame_note_split(a, count, part);
	}
	hx_frame_unlock(a, irq);
	return status;
}

struct hx_pfn_result hx_frames_bitmap_block_frames(struct hx_frame_allocator *a,
						   struct hx_pfn first)
{
	unsigned long irq = hx_frame_lock(a);
	uint64_t count = 0;
	hx_status status = block_at(a, first.v, &count);
	hx_frame_unlock(a, irq);
	return status == HX_OK ? hx_frame_found(count) : hx_frame_refused(status);
}

void hx_frames_bitmap_drain(struct hx_frame_allocator *a)
{
	(void)a; /* nothing is cached */
}

uint64_t hx_frames_bitmap_free_frames(const struct hx_frame_allocator *a)
{
	return hx_frame_counter(&a->free_frames);
}

void hx_frames_bitmap_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out)
{
	uint64_t end = a->base + a->span_frames;
	unsigned long irq = hx_frame_lock(a);
	hx_frame_common_stats(a, out);
	for (uint64_t f = next_frame(a, a->base, end, true); f < end;) {
		uint64_t stop = next_frame(a, f, end, false);
		hx_frame_count_blocks(f, stop, out);
		f = next_frame(a, stop, end, true);
	}
	hx_frame_unlock(a, irq);
}

hx_status hx_frames_bitmap_validate(const struct hx_frame_allocator *a)
{
	const struct bitmap *b = bitmap_of(a);
	uint64_t begin = a->base, end = a->base + a->span_frames;
	uint64_t free_frames = 0, taken_frames = 0;
	bool goes_on = false;
	for (uint64_t f = hx_align_down(begin, 64); f < end || (f & 63) != 0; f++) {
		const struct cell *c = cell_of(a, f < begin ? begin : f < end ? f : end - 1);
		bool taken = bit(c->taken, f), last = bit(c->end, f);
		bool hole = !taken && last;
		if ((f < begin || f >= end) && !hole) {
			return HX_CORRUPTED;
		}
		if (goes_on && !taken) { /* a block without an end */
			return HX_CORRUPTED;
		}
		goes_on = taken && !last;
		free_frames += !taken && !last;
		taken_frames += taken;
	}
	if (goes_on || free_frames != a->free_frames ||
	    free_frames + taken_frames != a->total_frames) {
		return HX_CORRUPTED;
	}
	for (uint64_t f = next_frame(a, begin, end, true); f < end;) {
		uint64_t stop = next_frame(a, f, end, false);
		for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
			uint64_t start, size = UINT64_C(1) << o;
			if (hx_align_up(f, size, &start) && start < stop && stop - start >= size &&
			    start < b->hint[o]) {
				return HX_CORRUPTED;
			}
		}
		f = next_frame(a, stop, end, true);
	}
	return HX_OK;
}

HX_FRAME_TRAIT_DEFINE(bitmap);
