/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_unmap_range() and hx_update_flags(): plan, reserve, commit.
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
 * DIRTY, which the machine may set at any moment, survive. A plain store does where
 * the machine has nothing left to set: both are set, or DIRTY is clear in a leaf
 * that is not writable (and was not lately: taking WRITABLE away was followed by a
 * flush before the lock was dropped).
 *
 * Most leaves of a table differ in their address alone. What is to be done with
 * the rest of an entry, its attributes, is worked out when they differ from the
 * last leaf's, and kept (struct rule).
 *
 * Where the machine demands break before make, a leaf that gets another cache
 * attribute is unhooked, invalidated and made anew, all of a call's by one
 * invalidation; a leaf that is split is broken by itself, and costs one of its own.
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
	struct hx_cursor *cursor;
	bool sparse;     /* pass over what is not mapped */
	bool unmap;      /* otherwise: give it flags */
	uint64_t flags;  /* 0: hide it */
	uint64_t tables; /* planned */
	bool wide;       /* planned: more than the range's stripes changes */
	bool breaking;   /* this pass unhooks what must be broken, and does no more */
	bool unhooked_tables;
	bool remade; /* entries that were invalid or broken are valid now */
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
	for (; first + 4 <= end; first += 4) {
		struct hx_four f = hx_four_load(&table[first]);
		if (f.a == 0 || f.b == 0 || f.c == 0 || f.d == 0) {
			return false;
		}
	}
	for (; first < end; first++) {
		if (hx_hal_pte_load(&table[first]) == 0) {
			return false;
		}
	}
	return true;
}

/* Is the table EMPTY outside of entries [first, end)? Neighbours are most often not. */
static bool is_empty_around(const hx_pte *table, unsigned level, unsigned first, unsigned end)
{
	return (first == 0 || hx_table_is_empty(table, first - 1, first)) &&
	       hx_table_is_empty(table, end, hx_level_entries(level)) &&
	       hx_table_is_empty(table, 0, first);
}

/* A kernel table's root entries stay: other roots have copies. */
static bool is_kept(const struct change *c, unsigned level)
{
	return c->cursor->t->kernel && level == hx_root_level();
}

/* Where the machine demands it, a new cache attribute waits until the old is forgotten. */
static bool is_broken(uint64_t old, uint64_t new)
{
	/* A GLOBAL entry would overlap what is cached without. */
	return hx_feature(HX_MMU_BREAK_BEFORE_MAKE) &&
	       (((old ^ new) & CACHE_FLAGS) != 0 || (new & ~old &HX_PAGE_GLOBAL) != 0);
}

/*
 * While a leaf of the direct map is broken nobody reaches what it maps: page tables,
 * this CPU's stack, the very entry that is to be made anew.
 */
static bool breaks_direct(const struct change *c, hx_pte leaf, unsigned level, uintptr_t va,
			  bool whole)
{
	const struct hx_pagetable *t = c->cursor->t;
	return hx_feature(HX_MMU_BREAK_BEFORE_MAKE) && t->kernel && va <= t->direct_last &&
	       (!whole || (!c->unmap && is_broken(hx_hal_pte_flags(leaf, level), c->flags)));
}

static hx_status plan_pages(const struct change *c, const hx_pte *table, uintptr_t va,
			    uintptr_t last)
{
	bool ok =
		c->sparse || all_mapped(table, hx_level_index(va, 0), hx_level_index(last, 0) + 1);
	return ok ? HX_OK : HX_NOT_MAPPED;
}

