/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Frame allocators and the frame database under four CPUs (host threads). A
 * shadow map with one atomic owner a frame stands beside them: a frame that is
 * handed out must have been nobody's.
 */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "hx_test.h"

#include <hx/framedb.h>
#include <sim.h>

enum {
	THREADS = 4,
	SPAN = 6000,
	HELD_MAX = 700,
	BULK_MAX = 40,
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
	unsigned count;
	struct {
		uint64_t first, count;
	} held[HELD_MAX];
};

/* There is room for @count more. */
static bool room(const struct worker *w, unsigned count)
{
	return w->count + count <= HELD_MAX;
}

static void hold(struct worker *w, uint64_t first, uint64_t count)
{
	w->wrong += !change(first, count, 0, w->number);
	w->held[w->count].first = first;
	w->held[w->count++].count = count;
}

/* Nobody's before it is free, or the next owner would be accused. */
static uint64_t let_go(struct worker *w, uint64_t i)
{
	uint64_t first = w->held[i].first;
	w->wrong += !change(first, w->held[i].count, w->number, 0);
	w->held[i] = w->held[--w->count];
	return first;
}

static void get_bulk(struct worker *w, uint64_t most)
{
	struct hx_pfn got[BULK_MAX];
	uint64_t n = hx_frames_allocate_bulk(&frames, got, most, HX_FRAMES_PINNED);
	for (uint64_t i = 0; i < n; i++) {
		hold(w, got[i].v, 1);
	}
	w->refused += n < most;
}

/* Eight frames that were one block, each of which is then freed alone. */
static void get_parts(struct worker *w)
{
	struct hx_pfn_result r = hx_frames_allocate(&frames, 3, 0);
	if (r.status != HX_OK) {
		w->refused++;
		return;
	}
	w->wrong += hx_frames_split(&frames, r.value, 8, 1) != HX_OK;
	for (uint64_t i = 0; i < 8; i++) {
		hold(w, r.value.v + i, 1);
	}
}

static void get_one(struct worker *w, uint64_t kind)
{
	unsigned order = kind == 0 ? 3 : kind == 1 ? 1 : 0;
	uint64_t n = kind == 2 ? 5 : UINT64_C(1) << order;
	struct hx_pfn_result got = kind == 2 ? hx_frames_allocate_contiguous(&frames, n, 0, 0)
					     : hx_frames_allocate(&frames, order, 0);
	if (got.status == HX_OK) {
		hold(w, got.value.v, n);
	} else {
		w->refused++;
	}
}

/* The single frames among the last @most that are held. */
static void put_bulk(struct worker *w, uint64_t most)
{
	struct hx_pfn list[BULK_MAX];
	uint64_t n = 0;
	hx_status status = HX_OK;
	for (unsigned i = w->count; i-- > 0 && w->count - i <= most && n < most;) {
		if (w->held[i].count == 1) {
			list[n++] = hx_pfn(let_go(w, i));
		}
	}
	w->wrong += hx_frames_free_bulk(&frames, list, n, &status) != n || status != HX_OK;
}

static void put_one(struct worker *w, uint64_t i)
{
	uint64_t n = w->held[i].count;
	struct hx_pfn first = hx_pfn(let_go(w, i));
	hx_status s = n == 5 ? hx_frames_free_run(&frames, first, 5)
			     : hx_frames_deallocate(&frames, first);
	w->wrong += s != HX_OK;
}

