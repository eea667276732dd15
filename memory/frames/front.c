/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * front.c - zones over the memory map, and the requests that go to them.
 *
 * RAM is cut at 16 MiB, at 4 GiB and at the end of the direct map; each piece
 * belongs to the zone of its kind and node. A zone's span runs from its first to
 * its last piece; what lies between and is no RAM are holes. Spans are disjoint,
 * so a frame number names its zone: pieces of one kind and node make two zones
 * when another zone lies between them, or a hole so large that its metadata would
 * be felt.
 *
 *      0      16 MiB          4 GiB      direct_limit
 *      |  DMA   |     DMA32     |   NORMAL    |   HIGH ...
 *
 * The image and the initrd lie in RAM as well. They widen the spans but are not
 * added: their frames may be donated once boot is done with them. Frame 0 never
 * is, it would look like a null pointer.
 *
 * The zones' shapes are taken from the map before metadata are carved out of it.
 * Carving only takes RAM away, so the shapes still hold, and nothing needs to be
 * computed again.
 *
 * Free frames of a zone against its watermarks:
 *
 *      high  -----  reached again: below low is worth an event again
 *      low   -----  the request that comes to lie below raises one
 *      min   -----  the reserve: for requests that ask for it
 *
 * The front has no lock: zones change only while boot, or whoever adds one, is
 * alone. Everything else is under the lock of a zone's allocator; watermarks are
 * compared without it, so that requests of several CPUs may together go below min by
 * as much as all but one of them ask for.
 */
#include "trait.h"

/* A hole of this many frames begins a new zone while the table has room. */
#define HOLE_FRAMES (HX_GIB(16) / HX_FRAME_BYTES)
#define METADATA_ALIGN 64

static const uint64_t dma_end = HX_MIB(16) / HX_FRAME_BYTES;
static const uint64_t dma32_end = HX_GIB(4) / HX_FRAME_BYTES;

/* ---- Building zones ---- */

static bool needs_backing(const struct hx_frame_trait *trait)
{
#ifdef HX_BUILTIN_FRAMES_SLAB
	return trait == &hx_frames_slab;
#else
	(void)trait;
	return false;
#endif
}

/* Kind of frame @f, and where that kind ends. */
static enum hx_zone_kind kind_of(uint64_t f, uint64_t direct_end, uint64_t *end)
{
	if (f >= direct_end) {
		*end = HX_FRAMES_END;
		return HX_ZONE_HIGH;
	}
	enum hx_zone_kind kind = HX_ZONE_NORMAL;
	*end = direct_end;
	if (f < dma_end) {
		kind = HX_ZONE_DMA;
		*end = dma_end;
	} else if (f < dma32_end) {
		kind = HX_ZONE_DMA32;
		*end = dma32_end;
	}
	if (*end > direct_end) {
		*end = direct_end;
	}
	return kind;
}

static uint64_t zone_end(const struct hx_zone *z)
{
	return z->allocator.base + z->allocator.span_frames;
}

/* Pointers inside a zone name the zone itself: set again when it has moved. */
static void wire(struct hx_zone *z)
{
	z->front = &z->allocator;
	z->allocator.backing = z->backing.trait ? &z->backing : NULL;
}

/* Make room at the zone's place in the order, NULL when the table is full. */
static struct hx_zone *insert_zone(struct hx_frames *f, enum hx_zone_kind kind, uint32_t node,
				   uint64_t base, uint64_t span_frames)
{
	if (f->zone_count == HX_ZONES_MAX) {
		return NULL;
	}
	unsigned at = f->zone_count++;
	for (; at > 0; at--) {
		const struct hx_zone *before = &f->zones[at - 1];
		if (before->kind < kind ||
		    (before->kind == kind && before->allocator.base < base)) {
			break;
		}
		f->zones[at] = *before;
		wire(&f->zones[at]);
	}
	struct hx_zone *z = &f->zones[at];
	*z = (struct hx_zone){.kind = kind, .node = node};
	z->allocator.base = base;
	z->allocator.span_frames = span_frames;
	wire(z);
	return z;
}

