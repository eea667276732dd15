/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: what the port asks of a platform and offers to it, beside hx/hal.h.
 * Assembly files read the offsets.
 *
 * A platform
 *   1. builds boot tables (image, direct map), sets hx_hal_direct_offset and
 *      hx_hal_boot_window_bytes;
 *   2. gives each hart a struct hx_riscv64_hart, its address in sscratch, its
 *      logical number in tp, and hx_riscv64_trap_entry in stvec;
 *   3. enters the hart ids in hx_riscv64_hart_id[];
 *   4. says hx_riscv64_discover();
 *   5. defines hx_riscv64_trap() and hx_riscv64_bad_stack().
 */
#ifndef HX_RISCV64_H
#define HX_RISCV64_H

/* struct hx_riscv64_frame */
#define HX_RV_FRAME_PC      (32 * 8)
#define HX_RV_FRAME_SSTATUS (33 * 8)
#define HX_RV_FRAME_SCAUSE  (34 * 8)
#define HX_RV_FRAME_STVAL   (35 * 8)
#define HX_RV_FRAME_BYTES   (36 * 8)

/* struct hx_riscv64_hart */
#define HX_RV_HART_CPU       0
#define HX_RV_HART_ENTERING  8
#define HX_RV_HART_KERNEL_SP 16
#define HX_RV_HART_T0        24
#define HX_RV_HART_SP        32
#define HX_RV_HART_TP        40
#define HX_RV_HART_PC        48
#define HX_RV_HART_SSTATUS   56
#define HX_RV_HART_SCAUSE    64
#define HX_RV_HART_STVAL     72
#define HX_RV_HART_BYTES     80

#ifndef __ASSEMBLER__

#include <hx/discovery.h>

/* What a trap saves, on the stack that the kernel runs on. x[0] is not used. */
struct hx_riscv64_frame {
	uint64_t x[32];
	uint64_t pc, sstatus, scause, stval;
};

/*
 * One for each hart, found through sscratch. From @t0 on: the trap that is
 * being saved, kept here until its frame is whole, because saving the frame
 * may itself trap when the stack is bad. @entering tells such a second trap.
 */
struct hx_riscv64_hart {
	uint64_t cpu; /* logical number, for tp */
	uint64_t entering;
	uint64_t kernel_sp; /* stack for traps from user mode; set on the way there */
	uint64_t t0, sp, tp, pc, sstatus, scause, stval;
};

/* The assembler reads these numbers too, so they bear no suffix. */
/* NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result) */
_Static_assert(sizeof(struct hx_riscv64_frame) == HX_RV_FRAME_BYTES &&
		       offsetof(struct hx_riscv64_frame, pc) == HX_RV_FRAME_PC &&
		       offsetof(struct hx_riscv64_frame, sstatus) == HX_RV_FRAME_SSTATUS &&
		       offsetof(struct hx_riscv64_frame, scause) == HX_RV_FRAME_SCAUSE &&
		       offsetof(struct hx_riscv64_frame, stval) == HX_RV_FRAME_STVAL,
	       "frame offsets");
/* NOLINTEND(bugprone-implicit-widening-of-multiplication-result) */
_Static_assert(sizeof(struct hx_riscv64_hart) == HX_RV_HART_BYTES &&
		       offsetof(struct hx_riscv64_hart, cpu) == HX_RV_HART_CPU &&
		       offsetof(struct hx_riscv64_hart, entering) == HX_RV_HART_ENTERING &&
		       offsetof(struct hx_riscv64_hart, kernel_sp) == HX_RV_HART_KERNEL_SP &&
		       offsetof(struct hx_riscv64_hart, t0) == HX_RV_HART_T0 &&
		       offsetof(struct hx_riscv64_hart, sp) == HX_RV_HART_SP &&
		       offsetof(struct hx_riscv64_hart, tp) == HX_RV_HART_TP &&
		       offsetof(struct hx_riscv64_hart, pc) == HX_RV_HART_PC &&
		       offsetof(struct hx_riscv64_hart, sstatus) == HX_RV_HART_SSTATUS &&
		       offsetof(struct hx_riscv64_hart, scause) == HX_RV_HART_SCAUSE &&
		       offsetof(struct hx_riscv64_hart, stval) == HX_RV_HART_STVAL,
	       "hart offsets");

/* scause: interrupts have the sign bit set. */
#define HX_RV_INTERRUPT (UINT64_C(1) << 63)
enum {
	HX_RV_INTERRUPT_SOFTWARE = 1,
	HX_RV_INTERRUPT_TIMER = 5,
	HX_RV_FETCH_ACCESS = 1,
	HX_RV_LOAD_ACCESS = 5,
	HX_RV_STORE_ACCESS = 7,
	HX_RV_USER_ECALL = 8,
	HX_RV_FETCH_PAGE_FAULT = 12,
	HX_RV_LOAD_PAGE_FAULT = 13,
	HX_RV_STORE_PAGE_FAULT = 15,
};

/** For stvec (direct mode). Saves the frame, calls hx_riscv64_trap(), returns. */
void hx_riscv64_trap_entry(void);

/** The platform's: @p f may be changed. Interrupts are off, SUM is as it was. */
void hx_riscv64_trap(struct hx_riscv64_frame *f);

/**
 * The platform's: the frame of a trap did not fit on the stack. @p hart holds
 * that trap; runs on one emergency stack, for the first hart that needs it.
 */
_Noreturn void hx_riscv64_bad_stack(const struct hx_riscv64_hart *hart);

/** Hart id of each logical CPU that has been started. */
extern uint64_t hx_riscv64_hart_id[HX_CPUS_MAX];

/**
 * Remote fences by firmware (SBI RFENCE). hx_hal_mmu_init() keeps true only
 * where the firmware has them; a platform may say false before, and software
 * interrupts do the work.
 */
extern bool hx_riscv64_rfence;

/** Run SBI RFENCE's @function on the other CPUs in @cpus; false: firmware refuses. */
bool hx_riscv64_fence(struct hx_cpus cpus, uint64_t function, uint64_t start, uint64_t bytes,
		      uint64_t asid);

/** Ask this hart's MMU for asid_bits and features; the boot tables are loaded. */
void hx_riscv64_probe(struct hx_geometry *g);

/**
 * Sources of hx_hal_memory_next() and hx_hal_cpu_next(): first what @p fdt
 * says, then @p extra. All must stay. @p boot_hart is the hart that runs now:
 * the tree's own word for it is often wrong.
 */
void hx_riscv64_discover(const struct hx_fdt *fdt, uint64_t boot_hart,
			 const struct hx_memory_range *extra, unsigned extra_count);

/**
 * Make stores to code visible to the instruction fetch of this CPU and of those in
 * @p cpus. The others need SBI RFENCE; without it only this CPU is served.
 */
void hx_riscv64_fence_i(struct hx_cpus cpus);

#endif
#endif
