/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The kernel heap: one behaviour for all backends, tested over each of them, and
 * what is particular to one.
 *
 * Every case makes a heap of its own over a static arena or over a pool of
 * frames that is borrowed from the machine. The pool's frame allocator can be
 * told to fail, so that every single allocation of frames is made to fail once.
 */
#include <hx/heap.h>

#include "hx_test.h"
#include "machine.h"

enum {
	POOL_ORDER = HX_ORDER_2M,
	POOL_BLOCKS = 8, /* 16 MiB */
	POOL_FRAMES = POOL_BLOCKS << POOL_ORDER,
	ARENA_BYTES = 1 << 20,
	METADATA_BYTES = 64 << 10,
	OBJECTS_MAX = 96,
};

static uint8_t arena[ARENA_BYTES] __attribute__((aligned(4096)));
static uint8_t metadata[METADATA_BYTES] __attribute__((aligned(64)));

/* ---- A pool of frames that fails on command ---- */

static const struct hx_frame_trait *real_trait;
static struct hx_frame_trait pool_trait;
static struct hx_frames pool;
static struct hx_pfn pool_first;

static uint64_t frame_requests; /* since the count was set to 0 */
static uint64_t fail_from;      /* the request that fails; 0: none */
static uint64_t fail_count;     /* and how many after it, itself included */
static uint64_t frame_failures;

static bool fails_now(void)
{
	uint64_t n = ++frame_requests;
	bool fails = fail_from != 0 && n >= fail_from && n - fail_from < fail_count;
	frame_failures += fails;
	return fails;
}

static struct hx_pfn_result pool_allocate(struct hx_frame_allocator *a, unsigned order,
					  unsigned flags, const struct hx_frame_constraint *c)
{
	if (fails_now()) {
		return (struct hx_pfn_result){HX_OUT_OF_MEMORY, {0}};
	}
	return real_trait->allocate(a, order, flags, c);
}

static struct hx_pfn_result pool_allocate_run(struct hx_frame_allocator *a, uint64_t count,
					      unsigned flags, const struct hx_frame_constraint *c)
{
	if (fails_now()) {
		return (struct hx_pfn_result){HX_OUT_OF_MEMORY, {0}};
	}
	return real_trait->allocate_run(a, count, flags, c);
}

static void fail_frames(uint64_t from, uint64_t count)
{
	frame_requests = frame_failures = 0;
	fail_from = from;
	fail_count = count;
}

/* A case that calls it ends with pool_close(). */
static bool pool_open(void)
{
	fail_frames(0, 0);
	real_trait = hx_frame_trait_find("buddy");
	if (real_trait == NULL) {
		real_trait = hx_frame_trait_find("bitmap");
	}
	if (real_trait == NULL) {
		hx_test_skip("no frame allocator that takes frees");
		return false;
	}
	pool_trait = *real_trait;
	pool_trait.allocate = pool_allocate;
	pool_trait.allocate_run = pool_allocate_run;
	struct hx_pfn_result r = hx_frames_allocate_contiguous(hx_test_machine()->frames,
							       POOL_BLOCKS, POOL_ORDER, 0);
	if (r.status != HX_OK) {
		hx_test_skip("the machine has no 16 MiB in one piece");
		return false;
	}
	pool_first = r.value;
	hx_memset(&pool, 0, sizeof pool);
	hx_status status = hx_frames_add_zone(&pool, HX_ZONE_NORMAL, 0, &pool_trait, pool_first,
					      POOL_FRAMES, metadata, sizeof metadata);
	HX_CHECK_STATUS(status, HX_OK);
	if (status != HX_OK) {
		HX_CHECK_STATUS(hx_frames_deallocate(hx_test_machine()->frames, pool_first), HX_OK);
	}
	return status == HX_OK;
}

static void pool_close(void)
{
	fail_frames(0, 0);
	HX_CHECK_STATUS(hx_frames_validate(&pool), HX_OK);
	HX_CHECK_STATUS(hx_frames_deallocate(hx_test_machine()->frames, pool_first), HX_OK);
}

static bool in_pool(const void *p, size_t bytes)
{
	uintptr_t first = (uintptr_t)hx_ptr(hx_pfn_to_pa(pool_first));
	uintptr_t at = (uintptr_t)p - first;
	return at < (uintptr_t)POOL_FRAMES * HX_FRAME_BYTES &&
	       bytes <= (uintptr_t)POOL_FRAMES * HX_FRAME_BYTES - at;
}

static bool in_arena(const void *p, size_t bytes)
{
	uintptr_t at = (uintptr_t)p - (uintptr_t)arena;
	return at < sizeof arena && bytes <= sizeof arena - at;
}

/* ---- The backends ---- */

struct variant {
	const char *name; /* of the trait */
	bool arena;       /* has one, and nothing else */
	bool reuses;      /* memory of freed objects */
};

static const struct variant variants[] = {
	{"bump", true, false},   {"bump", false, false}, {"simple", true, true},
	{"simple", false, true}, {"slab", false, true},
};

static struct hx_heap heap;

/* A heap of the variant; false: the trait is not built in, or it failed. */
static bool heap_open(const struct variant *v, uint64_t limit)
{
	struct hx_heap_config c = {.trait = hx_heap_trait_find(v->name), .limit_bytes = limit};
	if (c.trait == NULL) {
		return false;
	}
	if (v->arena) {
		c.arena = arena;
		c.arena_bytes = sizeof arena;
	} else {
		c.frames = &pool;
	}
	hx_heap_init(&heap);
	hx_status status = hx_heap_use(&heap, &c);
	HX_CHECK_STATUS(status, HX_OK);
	return status == HX_OK;
}

/* Run @run over every backend that is built in, on a fresh heap. */
static void for_each_variant(void (*run)(const struct variant *v))
{
	if (!pool_open()) {
		return;
	}
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(variants); i++) {
		const struct variant *v = &variants[i];
		uint64_t before = hx_frames_free_frames(&pool);
		if (heap_open(v, 0)) {
			unsigned failures = hx_test_failures();
			run(v);
			fail_frames(0, 0);
			if (hx_test_failures() > failures) {
				hx_log("  ... by %s %s", v->name,
				       v->arena ? "in its arena" : "over frames");
			}
		}
		/* A heap has no end: what it still holds goes with its pool. */
		if (hx_frames_free_frames(&pool) != before) {
			pool_close();
			if (!pool_open()) {
				return;
			}
		}
	}
	pool_close();
}

/* ---- A model of the live objects ---- */

struct object {
	uint8_t *p; /* NULL: none */
	size_t bytes, usable;
	uint64_t seed;
};

static struct object objects[OBJECTS_MAX];
static struct hx_heap_stats model;

static void model_reset(void)
{
	hx_memset(objects, 0, sizeof objects);
	hx_memset(&model, 0, sizeof model);
}

