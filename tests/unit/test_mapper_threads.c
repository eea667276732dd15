/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The mapper on several CPUs of the simulated machine, whose TLBs keep all that
 * they are not told to forget. A frame, data or table, that is released while a
 * TLB still names it fails the case; so does every stale use outside of a call.
 *
 * Hosted only: CPUs are threads here, and the cases choose their machine.
 */
#include <sched.h>

#include <sim.h>

#include "mapper_world.h"

#define RW (HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE)
#define RO (HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE)
#define URW (RW | HX_PAGE_USER)
#define URO (RO | HX_PAGE_USER)

#define PAGE HX_KIB(4)
#define L1 HX_MIB(2)
#define UVA ((uintptr_t)HX_GIB(6))

enum { CPUS = 4, WORLD_FRAMES = 2048 };

/* Tables from 16 MiB; data, a page for each of the window, from 32 MiB. */
#define TABLES_PA HX_MIB(16)
#define DATA_PA HX_MIB(32)

static struct hx_pagetable kernel, user;

/* ---- The machine ---- */

static unsigned stale_uses, audits;

static void count_stale(const struct hx_sim_stale *s)
{
	(void)s;
	__atomic_fetch_add(&stale_uses, 1, __ATOMIC_RELAXED);
}

static void audit_frame(struct hx_pfn frame)
{
	__atomic_fetch_add(&audits, 1, __ATOMIC_RELAXED);
	HX_CHECK(!hx_sim_audit_frame(frame));
}

static void audit_release_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			       uint64_t flags)
{
	(void)context;
	(void)va;
	(void)flags;
	for (uint64_t at = 0; at < bytes; at += PAGE) {
		audit_frame(hx_pa_to_pfn(hx_pa(pa.v + at)));
	}
}

static void audit_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, audit_release_leaf, context);
}

static uintptr_t kva(void)
{
	return hx_kernel_start() + UVA;
}

/* This CPU runs the kernel's table, and user is a table on it. */
static void open_machine(const struct hx_sim_config *c, uint32_t features)
{
	hx_sim_configure(c);
	hx_hal_mmu_init();
	hx_hal_geometry.features |= features;
	stale_uses = audits = 0;
	hx_sim_on_stale(count_stale);
	world_open(hx_pa_to_pfn(hx_pa(TABLES_PA)), WORLD_FRAMES);
	HX_BAIL();
	struct hx_pagetable_config config = {.frames = &world_frames, .huge = true};
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &config), HX_OK);
	HX_REQUIRE_STATUS(hx_pagetable_prepare(&kernel, hx_va(kva()), L1), HX_OK);
	hx_pagetable_seal(&kernel);
	hx_pagetable_load(&kernel, NULL);
	config.kernel = &kernel;
	HX_REQUIRE_STATUS(hx_pagetable_init(&user, &config), HX_OK);
	world_on_free = audit_frame;
}

static void close_machine(void)
{
	WORLD_SOUND(&user);
	WORLD_SOUND(&kernel);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	world_on_free = NULL; /* what this CPU still has of the kernel's table is its own affair */
	HX_CHECK_STATUS(hx_pagetable_destroy(&user), HX_OK);
	HX_CHECK_EQUAL(world_free_count() + hx_pagetable_counters(&kernel).tables, WORLD_FRAMES);
}

/* ---- CPUs ---- */

struct cpu {
	void (*run)(unsigned id);
	unsigned id;
	bool started, done;
};

static struct cpu cpus[CPUS];
static bool stop;
static unsigned working; /* CPUs that may still make calls */

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

static void cpu_main(void *argument)
{
	struct cpu *c = argument;
	hx_hal_mmu_init();
	hx_pagetable_load(&kernel, NULL);
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	__atomic_store_n(&c->started, true, __ATOMIC_RELEASE);
	c->run(c->id);
	/* Leave the machine, but not before nobody can ask this CPU any more. */
	__atomic_fetch_sub(&working, 1, __ATOMIC_ACQ_REL);
	while (__atomic_load_n(&working, __ATOMIC_ACQUIRE) > 0) {
		hx_hal_relax();
	}
	world_leave(&kernel, &user);
	__atomic_store_n(&c->done, true, __ATOMIC_RELEASE);
}

/* Start CPUs 1..n; they have user loaded when this returns. */
static void start_cpus(unsigned n, void (*run)(unsigned id))
{
	stop = false;
	working = n;
	for (unsigned i = 1; i <= n; i++) {
		cpus[i] = (struct cpu){.run = run, .id = i};
		HX_REQUIRE(hx_sim_cpu_start(i, cpu_main, &cpus[i]));
	}
	for (unsigned i = 1; i <= n; i++) {
		while (!__atomic_load_n(&cpus[i].started, __ATOMIC_ACQUIRE)) {
			hx_hal_relax();
		}
	}
}

static void join_cpus(unsigned n)
{
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 1; i <= n; i++) {
		while (!__atomic_load_n(&cpus[i].done, __ATOMIC_ACQUIRE)) {
			hx_hal_relax();
		}
	}
}

static void idle(unsigned id)
{
	(void)id;
	while (!stopped()) {
		hx_hal_relax();
	}
}

/* One access as the CPU's code makes it; spurious faults are resolved. */
static bool touch(uintptr_t va, enum hx_access access, uint64_t *value)
{
	struct hx_sim_reference r = {.va = hx_va(va), .access = access, .bytes = 8};
	r.value = value ? *value : 0;
	struct hx_fault fault;
	while (!hx_sim_access(&r, &fault)) {
		if (!hx_pagetable_spurious(&fault)) {
			return false;
		}
	}
	if (value) {
		*value = r.value;
	}
	return true;
}

static bool readable(uintptr_t va)
{
	return touch(va, HX_ACCESS_READ, NULL);
}

/* ---- Commands: CPU 0 tells the others to touch pages ---- */

static struct {
	uintptr_t va;
	uint64_t bytes;
	enum hx_access access;
	uint32_t number; /* of the command */
	uint32_t served; /* CPUs that have done it */
	uint32_t faults;
} order;

static void obey(unsigned id)
{
	(void)id;
	for (uint32_t last = 0; !stopped(); hx_hal_relax()) {
		uint32_t number = __atomic_load_n(&order.number, __ATOMIC_ACQUIRE);
		if (number != last) {
			last = number;
			uint32_t faults = 0;
			for (uint64_t at = 0; at < order.bytes; at += PAGE) {
				faults += !touch(order.va + (uintptr_t)at, order.access, NULL);
			}
			__atomic_fetch_add(&order.faults, faults, __ATOMIC_RELAXED);
			__atomic_fetch_add(&order.served, 1, __ATOMIC_RELEASE);
		}
	}
}

/* CPUs 1..n access each page of the range. @return accesses that were refused, of all */
static unsigned all_access(unsigned n, uintptr_t va, uint64_t bytes, enum hx_access access)
{
	order.va = va;
	order.bytes = bytes;
	order.access = access;
	order.served = order.faults = 0;
	__atomic_fetch_add(&order.number, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&order.served, __ATOMIC_ACQUIRE) < n) {
		hx_hal_relax();
	}
	return order.faults;
}

static unsigned all_touch(unsigned n, uintptr_t va)
{
	return all_access(n, va, PAGE, HX_ACCESS_READ);
}

static void start_obedient(unsigned n)
{
	order.number = 0;
	start_cpus(n, obey);
}

/* ---- Who is asked ---- */

/* Counts of one call, taken from the table's counters and from the machine's. */
#define ASKS(t, call, wanted_broadcasts, wanted_ipis)                                              \
	do {                                                                                       \
		struct hx_mapper_counters before_ = hx_pagetable_counters(t);                      \
		uint64_t machine_ = hx_sim_counters().ipis;                                        \
		HX_CHECK_STATUS(call, HX_OK);                                                      \
		HX_CHECK_EQUAL(hx_pagetable_counters(t).broadcasts - before_.broadcasts,           \
			       wanted_broadcasts);                                                 \
		HX_CHECK_EQUAL(hx_pagetable_counters(t).ipis - before_.ipis, wanted_ipis);         \
		HX_CHECK_EQUAL(hx_sim_counters().ipis - machine_, wanted_ipis);                    \
	} while (0)

