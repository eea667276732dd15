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
uintptr_t hx_hal_direct_offset;
uint64_t hx_hal_boot_window_bytes;
bool hx_aarch64_pan;
bool hx_aarch64_broadcast = true;

/* Beyond so many pages one flush of everything costs less. */
enum { FLUSH_PAGES_MAX = 512 };

#define TCR_AS (UINT64_C(1) << 36) /* 16 bits of ASID */
#define TCR_HA (UINT64_C(1) << 39) /* the machine sets AF */
#define TCR_HD (UINT64_C(1) << 40) /* and clears RO where DBM says so */
#define SCTLR_SPAN (UINT64_C(1) << 23) /* 0: traps set PAN */

static unsigned field(uint64_t identification, unsigned shift)
{
	return identification >> shift & 0xf;
}

/* The boot CPU speaks for all. */
static struct hx_geometry ask_machine(void)
{
	static const uint8_t pa_bits[] = {32, 36, 40, 42, 44, 48};
	struct hx_geometry g = hx_pte_geometry(4);
	uint64_t mmfr0 = HX_SYS_READ(id_aa64mmfr0_el1), mmfr1 = HX_SYS_READ(id_aa64mmfr1_el1);
	if (field(mmfr0, 0) < HX_ARRAY_LENGTH(pa_bits)) {
		g.pa_bits = pa_bits[field(mmfr0, 0)];
	}
	g.asid_bits = field(mmfr0, 4) == 2 ? 16 : 8;
	if (field(mmfr1, 0) >= 2) { /* HAFDBS: both bits */
		g.features |= HX_MMU_HARDWARE_AD;
	}
	if (field(mmfr1, 20) != 0) { /* PAN */
		g.features |= HX_MMU_USER_GUARD;
	}
	if (!hx_aarch64_broadcast) {
		g.features &= ~(uint32_t)HX_MMU_BROADCAST;
	}
	return g;
}

void hx_hal_mmu_init(void)
{
	if (hx_hal_geometry.levels == 0) {
		hx_hal_geometry = ask_machine();
		hx_aarch64_pan = (hx_hal_geometry.features & HX_MMU_USER_GUARD) != 0;
	}
	uint64_t tcr = HX_SYS_READ(tcr_el1);
	tcr |= hx_hal_geometry.asid_bits == 16 ? TCR_AS : 0;
	tcr |= hx_hal_geometry.features & HX_MMU_HARDWARE_AD ? TCR_HA | TCR_HD : 0;
	HX_SYS_WRITE(tcr_el1, tcr);
	if (hx_aarch64_pan) {
		HX_SYS_WRITE(sctlr_el1, HX_SYS_READ(sctlr_el1) & ~SCTLR_SPAN);
	}
	HX_ISB();
	HX_TLBI(vmalle1); /* these bits may be cached with translations */
	HX_DSB(nsh);
	HX_ISB();
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
		HX_TLBI_OF(aside1, (uint64_t)asid << 48);
		HX_DSB(nsh);
		HX_ISB();
	}
}

/* One operation, on this CPU or on all. */
#define TLBI(everywhere, op, what)                                                                 \
	do {                                                                                       \
		if (everywhere) {                                                                  \
			HX_TLBI_OF(op##is, what);                                                  \
		} else {                                                                           \
			HX_TLBI_OF(op, what);                                                      \
		}                                                                                  \
	} while (0)

/*
 * By address: | ASID 63..48 | 0 | address bits 55..12 |. The forms with an L drop leaves
 * alone, the others what is cached of tables on the way there, too; the forms with AA
 * regard no ASID. All of them drop GLOBAL entries of the address.
 */
static void drop_pages(bool everywhere, const struct hx_tlb_range *r)
{
	unsigned shift = hx_hal_geometry.page_shift + 9 * r->level;
	for (uint64_t page = 0; page < r->pages; page++) {
		uint64_t va = r->va.v + (page << shift);
		uint64_t what = (uint64_t)r->asid << 48 | (va >> 12 & ((UINT64_C(1) << 44) - 1));
		if (r->global && r->tables) {
			TLBI(everywhere, vaae1, what);
		} else if (r->global) {
			TLBI(everywhere, vaale1, what);
		} else if (r->tables) {
			TLBI(everywhere, vae1, what);
		} else {
			TLBI(everywhere, vale1, what);
		}
	}
}

static void drop(bool everywhere, const struct hx_tlb_range *r)
{
	if (r->pages != 0 && r->pages <= FLUSH_PAGES_MAX) {
		drop_pages(everywhere, r);
	} else if (!r->global) {
		TLBI(everywhere, aside1, (uint64_t)r->asid << 48);
	} else if (everywhere) {
		HX_TLBI(vmalle1is);
	} else {
		HX_TLBI(vmalle1);
	}
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	HX_DSB(nshst); /* stores to the tables come first */
	for (unsigned i = 0; i < n; i++) {
		drop(false, &ranges[i]);
	}
	HX_DSB(nsh);
	HX_ISB();
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	(void)cpus; /* the machine reaches all of them */
	if (!hx_aarch64_broadcast) {
		return false;
	}
	HX_DSB(ishst);
	for (unsigned i = 0; i < n; i++) {
		drop(true, &ranges[i]);
	}
	HX_DSB(ish);
	HX_ISB();
	return true;
}
