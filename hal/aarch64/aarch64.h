/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * aarch64: what the port asks of a platform and offers to it, beside hx/hal.h.
 * Assembly files read the numbers.
 *
 * The contract has one root, whose lower half is the user's and whose upper half is the
 * kernel's. The machine has two, each for 47 bits of address here, so that each translates
 * one half of the contract's root, and what lies between the halves faults:
 *
 *      0000_0000_0000_0000 .. 0000_7fff_ffff_ffff   TTBR0 = root
 *      ffff_8000_0000_0000 .. ffff_ffff_ffff_ffff   TTBR1 = root + HX_AARCH64_ROOT_HALF
 *
 * A platform
 *   1. enters the kernel at EL1 with SP_EL0 as its stack pointer (SPSel 0), the CPU's
 *      struct hx_aarch64_cpu in SP_EL1, its logical number in TPIDR_EL1 and
 *      hx_aarch64_vectors in VBAR_EL1, MAIR_EL1 and TCR_EL1 set to the values below with
 *      IPS as PARange has it, SCTLR_EL1.SPAN clear where PAN exists (traps set it);
 *   2. builds boot tables (image, direct map), sets hx_hal_direct_offset and
 *      hx_hal_boot_window_bytes;
 *   3. says hx_aarch64_discover();
 *   4. calls hx_aarch64_gic_init() once and hx_aarch64_gic_init_cpu() on each CPU;
 *   5. defines hx_aarch64_trap() and hx_aarch64_bad_stack().
 */
#ifndef HX_AARCH64_H
#define HX_AARCH64_H

#define HX_AARCH64_ROOT_HALF 2048

/*
 * Memory types by the pair of cache flags, | NO_CACHE | WRITE_THROUGH |, twice:
 * 0 write-back, 1 write-through, 2 device (nGnRE), 3 normal non-cacheable, which may
 * combine writes.
 */
#define HX_AARCH64_MAIR 0x4404bbff4404bbff

/*
 * TCR_EL1: 4 KiB granules and 47 bits in both halves (T0SZ, T1SZ; TG0 0, TG1 2), table
 * walks through inner-shareable write-back memory (IRGN, ORGN, SH). IPS stands at bit 32.
 */
#define HX_AARCH64_TCR_IPS 32
#define HX_AARCH64_TCR                                                                             \
	(17 | 1 << 8 | 1 << 10 | 3 << 12 | 17 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30)

/* struct hx_aarch64_frame */
#define HX_A64_FRAME_SP (31 * 8)
#define HX_A64_FRAME_PC (32 * 8)
#define HX_A64_FRAME_ESR (34 * 8)
#define HX_A64_FRAME_KIND (36 * 8)
#define HX_A64_FRAME_BYTES (38 * 8)

/* struct hx_aarch64_cpu */
#define HX_A64_CPU_ENTERING 0
#define HX_A64_CPU_KERNEL_SP 8
#define HX_A64_CPU_X0 16
#define HX_A64_CPU_SP 32
#define HX_A64_CPU_PC 40
#define HX_A64_CPU_SPSR 48
#define HX_A64_CPU_ESR 56
#define HX_A64_CPU_FAR 64
#define HX_A64_CPU_KIND 72
#define HX_A64_CPU_BYTES 80

/* PSTATE as SPSR_EL1 has it */
#define HX_A64_SPSR_EL0 0x0
#define HX_A64_SPSR_EL1T 0x4
#define HX_A64_SPSR_MODE 0xf
#define HX_A64_SPSR_IRQ_OFF 0x80 /* I */
#define HX_A64_SPSR_MASKED 0x3c0 /* D, A, I, F */
#define HX_A64_SPSR_PAN 0x400000

#ifndef __ASSEMBLER__

#include <hx/discovery.h>

enum hx_aarch64_kind { HX_A64_SYNC, HX_A64_IRQ, HX_A64_FIQ, HX_A64_SERROR };

/* What a trap saves, on the stack that the kernel runs on. */
struct hx_aarch64_frame {
	uint64_t x[31];
	uint64_t sp, pc, spsr, esr, far;
	uint64_t kind; /* enum hx_aarch64_kind */
	uint64_t unused;
};

/*
 * One for each CPU, in SP_EL1. From @x0 on: the trap that is being saved, kept here until
 * its frame is whole, because saving the frame may itself trap when the stack is bad.
 * @entering tells such a second trap.
 */
struct hx_aarch64_cpu {
	uint64_t entering;
	uint64_t kernel_sp; /* stack for traps from user mode; set on the way there */
	uint64_t x0, x1, sp, pc, spsr, esr, far, kind;
};

