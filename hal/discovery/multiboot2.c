/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The multiboot2 information structure (Multiboot2 Specification 2.0, 3.6), as
 * GRUB hands it over. All numbers are little-endian.
 *
 *    0 total bytes   4 reserved   8 tags, each at a multiple of 8:
 *                                   0 type  4 bytes  8 ...
 *
 *    1 command line   8 text
 *    3 module         8 start (32 bits)  12 end  16 text
 *    6 memory map     8 entry bytes  12 version  16 entries, each:
 *                                   0 base  8 bytes  16 type (E820's)  20 reserved
 *    8 framebuffer    8 address  16 pitch  20 width  24 height  28 bits  29 type
 *   14 ACPI 1 RSDP    8 copy        15 ACPI 2 RSDP   8 copy
 *    0 end
 *
 * The first module is the initrd. Open walks all tags: it refuses a blob whose
 * tags leave it or have no end, or whose memory map cannot be read; any other
 * part that is damaged counts as absent.
 */
#include "bytes.h"

enum {
	HEADER_BYTES = 8,
	TAG_BYTES = 8,
	TAG_END = 0,
	TAG_COMMAND_LINE = 1,
	TAG_MODULE = 3,
	TAG_MAP = 6,
	TAG_FRAMEBUFFER = 8,
	TAG_RSDP_OLD = 14,
	TAG_RSDP_NEW = 15,
	MODULE_BYTES = 16,
	MAP_BYTES = 16,
	MAP_ENTRY_BYTES = 24, /* at least; the tag says how many */
	FRAMEBUFFER_BYTES = 30,
	RSDP_OLD_BYTES = 20,
	RSDP_NEW_BYTES = 36,
};

struct tag {
	uint32_t offset; /* of the tag; 0 before the first */
	uint32_t type, bytes;
	const uint8_t *at;
};

/* Step to the next tag, the end tag included. False: it is not inside the blob. */
static bool next_tag(const struct hx_multiboot2 *m, struct tag *t)
{
	uint64_t offset = HEADER_BYTES;
	if (t->offset > 0) {
		offset = ((uint64_t)t->offset + t->bytes + 7) & ~UINT64_C(7);
	}
	if (!within(m->total_bytes, offset, TAG_BYTES)) {
		return false;
	}
	const uint8_t *at = m->blob + offset;
	uint32_t bytes = le32(at + 4);
	if (bytes < TAG_BYTES || !within(m->total_bytes, offset, bytes)) {
		return false;
	}
	*t = (struct tag){(uint32_t)offset, le32(at), bytes, at};
	return true;
}

/* What the tag adds to the boot information; the first tag of a type counts. */
static void read_info(struct hx_boot_info *info, const struct tag *t, uint32_t *rsdp_type)
{
	uint64_t length;
	switch (t->type) {
	case TAG_COMMAND_LINE:
		if (!info->command_line &&
		    string_length(t->at + TAG_BYTES, t->bytes - TAG_BYTES, &length)) {
			info->command_line = (const char *)t->at + TAG_BYTES;
		}
		break;
	case TAG_MODULE:
		if (info->initrd_bytes == 0 && t->bytes >= MODULE_BYTES &&
		    le32(t->at + 12) > le32(t->at + 8)) {
			info->initrd = hx_pa(le32(t->at + 8));
			info->initrd_bytes = le32(t->at + 12) - le32(t->at + 8);
		}
		break;
	case TAG_RSDP_OLD:
	case TAG_RSDP_NEW:
		if (t->type > *rsdp_type &&
		    t->bytes - TAG_BYTES >=
			    (t->type == TAG_RSDP_NEW ? RSDP_NEW_BYTES : RSDP_OLD_BYTES)) {
			info->rsdp_inline = t->offset + TAG_BYTES;
			*rsdp_type = t->type;
		}
		break;
	default:
		break;
	}
}

bool hx_multiboot2_open(struct hx_multiboot2 *m, const void *blob, uint64_t limit)
{
	if (limit < HEADER_BYTES) {
		return false;
	}
	struct hx_multiboot2 r = {.blob = blob, .total_bytes = le32(blob)};
	if (r.total_bytes > limit) {
		return false;
	}
	struct tag t = {0};
	uint32_t rsdp_type = 0;
	do {
		if (!next_tag(&r, &t)) {
			return false;
		}
		if (t.type == TAG_MAP &&
		    (t.bytes < MAP_BYTES || le32(t.at + 8) < MAP_ENTRY_BYTES)) {
			return false;
		}
		read_info(&r.info, &t, &rsdp_type);
	} while (t.type != TAG_END);
	*m = r;
	return true;
}

bool hx_multiboot2_memory_next(const struct hx_multiboot2 *m, uint32_t *iterator,
			       struct hx_memory_range *out)
{
	/* The iterator counts ranges: entries of all maps, then framebuffers. */
	uint32_t skip = *iterator;
	struct tag t = {0};
	while (next_tag(m, &t) && t.type != TAG_END) {
		if (t.type != TAG_MAP) {
			continue;
		}
		uint32_t entry_bytes = le32(t.at + 8);
		uint32_t entries = (t.bytes - MAP_BYTES) / entry_bytes;
		if (skip < entries) {
			const uint8_t *entry = t.at + MAP_BYTES + (uint64_t)skip * entry_bytes;
			*out = (struct hx_memory_range){
				.base = hx_pa(le64(entry)),
				.bytes = le64(entry + 8),
				.type = hx_e820_type(le32(entry + 16)),
			};
			++*iterator;
			return true;
		}
		skip -= entries;
	}
	t = (struct tag){0};
	while (next_tag(m, &t) && t.type != TAG_END) {
		if (t.type != TAG_FRAMEBUFFER || t.bytes < FRAMEBUFFER_BYTES || skip-- > 0) {
			continue;
		}
		*out = (struct hx_memory_range){
			.base = hx_pa(le64(t.at + 8)),
			.bytes = (uint64_t)le32(t.at + 16) * le32(t.at + 24),
			.type = HX_MEMORY_FRAMEBUFFER,
		};
		++*iterator;
		return true;
	}
	return false;
}
