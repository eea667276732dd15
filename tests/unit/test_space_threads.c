/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * One address space on four CPUs at once. Hosted only: the CPUs are threads of
 * the simulated machine, and every access goes through its TLBs, which forget
 * nothing that they were not told to forget.
 */
#include <sim.h>

#include <hx/platform.h>

#include "hx_test.h"
#include "machine.h"

enum { CPUS = 4 };

#define PAGE HX_FRAME_BYTES
#define RW (HX_PROT_READ | HX_PROT_WRITE)
#define ANON (HX_MAP_ANONYMOUS | HX_MAP_PRIVATE)
#define BASE ((uintptr_t)HX_MIB(256))

static struct hx_space space;
static const struct hx_test_machine *machine;
static uint64_t anonymous, tables; /* frames of these kinds before the case */

/*
 * While a change is under way another CPU may still use what it had cached; the
 * cases below judge by what is there once the call has returned.
 */
static void ignore_stale_use(const struct hx_sim_stale *s)
{
	(void)s;
}

static void space_begin(struct hx_frames *frames)
{
	machine = hx_test_machine();
	HX_REQUIRE(machine->cpus >= CPUS);
	hx_sim_on_stale(ignore_stale_use);
	anonymous = hx_framedb_count(machine->db, HX_TAG_ANONYMOUS);
	tables = hx_framedb_count(machine->db, HX_TAG_TABLE);
	const struct hx_space_config c = {.frames = frames ? frames : machine->frames,
					  .db = machine->db,
					  .heap = machine->heap,
					  .kernel = machine->kernel_table};
	HX_REQUIRE_STATUS(hx_space_init(&space, &c), HX_OK);
}

static void space_end(void)
{
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
	HX_CHECK_STATUS(hx_space_destroy(&space), HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(machine->db, HX_TAG_ANONYMOUS), anonymous);
	HX_CHECK_EQUAL(hx_framedb_count(machine->db, HX_TAG_TABLE), tables);
	HX_CHECK_STATUS(hx_frames_validate(machine->frames), HX_OK);
	HX_CHECK_STATUS(hx_heap_validate(machine->heap), HX_OK);
}

static uintptr_t page_at(uint64_t i)
{
	return BASE + (uintptr_t)(i * PAGE);
}

static struct hx_va_result map(uintptr_t at, uint64_t pages, unsigned prot, unsigned flags)
{
	return hx_mmap(&space, HX_TOKEN_NONE, hx_va(at), pages * PAGE, prot, flags | ANON, NULL, 0);
}

static hx_status unmap(uintptr_t at, uint64_t pages)
{
	return hx_munmap(&space, HX_TOKEN_NONE, hx_va(at), pages * PAGE);
}

static hx_status protect(uintptr_t at, uint64_t pages, unsigned prot)
{
	return hx_mprotect(&space, HX_TOKEN_NONE, hx_va(at), pages * PAGE, prot);
}

/* Accesses of user mode. @return false when they were refused */
static bool store(uintptr_t va, uint64_t value)
{
	struct hx_probe p = {
		.va = hx_va(va), .access = HX_ACCESS_WRITE, .user = true, .value = value};
	hx_platform_probe(&p);
	return !p.faulted;
}

static bool load(uintptr_t va, uint64_t *value)
{
	struct hx_probe p = {.va = hx_va(va), .access = HX_ACCESS_READ, .user = true};
	hx_platform_probe(&p);
	*value = p.value;
	return !p.faulted;
}

/* ---- All CPUs at once, each in the space ---- */

static void (*work)(unsigned cpu);

static void run_in_space(void *argument)
{
	hx_space_load(&space, machine->kernel_table);
	work(*(unsigned *)argument);
	hx_space_load(NULL, machine->kernel_table);
}

static void on_all_cpus(void (*run)(unsigned cpu))
{
	static unsigned numbers[CPUS] = {0, 1, 2, 3};
	work = run;
	for (unsigned i = 1; i < CPUS; i++) {
		HX_CHECK(hx_platform_run_on(i, run_in_space, &numbers[i]));
	}
	run_in_space(&numbers[0]);
	for (unsigned i = 1; i < CPUS; i++) {
		hx_platform_join(i);
	}
}

/* ---- The same pages, all at once ---- */

enum { SHARED_PAGES = 256 };

