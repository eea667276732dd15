/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Copying for a process, on machines with an MMU of their own. */
#include <hx/platform.h>

bool hx_platform_copy(struct hx_va to, struct hx_va from, uint64_t bytes)
{
	/* A fault that cannot be resolved ends the machine with a report. */
	hx_hal_user_access(true);
	hx_memcpy((void *)to.v, (const void *)from.v, (size_t)bytes);
	hx_hal_user_access(false);
	return true;
}
