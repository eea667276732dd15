/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* tree: states and hints - how children are claimed, published and found; see tree.h. */
#include "tree.h"

#ifdef HX_COUNT_ATOMICS
uint64_t hx_frames_atomics;
#endif

#define EACH_BYTE UINT64_C(0x0101010101010101)

/* Trees that are compared before one is chosen: 8 GiB. */
enum { WINDOW_TREES = 64 };

/* ---- States ---- */

static uint64_t *state_word(const struct hx_tree *t, uint32_t child)
{
	return &t->states[child / STATES_IN_WORD];
}

static unsigned state_shift(uint32_t child)
{
	return child % STATES_IN_WORD * 8;
}

bool hx_tree_change(struct hx_tree *t, uint32_t child, unsigned from, unsigned to)
{
	uint64_t *word = state_word(t, child);
	const unsigned shift = state_shift(child);
	uint64_t old = hx_word_peek(word);
	while ((old >> shift & 0xff) == from) {
		if (hx_word_update(word, &old, old ^ (uint64_t)(from ^ to) << shift)) {
			return true;
		}
	}
	return false;
}

void hx_tree_set(struct hx_tree *t, uint32_t child, unsigned state)
{
	hx_word_xor(state_word(t, child), (uint64_t)(hx_tree_state(t, child) ^ state)
						  << state_shift(child));
}

/* ---- Hints ---- */

/* The bit of a place among those of its kind: of SINGLES the thin ones come last. */
static unsigned bit_of_place(enum kind kind, unsigned place)
{
	return !is_singles(kind) ? place - 1 : place > 1 ? place - 2 : PLACE_SINGLES_MAX - 1;
}

uint64_t hx_tree_hint(unsigned state)
{
	static const uint8_t first[] = {HINT_FREE, HINT_SINGLES, HINT_SINGLES_PINNED, HINT_MIXED,
					HINT_MIXED_PINNED};
	const enum kind kind = kind_of_state(state);
	const unsigned place = place_of_state(state);
	if (kind == KIND_WHOLE) {
		return state == STATE_FREE ? UINT64_C(1) << HINT_FREE : 0;
	}
	return place == PLACE_FULL || place == PLACE_OWNED || kind == KIND_HOLEY
		       ? 0
		       : UINT64_C(1) << (first[kind] + bit_of_place(kind, place));
}

/* The listing that bit @i stands for. */
static unsigned listing_of_hint(unsigned i)
{
	if (i >= HINT_FREE) {
		return STATE_FREE;
	}
	if (i >= HINT_MIXED) {
		return i < HINT_MIXED_PINNED
			       ? state_of(KIND_MIXED, i - HINT_MIXED + 1)
			       : state_of(KIND_MIXED_PINNED, i - HINT_MIXED_PINNED + 1);
	}
	const unsigned place = (i + 1) % PLACE_SINGLES_MAX + 1;
	return state_of(i < HINT_SINGLES_PINNED ? KIND_SINGLES : KIND_SINGLES_PINNED, place);
}

void hx_tree_show(struct hx_tree *t, uint32_t child, unsigned state)
{
	uint64_t *hints = &t->hints[child / TREE_CHILDREN];
	const uint64_t hint = hx_tree_hint(state);
	if ((hx_word_load(hints) & hint) != hint) {
		hx_word_or(hints, hint);
	}
}

/* ---- Claim and publish ---- */

bool hx_tree_claim(struct hx_tree *t, uint32_t child, unsigned state, enum kind fresh)
{
	const enum kind kind = kind_of_state(state);
	if (state == STATE_FREE) {
		if (!hx_tree_change(t, child, STATE_FREE, STATE_MAKING)) {
			return false;
		}
		if (fresh != KIND_WHOLE) {
			hx_tree_clear(t, child, fresh);
			hx_tree_set(t, child, state_of(fresh, PLACE_OWNED));
		}
		return true;
	}
	return has_rows(kind) && !is_owned(state) &&
	       hx_tree_change(t, child, state, state_of(kind, PLACE_OWNED));
}

void hx_tree_publish(struct hx_tree *t, uint32_t child, enum kind kind)
{
	const unsigned listing = hx_tree_listing(t, child, kind);
	hx_tree_set(t, child, listing);
	hx_tree_show(t, child, listing);
	if (listing != STATE_FREE) {
		hx_tree_relist(t, child); /* rule 4: the second look */
	}
}

void hx_tree_relist(struct hx_tree *t, uint32_t child)
{
	for (;;) {
		const unsigned state = hx_tree_state(t, child);
		const enum kind kind = kind_of_state(state);
		if (!has_rows(kind) || is_owned(state)) {
			return;
		}
		const unsigned listing = hx_tree_listing(t, child, kind);
		if (listing == STATE_FREE) {
			/* Rule 5. Empty, and so it stays: frames are taken by us alone. */
			if (hx_tree_change(t, child, state, state_of(kind, PLACE_OWNED))) {
				const unsigned now = hx_tree_listing(t, child, kind);
				hx_tree_set(t, child, now);
				hx_tree_show(t, child, now);
			}
			continue;
		}
		if (place_of_state(listing) <= place_of_state(state)) {
			return;
		}
		if (hx_tree_change(t, child, state, listing)) {
			hx_tree_show(t, child, listing);
			return;
		}
	}
}

