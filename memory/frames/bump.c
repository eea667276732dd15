/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * bump - hands frames out in address order and never takes one back.
 *
 * For early boot, for memory that lives as long as the machine, and as the
 * smallest answer to the trait. The metadata do not grow with the span: two
 * short tables of extents, sorted by address, no two of which touch.
 *
 *      managed   every frame that was ever added
 *      free      what is left of it
 *
 * A request is cut from the front of the first free extent that it fits into.
 * What alignment leaves in front of it stays free as an extent of its own; when
 * the table is full, the smaller remainder counts as handed out, to nobody.
 *
 * A free of a frame that is not managed or still free is reported as such, every
 * other with NOT_SUPPORTED.
 */
#include "trait.h"

enum { EXTENTS_MAX = 256 };

struct extent {
	uint64_t first, end;
};

struct table {
	uint64_t count;
	struct extent extents[EXTENTS_MAX];
};

struct bump {
	struct table managed;
	struct table free;
};

static struct bump *bump_of(const struct hx_frame_allocator *a)
{
	return a->metadata;
}

/* Index of the first extent that ends behind @first. */
static uint64_t find(const struct table *t, uint64_t first)
{
	uint64_t i = 0;
	while (i < t->count && t->extents[i].end <= first) {
		i++;
	}
	return i;
}

static bool contains(const struct table *t, uint64_t first, uint64_t end)
{
	uint64_t i = find(t, first);
	return i < t->count && t->extents[i].first <= first && end <= t->extents[i].end;
}

static bool overlaps(const struct table *t, uint64_t first, uint64_t end)
{
	uint64_t i = find(t, first);
	return i < t->count && t->extents[i].first < end;
}

static void open_gap(struct table *t, uint64_t at)
{
	for (uint64_t i = t->count++; i > at; i--) {
		t->extents[i] = t->extents[i - 1];
	}
}

static void close_gap(struct table *t, uint64_t at)
{
	t->count--;
	for (uint64_t i = at; i < t->count; i++) {
		t->extents[i] = t->extents[i + 1];
	}
}

/* Join [first, end), which overlaps nothing, to the table. Needs room for one. */
static void insert(struct table *t, uint64_t first, uint64_t end)
{
	uint64_t i = find(t, first);
	bool before = i > 0 && t->extents[i - 1].end == first;
	bool behind = i < t->count && t->extents[i].first == end;
	if (before && behind) {
		t->extents[i - 1].end = t->extents[i].end;
		close_gap(t, i);
	} else if (before) {
		t->extents[i - 1].end = end;
	} else if (behind) {
		t->extents[i].first = first;
	} else {
		open_gap(t, i);
		t->extents[i] = (struct extent){first, end};
	}
}

/* Take [first, first + count) out of free extent @i, which holds it. */
static void cut(struct hx_frame_allocator *a, uint64_t i, uint64_t first, uint64_t count)
{
	struct table *t = &bump_of(a)->free;
	struct extent whole = t->extents[i];
	struct extent left = {whole.first, first}, right = {first + count, whole.end};
	uint64_t lost = 0;
	bool has_left = left.first < left.end, has_right = right.first < right.end;
	if (has_left && has_right && t->count == EXTENTS_MAX) {
		uint64_t left_frames = left.end - left.first;
		uint64_t right_frames = right.end - right.first;
		has_left = left_frames >= right_frames;
		has_right = !has_left;
		lost = has_left ? right_frames : left_frames;
	}
	if (has_left && has_right) {
		open_gap(t, i);
		t->extents[i] = left;
		t->extents[i + 1] = right;
	} else if (has_left || has_right) {
		t->extents[i] = has_left ? left : right;
	} else {
		close_gap(t, i);
	}
	hx_frame_note_taken(a, count + lost);
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
	const struct table *t = &bump_of(a)->free;
	uint64_t start = 0, i = 0;
	while (i < t->count &&
	       !hx_frame_fit(&w, t->extents[i].first, t->extents[i].end, count, &start)) {
		i++;
	}
	bool found = i < t->count;
	if (found) {
		cut(a, i, start, count);
	} else {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return found ? hx_frame_found(start) : hx_frame_refused(HX_OUT_OF_MEMORY);
}

static hx_status refuse_free(struct hx_frame_allocator *a, struct hx_pfn first)
{
	unsigned long irq = hx_frame_lock(a);
	hx_status status = HX_NOT_SUPPORTED;
	if (!hx_frame_in_span(a, first.v, 1) ||
	    !contains(&bump_of(a)->managed, first.v, first.v + 1)) {
		status = HX_FOREIGN_FREE;
	} else if (contains(&bump_of(a)->free, first.v, first.v + 1)) {
		status = HX_DOUBLE_FREE;
	}
	hx_frame_unlock(a, irq);
	return status;
}

static hx_status refuse_and_count(struct hx_frame_allocator *a, struct hx_pfn first)
{
	hx_status status = refuse_free(a, first);
	if (status != HX_NOT_SUPPORTED) {
		unsigned long irq = hx_frame_lock(a);
		hx_frame_counter_add(&a->refused_frees, 1);
		hx_frame_unlock(a, irq);
	}
	return status;
}

uint64_t hx_frames_bump_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	return hx_frame_span_valid(base, span_frames) ? sizeof(struct bump) : 0;
}

hx_status hx_frames_bump_init(struct hx_frame_allocator *a)
{
	if (!hx_frame_span_valid(a->base, a->span_frames) || !a->metadata ||
	    a->metadata_bytes < sizeof(struct bump)) {
		return HX_INVALID_SIZE;
	}
	bump_of(a)->managed.count = 0;
	bump_of(a)->free.count = 0;
	return HX_OK;
}

