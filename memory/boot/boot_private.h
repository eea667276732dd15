/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the files of memory/boot share. */
#ifndef HX_BOOT_PRIVATE_H
#define HX_BOOT_PRIVATE_H

#include <hx/boot.h>

/* Each maps its part into sys->kernel_table; the first failure is returned. */
HX_NODISCARD hx_status hx_boot_map_image(struct hx_system *sys, const struct hx_boot_args *args);
HX_NODISCARD hx_status hx_boot_map_direct(struct hx_system *sys, const struct hx_boot_args *args);
HX_NODISCARD hx_status hx_boot_map_devices(struct hx_system *sys, const struct hx_boot_args *args);

/** Next word at *@p at, which moves behind it; *@p length 0 at the end of the line. */
const char *hx_command_line_word(const char **at, size_t *length);

#endif
