/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The baselines. They check nothing that they are told, and offer the trait's operations
 * that the workloads use; a frame is its offset in the span, in 32 bits.
 *
 *   textbook         one list of free blocks for each order, doubly linked, push and pop
 *                    at the head; the nodes in an array beside the memory. One spin lock
 *   textbook-percpu  the same behind lists of single frames for each CPU, which trade with
 *                    it in batches of 63 and hold 378 at most, the figures that Linux gives
 *                    a large zone
 *   first-fit        one bit a frame, one hint below which nothing is free. One spin lock
 *   stack            frames dealt out to the CPUs before, a stack for each, no lock: what
 *                    getting and putting frames costs at least. Like all that is a CPU's own
 *                    it begins by asking which CPU this is
 *
 * The lock is a word that is exchanged, and leaves interrupts alone: no baseline shall be
 * slow for what hx_lock does to those of the simulated machine.
 *
 * Source: Knowlton 1965, Knuth TAOCP 1, 2.5 (buddy system, first fit); Bonwick, Adams 2001
 * (lists of each CPU).
 */
#include <string.h>

#include "frames.h"

enum {
	ORDERS = 11, /* of the textbook: up to 4 MiB */
	MAX_BLOCK = 1 << (ORDERS - 1),
	BATCH = 63,
	HIGH = 378,
	RING = 512, /* HIGH, rounded up */
};

#define NIL UINT32_MAX

/* ---- One spin lock ---- */

struct spin {
	uint32_t taken;
};

static inline void spin_lock(struct spin *l)
{
	for (unsigned tries = 0; __atomic_exchange_n(&l->taken, 1, __ATOMIC_ACQUIRE) != 0;) {
		while (__atomic_load_n(&l->taken, __ATOMIC_RELAXED) != 0) {
			frames_pause(tries++);
		}
	}
}

static inline void spin_unlock(struct spin *l)
{
	__atomic_store_n(&l->taken, 0, __ATOMIC_RELEASE);
}

static inline struct hx_pfn_result found(const struct hx_frame_allocator *a, uint32_t i)
{
	return (struct hx_pfn_result){HX_OK, hx_pfn(a->base + i)};
}

static inline struct hx_pfn_result refused(hx_status status)
{
	return (struct hx_pfn_result){status, hx_pfn(0)};
}

static inline uint32_t offset_of(const struct hx_frame_allocator *a, struct hx_pfn frame)
{
	return (uint32_t)(frame.v - a->base);
}

/* Changed under a lock, read without. */
static inline void count_frames(struct hx_frame_allocator *a, uint64_t n)
{
	__atomic_store_n(&a->free_frames, a->free_frames + n, __ATOMIC_RELAXED);
}

static uint64_t counted_frames(const struct hx_frame_allocator *a)
{
	return __atomic_load_n(&a->free_frames, __ATOMIC_RELAXED);
}

static void nothing_to_drain(struct hx_frame_allocator *a)
{
	(void)a;
}

/* ---- The textbook ---- */

struct node {
	uint32_t next, prev; /* NIL at the ends */
	uint8_t order;
	uint8_t free; /* a free block of that order starts here */
};

struct textbook {
	struct spin lock;
	uint32_t heads[ORDERS];
	struct node nodes[];
};

static void push(struct textbook *t, uint32_t i, unsigned order)
{
	t->nodes[i] = (struct node){
		.next = t->heads[order], .prev = NIL, .order = (uint8_t)order, .free = 1};
	if (t->heads[order] != NIL) {
		t->nodes[t->heads[order]].prev = i;
	}
	t->heads[order] = i;
}

static void unlink_node(struct textbook *t, uint32_t i)
{
	struct node *n = &t->nodes[i];
	if (n->prev != NIL) {
		t->nodes[n->prev].next = n->next;
	} else {
		t->heads[n->order] = n->next;
	}
	if (n->next != NIL) {
		t->nodes[n->next].prev = n->prev;
	}
	n->free = 0;
}

