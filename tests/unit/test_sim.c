/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated machine itself: its MMU against page tables that are written
 * here entry by entry with the codec. Above all, that a missing flush is seen:
 * each test of a stale translation first leaves the flush out and requires the
 * machine to go wrong, then does it and requires the machine to be right.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sim.h>

#include "hx_test.h"

/* Marks that a page needs where the machine sets none. */
#ifdef HX_SIM_CODEC_BBM
#define READ_MARKS HX_PAGE_ACCESSED
#define WRITE_MARKS (HX_PAGE_ACCESSED | HX_PAGE_DIRTY)
#else
#define READ_MARKS UINT64_C(0)
#define WRITE_MARKS UINT64_C(0)
#endif
#define RW (HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_NO_EXECUTE | WRITE_MARKS)
#define RO (HX_PAGE_PRESENT | HX_PAGE_NO_EXECUTE | READ_MARKS)
#define RX (HX_PAGE_PRESENT | READ_MARKS)

enum { PAGE = 4096 };

/* Virtual addresses of the user half that every geometry has; VA is 2 MiB aligned. */
#define VA UINT64_C(0x140000000)

static uint64_t next_frame; /* physical memory is handed out upwards */
static uint64_t root;
static struct hx_sim_stale last_stale;
static unsigned stale_count, conflict_count;

static void record_stale(const struct hx_sim_stale *s)
{
	last_stale = *s;
	__atomic_fetch_add(s->conflict ? &conflict_count : &stale_count, 1, __ATOMIC_RELAXED);
}

/* What the machine's interrupt runs: the flush that a test posted. */
static const struct hx_tlb_range *posted;
static unsigned interrupts;

void hx_upcall_tlb_ipi(void)
{
	HX_CHECK(hx_hal_irq_save() == 0); /* they are off */
	if (posted != NULL) {
		hx_hal_tlb_local(posted, 1);
	}
	__atomic_fetch_add(&interrupts, 1, __ATOMIC_RELEASE);
}

bool hx_upcall_fault(const struct hx_fault *fault)
{
	(void)fault;
	return false;
}

static uint64_t take_frames(uint64_t bytes)
{
	next_frame = hx_align_down(next_frame + bytes - 1, bytes);
	uint64_t pa = next_frame;
	next_frame += bytes;
	return pa;
}

static void start(const struct hx_sim_config *c)
{
	hx_sim_configure(c);
	hx_hal_mmu_init();
	hx_sim_on_stale(record_stale);
	stale_count = conflict_count = interrupts = 0;
	posted = NULL;
	next_frame = HX_MIB(16);
	root = take_frames(PAGE);
	hx_hal_root_load(hx_pa(root), 0, false);
}

static hx_pte *slot(uint64_t table, unsigned level, uint64_t va)
{
	unsigned shift = 12;
	for (unsigned l = 0; l < level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	uint64_t mask = (UINT64_C(1) << hx_hal_geometry.bits[level]) - 1;
	return (hx_pte *)hx_ptr(hx_pa(table)) + (va >> shift & mask);
}

/* The entry for va at level; tables on the way are made. */
static hx_pte *entry_of(uint64_t in, uint64_t va, unsigned level)
{
	for (unsigned l = hx_hal_geometry.levels - 1u; l > level; l--) {
		hx_pte *e = slot(in, l, va);
		if (hx_hal_pte_kind(*e, l) != HX_PTE_TABLE) {
			hx_hal_pte_store(e, hx_hal_pte_table(hx_pa(take_frames(PAGE))));
		}
		in = hx_hal_pte_pa(*e, l).v;
	}
	return slot(in, level, va);
}

static void map_at(uint64_t va, uint64_t pa, uint64_t flags, unsigned level)
{
	hx_hal_pte_store(entry_of(root, va, level),
			 hx_hal_pte_leaf(hx_pa(pa), hx_hal_pte_prot(flags, level), level));
	hx_hal_pt_publish();
}

static void map(uint64_t va, uint64_t pa, uint64_t flags)
{
	map_at(va, pa, flags, 0);
}

/* A frame filled with a number that tells it from others. */
static uint64_t frame_with(uint64_t value)
{
	uint64_t pa = take_frames(PAGE);
	*(uint64_t *)hx_ptr(hx_pa(pa)) = value;
	return pa;
}

static void flush_page(uint64_t va)
{
	struct hx_tlb_range r = {.va = hx_va(va), .pages = 1};
	hx_hal_tlb_local(&r, 1);
}

static struct hx_fault fault;

static bool reach(uint64_t va, enum hx_access access, bool user, uint64_t *value)
{
	struct hx_sim_reference r = {
		.va = hx_va(va), .access = access, .user = user, .bytes = 8, .value = *value};
	bool done = hx_sim_access(&r, &fault);
	*value = r.value;
	return done;
}

/* Value at va, or 0 when the read faults. */
static uint64_t read_at(uint64_t va)
{
	uint64_t value = 0;
	return reach(va, HX_ACCESS_READ, false, &value) ? value : 0;
}

static bool write_at(uint64_t va, uint64_t value)
{
	return reach(va, HX_ACCESS_WRITE, false, &value);
}

/* Without what would make the counts of a test depend on more than its own steps. */
static const struct hx_sim_config plain = {.prefetch = HX_SIM_OFF, .late_stores = HX_SIM_OFF};

/* ---- Translation ---- */

HX_TEST(leaves_of_every_size_translate)
{
	start(&plain);
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		if (!(hx_hal_geometry.leaf_levels >> level & 1)) {
			continue;
		}
		uint64_t bytes = UINT64_C(1) << (12 + 9 * level);
		/* Above 1 GiB no memory is that large: the leaf names all of it from 0. */
		uint64_t pa = level == 0 ? frame_with(7) : level == 1 ? take_frames(bytes) : 0;
		uint64_t va = level < 3 ? VA & ~(bytes - 1) : 0;
		hx_hal_pte_store(slot(root, hx_hal_geometry.levels - 1u, va), 0);
		hx_hal_tlb_local(&(struct hx_tlb_range){.global = true}, 1);
		map_at(va, pa, RW, level);
		uint64_t offset = level < 2 ? bytes - 8 : HX_MIB(17);
		HX_CHECK(write_at(va + offset, 0x1234 + level));
		HX_CHECK_EQUAL(*(uint64_t *)hx_ptr(hx_pa(pa + offset)), 0x1234 + level);
		HX_CHECK_EQUAL(read_at(va + offset), 0x1234 + level);
	}
	HX_CHECK_EQUAL(stale_count, 0);
}

HX_TEST(accesses_of_every_width)
{
	start(&plain);
	uint64_t pa = frame_with(UINT64_C(0x8877665544332211));
	map(VA, pa, RW);
	for (unsigned bytes = 1; bytes <= 8; bytes *= 2) {
		uint64_t mask = bytes == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * bytes) - 1;
		struct hx_sim_reference r = {.va = hx_va(VA), .bytes = (uint8_t)bytes};
		HX_REQUIRE(hx_sim_access(&r, &fault));
		HX_CHECK_EQUAL(r.value, UINT64_C(0x8877665544332211) & mask);
		HX_CHECK_EQUAL(r.pa.v, pa);
		r = (struct hx_sim_reference){.va = hx_va(VA + 16 * bytes),
					      .access = HX_ACCESS_WRITE,
					      .bytes = (uint8_t)bytes,
					      .value = UINT64_MAX};
		HX_REQUIRE(hx_sim_access(&r, &fault));
		HX_CHECK_EQUAL(*(uint64_t *)hx_ptr(hx_pa(pa + 16 * bytes)), mask);
	}
}

HX_TEST(rights_are_enforced)
{
	start(&plain);
	uint64_t pa = frame_with(1);
	for (unsigned bits = 0; bits < 8; bits++) {
		uint64_t flags = HX_PAGE_PRESENT | (bits & 1 ? HX_PAGE_WRITABLE : 0) |
				 (bits & 2 ? HX_PAGE_USER : 0) |
				 (bits & 4 ? HX_PAGE_NO_EXECUTE : 0) | WRITE_MARKS;
		uint64_t va = VA + bits * PAGE;
		map(va, pa, flags);
		for (unsigned how = 0; how < 12; how++) {
			enum hx_access access = (enum hx_access)(how % 3);
			bool user = how / 3 % 2, sum = how / 6;
			bool page_user = bits & 2;
			bool allowed = user ? page_user : !page_user || sum;
			allowed = allowed && (access != HX_ACCESS_WRITE || bits & 1);
			allowed = allowed && (access != HX_ACCESS_EXECUTE ||
					      (!(bits & 4) && user == page_user));
			uint64_t value = 1;
			hx_hal_user_access(sum);
			HX_CHECK_EQUAL(reach(va, access, user, &value), allowed);
			hx_hal_user_access(false);
			if (!allowed) {
				HX_CHECK_EQUAL(fault.va.v, va);
				HX_CHECK_EQUAL(fault.access, access);
				HX_CHECK_EQUAL(fault.user, user);
				HX_CHECK(fault.cause != HX_FAULT_MISSING);
			}
		}
	}
	HX_CHECK_EQUAL(stale_count, 0);
	HX_CHECK_EQUAL(hx_sim_counters().spurious_faults, 0);
}

