/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The traits that are built in, and what they share; see trait.h. */
#include "trait.h"

static const struct hx_frame_trait *const traits[] = {
#ifdef HX_BUILTIN_FRAMES_BUMP
	&hx_frames_bump,
#endif
#ifdef HX_BUILTIN_FRAMES_BITMAP
	&hx_frames_bitmap,
#endif
#ifdef HX_BUILTIN_FRAMES_BUDDY
	&hx_frames_buddy,
#endif
#ifdef HX_BUILTIN_FRAMES_SLAB
	&hx_frames_slab,
#endif
#ifdef HX_BUILTIN_FRAMES_TREE
	&hx_frames_tree,
#endif
};

const struct hx_frame_trait *hx_frame_trait_at(unsigned i)
{
	return i < HX_ARRAY_LENGTH(traits) ? traits[i] : NULL;
}

const struct hx_frame_trait *hx_frame_trait_find(const char *name)
{
	for (unsigned i = 0; name && i < HX_ARRAY_LENGTH(traits); i++) {
		if (hx_streq(traits[i]->name, name)) {
			return traits[i];
		}
	}
	return NULL;
}

static bool power_of_two_or_zero(uint64_t v)
{
	return (v & (v - 1)) == 0;
}

bool hx_frame_constraint_valid(const struct hx_frame_constraint *c, uint64_t count)
{
	return !c ||
	       (power_of_two_or_zero(c->align_frames) && power_of_two_or_zero(c->boundary_frames) &&
		(c->boundary_frames == 0 || c->boundary_frames >= count));
}

hx_status hx_frame_window(const struct hx_frame_allocator *a, uint64_t count, uint64_t natural,
			  const struct hx_frame_constraint *c, struct hx_frame_window *w)
{
	*w = (struct hx_frame_window){
		.low = a->base, .high = a->base + a->span_frames, .align = natural};
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if (!hx_frame_constraint_valid(c, count)) {
		return HX_INVALID_ARGUMENT;
	}
	if (!c) {
		return HX_OK;
	}
	if (c->lowest.v > w->low) {
		w->low = c->lowest.v;
		w->narrowed = true;
	}
	if (c->limit.v != 0 && c->limit.v < w->high) {
		w->high = c->limit.v;
		w->narrowed = true;
	}
	if (c->align_frames > natural) {
		w->align = c->align_frames;
		w->narrowed = true;
	}
	w->boundary = c->boundary_frames;
	w->narrowed |= w->boundary != 0;
	return HX_OK;
}

bool hx_frame_fit(const struct hx_frame_window *w, uint64_t from, uint64_t end, uint64_t count,
		  uint64_t *start)
{
	from = from < w->low ? w->low : from;
	end = end > w->high ? w->high : end;
	uint64_t s;
	if (!hx_align_up(from, w->align, &s) || s > end || end - s < count) {
		return false;
	}
	if (w->boundary != 0 && ((s ^ (s + count - 1)) & -w->boundary) != 0) {
		/* It crosses a multiple, hence align < boundary: that multiple is aligned. */
		s = hx_align_down(s, w->boundary) + w->boundary;
		if (s > end || end - s < count) {
			return false;
		}
	}
	*start = s;
	return true;
}

unsigned hx_frame_order_at(uint64_t first, uint64_t end)
{
	unsigned order = hx_log2_floor(end - first);
	if (order > HX_ORDER_MAX) {
		order = HX_ORDER_MAX;
	}
	if (first != 0 && hx_ctz64(first) < order) {
		order = hx_ctz64(first);
	}
	return order;
}

void hx_frame_count_blocks(uint64_t first, uint64_t end, struct hx_frame_stats *out)
{
	while (first < end) {
		unsigned order = hx_frame_order_at(first, end);
		out->free_blocks[order]++;
		first += UINT64_C(1) << order;
	}
}

void hx_frame_common_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out)
{
	*out = (struct hx_frame_stats){
		.total_frames = a->total_frames,
		.free_frames = a->free_frames,
		.allocations = a->allocations,
		.frees = a->frees,
		.failures = a->failures,
		.refused_frees = a->refused_frees,
		.metadata_bytes = a->metadata_bytes,
	};
}