static uint32_t take_block(struct hx_frame_allocator *a, struct textbook *t, unsigned order)
{
	unsigned k = order;
	while (k < ORDERS && t->heads[k] == NIL) {
		k++;
	}
	if (k >= ORDERS) {
		return NIL;
	}
	uint32_t i = t->heads[k];
	unlink_node(t, i);
	while (k > order) {
		k--;
		push(t, i + (1u << k), k);
	}
	count_frames(a, -(UINT64_C(1) << order));
	return i;
}

static void give_block(struct hx_frame_allocator *a, struct textbook *t, uint32_t i, unsigned order)
{
	count_frames(a, UINT64_C(1) << order);
	while (order < ORDERS - 1) {
		uint32_t buddy = i ^ (1u << order);
		if (!t->nodes[buddy].free || t->nodes[buddy].order != order) {
			break;
		}
		unlink_node(t, buddy);
		i &= ~(1u << order);
		order++;
	}
	push(t, i, order);
}

/* Whole blocks only. */
static uint64_t textbook_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	bool whole = hx_is_aligned(base | span_frames, MAX_BLOCK) && span_frames < NIL;
	return whole ? sizeof(struct textbook) + span_frames * sizeof(struct node) : 0;
}

static void textbook_start(const struct hx_frame_allocator *a, struct textbook *t)
{
	memset(t, 0, sizeof *t + a->span_frames * sizeof(struct node));
	for (unsigned k = 0; k < ORDERS; k++) {
		t->heads[k] = NIL;
	}
}

static void textbook_fill(struct hx_frame_allocator *a, struct textbook *t)
{
	for (uint64_t i = a->span_frames; i > 0; i -= MAX_BLOCK) {
		push(t, (uint32_t)(i - MAX_BLOCK), ORDERS - 1);
	}
	count_frames(a, a->span_frames);
}

static hx_status textbook_init(struct hx_frame_allocator *a)
{
	textbook_start(a, a->metadata);
	return HX_OK;
}

static hx_status textbook_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (first.v != a->base || count != a->span_frames) {
		return HX_NOT_SUPPORTED;
	}
	textbook_fill(a, a->metadata);
	return HX_OK;
}

static struct hx_pfn_result textbook_allocate(struct hx_frame_allocator *a, unsigned order,
					      unsigned flags, const struct hx_frame_constraint *c)
{
	(void)flags;
	(void)c;
	struct textbook *t = a->metadata;
	spin_lock(&t->lock);
	uint32_t i = take_block(a, t, order);
	spin_unlock(&t->lock);
	return i != NIL ? found(a, i) : refused(HX_OUT_OF_MEMORY);
}

static hx_status textbook_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	struct textbook *t = a->metadata;
	spin_lock(&t->lock);
	give_block(a, t, offset_of(a, first), order);
	spin_unlock(&t->lock);
	return HX_OK;
}

static uint64_t textbook_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
				       uint64_t count, unsigned flags)
{
	(void)flags;
	struct textbook *t = a->metadata;
	uint64_t n = 0;
	spin_lock(&t->lock);
	for (; n < count; n++) {
		uint32_t i = take_block(a, t, 0);
		if (i == NIL) {
			break;
		}
		out[n] = hx_pfn(a->base + i);
	}
	spin_unlock(&t->lock);
	return n;
}

static uint64_t textbook_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				   uint64_t count, hx_status *status)
{
	struct textbook *t = a->metadata;
	spin_lock(&t->lock);
	for (uint64_t n = 0; n < count; n++) {
		give_block(a, t, offset_of(a, frames[n]), 0);
	}
	spin_unlock(&t->lock);
	*status = HX_OK;
	return count;
}

static const struct hx_frame_trait textbook = {
	.name = "textbook",
	.metadata_bytes = textbook_metadata_bytes,
	.init = textbook_init,
	.add = textbook_add,
	.allocate = textbook_allocate,
	.allocate_bulk = textbook_allocate_bulk,
	.free = textbook_free,
	.free_bulk = textbook_free_bulk,
	.drain = nothing_to_drain,
	.free_frames = counted_frames,
};

/* ---- The textbook behind lists of each CPU ---- */

/* A ring: the last in is the first out, the first in goes back in batches. */
struct list {
	struct spin lock; /* others drain it */
	uint32_t bottom, count;
	uint32_t frames[RING];
} __attribute__((aligned(64)));