static void write_own_word(unsigned cpu)
{
	for (unsigned i = 0; i < SHARED_PAGES; i++) {
		HX_CHECK(store(page_at(i) + cpu * 8, (uint64_t)cpu << 32 | i));
	}
}

/* Had two CPUs mapped a frame each for one page, a word would be lost. */
HX_TEST(one_frame_wins_each_page)
{
	space_begin(NULL);
	HX_BAIL();
	HX_CHECK_STATUS(map(BASE, SHARED_PAGES, RW, HX_MAP_FIXED).status, HX_OK);
	on_all_cpus(write_own_word);
	struct hx_space_stats s;
	hx_space_stats(&space, &s);
	HX_CHECK_EQUAL(s.resident_pages, SHARED_PAGES);
	HX_CHECK_EQUAL(hx_framedb_count(machine->db, HX_TAG_ANONYMOUS), anonymous + SHARED_PAGES);
	for (unsigned i = 0; i < SHARED_PAGES; i++) {
		struct hx_translation t = hx_translate(&space.table, hx_va(page_at(i)));
		HX_REQUIRE_STATUS(t.status, HX_OK);
		for (unsigned cpu = 0; cpu < CPUS; cpu++) {
			HX_CHECK_EQUAL(((uint64_t *)hx_ptr(t.pa))[cpu], (uint64_t)cpu << 32 | i);
		}
	}
	space_end();
}

/* ---- Each CPU its own window, and places that the space chooses ---- */

enum { WINDOW = 16, STEPS = 1500 };

struct own_page {
	uint8_t prot;
	bool mapped;
	uint64_t word;
};

static void random_step(struct hx_random *r, uintptr_t base, struct own_page *pages)
{
	unsigned first = (unsigned)hx_random_below(r, WINDOW);
	unsigned count = 1 + (unsigned)hx_random_below(r, WINDOW - first);
	static const uint8_t prots[] = {HX_PROT_NONE, HX_PROT_READ, RW, RW};
	uint8_t prot = prots[hx_random_below(r, HX_ARRAY_LENGTH(prots))];
	uintptr_t at = base + first * (uintptr_t)PAGE;
	bool whole = true;
	uint64_t word = hx_random(r);
	switch (hx_random_below(r, 8)) {
	case 0:
		HX_CHECK_STATUS(map(at, count, prot, HX_MAP_FIXED).status, HX_OK);
		for (unsigned i = first; i < first + count; i++) {
			pages[i] = (struct own_page){.mapped = true, .prot = prot};
		}
		break;
	case 1:
		HX_CHECK_STATUS(unmap(at, count), HX_OK);
		for (unsigned i = first; i < first + count; i++) {
			pages[i] = (struct own_page){.mapped = false};
		}
		break;
	case 2:
	case 3:
		for (unsigned i = first; i < first + count; i++) {
			whole = whole && pages[i].mapped;
		}
		HX_CHECK_STATUS(protect(at, count, prot), whole ? HX_OK : HX_NOT_MAPPED);
		for (unsigned i = first; whole && i < first + count; i++) {
			pages[i].prot = prot;
		}
		break;
	case 4:
	case 5: {
		bool may = pages[first].mapped && (pages[first].prot & HX_PROT_WRITE);
		HX_CHECK_EQUAL(store(at, word), may);
		pages[first].word = may ? word : pages[first].word;
		break;
	}
	default: {
		bool may = pages[first].mapped && pages[first].prot != HX_PROT_NONE;
		HX_CHECK_EQUAL(load(at, &word), may);
		HX_CHECK(!may || word == pages[first].word);
		break;
	}
	}
}

/* A piece wherever there is room: nobody else may be given it. */
static void borrow_and_return(struct hx_random *r)
{
	unsigned pages = 1 + (unsigned)hx_random_below(r, 4);
	struct hx_va_result at = map(0, pages, RW, 0);
	HX_REQUIRE_STATUS(at.status, HX_OK);
	uint64_t mark = hx_random(r), word;
	for (unsigned i = 0; i < pages; i++) {
		uintptr_t va = at.value.v + i * (uintptr_t)PAGE;
		HX_CHECK(load(va, &word) && word == 0);
		HX_CHECK(store(va, mark + i));
	}
	for (unsigned i = 0; i < pages; i++) {
		HX_CHECK(load(at.value.v + i * (uintptr_t)PAGE, &word) && word == mark + i);
	}
	HX_CHECK_STATUS(unmap(at.value.v, pages), HX_OK);
}

