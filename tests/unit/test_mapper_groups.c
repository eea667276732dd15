/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Groups of leaves, which the machine may cache as one: where the mapper makes them, and that
 * each call that changes some of a group's pages leaves the others as they were, with all
 * pages in this CPU's TLB beforehand. Random programs with groups are test_mapper_stress.c's
 * and test_mapper.c's.
 */
#include <sim.h>

#include "mapper_world.h"

#define PAGE HX_KIB(4)
#define L1 HX_MIB(2)
#define UVA ((uintptr_t)HX_GIB(6))
#define PA HX_MIB(64)

#define RIGHTS_RW (HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE)
#define RIGHTS_RO (HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE)
/* Settled: the machine has nothing to mark. */
#define RW (RIGHTS_RW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY)
#define RO (RIGHTS_RO | HX_PAGE_ACCESSED)

enum { FRAMES = 64, GROUP = 16, GROUPS = 3, PAGES = GROUPS * GROUP };

static struct hx_pagetable kernel, user;
static unsigned stale;

static void count_stale(const struct hx_sim_stale *s)
{
	(void)s;
	stale++;
}

/* A machine with groups, a user table that this CPU runs. @return false without a codec for them */
static bool open_tables(bool huge, enum hx_sim_switch hardware_ad)
{
	hx_sim_configure(&(struct hx_sim_config){.groups = HX_SIM_ON, .hardware_ad = hardware_ad});
	hx_hal_mmu_init();
	if (hx_hal_geometry.group_bits == 0) {
		hx_test_skip("entries of this format have no groups");
		return false;
	}
	HX_CHECK_EQUAL(1u << hx_hal_geometry.group_bits, GROUP);
	hx_sim_on_stale(count_stale);
	stale = 0;
	world_open(hx_pa_to_pfn(hx_pa(HX_MIB(16))), FRAMES);
	struct hx_pagetable_config c = {.frames = &world_frames, .huge = huge};
	HX_CHECK_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	hx_pagetable_seal(&kernel);
	c.kernel = &kernel;
	HX_CHECK_STATUS(hx_pagetable_init(&user, &c), HX_OK);
	hx_pagetable_load(&user, NULL);
	hx_hal_user_access(true);
	return hx_test_failures() == 0;
}

static void close_tables(void)
{
	HX_CHECK_EQUAL(stale, 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	WORLD_SOUND(&user);
	hx_pagetable_load(&kernel, &user);
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	HX_CHECK_EQUAL(world_free_count() + hx_pagetable_counters(&kernel).tables, FRAMES);
}

static bool is_grouped(uintptr_t va)
{
	unsigned level;
	const hx_pte *p = world_entry(&user, va, &level);
	return hx_hal_pte_raw(p) != hx_hal_pte_load(p);
}

/* Bit i: is the page number i from @va in a group? At most 64. */
static uint64_t grouped(uintptr_t va, unsigned pages)
{
	uint64_t found = 0;
	for (unsigned i = 0; i < pages; i++) {
		found |= (uint64_t)is_grouped(va + i * (uintptr_t)PAGE) << i;
	}
	return found;
}

/* Bits [first, end). */
static uint64_t bits(unsigned first, unsigned end)
{
	uint64_t below_end = end == 64 ? UINT64_MAX : (UINT64_C(1) << end) - 1;
	return below_end & ~((UINT64_C(1) << first) - 1);
}

static bool reach(uintptr_t va, enum hx_access access)
{
	struct hx_sim_reference r = {.va = hx_va(va), .access = access, .user = true, .bytes = 8};
	struct hx_fault fault;
	bool done = hx_sim_access(&r, &fault);
	while (!done && hx_pagetable_spurious(&fault)) {
		done = hx_sim_access(&r, &fault);
	}
	return done;
}

/* ---- Where groups are made ---- */

struct fit {
	unsigned first, pages; /* of the mapping, in the leaf table */
	unsigned frame;        /* from PA on */
	uint64_t flags;
	uint64_t grouped; /* of the first 64 pages of the leaf table */
};

static void check_fit(const struct fit *f, bool standing)
{
	uintptr_t va = UVA + f->first * (uintptr_t)PAGE, other = UVA + 500 * (uintptr_t)PAGE;
	if (standing) { /* the leaf table is there already */
		HX_CHECK_STATUS(hx_map(&user, hx_va(other), hx_pa(PA), PAGE, RIGHTS_RO), HX_OK);
	}
	HX_CHECK_STATUS(hx_map(&user, hx_va(va), hx_pa(PA + f->frame * PAGE), f->pages * PAGE,
			       f->flags | HX_MAP_NO_HUGE),
			HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), f->grouped);
	for (unsigned i = 0; i < f->pages; i++) {
		struct hx_translation t = hx_translate(&user, hx_va(va + i * (uintptr_t)PAGE));
		HX_CHECK_EQUAL(t.pa.v, PA + (f->frame + i) * PAGE);
		HX_CHECK_EQUAL(t.flags, f->flags);
		HX_CHECK_EQUAL(t.level, 0);
	}
	WORLD_SOUND(&user);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
}

