/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * tree - the lock-free frame allocator: requests and frees; tree.h explains the rest.
 *
 * One frame. The CPU owns a child of single frames, takes a whole row of it with one
 * atomic exchange and hands out what was free there with plain bit operations. A free
 * into that row is a plain OR. A free into another row of a child that the CPU owns
 * waits in a mask until the next row begins; all others are one atomic AND, whose old
 * value is the check for a double free. Two frees into one row in succession make the
 * CPU own the child, in the hope of more.
 *
 * 2 to 256 frames. The CPU owns a mixed child for each group of orders; blocks are taken
 * with one compare-and-exchange. Among listed children the one with the smallest block
 * that is large enough comes first, and children that are free last: what is whole stays
 * whole.
 *
 * 512 frames and more. Whole children, by their states.
 *
 * All else - constraints, other lengths, given frames, and requests that found nothing
 * because CPUs hold what they need - is done under the lock (range.c).
 *
 * What two frees of one frame that meet in time say is not decided here: the bitmap sees
 * one of them, unless one CPU owns the row. One that comes after the other is always seen.
 */
#include "tree.h"

/* Metadata parts begin at cache lines. */
enum { LINE = 64 };

/* A row's number has 32 bits. */
#define SPAN_MAX (UINT64_C(1) << 37)

/* ---- Counting ---- */

/* @p's counters are its CPU's alone, those without a CPU everybody's. */
static HX_ALWAYS_INLINE void count(struct hx_tree_cpu *p, uint64_t *own, uint64_t *shared,
				   uint64_t n)
{
	if (p) {
		__atomic_store_n(own, *own + n, __ATOMIC_RELAXED);
	} else {
		hx_word_add(shared, n);
	}
}

#define COUNT(t, p, counter, n) count(p, (p) ? &(p)->count.counter : NULL, &(t)->count.counter, n)

static hx_status refused(struct hx_frame_allocator *a, hx_status status)
{
	hx_word_add(&a->refused_frees, 1);
	return status;
}

/* ---- Single frames: taking ---- */

static uint64_t frame_of(const struct hx_tree *t, uint64_t row, uint64_t bits)
{
	return t->first + row * ROW_FRAMES + hx_bits_ctz(bits);
}

static uint64_t singles_hints(unsigned class)
{
	return HINTS(HINT_SINGLES + class * PLACE_SINGLES_MAX, PLACE_SINGLES_MAX);
}

/* All free frames of the next row of @child that has some; false: it has none. */
static bool take_row(struct hx_tree *t, uint32_t child, uint64_t last, uint64_t *row,
		     uint64_t *mask)
{
	for (unsigned i = 1; i <= CHILD_ROWS; i++) {
		*row = (uint64_t)child * CHILD_ROWS + (last + i) % CHILD_ROWS;
		uint64_t *word = row_word(t, *row);
		if (hx_word_peek(word) != UINT64_MAX) {
			*mask = ~hx_word_exchange(word, UINT64_MAX);
			if (*mask != 0) {
				return true;
			}
		}
	}
	return false;
}

/* The child of @slot is left: nothing of it is held any more. */
static void leave_child(struct hx_tree *t, struct hx_tree_cpu *p, uint32_t *slot)
{
	const uint64_t pending = hx_word_peek(&p->pending.row);
	if (pending != NO_ROW && (uint32_t)pending / CHILD_ROWS == *slot) {
		hx_tree_let_go(t, &p->pending);
	}
	hx_tree_drop(t, slot);
}

/*
 * A child of single frames: one of its class that is not empty, an empty one, one of the
 * other class. What @p frees into is given up before an empty one is begun.
 */
static uint32_t find_singles(struct hx_tree *t, struct hx_tree_cpu *p, uint32_t *cursor,
			     unsigned class)
{
	const enum kind fresh = (enum kind)(KIND_SINGLES + class);
	uint32_t child = hx_tree_find(t, cursor, singles_hints(class), fresh);
	if (child == NO_CHILD && p && p->putting != NO_CHILD) {
		leave_child(t, p, &p->putting);
		child = hx_tree_find(t, cursor, singles_hints(class), fresh);
	}
	if (child == NO_CHILD) {
		child = hx_tree_find(t, cursor, HINTS(HINT_FREE, 1), fresh);
	}
	return child != NO_CHILD ? child : hx_tree_find(t, cursor, singles_hints(!class), fresh);
}

