/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Two or three calls of the mapper in each other's way, in every order that comes
 * again: one thread plays all CPUs, and at the n-th step of CPU 0's call (a change of
 * an entry, or a TLB operation) the rivals make theirs on other CPUs; for every n.
 *
 * A rival works under other locks than the call, or it would wait for ever: it is let in
 * only where the locks that it takes are free.
 *
 *      root   [e]                                 PVA is the last page before a border of
 *              |                                  level 2, so a range across it has one
 *      2      [ P ][ Q ]                          leaf table in P and one in Q
 *               |    |
 *      1   [ ..|30|31]  [0|1| .. ]
 */
#include <sim.h>

#include "mapper_world.h"

#define RW (HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE)
#define URW (RW | HX_PAGE_USER)
#define URO (HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE | HX_PAGE_USER)

#define PAGE HX_KIB(4)
#define TABLES_PA HX_MIB(16)
#define DATA_PA HX_MIB(32)

enum { CPUS = 3, FRAMES = 2048, SPACES = 3, STEPS_MAX = 1000 };

/* A CPU in the middle of a call has interrupts off: it must not be waited for. */
static const struct hx_sim_config broadcasting = {.broadcast = HX_SIM_ON};

static struct hx_pagetable kernel, spaces[SPACES];
static struct hx_pagetable *const user = &spaces[0];
static unsigned stale_uses;

/* ---- The machine ---- */

static void count_stale(const struct hx_sim_stale *s)
{
	(void)s;
	stale_uses++;
}

static void audit_frame(struct hx_pfn frame)
{
	HX_CHECK(!hx_sim_audit_frame(frame));
}

static uintptr_t span(unsigned level)
{
	return (uintptr_t)1 << world_shift(level);
}

/* The page before a border of level 2. */
static uintptr_t pva(void)
{
	return 4 * span(2) - (uintptr_t)PAGE;
}

static void open_machine(const struct hx_sim_config *c)
{
	hx_sim_on_step(NULL);
	hx_sim_configure(c);
	hx_hal_mmu_init();
	stale_uses = 0;
	hx_sim_on_stale(count_stale);
	world_open(hx_pa_to_pfn(hx_pa(TABLES_PA)), FRAMES);
	HX_BAIL();
	struct hx_pagetable_config config = {.frames = &world_frames, .huge = true};
	HX_REQUIRE_STATUS(hx_pagetable_init(&kernel, &config), HX_OK);
	hx_pagetable_seal(&kernel);
	config.kernel = &kernel;
	for (unsigned i = 0; i < SPACES; i++) {
		HX_REQUIRE_STATUS(hx_pagetable_init(&spaces[i], &config), HX_OK);
	}
	for (unsigned cpu = CPUS; cpu-- > 0;) {
		hx_sim_play(cpu);
		hx_hal_mmu_init();
		hx_hal_user_access(true);
		hx_pagetable_load(&kernel, NULL);
	}
	world_on_free = audit_frame;
}

/* All that was mapped has been unmapped: no table is left, and no frame is lost. */
static void close_machine(void)
{
	hx_sim_on_step(NULL);
	hx_sim_play(0);
	uint64_t tables = hx_pagetable_counters(&kernel).tables;
	for (unsigned i = 0; i < SPACES; i++) {
		WORLD_SOUND(&spaces[i]);
		HX_CHECK_EQUAL(hx_pagetable_counters(&spaces[i]).tables, 1);
		tables += hx_pagetable_counters(&spaces[i]).tables;
	}
	HX_CHECK_EQUAL(world_free_count() + tables, FRAMES);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(stale_uses, 0);
}

static void load_everywhere(struct hx_pagetable *t, struct hx_pagetable *previous)
{
	for (unsigned cpu = CPUS; cpu-- > 0;) {
		hx_sim_play(cpu);
		hx_pagetable_load(t, previous);
	}
}

/* Does this CPU read @va, and from the frame at @pa? */
static bool reads(uintptr_t va, uint64_t pa)
{
	struct hx_sim_reference r = {.va = hx_va(va), .access = HX_ACCESS_READ, .bytes = 8};
	struct hx_fault fault;
	while (!hx_sim_access(&r, &fault)) {
		if (!hx_pagetable_spurious(&fault)) {
			return false;
		}
	}
	return r.pa.v == pa;
}

static hx_status map(uintptr_t va, uint64_t pa)
{
	return hx_map(user, hx_va(va), hx_pa(pa), PAGE, URW);
}

static hx_status unmap(uintptr_t va, uint64_t bytes)
{
	return hx_unmap(user, hx_va(va), bytes, NULL, NULL);
}

/* ---- Rivals ---- */

static bool is_locked(const struct hx_pagetable *t, unsigned stripe)
{
	const struct hx_lock *l = &t->stripes[stripe].lock;
	return __atomic_load_n(&l->next, __ATOMIC_RELAXED) !=
	       __atomic_load_n(&l->owner, __ATOMIC_RELAXED);
}

