/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* hx/helix.h - everything a kernel uses, in one include. */
#ifndef HX_HELIX_H
#define HX_HELIX_H

#include <hx/boot.h>
#include <hx/version.h>

#endif
