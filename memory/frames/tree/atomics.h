/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * atomics.h - the words that CPUs share, and every access to them.
 *
 * Orders. Read-modify-writes are sequentially consistent: on most machines that costs
 * nothing on top, and rule 4 of tree.h needs it of a row followed by a state. _load is
 * sequentially consistent as well (a plain load on x86); _peek is relaxed, for what is
 * confirmed by a read-modify-write later, or never wrong.
 *
 * With HX_COUNT_ATOMICS each read-modify-write is counted in hx_frames_atomics.
 */
#ifndef HX_FRAMES_ATOMICS_H
#define HX_FRAMES_ATOMICS_H

#include <hx/units.h>

#ifdef HX_COUNT_ATOMICS
extern uint64_t hx_frames_atomics; /* of this thread alone: for one at a time */
#define HX_COUNT_ATOMIC() (hx_frames_atomics++)
#else
#define HX_COUNT_ATOMIC() ((void)0)
#endif

static HX_ALWAYS_INLINE uint64_t hx_word_load(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static HX_ALWAYS_INLINE uint64_t hx_word_peek(const uint64_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

/* What nobody looks at, or changes, before a later read-modify-write shows it. */
static HX_ALWAYS_INLINE void hx_word_set(uint64_t *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static HX_ALWAYS_INLINE uint64_t hx_word_and(uint64_t *p, uint64_t v)
{
	HX_COUNT_ATOMIC();
	return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);
}

static HX_ALWAYS_INLINE uint64_t hx_word_or(uint64_t *p, uint64_t v)
{
	HX_COUNT_ATOMIC();
	return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);
}

static HX_ALWAYS_INLINE uint64_t hx_word_xor(uint64_t *p, uint64_t v)
{
	HX_COUNT_ATOMIC();
	return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST);
}

static HX_ALWAYS_INLINE uint64_t hx_word_add(uint64_t *p, uint64_t v)
{
	HX_COUNT_ATOMIC();
	return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);
}

static HX_ALWAYS_INLINE uint64_t hx_word_exchange(uint64_t *p, uint64_t v)
{
	HX_COUNT_ATOMIC();
	return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);
}

/* false: *expected holds what stood there. */
static HX_ALWAYS_INLINE bool hx_word_update(uint64_t *p, uint64_t *expected, uint64_t v)
{
	HX_COUNT_ATOMIC();
	return __atomic_compare_exchange_n(p, expected, v, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

#endif
