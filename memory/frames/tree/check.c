/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* tree: what is there - statistics, the validator, and building the index anew; see tree.h. */
#include "tree.h"

/* ---- Counting ---- */

static void sum_up(struct hx_tree_counters *sum, const struct hx_tree_counters *c)
{
	sum->singles_taken += hx_frame_counter(&c->singles_taken);
	sum->singles_given += hx_frame_counter(&c->singles_given);
	sum->wholes_taken += hx_frame_counter(&c->wholes_taken);
	sum->wholes_given += hx_frame_counter(&c->wholes_given);
	sum->others_taken += hx_frame_counter(&c->others_taken);
	sum->others_given += hx_frame_counter(&c->others_given);
	sum->frames_taken += hx_frame_counter(&c->frames_taken);
	sum->frames_given += hx_frame_counter(&c->frames_given);
}

static struct hx_tree_counters counters(const struct hx_tree *t)
{
	struct hx_tree_counters sum = {0};
	sum_up(&sum, &t->count);
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		sum_up(&sum, &t->cpu[i].count);
	}
	return sum;
}

static uint64_t frames_out(const struct hx_tree_counters *c)
{
	return c->singles_taken - c->singles_given + c->frames_taken - c->frames_given +
	       (c->wholes_taken - c->wholes_given) * CHILD_FRAMES;
}

uint64_t hx_frames_tree_free_frames(const struct hx_frame_allocator *a)
{
	const struct hx_tree_counters c = counters(tree_of(a));
	return hx_frame_counter(&a->total_frames) - frames_out(&c);
}

static uint64_t held_frames(const struct hx_tree *t)
{
	uint64_t frames = 0;
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		const struct hx_tree_cpu *p = &t->cpu[i];
		frames += hx_bits_count(hx_word_peek(&p->pending.mask));
		for (unsigned c = 0; c < CLASSES; c++) {
			frames += hx_bits_count(hx_word_peek(&p->private_row[c].mask));
		}
	}
	return frames;
}

/* Frames of a row that are free in the bitmap, whoever owns the child. */
static uint64_t free_bits(const struct hx_tree *t, uint32_t child, unsigned row, unsigned state)
{
	const enum kind kind = kind_of_state(state);
	return hx_tree_free_bits(t, child, row,
				 has_rows(kind) ? state_of(kind, PLACE_FULL) : state);
}

void hx_frames_tree_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out)
{
	const struct hx_tree *t = tree_of(a);
	const struct hx_tree_counters c = counters(t);
	hx_frame_common_stats(a, out);
	out->free_frames = hx_frame_counter(&a->total_frames) - frames_out(&c);
	out->allocations = c.singles_taken + c.wholes_taken + c.others_taken;
	out->frees = c.singles_given + c.wholes_given + c.others_given;
	out->cached_frames = held_frames(t);
	/* Runs of free frames, from the first to the one that ends them. */
	uint64_t begin = 0, f = first_of_child(t, t->lead);
	bool inside = false;
	for (uint32_t child = t->lead; child < t->children; child++) {
		const unsigned state = hx_tree_state(t, child);
		for (unsigned row = 0; row < CHILD_ROWS; row++, f += ROW_FRAMES) {
			uint64_t bits = free_bits(t, child, row, state);
			for (unsigned at = 0; at < ROW_FRAMES;) {
				/* Frames from here on that are as this one is. */
				const uint64_t other = (inside ? ~bits : bits) >> at;
				if (other == 0) {
					break;
				}
				at += hx_bits_ctz(other);
				if (inside) {
					hx_frame_count_blocks(begin, f + at, out);
				}
				begin = f + at;
				inside = !inside;
			}
		}
	}
	if (inside) {
		hx_frame_count_blocks(begin, f, out);
	}
	out->free_blocks[0] += out->cached_frames; /* single ones until they are drained */
}

/* ---- The validator ---- */

/* How often CPUs have noted @child as theirs. */
static unsigned owners(const struct hx_tree *t, uint32_t child)
{
	unsigned n = 0;
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		const struct hx_tree_cpu *p = &t->cpu[i];
		n += p->putting == child;
		for (unsigned c = 0; c < CLASSES; c++) {
			n += p->singles[c] == child;
			for (unsigned g = 0; g < GROUPS; g++) {
				n += p->mixed[g][c] == child;
			}
		}
	}
	return n;
}

/* Held frames are taken in the bitmap, in a child of singles that this CPU owns. */
static bool held_is_sound(const struct hx_tree *t, const struct hx_tree_cpu *p,
			  const struct held_row *held)
{
	if (held->row == NO_ROW) {
		return held->mask == 0;
	}
	const uint64_t row = (uint32_t)held->row;
	const uint32_t child = (uint32_t)(row / CHILD_ROWS);
	if (child < t->lead || child >= t->children || (~*row_word(t, row) & held->mask) != 0) {
		return false;
	}
	bool mine = child == p->putting;
	for (unsigned c = 0; c < CLASSES; c++) {
		mine |= child == p->singles[c];
	}
	return held->mask == 0 || (mine && is_singles(kind_of_state(hx_tree_state(t, child))));
}

