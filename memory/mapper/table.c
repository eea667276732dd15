/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Page tables as objects: their frames, their life, and the checks of arguments
 * that all operations share.
 *
 * A user table begins as a copy of the kernel half of a sealed kernel table's
 * root. Sealing fixes these entries for good, so the copies never go out of date
 * and what changes below them is seen by all. This is why the tables that hang
 * off a kernel table's root are never freed while it lives.
 */
#include "internal.h"

enum {
	PFN_BITS_MAX = 44,                   /* room for a frame number in a soft entry */
	TABLE_BITS_MAX = HX_FRAME_SHIFT - 3, /* a table is one frame of 8-byte entries */
};

uintptr_t hx_user_end(void)
{
	return (uintptr_t)1 << (hx_hal_geometry.va_bits - 1);
}

uintptr_t hx_kernel_start(void)
{
	return (uintptr_t)0 - hx_user_end();
}

/* ---- Arguments ---- */

hx_status hx_mapper_check_range(const struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				uintptr_t *last)
{
	if (!t || !t->frames) {
		return HX_NOT_INITIALIZED;
	}
	uint64_t page = hx_level_bytes(0);
	if (!hx_is_aligned(va.v, page) || !hx_is_aligned(bytes, page)) {
		return HX_INVALID_ALIGNMENT;
	}
	if (bytes == 0) {
		return HX_INVALID_SIZE;
	}
	uintptr_t end;
	if (bytes - 1 > UINTPTR_MAX || __builtin_add_overflow(va.v, (uintptr_t)(bytes - 1), &end)) {
		return HX_INVALID_ADDRESS;
	}
	if (!hx_is_inside(t, va.v, end)) {
		return HX_INVALID_ADDRESS;
	}
	*last = end;
	return HX_OK;
}

static void set_rules(struct hx_pagetable *t)
{
	const struct hx_geometry *g = &hx_hal_geometry;
	t->rules.first = t->kernel ? hx_kernel_start() : 0;
	t->rules.bytes_less_1 = hx_user_end() - 1;
	t->rules.no_address = ~((UINT64_C(1) << g->pa_bits) - HX_FRAME_BYTES);
	/* Absence may be cached, and kernel code cannot take the fault. */
	t->rules.told = t->kernel && hx_feature(HX_MMU_NEGATIVE_CACHING);
	t->rules.table_shift = (uint8_t)hx_level_shift(1);
	t->rules.looked_at = ~(HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_WRITE_THROUGH |
			       HX_PAGE_NO_CACHE | HX_PAGE_ACCESSED | HX_PAGE_DIRTY | HX_PAGE_HUGE |
			       HX_PAGE_NO_EXECUTE | (t->kernel ? HX_PAGE_GLOBAL : 0));
	/* A machine that does not set the marks faults on a page that lacks them. */
	bool preset = !hx_feature(HX_MMU_HARDWARE_AD);
	/* Where there are identifiers, other entries would be cached for each of them. */
	bool global = t->kernel && g->asid_bits > 0;
	t->rules.always = (preset ? HX_PAGE_ACCESSED : 0) | (global ? HX_PAGE_GLOBAL : 0);
	t->rules.when_writable =
		(preset ? HX_PAGE_DIRTY : 0) | (t->wx == HX_WX_FORCE ? HX_PAGE_NO_EXECUTE : 0);
}

/* ---- Table frames ---- */

/* The bump allocator takes nothing back: there the frame is lost, as its profile says. */
static void give_back(struct hx_frames *frames, struct hx_pfn frame)
{
	hx_status s = hx_frames_free(frames, frame, HX_ORDER_4K);
	HX_ASSERT(s == HX_OK || s == HX_NOT_SUPPORTED);
}

struct hx_pfn_result hx_table_allocate(struct hx_frames *frames, struct hx_framedb *db,
				       struct hx_pagetable *owner)
{
	/* No pressure event: its handlers must not run under the table's lock. */
	struct hx_pfn_result r = hx_frames_allocate(
		frames, HX_ORDER_4K, HX_ALLOC_NO_PRESSURE | HX_ALLOC_RESERVE | HX_FRAMES_PINNED);
	if (r.status == HX_OK && db) {
		r.status = hx_framedb_set(db, r.value, 1, HX_TAG_TABLE, owner);
		if (r.status != HX_OK) {
			give_back(frames, r.value);
		}
	}
	return r;
}

void hx_table_free(struct hx_frames *frames, struct hx_framedb *db, struct hx_pa table)
{
	struct hx_pfn frame = hx_pa_to_pfn(table);
	if (db) {
		hx_status s = hx_framedb_set(db, frame, 1, HX_TAG_FREE, NULL);
		HX_ASSERT(s == HX_OK); /* its section exists since it was tagged */
	}
	give_back(frames, frame);
}

