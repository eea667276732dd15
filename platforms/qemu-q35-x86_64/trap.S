/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Trap entries: 256 of 16 bytes each, which complete struct hx_x86_frame
 * (hx_x86.h) and call hx_board_trap(). Interrupts are off. GS is not used.
 */
	/* Vectors at which the CPU pushes an error code by itself: 8, 10..14, 17, 21, 29, 30. */
#define WITH_ERROR_CODE 0x60227d00

	.text
	.global hx_board_trap_entries
	.balign 16
hx_board_trap_entries:
	.set vector, 0
	.rept 256
	.balign 16
	.if vector >= 32 || ((WITH_ERROR_CODE >> (vector & 31)) & 1) == 0
	pushq $0
	.endif
	pushq $vector
	jmp enter
	.set vector, vector + 1
	.endr

	.balign 16
enter:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %cr2, %rax
	pushq %rax
	cld
	movq %rsp, %rdi
	subq $8, %rsp /* the CPU aligned it to 16 and 23 words have followed */
	call hx_board_trap
	addq $16, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

	.section .note.GNU-stack, "", @progbits
