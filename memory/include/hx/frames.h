/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/frames.h - physical frames: the allocator trait, zones, and the front.
 *
 *      hx_frames            the front: zones in fallback order, pressure, statistics
 *        hx_zone            one kind of memory on one node
 *          hx_frame_allocator   one instance of a trait over the zone's span
 *
 * An allocator works on frame numbers and on metadata that its caller supplies;
 * it never touches the frames themselves, which need not even be mapped. Every
 * double, foreign and wrong-order free is refused with its own status and
 * changes nothing, in release builds as well.
 */
#ifndef HX_FRAMES_H
#define HX_FRAMES_H

#include <hx/config.h>
#include <hx/lock.h>
#include <hx/memmap.h>

/* Block sizes are orders: 2^order frames of 4 KiB. */
enum {
	HX_ORDER_4K = 0,
	HX_ORDER_2M = 9,
	HX_ORDER_1G = 18,
	HX_ORDER_MAX = 18,
};

enum hx_zone_kind {
	HX_ZONE_DMA,    /* below 16 MiB */
	HX_ZONE_DMA32,  /* below 4 GiB */
	HX_ZONE_NORMAL, /* the rest that the direct map covers */
	HX_ZONE_HIGH,   /* RAM beyond the direct map */
	HX_ZONE_DEVICE, /* memory on a device, never a fallback */
	HX_ZONE_KINDS,
};

/* All zero means: anything. */
struct hx_frame_constraint {
	struct hx_pfn lowest; /* first frame allowed */
	struct hx_pfn limit;  /* first frame not allowed; 0: none */
	/* Of the physical frame number; a power of two. 0: a block's own size, 1 for runs. */
	uint64_t align_frames;
	uint64_t boundary_frames; /* the block crosses no multiple of it; power of two; 0: none */
};

struct hx_frame_stats {
	uint64_t total_frames;  /* managed: handed out plus free, holes excluded */
	uint64_t free_frames;   /* caches included */
	uint64_t cached_frames; /* of the free ones, in per-CPU magazines */
	/* Every frame of a bulk and every part of a split is one: less frees, those alive. */
	uint64_t allocations;
	uint64_t frees;
	uint64_t failures;      /* requests that a zone refused for want of memory */
	uint64_t refused_frees; /* double, foreign, wrong-order; of splits as well */
	/* Maximal free aligned blocks by order; cached frames count as single ones. */
	uint64_t free_blocks[HX_ORDER_MAX + 1];
	uint64_t metadata_bytes;
};

struct hx_frame_allocator;

/*
 * How long a block will stay, a hint that keeps the long-lived ones together: page
 * tables, kernel objects and DMA are pinned, all else can be moved or comes back soon.
 */
#define HX_FRAMES_PINNED (1u << 8)

/*
 * The trait. Spans are relative to nothing: frames are absolute numbers. After
 * init every frame of the span is a hole; add() makes frames free. All calls
 * are IRQ-safe, take the instance's lock, never sleep; validate is O(span), and so
 * is stats where free blocks are not counted as they come and go (bitmap).
 *
 * An allocation is its first frame and its length: 2^order frames may be freed
 * as a block or as a run, whichever way they came. Wrong frees, which change
 * nothing: DOUBLE_FREE, the frame is free; FOREIGN_FREE, no allocation starts
 * there (outside, a hole, inside another one); WRONG_SIZE_FREE, one of another
 * length does. A trait that never frees (bump) says NOT_SUPPORTED to the rest.
 *
 * INVALID_SIZE for an order above HX_ORDER_MAX and for no frames;
 * INVALID_ARGUMENT for a constraint whose alignment or boundary is no power of
 * two or whose boundary is smaller than the block; OUT_OF_MEMORY otherwise.
 *
 * flags: HX_FRAMES_PINNED or 0; an allocator may ignore it. Other bits mean nothing
 * to it: the front has looked at them.
 */
struct hx_frame_trait {
	const char *name;

	/** Bytes of metadata for a span; the caller supplies them, 64-byte aligned. 0: no such
	 *  span, it is empty or reaches beyond 64-bit addresses. */
	uint64_t (*metadata_bytes)(uint64_t base, uint64_t span_frames);
	/** @p a->base, span_frames, metadata, backing are set; the rest is zero. */
	hx_status (*init)(struct hx_frame_allocator *a);
	/** Make [first, first+count) free; INVALID_ARGUMENT unless all are holes in the span;
	 *  OUT_OF_MEMORY when bump has too many pieces. */
	hx_status (*add)(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count);
	/** All of these are holes of the span: add() would take them. */
	bool (*holes)(const struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count);

