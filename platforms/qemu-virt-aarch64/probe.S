/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Single accesses and copies that may fault, from supervisor and from user mode. */
#include "aarch64.h"
#include "board.h"

	.text

/*
 * uint64_t hx_board_probe_{read,write,execute}(uintptr_t va, uint64_t value)
 * When the access faults, control goes on at hx_board_probe_faulted; then x9 has the way
 * back, since a call may have changed the link register.
 */
	.globl	hx_board_probe_begin, hx_board_probe_end, hx_board_probe_faulted
	.globl	hx_board_probe_read, hx_board_probe_write, hx_board_probe_execute
hx_board_probe_begin:
hx_board_probe_read:
	mov	x9, x30
	ldr	x0, [x0]
	ret
hx_board_probe_write:
	mov	x9, x30
	str	x1, [x0]
	ret
hx_board_probe_execute:
	mov	x9, x30
	blr	x0
hx_board_probe_end:
hx_board_probe_faulted:
	mov	x30, x9
	ret

/*
 * bool hx_board_copy(void *to, const void *from, uint64_t bytes): pairs of words, words and
 * bytes, as far as both sides are aligned. A fault that is not resolved goes on at
 * hx_board_copy_faulted.
 */
	.globl	hx_board_copy, hx_board_copy_end, hx_board_copy_faulted
hx_board_copy:
	orr	x3, x0, x1
	tst	x3, #7
	b.ne	3f
1:	subs	x2, x2, #16
	b.lo	2f
	ldp	x3, x4, [x1], #16
	stp	x3, x4, [x0], #16
	b	1b
2:	add	x2, x2, #16
	tbz	x2, #3, 3f
	ldr	x3, [x1], #8
	str	x3, [x0], #8
	sub	x2, x2, #8
3:	cbz	x2, 4f
	ldrb	w3, [x1], #1
	strb	w3, [x0], #1
	sub	x2, x2, #1
	b	3b
4:	mov	x0, #1
	ret
hx_board_copy_end:
hx_board_copy_faulted:
	mov	x0, #0
	ret

/*
 * void hx_board_semihosting(uint64_t operation, const uint64_t *parameters): a call of the
 * debugger, which the emulator plays. Where it does not, the instruction is undefined, and
 * control goes on at hx_board_no_semihosting.
 */
	.globl	hx_board_semihosting, hx_board_semihosting_call, hx_board_no_semihosting
hx_board_semihosting:
hx_board_semihosting_call:
	hlt	#0xf000
hx_board_no_semihosting:
	ret

/*
 * void hx_board_user_enter(uintptr_t pc, uint64_t a0, uint64_t a1): run user mode at pc.
 * Comes back when a trap's frame has been turned to hx_board_user_left on the stack
 * kernel_sp. Call with interrupts off; they are on in user mode.
 */
	.globl	hx_board_user_enter, hx_board_user_left
hx_board_user_enter:
	stp	x19, x20, [sp, #-96]!
	stp	x21, x22, [sp, #16]
	stp	x23, x24, [sp, #32]
	stp	x25, x26, [sp, #48]
	stp	x27, x28, [sp, #64]
	stp	x29, x30, [sp, #80]
	mov	x9, sp
	msr	spsel, #1
	str	x9, [sp, #HX_A64_CPU_KERNEL_SP]
	msr	sp_el0, xzr
	msr	elr_el1, x0
	msr	spsr_el1, xzr			/* EL0, nothing masked */
	mov	x0, x1
	mov	x1, x2
	eret
hx_board_user_left:
	ldp	x21, x22, [sp, #16]
	ldp	x23, x24, [sp, #32]
	ldp	x25, x26, [sp, #48]
	ldp	x27, x28, [sp, #64]
	ldp	x29, x30, [sp, #80]
	ldp	x19, x20, [sp], #96
	ret

/*
 * A page of the image that is mapped with EL0: in the kernel half, so that it is there
 * whatever user half is loaded. x0 = address, x1 = value.
 */
	.section .user, "ax"
	.globl	hx_board_user_read, hx_board_user_write, hx_board_user_execute
hx_board_user_read:
	ldr	x1, [x0]
	svc	#0
hx_board_user_write:
	str	x1, [x0]
	svc	#0
hx_board_user_execute:
	blr	x0
	svc	#0

	.section .note.GNU-stack, "", @progbits
