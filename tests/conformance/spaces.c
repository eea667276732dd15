/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Conformance: several address spaces. The kernel half that all of them show,
 * identifiers (ASID, PCID) as hx_hal_root_load() takes them, and CPUs that switch
 * from space to space while another changes one.
 */
#include "conformance.h"

/* ---- The kernel half ---- */

HX_CONFORMANCE(the_kernel_half_is_shared)
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

/* ---- Identifiers ---- */

/*
 * These cases load roots by the HAL itself, under identifiers of their own choice.
 * Portable code may use the same ones: all that is cached goes before and after.
 */
static struct hx_pagetable other;

static void forget_everything(void)
{
	struct hx_tlb_range all = {.tables = true, .global = true};
	hx_hal_tlb_local(&all, 1);
}

static void enter(const struct hx_pagetable *t, uint16_t asid, bool keep)
{
	hx_hal_root_load(t->root, asid, keep);
}

/* `table` and `other`, each with a page of its own at HERE: @one and @two. */
static void open_two(struct block one, struct block two)
{
	const struct hx_test_machine *m = hx_test_machine();
	open_table();
	HX_BAIL();
	HX_REQUIRE_STATUS(hx_pagetable_init(&other,
					    &(struct hx_pagetable_config){
						    .frames = m->frames,
						    .db = m->db,
						    .wx = HX_WX_OFF,
						    .huge = true,
						    .kernel = m->kernel_table,
					    }),
			  HX_OK);
	HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
	HX_REQUIRE_STATUS(hx_map(&other, hx_va((uintptr_t)HERE), block_pa(two), PAGE, RW), HX_OK);
	forget_everything();
}

