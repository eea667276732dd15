/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The input is a device tree. */
#include "fuzz.h"

#include <string.h>

static struct hx_fdt f;

bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	return hx_fdt_memory_next(&f, iterator, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	if (!hx_fdt_open(&f, data, bytes)) {
		return 0;
	}
	PROMISE(f.total_bytes <= bytes);
	fuzz_normalise();
	/* Each range and CPU costs a walk: do not look at thousands of them. */
	struct hx_memory_range r;
	struct hx_cpu_info cpu;
	uint32_t i = 0;
	bool reserved = false;
	while (i < 300 && hx_fdt_memory_next(&f, &i, &r)) {
		PROMISE(r.type == HX_MEMORY_RAM || r.type == HX_MEMORY_RESERVED);
		PROMISE(!reserved || r.type == HX_MEMORY_RESERVED); /* RAM comes first */
		reserved = r.type == HX_MEMORY_RESERVED;
	}
	i = 0;
	while (i < 100 && hx_fdt_cpu_next(&f, &i, &cpu)) {
	}
	struct hx_boot_info info;
	hx_fdt_boot_info(&f, &info);
	if (info.command_line) {
		PROMISE(fuzz_inside(data, bytes, info.command_line, strlen(info.command_line) + 1));
	}
	PROMISE(info.initrd_bytes == 0 || info.initrd.v + info.initrd_bytes > info.initrd.v);
	static const char *const paths[] = {"/",
					    "/cpus",
					    "/chosen",
					    "/soc/plic",
					    "/cpus/cpu@0",
					    "/memory",
					    "/reserved-memory/two",
					    "//x/"};
	static const char *const names[] = {"compatible", "reg", "status", ""};
	for (size_t p = 0; p < HX_ARRAY_LENGTH(paths); p++) {
		for (size_t n = 0; n < HX_ARRAY_LENGTH(names); n++) {
			uint32_t length;
			const uint8_t *value = hx_fdt_property(&f, paths[p], names[n], &length);
			PROMISE(!value || fuzz_inside(data, bytes, value, length));
		}
	}
	return 0;
}