static void count_asks(enum hx_sim_switch broadcast)
{
	open_machine(&(struct hx_sim_config){.broadcast = broadcast}, 0);
	HX_BAIL();
	struct hx_pagetable *t = &user;
	struct hx_va va = hx_va(UVA);
	struct hx_pa pa = hx_pa(DATA_PA);
	uint64_t bytes = 3 * L1 + 7 * PAGE;
	uint64_t each = broadcast == HX_SIM_OFF ? 3 : 0; /* IPIs to three CPUs */

	/* Nobody runs it; then this CPU alone does. */
	ASKS(t, hx_map(t, va, pa, bytes, URW), 0, 0);
	ASKS(t, hx_unmap(t, va, bytes, NULL, NULL), 0, 0);
	hx_pagetable_load(t, &kernel);
	ASKS(t, hx_map(t, va, pa, bytes, URW), 0, 0);
	ASKS(t, hx_update_flags(t, va, bytes, URO), 0, 0);
	ASKS(t, hx_unmap(t, va, bytes, NULL, NULL), 0, 0);

	/* Three others run it as well: one round for a call of any size. */
	start_obedient(3);
	HX_BAIL();
	ASKS(t, hx_map(t, va, pa, bytes, URO), 0, 0);         /* fresh */
	ASKS(t, hx_update_flags(t, va, bytes, URW), 0, 0);    /* more */
	ASKS(t, hx_update_flags(t, va, bytes, URW), 0, 0);    /* the same */
	ASKS(t, hx_update_flags(t, va, bytes, URO), 1, each); /* less */
	/* A split, which may have to be broken first. */
	const unsigned times = hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE ? 2 : 1;
	ASKS(t, hx_unmap(t, hx_va(UVA + PAGE), PAGE, NULL, NULL), times, times * each);
	ASKS(t, hx_unmap_sparse(t, va, 2 * bytes, NULL, NULL), 1, each);
	ASKS(t, hx_unmap_sparse(t, va, 2 * bytes, NULL, NULL), 0, 0);
	ASKS(t, hx_flush(t, va, PAGE), 1, each);
	/* This CPU leaves; the others are still asked, this one no longer flushes. */
	hx_pagetable_load(&kernel, t);
	uint64_t flushes = hx_pagetable_counters(t).local_flushes;
	ASKS(t, hx_map(t, va, pa, bytes, URW), 0, 0);
	ASKS(t, hx_unmap(t, va, bytes, NULL, NULL), 1, each);
	HX_CHECK_EQUAL(hx_pagetable_counters(t).local_flushes, flushes);
	/* All of them run the kernel's half. */
	ASKS(&kernel, hx_map(&kernel, hx_va(kva()), pa, PAGE, RW | HX_PAGE_GLOBAL),
	     hx_hal_geometry.features & HX_MMU_NEGATIVE_CACHING ? 1 : 0,
	     hx_hal_geometry.features & HX_MMU_NEGATIVE_CACHING ? each : 0);
	ASKS(&kernel, hx_unmap(&kernel, hx_va(kva()), PAGE, NULL, NULL), 1, each);
	join_cpus(3);
	ASKS(&kernel, hx_map(&kernel, hx_va(kva()), pa, PAGE, RW), 0, 0);
	ASKS(&kernel, hx_unmap(&kernel, hx_va(kva()), PAGE, NULL, NULL), 0, 0);
	HX_CHECK_EQUAL(hx_tlb_shootdown(NULL, 0, (struct hx_cpus){~UINT64_C(0)}), 0);
	HX_CHECK_EQUAL(stale_uses, 0);
	close_machine();
}

HX_TEST(cpus_are_asked_once_and_only_if_they_run_the_table)
{
	count_asks(HX_SIM_OFF);
}

HX_TEST(a_machine_that_broadcasts_sends_no_interrupts)
{
	count_asks(HX_SIM_ON);
}

/* ---- What is unmapped is gone everywhere ---- */

HX_TEST(no_cpu_keeps_what_is_unmapped)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	start_obedient(3);
	HX_BAIL();
	const struct {
		uint64_t bytes, from, to; /* mapped, and unmapped of it */
	} cases[] = {
		{PAGE, 0, PAGE},
		{3 * PAGE, PAGE, 2 * PAGE},
		{L1, 0, L1},
		{L1, 5 * PAGE, 9 * PAGE},
		{2 * L1, L1 - PAGE, L1 + PAGE},
		{L1 + 70 * PAGE, L1, L1 + 70 * PAGE},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		uint64_t bytes = cases[i].bytes, gone = cases[i].to - cases[i].from;
		struct hx_va hole = hx_va(UVA + (uintptr_t)cases[i].from);
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), bytes, URW), HX_OK);
		HX_CHECK_EQUAL(all_access(3, UVA, bytes, HX_ACCESS_READ), 0);
		for (uint64_t at = 0; at < bytes; at += PAGE) {
			HX_CHECK(readable(UVA + (uintptr_t)at));
		}
		audits = 0;
		HX_CHECK_STATUS(hx_unmap(&user, hole, gone, audit_release, NULL), HX_OK);
		HX_CHECK(audits >= gone / PAGE);
		HX_CHECK_EQUAL(hx_sim_audit(), 0);
		HX_CHECK_EQUAL(all_access(3, hole.v, gone, HX_ACCESS_READ), 3 * gone / PAGE);
		HX_CHECK_EQUAL(all_access(3, UVA, bytes, HX_ACCESS_READ), 3 * gone / PAGE);
		for (uint64_t at = 0; at < bytes; at += PAGE) {
			bool in_hole = at >= cases[i].from && at < cases[i].to;
			HX_CHECK_EQUAL(readable(UVA + (uintptr_t)at), !in_hole);
		}
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), bytes, audit_release, NULL),
				HX_OK);
	}
	HX_CHECK_EQUAL(stale_uses, 0);
	join_cpus(3);
	hx_pagetable_load(&kernel, &user);
	close_machine();
}

HX_TEST(the_kernel_half_changes_for_all)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	start_obedient(3);
	HX_BAIL();
	struct hx_va va = hx_va(kva());
	struct hx_pa pa = hx_pa(DATA_PA);
	/* The last has more pages than are flushed one by one. */
	const uint64_t sizes[] = {PAGE, PAGE, L1, 100 * PAGE};
	for (unsigned round = 0; round < HX_ARRAY_LENGTH(sizes); round++) {
		uint64_t global = round == 0 ? 0 : HX_PAGE_GLOBAL;
		uint64_t bytes = sizes[round];
		uint64_t spurious = hx_sim_counters().spurious_faults;
		HX_CHECK_EQUAL(all_touch(3, kva()), 3); /* absence may be cached now */
		HX_CHECK_STATUS(hx_map(&kernel, va, pa, bytes, RO | global), HX_OK);
		HX_CHECK_EQUAL(all_touch(3, kva()), 0);
		HX_CHECK_STATUS(hx_update_flags(&kernel, va, bytes, RW | global), HX_OK);
		HX_CHECK_EQUAL(all_access(3, kva(), PAGE, HX_ACCESS_WRITE), 0);
		/* Kernel code cannot take faults on what it was given. */
		HX_CHECK_EQUAL(hx_sim_counters().spurious_faults, spurious);
		HX_CHECK_STATUS(hx_update_flags(&kernel, va, bytes, RO | HX_PAGE_USER), HX_OK);
		HX_CHECK_EQUAL(hx_sim_audit(), 0);
		HX_CHECK_STATUS(hx_unmap(&kernel, va, bytes, audit_release, NULL), HX_OK);
		HX_CHECK_EQUAL(all_touch(3, kva()), 3);
		HX_CHECK_EQUAL(hx_sim_audit(), 0);
	}
	HX_CHECK_EQUAL(stale_uses, 0);
	join_cpus(3);
	close_machine();
}

HX_TEST(what_is_mapped_is_there_at_once)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	/* In a table that is new, in one that stood, and in the kernel's half. */
	const uintptr_t at[] = {UVA, UVA + PAGE, kva()};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(at); i++) {
		struct hx_pagetable *t = at[i] == kva() ? &kernel : &user;
		HX_CHECK(!readable(at[i])); /* absence may be cached now */
		uint64_t spurious = hx_sim_counters().spurious_faults;
		HX_CHECK_STATUS(hx_map(t, hx_va(at[i]), hx_pa(DATA_PA + i * PAGE), PAGE, RO),
				HX_OK);
		HX_CHECK(readable(at[i]));
		HX_CHECK_EQUAL(hx_sim_counters().spurious_faults, spurious);
	}
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), 2 * PAGE, audit_release, NULL), HX_OK);
	hx_pagetable_load(&kernel, &user);
	close_machine();
}

