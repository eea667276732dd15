/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Address spaces. The oracle is a flat array of pages: what is mapped, with
 * which rights, and what the page holds. The spaces get a small memory of their
 * own, cut out of the machine's, so that every frame and every region record can
 * be counted, and any allocation made to fail.
 *
 * "The CPU" here is touch(): it looks at the page table as an MMU would and calls
 * hx_space_fault() where one would. Real MMUs are the conformance suite's, and
 * TLBs that of test_space_threads.c.
 */
#include <hx/recovery.h>
#include <hx/space.h>

#include "hx_test.h"
#include "inject.h"
#include "machine.h"

#define PAGE HX_FRAME_BYTES
#define RW (HX_PROT_READ | HX_PROT_WRITE)
#define RX (HX_PROT_READ | HX_PROT_EXEC)
#define ANON (HX_MAP_ANONYMOUS | HX_MAP_PRIVATE)
#define BASE ((uintptr_t)HX_MIB(256)) /* of the window in which the model knows all */

/* ---- The spaces' own memory ---- */

enum { RIG_ORDER = 10, RIG_FRAMES = 1 << RIG_ORDER, ARENA_BYTES = 640 << 10 };

static _Alignas(64) uint8_t metadata[16384];
static _Alignas(16) uint8_t arena[ARENA_BYTES];
static struct hx_frames frames;
static struct hx_heap heap;
static struct hx_pfn rig_first;
static struct hx_space space;
static struct hx_space_config config;

/* Region records that fail: the n-th allocation from now, 0: none. */
static struct hx_heap_trait record_trait;
static uint64_t records_seen, records_fail_at;

static struct hx_ptr_result allocate_record(struct hx_heap_backend *b, size_t bytes, size_t align,
					    size_t *usable)
{
	if (++records_seen == records_fail_at) {
		return (struct hx_ptr_result){HX_OUT_OF_MEMORY, NULL};
	}
	return hx_heap_simple.allocate(b, bytes, align, usable);
}

static void rig_begin(void)
{
	const struct hx_test_machine *m = hx_test_machine();
	struct hx_pfn_result r = hx_frames_allocate(m->frames, RIG_ORDER, 0);
	HX_REQUIRE_STATUS(r.status, HX_OK);
	rig_first = r.value;
	/* Its database sections exist from here on: describing a frame cannot fail. */
	HX_REQUIRE_STATUS(hx_framedb_set(m->db, rig_first, RIG_FRAMES, HX_TAG_FREE, NULL), HX_OK);
	frames = (struct hx_frames){.zone_count = 0};
	HX_REQUIRE_STATUS(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, &hx_frames_bitmap,
					     rig_first, RIG_FRAMES, metadata, sizeof metadata),
			  HX_OK);
	hx_heap_init(&heap);
	const struct hx_heap_config records = {
		.trait = &hx_heap_simple, .arena = arena, .arena_bytes = sizeof arena};
	HX_REQUIRE_STATUS(hx_heap_use(&heap, &records), HX_OK);
	record_trait = hx_heap_simple;
	record_trait.allocate = allocate_record;
	heap.backends[0].trait = &record_trait;
	records_fail_at = 0;
	config = (struct hx_space_config){
		.frames = &frames, .db = m->db, .heap = &heap, .kernel = m->kernel_table};
}

static uint64_t live_records(void)
{
	struct hx_heap_stats s;
	hx_heap_stats(&heap, &s);
	return s.live_objects;
}

/* Everything came back. */
static void rig_end(void)
{
	const struct hx_test_machine *m = hx_test_machine();
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), RIG_FRAMES);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	HX_CHECK_EQUAL(live_records(), 0);
	HX_CHECK_STATUS(hx_heap_validate(&heap), HX_OK);
	for (unsigned i = 0; i < RIG_FRAMES; i++) {
		HX_CHECK_EQUAL(hx_framedb_tag(m->db, hx_pfn(rig_first.v + i)), HX_TAG_FREE);
	}
	HX_CHECK_STATUS(hx_frames_free(m->frames, rig_first, RIG_ORDER), HX_OK);
}

static void space_begin(void)
{
	HX_REQUIRE_STATUS(hx_space_init(&space, &config), HX_OK);
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
}

static void space_end(void)
{
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_OK);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), RIG_FRAMES);
	HX_CHECK_EQUAL(live_records(), 0);
}

/* ---- Shorthand ---- */

static uintptr_t top(void)
{
	return hx_user_end() - (uintptr_t)PAGE;
}

static uintptr_t page_at(uint64_t i)
{
	return BASE + (uintptr_t)(i * PAGE);
}

static struct hx_va_result map(uintptr_t at, uint64_t bytes, unsigned prot, unsigned flags)
{
	return hx_mmap(&space, HX_TOKEN_NONE, hx_va(at), bytes, prot, flags | ANON, NULL, 0);
}

static void must_map(uintptr_t at, uint64_t pages, unsigned prot)
{
	struct hx_va_result r = map(at, pages * PAGE, prot, HX_MAP_FIXED);
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_EQUAL(r.value.v, at);
}

static hx_status unmap(uintptr_t at, uint64_t bytes)
{
	return hx_munmap(&space, HX_TOKEN_NONE, hx_va(at), bytes);
}

static hx_status protect(uintptr_t at, uint64_t bytes, unsigned prot)
{
	return hx_mprotect(&space, HX_TOKEN_NONE, hx_va(at), bytes, prot);
}

static struct hx_va_result move_break(uintptr_t to)
{
	return hx_brk(&space, HX_TOKEN_NONE, hx_va(to));
}

static struct hx_region_info lookup(uintptr_t va)
{
	return hx_space_lookup(&space, HX_TOKEN_NONE, hx_va(va));
}

static struct hx_fault fault_at(uintptr_t va, enum hx_access access, bool user)
{
	return (struct hx_fault){
		.va = hx_va(va), .access = access, .user = user, .user_access = !user};
}

static struct hx_space_stats stats(void)
{
	struct hx_space_stats s;
	hx_space_stats(&space, &s);
	return s;
}

static bool leaf_permits(const struct hx_translation *t, enum hx_access access)
{
	return t->status == HX_OK && (t->flags & HX_PAGE_USER) != 0 &&
	       (access != HX_ACCESS_WRITE || (t->flags & HX_PAGE_WRITABLE) != 0) &&
	       (access != HX_ACCESS_EXECUTE || (t->flags & HX_PAGE_NO_EXECUTE) == 0);
}

/* An access of user mode to the word at @va. @return HX_OK or why the fault was not resolved */
static hx_status touch(uintptr_t va, enum hx_access access, uint64_t *word)
{
	for (unsigned tries = 0; tries < 2; tries++) {
		struct hx_translation t = hx_translate(&space.table, hx_va(va));
		if (leaf_permits(&t, access)) {
			uint64_t *p = hx_ptr(t.pa);
			if (access == HX_ACCESS_WRITE) {
				*p = *word;
			} else {
				*word = *p;
			}
			return HX_OK;
		}
		struct hx_fault f = fault_at(va, access, true);
		hx_status status = hx_space_fault(&space, &f);
		if (status != HX_OK) {
			return status;
		}
	}
	hx_test_fail(__FILE__, __LINE__, "a resolved fault comes again");
	return HX_CORRUPTED;
}

static hx_status store(uintptr_t va, uint64_t value)
{
	return touch(va, HX_ACCESS_WRITE, &value);
}

/* The word at @va; 0xdead... when it cannot be read. */
static uint64_t load(uintptr_t va)
{
	uint64_t value = 0;
	hx_status status = touch(va, HX_ACCESS_READ, &value);
	return status == HX_OK ? value : UINT64_C(0xdead000000000000) + status;
}

/* ---- The model ---- */

enum { PAGES_MAX = 96 };

/* Where in page @i the word stands that the model knows. */
static uintptr_t word_at(unsigned i)
{
	return i * 40 % (uintptr_t)PAGE;
}

struct page {
	bool mapped, present;
	uint8_t prot, flags;
	uint64_t word;
};

struct model {
	struct page pages[PAGES_MAX];
	uint64_t brk; /* bytes behind BASE */
};

/* What does not change while the model is at work. */
static unsigned window_pages; /* [BASE, BASE + so many) */
static unsigned break_page;   /* where the heap segment starts */
static unsigned limit;        /* on regions */
static struct model model, trial;

static const struct page guard = {.mapped = true}; /* what lies around the window */

static bool alike(const struct page *a, const struct page *b)
{
	return a->mapped == b->mapped &&
	       (!a->mapped || (a->prot == b->prot && a->flags == b->flags));
}

/* Regions of the whole space: runs of equal pages, the two guards included. */
static unsigned count_regions(const struct model *m)
{
	unsigned n = 1;
	const struct page *before = &guard;
	for (unsigned i = 0; i <= window_pages; i++) {
		const struct page *p = i < window_pages ? &m->pages[i] : &guard;
		n += p->mapped && !alike(p, before);
		before = p;
	}
	return n;
}

static bool any_mapped(unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		if (i >= window_pages || model.pages[i].mapped) {
			return true;
		}
	}
	return false;
}

static bool all_mapped(unsigned first, unsigned end)
{
	for (unsigned i = first; i < end; i++) {
		if (!model.pages[i].mapped) {
			return false;
		}
	}
	return true;
}

