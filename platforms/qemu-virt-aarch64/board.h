/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * board.h - what the files of QEMU's aarch64 virt machine share; assembly files read the
 * constants.
 *
 * Physical memory                         Virtual memory (boot tables and after)
 *
 *   0x08000000  interrupt controller        0xffff800000000000:
 *   0x09000000  UART                          direct map, physical address + base
 *   0x40000000  RAM: device tree            0xffffffff40200000:
 *   0x40200000  image                         image
 *
 * Image, low to high, whole pages; the boot arguments name the same pieces:
 *
 *   text    R X     user    R X EL0: the user-mode probes' code
 *   rodata  R       data    R W: .data, .bss
 *   then for each CPU  guard (unmapped)  stack  R W
 */
#ifndef HX_BOARD_H
#define HX_BOARD_H

#define BOARD_CPUS_MAX 8
#define BOARD_STACK_BYTES 0x10000
#define BOARD_GUARD_BYTES 0x1000
#define BOARD_SLOT_BYTES (BOARD_GUARD_BYTES + BOARD_STACK_BYTES)

/* Added to a physical address of the image: its link address. As in link.ld. */
#define BOARD_IMAGE_OFFSET 0xffffffff00000000
#define BOARD_IMAGE_IN_RAM 0x200000 /* from the start of RAM */

#define BOARD_DIRECT_BASE 0xffff800000000000
#define BOARD_DIRECT_GIB 512

#ifndef __ASSEMBLER__

#include <hx/platform.h>

#include "aarch64.h"

extern const uint8_t hx_image_start[], hx_user_start[], hx_rodata_start[], hx_data_start[],
	hx_data_end[], hx_image_end[]; /* link.ld */
extern uint8_t hx_board_stacks[BOARD_CPUS_MAX][BOARD_SLOT_BYTES];
extern struct hx_aarch64_cpu hx_board_cpus[BOARD_CPUS_MAX];

/* boot.S: entry of secondary CPUs, logical number in x0. */
extern const uint8_t hx_board_secondary_start[];

static inline struct hx_pa board_image_pa(const void *p)
{
	return hx_pa((uintptr_t)p - BOARD_IMAGE_OFFSET);
}

static inline void *board_ptr(uint64_t pa)
{
	return (void *)((uintptr_t)pa + hx_hal_direct_offset);
}

/* board.c: the first CPU, behind boot.S; @fdt_pa is 0 where the loader does not say. */
_Noreturn void hx_board_main(uint64_t fdt_pa);

/* devices.c */
void hx_board_find_devices(const struct hx_fdt *fdt);
extern struct hx_device_window hx_board_devices[4];
extern unsigned hx_board_device_count;
/* A call of firmware (PSCI): its result; negative numbers are errors. */
int64_t hx_board_firmware(uint32_t function, uint64_t p0, uint64_t p1, uint64_t p2);

/* traps.c: this CPU's interrupts. */
void hx_board_traps_on(void);
/* Interrupt this CPU when the counter CNTVCT reaches @when; UINT64_MAX: never. */
void hx_board_set_timer(uint64_t when);

/*
 * probe.c: an exception that nobody resolved. True: it came from a place that expects it (a
 * probe, a copy), and *f goes on there.
 */
bool hx_board_fixup(struct hx_aarch64_frame *f);

/* smp.c */
_Noreturn void hx_board_secondary(void);
void hx_board_smp_init(void);

#endif
#endif
