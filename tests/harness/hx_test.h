/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_test.h - one shape of test case for hosted runs (under Check) and guests
 * (printing TAP), so that the same source runs in both.
 *
 *     HX_TEST(buddy_splits) { HX_REQUIRE(a == b); HX_CHECK_EQUAL(x, 3); }
 *     HX_SUITE(frames, HX_CASE(buddy_splits), ...);
 *
 * A failed CHECK is recorded and the case goes on; a failed REQUIRE ends the
 * function it stands in (helpers that REQUIRE are followed by HX_BAIL()).
 */
#ifndef HX_TEST_H
#define HX_TEST_H

#include <hx/core.h>

struct hx_test_case {
	const char *name;
	void (*run)(void);
};

struct hx_test_suite {
	const char *name;
	unsigned count;
	const struct hx_test_case *cases;
};

/** Records a failure of the running case; the text goes to the log. */
void hx_test_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/** Failures recorded since the case began. */
unsigned hx_test_failures(void);
void hx_test_reset(void);
/** Marks the running case as skipped, with a reason. */
void hx_test_skip(const char *reason);
const char *hx_test_skipped(void);

#define HX_TEST(name) static void name(void)

#define HX_CHECK(c)                                                                                \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			hx_test_fail(__FILE__, __LINE__, "%s", #c);                                \
		}                                                                                  \
	} while (0)

#define HX_REQUIRE(c)                                                                              \
	do {                                                                                       \
		if (!(c)) {                                                                        \
			hx_test_fail(__FILE__, __LINE__, "%s", #c);                                \
			return;                                                                    \
		}                                                                                  \
	} while (0)

#define HX_CHECK_EQUAL(actual, expected)                                                           \
	do {                                                                                       \
		uint64_t a_ = (uint64_t)(actual), e_ = (uint64_t)(expected);                       \
		if (a_ != e_) {                                                                    \
			hx_test_fail(__FILE__, __LINE__, "%s is 0x%llx, not %s (0x%llx)", #actual, \
				     (unsigned long long)a_, #expected, (unsigned long long)e_);   \
		}                                                                                  \
	} while (0)

#define HX_CHECK_STATUS(actual, expected)                                                          \
	do {                                                                                       \
		hx_status a_ = (actual), e_ = (expected);                                          \
		if (a_ != e_) {                                                                    \
			hx_test_fail(__FILE__, __LINE__, "%s is %s, not %s", #actual,              \
				     hx_status_name(a_), hx_status_name(e_));                      \
		}                                                                                  \
	} while (0)

#define HX_REQUIRE_STATUS(actual, expected)                                                        \
	do {                                                                                       \
		hx_status a_ = (actual), e_ = (expected);                                          \
		if (a_ != e_) {                                                                    \
			hx_test_fail(__FILE__, __LINE__, "%s is %s, not %s", #actual,              \
				     hx_status_name(a_), hx_status_name(e_));                      \
			return;                                                                    \
		}                                                                                  \
	} while (0)

/* Behind a call of a helper that may have REQUIREd. */
#define HX_BAIL()                                                                                  \
	do {                                                                                       \
		if (hx_test_failures() > 0) {                                                      \
			return;                                                                    \
		}                                                                                  \
	} while (0)

/* A case's entry in its suite's table, and the table. */
#define HX_CASE(fn)                                                                                \
	{                                                                                          \
		#fn, fn                                                                            \
	}
#define HX_SUITE(id, ...)                                                                          \
	static const struct hx_test_case id##_cases[] = {__VA_ARGS__};                             \
	const struct hx_test_suite hx_suite_##id = {#id, HX_ARRAY_LENGTH(id##_cases), id##_cases}

/**
 * Deterministic random numbers (xorshift64*), so that a failure comes again.
 * Source: Vigna 2016.
 */
struct hx_random {
	uint64_t state; /* not 0 */
};
static inline uint64_t hx_random(struct hx_random *r)
{
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * UINT64_C(0x2545f4914f6cdd1d);
}
/** Uniform enough in 0..n-1; n > 0. */
static inline uint64_t hx_random_below(struct hx_random *r, uint64_t n)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): n > 0 is the caller's word */
	return hx_random(r) % n;
}

#endif
