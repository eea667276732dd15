/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * buddy - blocks of 2^order frames, split in halves and joined again.
 *
 * Blocks are aligned to their size by absolute frame number, whatever the span
 * begins with, so that a block of order 9 is a 2 MiB page. Nothing is written
 * into the frames, which may not even be mapped: all knowledge is in bits.
 *
 *   For each order k and each aligned block of 2^k frames, bit (f >> k) % 64 of
 *   word (f >> k) / 64:
 *
 *      free   a free block of exactly this order starts here
 *      used   a piece of an allocation of exactly this order starts here
 *
 *   For each frame:
 *
 *      joined the piece that starts here goes on with the piece before it
 *
 * A block of 2^k aligned frames is one piece; a run of any length is the fewest
 * aligned pieces, joined. A frame that lies in no free block and no piece is a
 * hole. A head and its buddy are neighbours in one word, so a free that joins
 * nothing touches one word of each kind.
 *
 * Above the free bits of each order stand summaries, one bit for each word below
 * that is not zero, until eight words or fewer are left. The lowest free block
 * of an order at or behind a frame is found by climbing from the frame until a
 * bit is set and descending to the lowest one under it; a hint for each order
 * mostly spares even that:
 *
 *      summary 2              [.1..]            climb: nothing behind here
 *      summary 1       [..1.][...1][....]       descend: lowest set bit
 *      free            [.1..][....][..1.] ...
 *
 * An allocation takes the lowest block of the smallest order that has one and
 * gives the upper halves back. Metadata: 2 bits for each block of each order, so
 * 4 for each frame, 1 for joined and 2/63 for the summaries; all of it starts as
 * zero bits.
 *
 * Invariants (validate): blocks and pieces are disjoint and inside the span; two
 * free buddies are never both heads of one order; summaries, hints, the
 * counts of heads and the allocator's counters say what the bits say.
 *
 * Source: Knowlton 1965, Knuth TAOCP 1, 2.5 (buddy system); van Emde Boas 1975
 * for searching by summaries, here with 64-way words.
 */
#include "trait.h"

enum {
	TOP_WORDS = 8,  /* no further summary above this many words */
	LEVELS_MAX = 9, /* 2^52 frames: words of 2^6, 2^12, ... 2^54 frames */
};

struct heads {
	uint64_t free;
	uint64_t used;
};

struct order {
	struct heads *heads;
	uint64_t first_word;           /* heads[0] is this word of all of memory's */
	uint64_t lowest;               /* no free bit is set in heads[] below it */
	uint64_t free_count;           /* free bits that are set */
	uint64_t levels;               /* free bits and summaries */
	uint64_t *summary[LEVELS_MAX]; /* from 1 */
};

struct buddy {
	uint64_t available;             /* bit k: order k has a free block */
	uint64_t joins;                 /* joined bits that are set */
	uint64_t added_low, added_high; /* every frame that was added lies between */
	uint64_t *joined;
	uint64_t pad; /* a multiple of 16 bytes, for the pairs that follow */
	struct order orders[HX_ORDER_MAX + 1];
	uint64_t words[];
};

static struct buddy *buddy_of(const struct hx_frame_allocator *a)
{
	return a->metadata;
}

static struct order *order_of(const struct hx_frame_allocator *a, unsigned k)
{
	return &buddy_of(a)->orders[k];
}

static uint64_t span_end(const struct hx_frame_allocator *a)
{
	return a->base + a->span_frames;
}

static uint64_t size_of(unsigned order)
{
	return UINT64_C(1) << order;
}

/* ---- Bits: a block of order k is named by its number, frame >> k ---- */

static inline uint64_t bit_of(uint64_t block)
{
	return UINT64_C(1) << (block & 63);
}

static inline struct heads *heads_of(const struct order *o, uint64_t block)
{
	return &o->heads[(block >> 6) - o->first_word];
}

