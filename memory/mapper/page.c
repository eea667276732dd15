/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_map() and hx_unmap(): the usual call, of one page, straight away; every other
 * call by the general way (map.c, change.c).
 *
 * Usual is a page whose leaf table the stripe remembers (cursor.c), beside another
 * page, so that the table neither comes nor goes, and in no group (group.c), with a lock
 * that is free, and with nothing wrong in the arguments. What turns out otherwise has
 * changed nothing and is done, or refused, by the general way: there is one place for each
 * refusal. So these functions call nothing on their way, and need not even save a register;
 * what is seldom, another CPU to be told or a caller to be told, ends in a call of its own.
 *
 * The order is that of every unmapping: the entry is EMPTY first, then forgotten
 * everywhere, then the frame is told; the stripe's lock keeps others from mapping the
 * page in between, which is why no soft entry has to hold its place.
 */
#include "internal.h"

/* Is it one page of the half that @t owns? */
static HX_ALWAYS_INLINE bool is_page(const struct hx_pagetable *t, uintptr_t va, uint64_t bytes)
{
	return bytes == HX_FRAME_BYTES && t && t->frames && va % HX_FRAME_BYTES == 0 &&
	       hx_is_inside(t, va, va);
}

/* Interrupts are off. @return the stripe of @va, locked, with its entry; NULL: it is not */
static HX_ALWAYS_INLINE struct hx_stripe *enter(struct hx_pagetable *t, uintptr_t va, hx_pte **p)
{
	const unsigned shift = t->rules.table_shift;
	const uintptr_t table = va >> shift;
	struct hx_stripe *s = &t->stripes[table % HX_STRIPES];
	if (!hx_lock_try_irqs_off(&s->lock)) {
		return NULL;
	}
	__atomic_store_n(&s->locks, s->locks + 1, __ATOMIC_RELAXED);
	if (s->leaf_tag != hx_leaf_tag(table)) {
		hx_lock_release_irqs_off(&s->lock);
		return NULL;
	}
	*p = &s->leaf_table[(va - (table << shift)) / HX_FRAME_BYTES];
	return s;
}

static HX_ALWAYS_INLINE void leave(struct hx_stripe *s, unsigned long irq)
{
	hx_lock_release_irqs_off(&s->lock);
	hx_hal_irq_restore(irq);
}

/* The call is done. */
static HX_ALWAYS_INLINE hx_status finish(struct hx_pagetable *t, struct hx_stripe *s,
					 unsigned long irq)
{
	(void)t;
	leave(s, irq);
	HX_DEBUG_ASSERT(hx_pagetable_validate(t) == HX_OK);
	return HX_OK;
}

static HX_ALWAYS_INLINE uint64_t me(void)
{
	return hx_cpus_of(hx_hal_cpu_id()).bits;
}

/* After a change of an entry: those that may have seen what it was, and run the table now. */
static HX_ALWAYS_INLINE uint64_t active_cpus(const struct hx_pagetable *t)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return __atomic_load_n(&t->active.bits, __ATOMIC_RELAXED);
}

static HX_ALWAYS_INLINE uint64_t stale_cpus(const struct hx_pagetable *t)
{
	return __atomic_load_n(&t->stale.bits, __ATOMIC_SEQ_CST);
}

static HX_ALWAYS_INLINE struct hx_gather gather_of(uintptr_t va)
{
	struct hx_gather g;
	g.pieces[0] = (struct hx_piece){va, va + (HX_FRAME_BYTES - 1), 0};
	g.count = 1;
	g.tables = false;
	return g;
}

/* ---- Map ---- */

/* Elsewhere the page's absence may be cached. */
static HX_NOINLINE hx_status map_told(struct hx_pagetable *t, struct hx_stripe *s, uintptr_t va,
				      unsigned long irq)
{
	struct hx_gather g = gather_of(va);
	hx_gather_flush_others(t, s, &g);
	return finish(t, s, irq);
}

