/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Bit operations. Where the target has the instruction the compiler's builtin
 * is one; where it has not, the builtin would call libgcc, which a kernel does
 * not link, so portable forms stand in.
 */
#include <hx/core.h>

#if defined(__x86_64__) || (defined(__riscv) && defined(__riscv_zbb))
#define HAVE_BIT_SCAN 1 /* bsf and bsr are in every x86-64 */
#endif

unsigned hx_ctz64(uint64_t v)
{
#ifdef HAVE_BIT_SCAN
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

unsigned hx_log2_floor(uint64_t v)
{
#ifdef HAVE_BIT_SCAN
	return 63u - (unsigned)__builtin_clzll(v);
#else
	unsigned r = 0;
	for (unsigned step = 32; step > 0; step >>= 1) {
		if (v >> step) {
			v >>= step;
			r += step;
		}
	}
	return r;
#endif
}

unsigned hx_log2_ceil(uint64_t v)
{
	return v <= 1 ? 0 : hx_log2_floor(v - 1) + 1;
}

unsigned hx_popcount64(uint64_t v)
{
	/* Sums of neighbours in fields of 2, 4, 8 bits; the product adds the bytes. */
	v -= v >> 1 & UINT64_C(0x5555555555555555);
	v = (v & UINT64_C(0x3333333333333333)) + (v >> 2 & UINT64_C(0x3333333333333333));
	v = (v + (v >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	return (unsigned)((v * UINT64_C(0x0101010101010101)) >> 56);
}