/* @p empties: unmapping leaves nothing in the table. */
static hx_status plan(struct change *c, const hx_pte *table, unsigned level, uintptr_t va,
		      uintptr_t last, bool *empties)
{
	const unsigned first = hx_level_index(va, level), end = hx_level_index(last, level) + 1;
	if (level == 0) { /* nothing to split: only holes matter */
		*empties = c->unmap && is_empty_around(table, 0, first, end);
		return plan_pages(c, table, va, last);
	}
	hx_status s = HX_OK;
	*empties = c->unmap;
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		bool whole = hx_piece_is_whole(va, to, level), below = true;
		hx_pte e = hx_hal_pte_load(&table[hx_level_index(va, level)]);
		switch (hx_hal_pte_kind(e, level)) {
		case HX_PTE_EMPTY:
		case HX_PTE_SOFT:
			if (!c->sparse) {
				return HX_NOT_MAPPED;
			}
			break;
		case HX_PTE_LEAF:
			below = whole;
			if (is_changed(c, e, level)) {
				if (hx_is_fixed(c->cursor->t, level) ||
				    breaks_direct(c, e, level, va, whole) ||
				    (!whole && level > HX_KEEPING_LEVEL_MAX &&
				     hx_kept_tables(c->cursor->t, 1, va) > 0)) {
					return HX_NOT_SUPPORTED;
				}
				if (hx_kept_tables(c->cursor->t, level, va) == 0) {
					c->tables += split_cost(level, va, to);
				}
				c->wide |= level > 1 && !whole;
			}
			break;
		case HX_PTE_TABLE:
			/* What goes as a whole, holes and all, need not be looked at. */
			if (!(c->unmap && c->sparse && whole)) {
				s = plan(c, hx_child_of(e, level), level - 1, va, to, &below);
			}
			below &= !is_kept(c, level);
			break;
		}
		*empties &= below;
		if (s != HX_OK || to == last) {
			break;
		}
	}
	*empties = *empties && is_empty_around(table, level, first, end);
	/* Its own entry, above, is everybody's. */
	c->wide |= *empties && level != hx_root_level() && !is_kept(c, level + 1);
	return s;
}

/* ---- Rules: what to do with entries of level 0 that differ in their address alone ---- */

struct rule {
	hx_pte attributes; /* for which it stands */
	bool leaf;
	bool changed;
	bool stale;    /* who has it cached must forget it */
	bool settled;  /* the machine has nothing left to set in it */
	bool broken;   /* break before make */
	hx_pte flip;   /* to the new attributes, when it stays a leaf */
	uint64_t soft; /* payload but the address, when it does not */
};

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

/* Kernel code cannot take the fault that an old refusal raises. */
static bool must_forget(const struct change *c, uint64_t old)
{
	return c->cursor->t->kernel || is_stale(old, c->flags);
}

/*
 * After an entry was broken and made anew: may a CPU have cached meanwhile that it was
 * absent, and not be able to take a spurious fault on it?
 */
static bool is_missed(const struct change *c)
{
	return c->cursor->t->rules.told;
}

static void learn(const struct change *c, struct rule *r, hx_pte e)
{
	*r = (struct rule){.attributes = hx_attributes_of(e)};
	r->leaf = hx_hal_pte_kind(e, 0) == HX_PTE_LEAF;
	if (!r->leaf) {
		return;
	}
	uint64_t old = hx_hal_pte_flags(e, 0);
	r->settled = hx_is_settled(old);
	if (c->unmap || c->flags == 0) {
		r->changed = r->stale = true;
		r->soft = hx_soft_leaf_bits(old);
		return;
	}
	r->changed = is_changed(c, e, 0);
	r->stale = must_forget(c, old);
	r->broken = is_broken(old, c->flags);
	r->flip = r->attributes ^ hx_hal_pte_prot(c->flags | (old & MACHINE_FLAGS), 0);
}

/* Entries [first, after) of a leaf table, whose entry @begin is for @va, are to be flushed. */
static void gather_pages(struct change *c, uintptr_t va, const hx_pte *begin, const hx_pte *first,
			 const hx_pte *after)
{
	if (first) {
		const uintptr_t page = (uintptr_t)hx_level_bytes(0);
		hx_gather_add(&c->cursor->gather, va + (uintptr_t)(first - begin) * page,
			      va + (uintptr_t)(after - begin) * page - 1, 0);
	}
}

/* ---- Live leaves ---- */

/* Take a leaf away from every CPU, to be made anew: break before make. */
static hx_pte break_leaf(struct change *c, hx_pte *p, unsigned level, uintptr_t va)
{
	c->remade = true;
	va &= ~(uintptr_t)(hx_level_bytes(level) - 1);
	hx_pte e = hx_hal_pte_exchange(p, hx_hal_pte_soft(HX_SOFT_BROKEN));
	struct hx_gather g = {.tables = true};
	hx_gather_add(&g, va, hx_piece_last(va, UINTPTR_MAX, level), level);
	hx_gather_flush(c->cursor->t, c->cursor->home, &g);
	return e;
}

