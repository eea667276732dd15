/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Frame allocators and their front.
 *
 * Each allocator runs the same cases against a model that knows every frame of
 * a small span by itself: what a request may answer is searched for by trying
 * all starts, so OUT_OF_MEMORY is right only where nothing fits. The validator
 * runs after every step. Frame numbers are made up: allocators never touch the
 * frames, and metadata come from arrays.
 */
#include "hx_test.h"
#include "inject.h"

#include <hx/frames.h>

/* ---- Subjects ---- */

struct subject {
	const char *trait;
	const char *backing; /* NULL: none */
	bool frees;
	bool lowest_first; /* an unconstrained answer is the lowest that fits */
};

static const struct subject bump = {"bump", NULL, false, true};
static const struct subject bitmap = {"bitmap", NULL, true, true};
static const struct subject buddy = {"buddy", NULL, true, false};
static const struct subject slab_bitmap = {"slab", "bitmap", true, false};
static const struct subject slab_buddy = {"slab", "buddy", true, false};

enum {
	SPAN_MAX = 1024,
	LARGE_SPAN = 3 << HX_ORDER_MAX, /* frames of 3 GiB */
	LARGE_METADATA = 640 << 10,
	GUARD = 64,
	POISON = 0xa5,
};

static _Alignas(64) unsigned char metadata[LARGE_METADATA + GUARD];
static _Alignas(64) unsigned char backing_metadata[LARGE_METADATA + GUARD];

static const struct subject *subject;
static struct hx_frame_allocator allocator;
static struct hx_frame_allocator backing;

static const struct hx_frame_trait *trait(void)
{
	return allocator.trait;
}

static void prepare(struct hx_frame_allocator *a, const struct hx_frame_trait *t,
		    struct hx_frame_allocator *under, uint64_t base, uint64_t span_frames,
		    unsigned char *memory)
{
	*a = (struct hx_frame_allocator){
		.trait = t,
		.base = base,
		.span_frames = span_frames,
		.metadata = memory,
		.metadata_bytes = t->metadata_bytes(base, span_frames),
		.backing = under,
	};
	HX_REQUIRE(a->metadata_bytes > 0 && a->metadata_bytes <= LARGE_METADATA);
	/* Init must not count on zeroed memory. */
	hx_memset(memory, POISON, a->metadata_bytes + GUARD);
	HX_CHECK_STATUS(t->init(a), HX_OK);
}

static bool intact(const struct hx_frame_allocator *a)
{
	const unsigned char *guard = (const unsigned char *)a->metadata + a->metadata_bytes;
	for (unsigned i = 0; i < GUARD; i++) {
		if (guard[i] != POISON) {
			return false;
		}
	}
	return true;
}

/* A fresh instance, all holes; false (and the case skipped) when not built in. */
static bool start(const struct subject *s, uint64_t base, uint64_t span_frames)
{
	const struct hx_frame_trait *t = hx_frame_trait_find(s->trait);
	const struct hx_frame_trait *under = s->backing ? hx_frame_trait_find(s->backing) : NULL;
	if (!t || (s->backing && !under)) {
		hx_test_skip("not built in");
		return false;
	}
	subject = s;
	if (under) {
		prepare(&backing, under, NULL, base, span_frames, backing_metadata);
	}
	prepare(&allocator, t, under ? &backing : NULL, base, span_frames, metadata);
	return hx_test_failures() == 0;
}

/* ---- Model ---- */

enum state { HOLE, FREE, USED };

static struct model {
	uint64_t base, span;
	uint64_t total, free;
	uint8_t state[SPAN_MAX];
	uint16_t length[SPAN_MAX]; /* of the allocation that starts here, else 0 */
} model;

static bool in_span(uint64_t f)
{
	return f - model.base < model.span;
}

static enum state state_of(uint64_t f)
{
	return in_span(f) ? (enum state)model.state[f - model.base] : HOLE;
}

static bool all_are(uint64_t first, uint64_t count, enum state s)
{
	for (uint64_t i = 0; i < count; i++) {
		if (!in_span(first + i) || state_of(first + i) != s) {
			return false;
		}
	}
	return true;
}

static void model_set(uint64_t first, uint64_t count, enum state s)
{
	hx_memset(&model.state[first - model.base], s, count);
	model.free += s == FREE ? count : -count;
	model.length[first - model.base] = (uint16_t)(s == USED ? count : 0);
}