static void fill(unsigned first, unsigned end, struct page p)
{
	for (unsigned i = first; i < end; i++) {
		trial.pages[i] = p;
	}
}

static struct page fresh(unsigned prot, unsigned flags)
{
	return (struct page){.mapped = true, .prot = (uint8_t)prot, .flags = (uint8_t)flags};
}

/* ---- Operations, on the model and on the space ---- */

enum kind { MMAP, MUNMAP, MPROTECT, BRK, WRITE, READ, FETCH };

struct op {
	enum kind kind;
	unsigned first, count; /* pages of the window; BRK: bytes behind BASE in count */
	unsigned prot, flags;
	uint64_t word;
};

struct outcome {
	hx_status status;
	uint64_t value; /* address behind BASE, break, word */
};

static hx_status refuse_wx(unsigned *prot)
{
	if ((*prot & HX_PROT_WRITE) && (*prot & HX_PROT_EXEC)) {
		if (config.wx == HX_WX_REFUSE) {
			return HX_PERMISSION_DENIED;
		}
		if (config.wx == HX_WX_FORCE) {
			*prot &= ~HX_PROT_EXEC;
		}
	}
	return HX_OK;
}

static struct outcome expect_mmap(const struct op *op)
{
	unsigned prot = op->prot, first = op->first;
	hx_status status = refuse_wx(&prot);
	if (status != HX_OK) {
		return (struct outcome){status, 0};
	}
	if (op->flags & HX_MAP_FIXED_NOREPLACE) {
		if (any_mapped(first, first + op->count)) {
			return (struct outcome){HX_ALREADY_MAPPED, 0};
		}
	} else if (!(op->flags & HX_MAP_FIXED) &&
		   (op->first >= window_pages || any_mapped(first, first + op->count))) {
		/* No hint, or it is taken: the highest place, from the top. */
		for (first = window_pages - op->count;; first--) {
			if (op->count <= window_pages && !any_mapped(first, first + op->count)) {
				break;
			}
			if (first == 0 || op->count > window_pages) {
				return (struct outcome){HX_OUT_OF_MEMORY, 0};
			}
		}
	}
	fill(first, first + op->count, fresh(prot, 0));
	return (struct outcome){HX_OK, first * PAGE};
}

static struct outcome expect_mprotect(const struct op *op)
{
	unsigned prot = op->prot;
	hx_status status = refuse_wx(&prot);
	if (status == HX_OK && !all_mapped(op->first, op->first + op->count)) {
		status = HX_NOT_MAPPED;
	}
	for (unsigned i = op->first; status == HX_OK && i < op->first + op->count; i++) {
		trial.pages[i].prot = (uint8_t)prot;
	}
	return (struct outcome){status, 0};
}

static struct outcome expect_brk(const struct op *op)
{
	uint64_t to = op->count;
	unsigned old = (unsigned)((model.brk + PAGE - 1) / PAGE);
	unsigned new = (unsigned)((to + PAGE - 1) / PAGE);
	struct outcome refused = {HX_OUT_OF_MEMORY, model.brk};
	if (to < break_page * PAGE) {
		return (struct outcome){HX_OK, model.brk};
	}
	if (new > old) {
		if (any_mapped(old, new + 1)) {
			return refused;
		}
		fill(old, new, fresh(RW, HX_REGION_HEAP));
	} else if (new < old) {
		if (!any_mapped(new, old)) {
			refused.status = HX_NOT_MAPPED;
			return refused;
		}
		fill(new, old, (struct page){.mapped = false});
	}
	trial.brk = to;
	return (struct outcome){HX_OK, to};
}

static struct outcome expect_access(const struct op *op)
{
	struct page *p = &trial.pages[op->first];
	bool may = op->kind == WRITE   ? (p->prot & HX_PROT_WRITE) != 0
		   : op->kind == FETCH ? (p->prot & HX_PROT_EXEC) != 0
				       : p->prot != HX_PROT_NONE;
	if (!p->mapped) {
		return (struct outcome){HX_NOT_MAPPED, 0};
	}
	if (!may) {
		return (struct outcome){HX_PERMISSION_DENIED, 0};
	}
	p->present = true;
	if (op->kind == WRITE) {
		p->word = op->word;
	}
	return (struct outcome){HX_OK, p->word};
}

/* What must come of @op; the model afterwards is left in trial. */
static struct outcome expect(const struct op *op)
{
	struct outcome o = {HX_OK, 0};
	trial = model;
	switch (op->kind) {
	case MMAP:
		o = expect_mmap(op);
		break;
	case MUNMAP:
		fill(op->first, op->first + op->count, (struct page){.mapped = false});
		break;
	case MPROTECT:
		o = expect_mprotect(op);
		break;
	case BRK:
		o = expect_brk(op);
		break;
	case WRITE:
	case READ:
	case FETCH:
		o = expect_access(op);
		break;
	}
	unsigned before = count_regions(&model), after = count_regions(&trial);
	if (o.status == HX_OK && after > limit && after > before) {
		o = (struct outcome){HX_OUT_OF_MEMORY, op->kind == BRK ? model.brk : 0};
	}
	if (o.status != HX_OK) {
		trial = model;
	}
	return o;
}

static struct outcome perform(const struct op *op)
{
	static const enum hx_access access[] = {
		[WRITE] = HX_ACCESS_WRITE, [READ] = HX_ACCESS_READ, [FETCH] = HX_ACCESS_EXECUTE};
	uintptr_t at = page_at(op->first);
	uint64_t bytes = op->count * PAGE, word = op->word;
	struct outcome o = {HX_OK, 0};
	struct hx_va_result r;
	switch (op->kind) {
	case MMAP:
		bytes -= op->word % PAGE; /* lengths need not be whole pages */
		if (!(op->flags & (HX_MAP_FIXED | HX_MAP_FIXED_NOREPLACE))) {
			at = op->first >= window_pages ? 0 : at + op->word % PAGE; /* nor hints */
		}
		r = map(at, bytes, op->prot, op->flags);
		o = (struct outcome){r.status, r.status == HX_OK ? r.value.v - BASE : r.value.v};
		break;
	case MUNMAP:
		o.status = unmap(at, bytes - op->word % PAGE);
		break;
	case MPROTECT:
		o.status = protect(at, bytes - op->word % PAGE, op->prot);
		break;
	case BRK:
		r = move_break(BASE + op->count);
		o = (struct outcome){r.status, r.value.v - BASE};
		break;
	case WRITE:
	case READ:
	case FETCH:
		o.status = touch(at + word_at(op->first), access[op->kind], &word);
		o.value = o.status == HX_OK ? word : 0;
		break;
	}
	return o;
}

/* Compare the whole space with the model. */
static void compare(void)
{
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	uint64_t present = 0;
	for (unsigned i = 0; i < window_pages; i++) {
		const struct page *p = &model.pages[i];
		struct hx_region_info info = lookup(page_at(i) + i);
		HX_CHECK_STATUS(info.status, p->mapped ? HX_OK : HX_NOT_MAPPED);
		if (p->mapped) {
			HX_CHECK_EQUAL(info.prot, p->prot);
			HX_CHECK_EQUAL(info.flags, p->flags);
		}
		present += p->present;
		if (p->present && p->prot != HX_PROT_NONE) {
			struct hx_translation t = hx_translate(&space.table, hx_va(page_at(i)));
			HX_REQUIRE_STATUS(t.status, HX_OK);
			HX_CHECK_EQUAL(*(uint64_t *)hx_ptr(hx_pa(t.pa.v + word_at(i))), p->word);
		}
	}
	struct hx_space_stats s = stats();
	HX_CHECK_EQUAL(s.regions, count_regions(&model));
	HX_CHECK_EQUAL(s.resident_pages, present);
	HX_CHECK_EQUAL(space.brk, BASE + model.brk);
}

static void check_outcome(const struct op *op, struct outcome got, struct outcome expected)
{
	if (got.status != expected.status || got.value != expected.value) {
		hx_test_fail(__FILE__, __LINE__,
			     "op %d at %u + %u prot %u flags 0x%x: %s 0x%llx, not %s 0x%llx",
			     (int)op->kind, op->first, op->count, op->prot, op->flags,
			     hx_status_name(got.status), (unsigned long long)got.value,
			     hx_status_name(expected.status), (unsigned long long)expected.value);
	}
}

static void step(const struct op *op)
{
	struct outcome expected = expect(op);
	check_outcome(op, perform(op), expected);
	model = trial;
}

/* A space in which only the window is free. */
static void window_begin(unsigned pages, unsigned brk_at, unsigned region_limit)
{
	window_pages = pages;
	break_page = brk_at;
	limit = region_limit;
	config.brk_start = hx_va(page_at(brk_at));
	config.region_limit = region_limit;
	space_begin();
	HX_BAIL();
	must_map(HX_SPACE_LOW_BYTES, (BASE - HX_SPACE_LOW_BYTES) / PAGE, HX_PROT_NONE);
	must_map(page_at(pages), (top() - page_at(pages)) / PAGE, HX_PROT_NONE);
	model = (struct model){.brk = brk_at * PAGE};
	compare();
}