struct percpu {
	struct list lists[HX_CPUS_MAX];
	struct textbook textbook; /* ends in an array */
};

static void list_push(struct list *l, uint32_t i)
{
	l->frames[(l->bottom + l->count) % RING] = i;
	__atomic_store_n(&l->count, l->count + 1, __ATOMIC_RELAXED);
}

static uint32_t list_pop(struct list *l)
{
	__atomic_store_n(&l->count, l->count - 1, __ATOMIC_RELAXED);
	return l->frames[(l->bottom + l->count) % RING];
}

/* Up to BATCH frames into the list, under its lock; the same for list_flush(). */
static void list_refill(struct hx_frame_allocator *a, struct list *l)
{
	struct textbook *t = &((struct percpu *)a->metadata)->textbook;
	spin_lock(&t->lock);
	for (unsigned n = 0; n < BATCH; n++) {
		uint32_t i = take_block(a, t, 0);
		if (i == NIL) {
			break;
		}
		list_push(l, i);
	}
	spin_unlock(&t->lock);
}

static void list_flush(struct hx_frame_allocator *a, struct list *l, unsigned n)
{
	struct textbook *t = &((struct percpu *)a->metadata)->textbook;
	spin_lock(&t->lock);
	for (; n > 0; n--) {
		give_block(a, t, l->frames[l->bottom], 0);
		l->bottom = (l->bottom + 1) % RING;
		__atomic_store_n(&l->count, l->count - 1, __ATOMIC_RELAXED);
	}
	spin_unlock(&t->lock);
}

static uint64_t percpu_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	uint64_t bytes = textbook_metadata_bytes(base, span_frames);
	return bytes != 0 ? sizeof(struct percpu) - sizeof(struct textbook) + bytes : 0;
}

static hx_status percpu_init(struct hx_frame_allocator *a)
{
	struct percpu *p = a->metadata;
	memset(p->lists, 0, sizeof p->lists);
	textbook_start(a, &p->textbook);
	return HX_OK;
}

static hx_status percpu_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (first.v != a->base || count != a->span_frames) {
		return HX_NOT_SUPPORTED;
	}
	textbook_fill(a, &((struct percpu *)a->metadata)->textbook);
	return HX_OK;
}

static void percpu_drain(struct hx_frame_allocator *a)
{
	struct percpu *p = a->metadata;
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		spin_lock(&p->lists[i].lock);
		list_flush(a, &p->lists[i], p->lists[i].count);
		spin_unlock(&p->lists[i].lock);
	}
}

static uint64_t percpu_free_frames(const struct hx_frame_allocator *a)
{
	const struct percpu *p = a->metadata;
	uint64_t sum = counted_frames(a);
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		sum += __atomic_load_n(&p->lists[i].count, __ATOMIC_RELAXED);
	}
	return sum;
}

static struct hx_pfn_result percpu_block(struct hx_frame_allocator *a, unsigned order)
{
	struct percpu *p = a->metadata;
	spin_lock(&p->textbook.lock);
	uint32_t i = take_block(a, &p->textbook, order);
	spin_unlock(&p->textbook.lock);
	return i != NIL ? found(a, i) : refused(HX_OUT_OF_MEMORY);
}

static struct hx_pfn_result percpu_allocate(struct hx_frame_allocator *a, unsigned order,
					    unsigned flags, const struct hx_frame_constraint *c)
{
	struct hx_pfn_result r;
	(void)flags;
	(void)c;
	if (order == 0) {
		struct list *l = &((struct percpu *)a->metadata)->lists[hx_hal_cpu_id()];
		spin_lock(&l->lock);
		if (l->count == 0) {
			list_refill(a, l);
		}
		r = l->count != 0 ? found(a, list_pop(l)) : refused(HX_OUT_OF_MEMORY);
		spin_unlock(&l->lock);
	} else {
		r = percpu_block(a, order);
	}
	if (r.status != HX_OK) {
		/* Another CPU may fill its list with what was just drained. */
		do {
			percpu_drain(a);
			r = percpu_block(a, order);
		} while (r.status != HX_OK && order == 0 && percpu_free_frames(a) != 0);
	}
	return r;
}

