/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: paging features, page-table root, TLB.
 *
 * Other harts are reached through firmware: SBI RFENCE runs the fence on them
 * without their cooperation, even with their interrupts off. Without RFENCE a
 * software interrupt (SBI IPI) makes each run hx_upcall_tlb_ipi().
 *
 * Source: RISC-V Privileged Architecture 1.12, chapters 4.1.11 (satp), 4.2.1
 * (sfence.vma), 4.3 to 4.5 (Sv39, Sv48, Sv57); SBI 1.0, chapters 7 and 8.
 */
#include "csr.h"
#include "riscv64.h"
#include "sbi.h"

struct hx_geometry hx_hal_geometry;
uintptr_t hx_hal_direct_offset;
uint64_t hx_hal_boot_window_bytes;
uint64_t hx_riscv64_hart_id[HX_CPUS_MAX];
bool hx_riscv64_rfence = true;

enum {
	/* From here on one full flush is taken to be cheaper than single pages. */
	FLUSH_PAGES_MAX = 64,
	/* The same for calls into firmware. */
	BROADCAST_RANGES_MAX = 4,
};

/* ---- mmu_init ---- */

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
 * Store 0 at @va; false when it trapped. Runs with stvec turned to the
 * instruction behind the store, so that no handler is needed.
 */
static bool store_zero_survives(uintptr_t va)
{
	unsigned long irq = hx_hal_irq_save();
	uint64_t vector, status = HX_CSR_READ(sstatus), done = 0;
	__asm__ volatile("lla	%0, 1f\n\t"
			 "csrrw	%0, stvec, %0\n\t"
			 "sd	zero, 0(%2)\n\t"
			 "li	%1, 1\n\t"
			 ".balign 4\n"
			 "1:\n\t"
			 "csrw	stvec, %0"
			 : "=&r"(vector), "+r"(done)
			 : "r"(va)
			 : "memory");
	HX_CSR_WRITE(sstatus, status); /* a trap has changed SPP and SPIE */
	hx_hal_irq_restore(irq);
	return done != 0;
}

/*
 * Does the machine set A and D by itself, or does it fault (Svade) for software
 * to do so? Nothing tells reliably, so store once through a leaf in which both
 * are clear. Two empty neighbours in the user half of the root are borrowed: the
 * first for a leaf of the largest size that covers the root itself, the second
 * as the word to store to; it gets the 0 that it holds. Where there are no such
 * two the answer is no, which is always safe: the mapper then sets both bits.
 */
static bool probe_hardware_ad(const struct hx_geometry *g)
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
	uint64_t flags = HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_NO_EXECUTE;
	hx_hal_pte_store(&table[i], hx_hal_pte_leaf(hx_pa(hx_align_down(root, reach)),
						    hx_hal_pte_prot(flags, level), level));
	hx_sfence_all();
	uint64_t word = root + (i + 1) * sizeof(hx_pte);
	bool survived = store_zero_survives((uintptr_t)(i * reach + (word & (reach - 1))));
	uint64_t after = hx_hal_pte_flags(hx_hal_pte_exchange(&table[i], 0), level);
	hx_sfence_all();
	return survived && (after & HX_PAGE_ACCESSED) && (after & HX_PAGE_DIRTY);
}

void hx_hal_mmu_init(void)
{
	HX_CSR_CLEAR(sstatus, HX_SSTATUS_SUM | HX_SSTATUS_MXR);
	if (hx_hal_geometry.levels != 0) {
		return; /* a secondary hart: the geometry is the boot hart's */
	}
	struct hx_geometry g = hx_pte_geometry(hx_satp_levels(HX_CSR_READ(satp)));
	g.asid_bits = probe_asid_bits();
	if (!probe_hardware_ad(&g)) {
		g.features &= ~(uint32_t)HX_MMU_HARDWARE_AD;
	}
	hx_riscv64_rfence = hx_riscv64_rfence && hx_sbi_has(HX_SBI_RFENCE);
	if (hx_riscv64_rfence) {
		g.features |= HX_MMU_BROADCAST;
	}
	hx_hal_geometry = g;
}

/* ---- Root ---- */

/*
 * GLOBAL entries survive a load without @keep. There are none before the kernel's
 * table is loaded for the first time: boot tables must not have any.
 */
void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	HX_CSR_WRITE(satp, hx_satp(hx_hal_geometry.levels, asid, root.v));
	if (!keep) {
		hx_sfence_asid(asid);
	}
}

