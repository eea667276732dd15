/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Frame allocators against a textbook buddy allocator, all over one zone of
 * 1 GiB that is half in use.
 *
 * The textbook: one doubly linked list of free blocks for each order, the nodes in
 * an array beside the memory with the order of each block, push and pop at the
 * head. It checks nothing. It holds the same lock as ours, because an allocator
 * that a kernel can use has one; "textbook-unlocked" is the same code without.
 *
 * Half in use: every frame was allocated and a random half freed again, so that
 * the free half is in pieces; held frames are in random order. "scattered" begins
 * every round there, "pair-2m" where a random half of the 2 MiB blocks is held.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hx/frames.h>

#include "bench.h"

enum {
	GIB = 1,
	FRAMES = GIB << 18,
	ORDERS = 11, /* of the textbook and of churn: up to 4 MiB */
	PAIRS = 200000,
	INITS_GIB = 1024,
};

#define BASE (UINT64_C(4) << 18) /* physical 4 GiB */

/* ---- The textbook ---- */

static struct node {
	uint32_t next, prev; /* NIL at the ends */
	uint8_t order;
	uint8_t free;
} nodes[FRAMES];

enum { NIL = UINT32_MAX };

static uint32_t heads[ORDERS];
static struct hx_lock textbook_lock;

static void push(uint32_t i, unsigned order)
{
	nodes[i] = (struct node){
		.next = heads[order], .prev = NIL, .order = (uint8_t)order, .free = 1};
	if (heads[order] != NIL) {
		nodes[heads[order]].prev = i;
	}
	heads[order] = i;
}

static void unlink_node(uint32_t i)
{
	struct node *n = &nodes[i];
	if (n->prev != NIL) {
		nodes[n->prev].next = n->next;
	} else {
		heads[n->order] = n->next;
	}
	if (n->next != NIL) {
		nodes[n->next].prev = n->prev;
	}
	n->free = 0;
}

static uint32_t textbook_get(unsigned order)
{
	unsigned k = order;
	while (k < ORDERS && heads[k] == NIL) {
		k++;
	}
	if (k == ORDERS) {
		return NIL;
	}
	uint32_t i = heads[k];
	unlink_node(i);
	while (k > order) {
		k--;
		push(i + (1u << k), k);
	}
	nodes[i].order = (uint8_t)order;
	return i;
}

static void textbook_put(uint32_t i, unsigned order)
{
	while (order < ORDERS - 1) {
		uint32_t buddy = i ^ (1u << order);
		if (!nodes[buddy].free || nodes[buddy].order != order) {
			break;
		}
		unlink_node(buddy);
		i &= ~(1u << order);
		order++;
	}
	push(i, order);
}

/* ---- Subjects ---- */

struct subject {
	const char *name;
	uint64_t (*get)(struct subject *s, unsigned order); /* 0: none */
	void (*put)(struct subject *s, uint64_t frame, unsigned order);
	void (*reset)(struct subject *s);
	const struct hx_frame_trait *trait, *backing;
	struct hx_frames frames;
	uint64_t held[FRAMES]; /* frame numbers, 0: none */
	uint8_t order[FRAMES];
	uint64_t count;
	uint64_t random;
};

static uint64_t below(struct subject *s, uint64_t n)
{
	uint64_t x = s->random;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	s->random = x;
	return (x >> 11) * n >> 53;
}

static uint64_t textbook_locked_get(struct subject *s, unsigned order)
{
	(void)s;
	unsigned long irq = hx_lock_acquire(&textbook_lock);
	uint32_t i = textbook_get(order);
	hx_lock_release(&textbook_lock, irq);
	return i == NIL ? 0 : BASE + i;
}

static void textbook_locked_put(struct subject *s, uint64_t frame, unsigned order)
{
	(void)s;
	unsigned long irq = hx_lock_acquire(&textbook_lock);
	textbook_put((uint32_t)(frame - BASE), order);
	hx_lock_release(&textbook_lock, irq);
}

static uint64_t textbook_unlocked_get(struct subject *s, unsigned order)
{
	(void)s;
	uint32_t i = textbook_get(order);
	return i == NIL ? 0 : BASE + i;
}

static void textbook_unlocked_put(struct subject *s, uint64_t frame, unsigned order)
{
	(void)s;
	textbook_put((uint32_t)(frame - BASE), order);
}

