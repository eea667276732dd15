/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Recovery and pressure. The frames are numbers only: a zone over memory that
 * nobody touches.
 */
#include <hx/recovery.h>

#include "hx_test.h"

enum { FRAMES = 512, FIRST = 0x1000 };

static _Alignas(64) uint8_t metadata[16384];
static struct hx_frames frames;
static struct hx_pressure pressure;
static struct hx_recovery recovery;

/* ---- Recovery ---- */

static struct {
	unsigned calls;
	struct hx_incident incident;
	enum hx_outcome answer;
} handler;

static enum hx_outcome handle(void *context, const struct hx_incident *incident)
{
	HX_CHECK(context == &handler);
	handler.calls++;
	handler.incident = *incident;
	return handler.answer;
}

static void start_recovery(enum hx_outcome answer)
{
	hx_recovery_init(&recovery);
	handler.calls = 0;
	handler.answer = answer;
}

static struct hx_recovered recover(hx_status status)
{
	struct hx_incident incident = {status, hx_va(0x1234), 8192, &frames, "test"};
	return hx_recover(&recovery, &incident);
}

static const hx_status statuses[] = {
#define VALUE(name, value, strategy, errno_value, description) HX_##name,
	HX_STATUS_LIST(VALUE)
#undef VALUE
};

HX_TEST(without_a_handler_the_status_is_returned)
{
	start_recovery(HX_OUTCOME_RETRY);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(statuses); i++) {
		struct hx_recovered r = recover(statuses[i]);
		HX_CHECK_EQUAL(r.strategy, hx_status_strategy(statuses[i]));
		HX_CHECK_EQUAL(r.outcome,
			       statuses[i] == HX_OK ? HX_OUTCOME_NONE : HX_OUTCOME_NO_HANDLER);
	}
	HX_CHECK_EQUAL(handler.calls, 0);
}

HX_TEST(each_strategy_reaches_its_handler)
{
	for (unsigned s = HX_STRATEGY_NONE + 1; s < HX_STRATEGIES; s++) {
		start_recovery(HX_OUTCOME_RETRY);
		HX_CHECK_STATUS(
			hx_recovery_register(&recovery, (enum hx_strategy)s, handle, &handler),
			HX_OK);
		unsigned expected = 0;
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(statuses); i++) {
			bool mine = hx_status_strategy(statuses[i]) == s;
			expected += mine;
			struct hx_recovered r = recover(statuses[i]);
			HX_CHECK_EQUAL(handler.calls, expected);
			HX_CHECK_EQUAL(r.outcome == HX_OUTCOME_RETRY, mine);
			if (mine) {
				HX_CHECK_EQUAL(handler.incident.status, statuses[i]);
				HX_CHECK_EQUAL(handler.incident.va.v, 0x1234);
				HX_CHECK_EQUAL(handler.incident.bytes, 8192);
				HX_CHECK(handler.incident.object == &frames);
				HX_CHECK(hx_streq(handler.incident.operation, "test"));
			}
		}
		HX_CHECK(expected > 0);
		HX_CHECK_EQUAL(recovery.strategies[s].handled, expected);
		HX_CHECK_EQUAL(recovery.strategies[s].mended, expected);
	}
}

HX_TEST(only_retry_counts_as_mended)
{
	static const enum hx_outcome answers[] = {HX_OUTCOME_RETURN, HX_OUTCOME_NONE,
						  HX_OUTCOME_NO_HANDLER, (enum hx_outcome)99};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(answers); i++) {
		start_recovery(answers[i]);
		HX_CHECK_STATUS(
			hx_recovery_register(&recovery, HX_STRATEGY_ALIGN, handle, &handler),
			HX_OK);
		HX_CHECK_EQUAL(recover(HX_INVALID_ALIGNMENT).outcome, HX_OUTCOME_RETURN);
		HX_CHECK_EQUAL(recovery.strategies[HX_STRATEGY_ALIGN].handled, 1);
		HX_CHECK_EQUAL(recovery.strategies[HX_STRATEGY_ALIGN].mended, 0);
	}
}

