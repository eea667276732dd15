/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The rule that every hosted suite with page tables is under: when a frame is
 * released, data or table, no CPU can reach it any more. The linker leads the
 * calls that free frames here first (-Wl,--wrap).
 */
#include <hx/frames.h>
#include <sim.h>

#include "hx_test.h"

hx_status __real_hx_frames_free(struct hx_frames *f, struct hx_pfn first, unsigned order);
hx_status __real_hx_frames_free_run(struct hx_frames *f, struct hx_pfn first, uint64_t count);
hx_status __real_hx_frames_deallocate(struct hx_frames *f, struct hx_pfn first);
uint64_t __real_hx_frames_free_bulk(struct hx_frames *f, const struct hx_pfn *frames,
				    uint64_t count, hx_status *status);
hx_status __wrap_hx_frames_free(struct hx_frames *f, struct hx_pfn first, unsigned order);
hx_status __wrap_hx_frames_free_run(struct hx_frames *f, struct hx_pfn first, uint64_t count);
hx_status __wrap_hx_frames_deallocate(struct hx_frames *f, struct hx_pfn first);
uint64_t __wrap_hx_frames_free_bulk(struct hx_frames *f, const struct hx_pfn *frames,
				    uint64_t count, hx_status *status);

/* What is refused is not released; here only what no call can mean is left out. */
static void audit(struct hx_pfn first, uint64_t count)
{
	uint64_t end;
	if (count == 0 || __builtin_add_overflow(first.v, count, &end) ||
	    end > UINT64_MAX >> HX_FRAME_SHIFT) {
		return;
	}
	unsigned found = hx_sim_audit_release(first, count);
	if (found > 0) {
		hx_test_fail(__FILE__, __LINE__,
			     "%llu frames from 0x%llx are released, and %u TLB entries reach them",
			     (unsigned long long)count, (unsigned long long)first.v, found);
	}
}

hx_status __wrap_hx_frames_free(struct hx_frames *f, struct hx_pfn first, unsigned order)
{
	audit(first, order <= HX_ORDER_MAX ? UINT64_C(1) << order : 0);
	return __real_hx_frames_free(f, first, order);
}

hx_status __wrap_hx_frames_free_run(struct hx_frames *f, struct hx_pfn first, uint64_t count)
{
	audit(first, count);
	return __real_hx_frames_free_run(f, first, count);
}

hx_status __wrap_hx_frames_deallocate(struct hx_frames *f, struct hx_pfn first)
{
	audit(first, 1); /* how many there are is the allocator's knowledge */
	return __real_hx_frames_deallocate(f, first);
}

uint64_t __wrap_hx_frames_free_bulk(struct hx_frames *f, const struct hx_pfn *frames,
				    uint64_t count, hx_status *status)
{
	for (uint64_t i = 0; frames && i < count; i++) {
		audit(frames[i], 1);
	}
	return __real_hx_frames_free_bulk(f, frames, count, status);
}
