/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/pte_access.h - PTE loads and stores for ports whose entries are 64-bit
 * words that the compiler's atomics reach: every port so far. A port's hx_port.h
 * includes it behind its codec, or supplies its own: all, or (HX_PTE_LOADS_ONLY) the
 * stores. A codec that has no groups says nothing of them.
 */
#ifndef HX_PTE_ACCESS_H
#define HX_PTE_ACCESS_H

#ifndef hx_hal_pte_group
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_group(hx_pte e)
{
	return e;
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_plain(hx_pte e, const hx_pte *p)
{
	(void)p;
	return e;
}
#endif

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_raw(const hx_pte *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_load(const hx_pte *p)
{
	return hx_hal_pte_plain(hx_hal_pte_raw(p), p);
}

#ifndef HX_PTE_LOADS_ONLY
static HX_ALWAYS_INLINE void hx_hal_pte_store(hx_pte *p, hx_pte e)
{
	__atomic_store_n(p, e, __ATOMIC_RELEASE);
}

static HX_ALWAYS_INLINE hx_pte hx_hal_pte_exchange(hx_pte *p, hx_pte e)
{
	return __atomic_exchange_n(p, e, __ATOMIC_ACQ_REL);
}

HX_NODISCARD static HX_ALWAYS_INLINE bool hx_hal_pte_update(hx_pte *p, hx_pte *expected,
							    hx_pte desired)
{
	return __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}
#endif

#endif
