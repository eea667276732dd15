/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Random programs against the mapper on four simulated CPUs: a kernel table and
 * three user tables, mapped, unmapped, given other rights, translated, loaded,
 * destroyed and made anew, with memory that now and then runs out, while the CPUs
 * touch what is mapped.
 *
 * One thread plays all four CPUs, so a program is a seed and comes again. It is
 * concurrent all the same: at every change of a page-table entry and every TLB
 * operation of a call the machine lets the program in (hx_sim_on_step()), and
 * another CPU makes an access; in the middle of a load it even makes whole calls.
 *
 * A flat model says for each page what is mapped there. Outside of a call every
 * access must end as the model says. Inside, that holds for all pages but those that
 * the call works on. At no time may a frame be released that a
 * CPU can still reach, or a TLB hold a conflict; between calls no TLB may hold
 * anything that the tables do not say.
 *
 * HX_STRESS_OPERATIONS in the environment sets the number of calls and accesses,
 * HX_STRESS_SEED the first seed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <sim.h>

#include "mapper_world.h"

#define PAGE HX_KIB(4)

enum {
	CPUS = 4,
	TABLES = 4,     /* the first is the kernel's */
	PAGES = 1024,   /* of a table's window */
	ALTS = 4,       /* frames that a page may have */
	FRAMES = 1024,  /* for tables */
	PROGRAM = 2500, /* operations of one seed */
};

#define WINDOW (PAGES * PAGE)
#define TABLES_PA HX_MIB(16)
#define DATA_PA HX_MIB(160)

struct page {
	bool mapped, hidden;
	uint8_t alt;
	uint64_t flags;
};

static struct hx_pagetable tables[TABLES];
static struct page pages[TABLES][PAGES];
static unsigned loaded[CPUS];    /* table */
static unsigned last_user[CPUS]; /* the last that was not the kernel's */
static unsigned recent[TABLES];  /* page where something happened last */
static struct hx_random dice;
static uint64_t first_seed = 1, seed;

/* The call in progress: table and pages that are in flux; no table: TABLES. */
static struct {
	unsigned table, first, end;
	bool load;
	unsigned from, to; /* tables of a load */
	unsigned user;     /* the user's that ran there last: the CPU may be lazy on it */
} call;

/* What a call of hx_unmap() gave back, against the model. */
static struct {
	unsigned table, pages, wrong;
} given_back;

/* ---- The model ---- */

static uintptr_t window(unsigned table)
{
	/* Across a border of the highest leaves. */
	return (table == 0 ? hx_kernel_start() : 0) + (uintptr_t)(HX_GIB(6) - WINDOW / 2);
}

static uintptr_t va_of(unsigned table, unsigned page)
{
	return window(table) + page * PAGE;
}

/* Each page of each table has frames of its own, in the order of the pages. */
static uint64_t frame_of(unsigned table, unsigned page, unsigned alt)
{
	return DATA_PA + ((uint64_t)table * ALTS + alt) * WINDOW + page * PAGE;
}

static uint64_t roll(uint64_t n)
{
	return hx_random_below(&dice, n);
}

static uint64_t random_flags(unsigned table)
{
	static const uint64_t bits[] = {HX_PAGE_WRITABLE, HX_PAGE_NO_EXECUTE, HX_PAGE_NO_CACHE,
					HX_PAGE_WRITE_THROUGH};
	uint64_t flags = HX_PAGE_PRESENT;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bits); i++) {
		flags |= roll(i < 2 ? 2 : 8) == 0 ? bits[i] : 0;
	}
	if (table == 0) {
		return flags | (roll(2) ? HX_PAGE_GLOBAL : 0);
	}
	return flags | (roll(8) ? HX_PAGE_USER : 0);
}

static uint64_t enforced(unsigned table, uint64_t flags)
{
	flags |= table == 0 && hx_hal_geometry.asid_bits > 0 ? HX_PAGE_GLOBAL : 0;
	return flags & HX_PAGE_WRITABLE ? flags | HX_PAGE_NO_EXECUTE : flags; /* W^X */
}