HX_TEST(what_is_not_a_leaf_faults)
{
	start(&plain);
	uint64_t edge = UINT64_C(1) << (hx_hal_geometry.va_bits - 1);
	uint64_t bad[] = {edge, -edge - 8, edge | UINT64_C(1) << 63};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad); i++) {
		HX_CHECK_EQUAL(read_at(bad[i]), 0); /* not canonical */
		HX_CHECK(fault.cause != HX_FAULT_PROTECTION);
	}
	HX_CHECK_EQUAL(read_at(VA), 0); /* nothing there */
	hx_hal_pte_store(entry_of(root, VA, 0), hx_hal_pte_soft(0x123456789abc));
	hx_hal_pt_publish();
	HX_CHECK_EQUAL(read_at(VA), 0);
	/* A huge leaf whose address is not aligned to its size. */
	uint64_t huge = VA + HX_GIB(1);
	map_at(huge, HX_MIB(32), RW, 1);
	HX_CHECK(write_at(huge, 1));
	hx_hal_tlb_local(&(struct hx_tlb_range){.asid = 0}, 1);
	map_at(huge, HX_MIB(32) + HX_MIB(1), RW, 1);
	HX_CHECK(!write_at(huge, 1));
}

/* Machine and mapper share the codec: what the manuals say stands here once more. */
HX_TEST(reserved_encodings_are_no_leaves)
{
	start(&plain);
#ifdef HX_SIM_CODEC_X86_64
	const hx_pte present = UINT64_C(1) << 0, size = UINT64_C(1) << 7;
	HX_CHECK_EQUAL(hx_hal_pte_kind(present | size, 3), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(present | size, 2), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(present | size, 0), HX_PTE_LEAF); /* PAT there */
	HX_CHECK_EQUAL(hx_hal_pte_kind(size, 1), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_pa(present | size | 0x1000 | HX_MIB(2), 1).v, HX_MIB(2));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0x5000), hx_hal_pte_prot(RW, 0), 0),
		       UINT64_C(0x8000000000005003));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(HX_GIB(1)), hx_hal_pte_prot(RX | HX_PAGE_USER, 2), 2),
		       UINT64_C(0x40000085));
	HX_CHECK_EQUAL(hx_hal_pte_table(hx_pa(0x6000)), UINT64_C(0x6007));
#elif defined(HX_SIM_CODEC_BBM)
	const hx_pte huge = 1, next = 3, read_only = UINT64_C(1) << 7;
	HX_CHECK_EQUAL(hx_hal_pte_kind(huge, 0), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(huge, 1), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(huge, 2), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(huge, 3), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(next, 0), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(next, 1), HX_PTE_TABLE);
	HX_CHECK_EQUAL(hx_hal_pte_kind(2, 0), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(read_only, 1), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0x5000), hx_hal_pte_prot(RW, 0), 0),
		       UINT64_C(0x8000000000005063));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(HX_GIB(1)), hx_hal_pte_prot(RX | HX_PAGE_USER, 2), 2),
		       UINT64_C(0x400001a1));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0), hx_hal_pte_prot(RW | HX_PAGE_NO_CACHE, 0), 0),
		       UINT64_C(0xa000000000000063));
	HX_CHECK_EQUAL(hx_hal_pte_table(hx_pa(0x6000)), UINT64_C(0x6003));
#elif defined(HX_SIM_CODEC_AARCH64)
	const hx_pte block = 1, next = 3, accessed = UINT64_C(1) << 10;
	HX_CHECK_EQUAL(hx_hal_pte_kind(block, 0), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(block, 1), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(block, 2), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(block, 3), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(next, 0), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(next, 3), HX_PTE_TABLE);
	HX_CHECK_EQUAL(hx_hal_pte_kind(accessed, 1), HX_PTE_SOFT);
	/* Clean, so read-only to the machine, which may change that (DBM). */
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0x5000), hx_hal_pte_prot(RW, 0), 0),
		       UINT64_C(0x68000000005b83));
	/* The kernel's, dirty: writable, and never executed in user mode. */
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0x5000),
				       hx_hal_pte_prot((RW & ~HX_PAGE_USER) | HX_PAGE_DIRTY |
							       HX_PAGE_ACCESSED | HX_PAGE_GLOBAL,
						       0),
				       0),
		       UINT64_C(0x68000000005703));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(HX_GIB(1)), hx_hal_pte_prot(RX | HX_PAGE_USER, 2), 2),
		       UINT64_C(0x20000040000bc1));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0), hx_hal_pte_prot(RW | HX_PAGE_NO_CACHE, 0), 0) &
			       0x1c,
		       UINT64_C(2) << 2);
	HX_CHECK_EQUAL(hx_hal_pte_table(hx_pa(0x6000)), UINT64_C(0x6003));
#else
	const hx_pte valid = 1, read = 2, write = 4, execute = 8;
	HX_CHECK_EQUAL(hx_hal_pte_kind(valid | write, 0), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(valid | write | execute, 1), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(valid | read | write, 0), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(valid | execute, 0), HX_PTE_LEAF);
	HX_CHECK_EQUAL(hx_hal_pte_kind(valid, 0), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_kind(valid, 1), HX_PTE_TABLE);
	HX_CHECK_EQUAL(hx_hal_pte_kind(read, 0), HX_PTE_SOFT);
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(0x5000), hx_hal_pte_prot(RW, 0), 0), UINT64_C(0x1407));
	HX_CHECK_EQUAL(hx_hal_pte_leaf(hx_pa(HX_GIB(1)), hx_hal_pte_prot(RX | HX_PAGE_USER, 2), 2),
		       UINT64_C(0x1000001b));
	HX_CHECK_EQUAL(hx_hal_pte_table(hx_pa(0x6000)), UINT64_C(0x1801));
	/* N and PPN[3:0] = 8 for 64 KiB. */
	HX_CHECK_EQUAL(hx_hal_pte_group(hx_hal_pte_leaf(hx_pa(0x15000), hx_hal_pte_prot(RW, 0), 0)),
		       UINT64_C(0x8000000000006007));
	HX_CHECK_EQUAL(hx_hal_pte_kind(UINT64_C(0x8000000000006007), 0), HX_PTE_SOFT);
#endif
}

HX_TEST(a_leaf_size_that_the_machine_lacks_faults)
{
	start(&(struct hx_sim_config){.leaf_levels = 1});
	map_at(VA, HX_MIB(32), RW, 1);
	HX_CHECK(!write_at(VA, 1));
}

HX_TEST(accessed_and_dirty_are_set)
{
	const uint64_t unmarked = RW & ~(HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
	start(&(struct hx_sim_config){.hardware_ad = HX_SIM_ON, .prefetch = HX_SIM_OFF});
	map(VA, frame_with(5), unmarked);
	hx_pte *e = entry_of(root, VA, 0);
	HX_CHECK_EQUAL(hx_hal_pte_flags(*e, 0) & (HX_PAGE_ACCESSED | HX_PAGE_DIRTY), 0);
	HX_CHECK_EQUAL(read_at(VA), 5);
	HX_CHECK_EQUAL(hx_hal_pte_flags(*e, 0), unmarked | HX_PAGE_ACCESSED);
	HX_CHECK(write_at(VA, 6)); /* the clean translation is cached: DIRTY is set all the same */
	HX_CHECK_EQUAL(hx_hal_pte_flags(*e, 0), unmarked | HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
	/* A refused access marks nothing. */
	map(VA + PAGE, frame_with(5), unmarked & ~HX_PAGE_WRITABLE);
	HX_CHECK(!write_at(VA + PAGE, 1));
	HX_CHECK_EQUAL(hx_hal_pte_flags(*entry_of(root, VA + PAGE, 0), 0),
		       unmarked & ~HX_PAGE_WRITABLE);
}

HX_TEST(without_hardware_bits_an_unmarked_page_faults)
{
	const uint64_t unmarked = RW & ~(HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
	start(&(struct hx_sim_config){.hardware_ad = HX_SIM_OFF});
	map(VA, frame_with(5), unmarked);
	HX_CHECK_EQUAL(read_at(VA), 0);
	map(VA, frame_with(6), unmarked | HX_PAGE_ACCESSED);
	flush_page(VA);
	HX_CHECK_EQUAL(read_at(VA), 6);
	HX_CHECK(!write_at(VA, 1));
	map(VA, frame_with(7), unmarked | HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
	flush_page(VA);
	HX_CHECK(write_at(VA, 1));
	HX_CHECK_EQUAL(stale_count, 0);
}

/* ---- Stale translations ---- */

HX_TEST(remap_without_flush_reads_the_old_frame)
{
	start(&plain);
	uint64_t old = frame_with(11), new = frame_with(22);
	map(VA, old, RW);
	HX_CHECK_EQUAL(read_at(VA), 11);
	map(VA, new, RW);
	HX_CHECK_EQUAL(read_at(VA), 11);
	HX_CHECK_EQUAL(stale_count, 1);
	HX_CHECK_EQUAL(last_stale.used.v, old);
	HX_CHECK_EQUAL(last_stale.now.v, new);
	HX_CHECK(last_stale.present && !last_stale.table);
	HX_CHECK(hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(old))));
	HX_CHECK_EQUAL(hx_sim_audit(), 1);
	flush_page(VA);
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(old))));
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(read_at(VA), 22);
	HX_CHECK_EQUAL(stale_count, 1);
}

