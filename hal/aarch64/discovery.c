/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* aarch64: discovery, by the flattened device tree and what the platform adds. */
#include "aarch64.h"

#include "sysreg.h"

/* The iterator is the tree reader's until that ends, then EXTRA and a counter. */
#define EXTRA (UINT32_C(1) << 31)

static const struct hx_fdt *tree;
static const struct hx_memory_range *extras;
static unsigned extra_count;
static uint64_t boot_affinity;

uint64_t hx_aarch64_affinity(void)
{
	return HX_SYS_READ(mpidr_el1) & UINT64_C(0xff00ffffff);
}

void hx_aarch64_discover(const struct hx_fdt *fdt, const struct hx_memory_range *extra,
			 unsigned count)
{
	tree = fdt;
	extras = extra;
	extra_count = count;
	boot_affinity = hx_aarch64_affinity();
}

bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	if (!(*iterator & EXTRA)) {
		if (tree && hx_fdt_memory_next(tree, iterator, out)) {
			return true;
		}
		*iterator = EXTRA;
	}
	uint32_t next = *iterator & ~EXTRA;
	if (next >= extra_count) {
		return false;
	}
	*out = extras[next];
	*iterator = EXTRA | (next + 1);
	return true;
}

bool hx_hal_cpu_next(uint32_t *iterator, struct hx_cpu_info *out)
{
	bool any = tree && hx_fdt_cpu_next(tree, iterator, out);
	if (any) {
		out->boot = out->hardware_id == boot_affinity;
	}
	return any;
}
