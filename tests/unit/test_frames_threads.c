/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Frame allocators and the frame database under four CPUs (host threads). A
 * shadow map with one atomic owner a frame stands beside them: a frame that is
 * handed out must have been nobody's.
 */
#include <pthread.h>
#include <stdlib.h>

#include "hx_test.h"

#include <hx/framedb.h>

enum {
	THREADS = 4,
	SPAN = 6000,
	HELD_MAX = 700,
	STEPS = 30000,
	BASE = 12345,
};

static struct hx_frames frames;
static uint8_t owner[SPAN]; /* 0: nobody, else the thread's number */

/* Claim or give up [first, first + count); false when it was not as expected. */
static bool change(uint64_t first, uint64_t count, uint8_t from, uint8_t to)
{
	bool right = true;
	for (uint64_t f = first - BASE; f < first - BASE + count; f++) {
		right = right && f < SPAN &&
			__atomic_exchange_n(&owner[f], to, __ATOMIC_RELAXED) == from;
	}
	return right;
}

struct worker {
	uint8_t number; /* from 1 */
	uint64_t wrong, refused, double_frees;
};

static void *churn(void *argument)
{
	struct worker *w = argument;
	struct hx_random r = {w->number};
	struct {
		uint64_t first, count;
	} held[HELD_MAX];
	unsigned count = 0;
	for (unsigned step = 0; step < STEPS || count > 0; step++) {
		bool get = step < STEPS && count < HELD_MAX && hx_random_below(&r, 5) < 3;
		if (get) {
			uint64_t kind = hx_random_below(&r, 20);
			unsigned order = kind == 0 ? 3 : kind == 1 ? 1 : 0;
			uint64_t n = kind == 2 ? 5 : UINT64_C(1) << order;
			struct hx_pfn_result got =
				kind == 2 ? hx_frames_allocate_contiguous(&frames, n, 0, 0)
					  : hx_frames_allocate(&frames, order, 0);
			if (got.status == HX_OK) {
				w->wrong += !change(got.value.v, n, 0, w->number);
				held[count].first = got.value.v;
				held[count++].count = n;
			} else {
				w->refused++;
			}
		} else if (count > 0) {
			uint64_t i = hx_random_below(&r, count);
			uint64_t first = held[i].first, n = held[i].count;
			held[i] = held[--count];
			/* Nobody's before it is free, or the next owner would be accused. */
			w->wrong += !change(first, n, w->number, 0);
			hx_status s = n == 5 ? hx_frames_free_run(&frames, hx_pfn(first), 5)
					     : hx_frames_deallocate(&frames, hx_pfn(first));
			w->wrong += s != HX_OK;
		}
		if (step % 4096 == 0) {
			hx_frames_drain(&frames);
		}
	}
	return NULL;
}

static uint64_t run(void *(*body)(void *), struct worker workers[THREADS])
{
	pthread_t threads[THREADS];
	uint64_t wrong = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.number = (uint8_t)(i + 1)};
		if (pthread_create(&threads[i], NULL, body, &workers[i]) != 0) {
			hx_test_fail(__FILE__, __LINE__, "no thread");
			abort();
		}
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		wrong += workers[i].wrong;
	}
	return wrong;
}

static void *metadata[2];

/* One zone of @trait over @backing; few frames, so that magazines run dry. */
static void begin(const char *trait, const char *backing)
{
	const struct hx_frame_trait *t = hx_frame_trait_find(trait);
	const struct hx_frame_trait *under = backing ? hx_frame_trait_find(backing) : NULL;
	frames = (struct hx_frames){.zone_count = 0};
	if (!t || (backing && !under)) {
		hx_test_skip("not built in");
		return;
	}
	uint64_t bytes = t->metadata_bytes(BASE, SPAN);
	uint64_t under_bytes = under ? under->metadata_bytes(BASE, SPAN) : 64;
	metadata[0] = aligned_alloc(64, (bytes + 63) / 64 * 64);
	metadata[1] = aligned_alloc(64, (under_bytes + 63) / 64 * 64);
	HX_REQUIRE(metadata[0] && metadata[1]);
	struct hx_zone *z = &frames.zones[0];
	*z = (struct hx_zone){.kind = HX_ZONE_NORMAL, .front = &z->allocator};
	if (under) {
		z->backing = (struct hx_frame_allocator){
			.trait = under,
			.base = BASE,
			.span_frames = SPAN,
			.metadata = metadata[1],
			.metadata_bytes = under_bytes,
		};
		HX_REQUIRE_STATUS(under->init(&z->backing), HX_OK);
	}
	z->allocator = (struct hx_frame_allocator){
		.trait = t,
		.base = BASE,
		.span_frames = SPAN,
		.metadata = metadata[0],
		.metadata_bytes = bytes,
		.backing = under ? &z->backing : NULL,
	};
	HX_REQUIRE_STATUS(t->init(&z->allocator), HX_OK);
	frames.zone_count = 1;
	/* Less than the threads together want to hold. */
	HX_REQUIRE_STATUS(hx_frames_donate(&frames, hx_pfn(BASE + 100), SPAN / 10), HX_OK);
	HX_REQUIRE_STATUS(hx_frames_donate(&frames, hx_pfn(BASE + SPAN / 2), SPAN / 20), HX_OK);
	hx_memset(owner, 0, sizeof owner);
}

