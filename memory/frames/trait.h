/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * trait.h - what the frame allocators and their front share: names of the
 * traits' operations, direct calls where one trait is built in, argument checks
 * and the arithmetic of constraints.
 */
#ifndef HX_FRAMES_TRAIT_H
#define HX_FRAMES_TRAIT_H

#include <hx/frames.h>

/* Frame numbers are below this: 64-bit physical addresses. */
#define HX_FRAMES_END (UINT64_C(1) << (64 - HX_FRAME_SHIFT))

/* The operations of trait t are functions hx_frames_<t>_<operation>. */
#define HX_FRAME_TRAIT_DECLARE(t)                                                                  \
	uint64_t hx_frames_##t##_metadata_bytes(uint64_t base, uint64_t span_frames);              \
	hx_status hx_frames_##t##_init(struct hx_frame_allocator *a);                              \
	hx_status hx_frames_##t##_add(struct hx_frame_allocator *a, struct hx_pfn first,           \
				      uint64_t count);                                             \
	bool hx_frames_##t##_holes(const struct hx_frame_allocator *a, struct hx_pfn first,        \
				   uint64_t count);                                                \
	struct hx_pfn_result hx_frames_##t##_allocate(struct hx_frame_allocator *a,                \
						      unsigned order, unsigned flags,              \
						      const struct hx_frame_constraint *c);        \
	struct hx_pfn_result hx_frames_##t##_allocate_run(struct hx_frame_allocator *a,            \
							  uint64_t count, unsigned flags,          \
							  const struct hx_frame_constraint *c);    \
	uint64_t hx_frames_##t##_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out,   \
					       uint64_t count, unsigned flags);                    \
	hx_status hx_frames_##t##_reserve(struct hx_frame_allocator *a, struct hx_pfn first,       \
					  uint64_t count);                                         \
	hx_status hx_frames_##t##_free(struct hx_frame_allocator *a, struct hx_pfn first,          \
				       unsigned order);                                            \
	hx_status hx_frames_##t##_free_run(struct hx_frame_allocator *a, struct hx_pfn first,      \
					   uint64_t count);                                        \
	uint64_t hx_frames_##t##_free_bulk(struct hx_frame_allocator *a,                           \
					   const struct hx_pfn *frames, uint64_t count,            \
					   hx_status *status);                                     \
	hx_status hx_frames_##t##_split(struct hx_frame_allocator *a, struct hx_pfn first,         \
					uint64_t count, uint64_t part);                            \
	struct hx_pfn_result hx_frames_##t##_block_frames(struct hx_frame_allocator *a,            \
							  struct hx_pfn first);                    \
	void hx_frames_##t##_drain(struct hx_frame_allocator *a);                                  \
	uint64_t hx_frames_##t##_free_frames(const struct hx_frame_allocator *a);                  \
	void hx_frames_##t##_stats(const struct hx_frame_allocator *a,                             \
				   struct hx_frame_stats *out);                                    \
	hx_status hx_frames_##t##_validate(const struct hx_frame_allocator *a)

#define HX_FRAME_TRAIT_DEFINE(t)                                                                   \
	const struct hx_frame_trait hx_frames_##t = {                                              \
		.name = #t,                                                                        \
		.metadata_bytes = hx_frames_##t##_metadata_bytes,                                  \
		.init = hx_frames_##t##_init,                                                      \
		.add = hx_frames_##t##_add,                                                        \
		.holes = hx_frames_##t##_holes,                                                    \
		.allocate = hx_frames_##t##_allocate,                                              \
		.allocate_run = hx_frames_##t##_allocate_run,                                      \
		.allocate_bulk = hx_frames_##t##_allocate_bulk,                                    \
		.reserve = hx_frames_##t##_reserve,                                                \
		.free = hx_frames_##t##_free,                                                      \
		.free_run = hx_frames_##t##_free_run,                                              \
		.free_bulk = hx_frames_##t##_free_bulk,                                            \
		.split = hx_frames_##t##_split,                                                    \
		.block_frames = hx_frames_##t##_block_frames,                                      \
		.drain = hx_frames_##t##_drain,                                                    \
		.free_frames = hx_frames_##t##_free_frames,                                        \
		.stats = hx_frames_##t##_stats,                                                    \
		.validate = hx_frames_##t##_validate,                                              \
	}

HX_FRAME_TRAIT_DECLARE(bump);
HX_FRAME_TRAIT_DECLARE(bitmap);
HX_FRAME_TRAIT_DECLARE(buddy);
HX_FRAME_TRAIT_DECLARE(slab);
HX_FRAME_TRAIT_DECLARE(tree);

/*
 * HX_FRAME_CALL(a, operation, ...): with one trait built in a direct call behind
 * a compare that always hits; traits from outside (a kernel's own, a test's
 * wrapper) still go through their table.
 */
#if defined(HX_BUILTIN_FRAMES_BUMP) + defined(HX_BUILTIN_FRAMES_BITMAP) +                          \
		defined(HX_BUILTIN_FRAMES_BUDDY) + defined(HX_BUILTIN_FRAMES_SLAB) +               \
		defined(HX_BUILTIN_FRAMES_TREE) ==                                                 \
	1
