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
	bool lowest_first;  /* an unconstrained answer is the lowest that fits */
	unsigned span_bits; /* spans have up to 2^span_bits frames */
};

static const struct subject bump = {"bump", NULL, false, true, 52};
static const struct subject bitmap = {"bitmap", NULL, true, true, 52};
static const struct subject buddy = {"buddy", NULL, true, false, 52};
static const struct subject slab_bitmap = {"slab", "bitmap", true, false, 52};
static const struct subject slab_buddy = {"slab", "buddy", true, false, 52};
static const struct subject tree = {"tree", NULL, true, false, 37};

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
	uint64_t failures; /* requests refused for want of memory */
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

/* What a split of [first, first + count) must answer. */
static hx_status model_split_status(uint64_t first, uint64_t count, uint64_t part)
{
	if (count == 0 || part == 0 || count % part != 0) {
		return HX_INVALID_SIZE;
	}
	return model_free_status(first, count);
}

static uint64_t model_allocations(void)
{
	uint64_t n = 0;
	for (uint64_t i = 0; i < model.span; i++) {
		n += model.length[i] != 0;
	}
	return n;
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

/* Of a thousand free frames, those in no free aligned block of the order: by looking. */
static unsigned model_fragmentation(unsigned order)
{
	uint64_t size = UINT64_C(1) << order, apart = 0;
	for (uint64_t f = model.base; f < model.base + model.span; f++) {
		apart += state_of(f) == FREE && !all_are(f & -size, size, FREE);
	}
	uint64_t share = apart != 0 ? apart * 1000 / model.free : 0;
	return share == 0 && apart != 0 ? 1 : (unsigned)share;
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
	HX_CHECK_EQUAL(s.allocations - s.frees, model_allocations());
	HX_CHECK_EQUAL(s.failures, model.failures);
	uint64_t blocks[HX_ORDER_MAX + 1];
	model_blocks(blocks);
	for (unsigned k = 0; k <= HX_ORDER_MAX; k++) {
		HX_CHECK_EQUAL(s.free_blocks[k], blocks[k]);
		HX_CHECK_EQUAL(hx_frames_fragmentation(&s, k), model_fragmentation(k));
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
		model.failures++;
	}
	return r;
}

/* Up to @count single frames at once; the answer against the model. */
static uint64_t request_bulk(uint64_t count, struct hx_pfn out[static SPAN_MAX + 1])
{
	const struct hx_pfn untouched = hx_pfn(~UINT64_C(0));
	HX_ASSERT(count <= SPAN_MAX);
	out[count] = untouched;
	uint64_t want = count < model.free ? count : model.free;
	uint64_t n = trait()->allocate_bulk(&allocator, out, count, lifetime());
	HX_CHECK_EQUAL(n, want);
	HX_CHECK_EQUAL(out[count].v, untouched.v);
	model.failures += want < count;
	for (uint64_t i = 0; i < n && i < count; i++) {
		uint64_t lowest = 0;
		bool right = all_are(out[i].v, 1, FREE) && model_search(1, 1, NULL, &lowest) &&
			     (!subject->lowest_first || out[i].v == lowest);
		HX_CHECK(right);
		if (right) {
			model_set(out[i].v, 1, USED);
		}
	}
	return n;
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

/* Free these at once, right or wrong. */
static void release_bulk(const struct hx_pfn *list, uint64_t count)
{
	hx_status want = HX_OK, got = HX_CORRUPTED;
	uint64_t n = 0;
	while (n < count && (want = model_free_status(list[n].v, 1)) == HX_OK) {
		model_set(list[n++].v, 1, FREE);
	}
	HX_CHECK_EQUAL(trait()->free_bulk(&allocator, list, count, &got), n);
	HX_CHECK_STATUS(got, want);
}

static void split(uint64_t first, uint64_t count, uint64_t part)
{
	hx_status want = model_split_status(first, count, part);
	HX_CHECK_STATUS(trait()->split(&allocator, hx_pfn(first), count, part), want);
	for (uint64_t at = 0; want == HX_OK && at < count; at += part) {
		model.length[first + at - model.base] = (uint16_t)part;
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

/* @f or the next start of an allocation behind it, all around; @f when there is none. */
static uint64_t next_allocation(uint64_t f)
{
	for (uint64_t i = 0; i < model.span && model.length[f - model.base] == 0; i++) {
		f = f + 1 < model.base + model.span ? f + 1 : model.base;
	}
	return f;
}

static struct hx_pfn list[SPAN_MAX + 1];

/* Single frames that are allocated; sometimes with something wrong among them. */
static void random_release_bulk(struct hx_random *r)
{
	uint64_t n = 0, most = hx_random_below(r, 100);
	uint64_t skip = hx_random_below(r, model.span);
	for (uint64_t i = 0; i < model.span && n < most; i++) {
		uint64_t at = (i + skip) % model.span;
		if (model.length[at] == 1 && hx_random_below(r, 4) != 0) {
			list[n++] = hx_pfn(model.base + at);
		}
	}
	if (n > 0 && hx_random_below(r, 3) == 0) {
		uint64_t wrong = model.base - 1 + hx_random_below(r, model.span + 2);
		bool twice = hx_random_below(r, 2) != 0;
		list[hx_random_below(r, n)] = twice ? list[0] : hx_pfn(wrong);
	}
	release_bulk(list, n);
}

static void random_split(struct hx_random *r)
{
	uint64_t f = next_allocation(model.base + hx_random_below(r, model.span));
	uint64_t count = model.length[f - model.base];
	uint64_t part = hx_random_below(r, count + 2);
	while (part != 0 && count % part != 0 && hx_random_below(r, 8) != 0) {
		part--;
	}
	split(f, count, part);
}

static void random_step(struct hx_random *r)
{
	uint64_t f = model.base + hx_random_below(r, model.span);
	unsigned order = (unsigned)(hx_random_below(r, 12) * hx_random_below(r, 12) / 14);
	uint64_t count = 1 + hx_random_below(r, model.span < 60 ? model.span : 60);
	bool run = hx_random_below(r, 4) == 0;
	uint64_t frames = run ? count : UINT64_C(1) << order;
	struct hx_frame_constraint c = random_constraint(r, frames);
	switch (hx_random_below(r, 20)) {
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
	case 11:
		(void)request_bulk(hx_random_below(r, model.span < 100 ? model.span : 100), list);
		break;
	case 12:
		random_release_bulk(r);
		break;
	case 13 ... 14:
		random_split(r);
		break;
	default:
		f = next_allocation(f);
		count = model.length[f - model.base];
		release(f, count ? count : 1, run);
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
			f = next_allocation(f);
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
				if (want == HX_OK) {
					continue;
				}
				release(f, i / 2 + 1, i % 2 != 0);
				split(f, i / 2 + 1, i % 2 != 0 ? 1 : i / 2 + 1);
				split(f, i / 2 + 1, i % 2 != 0 ? 0 : i / 2 + 2);
				if (i / 2 == 0) {
					release_bulk(&(struct hx_pfn){f}, 1);
				}
				before.refused_frees +=
					want == HX_NOT_SUPPORTED ? 0 : 2 + (i / 2 == 0);
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

/*
 * A wrong free in each of the ways to free: the status, and that nothing changed
 * but the count of refused frees.
 */
static void refuse(uint64_t first, uint64_t count, hx_status want)
{
	uint64_t under = subject->backing ? backing.metadata_bytes : 0;
	struct hx_frame_allocator before = allocator;
	unsigned order = hx_log2_floor(count);
	hx_status status;
	if (!subject->frees && state_of(first) == USED) {
		want = HX_NOT_SUPPORTED;
	}
	check();
	hx_memcpy(snapshot[0], metadata, allocator.metadata_bytes);
	hx_memcpy(snapshot[1], backing_metadata, under);
	HX_CHECK_STATUS(trait()->free_run(&allocator, hx_pfn(first), count), want);
	HX_CHECK_STATUS(trait()->split(&allocator, hx_pfn(first), count, 1), want);
	before.refused_frees += 2;
	if (count == UINT64_C(1) << order) {
		HX_CHECK_STATUS(trait()->free(&allocator, hx_pfn(first), order), want);
		before.refused_frees++;
	}
	if (count == 1) {
		HX_CHECK_EQUAL(trait()->free_bulk(&allocator, &(struct hx_pfn){first}, 1, &status),
			       0);
		HX_CHECK_STATUS(status, want);
		before.refused_frees++;
	}
	if (want == HX_NOT_SUPPORTED) {
		before.refused_frees = allocator.refused_frees;
	}
	before.lock = allocator.lock;
	HX_CHECK(hx_memcmp(&before, &allocator, sizeof before) == 0);
	HX_CHECK(hx_memcmp(snapshot[0], metadata, allocator.metadata_bytes) == 0);
	HX_CHECK(hx_memcmp(snapshot[1], backing_metadata, under) == 0);
	check();
}

/*
 * What can be freed wrongly, on the span 1000..1127: a block, a run and single
 * frames, which came alone, in bulk and as parts, and holes around and between.
 */
static struct scene {
	uint64_t block, run, frame, bulk, part, freed;
} scene;

enum { SCENE_BASE = 1000, SCENE_HOLE = SCENE_BASE + 60, SCENE_END = SCENE_BASE + 128 };

static bool set_scene(const struct subject *s)
{
	if (!start(s, SCENE_BASE, SCENE_END - SCENE_BASE)) {
		return false;
	}
	model = (struct model){.base = SCENE_BASE, .span = SCENE_END - SCENE_BASE};
	add(SCENE_BASE + 1, SCENE_HOLE - SCENE_BASE - 1);
	add(SCENE_HOLE + 2, SCENE_END - SCENE_HOLE - 2);
	scene.block = request(3, 0, NULL).value.v;
	scene.run = request(0, 5, NULL).value.v;
	scene.frame = request(0, 0, NULL).value.v;
	(void)request_bulk(2, list);
	scene.bulk = list[0].v;
	scene.part = request(0, 3, NULL).value.v;
	split(scene.part, 3, 1);
	scene.freed = request(0, 0, NULL).value.v;
	release(scene.freed, 1, true); /* a magazine has it now, where there are any */
	check();
	return hx_test_failures() == 0;
}

static void double_frees(const struct subject *s)
{
	if (!set_scene(s)) {
		return;
	}
	uint64_t freed[] = {scene.freed, scene.block, scene.run, scene.bulk, scene.part + 1};
	uint64_t counts[] = {1, 8, 5, 1, 1};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(freed); i++) {
		if (i > 0 || !s->frees) {
			release(freed[i], counts[i], true);
		}
		refuse(freed[i], counts[i], HX_DOUBLE_FREE);
		refuse(freed[i], 1, HX_DOUBLE_FREE);
		trait()->drain(&allocator); /* free in the backing by now */
		refuse(freed[i], counts[i], HX_DOUBLE_FREE);
	}
	refuse(SCENE_END - 1, 1, HX_DOUBLE_FREE); /* never given */
}

static void foreign_frees(const struct subject *s)
{
	if (!set_scene(s)) {
		return;
	}
	static const uint64_t foreign[] = {
		0, SCENE_BASE - 1, SCENE_END, SCENE_END + 64, (UINT64_C(1) << 52) - 1, UINT64_MAX,
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(foreign); i++) {
		refuse(foreign[i], 1, HX_FOREIGN_FREE);
		refuse(foreign[i], 2, HX_FOREIGN_FREE);
		refuse(foreign[i], 8, HX_FOREIGN_FREE);
	}
}

static void interior_frees(const struct subject *s)
{
	if (!set_scene(s)) {
		return;
	}
	for (uint64_t i = 1; i < 8; i++) {
		refuse(scene.block + i, 1, HX_FOREIGN_FREE);
		refuse(scene.block + i, 8 - i, HX_FOREIGN_FREE);
		refuse(scene.block + i, 8, HX_FOREIGN_FREE);
	}
	for (uint64_t i = 1; i < 5; i++) {
		refuse(scene.run + i, 1, HX_FOREIGN_FREE);
		refuse(scene.run + i, 5 - i, HX_FOREIGN_FREE);
	}
}

static void wrong_size_frees(const struct subject *s)
{
	if (!set_scene(s)) {
		return;
	}
	for (uint64_t n = 1; n <= 130; n++) {
		const struct {
			uint64_t first, right;
		} all[] = {{scene.block, 8},
			   {scene.run, 5},
			   {scene.frame, 1},
			   {scene.bulk, 1},
			   {scene.part, 1}};
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(all); i++) {
			if (n != all[i].right) {
				refuse(all[i].first, n, HX_WRONG_SIZE_FREE);
			}
		}
	}
	refuse(scene.block, UINT64_MAX, HX_WRONG_SIZE_FREE);
	refuse(scene.frame, UINT64_MAX, HX_WRONG_SIZE_FREE);
}

static void frees_of_holes(const struct subject *s)
{
	if (!set_scene(s)) {
		return;
	}
	for (uint64_t n = 1; n <= 4; n++) {
		refuse(SCENE_BASE, n, HX_FOREIGN_FREE); /* kept back: the first frame */
		refuse(SCENE_HOLE, n, HX_FOREIGN_FREE); /* two in the middle */
		refuse(SCENE_HOLE + 1, n, HX_FOREIGN_FREE);
	}
}

/* Magazines are 64 frames, batches 32: every size around them, until nothing is left. */
static void frames_in_bulk(const struct subject *s)
{
	static const uint64_t sizes[] = {0, 1, 2, 31, 32, 33, 63, 64, 65, 97, 128, 300, 500};
	struct hx_random r = {57};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(sizes); i++) {
		uint64_t n, all = 0;
		static struct hx_pfn got[SPAN_MAX + 1];
		if (!begin(s, 777, 1000, &r, i % 3 * 2)) {
			return;
		}
		(void)request(4, 0, NULL); /* holes in what is free */
		(void)request(0, 0, NULL);
		do {
			n = request_bulk(sizes[i], list);
			hx_memcpy(got + all, list, n * sizeof list[0]);
			all += n;
			check();
			HX_BAIL();
		} while (n != 0 && n == sizes[i]);
		HX_CHECK(sizes[i] == 0 || model.free == 0);
		(void)request_bulk(1, list);
		check_all();
		release_bulk(got, 0);
		for (uint64_t at = 0; at < all && s->frees; at += n) {
			n = sizes[i] < all - at ? sizes[i] : all - at;
			release_bulk(got + at, n);
			check();
		}
		release_bulk(got, all); /* refused at the first, where there is one */
		check_all();
		HX_BAIL();
	}
}

/* The first wrong one ends it, wherever it stands: those before it are free. */
static void bulk_frees_stop_where_refused(const struct subject *s)
{
	enum { COUNT = 70, WRONG = 7 };
	struct hx_random r = {58};
	for (unsigned n = 0; n < COUNT * WRONG; n++) {
		unsigned i = n, wrong = digit(&i, WRONG), at = i;
		if (!begin(s, 300, 120, &r, 0)) {
			return;
		}
		struct hx_pfn_result pair = request(1, 0, NULL);
		(void)request_bulk(COUNT, list);
		const uint64_t bad[WRONG] = {
			list[at == 0 ? 1 : at - 1].v,
			pair.value.v,
			pair.value.v + 1,
			0,
			UINT64_MAX,
			299,
			420,
		};
		list[at] = hx_pfn(bad[wrong]);
		release_bulk(list, COUNT);
		check();
		check_all();
		HX_BAIL();
	}
}

/* Free the parts of [first, first + count) upwards, downwards or in leaps. */
static void release_parts(uint64_t first, uint64_t count, uint64_t part, unsigned order)
{
	uint64_t parts = count / part;
	uint64_t leap = parts % 7 != 0 ? 7 : parts % 5 != 0 ? 5 : 1;
	for (uint64_t i = 0; i < parts; i++) {
		uint64_t k = order == 0 ? i : order == 1 ? parts - 1 - i : i * leap % parts;
		release(first, count, false);                     /* it is no longer one */
		release(first + k * part + part / 2, part, true); /* inside, mostly */
		release(first + k * part, part, i % 2 == 0);
		release(first + k * part, part, true);
		check();
	}
}

/* Lengths x places x parts x orders of freeing; in the end all is as it was. */
static void parts_are_freed_alone(const struct subject *s)
{
	const uint64_t base = 1021, span = 40;
	struct hx_frame_stats whole, now;
	struct hx_random r = {59};
	if (!begin(s, base, span, &r, 0)) {
		return;
	}
	trait()->stats(&allocator, &whole);
	for (uint64_t count = 1; count <= 32; count++) {
		for (uint64_t at = 0; at < 4; at++) {
			for (uint64_t part = 0; part <= count + 1; part++) {
				unsigned orders = part != 0 && count % part == 0 ? 3 : 1;
				for (unsigned order = 0; order < orders; order++) {
					reserve(base + at, count);
					split(base + at, count, part);
					if (!s->frees) {
						return;
					}
					check();
					release_parts(base + at, count, orders == 3 ? part : count,
						      order);
				}
			}
			check_all();
			trait()->stats(&allocator, &now);
			HX_CHECK(hx_memcmp(whole.free_blocks, now.free_blocks,
					   sizeof now.free_blocks) == 0);
			HX_BAIL();
		}
	}
}

/* Parts of parts, of blocks, runs and what bulk gave, down to single frames. */
static void parts_are_split_again(const struct subject *s)
{
	struct hx_random r = {60};
	for (unsigned round = 0; round < 3; round++) {
		if (!begin(s, 4096 - 100, 800, &r, 0) || !s->frees) {
			return;
		}
		struct hx_pfn_result block = request(8, 0, NULL);
		struct hx_pfn_result run = request(0, 192, NULL);
		(void)request_bulk(1, list);
		split(list[0].v, 1, 1);
		for (uint64_t part = 256, before = 256; part > 0; before = part, part /= 4) {
			for (uint64_t at = 0; at < 256; at += before) {
				split(block.value.v + at, before, part);
			}
			split(run.value.v, 192, 0);
			check_all();
		}
		split(run.value.v, 192, 64);
		split(run.value.v + 64, 64, 1);
		release(run.value.v, 64, true);
		release(run.value.v + 128, 64, false);
		check_all();
		while (model_allocations() > 0) {
			uint64_t f = model.base + hx_random_below(&r, model.span);
			f = next_allocation(f);
			if (round == 1) {
				release_bulk(&(struct hx_pfn){f}, 1);
			} else {
				release(f, model.length[f - model.base], round == 0);
			}
			check();
			HX_BAIL();
		}
		check_all();
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
	model.failures = 5;
	check_all();
	/* Spans that cannot be numbered, and metadata that are too small or absent. */
	HX_CHECK_EQUAL(t->metadata_bytes(0, 0), 0);
	HX_CHECK_EQUAL(t->metadata_bytes((UINT64_C(1) << 52) - 1, 2), 0);
	HX_CHECK_EQUAL(t->metadata_bytes(UINT64_MAX, 2), 0);
	HX_CHECK(t->metadata_bytes((UINT64_C(1) << 52) - 1, 1) > 0);
	HX_CHECK(t->metadata_bytes(0, UINT64_C(1) << s->span_bits) > 0);
	HX_CHECK_EQUAL(t->metadata_bytes(0, (UINT64_C(1) << s->span_bits) + 1), 0);
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
	const uint64_t half = gib / 2, large = UINT64_C(1) << HX_ORDER_2M;
	HX_CHECK_STATUS(t->split(a, one.value, gib, half), HX_OK);
	HX_CHECK_STATUS(t->split(a, hx_pfn(one.value.v + half), half, large), HX_OK);
	HX_CHECK_STATUS(t->free(a, one.value, HX_ORDER_1G), HX_WRONG_SIZE_FREE);
	for (uint64_t f = one.value.v + half; f < one.value.v + gib; f += large) {
		HX_CHECK_STATUS(t->free(a, hx_pfn(f), HX_ORDER_2M), HX_OK);
		HX_CHECK_STATUS(t->free(a, hx_pfn(f), HX_ORDER_2M), HX_DOUBLE_FREE);
	}
	HX_CHECK_STATUS(t->free(a, one.value, HX_ORDER_1G - 1), HX_OK);
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
	}                                                                                          \
	HX_TEST(tree_##name)                                                                       \
	{                                                                                          \
		name(&tree);                                                                       \
	}

EVERY(random_operations)
EVERY(spans_of_few_frames)
EVERY(constraints_exhaustively)
EVERY(exhaustion_and_recovery)
EVERY(wrong_frees_change_nothing)
EVERY(double_frees)
EVERY(foreign_frees)
EVERY(interior_frees)
EVERY(wrong_size_frees)
EVERY(frees_of_holes)
EVERY(frames_in_bulk)
EVERY(bulk_frees_stop_where_refused)
EVERY(parts_are_freed_alone)
EVERY(parts_are_split_again)
EVERY(reserve_conflicts)
EVERY(holes_are_added_once)
EVERY(nonsense_is_refused)
EVERY(blocks_of_1g)

#define EVERY_CASE(name)                                                                           \
	HX_CASE(bump_##name), HX_CASE(bitmap_##name), HX_CASE(buddy_##name),                       \
		HX_CASE(slab_bitmap_##name), HX_CASE(slab_buddy_##name), HX_CASE(tree_##name)

HX_SUITE(frames, EVERY_CASE(random_operations), EVERY_CASE(spans_of_few_frames),
	 EVERY_CASE(constraints_exhaustively), EVERY_CASE(exhaustion_and_recovery),
	 EVERY_CASE(wrong_frees_change_nothing), EVERY_CASE(double_frees),
	 EVERY_CASE(foreign_frees), EVERY_CASE(interior_frees), EVERY_CASE(wrong_size_frees),
	 EVERY_CASE(frees_of_holes), EVERY_CASE(frames_in_bulk),
	 EVERY_CASE(bulk_frees_stop_where_refused), EVERY_CASE(parts_are_freed_alone),
	 EVERY_CASE(parts_are_split_again), EVERY_CASE(reserve_conflicts),
	 EVERY_CASE(holes_are_added_once), EVERY_CASE(nonsense_is_refused),
	 EVERY_CASE(blocks_of_1g));
