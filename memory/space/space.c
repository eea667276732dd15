/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Address spaces: life, the current one of each CPU, questions, the validator.
 * What changes regions stands in map.c, what fills them in fault.c.
 *
 * Invariants, which hx_space_validate() checks:
 *   - the tree is in order (tree.c), its regions are whole pages between
 *     HX_SPACE_LOW_BYTES and hx_space_top(), at most region_limit of them;
 *   - it is canonical: regions that touch differ in rights or flags, so what a
 *     program did and undid leaves no trace;
 *   - every leaf of the user half is a 4 KiB page inside a region and has
 *     exactly the rights of that region, its frame is tagged ANONYMOUS;
 *   - the counters are what counting gives.
 */
#include "space_private.h"

enum { REGION_LIMIT = 65530 }; /* unless the owner says otherwise; as Linux */

/* ---- Shared by the files of this folder ---- */

hx_status hx_space_allowed(struct hx_space *s, struct hx_token token, uint32_t rights)
{
	return s->capabilities ? hx_capability_check(s->capabilities, token, s, rights) : HX_OK;
}

uint64_t hx_space_leaf_flags(unsigned prot)
{
	if (prot == HX_PROT_NONE) {
		return 0; /* hidden: neither user mode nor the kernel reaches it */
	}
	return HX_PAGE_USER_READ | (prot & HX_PROT_WRITE ? HX_PAGE_WRITABLE : 0) |
	       (prot & HX_PROT_EXEC ? 0 : HX_PAGE_NO_EXECUTE);
}

void hx_space_return_frame(struct hx_space *s, struct hx_pfn frame)
{
	/* The bump allocator takes nothing back: there the frame is lost. */
	hx_status freed = hx_frames_free(s->frames, frame, 0);
	HX_ASSERT(freed == HX_OK || freed == HX_NOT_SUPPORTED);
}

void hx_space_free_frame(struct hx_space *s, struct hx_pfn frame)
{
	bool last = true;
	if (s->db) {
		HX_ASSERT(hx_framedb_put(s->db, frame, &last) == HX_OK);
		if (last) {
			HX_ASSERT(hx_framedb_set(s->db, frame, 1, HX_TAG_FREE, NULL) == HX_OK);
		}
	}
	if (last) {
		hx_space_return_frame(s, frame);
	}
}

/* The mapper calls this for pages after no CPU can use them any more. */
static void pages_released(void *space, const struct hx_released *batch)
{
	struct hx_space *s = space;
	for (unsigned i = 0; i < batch->count; i++) {
		if (batch->leaves[i] != 0) {
			s->stats.resident_pages--;
			hx_space_free_frame(s, hx_pa_to_pfn(hx_leaf_pa(batch->leaves[i])));
		}
	}
}

hx_status hx_space_drop_pages(struct hx_space *s, uintptr_t start, uintptr_t end)
{
	return hx_unmap_sparse(&s->table, hx_va(start), end - start, pages_released, s);
}

/* ---- Life ---- */

/* Where the heap segment starts unless told: 4 GiB, or a quarter of a small half. */
static uintptr_t default_brk_start(void)
{
	uintptr_t quarter = hx_user_end() / 4;
	return quarter < HX_GIB(4) ? quarter : (uintptr_t)HX_GIB(4);
}

hx_status hx_space_init(struct hx_space *s, const struct hx_space_config *c)
{
	if (!s || !c || !c->frames || !c->heap || !c->kernel) {
		return HX_INVALID_ARGUMENT;
	}
	uintptr_t brk_start = c->brk_start.v != 0 ? c->brk_start.v : default_brk_start();
	if (!hx_is_aligned(brk_start, HX_FRAME_BYTES)) {
		return HX_INVALID_ALIGNMENT;
	}
	if (brk_start < HX_SPACE_LOW_BYTES || brk_start > hx_space_top()) {
		return HX_INVALID_ADDRESS;
	}
	const struct hx_pagetable_config table = {
		.frames = c->frames, .db = c->db, .wx = c->wx, .kernel = c->kernel};
	*s = (struct hx_space){
		.frames = c->frames,
		.db = c->db,
		.heap = c->heap,
		.capabilities = c->capabilities,
		.region_limit = c->region_limit != 0 ? c->region_limit : REGION_LIMIT,
		.brk_start = brk_start,
		.brk = brk_start,
		.lock = HX_LOCK_INIT,
	};
	hx_status status = hx_pagetable_init(&s->table, &table);
	if (status != HX_OK) {
		s->frames = NULL; /* not initialised */
	}
	return status;
}

/* Free everything that the space holds. Under the lock; nobody runs it. */
static void release_all(struct hx_space *s)
{
	if (s->tree) {
		HX_ASSERT(hx_space_drop_pages(s, HX_SPACE_LOW_BYTES, hx_space_top()) == HX_OK);
	}
	HX_ASSERT(s->stats.resident_pages == 0);
	HX_ASSERT(hx_pagetable_destroy(&s->table) == HX_OK);
	while (s->tree) {
		struct hx_region *r = s->tree;
		hx_tree_remove(&s->tree, r);
		HX_ASSERT(hx_heap_free(s->heap, r) == HX_OK);
	}
	if (s->capabilities) {
		hx_capability_forget(s->capabilities, s);
	}
	s->frames = NULL;
	s->stats = (struct hx_space_stats){0};
}

