/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* riscv64: control and status registers, and the fences that go with them. */
#ifndef HX_RISCV64_CSR_H
#define HX_RISCV64_CSR_H

#include <stdint.h>

#define HX_CSR_READ(name)                                                                          \
	({                                                                                         \
		uint64_t value_;                                                                   \
		__asm__ volatile("csrr %0, " #name : "=r"(value_) : : "memory");                   \
		value_;                                                                            \
	})
#define HX_CSR_WRITE(name, value)                                                                  \
	__asm__ volatile("csrw " #name ", %0" : : "r"((uint64_t)(value)) : "memory")
#define HX_CSR_SET(name, bits)                                                                     \
	__asm__ volatile("csrs " #name ", %0" : : "r"((uint64_t)(bits)) : "memory")
#define HX_CSR_CLEAR(name, bits)                                                                   \
	__asm__ volatile("csrc " #name ", %0" : : "r"((uint64_t)(bits)) : "memory")

/* sstatus */
#define HX_SSTATUS_SIE  (UINT64_C(1) << 1)  /* interrupts, in supervisor mode */
#define HX_SSTATUS_SPIE (UINT64_C(1) << 5)  /* SIE before the trap */
#define HX_SSTATUS_SPP  (UINT64_C(1) << 8)  /* the trap came from supervisor mode */
#define HX_SSTATUS_SUM  (UINT64_C(1) << 18) /* supervisor may touch USER pages */
#define HX_SSTATUS_MXR  (UINT64_C(1) << 19) /* loads may read executable pages */

/* sie and sip */
#define HX_SIE_SSIE (UINT64_C(1) << 1) /* software interrupt: from another hart */
#define HX_SIE_STIE (UINT64_C(1) << 5) /* timer */

/*
 * satp  | MODE 63..60 | ASID 59..44 | PPN 43..0 |
 * MODE is 0 (no translation), 8 (Sv39), 9 (Sv48), 10 (Sv57): levels + 5. A write
 * with a mode that the hart lacks changes nothing at all, so that a mode is
 * probed by writing it and reading it back.
 */
#define HX_SATP_MODE_SHIFT 60
#define HX_SATP_ASID_SHIFT 44
#define HX_SATP_ASID_MASK  UINT64_C(0xffff)
#define HX_SATP_PPN_MASK   ((UINT64_C(1) << HX_SATP_ASID_SHIFT) - 1)

static inline uint64_t hx_satp(unsigned levels, uint16_t asid, uint64_t root_pa)
{
	return (uint64_t)(levels + 5) << HX_SATP_MODE_SHIFT | (uint64_t)asid << HX_SATP_ASID_SHIFT |
	       root_pa >> 12;
}

/* Levels of the translation in force; meaningless while there is none. */
static inline unsigned hx_satp_levels(uint64_t satp)
{
	return (unsigned)(satp >> HX_SATP_MODE_SHIFT) - 5;
}

/*
 * sfence.vma orders this hart's earlier stores to page tables before its later
 * walks, and drops
 *   (no operand)  everything
 *   asid          every entry of the address space, GLOBAL ones excepted
 *   va            leaves of this page in every space, GLOBAL ones included
 *   va, asid      leaves of this page in the space, GLOBAL ones excepted
 * Forms with an address leave cached upper-level entries alone.
 */
static inline void hx_sfence_all(void)
{
	__asm__ volatile("sfence.vma zero, zero" : : : "memory");
}

static inline void hx_sfence_asid(uint64_t asid)
{
	__asm__ volatile("sfence.vma zero, %0" : : "r"(asid) : "memory");
}

static inline void hx_sfence_va(uintptr_t va)
{
	__asm__ volatile("sfence.vma %0, zero" : : "r"(va) : "memory");
}

static inline void hx_sfence_va_asid(uintptr_t va, uint64_t asid)
{
	__asm__ volatile("sfence.vma %0, %1" : : "r"(va), "r"(asid) : "memory");
}

#endif