/* Let a zone cover [first, end), which lies behind every zone's span. */
static bool cover(struct hx_frames *f, struct hx_zone **last, enum hx_zone_kind kind, uint32_t node,
		  uint64_t first, uint64_t end)
{
	struct hx_zone *z = *last;
	if (z && z->kind == kind && z->node == node &&
	    (first - zone_end(z) < HOLE_FRAMES || f->zone_count == HX_ZONES_MAX)) {
		z->allocator.span_frames = end - z->allocator.base;
		return true;
	}
	*last = insert_zone(f, kind, node, first, end - first);
	return *last != NULL;
}

/* RAM by nature, whoever holds it now. */
static bool is_ram(const struct hx_memory_range *r)
{
	return r->type == HX_MEMORY_RAM || r->type == HX_MEMORY_KERNEL ||
	       r->type == HX_MEMORY_INITRD;
}

/* Frames of a region without frame 0. */
static void frames_of(const struct hx_memory_range *r, uint64_t *first, uint64_t *end)
{
	*first = r->base.v / HX_FRAME_BYTES;
	*end = *first + r->bytes / HX_FRAME_BYTES;
	*first += *first == 0;
}

static hx_status shape_zones(struct hx_frames *f, const struct hx_memmap *map, uint64_t direct_end)
{
	struct hx_zone *last = NULL;
	for (unsigned i = 0; i < map->count; i++) {
		uint64_t first, end, kind_end;
		if (!is_ram(&map->regions[i])) {
			continue;
		}
		frames_of(&map->regions[i], &first, &end);
		for (; first < end; first = kind_end) {
			enum hx_zone_kind kind = kind_of(first, direct_end, &kind_end);
			kind_end = kind_end < end ? kind_end : end;
			if (!cover(f, &last, kind, map->regions[i].node, first, kind_end)) {
				hx_log("[hx:frames] more than %d zones", HX_ZONES_MAX);
				return HX_NOT_SUPPORTED;
			}
		}
	}
	return f->zone_count > 0 ? HX_OK : HX_OUT_OF_MEMORY;
}

/* Metadata of one layer, at @at and up; @at moves on. False on overflow. */
static bool lay_out(struct hx_frame_allocator *a, const struct hx_frame_trait *trait, uint64_t *at)
{
	a->trait = trait;
	a->metadata_bytes = trait->metadata_bytes(a->base, a->span_frames);
	uint64_t bytes;
	return a->metadata_bytes != 0 && hx_align_up(a->metadata_bytes, METADATA_ALIGN, &bytes) &&
	       !__builtin_add_overflow(*at, bytes, at);
}

static hx_status init_layer(struct hx_frame_allocator *a, unsigned char **metadata)
{
	a->metadata = *metadata;
	*metadata += hx_align_down(a->metadata_bytes + METADATA_ALIGN - 1, METADATA_ALIGN);
	return a->trait->init(a);
}

static hx_status init_zones(struct hx_frames *f, unsigned char *metadata)
{
	for (unsigned i = 0; i < f->zone_count; i++) {
		struct hx_zone *z = &f->zones[i];
		hx_status status = HX_OK;
		if (z->backing.trait) {
			status = init_layer(&z->backing, &metadata);
		}
		if (status == HX_OK) {
			status = init_layer(&z->allocator, &metadata);
		}
		if (status != HX_OK) {
			return status;
		}
	}
	return HX_OK;
}

/* Zone of frame @first, and the frames of [first, end) that are in its span. */
static struct hx_zone *piece_of(struct hx_frames *f, struct hx_pfn first, uint64_t end,
				uint64_t *count)
{
	struct hx_zone *z = hx_frames_zone_of(f, first);
	if (z) {
		*count = (zone_end(z) < end ? zone_end(z) : end) - first.v;
	}
	return z;
}

/* ---- Watermarks ---- */

static void set_marks(struct hx_zone *z, uint64_t min, uint64_t low, uint64_t high)
{
	__atomic_store_n(&z->min, min, __ATOMIC_RELAXED);
	__atomic_store_n(&z->low, low, __ATOMIC_RELAXED);
	__atomic_store_n(&z->high, high, __ATOMIC_RELAXED);
}