static bool allows(const struct page *p, const struct hx_sim_reference *r)
{
	bool user_page = (p->flags & HX_PAGE_USER) != 0;
	if (!p->mapped || p->hidden || (r->user && !user_page)) {
		return false;
	}
	switch (r->access) {
	case HX_ACCESS_WRITE:
		return (p->flags & HX_PAGE_WRITABLE) != 0;
	case HX_ACCESS_EXECUTE:
		return !(p->flags & HX_PAGE_NO_EXECUTE) && r->user == user_page;
	case HX_ACCESS_READ:
		break;
	}
	return true;
}

static void fail(const char *what, unsigned table, unsigned page)
{
	hx_test_fail(__FILE__, __LINE__, "seed %llu: %s: table %u, page %u, CPU %u",
		     (unsigned long long)seed, what, table, page, hx_hal_cpu_id());
}

/* Most often where the last calls were. */
static unsigned random_page(unsigned table)
{
	return (unsigned)(roll(3) ? recent[table] + roll(12) : roll(PAGES)) % PAGES;
}

/* ---- Accesses ---- */

/* Does the page share a table of level 0 with those that the call works on? */
static bool is_near(unsigned table, unsigned page)
{
	unsigned leaf = 1u << hx_hal_geometry.bits[0];
	return call.table == table && page >= call.first / leaf * leaf &&
	       page < (call.end + leaf - 1) / leaf * leaf;
}

/* The pages that the call works on. */
static bool is_called(unsigned table, unsigned page)
{
	return call.table == table && page >= call.first && page < call.end;
}

/* The same, and near ones where a split has to break the leaf. */
static bool in_flux(unsigned table, unsigned page)
{
	if (hx_hal_geometry.features & HX_MMU_BREAK_BEFORE_MAKE) {
		return is_near(table, page);
	}
	return is_called(table, page);
}

/* A page by its address, as the CPU sees it: in the kernel's window or its own table's. */
static bool find(unsigned cpu, uintptr_t va, unsigned *table, unsigned *page)
{
	*table = va >= hx_kernel_start() ? 0 : loaded[cpu];
	*page = (unsigned)((va - window(*table)) / PAGE);
	return *page < PAGES;
}

static void hear_stale(const struct hx_sim_stale *s)
{
	unsigned table, page;
	if (s->conflict || s->reserved) {
		fail(s->conflict ? "conflict" : "a false group", call.table, 0);
	} else if (!find(s->cpu, s->va.v, &table, &page)) {
		fail("a stale entry of no window is used", call.table, 0);
	} else if (!in_flux(table, page) && !(s->table && call.table == table)) {
		/* (Through a table that has emptied the walk finds what is there: nothing.) */
		fail(s->kept ? "a stale entry is kept" : "a stale entry is used", table, page);
	}
}

enum how { MAY_FAULT_SPURIOUSLY, AT_ONCE };

/* CPU @cpu touches the page, in its own table or the kernel's. */
static void touch(unsigned cpu, unsigned table, unsigned page, enum how how)
{
	enum { RETRIES = 4 };
	hx_sim_play(cpu);
	struct hx_sim_reference r = {
		.va = hx_va(va_of(table, page) + roll(512) * 8),
		.access = (enum hx_access)roll(3),
		.user = table != 0 && roll(2),
		.bytes = 8,
	};
	const struct page *p = &pages[table][page];
	struct hx_fault fault;
	bool done, retry;
	unsigned faults = 0;
	do {
		done = hx_sim_access(&r, &fault);
		retry = !done && hx_pagetable_spurious(&fault);
		faults += retry;
	} while (retry && faults < RETRIES);
	if (in_flux(table, page)) {
		/* Beside the call a leaf may be broken, and made anew when the call goes on. */
		if (!is_called(table, page) && !done && !retry && allows(p, &r)) {
			fail("an access to a broken leaf is refused", table, page);
		}
		return;
	}
	if (done != allows(p, &r)) {
		fail(done ? "an access is allowed" : "an access is refused", table, page);
	} else if (done && r.pa.v != frame_of(table, page, p->alt) + (r.va.v & (PAGE - 1))) {
		fail("an access leads to another frame", table, page);
	} else if (faults > 0 && how == AT_ONCE) {
		fail("an access faults before it is allowed", table, page);
	}
}

