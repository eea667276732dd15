/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * PVH: the start info that Xen's boot ABI, which QEMU speaks too, hands over in
 * a register. All numbers are little-endian.
 *
 *   hvm_start_info                     module list entry    map entry (version 1)
 *    0 magic 0x336ec578   24 cmdline    0 address            0 address
 *    4 version            32 rsdp       8 bytes              8 bytes
 *    8 flags              40 map       16 cmdline           16 type (E820's)
 *   12 modules            48 entries   24 reserved          20 reserved
 *   16 module list        52 reserved  32                   24
 *                         56
 *
 * Version 0 ends at 40. Versions are said to be compatible upwards, so a later
 * one is read as version 1. The first module is the initrd.
 *
 * The map is what the kernel cannot do without: when it cannot be read, open
 * refuses. Any other part that cannot be read counts as absent.
 */
#include "bytes.h"

enum {
	MAGIC = 0x336ec578,
	INFO_BYTES_V0 = 40,
	INFO_BYTES_V1 = 56,
	MODULE_BYTES = 32,
	MAP_ENTRY_BYTES = 24,
};

enum hx_memory_type hx_e820_type(uint32_t type)
{
	switch (type) {
	case 1:
		return HX_MEMORY_RAM;
	case 3:
		return HX_MEMORY_ACPI;
	case 4:
		return HX_MEMORY_FIRMWARE;
	case 5:
		return HX_MEMORY_BAD;
	case 7:
		return HX_MEMORY_DEVICE;
	default:
		return HX_MEMORY_RESERVED;
	}
}

/* The string at @address, NULL when it does not end within the bound. */
static const char *read_string(const struct hx_physical *p, uint64_t address)
{
	for (uint64_t n = 0; n < HX_COMMAND_LINE_MAX; n++) {
		uint64_t at;
		if (address == 0 || __builtin_add_overflow(address, n, &at)) {
			return NULL;
		}
		const uint8_t *c = physical_bytes(p, hx_pa(at), 1);
		if (!c) {
			return NULL;
		}
		if (*c == '\0') {
			return (const char *)physical_bytes(p, hx_pa(address), n + 1);
		}
	}
	return NULL;
}

bool hx_pvh_open(struct hx_pvh *p, struct hx_physical physical, struct hx_pa start_info)
{
	const uint8_t *info = physical_bytes(&physical, start_info, INFO_BYTES_V0);
	if (!info || le32(info) != MAGIC) {
		return false;
	}
	struct hx_pvh r = {.physical = physical};
	r.info.rsdp = hx_pa(le64(info + 32));
	r.info.command_line = read_string(&physical, le64(info + 24));
	if (le32(info + 12) > 0) {
		const uint8_t *module =
			physical_bytes(&physical, hx_pa(le64(info + 16)), MODULE_BYTES);
		if (module && le64(module + 8) > 0) {
			r.info.initrd = hx_pa(le64(module));
			r.info.initrd_bytes = le64(module + 8);
		}
	}
	if (le32(info + 4) >= 1) {
		info = physical_bytes(&physical, start_info, INFO_BYTES_V1);
		if (!info) {
			return false;
		}
		r.map = hx_pa(le64(info + 40));
		r.map_entries = le32(info + 48);
		if (r.map_entries > 0 &&
		    !physical_bytes(&physical, r.map, (uint64_t)r.map_entries * MAP_ENTRY_BYTES)) {
			return false;
		}
	}
	*p = r;
	return true;
}

bool hx_pvh_memory_next(const struct hx_pvh *p, uint32_t *iterator, struct hx_memory_range *out)
{
	if (*iterator >= p->map_entries) {
		return false;
	}
	/* Does not wrap: open read the whole map. */
	uint64_t at = p->map.v + (uint64_t)*iterator * MAP_ENTRY_BYTES;
	const uint8_t *entry = physical_bytes(&p->physical, hx_pa(at), MAP_ENTRY_BYTES);
	if (!entry) {
		return false;
	}
	*out = (struct hx_memory_range){
		.base = hx_pa(le64(entry)),
		.bytes = le64(entry + 8),
		.type = hx_e820_type(le32(entry + 16)),
	};
	++*iterator;
	return true;
}
