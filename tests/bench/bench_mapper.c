/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The mapper against the bound of what it does: a scalar loop that stores (or
 * loads) the same page-table entries, 512 tables of them, and nothing else.
 *
 * All tables come out of one zone of simulated memory, touched beforehand, so that
 * neither side pays for the host's page faults. The subject with a frame database
 * tags each table, as a booted kernel does.
 */
#include <stdio.h>
#include <stdlib.h>

#include <sim.h>

#include <hx/mapper.h>

#include "bench.h"

#ifdef HX_SIM_CODEC_X86_64
#define CODEC "x86_64"
#else
#define CODEC "riscv64"
#endif

#define PAGE HX_FRAME_BYTES
#define TABLE_SPAN HX_MIB(2)
#define SPAN HX_GIB(1)
#define VA ((uintptr_t)HX_GIB(64))
#define PA HX_GIB(16)
#define URW (HX_PAGE_USER_WRITE | HX_PAGE_NO_EXECUTE)
#define URO (HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE)

enum { TABLES = 512, ENTRIES = 512, PAGES = TABLES * ENTRIES, PAIRS = 10000 };

static struct hx_frames frames;
static struct hx_framedb framedb;
static struct hx_pagetable kernel;
/* One with a frame database, one without; and one whose tables are always there. */
static struct hx_pagetable plain, tagged, standing;
static hx_pte *stream_tables[TABLES];

static void must(hx_status s, const char *what)
{
	if (s != HX_OK) {
		fprintf(stderr, "%s: %s\n", what, hx_status_name(s));
		exit(1);
	}
}

#define MUST(call) must(call, #call)

/* ---- The bound ---- */

/* volatile: each store is made, one by one. */
static void stream_store(void *context)
{
	(void)context;
	hx_pte prot = hx_hal_pte_prot(URW, 0);
	uint64_t pa = PA;
	for (unsigned t = 0; t < TABLES; t++) {
		volatile hx_pte *table = stream_tables[t];
		for (unsigned i = 0; i < ENTRIES; i++, pa += PAGE) {
			table[i] = hx_hal_pte_leaf(hx_pa(pa), prot, 0);
		}
	}
}

static void stream_load(void *context)
{
	(void)context;
	uint64_t sum = 0;
	for (unsigned t = 0; t < TABLES; t++) {
		const volatile hx_pte *table = stream_tables[t];
		for (unsigned i = 0; i < ENTRIES; i++) {
			sum += hx_hal_pte_pa(table[i], 0).v;
		}
	}
	BENCH_KEEP(sum);
}

/* ---- The mapper ---- */

static void unmap_all(void *context)
{
	MUST(hx_unmap_sparse(context, hx_va(VA), SPAN, NULL, NULL));
}

static void map_all(void *context)
{
	MUST(hx_map(context, hx_va(VA), hx_pa(PA), SPAN, URW | HX_MAP_NO_HUGE));
}

static void map_fresh(void *context)
{
	unmap_all(context);
	map_all(context);
}

/* Pages that were written: the machine has nothing left to mark in them. */
static void make_used(void *context)
{
	unmap_all(context);
	MUST(hx_map(context, hx_va(VA), hx_pa(PA), SPAN,
		    URW | HX_PAGE_ACCESSED | HX_PAGE_DIRTY | HX_MAP_NO_HUGE));
}

static void make_read_only(void *context)
{
	MUST(hx_update_flags(context, hx_va(VA), SPAN, URO));
}

static void make_used_read_only(void *context)
{
	make_used(context);
	make_read_only(context);
}

static void give_write(void *context)
{
	MUST(hx_update_flags(context, hx_va(VA), SPAN, URW));
}

static uint64_t released_sum;

static void sum_released(void *context, const struct hx_released *batch)
{
	(void)context;
	uint64_t sum = 0;
	for (unsigned i = 0; i < batch->count; i++) {
		sum += batch->leaves[i];
	}
	released_sum += sum;
}

static void unmap_told(void *context)
{
	MUST(hx_unmap(context, hx_va(VA), SPAN, sum_released, NULL));
}

static void unmap_untold(void *context)
{
	MUST(hx_unmap(context, hx_va(VA), SPAN, NULL, NULL));
}

/* All pages but the last of each table: that one keeps the table. */
static void unmap_standing(void *context)
{
	for (unsigned t = 0; t < TABLES; t++) {
		MUST(hx_unmap_sparse(context, hx_va(VA + t * (uintptr_t)TABLE_SPAN),
				     TABLE_SPAN - PAGE, NULL, NULL));
	}
}

static void map_standing(void *context)
{
	for (unsigned t = 0; t < TABLES; t++) {
		MUST(hx_map(context, hx_va(VA + t * (uintptr_t)TABLE_SPAN),
			    hx_pa(PA + t * TABLE_SPAN), TABLE_SPAN - PAGE, URW | HX_MAP_NO_HUGE));
	}
}

static void translate_all(void *context)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < PAGES; i++) {
		sum += hx_translate(context, hx_va(VA + i * (uintptr_t)PAGE)).pa.v;
	}
	BENCH_KEEP(sum);
}

/* In one call for each leaf table: a caller's buffer is seldom larger. */
static void translate_range(void *context)
{
	uint64_t leaves[ENTRIES], sum = 0;
	for (unsigned t = 0; t < TABLES; t++) {
		MUST(hx_translate_range(context, hx_va(VA + t * (uintptr_t)TABLE_SPAN), ENTRIES,
					leaves));
		sum += leaves[t];
	}
	BENCH_KEEP(sum);
}

static void map_huge(void *context)
{
	MUST(hx_map(context, hx_va(VA), hx_pa(PA), SPAN, URW | HX_MAP_LEVEL_1));
}

