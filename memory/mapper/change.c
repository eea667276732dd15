/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_unmap() and hx_update_flags(): plan, reserve, commit.
 *
 * Both begin alike. The plan walks the range without changing anything: it
 * refuses a hole (unless the call passes over holes) and counts the tables that
 * splitting huge leaves at the ends of the range takes. With these in hand
 * nothing can fail any more.
 *
 * Unmapping has three phases, and needs no memory to remember what it unhooked:
 *
 *   unhook      leaf  -> soft entry with its frame and flags
 *               table -> soft entry with its frame, the table untouched, when the
 *                        range covers it whole or when it has emptied
 *   invalidate  one shootdown for the whole call
 *   release     walk the range again, through soft entries as well: hand every
 *               leaf to the caller, free every unhooked table, leave EMPTY behind
 *
 * No CPU reaches a frame through a soft entry, and after the shootdown none does
 * through a cached copy of what stood there. Only then does the frame change
 * hands. An unhooked table may still be walked until the shootdown, and have
 * DIRTY set in its leaves: they are read when they are released, so nothing is
 * lost.
 *
 * Leaves that stay live change by compare-and-exchange, so that ACCESSED and
 * DIRTY, which the machine may set at any moment, survive.
 *
 * Hiding a page is the first half of unmapping it: its leaf becomes a soft entry
 * and is invalidated, and stays so. Showing it again writes the leaf anew. To an
 * unmapping it looks like one that is unhooked already.
 */
#include "internal.h"

#define CACHE_FLAGS (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)
#define MACHINE_FLAGS (HX_PAGE_ACCESSED | HX_PAGE_DIRTY)
#define RIGHTS_FLAGS                                                                               \
	(HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL | CACHE_FLAGS)

struct change {
	struct hx_pagetable *t;
	bool sparse;     /* pass over what is not mapped */
	bool unmap;      /* otherwise: give it flags */
	uint64_t flags;  /* 0: hide it */
	uint64_t tables; /* planned */
	struct hx_reserve reserve;
	struct hx_gather gather;
	bool unhooked_tables;
	bool remade; /* entries that were broken are valid again */
	hx_released_fn released;
	void *context;
};

/* ---- Plan ---- */

/* Tables that it takes to split a leaf of @level so that [va, last] stands alone. */
static uint64_t split_cost(unsigned level, uintptr_t va, uintptr_t last)
{
	if (level == 0 || hx_piece_is_whole(va, last, level)) {
		return 0;
	}
	/* Only the first and the last piece below can be cut once more. */
	uintptr_t first_last = hx_piece_last(va, last, level - 1);
	uint64_t cost = 1 + split_cost(level - 1, va, first_last);
	if (first_last != last) {
		uintptr_t last_first = last & ~(uintptr_t)(hx_level_bytes(level - 1) - 1);
		cost += split_cost(level - 1, last_first, last);
	}
	return cost;
}

/* Nothing to do for a leaf that has these rights already. */
static bool is_changed(const struct change *c, hx_pte leaf, unsigned level)
{
	return c->unmap || ((hx_hal_pte_flags(leaf, level) ^ c->flags) & RIGHTS_FLAGS) != 0 ||
	       (c->flags & ~hx_hal_pte_flags(leaf, level) & MACHINE_FLAGS) != 0;
}

static bool all_mapped(const hx_pte *table, unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		if (hx_hal_pte_kind(hx_hal_pte_load(&table[i]), 0) == HX_PTE_EMPTY) {
			return false;
		}
	}
	return true;
}

static hx_status plan(struct change *c, const hx_pte *table, unsigned level, uintptr_t va,
		      uintptr_t last)
{
	if (level == 0) { /* nothing to split: only holes matter */
		bool ok = c->sparse ||
			  all_mapped(table, hx_level_index(va, 0), hx_level_index(last, 0) + 1);
		return ok ? HX_OK : HX_NOT_MAPPED;
	}
	hx_status s = HX_OK;
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte e = hx_hal_pte_load(&table[hx_level_index(va, level)]);
		switch (hx_hal_pte_kind(e, level)) {
		case HX_PTE_EMPTY:
		case HX_PTE_SOFT:
			if (!c->sparse) {
				return HX_NOT_MAPPED;
			}
			break;
		case HX_PTE_LEAF:
			if (is_changed(c, e, level)) {
				if (hx_is_fixed(c->t, level)) {
					return HX_NOT_SUPPORTED;
				}
				c->tables += split_cost(level, va, to);
			}
			break;
		case HX_PTE_TABLE:
			/* What goes as a whole, holes and all, need not be looked at. */
			if (!(c->unmap && c->sparse && hx_piece_is_whole(va, to, level))) {
				s = plan(c, hx_child_of(e, level), level - 1, va, to);
			}
			break;
		}
		if (s != HX_OK || to == last) {
			return s;
		}
	}
}

