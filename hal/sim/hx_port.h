/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated machine's port header: the codec of the port that -Dsim_paging
 * names, over host memory. See hal/sim/sim.h for the machine itself.
 */
#ifndef HX_SIM_PORT_H
#define HX_SIM_PORT_H

#ifdef HX_SIM_CODEC_X86_64
#include "../x86_64/pte.h"
#else
#include "../riscv64/pte.h"
#endif
#include <hx/pte_access.h>

/* Threads play the CPUs, and the TLB is a data structure: these are calls. */
void hx_hal_pt_publish(void);
unsigned hx_hal_cpu_id(void);
unsigned long hx_hal_irq_save(void);
void hx_hal_irq_restore(unsigned long state);
void hx_hal_relax(void);
void hx_hal_user_access(bool allowed);

#endif
