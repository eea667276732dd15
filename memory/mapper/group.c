/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Groups: neighbouring leaves of level 0 that the machine may cache as one (hx/hal.h).
 *
 *      entries   .. | plain | plain | G  G  G  ..  G  G | plain | ..
 *                                   ^ an aligned array, addresses aligned alike
 *
 * A group says no more than its leaves would one by one: they may be made a group, or
 * plain again, at any time under the stripe's lock, entry by entry and by plain stores. A CPU
 * that reads in between finds the same in either form, and a settled leaf has no mark that
 * such a store could lose.
 *
 * Source: RISC-V Privileged Architecture, Svnapot; the contiguous hint of Arm.
 */
#include "internal.h"

bool hx_group_fits(const hx_pte *first)
{
	const hx_pte like = hx_hal_pte_load(first);
	const uint64_t page = hx_level_bytes(0);
	const struct hx_pa pa = hx_hal_pte_pa(like, 0);
	if (hx_hal_pte_kind(like, 0) != HX_PTE_LEAF || !hx_is_aligned(pa.v, hx_group_leaves() * page) ||
	    !hx_is_settled(hx_hal_pte_flags(like, 0))) {
		return false;
	}
	for (unsigned i = 1; i < hx_group_leaves(); i++) {
		const hx_pte e = hx_hal_pte_load(&first[i]);
		if (hx_attributes_of(e ^ like) != 0 || hx_hal_pte_pa(e, 0).v != pa.v + i * page) {
			return false;
		}
	}
	return true;
}

void hx_group_make(hx_pte *begin, const hx_pte *end)
{
	const unsigned leaves = hx_group_leaves();
	if (leaves == 1) {
		return;
	}
	const uintptr_t in_group = (uintptr_t)begin / sizeof *begin % leaves;
	hx_pte *p = begin + (in_group > 0 ? leaves - in_group : 0);
	for (; end - p >= (ptrdiff_t)leaves; p += leaves) {
		const bool fits = !hx_is_grouped(p) && hx_group_fits(p);
		for (unsigned i = 0; fits && i < leaves; i++) {
			hx_hal_pte_store(&p[i], hx_hal_pte_group(hx_hal_pte_load(&p[i])));
		}
	}
}

void hx_group_break(hx_pte *p)
{
	if (!hx_is_grouped(p)) {
		return;
	}
	hx_pte *first = p - (uintptr_t)p / sizeof *p % hx_group_leaves();
	for (unsigned i = 0; i < hx_group_leaves(); i++) {
		hx_hal_pte_store(&first[i], hx_hal_pte_load(&first[i]));
	}
}