static void follow_size(struct hx_zone *z, const struct hx_zone_shares *s)
{
	uint64_t total = hx_frame_counter(&z->front->total_frames);
	if (!z->marked) {
		set_marks(z, total * s->min / 1000, total * s->low / 1000, total * s->high / 1000);
	}
}

/*
 * At least that many frames are free. The counter of who keeps them leaves out what
 * CPUs cache; these are looked at only when it does not reach.
 */
static bool has_free(const struct hx_zone *z, uint64_t frames)
{
	const struct hx_frame_allocator *keeper = z->front->backing ? z->front->backing : z->front;
	return hx_frame_counter(&keeper->free_frames) >= frames ||
	       z->front->trait->free_frames(z->front) >= frames;
}

/* How many of @frames the zone can give without going below min. */
static uint64_t spare(const struct hx_zone *z, uint64_t frames)
{
	uint64_t min = hx_frame_counter(&z->min), all;
	if (min == 0 || (!__builtin_add_overflow(min, frames, &all) && has_free(z, all))) {
		return frames;
	}
	uint64_t free_frames = z->front->trait->free_frames(z->front);
	uint64_t above = free_frames > min ? free_frames - min : 0;
	return above < frames ? above : frames;
}

static void tell_if_low(struct hx_frames *f, struct hx_zone *z, uint64_t low, unsigned flags)
{
	uint64_t high = hx_frame_counter(&z->high);
	if (!f->low || (flags & HX_ALLOC_NO_PRESSURE) != 0 || has_free(z, low) ||
	    __atomic_exchange_n(&z->below_low, 1, __ATOMIC_RELAXED) != 0) {
		return;
	}
	uint64_t free_frames = z->front->trait->free_frames(z->front);
	if (free_frames < high) {
		f->low(f->pressure_context, high - free_frames);
	}
}

/* A request got frames of @z: is that worth an event? Most zones have no watermarks. */
static inline void watch(struct hx_frames *f, struct hx_zone *z, unsigned flags)
{
	uint64_t low = hx_frame_counter(&z->low);
	if (low != 0) {
		tell_if_low(f, z, low, flags);
	}
}

static void rearm_if_high(struct hx_zone *z)
{
	if (has_free(z, hx_frame_counter(&z->high))) {
		__atomic_store_n(&z->below_low, 0, __ATOMIC_RELAXED);
	}
}

/* @z got frames back. */
static inline void rearm(struct hx_zone *z)
{
	if (__atomic_load_n(&z->below_low, __ATOMIC_RELAXED) != 0) {
		rearm_if_high(z);
	}
}

hx_status hx_zone_watermarks(struct hx_zone *z, uint64_t min, uint64_t low, uint64_t high)
{
	if (!z || min > low || low > high) {
		return HX_INVALID_ARGUMENT;
	}
	z->marked = true;
	set_marks(z, min, low, high);
	rearm(z);
	return HX_OK;
}

/* ---- Frames for the zones ---- */

/* Make [first, end), all of it in spans, free. */
static hx_status give(struct hx_frames *f, struct hx_pfn first, uint64_t end)
{
	hx_status status = HX_OK;
	while (status == HX_OK && first.v < end) {
		uint64_t n = 0;
		struct hx_zone *z = piece_of(f, first, end, &n);
		HX_ASSERT(z);
		status = z->front->trait->add(z->front, first, n);
		follow_size(z, &f->shares);
		rearm(z);
		first.v += n;
	}
	return status;
}

/* RAM below @limit. */
static hx_status add_ram(struct hx_frames *f, const struct hx_memmap *map, uint64_t limit)
{
	for (unsigned i = 0; i < map->count; i++) {
		uint64_t first, end;
		frames_of(&map->regions[i], &first, &end);
		end = end < limit ? end : limit;
		if (map->regions[i].type != HX_MEMORY_RAM || first >= end) {
			continue;
		}
		hx_status status = give(f, hx_pfn(first), end);
		if (status != HX_OK) {
			return status;
		}
	}
	return hx_frames_total_frames(f) > 0 ? HX_OK : HX_OUT_OF_MEMORY;
}

