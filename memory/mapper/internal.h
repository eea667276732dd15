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
 * them run under the table's lock.
 *
 * At rest, that is, when nobody holds the lock: an entry is EMPTY, a TABLE, a LEAF
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

static inline unsigned hx_level_shift(unsigned level)
{
	unsigned shift = hx_hal_geometry.page_shift;
	for (unsigned l = 0; l < level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	return shift;
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
	return (unsigned)(va >> hx_level_shift(level)) & (hx_level_entries(level) - 1);
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
 *  | TABLE | D | U | W | PFN |   TABLE: the frame is a table of the level below
 */
#define HX_SOFT_PFN ((UINT64_C(1) << 44) - 1)
#define HX_SOFT_WRITABLE (UINT64_C(1) << 44)
#define HX_SOFT_USER (UINT64_C(1) << 45)
#define HX_SOFT_DIRTY (UINT64_C(1) << 46)
#define HX_SOFT_TABLE (UINT64_C(1) << 47)

/* Flags of an unmapped leaf that its owner is told. */
#define HX_RELEASED_FLAGS                                                                          \
	(HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_DIRTY | HX_PAGE_HUGE)

static inline hx_pte hx_soft_leaf(hx_pte leaf, unsigned level)
{
	uint64_t flags = hx_hal_pte_flags(leaf, level);
	return hx_hal_pte_soft(hx_pa_to_pfn(hx_hal_pte_pa(leaf, level)).v |
			       (flags & HX_PAGE_WRITABLE ? HX_SOFT_WRITABLE : 0) |
			       (flags & HX_PAGE_USER ? HX_SOFT_USER : 0) |
			       (flags & HX_PAGE_DIRTY ? HX_SOFT_DIRTY : 0));
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

/* ---- Arguments (table.c) ---- */

/* Check a range of a half that @t owns; *last is its last byte. */
hx_status hx_mapper_check_range(const struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				uintptr_t *last);
/* Check flags for a leaf of @t and apply W^X and preset ACCESSED and DIRTY. */
hx_status hx_mapper_check_flags(const struct hx_pagetable *t, uint64_t *flags);

/* ---- Table frames (table.c) ---- */

/* Tables in hand, chained through their first words. */
struct hx_reserve {
	struct hx_pa head;
	uint64_t count;
};

/* Have @p count tables in hand, or none: OUT_OF_MEMORY. Contents undefined. */
hx_status hx_reserve_fill(struct hx_pagetable *t, struct hx_reserve *r, uint64_t count);
/* One of them; there must be one. */
struct hx_pa hx_reserve_take(struct hx_reserve *r);
void hx_table_free(struct hx_pagetable *t, struct hx_pa table);

/* Are entries [first, end) all EMPTY? */
bool hx_table_is_empty(const hx_pte *table, unsigned level, unsigned first, unsigned end);

/* ---- Flushes (shootdown.c) ---- */

/* The addresses that a call must invalidate, one range that spans them all. */
struct hx_gather {
	uintptr_t first, last;
	unsigned level; /* lowest level of a leaf in it */
	bool any;       /* false: nothing yet, the rest is undefined */
	bool tables;    /* table entries changed, too */
};

static inline void hx_gather_add(struct hx_gather *g, uintptr_t va, uintptr_t last, unsigned level)
{
	if (!g->any || va < g->first) {
		g->first = va;
	}
	if (!g->any || last > g->last) {
		g->last = last;
	}
	if (!g->any || level < g->level) {
		g->level = level;
	}
	g->any = true;
}

/* Invalidate what was gathered wherever @t is active; nothing gathered: nothing. */
void hx_gather_flush(struct hx_pagetable *t, const struct hx_gather *g);
/* The same, but this CPU's own view is right already. */
void hx_gather_flush_others(struct hx_pagetable *t, const struct hx_gather *g);
/* Invalidate all of @t, wherever it is active. */
void hx_flush_table(struct hx_pagetable *t);
/* Invalidate everything on this CPU alone, GLOBAL entries too; counted for @t. */
void hx_flush_this_cpu(struct hx_pagetable *t);

#endif
