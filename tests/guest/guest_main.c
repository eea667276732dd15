/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The TAP kernel: boots the whole stack on a board, then runs the suites that
 * hosted runs share. "suite=NAME" on the command line runs one of them, "show=leaves"
 * none: it prints a page table for the machine's monitor to be asked about.
 */
#include <hx/platform.h>

#include "guest.h"
#include "hx_test.h"
#include "machine.h"
#include "say.h"

#define SUITES(X)                                                                                  \
	X(memmap) X(frames) X(zones) X(framedb) X(mapper) X(capability) X(recovery) X(heap)        \
	X(space) X(boot) X(conformance)

#define DECLARE(name) extern const struct hx_test_suite hx_suite_##name;
SUITES(DECLARE)
#undef DECLARE

static const struct hx_test_suite *const suites[] = {
#define POINTER(name) &hx_suite_##name,
	SUITES(POINTER)
#undef POINTER
};

static struct hx_system sys;
static struct hx_test_machine machine;

const struct hx_test_machine *hx_test_machine(void)
{
	return &machine;
}

struct hx_system *hx_test_system(void)
{
	return &sys;
}

void hx_test_readers(bool run)
{
	(void)run;
}

static bool wanted(const struct hx_test_suite *suite)
{
	char name[32];
	return !hx_command_line_get(sys.command_line, "suite", name, sizeof name) ||
	       hx_streq(name, suite->name);
}

static bool run_case(const struct hx_test_suite *suite, unsigned i, unsigned number)
{
	hx_test_reset();
	suite->cases[i].run();
	bool passed = hx_test_failures() == 0;
	say("%sok %u - %s.%s", passed ? "" : "not ", number, suite->name, suite->cases[i].name);
	if (hx_test_skipped()) {
		say(" # SKIP %s", hx_test_skipped());
	}
	say("\n");
	return passed;
}

void hx_main(void)
{
	hx_log_to(hx_platform_write);
	say("TAP version 13\n");
	hx_status s = hx_boot(&sys, hx_platform_boot_args());
	if (s != HX_OK) {
		say("Bail out! boot: %s\n", hx_status_name(s));
		hx_platform_exit(false);
	}
	machine = hx_test_machine_of(&sys);

	char show[16];
	if (hx_command_line_get(sys.command_line, "show", show, sizeof show) &&
	    hx_streq(show, "leaves")) {
		hx_guest_show_leaves();
	}
	unsigned planned = 0, number = 0, failed = 0;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(suites); i++) {
		planned += wanted(suites[i]) ? suites[i]->count : 0;
	}
	say("1..%u\n", planned);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(suites); i++) {
		for (unsigned k = 0; wanted(suites[i]) && k < suites[i]->count; k++) {
			failed += !run_case(suites[i], k, ++number);
		}
	}
	hx_platform_exit(failed == 0 && planned > 0);
}