/* Hold another row of singles. */
static HX_NOINLINE bool refill(struct hx_tree *t, struct hx_tree_cpu *p, unsigned class)
{
	struct held_row *held = &p->private_row[class];
	uint32_t *slot = &p->singles[class];
	for (;;) {
		if (*slot != NO_CHILD) {
			uint64_t row, mask;
			if (take_row(t, *slot, hx_word_peek(&held->row), &row, &mask)) {
				hx_tree_hold(p, held, row, mask);
				return true;
			}
			hx_tree_let_go(t, held);
			leave_child(t, p, slot);
		}
		const uint32_t child = find_singles(t, p, &p->cursor, class);
		if (child == NO_CHILD) {
			return false;
		}
		hx_tree_keep(t, slot, child);
	}
}

/* A frame without a CPU's own state; @return false: none was found. */
static bool take_shared(struct hx_tree *t, unsigned class, uint64_t *frame)
{
	uint32_t cursor = __atomic_load_n(&t->cursor, __ATOMIC_RELAXED);
	for (;;) {
		const uint32_t child = find_singles(t, NULL, &cursor, class);
		if (child == NO_CHILD) {
			return false;
		}
		__atomic_store_n(&t->cursor, cursor, __ATOMIC_RELAXED);
		const enum kind kind = kind_of_state(hx_tree_state(t, child));
		bool found = false;
		for (uint64_t row = (uint64_t)child * CHILD_ROWS, i = 0; i < CHILD_ROWS && !found;
		     i++, row++) {
			const uint64_t used = hx_word_load(row_word(t, row));
			if (used != UINT64_MAX) {
				hx_word_or(row_word(t, row), ~used & (used + 1));
				*frame = frame_of(t, row, ~used);
				found = true;
			}
		}
		hx_tree_publish(t, child, kind);
		if (found) {
			return true;
		}
	}
}

/* ---- Single frames: giving ---- */

static HX_ALWAYS_INLINE bool holds_row(const struct held_row *held, uint64_t row)
{
	return (uint32_t)__atomic_load_n(&held->row, __ATOMIC_RELAXED) == row;
}

/* The frames of @mask, all taken, were held by nobody and are held now; false: some were free. */
static HX_ALWAYS_INLINE bool give_held(struct hx_tree *t, struct held_row *held, uint64_t row,
				       uint64_t mask)
{
	const uint64_t have = __atomic_load_n(&held->mask, __ATOMIC_RELAXED);
	if ((have & mask) != 0 || (~hx_word_peek(row_word(t, row)) & mask) != 0) {
		return false;
	}
	__atomic_store_n(&held->mask, have | mask, __ATOMIC_RELEASE);
	return true;
}

/* Into the bitmap, at once. */
static hx_status give_shared(struct hx_tree *t, uint32_t child, uint64_t row, uint64_t mask)
{
	if (is_owned(hx_tree_state(t, child))) {
		for (uint64_t left = mask; left != 0; left &= left - 1) {
			if (hx_tree_is_held(t, frame_of(t, row, left))) {
				return HX_DOUBLE_FREE;
			}
		}
	}
	const uint64_t old = hx_word_and(row_word(t, row), ~mask);
	if ((old & mask) != mask) {
		/* What was free is free; what was not is its owner's again. */
		hx_word_or(row_word(t, row), old & mask);
		return HX_DOUBLE_FREE;
	}
	if (hx_tree_is_due(hx_tree_state(t, child), old & ~mask, hx_bits_ctz(mask))) {
		hx_tree_relist(t, child);
	}
	return HX_OK;
}