static unsigned stripe_of(uintptr_t va)
{
	return (unsigned)(va >> world_shift(1)) % HX_STRIPES;
}

static struct {
	unsigned at, step; /* let it in at the step of this number */
	bool in;           /* it has been */
	bool (*may)(void); /* can it go without waiting? */
	void (*act)(void); /* on CPU 1 */
} rival;

static void let_rival_in(void)
{
	if (++rival.step < rival.at || rival.in || !rival.may()) {
		return;
	}
	rival.in = true;
	hx_sim_play(1);
	rival.act();
	hx_sim_play(0);
}

/* From now on, at the @at-th step. */
static void expect(unsigned at, bool (*may)(void), void (*act)(void))
{
	rival.at = at;
	rival.step = 0;
	rival.in = false;
	rival.may = may;
	rival.act = act;
	hx_sim_on_step(let_rival_in);
}

/* ---- Tables that two calls empty together ---- */

static enum hx_pte_kind kind_at(uintptr_t va, unsigned level)
{
	return hx_hal_pte_kind(hx_hal_pte_load(world_entry_at(user, va, level)), level);
}

/* The rival's pages are the last but these, so it needs no other lock. */
static bool others_are_there(void)
{
	return kind_at(pva(), 1) != HX_PTE_EMPTY &&
	       kind_at(pva() + (uintptr_t)PAGE, 1) != HX_PTE_EMPTY;
}

static void unmap_neighbours(void)
{
	HX_CHECK_STATUS(unmap(pva() - span(1), PAGE), HX_OK);
	HX_CHECK_STATUS(unmap(pva() + PAGE + span(1), PAGE), HX_OK);
}

static void map_four(void)
{
	HX_CHECK_STATUS(hx_map(user, hx_va(pva()), hx_pa(DATA_PA), 2 * PAGE, URW), HX_OK);
	HX_CHECK_STATUS(map(pva() - span(1), DATA_PA + 2 * PAGE), HX_OK);
	HX_CHECK_STATUS(map(pva() + PAGE + span(1), DATA_PA + 3 * PAGE), HX_OK);
}

static void read_four(void)
{
	for (unsigned cpu = CPUS; cpu-- > 0;) {
		hx_sim_play(cpu);
		HX_CHECK(reads(pva(), DATA_PA) && reads(pva() + PAGE, DATA_PA + PAGE));
		HX_CHECK(reads(pva() - span(1), DATA_PA + 2 * PAGE));
		HX_CHECK(reads(pva() + PAGE + span(1), DATA_PA + 3 * PAGE));
	}
}

HX_TEST(tables_that_two_calls_empty_are_freed)
{
	unsigned orders = 0;
	for (unsigned at = 1; at < STEPS_MAX; at++) {
		open_machine(&broadcasting);
		HX_BAIL();
		load_everywhere(user, &kernel);
		map_four();
		read_four();
		hx_sim_play(0);
		expect(at, others_are_there, unmap_neighbours);
		HX_CHECK_STATUS(unmap(pva(), 2 * PAGE), HX_OK);
		hx_sim_on_step(NULL);
		if (!rival.in) {
			unmap_neighbours();
		}
		close_machine();
		HX_BAIL();
		orders += rival.in;
		if (!rival.in) {
			break;
		}
	}
	HX_CHECK(orders >= 4);
}

static bool always(void)
{
	return true;
}

static unsigned freed, freed_early;

/* Readers in all stripes walk the tables of level 1: they must have been told. */
static void see_table_freed(struct hx_pfn frame)
{
	audit_frame(frame);
	if (rival.in && is_locked(user, 2)) { /* both calls have taken their leaf tables */
		freed++;
		for (unsigned i = 0; i < HX_STRIPES; i++) {
			freed_early += user->stripes[i].retirements == 0;
		}
	}
}

HX_TEST(pruned_tables_are_retired_for_every_reader)
{
	open_machine(&broadcasting);
	HX_BAIL();
	load_everywhere(user, &kernel);
	map_four();
	hx_sim_play(0);
	world_on_free = see_table_freed;
	freed = freed_early = 0;
	expect(1, always, unmap_neighbours);
	HX_CHECK_STATUS(unmap(pva(), 2 * PAGE), HX_OK);
	hx_sim_on_step(NULL);
	HX_CHECK(freed >= 2);
	HX_CHECK_EQUAL(freed_early, 0);
	close_machine();
}

/* ---- A table that one call empties and another fills ---- */

static hx_status filled;

static bool third_may_go(void)
{
	return !is_locked(user, stripe_of(pva() - 2 * span(1)));
}

static void fill_again(void)
{
	filled = map(pva() - 2 * span(1), DATA_PA + 4 * PAGE);
}

static unsigned fill_at;