HX_TEST(registration_is_checked)
{
	start_recovery(HX_OUTCOME_RETRY);
	HX_CHECK_STATUS(hx_recovery_register(NULL, HX_STRATEGY_ALIGN, handle, NULL),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGIES, handle, NULL),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, (enum hx_strategy) - 1, handle, NULL),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_NONE, handle, NULL),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_ALIGN, handle, &handler),
			HX_OK);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_ALIGN, handle, NULL),
			HX_ALREADY_MAPPED);
	HX_CHECK_EQUAL(recover(HX_INVALID_ALIGNMENT).outcome, HX_OUTCOME_RETRY); /* the old one */
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_ALIGN, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(recover(HX_INVALID_ALIGNMENT).outcome, HX_OUTCOME_NO_HANDLER);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_ALIGN, handle, &handler),
			HX_OK);
	for (unsigned o = HX_OUTCOME_NONE; o <= HX_OUTCOME_NO_HANDLER; o++) {
		HX_CHECK(!hx_streq(hx_outcome_name((enum hx_outcome)o), "?"));
	}
	HX_CHECK(hx_streq(hx_outcome_name((enum hx_outcome)99), "?"));
}

/* A handler that removes itself and meets an incident of its own. */
static enum hx_outcome replaces_itself(void *context, const struct hx_incident *incident)
{
	(void)context;
	(void)incident;
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_REMAP, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_REMAP, handle, &handler),
			HX_OK);
	HX_CHECK_EQUAL(recover(HX_ALREADY_MAPPED).outcome, HX_OUTCOME_RETRY);
	return HX_OUTCOME_RETURN;
}

HX_TEST(handlers_run_without_the_lock)
{
	start_recovery(HX_OUTCOME_RETRY);
	HX_CHECK_STATUS(hx_recovery_register(&recovery, HX_STRATEGY_REMAP, replaces_itself, NULL),
			HX_OK);
	HX_CHECK_EQUAL(recover(HX_ALREADY_MAPPED).outcome, HX_OUTCOME_RETURN);
	HX_CHECK_EQUAL(handler.calls, 1);
	HX_CHECK_EQUAL(recovery.strategies[HX_STRATEGY_REMAP].handled, 2);
}

/* ---- Pressure ---- */

static struct hx_pfn held[FRAMES];
static unsigned held_count;

static void start_pressure(void)
{
	frames = (struct hx_frames){.zone_count = 0};
	HX_CHECK_STATUS(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, &hx_frames_bitmap,
					   hx_pfn(FIRST), FRAMES, metadata, sizeof metadata),
			HX_OK);
	hx_pressure_init(&pressure, &frames);
	hx_pressure_attach(&pressure);
	held_count = 0;
}

/* Take frames until @left are free. */
static void hold_all_but(unsigned left)
{
	while (hx_frames_free_frames(&frames) > left) {
		struct hx_pfn_result r = hx_frames_allocate(&frames, 0, HX_ALLOC_NO_PRESSURE);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		held[held_count++] = r.value;
	}
}

static uint64_t let_go(unsigned n)
{
	uint64_t freed = 0;
	for (; n > 0 && held_count > 0; n--, freed++) {
		HX_CHECK_STATUS(hx_frames_free(&frames, held[--held_count], 0), HX_OK);
	}
	return freed;
}

struct source {
	unsigned gives;  /* frames a call */
	uint64_t claims; /* beside them */
	unsigned calls;
	struct hx_pressure_event event;
	unsigned turn; /* when it ran last */
	bool allocates, registers;
};

static unsigned turns;