HX_TEST(groups_are_made_where_leaves_fit)
{
	static const struct fit fits[] = {
		{0, 16, 0, RW, 0xffff},
		{0, 64, 0, RW, UINT64_MAX},
		{0, 64, 16, RO, UINT64_MAX},
		{0, 496, 0, RW, UINT64_MAX},
		{5, 40, 5, RW, UINT64_C(0xffff) << 16}, /* 5..44 */
		{1, 31, 1, RW, UINT64_C(0xffff) << 16},
		{0, 31, 0, RW, 0xffff},
		{1, 30, 1, RW, 0},
		{3, 1, 3, RW, 0},
		{0, 15, 0, RW, 0},
		{0, 64, 1, RW, 0}, /* frames that lie otherwise */
		{0, 64, 8, RW, 0},
		{3, 61, 19, RW, UINT64_MAX << 16},
		{0, 64, 0, RIGHTS_RW, 0}, /* what the machine may mark */
		{0, 64, 0, RIGHTS_RW | HX_PAGE_ACCESSED, 0},
		{0, 64, 0, RIGHTS_RO, 0},
		{0, 64, 0, RIGHTS_RO | HX_PAGE_DIRTY, 0},
		{0, 64, 0, RO | HX_PAGE_DIRTY, UINT64_MAX},
		{0, 64, 0, RW | HX_PAGE_NO_CACHE, UINT64_MAX},
	};
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	for (unsigned i = 0; i < 2 * HX_ARRAY_LENGTH(fits) && hx_test_failures() == 0; i++) {
		check_fit(&fits[i / 2], i % 2);
	}
	close_tables();
}

/* A machine that marks nothing is never in the way of a group. */
HX_TEST(without_hardware_marks_all_leaves_are_settled)
{
	if (!open_tables(true, HX_SIM_OFF)) {
		return;
	}
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), 64 * PAGE, RIGHTS_RW), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), UINT64_MAX);
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA), 64 * PAGE, RIGHTS_RO), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), 0);
	WORLD_SOUND(&user);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), 64 * PAGE, NULL, NULL), HX_OK);
	close_tables();
}

/* A leaf of the next level is better, and what is left beside it may make groups. */
HX_TEST(groups_stand_beside_huge_leaves)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1 + 17 * PAGE, RW), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA)).level, 1);
	HX_CHECK(!is_grouped(UVA));
	HX_CHECK_EQUAL(grouped(UVA + L1, 17), 0xffff);
	/* The pieces of a leaf that is split are plain. */
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), 0);
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA), L1), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), bits(16, 64));
	WORLD_SOUND(&user);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 2 * L1, NULL, NULL), HX_OK);
	close_tables();
}

/* ---- Fold ---- */