/* The second CPU goes first, at once; the third goes at its step. */
static void let_both_in(void)
{
	if (rival.step++ == 0) {
		hx_sim_play(1);
		HX_CHECK_STATUS(unmap(pva() - span(1), PAGE), HX_OK);
	} else if (rival.step >= fill_at && !rival.in && third_may_go()) {
		rival.in = true;
		hx_sim_play(2);
		fill_again();
	}
	hx_sim_play(0);
}

HX_TEST(a_table_is_filled_while_another_call_empties_it)
{
	unsigned orders = 0;
	for (fill_at = 2; fill_at < STEPS_MAX; fill_at++) {
		open_machine(&broadcasting);
		HX_BAIL();
		load_everywhere(user, &kernel);
		HX_CHECK_STATUS(map(pva(), DATA_PA), HX_OK);
		HX_CHECK_STATUS(map(pva() - span(1), DATA_PA + 2 * PAGE), HX_OK);
		expect(0, always, fill_again);
		hx_sim_on_step(let_both_in);
		HX_CHECK_STATUS(unmap(pva(), PAGE), HX_OK);
		hx_sim_on_step(NULL);
		if (!rival.in) {
			fill_again();
		}
		HX_CHECK_STATUS(filled, HX_OK);
		WORLD_SOUND(user);
		hx_sim_play(1);
		HX_CHECK(reads(pva() - 2 * span(1), DATA_PA + 4 * PAGE));
		hx_sim_play(0);
		HX_CHECK_STATUS(unmap(pva() - 2 * span(1), PAGE), HX_OK);
		close_machine();
		HX_BAIL();
		orders += rival.in;
		if (!rival.in) {
			break;
		}
	}
	HX_CHECK(orders >= 4);
}

/* ---- A table that two calls want to link ---- */

static bool neighbour_may_go(void)
{
	return !is_locked(user, stripe_of(pva() - span(1)));
}

static void map_neighbour(void)
{
	HX_CHECK_STATUS(map(pva() - span(1), DATA_PA + PAGE), HX_OK);
}

HX_TEST(two_calls_link_one_table)
{
	unsigned orders = 0;
	for (unsigned at = 1; at < STEPS_MAX; at++) {
		open_machine(&broadcasting);
		HX_BAIL();
		load_everywhere(user, &kernel);
		hx_sim_play(0);
		expect(at, neighbour_may_go, map_neighbour);
		HX_CHECK_STATUS(map(pva(), DATA_PA), HX_OK);
		hx_sim_on_step(NULL);
		if (!rival.in) {
			map_neighbour();
		}
		WORLD_SOUND(user);
		for (unsigned cpu = CPUS; cpu-- > 0;) {
			hx_sim_play(cpu);
			HX_CHECK(reads(pva(), DATA_PA) && reads(pva() - span(1), DATA_PA + PAGE));
		}
		HX_CHECK_STATUS(unmap(pva(), PAGE), HX_OK);
		HX_CHECK_STATUS(unmap(pva() - span(1), PAGE), HX_OK);
		close_machine();
		HX_BAIL();
		orders += rival.in;
		if (!rival.in) {
			break;
		}
	}
	HX_CHECK(orders >= 4);
}

/* ---- Which locks are held ---- */

struct watch {
	uintptr_t va;
	unsigned level;
	hx_pte seen;
	unsigned changes;
};

static struct watch watches[4];
static unsigned watch_count;

static void watch(uintptr_t va, unsigned level)
{
	watches[watch_count++] =
		(struct watch){va, level, hx_hal_pte_load(world_entry_at(user, va, level)), 0};
}

/* An entry below level 2 is its stripe's; one above, if there is anything in it, everybody's. */
static void check_locks(void)
{
	for (struct watch *w = watches; w < watches + watch_count; w++) {
		unsigned level;
		(void)world_entry(user, w->va, &level);
		if (level > w->level) {
			continue; /* a table above it has gone */
		}
		hx_pte e = hx_hal_pte_load(world_entry_at(user, w->va, w->level));
		if (e == w->seen) {
			continue;
		}
		w->changes++;
		HX_CHECK(is_locked(user, stripe_of(w->va)));
		for (unsigned i = 0; w->level > 1 && w->seen != 0 && i < HX_STRIPES; i++) {
			HX_CHECK(is_locked(user, i));
		}
		w->seen = e;
	}
}