/* Frame that a limit of the configuration names; 0 stands for none. */
static uint64_t limit_frame(struct hx_pa limit)
{
	return limit.v != 0 ? limit.v / HX_FRAME_BYTES : HX_FRAMES_END;
}

static hx_status build(struct hx_frames *f, const struct hx_frames_config *c, struct hx_memmap *map)
{
	hx_status status = shape_zones(f, map, limit_frame(c->direct_limit));
	if (status != HX_OK) {
		return status;
	}
	uint64_t bytes = 0;
	for (unsigned i = 0; i < f->zone_count; i++) {
		struct hx_zone *z = &f->zones[i];
		bool fits = true;
		if (needs_backing(c->physical)) {
			z->backing.base = z->allocator.base;
			z->backing.span_frames = z->allocator.span_frames;
			fits = lay_out(&z->backing, c->backing, &bytes);
		}
		if (!fits || !lay_out(&z->allocator, c->physical, &bytes)) {
			return HX_OUT_OF_MEMORY;
		}
		wire(z);
	}
	struct hx_pa_result metadata =
		hx_memmap_take(map, bytes, HX_FRAME_BYTES, c->metadata_limit);
	if (metadata.status != HX_OK) {
		hx_log("[hx:frames] no room for %llu KiB of metadata",
		       (unsigned long long)(bytes + 1023) >> 10);
		return metadata.status;
	}
	status = init_zones(f, hx_ptr(metadata.value));
	return status == HX_OK ? add_ram(f, map, limit_frame(c->free_limit)) : status;
}

hx_status hx_frames_init(struct hx_frames *f, const struct hx_frames_config *c,
			 struct hx_memmap *map)
{
	if (!f || !c || !map || !c->physical ||
	    (needs_backing(c->physical) && !hx_frame_may_back(c->backing)) ||
	    c->watermarks.min > c->watermarks.low || c->watermarks.low > c->watermarks.high ||
	    c->watermarks.high > 1000) {
		return HX_INVALID_ARGUMENT;
	}
	*f = (struct hx_frames){.shares = c->watermarks};
	hx_status status = build(f, c, map);
	if (status != HX_OK) {
		*f = (struct hx_frames){.zone_count = 0};
	}
	return status;
}

hx_status hx_frames_add_zone(struct hx_frames *f, enum hx_zone_kind kind, uint32_t node,
			     const struct hx_frame_trait *trait, struct hx_pfn first,
			     uint64_t count, void *metadata, uint64_t metadata_bytes)
{
	if (!f || (unsigned)kind >= HX_ZONE_KINDS || !trait || needs_backing(trait) || !metadata) {
		return HX_INVALID_ARGUMENT;
	}
	if (!hx_is_aligned((uintptr_t)metadata, METADATA_ALIGN)) {
		return HX_INVALID_ALIGNMENT;
	}
	struct hx_pfn usable = hx_pfn(first.v + (first.v == 0)); /* not frame 0 */
	if (!hx_frame_span_valid(first.v, count) || count == usable.v - first.v ||
	    metadata_bytes < trait->metadata_bytes(first.v, count)) {
		return HX_INVALID_SIZE;
	}
	for (unsigned i = 0; i < f->zone_count; i++) {
		const struct hx_zone *z = &f->zones[i];
		if (first.v < zone_end(z) && z->allocator.base < first.v + count) {
			return HX_ALREADY_MAPPED;
		}
	}
	struct hx_frame_allocator a = {
		.trait = trait,
		.base = first.v,
		.span_frames = count,
		.metadata = metadata,
		.metadata_bytes = trait->metadata_bytes(first.v, count),
	};
	hx_status status = trait->init(&a);
	if (status == HX_OK) {
		status = trait->add(&a, usable, count - (usable.v - first.v));
	}
	if (status != HX_OK) {
		return status;
	}
	struct hx_zone *z = insert_zone(f, kind, node, first.v, count);
	if (!z) {
		return HX_NOT_SUPPORTED;
	}
	z->allocator = a;
	return HX_OK;
}

