/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * internal.h - what the mapper's files share: the geometry in the walker's
 * terms, soft entries, table frames, and what a call gathers for its flush.
 *
 * Ranges are pairs of inclusive addresses [va, last], so that a range may end at
 * the top of the address space. At level l an entry spans 2^shift(l) bytes:
 *
 *      level  |      2      |      1      |      0      |
 *   va  ..sign| bits[2]     | bits[1]     | bits[0]     | page_shift |
 *                           ^ shift(2)    ^ shift(1)    ^ shift(0)
 *
 * The walkers recurse by level, at most HX_LEVELS_MAX deep, and cut the range at
 * the borders of entries, so every table in the range is entered once. All of
 * them run under a cursor's locks (cursor.c).
 *
 * At rest, that is, when nobody holds a lock: an entry is EMPTY, a TABLE, a LEAF
 * or, at level 0 of a user table, SOFT for a hidden page; every table but the root
 * has an entry that is not EMPTY, except those that hang off a kernel table's root.
 */
#ifndef HX_MAPPER_INTERNAL_H
#define HX_MAPPER_INTERNAL_H

#include <hx/mapper.h>

/* ---- Geometry ---- */

static inline unsigned hx_root_level(void)
{
	return hx_hal_geometry.levels - 1u;
}

/* [l]: log2 of the bytes under an entry of level l. The first table's init fills it. */
extern uint8_t hx_level_shifts[HX_LEVELS_MAX];

static inline unsigned hx_level_shift(unsigned level)
{
	return __atomic_load_n(&hx_level_shifts[level], __ATOMIC_RELAXED);
}

static inline uint64_t hx_level_bytes(unsigned level)
{
	return UINT64_C(1) << hx_level_shift(level);
}

static inline unsigned hx_level_entries(unsigned level)
{
	return 1u << hx_hal_geometry.bits[level];
}

static inline unsigned hx_level_index(uintptr_t va, unsigned level)
{
	return (unsigned)(va >> hx_level_shift(level)) & (hx_level_entries(level) - 1u);
}

/* Last byte of the piece of [va, last] that lies under one entry of @level. */
static inline uintptr_t hx_piece_last(uintptr_t va, uintptr_t last, unsigned level)
{
	uintptr_t end = va | (uintptr_t)(hx_level_bytes(level) - 1);
	return end < last ? end : last;
}

/* Is the piece all that the entry spans? */
static inline bool hx_piece_is_whole(uintptr_t va, uintptr_t last, unsigned level)
{
	return last - va == (uintptr_t)(hx_level_bytes(level) - 1);
}

/* The highest level of leaves; init has checked that all below are legal too. */
static inline unsigned hx_highest_leaf(void)
{
	return hx_log2_floor(hx_hal_geometry.leaf_levels);
}

static inline bool hx_feature(uint32_t feature)
{
	return (hx_hal_geometry.features & feature) != 0;
}

/* Are the bits from the highest translated one up all equal? */
static inline bool hx_is_canonical(uintptr_t va)
{
	unsigned shift = hx_hal_geometry.va_bits - 1u;
	return va >> shift == 0 || va >> shift == UINTPTR_MAX >> shift;
}

static inline hx_pte *hx_table_at(struct hx_pa pa)
{
	return hx_ptr(pa);
}

/* The table below a TABLE entry. */
static inline hx_pte *hx_child_of(hx_pte e, unsigned level)
{
	return hx_table_at(hx_hal_pte_pa(e, level));
}

/* The root entry whose value other tables have copied: it must stay as it is. */
static inline bool hx_is_fixed(const struct hx_pagetable *t, unsigned level)
{
	return t->kernel && t->sealed && level == hx_root_level();
}

/* ---- Soft entries: what the call in progress unhooked here, or a hidden page ---- */

