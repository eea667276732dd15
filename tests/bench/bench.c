/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Measuring and reporting; see bench.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "bench.h"

uint64_t bench_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

double bench_median(const double *values, unsigned n)
{
	double sorted[BENCH_ROUNDS_MAX] = {0};
	for (unsigned i = 0; i < n; i++) {
		sorted[i] = values[i];
	}
	qsort(sorted, n, sizeof *sorted, by_value);
	return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static unsigned rounds_run;

static double run_once(const struct bench *b)
{
	if (b->prepare) {
		b->prepare(b->context);
	}
	uint64_t start = bench_clock();
	b->run(b->context);
	return (double)(bench_clock() - start) / (double)b->operations;
}

void bench_measure(struct bench *b, unsigned n, unsigned rounds)
{
	rounds_run = rounds < BENCH_ROUNDS_MAX ? rounds : BENCH_ROUNDS_MAX;
	for (unsigned i = 0; i < n; i++) {
		(void)run_once(&b[i]); /* warm */
	}
	for (unsigned r = 0; r < rounds_run; r++) {
		for (unsigned i = 0; i < n; i++) {
			b[i].rounds[r] = run_once(&b[i]);
		}
	}
	for (unsigned i = 0; i < n; i++) {
		b[i].ns = bench_median(b[i].rounds, rounds_run);
	}
}

void bench_title(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	printf("\n");
	vprintf(format, list);
	printf("\n");
	va_end(list);
}

/* The lines for programs, kept until the table for people is complete. */
static FILE *lines;

static void print_lines(void)
{
	char line[256];
	rewind(lines);
	printf("\n");
	while (fgets(line, sizeof line, lines)) {
		fputs(line, stdout);
	}
	fclose(lines);
}

void bench_line(const char *suite, const char *workload, const char *subject, const char *metric,
		double value, const char *unit)
{
	if (!lines) {
		lines = tmpfile();
		if (!lines) {
			perror("tmpfile");
			exit(1);
		}
		atexit(print_lines);
	}
	fprintf(lines, "bench %s %s %s %s %.4g %s\n", suite, workload, subject, metric, value,
		unit);
}

void bench_figure(const char *suite, const char *workload, const char *subject, const char *metric,
		  double value, const char *unit)
{
	printf("  %-24s %-24s %-18s %10.3f %s\n", workload, subject, metric, value, unit);
	fflush(stdout);
	bench_line(suite, workload, subject, metric, value, unit);
}

void bench_report(const char *suite, const struct bench *b, const struct bench *baseline,
		  const char *name)
{
	bench_figure(suite, b->workload, b->subject, "time", b->ns, "ns");
	if (baseline) {
		double ratios[BENCH_ROUNDS_MAX];
		char metric[64];
		for (unsigned r = 0; r < rounds_run; r++) {
			ratios[r] = b->rounds[r] / baseline->rounds[r];
		}
		snprintf(metric, sizeof metric, "ratio-to-%s", name);
		bench_figure(suite, b->workload, b->subject, metric,
			     bench_median(ratios, rounds_run), "x");
	}
}
