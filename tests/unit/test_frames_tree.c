/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The frame allocator tree where it is different from others: spans of several trees,
 * lifetimes, what CPUs hold and lose, interrupts in the middle of calls, the index that is
 * built anew. The cases that all allocators share are in test_frames.c.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "hx_test.h"
#include "sim.h"

#include "../../memory/frames/tree/tree.h"

enum {
	TREE = TREE_CHILDREN * CHILD_FRAMES,
	BASE = 5 * TREE + 3 * 512 + 77, /* nothing is aligned */
	SPAN = 3 * TREE + 700,
	HELD_MAX = 4096,
	ORDERS = 12,
};

static struct hx_frame_allocator tree;
static const struct hx_frame_trait *trait;
static uint8_t owner[SPAN]; /* of each frame: 0 nobody, else who */

static bool begin(void)
{
	trait = hx_frame_trait_find("tree");
	if (!trait) {
		hx_test_skip("not built in");
		return false;
	}
	tree = (struct hx_frame_allocator){.trait = trait, .base = BASE, .span_frames = SPAN};
	tree.metadata_bytes = trait->metadata_bytes(BASE, SPAN);
	tree.metadata = aligned_alloc(64, (tree.metadata_bytes + 63) / 64 * 64);
	memset(tree.metadata, 0xa5, tree.metadata_bytes);
	memset(owner, 0, sizeof owner);
	hx_sim_play(0);
	if (trait->init(&tree) != HX_OK || trait->add(&tree, hx_pfn(BASE), SPAN) != HX_OK) {
		hx_test_fail(__FILE__, __LINE__, "no tree");
		return false;
	}
	return true;
}

static void end(void)
{
	free(tree.metadata);
}

#define SOUND() HX_CHECK_STATUS(trait->validate(&tree), HX_OK)

/* Claim or give up frames in the shadow; false when one was not as expected. */
static bool change(uint64_t first, uint64_t count, uint8_t from, uint8_t to)
{
	bool right = first >= BASE && first - BASE + count <= SPAN;
	for (uint64_t f = 0; right && f < count; f++) {
		right = __atomic_exchange_n(&owner[first - BASE + f], to, __ATOMIC_RELAXED) == from;
	}
	return right;
}

struct allocation {
	uint64_t first, count;
};

static struct allocation held[HELD_MAX];
static unsigned held_count;

static bool take(unsigned order, uint64_t run, unsigned flags)
{
	struct hx_pfn_result r = run != 0 ? trait->allocate_run(&tree, run, flags, NULL)
					  : trait->allocate(&tree, order, flags, NULL);
	const uint64_t count = run != 0 ? run : UINT64_C(1) << order;
	if (r.status != HX_OK) {
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		return false;
	}
	HX_CHECK(run != 0 || r.value.v % count == 0);
	HX_CHECK(change(r.value.v, count, 0, 1));
	held[held_count++] = (struct allocation){r.value.v, count};
	return true;
}

static void give(unsigned i)
{
	const struct allocation a = held[i];
	held[i] = held[--held_count];
	HX_CHECK(change(a.first, a.count, 1, 0));
	HX_CHECK_STATUS(trait->free_run(&tree, hx_pfn(a.first), a.count), HX_OK);
}

static uint64_t held_frames(void)
{
	uint64_t frames = 0;
	for (unsigned i = 0; i < held_count; i++) {
		frames += held[i].count;
	}
	return frames;
}

static unsigned random_order(struct hx_random *r)
{
	unsigned order = 0;
	while (order + 1 < ORDERS && hx_random_below(r, 2) != 0) {
		order++;
	}
	return order;
}

/* One of the parts of what is held is given at once, the others stay. */
static void split(unsigned i, struct hx_random *r)
{
	const struct allocation a = held[i];
	uint64_t part = 1 + hx_random_below(r, a.count);
	while (a.count % part != 0) {
		part--;
	}
	if (held_count + a.count / part >= HELD_MAX) {
		return;
	}
	HX_CHECK_STATUS(trait->split(&tree, hx_pfn(a.first), a.count, part), HX_OK);
	held[i].count = part;
	for (uint64_t at = part; at < a.count; at += part) {
		held[held_count++] = (struct allocation){a.first + at, part};
	}
}

