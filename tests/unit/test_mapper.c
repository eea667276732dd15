/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The mapper against a flat model, with every allocation failing in turn, and
 * with the validator run after every step. Tables that are loaded on several CPUs
 * are test_mapper_threads.c's.
 */
#include "machine.h"
#include "mapper_world.h"

#define RW (HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE)
#define RO (HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE)
#define RX (HX_PAGE_KERNEL_CODE)
#define URW (RW | HX_PAGE_USER)
#define URO (RO | HX_PAGE_USER)

#define PAGE HX_KIB(4)
#define L1 HX_MIB(2)
#define L2 HX_GIB(1)
#define PA HX_GIB(8) /* mapped, never touched */

/* Low in the user half of every geometry, on a 1 GiB border. */
#define UVA ((uintptr_t)HX_GIB(6))

enum { WORLD_ORDER = 12, WORLD_FRAMES = 1 << WORLD_ORDER };

static struct hx_pagetable kernel, user;

static uintptr_t kva(void)
{
	return hx_kernel_start() + UVA;
}

/* A frame pool out of the machine's memory, taken once. */
static void open_frames(void)
{
	static struct hx_pfn first;
	if (first.v == 0) {
		struct hx_pfn_result r =
			hx_frames_allocate(hx_test_machine()->frames, WORLD_ORDER, 0);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		first = r.value;
	}
	world_open(first, WORLD_FRAMES);
}

static struct hx_pagetable_config config(void)
{
	return (struct hx_pagetable_config){.frames = &world_frames, .huge = true};
}

/* An empty sealed kernel table with the root entries around kva(), a user table on it. */
static void open_tables(bool huge, enum hx_wx_policy wx)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable_config c = config();
	c.huge = huge;
	c.wx = wx;
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	HX_REQUIRE_STATUS(hx_pagetable_prepare(&kernel, hx_va(kva() - L2), 4 * L2), HX_OK);
	hx_pagetable_seal(&kernel);
	c.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &c), HX_OK);
	WORLD_SOUND(&kernel);
	WORLD_SOUND(&user);
}

/* Nothing may be left behind. */
static void close_tables(void)
{
	WORLD_SOUND(&user);
	WORLD_SOUND(&kernel);
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

static bool has_level(unsigned level)
{
	return (hx_hal_geometry.leaf_levels >> level & 1) != 0;
}

/* Is the page at @va mapped to @pa by a leaf of @level? */
static void check_leaf(struct hx_pagetable *t, uintptr_t va, uint64_t pa, unsigned level)
{
	struct hx_translation r = hx_translate(t, hx_va(va));
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_EQUAL(r.pa.v, pa);
	HX_CHECK_EQUAL(r.level, level);
	HX_CHECK_EQUAL((r.flags & HX_PAGE_HUGE) != 0, level > 0);
}

static void check_absent(struct hx_pagetable *t, uintptr_t va)
{
	HX_CHECK_STATUS(hx_translate(t, hx_va(va)).status, HX_NOT_MAPPED);
}

/* ---- Life ---- */

static bool count_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	(void)va;
	(void)pa;
	(void)bytes;
	(void)flags;
	++*(unsigned *)context;
	return true;
}

HX_TEST(init_checks_its_arguments)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable t = {.asid_token = 77}, other = {0};
	struct hx_pagetable_config c = config();
	HX_CHECK_STATUS(hx_pagetable_init(NULL, &c), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_pagetable_init(&t, NULL), HX_INVALID_ARGUMENT);
	c.frames = NULL;
	HX_CHECK_STATUS(hx_pagetable_init(&t, &c), HX_INVALID_ARGUMENT);
	c = config();
	c.wx = (enum hx_wx_policy)(HX_WX_OFF + 1);
	HX_CHECK_STATUS(hx_pagetable_init(&t, &c), HX_INVALID_ARGUMENT);
	c = config();
	HX_REQUIRE_STATUS(hx_pagetable_init(&other, &c), HX_OK);
	c.kernel = &other;
	HX_CHECK_STATUS(hx_pagetable_init(&t, &c), HX_NOT_INITIALIZED); /* not sealed */
	hx_pagetable_seal(&other);
	world_fail_after = 0;
	HX_CHECK_STATUS(hx_pagetable_init(&t, &c), HX_OUT_OF_MEMORY);
	world_fail_after = WORLD_NEVER;
	HX_CHECK(t.asid_token == 77 && t.frames == NULL);
	HX_REQUIRE_STATUS(hx_pagetable_init(&t, &c), HX_OK);
	c.kernel = &t; /* a user table */
	struct hx_pagetable third = {0};
	HX_CHECK_STATUS(hx_pagetable_init(&third, &c), HX_INVALID_ARGUMENT);

	HX_CHECK_STATUS(hx_pagetable_destroy(&t), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&t), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_pagetable_destroy(&third), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_pagetable_destroy(NULL), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_pagetable_destroy(&other), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
	c.kernel = &other; /* it has ended: there is no root to copy */
	HX_CHECK_STATUS(hx_pagetable_init(&third, &c), HX_NOT_INITIALIZED);
	hx_pagetable_seal(NULL);
	hx_pagetable_seal(&third);
	HX_CHECK(!third.sealed && third.frames == NULL);
	/* What has no status to give does nothing to none, and to one that has ended. */
	struct hx_pagetable *none[] = {NULL, &third, &t};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(none); i++) {
		unsigned visits = 0;
		hx_flush_all(none[i]);
		hx_pagetable_visit(none[i], count_leaf, &visits);
		HX_CHECK_EQUAL(visits, 0);
		HX_CHECK_EQUAL(hx_pagetable_counters(none[i]).tables, 0);
		HX_CHECK_STATUS(hx_pagetable_validate(none[i]), HX_NOT_INITIALIZED);
		HX_CHECK(!hx_pagetable_is_loaded(none[i]));
	}
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

HX_TEST(init_refuses_a_geometry_that_it_cannot_walk)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable t = {0};
	struct hx_pagetable_config c = config();
	const struct hx_geometry good = hx_hal_geometry;
	struct hx_geometry bad[8];
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad); i++) {
		bad[i] = good;
	}
	bad[0].levels = 1;
	bad[1].levels = HX_LEVELS_MAX + 1;
	bad[2].page_shift = 13;
	bad[3].va_bits++;
	bad[4].pa_bits = 57;
	bad[5].leaf_levels = 0x6; /* no single pages */
	bad[6].leaf_levels = 0x5; /* a gap */
	bad[7].bits[1] = 10;      /* a table of two frames */
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad); i++) {
		hx_hal_geometry = bad[i];
		hx_status s = hx_pagetable_init(&t, &c);
		hx_hal_geometry = good;
		HX_CHECK_STATUS(s, HX_NOT_SUPPORTED);
	}
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

HX_TEST(destroy_frees_every_table)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	uint64_t before = world_free_count();
	for (unsigned i = 0; i < 40; i++) { /* far apart: tables of every level */
		uintptr_t at = (uintptr_t)i * (uintptr_t)(3 * L2 + 5 * L1 + PAGE);
		HX_CHECK_STATUS(hx_map(&user, hx_va(at), hx_pa(PA), PAGE, URW), HX_OK);
		HX_CHECK_STATUS(
			hx_map(&kernel, hx_va(kva() + i * (L1 + PAGE)), hx_pa(PA), PAGE, RW),
			HX_OK);
	}
	HX_CHECK_EQUAL(world_free_count() + hx_pagetable_counters(&user).tables +
			       hx_pagetable_counters(&kernel).tables,
		       WORLD_FRAMES);
	HX_CHECK(world_free_count() < before - 80);
	close_tables();
}

/* ---- Arguments ---- */

struct bad_range {
	uintptr_t va;
	uint64_t bytes;
	hx_status status;
};

/* Every operation over a range refuses these alike. */
static void check_ranges(struct hx_pagetable *t, const struct bad_range *bad, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		struct hx_va va = hx_va(bad[i].va);
		uint64_t bytes = bad[i].bytes;
		hx_status s = bad[i].status;
		WORLD_REFUSED(t, hx_map(t, va, hx_pa(PA), bytes, RW), s);
		WORLD_REFUSED(t, hx_unmap(t, va, bytes, NULL, NULL), s);
		WORLD_REFUSED(t, hx_unmap_sparse(t, va, bytes, NULL, NULL), s);
		WORLD_REFUSED(t, hx_update_flags(t, va, bytes, RO), s);
		WORLD_REFUSED(t, hx_update_flags_sparse(t, va, bytes, RO), s);
		WORLD_REFUSED(t, hx_flush(t, va, bytes), s);
		if (t->kernel) {
			WORLD_REFUSED(t, hx_pagetable_prepare(t, va, bytes), s);
		}
	}
	WORLD_SOUND(t);
}

HX_TEST(ranges_are_checked)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	uintptr_t end = hx_user_end(), start = hx_kernel_start();
	const struct bad_range for_user[] = {
		{UVA + 1, PAGE, HX_INVALID_ALIGNMENT},
		{UVA + PAGE / 2, PAGE, HX_INVALID_ALIGNMENT},
		{UVA, 1, HX_INVALID_ALIGNMENT},
		{UVA, PAGE + 1, HX_INVALID_ALIGNMENT},
		{UVA, UINT64_MAX, HX_INVALID_ALIGNMENT},
		{UVA, 0, HX_INVALID_SIZE},
		{0, (uint64_t)end + PAGE, HX_INVALID_ADDRESS},
		{end - PAGE, 2 * PAGE, HX_INVALID_ADDRESS}, /* into the hole */
		{end, PAGE, HX_INVALID_ADDRESS},
		{end + L2, PAGE, HX_INVALID_ADDRESS},
		{start - PAGE, PAGE, HX_INVALID_ADDRESS},
		{start - PAGE, 2 * PAGE, HX_INVALID_ADDRESS},
		{start, PAGE, HX_INVALID_ADDRESS}, /* the kernel's half */
		{UINTPTR_MAX - PAGE + 1, PAGE, HX_INVALID_ADDRESS},
		{UINTPTR_MAX - PAGE + 1, 2 * PAGE, HX_INVALID_ADDRESS}, /* wraps to 0 */
		{PAGE, UINT64_MAX - PAGE + 1, HX_INVALID_ADDRESS},      /* ends at 0 */
		{2 * PAGE, UINT64_MAX - PAGE + 1, HX_INVALID_ADDRESS},  /* ends at one page */
	};
	const struct bad_range for_kernel[] = {
		{start + 8, PAGE, HX_INVALID_ALIGNMENT},
		{start, PAGE - 1, HX_INVALID_ALIGNMENT},
		{start, 0, HX_INVALID_SIZE},
		{0, PAGE, HX_INVALID_ADDRESS},
		{UVA, PAGE, HX_INVALID_ADDRESS},
		{end - PAGE, PAGE, HX_INVALID_ADDRESS},
		{start - PAGE, 2 * PAGE, HX_INVALID_ADDRESS},
		{start - PAGE, PAGE, HX_INVALID_ADDRESS},
		{UINTPTR_MAX - PAGE + 1, 2 * PAGE, HX_INVALID_ADDRESS},
		{start, UINT64_MAX - PAGE + 1, HX_INVALID_ADDRESS},
	};
	check_ranges(&user, for_user, HX_ARRAY_LENGTH(for_user));
	check_ranges(&kernel, for_kernel, HX_ARRAY_LENGTH(for_kernel));
	WORLD_REFUSED(&user, hx_pagetable_prepare(&user, hx_va(UVA), PAGE), HX_INVALID_ARGUMENT);
	close_tables();

	/* Nothing was initialised, or no longer is. */
	struct hx_pagetable *none[] = {NULL, &user};
	for (unsigned i = 0; i < 2; i++) {
		struct hx_pagetable *t = none[i];
		struct hx_va va = hx_va(UVA);
		HX_CHECK_STATUS(hx_map(t, va, hx_pa(PA), PAGE, RW), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_unmap(t, va, PAGE, NULL, NULL), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_unmap_sparse(t, va, PAGE, NULL, NULL), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_update_flags(t, va, PAGE, RW), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_update_flags_sparse(t, va, PAGE, RW), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_flush(t, va, PAGE), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_pagetable_prepare(t, va, PAGE), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_pagetable_validate(t), HX_NOT_INITIALIZED);
		HX_CHECK_STATUS(hx_translate(t, va).status, HX_NOT_INITIALIZED);
		hx_flush_all(t);
		uint64_t h = 1;
		hx_pagetable_visit(t, world_hash_leaf, &h);
		HX_CHECK_EQUAL(h, 1);
	}
}

