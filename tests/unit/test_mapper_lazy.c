/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Lazy CPUs: without address-space identifiers a CPU that loads the kernel's table after a
 * user's keeps the user's root and all that it has cached, until it is asked to invalidate
 * something of it. Each case counts what that saves and what it costs, on a machine that
 * sends interrupts and on one that broadcasts. One thread plays all CPUs.
 *
 * No frame may be released that the TLB of a lazy CPU still names: it is as strict with
 * them as with others. What comes in between is in mapper_races and mapper_threads.
 */
#include <sim.h>

#include "mapper_world.h"

#define RW (HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE)
#define URW (RW | HX_PAGE_USER)
#define URO (HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE | HX_PAGE_USER)

#define PAGE HX_KIB(4)
#define TABLES_PA HX_MIB(16)
#define DATA_PA HX_MIB(32)
#define UVA ((uintptr_t)HX_GIB(6))

enum { CPUS = 3, FRAMES = 512 };

static struct hx_pagetable kernel, user, other;
static unsigned stale_uses;
static bool broadcasts; /* the machine that runs does */

/* ---- The machine: all CPUs run the kernel's table, and UVA is mapped in both others ---- */

static void count_stale(const struct hx_sim_stale *s)
{
	(void)s;
	stale_uses++;
}

static void audit_frame(struct hx_pfn frame)
{
	HX_CHECK(!hx_sim_audit_frame(frame));
}

static void audit_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	(void)context;
	(void)va;
	(void)flags;
	HX_CHECK_EQUAL(hx_sim_audit_release(hx_pa_to_pfn(pa), bytes / PAGE), 0);
}

static void audit_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, audit_leaf, context);
}

static uintptr_t kva(void)
{
	return hx_kernel_start() + UVA;
}

static struct hx_pagetable *runs[CPUS];

static void load(unsigned cpu, struct hx_pagetable *t)
{
	hx_sim_play(cpu);
	hx_pagetable_load(t, runs[cpu]);
	runs[cpu] = t;
	hx_sim_play(0);
}

static void open_machine(struct hx_sim_config c)
{
	hx_sim_configure(&c);
	hx_hal_mmu_init();
	broadcasts = (hx_hal_geometry.features & HX_MMU_BROADCAST) != 0;
	stale_uses = 0;
	hx_sim_on_stale(count_stale);
	world_open(hx_pa_to_pfn(hx_pa(TABLES_PA)), FRAMES);
	HX_BAIL();
	struct hx_pagetable_config config = {.frames = &world_frames, .huge = true};
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &config), HX_OK);
	HX_REQUIRE_STATUS(hx_pagetable_prepare(&kernel, hx_va(kva()), PAGE), HX_OK);
	hx_pagetable_seal(&kernel);
	config.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &config), HX_OK);
	HX_REQUIRE_STATUS(hx_pagetable_init(&other, &config), HX_OK);
	for (unsigned cpu = 0; cpu < CPUS; cpu++) {
		hx_sim_play(cpu);
		hx_hal_mmu_init();
		hx_hal_user_access(true);
		runs[cpu] = NULL;
		load(cpu, &kernel);
	}
	hx_sim_play(0);
	world_on_free = audit_frame;
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), 4 * PAGE, URW), HX_OK);
	HX_CHECK_STATUS(hx_map(&other, hx_va(UVA), hx_pa(DATA_PA + 8 * PAGE), PAGE, URW), HX_OK);
}

static void end_table(struct hx_pagetable *t)
{
	HX_CHECK_STATUS(hx_unmap_sparse(t, hx_va(UVA), 4 * PAGE, audit_release, NULL), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(t), HX_OK);
}

static void close_machine(void)
{
	for (unsigned cpu = 0; cpu < CPUS; cpu++) {
		load(cpu, &kernel); /* lazy, if it was not */
	}
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(stale_uses, 0);
	if (user.frames) {
		end_table(&user);
	}
	if (other.frames) {
		end_table(&other);
	}
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(world_free_count() + hx_pagetable_counters(&kernel).tables, FRAMES);
}

/* Does CPU @cpu read @va, and from the frame at @pa? */
static bool reads(unsigned cpu, uintptr_t va, uint64_t pa)
{
	struct hx_sim_reference r = {.va = hx_va(va), .access = HX_ACCESS_READ, .bytes = 8};
	struct hx_fault fault;
	hx_sim_play(cpu);
	bool done;
	while (!(done = hx_sim_access(&r, &fault)) && hx_pagetable_spurious(&fault)) {
	}
	hx_sim_play(0);
	return done && r.pa.v == pa;
}