/* Beside a neighbour the table stays; alone, tables come and go with the page. */
static void pair_beside(void *context)
{
	for (unsigned i = 0; i < PAIRS; i++) {
		struct hx_va va = hx_va(VA + (i % (ENTRIES - 1)) * (uintptr_t)PAGE);
		MUST(hx_map(context, va, hx_pa(PA), PAGE, URW));
		MUST(hx_unmap(context, va, PAGE, NULL, NULL));
	}
}

static void pair_alone(void *context)
{
	struct hx_va va = hx_va(VA + (uintptr_t)HX_GIB(2));
	for (unsigned i = 0; i < PAIRS; i++) {
		MUST(hx_map(context, va, hx_pa(PA), PAGE, URW));
		MUST(hx_unmap(context, va, PAGE, NULL, NULL));
	}
}

/* ---- Set-up ---- */

/* A zone of memory from 16 MiB, all of it touched. */
static void set_up(void)
{
	enum { FRAMES = 16384 };
	static uint8_t metadata[HX_MIB(1)] __attribute__((aligned(64)));
	static uint8_t directory[HX_KIB(64)] __attribute__((aligned(64)));
	/* The adversary's work is no part of what is measured. */
	hx_sim_configure(
		&(struct hx_sim_config){.late_stores = HX_SIM_OFF, .prefetch = HX_SIM_OFF});
	hx_hal_mmu_init();
	struct hx_pa base = hx_pa(HX_MIB(16)), end = hx_pa(base.v + FRAMES * PAGE);
	hx_memset(hx_ptr(base), 1, FRAMES * PAGE);
	MUST(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, &hx_frames_buddy, hx_pa_to_pfn(base),
				FRAMES, metadata, sizeof metadata));
	if (hx_framedb_directory_bytes(end) > sizeof directory) {
		must(HX_INVALID_SIZE, "directory");
	}
	MUST(hx_framedb_init(&framedb, &frames, directory, end));
	struct hx_pagetable_config c = {.frames = &frames, .huge = true};
	MUST(hx_pagetable_init(&kernel, &c));
	hx_pagetable_seal(&kernel);
	c.kernel = &kernel;
	MUST(hx_pagetable_init(&plain, &c));
	MUST(hx_pagetable_init(&standing, &c));
	c.db = &framedb;
	MUST(hx_pagetable_init(&tagged, &c));
	for (unsigned t = 0; t < TABLES; t++) {
		struct hx_pfn_result r = hx_frames_allocate(&frames, 0, 0);
		must(r.status, "frames");
		stream_tables[t] = hx_ptr(hx_pfn_to_pa(r.value));
	}
	map_all(&standing);
	/* This CPU runs it, as a kernel would while it changes a process's table. */
	hx_pagetable_load(&plain, NULL);
}

enum { STORE, LOAD, FIRST };

static struct bench cases[] = {
	[STORE] = {"stream-store-4k", "baseline", NULL, stream_store, NULL, PAGES, 0, {0}},
	[LOAD] = {"stream-load-4k", "baseline", NULL, stream_load, NULL, PAGES, 0, {0}},
	[FIRST] = {"bulk-map-4k", "helix", unmap_all, map_all, &plain, PAGES, 0, {0}},
	{"bulk-map-4k", "helix+framedb", unmap_all, map_all, &tagged, PAGES, 0, {0}},
	{"map-4k-standing-tables",
	 "helix",
	 unmap_standing,
	 map_standing,
	 &standing,
	 PAGES - TABLES,
	 0,
	 {0}},
	{"unmap-4k", "helix", map_fresh, unmap_untold, &plain, PAGES, 0, {0}},
	{"unmap-4k-told", "helix", map_fresh, unmap_told, &plain, PAGES, 0, {0}},
	{"protect-4k-take", "helix", make_used, make_read_only, &plain, PAGES, 0, {0}},
	{"protect-4k-give", "helix", make_used_read_only, give_write, &plain, PAGES, 0, {0}},
	{"protect-4k-unmarked", "helix", map_fresh, make_read_only, &plain, PAGES, 0, {0}},
	{"translate-4k", "helix", map_fresh, translate_range, &plain, PAGES, 0, {0}},
	{"translate-4k-one-by-one", "helix", map_fresh, translate_all, &plain, PAGES, 0, {0}},
	{"map-2m", "helix", unmap_all, map_huge, &plain, TABLES, 0, {0}},
	{"pair-4k-beside", "helix", unmap_standing, pair_beside, &standing, PAIRS, 0, {0}},
	{"pair-4k-alone", "helix", unmap_standing, pair_alone, &standing, PAIRS, 0, {0}},
};

int main(void)
{
	enum { N = sizeof cases / sizeof *cases };
	set_up();
	bench_measure(cases, N, BENCH_ROUNDS);
	bench_title(
		"mapper, %s page tables, %u levels: 1 GiB of 4 KiB pages; times are of one page,\n"
		"leaf or pair, ratios to a scalar loop that stores (loads) the same entries",
		CODEC, hx_hal_geometry.levels);
	for (unsigned i = 0; i < N; i++) {
		struct bench *b = &cases[i];
		char subject[64];
		snprintf(subject, sizeof subject, "%s-%s", b->subject, CODEC);
		b->subject = subject;
		bool whole = i >= FIRST && b->operations >= PAGES - TABLES;
		const struct bench *baseline = b->run == translate_all || b->run == translate_range ? &cases[LOAD]
					       : whole                 ? &cases[STORE]
								       : NULL;
		bench_report("mapper", b, baseline, "stream");
	}
	return 0;
}
