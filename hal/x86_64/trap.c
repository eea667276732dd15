/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * x86_64: what a trap frame says about a page fault. Its error code:
 *
 *      15     6   5   4   3    2   1   0
 *     | SGX .. | PK | I | RSV | U | W | P |    P: a valid translation refused
 */
#include "cpu.h"
#include "hx_x86.h"

bool hx_hal_fault_decode(const void *frame, struct hx_fault *out)
{
	const struct hx_x86_frame *f = frame;
	if (f->vector != HX_X86_VECTOR_PAGE_FAULT) {
		return false;
	}
	enum hx_fault_cause cause = HX_FAULT_MISSING;
	if (f->error & 1u << 3) {
		cause = HX_FAULT_UNKNOWN; /* reserved bits: the table is damaged */
	} else if (f->error & 1u << 0) {
		cause = HX_FAULT_PROTECTION;
	}
	*out = (struct hx_fault){
		.va = hx_va(f->cr2),
		.pc = hx_va(f->rip),
		.access = f->error & 1u << 4   ? HX_ACCESS_EXECUTE
			  : f->error & 1u << 1 ? HX_ACCESS_WRITE
					       : HX_ACCESS_READ,
		.cause = cause,
		.user = (f->error & 1u << 2) != 0,
		.user_access = !hx_x86_smap || (f->rflags & HX_X86_RFLAGS_AC) != 0,
	};
	return true;
}