/* CPU @cpu has run the user's table, has cached its pages, and is lazy now. */
static void make_lazy(unsigned cpu)
{
	load(cpu, &user);
	for (unsigned i = 0; i < 4; i++) {
		HX_CHECK(reads(cpu, UVA + i * PAGE, DATA_PA + i * PAGE));
	}
	load(cpu, &kernel);
	HX_CHECK(hx_cpus_has(user.active, cpu));
}

/* ---- Counts, the machine's own ---- */

static struct hx_sim_counters before;

static void count(void)
{
	before = hx_sim_counters();
}

/* Since count(), by all CPUs. */
static void check_counts(unsigned root_loads, unsigned flushes, unsigned broadcasts_done,
			 unsigned ipis)
{
	struct hx_sim_counters now = hx_sim_counters();
	HX_CHECK_EQUAL(now.root_loads - before.root_loads, root_loads);
	HX_CHECK_EQUAL(now.local_flushes - before.local_flushes, flushes);
	HX_CHECK_EQUAL(now.broadcasts - before.broadcasts, broadcasts_done);
	HX_CHECK_EQUAL(now.ipis - before.ipis, ipis);
	count();
}

/* On both kinds of machine. */
static void on_both(void (*run)(void))
{
	for (unsigned i = 0; i < 2; i++) {
		open_machine((struct hx_sim_config){.broadcast = i ? HX_SIM_ON : HX_SIM_OFF});
		HX_BAIL();
		run();
		close_machine();
	}
}

/* ---- There and back ---- */

static void come_and_go(void)
{
	make_lazy(0);
	uint64_t walks = hx_sim_counters().walks;
	count();
	for (unsigned i = 0; i < 3; i++) {
		load(0, &user);
		HX_CHECK(reads(0, UVA + PAGE, DATA_PA + PAGE));
		load(0, &kernel);
	}
	check_counts(0, 0, 0, 0);
	HX_CHECK_EQUAL(hx_sim_counters().walks, walks);
	HX_CHECK(hx_pagetable_is_loaded(&kernel));
	/* What is given meanwhile is there when it is back, after a spurious fault at most. */
	uintptr_t next = UVA + 4 * PAGE;
	load(0, &user);
	HX_CHECK(!reads(0, next, DATA_PA + 5 * PAGE)); /* absence may be cached now */
	load(0, &kernel);
	HX_CHECK_STATUS(hx_map(&user, hx_va(next), hx_pa(DATA_PA + 5 * PAGE), PAGE, URW), HX_OK);
	load(0, &user);
	HX_CHECK(reads(0, next, DATA_PA + 5 * PAGE));
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(next), PAGE, audit_release, NULL), HX_OK);
}

HX_TEST(a_lazy_cpu_comes_back_for_nothing)
{
	on_both(come_and_go);
}

static void load_another(void)
{
	make_lazy(1);
	count();
	load(1, &other);
	check_counts(1, 0, 0, 0);
	HX_CHECK(!hx_cpus_has(user.active, 1) && hx_cpus_has(other.active, 1));
	HX_CHECK(reads(1, UVA, DATA_PA + 8 * PAGE));
	/* It has left: nobody is asked, and nothing of it is left when it is back. */
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA), PAGE, URO), HX_OK);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + PAGE), PAGE, audit_release, NULL), HX_OK);
	check_counts(0, 0, 0, 0);
	load(1, &user);
	check_counts(1, 0, 0, 0);
	HX_CHECK(reads(1, UVA, DATA_PA) && !reads(1, UVA + PAGE, DATA_PA + PAGE));
}

HX_TEST(a_lazy_cpu_loads_another_table)
{
	on_both(load_another);
}

static void load_kernel_again(void)
{
	make_lazy(1);
	count();
	load(1, &kernel);
	check_counts(1, 0, 0, 0);
	HX_CHECK(!hx_cpus_has(user.active, 1) && hx_cpus_has(kernel.active, 1));
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, audit_release, NULL), HX_OK);
	check_counts(0, 0, 0, 0);
	HX_CHECK(!reads(1, UVA + PAGE, DATA_PA + PAGE));
	/* Another kernel's table is another kernel half. */
	static struct hx_pagetable second;
	struct hx_pagetable_config c = {.frames = &world_frames};
	HX_REQUIRE_STATUS(hx_pagetable_init(&second, &c), HX_OK);
	load(1, &user);
	load(1, &kernel);
	count();
	load(1, &second);
	check_counts(1, 1, 0, 0);
	HX_CHECK(!hx_cpus_has(user.active, 1) && !hx_cpus_has(kernel.active, 1));
	load(1, &kernel);
	HX_CHECK_STATUS(hx_pagetable_destroy(&second), HX_OK);
}

