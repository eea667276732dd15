/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * aarch64: interrupts from CPU to CPU, by a Generic Interrupt Controller version 2 or 3.
 *
 * Just what hx_hal_ipi_tlb() needs, and the private timer that a platform may wait with:
 * one software-generated interrupt, sent to sets of CPUs. Version 2 names a CPU by a bit
 * that it learns from its own copy of ITARGETSR0, version 3 by its affinity; version 3 also
 * has per-CPU registers in memory (the redistributor) and its CPU interface in system
 * registers.
 *
 * Source: GIC architecture specifications, version 2 (IHI 0048B, chapter 4) and versions 3
 * and 4 (IHI 0069, chapters 9 and 12).
 */
#include "aarch64.h"
#include "sysreg.h"

enum {
	/* Distributor */
	GICD_CTLR = 0x000,
	GICD_ITARGETSR0 = 0x800,
	GICD_SGIR = 0xf00,
	/* CPU interface of version 2 */
	GICC_CTLR = 0x00,
	GICC_PMR = 0x04,
	GICC_IAR = 0x0c,
	GICC_EOIR = 0x10,
	/* Redistributor, and its page for private interrupts; ISENABLER0 and IPRIORITYR are the
	 * distributor's in version 2 */
	GICR_TYPER = 0x0008,
	GICR_WAKER = 0x0014,
	GICR_PRIVATE = 0x10000,
	GIC_IGROUPR0 = 0x080,
	GIC_ISENABLER0 = 0x100,
	GIC_IPRIORITYR0 = 0x400,

	GICD_CTLR_ENABLE = 1,         /* version 2 */
	GICD_CTLR_ENABLE_1A = 1 << 1, /* version 3: group 1, with affinity routing */
	GICD_CTLR_ARE = 1 << 4,
	WAKER_SLEEP = 1 << 1,
	WAKER_ASLEEP = 1 << 2,
	PRIORITY_ANY = 0xff,
	PRIORITY = 0xa0,
	ID_MASK = 0x3ff,
};

/* Version 3's CPU interface; older assemblers do not know the names. */
#define ICC_SRE_EL1 s3_0_c12_c12_5
#define ICC_PMR_EL1 s3_0_c4_c6_0
#define ICC_IGRPEN1_EL1 s3_0_c12_c12_7
#define ICC_IAR1_EL1 s3_0_c12_c12_0
#define ICC_EOIR1_EL1 s3_0_c12_c12_1
#define ICC_SGI1R_EL1 s3_0_c12_c11_5
/* The names are macros: let them expand first. */
#define READ(name) HX_SYS_READ(name)
#define WRITE(name, value) HX_SYS_WRITE(name, value)

static struct {
	unsigned version;
	volatile uint8_t *distributor, *second;
	uint64_t second_bytes;
} gic;

/* How each CPU is named: a bit (version 2) or an affinity. */
static uint64_t names[HX_CPUS_MAX];

static uint32_t get(const volatile uint8_t *frame, unsigned offset)
{
	return *(const volatile uint32_t *)(frame + offset);
}

static void set(volatile uint8_t *frame, unsigned offset, uint32_t value)
{
	*(volatile uint32_t *)(frame + offset) = value;
}

void hx_aarch64_gic_init(unsigned version, volatile void *distributor, volatile void *second,
			 uint64_t second_bytes)
{
	gic.version = version;
	gic.distributor = distributor;
	gic.second = second;
	gic.second_bytes = second_bytes;
	set(gic.distributor, GICD_CTLR,
	    version == 2 ? GICD_CTLR_ENABLE : GICD_CTLR_ARE | GICD_CTLR_ENABLE_1A);
}

static void enable_private(volatile uint8_t *frame, unsigned id)
{
	frame[GIC_IPRIORITYR0 + id] = PRIORITY;
	set(frame, GIC_ISENABLER0, UINT32_C(1) << id);
}

/*
 * The redistributor of this CPU; NULL: none. They stand one behind the other, two frames of
 * 64 KiB each, four where TYPER.VLPIS is set, until TYPER.Last.
 */
