/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Loading tables on CPUs, and the faults of a CPU that has cached less than the
 * table that it runs allows.
 *
 * Three masks of a user table say what CPUs know of it:
 *
 *      active   runs it: must be asked when something is taken away
 *      cached   ran it under its present identifier: may have entries
 *      stale    has entries of which some are wrong: forget them at the next load
 *
 * Without identifiers a load forgets the table before, and `active` is all. There a CPU
 * that goes from a user's table to the kernel's becomes *lazy*: the user's root shows the
 * whole kernel half too, so it keeps root and TLB as they are, and what it runs and what
 * its MMU walks are two things:
 *
 *      runs      walks
 *      U         U         load(U)
 *      kernel    U         lazy: load(kernel); no root is written, no mask changes
 *      U         U         load(U) again: nothing to write, nothing to forget
 *      kernel    kernel    it was asked to invalidate something of U, or U ends
 *
 * A lazy CPU stays in `active` of U, so the masks say what MMUs hold and a frame that is
 * freed, of data or a table, is out of its reach as it is out of any other's. The first
 * time that it is asked, it leaves: it loads the kernel's root, which forgets all of U,
 * takes its bit away and answers. It is asked once a stay, by an interrupt even where
 * invalidations are broadcast, which would reach it each time and never make it leave.
 *
 * To become lazy and to come back changes only `runs`, with interrupts off. So, whenever an
 * initiator looks at `active`, the bit of a lazy CPU is there, and the CPU answers later by
 * what it is then: lazy, it leaves; back on U, it invalidates; on another table, its load
 * has forgotten all of U. A second initiator finds it in the same state, or without its
 * bit. That they look at `runs` and `walks`, too, only chooses how they ask, so these need
 * no order. Nor does the end of U: whose CPUs have all left U, or become lazy, before, sees
 * so and has the lazy ones leave; another one that leaves just then makes it BUSY.
 *
 * Source: the lazy TLB mode of Linux before 4.20. Since then Linux asks lazy CPUs only when
 * tables are freed. They hold translations of freed data frames then, which they may use
 * when they run ahead, with a memory type that is no longer right, or by a stray access.
 */
#include "internal.h"

static struct hx_pagetable *kernel_of(struct hx_pagetable *t)
{
	return t->shared ? t->shared : t;
}

/* A CPU's own to write, with interrupts off; others may look. */
static struct {
	struct hx_pagetable *runs;  /* loaded last; atomic */
	struct hx_pagetable *walks; /* whose root the MMU has: another one while lazy; atomic */
	uint16_t asid;
	bool mixed; /* it may have entries of user tables under HX_ASID_KERNEL */
} __attribute__((aligned(64))) loaded[HX_CPUS_MAX];

static void note(struct hx_pagetable **where, struct hx_pagetable *t)
{
	__atomic_store_n(where, t, __ATOMIC_RELAXED);
}

uint16_t hx_loaded_asid(void)
{
	return loaded[hx_hal_cpu_id()].asid;
}

static void set(struct hx_cpus *mask, struct hx_cpus me)
{
	__atomic_fetch_or(&mask->bits, me.bits, __ATOMIC_SEQ_CST);
}

/* @return was it set? */
static bool clear(struct hx_cpus *mask, struct hx_cpus me)
{
	return (__atomic_fetch_and(&mask->bits, ~me.bits, __ATOMIC_SEQ_CST) & me.bits) != 0;
}

/* Is what this CPU has cached under the identifier of @t of @t, and right? */
static bool may_keep(struct hx_pagetable *t, struct hx_cpus me, uint16_t asid)
{
	if (hx_hal_geometry.asid_bits == 0) {
		return false;
	}
	if (t->kernel) { /* nothing but GLOBAL entries, unless a user table had to share it */
		const struct hx_pagetable *before = loaded[hx_hal_cpu_id()].runs;
		return before == t ||
		       (before && before->shared == t && !loaded[hx_hal_cpu_id()].mixed);
	}
	bool stale = clear(&t->stale, me);
	bool cached =
		(__atomic_fetch_or(&t->cached.bits, me.bits, __ATOMIC_SEQ_CST) & me.bits) != 0;
	return asid != HX_ASID_KERNEL && cached && !stale;
}

static bool may_be_lazy(void)
{
	return hx_hal_geometry.asid_bits == 0;
}

/* To be lazy, or no more. @return false: a root must be written */
static bool load_lazily(unsigned cpu, struct hx_pagetable *t)
{
	const struct hx_pagetable *walks = loaded[cpu].walks;
	bool shown = walks && (walks == t || walks->shared == t);
	if (!may_be_lazy() || !shown || loaded[cpu].runs == t) {
		return false;
	}
	note(&loaded[cpu].runs, t);
	return true;
}

struct hx_cpus hx_lazy_on(const struct hx_pagetable *t, struct hx_cpus among)
{
	struct hx_cpus lazy = {0};
	for (uint64_t left = may_be_lazy() ? among.bits : 0; left != 0; left &= left - 1) {
		unsigned cpu = hx_ctz64(left);
		if (__atomic_load_n(&loaded[cpu].walks, __ATOMIC_RELAXED) == t &&
		    __atomic_load_n(&loaded[cpu].runs, __ATOMIC_RELAXED) != t) {
			lazy.bits |= hx_cpus_of(cpu).bits;
		}
	}
	return lazy;
}

