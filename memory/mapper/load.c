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
 * Without identifiers a load forgets the table before, and `active` is all.
 */
#include "internal.h"

static struct hx_pagetable *kernel_of(struct hx_pagetable *t)
{
	return t->shared ? t->shared : t;
}

/* What each CPU runs: its own to read and write, with interrupts off. */
static struct {
	const struct hx_pagetable *table;
	uint16_t asid;
} loaded[HX_CPUS_MAX];

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
		const struct hx_pagetable *before = loaded[hx_hal_cpu_id()].table;
		return before == t ||
		       (before && before->shared == t && hx_loaded_asid() != HX_ASID_KERNEL);
	}
	bool stale = clear(&t->stale, me);
	bool cached =
		(__atomic_fetch_or(&t->cached.bits, me.bits, __ATOMIC_SEQ_CST) & me.bits) != 0;
	return asid != HX_ASID_KERNEL && cached && !stale;
}

void hx_pagetable_load(struct hx_pagetable *t, struct hx_pagetable *previous)
{
	unsigned long irq = hx_hal_irq_save();
	unsigned cpu = hx_hal_cpu_id();
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
	loaded[cpu].table = t;
	loaded[cpu].asid = asid;
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
	const struct hx_tlb_range page = {
		.va = hx_va(va.v & ~(uintptr_t)(HX_FRAME_BYTES - 1)),
		.pages = 1,
		.asid = hx_loaded_asid(),
		.global = va.v >= hx_kernel_start(),
	};
	hx_hal_pt_publish(); /* absence may be cached at any level */
	hx_hal_tlb_local(&page, 1);
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

bool hx_pagetable_spurious(const struct hx_fault *fault)
{
	unsigned long irq = hx_hal_irq_save();
	const struct hx_pagetable *t = loaded[hx_hal_cpu_id()].table;
	struct hx_translation now = hx_translate(t, fault->va);
	bool spurious = now.status == HX_OK && allows(now.flags, fault);
	if (spurious) {
		hx_pagetable_forget_page(fault->va);
	}
	hx_hal_irq_restore(irq);
	return spurious;
}