/* Any calls on any of four CPUs, over several trees. */
HX_TEST(random_calls_keep_it_sound)
{
	struct hx_random r = {2026};
	if (!begin()) {
		return;
	}
	held_count = 0;
	for (unsigned step = 0; step < 20000; step++) {
		hx_sim_play((unsigned)hx_random_below(&r, 4));
		const unsigned flags = hx_random_below(&r, 3) == 0 ? HX_FRAMES_PINNED : 0;
		const bool full = held_count > HELD_MAX - 100 || step / 4000 % 2 == 1;
		switch (hx_random_below(&r, 40)) {
		case 0:
			trait->drain(&tree);
			break;
		case 1:
			if (!full) {
				(void)take(0, 1 + hx_random_below(&r, 3000), flags);
			}
			break;
		case 2:
			if (held_count > 0) {
				split((unsigned)hx_random_below(&r, held_count), &r);
			}
			break;
		default:
			if (held_count > 0 && hx_random_below(&r, 100) < (full ? 60u : 40u)) {
				give((unsigned)hx_random_below(&r, held_count));
			} else if (held_count < HELD_MAX - 100) {
				(void)take(random_order(&r), 0, flags);
			}
		}
		HX_CHECK_EQUAL(trait->free_frames(&tree), SPAN - held_frames());
		if (step % 50 == 0) {
			SOUND();
		}
		HX_BAIL();
	}
	while (held_count > 0) {
		give(held_count - 1);
	}
	SOUND();
	trait->drain(&tree);
	SOUND();
	/* Whole again: every child but those at the edges is free. */
	struct hx_frame_stats s;
	trait->stats(&tree, &s);
	HX_CHECK_EQUAL(s.free_frames, SPAN);
	HX_CHECK_EQUAL(s.cached_frames, 0);
	HX_CHECK_EQUAL(s.allocations, s.frees);
	uint64_t whole = 0;
	for (unsigned o = 9; o <= HX_ORDER_MAX; o++) {
		whole += s.free_blocks[o] << (o - 9);
	}
	HX_CHECK_EQUAL(whole, (BASE + SPAN) / 512 - (BASE + 511) / 512);
	end();
}

/* What one CPU holds is found when another has nothing left. */
HX_TEST(no_frame_is_out_of_reach)
{
	static struct hx_pfn list[SPAN];
	uint64_t n = 0;
	if (!begin()) {
		return;
	}
	for (unsigned cpu = 1; cpu < 8; cpu++) {
		hx_sim_play(cpu);
		for (unsigned order = 0; order < 9; order++) {
			struct hx_pfn_result b = trait->allocate(&tree, order, 0, NULL);
			struct hx_pfn_result p =
				trait->allocate(&tree, order, HX_FRAMES_PINNED, NULL);
			HX_CHECK_STATUS(trait->free(&tree, b.value, order), HX_OK);
			HX_CHECK_STATUS(trait->free(&tree, p.value, order), HX_OK);
		}
	}
	hx_sim_play(0);
	for (;;) {
		struct hx_pfn_result r = trait->allocate(&tree, 0, 0, NULL);
		if (r.status != HX_OK) {
			break;
		}
		HX_CHECK(change(r.value.v, 1, 0, 1));
		list[n++] = r.value;
	}
	HX_CHECK_EQUAL(n, SPAN);
	HX_CHECK_EQUAL(trait->free_frames(&tree), 0);
	SOUND();
	/* In the opposite order, from other CPUs. */
	while (n > 0) {
		hx_sim_play((unsigned)(n / 1000 % 8));
		HX_CHECK_STATUS(trait->free(&tree, list[--n], 0), HX_OK);
	}
	hx_sim_play(0);
	SOUND();
	HX_CHECK_EQUAL(trait->free_frames(&tree), SPAN);
	/* As one piece, which nobody can have while somebody holds a row. */
	HX_CHECK_STATUS(trait->reserve(&tree, hx_pfn(BASE), SPAN), HX_OK);
	SOUND();
	HX_CHECK_STATUS(trait->free_run(&tree, hx_pfn(BASE), SPAN), HX_OK);
	SOUND();
	end();
}

