/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Conformance: what is mapped is reached, with its rights and nothing beyond. */
#include "conformance.h"

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

HX_CONFORMANCE(aliases_of_4_kib)
{
	alias_at_level(0, HX_MAP_NO_HUGE);
}

HX_CONFORMANCE(aliases_of_2_mib)
{
	alias_at_level(1, HX_MAP_LEVEL_1);
}

/*
 * A leaf of any size around one page of test memory: larger than any block that is free,
 * so nothing but that page is touched.
 *
 *      va                va + offset                   va + bytes
 *      |  not ours       |  the page  |  not ours      |
 *      pa, aligned       block_pa()
 */
struct window {
	uint64_t va, bytes, offset;
	struct hx_pa pa;
};

static struct window window_around(struct block b, unsigned level)
{
	uint64_t bytes = level_bytes(level), pa = hx_align_down(block_pa(b).v, bytes);
	uint64_t va = bytes > HERE ? bytes : HERE; /* aligned to all that is smaller */
	return (struct window){va, bytes, block_pa(b).v - pa, hx_pa(pa)};
}

static hx_status map_window(struct window w, uint64_t va, uint64_t flags)
{
	return hx_map(&table, hx_va((uintptr_t)va), w.pa, w.bytes, flags);
}

static void alias_in_window(unsigned level)
{
	if (!has_leaf(level)) {
		hx_test_skip("the machine has no leaf of this size");
		return;
	}
	open_table();
	HX_BAIL();
	struct block b = page_with(0x512);
	struct window w = window_around(b, level);
	uint64_t at = w.va + w.offset, alias = at + w.bytes;
	HX_REQUIRE_STATUS(map_window(w, w.va, RW), HX_OK);
	HX_REQUIRE_STATUS(map_window(w, w.va + w.bytes, RO), HX_OK);
	HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)at)).level, level);
	HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)at)).pa.v, block_pa(b).v);
	HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)(alias - w.offset))).pa.v, w.pa.v);
	HX_CHECK_EQUAL(read_user(at), 0x512);
	HX_CHECK(write_user(at + PAGE - 8, 77));
	HX_CHECK_EQUAL(*word(b, PAGE - 8), 77);
	HX_CHECK_EQUAL(read_user(alias + PAGE - 8), 77);
	HX_CHECK(!write_user(alias, 1));
	/* Up to 1 GiB it has kept tables to be split into. Above, that is refused. */
	hx_status cut = level <= 2 ? HX_OK : HX_NOT_SUPPORTED;
	HX_CHECK_STATUS(unmap(at ^ PAGE, PAGE), cut);
	HX_CHECK_STATUS(protect(at, PAGE, RO), cut);
	HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)at)).level, cut == HX_OK ? 0 : level);
	HX_CHECK_EQUAL(write_user(at, 5), cut == HX_OK ? 0 : 1);
	HX_CHECK_EQUAL(read_user(at), cut == HX_OK ? 0x512 : 5);
	HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)at ^ PAGE)).status,
		       cut == HX_OK ? HX_NOT_MAPPED : HX_OK);
	HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)alias)).level, level);
	HX_CHECK_STATUS(hx_unmap_sparse(&table, hx_va((uintptr_t)w.va), 2 * w.bytes, NULL, NULL),
			HX_OK);
	HX_CHECK_EQUAL(read_user(at), FAULT_VALUE);
	HX_CHECK_EQUAL(read_user(alias), FAULT_VALUE);
	close_table();
	give_block(b);
}

HX_CONFORMANCE(aliases_of_1_gib)
{
	alias_in_window(2);
}

HX_CONFORMANCE(aliases_of_512_gib)
{
	alias_in_window(3);
}

HX_CONFORMANCE(aliases_of_256_tib)
{
	alias_in_window(4);
}

/* Two pages on either side of a border between entries of each level, and the first and last. */
HX_CONFORMANCE(neighbours_across_every_border)
{
	struct block b;
	open_table();
	HX_BAIL();
	HX_REQUIRE(take_block(1, &b));
	uint64_t borders[HX_LEVELS_MAX + 2] = {PAGE, hx_user_end() - PAGE};
	unsigned n = 2;
	for (unsigned level = 1; level < hx_hal_geometry.levels; level++) {
		borders[n++] = level_bytes(level);
	}
	for (unsigned i = 0; i < n; i++) {
		uint64_t low = borders[i] - PAGE, high = borders[i];
		HX_REQUIRE_STATUS(map(low, b, RW), HX_OK);
		HX_CHECK(write_user(low + PAGE - 8, 100 + i) && write_user(high, 200 + i));
		HX_CHECK_EQUAL(*word(b, PAGE - 8), 100 + i);
		HX_CHECK_EQUAL(*word(b, PAGE), 200 + i);
		HX_CHECK_STATUS(unmap(low, PAGE), HX_OK);
		HX_CHECK_EQUAL(read_user(low), FAULT_VALUE);
		HX_CHECK_EQUAL(read_user(high), 200 + i);
		HX_CHECK_STATUS(unmap(high, PAGE), HX_OK);
		HX_CHECK_EQUAL(read_user(high), FAULT_VALUE);
	}
	close_table();
	give_block(b);
}