/* ---- Live leaves ---- */

/* Take a leaf away from every CPU, to be made anew: break before make. */
static hx_pte break_leaf(struct change *c, hx_pte *p, unsigned level, uintptr_t va)
{
	c->remade = true;
	c->gather.tables = true; /* CPUs may cache the absence of a huge leaf until the last flush */
	hx_pte e = hx_hal_pte_exchange(p, hx_hal_pte_soft(0));
	struct hx_gather g = {.tables = true};
	hx_gather_add(&g, va, hx_piece_last(va, UINTPTR_MAX, level), level);
	hx_gather_flush(c->t, &g);
	return e;
}

/* Replace a leaf by a table of leaves that map the same with the same flags. */
static void split(struct change *c, hx_pte *p, hx_pte e, unsigned level, uintptr_t va)
{
	struct hx_pa frame = hx_reserve_take(&c->reserve);
	hx_pte *table = hx_table_at(frame);
	const unsigned entries = hx_level_entries(level - 1);
	const uint64_t step = hx_level_bytes(level - 1);
	bool broken = hx_feature(HX_MMU_BREAK_BEFORE_MAKE);
	if (broken) {
		e = break_leaf(c, p, level, va & ~(uintptr_t)(hx_level_bytes(level) - 1));
	}
	do { /* again when ACCESSED or DIRTY appeared meanwhile */
		hx_pte prot = hx_hal_pte_prot(hx_hal_pte_flags(e, level), level - 1);
		uint64_t pa = hx_hal_pte_pa(e, level).v;
		for (unsigned i = 0; i < entries; i++, pa += step) {
			table[i] = hx_hal_pte_leaf(hx_pa(pa), prot, level - 1);
		}
		if (broken) {
			hx_hal_pte_store(p, hx_hal_pte_table(frame));
		}
	} while (!broken && !hx_hal_pte_update(p, &e, hx_hal_pte_table(frame)));
	c->t->counters.splits++;
	/* A leaf became a table: where a fence with an address orders leaves only, it is not
	 * enough. */
	c->gather.tables = true;
}

/* ---- Unmap: unhook ---- */

/* Is the table EMPTY outside of entries [first, end)? Neighbours are most often not. */
static bool is_empty_around(const hx_pte *table, unsigned level, unsigned first, unsigned end)
{
	return (first == 0 || hx_table_is_empty(table, level, first - 1, first)) &&
	       hx_table_is_empty(table, level, end, hx_level_entries(level)) &&
	       hx_table_is_empty(table, level, 0, first);
}

/*
 * Unhook what lies in [va, last]. @return true when nothing else is in the table,
 * so that it can be unhooked itself
 */
static bool unhook(struct change *c, hx_pte *table, unsigned level, uintptr_t va, uintptr_t last)
{
	const unsigned first = hx_level_index(va, level), end = hx_level_index(last, level) + 1;
	bool stays = false; /* an entry in the range is still linked */
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		bool whole = hx_piece_is_whole(va, to, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
		if (kind == HX_PTE_LEAF && whole) {
			while (!hx_hal_pte_update(p, &e, hx_soft_leaf(e, level))) {
			}
			hx_gather_add(&c->gather, va, to, level);
		} else if (kind == HX_PTE_LEAF) {
			split(c, p, e, level, va);
			e = hx_hal_pte_load(p);
			kind = HX_PTE_TABLE;
		}
		if (kind == HX_PTE_TABLE) {
			/* A kernel table's root entries stay: other roots have copies. */
			bool keep = c->t->kernel && level == hx_root_level();
			if ((whole && !keep) ||
			    (unhook(c, hx_child_of(e, level), level - 1, va, to) && !keep)) {
				hx_hal_pte_store(p, hx_soft_table(hx_hal_pte_pa(e, level)));
				hx_gather_add(&c->gather, va, to, whole ? 0 : level);
				c->gather.tables = c->unhooked_tables = true;
			} else {
				stays = true;
			}
		}
		if (to == last) {
			break;
		}
	}
	return !stays && is_empty_around(table, level, first, end);
}