static void random_work(unsigned cpu)
{
	struct own_page pages[WINDOW] = {0};
	struct hx_random r = {cpu + 1};
	/* Neighbours' windows touch, so their regions join and part. */
	uintptr_t base = page_at(cpu * WINDOW);
	for (unsigned i = 0; i < STEPS && hx_test_failures() == 0; i++) {
		random_step(&r, base, pages);
		if (i % 8 == 0) {
			borrow_and_return(&r);
		}
		if (i % 100 == 0) {
			HX_CHECK_STATUS(hx_space_validate(&space), HX_OK);
		}
	}
	HX_CHECK_STATUS(unmap(base, WINDOW), HX_OK);
}

HX_TEST(four_cpus_map_protect_unmap_and_fault)
{
	space_begin(NULL);
	HX_BAIL();
	on_all_cpus(random_work);
	struct hx_space_stats s;
	hx_space_stats(&space, &s);
	HX_CHECK_EQUAL(s.regions, 0);
	HX_CHECK_EQUAL(s.resident_pages, 0);
	space_end();
}

/* ---- Rights taken and pages unmapped under running writers ---- */

enum { TARGETS = 8, TAKES = 60 };

static unsigned stop;

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_ACQUIRE) != 0;
}

static void pause_a_little(void)
{
	for (unsigned i = 0; i < 3; i++) {
		hx_hal_relax();
	}
}

static void write_without_end(unsigned cpu)
{
	for (uint64_t n = 1; !stopped(); n++) {
		if (!store(page_at(n % TARGETS) + cpu * 8, n)) {
			pause_a_little(); /* refused: leave the space's lock to others */
		}
	}
}

static void read_words(uint64_t words[TARGETS][CPUS])
{
	for (unsigned i = 0; i < TARGETS; i++) {
		struct hx_translation t = hx_translate(&space.table, hx_va(page_at(i)));
		for (unsigned cpu = 0; cpu < CPUS; cpu++) {
			const uint64_t *p = t.status == HX_OK ? hx_ptr(t.pa) : NULL;
			words[i][cpu] = p ? __atomic_load_n(&p[cpu], __ATOMIC_ACQUIRE) : 0;
		}
	}
}

static void take_write_rights(unsigned cpu)
{
	if (cpu != 0) {
		write_without_end(cpu);
		return;
	}
	for (unsigned i = 0; i < TAKES; i++) {
		uint64_t before[TARGETS][CPUS], after[TARGETS][CPUS];
		HX_CHECK_STATUS(protect(BASE, TARGETS, HX_PROT_READ), HX_OK);
		read_words(before);
		pause_a_little();
		read_words(after);
		HX_CHECK(hx_memcmp(before, after, sizeof before) == 0);
		HX_CHECK_STATUS(protect(BASE, TARGETS, RW), HX_OK);
		pause_a_little();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
}

HX_TEST(no_write_lands_after_mprotect_has_returned)
{
	space_begin(NULL);
	HX_BAIL();
	HX_CHECK_STATUS(map(BASE, TARGETS, RW, HX_MAP_FIXED).status, HX_OK);
	on_all_cpus(take_write_rights);
	space_end();
}

/* The frames that munmap gave back now belong to somebody else. */
static void unmap_under_writers(unsigned cpu)
{
	static struct hx_pfn mine[64];
	if (cpu != 0) {
		write_without_end(cpu);
		return;
	}
	for (unsigned i = 0; i < TAKES; i++) {
		pause_a_little();
		switch (i % 3) {
		case 0:
			HX_CHECK_STATUS(unmap(BASE, TARGETS), HX_OK);
			break;
		case 1:
			HX_CHECK_STATUS(map(BASE, TARGETS, HX_PROT_READ, HX_MAP_FIXED).status,
					HX_OK);
			break;
		default:
			HX_CHECK_STATUS(protect(BASE, TARGETS, HX_PROT_NONE), HX_OK);
			HX_CHECK_STATUS(unmap(BASE, TARGETS), HX_OK);
			break;
		}
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(mine); k++) {
			mine[k] = hx_frames_allocate(machine->frames, 0, 0).value;
			hx_memset(hx_ptr(hx_pfn_to_pa(mine[k])), 0x5a, PAGE);
		}
		pause_a_little();
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(mine); k++) {
			const uint64_t *p = hx_ptr(hx_pfn_to_pa(mine[k]));
			for (unsigned c = 0; c < CPUS; c++) {
				HX_CHECK_EQUAL(p[c], UINT64_C(0x5a5a5a5a5a5a5a5a));
			}
			HX_CHECK_STATUS(hx_frames_free(machine->frames, mine[k], 0), HX_OK);
		}
		HX_CHECK_STATUS(map(BASE, TARGETS, RW, HX_MAP_FIXED).status, HX_OK);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELEASE);
}