static void textbook_reset(struct subject *s)
{
	(void)s;
	memset(nodes, 0, sizeof nodes);
	for (unsigned k = 0; k < ORDERS; k++) {
		heads[k] = NIL;
	}
	for (uint32_t i = 0; i < FRAMES; i += 1u << (ORDERS - 1)) {
		push(i, ORDERS - 1);
	}
}

static uint64_t trait_get(struct subject *s, unsigned order)
{
	struct hx_frame_allocator *a = s->frames.zones[0].front;
	struct hx_pfn_result r = a->trait->allocate(a, order, 0, NULL);
	return r.status == HX_OK ? r.value.v : 0;
}

static _Noreturn void stop(hx_status status)
{
	fprintf(stderr, "bench-frames: %s\n", hx_status_name(status));
	exit(1);
}

static void refuse(hx_status status)
{
	if (status != HX_OK) {
		stop(status);
	}
}

static void trait_put(struct subject *s, uint64_t frame, unsigned order)
{
	struct hx_frame_allocator *a = s->frames.zones[0].front;
	refuse(a->trait->free(a, hx_pfn(frame), order));
}

static uint64_t front_get(struct subject *s, unsigned order)
{
	struct hx_pfn_result r = hx_frames_allocate(&s->frames, order, 0);
	return r.status == HX_OK ? r.value.v : 0;
}

static void front_put(struct subject *s, uint64_t frame, unsigned order)
{
	refuse(hx_frames_free(&s->frames, hx_pfn(frame), order));
}

static void prepare_layer(struct hx_frame_allocator *a, const struct hx_frame_trait *t,
			  struct hx_frame_allocator *backing, uint64_t span)
{
	free(a->metadata);
	*a = (struct hx_frame_allocator){.trait = t, .base = BASE, .span_frames = span};
	a->backing = backing;
	a->metadata_bytes = t->metadata_bytes(BASE, span);
	a->metadata = aligned_alloc(64, (a->metadata_bytes + 63) / 64 * 64);
	if (!a->metadata) {
		stop(HX_OUT_OF_MEMORY);
	}
	memset(a->metadata, 0x55, a->metadata_bytes); /* host page faults are not ours */
	refuse(t->init(a));
}

static void trait_reset(struct subject *s)
{
	struct hx_zone *z = &s->frames.zones[0];
	if (s->backing) {
		prepare_layer(&z->backing, s->backing, NULL, FRAMES);
	}
	prepare_layer(&z->allocator, s->trait, s->backing ? &z->backing : NULL, FRAMES);
	z->kind = HX_ZONE_NORMAL;
	z->front = &z->allocator;
	s->frames.zone_count = 1;
	refuse(s->trait->add(z->front, hx_pfn(BASE), FRAMES));
}

/* ---- Workloads ---- */

static void hold(struct subject *s, uint64_t frame, unsigned order)
{
	s->held[s->count] = frame;
	s->order[s->count++] = (uint8_t)order;
}

static void drop(struct subject *s, uint64_t i)
{
	s->put(s, s->held[i], s->order[i]);
	s->count--;
	s->held[i] = s->held[s->count];
	s->order[i] = s->order[s->count];
}

/* Take everything in blocks of @order, then give a random half back. */
static void half(struct subject *s, unsigned order)
{
	s->reset(s);
	s->count = 0;
	s->random = 88172645463325252u;
	uint64_t frame;
	while ((frame = s->get(s, order)) != 0) {
		hold(s, frame, order);
	}
	for (uint64_t n = s->count / 2; n > 0; n--) {
		drop(s, below(s, s->count));
	}
}

static void half_frames(void *context)
{
	half(context, 0);
}

static void half_2m(void *context)
{
	half(context, HX_ORDER_2M);
}

static void half_mixed(void *context)
{
	struct subject *s = context;
	half(s, ORDERS - 1);
}

/* Get one and put it back. */
static void pair_same(void *context)
{
	struct subject *s = context;
	for (unsigned i = 0; i < PAIRS; i++) {
		s->put(s, s->get(s, 0), 0);
	}
}

/* Put one that was held for long, get another. */
static void replace(struct subject *s, unsigned order)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		uint64_t k = below(s, s->count);
		s->put(s, s->held[k], order);
		s->held[k] = s->get(s, order);
	}
}

static void pair_scattered(void *context)
{
	replace(context, 0);
}

static void pair_2m(void *context)
{
	replace(context, HX_ORDER_2M);
}