static void touch_random(unsigned cpu)
{
	unsigned table = roll(4) ? loaded[cpu] : 0, page = random_page(table);
	if (call.table == table && roll(4)) { /* near the call */
		page = (unsigned)(call.first + roll(call.end - call.first + 2)) % PAGES;
	}
	touch(cpu, table, page, table == 0 ? AT_ONCE : MAY_FAULT_SPURIOUSLY);
}

/* ---- Calls ---- */

static unsigned failing; /* memory runs out: calls may be refused */

static void check_status(hx_status s, hx_status wanted, const char *what)
{
	if (s != wanted && !(failing && s == HX_OUT_OF_MEMORY && wanted == HX_OK)) {
		hx_test_fail(__FILE__, __LINE__, "seed %llu: %s is %s, not %s",
			     (unsigned long long)seed, what, hx_status_name(s),
			     hx_status_name(wanted));
	}
}

static void begin(unsigned table, unsigned first, unsigned end)
{
	call.table = table;
	call.first = first;
	call.end = end;
}

static void finish(void)
{
	call.table = TABLES;
}

/* How many of the pages are mapped? */
static unsigned count_mapped(unsigned table, unsigned first, unsigned end)
{
	unsigned n = 0;
	for (unsigned i = first; i < end; i++) {
		n += pages[table][i].mapped;
	}
	return n;
}

/* A few pages most often; now and then whole leaf tables, and up to their borders. */
static void pick_range(unsigned table, unsigned *first, unsigned *end)
{
	unsigned leaf = 1u << hx_hal_geometry.bits[0];
	*first = random_page(table);
	if (roll(8) == 0) {
		recent[table] = *first;
	}
	unsigned n = 1 + (unsigned)roll(roll(4) ? 8 : 200);
	if (roll(8) == 0) {
		*first = *first / leaf * leaf;
		n = leaf;
	} else if (roll(8) == 0) {
		*first = *first / leaf * leaf;
	}
	*end = *first + n < PAGES ? *first + n : PAGES;
}

static void map(unsigned cpu, unsigned table)
{
	unsigned first, end, alt = (unsigned)roll(ALTS);
	pick_range(table, &first, &end);
	uint64_t flags = random_flags(table);
	if (hx_hal_geometry.group_bits > 0 && roll(2)) { /* so that there are some */
		flags |= HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	}
	hx_status wanted = count_mapped(table, first, end) ? HX_ALREADY_MAPPED : HX_OK;
	begin(table, first, end);
	hx_status s = hx_map(&tables[table], hx_va(va_of(table, first)),
			     hx_pa(frame_of(table, first, alt)), (end - first) * PAGE, flags);
	finish();
	check_status(s, wanted, "hx_map()");
	if (s != HX_OK) {
		return;
	}
	for (unsigned i = first; i < end; i++) {
		pages[table][i] = (struct page){true, false, (uint8_t)alt, enforced(table, flags)};
	}
	/* It is there at once: for this CPU, and in the kernel's half for all. */
	if (table == 0 || loaded[cpu] == table) {
		touch(cpu, table, first, AT_ONCE);
		touch(cpu, table, end - 1, AT_ONCE);
	}
	if (table == 0) {
		touch((cpu + 1) % CPUS, 0, first, AT_ONCE);
	}
}

static void note_released_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			       uint64_t flags)
{
	(void)context;
	(void)flags;
	unsigned page = (unsigned)((va.v - window(given_back.table)) / PAGE);
	for (uint64_t at = 0; at < bytes; at += PAGE, page++) {
		const struct page *p = &pages[given_back.table][page < PAGES ? page : 0];
		given_back.pages++;
		given_back.wrong += page >= PAGES || !p->mapped ||
				    frame_of(given_back.table, page, p->alt) != pa.v + at;
	}
	if (hx_sim_audit_release(hx_pa_to_pfn(pa), bytes / PAGE) > 0) {
		fail("a frame that can be reached is released", given_back.table, page);
	}
}

static void note_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, note_released_leaf, context);
}

