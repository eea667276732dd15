/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * board.h - what the files of QEMU's riscv64 virt machine share; assembly files
 * read the constants.
 *
 * Physical memory                         Virtual memory (boot tables and after)
 *
 *   0x00100000  test finisher               kernel half, at ~0 << (va_bits - 1):
 *   0x10000000  UART                          direct map, physical address + base
 *   0x80000000  RAM: firmware (OpenSBI)     0xffffffff80200000:
 *   0x80200000  image                         image
 *
 * Image, low to high, whole pages; the boot arguments name the same pieces:
 *
 *   text    R X     user    R X U: the user-mode probes' code
 *   rodata  R       data    R W: .data, .bss
 *   then for each CPU  guard (unmapped)  stack  R W
 */
#ifndef HX_BOARD_H
#define HX_BOARD_H

#define BOARD_CPUS_MAX    8
#define BOARD_STACK_BYTES 0x10000
#define BOARD_GUARD_BYTES 0x1000
#define BOARD_SLOT_BYTES  (BOARD_GUARD_BYTES + BOARD_STACK_BYTES)

/* Added to a physical address of the image: its link address. As in link.ld. */
#define BOARD_IMAGE_OFFSET 0xffffffff00000000

/* Sv39's part of the kernel half that the direct map takes: half of it. */
#define BOARD_SV39_DIRECT_GIB 128

#ifndef __ASSEMBLER__

#include <hx/platform.h>

#include "riscv64.h"

extern const uint8_t hx_image_start[], hx_user_start[], hx_rodata_start[], hx_data_start[],
	hx_data_end[], hx_image_end[]; /* link.ld */
extern uint8_t hx_board_stacks[BOARD_CPUS_MAX][BOARD_SLOT_BYTES];
extern struct hx_riscv64_hart hx_board_harts[BOARD_CPUS_MAX];

/* boot.S: entry of every hart, and the Sv39 root that it starts with. */
void _start(void);
extern hx_pte hx_board_sv39_root[512];
/* satp of secondary harts; how many of hx_riscv64_hart_id[] are assigned. */
extern uint64_t hx_board_boot_satp, hx_board_cpu_limit;

static inline struct hx_pa board_image_pa(const void *p)
{
	return hx_pa((uintptr_t)p - BOARD_IMAGE_OFFSET);
}

static inline void *board_ptr(uint64_t pa)
{
	return (void *)((uintptr_t)pa + hx_hal_direct_offset);
}

/* board.c: the first hart, behind boot.S. */
_Noreturn void hx_board_main(uint64_t hart, uint64_t fdt_pa);

/* paging.c: see there. False: the machine lacks the mode that was asked for. */
bool hx_board_choose_paging(unsigned levels);

/* devices.c */
void hx_board_find_devices(const struct hx_fdt *fdt);
extern struct hx_device_window hx_board_devices[2];
extern unsigned hx_board_device_count;

/* traps.c: this hart's interrupts; to be called with tp and sscratch set. */
void hx_board_traps_on(void);
/* Interrupt this hart when the counter `time` reaches @when, or at the next tick. */
void hx_board_set_timer(uint64_t when);
/*
 * Distance of periodic timer interrupts in units of `time`, 0 for none. They do
 * nothing by themselves. Under -icount QEMU runs one hart until the next timer is
 * due: ticks bound how long one that spins holds up the hart that it waits for.
 */
extern uint64_t hx_board_tick;

/*
 * probe.c: an exception that nobody resolved. True: it came from a place that
 * expects it (a probe, a copy), and *f goes on there.
 */
bool hx_board_fixup(struct hx_riscv64_frame *f);

/* smp.c */
_Noreturn void hx_board_secondary(void);
void hx_board_smp_init(uint64_t boot_hart, uint64_t timebase_hz);

#endif
#endif