static uint64_t pattern(uint64_t seed, size_t i)
{
	return (seed + i) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Fill the whole object, whole words first. */
static void paint(struct object *o)
{
	uint64_t *words = (uint64_t *)(void *)o->p;
	for (size_t i = 0; i < o->usable / 8; i++) {
		words[i] = pattern(o->seed, i);
	}
}

/* Do the first @bytes still hold what paint() wrote? */
static bool intact(const uint8_t *p, uint64_t seed, size_t bytes)
{
	const uint64_t *words = (const uint64_t *)(const void *)p;
	for (size_t i = 0; i < bytes / 8; i++) {
		if (words[i] != pattern(seed, i)) {
			return false;
		}
	}
	return true;
}

static bool is_zero(const uint8_t *p, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		if (p[i] != 0) {
			return false;
		}
	}
	return true;
}

static void model_live(uint64_t bytes)
{
	model.live_bytes += bytes;
	if (model.live_bytes > model.peak_bytes) {
		model.peak_bytes = model.live_bytes;
	}
}

/* What allocate gave is new, aligned, large enough, and lies where memory is. */
static void check_object(const struct variant *v, const struct object *o, size_t align)
{
	HX_CHECK(o->usable >= (o->bytes == 0 ? 1 : o->bytes));
	HX_CHECK(hx_is_aligned((uintptr_t)o->p,
			       align < HX_HEAP_ALIGN_MIN ? HX_HEAP_ALIGN_MIN : align));
	HX_CHECK(v->arena ? in_arena(o->p, o->usable) : in_pool(o->p, o->usable));
	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		const struct object *other = &objects[i];
		HX_CHECK(other->p == NULL || other == o || o->p + o->usable <= other->p ||
			 other->p + other->usable <= o->p);
	}
}

static hx_status model_allocate(const struct variant *v, struct object *o, size_t bytes,
				size_t align, unsigned flags, uint64_t seed)
{
	struct hx_ptr_result r = hx_heap_allocate(&heap, bytes, align, flags);
	if (r.status != HX_OK) {
		HX_CHECK(r.value == NULL);
		model.failures += r.status == HX_OUT_OF_MEMORY;
		return r.status;
	}
	*o = (struct object){r.value, bytes, hx_heap_usable(&heap, r.value), seed};
	model.allocations++;
	model_live(o->usable);
	check_object(v, o, align);
	if ((flags & HX_HEAP_ZERO) != 0) {
		HX_CHECK(is_zero(o->p, o->usable));
	}
	paint(o);
	return HX_OK;
}

static void model_free(struct object *o, bool sized)
{
	HX_CHECK(intact(o->p, o->seed, o->usable));
	HX_CHECK_STATUS(sized ? hx_heap_free_sized(&heap, o->p, o->bytes)
			      : hx_heap_free(&heap, o->p),
			HX_OK);
	model.frees++;
	model.live_bytes -= o->usable;
	o->p = NULL;
}

static hx_status model_reallocate(const struct variant *v, struct object *o, size_t bytes,
				  size_t align, unsigned flags, uint64_t seed)
{
	HX_CHECK(intact(o->p, o->seed, o->usable));
	struct hx_ptr_result r = hx_heap_reallocate(&heap, o->p, bytes, align, flags);
	if (r.status != HX_OK) {
		model.failures += r.status == HX_OUT_OF_MEMORY;
		HX_CHECK(intact(o->p, o->seed, o->usable));
		HX_CHECK_EQUAL(hx_heap_usable(&heap, o->p), o->usable);
		return r.status;
	}
	struct object before = *o;
	*o = (struct object){r.value, bytes, hx_heap_usable(&heap, r.value), seed};
	size_t kept = before.usable < bytes ? before.usable : bytes;
	HX_CHECK(intact(o->p, before.seed, kept));
	if (o->p != before.p) {
		model.allocations++;
		model.frees++;
		model_live(o->usable);
		model.live_bytes -= before.usable;
	} else {
		model.live_bytes -= before.usable;
		model_live(o->usable);
	}
	if ((flags & HX_HEAP_ZERO) != 0 && o->usable > before.usable) {
		HX_CHECK(is_zero(o->p + before.usable, o->usable - before.usable));
	}
	check_object(v, o, align);
	paint(o);
	return HX_OK;
}

static void check_stats(void)
{
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	HX_CHECK_EQUAL(s.live_objects, model.allocations - model.frees);
	HX_CHECK_EQUAL(s.live_bytes, model.live_bytes);
	HX_CHECK_EQUAL(s.peak_bytes, model.peak_bytes);
	HX_CHECK_EQUAL(s.allocations, model.allocations);
	HX_CHECK_EQUAL(s.frees, model.frees);
	HX_CHECK_EQUAL(s.failures, model.failures);
	HX_CHECK_EQUAL(s.refused_frees, model.refused_frees);
	HX_CHECK(s.managed_bytes >= s.live_bytes);
}

static void free_all(void)
{
	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		if (objects[i].p != NULL) {
			model_free(&objects[i], (i & 1) != 0);
		}
	}
}

/* ---- Random operations against the model ---- */

static size_t random_size(struct hx_random *r, size_t largest)
{
	/* Even over the powers of two; sometimes exactly at one, or beside it. */
	size_t limit = (size_t)1 << hx_random_below(r, hx_log2_floor(largest) + 1);
	switch (hx_random_below(r, 4)) {
	case 0:
		return limit - hx_random_below(r, 2);
	default:
		return (size_t)hx_random_below(r, limit + 1);
	}
}

static size_t random_align(struct hx_random *r)
{
	return hx_random_below(r, 3) != 0 ? 0 : (size_t)1 << hx_random_below(r, 15);
}

static void random_steps(const struct variant *v)
{
	struct hx_random r = {UINT64_C(0x5ca1ab1e)};
	size_t largest = v->arena ? 64 << 10 : 2 << 20;
	uint64_t baseline = hx_frames_free_frames(&pool);
	unsigned served = 0;
	model_reset();
	for (unsigned step = 0; step < 2500; step++) {
		struct object *o = &objects[hx_random_below(&r, OBJECTS_MAX)];
		unsigned flags = hx_random_below(&r, 4) == 0 ? HX_HEAP_ZERO : 0;
		if (o->p == NULL) {
			/* What is live stays below what the memory can surely hold. */
			size_t size = random_size(&r, largest);
			if (model.live_bytes + size > (v->arena ? 256u << 10 : 4u << 20)) {
				size %= 1024;
			}
			served += model_allocate(v, o, size, random_align(&r), flags,
						 hx_random(&r)) == HX_OK;
		} else if (hx_random_below(&r, 3) == 0) {
			size_t size = random_size(&r, largest / 8);
			served += model_reallocate(v, o, size, random_align(&r), flags,
						   hx_random(&r)) == HX_OK;
		} else {
			model_free(o, hx_random_below(&r, 2) == 0);
		}
		HX_REQUIRE_STATUS(hx_heap_validate(&heap), HX_OK);
		check_stats();
		if (step % 500 == 499) {
			hx_heap_shrink(&heap);
			HX_REQUIRE_STATUS(hx_heap_validate(&heap), HX_OK);
		}
		HX_BAIL();
	}
	/* bump runs dry some time; the others never may. */
	HX_CHECK(v->reuses ? model.failures == 0 : served > 50);
	free_all();
	check_stats();
	hx_heap_shrink(&heap);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	if (v->reuses) {
		HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
	}
}

HX_TEST(random_operations_match_a_model)
{
	for_each_variant(random_steps);
}

/* ---- Arguments ---- */

