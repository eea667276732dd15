/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * layout.h - the stacks; for C and assembly. One piece a CPU, CPU 0's first:
 *
 *      + 0        guard, unmapped from stage 5 on
 *      + 4 KiB    stack for double faults
 *      + 12 KiB   guard
 *      + 16 KiB   stack
 *      + 80 KiB   top of the stack, next piece
 */
#ifndef HX_BOARD_LAYOUT_H
#define HX_BOARD_LAYOUT_H

#define HX_BOARD_CPUS 8

#define HX_BOARD_GUARD_BYTES        0x1000
#define HX_BOARD_DOUBLE_FAULT_BYTES 0x2000
#define HX_BOARD_STACK_BYTES        0x10000
#define HX_BOARD_STACKS_BYTES       0x14000

/* The structure of a task state segment that assembly writes: the stack for user traps. */
#define HX_BOARD_TSS_RSP0 4

#endif
