/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* tree: states and hints - how children are claimed, published and found; see tree.h. */
#include "tree.h"

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

uint64_t hx_tree_hint(unsigned state)
{
	static const uint8_t first[] = {HINT_FREE, HINT_SINGLES, HINT_SINGLES_PINNED, HINT_MIXED,
					HINT_MIXED_PINNED};
	const unsigned place = place_of_state(state);
	if (kind_of_state(state) == KIND_WHOLE) {
		return state == STATE_FREE ? UINT64_C(1) << HINT_FREE : 0;
	}
	return place == PLACE_FULL || place == PLACE_OWNED || kind_of_state(state) == KIND_HOLEY
		       ? 0
		       : UINT64_C(1) << (first[kind_of_state(state)] + place - 1);
}

/* The listing that bit @i stands for. */
static unsigned listing_of_hint(unsigned i)
{
	if (i >= HINT_FREE) {
		return STATE_FREE;
	}
	if (i >= HINT_MIXED_PINNED) {
		return state_of(KIND_MIXED_PINNED, i - HINT_MIXED_PINNED + 1);
	}
	if (i >= HINT_MIXED) {
		return state_of(KIND_MIXED, i - HINT_MIXED + 1);
	}
	if (i >= HINT_SINGLES_PINNED) {
		return state_of(KIND_SINGLES_PINNED, i - HINT_SINGLES_PINNED + 1);
	}
	return state_of(KIND_SINGLES, i + 1);
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

/* States of @n children, at most a word of them, that are one allocation's, with its end. */
static uint64_t whole_states(uint32_t n, bool ends)
{
	uint64_t states = EACH_BYTE * STATE_WHOLE_ON;
	if (ends) {
		states ^= (uint64_t)(STATE_WHOLE_ON ^ STATE_WHOLE_END) << (n - 1) * 8;
	}
	return n == STATES_IN_WORD ? states : states & ((UINT64_C(1) << n * 8) - 1);
}

/* Up to 8 children within a word. */
static bool take_in_word(uint64_t *word, uint32_t n, unsigned *index)
{
	uint64_t old = hx_word_peek(word);
	for (unsigned i = 0; i + n <= STATES_IN_WORD;) {
		const uint64_t mask = whole_states(n, false) / STATE_WHOLE_ON * 0xff;
		if ((old & mask << i * 8) != 0) { /* FREE is 0 */
			i += n;
		} else if (hx_word_update(word, &old, old | whole_states(n, true) << i * 8)) {
			*index = i;
			return true;
		}
	}
	return false;
}

/* @n words of FREE children, or none of them. */
static bool take_words(uint64_t *word, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t old = 0;
		if (!hx_word_update(&word[i], &old, whole_states(STATES_IN_WORD, i + 1 == n))) {
			while (i-- > 0) {
				hx_word_and(&word[i], 0);
			}
			return false;
		}
	}
	return true;
}

static uint32_t take_in_tree(struct hx_tree *t, uint32_t tree, uint32_t n)
{
	const uint32_t words = TREE_CHILDREN / STATES_IN_WORD;
	const uint32_t step = n <= STATES_IN_WORD ? 1 : n / STATES_IN_WORD;
	for (uint32_t i = 0; i < words; i += step) {
		const uint32_t w = tree * words + i;
		unsigned index = 0;
		if (n <= STATES_IN_WORD ? take_in_word(&t->states[w], n, &index)
					: take_words(&t->states[w], step)) {
			return w * STATES_IN_WORD + index;
		}
	}
	return NO_CHILD;
}

uint32_t hx_tree_take_whole(struct hx_tree *t, uint32_t *cursor, uint32_t n)
{
	const uint64_t hint = UINT64_C(1) << HINT_FREE;
	const uint32_t step = n <= TREE_CHILDREN ? 1 : n / TREE_CHILDREN;
	const uint64_t begin = t->first >> CHILD_ORDER; /* a multiple of a tree's children */
	/* From the first tree on at which an aligned block may begin. */
	const uint32_t lead = (uint32_t)(-(begin / TREE_CHILDREN) & (step - 1));
	uint32_t tree = *cursor < lead ? lead : *cursor - (*cursor - lead) % step;
	for (uint32_t done = 0; done < t->trees; done += step) {
		if (tree + step > t->trees) {
			tree = lead;
			if (tree + step > t->trees) {
				break;
			}
		}
		uint32_t child = NO_CHILD;
		if ((hx_word_peek(&t->hints[tree]) & hint) != 0) {
			child = step == 1 ? take_in_tree(t, tree, n)
				: take_words(&t->states[tree * 8], n / STATES_IN_WORD)
					? tree * TREE_CHILDREN
					: NO_CHILD;
			if (child == NO_CHILD && n == 1) { /* in vain */
				hx_word_and(&t->hints[tree], ~hint);
				child = take_in_tree(t, tree, n);
				if (child != NO_CHILD) {
					hx_word_or(&t->hints[tree], hint);
				}
			}
		}
		if (child != NO_CHILD) {
			*cursor = tree;
			return child;
		}
		tree += step;
	}
	return NO_CHILD;
}

uint64_t hx_tree_add_children(struct hx_tree *t, uint32_t child, uint64_t n)
{
	if (child % STATES_IN_WORD == 0 && n >= STATES_IN_WORD) {
		n = STATES_IN_WORD;
		hx_word_and(state_word(t, child), 0);
	} else {
		n = 1;
		hx_tree_set(t, child, STATE_FREE);
	}
	hx_tree_show(t, child, STATE_FREE);
	return n;
}
