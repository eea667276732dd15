/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A board by itself, without mapper, heap or boot stages: this kernel builds
 * one page table by hand from the codec and the board's image sections, and
 * shows that console, memory map, traps, probes, secondary CPUs, mailboxes and
 * interrupts for invalidation work. Where it fails, nothing above can work.
 *
 * "smoke=WHAT" on the command line ends the machine badly on purpose, so that
 * the runner can see how: fault, overflow (of the stack), panic, return.
 */
#include <hx/platform.h>

/* ---- What the library would give ---- */

uint8_t hx_boot_arena[HX_BOOT_ARENA_BYTES] __attribute__((aligned(4096)));

static struct hx_pa root;
static unsigned invalidations; /* that upcalls ran */
static unsigned demand_faults;
static bool grant_told;  /* by the fault of an access under user access */
static bool grant_leaks; /* into the fault handler */

static hx_pte *entry_of(uintptr_t va, unsigned level);

enum { TEST_PAGES = 16 };
static uint8_t frames[TEST_PAGES][4096] __attribute__((aligned(4096)));
static uintptr_t test_va; /* user half, nothing there at first */
static uintptr_t demand_va;

static struct hx_tlb_range test_range(void)
{
	return (struct hx_tlb_range){.va = hx_va(test_va), .pages = 1};
}

void hx_boot_secondary(struct hx_system *sys)
{
	(void)sys;
	hx_hal_mmu_init();
	hx_hal_root_load(root, HX_ASID_KERNEL, false);
}

void hx_upcall_tlb_ipi(void)
{
	struct hx_tlb_range r = test_range();
	hx_hal_tlb_local(&r, 1);
	__atomic_fetch_add(&invalidations, 1, __ATOMIC_SEQ_CST);
}

/* ---- TAP ---- */

static unsigned number, failed;

