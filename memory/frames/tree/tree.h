/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * tree.h - what the parts of the frame allocator "tree" share: its layout, the states
 * of children, and who may change what.
 *
 *      frame     4 KiB       one bit in a row: taken
 *      row       64 frames   one word, the unit of atomic operations
 *      child     8 rows      2 MiB: one cache line of rows; one byte of state
 *      tree      64 children 128 MiB: one cache line of states; one word of hints
 *
 *      metadata: struct tree | hints | states | rows | ends
 *
 *      part      bits a frame   holds
 *      rows      1              frame taken
 *      ends      1              the taken frame is the last one of its allocation; only
 *                               in children that hold other things than single frames
 *      states    1/64           8 bits a child: what it holds, and where it is listed
 *      hints     1/512          64 bits a tree: the listings that its children may have
 *
 * Children are numbered from the one that holds the first frame of the span, and begin
 * at multiples of 512 frames: what is aligned in the tree is aligned in memory.
 *
 * ---- The state of a child: kind << 4 | place ----
 *
 *      FREE       all of its frames are free; its rows and ends mean nothing
 *      HOLE       none is managed; likewise
 *      WHOLE_ON   all are taken, by an allocation that goes on in the next child
 *      WHOLE_END  all are taken, by an allocation that ends with it
 *      MAKING     was FREE and is being made one of the others by who claimed it
 *      SINGLES    allocations of one frame; its ends mean nothing
 *      MIXED      any allocations
 *      HOLEY      any allocations, and holes: frames that have an end and are not taken
 *
 * SINGLES and MIXED come twice, for movable and for pinned frames, so that the frames
 * that stay for long do not lie strewn over all of memory. The kind of a child that is
 * not empty changes from SINGLES to MIXED only. In MIXED the ends of free frames mean
 * nothing: whoever allocates writes them.
 *
 * The place says where allocations find the child:
 *
 *      0          nowhere: it is full
 *      1          SINGLES: fewer than 12 frames are free
 *      2..14      SINGLES: at least 12 + (place - 2) * 39 frames are free
 *      1..9       MIXED, HOLEY: an aligned run of 2^(place - 1) frames is free
 *      OWNED      it is somebody's, who alone takes frames from it
 *
 * ---- Who may do what ----
 *
 *  1. Frames are taken out of a child by its owner alone. Anybody may free.
 *  2. A child that is listed is claimed by one compare-and-exchange of its state to OWNED,
 *     FREE children likewise; the owner publishes it again.
 *  3. Rows: the owner sets bits, whoever frees clears them. Ends: the owner writes those
 *     of free frames before it takes them, and whose an allocation is those of its own
 *     when it is split. All of these are atomic.
 *  4. Freeing relists a child that nobody owns, upwards only. The owner publishes, then
 *     reads the rows once more: a free either saw the child published, and relists it,
 *     or was early enough for this second look. (Row and state are written and read in
 *     opposite order by the two; all four accesses are sequentially consistent.)
 *  5. A child becomes FREE by its owner's hand only: nobody else knows that it is empty
 *     and stays so.
 *  6. A hint may be there in vain, never missing: publish first sets the state, then the
 *     hint; who finds a hint in vain clears it, then looks again.
 *
 * Sources: the idea of states by free space and of children reserved by CPUs is that of
 * LLFree (Wrenger, Rommel, Halbuer, Dietrich, Lohmann 2023); private rows and pending
 * masks are per-CPU caches in the manner of Bonwick, Adams 2001, kept in the bitmap's own
 * words; the asymmetric exclusion is Dekker's, its fence moved to one side (Dice, Huang,
 * Yang 2001).
 */
#ifndef HX_FRAMES_TREE_H
#define HX_FRAMES_TREE_H

#include <hx/bits.h>

#include "../trait.h"
#include "atomics.h"

enum {
	ROW_FRAMES = 64,
	CHILD_ROWS = 8,
	CHILD_ORDER = 9,
	CHILD_FRAMES = 1 << CHILD_ORDER,
	TREE_CHILDREN = 64,
	STATES_IN_WORD = 8,
};

#define NO_CHILD UINT32_MAX
#define NO_ROW UINT64_MAX

/* ---- States ---- */

enum kind {
	KIND_WHOLE, /* FREE, HOLE, WHOLE_ON and WHOLE_END are its places */
	KIND_SINGLES,
	KIND_SINGLES_PINNED,
	KIND_MIXED,
	KIND_MIXED_PINNED,
	KIND_HOLEY,
};

