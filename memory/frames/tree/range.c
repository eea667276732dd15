/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * tree: any frames - constraints, any length, given ranges, holes, splits; see tree.h.
 *
 * All of this runs under the allocator's lock, which those on the fast path never take:
 * it looks at children without owning them, claims those that it wants, looks again, and
 * begins anew behind the place where another CPU was faster. What CPUs hold for themselves
 * is taken from them only when nothing else is left (hx_tree_stop()).
 */
#include "tree.h"

/* ---- Looking ---- */

/* Frames of the word of @f that could be claimed. */
static uint64_t free_word(const struct hx_tree *t, uint64_t f)
{
	const uint32_t child = child_of_frame(t, f);
	return hx_tree_free_bits(t, child, f % CHILD_FRAMES / ROW_FRAMES, hx_tree_state(t, child));
}

/* Nothing of the child can be claimed; known without its rows. */
static bool is_closed(unsigned state)
{
	return state != STATE_FREE && (!has_rows(kind_of_state(state)) || is_owned(state) ||
				       place_of_state(state) == PLACE_FULL);
}

/* The lowest frame in [f, end) that can be claimed; end when there is none. */
static uint64_t next_free(const struct hx_tree *t, uint64_t f, uint64_t end)
{
	while (f < end) {
		uint64_t n = CHILD_FRAMES - f % CHILD_FRAMES;
		if (!is_closed(hx_tree_state(t, child_of_frame(t, f)))) {
			const uint64_t bits = free_word(t, f) & hx_frame_word_mask(f, end - f, &n);
			if (bits != 0) {
				return hx_align_down(f, ROW_FRAMES) + hx_bits_ctz(bits);
			}
		}
		f += n;
	}
	return end;
}

/* The highest frame in [first, end) that cannot be claimed; false: all can. */
static bool last_used(const struct hx_tree *t, uint64_t first, uint64_t end, uint64_t *out)
{
	while (end > first) {
		uint64_t from = hx_align_down(end - 1, ROW_FRAMES);
		from = from < first ? first : from;
		uint64_t n;
		const uint64_t mask = hx_frame_word_mask(from, end - from, &n);
		const uint64_t used = ~free_word(t, from) & mask;
		if (used != 0) {
			*out = hx_align_down(from, ROW_FRAMES) + hx_log2_floor(used);
			return true;
		}
		end = from;
	}
	return false;
}

/* ---- Parts of a range, child by child ---- */

struct part {
	uint32_t child;
	unsigned from, count; /* in the child */
	bool goes_on;         /* the range does, into the next child */
};

/* The part of [first, first + count) in its first child. */
static struct part part_of(const struct hx_tree *t, uint64_t first, uint64_t count)
{
	const unsigned from = first % CHILD_FRAMES;
	const bool more = count > CHILD_FRAMES - from;
	return (struct part){child_of_frame(t, first), from,
			     more ? CHILD_FRAMES - from : (unsigned)count, more};
}

static bool is_whole(const struct part *p)
{
	return p->count == CHILD_FRAMES;
}

/* What a FREE child becomes for this part. */
static enum kind kind_for(const struct part *p, uint64_t count, unsigned class)
{
	return is_whole(p)  ? KIND_WHOLE
	       : count == 1 ? (enum kind)(KIND_SINGLES + class)
			    : (enum kind)(KIND_MIXED + class);
}

static void give_up(struct hx_tree *t, uint32_t child)
{
	const unsigned state = hx_tree_state(t, child);
	if (state == STATE_MAKING) {
		hx_tree_set(t, child, STATE_FREE);
		hx_tree_show(t, child, STATE_FREE);
	} else {
		hx_tree_publish(t, child, kind_of_state(state));
	}
}

/* Claim the children of [first, first + count), which are to be free there. */
static bool claim_all(struct hx_tree *t, uint64_t first, uint64_t count, unsigned class)
{
	for (uint64_t done = 0; done < count;) {
		const struct part p = part_of(t, first + done, count - done);
		const unsigned state = hx_tree_state(t, p.child);
		bool claimed = hx_tree_claim(t, p.child, state, kind_for(&p, count, class));
		bool free = claimed;
		if (claimed && has_rows(kind_of_state(state))) {
			/* As free as it would be without an owner. */
			uint64_t n;
			for (unsigned f = p.from, left = p.count; left > 0 && free;
			     f += n, left -= n) {
				const uint64_t mask = hx_frame_word_mask(f, left, &n);
				free = (~hx_tree_free_bits(t, p.child, f / ROW_FRAMES, state) &
					mask) == 0;
			}
		}
		done += claimed ? p.count : 0;
		if (!free) {
			while (done > 0) {
				/* The parts before it, this one included if it was claimed. */
				const uint64_t last = first + done - 1;
				give_up(t, child_of_frame(t, last));
				const uint64_t begin = hx_align_down(last, CHILD_FRAMES);
				done = begin > first ? begin - first : 0;
			}
			return false;
		}
	}
	return true;
}

