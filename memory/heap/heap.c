/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The front of the kernel heap; see hx/heap.h.
 *
 * It holds no lock. The backends stand in an array that only grows: a new one
 * is complete before `count` is raised with release order, so that a reader of
 * `count` may use everything below it. The last one serves requests. A pointer
 * is offered to all, youngest first, until one does not call it foreign: their
 * memory is disjoint.
 *
 * Counters are updated one by one with relaxed atomics. live_objects is not
 * kept but computed: allocations less frees.
 */
#include "backend.h"

static const struct hx_heap_trait *const traits[] = {
#ifdef HX_BUILTIN_HEAP_BUMP
	&hx_heap_bump,
#endif
#ifdef HX_BUILTIN_HEAP_SIMPLE
	&hx_heap_simple,
#endif
#ifdef HX_BUILTIN_HEAP_SLAB
	&hx_heap_slab,
#endif
	NULL,
};

/*
 * CALL(b, operation)(b, ...) goes through the trait; where only boot's bump and one
 * other backend are built in, calls to that one are direct, behind a comparison:
 * other traits (bump, those of a test) still go through their tables.
 */
#define GUARDED(b, name, operation)                                                                \
	((b)->trait == &hx_heap_##name ? hx_heap_##name##_##operation : (b)->trait->operation)
#if defined(HX_BUILTIN_HEAP_SIMPLE) && defined(HX_BUILTIN_HEAP_SLAB)
#define CALL(b, operation) ((b)->trait->operation)
#elif defined(HX_BUILTIN_HEAP_SIMPLE)
#define CALL(b, operation) GUARDED(b, simple, operation)
#elif defined(HX_BUILTIN_HEAP_SLAB)
#define CALL(b, operation) GUARDED(b, slab, operation)
#else
#define CALL(b, operation) GUARDED(b, bump, operation)
#endif

static const unsigned known_flags = HX_HEAP_ZERO | HX_HEAP_NO_PRESSURE;
static const size_t align_max = (size_t)1 << 30;

const struct hx_heap_trait *hx_heap_trait_at(unsigned i)
{
	return i < HX_ARRAY_LENGTH(traits) ? traits[i] : NULL; /* the table's end is NULL */
}

const struct hx_heap_trait *hx_heap_trait_find(const char *name)
{
	for (unsigned i = 0; traits[i] != NULL; i++) {
		if (hx_streq(traits[i]->name, name)) {
			return traits[i];
		}
	}
	return NULL;
}

void hx_heap_init(struct hx_heap *h)
{
	hx_memset(h, 0, sizeof *h);
}

static unsigned backend_count(const struct hx_heap *h)
{
	return __atomic_load_n(&h->count, __ATOMIC_ACQUIRE);
}

static bool built_in(const struct hx_heap_trait *trait)
{
	for (unsigned i = 0; traits[i] != NULL; i++) {
		if (traits[i] == trait) {
			return true;
		}
	}
	return false;
}

hx_status hx_heap_use(struct hx_heap *h, const struct hx_heap_config *c)
{
	if (!built_in(c->trait) || (c->arena == NULL) != (c->arena_bytes == 0) ||
	    (c->arena == NULL && c->frames == NULL)) {
		return HX_INVALID_ARGUMENT;
	}
	unsigned n = backend_count(h);
	if (n == HX_HEAP_BACKENDS_MAX) {
		return HX_OUT_OF_MEMORY;
	}
	struct hx_heap_backend *b = &h->backends[n];
	hx_memset(b, 0, sizeof *b);
	b->trait = c->trait;
	b->frames = c->frames;
	b->db = c->db;
	b->arena = c->arena;
	b->arena_bytes = c->arena_bytes;
	b->limit_bytes = c->limit_bytes;
	hx_status status = CALL(b, init)(b);
	if (status == HX_OK) {
		__atomic_store_n(&h->count, n + 1, __ATOMIC_RELEASE);
	}
	return status;
}

const char *hx_heap_name(const struct hx_heap *h)
{
	unsigned n = backend_count(h);
	return n == 0 ? "" : h->backends[n - 1].trait->name;
}

/* ---- Statistics ---- */

static void count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void add_live_bytes(struct hx_heap *h, uint64_t bytes)
{
	uint64_t live = __atomic_add_fetch(&h->counters.live_bytes, bytes, __ATOMIC_RELAXED);
	uint64_t peak = __atomic_load_n(&h->counters.peak_bytes, __ATOMIC_RELAXED);
	while (live > peak &&
	       !__atomic_compare_exchange_n(&h->counters.peak_bytes, &peak, live, true,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
	}
}

static void remove_live_bytes(struct hx_heap *h, uint64_t bytes)
{
	__atomic_fetch_sub(&h->counters.live_bytes, bytes, __ATOMIC_RELAXED);
}

void hx_heap_stats(struct hx_heap *h, struct hx_heap_stats *out)
{
	const struct hx_heap_stats *c = &h->counters;
	/* Frees first: an object is counted in before it is counted out. */
	*out = (struct hx_heap_stats){
		.frees = __atomic_load_n(&c->frees, __ATOMIC_ACQUIRE),
		.allocations = __atomic_load_n(&c->allocations, __ATOMIC_RELAXED),
		.live_bytes = __atomic_load_n(&c->live_bytes, __ATOMIC_RELAXED),
		.peak_bytes = __atomic_load_n(&c->peak_bytes, __ATOMIC_RELAXED),
		.failures = __atomic_load_n(&c->failures, __ATOMIC_RELAXED),
		.refused_frees = __atomic_load_n(&c->refused_frees, __ATOMIC_RELAXED),
	};
	out->live_objects = out->allocations - out->frees;
	unsigned n = backend_count(h);
	for (unsigned i = 0; i < n; i++) {
		struct hx_heap_stats one = {0};
		struct hx_heap_backend *b = &h->backends[i];
		CALL(b, stats)(b, &one);
		out->managed_bytes += one.managed_bytes;
		out->largest_free = one.largest_free; /* of the active one: the last */
	}
}

/* ---- Allocation ---- */

static hx_status check_request(size_t bytes, size_t *align, unsigned flags)
{
	if ((flags & ~known_flags) != 0) {
		return HX_INVALID_ARGUMENT;
	}
	if ((*align & (*align - 1)) != 0 || *align > align_max) {
		return HX_INVALID_ALIGNMENT;
	}
	if (*align < HX_HEAP_ALIGN_MIN) {
		*align = HX_HEAP_ALIGN_MIN;
	}
	/* Room for alignment and headers, so that backends compute without overflow. */
	return bytes > SIZE_MAX / 2 - 2 * align_max ? HX_INVALID_SIZE : HX_OK;
}

/* What the backend has free, else what it can trade in, else what pressure frees. */
static struct hx_ptr_result obtain(struct hx_heap *h, struct hx_heap_backend *b, size_t bytes,
				   size_t align, unsigned flags, size_t *usable)
{
	struct hx_ptr_result r = CALL(b, allocate)(b, bytes, align, usable);
	if (r.status == HX_OUT_OF_MEMORY && CALL(b, shrink)(b) > 0) {
		r = CALL(b, allocate)(b, bytes, align, usable);
	}
	if (r.status == HX_OUT_OF_MEMORY && h->pressure != NULL &&
	    (flags & HX_HEAP_NO_PRESSURE) == 0) {
		size_t wanted = bytes + (align > HX_FRAME_BYTES ? align : HX_FRAME_BYTES);
		if (h->pressure(h->pressure_context, wanted >> HX_FRAME_SHIFT)) {
			r = CALL(b, allocate)(b, bytes, align, usable);
		}
	}
	return r;
}

struct hx_ptr_result hx_heap_allocate(struct hx_heap *h, size_t bytes, size_t align, unsigned flags)
{
	unsigned n = backend_count(h);
	if (n == 0) {
		return (struct hx_ptr_result){HX_NOT_INITIALIZED, NULL};
	}
	hx_status status = check_request(bytes, &align, flags);
	if (status != HX_OK) {
		return (struct hx_ptr_result){status, NULL};
	}
	size_t usable = 0;
	struct hx_ptr_result r =
		obtain(h, &h->backends[n - 1], bytes == 0 ? 1 : bytes, align, flags, &usable);
	if (r.status != HX_OK) {
		if (r.status == HX_OUT_OF_MEMORY) {
			count(&h->counters.failures);
		}
		return (struct hx_ptr_result){r.status, NULL};
	}
	count(&h->counters.allocations);
	add_live_bytes(h, usable);
	if ((flags & HX_HEAP_ZERO) != 0) {
		hx_memset(r.value, 0, usable);
	}
	return r;
}

struct hx_ptr_result hx_heap_allocate_array(struct hx_heap *h, size_t n, size_t bytes,
					    unsigned flags)
{
	size_t total;
	if (__builtin_mul_overflow(n, bytes, &total)) {
		return (struct hx_ptr_result){HX_INVALID_SIZE, NULL};
	}
	return hx_heap_allocate(h, total, 0, flags | HX_HEAP_ZERO);
}

/* ---- Free and resize ---- */

/* The backend whose live object @p is; HX_OK, or the owner's reason to refuse it. */
static hx_status find_object(struct hx_heap *h, const void *p, struct hx_heap_backend **owner,
			     size_t *usable)
{
	hx_status status = HX_FOREIGN_FREE;
	for (unsigned i = backend_count(h); i-- > 0 && status == HX_FOREIGN_FREE;) {
		*owner = &h->backends[i];
		status = CALL(*owner, find)(*owner, p, usable);
	}
	return status;
}

/* @bytes 0: the caller does not say. */
static hx_status free_object(struct hx_heap *h, void *p, size_t bytes)
{
	if (p == NULL) {
		return HX_OK;
	}
	size_t usable = 0;
	hx_status status = HX_FOREIGN_FREE;
	for (unsigned i = backend_count(h); i-- > 0 && status == HX_FOREIGN_FREE;) {
		struct hx_heap_backend *b = &h->backends[i];
		status = CALL(b, free)(b, p, bytes, &usable);
	}
	if (status == HX_OK) {
		remove_live_bytes(h, usable);
		__atomic_fetch_add(&h->counters.frees, 1, __ATOMIC_RELEASE);
	} else {
		count(&h->counters.refused_frees);
	}
	return status;
}

hx_status hx_heap_free(struct hx_heap *h, void *p)
{
	return free_object(h, p, 0);
}

hx_status hx_heap_free_sized(struct hx_heap *h, void *p, size_t bytes)
{
	return free_object(h, p, bytes == 0 ? 1 : bytes);
}

size_t hx_heap_usable(struct hx_heap *h, const void *p)
{
	struct hx_heap_backend *owner;
	size_t usable;
	return find_object(h, p, &owner, &usable) == HX_OK ? usable : 0;
}

struct hx_ptr_result hx_heap_reallocate(struct hx_heap *h, void *p, size_t bytes, size_t align,
					unsigned flags)
{
	if (p == NULL) {
		return hx_heap_allocate(h, bytes, align, flags);
	}
	hx_status status = check_request(bytes, &align, flags);
	if (status != HX_OK) {
		return (struct hx_ptr_result){status, NULL};
	}
	if (bytes == 0) {
		bytes = 1;
	}
	struct hx_heap_backend *b = NULL;
	size_t before;
	status = find_object(h, p, &b, &before);
	if (status != HX_OK) {
		return (struct hx_ptr_result){status, NULL};
	}

	size_t after = before;
	if (hx_is_aligned((uintptr_t)p, align) && CALL(b, resize)(b, p, bytes, &after) == HX_OK) {
		if (after < before) {
			remove_live_bytes(h, before - after);
		} else {
			add_live_bytes(h, after - before);
		}
		if ((flags & HX_HEAP_ZERO) != 0 && after > before) {
			hx_memset((uint8_t *)p + before, 0, after - before);
		}
		return (struct hx_ptr_result){HX_OK, p};
	}

	struct hx_ptr_result moved = hx_heap_allocate(h, bytes, align, flags);
	if (moved.status != HX_OK) {
		return moved;
	}
	hx_memcpy(moved.value, p, before < bytes ? before : bytes);
	status = hx_heap_free(h, p);
	if (status != HX_OK) { /* freed by another CPU meanwhile: the caller's bug */
		HX_ASSERT(hx_heap_free(h, moved.value) == HX_OK);
		return (struct hx_ptr_result){status, NULL};
	}
	return moved;
}

/* ---- The whole ---- */

uint64_t hx_heap_shrink(struct hx_heap *h)
{
	uint64_t frames = 0;
	for (unsigned i = backend_count(h); i-- > 0;) {
		struct hx_heap_backend *b = &h->backends[i];
		frames += CALL(b, shrink)(b);
	}
	return frames;
}

hx_status hx_heap_validate(struct hx_heap *h)
{
	unsigned n = backend_count(h);
	if (n > HX_HEAP_BACKENDS_MAX || h->counters.frees > h->counters.allocations) {
		return HX_CORRUPTED;
	}
	for (unsigned i = 0; i < n; i++) {
		struct hx_heap_backend *b = &h->backends[i];
		hx_status status = CALL(b, validate)(b);
		if (status != HX_OK) {
			return status;
		}
	}
	return HX_OK;
}
