/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The demo: the smallest kernel on the library. Boots the whole stack, shows
 * what it found, plays a few short acts, ends with statistics and a verdict.
 */
#include "demo.h"

struct hx_system demo_system;
unsigned demo_cpus;

static unsigned failures;

void demo_result(bool well, const char *format, ...)
{
	char text[200];
	va_list list;
	va_start(list, format);
	hx_format_list(text, sizeof text, format, list);
	va_end(list);
	failures += !well;
	hx_log("  %s: %s", well ? "ok" : "WRONG", text);
}

unsigned demo_failures(void)
{
	return failures;
}

static void stat(const char *key, uint64_t value)
{
	hx_log("hx.stat %s=%llu", key, (unsigned long long)value);
}

static void show_statistics(void)
{
	struct hx_frame_stats f;
	hx_frames_stats(&demo_system.frames, &f);
	struct hx_heap_stats h;
	hx_heap_stats(&demo_system.heap, &h);
	const struct hx_mapper_counters m = hx_pagetable_counters(&demo_system.kernel_table);
	stat("cpus", demo_cpus);
	stat("frames.total", f.total_frames);
	stat("frames.free", f.free_frames);
	stat("frames.allocations", f.allocations);
	stat("frames.frees", f.frees);
	stat("frames.refused_frees", f.refused_frees);
	stat("frames.metadata_bytes", f.metadata_bytes);
	stat("mapper.tables", m.tables);
	stat("mapper.local_flushes", m.local_flushes);
	stat("mapper.broadcasts", m.broadcasts);
	stat("mapper.ipis", m.ipis);
	stat("heap.live_objects", h.live_objects);
	stat("heap.live_bytes", h.live_bytes);
	stat("heap.managed_bytes", h.managed_bytes);
	stat("pressure.events", demo_system.pressure.events);
	stat("boot.bump_used_bytes", demo_system.bump_used_bytes);
	stat("boot.bump_donated_bytes", demo_system.bump_donated_bytes);
}

/* Who holds frames for longer than an act. */
struct holdings {
	uint64_t free, heap, database;
};

static struct holdings count_holdings(void)
{
	struct hx_heap_stats h;
	/* What the heap and the magazines keep for the next request comes back first. */
	(void)hx_heap_shrink(&demo_system.heap);
	hx_frames_drain(&demo_system.frames);
	hx_heap_stats(&demo_system.heap, &h);
	return (struct holdings){
		.free = hx_frames_free_frames(&demo_system.frames),
		.heap = h.managed_bytes >> HX_FRAME_SHIFT,
		.database = demo_system.framedb.sections_live,
	};
}

/* The acts gave everything back; only the heap and the frame database may have grown. */
static void check_nothing_leaked(const struct holdings *before)
{
	enum { SECTION_FRAMES = 128 }; /* 32768 entries of 16 bytes */
	struct holdings after = count_holdings();
	uint64_t database = (after.database - before->database) * SECTION_FRAMES;
	hx_log("frames free before and after the acts:");
	demo_result(before->free + before->heap == after.free + after.heap + database,
		    "%llu and %llu; the heap holds %llu and %llu, the frame database took %llu",
		    (unsigned long long)before->free, (unsigned long long)after.free,
		    (unsigned long long)before->heap, (unsigned long long)after.heap,
		    (unsigned long long)database);
}

static bool count_writable_code(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
				uint64_t flags)
{
	(void)va;
	(void)pa;
	(void)bytes;
	*(uint64_t *)context += (flags & HX_PAGE_WRITABLE) && !(flags & HX_PAGE_NO_EXECUTE);
	return true;
}

static void check_everything(void)
{
	uint64_t writable_code = 0;
	hx_pagetable_visit(&demo_system.kernel_table, count_writable_code, &writable_code);
	hx_log("validators:");
	demo_result(hx_memmap_validate(&demo_system.map) == HX_OK, "memory map");
	demo_result(hx_frames_validate(&demo_system.frames) == HX_OK, "frame allocators");
	demo_result(hx_pagetable_validate(&demo_system.kernel_table) == HX_OK,
		    "kernel page table");
	demo_result(writable_code == 0, "%llu kernel pages are writable and executable",
		    (unsigned long long)writable_code);
	demo_result(hx_heap_validate(&demo_system.heap) == HX_OK, "kernel heap");
	demo_result(hx_capability_validate(&demo_system.capabilities) == HX_OK, "capability table");
}

void hx_main(void)
{
	static const struct {
		const char *title;
		void (*play)(void);
	} acts[] = {
		{"frames from every built-in allocator", act_frame_allocators},
		{"map, write, read by an alias, unmap, a late access", act_map_and_unmap},
		{"TLB shootdown on every CPU", act_shootdown},
		{"a copy in demand-zero memory", act_demand_zero},
		{"mprotect to read-only and the refused write", act_mprotect},
		{"brk up and down", act_brk},
		{"the kernel heap", act_heap},
		{"out of memory, the pressure event, the retry", act_pressure},
		{"a token that lacks the right", act_token},
		{"the six errors and their recoveries", act_six_errors},
	};

	hx_log_to(hx_platform_write);
	hx_log("helix-memory %s on %s", HX_VERSION, hx_platform_name);
	hx_status s = hx_boot(&demo_system, hx_platform_boot_args());
	if (s != HX_OK) {
		hx_log("hx.verdict boot refused in stage %u: %s", demo_system.stage + 1,
		       hx_status_name(s));
		hx_platform_exit(false);
	}
	demo_cpus = hx_platform_start_cpus(&demo_system);
	demo_result(demo_cpus == demo_system.cpu_count, "%u of %u CPUs run", demo_cpus,
		    demo_system.cpu_count);

	demo_show_map("memory map as firmware gave it", demo_system.firmware_map);
	demo_show_map("memory map, normalised", &demo_system.map);
	demo_draw_memory();
	demo_show_choices();

	struct holdings before = count_holdings();
	/* The acts give back what they take; an allocator that never frees has no use for that. */
	bool frees = !hx_streq(demo_system.physical->name, "bump");
	if (!frees) {
		hx_log("physical bump never frees: the acts are not played");
	}
	for (unsigned i = 0; frees && i < HX_ARRAY_LENGTH(acts); i++) {
		hx_log("act %u: %s", i + 1, acts[i].title);
		acts[i].play();
	}
	check_nothing_leaked(&before);
	check_everything();
	show_statistics();
	if (demo_failures() == 0) {
		hx_log("hx.verdict all is well");
	} else {
		hx_log("hx.verdict %u results are wrong", demo_failures());
	}
	hx_platform_exit(demo_failures() == 0);
}