static inline bool is_free(const struct hx_frame_allocator *a, uint64_t f, unsigned k)
{
	return (heads_of(order_of(a, k), f >> k)->free & bit_of(f >> k)) != 0;
}

static inline bool is_used(const struct hx_frame_allocator *a, uint64_t f, unsigned k)
{
	return (heads_of(order_of(a, k), f >> k)->used & bit_of(f >> k)) != 0;
}

static inline uint64_t *joined_word(const struct hx_frame_allocator *a, uint64_t f)
{
	return &buddy_of(a)->joined[(f >> 6) - (a->base >> 6)];
}

static inline bool is_joined(const struct hx_frame_allocator *a, uint64_t f)
{
	return f < span_end(a) && (*joined_word(a, f) & bit_of(f)) != 0;
}

/* Word @w of the free bits, counted from the start of memory, has got its first bit. */
static void raise_summaries(const struct order *o, uint64_t w)
{
	uint64_t first = o->first_word, before = 0;
	for (unsigned level = 1; before == 0 && level < o->levels; level++, w >>= 6) {
		first >>= 6;
		uint64_t *word = &o->summary[level][(w >> 6) - first];
		before = *word;
		*word = before | bit_of(w);
	}
}

/* It has lost its last one. */
static void lower_summaries(const struct order *o, uint64_t w)
{
	uint64_t first = o->first_word, after = 0;
	for (unsigned level = 1; after == 0 && level < o->levels; level++, w >>= 6) {
		first >>= 6;
		uint64_t *word = &o->summary[level][(w >> 6) - first];
		after = *word & ~bit_of(w);
		*word = after;
	}
}

static inline void set_free(struct buddy *b, unsigned k, uint64_t block)
{
	struct order *o = &b->orders[k];
	uint64_t i = (block >> 6) - o->first_word, before = o->heads[i].free;
	o->heads[i].free = before | bit_of(block);
	if (before == 0) {
		raise_summaries(o, block >> 6);
	}
	o->lowest = i < o->lowest ? i : o->lowest;
	o->free_count++;
	b->available |= size_of(k);
}

static inline void clear_free(struct buddy *b, unsigned k, uint64_t block)
{
	struct order *o = &b->orders[k];
	struct heads *h = heads_of(o, block);
	uint64_t after = h->free & ~bit_of(block);
	h->free = after;
	if (after == 0) {
		lower_summaries(o, block >> 6);
	}
	if (--o->free_count == 0) {
		b->available &= ~size_of(k);
	}
}

/*
 * The lowest free block of order @k at or behind @f, a frame of the span that
 * is aligned to the order or the span's first; the span's end when there is none.
 */
static uint64_t next_free(const struct hx_frame_allocator *a, unsigned k, uint64_t f)
{
	const struct order *o = order_of(a, k);
	uint64_t first = o->first_word, last = (span_end(a) - 1) >> k;
	uint64_t at = f >> k; /* bit of the level, counted from the start of memory */
	unsigned level = 0;
	while (at <= last) {
		uint64_t i = (at >> 6) - first;
		uint64_t word = level == 0 ? o->heads[i].free : o->summary[level][i];
		word &= UINT64_MAX << (at & 63);
		if (word != 0) {
			at = (at & ~UINT64_C(63)) + hx_ctz64(word);
			if (level == 0) {
				return at << k;
			}
			level--;
			at <<= 6; /* first bit of the word below */
			first = o->first_word >> 6 * level;
			last = (span_end(a) - 1) >> (k + 6 * level);
		} else if (level + 1 < o->levels) {
			level++;
			at = (at >> 6) + 1; /* the word behind */
			first >>= 6;
			last >>= 6;
		} else {
			at = (at & ~UINT64_C(63)) + 64;
		}
	}
	return span_end(a);
}

