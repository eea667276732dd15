/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * HAL conformance: what a port must do before it may be called one. The same
 * source runs on the simulated machine and on every board.
 *
 * First the codec, as a pure function. Then the MMU, through the mapper and real
 * accesses (hx_platform_probe()): a table of this suite's own is loaded, shares
 * the kernel half and maps test frames in the user half:
 *
 *      HERE   what a case works on         2 MiB and 1 GiB aligned
 *      ALIAS  the same frames once more    under another table of each level below the root's
 */
#include <hx/platform.h>

#include "hx_test.h"
#include "machine.h"

#define HERE UINT64_C(0x100000000)  /* 4 GiB */
#define ALIAS UINT64_C(0x240000000) /* 9 GiB */

enum { PAGE = 4096 };

#define RO (HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE)
#define RW (HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE)
#define RX (HX_PAGE_USER_CODE)

static uint64_t level_bytes(unsigned level)
{
	unsigned shift = hx_hal_geometry.page_shift;
	for (unsigned l = 0; l < level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	return UINT64_C(1) << shift;
}

static bool has_leaf(unsigned level)
{
	(void)hx_test_machine(); /* the geometry is known once it is booted */
	return level < hx_hal_geometry.levels && (hx_hal_geometry.leaf_levels >> level & 1);
}

static bool has_feature(uint32_t feature)
{
	return (hx_hal_geometry.features & feature) != 0;
}

/* ---- Geometry and codec ---- */

HX_TEST(geometry_is_consistent)
{
	(void)hx_test_machine();
	const struct hx_geometry *g = &hx_hal_geometry;
	HX_REQUIRE(g->levels >= 2 && g->levels <= HX_LEVELS_MAX);
	unsigned bits = g->page_shift;
	for (unsigned l = 0; l < g->levels; l++) {
		HX_CHECK(g->bits[l] > 0);
		bits += g->bits[l];
	}
	HX_CHECK_EQUAL(g->page_shift, 12);
	HX_CHECK_EQUAL(g->va_bits, bits);
	HX_CHECK(g->pa_bits >= 32 && g->pa_bits <= 56);
	HX_CHECK(g->asid_bits <= 16);
	HX_CHECK(has_leaf(0));
	HX_CHECK_EQUAL(g->leaf_levels >> g->levels, 0);
	HX_CHECK_EQUAL(hx_user_end(), UINT64_C(1) << (g->va_bits - 1));
	HX_CHECK_EQUAL(hx_kernel_start(), ~UINT64_C(0) << (g->va_bits - 1));
}

/* Addresses at the edges of the field, aligned to the level. */
static unsigned boundary_addresses(unsigned level, uint64_t out[5])
{
	uint64_t size = level_bytes(level), end = UINT64_C(1) << hx_hal_geometry.pa_bits;
	if (size >= end) {
		out[0] = 0;
		return 1;
	}
	out[0] = 0;
	out[1] = size;
	out[2] = end - size;
	out[3] = end >> 1;
	out[4] = hx_align_down(UINT64_C(0x5555555555555555) & (end - 1), size);
	return 5;
}

HX_TEST(leaves_round_trip_with_all_flags)
{
	static const uint64_t bits[] = {
		HX_PAGE_WRITABLE, HX_PAGE_USER,  HX_PAGE_WRITE_THROUGH, HX_PAGE_NO_CACHE,
		HX_PAGE_ACCESSED, HX_PAGE_DIRTY, HX_PAGE_GLOBAL,        HX_PAGE_NO_EXECUTE,
	};
	(void)hx_test_machine();
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t addresses[5];
		unsigned n = boundary_addresses(level, addresses);
		for (unsigned set = 0; has_leaf(level) && set < 1u << 8; set++) {
			uint64_t flags = HX_PAGE_PRESENT;
			for (unsigned b = 0; b < 8; b++) {
				flags |= set >> b & 1 ? bits[b] : 0;
			}
			for (unsigned i = 0; i < n; i++) {
				hx_pte e = hx_hal_pte_leaf(hx_pa(addresses[i]),
							   hx_hal_pte_prot(flags, level), level);
				HX_CHECK_EQUAL(hx_hal_pte_kind(e, level), HX_PTE_LEAF);
				HX_CHECK_EQUAL(hx_hal_pte_pa(e, level).v, addresses[i]);
				HX_CHECK_EQUAL(hx_hal_pte_flags(e, level),
					       flags | (level > 0 ? HX_PAGE_HUGE : 0));
			}
		}
	}
}

