/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/bits.h - the bit operations of hx/core.h that are worth being inline.
 *
 * A compiler's builtin is used where the target is known to have the instruction for it;
 * elsewhere it would call libgcc, which a kernel does not link.
 */
#ifndef HX_BITS_H
#define HX_BITS_H

#include <hx/units.h>

#if defined(__x86_64__) || defined(__aarch64__) || (defined(__riscv) && defined(__riscv_zbb))
#define HX_HAS_BIT_SCAN 1 /* bsf is in every x86-64, rbit and clz in every Armv8 */
#endif
#if defined(__POPCNT__) || (defined(__riscv) && defined(__riscv_zbb))
#define HX_HAS_BIT_COUNT 1
#endif

/** Index of the lowest set bit of @p v, which must not be 0. */
static HX_ALWAYS_INLINE unsigned hx_bits_ctz(uint64_t v)
{
#ifdef HX_HAS_BIT_SCAN
	return (unsigned)__builtin_ctzll(v);
#else
	/*
	 * De Bruijn: v & -v isolates the lowest bit 2^k; the product shifts a
	 * sequence in which every 6-bit window is different left by k.
	 * Source: Leiserson, Prokop, Randall 1998.
	 */
	static const uint8_t index[64] = {
		0,  1,  2,  53, 3,  7,  54, 27, 4,  38, 41, 8,  34, 55, 48, 28,
		62, 5,  39, 46, 44, 42, 22, 9,  24, 35, 59, 56, 49, 18, 29, 11,
		63, 52, 6,  26, 37, 40, 33, 47, 61, 45, 43, 21, 23, 58, 17, 10,
		51, 25, 36, 32, 60, 20, 57, 16, 50, 31, 19, 15, 30, 14, 13, 12,
	};
	return index[((v & -v) * UINT64_C(0x022fdd63cc95386d)) >> 58];
#endif
}

/** Number of set bits. */
static HX_ALWAYS_INLINE unsigned hx_bits_count(uint64_t v)
{
#ifdef HX_HAS_BIT_COUNT
	return (unsigned)__builtin_popcountll(v);
#else
	/* Sums of neighbours in fields of 2, 4, 8 bits; the product adds the bytes. */
	v -= v >> 1 & UINT64_C(0x5555555555555555);
	v = (v & UINT64_C(0x3333333333333333)) + (v >> 2 & UINT64_C(0x3333333333333333));
	v = (v + (v >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	return (unsigned)((v * UINT64_C(0x0101010101010101)) >> 56);
#endif
}

#endif
