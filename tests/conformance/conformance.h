/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * conformance.h - the cases of the HAL conformance suite, and what they share.
 *
 * A table of the suite's own is loaded, shares the kernel half and maps test frames
 * in the user half:
 *
 *      HERE   what a case works on         2 MiB and 1 GiB aligned
 *      ALIAS  the same frames once more    under another table of each level below the root's
 */
#ifndef HX_CONFORMANCE_H
#define HX_CONFORMANCE_H

#include <hx/platform.h>

#include "hx_test.h"
#include "inject.h"
#include "machine.h"

/* All cases, in the order in which a port comes to pass them. */
#define HX_CONFORMANCE_CASES(X)                                                                    \
	X(geometry_is_consistent)                                                                  \
	X(leaves_round_trip_with_all_flags)                                                        \
	X(leaves_round_trip_with_and_without_types)                                                \
	X(levels_decide_what_an_entry_is)                                                          \
	X(tables_are_never_leaves)                                                                 \
	X(soft_entries_carry_their_payload)                                                        \
	X(soft_entries_name_no_memory)                                                             \
	X(every_word_has_a_kind)                                                                   \
	X(a_group_is_its_leaves)                                                                   \
	X(without_groups_no_entry_is_one)                                                          \
	X(aliases_of_4_kib)                                                                        \
	X(aliases_of_2_mib)                                                                        \
	X(aliases_of_1_gib)                                                                        \
	X(aliases_of_512_gib)                                                                      \
	X(aliases_of_256_tib)                                                                      \
	X(neighbours_across_every_border)                                                          \
	X(leaves_stand_where_they_may)                                                             \
	X(groups_are_reached_page_by_page)                                                         \
	X(rights_matrix)                                                                           \
	X(what_is_not_mapped_faults)                                                               \
	X(accessed_and_dirty_follow_the_accesses)                                                  \
	X(marks_survive_protect_and_split)                                                         \
	X(every_leaf_is_accepted)                                                                  \
	X(code_runs_once_it_is_written)                                                            \
	X(bad_ranges_change_nothing)                                                               \
	X(changes_reach_this_cpu)                                                                  \
	X(a_split_leaf_serves_no_longer)                                                           \
	X(freed_tables_serve_no_longer)                                                            \
	X(a_cut_group_serves_no_longer)                                                            \
	X(changes_reach_other_cpus)                                                                \
	X(table_frees_and_splits_reach_other_cpus)                                                 \
	X(what_is_given_costs_one_fault_at_most)                                                   \
	X(a_leaf_stays_readable_while_it_is_split)                                                 \
	X(the_kernel_half_is_shared)                                                               \
	X(identifiers_keep_spaces_apart)                                                           \
	X(identifiers_are_used_again)                                                              \
	X(ranges_reach_identifiers)                                                                \
	X(global_pages_have_no_identifier)                                                         \
	X(a_shootdown_meets_a_switch)                                                              \
	X(a_cpu_that_was_away_knows_nothing_old)                                                   \
	X(a_cpu_that_is_away_sees_the_kernel_half_change)                                          \
	X(a_table_ends_when_cpus_have_left_it)                                                     \
	X(a_barrier_reaches_busy_cpus)                                                             \
	X(barriers_cross_each_other)                                                               \
	X(a_map_without_tables_changes_nothing)                                                    \
	X(a_split_without_tables_changes_nothing)                                                  \
	X(tables_come_back)                                                                        \
	X(frames_of_freed_tables_are_anyones)

#define HX_CONFORMANCE(name) void hx_conformance_##name(void)
#define HX_CONFORMANCE_PROTOTYPE(name) HX_CONFORMANCE(name);
HX_CONFORMANCE_CASES(HX_CONFORMANCE_PROTOTYPE)

#define HERE UINT64_C(0x100000000)  /* 4 GiB */
#define ALIAS UINT64_C(0x240000000) /* 9 GiB */

enum { PAGE = 4096 };

#define RO (HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE)
#define RW (HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE)
#define RX (HX_PAGE_USER_CODE)