static void unmap(unsigned table)
{
	unsigned first, end;
	pick_range(table, &first, &end);
	bool sparse = roll(2);
	unsigned mapped = count_mapped(table, first, end);
	hx_status wanted = sparse || mapped == end - first ? HX_OK : HX_NOT_MAPPED;
	struct hx_va va = hx_va(va_of(table, first));
	given_back.table = table;
	given_back.pages = given_back.wrong = 0;
	begin(table, first, end);
	hx_status s =
		sparse ? hx_unmap_sparse(&tables[table], va, (end - first) * PAGE, note_release,
					 NULL)
		       : hx_unmap(&tables[table], va, (end - first) * PAGE, note_release, NULL);
	finish();
	check_status(s, wanted, "hx_unmap()");
	if (given_back.pages != (s == HX_OK ? mapped : 0) || given_back.wrong > 0) {
		fail("other frames are given back than were mapped", table, first);
	}
	for (unsigned i = first; s == HX_OK && i < end; i++) {
		pages[table][i].mapped = false;
	}
}

static void update(unsigned table)
{
	unsigned first, end;
	pick_range(table, &first, &end);
	bool sparse = roll(2), hide = !tables[table].huge && roll(4) == 0;
	unsigned mapped = count_mapped(table, first, end);
	hx_status wanted = sparse || mapped == end - first ? HX_OK : HX_NOT_MAPPED;
	uint64_t flags = hide ? 0 : random_flags(table);
	struct hx_va va = hx_va(va_of(table, first));
	begin(table, first, end);
	hx_status s =
		sparse ? hx_update_flags_sparse(&tables[table], va, (end - first) * PAGE, flags)
		       : hx_update_flags(&tables[table], va, (end - first) * PAGE, flags);
	finish();
	check_status(s, wanted, "hx_update_flags()");
	for (unsigned i = first; s == HX_OK && i < end; i++) {
		struct page *p = &pages[table][i];
		p->hidden = p->mapped && hide;
		p->flags = hide ? p->flags : enforced(table, flags);
	}
}

static void translate(unsigned table)
{
	unsigned page = random_page(table);
	if (in_flux(table, page)) {
		return;
	}
	const struct page *p = &pages[table][page];
	const uint64_t rights = HX_PAGE_WRITABLE | HX_PAGE_USER | HX_PAGE_NO_EXECUTE |
				HX_PAGE_NO_CACHE | HX_PAGE_WRITE_THROUGH | HX_PAGE_GLOBAL;
	struct hx_translation t = hx_translate(&tables[table], hx_va(va_of(table, page) + 8));
	bool there = p->mapped && !p->hidden;
	if (t.status != (there ? HX_OK : HX_NOT_MAPPED) ||
	    (there && (t.pa.v != frame_of(table, page, p->alt) + 8 ||
		       ((t.flags ^ p->flags) & rights) != 0))) {
		fail("a translation is wrong", table, page);
	}
}

/* What nobody should notice: marks are taken away, leaves folded or made groups. */
static void harvest_or_fold(unsigned table)
{
	static uint64_t leaves[PAGES];
	unsigned first, end;
	pick_range(table, &first, &end);
	struct hx_va va = hx_va(va_of(table, first));
	begin(table, first, end);
	if (roll(2)) {
		hx_status wanted = tables[table].huge ? HX_OK : HX_NOT_SUPPORTED;
		check_status(hx_fold(&tables[table], va, (end - first) * PAGE), wanted,
			     "hx_fold()");
		finish();
		return;
	}
	bool marks = (hx_hal_geometry.features & HX_MMU_HARDWARE_AD) != 0;
	uint64_t clear = marks && roll(2) ? HX_PAGE_ACCESSED : 0;
	clear |= marks && roll(2) ? HX_PAGE_DIRTY : 0;
	hx_status s = hx_harvest(&tables[table], va, end - first, clear, leaves);
	finish();
	check_status(s, HX_OK, "hx_harvest()");
	for (unsigned i = first; i < end; i++) {
		const struct page *p = &pages[table][i];
		uint64_t pa = p->mapped && !p->hidden ? frame_of(table, i, p->alt) : 0;
		if (hx_leaf_pa(leaves[i - first]).v != pa) {
			fail("a harvested leaf is wrong", table, i);
		}
	}
}