/* Number of the lowest free block of order @k, which has one. */
static inline uint64_t lowest_free(const struct hx_frame_allocator *a, unsigned k)
{
	struct order *o = order_of(a, k);
	if (o->heads[o->lowest].free == 0) {
		uint64_t from = (o->first_word + o->lowest) << (k + 6);
		uint64_t f = next_free(a, k, from < a->base ? a->base : from);
		o->lowest = (f >> (k + 6)) - o->first_word;
	}
	return ((o->first_word + o->lowest) << 6) + hx_ctz64(o->heads[o->lowest].free);
}

/* ---- Free blocks ---- */

/* Order of the free block that @f lies in, and its head; false when there is none. */
static bool free_block_of(const struct hx_frame_allocator *a, uint64_t f, uint64_t *head,
			  unsigned *order)
{
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		if (is_free(a, f, k)) {
			*head = hx_align_down(f, size_of(k));
			*order = k;
			return true;
		}
	}
	return false;
}

/* First frame of [first, end) that is not free; end when all are. */
static uint64_t free_until(const struct hx_frame_allocator *a, uint64_t first, uint64_t end)
{
	uint64_t head;
	unsigned k;
	while (first < end && free_block_of(a, first, &head, &k)) {
		first = head + size_of(k);
	}
	return first < end ? first : end;
}

/* Make the block free, joined with its buddy as long as that is free as well. */
static inline void give_block(struct buddy *b, unsigned k, uint64_t block)
{
	for (; k < HX_ORDER_MAX; k++, block >>= 1) {
		/* Same word as the block's own bit; outside the span it is never set. */
		uint64_t buddy = block ^ 1;
		if ((heads_of(&b->orders[k], block)->free & bit_of(buddy)) == 0) {
			break;
		}
		clear_free(b, k, buddy);
	}
	set_free(b, k, block);
}

/* Make [first, end) free. */
static void give_range(struct hx_frame_allocator *a, uint64_t first, uint64_t end)
{
	while (first < end) {
		unsigned k = hx_frame_order_at(first, end);
		give_block(buddy_of(a), k, first >> k);
		first += size_of(k);
	}
}

/* Take [first, end), all of it free, out of the free blocks that it lies in. */
static void take_range(struct hx_frame_allocator *a, uint64_t first, uint64_t end)
{
	for (uint64_t f = first; f < end;) {
		uint64_t head = f;
		unsigned k = 0;
		bool found = free_block_of(a, f, &head, &k);
		HX_DEBUG_ASSERT(found);
		(void)found;
		clear_free(buddy_of(a), k, head >> k);
		f = head + size_of(k);
		if (head < first) {
			give_range(a, head, first);
		}
		if (f > end) {
			give_range(a, end, f);
		}
	}
}

/* ---- Allocations ---- */

/* [first, end) is one allocation. */
static void mark_used(struct hx_frame_allocator *a, uint64_t first, uint64_t end)
{
	for (uint64_t f = first; f < end;) {
		unsigned k = hx_frame_order_at(f, end);
		heads_of(order_of(a, k), f >> k)->used |= bit_of(f >> k);
		if (f != first) {
			*joined_word(a, f) |= bit_of(f);
			buddy_of(a)->joins++;
		}
		f += size_of(k);
	}
}

/* It is none any more. */
static void unmark_used(struct hx_frame_allocator *a, uint64_t first, uint64_t end)
{
	for (uint64_t f = first; f < end;) {
		unsigned k = hx_frame_order_at(f, end);
		heads_of(order_of(a, k), f >> k)->used &= ~bit_of(f >> k);
		if (f != first) {
			*joined_word(a, f) &= ~bit_of(f);
			buddy_of(a)->joins--;
		}
		f += size_of(k);
	}
}

/* Order of the piece that starts at @f; false when none does. */
static bool piece_at(const struct hx_frame_allocator *a, uint64_t f, unsigned *order)
{
	for (unsigned k = 0; k <= HX_ORDER_MAX && hx_is_aligned(f, size_of(k)); k++) {
		if (is_used(a, f, k)) {
			*order = k;
			return true;
		}
	}
	return false;
}

