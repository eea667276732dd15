/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Workloads that are timed. A round is made of phases; nothing is timed but the calls of
 * one phase and the loop around them: which frame comes next was written down before.
 * CPUs begin a phase together, each times itself.
 *
 * Each CPU holds an equal share of the span, as blocks of the workload's order:
 *
 *   bulk     nothing at first; gets its share, then puts it in the order of getting (FIFO)
 *   batch    the same in calls of 64 frames
 *   rand     all of its share; puts it in random order, then gets it again
 *   repeat   a random half of its share; gets one, puts it
 *   churn    a random half of its share; puts one at random, gets one
 *   latency  churn, each call timed by itself
 *   mixed    half of its share in blocks of orders 0 to 9, order o with probability
 *            2^-(o+1); puts one at random while the half is held, else gets one
 *   remote   CPUs in pairs: one gets, in batches of 256, the other puts
 */
#include <stdlib.h>

#include "frames.h"

enum { BATCH = 64, HANDED = 256, SLOTS = 8, TRIES = 1000, PUT = 0x80 };

/* ---- Timing ---- */

static uint64_t clock_ns; /* of reading the clock itself */

static void resume(struct frames_worker *w)
{
	w->start_atomics = FRAMES_ATOMICS;
	w->start = bench_clock();
}

static void pause_clock(struct frames_worker *w, unsigned value, uint64_t operations)
{
	uint64_t took = bench_clock() - w->start;
	w->ns[value] += (double)(took > clock_ns ? took - clock_ns : 0);
	w->atomics[value] += FRAMES_ATOMICS - w->start_atomics;
	w->operations[value] += operations;
}

static void begin(struct frames_worker *w)
{
	frames_meet(&w->run->gate, w->run->threads);
	w->opened = w->run->gate.opened;
	resume(w);
}

static void end(struct frames_worker *w, unsigned value, uint64_t operations)
{
	pause_clock(w, value, operations);
	frames_meet(&w->run->gate, w->run->threads);
	w->elapsed_ns += (double)(w->run->gate.opened - w->opened);
}

/* ---- What a CPU holds ---- */

static struct hx_frame_allocator *allocator(const struct frames_worker *w)
{
	return w->run->instance.a;
}

static uint64_t below(struct frames_worker *w, uint64_t n)
{
	return hx_random_below(&w->random, n);
}

/*
 * Another CPU may have what is free in its hands just now: ask again, and tell.
 * @return is it worth it?
 */
static bool ask_again(struct frames_worker *w, unsigned *tries)
{
	w->refused++;
	frames_pause(*tries);
	return w->run->threads > 1 && (*tries)++ < TRIES;
}

/* @return how many; fewer than the quota when nothing was left */
static uint64_t get_all(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	struct hx_pfn *held = w->held;
	uint64_t quota = w->quota, n = 0;
	unsigned order = w->run->order, tries = 0;
	while (n < quota) {
		struct hx_pfn_result r = frames_get(a, order);
		if (r.status == HX_OK) {
			held[n++] = r.value;
		} else if (!ask_again(w, &tries)) {
			break;
		}
	}
	w->count = n;
	return n;
}

static uint64_t put_all(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	const struct hx_pfn *held = w->held;
	uint64_t n = w->count;
	unsigned order = w->run->order;
	for (uint64_t i = 0; i < n; i++) {
		frames_put(a, held[i], order);
	}
	w->count = 0;
	return n;
}

static void shuffle(struct frames_worker *w)
{
	for (uint64_t i = w->count; i > 1; i--) {
		uint64_t k = below(w, i);
		struct hx_pfn swap = w->held[k];
		w->held[k] = w->held[i - 1];
		w->held[i - 1] = swap;
	}
}

static uint64_t round_operations(const struct frames_worker *w)
{
	return w->run->wanted / w->run->threads;
}

/* ---- bulk, batch, rand ---- */

