/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What is left of memory, not how fast: fragmentation, on one CPU, and a stress on
 * several.
 *
 *   fragA  the whole span is taken as single frames, a random half put; then 100 times a
 *          random tenth of what is held is put and as much is got. What counts is the share
 *          of the 2 MiB blocks that are wholly free, after drain, of those that there could
 *          be: free frames / 512, rounded down
 *   fragB  the same from the other side: single frames up to half of the span, then 20 times
 *          a random fifth of them is put and got again
 *   fragC  the whole span is taken as single frames, those with a number that is a multiple
 *          of 64 stay for ever, the others are put in random order. All that is free is then
 *          asked for in blocks of one order, from 0 to 5, each time put back; between two
 *          pinned frames lie 64 / 2^order - 1 aligned blocks. What counts is the least share
 *          of these that was got
 *   stress blocks of orders 0 to 9, with probability 2^-(order+1), 90 % of the span held by all
 *          CPUs together; a shadow of atomic bits says whether two hold one frame
 */
#include <stdlib.h>

#include "frames.h"

/* ---- Fragmentation ---- */

struct pile {
	struct frames_instance *instance;
	struct hx_frame_allocator *a;
	struct hx_random random;
	struct hx_pfn *frames;
	uint64_t count;
};

static struct pile new_pile(struct frames_instance *i)
{
	return (struct pile){.instance = i,
			     .a = i->a,
			     .random = {UINT64_C(88172645463325252)},
			     .frames = frames_memory(i->frames * sizeof(struct hx_pfn))};
}

static void get_singles(struct pile *p, uint64_t n)
{
	for (; n > 0; n--) {
		struct hx_pfn_result r = frames_get(p->a, 0);
		if (r.status != HX_OK) {
			frames_die(p->instance->subject->name,
				   "refuses a frame while some are free");
		}
		p->frames[p->count++] = r.value;
	}
}

/* A random @n of what is held to the end, and put. */
static void put_random(struct pile *p, uint64_t n)
{
	for (; n > 0; n--) {
		uint64_t k = hx_random_below(&p->random, p->count);
		struct hx_pfn f = p->frames[k];
		p->frames[k] = p->frames[--p->count];
		frames_put(p->a, f, 0);
	}
}

static void put_pile(struct pile *p)
{
	put_random(p, p->count);
	free(p->frames);
}

static struct frames_shape_result whole_blocks(struct pile *p)
{
	uint64_t blocks = p->instance->frames / FRAMES_BLOCK, whole = blocks, served = 0;
	uint64_t most = (p->instance->frames - p->count) / FRAMES_BLOCK;
	uint8_t *touched = frames_memory(blocks);
	struct hx_pfn *got = frames_memory(blocks * sizeof *got);
	p->a->trait->drain(p->a);
	for (uint64_t k = 0; k < p->count; k++) {
		uint64_t block = (p->frames[k].v - FRAMES_BASE) / FRAMES_BLOCK;
		whole -= touched[block] == 0;
		touched[block] = 1;
	}
	while (served < blocks) {
		struct hx_pfn_result r = frames_get(p->a, HX_ORDER_2M);
		if (r.status != HX_OK) {
			break;
		}
		got[served++] = r.value;
	}
	for (uint64_t k = 0; k < served; k++) {
		frames_put(p->a, got[k], HX_ORDER_2M);
	}
	free(touched);
	free(got);
	return (struct frames_shape_result){(double)whole / (double)most,
					    (double)served / (double)most};
}

static struct frames_shape_result frag_a(struct frames_instance *i)
{
	struct pile p = new_pile(i);
	get_singles(&p, i->frames);
	put_random(&p, i->frames / 2);
	for (unsigned round = 0; round < 100; round++) {
		uint64_t n = p.count / 10;
		put_random(&p, n);
		get_singles(&p, n);
	}
	struct frames_shape_result r = whole_blocks(&p);
	put_pile(&p);
	return r;
}

static struct frames_shape_result frag_b(struct frames_instance *i)
{
	struct pile p = new_pile(i);
	get_singles(&p, i->frames / 2);
	for (unsigned round = 0; round < 20; round++) {
		uint64_t n = p.count / 5;
		put_random(&p, n);
		get_singles(&p, n);
	}
	struct frames_shape_result r = whole_blocks(&p);
	put_pile(&p);
	return r;
}