HX_TEST(an_entry_changes_under_its_locks)
{
	open_machine(&(struct hx_sim_config){.late_stores = HX_SIM_OFF});
	HX_BAIL();
	/* A range across the last stripe, in two tables that stay. */
	map_four();
	const uintptr_t q = pva() + (uintptr_t)PAGE;
	watch_count = 0;
	watch(pva(), 0);
	watch(q, 0);
	hx_sim_on_step(check_locks);
	HX_CHECK_STATUS(hx_update_flags(user, hx_va(pva()), 2 * PAGE, URO), HX_OK);
	HX_CHECK(watches[0].changes == 1 && watches[1].changes == 1);
	hx_sim_on_step(NULL);
	unmap_neighbours();
	/* The last two: the tables of level 1 go, too. */
	watch_count = 0;
	watch(pva(), 2);
	watch(q, 2);
	watch(q, 1);
	hx_sim_on_step(check_locks);
	uint64_t flushes = hx_pagetable_counters(user).local_flushes;
	hx_pagetable_load(user, &kernel);
	HX_CHECK_STATUS(unmap(pva(), 2 * PAGE), HX_OK);
	HX_CHECK(watches[0].changes > 0 && watches[1].changes > 0);
	HX_CHECK_EQUAL(hx_pagetable_counters(user).local_flushes, flushes + 1);
	hx_sim_on_step(NULL);
	if (hx_hal_geometry.leaf_levels & 4) { /* a leaf of level 2 is split */
		HX_CHECK_STATUS(hx_map(user, hx_va(2 * span(2)), hx_pa(span(2)), span(2),
				       URW | HX_MAP_LEVEL_2),
				HX_OK);
		watch_count = 0;
		watch(2 * span(2) + span(1), 2);
		hx_sim_on_step(check_locks);
		HX_CHECK_STATUS(hx_update_flags(user, hx_va(2 * span(2) + span(1)), PAGE, URO),
				HX_OK);
		HX_CHECK(watches[0].changes > 0);
		hx_sim_on_step(NULL);
		HX_CHECK_STATUS(unmap(2 * span(2), span(2)), HX_OK);
	}
	close_machine();
}

/* ---- Marks of huge leaves ---- */

static void mark_huge(void)
{
	world_mark(user, 2 * span(2), HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
}

/* The machine marks a leaf between the look at it and its change. */
HX_TEST(a_huge_leaf_keeps_its_marks_through_an_update)
{
	if (!(hx_hal_geometry.features & HX_MMU_HARDWARE_AD)) {
		return;
	}
	for (unsigned at = 1; at < STEPS_MAX; at++) {
		open_machine(&(struct hx_sim_config){.break_before_make = HX_SIM_OFF});
		HX_BAIL();
		uintptr_t va = 2 * span(2);
		HX_CHECK_STATUS(
			hx_map(user, hx_va(va), hx_pa(span(1)), span(1), URW | HX_MAP_LEVEL_1),
			HX_OK);
		expect(at, always, mark_huge);
		HX_CHECK_STATUS(hx_update_flags(user, hx_va(va), span(1), URO), HX_OK);
		hx_sim_on_step(NULL);
		bool in = rival.in;
		uint64_t flags = hx_translate(user, hx_va(va)).flags;
		HX_CHECK(!in || (flags & HX_PAGE_DIRTY) != 0);
		HX_CHECK_STATUS(unmap(va, span(1)), HX_OK);
		close_machine();
		HX_BAIL();
		if (!in) {
			HX_CHECK(at > 1);
			break;
		}
	}
}

/* ---- Loads ---- */

static void (*before_ipi)(void);

void __real_hx_hal_ipi_tlb(struct hx_cpus cpus);
void __wrap_hx_hal_ipi_tlb(struct hx_cpus cpus);

void __wrap_hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	void (*act)(void) = before_ipi;
	before_ipi = NULL;
	if (act) {
		act();
	}
	__real_hx_hal_ipi_tlb(cpus);
}

static void leave(void)
{
	hx_sim_play(1);
	hx_pagetable_load(&spaces[1], user);
	hx_sim_play(0);
}

/* It is found in `active`, and has left when the interrupt comes. */
HX_TEST(a_cpu_that_has_left_when_it_is_asked_does_not_keep)
{
	open_machine(&(struct hx_sim_config){.broadcast = HX_SIM_OFF, .asid_bits = 4});
	HX_BAIL();
	HX_CHECK_STATUS(map(pva(), DATA_PA), HX_OK);
	HX_CHECK_STATUS(map(pva() - PAGE, DATA_PA + PAGE), HX_OK);
	hx_sim_play(1);
	hx_pagetable_load(user, &kernel);
	HX_CHECK(reads(pva(), DATA_PA) && reads(pva() - PAGE, DATA_PA + PAGE));
	hx_sim_play(0);
	before_ipi = leave;
	world_on_free = NULL;
	HX_CHECK_STATUS(unmap(pva(), PAGE), HX_OK);
	HX_CHECK(!before_ipi);
	/* It was not to touch what it has of another table than the one that it runs. */
	HX_CHECK(hx_cpus_has(user->stale, 1));
	HX_CHECK_STATUS(map(pva(), DATA_PA + 2 * PAGE), HX_OK);
	hx_sim_play(1);
	hx_pagetable_load(user, &spaces[1]);
	HX_CHECK(reads(pva(), DATA_PA + 2 * PAGE) && reads(pva() - PAGE, DATA_PA + PAGE));
	HX_CHECK(!hx_cpus_has(user->stale, 1));
	hx_sim_play(0);
	HX_CHECK_STATUS(unmap(pva() - PAGE, 2 * PAGE), HX_OK);
	close_machine();
}

