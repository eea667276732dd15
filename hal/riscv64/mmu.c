/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: paging features, page-table root, TLB.
 *
 * Other harts are reached through firmware: SBI RFENCE runs the fence on them
 * without their cooperation, even with their interrupts off. Without RFENCE a
 * software interrupt (SBI IPI) makes each run hx_upcall_tlb_ipi().
 *
 * Source: RISC-V Privileged Architecture 1.12, chapters 4.1.11 (satp), 4.2.1
 * (sfence.vma), 4.3 to 4.5 (Sv39, Sv48, Sv57); SBI 1.0, chapter 8.
 */
#include "csr.h"
#include "riscv64.h"
#include "sbi.h"

struct hx_geometry hx_hal_geometry;
uintptr_t hx_hal_direct_offset;
uint64_t hx_hal_boot_window_bytes;

/* Beyond so many pages, forgetting all is taken to be cheaper. */
enum { FLUSH_PAGES_MAX = 64 };

void hx_hal_mmu_init(void)
{
	HX_CSR_CLEAR(sstatus, HX_SSTATUS_SUM | HX_SSTATUS_MXR);
	if (hx_hal_geometry.levels != 0) {
		return; /* a secondary hart: the geometry is the boot hart's */
	}
	struct hx_geometry g = hx_pte_geometry(hx_satp_levels(HX_CSR_READ(satp)));
	hx_riscv64_probe(&g);
	hx_riscv64_rfence = hx_riscv64_rfence && hx_sbi_has(HX_SBI_RFENCE);
	g.features |= hx_riscv64_rfence ? HX_MMU_BROADCAST : 0;
	hx_hal_geometry = g;
}

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

/* Upper-level entries go only with the forms that name no address. */
static bool wants_all(const struct hx_tlb_range *r)
{
	return r->pages == 0 || r->tables || r->pages > FLUSH_PAGES_MAX;
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	for (const struct hx_tlb_range *r = ranges; r < ranges + n; r++) {
		if (wants_all(r)) {
			r->global ? hx_sfence_all() : hx_sfence_asid(r->asid);
			continue;
		}
		for (uint64_t page = 0; page < r->pages; page++) {
			uintptr_t va = r->va.v + (uintptr_t)(page << (12 + 9 * r->level));
			hx_hal_tlb_page(hx_va(va), r->asid, r->global);
		}
	}
}

/* Without an address where all is to go, as above. */
bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	bool done = hx_riscv64_rfence;
	for (const struct hx_tlb_range *r = ranges; done && r < ranges + n; r++) {
		uint64_t bytes = wants_all(r) ? UINT64_MAX : r->pages << (12 + 9 * r->level);
		uint64_t function = r->global ? HX_SBI_RFENCE_VMA : HX_SBI_RFENCE_VMA_ASID;
		done = hx_riscv64_fence(cpus, function, wants_all(r) ? 0 : r->va.v, bytes, r->asid);
	}
	return done;
}
