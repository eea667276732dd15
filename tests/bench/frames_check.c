/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The frames suite tests itself: on a small span each workload runs one round with each
 * subject behind a checker, an allocator that counts calls and keeps a shadow of all frames.
 * What a workload says it did must be what the checker saw, and be what its name promises.
 * That a fault would be seen is tested with subjects in which one is planted.
 */
#include <stdio.h>
#include <stdlib.h>

#include "frames.h"

enum { FRAMES = 64 << 8, WANTED = 20000 }; /* 64 MiB */

/* ---- The checker: one at a time ---- */

static struct {
	struct hx_frame_trait trait;
	bool alone;                    /* one CPU */
	uint64_t *shadow, *put_before; /* a bit for each frame */
	/* Atomic. */
	uint64_t distinct; /* blocks put, each counted once */
	uint64_t gets, puts, wrong;
	uint64_t held, low, high; /* frames; the extremes since seen_anew() */
	uint64_t by_order[HX_ORDER_MAX + 1];
	/* Of one CPU: which frames in which order. */
	uint64_t get_hash, put_hash;
} seen;

static void limit(uint64_t *extreme, uint64_t v, bool highest)
{
	uint64_t old = __atomic_load_n(extreme, __ATOMIC_RELAXED);
	while ((highest ? v > old : v < old) &&
	       !__atomic_compare_exchange_n(extreme, &old, v, true, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED)) {
	}
}

static void note(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void saw_get(struct hx_pfn first, unsigned order)
{
	uint64_t n = UINT64_C(1) << order;
	note(&seen.wrong, !frames_shadow_turn(seen.shadow, FRAMES, first, order, true));
	note(&seen.gets, 1);
	note(&seen.by_order[order], 1);
	limit(&seen.high, __atomic_add_fetch(&seen.held, n, __ATOMIC_RELAXED), true);
	if (seen.alone) {
		seen.get_hash = seen.get_hash * 31 + first.v;
	}
}

static void saw_put(struct hx_pfn first, unsigned order)
{
	uint64_t n = UINT64_C(1) << order;
	note(&seen.wrong, !frames_shadow_turn(seen.shadow, FRAMES, first, order, false));
	note(&seen.puts, 1);
	note(&seen.distinct, frames_shadow_turn(seen.put_before, FRAMES, first, 0, true));
	limit(&seen.low, __atomic_sub_fetch(&seen.held, n, __ATOMIC_RELAXED), false);
	if (seen.alone) {
		seen.put_hash = seen.put_hash * 31 + first.v;
	}
}

static struct hx_pfn_result checked_allocate(struct hx_frame_allocator *a, unsigned order,
					     unsigned flags, const struct hx_frame_constraint *c)
{
	struct hx_pfn_result r = a->backing->trait->allocate(a->backing, order, flags, c);
	if (r.status == HX_OK) {
		saw_get(r.value, order);
	}
	return r;
}

static hx_status checked_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	saw_put(first, order); /* it may be another's at once */
	return a->backing->trait->free(a->backing, first, order);
}

static uint64_t checked_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
				      uint64_t count, unsigned flags)
{
	uint64_t n = a->backing->trait->allocate_bulk(a->backing, out, count, flags);
	for (uint64_t i = 0; i < n; i++) {
		saw_get(out[i], 0);
	}
	return n;
}

static uint64_t checked_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				  uint64_t count, hx_status *status)
{
	for (uint64_t i = 0; i < count; i++) {
		saw_put(frames[i], 0);
	}
	return a->backing->trait->free_bulk(a->backing, frames, count, status);
}

static void checked_drain(struct hx_frame_allocator *a)
{
	a->backing->trait->drain(a->backing);
}

static uint64_t checked_free_frames(const struct hx_frame_allocator *a)
{
	return a->backing->trait->free_frames(a->backing);
}

static hx_status checked_validate(const struct hx_frame_allocator *a)
{
	return a->backing->trait->validate(a->backing);
}

