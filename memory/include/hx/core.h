/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/core.h - what every layer uses: pointers to physical memory, bit
 * operations without a libgcc call, strings, formatted log lines, assertions.
 */
#ifndef HX_CORE_H
#define HX_CORE_H

#include <stdarg.h>

#include <hx/hal.h>
#include <hx/status.h>

/** Pointer to physical address @p a through the direct map (see hx/hal.h). */
static inline void *hx_ptr(struct hx_pa a)
{
	return (void *)((uintptr_t)a.v + hx_hal_direct_offset);
}

/** Inverse of hx_ptr(); only for pointers that it gave. */
static inline struct hx_pa hx_ptr_to_pa(const void *p)
{
	return hx_pa((uintptr_t)p - hx_hal_direct_offset);
}

/** Index of the lowest set bit of @p v, which must not be 0. No libgcc call. */
unsigned hx_ctz64(uint64_t v);
/** Index of the highest set bit of @p v, which must not be 0. */
unsigned hx_log2_floor(uint64_t v);
/** Smallest order with 2^order >= @p v; v in 1..2^63. */
unsigned hx_log2_ceil(uint64_t v);
unsigned hx_popcount64(uint64_t v);

size_t hx_strlen(const char *s);
bool hx_streq(const char *a, const char *b);

/* Freestanding memory operations; a guest's memset() etc. are these. */
void *hx_memset(void *to, int byte, size_t n);
void *hx_memcpy(void *restrict to, const void *restrict from, size_t n);
void *hx_memmove(void *to, const void *from, size_t n);
int hx_memcmp(const void *a, const void *b, size_t n);

/**
 * Format into @p out, always terminated when @p size > 0. Conversions: %d %i %u
 * %x %X %c %s %p %%, with l, ll, z, width, 0 and - ; %.*s and %.Ns. Nothing else.
 * @return length the whole text has, as C99 snprintf
 */
int hx_format(char *out, size_t size, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
int hx_format_list(char *out, size_t size, const char *format, va_list list);

/** Where log text goes; NULL drops it. Set once by the platform. */
void hx_log_to(void (*write)(const char *text));
/** One line, without its newline; "# " is put in front (a TAP comment). */
void hx_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/**
 * An invariant of this library, not of its callers, does not hold: logs and
 * calls hx_panic_handler, by default a trap.
 */
extern void (*hx_panic_handler)(const char *text);
_Noreturn void hx_panic(const char *file, int line, const char *text);

/**
 * Every CPU of @p cpus has passed a full memory barrier when this returns. Waits for them:
 * they must take interrupts, or wait for a lock. Cost: an interrupt for each of them.
 */
void hx_cpu_barrier(struct hx_cpus cpus);

/* Tiers: HX_ASSERT is always on; HX_DEBUG_ASSERT in builds with -Dasserts=debug. */
#define HX_ASSERT(c) ((c) ? (void)0 : hx_panic(__FILE__, __LINE__, #c))
#ifdef HX_DEBUG_ASSERTS
#define HX_DEBUG_ASSERT(c) HX_ASSERT(c)
#else
#define HX_DEBUG_ASSERT(c) ((void)sizeof(c))
#endif

#endif
