/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/platform.h - what a board under platforms/ gives to the programs that run
 * on it (the demo, the guest tests, the benches). platforms/hosted gives the
 * same on the simulated machine. Not part of the library: a kernel has its own.
 */
#ifndef HX_PLATFORM_H
#define HX_PLATFORM_H

#include <hx/boot.h>

/** "qemu-virt-riscv64", ... */
extern const char hx_platform_name[];

/** Write to the console; blocking, callable from any context. */
void hx_platform_write(const char *text);

/** End the machine; the exit status of QEMU is 0 or, through the runner, 1. */
_Noreturn void hx_platform_exit(bool well);

/** Everything hx_boot() wants; static storage. */
const struct hx_boot_args *hx_platform_boot_args(void);

/**
 * After hx_boot(): start the secondary CPUs; each calls hx_boot_secondary() and
 * then sleeps, waiting for work.
 * @return CPUs that run now, this one included
 */
unsigned hx_platform_start_cpus(struct hx_system *sys);

/**
 * Run @p run(argument) on CPU @p cpu with interrupts on, return at once (false:
 * no such CPU, or busy). hx_platform_join() sleeps until it is done. @p cpu
 * must not be the caller's.
 */
bool hx_platform_run_on(unsigned cpu, void (*run)(void *argument), void *argument);
void hx_platform_join(unsigned cpu);

/* One access through this CPU's MMU, as an instruction would make it. */
struct hx_probe {
	struct hx_va va;        /* naturally aligned, 8 bytes; EXECUTE: a function */
	enum hx_access access;
	bool user;              /* from user mode */
	uint64_t value;         /* in: written; out: read */
	bool faulted;           /* out: the access was refused, not resolved */
	struct hx_fault fault;  /* out, when faulted */
};

/**
 * EXECUTE calls the code at va, which must be hx_platform_return_code copied
 * there (and the instruction stream made coherent with hx_platform_code_written()).
 * Faults go to hx_upcall_fault() first; if that resolves them the access is
 * retried, otherwise @p p->faulted.
 */
void hx_platform_probe(struct hx_probe *p);

/**
 * Copy @p bytes between user addresses of the current space, as a kernel does
 * for a process: from supervisor mode with user access; faults are resolved on
 * the way by hx_upcall_fault(). Both ranges must be mapped with the
 * rights; they and the length are multiples of 8 bytes.
 * @return false when a fault could not be resolved (part may be copied)
 */
bool hx_platform_copy(struct hx_va to, struct hx_va from, uint64_t bytes);

/** Machine code of a function that returns at once: position-independent. */
extern const uint8_t hx_platform_return_code[];
extern const size_t hx_platform_return_code_bytes;
void hx_platform_code_written(void);

/** A monotonic counter and its unit ("instructions" under -icount, "ns", ...). */
uint64_t hx_platform_ticks(void);
extern const char hx_platform_tick_unit[];

/** The program: called by the platform on the boot CPU, stage 1 done. */
void hx_main(void);

#endif
