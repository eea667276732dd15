/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The first CPU's way from boot.S to hx_main(): device tree, devices, traps, boot arguments.
 */
#include "board.h"

#include "devicetree.h"
#include "sysreg.h"

const char hx_platform_name[] = "qemu-virt-aarch64";

static const uint64_t fdt_bytes_max = HX_MIB(16);

static struct hx_fdt fdt;
static struct hx_boot_info info;
static struct hx_memory_range extra[3];
static unsigned extra_count;

static _Noreturn void refuse(const char *why)
{
	hx_log("[hx:stage 1] refused: %s", why);
	hx_platform_exit(false);
}

/* ---- Device tree ---- */

static void open_fdt(uint64_t pa)
{
	if (pa % 8 != 0 || pa >= hx_hal_boot_window_bytes - fdt_bytes_max ||
	    !hx_fdt_open(&fdt, board_ptr(pa), fdt_bytes_max)) {
		refuse("no device tree in x0 or at the start of RAM, or a damaged one");
	}
	hx_fdt_boot_info(&fdt, &info);
}

static void add_extra(uint64_t base, uint64_t bytes, enum hx_memory_type type)
{
	struct hx_memory_range ram;
	uint32_t node = hx_tree_find_ram(&fdt, base, bytes, &ram) ? ram.node : 0;
	extra[extra_count++] = (struct hx_memory_range){hx_pa(base), bytes, type, node};
}

/* What the tree does not say: where boot left things in RAM. */
static void find_extra(uint64_t fdt_pa)
{
	/* cppcheck-suppress comparePointers ; both are ends of the image */
	uint64_t image_bytes = (uint64_t)(hx_image_end - hx_image_start);
	add_extra(board_image_pa(hx_image_start).v, image_bytes, HX_MEMORY_KERNEL);
	add_extra(fdt_pa, fdt.total_bytes, HX_MEMORY_FIRMWARE);
	if (info.initrd_bytes > 0) {
		add_extra(info.initrd.v, info.initrd_bytes, HX_MEMORY_INITRD);
	}
}

/* For tests: hx.broadcast=off, shootdown by our own interrupts. */
static void choose_broadcast(void)
{
	char word[8];
	if (!hx_command_line_get(info.command_line, "hx.broadcast", word, sizeof word)) {
		return;
	}
	if (!hx_streq(word, "on") && !hx_streq(word, "off")) {
		hx_log("[hx:stage 1] refused: hx.broadcast=%s; allowed: on off", word);
		hx_platform_exit(false);
	}
	hx_aarch64_broadcast = hx_streq(word, "on");
}

/* ---- Boot arguments ---- */

enum { SECTIONS_MAX = 4 + 2 * BOARD_CPUS_MAX };

static struct hx_image_section sections[SECTIONS_MAX];
static struct hx_boot_args boot_args;

static void add_section(const char *name, const uint8_t *start, const uint8_t *end, uint64_t flags)
{
	sections[boot_args.section_count++] = (struct hx_image_section){
		.name = name,
		.va = hx_va((uintptr_t)start),
		.pa = board_image_pa(start),
		.bytes = (uint64_t)(end - start),
		.flags = flags,
	};
}

static void fill_boot_args(void)
{
	static const char *const own_keys[] = {"hx.broadcast", NULL};
	const uint64_t write = HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE;
	const uint64_t read = HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE;
	add_section("text", hx_image_start, hx_user_start, HX_PAGE_KERNEL_CODE);
	add_section("user", hx_user_start, hx_rodata_start, HX_PAGE_USER_CODE);
	add_section("rodata", hx_rodata_start, hx_data_start, read);
	add_section("data", hx_data_start, hx_data_end, write);
	for (unsigned cpu = 0; cpu < BOARD_CPUS_MAX; cpu++) {
		const uint8_t *slot = hx_board_stacks[cpu];
		add_section("guard", slot, slot + BOARD_GUARD_BYTES, 0);
		add_section("stack", slot + BOARD_GUARD_BYTES, slot + BOARD_SLOT_BYTES, write);
	}
	boot_args.command_line = info.command_line;
	boot_args.own_keys = own_keys;
	boot_args.arena = hx_boot_arena;
	boot_args.arena_va = hx_va((uintptr_t)hx_boot_arena);
	boot_args.sections = sections;
	boot_args.devices = hx_board_devices;
	boot_args.device_count = hx_board_device_count;
	boot_args.ticks = hx_platform_ticks;
	boot_args.tick_unit = hx_platform_tick_unit;
}

const struct hx_boot_args *hx_platform_boot_args(void)
{
	return &boot_args;
}

/* ---- From boot.S ---- */

static void panicked(const char *text)
{
	(void)text; /* logged already */
	hx_platform_exit(false);
}

_Noreturn void hx_board_main(uint64_t fdt_pa)
{
	hx_hal_direct_offset = BOARD_DIRECT_BASE;
	hx_hal_boot_window_bytes = HX_GIB(BOARD_DIRECT_GIB);
	hx_log_to(hx_platform_write);
	hx_panic_handler = panicked;

	if (fdt_pa == 0) { /* an ELF loader: QEMU leaves the tree below the image */
		fdt_pa = board_image_pa(hx_image_start).v - BOARD_IMAGE_IN_RAM;
	}
	open_fdt(fdt_pa);
	hx_board_find_devices(&fdt);
	choose_broadcast();
	find_extra(fdt_pa);
	hx_aarch64_discover(&fdt, extra, extra_count);
	hx_board_smp_init();
	fill_boot_args();
	hx_board_traps_on();
	hx_log("[hx:stage 1] %s: CPU 0x%llx, 48-bit, device tree of %u bytes at 0x%llx",
	       hx_platform_name, (unsigned long long)hx_aarch64_affinity(), fdt.total_bytes,
	       (unsigned long long)fdt_pa);
	hx_main();
	hx_log("[hx:platform] hx_main() returned without a verdict");
	hx_platform_exit(false);
}
