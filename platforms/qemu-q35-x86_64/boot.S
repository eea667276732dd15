/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * From the loader to C. The same ELF is entered in 32-bit protected mode,
 * without paging, with %ebx pointing to what the loader says, by
 *
 *      PVH          through the ELF note below (QEMU -kernel: q35, pc, microvm)
 *      multiboot2   through the header below, %eax = magic (GRUB)
 *
 * and, on the other CPUs, in real mode at the low page.
 *
 * Boot tables: 4 levels, 2 MiB leaves, the low 4 GiB at three places.
 *
 *      0x0000000000000000 + pa   identity, left behind at stage 5; CPUs that
 *                                start need it until they have jumped
 *      0xffff800000000000 + pa   direct map, never executable
 *      0xffffffff80000000 + pa   the image: first GiB only
 *
 * When five levels are asked for, the first CPU leaves long mode once more (they can
 * only be switched while paging is off) and enters it with one table on top, in which
 * the tables above appear three times:
 *
 *      0x0000000000000000        identity
 *      0xff00000000000000 + pa   direct map, the lowest kernel address of five levels
 *      0xffff000000000000        all of the upper half above
 *
 * Every other CPU starts as the first one goes on: boot_cr4, boot_root.
 *
 * .boot.* is linked where it is loaded, all else 0xffffffff80000000 higher.
 */

#include "layout.h"

#define PVH        1 /* enum hx_x86_protocol */
#define MULTIBOOT2 2
#define SECONDARY  0

#define MULTIBOOT2_MAGIC 0x36d76289 /* in %eax */
#define HEADER_MAGIC     0xe85250d6
#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY */

#define CODE64 0x08
#define DATA   0x10
#define CODE32 0x18

#define LEAF      0x83 /* P W PS */
#define TABLE     0x03 /* P W */
#define TABLE_NX  0x80000000 /* in the upper half of the entry */

#define CR0_PG    0x80000000
#define CR4_PAE   0x20
#define CR4_LA57  0x1000
#define MSR_EFER  0xc0000080
#define EFER_LME  0x100
#define EFER_NXE  0x800
#define CR0_START 0x80010033 /* PG WP NE ET MP PE; caches on */

/* ---- What loaders look for ---- */

	.section .boot.header, "a"
	.balign 8
header:
	.long HEADER_MAGIC
	.long 0 /* i386 */
	.long header_end - header
	.long -(HEADER_MAGIC + (header_end - header))
	.balign 8
	.short 6, 0 /* modules on page boundaries */
	.long 8
	.balign 8
	.short 3, 0 /* entry address */
	.long 12
	.long hx_board_multiboot2_entry
	.balign 8
	.short 0, 0
	.long 8
header_end:

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, NOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long hx_board_pvh_entry

/* ---- 32 bits, no paging ---- */

	.section .boot.text, "ax"
	.code32
	.global hx_board_pvh_entry
hx_board_pvh_entry:
	movl $PVH, %ebp
	jmp 1f
hx_board_multiboot2_entry:
	xorl %ebp, %ebp
	cmpl $MULTIBOOT2_MAGIC, %eax
	movl $no_loader, %esi
	jne refuse
	movl $MULTIBOOT2, %ebp
1:	cli
	cld
	movl %ebx, %esp /* cpuid needs %ebx; there is no stack yet */

	/* Long mode and no-execute, without which W^X would be a wish. */
	movl $no_long_mode, %esi
	movl $0x80000000, %eax
	cpuid
	cmpl $0x80000001, %eax
	jb refuse
	movl $0x80000001, %eax
	cpuid
	btl $29, %edx
	jnc refuse
	movl $no_nx, %esi
	btl $20, %edx
	jnc refuse

	/* Tables: first all empty, then leaves, then the links. */
	xorl %eax, %eax
	movl $boot_tables, %edi
	movl $(boot_tables_end - boot_tables) / 4, %ecx
	rep stosl
	movl $LEAF, %eax
	movl $boot_pd, %edi
1:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	cmpl $boot_pd + 4 * 4096, %edi
	jb 1b
	movl $boot_pd + 0 * 4096 + TABLE, boot_pdpt + 0 * 8
	movl $boot_pd + 1 * 4096 + TABLE, boot_pdpt + 1 * 8
	movl $boot_pd + 2 * 4096 + TABLE, boot_pdpt + 2 * 8
	movl $boot_pd + 3 * 4096 + TABLE, boot_pdpt + 3 * 8
	movl $boot_pd + TABLE, boot_pdpt_image + 510 * 8
	movl $boot_pdpt + TABLE, boot_pml4
	movl $boot_pdpt + TABLE, boot_pml4 + 256 * 8
	movl $TABLE_NX, boot_pml4 + 256 * 8 + 4
	movl $boot_pdpt_image + TABLE, boot_pml4 + 511 * 8
	movl $boot_pml4 + TABLE, boot_pml5
	movl $boot_pml4 + TABLE, boot_pml5 + 256 * 8
	movl $TABLE_NX, boot_pml5 + 256 * 8 + 4
	movl $boot_pml4 + TABLE, boot_pml5 + 511 * 8
	movl $CR4_PAE, boot_cr4
	movl $boot_pml4, boot_root
	movl %esp, %ebx