static void refuse_arguments(const struct variant *v)
{
	(void)v;
	static const size_t bad_aligns[] = {
		3, 24, 48, 4097, (size_t)2 << 30, SIZE_MAX, (size_t)1 << 63};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad_aligns); i++) {
		HX_CHECK_STATUS(hx_heap_allocate(&heap, 16, bad_aligns[i], 0).status,
				HX_INVALID_ALIGNMENT);
	}
	HX_CHECK_STATUS(hx_heap_allocate(&heap, 16, 0, 1u << 7).status, HX_INVALID_ARGUMENT);

	/* Sizes that no sum with headers and alignment may wrap. */
	for (unsigned i = 0; i < 40; i++) {
		HX_CHECK_STATUS(hx_heap_allocate(&heap, SIZE_MAX - i, 0, 0).status,
				HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_heap_allocate(&heap, SIZE_MAX - i * 4096, HX_GIB(1), 0).status,
				HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_heap_allocate(&heap, SIZE_MAX / 2 - i, 4096, 0).status,
				HX_INVALID_SIZE);
	}
	for (unsigned shift = 33; shift < 63; shift++) {
		for (size_t align = 16; align <= HX_GIB(1); align *= 16) {
			HX_CHECK_STATUS(
				hx_heap_allocate(&heap, (size_t)1 << shift, align, 0).status,
				HX_OUT_OF_MEMORY);
		}
	}
	HX_CHECK_STATUS(hx_heap_allocate_array(&heap, SIZE_MAX, 2, 0).status, HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_heap_allocate_array(&heap, (size_t)1 << 32, (size_t)1 << 32, 0).status,
			HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_heap_allocate_array(&heap, 3, 5, 1u << 9).status, HX_INVALID_ARGUMENT);

	/* Size 0 is an object like any other. */
	struct hx_ptr_result a = hx_heap_allocate(&heap, 0, 0, 0);
	struct hx_ptr_result b = hx_heap_allocate_array(&heap, 0, 1000, 0);
	HX_CHECK_STATUS(a.status, HX_OK);
	HX_CHECK_STATUS(b.status, HX_OK);
	HX_CHECK(a.value != b.value);

	/* reallocate refuses the same, and the object stands. */
	*(uint8_t *)a.value = 77;
	HX_CHECK_STATUS(hx_heap_reallocate(&heap, a.value, 1, 24, 0).status, HX_INVALID_ALIGNMENT);
	HX_CHECK_STATUS(hx_heap_reallocate(&heap, a.value, SIZE_MAX, 0, 0).status, HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_heap_reallocate(&heap, a.value, 1, 0, 4).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_heap_reallocate(&heap, a.value, HX_GIB(64), 0, 0).status,
			HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(*(uint8_t *)a.value, 77);
	HX_CHECK_STATUS(hx_heap_free_sized(&heap, a.value, 0), HX_OK);
	HX_CHECK_STATUS(hx_heap_free(&heap, b.value), HX_OK);
	HX_CHECK_STATUS(hx_heap_free(&heap, NULL), HX_OK);
	HX_CHECK_STATUS(hx_heap_free_sized(&heap, NULL, 12), HX_OK);
	HX_CHECK_EQUAL(hx_heap_usable(&heap, NULL), 0);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
}

HX_TEST(bad_arguments_are_refused)
{
	for_each_variant(refuse_arguments);
}

HX_TEST(configurations_are_checked)
{
	hx_heap_init(&heap);
	HX_CHECK(hx_streq(hx_heap_name(&heap), ""));
	HX_CHECK_STATUS(hx_heap_allocate(&heap, 1, 0, 0).status, HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_heap_reallocate(&heap, NULL, 1, 0, 0).status, HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_heap_reallocate(&heap, arena, 1, 0, 0).status, HX_FOREIGN_FREE);
	HX_CHECK_STATUS(hx_heap_free(&heap, arena), HX_FOREIGN_FREE);
	HX_CHECK_EQUAL(hx_heap_shrink(&heap), 0);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);

	struct hx_heap_config c = {.trait = NULL, .arena = arena, .arena_bytes = sizeof arena};
	HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_INVALID_ARGUMENT);
	unsigned named = 0;
	for (const struct hx_heap_trait *t; (t = hx_heap_trait_at(named)) != NULL; named++) {
		HX_CHECK(hx_heap_trait_find(t->name) == t);
		c = (struct hx_heap_config){.trait = t};
		HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_INVALID_ARGUMENT);
		c.arena_bytes = 4096;
		HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_INVALID_ARGUMENT);
		c.arena = arena;
		c.arena_bytes = 40; /* no room for a chunk */
		HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_INVALID_ARGUMENT);
		c.arena = (void *)(UINTPTR_MAX - 100);
		c.arena_bytes = 4096; /* wraps */
		HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_INVALID_ARGUMENT);
	}
	HX_CHECK(named > 0);
	HX_CHECK(hx_heap_trait_at(named + 1) == NULL && hx_heap_trait_at(1000) == NULL);
	HX_CHECK(hx_heap_trait_find("") == NULL && hx_heap_trait_find("bum") == NULL);
	/* A trait that is not built in is refused, also where it has all that it needs. */
	struct hx_heap_trait foreign = *hx_heap_trait_at(0);
	c = (struct hx_heap_config){.trait = &foreign, .arena = arena, .arena_bytes = sizeof arena};
	HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_INVALID_ARGUMENT);
	HX_CHECK(hx_streq(hx_heap_name(&heap), ""));
}

/* ---- Frees that are refused ---- */

static void expect_refused(hx_status actual, hx_status expected, int line)
{
	model.refused_frees++;
	if (actual != expected) {
		hx_test_fail(__FILE__, line, "a wrong free is %s, not %s", hx_status_name(actual),
			     hx_status_name(expected));
	}
}
#define REFUSED(actual, expected) expect_refused((actual), (expected), __LINE__)

