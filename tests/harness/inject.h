/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * inject.h - let a chosen allocation of frames fail, in hosted runs and guests.
 *
 *     uint64_t n = 0;
 *     hx_inject_begin(frames, 0, false);            count only
 *     operation();
 *     n = hx_inject_end();
 *     for (uint64_t i = 1; i <= n; i++) {
 *             hx_inject_begin(frames, i, forever);  the i-th one fails
 *             HX_CHECK_STATUS(operation(), HX_OUT_OF_MEMORY);
 *             hx_inject_end();
 *             nothing has changed: compare
 *     }
 *
 * Between begin and end every zone's trait is a copy whose allocate, allocate_run
 * and allocate_bulk count, and fail when told to. A request that falls back from zone
 * to zone counts once and fails in all of them; a retry after a pressure event
 * counts as a request of its own. One thread allocates, or the count means little.
 */
#ifndef HX_TEST_INJECT_H
#define HX_TEST_INJECT_H

#include <hx/frames.h>

/**
 * @param fail_at  number of the request that fails, from 1; 0: none does
 * @param forever  all after it fail as well
 */
void hx_inject_begin(struct hx_frames *f, uint64_t fail_at, bool forever);

/** Put the traits back. @return requests seen since begin */
uint64_t hx_inject_end(void);

#endif
