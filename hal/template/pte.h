/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Template: geometry and PTE codec. Pure C, without a privileged instruction: the
 * simulated machine, the tests and the proofs run this very code.
 *
 * Draw the entry here first, most significant bit to the left, as the manual has
 * it. Then say
 *   - how a leaf is told from a table, at each level;
 *   - what a soft entry looks like: not present, its payload in bits that the
 *     machine ignores there, its address bits naming no real memory;
 *   - where flags stand that the machine has no bit for (they must still read
 *     back as they were written).
 */
#ifndef HX_TEMPLATE_PTE_H
#define HX_TEMPLATE_PTE_H

#include <hx/units.h>

/** Where a body that has no way to say "no" ends: it is not written yet. */
_Noreturn void hx_template_missing(const char *function);

/*
 * Levels, bits of each, widths, which levels may hold a leaf, HX_MMU_* features.
 * What only the running machine knows (widths, ASID bits, features) is narrowed
 * by hx_hal_mmu_init(). @levels: as many as the machine or -Dsim_paging chose.
 */
static inline struct hx_geometry hx_pte_geometry(unsigned levels)
{
	(void)levels;
	return (struct hx_geometry){0}; /* 0 levels: not supported */
}

/*
 * HX_PAGE_* to attribute bits. Take care of
 *   - flags with the opposite sense (NO_EXECUTE against an "executable" bit);
 *   - machines on which software must set ACCESSED and DIRTY beforehand;
 *   - a bit that leaves have at level 0 only, or above it only.
 */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level)
{
	(void)flags;
	(void)level;
	hx_template_missing("hx_hal_pte_prot");
}

/* Physical address into its field, attributes from pte_prot beside it. */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_leaf(struct hx_pa pa, hx_pte prot, unsigned level)
{
	(void)pa;
	(void)prot;
	(void)level;
	hx_template_missing("hx_hal_pte_leaf");
}

/* Must grant everything: rights are the leaf's alone. */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_table(struct hx_pa pa)
{
	(void)pa;
	hx_template_missing("hx_hal_pte_table");
}

/*
 * Total: every 64-bit word has a kind at every level, reserved patterns too (they
 * fault, hence SOFT). The word 0 is EMPTY, and nothing else is.
 */
static HX_ALWAYS_INLINE enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level)
{
	(void)level;
	if (e == 0) {
		return HX_PTE_EMPTY;
	}
	hx_template_missing("hx_hal_pte_kind");
}

/* The address of a TABLE or LEAF, without bits that share its field. */
static HX_ALWAYS_INLINE struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level)
{
	(void)e;
	(void)level;
	hx_template_missing("hx_hal_pte_pa");
}

/* Inverse of pte_prot; HX_PAGE_HUGE when level > 0. */
static HX_ALWAYS_INLINE uint64_t hx_hal_pte_flags(hx_pte e, unsigned level)
{
	(void)e;
	(void)level;
	hx_template_missing("hx_hal_pte_flags");
}

/* HX_SOFT_BITS of payload. Store the address part inverted: it lies above all memory then. */
static HX_ALWAYS_INLINE hx_pte hx_hal_pte_soft(uint64_t payload)
{
	(void)payload;
	hx_template_missing("hx_hal_pte_soft");
}

static HX_ALWAYS_INLINE uint64_t hx_hal_pte_payload(hx_pte e)
{
	(void)e;
	hx_template_missing("hx_hal_pte_payload");
}

#endif
