/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* aarch64: system registers and barriers. */
#ifndef HX_AARCH64_SYSREG_H
#define HX_AARCH64_SYSREG_H

#include <stdint.h>

#define HX_SYS_READ(name)                                                                          \
	({                                                                                         \
		uint64_t value_;                                                                   \
		__asm__ volatile("mrs %0, " #name : "=r"(value_) : : "memory");                    \
		value_;                                                                            \
	})
#define HX_SYS_WRITE(name, value)                                                                  \
	__asm__ volatile("msr " #name ", %0" : : "r"((uint64_t)(value)) : "memory")

/* Barriers: dsb with its domain and kind, isb. */
#define HX_DSB(kind) ({ __asm__ volatile("dsb " #kind : : : "memory"); })
#define HX_ISB() __asm__ volatile("isb" : : : "memory")

/* TLB maintenance, on this CPU or on all. */
#define HX_TLBI(everywhere, op, what)                                                              \
	({                                                                                         \
		uint64_t what_ = (what);                                                           \
		if (everywhere) {                                                                  \
			__asm__ volatile("tlbi " #op "is, %0" : : "r"(what_) : "memory");          \
		} else {                                                                           \
			__asm__ volatile("tlbi " #op ", %0" : : "r"(what_) : "memory");            \
		}                                                                                  \
	})
/* Leaves of one page on this CPU, with what has to come before and after. */
#define HX_TLBI_PAGE(what)                                                                         \
	({                                                                                         \
		uint64_t what_ = (what);                                                           \
		HX_DSB(nshst);                                                                     \
		__asm__ volatile("tlbi vaale1, %0" : : "r"(what_) : "memory");                     \
		HX_DSB(nsh);                                                                       \
		HX_ISB();                                                                          \
	})
#define HX_TLBI_ALL(everywhere)                                                                    \
	({                                                                                         \
		if (everywhere) {                                                                  \
			__asm__ volatile("tlbi vmalle1is" : : : "memory");                         \
		} else {                                                                           \
			__asm__ volatile("tlbi vmalle1" : : : "memory");                           \
		}                                                                                  \
	})

#endif