/* The length of the allocation that starts at @first, or why there is none. */
static hx_status allocation_at(const struct hx_frame_allocator *a, uint64_t first, uint64_t *count)
{
	unsigned k;
	uint64_t head;
	if (!hx_frame_in_span(a, first, 1) || is_joined(a, first)) {
		return HX_FOREIGN_FREE;
	}
	if (!piece_at(a, first, &k)) {
		return free_block_of(a, first, &head, &k) ? HX_DOUBLE_FREE : HX_FOREIGN_FREE;
	}
	*count = size_of(k);
	while (is_joined(a, first + *count) && piece_at(a, first + *count, &k)) {
		*count += size_of(k);
	}
	return HX_OK;
}

/* Is [first, first + count) an allocation? A refusal is counted. */
static hx_status check_allocation(struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	uint64_t length = 0;
	hx_status status = allocation_at(a, first, &length);
	if (status == HX_OK && length != count) {
		status = HX_WRONG_SIZE_FREE;
	}
	if (status != HX_OK) {
		hx_frame_counter_add(&a->refused_frees, 1);
	}
	return status;
}

static hx_status release_run(struct hx_frame_allocator *a, uint64_t first, uint64_t count)
{
	hx_status status = check_allocation(a, first, count);
	if (status == HX_OK) {
		unmark_used(a, first, first + count);
		give_range(a, first, first + count);
		hx_frame_note_freed(a, count);
	}
	return status;
}

/* Nearly always: one piece, not part of a run. */
static inline hx_status release_block(struct hx_frame_allocator *a, uint64_t first, unsigned order)
{
	if (!hx_is_aligned(first, size_of(order)) || !hx_frame_in_span(a, first, size_of(order))) {
		return release_run(a, first, size_of(order));
	}
	struct buddy *b = buddy_of(a);
	uint64_t block = first >> order;
	struct heads *h = heads_of(&b->orders[order], block);
	bool whole =
		(h->used & bit_of(block)) != 0 &&
		(b->joins == 0 || (!is_joined(a, first) && !is_joined(a, first + size_of(order))));
	if (!whole) {
		return release_run(a, first, size_of(order));
	}
	h->used &= ~bit_of(block);
	give_block(b, order, block);
	hx_frame_note_freed(a, size_of(order));
	return HX_OK;
}

/* ---- Search ---- */

/* @count frames in @w inside one free block, from the smallest order that holds them. */
static bool search_block(const struct hx_frame_allocator *a, const struct hx_frame_window *w,
			 uint64_t count, uint64_t *start)
{
	for (unsigned k = hx_log2_ceil(count); k <= HX_ORDER_MAX; k++) {
		if (buddy_of(a)->orders[k].free_count == 0) {
			continue;
		}
		uint64_t from = hx_align_down(w->low, size_of(k));
		from = from < a->base ? a->base : from;
		for (uint64_t f = next_free(a, k, from); f < w->high;
		     f = next_free(a, k, f + size_of(k))) {
			if (hx_frame_fit(w, f, f + size_of(k), count, start)) {
				return true;
			}
		}
	}
	return false;
}

/* The lowest free frame at or behind @f; the span's end when there is none. */
static uint64_t next_free_frame(const struct hx_frame_allocator *a, uint64_t f)
{
	uint64_t lowest = span_end(a), head;
	unsigned order;
	if (f < lowest && free_block_of(a, f, &head, &order)) {
		return f;
	}
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		uint64_t from;
		if (buddy_of(a)->orders[k].free_count != 0 && hx_align_up(f, size_of(k), &from)) {
			head = next_free(a, k, from);
			lowest = head < lowest ? head : lowest;
		}
	}
	return lowest;
}