/* Take a right away behind the mapper's back, and ask for the flush that this needs. */
static void flush(unsigned table)
{
	unsigned page = random_page(table), level;
	struct page *p = &pages[table][page];
	hx_pte *entry = world_entry(&tables[table], va_of(table, page), &level);
	hx_pte e = hx_hal_pte_load(entry);
	if (level > 0 || !p->mapped || p->hidden || hx_hal_pte_raw(entry) != e) {
		return; /* (a group is not changed in part) */
	}
	begin(table, page, page + 1);
	uint64_t flags = hx_hal_pte_flags(e, 0) & ~HX_PAGE_WRITABLE;
	hx_pte less = hx_hal_pte_leaf(hx_hal_pte_pa(e, 0), hx_hal_pte_prot(flags, 0), 0);
	while (!hx_hal_pte_update(entry, &e, less)) {
	}
	if (roll(2)) {
		hx_flush_all(&tables[table]);
	} else {
		HX_CHECK_STATUS(hx_flush(&tables[table], hx_va(va_of(table, page)), PAGE), HX_OK);
	}
	finish();
	p->flags &= ~HX_PAGE_WRITABLE;
	if (hx_sim_audit() > 0) {
		fail("a flush leaves something stale", table, page);
	}
}

static void load(unsigned cpu, unsigned table)
{
	unsigned from = loaded[cpu];
	call.load = true;
	call.from = from;
	call.to = table;
	call.user = last_user[cpu];
	hx_pagetable_load(&tables[table], &tables[from]);
	call.load = false;
	loaded[cpu] = table;
	last_user[cpu] = table != 0 ? table : last_user[cpu];
}

static void init_table(unsigned table)
{
	struct hx_pagetable_config c = {
		.frames = &world_frames,
		.huge = table != 3, /* pages of the last can be hidden */
		.kernel = table == 0 ? NULL : &tables[0],
	};
	HX_REQUIRE_STATUS(hx_pagetable_init(&tables[table], &c), HX_OK);
}

static void make_anew(unsigned table)
{
	for (unsigned i = 0; i < CPUS; i++) {
		if (loaded[i] == table || table == 0) {
			return;
		}
	}
	HX_CHECK_STATUS(hx_pagetable_destroy(&tables[table]), HX_OK);
	init_table(table);
	for (unsigned i = 0; i < PAGES; i++) {
		pages[table][i].mapped = false;
	}
}

static void operate(unsigned cpu, unsigned table)
{
	hx_sim_play(cpu);
	failing = roll(32) == 0;
	world_fail_after = failing ? (int64_t)roll(3) : WORLD_NEVER;
	switch (roll(16)) {
	case 0:
	case 1:
	case 2:
		map(cpu, table);
		break;
	case 3:
	case 4:
		unmap(table);
		break;
	case 5:
	case 6:
		update(table);
		break;
	case 7:
		translate(table);
		break;
	case 8:
		world_fail_after = WORLD_NEVER;
		if (roll(3) == 0) {
			flush(table);
		} else if (call.load) { /* two tables are on their way in or out */
			break;
		} else if (roll(8) == 0) {
			make_anew((unsigned)roll(TABLES));
		} else {
			load(cpu, (unsigned)roll(TABLES));
		}
		break;
	default:
		if (hx_hal_geometry.group_bits > 0 && !call.load && roll(6) == 0) {
			harvest_or_fold(table);
		} else {
			touch_random(cpu);
		}
		break;
	}
	world_fail_after = WORLD_NEVER;
}

/* Between two steps of a call, or of a load. */
static void step(void)
{
	unsigned me = hx_hal_cpu_id(), other = (me + 1 + (unsigned)roll(CPUS - 1)) % CPUS;
	unsigned long irq = hx_hal_irq_save();
	if (irq && !call.load) { /* a handler may make a call of its own, of another table */
		unsigned table = call.table, first = call.first, end = call.end;
		unmap((table + 1) % TABLES);
		begin(table, first, end);
	}
	hx_hal_irq_restore(irq);
	if (call.table < TABLES) {
		if (roll(4) == 0) {
			touch_random(other);
			translate(call.table);
		}
	} else if (call.load && (hx_hal_geometry.features & HX_MMU_BROADCAST)) {
		/*
		 * The CPU that loads runs ahead and caches what it finds, then another one
		 * makes a call. Without interrupts the one that loads need not answer.
		 */
		for (unsigned i = 0; i < 8; i++) {
			struct hx_sim_reference r = {.bytes = 8};
			struct hx_fault fault;
			r.va = hx_va(va_of(i & 1 ? call.from : call.to, recent[call.to] + i));
			(void)hx_sim_access(&r, &fault);
		}
		const unsigned targets[] = {call.to, call.from, call.to, call.user};
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(targets); i++) {
			operate(other, targets[i]);
		}
	}
	hx_sim_play(me);
}

