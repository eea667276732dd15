/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * x86_64: paging features, TLB, page faults. Four levels; process-context
 * identifiers are not used, so loading CR3 forgets all but GLOBAL entries.
 *
 * INVLPG forgets one page, GLOBAL or not and of any size, and every cached
 * upper-level entry (Intel SDM 3A, 4.10.4.1): a range that had tables unhooked
 * needs nothing more. Turning CR4.PGE off and on forgets everything.
 */
#include "cpu.h"
#include "hx_x86.h"

struct hx_geometry hx_hal_geometry;
uintptr_t hx_hal_direct_offset = 0xffff800000000000;
uint64_t hx_hal_boot_window_bytes = HX_GIB(4);
bool hx_x86_smap;

static void fill_geometry(void)
{
	struct hx_geometry g = hx_pte_geometry(4);
	uint8_t pa_bits = hx_x86_cpuid_if_any(0x80000008).eax & 0xff;
	if (pa_bits == 0) {
		pa_bits = 36; /* what CPUs had before they said */
	}
	if (pa_bits < g.pa_bits) {
		g.pa_bits = pa_bits;
	}
	bool gib_pages = hx_x86_cpuid_if_any(0x80000001).edx >> 26 & 1;
	if (!gib_pages) {
		g.leaf_levels &= (uint8_t)~(1u << 2);
	}
	struct hx_x86_cpuid extended = hx_x86_cpuid_if_any(7);
	bool smep = extended.ebx >> 7 & 1, smap = extended.ebx >> 20 & 1;
	if (!smep || !smap) {
		g.features &= ~HX_MMU_USER_GUARD;
	}
	hx_hal_geometry = g;
}

void hx_hal_mmu_init(void)
{
	if (hx_hal_geometry.levels == 0) {
		fill_geometry();
	}
	hx_x86_wrmsr(HX_X86_MSR_EFER, hx_x86_rdmsr(HX_X86_MSR_EFER) | HX_X86_EFER_NXE);
	hx_x86_write_cr0(hx_x86_read_cr0() | HX_X86_CR0_WP);

	struct hx_x86_cpuid basic = hx_x86_cpuid_if_any(1), extended = hx_x86_cpuid_if_any(7);
	uint64_t cr4 = hx_x86_read_cr4();
	cr4 |= basic.edx >> 13 & 1 ? HX_X86_CR4_PGE : 0;
	cr4 |= extended.ebx >> 7 & 1 ? HX_X86_CR4_SMEP : 0;
	cr4 |= extended.ebx >> 20 & 1 ? HX_X86_CR4_SMAP : 0;
	cr4 |= extended.ecx >> 2 & 1 ? HX_X86_CR4_UMIP : 0;
	hx_x86_write_cr4(cr4);
	hx_x86_smap = (cr4 & HX_X86_CR4_SMAP) != 0;
	hx_hal_user_access(false);
}

void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	(void)asid; /* asid_bits is 0, and without identifiers nothing can be kept */
	(void)keep;
	hx_x86_write_cr3(root.v);
}

static void flush_everything(bool global)
{
	unsigned long irq = hx_hal_irq_save(); /* a handler's flush must find PGE on */
	uint64_t cr4 = hx_x86_read_cr4();
	if (global && (cr4 & HX_X86_CR4_PGE)) {
		hx_x86_write_cr4(cr4 & ~HX_X86_CR4_PGE);
		hx_x86_write_cr4(cr4);
	} else {
		hx_x86_write_cr3(hx_x86_read_cr3());
	}
	hx_hal_irq_restore(irq);
}

/* Beyond so many pages refilling the TLB costs less than picking pages out of it. */
enum { INVLPG_PAGES_MAX = 32 };

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	bool everything = false, global = false;
	uint64_t pages = 0;
	for (unsigned i = 0; i < n; i++) {
		const struct hx_tlb_range *r = &ranges[i];
		bool kernel_half = (intptr_t)r->va.v < 0;
		global |= r->global || kernel_half;
		everything |= r->pages == 0 || r->pages > INVLPG_PAGES_MAX - pages;
		pages += everything ? 0 : r->pages;
	}
	if (everything) {
		flush_everything(global);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		const struct hx_tlb_range *r = &ranges[i];
		uintptr_t page_bytes = (uintptr_t)1 << (12 + 9 * r->level);
		for (uint64_t page = 0; page < r->pages; page++) {
			hx_x86_invlpg(r->va.v + page * page_bytes);
		}
	}
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	(void)ranges;
	(void)n;
	(void)cpus;
	return false; /* the machine cannot: hx_hal_ipi_tlb() */
}

/*
 * Error code of a page fault:
 *
 *      15     6   5   4   3    2   1   0
 *     | SGX .. | PK | I | RSV | U | W | P |    P: a valid translation refused
 */
bool hx_hal_fault_decode(const void *frame, struct hx_fault *out)
{
	const struct hx_x86_frame *f = frame;
	if (f->vector != HX_X86_VECTOR_PAGE_FAULT) {
		return false;
	}
	enum hx_fault_cause cause = HX_FAULT_MISSING;
	if (f->error & 1u << 3) {
		cause = HX_FAULT_UNKNOWN; /* reserved bits: the table is damaged */
	} else if (f->error & 1u << 0) {
		cause = HX_FAULT_PROTECTION;
	}
	*out = (struct hx_fault){
		.va = hx_va(f->cr2),
		.pc = hx_va(f->rip),
		.access = f->error & 1u << 4   ? HX_ACCESS_EXECUTE
			  : f->error & 1u << 1 ? HX_ACCESS_WRITE
					       : HX_ACCESS_READ,
		.cause = cause,
		.user = (f->error & 1u << 2) != 0,
		.user_access = !hx_x86_smap || (f->rflags & HX_X86_RFLAGS_AC) != 0,
	};
	return true;
}