/* @count frames in @w anywhere, across neighbouring free blocks: lowest first. */
static bool search_run(const struct hx_frame_allocator *a, const struct hx_frame_window *w,
		       uint64_t count, uint64_t *start)
{
	for (uint64_t f = next_free_frame(a, w->low); f < w->high;) {
		uint64_t end = free_until(a, f, span_end(a));
		if (hx_frame_fit(w, f, end, count, start)) {
			return true;
		}
		f = next_free_frame(a, end);
	}
	return false;
}

/* The smallest and lowest block, when nothing more is asked. */
static inline bool take_any(struct hx_frame_allocator *a, unsigned order, uint64_t *start)
{
	struct buddy *b = buddy_of(a);
	uint64_t orders = b->available >> order;
	if (orders == 0) {
		return false;
	}
	unsigned k = order + hx_ctz64(orders);
	HX_ASSERT(k <= HX_ORDER_MAX);
	uint64_t block = lowest_free(a, k);
	clear_free(b, k, block);
	while (k > order) { /* keep the lower half, free the upper one */
		k--;
		block <<= 1;
		set_free(b, k, block + 1);
	}
	heads_of(&b->orders[k], block)->used |= bit_of(block);
	hx_frame_note_taken(a, size_of(order));
	*start = block << order;
	return true;
}

static bool take_in(struct hx_frame_allocator *a, const struct hx_frame_window *w, uint64_t count,
		    bool run, uint64_t *start)
{
	if (count > a->free_frames || w->low >= w->high) {
		return false;
	}
	if (!search_block(a, w, count, start) && !(run && search_run(a, w, count, start))) {
		return false;
	}
	take_range(a, *start, *start + count);
	mark_used(a, *start, *start + count);
	hx_frame_note_taken(a, count);
	return true;
}

static inline struct hx_pfn_result done(struct hx_frame_allocator *a, unsigned long irq, bool found,
					uint64_t start)
{
	if (!found) {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return found ? hx_frame_found(start) : hx_frame_refused(HX_OUT_OF_MEMORY);
}

/* ---- The trait ---- */

/* Place the arrays behind @b; @b may be NULL. @return bytes of everything */
static uint64_t lay_out(uint64_t base, uint64_t span_frames, struct buddy *b)
{
	uint64_t at = 0, last = base + span_frames - 1;
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		uint64_t words = (last >> (k + 6)) - (base >> (k + 6)) + 1;
		if (b) {
			b->orders[k].heads = (struct heads *)(void *)&b->words[at];
			b->orders[k].first_word = base >> (k + 6);
		}
		at += words * (sizeof(struct heads) / sizeof(uint64_t));
		unsigned level = 1;
		for (; words > TOP_WORDS; level++) {
			unsigned shift = k + 6 * (level + 1);
			words = (last >> shift) - (base >> shift) + 1;
			if (b) {
				b->orders[k].summary[level] = &b->words[at];
			}
			at += words + (words & 1); /* pairs stay aligned */
		}
		if (b) {
			b->orders[k].levels = level;
		}
	}
	if (b) {
		b->joined = &b->words[at];
	}
	at += (last >> 6) - (base >> 6) + 1;
	return sizeof(struct buddy) + at * sizeof(uint64_t);
}

uint64_t hx_frames_buddy_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	return hx_frame_span_valid(base, span_frames) ? lay_out(base, span_frames, NULL) : 0;
}

hx_status hx_frames_buddy_init(struct hx_frame_allocator *a)
{
	uint64_t need = hx_frames_buddy_metadata_bytes(a->base, a->span_frames);
	if (need == 0 || !a->metadata || a->metadata_bytes < need) {
		return HX_INVALID_SIZE;
	}
	hx_memset(a->metadata, 0, need);
	lay_out(a->base, a->span_frames, buddy_of(a));
	return HX_OK;
}