static hx_status percpu_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	struct percpu *p = a->metadata;
	if (order == 0) {
		struct list *l = &p->lists[hx_hal_cpu_id()];
		spin_lock(&l->lock);
		if (l->count == HIGH) {
			list_flush(a, l, BATCH);
		}
		list_push(l, offset_of(a, first));
		spin_unlock(&l->lock);
	} else {
		spin_lock(&p->textbook.lock);
		give_block(a, &p->textbook, offset_of(a, first), order);
		spin_unlock(&p->textbook.lock);
	}
	return HX_OK;
}

static const struct hx_frame_trait textbook_percpu = {
	.name = "textbook-percpu",
	.metadata_bytes = percpu_metadata_bytes,
	.init = percpu_init,
	.add = percpu_add,
	.allocate = percpu_allocate,
	.free = percpu_free,
	.drain = percpu_drain,
	.free_frames = percpu_free_frames,
};

/* ---- First fit in a bitmap ---- */

struct bits {
	struct spin lock;
	uint32_t words;
	uint64_t hint;    /* all words before it are full */
	uint64_t taken[]; /* bit f % 64 of word f / 64 */
};

static uint64_t bits_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	bool whole = hx_is_aligned(base | span_frames, MAX_BLOCK) && span_frames < NIL;
	return whole ? sizeof(struct bits) + span_frames / 8 : 0;
}

static hx_status bits_init(struct hx_frame_allocator *a)
{
	struct bits *b = a->metadata;
	*b = (struct bits){.words = (uint32_t)(a->span_frames / 64)};
	memset(b->taken, 0xff, a->span_frames / 8);
	return HX_OK;
}

static hx_status bits_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	struct bits *b = a->metadata;
	if (first.v != a->base || count != a->span_frames) {
		return HX_NOT_SUPPORTED;
	}
	memset(b->taken, 0, count / 8);
	count_frames(a, count);
	return HX_OK;
}

/* The first frames of aligned blocks of 2^order frames, order < 6, all of them free. */
static uint64_t free_starts(uint64_t taken, unsigned order)
{
	static const uint64_t aligned[6] = {
		UINT64_MAX,
		UINT64_C(0x5555555555555555),
		UINT64_C(0x1111111111111111),
		UINT64_C(0x0101010101010101),
		UINT64_C(0x0001000100010001),
		UINT64_C(0x0000000100000001),
	};
	uint64_t open = ~taken;
	for (unsigned k = 0; k < order; k++) {
		open &= open >> (1u << k);
	}
	return open & aligned[order];
}

static uint32_t bits_take_in_word(struct bits *b, unsigned order)
{
	for (uint64_t w = b->hint; w < b->words; w++) {
		uint64_t starts = b->taken[w] != UINT64_MAX ? free_starts(b->taken[w], order) : 0;
		if (starts != 0) {
			unsigned bit = (unsigned)__builtin_ctzll(starts);
			b->taken[w] |= ((UINT64_C(1) << (1u << order)) - 1) << bit;
			b->hint = order == 0 ? w : b->hint;
			return (uint32_t)(w * 64 + bit);
		}
	}
	return NIL;
}

static uint32_t bits_take_words(struct bits *b, unsigned order)
{
	uint64_t n = UINT64_C(1) << (order - 6);
	for (uint64_t w = hx_align_down(b->hint, n); w + n <= b->words; w += n) {
		uint64_t any = 0;
		for (uint64_t i = 0; i < n && any == 0; i++) {
			any = b->taken[w + i];
		}
		if (any == 0) {
			memset(&b->taken[w], 0xff, n * 8);
			return (uint32_t)(w * 64);
		}
	}
	return NIL;
}

static struct hx_pfn_result bits_allocate(struct hx_frame_allocator *a, unsigned order,
					  unsigned flags, const struct hx_frame_constraint *c)
{
	(void)flags;
	(void)c;
	struct bits *b = a->metadata;
	spin_lock(&b->lock);
	uint32_t i = order < 6 ? bits_take_in_word(b, order) : bits_take_words(b, order);
	if (i != NIL) {
		count_frames(a, -(UINT64_C(1) << order));
	}
	spin_unlock(&b->lock);
	return i != NIL ? found(a, i) : refused(HX_OUT_OF_MEMORY);
}