static void refuse_frees(const struct variant *v)
{
	static const size_t sizes[] = {1, 16, 100, 1000, 5000, 40000};
	uint64_t on_stack[8] = {0};
	model_reset();
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(sizes); i++) {
		struct object *o = &objects[0], *neighbour = &objects[1];
		HX_REQUIRE_STATUS(model_allocate(v, o, sizes[i], 0, 0, i), HX_OK);
		HX_REQUIRE_STATUS(model_allocate(v, neighbour, sizes[i], 0, 0, ~i), HX_OK);

		/* Inside the object, at its end, and where nothing ever was. */
		for (size_t at = 1; at < o->usable; at = at < 64 ? at + 1 : at * 2 + 16) {
			REFUSED(hx_heap_free(&heap, o->p + at), HX_FOREIGN_FREE);
			HX_CHECK_EQUAL(hx_heap_usable(&heap, o->p + at), 0);
		}
		REFUSED(hx_heap_free(&heap, on_stack), HX_FOREIGN_FREE);
		REFUSED(hx_heap_free(&heap, metadata), HX_FOREIGN_FREE);
		REFUSED(hx_heap_free(&heap, (void *)(uintptr_t)16), HX_FOREIGN_FREE);
		REFUSED(hx_heap_free(&heap, (void *)(UINTPTR_MAX & ~(uintptr_t)15)),
			HX_FOREIGN_FREE);
		REFUSED(hx_heap_free(&heap, o->p - 1), HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_heap_reallocate(&heap, o->p + 8, 8, 0, 0).status,
				HX_FOREIGN_FREE);
		check_stats();
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);

		/* Wrong sizes: too large, and such as another block would have served. */
		REFUSED(hx_heap_free_sized(&heap, o->p, o->usable + 1), HX_WRONG_SIZE_FREE);
		REFUSED(hx_heap_free_sized(&heap, o->p, SIZE_MAX), HX_WRONG_SIZE_FREE);
		REFUSED(hx_heap_free_sized(&heap, o->p, SIZE_MAX - 14), HX_WRONG_SIZE_FREE);
		if (sizes[i] > 64) {
			REFUSED(hx_heap_free_sized(&heap, o->p, sizes[i] / 4), HX_WRONG_SIZE_FREE);
			REFUSED(hx_heap_free_sized(&heap, o->p, 0), HX_WRONG_SIZE_FREE);
		}
		HX_CHECK(intact(o->p, o->seed, o->usable));

		/* Twice, at once and after the neighbour went, sized and not. */
		uint8_t *p = o->p, *q = neighbour->p;
		hx_status twice = HX_DOUBLE_FREE;
		if (hx_streq(v->name, "slab") && sizes[i] > HX_KIB(32)) {
			twice = HX_FOREIGN_FREE; /* its frames are no longer the heap's */
		}
		model_free(o, true);
		REFUSED(hx_heap_free(&heap, p), twice);
		REFUSED(hx_heap_free_sized(&heap, p, sizes[i]), twice);
		HX_CHECK_EQUAL(hx_heap_usable(&heap, p), 0);
		HX_CHECK_STATUS(hx_heap_reallocate(&heap, p, 1, 0, 0).status, twice);
		model_free(neighbour, false);
		REFUSED(hx_heap_free(&heap, p), twice);
		REFUSED(hx_heap_free(&heap, q), twice);
		check_stats();
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);

		/* Recycled: the pointer is good once more, and only once. */
		HX_REQUIRE_STATUS(model_allocate(v, o, sizes[i], 0, 0, i), HX_OK);
		if (v->reuses) {
			HX_CHECK(o->p == p || o->p == q);
		} else {
			REFUSED(hx_heap_free(&heap, p), HX_DOUBLE_FREE);
		}
		p = o->p;
		model_free(o, false);
		REFUSED(hx_heap_free(&heap, p), twice);
		HX_BAIL();
	}
	/* And when the memory went back to the frames. */
	struct object *o = &objects[0];
	HX_REQUIRE_STATUS(model_allocate(v, o, 200, 0, 0, 1), HX_OK);
	uint8_t *p = o->p;
	model_free(o, false);
	hx_heap_shrink(&heap);
	hx_status status = hx_heap_free(&heap, p);
	HX_CHECK(status == HX_DOUBLE_FREE || status == HX_FOREIGN_FREE);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
}

HX_TEST(wrong_frees_are_refused)
{
	for_each_variant(refuse_frees);
}

/* A slab hands out from the middle of a class: every object's twin frees wrongly. */
static void refuse_many(const struct variant *v)
{
	model_reset();
	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		HX_REQUIRE_STATUS(model_allocate(v, &objects[i], 48, 0, 0, i), HX_OK);
	}
	for (unsigned i = 0; i < OBJECTS_MAX; i += 2) {
		uint8_t *p = objects[i].p;
		model_free(&objects[i], true);
		for (unsigned k = 0; k <= i; k += 2) {
			REFUSED(hx_heap_free(&heap, p), HX_DOUBLE_FREE);
		}
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	}
	free_all();
	check_stats();
}

HX_TEST(double_frees_are_found_wherever_the_object_waits)
{
	for_each_variant(refuse_many);
}

/* Every size may be freed by its size, at every alignment, also after a resize. */
static void free_by_size(const struct variant *v)
{
	model_reset();
	struct object *o = &objects[0];
	size_t limit = v->arena ? 3000 : 80000;
	for (size_t align = 16; align <= 4096; align *= 4) {
		for (size_t size = 0; size < limit; size += size < 600 ? 7 : size / 5) {
			if (model_allocate(v, o, size, align, 0, size) == HX_OUT_OF_MEMORY) {
				HX_CHECK(!v->reuses);
				return;
			}
			if (size % 2 == 0) {
				size_t other = size / 3;
				HX_CHECK_STATUS(model_reallocate(v, o, other, 16, 0, size), HX_OK);
			}
			if (size % 4 == 0) {
				if (model_reallocate(v, o, size, 16, 0, size) == HX_OUT_OF_MEMORY) {
					HX_CHECK(!v->reuses);
					return;
				}
			}
			model_free(o, true);
			HX_BAIL();
		}
	}
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
}

HX_TEST(every_size_frees_by_its_size)
{
	for_each_variant(free_by_size);
}

/* ---- Zeroing, reallocation, alignment ---- */

static void zero_again(const struct variant *v)
{
	model_reset();
	for (size_t size = 1; size <= (v->arena ? 20000u : 200000u); size = size * 3 + 5) {
		struct object *o = &objects[0];
		for (unsigned round = 0; round < 6; round++) { /* recycled, painted */
			HX_REQUIRE_STATUS(model_allocate(v, o, size, 0, 0, round + 1), HX_OK);
			model_free(o, false);
			HX_REQUIRE_STATUS(model_allocate(v, o, size, 0, HX_HEAP_ZERO, round),
					  HX_OK);
			model_free(o, false);
			struct hx_ptr_result r = hx_heap_allocate_array(&heap, size, 1, 0);
			HX_REQUIRE_STATUS(r.status, HX_OK);
			HX_CHECK(is_zero(r.value, hx_heap_usable(&heap, r.value)));
			HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
		}
	}
}

HX_TEST(zeroed_memory_is_zero_when_recycled)
{
	for_each_variant(zero_again);
}

static void reallocate_rules(const struct variant *v)
{
	model_reset();
	struct object *o = &objects[0];
	struct hx_ptr_result r = hx_heap_reallocate(&heap, NULL, 100, 64, HX_HEAP_ZERO);
	HX_REQUIRE_STATUS(r.status, HX_OK);
	HX_CHECK(hx_is_aligned((uintptr_t)r.value, 64) && is_zero(r.value, 100));
	HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);

	model_reset();
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	model = s; /* goes on from here */
	HX_REQUIRE_STATUS(model_allocate(v, o, 3000, 0, 0, 1), HX_OK);
	uint8_t *p = o->p;
	HX_CHECK_STATUS(model_reallocate(v, o, 2999, 0, 0, 2), HX_OK);
	HX_CHECK(o->p == p);
	HX_CHECK_STATUS(model_reallocate(v, o, 10, 0, 0, 3), HX_OK);
	HX_CHECK(o->p == p); /* smaller never moves */
	HX_CHECK_STATUS(model_reallocate(v, o, 0, 0, 0, 4), HX_OK);
	HX_CHECK(o->p == p);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	HX_CHECK_STATUS(model_reallocate(v, o, 20000, 0, HX_HEAP_ZERO, 5), HX_OK);
	HX_CHECK_STATUS(model_reallocate(v, o, 20000, 8192, 0, 6), HX_OK);
	HX_CHECK_STATUS(model_reallocate(v, o, 1, 8192, 0, 7), HX_OK);
	check_stats();
	model_free(o, false);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
}