/* Replace a leaf by a table of leaves that map the same with the same flags. */
static void split(struct change *c, hx_pte *p, hx_pte e, unsigned level, uintptr_t va)
{
	va &= ~(uintptr_t)(hx_level_bytes(level) - 1);
	struct hx_pa frame = hx_kept_tables(c->cursor->t, level, va) > 0
				     ? hx_cursor_take_kept(c->cursor, va)
				     : hx_reserve_take(&c->cursor->reserve);
	hx_pte *table = hx_table_at(frame);
	const unsigned entries = hx_level_entries(level - 1);
	const uint64_t step = hx_level_bytes(level - 1);
	bool broken = hx_feature(HX_MMU_BREAK_BEFORE_MAKE);
	for (bool linked = false; !linked;) { /* again when ACCESSED or DIRTY appeared meanwhile */
		hx_pte prot = hx_hal_pte_prot(hx_hal_pte_flags(e, level), level - 1);
		uint64_t pa = hx_hal_pte_pa(e, level).v;
		for (unsigned i = 0; i < entries; i++, pa += step) {
			table[i] = hx_hal_pte_leaf(hx_pa(pa), prot, level - 1);
		}
		if (!broken) {
			linked = hx_hal_pte_update(p, &e, hx_hal_pte_table(frame));
			continue;
		}
		/* Filled before: it is away for as short as can be. */
		hx_pte old = hx_hal_pte_kind(hx_hal_pte_load(p), level) == HX_PTE_LEAF
				     ? break_leaf(c, p, level, va)
				     : e;
		linked = old == e;
		e = old;
		if (linked) {
			hx_hal_pte_store(p, hx_hal_pte_table(frame));
		}
	}
	__atomic_fetch_add(&c->cursor->home->splits, 1, __ATOMIC_RELAXED);
	if (!broken || is_missed(c)) {
		/* A leaf became a table: where a fence with an address orders leaves only, it
		 * is not enough. */
		c->cursor->gather.tables = true;
	}
}

/* ---- Unmap: unhook ---- */

/* One leaf; the machine may still mark it. */
static void unhook_leaf(hx_pte *p, hx_pte e, unsigned level)
{
	while (!hx_hal_pte_update(p, &e, hx_soft_leaf(e, level))) {
	}
}

/*
 * Store what @make makes, with @bits, of the settled leaf at @p and of those behind it
 * that differ in the address alone. @return the first that differs, or @end
 */
static HX_ALWAYS_INLINE hx_pte *store_run(hx_pte *p, const hx_pte *end,
					  hx_pte (*make)(hx_pte leaf, uint64_t bits), uint64_t bits)
{
	const hx_pte like = hx_hal_pte_load(p);
	for (; end - p >= 4; p += 4) {
		struct hx_four f = hx_four_load(p);
		if (!hx_four_are_like(f, like)) {
			break;
		}
		hx_hal_pte_store(&p[0], make(f.a, bits));
		hx_hal_pte_store(&p[1], make(f.b, bits));
		hx_hal_pte_store(&p[2], make(f.c, bits));
		hx_hal_pte_store(&p[3], make(f.d, bits));
	}
	for (; p < end; p++) {
		hx_pte e = hx_hal_pte_load(p);
		if (hx_attributes_of(e ^ like) != 0) {
			break;
		}
		hx_hal_pte_store(p, make(e, bits));
	}
	return p;
}

static HX_ALWAYS_INLINE hx_pte soft_of(hx_pte leaf, uint64_t bits)
{
	return hx_hal_pte_soft(hx_pa_to_pfn(hx_hal_pte_pa(leaf, 0)).v | bits);
}

/* Leaves of level 0 in [va, last] become soft entries; also to hide them. */
static void unhook_pages(struct change *c, hx_pte *table, uintptr_t va, uintptr_t last)
{
	struct rule rule = {0};
	hx_pte *begin = &table[hx_level_index(va, 0)], *end = &table[hx_level_index(last, 0)] + 1;
	hx_pte *first = NULL, *after = NULL; /* of those that were leaves */
	hx_group_break(begin, end);
	for (hx_pte *p = begin; p < end;) {
		hx_pte e = hx_hal_pte_load(p);
		if (hx_attributes_of(e) != rule.attributes) {
			learn(c, &rule, e);
		}
		hx_pte *run = p;
		if (!rule.leaf) {
			p++;
			continue;
		}
		if (!rule.settled) {
			unhook_leaf(p++, e, 0);
		} else {
			p = store_run(p, end, soft_of, rule.soft);
		}
		first = first ? first : run;
		after = p;
	}
	gather_pages(c, va, begin, first, after);
}