static hx_status bits_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	struct bits *b = a->metadata;
	uint64_t i = offset_of(a, first), w = i / 64;
	spin_lock(&b->lock);
	if (order < 6) {
		b->taken[w] &= ~(((UINT64_C(1) << (1u << order)) - 1) << (i % 64));
	} else {
		memset(&b->taken[w], 0, (UINT64_C(1) << order) / 8);
	}
	b->hint = w < b->hint ? w : b->hint;
	count_frames(a, UINT64_C(1) << order);
	spin_unlock(&b->lock);
	return HX_OK;
}

static const struct hx_frame_trait first_fit = {
	.name = "first-fit",
	.metadata_bytes = bits_metadata_bytes,
	.init = bits_init,
	.add = bits_add,
	.allocate = bits_allocate,
	.free = bits_free,
	.drain = nothing_to_drain,
	.free_frames = counted_frames,
};

/* ---- A private stack for each CPU ---- */

struct stack {
	uint32_t *frames;
	uint64_t count;
} __attribute__((aligned(64)));

struct stacks {
	struct stack stacks[HX_CPUS_MAX];
	uint32_t frames[]; /* a piece for each CPU */
};

static uint64_t stack_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	(void)base;
	return span_frames < NIL ? sizeof(struct stacks) + span_frames * sizeof(uint32_t) : 0;
}

static hx_status stack_init(struct hx_frame_allocator *a)
{
	struct stacks *s = a->metadata;
	memset(s->stacks, 0, sizeof s->stacks);
	return HX_OK;
}

static hx_status stack_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	(void)a;
	(void)first;
	(void)count;
	return HX_OK; /* stack_deal() comes */
}

/* The lowest frame of each share on top. */
static void stack_deal(struct hx_frame_allocator *a, unsigned cpus)
{
	struct stacks *s = a->metadata;
	uint64_t share = a->span_frames / cpus, first = 0;
	for (unsigned cpu = 0; cpu < cpus; cpu++) {
		uint64_t count = cpu + 1 < cpus ? share : a->span_frames - first;
		struct stack *own = &s->stacks[cpu];
		*own = (struct stack){.frames = s->frames + first, .count = count};
		for (uint64_t i = 0; i < count; i++) {
			own->frames[i] = (uint32_t)(first + count - 1 - i);
		}
		first += count;
	}
}

static struct hx_pfn_result stack_allocate(struct hx_frame_allocator *a, unsigned order,
					   unsigned flags, const struct hx_frame_constraint *c)
{
	(void)flags;
	(void)c;
	struct stack *s = &((struct stacks *)a->metadata)->stacks[hx_hal_cpu_id()];
	if (order != 0 || s->count == 0) {
		return refused(HX_OUT_OF_MEMORY);
	}
	return found(a, s->frames[--s->count]);
}

static hx_status stack_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	struct stack *s = &((struct stacks *)a->metadata)->stacks[hx_hal_cpu_id()];
	if (order != 0) {
		return HX_NOT_SUPPORTED;
	}
	s->frames[s->count++] = offset_of(a, first);
	return HX_OK;
}

static uint64_t stack_free_frames(const struct hx_frame_allocator *a)
{
	const struct stacks *s = a->metadata;
	uint64_t sum = 0;
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		sum += s->stacks[i].count;
	}
	return sum;
}

static const struct hx_frame_trait stack = {
	.name = "stack",
	.metadata_bytes = stack_metadata_bytes,
	.init = stack_init,
	.add = stack_add,
	.allocate = stack_allocate,
	.free = stack_free,
	.drain = nothing_to_drain,
	.free_frames = stack_free_frames,
};

const struct frames_subject frames_baselines[FRAMES_BASELINES] = {
	{.name = "textbook", .trait = &textbook},
	{.name = "textbook-percpu", .trait = &textbook_percpu},
	{.name = "first-fit", .trait = &first_fit},
	{.name = "stack", .trait = &stack, .deal = stack_deal},
};
