/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* aarch64: what the running machine takes from the geometry. The boot CPU speaks for all. */
#include "aarch64.h"
#include "sysreg.h"

/* The platform's to set. */
uintptr_t hx_hal_direct_offset;
uint64_t hx_hal_boot_window_bytes;
bool hx_aarch64_broadcast = true;

bool hx_aarch64_pan;

static unsigned field(uint64_t identification, unsigned shift)
{
	return identification >> shift & 0xf;
}

void hx_aarch64_probe(struct hx_geometry *g)
{
	static const uint8_t pa_bits[] = {32, 36, 40, 42, 44, 48}; /* more: needs other tables */
	uint64_t mmfr0 = HX_SYS_READ(id_aa64mmfr0_el1), mmfr1 = HX_SYS_READ(id_aa64mmfr1_el1);
	if (field(mmfr0, 0) < HX_ARRAY_LENGTH(pa_bits)) {
		g->pa_bits = pa_bits[field(mmfr0, 0)];
	}
	g->asid_bits = field(mmfr0, 4) == 2 ? 16 : 8;
	hx_aarch64_pan = field(mmfr1, 20) != 0;
	uint32_t absent = field(mmfr1, 0) < 2 ? HX_MMU_HARDWARE_AD : 0; /* HAFDBS: both bits */
	absent |= hx_aarch64_pan ? 0 : HX_MMU_USER_GUARD;
	absent |= hx_aarch64_broadcast ? 0 : HX_MMU_BROADCAST;
	g->features &= ~absent;
}