/* ---- Where leaves may stand ---- */

/* Nothing is touched, so physical address 0 serves for all. */
HX_CONFORMANCE(leaves_stand_where_they_may)
{
	const uint64_t level_flags[] = {HX_MAP_NO_HUGE, HX_MAP_LEVEL_1, HX_MAP_LEVEL_2};
	const struct hx_pa pa = hx_pa(0);
	struct hx_va va = hx_va((uintptr_t)HERE);
	open_table();
	HX_BAIL();
	for (unsigned level = 1; level <= 2; level++) {
		uint64_t bytes = level_bytes(level), flags = RW | level_flags[level];
		if (!has_leaf(level)) {
			HX_CHECK_STATUS(hx_map(&table, va, pa, bytes, flags), HX_NOT_SUPPORTED);
			HX_CHECK_STATUS(hx_map(&table, va, pa, bytes, RW), HX_OK);
			HX_CHECK(hx_translate(&table, va).level < level);
			HX_CHECK_STATUS(unmap(HERE, bytes), HX_OK);
			continue;
		}
		struct hx_va off = hx_va(va.v + (uintptr_t)bytes / 2);
		HX_CHECK_STATUS(hx_map(&table, off, pa, bytes, flags), HX_INVALID_ALIGNMENT);
		HX_CHECK_STATUS(hx_map(&table, va, hx_pa(PAGE), bytes, flags),
				HX_INVALID_ALIGNMENT);
		HX_CHECK_STATUS(hx_map(&table, va, pa, bytes + PAGE, flags), HX_INVALID_ALIGNMENT);
		HX_CHECK_STATUS(hx_map(&table, va, pa, bytes, flags | HX_MAP_NO_HUGE),
				HX_INVALID_ARGUMENT);
		HX_CHECK_STATUS(hx_translate(&table, va).status, HX_NOT_MAPPED);
		HX_CHECK_STATUS(hx_map(&table, va, pa, bytes, flags), HX_OK);
		HX_CHECK_EQUAL(hx_translate(&table, va).level, level);
		HX_CHECK_STATUS(unmap(HERE, bytes), HX_OK);
	}
	/* By itself it takes the largest that fits, going down at the end. */
	uint64_t bytes = level_bytes(1) + PAGE;
	bytes += has_leaf(2) ? level_bytes(2) : 0;
	HX_CHECK_STATUS(hx_map(&table, va, pa, bytes, RW), HX_OK);
	for (uint64_t at = 0; at < bytes;) {
		struct hx_translation t = hx_translate(&table, hx_va(va.v + (uintptr_t)at));
		HX_REQUIRE_STATUS(t.status, HX_OK);
		HX_CHECK_EQUAL(t.pa.v, at);
		HX_CHECK(!has_leaf(t.level + 1) || bytes - at < level_bytes(t.level + 1));
		at += level_bytes(t.level);
	}
	HX_CHECK_STATUS(unmap(HERE, bytes), HX_OK);
	close_table();
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

/* 8 kinds of page, 3 accesses, from user mode, supervisor mode, and there with user access. */
static void check_rights(unsigned level, struct block b)
{
	struct window w = window_around(b, level);
	uint64_t va = w.va + w.offset;
	put_code(b);
	for (unsigned rights = 0; rights < 8; rights++) {
		uint64_t flags = HX_PAGE_PRESENT | (rights & 1 ? HX_PAGE_WRITABLE : 0) |
				 (rights & 2 ? HX_PAGE_USER : 0) |
				 (rights & 4 ? 0 : HX_PAGE_NO_EXECUTE);
		HX_REQUIRE_STATUS(map_window(w, w.va, flags), HX_OK);
		HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)va)).level, level);
		for (unsigned how = 0; how < 9; how++) {
			bool guards = (rights & 2) && how / 3 > 0 &&
				      (how / 3 == 1 || how % 3 == HX_ACCESS_EXECUTE);
			if (guards && !has_feature(HX_MMU_USER_GUARD)) {
				continue; /* old machines let the kernel through, some half */
			}
			check_access(va, rights, (enum hx_access)(how % 3), how / 3 == 0,
				     how / 3 == 2);
		}
		HX_CHECK_STATUS(unmap(w.va, w.bytes), HX_OK);
	}
}