static uint64_t reclaim(void *context, const struct hx_pressure_event *event)
{
	struct source *s = context;
	s->calls++;
	s->event = *event;
	s->turn = ++turns;
	if (s->allocates) { /* with pressure: refused, not nested, and nothing to be had */
		HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, 0).status, HX_OUT_OF_MEMORY);
		HX_CHECK(!hx_pressure_raise(&pressure, 1));
	}
	if (s->registers) {
		HX_CHECK_STATUS(hx_pressure_register(&pressure, "late", 0, reclaim, s), HX_BUSY);
		HX_CHECK_STATUS(hx_pressure_unregister(&pressure, "only"), HX_BUSY);
	}
	return let_go(s->gives) + s->claims;
}

static void add(const char *name, int priority, struct source *s)
{
	HX_CHECK_STATUS(hx_pressure_register(&pressure, name, priority, reclaim, s), HX_OK);
}

/* A zone below its own low watermark: an event that is no less than MEDIUM. */
HX_TEST(a_zone_that_is_low_is_an_event)
{
	struct source s = {.gives = 2};
	start_pressure();
	add("only", 0, &s);
	HX_CHECK_STATUS(hx_zone_watermarks(&frames.zones[0], 0, FRAMES - 3, FRAMES - 1), HX_OK);
	hold_all_but(FRAMES - 3);
	HX_CHECK_EQUAL(s.calls, 0);
	struct hx_pfn_result r = hx_frames_allocate(&frames, 0, 0);
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_EQUAL(s.calls, 1);
	HX_CHECK_EQUAL(s.event.level, HX_PRESSURE_MEDIUM); /* of all there is plenty */
	HX_CHECK_EQUAL(s.event.frames_wanted, 3);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), FRAMES - 2);
	HX_CHECK_STATUS(hx_frames_free(&frames, r.value, 0), HX_OK); /* high again */
	HX_CHECK_STATUS(hx_pressure_watermarks(&pressure, FRAMES, FRAMES, FRAMES), HX_OK);
	hold_all_but(FRAMES - 3);
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, 0).status, HX_OK);
	HX_CHECK_EQUAL(s.calls, 2);
	HX_CHECK_EQUAL(s.event.level, HX_PRESSURE_CRITICAL);
}

HX_TEST(levels_follow_the_watermarks)
{
	start_pressure();
	HX_CHECK_EQUAL(pressure.min, 8);
	HX_CHECK_EQUAL(pressure.low, 16);
	HX_CHECK_EQUAL(pressure.high, 32);
	HX_CHECK_STATUS(hx_pressure_watermarks(&pressure, 10, 20, 30), HX_OK);
	static const struct {
		unsigned free;
		enum hx_pressure_level level;
	} expected[] = {
		{FRAMES, HX_PRESSURE_NONE}, {30, HX_PRESSURE_NONE},    {29, HX_PRESSURE_LOW},
		{20, HX_PRESSURE_LOW},      {19, HX_PRESSURE_MEDIUM},  {10, HX_PRESSURE_MEDIUM},
		{9, HX_PRESSURE_CRITICAL},  {0, HX_PRESSURE_CRITICAL},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(expected); i++) {
		hold_all_but(expected[i].free);
		HX_CHECK_EQUAL(hx_pressure_level(&pressure), expected[i].level);
	}
	HX_CHECK_STATUS(hx_pressure_watermarks(NULL, 0, 0, 0), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_watermarks(&pressure, 21, 20, 30), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_watermarks(&pressure, 10, 31, 30), HX_INVALID_ARGUMENT);
	HX_CHECK_EQUAL(pressure.low, 20);
	HX_CHECK_STATUS(hx_pressure_watermarks(&pressure, 0, 0, 0), HX_OK);
	HX_CHECK_EQUAL(hx_pressure_level(&pressure), HX_PRESSURE_NONE);
}

HX_TEST(large_memories_have_proportional_watermarks)
{
	frames = (struct hx_frames){.zone_count = 0};
	HX_REQUIRE_STATUS(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, &hx_frames_bump,
					     hx_pfn(FIRST), 65536, metadata, sizeof metadata),
			  HX_OK);
	hx_pressure_init(&pressure, &frames);
	HX_CHECK_EQUAL(pressure.min, 1024);
	HX_CHECK_EQUAL(pressure.low, 2048);
	HX_CHECK_EQUAL(pressure.high, 4096);
}