HX_TEST(fold_makes_groups_of_single_pages)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	for (unsigned i = 0; i < 64; i++) {
		/* The second group's marks differ, the third's rights. */
		uint64_t flags = i == 20 ? RIGHTS_RW | HX_PAGE_ACCESSED : i == 40 ? RO : RW;
		HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA + i * (uintptr_t)PAGE),
					 hx_pa(PA + i * PAGE), PAGE, flags),
				  HX_OK);
		HX_CHECK(i == 20 || reach(UVA + i * (uintptr_t)PAGE, HX_ACCESS_READ));
	}
	HX_CHECK_EQUAL(grouped(UVA, 64), 0);
	uint64_t flushes = hx_pagetable_counters(&user).local_flushes;
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA + PAGE), 63 * PAGE), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), bits(48, 64)); /* the first is not all in the range */
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA), 63 * PAGE), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), bits(0, 16) | bits(48, 64));
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).local_flushes, flushes);
	HX_CHECK(reach(UVA + 20 * (uintptr_t)PAGE, HX_ACCESS_WRITE)); /* marks the page */
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA), 64 * PAGE), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), bits(0, 32) | bits(48, 64));
	WORLD_SOUND(&user);
	for (unsigned i = 0; i < 64; i++) {
		HX_CHECK_EQUAL(reach(UVA + i * (uintptr_t)PAGE, HX_ACCESS_WRITE), i != 40);
	}
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), 64 * PAGE, NULL, NULL), HX_OK);
	close_tables();
}

/* A leaf table full of groups folds into one leaf, and that one's rest is split plain. */
HX_TEST(groups_fold_into_a_huge_leaf)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, RW | HX_MAP_NO_HUGE), HX_OK);
	HX_CHECK_EQUAL(grouped(UVA, 64), UINT64_MAX);
	HX_CHECK(reach(UVA + PAGE, HX_ACCESS_WRITE));
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA), L1), HX_OK);
	struct hx_translation t = hx_translate(&user, hx_va(UVA + 3 * (uintptr_t)PAGE));
	HX_CHECK_EQUAL(t.level, 1);
	HX_CHECK_EQUAL(t.pa.v, PA + 3 * PAGE);
	HX_CHECK_EQUAL(t.flags, RW | HX_PAGE_HUGE);
	WORLD_SOUND(&user);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
	close_tables();
}

/* ---- What cuts them, or takes them away whole ---- */

static unsigned listed;

static void note_listed(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			uint64_t flags)
{
	(void)context;
	listed += bytes == PAGE && pa.v - PA == va.v - UVA &&
		  flags == (RW & HX_LEAF_FLAGS & ~HX_PAGE_ACCESSED);
}

static void note_table(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, note_listed, context);
}

HX_TEST(a_leaf_table_of_groups_is_told_page_by_page)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	const uint64_t bytes = L1 - 3 * PAGE;
	for (unsigned first = 0; first < 2; first++) { /* a group's page, or a plain one */
		struct hx_va va = hx_va(UVA + first * (uintptr_t)PAGE);
		HX_REQUIRE_STATUS(hx_map(&user, va, hx_pa(PA + first * PAGE), bytes, RW), HX_OK);
		HX_CHECK_EQUAL(grouped(UVA, 64), first == 0 ? UINT64_MAX : bits(16, 64));
		HX_CHECK(reach(UVA + L1 / 2, HX_ACCESS_WRITE));
		listed = 0;
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), L1, note_table, NULL), HX_OK);
		HX_CHECK_EQUAL(listed, bytes / PAGE);
		HX_CHECK(!reach(UVA + L1 / 2, HX_ACCESS_READ));
	}
	close_tables();
}

enum what { UNMAP, PROTECT, HIDE, HARVEST, LOOK, WHATS };

static unsigned told[PAGES], told_wrong;

static void note_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		      uint64_t flags)
{
	(void)context;
	unsigned i = (unsigned)((va.v - UVA) / PAGE);
	const uint64_t wanted = HX_PAGE_DIRTY | HX_PAGE_PRESENT | HX_PAGE_USER;
	if (i >= PAGES || bytes != PAGE || pa.v != PA + i * PAGE || (flags & wanted) != wanted) {
		told_wrong++;
		return;
	}
	told[i]++;
}