static inline uint64_t level_bytes(unsigned level)
{
	unsigned shift = hx_hal_geometry.page_shift;
	for (unsigned l = 0; l < level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	return UINT64_C(1) << shift;
}

static inline bool has_leaf(unsigned level)
{
	(void)hx_test_machine(); /* the geometry is known once it is booted */
	return level < hx_hal_geometry.levels && (hx_hal_geometry.leaf_levels >> level & 1);
}

/* Pages in a group, where there are groups; and what to try where there are none. */
enum { GROUP_ORDER = 4, GROUP = 1 << GROUP_ORDER };

static inline bool has_groups(void)
{
	(void)hx_test_machine();
	return hx_hal_geometry.group_bits > 0;
}

static inline bool has_feature(uint32_t feature)
{
	return (hx_hal_geometry.features & feature) != 0;
}
/* ---- A table of the suite's own ---- */

static struct hx_pagetable table;
static uint64_t tables_before;

static inline void open_table(void)
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

static inline void close_table(void)
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

static inline bool take_block(unsigned order, struct block *out)
{
	struct hx_pfn_result r =
		hx_frames_allocate(hx_test_machine()->frames, order, HX_ALLOC_NO_PRESSURE);
	*out = (struct block){r.value, order};
	return r.status == HX_OK;
}

static inline void give_block(struct block b)
{
	HX_CHECK_STATUS(hx_frames_free(hx_test_machine()->frames, b.first, b.order), HX_OK);
}

static inline struct hx_pa block_pa(struct block b)
{
	return hx_pfn_to_pa(b.first);
}

static inline uint64_t *word(struct block b, uint64_t offset)
{
	return hx_ptr(hx_pa(block_pa(b).v + offset));
}

/* One page with a number in its first word. */
static inline struct block page_with(uint64_t value)
{
	struct block b;
	if (!take_block(0, &b)) {
		hx_test_fail(__FILE__, __LINE__, "no frame");
		return (struct block){{0}, 0};
	}
	__atomic_store_n(word(b, 0), value, __ATOMIC_RELAXED);
	return b;
}

static inline hx_status map(uint64_t va, struct block b, uint64_t flags)
{
	return hx_map(&table, hx_va((uintptr_t)va), block_pa(b), (uint64_t)PAGE << b.order, flags);
}

/* All of one group, if there are groups. */
static inline hx_status map_group(uint64_t va, struct block b, uint64_t flags)
{
	return map(va, b, flags | HX_PAGE_ACCESSED | HX_PAGE_DIRTY | HX_MAP_NO_HUGE);
}

/* Of the pages from @va on, how many have an entry that is a group's? */
static inline unsigned count_grouped(uint64_t va, unsigned pages)
{
	unsigned found = 0;
	for (; pages > 0; pages--, va += PAGE) {
		const hx_pte *at = hx_ptr(table.root);
		for (unsigned l = hx_hal_geometry.levels - 1u;; l--) {
			at += va / level_bytes(l) % (UINT64_C(1) << hx_hal_geometry.bits[l]);
			if (l == 0 || hx_hal_pte_kind(hx_hal_pte_load(at), l) != HX_PTE_TABLE) {
				found += hx_hal_pte_raw(at) != hx_hal_pte_load(at);
				break;
			}
			at = hx_ptr(hx_hal_pte_pa(hx_hal_pte_load(at), l));
		}
	}
	return found;
}

static inline hx_status unmap(uint64_t va, uint64_t bytes)
{
	return hx_unmap(&table, hx_va((uintptr_t)va), bytes, NULL, NULL);
}

static inline hx_status protect(uint64_t va, uint64_t bytes, uint64_t flags)
{
	return hx_update_flags(&table, hx_va((uintptr_t)va), bytes, flags);
}

/* ---- Accesses ---- */

static inline struct hx_probe attempt(uint64_t va, enum hx_access access, bool user, uint64_t value)
{
	struct hx_probe p = {
		.va = hx_va((uintptr_t)va), .access = access, .user = user, .value = value};
	hx_platform_probe(&p);
	return p;
}

#define FAULT_VALUE UINT64_C(0xfa0175fa0175fa01) /* what read_user() gives for a fault */

static inline uint64_t read_user(uint64_t va)
{
	struct hx_probe p = attempt(va, HX_ACCESS_READ, true, 0);
	return p.faulted ? FAULT_VALUE : p.value;
}

static inline bool write_user(uint64_t va, uint64_t value)
{
	return !attempt(va, HX_ACCESS_WRITE, true, value).faulted;
}

static inline bool execute_user(uint64_t va)
{
	return !attempt(va, HX_ACCESS_EXECUTE, true, 0).faulted;
}

static inline void put_code(struct block b)
{
	hx_memcpy(word(b, 0), hx_platform_return_code, hx_platform_return_code_bytes);
	hx_platform_code_written();
}
/* ---- Work on other CPUs ---- */

struct remote {
	uint64_t va;
	enum hx_access access;
	uint64_t value;
	bool faulted;
};

static inline void remote_load(void *argument)
{
	(void)argument;
	hx_pagetable_load(&table, hx_test_machine()->kernel_table);
}

static inline void remote_unload(void *argument)
{
	(void)argument;
	hx_pagetable_load(hx_test_machine()->kernel_table, &table);
}

static inline void remote_access(void *argument)
{
	struct remote *r = argument;
	struct hx_probe p = attempt(r->va, r->access, true, r->value);
	r->faulted = p.faulted;
	r->value = p.value;
}

static inline void remote_kernel_read(void *argument)
{
	struct remote *r = argument;
	struct hx_probe p = attempt(r->va, HX_ACCESS_READ, false, 0);
	r->faulted = p.faulted;
	r->value = p.value;
}

/* On this CPU, too. */
static inline void on_cpu(unsigned cpu, void (*run)(void *argument), void *argument)
{
	if (cpu == hx_hal_cpu_id()) {
		run(argument);
		return;
	}
	HX_REQUIRE(hx_platform_run_on(cpu, run, argument));
	hx_platform_join(cpu);
}

/* @return value and faulted are what came of it */
static inline struct remote access_on(unsigned cpu, uint64_t va, enum hx_access access,
				      uint64_t value)
{
	struct remote r = {.va = va, .access = access, .value = value, .faulted = true};
	on_cpu(cpu, remote_access, &r);
	return r;
}

static inline uint64_t read_on(unsigned cpu, uint64_t va)
{
	struct remote r = access_on(cpu, va, HX_ACCESS_READ, 0);
	return r.faulted ? FAULT_VALUE : r.value;
}

static inline bool write_on(unsigned cpu, uint64_t va)
{
	return !access_on(cpu, va, HX_ACCESS_WRITE, 1).faulted;
}

static inline bool execute_on(unsigned cpu, uint64_t va)
{
	return !access_on(cpu, va, HX_ACCESS_EXECUTE, 0).faulted;
}

static inline bool one_cpu(void)
{
	if (hx_test_machine()->cpus < 2) {
		hx_test_skip("one CPU");
		return true;
	}
	return false;
}

#endif