/* Frames that stay lie in children of their own. */
HX_TEST(lifetimes_do_not_mix)
{
	enum { EACH = 2000 };
	static uint8_t in_child[SPAN / 512 + 2];
	if (!begin()) {
		return;
	}
	memset(in_child, 0, sizeof in_child);
	for (unsigned i = 0; i < EACH; i++) {
		const unsigned order = i % 8 == 0 ? 3 : 0;
		for (unsigned pinned = 0; pinned < 2; pinned++) {
			struct hx_pfn_result r = trait->allocate(
				&tree, order, pinned != 0 ? HX_FRAMES_PINNED : 0, NULL);
			HX_CHECK_STATUS(r.status, HX_OK);
			in_child[r.value.v / 512 - BASE / 512] |= (uint8_t)(1u << pinned);
		}
	}
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(in_child); i++) {
		HX_CHECK(in_child[i] != 3);
	}
	end();
}

/* The listings are lost; the frames and the kinds of children tell them. */
HX_TEST(the_index_is_built_anew)
{
	struct hx_random r = {4};
	if (!begin()) {
		return;
	}
	held_count = 0;
	while (held_count < 3000 && take(random_order(&r), 0, 0)) {
	}
	for (unsigned i = 0; i < 1500; i++) {
		give((unsigned)hx_random_below(&r, held_count));
	}
	trait->drain(&tree);
	SOUND();
	hx_frames_tree_rebuild(&tree);
	SOUND();
	/* Now with listings that are wrong: all are full, and nothing is to be had. */
	struct hx_tree *t = tree.metadata;
	for (uint32_t child = t->lead; child < t->children; child++) {
		const enum kind kind = kind_of_state(hx_tree_state(t, child));
		if (has_rows(kind)) {
			hx_tree_set(t, child, state_of(kind, PLACE_FULL));
		}
	}
	memset(t->hints, 0, t->trees * sizeof *t->hints);
	HX_CHECK_STATUS(trait->validate(&tree), HX_CORRUPTED);
	hx_frames_tree_rebuild(&tree);
	SOUND();
	HX_CHECK_EQUAL(trait->free_frames(&tree), SPAN - held_frames());
	while (held_count > 0) {
		give(held_count - 1);
	}
	trait->drain(&tree);
	SOUND();
	HX_CHECK_STATUS(trait->reserve(&tree, hx_pfn(BASE), SPAN), HX_OK);
	end();
}

/* ---- Wrong frees ---- */

/* On every CPU the frames are refused as @want, and stay what they are. */
static void refused(uint64_t first, uint64_t count, hx_status want)
{
	unsigned char *before = malloc(tree.metadata_bytes);
	HX_REQUIRE(before);
	memcpy(before, tree.metadata, tree.metadata_bytes);
	for (unsigned cpu = 0; cpu < 4; cpu++) {
		const unsigned order = hx_log2_ceil(count);
		const struct hx_pfn f = hx_pfn(first);
		hx_status status = HX_OK;
		hx_sim_play(cpu);
		HX_CHECK_STATUS(trait->free_run(&tree, f, count), want);
		HX_CHECK_STATUS(trait->split(&tree, f, count, 1), want);
		if (count == UINT64_C(1) << order) {
			HX_CHECK_STATUS(trait->free(&tree, f, order), want);
		}
		if (count == 1) {
			HX_CHECK_EQUAL(trait->free_bulk(&tree, &f, 1, &status), 0);
			HX_CHECK_STATUS(status, want);
		}
	}
	HX_CHECK(memcmp(before, tree.metadata, tree.metadata_bytes) == 0);
	free(before);
	hx_sim_play(0);
	SOUND();
}

