/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Bit operations, strings, formatting, statuses: against the hosted libc's. */
#include <stdio.h>
#include <string.h>

#include "hx_test.h"

HX_TEST(bit_scans_match_a_loop)
{
	struct hx_random r = {1};
	for (unsigned i = 0; i < 100000; i++) {
		uint64_t v = hx_random(&r) >> (i & 63);
		if (v == 0) {
			continue;
		}
		unsigned low = 0, high = 63, count = 0;
		while (!(v >> low & 1)) {
			low++;
		}
		while (!(v >> high & 1)) {
			high--;
		}
		for (unsigned b = 0; b < 64; b++) {
			count += v >> b & 1;
		}
		HX_CHECK_EQUAL(hx_ctz64(v), low);
		HX_CHECK_EQUAL(hx_log2_floor(v), high);
		HX_CHECK_EQUAL(hx_popcount64(v), count);
		HX_CHECK_EQUAL(hx_log2_ceil(v), low == high ? high : high + 1);
	}
	for (unsigned b = 0; b < 64; b++) {
		HX_CHECK_EQUAL(hx_ctz64(UINT64_C(1) << b), b);
		HX_CHECK_EQUAL(hx_ctz64(UINT64_MAX << b), b);
	}
}

HX_TEST(align_up_refuses_to_wrap)
{
	uint64_t out = 7;
	HX_CHECK(hx_align_up(1, 4096, &out) && out == 4096);
	HX_CHECK(hx_align_up(0, 4096, &out) && out == 0);
	HX_CHECK(hx_align_up(UINT64_MAX - 4095, 4096, &out) && out == UINT64_MAX - 4095);
	out = 7;
	HX_CHECK(!hx_align_up(UINT64_MAX, 4096, &out) && out == 7);
	HX_CHECK(!hx_align_up(UINT64_MAX - 4094, 4096, &out));
}

HX_TEST(memory_operations_match_libc)
{
	struct hx_random r = {2};
	unsigned char a[300], b[300], c[300];
	for (unsigned i = 0; i < 20000; i++) {
		for (unsigned k = 0; k < sizeof a; k++) {
			a[k] = b[k] = c[k] = (unsigned char)hx_random(&r);
		}
		size_t to = hx_random_below(&r, 40), from = hx_random_below(&r, 40);
		size_t n = hx_random_below(&r, 200);
		switch (i % 3) {
		case 0:
			hx_memset(a + to, (int)n, n);
			memset(b + to, (int)n, n);
			break;
		case 1:
			hx_memmove(a + to, a + from, n);
			memmove(b + to, b + from, n);
			break;
		default:
			hx_memcpy(a + to, c + from, n);
			memcpy(b + to, c + from, n);
			break;
		}
		HX_REQUIRE(memcmp(a, b, sizeof a) == 0);
		int ours = hx_memcmp(a, c, n), theirs = memcmp(a, c, n);
		HX_CHECK((ours < 0) == (theirs < 0) && (ours > 0) == (theirs > 0));
	}
	HX_CHECK(hx_strlen("") == 0 && hx_strlen("abc") == 3);
	HX_CHECK(hx_streq("a", "a") && !hx_streq("a", "ab") && !hx_streq("ab", "a"));
}

HX_TEST(format_matches_snprintf)
{
	char ours[64], theirs[64];
#define SAME(...)                                                                                  \
	do {                                                                                       \
		int n_ = hx_format(ours, sizeof ours, __VA_ARGS__);                                \
		int m_ = snprintf(theirs, sizeof theirs, __VA_ARGS__);                             \
		HX_CHECK_EQUAL(n_, m_);                                                            \
		if (strcmp(ours, theirs) != 0) {                                                   \
			hx_test_fail(__FILE__, __LINE__, "'%s' is not '%s'", ours, theirs);        \
		}                                                                                  \
	} while (0)
	SAME("plain %% text");
	SAME("%d %i %u", -5, 7, 4000000000u);
	SAME("%ld %lu %lld %llu", -5l, 7ul, -9223372036854775807ll - 1, ~0ull);
	SAME("%5d|%-5d|%05d|%3d", 42, 42, -42, 12345);
	SAME("%x %X %lx %016llx", 0xbeefu, 0xbeefu, 0x123456789ul, 0xabcull);
	SAME("%zu", sizeof ours);
	SAME("%s|%8s|%-8s|%.2s|%.*s|%-6.3s", "abc", "abc", "abc", "abc", 1, "abc", "abcdef");
	SAME("%c%3c%-3c", 'a', 'b', 'c');
	const char *volatile longer = /* volatile: gcc warns of a cut that it can foresee */
		"a text that is longer than the sixty-four bytes that the buffer has, by some";
	SAME("%s", longer);
#undef SAME
	HX_CHECK_EQUAL(hx_format(NULL, 0, "%s", "abc"), 3);
}

HX_TEST(log_lines_are_tap_comments)
{
	char line[400];
	hx_memset(line, 'x', sizeof line);
	line[sizeof line - 1] = '\0';
	hx_log("%s", line); /* longer than a line: cut, not overrun */
	HX_CHECK(true);
}

HX_TEST(every_status_has_name_strategy_and_errno)
{
	static const hx_status all[] = {
#define VALUE(n, v, s, e, d) HX_##n,
		HX_STATUS_LIST(VALUE)
#undef VALUE
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(all); i++) {
		HX_CHECK(!hx_streq(hx_status_name(all[i]), "?"));
		HX_CHECK(!hx_streq(hx_status_description(all[i]), "?"));
		HX_CHECK((hx_status_strategy(all[i]) == HX_STRATEGY_NONE) == (all[i] == HX_OK));
		HX_CHECK((hx_status_errno(all[i]) == 0) == (all[i] == HX_OK));
		for (unsigned k = 0; k < i; k++) {
			HX_CHECK(all[i] != all[k]);
		}
	}
	/* The mission's six, by number: they are ABI. */
	HX_CHECK_EQUAL(HX_OUT_OF_MEMORY, 1);
	HX_CHECK_EQUAL(HX_INVALID_ADDRESS, 2);
	HX_CHECK_EQUAL(HX_NOT_MAPPED, 3);
	HX_CHECK_EQUAL(HX_ALREADY_MAPPED, 4);
	HX_CHECK_EQUAL(HX_INVALID_ALIGNMENT, 5);
	HX_CHECK_EQUAL(HX_PERMISSION_DENIED, 6);
	HX_CHECK(hx_streq(hx_status_name((hx_status)999), "?"));
	HX_CHECK_EQUAL(hx_status_errno((hx_status)999), 22);
}

HX_SUITE(core, HX_CASE(bit_scans_match_a_loop), HX_CASE(align_up_refuses_to_wrap),
	 HX_CASE(memory_operations_match_libc), HX_CASE(format_matches_snprintf),
	 HX_CASE(log_lines_are_tap_comments), HX_CASE(every_status_has_name_strategy_and_errno));