static void close_two(void)
{
	const struct hx_test_machine *m = hx_test_machine();
	forget_everything();
	/* Back to what portable code believes to be loaded. */
	hx_pagetable_load(m->kernel_table, &table);
	hx_pagetable_load(&table, m->kernel_table);
	HX_CHECK_STATUS(hx_unmap_sparse(&table, hx_va((uintptr_t)HERE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_unmap_sparse(&other, hx_va((uintptr_t)HERE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&other), HX_OK);
	close_table();
}

static bool no_identifiers(void)
{
	(void)hx_test_machine();
	if (hx_hal_geometry.asid_bits == 0) {
		hx_test_skip("the machine has no address-space identifiers");
		return true;
	}
	return false;
}

static uint16_t last_asid(void)
{
	return (uint16_t)((1u << hx_hal_geometry.asid_bits) - 1);
}

/*
 * Put @e in the place of @t's entry for HERE, and tell nobody: who has the old one
 * cached still has it. @return the old one
 */
static hx_pte exchange_untold(const struct hx_pagetable *t, hx_pte e)
{
	hx_pte *entries = hx_ptr(t->root);
	for (unsigned level = hx_hal_geometry.levels - 1u;; level--) {
		uint64_t mask = (UINT64_C(1) << hx_hal_geometry.bits[level]) - 1;
		hx_pte *at = &entries[HERE / level_bytes(level) & mask];
		if (level == 0) {
			return hx_hal_pte_exchange(at, e);
		}
		entries = hx_ptr(hx_hal_pte_pa(hx_hal_pte_load(at), level));
	}
}

HX_CONFORMANCE(identifiers_keep_spaces_apart)
{
	if (no_identifiers()) {
		return;
	}
	struct block one = page_with(1), two = page_with(2);
	open_two(one, two);
	HX_BAIL();
	const uint16_t pairs[][2] = {
		{1, 2}, {1, last_asid()}, {last_asid(), (uint16_t)(last_asid() - 1)}, {0, 1}};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(pairs); i++) {
		enter(&table, pairs[i][0], false);
		HX_CHECK_EQUAL(read_user(HERE), 1);
		enter(&other, pairs[i][1], false);
		HX_CHECK_EQUAL(read_user(HERE), 2);
		for (unsigned round = 0; round < 3; round++) {
			enter(&table, pairs[i][0], true);
			HX_CHECK_EQUAL(read_user(HERE), 1);
			HX_CHECK(write_user(HERE, 1));
			enter(&other, pairs[i][1], true);
			HX_CHECK_EQUAL(read_user(HERE), 2);
		}
	}
	close_two();
	give_block(one);
	give_block(two);
}

/* An identifier that is given to another space: a load that keeps nothing is all it takes. */
HX_CONFORMANCE(identifiers_are_used_again)
{
	if (no_identifiers()) {
		return;
	}
	struct block one = page_with(1), two = page_with(2);
	open_two(one, two);
	HX_BAIL();
	const uint16_t asids[] = {1, last_asid(), 0};
	for (unsigned i = 0; i < 4 * HX_ARRAY_LENGTH(asids); i++) {
		uint16_t asid = asids[i % HX_ARRAY_LENGTH(asids)];
		enter(&table, asid, false);
		HX_CHECK_EQUAL(read_user(HERE), 1);
		enter(&other, asid, false);
		HX_CHECK_EQUAL(read_user(HERE), 2);
	}
	close_two();
	give_block(one);
	give_block(two);
}

/* Ranges reach the identifier that is loaded; one of everything reaches all. */
HX_CONFORMANCE(ranges_reach_identifiers)
{
	if (no_identifiers()) {
		return;
	}
	const struct hx_tlb_range ranges[] = {
		{.va = hx_va((uintptr_t)HERE), .pages = 1, .asid = 1},
		{.va = hx_va((uintptr_t)(HERE - PAGE)), .pages = 3, .asid = 1},
		{.va = hx_va((uintptr_t)HERE), .pages = 1, .asid = 1, .tables = true},
		{.va = hx_va((uintptr_t)HERE), .pages = 4096, .asid = 1},
		{.asid = 1},
		{.asid = 1, .tables = true},
	};
	struct block one = page_with(1), two = page_with(2);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(ranges); i++) {
		open_two(one, two);
		HX_BAIL();
		enter(&table, 1, false);
		HX_CHECK_EQUAL(read_user(HERE), 1);
		hx_pte leaf = exchange_untold(&table, 0);
		hx_hal_tlb_local(&ranges[i], 1);
		HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
		/* Left and come back to, with what is cached kept. */
		enter(&other, 2, false);
		HX_CHECK_EQUAL(read_user(HERE), 2);
		enter(&table, 1, true);
		HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
		(void)exchange_untold(&table, leaf);
		close_two();
	}
	open_two(one, two);
	HX_BAIL();
	enter(&table, 1, false);
	HX_CHECK_EQUAL(read_user(HERE), 1);
	enter(&other, 2, false);
	HX_CHECK_EQUAL(read_user(HERE), 2);
	hx_pte first = exchange_untold(&table, 0), second = exchange_untold(&other, 0);
	forget_everything();
	HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
	enter(&table, 1, true);
	HX_CHECK_EQUAL(read_user(HERE), FAULT_VALUE);
	(void)exchange_untold(&table, first);
	(void)exchange_untold(&other, second);
	close_two();
	give_block(one);
	give_block(two);
}

/* A GLOBAL page is one page under all identifiers, and gone from all at once. */
HX_CONFORMANCE(global_pages_have_no_identifier)
{
	if (no_identifiers()) {
		return;
	}
	const struct hx_test_machine *m = hx_test_machine();
	struct hx_va va = hx_test_system()->dynamic_base;
	uint64_t flags = HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL;
	struct block one = page_with(1), two = page_with(2), page = page_with(3);
	open_two(one, two);
	HX_BAIL();
	for (unsigned round = 0; round < 2; round++) {
		__atomic_store_n(word(page, 0), 3 + round, __ATOMIC_RELAXED);
		HX_REQUIRE_STATUS(hx_map(m->kernel_table, va, block_pa(page), PAGE, flags), HX_OK);
		for (uint16_t asid = 0; asid < 3; asid++) {
			enter(asid == 1 ? &table : &other, asid, round > 0);
			struct hx_probe p = attempt(va.v, HX_ACCESS_READ, false, 0);
			HX_CHECK(!p.faulted && p.value == 3 + round);
			HX_CHECK(attempt(va.v, HX_ACCESS_READ, true, 0).faulted);
		}
		HX_CHECK_STATUS(hx_unmap(m->kernel_table, va, PAGE, NULL, NULL), HX_OK);
		for (uint16_t asid = 0; asid < 3; asid++) {
			enter(asid == 1 ? &table : &other, asid, true);
			HX_CHECK(attempt(va.v, HX_ACCESS_READ, false, 0).faulted);
		}
	}
	close_two();
	give_block(one);
	give_block(two);
	give_block(page);
}

/* ---- CPUs that come and go ---- */

enum { POISON = 0xdead, SWITCHES = 200 };

struct switcher {
	uint32_t done; /* atomic */
	uint32_t poisoned, read;
};

/* Enter the table, look, leave it, over and over. */
static void switch_and_read(void *argument)
{
	struct switcher *s = argument;
	for (unsigned i = 0; i < SWITCHES; i++) {
		remote_load(NULL);
		for (unsigned look = 0; look < 3; look++) {
			uint64_t v = read_user(HERE);
			s->poisoned += v == POISON;
			s->read += v == 1;
		}
		remote_unload(NULL);
	}
	__atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
}

/*
 * Once an unmap has returned the frame is somebody else's: its new contents must
 * never be seen through the old mapping, wherever the reader is in its switch.
 */
HX_CONFORMANCE(a_shootdown_meets_a_switch)
{
	if (one_cpu()) {
		return;
	}
	open_table();
	HX_BAIL();
	struct block page = page_with(1);
	struct switcher s = {0};
	hx_test_readers(true);
	HX_REQUIRE(hx_platform_run_on(1, switch_and_read, &s));
	while (!__atomic_load_n(&s.done, __ATOMIC_ACQUIRE)) {
		HX_REQUIRE_STATUS(map(HERE, page, RW), HX_OK);
		for (unsigned i = 0; i < 20; i++) {
			hx_hal_relax();
		}
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		__atomic_store_n(word(page, 0), POISON, __ATOMIC_RELAXED);
		hx_hal_relax();
		__atomic_store_n(word(page, 0), 1, __ATOMIC_RELAXED);
	}
	hx_platform_join(1);
	hx_test_readers(false);
	HX_CHECK_EQUAL(s.poisoned, 0);
	hx_log("a reader that switched %u times found the page in %u of %u looks", SWITCHES, s.read,
	       3 * SWITCHES);
	close_table();
	give_block(page);
}

/*
 * A CPU has left for the kernel's table. Where it is lazy it is asked once, else not at
 * all; when it is back it must not know what changed meanwhile.
 */
HX_CONFORMANCE(a_cpu_that_was_away_knows_nothing_old)
{
	if (one_cpu()) {
		return;
	}
	open_table();
	HX_BAIL();
	struct block one = page_with(1), two = page_with(2);
	for (unsigned cpu = 1; cpu < hx_test_machine()->cpus; cpu++) {
		HX_REQUIRE_STATUS(map(HERE, one, RW), HX_OK);
		on_cpu(cpu, remote_load, NULL);
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1);
		on_cpu(cpu, remote_unload, NULL);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		__atomic_store_n(word(one, 0), POISON, __ATOMIC_RELAXED);
		on_cpu(cpu, remote_load, NULL);
		HX_CHECK_EQUAL(read_on(cpu, HERE), FAULT_VALUE);
		on_cpu(cpu, remote_unload, NULL);
		HX_REQUIRE_STATUS(map(HERE, two, RW), HX_OK);
		on_cpu(cpu, remote_load, NULL);
		HX_CHECK_EQUAL(read_on(cpu, HERE), 2);
		on_cpu(cpu, remote_unload, NULL);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
		__atomic_store_n(word(one, 0), 1, __ATOMIC_RELAXED);
	}
	close_table();
	give_block(one);
	give_block(two);
}