static void *churn(void *argument)
{
	struct worker *w = argument;
	struct hx_random r = {w->number};
	for (unsigned step = 0; step < STEPS || w->count > 0; step++) {
		uint64_t kind = hx_random_below(&r, 40);
		if (step < STEPS && room(w, BULK_MAX) && hx_random_below(&r, 5) < 3) {
			if (kind == 3) {
				get_bulk(w, 1 + hx_random_below(&r, BULK_MAX));
			} else if (kind == 4) {
				get_parts(w);
			} else {
				get_one(w, kind);
			}
		} else if (kind < 4) {
			put_bulk(w, hx_random_below(&r, BULK_MAX));
		} else if (w->count > 0) {
			put_one(w, hx_random_below(&r, w->count));
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
static pthread_barrier_t gate; /* threads take longer to begin than to free */

/* Odd threads in bulk, which goes on behind what it was refused. */
static void *free_all(void *argument)
{
	struct worker *w = argument;
	pthread_barrier_wait(&gate);
	for (uint64_t i = 0; i < HX_ARRAY_LENGTH(contested);) {
		hx_status s = HX_OK;
		uint64_t freed = 0, most = HX_ARRAY_LENGTH(contested) - i;
		if (w->number % 2 != 0) {
			freed = hx_frames_free_bulk(&frames, &contested[i], most, &s);
		} else {
			s = hx_frames_free(&frames, contested[i], 0);
			freed = s == HX_OK;
		}
		w->refused += freed; /* here: the frees that were accepted */
		w->double_frees += s == HX_DOUBLE_FREE;
		w->wrong += s != HX_OK && s != HX_DOUBLE_FREE;
		i += freed + (s != HX_OK);
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
	HX_REQUIRE(pthread_barrier_init(&gate, NULL, THREADS) == 0);
	for (unsigned round = 0; round < 100; round++) {
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
	pthread_barrier_destroy(&gate);
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

HX_TEST(bitmap_takes_one_of_many_frees)
{
	one_free_wins("bitmap", NULL);
}

/* Two threads free one frame at the very same time, over and over. */
enum { RACES = 20000 };

static struct {
	struct hx_pfn frame;
	unsigned turn, done; /* atomic: the race that is on; the other's free is over */
	hx_status other;
} race;

static void wait_for(const unsigned *number, unsigned at_least)
{
	for (unsigned spins = 1; __atomic_load_n(number, __ATOMIC_ACQUIRE) < at_least; spins++) {
		if (spins % 1024 == 0) {
			sched_yield();
		}
	}
}

static void *race_along(void *argument)
{
	for (unsigned turn = 1; turn <= RACES; turn++) {
		wait_for(&race.turn, turn);
		race.other = hx_frames_free(&frames, race.frame, 0);
		__atomic_store_n(&race.done, turn, __ATOMIC_RELEASE);
	}
	return argument;
}

static void one_of_two_frees_wins(const char *trait, const char *backing)
{
	pthread_t other;
	begin(trait, backing);
	if (frames.zone_count == 0) {
		return;
	}
	HX_REQUIRE(pthread_create(&other, NULL, race_along, NULL) == 0);
	unsigned wrong = 0;
	for (unsigned turn = 1; turn <= RACES; turn++) {
		race.frame = hx_frames_allocate(&frames, 0, 0).value;
		__atomic_store_n(&race.turn, turn, __ATOMIC_RELEASE);
		for (unsigned i = turn % 256; i > 0; i--) { /* the other hears of it late */
			(void)__atomic_load_n(&race.turn, __ATOMIC_RELAXED);
		}
		hx_status mine = hx_frames_free(&frames, race.frame, 0);
		wait_for(&race.done, turn);
		wrong += !(mine == HX_OK && race.other == HX_DOUBLE_FREE) &&
			 !(mine == HX_DOUBLE_FREE && race.other == HX_OK);
	}
	pthread_join(other, NULL);
	HX_CHECK_EQUAL(wrong, 0);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), hx_frames_total_frames(&frames));
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	end();
}

HX_TEST(buddy_takes_one_of_two_frees_at_once)
{
	one_of_two_frees_wins("buddy", NULL);
}

HX_TEST(slab_takes_one_of_two_frees_at_once)
{
	one_of_two_frees_wins("slab", "buddy");
}

/* A request fails only if no frame is free anywhere: other CPUs' magazines are emptied. */
static void bulk_finds_every_frame(const char *trait, const char *backing)
{
	static struct hx_pfn list[SPAN];
	begin(trait, backing);
	if (frames.zone_count == 0) {
		return;
	}
	uint64_t total = hx_frames_total_frames(&frames);
	hx_status status;
	for (unsigned cpu = 1; cpu < THREADS; cpu++) { /* 60 frames stay with each */
		hx_sim_play(cpu);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 60, 0), 60);
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 60, &status), 60);
	}
	hx_sim_play(0);
	HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, total, 0), total);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), 0);
	for (uint64_t i = 0; i < total; i++) {
		HX_CHECK(change(list[i].v, 1, 0, 1));
	}
	HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, total, &status), total);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	end();
}

HX_TEST(slab_over_bitmap_gives_in_bulk_what_others_cached)
{
	bulk_finds_every_frame("slab", "bitmap");
}

HX_TEST(slab_over_buddy_gives_in_bulk_what_others_cached)
{
	bulk_finds_every_frame("slab", "buddy");
}

HX_TEST(tree_gives_in_bulk_what_others_hold)
{
	bulk_finds_every_frame("tree", NULL);
}

/* ---- Wrong frees of what other CPUs have ---- */

/* Refused on every CPU, in every way, and neither frames nor what is known of them change. */
static void refused_everywhere(uint64_t frame, uint64_t count, hx_status want)
{
	struct hx_frame_allocator *a = frames.zones[0].front, before;
	const struct hx_frame_allocator *b = &frames.zones[0].backing;
	static unsigned char copies[2][80 << 10];
	HX_REQUIRE(a->metadata_bytes <= sizeof copies[0] && b->metadata_bytes <= sizeof copies[1]);
	struct hx_pfn f = hx_pfn(frame);
	for (unsigned cpu = 0; cpu < THREADS; cpu++) {
		hx_sim_play(cpu);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		before = *a;
		memcpy(copies[0], a->metadata, a->metadata_bytes);
		memcpy(copies[1], metadata[1], b->metadata_bytes);
		hx_status status = HX_OK;
		HX_CHECK_STATUS(hx_frames_free_run(&frames, f, count), want);
		HX_CHECK_STATUS(hx_frames_split(&frames, f, count, 1), want);
		before.refused_frees += 2;
		if (count == 1) {
			HX_CHECK_STATUS(hx_frames_free(&frames, f, 0), want);
			HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, &f, 1, &status), 0);
			HX_CHECK_STATUS(status, want);
			before.refused_frees += 2;
		}
		before.lock = a->lock;
		HX_CHECK(memcmp(&before, a, sizeof before) == 0);
		HX_CHECK(memcmp(copies[0], a->metadata, a->metadata_bytes) == 0);
		HX_CHECK(memcmp(copies[1], metadata[1], b->metadata_bytes) == 0);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	}
}

