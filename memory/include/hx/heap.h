/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/heap.h - the kernel heap: one front, several backends behind it.
 *
 * The front checks arguments, counts, raises pressure and retries once, and
 * finds for every pointer ever handed out the backend that knows it: the active
 * one, or one that was retired (the boot bump arena), so that hx_heap_free()
 * takes them all.
 */
#ifndef HX_HEAP_H
#define HX_HEAP_H

#include <hx/framedb.h>
#include <hx/frames.h>

#define HX_HEAP_ZERO (1u << 0)        /* the bytes are zero */
#define HX_HEAP_NO_PRESSURE (1u << 1) /* fail at once, raise no event */

enum { HX_HEAP_ALIGN_MIN = 16 }; /* of every allocation, in bytes */

struct hx_heap_stats {
	uint64_t live_objects;
	uint64_t live_bytes; /* usable bytes of live objects */
	uint64_t peak_bytes;
	uint64_t managed_bytes; /* taken from frames or arenas */
	uint64_t allocations;
	uint64_t frees;
	uint64_t failures;      /* OUT_OF_MEMORY given */
	uint64_t refused_frees; /* double, foreign, wrong size */
	uint64_t largest_free;  /* bytes of the largest block free without growing; 0: unknown */
};

struct hx_heap_backend;

/*
 * Backends take their own locks; all calls are IRQ-safe and never sleep. None
 * raises pressure, and none holds a lock while it asks the frames for memory.
 * "Live" is an object that was handed out and not yet freed. A pointer that is
 * the start of no live object is refused, with nothing changed: DOUBLE_FREE (it
 * was freed before), FOREIGN_FREE (not from here, for all that is known here),
 * CORRUPTED (its header is damaged). Outside the backend's own memory the
 * answer is FOREIGN_FREE, and the front asks the next backend.
 */
struct hx_heap_trait {
	const char *name;
	/** @p b->frames, db, arena, arena_bytes, limit_bytes are set; the rest is zero. */
	hx_status (*init)(struct hx_heap_backend *b);
	/**
	 * @p bytes > 0, @p align a power of two >= HX_HEAP_ALIGN_MIN; not zeroed;
	 * *@p usable becomes the bytes that the caller may use.
	 */
	struct hx_ptr_result (*allocate)(struct hx_heap_backend *b, size_t bytes, size_t align,
					 size_t *usable);
	/**
	 * *@p usable becomes the bytes that the object had. @p bytes: 0, or a size for
	 * which allocate could have given this object, else WRONG_SIZE_FREE.
	 */
	hx_status (*free)(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable);
	/** HX_OK and the usable bytes of the live object at @p p, or why there is none. */
	hx_status (*find)(struct hx_heap_backend *b, const void *p, size_t *usable);
	/**
	 * Make the live object at @p p one of @p bytes without moving it.
	 * @return HX_OK and its usable bytes; OUT_OF_MEMORY when it must move
	 */
	hx_status (*resize)(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable);
	/** Return what can be returned to the frames. @return frames given back */
	uint64_t (*shrink)(struct hx_heap_backend *b);
	/** managed_bytes and largest_free; the front adds the rest. */
	void (*stats)(struct hx_heap_backend *b, struct hx_heap_stats *out);
	/** Walk everything: HX_OK or CORRUPTED. No other call may run meanwhile. */
	hx_status (*validate)(struct hx_heap_backend *b);
};

struct hx_heap_backend {
	const struct hx_heap_trait *trait;
	struct hx_frames *frames; /* growth; NULL: the arena is all there is */
	struct hx_framedb *db;    /* tags HEAP frames; may be NULL */
	void *arena;              /* initial memory, or NULL */
	size_t arena_bytes;
	uint64_t limit_bytes; /* most that is taken from frames; 0: no limit */
	uint64_t taken_bytes; /* taken from frames now, metadata included; atomic */
	struct hx_lock lock;
	uint64_t private[120]; /* the trait's own words */
};

extern const struct hx_heap_trait hx_heap_bump;
extern const struct hx_heap_trait hx_heap_simple;
extern const struct hx_heap_trait hx_heap_slab;

const struct hx_heap_trait *hx_heap_trait_find(const char *name);
const struct hx_heap_trait *hx_heap_trait_at(unsigned i);

enum { HX_HEAP_BACKENDS_MAX = 4 };

struct hx_heap {
	unsigned count;
	/* The last one is active; earlier ones are retired: they only free. */
	struct hx_heap_backend backends[HX_HEAP_BACKENDS_MAX];
	bool (*pressure)(void *context, uint64_t frames_wanted); /* as in hx_frames */
	void *pressure_context;
	struct hx_heap_stats counters; /* atomically updated */
};

