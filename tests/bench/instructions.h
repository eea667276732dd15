/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * instructions.h - the machine's own count of the instructions that it has executed,
 * for kernels that run under QEMU with -icount shift=0.
 *
 *      riscv64   instret
 *      aarch64   PMU, event counter 0, event INST_RETIRED
 *      x86_64    the time-stamp counter: under -icount time goes on by one with each
 *                instruction. Without -icount it counts something else. Of a repeated
 *                string instruction each round counts
 *
 * Reading it costs some instructions, each time as many. That a known sequence counts as
 * what it is must be checked before any other count is believed.
 */
#ifndef HX_BENCH_INSTRUCTIONS_H
#define HX_BENCH_INSTRUCTIONS_H

#include <hx/units.h>

#if defined(__riscv)

#define BENCH_MACHINE "riscv64"
#define BENCH_LOOP_TEXT "1: addi %0, %0, -1; bnez %0, 1b"

static HX_ALWAYS_INLINE void bench_instructions_start(void)
{
}

static HX_ALWAYS_INLINE uint64_t bench_instructions(void)
{
	uint64_t count;
	__asm__ volatile("csrr %0, instret" : "=r"(count) : : "memory");
	return count;
}

#elif defined(__aarch64__)

#define BENCH_MACHINE "aarch64"
#define BENCH_LOOP_TEXT "1: subs %0, %0, #1; b.ne 1b"

static HX_ALWAYS_INLINE void bench_instructions_start(void)
{
	const uint64_t counter = 0, inst_retired = 8, enable_and_reset = 3;
	__asm__ volatile("msr pmevtyper0_el0, %0" : : "r"(inst_retired));
	__asm__ volatile("msr pmcntenset_el0, %0" : : "r"(UINT64_C(1) << counter));
	__asm__ volatile("msr pmcr_el0, %0; isb" : : "r"(enable_and_reset) : "memory");
}

static HX_ALWAYS_INLINE uint64_t bench_instructions(void)
{
	uint64_t count;
	__asm__ volatile("isb; mrs %0, pmevcntr0_el0; isb" : "=r"(count) : : "memory");
	return count;
}

#elif defined(__x86_64__)

#define BENCH_MACHINE "x86_64"
#define BENCH_LOOP_TEXT "1: dec %0; jnz 1b"

static HX_ALWAYS_INLINE void bench_instructions_start(void)
{
}

static HX_ALWAYS_INLINE uint64_t bench_instructions(void)
{
	uint32_t low, high;
	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

#else
#error "no counter of instructions for this machine"
#endif

/** Exactly @p n times "nop" and nothing else; @p n a constant. */
#define BENCH_NOPS(n) __asm__ volatile(".rept %c0; nop; .endr" : : "i"(n) : "memory")

/** A loop of @p rounds rounds, of two instructions each; @p rounds is a variable, 0 after. */
#define BENCH_LOOP(rounds) __asm__ volatile(BENCH_LOOP_TEXT : "+r"(rounds) : : "memory", "cc")

#endif
