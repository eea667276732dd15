/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * tree.h - the regions of one space, in an AVL tree ordered by address.
 *
 * The tree knows addresses and links, not what regions mean: no page table, no
 * locks, no allocation. Regions are disjoint; each knows the free bytes between
 * its predecessor (or HX_SPACE_LOW_BYTES) and itself, and each subtree the
 * largest such gap in it, so that a gap that is large enough is found in one
 * descent.
 */
#ifndef HX_SPACE_TREE_H
#define HX_SPACE_TREE_H

#include <hx/space.h>

/** The region that holds @p a, or the next one above; NULL when there is none. */
struct hx_region *hx_tree_from(struct hx_region *root, uintptr_t a);
/** The region that holds @p a, NULL in a gap. */
struct hx_region *hx_tree_at(struct hx_region *root, uintptr_t a);
struct hx_region *hx_tree_first(struct hx_region *root);
struct hx_region *hx_tree_last(struct hx_region *root);
struct hx_region *hx_tree_next(struct hx_region *r);
struct hx_region *hx_tree_previous(struct hx_region *r);

/** Add @p r; its start, end, prot and flags are set, and [start, end) is free. */
void hx_tree_insert(struct hx_region **root, struct hx_region *r);
void hx_tree_remove(struct hx_region **root, struct hx_region *r);
/** Move the ends of @p r; it stays between its neighbours. */
void hx_tree_resize(struct hx_region *r, uintptr_t start, uintptr_t end);

/**
 * Start of the highest free range of @p bytes that ends at or below @p top.
 * No region ends above @p top. @return 0 when there is none
 */
uintptr_t hx_tree_find_gap(struct hx_region *root, uintptr_t bytes, uintptr_t top);

/**
 * Links, order, balance and gaps.
 * @param count  out: regions
 * @return HX_OK or CORRUPTED
 */
HX_NODISCARD hx_status hx_tree_validate(struct hx_region *root, uint64_t *count);

#endif