/*
 *    47   46  45  44  43 .. 0
 *  |   0   | D | U | W | PFN |   a leaf
 *  |   1   | 0 | 0 | 0 | PFN |   a table of the level below
 *  |   1   | D | A | 1 | PFN |   a leaf that is broken, to be made anew at once
 */
#define HX_SOFT_PFN ((UINT64_C(1) << 44) - 1)
#define HX_SOFT_WRITABLE (UINT64_C(1) << 44)
#define HX_SOFT_USER (UINT64_C(1) << 45)
#define HX_SOFT_DIRTY (UINT64_C(1) << 46)
#define HX_SOFT_TABLE (UINT64_C(1) << 47)
#define HX_SOFT_BROKEN (HX_SOFT_TABLE | HX_SOFT_WRITABLE)
#define HX_SOFT_ACCESSED HX_SOFT_USER /* of a broken leaf: its rights are to change anyway */

/* Flags of an unmapped leaf that its owner is told. */
#define HX_RELEASED_FLAGS                                                                          \
	(HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_DIRTY | HX_PAGE_HUGE)

/* Of the payload all but the frame number. */
static inline uint64_t hx_soft_leaf_bits(uint64_t flags)
{
	return (flags & HX_PAGE_WRITABLE ? HX_SOFT_WRITABLE : 0) |
	       (flags & HX_PAGE_USER ? HX_SOFT_USER : 0) |
	       (flags & HX_PAGE_DIRTY ? HX_SOFT_DIRTY : 0);
}

static inline hx_pte hx_soft_leaf(hx_pte leaf, unsigned level)
{
	return hx_hal_pte_soft(hx_pa_to_pfn(hx_hal_pte_pa(leaf, level)).v |
			       hx_soft_leaf_bits(hx_hal_pte_flags(leaf, level)));
}

static inline hx_pte hx_soft_broken(hx_pte leaf, unsigned level)
{
	uint64_t flags = hx_hal_pte_flags(leaf, level);
	return hx_hal_pte_soft(hx_pa_to_pfn(hx_hal_pte_pa(leaf, level)).v | HX_SOFT_BROKEN |
			       (flags & HX_PAGE_ACCESSED ? HX_SOFT_ACCESSED : 0) |
			       (flags & HX_PAGE_DIRTY ? HX_SOFT_DIRTY : 0));
}

static inline bool hx_soft_is_broken(uint64_t payload)
{
	return (payload & HX_SOFT_BROKEN) == HX_SOFT_BROKEN;
}

static inline hx_pte hx_soft_table(struct hx_pa table)
{
	return hx_hal_pte_soft(hx_pa_to_pfn(table).v | HX_SOFT_TABLE);
}

static inline struct hx_pa hx_soft_pa(uint64_t payload)
{
	return hx_pfn_to_pa(hx_pfn(payload & HX_SOFT_PFN));
}

static inline uint64_t hx_soft_flags(uint64_t payload, unsigned level)
{
	return HX_PAGE_PRESENT | (payload & HX_SOFT_WRITABLE ? HX_PAGE_WRITABLE : 0) |
	       (payload & HX_SOFT_USER ? HX_PAGE_USER : 0) |
	       (payload & HX_SOFT_DIRTY ? HX_PAGE_DIRTY : 0) | (level > 0 ? HX_PAGE_HUGE : 0);
}

/* ---- Groups of leaves, which the machine may cache as one (hx/hal.h, group.c) ---- */

static inline unsigned hx_group_leaves(void)
{
	return 1u << hx_hal_geometry.group_bits;
}

static HX_ALWAYS_INLINE bool hx_is_grouped(const hx_pte *p)
{
	const hx_pte raw = hx_hal_pte_raw(p);
	return raw != hx_hal_pte_plain(raw, p);
}

/* Has the machine nothing left to set in a leaf with these flags? */
static inline bool hx_is_settled(uint64_t flags)
{
	return !hx_feature(HX_MMU_HARDWARE_AD) ||
	       ((flags & HX_PAGE_ACCESSED) != 0 &&
		((flags & HX_PAGE_DIRTY) != 0 || (flags & HX_PAGE_WRITABLE) == 0));
}