HX_TEST(another_kernel_half_forgets_the_first)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	static struct hx_pagetable second;
	struct hx_pagetable_config c = {.frames = &world_frames, .huge = true};
	HX_REQUIRE_STATUS(hx_pagetable_init(&second, &c), HX_OK);
	struct hx_va va = hx_va(kva());
	HX_CHECK_STATUS(hx_map(&kernel, va, hx_pa(DATA_PA), PAGE, RW | HX_PAGE_GLOBAL), HX_OK);
	hx_pagetable_load(&user, &kernel);
	HX_CHECK(readable(kva()));
	hx_pagetable_load(&second, &user);
	HX_CHECK_EQUAL(user.active.bits, 0);
	HX_CHECK_EQUAL(kernel.active.bits, 0);
	HX_CHECK_EQUAL(second.active.bits, 1);
	HX_CHECK(!readable(kva()));
	/* It left both, so nobody asks it when they change. */
	HX_CHECK_STATUS(hx_unmap(&kernel, va, PAGE, audit_release, NULL), HX_OK);
	hx_pagetable_load(&kernel, &second);
	HX_CHECK_STATUS(hx_pagetable_destroy(&second), HX_OK);
	HX_CHECK_EQUAL(stale_uses, 0);
	close_machine();
}

/* ---- Waiting ---- */

static struct hx_lock outer;
static uint32_t entered;

/* Wants the lock that CPU 0 holds, with interrupts off. */
static void want_lock(unsigned id)
{
	(void)id;
	while (!stopped()) {
		unsigned long irq = hx_hal_irq_save();
		unsigned long inner = hx_lock_acquire(&outer);
		__atomic_fetch_add(&entered, 1, __ATOMIC_RELAXED);
		hx_lock_release(&outer, inner);
		hx_hal_irq_restore(irq);
	}
}

HX_TEST(who_waits_for_a_lock_answers_shootdowns)
{
	open_machine(&(struct hx_sim_config){.broadcast = HX_SIM_OFF}, 0);
	HX_BAIL();
	start_cpus(3, want_lock);
	HX_BAIL();
	for (unsigned i = 0; i < 60; i++) {
		unsigned long irq = hx_lock_acquire(&outer);
		uint64_t ipis = hx_pagetable_counters(&user).ipis;
		hx_flush_all(&user);
		HX_CHECK_EQUAL(hx_pagetable_counters(&user).ipis - ipis, 3);
		hx_lock_release(&outer, irq);
	}
	join_cpus(3);
	HX_CHECK(entered > 0);
	close_machine();
}

/* Nothing but shootdowns, from all CPUs at once, with interrupts off. */
static void shoot(unsigned id)
{
	struct hx_tlb_range all = {.pages = 0};
	unsigned long irq = hx_hal_irq_save();
	for (unsigned i = 0; i < 80; i++) {
		HX_CHECK_EQUAL(hx_tlb_shootdown(&all, 1, (struct hx_cpus){0xf}), 3);
	}
	hx_hal_irq_restore(irq);
	idle(id);
}

HX_TEST(crossing_initiators_do_not_wait_for_each_other)
{
	open_machine(&(struct hx_sim_config){.broadcast = HX_SIM_OFF}, 0);
	HX_BAIL();
	uint64_t before = hx_sim_counters().local_flushes;
	start_cpus(3, shoot);
	HX_BAIL();
	struct hx_tlb_range all = {.pages = 0};
	for (unsigned i = 0; i < 80; i++) {
		HX_CHECK_EQUAL(hx_tlb_shootdown(&all, 1, (struct hx_cpus){0xf}), 3);
	}
	join_cpus(3);
	/* Every CPU ran every request of every CPU, its own too. */
	HX_CHECK(hx_sim_counters().local_flushes - before >= 4 * 4 * 80);
	close_machine();
}

/* ---- Everybody changes one table at once ---- */

enum { WINDOW = 64 };

static uintptr_t window_of(unsigned id)
{
	return UVA + id * (uintptr_t)(L1 / 2); /* two windows share a leaf table */
}

/*
 * Each CPU maps, writes, protects and unmaps in its window, and reads in those of
 * the others, so that its TLB has what they unmap.
 */
static void work(unsigned id)
{
	struct hx_random r = {id + 1};
	uint64_t pa = DATA_PA + id * HX_MIB(1);
	uintptr_t base = window_of(id);
	for (unsigned i = 0; i < 40; i++) {
		uint64_t first = hx_random_below(&r, WINDOW);
		uint64_t bytes = (1 + hx_random_below(&r, WINDOW - first)) * PAGE;
		uintptr_t va = base + (uintptr_t)(first * PAGE);
		HX_CHECK_STATUS(hx_map(&user, hx_va(va), hx_pa(pa + first * PAGE), bytes, URW),
				HX_OK);
		for (uint64_t at = 0; at < bytes; at += PAGE) {
			uint64_t wrote = (uint64_t)id << 32 | i, read = 0;
			HX_CHECK(touch(va + (uintptr_t)at, HX_ACCESS_WRITE, &wrote));
			HX_CHECK(touch(va + (uintptr_t)at, HX_ACCESS_READ, &read));
			HX_CHECK_EQUAL(read, wrote);
			(void)readable(window_of((id + 1) % CPUS) + (uintptr_t)at);
		}
		HX_CHECK_STATUS(hx_update_flags(&user, hx_va(va), bytes, URO), HX_OK);
		HX_CHECK(!touch(va, HX_ACCESS_WRITE, NULL));
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(va), bytes, audit_release, NULL), HX_OK);
		HX_CHECK(!readable(va));
	}
}

static void work_then_idle(unsigned id)
{
	work(id);
	idle(id);
}

static void all_work(const struct hx_sim_config *c)
{
	open_machine(c, 0);
	HX_BAIL();
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	start_cpus(3, work_then_idle);
	HX_BAIL();
	work(0);
	join_cpus(3);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	hx_pagetable_load(&kernel, &user);
	close_machine();
}

HX_TEST(all_cpus_change_one_table_by_interrupts)
{
	all_work(&(struct hx_sim_config){.broadcast = HX_SIM_OFF});
}

HX_TEST(all_cpus_change_one_table_by_broadcasts)
{
	all_work(&(struct hx_sim_config){.broadcast = HX_SIM_ON});
}

HX_TEST(all_cpus_change_one_table_without_hardware_marks)
{
	all_work(&(struct hx_sim_config){.hardware_ad = HX_SIM_OFF});
}

/* ---- Loading while others unmap ---- */

static struct hx_pagetable other;

static void switch_tables(unsigned id)
{
	(void)id;
	for (; !stopped(); hx_hal_relax()) {
		(void)readable(UVA);
		hx_hal_relax();
		hx_pagetable_load(&other, &user);
		HX_CHECK(!readable(UVA)); /* nothing is there in the other one */
		hx_pagetable_load(&user, &other);
		(void)readable(UVA);
	}
}

/* To the kernel's table and back, and now and then elsewhere. */
static void be_lazy(unsigned id)
{
	struct hx_random r = {id};
	struct hx_pagetable *before = &user;
	for (; !stopped(); hx_hal_relax()) {
		struct hx_pagetable *const next[] = {&user, &user, &user, &other};
		for (unsigned i = 0; before != &kernel && i < 8; i++) {
			(void)readable(UVA + i * PAGE);
		}
		struct hx_pagetable *t = before != &kernel || hx_random_below(&r, 8) == 0
						 ? &kernel
						 : next[hx_random_below(&r, 4)];
		hx_pagetable_load(t, before);
		before = t;
	}
	hx_pagetable_load(&user, before);
}

