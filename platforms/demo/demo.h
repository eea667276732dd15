/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the files of the demo share: the smallest kernel on the library. */
#ifndef HX_DEMO_H
#define HX_DEMO_H

#include <hx/helix.h>
#include <hx/platform.h>

extern struct hx_system demo_system;
extern unsigned demo_cpus;

/** Results of the acts: one line each, "ok" or "WRONG"; the verdict counts them. */
void demo_result(bool well, const char *format, ...) __attribute__((format(printf, 2, 3)));
unsigned demo_failures(void);

void demo_show_map(const char *title, const struct hx_memmap *map);
void demo_draw_memory(void);
void demo_show_choices(void);

void act_frame_allocators(void);
void act_map_and_unmap(void);
void act_shootdown(void);
void act_demand_zero(void);
void act_mprotect(void);
void act_brk(void);
void act_heap(void);
void act_pressure(void);
void act_token(void);
void act_six_errors(void);

#endif
