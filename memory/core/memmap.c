/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The physical memory map (hx/memmap.h).
 *
 * Invariant, checked by hx_memmap_validate(): regions are sorted, disjoint, not
 * empty, frame-aligned, end at or below TOP, and no two that touch are equal in
 * type and node.
 *
 * One new word W = [base, end) meets the regions that it overlaps. A region of
 * lower precedence, or equal in type and node, yields to it; the others stay
 * whole, and W fills what is left between them:
 *
 *      before   |  low  |      | high |    |  low  |
 *      W            |--------------------------|
 *      after    |low| W        | high | W      |low|
 *
 * W is first widened over equal regions that it overlaps or touches. They are
 * then inside W and yield, so that no piece of W ever has an equal neighbour
 * and the number of records afterwards is known before anything is changed:
 * the rests at both ends, the regions that stay, one piece of W for each gap.
 * The rewrite then needs no second array: the regions that stay move to the
 * front of their window, the tail to its final place, and the window is filled
 * from its end, where the write index never passes a region not yet read.
 */
#include <hx/memmap.h>

/* End of what the map describes: the last whole frame is left out, so that the
 * end of every region is a number. */
#define TOP hx_align_down(UINT64_MAX, HX_FRAME_BYTES)

static unsigned precedence(enum hx_memory_type type)
{
	static const uint8_t order[HX_MEMORY_TYPES] = {
		[HX_MEMORY_RAM] = 0,      [HX_MEMORY_RESERVED] = 1,    [HX_MEMORY_ROM] = 2,
		[HX_MEMORY_ACPI] = 3,     [HX_MEMORY_DEVICE] = 4,      [HX_MEMORY_BAD] = 5,
		[HX_MEMORY_FIRMWARE] = 6, [HX_MEMORY_FRAMEBUFFER] = 7, [HX_MEMORY_INITRD] = 8,
		[HX_MEMORY_KERNEL] = 9,
	};
	return order[type];
}

static bool known(enum hx_memory_type type)
{
	return (unsigned)type < HX_MEMORY_TYPES;
}

static uint64_t end_of(const struct hx_memory_range *r)
{
	return r->base.v + r->bytes;
}

static bool equal(const struct hx_memory_range *a, const struct hx_memory_range *b)
{
	return a->type == b->type && a->node == b->node;
}

/* The regions [from, behind) of the map. */
struct window {
	unsigned from, behind;
};

/* The regions that share a byte with [base, end). */
static struct window overlapped(const struct hx_memmap *m, uint64_t base, uint64_t end)
{
	struct window w = {0, 0};
	while (w.from < m->count && end_of(&m->regions[w.from]) <= base) {
		w.from++;
	}
	w.behind = w.from;
	while (w.behind < m->count && m->regions[w.behind].base.v < end) {
		w.behind++;
	}
	return w;
}

/* Move the regions from @from on to @to, the count along with them. */
static void move_tail(struct hx_memmap *m, unsigned to, unsigned from)
{
	hx_memmove(&m->regions[to], &m->regions[from], (m->count - from) * sizeof m->regions[0]);
	m->count = m->count - from + to;
}

static struct hx_memory_range part(const struct hx_memory_range *of, uint64_t base, uint64_t end)
{
	return (struct hx_memory_range){hx_pa(base), end - base, of->type, of->node};
}

/*
 * The word as whole frames below TOP: RAM shrinks, everything else grows. False
 * when nothing is left.
 */
static bool normalise(struct hx_memory_range *r, bool *adjusted)
{
	uint64_t base = r->base.v, end;
	if (__builtin_add_overflow(base, r->bytes, &end) || end > TOP) {
		end = TOP;
	}
	if (r->bytes == 0 || base >= end) {
		return false;
	}
	uint64_t down = hx_align_down(base, HX_FRAME_BYTES), up;
	if (!hx_align_up(base, HX_FRAME_BYTES, &up)) {
		return false; /* not reached: base is below TOP */
	}
	if (r->type == HX_MEMORY_RAM) {
		base = up;
		end = hx_align_down(end, HX_FRAME_BYTES);
	} else {
		base = down;
		if (!hx_align_up(end, HX_FRAME_BYTES, &end)) {
			return false; /* not reached: end is at most TOP */
		}
	}
	if (base >= end) {
		return false;
	}
	*adjusted = base != r->base.v || end - base != r->bytes;
	*r = part(r, base, end);
	return true;
}

void hx_memmap_init(struct hx_memmap *m)
{
	m->count = 0;
	m->dropped = 0;
	m->adjusted = 0;
}

/* True when region @old gives way to the word @w. */
static bool yields(const struct hx_memory_range *old, const struct hx_memory_range *w)
{
	return precedence(old->type) < precedence(w->type) || equal(old, w);
}