/* Wherever a leaf may stand. */
HX_CONFORMANCE(rights_matrix)
{
	open_table();
	HX_BAIL();
	struct block b = page_with(0);
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		if (has_leaf(level)) {
			check_rights(level, b);
		}
	}
	close_table();
	give_block(b);
}

HX_CONFORMANCE(what_is_not_mapped_faults)
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

HX_CONFORMANCE(accessed_and_dirty_follow_the_accesses)
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

/* Marks survive each change of rights, and a split spreads them over its pieces. */
HX_CONFORMANCE(marks_survive_protect_and_split)
{
	static const uint64_t rights[] = {RO, RX, RW, RO & ~HX_PAGE_USER, RW | HX_PAGE_NO_CACHE,
					  RW};
	const uint64_t both = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	struct block b;
	if (!has_leaf(1) || !take_block(9, &b)) {
		hx_test_skip("no 2 MiB leaf, or no block for it");
		return;
	}
	open_table();
	HX_BAIL();
	struct hx_va va = hx_va((uintptr_t)HERE);
	HX_REQUIRE_STATUS(map(HERE, b, RW | HX_MAP_LEVEL_1), HX_OK);
	HX_CHECK(write_user(HERE + 3 * PAGE, 3));
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(rights); i++) {
		HX_CHECK_STATUS(protect(HERE, HX_MIB(2), rights[i]), HX_OK);
		HX_CHECK_EQUAL(hx_translate(&table, va).level, 1);
		HX_CHECK_EQUAL(hx_translate(&table, va).flags & both, both);
	}
	HX_CHECK_STATUS(protect(HERE + 7 * PAGE, PAGE, RO), HX_OK);
	for (unsigned page = 0; page < 512; page++) {
		struct hx_translation t = hx_translate(&table, hx_va(va.v + page * PAGE));
		HX_CHECK_EQUAL(t.level, 0);
		HX_CHECK_EQUAL(t.flags & both, both);
	}
	HX_CHECK_STATUS(unmap(HERE, HX_MIB(2)), HX_OK);
	close_table();
	give_block(b);
}

/* ---- Memory types ---- */

/* The machine accepts every encoding, and what is asked for is what is told. */
HX_CONFORMANCE(every_leaf_is_accepted)
{
	static const uint64_t bits[] = {HX_PAGE_WRITABLE, HX_PAGE_NO_EXECUTE, HX_PAGE_WRITE_THROUGH,
					HX_PAGE_NO_CACHE};
	const uint64_t asked = HX_PAGE_USER | bits[0] | bits[1] | bits[2] | bits[3];
	struct block b;
	open_table();
	HX_BAIL();
	for (unsigned i = 0; i < 2 * 16; i++) {
		unsigned level = i / 16, set = i % 16;
		uint64_t flags = HX_PAGE_USER_READ;
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(bits); k++) {
			flags |= set >> k & 1 ? bits[k] : 0;
		}
		if (!has_leaf(level) || !take_block(9 * level, &b)) {
			continue;
		}
		/* Never under two types at once: all through this one mapping. */
		HX_REQUIRE_STATUS(map(HERE, b, RW | (flags & (bits[2] | bits[3]))), HX_OK);
		HX_CHECK(write_user(HERE, set + 1));
		HX_CHECK_STATUS(protect(HERE, level_bytes(level), flags), HX_OK);
		struct hx_translation t = hx_translate(&table, hx_va((uintptr_t)HERE));
		HX_CHECK_EQUAL(t.flags & asked, flags & asked);
		HX_CHECK_EQUAL(t.level, level);
		HX_CHECK_EQUAL(read_user(HERE), set + 1);
		HX_CHECK_EQUAL(write_user(HERE, 9), flags & HX_PAGE_WRITABLE ? 1 : 0);
		HX_CHECK_STATUS(unmap(HERE, level_bytes(level)), HX_OK);
		give_block(b);
	}
	close_table();
}

/* ---- Code ---- */

