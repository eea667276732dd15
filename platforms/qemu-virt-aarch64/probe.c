/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Accesses that may fault: hx_platform_probe(), hx_platform_copy(), and where control goes
 * on when one did.
 *
 * A user-mode probe runs one of three pieces of code in the image's "user" page (probe.S),
 * which is mapped with USER in the kernel half and so stands beside every user half. It
 * comes back by svc or by a fault, whose frame is turned to hx_board_user_left.
 */
#include "board.h"

#include "sysreg.h"

/* probe.S */
uint64_t hx_board_probe_read(uintptr_t va, uint64_t value);
uint64_t hx_board_probe_write(uintptr_t va, uint64_t value);
uint64_t hx_board_probe_execute(uintptr_t va, uint64_t value);
bool hx_board_copy(void *to, const void *from, uint64_t bytes);
void hx_board_user_enter(uintptr_t pc, uint64_t a0, uint64_t a1);
extern const uint8_t hx_board_probe_begin[], hx_board_probe_end[], hx_board_probe_faulted[],
	hx_board_copy_end[], hx_board_copy_faulted[], hx_board_semihosting_call[],
	hx_board_no_semihosting[], hx_board_user_left[], hx_board_user_read[],
	hx_board_user_write[], hx_board_user_execute[];

/* The probe that each CPU is making. */
static struct hx_probe *probes[BOARD_CPUS_MAX];

/* ---- Out of a trap ---- */

/* Page faults, and accesses to physical addresses where nothing is. */
static bool refused_access(const struct hx_aarch64_frame *f, struct hx_fault *out)
{
	enum { STATUS = 0x3f, EXTERNAL_ABORT = 0x10, TRANSLATION_FAULT = 0x04 };
	struct hx_aarch64_frame as_page_fault = *f;
	if ((f->esr & STATUS) == EXTERNAL_ABORT) {
		as_page_fault.esr = (f->esr & ~(uint64_t)STATUS) | TRANSLATION_FAULT;
	}
	return hx_hal_fault_decode(&as_page_fault, out);
}

static bool inside(uint64_t pc, const void *begin, const void *end)
{
	return pc - (uintptr_t)begin < (uintptr_t)end - (uintptr_t)begin;
}

/* Go back to the caller of hx_board_user_enter(), interrupts still off. */
static void leave_user(struct hx_aarch64_frame *f)
{
	f->pc = (uintptr_t)hx_board_user_left;
	f->sp = hx_board_cpus[hx_hal_cpu_id()].kernel_sp;
	f->spsr = HX_A64_SPSR_EL1T | HX_A64_SPSR_IRQ_OFF | (hx_aarch64_pan ? HX_A64_SPSR_PAN : 0);
}

static bool end_user_probe(struct hx_aarch64_frame *f, struct hx_probe *p)
{
	struct hx_fault fault;
	if (f->kind == HX_A64_SYNC && hx_esr_class(f->esr) == HX_ESR_SVC) {
		p->value = f->x[1];
	} else if (refused_access(f, &fault) && fault.access == p->access) {
		p->faulted = true;
		p->fault = fault;
	} else {
		return false; /* its own code: the user page is not mapped as it should */
	}
	leave_user(f);
	return true;
}

bool hx_board_fixup(struct hx_aarch64_frame *f)
{
	struct hx_probe *p = probes[hx_hal_cpu_id()];
	struct hx_fault fault;
	if ((f->spsr & HX_A64_SPSR_MODE) == HX_A64_SPSR_EL0) {
		return p && p->user && end_user_probe(f, p);
	}
	if (f->pc == (uintptr_t)hx_board_semihosting_call) {
		f->pc = (uintptr_t)hx_board_no_semihosting;
		return true;
	}
	if (!refused_access(f, &fault)) {
		return false;
	}
	if (inside(f->pc, (const void *)hx_board_copy, hx_board_copy_end)) {
		f->pc = (uintptr_t)hx_board_copy_faulted;
		return true;
	}
	if (p && !p->user &&
	    (inside(f->pc, hx_board_probe_begin, hx_board_probe_end) || f->pc == p->va.v)) {
		p->faulted = true;
		p->fault = fault;
		f->pc = (uintptr_t)hx_board_probe_faulted;
		return true;
	}
	return false;
}

/* ---- The accesses ---- */

static void probe_user(struct hx_probe *p)
{
	const uint8_t *code = p->access == HX_ACCESS_READ    ? hx_board_user_read
			      : p->access == HX_ACCESS_WRITE ? hx_board_user_write
							     : hx_board_user_execute;
	uint64_t value = p->value;
	unsigned long irq = hx_hal_irq_save();
	hx_board_user_enter((uintptr_t)code, p->va.v, value);
	if (p->access != HX_ACCESS_READ || p->faulted) {
		p->value = value;
	}
	hx_hal_irq_restore(irq);
}

static void probe_supervisor(struct hx_probe *p)
{
	uint64_t value = 0;
	switch (p->access) {
	case HX_ACCESS_READ:
		value = hx_board_probe_read(p->va.v, 0);
		if (!p->faulted) {
			p->value = value;
		}
		break;
	case HX_ACCESS_WRITE:
		hx_board_probe_write(p->va.v, p->value);
		break;
	case HX_ACCESS_EXECUTE:
		hx_board_probe_execute(p->va.v, 0);
		break;
	}
}

void hx_platform_probe(struct hx_probe *p)
{
	struct hx_probe **mine = &probes[hx_hal_cpu_id()];
	p->faulted = false;
	__atomic_store_n(mine, p, __ATOMIC_RELAXED);
	__atomic_signal_fence(__ATOMIC_SEQ_CST); /* the trap on this CPU looks at both */
	if (p->user) {
		probe_user(p);
	} else {
		probe_supervisor(p);
	}
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	__atomic_store_n(mine, NULL, __ATOMIC_RELAXED);
}

bool hx_platform_copy(struct hx_va to, struct hx_va from, uint64_t bytes)
{
	hx_hal_user_access(true);
	bool whole = hx_board_copy((void *)to.v, (const void *)from.v, bytes);
	hx_hal_user_access(false);
	return whole;
}

/* ---- Code ---- */

const uint8_t hx_platform_return_code[] = {0xc0, 0x03, 0x5f, 0xd6}; /* ret */
const size_t hx_platform_return_code_bytes = sizeof hx_platform_return_code;

/*
 * Every CPU fetches anew. The call does not say what was written, so data caches are not
 * cleaned here: the emulator has none, nor need machines with CTR_EL0.IDC do so.
 */
void hx_platform_code_written(void)
{
	HX_DSB(ish);
	__asm__ volatile("ic ialluis" : : : "memory");
	HX_DSB(ish);
	HX_ISB();
}
