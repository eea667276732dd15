/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * x86_64: what firmware left, from PVH or multiboot2 and from ACPI, copied into
 * static tables at start. Read once, because stage 5 maps only what the kernel
 * owns, and because a CPU that starts overwrites the low page.
 *
 * Added to the loader's own words:
 *
 *      0x00000000 .. 0x00001000   RESERVED   interrupt table and BIOS data
 *      0x000a0000 .. 0x00100000   RESERVED   video memory, option ROMs, BIOS
 *      low page                   RESERVED   see hx_x86_low_page()
 *      the image                  KERNEL
 *      first module               INITRD
 *      start info, map, command line, module list; multiboot2 information
 *                                 FIRMWARE
 */
#include <hx/discovery.h>

#include "cpu.h"
#include "hx_x86.h"

enum { RANGES_MAX = 256, COMMAND_LINE_MAX = 1024 };

static struct hx_memory_range ranges[RANGES_MAX];
static uint32_t range_count;
static bool ranges_lost;
static struct hx_cpu_info cpus[HX_CPUS_MAX];
static uint32_t cpu_count;
static char command_line[COMMAND_LINE_MAX];
static struct hx_pa low_page;

/* ---- Physical memory under the boot tables ---- */

static const void *in_boot_window(void *context, struct hx_pa a, uint64_t bytes)
{
	(void)context;
	uint64_t end;
	if (__builtin_add_overflow(a.v, bytes, &end) || end > hx_hal_boot_window_bytes) {
		return NULL;
	}
	return (const void *)((uintptr_t)a.v + hx_hal_direct_offset);
}

static const struct hx_physical physical = {in_boot_window, NULL};

/* ---- Memory ---- */

static void add_range(struct hx_memory_range r)
{
	if (range_count == RANGES_MAX) {
		ranges_lost = true;
		return;
	}
	ranges[range_count++] = r;
}

static void add(enum hx_memory_type type, uint64_t base, uint64_t bytes)
{
	if (bytes > 0) {
		add_range((struct hx_memory_range){hx_pa(base), bytes, type, 0});
	}
}

static void add_boot_info(const struct hx_boot_info *info)
{
	add(HX_MEMORY_INITRD, info->initrd.v, info->initrd_bytes);
	const char *text = info->command_line ? info->command_line : "";
	for (unsigned i = 0; i < COMMAND_LINE_MAX - 1 && text[i] != '\0'; i++) {
		command_line[i] = text[i];
	}
}

static const char *read_pvh(struct hx_pa info, struct hx_pa *rsdp)
{
	struct hx_pvh pvh;
	if (!hx_pvh_open(&pvh, physical, info)) {
		return "the PVH start info cannot be read";
	}
	uint32_t at = 0;
	struct hx_memory_range r;
	while (hx_pvh_memory_next(&pvh, &at, &r)) {
		add_range(r);
	}
	/* hvm_start_info (hal/discovery/pvh.c draws it): open has read all of it. */
	struct {
		uint32_t magic, version, flags, modules;
		uint64_t module_list, command_line;
	} head;
	__builtin_memcpy(&head, in_boot_window(NULL, info, sizeof head), sizeof head);
	add(HX_MEMORY_FIRMWARE, info.v, 56);
	add(HX_MEMORY_FIRMWARE, pvh.map.v, (uint64_t)pvh.map_entries * 24);
	add(HX_MEMORY_FIRMWARE, head.module_list, (uint64_t)head.modules * 32);
	if (pvh.info.command_line) {
		uint64_t bytes = 1;
		while (pvh.info.command_line[bytes - 1] != '\0') {
			bytes++;
		}
		add(HX_MEMORY_FIRMWARE, head.command_line, bytes);
	}
	add_boot_info(&pvh.info);
	*rsdp = pvh.info.rsdp;
	return NULL;
}

static const char *read_multiboot2(struct hx_pa info, struct hx_pa *rsdp)
{
	struct hx_multiboot2 m;
	const void *blob = in_boot_window(NULL, info, 8);
	if (!blob || !hx_multiboot2_open(&m, blob, hx_hal_boot_window_bytes - info.v)) {
		return "the multiboot2 information cannot be read";
	}
	uint32_t at = 0;
	struct hx_memory_range r;
	while (hx_multiboot2_memory_next(&m, &at, &r)) {
		add_range(r);
	}
	add(HX_MEMORY_FIRMWARE, info.v, m.total_bytes);
	add_boot_info(&m.info);
	if (m.info.rsdp_inline > 0) {
		*rsdp = hx_pa(info.v + m.info.rsdp_inline);
	}
	return NULL;
}

