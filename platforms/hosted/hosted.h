/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* hosted.h - the simulated machine as a platform: its size. */
#ifndef HX_HOSTED_H
#define HX_HOSTED_H

#include <hx/platform.h>

/**
 * Start the simulated machine anew with this much RAM and this many CPUs.
 * @param ram   "512M": up to 2 GiB lie low, in two pieces with a reserved hole
 *              between them, the rest from 4 GiB on; NULL: 256 MiB low and 64 MiB high
 * @param cpus  "1".."64"; NULL: 4
 * @return false for words that mean nothing, or less than 16 MiB
 */
bool hx_hosted_configure(const char *ram, const char *cpus);

/**
 * Also let the machine have or lack what real ones differ in, from now on.
 * @param words  "+asids +broadcast +groups -hardware-ad -user-guard", any of them; NULL: none
 * @return false for an unknown word
 */
bool hx_hosted_features(const char *words);

/** What hx_platform_boot_args() says; "" until main() sets it. */
extern const char *hx_hosted_command_line;

#endif