/* Blocks of random order, small ones more often, around half occupancy. */
static void churn(void *context)
{
	struct subject *s = context;
	for (unsigned i = 0; i < PAIRS; i++) {
		unsigned order = (unsigned)(below(s, ORDERS) * below(s, ORDERS) / ORDERS);
		uint64_t frame = s->get(s, order);
		if (frame != 0) {
			hold(s, frame, order);
		}
		while (s->count > 600 || frame == 0) {
			drop(s, below(s, s->count));
			frame = 1;
		}
	}
}

static struct subject *new_subject(const char *name, const char *trait, const char *backing)
{
	struct subject *s = calloc(1, sizeof *s);
	if (!s) {
		stop(HX_OUT_OF_MEMORY);
	}
	s->name = name;
	s->trait = hx_frame_trait_find(trait);
	s->backing = hx_frame_trait_find(backing);
	s->get = trait_get;
	s->put = trait_put;
	s->reset = trait_reset;
	return s;
}

enum { SUBJECTS = 6 };

static struct subject *subjects[SUBJECTS];

static void measure(const char *workload, void (*prepare)(void *), void (*run)(void *))
{
	/*
	 * The textbook's two forms share their nodes, and every subject is prepared
	 * just before it runs, so they may.
	 */
	static struct bench b[SUBJECTS];
	for (unsigned i = 0; i < SUBJECTS; i++) {
		b[i] = (struct bench){.workload = workload,
				      .subject = subjects[i]->name,
				      .prepare = prepare,
				      .run = run,
				      .context = subjects[i],
				      .operations = PAIRS};
	}
	bench_measure(b, SUBJECTS, BENCH_ROUNDS);
	for (unsigned i = 0; i < SUBJECTS; i++) {
		bench_report("frames", &b[i], i > 0 ? &b[0] : NULL, "textbook");
	}
}

/* ---- Bring-up ---- */

static struct hx_frame_allocator big;

static void init_and_add(void *context)
{
	const struct hx_frame_trait *t = context;
	struct hx_frame_allocator *under = big.backing;
	uint64_t span = big.span_frames;
	big = (struct hx_frame_allocator){.trait = t,
					  .base = BASE,
					  .span_frames = span,
					  .metadata = big.metadata,
					  .metadata_bytes = big.metadata_bytes,
					  .backing = under};
	refuse(t->init(&big));
	refuse(t->add(&big, hx_pfn(BASE), span));
}

static void measure_init(const char *name)
{
	const struct hx_frame_trait *t = hx_frame_trait_find(name);
	prepare_layer(&big, t, NULL, (uint64_t)INITS_GIB << 18);
	struct bench b = {.workload = "init-and-add-1g",
			  .subject = name,
			  .run = init_and_add,
			  .context = (void *)(uintptr_t)t,
			  .operations = INITS_GIB};
	bench_measure(&b, 1, 5);
	bench_report("frames", &b, NULL, NULL);
	bench_figure("frames", "metadata", name, "bits-per-frame",
		     (double)big.metadata_bytes * 8 / (double)big.span_frames, "bits");
}

int main(void)
{
	subjects[0] = new_subject("textbook", NULL, NULL);
	subjects[0]->get = textbook_locked_get;
	subjects[0]->put = textbook_locked_put;
	subjects[0]->reset = textbook_reset;
	subjects[1] = new_subject("textbook-unlocked", NULL, NULL);
	subjects[1]->get = textbook_unlocked_get;
	subjects[1]->put = textbook_unlocked_put;
	subjects[1]->reset = textbook_reset;
	subjects[2] = new_subject("buddy", "buddy", NULL);
	subjects[3] = new_subject("buddy-front", "buddy", NULL);
	subjects[3]->get = front_get;
	subjects[3]->put = front_put;
	subjects[4] = new_subject("slab-over-buddy", "slab", "buddy");
	subjects[5] = new_subject("bitmap", "bitmap", NULL);

	bench_title("Frames: get and put of 4 KiB, 2 MiB and random blocks, %d GiB half in use",
		    GIB);
	measure("pair-same-4k", half_frames, pair_same);
	measure("pair-scattered-4k", half_frames, pair_scattered);
	measure("pair-2m", half_2m, pair_2m);
	measure("churn-0-to-10", half_mixed, churn);

	bench_title("Frames: bring-up of one zone of %d GiB, per GiB", INITS_GIB);
	measure_init("bitmap");
	measure_init("buddy");
	return 0;
}
