/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Conformance: table frames - exhaustion at each of them, reuse, and their count. */
#include "conformance.h"

/* ---- Exhaustion ---- */

struct totals {
	uint64_t tables, frames;
};

static struct totals totals_now(void)
{
	return (struct totals){hx_pagetable_counters(&table).tables,
			       hx_frames_free_frames(hx_test_machine()->frames)};
}

static void check_totals(struct totals before)
{
	HX_CHECK_STATUS(hx_pagetable_validate(&table), HX_OK);
	HX_CHECK_EQUAL(totals_now().tables, before.tables);
	HX_CHECK_EQUAL(totals_now().frames, before.frames);
}

/* Two pages on either side of the border between two entries of @level. */
static uint64_t border_of(unsigned level)
{
	return level_bytes(level) - PAGE;
}

/* From empty: a fresh leaf table, and with it fresh tables above, on both sides. */
HX_CONFORMANCE(a_map_without_tables_changes_nothing)
{
	const struct hx_test_machine *m = hx_test_machine();
	struct block b;
	open_table();
	HX_BAIL();
	HX_REQUIRE(take_block(1, &b));
	for (unsigned level = 1; level < hx_hal_geometry.levels; level++) {
		uint64_t va = border_of(level);
		struct totals before = totals_now();
		hx_inject_begin(m->frames, 0, false);
		HX_CHECK_STATUS(map(va, b, RW), HX_OK);
		uint64_t needed = hx_inject_end();
		HX_CHECK(needed > 0);
		HX_CHECK_STATUS(unmap(va, 2 * PAGE), HX_OK);
		check_totals(before);
		for (uint64_t k = 1; k <= 2 * needed; k++) {
			hx_inject_begin(m->frames, (k + 1) / 2, k % 2 == 0);
			hx_status s = map(va, b, RW);
			(void)hx_inject_end();
			HX_CHECK_STATUS(s, HX_OUT_OF_MEMORY);
			check_totals(before);
			HX_CHECK_EQUAL(read_user(va), FAULT_VALUE);
			HX_CHECK_EQUAL(read_user(va + PAGE), FAULT_VALUE);
		}
	}
	close_table();
	give_block(b);
}

static hx_status unmap_middle(void)
{
	return unmap(HERE + 5 * PAGE, 2 * PAGE);
}

static hx_status protect_middle(void)
{
	return protect(HERE + 5 * PAGE, 2 * PAGE, RO);
}

/* What must split a huge leaf either does or has changed nothing. */
HX_CONFORMANCE(a_split_without_tables_changes_nothing)
{
	static hx_status (*const operations[])(void) = {unmap_middle, protect_middle};
	const struct hx_test_machine *m = hx_test_machine();
	struct block huge;
	if (!has_leaf(1) || !take_block(9, &huge)) {
		hx_test_skip("no 2 MiB leaf, or no block for it");
		return;
	}
	open_table();
	HX_BAIL();
	__atomic_store_n(word(huge, 5 * PAGE), 5, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(operations); i++) {
		struct totals start = totals_now();
		uint64_t needed = 1; /* it may need none: the table was kept from the start */
		for (uint64_t k = 1; k <= needed; k++) {
			HX_REQUIRE_STATUS(map(HERE, huge, RW | HX_MAP_LEVEL_1), HX_OK);
			HX_CHECK_EQUAL(read_user(HERE + 5 * PAGE), 5);
			struct totals before = totals_now();
			hx_inject_begin(m->frames, k, true);
			hx_status s = operations[i]();
			needed = hx_inject_end();
			if (needed > 0) {
				HX_CHECK_STATUS(s, HX_OUT_OF_MEMORY);
				check_totals(before);
				HX_CHECK(write_user(HERE + 5 * PAGE, 5));
			} else {
				HX_CHECK_STATUS(s, HX_OK);
			}
			HX_CHECK_STATUS(hx_unmap_sparse(&table, hx_va((uintptr_t)HERE), HX_MIB(2),
							NULL, NULL),
					HX_OK);
			check_totals(start);
		}
	}
	close_table();
	give_block(huge);
}

/* ---- The count ---- */