static void give_kernel_page(struct block b)
{
	HX_REQUIRE_STATUS(hx_map(hx_test_machine()->kernel_table, hx_test_system()->dynamic_base,
				 block_pa(b), PAGE, HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE),
			  HX_OK);
}

static void take_kernel_page(void)
{
	HX_CHECK_STATUS(hx_unmap(hx_test_machine()->kernel_table, hx_test_system()->dynamic_base,
				 PAGE, NULL, NULL),
			HX_OK);
}

static uint64_t read_kernel_page(unsigned cpu)
{
	struct remote r = {.va = hx_test_system()->dynamic_base.v};
	on_cpu(cpu, remote_kernel_read, &r);
	return r.faulted ? FAULT_VALUE : r.value;
}

/* The kernel half changes, with and without flushes of the table that the CPU has left. */
HX_CONFORMANCE(a_cpu_that_is_away_sees_the_kernel_half_change)
{
	if (one_cpu()) {
		return;
	}
	open_table();
	HX_BAIL();
	struct block page = page_with(1), one = page_with(2), two = page_with(3);
	for (unsigned round = 0; round < 2; round++) {
		HX_REQUIRE_STATUS(map(HERE, page, RW), HX_OK);
		on_cpu(1, remote_load, NULL);
		HX_CHECK_EQUAL(read_on(1, HERE), 1);
		on_cpu(1, remote_unload, NULL);
		if (round > 0) { /* it leaves for good */
			HX_CHECK_STATUS(protect(HERE, PAGE, RO), HX_OK);
		}
		HX_CHECK_EQUAL(read_kernel_page(1), FAULT_VALUE);
		give_kernel_page(one);
		HX_CHECK_EQUAL(read_kernel_page(1), 2);
		take_kernel_page();
		HX_CHECK_EQUAL(read_kernel_page(1), FAULT_VALUE);
		give_kernel_page(two);
		HX_CHECK_EQUAL(read_kernel_page(1), 3);
		on_cpu(1, remote_load, NULL);
		HX_CHECK_EQUAL(read_kernel_page(1), 3);
		HX_CHECK_EQUAL(read_on(1, HERE), 1);
		HX_CHECK_EQUAL(write_on(1, HERE), round == 0);
		take_kernel_page();
		on_cpu(1, remote_unload, NULL);
		HX_CHECK_STATUS(unmap(HERE, PAGE), HX_OK);
	}
	close_table();
	give_block(page);
	give_block(one);
	give_block(two);
}

