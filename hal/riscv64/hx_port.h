/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* riscv64: the inline part of the contract (hx/hal.h). */
#ifndef HX_RISCV64_PORT_H
#define HX_RISCV64_PORT_H

#include "csr.h"
#include "pte.h"
#include <hx/pte_access.h>

/* Absence may be cached: order the stores, then drop this hart's view of it. */
static HX_ALWAYS_INLINE void hx_hal_pt_publish(void)
{
	__asm__ volatile("sfence.vma zero, zero" : : : "memory");
}

/* Absence of the leaf alone may be cached: the form with an address will do. */
#define hx_hal_pt_publish_page(va) hx_sfence_va((va).v)
#define hx_hal_tlb_page(va, asid, global)                                                          \
	((global) ? hx_sfence_va((va).v) : hx_sfence_va_asid((va).v, asid))

/* In the kernel, tp holds the logical CPU number; the trap entry keeps it so. */
static HX_ALWAYS_INLINE unsigned hx_hal_cpu_id(void)
{
	unsigned long id;
	__asm__("mv %0, tp" : "=r"(id));
	return (unsigned)id;
}

static HX_ALWAYS_INLINE unsigned long hx_hal_irq_save(void)
{
	unsigned long status;
	__asm__ volatile("csrrci %0, sstatus, 2" : "=r"(status) : : "memory"); /* SIE */
	return status;
}

static HX_ALWAYS_INLINE void hx_hal_irq_restore(unsigned long state)
{
	__asm__ volatile("csrs sstatus, %0" : : "r"(state & 2) : "memory");
}

static HX_ALWAYS_INLINE void hx_hal_relax(void)
{
	__asm__ volatile(".insn i 0x0f, 0, x0, x0, 0x010" : : : "memory"); /* pause (Zihintpause) */
}

static HX_ALWAYS_INLINE void hx_hal_user_access(bool allowed)
{
	unsigned long sum = 1ul << 18;
	if (allowed) {
		__asm__ volatile("csrs sstatus, %0" : : "r"(sum) : "memory");
	} else {
		__asm__ volatile("csrc sstatus, %0" : : "r"(sum) : "memory");
	}
}

#endif