/* ---- Own TLB ---- */

static uint64_t stride_of(const struct hx_tlb_range *r)
{
	unsigned shift = hx_hal_geometry.page_shift;
	for (unsigned l = 0; l < r->level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	return UINT64_C(1) << shift;
}

/* Upper-level entries go only with the forms that name no address. */
static bool wants_all(const struct hx_tlb_range *r)
{
	return r->pages == 0 || r->tables || r->pages > FLUSH_PAGES_MAX;
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (ranges[i].global && wants_all(&ranges[i])) {
			hx_sfence_all();
			return;
		}
	}
	for (unsigned i = 0; i < n; i++) {
		const struct hx_tlb_range *r = &ranges[i];
		if (wants_all(r)) {
			hx_sfence_asid(r->asid);
			continue;
		}
		uint64_t stride = stride_of(r);
		for (uint64_t p = 0; p < r->pages; p++) {
			uintptr_t va = r->va.v + (uintptr_t)(p * stride);
			if (r->global) {
				hx_sfence_va(va);
			} else {
				hx_sfence_va_asid(va, r->asid);
			}
		}
	}
}

/* ---- Other harts ---- */

/* Harts as SBI names them: bit i of mask is hart base + i. */
struct hart_group {
	uint64_t mask, base;
};

/* Take the CPUs of one group, around the lowest hart id, out of *cpus. */
static bool next_group(struct hx_cpus *cpus, struct hart_group *g)
{
	*g = (struct hart_group){0, UINT64_MAX};
	for (unsigned cpu = 0; cpu < HX_CPUS_MAX; cpu++) {
		if (hx_cpus_has(*cpus, cpu) && hx_riscv64_hart_id[cpu] < g->base) {
			g->base = hx_riscv64_hart_id[cpu];
		}
	}
	for (unsigned cpu = 0; cpu < HX_CPUS_MAX; cpu++) {
		if (hx_cpus_has(*cpus, cpu) && hx_riscv64_hart_id[cpu] - g->base < 64) {
			g->mask |= UINT64_C(1) << (hx_riscv64_hart_id[cpu] - g->base);
			cpus->bits &= ~hx_cpus_of(cpu).bits;
		}
	}
	return g->mask != 0;
}

static struct hx_cpus others_of(struct hx_cpus cpus)
{
	cpus.bits &= ~hx_cpus_of(hx_hal_cpu_id()).bits;
	return cpus;
}

static bool fence_remotely(const struct hart_group *g, const struct hx_tlb_range *r)
{
	uint64_t start = r->va.v, bytes = 0;
	if (wants_all(r) || __builtin_mul_overflow(r->pages, stride_of(r), &bytes)) {
		start = 0;
		bytes = UINT64_MAX; /* the forms without an address */
	}
	struct hx_sbi_result done;
	if (r->global) {
		done = hx_sbi(HX_SBI_RFENCE, HX_SBI_RFENCE_VMA, g->mask, g->base, start, bytes, 0);
	} else {
		done = hx_sbi(HX_SBI_RFENCE, HX_SBI_RFENCE_VMA_ASID, g->mask, g->base, start, bytes,
			      r->asid);
	}
	return done.error == 0;
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	if (!hx_riscv64_rfence) {
		return false;
	}
	struct hx_tlb_range all = {.global = true};
	if (n > BROADCAST_RANGES_MAX) {
		ranges = &all;
		n = 1;
	}
	/* The other harts' walkers must see the new tables before they fence. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	cpus = others_of(cpus);
	struct hart_group g;
	while (next_group(&cpus, &g)) {
		for (unsigned i = 0; i < n; i++) {
			if (!fence_remotely(&g, &ranges[i])) {
				return false;
			}
		}
	}
	return true;
}

void hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	cpus = others_of(cpus);
	struct hart_group g;
	while (next_group(&cpus, &g)) {
		hx_sbi(HX_SBI_IPI, HX_SBI_IPI_SEND, g.mask, g.base, 0, 0, 0);
	}
}

void hx_riscv64_fence_i(struct hx_cpus cpus)
{
	__asm__ volatile("fence.i" : : : "memory");
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	cpus = others_of(cpus);
	struct hart_group g;
	while (next_group(&cpus, &g)) {
		hx_sbi(HX_SBI_RFENCE, HX_SBI_RFENCE_I, g.mask, g.base, 0, 0, 0);
	}
}