HX_TEST(tables_are_never_leaves)
{
	(void)hx_test_machine();
	uint64_t addresses[5];
	unsigned n = boundary_addresses(0, addresses);
	for (unsigned i = 0; i < n; i++) {
		hx_pte e = hx_hal_pte_table(hx_pa(addresses[i]));
		for (unsigned level = 1; level < hx_hal_geometry.levels; level++) {
			HX_CHECK_EQUAL(hx_hal_pte_kind(e, level), HX_PTE_TABLE);
			HX_CHECK_EQUAL(hx_hal_pte_pa(e, level).v, addresses[i]);
		}
	}
}

HX_TEST(soft_entries_carry_their_payload)
{
	(void)hx_test_machine();
	struct hx_random r = {3};
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t payload = i < HX_SOFT_BITS ? UINT64_C(1) << i : hx_random(&r) >> (i % 60);
		payload = i == 998 ? 0 : i == 999 ? UINT64_MAX : payload;
		payload &= (UINT64_C(1) << HX_SOFT_BITS) - 1;
		hx_pte e = hx_hal_pte_soft(payload);
		HX_CHECK(e != 0);
		HX_CHECK_EQUAL(hx_hal_pte_payload(e), payload);
		for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
			HX_CHECK_EQUAL(hx_hal_pte_kind(e, level), HX_PTE_SOFT);
		}
		if (payload >> 32 == 0) { /* a frame number: speculation must not find it */
			HX_CHECK(hx_hal_pte_pa(e, 0).v >= UINT64_C(1) << 48);
		}
	}
}

HX_TEST(every_word_has_a_kind)
{
	(void)hx_test_machine();
	struct hx_random r = {4};
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		HX_CHECK_EQUAL(hx_hal_pte_kind(0, level), HX_PTE_EMPTY);
		for (unsigned i = 0; i < 20000; i++) {
			hx_pte e = hx_random(&r);
			e &= hx_random(&r);
			e |= i & 1; /* the bit that makes it valid, on the ports so far */
			enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
			HX_CHECK((kind == HX_PTE_EMPTY) == (e == 0));
			HX_CHECK(kind == HX_PTE_EMPTY || kind == HX_PTE_SOFT ||
				 (kind == HX_PTE_TABLE && level > 0) || kind == HX_PTE_LEAF);
			if (kind != HX_PTE_LEAF ||
			    !hx_is_aligned(hx_hal_pte_pa(e, level).v, level_bytes(level))) {
				continue;
			}
			/* What is read from a leaf makes a leaf that reads the same. */
			uint64_t flags = hx_hal_pte_flags(e, level);
			hx_pte again = hx_hal_pte_leaf(hx_hal_pte_pa(e, level),
						       hx_hal_pte_prot(flags, level), level);
			HX_CHECK_EQUAL(hx_hal_pte_kind(again, level), HX_PTE_LEAF);
			HX_CHECK_EQUAL(hx_hal_pte_pa(again, level).v, hx_hal_pte_pa(e, level).v);
			HX_CHECK_EQUAL(hx_hal_pte_flags(again, level), flags);
		}
	}
}

/* ---- A table of the suite's own ---- */

static struct hx_pagetable table;
static uint64_t tables_before;

static void open_table(void)
{
	const struct hx_test_machine *m = hx_test_machine();
	tables_before = hx_framedb_count(m->db, HX_TAG_TABLE);
	HX_REQUIRE_STATUS(hx_pagetable_init(&table,
					    &(struct hx_pagetable_config){
						    .frames = m->frames,
						    .db = m->db,
						    .wx = HX_WX_OFF,
						    .huge = true,
						    .kernel = m->kernel_table,
					    }),
			  HX_OK);
	hx_pagetable_load(&table, m->kernel_table);
}

static void close_table(void)
{
	const struct hx_test_machine *m = hx_test_machine();
	HX_CHECK_STATUS(hx_pagetable_validate(&table), HX_OK);
	hx_pagetable_load(m->kernel_table, &table);
	HX_CHECK_STATUS(hx_pagetable_destroy(&table), HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(m->db, HX_TAG_TABLE), tables_before);
}

/* A block of test memory. */
struct block {
	struct hx_pfn first;
	unsigned order;
};

static bool take_block(unsigned order, struct block *out)
{
	struct hx_pfn_result r =
		hx_frames_allocate(hx_test_machine()->frames, order, HX_ALLOC_NO_PRESSURE);
	*out = (struct block){r.value, order};
	return r.status == HX_OK;
}

static void give_block(struct block b)
{
	HX_CHECK_STATUS(hx_frames_free(hx_test_machine()->frames, b.first, b.order), HX_OK);
}