/* Others come and go while this CPU maps and unmaps. */
static void unmap_beside(enum hx_sim_switch broadcast, uint8_t asid_bits, void (*run)(unsigned id))
{
	open_machine(&(struct hx_sim_config){.broadcast = broadcast, .asid_bits = asid_bits}, 0);
	HX_BAIL();
	struct hx_pagetable_config c = {.frames = &world_frames, .kernel = &kernel};
	HX_REQUIRE_STATUS(hx_pagetable_init(&other, &c), HX_OK);
	start_cpus(3, run);
	HX_BAIL();
	/* The first page stays in every other round, and with it the table. */
	for (unsigned i = 0; i < 400; i++) {
		uintptr_t va = UVA + (i & 1 ? PAGE : 0);
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), 8 * PAGE, URW), HX_OK);
		sched_yield();
		HX_CHECK_STATUS(
			hx_unmap(&user, hx_va(va), UVA + 8 * PAGE - va, audit_release, NULL),
			HX_OK);
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), PAGE, audit_release, NULL),
				HX_OK);
		HX_CHECK_EQUAL(hx_sim_audit(), 0);
	}
	join_cpus(3);
	HX_CHECK_STATUS(hx_pagetable_destroy(&other), HX_OK);
	close_machine();
}

HX_TEST(a_cpu_that_comes_or_goes_misses_no_shootdown)
{
	unmap_beside(HX_SIM_OFF, 0, switch_tables);
}

HX_TEST(a_cpu_that_is_lazy_misses_no_shootdown)
{
	unmap_beside(HX_SIM_OFF, 0, be_lazy);
	unmap_beside(HX_SIM_ON, 0, be_lazy);
	unmap_beside(HX_SIM_OFF, 4, be_lazy);
}

/* ---- Tables that end under lazy CPUs ---- */

static uint32_t lives; /* tables that there have been; odd: one is there; atomic */
static uint32_t left;  /* CPUs that have run it and say that they run the kernel's; atomic */

static void run_mortals(unsigned id)
{
	(void)id;
	hx_pagetable_load(&kernel, &user);
	for (uint32_t seen = 0; !stopped(); hx_hal_relax()) {
		uint32_t now = __atomic_load_n(&lives, __ATOMIC_ACQUIRE);
		if (now == seen || (now & 1) == 0) {
			continue;
		}
		seen = now;
		hx_pagetable_load(&other, &kernel);
		HX_CHECK(readable(UVA));
		hx_pagetable_load(&kernel, &other);
		__atomic_fetch_add(&left, 1, __ATOMIC_RELEASE);
	}
	hx_pagetable_load(&user, &kernel);
}

static void end_tables(enum hx_sim_switch broadcast)
{
	open_machine(&(struct hx_sim_config){.broadcast = broadcast}, 0);
	HX_BAIL();
	struct hx_pagetable_config c = {.frames = &world_frames, .kernel = &kernel};
	lives = 0;
	start_cpus(3, run_mortals);
	HX_BAIL();
	for (unsigned i = 0; i < 200; i++) {
		HX_CHECK_STATUS(hx_pagetable_init(&other, &c), HX_OK);
		HX_CHECK_STATUS(hx_map(&other, hx_va(UVA), hx_pa(DATA_PA), PAGE, URW), HX_OK);
		__atomic_store_n(&left, 0, __ATOMIC_RELAXED);
		__atomic_fetch_add(&lives, 1, __ATOMIC_RELEASE);
		for (unsigned turn = 0; __atomic_load_n(&left, __ATOMIC_ACQUIRE) < 3; turn++) {
			if (i & 1) { /* and invalidations on the way */
				HX_CHECK_STATUS(hx_update_flags(&other, hx_va(UVA), PAGE,
								turn & 1 ? URW : URO),
						HX_OK);
			}
			hx_hal_relax();
		}
		__atomic_fetch_add(&lives, 1, __ATOMIC_RELEASE);
		HX_CHECK_STATUS(hx_pagetable_destroy(&other), HX_OK);
		HX_CHECK_EQUAL(hx_sim_audit(), 0);
	}
	join_cpus(3);
	close_machine();
}

HX_TEST(tables_end_under_lazy_cpus)
{
	end_tables(HX_SIM_OFF);
	end_tables(HX_SIM_ON);
}

/*
 * No access falls between the load and the masks here, but on a real machine a
 * walk may, ahead of its time. So look at the order itself: while the root changes,
 * both the table that comes and the one that goes must have the CPU in their masks.
 * Where no root is loaded the CPU has not left the table whose root it has.
 */
void __real_hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep);
void __wrap_hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep);

static struct hx_pagetable *coming;  /* watched while not NULL */
static struct hx_pagetable *leaving; /* whose root is loaded */
static unsigned watched;

static bool runs_here(const struct hx_pagetable *t)
{
	return hx_cpus_has((struct hx_cpus){__atomic_load_n(&t->active.bits, __ATOMIC_SEQ_CST)},
			   hx_hal_cpu_id());
}

void __wrap_hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	if (coming) {
		HX_CHECK(root.v == coming->root.v && runs_here(coming) && runs_here(leaving));
		HX_CHECK(!coming->shared || runs_here(coming->shared));
		watched++;
	}
	__real_hx_hal_root_load(root, asid, keep);
	if (coming) {
		HX_CHECK(runs_here(coming) && runs_here(leaving));
	}
}

static void watched_load(struct hx_pagetable *to, struct hx_pagetable *from)
{
	unsigned loads = watched;
	coming = to;
	hx_pagetable_load(to, from);
	coming = NULL;
	HX_CHECK(runs_here(to) && (!to->shared || runs_here(to->shared)));
	if (watched > loads) {
		HX_CHECK_EQUAL(runs_here(leaving), leaving == to || leaving == to->shared);
		leaving = to;
	}
	HX_CHECK(runs_here(leaving)); /* lazily, if no root was loaded */
}

/* @return how many roots were loaded */
static unsigned load_in_turn(uint8_t asid_bits)
{
	open_machine(&(struct hx_sim_config){.asid_bits = asid_bits}, 0);
	static struct hx_pagetable second;
	struct hx_pagetable_config c = {.frames = &world_frames};
	HX_CHECK_STATUS(hx_pagetable_init(&second, &c), HX_OK);
	c.kernel = &kernel;
	HX_CHECK_STATUS(hx_pagetable_init(&other, &c), HX_OK);
	struct hx_pagetable *const path[] = {&kernel, &user,   &user,   &other, &user,   &kernel,
					     &user,   &kernel, &kernel, &user,  &kernel, &other,
					     &second, &kernel, &second, &user,  &kernel};
	watched = 0;
	leaving = path[0];
	for (unsigned i = 1; i < HX_ARRAY_LENGTH(path); i++) {
		watched_load(path[i], path[i - 1]);
	}
	leaving = NULL;
	HX_CHECK_STATUS(hx_pagetable_destroy(&other), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_destroy(&second), HX_OK);
	close_machine();
	return watched;
}

HX_TEST(masks_change_around_the_load)
{
	HX_CHECK_EQUAL(load_in_turn(4), 16);
	/* Four times lazy, once back. */
	HX_CHECK_EQUAL(load_in_turn(0), 11);
}

/* ---- What the machine writes is kept ---- */

static uint64_t written[WINDOW]; /* times that a page was written, by one CPU */

static void dirty_pages(unsigned id)
{
	(void)id;
	struct hx_random r = {7};
	for (; !stopped(); hx_hal_relax()) {
		uint64_t i = hx_random_below(&r, WINDOW);
		if (touch(UVA + (uintptr_t)(i * PAGE), HX_ACCESS_WRITE, NULL)) {
			__atomic_fetch_add(&written[i], 1, __ATOMIC_RELEASE);
		}
	}
}

struct dirty_report {
	uint64_t wrote[WINDOW];
};

static void check_dirty_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			     uint64_t flags)
{
	(void)pa;
	(void)bytes;
	const struct dirty_report *d = context;
	uint64_t i = (va.v - UVA) / PAGE;
	if (i < WINDOW && d->wrote[i] > 0) {
		HX_CHECK(flags & HX_PAGE_DIRTY);
	}
}

static void check_dirty(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, check_dirty_leaf, context);
}

