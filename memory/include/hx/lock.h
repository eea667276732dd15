/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/lock.h - the spin lock of the memory subsystem.
 *
 * A ticket lock (first come, first served) that is held with interrupts off, so
 * that an interrupt handler may take any lock that the code it interrupted does
 * not hold. Never held across a call that sleeps, a reclaimer or a handler; it
 * may be held across a TLB shootdown, which is why a CPU that waits for a lock,
 * deaf to interrupts, serves the shootdowns that others ask of it.
 * The order in which locks nest is written in memory/doc/locking.md.
 * Source: Reed and Kanodia 1979 (ticket, eventcount).
 */
#ifndef HX_LOCK_H
#define HX_LOCK_H

#include <hx/hal.h>

struct hx_lock {
	uint32_t next;  /* ticket to hand out */
	uint32_t owner; /* ticket that may enter */
};

#define HX_LOCK_INIT                                                                               \
	{                                                                                          \
		0, 0                                                                               \
	}

/* With interrupts off already, for whoever takes several. */
static inline void hx_lock_acquire_irqs_off(struct hx_lock *l)
{
	uint32_t ticket = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
	while (__atomic_load_n(&l->owner, __ATOMIC_ACQUIRE) != ticket) {
		hx_upcall_tlb_ipi(); /* the owner may wait for this CPU's answer */
		hx_hal_relax();
	}
}

/* Take it if it is free; @return did it? */
static inline bool hx_lock_try_irqs_off(struct hx_lock *l)
{
	uint32_t ticket = __atomic_load_n(&l->owner, __ATOMIC_ACQUIRE), next = ticket;
	/* Nobody has had it since that load, if the ticket is still to hand out. */
	return __atomic_compare_exchange_n(&l->next, &next, ticket + 1, false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED);
}

static inline void hx_lock_release_irqs_off(struct hx_lock *l)
{
	__atomic_store_n(&l->owner, l->owner + 1, __ATOMIC_RELEASE);
}

static inline unsigned long hx_lock_acquire(struct hx_lock *l)
{
	unsigned long irq = hx_hal_irq_save();
	hx_lock_acquire_irqs_off(l);
	return irq;
}

static inline void hx_lock_release(struct hx_lock *l, unsigned long irq)
{
	hx_lock_release_irqs_off(l);
	hx_hal_irq_restore(irq);
}

#endif
