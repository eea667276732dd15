/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * mapper_world.h - what the mapper's suites stand on: frames that fail when told
 * to, tell when they are freed and are full of rubbish, and a walk of their own.
 */
#ifndef MAPPER_WORLD_H
#define MAPPER_WORLD_H

#include <hx/mapper.h>

#include "hx_test.h"

enum { WORLD_FRAMES_MAX = 4096 };

/* ---- Frames: a trait that gives single frames ---- */

enum { WORLD_NEVER = -1 };

/* Allocations that still succeed; WORLD_NEVER: all do. */
static int64_t world_fail_after = WORLD_NEVER;
/* Called before a frame is free. */
static void (*world_on_free)(struct hx_pfn frame);

/*
 * Frames that change hands are filled with what looks like mappings, so that an
 * entry that nobody wrote, or a table that is walked too late, shows itself.
 */
static inline void world_fill(uint64_t frame)
{
	hx_pte *p = hx_ptr(hx_pfn_to_pa(hx_pfn(frame)));
	hx_pte rubbish = hx_hal_pte_leaf(hx_pa(HX_GIB(3)), hx_hal_pte_prot(HX_PAGE_PRESENT, 0), 0);
	for (unsigned i = 0; i < HX_FRAME_BYTES / sizeof *p; i++) {
		__atomic_store_n(&p[i], rubbish, __ATOMIC_RELAXED);
	}
}

static inline uint64_t world_metadata_bytes(uint64_t base, uint64_t span)
{
	(void)base;
	return span; /* a byte a frame: 0 hole, 1 free, 2 in use */
}

static inline hx_status world_init_frames(struct hx_frame_allocator *a)
{
	hx_memset(a->metadata, 0, a->span_frames);
	return HX_OK;
}

static inline hx_status world_add(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count)
{
	hx_memset((uint8_t *)a->metadata + (first.v - a->base), 1, count);
	a->total_frames += count;
	a->free_frames += count;
	return HX_OK;
}

static inline struct hx_pfn_result world_allocate(struct hx_frame_allocator *a, unsigned order,
						  unsigned flags,
						  const struct hx_frame_constraint *c)
{
	(void)flags;
	(void)c;
	struct hx_pfn_result r = {HX_OUT_OF_MEMORY, {0}};
	uint8_t *state = a->metadata;
	unsigned long irq = hx_lock_acquire(&a->lock);
	bool fails = order > 0 || a->free_frames == 0 || world_fail_after == 0;
	world_fail_after -= world_fail_after > 0;
	for (uint64_t i = 0; !fails && r.status != HX_OK; i++) {
		uint64_t at = a->private[0]++ % a->span_frames; /* no frame comes back at once */
		if (state[at] == 1) {
			state[at] = 2;
			a->free_frames--;
			world_fill(a->base + at);
			r = (struct hx_pfn_result){HX_OK, {a->base + at}};
		}
	}
	hx_lock_release(&a->lock, irq);
	return r;
}

static inline hx_status world_free(struct hx_frame_allocator *a, struct hx_pfn f, unsigned order)
{
	uint8_t *state = a->metadata;
	if (order > 0 || f.v < a->base || f.v - a->base >= a->span_frames) {
		return HX_FOREIGN_FREE;
	}
	if (world_on_free) {
		world_on_free(f);
	}
	unsigned long irq = hx_lock_acquire(&a->lock);
	bool used = state[f.v - a->base] == 2;
	if (used) {
		state[f.v - a->base] = 1;
		a->free_frames++;
		world_fill(f.v);
	}
	hx_lock_release(&a->lock, irq);
	return used ? HX_OK : HX_DOUBLE_FREE;
}

static inline uint64_t world_free_frames(const struct hx_frame_allocator *a)
{
	return __atomic_load_n(&a->free_frames, __ATOMIC_RELAXED);
}

static const struct hx_frame_trait world_trait = {
	.name = "world",
	.metadata_bytes = world_metadata_bytes,
	.init = world_init_frames,
	.add = world_add,
	.allocate = world_allocate,
	.free = world_free,
	.free_frames = world_free_frames,
};

/* ---- The world ---- */

static struct hx_frames world_frames;
static uint8_t world_metadata[WORLD_FRAMES_MAX] __attribute__((aligned(64)));

/* Frames [first, first + count) are the world's; what was before is forgotten. */
static inline void world_open(struct hx_pfn first, uint64_t count)
{
	world_frames = (struct hx_frames){0};
	world_fail_after = WORLD_NEVER;
	world_on_free = NULL;
	HX_REQUIRE_STATUS(hx_frames_add_zone(&world_frames, HX_ZONE_NORMAL, 0, &world_trait, first,
					     count, world_metadata, count),
			  HX_OK);
}

static inline uint64_t world_free_count(void)
{
	return hx_frames_free_frames(&world_frames);
}

/* ---- CPUs ---- */