static void hold_nothing(struct frames_worker *w)
{
	w->count = 0;
}

static void hold_all(struct frames_worker *w)
{
	(void)get_all(w);
}

/* A small share is gone through several times. */
static uint64_t passes(const struct frames_worker *w)
{
	uint64_t n = round_operations(w) / (w->quota != 0 ? w->quota : 1);
	return n != 0 ? n : 1;
}

static void bulk_round(struct frames_worker *w)
{
	for (uint64_t n = passes(w); n > 0; n--) {
		begin(w);
		w->gets += get_all(w);
		end(w, 0, w->count);
		begin(w);
		uint64_t put = put_all(w);
		w->puts += put;
		end(w, 1, put);
	}
}

static void batch_round(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	const struct hx_frame_trait *t = a->trait;
	if (t->allocate_bulk == NULL) {
		bulk_round(w); /* one by one */
		return;
	}
	for (uint64_t n = passes(w); n > 0; n--) {
		begin(w);
		uint64_t count = 0;
		unsigned tries = 0;
		while (count < w->quota) {
			uint64_t want = w->quota - count < BATCH ? w->quota - count : BATCH;
			uint64_t got = t->allocate_bulk(a, w->held + count, want, 0);
			count += got;
			if (got < want && !ask_again(w, &tries)) {
				break;
			}
		}
		end(w, 0, count);
		begin(w);
		for (uint64_t i = 0; i < count; i += BATCH) {
			hx_status status;
			uint64_t want = count - i < BATCH ? count - i : BATCH;
			if (t->free_bulk(a, w->held + i, want, &status) != want) {
				frames_die(t->name, "refused a free of many");
			}
		}
		end(w, 1, count);
		w->gets += count;
		w->puts += count;
	}
}

static void rand_round(struct frames_worker *w)
{
	for (uint64_t n = passes(w); n > 0; n--) {
		shuffle(w);
		begin(w);
		uint64_t put = put_all(w);
		end(w, 0, put);
		w->puts += put;
		begin(w);
		w->gets += get_all(w);
		end(w, 1, w->count);
	}
}

/* ---- repeat, churn, latency ---- */

static void hold_half(struct frames_worker *w)
{
	(void)get_all(w);
	frames_meet(&w->run->gate, w->run->threads);
	shuffle(w);
	for (uint64_t n = w->count / 2; n > 0; n--) {
		frames_put(allocator(w), w->held[--w->count], w->run->order);
	}
	if (w->count == 0) {
		frames_die(w->run->instance.subject->name, "is too small for this many CPUs");
	}
}

static void repeat_round(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	uint64_t n = round_operations(w);
	unsigned order = w->run->order;
	begin(w);
	for (uint64_t i = 0; i < n; i++) {
		struct hx_pfn_result r = frames_get(a, order);
		if (r.status != HX_OK) {
			frames_die(a->trait->name, "has nothing left at half occupancy");
		}
		frames_put(a, r.value, order);
	}
	end(w, 0, n);
	w->gets += n;
	w->puts += n;
}

static void half_with_sequence(struct frames_worker *w)
{
	hold_half(w);
	w->sequence = frames_memory(round_operations(w) * sizeof *w->sequence);
}

static void draw_slots(struct frames_worker *w)
{
	for (uint64_t i = round_operations(w); i > 0; i--) {
		w->sequence[i - 1] = (uint32_t)below(w, w->count);
	}
}

static void churn_round(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	const uint32_t *sequence = w->sequence;
	struct hx_pfn *held = w->held;
	uint64_t n = round_operations(w);
	unsigned order = w->run->order;
	draw_slots(w);
	begin(w);
	for (uint64_t i = 0; i < n; i++) {
		struct hx_pfn *slot = &held[sequence[i]];
		frames_put(a, *slot, order);
		struct hx_pfn_result r = frames_get(a, order);
		if (r.status != HX_OK) {
			frames_die(a->trait->name, "has nothing left at half occupancy");
		}
		*slot = r.value;
	}
	end(w, 0, n);
	w->gets += n;
	w->puts += n;
}