hx_status hx_map(struct hx_pagetable *t, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		 uint64_t flags)
{
	if (!is_page(t, va.v, bytes) || (pa.v & t->rules.no_address) != 0 ||
	    hx_mapper_check_flags(t, &flags) != HX_OK) {
		return hx_map_range(t, va, pa, bytes, flags);
	}
	unsigned long irq = hx_hal_irq_save();
	hx_pte *p;
	struct hx_stripe *s = enter(t, va.v, &p);
	if (!s) {
		hx_hal_irq_restore(irq);
		return hx_map_range(t, va, pa, bytes, flags);
	}
	if (hx_hal_pte_raw(p) != 0) {
		leave(s, irq);
		return HX_ALREADY_MAPPED;
	}
	hx_hal_pte_store(p, hx_hal_pte_leaf(pa, hx_hal_pte_prot(flags, 0), 0));
	hx_hal_pt_publish_page(va);
	if (t->rules.told && (active_cpus(t) & ~me()) != 0) {
		return map_told(t, s, va.v, irq);
	}
	return finish(t, s, irq);
}

/* ---- Unmap ---- */

/* Another entry beside that of @va: most often there is, and the table stays. */
static HX_ALWAYS_INLINE bool has_neighbour(const hx_pte *p)
{
	const uintptr_t in_table = (uintptr_t)p % HX_FRAME_BYTES;
	return (in_table != 0 && hx_hal_pte_raw(p - 1) != 0) ||
	       (in_table != (hx_level_entries(0) - 1) * sizeof *p && hx_hal_pte_raw(p + 1) != 0);
}

/* The entry was @e: flush it, unless that is done, and tell the caller. */
static HX_NOINLINE hx_status unmap_told(struct hx_pagetable *t, struct hx_stripe *s, uintptr_t va,
					hx_pte e, unsigned long irq, bool flush,
					hx_released_fn released, void *context)
{
	if (flush) {
		struct hx_gather g = gather_of(va);
		hx_gather_flush(t, s, &g);
	}
	if (released) {
		const uint64_t leaf =
			hx_hal_pte_pa(e, 0).v | (hx_hal_pte_flags(e, 0) & HX_RELEASED_FLAGS);
		const struct hx_released batch = {hx_va(va), HX_FRAME_BYTES, 1, &leaf};
		released(context, &batch);
	}
	return finish(t, s, irq);
}

static HX_ALWAYS_INLINE hx_status unmap(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
					bool sparse, hx_released_fn released, void *context)
{
	if (!is_page(t, va.v, bytes)) {
		return hx_unmap_range(t, va, bytes, sparse, released, context);
	}
	unsigned long irq = hx_hal_irq_save();
	hx_pte *p;
	struct hx_stripe *s = enter(t, va.v, &p);
	if (!s) {
		hx_hal_irq_restore(irq);
		return hx_unmap_range(t, va, bytes, sparse, released, context);
	}
	if (hx_hal_pte_kind(hx_hal_pte_raw(p), 0) != HX_PTE_LEAF || !has_neighbour(p)) {
		leave(s, irq);
		return hx_unmap_range(t, va, bytes, sparse, released, context);
	}
	hx_pte e = hx_hal_pte_exchange(p, 0);
	/*
	 * Does nobody run it but this CPU, and is nobody away who does not know that he has to
	 * forget it? Then who comes later finds the entry EMPTY: who_may_have() in shootdown.c.
	 */
	uint64_t active = active_cpus(t);
	__atomic_thread_fence(__ATOMIC_ACQUIRE); /* who is not there any more is in this one */
	uint64_t cached = __atomic_load_n(&t->cached.bits, __ATOMIC_ACQUIRE);
	uint64_t away = cached & ~active;
	bool others = (active & ~me()) != 0 || (away != 0 && (away & ~stale_cpus(t)) != 0);
	if (!others && active != 0) {
		hx_hal_tlb_page(va, hx_asid_of(t), t->kernel);
		__atomic_fetch_add(&s->local_flushes, 1, __ATOMIC_RELAXED);
	}
	if (others || released) {
		return unmap_told(t, s, va.v, e, irq, others, released, context);
	}
	return finish(t, s, irq);
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