static void note_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, note_leaf, context);
}

static hx_status change(enum what what, unsigned first, unsigned end)
{
	static uint64_t leaves[PAGES];
	struct hx_va va = hx_va(UVA + first * (uintptr_t)PAGE);
	const uint64_t bytes = (end - first) * PAGE;
	switch (what) {
	case UNMAP:
		return hx_unmap(&user, va, bytes, note_release, NULL);
	case PROTECT:
		return hx_update_flags(&user, va, bytes, RIGHTS_RO);
	case HIDE:
		return hx_update_flags(&user, va, bytes, 0);
	default:
		break;
	}
	hx_status s =
		hx_harvest(&user, va, end - first, what == HARVEST ? HX_PAGE_DIRTY : 0, leaves);
	for (unsigned i = first; i < end; i++) {
		HX_CHECK_EQUAL(leaves[i - first], (PA + i * PAGE) | (RW & HX_LEAF_FLAGS));
	}
	return s;
}

/* Pages [first, end) of three groups, all of them cached, are changed. */
static void check_change(enum what what, unsigned first, unsigned end)
{
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), PAGES * PAGE, RW), HX_OK);
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK(reach(UVA + i * (uintptr_t)PAGE, HX_ACCESS_WRITE));
	}
	/* Now the leaf table is known, and one page may be done straight away. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA + PAGES * PAGE), hx_pa(PA), PAGE, RW), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + PAGES * PAGE), PAGE, NULL, NULL), HX_OK);
	hx_memset(told, 0, sizeof told);
	told_wrong = 0;
	HX_CHECK_STATUS(change(what, first, end), HX_OK);
	/* Plain is what was touched, and what shares a group with it. */
	uint64_t touched = bits(first & ~(GROUP - 1u), (end + GROUP - 1) & ~(GROUP - 1u));
	HX_CHECK_EQUAL(grouped(UVA, PAGES), bits(0, PAGES) & ~(what == LOOK ? 0 : touched));
	WORLD_SOUND(&user);
	for (unsigned i = 0; i < PAGES; i++) {
		const uintptr_t va = UVA + i * (uintptr_t)PAGE;
		const bool in = i >= first && i < end;
		struct hx_translation t = hx_translate(&user, hx_va(va));
		const uint64_t flags = !in || what == LOOK ? RW
				       : what == PROTECT   ? RO | HX_PAGE_DIRTY
				       : what == HARVEST   ? RW & ~HX_PAGE_DIRTY
							   : 0;
		HX_CHECK_STATUS(t.status, flags != 0 ? HX_OK : HX_NOT_MAPPED);
		HX_CHECK_EQUAL(t.flags, flags);
		HX_CHECK(flags == 0 || t.pa.v == PA + i * PAGE);
		HX_CHECK_EQUAL(told[i], in && what == UNMAP);
		HX_CHECK_EQUAL(reach(va, HX_ACCESS_READ), flags != 0);
		HX_CHECK_EQUAL(reach(va, HX_ACCESS_WRITE), (flags & HX_PAGE_WRITABLE) != 0);
		/* The write was seen, wherever the page was cached before. */
		HX_CHECK(flags == 0 || (hx_translate(&user, hx_va(va)).flags & HX_PAGE_DIRTY));
	}
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), PAGES * PAGE, note_release, NULL),
			HX_OK);
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK_EQUAL(told[i], 1);
	}
	HX_CHECK_EQUAL(told_wrong, 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
}

static void check_changes(enum what from, enum what to)
{
	static const unsigned edges[] = {0, 1, 7, 15, 16, 17, 30, 31, 32, 33, 47, 48};
	for (enum what what = from; what <= to; what++) {
		for (unsigned a = 0; a < HX_ARRAY_LENGTH(edges); a++) {
			for (unsigned b = a + 1; b < HX_ARRAY_LENGTH(edges); b++) {
				check_change(what, edges[a], edges[b]);
				if (hx_test_failures() > 0) {
					hx_log("change %u of pages %u to %u", (unsigned)what,
					       edges[a], edges[b]);
					return;
				}
			}
		}
	}
}

