/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Groups: neighbouring leaves of level 0 that the machine may cache as one (hx/hal.h).
 *
 *      entries   .. | plain | plain | G   G   G  ..  G   G | plain | ..
 *                                   ^ an aligned array; its frames are aligned alike
 *
 * A group stands in a table whole, and its leaves are settled. It says no more than they
 * would one by one, so under the stripe's lock it may be made, and made plain again, at any
 * time, entry by entry and by plain stores: who reads in between finds the same in either
 * form, nothing is to be flushed, and no mark can be lost.
 *
 * Who changes a leaf makes its group plain before. Until the change is flushed a CPU may
 * still come upon the group (it has not seen the stores yet) or have it cached, and use
 * what that says of the leaf; as it might use the leaf itself, had it cached that. The
 * flush comes after all of the stores, so from then on nothing says it any more. Where
 * none follows, because rights were only given, the CPU knows too few and faults once.
 *
 * Source: RISC-V Privileged Architecture, Svnapot, where a walk may cache all that a group's
 * entry says; the contiguous hint of Arm.
 */
#include "internal.h"

static unsigned index_in_group(const hx_pte *p)
{
	return (unsigned)((uintptr_t)p / sizeof *p % hx_group_leaves());
}

/* Do the leaves from @first on, an aligned array of them, make a group? */
static bool fits(const hx_pte *first)
{
	const hx_pte like = hx_hal_pte_load(first);
	const uint64_t page = hx_level_bytes(0);
	const struct hx_pa pa = hx_hal_pte_pa(like, 0);
	if (hx_hal_pte_kind(like, 0) != HX_PTE_LEAF ||
	    !hx_is_aligned(pa.v, hx_group_leaves() * page) ||
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

bool hx_group_is_sound(const hx_pte *p, unsigned level)
{
	if (!hx_is_grouped(p)) {
		return true;
	}
	const hx_pte *first = p - index_in_group(p);
	unsigned found = 0;
	for (unsigned i = 0; i < hx_group_leaves(); i++) {
		found += hx_is_grouped(&first[i]);
	}
	return level == 0 && found == hx_group_leaves() && fits(first);
}

void hx_group_make(hx_pte *begin, const hx_pte *end)
{
	const unsigned leaves = hx_group_leaves();
	if (leaves == 1) {
		return;
	}
	hx_pte *p = begin + (leaves - index_in_group(begin)) % leaves;
	for (; end - p >= (ptrdiff_t)leaves; p += leaves) {
		const bool make = !hx_is_grouped(p) && fits(p);
		for (unsigned i = 0; make && i < leaves; i++) {
			hx_hal_pte_store(&p[i], hx_hal_pte_group(hx_hal_pte_load(&p[i])));
		}
	}
}

void hx_group_break(hx_pte *begin, const hx_pte *end)
{
	const unsigned leaves = hx_group_leaves();
	if (leaves == 1) {
		return;
	}
	const uint64_t page = hx_level_bytes(0);
	for (hx_pte *p = begin - index_in_group(begin); p < end; p += leaves) {
		if (!hx_is_grouped(p)) {
			continue;
		}
		const hx_pte first = hx_hal_pte_load(p), attributes = hx_attributes_of(first);
		uint64_t pa = hx_hal_pte_pa(first, 0).v;
		for (unsigned i = 0; i < leaves; i++, pa += page) {
			hx_hal_pte_store(&p[i], hx_hal_pte_leaf(hx_pa(pa), attributes, 0));
		}
	}
}