static void seen_anew(void)
{
	seen.gets = seen.puts = seen.distinct = 0;
	hx_memset(seen.put_before, 0, FRAMES / 8);
	seen.low = seen.high = seen.held;
	seen.get_hash = seen.put_hash = 0;
	for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
		seen.by_order[o] = 0;
	}
}

void frames_check_begin(struct frames_instance *i, unsigned cpus)
{
	const struct hx_frame_trait *behind = i->front.trait;
	seen.alone = cpus == 1;
	seen.shadow = frames_memory(FRAMES / 8);
	seen.put_before = frames_memory(FRAMES / 8);
	seen.held = seen.wrong = 0;
	seen_anew();
	seen.trait = (struct hx_frame_trait){
		.name = i->subject->name,
		.allocate = checked_allocate,
		.free = checked_free,
		.drain = checked_drain,
		.free_frames = checked_free_frames,
		.allocate_bulk = behind->allocate_bulk ? checked_allocate_bulk : NULL,
		.free_bulk = behind->free_bulk ? checked_free_bulk : NULL,
		.validate = behind->validate ? checked_validate : NULL,
	};
	i->checker = (struct hx_frame_allocator){.trait = &seen.trait,
						 .base = FRAMES_BASE,
						 .span_frames = i->frames,
						 .backing = &i->front};
	i->a = &i->checker;
}

/* ---- Results ---- */

static unsigned results, failures;