/* A clock that is quick to read; what comes before is complete, what follows has not begun. */
static inline uint64_t ticks(void)
{
#if defined(__x86_64__)
	uint32_t low, high;
	__asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
#else
	return frames_monotonic_ns();
#endif
}

static uint64_t tick_cost; /* of reading them */
static double ns_per_tick;

static void calibrate(void)
{
	static bool done;
	if (done) {
		return;
	}
	done = true;
	clock_ns = tick_cost = UINT64_MAX;
	for (unsigned k = 0; k < 1000; k++) {
		uint64_t start_ns = bench_clock(), took_ns = bench_clock() - start_ns;
		clock_ns = took_ns < clock_ns ? took_ns : clock_ns;
		uint64_t start = ticks(), took = ticks() - start;
		tick_cost = took < tick_cost ? took : tick_cost;
	}
	uint64_t from_ns = frames_monotonic_ns(), from = ticks(), now;
	do {
		now = frames_monotonic_ns();
	} while (now - from_ns < 20 * 1000 * 1000);
	ns_per_tick = (double)(now - from_ns) / (double)(ticks() - from);
}

static void half_with_samples(struct frames_worker *w)
{
	half_with_sequence(w);
	for (unsigned k = 0; k < 2; k++) {
		w->samples[k] = frames_memory(round_operations(w) * sizeof *w->samples[k]);
	}
}

static uint32_t sample(uint64_t took)
{
	took = took > tick_cost ? took - tick_cost : 0;
	return took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
}

static void latency_round(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	uint64_t n = round_operations(w);
	draw_slots(w);
	frames_meet(&w->run->gate, w->run->threads);
	for (uint64_t i = 0; i < n; i++) {
		struct hx_pfn *slot = &w->held[w->sequence[i]];
		uint64_t t0 = ticks();
		frames_put(a, *slot, 0);
		uint64_t t1 = ticks();
		struct hx_pfn_result r = frames_get(a, 0);
		uint64_t t2 = ticks();
		if (r.status != HX_OK) {
			frames_die(a->trait->name, "has nothing left at half occupancy");
		}
		*slot = r.value;
		w->samples[0][i] = sample(t2 - t1);
		w->samples[1][i] = sample(t1 - t0);
	}
	w->gets += n;
	w->puts += n;
}