bool hx_table_is_empty(const hx_pte *table, unsigned first, unsigned end)
{
	for (; first + 4 <= end; first += 4) {
		struct hx_four f = hx_four_load(&table[first]);
		if ((f.a | f.b | f.c | f.d) != 0) {
			return false;
		}
	}
	for (; first < end; first++) {
		if (hx_hal_pte_load(&table[first]) != 0) {
			return false;
		}
	}
	return true;
}

/* ---- Life ---- */

/* What the walker takes for granted about a machine. */
static bool geometry_is_walkable(const struct hx_geometry *g)
{
	if (g->levels < 2 || g->levels > HX_LEVELS_MAX || g->page_shift != HX_FRAME_SHIFT ||
	    g->pa_bits > HX_FRAME_SHIFT + PFN_BITS_MAX || g->group_bits > g->bits[0] ||
	    (g->group_bits > 0 && (g->features & HX_MMU_BREAK_BEFORE_MAKE) != 0)) {
		return false;
	}
	unsigned va_bits = g->page_shift;
	for (unsigned l = 0; l < g->levels; l++) {
		va_bits += g->bits[l];
		if (g->bits[l] == 0 || g->bits[l] > TABLE_BITS_MAX) {
			return false;
		}
	}
	/* Leaves at level 0, and at each level up to the highest that has them. */
	unsigned leaves = g->leaf_levels;
	return va_bits == g->va_bits && va_bits <= 8 * sizeof(uintptr_t) && (leaves & 1) &&
	       (leaves & (leaves + 1)) == 0 && leaves < 1u << g->levels;
}

uint8_t hx_level_shifts[HX_LEVELS_MAX];

/* The same each time, unless a test has changed the machine: nobody reads it meanwhile. */
static void note_level_shifts(const struct hx_geometry *g)
{
	uint8_t shift = g->page_shift;
	for (unsigned l = 0; l < g->levels; shift += g->bits[l++]) {
		if (hx_level_shift(l) != shift) {
			__atomic_store_n(&hx_level_shifts[l], shift, __ATOMIC_RELAXED);
		}
	}
}

hx_status hx_pagetable_init(struct hx_pagetable *t, const struct hx_pagetable_config *c)
{
	if (!t || !c || !c->frames || (unsigned)c->wx > HX_WX_OFF ||
	    (c->kernel && !c->kernel->kernel)) {
		return HX_INVALID_ARGUMENT;
	}
	if (c->kernel && (!c->kernel->frames || !c->kernel->sealed)) {
		return HX_NOT_INITIALIZED;
	}
	if (!geometry_is_walkable(&hx_hal_geometry)) {
		return HX_NOT_SUPPORTED;
	}
	note_level_shifts(&hx_hal_geometry);
	struct hx_pfn_result root = hx_table_allocate(c->frames, c->db, t);
	if (root.status != HX_OK) {
		return root.status;
	}
	*t = (struct hx_pagetable){
		.root = hx_pfn_to_pa(root.value),
		.frames = c->frames,
		.db = c->db,
		.wx = c->wx,
		.kernel = !c->kernel,
		.huge = c->huge,
		.shared = c->kernel,
		.stripes[0] = {.tables = 1, .table_sum = (uint32_t)root.value.v},
	};
	set_rules(t);
	unsigned entries = hx_level_entries(hx_root_level());
	hx_pte *to = hx_table_at(t->root);
	const hx_pte *from = c->kernel ? hx_table_at(c->kernel->root) : NULL;
	for (unsigned i = 0; i < entries; i++) {
		to[i] = from && i >= entries / 2 ? hx_hal_pte_load(&from[i]) : 0;
	}
	return HX_OK;
}

/* Free the tables below entries [first, end) of a table. */
static void free_below(struct hx_cursor *c, const hx_pte *table, unsigned level, unsigned first,
		       unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		hx_pte e = hx_hal_pte_load(&table[i]);
		if (hx_hal_pte_kind(e, level) != HX_PTE_TABLE) {
			continue;
		}
		if (level > 1) {
			free_below(c, hx_child_of(e, level), level - 1, 0,
				   hx_level_entries(level - 1));
		}
		hx_cursor_free_table(c, hx_hal_pte_pa(e, level));
	}
}

hx_status hx_pagetable_destroy(struct hx_pagetable *t)
{
	if (!t || !t->frames) {
		return HX_NOT_INITIALIZED;
	}
	struct hx_cursor c;
	hx_cursor_open(&c, t, 0, UINTPTR_MAX);
	bool busy = hx_pagetable_is_loaded(t);
	if (!busy) {
		/*
		 * Nobody to flush: every CPU that had it loaded has forgotten it since, or
		 * has it under an identifier that none will load before that (asid.c).
		 */
		unsigned entries = hx_level_entries(hx_root_level());
		free_below(&c, hx_table_at(t->root), hx_root_level(), t->kernel ? entries / 2 : 0,
			   t->kernel ? entries : entries / 2);
		for (unsigned i = 0; i < HX_STRIPES; i++) {
			while (t->stripes[i].kept.v != 0) {
				uintptr_t va = (uintptr_t)i << hx_level_shift(1);
				hx_cursor_free_table(&c, hx_cursor_take_kept(&c, va));
			}
		}
		hx_cursor_free_table(&c, t->root);
		t->frames = NULL; /* NOT_INITIALIZED from here on */
	}
	hx_cursor_close(&c);
	return busy ? HX_BUSY : HX_OK;
}

