/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Entry of every CPU: EL1 or EL2, no translation, interrupts masked. The first CPU comes as
 * Linux's boot protocol has it, x0 = device tree, or from an ELF loader with x0 = 0; the
 * others when hx_platform_start_cpus() asks firmware for them, x0 = logical number.
 *
 * The MMU goes on here, before any C runs. The tables are constants:
 *
 *   boot_root (both roots of board.h's picture in one, as the contract has it)
 *     entry 256  -> direct    entry 0 GiB device, 1..511 GiB normal, R W
 *     entry 511  -> image     entry 509: 0xffffffff40000000 -> 0x40000000, 1 GiB, R W X
 *   identity_root: 0x40000000 -> itself, 1 GiB, for the steps between; TTBR0's alone
 *
 * None of it is GLOBAL. A boot loader has cleaned the image out of its caches, and nothing
 * is stored before the caches are on.
 */
#include "aarch64.h"
#include "board.h"

#define PTE_TABLE  3
#define PTE_NORMAL 0x0060000000000f01 /* UXN PXN, nG, AF, inner shareable, writable */
#define PTE_DEVICE 0x0060000000000f09
#define PTE_CODE   0x0040000000000f01 /* UXN */

/* Bits that are one on ARMv8.0, with the MMU, caches and the check of SP. */
#define SCTLR (0x30d00800 | 1 << 0 | 1 << 2 | 1 << 3 | 1 << 12)

	.section .text.start, "ax"
	.globl	_start
	.type	_start, @function
_start:
	/* Header of Documentation/arch/arm64/booting.rst: a loader of flat images wants it. */
	b	first
	.word	0
	.quad	BOARD_IMAGE_IN_RAM
	.quad	hx_image_bytes			/* .bss and stacks included */
	.quad	1 << 1				/* little-endian, 4 KiB pages */
	.quad	0, 0, 0
	.ascii	"ARM\x64"
	.word	0

	.globl	hx_board_secondary_start
hx_board_secondary_start:
	mov	x19, x0
	b	start
first:
	mov	x19, #0
	mov	x20, x0
start:
	msr	daifset, #15
	mrs	x0, CurrentEL
	cmp	x0, #(2 << 2)
	b.ne	at_el1

	/* From EL2: EL1 gets everything that there is, and is entered as the only kernel. */
	mov	x0, #(1 << 31)			/* HCR_EL2.RW: EL1 is AArch64 */
	msr	hcr_el2, x0
	mov	x0, #3				/* counter and timer */
	msr	cnthctl_el2, x0
	msr	cntvoff_el2, xzr
	mov	x0, #0x33ff			/* CPTR_EL2: no traps */
	msr	cptr_el2, x0
	msr	hstr_el2, xzr
	mrs	x0, mdcr_el2			/* all PMU counters are EL1's */
	and	x0, x0, #0x1f
	msr	mdcr_el2, x0
	mrs	x0, midr_el1
	msr	vpidr_el2, x0
	mrs	x0, mpidr_el1
	msr	vmpidr_el2, x0
	mrs	x0, id_aa64pfr0_el1
	ubfx	x0, x0, #24, #4
	cbz	x0, 1f				/* GIC by system registers: let EL1 have them */
	mrs	x0, s3_4_c12_c9_5		/* ICC_SRE_EL2 */
	mov	x1, #9				/* SRE, Enable */
	orr	x0, x0, x1
	msr	s3_4_c12_c9_5, x0
	isb
1:	ldr	x0, =(SCTLR & ~0x1005)
	msr	sctlr_el1, x0
	mov	x0, #(HX_A64_SPSR_MASKED | HX_A64_SPSR_EL1T)
	msr	spsr_el2, x0
	adr	x0, at_el1
	msr	elr_el2, x0
	eret

at_el1:
	ldr	x0, =HX_AARCH64_MAIR
	msr	mair_el1, x0
	ldr	x0, =HX_AARCH64_TCR
	mrs	x1, id_aa64mmfr0_el1
	and	x1, x1, #0xf			/* PARange; 52 bits count as 48 */
	mov	x2, #5
	cmp	x1, x2
	csel	x1, x1, x2, lo
	orr	x0, x0, x1, lsl #HX_AARCH64_TCR_IPS
	msr	tcr_el1, x0
	adrp	x21, boot_root
	adrp	x0, identity_root
	msr	ttbr0_el1, x0
	add	x1, x21, #HX_AARCH64_ROOT_HALF
	msr	ttbr1_el1, x1
	tlbi	vmalle1
	ic	iallu
	dsb	nsh
	isb
	ldr	x0, =SCTLR
	mrs	x1, id_aa64mmfr1_el1
	ubfx	x1, x1, #20, #4			/* PAN */
	cbz	x1, 1f
	bic	x0, x0, #(1 << 23)		/* SPAN: traps set it */
1:	msr	sctlr_el1, x0
	isb
	ldr	x0, =high
	br	x0
high:
	msr	ttbr0_el1, x21			/* no identity any more */
	isb
	tlbi	vmalle1
	dsb	nsh
	isb
	cbnz	x19, 3f
	adrp	x0, hx_bss_start
	add	x0, x0, :lo12:hx_bss_start
	adrp	x1, hx_bss_end
	add	x1, x1, :lo12:hx_bss_end
2:	str	xzr, [x0], #8
	cmp	x0, x1
	b.lo	2b

3:	msr	tpidr_el1, x19
	ldr	x0, =hx_aarch64_vectors
	msr	vbar_el1, x0
	msr	spsel, #1
	ldr	x0, =hx_board_cpus
	mov	x1, #HX_A64_CPU_BYTES
	madd	x0, x1, x19, x0
	mov	sp, x0
	msr	spsel, #0
	ldr	x0, =(hx_board_stacks + BOARD_SLOT_BYTES)
	ldr	x1, =BOARD_SLOT_BYTES
	madd	x0, x1, x19, x0
	mov	sp, x0
	isb
	mov	x29, xzr
	mov	x30, xzr
	cbnz	x19, hx_board_secondary
	mov	x0, x20
	b	hx_board_main

	.section .data.boot, "aw"
	.balign	4096
boot_root:
	.fill	256, 8, 0
	.quad	direct - BOARD_IMAGE_OFFSET + PTE_TABLE
	.fill	254, 8, 0
	.quad	image - BOARD_IMAGE_OFFSET + PTE_TABLE
identity_root:
	.quad	identity - BOARD_IMAGE_OFFSET + PTE_TABLE
	.fill	511, 8, 0
identity:
	.quad	0
	.quad	0x40000000 + PTE_CODE
	.fill	510, 8, 0
image:
	.fill	509, 8, 0
	.quad	0x40000000 + PTE_CODE
	.fill	2, 8, 0
direct:
	.quad	PTE_DEVICE
	.set	gib, 1
	.rept	BOARD_DIRECT_GIB - 1
	.quad	(gib << 30) + PTE_NORMAL
	.set	gib, gib + 1
	.endr

	/* Guard, stack, guard, stack ... by CPU. Not zeroed. */
	.section .stacks, "aw", @nobits
	.balign	4096
	.globl	hx_board_stacks
hx_board_stacks:
	.space	BOARD_CPUS_MAX * BOARD_SLOT_BYTES

	.section .note.GNU-stack, "", @progbits