HX_TEST(reallocate_keeps_what_it_must)
{
	for_each_variant(reallocate_rules);
}

static void align_all(const struct variant *v)
{
	model_reset();
	for (unsigned shift = 0; shift <= 30; shift++) {
		size_t align = (size_t)1 << shift;
		for (size_t size = 1; size <= 4100; size = size * 16 + 4) {
			struct object *o = &objects[0];
			hx_status status = model_allocate(v, o, size, align, 0, size);
			/* A power of two below what the pool surely has; above, either. */
			if (align <= (v->arena ? 64u << 10 : 2u << 20) && v->reuses) {
				HX_CHECK_STATUS(status, HX_OK);
			} else {
				HX_CHECK(status == HX_OK || status == HX_OUT_OF_MEMORY);
			}
			HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
			if (status == HX_OK) {
				model_free(o, true);
			}
			HX_BAIL();
		}
	}
	check_stats();
}

HX_TEST(every_alignment_up_to_1_gib)
{
	for_each_variant(align_all);
}

/* ---- Running out ---- */

static void drain_and_refill(const struct variant *v)
{
	/* Objects that name the one before them: no table of them is needed. */
	struct hx_heap_stats before, after;
	uint64_t baseline = hx_frames_free_frames(&pool);
	unsigned counts[2] = {0, 0};
	hx_heap_stats(&heap, &before);
	for (unsigned round = 0; round < 2; round++) {
		void **last = NULL;
		struct hx_ptr_result r;
		while ((r = hx_heap_allocate(&heap, 3000, 0, 0)).status == HX_OK) {
			*(void **)r.value = last;
			last = r.value;
			counts[round]++;
		}
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
		while (last != NULL) {
			void **next = *last;
			HX_CHECK_STATUS(hx_heap_free_sized(&heap, last, 3000), HX_OK);
			last = next;
		}
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	}
	uint64_t memory = v->arena ? ARENA_BYTES : baseline * HX_FRAME_BYTES;
	HX_CHECK(counts[0] * UINT64_C(3000) > memory - memory / 4);
	HX_CHECK(!v->reuses || counts[1] == counts[0]);
	hx_heap_stats(&heap, &after);
	HX_CHECK_EQUAL(after.failures, 2);
	HX_CHECK_EQUAL(after.live_objects, 0);
	/* Memory of one size serves another: what one class holds is given up first. */
	if (v->reuses) {
		struct hx_ptr_result r = hx_heap_allocate(&heap, memory / 4, 0, 0);
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
		hx_heap_shrink(&heap);
		HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
		hx_heap_stats(&heap, &after);
		HX_CHECK_EQUAL(after.managed_bytes, before.managed_bytes);
	}
}

HX_TEST(all_memory_can_be_used_and_comes_back)
{
	for_each_variant(drain_and_refill);
}

HX_TEST(the_limit_holds)
{
	if (!pool_open()) {
		return;
	}
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(variants); i++) {
		const struct variant *v = &variants[i];
		uint64_t limit = HX_KIB(512), all = hx_frames_free_frames(&pool);
		if (v->arena || !heap_open(v, limit)) {
			continue;
		}
		uint64_t baseline = hx_frames_free_frames(&pool);
		HX_CHECK_STATUS(hx_heap_allocate(&heap, limit, 0, 0).status, HX_OUT_OF_MEMORY);
		HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
		for (unsigned round = 0; round < 2; round++) {
			struct hx_heap_stats s;
			void **last = NULL;
			struct hx_ptr_result r;
			unsigned count = 0;
			while ((r = hx_heap_allocate(&heap, 900 + 300 * round, 0, 0)).status ==
			       HX_OK) {
				*(void **)r.value = last;
				last = r.value;
				count++;
				hx_heap_stats(&heap, &s);
				HX_CHECK(s.managed_bytes <= limit);
				HX_CHECK(all - hx_frames_free_frames(&pool) <=
					 limit / HX_FRAME_BYTES);
			}
			HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
			HX_CHECK(count > 200 || (round > 0 && !v->reuses));
			while (last != NULL) {
				void **next = *last;
				HX_CHECK_STATUS(hx_heap_free(&heap, last), HX_OK);
				last = next;
			}
			HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
		}
		hx_heap_shrink(&heap);
		if (v->reuses) {
			HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
		}
		pool_close();
		if (!pool_open()) {
			return;
		}
	}
	pool_close();
}

/* What pressure has to work with, and what it saw. */
static struct {
	void *hoard;
	unsigned calls;
	uint64_t wanted;
} reserve;

static bool on_pressure(void *context, uint64_t frames_wanted)
{
	HX_CHECK(context == &reserve);
	reserve.calls++;
	reserve.wanted = frames_wanted;
	/* No lock is held: the heap may be used, only not for more of the same. */
	struct hx_ptr_result r = hx_heap_allocate(&heap, 24, 0, HX_HEAP_NO_PRESSURE);
	if (r.status == HX_OK) {
		HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
	}
	if (reserve.hoard == NULL) {
		return false;
	}
	HX_CHECK_STATUS(hx_heap_free(&heap, reserve.hoard), HX_OK);
	reserve.hoard = NULL;
	return true;
}