static HX_NOINLINE hx_status give_elsewhere(struct hx_tree *t, struct hx_tree_cpu *p,
					    uint32_t child, uint64_t row, uint64_t mask)
{
	if ((~hx_word_peek(row_word(t, row)) & mask) != 0) {
		return HX_DOUBLE_FREE;
	}
	const unsigned state = hx_tree_state(t, child);
	bool mine = child == p->putting;
	for (unsigned c = 0; c < CLASSES; c++) {
		mine |= child == p->singles[c];
	}
	if (!mine && p->last_row == (uint32_t)row && is_singles(kind_of_state(state)) &&
	    hx_tree_claim(t, child, state, KIND_SINGLES)) {
		leave_child(t, p, &p->putting);
		hx_tree_keep(t, &p->putting, child);
		mine = true;
	}
	if (!mine) {
		const hx_status status = give_shared(t, child, row, mask);
		p->last_row = status == HX_OK ? (uint32_t)row : p->last_row;
		return status;
	}
	hx_tree_let_go(t, &p->pending);
	hx_tree_hold(p, &p->pending, row, mask);
	return HX_OK;
}

/* Where the CPU holds free frames of @row; NULL: nowhere. */
static HX_ALWAYS_INLINE struct held_row *held_by(struct hx_tree_cpu *p, uint64_t row)
{
	return holds_row(&p->private_row[0], row)   ? &p->private_row[0]
	       : holds_row(&p->pending, row)        ? &p->pending
	       : holds_row(&p->private_row[1], row) ? &p->private_row[1]
						    : NULL;
}

/* Free the single frames @mask of @row, in a child of singles; none unless all are taken. */
static hx_status give_row(struct hx_tree *t, struct hx_tree_cpu *p, uint64_t row, uint64_t mask)
{
	struct held_row *held = held_by(p, row);
	if (held) {
		return give_held(t, held, row, mask) ? HX_OK : HX_DOUBLE_FREE;
	}
	return give_elsewhere(t, p, (uint32_t)(row / CHILD_ROWS), row, mask);
}

/* ---- Blocks ---- */

static uint64_t mixed_hints(unsigned class, unsigned order)
{
	const unsigned first = class == 0 ? HINT_MIXED : HINT_MIXED_PINNED;
	return HINTS(first + order, PLACE_RUNS_MAX - order);
}

/* A child with a free block of 2^order frames, 1..8. */
static uint32_t find_mixed(struct hx_tree *t, uint32_t *cursor, unsigned order, unsigned class)
{
	uint32_t child = hx_tree_find(t, cursor, mixed_hints(class, order) | HINTS(HINT_FREE, 1),
				      (enum kind)(KIND_MIXED + class));
	return child != NO_CHILD ? child
				 : hx_tree_find(t, cursor, mixed_hints(!class, order), KIND_MIXED);
}

static bool take_block(struct hx_tree *t, struct hx_tree_cpu *p, unsigned order, unsigned class,
		       uint64_t *first)
{
	uint32_t none = NO_CHILD, cursor = __atomic_load_n(&t->cursor, __ATOMIC_RELAXED);
	uint32_t *slot = p ? &p->mixed[(order - 1) / 3][class] : &none;
	for (;;) {
		if (*slot != NO_CHILD) {
			const bool found = hx_tree_take_block(t, *slot, order, first);
			if (!p || !found) {
				hx_tree_drop(t, slot);
			}
			if (found) {
				return true;
			}
		}
		const uint32_t child = find_mixed(t, p ? &p->cursor : &cursor, order, class);
		if (child == NO_CHILD) {
			return false;
		}
		if (p) {
			hx_tree_keep(t, slot, child);
		} else {
			*slot = child;
		}
	}
}

static bool take_whole(struct hx_tree *t, struct hx_tree_cpu *p, unsigned order, uint64_t *first)
{
	uint32_t cursor = __atomic_load_n(&t->whole_cursor, __ATOMIC_RELAXED);
	const uint32_t child =
		hx_tree_take_whole(t, p ? &p->whole_cursor : &cursor, order - CHILD_ORDER);
	*first = first_of_child(t, child);
	return child != NO_CHILD;
}

/* ---- Requests ---- */

