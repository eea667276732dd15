/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * x86_64: the local APIC, for interrupts between CPUs and as a timer. Its
 * registers are a page of memory (xAPIC), or MSRs where firmware has switched
 * the CPU to x2APIC mode already. Source: Intel SDM 3A, chapter 11.
 */
#include "cpu.h"
#include "hx_x86.h"

enum { /* registers, by their offset in the page */
	APIC_ID = 0x20,
	APIC_END = 0xb0,
	APIC_SPURIOUS = 0xf0,
	APIC_COMMAND = 0x300,
	APIC_COMMAND_TARGET = 0x310,
	APIC_TIMER_VECTOR = 0x320,
	APIC_TIMER_COUNT = 0x380,
	APIC_TIMER_DIVIDE = 0x3e0,
};

#define APIC_BASE_X2APIC (1u << 10)
#define APIC_BASE_ENABLE (1u << 11)
#define APIC_ON          (1u << 8)  /* in APIC_SPURIOUS */
#define APIC_PENDING     (1u << 12) /* in APIC_COMMAND: not yet delivered */
#define APIC_ASSERT      (1u << 14) /* in APIC_COMMAND: set in all that is sent today */
#define APIC_MASKED      (1u << 16) /* in a vector register */
#define APIC_DIVIDE_BY_1 0xbu

static struct hx_pa registers; /* 0: MSRs */
static uint32_t apic_ids[HX_CPUS_MAX];

static volatile uint32_t *at(unsigned reg)
{
	return (volatile uint32_t *)(registers.v + hx_hal_direct_offset + reg);
}

static uint32_t get(unsigned reg)
{
	return registers.v ? *at(reg) : (uint32_t)hx_x86_rdmsr(HX_X86_MSR_X2APIC + reg / 16);
}

static void set(unsigned reg, uint32_t v)
{
	if (registers.v) {
		*at(reg) = v;
	} else {
		hx_x86_wrmsr(HX_X86_MSR_X2APIC + reg / 16, v);
	}
}

bool hx_x86_apic_start(void)
{
	bool present = hx_x86_cpuid(1).edx >> 9 & 1;
	if (!present) {
		return false;
	}
	uint64_t base = hx_x86_rdmsr(HX_X86_MSR_APIC_BASE);
	hx_x86_wrmsr(HX_X86_MSR_APIC_BASE, base | APIC_BASE_ENABLE);
	registers = hx_pa(base & APIC_BASE_X2APIC ? 0 : base & 0xfffffffffffff000);
	set(APIC_SPURIOUS, APIC_ON | HX_X86_VECTOR_SPURIOUS);
	set(APIC_TIMER_VECTOR, APIC_MASKED);
	return true;
}

struct hx_pa hx_x86_apic_registers(void)
{
	return registers;
}

uint32_t hx_x86_apic_id(void)
{
	return registers.v ? get(APIC_ID) >> 24 : get(APIC_ID);
}

void hx_x86_apic_assign(unsigned cpu, uint32_t apic_id)
{
	apic_ids[cpu] = apic_id;
}

void hx_x86_apic_end(void)
{
	set(APIC_END, 0);
}

void hx_x86_apic_send(unsigned cpu, uint32_t command)
{
	command |= APIC_ASSERT;
	/* Target and command are two stores: a handler that sends must not come between. */
	unsigned long irq = hx_hal_irq_save();
	if (registers.v) {
		while (get(APIC_COMMAND) & APIC_PENDING) {
			hx_hal_relax();
		}
		set(APIC_COMMAND_TARGET, apic_ids[cpu] << 24);
		set(APIC_COMMAND, command);
	} else {
		/* A write to this MSR orders nothing: what the target reads must be visible. */
		__asm__ volatile("mfence; lfence" : : : "memory");
		hx_x86_wrmsr(HX_X86_MSR_X2APIC + APIC_COMMAND / 16,
			     (uint64_t)apic_ids[cpu] << 32 | command);
	}
	hx_hal_irq_restore(irq);
}

void hx_x86_apic_timer(uint8_t vector, uint32_t ticks)
{
	set(APIC_TIMER_DIVIDE, APIC_DIVIDE_BY_1);
	set(APIC_TIMER_VECTOR, ticks ? vector : vector | APIC_MASKED);
	set(APIC_TIMER_COUNT, ticks);
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	(void)ranges, (void)n, (void)cpus;
	return false; /* the machine cannot: hx_hal_ipi_tlb() */
}

void hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	cpus.bits &= ~hx_cpus_of(hx_hal_cpu_id()).bits;
	for (unsigned cpu = 0; cpu < HX_CPUS_MAX; cpu++) {
		if (hx_cpus_has(cpus, cpu)) {
			hx_x86_apic_send(cpu, HX_X86_VECTOR_TLB);
		}
	}
}
