/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * aarch64 (VMSAv8-64, EL1&0, 4 KiB granule, 48 bits): geometry and PTE codec. Pure C:
 * the simulated machine, the tests and the proofs run this very code.
 *
 *   63..56  55  54  53  52  51  50  49 .. 12  11  10 9..8 7  6  5  4..2    1      0
 *  | soft |  D |UXN|PXN| - |DBM| - | address | nG |AF| SH |RO|EL0|NS|Attr| not  | valid |
 *                                                                        | block|
 *
 * Bit 1 is set in tables and in leaves at level 0, clear in leaves (blocks) above.
 * Address bits 49 and 48 are zero on a machine without LPA2.
 *
 * WRITABLE is DBM; a writable page that is not DIRTY is RO as well, and the machine, where
 * it manages dirty state, clears RO at the first write. A page that is not writable keeps
 * DIRTY in D, which is software's; set by whom it may, D always reads as DIRTY. The kernel never
 * executes USER pages (PXN), user mode never kernel pages (UXN), so NO_EXECUTE is the bit of the
 * page's own mode.
 *
 * Attr[1:0] is the pair of cache flags, the index of one of the memory types in
 * HX_AARCH64_MAIR; Attr[2] selects a copy of the same four.
 *
 * A soft entry is not valid and has bit 1 set, its payload in 49..12 (inverted, so that
 * the address lies above all memory), 63..56 and 54..53; AF and D stay 0.
 */
#ifndef HX_AARCH64_PTE_H
#define HX_AARCH64_PTE_H

#include <hx/units.h>

#define HX_A64_VALID (UINT64_C(1) << 0)
#define HX_A64_NO_BLOCK (UINT64_C(1) << 1)
#define HX_A64_EL0 (UINT64_C(1) << 6)
#define HX_A64_RO (UINT64_C(1) << 7)
#define HX_A64_INNER (UINT64_C(3) << 8) /* shareable among all CPUs */
#define HX_A64_NG (UINT64_C(1) << 11)
#define HX_A64_ADDRESS UINT64_C(0x0003fffffffff000)
#define HX_A64_DBM (UINT64_C(1) << 51)
#define HX_A64_PXN (UINT64_C(1) << 53)
#define HX_A64_UXN (UINT64_C(1) << 54)
#define HX_A64_DIRTY (UINT64_C(1) << 55)

/* Geometry for 4 levels; hx_hal_mmu_init() narrows widths and features. */
static inline struct hx_geometry hx_pte_geometry(unsigned levels)
{
	return (struct hx_geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.va_bits = (uint8_t)(12 + 9 * levels),
		.pa_bits = 48,
		.leaf_levels = 0x7,
		.bits = {9, 9, 9, 9, 9},
		.features = HX_MMU_BREAK_BEFORE_MAKE | HX_MMU_HARDWARE_AD | HX_MMU_BROADCAST |
			    HX_MMU_NO_EXECUTE | HX_MMU_USER_GUARD | HX_MMU_MEMORY_TYPES,
	};
}

/* Flags in the order of the entry's bits; what is one bit in both is moved there. */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level)
{
	bool user = flags & HX_PAGE_USER, data = (flags & HX_PAGE_NO_EXECUTE) != 0;
	hx_pte write = flags & HX_PAGE_WRITABLE ? HX_A64_DBM : 0;
	hx_pte clean = flags & HX_PAGE_DIRTY ? 0 : HX_A64_RO;
	return (flags & HX_PAGE_PRESENT) | (level == 0 ? HX_A64_NO_BLOCK : 0) |
	       (flags & (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)) >> 1 |
	       (flags & HX_PAGE_USER) << 4 | (write ? clean : HX_A64_RO) | HX_A64_INNER |
	       (flags & HX_PAGE_ACCESSED) << 5 | (flags & HX_PAGE_GLOBAL ? 0 : HX_A64_NG) | write |
	       (user || data ? HX_A64_PXN : 0) | (!user || data ? HX_A64_UXN : 0) |
	       (write || clean ? 0 : HX_A64_DIRTY);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_leaf(struct hx_pa pa, hx_pte prot, unsigned level)
{
	(void)level;
	return pa.v | prot;
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_table(struct hx_pa pa)
{
	return pa.v | HX_A64_NO_BLOCK | HX_A64_VALID;
}

/* What the machine refuses is SOFT: bit 1 clear at level 0, or above the levels of blocks. */
static HX_ALWAYS_INLINE enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level)
{
	bool valid = e & HX_A64_VALID, block = !(e & HX_A64_NO_BLOCK);
	bool leaf = valid && (block ? level == 1 || level == 2 : level == 0);
	bool table = valid && !block && !leaf;
	return leaf ? HX_PTE_LEAF : table ? HX_PTE_TABLE : e == 0 ? HX_PTE_EMPTY : HX_PTE_SOFT;
}

static HX_ALWAYS_INLINE struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level)
{
	(void)level;
	return hx_pa(e & HX_A64_ADDRESS);
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_flags(hx_pte e, unsigned level)
{
	hx_pte never = e & HX_A64_EL0 ? HX_A64_UXN : HX_A64_PXN, write = ~e & HX_A64_RO;
	return (e & HX_A64_VALID) | (write || e & HX_A64_DBM ? HX_PAGE_WRITABLE : 0) |
	       (e >> 4 & HX_PAGE_USER) | (e << 1 & (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)) |
	       (e >> 5 & HX_PAGE_ACCESSED) | (write || e & HX_A64_DIRTY ? HX_PAGE_DIRTY : 0) |
	       (level > 0 ? HX_PAGE_HUGE : 0) | (e & HX_A64_NG ? 0 : HX_PAGE_GLOBAL) |
	       (e & never ? HX_PAGE_NO_EXECUTE : 0);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_soft(uint64_t payload)
{
	hx_pte high = (payload >> 40 & 0xff) << 56 | (payload >> 38 & 3) << 53;
	return (~payload << 12 & HX_A64_ADDRESS) | high | HX_A64_NO_BLOCK;
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_payload(hx_pte e)
{
	return (~e & HX_A64_ADDRESS) >> 12 | e >> 56 << 40 | (e >> 53 & 3) << 38;
}

#endif
