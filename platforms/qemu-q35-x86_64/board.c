/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * qemu-q35-x86_64: console (16550 at 0x3f8), exit (isa-debug-exit at 0xf4), the
 * image as stage 5 is to map it, clock, and the start of the boot CPU. Runs on
 * QEMU's q35, pc and microvm.
 */
#include <hx/lock.h>

#include "board.h"
#include "cpu.h"

const char hx_platform_name[] = "qemu-q35-x86_64";
const char hx_platform_tick_unit[] = "ticks";

/* ---- Console ---- */

enum { /* 16550 registers */
	UART = 0x3f8,
	UART_INTERRUPTS = UART + 1,
	UART_FIFO = UART + 2,
	UART_LINE = UART + 3,
	UART_MODEM = UART + 4,
	UART_STATUS = UART + 5,
};

#define UART_DIVISOR_ACCESS 0x80
#define UART_8N1            0x03
#define UART_FIFO_ON        0x07 /* and both emptied */
#define UART_READY          0x03 /* DTR, RTS */
#define UART_HOLDER_EMPTY   0x20
#define UART_ALL_SENT       0x40

static struct hx_lock console = HX_LOCK_INIT;
static bool seized;

static void console_start(void)
{
	hx_x86_out8(UART_INTERRUPTS, 0);
	hx_x86_out8(UART_LINE, UART_DIVISOR_ACCESS);
	hx_x86_out8(UART, 1); /* 115200 baud */
	hx_x86_out8(UART_INTERRUPTS, 0);
	hx_x86_out8(UART_LINE, UART_8N1);
	hx_x86_out8(UART_FIFO, UART_FIFO_ON);
	hx_x86_out8(UART_MODEM, UART_READY);
}

static void console_wait(uint8_t state)
{
	while (!(hx_x86_in8(UART_STATUS) & state)) {
		hx_hal_relax();
	}
}

static void put(const char *text)
{
	for (; *text != '\0'; text++) {
		console_wait(UART_HOLDER_EMPTY);
		hx_x86_out8(UART, (uint8_t)*text);
	}
}

void hx_platform_write(const char *text)
{
	if (__atomic_load_n(&seized, __ATOMIC_RELAXED)) {
		put(text);
		return;
	}
	unsigned long irq = hx_lock_acquire(&console);
	put(text);
	hx_lock_release(&console, irq);
}

void hx_board_console_seize(void)
{
	__atomic_store_n(&seized, true, __ATOMIC_RELAXED);
}

/* ---- Exit ---- */

enum { DEBUG_EXIT = 0xf4, EXIT_WELL = 0x10, EXIT_BAD = 0x11 }; /* QEMU ends with 2 v + 1 */

_Noreturn void hx_platform_exit(bool well)
{
	(void)hx_hal_irq_save();
	console_wait(UART_ALL_SENT);
	hx_x86_out32(DEBUG_EXIT, well ? EXIT_WELL : EXIT_BAD);
	for (;;) { /* no such device: at least be quiet */
		__asm__ volatile("cli; hlt");
	}
}

static void panic(const char *text)
{
	(void)text; /* hx_panic() has written it */
	hx_board_console_seize();
	hx_platform_exit(false);
}

/* ---- Clock ---- */