/*
 * Unhook what lies in [va, last]. @return true when nothing else is in the table,
 * so that it can be unhooked itself
 */
static bool unhook(struct change *c, hx_pte *table, unsigned level, uintptr_t va, uintptr_t last)
{
	const unsigned first = hx_level_index(va, level), end = hx_level_index(last, level) + 1;
	if (level == 0) {
		unhook_pages(c, table, va, last);
		return is_empty_around(table, 0, first, end);
	}
	bool stays = false; /* an entry in the range is still linked */
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		bool whole = hx_piece_is_whole(va, to, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
		if (kind == HX_PTE_LEAF && whole) {
			unhook_leaf(p, e, level);
			hx_gather_add(&c->cursor->gather, va, to, level);
		} else if (kind == HX_PTE_LEAF) {
			split(c, p, e, level, va);
			e = hx_hal_pte_load(p);
			kind = HX_PTE_TABLE;
		}
		if (kind == HX_PTE_TABLE) {
			bool keep = is_kept(c, level);
			if ((whole && !keep) ||
			    (unhook(c, hx_child_of(e, level), level - 1, va, to) && !keep)) {
				hx_hal_pte_store(p, hx_soft_table(hx_hal_pte_pa(e, level)));
				hx_gather_add(&c->cursor->gather, va, to, whole ? 0 : level);
				c->cursor->gather.tables = c->unhooked_tables = true;
			} else {
				stays = true;
			}
		}
		if (to == last) {
			break;
		}
	}
	/* Without all locks others may fill it: see prune(). */
	return !stays && hx_cursor_has_all(c->cursor) && is_empty_around(table, level, first, end);
}

/* ---- Unmap: release ---- */

/*
 * What a leaf table that nobody walks any more holds becomes a list of leaves, in
 * place. @return is there any?
 */
static bool list_leaves(hx_pte *table)
{
	const unsigned entries = hx_level_entries(0);
	bool any = false;
	hx_group_break(table, &table[entries]);
	for (unsigned i = 0; i < entries;) {
		hx_pte e = table[i];
		enum hx_pte_kind kind = hx_hal_pte_kind(e, 0);
		any |= kind != HX_PTE_EMPTY;
		if (kind == HX_PTE_LEAF) {
			i = (unsigned)(hx_list_run(&table[i], &table[entries], e,
						   hx_hal_pte_flags(e, 0) & HX_RELEASED_FLAGS,
						   &table[i]) -
				       table);
		} else {
			uint64_t payload = hx_hal_pte_payload(e); /* a hidden page */
			table[i++] = kind == HX_PTE_EMPTY
					     ? 0
					     : hx_soft_pa(payload).v | hx_soft_flags(payload, 0);
		}
	}
	return any;
}

static void tell(const struct change *c, uintptr_t va, unsigned level, const uint64_t *leaves,
		 unsigned count)
{
	const struct hx_released batch = {
		.va = hx_va(va),
		.bytes = hx_level_bytes(level),
		.count = count,
		.leaves = leaves,
	};
	c->released(c->context, &batch);
}

/* Soft entries in a leaf table that is still linked become EMPTY, and are told. */
static void release_pages(const struct change *c, hx_pte *table, uintptr_t va, uintptr_t last)
{
	enum { BATCH = 32 };
	uint64_t leaves[BATCH];
	const uintptr_t page = (uintptr_t)hx_level_bytes(0);
	hx_pte *p = &table[hx_level_index(va, 0)], *end = &table[hx_level_index(last, 0)] + 1;
	while (p < end) {
		unsigned count = 0, found = 0;
		for (; p < end && count < BATCH; p++, count++) {
			hx_pte e = hx_hal_pte_load(p);
			leaves[count] = 0;
			if (hx_hal_pte_kind(e, 0) == HX_PTE_SOFT) {
				uint64_t payload = hx_hal_pte_payload(e);
				leaves[count] = hx_soft_pa(payload).v | hx_soft_flags(payload, 0);
				found++;
				hx_hal_pte_store(p, 0);
			}
		}
		if (found > 0 && c->released) {
			tell(c, va, 0, leaves, count);
		}
		va += count * page;
	}
}

