/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * backend.h - private to the heap: what the front and its backends share.
 *
 * Every backend defines hx_heap_<name>_<operation>() and a trait of them. The
 * front calls through the trait, or by name when the profile leaves no choice.
 */
#ifndef HX_HEAP_BACKEND_H
#define HX_HEAP_BACKEND_H

#include <hx/heap.h>

#define HX_HEAP_BACKEND_DECLARE(name)                                                              \
	hx_status hx_heap_##name##_init(struct hx_heap_backend *b);                                \
	struct hx_ptr_result hx_heap_##name##_allocate(struct hx_heap_backend *b, size_t bytes,    \
						       size_t align, size_t *usable);              \
	hx_status hx_heap_##name##_free(struct hx_heap_backend *b, void *p, size_t bytes,          \
					size_t *usable);                                           \
	hx_status hx_heap_##name##_find(struct hx_heap_backend *b, const void *p, size_t *usable); \
	hx_status hx_heap_##name##_resize(struct hx_heap_backend *b, void *p, size_t bytes,        \
					  size_t *usable);                                         \
	uint64_t hx_heap_##name##_shrink(struct hx_heap_backend *b);                               \
	void hx_heap_##name##_stats(struct hx_heap_backend *b, struct hx_heap_stats *out);         \
	hx_status hx_heap_##name##_validate(struct hx_heap_backend *b)

HX_HEAP_BACKEND_DECLARE(bump);
HX_HEAP_BACKEND_DECLARE(simple);
HX_HEAP_BACKEND_DECLARE(slab);

/* clang-format off */
#define HX_HEAP_TRAIT_DEFINE(id)                                                                   \
	const struct hx_heap_trait hx_heap_##id = {                                                \
		.name = #id,                                                                       \
		.init = hx_heap_##id##_init,                                                       \
		.allocate = hx_heap_##id##_allocate,                                               \
		.free = hx_heap_##id##_free,                                                       \
		.find = hx_heap_##id##_find,                                                       \
		.resize = hx_heap_##id##_resize,                                                   \
		.shrink = hx_heap_##id##_shrink,                                                   \
		.stats = hx_heap_##id##_stats,                                                     \
		.validate = hx_heap_##id##_validate,                                               \
	}
/* clang-format on */

/* ---- Memory from the frames (run.c) ---- */

/* Contiguous frames that a backend took. */
struct hx_heap_run {
	struct hx_pfn first;
	uint64_t frames; /* 0: none */
};

/**
 * Take frames for @p bytes, within the backend's limit, and tag them HEAP.
 * @param bytes  a multiple of HX_FRAME_BYTES
 * @param align  of the pointer in *@p start, a power of two
 * @param run    what was taken: at least [*start, *start + bytes), perhaps more
 * @return OUT_OF_MEMORY (nothing taken)
 */
HX_NODISCARD hx_status hx_heap_run_take(struct hx_heap_backend *b, uint64_t bytes, uint64_t align,
					struct hx_heap_run *run, void **start);
void hx_heap_run_give(struct hx_heap_backend *b, struct hx_heap_run run);

#endif