static void press(const struct variant *v)
{
	reserve.calls = 0;
	heap.pressure = on_pressure;
	heap.pressure_context = &reserve;
	size_t big = v->arena ? ARENA_BYTES / 8 * 5 : 10 << 20;
	struct hx_ptr_result r = hx_heap_allocate(&heap, big, 0, 0);
	HX_REQUIRE_STATUS(r.status, HX_OK);
	reserve.hoard = r.value;
	HX_CHECK_EQUAL(reserve.calls, 0);

	HX_CHECK_STATUS(hx_heap_allocate(&heap, big, 0, HX_HEAP_NO_PRESSURE).status,
			HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(reserve.calls, 0);
	r = hx_heap_allocate(&heap, big, 0, 0);
	HX_CHECK_STATUS(r.status, v->reuses ? HX_OK : HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(reserve.calls, 1);
	HX_CHECK(reserve.wanted >= big / HX_FRAME_BYTES);
	/* Nothing is left to give up: one event, no second try. */
	HX_CHECK_STATUS(hx_heap_allocate(&heap, big, 0, 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(reserve.calls, 2);
	HX_CHECK_STATUS(hx_heap_allocate(&heap, SIZE_MAX, 0, 0).status, HX_INVALID_SIZE);
	HX_CHECK_EQUAL(reserve.calls, 2);
	HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
}

HX_TEST(pressure_is_raised_once_and_without_locks)
{
	for_each_variant(press);
}

/* ---- Frames that cannot be had ---- */

/*
 * Some of everything; whatever fails must leave all else as it was. @first_large: the
 * first object is a large one, so that it is what finds no metadata yet.
 */
static void scenario(const struct variant *v, bool first_large)
{
	struct hx_random r = {77};
	model_reset();
	for (unsigned step = 0; step < 60; step++) {
		struct object *o = &objects[hx_random_below(&r, 24)];
		uint64_t seed = hx_random(&r);
		uint64_t failed = frame_failures, free = hx_frames_free_frames(&pool);
		hx_status status = HX_OK;
		if (o->p == NULL) {
			bool large = step % 5 == (first_large ? 0 : 4);
			size_t size = large ? 50000 : random_size(&r, 16 << 10);
			status = model_allocate(v, o, size, step % 7 == 0 ? 4096 : 0, 0, seed);
		} else if (step % 3 == 0) {
			status = model_reallocate(v, o, o->bytes * 2, 0, 0, seed);
		} else {
			model_free(o, false);
		}
		if (status != HX_OK) {
			HX_CHECK_STATUS(status, HX_OUT_OF_MEMORY);
			HX_CHECK(frame_failures > failed);
			HX_CHECK(hx_frames_free_frames(&pool) >= free);
		}
		HX_REQUIRE_STATUS(hx_heap_validate(&heap), HX_OK);
		check_stats();
	}
	free_all();
	check_stats();
}

static void inject(const struct variant *v)
{
	if (v->arena) {
		return;
	}
	static const struct {
		uint64_t count;
		bool first_large;
	} modes[] = {{1, true}, {1, false}, {UINT64_MAX, false}};
	for (unsigned mode = 0; mode < HX_ARRAY_LENGTH(modes); mode++) {
		for (uint64_t n = 1; n < 500; n++) {
			pool_close();
			if (!pool_open()) {
				return;
			}
			hx_heap_init(&heap);
			struct hx_heap_config c = {.trait = hx_heap_trait_find(v->name),
						   .frames = &pool};
			uint64_t all = hx_frames_free_frames(&pool);
			fail_frames(n, modes[mode].count);
			hx_status status = hx_heap_use(&heap, &c);
			if (status != HX_OK) {
				HX_CHECK_STATUS(status, HX_OUT_OF_MEMORY);
				HX_CHECK_EQUAL(frame_failures, 1);
				HX_CHECK(hx_streq(hx_heap_name(&heap), ""));
				HX_CHECK_EQUAL(hx_frames_free_frames(&pool), all);
				continue;
			}
			uint64_t baseline = hx_frames_free_frames(&pool);
			scenario(v, modes[mode].first_large);
			hx_heap_shrink(&heap);
			HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
			if (v->reuses) {
				HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
			}
			if (hx_test_failures() > 0) {
				hx_log("  ... with frame request %u failing %s", (unsigned)n,
				       modes[mode].count == 1 ? "once" : "and all after it");
				return;
			}
			if (frame_failures == 0) {
				HX_CHECK(n > 3); /* it did count */
				break;
			}
			HX_CHECK(n < 499);
		}
	}
}

HX_TEST(every_frame_allocation_may_fail)
{
	for_each_variant(inject);
}

/* ---- One backend after the other ---- */

HX_TEST(retired_backends_keep_taking_frees)
{
	if (!pool_open()) {
		return;
	}
	static uint8_t second_arena[64 << 10] __attribute__((aligned(16)));
	static const char *const chain[] = {"bump", "simple", "bump", "slab"};
	enum { EACH = 8 };
	static struct object old[HX_ARRAY_LENGTH(chain)][EACH];
	hx_heap_init(&heap);
	unsigned used = 0;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(chain); i++) {
		struct hx_heap_config c = {.trait = hx_heap_trait_find(chain[i])};
		if (i == 0) {
			c.arena = arena;
			c.arena_bytes = sizeof arena;
		} else if (i == 2) {
			c.arena = second_arena;
			c.arena_bytes = sizeof second_arena;
		} else {
			c.frames = &pool;
		}
		if (c.trait == NULL) {
			continue;
		}
		HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_OK);
		HX_CHECK(hx_streq(hx_heap_name(&heap), chain[i]));
		for (unsigned k = 0; k < EACH; k++) {
			struct hx_ptr_result r = hx_heap_allocate(&heap, 40 + 100 * k, 0, 0);
			HX_CHECK_STATUS(r.status, HX_OK);
			old[used][k] = (struct object){r.value, 40 + 100 * k,
						       hx_heap_usable(&heap, r.value), k + i};
			paint(&old[used][k]);
		}
		used++;
	}
	if (used == HX_HEAP_BACKENDS_MAX) {
		struct hx_heap_config c = {.trait = hx_heap_trait_at(0),
					   .arena = metadata,
					   .arena_bytes = sizeof metadata};
		HX_CHECK_STATUS(hx_heap_use(&heap, &c), HX_OUT_OF_MEMORY);
	}
	/* Grow one of each: a retired backend's object moves to the active one. */
	for (unsigned i = 0; i < used; i++) {
		struct object *o = &old[i][0];
		struct hx_ptr_result r = hx_heap_reallocate(&heap, o->p, o->usable + 1, 0, 0);
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK(intact(r.value, o->seed, o->usable));
		HX_CHECK_STATUS(hx_heap_free_sized(&heap, r.value, o->usable + 1), HX_OK);
	}
	/* Free the rest across the chain, each once with success and once without. */
	for (unsigned k = 1; k < EACH; k++) {
		for (unsigned i = 0; i < used; i++) {
			struct object *o = &old[i][k];
			HX_CHECK(intact(o->p, o->seed, o->usable));
			HX_CHECK_STATUS(hx_heap_free(&heap, o->p + 16), HX_FOREIGN_FREE);
			HX_CHECK_STATUS(hx_heap_free_sized(&heap, o->p, o->usable + 1),
					HX_WRONG_SIZE_FREE);
			HX_CHECK_STATUS(hx_heap_free_sized(&heap, o->p, o->bytes), HX_OK);
			HX_CHECK_STATUS(hx_heap_free(&heap, o->p), HX_DOUBLE_FREE);
			HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
		}
	}
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	HX_CHECK_EQUAL(s.live_objects, 0);
	HX_CHECK_EQUAL(s.live_bytes, 0);
	HX_CHECK_EQUAL(s.refused_frees, used * (EACH - 1) * 3);
	pool_close();
}

HX_TEST(one_heap_refuses_the_pointers_of_another)
{
	if (!pool_open()) {
		return;
	}
	static struct hx_heap others[HX_ARRAY_LENGTH(variants)];
	static void *pointers[HX_ARRAY_LENGTH(variants)][3];
	static uint8_t arenas[HX_ARRAY_LENGTH(variants)][32 << 10] __attribute__((aligned(16)));
	static const size_t sizes[] = {20, 700, 12000};
	unsigned n = 0;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(variants); i++) {
		struct hx_heap_config c = {.trait = hx_heap_trait_find(variants[i].name)};
		if (variants[i].arena) {
			c.arena = arenas[i];
			c.arena_bytes = sizeof arenas[i];
		} else {
			c.frames = &pool;
		}
		if (c.trait == NULL) {
			continue;
		}
		hx_heap_init(&others[n]);
		HX_CHECK_STATUS(hx_heap_use(&others[n], &c), HX_OK);
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(sizes); k++) {
			struct hx_ptr_result r = hx_heap_allocate(&others[n], sizes[k], 0, 0);
			HX_CHECK_STATUS(r.status, HX_OK);
			pointers[n][k] = r.value;
		}
		n++;
	}
	for (unsigned a = 0; a < n; a++) {
		for (unsigned b = 0; b < n; b++) {
			for (unsigned k = 0; a != b && k < HX_ARRAY_LENGTH(sizes); k++) {
				HX_CHECK_STATUS(hx_heap_free(&others[a], pointers[b][k]),
						HX_FOREIGN_FREE);
				HX_CHECK_EQUAL(hx_heap_usable(&others[a], pointers[b][k]), 0);
			}
		}
	}
	for (unsigned a = 0; a < n; a++) {
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(sizes); k++) {
			HX_CHECK_STATUS(hx_heap_free(&others[a], pointers[a][k]), HX_OK);
		}
		HX_CHECK_STATUS(hx_heap_validate(&others[a]), HX_OK);
	}
	pool_close();
}