static void release_leaf(struct change *c, uintptr_t va, struct hx_pa pa, unsigned level,
			 uint64_t flags)
{
	hx_cursor_drop_kept(c->cursor, level, va);
	if (c->released) {
		uint64_t leaf = pa.v | (flags & HX_RELEASED_FLAGS);
		tell(c, va, level, &leaf, 1);
	}
}

/*
 * Release what was unhooked in [va, last]. In a table that is still linked that
 * is what stands in soft entries, in one that is not it is everything.
 */
static void release(struct change *c, hx_pte *table, bool linked, unsigned level, uintptr_t va,
		    uintptr_t last)
{
	if (level == 0 && linked) {
		release_pages(c, table, va, last);
		return;
	}
	if (level == 0) { /* the table itself becomes the list */
		if (c->released && list_leaves(table)) {
			tell(c, va & ~(uintptr_t)(hx_level_bytes(1) - 1), 0, table,
			     hx_level_entries(0));
		}
		return;
	}
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
			hx_cursor_free_table(c->cursor, gone);
		}
		if (to == last) {
			return;
		}
	}
}

/* ---- Unmap: tables above level 0 that two calls have emptied together ---- */

/* @return true when the table is EMPTY, once what is EMPTY below it has been unhooked */
static bool unhook_empty(struct change *c, hx_pte *table, unsigned level, uintptr_t va)
{
	hx_pte *p = &table[hx_level_index(va, level)];
	hx_pte e = hx_hal_pte_load(p);
	if (level > 1 && hx_hal_pte_kind(e, level) == HX_PTE_TABLE && !is_kept(c, level) &&
	    unhook_empty(c, hx_child_of(e, level), level - 1, va)) {
		hx_hal_pte_store(p, hx_soft_table(hx_hal_pte_pa(e, level)));
		va &= ~(uintptr_t)(hx_level_bytes(level) - 1);
		hx_gather_add(&c->cursor->gather, va, hx_piece_last(va, UINTPTR_MAX, level), level);
		c->cursor->gather.tables = c->unhooked_tables = true;
		unsigned i = hx_level_index(va, level);
		return is_empty_around(table, level, i, i + 1);
	}
	return level < hx_root_level() && hx_table_is_empty(table, 0, hx_level_entries(level));
}

/* Is a table above level 0 on the way to @va EMPTY? */
static bool has_empty(const struct change *c, uintptr_t va)
{
	const hx_pte *table = hx_table_at(c->cursor->t->root);
	for (unsigned level = hx_root_level(); level > 1; level--) {
		hx_pte e = hx_hal_pte_load(&table[hx_level_index(va, level)]);
		if (hx_hal_pte_kind(e, level) != HX_PTE_TABLE) {
			return false;
		}
		table = hx_child_of(e, level);
		if (!is_kept(c, level) &&
		    hx_table_is_empty(table, 0, hx_level_entries(level - 1))) {
			return true;
		}
	}
	return false;
}

/*
 * Two calls that take the last two entries of a table above level 0 at the same time
 * each saw the other's when they planned, so neither took the table. The fence lets
 * at least one of them see that it is EMPTY now.
 */
static void prune(struct change *c, uintptr_t va)
{
	struct hx_cursor *cursor = c->cursor;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!has_empty(c, va)) {
		return;
	}
	cursor->gather.count = 0;
	__atomic_fetch_add(&cursor->t->pruning, 1, __ATOMIC_RELAXED);
	hx_cursor_widen(cursor);
	__atomic_fetch_sub(&cursor->t->pruning, 1, __ATOMIC_RELAXED);
	hx_pte *root = hx_table_at(cursor->t->root);
	(void)unhook_empty(c, root, hx_root_level(), va);
	hx_cursor_flush(cursor);
	if (cursor->gather.count > 0) {
		hx_cursor_retire(cursor);
		release(c, root, true, hx_root_level(), cursor->gather.pieces[0].first,
			cursor->gather.pieces[0].last);
	}
}

/* ---- Update ---- */

static void update_leaf(const struct change *c, hx_pte *p, hx_pte e, unsigned level)
{
	hx_pte new;
	do {
		uint64_t flags = c->flags | (hx_hal_pte_flags(e, level) & MACHINE_FLAGS);
		new = hx_hal_pte_leaf(hx_hal_pte_pa(e, level), hx_hal_pte_prot(flags, level),
				      level);
	} while (!hx_hal_pte_update(p, &e, new));
}