HX_TEST(unmap_without_flush_still_reads)
{
	start(&plain);
	map(VA, frame_with(11), RW);
	HX_CHECK_EQUAL(read_at(VA), 11);
	hx_hal_pte_store(entry_of(root, VA, 0), 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 1);
	HX_CHECK_EQUAL(read_at(VA), 11);
	HX_CHECK_EQUAL(stale_count, 1);
	HX_CHECK(!last_stale.present);
	flush_page(VA + PAGE); /* another page: no help */
	HX_CHECK_EQUAL(read_at(VA), 11);
	flush_page(VA);
	HX_CHECK_EQUAL(read_at(VA), 0);
	HX_CHECK_EQUAL(stale_count, 2);
}

HX_TEST(lowered_rights_without_flush_still_grant)
{
	static const struct {
		uint64_t before, after;
		enum hx_access access;
	} cases[] = {
		{RW, RO, HX_ACCESS_WRITE},
		{RX, RO, HX_ACCESS_EXECUTE},
		{RW, RW | HX_PAGE_USER, HX_ACCESS_READ}, /* the supervisor keeps out of it */
		{RW, RW | HX_PAGE_NO_CACHE, HX_ACCESS_READ},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		start(&plain);
		uint64_t pa = frame_with(3), value = 4;
		map(VA, pa, cases[i].before);
		HX_CHECK(reach(VA, cases[i].access, false, &value));
		map(VA, pa, cases[i].after);
		HX_CHECK(reach(VA, cases[i].access, false, &value));
		HX_CHECK_EQUAL(stale_count, 1);
		flush_page(VA);
		bool cache_only = (cases[i].after & HX_PAGE_NO_CACHE) != 0;
		HX_CHECK_EQUAL(reach(VA, cases[i].access, false, &value), cache_only);
		HX_CHECK_EQUAL(stale_count, 1);
	}
}

HX_TEST(raised_rights_without_flush_fault_spuriously)
{
	start(&plain);
	uint64_t pa = frame_with(3);
	map(VA, pa, RO);
	HX_CHECK_EQUAL(read_at(VA), 3);
	map(VA, pa, RW);
	HX_CHECK(!write_at(VA, 4));
	HX_CHECK_EQUAL(hx_sim_counters().spurious_faults, 1);
#ifdef HX_SIM_CODEC_X86_64
	HX_CHECK(write_at(VA, 4)); /* the fault itself dropped the entry */
#else
	HX_CHECK(!write_at(VA, 4));
	flush_page(VA);
	HX_CHECK(write_at(VA, 4));
#endif
	HX_CHECK_EQUAL(stale_count, 0);
}

HX_TEST(nothing_is_ever_evicted)
{
	enum { PAGES = 5000 };
	start(&plain);
	for (unsigned i = 0; i < PAGES; i++) {
		map(VA + i * PAGE, frame_with(i + 1), RO);
		HX_CHECK_EQUAL(read_at(VA + i * PAGE), i + 1);
	}
	for (unsigned i = 0; i < PAGES; i++) {
		hx_hal_pte_store(entry_of(root, VA + i * PAGE, 0), 0);
	}
	HX_CHECK_EQUAL(hx_sim_audit(), PAGES);
	for (unsigned i = 0; i < PAGES; i++) {
		HX_CHECK_EQUAL(read_at(VA + i * PAGE), i + 1);
	}
	HX_CHECK_EQUAL(stale_count, PAGES);
	/* A range in one call forgets exactly its pages. */
	hx_hal_tlb_local(&(struct hx_tlb_range){.va = hx_va(VA + 10 * PAGE), .pages = 4000}, 1);
	HX_CHECK_EQUAL(hx_sim_audit(), PAGES - 4000);
	hx_hal_tlb_local(&(struct hx_tlb_range){.va = hx_va(VA), .pages = 10}, 1);
	HX_CHECK_EQUAL(hx_sim_audit(), PAGES - 4010);
	HX_CHECK_EQUAL(read_at(VA + 4009 * PAGE), 0);
	HX_CHECK_EQUAL(read_at(VA + 4010 * PAGE), 4011);
}

HX_TEST(neighbours_that_are_accessed_are_prefetched)
{
	const uint64_t unmarked = HX_PAGE_PRESENT | HX_PAGE_NO_EXECUTE;
	start(&(struct hx_sim_config){
		.hardware_ad = HX_SIM_ON, .prefetch = HX_SIM_OFF, .late_stores = HX_SIM_OFF});
	for (unsigned i = 0; i < 16; i++) {
		map(VA + i * PAGE, frame_with(i + 1), unmarked | (i & 1 ? HX_PAGE_ACCESSED : 0));
	}
	HX_CHECK_EQUAL(read_at(VA + 4 * PAGE), 5);
	HX_CHECK_EQUAL(hx_hal_pte_flags(*entry_of(root, VA + 2 * PAGE, 0), 0), unmarked);
	for (unsigned i = 0; i < 16; i++) {
		hx_hal_pte_store(entry_of(root, VA + i * PAGE, 0), 0);
	}
	for (unsigned i = 0; i < 16; i++) {
		bool cached = i == 4 || (i < 8 && i & 1);
		HX_CHECK_EQUAL(read_at(VA + i * PAGE), cached ? i + 1 : 0);
	}
	HX_CHECK_EQUAL(stale_count, 5);
}

/* ---- Groups ---- */

#define MARKED (RW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY)
static const struct hx_sim_config with_groups = {
	.groups = HX_SIM_ON, .prefetch = HX_SIM_OFF, .late_stores = HX_SIM_OFF};

/* A machine with groups of 16, if the codec has them, and one at VA. @return its first frame */
static uint64_t start_group(void)
{
	enum { LEAVES = 16 };
	start(&with_groups);
	if (hx_hal_geometry.group_bits == 0) {
		hx_test_skip("entries of this format have no groups");
		return 0;
	}
	uint64_t pa = take_frames(LEAVES * PAGE);
	HX_CHECK_EQUAL(1u << hx_hal_geometry.group_bits, LEAVES);
	for (unsigned i = 0; i < LEAVES; i++) {
		hx_pte e = hx_hal_pte_leaf(hx_pa(pa + i * PAGE), hx_hal_pte_prot(MARKED, 0), 0);
		hx_hal_pte_store(entry_of(root, VA + i * PAGE, 0), hx_hal_pte_group(e));
		*(uint64_t *)hx_ptr(hx_pa(pa + i * PAGE)) = i + 1;
	}
	return pa;
}

HX_TEST(a_group_is_cached_with_one_of_its_leaves)
{
	uint64_t pa = start_group();
	if (pa == 0) {
		return;
	}
	HX_CHECK_EQUAL(read_at(VA + 3 * PAGE), 4);
	uint64_t walks = hx_sim_counters().walks;
	for (unsigned i = 0; i < 16; i++) {
		HX_CHECK_EQUAL(read_at(VA + i * PAGE), i + 1);
		HX_CHECK(write_at(VA + i * PAGE, i + 1));
	}
	HX_CHECK_EQUAL(hx_sim_counters().walks, walks);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	/* One entry changes; what its neighbours say of it stays, until it is forgotten. */
	map(VA + 5 * PAGE, frame_with(99), MARKED);
	HX_CHECK_EQUAL(read_at(VA + 5 * PAGE), 6);
	HX_CHECK_EQUAL(stale_count, 1);
	HX_CHECK_EQUAL(hx_sim_audit(), 1);
	HX_CHECK(hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(pa + 5 * PAGE))));
	flush_page(VA + 5 * PAGE);
	HX_CHECK_EQUAL(read_at(VA + 5 * PAGE), 99);
	HX_CHECK_EQUAL(stale_count, 1);
	/* To forget one page forgets no other ... */
	walks = hx_sim_counters().walks;
	HX_CHECK_EQUAL(read_at(VA + 4 * PAGE), 5);
	HX_CHECK_EQUAL(hx_sim_counters().walks, walks);
	/* ... and is in vain while a neighbour still speaks for it. */
	flush_page(VA + 4 * PAGE);
	HX_CHECK_EQUAL(read_at(VA + 4 * PAGE), 5);
	HX_CHECK_EQUAL(read_at(VA + 5 * PAGE), 6);
	HX_CHECK_EQUAL(stale_count, 2);
}

