/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * x86_64: geometry and PTE codec. Pure C: the simulated machine, the tests and
 * the proofs run this very code.
 *
 *   63  62..59  58..52  51 .. 12 or more        11..9   8  7  6  5  4   3   2  1  0
 *  | NX | pkey | avail | physical address      | avail | G PS D  A PCD PWT U/S W  P |
 *
 * The contract's flag word has NX, G, D, A, PCD, PWT, U/S, W and P at the same
 * positions, and HUGE at that of PS, which leaves above level 0 have set. The memory
 * type is the number PCD:PWT (PAT, see cpu.h). Upper levels grant everything (W, U/S):
 * the leaf alone decides. A soft entry has P = 0 and bit 9 = 1, its payload in
 * 51..12 (inverted, so that the address lies above all memory) and 59..52; bits
 * 5 and 6 stay 0, some parts set them even in entries that are not present.
 */
#ifndef HX_X86_64_PTE_H
#define HX_X86_64_PTE_H

#include <hx/units.h>

#define HX_X86_P (UINT64_C(1) << 0)
#define HX_X86_A (UINT64_C(1) << 5)
#define HX_X86_PS (UINT64_C(1) << 7)
#define HX_X86_SOFT (UINT64_C(1) << 9)
#define HX_X86_ADDRESS UINT64_C(0x000ffffffffff000)
#define HX_X86_TABLE UINT64_C(0x007)               /* U/S W P */
#define HX_X86_SHARED UINT64_C(0x800000000000017f) /* what the flag word has, too */

/* Geometry for 4 or 5 levels; leaf_levels, pa_bits and features are narrowed by CPUID. */
static inline struct hx_geometry hx_pte_geometry(unsigned levels)
{
	return (struct hx_geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.va_bits = (uint8_t)(12 + 9 * levels),
		.pa_bits = 52,
		.leaf_levels = 0x7,
		.bits = {9, 9, 9, 9, 9},
		.features = HX_MMU_HARDWARE_AD | HX_MMU_NO_EXECUTE | HX_MMU_USER_GUARD |
			    HX_MMU_MEMORY_TYPES,
	};
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level)
{
	return (flags & HX_X86_SHARED) | (level > 0 ? HX_X86_PS : 0);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_leaf(struct hx_pa pa, hx_pte prot, unsigned level)
{
	(void)level;
	return pa.v | prot;
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_table(struct hx_pa pa)
{
	return pa.v | HX_X86_TABLE;
}

static HX_ALWAYS_INLINE enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level)
{
	if (!(e & HX_X86_P)) {
		return e == 0 ? HX_PTE_EMPTY : HX_PTE_SOFT;
	}
	bool table = level > 0 && !(e & HX_X86_PS), leaf = level <= 2; /* above, PS is reserved */
	return table ? HX_PTE_TABLE : leaf ? HX_PTE_LEAF : HX_PTE_SOFT;
}

static HX_ALWAYS_INLINE struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level)
{
	/* Bit 12 of a huge leaf is PAT, not address. */
	uint64_t pat = level > 0 && (e & HX_X86_PS) ? UINT64_C(1) << 12 : 0;
	return hx_pa(e & HX_X86_ADDRESS & ~pat);
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_flags(hx_pte e, unsigned level)
{
	return (e & HX_X86_SHARED) | (level > 0 ? HX_PAGE_HUGE : 0);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_soft(uint64_t payload)
{
	return (~payload << 12 & HX_X86_ADDRESS) | (payload >> 40 & 0xff) << 52 | HX_X86_SOFT;
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_payload(hx_pte e)
{
	return (~e & HX_X86_ADDRESS) >> 12 | (e >> 52 & 0xff) << 40;
}

#endif
