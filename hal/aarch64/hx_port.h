/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* aarch64: the inline part of the contract (hx/hal.h). */
#ifndef HX_AARCH64_PORT_H
#define HX_AARCH64_PORT_H

#include "pte.h"
#include "sysreg.h"
#include <hx/pte_access.h>

/* Absence is never cached; a barrier makes the walkers see the stores. */
static HX_ALWAYS_INLINE void hx_hal_pt_publish(void)
{
	__asm__ volatile("dsb ishst\n\tisb" : : : "memory");
}

/* Of every identifier, and GLOBAL. */
#define hx_hal_tlb_page(va, asid, global) HX_TLBI_PAGE((va).v << 8 >> 20)

/* In the kernel, TPIDR_EL1 holds the logical CPU number; user mode cannot reach it. */
static HX_ALWAYS_INLINE unsigned hx_hal_cpu_id(void)
{
	unsigned long id;
	__asm__("mrs %0, tpidr_el1" : "=r"(id));
	return (unsigned)id;
}

static HX_ALWAYS_INLINE unsigned long hx_hal_irq_save(void)
{
	unsigned long daif;
	__asm__ volatile("mrs %0, daif\n\tmsr daifset, #2" : "=r"(daif) : : "memory");
	return daif;
}

static HX_ALWAYS_INLINE void hx_hal_irq_restore(unsigned long state)
{
	if (!(state & 1ul << 7)) { /* I */
		__asm__ volatile("msr daifclr, #2" : : : "memory");
	}
}

static HX_ALWAYS_INLINE void hx_hal_relax(void)
{
	__asm__ volatile("yield" : : : "memory");
}

extern bool hx_aarch64_pan; /* PSTATE.PAN exists */

static HX_ALWAYS_INLINE void hx_hal_user_access(bool allowed)
{
	if (hx_aarch64_pan) { /* the assembler knows "msr pan" from ARMv8.1 on only */
		if (allowed) {
			__asm__ volatile(".inst 0xd500409f /* msr pan, #0 */" : : : "memory");
		} else {
			__asm__ volatile(".inst 0xd500419f /* msr pan, #1 */" : : : "memory");
		}
	}
}

#endif