static bool model_allowed(uint64_t s, uint64_t count, uint64_t natural,
			  const struct hx_frame_constraint *c)
{
	if (s % natural != 0) {
		return false;
	}
	return !c || (s >= c->lowest.v && (c->limit.v == 0 || s + count <= c->limit.v) &&
		      (c->align_frames == 0 || s % c->align_frames == 0) &&
		      (c->boundary_frames == 0 ||
		       s / c->boundary_frames == (s + count - 1) / c->boundary_frames));
}

/* Lowest start that a request may get; false when there is none. */
static bool model_search(uint64_t count, uint64_t natural, const struct hx_frame_constraint *c,
			 uint64_t *lowest)
{
	uint64_t run = 0;
	for (uint64_t f = model.base; f < model.base + model.span; f++) {
		run = state_of(f) == FREE ? run + 1 : 0;
		if (run >= count && model_allowed(f + 1 - count, count, natural, c)) {
			*lowest = f + 1 - count;
			return true;
		}
	}
	return false;
}

/* What a free of [first, first + count) must answer. */
static hx_status model_free_status(uint64_t first, uint64_t count)
{
	switch (state_of(first)) {
	case HOLE:
		return HX_FOREIGN_FREE;
	case FREE:
		return HX_DOUBLE_FREE;
	case USED:
		break;
	}
	if (!subject->frees) {
		return HX_NOT_SUPPORTED;
	}
	uint64_t length = model.length[first - model.base];
	if (length == 0) {
		return HX_FOREIGN_FREE;
	}
	return length == count ? HX_OK : HX_WRONG_SIZE_FREE;
}

/* Maximal free aligned blocks, by looking at every aligned block. */
static void model_blocks(uint64_t blocks[HX_ORDER_MAX + 1])
{
	hx_memset(blocks, 0, (HX_ORDER_MAX + 1) * sizeof blocks[0]);
	for (unsigned k = 0; k <= HX_ORDER_MAX && UINT64_C(1) << k <= model.span; k++) {
		uint64_t size = UINT64_C(1) << k, f;
		if (!hx_align_up(model.base, size, &f)) {
			continue;
		}
		for (; f < model.base + model.span; f += size) {
			if (all_are(f, size, FREE) &&
			    (k == HX_ORDER_MAX || !all_are(f & ~size, 2 * size, FREE))) {
				blocks[k]++;
			}
		}
	}
}

/* ---- Checks ---- */

static void check(void)
{
	HX_CHECK_STATUS(trait()->validate(&allocator), HX_OK);
	HX_CHECK_EQUAL(trait()->free_frames(&allocator), model.free);
	HX_CHECK_EQUAL(allocator.total_frames, model.total);
}

static void check_all(void)
{
	struct hx_frame_stats s;
	trait()->drain(&allocator);
	trait()->stats(&allocator, &s);
	HX_CHECK_EQUAL(s.total_frames, model.total);
	HX_CHECK_EQUAL(s.free_frames, model.free);
	HX_CHECK_EQUAL(s.cached_frames, 0);
	uint64_t blocks[HX_ORDER_MAX + 1];
	model_blocks(blocks);
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		HX_CHECK_EQUAL(s.free_blocks[k], blocks[k]);
	}
	for (uint64_t f = model.base - 2; f != model.base + model.span + 2; f++) {
		uint64_t length = in_span(f) ? model.length[f - model.base] : 0;
		struct hx_pfn_result r = trait()->block_frames(&allocator, hx_pfn(f));
		HX_CHECK_STATUS(r.status, model_free_status(f, length));
		HX_CHECK(r.status != HX_OK || r.value.v == length);
	}
	HX_CHECK(intact(&allocator));
	HX_CHECK(!subject->backing || intact(&backing));
}

static void add(uint64_t first, uint64_t count)
{
	bool hole = count > 0 && all_are(first, count, HOLE);
	HX_CHECK(trait()->holes(&allocator, hx_pfn(first), count) == hole);
	HX_CHECK_STATUS(trait()->add(&allocator, hx_pfn(first), count),
			hole ? HX_OK : HX_INVALID_ARGUMENT);
	if (hole) {
		model_set(first, count, FREE);
		model.total += count;
	}
}