static struct hx_pfn_result take_anywhere(struct hx_frame_allocator *a, uint64_t frames,
					  uint64_t natural, unsigned flags,
					  const struct hx_frame_constraint *c)
{
	struct hx_tree *t = tree_of(a);
	struct hx_frame_window w;
	hx_status status = hx_frame_window(a, frames, natural, c, &w);
	if (status != HX_OK) {
		return hx_frame_refused(status);
	}
	struct hx_pfn_result r =
		hx_tree_take_anywhere(a, frames, &w, (flags & HX_FRAMES_PINNED) != 0);
	if (r.status == HX_OK) {
		hx_word_add(&t->count.others_taken, 1);
		hx_word_add(&t->count.frames_taken, frames);
	}
	return r;
}

static bool take(struct hx_tree *t, struct hx_tree_cpu *p, unsigned order, unsigned class,
		 uint64_t *first)
{
	if (order == 0) {
		bool found = !p && take_shared(t, class, first);
		if (p && refill(t, p, class)) {
			struct held_row *held = &p->private_row[class];
			const uint64_t mask = hx_word_peek(&held->mask);
			*first = frame_of(t, (uint32_t)hx_word_peek(&held->row), mask);
			__atomic_store_n(&held->mask, mask & (mask - 1), __ATOMIC_RELEASE);
			found = true;
		}
		COUNT(t, p, singles_taken, found);
		return found;
	}
	const bool found = order < CHILD_ORDER ? take_block(t, p, order, class, first)
					       : take_whole(t, p, order, first);
	COUNT(t, p, others_taken, found);
	COUNT(t, p, frames_taken, (uint64_t)found << order);
	return found;
}

/* All but a frame of the row that the CPU holds. @p may be NULL, and is left. */
/* All but a frame of the row that the CPU holds. @p may be NULL, and is left. */
static HX_NOINLINE struct hx_pfn_result
allocate(struct hx_frame_allocator *a, struct hx_tree_cpu *p, unsigned order, unsigned flags)
{
	struct hx_tree *t = tree_of(a);
	uint64_t first = 0;
	if (p && order == CHILD_ORDER) {
		const uint32_t child = hx_tree_take_one_whole(t, p->whole_cursor);
		if (child != NO_CHILD) {
			COUNT(t, p, wholes_taken, 1);
			hx_tree_leave(p);
			return hx_frame_found(first_of_child(t, child));
		}
	}
	const bool found = take(t, p, order, (flags & HX_FRAMES_PINNED) != 0, &first);
	if (p) {
		hx_tree_leave(p);
	}
	return found ? hx_frame_found(first)
		     : take_anywhere(a, UINT64_C(1) << order, UINT64_C(1) << order, flags, NULL);
}

struct hx_pfn_result hx_frames_tree_allocate(struct hx_frame_allocator *a, unsigned order,
					     unsigned flags, const struct hx_frame_constraint *c)
{
	if (order > HX_ORDER_MAX) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	if (c) {
		return take_anywhere(a, UINT64_C(1) << order, UINT64_C(1) << order, flags, c);
	}
	struct hx_tree *t = tree_of(a);
	struct hx_tree_cpu *p = hx_tree_enter(t);
	if (order > 0 || !p) {
		return allocate(a, p, order, flags);
	}
	struct held_row *held = &p->private_row[(flags & HX_FRAMES_PINNED) != 0];
	const uint64_t mask = hx_word_peek(&held->mask);
	if (mask == 0) {
		return allocate(a, p, order, flags);
	}
	__atomic_store_n(&held->mask, mask & (mask - 1), __ATOMIC_RELEASE);
	const uint64_t frame = frame_of(t, (uint32_t)hx_word_peek(&held->row), mask);
	COUNT(t, p, singles_taken, 1);
	hx_tree_leave(p);
	return hx_frame_found(frame);
}

struct hx_pfn_result hx_frames_tree_allocate_run(struct hx_frame_allocator *a, uint64_t frames,
						 unsigned flags,
						 const struct hx_frame_constraint *c)
{
	return take_anywhere(a, frames, 1, flags, c);
}