static struct hx_pa block_pa(struct block b)
{
	return hx_pfn_to_pa(b.first);
}

static uint64_t *word(struct block b, uint64_t offset)
{
	return hx_ptr(hx_pa(block_pa(b).v + offset));
}

/* One page with a number in its first word. */
static struct block page_with(uint64_t value)
{
	struct block b;
	if (!take_block(0, &b)) {
		hx_test_fail(__FILE__, __LINE__, "no frame");
		return (struct block){{0}, 0};
	}
	__atomic_store_n(word(b, 0), value, __ATOMIC_RELAXED);
	return b;
}

static hx_status map(uint64_t va, struct block b, uint64_t flags)
{
	return hx_map(&table, hx_va((uintptr_t)va), block_pa(b), (uint64_t)PAGE << b.order, flags);
}

static hx_status unmap(uint64_t va, uint64_t bytes)
{
	return hx_unmap(&table, hx_va((uintptr_t)va), bytes, NULL, NULL);
}

static hx_status protect(uint64_t va, uint64_t bytes, uint64_t flags)
{
	return hx_update_flags(&table, hx_va((uintptr_t)va), bytes, flags);
}

/* ---- Accesses ---- */

static struct hx_probe attempt(uint64_t va, enum hx_access access, bool user, uint64_t value)
{
	struct hx_probe p = {
		.va = hx_va((uintptr_t)va), .access = access, .user = user, .value = value};
	hx_platform_probe(&p);
	return p;
}

#define FAULT_VALUE UINT64_C(0xfa0175fa0175fa01) /* what read_user() gives for a fault */

static uint64_t read_user(uint64_t va)
{
	struct hx_probe p = attempt(va, HX_ACCESS_READ, true, 0);
	return p.faulted ? FAULT_VALUE : p.value;
}

static bool write_user(uint64_t va, uint64_t value)
{
	return !attempt(va, HX_ACCESS_WRITE, true, value).faulted;
}

static bool execute_user(uint64_t va)
{
	return !attempt(va, HX_ACCESS_EXECUTE, true, 0).faulted;
}

static void put_code(struct block b)
{
	hx_memcpy(word(b, 0), hx_platform_return_code, hx_platform_return_code_bytes);
	hx_platform_code_written();
}

/* ---- Aliases at every leaf size ---- */

static void alias_at_level(unsigned level, uint64_t level_flag)
{
	struct block b;
	if (!has_leaf(level)) {
		hx_test_skip("the machine has no leaf of this size");
		return;
	}
	if (!take_block(9 * level, &b)) {
		hx_test_skip("no block of this size is free");
		return;
	}
	open_table();
	HX_BAIL();
	uint64_t bytes = level_bytes(level);
	HX_REQUIRE_STATUS(map(HERE, b, RW | level_flag), HX_OK);
	HX_REQUIRE_STATUS(map(ALIAS, b, RO | level_flag), HX_OK);
	uint64_t offsets[] = {0, bytes / 2, bytes - 8};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(offsets); i++) {
		uint64_t at = offsets[i], value = UINT64_C(0xa11a5e5) << 32 | at | i;
		HX_CHECK(write_user(HERE + at, value));
		HX_CHECK_EQUAL(read_user(ALIAS + at), value);
		HX_CHECK_EQUAL(__atomic_load_n(word(b, at), __ATOMIC_RELAXED), value);
		__atomic_store_n(word(b, at), ~value, __ATOMIC_RELAXED);
		HX_CHECK_EQUAL(read_user(HERE + at), ~value);
		HX_CHECK(!write_user(ALIAS + at, 1));
		HX_CHECK_EQUAL(read_user(ALIAS + at), ~value);
		struct hx_translation t = hx_translate(&table, hx_va((uintptr_t)(ALIAS + at)));
		HX_CHECK_STATUS(t.status, HX_OK);
		HX_CHECK_EQUAL(t.pa.v, block_pa(b).v + at);
		HX_CHECK_EQUAL(t.level, level);
		HX_CHECK_EQUAL((t.flags & HX_PAGE_HUGE) != 0, level > 0);
	}
	HX_CHECK_STATUS(unmap(HERE, bytes), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
	HX_CHECK_EQUAL(read_user(HERE + bytes - 8), FAULT_VALUE);
	HX_CHECK(read_user(ALIAS) != FAULT_VALUE);
	HX_CHECK_STATUS(unmap(ALIAS, bytes), HX_OK);
	close_table();
	give_block(b);
}

