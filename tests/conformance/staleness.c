/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Conformance: what was taken away is reached no longer, on this CPU and on others. */
#include "conformance.h"

/* ---- Staleness on this CPU ---- */

HX_CONFORMANCE(changes_reach_this_cpu)
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

HX_CONFORMANCE(a_split_leaf_serves_no_longer)
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

HX_CONFORMANCE(freed_tables_serve_no_longer)
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

/* One page of a group has been changed by @cpu's leave: only that one has. */
static void check_group(unsigned cpu, unsigned changed, bool gone)
{
	for (unsigned i = 0; i < GROUP; i++) {
		uint64_t va = HERE + i * PAGE;
		HX_CHECK_EQUAL(read_on(cpu, va), i == changed && gone ? FAULT_VALUE : 1);
		HX_CHECK_EQUAL(write_on(cpu, va), i != changed);
	}
}

/* A page in the middle of a group, at its begin and its end, on every CPU. */
HX_CONFORMANCE(a_cut_group_serves_no_longer)
{
	static const unsigned pages[] = {0, 1, 7, 8, GROUP - 1};
	struct block b;
	open_table();
	HX_BAIL();
	HX_REQUIRE(take_block(GROUP_ORDER, &b));
	for (unsigned i = 0; i < GROUP; i++) {
		__atomic_store_n(word(b, i * PAGE), 1, __ATOMIC_RELAXED);
	}
	for (unsigned cpu = 0; cpu < hx_test_machine()->cpus; cpu++) {
		if (cpu != hx_hal_cpu_id()) {
			on_cpu(cpu, remote_load, NULL);
		}
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(pages); i++) {
			uint64_t va = HERE + pages[i] * PAGE;
			HX_REQUIRE_STATUS(map_group(HERE, b, RW), HX_OK);
			check_group(cpu, GROUP, false); /* all are cached now */
			HX_CHECK_STATUS(protect(va, PAGE, RO), HX_OK);
			HX_CHECK_EQUAL(count_grouped(HERE, GROUP), 0);
			check_group(cpu, pages[i], false);
			HX_CHECK_STATUS(protect(va, PAGE, RW), HX_OK);
			check_group(cpu, GROUP, false);
			HX_CHECK_STATUS(unmap(HERE, GROUP * PAGE), HX_OK);
			HX_REQUIRE_STATUS(map_group(HERE, b, RW), HX_OK);
			check_group(cpu, GROUP, false);
			HX_CHECK_STATUS(unmap(va, PAGE), HX_OK);
			check_group(cpu, pages[i], true);
			HX_CHECK_STATUS(
				hx_unmap_sparse(&table, hx_va(HERE), GROUP * PAGE, NULL, NULL),
				HX_OK);
		}
		if (cpu != hx_hal_cpu_id()) {
			on_cpu(cpu, remote_unload, NULL);
		}
	}
	close_table();
	give_block(b);
}

/* ---- Staleness on other CPUs ---- */

HX_CONFORMANCE(changes_reach_other_cpus)
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

HX_CONFORMANCE(table_frees_and_splits_reach_other_cpus)
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
	for (unsigned cpu = 1; cpu < hx_test_machine()->cpus; cpu++) {
		on_cpu(cpu, remote_load, NULL);
		HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
		HX_REQUIRE_STATUS(map(HERE + PAGE, two, RW), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1);
		HX_CHECK_STATUS(unmap(HERE, 2 * PAGE), HX_OK); /* frees the tables */
		HX_CHECK_EQUAL(read_on(cpu, HERE + PAGE), FAULT_VALUE);
		HX_REQUIRE_STATUS(map(HERE, huge, RW | HX_MAP_LEVEL_1), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE + 5 * PAGE), 1005);
		HX_CHECK_STATUS(unmap(HERE + 5 * PAGE, PAGE), HX_OK); /* splits the leaf */
		HX_CHECK_EQUAL(read_on(cpu, HERE + 5 * PAGE), FAULT_VALUE);
		HX_CHECK_EQUAL(read_on(cpu, HERE + 6 * PAGE), 1006);
		HX_CHECK_STATUS(unmap(HERE + 6 * PAGE, 100 * PAGE), HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE + 6 * PAGE), FAULT_VALUE);
		HX_CHECK_EQUAL(read_on(cpu, HERE + 200 * PAGE), 1200);
		HX_CHECK_STATUS(
			hx_unmap_sparse(&table, hx_va((uintptr_t)HERE), HX_MIB(2), NULL, NULL),
			HX_OK);
		HX_CHECK_EQUAL(read_on(cpu, HERE + 200 * PAGE), FAULT_VALUE);
		on_cpu(cpu, remote_unload, NULL);
	}
	close_table();
	give_block(one);
	give_block(two);
	give_block(huge);
}

/* ---- What is given ---- */

/* Every fault passes here first: the program is linked with --wrap=hx_upcall_fault. */
bool __real_hx_upcall_fault(const struct hx_fault *fault);
bool __wrap_hx_upcall_fault(const struct hx_fault *fault);

static unsigned faults;

bool __wrap_hx_upcall_fault(const struct hx_fault *fault)
{
	__atomic_fetch_add(&faults, 1, __ATOMIC_RELAXED);
	return __real_hx_upcall_fault(fault);
}