static void keep_dirty(uint32_t features)
{
	open_machine(&(struct hx_sim_config){.broadcast = HX_SIM_OFF, .hardware_ad = HX_SIM_ON},
		     features);
	HX_BAIL();
	start_cpus(1, dirty_pages);
	HX_BAIL();
	static const uint64_t rights[] = {URW, URO, URW | HX_PAGE_NO_CACHE, URW};
	for (unsigned round = 0; round < 20; round++) {
		static struct dirty_report d;
		for (unsigned i = 0; i < WINDOW; i++) {
			__atomic_store_n(&written[i], 0, __ATOMIC_RELAXED);
		}
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), L1, URW), HX_OK);
		for (unsigned i = 0; i < 8; i++) { /* the first of them splits the leaf */
			HX_CHECK_STATUS(hx_update_flags(&user, hx_va(UVA + i * PAGE), 9 * PAGE,
							rights[(round + i) % 4]),
					HX_OK);
		}
		for (unsigned i = 0; i < WINDOW; i++) {
			d.wrote[i] = __atomic_load_n(&written[i], __ATOMIC_ACQUIRE);
		}
		/* In halves: by leaf and with the table. */
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), 40 * PAGE, check_dirty, &d), HX_OK);
		HX_CHECK_STATUS(
			hx_unmap(&user, hx_va(UVA + 40 * PAGE), L1 - 40 * PAGE, check_dirty, &d),
			HX_OK);
	}
	join_cpus(1);
	close_machine();
}

HX_TEST(dirty_pages_are_not_lost)
{
	keep_dirty(0);
}

HX_TEST(dirty_pages_are_not_lost_with_break_before_make)
{
	keep_dirty(HX_MMU_BREAK_BEFORE_MAKE);
}

/* ---- Translation without a lock ---- */

static uint64_t translated;
static uint64_t retirements; /* before the call in progress */

/* What hx_translate() looks at. */
static uint64_t sum_retirements(void)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		sum += __atomic_load_n(&user.stripes[i].retirements, __ATOMIC_SEQ_CST);
	}
	return sum;
}

/* It has changed before a table's frame is free. */
static void check_retired(struct hx_pfn frame)
{
	(void)frame;
	HX_CHECK(sum_retirements() > retirements);
}

static void translate(unsigned id)
{
	struct hx_random r = {id};
	hx_pagetable_load(&kernel, &user); /* nobody need ask it twice */
	while (!stopped()) {
		uintptr_t at = (uintptr_t)(hx_random_below(&r, 3 * 512) * PAGE);
		struct hx_translation t = hx_translate(&user, hx_va(UVA + at));
		/* Rubbish in a freed table would lead elsewhere. */
		bool right =
			t.status == HX_NOT_MAPPED || (t.status == HX_OK && t.pa.v == DATA_PA + at);
		HX_CHECK(right);
		__atomic_fetch_add(&translated, t.status == HX_OK, __ATOMIC_RELAXED);
		hx_hal_relax();
	}
	hx_pagetable_load(&user, &kernel);
}

HX_TEST(translate_follows_no_freed_table)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	world_on_free = check_retired;
	start_cpus(2, translate);
	HX_BAIL();
	for (unsigned i = 0;
	     i < 1000 || (__atomic_load_n(&translated, __ATOMIC_RELAXED) == 0 && i < 20000); i++) {
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), 2 * L1 + 3 * PAGE,
				       URW | (i % 2 ? HX_MAP_NO_HUGE : 0)),
				HX_OK);
		if (i % 3 == 0) {
			retirements = sum_retirements();
			HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + PAGE), L1, NULL, NULL), HX_OK);
		}
		retirements = sum_retirements();
		HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 3 * L1, NULL, NULL), HX_OK);
	}
	join_cpus(2);
	HX_CHECK(translated > 0);
	close_machine();
}

/* Whatever it meets on its way: a page has its frame, or none. */
static void translate_many(unsigned id)
{
	uint64_t leaves[64];
	(void)id;
	while (!stopped()) {
		HX_CHECK_STATUS(hx_translate_range(&user, hx_va(UVA), 64, leaves), HX_OK);
		for (unsigned i = 0; i < 64; i++) {
			HX_CHECK(leaves[i] == 0 || hx_leaf_pa(leaves[i]).v == DATA_PA + i * PAGE);
			__atomic_fetch_add(&translated, leaves[i] != 0, __ATOMIC_RELAXED);
		}
		hx_hal_relax();
	}
}

HX_TEST(a_range_is_translated_while_its_pages_come_and_go)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	/* One that stays keeps the table, and shows that the readers run. */
	HX_CHECK_STATUS(
		hx_map(&user, hx_va(UVA + 63 * PAGE), hx_pa(DATA_PA + 63 * PAGE), PAGE, URW),
		HX_OK);
	translated = 0;
	start_cpus(2, translate_many);
	HX_BAIL();
	for (unsigned i = 0;
	     i < 20000 || (__atomic_load_n(&translated, __ATOMIC_RELAXED) < 20000 && i < 2000000);
	     i++) {
		unsigned first = i % 60, count = i % 4 + 1;
		struct hx_va va = hx_va(UVA + first * PAGE);
		HX_CHECK_STATUS(hx_map(&user, va, hx_pa(DATA_PA + first * PAGE), count * PAGE, URW),
				HX_OK);
		HX_CHECK_STATUS(hx_unmap(&user, va, count * PAGE, NULL, NULL), HX_OK);
	}
	join_cpus(2);
	HX_CHECK(translated > 0);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + 63 * PAGE), PAGE, NULL, NULL), HX_OK);
	close_machine();
}

/* ---- Random calls under TLBs that have seen everything ---- */

static void read_all(unsigned id)
{
	struct hx_random r = {id + 100};
	while (!stopped()) {
		for (unsigned i = 0; i < 32; i++) {
			uintptr_t at = (uintptr_t)(hx_random_below(&r, 1024) * PAGE);
			(void)touch(UVA + at, i % 4 ? HX_ACCESS_READ : HX_ACCESS_WRITE, NULL);
		}
		hx_hal_relax();
	}
}

static void run_random(const struct hx_sim_config *c, uint32_t features, uint64_t seed)
{
	static const uint64_t rights[] = {URW, URO, URO | HX_PAGE_NO_CACHE, RO, HX_PAGE_USER_CODE};
	open_machine(c, features);
	HX_BAIL();
	start_cpus(3, read_all);
	HX_BAIL();
	struct hx_random r = {seed};
	for (unsigned i = 0; i < 200 && hx_test_failures() == 0; i++) {
		uint64_t first = hx_random_below(&r, 4) ? hx_random_below(&r, 1024)
							: 512 * hx_random_below(&r, 2);
		uint64_t count = hx_random_below(&r, 4) ? 1 + hx_random_below(&r, 20) : 512;
		count = count < 1024 - first ? count : 1024 - first;
		struct hx_va va = hx_va(UVA + (uintptr_t)(first * PAGE));
		uint64_t flags = rights[hx_random_below(&r, HX_ARRAY_LENGTH(rights))];
		hx_status s;
		switch (hx_random_below(&r, 3)) {
		case 0:
			s = hx_map(&user, va, hx_pa(DATA_PA + first * PAGE), count * PAGE, flags);
			HX_CHECK(s == HX_OK || s == HX_ALREADY_MAPPED);
			break;
		case 1:
			HX_CHECK_STATUS(hx_update_flags_sparse(&user, va, count * PAGE, flags),
					HX_OK);
			break;
		default:
			HX_CHECK_STATUS(
				hx_unmap_sparse(&user, va, count * PAGE, audit_release, NULL),
				HX_OK);
			break;
		}
		/* The call has returned: nobody may have more than the table gives. */
		HX_CHECK_EQUAL(hx_sim_audit(), 0);
		WORLD_SOUND(&user);
	}
	join_cpus(3);
	HX_CHECK(audits > 0);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(UVA), 2 * L1, audit_release, NULL), HX_OK);
	close_machine();
}

HX_TEST(random_calls_leave_nothing_stale)
{
	run_random(&(struct hx_sim_config){0}, 0, 11);
}

HX_TEST(random_calls_leave_nothing_stale_with_interrupts)
{
	run_random(&(struct hx_sim_config){.broadcast = HX_SIM_OFF}, 0, 12);
}

HX_TEST(random_calls_leave_nothing_stale_without_hardware_marks)
{
	run_random(&(struct hx_sim_config){.hardware_ad = HX_SIM_OFF}, 0, 13);
}