HX_TEST(no_write_lands_in_a_frame_that_was_given_back)
{
	space_begin(NULL);
	HX_BAIL();
	HX_CHECK_STATUS(map(BASE, TARGETS, RW, HX_MAP_FIXED).status, HX_OK);
	on_all_cpus(unmap_under_writers);
	space_end();
}

/* ---- Out of memory on all CPUs ---- */

enum { FEW = 256, CACHE_PAGES = 160, WANTED = 40, CACHE_AT = 1024 };

static _Alignas(64) uint8_t metadata[8192];
static struct hx_frames few;
static unsigned cache_left; /* pages; changed by the one reclaimer that runs */

/* The cache is memory of the very space in which the CPUs fault. */
static uint64_t drop_cache(void *context, const struct hx_pressure_event *event)
{
	(void)context;
	(void)event;
	unsigned n = cache_left < 4 ? cache_left : 4;
	cache_left -= n;
	HX_CHECK_STATUS(unmap(page_at(CACHE_AT + cache_left), n > 0 ? n : 1), HX_OK);
	return n;
}

static void touch_much(unsigned cpu)
{
	for (unsigned i = 0; i < WANTED; i++) {
		uintptr_t va = page_at(cpu * WANTED + i);
		/* What is freed may go to another CPU; the second try is a program's own. */
		bool done = store(va, i);
		for (unsigned tries = 0; !done && tries < 1000; tries++) {
			done = store(va, i);
		}
		HX_CHECK(done);
	}
}

HX_TEST(pressure_serves_faults_on_all_cpus)
{
	static struct hx_pressure pressure;
	machine = hx_test_machine();
	struct hx_pfn_result r = hx_frames_allocate(machine->frames, 8, 0);
	HX_REQUIRE_STATUS(r.status, HX_OK);
	HX_REQUIRE_STATUS(hx_framedb_set(machine->db, r.value, FEW, HX_TAG_FREE, NULL), HX_OK);
	HX_REQUIRE_STATUS(hx_frames_add_zone(&few, HX_ZONE_NORMAL, 0, &hx_frames_bitmap, r.value,
					     FEW, metadata, sizeof metadata),
			  HX_OK);
	hx_pressure_init(&pressure, &few);
	hx_pressure_attach(&pressure);
	HX_CHECK_STATUS(hx_pressure_register(&pressure, "cache", 0, drop_cache, NULL), HX_OK);
	space_begin(&few);
	HX_BAIL();
	HX_CHECK_STATUS(map(page_at(CACHE_AT), CACHE_PAGES, RW, HX_MAP_FIXED).status, HX_OK);
	HX_CHECK_STATUS(map(BASE, CPUS * WANTED, RW, HX_MAP_FIXED).status, HX_OK);
	hx_space_load(&space, machine->kernel_table);
	for (cache_left = 0; cache_left < CACHE_PAGES; cache_left++) {
		HX_CHECK(store(page_at(CACHE_AT + cache_left), 1));
	}
	hx_space_load(NULL, machine->kernel_table);
	HX_CHECK_EQUAL(pressure.events, 0);
	on_all_cpus(touch_much);
	HX_CHECK(pressure.events > 0);
	struct hx_space_stats s;
	hx_space_stats(&space, &s);
	HX_CHECK_EQUAL(s.resident_pages, CPUS * WANTED + cache_left);
	hx_log("%llu events for %u pages", (unsigned long long)pressure.events, CPUS * WANTED);
	space_end();
	HX_CHECK_EQUAL(hx_frames_free_frames(&few), FEW);
	HX_CHECK_STATUS(hx_frames_free(machine->frames, r.value, 8), HX_OK);
}

HX_SUITE(space_threads, HX_CASE(one_frame_wins_each_page),
	 HX_CASE(four_cpus_map_protect_unmap_and_fault),
	 HX_CASE(no_write_lands_after_mprotect_has_returned),
	 HX_CASE(no_write_lands_in_a_frame_that_was_given_back),
	 HX_CASE(pressure_serves_faults_on_all_cpus));