HX_TEST(a_false_group_faults_and_is_reported)
{
	if (start_group() == 0) {
		return;
	}
	hx_pte *p = entry_of(root, VA, 0);
	const hx_pte sound = hx_hal_pte_raw(p);
	hx_hal_pte_store(p,
			 sound ^ hx_hal_pte_leaf(hx_pa(PAGE), 0, 0)); /* of a size that is none */
	HX_CHECK_EQUAL(read_at(VA), 0);
	HX_CHECK_EQUAL(stale_count, 1);
	HX_CHECK(last_stale.reserved);
	hx_hal_pte_store(p, sound);
	hx_hal_tlb_local(&(struct hx_tlb_range){.asid = 0}, 1);
	hx_hal_geometry.group_bits = 0; /* a machine without */
	HX_CHECK_EQUAL(read_at(VA), 0);
	HX_CHECK_EQUAL(stale_count, 2);
	HX_CHECK(last_stale.reserved);
	hx_hal_geometry.group_bits = 4;
	uint64_t huge = VA + HX_GIB(1);
	map_at(huge, HX_MIB(32), MARKED, 1);
	p = entry_of(root, huge, 1);
	hx_hal_pte_store(p, hx_hal_pte_group(*p));
	HX_CHECK_EQUAL(read_at(huge + 8 * PAGE), 0);
	HX_CHECK_EQUAL(stale_count, 3);
	HX_CHECK(last_stale.reserved);
}

HX_TEST(global_entries_outlive_what_does_not_name_them)
{
	start(&(struct hx_sim_config){.asid_bits = 4});
	uint64_t pa = frame_with(9);
	map(VA, pa, RW | HX_PAGE_GLOBAL);
	HX_CHECK_EQUAL(read_at(VA), 9);
	hx_hal_pte_store(entry_of(root, VA, 0), 0);
	flush_page(VA);
	hx_hal_tlb_local(&(struct hx_tlb_range){.asid = 0}, 1);
	hx_hal_root_load(hx_pa(root), 0, false);
	HX_CHECK_EQUAL(read_at(VA), 9);
	hx_hal_root_load(hx_pa(root), 3, false); /* in every address space */
	HX_CHECK_EQUAL(read_at(VA), 9);
	HX_CHECK(hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(pa))));
	struct hx_tlb_range r = {.va = hx_va(VA), .pages = 1, .asid = 3, .global = true};
	hx_hal_tlb_local(&r, 1);
	HX_CHECK_EQUAL(read_at(VA), 0);
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(pa))));
}

HX_TEST(entries_belong_to_their_address_space)
{
	/* (Mapped over what was mapped.) */
	start(&(struct hx_sim_config){.asid_bits = 4, .break_before_make = HX_SIM_OFF});
	uint64_t pa = frame_with(1), other = frame_with(2);
	hx_hal_root_load(hx_pa(root), 1, false);
	map(VA, pa, RW);
	HX_CHECK_EQUAL(read_at(VA), 1);
	map(VA, other, RW);
	hx_hal_root_load(hx_pa(root), 2, false); /* another one: walks */
	HX_CHECK_EQUAL(read_at(VA), 2);
	HX_CHECK_EQUAL(stale_count, 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 0); /* nobody can use it as it is ... */
	HX_CHECK_EQUAL(hx_sim_audit_asid(hx_pa(root), 1), 1);
	HX_CHECK_EQUAL(hx_sim_audit_asid(hx_pa(root), 2), 0);
	hx_hal_root_load(hx_pa(root), 1, true); /* ... back, still stale: a load must not keep it */
	HX_CHECK_EQUAL(stale_count, 1);
	HX_CHECK(last_stale.kept);
	HX_CHECK_EQUAL(read_at(VA), 1);
	HX_CHECK_EQUAL(stale_count, 2);
	HX_CHECK(!last_stale.kept);
	struct hx_tlb_range wrong = {.va = hx_va(VA), .pages = 1, .asid = 2};
	hx_hal_tlb_local(&wrong, 1);
	HX_CHECK_EQUAL(read_at(VA), 1);
	hx_hal_root_load(hx_pa(root), 1, false);
	HX_CHECK_EQUAL(read_at(VA), 2);
	/* pages == 0 with global: everything of everybody. */
	map(VA, pa, RW);
	hx_hal_tlb_local(&(struct hx_tlb_range){.asid = 7, .global = true}, 1);
	HX_CHECK_EQUAL(read_at(VA), 1);
	hx_hal_root_load(hx_pa(root), 2, true);
	HX_CHECK_EQUAL(read_at(VA), 1);
	HX_CHECK_EQUAL(stale_count, 3);
	hx_hal_root_load(hx_pa(root), 1, true); /* the entry is right again */
	HX_CHECK_EQUAL(stale_count, 3);
}

HX_TEST(huge_entries_are_one_entry)
{
	start(&plain);
	uint64_t pa = take_frames(HX_MIB(2)), small = frame_with(77);
	*(uint64_t *)hx_ptr(hx_pa(pa + 5 * PAGE)) = 55;
	map_at(VA, pa, RW, 1);
	HX_CHECK_EQUAL(read_at(VA + 5 * PAGE), 55);
	/* Split it, giving one page another frame: the huge entry serves on. */
	uint64_t table = take_frames(PAGE);
	for (unsigned i = 0; i < 512; i++) {
		uint64_t to = i == 5 ? small : pa + i * PAGE;
		hx_hal_pte_store(slot(table, 0, VA + i * PAGE),
				 hx_hal_pte_leaf(hx_pa(to), hx_hal_pte_prot(RW, 0), 0));
	}
	hx_hal_pte_store(entry_of(root, VA, 1), hx_hal_pte_table(hx_pa(table)));
	HX_CHECK_EQUAL(read_at(VA + 6 * PAGE), 0); /* same frame: right, and not stale */
	HX_CHECK_EQUAL(stale_count, 0);
	HX_CHECK_EQUAL(read_at(VA + 5 * PAGE), 55);
	HX_CHECK_EQUAL(stale_count, 1);
	flush_page(VA + 9 * PAGE); /* any address inside will do */
	HX_CHECK_EQUAL(read_at(VA + 5 * PAGE), 77);
	HX_CHECK_EQUAL(stale_count, 1);
}

HX_TEST(a_stride_skips_what_it_skips)
{
	start(&plain);
	map(VA, frame_with(1), RW);
	map(VA + PAGE, frame_with(2), RW);
	HX_CHECK_EQUAL(read_at(VA) + read_at(VA + PAGE), 3);
	hx_hal_pte_store(entry_of(root, VA, 0), 0);
	hx_hal_pte_store(entry_of(root, VA + PAGE, 0), 0);
	struct hx_tlb_range huge = {.va = hx_va(VA), .pages = 1, .level = 1};
	hx_hal_tlb_local(&huge, 1);
	HX_CHECK_EQUAL(read_at(VA), 0);
	HX_CHECK_EQUAL(read_at(VA + PAGE), 2); /* one address was named, not 512 */
	HX_CHECK_EQUAL(stale_count, 1);
	huge.pages = 1000;
	huge.va.v -= HX_MIB(200);
	hx_hal_tlb_local(&huge, 1);
	HX_CHECK_EQUAL(read_at(VA + PAGE), 2);
	huge.va.v += PAGE;
	hx_hal_tlb_local(&huge, 1);
	HX_CHECK_EQUAL(read_at(VA + PAGE), 0);
}

HX_TEST(a_freed_table_is_walked_until_tables_are_flushed)
{
	start(&plain);
	uint64_t spared = frame_with(8);
	map(VA, frame_with(7), RW);
	map(VA + PAGE, spared, RW);
	HX_CHECK_EQUAL(read_at(VA), 7); /* caches the table pointer, not the second page */
	hx_pte *upper = entry_of(root, VA, 1);
	uint64_t table = hx_hal_pte_pa(*upper, 1).v;
	hx_hal_pte_store(upper, 0);
	struct hx_tlb_range pages = {.va = hx_va(VA), .pages = 512};
	hx_hal_tlb_local(&pages, 1);
	HX_CHECK(hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(table))));
	HX_CHECK_EQUAL(hx_sim_audit(), 1);
	HX_CHECK_EQUAL(read_at(VA + PAGE), 8); /* through a table that is no longer there */
	HX_CHECK(stale_count > 0);
	HX_CHECK(last_stale.table);
	HX_CHECK_EQUAL(last_stale.used.v, table);
	pages.tables = true;
	hx_hal_tlb_local(&pages, 1);
	HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(table))));
	stale_count = 0;
	HX_CHECK_EQUAL(read_at(VA + PAGE), 0);
	HX_CHECK_EQUAL(stale_count, 0);
}