HX_TEST(random_calls_leave_nothing_stale_with_break_before_make)
{
	run_random(&(struct hx_sim_config){0}, HX_MMU_BREAK_BEFORE_MAKE, 14);
}

/* ---- Folding and harvesting what a CPU is using ---- */

enum { FOLDED_PAGES = 512 };
static unsigned step_writes; /* by CPU 1, between the steps of a call of CPU 0 */

/*
 * CPU 1 writes to a page that it has not written to: before the entry is stored and
 * after it, through the table that it remembers. Later writes would mark the new leaf.
 */
static void write_between(void)
{
	unsigned me = hx_hal_cpu_id();
	if (step_writes < 2) {
		hx_sim_play(1);
		HX_CHECK(touch(UVA + (uintptr_t)(step_writes++ * PAGE), HX_ACCESS_WRITE, NULL));
		hx_sim_play(me);
	}
}

static unsigned away; /* accesses of CPU 1 that found a leaf broken */

/* At each step CPU 1 tries once: what it does not get at once it is to try again. */
static void try_between(void)
{
	unsigned me = hx_hal_cpu_id();
	hx_sim_play(1);
	struct hx_sim_reference r = {
		.va = hx_va(UVA + (uintptr_t)(away % FOLDED_PAGES * PAGE)),
		.access = HX_ACCESS_READ,
		.bytes = 8,
	};
	struct hx_fault fault;
	if (!hx_sim_access(&r, &fault)) {
		away++;
		HX_CHECK(hx_pagetable_spurious(&fault));
	}
	hx_sim_play(me);
}

/* Whatever breaks a leaf to make it anew: who comes in between is told to try again. */
HX_TEST(an_access_to_a_broken_leaf_runs_again)
{
	open_machine(&(struct hx_sim_config){.hardware_ad = HX_SIM_ON}, HX_MMU_BREAK_BEFORE_MAKE);
	HX_BAIL();
	hx_sim_play(1);
	hx_hal_mmu_init();
	hx_pagetable_load(&kernel, NULL);
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	hx_sim_play(0);
	hx_pagetable_load(&user, &kernel);
	const struct {
		uint64_t map_flags, bytes, flags; /* of the call, on the last pages of L1 */
		bool fold;
	} calls[] = {
		{URW | HX_MAP_NO_HUGE, L1, URW | HX_PAGE_NO_CACHE, false}, /* pages */
		{URW, L1, URW | HX_PAGE_NO_CACHE, false},                  /* a huge leaf */
		{URW, PAGE, URO, false},                                   /* its split */
		{URW | HX_MAP_NO_HUGE, L1, 0, true},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(calls); i++) {
		struct hx_va va = hx_va(UVA + (uintptr_t)(L1 - calls[i].bytes));
		HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), L1, calls[i].map_flags),
				HX_OK);
		away = 0;
		hx_sim_on_step(try_between);
		HX_CHECK_STATUS(
			calls[i].fold ? hx_fold(&user, va, L1)
				      : hx_update_flags(&user, va, calls[i].bytes, calls[i].flags),
			HX_OK);
		hx_sim_on_step(NULL);
		HX_CHECK(away > 0);
		hx_sim_play(1);
		HX_CHECK(readable(UVA) && readable(UVA + L1 - PAGE));
		hx_sim_play(0);
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, audit_release, NULL), HX_OK);
		/* What is away for good is a fault. */
		hx_sim_play(1);
		HX_CHECK(!readable(UVA));
		hx_sim_play(0);
	}
	stale_uses = 0; /* until a call returned what was there before was as good */
	hx_sim_play(1);
	world_leave(&kernel, &user);
	hx_sim_play(0);
	hx_pagetable_load(&kernel, &user);
	close_machine();
}

static void fold_under_a_writer(uint32_t features)
{
	open_machine(&(struct hx_sim_config){.hardware_ad = HX_SIM_ON}, features);
	HX_BAIL();
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), L1, URW | HX_MAP_NO_HUGE), HX_OK);
	hx_sim_play(1);
	hx_hal_mmu_init();
	hx_pagetable_load(&kernel, NULL);
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	HX_CHECK(readable(UVA + FOLDED_PAGES * PAGE - PAGE)); /* the way down is cached */
	hx_sim_play(0);
	hx_pagetable_load(&user, &kernel);
	uint64_t before = sum_retirements();
	step_writes = 0;
	const bool broken = (hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE) != 0;
	away = 0;
	hx_sim_on_step(broken ? try_between : write_between);
	HX_CHECK_STATUS(hx_fold(&user, hx_va(UVA), L1), HX_OK);
	hx_sim_on_step(NULL);
	HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA)).level, 1);
	HX_CHECK(broken == (step_writes == 0) && broken == (away > 0));
	HX_CHECK(broken || (hx_translate(&user, hx_va(UVA)).flags & HX_PAGE_DIRTY));
	stale_uses = 0; /* until the call returned the old table was as good */
	hx_sim_play(1);
	for (unsigned i = 0; i < FOLDED_PAGES; i += 17) {
		HX_CHECK(readable(UVA + (uintptr_t)(i * PAGE)));
	}
	hx_sim_play(0);
	/* The table that is kept may be overwritten: no CPU walks it, no reader trusts it. */
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK(sum_retirements() > before);
	HX_CHECK_EQUAL(stale_uses, 0);
	hx_sim_play(1);
	world_leave(&kernel, &user);
	hx_sim_play(0);
	hx_pagetable_load(&kernel, &user);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, audit_release, NULL), HX_OK);
	close_machine();
}

HX_TEST(marks_that_appear_while_a_table_is_folded_stay)
{
	fold_under_a_writer(0);
}

HX_TEST(a_table_is_folded_by_break_before_make)
{
	fold_under_a_writer(HX_MMU_BREAK_BEFORE_MAKE);
}

HX_TEST(what_is_written_after_a_harvest_is_marked_again)
{
	open_machine(&(struct hx_sim_config){.hardware_ad = HX_SIM_ON}, 0);
	HX_BAIL();
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), 2 * PAGE, URW), HX_OK);
	for (unsigned round = 0; round < 3; round++) {
		uint64_t leaves[2];
		HX_CHECK(touch(UVA, HX_ACCESS_WRITE, NULL) && readable(UVA + PAGE));
		HX_CHECK_STATUS(
			hx_harvest(&user, hx_va(UVA), 2, HX_PAGE_ACCESSED | HX_PAGE_DIRTY, leaves),
			HX_OK);
		HX_CHECK(leaves[0] & HX_PAGE_DIRTY);
		HX_CHECK((leaves[1] & HX_PAGE_ACCESSED) && !(leaves[1] & HX_PAGE_DIRTY));
	}
	hx_pagetable_load(&kernel, &user);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), 2 * PAGE, audit_release, NULL), HX_OK);
	close_machine();
}

/* ---- Disjoint ranges ---- */

static uint64_t locks_before[HX_STRIPES];

static void note_locks(void)
{
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		locks_before[i] = user.stripes[i].locks;
	}
}

/* Which stripes one call has locked since, none of them more often than @most. */
static uint32_t locked_stripes(hx_status s, unsigned most)
{
	uint32_t mask = 0;
	HX_CHECK_STATUS(s, HX_OK);
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		uint64_t taken = user.stripes[i].locks - locks_before[i];
		HX_CHECK(taken <= most);
		mask |= taken != 0 ? UINT32_C(1) << i : 0;
	}
	return mask;
}

#define LOCKED(call) (note_locks(), locked_stripes(call, 1))
/* A single page that turns out not to be a usual one: let go, and locked again. */
#define LOCKED_AGAIN(call) (note_locks(), locked_stripes(call, 2))

