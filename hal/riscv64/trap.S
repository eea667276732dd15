/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: trap entry and return.
 *
 * sscratch always holds the hart's struct hx_riscv64_hart, in kernel and user
 * mode alike. The entry moves it to tp, parks the few registers that it needs
 * and the trap's CSRs there, picks the stack (the interrupted one for traps
 * from the kernel, kernel_sp for those from user mode) and writes the frame.
 *
 * The stack may be bad: an overflow has run into its guard page. Then the first
 * store to the frame traps, and this entry is entered again with `entering`
 * set. That second trap tells us nothing; the first one is reported, from the
 * emergency stack.
 */
#include "riscv64.h"

	/* All but x0, sp (x2) and tp (x4). */
	.macro	for_each_register op
	.irp	n, 1, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17
	\op	x\n, (\n * 8)(sp)
	.endr
	.irp	n, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	\op	x\n, (\n * 8)(sp)
	.endr
	.endm

	.section .text.trap, "ax"
	.globl	hx_riscv64_trap_entry
	.type	hx_riscv64_trap_entry, @function
	.balign	4
hx_riscv64_trap_entry:
	csrrw	tp, sscratch, tp
	sd	t0, HX_RV_HART_T0(tp)
	csrr	t0, sscratch
	csrw	sscratch, tp		/* from here on another trap may come */
	sd	t0, HX_RV_HART_TP(tp)
	ld	t0, HX_RV_HART_ENTERING(tp)
	bnez	t0, bad_stack
	sd	tp, HX_RV_HART_ENTERING(tp)	/* anything but 0 */
	sd	sp, HX_RV_HART_SP(tp)
	csrr	t0, sepc
	sd	t0, HX_RV_HART_PC(tp)
	csrr	t0, scause
	sd	t0, HX_RV_HART_SCAUSE(tp)
	csrr	t0, stval
	sd	t0, HX_RV_HART_STVAL(tp)
	csrr	t0, sstatus
	sd	t0, HX_RV_HART_SSTATUS(tp)
	andi	t0, t0, 0x100			/* SPP */
	bnez	t0, 1f
	ld	sp, HX_RV_HART_KERNEL_SP(tp)
1:	addi	sp, sp, -HX_RV_FRAME_BYTES

	/* These stores trap when the stack is bad. */
	ld	t0, HX_RV_HART_T0(tp)
	for_each_register sd
	ld	t0, HX_RV_HART_SP(tp)
	sd	t0, (2 * 8)(sp)
	ld	t0, HX_RV_HART_TP(tp)
	sd	t0, (4 * 8)(sp)
	ld	t0, HX_RV_HART_PC(tp)
	sd	t0, HX_RV_FRAME_PC(sp)
	ld	t0, HX_RV_HART_SSTATUS(tp)
	sd	t0, HX_RV_FRAME_SSTATUS(sp)
	ld	t0, HX_RV_HART_SCAUSE(tp)
	sd	t0, HX_RV_FRAME_SCAUSE(sp)
	ld	t0, HX_RV_HART_STVAL(tp)
	sd	t0, HX_RV_FRAME_STVAL(sp)
	sd	zero, HX_RV_HART_ENTERING(tp)

	ld	tp, HX_RV_HART_CPU(tp)
	mv	a0, sp
	call	hx_riscv64_trap

	ld	t0, HX_RV_FRAME_PC(sp)
	csrw	sepc, t0
	ld	t0, HX_RV_FRAME_SSTATUS(sp)
	csrw	sstatus, t0
	for_each_register ld
	ld	tp, (4 * 8)(sp)
	ld	sp, (2 * 8)(sp)
	sret

	/*
	 * One hart reports and ends the machine; others that fail too wait for
	 * that. A trap while it reports leaves nothing but to ask firmware.
	 */
bad_stack:
	li	sp, 2
	beq	t0, sp, give_up
	sd	sp, HX_RV_HART_ENTERING(tp)
	lla	t0, emergency_taken
	amoswap.w.aq t0, sp, (t0)
	bnez	t0, 2f
	lla	sp, emergency_stack_top
	mv	a0, tp
	ld	tp, HX_RV_HART_CPU(tp)
	call	hx_riscv64_bad_stack
give_up:
	li	a7, 0x53525354			/* system reset: shut down, failure */
	li	a6, 0
	li	a0, 0
	li	a1, 1
	ecall
2:	wfi
	j	2b

	.section .data.trap, "aw"
	.balign	4
emergency_taken:
	.word	0

	.section .bss.trap, "aw", @nobits
	.balign	16
	.space	8192
emergency_stack_top:

	.section .note.GNU-stack, "", @progbits