/* A fresh instance with the whole span free, but for holes by chance in 1 of @holes. */
static bool begin(const struct subject *s, uint64_t base, uint64_t span, struct hx_random *r,
		  unsigned holes)
{
	if (!start(s, base, span)) {
		return false;
	}
	model = (struct model){.base = base, .span = span};
	uint64_t at = base;
	while (at < base + span) {
		uint64_t left = base + span - at;
		uint64_t n = holes ? 1 + hx_random_below(r, left < 200 ? left : 200) : left;
		if (holes == 0 || hx_random_below(r, holes) != 0) {
			add(at, n);
		}
		at += n;
	}
	check();
	return true;
}

/* Lifetimes take turns: what a request gets may depend on them, whether it does not. */
static unsigned lifetime(void)
{
	static unsigned requests;
	return requests++ % 2 != 0 ? HX_FRAMES_PINNED : 0;
}

/* A block of 2^order frames (@count 0), or a run; the answer against the model. */
static struct hx_pfn_result request(unsigned order, uint64_t count,
				    const struct hx_frame_constraint *c)
{
	uint64_t frames = count ? count : UINT64_C(1) << order;
	uint64_t natural = count ? 1 : frames, lowest = 0;
	bool possible = model_search(frames, natural, c, &lowest);
	unsigned flags = lifetime();
	struct hx_pfn_result r = count ? trait()->allocate_run(&allocator, count, flags, c)
				       : trait()->allocate(&allocator, order, flags, c);
	HX_CHECK_STATUS(r.status, possible ? HX_OK : HX_OUT_OF_MEMORY);
	if (r.status == HX_OK) {
		bool right = all_are(r.value.v, frames, FREE) &&
			     model_allowed(r.value.v, frames, natural, c) &&
			     (!subject->lowest_first || r.value.v == lowest);
		HX_CHECK(right);
		if (right) {
			model_set(r.value.v, frames, USED);
		}
	} else {
		HX_CHECK_EQUAL(r.value.v, 0);
	}
	return r;
}

static void reserve(uint64_t first, uint64_t count)
{
	hx_status want = count == 0                    ? HX_INVALID_SIZE
			 : all_are(first, count, FREE) ? HX_OK
						       : HX_ALREADY_MAPPED;
	HX_CHECK_STATUS(trait()->reserve(&allocator, hx_pfn(first), count), want);
	if (want == HX_OK) {
		model_set(first, count, USED);
	}
}

/* Free as a block if it can be one and @as_block says so, right or wrong. */
static void release(uint64_t first, uint64_t count, bool as_block)
{
	hx_status want = model_free_status(first, count);
	unsigned order = hx_log2_floor(count);
	bool block = as_block && count == UINT64_C(1) << order && order <= HX_ORDER_MAX;
	HX_CHECK_STATUS(block ? trait()->free(&allocator, hx_pfn(first), order)
			      : trait()->free_run(&allocator, hx_pfn(first), count),
			want);
	if (want == HX_OK) {
		model_set(first, count, FREE);
	}
}

static struct hx_frame_constraint random_constraint(struct hx_random *r, uint64_t frames)
{
	struct hx_frame_constraint c = {0};
	if (hx_random_below(r, 2)) {
		c.lowest = hx_pfn(model.base + hx_random_below(r, model.span));
	}
	if (hx_random_below(r, 2)) {
		c.limit = hx_pfn(model.base + 1 + hx_random_below(r, model.span + 9));
	}
	if (hx_random_below(r, 2)) {
		c.align_frames = UINT64_C(1) << hx_random_below(r, 8);
	}
	if (hx_random_below(r, 2)) {
		c.boundary_frames = UINT64_C(1) << (hx_log2_ceil(frames) + hx_random_below(r, 4));
	}
	return c;
}