static void check(bool passed, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void check(bool passed, const char *format, ...)
{
	char what[160], line[200];
	va_list list;
	va_start(list, format);
	hx_format_list(what, sizeof what, format, list);
	va_end(list);
	hx_format(line, sizeof line, "%sok %u - %s\n", passed ? "" : "not ", ++number, what);
	hx_platform_write(line);
	failed += !passed;
}

/* ---- A page table by hand ---- */

enum { TABLES = 64 };
static hx_pte tables[TABLES][512] __attribute__((aligned(4096)));
static unsigned tables_used;

/* Physical address of a byte of the image. */
static struct hx_pa image_pa(const void *p)
{
	const struct hx_boot_args *a = hx_platform_boot_args();
	for (unsigned i = 0; i < a->section_count; i++) {
		uintptr_t offset = (uintptr_t)p - a->sections[i].va.v;
		if (offset < a->sections[i].bytes) {
			return hx_pa(a->sections[i].pa.v + offset);
		}
	}
	HX_ASSERT(!"a byte of the image outside all sections");
	return hx_pa(0);
}

static struct hx_pa new_table(void)
{
	HX_ASSERT(tables_used < TABLES);
	return image_pa(tables[tables_used++]);
}

static hx_pte *entry_of(uintptr_t va, unsigned level)
{
	const struct hx_geometry *g = &hx_hal_geometry;
	struct hx_pa table = root;
	for (unsigned l = g->levels - 1;; l--) {
		unsigned shift = g->page_shift + 9 * l;
		hx_pte *e = (hx_pte *)hx_ptr(table) + (va >> shift & 511);
		if (l == level) {
			return e;
		}
		if (hx_hal_pte_kind(hx_hal_pte_load(e), l) == HX_PTE_EMPTY) {
			hx_hal_pte_store(e, hx_hal_pte_table(new_table()));
		}
		table = hx_hal_pte_pa(hx_hal_pte_load(e), l);
	}
}

static void set(uintptr_t va, struct hx_pa pa, uint64_t flags, unsigned level)
{
	flags |= HX_PAGE_ACCESSED | (flags & HX_PAGE_WRITABLE ? HX_PAGE_DIRTY : 0);
	hx_hal_pte_store(entry_of(va, level),
			 hx_hal_pte_leaf(pa, hx_hal_pte_prot(flags, level), level));
}

static void build_table(void)
{
	const struct hx_boot_args *a = hx_platform_boot_args();
	root = new_table();
	for (unsigned i = 0; i < a->section_count; i++) {
		const struct hx_image_section *s = &a->sections[i];
		for (uint64_t at = 0; s->flags != 0 && at < s->bytes; at += HX_FRAME_BYTES) {
			set(s->va.v + at, hx_pa(s->pa.v + at), s->flags, 0);
		}
	}
	uint64_t window = hx_hal_boot_window_bytes;
	for (uint64_t at = 0; at < window && at < HX_GIB(4); at += HX_MIB(2)) {
		set(hx_hal_direct_offset + at, hx_pa(at), HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE,
		    1);
	}
	hx_hal_pt_publish();
	hx_hal_root_load(root, HX_ASID_KERNEL, false);
}

/* The kernel reads the USER page at test_va: does the machine let it? */
static bool kernel_reads_user(void)
{
	struct hx_probe p = {.va = hx_va(test_va), .access = HX_ACCESS_READ};
	hx_platform_probe(&p);
	return !p.faulted || p.fault.user_access; /* the latter is wrong: nothing was granted */
}

bool hx_upcall_fault(const struct hx_fault *fault)
{
	uintptr_t page = fault->va.v & ~(uintptr_t)(HX_FRAME_BYTES - 1);
	if (demand_va == 0 || page != demand_va || fault->cause == HX_FAULT_PROTECTION) {
		return false;
	}
	if (demand_faults++ == 0) {
		grant_told = fault->user_access;
		grant_leaks = kernel_reads_user();
	}
	set(demand_va, image_pa(frames[1]), HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE, 0);
	hx_hal_pt_publish();
	return true;
}

/* ---- Checks ---- */

static void check_memory_map(void)
{
	const struct hx_boot_args *a = hx_platform_boot_args();
	uint64_t ram = 0;
	bool image_kept = false;
	uint32_t at = 0;
	struct hx_memory_range r;
	while (hx_hal_memory_next(&at, &r)) {
		hx_log("memory 0x%010llx + 0x%010llx %u node %u", (unsigned long long)r.base.v,
		       (unsigned long long)r.bytes, (unsigned)r.type, (unsigned)r.node);
		ram += r.type == HX_MEMORY_RAM ? r.bytes : 0;
		const struct hx_image_section *last = &a->sections[a->section_count - 1];
		image_kept |= r.type == HX_MEMORY_KERNEL && r.base.v <= a->sections[0].pa.v &&
			      last->pa.v + last->bytes <= r.base.v + r.bytes;
	}
	check(ram >= HX_MIB(16), "memory map names %llu MiB of RAM", (unsigned long long)ram >> 20);
	check(image_kept, "memory map keeps the image");
	hx_log("command line: %s", a->command_line);
}

static void forget(uintptr_t va)
{
	hx_hal_pte_store(entry_of(va, 0), 0);
	struct hx_tlb_range r = {.va = hx_va(va), .pages = 1};
	hx_hal_tlb_local(&r, 1);
}

static void check_demand_fault(void)
{
	bool guard = (hx_hal_geometry.features & HX_MMU_USER_GUARD) != 0;
	set(test_va, image_pa(frames[0]), HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE, 0);
	hx_hal_pt_publish();
	check(kernel_reads_user() == !guard,
	      "the kernel is kept off user pages, if the machine can");

	demand_va = test_va + HX_MIB(4);
	hx_hal_user_access(true);
	*(volatile uint64_t *)demand_va = 0x1234;
	uint64_t seen = *(volatile uint64_t *)demand_va;
	hx_hal_user_access(false);
	check(demand_faults == 1 && seen == 0x1234, "a fault is resolved and the access retried");
	check(grant_told && grant_leaks == !guard,
	      "user access is told to the fault handler and ends where it begins");

	struct hx_va far = hx_va(demand_va + HX_FRAME_BYTES);
	for (unsigned i = 0; i < sizeof frames[1]; i++) {
		frames[1][i] = (uint8_t)(i * 7 + 1);
	}
	check(!hx_platform_copy(far, hx_va(demand_va), 64), "a copy stops at an unresolved fault");
	forget(demand_va);
	set(far.v, image_pa(frames[2]), HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE, 0);
	hx_hal_pt_publish();
	enum { ODD = 4093 };
	check(hx_platform_copy(far, hx_va(demand_va), ODD) && demand_faults == 2 &&
		      hx_memcmp(frames[1], frames[2], ODD) == 0 && frames[2][ODD] == 0,
	      "a copy takes a fault on the way");
	check(kernel_reads_user() == !guard, "a copy gives user access back");
	demand_va = 0;
	forget(test_va);
}

static bool expected(uint64_t flags, enum hx_access access, bool user)
{
	if (user && !(flags & HX_PAGE_USER)) {
		return false;
	}
	return access == HX_ACCESS_READ ||
	       (access == HX_ACCESS_WRITE && (flags & HX_PAGE_WRITABLE)) ||
	       (access == HX_ACCESS_EXECUTE && !(flags & HX_PAGE_NO_EXECUTE));
}

/* Every kind of page, every access, both modes, interrupts on and off. */
static void check_probe_matrix(bool interrupts)
{
	static const uint64_t kinds[] = {
		HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE,
		HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE,
		HX_PAGE_KERNEL_CODE,
		HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE,
		HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE,
		HX_PAGE_USER_CODE,
	};
	unsigned wrong = 0, done = 0;
	hx_memcpy(frames[0], hx_platform_return_code, hx_platform_return_code_bytes);
	hx_platform_code_written();
	unsigned long irq = interrupts ? 0 : hx_hal_irq_save();
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(kinds) * 6; i++) {
		uint64_t flags = kinds[i / 6];
		struct hx_probe p = {
			.va = hx_va(test_va),
			.access = (enum hx_access)(i % 3),
			.user = i / 3 % 2 != 0,
		};
		if (!p.user && (flags & HX_PAGE_USER) && p.access == HX_ACCESS_EXECUTE) {
			continue; /* whether the machine has SMEP is its own affair */
		}
		hx_memcpy(&p.value, frames[0], 8);
		set(test_va, image_pa(frames[0]), flags, 0);
		hx_hal_pt_publish();
		struct hx_tlb_range r = test_range();
		hx_hal_tlb_local(&r, 1);
		hx_hal_user_access((flags & HX_PAGE_USER) && !p.user);
		hx_platform_probe(&p);
		hx_hal_user_access(false);
		bool right = p.faulted != expected(flags, p.access, p.user) &&
			     (!p.faulted || (p.fault.va.v == test_va && p.fault.user == p.user &&
					     p.fault.access == p.access));
		wrong += !right;
		done++;
		if (!right) {
			hx_log("flags 0x%llx access %u user %u: faulted %u, va 0x%lx access %u",
			       (unsigned long long)flags, p.access, p.user, p.faulted,
			       (unsigned long)p.fault.va.v, p.fault.access);
		}
	}
	if (!interrupts) {
		hx_hal_irq_restore(irq);
	}
	check(wrong == 0, "%u probes, interrupts %s", done, interrupts ? "on" : "off");
}