/* A frame is free in the row that a CPU holds, waits to be free, or is free in the bitmap. */
HX_TEST(frames_that_cpus_hold_are_free)
{
	struct hx_pfn f[400];
	hx_status status;
	if (!begin()) {
		return;
	}
	HX_CHECK_EQUAL(trait->allocate_bulk(&tree, f, 400, 0), 400);
	const unsigned private = 399, elsewhere = 5, by_other = 398, rest = 397;
	HX_CHECK_STATUS(trait->free(&tree, f[private], 0), HX_OK);
	HX_CHECK_STATUS(trait->free(&tree, f[elsewhere], 0), HX_OK); /* pending */
	hx_sim_play(2);
	HX_CHECK_STATUS(trait->free(&tree, f[by_other], 0), HX_OK);
	/* Here each is where it was said to be. */
	const struct hx_tree *t = tree.metadata;
	HX_CHECK((uint32_t)t->cpu[0].private_row[0].row == (f[private].v - t->first) / 64);
	HX_CHECK((uint32_t)t->cpu[0].private_row[0].row == (f[by_other].v - t->first) / 64);
	HX_CHECK((uint32_t)t->cpu[0].pending.row == (f[elsewhere].v - t->first) / 64);
	const unsigned those[] = {private, elsewhere, by_other};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(those); i++) {
		refused(f[those[i]].v, 1, HX_DOUBLE_FREE);
		refused(f[those[i]].v, 2, HX_DOUBLE_FREE);
		HX_CHECK_STATUS(trait->block_frames(&tree, f[those[i]]).status, HX_DOUBLE_FREE);
	}
	refused(f[rest].v, 2, HX_WRONG_SIZE_FREE);
	/* A bulk with one of them in the middle of a row frees what stands before it. */
	hx_sim_play(0);
	const struct hx_pfn bulk[] = {f[6], f[elsewhere], f[7]};
	HX_CHECK_EQUAL(trait->free_bulk(&tree, bulk, 3, &status), 1);
	HX_CHECK_STATUS(status, HX_DOUBLE_FREE);
	HX_CHECK_STATUS(trait->free(&tree, f[7], 0), HX_OK);
	HX_CHECK_EQUAL(trait->free_frames(&tree), SPAN - 400 + 5);
	SOUND();
	end();
}

/* What is larger than a child, or made of parts of several. */
HX_TEST(large_allocations_are_freed_whole)
{
	if (!begin()) {
		return;
	}
	for (unsigned order = 9; order < 14; order++) {
		struct hx_pfn_result r = trait->allocate(&tree, order, 0, NULL);
		const uint64_t count = UINT64_C(1) << order;
		HX_REQUIRE_STATUS(r.status, HX_OK);
		refused(r.value.v, count / 2, HX_WRONG_SIZE_FREE);
		refused(r.value.v, count + 1, HX_WRONG_SIZE_FREE);
		refused(r.value.v, 1, HX_WRONG_SIZE_FREE);
		refused(r.value.v + 1, 1, HX_FOREIGN_FREE);
		for (uint64_t at = 512; at < count; at *= 2) {
			refused(r.value.v + at, 512, HX_FOREIGN_FREE);
			refused(r.value.v + at, count - at, HX_FOREIGN_FREE);
		}
		HX_CHECK_STATUS(trait->free(&tree, r.value, order), HX_OK);
		refused(r.value.v, count, HX_DOUBLE_FREE);
		refused(r.value.v, 512, HX_DOUBLE_FREE);
		/* Its neighbour of the same size ends before it. */
		struct hx_pfn_result two[2] = {trait->allocate(&tree, order, 0, NULL),
					       trait->allocate(&tree, order, 0, NULL)};
		HX_CHECK_STATUS(trait->free(&tree, two[1].value, order), HX_OK);
		HX_CHECK_STATUS(trait->free(&tree, two[0].value, order), HX_OK);
	}
	const uint64_t first = (BASE + 511) / 512 * 512 + 300, count = 2000;
	HX_CHECK_STATUS(trait->reserve(&tree, hx_pfn(first), count), HX_OK);
	HX_CHECK_STATUS(trait->reserve(&tree, hx_pfn(first + count), 5), HX_OK);
	refused(first + 212, 512, HX_FOREIGN_FREE);
	refused(first + 212, count - 212, HX_FOREIGN_FREE);
	refused(first, count - 1, HX_WRONG_SIZE_FREE);
	HX_CHECK_STATUS(trait->free_run(&tree, hx_pfn(first + count), 5), HX_OK);
	/* In parts that lie across borders of children and rows. */
	HX_CHECK_STATUS(trait->split(&tree, hx_pfn(first), count, 100), HX_OK);
	refused(first, count, HX_WRONG_SIZE_FREE);
	for (uint64_t at = 0; at < count; at += 100) {
		refused(first + at + 1, 99, HX_FOREIGN_FREE);
		HX_CHECK_STATUS(trait->free_run(&tree, hx_pfn(first + at), 100), HX_OK);
		SOUND();
	}
	HX_CHECK_STATUS(trait->reserve(&tree, hx_pfn(BASE), SPAN), HX_OK);
	end();
}