HX_TEST(absence_is_cached_where_it_may_be)
{
	start(&plain);
	bool cached = (hx_hal_geometry.features & HX_MMU_NEGATIVE_CACHING) != 0;
	map(VA + PAGE, frame_with(1), RW); /* the table is there */
	HX_CHECK_EQUAL(read_at(VA), 0);
	uint64_t pa = frame_with(6);
	hx_hal_pte_store(entry_of(root, VA, 0),
			 hx_hal_pte_leaf(hx_pa(pa), hx_hal_pte_prot(RW, 0), 0));
	HX_CHECK_EQUAL(read_at(VA), cached ? 0 : 6);
	HX_CHECK_EQUAL(hx_sim_counters().spurious_faults, cached);
	hx_hal_pt_publish();
	HX_CHECK_EQUAL(read_at(VA), 6);
	/* Absence of a whole table is not undone by naming the page. */
	uint64_t far = VA + HX_GIB(2);
	HX_CHECK_EQUAL(read_at(far), 0);
	hx_hal_pte_store(entry_of(root, far, 0),
			 hx_hal_pte_leaf(hx_pa(pa), hx_hal_pte_prot(RW, 0), 0));
	flush_page(far);
	HX_CHECK_EQUAL(read_at(far), cached ? 0 : 6);
	hx_hal_pt_publish();
	HX_CHECK_EQUAL(read_at(far), 6);
	HX_CHECK_EQUAL(stale_count, 0);
}

/* ---- Late stores ---- */

static const struct hx_sim_config late = {
	.prefetch = HX_SIM_OFF, .late_stores = HX_SIM_ON, .hardware_ad = HX_SIM_ON};

static hx_pte leaf_of(uint64_t pa, uint64_t flags)
{
	return hx_hal_pte_leaf(hx_pa(pa), hx_hal_pte_prot(flags, 0), 0);
}

/* What makes a store of this CPU visible to its own walker. */
enum how { NOTHING, PUBLISH, FLUSH, LOAD, LOAD_AND_KEEP, UPDATE, EXCHANGE, HOWS };

static void make_visible(enum how how)
{
	hx_pte *other = entry_of(root, VA + 100 * PAGE, 0), e = *other;
	switch (how) {
	case PUBLISH:
		hx_hal_pt_publish();
		break;
	case FLUSH:
		flush_page(VA + 50 * PAGE);
		break;
	case LOAD:
	case LOAD_AND_KEEP:
		hx_hal_root_load(hx_pa(root), 0, how == LOAD_AND_KEEP);
		break;
	case UPDATE:
		HX_CHECK(hx_hal_pte_update(other, &e, leaf_of(HX_MIB(32), RW)));
		break;
	case EXCHANGE:
		(void)hx_hal_pte_exchange(other, leaf_of(HX_MIB(32), RW));
		break;
	case NOTHING:
	case HOWS:
		break;
	}
}

HX_TEST(stores_are_late_until_they_are_published)
{
	for (enum how how = NOTHING; how < HOWS; how++) {
		start(&late);
		map(VA, frame_with(3), RW); /* the tables are there */
		uint64_t pa = frame_with(4);
		hx_pte *e = entry_of(root, VA + PAGE, 0);
		hx_hal_pte_store(e, leaf_of(pa, RW));
		HX_CHECK_EQUAL(hx_hal_pte_load(e), leaf_of(pa, RW)); /* software sees it */
		make_visible(how);
		bool seen = how != NOTHING && how != LOAD_AND_KEEP;
		HX_CHECK_EQUAL(read_at(VA + PAGE), seen ? 4 : 0);
		hx_hal_pt_publish();
		HX_CHECK_EQUAL(read_at(VA + PAGE), 4);
		HX_CHECK_EQUAL(stale_count, 0);
	}
}

HX_TEST(an_entry_taken_away_late_is_still_walked)
{
	start(&late);
	map(VA, frame_with(3), RW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
	hx_hal_pte_store(entry_of(root, VA, 0), 0);
	HX_CHECK_EQUAL(read_at(VA), 3);
	HX_CHECK_EQUAL(stale_count, 1);
	flush_page(VA);
	HX_CHECK_EQUAL(read_at(VA), 0);
	/* The walker's own mark finds the entry as it is. */
	map(VA + PAGE, frame_with(4), HX_PAGE_PRESENT);
	hx_hal_pte_store(entry_of(root, VA + PAGE, 0), 0);
	HX_CHECK_EQUAL(read_at(VA + PAGE), 0);
	HX_CHECK_EQUAL(*entry_of(root, VA + PAGE, 0), 0);
	HX_CHECK_EQUAL(stale_count, 1);
}

HX_TEST(late_stores_stay_in_order)
{
	enum { ROUNDS = 200, STORES = 12 };
	start(&late);
	uint64_t pa = frame_with(9);
	unsigned some = 0;
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (unsigned i = 0; i < STORES; i++) {
			(void)hx_hal_pte_exchange(entry_of(root, VA + i * PAGE, 0), 0);
		}
		hx_hal_tlb_local(&(struct hx_tlb_range){.tables = true}, 1);
		for (unsigned i = 0; i < STORES; i++) {
			hx_hal_pte_store(entry_of(root, VA + i * PAGE, 0), leaf_of(pa, RW));
		}
		unsigned visible = 0;
		while (visible < STORES && read_at(VA + visible * PAGE) == 9) {
			visible++;
		}
		for (unsigned i = visible; i < STORES; i++) {
			HX_CHECK_EQUAL(read_at(VA + i * PAGE), 0);
		}
		some += visible > 0;
		HX_CHECK(visible < STORES); /* the last one never comes by itself */
		hx_hal_pt_publish();
	}
	HX_CHECK(some > ROUNDS / 4 && some < ROUNDS);
}

/* CPU 1 runs the same tables; this thread plays both. */
static void play_two(void)
{
	hx_sim_play(1);
	hx_hal_mmu_init();
	hx_hal_root_load(hx_pa(root), 0, false);
	hx_sim_play(0);
}

static uint64_t read_on(unsigned cpu, uint64_t va)
{
	hx_sim_play(cpu);
	uint64_t value = read_at(va);
	hx_sim_play(0);
	return value;
}

HX_TEST(each_cpu_publishes_its_own_stores)
{
	start(&late);
	map(VA, frame_with(3), RW);
	play_two();
	const uint64_t marks = HX_PAGE_ACCESSED | HX_PAGE_DIRTY; /* no walker marks it */
	uint64_t pa = frame_with(4);
	for (enum how how = PUBLISH; how <= FLUSH; how++) {
		uint64_t va = VA + how * PAGE;
		/* What another CPU does shows the store to its own walker alone. */
		hx_hal_pte_store(entry_of(root, va, 0), leaf_of(pa, RW | marks));
		hx_sim_play(1);
		make_visible(how);
		hx_sim_play(0);
		HX_CHECK_EQUAL(read_on(1, va), 4);
		HX_CHECK_EQUAL(read_on(0, va), 0);
		hx_hal_pt_publish();
		HX_CHECK_EQUAL(read_on(0, va), 4);
	}
	/* No walker goes back behind what it has seen. */
	hx_pte *e = entry_of(root, VA + 9 * PAGE, 0);
	hx_hal_pte_store(e, leaf_of(pa, RO | marks));
	hx_sim_play(1);
	make_visible(PUBLISH);
	hx_sim_play(0);
	hx_hal_pte_store(e, hx_hal_pte_soft(1));
	HX_CHECK_EQUAL(read_on(1, VA + 9 * PAGE), 4);
	HX_CHECK_EQUAL(read_on(0, VA + 9 * PAGE), 4);
}

HX_TEST(an_entry_overwritten_by_plain_stores_is_not_late)
{
	start(&late);
	map(VA, frame_with(3), RW);
	hx_pte *e = entry_of(root, VA + PAGE, 0);
	hx_hal_pte_store(e, leaf_of(frame_with(4), RW));
	*e = leaf_of(frame_with(5), RW); /* the table's frame was given to somebody else */
	HX_CHECK_EQUAL(read_at(VA + PAGE), 5);
}

/* ---- Prefetch ---- */

