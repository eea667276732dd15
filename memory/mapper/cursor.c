/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Cursors: a range of a page table, locked, with what a call on it has in hand.
 *
 * An entry of level 1 and the leaf table below it belong to one stripe of
 * addresses and are changed only under that stripe's lock. An entry above level 1
 * covers many stripes:
 *
 *      level 2   | e |                 linked by compare-and-exchange under the
 *                  |                   lock of any stripe below it; changed (but
 *      level 1   | e | e | e | e |     for marks) or removed only under all locks
 *                  |   |   |   |
 *      level 0    [ ] [ ] [ ] [ ]      one stripe each
 *
 * So whoever holds a lock may walk down to his stripe: no table above it goes
 * away. A call that finds that it must change more than its stripes (a leaf above
 * level 1 is to be split, a table above level 0 empties) lets go, takes all locks
 * and starts over. Locks are taken in ascending order.
 *
 * A stripe remembers the leaf table that a call has walked down to last (leaf_table),
 * by the bits of its address that do not choose the stripe (leaf_tag): the next call
 * for a page beside it need not walk. The stripe's lock guards both, as it guards the
 * table; who unhooks a table forgets them before he lets go (hx_cursor_retire()).
 *
 * Readers (hx_translate()) take no lock: see query.c.
 *
 * Source: locking the covering page of a range instead of the whole table, as in
 * CortenMM (2025); Linux's split page-table locks.
 */
#include "internal.h"