HX_TEST(aliases_of_4_kib)
{
	alias_at_level(0, HX_MAP_NO_HUGE);
}

HX_TEST(aliases_of_2_mib)
{
	alias_at_level(1, HX_MAP_LEVEL_1);
}

HX_TEST(aliases_of_1_gib)
{
	alias_at_level(2, HX_MAP_LEVEL_2);
}

/* ---- Rights ---- */

/* The page's rights: bit 0 writable, 1 user, 2 executable. */
static bool expected(unsigned rights, enum hx_access access, bool user, bool user_access)
{
	bool user_page = rights & 2;
	if (access == HX_ACCESS_EXECUTE) {
		return user == user_page && (rights & 4 || !has_feature(HX_MMU_NO_EXECUTE));
	}
	if (user ? !user_page : user_page && !user_access) {
		return false;
	}
	return access == HX_ACCESS_READ || rights & 1;
}

static void check_access(uint64_t va, unsigned rights, enum hx_access access, bool user,
			 bool user_access)
{
	hx_hal_user_access(user_access);
	uint64_t value = access == HX_ACCESS_WRITE ? 0 : UINT64_C(0x1234);
	struct hx_probe p = attempt(va + (access == HX_ACCESS_WRITE ? 64 : 0), access, user, value);
	hx_hal_user_access(false);
	bool allowed = expected(rights, access, user, user_access);
	if (p.faulted == allowed) {
		hx_test_fail(__FILE__, __LINE__, "page %c%c%c, access %u, %s%s: %s",
			     rights & 1 ? 'w' : '-', rights & 4 ? 'x' : '-', rights & 2 ? 'u' : '-',
			     access, user ? "user" : "supervisor",
			     user_access ? " with user access" : "",
			     p.faulted ? "refused" : "let through");
	}
	if (p.faulted) {
		HX_CHECK_EQUAL(p.fault.va.v & ~(uintptr_t)(PAGE - 1), va);
		HX_CHECK_EQUAL(p.fault.access, access);
		HX_CHECK_EQUAL(p.fault.user, user);
		HX_CHECK(p.fault.cause == HX_FAULT_PROTECTION || p.fault.cause == HX_FAULT_UNKNOWN);
	}
}

HX_TEST(rights_matrix)
{
	open_table();
	HX_BAIL();
	struct block b = page_with(0);
	put_code(b);
	for (unsigned rights = 0; rights < 8; rights++) {
		uint64_t flags = HX_PAGE_PRESENT | (rights & 1 ? HX_PAGE_WRITABLE : 0) |
				 (rights & 2 ? HX_PAGE_USER : 0) |
				 (rights & 4 ? 0 : HX_PAGE_NO_EXECUTE);
		uint64_t va = HERE + rights * PAGE;
		HX_REQUIRE_STATUS(map(va, b, flags), HX_OK);
		for (unsigned how = 0; how < 9; how++) {
			/* user, supervisor, supervisor with user access */
			bool guards = (rights & 2) && how / 3 > 0 &&
				      (how / 3 == 1 || how % 3 == HX_ACCESS_EXECUTE);
			if (guards && !has_feature(HX_MMU_USER_GUARD)) {
				continue; /* old machines let the kernel through, some half */
			}
			check_access(va, rights, (enum hx_access)(how % 3), how / 3 == 0,
				     how / 3 == 2);
		}
	}
	HX_CHECK_STATUS(unmap(HERE, 8 * PAGE), HX_OK);
	close_table();
	give_block(b);
}

HX_TEST(what_is_not_mapped_faults)
{
	open_table();
	HX_BAIL();
	uint64_t nowhere[] = {HERE, ALIAS, HX_MIB(1), hx_user_end() - PAGE};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(nowhere); i++) {
		for (unsigned how = 0; how < 4; how++) {
			struct hx_probe p =
				attempt(nowhere[i], (enum hx_access)(how & 1), how & 2, 0);
			HX_CHECK(p.faulted);
			HX_CHECK_EQUAL(p.fault.va.v, nowhere[i]);
			HX_CHECK_EQUAL(p.fault.access, how & 1);
			HX_CHECK_EQUAL(p.fault.user, (how & 2) != 0);
			HX_CHECK(p.fault.cause == HX_FAULT_MISSING ||
				 p.fault.cause == HX_FAULT_UNKNOWN);
		}
	}
	close_table();
}

