/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx_harvest(): what the machine has marked in a range, and the marks cleared.
 *
 * A CPU that has a page cached as written does not mark it again, so the marks are
 * cleared first and the range is flushed before the caller hears of it: a write
 * before the flush is covered by the DIRTY that is told, one after it marks anew.
 */
#include "internal.h"

struct harvest {
	struct hx_cursor cursor;
	uint64_t clear;
	uint64_t *leaves; /* for the next page */
};

/*
 * Clear the marks in one leaf. One above level 1 is of many stripes: another call may
 * have cleared them, and not flushed yet. @return its flags before
 */
static uint64_t clear_marks(struct harvest *h, hx_pte *p, hx_pte e, unsigned level, uintptr_t va)
{
	uint64_t flags = hx_hal_pte_flags(e, level);
	bool stale = level > 1 && h->clear != 0;
	if (level == 0 && (flags & h->clear) != 0) {
		hx_group_break(p, p + 1); /* this one is not settled any more */
	}
	while ((flags & h->clear) != 0) {
		hx_pte prot = hx_hal_pte_prot(flags & ~(h->clear | HX_PAGE_HUGE), level);
		if (hx_hal_pte_update(p, &e,
				      hx_hal_pte_leaf(hx_hal_pte_pa(e, level), prot, level))) {
			stale = true;
			break;
		}
		flags = hx_hal_pte_flags(e, level); /* another mark has appeared */
	}
	if (stale) {
		va &= ~(uintptr_t)(hx_level_bytes(level) - 1);
		hx_gather_add(&h->cursor.gather, va, hx_piece_last(va, UINTPTR_MAX, level), level);
	}
	return flags;
}

static void harvest(struct harvest *h, hx_pte *table, unsigned level, uintptr_t va, uintptr_t last)
{
	for (uintptr_t to;; va = to + 1) {
		to = hx_piece_last(va, last, level);
		hx_pte *p = &table[hx_level_index(va, level)];
		hx_pte e = hx_hal_pte_load(p);
		enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
		if (kind == HX_PTE_TABLE) {
			harvest(h, hx_child_of(e, level), level - 1, va, to);
		} else {
			uint64_t leaf = 0, step = 0;
			if (kind == HX_PTE_LEAF) {
				leaf = clear_marks(h, p, e, level, va) & HX_LEAF_FLAGS;
				leaf |= hx_hal_pte_pa(e, level).v +
					(va & (hx_level_bytes(level) - 1));
				step = HX_FRAME_BYTES;
			}
			for (uintptr_t n = (to - va) / HX_FRAME_BYTES + 1; n > 0; n--) {
				*h->leaves++ = leaf;
				leaf += step;
			}
		}
		if (to == last) {
			return;
		}
	}
}

hx_status hx_harvest(struct hx_pagetable *t, struct hx_va va, uint64_t pages, uint64_t clear,
		     uint64_t *leaves)
{
	uintptr_t last;
	uint64_t bytes;
	if (__builtin_mul_overflow(pages, (uint64_t)HX_FRAME_BYTES, &bytes)) {
		bytes = UINT64_MAX & ~(uint64_t)(HX_FRAME_BYTES - 1);
	}
	hx_status s = hx_mapper_check_range(t, va, bytes, &last);
	if (s != HX_OK) {
		return s;
	}
	if (!leaves || (clear & ~(HX_PAGE_ACCESSED | HX_PAGE_DIRTY)) != 0) {
		return HX_INVALID_ARGUMENT;
	}
	if (clear != 0 && !hx_feature(HX_MMU_HARDWARE_AD)) {
		return HX_NOT_SUPPORTED;
	}
	struct harvest h = {.clear = clear, .leaves = leaves};
	hx_cursor_open(&h.cursor, t, va.v, last);
	harvest(&h, hx_table_at(t->root), hx_root_level(), va.v, last);
	hx_cursor_flush(&h.cursor);
	hx_cursor_close(&h.cursor);
	return HX_OK;
}