/* ---- Programs ---- */

static void start(uint64_t number)
{
	seed = number;
	dice.state = number * UINT64_C(0x9e3779b97f4a7c15) | 1;
	call.table = TABLES;
	call.load = false;
	/* What the machine may differ in, by the bits of the seed. */
	struct hx_sim_config c = {
		.broadcast = number & 1 ? HX_SIM_ON : HX_SIM_OFF,
		.speculative_accessed = number & 2 ? HX_SIM_ON : HX_SIM_OFF,
		.hardware_ad = number % 5 == 0 ? HX_SIM_OFF : HX_SIM_DEFAULT,
		.asid_bits =
			number & 4 ? 1 + number / 8 % 3 : 0, /* with 1 and 2 some table has none */
		.groups = number % 7 < 4 ? HX_SIM_ON : HX_SIM_OFF,
		.seed = number,
	};
	if (number % 3 == 0) { /* levels of other sizes */
		const uint8_t bits[HX_LEVELS_MAX] = {8, 7, 9, 6, 8};
		hx_memcpy(c.bits, bits, sizeof bits);
	}
	hx_sim_on_step(NULL);
	hx_sim_configure(&c);
	hx_hal_mmu_init();
	hx_sim_on_stale(hear_stale);
	world_open(hx_pa_to_pfn(hx_pa(TABLES_PA)), FRAMES);
	hx_memset(pages, 0, sizeof pages);
	hx_memset(recent, 0, sizeof recent);
	init_table(0);
	HX_REQUIRE_STATUS(hx_pagetable_prepare(&tables[0], hx_va(window(0)), WINDOW), HX_OK);
	hx_pagetable_seal(&tables[0]);
	for (unsigned i = 1; i < TABLES; i++) {
		init_table(i);
	}
	for (unsigned i = 0; i < CPUS; i++) {
		hx_sim_play(i);
		hx_hal_mmu_init();
		hx_hal_user_access(true);
		loaded[i] = last_user[i] = i % TABLES; /* not all have run the kernel's table */
		hx_pagetable_load(&tables[loaded[i]], NULL);
	}
	hx_sim_on_step(step);
}

static void end(void)
{
	hx_sim_on_step(NULL);
	for (unsigned i = 0; i < CPUS; i++) {
		hx_sim_play(i);
		load(i, 0);
	}
	for (unsigned i = 0; i < TABLES; i++) {
		WORLD_SOUND(&tables[i]);
		HX_CHECK_STATUS(hx_unmap_sparse(&tables[i], hx_va(window(i)), WINDOW, NULL, NULL),
				HX_OK);
	}
	for (unsigned i = 1; i < TABLES; i++) {
		HX_CHECK_STATUS(hx_pagetable_destroy(&tables[i]), HX_OK);
	}
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(world_free_count() + hx_pagetable_counters(&tables[0]).tables, FRAMES);
}

static uint64_t number_from(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text != NULL ? strtoull(text, NULL, 0) : otherwise;
}

HX_TEST(random_programs_leave_nothing_stale)
{
	enum { AUDIT = 16, VALIDATE = 512 };
	uint64_t operations = number_from("HX_STRESS_OPERATIONS", 100000);
	first_seed = number_from("HX_STRESS_SEED", 1);
	for (uint64_t i = 0; i < operations && hx_test_failures() == 0; i++) {
		if (i % PROGRAM == 0) {
			if (i > 0) {
				end();
			}
			start(first_seed + i / PROGRAM);
			HX_BAIL();
		}
		unsigned cpu = (unsigned)roll(CPUS);
		operate(cpu, roll(4) ? loaded[cpu] : (unsigned)roll(TABLES));
		unsigned stale = i % AUDIT == 0 ? hx_sim_audit() : 0;
		if (stale > 0) {
			fail("stale entries are left", call.table, stale);
		}
		for (unsigned t = 0; i % VALIDATE == 0 && t < TABLES; t++) {
			WORLD_SOUND(&tables[t]);
		}
	}
	end();
}

