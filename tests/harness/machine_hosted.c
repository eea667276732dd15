/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The hosted test machine: boots the stack on the simulated machine. A stale use
 * of the TLB fails the case that made it; cases that provoke some on purpose
 * listen themselves (hx_sim_on_stale()).
 */
#include <stdlib.h>

#include <hx/platform.h>
#include <sim.h>

#include "hx_test.h"
#include "machine.h"

static struct hx_system sys;
static struct hx_test_machine machine;

static bool readers; /* atomic */

void hx_test_readers(bool run)
{
	__atomic_store_n(&readers, run, __ATOMIC_SEQ_CST);
}

static void stale_use(const struct hx_sim_stale *s)
{
	if (__atomic_load_n(&readers, __ATOMIC_SEQ_CST)) {
		return;
	}
	hx_test_fail(__FILE__, __LINE__,
		     "CPU %u used a stale %s for 0x%llx: 0x%llx (flags 0x%llx), now %s0x%llx "
		     "(0x%llx)",
		     s->cpu, s->table ? "table" : "page", (unsigned long long)s->va.v,
		     (unsigned long long)s->used.v, (unsigned long long)s->used_flags,
		     s->present ? "" : "absent ", (unsigned long long)s->now.v,
		     (unsigned long long)s->now_flags);
}

/* A TLB that grants what the tables do not is a missed flush, used or not. */
void hx_test_end(void)
{
	unsigned found = machine.cpus > 0 ? hx_sim_audit() : 0;
	if (found > 0) {
		hx_test_fail(__FILE__, __LINE__, "%u stale entries are left in TLBs", found);
	}
}

const struct hx_test_machine *hx_test_machine(void)
{
	if (machine.cpus > 0) {
		return &machine;
	}
	hx_status s = hx_boot(&sys, hx_platform_boot_args());
	if (s != HX_OK) {
		hx_log("the test machine does not boot: %s", hx_status_name(s));
		abort();
	}
	hx_sim_on_stale(stale_use);
	machine = hx_test_machine_of(&sys);
	return &machine;
}

struct hx_system *hx_test_system(void)
{
	(void)hx_test_machine();
	return &sys;
}