static void check_bad_maps(struct hx_va va)
{
	uint64_t pa_end = UINT64_C(1) << hx_hal_geometry.pa_bits;
	const struct {
		uint64_t pa, bytes, flags;
		hx_status status;
	} bad[] = {
		{PA + 1, PAGE, URW, HX_INVALID_ALIGNMENT},
		{PA + PAGE / 2, PAGE, URW, HX_INVALID_ALIGNMENT},
		{pa_end, PAGE, URW, HX_INVALID_ADDRESS},
		{pa_end - PAGE, 2 * PAGE, URW, HX_INVALID_ADDRESS},
		{UINT64_MAX - PAGE + 1, PAGE, URW, HX_INVALID_ADDRESS},
		{UINT64_MAX - PAGE + 1, 2 * PAGE, URW, HX_INVALID_ADDRESS}, /* wraps */
		{PA, PAGE, 0, HX_INVALID_ARGUMENT},
		{PA, PAGE, URW & ~HX_PAGE_PRESENT, HX_INVALID_ARGUMENT},
		{PA, PAGE, URW | UINT64_C(1) << 9, HX_INVALID_ARGUMENT},
		{PA, PAGE, URW | UINT64_C(1) << 55, HX_INVALID_ARGUMENT},
		{PA, PAGE, URW | UINT64_C(1) << 62, HX_INVALID_ARGUMENT},
		{PA, PAGE, URW | HX_PAGE_GLOBAL, HX_INVALID_ARGUMENT},
		{PA, L1, URW | HX_MAP_NO_HUGE | HX_MAP_LEVEL_1, HX_INVALID_ARGUMENT},
		{PA, L2, URW | HX_MAP_LEVEL_1 | HX_MAP_LEVEL_2, HX_INVALID_ARGUMENT},
		{PA, PAGE, URW | HX_MAP_LEVEL_1, HX_INVALID_ALIGNMENT},
		{PA + PAGE, L1, URW | HX_MAP_LEVEL_1, HX_INVALID_ALIGNMENT},
		{PA, L1 + PAGE, URW | HX_MAP_LEVEL_1, HX_INVALID_ALIGNMENT},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad); i++) {
		WORLD_REFUSED(&user,
			      hx_map(&user, va, hx_pa(bad[i].pa), bad[i].bytes, bad[i].flags),
			      bad[i].status);
	}
}

HX_TEST(frames_and_flags_are_checked)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	struct hx_va va = hx_va(UVA);
	uint64_t pa_end = UINT64_C(1) << hx_hal_geometry.pa_bits;
	check_bad_maps(va);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + PAGE), hx_pa(PA), L1, URW | HX_MAP_LEVEL_1),
		      HX_INVALID_ALIGNMENT);
	if (has_level(2)) {
		WORLD_REFUSED(&user, hx_map(&user, va, hx_pa(PA + L1), L2, URW | HX_MAP_LEVEL_2),
			      HX_INVALID_ALIGNMENT);
	} else {
		WORLD_REFUSED(&user, hx_map(&user, va, hx_pa(PA), L2, URW | HX_MAP_LEVEL_2),
			      HX_NOT_SUPPORTED);
	}
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(pa_end - PAGE), PAGE, URW), HX_OK);
	check_leaf(&user, UVA, pa_end - PAGE, 0);
	const uint64_t bad_flags[] = {0, URW & ~HX_PAGE_PRESENT, URW | UINT64_C(1) << 9,
				      URW | HX_PAGE_GLOBAL, URW | HX_MAP_NO_HUGE};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad_flags); i++) {
		WORLD_REFUSED(&user, hx_update_flags(&user, va, PAGE, bad_flags[i]),
			      HX_INVALID_ARGUMENT);
		WORLD_REFUSED(&user, hx_update_flags_sparse(&user, va, PAGE, bad_flags[i]),
			      HX_INVALID_ARGUMENT);
	}
	close_tables();
}

/* ---- The ends of the address space ---- */

static void check_edge(struct hx_pagetable *t, uintptr_t va, uint64_t bytes)
{
	uint64_t before = world_hash(t);
	uint64_t last = va + (bytes - 1);
	HX_CHECK_STATUS(hx_map(t, hx_va(va), hx_pa(PA), bytes, RW), HX_OK);
	WORLD_SOUND(t);
	HX_CHECK_EQUAL(hx_translate(t, hx_va(va)).pa.v, PA);
	HX_CHECK_EQUAL(hx_translate(t, hx_va((uintptr_t)last)).pa.v, PA + bytes - 1);
	WORLD_REFUSED(t, hx_map(t, hx_va(va), hx_pa(PA), bytes, RW), HX_ALREADY_MAPPED);
	HX_CHECK_STATUS(hx_update_flags(t, hx_va(va), bytes, RO), HX_OK);
	HX_CHECK_EQUAL(hx_translate(t, hx_va((uintptr_t)last)).flags & HX_PAGE_WRITABLE, 0);
	HX_CHECK_STATUS(hx_flush(t, hx_va(va), bytes), HX_OK);
	HX_CHECK_STATUS(hx_unmap(t, hx_va(va), bytes, NULL, NULL), HX_OK);
	WORLD_SOUND(t);
	check_absent(t, va);
	check_absent(t, (uintptr_t)last);
	HX_CHECK_EQUAL(world_hash(t), before);
}

HX_TEST(first_and_last_pages_of_both_halves)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable_config c = config();
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	/* The root's tables come and stay: let them be there before counts are compared. */
	HX_REQUIRE_STATUS(hx_pagetable_prepare(&kernel, hx_va(hx_kernel_start()), PAGE), HX_OK);
	HX_REQUIRE_STATUS(hx_pagetable_prepare(&kernel, hx_va((uintptr_t)0 - 2 * L2), 2 * L2),
			  HX_OK);
	hx_pagetable_seal(&kernel);
	c.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &c), HX_OK);

	uintptr_t end = hx_user_end();
	check_edge(&user, 0, PAGE);
	check_edge(&user, 0, L1 + PAGE);
	check_edge(&user, end - PAGE, PAGE);
	check_edge(&user, end - L1 - PAGE, L1 + PAGE);
	check_edge(&user, end - 2 * L2, 2 * L2);
	check_edge(&kernel, hx_kernel_start(), PAGE);
	check_edge(&kernel, hx_kernel_start(), L1 + PAGE);
	check_edge(&kernel, (uintptr_t)0 - PAGE, PAGE);
	check_edge(&kernel, (uintptr_t)0 - L1 - PAGE, L1 + PAGE);
	/* One short of the top: the last page stays free. */
	check_edge(&kernel, (uintptr_t)0 - 2 * PAGE, PAGE);
	check_absent(&kernel, (uintptr_t)0 - 1);

	/* Addresses that are none. */
	HX_CHECK_STATUS(hx_translate(&user, hx_va(end)).status, HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_translate(&user, hx_va(hx_kernel_start() - 1)).status,
			HX_INVALID_ADDRESS);
	check_absent(&user, end - 1);
	check_absent(&user, hx_kernel_start());
	close_tables();
}

/* ---- Leaves of every size ---- */

struct sizes {
	uint64_t leaves[HX_LEVELS_MAX];
	uintptr_t next; /* lowest address that the next leaf may have */
	bool ordered;
	unsigned stop_after; /* 0: never */
	unsigned seen;
};

static bool count_sizes(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			uint64_t flags)
{
	(void)pa;
	struct sizes *s = context;
	unsigned level = 0;
	while (UINT64_C(1) << world_shift(level) != bytes) {
		level++;
	}
	s->leaves[level]++;
	s->ordered = s->ordered && va.v >= s->next && ((flags & HX_PAGE_HUGE) != 0) == (level > 0);
	s->next = va.v + (uintptr_t)bytes;
	return ++s->seen != s->stop_after;
}

static struct sizes sizes_of(struct hx_pagetable *t)
{
	struct sizes s = {.ordered = true};
	hx_pagetable_visit(t, count_sizes, &s);
	HX_CHECK(s.ordered);
	return s;
}

static void check_sizes(struct hx_pagetable *t, uint64_t small, uint64_t level1, uint64_t level2)
{
	struct sizes s = sizes_of(t);
	HX_CHECK_EQUAL(s.leaves[0], small);
	HX_CHECK_EQUAL(s.leaves[1], level1);
	HX_CHECK_EQUAL(s.leaves[2], level2);
}

HX_TEST(the_largest_leaf_is_taken)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	bool giant = has_level(2);
	struct hx_va low = hx_va(UVA - L1 - PAGE);
	/* 4 KiB, 2 MiB, 1 GiB, 2 MiB, 4 KiB */
	uint64_t bytes = 2 * PAGE + 2 * L1 + L2;
	HX_CHECK_STATUS(hx_map(&user, low, hx_pa(PA - L1 - PAGE), bytes, URW), HX_OK);
	check_sizes(&user, 2, giant ? 2 : 2 + 512, giant ? 1 : 0);
	check_leaf(&user, UVA - L1 - 1, PA - L1 - 1, 0);
	check_leaf(&user, UVA - L1 + 0x12345, PA - L1 + 0x12345, 1);
	check_leaf(&user, UVA + 0x1234567, PA + 0x1234567, giant ? 2 : 1);
	check_leaf(&user, UVA + L2 + L1 + 0xfff, PA + L2 + L1 + 0xfff, 0);
	WORLD_SOUND(&user);
	HX_CHECK_STATUS(hx_unmap(&user, low, bytes, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);

	/* The physical side decides as well. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA + PAGE), L1, URW), HX_OK);
	check_sizes(&user, 512, 0, 0);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA + L1), L2, URW), HX_OK);
	check_sizes(&user, 0, 512, 0);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);

	/* Told which. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW | HX_MAP_NO_HUGE), HX_OK);
	check_sizes(&user, 512, 0, 0);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW | HX_MAP_LEVEL_1), HX_OK);
	check_sizes(&user, 0, 512, 0);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);
	if (giant) {
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW | HX_MAP_LEVEL_2),
				HX_OK);
		check_sizes(&user, 0, 0, 1);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);
	}
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).splits, 0);

	/* A visit that is told to stop does. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), 8 * PAGE, URW), HX_OK);
	struct sizes s = {.ordered = true, .stop_after = 3};
	hx_pagetable_visit(&user, count_sizes, &s);
	HX_CHECK_EQUAL(s.seen, 3);
	close_tables();
}

HX_TEST(a_table_without_huge_leaves)
{
	open_tables(false, HX_WX_FORCE);
	HX_BAIL();
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), 2 * L1, URW), HX_OK);
	check_sizes(&user, 1024, 0, 0);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + L2), hx_pa(PA), L1, URW | HX_MAP_LEVEL_1),
		      HX_NOT_SUPPORTED);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + L2), hx_pa(PA), L2, URW | HX_MAP_LEVEL_2),
		      HX_NOT_SUPPORTED);
	close_tables();
}

HX_TEST(what_is_mapped_is_not_mapped_over)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	struct hx_va va = hx_va(UVA);
	/* A page in the way, at either end and in the middle, of small and huge ranges. */
	const uintptr_t at[] = {UVA, UVA + 511 * PAGE, UVA + L1, UVA + L1 + 77 * PAGE,
				UVA + 4 * L1 - PAGE};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(at); i++) {
		HX_CHECK_STATUS(hx_map(&user, hx_va(at[i]), hx_pa(PA), PAGE, URW), HX_OK);
		WORLD_REFUSED(&user, hx_map(&user, va, hx_pa(PA), 4 * L1, URW), HX_ALREADY_MAPPED);
		WORLD_REFUSED(&user, hx_map(&user, va, hx_pa(PA), 4 * L1, URW | HX_MAP_NO_HUGE),
			      HX_ALREADY_MAPPED);
		WORLD_REFUSED(&user, hx_map(&user, va, hx_pa(PA), 4 * L1, URW | HX_MAP_LEVEL_1),
			      HX_ALREADY_MAPPED);
		WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA - L2), hx_pa(PA), 2 * L2, URW),
			      HX_ALREADY_MAPPED);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(at[i]), PAGE, NULL, NULL), HX_OK);
	}
	/* A huge leaf in the way of a page. */
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), L2, URW), HX_OK);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + 9 * PAGE), hx_pa(PA), PAGE, URW),
		      HX_ALREADY_MAPPED);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA - PAGE), hx_pa(PA), 2 * PAGE, URW),
		      HX_ALREADY_MAPPED);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + L2 - PAGE), hx_pa(PA), 2 * PAGE, URW),
		      HX_ALREADY_MAPPED);
	WORLD_SOUND(&user);
	close_tables();
}