hx_status hx_frames_donate(struct hx_frames *f, struct hx_pfn first, uint64_t count)
{
	uint64_t end;
	if (!f) {
		return HX_INVALID_ARGUMENT;
	}
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if (first.v == 0 || __builtin_add_overflow(first.v, count, &end)) {
		return HX_INVALID_ADDRESS;
	}
	hx_status status = HX_OK;
	for (struct hx_pfn at = first; at.v < end;) {
		uint64_t n = 0;
		const struct hx_zone *z = piece_of(f, at, end, &n);
		if (!z) {
			return HX_INVALID_ADDRESS;
		}
		if (!z->front->trait->holes(z->front, at, n)) {
			status = HX_INVALID_ARGUMENT;
		}
		at.v += n;
	}
	if (status != HX_OK) {
		return status;
	}
	return give(f, first, end);
}

/* ---- Requests ---- */

/* What is asked for: a block of 2^order frames, or a run of count frames. */
struct request {
	unsigned order;
	uint64_t count; /* 0: a block */
	const struct hx_frame_constraint *constraint;
	unsigned flags;
	enum hx_zone_kind lowest, highest;
	bool or_high; /* HIGH as the last resort */
	bool digs;    /* for what zones keep below min */
};

static uint64_t frames_of_request(const struct request *r)
{
	return r->count != 0 ? r->count : UINT64_C(1) << r->order;
}

/* The flags that allocators see; the front's own are HX_ALLOC_*. */
#define LIFETIME_FLAGS HX_FRAMES_PINNED
#define KNOWN_FLAGS (HX_ALLOC_NO_PRESSURE | HX_ALLOC_RESERVE | LIFETIME_FLAGS)

static struct hx_pfn_result ask(struct hx_zone *z, const struct request *r)
{
	struct hx_frame_allocator *a = z->front;
	unsigned flags = r->flags & LIFETIME_FLAGS;
	if (r->count != 0) {
		return a->trait->allocate_run(a, r->count, flags, r->constraint);
	}
	return HX_FRAME_CALL(a, allocate, a, r->order, flags, r->constraint);
}

static bool may_satisfy(const struct hx_zone *z, const struct hx_frame_constraint *c)
{
	return !c ||
	       (c->lowest.v < zone_end(z) && (c->limit.v == 0 || c->limit.v > z->allocator.base));
}

/* A request without a right to the reserve was cut short by it. */
static void note_withheld(struct hx_zone *z, unsigned flags)
{
	if ((flags & HX_ALLOC_RESERVE) == 0) {
		__atomic_fetch_add(&z->withheld, 1, __ATOMIC_RELAXED);
	}
}

/* Do the watermarks let the request in? Who digs has been to the others before. */
static inline bool admits(struct hx_zone *z, const struct request *r)
{
	if (hx_frame_counter(&z->min) == 0) {
		return !r->digs;
	}
	if (r->digs || spare(z, frames_of_request(r)) == frames_of_request(r)) {
		return true;
	}
	note_withheld(z, r->flags);
	return false;
}

/* Zones of the kinds lowest..highest, from the top. */
static struct hx_pfn_result ask_kinds(struct hx_frames *f, enum hx_zone_kind lowest,
				      enum hx_zone_kind highest, const struct request *r)
{
	struct hx_pfn_result result = hx_frame_refused(HX_OUT_OF_MEMORY);
	for (unsigned i = f->zone_count; i-- > 0 && result.status == HX_OUT_OF_MEMORY;) {
		struct hx_zone *z = &f->zones[i];
		if (z->kind >= lowest && z->kind <= highest && may_satisfy(z, r->constraint) &&
		    admits(z, r)) {
			result = ask(z, r);
			if (result.status == HX_OK) {
				watch(f, z, r->flags);
			}
		}
	}
	return result;
}

/* The kinds that it may be of, HIGH as the last resort when it may. */
static struct hx_pfn_result ask_all(struct hx_frames *f, const struct request *r)
{
	struct hx_pfn_result result = ask_kinds(f, r->lowest, r->highest, r);
	if (result.status == HX_OUT_OF_MEMORY && r->or_high) {
		result = ask_kinds(f, HX_ZONE_HIGH, HX_ZONE_HIGH, r);
	}
	return result;
}

