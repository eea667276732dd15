/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* riscv64: what a trap frame says about a page fault. */
#include "riscv64.h"

#include "csr.h"

bool hx_hal_fault_decode(const void *frame, struct hx_fault *out)
{
	const struct hx_riscv64_frame *f = frame;
	enum hx_access access;
	switch (f->scause) {
	case HX_RV_FETCH_PAGE_FAULT:
		access = HX_ACCESS_EXECUTE;
		break;
	case HX_RV_LOAD_PAGE_FAULT:
		access = HX_ACCESS_READ;
		break;
	case HX_RV_STORE_PAGE_FAULT: /* atomic operations as well */
		access = HX_ACCESS_WRITE;
		break;
	default:
		return false;
	}
	*out = (struct hx_fault){
		.va = hx_va(f->stval),
		.pc = hx_va(f->pc),
		.access = access,
		.cause = HX_FAULT_UNKNOWN, /* one cause for absent and refused */
		.user = !(f->sstatus & HX_SSTATUS_SPP),
		.user_access = (f->sstatus & HX_SSTATUS_SUM) != 0,
	};
	return true;
}
