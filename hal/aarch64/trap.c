/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* aarch64: what a trap frame says about a page fault. */
#include "aarch64.h"

/* Status codes of aborts; the two bits below are the level. */
enum {
	STATUS_LEVEL = 0x3,
	STATUS_ADDRESS_SIZE = 0x00, /* an entry names memory that cannot exist */
	STATUS_TRANSLATION = 0x04,
	STATUS_ACCESS_FLAG = 0x08,
	STATUS_PERMISSION = 0x0c,
};

bool hx_hal_fault_decode(const void *frame, struct hx_fault *out)
{
	const struct hx_aarch64_frame *f = frame;
	if (f->kind != HX_A64_SYNC) {
		return false;
	}
	struct hx_fault fault = {.va = hx_va(f->far), .pc = hx_va(f->pc)};
	const unsigned class = hx_esr_class(f->esr);
	fault.user = class == HX_ESR_FETCH_FROM_USER || class == HX_ESR_DATA_FROM_USER;
	if (class == HX_ESR_FETCH_FROM_USER || class == HX_ESR_FETCH) {
		fault.access = HX_ACCESS_EXECUTE;
	} else if (class == HX_ESR_DATA_FROM_USER || class == HX_ESR_DATA) {
		bool cache_operation = f->esr >> 8 & 1, write = f->esr >> 6 & 1;
		fault.access = write && !cache_operation ? HX_ACCESS_WRITE : HX_ACCESS_READ;
	} else {
		return false;
	}
	switch (f->esr & 0x3f & ~(uint64_t)STATUS_LEVEL) {
	case STATUS_TRANSLATION:
		fault.cause = HX_FAULT_MISSING;
		break;
	case STATUS_ACCESS_FLAG:
	case STATUS_PERMISSION:
		fault.cause = HX_FAULT_PROTECTION;
		break;
	case STATUS_ADDRESS_SIZE:
		fault.cause = HX_FAULT_UNKNOWN;
		break;
	default:
		return false; /* alignment, external aborts, conflicting TLB entries */
	}
	fault.user_access = !hx_aarch64_pan || !(f->spsr & HX_A64_SPSR_PAN);
	*out = fault;
	return true;
}