uint64_t hx_frames_tree_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
				      uint64_t frames, unsigned flags)
{
	const unsigned class = (flags & HX_FRAMES_PINNED) != 0;
	struct hx_tree *t = tree_of(a);
	uint64_t n = 0;
	struct hx_tree_cpu *p = frames > 0 ? hx_tree_enter(t) : NULL;
	if (p) {
		struct held_row *held = &p->private_row[class];
		while (n < frames && (hx_word_peek(&held->mask) != 0 || refill(t, p, class))) {
			const uint64_t row = (uint32_t)hx_word_peek(&held->row);
			uint64_t mask = hx_word_peek(&held->mask);
			for (; mask != 0 && n < frames; mask &= mask - 1) {
				out[n++] = hx_pfn(frame_of(t, row, mask));
			}
			__atomic_store_n(&held->mask, mask, __ATOMIC_RELEASE);
		}
		COUNT(t, p, singles_taken, n);
		hx_tree_leave(p);
	}
	while (n < frames) { /* no more to be had so easily, or an interrupt */
		struct hx_pfn_result r = hx_frames_tree_allocate(a, 0, flags, NULL);
		if (r.status != HX_OK) {
			break;
		}
		out[n++] = r.value;
	}
	return n;
}

/* ---- Frees ---- */

/* Whatever it is; its length is not known yet. */
static HX_NOINLINE hx_status give_any(struct hx_frame_allocator *a, struct hx_tree_cpu *p,
				      uint64_t first, uint64_t frames)
{
	struct hx_tree *t = tree_of(a);
	uint64_t length = 0;
	hx_status status = hx_tree_length(a, first, &length);
	if (status == HX_OK && length != frames) {
		status = HX_WRONG_SIZE_FREE;
	}
	if (status != HX_OK) {
		return refused(a, status);
	}
	const uint32_t child = child_of_frame(t, first);
	const unsigned at = first % CHILD_FRAMES;
	const enum kind kind = kind_of_state(hx_tree_state(t, child));
	bool given = true;
	if (at + frames > CHILD_FRAMES) {
		status = hx_tree_give_children(a, first, frames);
	} else if (is_singles(kind)) { /* hx_tree_length() saw it taken */
		status = give_shared(t, child, (first - t->first) / ROW_FRAMES,
				     UINT64_C(1) << at % ROW_FRAMES);
	} else if (has_rows(kind)) {
		uint64_t used;
		given = hx_tree_free_part(t, child, kind, at, (unsigned)frames, &used);
		if (hx_tree_is_due(hx_tree_state(t, child), used, at)) {
			hx_tree_relist(t, child);
		}
	} else {
		given = hx_tree_change(t, child, STATE_WHOLE_END, STATE_FREE);
		hx_tree_show(t, child, STATE_FREE);
	}
	status = given ? status : HX_DOUBLE_FREE;
	if (status != HX_OK) {
		return refused(a, status);
	}
	COUNT(t, p, others_given, 1);
	COUNT(t, p, frames_given, frames);
	return HX_OK;
}

/* @p may be NULL, and is left. */
static HX_NOINLINE hx_status give(struct hx_frame_allocator *a, struct hx_tree_cpu *p,
				  uint64_t first, uint64_t frames)
{
	struct hx_tree *t = tree_of(a);
	hx_status status;
	if (p && frames == 1 && hx_frame_in_span(a, first, 1) &&
	    is_singles(kind_of_state(hx_tree_state(t, child_of_frame(t, first))))) {
		status = give_row(t, p, (first - t->first) / ROW_FRAMES,
				  UINT64_C(1) << first % ROW_FRAMES);
		if (status == HX_OK) {
			COUNT(t, p, singles_given, 1);
		} else {
			(void)refused(a, status);
		}
	} else {
		/* In several children: that takes the lock. */
		if (p && (frames > CHILD_FRAMES || first % CHILD_FRAMES + frames > CHILD_FRAMES)) {
			hx_tree_leave(p);
			p = NULL;
		}
		status = give_any(a, p, first, frames);
	}
	if (p) {
		hx_tree_leave(p);
	}
	return status;
}

/* A frame of a row that this CPU holds, before all else. */
static HX_ALWAYS_INLINE hx_status give_frame(struct hx_frame_allocator *a, uint64_t first)
{
	struct hx_tree *t = tree_of(a);
	struct hx_tree_cpu *p = hx_tree_enter(t);
	if (p) {
		const uint64_t row = (first - t->first) / ROW_FRAMES;
		struct held_row *held = held_by(p, row);
		if (held && give_held(t, held, row, UINT64_C(1) << first % ROW_FRAMES)) {
			COUNT(t, p, singles_given, 1);
			hx_tree_leave(p);
			return HX_OK;
		}
	}
	return give(a, p, first, 1);
}

