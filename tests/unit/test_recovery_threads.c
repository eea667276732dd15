/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Pressure and capabilities with several CPUs. Hosted only: the CPUs are threads
 * of the simulated machine.
 */
#include <hx/platform.h>

#include "hx_test.h"
#include "machine.h"

enum { CPUS = 4, FRAMES = 256, FIRST = 0x100000 };

static _Alignas(64) uint8_t metadata[8192];
static struct hx_frames frames; /* numbers only, nobody touches them */
static struct hx_pressure pressure;

static void start(void)
{
	HX_REQUIRE(hx_test_machine()->cpus >= CPUS);
	frames = (struct hx_frames){.zone_count = 0};
	HX_REQUIRE_STATUS(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, &hx_frames_bitmap,
					     hx_pfn(FIRST), FRAMES, metadata, sizeof metadata),
			  HX_OK);
	hx_pressure_init(&pressure, &frames);
	hx_pressure_attach(&pressure);
}

static void on_all_cpus(void (*run)(void *argument))
{
	static unsigned numbers[CPUS] = {0, 1, 2, 3};
	for (unsigned i = 1; i < CPUS; i++) {
		HX_CHECK(hx_platform_run_on(i, run, &numbers[i]));
	}
	run(&numbers[0]);
	for (unsigned i = 1; i < CPUS; i++) {
		hx_platform_join(i);
	}
}

static unsigned get(const unsigned *v)
{
	return __atomic_load_n(v, __ATOMIC_ACQUIRE);
}

static void set(unsigned *v, unsigned to)
{
	__atomic_store_n(v, to, __ATOMIC_RELEASE);
}

/* ---- A cache that gives frames back under pressure ---- */

static struct hx_pfn cache[FRAMES];
static unsigned cached;  /* changed by the one reclaimer that runs, and before */
static unsigned running; /* reclaimers inside */

static uint64_t shrink_cache(void *context, const struct hx_pressure_event *event)
{
	(void)context;
	HX_CHECK_EQUAL(__atomic_fetch_add(&running, 1, __ATOMIC_ACQ_REL), 0);
	for (unsigned i = 0; i < 50; i++) {
		hx_hal_relax(); /* long enough for others to come and wait */
	}
	uint64_t freed = 0;
	for (; freed < event->frames_wanted + 3 && cached > 0; freed++) {
		HX_CHECK_STATUS(hx_frames_free(&frames, cache[--cached], 0), HX_OK);
	}
	__atomic_fetch_sub(&running, 1, __ATOMIC_ACQ_REL);
	return freed;
}

static unsigned served, refused;

static void allocate_some(void *argument)
{
	(void)argument;
	for (unsigned i = 0; i < FRAMES / CPUS / 2; i++) {
		/* Others may take what was freed before it is this one's turn: ask again. */
		struct hx_pfn_result r = hx_frames_allocate(&frames, 0, 0);
		while (r.status != HX_OK) {
			__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
			r = hx_frames_allocate(&frames, 0, 0);
		}
		__atomic_fetch_add(&served, 1, __ATOMIC_RELAXED);
	}
}

HX_TEST(one_event_serves_all_who_wait)
{
	start();
	HX_BAIL();
	HX_CHECK_STATUS(hx_pressure_register(&pressure, "cache", 0, shrink_cache, NULL), HX_OK);
	while (hx_frames_free_frames(&frames) > 0) {
		cache[cached++] = hx_frames_allocate(&frames, 0, HX_ALLOC_NO_PRESSURE).value;
	}
	on_all_cpus(allocate_some);
	HX_CHECK_EQUAL(served, FRAMES / 2);
	HX_CHECK_EQUAL(cached + hx_frames_free_frames(&frames), FRAMES / 2);
	HX_CHECK_EQUAL(pressure.events, pressure.retries);
	HX_CHECK(pressure.events <= FRAMES / 2 / 4 + 1);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	hx_log("%u served in %llu events, %u asked again", served,
	       (unsigned long long)pressure.events, refused);
}

/* ---- A CPU that waits with interrupts off answers shootdowns ---- */

static unsigned inside, about_to_wait, answered;