static void end(void)
{
	free(metadata[0]);
	free(metadata[1]);
}

static void no_frame_twice(const char *trait, const char *backing)
{
	struct worker workers[THREADS];
	begin(trait, backing);
	if (frames.zone_count == 0) {
		return;
	}
	uint64_t total = hx_frames_total_frames(&frames), refused = 0;
	struct hx_frame_stats before, after;
	hx_frames_stats(&frames, &before);
	HX_CHECK_EQUAL(run(churn, workers), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		refused += workers[i].refused;
	}
	HX_CHECK(refused > 0); /* it was tight at times */
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), total);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	hx_frames_drain(&frames);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	hx_frames_stats(&frames, &after);
	HX_CHECK_EQUAL(after.cached_frames, 0);
	HX_CHECK_EQUAL(after.allocations, after.frees);
	HX_CHECK_EQUAL(after.refused_frees, 0);
	HX_CHECK(hx_memcmp(before.free_blocks, after.free_blocks, sizeof after.free_blocks) == 0);
	end();
}

HX_TEST(bitmap_hands_no_frame_out_twice)
{
	no_frame_twice("bitmap", NULL);
}

HX_TEST(buddy_hands_no_frame_out_twice)
{
	no_frame_twice("buddy", NULL);
}

HX_TEST(slab_over_bitmap_hands_no_frame_out_twice)
{
	no_frame_twice("slab", "bitmap");
}

HX_TEST(slab_over_buddy_hands_no_frame_out_twice)
{
	no_frame_twice("slab", "buddy");
}

HX_TEST(tree_hands_no_frame_out_twice)
{
	no_frame_twice("tree", NULL);
}

/* All threads free the same frames at once: each is freed exactly once. */
static struct hx_pfn contested[200];

static void *free_all(void *argument)
{
	struct worker *w = argument;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(contested); i++) {
		hx_status s = hx_frames_free(&frames, contested[i], 0);
		w->refused += s == HX_OK; /* here: the frees that were accepted */
		w->double_frees += s == HX_DOUBLE_FREE;
		w->wrong += s != HX_OK && s != HX_DOUBLE_FREE;
	}
	return NULL;
}

static void one_free_wins(const char *trait, const char *backing)
{
	struct worker workers[THREADS];
	begin(trait, backing);
	if (frames.zone_count == 0) {
		return;
	}
	uint64_t total = hx_frames_free_frames(&frames);
	for (unsigned round = 0; round < 30; round++) {
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(contested); i++) {
			struct hx_pfn_result r = hx_frames_allocate(&frames, 0, 0);
			HX_CHECK_STATUS(r.status, HX_OK);
			contested[i] = r.value;
		}
		HX_CHECK_EQUAL(run(free_all, workers), 0);
		uint64_t freed = 0, refused = 0;
		for (unsigned i = 0; i < THREADS; i++) {
			freed += workers[i].refused;
			refused += workers[i].double_frees;
		}
		HX_CHECK_EQUAL(freed, HX_ARRAY_LENGTH(contested));
		HX_CHECK_EQUAL(refused, (THREADS - 1) * HX_ARRAY_LENGTH(contested));
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), total);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
	end();
}

HX_TEST(buddy_takes_one_of_many_frees)
{
	one_free_wins("buddy", NULL);
}

HX_TEST(slab_takes_one_of_many_frees)
{
	one_free_wins("slab", "buddy");
}

/* ---- The frame database ---- */

enum { SECTION_FRAMES = 32768, DB_SECTIONS = 4, DB_STEPS = 20000 };

static struct hx_framedb db;

