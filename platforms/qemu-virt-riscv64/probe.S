/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Single accesses and copies that may fault, from supervisor and from user mode. */
#include "board.h"
#include "riscv64.h"

	.text

/*
 * uint64_t hx_board_probe_{read,write,execute}(uintptr_t va, uint64_t value)
 * When the access faults, control goes on at hx_board_probe_faulted; then t0
 * has the way back, since a call through ra may have been made.
 */
	.globl	hx_board_probe_begin, hx_board_probe_end, hx_board_probe_faulted
	.globl	hx_board_probe_read, hx_board_probe_write, hx_board_probe_execute
hx_board_probe_begin:
hx_board_probe_read:
	mv	t0, ra
	ld	a0, 0(a0)
	ret
hx_board_probe_write:
	mv	t0, ra
	sd	a1, 0(a0)
	ret
hx_board_probe_execute:
	mv	t0, ra
	jalr	a0
hx_board_probe_end:
hx_board_probe_faulted:
	mv	ra, t0
	ret

/*
 * bool hx_board_copy(void *to, const void *from, uint64_t bytes): words where
 * both sides are aligned, bytes elsewhere. A fault that is not resolved goes on
 * at hx_board_copy_faulted.
 */
	.globl	hx_board_copy, hx_board_copy_end, hx_board_copy_faulted
hx_board_copy:
	or	t0, a0, a1
	andi	t0, t0, 7
	bnez	t0, 3f
	li	t5, 32
1:	bltu	a2, t5, 2f
	ld	t0, 0(a1)
	ld	t1, 8(a1)
	ld	t2, 16(a1)
	ld	t3, 24(a1)
	sd	t0, 0(a0)
	sd	t1, 8(a0)
	sd	t2, 16(a0)
	sd	t3, 24(a0)
	addi	a0, a0, 32
	addi	a1, a1, 32
	addi	a2, a2, -32
	j	1b
2:	li	t5, 8
	bltu	a2, t5, 3f
	ld	t0, 0(a1)
	sd	t0, 0(a0)
	addi	a0, a0, 8
	addi	a1, a1, 8
	addi	a2, a2, -8
	j	2b
3:	beqz	a2, 4f
	lb	t0, 0(a1)
	sb	t0, 0(a0)
	addi	a0, a0, 1
	addi	a1, a1, 1
	addi	a2, a2, -1
	j	3b
4:	li	a0, 1
	ret
hx_board_copy_end:
hx_board_copy_faulted:
	li	a0, 0
	ret

/*
 * uint64_t hx_board_read_instret(void); hx_board_no_instret makes it 0 where
 * firmware keeps the counter to itself.
 */
	.globl	hx_board_read_instret, hx_board_read_instret_end, hx_board_no_instret
hx_board_read_instret:
	csrr	a0, instret
	ret
hx_board_read_instret_end:
hx_board_no_instret:
	li	a0, 0
	ret

/*
 * void hx_board_user_enter(uintptr_t pc, uint64_t a0, uint64_t a1): run user
 * mode at pc. Comes back when a trap's frame has been turned to
 * hx_board_user_left on the stack kernel_sp. Call with interrupts off; they are
 * on in user mode.
 */
	.globl	hx_board_user_enter, hx_board_user_left
hx_board_user_enter:
	addi	sp, sp, -112
	sd	ra, 0(sp)
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
	sd	s\n, (8 + \n * 8)(sp)
	.endr
	csrr	t0, sscratch
	sd	sp, HX_RV_HART_KERNEL_SP(t0)
	csrw	sepc, a0
	li	t0, 0x100			/* SPP: to user mode */
	csrc	sstatus, t0
	li	t0, 0x20			/* SPIE: with interrupts on */
	csrs	sstatus, t0
	mv	a0, a1
	mv	a1, a2
	sret
hx_board_user_left:
	ld	ra, 0(sp)
	.irp	n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
	ld	s\n, (8 + \n * 8)(sp)
	.endr
	addi	sp, sp, 112
	ret

/*
 * A page of the image that is mapped with U: in the kernel half, so that it is
 * there whatever user half is loaded. a0 = address, a1 = value.
 */
	.section .user, "ax"
	.globl	hx_board_user_read, hx_board_user_write, hx_board_user_execute
hx_board_user_read:
	ld	a1, 0(a0)
	ecall
hx_board_user_write:
	sd	a1, 0(a0)
	ecall
hx_board_user_execute:
	jalr	a0
	ecall

	.section .note.GNU-stack, "", @progbits