/* No head of order @k, free or used, starts in [first, end). */
static bool no_heads(const struct hx_frame_allocator *a, unsigned k, uint64_t first, uint64_t end)
{
	uint64_t f;
	if (!hx_align_up(first, size_of(k), &f)) {
		return true;
	}
	for (uint64_t n; f < end; f += n << k) {
		uint64_t blocks = ((end - 1 - f) >> k) + 1;
		uint64_t mask = hx_frame_word_mask(f >> k, blocks, &n);
		const struct heads *h = heads_of(order_of(a, k), f >> k);
		if (((h->free | h->used) & mask) != 0) {
			return false;
		}
	}
	return true;
}

static bool holes(const struct hx_frame_allocator *a, uint64_t first, uint64_t end)
{
	const struct buddy *b = buddy_of(a);
	if (end <= b->added_low || first >= b->added_high) {
		return true; /* boot adds in ascending order: nothing to look at */
	}
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		if (is_free(a, first, k) || is_used(a, first, k) || !no_heads(a, k, first, end)) {
			return false;
		}
	}
	return true;
}

bool hx_frames_buddy_holes(const struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return false;
	}
	unsigned long irq = hx_frame_lock(a);
	bool all = holes(a, first.v, first.v + count);
	hx_frame_unlock(a, irq);
	return all;
}

hx_status hx_frames_buddy_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_INVALID_ARGUMENT;
	}
	struct buddy *b = buddy_of(a);
	uint64_t end = first.v + count;
	unsigned long irq = hx_frame_lock(a);
	bool all = holes(a, first.v, end);
	if (all) {
		bool none = b->added_low == b->added_high;
		b->added_low = none || first.v < b->added_low ? first.v : b->added_low;
		b->added_high = none || end > b->added_high ? end : b->added_high;
		give_range(a, first.v, end);
		hx_frame_note_added(a, count);
	}
	hx_frame_unlock(a, irq);
	return all ? HX_OK : HX_INVALID_ARGUMENT;
}

struct hx_pfn_result hx_frames_buddy_allocate(struct hx_frame_allocator *a, unsigned order,
					      unsigned flags, const struct hx_frame_constraint *c)
{
	(void)flags; /* the smallest block, then the lowest, whatever the lifetime */
	if (order > HX_ORDER_MAX) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	uint64_t start = 0;
	if (!c) {
		unsigned long irq = hx_frame_lock(a);
		bool found = take_any(a, order, &start);
		return done(a, irq, found, start);
	}
	struct hx_frame_window w;
	hx_status status = hx_frame_window(a, size_of(order), size_of(order), c, &w);
	if (status != HX_OK) {
		return hx_frame_refused(status);
	}
	unsigned long irq = hx_frame_lock(a);
	bool found = take_in(a, &w, size_of(order), false, &start);
	return done(a, irq, found, start);
}

struct hx_pfn_result hx_frames_buddy_allocate_run(struct hx_frame_allocator *a, uint64_t count,
						  unsigned flags,
						  const struct hx_frame_constraint *c)
{
	(void)flags;
	struct hx_frame_window w;
	hx_status status = hx_frame_window(a, count, 1, c, &w);
	if (status != HX_OK) {
		return hx_frame_refused(status);
	}
	uint64_t start = 0;
	unsigned long irq = hx_frame_lock(a);
	bool found = take_in(a, &w, count, true, &start);
	return done(a, irq, found, start);
}

uint64_t hx_frames_buddy_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
				       uint64_t count, unsigned flags)
{
	(void)flags;
	uint64_t n = 0, start;
	unsigned long irq = hx_frame_lock(a);
	for (; n < count && take_any(a, 0, &start); n++) {
		out[n] = hx_pfn(start);
	}
	if (n < count) {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return n;
}

hx_status hx_frames_buddy_reserve(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if (!hx_frame_in_span(a, first.v, count)) {
		return HX_ALREADY_MAPPED;
	}
	uint64_t end = first.v + count;
	unsigned long irq = hx_frame_lock(a);
	bool all_free = free_until(a, first.v, end) == end;
	if (all_free) {
		take_range(a, first.v, end);
		mark_used(a, first.v, end);
		hx_frame_note_taken(a, count);
	}
	hx_frame_unlock(a, irq);
	return all_free ? HX_OK : HX_ALREADY_MAPPED;
}

hx_status hx_frames_buddy_free_run(struct hx_frame_allocator *a, struct hx_pfn first,
				   uint64_t count)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	unsigned long irq = hx_frame_lock(a);
	hx_status status = release_run(a, first.v, count);
	hx_frame_unlock(a, irq);
	return status;
}