static bool beside; /* the second harvest was made */

/* Once the first one has cleared the leaf, and before it has flushed it. */
static void harvest_beside(void)
{
	const uintptr_t base = 4 * span(2), va = base + DATA_PA;
	if (beside || (hx_translate(user, hx_va(base)).flags & HX_PAGE_DIRTY) != 0) {
		return;
	}
	beside = true;
	uint64_t leaf = 0;
	hx_sim_play(1);
	HX_CHECK_STATUS(hx_harvest(user, hx_va(va), 1, HX_PAGE_DIRTY, &leaf), HX_OK);
	HX_CHECK(leaf != 0 && !(leaf & HX_PAGE_DIRTY));
	hx_sim_play(2);
	struct hx_sim_reference r = {.va = hx_va(va), .access = HX_ACCESS_WRITE, .bytes = 8};
	struct hx_fault fault;
	HX_CHECK(hx_sim_access(&r, &fault));
	HX_CHECK((hx_translate(user, hx_va(va)).flags & HX_PAGE_DIRTY) != 0);
	hx_sim_play(0);
}

/* Two stripes of one leaf: who finds no mark may rely on it as much as who cleared it. */
HX_TEST(what_another_harvest_cleared_is_marked_again)
{
	open_machine(&(struct hx_sim_config){.broadcast = HX_SIM_ON, .hardware_ad = HX_SIM_ON});
	HX_BAIL();
	const struct hx_va base = hx_va(4 * span(2));
	HX_CHECK_STATUS(hx_map(user, base, hx_pa(0), span(2), URW | HX_MAP_LEVEL_2), HX_OK);
	hx_sim_play(2);
	hx_pagetable_load(user, &kernel);
	struct hx_sim_reference r = {
		.va = hx_va(base.v + DATA_PA), .access = HX_ACCESS_WRITE, .bytes = 8};
	struct hx_fault fault;
	HX_CHECK(hx_sim_access(&r, &fault));
	hx_sim_play(0);
	uint64_t leaf = 0;
	beside = false;
	hx_sim_on_step(harvest_beside);
	HX_CHECK_STATUS(hx_harvest(user, base, 1, HX_PAGE_DIRTY, &leaf), HX_OK);
	hx_sim_on_step(NULL);
	HX_CHECK(beside && (leaf & HX_PAGE_DIRTY));
	HX_CHECK_STATUS(hx_unmap(user, base, span(2), NULL, NULL), HX_OK);
	close_machine();
}

static bool answered;

static void fault_on_what_is_broken(void)
{
	struct hx_sim_reference r = {
		.va = hx_va(4 * span(2)), .access = HX_ACCESS_READ, .bytes = 8};
	struct hx_fault fault;
	hx_sim_play(1);
	uint64_t flushes = hx_sim_counters().local_flushes;
	HX_CHECK(!hx_sim_access(&r, &fault) && hx_pagetable_spurious(&fault));
	answered = hx_sim_counters().local_flushes == flushes + 1;
	hx_sim_play(0);
}

/*
 * Who makes a leaf anew waits for every CPU first, one of which may stand in the fault
 * that this has caused, where no interrupt reaches it.
 */
HX_TEST(a_cpu_that_faults_on_a_broken_leaf_answers)
{
	open_machine(&(struct hx_sim_config){
		.broadcast = HX_SIM_OFF, .break_before_make = HX_SIM_ON, .prefetch = HX_SIM_OFF});
	HX_BAIL();
	HX_CHECK_STATUS(hx_map(user, hx_va(4 * span(2)), hx_pa(0), span(1), URW), HX_OK);
	hx_sim_play(1);
	hx_pagetable_load(user, &kernel);
	hx_sim_play(0);
	answered = false;
	before_ipi = fault_on_what_is_broken;
	HX_CHECK_STATUS(unmap(4 * span(2) + PAGE, PAGE), HX_OK);
	HX_CHECK(!before_ipi && answered);
	hx_sim_play(1);
	HX_CHECK(reads(4 * span(2), 0) && !reads(4 * span(2) + PAGE, PAGE));
	hx_sim_play(0);
	HX_CHECK_STATUS(hx_unmap_sparse(user, hx_va(4 * span(2)), span(1), NULL, NULL), HX_OK);
	close_machine();
}

