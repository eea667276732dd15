/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/discovery.h - readers of what firmware hands over: flattened device tree,
 * PVH start info with its E820-typed map, multiboot2, ACPI's CPU table.
 *
 * Pure C over bytes that are not trusted: every offset and length is checked
 * against the blob before it is followed, strings must end inside it, nothing
 * is written, nothing is allocated, nothing recurses. A reader that refuses a
 * blob says so with false; iterators end early at the first broken record.
 * Parts of the boot information that are damaged count as absent. Ranges come
 * out as firmware wrote them: hx/memmap.h normalises.
 */
#ifndef HX_DISCOVERY_H
#define HX_DISCOVERY_H

#include <hx/hal.h>

/* A command line is looked for no further than this, its end included (PVH). */
enum { HX_COMMAND_LINE_MAX = 4096 };

/* What a boot protocol says beside memory and CPUs; absent parts are 0 or NULL. */
struct hx_boot_info {
	const char *command_line; /* inside the blob, terminated */
	struct hx_pa initrd;
	uint64_t initrd_bytes;
	struct hx_pa rsdp;        /* ACPI root pointer */
	uint64_t rsdp_inline;     /* multiboot2: the RSDP's copy is at this offset; else 0 */
	uint64_t boot_hart;       /* FDT: boot_cpuid_phys */
};

/* ---- Flattened device tree (Devicetree Specification 0.4, version 17) ---- */

struct hx_fdt {
	const uint8_t *blob;
	uint32_t total_bytes;
	uint32_t structure, structure_bytes;
	uint32_t strings, strings_bytes;
	uint32_t reservations;
};

/* Deepest node, the root being 1. */
enum { HX_FDT_DEPTH_MAX = 16 };

/**
 * Walks the whole blob once: what it accepts is well formed, so that the readers
 * below never stop half-way and leave a reservation out.
 * @param limit  readable bytes at @p blob
 * @return false for versions compatible with neither 16 nor 17, anything that leaves the
 *         blob, unbalanced or too deeply nested nodes, properties behind a child
 *         node, a reservation block without end, and memory, reserved-memory
 *         or CPU nodes whose "reg" is no whole number of entries or has cells
 *         other than 1 or 2 (size cells of CPUs: 0)
 */
HX_NODISCARD bool hx_fdt_open(struct hx_fdt *f, const void *blob, uint64_t limit);
/**
 * Memory nodes (RAM, with numa-node-id), then /reserved-memory (RESERVED), then
 * the blob's reservation block (RESERVED). The blob itself and the initrd are
 * the caller's to add.
 */
HX_NODISCARD bool hx_fdt_memory_next(const struct hx_fdt *f, uint32_t *iterator,
				     struct hx_memory_range *out);
/** Enabled CPUs ("status" absent or okay); boot is set for boot_cpuid_phys. */
HX_NODISCARD bool hx_fdt_cpu_next(const struct hx_fdt *f, uint32_t *iterator,
				  struct hx_cpu_info *out);
void hx_fdt_boot_info(const struct hx_fdt *f, struct hx_boot_info *out);
/**
 * A property of the node at @p path ("/cpus", "/chosen"; unit addresses may be
 * left out when unambiguous). @return NULL when absent; *@p bytes is its length
 */
const uint8_t *hx_fdt_property(const struct hx_fdt *f, const char *path, const char *name,
			       uint32_t *bytes);

/* ---- Access to physical memory, for blobs that point to further blobs ---- */

/** Pointer to @p bytes readable bytes at @p a, NULL when they cannot be read. */
typedef const void *(*hx_physical_fn)(void *context, struct hx_pa a, uint64_t bytes);

struct hx_physical {
	hx_physical_fn at;
	void *context;
};

/* ---- PVH: hvm_start_info version 0 and 1 (map types are E820's) ---- */

struct hx_pvh {
	struct hx_physical physical;
	struct hx_pa map;
	uint32_t map_entries;
	struct hx_boot_info info;
};

HX_NODISCARD bool hx_pvh_open(struct hx_pvh *p, struct hx_physical physical,
			      struct hx_pa start_info);
HX_NODISCARD bool hx_pvh_memory_next(const struct hx_pvh *p, uint32_t *iterator,
				     struct hx_memory_range *out);

/** E820: 1 RAM, 3 ACPI, 4 FIRMWARE (NVS), 5 BAD, 7 (PMEM) DEVICE, else RESERVED. */
enum hx_memory_type hx_e820_type(uint32_t type);

/* ---- Multiboot2 information structure ---- */

struct hx_multiboot2 {
	const uint8_t *blob;
	uint32_t total_bytes;
	struct hx_boot_info info;
};

HX_NODISCARD bool hx_multiboot2_open(struct hx_multiboot2 *m, const void *blob, uint64_t limit);
/** Memory map, then the framebuffer (FRAMEBUFFER) if there is one. */
HX_NODISCARD bool hx_multiboot2_memory_next(const struct hx_multiboot2 *m, uint32_t *iterator,
					    struct hx_memory_range *out);

/* ---- ACPI: the MADT's CPUs; SRAT nodes where there is one ---- */

struct hx_acpi {
	struct hx_physical physical;
	struct hx_pa madt;
	uint32_t madt_bytes;
	struct hx_pa srat; /* 0: none */
	uint32_t srat_bytes;
	uint32_t local_apic; /* physical address of the APIC registers */
};

/** @param rsdp  its address; checksums of RSDP, RSDT/XSDT and MADT must hold */
HX_NODISCARD bool hx_acpi_open(struct hx_acpi *a, struct hx_physical physical, struct hx_pa rsdp);
/** Look for the RSDP in the BIOS area [0xe0000, 0x100000). */
HX_NODISCARD bool hx_acpi_find_rsdp(struct hx_physical physical, struct hx_pa *out);
/**
 * Enabled local APICs and x2APICs, each identity once. boot stays false: the
 * table does not say it, a CPU knows its own APIC id.
 */
HX_NODISCARD bool hx_acpi_cpu_next(const struct hx_acpi *a, uint32_t *iterator,
				   struct hx_cpu_info *out);
/** Node of physical address @p a by SRAT, 0 without one. */
uint32_t hx_acpi_node_of(const struct hx_acpi *a, struct hx_pa address);
/** Lowest address above @p address at which the node may change; UINT64_MAX: nowhere. */
uint64_t hx_acpi_node_end(const struct hx_acpi *a, struct hx_pa address);

#endif
