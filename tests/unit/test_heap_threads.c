/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The kernel heap on several CPUs at once, and over a direct map that is as
 * aligned as that of a board (the simulated machine's need not be). Hosted only:
 * threads play the CPUs, and a static array the memory.
 */
#include <pthread.h>
#include <sched.h>

#include <hx/heap.h>

#include "hx_test.h"

enum {
	POOL_FRAMES = 8192, /* 32 MiB */
	THREADS = 4,
	SLOTS = 64,
	ROUNDS = 6000,
};

static uint8_t memory[POOL_FRAMES * HX_FRAME_BYTES] __attribute__((aligned(2 << 20)));
static uint8_t metadata[256 << 10] __attribute__((aligned(64)));
static struct hx_frames pool;
static struct hx_heap heap;

/* @offset: of the direct map; with 0 a pointer is aligned as its frame is. */
static void pool_open(uintptr_t offset)
{
	hx_hal_direct_offset = offset;
	const struct hx_frame_trait *t = hx_frame_trait_find("buddy");
	t = t != NULL ? t : hx_frame_trait_find("bitmap");
	HX_REQUIRE(t != NULL);
	hx_memset(&pool, 0, sizeof pool);
	HX_REQUIRE_STATUS(hx_frames_add_zone(&pool, HX_ZONE_NORMAL, 0, t,
					     hx_pa_to_pfn(hx_ptr_to_pa(memory)), POOL_FRAMES,
					     metadata, sizeof metadata),
			  HX_OK);
}

static void heap_open(const char *name, uintptr_t offset)
{
	pool_open(offset);
	HX_BAIL();
	hx_heap_init(&heap);
	struct hx_heap_config c = {.trait = hx_heap_trait_find(name), .frames = &pool};
	HX_REQUIRE_STATUS(hx_heap_use(&heap, &c), HX_OK);
}

/* ---- Objects that wander between threads ---- */

struct parcel {
	uint64_t bytes;
	uint64_t mark; /* of the address and the size; the last word repeats it */
};

static struct parcel *slots[SLOTS];
static uint64_t failed_requests;
static bool stop;

static uint64_t mark_of(const struct parcel *p)
{
	return ((uint64_t)(uintptr_t)p ^ p->bytes << 40) * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t *last_word(struct parcel *p)
{
	return (uint64_t *)(void *)((uint8_t *)p + (p->bytes & ~UINT64_C(7))) - 1;
}

static void seal(struct parcel *p, uint64_t bytes)
{
	p->bytes = bytes;
	p->mark = mark_of(p);
	*last_word(p) = p->mark;
}

static void open_parcel(struct parcel *p, bool sized)
{
	HX_CHECK_EQUAL(p->mark, mark_of(p));
	HX_CHECK_EQUAL(*last_word(p), p->mark);
	HX_CHECK_STATUS(sized ? hx_heap_free_sized(&heap, p, p->bytes) : hx_heap_free(&heap, p),
			HX_OK);
}

static void *wander(void *argument)
{
	struct hx_random r = {(uint64_t)(uintptr_t)argument * 77 + 1};
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t bytes = 24 + hx_random_below(&r, i % 50 == 0 ? 100000 : 1500);
		struct hx_ptr_result got = hx_heap_allocate(&heap, bytes, 0, 0);
		struct parcel *p = got.value;
		if (got.status == HX_OK) {
			seal(p, bytes);
			if (i % 16 == 0) {
				got = hx_heap_reallocate(&heap, p, bytes + 500, 0, 0);
				HX_CHECK(got.status == HX_OK || got.status == HX_OUT_OF_MEMORY);
				if (got.status == HX_OK) {
					p = got.value;
					HX_CHECK_EQUAL(p->bytes, bytes);
					seal(p, bytes + 500);
				}
			}
		} else {
			HX_CHECK_STATUS(got.status, HX_OUT_OF_MEMORY);
			__atomic_fetch_add(&failed_requests, 1, __ATOMIC_RELAXED);
		}
		/* Whoever finds it frees it: mostly another thread. */
		p = __atomic_exchange_n(&slots[hx_random_below(&r, SLOTS)], p, __ATOMIC_ACQ_REL);
		if (p != NULL) {
			open_parcel(p, i % 2 == 0);
		}
		/* Other CPUs must run now and then also where there are few. */
		if (i % 64 == 0) {
			sched_yield();
		}
	}
	return NULL;
}

static void *shrink_until_stopped(void *argument)
{
	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE)) {
		hx_heap_shrink(&heap);
		struct hx_heap_stats s;
		hx_heap_stats(&heap, &s);
		HX_CHECK(s.live_objects <= SLOTS + 3 * THREADS);
		sched_yield();
	}
	return NULL;
}

