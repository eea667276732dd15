/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: what the hart's MMU has that no register tells reliably. Each question
 * is put to the MMU itself, under the boot tables.
 */
#include "csr.h"
#include "riscv64.h"

/* How many bits of satp.ASID the hart keeps. */
static uint8_t probe_asid_bits(void)
{
	uint64_t satp = HX_CSR_READ(satp);
	HX_CSR_WRITE(satp, satp | HX_SATP_ASID_MASK << HX_SATP_ASID_SHIFT);
	uint64_t kept = HX_CSR_READ(satp) >> HX_SATP_ASID_SHIFT & HX_SATP_ASID_MASK;
	HX_CSR_WRITE(satp, satp);
	hx_sfence_all(); /* what was fetched under the other identifier */
	uint8_t bits = 0;
	for (; kept & 1; kept >>= 1) {
		bits++;
	}
	return bits;
}

/*
 * Read the word at @va and write it back; false when that trapped. Runs with stvec turned
 * to the instruction behind, so that no handler is needed.
 */
static bool access_survives(uintptr_t va, uint64_t *word)
{
	unsigned long irq = hx_hal_irq_save();
	uint64_t vector, status = HX_CSR_READ(sstatus), done = 0;
	__asm__ volatile("lla	%0, 1f\n\t"
			 "csrrw	%0, stvec, %0\n\t"
			 "ld	%2, 0(%3)\n\t"
			 "sd	%2, 0(%3)\n\t"
			 "li	%1, 1\n\t"
			 ".balign 4\n"
			 "1:\n\t"
			 "csrw	stvec, %0"
			 : "=&r"(vector), "+&r"(done), "=&r"(*word)
			 : "r"(va)
			 : "memory");
	HX_CSR_WRITE(sstatus, status); /* a trap has changed SPP and SPIE */
	hx_hal_irq_restore(irq);
	return done != 0;
}

/*
 * Does a store through a leaf with these attribute bits work? *after: the leaf
 * then. Two empty neighbours in the user half of the root are borrowed: the first
 * for a leaf of the largest size that covers the root itself, the second as the
 * word to store to; it gets what it holds. Where there are no such two the
 * answer is no, which is always safe.
 */
static bool leaf_serves(const struct hx_geometry *g, hx_pte prot, hx_pte *after)
{
	unsigned level = g->levels - 1u;
	uint64_t reach = UINT64_C(1) << (g->va_bits - g->bits[level]);
	uint64_t root = (HX_CSR_READ(satp) & HX_SATP_PPN_MASK) << 12;
	hx_pte *table = (hx_pte *)((uintptr_t)root + hx_hal_direct_offset);
	unsigned last = (1u << (g->bits[level] - 1)) - 1; /* of the user half */
	unsigned i = 0;
	while (i < last && (table[i] != 0 || table[i + 1] != 0)) {
		i++;
	}
	if (i == last) {
		return false;
	}
	hx_hal_pte_store(&table[i],
			 hx_hal_pte_leaf(hx_pa(hx_align_down(root, reach)), prot, level));
	hx_sfence_all();
	uint64_t word = root + (i + 1) * sizeof(hx_pte);
	uint64_t zero;
	bool survived = access_survives((uintptr_t)(i * reach + (word & (reach - 1))), &zero);
	*after = hx_hal_pte_exchange(&table[i], 0);
	hx_sfence_all();
	return survived;
}

/*
 * Does a group serve? The root stands in for the table of every level: its entry i leads
 * back to it, and entry j, which a walk takes for one of level 0, is of the group of the 16
 * frames around it:
 *
 *      va  | i | .. | i | j | word i |      j % 16: that of the root among the 16
 *
 * Through it, word i is the entry i itself. A machine that ignores N would reach frame
 * 8 of the group instead; where the root is that one, another is asked for, and must not
 * be the root. Both entries must be empty before; where they are not the answer is no.
 */
static bool groups_serve(const struct hx_geometry *g)
{
	enum { FRAMES = 1 << HX_RV_GROUP_BITS, IGNORED = HX_RV_NAPOT_64K >> 10 };
	struct hx_pa root = hx_pa((HX_CSR_READ(satp) & HX_SATP_PPN_MASK) << 12);
	unsigned own = hx_pa_to_pfn(root).v % FRAMES, asked = own != IGNORED ? own : 0;
	uintptr_t last = 1u << (g->bits[0] - 1); /* of the user half */
	uintptr_t i = last - FRAMES - 1, j = last - FRAMES + asked;
	uintptr_t va = j << 12 | i * sizeof(hx_pte);
	hx_pte *table = (hx_pte *)((uintptr_t)root.v + hx_hal_direct_offset);
	hx_pte back = hx_hal_pte_table(root);
	const uint64_t flags = HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_NO_EXECUTE |
			       HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	if (table[i] != 0 || table[j] != 0) {
		return false;
	}
	for (unsigned level = 1; level < g->levels; level++) {
		va |= i << (12 + 9 * level);
	}
	hx_pte leaf = hx_hal_pte_leaf(root, hx_hal_pte_prot(flags, 0), 0);
	hx_hal_pte_store(&table[i], back);
	hx_hal_pte_store(&table[j], hx_hal_pte_group(leaf));
	hx_sfence_all();
	uint64_t word;
	bool survived = access_survives(va, &word);
	hx_hal_pte_store(&table[i], 0);
	hx_hal_pte_store(&table[j], 0);
	hx_sfence_all();
	return survived && (word == back) == (asked == own);
}

void hx_riscv64_probe(struct hx_geometry *g)
{
	const uint64_t flags = HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_NO_EXECUTE;
	const uint64_t both = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	unsigned level = g->levels - 1u;
	hx_pte after;
	g->asid_bits = probe_asid_bits();
	/* A leaf with neither mark: the machine sets both, or faults for software to do so. */
	if (!leaf_serves(g, hx_hal_pte_prot(flags, level), &after) ||
	    (hx_hal_pte_flags(after, level) & both) != both) {
		g->features &= ~(uint32_t)HX_MMU_HARDWARE_AD;
	}
	/* PBMT is reserved, and faults, where Svpbmt is absent or firmware keeps it off. */
	if (leaf_serves(g, hx_hal_pte_prot(flags | both, level) | HX_RV_PBMT_NC, &after)) {
		g->features |= HX_MMU_MEMORY_TYPES;
	}
	g->group_bits = groups_serve(g) ? HX_RV_GROUP_BITS : 0;
}
