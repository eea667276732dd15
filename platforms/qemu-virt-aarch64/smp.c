/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Secondary CPUs: started one by one through firmware (PSCI CPU_ON), so that the logical
 * numbers of those that run have no gaps. Each comes through boot.S, takes the kernel table
 * and then sleeps for work (mailbox.h).
 */
#include "board.h"

#include "mailbox.h"
#include "sysreg.h"

/*
 * STARTING -> ALIVE -> RUNNING by the CPU; STARTING -> ABANDONED by the boot CPU when
 * nothing comes: a CPU that appears later finds that and stays away.
 */
enum state { OFF, STARTING, ALIVE, RUNNING, ABANDONED };

enum { PATIENCE_SECONDS = 20 };

#define PSCI_CPU_ON UINT32_C(0xc4000003)

struct hx_aarch64_cpu hx_board_cpus[BOARD_CPUS_MAX];

static uint32_t states[BOARD_CPUS_MAX];
static struct hx_system *system_to_join;

void hx_board_smp_init(void)
{
	states[0] = RUNNING;
}

/* ---- Hooks of the mailbox ---- */

void hx_board_wake(unsigned cpu)
{
	/* The same interrupt; the CPU will find no invalidation to do. */
	hx_hal_ipi_tlb(hx_cpus_of(cpu));
}

void hx_board_idle(void)
{
	/* wfi ends for a pending interrupt even while interrupts are off. */
	HX_DSB(sy);
	__asm__ volatile("wfi\n\tmsr daifclr, #2\n\tisb\n\tmsr daifset, #2" : : : "memory");
}

/* ---- The secondary's side ---- */

static bool step(unsigned cpu, uint32_t from, uint32_t to)
{
	return __atomic_compare_exchange_n(&states[cpu], &from, to, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

_Noreturn void hx_board_secondary(void)
{
	unsigned cpu = hx_hal_cpu_id();
	while (!step(cpu, STARTING, ALIVE)) {
		__asm__ volatile("wfi");
	}
	hx_boot_secondary(system_to_join);
	hx_board_traps_on();
	hx_mailbox_open();
	__atomic_store_n(&states[cpu], RUNNING, __ATOMIC_RELEASE);
	hx_board_wake(0);
	hx_mailbox_serve();
}

/* ---- The boot CPU's side ---- */

static bool start_cpu(unsigned cpu, uint64_t affinity)
{
	__atomic_store_n(&states[cpu], STARTING, __ATOMIC_RELAXED);
	HX_DSB(sy);
	int64_t error = hx_board_firmware(PSCI_CPU_ON, affinity,
					  board_image_pa(hx_board_secondary_start).v, cpu);
	if (error != 0) {
		hx_log("[hx:platform] CPU 0x%llx does not start: PSCI error %lld",
		       (unsigned long long)affinity, (long long)error);
	}
	return error == 0;
}

/* Sleep until it runs; false when it never came. */
static bool await_cpu(unsigned cpu)
{
	uint64_t deadline = HX_SYS_READ(cntvct_el0) + PATIENCE_SECONDS * HX_SYS_READ(cntfrq_el0);
	hx_board_set_timer(deadline);
	unsigned long irq = hx_hal_irq_save();
	bool came = true;
	while (came && __atomic_load_n(&states[cpu], __ATOMIC_ACQUIRE) != RUNNING) {
		hx_board_idle();
		/* One that is alive will run: it is only slow. */
		came = HX_SYS_READ(cntvct_el0) < deadline || !step(cpu, STARTING, ABANDONED);
	}
	hx_hal_irq_restore(irq);
	hx_board_set_timer(UINT64_MAX);
	return came;
}

unsigned hx_platform_start_cpus(struct hx_system *sys)
{
	system_to_join = sys;
	unsigned running = 1;
	for (unsigned i = 1; i < sys->cpu_count; i++) {
		uint64_t affinity = sys->cpus[i].hardware_id;
		if (running == BOARD_CPUS_MAX) {
			hx_log("[hx:platform] %u CPUs; this board uses %u of them", sys->cpu_count,
			       running);
			break;
		}
		if (!start_cpu(running, affinity)) {
			continue;
		}
		if (!await_cpu(running)) {
			hx_log("[hx:platform] CPU 0x%llx was started and never came; no more are",
			       (unsigned long long)affinity);
			break;
		}
		running++;
	}
	return running;
}
