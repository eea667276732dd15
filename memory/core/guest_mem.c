/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The four functions that a freestanding compiler may call by itself. Linked
 * into guests only; weak, so that a kernel's own win.
 */
#include <hx/core.h>

void *memset(void *to, int byte, size_t n);
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
int memcmp(const void *a, const void *b, size_t n);

__attribute__((weak)) void *memset(void *to, int byte, size_t n)
{
	return hx_memset(to, byte, n);
}

__attribute__((weak)) void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
	return hx_memcpy(to, from, n);
}

__attribute__((weak)) void *memmove(void *to, const void *from, size_t n)
{
	return hx_memmove(to, from, n);
}

__attribute__((weak)) int memcmp(const void *a, const void *b, size_t n)
{
	return hx_memcmp(a, b, n);
}
