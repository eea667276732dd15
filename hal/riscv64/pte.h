/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64 (Sv39, Sv48, Sv57): geometry and PTE codec. Pure C: the simulated
 * machine, the tests and the proofs run this very code.
 *
 *    63  62..61  60..54  53 .. 10   9..8   7 6 5 4 3 2 1 0
 *   | N | PBMT | reserved |  PPN  |  RSW | D A G U X W R V |
 *
 * V with R = W = X = 0 names a table; W without R is reserved. RSW keeps the two cache
 * flags, so that a mapping reads back as it was written even where Svpbmt is absent and the
 * machine's own attributes decide. Where it is present (HX_MMU_MEMORY_TYPES) PBMT says
 *
 *      0  as the machine has it: write-back memory; WRITE_THROUGH
 *      1  NC, normal memory that is not cached: WRITE_THROUGH and NO_CACHE
 *      2  IO, strongly ordered: NO_CACHE
 *      3  reserved; where Svpbmt is absent 1 and 2 are, too
 *
 * N is the sign of a group (Svnapot; group_bits says whether the machine has it): 16
 * neighbouring entries of level 0 that all hold the same value. A walk puts the low bits
 * of the page number into PPN[3:0], and may cache the other 15 leaves as well.
 *
 *      63   62 .. 54   53 .. 14   13 .. 10   9 .. 0
 *   |  1  |  PBMT 0  | PPN[43:4] |   1000   | as ever |     in a group
 *   |  0  |  PBMT 0  | PPN[43:4] |   index  | as ever |     the same leaf, plain
 *
 * N with anything else is reserved.
 *
 * A soft entry has V = 0 and bit 8 = 1, its payload in 53..10 (inverted, so that
 * the PPN lies above all memory) and 57..54.
 */
#ifndef HX_RISCV64_PTE_H
#define HX_RISCV64_PTE_H

#include <hx/units.h>

#define HX_RV_V (UINT64_C(1) << 0)
#define HX_RV_R (UINT64_C(1) << 1)
#define HX_RV_W (UINT64_C(1) << 2)
#define HX_RV_X (UINT64_C(1) << 3)
#define HX_RV_SOFT (UINT64_C(1) << 8)
#define HX_RV_PPN UINT64_C(0x003ffffffffffc00)
#define HX_RV_PBMT_NC (UINT64_C(1) << 61)
#define HX_RV_PBMT_IO (UINT64_C(1) << 62)
#define HX_RV_N (UINT64_C(1) << 63)
#define HX_RV_NAPOT UINT64_C(0x3c00)                         /* PPN[3:0] */
#define HX_RV_NAPOT_64K UINT64_C(0x2000)                     /* 1000b there */
#define HX_RV_RESERVED UINT64_C(0x9fc0000000000000)          /* N, 60..54 */
#define HX_RV_LEAF_ONLY (UINT64_C(0xd0) | UINT64_C(3) << 61) /* PBMT D A U */

enum { HX_RV_GROUP_BITS = 4 };

/* Geometry for Sv39, Sv48 or Sv57: 3, 4 or 5 levels. */
static inline struct hx_geometry hx_pte_geometry(unsigned levels)
{
	return (struct hx_geometry){
		.levels = (uint8_t)levels,
		.page_shift = 12,
		.va_bits = (uint8_t)(12 + 9 * levels),
		.pa_bits = 56,
		.leaf_levels = (uint8_t)((1u << levels) - 1),
		.bits = {9, 9, 9, 9, 9},
		.features = HX_MMU_NEGATIVE_CACHING | HX_MMU_HARDWARE_AD | HX_MMU_NO_EXECUTE |
			    HX_MMU_USER_GUARD,
	};
}

/* Flags that stand in the entry as they do in the flag word are moved together. */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level)
{
	bool typed = (flags & HX_PAGE_NO_CACHE) && (hx_hal_geometry.features & HX_MMU_MEMORY_TYPES);
	hx_pte pbmt = !typed ? 0 : flags & HX_PAGE_WRITE_THROUGH ? HX_RV_PBMT_NC : HX_RV_PBMT_IO;
	(void)level;
	return pbmt | HX_RV_R | (flags & HX_PAGE_PRESENT) | (flags & HX_PAGE_USER) << 2 |
	       (flags & (HX_PAGE_WRITABLE | HX_PAGE_ACCESSED | HX_PAGE_DIRTY)) << 1 |
	       (flags & (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)) << 5 |
	       (flags & HX_PAGE_GLOBAL) >> 3 | (flags & HX_PAGE_NO_EXECUTE ? 0 : HX_RV_X);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_leaf(struct hx_pa pa, hx_pte prot, unsigned level)
{
	(void)level;
	return pa.v >> 2 | prot;
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_table(struct hx_pa pa)
{
	return pa.v >> 2 | HX_RV_V;
}

/* What the machine would refuse is SOFT: what is reserved, W without R, a pointer at level 0. */
static HX_ALWAYS_INLINE enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level)
{
	bool leaf = e & (HX_RV_R | HX_RV_W | HX_RV_X);
	hx_pte types = hx_hal_geometry.features & HX_MMU_MEMORY_TYPES ? HX_RV_PBMT_IO : 0;
	if ((e & (HX_RV_V | HX_RV_RESERVED)) != HX_RV_V || (e & (HX_RV_R | HX_RV_W)) == HX_RV_W ||
	    (e >> 61 != 0 && (e & (HX_RV_PBMT_NC | HX_RV_PBMT_IO)) > types)) {
		return e == 0 ? HX_PTE_EMPTY : HX_PTE_SOFT;
	}
	bool table = !leaf && level > 0 && !(e & HX_RV_LEAF_ONLY);
	return leaf ? HX_PTE_LEAF : table ? HX_PTE_TABLE : HX_PTE_SOFT;
}

static HX_ALWAYS_INLINE struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level)
{
	(void)level;
	return hx_pa((e & HX_RV_PPN) << 2);
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_flags(hx_pte e, unsigned level)
{
	return (e & HX_RV_V) | (e >> 2 & HX_PAGE_USER) |
	       (e >> 1 & (HX_PAGE_WRITABLE | HX_PAGE_ACCESSED | HX_PAGE_DIRTY)) |
	       (e >> 5 & (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)) | (e << 3 & HX_PAGE_GLOBAL) |
	       (e & HX_RV_X ? 0 : HX_PAGE_NO_EXECUTE) | (level > 0 ? HX_PAGE_HUGE : 0);
}

#define hx_hal_pte_group(e) (((e) & ~HX_RV_NAPOT) | HX_RV_NAPOT_64K | HX_RV_N)

/* Tables are aligned, so that the index in the group stands in the pointer. */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_plain(hx_pte e, const hx_pte *p)
{
	if (__builtin_expect(!(e & HX_RV_N), 1) || hx_hal_geometry.group_bits == 0 ||
	    (e & (HX_RV_NAPOT | HX_RV_V)) != (HX_RV_NAPOT_64K | HX_RV_V)) {
		return e;
	}
	return (e & ~(HX_RV_N | HX_RV_NAPOT)) | ((uintptr_t)p << 7 & HX_RV_NAPOT);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_soft(uint64_t payload)
{
	return (~payload << 10 & HX_RV_PPN) | (payload >> 44 & 0xf) << 54 | HX_RV_SOFT;
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_payload(hx_pte e)
{
	return (~e & HX_RV_PPN) >> 10 | (e >> 54 & 0xf) << 44;
}

#endif
