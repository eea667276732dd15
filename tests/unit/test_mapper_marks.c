/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The machine marks a page as written between any two accesses that the mapper
 * makes to page tables: each interleaving in turn, and none may lose the mark.
 *
 * change.c and page.c are compiled once more here, with their accesses counted; before the
 * chosen one the machine writes to the page under test, as long as it could:
 * through the tables while they map it, or through its cached copy of a table that
 * is unhooked, until the flush.
 */
#include <sim.h>

#include "mapper_world.h"

static unsigned accesses, chosen;
static bool flushed;
static bool was_broken; /* the page's entry was gone at the first flush */
static void machine_writes(void);
static bool page_is_soft(void);

static void count_access(void)
{
	if (accesses++ == chosen) {
		machine_writes();
	}
}

static hx_pte marked_load(const hx_pte *p)
{
	count_access();
	return hx_hal_pte_load(p);
}

static hx_pte marked_raw(const hx_pte *p)
{
	count_access();
	return hx_hal_pte_raw(p);
}

static void marked_store(hx_pte *p, hx_pte e)
{
	count_access();
	hx_hal_pte_store(p, e);
}

static hx_pte marked_exchange(hx_pte *p, hx_pte e)
{
	count_access();
	return hx_hal_pte_exchange(p, e);
}

static bool marked_update(hx_pte *p, hx_pte *expected, hx_pte desired)
{
	count_access();
	return hx_hal_pte_update(p, expected, desired);
}

struct hx_gather;
struct hx_cursor;
static void note_flush(void)
{
	count_access();
	was_broken = flushed ? was_broken : page_is_soft();
	flushed = true;
}

static void marked_flush(struct hx_pagetable *t, struct hx_stripe *home, const struct hx_gather *g)
{
	(void)t;
	(void)home;
	(void)g;
	note_flush();
}

static void marked_cursor_flush(struct hx_cursor *c)
{
	(void)c;
	note_flush();
}

static void marked_tlb_page(struct hx_va va, uint16_t asid, bool global)
{
	(void)va;
	(void)asid;
	(void)global;
	note_flush();
}

#define hx_hal_pte_load marked_load
#define hx_hal_pte_raw marked_raw
#define hx_hal_pte_store marked_store
#define hx_hal_pte_exchange marked_exchange
#define hx_hal_pte_update marked_update
#define hx_hal_tlb_page marked_tlb_page
#define hx_gather_flush marked_flush
#define hx_cursor_flush marked_cursor_flush
#define hx_map marked_hx_map
#define hx_unmap marked_hx_unmap
#define hx_unmap_sparse marked_hx_unmap_sparse
#define hx_unmap_range marked_hx_unmap_range
#define hx_update_flags marked_hx_update_flags
#define hx_update_flags_sparse marked_hx_update_flags_sparse
hx_status hx_map(struct hx_pagetable *t, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		 uint64_t flags);
hx_status hx_unmap(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, hx_released_fn released,
		   void *context);
hx_status hx_unmap_sparse(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
			  hx_released_fn released, void *context);
hx_status hx_update_flags(struct hx_pagetable *t, struct hx_va va, uint64_t bytes, uint64_t flags);
hx_status hx_update_flags_sparse(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				 uint64_t flags);
#include "../../memory/mapper/change.c"
#include "../../memory/mapper/page.c"
#undef hx_hal_pte_load
#undef hx_hal_pte_raw
#undef hx_hal_pte_store
#undef hx_hal_pte_exchange
#undef hx_hal_pte_update

#define URW (HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE)
#define URO (HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE)
#define PAGE HX_KIB(4)
#define L1 HX_MIB(2)
#define UVA ((uintptr_t)HX_GIB(6))
#define PA HX_MIB(64)

enum { WORLD_FRAMES = 64 };

static struct hx_pagetable kernel, user;
static uintptr_t page;    /* under test */
static hx_pte *page_leaf; /* its entry when the call began, and that one's level */
static unsigned page_level;
static bool wrote, told_dirty;

static bool page_is_soft(void)
{
	return hx_hal_pte_kind(hx_hal_pte_load(page_leaf), page_level) == HX_PTE_SOFT;
}

/* A write through the leaf that maps the page, if there is one that allows it. */
static void machine_writes(void)
{
	unsigned level = page_level;
	hx_pte *p = page_leaf;
	if (flushed || hx_hal_pte_kind(hx_hal_pte_load(p), level) != HX_PTE_LEAF) {
		p = world_entry(&user, page, &level);
	}
	hx_pte e = hx_hal_pte_load(p);
	if (hx_hal_pte_kind(e, level) != HX_PTE_LEAF ||
	    !(hx_hal_pte_flags(e, level) & HX_PAGE_WRITABLE)) {
		return; /* a fault */
	}
	hx_hal_pte_store(p, e | (hx_hal_pte_prot(HX_PAGE_ACCESSED | HX_PAGE_DIRTY, level) &
				 ~hx_hal_pte_prot(0, level)));
	wrote = true;
}

