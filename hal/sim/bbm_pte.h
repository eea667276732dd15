/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * bbm: geometry and PTE codec of a machine that does not exist, for
 * -Dsim_paging=bbm. It has what is awkward for portable code and what the real
 * ports of this tree lack or do not combine: a valid entry must be invalidated
 * before another valid one replaces it, absence may be cached, no bit is set by
 * hardware, levels differ in size, rights are partly stored as refusals, a page
 * and a huge leaf differ in their kind bits, identifiers are few.
 *
 *    63  62  61..60  59..56   55 .. 12           11  10  9   8   7    6   5  4..2  1..0
 *   | NX | 0 | TYPE | soft   | physical address | 0 | S | G | U | RO | D | A |  0  | KIND |
 *
 * KIND is 0 in what is not valid, 1 in a leaf above level 0, 3 in a table and, at
 * level 0, in a page. TYPE is an index of four memory types. S marks a soft entry,
 * whose payload is in 55..12 (inverted, so that the address lies above all memory)
 * and 59..56.
 *
 *   va  | sign | 6 bits | 8 bits | 9 bits | 9 bits | 12 bits |     44 in all
 */
#ifndef HX_SIM_BBM_PTE_H
#define HX_SIM_BBM_PTE_H

#include <hx/units.h>

#define HX_BBM_KIND (UINT64_C(3) << 0)
#define HX_BBM_HUGE UINT64_C(1) /* KIND */
#define HX_BBM_NEXT UINT64_C(3) /* KIND: a table, or a page */
#define HX_BBM_A (UINT64_C(1) << 5)
#define HX_BBM_D (UINT64_C(1) << 6)
#define HX_BBM_RO (UINT64_C(1) << 7)
#define HX_BBM_U (UINT64_C(1) << 8)
#define HX_BBM_G (UINT64_C(1) << 9)
#define HX_BBM_SOFT (UINT64_C(1) << 10)
#define HX_BBM_NX (UINT64_C(1) << 63)
#define HX_BBM_ADDRESS UINT64_C(0x00fffffffffff000)

static inline struct hx_geometry hx_pte_geometry(unsigned levels)
{
	return (struct hx_geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.va_bits = 12 + 9 + 9 + 8 + 6,
		.pa_bits = 46,
		.asid_bits = 0,
		.leaf_levels = 0x7,
		.bits = {9, 9, 8, 6},
		.features = HX_MMU_BREAK_BEFORE_MAKE | HX_MMU_NEGATIVE_CACHING | HX_MMU_NO_EXECUTE |
			    HX_MMU_USER_GUARD,
	};
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level)
{
	hx_pte kind = level == 0 ? HX_BBM_NEXT : HX_BBM_HUGE;
	return (flags & HX_PAGE_PRESENT ? kind : 0) | (flags & HX_PAGE_WRITABLE ? 0 : HX_BBM_RO) |
	       (flags & HX_PAGE_USER ? HX_BBM_U : 0) | (flags & HX_PAGE_GLOBAL ? HX_BBM_G : 0) |
	       (flags & HX_PAGE_ACCESSED ? HX_BBM_A : 0) | (flags & HX_PAGE_DIRTY ? HX_BBM_D : 0) |
	       (flags & HX_PAGE_WRITE_THROUGH ? UINT64_C(1) << 60 : 0) |
	       (flags & HX_PAGE_NO_CACHE ? UINT64_C(2) << 60 : 0) | (flags & HX_PAGE_NO_EXECUTE);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_leaf(struct hx_pa pa, hx_pte prot, unsigned level)
{
	(void)level;
	return pa.v | prot;
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_table(struct hx_pa pa)
{
	return pa.v | HX_BBM_NEXT;
}

static HX_ALWAYS_INLINE enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level)
{
	switch (e & HX_BBM_KIND) {
	case HX_BBM_NEXT:
		return level == 0 ? HX_PTE_LEAF : HX_PTE_TABLE;
	case HX_BBM_HUGE:
		return level == 1 || level == 2 ? HX_PTE_LEAF : HX_PTE_SOFT; /* reserved: faults */
	default:
		return e == 0 ? HX_PTE_EMPTY : HX_PTE_SOFT;
	}
}

static HX_ALWAYS_INLINE struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level)
{
	(void)level;
	return hx_pa(e & HX_BBM_ADDRESS);
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_flags(hx_pte e, unsigned level)
{
	return (e & HX_BBM_KIND ? HX_PAGE_PRESENT : 0) | (e & HX_BBM_RO ? 0 : HX_PAGE_WRITABLE) |
	       (e & HX_BBM_U ? HX_PAGE_USER : 0) | (e & HX_BBM_G ? HX_PAGE_GLOBAL : 0) |
	       (e & HX_BBM_A ? HX_PAGE_ACCESSED : 0) | (e & HX_BBM_D ? HX_PAGE_DIRTY : 0) |
	       (e & UINT64_C(1) << 60 ? HX_PAGE_WRITE_THROUGH : 0) |
	       (e & UINT64_C(2) << 60 ? HX_PAGE_NO_CACHE : 0) | (level > 0 ? HX_PAGE_HUGE : 0) |
	       (e & HX_PAGE_NO_EXECUTE);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_soft(uint64_t payload)
{
	return (~payload << 12 & HX_BBM_ADDRESS) | (payload >> 44 & 0xf) << 56 | HX_BBM_SOFT;
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_payload(hx_pte e)
{
	return (~e & HX_BBM_ADDRESS) >> 12 | (e >> 56 & 0xf) << 44;
}

#endif
