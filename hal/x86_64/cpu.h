/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The privileged instructions of x86_64, one function each. Private to port and board. */
#ifndef HX_X86_64_CPU_H
#define HX_X86_64_CPU_H

#include <hx/units.h>

#define HX_X86_CR0_WP    (UINT64_C(1) << 16)
#define HX_X86_CR3_PCID  UINT64_C(0xfff)
#define HX_X86_CR3_KEEP  (UINT64_C(1) << 63) /* with CR4.PCIDE, not stored */
#define HX_X86_CR4_PGE   (UINT64_C(1) << 7)
#define HX_X86_CR4_UMIP  (UINT64_C(1) << 11)
#define HX_X86_CR4_LA57  (UINT64_C(1) << 12) /* fixed while paging is on */
#define HX_X86_CR4_PCIDE (UINT64_C(1) << 17)
#define HX_X86_CR4_SMEP  (UINT64_C(1) << 20)
#define HX_X86_CR4_SMAP  (UINT64_C(1) << 21)

#define HX_X86_RFLAGS_IF (UINT64_C(1) << 9)
#define HX_X86_RFLAGS_AC (UINT64_C(1) << 18)

enum {
	HX_X86_MSR_APIC_BASE = 0x1b,
	HX_X86_MSR_PAT = 0x277,
	HX_X86_MSR_X2APIC = 0x800, /* register r of the APIC is MSR 0x800 + r / 16 */
	HX_X86_MSR_EFER = (int)0xc0000080,
};

#define HX_X86_EFER_NXE (UINT64_C(1) << 11)

/*
 * Memory types by the number that PCD and PWT of an entry make (the entry's PAT bit
 * is never set, so the upper four are the same):
 *
 *      3 PCD|PWT   2 PCD      1 PWT            0
 *   | combining | uncached | write-through | write-back |
 */
#define HX_X86_PAT UINT64_C(0x0100040601000406)

struct hx_x86_cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct hx_x86_cpuid hx_x86_cpuid(uint32_t leaf)
{
	struct hx_x86_cpuid r;
	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "a"(leaf), "c"(0)
			 : "memory");
	return r;
}

/* Leaf @leaf, all zero when the CPU has no such leaf. */
static inline struct hx_x86_cpuid hx_x86_cpuid_if_any(uint32_t leaf)
{
	if (hx_x86_cpuid(leaf & 0x80000000).eax < leaf) {
		return (struct hx_x86_cpuid){0};
	}
	return hx_x86_cpuid(leaf);
}

static inline uint64_t hx_x86_rdmsr(uint32_t msr)
{
	uint32_t low, high;
	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr) : "memory");
	return (uint64_t)high << 32 | low;
}

static inline void hx_x86_wrmsr(uint32_t msr, uint64_t v)
{
	uint32_t low = (uint32_t)v, high = (uint32_t)(v >> 32);
	__asm__ volatile("wrmsr" : : "c"(msr), "a"(low), "d"(high) : "memory");
}

#define HX_X86_CONTROL_REGISTER(n)                                                                 \
	static inline uint64_t hx_x86_read_cr##n(void)                                             \
	{                                                                                          \
		uint64_t v;                                                                        \
		__asm__ volatile("movq %%cr" #n ", %0" : "=r"(v) : : "memory");                    \
		return v;                                                                          \
	}                                                                                          \
	static inline void hx_x86_write_cr##n(uint64_t v)                                          \
	{                                                                                          \
		__asm__ volatile("movq %0, %%cr" #n : : "r"(v) : "memory");                        \
	}
HX_X86_CONTROL_REGISTER(0)
HX_X86_CONTROL_REGISTER(3)
HX_X86_CONTROL_REGISTER(4)

static inline void hx_x86_invlpg(uintptr_t va)
{
	__asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

enum { HX_X86_INVPCID_ALL = 2 }; /* all identifiers, GLOBAL too */

static inline void hx_x86_invpcid(uint64_t type, uint64_t asid)
{
	struct {
		uint64_t asid, va;
	} what = {asid, 0};
	__asm__ volatile("invpcid %0, %1" : : "m"(what), "r"(type) : "memory");
}

static inline uint8_t hx_x86_in8(uint16_t port)
{
	uint8_t v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline void hx_x86_out8(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void hx_x86_out32(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

#endif
