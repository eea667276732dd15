/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The mapper's operations on a board, in instructions. A call is counted as its caller
 * pays for it: arguments, call, body and return; what an empty measurement counts is
 * taken off. The counter itself is checked first.
 *
 * The board is booted whole, with the page tables that are its default, and runs one CPU.
 * Nothing interrupts: no timer is set. Each count is taken several times over, warm; where
 * they differ the least is printed, and that they do.
 *
 * Prints TAP: what must hold, and each figure behind "# ".
 */

#include "bench.h"
#include "instructions.h"
#include "say.h"

/* The most that a call on a single page may cost, on every board. */
enum { SINGLE_PAGE_BUDGET = 120 };

enum { ROUNDS = 4, LEAF_TABLE = 512, NAME_BYTES = 64 };

#define PAGE HX_FRAME_BYTES

/* What the calls are made on. */
struct range {
	struct hx_pagetable *t;
	struct hx_va va;
	struct hx_pa pa;
	uint64_t bytes;
	uint64_t write, read; /* flags with and without the right to write */
	uint64_t choice;      /* HX_MAP_* */
};

static struct hx_system sys;

static unsigned number, failed;

static bool check(bool condition, const char *name, const char *subject)
{
	failed += !condition;
	say("%sok %u - instructions.%s%s%s\n", condition ? "" : "not ", ++number, name,
	    subject ? "-" : "", subject ? subject : "");
	return condition;
}

/* Nothing can go on behind it. */
static void must(hx_status s, const char *what)
{
	if (s != HX_OK) {
		say("Bail out! %s: %s\n", what, hx_status_name(s));
		hx_platform_exit(false);
	}
}

#define MUST(call) must(call, #call)

/* ---- Counting ---- */

typedef hx_status (*run_fn)(const struct range *r);

static hx_status nothing(const struct range *r)
{
	(void)r;
	return HX_OK;
}

/* One place, so that what it adds itself is the same for all. */
static __attribute__((noinline)) uint64_t count_raw(run_fn run, const struct range *r)
{
	BENCH_KEEP(run);
	uint64_t before = bench_instructions();
	hx_status s = run(r);
	uint64_t after = bench_instructions();
	must(s, "what is counted");
	return after - before;
}

static uint64_t count_once(run_fn run, const struct range *r)
{
	return count_raw(run, r) - count_raw(nothing, r);
}

/* ---- The counter itself ---- */

enum { NOPS = 1000, LOOP_ROUNDS = 1000000, LOOP_INSTRUCTIONS = 2 * LOOP_ROUNDS };

static hx_status nops(const struct range *r)
{
	(void)r;
	BENCH_NOPS(NOPS);
	return HX_OK;
}

static uint64_t loop_rounds;

static hx_status loop(const struct range *r)
{
	(void)r;
	uint64_t rounds = loop_rounds;
	BENCH_LOOP(rounds);
	return HX_OK;
}

/* A loop's own set-up is the same however long it is. */
static uint64_t count_loop(uint64_t rounds)
{
	loop_rounds = rounds;
	return count_once(loop, NULL);
}

static void check_counter(void)
{
	bench_instructions_start();
	uint64_t n = NOPS, l = LOOP_INSTRUCTIONS;
	for (unsigned i = 0; i < ROUNDS && n == NOPS && l == LOOP_INSTRUCTIONS; i++) {
		n = count_once(nops, NULL);
		l = count_loop(LOOP_ROUNDS + 1) - count_loop(1);
	}
	if (!check(n == NOPS && l == LOOP_INSTRUCTIONS, "counter-is-exact", NULL)) {
		hx_log("%u nops count as %llu, a loop of %u as %llu", NOPS, (unsigned long long)n,
		       LOOP_INSTRUCTIONS, (unsigned long long)l);
		say("Bail out! not counted exactly: no -icount shift=0, or interrupts\n");
		hx_platform_exit(false);
	}
}

/* ---- What is counted ---- */

static hx_status map(const struct range *r)
{
	return hx_map(r->t, r->va, r->pa, r->bytes, r->write | r->choice);
}

static hx_status unmap(const struct range *r)
{
	return hx_unmap(r->t, r->va, r->bytes, NULL, NULL);
}

