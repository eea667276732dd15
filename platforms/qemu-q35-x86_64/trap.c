/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Segments, trap table, and what becomes of each trap.
 *
 * Segment table, one for all CPUs (the order of 0x08..0x2f is SYSRET's):
 *
 *      0x08 kernel code   0x18 (32-bit user code, none)   0x28 user code
 *      0x10 kernel data   0x20 user data                  0x30 + 16 n  TSS of CPU n
 *
 * A CPU's TSS names the stacks that the CPU itself takes: for double faults one
 * of their own, because the usual cause is that the stack has run into its
 * guard page; for traps from user mode the one that probe.S is on.
 */
#include "board.h"
#include "cpu.h"

/* ---- Tables ---- */

struct task_state {
	uint32_t reserved0;
	uint64_t rsp[3];
	uint64_t reserved1;
	uint64_t ist[7];
	uint64_t reserved2;
	uint16_t reserved3, io_map; /* io_map beyond the end: no port for user mode */
} __attribute__((packed, aligned(16)));

_Static_assert(offsetof(struct task_state, rsp) == HX_BOARD_TSS_RSP0, "layout.h");
_Static_assert(offsetof(struct task_state, io_map) + 2 == 104, "Intel SDM 3A, 8.7");

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_middle;
	uint32_t offset_high, reserved;
};