static int by_ticks(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

static void percentiles(struct frames_run *r)
{
	static const unsigned per_mille[3] = {500, 990, 999};
	uint64_t each = round_operations(&r->workers[0]), n = each * r->threads;
	uint32_t *all = frames_memory(n * sizeof *all);
	for (unsigned call = 0; call < 2; call++) {
		for (unsigned cpu = 0; cpu < r->threads; cpu++) {
			hx_memcpy(all + cpu * each, r->workers[cpu].samples[call],
				  each * sizeof *all);
		}
		qsort(all, n, sizeof *all, by_ticks);
		for (unsigned p = 0; p < 3; p++) {
			uint64_t at = (n - 1) * per_mille[p] / 1000;
			r->value[call * 3 + p] = all[at] * ns_per_tick;
		}
	}
	free(all);
}

/* ---- mixed ---- */

/*
 * Write down what comes next, assuming that no get is refused: slots stand for blocks,
 * w->spare holds their numbers, the w->count in use first, @orders their orders.
 */
static void draw_mixed(struct frames_worker *w, uint64_t n, uint8_t *orders)
{
	uint64_t half = w->quota / 2;
	for (uint64_t i = 0; i < n; i++) {
		uint32_t *slots = w->spare;
		if (w->held_frames < half) {
			unsigned order = frames_draw_order(&w->random);
			uint32_t slot = slots[w->count++];
			orders[slot] = (uint8_t)order;
			w->held_frames += UINT64_C(1) << order;
			w->sequence[i] = slot;
			w->orders[i] = (uint8_t)order;
		} else {
			uint64_t k = below(w, w->count);
			uint32_t slot = slots[k];
			slots[k] = slots[--w->count];
			slots[w->count] = slot;
			w->held_frames -= UINT64_C(1) << orders[slot];
			w->sequence[i] = slot;
			w->orders[i] = orders[slot] | PUT;
		}
	}
}

static uint8_t *slot_orders(const struct frames_worker *w)
{
	return (uint8_t *)(w->spare + w->quota);
}

static void run_mixed(struct frames_worker *w, uint64_t n)
{
	struct hx_frame_allocator *a = allocator(w);
	const uint32_t *sequence = w->sequence;
	const uint8_t *orders = w->orders;
	struct hx_pfn *held = w->held;
	for (uint64_t i = 0; i < n; i++) {
		struct hx_pfn *slot = &held[sequence[i]];
		unsigned order = orders[i];
		if ((order & PUT) == 0) {
			struct hx_pfn_result r = frames_get(a, order);
			*slot = r.value;
			if (r.status != HX_OK) {
				w->refused++;
				w->refused_2m += order == HX_ORDER_2M;
				*slot = hx_pfn(0);
			}
		} else if (slot->v != 0) {
			frames_put(a, *slot, order & ~(unsigned)PUT);
		}
	}
}

static void count_mixed(struct frames_worker *w, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		w->puts += (w->orders[i] & PUT) != 0;
		w->gets += (w->orders[i] & PUT) == 0;
	}
}

/* Its share in frames; filled to the half by the same steps as later. */
static void hold_mixed(struct frames_worker *w)
{
	uint64_t n = round_operations(w);
	w->sequence = frames_memory(n * sizeof *w->sequence);
	w->orders = frames_memory(n);
	w->spare = frames_memory(w->quota * (sizeof *w->spare + 1));
	for (uint64_t i = 0; i < w->quota; i++) {
		w->spare[i] = (uint32_t)i;
	}
	/* Until every block was replaced several times: most are smaller than ten frames. */
	for (uint64_t done = 0; done < w->quota; done += n) {
		draw_mixed(w, n, slot_orders(w));
		run_mixed(w, n);
	}
	w->refused = w->refused_2m = 0;
}

static void mixed_round(struct frames_worker *w)
{
	uint64_t n = round_operations(w);
	draw_mixed(w, n, slot_orders(w));
	begin(w);
	run_mixed(w, n);
	end(w, 0, n);
	count_mixed(w, n);
}

static void put_mixed(struct frames_worker *w)
{
	for (uint64_t i = 0; i < w->count; i++) {
		uint32_t slot = w->spare[i];
		if (w->held[slot].v != 0) {
			frames_put(allocator(w), w->held[slot], slot_orders(w)[slot]);
		}
	}
	w->count = 0;
}

/* ---- remote ---- */

static void wait_for(const uint64_t *counter, uint64_t n)
{
	for (unsigned tries = 0; __atomic_load_n(counter, __ATOMIC_ACQUIRE) < n; tries++) {
		frames_pause(tries);
	}
}

