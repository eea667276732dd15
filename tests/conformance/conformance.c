/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * HAL conformance: what a port must do before it may be called one. The same
 * source runs on the simulated machine and on every board.
 *
 *      codec.c      geometry and codec, as pure functions
 *      access.c     the MMU, through the mapper and real accesses (hx_platform_probe())
 *      staleness.c  TLB invalidation, on this CPU and on others
 *      spaces.c     several address spaces: identifiers, the shared kernel half, switches
 *      cpus.c       barriers on other CPUs
 *      tables.c     table frames: exhaustion, reuse, counts
 */
#include "conformance.h"

#define ENTRY(name) {#name, hx_conformance_##name},
static const struct hx_test_case cases[] = {HX_CONFORMANCE_CASES(ENTRY)};

const struct hx_test_suite hx_suite_conformance = {"conformance", HX_ARRAY_LENGTH(cases), cases};
