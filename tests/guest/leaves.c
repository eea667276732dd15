/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A page table for the machine's monitor to look at: the kernel half as booted, and in
 * the user half leaves of every size and with all rights. Nothing of it is touched, so
 * physical addresses from 0 serve. One line a leaf, in hexadecimal:
 *
 *      leaf VA PA BYTES FLAGS
 */
#include "guest.h"
#include "machine.h"

static bool print_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	char line[100];
	(void)context;
	hx_format(line, sizeof line, "leaf %llx %llx %llx %llx\n", (unsigned long long)va.v,
		  (unsigned long long)pa.v, (unsigned long long)bytes, (unsigned long long)flags);
	hx_platform_write(line);
	return true;
}

/* Single pages with each set of rights and each memory type, apart and side by side. */
static hx_status map_pages(struct hx_pagetable *t, uintptr_t base)
{
	static const uint64_t bits[] = {HX_PAGE_WRITABLE, HX_PAGE_USER, HX_PAGE_NO_EXECUTE,
					HX_PAGE_WRITE_THROUGH, HX_PAGE_NO_CACHE};
	hx_status s = HX_OK;
	for (unsigned set = 0; s == HX_OK && set < 1u << HX_ARRAY_LENGTH(bits); set++) {
		uint64_t flags = HX_PAGE_PRESENT;
		for (unsigned b = 0; b < HX_ARRAY_LENGTH(bits); b++) {
			flags |= set >> b & 1 ? bits[b] : 0;
		}
		uintptr_t at = (uintptr_t)(set * 3) * HX_FRAME_BYTES;
		s = hx_map(t, hx_va(base + at), hx_pa(at), 2 * HX_FRAME_BYTES, flags);
	}
	return s;
}

/* The largest leaf of all, and one of each size below it, behind one another. */
static hx_status map_large(struct hx_pagetable *t, uintptr_t base)
{
	const struct hx_geometry *g = &hx_hal_geometry;
	uint64_t bytes = 0, size = HX_FRAME_BYTES;
	for (unsigned level = 0; level < g->levels && (g->leaf_levels >> level & 1); level++) {
		bool fits = size <= hx_user_end() / 4 && size < UINT64_C(1) << (g->pa_bits - 1);
		bytes += fits ? size : 0;
		size <<= g->bits[level];
	}
	return hx_map(t, hx_va(base), hx_pa(0), bytes, HX_PAGE_USER_READ | HX_PAGE_NO_EXECUTE);
}

_Noreturn void hx_guest_show_leaves(void)
{
	static struct hx_pagetable table;
	struct hx_system *sys = hx_test_system();
	hx_status s = hx_pagetable_init(&table, &(struct hx_pagetable_config){
							.frames = &sys->frames,
							.db = &sys->framedb,
							.wx = HX_WX_OFF,
							.huge = true,
							.kernel = &sys->kernel_table,
						});
	if (s == HX_OK) {
		s = map_pages(&table, HX_MIB(4) - 7 * HX_FRAME_BYTES);
	}
	if (s == HX_OK) {
		s = map_large(&table, hx_user_end() / 4);
	}
	if (s == HX_OK) {
		hx_pagetable_load(&table, &sys->kernel_table);
		hx_pagetable_visit(&table, print_leaf, NULL);
	}
	hx_platform_write(s == HX_OK ? "leaves end\n" : "leaves failed\n");
	for (;;) {
		hx_hal_relax();
	}
}