/* May the leaf at @p stand there: in no group, or in one that is whole and fits together? */
bool hx_group_is_sound(const hx_pte *p, unsigned level);
/* Make groups of entries [begin, end) of a leaf table wherever they fit. */
void hx_group_make(hx_pte *begin, const hx_pte *end);
/* Make those plain of which an entry is in [begin, end): before one of them changes. */
void hx_group_break(hx_pte *begin, const hx_pte *end);

/* ---- Runs: most leaves of a table of level 0 differ in their address alone ---- */

/* What an entry of level 0 holds beside its address. */
static HX_ALWAYS_INLINE hx_pte hx_attributes_of(hx_pte e)
{
	return e ^ hx_hal_pte_leaf(hx_hal_pte_pa(e, 0), 0, 0);
}

/*
 * Four neighbours, for loops over a table: one test for all of them, and each is
 * loaded before the first is stored, so that the loads go ahead of what is done. They are
 * as they stand: one of a group is like no plain leaf, and is looked at by itself.
 */
struct hx_four {
	hx_pte a, b, c, d;
};

static HX_ALWAYS_INLINE struct hx_four hx_four_load(const hx_pte *p)
{
	return (struct hx_four){hx_hal_pte_raw(&p[0]), hx_hal_pte_raw(&p[1]), hx_hal_pte_raw(&p[2]),
				hx_hal_pte_raw(&p[3])};
}

/* Do they differ from @e, and from each other, in the address alone? */
static HX_ALWAYS_INLINE bool hx_four_are_like(struct hx_four f, hx_pte e)
{
	return hx_attributes_of((f.a ^ e) | (f.b ^ e) | (f.c ^ e) | (f.d ^ e)) == 0;
}

/*
 * Write the leaf at @p, which was @like, and those behind it that differ in the address
 * alone to @leaves (also in place), each as its address and @flags. It may have changed
 * since. @return the first that differs, or @end
 */
static inline const hx_pte *hx_list_run(const hx_pte *p, const hx_pte *end, hx_pte like,
					uint64_t flags, uint64_t *leaves)
{
	for (; end - p >= 4; p += 4, leaves += 4) {
		struct hx_four f = hx_four_load(p);
		if (!hx_four_are_like(f, like)) {
			break;
		}
		leaves[0] = hx_hal_pte_pa(f.a, 0).v | flags;
		leaves[1] = hx_hal_pte_pa(f.b, 0).v | flags;
		leaves[2] = hx_hal_pte_pa(f.c, 0).v | flags;
		leaves[3] = hx_hal_pte_pa(f.d, 0).v | flags;
	}
	for (; p < end; p++) {
		hx_pte e = hx_hal_pte_load(p);
		if (hx_attributes_of(e ^ like) != 0) {
			break;
		}
		*leaves++ = hx_hal_pte_pa(e, 0).v | flags;
	}
	return p;
}

/* ---- Arguments (table.c) ---- */

/* Check a range of a half that @t owns; *last is its last byte. */
hx_status hx_mapper_check_range(const struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				uintptr_t *last);

/* Is all of [va, last] in the half that @t owns? */
static inline bool hx_is_inside(const struct hx_pagetable *t, uintptr_t va, uintptr_t last)
{
	return va - t->rules.first <= t->rules.bytes_less_1 &&
	       last - t->rules.first <= t->rules.bytes_less_1;
}

/* Check flags for a leaf of @t; add what it has besides: W^X, preset ACCESSED and DIRTY. */
static inline hx_status hx_mapper_check_flags(const struct hx_pagetable *t, uint64_t *flags)
{
	uint64_t f = *flags;
	if ((f & t->rules.looked_at) != HX_PAGE_PRESENT) {
		return HX_INVALID_ARGUMENT;
	}
	if (f & HX_PAGE_WRITABLE) {
		if (!(f & HX_PAGE_NO_EXECUTE) && t->wx == HX_WX_REFUSE) {
			return HX_PERMISSION_DENIED;
		}
		f |= t->rules.when_writable;
	}
	*flags = (f | t->rules.always) & ~HX_PAGE_HUGE;
	return HX_OK;
}