uint64_t hx_platform_ticks(void)
{
	uint32_t low, high;
	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* ---- The image ---- */

#define IMAGE_OFFSET UINT64_C(0xffffffff80000000) /* link.ld */
#define IMAGE_START  HX_MIB(1)

extern uint8_t hx_board_text[], hx_board_user[], hx_board_rodata[], hx_board_data[],
	hx_board_bss_end[], hx_board_image_end[];

#define KERNEL_TEXT (HX_PAGE_KERNEL_CODE | HX_PAGE_GLOBAL)
#define KERNEL_USER (HX_PAGE_USER_CODE | HX_PAGE_GLOBAL)
#define KERNEL_DATA (HX_PAGE_KERNEL_WRITE | HX_PAGE_GLOBAL | HX_PAGE_NO_EXECUTE)
#define KERNEL_ONLY (HX_PAGE_KERNEL_READ | HX_PAGE_GLOBAL | HX_PAGE_NO_EXECUTE)

static struct hx_image_section sections[4 + 4 * HX_BOARD_CPUS];
static unsigned section_count;
static struct hx_device_window devices[1];
static struct hx_boot_args arguments;

static void add_section(const char *name, const uint8_t *start, const uint8_t *end, uint64_t flags)
{
	sections[section_count++] = (struct hx_image_section){
		.name = name,
		.va = hx_va((uintptr_t)start),
		.pa = hx_pa((uintptr_t)start - IMAGE_OFFSET),
		.bytes = (uint64_t)(end - start),
		.flags = flags,
	};
}

/* The boot part below .text is no section: nothing of it is used after stage 5. */
static void describe_image(void)
{
	add_section("text", hx_board_text, hx_board_user, KERNEL_TEXT);
	add_section("user probe", hx_board_user, hx_board_rodata, KERNEL_USER);
	add_section("rodata", hx_board_rodata, hx_board_data, KERNEL_ONLY);
	add_section("data", hx_board_data, hx_board_bss_end, KERNEL_DATA);
	for (unsigned cpu = 0; cpu < HX_BOARD_CPUS; cpu++) {
		const uint8_t *low = hx_board_stacks[cpu];
		const uint8_t *fault_stack = low + HX_BOARD_GUARD_BYTES;
		const uint8_t *guard = fault_stack + HX_BOARD_DOUBLE_FAULT_BYTES;
		const uint8_t *stack = guard + HX_BOARD_GUARD_BYTES;
		add_section("guard", low, fault_stack, 0);
		add_section("double-fault stack", fault_stack, guard, KERNEL_DATA);
		add_section("guard", guard, stack, 0);
		add_section("stack", stack, stack + HX_BOARD_STACK_BYTES, KERNEL_DATA);
	}
}

const struct hx_boot_args *hx_platform_boot_args(void)
{
	if (section_count > 0) {
		return &arguments;
	}
	static const char *const own_keys[] = {"hx.paging", NULL};
	describe_image();
	arguments = (struct hx_boot_args){
		.command_line = hx_x86_command_line(),
		.own_keys = own_keys,
		.arena = hx_boot_arena,
		.arena_va = hx_va((uintptr_t)hx_boot_arena),
		.sections = sections,
		.section_count = section_count,
		.devices = devices,
		.ticks = hx_platform_ticks,
		.tick_unit = hx_platform_tick_unit,
	};
	if (hx_x86_apic_registers().v != 0) {
		devices[arguments.device_count++] = (struct hx_device_window){
			"local APIC", hx_x86_apic_registers(), HX_FRAME_BYTES};
	}
	return &arguments;
}

/* ---- Start ---- */

enum { PIC_COMMAND = 0x20, PIC_DATA = 0x21, PIC2_COMMAND = 0xa0, PIC2_DATA = 0xa1 };

/* Nobody uses the legacy controllers; a spurious interrupt still has to go somewhere. */
static void silence_pic(uint16_t command, uint16_t data, uint8_t vector, uint8_t cascade)
{
	hx_x86_out8(command, 0x11); /* initialise: four words */
	hx_x86_out8(data, vector);
	hx_x86_out8(data, cascade);
	hx_x86_out8(data, 1); /* 8086 mode */
	hx_x86_out8(data, 0xff); /* all masked */
}

/*
 * hx.paging=la48 (default: 4 levels) or la57 (5 levels). Before hx_hal_mmu_init(),
 * which finds what is chosen here in CR4.
 */
static void choose_paging(void)
{
	char word[8];
	if (!hx_command_line_get(hx_x86_command_line(), "hx.paging", word, sizeof word) ||
	    hx_streq(word, "la48")) {
		return;
	}
	if (!hx_streq(word, "la57")) {
		hx_log("[hx:stage 1] refused: hx.paging=%s; allowed: la48 la57", word);
		hx_platform_exit(false);
	}
	if (!(hx_x86_cpuid_if_any(7).ecx >> 16 & 1)) {
		hx_log("[hx:stage 1] refused: this machine has no %s", word);
		hx_platform_exit(false);
	}
	hx_board_five_levels();
	hx_hal_direct_offset = 0xff00000000000000;
	hx_board_traps_load(0); /* again: on the way the segments were others */
}

_Noreturn void hx_board_start(uint32_t protocol, uint32_t info)
{
	console_start();
	silence_pic(PIC_COMMAND, PIC_DATA, HX_BOARD_VECTOR_PIC, 1 << 2);
	silence_pic(PIC2_COMMAND, PIC2_DATA, HX_BOARD_VECTOR_PIC + 8, 2);
	hx_log_to(hx_platform_write);
	hx_panic_handler = panic;
	hx_board_traps_load(0);

	struct hx_x86_boot boot = {
		.protocol = protocol,
		.info = hx_pa(info),
		.image = hx_pa(IMAGE_START),
		.image_bytes = (uintptr_t)hx_board_image_end - IMAGE_OFFSET - IMAGE_START,
	};
	const char *wrong = hx_x86_discover(&boot);
	if (wrong) {
		hx_log("[hx:stage 1] refused: %s", wrong);
		hx_platform_exit(false);
	}
	choose_paging();
	hx_hal_mmu_init();
	hx_board_trampoline_install();
	if (hx_x86_apic_start()) {
		hx_x86_apic_assign(0, hx_x86_apic_id());
	}
	hx_log("[hx:stage 1] %s: %s, %u levels, %u bits of physical address%s%s%s",
	       hx_platform_name, protocol == HX_X86_PVH ? "PVH" : "multiboot2",
	       hx_hal_geometry.levels, hx_hal_geometry.pa_bits,
	       hx_hal_geometry.leaf_levels & 1u << 2 ? ", 1 GiB pages" : "",
	       hx_x86_read_cr4() & HX_X86_CR4_SMEP ? ", SMEP" : "", hx_x86_smap ? ", SMAP" : "");
	__asm__ volatile("sti");
	hx_main();
	hx_log("[hx:platform] hx_main() returned without a verdict");
	hx_platform_exit(false);
}