/* ---- bump ---- */

HX_TEST(bump_top_bounds_all_that_was_handed_out)
{
	static const struct variant v = {"bump", true, false};
	if (!heap_open(&v, 0)) {
		return;
	}
	const struct hx_heap_backend *b = &heap.backends[0];
	uint8_t *top = hx_heap_bump_top(b);
	HX_CHECK(top >= arena && top < arena + 256); /* a chunk header, no more */
	struct hx_random r = {3};
	model_reset();
	for (unsigned i = 0; i < OBJECTS_MAX; i++) {
		HX_REQUIRE_STATUS(model_allocate(&v, &objects[i], random_size(&r, 2048),
						 random_align(&r), 0, i),
				  HX_OK);
		uint8_t *now = hx_heap_bump_top(b);
		HX_CHECK(objects[i].p >= top);
		HX_CHECK(now == objects[i].p + objects[i].usable);
		top = now;
	}
	/* The rest is somebody else's from here on; what was handed out is not. */
	uint64_t used = (uint64_t)(top - arena);
	HX_CHECK_STATUS(hx_heap_bump_cut(&heap.backends[0], used - 1), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_heap_bump_cut(&heap.backends[0], sizeof arena + 1), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_heap_bump_cut(&heap.backends[0], UINT64_MAX), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_heap_bump_cut(&heap.backends[0], used), HX_OK);
	struct hx_heap_stats cut;
	hx_heap_stats(&heap, &cut);
	HX_CHECK_EQUAL(cut.managed_bytes, used);
	HX_CHECK_EQUAL(cut.largest_free, 0);
	HX_CHECK_STATUS(hx_heap_allocate(&heap, 1, 0, 0).status, HX_OUT_OF_MEMORY);
	model.failures++;
	hx_memset(top, 0xff, (size_t)(arena + sizeof arena - top));
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	REFUSED(hx_heap_free(&heap, top), HX_FOREIGN_FREE);
	REFUSED(hx_heap_free(&heap, top + 16), HX_FOREIGN_FREE);
	free_all();
	check_stats();
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	HX_CHECK(hx_heap_bump_top(b) == top);
}

HX_TEST(an_arena_may_start_and_end_anywhere)
{
	static const char *const names[] = {"bump", "simple"};
	for (unsigned n = 0; n < HX_ARRAY_LENGTH(names); n++) {
		for (unsigned shift = 0; shift < 20; shift++) {
			for (size_t bytes = 1; bytes < 300; bytes += 1 + shift) {
				hx_memset(arena, 0xee, 400);
				struct hx_heap_config c = {.trait = hx_heap_trait_find(names[n]),
							   .arena = arena + shift,
							   .arena_bytes = bytes};
				if (c.trait == NULL) {
					continue;
				}
				hx_heap_init(&heap);
				hx_status status = hx_heap_use(&heap, &c);
				if (status == HX_OK) { /* then an object fits */
					struct hx_ptr_result r = hx_heap_allocate(&heap, 1, 0, 0);
					HX_CHECK_STATUS(r.status, HX_OK);
					HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
					HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
				} else {
					HX_CHECK_STATUS(status, HX_INVALID_ARGUMENT);
					HX_CHECK(bytes < 128);
				}
				for (unsigned i = 0; i < 400; i++) {
					HX_CHECK((i >= shift && i < shift + bytes) ||
						 arena[i] == 0xee);
				}
				HX_BAIL();
			}
		}
	}
}

/* ---- Damage ---- */

/* Every bit of a live object's header, one at a time: noticed, and nothing done. */
static void damage_headers(const struct variant *v)
{
	if (hx_streq(v->name, "slab")) {
		return; /* has none */
	}
	model_reset();
	for (unsigned i = 0; i < 3; i++) {
		HX_REQUIRE_STATUS(model_allocate(v, &objects[i], 100, 0, 0, i), HX_OK);
	}
	uint8_t *p = objects[1].p;
	for (unsigned i = 0; i < 128; i++) {
		uint8_t *byte = p - 16 + i / 8;
		*byte ^= (uint8_t)(1u << i % 8);
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_CORRUPTED);
		REFUSED(hx_heap_free(&heap, p), HX_CORRUPTED);
		HX_CHECK_EQUAL(hx_heap_usable(&heap, p), 0);
		*byte ^= (uint8_t)(1u << i % 8);
	}
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	/* A header that was copied together with its object is worth nothing. */
	hx_memcpy(objects[2].p, p - 16, 64);
	REFUSED(hx_heap_free(&heap, objects[2].p + 16), HX_FOREIGN_FREE);
	paint(&objects[2]);
	free_all();
	check_stats();
}

HX_TEST(damaged_headers_are_noticed)
{
	for_each_variant(damage_headers);
}

/* Writes into free memory: simple notices what it would follow, slab does not care. */
static void write_after_free(const struct variant *v)
{
	if (!v->reuses) {
		return;
	}
	model_reset();
	for (unsigned i = 0; i < 40; i++) {
		HX_REQUIRE_STATUS(model_allocate(v, &objects[i], 64, 0, 0, i), HX_OK);
	}
	uint8_t *p = objects[7].p, *q = objects[20].p;
	model_free(&objects[7], false);
	model_free(&objects[20], false);
	if (hx_streq(v->name, "slab")) {
		hx_memset(p, 0xff, 64);
		hx_memset(q, 0x41, 64);
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	} else {
		for (unsigned i = 0; i < 128; i++) { /* the link and its check */
			p[i / 8] ^= (uint8_t)(1u << i % 8);
			HX_CHECK_STATUS(hx_heap_validate(&heap), HX_CORRUPTED);
			HX_CHECK_STATUS(hx_heap_allocate(&heap, 5000, 0, 0).status, HX_CORRUPTED);
			HX_CHECK_STATUS(hx_heap_free(&heap, objects[30].p), HX_CORRUPTED);
			model.refused_frees++;
			p[i / 8] ^= (uint8_t)(1u << i % 8);
		}
	}
	for (unsigned i = 40; i < 60; i++) {
		HX_REQUIRE_STATUS(model_allocate(v, &objects[i], 64, 0, 0, i), HX_OK);
	}
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	free_all();
	check_stats();
}

HX_TEST(writes_after_free_do_no_further_harm)
{
	for_each_variant(write_after_free);
}