/* ---- Threads ---- */

enum { THREADS = 4, STEPS = 60000 };

struct worker {
	pthread_t thread;
	uint8_t number;
	uint64_t wrong;
};

/* Frames that one thread took and any other frees; drains, runs and parts in between. */
static uint64_t shared_frames[512]; /* atomic: first << 16 | count */

static void *churn(void *argument)
{
	struct worker *w = argument;
	struct hx_random r = {w->number * UINT64_C(77)};
	hx_sim_play(10u + w->number); /* a thread is one of the first before */
	for (unsigned step = 0; step < STEPS; step++) {
		uint64_t *slot =
			&shared_frames[hx_random_below(&r, HX_ARRAY_LENGTH(shared_frames))];
		const uint64_t kind = hx_random_below(&r, 64);
		const unsigned order = kind < 40 ? 0 : (unsigned)(kind % 11);
		const uint64_t count = kind == 63 ? 700 : UINT64_C(1) << order;
		uint64_t mine = 0;
		if (step % 256 == 0) {
			trait->drain(&tree);
		}
		struct hx_pfn_result got = kind == 63 ? trait->allocate_run(&tree, count, 0, NULL)
						      : trait->allocate(&tree, order, 0, NULL);
		if (got.status == HX_OK) {
			w->wrong += !change(got.value.v, count, 0, w->number);
			w->wrong += !change(got.value.v, count, w->number, 9); /* anybody's */
			mine = got.value.v << 16 | count;
		}
		const uint64_t old = __atomic_exchange_n(slot, mine, __ATOMIC_ACQ_REL);
		if (old != 0) {
			const struct hx_pfn first = hx_pfn(old >> 16);
			w->wrong += !change(first.v, old & 0xffff, 9, 0);
			w->wrong += trait->free_run(&tree, first, old & 0xffff) != HX_OK;
		}
	}
	return NULL;
}

HX_TEST(threads_share_it)
{
	struct worker workers[THREADS];
	if (!begin()) {
		return;
	}
	memset(shared_frames, 0, sizeof shared_frames);
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i] = (struct worker){.number = (uint8_t)(i + 1)};
		HX_REQUIRE(pthread_create(&workers[i].thread, NULL, churn, &workers[i]) == 0);
	}
	uint64_t wrong = 0;
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		wrong += workers[i].wrong;
	}
	HX_CHECK_EQUAL(wrong, 0);
	SOUND();
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(shared_frames); i++) {
		const uint64_t old = shared_frames[i];
		if (old != 0) {
			HX_CHECK_STATUS(trait->free_run(&tree, hx_pfn(old >> 16), old & 0xffff),
					HX_OK);
		}
	}
	SOUND();
	trait->drain(&tree);
	SOUND();
	HX_CHECK_STATUS(trait->reserve(&tree, hx_pfn(BASE), SPAN), HX_OK);
	end();
}