enum { TAKEN_MAX = 64 };

/* Take the frame, and those that come before it, and fill them. @return it was to be had */
static bool fill_frame(struct hx_pfn frame, struct block taken[TAKEN_MAX], unsigned *count)
{
	bool found = false;
	for (*count = 0; *count < TAKEN_MAX && !found && take_block(0, &taken[*count]); ++*count) {
		hx_memset(word(taken[*count], 0), 0xff, PAGE);
		found = taken[*count].first.v == frame.v;
	}
	return found;
}

/*
 * A table ends, and its root is overwritten, while CPUs that ran it last run the kernel's:
 * none of them may walk through it any more, not even lazily.
 */
HX_CONFORMANCE(a_table_ends_when_cpus_have_left_it)
{
	static struct block taken[TAKEN_MAX];
	if (one_cpu()) {
		return;
	}
	struct block page = page_with(1), kernel_page = page_with(2);
	bool found = true;
	for (unsigned cpu = 1; cpu < hx_test_machine()->cpus; cpu++) {
		open_table();
		HX_BAIL();
		HX_REQUIRE_STATUS(map(HERE, page, RW), HX_OK);
		on_cpu(cpu, remote_load, NULL);
		HX_CHECK_EQUAL(read_on(cpu, HERE), 1);
		HX_CHECK_STATUS(hx_pagetable_destroy(&table), HX_BUSY);
		on_cpu(cpu, remote_unload, NULL);
		struct hx_pfn root = hx_pa_to_pfn(table.root);
		close_table();
		unsigned count;
		found = fill_frame(root, taken, &count) && found;
		give_kernel_page(kernel_page); /* where no TLB has anything */
		HX_CHECK_EQUAL(read_kernel_page(cpu), 2);
		HX_CHECK_EQUAL(
			attempt(hx_test_system()->dynamic_base.v, HX_ACCESS_READ, false, 0).value,
			2);
		HX_CHECK_EQUAL(read_on(cpu, HERE), FAULT_VALUE);
		take_kernel_page();
		while (count > 0) {
			give_block(taken[--count]);
		}
	}
	give_block(page);
	give_block(kernel_page);
	if (!found) {
		hx_test_skip("the root's frame was not to be had again");
	}
}