static volatile uint8_t *redistributor(void)
{
	uint64_t affinity = hx_aarch64_affinity();
	uint32_t name = (uint32_t)(affinity >> 8 & 0xff000000) | (uint32_t)(affinity & 0xffffff);
	for (uint64_t at = 0; at < gic.second_bytes;) {
		volatile uint8_t *frame = gic.second + at;
		uint32_t type = get(frame, GICR_TYPER);
		if (get(frame, GICR_TYPER + 4) == name) {
			return frame;
		}
		if (type >> 4 & 1) {
			break;
		}
		at += type >> 1 & 1 ? HX_KIB(256) : HX_KIB(128);
	}
	return NULL;
}

bool hx_aarch64_gic_init_cpu(unsigned timer)
{
	if (gic.version == 2) {
		names[hx_hal_cpu_id()] = get(gic.distributor, GICD_ITARGETSR0) & 0xff;
		enable_private(gic.distributor, HX_GIC_IPI);
		enable_private(gic.distributor, timer);
		set(gic.second, GICC_PMR, PRIORITY_ANY);
		set(gic.second, GICC_CTLR, 1);
		return true;
	}
	volatile uint8_t *frame = redistributor();
	if (!frame) {
		return false;
	}
	names[hx_hal_cpu_id()] = hx_aarch64_affinity();
	set(frame, GICR_WAKER, get(frame, GICR_WAKER) & ~(uint32_t)WAKER_SLEEP);
	while (get(frame, GICR_WAKER) & WAKER_ASLEEP) {
		hx_hal_relax();
	}
	set(frame + GICR_PRIVATE, GIC_IGROUPR0, UINT32_MAX);
	enable_private(frame + GICR_PRIVATE, HX_GIC_IPI);
	enable_private(frame + GICR_PRIVATE, timer);
	WRITE(ICC_SRE_EL1, READ(ICC_SRE_EL1) | 1);
	HX_ISB();
	WRITE(ICC_PMR_EL1, PRIORITY_ANY);
	WRITE(ICC_IGRPEN1_EL1, 1);
	HX_ISB();
	return true;
}

unsigned hx_aarch64_gic_take(void)
{
	uint32_t taken;
	if (gic.version == 2) {
		taken = get(gic.second, GICC_IAR);
	} else {
		taken = (uint32_t)READ(ICC_IAR1_EL1);
	}
	HX_DSB(sy); /* what is read from here on is newer than the interrupt */
	unsigned id = taken & ID_MASK;
	if (id >= 1020) {
		return HX_GIC_NONE;
	}
	if (gic.version == 2) {
		set(gic.second, GICC_EOIR, taken); /* with the sender, which IAR named */
	} else {
		WRITE(ICC_EOIR1_EL1, taken);
		HX_ISB();
	}
	return id;
}

/*
 * | Aff3 55..48 | Aff2 39..32 | interrupt 27..24 | Aff1 23..16 | targets by Aff0 15..0 |
 * One CPU at a time: sets are small, and need not be of one cluster.
 */
static void send_to(uint64_t affinity)
{
	WRITE(ICC_SGI1R_EL1, (affinity >> 32 & 0xff) << 48 | (affinity >> 16 & 0xff) << 32 |
				     (uint64_t)HX_GIC_IPI << 24 | (affinity >> 8 & 0xff) << 16 |
				     (affinity & 0xf0) << 40 | UINT64_C(1) << (affinity & 0xf));
}

void hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	HX_DSB(ishst); /* all that was stored is visible when the interrupt comes */
	uint32_t bits = 0;
	for (unsigned cpu = 0; cpu < HX_CPUS_MAX; cpu++) {
		if (!hx_cpus_has(cpus, cpu) || cpu == hx_hal_cpu_id()) {
			continue;
		}
		if (gic.version == 2) {
			bits |= (uint32_t)names[cpu];
		} else {
			send_to(names[cpu]);
		}
	}
	if (bits != 0) {
		set(gic.distributor, GICD_SGIR, bits << 16 | HX_GIC_IPI);
	}
	HX_ISB();
}
