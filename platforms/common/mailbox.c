/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Work for CPUs that sleep: see mailbox.h. */
#include "mailbox.h"

static struct slot {
	uint32_t claimed, posted, done; /* jobs; they wrap */
	uint32_t open;
	void (*run)(void *argument);
	void *argument;
	uint64_t waiters; /* bit per CPU that sleeps in hx_platform_join() */
} slots[HX_CPUS_MAX];

void hx_mailbox_open(void)
{
	__atomic_store_n(&slots[hx_hal_cpu_id()].open, 1, __ATOMIC_RELEASE);
}

bool hx_platform_run_on(unsigned cpu, void (*run)(void *argument), void *argument)
{
	if (cpu >= HX_CPUS_MAX || cpu == hx_hal_cpu_id() || !run) {
		return false;
	}
	struct slot *s = &slots[cpu];
	uint32_t done = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
	if (!__atomic_load_n(&s->open, __ATOMIC_ACQUIRE) ||
	    !__atomic_compare_exchange_n(&s->claimed, &(uint32_t){done}, done + 1, false,
					 __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		return false;
	}
	s->run = run;
	s->argument = argument;
	__atomic_store_n(&s->posted, done + 1, __ATOMIC_RELEASE);
	hx_board_wake(cpu);
	return true;
}

/*
 * A joiner says that it waits before it looks at done; the CPU counts done
 * before it looks who waits. Both orders are sequentially consistent, so one of
 * the two sees the other, and no wake-up is lost.
 */
void hx_platform_join(unsigned cpu)
{
	if (cpu >= HX_CPUS_MAX) {
		return;
	}
	struct slot *s = &slots[cpu];
	uint32_t job = __atomic_load_n(&s->posted, __ATOMIC_ACQUIRE);
	unsigned long irq = hx_hal_irq_save();
	for (;;) {
		__atomic_fetch_or(&s->waiters, hx_cpus_of(hx_hal_cpu_id()).bits, __ATOMIC_SEQ_CST);
		if ((int32_t)(__atomic_load_n(&s->done, __ATOMIC_SEQ_CST) - job) >= 0) {
			break;
		}
		hx_board_idle();
	}
	hx_hal_irq_restore(irq);
}

_Noreturn void hx_mailbox_serve(void)
{
	struct slot *s = &slots[hx_hal_cpu_id()];
	for (uint32_t job = 1;; job++) {
		unsigned long irq = hx_hal_irq_save();
		while (__atomic_load_n(&s->posted, __ATOMIC_ACQUIRE) != job) {
			hx_board_idle();
		}
		hx_hal_irq_restore(irq);
		s->run(s->argument);
		__atomic_exchange_n(&s->done, job, __ATOMIC_SEQ_CST);
		uint64_t waiters = __atomic_exchange_n(&s->waiters, 0, __ATOMIC_SEQ_CST);
		for (; waiters != 0; waiters &= waiters - 1) {
			hx_board_wake(hx_ctz64(waiters));
		}
	}
}
