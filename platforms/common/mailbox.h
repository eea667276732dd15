/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * mailbox.h - work for CPUs that sleep; gives a board hx_platform_run_on() and
 * hx_platform_join() (hx/platform.h) out of two hooks.
 *
 * One slot a CPU with three counters of jobs, claimed >= posted >= done:
 *
 *      claimed == done      free: whoever increments claimed owns the slot
 *      claimed != posted    its owner is writing the job
 *      posted  != done      the job waits or runs
 *
 * Nobody spins: the CPU sleeps until it has a job, a joiner sleeps until the
 * CPU has counted the job as done and wakes it.
 */
#ifndef HX_MAILBOX_H
#define HX_MAILBOX_H

#include <hx/platform.h>

/* ---- Supplied by the board ---- */

/** Interrupt @p cpu, so that its hx_board_idle() returns. */
void hx_board_wake(unsigned cpu);

/**
 * Sleep until an interrupt has been taken. Called and left with interrupts off;
 * an interrupt that has come since they went off ends the sleep at once.
 */
void hx_board_idle(void);

/* ---- For the board ---- */

/** From now on this CPU takes jobs. */
void hx_mailbox_open(void);

/** Run the jobs of this CPU for ever. Call it with interrupts on. */
_Noreturn void hx_mailbox_serve(void);

#endif