HX_TEST(huge_leaves_are_split_where_a_range_ends)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	const struct {
		uint64_t from, to;      /* the hole that is cut, from UVA */
		uint64_t small, level1; /* leaves after it, of one leaf of 2 MiB */
		uint64_t splits;
	} cuts[] = {
		{0, PAGE, 511, 0, 1},
		{L1 - PAGE, L1, 511, 0, 1},
		{5 * PAGE, 9 * PAGE, 508, 0, 1},
		{0, L1, 0, 0, 0},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cuts); i++) {
		uint64_t splits = hx_pagetable_counters(&user).splits;
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW | HX_PAGE_DIRTY),
				HX_OK);
		check_sizes(&user, 0, 1, 0);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + (uintptr_t)cuts[i].from),
					 cuts[i].to - cuts[i].from, NULL, NULL),
				HX_OK);
		WORLD_SOUND(&user);
		check_sizes(&user, cuts[i].small, cuts[i].level1, 0);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).splits - splits, cuts[i].splits);
		for (uint64_t at = 0; at < L1; at += PAGE) {
			if (at >= cuts[i].from && at < cuts[i].to) {
				check_absent(&user, UVA + (uintptr_t)at);
			} else {
				check_leaf(&user, UVA + (uintptr_t)at, PA + at, 0);
				HX_CHECK(hx_translate(&user, hx_va(UVA + (uintptr_t)at)).flags &
					 HX_PAGE_DIRTY);
			}
		}
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	}
	/* Rights of the middle of a leaf; the same rights split nothing. */
	uint64_t splits = hx_pagetable_counters(&user).splits;
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW), HX_OK);
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + PAGE), PAGE, URW), HX_OK);
	check_sizes(&user, 0, 1, 0);
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + PAGE), PAGE, URO), HX_OK);
	check_sizes(&user, 512, 0, 0);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).splits - splits, 1);
	HX_CHECK(!(hx_translate(&user, hx_va(UVA + PAGE)).flags & HX_PAGE_WRITABLE));
	HX_CHECK(hx_translate(&user, hx_va(UVA)).flags & HX_PAGE_WRITABLE);
	HX_CHECK(hx_translate(&user, hx_va(UVA + 2 * PAGE)).flags & HX_PAGE_WRITABLE);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);

	if (has_level(2)) {
		/* A page out of the middle of 1 GiB: two splits, two tables more. */
		splits = hx_pagetable_counters(&user).splits;
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW), HX_OK);
		uint64_t tables = hx_pagetable_counters(&user).tables;
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + 3 * L1 + PAGE), PAGE, NULL, NULL),
				HX_OK);
		check_sizes(&user, 511, 511, 0);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).splits - splits, 2);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, tables); /* from those kept */
		check_leaf(&user, UVA + 3 * L1, PA + 3 * L1, 0);
		check_leaf(&user, UVA + 4 * L1, PA + 4 * L1, 1);
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
		/* Both ends of the range in one leaf, in different leaves of 2 MiB. */
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW), HX_OK);
		splits = hx_pagetable_counters(&user).splits;
		HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + L1 + PAGE), 5 * L1, URO), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).splits - splits, 3);
		check_sizes(&user, 1024, 510, 0);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);
	}
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	close_tables();
}

HX_TEST(break_before_make_leaves_the_same_tables)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	const struct hx_geometry before = hx_hal_geometry;
	hx_hal_geometry.group_bits = 0; /* one excludes the other */
	uint64_t hash[2];
	for (unsigned i = 0; i < 2; i++) {
		hx_hal_geometry.features |= i == 1 ? HX_MMU_BREAK_BEFORE_MAKE : 0;
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW), HX_OK);
		world_mark(&user, UVA, HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + PAGE), L1, NULL, NULL), HX_OK);
		WORLD_SOUND(&user);
		HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + 3 * L1 - PAGE), 2 * L1,
						URO | HX_PAGE_NO_CACHE),
				HX_OK);
		WORLD_SOUND(&user);
		HX_CHECK(hx_translate(&user, hx_va(UVA + 3 * L1)).flags & HX_PAGE_DIRTY);
		hash[i] = 1;
		hx_pagetable_visit(&user, world_hash_leaf, &hash[i]);
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	}
	hx_hal_geometry = before;
	HX_CHECK_EQUAL(hash[0], hash[1]);
	close_tables();
}

/* ---- Memory ---- */

/* Calls that need tables, each after set-up calls that are given all they want. */
struct scenario {
	const char *name;
	bool split; /* a huge leaf stands at UVA first */
	enum { MAP, UNMAP, UPDATE } call;
	uint64_t from, bytes, flags;
};

static hx_status run_scenario(const struct scenario *s)
{
	struct hx_va va = hx_va(UVA + (uintptr_t)s->from);
	switch (s->call) {
	case MAP:
		return hx_map(&user, va, hx_pa(PA + s->from), s->bytes, s->flags);
	case UNMAP:
		return hx_unmap(&user, va, s->bytes, NULL, NULL);
	case UPDATE:
		break;
	}
	return hx_update_flags(&user, va, s->bytes, s->flags);
}

HX_TEST(every_allocation_may_fail)
{
	static const struct scenario scenarios[] = {
		{"page", false, MAP, 0, PAGE, URW},
		{"pages across tables", false, MAP, L1 - PAGE, 2 * PAGE, URW},
		{"pages across roots of tables", false, MAP, L2 - PAGE, 2 * PAGE, URW},
		{"many tables", false, MAP, PAGE, 20 * L1, URW | HX_MAP_NO_HUGE},
		{"mixed leaves", false, MAP, L1 - PAGE, L2, URW},
		{"beside a leaf", true, MAP, L2 + L1, 3 * L1, URW | HX_MAP_NO_HUGE},
		{"unmap the start", true, UNMAP, 0, PAGE, 0},
		{"unmap the middle", true, UNMAP, 5 * L1 + PAGE, L1, 0},
		{"unmap the end", true, UNMAP, L2 - PAGE, PAGE, 0},
		{"protect the middle", true, UPDATE, 5 * L1 + PAGE, 7 * L1, URO},
		{"protect two ends", true, UPDATE, PAGE, L2 - 2 * PAGE, URO},
	};
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(scenarios); i++) {
		const struct scenario *s = &scenarios[i];
		if (s->split) {
			HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW), HX_OK);
		}
		uint64_t before = world_hash(&user), free = world_free_count();
		hx_status status = HX_OUT_OF_MEMORY;
		unsigned refusals = 0;
		while (status != HX_OK) {
			world_fail_after = refusals;
			status = run_scenario(s);
			WORLD_SOUND(&user);
			if (status == HX_OK) {
				break;
			}
			HX_REQUIRE_STATUS(status, HX_OUT_OF_MEMORY);
			if (world_hash(&user) != before || world_free_count() != free) {
				hx_test_fail(__FILE__, __LINE__, "%s: refusal %u left a trace",
					     s->name, refusals);
			}
			refusals++;
		}
		/* It failed once for each table that it takes, and at no other place. */
		world_fail_after = WORLD_NEVER;
		/* Splits have theirs from the time that the leaf was made. */
		HX_CHECK_EQUAL(refusals > 0, s->call == MAP);
		if (s->call == MAP) {
			HX_CHECK_EQUAL(free - world_free_count(), refusals);
		}
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 4 * L2, NULL, NULL), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	}
	/* The root's tables of a kernel half that is being prepared. */
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
	struct hx_pagetable_config c = config();
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	uint64_t root = UINT64_C(1) << world_shift(hx_hal_geometry.levels - 1u);
	for (unsigned k = 0; k < 5; k++) {
		world_fail_after = k;
		WORLD_REFUSED(&kernel,
			      hx_pagetable_prepare(&kernel, hx_va(hx_kernel_start()), 5 * root),
			      HX_OUT_OF_MEMORY);
		WORLD_SOUND(&kernel);
	}
	world_fail_after = 5;
	HX_CHECK_STATUS(hx_pagetable_prepare(&kernel, hx_va(hx_kernel_start()), 5 * root), HX_OK);
	world_fail_after = WORLD_NEVER;
	HX_CHECK_EQUAL(hx_pagetable_counters(&kernel).tables, 6);
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

HX_TEST(huge_leaves_keep_the_tables_of_their_splits)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	uint64_t free = world_free_count();
	const uint64_t pages_of_level_1 = UINT64_C(1) << hx_hal_geometry.bits[1];
	/* As many as pages take: a table for each leaf of level 1, and the ones above. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW), HX_OK);
	uint64_t above = free - world_free_count() - 1;
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), free);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW | HX_MAP_NO_HUGE), HX_OK);
	HX_CHECK_EQUAL(free - world_free_count() - 1, above);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, NULL, NULL), HX_OK);
	if (has_level(2)) {
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2, URW), HX_OK);
		check_leaf(&user, UVA, PA, 2);
		HX_CHECK_EQUAL(free - world_free_count(), above + pages_of_level_1);
		/* Every page of it by itself, with nothing to be had. */
		world_fail_after = 0;
		for (uint64_t i = 0; i < pages_of_level_1; i += 37) {
			struct hx_va va = hx_va(UVA + (uintptr_t)(i * L1 + i % 512 * PAGE));
			HX_CHECK_STATUS(hx_update_flags(&user, va, PAGE, URO), HX_OK);
			check_leaf(&user, va.v, PA + i * L1 + i % 512 * PAGE, 0);
			WORLD_SOUND(&user);
		}
		HX_CHECK_EQUAL(free - world_free_count(), above + pages_of_level_1);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L2, NULL, NULL), HX_OK);
		world_fail_after = WORLD_NEVER;
		HX_CHECK_EQUAL(world_free_count(), free);
	}
	/* What a map that fails has put by goes back as well. */
	world_fail_after = 5;
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA), hx_pa(PA), 16 * L1, URW), HX_OUT_OF_MEMORY);
	world_fail_after = WORLD_NEVER;
	/* A table that ends takes what its leaves keep along. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), 3 * L1, URW), HX_OK);
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + L1), PAGE, URO), HX_OK);
	close_tables();
}

HX_TEST(the_direct_map_keeps_none)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable_config c = config();
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	uint64_t half = (uint64_t)(hx_user_end() / 2);
	HX_CHECK_STATUS(hx_pagetable_direct(NULL, half), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_pagetable_direct(&kernel, 0), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_pagetable_direct(&kernel, half + 1), HX_INVALID_ALIGNMENT);
	HX_CHECK_STATUS(hx_pagetable_direct(&kernel, UINT64_MAX - 4095), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_pagetable_direct(&kernel, half), HX_OK);
	struct hx_va va = hx_va(hx_kernel_start() + (uintptr_t)(4 * L2));
	uint64_t free = world_free_count();
	HX_CHECK_STATUS(hx_map(&kernel, va, hx_pa(PA), L2, RW), HX_OK);
	HX_CHECK(free - world_free_count() < 4); /* the way down alone */
	HX_CHECK_STATUS(hx_pagetable_direct(&kernel, half), HX_INVALID_ARGUMENT);
	WORLD_SOUND(&kernel);
	/* So its splits may be refused, and then nothing has changed. */
	struct hx_va page = hx_va(va.v + (uintptr_t)(L1 + PAGE));
	const bool broken = (hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE) != 0;
	if (broken) { /* who would make it anew? */
		WORLD_REFUSED(&kernel, hx_update_flags(&kernel, page, PAGE, RO), HX_NOT_SUPPORTED);
		WORLD_REFUSED(&kernel, hx_unmap(&kernel, page, PAGE, NULL, NULL), HX_NOT_SUPPORTED);
		WORLD_REFUSED(&kernel, hx_update_flags(&kernel, va, L2, RW | HX_PAGE_NO_CACHE),
			      HX_NOT_SUPPORTED);
		HX_CHECK_STATUS(hx_update_flags(&kernel, va, L2, RO), HX_OK);
	}
	for (unsigned k = 0; !broken && k < (has_level(2) ? 2u : 1u); k++) {
		world_fail_after = k;
		WORLD_REFUSED(&kernel, hx_update_flags(&kernel, page, PAGE, RO), HX_OUT_OF_MEMORY);
		WORLD_REFUSED(&kernel, hx_unmap(&kernel, page, PAGE, NULL, NULL), HX_OUT_OF_MEMORY);
		WORLD_SOUND(&kernel);
	}
	world_fail_after = WORLD_NEVER;
	if (!broken) {
		HX_CHECK_STATUS(hx_update_flags(&kernel, page, PAGE, RO), HX_OK);
		check_leaf(&kernel, page.v, PA + L1 + PAGE, 0);
	}
	WORLD_SOUND(&kernel);
	HX_CHECK_STATUS(hx_unmap(&kernel, va, L2, NULL, NULL), HX_OK);
	/* Behind it leaves keep theirs. */
	free = world_free_count();
	struct hx_va behind = hx_va(hx_kernel_start() + (uintptr_t)half);
	HX_CHECK_STATUS(hx_map(&kernel, behind, hx_pa(PA), 8 * L1, RW), HX_OK);
	HX_CHECK(free - world_free_count() >= 8);
	WORLD_SOUND(&kernel);
	/* Only a kernel's table has one. */
	HX_CHECK_STATUS(hx_unmap(&kernel, behind, 8 * L1, NULL, NULL), HX_OK);
	hx_pagetable_seal(&kernel);
	c.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &c), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_direct(&user, half), HX_INVALID_ARGUMENT);
	close_tables();
}