static unsigned released;

static void count_released(void *context, const struct hx_released *batch)
{
	(void)context;
	released += batch->count;
}

static hx_status unmap_told(const struct range *r)
{
	return hx_unmap(r->t, r->va, r->bytes, count_released, NULL);
}

static hx_status take_write(const struct range *r)
{
	return hx_update_flags(r->t, r->va, r->bytes, r->read);
}

static hx_status give_write(const struct range *r)
{
	return hx_update_flags(r->t, r->va, r->bytes, r->write);
}

static hx_status translate(const struct range *r)
{
	return hx_translate(r->t, r->va).status;
}

static hx_status translate_range(const struct range *r)
{
	static uint64_t leaves[LEAF_TABLE];
	return hx_translate_range(r->t, r->va, LEAF_TABLE, leaves);
}

/* ---- What must be so before ---- */

static void make_empty(const struct range *r)
{
	MUST(hx_unmap_sparse(r->t, r->va, r->bytes, NULL, NULL));
}

static void make_fresh(const struct range *r)
{
	make_empty(r);
	MUST(map(r));
}

/* Pages that were written: the machine has nothing left to mark in them. */
static void make_used(const struct range *r)
{
	make_empty(r);
	MUST(hx_map(r->t, r->va, r->pa, r->bytes,
		    r->write | r->choice | HX_PAGE_ACCESSED | HX_PAGE_DIRTY));
}

static void make_used_read_only(const struct range *r)
{
	make_used(r);
	MUST(take_write(r));
}

/* ---- The bound: a loop that stores (loads) the same entries and does nothing else ---- */

static hx_pte stream_table[LEAF_TABLE];

/* volatile: each store is made, one by one. */
static hx_status stream_store(const struct range *r)
{
	hx_pte prot = hx_hal_pte_prot(r->write, 0);
	uint64_t pa = r->pa.v;
	volatile hx_pte *table = stream_table;
	for (unsigned i = 0; i < LEAF_TABLE; i++, pa += PAGE) {
		table[i] = hx_hal_pte_leaf(hx_pa(pa), prot, 0);
	}
	return HX_OK;
}

static hx_status stream_load(const struct range *r)
{
	(void)r;
	uint64_t sum = 0;
	const volatile hx_pte *table = stream_table;
	for (unsigned i = 0; i < LEAF_TABLE; i++) {
		sum += hx_hal_pte_pa(table[i], 0).v;
	}
	BENCH_KEEP(sum);
	return HX_OK;
}

/* ---- Workloads ---- */

struct workload {
	const char *name;
	void (*prepare)(const struct range *r);
	run_fn run;
	uint64_t pages_min, pages_max; /* for which it is run */
	bool has_budget;               /* when it is one page */
};

static const struct workload workloads[] = {
	{"map", make_empty, map, 1, UINT64_MAX, true},
	{"unmap", make_fresh, unmap, 1, UINT64_MAX, true},
	{"unmap-used", make_used, unmap, 1, 1, true},
	{"unmap-told", make_used, unmap_told, 1, UINT64_MAX, false},
	{"take-write", make_used, take_write, 1, UINT64_MAX, false},
	{"give-write", make_used_read_only, give_write, 1, UINT64_MAX, false},
	{"translate", make_fresh, translate, 1, 1, false},
	{"translate-range", make_fresh, translate_range, LEAF_TABLE, LEAF_TABLE, false},
};

static const struct workload store = {"stream-store", NULL, stream_store, 0, 0, false};
static const struct workload load = {"stream-load", NULL, stream_load, 0, 0, false};

/* @return the count on which all rounds agree; else the least of them, and says so */
static uint64_t count(const struct workload *w, const struct range *r, const char *name)
{
	uint64_t least = UINT64_MAX, most = 0;
	for (unsigned i = 0; i <= ROUNDS; i++) {
		if (w->prepare) {
			w->prepare(r);
		}
		uint64_t n = count_once(w->run, r);
		if (i > 0) { /* the first one warms */
			least = n < least ? n : least;
			most = n > most ? n : most;
		}
	}
	if (least != most) {
		say("# counts differ: %s, %llu to %llu\n", name, (unsigned long long)least,
		    (unsigned long long)most);
	}
	return least;
}