enum {
	STATE_FREE = 0,
	STATE_HOLE = 1,
	STATE_WHOLE_ON = 2,
	STATE_WHOLE_END = 3,
	STATE_MAKING = 15, /* was FREE; is being made something else by whoever claimed it */
	PLACE_FULL = 0,
	PLACE_SINGLES_MAX = 14,
	PLACE_RUNS_MAX = 9,
	PLACE_OWNED = 15,
	SINGLES_THIN = 12,
	SINGLES_STEP = 39, /* 12 + 12 * 39 < 512 <= 12 + 13 * 39 */
};

static inline unsigned state_of(enum kind kind, unsigned place)
{
	return (unsigned)kind << 4 | place;
}

static inline enum kind kind_of_state(unsigned state)
{
	return (enum kind)(state >> 4);
}

static inline unsigned place_of_state(unsigned state)
{
	return state & 15;
}

static inline bool is_owned(unsigned state)
{
	return place_of_state(state) == PLACE_OWNED;
}

static inline enum kind mixed_of(enum kind singles)
{
	return singles == KIND_SINGLES ? KIND_MIXED : KIND_MIXED_PINNED;
}

static inline bool is_singles(enum kind kind)
{
	return kind == KIND_SINGLES || kind == KIND_SINGLES_PINNED;
}

/* Kinds whose rows mean something. */
static inline bool has_rows(enum kind kind)
{
	return kind != KIND_WHOLE;
}

static inline bool has_ends(enum kind kind)
{
	return kind >= KIND_MIXED;
}

/*
 * ---- Hints: one bit for each listing, the best to take from first ----
 *
 * The fuller a child the better, so that others become empty. But one with a few frames is
 * hardly worth its claim: such thin ones wait until they have gathered some more, or until
 * there is nothing else.
 */

enum {
	HINT_SINGLES = 0,         /* places 2..14, and 1 */
	HINT_SINGLES_PINNED = 14, /* the same */
	HINT_MIXED = 28,          /* places 1..9 */
	HINT_MIXED_PINNED = 37,   /* places 1..9 */
	HINT_FREE = 46,
};

#define HINTS(first, n) (((UINT64_C(1) << (n)) - 1) << (first))

/* The hint of a listing; 0 for what is not listed. */
uint64_t hx_tree_hint(unsigned state);

/* ---- What a CPU has for itself ---- */

/*
 * Free frames of one row that are taken in the bitmap: a private row, whose frames the
 * CPU hands out, or a pending one, whose frames it will free together. Others read
 * both words to recognise a double free: @row changes with each use, so that a mask is
 * never taken for another row's.
 *
 *      row: | use (32 bits) | row number (32 bits) |      NO_ROW: none
 */
struct held_row {
	uint64_t row;
	uint64_t mask;
};

enum { CLASSES = 2, GROUPS = 3 };

struct hx_tree_counters {
	uint64_t singles_taken, singles_given; /* allocations of one frame out of rows */
	uint64_t wholes_taken, wholes_given;   /* of one whole child */
	uint64_t others_taken, others_given;
	uint64_t frames_taken, frames_given; /* of the others */
};

/*
 * A CPU's own state; plain loads and stores of its CPU, between enter() and leave(). Two
 * others may come: an interrupt on this CPU sees @busy and does without; whoever drains
 * sets @stop, makes this CPU pass a barrier, and waits until it is not busy.
 */
struct hx_tree_cpu {
	uint32_t busy;
	uint32_t stop;
	struct held_row private_row[CLASSES];
	struct held_row pending;
	uint32_t singles[CLASSES];       /* children that it owns, or NO_CHILD */
	uint32_t mixed[GROUPS][CLASSES]; /* for orders 1..3, 4..6, 7..8 */
	uint32_t putting;                /* one that it frees into */
	uint32_t last_row;               /* where it freed last */
	uint32_t cursor;                 /* the tree where it looks first */
	uint32_t whole_cursor;           /* the child, for whole ones */
	uint32_t uses;                   /* of held rows */
	struct hx_tree_counters count;
} __attribute__((aligned(64)));

struct hx_tree {
	uint32_t children; /* those before the span's first included */
	uint32_t lead;     /* children before the one of the first frame: no rows, no ends */
	uint32_t trees;
	uint64_t first; /* absolute number of the first frame of child 0, a tree's begin */
	uint64_t *hints;
	uint64_t *states;
	uint64_t *rows;
	uint64_t *ends;
	uint64_t cpus;                 /* that hold or have held something, as a mask */
	uint32_t cursor, whole_cursor; /* of calls that could not use a CPU's own state */
	struct hx_tree_counters count; /* of those; atomic */
	struct hx_tree_cpu cpu[HX_CPUS_MAX];
};