static void random_step(struct hx_random *r)
{
	uint64_t f = model.base + hx_random_below(r, model.span);
	uint64_t length = model.length[f - model.base];
	unsigned order = (unsigned)(hx_random_below(r, 12) * hx_random_below(r, 12) / 14);
	uint64_t count = 1 + hx_random_below(r, model.span < 60 ? model.span : 60);
	bool run = hx_random_below(r, 4) == 0;
	uint64_t frames = run ? count : UINT64_C(1) << order;
	struct hx_frame_constraint c = random_constraint(r, frames);
	switch (hx_random_below(r, 16)) {
	case 0 ... 4:
		(void)request(order, run ? count : 0, NULL);
		break;
	case 5 ... 6:
		(void)request(order, run ? count : 0, &c);
		break;
	case 7:
		reserve(f, count);
		break;
	case 8:
		release(f, count, run); /* mostly wrong */
		break;
	case 9:
		add(f, count);
		break;
	case 10:
		trait()->drain(&allocator);
		break;
	default:
		for (uint64_t i = 0; i < model.span && length == 0; i++) { /* the next one */
			f = f + 1 < model.base + model.span ? f + 1 : model.base;
			length = model.length[f - model.base];
		}
		release(f, length ? length : 1, run);
		break;
	}
}

/* ---- Cases of every allocator ---- */

static void random_operations(const struct subject *s)
{
	static const struct {
		uint64_t base, span;
		unsigned holes;
	} spans[] = {
		{0, 512, 0},
		{1, 700, 0},
		{61, 131, 3},
		{511, 1024, 4},
		{(1 << 18) - 300, 601, 0},           /* across a 1 GiB line */
		{(UINT64_C(1) << 28) - 77, 300, 5},  /* across 1 TiB */
		{(UINT64_C(1) << 52) - 257, 257, 0}, /* the last frames there are */
		{UINT64_C(0x123456789), 65, 2},
	};
	struct hx_random r = {41};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(spans); i++) {
		if (!begin(s, spans[i].base, spans[i].span, &r, spans[i].holes)) {
			return;
		}
		for (unsigned step = 0; step < 400; step++) {
			random_step(&r);
			check();
			if (step % 16 == 0) {
				check_all();
			}
			HX_BAIL();
		}
	}
}

static void spans_of_few_frames(const struct subject *s)
{
	struct hx_random r = {5};
	static const uint64_t bases[] = {0, 1, 63, 64, 255, 1 << 18, (UINT64_C(1) << 52) - 4};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bases); i++) {
		for (uint64_t span = 1; span <= 4; span++) {
			if (!begin(s, bases[i], span, &r, 0)) {
				return;
			}
			for (unsigned step = 0; step < 40; step++) {
				random_step(&r);
				check();
				check_all();
			}
			HX_BAIL();
		}
	}
}

/* The @i-th digit of a number whose digits have different bases. */
static unsigned digit(unsigned *i, unsigned base)
{
	unsigned d = *i % base;
	*i /= base;
	return d;
}

/* '.' free, 'x' taken, 'h' a hole. */
static bool begin_pattern(const struct subject *s, uint64_t base, const char *pattern)
{
	uint64_t span = hx_strlen(pattern);
	if (!start(s, base, span)) {
		return false;
	}
	model = (struct model){.base = base, .span = span};
	for (uint64_t i = 0; i < span; i++) {
		if (pattern[i] != 'h') {
			add(base + i, 1);
		}
		if (pattern[i] == 'x') {
			reserve(base + i, 1);
		}
	}
	return true;
}

/* Lowest x limit x alignment x boundary x size, on spans of 20 frames. */
static void constraints_exhaustively(const struct subject *s)
{
	static const char *const patterns[] = {
		"....................",
		".x..........x.......",
		"xxxx....xh..h...x.x.",
	};
	enum { LOW = 5, HIGH = 7, ALIGN = 5, BOUNDARY = 6, RUNS = 6, SIZES = RUNS + 4 };
	const uint64_t base = 13;
	for (unsigned p = 0; p < HX_ARRAY_LENGTH(patterns); p++) {
		bool fresh = false;
		for (unsigned n = 0; n < LOW * HIGH * ALIGN * BOUNDARY * SIZES; n++) {
			if (!fresh && !begin_pattern(s, base, patterns[p])) {
				return;
			}
			fresh = true;
			unsigned i = n, size = digit(&i, SIZES), low = digit(&i, LOW);
			unsigned high = digit(&i, HIGH), align = digit(&i, ALIGN);
			unsigned boundary = digit(&i, BOUNDARY);
			bool run = size < RUNS;
			uint64_t frames = run ? size + 1 : UINT64_C(1) << (size - RUNS);
			struct hx_frame_constraint c = {
				.lowest = hx_pfn(base + 4 * low - (low == 4)),
				.limit = hx_pfn(high ? base + 3 * high - 1 : 0),
				.align_frames = align ? UINT64_C(1) << (align - 1) : 0,
				.boundary_frames = boundary ? UINT64_C(1) << (boundary - 1) : 0,
			};
			if (c.boundary_frames != 0 && c.boundary_frames < frames) {
				continue;
			}
			struct hx_pfn_result got =
				request(run ? 0 : size - RUNS, run ? frames : 0, &c);
			if (got.status == HX_OK) {
				release(got.value.v, frames, !run);
				fresh = s->frees;
			}
		}
		check();
		HX_BAIL();
	}
}

