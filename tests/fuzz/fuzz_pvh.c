/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The input is physical memory in pieces (blob.h), the first of them the start info. */
#include "fuzz.h"

#include "blob.h"

static struct hx_pvh p;
static struct memory memory;
static unsigned kept; /* what open was lent: the command line is in it */

/* The rest is taken back at once: a hostile map has many entries. */
bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	bool more = hx_pvh_memory_next(&p, iterator, out);
	PROMISE(more || *iterator == p.map_entries); /* open has seen all of the map */
	while (memory.lent_count > kept) {
		free(memory.lent[--memory.lent_count]);
	}
	return more;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	memory_parse(&memory, data, bytes);
	if (memory.count > 0 &&
	    hx_pvh_open(&p, memory_access(&memory), hx_pa(memory.pieces[0].base))) {
		kept = memory.lent_count;
		fuzz_normalise();
		if (p.info.command_line) {
			PROMISE(strlen(p.info.command_line) < HX_COMMAND_LINE_MAX);
		}
	}
	memory_free(&memory);
	return 0;
}