/* ---- Table frames (table.c) ---- */

/* Tables in hand, chained through their first words. */
struct hx_reserve {
	struct hx_pa head;
	uint64_t count;
};

/* One of them; there must be one. */
struct hx_pa hx_reserve_take(struct hx_reserve *r);
void hx_reserve_put(struct hx_reserve *r, struct hx_pa table);

struct hx_pfn_result hx_table_allocate(struct hx_frames *frames, struct hx_framedb *db,
				       struct hx_pagetable *owner);
void hx_table_free(struct hx_frames *frames, struct hx_framedb *db, struct hx_pa table);

/* Are entries [first, end) all EMPTY? */
bool hx_table_is_empty(const hx_pte *table, unsigned first, unsigned end);

/* hx_translate(), and the entry at which the walk ended (query.c). */
struct hx_translation hx_walk_to(const struct hx_pagetable *t, struct hx_va va, hx_pte *end);

/* ---- What is to be flushed (shootdown.c) ---- */

/*
 * The addresses that a call must invalidate: few ranges in ascending order, the last
 * of which grows when there is no room for one more.
 */
enum { HX_GATHER_MAX = 4 };

struct hx_gather {
	struct hx_piece {
		uintptr_t first, last;
		unsigned level; /* lowest level of a leaf in it */
	} pieces[HX_GATHER_MAX];
	unsigned count;
	bool tables; /* table entries changed, too */
};

/* [va, last] lies behind, or inside, what was added before. */
static inline void hx_gather_add(struct hx_gather *g, uintptr_t va, uintptr_t last, unsigned level)
{
	struct hx_piece *p = &g->pieces[g->count > 0 ? g->count - 1 : 0];
	if (g->count == 0 || (va > p->last && va - p->last > 1 && g->count < HX_GATHER_MAX)) {
		g->pieces[g->count++] = (struct hx_piece){va, last, level};
		return;
	}
	p->first = va < p->first ? va : p->first;
	p->last = last > p->last ? last : p->last;
	p->level = level < p->level ? level : p->level;
}

/* ---- Cursors (cursor.c) ---- */

struct hx_cursor {
	struct hx_pagetable *t;
	uintptr_t first, last;
	uint32_t stripes; /* whose locks are held, bit i: stripes[i] */
	unsigned long irq;
	struct hx_stripe *home; /* one of them: what the call does is charged to it */
	struct hx_reserve reserve;
	struct hx_gather gather;
};

void hx_cursor_open(struct hx_cursor *c, struct hx_pagetable *t, uintptr_t first, uintptr_t last);
/* Let go and lock all of the table: what was seen may have changed. */
void hx_cursor_widen(struct hx_cursor *c);
/* Give back what is left in hand, and let go. */
void hx_cursor_close(struct hx_cursor *c);

static inline bool hx_cursor_has_all(const struct hx_cursor *c)
{
	return c->stripes == UINT32_MAX;
}

static inline unsigned hx_stripe_index(uintptr_t va)
{
	return (unsigned)(va >> hx_level_shift(1)) % HX_STRIPES;
}

/*
 * Which of a stripe's leaf tables is number @table of the address space (cursor.c)? Of a
 * half of 57 bits there are 2^31 in each stripe; 0 stands for none.
 */
static inline uint32_t hx_leaf_tag(uintptr_t table)
{
	return (uint32_t)(table / HX_STRIPES) | UINT32_C(1) << 31;
}

/* ---- Tables that a huge leaf keeps for its splits (cursor.c) ---- */

