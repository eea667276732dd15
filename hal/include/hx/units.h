/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/units.h - the words that the HAL and the memory subsystem share.
 *
 * Physical address, virtual address and frame number are one-field structs, so
 * that the compiler refuses to mix them. The conversions below are the only
 * bridge. Everything here is pure C and costs nothing at run time.
 */
#ifndef HX_UNITS_H
#define HX_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Physical address, in bytes. 64 bits even where a pointer has 32. */
struct hx_pa {
	uint64_t v;
};

/** Virtual address, in bytes. */
struct hx_va {
	uintptr_t v;
};

/** Physical frame number: a physical address divided by HX_FRAME_BYTES. */
struct hx_pfn {
	uint64_t v;
};

/** A set of logical CPUs: bit n stands for CPU n, 0 <= n < HX_CPUS_MAX. */
struct hx_cpus {
	uint64_t bits;
};

enum { HX_CPUS_MAX = 64 };

#define HX_FRAME_SHIFT 12u
#define HX_FRAME_BYTES (UINT64_C(1) << HX_FRAME_SHIFT)

#define HX_KIB(n) ((uint64_t)(n) << 10)
#define HX_MIB(n) ((uint64_t)(n) << 20)
#define HX_GIB(n) ((uint64_t)(n) << 30)
#define HX_TIB(n) ((uint64_t)(n) << 40)

#define HX_NODISCARD __attribute__((warn_unused_result))
#define HX_ALWAYS_INLINE inline __attribute__((always_inline))
#define HX_NOINLINE      __attribute__((noinline))
#define HX_ARRAY_LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static inline struct hx_pa hx_pa(uint64_t v)
{
	return (struct hx_pa){v};
}

static inline struct hx_va hx_va(uintptr_t v)
{
	return (struct hx_va){v};
}

static inline struct hx_pfn hx_pfn(uint64_t v)
{
	return (struct hx_pfn){v};
}

/** Frame that holds physical address @p a (rounds down). */
static inline struct hx_pfn hx_pa_to_pfn(struct hx_pa a)
{
	return hx_pfn(a.v >> HX_FRAME_SHIFT);
}

/** First byte of frame @p f. */
static inline struct hx_pa hx_pfn_to_pa(struct hx_pfn f)
{
	return hx_pa(f.v << HX_FRAME_SHIFT);
}

static inline struct hx_cpus hx_cpus_of(unsigned cpu)
{
	return (struct hx_cpus){UINT64_C(1) << cpu};
}

static inline bool hx_cpus_has(struct hx_cpus set, unsigned cpu)
{
	return (set.bits >> cpu & 1) != 0;
}

/** True when @p v is a multiple of @p alignment, a power of two. */
static inline bool hx_is_aligned(uint64_t v, uint64_t alignment)
{
	return (v & (alignment - 1)) == 0;
}

static inline uint64_t hx_align_down(uint64_t v, uint64_t alignment)
{
	return v & ~(alignment - 1);
}

/**
 * Round @p v up to a multiple of @p alignment, a power of two.
 * @return false when the result does not fit in 64 bits (*out unchanged)
 */
HX_NODISCARD static inline bool hx_align_up(uint64_t v, uint64_t alignment, uint64_t *out)
{
	uint64_t sum;
	if (__builtin_add_overflow(v, alignment - 1, &sum)) {
		return false;
	}
	*out = hx_align_down(sum, alignment);
	return true;
}

#endif