/* One identifier for users, and two CPUs that need one: who has none keeps nothing. */
HX_TEST(tables_without_an_identifier_keep_nothing)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 1});
	HX_BAIL();
	for (unsigned i = 0; i < SPACES; i++) {
		HX_CHECK_STATUS(
			hx_map(&spaces[i], hx_va(pva()), hx_pa(DATA_PA + i * PAGE), PAGE, URW),
			HX_OK);
	}
	hx_pagetable_load(user, &kernel);
	hx_sim_play(1);
	struct hx_pagetable *before = &kernel;
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 1; i < SPACES; i++) {
			hx_pagetable_load(&spaces[i], before);
			before = &spaces[i];
			HX_CHECK(reads(pva(), DATA_PA + i * PAGE));
		}
		if (round > 0) {
			hx_pagetable_load(&kernel, before);
			before = &kernel;
			HX_CHECK(!reads(pva(), DATA_PA + 2 * PAGE));
		}
	}
	hx_sim_play(0);
	HX_CHECK(reads(pva(), DATA_PA));
	for (unsigned i = 0; i < SPACES; i++) {
		HX_CHECK_STATUS(hx_unmap(&spaces[i], hx_va(pva()), PAGE, NULL, NULL), HX_OK);
	}
	close_machine();
}

/* What a CPU has of a table without an identifier goes before the kernel's table keeps its own. */
HX_TEST(entries_without_an_identifier_are_not_kept_for_the_kernel)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 1});
	HX_BAIL();
	for (unsigned i = 0; i < 2; i++) {
		HX_CHECK_STATUS(
			hx_map(&spaces[i], hx_va(pva()), hx_pa(DATA_PA + i * PAGE), PAGE, URW),
			HX_OK);
	}
	hx_pagetable_load(user, &kernel);
	hx_sim_play(1);
	hx_pagetable_load(&spaces[1], &kernel);
	HX_CHECK_EQUAL((uint16_t)spaces[1].asid_token, HX_ASID_KERNEL);
	HX_CHECK(reads(pva(), DATA_PA + PAGE));
	hx_pagetable_load(user, &spaces[1]);
	HX_CHECK((uint16_t)user->asid_token != HX_ASID_KERNEL);
	hx_pagetable_load(&kernel, user);
	HX_CHECK(!reads(pva(), DATA_PA + PAGE));
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(DATA_PA + PAGE))));
	hx_sim_play(0);
	for (unsigned i = 0; i < 2; i++) {
		HX_CHECK_STATUS(hx_unmap(&spaces[i], hx_va(pva()), PAGE, NULL, NULL), HX_OK);
	}
	close_machine();
}

/* Three identifiers for users and four CPUs: a table that runs without one gets none elsewhere. */
HX_TEST(a_table_runs_under_one_identifier_everywhere)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 2, .broadcast = HX_SIM_ON});
	HX_BAIL();
	static struct hx_pagetable more[2];
	struct hx_pagetable *t[5] = {&spaces[0], &spaces[1], &spaces[2], &more[0], &more[1]};
	for (unsigned i = 0; i < 2; i++) {
		HX_REQUIRE_STATUS(hx_pagetable_init(&more[i],
						    &(struct hx_pagetable_config){
							    .frames = &world_frames,
							    .kernel = &kernel,
						    }),
				  HX_OK);
	}
	struct hx_pagetable *last = t[3];
	HX_CHECK_STATUS(hx_map(last, hx_va(pva()), hx_pa(DATA_PA), PAGE, URW), HX_OK);
	for (unsigned cpu = 0; cpu < 4; cpu++) {
		hx_sim_play(cpu);
		if (cpu == 3) {
			hx_hal_mmu_init();
			hx_hal_user_access(true);
			hx_pagetable_load(&kernel, NULL);
		}
		hx_pagetable_load(t[cpu], &kernel);
	}
	HX_CHECK_EQUAL((uint16_t)last->asid_token, HX_ASID_KERNEL); /* CPU 3 has got none */
	HX_CHECK(reads(pva(), DATA_PA));
	hx_sim_play(0); /* two CPUs run one table: there is an identifier to be had again */
	hx_pagetable_load(t[1], t[0]);
	hx_sim_play(1);
	hx_pagetable_load(t[4], t[1]);
	hx_pagetable_load(t[1], t[4]);
	hx_pagetable_load(last, t[1]);
	HX_CHECK(reads(pva(), DATA_PA));
	HX_CHECK_STATUS(hx_unmap(last, hx_va(pva()), PAGE, NULL, NULL), HX_OK);
	HX_CHECK(!reads(pva(), DATA_PA));
	hx_sim_play(3);
	HX_CHECK(!reads(pva(), DATA_PA));
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(DATA_PA))));
	/* When nobody runs it any more it gets one. */
	hx_pagetable_load(&kernel, last);
	hx_sim_play(1);
	hx_pagetable_load(&kernel, last);
	for (unsigned i = 0; i < 2; i++) {
		HX_CHECK_STATUS(hx_pagetable_destroy(&more[i]), HX_OK);
	}
	close_machine();
}