HX_TEST(disjoint_ranges_take_different_locks)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	HX_CHECK(sizeof user.stripes[0] % 64 == 0 && (uintptr_t)&user.stripes[0] % 64 == 0);
	/* A neighbour in each table: none empties, none is missing. */
	const uintptr_t stripe = (uintptr_t)1 << world_shift(1);
	const uintptr_t base = UVA & ~(32 * stripe - 1);
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		HX_CHECK_STATUS(hx_map(&user, hx_va(base + i * stripe), hx_pa(DATA_PA), PAGE, URW),
				HX_OK);
	}
	uint32_t seen = 0;
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		struct hx_va va = hx_va(base + i * stripe + PAGE);
		uint32_t mask = LOCKED(hx_map(&user, va, hx_pa(DATA_PA), 2 * PAGE, URW));
		HX_CHECK(mask != 0 && (mask & (mask - 1)) == 0 && (mask & seen) == 0);
		seen |= mask;
		HX_CHECK_EQUAL(LOCKED(hx_update_flags(&user, va, 2 * PAGE, URO)), mask);
		HX_CHECK_EQUAL(LOCKED(hx_unmap(&user, va, 2 * PAGE, NULL, NULL)), mask);
	}
	HX_CHECK_EQUAL(seen, UINT32_MAX);
	/* Across a border both, and from 32 stripes on all of them. */
	struct hx_va border = hx_va(base + 31 * stripe - PAGE);
	uint32_t two = LOCKED_AGAIN(hx_map(&user, border, hx_pa(DATA_PA), PAGE, URW));
	two |= LOCKED_AGAIN(hx_unmap(&user, border, PAGE, NULL, NULL));
	HX_CHECK(two != 0 && (two & (two - 1)) == 0);
	HX_CHECK_EQUAL(LOCKED(hx_update_flags_sparse(&user, border, 2 * PAGE, URO)),
		       UINT32_C(3) << hx_ctz64(two));
	HX_CHECK_EQUAL(
		LOCKED(hx_update_flags_sparse(&user, hx_va(base + stripe), 32 * stripe, URO)),
		UINT32_MAX);
	/* A reader takes none. */
	uint64_t locks = hx_pagetable_counters(&user).locks;
	HX_CHECK_STATUS(hx_translate(&user, hx_va(base)).status, HX_OK);
	uint64_t leaf;
	HX_CHECK_STATUS(hx_translate_range(&user, hx_va(base), 1, &leaf), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).locks, locks);
	HX_CHECK_STATUS(hx_unmap_sparse(&user, hx_va(base), 64 * stripe, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	close_machine();
}

/* Each CPU in stripes of its own, all of them under one table of level 1 at first. */
static void work_beside(unsigned id)
{
	struct hx_random r = {id * 77};
	const uintptr_t stripe = (uintptr_t)1 << world_shift(1);
	for (unsigned i = 0; i < 400; i++) {
		uintptr_t va = UVA + (id + CPUS * (uintptr_t)hx_random_below(&r, 3)) * stripe;
		uint64_t count = 1 + hx_random_below(&r, 16);
		va += hx_random_below(&r, 2) ? stripe - (uintptr_t)(count * PAGE) : 0;
		HX_CHECK_STATUS(
			hx_map(&user, hx_va(va), hx_pa(DATA_PA + id * L1), count * PAGE, URW),
			HX_OK);
		HX_CHECK(touch(va, HX_ACCESS_WRITE, NULL));
		HX_CHECK_STATUS(hx_update_flags(&user, hx_va(va), count * PAGE, URO), HX_OK);
		HX_CHECK(!touch(va, HX_ACCESS_WRITE, NULL));
		uint64_t leaves[16];
		HX_CHECK_STATUS(hx_translate_range(&user, hx_va(va), count, leaves), HX_OK);
		for (uint64_t k = 0; k < count; k++) {
			HX_CHECK_EQUAL(hx_leaf_pa(leaves[k]).v, DATA_PA + id * L1 + k * PAGE);
		}
		HX_CHECK_STATUS(hx_unmap(&user, hx_va(va), count * PAGE, audit_release, NULL),
				HX_OK);
		HX_CHECK(!readable(va));
	}
}

HX_TEST(neighbours_change_one_table_at_the_same_time)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	start_cpus(3, work_beside);
	HX_BAIL();
	hx_pagetable_load(&user, &kernel);
	hx_hal_user_access(true);
	work_beside(0);
	join_cpus(3);
	hx_pagetable_load(&kernel, &user);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).tables, 1);
	HX_CHECK(audits > 0);
	close_machine();
}

/* ---- Identifiers ---- */

enum { SPACES = 12 };
static struct hx_pagetable spaces[SPACES];

static void open_spaces(unsigned n)
{
	struct hx_pagetable_config c = {.frames = &world_frames, .kernel = &kernel};
	for (unsigned i = 0; i < n; i++) {
		HX_REQUIRE_STATUS(hx_pagetable_init(&spaces[i], &c), HX_OK);
	}
}

static void close_spaces(unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		WORLD_SOUND(&spaces[i]);
		HX_CHECK_STATUS(hx_pagetable_destroy(&spaces[i]), HX_OK);
	}
}

HX_TEST(what_is_cached_is_kept_across_loads)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 8}, 0);
	HX_BAIL();
	open_spaces(2);
	HX_BAIL();
	struct hx_pagetable *a = &spaces[0], *b = &spaces[1];
	HX_CHECK_STATUS(hx_map(a, hx_va(UVA), hx_pa(DATA_PA), 2 * PAGE, URW), HX_OK);
	HX_CHECK_STATUS(hx_map(b, hx_va(UVA), hx_pa(DATA_PA + L1), 2 * PAGE, URW), HX_OK);
	hx_hal_user_access(true);
	hx_pagetable_load(a, &kernel);
	HX_CHECK(readable(UVA) && readable(UVA + PAGE));
	hx_pagetable_load(b, a);
	HX_CHECK(readable(UVA));
	/* Back again: nothing is walked. */
	uint64_t walks = hx_sim_counters().walks;
	hx_pagetable_load(a, b);
	HX_CHECK(readable(UVA) && readable(UVA + PAGE));
	hx_pagetable_load(&kernel, a);
	hx_pagetable_load(b, &kernel);
	HX_CHECK(readable(UVA));
	HX_CHECK_EQUAL(hx_sim_counters().walks, walks);
	/* What is taken away meanwhile asks nobody, and is forgotten at the load. */
	uint64_t flushes = hx_sim_counters().local_flushes;
	HX_CHECK_STATUS(hx_update_flags(a, hx_va(UVA), PAGE, URO), HX_OK);
	HX_CHECK_STATUS(hx_unmap(a, hx_va(UVA + PAGE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_sim_counters().local_flushes, flushes);
	HX_CHECK(hx_cpus_has(a->stale, hx_hal_cpu_id()) && !hx_cpus_has(b->stale, hx_hal_cpu_id()));
	hx_pagetable_load(a, b);
	HX_CHECK(!touch(UVA, HX_ACCESS_WRITE, NULL) && !readable(UVA + PAGE) && readable(UVA));
	HX_CHECK(hx_sim_counters().walks > walks);
	/* While it runs it is asked as ever. */
	flushes = hx_sim_counters().local_flushes;
	HX_CHECK_STATUS(hx_unmap(a, hx_va(UVA), PAGE, NULL, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_sim_counters().local_flushes, flushes + 1);
	HX_CHECK(!readable(UVA) && a->stale.bits == 0);
	/* A table that ends flushes nothing. */
	hx_pagetable_load(&kernel, a);
	flushes = hx_sim_counters().local_flushes;
	close_spaces(2);
	HX_CHECK_EQUAL(hx_sim_counters().local_flushes, flushes);
	HX_CHECK_EQUAL(stale_uses, 0);
	close_machine();
}

/* A huge leaf alone, beside another: neither pages nor tables have it flushed. */
HX_TEST(a_huge_leaf_is_forgotten)
{
	open_machine(&(struct hx_sim_config){0}, 0);
	HX_BAIL();
	HX_CHECK_STATUS(hx_map(&user, hx_va(UVA), hx_pa(DATA_PA), 2 * L1, URW), HX_OK);
	hx_hal_user_access(true);
	hx_pagetable_load(&user, &kernel);
	HX_CHECK_EQUAL(hx_translate(&user, hx_va(UVA)).level, 1);
	HX_CHECK(readable(UVA) && readable(UVA + L1));
	uint64_t flushes = hx_pagetable_counters(&user).local_flushes;
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA), L1, audit_release, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(&user).local_flushes, flushes + 1);
	HX_CHECK(!readable(UVA) && readable(UVA + L1));
	HX_CHECK_EQUAL(stale_uses, 0);
	hx_pagetable_load(&kernel, &user);
	HX_CHECK_STATUS(hx_unmap(&user, hx_va(UVA + L1), L1, NULL, NULL), HX_OK);
	close_machine();
}

