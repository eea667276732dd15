/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The staged boot on simulated machines of every kind: hosted only. Each boot
 * must end in HX_OK with a stack that holds together, or in a refusal; whatever
 * firmware says, no frame is handed out that has no memory behind it.
 */
#include <stdio.h>
#include <string.h>

#include <hx/boot.h>

#include "hx_test.h"
#include "sim.h"

/*
 * The pretended image, as a linker would lay it out; its physical base varies:
 *
 *   | text RX 64K | rodata R 64K | data RW 64K + arena 4M | guard 4K | stack RW 16K |
 */
enum { TEXT, RODATA, DATA, GUARD, STACK, SECTIONS };

static struct hx_image_section sections[SECTIONS];
static struct hx_boot_args args;
static struct hx_system sys;
static char log_text[16384];

static void keep_log(const char *text)
{
	size_t used = strlen(log_text);
	if (used + strlen(text) < sizeof log_text) {
		strcat(log_text, text);
	}
}

static const struct hx_boot_args *args_at(uint64_t pa, const char *command_line)
{
	static const uint64_t bytes[SECTIONS] = {
		HX_KIB(64), HX_KIB(64), HX_KIB(64) + HX_BOOT_ARENA_BYTES, HX_KIB(4), HX_KIB(16)};
	static const uint64_t flags[SECTIONS] = {
		HX_PAGE_KERNEL_CODE,
		HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE,
		HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE,
		0,
		HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE,
	};
	static const char *const own_keys[] = {"hx.own", NULL};
	static const char *const names[SECTIONS] = {"text", "rodata", "data", "guard", "stack"};
	uintptr_t va = (uintptr_t)0 - (uintptr_t)HX_GIB(1);
	uint64_t at = pa;
	for (unsigned i = 0; i < SECTIONS; i++) {
		sections[i] = (struct hx_image_section){names[i], hx_va(va), hx_pa(at), bytes[i],
							flags[i]};
		va += (uintptr_t)bytes[i];
		at += bytes[i];
	}
	args = (struct hx_boot_args){
		.command_line = command_line,
		.own_keys = own_keys,
		.arena = hx_ptr(hx_pa(sections[DATA].pa.v + HX_KIB(64))),
		.arena_va = hx_va(sections[DATA].va.v + (uintptr_t)HX_KIB(64)),
		.sections = sections,
		.section_count = SECTIONS,
	};
	return &args;
}

static const struct hx_cpu_info one_cpu = {0, 0, true};

static hx_status boot_machine(const struct hx_memory_range *ranges, unsigned count, uint64_t image,
			      const char *command_line)
{
	hx_sim_configure(&(struct hx_sim_config){
		.ranges = ranges, .range_count = count, .cpus = &one_cpu, .cpu_count = 1});
	log_text[0] = '\0';
	hx_log_to(keep_log);
	hx_status s = hx_boot(&sys, args_at(image, command_line));
	hx_log_to(NULL);
	return s;
}

static void expect_whole(void)
{
	HX_CHECK_EQUAL(sys.stage, 6);
	HX_CHECK_STATUS(hx_memmap_validate(&sys.map), HX_OK);
	HX_CHECK_STATUS(hx_frames_validate(&sys.frames), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_validate(&sys.kernel_table), HX_OK);
	HX_CHECK_STATUS(hx_heap_validate(&sys.heap), HX_OK);
	HX_CHECK_STATUS(hx_capability_validate(&sys.capabilities), HX_OK);
}

/*
 * Take every frame that is to be had, write to each one's first and last word,
 * then give all back. A frame without memory behind it dies here; one that
 * belongs to something else is caught by the validators.
 */
