/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The input is physical memory in pieces (blob.h), the first of them the RSDP.
 * Random bytes hardly ever add up, so the checksums are made right first.
 */
#include "fuzz.h"

#include "blob.h"

static void add_up(uint8_t *p, uint32_t bytes, uint32_t at)
{
	if (bytes > at) {
		p[at] = 0;
		uint8_t sum = 0;
		for (uint32_t i = 0; i < bytes; i++) {
			sum = (uint8_t)(sum + p[i]);
		}
		p[at] = (uint8_t)-sum;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct memory memory;
	memory_parse(&memory, data, bytes);
	for (unsigned i = 0; i < memory.count; i++) {
		struct piece *p = &memory.pieces[i];
		if (i == 0) {
			add_up(p->data, p->bytes < 20 ? p->bytes : 20, 8);
			add_up(p->data, p->bytes, 32);
		} else {
			add_up(p->data, p->bytes, 9);
		}
	}
	struct hx_acpi a;
	if (memory.count > 0 &&
	    hx_acpi_open(&a, memory_access(&memory), hx_pa(memory.pieces[0].base))) {
		PROMISE(a.madt.v != 0 && a.madt_bytes >= 44);
		static uint64_t seen[64];
		struct hx_cpu_info cpu;
		uint32_t i = 0;
		unsigned n = 0;
		while (n < HX_ARRAY_LENGTH(seen) && hx_acpi_cpu_next(&a, &i, &cpu)) {
			PROMISE(i <= a.madt_bytes);
			for (unsigned k = 0; k < n; k++) {
				PROMISE(seen[k] != cpu.hardware_id);
			}
			seen[n++] = cpu.hardware_id;
			memory_release(&memory);
		}
		/* The node is the same up to where it may change. */
		uint64_t at = 0, end = 0;
		for (unsigned k = 0; k < 40 && end != UINT64_MAX; k++, at = end) {
			end = hx_acpi_node_end(&a, hx_pa(at));
			PROMISE(end > at || end == UINT64_MAX);
			PROMISE(hx_acpi_node_of(&a, hx_pa(at)) ==
				hx_acpi_node_of(&a, hx_pa(end - 1)));
			memory_release(&memory);
		}
	}
	struct hx_pa found;
	if (memory.count > 0 && (memory.pieces[0].base & 0xe000f) == 0xe0000 &&
	    hx_acpi_find_rsdp(memory_access(&memory), &found)) {
		PROMISE(found.v >= 0xe0000 && found.v < 0x100000 && found.v % 16 == 0);
	}
	memory_free(&memory);
	return 0;
}