	/** A naturally aligned block of 2^order frames; @p c may be NULL. */
	struct hx_pfn_result (*allocate)(struct hx_frame_allocator *a, unsigned order,
					 unsigned flags, const struct hx_frame_constraint *c);
	/** @p count contiguous frames, any length; @p c may be NULL. */
	struct hx_pfn_result (*allocate_run)(struct hx_frame_allocator *a, uint64_t count,
					     unsigned flags, const struct hx_frame_constraint *c);
	/**
	 * Up to @p count single frames, each an allocation of its own, at the price of one
	 * lock. @return how many are in @p out; fewer than count: no frame is free
	 */
	uint64_t (*allocate_bulk)(struct hx_frame_allocator *a, struct hx_pfn *out, uint64_t count,
				  unsigned flags);
	/** Exactly these frames, as one allocation; ALREADY_MAPPED unless all are free. */
	hx_status (*reserve)(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count);

	/** Free an allocation of 2^order frames, whole. */
	hx_status (*free)(struct hx_frame_allocator *a, struct hx_pfn first, unsigned order);
	/** Free an allocation of @p count frames, whole. */
	hx_status (*free_run)(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count);
	/**
	 * Free allocations of one frame in this order, at the price of one lock, up to the
	 * first that is refused. @return how many were freed; *status: HX_OK or the refusal
	 */
	uint64_t (*free_bulk)(struct hx_frame_allocator *a, const struct hx_pfn *frames,
			      uint64_t count, hx_status *status);
	/**
	 * The allocation of @p count frames at @p first becomes count / part allocations of
	 * @p part frames, which are freed one by one. INVALID_SIZE when part is 0 or does not
	 * divide count, or count is 0; else what a free of it would say.
	 */
	hx_status (*split)(struct hx_frame_allocator *a, struct hx_pfn first, uint64_t count,
			   uint64_t part);
	/** Frames of the block or run that starts at @p first; FOREIGN_FREE if none does,
	 *  DOUBLE_FREE if it is free. */
	struct hx_pfn_result (*block_frames)(struct hx_frame_allocator *a, struct hx_pfn first);

	/** Give cached frames back; also other CPUs'. */
	void (*drain)(struct hx_frame_allocator *a);
	uint64_t (*free_frames)(const struct hx_frame_allocator *a);
	void (*stats)(const struct hx_frame_allocator *a, struct hx_frame_stats *out);
	/** Walk everything: HX_OK or CORRUPTED. The instance must be quiet. */
	hx_status (*validate)(const struct hx_frame_allocator *a);
};

struct hx_frame_allocator {
	const struct hx_frame_trait *trait;
	uint64_t base;        /* first frame of the span */
	uint64_t span_frames; /* holes included */
	void *metadata;
	uint64_t metadata_bytes;
	struct hx_frame_allocator *backing; /* slab: what it caches; else NULL */
	struct hx_lock lock;
	/* Kept under the lock; tree counts in its metadata all but total, failures and refused. */
	uint64_t total_frames;
	uint64_t free_frames;
	uint64_t allocations, frees, failures, refused_frees;
	uint64_t private[8]; /* the trait's own words */
};

extern const struct hx_frame_trait hx_frames_bump;
extern const struct hx_frame_trait hx_frames_bitmap;
extern const struct hx_frame_trait hx_frames_buddy;
extern const struct hx_frame_trait hx_frames_slab;
extern const struct hx_frame_trait hx_frames_tree;

/**
 * Of an instance of tree: find out anew where children are listed, from the frames that
 * are taken and what the children hold. What CPUs hold is lost: drain first.
 * Context: alone. Cost: O(span)
 */
void hx_frames_tree_rebuild(struct hx_frame_allocator *a);

/** Built-in trait of that name, NULL when there is none. */
const struct hx_frame_trait *hx_frame_trait_find(const char *name);
/** The @p i-th built-in trait, NULL past the end. */
const struct hx_frame_trait *hx_frame_trait_at(unsigned i);

/* ---- The front ---- */

enum { HX_ZONES_MAX = 16 };

struct hx_zone {
	enum hx_zone_kind kind;
	uint32_t node;
	struct hx_frame_allocator *front;    /* what requests go to */
	struct hx_frame_allocator allocator; /* physical = ... */
	struct hx_frame_allocator backing;   /* under slab */
	/*
	 * Watermarks in free frames, min <= low <= high; 0: none. The request that leaves
	 * less than low raises hx_frames.low, and no other one does before high are free
	 * again. What would leave less than min is refused but to HX_ALLOC_RESERVE.
	 */
	uint64_t min, low, high;
	bool marked;        /* by hx_zone_watermarks(): they no longer follow the size */
	uint32_t below_low; /* 1: it was raised, and high has not been reached since; atomic */
	uint64_t withheld;  /* requests that min refused; atomic */
};

