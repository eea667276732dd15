/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* x86_64: the inline part of the contract (hx/hal.h). */
#ifndef HX_X86_64_PORT_H
#define HX_X86_64_PORT_H

#include "pte.h"
#include <hx/pte_access.h>

/* The walker never caches absence, and x86's stores become visible in order. */
static HX_ALWAYS_INLINE void hx_hal_pt_publish(void)
{
}

/* Of the identifier in force, and GLOBAL. */
#define hx_hal_tlb_page(va, asid, global)                                                          \
	__asm__ volatile("invlpg (%0)" : : "r"((va).v) : "memory")

/*
 * The CPU number stands in the task register: CPU n loads the TSS descriptor at
 * selector HX_X86_TSS_FIRST + 16 n. Reading TR needs no memory, no GS and no
 * care about user mode; it is 0 before it is loaded, which is the boot CPU.
 */
enum { HX_X86_TSS_FIRST = 0x30 };

static HX_ALWAYS_INLINE unsigned hx_hal_cpu_id(void)
{
	uint32_t selector;
	__asm__("str %0" : "=r"(selector));
	return selector < HX_X86_TSS_FIRST ? 0 : (selector - HX_X86_TSS_FIRST) >> 4;
}

static HX_ALWAYS_INLINE unsigned long hx_hal_irq_save(void)
{
	unsigned long flags;
	__asm__ volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
	return flags;
}

static HX_ALWAYS_INLINE void hx_hal_irq_restore(unsigned long state)
{
	if (state & 0x200) { /* RFLAGS.IF */
		__asm__ volatile("sti" : : : "memory");
	}
}

static HX_ALWAYS_INLINE void hx_hal_relax(void)
{
	__asm__ volatile("pause" : : : "memory");
}

extern bool hx_x86_smap; /* CR4.SMAP is on: stac and clac exist */

static HX_ALWAYS_INLINE void hx_hal_user_access(bool allowed)
{
	if (hx_x86_smap) {
		if (allowed) {
			__asm__ volatile("stac" : : : "memory", "cc");
		} else {
			__asm__ volatile("clac" : : : "memory", "cc");
		}
	}
}

#endif