/* A leaf lies in the direct map or behind it: what it keeps is one or the other. */
HX_TEST(no_leaf_straddles_the_end_of_the_direct_map)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable_config c = config();
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_direct(&kernel, L2 + L1 + PAGE), HX_OK);
	struct hx_va base = hx_va(hx_kernel_start());
	HX_CHECK_STATUS(hx_map(&kernel, base, hx_pa(PA), 2 * L2, RW), HX_OK);
	WORLD_SOUND(&kernel);
	HX_CHECK_EQUAL(hx_translate(&kernel, base).level, has_level(2) ? 2 : 1);
	check_leaf(&kernel, base.v + (uintptr_t)L2, PA + L2, 1);
	check_leaf(&kernel, base.v + (uintptr_t)(L2 + L1), PA + L2 + L1, 0);
	struct hx_va page = hx_va(base.v + (uintptr_t)(L2 + 3 * L1 + PAGE));
	HX_CHECK_STATUS(hx_update_flags(&kernel, page, PAGE, RO), HX_OK);
	WORLD_SOUND(&kernel);
	HX_CHECK_STATUS(hx_update_flags(&kernel, page, PAGE, RW), HX_OK);
	HX_CHECK_STATUS(hx_fold(&kernel, base, 2 * L2), HX_OK);
	WORLD_SOUND(&kernel);
	check_leaf(&kernel, page.v, PA + L2 + 3 * L1 + PAGE, 1);
	check_leaf(&kernel, base.v + (uintptr_t)(L2 + L1), PA + L2 + L1, 0);
	HX_CHECK_STATUS(hx_unmap(&kernel, base, 2 * L2, NULL, NULL), HX_OK);
	WORLD_SOUND(&kernel);
	struct hx_va over = hx_va(base.v + (uintptr_t)(L2 + L1));
	WORLD_REFUSED(&kernel, hx_map(&kernel, over, hx_pa(PA), L1, RW | HX_MAP_LEVEL_1),
		      HX_NOT_SUPPORTED);
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

/* Where that takes a break, whose pages hold the very tables: they stay. */
HX_TEST(the_direct_map_is_not_folded_by_breaking_it)
{
	(void)hx_test_machine();
	const struct hx_geometry before = hx_hal_geometry;
	hx_hal_geometry.group_bits = 0; /* one excludes the other */
	for (unsigned i = 0; i < 2; i++) {
		open_frames();
		HX_BAIL();
		hx_hal_geometry.features |= i == 1 ? HX_MMU_BREAK_BEFORE_MAKE : 0;
		const bool breaks = (hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE) != 0;
		struct hx_pagetable_config c = config();
		HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
		HX_CHECK_STATUS(hx_pagetable_direct(&kernel, L2), HX_OK);
		struct hx_va direct = hx_va(hx_kernel_start());
		struct hx_va behind = hx_va(direct.v + (uintptr_t)L2);
		HX_CHECK_STATUS(hx_map(&kernel, direct, hx_pa(PA), L1, RW | HX_MAP_NO_HUGE), HX_OK);
		HX_CHECK_STATUS(hx_map(&kernel, behind, hx_pa(PA), L1, RW | HX_MAP_NO_HUGE), HX_OK);
		HX_CHECK_STATUS(hx_fold(&kernel, direct, 2 * L2), HX_OK);
		check_leaf(&kernel, direct.v + PAGE, PA + PAGE, breaks ? 0 : 1);
		check_leaf(&kernel, behind.v + PAGE, PA + PAGE, 1);
		WORLD_SOUND(&kernel);
		HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
		HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
	}
	hx_hal_geometry = before;
}

HX_TEST(leaves_that_fit_together_are_folded)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	struct hx_va va = hx_va(UVA), page = hx_va(UVA + 5 * PAGE);
	uint64_t free = world_free_count();
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), L1, URW), HX_OK);
	uint64_t with_one = world_free_count();
	/* There and back; from pages that were mapped as such; in a range that is longer. */
	for (unsigned i = 0; i < 3; i++) {
		if (i == 2) {
			HX_CHECK_STATUS(hx_unmap(&user, va, L1, NULL, NULL), HX_OK);
			HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), L1, URW | HX_MAP_NO_HUGE),
					HX_OK);
		} else {
			HX_CHECK_STATUS(hx_update_flags(&user, page, PAGE, URO), HX_OK);
			WORLD_REFUSED(&user, hx_fold(&user, va, L1), HX_OK); /* they differ */
			HX_CHECK_STATUS(hx_update_flags(&user, page, PAGE, URW), HX_OK);
		}
		check_leaf(&user, page.v, PA + 5 * PAGE, 0);
		WORLD_REFUSED(&user, hx_fold(&user, va, L1 - PAGE), HX_OK); /* not all of it */
		WORLD_REFUSED(&user, hx_fold(&user, hx_va(UVA + PAGE), 2 * L1 - PAGE), HX_OK);
		world_mark(&user, page.v, HX_PAGE_ACCESSED);
		world_mark(&user, page.v + PAGE, HX_PAGE_DIRTY);
		HX_CHECK_STATUS(hx_fold(&user, va, i == 1 ? 4 * L1 : L1), HX_OK);
		check_leaf(&user, page.v, PA + 5 * PAGE, 1);
		const uint64_t marks = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
		HX_CHECK_EQUAL(hx_translate(&user, va).flags & marks, marks);
		WORLD_SOUND(&user);
		HX_CHECK_EQUAL(world_free_count(), with_one);
		WORLD_REFUSED(&user, hx_fold(&user, va, L1), HX_OK); /* folded already */
	}
	HX_CHECK_STATUS(hx_unmap(&user, va, L1, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), free);

	/* A hole, a frame out of place, a start that is not aligned: these stay. */
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), L1, URW | HX_MAP_NO_HUGE), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, page, PAGE, NULL, NULL), HX_OK);
	WORLD_REFUSED(&user, hx_fold(&user, va, L1), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, page, hx_pa(PA + 6 * PAGE), PAGE, URW), HX_OK);
	WORLD_REFUSED(&user, hx_fold(&user, va, L1), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, va, L1, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA + PAGE), L1, URW), HX_OK);
	WORLD_REFUSED(&user, hx_fold(&user, va, L1), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, va, L1, NULL, NULL), HX_OK);

	if (has_level(2)) { /* from pages to 1 GiB in one call */
		HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), L2, URW), HX_OK);
		uint64_t kept = world_free_count();
		for (uint64_t at = PAGE; at < L2; at += 100 * L1) {
			struct hx_va one = hx_va(UVA + (uintptr_t)at);
			HX_CHECK_STATUS(hx_update_flags(&user, one, PAGE, URO), HX_OK);
			HX_CHECK_STATUS(hx_update_flags(&user, one, PAGE, URW), HX_OK);
		}
		HX_CHECK_STATUS(hx_fold(&user, va, L2), HX_OK);
		check_leaf(&user, UVA + L1 + PAGE, PA + L1 + PAGE, 2);
		HX_CHECK_EQUAL(world_free_count(), kept);
		WORLD_SOUND(&user);
		HX_CHECK_STATUS(hx_unmap(&user, va, L2, NULL, NULL), HX_OK);
		HX_CHECK_EQUAL(world_free_count(), free);
	}
	WORLD_REFUSED(&user, hx_fold(&user, va, 0), HX_INVALID_SIZE);
	WORLD_REFUSED(&user, hx_fold(&user, hx_va(UVA + 1), PAGE), HX_INVALID_ALIGNMENT);
	WORLD_REFUSED(&user, hx_fold(&user, hx_va(kva()), L1), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_fold(NULL, va, L1), HX_NOT_INITIALIZED);
	close_tables();
	open_tables(false, HX_WX_FORCE);
	HX_BAIL();
	HX_CHECK_STATUS(hx_fold(&user, va, L1), HX_NOT_SUPPORTED);
	close_tables();
}

HX_TEST(ranges_are_translated_and_harvested)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	static uint64_t leaves[2048];
	const uint64_t marks = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	const bool hardware = (hx_hal_geometry.features & HX_MMU_HARDWARE_AD) != 0;
	/* A huge leaf, pages, and a hole between them. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA + L1 + 3 * PAGE), hx_pa(PA), 9 * PAGE, URO), HX_OK);
	const struct hx_va from = hx_va(UVA + L1 - 7 * PAGE);
	enum { N = 30 };
	for (unsigned round = 0; round < 3; round++) {
		hx_memset(leaves, 0xa5, sizeof leaves);
		hx_status s = round == 0 ? hx_translate_range(&user, from, N, leaves)
					 : hx_harvest(&user, from, N, 0, leaves);
		HX_CHECK_STATUS(s, HX_OK);
		for (unsigned i = 0; i < N; i++) {
			struct hx_translation one =
				hx_translate(&user, hx_va(from.v + i * (uintptr_t)PAGE));
			uint64_t wanted =
				one.status != HX_OK ? 0 : one.pa.v | (one.flags & HX_LEAF_FLAGS);
			HX_CHECK_EQUAL(leaves[i], wanted);
		}
		HX_CHECK_EQUAL(leaves[N], UINT64_C(0xa5a5a5a5a5a5a5a5));
		world_mark(&user, UVA + L1 + 4 * PAGE, round == 0 ? HX_PAGE_ACCESSED : marks);
	}
	if (hardware) {
		world_mark(&user, UVA, marks);
		HX_CHECK_STATUS(hx_harvest(&user, from, N, HX_PAGE_DIRTY, leaves), HX_OK);
		HX_CHECK_EQUAL(leaves[0] & marks, marks); /* as it was */
		HX_CHECK_EQUAL(leaves[11] & marks, marks);
		HX_CHECK_EQUAL(leaves[12] & marks, 0);
		HX_CHECK_STATUS(hx_harvest(&user, from, N, marks, leaves), HX_OK);
		HX_CHECK_EQUAL(leaves[6] & marks, HX_PAGE_ACCESSED);
		HX_CHECK_STATUS(hx_harvest(&user, from, N, marks, leaves), HX_OK);
		HX_CHECK_EQUAL((leaves[0] | leaves[11]) & marks, 0);
		check_leaf(&user, UVA, PA, 1); /* nothing was split for it */
	} else {
		WORLD_REFUSED(&user, hx_harvest(&user, from, N, HX_PAGE_ACCESSED, leaves),
			      HX_NOT_SUPPORTED);
	}
	/* The kernel's half is translated through any table, harvested through its own. */
	HX_CHECK_STATUS(hx_map(&kernel, hx_va(kva()), hx_pa(PA), PAGE, RW), HX_OK);
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(kva()), 1, leaves), HX_OK);
	HX_CHECK_EQUAL(hx_leaf_pa(leaves[0]).v, PA);
	leaves[0] = 4711;
	const struct hx_va last = hx_va(hx_user_end() - PAGE);
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(UVA + 1), 1, leaves), HX_INVALID_ALIGNMENT);
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(UVA), 0, leaves), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_translate_range(&user, last, 2, leaves), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(UVA), UINT64_MAX, leaves),
			HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(UVA), 1, NULL), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_translate_range(NULL, hx_va(UVA), 1, leaves), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_harvest(&user, hx_va(UVA + 1), 1, 0, leaves), HX_INVALID_ALIGNMENT);
	HX_CHECK_STATUS(hx_harvest(&user, hx_va(UVA), 0, 0, leaves), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_harvest(&user, last, 2, 0, leaves), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_harvest(&user, hx_va(UVA), UINT64_MAX, 0, leaves), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_harvest(&user, hx_va(kva()), 1, 0, leaves), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_harvest(&user, hx_va(UVA), 1, HX_PAGE_WRITABLE, leaves),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_harvest(&user, hx_va(UVA), 1, 0, NULL), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_harvest(NULL, hx_va(UVA), 1, 0, leaves), HX_NOT_INITIALIZED);
	HX_CHECK_EQUAL(leaves[0], 4711);
	HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(kva()), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 4 * L1, NULL, NULL), HX_OK);
	close_tables();
}

HX_TEST(a_map_that_can_never_succeed_gives_up_early)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	/* The user half, or all that a physical address can name: counting the tables of
	 * small leaves would take seconds. */
	uint64_t bytes = UINT64_C(1) << hx_hal_geometry.pa_bits;
	bytes = bytes < hx_user_end() ? bytes : (uint64_t)hx_user_end();
	/* Did it go on to the end, it would find a page there. */
	struct hx_va end = hx_va((uintptr_t)(bytes - PAGE));
	HX_CHECK_STATUS(hx_map(&user, end, hx_pa(PA), PAGE, URW), HX_OK);
	WORLD_REFUSED(&user, hx_map(&user, hx_va(0), hx_pa(0), bytes, URW | HX_MAP_NO_HUGE),
		      HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(hx_unmap(&user, end, PAGE, NULL, NULL), HX_OK);
	/* And what is empty is passed over without a look at each page. */
	WORLD_REFUSED(&user, hx_unmap_sparse(&user, hx_va(0), (uint64_t)hx_user_end(), NULL, NULL),
		      HX_OK);
	WORLD_REFUSED(&user, hx_update_flags_sparse(&user, hx_va(0), (uint64_t)hx_user_end(), URO),
		      HX_OK);
	WORLD_SOUND(&user);
	close_tables();
}