hx_status hx_memmap_add(struct hx_memmap *m, struct hx_memory_range r)
{
	bool adjusted;
	if (!known(r.type)) {
		return HX_INVALID_ARGUMENT;
	}
	if (!normalise(&r, &adjusted)) {
		m->dropped++;
		return HX_OK;
	}

	uint64_t base = r.base.v, end = end_of(&r);
	struct window w = overlapped(m, base, end);
	adjusted = adjusted || w.from < w.behind;
	for (unsigned i = 0; i < m->count; i++) {
		const struct hx_memory_range *old = &m->regions[i];
		if (equal(old, &r) && old->base.v <= end_of(&r) && end_of(old) >= r.base.v) {
			base = old->base.v < base ? old->base.v : base;
			end = end_of(old) > end ? end_of(old) : end;
		}
	}
	w = overlapped(m, base, end);

	/* How many records the window will have. */
	bool left = false, right = false; /* a rest of a region that yields */
	unsigned stay = 0, pieces = 0;
	struct hx_memory_range left_rest = {0}, right_rest = {0};
	uint64_t filled = base; /* up to here the window is spoken for */
	for (unsigned i = w.from; i < w.behind; i++) {
		const struct hx_memory_range *old = &m->regions[i];
		if (!yields(old, &r)) {
			stay++;
			pieces += old->base.v > filled;
			filled = end_of(old);
			continue;
		}
		if (old->base.v < base) {
			left = true;
			left_rest = part(old, old->base.v, base);
		}
		if (end_of(old) > end) {
			right = true;
			right_rest = part(old, end, end_of(old));
		}
	}
	pieces += filled < end;
	unsigned records = (unsigned)left + (unsigned)right + stay + pieces;
	if (m->count - (w.behind - w.from) + records > HX_MEMMAP_REGIONS_MAX) {
		return HX_OUT_OF_MEMORY;
	}

	/* Commit. */
	unsigned kept = w.from;
	for (unsigned i = w.from; i < w.behind; i++) {
		if (!yields(&m->regions[i], &r)) {
			m->regions[kept++] = m->regions[i];
		}
	}
	move_tail(m, w.from + records, w.behind);
	struct hx_memory_range *write = &m->regions[w.from + records];
	if (right) {
		*--write = right_rest;
	}
	while (kept > w.from) {
		struct hx_memory_range old = m->regions[--kept];
		if (end_of(&old) < end) {
			*--write = part(&r, end_of(&old), end);
		}
		*--write = old;
		end = old.base.v;
	}
	if (base < end) {
		*--write = part(&r, base, end);
	}
	if (left) {
		*--write = left_rest;
	}
	m->adjusted += adjusted;
	return HX_OK;
}

hx_status hx_memmap_read_firmware(struct hx_memmap *m)
{
	uint32_t iterator = 0;
	struct hx_memory_range r;
	while (hx_hal_memory_next(&iterator, &r)) {
		hx_status s = hx_memmap_add(m, r);
		if (s != HX_OK) {
			return s;
		}
	}
	return HX_OK;
}

/* Cut region @i in two at @at, which lies inside it; there must be a free record. */
static void cut(struct hx_memmap *m, unsigned i, uint64_t at)
{
	struct hx_memory_range whole = m->regions[i];
	move_tail(m, i + 1, i);
	m->regions[i] = part(&whole, whole.base.v, at);
	m->regions[i + 1] = part(&whole, at, end_of(&whole));
}

/* Join every two regions that touch and are equal. */
static void join(struct hx_memmap *m)
{
	unsigned out = 0;
	for (unsigned i = 0; i < m->count; i++) {
		struct hx_memory_range *last = &m->regions[out - (out > 0)];
		if (out > 0 && end_of(last) == m->regions[i].base.v &&
		    equal(last, &m->regions[i])) {
			last->bytes += m->regions[i].bytes;
		} else {
			m->regions[out++] = m->regions[i];
		}
	}
	m->count = out;
}

hx_status hx_memmap_reserve(struct hx_memmap *m, struct hx_pa base, uint64_t bytes,
			    enum hx_memory_type type)
{
	uint64_t from = hx_align_down(base.v, HX_FRAME_BYTES), to;
	if (!known(type) || type == HX_MEMORY_RAM) {
		return HX_INVALID_ARGUMENT;
	}
	if (bytes == 0 || __builtin_add_overflow(base.v, bytes, &to) ||
	    !hx_align_up(to, HX_FRAME_BYTES, &to)) {
		return HX_INVALID_SIZE;
	}
	struct window w = overlapped(m, from, to);
	uint64_t covered = from;
	for (unsigned i = w.from; i < w.behind; i++) {
		if (m->regions[i].type != HX_MEMORY_RAM || m->regions[i].base.v > covered) {
			return HX_ALREADY_MAPPED;
		}
		covered = end_of(&m->regions[i]);
	}
	if (covered < to) {
		return HX_ALREADY_MAPPED;
	}
	bool cut_left = m->regions[w.from].base.v < from;
	bool cut_right = covered > to;
	if (m->count + (unsigned)cut_left + (unsigned)cut_right > HX_MEMMAP_REGIONS_MAX) {
		return HX_OUT_OF_MEMORY;
	}
	if (cut_right) {
		cut(m, w.behind - 1, to);
	}
	if (cut_left) {
		cut(m, w.from, from);
		w.from++;
		w.behind++;
	}
	for (unsigned i = w.from; i < w.behind; i++) {
		m->regions[i].type = type;
	}
	join(m);
	return HX_OK;
}