/*
 * A CPU that runs one table while generations begin and end: it loads nothing, so that its
 * token is taken away only once, and keeps its identifier all the same.
 */
HX_TEST(a_cpu_that_stays_keeps_its_identifier)
{
	open_machine(&(struct hx_sim_config){.asid_bits = 2});
	HX_BAIL();
	static struct hx_pagetable more[2];
	struct hx_pagetable *t[] = {&spaces[1], &spaces[2], &more[0], &more[1]};
	for (unsigned i = 0; i < 2; i++) {
		HX_REQUIRE_STATUS(hx_pagetable_init(&more[i],
						    &(struct hx_pagetable_config){
							    .frames = &world_frames,
							    .kernel = &kernel,
						    }),
				  HX_OK);
	}
	HX_CHECK_STATUS(hx_map(user, hx_va(pva()), hx_pa(DATA_PA), PAGE, URW), HX_OK);
	hx_sim_play(1);
	hx_pagetable_load(user, &kernel);
	HX_CHECK(reads(pva(), DATA_PA));
	const uint64_t token = user->asid_token;
	hx_sim_play(0);
	struct hx_pagetable *before = &kernel;
	uint64_t last = token, generations = 0;
	for (unsigned i = 0; i < 20; i++) {
		struct hx_pagetable *next = t[i % HX_ARRAY_LENGTH(t)];
		hx_pagetable_load(next, before);
		HX_CHECK((uint16_t)next->asid_token != (uint16_t)token);
		generations += next->asid_token >> 16 != last >> 16;
		last = next->asid_token;
		before = next;
	}
	HX_CHECK(generations >= 3);
	hx_pagetable_load(user, before);
	HX_CHECK_EQUAL((uint16_t)user->asid_token, (uint16_t)token);
	HX_CHECK_STATUS(hx_unmap(user, hx_va(pva()), PAGE, NULL, NULL), HX_OK);
	hx_sim_play(1);
	HX_CHECK(!reads(pva(), DATA_PA));
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(DATA_PA))));
	hx_pagetable_load(&kernel, user);
	hx_sim_play(0);
	hx_pagetable_load(&kernel, user);
	for (unsigned i = 0; i < 2; i++) {
		HX_CHECK_STATUS(hx_pagetable_destroy(&more[i]), HX_OK);
	}
	close_machine();
}

/* ---- Lazy CPUs, which change while they are asked ---- */

/* What CPU 1 does; it runs user's table, or is lazy on it. */
static void stay(void)
{
}

static void go_lazy(void)
{
	hx_pagetable_load(&kernel, user);
}

static void come_back(void)
{
	hx_pagetable_load(user, &kernel);
}

static void go_elsewhere(void)
{
	hx_pagetable_load(&spaces[1], &kernel);
}

static void go_for_good(void)
{
	hx_pagetable_load(&kernel, &kernel);
}

/* ... or what CPU 2 does, which asks it as well. */
static void ask_it_too(void)
{
	hx_sim_play(2);
	HX_CHECK_STATUS(hx_update_flags(user, hx_va(pva() + PAGE), PAGE, URO), HX_OK);
}

static void (*cpu_1_acts)(void);

static void act_on_cpu_1(void)
{
	hx_sim_play(1);
	cpu_1_acts();
	hx_sim_play(0);
}

/* CPU 1 has cached pages of two leaf tables; one is left in each. */
static void open_with_lazy(const struct hx_sim_config *c, bool lazy)
{
	open_machine(c);
	HX_BAIL();
	HX_CHECK_STATUS(hx_map(user, hx_va(pva()), hx_pa(DATA_PA), 2 * PAGE, URW), HX_OK);
	HX_CHECK_STATUS(map(pva() - PAGE, DATA_PA + 2 * PAGE), HX_OK);
	hx_sim_play(1);
	hx_pagetable_load(user, &kernel);
	HX_CHECK(reads(pva(), DATA_PA) && reads(pva() + PAGE, DATA_PA + PAGE));
	if (lazy) {
		hx_pagetable_load(&kernel, user);
	}
	hx_sim_play(0);
}

/* Whatever CPU 1 runs now: back in user's table, the first page is not there. */
static void check_forgotten(struct hx_pagetable *runs)
{
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(DATA_PA))));
	hx_sim_play(1);
	hx_pagetable_load(user, runs);
	HX_CHECK(!reads(pva(), DATA_PA));
	hx_sim_play(0);
	HX_CHECK_STATUS(hx_unmap_sparse(user, hx_va(pva() - PAGE), 3 * PAGE, NULL, NULL), HX_OK);
	close_machine();
}