HX_TEST(a_change_of_some_pages_leaves_the_others)
{
	if (open_tables(true, HX_SIM_DEFAULT)) {
		check_changes(UNMAP, PROTECT);
		check_changes(HARVEST, LOOK);
		close_tables();
	}
}

HX_TEST(pages_of_a_group_are_hidden)
{
	if (open_tables(false, HX_SIM_DEFAULT)) {
		check_changes(HIDE, HIDE);
		close_tables();
	}
}

/* More rights need no flush: who has cached fewer by a neighbour takes one fault. */
HX_TEST(a_right_that_is_given_to_one_page_reaches_it)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), GROUP * PAGE, RO), HX_OK);
	for (unsigned i = 0; i < GROUP; i++) {
		uintptr_t va = UVA + i * (uintptr_t)PAGE;
		HX_CHECK(reach(va, HX_ACCESS_READ));
		HX_CHECK(!reach(va, HX_ACCESS_WRITE));
		HX_CHECK_STATUS(hx_update_flags(&user, hx_va(va), PAGE, RIGHTS_RW), HX_OK);
		HX_CHECK(reach(va, HX_ACCESS_WRITE));
		HX_CHECK(hx_translate(&user, hx_va(va)).flags & HX_PAGE_DIRTY);
		for (unsigned k = i + 1; k < GROUP; k++) {
			HX_CHECK(!reach(UVA + k * (uintptr_t)PAGE, HX_ACCESS_WRITE));
		}
		WORLD_SOUND(&user);
	}
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), GROUP * PAGE, NULL, NULL), HX_OK);
	close_tables();
}

/* What stays as it is stays a group; a call that is refused changes nothing. */
HX_TEST(a_refused_call_leaves_groups)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), GROUP * PAGE, RW), HX_OK);
	struct hx_va mid = hx_va(UVA + 8 * (uintptr_t)PAGE);
	WORLD_REFUSED(&user, hx_unmap(&user, mid, GROUP * PAGE, NULL, NULL), HX_NOT_MAPPED);
	WORLD_REFUSED(&user, hx_update_flags(&user, mid, GROUP * PAGE, RIGHTS_RO), HX_NOT_MAPPED);
	WORLD_REFUSED(&user, hx_map(&user, mid, hx_pa(PA), PAGE, RW), HX_ALREADY_MAPPED);
	WORLD_REFUSED(&user, hx_map(&user, mid, hx_pa(PA), L1, RW), HX_ALREADY_MAPPED);
	world_fail_after = 0;
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + L1), hx_pa(PA), GROUP * PAGE, RW),
		      HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(grouped(UVA, GROUP), 0xffff);
	HX_CHECK_STATUS(hx_unmap(&user, mid, PAGE, NULL, NULL), HX_OK); /* takes no memory */
	world_fail_after = WORLD_NEVER;
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), GROUP * PAGE, NULL, NULL), HX_OK);
	close_tables();
}

/* ---- Reading, and the validator ---- */

static unsigned visited;

static bool visit(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes, uint64_t flags)
{
	(void)context;
	HX_CHECK_EQUAL(pa.v, PA + (va.v - UVA));
	HX_CHECK_EQUAL(bytes, PAGE);
	HX_CHECK_EQUAL(flags, RW);
	visited++;
	return true;
}

HX_TEST(groups_read_as_pages)
{
	uint64_t leaves[PAGES];
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), PAGES * PAGE, RW), HX_OK);
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(UVA), PAGES, leaves), HX_OK);
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK_EQUAL(leaves[i], (PA + i * PAGE) | (RW & HX_LEAF_FLAGS));
	}
	visited = 0;
	hx_pagetable_visit(&user, visit, NULL);
	HX_CHECK_EQUAL(visited, PAGES);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGES * PAGE, NULL, NULL), HX_OK);
	close_tables();
}