/* Frames that CPU 0 was given and CPU 1 frees: they lie in CPU 1's magazine then. */
static void wrong_frees_across_cpus(const char *trait, const char *backing)
{
	begin(trait, backing);
	if (frames.zone_count == 0) {
		return;
	}
	hx_sim_play(0);
	struct hx_pfn_result one = hx_frames_allocate(&frames, 0, 0);
	struct hx_pfn_result held = hx_frames_allocate(&frames, 0, 0);
	struct hx_pfn_result block = hx_frames_allocate(&frames, 3, 0);
	struct hx_pfn bulk[4];
	hx_status status;
	HX_CHECK_STATUS(one.status, HX_OK);
	HX_CHECK_STATUS(held.status, HX_OK);
	HX_CHECK_STATUS(block.status, HX_OK);
	HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, bulk, 4, 0), 4);
	hx_sim_play(1);
	HX_CHECK_STATUS(hx_frames_free(&frames, one.value, 0), HX_OK);
	HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, bulk, 3, &status), 3);
	refused_everywhere(one.value.v, 1, HX_DOUBLE_FREE);
	refused_everywhere(one.value.v, 2, HX_DOUBLE_FREE);
	refused_everywhere(bulk[1].v, 1, HX_DOUBLE_FREE);
	refused_everywhere(bulk[1].v, 8, HX_DOUBLE_FREE);
	refused_everywhere(held.value.v, 2, HX_WRONG_SIZE_FREE);
	refused_everywhere(bulk[3].v, 4, HX_WRONG_SIZE_FREE);
	refused_everywhere(block.value.v, 1, HX_WRONG_SIZE_FREE);
	refused_everywhere(block.value.v, 16, HX_WRONG_SIZE_FREE);
	refused_everywhere(block.value.v + 1, 1, HX_FOREIGN_FREE);
	refused_everywhere(block.value.v + 4, 4, HX_FOREIGN_FREE);
	refused_everywhere(BASE, 1, HX_FOREIGN_FREE); /* holes */
	refused_everywhere(BASE + SPAN - 1, 1, HX_FOREIGN_FREE);
	/* A bulk ends there; what stands before it is freed, from whichever CPU it came. */
	hx_sim_play(2);
	struct hx_pfn mixed[] = {bulk[3], one.value, held.value};
	HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, mixed, 3, &status), 1);
	HX_CHECK_STATUS(status, HX_DOUBLE_FREE);
	HX_CHECK_STATUS(hx_frames_free(&frames, held.value, 0), HX_OK);
	HX_CHECK_STATUS(hx_frames_free(&frames, block.value, 3), HX_OK);
	hx_frames_drain(&frames);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), hx_frames_total_frames(&frames));
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	end();
}

HX_TEST(bitmap_refuses_wrong_frees_on_every_cpu)
{
	wrong_frees_across_cpus("bitmap", NULL);
}

HX_TEST(buddy_refuses_wrong_frees_on_every_cpu)
{
	wrong_frees_across_cpus("buddy", NULL);
}

HX_TEST(slab_over_bitmap_refuses_wrong_frees_on_every_cpu)
{
	wrong_frees_across_cpus("slab", "bitmap");
}

HX_TEST(slab_over_buddy_refuses_wrong_frees_on_every_cpu)
{
	wrong_frees_across_cpus("slab", "buddy");
}

HX_TEST(tree_refuses_wrong_frees_on_every_cpu)
{
	wrong_frees_across_cpus("tree", NULL);
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
	 HX_CASE(bitmap_takes_one_of_many_frees), HX_CASE(buddy_takes_one_of_many_frees),
	 HX_CASE(slab_takes_one_of_many_frees), HX_CASE(buddy_takes_one_of_two_frees_at_once),
	 HX_CASE(slab_takes_one_of_two_frees_at_once),
	 HX_CASE(slab_over_bitmap_gives_in_bulk_what_others_cached),
	 HX_CASE(slab_over_buddy_gives_in_bulk_what_others_cached),
	 HX_CASE(bitmap_refuses_wrong_frees_on_every_cpu),
	 HX_CASE(buddy_refuses_wrong_frees_on_every_cpu),
	 HX_CASE(slab_over_bitmap_refuses_wrong_frees_on_every_cpu),
	 HX_CASE(slab_over_buddy_refuses_wrong_frees_on_every_cpu),
	 HX_CASE(tree_gives_in_bulk_what_others_hold),
	 HX_CASE(tree_refuses_wrong_frees_on_every_cpu), HX_CASE(references_survive_threads));