static void result(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void result(bool passed, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	failures += !passed;
	printf("%sok %u - ", passed ? "" : "not ", ++results);
	vprintf(format, list);
	printf("\n");
	fflush(stdout);
	va_end(list);
}

static const char *complaint;

static void expect(bool holds, const char *what)
{
	if (!holds && complaint == NULL) {
		complaint = what;
	}
}

/* ---- What each workload promises ---- */

static bool is_named(const struct frames_run *r, const char *name)
{
	return hx_streq(r->workload->name, name);
}

static void expect_round(const struct frames_run *r)
{
	uint64_t gets = 0, puts = 0;
	for (unsigned cpu = 0; cpu < r->threads; cpu++) {
		gets += r->workers[cpu].gets;
		puts += r->workers[cpu].puts;
	}
	uint64_t cpus = r->threads;
	if (cpus == 0) {
		expect(false, "no CPU ran");
		return;
	}
	uint64_t quota = (FRAMES >> r->order) / cpus, all = quota * cpus;
	uint64_t each = r->wanted / cpus, half = all / 2;
	uint64_t size = UINT64_C(1) << r->order;
	bool same_order = seen.get_hash == seen.put_hash, alone = seen.alone;
	expect(gets == seen.gets && puts == seen.puts, "other calls than it says");
	expect(gets != 0 && puts != 0, "it did nothing");
	expect(seen.wrong == 0, "a frame was handed out twice");
	expect(!alone || frames_run_refused(r, false) == 0, "it was refused");
	if (is_named(r, "bulk") || is_named(r, "batch0") || is_named(r, "rand")) {
		uint64_t passes = quota != 0 && quota <= each ? each / quota : 1;
		expect(gets == all * passes && puts == gets, "not all of the span was moved");
		expect(seen.low == 0 && seen.high == all * size, "not from empty to full");
		expect(!alone || same_order != is_named(r, "rand"),
		       "not in the order that it says");
	} else if (is_named(r, "repeat")) {
		expect(gets == each * cpus && puts == gets, "not as many pairs");
		expect(!alone || same_order, "it puts what it did not get");
		expect(seen.low >= half * size && seen.high <= (half + 2 * cpus) * size,
		       "not at half occupancy");
	} else if (is_named(r, "churn") || is_named(r, "latency")) {
		expect(gets == each * cpus && puts == gets, "not as many pairs");
		/* Of random ones a third at least is another than those before. */
		expect(seen.distinct * 3 >= (puts < half ? puts : half), "not put at random");
		expect(seen.high <= (half + cpus) * size &&
			       seen.low + 2 * cpus * size >= half * size,
		       "not at half occupancy");
	} else if (is_named(r, "mixed")) {
		expect(gets + puts == each * cpus, "not as many calls");
		expect(seen.high < half + cpus * FRAMES_BLOCK &&
			       seen.low + cpus * FRAMES_BLOCK >= half,
		       "not at half occupancy");
		expect(seen.by_order[0] > gets * 4 / 10 && seen.by_order[0] < gets * 6 / 10 &&
			       seen.by_order[1] > gets * 2 / 10 &&
			       seen.by_order[1] < gets * 3 / 10 && seen.by_order[5] != 0 &&
			       seen.by_order[FRAMES_MIXED_ORDERS] == 0,
		       "not the orders that it says");
	} else if (is_named(r, "remote")) {
		expect(gets == puts && gets > r->wanted * 4 / 10 && gets <= r->wanted,
		       "not as many calls");
	} else {
		expect(false, "nobody says what it promises");
	}
	if (is_named(r, "latency")) {
		expect(r->value[0] <= r->value[1] && r->value[1] <= r->value[2] &&
			       r->value[3] <= r->value[4] && r->value[4] <= r->value[5],
		       "percentiles do not rise");
	}
	for (unsigned v = 0; v < FRAMES_VALUES && r->workload->values[v]; v++) {
		expect(r->value[v] >= 0 && r->value[v] < 1e9, "a figure is none");
	}
}

/* Times are noisy, these are not. */
static void expect_atomics(const struct frames_run *r, const char *name)
{
	const char *const *values = r->workload->values;
	for (const struct frames_atomics *m = frames_atomics; m->workload; m++) {
		for (unsigned v = 0; v < FRAMES_VALUES && values[v]; v++) {
			expect(!hx_streq(m->workload, name) || !hx_streq(m->value, values[v]) ||
				       r->atomics[v] <= m->most,
			       "more atomic read-modify-writes than it may");
		}
	}
}

static void check_workload(const struct frames_workload *w, unsigned order, unsigned threads,
			   const struct frames_subject *s)
{
	if (!frames_run_possible(w, order, threads, s)) {
		return;
	}
	struct frames_run *r = frames_run_begin(w, order, threads, s, FRAMES, WANTED, true);
	char name[FRAMES_NAME];
	frames_name(w, order, name);
	complaint = NULL;
	for (unsigned round = 0; round < 2; round++) {
		seen_anew();
		frames_run_round(r);
		expect_round(r);
		if (threads == 1 && hx_streq(s->name, "tree")) {
			expect_atomics(r, name); /* all 0 where nobody counts */
		}
	}
	const char *wrong = frames_run_end(r);
	expect(wrong == NULL, wrong);
	expect(seen.held == 0 && seen.wrong == 0, "the end is not as the beginning");
	free(seen.shadow);
	free(seen.put_before);
	result(complaint == NULL, "%s-%u-%s%s%s", name, threads, s->name, complaint ? ": " : "",
	       complaint ? complaint : "");
}

static void check_shape(const struct frames_shape *shape, const struct frames_subject *s)
{
	struct frames_instance i;
	if (s->deal) {
		return;
	}
	complaint = NULL;
	frames_create(&i, s, FRAMES, 1);
	frames_check_begin(&i, 1);
	struct frames_shape_result r = shape->run(&i);
	expect(r.figure >= 0 && r.figure <= 1, "the figure is no share");
	expect(r.served >= 0 && r.served <= r.figure, "more was served than there is");
	expect(seen.gets > FRAMES && seen.gets == seen.puts && seen.held == 0, "something is kept");
	expect(seen.wrong == 0, "a frame was handed out twice");
	const char *wrong = frames_all_free(&i);
	expect(wrong == NULL, wrong);
	free(seen.shadow);
	free(seen.put_before);
	frames_destroy(&i);
	result(complaint == NULL, "%s-%s%s%s", shape->name, s->name, complaint ? ": " : "",
	       complaint ? complaint : "");
}

static void check_stress(const struct frames_subject *s, unsigned threads)
{
	struct frames_instance i;
	if (s->deal) {
		return;
	}
	frames_create(&i, s, FRAMES, threads);
	struct frames_stress r = frames_stress(&i, threads, WANTED);
	frames_destroy(&i);
	result(r.wrong == 0 && r.leaked == 0 && r.operations == WANTED / threads * threads,
	       "stress-%u-%s", threads, s->name);
}

static void check_costs(const struct frames_subject *s)
{
	double bits = frames_metadata_bits(s, FRAMES), ns = frames_init_ns(s, FRAMES);
	result(bits >= 1 && bits < 1000 && ns > 0, "costs-%s", s->name);
}

/* ---- Planted faults ---- */

static uint64_t calls;
static struct hx_pfn last, twice; /* got by the call before; held by two */

/* Now and then the single frame that was got just before, again. */
static struct hx_pfn_result allocate_twice(struct hx_frame_allocator *a, unsigned order,
					   unsigned flags, const struct hx_frame_constraint *c)
{
	struct hx_pfn_result r = {HX_OK, last};
	if (++calls % 100 == 0 && order == 0 && last.v != 0 && twice.v == 0) {
		twice = last;
		return r;
	}
	r = frames_baselines[0].trait->allocate(a, order, flags, c);
	last = hx_pfn(order == 0 ? r.value.v : 0);
	return r;
}

static hx_status free_twice(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	last = hx_pfn(0);
	if (twice.v != 0 && first.v == twice.v) {
		twice = hx_pfn(0);
		return HX_OK;
	}
	return frames_baselines[0].trait->free(a, first, order);
}

/* Now and then nothing is freed. */
static hx_status free_forgets(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	return ++calls % 1000 == 0 ? HX_OK : frames_baselines[0].trait->free(a, first, order);
}

static void check_planted(void)
{
	struct hx_frame_trait trait = *frames_baselines[0].trait;
	struct frames_subject s = {.name = "planted", .trait = &trait};
	struct frames_instance i;
	trait.allocate = allocate_twice;
	trait.free = free_twice;
	frames_create(&i, &s, FRAMES, 1);
	result(frames_stress(&i, 1, WANTED).wrong != 0, "planted-twice");
	frames_destroy(&i);

	trait = *frames_baselines[0].trait;
	trait.free = free_forgets;
	frames_create(&i, &s, FRAMES, 1);
	result(frames_stress(&i, 1, WANTED).leaked != 0, "planted-leak-in-stress");
	frames_destroy(&i);
	struct frames_run *r =
		frames_run_begin(&frames_workloads[0], 0, 1, &s, FRAMES, WANTED, false);
	frames_run_round(r);
	result(frames_run_end(r) != NULL, "planted-leak");
}

int frames_check(unsigned threads)
{
	static const unsigned orders[] = {0, HX_ORDER_2M};
	const struct frames_subject *s;
	printf("TAP version 13\n");
	for (unsigned i = 0; (s = frames_subject_at(i)) != NULL; i++) {
		for (unsigned k = 0; k < frames_workload_count; k++) {
			const struct frames_workload *w = &frames_workloads[k];
			for (unsigned o = 0; o < (w->any_order ? 2 : 1); o++) {
				check_workload(w, orders[o], threads, s);
			}
		}
		check_stress(s, threads);
		if (threads == 1) {
			for (unsigned k = 0; k < FRAMES_SHAPES; k++) {
				check_shape(&frames_shapes[k], s);
			}
			check_costs(s);
		}
	}
	if (threads == 1) {
		check_planted();
	}
	printf("1..%u\n", results);
	return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