hx_status hx_frames_buddy_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	if (order > HX_ORDER_MAX) {
		return HX_INVALID_SIZE;
	}
	unsigned long irq = hx_frame_lock(a);
	hx_status status = release_block(a, first.v, order);
	hx_frame_unlock(a, irq);
	return status;
}

uint64_t hx_frames_buddy_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				   uint64_t count, hx_status *status)
{
	uint64_t n = 0;
	*status = HX_OK;
	unsigned long irq = hx_frame_lock(a);
	while (n < count && (*status = release_block(a, frames[n].v, 0)) == HX_OK) {
		n++;
	}
	hx_frame_unlock(a, irq);
	return n;
}

hx_status hx_frames_buddy_split(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
				uint64_t part)
{
	if (!hx_frame_split_valid(count, part)) {
		return HX_INVALID_SIZE;
	}
	unsigned long irq = hx_frame_lock(a);
	hx_status status = check_allocation(a, first.v, count);
	if (status == HX_OK) {
		uint64_t end = first.v + count;
		unmark_used(a, first.v, end);
		for (uint64_t f = first.v; f < end; f += part) {
			mark_used(a, f, f + part);
		}
		hx_frame_note_split(a, count, part);
	}
	hx_frame_unlock(a, irq);
	return status;
}

struct hx_pfn_result hx_frames_buddy_block_frames(struct hx_frame_allocator *a, struct hx_pfn first)
{
	uint64_t count = 0;
	unsigned long irq = hx_frame_lock(a);
	hx_status status = allocation_at(a, first.v, &count);
	hx_frame_unlock(a, irq);
	return status == HX_OK ? hx_frame_found(count) : hx_frame_refused(status);
}

void hx_frames_buddy_drain(struct hx_frame_allocator *a)
{
	(void)a; /* nothing is cached */
}

uint64_t hx_frames_buddy_free_frames(const struct hx_frame_allocator *a)
{
	return hx_frame_counter(&a->free_frames);
}

void hx_frames_buddy_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out)
{
	unsigned long irq = hx_frame_lock(a);
	hx_frame_common_stats(a, out);
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		out->free_blocks[k] = buddy_of(a)->orders[k].free_count;
	}
	hx_frame_unlock(a, irq);
}

/* ---- Validation ---- */

/* Words of the free bits (level 0) or of a summary. */
static uint64_t word_count(const struct hx_frame_allocator *a, unsigned k, unsigned level)
{
	unsigned shift = k + 6 * (level + 1);
	return ((span_end(a) - 1) >> shift) - (a->base >> shift) + 1;
}

/* Every bit of summary @level says whether its word is not zero; none is set beside them. */
static bool summary_valid(const struct hx_frame_allocator *a, unsigned k, unsigned level)
{
	const struct order *o = &buddy_of(a)->orders[k];
	const uint64_t *words = o->summary[level];
	uint64_t set = 0, not_zero = 0, below = word_count(a, k, level - 1);
	for (uint64_t i = 0, n = word_count(a, k, level); i < n; i++) {
		set += words[i] != 0 ? hx_popcount64(words[i]) : 0;
	}
	uint64_t first_bit = a->base >> (k + 6 * level);
	uint64_t first_word = first_bit >> 6;
	for (uint64_t i = 0; i < below; i++) {
		uint64_t word = level == 1 ? o->heads[i].free : o->summary[level - 1][i];
		uint64_t bit = first_bit + i;
		if (word != 0) {
			not_zero++;
			if ((words[(bit >> 6) - first_word] & bit_of(bit)) == 0) {
				return false;
			}
		}
	}
	return set == not_zero;
}