struct hx_pa_result hx_memmap_take(struct hx_memmap *m, uint64_t bytes, uint64_t align,
				   struct hx_pa limit)
{
	if (align < HX_FRAME_BYTES || (align & (align - 1)) != 0) {
		return (struct hx_pa_result){HX_INVALID_ALIGNMENT, hx_pa(0)};
	}
	if (bytes == 0 || !hx_align_up(bytes, HX_FRAME_BYTES, &bytes)) {
		return (struct hx_pa_result){HX_INVALID_SIZE, hx_pa(0)};
	}
	for (unsigned i = m->count; i-- > 0;) {
		const struct hx_memory_range *r = &m->regions[i];
		uint64_t end = end_of(r) < limit.v ? end_of(r) : limit.v;
		if (r->type != HX_MEMORY_RAM || end < bytes) {
			continue;
		}
		uint64_t base = hx_align_down(end - bytes, align);
		if (base >= r->base.v) {
			hx_status s = hx_memmap_reserve(m, hx_pa(base), bytes, HX_MEMORY_KERNEL);
			return (struct hx_pa_result){s, hx_pa(s == HX_OK ? base : 0)};
		}
	}
	return (struct hx_pa_result){HX_OUT_OF_MEMORY, hx_pa(0)};
}

const struct hx_memory_range *hx_memmap_find(const struct hx_memmap *m, struct hx_pa a)
{
	unsigned low = 0, high = m->count; /* the answer's index is in [low, high) */
	while (low < high) {
		unsigned middle = low + (high - low) / 2;
		const struct hx_memory_range *r = &m->regions[middle];
		if (a.v < r->base.v) {
			high = middle;
		} else if (a.v >= end_of(r)) {
			low = middle + 1;
		} else {
			return r;
		}
	}
	return NULL;
}

uint64_t hx_memmap_total(const struct hx_memmap *m, enum hx_memory_type type)
{
	uint64_t sum = 0; /* regions are disjoint: the sum is at most TOP */
	for (unsigned i = 0; i < m->count; i++) {
		sum += m->regions[i].type == type ? m->regions[i].bytes : 0;
	}
	return sum;
}

struct hx_pa hx_memmap_ram_end(const struct hx_memmap *m)
{
	for (unsigned i = m->count; i-- > 0;) {
		enum hx_memory_type type = m->regions[i].type;
		if (type == HX_MEMORY_RAM || type == HX_MEMORY_KERNEL ||
		    type == HX_MEMORY_INITRD) {
			return hx_pa(end_of(&m->regions[i]));
		}
	}
	return hx_pa(0);
}

hx_status hx_memmap_validate(const struct hx_memmap *m)
{
	if (m->count > HX_MEMMAP_REGIONS_MAX) {
		return HX_CORRUPTED;
	}
	uint64_t end = 0; /* of the regions so far */
	for (unsigned i = 0; i < m->count; i++) {
		const struct hx_memory_range *r = &m->regions[i];
		if (!known(r->type) || !hx_is_aligned(r->base.v, HX_FRAME_BYTES) ||
		    !hx_is_aligned(r->bytes, HX_FRAME_BYTES) || r->bytes == 0 || r->base.v < end ||
		    r->base.v >= TOP || r->bytes > TOP - r->base.v) {
			return HX_CORRUPTED;
		}
		if (i > 0 && r->base.v == end && equal(r, r - 1)) {
			return HX_CORRUPTED;
		}
		end = end_of(r);
	}
	return HX_OK;
}

const char *hx_memory_type_name(enum hx_memory_type type)
{
	static const char *const names[HX_MEMORY_TYPES] = {
		[HX_MEMORY_RAM] = "RAM",       [HX_MEMORY_ROM] = "ROM",
		[HX_MEMORY_DEVICE] = "device", [HX_MEMORY_RESERVED] = "reserved",
		[HX_MEMORY_ACPI] = "ACPI",     [HX_MEMORY_FIRMWARE] = "firmware",
		[HX_MEMORY_BAD] = "bad",       [HX_MEMORY_KERNEL] = "kernel",
		[HX_MEMORY_INITRD] = "initrd", [HX_MEMORY_FRAMEBUFFER] = "framebuffer",
	};
	return known(type) ? names[type] : "?";
}