static uint64_t shoot_down(void *context, const struct hx_pressure_event *event)
{
	(void)context;
	(void)event;
	set(&inside, 1);
	while (!get(&about_to_wait)) {
		hx_hal_relax();
	}
	for (unsigned i = 0; i < 100; i++) {
		const struct hx_tlb_range range = {.va = hx_va(0x10000), .pages = 1};
		(void)hx_tlb_shootdown(&range, 1, hx_cpus_of(0));
	}
	set(&answered, 1);
	HX_CHECK_STATUS(hx_frames_free_run(&frames, hx_pfn(FIRST), 1), HX_OK);
	return 1;
}

static void raise_elsewhere(void *argument)
{
	(void)argument;
	HX_CHECK(hx_pressure_raise(&pressure, 1));
}

HX_TEST(a_cpu_that_waits_answers_shootdowns)
{
	start();
	HX_BAIL();
	HX_CHECK_STATUS(hx_pressure_register(&pressure, "shooter", 0, shoot_down, NULL), HX_OK);
	HX_REQUIRE_STATUS(hx_frames_reserve(&frames, hx_pfn(FIRST), 1), HX_OK);
	HX_REQUIRE(hx_platform_run_on(1, raise_elsewhere, NULL));
	while (!get(&inside)) {
		hx_hal_relax();
	}
	unsigned long irq = hx_hal_irq_save();
	set(&about_to_wait, 1);
	HX_CHECK(hx_pressure_raise(&pressure, 1)); /* what came of the other's event */
	HX_CHECK(get(&answered));
	hx_hal_irq_restore(irq);
	hx_platform_join(1);
	HX_CHECK_EQUAL(pressure.events, 1);
}

/* ---- Checks against revocation ---- */

enum { ROUNDS = 20000 };

static struct hx_capability slots[8];
static struct hx_capability_table table;
static int thing;
static uint64_t offered, revoked; /* tokens; 0: none */
static unsigned done;

/* A check that begins after the revocation has returned must fail. */
static void check_tokens(void *argument)
{
	(void)argument;
	while (!get(&done)) {
		uint64_t gone = __atomic_load_n(&revoked, __ATOMIC_ACQUIRE);
		struct hx_token t = {__atomic_load_n(&offered, __ATOMIC_ACQUIRE)};
		HX_CHECK_STATUS(hx_capability_check(&table, (struct hx_token){gone}, &thing, 0),
				HX_PERMISSION_DENIED);
		/* Never a right that the token's own life did not have. */
		HX_CHECK_STATUS(hx_capability_check(&table, t, &thing, HX_RIGHT_DEVICE),
				HX_PERMISSION_DENIED);
		HX_CHECK_STATUS(hx_capability_check(&table, t, &table, 0), HX_PERMISSION_DENIED);
	}
}

static void grant_and_revoke(void)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct hx_token_result t =
			hx_capability_create(&table, &thing, HX_RIGHT_MAP | HX_RIGHT_REVOKE);
		HX_CHECK_STATUS(t.status, HX_OK);
		__atomic_store_n(&offered, t.value.v, __ATOMIC_RELEASE);
		HX_CHECK_STATUS(hx_capability_check(&table, t.value, &thing, HX_RIGHT_MAP), HX_OK);
		HX_CHECK_STATUS(hx_capability_revoke(&table, t.value, t.value), HX_OK);
		__atomic_store_n(&revoked, t.value.v, __ATOMIC_RELEASE);
		/* The same slot lives on, with more rights over something else. */
		t = hx_capability_create(&table, &table, HX_RIGHTS_ALL);
		HX_CHECK_STATUS(t.status, HX_OK);
		HX_CHECK_STATUS(hx_capability_revoke(&table, t.value, t.value), HX_OK);
	}
}

HX_TEST(no_check_passes_after_its_revocation)
{
	HX_REQUIRE(hx_test_machine()->cpus >= CPUS);
	HX_REQUIRE_STATUS(hx_capability_init(&table, slots, HX_ARRAY_LENGTH(slots)), HX_OK);
	for (unsigned i = 1; i < CPUS; i++) {
		HX_REQUIRE(hx_platform_run_on(i, check_tokens, NULL));
	}
	grant_and_revoke();
	set(&done, 1);
	for (unsigned i = 1; i < CPUS; i++) {
		hx_platform_join(i);
	}
	HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
}

HX_SUITE(recovery_threads, HX_CASE(one_event_serves_all_who_wait),
	 HX_CASE(a_cpu_that_waits_answers_shootdowns),
	 HX_CASE(no_check_passes_after_its_revocation));