#define HX_ALLOC_NO_PRESSURE (1u << 0) /* fail at once, raise no event */
#define HX_ALLOC_RESERVE (1u << 1)     /* of what is below min, if need be: page faults, reclaim */

/* Watermarks in thousandths of a zone's frames. */
struct hx_zone_shares {
	uint16_t min, low, high;
};

/* 1/64, 1/32 and 1/16. */
#define HX_ZONE_SHARES ((struct hx_zone_shares){16, 31, 63})

struct hx_frames {
	unsigned zone_count;
	struct hx_zone zones[HX_ZONES_MAX]; /* ascending kind, then address */
	/**
	 * Called without any lock when a request found nothing; true: retry once.
	 * NULL: none. hx_pressure_attach() (hx/recovery.h) sets it.
	 */
	bool (*pressure)(void *context, uint64_t frames_wanted);
	/**
	 * Called likewise when a request that may raise events was served and left a zone
	 * below its low watermark; @p frames_missing up to the high one. NULL: none.
	 */
	void (*low)(void *context, uint64_t frames_missing);
	void *pressure_context;
	struct hx_zone_shares shares; /* of hx_frames_config */
};

struct hx_frames_config {
	const struct hx_frame_trait *physical;
	const struct hx_frame_trait *backing; /* under slab: one that frees; else ignored */
	struct hx_pa direct_limit;            /* RAM at and above it is HIGH; 0: none is */
	struct hx_pa metadata_limit;          /* metadata lies below it (the boot window) */
	/**
	 * RAM at and above it stays out until hx_frames_donate() gives it: what is
	 * not mapped yet must not be handed out. 0: all of RAM is free at once.
	 */
	struct hx_pa free_limit;
	/** Watermarks of every zone, min <= low <= high <= 1000; all 0: none. They follow
	 *  what hx_frames_donate() adds. HX_ZONE_SHARES for a kernel that reclaims. */
	struct hx_zone_shares watermarks;
};

/**
 * Build zones over every RAM region of @p map; metadata is carved out of the map
 * with hx_memmap_take() first. Spans hold the image and the initrd as well, which
 * may be donated later. Frame 0 is never handed out.
 * @return HX_OK; OUT_OF_MEMORY (no RAM, or no room for metadata);
 *         INVALID_ARGUMENT (trait missing, slab over none, bump or itself; watermarks
 *         that do not ascend);
 *         NOT_SUPPORTED (more than HX_ZONES_MAX zones, logged); unless HX_OK, *f
 *         has no zone
 * Context: boot, alone
 */
HX_NODISCARD hx_status hx_frames_init(struct hx_frames *f, const struct hx_frames_config *c,
				      struct hx_memmap *map);

/**
 * Add a zone over memory that the map did not have (device memory, tests).
 * @param trait     not slab, which has no backing here
 * @param metadata  at least trait->metadata_bytes(first, count), 64-byte aligned
 * @return INVALID_ARGUMENT, INVALID_ALIGNMENT (metadata), INVALID_SIZE (span or
 *         metadata), ALREADY_MAPPED (a zone's span overlaps), NOT_SUPPORTED (more
 *         than HX_ZONES_MAX)
 * Context: alone; zones move, so pointers to them become stale
 */
HX_NODISCARD hx_status hx_frames_add_zone(struct hx_frames *f, enum hx_zone_kind kind,
					  uint32_t node, const struct hx_frame_trait *trait,
					  struct hx_pfn first, uint64_t count, void *metadata,
					  uint64_t metadata_bytes);

/**
 * Give frames that belong to zones' spans but were never added (the retired bump
 * arena, RAM that was not mapped before) to their zones; may cross zones.
 * @return INVALID_ADDRESS unless all lie in spans, and for frame 0; INVALID_ARGUMENT
 *         unless every one is a hole there; INVALID_SIZE; OUT_OF_MEMORY when bump has
 *         too many pieces, in which case the zones below that one have their frames
 */
HX_NODISCARD hx_status hx_frames_donate(struct hx_frames *f, struct hx_pfn first, uint64_t count);

/**
 * Set the watermarks of a zone to frames, whatever its size is and becomes.
 * @return INVALID_ARGUMENT for NULL and unless min <= low <= high
 * Context: not while frames are donated; requests go by the old ones or the new
 */
HX_NODISCARD hx_status hx_zone_watermarks(struct hx_zone *z, uint64_t min, uint64_t low,
					  uint64_t high);

/*
 * Requests say INVALID_ARGUMENT for a NULL front, an unknown flag or a constraint
 * that is none; INVALID_SIZE for an order above HX_ORDER_MAX; OUT_OF_MEMORY. They
 * take the locks of zones in turn, never two at once, and raise pressure under none.
 * flags: HX_ALLOC_NO_PRESSURE, HX_ALLOC_RESERVE, HX_FRAMES_PINNED. No zone is asked
 * for its reserve while another one can serve the request without.
 */

