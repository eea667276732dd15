/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_x86.h - what an x86_64 kernel and this port say to each other beyond the
 * contract of hx/hal.h.
 *
 * The kernel's own boot code
 *   1. enters with page tables in which [0, 4 GiB) appears at
 *      0xffff800000000000 (hx_hal_direct_offset), EFER.NXE on;
 *   2. on every CPU loads the task register with HX_X86_TSS_FIRST + 16 n;
 *   3. calls hx_hal_mmu_init() and, once, hx_x86_discover();
 *   4. calls hx_x86_apic_start() on every CPU and hx_x86_apic_assign() for every
 *      CPU number that it gives out;
 *   5. builds a struct hx_x86_frame in its trap entries, hands vector 14 to
 *      hx_hal_fault_decode() and hx_upcall_fault(), HX_X86_VECTOR_TLB to
 *      hx_upcall_tlb_ipi() and then hx_x86_apic_end().
 */
#ifndef HX_X86_64_H
#define HX_X86_64_H

#include <hx/hal.h>

/* ---- Traps ---- */

/* What a trap entry leaves on the stack, lowest address first. */
struct hx_x86_frame {
	uint64_t cr2; /* read at entry, before another fault can change it */
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error;
	uint64_t rip, cs, rflags, rsp, ss; /* pushed by the CPU */
};

enum {
	HX_X86_VECTOR_DOUBLE_FAULT = 8,
	HX_X86_VECTOR_STACK = 12,
	HX_X86_VECTOR_PROTECTION = 13,
	HX_X86_VECTOR_PAGE_FAULT = 14,
	HX_X86_VECTOR_TLB = 0xfd, /* sent by hx_hal_ipi_tlb() */
	HX_X86_VECTOR_SPURIOUS = 0xff,
};

/* ---- Discovery ---- */

enum hx_x86_protocol { HX_X86_PVH = 1, HX_X86_MULTIBOOT2 = 2 };

struct hx_x86_boot {
	uint32_t protocol; /* enum hx_x86_protocol, or anything: it is checked */
	struct hx_pa info; /* start info or multiboot2 information */
	struct hx_pa image; /* the kernel, whole */
	uint64_t image_bytes;
};

/**
 * Read all that firmware left, once, into the port's own storage; the
 * discovery iterators of hx/hal.h tell it from then on, whatever becomes of
 * the firmware's memory. Uses the boot window only.
 * @return NULL, or what is wrong in words
 */
HX_NODISCARD const char *hx_x86_discover(const struct hx_x86_boot *boot);

/** The loader's command line, "" without one; cut after 1023 characters. */
const char *hx_x86_command_line(void);

/**
 * A page of RAM below 64 KiB, reported as RESERVED, where CPUs can start in
 * real mode; 0 when there is none.
 */
struct hx_pa hx_x86_low_page(void);

/* ---- Local APIC ---- */

/** Switch this CPU's on. @return false when it has none */
bool hx_x86_apic_start(void);
/** Physical address of its registers, a page; 0 when they are no memory (x2APIC, none). */
struct hx_pa hx_x86_apic_registers(void);
uint32_t hx_x86_apic_id(void);
/** CPU number @p cpu is the CPU with this APIC id. */
void hx_x86_apic_assign(unsigned cpu, uint32_t apic_id);
/** End of interrupt. */
void hx_x86_apic_end(void);

enum { /* what hx_x86_apic_send() sends: a vector, or one of these */
	HX_X86_APIC_INIT = 0x500,
	HX_X86_APIC_STARTUP = 0x600, /* | number of the low page */
};
/** Context: interrupts on or off. */
void hx_x86_apic_send(unsigned cpu, uint32_t command);

/** Interrupt this CPU once with @p vector after @p ticks of the APIC's clock; 0: do not. */
void hx_x86_apic_timer(uint8_t vector, uint32_t ticks);

#endif