/* The giver's array is a ring of SLOTS batches. */
static void remote_round(struct frames_worker *w)
{
	struct hx_frame_allocator *a = allocator(w);
	bool gives = w->cpu % 2 == 0;
	struct frames_worker *giver = gives ? w : &w->run->workers[w->cpu - 1];
	uint64_t batches = round_operations(w) / HANDED;
	frames_meet(&w->run->gate, w->run->threads);
	for (uint64_t b = 0; b < batches; b++) {
		struct hx_pfn *frames = giver->held + b % SLOTS * HANDED;
		if (gives) {
			wait_for(&giver->done, b >= SLOTS ? b - SLOTS + 1 : 0);
			resume(w);
			for (unsigned i = 0; i < HANDED; i++) {
				struct hx_pfn_result r = frames_get(a, 0);
				if (r.status != HX_OK) {
					frames_die(a->trait->name, "is empty with few frames held");
				}
				frames[i] = r.value;
			}
			pause_clock(w, 0, HANDED);
			__atomic_store_n(&giver->handed, b + 1, __ATOMIC_RELEASE);
			w->gets += HANDED;
		} else {
			wait_for(&giver->handed, b + 1);
			resume(w);
			for (unsigned i = 0; i < HANDED; i++) {
				frames_put(a, frames[i], 0);
			}
			pause_clock(w, 1, HANDED);
			__atomic_store_n(&giver->done, b + 1, __ATOMIC_RELEASE);
			w->puts += HANDED;
		}
	}
	frames_meet(&w->run->gate, w->run->threads);
}

/* ---- The table ---- */

const struct frames_workload frames_workloads[] = {
	{.name = "bulk",
	 .title = "get all of the span, put it in the same order",
	 .values = {"get", "put"},
	 .any_order = true,
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = hold_nothing,
	 .round = bulk_round},
	{.name = "batch0",
	 .title = "the same in calls for 64 frames, per frame (without such calls: one by one)",
	 .values = {"get", "put"},
	 .singles = true,
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = hold_nothing,
	 .round = batch_round},
	{.name = "rand",
	 .title = "hold all of the span, put it in random order, get it again",
	 .values = {"put", "get"},
	 .any_order = true,
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = hold_all,
	 .round = rand_round},
	{.name = "repeat",
	 .title = "hold a random half, get one and put it",
	 .values = {"pair"},
	 .any_order = true,
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = hold_half,
	 .round = repeat_round},
	{.name = "churn",
	 .title = "hold a random half, put one at random and get one",
	 .values = {"pair"},
	 .any_order = true,
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = half_with_sequence,
	 .round = churn_round},
	{.name = "mixed",
	 .title = "hold half, put one at random or get one of order o with probability 2^-(o+1)",
	 .values = {"call"},
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = hold_mixed,
	 .round = mixed_round},
	{.name = "remote",
	 .title = "one thread gets, another puts",
	 .values = {"get", "put"},
	 .threads_min = 2,
	 .threads_step = 2,
	 .prepare = hold_nothing,
	 .round = remote_round},
	{.name = "latency",
	 .title = "churn0, each call timed by itself",
	 .values = {"get-p50", "get-p99", "get-p99.9", "put-p50", "put-p99", "put-p99.9"},
	 .singles = true,
	 .threads_min = 1,
	 .threads_step = 1,
	 .prepare = half_with_samples,
	 .round = latency_round,
	 .evaluate = percentiles},
};
const unsigned frames_workload_count = HX_ARRAY_LENGTH(frames_workloads);

/*
 * On the average of a round. A random put is one operation, but for those that change where
 * a child is listed: a good dozen for the 512 of a child.
 */
const struct frames_atomics frames_atomics[] = {
	{"bulk0", "get", 1.0 / 32},
	{"bulk0", "put", 1.0 / 32},
	{"rand0", "put", 1 + 1.0 / 16},
	{"bulk9", "get", 2},
	{"bulk9", "put", 2},
	{"rand9", "get", 2},
	{"rand9", "put", 2},
	{NULL, NULL, 0},
};

/* ---- Runs ---- */

void frames_name(const struct frames_workload *w, unsigned order, char out[FRAMES_NAME])
{
	if (w->any_order) {
		(void)hx_format(out, FRAMES_NAME, "%s%u", w->name, order);
	} else {
		(void)hx_format(out, FRAMES_NAME, "%s", w->name);
	}
}

bool frames_run_possible(const struct frames_workload *w, unsigned order, unsigned threads,
			 const struct frames_subject *s)
{
	bool stack_can = w->singles || (w->any_order && order == 0);
	return threads >= w->threads_min && threads % w->threads_step == 0 &&
	       threads <= FRAMES_THREADS_MAX && (s->deal == NULL || stack_can);
}