static void exhaustion_and_recovery(const struct subject *s)
{
	struct hx_random r = {99};
	if (!begin(s, 1000, 1021, &r, 6)) {
		return;
	}
	struct hx_frame_stats first, now;
	trait()->stats(&allocator, &first);
	for (unsigned round = 0; round < 6; round++) {
		unsigned top = round % 3 * 3; /* orders 0..top, largest first */
		for (unsigned order = top + 1; order-- > 0;) {
			while (request(order, 0, NULL).status == HX_OK) {
				HX_BAIL();
			}
		}
		HX_CHECK_EQUAL(model.free, 0);
		check_all();
		if (!s->frees) {
			return;
		}
		while (model.free < model.total) {
			uint64_t f = model.base + hx_random_below(&r, model.span);
			while (model.length[f - model.base] == 0) {
				f = f + 1 < model.base + model.span ? f + 1 : model.base;
			}
			release(f, model.length[f - model.base], round % 2 == 0);
			HX_BAIL();
		}
		check_all();
		trait()->stats(&allocator, &now);
		HX_CHECK(hx_memcmp(first.free_blocks, now.free_blocks, sizeof now.free_blocks) ==
			 0);
		HX_CHECK_EQUAL(now.frees, now.allocations);
	}
}

static unsigned char snapshot[2][80 << 10];

static void wrong_frees_change_nothing(const struct subject *s)
{
	struct hx_random r = {7};
	for (unsigned round = 0; round < 4; round++) {
		if (!begin(s, round == 0 ? 0 : 100 + round, 30, &r, round)) {
			return;
		}
		HX_REQUIRE(allocator.metadata_bytes <= sizeof snapshot[0] &&
			   backing.metadata_bytes <= sizeof snapshot[1]);
		for (unsigned step = 0; step < 30; step++) {
			random_step(&r);
		}
		/* Every start in and around the span, every length, both ways. */
		uint64_t under = s->backing ? backing.metadata_bytes : 0;
		hx_memcpy(snapshot[0], metadata, allocator.metadata_bytes);
		hx_memcpy(snapshot[1], backing_metadata, under);
		for (uint64_t f = model.base - 2; f != model.base + model.span + 2; f++) {
			struct hx_frame_allocator before = allocator;
			for (unsigned i = 0; i < 2 * model.span; i++) {
				hx_status want = model_free_status(f, i / 2 + 1);
				if (want != HX_OK) {
					release(f, i / 2 + 1, i % 2 != 0);
					before.refused_frees += want != HX_NOT_SUPPORTED;
				}
			}
			before.lock = allocator.lock;
			HX_CHECK(hx_memcmp(&before, &allocator, sizeof before) == 0);
			HX_CHECK(hx_memcmp(snapshot[0], metadata, allocator.metadata_bytes) == 0);
			HX_CHECK(hx_memcmp(snapshot[1], backing_metadata, under) == 0);
		}
		for (unsigned order = HX_ORDER_MAX; order <= HX_ORDER_MAX + 60; order += 20) {
			hx_status got = trait()->free(&allocator, hx_pfn(model.base), order);
			HX_CHECK(got != HX_OK);
			HX_CHECK((order > HX_ORDER_MAX) == (got == HX_INVALID_SIZE));
		}
		check();
		check_all();
		HX_BAIL();
	}
}

static void reserve_conflicts(const struct subject *s)
{
	struct hx_random r = {17};
	for (uint64_t first = 0; first < 26; first++) {
		for (uint64_t count = 0; count < 26; count++) {
			if (!begin(s, 50, 24, &r, 0)) {
				return;
			}
			reserve(55, 2); /* three things in the way */
			reserve(66, 1);
			(void)request(0, 0, NULL);
			reserve(49 + first, count);
			check();
			check_all();
			HX_BAIL();
		}
	}
	reserve(UINT64_MAX, 2); /* wraps */
	reserve(60, UINT64_MAX - 30);
	check();
}