HX_TEST(emptied_tables_are_freed)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	uint64_t free = world_free_count();
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA - 5 * PAGE), hx_pa(PA), 10 * PAGE, URW), HX_OK);
	uint64_t tables = hx_pagetable_counters(&user).tables;
	/* Page by page, from both sides: tables go with their last page. */
	for (unsigned i = 0; i < 5; i++) {
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + i * PAGE), PAGE, NULL, NULL), HX_OK);
		WORLD_SOUND(&user);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables < tables, i == 4);
	}
	for (unsigned i = 1; i <= 5; i++) {
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA - i * PAGE), PAGE, NULL, NULL), HX_OK);
		WORLD_SOUND(&user);
	}
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	HX_CHECK_EQUAL(world_free_count(), free);

	/* In one call, with leaves of all sizes and holes between them. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L2 + L1 + PAGE, URW), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA + 2 * L2 + L1), hx_pa(PA), PAGE, URW), HX_OK);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(0), (uint64_t)hx_user_end(), NULL, NULL),
			HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	HX_CHECK_EQUAL(world_free_count(), free);

	/* In the kernel's half all but those that hang off the root. */
	tables = hx_pagetable_counters(&kernel).tables;
	HX_CHECK_STATUS(hx_map(&kernel, hx_va(kva()), hx_pa(PA), L2 + 3 * PAGE, RW), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(kva()), L2 + 3 * PAGE, NULL, NULL), HX_OK);
	WORLD_SOUND(&kernel);
	/* A root entry that could hold the whole of a leaf is one that stays. */
	HX_CHECK_EQUAL(hx_pagetable_counters(&kernel).tables, tables);
	close_tables();
}

/* ---- What is released ---- */

struct released {
	unsigned count;
	uintptr_t next;
	uint64_t bytes, pa_sum, flags_or, flags_and;
	bool ordered;
};

static void note_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		      uint64_t flags)
{
	struct released *r = context;
	r->ordered = r->ordered && va.v >= r->next;
	r->next = va.v + (uintptr_t)bytes;
	r->count++;
	r->bytes += bytes;
	r->pa_sum += pa.v;
	r->flags_or |= flags;
	r->flags_and &= flags;
	/* Nothing is mapped any more when its frame is handed over. */
	HX_CHECK_STATUS(hx_translate(&user, va).status, HX_NOT_MAPPED);
}

static void note_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, note_leaf, context);
}

static const struct released none_released = {.flags_and = UINT64_MAX, .ordered = true};

HX_TEST(released_leaves_are_told_with_their_flags)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	const uint64_t flags[] = {URW,
				  URO,
				  RW,
				  URW | HX_PAGE_DIRTY,
				  URO | HX_PAGE_DIRTY,
				  RO | HX_PAGE_NO_CACHE | HX_PAGE_WRITE_THROUGH};
	const uint64_t told = HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_DIRTY;
	uint64_t pa_end = UINT64_C(1) << hx_hal_geometry.pa_bits;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(flags); i++) {
		uint64_t expected = flags[i] & told;
		if (!(hx_hal_geometry.features & HX_MMU_HARDWARE_AD) &&
		    (flags[i] & HX_PAGE_WRITABLE)) {
			expected |= HX_PAGE_DIRTY;
		}
		/* Alone in its table (which goes), and beside a neighbour (it stays). */
		for (unsigned beside = 0; beside < 2; beside++) {
			const struct {
				uint64_t pa, bytes;
			} leaves[] = {{pa_end - PAGE, PAGE}, {PA, PAGE}, {pa_end - L1, L1}};
			for (unsigned k = 0; k < HX_ARRAY_LENGTH(leaves); k++) {
				struct released r = none_released;
				uint64_t bytes = leaves[k].bytes;
				if (beside) {
					HX_CHECK_STATUS(hx_map(&user, hx_va(UVA + (uintptr_t)bytes),
							       hx_pa(PA), PAGE, URW),
							HX_OK);
				}
				HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(leaves[k].pa),
						       bytes, flags[i]),
						HX_OK);
				HX_CHECK_STATUS(
					hx_unmap(&user, hx_va(UVA), bytes, note_release, &r),
					HX_OK);
				HX_CHECK_EQUAL(r.count, 1);
				HX_CHECK_EQUAL(r.bytes, bytes);
				HX_CHECK_EQUAL(r.pa_sum, leaves[k].pa);
				HX_CHECK_EQUAL(r.flags_or,
					       expected | (bytes > PAGE ? HX_PAGE_HUGE : 0));
				WORLD_SOUND(&user);
				HX_CHECK_STATUS(
					hx_unmap_sparse(&user, hx_va(UVA), 2 * L1, NULL, NULL),
					HX_OK);
			}
		}
	}
	/* Part of a huge leaf comes page by page; holes are not told. */
	struct released r = none_released;
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1, URW), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA + 2 * L1), hx_pa(PA), L1, URW), HX_OK);
	HX_CHECK_STATUS(
		hx_unmap_sparse(&user, hx_va(UVA + L1 - 3 * PAGE), 2 * L1, note_release, &r),
		HX_OK);
	HX_CHECK_EQUAL(r.count, 3 + 509);
	HX_CHECK_EQUAL(r.bytes, L1);
	HX_CHECK(r.ordered && (r.flags_or & HX_PAGE_HUGE) == 0);
	WORLD_SOUND(&user);
	close_tables();
}

/* ---- Rights ---- */

HX_TEST(writable_and_executable_by_policy)
{
	for (enum hx_wx_policy wx = HX_WX_FORCE; wx <= HX_WX_OFF; wx++) {
		open_tables(true, wx);
		HX_BAIL();
		struct hx_va va = hx_va(UVA);
		const uint64_t both = HX_PAGE_USER_WRITE;
		hx_status expected = wx == HX_WX_REFUSE ? HX_PERMISSION_DENIED : HX_OK;
		if (wx == HX_WX_REFUSE) {
			WORLD_REFUSED(&user, hx_map(&user, va, hx_pa(PA), PAGE, both), expected);
			HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), PAGE, URW), HX_OK);
			WORLD_REFUSED(&user, hx_update_flags(&user, va, PAGE, both), expected);
			WORLD_REFUSED(&user, hx_update_flags_sparse(&user, va, PAGE, both),
				      expected);
		} else {
			HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), PAGE, both), HX_OK);
			uint64_t f = hx_translate(&user, va).flags;
			HX_CHECK_EQUAL((f & HX_PAGE_NO_EXECUTE) != 0, wx == HX_WX_FORCE);
			HX_CHECK_STATUS(hx_update_flags(&user, va, PAGE, HX_PAGE_USER_CODE), HX_OK);
			f = hx_translate(&user, va).flags;
			HX_CHECK((f & (HX_PAGE_NO_EXECUTE | HX_PAGE_WRITABLE)) == 0);
			HX_CHECK_STATUS(hx_update_flags(&user, va, PAGE, both), HX_OK);
			f = hx_translate(&user, va).flags;
			HX_CHECK((f & HX_PAGE_WRITABLE) != 0);
			HX_CHECK_EQUAL((f & HX_PAGE_NO_EXECUTE) != 0, wx == HX_WX_FORCE);
		}
		/* Code that is not writable is refused by none of them. */
		HX_CHECK_STATUS(
			hx_map(&user, hx_va(UVA + PAGE), hx_pa(PA), PAGE, HX_PAGE_USER_CODE),
			HX_OK);
		close_tables();
	}
}

HX_TEST(hidden_pages_keep_all_but_their_rights)
{
	open_tables(false, HX_WX_FORCE);
	HX_BAIL();
	struct hx_va va = hx_va(UVA);
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), 4 * PAGE, URW), HX_OK);
	world_mark(&user, UVA + PAGE, HX_PAGE_DIRTY);
	/* The two in the middle; twice, since hiding what is hidden changes nothing. */
	for (unsigned i = 0; i < 2; i++) {
		HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + PAGE), 2 * PAGE, 0), HX_OK);
		check_absent(&user, UVA + PAGE);
		check_absent(&user, UVA + 3 * PAGE - 1);
		check_leaf(&user, UVA, PA, 0);
		check_leaf(&user, UVA + 3 * PAGE, PA + 3 * PAGE, 0);
		unsigned level;
		hx_pte e = hx_hal_pte_load(world_entry(&user, UVA + PAGE, &level));
		HX_CHECK(hx_hal_pte_kind(e, level) == HX_PTE_SOFT);
		WORLD_SOUND(&user);
	}
	/* Hidden is mapped: nothing is mapped over it, and it is no hole. */
	WORLD_REFUSED(&user, hx_map(&user, hx_va(UVA + PAGE), hx_pa(PA), PAGE, URW),
		      HX_ALREADY_MAPPED);
	HX_CHECK_STATUS(hx_update_flags(&user, va, 4 * PAGE, URO), HX_OK);
	check_leaf(&user, UVA + PAGE, PA + PAGE, 0);
	HX_CHECK((hx_translate(&user, hx_va(UVA + PAGE)).flags & HX_PAGE_DIRTY) != 0);
	HX_CHECK((hx_translate(&user, hx_va(UVA + PAGE)).flags & HX_PAGE_WRITABLE) == 0);
	/* Released with frame and DIRTY from hiding as well. */
	struct released r = none_released;
	HX_CHECK_STATUS(hx_update_flags(&user, va, 4 * PAGE, 0), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, va, 4 * PAGE, note_release, &r), HX_OK);
	HX_CHECK_EQUAL(r.count, 4);
	HX_CHECK_EQUAL(r.pa_sum, 4 * PA + 6 * PAGE);
	HX_CHECK((r.flags_or & HX_PAGE_DIRTY) != 0);
	WORLD_SOUND(&user);
	/* The kernel's pages and tables with huge leaves have no such thing. */
	HX_CHECK_STATUS(hx_map(&kernel, hx_va(kva()), hx_pa(PA), PAGE, RW), HX_OK);
	WORLD_REFUSED(&kernel, hx_update_flags(&kernel, hx_va(kva()), PAGE, 0),
		      HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(kva()), PAGE, NULL, NULL), HX_OK);
	close_tables();
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), PAGE, URW), HX_OK);
	WORLD_REFUSED(&user, hx_update_flags(&user, va, PAGE, 0), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_unmap(&user, va, PAGE, NULL, NULL), HX_OK);
	close_tables();
}

HX_TEST(accessed_and_dirty_stay)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	const uint64_t both = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	const uint64_t to[] = {URO, URW, RX | HX_PAGE_USER, RO, URW | HX_PAGE_NO_CACHE, RW};
	const uint64_t rights = URW | HX_PAGE_NO_CACHE;
	bool hardware = (hx_hal_geometry.features & HX_MMU_HARDWARE_AD) != 0;
	for (unsigned huge = 0; huge < 2; huge++) {
		uint64_t bytes = huge ? L1 : PAGE;
		for (unsigned marked = 0; marked < 4; marked++) {
			uint64_t mark = marked == 0   ? 0
					: marked == 1 ? HX_PAGE_ACCESSED
					: marked == 2 ? HX_PAGE_DIRTY
						      : both;
			HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), bytes, URO), HX_OK);
			world_mark(&user, UVA, mark);
			uint64_t expected = mark | (hardware ? 0 : HX_PAGE_ACCESSED);
			for (unsigned i = 0; i < HX_ARRAY_LENGTH(to); i++) {
				HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA), bytes, to[i]),
						HX_OK);
				if (!hardware && (to[i] & HX_PAGE_WRITABLE)) {
					expected |= HX_PAGE_DIRTY;
				}
				uint64_t f = hx_translate(&user, hx_va(UVA)).flags;
				HX_CHECK_EQUAL(f & both, expected);
				HX_CHECK_EQUAL(f & rights, to[i] & rights);
			}
			/* Flags that are the machine's are not the caller's to set or clear. */
			HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA), bytes, URO | both),
					HX_OK);
			HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA)).flags & both, expected);
			/* A split hands them to the pieces. */
			if (huge) {
				HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, NULL, NULL),
						HX_OK);
				HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA + L1 - 1)).flags &
						       both,
					       expected);
			}
			HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), bytes, NULL, NULL),
					HX_OK);
		}
	}
	close_tables();
}

HX_TEST(a_machine_without_accessed_and_dirty)
{
	open_frames();
	HX_BAIL();
	const uint32_t features = hx_hal_geometry.features;
	hx_hal_geometry.features &= ~HX_MMU_HARDWARE_AD;
	open_tables(true, HX_WX_FORCE);
	const uint64_t both = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	struct hx_va va = hx_va(UVA);
	HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA), PAGE, URO), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&user, va).flags & both, HX_PAGE_ACCESSED);
	HX_CHECK_STATUS(hx_update_flags(&user, va, PAGE, URW), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&user, va).flags & both, both);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA + PAGE), hx_pa(PA), PAGE, URW), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA + PAGE)).flags & both, both);
	/* The same rights, but a leaf without the bits would fault for ever. */
	unsigned level;
	hx_pte *p = world_entry(&user, UVA, &level);
	hx_pte bare = hx_hal_pte_leaf(hx_pa(PA), hx_hal_pte_prot(URW, 0), 0);
	hx_hal_pte_store(p, bare);
	HX_CHECK_STATUS(hx_pagetable_validate(&user), HX_CORRUPTED);
	HX_CHECK_STATUS(hx_update_flags(&user, va, PAGE, URW), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&user, va).flags & both, both);
	close_tables();
	hx_hal_geometry.features = features;
}

