/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The conformance suite, hosted: on the simulated machine. */
#include "../conformance/conformance.c"
