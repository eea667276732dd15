/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The kernel heap against two baselines in the same run: the C library's malloc,
 * which has a cache per thread and reports no wrong free of small objects, and
 * the bound, a private stack of ready objects of one size without any check.
 *
 *   pair-64     allocate 64 bytes, free them
 *   batch-64    allocate 1000 objects of 64 bytes, free them in the same order
 *   churn       replace a random one of 4096 live objects of 16..2047 bytes
 *   pair-64k    allocate 64 KiB, free them
 *
 * Objects are touched (one word), memory is warm. The frames below are buddy over
 * a static array; "simple" runs the churn with fewer operations, it is linear.
 */
#include <stdio.h>
#include <stdlib.h>

#include <hx/heap.h>

#include "bench.h"

enum {
	POOL_FRAMES = 16384, /* 64 MiB */
	PAIRS = 200000,
	BATCH = 1000,
	BATCHES = 200,
	LIVE = 4096,
	CHURNS = 100000,
	CHURNS_SIMPLE = 2000,
	LARGE_PAIRS = 5000,
	STACK = 2048,
};

static uint8_t memory[POOL_FRAMES * HX_FRAME_BYTES] __attribute__((aligned(2 << 20)));
static uint8_t metadata[1 << 20] __attribute__((aligned(64)));
static struct hx_frames frames;
static struct hx_heap simple_heap, slab_heap;

static void must(hx_status s, const char *what)
{
	if (s != HX_OK) {
		fprintf(stderr, "%s: %s\n", what, hx_status_name(s));
		exit(1);
	}
}

/* ---- Subjects ---- */

struct subject {
	const char *name;
	void *(*get)(void *context, size_t bytes);
	void (*put)(void *context, void *p);
	void *context;
	uint64_t churns;
	/* The churn's state. */
	void *live[LIVE];
	uint64_t random;
};

static void *malloc_get(void *context, size_t bytes)
{
	(void)context;
	return malloc(bytes);
}

static void malloc_put(void *context, void *p)
{
	(void)context;
	free(p);
}

static void *heap_get(void *context, size_t bytes)
{
	return hx_heap_allocate(context, bytes, 0, 0).value;
}

static void heap_put(void *context, void *p)
{
	if (hx_heap_free(context, p) != HX_OK) {
		abort();
	}
}

/* Objects of 64 bytes, and nothing else. */
static struct {
	unsigned count;
	void *objects[STACK];
} stack;

static void *stack_get(void *context, size_t bytes)
{
	(void)context;
	(void)bytes;
	return stack.objects[--stack.count];
}

static void stack_put(void *context, void *p)
{
	(void)context;
	stack.objects[stack.count++] = p;
}

static struct subject subjects[] = {
	{.name = "stack", .get = stack_get, .put = stack_put},
	{.name = "malloc", .get = malloc_get, .put = malloc_put, .churns = CHURNS},
	{.name = "slab", .get = heap_get, .put = heap_put, .context = &slab_heap, .churns = CHURNS},
	{.name = "simple",
	 .get = heap_get,
	 .put = heap_put,
	 .context = &simple_heap,
	 .churns = CHURNS_SIMPLE},
};
enum { SUBJECTS = HX_ARRAY_LENGTH(subjects) };

/* ---- Workloads ---- */

static void *get(struct subject *s, size_t bytes)
{
	uint64_t *p = s->get(s->context, bytes);
	if (p == NULL) {
		fprintf(stderr, "%s: out of memory\n", s->name);
		exit(1);
	}
	*p = bytes;
	return p;
}

static void pairs(struct subject *s, size_t bytes, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		void *p = get(s, bytes);
		BENCH_KEEP(p);
		s->put(s->context, p);
	}
}

static void pair_64(void *context)
{
	pairs(context, 64, PAIRS);
}

static void pair_64k(void *context)
{
	pairs(context, 64 << 10, LARGE_PAIRS);
}

static void batch_64(void *context)
{
	static void *batch[BATCH];
	struct subject *s = context;
	for (unsigned n = 0; n < BATCHES; n++) {
		for (unsigned i = 0; i < BATCH; i++) {
			batch[i] = get(s, 64);
		}
		for (unsigned i = 0; i < BATCH; i++) {
			s->put(s->context, batch[i]);
		}
	}
}

static uint64_t next_random(struct subject *s)
{
	s->random = s->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return s->random >> 33;
}

static void churn(void *context)
{
	struct subject *s = context;
	for (uint64_t i = 0; i < s->churns; i++) {
		void **slot = &s->live[next_random(s) % LIVE];
		if (*slot != NULL) {
			s->put(s->context, *slot);
		}
		*slot = get(s, 16 + next_random(s) % 2032);
	}
}

static void fill_churn(struct subject *s)
{
	for (unsigned i = 0; i < LIVE; i++) {
		s->live[i] = get(s, 16 + next_random(s) % 2032);
	}
}

/* Measure @run for @first and all after it; report against the stack and malloc. */
static void measure(const char *workload, void (*run)(void *), uint64_t operations, unsigned first)
{
	struct bench b[SUBJECTS];
	unsigned n = 0;
	for (unsigned i = first; i < SUBJECTS; i++) {
		b[n++] = (struct bench){
			.workload = workload,
			.subject = subjects[i].name,
			.run = run,
			.context = &subjects[i],
			.operations = operations != 0 ? operations : subjects[i].churns,
		};
	}
	bench_measure(b, n, BENCH_ROUNDS);
	const struct bench *libc = &b[1 - first];
	for (unsigned i = 0; i < n; i++) {
		if (&b[i] <= libc) {
			bench_report("heap", &b[i], NULL, NULL);
		} else {
			bench_report("heap", &b[i], libc, libc->subject);
		}
	}
}

int main(void)
{
	hx_hal_direct_offset = 0; /* physical addresses are the host's */
	const struct hx_frame_trait *buddy = hx_frame_trait_find("buddy");
	const struct hx_heap_trait *slab = hx_heap_trait_find("slab");
	const struct hx_heap_trait *simple = hx_heap_trait_find("simple");
	if (buddy == NULL || slab == NULL || simple == NULL) {
		fprintf(stderr, "this profile does not build in buddy, slab and simple\n");
		return 1;
	}
	must(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, buddy,
				hx_pa_to_pfn(hx_ptr_to_pa(memory)), POOL_FRAMES, metadata,
				sizeof metadata),
	     "frames");
	hx_heap_init(&slab_heap);
	hx_heap_init(&simple_heap);
	must(hx_heap_use(&slab_heap, &(struct hx_heap_config){.trait = slab, .frames = &frames}),
	     "slab");
	must(hx_heap_use(&simple_heap,
			 &(struct hx_heap_config){.trait = simple, .frames = &frames}),
	     "simple");
	for (stack.count = 0; stack.count < STACK; stack.count++) {
		stack.objects[stack.count] = malloc(64);
	}

	bench_title("kernel heap; nanoseconds per operation (a pair, or one replacement)");
	measure("pair-64", pair_64, PAIRS, 0);
	measure("batch-64", batch_64, (uint64_t)BATCH * BATCHES, 0);
	measure("pair-64k", pair_64k, LARGE_PAIRS, 1);
	for (unsigned i = 1; i < SUBJECTS; i++) {
		subjects[i].random = 1;
		fill_churn(&subjects[i]);
	}
	measure("churn", churn, 0, 1);

	struct hx_heap_stats s;
	hx_heap_stats(&slab_heap, &s);
	bench_figure("heap", "churn", "slab", "memory-per-live-byte",
		     (double)s.managed_bytes / (double)s.live_bytes, "x");
	return 0;
}
