/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * bytes.h - reading numbers and strings out of bytes that are not trusted.
 * Byte by byte, so that neither alignment nor the machine's order matters.
 */
#ifndef HX_DISCOVERY_BYTES_H
#define HX_DISCOVERY_BYTES_H

#include <hx/discovery.h>

static inline uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint16_t le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t le32(const uint8_t *p)
{
	return le16(p) | (uint32_t)le16(p + 2) << 16;
}

static inline uint64_t le64(const uint8_t *p)
{
	return le32(p) | (uint64_t)le32(p + 4) << 32;
}

/** True when [offset, offset + bytes) lies within [0, total). */
static inline bool within(uint64_t total, uint64_t offset, uint64_t bytes)
{
	return offset <= total && bytes <= total - offset;
}

/** Length of the string at @p s, which must end within @p limit bytes. */
HX_NODISCARD static inline bool string_length(const uint8_t *s, uint64_t limit, uint64_t *length)
{
	for (uint64_t n = 0; n < limit; n++) {
		if (s[n] == '\0') {
			*length = n;
			return true;
		}
	}
	return false;
}

static inline bool same_bytes(const void *a, const void *b, uint64_t n)
{
	const uint8_t *p = a, *q = b;
	for (uint64_t i = 0; i < n; i++) {
		if (p[i] != q[i]) {
			return false;
		}
	}
	return true;
}

/** True when the 8-bit sum of @p n bytes is 0, as ACPI and multiboot want it. */
static inline bool sums_to_zero(const uint8_t *p, uint64_t n)
{
	uint8_t sum = 0;
	for (uint64_t i = 0; i < n; i++) {
		sum = (uint8_t)(sum + p[i]);
	}
	return sum == 0;
}

/** Physical memory through @p p; NULL also for address 0 and for a range that wraps. */
static inline const uint8_t *physical_bytes(const struct hx_physical *p, struct hx_pa a,
					    uint64_t bytes)
{
	uint64_t end;
	if (a.v == 0 || __builtin_add_overflow(a.v, bytes, &end)) {
		return NULL;
	}
	return p->at(p->context, a, bytes);
}

#endif
