/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Single accesses for hx_platform_probe(), and the way back from a fault.
 *
 *   uint64_t hx_board_probe(struct landing *l, const void *stub, uintptr_t va, uint64_t value)
 *                           %rdi               %rsi              %rdx          %rcx
 *
 * saves what a function must save and the stack pointer in *l, then jumps to a
 * stub with va in %rdx and value in %rax. The stub ends at hx_board_probe_land
 * with the value read in %rax; a fault ends there too, because the trap handler
 * sends the frame there with the saved stack pointer.
 */
#include "layout.h"

#define USER_DATA 0x23
#define USER_CODE 0x2b

	.text
	.global hx_board_probe
hx_board_probe:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rcx, %rax
	jmp *%rsi

	.global hx_board_probe_land
hx_board_probe_land:
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	/* Kernel mode: a fault belongs to the probe when %rip is between these two labels. */
	.global hx_board_probe_kernel, hx_board_probe_kernel_end
	.global hx_board_probe_read, hx_board_probe_write, hx_board_probe_execute
hx_board_probe_kernel:
hx_board_probe_read:
	movq (%rdx), %rax
	jmp hx_board_probe_land
hx_board_probe_write:
	movq %rax, (%rdx)
	jmp hx_board_probe_land
hx_board_probe_execute:
	call *%rdx
	jmp hx_board_probe_land
	/* %rdx: { to, from, bytes }. A fault resolved in the middle goes on there. */
	.global hx_board_probe_copy
hx_board_probe_copy:
	movq 0(%rdx), %rdi
	movq 8(%rdx), %rsi
	movq 16(%rdx), %rcx
	shrq $3, %rcx
	rep movsq
	movq 16(%rdx), %rcx
	andl $7, %ecx
	rep movsb
	jmp hx_board_probe_land
hx_board_probe_kernel_end:

	/* User mode: the same flags (interrupts as they are); traps come back to this stack. */
	.global hx_board_probe_user_read, hx_board_probe_user_write, hx_board_probe_user_execute
hx_board_probe_user_read:
	leaq user_read(%rip), %rsi
	jmp enter_user
hx_board_probe_user_write:
	leaq user_write(%rip), %rsi
	jmp enter_user
hx_board_probe_user_execute:
	leaq user_execute(%rip), %rsi
enter_user:
	movq 8(%rdi), %rcx
	movq %rsp, HX_BOARD_TSS_RSP0(%rcx)
	leaq user_stack(%rip), %rcx
	pushfq
	popq %rdi
	pushq $USER_DATA
	pushq %rcx
	pushq %rdi
	pushq $USER_CODE
	pushq %rsi
	iretq

	/*
	 * This page is mapped for user mode, for ever and on every CPU, in the
	 * kernel half of all spaces: a probe changes no table and flushes no TLB
	 * entry, which would hide what it is to find. It can do nothing but
	 * this. The stack holds one word that nobody writes: where to return.
	 */
	.section .user, "ax"
user_read:
	movq (%rdx), %rax
	int $0x80 /* HX_BOARD_VECTOR_PROBE */
user_write:
	movq %rax, (%rdx)
	int $0x80
user_execute:
	jmp *%rdx
user_returned:
	int $0x80
	.balign 8
user_stack:
	.quad user_returned

	.section .note.GNU-stack, "", @progbits