#if defined(HX_BUILTIN_FRAMES_BUMP)
#define HX_FRAME_ONLY(name) hx_frames_bump##name
#elif defined(HX_BUILTIN_FRAMES_BITMAP)
#define HX_FRAME_ONLY(name) hx_frames_bitmap##name
#elif defined(HX_BUILTIN_FRAMES_BUDDY)
#define HX_FRAME_ONLY(name) hx_frames_buddy##name
#elif defined(HX_BUILTIN_FRAMES_SLAB)
#define HX_FRAME_ONLY(name) hx_frames_slab##name
#else
#define HX_FRAME_ONLY(name) hx_frames_tree##name
#endif
#define HX_FRAME_CALL(a, operation, ...)                                                           \
	((a)->trait == &HX_FRAME_ONLY() ? HX_FRAME_ONLY(_##operation)(__VA_ARGS__)                 \
					: (a)->trait->operation(__VA_ARGS__))
#else
#define HX_FRAME_CALL(a, operation, ...) ((a)->trait->operation(__VA_ARGS__))
#endif

/* What may stand under slab: a trait that takes frames back one by one. */
static inline bool hx_frame_may_back(const struct hx_frame_trait *trait)
{
#ifdef HX_BUILTIN_FRAMES_BUMP
	if (trait == &hx_frames_bump) {
		return false;
	}
#endif
#ifdef HX_BUILTIN_FRAMES_SLAB
	if (trait == &hx_frames_slab) {
		return false;
	}
#endif
	return trait != NULL;
}

static inline struct hx_pfn_result hx_frame_found(uint64_t frame)
{
	return (struct hx_pfn_result){HX_OK, hx_pfn(frame)};
}

static inline struct hx_pfn_result hx_frame_refused(hx_status status)
{
	return (struct hx_pfn_result){status, hx_pfn(0)};
}

/* [first, first + count) lies in the span, is not empty and does not wrap. */
static inline bool hx_frame_in_span(const struct hx_frame_allocator *a, uint64_t first,
				    uint64_t count)
{
	return count > 0 && count <= a->span_frames && first >= a->base &&
	       first - a->base <= a->span_frames - count;
}

/* A span that the traits can number: not empty, below HX_FRAMES_END. */
static inline bool hx_frame_span_valid(uint64_t base, uint64_t span_frames)
{
	return span_frames > 0 && span_frames <= HX_FRAMES_END &&
	       base <= HX_FRAMES_END - span_frames;
}

/* A split that can be: no part is empty, and they are all of it. */
static inline bool hx_frame_split_valid(uint64_t count, uint64_t part)
{
	return count != 0 && part != 0 && count % part == 0;
}

/*
 * Walk [first, first + count) in words of 64 frames, frame f being bit f % 64:
 * the bits of the word that holds @first, and how many frames they are.
 */
static inline uint64_t hx_frame_word_mask(uint64_t first, uint64_t count, uint64_t *frames)
{
	uint64_t bit = first & 63;
	*frames = count < 64 - bit ? count : 64 - bit;
	return UINT64_MAX >> ((64 - *frames) & 63) << bit;
}

/* Counters change under the lock and are read without it. */
static inline void hx_frame_counter_add(uint64_t *counter, uint64_t n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static inline uint64_t hx_frame_counter(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static inline void hx_frame_note_added(struct hx_frame_allocator *a, uint64_t count)
{
	hx_frame_counter_add(&a->total_frames, count);
	hx_frame_counter_add(&a->free_frames, count);
}

static inline void hx_frame_note_taken(struct hx_frame_allocator *a, uint64_t count)
{
	hx_frame_counter_add(&a->free_frames, -count);
	hx_frame_counter_add(&a->allocations, 1);
}

static inline void hx_frame_note_freed(struct hx_frame_allocator *a, uint64_t count)
{
	hx_frame_counter_add(&a->free_frames, count);
	hx_frame_counter_add(&a->frees, 1);
}

/* One allocation has become count / part. */
static inline void hx_frame_note_split(struct hx_frame_allocator *a, uint64_t count, uint64_t part)
{
	hx_frame_counter_add(&a->allocations, count / part - 1);
}

/* The lock of an instance that is only read otherwise. */
static inline unsigned long hx_frame_lock(const struct hx_frame_allocator *a)
{
	return hx_lock_acquire(&((struct hx_frame_allocator *)(uintptr_t)a)->lock);
}

static inline void hx_frame_unlock(const struct hx_frame_allocator *a, unsigned long irq)
{
	hx_lock_release(&((struct hx_frame_allocator *)(uintptr_t)a)->lock, irq);
}

/* A constraint made explicit: [low, high) is inside the span, align is at least 1. */
struct hx_frame_window {
	uint64_t low, high;
	uint64_t align;
	uint64_t boundary; /* 0: none */
	bool narrowed;     /* the constraint asks for more than the natural block */
};

/**
 * Alignment and boundary are powers of two or 0, and @p count frames fit between two
 * boundaries; NULL asks for nothing.
 */
HX_NODISCARD bool hx_frame_constraint_valid(const struct hx_frame_constraint *c, uint64_t count);

/**
 * What @p c means for @p count frames that are aligned to @p natural by themselves.
 * @return INVALID_SIZE (no frames); INVALID_ARGUMENT (the constraint is not valid)
 */
HX_NODISCARD hx_status hx_frame_window(const struct hx_frame_allocator *a, uint64_t count,
				       uint64_t natural, const struct hx_frame_constraint *c,
				       struct hx_frame_window *w);

/** First start in @p w so that @p count frames fit into [from, end). */
HX_NODISCARD bool hx_frame_fit(const struct hx_frame_window *w, uint64_t from, uint64_t end,
			       uint64_t count, uint64_t *start);

/** Largest order of an aligned block that starts at @p first and ends by @p end. */
unsigned hx_frame_order_at(uint64_t first, uint64_t end);

/** Count the maximal aligned blocks of the free extent [first, end). */
void hx_frame_count_blocks(uint64_t first, uint64_t end, struct hx_frame_stats *out);

/** The counters that every trait keeps. */
void hx_frame_common_stats(const struct hx_frame_allocator *a, struct hx_frame_stats *out);

#endif