/* ---- Counters ---- */

struct hx_mapper_counters hx_pagetable_counters(const struct hx_pagetable *t)
{
	struct hx_mapper_counters sum = {0};
	uint32_t tables = 0;
	for (unsigned i = 0; t && i < HX_STRIPES; i++) {
		const struct hx_stripe *s = &t->stripes[i];
		tables += __atomic_load_n(&s->tables, __ATOMIC_RELAXED); /* one may be "negative" */
		sum.splits += __atomic_load_n(&s->splits, __ATOMIC_RELAXED);
		sum.locks += __atomic_load_n(&s->locks, __ATOMIC_RELAXED);
		sum.local_flushes += __atomic_load_n(&s->local_flushes, __ATOMIC_RELAXED);
		sum.broadcasts += __atomic_load_n(&s->broadcasts, __ATOMIC_RELAXED);
		sum.ipis += __atomic_load_n(&s->ipis, __ATOMIC_RELAXED);
	}
	sum.tables = tables;
	return sum;
}

/* ---- The kernel half ---- */

/* Count the EMPTY root entries of the range, or fill them with tables in hand. */
static uint64_t visit_missing_roots(struct hx_pagetable *t, uintptr_t va, uintptr_t last,
				    struct hx_reserve *fill)
{
	unsigned root_level = hx_root_level();
	hx_pte *root = hx_table_at(t->root);
	uint64_t missing = 0;
	for (unsigned i = hx_level_index(va, root_level); i <= hx_level_index(last, root_level);
	     i++) {
		if (hx_hal_pte_kind(hx_hal_pte_load(&root[i]), root_level) != HX_PTE_EMPTY) {
			continue;
		}
		missing++;
		if (fill) {
			struct hx_pa table = hx_reserve_take(fill);
			hx_memset(hx_ptr(table), 0,
				  hx_level_entries(root_level - 1) * sizeof(hx_pte));
			hx_hal_pte_store(&root[i], hx_hal_pte_table(table));
		}
	}
	return missing;
}

hx_status hx_pagetable_prepare(struct hx_pagetable *t, struct hx_va va, uint64_t bytes)
{
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	if (s != HX_OK) {
		return s;
	}
	if (!t->kernel) {
		return HX_INVALID_ARGUMENT;
	}
	struct hx_cursor c;
	hx_cursor_open(&c, t, 0, UINTPTR_MAX);
	uint64_t missing = visit_missing_roots(t, va.v, last, NULL);
	s = missing > 0 && t->sealed ? HX_NOT_SUPPORTED : hx_cursor_reserve(&c, missing);
	if (s == HX_OK && missing > 0) {
		/* Nothing is mapped by it yet: there is nothing to flush or to publish. */
		(void)visit_missing_roots(t, va.v, last, &c.reserve);
	}
	hx_cursor_close(&c);
	return s;
}

hx_status hx_pagetable_direct(struct hx_pagetable *t, uint64_t bytes)
{
	if (!t || !t->frames) {
		return HX_NOT_INITIALIZED;
	}
	if (!t->kernel) {
		return HX_INVALID_ARGUMENT;
	}
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, hx_va(hx_kernel_start()), bytes, &last);
	if (s != HX_OK) {
		return s;
	}
	struct hx_cursor c;
	hx_cursor_open(&c, t, 0, UINTPTR_MAX);
	bool empty = hx_table_is_empty(hx_table_at(t->root), 0, hx_level_entries(hx_root_level()));
	if (empty) {
		t->direct_last = last;
	}
	hx_cursor_close(&c);
	return empty ? HX_OK : HX_INVALID_ARGUMENT;
}

void hx_pagetable_seal(struct hx_pagetable *t)
{
	if (!t || !t->frames) {
		return;
	}
	struct hx_cursor c;
	hx_cursor_open(&c, t, 0, UINTPTR_MAX);
	t->sealed = t->kernel;
	hx_cursor_close(&c);
}

/* ---- Flushing by request ---- */

hx_status hx_flush(struct hx_pagetable *t, struct hx_va va, uint64_t bytes)
{
	uintptr_t last;
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	if (s == HX_OK) {
		struct hx_gather g = {.pieces = {{va.v, last, 0}}, .count = 1};
		hx_gather_flush(t, &t->stripes[hx_stripe_index(va.v)], &g);
	}
	return s;
}

void hx_flush_all(struct hx_pagetable *t)
{
	if (t && t->frames) {
		hx_flush_table(t);
	}
}
