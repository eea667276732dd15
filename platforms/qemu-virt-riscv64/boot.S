/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Entry of every hart: supervisor mode, no translation, interrupts off, a0 = hart
 * id, a1 = device tree (first hart only). The firmware starts one hart; the rest
 * come here when hx_platform_start_cpus() asks for them.
 *
 * A lottery picks the first hart; it alone believes a1. The others find their
 * logical number by hart id and believe no other argument: OpenSBI 1.1 may start
 * a hart with the first hart's entry point and a1 (a race in its start code).
 *
 * The MMU goes on here, before any C runs. The first root is Sv39's, which every
 * hart with translation has, and a constant:
 *
 *   entry 256..383   direct map  0xffffffc000000000 + physical, 1 GiB each, R W
 *   entry 510        image       0xffffffff80000000 -> 0x80000000, 1 GiB, R W X
 *
 * None of it is an identity map: the fetch behind the satp write faults, and
 * stvec, which names the link address of that place, carries on there.
 */
#include "board.h"
#include "riscv64.h"

#define PTE_RW  0xc7 /* V R W A D */
#define PTE_RWX 0xcf

	.macro	link_address register, label
	lla	\register, \label
	li	t6, BOARD_IMAGE_OFFSET
	add	\register, \register, t6
	.endm

	.section .text.start, "ax"
	.globl	_start
	.type	_start, @function
_start:
	csrw	sie, zero
	lla	t0, lottery
	li	t1, 1
	amoswap.w.aqrl t1, t1, (t0)
	bnez	t1, secondary

	mv	s0, a0
	mv	s1, a1
	lla	t0, hx_bss_start
	lla	t1, hx_bss_end
1:	sd	zero, 0(t0)
	addi	t0, t0, 8
	bltu	t0, t1, 1b

	link_address t0, first_high
	csrw	stvec, t0
	lla	t0, hx_board_sv39_root
	srli	t0, t0, 12
	li	t1, 8 << 60			/* Sv39 */
	or	t0, t0, t1
	sfence.vma
	csrw	satp, t0
	/* Still here: the write changed nothing. */
	lla	s0, no_translation
2:	lbu	a0, 0(s0)
	beqz	a0, 3f
	li	a7, 1				/* legacy console putchar */
	ecall
	addi	s0, s0, 1
	j	2b
3:	li	t0, 0x100000			/* the test finisher, where QEMU has it */
	li	t1, 0x13333			/* failure, status 1 */
	sw	t1, 0(t0)
park:	wfi
	j	park

	.balign	4
first_high:
	li	tp, 0
	call	prepare
	mv	a0, s0
	mv	a1, s1
	call	hx_board_main

secondary:
	lla	t0, hx_riscv64_hart_id
	ld	t1, hx_board_cpu_limit
	li	s0, 1
1:	bgeu	s0, t1, park			/* nobody asked for this hart */
	slli	t2, s0, 3
	add	t2, t2, t0
	ld	t2, 0(t2)
	beq	t2, a0, 2f
	addi	s0, s0, 1
	j	1b
2:	link_address t0, secondary_high
	csrw	stvec, t0
	ld	t0, hx_board_boot_satp
	sfence.vma
	csrw	satp, t0
	j	park				/* not reached: satp took this mode before */

	.balign	4
secondary_high:
	mv	tp, s0
	call	prepare
	call	hx_board_secondary

	/* tp: logical CPU. Stack, hart block, trap vector. */
prepare:
	sfence.vma
	addi	t0, tp, 1
	li	t1, BOARD_SLOT_BYTES
	mul	t0, t0, t1
	lla	sp, hx_board_stacks
	add	sp, sp, t0
	lla	t0, hx_board_harts
	li	t1, HX_RV_HART_BYTES
	mul	t1, t1, tp
	add	t0, t0, t1
	sd	tp, HX_RV_HART_CPU(t0)
	csrw	sscratch, t0
	lla	t0, hx_riscv64_trap_entry
	csrw	stvec, t0
	ret

	.section .rodata, "a"
no_translation:
	.asciz	"# [hx:stage 1] refused: this machine has no Sv39\r\n"

	.section .data.boot, "aw"
	.balign	4096
	.globl	hx_board_sv39_root
hx_board_sv39_root:
	.fill	256, 8, 0
	.set	gib, 0
	.rept	BOARD_SV39_DIRECT_GIB
	.dword	(gib << 28) | PTE_RW		/* PPN << 10 is address >> 2 */
	.set	gib, gib + 1
	.endr
	.fill	254 - BOARD_SV39_DIRECT_GIB, 8, 0
	.dword	(0x80000000 >> 2) | PTE_RWX
	.dword	0
lottery:
	.word	0

	/* Guard, stack, guard, stack ... by CPU. Not zeroed. */
	.section .stacks, "aw", @nobits
	.balign	4096
	.globl	hx_board_stacks
hx_board_stacks:
	.space	BOARD_CPUS_MAX * BOARD_SLOT_BYTES

	.section .note.GNU-stack, "", @progbits