/* A block in a child that has ends, before all else. */
static HX_ALWAYS_INLINE hx_status give_block(struct hx_frame_allocator *a, uint64_t first,
					     unsigned order)
{
	struct hx_tree *t = tree_of(a);
	struct hx_tree_cpu *p = hx_tree_enter(t);
	if (p && hx_frame_in_span(a, first, 1)) {
		const uint32_t child = child_of_frame(t, first);
		const enum kind kind = kind_of_state(hx_tree_state(t, child));
		const unsigned at = first % CHILD_FRAMES;
		uint64_t used;
		if ((kind == KIND_MIXED || kind == KIND_MIXED_PINNED) &&
		    hx_tree_free_block(t, child, at, order, &used)) {
			if (hx_tree_is_due(hx_tree_state(t, child), used, at)) {
				hx_tree_relist(t, child);
			}
			COUNT(t, p, others_given, 1);
			COUNT(t, p, frames_given, UINT64_C(1) << order);
			hx_tree_leave(p);
			return HX_OK;
		}
	}
	return give(a, p, first, UINT64_C(1) << order);
}

/* One whole child, before all else; the CPU takes it again next. */
static HX_ALWAYS_INLINE hx_status give_child(struct hx_frame_allocator *a, uint64_t first)
{
	struct hx_tree *t = tree_of(a);
	struct hx_tree_cpu *p = hx_tree_enter(t);
	if (p && first % CHILD_FRAMES == 0 && hx_frame_in_span(a, first, CHILD_FRAMES)) {
		const uint32_t child = child_of_frame(t, first);
		if (hx_tree_give_whole(t, child)) {
			p->whole_cursor = child;
			COUNT(t, p, wholes_given, 1);
			hx_tree_leave(p);
			return HX_OK;
		}
	}
	return give(a, p, first, CHILD_FRAMES);
}

hx_status hx_frames_tree_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	if (order == 0) {
		return give_frame(a, first.v);
	}
	if (order == CHILD_ORDER) {
		return give_child(a, first.v);
	}
	return order > HX_ORDER_MAX ? HX_INVALID_SIZE : give_block(a, first.v, order);
}

hx_status hx_frames_tree_free_run(struct hx_frame_allocator *a, struct hx_pfn first,
				  uint64_t frames)
{
	return frames == 0 ? HX_INVALID_SIZE : give(a, hx_tree_enter(tree_of(a)), first.v, frames);
}

/* Frames of one row that are all different, and how many of them come from @frames. */
static uint64_t row_mask(const struct hx_pfn *frames, uint64_t count, uint64_t *n)
{
	uint64_t mask = 0;
	for (*n = 0; *n < count && frames[*n].v / ROW_FRAMES == frames[0].v / ROW_FRAMES; ++*n) {
		const uint64_t bit = UINT64_C(1) << frames[*n].v % ROW_FRAMES;
		if ((mask & bit) != 0) {
			break;
		}
		mask |= bit;
	}
	return mask;
}

uint64_t hx_frames_tree_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				  uint64_t total, hx_status *status)
{
	struct hx_tree *t = tree_of(a);
	uint64_t done = 0;
	*status = HX_OK;
	while (done < total && *status == HX_OK) {
		uint64_t n, mask = row_mask(&frames[done], total - done, &n);
		const uint64_t first = hx_align_down(frames[done].v, ROW_FRAMES);
		struct hx_tree_cpu *p = NULL;
		bool given = false;
		if (hx_frame_in_span(a, frames[done].v, 1) && (p = hx_tree_enter(t)) != NULL) {
			given = is_singles(kind_of_state(
					hx_tree_state(t, child_of_frame(t, frames[done].v)))) &&
				give_row(t, p, (first - t->first) / ROW_FRAMES, mask) == HX_OK;
			COUNT(t, p, singles_given, given ? n : 0);
			hx_tree_leave(p);
		}
		/* If not all of them could be freed, it is found out which. */
		for (uint64_t i = 0; i < n && *status == HX_OK; i++) {
			*status = given ? HX_OK : give_frame(a, frames[done].v);
			done += *status == HX_OK;
		}
	}
	return done;
}

