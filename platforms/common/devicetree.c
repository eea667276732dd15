/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Questions of boards to a device tree: see devicetree.h. */
#include "devicetree.h"

#include <hx/core.h>

bool hx_tree_is_compatible(const struct hx_fdt *fdt, const char *path, const char *with)
{
	uint32_t bytes;
	const uint8_t *list = hx_fdt_property(fdt, path, "compatible", &bytes);
	const uint32_t length = (uint32_t)hx_strlen(with) + 1;
	uint32_t start = 0; /* of the string that byte i is in */
	for (uint32_t i = 0; list && i < bytes; i++) {
		if (list[i] != '\0') {
			continue;
		}
		if (i + 1 - start == length && hx_memcmp(list + start, with, length) == 0) {
			return true;
		}
		start = i + 1;
	}
	return false;
}

/* A big-endian number of one or two cells. */
static uint64_t number(const uint8_t *p, uint32_t cells)
{
	uint64_t n = 0;
	for (uint32_t i = 0; i < 4 * cells; i++) {
		n = n << 8 | p[i];
	}
	return n;
}

uint32_t hx_tree_cell(const struct hx_fdt *fdt, const char *path, const char *name, uint32_t other)
{
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(fdt, path, name, &bytes);
	return p && bytes == 4 ? (uint32_t)number(p, 1) : other;
}

bool hx_tree_registers(const struct hx_fdt *fdt, const char *parent, const char *path,
		       unsigned index, struct hx_pa *base, uint64_t *bytes)
{
	uint32_t length, address_cells = hx_tree_cell(fdt, parent, "#address-cells", 2);
	uint32_t size_cells = hx_tree_cell(fdt, parent, "#size-cells", 1);
	const uint8_t *p = hx_fdt_property(fdt, path, "reg", &length);
	if (!p || address_cells - 1 > 1 || size_cells - 1 > 1) {
		return false;
	}
	uint32_t entry = 4 * (address_cells + size_cells);
	if (index >= length / entry) {
		return false;
	}
	p += (size_t)index * entry;
	*base = hx_pa(number(p, address_cells));
	*bytes = number(p + (size_t)4 * address_cells, size_cells);
	return *bytes != 0 && base->v <= UINT64_MAX - *bytes;
}

const char *hx_tree_console(const struct hx_fdt *fdt, char *out, size_t size, const char *other)
{
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(fdt, "/chosen", "stdout-path", &bytes);
	size_t n = 0;
	while (p && n < bytes && n + 1 < size && p[n] != '\0' && p[n] != ':') {
		out[n] = (char)p[n];
		n++;
	}
	out[n] = '\0';
	return out[0] == '/' ? out : other;
}

bool hx_tree_find_ram(const struct hx_fdt *fdt, uint64_t base, uint64_t bytes,
		      struct hx_memory_range *out)
{
	uint32_t iterator = 0;
	while (hx_fdt_memory_next(fdt, &iterator, out)) {
		uint64_t offset = base - out->base.v;
		if (out->type == HX_MEMORY_RAM && offset < out->bytes &&
		    bytes <= out->bytes - offset) {
			return true;
		}
	}
	return false;
}