HX_TEST(a_lazy_cpu_can_be_made_to_leave)
{
	on_both(load_kernel_again);
}

/* ---- Invalidations ---- */

/* CPU 0 takes away @bytes from UVA while CPUs 1 and 2 are lazy, and then something more. */
static void take_away(uint64_t bytes)
{
	make_lazy(1);
	make_lazy(2);
	struct hx_mapper_counters told = hx_pagetable_counters(&user);
	count();
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), bytes, audit_release, NULL), HX_OK);
	check_counts(2, 0, 0, 2); /* also where the machine broadcasts */
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).broadcasts - told.broadcasts, 1);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).ipis - told.ipis, 2);
	HX_CHECK_EQUAL(user.active.bits, 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	/* Once a stay. */
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA + 16 * PAGE), PAGE, URW), HX_OK);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 4 * PAGE, audit_release, NULL), HX_OK);
	check_counts(0, 0, 0, 0);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA + 20 * PAGE), PAGE, URW), HX_OK);
	load(1, &user);
	check_counts(1, 0, 0, 0);
	HX_CHECK(reads(1, UVA, DATA_PA + 20 * PAGE));
}

static void take_away_pages(void)
{
	take_away(PAGE);
}

static void take_away_tables(void)
{
	uint64_t tables = hx_pagetable_counters(&user).tables;
	take_away(4 * PAGE);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, tables);
}

HX_TEST(a_lazy_cpu_is_asked_once)
{
	on_both(take_away_pages);
	on_both(take_away_tables);
}

/* One is lazy, one runs the table, and the lazy one makes the call. */
static void take_away_beside(void)
{
	make_lazy(0);
	make_lazy(1);
	load(2, &user);
	HX_CHECK(reads(2, UVA, DATA_PA));
	count();
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, audit_release, NULL), HX_OK);
	/* Both lazy ones load the kernel's root, the other one invalidates. */
	check_counts(2, broadcasts ? 0 : 1, broadcasts, broadcasts ? 1 : 2);
	HX_CHECK_EQUAL(user.active.bits, hx_cpus_of(2).bits);
	HX_CHECK(!reads(2, UVA, DATA_PA) && reads(2, UVA + PAGE, DATA_PA + PAGE));
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + PAGE), PAGE, audit_release, NULL), HX_OK);
	check_counts(0, broadcasts ? 0 : 1, broadcasts, broadcasts ? 0 : 1);
	/* A right that is given asks nobody. */
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + 2 * PAGE), PAGE, URO), HX_OK);
	load(2, &kernel);
	count();
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + 2 * PAGE), PAGE, URW), HX_OK);
	check_counts(0, 0, 0, 0);
}

static void take_away_alone(void)
{
	make_lazy(0);
	struct hx_mapper_counters told = hx_pagetable_counters(&user);
	count();
	HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA), PAGE, URO), HX_OK);
	check_counts(1, 0, 0, 0);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).local_flushes, told.local_flushes);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).broadcasts, told.broadcasts);
	HX_CHECK_EQUAL(user.active.bits, 0);
}

HX_TEST(lazy_cpus_leave_and_others_invalidate)
{
	on_both(take_away_alone);
	on_both(take_away_beside);
}

/* The kernel half changes under a lazy CPU as under any other, and it stays lazy. */
static void change_kernel_half(void)
{
	static const uint64_t flags[] = {RW, RW | HX_PAGE_GLOBAL};
	make_lazy(1);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(flags); i++) {
		uint64_t pa = DATA_PA + (30 + i) * PAGE;
		HX_CHECK_STATUS(hx_map(&kernel, hx_va(kva()), hx_pa(pa), PAGE, flags[i]), HX_OK);
		for (unsigned cpu = 0; cpu < CPUS; cpu++) {
			HX_CHECK(reads(cpu, kva(), pa));
		}
		count();
		HX_CHECK_STATUS(hx_unmap(&kernel, hx_va(kva()), PAGE, audit_release, NULL), HX_OK);
		check_counts(0, broadcasts ? 1 : 3, broadcasts, broadcasts ? 0 : 2);
		HX_CHECK(!reads(1, kva(), pa));
		HX_CHECK(hx_cpus_has(user.active, 1));
	}
	count();
	load(1, &user);
	check_counts(0, 0, 0, 0);
	HX_CHECK(reads(1, UVA, DATA_PA) && !reads(1, kva(), DATA_PA + 31 * PAGE));
}

