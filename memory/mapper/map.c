/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_map_range(): plan, reserve, fill.
 *
 * The plan walks the range without changing anything: it refuses a range in
 * which something is mapped and counts the tables that are missing. With these
 * in hand the fill cannot fail. Both choose leaves by leaf_fits(), so they agree.
 *
 * A leaf table that is new is filled while nobody can see it, with plain stores,
 * and then linked with release order: what it maps appears at once, and what the
 * range does not cover was zeroed before. A leaf table that the range fills whole
 * is never zeroed. A table above those is linked empty, for two calls may want the
 * same one: the first to link it wins, the other keeps his in hand, and lets it go
 * in the end.
 */
#include "internal.h"

struct mapping {
	struct hx_pagetable *t;
	struct hx_cursor *cursor;
	uint64_t flags;           /* of the leaves */
	unsigned lowest, highest; /* levels that the leaves may have */
	uint64_t tables;          /* planned */
	uint64_t tables_to_check; /* look again at so many whether they can be had */
};

/* Does the piece become one leaf, if its entry is EMPTY? */
static bool leaf_fits(const struct mapping *m, unsigned level, uintptr_t va, uintptr_t last,
		      uint64_t pa)
{
	return level <= m->highest && hx_piece_is_whole(va, last, level) &&
	       hx_is_aligned(pa, hx_level_bytes(level)) && hx_is_on_one_side(m->t, va, last);
}

/*
 * An interrupts-off walk must not go on for long towards a certain refusal: now
 * and then look whether the tables counted so far can be had at all.
 */
static bool hopeless(struct mapping *m)
{
	if (m->tables < m->tables_to_check) {
		return false;
	}
	m->tables_to_check = m->tables + 4096;
	return m->tables > hx_frames_free_frames(m->t->frames);
}

/* @table is NULL where the walk has left the tables that exist. */
static hx_status plan(struct mapping *m, const hx_pte *table, unsigned level, uintptr_t va,
		      uintptr_t last, uint64_t pa)
{
	if (level == 0) {
		bool free = !table || hx_table_is_empty(table, hx_level_index(va, 0),
							hx_level_index(last, 0) + 1);
		return free ? HX_OK : HX_ALREADY_MAPPED;
	}
	hx_status s = HX_OK;
	for (uintptr_t to;; pa += to - va + 1, va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte e = table ? hx_hal_pte_load(&table[hx_level_index(va, level)]) : 0;
		const hx_pte *child = NULL;
		bool descend = true;
		switch (hx_hal_pte_kind(e, level)) {
		case HX_PTE_EMPTY:
			if (hx_is_fixed(m->t, level)) {
				return HX_NOT_SUPPORTED;
			}
			descend = !leaf_fits(m, level, va, to, pa);
			if (descend && level == m->lowest) {
				return HX_NOT_SUPPORTED;
			}
			m->tables += descend ? 1 : hx_kept_tables(m->t, level, va);
			if (hopeless(m)) {
				return HX_OUT_OF_MEMORY;
			}
			break;
		case HX_PTE_TABLE:
			child = hx_child_of(e, level);
			if (level == m->lowest) { /* a leaf was to stand here */
				bool empty =
					hx_table_is_empty(child, 0, hx_level_entries(level - 1));
				return empty ? HX_NOT_SUPPORTED : HX_ALREADY_MAPPED;
			}
			break;
		case HX_PTE_SOFT:
		case HX_PTE_LEAF:
			return HX_ALREADY_MAPPED;
		}
		if (descend) {
			s = plan(m, child, level - 1, va, to, pa);
		}
		if (s != HX_OK || to == last) {
			return s;
		}
	}
}

/* Level 0. The geometry is read once: to the compiler, a store may change it. */
static void fill_pages(const struct mapping *m, hx_pte *table, bool fresh, uintptr_t va,
		       uintptr_t last, uint64_t pa)
{
	const uint64_t page = hx_level_bytes(0);
	const hx_pte prot = hx_hal_pte_prot(m->flags, 0);
	hx_pte *begin = &table[hx_level_index(va, 0)], *p = begin;
	hx_pte *end = &table[hx_level_index(last, 0)] + 1;
	if (fresh) {
		for (; p < end; p++, pa += page) {
			*p = hx_hal_pte_leaf(hx_pa(pa), prot, 0);
		}
	} else {
		for (; p < end; p++, pa += page) {
			hx_hal_pte_store(p, hx_hal_pte_leaf(hx_pa(pa), prot, 0));
		}
	}
	hx_group_make(begin, end);
}

/* A new leaf table that maps [va, last] and nothing else. */
static hx_pte make_leaf_table(struct mapping *m, uintptr_t va, uintptr_t last, uint64_t pa)
{
	struct hx_pa frame = hx_reserve_take(&m->cursor->reserve);
	hx_pte *table = hx_table_at(frame);
	unsigned first = hx_level_index(va, 0), end = hx_level_index(last, 0) + 1;
	hx_memset(table, 0, first * sizeof *table);
	hx_memset(table + end, 0, (hx_level_entries(0) - end) * sizeof *table);
	fill_pages(m, table, true, va, last, pa);
	return hx_hal_pte_table(frame);
}

