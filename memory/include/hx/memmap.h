/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/memmap.h - the physical memory map: typed regions, normalised.
 *
 * Firmware's words go in as they come (unsorted, overlapping, empty, wrapping,
 * unaligned); out comes a sorted list of disjoint, frame-aligned regions in
 * which equal neighbours are joined and every overlap went to the side that
 * must not be allocated. Nothing is believed: a range that wraps is cut at the
 * top of the address space, RAM shrinks to whole frames, everything else grows
 * to whole frames. The top is the last frame below 2^64, which is left out, so
 * that the end of every region is a number.
 */
#ifndef HX_MEMMAP_H
#define HX_MEMMAP_H

#include <hx/core.h>

enum { HX_MEMMAP_REGIONS_MAX = 256 };

/* Regions are [base, base + bytes), both multiples of HX_FRAME_BYTES. */
struct hx_memmap {
	unsigned count;
	unsigned dropped;   /* words that were refused: empty or out of range */
	unsigned adjusted;  /* words that were cut, aligned or overlapped */
	struct hx_memory_range regions[HX_MEMMAP_REGIONS_MAX];
};

void hx_memmap_init(struct hx_memmap *m);

/**
 * Merge one range into the map. Precedence on overlap, highest first: KERNEL,
 * INITRD, FRAMEBUFFER, FIRMWARE, BAD, DEVICE, ACPI, ROM, RESERVED, RAM. Where
 * two words of one type name different nodes the earlier one stands.
 * @return HX_OK, also when the word was dropped or cut (see the counters);
 *         OUT_OF_MEMORY when the result needs more than HX_MEMMAP_REGIONS_MAX
 *         regions, INVALID_ARGUMENT for no type (map and counters unchanged)
 * Cost: O(count)
 */
HX_NODISCARD hx_status hx_memmap_add(struct hx_memmap *m, struct hx_memory_range r);

/**
 * Add everything that the HAL's iterator has.
 * @return what hx_memmap_add() refused with; the words before that one stand
 */
HX_NODISCARD hx_status hx_memmap_read_firmware(struct hx_memmap *m);

/**
 * Mark [base, base + bytes) as @p type whatever it was, provided that all of it
 * is RAM now; both ends grow to whole frames, nodes stay.
 * @return ALREADY_MAPPED when part of it is not RAM; INVALID_SIZE when empty or
 *         wrapping; INVALID_ARGUMENT for RAM or no type; OUT_OF_MEMORY when the
 *         map has no room for the cuts, two at most. Map unchanged then
 * Cost: O(count)
 */
HX_NODISCARD hx_status hx_memmap_reserve(struct hx_memmap *m, struct hx_pa base, uint64_t bytes,
					 enum hx_memory_type type);

/**
 * Carve @p bytes (grown to whole frames) out of RAM below @p limit, highest
 * fitting address first, and mark them KERNEL. The block lies within one
 * region, hence on one node.
 * @param align  power of two, at least HX_FRAME_BYTES
 * @return its first byte; OUT_OF_MEMORY when nothing fits or the map has no
 *         room for the cuts; INVALID_SIZE; INVALID_ALIGNMENT. Map unchanged then
 * Cost: O(count)
 */
HX_NODISCARD struct hx_pa_result hx_memmap_take(struct hx_memmap *m, uint64_t bytes, uint64_t align,
						struct hx_pa limit);

/** Region that holds @p a, NULL for a hole. O(log count). */
const struct hx_memory_range *hx_memmap_find(const struct hx_memmap *m, struct hx_pa a);

/** Bytes of all regions of @p type. */
uint64_t hx_memmap_total(const struct hx_memmap *m, enum hx_memory_type type);

/**
 * First byte behind the last region that is RAM by nature, whoever holds it now
 * (RAM, KERNEL, INITRD); 0 when there is none.
 */
struct hx_pa hx_memmap_ram_end(const struct hx_memmap *m);

/** HX_OK, or CORRUPTED when unsorted, overlapping, unaligned, empty or unjoined. */
HX_NODISCARD hx_status hx_memmap_validate(const struct hx_memmap *m);

/** "RAM", "reserved", ...; "?" for no type. */
const char *hx_memory_type_name(enum hx_memory_type type);

#endif