/* ---- The kernel's half ---- */

HX_TEST(sealed_root_entries_are_fixed)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable_config c = config();
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	unsigned root_level = hx_hal_geometry.levels - 1u;
	uint64_t root = UINT64_C(1) << world_shift(root_level);
	uintptr_t start = hx_kernel_start();
	HX_CHECK_STATUS(hx_map(&kernel, hx_va(start + 5 * (uintptr_t)root), hx_pa(PA), PAGE, RW),
			HX_OK);
	HX_CHECK_STATUS(hx_pagetable_prepare(&kernel, hx_va(start + (uintptr_t)root), root + PAGE),
			HX_OK);
	WORLD_SOUND(&kernel);
	bool root_leaf = root_level <= hx_log2_floor(hx_hal_geometry.leaf_levels);
	uintptr_t leaf = start + 9 * (uintptr_t)root;
	if (root_leaf) { /* RISC-V: the root has leaves itself, of up to 256 TiB */
		HX_CHECK_STATUS(hx_map(&kernel, hx_va(leaf), hx_pa(0), root, RW), HX_OK);
		HX_CHECK_EQUAL(hx_translate(&kernel, hx_va(leaf)).level, root_level);
		HX_CHECK_STATUS(hx_update_flags(&kernel, hx_va(leaf), root, RO), HX_OK);
	}
	hx_pagetable_seal(&kernel);
	c.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &c), HX_OK);

	/* New root entries: no. */
	WORLD_REFUSED(&kernel,
		      hx_map(&kernel, hx_va(start + 3 * (uintptr_t)root), hx_pa(PA), PAGE, RW),
		      HX_NOT_SUPPORTED);
	WORLD_REFUSED(
		&kernel,
		hx_map(&kernel, hx_va(start + 3 * (uintptr_t)root - PAGE), hx_pa(PA), 2 * PAGE, RW),
		HX_NOT_SUPPORTED);
	WORLD_REFUSED(&kernel,
		      hx_pagetable_prepare(&kernel, hx_va(start + 3 * (uintptr_t)root), PAGE),
		      HX_NOT_SUPPORTED);
	HX_CHECK_STATUS(hx_pagetable_prepare(&kernel, hx_va(start + (uintptr_t)root), 2 * root),
			HX_OK);
	if (root_leaf) {
		WORLD_REFUSED(&kernel, hx_unmap(&kernel, hx_va(leaf), root, NULL, NULL),
			      HX_NOT_SUPPORTED);
		WORLD_REFUSED(&kernel, hx_unmap(&kernel, hx_va(leaf), PAGE, NULL, NULL),
			      HX_NOT_SUPPORTED);
		WORLD_REFUSED(&kernel, hx_update_flags(&kernel, hx_va(leaf), root, RW),
			      HX_NOT_SUPPORTED);
		HX_CHECK_STATUS(hx_update_flags(&kernel, hx_va(leaf), root, RO), HX_OK);
		check_leaf(&user, leaf + 12345, 12345, root_level);
	}
	if (root_leaf && root_level == 2) {
		/* Where a table was prepared, no leaf takes its place. */
		WORLD_REFUSED(&kernel,
			      hx_map(&kernel, hx_va(start + (uintptr_t)root), hx_pa(PA), root,
				     RW | HX_MAP_LEVEL_2),
			      HX_NOT_SUPPORTED);
	}
	/* What comes and goes below them is seen by all. */
	uintptr_t at = start + (uintptr_t)root + 7 * (uintptr_t)PAGE;
	HX_CHECK_STATUS(hx_map(&kernel, hx_va(at), hx_pa(PA), 3 * L1, RW | HX_PAGE_GLOBAL), HX_OK);
	check_leaf(&user, at + 5 * PAGE, PA + 5 * PAGE, 0);
	check_leaf(&user, start + 5 * (uintptr_t)root, PA, 0);
	HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(start + 5 * (uintptr_t)root), PAGE, NULL, NULL),
			HX_OK);
	HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(at), 3 * L1, NULL, NULL), HX_OK);
	check_absent(&user, at);
	check_absent(&user, start + 5 * (uintptr_t)root);
	hx_pagetable_seal(&user); /* means nothing */
	HX_CHECK(!user.sealed);
	close_tables();
}

/* ---- The database ---- */

HX_TEST(tables_are_tagged)
{
	open_frames();
	HX_BAIL();
	struct hx_framedb *db = hx_test_machine()->db;
	uint64_t tagged = hx_framedb_count(db, HX_TAG_TABLE);
	struct hx_pagetable_config c = config();
	c.db = db;
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
	HX_CHECK_STATUS(hx_map(&kernel, hx_va(kva()), hx_pa(PA), L1 + PAGE, RW), HX_OK);
	WORLD_SOUND(&kernel);
	HX_CHECK(hx_pagetable_counters(&kernel).tables > 2);
	HX_CHECK_EQUAL(hx_framedb_count(db, HX_TAG_TABLE),
		       tagged + hx_pagetable_counters(&kernel).tables);
	struct hx_frame *f = hx_framedb_find(db, hx_pa_to_pfn(kernel.root));
	HX_REQUIRE(f != NULL);
	HX_CHECK(f->tag == HX_TAG_TABLE && f->owner == &kernel);
	/* The validator looks: a table that is not tagged as ours is none. */
	f->owner = &user;
	HX_CHECK_STATUS(hx_pagetable_validate(&kernel), HX_CORRUPTED);
	f->owner = &kernel;
	WORLD_SOUND(&kernel);
	HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(kva()), L1 + PAGE, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(db, HX_TAG_TABLE),
		       tagged + hx_pagetable_counters(&kernel).tables);
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(db, HX_TAG_TABLE), tagged);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);

	/* A database that has no room: its sections come from frames that are all gone. */
	static struct hx_frames none;
	static struct hx_framedb small;
	static uint8_t directory[HX_KIB(4)] __attribute__((aligned(64)));
	struct hx_pa end =
		hx_pfn_to_pa(hx_pfn(world_frames.zones[0].allocator.base + WORLD_FRAMES));
	if (hx_framedb_directory_bytes(end) > sizeof directory) {
		return; /* the machine's memory lies too high */
	}
	none = (struct hx_frames){0};
	HX_REQUIRE_STATUS(hx_framedb_init(&small, &none, directory, end), HX_OK);
	c.db = &small;
	HX_CHECK_STATUS(hx_pagetable_init(&kernel, &c), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
	c.db = NULL;
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &c), HX_OK);
#ifndef HX_DEBUG_ASSERTS    /* the validator inside the call would miss the root's tag */
	kernel.db = &small; /* from here on */
	WORLD_REFUSED(&kernel, hx_map(&kernel, hx_va(kva()), hx_pa(PA), L1 + PAGE, RW),
		      HX_OUT_OF_MEMORY);
	kernel.db = NULL;
#endif
	HX_CHECK_STATUS(hx_pagetable_destroy(&kernel), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

/* ---- The validator ---- */

HX_TEST(the_validator_sees_damage)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), L1 + PAGE, URW), HX_OK);
	HX_REQUIRE_STATUS(hx_map(&user, hx_va(UVA + L2), hx_pa(PA), PAGE, URW), HX_OK);
	hx_pte *page = world_entry_at(&user, UVA + L1, 0);
	hx_pte *huge = world_entry_at(&user, UVA, 1);
	hx_pte *table = world_entry_at(&user, UVA + L1, 1);
	hx_pte *upper = world_entry_at(&user, UVA, 2);
	hx_pte *other = world_entry_at(&user, UVA + L2, 2);
	world_check_corrupt(&user, page, hx_hal_pte_soft(5));
	world_check_corrupt(&user, page, 0); /* an empty table */
	world_check_corrupt(
		&user, page,
		hx_hal_pte_leaf(hx_pa(PA), hx_hal_pte_prot(URW & ~HX_PAGE_NO_EXECUTE, 0), 0));
	world_check_corrupt(
		&user, page,
		hx_hal_pte_leaf(hx_pa(PA), hx_hal_pte_prot(URW | HX_PAGE_GLOBAL, 0), 0));
	world_check_corrupt(&user, huge,
			    hx_hal_pte_leaf(hx_pa(PA + HX_KIB(64)), hx_hal_pte_prot(URW, 1), 1));
#ifdef HX_RV_PBMT_NC /* a memory type that is reserved */
	world_check_corrupt(&user, page, hx_hal_pte_load(page) | HX_RV_PBMT_NC | HX_RV_PBMT_IO);
#endif
	world_check_corrupt(&user, huge, hx_hal_pte_table(hx_pa(PA)));  /* no frame of ours */
	world_check_corrupt(&user, huge, *table);                       /* linked twice */
	world_check_corrupt(&user, other, *upper);                      /* and one lost */
	world_check_corrupt(&user, table, 0);                           /* lost */
	world_check_corrupt(&user, upper, hx_hal_pte_table(user.root)); /* in a circle */
	hx_pte *root = hx_ptr(user.root);
	unsigned half = (1u << hx_hal_geometry.bits[hx_hal_geometry.levels - 1]) / 2;
	world_check_corrupt(&user, &root[half],
			    hx_hal_pte_table(kernel.root)); /* not the kernel's entry */
	world_check_corrupt(&user, &root[half + (UVA >> world_shift(hx_hal_geometry.levels - 1u))],
			    0);
	user.stripes[5].tables++;
	HX_CHECK_STATUS(hx_pagetable_validate(&user), HX_CORRUPTED);
	user.stripes[5].tables--;
	/* What a stripe remembers: the table of another, one that is a leaf, or of no address. */
	struct hx_stripe *s = &user.stripes[((UVA + L1) / L1) % HX_STRIPES];
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + L1), PAGE, URW), HX_OK);
	struct hx_stripe was = *s;
	HX_CHECK(was.leaf_table == (uint64_t *)(void *)page && was.leaf_tag != 0);
	s->leaf_table = hx_ptr(user.root);
	HX_CHECK_STATUS(hx_pagetable_validate(&user), HX_CORRUPTED);
	s->leaf_table = was.leaf_table;
	s->leaf_tag++;
	HX_CHECK_STATUS(hx_pagetable_validate(&user), HX_CORRUPTED);
	s->leaf_tag = was.leaf_tag;
	WORLD_SOUND(&user);
	hx_pte *kernel_root = hx_ptr(kernel.root);
	kernel_root[1] = *page;
	HX_CHECK_STATUS(hx_pagetable_validate(&kernel), HX_CORRUPTED);
	kernel_root[1] = 0;
	close_tables();
}

/* ---- Translation ---- */

HX_TEST(translate_says_where_the_walk_ended)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	unsigned root_level = hx_hal_geometry.levels - 1u;
	HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA)).level, root_level);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), PAGE, URW), HX_OK);
	for (unsigned level = 0; level < root_level; level++) {
		/* The first address that shares the walk down to @level only. */
		struct hx_translation r =
			hx_translate(&user, hx_va(UVA + ((uintptr_t)1 << world_shift(level))));
		HX_CHECK_STATUS(r.status, HX_NOT_MAPPED);
		HX_CHECK_EQUAL(r.level, level);
	}
	for (unsigned i = 0; i < PAGE; i += 111) {
		check_leaf(&user, UVA + i, PA + i, 0);
	}
	close_tables();
}

/* ---- Flushes, on the CPU that has the table loaded ---- */

#define FLUSHES(call, n)                                                                           \
	do {                                                                                       \
		uint64_t f_ = hx_pagetable_counters(t).local_flushes;                              \
		HX_CHECK_STATUS(call, HX_OK);                                                      \
		HX_CHECK_EQUAL(hx_pagetable_counters(t).local_flushes - f_, n);                    \
	} while (0)