/* Headers that an earlier heap left in the same memory are not this heap's. */
HX_TEST(stale_headers_of_an_earlier_heap_mean_nothing)
{
	static const struct variant arenas[] = {{"bump", true, false}, {"simple", true, true}};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(arenas); i++) {
		void *old[20];
		if (!heap_open(&arenas[i], 0)) {
			continue;
		}
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(old); k++) {
			struct hx_ptr_result r = hx_heap_allocate(&heap, 100, 0, 0);
			HX_REQUIRE_STATUS(r.status, HX_OK);
			old[k] = r.value;
		}
		HX_REQUIRE(heap_open(&arenas[i], 0));
		struct hx_ptr_result r = hx_heap_allocate(&heap, 4000, 0, 0);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		for (unsigned k = 1; k < HX_ARRAY_LENGTH(old); k++) {
			HX_CHECK_STATUS(hx_heap_free(&heap, old[k]), HX_FOREIGN_FREE);
		}
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	}
}

/* ---- slab ---- */

HX_TEST(slab_wastes_at_most_an_eighth)
{
	static const struct variant v = {"slab", false, true};
	if (!pool_open()) {
		return;
	}
	if (heap_open(&v, 0)) {
		for (size_t size = 1; size <= HX_KIB(256); size += size < 4096 ? 1 : 509) {
			struct hx_ptr_result r = hx_heap_allocate(&heap, size, 0, 0);
			HX_CHECK_STATUS(r.status, HX_OK);
			size_t usable = hx_heap_usable(&heap, r.value);
			HX_CHECK(usable >= size);
			if (size > 128) {
				HX_CHECK(usable <= size + size / 8);
			} else {
				HX_CHECK(usable < size + 16);
			}
			HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
			HX_BAIL();
		}
		/* An aligned one takes the next power of two at most. */
		for (size_t align = 16; align <= 4096; align *= 2) {
			for (size_t size = 1; size <= HX_KIB(32); size += size / 3 + 1) {
				struct hx_ptr_result r = hx_heap_allocate(&heap, size, align, 0);
				HX_CHECK_STATUS(r.status, HX_OK);
				unsigned order = hx_log2_ceil(size > align ? size : align);
				HX_CHECK(hx_heap_usable(&heap, r.value) <= (size_t)1 << order);
				HX_CHECK_STATUS(hx_heap_free(&heap, r.value), HX_OK);
			}
		}
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	}
	pool_close();
}

/* Freed slabs go back by themselves, also without pressure. */
HX_TEST(slab_does_not_hoard)
{
	static const struct variant v = {"slab", false, true};
	if (!pool_open()) {
		return;
	}
	if (heap_open(&v, 0)) {
		uint64_t baseline = hx_frames_free_frames(&pool);
		void **last = NULL;
		for (unsigned i = 0; i < 12000; i++) {
			struct hx_ptr_result r = hx_heap_allocate(&heap, 1024, 0, 0);
			HX_REQUIRE_STATUS(r.status, HX_OK);
			*(void **)r.value = last;
			last = r.value;
		}
		HX_CHECK(baseline - hx_frames_free_frames(&pool) >= 3000);
		while (last != NULL) {
			void **next = *last;
			HX_CHECK_STATUS(hx_heap_free(&heap, last), HX_OK);
			last = next;
		}
		HX_CHECK(baseline - hx_frames_free_frames(&pool) < 200);
		HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
		HX_CHECK(hx_heap_shrink(&heap) > 0);
		HX_CHECK_EQUAL(hx_frames_free_frames(&pool), baseline);
		HX_CHECK_EQUAL(hx_heap_shrink(&heap), 0);
	}
	pool_close();
}

/* ---- The frame database ---- */

static void tag_frames(const struct variant *v)
{
	struct hx_framedb *db = hx_test_machine()->db;
	if (v->arena || db == NULL) {
		return;
	}
	heap.backends[0].db = db; /* nothing is taken yet that would have to be tagged */
	if (hx_streq(v->name, "slab")) {
		hx_heap_init(&heap);
		struct hx_heap_config c = {
			.trait = hx_heap_trait_find(v->name), .frames = &pool, .db = db};
		HX_REQUIRE_STATUS(hx_heap_use(&heap, &c), HX_OK);
	}
	uint64_t before = hx_framedb_count(db, HX_TAG_HEAP);
	struct hx_ptr_result a = hx_heap_allocate(&heap, 100, 0, 0);
	struct hx_ptr_result b = hx_heap_allocate(&heap, 100000, 0, 0);
	HX_REQUIRE_STATUS(a.status, HX_OK);
	HX_REQUIRE_STATUS(b.status, HX_OK);
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	HX_CHECK_EQUAL(hx_framedb_tag(db, hx_pa_to_pfn(hx_ptr_to_pa(a.value))), HX_TAG_HEAP);
	for (unsigned i = 0; i < 25; i++) {
		const uint8_t *at = (const uint8_t *)b.value + i * HX_FRAME_BYTES;
		HX_CHECK_EQUAL(hx_framedb_tag(db, hx_pa_to_pfn(hx_ptr_to_pa(at))), HX_TAG_HEAP);
	}
	HX_CHECK_STATUS(hx_heap_free(&heap, a.value), HX_OK);
	HX_CHECK_STATUS(hx_heap_free(&heap, b.value), HX_OK);
	hx_heap_shrink(&heap);
	if (v->reuses) {
		HX_CHECK_EQUAL(hx_framedb_count(db, HX_TAG_HEAP), before);
	}
	/* The database is the machine's: leave it as it was. */
	for (uint64_t f = 0; f < POOL_FRAMES; f++) {
		struct hx_pfn frame = hx_pfn(pool_first.v + f);
		if (hx_framedb_tag(db, frame) == HX_TAG_HEAP) {
			HX_CHECK_STATUS(hx_framedb_set(db, frame, 1, HX_TAG_FREE, NULL), HX_OK);
		}
	}
}

HX_TEST(frames_are_tagged)
{
	for_each_variant(tag_frames);
}

HX_SUITE(heap, HX_CASE(configurations_are_checked), HX_CASE(bad_arguments_are_refused),
	 HX_CASE(random_operations_match_a_model), HX_CASE(wrong_frees_are_refused),
	 HX_CASE(double_frees_are_found_wherever_the_object_waits),
	 HX_CASE(every_size_frees_by_its_size), HX_CASE(zeroed_memory_is_zero_when_recycled),
	 HX_CASE(reallocate_keeps_what_it_must), HX_CASE(every_alignment_up_to_1_gib),
	 HX_CASE(all_memory_can_be_used_and_comes_back), HX_CASE(the_limit_holds),
	 HX_CASE(pressure_is_raised_once_and_without_locks),
	 HX_CASE(every_frame_allocation_may_fail), HX_CASE(retired_backends_keep_taking_frees),
	 HX_CASE(one_heap_refuses_the_pointers_of_another),
	 HX_CASE(bump_top_bounds_all_that_was_handed_out),
	 HX_CASE(an_arena_may_start_and_end_anywhere), HX_CASE(damaged_headers_are_noticed),
	 HX_CASE(writes_after_free_do_no_further_harm),
	 HX_CASE(stale_headers_of_an_earlier_heap_mean_nothing),
	 HX_CASE(slab_wastes_at_most_an_eighth), HX_CASE(slab_does_not_hoard),
	 HX_CASE(frames_are_tagged));
