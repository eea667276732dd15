/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What to do about a trap: interrupts, page faults, and a clear end for the rest. */
#include "board.h"

#include "csr.h"
#include "sbi.h"

static const char *cause_name(uint64_t scause)
{
	static const char *const names[] = {
		[0] = "misaligned fetch",  [1] = "fetch access fault", [2] = "illegal instruction",
		[3] = "breakpoint",        [4] = "misaligned load",    [5] = "load access fault",
		[6] = "misaligned store",  [7] = "store access fault", [8] = "call from user mode",
		[12] = "fetch page fault", [13] = "load page fault",   [15] = "store page fault",
	};
	const char *name = scause < HX_ARRAY_LENGTH(names) ? names[scause] : NULL;
	return name ? name : scause & HX_RV_INTERRUPT ? "interrupt" : "exception";
}

/* CPU whose guard page holds @va; BOARD_CPUS_MAX: none. */
static unsigned guard_of(uint64_t va)
{
	unsigned cpu = 0;
	while (cpu < BOARD_CPUS_MAX && va - (uintptr_t)hx_board_stacks[cpu] >= BOARD_GUARD_BYTES) {
		cpu++;
	}
	return cpu;
}

static _Noreturn void report(uint64_t scause, uint64_t stval, uint64_t sepc, uint64_t sstatus,
			     uint64_t sp, const char *also)
{
	/* A CPU that traps while it reports has no more to say. */
	static uint64_t reporting;
	uint64_t bit = hx_cpus_of(hx_hal_cpu_id()).bits;
	if (__atomic_fetch_or(&reporting, bit, __ATOMIC_RELAXED) & bit) {
		hx_platform_exit(false);
	}
	hx_log("[hx:trap] cpu %u in %s mode: %s%s, scause=0x%llx stval=0x%llx sepc=0x%llx "
	       "sp=0x%llx",
	       hx_hal_cpu_id(), sstatus & HX_SSTATUS_SPP ? "supervisor" : "user",
	       cause_name(scause), also, (unsigned long long)scause, (unsigned long long)stval,
	       (unsigned long long)sepc, (unsigned long long)sp);
	hx_platform_exit(false);
}

_Noreturn void hx_riscv64_bad_stack(const struct hx_riscv64_hart *hart)
{
	const char *also =
		guard_of(hart->stval) == hart->cpu ? " (stack overflow)" : " (bad stack pointer)";
	report(hart->scause, hart->stval, hart->pc, hart->sstatus, hart->sp, also);
}

uint64_t hx_board_tick;

void hx_board_set_timer(uint64_t when)
{
	uint64_t next = hx_board_tick > 0 ? HX_CSR_READ(time) + hx_board_tick : UINT64_MAX;
	hx_sbi(HX_SBI_TIMER, HX_SBI_TIMER_SET, when < next ? when : next, 0, 0, 0, 0);
}

static void take_interrupt(uint64_t number)
{
	switch (number) {
	case HX_RV_INTERRUPT_SOFTWARE:
		/* Cleared before the work is looked for: what comes later interrupts again. */
		HX_CSR_CLEAR(sip, HX_SIE_SSIE);
		__asm__ volatile("fence iorw, iorw" : : : "memory");
		hx_upcall_tlb_ipi();
		return;
	case HX_RV_INTERRUPT_TIMER: /* it only had to come */
		hx_board_set_timer(UINT64_MAX);
		return;
	default:
		return;
	}
}

void hx_riscv64_trap(struct hx_riscv64_frame *f)
{
	hx_hal_user_access(false); /* the frame's sstatus brings it back */
	if (f->scause & HX_RV_INTERRUPT) {
		take_interrupt(f->scause & ~HX_RV_INTERRUPT);
		return;
	}
	struct hx_fault fault;
	if (hx_hal_fault_decode(f, &fault) && hx_upcall_fault(&fault)) {
		return;
	}
	if (!hx_board_fixup(f)) {
		report(f->scause, f->stval, f->pc, f->sstatus, f->x[2], "");
	}
}

void hx_board_traps_on(void)
{
	hx_board_set_timer(UINT64_MAX);
	HX_CSR_WRITE(sie, HX_SIE_SSIE | HX_SIE_STIE);
	HX_CSR_SET(sstatus, HX_SSTATUS_SIE);
}
