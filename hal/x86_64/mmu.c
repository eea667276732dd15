/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * x86_64: paging features, page-table root, TLB.
 *
 * An address-space identifier is a process-context identifier, where the CPU has
 * them:
 *
 *      63     62..52   51 .. 12    11..0
 *   | keep | reserved |  root   | identifier |   CR3, with CR4.PCIDE
 *
 * What forgets what (Intel SDM 3A, 4.10.4.1), "upper" being cached upper-level
 * entries, which belong to one identifier each and are never GLOBAL:
 *
 *      INVLPG           one address: the identifier in force and GLOBAL; all its upper
 *      CR3, keep clear  the identifier, upper too; GLOBAL stays
 *      INVPCID type 2   everything; where it is absent, a change of CR4.PGE
 *
 * So tables that leave the kernel half, which every identifier shows, take all of
 * it: others may have cached their way there.
 */
#include "cpu.h"
#include "hx_x86.h"

struct hx_geometry hx_hal_geometry;
uintptr_t hx_hal_direct_offset = 0xffff800000000000;
uint64_t hx_hal_boot_window_bytes = HX_GIB(4);
bool hx_x86_smap;
static bool has_invpcid;

/* What this CPU has of the features that CR4 turns on. */
static uint64_t cr4_features(void)
{
	struct hx_x86_cpuid basic = hx_x86_cpuid_if_any(1), extended = hx_x86_cpuid_if_any(7);
	return (basic.edx >> 13 & 1 ? HX_X86_CR4_PGE : 0) |
	       (basic.ecx >> 17 & 1 ? HX_X86_CR4_PCIDE : 0) |
	       (extended.ebx >> 7 & 1 ? HX_X86_CR4_SMEP : 0) |
	       (extended.ebx >> 20 & 1 ? HX_X86_CR4_SMAP : 0);
}

static void fill_geometry(uint64_t cr4)
{
	struct hx_geometry g = hx_pte_geometry(cr4 & HX_X86_CR4_LA57 ? 5 : 4);
	bool gib_pages = hx_x86_cpuid_if_any(0x80000001).edx >> 26 & 1;
	g.pa_bits = hx_x86_cpuid_if_any(0x80000008).eax & 0xff; /* 52 at most, by architecture */
	g.leaf_levels = gib_pages ? 0x7 : 0x3;
	g.asid_bits = cr4 & HX_X86_CR4_PCIDE ? 12 : 0;
	g.features &= ~cr4 & (HX_X86_CR4_SMEP | HX_X86_CR4_SMAP) ? ~HX_MMU_USER_GUARD : ~0u;
	hx_hal_geometry = g;
}

/* The boot code has left the identifier in CR3 0, else PCIDE could not be set. */
void hx_hal_mmu_init(void)
{
	uint64_t cr4 = hx_x86_read_cr4() | cr4_features();
	hx_x86_wrmsr(HX_X86_MSR_EFER, hx_x86_rdmsr(HX_X86_MSR_EFER) | HX_X86_EFER_NXE);
	hx_x86_wrmsr(HX_X86_MSR_PAT, HX_X86_PAT);
	hx_x86_write_cr0(hx_x86_read_cr0() | HX_X86_CR0_WP);
	hx_x86_write_cr4(cr4);
	hx_x86_smap = (cr4 & HX_X86_CR4_SMAP) != 0;
	has_invpcid = hx_x86_cpuid_if_any(7).ebx >> 10 & 1;
	if (hx_hal_geometry.levels == 0) {
		fill_geometry(cr4);
	}
	hx_hal_user_access(false);
}

void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	keep = keep && hx_hal_geometry.asid_bits > 0; /* without identifiers nothing can be kept */
	hx_x86_write_cr3(root.v | asid | (keep ? HX_X86_CR3_KEEP : 0));
}

static void forget_everything(void)
{
	if (has_invpcid) {
		hx_x86_invpcid(HX_X86_INVPCID_ALL, 0);
		return;
	}
	unsigned long irq = hx_hal_irq_save(); /* a handler's flush must find PGE on */
	uint64_t cr4 = hx_x86_read_cr4();
	hx_x86_write_cr4(cr4 ^ HX_X86_CR4_PGE);
	hx_x86_write_cr4(cr4);
	hx_hal_irq_restore(irq);
}

/* Beyond so many pages refilling the TLB costs less than picking pages out of it. */
enum { INVLPG_PAGES_MAX = 32 };

static void forget(const struct hx_tlb_range *r)
{
	bool whole = r->pages == 0 || r->pages > INVLPG_PAGES_MAX;
	bool everywhere = whole || (r->tables && hx_hal_geometry.asid_bits > 0);
	uint64_t cr3 = hx_x86_read_cr3();
	if (r->global ? everywhere : (cr3 & HX_X86_CR3_PCID) != r->asid) {
		forget_everything();
	} else if (whole) {
		hx_x86_write_cr3(cr3);
	} else {
		for (uint64_t page = 0; page < r->pages; page++) {
			hx_x86_invlpg(r->va.v + (uintptr_t)(page << (12 + 9 * r->level)));
		}
	}
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		forget(&ranges[i]);
	}
}