HX_TEST(accessed_and_dirty_follow_the_accesses)
{
	open_table();
	HX_BAIL();
	struct block b = page_with(1);
	struct hx_va va = hx_va((uintptr_t)HERE);
	HX_REQUIRE_STATUS(map(HERE, b, RW), HX_OK);
	uint64_t both = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	bool hardware = has_feature(HX_MMU_HARDWARE_AD);
	HX_CHECK_EQUAL(hx_translate(&table, va).flags & both, hardware ? 0 : both);
	HX_CHECK_EQUAL(read_user(HERE), 1);
	HX_CHECK_EQUAL(hx_translate(&table, va).flags & both, hardware ? HX_PAGE_ACCESSED : both);
	HX_CHECK(write_user(HERE, 2));
	HX_CHECK_EQUAL(hx_translate(&table, va).flags & both, both);
	/* Lowering rights keeps them. */
	HX_CHECK_STATUS(protect(HERE, PAGE, RO), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&table, va).flags & both, both);
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	close_table();
	give_block(b);
}

/* ---- Refusals ---- */

HX_TEST(bad_ranges_change_nothing)
{
	open_table();
	HX_BAIL();
	struct block b = page_with(77);
	HX_REQUIRE_STATUS(map(HERE, b, RW), HX_OK);
	const uint64_t end = hx_user_end(), far = UINT64_C(1) << hx_hal_geometry.pa_bits;
	const uint64_t pa = block_pa(b).v, big = UINT64_C(1) << 63;
	const struct {
		uint64_t va, pa, bytes;
		hx_status status;
	} cases[] = {
		{HERE + 1, pa, PAGE, HX_INVALID_ALIGNMENT},
		{HERE + 8 * PAGE, pa + 8, PAGE, HX_INVALID_ALIGNMENT},
		{HERE + 8 * PAGE, pa, PAGE + 1, HX_INVALID_ALIGNMENT},
		{HERE + 8 * PAGE, pa, 0, HX_INVALID_SIZE},
		{end, pa, PAGE, HX_INVALID_ADDRESS},            /* not canonical */
		{end - PAGE, pa, 2 * PAGE, HX_INVALID_ADDRESS}, /* leaves the half */
		{end + HERE, pa, PAGE, HX_INVALID_ADDRESS},     /* in the gap */
		{hx_kernel_start() - PAGE, pa, PAGE, HX_INVALID_ADDRESS},
		{hx_kernel_start(), pa, PAGE, HX_INVALID_ADDRESS},   /* the kernel's half */
		{-(uint64_t)PAGE, pa, 2 * PAGE, HX_INVALID_ADDRESS}, /* wraps */
		{HERE + 8 * PAGE, pa, -HERE, HX_INVALID_ADDRESS},    /* wraps back to the start */
		{HERE + big, pa, big, HX_INVALID_ADDRESS},
		{HERE + 8 * PAGE, far, PAGE, HX_INVALID_ADDRESS}, /* no such memory */
		{HERE + 8 * PAGE, far - PAGE, 2 * PAGE, HX_INVALID_ADDRESS},
		{HERE + 8 * PAGE, -(uint64_t)PAGE, 2 * PAGE, HX_INVALID_ADDRESS},
		{HERE, pa, PAGE, HX_ALREADY_MAPPED},
		{HERE - PAGE, pa, 2 * PAGE, HX_ALREADY_MAPPED},
	};
	const struct hx_test_machine *m = hx_test_machine();
	uint64_t tables = hx_pagetable_counters(&table).tables, frames = hx_frames_free_frames(m->frames);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		struct hx_va va = hx_va((uintptr_t)cases[i].va);
		uint64_t bytes = cases[i].bytes;
		hx_status s = hx_map(&table, va, hx_pa(cases[i].pa), bytes, RW);
		if (s != cases[i].status) {
			hx_test_fail(__FILE__, __LINE__, "case %u: map is %s, not %s", i,
				     hx_status_name(s), hx_status_name(cases[i].status));
		}
		/* The others take no physical address. */
		if (cases[i].pa == pa && cases[i].status != HX_ALREADY_MAPPED) {
			HX_CHECK_STATUS(hx_unmap(&table, va, bytes, NULL, NULL), cases[i].status);
			HX_CHECK_STATUS(hx_update_flags(&table, va, bytes, RO), cases[i].status);
		}
		HX_CHECK_STATUS(hx_pagetable_validate(&table), HX_OK);
		HX_CHECK_EQUAL(hx_pagetable_counters(&table).tables, tables);
		HX_CHECK_EQUAL(hx_frames_free_frames(m->frames), frames);
	}
	struct hx_va free_va = hx_va((uintptr_t)HERE + 8 * PAGE);
	HX_CHECK_STATUS(hx_map(&table, free_va, block_pa(b), PAGE, RW & ~HX_PAGE_PRESENT),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_map(&table, free_va, block_pa(b), PAGE, RW | UINT64_C(1) << 40),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(unmap(HERE, 2 * PAGE), HX_NOT_MAPPED);
	HX_CHECK_STATUS(protect(HERE - PAGE, 2 * PAGE, RO), HX_NOT_MAPPED);
	HX_CHECK(write_user(HERE, 78)); /* untouched by it all */
	HX_CHECK_EQUAL(read_user(HERE + 8 * PAGE), FAULT_VALUE);
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	close_table();
	give_block(b);
}