bool hx_frames_bump_holes(const struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return false;
	}
	unsigned long irq = hx_frame_lock(a);
	bool all = !overlaps(&bump_of(a)->managed, first.v, first.v + count);
	hx_frame_unlock(a, irq);
	return all;
}

/* OUT_OF_MEMORY when the extents are too many for the tables. */
hx_status hx_frames_bump_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_INVALID_ARGUMENT;
	}
	struct bump *b = bump_of(a);
	hx_status status = HX_OK;
	unsigned long irq = hx_frame_lock(a);
	if (overlaps(&b->managed, first.v, first.v + count)) {
		status = HX_INVALID_ARGUMENT;
	} else if (b->managed.count == EXTENTS_MAX || b->free.count == EXTENTS_MAX) {
		status = HX_OUT_OF_MEMORY;
	} else {
		insert(&b->managed, first.v, first.v + count);
		insert(&b->free, first.v, first.v + count);
		hx_frame_note_added(a, count);
	}
	hx_frame_unlock(a, irq);
	return status;
}

struct hx_pfn_result hx_frames_bump_allocate(struct hx_frame_allocator *a, unsigned order,
					     unsigned flags, const struct hx_frame_constraint *c)
{
	(void)flags; /* everything stays */
	if (order > HX_ORDER_MAX) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	return allocate(a, UINT64_C(1) << order, UINT64_C(1) << order, c);
}

struct hx_pfn_result hx_frames_bump_allocate_run(struct hx_frame_allocator *a, uint64_t count,
						 unsigned flags,
						 const struct hx_frame_constraint *c)
{
	(void)flags;
	return allocate(a, count, 1, c);
}

uint64_t hx_frames_bump_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
				      uint64_t count, unsigned flags)
{
	(void)flags;
	const struct table *t = &bump_of(a)->free;
	uint64_t n = 0;
	unsigned long irq = hx_frame_lock(a);
	for (; n < count && t->count > 0; n++) {
		out[n] = hx_pfn(t->extents[0].first);
		cut(a, 0, out[n].v, 1);
	}
	if (n < count) {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return n;
}

hx_status hx_frames_bump_reserve(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_ALREADY_MAPPED;
	}
	unsigned long irq = hx_frame_lock(a);
	const struct table *t = &bump_of(a)->free;
	bool all_free = contains(t, first.v, first.v + count);
	if (all_free) {
		cut(a, find(t, first.v), first.v, count);
	}
	hx_frame_unlock(a, irq);
	return all_free ? HX_OK : HX_ALREADY_MAPPED;
}

hx_status hx_frames_bump_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	return order > HX_ORDER_MAX ? HX_INVALID_SIZE : refuse_and_count(a, first);
}

hx_status hx_frames_bump_free_run(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	return count == 0 ? HX_INVALID_SIZE : refuse_and_count(a, first);
}

uint64_t hx_frames_bump_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				  uint64_t count, hx_status *status)
{
	*status = count == 0 ? HX_OK : refuse_and_count(a, frames[0]);
	return 0;
}

/* Where allocations begin and end is not known, nor does it matter: none comes back. */
hx_status hx_frames_bump_split(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
			       uint64_t part)
{
	return hx_frame_split_valid(count, part) ? refuse_and_count(a, first) : HX_INVALID_SIZE;
}

struct hx_pfn_result hx_frames_bump_block_frames(struct hx_frame_allocator *a, struct hx_pfn first)
{
	return hx_frame_refused(refuse_free(a, first));
}

void hx_frames_bump_drain(struct hx_frame_allocator *a)
{
	(void)a; /* nothing is cached */
}

uint64_t hx_frames_bump_free_frames(const struct hx_frame_allocator *a)
{
	return hx_frame_counter(&a->free_frames);
}

void hx_frames_bump_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out)
{
	unsigned long irq = hx_frame_lock(a);
	hx_frame_common_stats(a, out);
	const struct table *t = &bump_of(a)->free;
	for (uint64_t i = 0; i < t->count; i++) {
		hx_frame_count_blocks(t->extents[i].first, t->extents[i].end, out);
	}
	hx_frame_unlock(a, irq);
}

static bool table_valid(const struct hx_frame_allocator *a, const struct table *t, uint64_t *frames)
{
	*frames = 0;
	if (t->count > EXTENTS_MAX) {
		return false;
	}
	for (uint64_t i = 0; i < t->count; i++) {
		const struct extent *e = &t->extents[i];
		if (e->first >= e->end || !hx_frame_in_span(a, e->first, e->end - e->first) ||
		    (i > 0 && t->extents[i - 1].end >= e->first)) {
			return false;
		}
		*frames += e->end - e->first;
	}
	return true;
}

hx_status hx_frames_bump_validate(const struct hx_frame_allocator *a)
{
	const struct bump *b = bump_of(a);
	uint64_t managed, free_frames;
	if (!table_valid(a, &b->managed, &managed) || !table_valid(a, &b->free, &free_frames) ||
	    managed != a->total_frames || free_frames != a->free_frames) {
		return HX_CORRUPTED;
	}
	for (uint64_t i = 0; i < b->free.count; i++) {
		if (!contains(&b->managed, b->free.extents[i].first, b->free.extents[i].end)) {
			return HX_CORRUPTED;
		}
	}
	return HX_OK;
}

HX_FRAME_TRAIT_DEFINE(bump);
