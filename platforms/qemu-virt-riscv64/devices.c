/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Console, end of the machine, counter.
 *
 * The console is the ns16550 that the device tree names as standard output, or
 * else, and until the tree is read, firmware's. Its registers are reached
 * through the direct map, where the boot tables have them as well as the kernel
 * table (they are in the boot arguments), so that it works in every stage.
 */
#include "board.h"

#include "csr.h"
#include "sbi.h"

enum {
	UART_DATA = 0,
	UART_LINE_STATUS = 5,
	UART_TRANSMIT_EMPTY = 1 << 5,

	FINISHER_PASS = 0x5555,
	FINISHER_FAIL = 0x3333 | 1 << 16, /* exit status 1 */
};

struct hx_device_window hx_board_devices[2];
unsigned hx_board_device_count;

/*
 * Through the direct map, but kept as pointers: a program under test may turn
 * hx_hal_direct_offset elsewhere, and still wants to say so.
 */
static struct {
	volatile uint8_t *uart;      /* NULL: firmware's console */
	unsigned uart_shift;         /* log2 of the distance between its registers */
	volatile uint32_t *finisher; /* NULL: firmware ends the machine */
	bool found;
} devices;

/* ---- Finding them ---- */

static bool is_compatible(const struct hx_fdt *fdt, const char *path, const char *with)
{
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(fdt, path, "compatible", &bytes);
	const char *list = (const char *)p;
	for (uint32_t at = 0; p && at < bytes;) { /* strings, one behind the other */
		uint32_t n = 0;
		while (at + n < bytes && list[at + n] != '\0') {
			n++;
		}
		if (at + n < bytes && hx_streq(list + at, with)) {
			return true;
		}
		at += n + 1;
	}
	return false;
}

static uint32_t cell(const struct hx_fdt *fdt, const char *path, const char *name, uint32_t other)
{
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(fdt, path, name, &bytes);
	if (!p || bytes != 4) {
		return other;
	}
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Start of the first range in the "reg" of a node below /soc, which maps 1:1. */
static bool register_base(const struct hx_fdt *fdt, const char *path, struct hx_pa *out)
{
	uint32_t bytes, cells = cell(fdt, "/soc", "#address-cells", 2);
	const uint8_t *p = hx_fdt_property(fdt, path, "reg", &bytes);
	if (!p || cells > 2 || bytes < 4 * cells) {
		return false;
	}
	uint64_t base = 0;
	for (uint32_t i = 0; i < 4 * cells; i++) {
		base = base << 8 | p[i];
	}
	if (base == 0 || base >= hx_hal_boot_window_bytes - HX_FRAME_BYTES) {
		return false;
	}
	*out = hx_pa(base);
	return true;
}

static void add_window(const char *name, struct hx_pa registers)
{
	hx_board_devices[hx_board_device_count++] = (struct hx_device_window){
		.name = name,
		.pa = hx_pa(hx_align_down(registers.v, HX_FRAME_BYTES)),
		.bytes = HX_FRAME_BYTES,
	};
}

/* /chosen/stdout-path without its options, "/soc/serial" where it is an alias. */
static const char *console_path(const struct hx_fdt *fdt, char *out, size_t size)
{
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(fdt, "/chosen", "stdout-path", &bytes);
	size_t n = 0;
	if (p && bytes > 0 && p[0] == '/') {
		while (n < bytes && n + 1 < size && p[n] != '\0' && p[n] != ':') {
			out[n] = (char)p[n];
			n++;
		}
	}
	out[n] = '\0';
	return n > 0 ? out : "/soc/serial";
}

void hx_board_find_devices(const struct hx_fdt *fdt)
{
	char buffer[64];
	const char *path = console_path(fdt, buffer, sizeof buffer);
	struct hx_pa base;
	if ((is_compatible(fdt, path, "ns16550a") || is_compatible(fdt, path, "ns16550")) &&
	    cell(fdt, path, "reg-io-width", 1) == 1 && register_base(fdt, path, &base)) {
		add_window("uart", base);
		devices.uart_shift = cell(fdt, path, "reg-shift", 0);
		devices.uart = board_ptr(base.v);
	}
	if (is_compatible(fdt, "/soc/test", "sifive,test0") &&
	    register_base(fdt, "/soc/test", &base)) {
		add_window("finisher", base);
		devices.finisher = board_ptr(base.v);
	}
	devices.found = true;
}

/* ---- Console ---- */

static void put(char c)
{
	if (!devices.uart) {
		hx_sbi(HX_SBI_LEGACY_PUTCHAR, 0, (uint8_t)c, 0, 0, 0, 0);
		return;
	}
	while (!(devices.uart[UART_LINE_STATUS << devices.uart_shift] & UART_TRANSMIT_EMPTY)) {
		hx_hal_relax();
	}
	devices.uart[UART_DATA << devices.uart_shift] = (uint8_t)c;
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

_Noreturn void hx_platform_exit(bool well)
{
	hx_hal_irq_save();
	if (!devices.found) {
		devices.finisher = board_ptr(0x100000); /* where QEMU has it */
	}
	if (devices.finisher) {
		*devices.finisher = well ? FINISHER_PASS : FINISHER_FAIL;
	}
	/* No finisher: shut down, with "no reason" or "system failure". */
	hx_sbi(HX_SBI_RESET, HX_SBI_RESET_SYSTEM, 0, well ? 0 : 1, 0, 0, 0);
	for (;;) {
		__asm__ volatile("wfi");
	}
}

/* ---- Counter: retired instructions where firmware lets us read them, else time ---- */

const char hx_platform_tick_unit[] = "ticks";

uint64_t hx_board_read_instret(void); /* probe.S; 0: not readable */

uint64_t hx_platform_ticks(void)
{
	uint64_t instructions = hx_board_read_instret();
	return instructions != 0 ? instructions : HX_CSR_READ(time);
}
