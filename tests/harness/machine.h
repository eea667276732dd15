/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * machine.h - the booted machine that a test runs on: the simulated one in
 * hosted runs, the board in guests. It is booted once, when it is first asked
 * for, and shared by the cases that follow: a case puts back what it takes.
 */
#ifndef HX_TEST_MACHINE_H
#define HX_TEST_MACHINE_H

#include <hx/boot.h>
#include <hx/platform.h>

struct hx_test_machine {
	struct hx_frames *frames;
	struct hx_framedb *db;
	struct hx_heap *heap;
	struct hx_pagetable *kernel_table; /* sealed; every CPU runs on it */
	unsigned cpus;                     /* that run, this one included */
};

/** What a test may know of @p sys, which is booted; starts the other CPUs. */
static inline struct hx_test_machine hx_test_machine_of(struct hx_system *sys)
{
	return (struct hx_test_machine){
		.frames = &sys->frames,
		.db = &sys->framedb,
		.heap = &sys->heap,
		.kernel_table = &sys->kernel_table,
		.cpus = hx_platform_start_cpus(sys),
	};
}

/** Never NULL: where the machine does not come up, the run ends. */
const struct hx_test_machine *hx_test_machine(void);

/** Hosted: what must hold when a case has ended. Absent where no case uses the machine. */
void hx_test_end(void);

/**
 * While @p run, tables change under CPUs that read: a stale use may belong to a change
 * that has not returned yet, and only the readers can tell. Guests: nothing.
 */
void hx_test_readers(bool run);

/** The same machine's whole system. */
struct hx_system *hx_test_system(void);

#endif
