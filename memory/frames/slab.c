/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * slab - per-CPU magazines of single frames over another allocator.
 *
 * Most requests are for one frame, and most frames come back soon. Each CPU
 * keeps up to 64 of them in a magazine, a stack under a lock of its own, and
 * trades with the backing allocator in batches of 32. Everything else (other
 * sizes, constraints, given ranges) passes through to the backing. Magazines know
 * no lifetimes: a pinned frame comes out of them like any other.
 *
 *      CPU 0  [f f f . . .]  \
 *      CPU 1  [f f . . . .]   >  a->lock  ->  backing (bitmap, buddy)
 *      CPU n  [f f f f f .]  /
 *
 * Two bits a frame say where it is, so that a wrong free is seen without asking
 * the backing and its lock:
 *
 *      NONE     the backing's business: free there, a block of it, or a hole
 *      GIVEN    a single frame that a caller holds
 *      CACHED   a single frame in a magazine
 *
 * To the backing GIVEN and CACHED are allocations of one frame. A free is the one
 * atomic step GIVEN -> CACHED: of two that race, one sees the other's work. NONE
 * is entered and left under a->lock only, around the backing's own operation, so
 * whoever holds that lock sees the bits and the backing agree.
 *
 * Locks nest: a magazine's, then a->lock, then the backing's. A CPU that finds
 * nothing lets its magazine go, empties every CPU's into the backing, and tries
 * once more before it reports OUT_OF_MEMORY.
 *
 * Invariants (validate): every frame in a magazine is CACHED and in one place;
 * GIVEN and CACHED frames are blocks of one frame in the backing.
 *
 * Source: Bonwick, Adams 2001 (magazines).
 */
#include "trait.h"

enum {
	MAGAZINE_FRAMES = 64,
	BATCH_FRAMES = MAGAZINE_FRAMES / 2,
};

enum place { NONE, GIVEN, CACHED };

struct magazine {
	struct hx_lock lock;
	uint64_t count;
	uint64_t allocations, frees;
	uint64_t pad[4]; /* one cache line, then the frames */
	struct hx_pfn frames[MAGAZINE_FRAMES];
};

struct slab {
	uint64_t cpus; /* magazines from here on were never used */
	uint64_t pad[7];
	struct magazine magazines[HX_CPUS_MAX];
	uint64_t places[]; /* 32 frames a word */
};

static struct slab *slab_of(const struct hx_frame_allocator *a)
{
	return a->metadata;
}

/* ---- Places ---- */

static uint64_t *place_word(const struct hx_frame_allocator *a, uint64_t f)
{
	return &slab_of(a)->places[(f >> 5) - (a->base >> 5)];
}

static unsigned place_shift(uint64_t f)
{
	return (unsigned)(f & 31) * 2;
}

static enum place place_of(const struct hx_frame_allocator *a, uint64_t f)
{
	uint64_t word = __atomic_load_n(place_word(a, f), __ATOMIC_ACQUIRE);
	return (enum place)(word >> place_shift(f) & 3);
}

/* The caller alone may move this frame; others in the word move at the same time. */
static void move(const struct hx_frame_allocator *a, uint64_t f, enum place from, enum place to)
{
	__atomic_fetch_xor(place_word(a, f), (uint64_t)(from ^ to) << place_shift(f),
			   __ATOMIC_ACQ_REL);
}