HX_TEST(reclaimers_run_by_priority_until_enough)
{
	start_pressure();
	struct source a = {.gives = 2}, b = {.gives = 3}, c = {.gives = 100}, d = {.gives = 1};
	add("c", 7, &c);
	add("a", -5, &a);
	add("b", 0, &b);
	add("d", 0, &d); /* as old as it stands: behind b */
	hold_all_but(0);
	HX_CHECK(hx_pressure_raise(&pressure, 6));
	HX_CHECK_EQUAL(a.calls, 1);
	HX_CHECK_EQUAL(b.calls, 1);
	HX_CHECK_EQUAL(d.calls, 1);
	HX_CHECK_EQUAL(c.calls, 0);
	HX_CHECK(a.turn < b.turn && b.turn < d.turn);
	HX_CHECK_EQUAL(a.event.frames_wanted, 6);
	HX_CHECK_EQUAL(b.event.frames_wanted, 4);
	HX_CHECK_EQUAL(d.event.frames_wanted, 1);
	HX_CHECK_EQUAL(a.event.level, HX_PRESSURE_CRITICAL);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), 6);
	HX_CHECK(hx_pressure_raise(&pressure, UINT64_MAX)); /* all run, whatever they give */
	HX_CHECK_EQUAL(c.calls, 1);
	HX_CHECK_EQUAL(pressure.events, 2);
	HX_CHECK_EQUAL(pressure.retries, 2);
	HX_CHECK(hx_streq(pressure.reclaimers[0].name, "a") && pressure.reclaimers[0].calls == 2 &&
		 pressure.reclaimers[0].frames == 4);
	HX_CHECK(hx_streq(pressure.reclaimers[3].name, "c") &&
		 pressure.reclaimers[3].frames == 100);
}

HX_TEST(a_request_is_retried_once)
{
	start_pressure();
	struct source s = {.gives = 1};
	add("only", 0, &s);
	hold_all_but(0);
	struct hx_pfn_result r = hx_frames_allocate(&frames, 0, 0);
	HX_REQUIRE_STATUS(r.status, HX_OK);
	held[held_count++] = r.value;
	HX_CHECK_EQUAL(s.calls, 1);
	HX_CHECK_EQUAL(s.event.level, HX_PRESSURE_CRITICAL);
	/* One frame is freed, four in a row are wanted: one retry, no more. */
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 2, 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(s.calls, 2);
	HX_CHECK_EQUAL(s.event.frames_wanted, 4);
	/* Without pressure nobody is asked. */
	hold_all_but(0);
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, HX_ALLOC_NO_PRESSURE).status,
			HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(s.calls, 2);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
}

HX_TEST(claims_do_not_count_only_frames_do)
{
	start_pressure();
	struct source liar = {.claims = 1000}, poor = {0};
	add("liar", 0, &liar);
	add("poor", 1, &poor);
	hold_all_but(0);
	HX_CHECK(!hx_pressure_raise(&pressure, 1));
	HX_CHECK_EQUAL(liar.calls, 1);
	HX_CHECK_EQUAL(poor.calls, 1);
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(liar.calls, 2);
	HX_CHECK_EQUAL(pressure.events, 2);
	HX_CHECK_EQUAL(pressure.retries, 0);
	HX_CHECK_EQUAL(pressure.reclaimers[0].frames, 0);
}

HX_TEST(nothing_wanted_nothing_done)
{
	start_pressure();
	struct source s = {.gives = 1};
	add("only", 0, &s);
	hold_all_but(100);
	HX_CHECK(!hx_pressure_raise(&pressure, 0));
	HX_CHECK_EQUAL(s.calls, 0);
	HX_CHECK_EQUAL(pressure.events, 0);
	/* Raised while enough is free: the lowest level that is a level. */
	HX_CHECK(hx_pressure_raise(&pressure, 1));
	HX_CHECK_EQUAL(s.event.level, HX_PRESSURE_LOW);
	HX_CHECK_STATUS(hx_pressure_unregister(&pressure, "only"), HX_OK);
	HX_CHECK(!hx_pressure_raise(&pressure, 1));
}