/* The caller owns the children. From the end on: no part is there without what follows. */
static void take_all(struct hx_tree *t, uint64_t first, uint64_t count)
{
	for (uint64_t left = count; left > 0;) {
		const uint64_t begin = hx_align_down(first + left - 1, CHILD_FRAMES);
		const uint64_t at = begin > first ? begin : first;
		struct part p = part_of(t, at, first + left - at);
		p.goes_on = left < count;
		const unsigned state = hx_tree_state(t, p.child);
		enum kind kind = kind_of_state(state);
		if (state == STATE_MAKING) {
			hx_tree_set(t, p.child, p.goes_on ? STATE_WHOLE_ON : STATE_WHOLE_END);
		} else {
			if (is_singles(kind) && count > 1) {
				hx_tree_mix(t, p.child, kind);
				kind = mixed_of(kind);
			}
			hx_tree_take_part(t, p.child, kind, p.from, p.count, p.goes_on);
			hx_tree_publish(t, p.child, kind);
		}
		left = at - first;
	}
}

static bool take_range(struct hx_tree *t, uint64_t first, uint64_t count, unsigned class)
{
	if (!claim_all(t, first, count, class)) {
		return false;
	}
	take_all(t, first, count);
	return true;
}

static bool search(struct hx_tree *t, uint64_t count, const struct hx_frame_window *w,
		   unsigned class, uint64_t *first)
{
	uint64_t from = next_free(t, w->low, w->high);
	while (hx_frame_fit(w, from, w->high, count, first)) {
		uint64_t used = *first;
		if (!last_used(t, *first, *first + count, &used) &&
		    take_range(t, *first, count, class)) {
			return true;
		}
		from = next_free(t, used + 1, w->high);
	}
	return false;
}

struct hx_pfn_result hx_tree_take_anywhere(struct hx_frame_allocator *a, uint64_t count,
					   const struct hx_frame_window *w, unsigned class)
{
	struct hx_tree *t = tree_of(a);
	uint64_t first = 0;
	const unsigned long irq = hx_frame_lock(a);
	bool found = search(t, count, w, class, &first);
	if (!found && hx_word_load(&t->cpus) != 0) {
		const uint64_t stopped = hx_tree_stop(t);
		found = search(t, count, w, class, &first);
		hx_tree_resume(t, stopped);
	}
	if (!found) {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return found ? hx_frame_found(first) : hx_frame_refused(HX_OUT_OF_MEMORY);
}

hx_status hx_frames_tree_reserve(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	struct hx_tree *t = tree_of(a);
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_ALREADY_MAPPED;
	}
	const unsigned long irq = hx_frame_lock(a);
	bool taken = take_range(t, first.v, count, 0);
	if (!taken && hx_word_load(&t->cpus) != 0) {
		const uint64_t stopped = hx_tree_stop(t);
		taken = take_range(t, first.v, count, 0);
		hx_tree_resume(t, stopped);
	}
	if (taken) {
		hx_word_add(&t->count.others_taken, 1);
		hx_word_add(&t->count.frames_taken, count);
	}
	hx_frame_unlock(a, irq);
	return taken ? HX_OK : HX_ALREADY_MAPPED;
}

/* ---- Giving ---- */

hx_status hx_tree_give_children(struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	struct hx_tree *t = tree_of(a);
	uint64_t length = 0, used;
	const unsigned long irq = hx_frame_lock(a);
	/* Once more: of two that free the same, one is here first. */
	const hx_status status = hx_tree_length(a, first, &length);
	HX_ASSERT(status != HX_OK || length == count);
	/* From the end on: what is left always begins at @first. */
	for (uint64_t left = status == HX_OK ? count : 0; left > 0;) {
		const uint64_t begin = hx_align_down(first + left - 1, CHILD_FRAMES);
		const uint64_t at = begin > first ? begin : first;
		const struct part p = part_of(t, at, first + left - at);
		const enum kind kind = kind_of_state(hx_tree_state(t, p.child));
		if (has_rows(kind)) {
			const bool taken =
				hx_tree_free_part(t, p.child, kind, p.from, p.count, &used);
			HX_ASSERT(taken);
			hx_tree_relist(t, p.child);
		} else {
			hx_tree_set(t, p.child, STATE_FREE);
			hx_tree_show(t, p.child, STATE_FREE);
		}
		left = at - first;
	}
	hx_frame_unlock(a, irq);
	return status;
}

/* ---- Splitting ---- */

/*
 * A child of an allocation that begins at @begin gets the ends of its parts. Whose the
 * allocation is has it to itself: no lock.
 */
static void split_child(struct hx_tree *t, const struct part *p, uint64_t begin, uint64_t part)
{
	const bool whole = !has_rows(kind_of_state(hx_tree_state(t, p->child)));
	const uint64_t first = first_of_child(t, p->child) - begin; /* may wrap: before begin */
	uint64_t ends[CHILD_ROWS] = {0};
	if (whole && part % CHILD_FRAMES == 0) {
		hx_tree_set(t, p->child,
			    (first + CHILD_FRAMES) % part == 0 ? STATE_WHOLE_END : STATE_WHOLE_ON);
		return;
	}
	for (unsigned f = p->from; f < p->from + p->count; f++) {
		ends[f / ROW_FRAMES] |= (uint64_t)((first + f + 1) % part == 0) << f % ROW_FRAMES;
	}
	if (whole) { /* it has no rows yet */
		hx_tree_clear(t, p->child, KIND_MIXED);
		hx_tree_take_part(t, p->child, KIND_MIXED, 0, CHILD_FRAMES, true);
	}
	hx_tree_split_part(t, p->child, p->from, p->count, ends);
	if (whole) {
		hx_tree_set(t, p->child, state_of(KIND_MIXED, PLACE_FULL));
	}
}

