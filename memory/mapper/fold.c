/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_fold(): huge leaves out of tables whose leaves fit together.
 *
 *      level l      [ T ]  ->  [ leaf ]       link      the leaf stands for the table
 *                     |                       invalidate  nobody walks the table
 *      level l - 1  [ a | a+1 | a+2 | .. ]    mark      what was set in it meanwhile
 *                                             keep      it waits for the next split
 *
 * Both forms say the same, so CPUs may use either, one after the other or at once,
 * until the invalidation. Where the machine demands break before make the entry is
 * unhooked and invalidated before the leaf is stored.
 *
 * The lowest level is folded first, so that its leaves may be folded in turn. An entry
 * above level 1 is all stripes': a range that holds such a piece whole has all locks.
 *
 * What does not become a huge leaf may still make groups (group.c), with nothing to flush.
 *
 * Source: superpage promotion (Navarro et al. 2002; FreeBSD's pmap).
 */
#include "internal.h"

#define MACHINE_FLAGS (HX_PAGE_ACCESSED | HX_PAGE_DIRTY)

/*
 * Is a leaf of @level allowed at @va, which is aligned to it? A piece of the direct map must
 * not be away even for a moment: the tables are reached through it.
 */
static bool may_hold(const struct hx_pagetable *t, unsigned level, uintptr_t va)
{
	bool direct = t->kernel && va <= t->direct_last;
	return t->huge && level <= hx_highest_leaf() &&
	       !(direct && hx_feature(HX_MMU_BREAK_BEFORE_MAKE)) &&
	       hx_is_on_one_side(t, va, hx_piece_last(va, UINTPTR_MAX, level)) &&
	       (level <= HX_KEEPING_LEVEL_MAX || direct) &&
	       !(t->kernel && level == hx_root_level());
}

/* Do the entries of @table, of @level, map what one leaf above it would map? */
static bool fits_together(const hx_pte *table, unsigned level)
{
	hx_pte first = hx_hal_pte_load(&table[0]);
	if (hx_hal_pte_kind(first, level) != HX_PTE_LEAF) {
		return false;
	}
	uint64_t pa = hx_hal_pte_pa(first, level).v;
	uint64_t flags = hx_hal_pte_flags(first, level) & ~MACHINE_FLAGS;
	if (!hx_is_aligned(pa, hx_level_bytes(level + 1))) {
		return false;
	}
	for (unsigned i = 1; i < hx_level_entries(level); i++) {
		hx_pte e = hx_hal_pte_load(&table[i]);
		pa += hx_level_bytes(level);
		if (hx_hal_pte_kind(e, level) != HX_PTE_LEAF || hx_hal_pte_pa(e, level).v != pa ||
		    (hx_hal_pte_flags(e, level) & ~MACHINE_FLAGS) != flags) {
			return false;
		}
	}
	return true;
}

static uint64_t marks_of(const hx_pte *table, unsigned level)
{
	uint64_t marks = 0;
	for (unsigned i = 0; i < hx_level_entries(level); i++) {
		marks |= hx_hal_pte_flags(hx_hal_pte_load(&table[i]), level) & MACHINE_FLAGS;
	}
	return marks;
}

/* The entry @p of @level at @va names a table that fits together. */
static void fold_entry(struct hx_cursor *c, hx_pte *p, unsigned level, uintptr_t va)
{
	struct hx_pa frame = hx_hal_pte_pa(hx_hal_pte_load(p), level);
	const hx_pte *table = hx_table_at(frame);
	hx_pte first = hx_hal_pte_load(&table[0]);
	struct hx_pa pa = hx_hal_pte_pa(first, level - 1);
	uint64_t flags = hx_hal_pte_flags(first, level - 1) & ~(MACHINE_FLAGS | HX_PAGE_HUGE);
	uint64_t marks = marks_of(table, level - 1);
	bool broken = hx_feature(HX_MMU_BREAK_BEFORE_MAKE);
	hx_pte leaf = hx_hal_pte_leaf(pa, hx_hal_pte_prot(flags | marks, level), level);

	hx_hal_pte_store(p, broken ? hx_soft_broken(leaf, level) : leaf);
	c->gather.count = 0;
	c->gather.tables = true;
	hx_gather_add(&c->gather, va, hx_piece_last(va, UINTPTR_MAX, level), 0);
	hx_cursor_flush(c);

	marks = marks_of(table, level - 1); /* final now */
	if (broken) {
		hx_hal_pte_store(p,
				 hx_hal_pte_leaf(pa, hx_hal_pte_prot(flags | marks, level), level));
		hx_hal_pt_publish();
		if (c->t->rules.told) {
			hx_cursor_flush_others(c);
		}
	} else {
		for (hx_pte e = hx_hal_pte_load(p);;) {
			uint64_t all = hx_hal_pte_flags(e, level) | marks;
			hx_pte prot = hx_hal_pte_prot(all & ~HX_PAGE_HUGE, level);
			if (hx_hal_pte_update(p, &e, hx_hal_pte_leaf(pa, prot, level))) {
				break;
			}
		}
	}
	hx_cursor_retire(c);
	hx_cursor_keep_folded(c, level, va, frame);
	c->gather.count = 0;
}

static void fold(struct hx_cursor *c, hx_pte *table, unsigned level, uintptr_t va, uintptr_t last)
{
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		if (hx_hal_pte_kind(e, level) == HX_PTE_TABLE) {
			if (level > 1) {
				fold(c, hx_child_of(e, level), level - 1, va, to);
			}
			if (hx_piece_is_whole(va, to, level) && may_hold(c->t, level, va) &&
			    fits_together(hx_child_of(e, level), level - 1)) {
				fold_entry(c, p, level, va);
			} else if (level == 1) {
				hx_pte *pages = hx_child_of(e, 1);
				hx_group_make(&pages[hx_level_index(va, 0)],
					      &pages[hx_level_index(to, 0)] + 1);
			}
		}
		if (to == last) {
			return;
		}
	}
}

hx_status hx_fold(struct hx_pagetable *t, struct hx_va va, uint64_t bytes)
{
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	if (s == HX_OK && !t->huge) {
		s = HX_NOT_SUPPORTED;
	}
	if (s != HX_OK) {
		return s;
	}
	struct hx_cursor c;
	hx_cursor_open(&c, t, va.v, last);
	fold(&c, hx_table_at(t->root), hx_root_level(), va.v, last);
	hx_cursor_close(&c);
	HX_DEBUG_ASSERT(hx_pagetable_validate(t) == HX_OK);
	return HX_OK;
}