static struct op random_op(struct hx_random *r)
{
	static const enum kind kinds[] = {MMAP,     MMAP, MMAP,  MUNMAP, MUNMAP, MPROTECT, MPROTECT,
					  MPROTECT, BRK,  WRITE, WRITE,  WRITE,  READ,     FETCH};
	static const unsigned placements[] = {0,
					      0,
					      HX_MAP_FIXED,
					      HX_MAP_FIXED,
					      HX_MAP_FIXED_NOREPLACE,
					      HX_MAP_FIXED_NOREPLACE | HX_MAP_FIXED};
	struct op op = {
		.kind = kinds[hx_random_below(r, HX_ARRAY_LENGTH(kinds))],
		.first = (unsigned)hx_random_below(r, window_pages),
		.prot = (unsigned)hx_random_below(r, 8),
		.word = hx_random(r),
	};
	unsigned longest = hx_random_below(r, 8) == 0 ? window_pages : 12;
	unsigned room = window_pages - op.first < longest ? window_pages - op.first : longest;
	op.count = 1 + (unsigned)hx_random_below(r, room);
	if (op.kind == MMAP) {
		op.flags = placements[hx_random_below(r, HX_ARRAY_LENGTH(placements))];
		if (op.flags == 0 && hx_random_below(r, 2)) {
			op.first = window_pages; /* no hint */
		}
	} else if (op.kind == BRK) {
		uint64_t low = (break_page - 1) * PAGE;
		op.count = (unsigned)(low + hx_random_below(r, (window_pages + 2) * PAGE - low));
		if (hx_random_below(r, 3) == 0) { /* whole pages, near the break */
			op.count =
				(unsigned)(model.brk / PAGE * PAGE + hx_random_below(r, 4) * PAGE);
		}
	}
	return op;
}

static void random_operations(unsigned seed, enum hx_wx_policy wx, unsigned region_limit,
			      unsigned steps)
{
	struct hx_random r = {seed};
	config.wx = wx;
	window_begin(PAGES_MAX, 64, region_limit);
	for (unsigned i = 0; i < steps; i++) {
		HX_BAIL();
		struct op op = random_op(&r);
		step(&op);
		compare();
	}
	space_end();
}

HX_TEST(random_operations_match_the_model)
{
	rig_begin();
	HX_BAIL();
	random_operations(1, HX_WX_FORCE, 1000, 2000);
	random_operations(2, HX_WX_REFUSE, 1000, 1000);
	random_operations(3, HX_WX_OFF, 1000, 1000);
	random_operations(4, HX_WX_FORCE, 6, 1500);
	config.db = NULL;
	random_operations(5, HX_WX_FORCE, 12, 1000);
	rig_end();
}

/* ---- Bounded-exhaustive sequences ---- */

/* Six pages, the heap segment starts at the fifth. */
static const struct op alphabet[] = {
	{MMAP, 0, 4, RW, HX_MAP_FIXED, 0},
	{MMAP, 1, 2, RW, HX_MAP_FIXED, 0},
	{MMAP, 1, 1, HX_PROT_READ, HX_MAP_FIXED, 0},
	{MMAP, 0, 2, HX_PROT_NONE, HX_MAP_FIXED, 0},
	{MMAP, 6, 1, RW, 0, 0},
	{MMAP, 2, 2, RX, HX_MAP_FIXED_NOREPLACE, 0},
	{MUNMAP, 0, 4, 0, 0, 0},
	{MUNMAP, 1, 1, 0, 0, 0},
	{MUNMAP, 2, 3, 0, 0, 0},
	{MPROTECT, 0, 4, HX_PROT_READ, 0, 0},
	{MPROTECT, 1, 2, RW, 0, 0},
	{MPROTECT, 1, 1, HX_PROT_NONE, 0, 0},
	{MPROTECT, 3, 2, HX_PROT_READ, 0, 0},
	{BRK, 0, 5 * 4096 - 7, 0, 0, 0},
	{BRK, 0, 4 * 4096, 0, 0, 0},
	{WRITE, 1, 1, 0, 0, 0x1111},
	{WRITE, 3, 1, 0, 0, 0x3333},
	{WRITE, 4, 1, 0, 0, 0x4444},
};

/* Everything that can be told of a space and of the memory under it. */
struct snapshot {
	struct {
		uintptr_t start, bytes;
		uint64_t prot, flags;
	} region[PAGES_MAX + 3]; /* of each page in the window, and beside it */
	struct {
		uint64_t pa, flags, word;
	} page[PAGES_MAX];
	uintptr_t brk;
	struct hx_space_stats stats;
	uint64_t free_frames, tables, records;
};

static void take_snapshot(struct snapshot *s)
{
	hx_memset(s, 0, sizeof *s);
	for (unsigned i = 0; i < window_pages + 3; i++) {
		uintptr_t va = i < window_pages + 1    ? page_at(i)
			       : i == window_pages + 1 ? (uintptr_t)HX_SPACE_LOW_BYTES
						       : space.brk_start;
		struct hx_region_info info = lookup(va);
		if (info.status == HX_OK) {
			s->region[i].start = info.start.v;
			s->region[i].bytes = (uintptr_t)info.bytes;
			s->region[i].prot = info.prot;
			s->region[i].flags = info.flags;
		}
	}
	for (unsigned i = 0; i < window_pages; i++) {
		struct hx_translation t = hx_translate(&space.table, hx_va(page_at(i)));
		if (t.status == HX_OK) {
			s->page[i].pa = t.pa.v;
			s->page[i].flags = t.flags;
			s->page[i].word = *(uint64_t *)hx_ptr(hx_pa(t.pa.v + word_at(i)));
		}
	}
	s->brk = space.brk;
	s->stats = stats();
	s->stats.faults_refused = 0; /* counting refusals is no change */
	s->free_frames = hx_frames_free_frames(&frames);
	s->tables = hx_pagetable_counters(&space.table).tables;
	s->records = live_records();
}

static bool same_state(const struct snapshot *before)
{
	static struct snapshot now;
	take_snapshot(&now);
	return hx_memcmp(before, &now, sizeof now) == 0;
}

/* Perform @op with its @n-th allocation of one kind failing. @return did it make so many? */
static bool fails_cleanly(const struct op *op, bool record, uint64_t n, struct outcome expected)
{
	static struct snapshot before;
	take_snapshot(&before);
	records_seen = 0;
	records_fail_at = record ? n : 0;
	hx_inject_begin(&frames, record ? 0 : n, false);
	struct outcome got = perform(op);
	uint64_t frames_seen = hx_inject_end();
	records_fail_at = 0;
	if ((record ? records_seen : frames_seen) < n) {
		check_outcome(op, got, expected);
		return false;
	}
	HX_CHECK_STATUS(got.status, HX_OUT_OF_MEMORY);
	HX_CHECK(same_state(&before));
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	return true;
}

static void sequence(const struct op *a, const struct op *b, const struct op *c, bool record,
		     uint64_t *failed)
{
	window_begin(6, 4, 1000);
	HX_BAIL();
	step(a);
	step(b);
	struct outcome expected = expect(c);
	for (uint64_t n = 1; fails_cleanly(c, record, n, expected); n++) {
		HX_BAIL();
		++*failed;
	}
	model = trial;
	compare();
	space_end();
}

HX_TEST(every_short_sequence_with_every_allocation_failing)
{
	rig_begin();
	HX_BAIL();
	config.wx = HX_WX_FORCE;
	const unsigned n = HX_ARRAY_LENGTH(alphabet);
	uint64_t failed_records = 0, failed_frames = 0;
	for (unsigned i = 0; i < n * n * n; i++) {
		const struct op *a = &alphabet[i / (n * n)], *b = &alphabet[i / n % n],
				*c = &alphabet[i % n];
		sequence(a, b, c, true, &failed_records);
		sequence(a, b, c, false, &failed_frames);
		HX_BAIL();
	}
	hx_log("%u sequences, %llu failed record and %llu failed frame allocations", n * n * n,
	       (unsigned long long)failed_records, (unsigned long long)failed_frames);
	HX_CHECK(failed_records > n * n && failed_frames > n * n);
	rig_end();
}

/* ---- Arguments ---- */

struct refused_map {
	uintptr_t hint;
	uint64_t bytes;
	unsigned prot, flags;
	bool object;
	uint64_t offset;
	hx_status status;
};