static inline struct hx_tree *tree_of(const struct hx_frame_allocator *a)
{
	return a->metadata;
}

/* ---- Parts of the metadata ---- */

static inline uint32_t child_of_frame(const struct hx_tree *t, uint64_t f)
{
	return (uint32_t)((f - t->first) >> CHILD_ORDER);
}

static inline uint64_t first_of_child(const struct hx_tree *t, uint32_t child)
{
	return t->first + ((uint64_t)child << CHILD_ORDER);
}

static inline uint64_t *rows_of(const struct hx_tree *t, uint32_t child)
{
	return &t->rows[(uint64_t)(child - t->lead) * CHILD_ROWS];
}

static inline uint64_t *ends_of(const struct hx_tree *t, uint32_t child)
{
	return &t->ends[(uint64_t)(child - t->lead) * CHILD_ROWS];
}

/* A row by its number: row 0 is the first of child 0. */
static inline uint64_t *row_word(const struct hx_tree *t, uint64_t row)
{
	return &t->rows[row - (uint64_t)t->lead * CHILD_ROWS];
}

static inline unsigned hx_tree_state(const struct hx_tree *t, uint32_t child)
{
	return hx_word_load(&t->states[child / STATES_IN_WORD]) >> child % STATES_IN_WORD * 8 &
	       0xff;
}

/* ---- index.c: states and hints ---- */

/** Change the state of @child from @from to @to; false: it is another one. */
bool hx_tree_change(struct hx_tree *t, uint32_t child, unsigned from, unsigned to);
/** The caller owns the child, or all of it; nobody else changes its state. */
void hx_tree_set(struct hx_tree *t, uint32_t child, unsigned state);
/**
 * Own @child if its state is @state, FREE or of a kind with rows and nobody's. A FREE one
 * is made an empty one of kind @fresh; KIND_WHOLE: left in MAKING.
 */
bool hx_tree_claim(struct hx_tree *t, uint32_t child, unsigned state, enum kind fresh);
/** Give up @child of @kind, which the caller owns. */
void hx_tree_publish(struct hx_tree *t, uint32_t child, enum kind kind);
/** Frames of @child were freed by somebody who does not own it. */
void hx_tree_relist(struct hx_tree *t, uint32_t child);
/** Claim a child with one of the hints @wanted, the lowest first, from tree @cursor on. */
uint32_t hx_tree_find(struct hx_tree *t, uint32_t *cursor, uint64_t wanted, enum kind fresh);
/** Take 2^order FREE children, aligned, order 0..9, for one allocation; from child @cursor on. */
uint32_t hx_tree_take_whole(struct hx_tree *t, uint32_t *cursor, unsigned order);
/** The straight way for one child: of those whose states are in one word with @child's. */
uint32_t hx_tree_take_one_whole(struct hx_tree *t, uint32_t child);
/** @child is one allocation, and is FREE now; false: it is not, or it takes a closer look. */
bool hx_tree_give_whole(struct hx_tree *t, uint32_t child);
/** The @n children from @child on have all of a tree, and it is nothing but holes. */
bool hx_tree_are_holes(const struct hx_tree *t, uint32_t child, uint64_t n);
/** @child and, if @n are to be, all of its tree, holes until now, are FREE. @return how many */
uint64_t hx_tree_add_children(struct hx_tree *t, uint32_t child, uint64_t n);
/** The hint of @state is set for the tree of @child. */
void hx_tree_show(struct hx_tree *t, uint32_t child, unsigned state);

/* ---- child.c: the frames of one child ---- */

/** Where @child of @kind is to be listed by what its rows say; STATE_FREE when empty. */
unsigned hx_tree_listing(const struct hx_tree *t, uint32_t child, enum kind kind);
/** Frames of a row that are free, for whoever may claim the child in @state. */
uint64_t hx_tree_free_bits(const struct hx_tree *t, uint32_t child, unsigned row, unsigned state);
/** The caller, who alone knows it, makes an empty child of @kind. */
void hx_tree_clear(struct hx_tree *t, uint32_t child, enum kind kind);
/** Take a block of 2^order frames, order 1..8, from a child that the caller owns; not HOLEY. */
bool hx_tree_take_block(struct hx_tree *t, uint32_t child, unsigned order, uint64_t *first);
/**
 * Frames [from, from + count) of a child that the caller owns, which are free, are an
 * allocation's from now on; it ends there unless it @goes_on.
 */