static void check_probe_nowhere(void)
{
	unsigned caught = 0;
	for (unsigned i = 0; i < 6; i++) {
		struct hx_probe p = {.va = hx_va((uintptr_t)1 << 62), /* not canonical */
				     .access = (enum hx_access)(i % 3),
				     .user = i >= 3};
		hx_platform_probe(&p);
		caught += p.faulted && p.fault.access == p.access;
	}
	check(caught == 6, "an address that is not canonical is a fault like others");
}

/* ---- Other CPUs ---- */

enum { CPUS = 8 }; /* that boards start at most */
static uint64_t ids_seen;
static uint64_t values[HX_CPUS_MAX];

static void note_id(void *argument)
{
	(void)argument;
	__atomic_fetch_or(&ids_seen, hx_cpus_of(hx_hal_cpu_id()).bits, __ATOMIC_SEQ_CST);
}

static void read_page(void *argument)
{
	(void)argument;
	struct hx_probe p = {.va = hx_va(test_va), .access = HX_ACCESS_READ, .user = true};
	hx_platform_probe(&p);
	values[hx_hal_cpu_id()] = p.faulted ? UINT64_MAX : p.value;
}

static void each(unsigned cpus, void (*run)(void *))
{
	for (unsigned cpu = 1; cpu < cpus; cpu++) {
		HX_ASSERT(hx_platform_run_on(cpu, run, NULL));
	}
	for (unsigned cpu = 1; cpu < cpus; cpu++) {
		hx_platform_join(cpu);
	}
}

static bool all_read(unsigned cpus, uint64_t value)
{
	bool right = true;
	for (unsigned cpu = 1; cpu < cpus; cpu++) {
		right &= values[cpu] == value;
	}
	return right;
}