static void holes_are_added_once(const struct subject *s)
{
	struct hx_random r = {23};
	if (!start(s, 200, 90)) {
		return;
	}
	model = (struct model){.base = 200, .span = 90};
	check_all();
	for (unsigned i = 0; i < 400; i++) {
		add(198 + hx_random_below(&r, 95), hx_random_below(&r, 6));
		if (i % 8 == 0) {
			(void)request((unsigned)hx_random_below(&r, 3), 0, NULL);
		}
		check();
	}
	add(UINT64_MAX, 2);
	add(210, UINT64_MAX);
	check_all();
}

static void nonsense_is_refused(const struct subject *s)
{
	struct hx_random r = {3};
	if (!begin(s, 64, 64, &r, 0)) {
		return;
	}
	const struct hx_frame_trait *t = trait();
	struct hx_frame_allocator *a = &allocator;
	struct hx_frame_constraint align3 = {.align_frames = 3};
	struct hx_frame_constraint boundary6 = {.boundary_frames = 6};
	struct hx_frame_constraint narrow = {.boundary_frames = 4};
	struct hx_frame_constraint crossed = {.lowest = hx_pfn(100), .limit = hx_pfn(90)};
	struct hx_frame_constraint beyond = {.lowest = hx_pfn(UINT64_MAX)};
	struct hx_frame_constraint vast = {.align_frames = UINT64_C(1) << 63};
	HX_CHECK_STATUS(t->allocate(a, HX_ORDER_MAX + 1, 0, NULL).status, HX_INVALID_SIZE);
	HX_CHECK_STATUS(t->allocate(a, UINT32_MAX, 0, NULL).status, HX_INVALID_SIZE);
	HX_CHECK_STATUS(t->allocate_run(a, 0, 0, NULL).status, HX_INVALID_SIZE);
	HX_CHECK_STATUS(t->allocate_run(a, UINT64_MAX, 0, NULL).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(t->allocate(a, 0, 0, &align3).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(t->allocate(a, 0, 0, &boundary6).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(t->allocate(a, 3, 0, &narrow).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(t->allocate_run(a, 5, 0, &narrow).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(t->allocate(a, 0, 0, &crossed).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(t->allocate(a, 0, 0, &beyond).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(t->allocate_run(a, 2, 0, &beyond).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(t->allocate(a, 0, 0, &vast).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(t->free_run(a, hx_pfn(64), 0), HX_INVALID_SIZE);
	HX_CHECK_EQUAL(allocator.failures, 5);
	check_all();
	/* Spans that cannot be numbered, and metadata that are too small or absent. */
	HX_CHECK_EQUAL(t->metadata_bytes(0, 0), 0);
	HX_CHECK_EQUAL(t->metadata_bytes((UINT64_C(1) << 52) - 1, 2), 0);
	HX_CHECK_EQUAL(t->metadata_bytes(UINT64_MAX, 2), 0);
	HX_CHECK(t->metadata_bytes((UINT64_C(1) << 52) - 1, 1) > 0);
	HX_CHECK(t->metadata_bytes(0, UINT64_C(1) << 52) > 0);
	struct hx_frame_allocator small = allocator;
	small.metadata_bytes--;
	HX_CHECK_STATUS(t->init(&small), HX_INVALID_SIZE);
	small = allocator;
	small.metadata = NULL;
	HX_CHECK_STATUS(t->init(&small), HX_INVALID_SIZE);
	if (s->backing) {
		small = allocator;
		small.backing = NULL;
		HX_CHECK_STATUS(t->init(&small), HX_INVALID_ARGUMENT);
		small.backing = &backing;
		small.base++;
		HX_CHECK_STATUS(t->init(&small), HX_INVALID_ARGUMENT);
	}
	check_all();
}

/* 3 GiB from an odd frame: two whole blocks of 1 GiB, and runs longer than one. */
static void blocks_of_1g(const struct subject *s)
{
	uint64_t base = (UINT64_C(5) << HX_ORDER_MAX) - 1000, gib = UINT64_C(1) << HX_ORDER_MAX;
	if (!start(s, base, LARGE_SPAN)) {
		return;
	}
	const struct hx_frame_trait *t = trait();
	struct hx_frame_allocator *a = &allocator;
	HX_REQUIRE_STATUS(t->add(a, hx_pfn(base), LARGE_SPAN), HX_OK);
	struct hx_frame_stats stats;
	t->stats(a, &stats);
	HX_CHECK_EQUAL(stats.free_blocks[HX_ORDER_1G], 2);
	struct hx_pfn_result one = t->allocate(a, HX_ORDER_1G, 0, NULL);
	struct hx_pfn_result two = t->allocate(a, HX_ORDER_1G, 0, NULL);
	HX_CHECK_STATUS(one.status, HX_OK);
	HX_CHECK_STATUS(two.status, HX_OK);
	HX_CHECK(hx_is_aligned(one.value.v, gib) && hx_is_aligned(two.value.v, gib));
	HX_CHECK(one.value.v != two.value.v);
	HX_CHECK_STATUS(t->allocate(a, HX_ORDER_1G, 0, NULL).status, HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(t->free_frames(a), LARGE_SPAN - 2 * gib);
	if (!s->frees) {
		HX_CHECK_STATUS(t->validate(a), HX_OK);
		return;
	}
	HX_CHECK_STATUS(t->free(a, hx_pfn(one.value.v + gib / 2), HX_ORDER_1G - 1),
			HX_FOREIGN_FREE);
	HX_CHECK_STATUS(t->free(a, one.value, HX_ORDER_1G - 1), HX_WRONG_SIZE_FREE);
	HX_CHECK_STATUS(t->free(a, one.value, HX_ORDER_1G), HX_OK);
	HX_CHECK_STATUS(t->free(a, one.value, HX_ORDER_1G), HX_DOUBLE_FREE);
	HX_CHECK_STATUS(t->free_run(a, two.value, gib), HX_OK);
	struct hx_pfn_result all = t->allocate_run(a, LARGE_SPAN, 0, NULL);
	HX_CHECK_STATUS(all.status, HX_OK);
	HX_CHECK_EQUAL(all.value.v, base);
	HX_CHECK_EQUAL(t->free_frames(a), 0);
	HX_CHECK_EQUAL(t->block_frames(a, all.value).value.v, LARGE_SPAN);
	HX_CHECK_STATUS(t->free_run(a, all.value, LARGE_SPAN), HX_OK);
	t->stats(a, &stats);
	HX_CHECK_EQUAL(stats.free_blocks[HX_ORDER_1G], 2);
	HX_CHECK_STATUS(t->validate(a), HX_OK);
	HX_CHECK(intact(a));
}

#define EVERY(name)                                                                                \
	HX_TEST(bump_##name)                                                                       \
	{                                                                                          \
		name(&bump);                                                                       \
	}                                                                                          \
	HX_TEST(bitmap_##name)                                                                     \
	{                                                                                          \
		name(&bitmap);                                                                     \
	}                                                                                          \
	HX_TEST(buddy_##name)                                                                      \
	{                                                                                          \
		name(&buddy);                                                                      \
	}                                                                                          \
	HX_TEST(slab_bitmap_##name)                                                                \
	{                                                                                          \
		name(&slab_bitmap);                                                                \
	}                                                                                          \
	HX_TEST(slab_buddy_##name)                                                                 \
	{                                                                                          \
		name(&slab_buddy);                                                                 \
	}

EVERY(random_operations)
EVERY(spans_of_few_frames)
EVERY(constraints_exhaustively)
EVERY(exhaustion_and_recovery)
EVERY(wrong_frees_change_nothing)
EVERY(reserve_conflicts)
EVERY(holes_are_added_once)
EVERY(nonsense_is_refused)
EVERY(blocks_of_1g)

#define EVERY_CASE(name)                                                                           \
	HX_CASE(bump_##name), HX_CASE(bitmap_##name), HX_CASE(buddy_##name),                       \
		HX_CASE(slab_bitmap_##name), HX_CASE(slab_buddy_##name)

HX_SUITE(frames, EVERY_CASE(random_operations), EVERY_CASE(spans_of_few_frames),
	 EVERY_CASE(constraints_exhaustively), EVERY_CASE(exhaustion_and_recovery),
	 EVERY_CASE(wrong_frees_change_nothing), EVERY_CASE(reserve_conflicts),
	 EVERY_CASE(holes_are_added_once), EVERY_CASE(nonsense_is_refused),
	 EVERY_CASE(blocks_of_1g));