/* Entries that come by reading VA alone, of eight pages in other tables. */
static unsigned fetched(const struct hx_sim_config *c, uint64_t flags, bool *marked)
{
	enum { FAR = 8, READS = 20000 };
	start(c);
	map(VA, frame_with(1), RW | HX_PAGE_ACCESSED);
	for (unsigned i = 1; i <= FAR; i++) {
		map(VA + i * HX_MIB(2), frame_with(1 + i), flags);
#ifdef HX_SIM_CODEC_X86_64
		*entry_of(root, VA + i * HX_MIB(2), 1) |= HX_X86_A;
#endif
	}
	for (unsigned i = 0; i < READS; i++) {
		HX_CHECK_EQUAL(read_at(VA), 1);
	}
	*marked = false;
	for (unsigned i = 1; i <= FAR; i++) {
		hx_pte *e = entry_of(root, VA + i * HX_MIB(2), 0);
		*marked |= (hx_hal_pte_flags(*e, 0) & HX_PAGE_ACCESSED) != 0;
		*e = 0;
	}
	return hx_sim_audit();
}

HX_TEST(what_can_be_reached_is_prefetched)
{
	const uint64_t unmarked = HX_PAGE_PRESENT, accessed = unmarked | HX_PAGE_ACCESSED;
	struct hx_sim_config c = {.hardware_ad = HX_SIM_ON};
	bool marked;
	HX_CHECK_EQUAL(fetched(&c, accessed, &marked), 8);
	HX_CHECK_EQUAL(fetched(&c, unmarked, &marked), 0);
	HX_CHECK(!marked);
	c.speculative_accessed = HX_SIM_ON;
	HX_CHECK_EQUAL(fetched(&c, unmarked, &marked), 8);
	HX_CHECK(marked);
	c.hardware_ad = HX_SIM_OFF; /* then it cannot mark */
	HX_CHECK_EQUAL(fetched(&c, unmarked, &marked), 0);
	c.prefetch = HX_SIM_OFF;
	HX_CHECK_EQUAL(fetched(&c, accessed, &marked), 0);
}

HX_TEST(a_flush_that_comes_too_early_is_in_vain)
{
	for (enum hx_sim_switch prefetch = HX_SIM_OFF; prefetch <= HX_SIM_ON; prefetch++) {
		start(&(struct hx_sim_config){.prefetch = prefetch, .late_stores = HX_SIM_OFF});
		map(VA, frame_with(1), RW | HX_PAGE_ACCESSED);
		HX_CHECK_EQUAL(read_at(VA), 1);
		flush_page(VA);
		hx_hal_pte_store(entry_of(root, VA, 0), 0);
		HX_CHECK_EQUAL(hx_sim_audit(), prefetch == HX_SIM_ON);
	}
}

HX_TEST(a_freed_table_is_prefetched_from)
{
	enum { READS = 20000 };
	start(&(struct hx_sim_config){.late_stores = HX_SIM_OFF});
	map(VA, frame_with(1), RW | HX_PAGE_ACCESSED);
	map(VA + HX_GIB(1), frame_with(2), RW | HX_PAGE_ACCESSED);
	HX_CHECK_EQUAL(read_at(VA) + read_at(VA + HX_GIB(1)), 3);
	hx_pte *upper = entry_of(root, VA, 1), *e = entry_of(root, VA, 0);
	hx_hal_pte_store(upper, 0);
	e[300] = leaf_of(frame_with(3), RW | HX_PAGE_ACCESSED); /* the frame's next life */
	unsigned before = hx_sim_audit();
	for (unsigned i = 0; i < READS; i++) {
		HX_CHECK_EQUAL(read_at(VA + HX_GIB(1)), 2);
	}
	HX_CHECK_EQUAL(hx_sim_audit(), before + 1);
}

/* ---- Break before make ---- */

HX_TEST(valid_entries_must_be_broken_before_they_change)
{
	struct hx_sim_config c = plain;
	for (c.break_before_make = HX_SIM_OFF; c.break_before_make <= HX_SIM_ON;
	     c.break_before_make++) {
		bool wanted = c.break_before_make == HX_SIM_ON;
		start(&c);
		const uint64_t pa = frame_with(1), other = frame_with(2);
		const uint64_t all = RW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
		const struct {
			uint64_t before, after;
			bool moved, conflicts;
		} cases[] = {
			{all, all, false, false},
			{all, all, true, true},
			{all, all & ~HX_PAGE_WRITABLE, false, false},
			{all, all | HX_PAGE_USER, false, false},
			{all, all & ~(HX_PAGE_ACCESSED | HX_PAGE_DIRTY), false, false},
			{all, all | HX_PAGE_NO_CACHE, false, true},
			{all | HX_PAGE_WRITE_THROUGH, all, false, true},
			{all, all | HX_PAGE_GLOBAL, false, true},
			{all | HX_PAGE_GLOBAL, all, false, false},
		};
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
			for (unsigned held = 0; held < 2; held++) { /* by a TLB; else it could be */
				for (unsigned how = 0; how < 3; how++) {
					hx_pte *e = entry_of(root, VA, 0);
					hx_pte new = leaf_of(cases[i].moved ? other : pa,
							     cases[i].after);
					hx_pte old = leaf_of(pa, cases[i].before);
					hx_hal_pte_store(e, 0);
					hx_hal_tlb_local(&(struct hx_tlb_range){.global = true}, 1);
					hx_hal_pte_store(e, old);
					hx_hal_pt_publish();
					HX_CHECK(!held || read_at(VA) == 1);
					conflict_count = 0;
					old = *e;
					if (how == 0) {
						hx_hal_pte_store(e, new);
					} else if (how == 1) {
						(void)hx_hal_pte_exchange(e, new);
					} else {
						HX_CHECK(hx_hal_pte_update(e, &old, new));
					}
					HX_CHECK_EQUAL(conflict_count,
						       wanted && cases[i].conflicts);
				}
			}
		}
	}
}

HX_TEST(a_break_counts_once_it_is_invalidated)
{
	struct hx_sim_config c = plain;
	c.break_before_make = HX_SIM_ON;
	start(&c);
	hx_pte first = leaf_of(frame_with(1), RW), second = leaf_of(frame_with(2), RW);
	hx_pte *e = entry_of(root, VA, 0);
	map(VA, frame_with(3), RW);
	for (unsigned flushes = 0; flushes < 2; flushes++) {
		hx_hal_pte_store(e, 0);
		flush_page(VA);
		hx_hal_pte_store(e, first);
		hx_hal_pt_publish();
		HX_CHECK_EQUAL(read_at(VA), 1);
		conflict_count = 0;
		(void)hx_hal_pte_exchange(e, hx_hal_pte_soft(0));
		if (flushes) {
			flush_page(VA);
		}
		hx_hal_pte_store(e, second);
		HX_CHECK_EQUAL(conflict_count, !flushes);
	}
	/* Sizes: a huge leaf becomes a table that maps the same. */
	uint64_t pa = take_frames(HX_MIB(2)), table = take_frames(PAGE), va = VA + HX_GIB(1);
	map_at(va, pa, RW | HX_PAGE_ACCESSED, 1);
	HX_CHECK(write_at(va, 1));
	for (unsigned i = 0; i < 512; i++) {
		*slot(table, 0, va + i * PAGE) = leaf_of(pa + i * PAGE, RW | HX_PAGE_ACCESSED);
	}
	conflict_count = 0;
	(void)hx_hal_pte_exchange(entry_of(root, va, 1), hx_hal_pte_table(hx_pa(table)));
	HX_CHECK_EQUAL(conflict_count, 1);
	HX_CHECK(hx_sim_audit() > 0); /* both sizes may serve */
	flush_page(va);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(conflict_count, 1);
	HX_CHECK_EQUAL(read_at(va), 1);
	/* A table that nobody can reach is written as one likes. */
	hx_hal_pte_store(slot(take_frames(PAGE), 0, va), first);
	hx_pte *loose = slot(next_frame - PAGE, 0, va);
	hx_hal_pte_store(loose, second);
	HX_CHECK_EQUAL(conflict_count, 1);
}

HX_TEST(two_translations_of_one_address_are_a_conflict)
{
	struct hx_sim_config c = plain;
	c.break_before_make = HX_SIM_ON;
	start(&c);
	map(VA, frame_with(1), HX_PAGE_PRESENT | HX_PAGE_ACCESSED);
	HX_CHECK_EQUAL(read_at(VA), 1);
	/* Another path to the address: the old page is still cached, and refuses the write. */
	uint64_t table = take_frames(PAGE);
	*slot(table, 0, VA) = leaf_of(frame_with(2), RW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY);
	hx_hal_pte_store(entry_of(root, VA, 1), 0);
	hx_hal_tlb_local(&(struct hx_tlb_range){.va = hx_va(VA + PAGE), .pages = 1, .tables = true},
			 1);
	hx_hal_pte_store(entry_of(root, VA, 1), hx_hal_pte_table(hx_pa(table)));
	HX_CHECK_EQUAL(conflict_count, 0);
	hx_hal_pt_publish();
	*slot(table, 0, VA + PAGE) = leaf_of(frame_with(3), RW | HX_PAGE_ACCESSED);
	*slot(table, 0, VA) |= hx_hal_pte_prot(HX_PAGE_ACCESSED, 0);
	HX_CHECK_EQUAL(read_at(VA + PAGE), 3); /* its neighbour comes with the line */
	HX_CHECK_EQUAL(conflict_count, 1);
}

