/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* riscv64: discovery, by the flattened device tree and what the platform adds. */
#include "riscv64.h"

/* Set: the iterator counts the platform's ranges; clear: it is the tree reader's. */
#define EXTRA (UINT32_C(1) << 31)

static struct {
	const struct hx_fdt *fdt;
	uint64_t boot_hart;
	const struct hx_memory_range *extra;
	unsigned extra_count;
} source;

void hx_riscv64_discover(const struct hx_fdt *fdt, uint64_t boot_hart,
			 const struct hx_memory_range *extra, unsigned extra_count)
{
	source.fdt = fdt;
	source.boot_hart = boot_hart;
	source.extra = extra;
	source.extra_count = extra_count;
}

bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	if (!(*iterator & EXTRA)) {
		if (source.fdt && hx_fdt_memory_next(source.fdt, iterator, out)) {
			return true;
		}
		*iterator = EXTRA;
	}
	uint32_t i = *iterator & ~EXTRA;
	if (i >= source.extra_count) {
		return false;
	}
	*out = source.extra[i];
	(*iterator)++;
	return true;
}

bool hx_hal_cpu_next(uint32_t *iterator, struct hx_cpu_info *out)
{
	if (!source.fdt || !hx_fdt_cpu_next(source.fdt, iterator, out)) {
		return false;
	}
	out->boot = out->hardware_id == source.boot_hart;
	return true;
}