/* ---- Staleness on this CPU ---- */

HX_TEST(changes_reach_this_cpu)
{
	open_table();
	HX_BAIL();
	struct block one = page_with(1), two = page_with(2), code = page_with(0);
	put_code(code);

	HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), 1);
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
	HX_REQUIRE_STATUS(map(HERE, two, RW), HX_OK); /* absence may have been cached */
	HX_CHECK_EQUAL(read_user(HERE), 2);
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), 1);

	HX_CHECK(write_user(HERE, 1));
	HX_CHECK_STATUS(protect(HERE, PAGE, RO), HX_OK);
	HX_CHECK(!write_user(HERE, 3));
	HX_CHECK_EQUAL(read_user(HERE), 1);
	HX_CHECK_STATUS(protect(HERE, PAGE, RW), HX_OK);
	HX_CHECK(write_user(HERE, 4)); /* a spurious fault is resolved */
	HX_CHECK_STATUS(protect(HERE, PAGE, RW & ~HX_PAGE_USER), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);

	HX_REQUIRE_STATUS(map(HERE, code, RX), HX_OK);
	HX_CHECK(execute_user(HERE));
	HX_CHECK_STATUS(protect(HERE, PAGE, RO), HX_OK);
	HX_CHECK_EQUAL(execute_user(HERE), !has_feature(HX_MMU_NO_EXECUTE));
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	HX_CHECK(!execute_user(HERE));

	close_table();
	give_block(one);
	give_block(two);
	give_block(code);
}

HX_TEST(a_split_leaf_serves_no_longer)
{
	struct block huge;
	if (!has_leaf(1) || !take_block(9, &huge)) {
		hx_test_skip("no 2 MiB leaf, or no block for it");
		return;
	}
	open_table();
	HX_BAIL();
	struct block other = page_with(55);
	for (unsigned i = 0; i < 512; i++) {
		__atomic_store_n(word(huge, i * PAGE), 1000 + i, __ATOMIC_RELAXED);
	}
	HX_REQUIRE_STATUS(map(HERE, huge, RW | HX_MAP_LEVEL_1), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE + 5 * PAGE), 1005);
	HX_CHECK(write_user(HERE + 8, 1));
	HX_CHECK_STATUS(unmap(HERE + 5 * PAGE, PAGE), HX_OK);
	HX_CHECK_STATUS(protect(HERE + 7 * PAGE, 2 * PAGE, RO), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE + 5 * PAGE), FAULT_VALUE);
	HX_CHECK_EQUAL(read_user(HERE + 4 * PAGE), 1004);
	HX_CHECK(!write_user(HERE + 7 * PAGE, 1));
	HX_CHECK(!write_user(HERE + 8 * PAGE, 1));
	HX_CHECK(write_user(HERE + 9 * PAGE, 1));
	HX_CHECK_STATUS(map(HERE + 5 * PAGE, other, RW), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE + 5 * PAGE), 55);
	HX_CHECK_STATUS(unmap(HERE, HX_MIB(2)), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
	close_table();
	give_block(other);
	give_block(huge);
}

HX_TEST(freed_tables_serve_no_longer)
{
	open_table();
	HX_BAIL();
	struct block one = page_with(1), two = page_with(2);
	HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
	HX_REQUIRE_STATUS(map(HERE + PAGE, two, RW), HX_OK);
	HX_CHECK_EQUAL(read_user(HERE), 1); /* its neighbour shares the table */
	HX_CHECK_STATUS(unmap(HERE, 2 * PAGE), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&table).tables, 1); /* the root */
	HX_CHECK_EQUAL(read_user(HERE + PAGE), FAULT_VALUE);
	/* A huge leaf where a table was, a table where a huge leaf was. */
	struct block huge;
	if (has_leaf(1) && take_block(9, &huge)) {
		__atomic_store_n(word(huge, 0), 9, __ATOMIC_RELAXED);
		HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
		HX_CHECK_EQUAL(read_user(HERE), 1);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		HX_REQUIRE_STATUS(map(HERE, huge, RW | HX_MAP_LEVEL_1), HX_OK);
		HX_CHECK_EQUAL(read_user(HERE), 9);
		HX_CHECK_STATUS(unmap(HERE, HX_MIB(2)), HX_OK);
		HX_REQUIRE_STATUS(map(HERE, two, RW), HX_OK);
		HX_CHECK_EQUAL(read_user(HERE), 2);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		give_block(huge);
	}
	close_table();
	give_block(one);
	give_block(two);
}