void hx_tree_take_part(struct hx_tree *t, uint32_t child, enum kind kind, unsigned from,
		       unsigned count, bool goes_on);
/** The caller's child of SINGLES is MIXED from now on. */
void hx_tree_mix(struct hx_tree *t, uint32_t child, enum kind singles);
/**
 * Free what belongs to one allocation; false: somebody else was faster. *@used: what is
 * taken still in its last row.
 */
bool hx_tree_free_part(struct hx_tree *t, uint32_t child, enum kind kind, unsigned from,
		       unsigned count, uint64_t *used);
/**
 * The straight way for a block of 2^order frames within a row of a MIXED child. false: there
 * is none at @from, or it takes a closer look; nothing has changed.
 */
bool hx_tree_free_block(struct hx_tree *t, uint32_t child, unsigned from, unsigned order,
			uint64_t *used);
/**
 * May a child in @state be listed too low, now that frame @at of it was freed and @used is
 * left in that row? For single frames every 16th free looks: a listing may lag behind, but
 * for those that are full, and those that may have become empty.
 */
bool hx_tree_is_due(unsigned state, uint64_t used, unsigned at);
/** Frames of one allocation get @new_ends, one word for each row of the child. */
void hx_tree_split_part(struct hx_tree *t, uint32_t child, unsigned from, unsigned count,
			const uint64_t new_ends[CHILD_ROWS]);
/** Length of the allocation that starts at @first; DOUBLE_FREE or FOREIGN_FREE: none does. */
hx_status hx_tree_length(const struct hx_frame_allocator *a, uint64_t first, uint64_t *count);

/* ---- local.c: what CPUs hold ---- */

/**
 * Use this CPU's own state until hx_tree_leave(). NULL: an interrupt has come while it is
 * in use, or it is being drained.
 */
static HX_ALWAYS_INLINE struct hx_tree_cpu *hx_tree_enter(struct hx_tree *t)
{
	struct hx_tree_cpu *p = &t->cpu[hx_hal_cpu_id()];
	if (__atomic_load_n(&p->busy, __ATOMIC_RELAXED) != 0) {
		return NULL;
	}
	__atomic_store_n(&p->busy, 1, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* hx_tree_stop() has the fence for both */
	if (__builtin_expect(__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE) != 0, 0)) {
		__atomic_store_n(&p->busy, 0, __ATOMIC_RELEASE);
		return NULL;
	}
	return p;
}

static HX_ALWAYS_INLINE void hx_tree_leave(struct hx_tree_cpu *p)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(&p->busy, 0, __ATOMIC_RELEASE);
}

/** Some CPU holds the frame as a free one. O(CPUs) */
bool hx_tree_is_held(const struct hx_tree *t, uint64_t frame);
/** Hold the free frames @mask of @row, which are taken in the bitmap. */
void hx_tree_hold(struct hx_tree_cpu *p, struct held_row *held, uint64_t row, uint64_t mask);
/** Free what is held, and hold nothing. */
void hx_tree_let_go(struct hx_tree *t, struct held_row *held);
/** Note a child that this CPU owns. */
void hx_tree_keep(struct hx_tree *t, uint32_t *slot, uint32_t child);
/** Publish a noted child, if there is one. */
void hx_tree_drop(struct hx_tree *t, uint32_t *slot);
/** All that @p holds; the caller has it to itself. */
void hx_tree_drain_cpu(struct hx_tree *t, struct hx_tree_cpu *p);
/**
 * Make CPUs give back what they hold, and do without their own state until
 * hx_tree_resume(). Under a->lock. @return those that do: one that is in the middle of a
 * call for long, such as this one in an interrupt, is left alone
 */
uint64_t hx_tree_stop(struct hx_tree *t);
void hx_tree_resume(struct hx_tree *t, uint64_t stopped);

/* ---- range.c: any frames, under the lock ---- */

/** @count frames that satisfy @w, the lowest that can be had; for pinned frames or not. */
struct hx_pfn_result hx_tree_take_anywhere(struct hx_frame_allocator *a, uint64_t count,
					   const struct hx_frame_window *w, unsigned class);
/** Free an allocation in several children. */
hx_status hx_tree_give_children(struct hx_frame_allocator *a, uint64_t first, uint64_t count);

#endif
