/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* say.h - a line for whoever reads a guest's console, in TAP. */
#ifndef HX_SAY_H
#define HX_SAY_H

#include <hx/platform.h>

static inline void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void say(const char *format, ...)
{
	char text[200];
	va_list list;
	va_start(list, format);
	hx_format_list(text, sizeof text, format, list);
	va_end(list);
	hx_platform_write(text);
}

#endif