/* One leaf that is to be made anew, when nobody has it cached any more. */
static void put_aside(hx_pte *p, hx_pte e, unsigned level)
{
	while (!hx_hal_pte_update(p, &e, hx_soft_broken(e, level))) {
	}
}

/*
 * A leaf that was hidden, or broken, is made anew. Nothing is cached of it but its
 * absence. Whether a hidden one was ACCESSED is not known any more: rather so.
 */
static void show_leaf(struct change *c, hx_pte *p, hx_pte e, unsigned level, uintptr_t va)
{
	uint64_t payload = hx_hal_pte_payload(e);
	bool accessed = !hx_soft_is_broken(payload) || (payload & HX_SOFT_ACCESSED) != 0;
	uint64_t flags = c->flags | (accessed ? HX_PAGE_ACCESSED : 0) |
			 (hx_soft_flags(payload, level) & HX_PAGE_DIRTY);
	hx_hal_pte_store(
		p, hx_hal_pte_leaf(hx_soft_pa(payload), hx_hal_pte_prot(flags, level), level));
	c->remade = true;
	if (is_missed(c)) {
		hx_gather_add(&c->cursor->gather, va, hx_piece_last(va, UINTPTR_MAX, level), level);
		c->cursor->gather.tables |= level > 0;
	}
}

static HX_ALWAYS_INLINE hx_pte flipped(hx_pte leaf, uint64_t flip)
{
	return leaf ^ flip;
}

/* Entries of a table at level 0, which are never split. */
static void update_pages(struct change *c, hx_pte *table, uintptr_t va, uintptr_t last)
{
	if (c->flags == 0) { /* hide them */
		unhook_pages(c, table, va, last);
		return;
	}
	struct rule rule = {0};
	const uintptr_t page = (uintptr_t)hx_level_bytes(0);
	hx_pte *begin = &table[hx_level_index(va, 0)], *end = &table[hx_level_index(last, 0)] + 1;
	hx_pte *first = NULL, *after = NULL; /* of those that are stale */
	hx_group_break(begin, end);
	for (hx_pte *p = begin; p < end;) {
		hx_pte e = hx_hal_pte_load(p);
		if (hx_attributes_of(e) != rule.attributes) {
			learn(c, &rule, e);
		}
		hx_pte *run = p;
		if (!rule.leaf || !rule.changed || (c->breaking && !rule.broken)) {
			if (hx_hal_pte_kind(e, 0) == HX_PTE_SOFT && !c->breaking) {
				show_leaf(c, p, e, 0, va + (uintptr_t)(p - begin) * page);
			}
			p++;
			continue;
		}
		if (c->breaking) {
			put_aside(p++, e, 0);
		} else if (!rule.settled) {
			if (!hx_hal_pte_update(p, &e, e ^ rule.flip)) {
				update_leaf(c, p, e, 0);
			}
			p++;
		} else {
			p = store_run(p, end, flipped, rule.flip);
		}
		if (rule.stale) {
			first = first ? first : run;
			after = p;
		}
	}
	gather_pages(c, va, begin, first, after);
}

/* A leaf above level 0 of which the range covers all. */
static void update_huge(struct change *c, hx_pte *p, hx_pte e, unsigned level, uintptr_t va)
{
	uint64_t old = hx_hal_pte_flags(e, level);
	if (!c->breaking) {
		update_leaf(c, p, e, level);
	} else if (is_broken(old, c->flags)) {
		put_aside(p, e, level);
	} else {
		return;
	}
	if (must_forget(c, old)) {
		hx_gather_add(&c->cursor->gather, va, hx_piece_last(va, UINTPTR_MAX, level), level);
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
				update_huge(c, p, e, level, va);
			} else {
				split(c, p, e, level, va);
				if (!hx_feature(HX_MMU_BREAK_BEFORE_MAKE) || is_missed(c)) {
					hx_gather_add(&c->cursor->gather, va, to, level - 1);
				}
				e = hx_hal_pte_load(p);
				kind = HX_PTE_TABLE;
			}
		}
		if (kind == HX_PTE_TABLE) {
			update(c, hx_child_of(e, level), level - 1, va, to);
		} else if (kind == HX_PTE_SOFT && !c->breaking) {
			show_leaf(c, p, e, level, va);
		}
		if (to == last) {
			return;
		}
	}
}