static void exchange_objects(const char *name, bool reuses)
{
	if (hx_heap_trait_find(name) == NULL) {
		hx_test_skip("not built in");
		return;
	}
	heap_open(name, 0);
	HX_BAIL();
	uint64_t baseline = hx_frames_free_frames(&pool);
	pthread_t threads[THREADS], shrinker;
	stop = false;
	failed_requests = 0;
	HX_REQUIRE(pthread_create(&shrinker, NULL, shrink_until_stopped, NULL) == 0);
	for (uintptr_t i = 0; i < THREADS; i++) {
		HX_REQUIRE(pthread_create(&threads[i], NULL, wander, (void *)i) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(shrinker, NULL);

	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	for (unsigned i = 0; i < SLOTS; i++) {
		if (slots[i] != NULL) {
			open_parcel(slots[i], true);
			slots[i] = NULL;
		}
	}
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	HX_CHECK_EQUAL(s.live_objects, 0);
	HX_CHECK_EQUAL(s.live_bytes, 0);
	HX_CHECK_EQUAL(s.refused_frees, 0);
	HX_CHECK(s.failures >= failed_requests);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	hx_heap_shrink(&heap);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	if (reuses) {
		HX_CHECK_EQUAL(failed_requests, 0);
		HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
	}
}

HX_TEST(bump_on_four_cpus)
{
	exchange_objects("bump", false);
}

HX_TEST(simple_on_four_cpus)
{
	exchange_objects("simple", true);
}

HX_TEST(slab_on_four_cpus)
{
	exchange_objects("slab", true);
}

/* ---- Racing frees of one object ---- */

enum { RACES = 2000 };

static void *target;
static pthread_barrier_t gate;
static unsigned freed, refused;

static void *race(void *argument)
{
	for (unsigned round = 0; round < RACES; round++) {
		if (argument != NULL) { /* one of them sets up the race */
			size_t bytes = round % 100 == 0 ? 50000 : 64;
			struct hx_ptr_result r = hx_heap_allocate(&heap, bytes, 0, 0);
			HX_CHECK_STATUS(r.status, HX_OK);
			target = r.value;
		}
		pthread_barrier_wait(&gate);
		hx_status status = hx_heap_free(&heap, target);
		if (status == HX_OK) {
			__atomic_fetch_add(&freed, 1, __ATOMIC_RELAXED);
		} else {
			HX_CHECK(status == HX_DOUBLE_FREE || status == HX_FOREIGN_FREE);
			__atomic_fetch_add(&refused, 1, __ATOMIC_RELAXED);
		}
		pthread_barrier_wait(&gate);
	}
	return NULL;
}

static void race_frees(const char *name)
{
	if (hx_heap_trait_find(name) == NULL) {
		hx_test_skip("not built in");
		return;
	}
	heap_open(name, 0);
	HX_BAIL();
	pthread_t threads[THREADS];
	pthread_barrier_init(&gate, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		HX_REQUIRE(pthread_create(&threads[i], NULL, race, i == 0 ? &gate : NULL) == 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
	}
	HX_CHECK_EQUAL(freed, RACES);
	HX_CHECK_EQUAL(refused, RACES * (THREADS - 1));
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	HX_CHECK_EQUAL(s.live_objects, 0);
	HX_CHECK_EQUAL(s.live_bytes, 0);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
}

HX_TEST(one_of_racing_frees_wins_in_simple)
{
	race_frees("simple");
}

HX_TEST(one_of_racing_frees_wins_in_slab)
{
	race_frees("slab");
}

/* ---- Alignment over a direct map that is aligned itself, and over one that is not ---- */

static void align_objects(uintptr_t offset, bool exact)
{
	if (hx_heap_trait_find("slab") == NULL) {
		hx_test_skip("not built in");
		return;
	}
	heap_open("slab", offset);
	HX_BAIL();
	uint64_t baseline = hx_frames_free_frames(&pool);
	for (size_t align = 16; align <= 4 << 20; align *= 2) {
		for (size_t bytes = 1; bytes <= 4 << 20; bytes = bytes * 7 + 3) {
			uint64_t before = hx_frames_free_frames(&pool);
			struct hx_ptr_result r = hx_heap_allocate(&heap, bytes, align, 0);
			HX_REQUIRE_STATUS(r.status, HX_OK);
			HX_CHECK(hx_is_aligned((uintptr_t)r.value, align));
			if (exact && align > HX_KIB(32)) {
				/* Aligned frames, not a large run with an aligned part. */
				uint64_t taken = before - hx_frames_free_frames(&pool);
				uint64_t frames = (bytes + HX_FRAME_BYTES - 1) / HX_FRAME_BYTES;
				HX_CHECK(taken < 2 * frames + 30); /* and metadata */
			}
			hx_memset(r.value, 0xa5, hx_heap_usable(&heap, r.value));
			HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
			HX_CHECK_STATUS(hx_heap_free_sized(&heap, r.value, bytes), HX_OK);
		}
	}
	HX_CHECK(hx_heap_shrink(&heap) > 0);
	HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
	HX_CHECK_STATUS(hx_frames_validate(&pool), HX_OK);
}

HX_TEST(slab_over_an_aligned_direct_map)
{
	align_objects(0, true);
}

HX_TEST(slab_over_an_unaligned_direct_map)
{
	align_objects(3 * HX_FRAME_BYTES, false);
	align_objects((uintptr_t)memory - HX_FRAME_BYTES, false);
}

HX_SUITE(heap_threads, HX_CASE(bump_on_four_cpus), HX_CASE(simple_on_four_cpus),
	 HX_CASE(slab_on_four_cpus), HX_CASE(one_of_racing_frees_wins_in_simple),
	 HX_CASE(one_of_racing_frees_wins_in_slab), HX_CASE(slab_over_an_aligned_direct_map),
	 HX_CASE(slab_over_an_unaligned_direct_map));
