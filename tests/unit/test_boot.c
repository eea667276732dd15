/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What boot leaves behind, on the simulated machine and on boards: stages done,
 * no writable and executable page (also none by an alias), bump pointers that
 * live on and can be freed, a map that accounts for every frame.
 */
#include <hx/platform.h>

#include "hx_test.h"
#include "machine.h"

HX_TEST(all_stages_are_done)
{
	struct hx_system *sys = hx_test_system();
	HX_CHECK_EQUAL(sys->stage, 6);
	HX_CHECK_STATUS(hx_memmap_validate(&sys->map), HX_OK);
	HX_CHECK_STATUS(hx_frames_validate(&sys->frames), HX_OK);
	HX_CHECK_STATUS(hx_pagetable_validate(&sys->kernel_table), HX_OK);
	HX_CHECK_STATUS(hx_heap_validate(&sys->heap), HX_OK);
	HX_CHECK(sys->cpu_count >= 1);
	HX_CHECK(sys->cpus[0].boot);
}

/* Executable frames, gathered in one walk; a second one looks for writers. */
enum { RANGES_MAX = 64 };

struct wx_audit {
	struct {
		uint64_t start, end;
	} executable[RANGES_MAX];
	unsigned count;
	bool overflow;
	uint64_t both, aliased, leaves;
};

static bool note_executable(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			    uint64_t flags)
{
	struct wx_audit *a = context;
	(void)va;
	a->leaves++;
	bool executable = !(flags & HX_PAGE_NO_EXECUTE);
	a->both += executable && (flags & HX_PAGE_WRITABLE);
	if (!executable) {
		return true;
	}
	if (a->count > 0 && a->executable[a->count - 1].end == pa.v) {
		a->executable[a->count - 1].end += bytes;
	} else if (a->count < RANGES_MAX) {
		a->executable[a->count].start = pa.v;
		a->executable[a->count++].end = pa.v + bytes;
	} else {
		a->overflow = true;
	}
	return true;
}

static bool note_writer(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			uint64_t flags)
{
	struct wx_audit *a = context;
	(void)va;
	for (unsigned i = 0; (flags & HX_PAGE_WRITABLE) && i < a->count; i++) {
		a->aliased += pa.v < a->executable[i].end && a->executable[i].start < pa.v + bytes;
	}
	return true;
}

HX_TEST(no_page_is_writable_and_executable)
{
	struct wx_audit a = {.count = 0};
	hx_pagetable_visit(&hx_test_system()->kernel_table, note_executable, &a);
	hx_pagetable_visit(&hx_test_system()->kernel_table, note_writer, &a);
	HX_CHECK(a.leaves > 0);
	HX_CHECK(a.count > 0); /* the kernel's text is there */
	HX_CHECK(!a.overflow);
	HX_CHECK_EQUAL(a.both, 0);
	HX_CHECK_EQUAL(a.aliased, 0);
}

HX_TEST(guards_are_not_mapped)
{
	const struct hx_boot_args *args = hx_platform_boot_args();
	unsigned guards = 0;
	for (unsigned i = 0; i < args->section_count; i++) {
		const struct hx_image_section *s = &args->sections[i];
		for (uint64_t at = 0; s->flags == 0 && at < s->bytes; at += HX_FRAME_BYTES) {
			struct hx_translation t = hx_translate(&hx_test_system()->kernel_table,
							       hx_va(s->va.v + (uintptr_t)at));
			HX_CHECK_STATUS(t.status, HX_NOT_MAPPED);
			guards++;
		}
	}
	HX_CHECK(guards > 0);
}

HX_TEST(ram_is_in_the_direct_map)
{
	struct hx_system *sys = hx_test_system();
	for (unsigned i = 0; i < sys->map.count; i++) {
		const struct hx_memory_range *r = &sys->map.regions[i];
		if (r->type != HX_MEMORY_RAM || r->base.v + r->bytes > sys->direct_bytes) {
			continue;
		}
		uint64_t ends[] = {r->base.v, r->base.v + r->bytes - 1};
		for (unsigned k = 0; k < 2; k++) {
			struct hx_translation t = hx_translate(
				&sys->kernel_table, hx_va(hx_kernel_start() + (uintptr_t)ends[k]));
			HX_CHECK_STATUS(t.status, HX_OK);
			HX_CHECK_EQUAL(t.pa.v, ends[k]);
			HX_CHECK(t.flags & HX_PAGE_WRITABLE);
			HX_CHECK(t.flags & HX_PAGE_NO_EXECUTE);
			HX_CHECK(!(t.flags & HX_PAGE_USER));
		}
	}
}

HX_TEST(bump_pointers_live_on)
{
	struct hx_system *sys = hx_test_system();
	HX_REQUIRE(sys->command_line && sys->firmware_map);
	HX_CHECK(sys->firmware_map->count > 0);
	HX_CHECK(sys->bump_used_bytes > 0);
	HX_CHECK(hx_heap_usable(&sys->heap, sys->command_line) > hx_strlen(sys->command_line));
	HX_CHECK_EQUAL(hx_align_down(sys->bump_used_bytes + HX_FRAME_BYTES - 1, HX_FRAME_BYTES) +
			       sys->bump_donated_bytes,
		       HX_BOOT_ARENA_BYTES);
	/* What was given away is no longer mapped in the image. */
	struct hx_va given = hx_va(hx_platform_boot_args()->arena_va.v + HX_BOOT_ARENA_BYTES -
				   (uintptr_t)HX_FRAME_BYTES);
	HX_CHECK_STATUS(hx_translate(&sys->kernel_table, given).status, HX_NOT_MAPPED);
	/* Free one of them, once; the second time is refused. */
	static bool freed;
	if (!freed) {
		HX_CHECK_STATUS(hx_heap_free(&sys->heap, sys->firmware_map), HX_OK);
		freed = true;
	}
	HX_CHECK_STATUS(hx_heap_free(&sys->heap, sys->firmware_map), HX_DOUBLE_FREE);
}

HX_TEST(command_line_words)
{
	char out[8];
	HX_CHECK(hx_command_line_get("a=1 hx.x=two  b=", "hx.x", out, sizeof out));
	HX_CHECK(hx_streq(out, "two"));
	HX_CHECK(hx_command_line_get("a=1\tb=", "b", out, sizeof out) && hx_streq(out, ""));
	HX_CHECK(hx_command_line_get("a=123456789", "a", out, sizeof out));
	HX_CHECK(hx_streq(out, "1234567"));
	HX_CHECK(hx_command_line_get("x=1 x=2", "x", out, sizeof out) && hx_streq(out, "1"));
	HX_CHECK(!hx_command_line_get("ax=1 x", "x", out, sizeof out));
	HX_CHECK(!hx_command_line_get("", "x", out, sizeof out));
	HX_CHECK(!hx_command_line_get(NULL, "x", out, sizeof out));
	HX_CHECK(!hx_command_line_get("x=1", "x", out, 0));
}

HX_SUITE(boot, HX_CASE(all_stages_are_done), HX_CASE(no_page_is_writable_and_executable),
	 HX_CASE(guards_are_not_mapped), HX_CASE(ram_is_in_the_direct_map),
	 HX_CASE(bump_pointers_live_on), HX_CASE(command_line_words));