/* Under the stripe's lock; hx_pagetable_counters() reads without. */
static void add(uint32_t *counter, uint32_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static uint32_t stripes_of(uintptr_t first, uintptr_t last)
{
	uintptr_t count = (last >> hx_level_shift(1)) - (first >> hx_level_shift(1)) + 1;
	if (count >= HX_STRIPES) {
		return UINT32_MAX;
	}
	uint32_t run = (UINT32_C(1) << count) - 1;
	unsigned begin = hx_stripe_index(first);
	return begin == 0 ? run : run << begin | run >> (HX_STRIPES - begin);
}

static void lock(struct hx_cursor *c, uint32_t stripes)
{
	struct hx_pagetable *t = c->t;
	c->stripes = stripes;
	c->home = &t->stripes[hx_ctz64(stripes)];
	for (uint64_t left = stripes; left != 0; left &= left - 1) {
		struct hx_stripe *s = &t->stripes[hx_ctz64(left)];
		hx_lock_acquire_irqs_off(&s->lock);
		__atomic_store_n(&s->locks, s->locks + 1, __ATOMIC_RELAXED);
	}
}

static void unlock(struct hx_cursor *c)
{
	for (uint64_t left = c->stripes; left != 0; left &= left - 1) {
		hx_lock_release_irqs_off(&c->t->stripes[hx_ctz64(left)].lock);
	}
}

void hx_cursor_open(struct hx_cursor *c, struct hx_pagetable *t, uintptr_t first, uintptr_t last)
{
	c->t = t;
	c->first = first;
	c->last = last;
	c->reserve = (struct hx_reserve){{0}, 0};
	c->gather.count = 0;
	c->gather.tables = false;
	c->irq = hx_hal_irq_save();
	lock(c, stripes_of(first, last));
}

void hx_cursor_widen(struct hx_cursor *c)
{
	HX_ASSERT(c->reserve.count == 0 && c->gather.count == 0);
	unlock(c);
	lock(c, UINT32_MAX);
}

void hx_cursor_close(struct hx_cursor *c)
{
	while (c->reserve.count > 0) {
		hx_cursor_free_table(c, hx_reserve_take(&c->reserve));
	}
	unlock(c);
	hx_hal_irq_restore(c->irq);
}

void hx_cursor_retire(const struct hx_cursor *c)
{
	for (uint64_t left = c->stripes; left != 0; left &= left - 1) {
		struct hx_stripe *s = &c->t->stripes[hx_ctz64(left)];
		s->leaf_tag = 0;
		__atomic_fetch_add(&s->retirements, 1, __ATOMIC_SEQ_CST);
	}
}

/* ---- Table frames ---- */

hx_status hx_cursor_reserve(struct hx_cursor *c, uint64_t count)
{
	while (c->reserve.count < count) {
		struct hx_pfn_result f = hx_table_allocate(c->t->frames, c->t->db, c->t);
		if (f.status != HX_OK) {
			while (c->reserve.count > 0) {
				hx_cursor_free_table(c, hx_reserve_take(&c->reserve));
			}
			return f.status;
		}
		hx_reserve_put(&c->reserve, hx_pfn_to_pa(f.value));
		add(&c->home->tables, 1);
		add(&c->home->table_sum, (uint32_t)f.value.v);
	}
	return HX_OK;
}

void hx_reserve_put(struct hx_reserve *r, struct hx_pa table)
{
	hx_table_at(table)[0] = r->head.v;
	r->head = table;
	r->count++;
}

struct hx_pa hx_reserve_take(struct hx_reserve *r)
{
	HX_ASSERT(r->count > 0);
	struct hx_pa table = r->head;
	r->head = hx_pa(hx_table_at(table)[0]);
	r->count--;
	return table;
}

void hx_cursor_free_table(struct hx_cursor *c, struct hx_pa table)
{
	add(&c->home->tables, -UINT32_C(1));
	add(&c->home->table_sum, -(uint32_t)hx_pa_to_pfn(table).v);
	hx_table_free(c->t->frames, c->t->db, table);
}

/* ---- Tables kept for splits ---- */

/*
 * A leaf of level 1 keeps one table, in its stripe. A leaf of level 2 keeps one, in
 * its first stripe, and those of the leaves of level 1 that it would be split into, in
 * theirs: so each of these finds its own where its own lock guards it.
 *
 *      level 2   [          leaf           ]     1 in the first stripe
 *      level 1   [    |    |    |    |     ]     1 in each
 */
uint64_t hx_kept_tables(const struct hx_pagetable *t, unsigned level, uintptr_t va)
{
	if (level > HX_KEEPING_LEVEL_MAX || (t->kernel && va <= t->direct_last)) {
		return 0;
	}
	uint64_t count = 0;
	for (unsigned l = 1; l <= level; l++) { /* one, and those of its pieces */
		count = 1 + hx_level_entries(l - 1) * count;
	}
	return count;
}

static void put_by(struct hx_cursor *c, uintptr_t va, struct hx_pa table)
{
	struct hx_stripe *s = &c->t->stripes[hx_stripe_index(va)];
	hx_table_at(table)[0] = s->kept.v;
	s->kept = table;
}

void hx_cursor_keep_folded(struct hx_cursor *c, unsigned level, uintptr_t va, struct hx_pa table)
{
	if (hx_kept_tables(c->t, level, va) == 0) {
		hx_cursor_free_table(c, table);
	} else {
		put_by(c, va, table); /* the pieces have kept theirs */
	}
}

void hx_cursor_keep(struct hx_cursor *c, unsigned level, uintptr_t va)
{
	if (hx_kept_tables(c->t, level, va) == 0) {
		return;
	}
	put_by(c, va, hx_reserve_take(&c->reserve));
	for (unsigned i = 0; level > 1 && i < hx_level_entries(level - 1); i++) {
		hx_cursor_keep(c, level - 1, va + (uintptr_t)(i * hx_level_bytes(level - 1)));
	}
}

struct hx_pa hx_cursor_take_kept(struct hx_cursor *c, uintptr_t va)
{
	struct hx_stripe *s = &c->t->stripes[hx_stripe_index(va)];
	struct hx_pa table = s->kept;
	HX_ASSERT(table.v != 0);
	s->kept = hx_pa(hx_table_at(table)[0]);
	return table;
}

void hx_cursor_drop_kept(struct hx_cursor *c, unsigned level, uintptr_t va)
{
	if (hx_kept_tables(c->t, level, va) == 0) {
		return;
	}
	hx_cursor_free_table(c, hx_cursor_take_kept(c, va));
	for (unsigned i = 0; level > 1 && i < hx_level_entries(level - 1); i++) {
		hx_cursor_drop_kept(c, level - 1, va + (uintptr_t)(i * hx_level_bytes(level - 1)));
	}
}

/* ---- The way down ---- */

hx_pte *hx_find_leaf_table(const struct hx_pagetable *t, uintptr_t va)
{
	hx_pte *table = hx_table_at(t->root);
	for (unsigned level = hx_root_level(); level > 0; level--) {
		hx_pte e = hx_hal_pte_load(&table[hx_level_index(va, level)]);
		if (hx_hal_pte_kind(e, level) != HX_PTE_TABLE) {
			return NULL;
		}
		table = hx_child_of(e, level);
	}
	return table;
}

hx_pte *hx_cursor_leaf_table(const struct hx_cursor *c)
{
	if ((c->first ^ c->last) >> hx_level_shift(1) != 0) {
		return NULL;
	}
	struct hx_stripe *s = c->home;
	const uint32_t tag = hx_leaf_tag(c->first >> hx_level_shift(1));
	if (s->leaf_tag != tag) {
		hx_pte *table = hx_find_leaf_table(c->t, c->first);
		if (!table) {
			return NULL;
		}
		s->leaf_table = table;
		s->leaf_tag = tag;
	}
	return s->leaf_table;
}