/* With the reserves as well, where the request may. */
static struct hx_pfn_result ask_with_reserves(struct hx_frames *f, struct request *r)
{
	r->digs = false;
	struct hx_pfn_result result = ask_all(f, r);
	if (result.status == HX_OUT_OF_MEMORY && (r->flags & HX_ALLOC_RESERVE) != 0) {
		r->digs = true;
		result = ask_all(f, r);
	}
	return result;
}

/* Nothing was found: has the handler freed something? */
static bool relieved(struct hx_frames *f, unsigned flags, uint64_t wanted)
{
	return (flags & HX_ALLOC_NO_PRESSURE) == 0 && f->pressure &&
	       f->pressure(f->pressure_context, wanted);
}

/* All that there is; then pressure, and once more. */
static struct hx_pfn_result allocate(struct hx_frames *f, struct request *r)
{
	if (!f || (r->flags & ~KNOWN_FLAGS) != 0) {
		return hx_frame_refused(HX_INVALID_ARGUMENT);
	}
	for (bool retried = false;; retried = true) {
		struct hx_pfn_result result = ask_with_reserves(f, r);
		if (result.status != HX_OUT_OF_MEMORY || retried ||
		    !relieved(f, r->flags, frames_of_request(r))) {
			return result;
		}
	}
}

struct hx_pfn_result hx_frames_allocate(struct hx_frames *f, unsigned order, unsigned flags)
{
	return hx_frames_allocate_zone(f, order, HX_ZONE_NORMAL, flags);
}

struct hx_pfn_result hx_frames_allocate_zone(struct hx_frames *f, unsigned order,
					     enum hx_zone_kind highest, unsigned flags)
{
	if (order > HX_ORDER_MAX) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	if ((unsigned)highest >= HX_ZONE_KINDS) {
		return hx_frame_refused(HX_INVALID_ARGUMENT);
	}
	enum hx_zone_kind lowest = highest == HX_ZONE_DEVICE ? HX_ZONE_DEVICE : HX_ZONE_DMA;
	struct request r = {.order = order, .flags = flags, .lowest = lowest, .highest = highest};
	return allocate(f, &r);
}

struct hx_pfn_result hx_frames_allocate_constrained(struct hx_frames *f, unsigned order,
						    const struct hx_frame_constraint *c,
						    unsigned flags)
{
	if (order > HX_ORDER_MAX) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	if (!hx_frame_constraint_valid(c, UINT64_C(1) << order)) {
		return hx_frame_refused(HX_INVALID_ARGUMENT);
	}
	struct request r = {
		.order = order,
		.constraint = c,
		.flags = flags,
		.lowest = HX_ZONE_DMA,
		.highest = HX_ZONE_NORMAL,
		.or_high = true,
	};
	return allocate(f, &r);
}

struct hx_pfn_result hx_frames_allocate_contiguous(struct hx_frames *f, uint64_t count,
						   unsigned order, unsigned flags)
{
	uint64_t frames;
	if (order > HX_ORDER_MAX || count == 0 ||
	    __builtin_mul_overflow(count, UINT64_C(1) << order, &frames)) {
		return hx_frame_refused(HX_INVALID_SIZE);
	}
	struct hx_frame_constraint c = {.align_frames = UINT64_C(1) << order};
	struct request r = {
		.count = frames,
		.constraint = &c,
		.flags = flags,
		.lowest = HX_ZONE_DMA,
		.highest = HX_ZONE_NORMAL,
	};
	return allocate(f, &r);
}

/* Of @count single frames those of one zone; @digs: for its reserve. */
static uint64_t ask_bulk(struct hx_frames *f, struct hx_zone *z, struct hx_pfn *out, uint64_t count,
			 unsigned flags, bool digs)
{
	struct hx_frame_allocator *a = z->front;
	uint64_t most = !digs ? spare(z, count) : hx_frame_counter(&z->min) != 0 ? count : 0;
	uint64_t n = 0;
	if (most > 0) {
		n = HX_FRAME_CALL(a, allocate_bulk, a, out, most, flags & LIFETIME_FLAGS);
	}
	if (n == most && most < count && !digs) {
		note_withheld(z, flags);
	}
	if (n > 0) {
		watch(f, z, flags);
	}
	return n;
}

