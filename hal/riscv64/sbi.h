/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * riscv64: calls into the machine's firmware.
 * Source: RISC-V Supervisor Binary Interface Specification 1.0.
 */
#ifndef HX_RISCV64_SBI_H
#define HX_RISCV64_SBI_H

#include <stdbool.h>
#include <stdint.h>

struct hx_sbi_result {
	long error; /* 0: done; negative: why not */
	long value;
};

/* Extension, function. */
enum {
	HX_SBI_LEGACY_PUTCHAR = 1,
	HX_SBI_BASE = 0x10,
	HX_SBI_BASE_PROBE = 3,
	HX_SBI_TIMER = 0x54494d45,
	HX_SBI_TIMER_SET = 0,
	HX_SBI_IPI = 0x735049,
	HX_SBI_IPI_SEND = 0,
	HX_SBI_RFENCE = 0x52464e43,
	HX_SBI_RFENCE_I = 0,
	HX_SBI_RFENCE_VMA = 1,
	HX_SBI_RFENCE_VMA_ASID = 2,
	HX_SBI_HSM = 0x48534d,
	HX_SBI_HSM_START = 0,
	HX_SBI_RESET = 0x53525354,
	HX_SBI_RESET_SYSTEM = 0,
};

static inline struct hx_sbi_result hx_sbi(unsigned long extension, unsigned long function,
					  uint64_t p0, uint64_t p1, uint64_t p2, uint64_t p3,
					  uint64_t p4)
{
	register uint64_t a0 __asm__("a0") = p0;
	register uint64_t a1 __asm__("a1") = p1;
	register uint64_t a2 __asm__("a2") = p2;
	register uint64_t a3 __asm__("a3") = p3;
	register uint64_t a4 __asm__("a4") = p4;
	register uint64_t a6 __asm__("a6") = function;
	register uint64_t a7 __asm__("a7") = extension;
	__asm__ volatile("ecall"
			 : "+r"(a0), "+r"(a1)
			 : "r"(a2), "r"(a3), "r"(a4), "r"(a6), "r"(a7)
			 : "memory");
	return (struct hx_sbi_result){(long)a0, (long)a1};
}

static inline bool hx_sbi_has(unsigned long extension)
{
	struct hx_sbi_result r = hx_sbi(HX_SBI_BASE, HX_SBI_BASE_PROBE, extension, 0, 0, 0, 0);
	return r.error == 0 && r.value != 0;
}

#endif