struct hx_pfn_result hx_frames_tree_block_frames(struct hx_frame_allocator *a, struct hx_pfn first)
{
	uint64_t length = 0;
	hx_status status = hx_tree_length(a, first.v, &length);
	return status == HX_OK ? hx_frame_found(length) : hx_frame_refused(status);
}

/* ---- Building ---- */

/* Children and trees of a span, and where the parts of its metadata begin. */
struct layout {
	uint64_t first, lead, children, trees;
	uint64_t hints, states, rows, ends, bytes;
};

static uint64_t lines(uint64_t bytes)
{
	return (bytes + LINE - 1) / LINE * LINE;
}

static bool lay_out(uint64_t base, uint64_t span_frames, struct layout *l)
{
	if (!hx_frame_span_valid(base, span_frames) || span_frames > SPAN_MAX) {
		return false;
	}
	l->first = hx_align_down(base, (uint64_t)TREE_CHILDREN * CHILD_FRAMES);
	l->lead = (base - l->first) / CHILD_FRAMES;
	l->children = (base + span_frames - 1 - l->first) / CHILD_FRAMES + 1;
	l->trees = (l->children + TREE_CHILDREN - 1) / TREE_CHILDREN;
	const uint64_t row_bytes = (l->children - l->lead) * CHILD_ROWS * sizeof(uint64_t);
	l->hints = lines(sizeof(struct hx_tree));
	l->states = l->hints + lines(l->trees * sizeof(uint64_t));
	l->rows = l->states + l->trees * TREE_CHILDREN;
	l->ends = l->rows + row_bytes;
	l->bytes = l->ends + row_bytes;
	return true;
}

uint64_t hx_frames_tree_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	struct layout l;
	return lay_out(base, span_frames, &l) ? l.bytes : 0;
}

/* The lowest 6 bits of @v in the opposite order: CPUs begin far from each other. */
static uint32_t mirrored(uint32_t v)
{
	uint32_t r = 0;
	for (unsigned i = 0; i < 6; i++) {
		r |= (v >> i & 1) << (5 - i);
	}
	return r;
}

hx_status hx_frames_tree_init(struct hx_frame_allocator *a)
{
	struct layout l;
	if (!lay_out(a->base, a->span_frames, &l) || !a->metadata || a->metadata_bytes < l.bytes) {
		return HX_INVALID_SIZE;
	}
	struct hx_tree *t = tree_of(a);
	unsigned char *metadata = a->metadata;
	hx_memset(t, 0, sizeof *t);
	t->first = l.first;
	t->lead = (uint32_t)l.lead;
	t->children = (uint32_t)l.children;
	t->trees = (uint32_t)l.trees;
	t->hints = (uint64_t *)(void *)(metadata + l.hints);
	t->states = (uint64_t *)(void *)(metadata + l.states);
	t->rows = (uint64_t *)(void *)(metadata + l.rows);
	t->ends = (uint64_t *)(void *)(metadata + l.ends);
	hx_memset(t->hints, 0, l.states - l.hints);
	hx_memset(t->states, STATE_HOLE, l.rows - l.states);
	for (uint32_t i = 0; i < HX_CPUS_MAX; i++) {
		struct hx_tree_cpu *p = &t->cpu[i];
		p->pending.row = NO_ROW;
		p->putting = NO_CHILD;
		p->last_row = UINT32_MAX;
		p->cursor = (uint32_t)((uint64_t)t->trees * mirrored(i) / HX_CPUS_MAX);
		p->whole_cursor = p->cursor * TREE_CHILDREN;
		for (unsigned c = 0; c < CLASSES; c++) {
			p->private_row[c].row = NO_ROW;
			p->singles[c] = NO_CHILD;
			for (unsigned g = 0; g < GROUPS; g++) {
				p->mixed[g][c] = NO_CHILD;
			}
		}
	}
	return HX_OK;
}

HX_FRAME_TRAIT_DEFINE(tree);