/* ---- Audits of what is released ---- */

HX_TEST(released_frames_must_be_out_of_reach)
{
	struct hx_sim_config c = plain;
	start(&c);
	uint64_t pa = take_frames(4 * PAGE);
	struct hx_pfn frame = hx_pa_to_pfn(hx_pa(pa));
	*(uint64_t *)hx_ptr(hx_pa(pa + PAGE)) = 1;
	map(VA, pa + PAGE, RW);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 4), 0);
	HX_CHECK_EQUAL(read_at(VA), 1);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 4), 1); /* released while it is mapped */
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 1), 0);
	HX_CHECK_EQUAL(hx_sim_audit_release(hx_pfn(frame.v + 1), 1), 1);
	HX_CHECK_EQUAL(hx_sim_audit_release(hx_pfn(frame.v + 2), 2), 0);
	hx_hal_pte_store(entry_of(root, VA, 0), 0);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 4), 1);
	flush_page(VA);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 4), 0);
	/* A huge leaf reaches all of its frames. */
	uint64_t huge = take_frames(HX_MIB(2)), at = VA + HX_GIB(1);
	map_at(at, huge, RW, 1);
	HX_CHECK(write_at(at, 1));
	HX_CHECK_EQUAL(hx_sim_audit_release(hx_pfn((huge >> 12) + 511), 1), 1);
	/* Tables, and the root itself. */
	struct hx_pfn table = hx_pa_to_pfn(hx_hal_pte_pa(*entry_of(root, VA, 1), 1));
	HX_CHECK_EQUAL(hx_sim_audit_release(table, 1), 1);
	HX_CHECK_EQUAL(hx_sim_audit_release(hx_pa_to_pfn(hx_pa(root)), 1), 1);
	/* The direct map may name a frame, while it says the same as the tables. */
	uint64_t direct = -(UINT64_C(1) << (hx_hal_geometry.va_bits - 1)) + pa;
	map(direct, pa, RW);
	HX_CHECK(write_at(direct, 5));
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 1), 0);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 2), 0);
	hx_hal_pte_store(entry_of(root, direct, 0), 0);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 1), 1);
	HX_CHECK_EQUAL(hx_sim_audit_release(frame, 2), 1);
}

/* ---- One thread, several CPUs ---- */

static unsigned steps;

static void count_step(void)
{
	steps++;
	hx_hal_pte_store(entry_of(root, VA + PAGE, 0), 0); /* is not stepped itself */
}

HX_TEST(a_thread_plays_several_cpus)
{
	start(&(struct hx_sim_config){.broadcast = HX_SIM_OFF, .prefetch = HX_SIM_OFF});
	map(VA, frame_with(5), RW);
	play_two();
	HX_CHECK_EQUAL(hx_hal_cpu_id(), 0);
	HX_CHECK_EQUAL(read_on(1, VA), 5);
	hx_hal_pte_store(entry_of(root, VA, 0), 0);
	flush_page(VA);
	HX_CHECK_EQUAL(read_on(0, VA), 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 1); /* CPU 1's */
	/* The interrupt of the one that it does not play comes where the other waits. */
	static const struct hx_tlb_range page = {.va = {VA}, .pages = 1};
	posted = &page;
	hx_hal_ipi_tlb(hx_cpus_of(1));
	HX_CHECK_EQUAL(interrupts, 0);
	hx_hal_relax();
	HX_CHECK_EQUAL(interrupts, 1);
	HX_CHECK_EQUAL(hx_hal_cpu_id(), 0);
	HX_CHECK_EQUAL(hx_sim_audit(), 0);
	HX_CHECK_EQUAL(read_on(1, VA), 0);
	start(&plain); /* none of them runs any more */
	HX_CHECK_EQUAL(hx_hal_cpu_id(), 0);
}

HX_TEST(a_test_is_let_in_between_two_steps)
{
	start(&plain);
	map(VA, frame_with(5), RW);
	hx_pte *p = entry_of(root, VA, 0), e = *p;
	(void)entry_of(root, VA + PAGE, 0);
	steps = 0;
	hx_sim_on_step(count_step);
	hx_hal_pte_store(p, e);
	HX_CHECK_EQUAL(steps, 2); /* before and after */
	(void)hx_hal_pte_exchange(p, e);
	HX_CHECK(hx_hal_pte_update(p, &e, e));
	HX_CHECK_EQUAL(steps, 6);
	flush_page(VA);
	hx_hal_root_load(hx_pa(root), 0, false);
	hx_hal_pt_publish();
	HX_CHECK_EQUAL(steps, 12);
	hx_sim_on_step(NULL);
	hx_hal_pte_store(p, e);
	HX_CHECK_EQUAL(steps, 12);
}

HX_TEST(levels_may_have_other_sizes)
{
	start(&(struct hx_sim_config){.bits = {7, 8, 9, 6, 5}});
	HX_CHECK_EQUAL(hx_hal_geometry.bits[1], 8);
	unsigned bits = 12;
	for (unsigned l = 0; l < hx_hal_geometry.levels; l++) {
		bits += hx_hal_geometry.bits[l];
	}
	HX_CHECK_EQUAL(hx_hal_geometry.va_bits, bits);
	uint64_t va = UINT64_C(0x6d2345) << 12, upper = va ^ UINT64_C(1) << (12 + 7 + 8);
	map(va, frame_with(8), RW);
	map(upper, frame_with(9), RW);
	HX_CHECK_EQUAL(read_at(va), 8);
	HX_CHECK_EQUAL(read_at(upper), 9);
	HX_CHECK_EQUAL(read_at(va ^ UINT64_C(1) << (12 + 7)), 0);
}

/* ---- CPUs ---- */

/* CPU 1 reads VA each time it is asked to. */
static unsigned asked, answered;
static uint64_t answer;

static void answer_reads(void *argument)
{
	(void)argument;
	hx_hal_mmu_init();
	hx_hal_root_load(hx_pa(root), 0, false);
	for (unsigned n = 1;; n++) {
		while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) < n) {
			hx_sim_sleep();
		}
		answer = read_at(VA);
		__atomic_store_n(&answered, n, __ATOMIC_RELEASE);
		hx_sim_wake(0);
	}
}

static uint64_t ask_cpu1(void)
{
	unsigned n = __atomic_add_fetch(&asked, 1, __ATOMIC_RELEASE);
	hx_sim_wake(1);
	while (__atomic_load_n(&answered, __ATOMIC_ACQUIRE) < n) {
		hx_sim_sleep();
	}
	return answer;
}

HX_TEST(another_cpu_stays_stale_until_it_is_told)
{
	for (enum hx_sim_switch broadcast = HX_SIM_OFF; broadcast <= HX_SIM_ON; broadcast++) {
		pid_t child = fork(); /* the machine cannot be configured under a running CPU */
		if (child > 0) {
			int status;
			HX_REQUIRE(waitpid(child, &status, 0) == child);
			HX_CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
			continue;
		}
		start(&(struct hx_sim_config){.broadcast = broadcast});
		uint64_t pa = frame_with(5);
		map(VA, pa, RW);
		HX_CHECK(hx_sim_cpu_start(1, answer_reads, NULL));
		HX_CHECK(!hx_sim_cpu_start(1, answer_reads, NULL)); /* taken */
		HX_CHECK_EQUAL(ask_cpu1(), 5);
		HX_CHECK_EQUAL(read_at(VA), 5);
		hx_hal_pte_store(entry_of(root, VA, 0), 0);
		flush_page(VA);
		HX_CHECK_EQUAL(read_at(VA), 0);
		HX_CHECK_EQUAL(ask_cpu1(), 5); /* nobody told it */
		HX_CHECK_EQUAL(stale_count, 1);
		HX_CHECK_EQUAL(last_stale.cpu, 1);
		HX_CHECK(hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(pa))));
		static const struct hx_tlb_range page = {.va = {VA}, .pages = 1};
		bool told = hx_hal_tlb_broadcast(&page, 1, hx_cpus_of(1));
		HX_CHECK_EQUAL(told, broadcast == HX_SIM_ON);
		HX_CHECK_EQUAL((hx_hal_geometry.features & HX_MMU_BROADCAST) != 0, told);
		if (!told) {
			posted = &page;
			hx_hal_ipi_tlb(hx_cpus_of(1));
			while (__atomic_load_n(&interrupts, __ATOMIC_ACQUIRE) == 0) {
				hx_hal_relax();
			}
			HX_CHECK_EQUAL(hx_sim_counters().ipis, 1);
		}
		HX_CHECK(!hx_sim_audit_frame(hx_pa_to_pfn(hx_pa(pa))));
		HX_CHECK_EQUAL(ask_cpu1(), 0);
		HX_CHECK_EQUAL(stale_count, 1);
		_exit(hx_test_failures() == 0 ? 0 : 1);
	}
}