/** 2^order frames from NORMAL, falling back to DMA32, then DMA. */
HX_NODISCARD struct hx_pfn_result hx_frames_allocate(struct hx_frames *f, unsigned order,
						     unsigned flags);
/**
 * 2^order frames from zone kind @p highest or, unless it is DEVICE, a lower one:
 * HIGH, NORMAL, DMA32, DMA in this order.
 */
HX_NODISCARD struct hx_pfn_result hx_frames_allocate_zone(struct hx_frames *f, unsigned order,
							  enum hx_zone_kind highest,
							  unsigned flags);
/**
 * 2^order frames that satisfy @p c, from any zone but DEVICE: NORMAL, DMA32, DMA,
 * and HIGH when these have none.
 */
HX_NODISCARD struct hx_pfn_result
hx_frames_allocate_constrained(struct hx_frames *f, unsigned order,
			       const struct hx_frame_constraint *c, unsigned flags);
/**
 * @p count blocks of 2^order frames in one piece; the start is aligned to the
 * block size. INVALID_SIZE when count is 0 or the product overflows.
 */
HX_NODISCARD struct hx_pfn_result hx_frames_allocate_contiguous(struct hx_frames *f, uint64_t count,
								unsigned order, unsigned flags);
/**
 * Up to @p count single frames into @p out, from NORMAL, DMA32, then DMA; pressure is
 * raised once when these have too few. They are freed one by one or in bulk.
 * @return how many; 0 as well for a request that is none (NULL, an unknown flag)
 */
HX_NODISCARD uint64_t hx_frames_allocate_bulk(struct hx_frames *f, struct hx_pfn *out,
					      uint64_t count, unsigned flags);
/**
 * Exactly these frames, as one allocation, whatever the watermarks say.
 * @return ALREADY_MAPPED unless all are free; INVALID_ADDRESS unless they lie in
 *         one zone; INVALID_SIZE
 */
HX_NODISCARD hx_status hx_frames_reserve(struct hx_frames *f, struct hx_pfn first, uint64_t count);

/** Free a block of known order. */
HX_NODISCARD hx_status hx_frames_free(struct hx_frames *f, struct hx_pfn first, unsigned order);
/** Free a contiguous run of known length. */
HX_NODISCARD hx_status hx_frames_free_run(struct hx_frames *f, struct hx_pfn first, uint64_t count);
/** Free the block or run that starts at @p first, whatever its size. */
HX_NODISCARD hx_status hx_frames_deallocate(struct hx_frames *f, struct hx_pfn first);
/**
 * Free blocks of one frame, of any zones, in this order and up to the first that is
 * refused. @return how many; *status: HX_OK, or why frames[returned] was refused;
 * INVALID_ARGUMENT for no array
 */
HX_NODISCARD uint64_t hx_frames_free_bulk(struct hx_frames *f, const struct hx_pfn *frames,
					  uint64_t count, hx_status *status);
/**
 * Make the block or run of exactly @p count frames at @p first count / part ones of
 * @p part frames each, which are freed one by one, in any order.
 * @return INVALID_SIZE when part is 0 or does not divide count, or count is 0;
 *         DOUBLE_FREE, FOREIGN_FREE, WRONG_SIZE_FREE as a free of it would say;
 *         NOT_SUPPORTED by an allocator that never frees
 */
HX_NODISCARD hx_status hx_frames_split(struct hx_frames *f, struct hx_pfn first, uint64_t count,
				       uint64_t part);

/** Zone whose span holds @p frame, NULL if none. O(zones). */
struct hx_zone *hx_frames_zone_of(struct hx_frames *f, struct hx_pfn frame);
uint64_t hx_frames_free_frames(const struct hx_frames *f);
uint64_t hx_frames_total_frames(const struct hx_frames *f);
/** Sum over all zones; O(CPUs) but where an allocator's is not (bitmap: O(frames)). */
void hx_frames_stats(const struct hx_frames *f, struct hx_frame_stats *out);
/**
 * How many in a thousand of the free frames lie in no free block of 2^order frames, as
 * s->free_blocks has them: 0 when a request of that order could be given any of them, or
 * none is free; 1000 when none could serve it. Rounded down, but never to 0. O(orders).
 */
unsigned hx_frames_fragmentation(const struct hx_frame_stats *s, unsigned order);
void hx_frames_drain(struct hx_frames *f);
HX_NODISCARD hx_status hx_frames_validate(const struct hx_frames *f);
const char *hx_zone_kind_name(enum hx_zone_kind kind);

#endif
