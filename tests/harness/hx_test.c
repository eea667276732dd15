/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The state of the running case; see hx_test.h. */
#include "hx_test.h"

static unsigned failures;
static const char *skipped;

void hx_test_fail(const char *file, int line, const char *format, ...)
{
	char text[200];
	va_list list;
	va_start(list, format);
	hx_format_list(text, sizeof text, format, list);
	va_end(list);
	unsigned before = __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
	if (before < 20) { /* a loop that fails for ever must not drown the log */
		hx_log("%s:%d: %s", file, line, text);
	}
}

unsigned hx_test_failures(void)
{
	return __atomic_load_n(&failures, __ATOMIC_RELAXED);
}

void hx_test_reset(void)
{
	__atomic_store_n(&failures, 0, __ATOMIC_RELAXED);
	skipped = NULL;
}

void hx_test_skip(const char *reason)
{
	skipped = reason;
}

const char *hx_test_skipped(void)
{
	return skipped;
}