/* ---- The calls ---- */

/* Of [va, last], all in or below @table. */
static void update_all(struct change *c, hx_pte *table, unsigned level, uintptr_t va,
		       uintptr_t last)
{
	if (hx_feature(HX_MMU_BREAK_BEFORE_MAKE) && c->flags != 0) {
		c->breaking = true;
		update(c, table, level, va, last);
		c->breaking = false;
		hx_cursor_flush(c->cursor);
		c->cursor->gather.count = 0;
	}
	update(c, table, level, va, last);
	hx_cursor_flush(c->cursor);
}

/* Plan, with all locks when it takes them, and have the tables in hand. */
static hx_status prepare(struct change *c, uintptr_t va, uintptr_t last)
{
	const hx_pte *root = hx_table_at(c->cursor->t->root);
	bool empties;
	c->wide = false;
	c->tables = 0;
	hx_status s = plan(c, root, hx_root_level(), va, last, &empties);
	if (s == HX_OK && c->wide && !hx_cursor_has_all(c->cursor)) {
		hx_cursor_widen(c->cursor);
		return prepare(c, va, last); /* once: it has all now */
	}
	return s == HX_OK ? hx_cursor_reserve(c->cursor, c->tables) : s;
}

static void unmap_prepared(struct change *c, uintptr_t va, uintptr_t last)
{
	struct hx_cursor *cursor = c->cursor;
	hx_pte *root = hx_table_at(cursor->t->root);
	(void)unhook(c, root, hx_root_level(), va, last);
	hx_cursor_flush(cursor);
	if (c->unhooked_tables) {
		hx_cursor_retire(cursor);
	}
	release(c, root, true, hx_root_level(), va, last);
	if (!hx_cursor_has_all(cursor)) {
		prune(c, va);
		prune(c, last);
	}
}

/* All in one leaf table, which stays: no table is needed, and none goes. */
static hx_status change_pages(struct change *c, hx_pte *table, uintptr_t va, uintptr_t last)
{
	hx_status s = plan_pages(c, table, va, last);
	if (s == HX_OK && c->unmap) {
		unhook_pages(c, table, va, last);
		hx_cursor_flush(c->cursor);
		release_pages(c, table, va, last);
	} else if (s == HX_OK) {
		update_all(c, table, 0, va, last);
	}
	return s;
}

static hx_status change(struct change *c, struct hx_pagetable *t, uintptr_t va, uintptr_t last)
{
	struct hx_cursor *cursor = c->cursor;
	hx_cursor_open(cursor, t, va, last);
	hx_pte *root = hx_table_at(t->root), *leaf_table = hx_cursor_leaf_table(cursor);
	hx_status s;
	if (leaf_table && !(c->unmap && is_empty_around(leaf_table, 0, hx_level_index(va, 0),
							hx_level_index(last, 0) + 1))) {
		s = change_pages(c, leaf_table, va, last);
	} else {
		s = prepare(c, va, last);
		if (s == HX_OK && c->unmap) {
			unmap_prepared(c, va, last);
		} else if (s == HX_OK) {
			update_all(c, root, hx_root_level(), va, last);
		}
	}
	if (c->remade) {
		hx_hal_pt_publish();
	}
	HX_ASSERT(cursor->reserve.count == 0);
	hx_cursor_close(cursor);
	HX_DEBUG_ASSERT(hx_pagetable_validate(t) == HX_OK);
	return s;
}

hx_status hx_unmap_range(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, bool sparse,
			 hx_released_fn released, void *context)
{
	struct hx_cursor cursor;
	struct change c = {.cursor = &cursor,
			   .unmap = true,
			   .sparse = sparse,
			   .released = released,
			   .context = context};
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	return s == HX_OK ? change(&c, t, va.v, last) : s;
}

static hx_status update_flags(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, bool sparse,
			      uint64_t flags)
{
	struct hx_cursor cursor;
	struct change c = {.cursor = &cursor, .sparse = sparse, .flags = flags & ~MACHINE_FLAGS};
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	if (s == HX_OK && flags == 0) { /* hide; a huge leaf has no such form */
		s = t->kernel || t->huge ? HX_INVALID_ARGUMENT : HX_OK;
	} else if (s == HX_OK) {
		s = hx_mapper_check_flags(t, &c.flags);
	}
	return s == HX_OK ? change(&c, t, va.v, last) : s;
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