/* What a walk over the span saw. */
struct census {
	uint64_t free_frames, used_frames, joins;
	uint64_t free[HX_ORDER_MAX + 1], used[HX_ORDER_MAX + 1];
};

/* @f is a hole: step over it, and over as many aligned frames with it as are holes too. */
static uint64_t step_hole(const struct hx_frame_allocator *a, uint64_t f)
{
	unsigned order = hx_frame_order_at(f, span_end(a));
	uint64_t end = f + size_of(order);
	for (unsigned k = 0; k <= order; k++) {
		if (!no_heads(a, k, f, end)) {
			return f + 1;
		}
	}
	return end;
}

/*
 * Walk from block to block. A head inside a block that was stepped over is not
 * counted here, and so shows as a difference to the number of bits.
 */
static bool walk(const struct hx_frame_allocator *a, struct census *c)
{
	bool behind_piece = false;
	for (uint64_t f = a->base; f < span_end(a);) {
		unsigned frees = 0, useds = 0, order = 0;
		for (unsigned k = 0; k <= HX_ORDER_MAX && hx_is_aligned(f, size_of(k)); k++) {
			if (is_free(a, f, k)) {
				frees++;
				order = k;
				c->free[k]++;
			}
			if (is_used(a, f, k)) {
				useds++;
				order = k;
				c->used[k]++;
			}
		}
		uint64_t size = size_of(order), buddy = f ^ size;
		if (frees + useds > 1 || size > span_end(a) - f ||
		    (is_joined(a, f) && !(useds && behind_piece)) ||
		    (frees && order < HX_ORDER_MAX && hx_frame_in_span(a, buddy, 1) &&
		     is_free(a, buddy, order))) {
			return false;
		}
		c->joins += is_joined(a, f);
		c->free_frames += frees ? size : 0;
		c->used_frames += useds ? size : 0;
		behind_piece = useds != 0;
		f = frees + useds != 0 ? f + size : step_hole(a, f);
	}
	return true;
}

hx_status hx_frames_buddy_validate(const struct hx_frame_allocator *a)
{
	const struct buddy *b = buddy_of(a);
	struct census c = {0};
	if (!walk(a, &c) || c.free_frames != a->free_frames ||
	    c.free_frames + c.used_frames != a->total_frames || c.joins != b->joins) {
		return HX_CORRUPTED;
	}
	uint64_t joined = 0;
	for (uint64_t i = 0, n = word_count(a, 0, 0); i < n; i++) {
		joined += b->joined[i] != 0 ? hx_popcount64(b->joined[i]) : 0;
	}
	if (joined != b->joins) {
		return HX_CORRUPTED;
	}
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		const struct order *o = &b->orders[k];
		uint64_t frees = 0, useds = 0;
		for (uint64_t i = 0, n = word_count(a, k, 0); i < n; i++) {
			struct heads h = o->heads[i];
			if ((h.free | h.used) == 0) {
				continue; /* nearly all of a large memory */
			}
			if (i < o->lowest && h.free != 0) {
				return HX_CORRUPTED;
			}
			frees += hx_popcount64(h.free);
			useds += hx_popcount64(h.used);
		}
		if (frees != c.free[k] || useds != c.used[k] || frees != o->free_count ||
		    (b->available >> k & 1) != (frees != 0)) {
			return HX_CORRUPTED;
		}
		for (unsigned level = 1; level < o->levels; level++) {
			if (!summary_valid(a, k, level)) {
				return HX_CORRUPTED;
			}
		}
	}
	return HX_OK;
}

HX_FRAME_TRAIT_DEFINE(buddy);
