/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Runs one suite (-DSUITE=hx_suite_...) under Check, TAP on standard output. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "hx_test.h"
#include "machine.h"

extern const struct hx_test_suite SUITE;

#pragma weak hx_test_end /* comes with the test machine, where a suite uses it */

static void write_log(const char *text)
{
	fputs(text, stderr);
}

START_TEST(run_case)
{
	hx_test_reset();
	SUITE.cases[_i].run();
	if (hx_test_end) {
		hx_test_end();
	}
	if (hx_test_skipped()) {
		hx_log("%s: skipped: %s", SUITE.cases[_i].name, hx_test_skipped());
	}
	ck_assert_msg(hx_test_failures() == 0, "%s: %u checks failed", SUITE.cases[_i].name,
		      hx_test_failures());
}
END_TEST

int main(void)
{
	hx_log_to(write_log);
	/* One test case per entry, so that every name is visible in the TAP. */
	Suite *suite = suite_create(SUITE.name);
	for (unsigned i = 0; i < SUITE.count; i++) {
		TCase *t = tcase_create(SUITE.cases[i].name);
		tcase_set_timeout(t, 120);
		tcase_add_loop_test(t, run_case, (int)i, (int)i + 1);
		suite_add_tcase(suite, t);
	}
	setenv("CK_TAP_LOG_FILE_NAME", "-", 0);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_SILENT);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