/* One access on a CPU, this one or another: it works, after one fault at most. */
static void check_given(unsigned cpu, enum hx_access access)
{
	unsigned before = __atomic_load_n(&faults, __ATOMIC_RELAXED);
	struct remote r = access_on(cpu, HERE, access, 0);
	unsigned met = __atomic_load_n(&faults, __ATOMIC_RELAXED) - before;
	if (r.faulted || met > 1) {
		hx_test_fail(__FILE__, __LINE__, "CPU %u, access %u: %u faults%s", cpu, access, met,
			     r.faulted ? ", refused" : "");
	}
}

static void refuse(unsigned cpu, enum hx_access access)
{
	HX_CHECK(access_on(cpu, HERE, access, 0).faulted);
}

/* Absence, and each lack of a right, is met first, so that it may be cached. */
HX_CONFORMANCE(what_is_given_costs_one_fault_at_most)
{
	open_table();
	HX_BAIL();
	struct block code = page_with(0);
	put_code(code);
	for (unsigned cpu = 0; cpu < hx_test_machine()->cpus; cpu++) {
		if (cpu > 0) {
			on_cpu(cpu, remote_load, NULL);
		}
		refuse(cpu, HX_ACCESS_READ);
		HX_REQUIRE_STATUS(map(HERE, code, RO & ~HX_PAGE_USER), HX_OK);
		refuse(cpu, HX_ACCESS_READ);
		HX_CHECK_STATUS(protect(HERE, PAGE, RO), HX_OK);
		check_given(cpu, HX_ACCESS_READ);
		if (has_feature(HX_MMU_NO_EXECUTE)) {
			refuse(cpu, HX_ACCESS_EXECUTE);
		}
		HX_CHECK_STATUS(protect(HERE, PAGE, RX), HX_OK);
		check_given(cpu, HX_ACCESS_EXECUTE);
		refuse(cpu, HX_ACCESS_WRITE);
		HX_CHECK_STATUS(protect(HERE, PAGE, RW), HX_OK);
		check_given(cpu, HX_ACCESS_WRITE);
		put_code(code);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		if (cpu > 0) {
			on_cpu(cpu, remote_unload, NULL);
		}
	}
	close_table();
	give_block(code);
}

/* ---- While others look ---- */

enum { LEAVES = 8, ROUNDS = 40 };

/* A reader on another CPU, and what it must never see. */
struct reader {
	uint32_t rounds; /* that it has done; atomic */
	uint32_t wrong;
	uint64_t seen; /* the last wrong value */
};

static void read_all_leaves(void *argument)
{
	struct reader *r = argument;
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
			unsigned page = (round * 37 + leaf * 61) % 512;
			uint64_t va = HERE + leaf * HX_MIB(2) + page * PAGE, v = read_user(va);
			if (v != 1000 + page) {
				r->wrong++;
				r->seen = v;
			}
		}
		__atomic_store_n(&r->rounds, round + 1, __ATOMIC_RELEASE);
	}
}

/*
 * The pages of a huge leaf stay readable on another CPU while it is split and folded again;
 * while it is broken, the fault handler has the access run again.
 */
HX_CONFORMANCE(a_leaf_stays_readable_while_it_is_split)
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
	for (unsigned i = 0; i < 512; i++) {
		__atomic_store_n(word(huge, i * PAGE), 1000 + i, __ATOMIC_RELAXED);
	}
	for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
		HX_REQUIRE_STATUS(map(HERE + leaf * HX_MIB(2), huge, RW | HX_MAP_LEVEL_1), HX_OK);
	}
	struct reader reader = {0};
	on_cpu(1, remote_load, NULL);
	hx_test_readers(true);
	HX_REQUIRE(hx_platform_run_on(1, read_all_leaves, &reader));
	for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
		/* Spread over the reader's life. */
		uint32_t until = leaf * ROUNDS / LEAVES;
		while (__atomic_load_n(&reader.rounds, __ATOMIC_ACQUIRE) < until) {
			hx_hal_relax();
		}
		uint64_t at = HERE + leaf * HX_MIB(2) + (leaf * 61 % 512) * PAGE;
		HX_CHECK_STATUS(protect(at, PAGE, RO), HX_OK);
		HX_CHECK_STATUS(protect(at, PAGE, RW), HX_OK);
		HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)at)).level, 0);
		HX_CHECK_STATUS(
			hx_fold(&table, hx_va((uintptr_t)(HERE + leaf * HX_MIB(2))), HX_MIB(2)),
			HX_OK);
		HX_CHECK_EQUAL(hx_translate(&table, hx_va((uintptr_t)at)).level, 1);
	}
	hx_platform_join(1);
	hx_test_readers(false);
	if (reader.wrong > 0) {
		hx_test_fail(__FILE__, __LINE__, "%u reads went wrong, the last gave 0x%llx",
			     reader.wrong, (unsigned long long)reader.seen);
	}
	on_cpu(1, remote_unload, NULL);
	HX_CHECK_STATUS(unmap(HERE, LEAVES * HX_MIB(2)), HX_OK);
	close_table();
	give_block(huge);
}