static uint64_t ask_all_bulk(struct hx_frames *f, struct hx_pfn *out, uint64_t count,
			     unsigned flags, bool digs)
{
	uint64_t n = 0;
	for (unsigned i = f->zone_count; i-- > 0 && n < count;) {
		if (f->zones[i].kind <= HX_ZONE_NORMAL) {
			n += ask_bulk(f, &f->zones[i], out + n, count - n, flags, digs);
		}
	}
	return n;
}

uint64_t hx_frames_allocate_bulk(struct hx_frames *f, struct hx_pfn *out, uint64_t count,
				 unsigned flags)
{
	if (!f || !out || (flags & ~KNOWN_FLAGS) != 0) {
		return 0;
	}
	uint64_t n = 0;
	for (bool retried = false;; retried = true) {
		n += ask_all_bulk(f, out + n, count - n, flags, false);
		if (n < count && (flags & HX_ALLOC_RESERVE) != 0) {
			n += ask_all_bulk(f, out + n, count - n, flags, true);
		}
		if (n == count || retried || !relieved(f, flags, count - n)) {
			return n;
		}
	}
}

hx_status hx_frames_reserve(struct hx_frames *f, struct hx_pfn first, uint64_t count)
{
	if (!f) {
		return HX_INVALID_ARGUMENT;
	}
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	struct hx_zone *z = hx_frames_zone_of(f, first);
	if (!z || !hx_frame_in_span(&z->allocator, first.v, count)) {
		return HX_INVALID_ADDRESS;
	}
	return z->front->trait->reserve(z->front, first, count);
}

hx_status hx_frames_free(struct hx_frames *f, struct hx_pfn first, unsigned order)
{
	struct hx_zone *z = hx_frames_zone_of(f, first);
	if (!z) {
		return HX_FOREIGN_FREE;
	}
	hx_status status = HX_FRAME_CALL(z->front, free, z->front, first, order);
	rearm(z);
	return status;
}

static hx_status free_run(struct hx_zone *z, struct hx_pfn first, uint64_t count)
{
	hx_status status = z->front->trait->free_run(z->front, first, count);
	rearm(z);
	return status;
}

hx_status hx_frames_free_run(struct hx_frames *f, struct hx_pfn first, uint64_t count)
{
	struct hx_zone *z = hx_frames_zone_of(f, first);
	return z ? free_run(z, first, count) : HX_FOREIGN_FREE;
}

uint64_t hx_frames_free_bulk(struct hx_frames *f, const struct hx_pfn *frames, uint64_t count,
			     hx_status *status)
{
	if (!status) {
		return 0;
	}
	*status = frames || count == 0 ? HX_OK : HX_INVALID_ARGUMENT;
	uint64_t freed = 0;
	while (freed < count && *status == HX_OK) {
		struct hx_zone *z = hx_frames_zone_of(f, frames[freed]);
		if (!z) {
			*status = HX_FOREIGN_FREE;
			break;
		}
		uint64_t n = 1; /* those in a row that the same zone has given */
		while (freed + n < count &&
		       hx_frame_in_span(&z->allocator, frames[freed + n].v, 1)) {
			n++;
		}
		freed += HX_FRAME_CALL(z->front, free_bulk, z->front, frames + freed, n, status);
		rearm(z);
	}
	return freed;
}

hx_status hx_frames_split(struct hx_frames *f, struct hx_pfn first, uint64_t count, uint64_t part)
{
	struct hx_zone *z = hx_frames_zone_of(f, first);
	return z ? z->front->trait->split(z->front, first, count, part) : HX_FOREIGN_FREE;
}

