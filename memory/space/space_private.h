/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * space_private.h - what the files of memory/space share.
 *
 * Locking: the space's lock guards the tree, the break, the counters and every
 * change of the user half of the page table. Under it the table's and the
 * frames' locks are taken (mapping, unmapping, releasing); allocations that may
 * raise pressure, region records among them, are made without it.
 */
#ifndef HX_SPACE_PRIVATE_H
#define HX_SPACE_PRIVATE_H

#include "tree.h"

#define HX_PROT_ALL (HX_PROT_READ | HX_PROT_WRITE | HX_PROT_EXEC)

/** First address behind what can be mapped: the half's last page stays free. */
static inline uintptr_t hx_space_top(void)
{
	return hx_user_end() - (uintptr_t)HX_FRAME_BYTES;
}

/** Is @p token good for @p rights on @p s? PERMISSION_DENIED when not. */
HX_NODISCARD hx_status hx_space_allowed(struct hx_space *s, struct hx_token token, uint32_t rights);

/** Flags of the leaves of a region with rights @p prot. */
uint64_t hx_space_leaf_flags(unsigned prot);

/** Give back a frame that was never mapped, nor described in the database. */
void hx_space_return_frame(struct hx_space *s, struct hx_pfn frame);

/** Give back a frame of an anonymous page that nothing maps any more. */
void hx_space_free_frame(struct hx_space *s, struct hx_pfn frame);

/**
 * Unmap [start, end) and give back its frames once no CPU can use them; pages
 * that were never touched are passed over. Under the lock.
 */
HX_NODISCARD hx_status hx_space_drop_pages(struct hx_space *s, uintptr_t start, uintptr_t end);

#endif
