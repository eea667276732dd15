/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Accesses that may fault: hx_platform_probe(), hx_platform_copy(), and where
 * control goes on when one did.
 *
 * A user-mode probe runs one of three pieces of code in the image's "user" page
 * (probe.S), which is mapped with USER in the kernel half and so stands beside
 * every user half. It comes back by ecall or by a fault, whose frame is turned
 * to hx_board_user_left.
 */
#include "board.h"

#include "csr.h"

/* probe.S */
uint64_t hx_board_probe_read(uintptr_t va, uint64_t value);
uint64_t hx_board_probe_write(uintptr_t va, uint64_t value);
uint64_t hx_board_probe_execute(uintptr_t va, uint64_t value);
bool hx_board_copy(void *to, const void *from, uint64_t bytes);
uint64_t hx_board_read_instret(void);
void hx_board_user_enter(uintptr_t pc, uint64_t a0, uint64_t a1);
extern const uint8_t hx_board_probe_begin[], hx_board_probe_end[], hx_board_probe_faulted[],
	hx_board_copy_end[], hx_board_copy_faulted[], hx_board_read_instret_end[],
	hx_board_no_instret[], hx_board_user_left[], hx_board_user_read[], hx_board_user_write[],
	hx_board_user_execute[];

enum { REGISTER_SP = 2, REGISTER_TP = 4, REGISTER_A1 = 11 };

/* The probe that each CPU is making. */
static struct hx_probe *probes[BOARD_CPUS_MAX];

/* ---- Out of a trap ---- */

/* Page faults, and accesses to physical addresses where nothing is. */
static bool refused_access(const struct hx_riscv64_frame *f, struct hx_fault *out)
{
	struct hx_riscv64_frame as_page_fault = *f;
	switch (f->scause) {
	case HX_RV_FETCH_ACCESS:
		as_page_fault.scause = HX_RV_FETCH_PAGE_FAULT;
		break;
	case HX_RV_LOAD_ACCESS:
		as_page_fault.scause = HX_RV_LOAD_PAGE_FAULT;
		break;
	case HX_RV_STORE_ACCESS:
		as_page_fault.scause = HX_RV_STORE_PAGE_FAULT;
		break;
	default:
		break;
	}
	return hx_hal_fault_decode(&as_page_fault, out);
}

static bool inside(uint64_t pc, const void *begin, const void *end)
{
	return pc - (uintptr_t)begin < (uintptr_t)end - (uintptr_t)begin;
}

/* Go back to the caller of hx_board_user_enter(), interrupts still off. */
static void leave_user(struct hx_riscv64_frame *f)
{
	const struct hx_riscv64_hart *hart = &hx_board_harts[hx_hal_cpu_id()];
	f->pc = (uintptr_t)hx_board_user_left;
	f->x[REGISTER_SP] = hart->kernel_sp;
	f->x[REGISTER_TP] = hart->cpu;
	f->sstatus = (f->sstatus | HX_SSTATUS_SPP) & ~HX_SSTATUS_SPIE;
}

static bool end_user_probe(struct hx_riscv64_frame *f, struct hx_probe *p)
{
	struct hx_fault fault;
	if (f->scause == HX_RV_USER_ECALL) {
		p->value = f->x[REGISTER_A1];
	} else if (refused_access(f, &fault) && fault.access == p->access) {
		p->faulted = true;
		p->fault = fault;
	} else {
		return false; /* its own code: the user page is not mapped as it should */
	}
	leave_user(f);
	return true;
}

bool hx_board_fixup(struct hx_riscv64_frame *f)
{
	struct hx_probe *p = probes[hx_hal_cpu_id()];
	struct hx_fault fault;
	if (!(f->sstatus & HX_SSTATUS_SPP)) {
		return p && p->user && end_user_probe(f, p);
	}
	if (inside(f->pc, (const void *)hx_board_read_instret, hx_board_read_instret_end)) {
		f->pc = (uintptr_t)hx_board_no_instret;
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
	unsigned long irq = hx_hal_irq_save();
	uint64_t value = p->value;
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

const uint8_t hx_platform_return_code[] = {0x67, 0x80, 0x00, 0x00}; /* jalr x0, 0(ra) */
const size_t hx_platform_return_code_bytes = sizeof hx_platform_return_code;

void hx_platform_code_written(void)
{
	struct hx_cpus all = {(UINT64_C(1) << hx_board_cpu_limit) - 1};
	hx_riscv64_fence_i(all);
}