hx_status hx_frames_deallocate(struct hx_frames *f, struct hx_pfn first)
{
	struct hx_zone *z = hx_frames_zone_of(f, first);
	if (!z) {
		return HX_FOREIGN_FREE;
	}
	/*
	 * Two steps, but a block that is the caller's does not change between them. A
	 * length that no block has is refused as what it is, and counted.
	 */
	struct hx_pfn_result block = z->front->trait->block_frames(z->front, first);
	uint64_t count = block.status == HX_OK ? block.value.v : UINT64_MAX;
	return free_run(z, first, count);
}

/* ---- Queries ---- */

struct hx_zone *hx_frames_zone_of(struct hx_frames *f, struct hx_pfn frame)
{
	for (unsigned i = 0; f && i < f->zone_count; i++) {
		struct hx_frame_allocator *a = &f->zones[i].allocator;
		if (frame.v - a->base < a->span_frames) {
			return &f->zones[i];
		}
	}
	return NULL;
}

uint64_t hx_frames_free_frames(const struct hx_frames *f)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < f->zone_count; i++) {
		const struct hx_frame_allocator *a = f->zones[i].front;
		sum += a->trait->free_frames(a);
	}
	return sum;
}

uint64_t hx_frames_total_frames(const struct hx_frames *f)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < f->zone_count; i++) {
		sum += hx_frame_counter(&f->zones[i].front->total_frames);
	}
	return sum;
}

void hx_frames_stats(const struct hx_frames *f, struct hx_frame_stats *out)
{
	*out = (struct hx_frame_stats){.total_frames = 0};
	for (unsigned i = 0; i < f->zone_count; i++) {
		const struct hx_frame_allocator *a = f->zones[i].front;
		struct hx_frame_stats s;
		a->trait->stats(a, &s);
		out->total_frames += s.total_frames;
		out->free_frames += s.free_frames;
		out->cached_frames += s.cached_frames;
		out->allocations += s.allocations;
		out->frees += s.frees;
		out->failures += s.failures + hx_frame_counter(&f->zones[i].withheld);
		out->refused_frees += s.refused_frees;
		out->metadata_bytes += s.metadata_bytes;
		for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
			out->free_blocks[o] += s.free_blocks[o];
		}
	}
}

unsigned hx_frames_fragmentation(const struct hx_frame_stats *s, unsigned order)
{
	uint64_t usable = 0, apart = 0;
	for (unsigned o = 0; o <= HX_ORDER_MAX; o++) {
		*(o < order ? &apart : &usable) += s->free_blocks[o] << o;
	}
	if (apart == 0) {
		return 0;
	}
	uint64_t share = apart * 1000 / (apart + usable);
	return share != 0 ? (unsigned)share : 1;
}

void hx_frames_drain(struct hx_frames *f)
{
	for (unsigned i = 0; i < f->zone_count; i++) {
		f->zones[i].front->trait->drain(f->zones[i].front);
	}
}

hx_status hx_frames_validate(const struct hx_frames *f)
{
	for (unsigned i = 0; i < f->zone_count; i++) {
		const struct hx_zone *z = &f->zones[i];
		if (z->front != &z->allocator || z->min > z->low || z->low > z->high ||
		    z->allocator.backing != (z->backing.trait ? &z->backing : NULL)) {
			return HX_CORRUPTED;
		}
		for (unsigned k = 0; k < i; k++) {
			const struct hx_zone *other = &f->zones[k];
			if (other->kind > z->kind || (other->allocator.base < zone_end(z) &&
						      z->allocator.base < zone_end(other))) {
				return HX_CORRUPTED;
			}
		}
		hx_status status = z->front->trait->validate(z->front);
		if (status != HX_OK) {
			return status;
		}
	}
	return f->zone_count <= HX_ZONES_MAX ? HX_OK : HX_CORRUPTED;
}

const char *hx_zone_kind_name(enum hx_zone_kind kind)
{
	static const char *const names[HX_ZONE_KINDS] = {
		[HX_ZONE_DMA] = "DMA",   [HX_ZONE_DMA32] = "DMA32",   [HX_ZONE_NORMAL] = "NORMAL",
		[HX_ZONE_HIGH] = "HIGH", [HX_ZONE_DEVICE] = "DEVICE",
	};
	return (unsigned)kind < HX_ZONE_KINDS ? names[kind] : "?";
}