HX_TEST(pressure_inside_pressure_is_refused)
{
	start_pressure();
	struct source s = {.gives = 1, .allocates = true, .registers = true};
	add("only", 0, &s);
	hold_all_but(0);
	struct hx_pfn_result r = hx_frames_allocate(&frames, 0, 0);
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_EQUAL(s.calls, 1);
	HX_CHECK_EQUAL(pressure.events, 1);
	HX_CHECK_EQUAL(pressure.count, 1);
	/* The event is over: the table can change again. */
	HX_CHECK_STATUS(hx_pressure_unregister(&pressure, "only"), HX_OK);
}

HX_TEST(the_table_of_reclaimers_is_checked)
{
	start_pressure();
	static const char *const names[HX_RECLAIMERS_MAX + 1] = {"0", "1", "2", "3", "4", "5",
								 "6", "7", "8", "9", "a", "b",
								 "c", "d", "e", "f", "g"};
	struct source s = {0};
	HX_CHECK_STATUS(hx_pressure_register(NULL, "x", 0, reclaim, &s), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_register(&pressure, NULL, 0, reclaim, &s), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_register(&pressure, "x", 0, NULL, &s), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_unregister(NULL, "x"), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_unregister(&pressure, NULL), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pressure_unregister(&pressure, "x"), HX_NOT_MAPPED);
	for (unsigned i = 0; i < HX_RECLAIMERS_MAX; i++) {
		add(names[i], (int)(i * 7 % 5), &s);
		HX_CHECK_STATUS(hx_pressure_register(&pressure, names[i], 0, reclaim, &s),
				HX_ALREADY_MAPPED);
	}
	HX_CHECK_STATUS(hx_pressure_register(&pressure, names[16], 0, reclaim, &s),
			HX_OUT_OF_MEMORY);
	for (unsigned i = 1; i < HX_RECLAIMERS_MAX; i++) {
		HX_CHECK(pressure.reclaimers[i - 1].priority <= pressure.reclaimers[i].priority);
	}
	HX_CHECK(!hx_pressure_raise(&pressure, 1));
	HX_CHECK_EQUAL(s.calls, HX_RECLAIMERS_MAX);
	for (unsigned i = 0; i < HX_RECLAIMERS_MAX; i += 2) {
		HX_CHECK_STATUS(hx_pressure_unregister(&pressure, names[i]), HX_OK);
		HX_CHECK_STATUS(hx_pressure_unregister(&pressure, names[i]), HX_NOT_MAPPED);
	}
	HX_CHECK_EQUAL(pressure.count, HX_RECLAIMERS_MAX / 2);
	for (unsigned i = 1; i < pressure.count; i++) {
		HX_CHECK(pressure.reclaimers[i - 1].priority <= pressure.reclaimers[i].priority);
	}
	add(names[16], 0, &s);
}

HX_SUITE(recovery, HX_CASE(without_a_handler_the_status_is_returned),
	 HX_CASE(each_strategy_reaches_its_handler), HX_CASE(only_retry_counts_as_mended),
	 HX_CASE(registration_is_checked), HX_CASE(handlers_run_without_the_lock),
	 HX_CASE(a_zone_that_is_low_is_an_event), HX_CASE(levels_follow_the_watermarks),
	 HX_CASE(large_memories_have_proportional_watermarks),
	 HX_CASE(reclaimers_run_by_priority_until_enough), HX_CASE(a_request_is_retried_once),
	 HX_CASE(claims_do_not_count_only_frames_do), HX_CASE(nothing_wanted_nothing_done),
	 HX_CASE(pressure_inside_pressure_is_refused), HX_CASE(the_table_of_reclaimers_is_checked));