/* ---- Finding ---- */

/* 0x80 in each byte of @word that is @byte, exactly. */
static uint64_t bytes_equal(uint64_t word, unsigned byte)
{
	const uint64_t low = EACH_BYTE * 0x7f, x = word ^ EACH_BYTE * byte;
	return ~(((x & low) + low) | x | low);
}

/* Claim a child of @tree that is listed as @state; NO_CHILD: it has none. */
static uint32_t claim_in_tree(struct hx_tree *t, uint32_t tree, unsigned state, enum kind fresh)
{
	const uint32_t words = TREE_CHILDREN / STATES_IN_WORD;
	for (uint32_t w = tree * words; w < (tree + 1) * words; w++) {
		uint64_t found = bytes_equal(hx_word_load(&t->states[w]), state);
		for (; found != 0; found &= found - 1) {
			uint32_t child = w * STATES_IN_WORD + hx_bits_ctz(found) / 8;
			if (hx_tree_claim(t, child, state, fresh)) {
				return child;
			}
		}
	}
	return NO_CHILD;
}

/* The same; the hint for @state is cleared when it is there in vain (rule 6). */
static uint32_t claim_by_hint(struct hx_tree *t, uint32_t tree, uint64_t hint, enum kind fresh)
{
	const unsigned state = listing_of_hint(hx_bits_ctz(hint));
	uint32_t child = claim_in_tree(t, tree, state, fresh);
	if (child == NO_CHILD) {
		hx_word_and(&t->hints[tree], ~hint);
		child = claim_in_tree(t, tree, state, fresh);
		if (child != NO_CHILD) {
			hx_word_or(&t->hints[tree], hint); /* there may be more of them */
		}
	}
	return child;
}

uint32_t hx_tree_find(struct hx_tree *t, uint32_t *cursor, uint64_t wanted, enum kind fresh)
{
	const uint64_t best_of_all = wanted & -wanted;
	for (uint32_t done = 0; done < t->trees;) {
		const uint32_t left = t->trees - done,
			       n = left < WINDOW_TREES ? left : WINDOW_TREES;
		uint64_t best = 0;
		uint32_t at = 0;
		for (uint32_t i = 0; i < n && best != best_of_all; i++) {
			uint32_t tree = *cursor + done + i;
			tree -= tree >= t->trees ? t->trees : 0;
			uint64_t hints = hx_word_peek(&t->hints[tree]) & wanted;
			hints &= -hints;
			if (hints != 0 && (best == 0 || hints < best)) {
				best = hints;
				at = tree;
			}
		}
		if (best == 0) {
			done += n;
			continue;
		}
		/* Not there: the hint is gone now, or another CPU was faster. */
		uint32_t child = claim_by_hint(t, at, best, fresh);
		if (child != NO_CHILD) {
			*cursor = at;
			return child;
		}
	}
	return NO_CHILD;
}

/* ---- Whole children ---- */

/* Of 1, 2, 4 or 8 children that are one allocation, by the log2 of their number. */
static const uint64_t whole_states[] = {
	UINT64_C(0x03),
	UINT64_C(0x0302),
	UINT64_C(0x03020202),
	UINT64_C(0x0302020202020202),
};

/* @n words of FREE children, or none of them. */
static bool take_words(uint64_t *word, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint64_t on = EACH_BYTE * STATE_WHOLE_ON;
		uint64_t old = 0; /* FREE is 0 */
		if (!hx_word_update(&word[i], &old, i + 1 == n ? whole_states[3] : on)) {
			while (i-- > 0) {
				hx_word_and(&word[i], 0);
			}
			return false;
		}
	}
	return true;
}

/* 2^order children, at most 8, within a word; the first of them, or NO_CHILD. */
static HX_ALWAYS_INLINE uint32_t take_in_word(struct hx_tree *t, uint32_t w, unsigned order)
{
	uint64_t old = hx_word_peek(&t->states[w]);
	for (;;) {
		uint64_t free =
			bytes_equal(old, STATE_FREE) / 0x80; /* the lowest bit of each byte */
		for (unsigned i = 0; i < order; i++) {
			free &= free >> (8u << i);
		}
		free &= order == 0   ? EACH_BYTE
			: order == 1 ? UINT64_C(0x0001000100010001)
			: order == 2 ? UINT64_C(0x0000000100000001)
				     : UINT64_C(1);
		if (free == 0) {
			return NO_CHILD;
		}
		const unsigned shift = hx_bits_ctz(free);
		if (hx_word_update(&t->states[w], &old, old | whole_states[order] << shift)) {
			return w * STATES_IN_WORD + shift / 8;
		}
	}
}