/* ---- Unmap: release ---- */

static void release_leaf(const struct change *c, uintptr_t va, struct hx_pa pa, unsigned level,
			 uint64_t flags)
{
	if (c->released) {
		c->released(c->context, hx_va(va), pa, hx_level_bytes(level),
			    flags & HX_RELEASED_FLAGS);
	}
}

/*
 * Release what was unhooked in [va, last]. In a table that is still linked that
 * is what stands in soft entries, in one that is not it is everything.
 */
static void release(const struct change *c, hx_pte *table, bool linked, unsigned level,
		    uintptr_t va, uintptr_t last)
{
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		struct hx_pa gone = {0}; /* an unhooked table below, if has_table */
		bool has_table = false;
		switch (hx_hal_pte_kind(e, level)) {
		case HX_PTE_EMPTY:
			break;
		case HX_PTE_SOFT: {
			uint64_t payload = hx_hal_pte_payload(e);
			has_table = (payload & HX_SOFT_TABLE) != 0;
			gone = hx_soft_pa(payload);
			if (!has_table) {
				release_leaf(c, va, gone, level, hx_soft_flags(payload, level));
			}
			if (linked) {
				hx_hal_pte_store(p, 0);
			}
			break;
		}
		case HX_PTE_LEAF:
			HX_DEBUG_ASSERT(!linked);
			release_leaf(c, va, hx_hal_pte_pa(e, level), level,
				     hx_hal_pte_flags(e, level));
			break;
		case HX_PTE_TABLE:
			if (linked) {
				release(c, hx_child_of(e, level), true, level - 1, va, to);
			} else {
				has_table = true;
				gone = hx_hal_pte_pa(e, level);
			}
			break;
		}
		if (has_table) {
			if (level > 1 || c->released) { /* else nobody wants to know */
				release(c, hx_table_at(gone), false, level - 1, va, to);
			}
			hx_table_free(c->t, gone);
		}
		if (to == last) {
			return;
		}
	}
}

/* ---- Update ---- */

/*
 * Must CPUs that cached a leaf with the @old flags forget it? What user mode
 * gains the kernel may lose: any change of USER counts.
 */
static bool is_stale(uint64_t old, uint64_t new)
{
	const uint64_t either = HX_PAGE_USER | CACHE_FLAGS;
	const uint64_t if_cleared = either | HX_PAGE_WRITABLE;
	const uint64_t if_set = either | HX_PAGE_NO_EXECUTE;
	return ((old & ~new &if_cleared) | (new & ~old &if_set)) != 0;
}

static void update_leaf(struct change *c, hx_pte *p, hx_pte e, unsigned level, uintptr_t va)
{
	uint64_t old = hx_hal_pte_flags(e, level);
	/* Becoming GLOBAL would overlap what is cached without. */
	bool broken = hx_feature(HX_MMU_BREAK_BEFORE_MAKE) &&
		      (((old ^ c->flags) & CACHE_FLAGS) || (c->flags & ~old & HX_PAGE_GLOBAL));
	if (broken) {
		e = break_leaf(c, p, level, va);
	}
	hx_pte new;
	do {
		old = hx_hal_pte_flags(e, level);
		new = hx_hal_pte_leaf(hx_hal_pte_pa(e, level),
				      hx_hal_pte_prot(c->flags | (old & MACHINE_FLAGS), level),
				      level);
		if (broken) {
			hx_hal_pte_store(p, new);
		}
	} while (!broken && !hx_hal_pte_update(p, &e, new));
	/* Kernel code cannot take the fault that an old refusal raises. */
	if (c->t->kernel || is_stale(old, c->flags)) {
		hx_gather_add(&c->gather, va, hx_piece_last(va, UINTPTR_MAX, level), level);
	}
}

/* Level 0, user table: the page keeps its frame, and nobody reaches it. */
static void hide_leaf(struct change *c, hx_pte *p, hx_pte e, uintptr_t va)
{
	while (!hx_hal_pte_update(p, &e, hx_soft_leaf(e, 0))) {
	}
	hx_gather_add(&c->gather, va, hx_piece_last(va, UINTPTR_MAX, 0), 0);
}

/* Nothing is cached of a hidden page but its absence. */
static void show_leaf(const struct change *c, hx_pte *p, hx_pte e)
{
	uint64_t payload = hx_hal_pte_payload(e);
	uint64_t flags = c->flags | (hx_soft_flags(payload, 0) & HX_PAGE_DIRTY);
	hx_hal_pte_store(p, hx_hal_pte_leaf(hx_soft_pa(payload), hx_hal_pte_prot(flags, 0), 0));
}