/* Whole in RAM, and in nothing else: for pages, at most one of which is looked for. */
static bool is_free_ram(uint64_t base, uint64_t bytes)
{
	bool ram = false;
	for (uint32_t i = 0; i < range_count; i++) {
		const struct hx_memory_range *r = &ranges[i];
		bool disjoint = r->base.v >= base + bytes ||
				(r->base.v <= base && r->bytes <= base - r->base.v);
		if (r->type != HX_MEMORY_RAM) {
			if (!disjoint) {
				return false;
			}
		} else if (r->base.v <= base && r->bytes >= base - r->base.v + bytes) {
			ram = true;
		}
	}
	return ram;
}

static void choose_low_page(void)
{
	for (uint64_t page = HX_KIB(60); page > 0; page -= HX_KIB(4)) {
		if (is_free_ram(page, HX_KIB(4))) {
			low_page = hx_pa(page);
			add(HX_MEMORY_RESERVED, page, HX_KIB(4));
			return;
		}
	}
}

/* ---- CPUs and nodes ---- */

/* RAM that spans several nodes is cut; what is cut off follows in the table, and its turn. */
static void give_nodes(const struct hx_acpi *acpi)
{
	for (uint32_t i = 0; i < range_count; i++) {
		struct hx_memory_range *r = &ranges[i];
		uint64_t first = hx_acpi_node_end(acpi, r->base) - r->base.v;
		r->node = hx_acpi_node_of(acpi, r->base);
		if (r->type == HX_MEMORY_RAM && r->bytes > first) {
			add(HX_MEMORY_RAM, r->base.v + first, r->bytes - first);
			r->bytes = first;
		}
	}
}

static void read_acpi(struct hx_pa rsdp)
{
	uint32_t own_id = hx_x86_cpuid(1).ebx >> 24;
	struct hx_acpi acpi;
	if ((rsdp.v != 0 || hx_acpi_find_rsdp(physical, &rsdp)) &&
	    hx_acpi_open(&acpi, physical, rsdp)) {
		uint32_t at = 0;
		while (cpu_count < HX_CPUS_MAX && hx_acpi_cpu_next(&acpi, &at, &cpus[cpu_count])) {
			struct hx_cpu_info *cpu = &cpus[cpu_count++];
			cpu->boot = cpu->hardware_id == own_id;
		}
		give_nodes(&acpi);
	}
	for (uint32_t i = 0; i < cpu_count; i++) {
		if (cpus[i].boot) {
			return;
		}
	}
	/* No table, or one that does not know the CPU that reads it: believe none of it. */
	cpus[0] = (struct hx_cpu_info){.hardware_id = own_id, .boot = true};
	cpu_count = 1;
}

/* ---- What the kernel and the contract ask ---- */

const char *hx_x86_discover(const struct hx_x86_boot *boot)
{
	struct hx_pa rsdp = hx_pa(0);
	const char *wrong = "no boot protocol that this kernel speaks (PVH, multiboot2)";
	if (boot->protocol == HX_X86_PVH) {
		wrong = read_pvh(boot->info, &rsdp);
	} else if (boot->protocol == HX_X86_MULTIBOOT2) {
		wrong = read_multiboot2(boot->info, &rsdp);
	}
	if (wrong) {
		return wrong;
	}
	add(HX_MEMORY_RESERVED, 0, HX_KIB(4));
	add(HX_MEMORY_RESERVED, 0xa0000, 0x60000);
	add(HX_MEMORY_KERNEL, boot->image.v, boot->image_bytes);
	choose_low_page();
	read_acpi(rsdp);
	/* A range too many might be the one that says: not RAM. */
	return ranges_lost ? "the memory map has more ranges than the kernel has room for" : NULL;
}

const char *hx_x86_command_line(void)
{
	return command_line;
}

struct hx_pa hx_x86_low_page(void)
{
	return low_page;
}

bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	if (*iterator >= range_count) {
		return false;
	}
	*out = ranges[(*iterator)++];
	return true;
}

bool hx_hal_cpu_next(uint32_t *iterator, struct hx_cpu_info *out)
{
	if (*iterator >= cpu_count) {
		return false;
	}
	*out = cpus[(*iterator)++];
	return true;
}