static struct frames_shape_result frag_c(struct frames_instance *i)
{
	enum { EVERY = 64, ORDERS = 6 };
	struct pile p = new_pile(i);
	struct hx_pfn *pinned = frames_memory(i->frames / EVERY * sizeof *pinned);
	uint64_t pins = 0, rows = i->frames / EVERY;
	get_singles(&p, i->frames);
	for (uint64_t k = 0; k < p.count;) {
		if (p.frames[k].v % EVERY == 0) {
			pinned[pins++] = p.frames[k];
			p.frames[k] = p.frames[--p.count];
		} else {
			k++;
		}
	}
	put_random(&p, p.count);
	double least = 1;
	for (unsigned order = 0; order < ORDERS; order++) {
		uint64_t most = (EVERY / (UINT64_C(1) << order) - 1) * rows;
		while (p.count < most) {
			struct hx_pfn_result r = frames_get(p.a, order);
			if (r.status != HX_OK) {
				break;
			}
			p.frames[p.count++] = r.value;
		}
		double share = (double)p.count / (double)most;
		least = share < least ? share : least;
		while (p.count > 0) {
			frames_put(p.a, p.frames[--p.count], order);
		}
	}
	for (uint64_t k = 0; k < pins; k++) {
		frames_put(p.a, pinned[k], 0);
	}
	free(pinned);
	free(p.frames);
	return (struct frames_shape_result){least, least};
}

const struct frames_shape frames_shapes[FRAMES_SHAPES] = {
	{"fragA", "wholly free 2 MiB blocks of those possible; half held, 100 x 10 % replaced",
	 frag_a},
	{"fragB", "the same; filled to the half, 20 x 20 % replaced", frag_b},
	{"fragC", "blocks of orders 0 to 5 of those possible; every 64th frame pinned", frag_c},
};

/* ---- Stress ---- */

bool frames_shadow_turn(uint64_t *shadow, uint64_t frames, struct hx_pfn first, unsigned order,
			bool held)
{
	uint64_t f = first.v - FRAMES_BASE, n = UINT64_C(1) << order;
	if (first.v < FRAMES_BASE || f >= frames || frames - f < n || !hx_is_aligned(first.v, n)) {
		return false;
	}
	bool right = true;
	uint64_t step = n < 64 ? n : 64;
	uint64_t ones = n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
	for (uint64_t end = f + n; f < end; f += step) {
		uint64_t mask = ones << (f % 64), *word = &shadow[f / 64];
		uint64_t old = held ? __atomic_fetch_or(word, mask, __ATOMIC_RELAXED)
				    : __atomic_fetch_and(word, ~mask, __ATOMIC_RELAXED);
		right = right && (old & mask) == (held ? 0 : mask);
	}
	return right;
}

struct stress {
	struct frames_instance *instance;
	uint64_t *shadow; /* a bit for each frame that somebody holds */
	uint64_t share, operations;
	struct frames_stress result; /* its counters are atomic */
};

static void tell(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void stress_on_cpu(void *context, unsigned cpu)
{
	struct stress *s = context;
	struct hx_frame_allocator *a = s->instance->a;
	struct hx_random random = {(cpu + 1) * UINT64_C(0x9e3779b97f4a7c15)};
	struct {
		struct hx_pfn first;
		unsigned order;
	} *held = frames_memory(s->share * sizeof *held);
	uint64_t count = 0, frames = 0, refused = 0, wrong = 0;
	for (uint64_t step = 0; step < s->operations || count > 0; step++) {
		unsigned order = frames_draw_order(&random);
		struct hx_pfn_result r = {HX_OUT_OF_MEMORY, {0}};
		bool gets = step < s->operations && frames < s->share;
		if (gets) {
			r = frames_get(a, order);
			refused += r.status != HX_OK;
		}
		if (r.status == HX_OK) {
			wrong += !frames_shadow_turn(s->shadow, s->instance->frames, r.value, order,
						     true);
			held[count].first = r.value;
			held[count++].order = order;
			frames += UINT64_C(1) << order;
		} else if (count > 0) {
			uint64_t k = hx_random_below(&random, count);
			wrong += !frames_shadow_turn(s->shadow, s->instance->frames, held[k].first,
						     held[k].order, false);
			frames -= UINT64_C(1) << held[k].order;
			frames_put(a, held[k].first, held[k].order);
			held[k] = held[--count];
		}
	}
	free(held);
	tell(&s->result.operations, s->operations);
	tell(&s->result.refused, refused);
	tell(&s->result.wrong, wrong);
}

struct frames_stress frames_stress(struct frames_instance *i, unsigned threads, uint64_t operations)
{
	struct stress s = {.instance = i,
			   .shadow = frames_memory(i->frames / 8),
			   .share = i->frames * 9 / 10 / threads,
			   .operations = operations / threads};
	frames_on_cpus(threads, stress_on_cpu, &s);
	free(s.shadow);
	s.result.leaked = i->frames - frames_obtainable(i, 0);
	s.result.wrong += i->a->trait->validate && i->a->trait->validate(i->a) != HX_OK;
	return s.result;
}
