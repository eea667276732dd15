/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Conformance: what CPUs ask of each other beside invalidations. */
#include "conformance.h"

enum { TURNS = 300 };

/*
 * Two CPUs keep each other out of a room with plain stores and loads: the one that is often
 * there says so and looks whether it was asked to stay away, without a fence between the
 * two; the other asks, has all CPUs pass a barrier, and looks whether somebody is inside.
 */
static struct {
	uint32_t busy, stay_away; /* atomic */
	uint32_t inside;          /* atomic: by how many the room is used */
	uint32_t met;             /* atomic: how often two were there */
	uint32_t over;            /* atomic */
	uint32_t visits;
} room;

static void use_room(void)
{
	if (__atomic_exchange_n(&room.inside, 1, __ATOMIC_RELAXED) != 0) {
		__atomic_fetch_add(&room.met, 1, __ATOMIC_RELAXED);
	}
	for (unsigned i = 0; i < 20; i++) {
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&room.inside, 0, __ATOMIC_RELAXED);
}

static void visit_often(void *argument)
{
	(void)argument;
	while (__atomic_load_n(&room.over, __ATOMIC_ACQUIRE) == 0) {
		__atomic_store_n(&room.busy, 1, __ATOMIC_RELAXED);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
		if (__atomic_load_n(&room.stay_away, __ATOMIC_ACQUIRE) == 0) {
			use_room();
			__atomic_store_n(&room.visits, room.visits + 1, __ATOMIC_RELAXED);
		}
		__atomic_store_n(&room.busy, 0, __ATOMIC_RELEASE);
	}
}

/* It answers from its interrupt, whatever it is doing. */
HX_CONFORMANCE(a_barrier_reaches_busy_cpus)
{
	if (one_cpu()) {
		return;
	}
	hx_memset(&room, 0, sizeof room);
	struct hx_cpus all = {hx_cpus_of(0).bits | hx_cpus_of(1).bits};
	HX_REQUIRE(hx_platform_run_on(1, visit_often, NULL));
	while (__atomic_load_n(&room.visits, __ATOMIC_RELAXED) == 0) {
		hx_hal_relax();
	}
	for (unsigned turn = 0; turn < TURNS; turn++) {
		__atomic_store_n(&room.stay_away, 1, __ATOMIC_RELAXED);
		hx_cpu_barrier(all);
		while (__atomic_load_n(&room.busy, __ATOMIC_ACQUIRE) != 0) {
			hx_hal_relax();
		}
		use_room();
		__atomic_store_n(&room.stay_away, 0, __ATOMIC_RELEASE);
		hx_hal_relax();
	}
	__atomic_store_n(&room.over, 1, __ATOMIC_RELEASE);
	hx_platform_join(1);
	HX_CHECK_EQUAL(room.met, 0);
}

static void ask_for_barriers(void *argument)
{
	(void)argument;
	const struct hx_cpus all = {(UINT64_C(1) << hx_test_machine()->cpus) - 1};
	for (unsigned i = 0; i < TURNS; i++) {
		hx_cpu_barrier(all);
	}
}

/* All ask all at once: each answers while it waits. Nobody asks nobody. */
HX_CONFORMANCE(barriers_cross_each_other)
{
	hx_cpu_barrier((struct hx_cpus){0});
	hx_cpu_barrier(hx_cpus_of(hx_hal_cpu_id()));
	for (unsigned cpu = 1; cpu < hx_test_machine()->cpus; cpu++) {
		HX_REQUIRE(hx_platform_run_on(cpu, ask_for_barriers, NULL));
	}
	ask_for_barriers(NULL);
	for (unsigned cpu = 1; cpu < hx_test_machine()->cpus; cpu++) {
		hx_platform_join(cpu);
	}
}
