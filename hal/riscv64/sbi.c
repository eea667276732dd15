/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: asking firmware to reach other harts. SBI names them by a mask and a
 * base: bit i of the mask is hart base + i. Harts that lie further apart are
 * reached group by group.
 */
#include "riscv64.h"
#include "sbi.h"

uint64_t hx_riscv64_hart_id[HX_CPUS_MAX];
bool hx_riscv64_rfence = true;

struct hart_group {
	uint64_t mask, base;
};

/* Take the CPUs of one group, around the lowest hart id, out of *cpus. */
static bool next_group(struct hx_cpus *cpus, struct hart_group *g)
{
	*g = (struct hart_group){0, UINT64_MAX};
	for (unsigned cpu = 0; cpu < HX_CPUS_MAX; cpu++) {
		if (hx_cpus_has(*cpus, cpu) && hx_riscv64_hart_id[cpu] < g->base) {
			g->base = hx_riscv64_hart_id[cpu];
		}
	}
	for (unsigned cpu = 0; cpu < HX_CPUS_MAX; cpu++) {
		if (hx_cpus_has(*cpus, cpu) && hx_riscv64_hart_id[cpu] - g->base < 64) {
			g->mask |= UINT64_C(1) << (hx_riscv64_hart_id[cpu] - g->base);
			cpus->bits &= ~hx_cpus_of(cpu).bits;
		}
	}
	return g->mask != 0;
}

/* Call @extension's @function for each group of the other harts in @cpus; false: refused. */
static bool call_others(struct hx_cpus cpus, unsigned long extension, unsigned long function,
			uint64_t start, uint64_t bytes, uint64_t asid)
{
	/* What this hart has stored must be visible to them when they are asked. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	cpus.bits &= ~hx_cpus_of(hx_hal_cpu_id()).bits;
	struct hart_group g;
	while (next_group(&cpus, &g)) {
		if (hx_sbi(extension, function, g.mask, g.base, start, bytes, asid).error != 0) {
			return false;
		}
	}
	return true;
}

bool hx_riscv64_fence(struct hx_cpus cpus, uint64_t function, uint64_t start, uint64_t bytes,
		      uint64_t asid)
{
	return call_others(cpus, HX_SBI_RFENCE, function, start, bytes, asid);
}

void hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	(void)call_others(cpus, HX_SBI_IPI, HX_SBI_IPI_SEND, 0, 0, 0);
}

void hx_riscv64_fence_i(struct hx_cpus cpus)
{
	__asm__ volatile("fence.i" : : : "memory");
	(void)call_others(cpus, HX_SBI_RFENCE, HX_SBI_RFENCE_I, 0, 0, 0);
}