/* Every CPU; %ebp says how it came here. */
enter_long_mode:
	movl boot_cr4, %eax
	movl %eax, %cr4
	movl boot_root, %eax
	movl %eax, %cr3
	movl $MSR_EFER, %ecx
	rdmsr
	orl $EFER_LME | EFER_NXE, %eax
	wrmsr
	movl $CR0_START, %eax
	movl %eax, %cr0
	lgdt boot_gdt_pointer
	ljmp $CODE64, $in_long_mode

/* Say why in %esi on the serial line, and end the machine as failed. */
refuse:
	movw $0x3fb, %dx /* line control: 8 data bits */
	movb $3, %al
	outb %al, %dx
1:	movw $0x3fd, %dx /* line status: room for a byte */
2:	inb %dx, %al
	testb $0x20, %al
	jz 2b
	movw $0x3f8, %dx
	lodsb
	testb %al, %al
	jz 3f
	outb %al, %dx
	jmp 1b
3:	movw $0xf4, %dx /* isa-debug-exit; HX_BOARD_EXIT_BAD */
	movl $0x11, %eax
	outl %eax, %dx
4:	cli
	hlt
	jmp 4b

no_loader:
	.asciz "# [hx:stage 1] refused: neither PVH nor multiboot2 started this kernel\n"
no_long_mode:
	.asciz "# [hx:stage 1] refused: this CPU has no 64-bit mode\n"
no_nx:
	.asciz "# [hx:stage 1] refused: this CPU has no no-execute pages\n"

/* From 64 bits, on the identity map: paging off, the level added, paging on. */
change_levels:
	movl %cr0, %eax
	andl $~CR0_PG, %eax
	movl %eax, %cr0
	movl %cr4, %eax
	orl $CR4_LA57, %eax
	movl %eax, %cr4
	movl boot_root, %eax
	movl %eax, %cr3
	movl %cr0, %eax
	orl $CR0_PG, %eax
	movl %eax, %cr0
	ljmp $CODE64, $levels_changed

	.code64
levels_changed:
	movq $back_with_five_levels, %rax
	jmp *%rax

in_long_mode:
	movl $DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movq $high_entry, %rax
	jmp *%rax

	/* Accessed bits are set, so that loading a selector writes nothing. */
	.balign 8
boot_gdt:
	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00cf9b000000ffff
boot_gdt_end:
boot_gdt_pointer:
	.short boot_gdt_end - boot_gdt - 1
	.quad boot_gdt /* in 32-bit mode the lower half counts */

	.section .boot.bss, "aw", @nobits
	.balign 4096
boot_tables:
boot_pml5:
	.skip 4096
boot_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pdpt_image:
	.skip 4096
boot_pd:
	.skip 4 * 4096
boot_tables_end:
boot_cr4: /* with what every CPU enters long mode */
	.skip 4
boot_root:
	.skip 4
stack_kept:
	.skip 8

/* ---- 64 bits, in the image ---- */

	.text
high_entry:
	testl %ebp, %ebp
	jz 1f
	xorl %eax, %eax
	movq $hx_board_bss, %rdi
	movq $hx_board_bss_end, %rcx
	subq %rdi, %rcx
	shrq $3, %rcx
	rep stosq
	movq $hx_board_stacks + HX_BOARD_STACKS_BYTES, %rsp
	movl %ebp, %edi
	movl %ebx, %esi
	xorl %ebp, %ebp
	call hx_board_start
	ud2
1:	movq hx_board_secondary_stack_top(%rip), %rsp
	call hx_board_start_secondary
	ud2

/*
 * void hx_board_five_levels(void): only on the boot tables, with interrupts off.
 * Segments are those of boot_gdt afterwards.
 */
	.global hx_board_five_levels
hx_board_five_levels:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, stack_kept
	movl $CR4_PAE | CR4_LA57, boot_cr4
	movl $boot_pml5, boot_root
	lgdt boot_gdt_pointer
	pushq $CODE32
	pushq $change_levels
	lretq
back_with_five_levels:
	movq stack_kept, %rsp /* 32-bit code keeps no upper halves */
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.section .stacks, "aw", @nobits
	.global hx_board_stacks
	.balign 4096
hx_board_stacks:
	.skip HX_BOARD_CPUS * HX_BOARD_STACKS_BYTES

/* ---- Real mode: copied to the low page, wherever that is ---- */

	.section .rodata
	.global hx_board_trampoline, hx_board_trampoline_end
	.code16
hx_board_trampoline:
	cli
	cld
	lgdtl %cs:(1f - hx_board_trampoline)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $CODE32, $secondary_entry
1:	.short boot_gdt_end - boot_gdt - 1
	.long boot_gdt
hx_board_trampoline_end:

	.section .boot.text, "ax"
	.code32
secondary_entry:
	movl $DATA, %eax
	movl %eax, %ds
	movl $SECONDARY, %ebp
	jmp enter_long_mode

	.section .note.GNU-stack, "", @progbits