HX_TEST(interrupts_wait_until_they_are_on)
{
	start(&plain);
	HX_CHECK_EQUAL(hx_hal_cpu_id(), 0);
	unsigned long outer = hx_hal_irq_save();
	unsigned long inner = hx_hal_irq_save();
	hx_hal_ipi_tlb(hx_cpus_of(0));
	hx_hal_relax();
	hx_hal_irq_restore(inner); /* still off */
	hx_hal_relax();
	hx_sim_sleep(); /* an interrupt that is pending ends it */
	HX_CHECK_EQUAL(interrupts, 0);
	hx_hal_irq_restore(outer);
	HX_CHECK_EQUAL(interrupts, 1);
	hx_hal_relax();
	HX_CHECK_EQUAL(interrupts, 1);
	hx_hal_ipi_tlb(hx_cpus_of(0));
	hx_hal_relax();
	HX_CHECK_EQUAL(interrupts, 2);
	hx_hal_ipi_tlb(hx_cpus_of(0));
	(void)read_at(VA); /* between two instructions */
	HX_CHECK_EQUAL(interrupts, 3);
}

static void *note_id(void *argument)
{
	*(unsigned *)argument = hx_hal_cpu_id();
	return NULL;
}

HX_TEST(any_thread_is_a_cpu_while_it_lives)
{
	start(&plain);
	for (unsigned i = 0; i < 200; i++) { /* more than there are numbers */
		unsigned id = 0;
		pthread_t thread;
		HX_REQUIRE(pthread_create(&thread, NULL, note_id, &id) == 0);
		pthread_join(thread, NULL);
		HX_CHECK_EQUAL(id, 1);
	}
}

/* ---- Memory ---- */

/* Does touching the byte end the program? */
static bool dies(uint64_t pa)
{
	pid_t child = fork();
	if (child == 0) {
		close(STDERR_FILENO); /* a sanitizer would tell at length */
		*(volatile char *)hx_ptr(hx_pa(pa)) = 1;
		_exit(0);
	}
	int status;
	return waitpid(child, &status, 0) == child &&
	       !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

HX_TEST(only_memory_can_be_touched)
{
	start(&plain);
	HX_CHECK(!dies(0));
	HX_CHECK(!dies(HX_MIB(128) - 1));
	HX_CHECK(dies(HX_MIB(128)));
	HX_CHECK(dies(HX_MIB(136) - 1));
	HX_CHECK(!dies(HX_MIB(264) - 1));
	HX_CHECK(dies(HX_MIB(264)));
	HX_CHECK(!dies(HX_GIB(4)));
	HX_CHECK(hx_sim_has_memory(hx_pa(0), HX_MIB(128)));
	HX_CHECK(!hx_sim_has_memory(hx_pa(1), HX_MIB(128)));
	HX_CHECK(!hx_sim_has_memory(hx_pa(UINT64_MAX - 7), 8));
	HX_CHECK(hx_sim_has_memory(hx_pa(HX_GIB(4)), HX_MIB(64)));
	HX_CHECK(!hx_sim_has_memory(hx_pa(HX_GIB(4)), HX_MIB(64) + 1));
}

HX_TEST(hostile_words_of_firmware_are_carried)
{
	static const struct hx_memory_range words[] = {
		{{HX_MIB(32)}, HX_MIB(32), HX_MEMORY_RAM, 1},
		{{0}, HX_MIB(40), HX_MEMORY_RAM, 0}, /* overlaps, unsorted */
		{{HX_MIB(8)}, HX_MIB(1), HX_MEMORY_BAD, 0},
		{{HX_MIB(50) + 100}, 0, HX_MEMORY_RAM, 0},               /* empty */
		{{UINT64_MAX - 4095}, HX_MIB(1), HX_MEMORY_RESERVED, 0}, /* wraps */
		{{HX_GIB(8) + 123}, 5000, HX_MEMORY_ACPI, 0},            /* odd */
	};
	start(&(struct hx_sim_config){.ranges = words, .range_count = HX_ARRAY_LENGTH(words)});
	uint32_t iterator = 0;
	struct hx_memory_range r = {.bytes = 1};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(words); i++) {
		HX_REQUIRE(hx_hal_memory_next(&iterator, &r));
		HX_CHECK(r.base.v == words[i].base.v && r.bytes == words[i].bytes &&
			 r.type == words[i].type && r.node == words[i].node);
	}
	HX_CHECK(!hx_hal_memory_next(&iterator, &r));
	HX_CHECK(!dies(HX_MIB(36)));
	HX_CHECK(hx_sim_has_memory(hx_pa(HX_MIB(30)), HX_MIB(34)));
	HX_CHECK(!hx_sim_has_memory(hx_pa(HX_MIB(7)), HX_MIB(2)));
	HX_CHECK(dies(HX_MIB(8)));
	HX_CHECK(!dies(HX_GIB(8) + 5122));
	struct hx_cpu_info cpu;
	unsigned cpus = 0, boot = 0;
	for (iterator = 0; hx_hal_cpu_next(&iterator, &cpu); cpus++) {
		boot += cpu.boot;
	}
	HX_CHECK_EQUAL(cpus, 4);
	HX_CHECK_EQUAL(boot, 1);
}

HX_TEST(a_terabyte_costs_nothing_until_it_is_used)
{
	static const struct hx_memory_range words[] = {{{0}, HX_TIB(1), HX_MEMORY_RAM, 0}};
	start(&(struct hx_sim_config){.ranges = words, .range_count = 1});
	map(VA, HX_TIB(1) - PAGE, RW);
	HX_CHECK(write_at(VA, 42));
	HX_CHECK_EQUAL(*(uint64_t *)hx_ptr(hx_pa(HX_TIB(1) - PAGE)), 42);
}

HX_SUITE(sim, HX_CASE(leaves_of_every_size_translate), HX_CASE(accesses_of_every_width),
	 HX_CASE(rights_are_enforced), HX_CASE(what_is_not_a_leaf_faults),
	 HX_CASE(reserved_encodings_are_no_leaves),
	 HX_CASE(a_leaf_size_that_the_machine_lacks_faults), HX_CASE(accessed_and_dirty_are_set),
	 HX_CASE(without_hardware_bits_an_unmarked_page_faults),
	 HX_CASE(remap_without_flush_reads_the_old_frame), HX_CASE(unmap_without_flush_still_reads),
	 HX_CASE(lowered_rights_without_flush_still_grant),
	 HX_CASE(raised_rights_without_flush_fault_spuriously), HX_CASE(nothing_is_ever_evicted),
	 HX_CASE(neighbours_that_are_accessed_are_prefetched),
	 HX_CASE(a_group_is_cached_with_one_of_its_leaves),
	 HX_CASE(a_false_group_faults_and_is_reported),
	 HX_CASE(global_entries_outlive_what_does_not_name_them),
	 HX_CASE(entries_belong_to_their_address_space), HX_CASE(huge_entries_are_one_entry),
	 HX_CASE(a_stride_skips_what_it_skips),
	 HX_CASE(a_freed_table_is_walked_until_tables_are_flushed),
	 HX_CASE(absence_is_cached_where_it_may_be),
	 HX_CASE(stores_are_late_until_they_are_published),
	 HX_CASE(an_entry_taken_away_late_is_still_walked), HX_CASE(late_stores_stay_in_order),
	 HX_CASE(each_cpu_publishes_its_own_stores),
	 HX_CASE(an_entry_overwritten_by_plain_stores_is_not_late),
	 HX_CASE(what_can_be_reached_is_prefetched),
	 HX_CASE(a_flush_that_comes_too_early_is_in_vain),
	 HX_CASE(a_freed_table_is_prefetched_from),
	 HX_CASE(valid_entries_must_be_broken_before_they_change),
	 HX_CASE(a_break_counts_once_it_is_invalidated),
	 HX_CASE(two_translations_of_one_address_are_a_conflict),
	 HX_CASE(released_frames_must_be_out_of_reach), HX_CASE(a_thread_plays_several_cpus),
	 HX_CASE(a_test_is_let_in_between_two_steps), HX_CASE(levels_may_have_other_sizes),
	 HX_CASE(another_cpu_stays_stale_until_it_is_told),
	 HX_CASE(interrupts_wait_until_they_are_on), HX_CASE(any_thread_is_a_cpu_while_it_lives),
	 HX_CASE(only_memory_can_be_touched), HX_CASE(hostile_words_of_firmware_are_carried),
	 HX_CASE(a_terabyte_costs_nothing_until_it_is_used));
