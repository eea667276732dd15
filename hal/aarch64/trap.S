/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * aarch64: trap entry and return.
 *
 * The kernel runs at EL1 on SP_EL0. A trap switches to SP_EL1, which always holds the CPU's
 * struct hx_aarch64_cpu: the entry parks there what it needs, picks the stack (the
 * interrupted one for traps from the kernel, kernel_sp for those from user mode), switches
 * back to SP_EL0 and writes the frame.
 *
 * The stack may be bad: an overflow has run into its guard page. Then the first store to the
 * frame traps, and the entry is entered again with `entering` set. That second trap tells us
 * nothing; the first one is reported, from the emergency stack.
 */
#include "aarch64.h"

	/* All but x0, x1 and sp. */
	.macro	for_each_register op
	.irp	n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
	\op	x\n, [sp, #(\n * 8)]
	.endr
	.irp	n, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
	\op	x\n, [sp, #(\n * 8)]
	.endr
	.endm

	.section .text.trap, "ax"

	/* On SP_EL1, from the kernel's normal state or from user mode. */
	.macro	vector kind
	.balign	128
	stp	x0, x1, [sp, #HX_A64_CPU_X0]
	mov	x0, #\kind
	b	enter
	.endm

	/* The entry itself has trapped: the CPU block is not there. */
	.macro	vector_lost
	.balign	128
	b	give_up
	.endm

	.globl	hx_aarch64_vectors
	.type	hx_aarch64_vectors, @function
	.balign	2048
hx_aarch64_vectors:
	.irp	kind, 0, 1, 2, 3	/* EL1 on SP_EL0; numbers of enum hx_aarch64_kind */
	vector	\kind
	.endr
	.rept	4			/* EL1 on SP_EL1 */
	vector_lost
	.endr
	.irp	kind, 0, 1, 2, 3	/* EL0 */
	vector	\kind
	.endr
	.irp	kind, 0, 1, 2, 3	/* EL0 in AArch32 state */
	vector	\kind
	.endr
	.balign	128

enter:
	ldr	x1, [sp, #HX_A64_CPU_ENTERING]
	cbnz	x1, bad_stack
	mov	x1, #1
	str	x1, [sp, #HX_A64_CPU_ENTERING]
	str	x0, [sp, #HX_A64_CPU_KIND]
	mrs	x0, esr_el1
	mrs	x1, far_el1
	stp	x0, x1, [sp, #HX_A64_CPU_ESR]
	mrs	x1, sp_el0
	mrs	x0, elr_el1
	stp	x1, x0, [sp, #HX_A64_CPU_SP]
	mrs	x0, spsr_el1
	str	x0, [sp, #HX_A64_CPU_SPSR]
	tst	x0, #HX_A64_SPSR_MODE
	b.ne	1f
	ldr	x1, [sp, #HX_A64_CPU_KERNEL_SP]
1:	sub	x1, x1, #HX_A64_FRAME_BYTES
	mov	x0, sp
	msr	spsel, #0
	mov	sp, x1

	/* These stores trap when the stack is bad. */
	for_each_register str
	ldp	x2, x3, [x0, #HX_A64_CPU_X0]
	stp	x2, x3, [sp]
	ldp	x2, x3, [x0, #HX_A64_CPU_SP]
	str	x2, [sp, #HX_A64_FRAME_SP]
	ldr	x2, [x0, #HX_A64_CPU_SPSR]
	stp	x3, x2, [sp, #HX_A64_FRAME_PC]
	ldp	x2, x3, [x0, #HX_A64_CPU_ESR]
	stp	x2, x3, [sp, #HX_A64_FRAME_ESR]
	ldr	x2, [x0, #HX_A64_CPU_KIND]
	str	x2, [sp, #HX_A64_FRAME_KIND]
	str	xzr, [x0, #HX_A64_CPU_ENTERING]

	mov	x0, sp
	mov	x29, xzr
	bl	hx_aarch64_trap

	ldp	x0, x1, [sp, #HX_A64_FRAME_PC]
	msr	elr_el1, x0
	msr	spsr_el1, x1
	for_each_register ldr
	ldr	x0, [sp, #HX_A64_FRAME_SP]
	mov	x1, sp
	msr	spsel, #1
	msr	sp_el0, x0
	ldp	x0, x1, [x1]
	eret

	/*
	 * One CPU reports and ends the machine; others that fail too wait for that, and
	 * one that traps while it reports has nothing more to say.
	 */
bad_stack:
	cmp	x1, #1
	b.ne	give_up
	mov	x1, #2
	str	x1, [sp, #HX_A64_CPU_ENTERING]
	mov	x0, sp
	adrp	x2, emergency_taken
	add	x2, x2, :lo12:emergency_taken
1:	ldaxr	w3, [x2]
	cbnz	w3, give_up
	stxr	w4, w1, [x2]
	cbnz	w4, 1b
	adrp	x2, emergency_stack_top
	add	x2, x2, :lo12:emergency_stack_top
	msr	spsel, #0
	mov	sp, x2
	bl	hx_aarch64_bad_stack
give_up:
	wfi
	b	give_up

	.section .data.trap, "aw"
	.balign	4
emergency_taken:
	.word	0

	.section .bss.trap, "aw", @nobits
	.balign	16
	.space	8192
emergency_stack_top:

	.section .note.GNU-stack, "", @progbits