static void note_release_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			      uint64_t flags)
{
	(void)context;
	(void)pa;
	if (page >= va.v && page - va.v < bytes) {
		told_dirty = (flags & HX_PAGE_DIRTY) != 0;
	}
}

static void note_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, note_release_leaf, context);
}

struct marked_call {
	uint64_t mapped;      /* bytes from UVA */
	uint64_t from, bytes; /* of the call */
	uint64_t page;        /* under test */
	uint64_t flags;       /* 0: unmap */
	bool remakes;         /* where break-before-make is asked for, it breaks first */
	bool known;           /* a call before has walked down to the leaf table */
};

/* @return false when the call makes fewer accesses than were to come first */
static bool run_marked(const struct marked_call *c)
{
	struct hx_va va = hx_va(UVA + (uintptr_t)c->from);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), c->mapped, URW), HX_OK);
	if (c->known) {
		HX_CHECK_STATUS(hx_update_flags(&user, va, PAGE, URW), HX_OK);
	}
	page = UVA + (uintptr_t)c->page;
	page_leaf = world_entry(&user, page, &page_level);
	wrote = told_dirty = flushed = was_broken = false;
	accesses = 0;
	hx_status s = c->flags ? hx_update_flags(&user, va, c->bytes, c->flags)
			       : hx_unmap(&user, va, c->bytes, note_release, NULL);
	bool all = accesses <= chosen;
	HX_CHECK_STATUS(s, HX_OK);
	struct hx_translation t = hx_translate(&user, hx_va(page));
	bool dirty = t.status == HX_OK ? (t.flags & HX_PAGE_DIRTY) != 0 : told_dirty;
	if (wrote && !dirty) {
		hx_test_fail(__FILE__, __LINE__, "a write before access %u is lost", chosen);
	}
	if (c->remakes) {
		HX_CHECK_EQUAL(was_broken, hx_feature(HX_MMU_BREAK_BEFORE_MAKE));
	}
	WORLD_SOUND(&user);
	chosen = UINT32_MAX;
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), c->mapped, NULL, NULL), HX_OK);
	return !all;
}

static void run_all(uint32_t features)
{
	static const struct marked_call calls[] = {
		{4 * PAGE, PAGE, PAGE, PAGE, 0, false, false}, /* one page, the table stays */
		{4 * PAGE, PAGE, PAGE, PAGE, 0, false, true},  /* the same, straight away */
		{PAGE, 0, PAGE, 0, 0, false, false},           /* the table goes */
		{L1 + PAGE, 0, L1, PAGE, 0, false, false},     /* a huge leaf */
		{L1, 0, 5 * PAGE, 3 * PAGE, 0, true, false},   /* split, in the range */
		{L1, 0, 5 * PAGE, 9 * PAGE, 0, true, false},   /* split, beside it */
		{4 * PAGE, PAGE, 2 * PAGE, PAGE, URO, false, false},
		{4 * PAGE, PAGE, 2 * PAGE, PAGE, URW | HX_PAGE_NO_CACHE, true, false},
		{L1, 0, L1, PAGE, URO, false, false},
		{L1, 0, L1, PAGE, URW | HX_PAGE_NO_CACHE, true, false},
		{L1, PAGE, 2 * PAGE, PAGE, URO, true, false},     /* split, in the range */
		{L1, PAGE, 2 * PAGE, 7 * PAGE, URO, true, false}, /* split, beside it */
	};
	hx_sim_configure(&(struct hx_sim_config){.hardware_ad = HX_SIM_ON});
	hx_hal_mmu_init();
	hx_hal_geometry.features |= features;
	world_open(hx_pa_to_pfn(hx_pa(HX_MIB(16))), WORLD_FRAMES);
	HX_BAIL();
	struct hx_pagetable_config config = {.frames = &world_frames, .huge = true};
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &config), HX_OK);
	hx_pagetable_seal(&kernel);
	config.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &config), HX_OK);
	unsigned writes = 0;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(calls); i++) {
		unsigned k = 0;
		do {
			chosen = k++;
			unsigned failures = hx_test_failures();
			bool more = run_marked(&calls[i]);
			writes += wrote;
			if (hx_test_failures() > failures) {
				hx_log("call %u", i);
			}
			if (!more) {
				break;
			}
		} while (k < 10000);
		HX_CHECK(k > 2 && k < 10000);
	}
	HX_CHECK(writes > 100);
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
}

HX_TEST(no_mark_is_lost_between_any_two_accesses)
{
	run_all(0);
}

HX_TEST(no_mark_is_lost_with_break_before_make)
{
	run_all(HX_MMU_BREAK_BEFORE_MAKE);
}

HX_SUITE(mapper_marks, HX_CASE(no_mark_is_lost_between_any_two_accesses),
	 HX_CASE(no_mark_is_lost_with_break_before_make));
