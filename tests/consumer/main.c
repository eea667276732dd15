/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The least that shows that headers and library are found from outside. */
#include <hx/helix.h>

static struct hx_heap heap;
static unsigned char arena[65536];

int main(void)
{
	hx_heap_init(&heap);
	hx_status s = hx_heap_use(&heap, &(struct hx_heap_config){.trait = &hx_heap_bump,
								  .arena = arena,
								  .arena_bytes = sizeof arena});
	if (s != HX_OK) {
		return 1;
	}
	struct hx_ptr_result p = hx_heap_allocate(&heap, 100, 0, HX_HEAP_ZERO);
	return p.status == HX_OK && hx_heap_free(&heap, p.value) == HX_OK ? 0 : 2;
}
