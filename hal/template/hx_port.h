/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Template: the inline part of the contract (hx/hal.h). hal/PORTING.md, step 3. */
#ifndef HX_TEMPLATE_PORT_H
#define HX_TEMPLATE_PORT_H

#include "pte.h"
/* Entries that are 64-bit words within reach of the compiler's atomics: nothing to write. */
#include <hx/pte_access.h>

/*
 * Make a batch of new entries visible to this CPU's walker: a fence where absence
 * may be cached (HX_MMU_NEGATIVE_CACHING), a store barrier where the walker does
 * not see stores in order, nothing elsewhere.
 */
static HX_ALWAYS_INLINE void hx_hal_pt_publish(void)
{
	hx_template_missing("hx_hal_pt_publish");
}

/*
 * Logical number of this CPU. It stands where user mode cannot change it and an
 * interrupt cannot lose it (a register of the kernel's own, a system register).
 * Must be 0 on the boot CPU before anything was set up.
 */
static HX_ALWAYS_INLINE unsigned hx_hal_cpu_id(void)
{
	hx_template_missing("hx_hal_cpu_id");
}

/* Interrupts off on this CPU; the result says whether they were on. Nests. */
static HX_ALWAYS_INLINE unsigned long hx_hal_irq_save(void)
{
	hx_template_missing("hx_hal_irq_save");
}

/* On again if they were on. Both are compiler barriers. */
static HX_ALWAYS_INLINE void hx_hal_irq_restore(unsigned long state)
{
	(void)state;
	hx_template_missing("hx_hal_irq_restore");
}

/* Optional: the hint for spin loops. A compiler barrier serves. */
static HX_ALWAYS_INLINE void hx_hal_relax(void)
{
	__asm__ volatile("" : : : "memory");
}

/*
 * Optional: let supervisor code touch USER pages, or not any more. Nothing on
 * machines that cannot keep it from them; those that can say HX_MMU_USER_GUARD.
 */
static HX_ALWAYS_INLINE void hx_hal_user_access(bool allowed)
{
	(void)allowed;
}

#endif
