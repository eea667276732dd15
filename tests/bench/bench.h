/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * bench.h - how the benchmarks measure and report.
 *
 * A suite is a list of workloads. Each does a known number of operations; what it
 * needs is prepared outside of the measured time. bench_measure() runs all of
 * them once, in turn, and that several times over: whatever disturbs the machine
 * disturbs them alike. What counts is the median, in CPU time of the thread.
 *
 *      static struct bench cases[] = {
 *              {.workload = "pair", .subject = "baseline", .run = list, .operations = N},
 *              {.workload = "pair", .subject = "buddy", .run = buddy, .operations = N},
 *      };
 *      bench_measure(cases, 2, BENCH_ROUNDS);
 *      bench_report("frames", &cases[0], NULL, NULL);
 *      bench_report("frames", &cases[1], &cases[0], "list");
 */
#ifndef HX_BENCH_H
#define HX_BENCH_H

#include <stdint.h>

enum { BENCH_ROUNDS = 15, BENCH_ROUNDS_MAX = 101 };

struct bench {
	const char *workload;
	const char *subject;
	void (*prepare)(void *context); /* not measured; may be NULL */
	void (*run)(void *context);
	void *context;
	uint64_t operations; /* in one run */
	double ns;           /* out: median of one operation */
	double rounds[BENCH_ROUNDS_MAX];
};

/** CPU time of this thread, in nanoseconds. */
uint64_t bench_clock(void);

/** Run each of @p n workloads once, unmeasured, then @p rounds times in turn. */
void bench_measure(struct bench *b, unsigned n, unsigned rounds);

/**
 * Print the median of one operation and, when @p baseline is given, how many
 * times the baseline's it is, as the metric "ratio-to-<name>". The ratio is the
 * median of the rounds' ratios.
 */
void bench_report(const char *suite, const struct bench *b, const struct bench *baseline,
		  const char *name);

/** Print one figure that was found in another way. */
void bench_figure(const char *suite, const char *workload, const char *subject, const char *metric,
		  double value, const char *unit);

/** The same without the line for people, who are shown it in another form. */
void bench_line(const char *suite, const char *workload, const char *subject, const char *metric,
		double value, const char *unit);

/** Of @p n values, at most BENCH_ROUNDS_MAX. */
double bench_median(const double *values, unsigned n);

/** A heading for people. */
void bench_title(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Keep the compiler from foreseeing @p v or doing without it. */
#define BENCH_KEEP(v) __asm__ volatile("" : "+r"(v) : : "memory")

#endif