static void touch_all_memory(uint64_t most_frames)
{
	uint64_t *chain = NULL;
	uint64_t taken = 0;
	struct hx_pfn_result r;
	while (taken < most_frames &&
	       (r = hx_frames_allocate(&sys.frames, 0, HX_ALLOC_NO_PRESSURE)).status == HX_OK) {
		HX_REQUIRE(hx_sim_has_memory(hx_pfn_to_pa(r.value), HX_FRAME_BYTES));
		const struct hx_memory_range *in = hx_memmap_find(&sys.map, hx_pfn_to_pa(r.value));
		HX_REQUIRE(in && (in->type == HX_MEMORY_RAM || in->type == HX_MEMORY_KERNEL));
		uint64_t *p = hx_ptr(hx_pfn_to_pa(r.value));
		p[511] = taken;
		p[0] = (uint64_t)(uintptr_t)chain;
		chain = p;
		taken++;
	}
	while (chain) {
		uint64_t *next = (uint64_t *)(uintptr_t)chain[0];
		taken--;
		HX_CHECK_EQUAL(chain[511], taken);
		HX_REQUIRE_STATUS(hx_frames_free(&sys.frames, hx_pa_to_pfn(hx_ptr_to_pa(chain)), 0),
				  HX_OK);
		chain = next;
	}
}

HX_TEST(one_piece_of_ram)
{
	static const struct hx_memory_range ram[] = {{{HX_MIB(2)}, HX_MIB(62), HX_MEMORY_RAM, 0}};
	HX_REQUIRE_STATUS(boot_machine(ram, 1, HX_MIB(4), NULL), HX_OK);
	expect_whole();
	touch_all_memory(UINT64_MAX);
	expect_whole();
	HX_CHECK(sys.bump_donated_bytes > HX_MIB(3));
	struct hx_heap_stats stats;
	hx_heap_stats(&sys.heap, &stats);
	/* What was donated is the frames', no longer the heap's. */
	HX_CHECK(stats.managed_bytes < HX_BOOT_ARENA_BYTES / 2);
}

HX_TEST(every_allocator_by_command_line)
{
	static const struct hx_memory_range ram[] = {{{0}, HX_MIB(64), HX_MEMORY_RAM, 0}};
	const struct hx_frame_trait *f;
	const struct hx_heap_trait *h;
	for (unsigned i = 0; (f = hx_frame_trait_at(i)) != NULL; i++) {
		for (unsigned k = 0; (h = hx_heap_trait_at(k)) != NULL; k++) {
			char line[80];
			snprintf(line, sizeof line, "quiet hx.physical=%s hx.heap=%s", f->name,
				 h->name);
			HX_REQUIRE_STATUS(boot_machine(ram, 1, HX_MIB(4), line), HX_OK);
			expect_whole();
			HX_CHECK(hx_streq(sys.physical->name, f->name));
			HX_CHECK(hx_streq(hx_heap_name(&sys.heap), h->name));
			HX_CHECK(hx_streq(sys.command_line, line));
			struct hx_ptr_result p =
				hx_heap_allocate(&sys.heap, 1000, 64, HX_HEAP_ZERO);
			HX_REQUIRE_STATUS(p.status, HX_OK);
			HX_CHECK_STATUS(hx_heap_free(&sys.heap, p.value), HX_OK);
			/* The bump arena's objects are freed by the same front. */
			HX_CHECK_STATUS(hx_heap_free(&sys.heap, sys.firmware_map), HX_OK);
			HX_CHECK_STATUS(hx_heap_free(&sys.heap, sys.firmware_map), HX_DOUBLE_FREE);
			expect_whole();
		}
	}
}