HX_CONFORMANCE(tables_come_back)
{
	open_table();
	HX_BAIL();
	struct block b = page_with(1);
	struct totals before = totals_now();
	uint64_t step = level_bytes(2), end = hx_user_end();
	unsigned pages = 0;
	for (uint64_t va = HERE; va < end && pages < 32; va += step + level_bytes(1) + PAGE) {
		HX_REQUIRE_STATUS(map(va, b, RW), HX_OK);
		HX_CHECK_EQUAL(read_user(va), 1);
		pages++;
	}
	HX_CHECK(totals_now().tables > before.tables + pages);
	HX_CHECK_STATUS(hx_unmap_sparse(&table, hx_va((uintptr_t)HERE), end - HERE, NULL, NULL),
			HX_OK);
	check_totals(before);
	close_table();
	give_block(b);
}

/* ---- Reuse ---- */

/* The table with the entry of @level for HERE. */
static struct hx_pfn table_of(unsigned level)
{
	struct hx_pa at = table.root;
	for (unsigned l = hx_hal_geometry.levels - 1u; l > level; l--) {
		uint64_t mask = (UINT64_C(1) << hx_hal_geometry.bits[l]) - 1;
		const hx_pte *e = (const hx_pte *)hx_ptr(at) + (HERE / level_bytes(l) & mask);
		at = hx_hal_pte_pa(hx_hal_pte_load(e), l);
	}
	return hx_pa_to_pfn(at);
}

/* A frame full of entries that lead to @pa with all rights: what a stale walk must not find. */
static void fill_with_bait(struct hx_pfn frame, struct hx_pa pa)
{
	hx_pte *entries = hx_ptr(hx_pfn_to_pa(frame));
	uint64_t flags = RW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	hx_pte bait = hx_hal_pte_leaf(pa, hx_hal_pte_prot(flags, 0), 0);
	for (unsigned i = 0; i < PAGE / sizeof *entries; i++) {
		hx_hal_pte_store(&entries[i], bait);
	}
}

/*
 * Take all memory that is free. @return the first block of a list: the first word of each
 * is the next one's frame or 0, the second its own order
 */
static struct hx_pfn hold_all_memory(void)
{
	struct hx_pfn list = {0};
	struct block b;
	for (unsigned order = HX_ORDER_MAX + 1; order-- > 0;) {
		while (take_block(order, &b)) {
			*word(b, 0) = list.v;
			*word(b, 8) = order;
			list = b.first;
		}
	}
	return list;
}

static void give_all_memory(struct hx_pfn list)
{
	while (list.v != 0) {
		struct block b = {list, 0};
		b.order = (unsigned)*word(b, 8);
		list.v = *word(b, 0);
		give_block(b);
	}
}

/*
 * Tables are freed by an unmap. No other frame is free then, so theirs are what is taken
 * next; they are filled with entries. Nobody may walk into them any more, not even by a
 * cached upper level.
 */
HX_CONFORMANCE(frames_of_freed_tables_are_anyones)
{
	const struct hx_test_machine *m = hx_test_machine();
	struct block taken[HX_LEVELS_MAX];
	open_table();
	HX_BAIL();
	struct block one = page_with(1), bait = page_with(0xba17);
	for (unsigned cpu = 1; cpu < m->cpus; cpu++) {
		on_cpu(cpu, remote_load, NULL);
	}
	HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
	for (unsigned cpu = 0; cpu < m->cpus; cpu++) {
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1);
	}
	struct hx_pfn leaf_table = table_of(0), memory = hold_all_memory();
	HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	unsigned count = 0;
	bool found = false;
	while (count < HX_LEVELS_MAX && take_block(0, &taken[count])) {
		found = found || taken[count].first.v == leaf_table.v;
		fill_with_bait(taken[count++].first, block_pa(bait));
	}
	HX_CHECK(found);
	HX_CHECK_EQUAL(count, hx_hal_geometry.levels - 1u); /* all but the root */
	/* Their neighbours in the table were never read: only a walk can find them. */
	for (unsigned page = 0; page < 3; page++) {
		for (unsigned cpu = 0; cpu < m->cpus; cpu++) {
			HX_CHECK_EQUAL(read_on(cpu, HERE + page * PAGE), FAULT_VALUE);
		}
	}
	while (count > 0) {
		give_block(taken[--count]);
	}
	give_all_memory(memory);
	for (unsigned cpu = 1; cpu < m->cpus; cpu++) {
		on_cpu(cpu, remote_unload, NULL);
	}
	close_table();
	give_block(one);
	give_block(bait);
}