hx_status hx_space_destroy(struct hx_space *s)
{
	if (!s || !s->frames) {
		return HX_NOT_INITIALIZED;
	}
	hx_status status = HX_BUSY;
	unsigned long irq = hx_lock_acquire(&s->lock);
	if (!hx_pagetable_is_loaded(&s->table)) {
		release_all(s);
		status = HX_OK;
	}
	hx_lock_release(&s->lock, irq);
	return status;
}

/* ---- The space that each CPU runs ---- */

static struct hx_space *current[HX_CPUS_MAX];

struct hx_space *hx_space_current(void)
{
	return __atomic_load_n(&current[hx_hal_cpu_id()], __ATOMIC_RELAXED);
}

void hx_space_load(struct hx_space *s, struct hx_pagetable *kernel)
{
	unsigned long irq = hx_hal_irq_save(); /* no fault handler in between, no migration */
	struct hx_space *old = hx_space_current();
	struct hx_pagetable *from = old ? &old->table : kernel;
	struct hx_pagetable *to = s ? &s->table : kernel;
	if (to && to != from) {
		hx_pagetable_load(to, from);
	}
	__atomic_store_n(&current[hx_hal_cpu_id()], s, __ATOMIC_RELAXED);
	hx_hal_irq_restore(irq);
}

/* ---- Questions ---- */

struct hx_region_info hx_space_lookup(struct hx_space *s, struct hx_token token, struct hx_va va)
{
	struct hx_region_info info = {.status = HX_NOT_INITIALIZED};
	if (!s || !s->frames) {
		return info;
	}
	unsigned long irq = hx_lock_acquire(&s->lock);
	info.status = hx_space_allowed(s, token, HX_RIGHT_QUERY);
	if (info.status == HX_OK) {
		const struct hx_region *r = hx_tree_at(s->tree, va.v);
		info.status = HX_NOT_MAPPED;
		if (r) {
			info = (struct hx_region_info){
				.status = HX_OK,
				.start = hx_va(r->start),
				.bytes = r->end - r->start,
				.prot = r->prot,
				.flags = r->flags,
			};
		}
	}
	hx_lock_release(&s->lock, irq);
	return info;
}

void hx_space_stats(struct hx_space *s, struct hx_space_stats *out)
{
	unsigned long irq = hx_lock_acquire(&s->lock);
	*out = s->stats;
	out->faults = __atomic_load_n(&s->stats.faults, __ATOMIC_RELAXED);
	out->faults_refused = __atomic_load_n(&s->stats.faults_refused, __ATOMIC_RELAXED);
	hx_lock_release(&s->lock, irq);
}

/* ---- Validation ---- */

static bool region_is_sound(const struct hx_space *s, const struct hx_region *r)
{
	const unsigned wx = HX_PROT_WRITE | HX_PROT_EXEC;
	return hx_is_aligned(r->start | r->end, HX_FRAME_BYTES) && r->end <= hx_space_top() &&
	       (r->prot & ~HX_PROT_ALL) == 0 && (r->flags & ~HX_REGION_HEAP) == 0 &&
	       ((r->prot & wx) != wx || s->table.wx == HX_WX_OFF);
}

static bool regions_are_sound(struct hx_space *s)
{
	uint64_t count, bytes = 0;
	if (hx_tree_validate(s->tree, &count) != HX_OK || count != s->stats.regions ||
	    count > s->region_limit) {
		return false;
	}
	const struct hx_region *previous = NULL;
	for (struct hx_region *r = hx_tree_first(s->tree); r; r = hx_tree_next(r)) {
		bool joinable = previous && previous->end == r->start &&
				previous->prot == r->prot && previous->flags == r->flags;
		if (!region_is_sound(s, r) || joinable) {
			return false;
		}
		bytes += r->end - r->start;
		previous = r;
	}
	return bytes == s->stats.mapped_bytes;
}

struct census {
	struct hx_space *space;
	uint64_t pages;
	bool sound;
};

static bool visit_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	struct census *c = context;
	if (va.v >= hx_user_end()) {
		return false; /* the kernel's half comes last */
	}
	const uint64_t rights = HX_PAGE_PRESENT | HX_PAGE_USER | HX_PAGE_WRITABLE |
				HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL;
	const struct hx_region *r = hx_tree_at(c->space->tree, va.v);
	c->pages++;
	c->sound = r && bytes == HX_FRAME_BYTES &&
		   (flags & rights) == hx_space_leaf_flags(r->prot) &&
		   (!c->space->db ||
		    hx_framedb_tag(c->space->db, hx_pa_to_pfn(pa)) == HX_TAG_ANONYMOUS);
	return c->sound;
}

static bool pages_are_sound(struct hx_space *s)
{
	struct census c = {.space = s, .sound = true};
	if (hx_pagetable_validate(&s->table) != HX_OK) {
		return false;
	}
	hx_pagetable_visit(&s->table, visit_leaf, &c);
	return c.sound && c.pages == s->stats.resident_pages;
}

hx_status hx_space_validate(struct hx_space *s)
{
	if (!s || !s->frames) {
		return HX_NOT_INITIALIZED;
	}
	unsigned long irq = hx_lock_acquire(&s->lock);
	bool sound = s->brk_start <= s->brk && s->brk <= hx_space_top() && regions_are_sound(s) &&
		     pages_are_sound(s);
	hx_lock_release(&s->lock, irq);
	return sound ? HX_OK : HX_CORRUPTED;
}