HX_TEST(flushes_are_counted_and_few)
{
	open_frames();
	HX_BAIL();
	struct hx_pagetable *machine_table = hx_test_machine()->kernel_table;
	struct hx_pagetable_config c = config();
	c.kernel = machine_table;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &c), HX_OK);
	struct hx_pagetable *t = &user;
	struct hx_va va = hx_va(UVA);
	uint64_t bytes = 2 * L1 + 5 * PAGE;

	/* Nobody has it loaded: nobody is asked. */
	FLUSHES(hx_map(t, va, hx_pa(PA), bytes, URW), 0);
	FLUSHES(hx_update_flags(t, va, bytes, URO), 0);
	FLUSHES(hx_flush(t, va, bytes), 0);
	FLUSHES(hx_unmap(t, va, bytes, NULL, NULL), 0);

	unsigned long irq = hx_hal_irq_save();
	uint64_t kernel_active = machine_table->active.bits;
	hx_pagetable_load(t, machine_table);
	HX_CHECK_EQUAL(t->active.bits, hx_cpus_of(hx_hal_cpu_id()).bits);
	HX_CHECK_EQUAL(machine_table->active.bits, kernel_active);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).local_flushes, 0); /* the kernel half stayed */
	HX_CHECK_STATUS(hx_pagetable_destroy(t), HX_BUSY);

	FLUSHES(hx_map(t, va, hx_pa(PA), bytes, URO), 0); /* fresh */
	FLUSHES(hx_update_flags(t, va, bytes, URO), 0);   /* the same */
	FLUSHES(hx_update_flags(t, va, L1, URW), 0);      /* more */
	FLUSHES(hx_update_flags(t, va, bytes, URW), 0);
	FLUSHES(hx_update_flags(t, va, bytes, URO), 1);               /* less */
	FLUSHES(hx_update_flags(t, va, bytes, HX_PAGE_USER_CODE), 0); /* executable */
	FLUSHES(hx_update_flags(t, va, bytes, URO), 1);               /* not so */
	FLUSHES(hx_update_flags(t, va, bytes, URO | HX_PAGE_NO_CACHE), 1);
	FLUSHES(hx_update_flags(t, va, bytes, URO), 1);
	FLUSHES(hx_update_flags(t, va, bytes, RO), 1); /* the user's */
	FLUSHES(hx_update_flags(t, va, bytes, URO), 1);
	FLUSHES(hx_update_flags(t, hx_va(UVA + L1 + PAGE), PAGE, URW), 1); /* more, but a split */
	/* A split, which may have to be broken first. */
	FLUSHES(hx_unmap(t, hx_va(UVA + 2 * PAGE), PAGE, NULL, NULL),
		hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE ? 2 : 1);
	FLUSHES(hx_unmap_sparse(t, va, 4 * L1, NULL, NULL), 1);
	FLUSHES(hx_unmap_sparse(t, va, 4 * L1, NULL, NULL), 0); /* nothing was there */
	FLUSHES(hx_update_flags_sparse(t, va, 4 * L1, URO), 0);
	FLUSHES(hx_flush(t, va, PAGE), 1);
	uint64_t flushes = hx_pagetable_counters(t).local_flushes;
	hx_flush_all(t);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).local_flushes, flushes + 1);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).broadcasts, 0);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).ipis, 0);

	hx_pagetable_load(machine_table, t);
	hx_pagetable_load(machine_table, machine_table); /* lazy no more */
	HX_CHECK_EQUAL(t->active.bits, 0);
	HX_CHECK_EQUAL(machine_table->active.bits, kernel_active);
	hx_hal_irq_restore(irq);
	HX_CHECK_STATUS(hx_pagetable_destroy(t), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), WORLD_FRAMES);
}

/* ---- Against a model ---- */

enum { UNITS = 1536 };

/* What the window should look like, unit by unit: a page, or 2 MiB. */
struct model {
	struct hx_pagetable *t;
	uintptr_t base;
	uint64_t unit;
	struct {
		uint64_t pa;
		uint64_t flags; /* 0: not mapped */
	} units[UNITS];
	/* The unmap in progress. */
	uint64_t next, end;
	unsigned mistakes;
};

static struct model model;

/* What must agree: where leaves are broken, the machine's ACCESSED may be lost to a guess. */
#define MODEL_FLAGS                                                                                \
	(hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE ? ~(HX_PAGE_HUGE | HX_PAGE_ACCESSED)  \
							     : ~HX_PAGE_HUGE)

static void compare(void)
{
	unsigned wrong = 0;
	for (unsigned i = 0; i < UNITS; i++) {
		/* Somewhere in the unit: all of it lies under leaves of one kind. */
		uint64_t inside = (i * UINT64_C(0x1357)) % model.unit;
		struct hx_translation r = hx_translate(
			model.t, hx_va(model.base + (uintptr_t)(i * model.unit + inside)));
		if (model.units[i].flags == 0) {
			wrong += r.status != HX_NOT_MAPPED;
		} else {
			wrong += r.status != HX_OK || r.pa.v != model.units[i].pa + inside ||
				 ((r.flags ^ model.units[i].flags) & MODEL_FLAGS) != 0;
		}
	}
	HX_CHECK_EQUAL(wrong, 0);
	WORLD_SOUND(model.t);
}

/* The released leaves must be the mapped units of the range, in order, piece by piece. */
static void model_release_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			       uint64_t flags)
{
	struct model *m = context;
	const uint64_t told = HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_DIRTY;
	uint64_t at = va.v - m->base;
	while (m->next < m->end && m->units[m->next / m->unit].flags == 0) {
		m->next += m->unit;
	}
	for (uint64_t b = 0; b < bytes; b += m->unit) {
		uint64_t i = (at + b) / m->unit;
		if (i >= UNITS || m->next != at + b || m->next >= m->end ||
		    m->units[i].pa + at % m->unit != pa.v + b ||
		    (m->units[i].flags & told) != (flags & MODEL_FLAGS)) {
			m->mistakes++;
		}
		m->next += bytes < m->unit ? bytes : m->unit;
	}
}

static void model_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, model_release_leaf, context);
}

struct step {
	enum { STEP_MAP, STEP_UNMAP, STEP_UPDATE, STEP_MARK } what;
	bool sparse;
	unsigned first, count;
	uint64_t pa, flags, effective;
};

static struct step random_step(struct hx_random *r)
{
	static const uint64_t rights[] = {RW,
					  RO,
					  RX,
					  RW | HX_PAGE_NO_CACHE,
					  RO | HX_PAGE_WRITE_THROUGH,
					  HX_PAGE_KERNEL_WRITE /* W^X makes it RW */};
	struct step s = {.what = (unsigned)hx_random_below(r, 8) % 5 % 4,
			 .sparse = hx_random_below(r, 3) > 0};
	/* Short ranges, and long ones on borders of huge leaves. */
	if (hx_random_below(r, 3) == 0) {
		s.first = (unsigned)hx_random_below(r, 3) * 512;
		s.count = 512 * (1 + (unsigned)hx_random_below(r, (UNITS - s.first) / 512));
	} else {
		s.first = (unsigned)hx_random_below(r, UNITS);
		s.count = 1 + (unsigned)hx_random_below(r, hx_random_below(r, 2) ? 8 : 600);
		if (s.count > UNITS - s.first) {
			s.count = UNITS - s.first;
		}
	}
	s.pa = PA + s.first * model.unit;
	if (hx_random_below(r, 4) == 0) {
		s.pa += model.unit * hx_random_below(r, 1024);
	}
	s.flags = rights[hx_random_below(r, HX_ARRAY_LENGTH(rights))] |
		  (model.t->kernel ? HX_PAGE_GLOBAL : HX_PAGE_USER);
	s.effective = s.flags | (s.flags & HX_PAGE_WRITABLE ? HX_PAGE_NO_EXECUTE : 0);
	if (hx_hal_geometry.group_bits > 0 && s.what == STEP_MAP && hx_random_below(r, 2)) {
		s.flags |= HX_PAGE_ACCESSED | HX_PAGE_DIRTY; /* so that there are groups */
		s.effective |= HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	}
	if (!(hx_hal_geometry.features & HX_MMU_HARDWARE_AD)) {
		s.effective |= HX_PAGE_ACCESSED | (s.flags & HX_PAGE_WRITABLE ? HX_PAGE_DIRTY : 0);
	}
	return s;
}

static hx_status expected_status(const struct step *s)
{
	for (unsigned i = s->first; i < s->first + s->count; i++) {
		bool mapped = model.units[i].flags != 0;
		if (s->what == STEP_MAP && mapped) {
			return HX_ALREADY_MAPPED;
		}
		if (s->what != STEP_MAP && !mapped && !s->sparse) {
			return HX_NOT_MAPPED;
		}
	}
	return HX_OK;
}

static hx_status run_step(const struct step *s)
{
	struct hx_va va = hx_va(model.base + (uintptr_t)(s->first * model.unit));
	uint64_t bytes = s->count * model.unit;
	switch (s->what) {
	case STEP_MAP:
		return hx_map(model.t, va, hx_pa(s->pa), bytes,
			      s->flags | (s->sparse && s->count < 16 && model.unit == PAGE
						  ? HX_MAP_NO_HUGE
						  : 0));
	case STEP_UNMAP:
		model.next = s->first * model.unit;
		model.end = model.next + bytes;
		return (s->sparse ? hx_unmap_sparse : hx_unmap)(model.t, va, bytes, model_release,
								&model);
	case STEP_UPDATE:
		return (s->sparse ? hx_update_flags_sparse : hx_update_flags)(model.t, va, bytes,
									      s->flags);
	case STEP_MARK:
		break;
	}
	return HX_OK;
}

static void apply_step(const struct step *s)
{
	const uint64_t machine = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	for (unsigned i = s->first; i < s->first + s->count; i++) {
		if (s->what == STEP_MAP) {
			model.units[i].flags = s->effective;
			model.units[i].pa = s->pa + (i - s->first) * model.unit;
		} else if (s->what == STEP_UNMAP) {
			model.units[i].flags = 0;
		} else if (model.units[i].flags != 0) {
			model.units[i].flags = s->effective | (model.units[i].flags & machine);
		}
	}
}

/* The machine marks the leaf of one unit, and with it all units of that leaf. */
static void mark_step(const struct step *s)
{
	if (model.units[s->first].flags == 0) {
		return;
	}
	bool written = !s->sparse && (model.units[s->first].flags & HX_PAGE_WRITABLE);
	uint64_t mark = written ? HX_PAGE_ACCESSED | HX_PAGE_DIRTY : HX_PAGE_ACCESSED;
	uintptr_t va = model.base + (uintptr_t)(s->first * model.unit);
	uint64_t leaf = UINT64_C(1) << world_shift(hx_translate(model.t, hx_va(va)).level);
	/* Of a unit that was cut into smaller leaves, all are marked. */
	for (uint64_t at = 0; at < model.unit; at += leaf) {
		world_mark(model.t, va + (uintptr_t)at, mark);
	}
	uintptr_t start = (uintptr_t)hx_align_down(va, leaf > model.unit ? leaf : model.unit);
	for (uintptr_t at = start; at - start < (leaf > model.unit ? leaf : model.unit);
	     at += (uintptr_t)model.unit) {
		/* A unit has bytes. NOLINTNEXTLINE(clang-analyzer-core.DivideZero) */
		model.units[(at - model.base) / model.unit].flags |= mark;
	}
}

/* Fold what fits together in the range: no unit may lose more than the parting of marks. */
static void fold_step(const struct step *s)
{
	const uint64_t machine = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	struct hx_va va = hx_va(model.base + (uintptr_t)(s->first * model.unit));
	HX_CHECK_STATUS(hx_fold(model.t, va, s->count * model.unit),
			model.t->huge ? HX_OK : HX_NOT_SUPPORTED);
	for (unsigned i = s->first; i < s->first + s->count; i++) {
		uint64_t marks = model.units[i].flags & machine;
		if (model.units[i].flags != 0) {
			struct hx_va at = hx_va(model.base + (uintptr_t)(i * model.unit));
			uint64_t now = hx_translate(model.t, at).flags & machine;
			HX_CHECK_EQUAL(now & marks, marks);
			model.units[i].flags |= now;
		}
	}
}

static void run_model(struct hx_pagetable *t, uintptr_t base, uint64_t unit, unsigned steps,
		      uint64_t seed)
{
	hx_memset(&model, 0, sizeof model);
	model.t = t;
	model.base = base;
	model.unit = unit;
	uint64_t tables = hx_pagetable_counters(t).tables, free = world_free_count();
	struct hx_random r = {seed};
	for (unsigned n = 0; n < steps; n++) {
		struct step s = random_step(&r);
		if (s.what == STEP_MARK) {
			mark_step(&s);
			continue;
		}
		if (hx_random_below(&r, 6) == 0) {
			fold_step(&s);
			WORLD_SOUND(t);
		}
		hx_status expected = expected_status(&s);
		if (hx_random_below(&r, 3) == 0) { /* first with too little memory */
			uint64_t before = world_hash(t);
			world_fail_after = (int64_t)hx_random_below(&r, 4);
			hx_status status = run_step(&s);
			world_fail_after = WORLD_NEVER;
			if (status == HX_OUT_OF_MEMORY) {
				HX_CHECK(expected == HX_OK && world_hash(t) == before);
			} else if (status == HX_OK) {
				HX_CHECK_STATUS(status, expected);
				apply_step(&s);
				expected = s.what == STEP_MAP || !s.sparse ? expected_status(&s)
									   : HX_OK;
			}
		}
		uint64_t before = world_hash(t);
		hx_status status = run_step(&s);
		HX_CHECK_STATUS(status, expected);
		if (status == HX_OK) {
			apply_step(&s);
		} else {
			HX_CHECK_EQUAL(world_hash(t), before);
		}
		compare();
		HX_CHECK_EQUAL(model.mistakes, 0);
		if (hx_test_failures() > 0) {
			hx_log("seed %llu, step %u", (unsigned long long)seed, n);
			return;
		}
	}
	HX_CHECK_STATUS(hx_unmap_sparse(t, hx_va(base), UNITS * unit, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).tables, tables);
	HX_CHECK_EQUAL(world_free_count(), free);
	WORLD_SOUND(t);
}

enum { STEPS = 1200 };