static void check_cpus(void)
{
	/* As stage 3: the boot CPU first. */
	static struct hx_system sys;
	uint32_t at = 0;
	struct hx_cpu_info c;
	while (sys.cpu_count < HX_CPUS_MAX && hx_hal_cpu_next(&at, &c)) {
		sys.cpus[sys.cpu_count++] = c;
		if (c.boot) {
			sys.cpus[sys.cpu_count - 1] = sys.cpus[0];
			sys.cpus[0] = c;
		}
	}
	unsigned named = sys.cpu_count, cpus = hx_platform_start_cpus(&sys);
	check(cpus == (named < CPUS ? named : CPUS), "%u CPUs run of %u named", cpus, named);
	note_id(NULL);
	each(cpus, note_id);
	check(ids_seen == (cpus == 64 ? UINT64_MAX : (UINT64_C(1) << cpus) - 1),
	      "each CPU knows its number");
	check(!hx_platform_run_on(cpus, note_id, NULL) && !hx_platform_run_on(0, note_id, NULL),
	      "no work for oneself or for nobody");

	*(volatile uint64_t *)frames[3] = 3;
	*(volatile uint64_t *)frames[4] = 4;
	set(test_va, image_pa(frames[3]), HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE, 0);
	struct hx_tlb_range r = test_range();
	hx_hal_tlb_local(&r, 1);
	each(cpus, read_page);
	check(all_read(cpus, 3), "every CPU reads a page");
	set(test_va, image_pa(frames[4]), HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE, 0);
	struct hx_cpus all = {cpus == 64 ? UINT64_MAX : (UINT64_C(1) << cpus) - 1};
	unsigned rounds = 100;
	for (unsigned i = 0; i < rounds; i++) { /* the others sleep; this CPU has interrupts off */
		unsigned long irq = hx_hal_irq_save();
		unsigned before = __atomic_load_n(&invalidations, __ATOMIC_SEQ_CST);
		bool reached = hx_hal_tlb_broadcast(&r, 1, all);
		if (!reached) {
			hx_hal_ipi_tlb(all);
			while (__atomic_load_n(&invalidations, __ATOMIC_SEQ_CST) !=
			       before + cpus - 1) {
				hx_hal_relax();
			}
		}
		hx_hal_irq_restore(irq);
	}
	each(cpus, read_page);
	check(all_read(cpus, 4), "%u invalidations reach %u sleeping CPUs", rounds, cpus - 1);
	for (unsigned i = 0; i < rounds; i++) {
		each(cpus, note_id);
	}
	check(true, "%u rounds of work", rounds);
}

/* ---- Bad ends ---- */

static volatile unsigned depth = 1;

static unsigned overflow(unsigned n)
{
	volatile uint8_t room[512];
	room[0] = (uint8_t)n;
	depth = n;
	return depth == 0 ? 0 : overflow(n + 1) + room[0]; /* the compiler must not know */
}

static void end_badly(const char *how)
{
	if (hx_streq(how, "fault")) {
		*(volatile uint64_t *)(test_va + HX_MIB(32)) = 1;
	} else if (hx_streq(how, "overflow")) {
		overflow(1);
	} else if (hx_streq(how, "panic")) {
		HX_ASSERT(!"asked for");
	}
}

void hx_main(void)
{
	hx_platform_write("TAP version 13\n");
	hx_log("%s, %llu %s since power on", hx_platform_name,
	       (unsigned long long)hx_platform_ticks(), hx_platform_tick_unit);
	test_va = HX_GIB(1);
	hx_hal_mmu_init(); /* hx_boot() begins with it */
	check_memory_map();
	build_table();
	check(true, "a page table of our own");
	const char *line = hx_platform_boot_args()->command_line;
	for (const char *at = line; at && *at != '\0'; at++) {
		if (hx_strlen(at) > 6 && hx_memcmp(at, "smoke=", 6) == 0) {
			end_badly(at + 6);
			return;
		}
	}
	check_demand_fault();
	check_probe_matrix(true);
	check_probe_matrix(false);
	check_probe_nowhere();
	check_cpus();
	char plan[16];
	hx_format(plan, sizeof plan, "1..%u\n", number);
	hx_platform_write(plan);
	hx_platform_exit(failed == 0);
}