static void print_figure(const char *name, const char *subject, uint64_t n, uint64_t pages)
{
	uint64_t thousandths = (n * 1000 + pages / 2) / pages;
	say("# bench guest %s %s-" BENCH_MACHINE " instructions ", name, subject);
	if (pages == 1) {
		say("%llu per-call\n", (unsigned long long)n);
	} else {
		say("%llu.%03llu per-page\n", (unsigned long long)(thousandths / 1000),
		    (unsigned long long)(thousandths % 1000));
	}
}

static void measure(const char *subject, const struct range *r)
{
	uint64_t pages = r->bytes / PAGE;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(workloads); i++) {
		const struct workload *w = &workloads[i];
		if (pages < w->pages_min || pages > w->pages_max) {
			continue;
		}
		char name[NAME_BYTES];
		hx_format(name, sizeof name, pages == 1 ? "%s" : "%s-%llu", w->name,
			  (unsigned long long)pages);
		uint64_t n = count(w, r, name);
		print_figure(name, subject, n, pages);
		if (pages == 1 && w->has_budget && !check(n <= SINGLE_PAGE_BUDGET, name, subject)) {
			hx_log("more than %u instructions", SINGLE_PAGE_BUDGET);
		}
	}
	make_empty(r);
}

/* ---- Subjects ---- */

/* At @va, on a border of a GiB, is room for 2 GiB. */
static void measure_table(const char *subject, struct hx_pagetable *t, uintptr_t va, uint64_t user,
			  bool bulk)
{
	struct range r = {
		.t = t,
		.va = hx_va(va),
		.pa = hx_pa(HX_GIB(16)),
		.bytes = 3 * PAGE,
		.write = HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE | user,
		.read = HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE | user,
	};
	/* One page between two: the leaf table stays. */
	MUST(map(&r));
	r.va = hx_va(va + (uintptr_t)PAGE);
	r.bytes = PAGE;
	measure(subject, &r);
	r.va = hx_va(va + (uintptr_t)HX_GIB(1));
	r.choice = HX_MAP_NO_HUGE;
	r.bytes = LEAF_TABLE * PAGE;
	measure(subject, &r);
	if (bulk) {
		r.bytes = HX_GIB(1);
		measure(subject, &r);
	}
}

static struct hx_pagetable running, left, fresh;

static void measure_all(void)
{
	const struct range stream = {.pa = hx_pa(HX_GIB(16)), .write = HX_PAGE_KERNEL_WRITE};
	print_figure("stream-store", "baseline", count(&store, &stream, store.name), LEAF_TABLE);
	print_figure("stream-load", "baseline", count(&load, &stream, load.name), LEAF_TABLE);

	struct hx_pagetable_config c = {
		.frames = &sys.frames,
		.db = &sys.framedb,
		.wx = sys.wx,
		.huge = true,
		.kernel = &sys.kernel_table,
	};
	MUST(hx_pagetable_init(&running, &c));
	MUST(hx_pagetable_init(&left, &c));
	MUST(hx_pagetable_init(&fresh, &c));
	/* One that this CPU runs, one that it ran before, one that no CPU ever ran. */
	hx_pagetable_load(&left, &sys.kernel_table);
	hx_pagetable_load(&running, &left);
	uintptr_t kernel_va = sys.dynamic_base.v + (uintptr_t)HX_GIB(1) - 1;
	measure_table("kernel", &sys.kernel_table, kernel_va & ~(uintptr_t)(HX_GIB(1) - 1), 0,
		      true);
	measure_table("running", &running, (uintptr_t)HX_GIB(64), HX_PAGE_USER, true);
	measure_table("left", &left, (uintptr_t)HX_GIB(64), HX_PAGE_USER, false);
	measure_table("fresh", &fresh, (uintptr_t)HX_GIB(64), HX_PAGE_USER, false);
}

void hx_main(void)
{
	hx_log_to(hx_platform_write);
	say("TAP version 13\n");
	must(hx_boot(&sys, hx_platform_boot_args()), "boot");
	check_counter();
	measure_all();
	say("1..%u\n", number);
	hx_platform_exit(failed == 0);
}