/* This CPU is lazy on nothing: it may stop answering once it is gone from @kernel, too. */
static inline void world_leave(struct hx_pagetable *kernel, struct hx_pagetable *previous)
{
	unsigned long irq = hx_hal_irq_save();
	hx_pagetable_load(kernel, previous);
	hx_pagetable_load(kernel, kernel);
	__atomic_fetch_and(&kernel->active.bits, ~hx_cpus_of(hx_hal_cpu_id()).bits,
			   __ATOMIC_SEQ_CST);
	hx_hal_irq_restore(irq);
}

/* ---- Released leaves, one by one ---- */

typedef void (*world_leaf_fn)(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			      uint64_t flags);

static inline void world_each_leaf(const struct hx_released *batch, world_leaf_fn each,
				   void *context)
{
	for (unsigned i = 0; i < batch->count; i++) {
		if (batch->leaves[i] != 0) {
			each(context, hx_va(batch->va.v + (uintptr_t)(i * batch->bytes)),
			     hx_leaf_pa(batch->leaves[i]), batch->bytes,
			     batch->leaves[i] & HX_LEAF_FLAGS);
		}
	}
}

/* ---- A walk that shares no code with the mapper ---- */

static inline unsigned world_shift(unsigned level)
{
	return level == 0 ? hx_hal_geometry.page_shift
			  : world_shift(level - 1) + hx_hal_geometry.bits[level - 1];
}

/* The entry that the walk for @va ends at. */
static inline hx_pte *world_entry(const struct hx_pagetable *t, uintptr_t va, unsigned *level)
{
	hx_pte *table = hx_ptr(t->root);
	for (*level = hx_hal_geometry.levels - 1u;; --*level) {
		unsigned n = 1u << hx_hal_geometry.bits[*level];
		hx_pte *p = &table[(va >> world_shift(*level)) % n];
		if (hx_hal_pte_kind(hx_hal_pte_load(p), *level) != HX_PTE_TABLE) {
			return p;
		}
		table = hx_ptr(hx_hal_pte_pa(hx_hal_pte_load(p), *level));
	}
}

/* The entry of level @at on the way to @va, which must exist. */
static inline hx_pte *world_entry_at(const struct hx_pagetable *t, uintptr_t va, unsigned at)
{
	hx_pte *table = hx_ptr(t->root);
	for (unsigned level = hx_hal_geometry.levels - 1u;; level--) {
		unsigned n = 1u << hx_hal_geometry.bits[level];
		hx_pte *p = &table[(va >> world_shift(level)) % n];
		if (level == at) {
			return p;
		}
		table = hx_ptr(hx_hal_pte_pa(hx_hal_pte_load(p), level));
	}
}

/* What the machine does when it uses a page: OR flags into the leaf for @va. */
static inline void world_mark(const struct hx_pagetable *t, uintptr_t va, uint64_t flags)
{
	unsigned level;
	hx_pte *p = world_entry(t, va, &level);
	hx_pte e = hx_hal_pte_load(p);
	hx_pte bits = hx_hal_pte_prot(flags, level) & ~hx_hal_pte_prot(0, level);
	while (!hx_hal_pte_update(p, &e, e | bits)) {
	}
}

/* Everything that a call could have changed, in one number. */
static inline bool world_hash_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
				   uint64_t flags)
{
	uint64_t *h = context;
	const uint64_t words[4] = {va.v, pa.v, bytes, flags};
	for (unsigned i = 0; i < 4; i++) {
		*h = (*h ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
		*h ^= *h >> 29;
	}
	return true;
}

static inline uint64_t world_hash(struct hx_pagetable *t)
{
	uint64_t h = 1;
	hx_pagetable_visit(t, world_hash_leaf, &h);
	const uint64_t words[4] = {hx_pagetable_counters(t).tables, world_free_count(), hx_pagetable_counters(t).splits,
				   hx_pagetable_counters(t).local_flushes + hx_pagetable_counters(t).broadcasts};
	for (unsigned i = 0; i < 4; i++) {
		h = (h ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
		h ^= h >> 29;
	}
	return h;
}

/* The call fails with @status and changes nothing. */
#define WORLD_REFUSED(t, call, status)                                                             \
	do {                                                                                       \
		uint64_t before_ = world_hash(t);                                                  \
		HX_CHECK_STATUS(call, status);                                                     \
		if (world_hash(t) != before_) {                                                    \
			hx_test_fail(__FILE__, __LINE__, "%s changed something", #call);           \
		}                                                                                  \
	} while (0)

#define WORLD_SOUND(t) HX_CHECK_STATUS(hx_pagetable_validate(t), HX_OK)

/* The validator of @t sees that @bad stands at @p, and that it stands there no more. */
static inline void world_check_corrupt(struct hx_pagetable *t, hx_pte *p, hx_pte bad)
{
	hx_pte good = hx_hal_pte_raw(p);
	hx_hal_pte_store(p, bad);
	HX_CHECK_STATUS(hx_pagetable_validate(t), HX_CORRUPTED);
	hx_hal_pte_store(p, good);
	WORLD_SOUND(t);
}

#endif