HX_TEST(random_calls_on_pages_match_a_model)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	run_model(&user, UVA - 2 * (uintptr_t)L1, PAGE, STEPS, 1); /* across a 1 GiB border */
	HX_BAIL();
	run_model(&kernel, kva() - (uintptr_t)L1, PAGE, STEPS, 2);
	close_tables();
}

HX_TEST(random_calls_without_huge_leaves_match_a_model)
{
	open_tables(false, HX_WX_FORCE);
	HX_BAIL();
	run_model(&user, UVA - (uintptr_t)L1, PAGE, STEPS, 3);
	close_tables();
}

HX_TEST(random_calls_on_2_mib_match_a_model)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	run_model(&user, UVA - (uintptr_t)L2, L1, STEPS, 4); /* 3 GiB */
	HX_BAIL();
	run_model(&kernel, kva() - (uintptr_t)L2, L1, STEPS, 5);
	close_tables();
}

HX_TEST(random_calls_with_break_before_make_match_a_model)
{
	open_frames(); /* the geometry is filled when the machine is up */
	HX_BAIL();
	const struct hx_geometry before = hx_hal_geometry;
	hx_hal_geometry.group_bits = 0; /* one excludes the other */
	hx_hal_geometry.features =
		(before.features | HX_MMU_BREAK_BEFORE_MAKE) & ~HX_MMU_HARDWARE_AD;
	open_tables(true, HX_WX_FORCE);
	run_model(&user, UVA - 2 * (uintptr_t)L1, PAGE, STEPS, 6);
	close_tables();
	hx_hal_geometry = before;
}

HX_TEST(random_calls_with_groups_match_a_model)
{
	enum { GROUP_BITS = 4 };
	open_frames();
	HX_BAIL();
	const struct hx_geometry before = hx_hal_geometry;
	if (hx_hal_pte_group(1) == 1) {
		hx_test_skip("entries of this format have no groups");
		return;
	}
	for (unsigned i = 0; i < 2 && hx_test_failures() == 0; i++) {
		hx_hal_geometry.group_bits = GROUP_BITS;
		hx_hal_geometry.features &= i == 0 ? UINT32_MAX : ~HX_MMU_HARDWARE_AD;
		open_tables(true, HX_WX_FORCE);
		run_model(&user, UVA - 2 * (uintptr_t)L1, PAGE, STEPS, 7 + i);
		HX_BAIL();
		run_model(&kernel, kva() - (uintptr_t)L1, PAGE, STEPS, 9 + i);
		close_tables();
		open_tables(false, HX_WX_FORCE);
		run_model(&user, UVA - (uintptr_t)L1, PAGE, STEPS, 11 + i);
		close_tables();
		hx_hal_geometry = before;
	}
}

/* ---- One page straight away ---- */

static uint64_t locks_of(const struct hx_pagetable *t)
{
	return hx_pagetable_counters(t).locks;
}

/* Two pages at @va, and the leaf table is known to the next call. */
static void make_known(struct hx_pagetable *t, uintptr_t va, uint64_t flags)
{
	HX_CHECK_STATUS(hx_map(t, hx_va(va), hx_pa(PA), PAGE, flags), HX_OK);
	HX_CHECK_STATUS(hx_map(t, hx_va(va + PAGE), hx_pa(PA + PAGE), PAGE, flags), HX_OK);
}

static void check_straight(struct hx_pagetable *t, uintptr_t va, uint64_t flags, bool told)
{
	make_known(t, va, flags);
	const uint64_t tables = hx_pagetable_counters(t).tables;
	const struct hx_va at = hx_va(va + 2 * PAGE);
	uint64_t locks = locks_of(t);
	/* W^X is applied here as elsewhere. */
	HX_CHECK_STATUS(hx_map(t, at, hx_pa(PA + L1), PAGE, flags & ~HX_PAGE_NO_EXECUTE), HX_OK);
	HX_CHECK_EQUAL(locks_of(t), ++locks);
	check_leaf(t, at.v, PA + L1, 0);
	HX_CHECK_EQUAL(hx_translate(t, at).flags &
			       ~(HX_PAGE_GLOBAL | HX_PAGE_ACCESSED | HX_PAGE_DIRTY),
		       flags);
	/* What is not usual is refused as elsewhere, and the table stays known. */
	WORLD_REFUSED(t, hx_map(t, at, hx_pa(PA), PAGE, flags), HX_ALREADY_MAPPED);
	WORLD_REFUSED(t, hx_unmap(t, hx_va(va + 3 * PAGE), PAGE, NULL, NULL), HX_NOT_MAPPED);
	HX_CHECK_STATUS(hx_unmap_sparse(t, hx_va(va + 3 * PAGE), PAGE, NULL, NULL), HX_OK);
	locks = locks_of(t);
	struct released seen = none_released;
	HX_CHECK_STATUS(hx_unmap(t, at, PAGE, told ? note_release : NULL, &seen), HX_OK);
	HX_CHECK_EQUAL(locks_of(t), ++locks);
	HX_CHECK_EQUAL(seen.count, told ? 1u : 0u);
	if (told) {
		HX_CHECK(seen.next == at.v + PAGE && seen.bytes == PAGE && seen.pa_sum == PA + L1);
		HX_CHECK_EQUAL(seen.flags_or & ~HX_PAGE_DIRTY,
			       flags & (HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_USER));
	}
	check_absent(t, at.v);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).tables, tables);
	HX_CHECK_STATUS(hx_unmap(t, hx_va(va), 2 * PAGE, NULL, NULL), HX_OK);
}

HX_TEST(one_page_beside_another_is_done_straight_away)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	for (unsigned told = 0; told < 2; told++) {
		check_straight(&user, UVA, URW, told);
		check_straight(&kernel, kva(), RW, told);
		/* Behind the last entry comes another table's first, and before the first none. */
		check_straight(&user, UVA + (uintptr_t)(L1 - 4 * PAGE), URW, told);
	}
	make_known(&user, UVA, URW);
	check_bad_maps(hx_va(UVA + 2 * PAGE));
	HX_CHECK_STATUS(hx_map(NULL, hx_va(UVA), hx_pa(PA), PAGE, URW), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_unmap(NULL, hx_va(UVA), PAGE, NULL, NULL), HX_NOT_INITIALIZED);
	WORLD_REFUSED(&user, hx_unmap(&user, hx_va(UVA + 1), PAGE, NULL, NULL),
		      HX_INVALID_ALIGNMENT);
	WORLD_REFUSED(&user, hx_unmap(&user, hx_va(kva()), PAGE, NULL, NULL), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), 2 * PAGE, NULL, NULL), HX_OK);
	close_tables();
}

HX_TEST(one_page_without_a_neighbour_takes_its_table_along)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	const unsigned last = (1u << hx_hal_geometry.bits[0]) - 1;
	const uintptr_t end = UVA + last * (uintptr_t)PAGE;
	make_known(&user, UVA, URW);
	const uint64_t tables = hx_pagetable_counters(&user).tables;
	HX_CHECK_STATUS(hx_map(&user, hx_va(end), hx_pa(PA), PAGE, URW), HX_OK);
	/* One that is far away keeps the table as well. */
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + PAGE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, tables);
	check_leaf(&user, end, PA, 0);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(end), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	/* A hidden page is told as others are. */
	struct hx_pagetable_config c = config();
	c.kernel = &kernel;
	struct hx_pagetable small;
	HX_REQUIRE_STATUS(hx_pagetable_init(&small, (c.huge = false, &c)), HX_OK);
	make_known(&small, UVA, URW);
	HX_CHECK_STATUS(hx_update_flags(&small, hx_va(UVA), PAGE, 0), HX_OK);
	struct released seen = none_released;
	HX_CHECK_STATUS(hx_unmap(&small, hx_va(UVA), PAGE, note_release, &seen), HX_OK);
	HX_CHECK(seen.count == 1 && seen.pa_sum == PA);
	HX_CHECK_STATUS(hx_unmap(&small, hx_va(UVA + PAGE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&small), HX_OK);
	close_tables();
}

HX_TEST(a_leaf_table_that_has_gone_is_not_known)
{
	open_tables(true, HX_WX_FORCE);
	HX_BAIL();
	const uintptr_t table = (uintptr_t)1 << world_shift(1), same = UVA + 32 * table;
	const struct hx_va at = hx_va(UVA + 2 * PAGE);
	/* Freed with what was in it; with all of what lies above it. */
	const uint64_t bytes[] = {2 * PAGE, L1, 2 * L1, L2};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bytes); i++) {
		make_known(&user, UVA, URW);
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), bytes[i], NULL, NULL), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
		HX_CHECK_STATUS(hx_map(&user, at, hx_pa(PA), PAGE, URW), HX_OK);
		check_leaf(&user, at.v, PA, 0);
		HX_CHECK_STATUS(hx_unmap(&user, at, PAGE, NULL, NULL), HX_OK);
	}
	/* Folded into a leaf: there is no table to map in, and a page is cut out by a split. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(PA), table, URW | HX_MAP_NO_HUGE), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, at, PAGE, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, at, hx_pa(PA + 2 * PAGE), PAGE, URW), HX_OK);
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA), table), HX_OK);
	check_leaf(&user, at.v, PA + 2 * PAGE, 1);
	WORLD_REFUSED(&user, hx_map(&user, at, hx_pa(PA), PAGE, URW), HX_ALREADY_MAPPED);
	HX_CHECK_STATUS(hx_unmap(&user, at, PAGE, NULL, NULL), HX_OK);
	check_absent(&user, at.v);
	check_leaf(&user, at.v + PAGE, PA + 3 * PAGE, 0);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), table, NULL, NULL), HX_OK);
	/* Two tables of one stripe, in turn. */
	make_known(&user, UVA, URW);
	make_known(&user, same, URW);
	for (unsigned i = 0; i < 4; i++) {
		struct hx_va va = hx_va((i % 2 ? same : UVA) + (2 + i) * PAGE);
		HX_CHECK_STATUS(hx_map(&user, va, hx_pa(PA + i * PAGE), PAGE, URW), HX_OK);
		check_leaf(&user, va.v, PA + i * PAGE, 0);
		check_absent(&user, (i % 2 ? UVA : same) + (2 + i) * PAGE);
	}
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 33 * table, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	/* With the whole. */
	make_known(&user, UVA, URW);
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, at, hx_pa(PA), PAGE, URW), HX_NOT_INITIALIZED);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, NULL, NULL), HX_NOT_INITIALIZED);
	struct hx_pagetable_config c = config();
	c.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &c), HX_OK);
	HX_CHECK_STATUS(hx_map(&user, at, hx_pa(PA), PAGE, URW), HX_OK);
	check_leaf(&user, at.v, PA, 0);
	HX_CHECK_STATUS(hx_unmap(&user, at, PAGE, NULL, NULL), HX_OK);
	close_tables();
}

HX_SUITE(mapper, HX_CASE(init_checks_its_arguments),
	 HX_CASE(init_refuses_a_geometry_that_it_cannot_walk), HX_CASE(destroy_frees_every_table),
	 HX_CASE(ranges_are_checked), HX_CASE(frames_and_flags_are_checked),
	 HX_CASE(first_and_last_pages_of_both_halves), HX_CASE(the_largest_leaf_is_taken),
	 HX_CASE(a_table_without_huge_leaves), HX_CASE(what_is_mapped_is_not_mapped_over),
	 HX_CASE(huge_leaves_are_split_where_a_range_ends),
	 HX_CASE(break_before_make_leaves_the_same_tables), HX_CASE(every_allocation_may_fail),
	 HX_CASE(huge_leaves_keep_the_tables_of_their_splits), HX_CASE(the_direct_map_keeps_none),
	 HX_CASE(no_leaf_straddles_the_end_of_the_direct_map),
	 HX_CASE(the_direct_map_is_not_folded_by_breaking_it),
	 HX_CASE(leaves_that_fit_together_are_folded), HX_CASE(ranges_are_translated_and_harvested),
	 HX_CASE(a_map_that_can_never_succeed_gives_up_early), HX_CASE(emptied_tables_are_freed),
	 HX_CASE(released_leaves_are_told_with_their_flags),
	 HX_CASE(writable_and_executable_by_policy),
	 HX_CASE(hidden_pages_keep_all_but_their_rights), HX_CASE(accessed_and_dirty_stay),
	 HX_CASE(a_machine_without_accessed_and_dirty), HX_CASE(sealed_root_entries_are_fixed),
	 HX_CASE(tables_are_tagged), HX_CASE(the_validator_sees_damage),
	 HX_CASE(translate_says_where_the_walk_ended), HX_CASE(flushes_are_counted_and_few),
	 HX_CASE(one_page_beside_another_is_done_straight_away),
	 HX_CASE(one_page_without_a_neighbour_takes_its_table_along),
	 HX_CASE(a_leaf_table_that_has_gone_is_not_known),
	 HX_CASE(random_calls_on_pages_match_a_model),
	 HX_CASE(random_calls_without_huge_leaves_match_a_model),
	 HX_CASE(random_calls_on_2_mib_match_a_model),
	 HX_CASE(random_calls_with_groups_match_a_model),
	 HX_CASE(random_calls_with_break_before_make_match_a_model));
