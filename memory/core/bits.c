/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Bit operations; those that are worth being inline are in hx/bits.h. */
#include <hx/bits.h>
#include <hx/core.h>

unsigned hx_ctz64(uint64_t v)
{
	return hx_bits_ctz(v);
}

unsigned hx_log2_floor(uint64_t v)
{
#ifdef HX_HAS_BIT_SCAN
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
	return hx_bits_count(v);
}
