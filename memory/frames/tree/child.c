/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* tree: the frames of one child - what is free, taking, freeing, lengths; see tree.h. */
#include "tree.h"

/* Orders of blocks within a row: 0..6. */
enum { ROW_ORDER = 6 };

/* Bits at which an aligned block of 2^order frames may begin, order 0..6. */
static const uint64_t begins[] = {
	UINT64_MAX,
	UINT64_C(0x5555555555555555),
	UINT64_C(0x1111111111111111),
	UINT64_C(0x0101010101010101),
	UINT64_C(0x0001000100010001),
	UINT64_C(0x0000000100000001),
	UINT64_C(0x0000000000000001),
};

/* 2^order bits, order 0..6. */
static uint64_t block_bits(unsigned order)
{
	return UINT64_MAX >> (64 - (1u << order));
}

/* Where aligned blocks of 2^order set bits of @bits begin. */
static uint64_t blocks_in(uint64_t bits, unsigned order)
{
	for (unsigned i = 0; i < order; i++) {
		bits &= bits >> (1u << i);
	}
	return bits & begins[order];
}

/* ---- What is free ---- */

static uint64_t free_in_row(const struct hx_tree *t, uint32_t child, unsigned row, enum kind kind)
{
	uint64_t used = hx_word_load(&rows_of(t, child)[row]);
	if (kind == KIND_HOLEY) {
		used |= hx_word_load(&ends_of(t, child)[row]);
	}
	return ~used;
}

uint64_t hx_tree_free_bits(const struct hx_tree *t, uint32_t child, unsigned row, unsigned state)
{
	if (state == STATE_FREE) {
		return UINT64_MAX;
	}
	return has_rows(kind_of_state(state)) && !is_owned(state)
		       ? free_in_row(t, child, row, kind_of_state(state))
		       : 0;
}

/* Order of the largest aligned free block; @whole says which rows are wholly free. */
static unsigned largest_block(const uint64_t free[CHILD_ROWS], unsigned whole)
{
	if (whole != 0) {
		unsigned pairs = whole & whole >> 1 & 0x55;
		return (pairs & pairs >> 2 & 0x11) != 0 ? 8 : pairs != 0 ? 7 : 6;
	}
	/* Halve the question: is there one of 2^3, then of 2^5 or 2^1 ... */
	uint64_t runs[CHILD_ROWS];
	unsigned order = 0;
	for (unsigned i = 0; i < CHILD_ROWS; i++) {
		runs[i] = free[i];
	}
	for (; order < ROW_ORDER - 1; order++) {
		uint64_t any = 0;
		for (unsigned i = 0; i < CHILD_ROWS; i++) {
			runs[i] &= runs[i] >> (1u << order) & begins[order + 1];
			any |= runs[i];
		}
		if (any == 0) {
			break;
		}
	}
	return order;
}

unsigned hx_tree_listing(const struct hx_tree *t, uint32_t child, enum kind kind)
{
	uint64_t free[CHILD_ROWS], any = 0, all = UINT64_MAX;
	unsigned whole = 0;
	for (unsigned i = 0; i < CHILD_ROWS; i++) {
		free[i] = free_in_row(t, child, i, kind);
		any |= free[i];
		all &= free[i];
		whole |= (unsigned)(free[i] == UINT64_MAX) << i;
	}
	if (any == 0) {
		return state_of(kind, PLACE_FULL);
	}
	if (all == UINT64_MAX && kind != KIND_HOLEY) {
		return STATE_FREE;
	}
	if (!is_singles(kind)) {
		unsigned order = all == UINT64_MAX ? 8 : largest_block(free, whole);
		return state_of(kind, 1 + order);
	}
	unsigned frames = 0;
	for (unsigned i = 0; i < CHILD_ROWS; i++) {
		frames += hx_bits_count(free[i]);
	}
	return state_of(kind,
			frames < SINGLES_THIN ? 1 : 2 + (frames - SINGLES_THIN) / SINGLES_STEP);
}

/* ---- Taking ---- */

void hx_tree_clear(struct hx_tree *t, uint32_t child, enum kind kind)
{
	for (unsigned i = 0; i < CHILD_ROWS; i++) {
		hx_word_set(&rows_of(t, child)[i], 0);
		if (has_ends(kind)) {
			hx_word_set(&ends_of(t, child)[i], 0);
		}
	}
}

/*
 * The free frames of @mask in one row are an allocation's from now on; @last: its end.
 * Others change other bits of the word at the same time.
 */
static void write_ends(struct hx_tree *t, uint32_t child, unsigned row, uint64_t mask,
		       uint64_t last)
{
	uint64_t *ends = &ends_of(t, child)[row];
	const uint64_t change = (hx_word_peek(ends) & mask) ^ last;
	if (change != 0) {
		hx_word_xor(ends, change);
	}
}

