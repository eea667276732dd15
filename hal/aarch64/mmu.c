/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * aarch64: paging features, page-table roots, TLB.
 *
 * Other CPUs need no interrupt: the machine broadcasts TLB maintenance within the
 * inner-shareable domain, and DSB waits until all have done it.
 *
 * Source: Arm Architecture Reference Manual for A-profile, chapter D8 (VMSAv8-64: D8.14
 * break-before-make, D8.15 TLB maintenance) and the register descriptions of D17.
 */
#include "aarch64.h"
#include "sysreg.h"

struct hx_geometry hx_hal_geometry;

enum { FLUSH_PAGES_MAX = 512 }; /* beyond so many pages one flush of everything costs less */

#define TCR_AS (UINT64_C(1) << 36)    /* 16 bits of ASID */
#define TCR_HA_HD (UINT64_C(3) << 39) /* the machine sets AF, and clears RO where DBM says so */

void hx_hal_mmu_init(void)
{
	if (hx_hal_geometry.levels == 0) {
		hx_hal_geometry = hx_pte_geometry(4);
		hx_aarch64_probe(&hx_hal_geometry);
	}
	uint64_t tcr = HX_SYS_READ(tcr_el1);
	tcr |= hx_hal_geometry.asid_bits == 16 ? TCR_AS : 0;
	tcr |= hx_hal_geometry.features & HX_MMU_HARDWARE_AD ? TCR_HA_HD : 0;
	HX_SYS_WRITE(tcr_el1, tcr);
	/* These bits may be cached with translations. */
	hx_hal_tlb_local(&(struct hx_tlb_range){.global = true}, 1);
	hx_hal_user_access(false);
}

/*
 * The user half changes root and identifier with one store. The kernel half changes
 * behind it, between two roots that show the same there.
 */
void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	HX_DSB(ishst); /* the walkers see what is stored in the new tables */
	HX_SYS_WRITE(ttbr0_el1, root.v | (uint64_t)asid << 48);
	HX_SYS_WRITE(ttbr1_el1, root.v + HX_AARCH64_ROOT_HALF);
	HX_ISB();
	if (!keep) {
		hx_hal_tlb_local(&(struct hx_tlb_range){.asid = asid}, 1);
	}
}

/*
 * Operand by address: | ASID 63..48 | 0 | address bits 55..12 |. The forms with an L drop
 * leaves alone, the others what is cached of tables on the way there, too; the forms with AA
 * regard no ASID. All of them drop GLOBAL entries of the address.
 */
static void forget(bool all, const struct hx_tlb_range *r)
{
	uint64_t asid = (uint64_t)r->asid << 48;
	if (r->pages == 0 || r->pages > FLUSH_PAGES_MAX) {
		r->global ? HX_TLBI_ALL(all) : HX_TLBI(all, aside1, asid);
		return;
	}
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t va = r->va.v + (page << (12 + 9 * r->level)), what = asid | va << 8 >> 20;
		if (r->global) {
			r->tables ? HX_TLBI(all, vaae1, what) : HX_TLBI(all, vaale1, what);
		} else {
			r->tables ? HX_TLBI(all, vae1, what) : HX_TLBI(all, vale1, what);
		}
	}
}

/* Stores to tables come first; what is done is done everywhere on return. */
static void forget_ranges(bool all, const struct hx_tlb_range *ranges, unsigned n)
{
	all ? HX_DSB(ishst) : HX_DSB(nshst);
	for (unsigned i = 0; i < n; i++) {
		forget(all, &ranges[i]);
	}
	all ? HX_DSB(ish) : HX_DSB(nsh);
	HX_ISB();
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	forget_ranges(false, ranges, n);
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	(void)cpus; /* the machine reaches all of them */
	if (hx_aarch64_broadcast) {
		forget_ranges(true, ranges, n);
	}
	return hx_aarch64_broadcast;
}