static bool cpu_is_sound(const struct hx_tree *t, unsigned cpu)
{
	const struct hx_tree_cpu *p = &t->cpu[cpu];
	uint64_t both = 0;
	for (unsigned c = 0; c < CLASSES; c++) {
		if (!held_is_sound(t, p, &p->private_row[c])) {
			return false;
		}
		both |= p->private_row[c].row == p->pending.row
				? p->private_row[c].mask & p->pending.mask
				: 0;
	}
	return p->busy == 0 && p->stop == 0 && both == 0 && held_is_sound(t, p, &p->pending) &&
	       ((t->cpus >> cpu & 1) != 0 || (p->pending.mask == 0 && p->putting == NO_CHILD));
}

/* Every listed child is found by its listing, which promises no more than there is. */
static bool listing_is_sound(const struct hx_tree *t, uint32_t child, unsigned state)
{
	const unsigned place = place_of_state(state);
	const uint64_t hint = hx_tree_hint(state);
	if (is_owned(state)) {
		return owners(t, child) == 1;
	}
	if ((t->hints[child / TREE_CHILDREN] & hint) != hint || owners(t, child) != 0) {
		return false;
	}
	if (!has_rows(kind_of_state(state))) {
		return true;
	}
	const unsigned listing = hx_tree_listing(t, child, kind_of_state(state));
	/* An empty child is FREE, one that has anything is listed somewhere. */
	return listing != STATE_FREE && place <= place_of_state(listing) &&
	       (place > PLACE_FULL) == (place_of_state(listing) > PLACE_FULL);
}

/* What allocations look like: @goes_on tells of the frame before, and of the last one. */
static bool frames_are_sound(const struct hx_frame_allocator *a, uint32_t child, bool *goes_on,
			     uint64_t *free, uint64_t *taken)
{
	const struct hx_tree *t = tree_of(a);
	const unsigned state = hx_tree_state(t, child);
	const enum kind kind = kind_of_state(state);
	if (!has_rows(kind)) {
		const bool used = state == STATE_WHOLE_ON || state == STATE_WHOLE_END;
		if (state > STATE_WHOLE_END || (*goes_on && !used)) {
			return false;
		}
		*goes_on = state == STATE_WHOLE_ON;
		*free += state == STATE_FREE ? CHILD_FRAMES : 0;
		*taken += used ? CHILD_FRAMES : 0;
		return true;
	}
	const uint64_t first = first_of_child(t, child);
	for (unsigned f = 0; f < CHILD_FRAMES; f++) {
		const uint64_t bit = UINT64_C(1) << f % ROW_FRAMES;
		const bool used = (rows_of(t, child)[f / ROW_FRAMES] & bit) != 0;
		const bool end = !has_ends(kind) || (ends_of(t, child)[f / ROW_FRAMES] & bit) != 0;
		const bool hole = !used && end && kind == KIND_HOLEY;
		if ((*goes_on && !used) || (!hole && !hx_frame_in_span(a, first + f, 1))) {
			return false;
		}
		*goes_on = used && !end;
		*free += !used && !hole;
		*taken += used;
	}
	return true;
}

hx_status hx_frames_tree_validate(const struct hx_frame_allocator *a)
{
	const struct hx_tree *t = tree_of(a);
	uint64_t free = 0, taken = 0;
	bool goes_on = false;
	for (uint32_t child = 0; child < t->trees * TREE_CHILDREN; child++) {
		if (child < t->lead || child >= t->children) {
			if (hx_tree_state(t, child) != STATE_HOLE) {
				return HX_CORRUPTED;
			}
		} else if (!listing_is_sound(t, child, hx_tree_state(t, child)) ||
			   !frames_are_sound(a, child, &goes_on, &free, &taken)) {
			return HX_CORRUPTED;
		}
	}
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		if (!cpu_is_sound(t, i)) {
			return HX_CORRUPTED;
		}
	}
	const uint64_t held = held_frames(t);
	return !goes_on && free + taken == a->total_frames &&
			       free + held == hx_frames_tree_free_frames(a)
		       ? HX_OK
		       : HX_CORRUPTED;
}

/* ---- Draining ---- */

void hx_frames_tree_drain(struct hx_frame_allocator *a)
{
	struct hx_tree *t = tree_of(a);
	const unsigned long irq = hx_frame_lock(a);
	hx_tree_resume(t, hx_tree_stop(t));
	hx_frame_unlock(a, irq);
}

/* ---- Building the index anew ---- */

void hx_frames_tree_rebuild(struct hx_frame_allocator *a)
{
	struct hx_tree *t = tree_of(a);
	for (uint32_t i = 0; i < t->trees; i++) {
		t->hints[i] = 0;
	}
	for (uint32_t child = t->lead; child < t->children; child++) {
		const enum kind kind = kind_of_state(hx_tree_state(t, child));
		const unsigned listing =
			has_rows(kind) ? hx_tree_listing(t, child, kind) : hx_tree_state(t, child);
		hx_tree_set(t, child, listing);
		hx_tree_show(t, child, listing);
	}
}