struct pseudo_descriptor {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

#define INTERRUPT_GATE 0x8e
#define USER_MAY_CALL  0x60
#define TSS_AVAILABLE  UINT64_C(0x89)
enum { DOUBLE_FAULT_IST = 1 };

static struct task_state task_states[HX_BOARD_CPUS];
static struct gate gates[256];
static uint64_t segments[HX_X86_TSS_FIRST / 8 + 2 * HX_BOARD_CPUS] = {
	[HX_BOARD_CODE / 8] = 0x00af9b000000ffff,
	[HX_BOARD_DATA / 8] = 0x00cf93000000ffff,
	[HX_BOARD_USER_DATA / 8] = 0x00cff3000000ffff,
	[HX_BOARD_USER_CODE / 8] = 0x00affb000000ffff,
};

extern const uint8_t hx_board_trap_entries[256][16];

static void fill_gates(void)
{
	for (unsigned vector = 0; vector < HX_ARRAY_LENGTH(gates); vector++) {
		uintptr_t entry = (uintptr_t)hx_board_trap_entries[vector];
		gates[vector] = (struct gate){
			.offset_low = (uint16_t)entry,
			.selector = HX_BOARD_CODE,
			.type = INTERRUPT_GATE,
			.offset_middle = (uint16_t)(entry >> 16),
			.offset_high = (uint32_t)(entry >> 32),
		};
	}
	gates[HX_X86_VECTOR_DOUBLE_FAULT].ist = DOUBLE_FAULT_IST;
	gates[HX_BOARD_VECTOR_PROBE].type |= USER_MAY_CALL;
}

void hx_board_traps_load(unsigned cpu)
{
	if (cpu == 0) {
		fill_gates();
	}
	struct task_state *t = &task_states[cpu];
	t->io_map = sizeof *t;
	t->ist[DOUBLE_FAULT_IST - 1] = (uintptr_t)hx_board_stacks[cpu] + HX_BOARD_GUARD_BYTES +
				       HX_BOARD_DOUBLE_FAULT_BYTES;
	uint64_t base = (uintptr_t)t;
	uint64_t *descriptor = &segments[HX_X86_TSS_FIRST / 8 + 2 * cpu];
	descriptor[0] = (sizeof *t - 1) | (base & 0xffffff) << 16 | TSS_AVAILABLE << 40 |
			(base >> 24 & 0xff) << 56;
	descriptor[1] = base >> 32;

	struct pseudo_descriptor gdt = {sizeof segments - 1, (uintptr_t)segments};
	struct pseudo_descriptor idt = {sizeof gates - 1, (uintptr_t)gates};
	uint16_t selector = (uint16_t)(HX_X86_TSS_FIRST + 16 * cpu);
	/* CS, DS and SS hold the same selectors since boot.S. */
	__asm__ volatile("lgdt %0; lidt %1; ltr %2"
			 :
			 : "m"(gdt), "m"(idt), "r"(selector)
			 : "memory");
	/* Where these tables lie is not for user mode to read. */
	if (hx_x86_cpuid_if_any(7).ecx >> 2 & 1) {
		hx_x86_write_cr4(hx_x86_read_cr4() | HX_X86_CR4_UMIP);
	}
}

void *hx_board_task_state(void)
{
	return &task_states[hx_hal_cpu_id()];
}

/* ---- Traps ---- */

/* Did this CPU run off its stack into the guard below? */
static bool in_guard(uint64_t address)
{
	uintptr_t guard = (uintptr_t)hx_board_stacks[hx_hal_cpu_id()] + HX_BOARD_GUARD_BYTES +
			  HX_BOARD_DOUBLE_FAULT_BYTES;
	return address - guard < HX_BOARD_GUARD_BYTES;
}

/* Nobody can resolve it: say what and where in one line, and end as failed. */
static _Noreturn void fatal(const struct hx_x86_frame *f)
{
	static const char *const names[] = {
		[0] = "division",
		[1] = "debug",
		[2] = "NMI",
		[3] = "breakpoint",
		[6] = "invalid instruction",
		[7] = "no FPU",
		[8] = "double fault",
		[10] = "invalid TSS",
		[11] = "no segment",
		[12] = "stack segment",
		[13] = "protection",
		[14] = "page fault",
		[17] = "alignment",
		[18] = "machine check",
	};
	static uint32_t ending;
	hx_board_console_seize();
	if (__atomic_exchange_n(&ending, 1, __ATOMIC_SEQ_CST) == 0) {
		const char *name = f->vector < HX_ARRAY_LENGTH(names) ? names[f->vector] : NULL;
		hx_log("[hx:trap] %s%s, vector %u, error 0x%lx, address 0x%lx, rip 0x%lx, "
		       "rsp 0x%lx, %s mode, CPU %u",
		       name ? name : "unexpected", in_guard(f->cr2) ? " (stack overflow)" : "",
		       (unsigned)f->vector, (unsigned long)f->error, (unsigned long)f->cr2,
		       (unsigned long)f->rip, (unsigned long)f->rsp, f->cs & 3 ? "user" : "kernel",
		       hx_hal_cpu_id());
	}
	hx_platform_exit(false);
}

static bool page_fault(struct hx_x86_frame *f)
{
	struct hx_fault fault;
	if (!hx_hal_fault_decode(f, &fault)) {
		return false;
	}
	return hx_upcall_fault(&fault) || hx_board_probe_caught(f, &fault);
}

void hx_board_trap(struct hx_x86_frame *f)
{
	hx_hal_user_access(false); /* the interrupted code's grant comes back with its flags */
	bool done = false;
	switch (f->vector) {
	case HX_X86_VECTOR_PAGE_FAULT:
		done = page_fault(f);
		break;
	case HX_X86_VECTOR_STACK:
	case HX_X86_VECTOR_PROTECTION: /* an address that is not canonical ends here */
		done = hx_board_probe_caught(f, NULL);
		break;
	case HX_BOARD_VECTOR_PROBE:
		done = hx_board_probe_finished(f);
		break;
	case HX_X86_VECTOR_TLB:
		hx_upcall_tlb_ipi();
		hx_x86_apic_end();
		done = true;
		break;
	case HX_BOARD_VECTOR_TIMER:
		hx_board_timer_expired();
		hx_x86_apic_end();
		done = true;
		break;
	case HX_BOARD_VECTOR_WAKE: /* that it came is all it says */
		hx_x86_apic_end();
		done = true;
		break;
	case HX_X86_VECTOR_SPURIOUS:
	case HX_BOARD_VECTOR_PIC + 7: /* spurious as well: neither wants an end of interrupt */
	case HX_BOARD_VECTOR_PIC + 15:
		done = true;
		break;
	default:
		break;
	}
	if (!done) {
		fatal(f);
	}
}