HX_TEST(hostile_mmap_arguments)
{
	rig_begin();
	HX_BAIL();
	window_begin(8, 4, 100);
	HX_BAIL();
	must_map(page_at(1), 2, RW);
	HX_CHECK_STATUS(store(page_at(1), 7), HX_OK);
	const unsigned fixed = ANON | HX_MAP_FIXED, exact = ANON | HX_MAP_FIXED_NOREPLACE;
	const uintptr_t end = hx_user_end(), page = (uintptr_t)PAGE;
	const uintptr_t low = (uintptr_t)HX_SPACE_LOW_BYTES;
	const struct refused_map calls[] = {
		/* sizes */
		{0, 0, RW, ANON, false, 0, HX_INVALID_SIZE},
		{0, UINT64_MAX, RW, ANON, false, 0, HX_INVALID_SIZE},
		{0, UINT64_MAX - PAGE + 1, RW, ANON, false, 0, HX_INVALID_SIZE},
		{0, UINT64_C(1) << 63, RW, ANON, false, 0, HX_INVALID_SIZE},
		{0, end, RW, ANON, false, 0, HX_INVALID_SIZE},
		{0, top() - low + 1, RW, ANON, false, 0, HX_INVALID_SIZE},
		{0, top() - low, RW, ANON, false, 0, HX_OUT_OF_MEMORY},
		{0, 9 * PAGE, RW, ANON, false, 0, HX_OUT_OF_MEMORY},
		{low, UINT64_MAX, RW, fixed, false, 0, HX_INVALID_SIZE},
		/* flags and rights */
		{0, PAGE, RW, 0, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, RW, HX_MAP_ANONYMOUS, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, RW, HX_MAP_PRIVATE, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, RW, ANON | HX_MAP_SHARED, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, RW, ANON | 0x4000, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, RW, ANON | 0x80000000, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, 8, ANON, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, UINT32_MAX, ANON, false, 0, HX_INVALID_ARGUMENT},
		{0, PAGE, RW, HX_MAP_ANONYMOUS | HX_MAP_SHARED, false, 0, HX_NOT_SUPPORTED},
		{0, PAGE, RW, HX_MAP_PRIVATE, true, 0, HX_NOT_SUPPORTED},
		{0, PAGE, RW, ANON, true, 0, HX_NOT_SUPPORTED},
		/* alignment */
		{0, PAGE, RW, ANON, false, 1, HX_INVALID_ALIGNMENT},
		{0, PAGE, RW, ANON, false, UINT64_MAX, HX_INVALID_ALIGNMENT},
		{page_at(3) + 1, PAGE, RW, fixed, false, 0, HX_INVALID_ALIGNMENT},
		{page_at(3) + 2048, PAGE, RW, exact, false, 0, HX_INVALID_ALIGNMENT},
		{UINTPTR_MAX, PAGE, RW, fixed, false, 0, HX_INVALID_ALIGNMENT},
		/* places */
		{0, PAGE, RW, fixed, false, 0, HX_INVALID_ADDRESS},
		{low - page, PAGE, RW, fixed, false, 0, HX_INVALID_ADDRESS},
		{low - page, 2 * PAGE, RW, exact, false, 0, HX_INVALID_ADDRESS},
		{top(), PAGE, RW, fixed, false, 0, HX_INVALID_ADDRESS},
		{top() - page, 2 * PAGE, RW, exact, false, 0, HX_INVALID_ADDRESS},
		{end, PAGE, RW, fixed, false, 0, HX_INVALID_ADDRESS},
		{hx_kernel_start(), PAGE, RW, fixed, false, 0, HX_INVALID_ADDRESS},
		{UINTPTR_MAX - page + 1, PAGE, RW, fixed, false, 0, HX_INVALID_ADDRESS},
		{UINTPTR_MAX - page + 1, 2 * PAGE, RW, exact, false, 0, HX_INVALID_ADDRESS},
		/* what is there */
		{page_at(2), PAGE, RW, exact, false, 0, HX_ALREADY_MAPPED},
		{page_at(0), 2 * PAGE, RW, exact, false, 0, HX_ALREADY_MAPPED},
		{page_at(2), 3 * PAGE, RW, exact | HX_MAP_FIXED, false, 0, HX_ALREADY_MAPPED},
	};
	static struct snapshot before;
	take_snapshot(&before);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(calls); i++) {
		const struct refused_map *c = &calls[i];
		struct hx_va_result r =
			hx_mmap(&space, HX_TOKEN_NONE, hx_va(c->hint), c->bytes, c->prot, c->flags,
				c->object ? &space : NULL, c->offset);
		if (r.status != c->status) {
			hx_test_fail(__FILE__, __LINE__, "call %u: %s, not %s", i,
				     hx_status_name(r.status), hx_status_name(c->status));
		}
		HX_CHECK_EQUAL(r.value.v, 0);
		HX_CHECK(same_state(&before));
	}
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	space_end();
	rig_end();
}