/* Move the frame if it is where it should be, as one step. */
static bool move_from(const struct hx_frame_allocator *a, uint64_t f, enum place from,
		      enum place to)
{
	uint64_t *word = place_word(a, f);
	uint64_t old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
	do {
		if ((old >> place_shift(f) & 3) != (uint64_t)from) {
			return false;
		}
	} while (!__atomic_compare_exchange_n(word, &old,
					      old ^ (uint64_t)(from ^ to) << place_shift(f), true,
					      __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
	return true;
}

/* ---- Magazines ---- */

static struct magazine *own_magazine(const struct hx_frame_allocator *a)
{
	struct slab *s = slab_of(a);
	uint64_t cpu = hx_hal_cpu_id();
	uint64_t cpus = __atomic_load_n(&s->cpus, __ATOMIC_RELAXED);
	while (cpus <= cpu && !__atomic_compare_exchange_n(&s->cpus, &cpus, cpu + 1, true,
							   __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
	return &s->magazines[cpu];
}

static uint64_t cached_frames(const struct hx_frame_allocator *a)
{
	uint64_t cpus = __atomic_load_n(&slab_of(a)->cpus, __ATOMIC_RELAXED), sum = 0;
	for (uint64_t i = 0; i < cpus; i++) {
		sum += hx_frame_counter(&slab_of(a)->magazines[i].count);
	}
	return sum;
}

static void set_count(struct magazine *m, uint64_t count)
{
	__atomic_store_n(&m->count, count, __ATOMIC_RELAXED);
}

/* Up to @count frames out of the backing, under a->lock. */
static uint64_t take_frames(struct hx_frame_allocator *a, struct hx_pfn *out, uint64_t count,
			    unsigned flags, enum place to)
{
	struct hx_frame_allocator *backing = a->backing;
	uint64_t n = backing->trait->allocate_bulk(backing, out, count, flags);
	for (uint64_t i = 0; i < n; i++) {
		move(a, out[i].v, NONE, to);
	}
	return n;
}

/* An empty magazine, under its lock. */
static void refill(struct hx_frame_allocator *a, struct magazine *m)
{
	unsigned long irq = hx_frame_lock(a);
	set_count(m, take_frames(a, m->frames, BATCH_FRAMES, 0, CACHED));
	hx_frame_unlock(a, irq);
}

/* Give the @n frames that were cached first back; under the magazine's lock. */
static void flush(struct hx_frame_allocator *a, struct magazine *m, uint64_t n)
{
	struct hx_frame_allocator *backing = a->backing;
	hx_status status;
	unsigned long irq = hx_frame_lock(a);
	(void)backing->trait->free_bulk(backing, m->frames, n, &status);
	HX_ASSERT(status == HX_OK);
	for (uint64_t i = 0; i < n; i++) {
		move(a, m->frames[i].v, CACHED, NONE);
	}
	hx_frame_unlock(a, irq);
	for (uint64_t i = n; i < m->count; i++) {
		m->frames[i - n] = m->frames[i];
	}
	set_count(m, m->count - n);
}

/* Out of the magazine, which is not empty; under its lock. */
static inline struct hx_pfn pop(struct hx_frame_allocator *a, struct magazine *m)
{
	set_count(m, m->count - 1);
	struct hx_pfn f = m->frames[m->count];
	move(a, f.v, CACHED, GIVEN);
	hx_frame_counter_add(&m->allocations, 1);
	return f;
}

/* A caller gives a single frame back: no other free of it succeeds from here on. */
static inline bool claim(const struct hx_frame_allocator *a, struct hx_pfn f)
{
	return hx_frame_in_span(a, f.v, 1) && move_from(a, f.v, GIVEN, CACHED);
}

/* What was claimed goes into the magazine, under its lock. */
static inline void push(struct hx_frame_allocator *a, struct magazine *m, struct hx_pfn f)
{
	if (m->count == MAGAZINE_FRAMES) {
		flush(a, m, BATCH_FRAMES);
	}
	m->frames[m->count] = f;
	set_count(m, m->count + 1);
	hx_frame_counter_add(&m->frees, 1);
}

void hx_frames_slab_drain(struct hx_frame_allocator *a)
{
	uint64_t cpus = __atomic_load_n(&slab_of(a)->cpus, __ATOMIC_RELAXED);
	for (uint64_t i = 0; i < cpus; i++) {
		struct magazine *m = &slab_of(a)->magazines[i];
		unsigned long irq = hx_lock_acquire(&m->lock);
		flush(a, m, m->count);
		hx_lock_release(&m->lock, irq);
	}
	a->backing->trait->drain(a->backing);
}

/* ---- The trait ---- */

uint64_t hx_frames_slab_metadata_bytes(uint64_t base, uint64_t span_frames)
{
	if (!hx_frame_span_valid(base, span_frames)) {
		return 0;
	}
	uint64_t words = ((base + span_frames - 1) >> 5) - (base >> 5) + 1;
	return sizeof(struct slab) + words * sizeof(uint64_t);
}

hx_status hx_frames_slab_init(struct hx_frame_allocator *a)
{
	uint64_t need = hx_frames_slab_metadata_bytes(a->base, a->span_frames);
	if (!a->backing || !hx_frame_may_back(a->backing->trait) || a->backing->base != a->base ||
	    a->backing->span_frames != a->span_frames) {
		return HX_INVALID_ARGUMENT;
	}
	if (need == 0 || !a->metadata || a->metadata_bytes < need) {
		return HX_INVALID_SIZE;
	}
	hx_memset(a->metadata, 0, need); /* no frame cached, all of them NONE */
	return HX_OK;
}

hx_status hx_frames_slab_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	unsigned long irq = hx_frame_lock(a);
	hx_status status = a->backing->trait->add(a->backing, first, count);
	if (status == HX_OK) {
		hx_frame_counter_add(&a->total_frames, count);
	}
	hx_frame_unlock(a, irq);
	return status;
}

bool hx_frames_slab_holes(const struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	return a->backing->trait->holes(a->backing, first, count);
}

/* What passes through: under a->lock; @drained tells that the magazines are empty. */
static struct hx_pfn_result pass_allocate(struct hx_frame_allocator *a, uint64_t count,
					  unsigned order, unsigned flags,
					  const struct hx_frame_constraint *c, bool drained)
{
	struct hx_frame_allocator *backing = a->backing;
	unsigned long irq = hx_frame_lock(a);
	struct hx_pfn_result r = count != 0 ? backing->trait->allocate_run(backing, count, flags, c)
					    : backing->trait->allocate(backing, order, flags, c);
	if (r.status == HX_OK) {
		hx_frame_counter_add(&a->allocations, 1);
	} else if (r.status == HX_OUT_OF_MEMORY && drained) {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return r;
}

static struct hx_pfn_result pass_or_drain(struct hx_frame_allocator *a, uint64_t count,
					  unsigned order, unsigned flags,
					  const struct hx_frame_constraint *c)
{
	struct hx_pfn_result r = pass_allocate(a, count, order, flags, c, false);
	if (r.status == HX_OUT_OF_MEMORY) {
		hx_frames_slab_drain(a);
		r = pass_allocate(a, count, order, flags, c, true);
	}
	return r;
}

static bool anything_goes(const struct hx_frame_constraint *c)
{
	return !c || (c->lowest.v == 0 && c->limit.v == 0 && c->align_frames <= 1 &&
		      c->boundary_frames == 0);
}

struct hx_pfn_result hx_frames_slab_allocate(struct hx_frame_allocator *a, unsigned order,
					     unsigned flags, const struct hx_frame_constraint *c)
{
	if (order != 0 || !anything_goes(c)) {
		return pass_or_drain(a, 0, order, flags, c);
	}
	struct magazine *m = own_magazine(a);
	unsigned long irq = hx_lock_acquire(&m->lock);
	if (m->count == 0) {
		refill(a, m);
	}
	struct hx_pfn_result r = m->count > 0 ? (struct hx_pfn_result){HX_OK, pop(a, m)}
					      : hx_frame_refused(HX_OUT_OF_MEMORY);
	hx_lock_release(&m->lock, irq);
	return r.status == HX_OK ? r : pass_or_drain(a, 0, 0, flags, NULL);
}

struct hx_pfn_result hx_frames_slab_allocate_run(struct hx_frame_allocator *a, uint64_t count,
						 unsigned flags,
						 const struct hx_frame_constraint *c)
{
	if (count == 0) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	return pass_or_drain(a, count, 0, flags, c);
}

/* Bypass the magazines; @drained tells that they are empty. */
static uint64_t pass_bulk(struct hx_frame_allocator *a, struct hx_pfn *out, uint64_t count,
			  unsigned flags, bool drained)
{
	unsigned long irq = hx_frame_lock(a);
	uint64_t n = take_frames(a, out, count, flags, GIVEN);
	hx_frame_counter_add(&a->allocations, n);
	if (n < count && drained) {
		hx_frame_counter_add(&a->failures, 1);
	}
	hx_frame_unlock(a, irq);
	return n;
}

/* What is in the magazine, which then is not filled again, and the rest from below. */
uint64_t hx_frames_slab_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,
				      uint64_t count, unsigned flags)
{
	struct magazine *m = own_magazine(a);
	uint64_t n = 0;
	unsigned long irq = hx_lock_acquire(&m->lock);
	while (n < count && m->count > 0) {
		out[n++] = pop(a, m);
	}
	hx_lock_release(&m->lock, irq);
	if (n < count) {
		n += pass_bulk(a, out + n, count - n, flags, false);
	}
	if (n < count) {
		hx_frames_slab_drain(a);
		n += pass_bulk(a, out + n, count - n, flags, true);
	}
	return n;
}

static hx_status pass_reserve(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	unsigned long irq = hx_frame_lock(a);
	hx_status status = a->backing->trait->reserve(a->backing, first, count);
	if (status == HX_OK) {
		hx_frame_counter_add(&a->allocations, 1);
	}
	hx_frame_unlock(a, irq);
	return status;
}

hx_status hx_frames_slab_reserve(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	hx_status status = pass_reserve(a, first, count);
	if (status == HX_ALREADY_MAPPED) {
		hx_frames_slab_drain(a); /* perhaps they are only cached */
		status = pass_reserve(a, first, count);
	}
	return status;
}

/* A free of what was not claimed; @count 0: a block of @order. */
static hx_status pass_free(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
			   unsigned order)
{
	struct hx_frame_allocator *backing = a->backing;
	unsigned long irq = hx_frame_lock(a);
	hx_status status = HX_FOREIGN_FREE;
	if (hx_frame_in_span(a, first.v, 1)) {
		switch (place_of(a, first.v)) {
		case NONE:
			status = count != 0 ? backing->trait->free_run(backing, first, count)
					    : backing->trait->free(backing, first, order);
			break;
		case GIVEN:
			status = HX_WRONG_SIZE_FREE;
			break;
		case CACHED:
			status = HX_DOUBLE_FREE;
			break;
		}
	}
	hx_frame_counter_add(status == HX_OK ? &a->frees : &a->refused_frees, 1);
	hx_frame_unlock(a, irq);
	return status;
}

uint64_t hx_frames_slab_free_bulk(struct hx_frame_allocator *a, const struct hx_pfn *frames,
				  uint64_t count, hx_status *status)
{
	uint64_t n = 0;
	*status = HX_OK;
	while (n < count && *status == HX_OK) {
		if (!claim(a, frames[n])) {
			*status = pass_free(a, frames[n], 0, 0);
			n += *status == HX_OK;
			continue;
		}
		struct magazine *m = own_magazine(a);
		unsigned long irq = hx_lock_acquire(&m->lock);
		do {
			push(a, m, frames[n++]);
		} while (n < count && claim(a, frames[n]));
		hx_lock_release(&m->lock, irq);
	}
	return n;
}

static hx_status free_one(struct hx_frame_allocator *a, struct hx_pfn first)
{
	if (!claim(a, first)) {
		return pass_free(a, first, 0, 0);
	}
	struct magazine *m = own_magazine(a);
	unsigned long irq = hx_lock_acquire(&m->lock);
	push(a, m, first);
	hx_lock_release(&m->lock, irq);
	return HX_OK;
}

hx_status hx_frames_slab_free_run(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	return count == 1 ? free_one(a, first) : pass_free(a, first, count, 0);
}

hx_status hx_frames_slab_free(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order)
{
	if (order > HX_ORDER_MAX) {
		return HX_INVALID_SIZE;
	}
	return order == 0 ? free_one(a, first) : pass_free(a, first, 0, order);
}

hx_status hx_frames_slab_split(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
			       uint64_t part)
{
	if (!hx_frame_split_valid(count, part)) {
		return HX_INVALID_SIZE;
	}
	unsigned long irq = hx_frame_lock(a);
	hx_status status = HX_FOREIGN_FREE;
	if (hx_frame_in_span(a, first.v, 1)) {
		switch (place_of(a, first.v)) {
		case NONE: /* and so are its parts */
			status = a->backing->trait->split(a->backing, first, count, part);
			break;
		case GIVEN:
			status = count == 1 ? HX_OK : HX_WRONG_SIZE_FREE;
			break;
		case CACHED:
			status = HX_DOUBLE_FREE;
			break;
		}
	}
	if (status == HX_OK) {
		hx_frame_note_split(a, count, part);
	} else {
		hx_frame_counter_add(&a->refused_frees, 1);
	}
	hx_frame_unlock(a, irq);
	return status;
}

struct hx_pfn_result hx_frames_slab_block_frames(struct hx_frame_allocator *a, struct hx_pfn first)
{
	struct hx_pfn_result r = hx_frame_refused(HX_FOREIGN_FREE);
	unsigned long irq = hx_frame_lock(a);
	if (hx_frame_in_span(a, first.v, 1)) {
		switch (place_of(a, first.v)) {
		case NONE:
			r = a->backing->trait->block_frames(a->backing, first);
			break;
		case GIVEN:
			r = hx_frame_found(1);
			break;
		case CACHED:
			r = hx_frame_refused(HX_DOUBLE_FREE);
			break;
		}
	}
	hx_frame_unlock(a, irq);
	return r;
}

uint64_t hx_frames_slab_free_frames(const struct hx_frame_allocator *a)
{
	return a->backing->trait->free_frames(a->backing) + cached_frames(a);
}

void hx_frames_slab_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out)
{
	struct hx_frame_stats below;
	a->backing->trait->stats(a->backing, &below);
	unsigned long irq = hx_frame_lock(a);
	hx_frame_common_stats(a, out);
	out->cached_frames = cached_frames(a);
	for (uint64_t i = 0; i < HX_CPUS_MAX; i++) {
		out->allocations += hx_frame_counter(&slab_of(a)->magazines[i].allocations);
		out->frees += hx_frame_counter(&slab_of(a)->magazines[i].frees);
	}
	hx_frame_unlock(a, irq);
	out->free_frames = below.free_frames + out->cached_frames;
	out->metadata_bytes += below.metadata_bytes;
	for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
		out->free_blocks[o] = below.free_blocks[o];
	}
	out->free_blocks[0] += out->cached_frames; /* single ones until they are drained */
}

hx_status hx_frames_slab_validate(const struct hx_frame_allocator *a)
{
	struct slab *s = slab_of(a);
	struct hx_frame_allocator *backing = a->backing;
	hx_status status = backing->trait->validate(backing);
	if (status != HX_OK) {
		return status;
	}
	if (s->cpus > HX_CPUS_MAX || backing->total_frames != a->total_frames) {
		return HX_CORRUPTED;
	}
	/* As many CACHED as in magazines, all of those CACHED, none of them twice. */
	uint64_t cached = 0, in_magazines = 0;
	for (uint64_t f = a->base; f < a->base + a->span_frames; f++) {
		if ((f & 31) == 0 && *place_word(a, f) == 0) {
			f += 31; /* nothing but NONE, as nearly everywhere */
			continue;
		}
		enum place p = place_of(a, f);
		cached += p == CACHED;
		if (p != NONE) {
			struct hx_pfn_result r = backing->trait->block_frames(backing, hx_pfn(f));
			if (p > CACHED || r.status != HX_OK || r.value.v != 1) {
				return HX_CORRUPTED;
			}
		}
	}
	bool valid = true;
	for (uint64_t i = 0; i < HX_CPUS_MAX; i++) {
		const struct magazine *m = &s->magazines[i];
		if (m->count > (i < s->cpus ? MAGAZINE_FRAMES : 0)) {
			return HX_CORRUPTED;
		}
		for (uint64_t k = 0; k < m->count; k++) {
			/* A second sight of a frame finds it GIVEN. */
			valid = valid && hx_frame_in_span(a, m->frames[k].v, 1) &&
				move_from(a, m->frames[k].v, CACHED, GIVEN);
			in_magazines += valid;
		}
	}
	uint64_t undo = in_magazines;
	for (uint64_t i = 0; i < HX_CPUS_MAX; i++) {
		const struct magazine *m = &s->magazines[i];
		for (uint64_t k = 0; k < m->count && undo > 0; k++, undo--) {
			move(a, m->frames[k].v, GIVEN, CACHED);
		}
	}
	return valid && cached == in_magazines ? HX_OK : HX_CORRUPTED;
}

HX_FRAME_TRAIT_DEFINE(slab);
