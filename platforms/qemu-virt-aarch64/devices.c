/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Console, interrupt controller, firmware calls, end of the machine, counter.
 *
 * The console is the PL011 that the device tree names as standard output; until the tree is
 * read, the one that QEMU has. Registers are reached through the direct map, where the boot
 * tables have them as well as the kernel table (they are in the boot arguments), so that
 * the console works in every stage.
 */
#include "board.h"

#include "devicetree.h"
#include "sysreg.h"

enum {
	UART_DATA = 0x00,
	UART_FLAGS = 0x18,
	UART_FULL = 1 << 5,

	VIRTUAL_TIMER = 27, /* private interrupt of CNTV, on every machine of this kind */

	PMCR_ENABLE = 1 << 0,
	PMCR_LONG = 1 << 6,

	SEMIHOSTING_EXIT = 0x20, /* with a status */
	SEMIHOSTING_FINISHED = 0x20026,
};
#define PSCI_SYSTEM_OFF UINT32_C(0x84000008)

struct hx_device_window hx_board_devices[4];
unsigned hx_board_device_count;

static bool firmware_by_smc;

/* ---- Finding them ---- */

/*
 * Kept as a pointer: a program under test may turn hx_hal_direct_offset elsewhere, and still
 * wants to say so.
 */
static volatile uint32_t *uart;

/* Range @index of the node's registers, as a window; NULL where there is none. */
static void *window(const struct hx_fdt *fdt, const char *name, const char *path, unsigned index,
		    uint64_t *bytes)
{
	struct hx_pa base;
	if (!hx_tree_registers(fdt, "/", path, index, &base, bytes) ||
	    base.v % HX_FRAME_BYTES != 0 || *bytes % HX_FRAME_BYTES != 0 ||
	    base.v + *bytes > hx_hal_boot_window_bytes) {
		return NULL;
	}
	hx_board_devices[hx_board_device_count++] =
		(struct hx_device_window){.name = name, .pa = base, .bytes = *bytes};
	return board_ptr(base.v);
}

static bool find_interrupts(const struct hx_fdt *fdt)
{
	unsigned version = hx_tree_is_compatible(fdt, "/intc", "arm,gic-v3") ? 3
			   : hx_tree_is_compatible(fdt, "/intc", "arm,cortex-a15-gic") ||
					   hx_tree_is_compatible(fdt, "/intc", "arm,gic-400")
				   ? 2
				   : 0;
	uint64_t bytes;
	void *distributor = window(fdt, "gic", "/intc", 0, &bytes);
	void *second = window(fdt, version == 2 ? "gic-cpu" : "gic-cpus", "/intc", 1, &bytes);
	if (version == 0 || !distributor || !second) {
		return false;
	}
	hx_aarch64_gic_init(version, distributor, second, bytes);
	return hx_aarch64_gic_init_cpu(VIRTUAL_TIMER);
}

void hx_board_find_devices(const struct hx_fdt *fdt)
{
	char buffer[64];
	const char *path = hx_tree_console(fdt, buffer, sizeof buffer, "/pl011");
	uint64_t bytes;
	if (hx_tree_is_compatible(fdt, path, "arm,pl011")) {
		uart = window(fdt, "uart", path, 0, &bytes);
	}
	const uint8_t *method = hx_fdt_property(fdt, "/psci", "method", &(uint32_t){0});
	firmware_by_smc = method && method[0] == 's';
	if (!find_interrupts(fdt)) {
		hx_log("[hx:stage 1] refused: no interrupt controller (GIC version 2 or 3) that "
		       "has this CPU");
		hx_platform_exit(false);
	}
}

int64_t hx_board_firmware(uint32_t function, uint64_t p0, uint64_t p1, uint64_t p2)
{
	register uint64_t x0 __asm__("x0") = function;
	register uint64_t x1 __asm__("x1") = p0;
	register uint64_t x2 __asm__("x2") = p1;
	register uint64_t x3 __asm__("x3") = p2;
#define CALL(how)                                                                                  \
	__asm__ volatile(how " #0"                                                                 \
			 : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3)                                  \
			 :                                                                         \
			 : "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14",  \
			   "x15", "x16", "x17", "memory")
	if (firmware_by_smc) {
		CALL("smc");
	} else {
		CALL("hvc");
	}
#undef CALL
	return (int64_t)x0;
}

/* ---- Console ---- */

static void put(char c)
{
	volatile uint32_t *registers = uart ? uart : board_ptr(0x09000000);
	while (registers[UART_FLAGS / 4] & UART_FULL) {
		hx_hal_relax();
	}
	registers[UART_DATA / 4] = (uint8_t)c;
}

/* CPU + 1 that writes; a trap on that CPU while it does may write in between. */
static uint32_t writer;

void hx_platform_write(const char *text)
{
	unsigned long irq = hx_hal_irq_save();
	uint32_t self = hx_hal_cpu_id() + 1;
	bool nested = __atomic_load_n(&writer, __ATOMIC_RELAXED) == self;
	while (!nested && !__atomic_compare_exchange_n(&writer, &(uint32_t){0}, self, false,
						       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		hx_hal_relax();
	}
	for (; *text != '\0'; text++) {
		if (*text == '\n') {
			put('\r');
		}
		put(*text);
	}
	if (!nested) {
		__atomic_store_n(&writer, 0, __ATOMIC_RELEASE);
	}
	hx_hal_irq_restore(irq);
}

/* ---- The end ---- */

void hx_board_semihosting(uint64_t operation, const uint64_t *parameters); /* probe.S */

/*
 * With semihosting the machine ends with a status. Without, it can be switched off, which
 * looks like success: then a failure must not do so, and stops.
 */
_Noreturn void hx_platform_exit(bool well)
{
	hx_hal_irq_save();
	const uint64_t parameters[2] = {SEMIHOSTING_FINISHED, well ? 0 : 1};
	hx_board_semihosting(SEMIHOSTING_EXIT, parameters);
	if (well) {
		hx_board_firmware(PSCI_SYSTEM_OFF, 0, 0, 0);
	}
	for (;;) {
		__asm__ volatile("wfi");
	}
}

/* ---- Counter: cycles where there is a counter of them, else the system's ---- */

const char hx_platform_tick_unit[] = "ticks";

/* Under -icount shift=0 one instruction takes the emulator one cycle. */
uint64_t hx_platform_ticks(void)
{
	uint64_t version = HX_SYS_READ(id_aa64dfr0_el1) >> 8 & 0xf;
	if (version == 0 || version == 0xf) {
		return HX_SYS_READ(cntvct_el0);
	}
	uint64_t on = UINT64_C(1) << 31;
	if (!(HX_SYS_READ(pmcntenset_el0) & on)) {
		HX_SYS_WRITE(pmccfiltr_el0, 0);
		HX_SYS_WRITE(pmcr_el0, HX_SYS_READ(pmcr_el0) | PMCR_ENABLE | PMCR_LONG);
		HX_SYS_WRITE(pmcntenset_el0, on);
		HX_ISB();
	}
	return HX_SYS_READ(pmccntr_el0);
}