HX_TEST(the_kernel_half_changes_for_lazy_cpus)
{
	on_both(change_kernel_half);
}

/* ---- The end of a table ---- */

static void end_under_lazy_cpus(void)
{
	make_lazy(0);
	make_lazy(1);
	load(2, &user);
	count();
	/* CPU 2 runs it: the lazy ones leave all the same, and it is not interrupted. */
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_BUSY);
	check_counts(2, 0, 0, 1);
	HX_CHECK_EQUAL(user.active.bits, hx_cpus_of(2).bits);
	HX_CHECK(reads(2, UVA, DATA_PA));
	HX_CHECK(hx_pagetable_is_loaded(&user));
	check_counts(0, 0, 0, 0);
	load(2, &kernel);
	make_lazy(1);
	make_lazy(0);
	count();
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	check_counts(3, 0, 0, 2);
	HX_CHECK(!hx_pagetable_is_loaded(&user) && !hx_pagetable_is_loaded(NULL));
	for (unsigned cpu = 0; cpu < CPUS; cpu++) {
		HX_CHECK(!reads(cpu, UVA, DATA_PA));
	}
	/* Without lazy ones it asks nobody. */
	load(1, &other);
	load(1, &kernel);
	load(1, &kernel);
	count();
	HX_CHECK_STATUS(hx_pagetable_destroy(&other), HX_OK);
	check_counts(0, 0, 0, 0);
}

HX_TEST(a_table_ends_under_lazy_cpus)
{
	on_both(end_under_lazy_cpus);
}

/* ---- Faults ---- */

static void fault_lazily(void)
{
	make_lazy(0);
	struct hx_fault f = {.va = hx_va(UVA), .access = HX_ACCESS_READ, .user_access = true};
	count();
	/* What a lazy CPU runs is the kernel's table, where nothing is mapped. */
	HX_CHECK(!hx_pagetable_spurious(&f));
	check_counts(0, 0, 0, 0);
	load(0, &user);
	HX_CHECK(hx_pagetable_spurious(&f));
	check_counts(0, 1, 0, 0);
}

HX_TEST(a_fault_of_a_lazy_cpu_is_the_kernel_s)
{
	on_both(fault_lazily);
}

/* ---- Others ---- */

/* With identifiers the CPU leaves at once, and keeps what it has cached in another way. */
HX_TEST(identifiers_make_no_lazy_cpus)
{
	open_machine((struct hx_sim_config){.asid_bits = 4});
	HX_BAIL();
	load(1, &user);
	HX_CHECK(reads(1, UVA, DATA_PA));
	count();
	load(1, &kernel);
	check_counts(1, 0, 0, 0);
	HX_CHECK(!hx_cpus_has(user.active, 1));
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), PAGE, NULL, NULL), HX_OK);
	load(1, &user);
	check_counts(1, 0, 0, 0);
	HX_CHECK(!reads(1, UVA, DATA_PA));
	load(1, &kernel);
	close_machine();
}

/* A load over a foreign table takes nothing for granted. */
HX_TEST(a_foreign_table_ends_laziness)
{
	open_machine((struct hx_sim_config){.broadcast = HX_SIM_OFF});
	HX_BAIL();
	make_lazy(1);
	hx_sim_play(1);
	hx_hal_root_load(other.root, HX_ASID_KERNEL, false); /* as firmware might */
	count();
	runs[1] = NULL;
	load(1, &user);
	check_counts(1, 1, 0, 0);
	HX_CHECK(reads(1, UVA, DATA_PA));
	load(1, &kernel);
	close_machine();
}

HX_SUITE(mapper_lazy, HX_CASE(a_lazy_cpu_comes_back_for_nothing),
	 HX_CASE(a_lazy_cpu_loads_another_table), HX_CASE(a_lazy_cpu_can_be_made_to_leave),
	 HX_CASE(a_lazy_cpu_is_asked_once), HX_CASE(lazy_cpus_leave_and_others_invalidate),
	 HX_CASE(the_kernel_half_changes_for_lazy_cpus), HX_CASE(a_table_ends_under_lazy_cpus),
	 HX_CASE(a_fault_of_a_lazy_cpu_is_the_kernel_s), HX_CASE(identifiers_make_no_lazy_cpus),
	 HX_CASE(a_foreign_table_ends_laziness));