static void write_code(void *argument)
{
	bool *written = argument;
	for (size_t at = 0; at < hx_platform_return_code_bytes; at += 8) {
		uint64_t code = 0;
		size_t rest = hx_platform_return_code_bytes - at;
		hx_memcpy(&code, hx_platform_return_code + at, rest < 8 ? rest : 8);
		*written = write_user(HERE + at, code) && *written;
	}
	hx_platform_code_written();
}

/*
 * Written by one CPU through the very page that runs it on each, then taken away and
 * brought back.
 */
HX_CONFORMANCE(code_runs_once_it_is_written)
{
	const unsigned cpus = hx_test_machine()->cpus;
	open_table();
	HX_BAIL();
	struct block b = page_with(0);
	for (unsigned cpu = 1; cpu < cpus; cpu++) {
		on_cpu(cpu, remote_load, NULL);
	}
	for (unsigned writer = 0; writer <= cpus; writer++) { /* and the first once more */
		__atomic_store_n(word(b, 0), 0, __ATOMIC_RELAXED);
		HX_REQUIRE_STATUS(map(HERE, b, RW), HX_OK);
		bool written = true;
		on_cpu(writer % cpus, write_code, &written);
		HX_CHECK(written);
		for (unsigned cpu = 0; cpu < cpus; cpu++) {
			HX_CHECK_EQUAL(execute_on(cpu, HERE), !has_feature(HX_MMU_NO_EXECUTE));
		}
		HX_CHECK_STATUS(protect(HERE, PAGE, RX), HX_OK);
		for (unsigned cpu = 0; cpu < cpus; cpu++) {
			HX_CHECK(execute_on(cpu, HERE));
			HX_CHECK(!write_on(cpu, HERE));
		}
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		for (unsigned cpu = 0; cpu < cpus; cpu++) {
			HX_CHECK(!execute_on(cpu, HERE));
		}
	}
	for (unsigned cpu = 1; cpu < cpus; cpu++) {
		on_cpu(cpu, remote_unload, NULL);
	}
	close_table();
	give_block(b);
}

/* ---- Refusals ---- */

HX_CONFORMANCE(bad_ranges_change_nothing)
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
	uint64_t tables = hx_pagetable_counters(&table).tables,
		 frames = hx_frames_free_frames(m->frames);
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

/* ---- Groups ---- */

/* Leaves that the machine may cache as one lead each to its own frame. */
HX_CONFORMANCE(groups_are_reached_page_by_page)
{
	enum { ORDER = GROUP_ORDER + 1, PAGES = 1 << ORDER };
	struct block b;
	open_table();
	HX_BAIL();
	HX_REQUIRE(take_block(ORDER, &b));
	HX_REQUIRE_STATUS(map_group(HERE, b, RW), HX_OK);
	HX_REQUIRE_STATUS(map_group(ALIAS, b, RO), HX_OK);
	/* Frames and addresses that are not aligned alike. */
	HX_REQUIRE_STATUS(map_group(HERE + (PAGES + 1) * PAGE, b, RO), HX_OK);
	unsigned grouped = has_groups() ? PAGES : 0;
	HX_CHECK_EQUAL(count_grouped(HERE, PAGES), grouped);
	HX_CHECK_EQUAL(count_grouped(ALIAS, PAGES), grouped);
	HX_CHECK_EQUAL(count_grouped(HERE + PAGES * PAGE, PAGES + 1), 0);
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK(write_user(HERE + i * PAGE, 100 + i));
		HX_CHECK(!write_user(ALIAS + i * PAGE, 1));
	}
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK_EQUAL(*word(b, i * PAGE), 100 + i);
		HX_CHECK_EQUAL(read_user(ALIAS + i * PAGE), 100 + i);
		HX_CHECK_EQUAL(read_user(HERE + (PAGES + 1 + i) * PAGE), 100 + i);
		struct hx_translation t = hx_translate(&table, hx_va(HERE + i * PAGE + 8));
		HX_CHECK_EQUAL(t.pa.v, block_pa(b).v + i * PAGE + 8);
		HX_CHECK_EQUAL(t.level, 0);
	}
	HX_CHECK_EQUAL(count_grouped(HERE, PAGES), grouped); /* the machine has marked nothing */
	HX_CHECK_STATUS(hx_pagetable_validate(&table), HX_OK);
	HX_CHECK_STATUS(unmap(HERE, PAGES * PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(HERE + (PAGES + 1) * PAGE, PAGES * PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(ALIAS, PAGES * PAGE), HX_OK);
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK_EQUAL(read_user(HERE + i * PAGE), FAULT_VALUE);
	}
	close_table();
	give_block(b);
}
