/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* board.h - what the files of this board share. */
#ifndef HX_BOARD_H
#define HX_BOARD_H

#include <hx/platform.h>

#include "hx_x86.h"
#include "layout.h"
#include "mailbox.h"

enum { /* vectors, beside those of the port (hx_x86.h) */
	HX_BOARD_VECTOR_PIC = 0x20,   /* 16 of them, all masked */
	HX_BOARD_VECTOR_PROBE = 0x80, /* a user-mode probe is done */
	HX_BOARD_VECTOR_TIMER = 0xfb,
	HX_BOARD_VECTOR_WAKE = 0xfc,
};

enum { /* selectors: see trap.c */
	HX_BOARD_CODE = 0x08,
	HX_BOARD_DATA = 0x10,
	HX_BOARD_USER_DATA = 0x20 | 3,
	HX_BOARD_USER_CODE = 0x28 | 3,
};

/* ---- boot.S ---- */

extern uint8_t hx_board_stacks[HX_BOARD_CPUS][HX_BOARD_STACKS_BYTES];
extern const uint8_t hx_board_trampoline[], hx_board_trampoline_end[];

/** Go on with five levels of page tables; leaves boot.S's segments behind. */
void hx_board_five_levels(void);

/* ---- board.c ---- */

/** First C code of the boot CPU. */
_Noreturn void hx_board_start(uint32_t protocol, uint32_t info);

/** From here on the console takes no lock: the machine is about to end. */
void hx_board_console_seize(void);

/* ---- trap.c ---- */

/** Give this CPU its number, its segments, its trap table; interrupts stay off. */
void hx_board_traps_load(unsigned cpu);

/** What the entries in trap.S call. */
void hx_board_trap(struct hx_x86_frame *f);

/** Where trap.S puts the stack pointer for traps from user mode (this CPU's). */
void *hx_board_task_state(void);

/* ---- probe.c ---- */

/**
 * When @p f is the fault of this CPU's probe: note it (@p fault, or what the frame
 * says when NULL), let the frame return behind the probe, and return true.
 */
bool hx_board_probe_caught(struct hx_x86_frame *f, const struct hx_fault *fault);

/** The user-mode stub has finished: the same without a fault. False: nobody probes. */
bool hx_board_probe_finished(struct hx_x86_frame *f);

/* ---- secondary.c ---- */

/** Copy the start-up code to the low page; under the boot tables, before stage 5. */
void hx_board_trampoline_install(void);

/** First C code of every other CPU. */
_Noreturn void hx_board_start_secondary(void);

/** The timer of hx_platform_start_cpus() has run out. */
void hx_board_timer_expired(void);

#endif