/* The assembler reads these numbers too, so they bear no suffix. */
/* NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result) */
_Static_assert(sizeof(struct hx_aarch64_frame) == HX_A64_FRAME_BYTES &&
		       HX_A64_FRAME_BYTES % 16 == 0 &&
		       offsetof(struct hx_aarch64_frame, sp) == HX_A64_FRAME_SP &&
		       offsetof(struct hx_aarch64_frame, pc) == HX_A64_FRAME_PC &&
		       offsetof(struct hx_aarch64_frame, esr) == HX_A64_FRAME_ESR &&
		       offsetof(struct hx_aarch64_frame, kind) == HX_A64_FRAME_KIND,
	       "frame offsets");
/* NOLINTEND(bugprone-implicit-widening-of-multiplication-result) */
_Static_assert(sizeof(struct hx_aarch64_cpu) == HX_A64_CPU_BYTES &&
		       offsetof(struct hx_aarch64_cpu, entering) == HX_A64_CPU_ENTERING &&
		       offsetof(struct hx_aarch64_cpu, kernel_sp) == HX_A64_CPU_KERNEL_SP &&
		       offsetof(struct hx_aarch64_cpu, x0) == HX_A64_CPU_X0 &&
		       offsetof(struct hx_aarch64_cpu, sp) == HX_A64_CPU_SP &&
		       offsetof(struct hx_aarch64_cpu, pc) == HX_A64_CPU_PC &&
		       offsetof(struct hx_aarch64_cpu, spsr) == HX_A64_CPU_SPSR &&
		       offsetof(struct hx_aarch64_cpu, esr) == HX_A64_CPU_ESR &&
		       offsetof(struct hx_aarch64_cpu, far) == HX_A64_CPU_FAR &&
		       offsetof(struct hx_aarch64_cpu, kind) == HX_A64_CPU_KIND,
	       "CPU block offsets");

/*
 * ESR_EL1  | .. | EC 31..26 | IL | ISS 24..0 |, for aborts in ISS:
 * CM 8 (a cache operation, which reads), WnR 6, status code 5..0.
 */
enum {
	HX_ESR_UNKNOWN = 0x00,
	HX_ESR_SVC = 0x15,
	HX_ESR_FETCH_FROM_USER = 0x20,
	HX_ESR_FETCH = 0x21,
	HX_ESR_PC_ALIGNMENT = 0x22,
	HX_ESR_DATA_FROM_USER = 0x24,
	HX_ESR_DATA = 0x25,
	HX_ESR_SP_ALIGNMENT = 0x26,
};

static inline unsigned hx_esr_class(uint64_t esr)
{
	return esr >> 26 & 0x3f;
}

/** For VBAR_EL1. Each vector saves the frame, calls hx_aarch64_trap(), returns. */
extern const uint8_t hx_aarch64_vectors[];

/** The platform's: @p f may be changed. Interrupts are off, PAN is on where it exists. */
void hx_aarch64_trap(struct hx_aarch64_frame *f);

/**
 * The platform's: the frame of a trap did not fit on the stack. @p cpu holds that trap;
 * runs on one emergency stack, for the first CPU that needs it.
 */
_Noreturn void hx_aarch64_bad_stack(const struct hx_aarch64_cpu *cpu);

/**
 * Sources of hx_hal_memory_next() and hx_hal_cpu_next(): first what @p fdt says, then
 * @p extra. All must stay. The boot CPU is the one that calls.
 */
void hx_aarch64_discover(const struct hx_fdt *fdt, const struct hx_memory_range *extra,
			 unsigned extra_count);

/**
 * Whether hx_hal_tlb_broadcast() does its work. A platform may say false before
 * hx_hal_mmu_init(), and interrupts do it.
 */
extern bool hx_aarch64_broadcast;

/* Widths, identifiers and features of this machine, into @p g as pte.h has it. */
void hx_aarch64_probe(struct hx_geometry *g);

/* Affinity fields of MPIDR_EL1: how firmware and the device tree name a CPU. */
uint64_t hx_aarch64_affinity(void);

/* ---- Generic Interrupt Controller: what hx_hal_ipi_tlb() needs, and no more ---- */

enum {
	HX_GIC_IPI = 0,     /* the software-generated interrupt of hx_hal_ipi_tlb() */
	HX_GIC_NONE = 1023, /* from 1020 on: none */
};

/**
 * @param version       2 or 3
 * @param distributor   its registers
 * @param second        version 2: the CPU interface; 3: the redistributors of all CPUs
 * @param second_bytes  length of the latter
 */
void hx_aarch64_gic_init(unsigned version, volatile void *distributor, volatile void *second,
			 uint64_t second_bytes);
/** On each CPU; enables the IPI and private interrupt @p timer. False: no redistributor. */
bool hx_aarch64_gic_init_cpu(unsigned timer);
/** Take the next interrupt: it is acknowledged and ended; HX_GIC_NONE and up: none. */
unsigned hx_aarch64_gic_take(void);

#endif
#endif
