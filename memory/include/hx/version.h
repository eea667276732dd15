/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* hx/version.h - SemVer; meson.build reads the project's version from here. */
#ifndef HX_VERSION_H
#define HX_VERSION_H

#define HX_VERSION "0.1.0"

#endif