/* The table below @p, an entry of a level above 1 that was EMPTY: ours or another call's. */
static hx_pte *link_table(struct mapping *m, hx_pte *p, unsigned level)
{
	struct hx_pa frame = hx_reserve_take(&m->cursor->reserve);
	hx_memset(hx_ptr(frame), 0, hx_level_entries(level - 1) * sizeof(hx_pte));
	hx_pte e = 0;
	if (hx_hal_pte_update(p, &e, hx_hal_pte_table(frame))) {
		return hx_table_at(frame);
	}
	hx_reserve_put(&m->cursor->reserve, frame);
	return hx_child_of(e, level);
}

static void fill(struct mapping *m, hx_pte *table, unsigned level, uintptr_t va, uintptr_t last,
		 uint64_t pa)
{
	for (uintptr_t to;; pa += to - va + 1, va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		if (hx_hal_pte_kind(e, level) == HX_PTE_TABLE) {
			if (level == 1) {
				fill_pages(m, hx_child_of(e, 1), false, va, to, pa);
			} else {
				fill(m, hx_child_of(e, level), level - 1, va, to, pa);
			}
		} else if (leaf_fits(m, level, va, to, pa)) {
			hx_pte prot = hx_hal_pte_prot(m->flags, level);
			hx_hal_pte_store(p, hx_hal_pte_leaf(hx_pa(pa), prot, level));
			hx_cursor_keep(m->cursor, level, va);
		} else if (level == 1) {
			hx_hal_pte_store(p, make_leaf_table(m, va, to, pa));
		} else {
			fill(m, link_table(m, p, level), level - 1, va, to, pa);
		}
		if (to == last) {
			return;
		}
	}
}

/* Which levels may the leaves have? */
static hx_status choose_levels(struct mapping *m, uint64_t *flags)
{
	const uint64_t choices = HX_MAP_NO_HUGE | HX_MAP_LEVEL_1 | HX_MAP_LEVEL_2;
	unsigned highest = m->t->huge ? hx_highest_leaf() : 0;
	uint64_t choice = *flags & choices;
	if (choice & (choice - 1)) {
		return HX_INVALID_ARGUMENT; /* more than one */
	}
	m->lowest = choice == HX_MAP_LEVEL_1 ? 1 : choice == HX_MAP_LEVEL_2 ? 2 : 0;
	m->highest = choice == 0 ? highest : m->lowest;
	*flags &= ~choices;
	return m->highest <= highest ? HX_OK : HX_NOT_SUPPORTED;
}

static hx_status check(struct mapping *m, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags, uintptr_t *last)
{
	hx_status s = hx_mapper_check_range(m->t, va, bytes, last);
	if (s != HX_OK) {
		return s;
	}
	if (!hx_is_aligned(pa.v, hx_level_bytes(0))) {
		return HX_INVALID_ALIGNMENT;
	}
	uint64_t pa_last;
	if (__builtin_add_overflow(pa.v, bytes - 1, &pa_last) ||
	    pa_last >> hx_hal_geometry.pa_bits != 0) {
		return HX_INVALID_ADDRESS;
	}
	m->flags = flags;
	s = choose_levels(m, &m->flags);
	if (s == HX_OK) {
		s = hx_mapper_check_flags(m->t, &m->flags);
	}
	if (s == HX_OK && !hx_is_aligned(va.v | pa.v | bytes, hx_level_bytes(m->lowest))) {
		s = HX_INVALID_ALIGNMENT;
	}
	return s;
}

hx_status hx_map_range(struct hx_pagetable *t, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	struct hx_cursor cursor, *c = &cursor;
	struct mapping m = {.t = t, .cursor = c, .tables_to_check = 4096};
	uintptr_t last;
	hx_status s = check(&m, va, pa, bytes, flags, &last);
	if (s != HX_OK) {
		return s;
	}
	hx_cursor_open(c, t, va.v, last);
	hx_pte *leaf_table = m.lowest == 0 ? hx_cursor_leaf_table(c) : NULL;
	if (leaf_table) {
		s = plan(&m, leaf_table, 0, va.v, last, pa.v);
		if (s == HX_OK) {
			fill_pages(&m, leaf_table, false, va.v, last, pa.v);
		}
	} else {
		hx_pte *root = hx_table_at(t->root);
		s = plan(&m, root, hx_root_level(), va.v, last, pa.v);
		if (s == HX_OK) {
			s = hx_cursor_reserve(c, m.tables);
		}
		if (s == HX_OK) {
			fill(&m, root, hx_root_level(), va.v, last, pa.v);
		}
	}
	if (s == HX_OK) {
		hx_hal_pt_publish();
		/* Elsewhere absence may be cached: of the page, or of a table above it. */
		if (t->rules.told) {
			hx_gather_add(&c->gather, va.v, last, 0);
			c->gather.tables = true;
			hx_cursor_flush_others(c);
		}
	}
	hx_cursor_close(c);
	HX_DEBUG_ASSERT(hx_pagetable_validate(t) == HX_OK);
	return s;
}
