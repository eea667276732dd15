/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The input is a firmware map: words of 16 bytes. The oracle knows no regions: a
 * frame has the type of the word of highest precedence that claims it, and it is
 * enough to ask at both ends of every word.
 *
 *    0 kind     2 type      4 base in units of 512 bytes (32 bits)
 *    1 node     3 -         8 length (64 bits); kind chooses its unit and the place
 */
#include "fuzz.h"

#include <string.h>

enum { WORDS_MAX = 300, WORD_BYTES = 16 };

static struct hx_memory_range words[WORDS_MAX];
static unsigned count;

/* The firmware of this machine. */
bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	if (*iterator >= count) {
		return false;
	}
	*out = words[(*iterator)++];
	return true;
}

static void read_words(const uint8_t *data, size_t bytes)
{
	for (count = 0; count < WORDS_MAX && bytes >= WORD_BYTES; count++) {
		uint32_t base;
		uint64_t length;
		memcpy(&base, data + 4, 4);
		memcpy(&length, data + 8, 8);
		struct hx_memory_range r = {
			.base = hx_pa((uint64_t)(base & 0xffff) << 9),
			.bytes = data[0] & 1 ? length : (length & 0xff) << 9,
			.type = (enum hx_memory_type)(data[2] % HX_MEMORY_TYPES),
			.node = data[1] & 1,
		};
		if (data[0] & 2) {
			r.base.v = -r.base.v; /* at the top */
		}
		words[count] = r;
		data += WORD_BYTES;
		bytes -= WORD_BYTES;
	}
}

static bool claims(const struct hx_memory_range *r, uint64_t frame)
{
	uint64_t last = r->base.v + (r->bytes - 1);
	if (r->bytes == 0) {
		return false;
	}
	if (last < r->base.v) {
		last = UINT64_MAX;
	}
	if (r->type == HX_MEMORY_RAM) {
		return frame >= r->base.v && last >= frame + (HX_FRAME_BYTES - 1);
	}
	return last >= frame && r->base.v <= frame + (HX_FRAME_BYTES - 1);
}

static void check_frame(const struct hx_memmap *m, uint64_t address)
{
	static const enum hx_memory_type order[] = {
		HX_MEMORY_KERNEL,   HX_MEMORY_INITRD, HX_MEMORY_FRAMEBUFFER, HX_MEMORY_FIRMWARE,
		HX_MEMORY_BAD,      HX_MEMORY_DEVICE, HX_MEMORY_ACPI,        HX_MEMORY_ROM,
		HX_MEMORY_RESERVED, HX_MEMORY_RAM};
	uint64_t frame = address & ~(HX_FRAME_BYTES - 1);
	if (frame == (UINT64_MAX & ~(HX_FRAME_BYTES - 1))) {
		PROMISE(!hx_memmap_find(m, hx_pa(frame))); /* the last frame is left out */
		return;
	}
	const struct hx_memory_range *r = hx_memmap_find(m, hx_pa(frame));
	for (unsigned t = 0; t < HX_ARRAY_LENGTH(order); t++) {
		for (unsigned i = 0; i < count; i++) {
			if (words[i].type == order[t] && claims(&words[i], frame)) {
				PROMISE(r && r->type == order[t]);
				return;
			}
		}
	}
	PROMISE(!r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct hx_memmap map;
	read_words(data, bytes);
	hx_memmap_init(&map);
	hx_status s = hx_memmap_read_firmware(&map);
	PROMISE(hx_memmap_validate(&map) == HX_OK);
	if (s != HX_OK) {
		PROMISE(s == HX_OUT_OF_MEMORY && map.count > HX_MEMMAP_REGIONS_MAX / 2);
		return 0;
	}
	for (unsigned i = 0; i < count; i++) {
		const struct hx_memory_range *w = &words[i];
		check_frame(&map, w->base.v - 1);
		check_frame(&map, w->base.v);
		check_frame(&map, w->base.v + HX_FRAME_BYTES - 1);
		check_frame(&map, w->base.v + w->bytes - 1);
		check_frame(&map, w->base.v + w->bytes);
	}
	/* Take until nothing is left: never the same frame twice, never what is not RAM. */
	uint64_t ram = hx_memmap_total(&map, HX_MEMORY_RAM);
	uint64_t kernel = hx_memmap_total(&map, HX_MEMORY_KERNEL);
	for (unsigned i = 0; i < 20; i++) {
		struct hx_pa_result r =
			hx_memmap_take(&map, HX_FRAME_BYTES + i, HX_FRAME_BYTES << (i % 3),
				       hx_pa(UINT64_MAX >> i));
		if (r.status != HX_OK) {
			PROMISE(r.status == HX_OUT_OF_MEMORY);
			continue;
		}
		uint64_t taken = HX_FRAME_BYTES * (i > 0 ? 2 : 1);
		ram -= taken;
		kernel += taken;
		PROMISE(r.value.v % (HX_FRAME_BYTES << (i % 3)) == 0);
		PROMISE(hx_memmap_total(&map, HX_MEMORY_RAM) == ram);
		PROMISE(hx_memmap_total(&map, HX_MEMORY_KERNEL) == kernel);
		PROMISE(hx_memmap_validate(&map) == HX_OK);
	}
	return 0;
}
