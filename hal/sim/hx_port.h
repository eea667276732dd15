/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated machine's port header: the codec that -Dsim_paging names, over
 * host memory. See hal/sim/sim.h for the machine itself.
 *
 * Stores to page tables go through the machine where it has more to do than to
 * store: to show them late to the walkers, to look for a break that is missing
 * before a make, or to let a test in between. Else each costs one test, and nothing in
 * a build for benchmarks (-Dsim_stores=plain).
 */
#ifndef HX_SIM_PORT_H
#define HX_SIM_PORT_H

#if defined(HX_SIM_CODEC_X86_64)
#include "../x86_64/pte.h"
#elif defined(HX_SIM_CODEC_AARCH64)
#include "../aarch64/pte.h"
#elif defined(HX_SIM_CODEC_BBM)
#include "bbm_pte.h"
#else
#include "../riscv64/pte.h"
#endif

/* Out of line: what is done when hx_sim_watches (hal/sim/store.c). */
extern bool hx_sim_watches;
void hx_sim_pte_store(hx_pte *p, hx_pte e);
hx_pte hx_sim_pte_exchange(hx_pte *p, hx_pte e);
bool hx_sim_pte_update(hx_pte *p, hx_pte *expected, hx_pte desired);

#ifndef HX_SIM_PLAIN_STORES
#define HX_PTE_LOADS_ONLY
#endif
#include <hx/pte_access.h>

#ifndef HX_SIM_PLAIN_STORES
static HX_ALWAYS_INLINE void hx_hal_pte_store(hx_pte *p, hx_pte e)
{
	if (__builtin_expect(hx_sim_watches, 0)) {
		hx_sim_pte_store(p, e);
	} else {
		__atomic_store_n(p, e, __ATOMIC_RELEASE);
	}
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_exchange(hx_pte *p, hx_pte e)
{
	return __builtin_expect(hx_sim_watches, 0) ? hx_sim_pte_exchange(p, e)
						   : __atomic_exchange_n(p, e, __ATOMIC_ACQ_REL);
}

HX_NODISCARD static HX_ALWAYS_INLINE bool hx_hal_pte_update(hx_pte *p, hx_pte *expected,
							    hx_pte desired)
{
	return __builtin_expect(hx_sim_watches, 0)
		       ? hx_sim_pte_update(p, expected, desired)
		       : __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_ACQ_REL,
						     __ATOMIC_ACQUIRE);
}
#endif

/* Threads play the CPUs, and the TLB is a data structure: these are calls. */
void hx_hal_pt_publish(void);
unsigned hx_sim_cpu_id(void);
unsigned long hx_hal_irq_save(void);
void hx_hal_irq_restore(unsigned long state);
void hx_hal_relax(void);
void hx_hal_user_access(bool allowed);

/*
 * The CPU that this thread plays, and its number. A thread that plays none yet becomes one;
 * with plain stores it is taken for CPU 0 until it does so by another call.
 */
extern _Thread_local struct sim_cpu *hx_sim_this_cpu;
extern _Thread_local unsigned hx_sim_number;

static HX_ALWAYS_INLINE unsigned hx_hal_cpu_id(void)
{
#ifndef HX_SIM_PLAIN_STORES
	if (__builtin_expect(hx_sim_this_cpu == NULL, 0)) {
		return hx_sim_cpu_id();
	}
#endif
	return hx_sim_number;
}

/* CPUs that do nothing for the machine do not look for interrupts: the host is asked. */
void hx_sim_barrier(void);
#define hx_hal_cpu_barrier(cpus) ((void)(cpus), hx_sim_barrier())

#endif