bool hx_lazy_leave(const struct hx_pagetable *t)
{
	unsigned cpu = hx_hal_cpu_id();
	struct hx_pagetable *runs = loaded[cpu].runs;
	bool lazy = runs && hx_lazy_on(t, hx_cpus_of(cpu)).bits != 0;
	if (lazy) {
		hx_pagetable_load(runs, runs);
	}
	return lazy;
}

void hx_pagetable_load(struct hx_pagetable *t, struct hx_pagetable *previous)
{
	unsigned long irq = hx_hal_irq_save();
	unsigned cpu = hx_hal_cpu_id();
	if (previous && load_lazily(cpu, t)) {
		hx_hal_irq_restore(irq);
		return;
	}
	if (previous) { /* a lazy CPU leaves another table than it runs */
		previous = loaded[cpu].walks;
		note(&loaded[cpu].runs, previous); /* who asks need not wait for it to leave */
	}
	struct hx_cpus me = hx_cpus_of(cpu);
	struct hx_pagetable *kernel = kernel_of(t);
	struct hx_pagetable *old_kernel = previous ? kernel_of(previous) : NULL;
	/*
	 * The bit comes before the root. Who changes the table first stores the
	 * change and then reads the mask: either the bit is there, and this CPU is
	 * asked to invalidate, or the bit came later, and the walks that start with
	 * root_load find the change already made. The other way round, a walk could
	 * cache the old entry while the mask still says that nobody has it.
	 *
	 * It comes before the look at `stale`, too: who finds no bit in `active` has set
	 * the one in `stale` before he looked (shootdown.c).
	 */
	set(&kernel->active, me);
	set(&t->active, me);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uint16_t asid = hx_asid_enter(t);
	bool keep = may_keep(t, me, asid);
	hx_hal_root_load(t->root, asid, keep);
	note(&loaded[cpu].runs, t);
	note(&loaded[cpu].walks, t);
	loaded[cpu].asid = asid;
	loaded[cpu].mixed = !t->kernel && (loaded[cpu].mixed || asid == HX_ASID_KERNEL);
	if (old_kernel != kernel) {
		hx_flush_this_cpu(t); /* GLOBAL entries of another kernel half */
	}
	/*
	 * Here the CPU can not walk the old table, and has nothing of it cached that it
	 * could use: from now on it need not be asked.
	 */
	if (previous && previous != t && previous != kernel) {
		(void)clear(&previous->active, me);
	}
	if (old_kernel && old_kernel != kernel && old_kernel != previous) {
		(void)clear(&old_kernel->active, me);
	}
	hx_hal_irq_restore(irq);
}

void hx_pagetable_forget_page(struct hx_va va)
{
	unsigned long irq = hx_hal_irq_save();
	struct hx_va page = hx_va(va.v & ~(uintptr_t)(HX_FRAME_BYTES - 1));
	hx_hal_pt_publish(); /* absence may be cached at any level */
	hx_hal_tlb_page(page, hx_loaded_asid(), va.v >= hx_kernel_start());
	hx_hal_irq_restore(irq);
}

/* ---- Spurious faults ---- */

/* Do the rights and marks of a leaf let the access of @fault through? */
static bool allows(uint64_t flags, const struct hx_fault *fault)
{
	bool user_page = (flags & HX_PAGE_USER) != 0;
	uint64_t needed = fault->access == HX_ACCESS_WRITE ? HX_PAGE_WRITABLE : 0;
	if (!(hx_hal_geometry.features & HX_MMU_HARDWARE_AD)) {
		needed |= HX_PAGE_ACCESSED | (needed != 0 ? HX_PAGE_DIRTY : 0);
	}
	if ((flags & needed) != needed) {
		return false;
	}
	if (fault->access == HX_ACCESS_EXECUTE) {
		return fault->user == user_page && !(flags & HX_PAGE_NO_EXECUTE);
	}
	return fault->user ? user_page : !user_page || fault->user_access;
}

/* Does the entry stand broken, for another CPU to make it anew? */
static bool is_being_made(hx_pte e, unsigned level)
{
	return hx_hal_pte_kind(e, level) == HX_PTE_SOFT && hx_soft_is_broken(hx_hal_pte_payload(e));
}

bool hx_pagetable_spurious(const struct hx_fault *fault)
{
	unsigned long irq = hx_hal_irq_save();
	const struct hx_pagetable *t = loaded[hx_hal_cpu_id()].runs;
	hx_pte end;
	struct hx_translation now = hx_walk_to(t, fault->va, &end);
	bool spurious = now.status == HX_OK && allows(now.flags, fault);
	if (spurious) {
		hx_pagetable_forget_page(fault->va);
	} else if (now.status == HX_NOT_MAPPED && is_being_made(end, now.level)) {
		/*
		 * Another CPU is about to make it anew. It may wait for this one's answer first;
		 * then the access runs again, and finds it made or comes back here.
		 */
		spurious = true;
		hx_upcall_tlb_ipi();
		hx_hal_relax();
	}
	hx_hal_irq_restore(irq);
	return spurious;
}
