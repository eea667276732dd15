/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Boot tables for Sv48 and Sv57. boot.S runs on Sv39's root R3; the roots of the
 * larger modes, R4 and R5, hang each smaller one below their last entry, so that
 * the image stays at the same addresses, and satp can be switched under running
 * code. A mode's direct map of 512 GiB begins at the base of its kernel half:
 *
 *   R4[256] -> D                 R5[256] -> E, E[0] -> D       D[i]: i GiB, R W
 *   R4[511] -> R3                R5[511] -> R4
 *
 * No entry is GLOBAL: the first load of a real table drops them all.
 */
#include "board.h"

#include "csr.h"

enum { ENTRIES = 512 };

uint64_t hx_board_boot_satp;

static hx_pte r4[ENTRIES] __attribute__((aligned(4096)));
static hx_pte r5[ENTRIES] __attribute__((aligned(4096)));
static hx_pte direct[ENTRIES] __attribute__((aligned(4096)));
static hx_pte direct_top[ENTRIES] __attribute__((aligned(4096)));

static hx_pte link_to(const hx_pte *table)
{
	return hx_hal_pte_table(board_image_pa(table));
}

static void build(void)
{
	uint64_t flags =
		HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE | HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	for (unsigned i = 0; i < ENTRIES; i++) {
		direct[i] = hx_hal_pte_leaf(hx_pa(HX_GIB(i)), hx_hal_pte_prot(flags, 2), 2);
	}
	r4[ENTRIES / 2] = link_to(direct);
	r4[ENTRIES - 1] = link_to(hx_board_sv39_root);
	direct_top[0] = link_to(direct);
	r5[ENTRIES / 2] = link_to(direct_top);
	r5[ENTRIES - 1] = link_to(r4);
}

/*
 * Switch from Sv39 to the mode with @levels and set the direct map's place.
 * False: the machine lacks it, and everything is as before.
 */
bool hx_board_choose_paging(unsigned levels)
{
	const hx_pte *root = levels == 3 ? hx_board_sv39_root : levels == 4 ? r4 : r5;
	uint64_t satp = hx_satp(levels, 0, board_image_pa(root).v);
	build();
	hx_sfence_all();
	HX_CSR_WRITE(satp, satp);
	hx_sfence_all();
	if (HX_CSR_READ(satp) != satp) {
		return false;
	}
	hx_board_boot_satp = satp;
	hx_hal_direct_offset = ~UINT64_C(0) << (12 + 9 * levels - 1);
	hx_hal_boot_window_bytes = HX_GIB(levels == 3 ? BOARD_SV39_DIRECT_GIB : ENTRIES);
	return true;
}
