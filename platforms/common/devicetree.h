/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * devicetree.h - what boards that come with a flattened device tree ask it, beyond memory
 * and CPUs (hx/discovery.h). Nodes are named by path; unit addresses may be left out when
 * unambiguous.
 */
#ifndef HX_DEVICETREE_H
#define HX_DEVICETREE_H

#include <hx/discovery.h>

/** Does "compatible" of the node list @p with? */
bool hx_tree_is_compatible(const struct hx_fdt *fdt, const char *path, const char *with);

/** A property of one cell; @p other when it is absent or longer. */
uint32_t hx_tree_cell(const struct hx_fdt *fdt, const char *path, const char *name, uint32_t other);

/**
 * Range @p index of "reg" of the node, whose parent is @p parent and translates addresses
 * to themselves. @return false when there is no such range, or it is empty or wraps
 */
bool hx_tree_registers(const struct hx_fdt *fdt, const char *parent, const char *path,
		       unsigned index, struct hx_pa *base, uint64_t *bytes);

/** Path of /chosen/stdout-path without its options; @p other where it is an alias or absent. */
const char *hx_tree_console(const struct hx_fdt *fdt, char *out, size_t size, const char *other);

/** The range of RAM that holds [base, base + bytes). */
bool hx_tree_find_ram(const struct hx_fdt *fdt, uint64_t base, uint64_t bytes,
		      struct hx_memory_range *out);

#endif