hx_status hx_frames_tree_split(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
			       uint64_t part)
{
	struct hx_tree *t = tree_of(a);
	uint64_t length = 0;
	if (count == 0 || part == 0 || count % part != 0) {
		return HX_INVALID_SIZE;
	}
	hx_status status = hx_tree_length(a, first.v, &length);
	if (status == HX_OK && length != count) {
		status = HX_WRONG_SIZE_FREE;
	}
	if (status != HX_OK) {
		hx_word_add(&a->refused_frees, 1);
		return status;
	}
	for (uint64_t done = 0; part < count && done < count;) {
		const struct part p = part_of(t, first.v + done, count - done);
		split_child(t, &p, first.v, part);
		done += p.count;
	}
	hx_word_add(&t->count.others_taken, count / part - 1);
	return HX_OK;
}

/* ---- Holes ---- */

static bool all_holes(const struct hx_tree *t, uint64_t first, uint64_t count)
{
	for (uint64_t done = 0; done < count;) {
		const struct part p = part_of(t, first + done, count - done);
		const unsigned state = hx_tree_state(t, p.child);
		bool holes = state == STATE_HOLE;
		if (is_whole(&p) && hx_tree_are_holes(t, p.child, (count - done) / CHILD_FRAMES)) {
			done += (uint64_t)TREE_CHILDREN * CHILD_FRAMES;
			continue;
		}
		if (kind_of_state(state) == KIND_HOLEY) {
			uint64_t n;
			holes = true;
			for (unsigned f = p.from, left = p.count; left > 0; f += n, left -= n) {
				const uint64_t mask = hx_frame_word_mask(f, left, &n);
				const unsigned row = f / ROW_FRAMES;
				holes &= (~rows_of(t, p.child)[row] & ends_of(t, p.child)[row] &
					  mask) == mask;
			}
		}
		if (!holes) {
			return false;
		}
		done += p.count;
	}
	return true;
}

bool hx_frames_tree_holes(const struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return false;
	}
	const unsigned long irq = hx_frame_lock(a);
	const bool all = all_holes(tree_of(a), first.v, count);
	hx_frame_unlock(a, irq);
	return all;
}

/* Part of a child becomes free that has holes; nobody else owns it, HOLEY is never owned. */
static void add_part(struct hx_tree *t, const struct part *p)
{
	const uint32_t child = p->child;
	if (hx_tree_state(t, child) == STATE_HOLE) {
		for (unsigned i = 0; i < CHILD_ROWS; i++) {
			hx_word_set(&rows_of(t, child)[i], 0);
			hx_word_set(&ends_of(t, child)[i], UINT64_MAX);
		}
		hx_tree_set(t, child, state_of(KIND_HOLEY, PLACE_OWNED));
	} else {
		const bool claimed = hx_tree_claim(t, child, hx_tree_state(t, child), KIND_WHOLE);
		HX_ASSERT(claimed);
	}
	uint64_t n, holes = 0;
	for (unsigned f = p->from, left = p->count; left > 0; f += n, left -= n) {
		const uint64_t mask = hx_frame_word_mask(f, left, &n);
		hx_word_and(&ends_of(t, child)[f / ROW_FRAMES], ~mask);
	}
	for (unsigned i = 0; i < CHILD_ROWS; i++) {
		holes |= ~hx_word_peek(&rows_of(t, child)[i]) & hx_word_peek(&ends_of(t, child)[i]);
	}
	/* Without a hole it is like any other. */
	const enum kind kind = holes != 0 ? KIND_HOLEY : KIND_MIXED;
	hx_tree_set(t, child, state_of(kind, PLACE_OWNED));
	hx_tree_publish(t, child, kind);
}

hx_status hx_frames_tree_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	struct hx_tree *t = tree_of(a);
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_INVALID_ARGUMENT;
	}
	const unsigned long irq = hx_frame_lock(a);
	const bool all = all_holes(t, first.v, count);
	for (uint64_t done = 0; all && done < count;) {
		const struct part p = part_of(t, first.v + done, count - done);
		if (!is_whole(&p)) {
			add_part(t, &p);
			done += p.count;
			continue;
		}
		/* Whole children: at once where they fill a tree. */
		done += hx_tree_add_children(t, p.child, (count - done) / CHILD_FRAMES) *
			(uint64_t)CHILD_FRAMES;
	}
	if (all) {
		hx_frame_counter_add(&a->total_frames, count);
	}
	hx_frame_unlock(a, irq);
	return all ? HX_OK : HX_INVALID_ARGUMENT;
}
