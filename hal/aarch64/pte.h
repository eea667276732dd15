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
 * DIRTY in D, which is software's; set by whom it may, D always reads as DIRTY. The kernel never executes USER pages (PXN),
 * user mode never kernel pages (UXN), so NO_EXECUTE is the bit of the page's own mode.
 *
 * Attr[1:0] is the pair of cache flags, the index of one of the memory types in
 * HX_AARCH64_MAIR; Attr[2] selects a copy of the same four.
 *
 * A soft entry is not valid and has bit 1 set, its payload in 49..12 (inverted, so that
 * the address lies above all memory) and 62..53.
 */
#ifndef HX_AARCH64_PTE_H
#define HX_AARCH64_PTE_H

#include <hx/units.h>

#define HX_A64_VALID    (UINT64_C(1) << 0)
#define HX_A64_NO_BLOCK (UINT64_C(1) << 1)
#define HX_A64_SOFT     (UINT64_C(1) << 1) /* of an entry that is not valid */
#define HX_A64_ATTR     (UINT64_C(3) << 2)
#define HX_A64_EL0      (UINT64_C(1) << 6)
#define HX_A64_RO       (UINT64_C(1) << 7)
#define HX_A64_INNER    (UINT64_C(3) << 8) /* shareable among all CPUs */
#define HX_A64_AF       (UINT64_C(1) << 10)
#define HX_A64_NG       (UINT64_C(1) << 11)
#define HX_A64_ADDRESS  UINT64_C(0x0003fffffffff000)
#define HX_A64_DBM      (UINT64_C(1) << 51)
#define HX_A64_PXN      (UINT64_C(1) << 53)
#define HX_A64_UXN      (UINT64_C(1) << 54)
#define HX_A64_DIRTY    (UINT64_C(1) << 55)

/* Geometry for 4 levels; widths and features are completed by hx_hal_mmu_init(). */
static inline struct hx_geometry hx_pte_geometry(unsigned levels)
{
	return (struct hx_geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.va_bits = (uint8_t)(12 + 9 * levels),
		.pa_bits = 48,
		.asid_bits = 0,
		.leaf_levels = 0x7,
		.bits = {9, 9, 9, 9, 9},
		.features = HX_MMU_BREAK_BEFORE_MAKE | HX_MMU_BROADCAST | HX_MMU_NO_EXECUTE |
			    HX_MMU_MEMORY_TYPES,
	};
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level)
{
	bool writable = (flags & HX_PAGE_WRITABLE) != 0, dirty = (flags & HX_PAGE_DIRTY) != 0;
	bool user = (flags & HX_PAGE_USER) != 0, data = (flags & HX_PAGE_NO_EXECUTE) != 0;
	return HX_A64_INNER | (flags & HX_PAGE_PRESENT ? HX_A64_VALID : 0) |
	       (level == 0 ? HX_A64_NO_BLOCK : 0) |
	       (flags & (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)) >> 1 |
	       (user ? HX_A64_EL0 : 0) | (writable ? HX_A64_DBM : 0) |
	       (writable && dirty ? 0 : HX_A64_RO) | (dirty && !writable ? HX_A64_DIRTY : 0) |
	       (flags & HX_PAGE_ACCESSED ? HX_A64_AF : 0) |
	       (flags & HX_PAGE_GLOBAL ? 0 : HX_A64_NG) | (user || data ? HX_A64_PXN : 0) |
	       (!user || data ? HX_A64_UXN : 0);
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

static HX_ALWAYS_INLINE enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level)
{
	if (!(e & HX_A64_VALID)) {
		return e == 0 ? HX_PTE_EMPTY : HX_PTE_SOFT;
	}
	if (level == 0) {
		return e & HX_A64_NO_BLOCK ? HX_PTE_LEAF : HX_PTE_SOFT; /* reserved: faults */
	}
	if (e & HX_A64_NO_BLOCK) {
		return HX_PTE_TABLE;
	}
	return level <= 2 ? HX_PTE_LEAF : HX_PTE_SOFT; /* no block there: faults */
}

static HX_ALWAYS_INLINE struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level)
{
	(void)level;
	return hx_pa(e & HX_A64_ADDRESS);
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_flags(hx_pte e, unsigned level)
{
	bool read_only = (e & HX_A64_RO) != 0;
	uint64_t never = e & HX_A64_EL0 ? HX_A64_UXN : HX_A64_PXN;
	return (e & HX_A64_VALID ? HX_PAGE_PRESENT : 0) |
	       (e & HX_A64_DBM || !read_only ? HX_PAGE_WRITABLE : 0) |
	       (e & HX_A64_DIRTY || !read_only ? HX_PAGE_DIRTY : 0) |
	       (e & HX_A64_EL0 ? HX_PAGE_USER : 0) | (e & HX_A64_ATTR) << 1 |
	       (e & HX_A64_AF ? HX_PAGE_ACCESSED : 0) | (e & HX_A64_NG ? 0 : HX_PAGE_GLOBAL) |
	       (e & never ? HX_PAGE_NO_EXECUTE : 0) | (level > 0 ? HX_PAGE_HUGE : 0);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_soft(uint64_t payload)
{
	return (~payload << 12 & HX_A64_ADDRESS) | (payload >> 38 & 0x3ff) << 53 | HX_A64_SOFT;
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_payload(hx_pte e)
{
	return (~e & HX_A64_ADDRESS) >> 12 | (e >> 53 & 0x3ff) << 38;
}

#endif