static void prepare(void *context, unsigned cpu)
{
	struct frames_run *r = context;
	struct frames_worker *w = &r->workers[cpu];
	if (hx_hal_cpu_id() != cpu) {
		frames_die("machine", "a thread has another CPU's number");
	}
	w->held = frames_memory((w->quota + SLOTS * HANDED) * sizeof *w->held);
	r->workload->prepare(w);
}

struct frames_run *frames_run_begin(const struct frames_workload *w, unsigned order,
				    unsigned threads, const struct frames_subject *s,
				    uint64_t frames, uint64_t wanted, bool checked)
{
	struct frames_run *r = frames_memory(sizeof *r);
	calibrate();
	r->workload = w;
	r->order = order;
	r->threads = threads;
	r->wanted = wanted;
	frames_create(&r->instance, s, frames, threads);
	if (checked) {
		frames_check_begin(&r->instance, threads);
	}
	for (unsigned cpu = 0; cpu < threads; cpu++) {
		r->workers[cpu] = (struct frames_worker){
			.run = r,
			.cpu = cpu,
			.random = {(cpu + 1) * UINT64_C(0x9e3779b97f4a7c15)},
			.quota = (frames >> order) / threads,
		};
	}
	frames_on_cpus(threads, prepare, r);
	return r;
}

static void round_on_cpu(void *context, unsigned cpu)
{
	struct frames_run *r = context;
	r->workload->round(&r->workers[cpu]);
}

void frames_run_round(struct frames_run *r)
{
	for (unsigned cpu = 0; cpu < r->threads; cpu++) {
		struct frames_worker *w = &r->workers[cpu];
		for (unsigned v = 0; v < FRAMES_VALUES; v++) {
			w->ns[v] = 0;
			w->operations[v] = w->atomics[v] = 0;
		}
		w->elapsed_ns = 0;
		w->gets = w->puts = w->handed = w->done = 0;
	}
	frames_on_cpus(r->threads, round_on_cpu, r);
	if (r->workload->evaluate) {
		r->workload->evaluate(r);
		return;
	}
	double all_ns = 0, elapsed = r->workers[0].elapsed_ns;
	for (unsigned v = 0; v < FRAMES_VALUES && r->workload->values[v]; v++) {
		double ns = 0, atomics = 0, operations = 0;
		for (unsigned cpu = 0; cpu < r->threads; cpu++) {
			const struct frames_worker *w = &r->workers[cpu];
			ns += w->ns[v];
			atomics += (double)w->atomics[v];
			operations += (double)w->operations[v];
		}
		r->value[v] = operations > 0 ? ns / operations : 0;
		r->atomics[v] = operations > 0 ? atomics / operations : 0;
		all_ns += ns;
	}
	r->at_once = elapsed > 0 ? all_ns / elapsed : 0;
}

uint64_t frames_run_refused(const struct frames_run *r, bool only_2m)
{
	uint64_t sum = 0;
	for (unsigned cpu = 0; cpu < r->threads; cpu++) {
		sum += only_2m ? r->workers[cpu].refused_2m : r->workers[cpu].refused;
	}
	return sum;
}

static void give_back(void *context, unsigned cpu)
{
	struct frames_run *r = context;
	struct frames_worker *w = &r->workers[cpu];
	if (w->spare) {
		put_mixed(w);
	} else {
		(void)put_all(w);
	}
	free(w->held);
	free(w->sequence);
	free(w->orders);
	free(w->spare);
	free(w->samples[0]);
	free(w->samples[1]);
}

const char *frames_run_end(struct frames_run *r)
{
	frames_on_cpus(r->threads, give_back, r);
	const char *wrong = frames_all_free(&r->instance);
	frames_destroy(&r->instance);
	free(r);
	return wrong;
}