/* Rows that are wholly free, aligned to as many as the block has. */
static bool take_rows(struct hx_tree *t, uint32_t child, unsigned n, uint64_t *first)
{
	const uint64_t *rows = rows_of(t, child);
	for (unsigned r = 0; r < CHILD_ROWS; r += n) {
		uint64_t used = 0;
		for (unsigned i = 0; i < n; i++) {
			used |= hx_word_peek(&rows[r + i]);
		}
		if (used == 0) { /* and so it stays: the caller owns the child */
			*first = first_of_child(t, child) + (uint64_t)r * ROW_FRAMES;
			hx_tree_take_part(t, child, KIND_MIXED, r * ROW_FRAMES, n * ROW_FRAMES,
					  false);
			return true;
		}
	}
	return false;
}

/* One of the blocks of 2^order frames that are free in row @r; @fit: no larger one's half. */
static bool take_in_row(struct hx_tree *t, uint32_t child, unsigned r, unsigned order, bool fit,
			uint64_t *first)
{
	uint64_t *row = &rows_of(t, child)[r];
	uint64_t used = hx_word_peek(row);
	while (used != UINT64_MAX) {
		uint64_t found = blocks_in(~used, order);
		if (fit && order < ROW_ORDER) {
			const uint64_t two = found & found >> (1u << order) & begins[order + 1];
			found &= ~(two | two << (1u << order));
		}
		if (found == 0) {
			return false;
		}
		const unsigned at = hx_bits_ctz(found);
		const uint64_t mask = block_bits(order) << at;
		write_ends(t, child, r, mask, UINT64_C(1) << (at + (1u << order) - 1));
		if (hx_word_update(row, &used, used | mask)) {
			*first = first_of_child(t, child) + (uint64_t)r * ROW_FRAMES + at;
			return true;
		}
	}
	return false;
}

bool hx_tree_take_block(struct hx_tree *t, uint32_t child, unsigned order, uint64_t *first)
{
	if (order > ROW_ORDER) {
		return take_rows(t, child, 1u << (order - ROW_ORDER), first);
	}
	for (unsigned fit = 2; fit-- > 0;) {
		for (unsigned r = 0; r < CHILD_ROWS; r++) {
			if (take_in_row(t, child, r, order, fit, first)) {
				return true;
			}
		}
	}
	return false;
}

void hx_tree_take_part(struct hx_tree *t, uint32_t child, enum kind kind, unsigned from,
		       unsigned count, bool goes_on)
{
	uint64_t n;
	for (unsigned f = from, left = count; left > 0; f += n, left -= n) {
		const uint64_t mask = hx_frame_word_mask(f, left, &n);
		const uint64_t last = UINT64_C(1) << (f + n - 1) % ROW_FRAMES;
		if (has_ends(kind)) {
			write_ends(t, child, f / ROW_FRAMES, mask,
				   left == n && !goes_on ? last : 0);
		}
		hx_word_or(&rows_of(t, child)[f / ROW_FRAMES], mask);
	}
}

void hx_tree_mix(struct hx_tree *t, uint32_t child, enum kind singles)
{
	for (unsigned i = 0; i < CHILD_ROWS; i++) {
		hx_word_set(&ends_of(t, child)[i],
			    UINT64_MAX); /* those of free frames mean nothing */
	}
	hx_tree_set(t, child, state_of(mixed_of(singles), PLACE_OWNED));
}

/* ---- Freeing ---- */

bool hx_tree_free_part(struct hx_tree *t, uint32_t child, enum kind kind, unsigned from,
		       unsigned count, uint64_t *used)
{
	uint64_t n;
	for (unsigned f = from, left = count; left > 0; f += n, left -= n) {
		const uint64_t mask = hx_frame_word_mask(f, left, &n);
		*used = hx_word_and(&rows_of(t, child)[f / ROW_FRAMES], ~mask);
		if ((*used & mask) != mask) {
			return false;
		}
		*used &= ~mask;
		if (kind == KIND_HOLEY) { /* not a hole */
			hx_word_and(&ends_of(t, child)[f / ROW_FRAMES], ~mask);
		}
	}
	return true;
}

bool hx_tree_is_due(unsigned state, uint64_t used, unsigned at)
{
	const unsigned place = place_of_state(state);
	if (is_owned(state)) {
		return false;
	}
	if (place == PLACE_FULL || used == 0) {
		return true;
	}
	if (is_singles(kind_of_state(state))) {
		return at % 16 == 0;
	}
	/* A block of the next larger order than the listing promises, around the frame? */
	const unsigned order = place;
	return order < ROW_ORDER && (~used >> hx_align_down(at % ROW_FRAMES, 1u << order) &
				     block_bits(order)) == block_bits(order);
}

