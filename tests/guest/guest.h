/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* guest.h - what the files of the TAP kernel share. */
#ifndef HX_GUEST_H
#define HX_GUEST_H

/**
 * Load a page table with leaves of many kinds, print what hx_pagetable_visit() tells of
 * it, and hold still: tests/tools/run_monitor.py compares that with the machine's view.
 */
_Noreturn void hx_guest_show_leaves(void);

#endif