/* ---- Interrupts ---- */

static struct {
	struct hx_random random;
	struct allocation held[64];
	unsigned count;
	unsigned calls, wrong;
} handler;

/* Takes and gives whatever it finds the allocator in the middle of. */
static void interrupt(int signal)
{
	(void)signal;
	const unsigned long irq = hx_hal_irq_save();
	hx_hal_irq_restore(irq);
	for (unsigned i = 0; irq != 0 && i < 3; i++) {
		handler.calls++;
		if (handler.count == HX_ARRAY_LENGTH(handler.held) ||
		    (handler.count > 0 && hx_random_below(&handler.random, 2) != 0)) {
			const unsigned k =
				(unsigned)hx_random_below(&handler.random, handler.count);
			const struct allocation a = handler.held[k];
			handler.held[k] = handler.held[--handler.count];
			handler.wrong += !change(a.first, a.count, 2, 0);
			handler.wrong += trait->free_run(&tree, hx_pfn(a.first), a.count) != HX_OK;
			continue;
		}
		const unsigned kind = (unsigned)hx_random_below(&handler.random, 8);
		const unsigned order = kind == 7 ? 9 : kind > 4 ? kind - 3 : 0;
		struct hx_pfn_result r = trait->allocate(&tree, order, 0, NULL);
		if (r.status == HX_OK) {
			handler.wrong += !change(r.value.v, UINT64_C(1) << order, 0, 2);
			handler.held[handler.count++] =
				(struct allocation){r.value.v, UINT64_C(1) << order};
		}
	}
}

/*
 * Signals play interrupts: they come at any instruction, on the CPU whose call they
 * interrupt. Calls that take the lock keep them away, as they do on a machine: a signal
 * that finds interrupts off is lost.
 */
HX_TEST(interrupts_may_come_anywhere)
{
	struct hx_random r = {8};
	if (!begin()) {
		return;
	}
	memset(&handler, 0, sizeof handler);
	handler.random.state = 77;
	held_count = 0;
	struct sigaction action = {.sa_handler = interrupt};
	HX_REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
	struct itimerval timer = {{0, 50}, {0, 50}};
	HX_REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	for (unsigned step = 0; handler.calls < 3000 && step < 20000000; step++) {
		if (held_count < 1000 && (held_count == 0 || hx_random_below(&r, 2) != 0)) {
			const unsigned order = (unsigned)hx_random_below(&r, 10) == 0
						       ? (unsigned)hx_random_below(&r, 10)
						       : 0;
			(void)take(order, 0, 0);
		} else {
			give((unsigned)hx_random_below(&r, held_count));
		}
		HX_BAIL();
	}
	timer = (struct itimerval){{0, 0}, {0, 0}};
	HX_REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	HX_CHECK(handler.calls >= 3000);
	HX_CHECK_EQUAL(handler.wrong, 0);
	SOUND();
	while (handler.count > 0) {
		const struct allocation a = handler.held[--handler.count];
		HX_CHECK(change(a.first, a.count, 2, 0));
		HX_CHECK_STATUS(trait->free_run(&tree, hx_pfn(a.first), a.count), HX_OK);
	}
	while (held_count > 0) {
		give(held_count - 1);
	}
	trait->drain(&tree);
	SOUND();
	HX_CHECK_EQUAL(trait->free_frames(&tree), SPAN);
	end();
}

HX_SUITE(frames_tree, HX_CASE(random_calls_keep_it_sound), HX_CASE(no_frame_is_out_of_reach),
	 HX_CASE(lifetimes_do_not_mix), HX_CASE(the_index_is_built_anew),
	 HX_CASE(frames_that_cpus_hold_are_free), HX_CASE(large_allocations_are_freed_whole),
	 HX_CASE(threads_share_it), HX_CASE(interrupts_may_come_anywhere));