HX_TEST(unknown_names_are_refused)
{
	static const struct hx_memory_range ram[] = {{{0}, HX_MIB(64), HX_MEMORY_RAM, 0}};
	static const struct {
		const char *line, *refusal;
	} cases[] = {
		{"hx.physical=best", "hx.physical=best is not built in; allowed: bump"},
		{"hx.heap=glibc", "hx.heap=glibc is not built in; allowed: bump"},
		{"hx.wx=maybe", "hx.wx=maybe is not built in; allowed: force refuse off"},
		{"hx.physical=", "hx.physical= is not built in; allowed: bump"},
		{"hx.physical_backing=best", "hx.physical_backing=best is not built in; allowed: "
					     "bitmap"},
		{"hx.physical_backing=bump", "hx.physical_backing=bump is not built in"},
		{"hx.physical_backing=slab", "hx.physical_backing=slab is not built in"},
		{"quiet hx.physcal=bitmap", "hx.physcal=bitmap: unknown key; allowed: hx.physical "},
		{"hx.heap", "hx.heap: unknown key"},
		{"hx.physical_=bump", "hx.physical_=bump: unknown key"},
		{"hx.=1", "hx.=1: unknown key"},
		{"hx.own=1 hx.owner=1", "hx.owner=1: unknown key; allowed: hx.physical "
					"hx.physical_backing hx.heap hx.wx hx.own"},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		HX_CHECK_STATUS(boot_machine(ram, 1, HX_MIB(4), cases[i].line),
				HX_INVALID_ARGUMENT);
		HX_CHECK(strstr(log_text, cases[i].refusal) != NULL);
	}
	HX_CHECK_STATUS(boot_machine(ram, 1, HX_MIB(4), "hx.own=best hxx=1 hx physical=best"),
			HX_OK);
	HX_CHECK_STATUS(hx_boot(NULL, &args), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_boot(&sys, NULL), HX_INVALID_ARGUMENT);
}

HX_TEST(no_ram_or_too_little_is_refused)
{
	HX_CHECK_STATUS(boot_machine((struct hx_memory_range[]){{{0}, HX_MIB(64),
								  HX_MEMORY_KERNEL, 0}},
				     1, HX_MIB(4), NULL),
			HX_OUT_OF_MEMORY);
	/* From nothing beside the image to enough: refused, then never again. */
	uint64_t image = HX_KIB(64 + 64 + 64 + 4 + 16) + HX_BOOT_ARENA_BYTES;
	bool booted = false;
	for (uint64_t extra = 0; extra <= HX_MIB(4); extra += HX_KIB(16)) {
		struct hx_memory_range ram = {hx_pa(HX_MIB(1)), image + extra, HX_MEMORY_RAM, 0};
		hx_status s = boot_machine(&ram, 1, HX_MIB(1), NULL);
		HX_REQUIRE(s == HX_OK || s == HX_OUT_OF_MEMORY);
		HX_REQUIRE(s == HX_OK || strstr(log_text, "refused") != NULL);
		HX_REQUIRE(!booted || s == HX_OK);
		booted = s == HX_OK;
	}
	HX_CHECK(booted);
	expect_whole();
}

HX_TEST(firmware_that_lies)
{
	/* Unsorted, overlapping, empty, wrapping, unaligned, equal twice. */
	static const struct hx_memory_range words[] = {
		{{HX_MIB(48)}, HX_MIB(16), HX_MEMORY_RAM, 0},
		{{0}, HX_MIB(32), HX_MEMORY_RAM, 0},
		{{HX_MIB(20)}, HX_MIB(40), HX_MEMORY_RAM, 0},
		{{HX_MIB(10) + 123}, 1, HX_MEMORY_RESERVED, 0},
		{{HX_MIB(12)}, 0, HX_MEMORY_RAM, 0},
		{{UINT64_MAX - 4095}, 8192, HX_MEMORY_RAM, 0},
		{{UINT64_MAX - 8191}, UINT64_MAX, HX_MEMORY_DEVICE, 0},
		{{HX_MIB(30)}, HX_MIB(4), HX_MEMORY_DEVICE, 0},
		{{HX_MIB(31)}, HX_MIB(1), HX_MEMORY_RAM, 0},
		{{HX_MIB(40)}, HX_MIB(1) + 7, HX_MEMORY_INITRD, 0},
		{{0}, HX_MIB(32), HX_MEMORY_RAM, 0},
	};
	HX_REQUIRE_STATUS(boot_machine(words, HX_ARRAY_LENGTH(words), HX_MIB(2), NULL), HX_OK);
	expect_whole();
	struct {
		uint64_t at;
		enum hx_memory_type type;
	} expected[] = {
		{HX_MIB(10), HX_MEMORY_RESERVED},    {HX_MIB(30), HX_MEMORY_DEVICE},
		{HX_MIB(31), HX_MEMORY_DEVICE},	     {HX_MIB(40), HX_MEMORY_INITRD},
		{HX_MIB(41), HX_MEMORY_INITRD},	     {HX_MIB(2), HX_MEMORY_KERNEL},
		{0, HX_MEMORY_RESERVED},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(expected); i++) {
		const struct hx_memory_range *r = hx_memmap_find(&sys.map, hx_pa(expected[i].at));
		HX_REQUIRE(r);
		HX_CHECK_EQUAL(r->type, expected[i].type);
	}
	touch_all_memory(UINT64_MAX);
}

