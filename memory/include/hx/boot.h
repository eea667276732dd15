/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/boot.h - the staged bring-up, from a 4 MiB bump heap to the full stack.
 *
 *   stage 1  port and console up                    (the platform)
 *   stage 2  bump heap over a static arena
 *   stage 3  the firmware's map, normalised
 *   stage 4  physical allocator of the profile, frame database
 *   stage 5  kernel page table, W^X image, direct map; the MMU runs on it
 *   stage 6  kernel heap of the profile; bump retired, its rest donated
 *
 * The kernel half of a space, low to high:
 *
 *   hx_kernel_start()                direct map: physical address + this
 *   hx_kernel_start() + half         dynamic window: hx_system.dynamic_base
 *   ...                              kernel image, where the platform linked it
 */
#ifndef HX_BOOT_H
#define HX_BOOT_H

#include <hx/capability.h>
#include <hx/framedb.h>
#include <hx/frames.h>
#include <hx/heap.h>
#include <hx/mapper.h>
#include <hx/memmap.h>
#include <hx/recovery.h>
#include <hx/space.h>

enum { HX_BOOT_ARENA_BYTES = 4 << 20 };

/* A piece of the kernel image, whole pages; flags are HX_PAGE_*. */
struct hx_image_section {
	const char *name;
	struct hx_va va;
	struct hx_pa pa;
	uint64_t bytes;
	uint64_t flags; /* 0: a guard, left unmapped */
};

/* Device registers that the kernel keeps using; mapped at direct + pa, NO_CACHE. */
struct hx_device_window {
	const char *name;
	struct hx_pa pa;
	uint64_t bytes;
};

struct hx_boot_args {
	const char *command_line; /* may be NULL; words that begin with "hx." must be known */
	/** Keys beside the library's, such as "hx.paging", that the kernel itself reads. NULL ends
	 *  them; NULL: none. */
	const char *const *own_keys;
	/**
	 * HX_BOOT_ARENA_BYTES for the bump heap, whole pages inside a writable
	 * section. Static storage of the kernel; hx_boot_arena serves.
	 */
	void *arena;
	struct hx_va arena_va; /* where the section maps it: the pointer, on real machines */
	const struct hx_image_section *sections;
	unsigned section_count;
	const struct hx_device_window *devices;
	unsigned device_count;
	/** Optional clock for the log's cost column: ticks and what a tick is. */
	uint64_t (*ticks)(void);
	const char *tick_unit;
};

/** An arena in the library's .bss for those who have no better place. */
extern uint8_t hx_boot_arena[HX_BOOT_ARENA_BYTES];

/** Everything that boot brings up; one per machine, static storage. */
struct hx_system {
	unsigned stage; /* last stage completed */
	const char *command_line;       /* a copy; from the bump heap, as is the next */
	struct hx_memmap *firmware_map; /* words as they came, in their order, not normalised */
	struct hx_memmap map;          /* normalised, with what boot took */
	unsigned cpu_count;
	struct hx_cpu_info cpus[HX_CPUS_MAX]; /* the boot CPU first */
	struct hx_frames frames;
	struct hx_framedb framedb;
	struct hx_pagetable kernel_table;
	struct hx_heap heap;
	struct hx_recovery recovery;
	struct hx_pressure pressure;
	struct hx_capability_table capabilities;
	struct hx_token root_token; /* all rights; hand out derived ones */
	const struct hx_frame_trait *physical, *backing;
	const struct hx_heap_trait *heap_trait;
	enum hx_wx_policy wx;
	bool huge_pages;
	struct hx_va dynamic_base; /* for kernel mappings of the kernel's own */
	uint64_t dynamic_bytes;
	uint64_t direct_bytes; /* physical addresses below it are in the direct map */
	uint64_t bump_used_bytes, bump_donated_bytes;
};

/**
 * Stages 2 to 6. Every refusal of a stage is logged in one line before it is
 * returned (arguments that make no sense are only returned); the
 * machine is then good for a report, not for a second try.
 * @return OUT_OF_MEMORY (RAM too small for the profile), INVALID_ARGUMENT
 *         (command line), CORRUPTED (a validator said so), as the stage met it
 */
HX_NODISCARD hx_status hx_boot(struct hx_system *sys, const struct hx_boot_args *args);

/** Each secondary CPU calls it once, on the platform's boot tables: mmu_init, kernel table. */
void hx_boot_secondary(struct hx_system *sys);

/**
 * Value of "key=value" on a command line of blanks-separated words.
 * @return false when the key is absent; else the first value, copied (terminated)
 */
bool hx_command_line_get(const char *line, const char *key, char *out, size_t size);

#endif