void hx_tree_split_part(struct hx_tree *t, uint32_t child, unsigned from, unsigned count,
			const uint64_t new_ends[CHILD_ROWS])
{
	uint64_t n;
	for (unsigned f = from, left = count; left > 0; f += n, left -= n) {
		const uint64_t mask = hx_frame_word_mask(f, left, &n);
		write_ends(t, child, f / ROW_FRAMES, mask, new_ends[f / ROW_FRAMES] & mask);
	}
}

bool hx_tree_free_block(struct hx_tree *t, uint32_t child, unsigned from, unsigned order,
			uint64_t *used)
{
	const unsigned at = from % ROW_FRAMES;
	if (order > ROW_ORDER || at == 0 || at % (1u << order) != 0) {
		return false;
	}
	uint64_t *row = &rows_of(t, child)[from / ROW_FRAMES];
	const uint64_t ends = hx_word_peek(&ends_of(t, child)[from / ROW_FRAMES]);
	const uint64_t mask = block_bits(order) << at, last = UINT64_C(1)
							      << (at + (1u << order) - 1);
	const uint64_t before = UINT64_C(1) << (at - 1);
	*used = hx_word_load(row);
	/* All of it is taken, it ends with its last frame, and nothing goes on into it. */
	if ((*used & mask) != mask || (ends & mask) != last || (*used & ~ends & before) != 0) {
		return false;
	}
	const uint64_t old = hx_word_and(row, ~mask);
	*used = old & ~mask;
	return (old & mask) == mask; /* or another free of it was faster */
}

/* ---- Lengths ---- */

static bool bit(const uint64_t *words, unsigned f)
{
	return (hx_word_load(&words[f / ROW_FRAMES]) >> f % ROW_FRAMES & 1) != 0;
}

/* Does the allocation that has frame @f of @child have the next frame, too? */
static bool goes_on(const struct hx_tree *t, uint32_t child, unsigned f)
{
	const unsigned state = hx_tree_state(t, child);
	if (!has_rows(kind_of_state(state))) {
		return state == STATE_WHOLE_ON;
	}
	return has_ends(kind_of_state(state)) && bit(rows_of(t, child), f) &&
	       !bit(ends_of(t, child), f);
}

/* The first end at frame @from of @child or behind it; CHILD_FRAMES: it goes on. */
static unsigned first_end(const struct hx_tree *t, uint32_t child, unsigned from)
{
	const uint64_t *ends = ends_of(t, child);
	uint64_t found = hx_word_load(&ends[from / ROW_FRAMES]) >> from % ROW_FRAMES
									   << from % ROW_FRAMES;
	for (unsigned r = from / ROW_FRAMES;; found = hx_word_load(&ends[r])) {
		if (found != 0) {
			return r * ROW_FRAMES + hx_bits_ctz(found);
		}
		if (++r == CHILD_ROWS) {
			return CHILD_FRAMES;
		}
	}
}

/* Frames of an allocation from @child on, whose first frame there is @from. */
static uint64_t length_from(const struct hx_tree *t, uint32_t child, unsigned from)
{
	uint64_t length = 0;
	for (; child < t->children; child++, from = 0) {
		const unsigned state = hx_tree_state(t, child);
		if (has_ends(kind_of_state(state))) {
			const unsigned end = first_end(t, child, from);
			length += end - from;
			if (end < CHILD_FRAMES) {
				return length + 1;
			}
		} else {
			length += CHILD_FRAMES;
			if (state != STATE_WHOLE_ON) {
				return length;
			}
		}
	}
	return length;
}

hx_status hx_tree_length(const struct hx_frame_allocator *a, uint64_t first, uint64_t *count)
{
	const struct hx_tree *t = tree_of(a);
	if (!hx_frame_in_span(a, first, 1)) {
		return HX_FOREIGN_FREE;
	}
	const uint32_t child = child_of_frame(t, first);
	const unsigned f = first % CHILD_FRAMES, state = hx_tree_state(t, child);
	const enum kind kind = kind_of_state(state);
	if (!has_rows(kind)) {
		if (state == STATE_FREE || state == STATE_MAKING) {
			return HX_DOUBLE_FREE;
		}
		if (state == STATE_HOLE || f != 0) {
			return HX_FOREIGN_FREE;
		}
	} else if (!bit(rows_of(t, child), f)) {
		return kind == KIND_HOLEY && bit(ends_of(t, child), f) ? HX_FOREIGN_FREE
								       : HX_DOUBLE_FREE;
	} else if (is_singles(kind)) {
		*count = 1;
		return is_owned(state) && hx_tree_is_held(t, first) ? HX_DOUBLE_FREE : HX_OK;
	}
	if (f > 0 ? goes_on(t, child, f - 1)
		  : child > 0 && goes_on(t, child - 1, CHILD_FRAMES - 1)) {
		return HX_FOREIGN_FREE;
	}
	*count = length_from(t, child, f);
	return HX_OK;
}