/* ---- Staleness on other CPUs ---- */

struct remote {
	uint64_t va;
	enum hx_access access;
	uint64_t value;
	bool faulted;
};

static void remote_load(void *argument)
{
	(void)argument;
	hx_pagetable_load(&table, hx_test_machine()->kernel_table);
}

static void remote_unload(void *argument)
{
	(void)argument;
	hx_pagetable_load(hx_test_machine()->kernel_table, &table);
}

static void remote_access(void *argument)
{
	struct remote *r = argument;
	struct hx_probe p = attempt(r->va, r->access, true, r->value);
	r->faulted = p.faulted;
	r->value = p.value;
}

static void remote_kernel_read(void *argument)
{
	struct remote *r = argument;
	struct hx_probe p = attempt(r->va, HX_ACCESS_READ, false, 0);
	r->faulted = p.faulted;
	r->value = p.value;
}

static void on_cpu(unsigned cpu, void (*run)(void *argument), void *argument)
{
	HX_REQUIRE(hx_platform_run_on(cpu, run, argument));
	hx_platform_join(cpu);
}

static uint64_t read_on(unsigned cpu, uint64_t va)
{
	struct remote r = {.va = va, .access = HX_ACCESS_READ};
	on_cpu(cpu, remote_access, &r);
	return r.faulted ? FAULT_VALUE : r.value;
}

static bool write_on(unsigned cpu, uint64_t va)
{
	struct remote r = {.va = va, .access = HX_ACCESS_WRITE, .value = 1};
	on_cpu(cpu, remote_access, &r);
	return !r.faulted;
}

static bool one_cpu(void)
{
	if (hx_test_machine()->cpus < 2) {
		hx_test_skip("one CPU");
		return true;
	}
	return false;
}

HX_TEST(changes_reach_other_cpus)
{
	if (one_cpu()) {
		return;
	}
	open_table();
	HX_BAIL();
	struct block one = page_with(1), two = page_with(2);
	for (unsigned cpu = 1; cpu < hx_test_machine()->cpus; cpu++) {
		on_cpu(cpu, remote_load, NULL);
		__atomic_store_n(word(one, 0), 1, __ATOMIC_RELAXED);
		HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1); /* cached there from now on */
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE), FAULT_VALUE);
		HX_REQUIRE_STATUS(map(HERE, two, RW), HX_OK); /* absence may be cached there */
		HX_CHECK_EQUAL(read_on(cpu, HERE), 2);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1);
		HX_CHECK(write_on(cpu, HERE));
		HX_CHECK_STATUS(protect(HERE, PAGE, RO), HX_OK);
		HX_CHECK(!write_on(cpu, HERE));
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1); /* knows it as read-only from now on */
		HX_CHECK_STATUS(protect(HERE, PAGE, RW), HX_OK);
		HX_CHECK(write_on(cpu, HERE)); /* no need to tell it: the fault is spurious */
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE), FAULT_VALUE);
		on_cpu(cpu, remote_unload, NULL);
	}
	close_table();
	give_block(one);
	give_block(two);
}