/* Between the look at CPU 1 and the interrupt. */
HX_TEST(a_lazy_cpu_answers_by_what_it_has_become)
{
	const struct {
		void (*act)(void);
		bool lazy; /* when it is found in `active` */
		struct hx_pagetable *runs;
		bool active;             /* after it has answered */
		unsigned roots, flushes; /* by then, with its own loads */
	} cases[] = {
		{stay, true, &kernel, false, 1, 0},
		{come_back, true, user, true, 0, 1},
		{go_elsewhere, true, &spaces[1], false, 1, 1},
		{go_for_good, true, &kernel, false, 1, 1},
		{ask_it_too, true, &kernel, false, 1, 1},
		{stay, false, user, true, 0, 1},
		{go_lazy, false, &kernel, false, 1, 0},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		open_with_lazy(&(struct hx_sim_config){.broadcast = HX_SIM_OFF}, cases[i].lazy);
		HX_BAIL();
		cpu_1_acts = cases[i].act;
		before_ipi = act_on_cpu_1;
		struct hx_sim_counters before = hx_sim_counters();
		HX_CHECK_STATUS(unmap(pva(), PAGE), HX_OK);
		HX_CHECK(!before_ipi);
		struct hx_sim_counters now = hx_sim_counters();
		HX_CHECK_EQUAL(now.root_loads - before.root_loads, cases[i].roots);
		HX_CHECK_EQUAL(now.local_flushes - before.local_flushes, cases[i].flushes);
		HX_CHECK_EQUAL(hx_cpus_has(user->active, 1), cases[i].active);
		check_forgotten(cases[i].runs);
		HX_BAIL();
	}
}

/* At any step of the call, and on a machine that broadcasts. */
HX_TEST(a_cpu_becomes_lazy_while_pages_are_unmapped)
{
	unsigned orders = 0;
	for (unsigned at = 1; at < STEPS_MAX; at++) {
		const bool back = at & 1; /* it comes back, or it becomes lazy */
		open_with_lazy(&broadcasting, back);
		HX_BAIL();
		expect((at + 1) / 2, always, back ? come_back : go_lazy);
		HX_CHECK_STATUS(unmap(pva(), PAGE), HX_OK);
		hx_sim_on_step(NULL);
		orders += rival.in;
		bool moved = rival.in;
		check_forgotten(moved == back ? user : &kernel);
		HX_BAIL();
		if (!moved) {
			break;
		}
	}
	HX_CHECK(orders >= 4);
}

/* CPU 2 is lazy and made to leave, meanwhile CPU 1 becomes so: the table has been in use. */
HX_TEST(a_cpu_becomes_lazy_while_its_table_ends)
{
	open_with_lazy(&(struct hx_sim_config){.broadcast = HX_SIM_OFF}, false);
	HX_BAIL();
	HX_CHECK_STATUS(unmap(pva() - PAGE, 3 * PAGE), HX_OK);
	hx_sim_play(2);
	hx_pagetable_load(user, &kernel);
	hx_pagetable_load(&kernel, user);
	hx_sim_play(0);
	cpu_1_acts = go_lazy;
	before_ipi = act_on_cpu_1;
	HX_CHECK_STATUS(hx_pagetable_destroy(user), HX_BUSY);
	HX_CHECK(!before_ipi && hx_cpus_has(user->active, 1) && !hx_cpus_has(user->active, 2));
	uint64_t free = world_free_count();
	HX_CHECK_STATUS(hx_pagetable_destroy(user), HX_OK);
	HX_CHECK_EQUAL(world_free_count(), free + 1);
	HX_REQUIRE_STATUS(hx_pagetable_init(user,
					    &(struct hx_pagetable_config){
						    .frames = &world_frames,
						    .kernel = &kernel,
					    }),
			  HX_OK);
	close_machine();
}

HX_SUITE(mapper_races, HX_CASE(a_lazy_cpu_answers_by_what_it_has_become),
	 HX_CASE(a_cpu_becomes_lazy_while_pages_are_unmapped),
	 HX_CASE(a_cpu_becomes_lazy_while_its_table_ends),
	 HX_CASE(tables_that_two_calls_empty_are_freed),
	 HX_CASE(pruned_tables_are_retired_for_every_reader),
	 HX_CASE(a_table_is_filled_while_another_call_empties_it),
	 HX_CASE(two_calls_link_one_table), HX_CASE(an_entry_changes_under_its_locks),
	 HX_CASE(a_huge_leaf_keeps_its_marks_through_an_update),
	 HX_CASE(a_cpu_that_has_left_when_it_is_asked_does_not_keep),
	 HX_CASE(what_another_harvest_cleared_is_marked_again),
	 HX_CASE(a_cpu_that_faults_on_a_broken_leaf_answers),
	 HX_CASE(tables_without_an_identifier_keep_nothing),
	 HX_CASE(entries_without_an_identifier_are_not_kept_for_the_kernel),
	 HX_CASE(a_table_runs_under_one_identifier_everywhere),
	 HX_CASE(a_cpu_that_stays_keeps_its_identifier));