HX_TEST(random_firmware_maps)
{
	struct hx_random random = {0x5eed};
	unsigned booted = 0;
	for (unsigned round = 0; round < 60; round++) {
		struct hx_memory_range words[24];
		unsigned count = 1 + (unsigned)hx_random_below(&random, HX_ARRAY_LENGTH(words) - 1);
		/* One honest piece for the image, then noise behind the image. */
		words[0] = (struct hx_memory_range){hx_pa(HX_MIB(8)), HX_MIB(24), HX_MEMORY_RAM, 0};
		for (unsigned i = 1; i < count; i++) {
			words[i].base = hx_pa(HX_MIB(16) + hx_random_below(&random, HX_MIB(112)));
			words[i].bytes = hx_random_below(&random, HX_MIB(24));
			words[i].type = hx_random_below(&random, 2)
						? HX_MEMORY_RAM
						: (enum hx_memory_type)hx_random_below(
							  &random, HX_MEMORY_KERNEL);
			words[i].node = (uint32_t)hx_random_below(&random, 2);
		}
		hx_status s = boot_machine(words, count, HX_MIB(8), NULL);
		HX_REQUIRE(s == HX_OK || s == HX_OUT_OF_MEMORY || s == HX_NOT_SUPPORTED);
		if (s == HX_OK) {
			booted++;
			expect_whole();
			touch_all_memory(2000);
			HX_BAIL();
		}
	}
	HX_CHECK(booted > 20);
}

HX_TEST(large_machines)
{
	static const struct hx_memory_range giant[] = {
		{{0}, HX_MIB(640) >> 10, HX_MEMORY_RAM, 0},
		{{HX_MIB(1)}, HX_GIB(2), HX_MEMORY_RAM, 0},
		{{HX_GIB(4)}, HX_GIB(62), HX_MEMORY_RAM, 0},
		{{HX_TIB(1)}, HX_TIB(1), HX_MEMORY_RAM, 1},
	};
	/* Without huge leaves a terabyte takes 2 GiB of tables, all in the boot window. */
	for (unsigned pieces = 2; pieces <= (HX_CONFIG_HUGE_PAGES ? 4 : 3); pieces++) {
		HX_REQUIRE_STATUS(boot_machine(giant, pieces, HX_MIB(2), NULL), HX_OK);
		expect_whole();
		HX_CHECK(hx_frames_total_frames(&sys.frames) >
			 (pieces > 2 ? HX_GIB(60) : HX_GIB(1)) >> HX_FRAME_SHIFT);
		struct hx_pfn_result r = hx_frames_allocate(&sys.frames, HX_ORDER_1G, 0);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		HX_CHECK_STATUS(hx_frames_free(&sys.frames, r.value, HX_ORDER_1G), HX_OK);
	}
}

HX_TEST(image_outside_of_ram_keeps_its_arena)
{
	/* The image stands in ROM-like memory that no zone spans. */
	static const struct hx_memory_range words[] = {
		{{HX_MIB(64)}, HX_MIB(64), HX_MEMORY_RAM, 0},
		{{HX_GIB(1)}, HX_MIB(8), HX_MEMORY_KERNEL, 0},
	};
	hx_status s = boot_machine(words, 2, HX_GIB(1), NULL);
	HX_CHECK(s == HX_OK);
	expect_whole();
}

HX_SUITE(bringup, HX_CASE(one_piece_of_ram), HX_CASE(every_allocator_by_command_line),
	 HX_CASE(unknown_names_are_refused), HX_CASE(no_ram_or_too_little_is_refused),
	 HX_CASE(firmware_that_lies), HX_CASE(random_firmware_maps), HX_CASE(large_machines),
	 HX_CASE(image_outside_of_ram_keeps_its_arena));