/* Leaves of the direct map keep none: no leaf may lie on both sides of its end. */
static inline bool hx_is_on_one_side(const struct hx_pagetable *t, uintptr_t va, uintptr_t last)
{
	return !t->kernel || (va <= t->direct_last) == (last <= t->direct_last);
}

/* Above this a leaf would keep a table for each GiB, and more: it keeps none, and is not split. */
enum { HX_KEEPING_LEVEL_MAX = 2 };

/* How many a leaf of @level at @va keeps. */
uint64_t hx_kept_tables(const struct hx_pagetable *t, unsigned level, uintptr_t va);
/* The leaf has been made: put them by, out of the reserve. */
void hx_cursor_keep(struct hx_cursor *c, unsigned level, uintptr_t va);
/* It has gone: free them. */
void hx_cursor_drop_kept(struct hx_cursor *c, unsigned level, uintptr_t va);
/* It is split: the table for that. Its pieces keep theirs. */
struct hx_pa hx_cursor_take_kept(struct hx_cursor *c, uintptr_t va);

/* @p table, of nobody any more, has been folded into the leaf: keep it, or free it. */
void hx_cursor_keep_folded(struct hx_cursor *c, unsigned level, uintptr_t va, struct hx_pa table);

/* Readers that saw a table that is unhooked start over; before its frame is reused. */
void hx_cursor_retire(const struct hx_cursor *c);

/* Have @p count tables in hand, or none: OUT_OF_MEMORY. Contents undefined. */
hx_status hx_cursor_reserve(struct hx_cursor *c, uint64_t count);
void hx_cursor_free_table(struct hx_cursor *c, struct hx_pa table);

/* The table of level 0 on the way to @va; NULL when there is none. Under its stripe's lock. */
hx_pte *hx_find_leaf_table(const struct hx_pagetable *t, uintptr_t va);
/* The one that holds all entries of the range; NULL when there is none. */
hx_pte *hx_cursor_leaf_table(const struct hx_cursor *c);

/* Invalidate what was gathered wherever the table is active; nothing gathered: nothing. */
void hx_cursor_flush(struct hx_cursor *c);
/* The same, but this CPU's own view is right already. */
void hx_cursor_flush_others(struct hx_cursor *c);

/* Invalidate @p g, or all of @t, wherever it is active; no lock is needed. */
void hx_gather_flush_others(struct hx_pagetable *t, struct hx_stripe *home,
			    const struct hx_gather *g);
void hx_gather_flush(struct hx_pagetable *t, struct hx_stripe *home, const struct hx_gather *g);
void hx_flush_table(struct hx_pagetable *t);

/* ---- The general way of hx_map(), hx_unmap(), hx_unmap_sparse() (map.c, change.c) ---- */

hx_status hx_map_range(struct hx_pagetable *t, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags);
hx_status hx_unmap_range(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, bool sparse,
			 hx_released_fn released, void *context);

/* ---- Identifiers (asid.c) and what runs (load.c); with interrupts off ---- */

/* The identifier under which this CPU is about to run @t. */
uint16_t hx_asid_enter(struct hx_pagetable *t);
/*
 * The one that @t has: it stays while @t runs anywhere. Who wants the one of those that run
 * it has looked at `active` before, in order.
 */
static inline uint16_t hx_asid_of(const struct hx_pagetable *t)
{
	return (uint16_t)__atomic_load_n(&t->asid_token, __ATOMIC_RELAXED);
}
/* The one that this CPU runs under. */
uint16_t hx_loaded_asid(void);

/* Those of @p among that are lazy on @t (load.c), or were just now; NULL: none. */
struct hx_cpus hx_lazy_on(const struct hx_pagetable *t, struct hx_cpus among);
/* This CPU, if it is lazy on @t, forgets @t and loads what it runs. @return was it? */
bool hx_lazy_leave(const struct hx_pagetable *t);

/* Invalidate everything on this CPU alone, GLOBAL entries too; counted for @t. */
void hx_flush_this_cpu(struct hx_pagetable *t);

#endif
