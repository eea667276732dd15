/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Memory and string operations. Word-wise where both sides allow it; the loops
 * are compiled with -ffreestanding -fno-builtin, so that they do not become
 * calls of themselves.
 */
#include <hx/core.h>

typedef uint64_t __attribute__((may_alias)) word;

enum { WORD = sizeof(word) };

static bool word_aligned(const void *a, const void *b)
{
	return (((uintptr_t)a | (uintptr_t)b) & (WORD - 1)) == 0;
}

void *hx_memset(void *to, int byte, size_t n)
{
	uint8_t *p = to;
	while (n > 0 && ((uintptr_t)p & (WORD - 1)) != 0) {
		*p++ = (uint8_t)byte;
		n--;
	}
	word w = UINT64_C(0x0101010101010101) * (uint8_t)byte;
	for (; n >= WORD; n -= WORD, p += WORD) {
		*(word *)(void *)p = w;
	}
	while (n-- > 0) {
		*p++ = (uint8_t)byte;
	}
	return to;
}

void *hx_memmove(void *to, const void *from, size_t n)
{
	uint8_t *d = to;
	const uint8_t *s = from;
	if ((uintptr_t)d - (uintptr_t)s >= n) { /* forwards never overwrites the unread */
		if (word_aligned(d, s)) {
			for (; n >= WORD; n -= WORD, d += WORD, s += WORD) {
				*(word *)(void *)d = *(const word *)(const void *)s;
			}
		}
		while (n-- > 0) {
			*d++ = *s++;
		}
	} else {
		while (n-- > 0) {
			d[n] = s[n];
		}
	}
	return to;
}

void *hx_memcpy(void *restrict to, const void *restrict from, size_t n)
{
	return hx_memmove(to, from, n);
}

int hx_memcmp(const void *a, const void *b, size_t n)
{
	const uint8_t *p = a;
	const uint8_t *q = b;
	for (size_t i = 0; i < n; i++) {
		if (p[i] != q[i]) {
			return p[i] < q[i] ? -1 : 1;
		}
	}
	return 0;
}

size_t hx_strlen(const char *s)
{
	size_t n = 0;
	while (s[n] != '\0') {
		n++;
	}
	return n;
}

bool hx_streq(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}
