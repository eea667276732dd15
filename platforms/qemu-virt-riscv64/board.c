/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The first hart's way from boot.S to hx_main(): device tree, paging mode,
 * devices, traps, boot arguments.
 */
#include "board.h"

#include "csr.h"

const char hx_platform_name[] = "qemu-virt-riscv64";

/* Firmware keeps the first 512 KiB of RAM, whether or not the tree says so. */
static const uint64_t firmware_base = 0x80000000, firmware_bytes = HX_KIB(512);

static const uint64_t fdt_bytes_max = HX_MIB(16);

static struct hx_fdt fdt;
static struct hx_boot_info info;
static struct hx_memory_range extra[4];
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
		refuse("no device tree in a1, or a damaged one");
	}
	hx_fdt_boot_info(&fdt, &info);
}

/* The range of RAM that holds [base, base + bytes). */
static bool find_ram(uint64_t base, uint64_t bytes, struct hx_memory_range *out)
{
	uint32_t iterator = 0;
	while (hx_fdt_memory_next(&fdt, &iterator, out)) {
		uint64_t offset = base - out->base.v;
		if (out->type == HX_MEMORY_RAM && offset < out->bytes &&
		    bytes <= out->bytes - offset) {
			return true;
		}
	}
	return false;
}

static void add_extra(uint64_t base, uint64_t bytes, enum hx_memory_type type)
{
	struct hx_memory_range ram;
	uint32_t node = find_ram(base, bytes, &ram) ? ram.node : 0;
	extra[extra_count++] = (struct hx_memory_range){hx_pa(base), bytes, type, node};
}

/* What the tree does not say: where boot left things in RAM. */
static void find_extra(uint64_t fdt_pa)
{
	uint64_t image = board_image_pa(hx_image_start).v;
	struct hx_memory_range ram;
	/* cppcheck-suppress comparePointers ; both are ends of the image */
	add_extra(image, (uint64_t)(hx_image_end - hx_image_start), HX_MEMORY_KERNEL);
	add_extra(fdt_pa, fdt.total_bytes, HX_MEMORY_FIRMWARE);
	if (info.initrd_bytes > 0) {
		add_extra(info.initrd.v, info.initrd_bytes, HX_MEMORY_INITRD);
	}
	if (find_ram(firmware_base, firmware_bytes, &ram) &&
	    firmware_base + firmware_bytes <= image) {
		add_extra(firmware_base, firmware_bytes, HX_MEMORY_RESERVED);
	}
}

static uint64_t timebase_hz(void)
{
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(&fdt, "/cpus", "timebase-frequency", &bytes);
	uint64_t hz = 0;
	for (uint32_t i = 0; p && i < bytes && i < 8; i++) {
		hz = hz << 8 | p[i];
	}
	return hz > 0 ? hz : 10000000;
}

/* ---- Paging mode: hx.paging=sv39, sv48, sv57; by default Sv48, else Sv39 ---- */

static void choose_paging(void)
{
	char word[8];
	if (!hx_command_line_get(info.command_line, "hx.paging", word, sizeof word)) {
		if (!hx_board_choose_paging(4) && !hx_board_choose_paging(3)) {
			refuse("neither Sv48 nor Sv39");
		}
		return;
	}
	static const char *const names[] = {"sv39", "sv48", "sv57"};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		if (hx_streq(word, names[i])) {
			if (!hx_board_choose_paging(3 + i)) {
				hx_log("[hx:stage 1] refused: this machine has no %s", word);
				hx_platform_exit(false);
			}
			return;
		}
	}
	hx_log("[hx:stage 1] refused: hx.paging=%s; allowed: sv39 sv48 sv57", word);
	hx_platform_exit(false);
}

/*
 * For tests: hx.rfence=off (shootdown by our own interrupts), hx.tick=MICROSECONDS
 * (periodic timer interrupts).
 */
static void choose_extras(uint64_t hz)
{
	char word[8];
	if (hx_command_line_get(info.command_line, "hx.rfence", word, sizeof word)) {
		if (!hx_streq(word, "on") && !hx_streq(word, "off")) {
			hx_log("[hx:stage 1] refused: hx.rfence=%s; allowed: on off", word);
			hx_platform_exit(false);
		}
		hx_riscv64_rfence = hx_streq(word, "on");
	}
	if (hx_command_line_get(info.command_line, "hx.tick", word, sizeof word)) {
		uint64_t microseconds = 0;
		const char *c = word;
		for (; *c >= '0' && *c <= '9'; c++) {
			microseconds = microseconds * 10 + (uint64_t)(*c - '0');
		}
		if (*c != '\0' || microseconds == 0 || hx_strlen(word) == sizeof word - 1) {
			hx_log("[hx:stage 1] refused: hx.tick=%s; allowed: 1 to 999999 microseconds",
			       word);
			hx_platform_exit(false);
		}
		hx_board_tick = microseconds * hz / 1000000;
	}
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
	uint64_t write = HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE;
	add_section("text", hx_image_start, hx_user_start, HX_PAGE_KERNEL_CODE);
	add_section("user", hx_user_start, hx_rodata_start, HX_PAGE_USER_CODE);
	add_section("rodata", hx_rodata_start, hx_data_start,
		    HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE);
	add_section("data", hx_data_start, hx_data_end, write);
	for (unsigned cpu = 0; cpu < BOARD_CPUS_MAX; cpu++) {
		const uint8_t *guard = hx_board_stacks[cpu];
		const uint8_t *stack = guard + BOARD_GUARD_BYTES;
		add_section("guard", guard, stack, 0);
		add_section("stack", stack, stack + BOARD_STACK_BYTES, write);
	}
	static const char *const own_keys[] = {"hx.paging", "hx.rfence", "hx.tick", NULL};
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

_Noreturn void hx_board_main(uint64_t hart, uint64_t fdt_pa)
{
	/* What boot.S has loaded. */
	hx_hal_direct_offset = ~UINT64_C(0) << 38;
	hx_hal_boot_window_bytes = HX_GIB(BOARD_SV39_DIRECT_GIB);
	hx_log_to(hx_platform_write);
	hx_panic_handler = panicked;

	open_fdt(fdt_pa);
	choose_paging();
	open_fdt(fdt_pa); /* again, through the direct map of the mode */
	hx_board_find_devices(&fdt);

	uint64_t hz = timebase_hz();
	choose_extras(hz);
	find_extra(fdt_pa);
	hx_riscv64_discover(&fdt, hart, extra, extra_count);
	hx_board_smp_init(hart, hz);
	fill_boot_args();
	hx_board_traps_on();
	hx_log("[hx:stage 1] %s: hart %llu, Sv%u, device tree of %u bytes at 0x%llx",
	       hx_platform_name, (unsigned long long)hart,
	       12 + 9 * hx_satp_levels(HX_CSR_READ(satp)), fdt.total_bytes,
	       (unsigned long long)fdt_pa);
	hx_main();
	hx_log("[hx:platform] hx_main() returned without a verdict");
	hx_platform_exit(false);
}