/* All at once describe a frame of their own in each section, which none has yet. */
static void *make_sections(void *argument)
{
	struct worker *w = argument;
	for (uint64_t i = 0; i < DB_SECTIONS; i++) {
		uint64_t own = i * SECTION_FRAMES + w->number;
		w->wrong += hx_framedb_set(&db, hx_pfn(own), 1, HX_TAG_HEAP, w) != HX_OK;
		w->wrong += hx_framedb_tag(&db, hx_pfn(own)) != HX_TAG_HEAP;
	}
	return NULL;
}

/* Frame 0 of each section is everybody's: gets and puts are balanced. */
static void *count_references(void *argument)
{
	struct worker *w = argument;
	struct hx_random r = {w->number};
	for (unsigned i = 0; i < DB_STEPS; i++) {
		struct hx_pfn f = hx_pfn(hx_random_below(&r, DB_SECTIONS) * SECTION_FRAMES);
		bool last;
		w->wrong += hx_framedb_get(&db, f) != HX_OK;
		w->wrong += hx_framedb_put(&db, f, &last) != HX_OK || last;
	}
	return NULL;
}

static void *put_last(void *argument)
{
	struct worker *w = argument;
	for (uint64_t i = 0; i < DB_SECTIONS; i++) {
		bool last;
		w->wrong += hx_framedb_put(&db, hx_pfn(i * SECTION_FRAMES), &last) != HX_OK;
		w->refused += last; /* here: was the last one */
	}
	return NULL;
}

HX_TEST(references_survive_threads)
{
	enum { POOL_BYTES = (DB_SECTIONS + THREADS) << 19 };
	static void *directory[DB_SECTIONS];
	static const uint64_t first = UINT64_C(0x100000);
	struct worker workers[THREADS];
	const struct hx_frame_trait *t = hx_frame_trait_find("buddy");
	if (!t) {
		hx_test_skip("not built in");
		return;
	}
	unsigned char *pool = aligned_alloc(4096, POOL_BYTES);
	void *memory = aligned_alloc(64, 64 << 10);
	HX_REQUIRE(pool && memory);
	hx_hal_direct_offset = (uintptr_t)pool - (uintptr_t)(first * HX_FRAME_BYTES);
	frames = (struct hx_frames){.zone_count = 0};
	HX_REQUIRE_STATUS(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, t, hx_pfn(first),
					     POOL_BYTES / HX_FRAME_BYTES, memory, 64 << 10),
			  HX_OK);
	uint64_t before = hx_frames_free_frames(&frames);
	HX_REQUIRE_STATUS(hx_framedb_init(&db, &frames, directory,
					  hx_pa(DB_SECTIONS * SECTION_FRAMES * HX_FRAME_BYTES)),
			  HX_OK);
	HX_CHECK_EQUAL(run(make_sections, workers), 0);
	HX_CHECK_EQUAL(db.sections_live, DB_SECTIONS);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before - (DB_SECTIONS << 7));
	for (uint64_t i = 0; i < DB_SECTIONS; i++) {
		HX_CHECK_STATUS(
			hx_framedb_set(&db, hx_pfn(i * SECTION_FRAMES), 1, HX_TAG_ANONYMOUS, NULL),
			HX_OK);
	}
	HX_CHECK_EQUAL(run(count_references, workers), 0);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_HEAP), THREADS * DB_SECTIONS);
	for (uint64_t i = 0; i < DB_SECTIONS; i++) {
		struct hx_frame *e = hx_framedb_find(&db, hx_pfn(i * SECTION_FRAMES));
		HX_REQUIRE(e != NULL);
		HX_CHECK_EQUAL(e->references, 1);
		e->references = THREADS;
	}
	HX_CHECK_EQUAL(run(put_last, workers), 0);
	uint64_t lasts = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		lasts += workers[i].refused;
	}
	HX_CHECK_EQUAL(lasts, DB_SECTIONS); /* exactly one thread saw each go */
	hx_framedb_destroy(&db);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
	free(pool);
	free(memory);
}

HX_SUITE(frames_threads, HX_CASE(bitmap_hands_no_frame_out_twice),
	 HX_CASE(buddy_hands_no_frame_out_twice),
	 HX_CASE(slab_over_bitmap_hands_no_frame_out_twice),
	 HX_CASE(slab_over_buddy_hands_no_frame_out_twice), HX_CASE(tree_hands_no_frame_out_twice),
	 HX_CASE(buddy_takes_one_of_many_frees), HX_CASE(slab_takes_one_of_many_frees),
	 HX_CASE(references_survive_threads));
