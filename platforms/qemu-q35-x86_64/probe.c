/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_platform_probe(): one access through this CPU's MMU, with a way back. The
 * user-mode half needs the "user probe" section mapped, that is stage 5.
 */
#include "board.h"
#include "cpu.h"

/* Known to probe.S. */
struct landing {
	uint64_t rsp;
	void *task_state;
};

/* What this CPU probes, NULL for nothing; the trap handler reads it. */
static struct state {
	struct landing landing;
	struct hx_probe *probe;
} states[HX_BOARD_CPUS];

uint64_t hx_board_probe(struct landing *l, const void *stub, uintptr_t va, uint64_t value);
extern const uint8_t hx_board_probe_land[], hx_board_probe_kernel[], hx_board_probe_kernel_end[];
extern const uint8_t hx_board_probe_read[], hx_board_probe_write[], hx_board_probe_execute[];
extern const uint8_t hx_board_probe_copy[];
extern const uint8_t hx_board_probe_user_read[], hx_board_probe_user_write[],
	hx_board_probe_user_execute[];

const uint8_t hx_platform_return_code[] = {0xc3}; /* ret */
const size_t hx_platform_return_code_bytes = sizeof hx_platform_return_code;

void hx_platform_code_written(void)
{
	(void)hx_x86_cpuid(0); /* serialises: no older instruction stream is executed */
}

/* Run @stub on this CPU with @p as what it probes; returns its %rax. */
static uint64_t run(struct hx_probe *p, const uint8_t *stub, uintptr_t va, uint64_t value)
{
	struct state *s = &states[hx_hal_cpu_id()];
	s->landing.task_state = hx_board_task_state();
	p->faulted = false;
	__atomic_store_n(&s->probe, p, __ATOMIC_RELEASE);
	value = hx_board_probe(&s->landing, stub, va, value);
	__atomic_store_n(&s->probe, NULL, __ATOMIC_RELEASE);
	return value;
}

void hx_platform_probe(struct hx_probe *p)
{
	static const uint8_t *const stubs[2][3] = {
		{hx_board_probe_read, hx_board_probe_write, hx_board_probe_execute},
		{hx_board_probe_user_read, hx_board_probe_user_write, hx_board_probe_user_execute},
	};
	uint64_t value = run(p, stubs[p->user][p->access], p->va.v, p->value);
	if (p->access == HX_ACCESS_READ && !p->faulted) {
		p->value = value;
	}
}

static bool in_user_half(struct hx_va va, uint64_t bytes)
{
	uintptr_t end;
	return !__builtin_add_overflow(va.v, bytes, &end) && (intptr_t)end >= 0;
}

bool hx_platform_copy(struct hx_va to, struct hx_va from, uint64_t bytes)
{
	if (!in_user_half(to, bytes) || !in_user_half(from, bytes)) {
		return false;
	}
	const uint64_t arguments[] = {to.v, from.v, bytes}; /* known to probe.S */
	struct hx_probe p = {.va = from, .access = HX_ACCESS_READ};
	hx_hal_user_access(true);
	(void)run(&p, hx_board_probe_copy, (uintptr_t)arguments, 0);
	hx_hal_user_access(false);
	return !p.faulted;
}

/* Go on behind the probe, in the kernel; flags and %rax stay as they are. */
static void land(struct hx_x86_frame *f, const struct state *s)
{
	f->rip = (uintptr_t)hx_board_probe_land;
	f->rsp = s->landing.rsp;
	f->cs = HX_BOARD_CODE;
	f->ss = HX_BOARD_DATA;
}

bool hx_board_probe_caught(struct hx_x86_frame *f, const struct hx_fault *fault)
{
	const struct state *s = &states[hx_hal_cpu_id()];
	struct hx_probe *p = __atomic_load_n(&s->probe, __ATOMIC_ACQUIRE);
	if (!p) {
		return false;
	}
	/* An interrupt handler that faults meanwhile is not the probe. */
	bool user = (f->cs & 3) != 0;
	bool in_stub = f->rip >= (uintptr_t)hx_board_probe_kernel &&
		       f->rip < (uintptr_t)hx_board_probe_kernel_end;
	bool at_target = p->access == HX_ACCESS_EXECUTE && f->rip == p->va.v;
	if (user != p->user || (!user && !in_stub && !at_target)) {
		return false;
	}
	p->faulted = true;
	if (fault) {
		p->fault = *fault;
	} else {
		p->fault = (struct hx_fault){
			.va = p->va,
			.pc = hx_va(f->rip),
			.access = p->access,
			.cause = HX_FAULT_UNKNOWN,
			.user = user,
		};
	}
	land(f, s);
	return true;
}

bool hx_board_probe_finished(struct hx_x86_frame *f)
{
	const struct state *s = &states[hx_hal_cpu_id()];
	if (!__atomic_load_n(&s->probe, __ATOMIC_ACQUIRE) || (f->cs & 3) == 0) {
		return false;
	}
	land(f, s);
	return true;
}