HX_TEST(hostile_ranges)
{
	rig_begin();
	HX_BAIL();
	window_begin(8, 4, 100);
	HX_BAIL();
	must_map(page_at(1), 2, RW);
	HX_CHECK_STATUS(store(page_at(1), 7), HX_OK);
	const uintptr_t end = hx_user_end(), page = (uintptr_t)PAGE;
	const struct {
		uintptr_t va;
		uint64_t bytes;
		hx_status unmap, protect;
	} calls[] = {
		{page_at(1) + 1, PAGE, HX_INVALID_ALIGNMENT, HX_INVALID_ALIGNMENT},
		{page_at(1) + 1, 0, HX_INVALID_ALIGNMENT, HX_INVALID_ALIGNMENT},
		{page_at(1), 0, HX_INVALID_SIZE, HX_OK},
		{page_at(5), 0, HX_INVALID_SIZE, HX_OK},
		{end, 0, HX_INVALID_SIZE, HX_OK},
		{page_at(1), UINT64_MAX, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{page_at(1), UINT64_MAX - PAGE + 1, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{page_at(1), UINT64_C(1) << 63, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{page_at(1), end, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{page_at(1), (uint64_t)0 - page_at(1), HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{end, PAGE, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{end - page, 2 * PAGE, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{hx_kernel_start(), PAGE, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{UINTPTR_MAX - page + 1, PAGE, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		{UINTPTR_MAX - page + 1, 2 * PAGE, HX_INVALID_ADDRESS, HX_INVALID_ADDRESS},
		/* holes: fine for munmap, nothing changed by mprotect */
		{end - page, PAGE, HX_OK, HX_NOT_MAPPED},
		{0, PAGE, HX_OK, HX_NOT_MAPPED},
		{0, HX_SPACE_LOW_BYTES, HX_OK, HX_NOT_MAPPED},
		{page_at(4), 2 * PAGE, HX_OK, HX_NOT_MAPPED},
	};
	static struct snapshot before;
	take_snapshot(&before);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(calls); i++) {
		HX_CHECK_STATUS(unmap(calls[i].va, calls[i].bytes), calls[i].unmap);
		HX_CHECK_STATUS(protect(calls[i].va, calls[i].bytes, HX_PROT_READ),
				calls[i].protect);
		HX_CHECK(same_state(&before));
		HX_BAIL();
	}
	/* A hole before, in and behind the mapped part. */
	HX_CHECK_STATUS(protect(page_at(0), 3 * PAGE, HX_PROT_READ), HX_NOT_MAPPED);
	HX_CHECK_STATUS(protect(page_at(1), 3 * PAGE, HX_PROT_READ), HX_NOT_MAPPED);
	HX_CHECK_STATUS(protect(page_at(1), PAGE, 8), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(protect(page_at(1), 0, 8), HX_OK);
	HX_CHECK_STATUS(protect(page_at(1), UINT64_MAX, 8), HX_INVALID_ADDRESS); /* first */
	HX_CHECK(same_state(&before));
	static const uint64_t breaks[] = {UINT64_MAX, UINT64_MAX - 4095, UINT64_C(1) << 63};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(breaks); i++) {
		struct hx_va_result r = move_break((uintptr_t)breaks[i]);
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		HX_CHECK_EQUAL(r.value.v, page_at(4));
	}
	HX_CHECK_STATUS(move_break(end).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(move_break(end - 1).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(lookup(UINTPTR_MAX).status, HX_NOT_MAPPED);
	HX_CHECK_STATUS(lookup(0).status, HX_NOT_MAPPED);
	HX_CHECK_STATUS(lookup(top()).status, HX_NOT_MAPPED);
	HX_CHECK(same_state(&before));
	space_end();
	rig_end();
}

HX_TEST(init_and_destroy_check_what_they_get)
{
	rig_begin();
	HX_BAIL();
	static const struct hx_space never;
	space = never;
	HX_CHECK_STATUS(map(0, PAGE, RW, 0).status, HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(unmap(BASE, PAGE), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(protect(BASE, PAGE, RW), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(move_break(BASE).status, HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(lookup(BASE).status, HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_space_validate(&space), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_space_destroy(NULL), HX_NOT_INITIALIZED);
	struct hx_fault f = fault_at(BASE, HX_ACCESS_READ, true);
	HX_CHECK_STATUS(hx_space_fault(&space, &f), HX_NOT_INITIALIZED);

	struct hx_space_config bad = config;
	HX_CHECK_STATUS(hx_space_init(NULL, &config), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_space_init(&space, NULL), HX_INVALID_ARGUMENT);
	bad.frames = NULL;
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ARGUMENT);
	bad = config;
	bad.heap = NULL;
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ARGUMENT);
	bad = config;
	bad.kernel = NULL;
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ARGUMENT);
	struct hx_pagetable unsealed = {.kernel = true};
	bad.kernel = &unsealed;
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_NOT_INITIALIZED);
	bad = config;
	bad.brk_start = hx_va(BASE + 1);
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ALIGNMENT);
	bad.brk_start = hx_va((uintptr_t)PAGE);
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ADDRESS);
	bad.brk_start = hx_va(hx_user_end());
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ADDRESS);
	bad.brk_start = hx_va(hx_kernel_start());
	HX_CHECK_STATUS(hx_space_init(&space, &bad), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_NOT_INITIALIZED);

	hx_inject_begin(&frames, 1, false);
	HX_CHECK_STATUS(hx_space_init(&space, &config), HX_OUT_OF_MEMORY);
	(void)hx_inject_end();
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_NOT_INITIALIZED);

	config.brk_start = hx_va(0);
	config.region_limit = 0;
	space_begin();
	uintptr_t quarter = hx_user_end() / 4;
	HX_CHECK_EQUAL(space.brk_start, quarter < HX_GIB(4) ? quarter : HX_GIB(4));
	HX_CHECK_EQUAL(space.region_limit, 65530);
	HX_CHECK_STATUS(hx_space_fault(&space, NULL), HX_INVALID_ARGUMENT);
	space_end();
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_NOT_INITIALIZED);
	rig_end();
}

/* ---- Places ---- */

HX_TEST(mmap_places_from_the_top_down)
{
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	const uintptr_t page = (uintptr_t)PAGE;
	/* An empty space: right below the last page. */
	HX_CHECK_EQUAL(map(0, 3 * PAGE, RW, 0).value.v, top() - 3 * page);
	HX_CHECK_EQUAL(map(0, 1, HX_PROT_READ, 0).value.v, top() - 4 * page);
	/* A hint is rounded down; one that is too low is raised; 0 rounded is none. */
	HX_CHECK_EQUAL(map(BASE + 5, PAGE, RW, 0).value.v, BASE);
	HX_CHECK_EQUAL(map(page, PAGE, RW, 0).value.v, HX_SPACE_LOW_BYTES);
	HX_CHECK_EQUAL(map(5, PAGE, RW, 0).value.v, top() - 5 * page);
	/* Taken, even in part: elsewhere. */
	HX_CHECK_EQUAL(map(BASE - page, 2 * PAGE, RW, 0).value.v, top() - 7 * page);
	/* Beyond what can be mapped: elsewhere. */
	HX_CHECK_EQUAL(map(top(), PAGE, RW, 0).value.v, top() - 8 * page);
	HX_CHECK_EQUAL(map(UINTPTR_MAX, PAGE, RW, 0).value.v, top() - 9 * page);
	HX_CHECK_EQUAL(map(hx_kernel_start(), PAGE, RW, 0).value.v, top() - 10 * page);
	/* The first and the last page that can be mapped. */
	HX_CHECK_STATUS(map(top() - page, PAGE, RW, HX_MAP_FIXED_NOREPLACE).status,
			HX_ALREADY_MAPPED);
	HX_CHECK_STATUS(unmap(top() - page, PAGE), HX_OK);
	HX_CHECK_STATUS(map(top() - page, PAGE, RW, HX_MAP_FIXED_NOREPLACE).status, HX_OK);
	HX_CHECK_STATUS(store(top() - 8, 1), HX_OK);
	HX_CHECK_STATUS(store(HX_SPACE_LOW_BYTES, 1), HX_OK);
	HX_CHECK_STATUS(store(top(), 1), HX_NOT_MAPPED);
	HX_CHECK_STATUS(store(HX_SPACE_LOW_BYTES - 8, 1), HX_NOT_MAPPED);
	/* The highest hole that is large enough, not the nearest or the best. */
	HX_CHECK_STATUS(unmap(0, hx_user_end()), HX_OK);
	HX_CHECK_EQUAL(stats().regions, 0);
	HX_CHECK_EQUAL(stats().resident_pages, 0);
	must_map(top() - 20 * page, 20, RW);
	HX_CHECK_STATUS(unmap(top() - 3 * page, 2 * PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(top() - 8 * page, 3 * PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(top() - 15 * page, 5 * PAGE), HX_OK);
	HX_CHECK_EQUAL(map(0, 4 * PAGE, RW, 0).value.v, top() - 14 * page);
	HX_CHECK_EQUAL(map(0, 3 * PAGE, RW, 0).value.v, top() - 8 * page);
	HX_CHECK_EQUAL(map(0, 1 * PAGE, RW, 0).value.v, top() - 2 * page);
	HX_CHECK_EQUAL(map(0, 1 * PAGE, RW, 0).value.v, top() - 3 * page);
	HX_CHECK_EQUAL(map(0, 2 * PAGE, RW, 0).value.v, top() - 22 * page);
	HX_CHECK_EQUAL(map(0, 1 * PAGE, RW, 0).value.v, top() - 15 * page);
	HX_CHECK_EQUAL(stats().regions, 1); /* all filled again, all joined */
	/* All of it at once. */
	HX_CHECK_STATUS(unmap(0, hx_user_end()), HX_OK);
	HX_CHECK_EQUAL(map(0, top() - HX_SPACE_LOW_BYTES, RW, 0).value.v, HX_SPACE_LOW_BYTES);
	HX_CHECK_STATUS(map(0, 1, RW, 0).status, HX_OUT_OF_MEMORY);
	space_end();
	rig_end();
}

HX_TEST(the_region_limit_holds)
{
	rig_begin();
	HX_BAIL();
	config.region_limit = 4;
	config.brk_start = hx_va(page_at(100));
	space_begin();
	HX_BAIL();
	must_map(page_at(0), 3, RW);
	must_map(page_at(10), 3, RW);
	must_map(page_at(20), 3, RW);
	must_map(page_at(30), 3, RW);
	static struct snapshot before;
	window_pages = 40;
	take_snapshot(&before);
	HX_CHECK_STATUS(map(page_at(35), PAGE, RW, 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(map(page_at(1), PAGE, HX_PROT_READ, HX_MAP_FIXED).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(unmap(page_at(1), PAGE), HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(protect(page_at(0), PAGE, HX_PROT_READ), HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(move_break(page_at(101)).status, HX_OUT_OF_MEMORY);
	HX_CHECK(same_state(&before));
	/* What needs no region more goes on. */
	HX_CHECK_STATUS(map(page_at(3), PAGE, RW, HX_MAP_FIXED).status, HX_OK);
	HX_CHECK_STATUS(map(page_at(10), 3 * PAGE, HX_PROT_READ, HX_MAP_FIXED).status, HX_OK);
	HX_CHECK_STATUS(protect(page_at(20), 3 * PAGE, HX_PROT_READ), HX_OK);
	HX_CHECK_STATUS(unmap(page_at(0), PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(page_at(30), 3 * PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(page_at(11), PAGE), HX_OK);
	HX_CHECK_EQUAL(stats().regions, 4);
	space_end();
	config.region_limit = 0;
	rig_end();
}

/* Thousands of regions, in random order; then holes; the tree stays flat. */
HX_TEST(thousands_of_regions)
{
	/* The leanest AVL tree of n nodes is 1.4405 log2(n + 2) - 0.3277 deep. */
	enum { REGIONS = 3000, DEPTH_MAX = 16 };
	static uint16_t order[REGIONS];
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	struct hx_random r = {11};
	for (unsigned i = 0; i < REGIONS; i++) {
		unsigned k = (unsigned)hx_random_below(&r, i + 1);
		order[i] = order[k];
		order[k] = (uint16_t)i;
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		unsigned at = order[i];
		must_map(page_at(at), 1, at % 2 ? RW : HX_PROT_READ);
		if (i % 64 == 0) {
			HX_REQUIRE_STATUS(hx_space_validate(&space), HX_OK);
		}
	}
	HX_CHECK_EQUAL(stats().regions, REGIONS);
	HX_CHECK(space.tree->height <= DEPTH_MAX);
	for (unsigned i = 0; i < REGIONS; i += 2) {
		HX_CHECK_STATUS(unmap(page_at(order[i]), PAGE), HX_OK);
		if (i % 128 == 0) {
			HX_REQUIRE_STATUS(hx_space_validate(&space), HX_OK);
		}
	}
	HX_CHECK_EQUAL(stats().regions, REGIONS / 2);
	/* One call over all of them. */
	HX_CHECK_STATUS(map(page_at(0), REGIONS * PAGE, RW, HX_MAP_FIXED).status, HX_OK);
	HX_CHECK_EQUAL(stats().regions, 1);
	HX_CHECK_EQUAL(live_records(), 1);
	/* In ascending order, the worst one for a tree that does not balance. */
	for (unsigned i = 0; i < REGIONS; i += 2) {
		HX_CHECK_STATUS(protect(page_at(i), PAGE, HX_PROT_NONE), HX_OK);
	}
	HX_CHECK_EQUAL(stats().regions, REGIONS);
	HX_CHECK(space.tree->height <= DEPTH_MAX);
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	HX_CHECK_STATUS(protect(page_at(0), REGIONS * PAGE, RW), HX_OK);
	HX_CHECK_EQUAL(stats().regions, 1);
	HX_CHECK_EQUAL(live_records(), 1);
	space_end();
	rig_end();
}

/* ---- Faults ---- */

HX_TEST(the_fault_matrix)
{
	rig_begin();
	HX_BAIL();
	config.wx = HX_WX_OFF; /* so that all eight rights exist */
	space_begin();
	HX_BAIL();
	static const enum hx_access accesses[] = {HX_ACCESS_READ, HX_ACCESS_WRITE,
						  HX_ACCESS_EXECUTE};
	for (unsigned prot = 0; prot < 8; prot++) {
		for (unsigned a = 0; a < 3; a++) {
			for (unsigned user = 0; user < 2; user++) {
				for (unsigned resident = 0; resident < 2; resident++) {
					must_map(BASE, 1, RW);
					if (resident) {
						HX_CHECK_STATUS(store(BASE, 5), HX_OK);
					}
					HX_CHECK_STATUS(protect(BASE, PAGE, prot), HX_OK);
					bool may = a == 0   ? prot != 0
						   : a == 1 ? (prot & HX_PROT_WRITE) != 0
							    : user && (prot & HX_PROT_EXEC) != 0;
					struct hx_fault f = fault_at(BASE + 8, accesses[a], user);
					struct hx_space_stats before = stats();
					HX_CHECK_STATUS(hx_space_fault(&space, &f),
							may ? HX_OK : HX_PERMISSION_DENIED);
					struct hx_space_stats after = stats();
					HX_CHECK_EQUAL(after.faults, before.faults + may);
					HX_CHECK_EQUAL(after.faults_refused,
						       before.faults_refused + !may);
					HX_CHECK_EQUAL(after.resident_pages, resident || may);
					HX_CHECK_STATUS(protect(BASE, PAGE, HX_PROT_READ), HX_OK);
					HX_CHECK_EQUAL(load(BASE), resident ? 5 : 0);
					HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
					HX_CHECK_STATUS(unmap(BASE, PAGE), HX_OK);
					f = fault_at(BASE + 8, accesses[a], user);
					HX_CHECK_STATUS(hx_space_fault(&space, &f), HX_NOT_MAPPED);
				}
			}
		}
	}
	const uintptr_t outside[] = {hx_user_end(), hx_kernel_start(), UINTPTR_MAX};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(outside); i++) {
		struct hx_fault f = fault_at(outside[i], HX_ACCESS_READ, true);
		HX_CHECK_STATUS(hx_space_fault(&space, &f), HX_INVALID_ADDRESS);
	}
	space_end();
	rig_end();
}

/* A kernel access that did not ask for user memory is refused wherever it goes. */
HX_TEST(stray_kernel_accesses_are_refused)
{
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	must_map(BASE, 2, RW);
	HX_CHECK_STATUS(store(BASE, 5), HX_OK);
	for (unsigned i = 0; i < 2; i++) {
		struct hx_fault f = fault_at(page_at(i), HX_ACCESS_READ, false);
		f.user_access = false;
		HX_CHECK_STATUS(hx_space_fault(&space, &f), HX_PERMISSION_DENIED);
		HX_CHECK_EQUAL(stats().resident_pages, 1);
	}
	space_end();
	rig_end();
}

/* Rights that are taken are gone for user mode and for the kernel's user access. */
HX_TEST(prot_none_keeps_contents_and_hides_them)
{
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	must_map(BASE, 4, RW);
	for (unsigned i = 0; i < 4; i++) {
		HX_CHECK_STATUS(store(page_at(i), 100 + i), HX_OK);
	}
	uint64_t free_frames = hx_frames_free_frames(&frames);
	HX_CHECK_STATUS(protect(page_at(1), 2 * PAGE, HX_PROT_NONE), HX_OK);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), free_frames);
	for (unsigned i = 1; i < 3; i++) {
		struct hx_translation t = hx_translate(&space.table, hx_va(page_at(i)));
		HX_CHECK_STATUS(t.status, HX_NOT_MAPPED);
		HX_CHECK_EQUAL(load(page_at(i)),
			       UINT64_C(0xdead000000000000) + HX_PERMISSION_DENIED);
	}
	HX_CHECK_STATUS(protect(page_at(0), 3 * PAGE, HX_PROT_READ), HX_OK);
	for (unsigned i = 0; i < 4; i++) {
		HX_CHECK_EQUAL(load(page_at(i)), 100 + i);
	}
	/* Hidden pages go with their region, whichever way it goes. */
	HX_CHECK_STATUS(protect(page_at(0), 4 * PAGE, HX_PROT_NONE), HX_OK);
	HX_CHECK_STATUS(unmap(page_at(0), PAGE), HX_OK);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), free_frames + 1);
	must_map(page_at(1), 1, RW);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), free_frames + 2);
	HX_CHECK_EQUAL(load(page_at(1)), 0);
	HX_CHECK_EQUAL(stats().resident_pages, 3);
	space_end(); /* two are still hidden */
	rig_end();
}

/* All frames that are free, taken away from the space. */
static struct hx_pfn taken[RIG_FRAMES];
static unsigned taken_count;

static void take_all_frames(void)
{
	while (hx_frames_free_frames(&frames) > 0) {
		struct hx_pfn_result r = hx_frames_allocate(&frames, 0, HX_ALLOC_NO_PRESSURE);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		taken[taken_count++] = r.value;
	}
}

static uint64_t give_frames(uint64_t n)
{
	uint64_t given = 0;
	for (; given < n && taken_count > 0; given++) {
		HX_CHECK_STATUS(hx_frames_free(&frames, taken[--taken_count], 0), HX_OK);
	}
	return given;
}

HX_TEST(out_of_frames_changes_nothing)
{
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	must_map(BASE, 64, RW);
	take_all_frames();
	static struct snapshot before;
	window_pages = 64;
	take_snapshot(&before);
	/* Nothing at all; then the page's frame without tables; then one table too few. */
	for (unsigned have = 0; have < hx_hal_geometry.levels; have++) {
		HX_CHECK_STATUS(store(BASE, 1), HX_OUT_OF_MEMORY);
		HX_CHECK(same_state(&before));
		before.free_frames += give_frames(1);
	}
	HX_CHECK_STATUS(store(BASE, 1), HX_OK);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), 0);
	HX_CHECK_STATUS(store(page_at(1), 2), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(load(BASE), 1);
	/* Unmapping needs nothing, and gives the frame that was lacking. */
	HX_CHECK_STATUS(unmap(BASE, PAGE), HX_OK);
	HX_CHECK_STATUS(store(page_at(1), 2), HX_OK);
	(void)give_frames(RIG_FRAMES);
	space_end();
	rig_end();
}

/* The database cannot describe the page's frame: the frame goes back. */
HX_TEST(a_database_without_room_refuses_the_page)
{
	rig_begin();
	HX_BAIL();
	static uint64_t directory[4096];
	static struct hx_framedb db;
	struct hx_pa end = hx_pfn_to_pa(hx_pfn(rig_first.v + RIG_FRAMES));
	if (hx_framedb_directory_bytes(end) > sizeof directory) {
		hx_test_skip("the directory is too large here");
		rig_end();
		return;
	}
	space_begin(); /* its tables are tagged in the machine's database */
	must_map(BASE, 2, RW);
	HX_CHECK_STATUS(store(BASE, 1), HX_OK); /* tables exist now */
	HX_CHECK_STATUS(hx_framedb_init(&db, &frames, directory, end), HX_OK);
	take_all_frames();
	(void)give_frames(1); /* a section takes far more */
	space.db = &db;
	HX_CHECK_STATUS(store(page_at(1), 2), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), 1);
	space.db = config.db;
	HX_CHECK_STATUS(store(page_at(1), 2), HX_OK);
	(void)give_frames(RIG_FRAMES);
	hx_framedb_destroy(&db);
	space_end();
	rig_end();
}

static struct {
	unsigned calls;
	uint64_t give;   /* frames from those taken */
	uintptr_t unmap; /* this page of the very space that faults; 0: none */
	uint64_t wanted;
} reclaimer;

static uint64_t reclaim(void *context, const struct hx_pressure_event *event)
{
	(void)context;
	reclaimer.calls++;
	reclaimer.wanted = event->frames_wanted;
	if (reclaimer.unmap != 0) {
		HX_CHECK_STATUS(unmap(reclaimer.unmap, PAGE), HX_OK);
		HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	}
	return give_frames(reclaimer.give);
}

HX_TEST(pressure_mends_a_fault)
{
	static struct hx_pressure pressure;
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	hx_pressure_init(&pressure, &frames);
	hx_pressure_attach(&pressure);
	HX_CHECK_STATUS(hx_pressure_register(&pressure, "test", 0, reclaim, NULL), HX_OK);
	reclaimer.calls = 0;
	reclaimer.unmap = 0;

	/* The page's frame is lacking. */
	must_map(BASE, 64, RW);
	HX_CHECK_STATUS(store(BASE, 10), HX_OK);
	take_all_frames();
	reclaimer.give = 1;
	HX_CHECK_STATUS(store(page_at(1), 11), HX_OK);
	HX_CHECK_EQUAL(reclaimer.calls, 1);
	HX_CHECK_EQUAL(reclaimer.wanted, 1);

	/* The frame is there, its tables are lacking: the event runs without the lock. */
	const uintptr_t far = BASE + (uintptr_t)HX_GIB(8);
	must_map(far, 1, RW);
	(void)give_frames(1);
	reclaimer.give = hx_hal_geometry.levels;
	HX_CHECK_STATUS(store(far, 12), HX_OK);
	HX_CHECK_EQUAL(reclaimer.calls, 2);

	/* A reclaimer that comes back to this space. */
	take_all_frames();
	reclaimer.give = 0;
	reclaimer.unmap = page_at(0);
	HX_CHECK_STATUS(store(page_at(2), 13), HX_OK);
	HX_CHECK_EQUAL(reclaimer.calls, 3);
	HX_CHECK_STATUS(store(BASE, 1), HX_NOT_MAPPED);

	/* It takes the page away that faults: what was true before is looked at again. */
	reclaimer.give = 1;
	reclaimer.unmap = page_at(3);
	HX_CHECK_STATUS(store(page_at(3), 14), HX_NOT_MAPPED);
	HX_CHECK_EQUAL(reclaimer.calls, 4);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), 1);

	/* It frees nothing. */
	take_all_frames();
	reclaimer.give = 0;
	reclaimer.unmap = 0;
	HX_CHECK_STATUS(store(page_at(4), 15), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(reclaimer.calls, 5);
	HX_CHECK_EQUAL(load(page_at(1)), 11);
	HX_CHECK_EQUAL(load(page_at(2)), 13);
	HX_CHECK_EQUAL(load(far), 12);
	HX_CHECK_EQUAL(pressure.events, 5);
	HX_CHECK_EQUAL(pressure.retries, 4);
	(void)give_frames(RIG_FRAMES);
	space_end();
	rig_end();
}

/* ---- brk ---- */

HX_TEST(brk_follows_linux)
{
	rig_begin();
	HX_BAIL();
	const uintptr_t start = page_at(16), page = (uintptr_t)PAGE;
	config.brk_start = hx_va(start);
	space_begin();
	HX_BAIL();
	/* Below the start: asks only. */
	HX_CHECK_EQUAL(move_break(0).value.v, start);
	HX_CHECK_EQUAL(move_break(1).value.v, start);
	HX_CHECK_STATUS(move_break(start - 1).status, HX_OK);
	HX_CHECK_EQUAL(stats().regions, 0);
	/* The value is kept as given, pages are whole. */
	HX_CHECK_EQUAL(move_break(start + 1).value.v, start + 1);
	HX_CHECK_EQUAL(lookup(start).bytes, PAGE);
	HX_CHECK_EQUAL(lookup(start).prot, RW);
	HX_CHECK_EQUAL(lookup(start).flags, HX_REGION_HEAP);
	HX_CHECK_STATUS(store(start + page - 8, 1), HX_OK);
	HX_CHECK_EQUAL(move_break(start + page).value.v, start + page);
	HX_CHECK_EQUAL(stats().mapped_bytes, PAGE);
	HX_CHECK_EQUAL(move_break(start + 3 * page - 5).value.v, start + 3 * page - 5);
	HX_CHECK_EQUAL(stats().regions, 1);
	/* Down and up again: zero. */
	HX_CHECK_STATUS(store(start + 2 * page, 77), HX_OK);
	HX_CHECK_EQUAL(move_break(start + 2 * page).value.v, start + 2 * page);
	HX_CHECK_STATUS(store(start + 2 * page, 1), HX_NOT_MAPPED);
	HX_CHECK_EQUAL(move_break(start + 3 * page).value.v, start + 3 * page);
	HX_CHECK_EQUAL(load(start + 2 * page), 0);
	/* One page must stay free above. */
	must_map(start + 6 * page, 1, RW);
	struct hx_va_result r = move_break(start + 5 * page + 1);
	HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(r.value.v, start + 3 * page);
	HX_CHECK_STATUS(move_break(start + 5 * page).status, HX_OK);
	HX_CHECK_STATUS(unmap(start + 6 * page, PAGE), HX_OK);
	HX_CHECK_STATUS(move_break(start + 6 * page).status, HX_OK);
	/* Parts unmapped, protected, replaced: the rest stays the heap segment. */
	HX_CHECK_STATUS(unmap(start + page, PAGE), HX_OK);
	HX_CHECK_STATUS(protect(start + 2 * page, PAGE, HX_PROT_READ), HX_OK);
	HX_CHECK_EQUAL(lookup(start + 2 * page).flags, HX_REGION_HEAP);
	must_map(start + 3 * page, 1, RW);
	HX_CHECK_EQUAL(lookup(start + 3 * page).flags, 0);
	HX_CHECK_EQUAL(lookup(start + 3 * page).bytes, PAGE);
	HX_CHECK_EQUAL(stats().regions, 4);
	HX_CHECK_STATUS(protect(start + 2 * page, 4 * PAGE, HX_PROT_READ), HX_OK);
	HX_CHECK_EQUAL(stats().regions, 4); /* both kinds, never joined */
	HX_CHECK_STATUS(protect(start + 2 * page, 4 * PAGE, RW), HX_OK);
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	/* Shrinking takes the foreign page along. */
	HX_CHECK_STATUS(move_break(start + page).status, HX_OK);
	HX_CHECK_EQUAL(stats().mapped_bytes, PAGE);
	/* Shrinking over nothing at all is refused, as Linux does. */
	HX_CHECK_STATUS(unmap(start, PAGE), HX_OK);
	r = move_break(start);
	HX_CHECK_STATUS(r.status, HX_NOT_MAPPED);
	HX_CHECK_EQUAL(r.value.v, start + page);
	HX_CHECK_STATUS(move_break(start + page - 1).status, HX_OK); /* the same page */
	/* The way up ends where user space does. */
	HX_CHECK_STATUS(move_break(start + page).status, HX_OK);
	HX_CHECK_STATUS(move_break(top() + 1).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(move_break(top()).status, HX_OK);
	HX_CHECK_EQUAL(move_break(0).value.v, top());
	HX_CHECK_STATUS(store(top() - 8, 3), HX_OK);
	space_end();
	rig_end();
}

/* ---- Capabilities ---- */

static struct hx_capability slots[32];
static struct hx_capability_table table;

struct guarded {
	const char *name;
	hx_status (*call)(struct hx_token token);
	uint32_t rights;
};

static hx_status do_map(struct hx_token t)
{
	return hx_mmap(&space, t, hx_va(0), PAGE, RW, ANON, NULL, 0).status;
}

static hx_status do_map_code(struct hx_token t)
{
	return hx_mmap(&space, t, hx_va(0), PAGE, RX, ANON, NULL, 0).status;
}

static hx_status do_map_over(struct hx_token t)
{
	return hx_mmap(&space, t, hx_va(BASE), PAGE, RW, ANON | HX_MAP_FIXED, NULL, 0).status;
}

static hx_status do_map_exactly(struct hx_token t)
{
	return hx_mmap(&space, t, hx_va(page_at(4)), PAGE, RW, ANON | HX_MAP_FIXED_NOREPLACE, NULL,
		       0)
		.status;
}

static hx_status do_unmap(struct hx_token t)
{
	return hx_munmap(&space, t, hx_va(BASE), PAGE);
}

static hx_status do_unmap_nothing(struct hx_token t)
{
	return hx_munmap(&space, t, hx_va(page_at(40)), PAGE);
}

static hx_status do_protect(struct hx_token t)
{
	return hx_mprotect(&space, t, hx_va(BASE), PAGE, HX_PROT_READ);
}

static hx_status do_protect_code(struct hx_token t)
{
	return hx_mprotect(&space, t, hx_va(BASE), PAGE, RX);
}

/* W^X takes the execute right off again; it had to be held all the same. */
static hx_status do_protect_both(struct hx_token t)
{
	return hx_mprotect(&space, t, hx_va(BASE), PAGE, RW | HX_PROT_EXEC);
}

static hx_status do_protect_nothing(struct hx_token t)
{
	return hx_mprotect(&space, t, hx_va(BASE), 0, RW);
}

static hx_status do_brk_up(struct hx_token t)
{
	return hx_brk(&space, t, hx_va(page_at(20))).status;
}

static hx_status do_brk_down(struct hx_token t)
{
	return hx_brk(&space, t, hx_va(page_at(17))).status;
}

static hx_status do_brk_ask(struct hx_token t)
{
	return hx_brk(&space, t, hx_va(0)).status;
}

static hx_status do_lookup(struct hx_token t)
{
	return hx_space_lookup(&space, t, hx_va(BASE)).status;
}

static const struct guarded guarded[] = {
	{"map", do_map, HX_RIGHT_MAP},
	{"map code", do_map_code, HX_RIGHT_MAP | HX_RIGHT_EXECUTE},
	{"map over", do_map_over, HX_RIGHT_MAP | HX_RIGHT_UNMAP},
	{"map exactly", do_map_exactly, HX_RIGHT_MAP},
	{"unmap", do_unmap, HX_RIGHT_UNMAP},
	{"unmap nothing", do_unmap_nothing, HX_RIGHT_UNMAP},
	{"protect", do_protect, HX_RIGHT_PROTECT},
	{"protect code", do_protect_code, HX_RIGHT_PROTECT | HX_RIGHT_EXECUTE},
	{"protect both", do_protect_both, HX_RIGHT_PROTECT | HX_RIGHT_EXECUTE},
	{"protect nothing", do_protect_nothing, HX_RIGHT_PROTECT},
	{"brk up", do_brk_up, HX_RIGHT_MAP},
	{"brk down", do_brk_down, HX_RIGHT_UNMAP},
	{"brk ask", do_brk_ask, 0},
	{"lookup", do_lookup, HX_RIGHT_QUERY},
};

/* The same state for every call: one page at BASE, three of heap. */
static void guarded_begin(void)
{
	config.brk_start = hx_va(page_at(16));
	space_begin();
	HX_BAIL();
	struct hx_token_result all = hx_capability_create(&table, &space, HX_RIGHTS_ALL);
	HX_REQUIRE_STATUS(all.status, HX_OK);
	struct hx_va_result r =
		hx_mmap(&space, all.value, hx_va(BASE), PAGE, RW, ANON | HX_MAP_FIXED, NULL, 0);
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_STATUS(store(BASE, 5), HX_OK);
	HX_CHECK_STATUS(hx_brk(&space, all.value, hx_va(page_at(19))).status, HX_OK);
	HX_CHECK_STATUS(hx_capability_revoke(&table, all.value, all.value), HX_OK);
}

/* What can be seen without a token. */
static bool guarded_state_is_unchanged(const struct hx_space_stats *before)
{
	struct hx_space_stats now = stats();
	return hx_memcmp(before, &now, sizeof now) == 0 && load(BASE) == 5 &&
	       space.brk == page_at(19) && hx_space_validate(&space) == HX_OK;
}

HX_TEST(every_operation_wants_its_rights)
{
	rig_begin();
	HX_BAIL();
	HX_REQUIRE_STATUS(hx_capability_init(&table, slots, HX_ARRAY_LENGTH(slots)), HX_OK);
	config.capabilities = &table;
	config.wx = HX_WX_FORCE;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(guarded); i++) {
		const struct guarded *g = &guarded[i];
		guarded_begin();
		HX_BAIL();
		struct hx_space_stats before = stats();
		/* Each set of rights of this, and of another, space. */
		for (uint32_t rights = 0; rights <= HX_RIGHTS_ALL; rights++) {
			bool may = (g->rights & ~rights) == 0;
			const void *object = may ? (const void *)&heap : &space;
			struct hx_token_result t = hx_capability_create(&table, object, rights);
			HX_REQUIRE_STATUS(t.status, HX_OK);
			if (g->call(t.value) != HX_PERMISSION_DENIED) {
				hx_test_fail(__FILE__, __LINE__, "%s with rights 0x%x", g->name,
					     (unsigned)rights);
			}
			hx_capability_forget(&table, object);
		}
		HX_CHECK_STATUS(g->call(HX_TOKEN_NONE), HX_PERMISSION_DENIED);
		HX_CHECK(guarded_state_is_unchanged(&before));
		/* Exactly what it takes, then nothing of it after the revocation. */
		struct hx_token_result t =
			hx_capability_create(&table, &space, g->rights | HX_RIGHT_REVOKE);
		HX_REQUIRE_STATUS(t.status, HX_OK);
		HX_CHECK_STATUS(g->call(t.value), HX_OK);
		HX_CHECK_STATUS(hx_capability_revoke(&table, t.value, t.value), HX_OK);
		HX_CHECK_STATUS(g->call(t.value), HX_PERMISSION_DENIED);
		/* A space that goes takes the tokens over it along. */
		t = hx_capability_create(&table, &space, HX_RIGHTS_ALL);
		HX_REQUIRE_STATUS(t.status, HX_OK);
		space_end();
		HX_CHECK_STATUS(hx_capability_check(&table, t.value, &space, 0),
				HX_PERMISSION_DENIED);
		HX_CHECK_EQUAL(table.live, 0);
	}
	rig_end();
}

/* ---- Loading, the upcall ---- */

HX_TEST(the_current_space_takes_the_faults)
{
	static struct hx_space second;
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	HX_REQUIRE_STATUS(hx_space_init(&second, &config), HX_OK);
	HX_CHECK(hx_space_current() == NULL);
	struct hx_fault f = fault_at(BASE, HX_ACCESS_WRITE, true);
	HX_CHECK(!hx_upcall_fault(&f));
	HX_CHECK_STATUS(hx_fault_last()->status, HX_NOT_MAPPED);
	HX_CHECK_EQUAL(hx_fault_last()->fault.va.v, BASE);

	must_map(BASE, 1, RW);
	hx_space_load(&space, config.kernel);
	HX_CHECK(hx_space_current() == &space);
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_BUSY);
	HX_CHECK(hx_upcall_fault(&f));
	HX_CHECK_EQUAL(stats().resident_pages, 1);
	/* Mapped already, with these rights: a stale TLB, no error. */
	HX_CHECK(hx_upcall_fault(&f));
	HX_CHECK_EQUAL(stats().resident_pages, 1);
	HX_CHECK_EQUAL(stats().faults, 2);
	f.access = HX_ACCESS_EXECUTE;
	HX_CHECK(!hx_upcall_fault(&f));
	HX_CHECK_STATUS(hx_fault_last()->status, HX_PERMISSION_DENIED);
	HX_CHECK_EQUAL(hx_fault_last()->fault.access, HX_ACCESS_EXECUTE);
	f.va = hx_va(hx_kernel_start());
	HX_CHECK(!hx_upcall_fault(&f));
	HX_CHECK_STATUS(hx_fault_last()->status, HX_INVALID_ADDRESS);

	hx_space_load(&space, config.kernel); /* again: nothing happens */
	hx_space_load(&second, config.kernel);
	HX_CHECK(hx_space_current() == &second);
	f = fault_at(BASE, HX_ACCESS_WRITE, true);
	HX_CHECK(!hx_upcall_fault(&f));
	HX_CHECK_STATUS(hx_fault_last()->status, HX_NOT_MAPPED);
	HX_CHECK_STATUS(hx_space_destroy(&second), HX_BUSY);
	hx_space_load(NULL, config.kernel);
	HX_CHECK(hx_space_current() == NULL);
	HX_CHECK_STATUS(hx_space_destroy(&second), HX_OK);
	HX_CHECK_EQUAL(load(BASE), 0);
	space_end();
	rig_end();
}

/* ---- The validator ---- */

HX_TEST(the_validator_sees_damage)
{
	rig_begin();
	HX_BAIL();
	space_begin();
	HX_BAIL();
	for (unsigned i = 0; i < 8; i++) {
		must_map(page_at(i * 3), 2, i % 2 ? RW : HX_PROT_READ);
	}
	HX_CHECK_EQUAL(load(page_at(0)), 0);
	struct hx_region *root = space.tree, *leaf = space.tree;
	while (leaf->left) {
		leaf = leaf->left;
	}
	struct hx_region kept;
	struct hx_space kept_space = space;
#define DAMAGED(r, change)                                                                         \
	do {                                                                                       \
		kept = *(r);                                                                       \
		change;                                                                            \
		HX_CHECK_STATUS(hx_space_validate(&space), HX_CORRUPTED);                          \
		*(r) = kept;                                                                       \
		HX_REQUIRE_STATUS(hx_space_validate(&space), HX_OK);                               \
	} while (0)
	DAMAGED(root, root->height++);
	DAMAGED(root, root->largest_gap++);
	DAMAGED(root, root->gap_below -= (uintptr_t)PAGE);
	DAMAGED(root, root->end += 1);
	DAMAGED(root, root->end = root->start);
	DAMAGED(root, root->end += (uintptr_t)(2 * PAGE)); /* into the next one */
	DAMAGED(root, root->end += (uintptr_t)PAGE);       /* the gap above is wrong */
	DAMAGED(root, root->prot |= 8);
	DAMAGED(root, root->prot = RW | HX_PROT_EXEC);
	DAMAGED(root, root->flags |= 2);
	DAMAGED(root, root->parent = root);
	DAMAGED(leaf, leaf->parent = root->right);
	DAMAGED(leaf, leaf->prot = RW); /* its page is mapped read-only */
	DAMAGED(root, root->left = NULL);
#undef DAMAGED
#define MISCOUNTED(change, back)                                                                   \
	do {                                                                                       \
		change;                                                                            \
		HX_CHECK_STATUS(hx_space_validate(&space), HX_CORRUPTED);                          \
		back;                                                                              \
		HX_REQUIRE_STATUS(hx_space_validate(&space), HX_OK);                               \
	} while (0)
	MISCOUNTED(space.stats.regions++, space.stats.regions--);
	MISCOUNTED(space.stats.mapped_bytes++, space.stats.mapped_bytes--);
	MISCOUNTED(space.stats.resident_pages++, space.stats.resident_pages--);
	MISCOUNTED(space.region_limit = 7, space.region_limit = kept_space.region_limit);
	MISCOUNTED(space.brk = space.brk_start - 1, space.brk = kept_space.brk);
	MISCOUNTED(space.brk = top() + 1, space.brk = kept_space.brk);
	space_end();
	rig_end();
}

HX_SUITE(space, HX_CASE(random_operations_match_the_model),
	 HX_CASE(every_short_sequence_with_every_allocation_failing),
	 HX_CASE(hostile_mmap_arguments), HX_CASE(hostile_ranges),
	 HX_CASE(init_and_destroy_check_what_they_get), HX_CASE(mmap_places_from_the_top_down),
	 HX_CASE(the_region_limit_holds), HX_CASE(thousands_of_regions), HX_CASE(the_fault_matrix),
	 HX_CASE(stray_kernel_accesses_are_refused),
	 HX_CASE(prot_none_keeps_contents_and_hides_them), HX_CASE(out_of_frames_changes_nothing),
	 HX_CASE(a_database_without_room_refuses_the_page), HX_CASE(pressure_mends_a_fault),
	 HX_CASE(brk_follows_linux), HX_CASE(every_operation_wants_its_rights),
	 HX_CASE(the_current_space_takes_the_faults), HX_CASE(the_validator_sees_damage));