static hx_pte group_of(uint64_t pa, uint64_t flags)
{
	return hx_hal_pte_group(hx_hal_pte_leaf(hx_pa(pa), hx_hal_pte_prot(flags, 0), 0));
}

HX_TEST(the_validator_sees_damaged_groups)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	const uint64_t bytes = L1 + (GROUP + 1) * PAGE;
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), bytes, RW), HX_OK);
	hx_pte *first = world_entry_at(&user, UVA + L1, 0), *alone = &first[GROUP];
	hx_pte *huge = world_entry_at(&user, UVA, 1);
	const hx_pte whole = hx_hal_pte_raw(first), plain = hx_hal_pte_load(alone);
	static const unsigned places[] = {0, 1, GROUP - 1};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(places); i++) {
		hx_pte *p = &first[places[i]];
		world_check_corrupt(&user, p, hx_hal_pte_load(p)); /* plain among the others */
		world_check_corrupt(&user, p, 0);
		world_check_corrupt(&user, p, group_of(PA + L1, RO));
		world_check_corrupt(&user, p, group_of(PA + L1 + GROUP * PAGE, RW));
		world_check_corrupt(&user, p, group_of(PA + L1, RW & ~HX_PAGE_DIRTY));
	}
	world_check_corrupt(&user, alone, hx_hal_pte_group(plain)); /* one alone */
	/* A leaf of the level above, with the sign of a group. */
	world_check_corrupt(&user, huge, hx_hal_pte_group(hx_hal_pte_load(huge)));
	/* All alike, but not settled; and all of them on a machine that has no groups. */
	for (unsigned i = 0; i < GROUP; i++) {
		hx_hal_pte_store(&first[i], group_of(PA + L1, RW & ~HX_PAGE_DIRTY));
	}
	HX_CHECK_STATUS(hx_pagetable_validate(&user), HX_CORRUPTED);
	for (unsigned i = 0; i < GROUP; i++) {
		hx_hal_pte_store(&first[i], whole);
	}
	WORLD_SOUND(&user);
	hx_hal_geometry.group_bits = 0;
	HX_CHECK_STATUS(hx_pagetable_validate(&user), HX_CORRUPTED);
	hx_hal_geometry.group_bits = 4;
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), bytes, NULL, NULL), HX_OK);
	close_tables();
}

HX_TEST(groups_and_break_before_make_exclude_each_other)
{
	if (!open_tables(true, HX_SIM_DEFAULT)) {
		return;
	}
	struct hx_pagetable t;
	struct hx_pagetable_config c = {.frames = &world_frames};
	hx_hal_geometry.features |= HX_MMU_BREAK_BEFORE_MAKE;
	HX_CHECK_STATUS(hx_pagetable_init(&t, &c), HX_NOT_SUPPORTED);
	hx_hal_geometry.features &= ~HX_MMU_BREAK_BEFORE_MAKE;
	hx_hal_geometry.group_bits = hx_hal_geometry.bits[0] + 1;
	HX_CHECK_STATUS(hx_pagetable_init(&t, &c), HX_NOT_SUPPORTED);
	hx_hal_geometry.group_bits = 4;
	close_tables();
}

HX_SUITE(mapper_groups, HX_CASE(groups_are_made_where_leaves_fit),
	 HX_CASE(without_hardware_marks_all_leaves_are_settled),
	 HX_CASE(groups_stand_beside_huge_leaves), HX_CASE(fold_makes_groups_of_single_pages),
	 HX_CASE(groups_fold_into_a_huge_leaf),
	 HX_CASE(a_leaf_table_of_groups_is_told_page_by_page),
	 HX_CASE(a_change_of_some_pages_leaves_the_others), HX_CASE(pages_of_a_group_are_hidden),
	 HX_CASE(a_right_that_is_given_to_one_page_reaches_it),
	 HX_CASE(a_refused_call_leaves_groups), HX_CASE(groups_read_as_pages),
	 HX_CASE(the_validator_sees_damaged_groups),
	 HX_CASE(groups_and_break_before_make_exclude_each_other));