/* ---- CPUs that take their time ---- */

static bool stop;        /* atomic */
static unsigned running; /* atomic */

/* On any thread, at any step: now and then others get far ahead. */
static void dawdle(void)
{
	static uint64_t turn;
	if (__atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % 5 == 0) {
		usleep(20);
	}
}

static void wander(void *argument)
{
	(void)argument;
	unsigned me = hx_hal_cpu_id();
	hx_hal_mmu_init();
	hx_pagetable_load(&tables[0], NULL);
	hx_pagetable_load(&tables[1], &tables[0]);
	hx_hal_user_access(true);
	__atomic_fetch_add(&running, 1, __ATOMIC_ACQ_REL);
	for (unsigned i = me; !__atomic_load_n(&stop, __ATOMIC_ACQUIRE); i += 7) {
		struct hx_sim_reference r = {.va = hx_va(va_of(1, i % 16)), .bytes = 8};
		struct hx_fault fault;
		(void)hx_sim_access(&r, &fault);
		hx_hal_relax();
	}
	world_leave(&tables[0], &tables[1]);
	__atomic_fetch_sub(&running, 1, __ATOMIC_ACQ_REL);
}

static void audit_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	(void)context;
	(void)flags;
	if (hx_sim_audit_release(hx_pa_to_pfn(pa), bytes / PAGE) > 0) {
		fail("a frame that can be reached is released", 1,
		     (unsigned)((va.v - window(1)) / PAGE));
	}
}

static void audit_release(void *context, const struct hx_released *batch)
{
	world_each_leaf(batch, audit_leaf, context);
}

static void ignore_stale(const struct hx_sim_stale *s)
{
	if (s->conflict) {
		fail("conflict", 1, 0);
	}
}

/* Calls on CPU 0 while three others, as threads, touch the pages and answer late. */
HX_TEST(frames_wait_for_slow_cpus)
{
	enum { ROUNDS = 60 };
	for (unsigned number = 0; number < 2; number++) { /* with interrupts, with broadcasts */
		struct hx_sim_config c = {.broadcast = number == 1 ? HX_SIM_ON : HX_SIM_OFF};
		hx_sim_configure(&c);
		hx_hal_mmu_init();
		hx_sim_on_stale(ignore_stale);
		world_open(hx_pa_to_pfn(hx_pa(TABLES_PA)), FRAMES);
		init_table(0);
		hx_pagetable_seal(&tables[0]);
		init_table(1);
		hx_pagetable_load(&tables[0], NULL);
		stop = false;
		running = 0;
		for (unsigned i = 1; i < CPUS; i++) {
			HX_REQUIRE(hx_sim_cpu_start(i, wander, NULL));
		}
		while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) < CPUS - 1) {
			hx_hal_relax();
		}
		hx_sim_on_step(dawdle);
		for (unsigned i = 0; i < ROUNDS; i++) {
			HX_CHECK_STATUS(hx_map(&tables[1], hx_va(va_of(1, 0)),
					       hx_pa(frame_of(1, 0, 0)), 16 * PAGE,
					       HX_PAGE_USER_WRITE),
					HX_OK);
			usleep(50);
			HX_CHECK_STATUS(hx_unmap(&tables[1], hx_va(va_of(1, 0)), 16 * PAGE,
						 audit_release, NULL),
					HX_OK);
		}
		hx_sim_on_step(NULL);
		__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
		while (__atomic_load_n(&running, __ATOMIC_ACQUIRE) > 0) {
			hx_hal_relax();
		}
		usleep(1000); /* the threads let go of their CPUs */
	}
}

HX_SUITE(mapper_stress, HX_CASE(random_programs_leave_nothing_stale),
	 HX_CASE(frames_wait_for_slow_cpus));