/* Entries of a table at level 0, which are never split. */
static void update_pages(struct change *c, hx_pte *table, uintptr_t va, uintptr_t last)
{
	hx_pte *p = &table[hx_level_index(va, 0)];
	for (const hx_pte *end = &table[hx_level_index(last, 0)] + 1; p < end; p++) {
		hx_pte e = hx_hal_pte_load(p);
		enum hx_pte_kind kind = hx_hal_pte_kind(e, 0);
		if (kind == HX_PTE_LEAF && c->flags == 0) {
			hide_leaf(c, p, e, va);
		} else if (kind == HX_PTE_LEAF && is_changed(c, e, 0)) {
			update_leaf(c, p, e, 0, va);
		} else if (kind == HX_PTE_SOFT && c->flags != 0) {
			show_leaf(c, p, e);
		}
		va += (uintptr_t)hx_level_bytes(0);
	}
}

static void update(struct change *c, hx_pte *table, unsigned level, uintptr_t va, uintptr_t last)
{
	if (level == 0) {
		update_pages(c, table, va, last);
		return;
	}
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
		if (kind == HX_PTE_LEAF && is_changed(c, e, level)) {
			if (hx_piece_is_whole(va, to, level)) {
				update_leaf(c, p, e, level, va);
			} else {
				split(c, p, e, level, va);
				hx_gather_add(&c->gather, va, to, level - 1);
				e = hx_hal_pte_load(p);
				kind = HX_PTE_TABLE;
			}
		}
		if (kind == HX_PTE_TABLE) {
			update(c, hx_child_of(e, level), level - 1, va, to);
		}
		if (to == last) {
			return;
		}
	}
}

/* ---- The calls ---- */

static hx_status change(struct change *c, uintptr_t va, uintptr_t last)
{
	struct hx_pagetable *t = c->t;
	hx_pte *root = hx_table_at(t->root);
	unsigned level = hx_root_level();
	unsigned long irq = hx_lock_acquire(&t->lock);
	hx_status s = plan(c, root, level, va, last);
	if (s == HX_OK) {
		s = hx_reserve_fill(t, &c->reserve, c->tables);
	}
	if (s == HX_OK && c->unmap) {
		(void)unhook(c, root, level, va, last);
		hx_gather_flush(t, &c->gather);
		if (c->unhooked_tables) { /* before a frame of theirs can be reused */
			__atomic_fetch_add(&t->retirements, 1, __ATOMIC_SEQ_CST);
		}
		release(c, root, true, level, va, last);
	} else if (s == HX_OK) {
		update(c, root, level, va, last);
		hx_gather_flush(t, &c->gather);
	}
	if (c->remade) {
		hx_hal_pt_publish();
	}
	HX_ASSERT(s != HX_OK || c->reserve.count == 0);
	hx_lock_release(&t->lock, irq);
	HX_DEBUG_ASSERT(hx_pagetable_validate(t) == HX_OK);
	return s;
}

static hx_status unmap(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, bool sparse,
		       hx_released_fn released, void *context)
{
	struct change c = {
		.t = t, .unmap = true, .sparse = sparse, .released = released, .context = context};
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	return s == HX_OK ? change(&c, va.v, last) : s;
}

static hx_status update_flags(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, bool sparse,
			      uint64_t flags)
{
	struct change c = {.t = t, .sparse = sparse, .flags = flags & ~MACHINE_FLAGS};
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	if (s == HX_OK && flags == 0) { /* hide; a huge leaf has no such form */
		s = t->kernel || t->huge ? HX_INVALID_ARGUMENT : HX_OK;
	} else if (s == HX_OK) {
		s = hx_mapper_check_flags(t, &c.flags);
	}
	return s == HX_OK ? change(&c, va.v, last) : s;
}

hx_status hx_unmap(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, hx_released_fn released,
		   void *context)
{
	return unmap(t, va, bytes, false, released, context);
}

hx_status hx_unmap_sparse(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
			  hx_released_fn released, void *context)
{
	return unmap(t, va, bytes, true, released, context);
}

hx_status hx_update_flags(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, uint64_t flags)
{
	return update_flags(t, va, bytes, false, flags);
}

hx_status hx_update_flags_sparse(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				 uint64_t flags)
{
	return update_flags(t, va, bytes, true, flags);
}