struct hx_heap_config {
	const struct hx_heap_trait *trait;
	struct hx_frames *frames;
	struct hx_framedb *db;
	void *arena;
	size_t arena_bytes;
	uint64_t limit_bytes;
};

void hx_heap_init(struct hx_heap *h);
/**
 * Make a backend the active one; the one before it is retired. The storage of
 * @p h must not move afterwards.
 * @return INVALID_ARGUMENT (no trait; neither frames nor an arena that holds an
 *         object; slab with an arena or without frames), OUT_OF_MEMORY (also: too
 *         many backends)
 * Context: boot; not beside another hx_heap_use(). Other calls may run.
 */
HX_NODISCARD hx_status hx_heap_use(struct hx_heap *h, const struct hx_heap_config *c);
/** Name of the active backend, "" before the first. */
const char *hx_heap_name(const struct hx_heap *h);

/**
 * Allocate @p bytes, aligned to @p align.
 * @param bytes  0 is served as 1: a unique pointer that must be freed
 * @param align  0: HX_HEAP_ALIGN_MIN; else a power of two up to 1 GiB
 * @param flags  HX_HEAP_*
 * @return OUT_OF_MEMORY; INVALID_ALIGNMENT (no power of two, too large);
 *         INVALID_SIZE (overflows); INVALID_ARGUMENT (flags); NOT_INITIALIZED;
 *         CORRUPTED (simple: its free list is damaged)
 * Context: IRQ-safe; takes the backend's lock; pressure runs without it
 */
HX_NODISCARD struct hx_ptr_result hx_heap_allocate(struct hx_heap *h, size_t bytes, size_t align,
						   unsigned flags);
/** @p n objects of @p bytes each, zeroed; INVALID_SIZE when the product overflows. */
HX_NODISCARD struct hx_ptr_result hx_heap_allocate_array(struct hx_heap *h, size_t n, size_t bytes,
							 unsigned flags);
/**
 * Resize, keeping the first min(old, new) bytes and at least alignment @p align;
 * NULL allocates. The object stays where it is when its alignment suffices and
 * its backend can make it fit there. With HX_HEAP_ZERO, bytes beyond the old
 * usable size are zero. On failure the object stands as it was.
 * @return as hx_heap_allocate(), or what hx_heap_free(@p p) would refuse it with
 */
HX_NODISCARD struct hx_ptr_result hx_heap_reallocate(struct hx_heap *h, void *p, size_t bytes,
						     size_t align, unsigned flags);
/**
 * Free any pointer that this heap gave; NULL is HX_OK.
 * @return DOUBLE_FREE; FOREIGN_FREE (no start of an object of this heap; also a
 *         second free of memory that went back to the frames meanwhile);
 *         CORRUPTED (bump, simple: the object's header, or what leads to it or to
 *         its place among the free, is damaged)
 * Context: IRQ-safe; takes the backend's lock
 */
HX_NODISCARD hx_status hx_heap_free(struct hx_heap *h, void *p);
/**
 * The same, and @p bytes must be a size for which allocate, or the last
 * reallocate, could have given this object; else WRONG_SIZE_FREE.
 */
HX_NODISCARD hx_status hx_heap_free_sized(struct hx_heap *h, void *p, size_t bytes);
/** Usable bytes of a live object, 0 when @p p is none. */
size_t hx_heap_usable(struct hx_heap *h, const void *p);
/** Give memory back to the frames. @return frames */
uint64_t hx_heap_shrink(struct hx_heap *h);
/** Each figure is right by itself; together they are only when the heap is quiet. */
void hx_heap_stats(struct hx_heap *h, struct hx_heap_stats *out);
/** Walk all backends: HX_OK or CORRUPTED. The heap must be quiet. O(everything). */
HX_NODISCARD hx_status hx_heap_validate(struct hx_heap *h);

/**
 * bump only: first byte of its arena never handed out, so that the rest, up to
 * arena + arena_bytes, can be donated once the backend is retired. NULL: no arena.
 */
void *hx_heap_bump_top(const struct hx_heap_backend *b);
/**
 * bump only: the arena is its first @p bytes from now on, the rest is no more the
 * heap's. INVALID_SIZE, nothing changed, when something handed out lies behind, or
 * more than the arena is named.
 */
HX_NODISCARD hx_status hx_heap_bump_cut(struct hx_heap_backend *b, uint64_t bytes);

#endif