/* One page by the straight way: one lock, and no flush that is not needed. */
HX_TEST(one_page_is_forgotten_by_whoever_has_it)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 8}, 0);
	HX_BAIL();
	open_spaces(2);
	HX_BAIL();
	struct hx_pagetable *a = &spaces[0], *b = &spaces[1];
	HX_CHECK_STATUS(hx_map(a, hx_va(UVA), hx_pa(DATA_PA), 8 * PAGE, URW), HX_OK);
	hx_hal_user_access(true);
	hx_pagetable_load(a, &kernel);
	for (unsigned i = 0; i < 8; i++) {
		HX_CHECK(readable(UVA + i * PAGE));
	}
	/* The first call walks down, the next ones need not. */
	HX_CHECK_STATUS(hx_update_flags(a, hx_va(UVA), PAGE, URO), HX_OK);
	uint64_t locks = hx_pagetable_counters(a).locks;
	uint64_t flushes = hx_pagetable_counters(a).local_flushes;
	HX_CHECK_STATUS(hx_unmap(a, hx_va(UVA + PAGE), PAGE, audit_release, NULL), HX_OK);
	HX_CHECK_STATUS(hx_unmap(a, hx_va(UVA + 2 * PAGE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK(!readable(UVA + PAGE) && !readable(UVA + 2 * PAGE));
	HX_CHECK_EQUAL(hx_pagetable_counters(a).local_flushes, flushes + 2);
	/* Away: the first one marks this CPU, the second finds it marked. */
	hx_pagetable_load(b, a);
	HX_CHECK_STATUS(hx_unmap(a, hx_va(UVA + 3 * PAGE), PAGE, NULL, NULL), HX_OK);
	HX_CHECK(hx_cpus_has(a->stale, hx_hal_cpu_id()));
	HX_CHECK_STATUS(hx_unmap(a, hx_va(UVA + 4 * PAGE), PAGE, audit_release, NULL), HX_OK);
	HX_CHECK_STATUS(hx_map(a, hx_va(UVA + 4 * PAGE), hx_pa(DATA_PA + L1), PAGE, URW), HX_OK);
	HX_CHECK_EQUAL(hx_pagetable_counters(a).local_flushes, flushes + 2);
	HX_CHECK_EQUAL(hx_pagetable_counters(a).locks, locks + 5);
	hx_pagetable_load(a, b);
	HX_CHECK(!readable(UVA + 3 * PAGE) && readable(UVA + 4 * PAGE) && readable(UVA + 5 * PAGE));
	HX_CHECK_EQUAL(hx_pagetable_counters(a).broadcasts, 0);
	hx_pagetable_load(&kernel, a);
	HX_CHECK_STATUS(hx_unmap_sparse(a, hx_va(UVA), 8 * PAGE, NULL, NULL), HX_OK);
	close_spaces(2);
	HX_CHECK_EQUAL(stale_uses, 0);
	close_machine();
}

/*
 * Few identifiers, more tables, and CPUs that one thread plays in turn: each table
 * maps one page to a frame of its own, which changes now and then. Whatever a CPU
 * reads must be what its table says.
 */
HX_TEST(generations_of_identifiers_begin_again)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 3}, 0);
	HX_BAIL();
	open_spaces(SPACES);
	HX_BAIL();
	struct hx_random r = {4711};
	struct hx_pagetable *runs[CPUS];
	uint64_t frame[SPACES] = {0}; /* that it maps; 0: none */
	unsigned loads = 0, reads = 0;
	for (unsigned cpu = CPUS; cpu-- > 0;) {
		hx_sim_play(cpu);
		hx_hal_mmu_init();
		hx_hal_user_access(true);
		if (cpu > 0) {
			hx_pagetable_load(&kernel, NULL);
		}
		runs[cpu] = &kernel;
	}
	for (unsigned i = 0; i < 20000 && stale_uses == 0; i++) {
		unsigned cpu = (unsigned)hx_random_below(&r, CPUS);
		unsigned which = (unsigned)hx_random_below(&r, SPACES);
		hx_sim_play(cpu);
		struct hx_pagetable *t = &spaces[which];
		switch (hx_random_below(&r, 8)) {
		case 0:
			if (frame[which] == 0) {
				frame[which] =
					DATA_PA + (which * 32 + hx_random_below(&r, 32)) * PAGE;
				HX_CHECK_STATUS(
					hx_map(t, hx_va(UVA), hx_pa(frame[which]), PAGE, URW),
					HX_OK);
			} else {
				frame[which] = 0;
				HX_CHECK_STATUS(hx_unmap(t, hx_va(UVA), PAGE, audit_release, NULL),
						HX_OK);
			}
			break;
		case 1:
		case 2:
		case 3:
			t = which % 4 == 0 ? &kernel : t;
			hx_pagetable_load(t, runs[cpu]);
			runs[cpu] = t;
			loads++;
			break;
		default:
			if (runs[cpu] != &kernel) {
				struct hx_sim_reference ref = {
					.va = hx_va(UVA), .access = HX_ACCESS_READ, .bytes = 8};
				struct hx_fault fault;
				bool read = false;
				while (!(read = hx_sim_access(&ref, &fault)) &&
				       hx_pagetable_spurious(&fault)) {
				}
				uint64_t expected = frame[runs[cpu] - spaces];
				HX_CHECK_EQUAL(read ? ref.pa.v : 0, expected);
				reads++;
			}
			break;
		}
		HX_BAIL();
	}
	HX_CHECK(loads > 1000 && reads > 1000);
	HX_CHECK_EQUAL(stale_uses, 0);
	for (unsigned cpu = CPUS; cpu-- > 0;) {
		hx_sim_play(cpu);
		if (cpu > 0) {
			world_leave(&kernel, runs[cpu]);
		} else {
			hx_pagetable_load(&kernel, runs[cpu]);
		}
	}
	close_spaces(SPACES);
	close_machine();
}

HX_SUITE(mapper_threads, HX_CASE(marks_that_appear_while_a_table_is_folded_stay),
	 HX_CASE(a_table_is_folded_by_break_before_make),
	 HX_CASE(an_access_to_a_broken_leaf_runs_again),
	 HX_CASE(what_is_written_after_a_harvest_is_marked_again),
	 HX_CASE(disjoint_ranges_take_different_locks),
	 HX_CASE(neighbours_change_one_table_at_the_same_time),
	 HX_CASE(what_is_cached_is_kept_across_loads), HX_CASE(a_huge_leaf_is_forgotten),
	 HX_CASE(one_page_is_forgotten_by_whoever_has_it),
	 HX_CASE(generations_of_identifiers_begin_again),
	 HX_CASE(cpus_are_asked_once_and_only_if_they_run_the_table),
	 HX_CASE(a_machine_that_broadcasts_sends_no_interrupts),
	 HX_CASE(no_cpu_keeps_what_is_unmapped), HX_CASE(the_kernel_half_changes_for_all),
	 HX_CASE(what_is_mapped_is_there_at_once), HX_CASE(another_kernel_half_forgets_the_first),
	 HX_CASE(who_waits_for_a_lock_answers_shootdowns),
	 HX_CASE(crossing_initiators_do_not_wait_for_each_other),
	 HX_CASE(all_cpus_change_one_table_by_interrupts),
	 HX_CASE(all_cpus_change_one_table_by_broadcasts),
	 HX_CASE(all_cpus_change_one_table_without_hardware_marks),
	 HX_CASE(a_cpu_that_comes_or_goes_misses_no_shootdown),
	 HX_CASE(a_cpu_that_is_lazy_misses_no_shootdown), HX_CASE(tables_end_under_lazy_cpus),
	 HX_CASE(masks_change_around_the_load), HX_CASE(dirty_pages_are_not_lost),
	 HX_CASE(dirty_pages_are_not_lost_with_break_before_make),
	 HX_CASE(translate_follows_no_freed_table),
	 HX_CASE(a_range_is_translated_while_its_pages_come_and_go),
	 HX_CASE(random_calls_leave_nothing_stale),
	 HX_CASE(random_calls_leave_nothing_stale_with_interrupts),
	 HX_CASE(random_calls_leave_nothing_stale_without_hardware_marks),
	 HX_CASE(random_calls_leave_nothing_stale_with_break_before_make));