uint32_t hx_tree_take_one_whole(struct hx_tree *t, uint32_t child)
{
	return take_in_word(t, child / STATES_IN_WORD, 0);
}

/* 2^order children, less than a tree, from word @w on, at most to the end of the tree. */
static uint32_t take_in_tree(struct hx_tree *t, uint32_t w, unsigned order)
{
	const uint32_t words = TREE_CHILDREN / STATES_IN_WORD;
	const uint32_t step = order <= 3 ? 1 : 1u << (order - 3);
	const uint32_t end = (w / words + 1) * words;
	for (w -= w % step; w < end; w += step) {
		const uint32_t child = order <= 3                        ? take_in_word(t, w, order)
				       : take_words(&t->states[w], step) ? w * STATES_IN_WORD
									 : NO_CHILD;
		if (child != NO_CHILD) {
			return child;
		}
	}
	return NO_CHILD;
}

/* The same in the tree of word @w, if its hint says so; a hint in vain is cleared (rule 6). */
static uint32_t take_by_hint(struct hx_tree *t, uint32_t w, unsigned order)
{
	const uint64_t hint = UINT64_C(1) << HINT_FREE;
	const uint32_t words = TREE_CHILDREN / STATES_IN_WORD, tree = w / words;
	if ((hx_word_peek(&t->hints[tree]) & hint) == 0) {
		return NO_CHILD;
	}
	uint32_t child = take_in_tree(t, w, order);
	if (child == NO_CHILD && w % words != 0) {
		child = take_in_tree(t, tree * words, order);
	}
	if (child == NO_CHILD && order == 0) {
		hx_word_and(&t->hints[tree], ~hint);
		child = take_in_tree(t, tree * words, order);
		if (child != NO_CHILD) {
			hx_word_or(&t->hints[tree], hint);
		}
	}
	return child;
}

uint32_t hx_tree_take_whole(struct hx_tree *t, uint32_t *cursor, unsigned order)
{
	const uint32_t words = TREE_CHILDREN / STATES_IN_WORD;
	const uint32_t step = order <= 6 ? 1 : 1u << (order - 6); /* trees */
	/* From the first tree on at which an aligned block may begin. */
	const uint64_t begin = (t->first >> CHILD_ORDER) / TREE_CHILDREN;
	const uint32_t lead = (uint32_t)(-begin & (step - 1));
	uint32_t w = *cursor / STATES_IN_WORD, tree = w / words;
	tree = tree < lead ? lead : tree - (tree - lead) % step;
	w = step == 1 ? w : tree * words;
	for (uint32_t done = 0; done < t->trees; done += step) {
		if (tree + step > t->trees) {
			tree = lead;
			w = lead * words;
			if (tree + step > t->trees) {
				break;
			}
		}
		const uint32_t child = step == 1 ? take_by_hint(t, w, order)
				       : take_words(&t->states[w], step * words)
					       ? tree * TREE_CHILDREN
					       : NO_CHILD;
		if (child != NO_CHILD) {
			*cursor = child;
			return child;
		}
		tree += step;
		w = tree * words;
	}
	return NO_CHILD;
}

/* Does an allocation go on behind a child in @state? So it may for kinds that have ends. */
static bool may_go_on(unsigned state)
{
	return state == STATE_WHOLE_ON || has_ends(kind_of_state(state));
}

bool hx_tree_give_whole(struct hx_tree *t, uint32_t child)
{
	if (child > 0 && may_go_on(hx_tree_state(t, child - 1))) {
		return false;
	}
	if (!hx_tree_change(t, child, STATE_WHOLE_END, STATE_FREE)) {
		return false;
	}
	hx_tree_show(t, child, STATE_FREE);
	return true;
}

/* The begin of a tree, with as many children as a tree has. */
static bool is_tree(uint32_t child, uint64_t n)
{
	return child % TREE_CHILDREN == 0 && n >= TREE_CHILDREN;
}

bool hx_tree_are_holes(const struct hx_tree *t, uint32_t child, uint64_t n)
{
	if (!is_tree(child, n)) {
		return false;
	}
	uint64_t other = 0;
	for (uint32_t i = 0; i < TREE_CHILDREN; i += STATES_IN_WORD) {
		other |= hx_word_peek(state_word(t, child + i)) ^ EACH_BYTE * STATE_HOLE;
	}
	return other == 0;
}

uint64_t hx_tree_add_children(struct hx_tree *t, uint32_t child, uint64_t n)
{
	if (!is_tree(child, n)) {
		hx_tree_set(t, child, STATE_FREE);
		hx_tree_show(t, child, STATE_FREE);
		return 1;
	}
	/* Nobody looks at holes but who adds them. */
	for (uint32_t i = 0; i < TREE_CHILDREN; i += STATES_IN_WORD) {
		hx_word_set(state_word(t, child + i), EACH_BYTE * STATE_FREE);
	}
	hx_tree_show(t, child, STATE_FREE);
	return TREE_CHILDREN;
}
