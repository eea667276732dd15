/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Secondary harts: started one by one through SBI HSM, so that the logical
 * numbers of those that run have no gaps. Each comes through boot.S, takes the
 * kernel table and then sleeps for work (mailbox.h).
 */
#include "board.h"

#include "csr.h"
#include "mailbox.h"
#include "sbi.h"

/*
 * STARTING -> ALIVE -> RUNNING by the hart; STARTING -> ABANDONED by the boot
 * CPU when nothing comes: a hart that appears later finds that and stays away.
 */
enum state { OFF, STARTING, ALIVE, RUNNING, ABANDONED };

enum { PATIENCE_SECONDS = 20 };

struct hx_riscv64_hart hx_board_harts[BOARD_CPUS_MAX];
uint64_t hx_board_cpu_limit = 1;

static uint32_t states[BOARD_CPUS_MAX];
static uint64_t patience_ticks;
static struct hx_system *system_to_join;

void hx_board_smp_init(uint64_t boot_hart, uint64_t timebase_hz)
{
	hx_riscv64_hart_id[0] = boot_hart;
	states[0] = RUNNING;
	patience_ticks = PATIENCE_SECONDS * timebase_hz;
}

/* ---- Hooks of the mailbox ---- */

void hx_board_wake(unsigned cpu)
{
	/* The same software interrupt; the CPU will find no invalidation to do. */
	hx_hal_ipi_tlb(hx_cpus_of(cpu));
}

void hx_board_idle(void)
{
	/* wfi ends for a pending interrupt even while interrupts are off. */
	__asm__ volatile("wfi" : : : "memory");
	HX_CSR_SET(sstatus, HX_SSTATUS_SIE);
	HX_CSR_CLEAR(sstatus, HX_SSTATUS_SIE);
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

static bool start_hart(unsigned cpu, uint64_t hart)
{
	hx_riscv64_hart_id[cpu] = hart;
	__atomic_store_n(&states[cpu], STARTING, __ATOMIC_RELAXED);
	__atomic_store_n(&hx_board_cpu_limit, cpu + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	struct hx_sbi_result r = hx_sbi(HX_SBI_HSM, HX_SBI_HSM_START, hart,
					board_image_pa((const void *)_start).v, 0, 0, 0);
	if (r.error != 0) {
		__atomic_store_n(&hx_board_cpu_limit, cpu, __ATOMIC_RELAXED);
		hx_log("[hx:platform] hart %llu does not start: SBI error %ld",
		       (unsigned long long)hart, r.error);
		return false;
	}
	return true;
}

/* Sleep until it runs; false when it never came. */
static bool await_hart(unsigned cpu)
{
	uint64_t deadline = HX_CSR_READ(time) + patience_ticks;
	hx_board_set_timer(deadline);
	unsigned long irq = hx_hal_irq_save();
	bool came = true;
	while (came && __atomic_load_n(&states[cpu], __ATOMIC_ACQUIRE) != RUNNING) {
		hx_board_idle();
		/* One that is alive will run: it is only slow. */
		came = HX_CSR_READ(time) < deadline || !step(cpu, STARTING, ABANDONED);
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
		uint64_t hart = sys->cpus[i].hardware_id;
		if (running == BOARD_CPUS_MAX) {
			hx_log("[hx:platform] %u CPUs; this board uses %u of them", sys->cpu_count,
			       running);
			break;
		}
		if (!start_hart(running, hart)) {
			continue;
		}
		if (!await_hart(running)) {
			hx_log("[hx:platform] hart %llu was started and never came; no more are",
			       (unsigned long long)hart);
			break;
		}
		running++;
	}
	return running;
}
