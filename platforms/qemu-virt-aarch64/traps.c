/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What to do about a trap: interrupts, page faults, and a clear end for the rest. */
#include "board.h"

#include "sysreg.h"

enum {
	VIRTUAL_TIMER = 27, /* private interrupt of CNTV */
	TIMER_ENABLE = 1 << 0,
};

static const char *cause_name(uint64_t kind, uint64_t esr)
{
	if (kind != HX_A64_SYNC) {
		return kind == HX_A64_SERROR ? "SError" : "interrupt";
	}
	switch (hx_esr_class(esr)) {
	case HX_ESR_UNKNOWN:
		return "undefined instruction";
	case HX_ESR_SVC:
		return "call from user mode";
	case HX_ESR_FETCH_FROM_USER:
	case HX_ESR_FETCH:
		return "instruction abort";
	case HX_ESR_DATA_FROM_USER:
	case HX_ESR_DATA:
		return "data abort";
	case HX_ESR_PC_ALIGNMENT:
		return "misaligned pc";
	case HX_ESR_SP_ALIGNMENT:
		return "misaligned sp";
	default:
		return "exception";
	}
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

static _Noreturn void report(const struct hx_aarch64_frame *f, const char *also)
{
	/* A CPU that traps while it reports has no more to say. */
	static uint64_t reporting;
	uint64_t bit = hx_cpus_of(hx_hal_cpu_id()).bits;
	if (__atomic_fetch_or(&reporting, bit, __ATOMIC_RELAXED) & bit) {
		hx_platform_exit(false);
	}
	bool user = (f->spsr & HX_A64_SPSR_MODE) == HX_A64_SPSR_EL0;
	hx_log("[hx:trap] cpu %u in %s mode: %s%s, esr=0x%llx far=0x%llx pc=0x%llx sp=0x%llx",
	       hx_hal_cpu_id(), user ? "user" : "supervisor", cause_name(f->kind, f->esr), also,
	       (unsigned long long)f->esr, (unsigned long long)f->far, (unsigned long long)f->pc,
	       (unsigned long long)f->sp);
	hx_platform_exit(false);
}

_Noreturn void hx_aarch64_bad_stack(const struct hx_aarch64_cpu *cpu)
{
	const struct hx_aarch64_frame f = {
		.sp = cpu->sp,
		.pc = cpu->pc,
		.spsr = cpu->spsr,
		.esr = cpu->esr,
		.far = cpu->far,
		.kind = cpu->kind,
	};
	bool overflow = guard_of(cpu->far) == hx_hal_cpu_id();
	report(&f, overflow ? " (stack overflow)" : " (bad stack pointer)");
}

void hx_board_set_timer(uint64_t when)
{
	HX_SYS_WRITE(cntv_cval_el0, when);
	HX_SYS_WRITE(cntv_ctl_el0, when == UINT64_MAX ? 0 : TIMER_ENABLE);
	HX_ISB();
}

static void take_interrupts(void)
{
	for (;;) {
		switch (hx_aarch64_gic_take()) {
		case HX_GIC_IPI:
			/* Ended before the work is looked for: what comes later interrupts again.
			 */
			hx_upcall_tlb_ipi();
			break;
		case VIRTUAL_TIMER: /* it only had to come */
			hx_board_set_timer(UINT64_MAX);
			break;
		case HX_GIC_NONE:
			return;
		default:
			break;
		}
	}
}

void hx_aarch64_trap(struct hx_aarch64_frame *f)
{
	hx_hal_user_access(false); /* the frame's PSTATE brings it back */
	if (f->kind == HX_A64_IRQ) {
		take_interrupts();
		return;
	}
	struct hx_fault fault;
	if (hx_hal_fault_decode(f, &fault) && hx_upcall_fault(&fault)) {
		return;
	}
	if (!hx_board_fixup(f)) {
		report(f, "");
	}
}

void hx_board_traps_on(void)
{
	if (hx_hal_cpu_id() != 0 && !hx_aarch64_gic_init_cpu(VIRTUAL_TIMER)) {
		hx_log("[hx:platform] cpu %u has no redistributor", hx_hal_cpu_id());
		hx_platform_exit(false);
	}
	hx_board_set_timer(UINT64_MAX);
	__asm__ volatile("msr daifclr, #6" : : : "memory"); /* SError and interrupts */
}