HX_TEST(table_frees_and_splits_reach_other_cpus)
{
	struct block huge;
	if (one_cpu()) {
		return;
	}
	if (!has_leaf(1) || !take_block(9, &huge)) {
		hx_test_skip("no 2 MiB leaf, or no block for it");
		return;
	}
	open_table();
	HX_BAIL();
	struct block one = page_with(1), two = page_with(2);
	for (unsigned i = 0; i < 512; i++) {
		__atomic_store_n(word(huge, i * PAGE), 1000 + i, __ATOMIC_RELAXED);
	}
	on_cpu(1, remote_load, NULL);
	HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
	HX_REQUIRE_STATUS(map(HERE + PAGE, two, RW), HX_OK);
	HX_CHECK_EQUAL(read_on(1, HERE), 1);
	HX_CHECK_STATUS(unmap(HERE, 2 * PAGE), HX_OK); /* frees the tables */
	HX_CHECK_EQUAL(read_on(1, HERE + PAGE), FAULT_VALUE);
	HX_REQUIRE_STATUS(map(HERE, huge, RW | HX_MAP_LEVEL_1), HX_OK);
	HX_CHECK_EQUAL(read_on(1, HERE + 5 * PAGE), 1005);
	HX_CHECK_STATUS(unmap(HERE + 5 * PAGE, PAGE), HX_OK); /* splits the leaf */
	HX_CHECK_EQUAL(read_on(1, HERE + 5 * PAGE), FAULT_VALUE);
	HX_CHECK_EQUAL(read_on(1, HERE + 6 * PAGE), 1006);
	HX_CHECK_STATUS(unmap(HERE + 6 * PAGE, 100 * PAGE), HX_OK);
	HX_CHECK_EQUAL(read_on(1, HERE + 6 * PAGE), FAULT_VALUE);
	HX_CHECK_EQUAL(read_on(1, HERE + 200 * PAGE), 1200);
	HX_CHECK_STATUS(hx_unmap_sparse(&table, hx_va((uintptr_t)HERE), HX_MIB(2), NULL, NULL),
			HX_OK);
	HX_CHECK_EQUAL(read_on(1, HERE + 200 * PAGE), FAULT_VALUE);
	on_cpu(1, remote_unload, NULL);
	close_table();
	give_block(one);
	give_block(two);
	give_block(huge);
}

/* ---- The kernel half ---- */

HX_TEST(the_kernel_half_is_shared)
{
	const struct hx_test_machine *m = hx_test_machine();
	struct hx_va va = hx_test_system()->dynamic_base;
	uint64_t flags = HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL;
	open_table();
	HX_BAIL();
	struct block one = page_with(1), two = page_with(2);
	/* Mapped in the kernel's table after this table was made: visible here. */
	HX_REQUIRE_STATUS(hx_map(m->kernel_table, va, block_pa(one), PAGE, flags), HX_OK);
	struct hx_probe p = attempt(va.v, HX_ACCESS_READ, false, 0);
	HX_CHECK(!p.faulted && p.value == 1);
	HX_CHECK(attempt(va.v, HX_ACCESS_READ, true, 0).faulted);
	HX_CHECK_EQUAL(hx_translate(&table, va).pa.v, block_pa(one).v);
	struct remote r = {.va = va.v};
	if (m->cpus > 1) {
		on_cpu(1, remote_load, NULL);
		on_cpu(1, remote_kernel_read, &r);
		HX_CHECK(!r.faulted && r.value == 1);
	}
	/* A change there reaches CPUs that run another table, GLOBAL or not. */
	HX_CHECK_STATUS(hx_unmap(m->kernel_table, va, PAGE, NULL, NULL), HX_OK);
	HX_CHECK(attempt(va.v, HX_ACCESS_READ, false, 0).faulted);
	if (m->cpus > 1) {
		on_cpu(1, remote_kernel_read, &r);
		HX_CHECK(r.faulted);
	}
	HX_REQUIRE_STATUS(hx_map(m->kernel_table, va, block_pa(two), PAGE, flags), HX_OK);
	p = attempt(va.v, HX_ACCESS_READ, false, 0);
	HX_CHECK(!p.faulted && p.value == 2);
	if (m->cpus > 1) {
		on_cpu(1, remote_kernel_read, &r);
		HX_CHECK(!r.faulted && r.value == 2);
		on_cpu(1, remote_unload, NULL);
	}
	HX_CHECK_STATUS(hx_unmap(m->kernel_table, va, PAGE, NULL, NULL), HX_OK);
	close_table();
	give_block(one);
	give_block(two);
}

HX_SUITE(conformance, HX_CASE(geometry_is_consistent), HX_CASE(leaves_round_trip_with_all_flags),
	 HX_CASE(tables_are_never_leaves), HX_CASE(soft_entries_carry_their_payload),
	 HX_CASE(every_word_has_a_kind), HX_CASE(aliases_of_4_kib), HX_CASE(aliases_of_2_mib),
	 HX_CASE(aliases_of_1_gib), HX_CASE(rights_matrix), HX_CASE(what_is_not_mapped_faults),
	 HX_CASE(accessed_and_dirty_follow_the_accesses), HX_CASE(bad_ranges_change_nothing),
	 HX_CASE(changes_reach_this_cpu), HX_CASE(a_split_leaf_serves_no_longer),
	 HX_CASE(freed_tables_serve_no_longer), HX_CASE(changes_reach_other_cpus),
	 HX_CASE(table_frees_and_splits_reach_other_cpus), HX_CASE(the_kernel_half_is_shared));
