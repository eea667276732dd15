/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The other CPUs: started one at a time by INIT and two STARTUPs (Intel SDM 3A,
 * 9.4.4), then asleep until they get work. CPU n is the n-th that runs of those in
 * sys->cpus, the boot CPU being 0.
 */
#include "board.h"
#include "cpu.h"

/* What the CPU that starts now is told; boot.S reads the stack. */
uintptr_t hx_board_secondary_stack_top;
static unsigned starting;
static struct hx_system *starting_system;

static uint64_t online = 1; /* bit per CPU */
static bool expired;

/* ---- Sleeping and waking ---- */

void hx_board_wake(unsigned cpu)
{
	hx_x86_apic_send(cpu, HX_BOARD_VECTOR_WAKE);
}

void hx_board_idle(void)
{
	/* STI takes effect behind the HLT: an interrupt cannot come between them. */
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

void hx_board_timer_expired(void)
{
	__atomic_store_n(&expired, true, __ATOMIC_RELEASE);
}

/* ---- Starting ---- */

void hx_board_trampoline_install(void)
{
	if (hx_x86_low_page().v != 0) {
		hx_memcpy(hx_ptr(hx_x86_low_page()), hx_board_trampoline,
			  /* cppcheck-suppress comparePointers ; ends of one piece of code */
			  (size_t)(hx_board_trampoline_end - hx_board_trampoline));
	}
}

_Noreturn void hx_board_start_secondary(void)
{
	unsigned cpu = starting;
	hx_board_traps_load(cpu);
	hx_x86_apic_start(); /* first: from the next line on it may be sent invalidations */
	hx_boot_secondary(starting_system);
	hx_mailbox_open();
	__atomic_fetch_or(&online, hx_cpus_of(cpu).bits, __ATOMIC_RELEASE);
	hx_board_wake(0);
	__asm__ volatile("sti");
	hx_mailbox_serve();
}

/* About a microsecond each: a write to an unused port waits for the slow bus. */
static void delay(unsigned microseconds)
{
	for (unsigned i = 0; i < microseconds; i++) {
		hx_x86_out8(0x80, 0);
	}
}

static bool start(unsigned cpu, uint32_t apic_id)
{
	enum { ALL_OF_IT = UINT32_MAX }; /* 4 s on QEMU, more elsewhere: only to end at all */
	uint32_t page = (uint32_t)(hx_x86_low_page().v >> 12);
	hx_x86_apic_assign(cpu, apic_id);
	hx_board_secondary_stack_top = (uintptr_t)hx_board_stacks[cpu] + HX_BOARD_STACKS_BYTES;
	__atomic_store_n(&starting, cpu, __ATOMIC_RELEASE);

	unsigned long irq = hx_hal_irq_save();
	expired = false;
	hx_x86_apic_timer(HX_BOARD_VECTOR_TIMER, ALL_OF_IT);
	hx_x86_apic_send(cpu, HX_X86_APIC_INIT);
	delay(200); /* 10 ms for CPUs of the last century, which have no 64-bit mode */
	hx_x86_apic_send(cpu, HX_X86_APIC_STARTUP | page);
	delay(200);
	hx_x86_apic_send(cpu, HX_X86_APIC_STARTUP | page); /* ignored where the first was heard */
	bool runs;
	while (!(runs = hx_cpus_has((struct hx_cpus){__atomic_load_n(&online, __ATOMIC_ACQUIRE)},
				    cpu)) &&
	       !__atomic_load_n(&expired, __ATOMIC_ACQUIRE)) {
		hx_board_idle();
	}
	hx_x86_apic_timer(HX_BOARD_VECTOR_TIMER, 0);
	if (!runs) {
		hx_x86_apic_send(cpu, HX_X86_APIC_INIT); /* keep it from coming too late */
	}
	hx_hal_irq_restore(irq);
	return runs;
}

unsigned hx_platform_start_cpus(struct hx_system *sys)
{
	static unsigned running; /* 0: not yet called */
	if (running > 0) {
		return running;
	}
	running = 1;
	starting_system = sys;
	for (unsigned i = 1; i < sys->cpu_count; i++) {
		uint32_t apic_id = (uint32_t)sys->cpus[i].hardware_id;
		const char *left_out = NULL;
		if (running == HX_BOARD_CPUS) {
			left_out = "more CPUs than this board has stacks for";
		} else if (hx_x86_low_page().v == 0) {
			left_out = "no memory below 64 KiB to start it in";
		} else if (!start(running, apic_id)) {
			left_out = "it does not answer";
		}
		if (left_out) {
			hx_log("[hx:platform] APIC id %u is left out: %s", (unsigned)apic_id,
			       left_out);
		} else {
			running++;
		}
	}
	return running;
}
