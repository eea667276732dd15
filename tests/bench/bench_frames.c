/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Frame allocators under the workloads of frames_workloads.c and frames_shape.c, over one
 * span that is all free at first, beside the baselines of frames_baselines.c in the same run.
 * All subjects of a workload run in turn within each round. What counts is the median of the
 * rounds, of ratios the median of the rounds' ratios; times are CPU time of the threads, per
 * frame or block. Figures of the judged subject are held against its targets at the end.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frames.h"

enum {
	ROUNDS = 7,
	SUBJECTS_MAX = 16,
	TIB_GIB = 1024,
	INIT_METADATA_MAX = 256 << 20, /* of a TiB: more takes too long to touch */
};

/* Operations of a round (or all of the span once), of a stress; frames of a GiB. */
static struct {
	uint64_t wanted, stress, gib_frames;
} scale = {.wanted = 200000, .stress = 400000, .gib_frames = HX_GIB(1) / HX_FRAME_BYTES};

/* The code generation is part of the suite's name; x86-64 without more has fewer targets. */
#if defined(__x86_64__) && defined(__AVX2__) && defined(__BMI2__)
#define GENERATION "x86-64-v3"
static unsigned generation;
#elif defined(__x86_64__)
#define GENERATION "x86-64"
static unsigned generation = 1;
#else
#define GENERATION "host"
static unsigned generation;
#endif
#define SUITE "frames-" GENERATION

static struct {
	const char *workloads, *subjects, *gib, *threads; /* NULL: as planned */
	const char *judged;
	unsigned rounds;
} options = {.judged = "tree", .rounds = ROUNDS};

static bool listed(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list; p != NULL; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, word, n) == 0 && (p[n] == ',' || p[n] == 0)) {
			return true;
		}
	}
	return false;
}

static bool number_listed(const char *list, unsigned n)
{
	char word[16];
	snprintf(word, sizeof word, "%u", n);
	return listed(list, word);
}

/* ---- Figures ---- */

struct figure {
	char workload[FRAMES_NAME];
	unsigned gib, threads;
	const char *subject;
	char value[FRAMES_NAME];
	unsigned rounds;
	double round[BENCH_ROUNDS_MAX];
};

static struct figure *figures;
static unsigned figure_count;

static struct figure *find(const char *workload, unsigned gib, unsigned threads,
			   const char *subject, const char *value)
{
	for (unsigned i = 0; i < figure_count; i++) {
		struct figure *f = &figures[i];
		if (f->gib == gib && f->threads == threads && hx_streq(f->workload, workload) &&
		    hx_streq(f->subject, subject) && hx_streq(f->value, value)) {
			return f;
		}
	}
	return NULL;
}

static void record(const char *workload, unsigned gib, unsigned threads, const char *subject,
		   const char *value, double measured)
{
	struct figure *f = find(workload, gib, threads, subject, value);
	if (f == NULL) {
		figures = realloc(figures, (figure_count + 1) * sizeof *figures);
		if (figures == NULL) {
			frames_die("figures", "the host has no memory left");
		}
		f = &figures[figure_count++];
		*f = (struct figure){.gib = gib, .threads = threads, .subject = subject};
		snprintf(f->workload, sizeof f->workload, "%s", workload);
		snprintf(f->value, sizeof f->value, "%s", value);
	}
	if (f->rounds < BENCH_ROUNDS_MAX) {
		f->round[f->rounds++] = measured;
	}
}

static double median_of(const struct figure *f)
{
	return bench_median(f->round, f->rounds);
}

static double ratio_of(const struct figure *f, const struct figure *baseline)
{
	double ratios[BENCH_ROUNDS_MAX];
	unsigned n = f->rounds < baseline->rounds ? f->rounds : baseline->rounds;
	for (unsigned r = 0; r < n; r++) {
		ratios[r] = baseline->round[r] > 0 ? f->round[r] / baseline->round[r] : 0;
	}
	return bench_median(ratios, n);
}

/* The figure as a line for programs, with its ratio to each baseline. */
static void write_lines(const struct figure *f, const char *unit, bool ratios)
{
	char workload[64], metric[64];
	snprintf(workload, sizeof workload, "%s-%ug-%ut", f->workload, f->gib, f->threads);
	bench_line(SUITE, workload, f->subject, f->value, median_of(f), unit);
	for (unsigned i = 0; ratios && i < FRAMES_BASELINES; i++) {
		const char *name = frames_baselines[i].name;
		const struct figure *b = find(f->workload, f->gib, f->threads, name, f->value);
		if (b != NULL && b != f) {
			snprintf(metric, sizeof metric, "%s-ratio-to-%s", f->value, name);
			bench_line(SUITE, workload, f->subject, metric, ratio_of(f, b), "x");
		}
	}
}

/* ---- Timed workloads ---- */

struct cell {
	const struct frames_workload *workload;
	char name[FRAMES_NAME];
	unsigned order, gib, threads;
	unsigned count;
	const struct frames_subject *subjects[SUBJECTS_MAX];
	struct frames_run *runs[SUBJECTS_MAX];
};

static void print_ratio(const struct cell *c, const struct figure *f, const char *baseline)
{
	const struct figure *b = find(c->name, c->gib, c->threads, baseline, f->value);
	if (b != NULL) {
		printf(" %9.2f", ratio_of(f, b));
	} else {
		printf(" %9s", "-");
	}
}

static void print_aside(const struct cell *c, const char *subject, const char *value,
			const char *unit, const char *text)
{
	const struct figure *f = find(c->name, c->gib, c->threads, subject, value);
	if (f) {
		write_lines(f, unit, false);
		printf("  %.3g%s", median_of(f), text);
	}
}

static void print_cell(const struct cell *c)
{
	const char *const *values = c->workload->values;
	bool ratios = c->workload->evaluate == NULL;
	bench_title("%s, %u GiB, %u thread%s: %s; ns", c->name, c->gib, c->threads,
		    c->threads > 1 ? "s" : "", c->workload->title);
	printf("  %-18s", "");
	for (unsigned v = 0; v < FRAMES_VALUES && values[v]; v++) {
		printf(" %9s", values[v]);
		if (ratios) {
			printf(" %9s %9s", "/textbook", "/stack");
		}
	}
	printf("\n");
	for (unsigned i = 0; i < c->count; i++) {
		const char *subject = c->subjects[i]->name;
		printf("  %-18s", subject);
		for (unsigned v = 0; v < FRAMES_VALUES && values[v]; v++) {
			const struct figure *f =
				find(c->name, c->gib, c->threads, subject, values[v]);
			printf(" %9.1f", median_of(f));
			if (ratios) {
				print_ratio(c, f, "textbook");
				print_ratio(c, f, "stack");
			}
			write_lines(f, "ns", ratios);
		}
		print_aside(c, subject, "refused", "requests", " refused");
		print_aside(c, subject, "refused-2m", "requests", " of them 2 MiB");
		print_aside(c, subject, "at-once", "threads", " threads at once");
		printf("\n");
	}
	fflush(stdout);
}

/* A thread that waited for a host core met the others less often than it should. */
static void record_at_once(const struct cell *c, const struct frames_run *r, const char *subject)
{
	if (c->threads > 1 && r->at_once > 0) {
		record(c->name, c->gib, c->threads, subject, "at-once", r->at_once);
	}
}

static void record_round(const struct cell *c, const struct frames_run *r, const char *subject)
{
	record_at_once(c, r, subject);
	for (unsigned v = 0; v < FRAMES_VALUES && c->workload->values[v]; v++) {
		char counted[FRAMES_NAME];
		record(c->name, c->gib, c->threads, subject, c->workload->values[v], r->value[v]);
		if (FRAMES_COUNTS_ATOMICS && c->threads == 1) {
			snprintf(counted, sizeof counted, "%s-atomics", c->workload->values[v]);
			record(c->name, c->gib, c->threads, subject, counted, r->atomics[v]);
		}
	}
}

static void run_cell(struct cell *c)
{
	uint64_t frames = c->gib * scale.gib_frames;
	for (unsigned i = 0; i < c->count; i++) {
		c->runs[i] =
			frames_run_begin(c->workload, c->order, c->threads, c->subjects[i], frames,
					 scale.wanted * (c->threads > 2 ? 2 : c->threads), false);
		frames_run_round(c->runs[i]); /* warm */
	}
	for (unsigned round = 0; round < options.rounds; round++) {
		for (unsigned i = 0; i < c->count; i++) {
			frames_run_round(c->runs[i]);
			record_round(c, c->runs[i], c->subjects[i]->name);
		}
	}
	for (unsigned i = 0; i < c->count; i++) {
		const char *subject = c->subjects[i]->name;
		uint64_t refused = frames_run_refused(c->runs[i], false);
		bool mixed = hx_streq(c->name, "mixed");
		if (mixed || refused != 0) {
			record(c->name, c->gib, c->threads, subject, "refused", (double)refused);
		}
		if (mixed) {
			record(c->name, c->gib, c->threads, subject, "refused-2m",
			       (double)frames_run_refused(c->runs[i], true));
		}
		const char *wrong = frames_run_end(c->runs[i]);
		if (wrong) {
			frames_die(subject, wrong);
		}
	}
	print_cell(c);
}

/* ---- The plan: what runs when nothing else is asked for ---- */

static const unsigned planned_gib[] = {1, 8};
static const unsigned planned_threads[] = {1, 2, 4};

static bool wants_workload(const struct frames_workload *w, unsigned order)
{
	char name[FRAMES_NAME];
	frames_name(w, order, name);
	if (options.workloads) {
		return listed(options.workloads, name);
	}
	return !w->any_order || order == 0 || (order == HX_ORDER_2M && !hx_streq(w->name, "churn"));
}

/* Many threads with single frames, and where a target names them. */
static bool wants_size(const char *name, unsigned order, unsigned gib, unsigned threads)
{
	bool threads_planned = gib == 1
				       ? threads == 1 || order == 0
				       : threads == 1 || (threads == 2 && hx_streq(name, "churn0"));
	return (options.gib ? number_listed(options.gib, gib) : true) &&
	       (options.threads ? number_listed(options.threads, threads) : threads_planned);
}

static bool wants_subject(const char *name, unsigned gib, unsigned threads,
			  const struct frames_subject *s)
{
	if (options.subjects) {
		return listed(options.subjects, s->name);
	}
	/* What waits in one line takes longer with each thread, and one such row tells it. */
	bool slow = listed("first-fit,bitmap,buddy,slab-over-bitmap", s->name) &&
		    (threads > 2 || (threads == 2 && !hx_streq(name, "churn0")));
	if ((gib == 1 && !slow) || hx_streq(s->name, "textbook") || hx_streq(s->name, "stack") ||
	    hx_streq(s->name, options.judged)) {
		return true;
	}
	return hx_streq(name, "rand0") && hx_streq(s->name, "first-fit");
}

static void run_timed(const struct frames_workload *w, unsigned order, unsigned gib,
		      unsigned threads)
{
	struct cell c = {.workload = w, .order = order, .gib = gib, .threads = threads};
	const struct frames_subject *s;
	frames_name(w, order, c.name);
	if (!wants_workload(w, order) || !wants_size(c.name, order, gib, threads)) {
		return;
	}
	for (unsigned i = 0; (s = frames_subject_at(i)) != NULL && c.count < SUBJECTS_MAX; i++) {
		if (wants_subject(c.name, gib, threads, s) &&
		    frames_run_possible(w, order, threads, s)) {
			c.subjects[c.count++] = s;
		}
	}
	if (c.count > 0) {
		run_cell(&c);
	}
}

static void run_all_timed(void)
{
	for (unsigned g = 0; g < HX_ARRAY_LENGTH(planned_gib); g++) {
		for (unsigned k = 0; k < frames_workload_count; k++) {
			const struct frames_workload *w = &frames_workloads[k];
			for (unsigned order = 0; order <= (w->any_order ? HX_ORDER_2M : 0);
			     order++) {
				for (unsigned t = 0; t < HX_ARRAY_LENGTH(planned_threads); t++) {
					run_timed(w, order, planned_gib[g], planned_threads[t]);
				}
			}
		}
	}
}

/* ---- Workloads that are not timed ---- */

static bool wants_named(const char *name, unsigned gib, unsigned threads)
{
	return (options.workloads == NULL || listed(options.workloads, name)) &&
	       (options.gib == NULL || number_listed(options.gib, gib)) &&
	       (options.threads == NULL || number_listed(options.threads, threads));
}

static void report(const char *workload, unsigned gib, unsigned threads, const char *subject,
		   const char *value, double v, const char *unit)
{
	record(workload, gib, threads, subject, value, v);
	write_lines(find(workload, gib, threads, subject, value), unit, false);
	printf("  %-18s %5u GiB %-16s %12.4f %s\n", subject, gib, value, v, unit);
	fflush(stdout);
}

static void run_shape(const struct frames_shape *shape, unsigned gib)
{
	const struct frames_subject *s;
	if (!wants_named(shape->name, gib, 1)) {
		return;
	}
	bench_title("%s, %u GiB: %s", shape->name, gib, shape->title);
	for (unsigned i = 0; (s = frames_subject_at(i)) != NULL; i++) {
		struct frames_instance instance;
		if (s->deal || !wants_subject(shape->name, gib, 1, s)) {
			continue;
		}
		frames_create(&instance, s, gib * scale.gib_frames, 1);
		struct frames_shape_result r = shape->run(&instance);
		const char *wrong = frames_all_free(&instance);
		if (wrong) {
			frames_die(s->name, wrong);
		}
		frames_destroy(&instance);
		report(shape->name, gib, 1, s->name, "share", r.figure, "of-1");
		if (r.served < r.figure) {
			report(shape->name, gib, 1, s->name, "share-served", r.served, "of-1");
		}
	}
}

static void run_stress(unsigned gib, unsigned threads)
{
	const struct frames_subject *s;
	if (!wants_named("stress", gib, threads)) {
		return;
	}
	bench_title("stress, %u GiB, %u thread%s: orders 0 to 9, 90 %% held, %u operations", gib,
		    threads, threads > 1 ? "s" : "", (unsigned)scale.stress);
	for (unsigned i = 0; (s = frames_subject_at(i)) != NULL; i++) {
		struct frames_instance instance;
		if (s->deal || !wants_subject("stress", gib, 1, s)) {
			continue;
		}
		frames_create(&instance, s, gib * scale.gib_frames, threads);
		struct frames_stress r = frames_stress(&instance, threads, scale.stress);
		frames_destroy(&instance);
		report("stress", gib, threads, s->name, "refused", (double)r.refused, "requests");
		if (r.wrong != 0 || r.leaked != 0) {
			frames_die(s->name, "hands frames out twice or leaks them");
		}
	}
}

static void run_costs(void)
{
	const struct frames_subject *s;
	bool all = !options.workloads && !options.gib && !options.threads;
	bool metadata = all || listed(options.workloads, "metadata");
	bool init = all || listed(options.workloads, "init");
	if (metadata || init) {
		bench_title("what it keeps for itself; bring-up, its memory touched before");
	}
	for (unsigned i = 0; (s = frames_subject_at(i)) != NULL; i++) {
		if (options.subjects && !listed(options.subjects, s->name)) {
			continue;
		}
		for (unsigned g = 0; metadata && g < HX_ARRAY_LENGTH(planned_gib); g++) {
			unsigned gib = planned_gib[g];
			report("metadata", gib, 1, s->name, "bits-per-frame",
			       frames_metadata_bits(s, gib * scale.gib_frames), "bits");
		}
		static const unsigned sizes[] = {8, TIB_GIB};
		for (unsigned g = 0; init && g < HX_ARRAY_LENGTH(sizes); g++) {
			uint64_t frames = sizes[g] * scale.gib_frames;
			double rounds[ROUNDS];
			if (s->deal || frames_metadata_bits(s, frames) * (double)frames / 8 >
					       (double)INIT_METADATA_MAX) {
				continue;
			}
			for (unsigned r = 0; r < ROUNDS; r++) {
				rounds[r] = frames_init_ns(s, frames) / sizes[g];
			}
			report("init", sizes[g], 1, s->name, "per-GiB",
			       bench_median(rounds, ROUNDS), "ns");
		}
	}
}

/* ---- Targets ---- */

enum { ANY_SIZE = 0 };

static const struct target {
	const char *workload;
	unsigned gib; /* ANY_SIZE: each that was measured */
	unsigned threads;
	const char *value;
	const char *against; /* a baseline; NULL: the figure itself */
	bool at_least;
	double limit[2]; /* of each generation; negative: none */
} targets[] = {
	{"repeat0", ANY_SIZE, 1, "pair", "stack", false, {2.0, -1}},
	{"bulk0", ANY_SIZE, 1, "get", "stack", false, {2.0, -1}},
	{"bulk0", ANY_SIZE, 1, "put", "stack", false, {2.0, -1}},
	{"batch0", ANY_SIZE, 1, "get", "stack", false, {0.6, -1}},
	{"batch0", ANY_SIZE, 1, "put", "stack", false, {0.6, -1}},
	{"rand0", ANY_SIZE, 1, "put", "first-fit", false, {1.2, -1}},
	{"rand0", ANY_SIZE, 1, "get", "stack", false, {1.6, -1}},
	{"churn0", ANY_SIZE, 1, "pair", "textbook", false, {0.9, 1.1}},
	{"churn0", ANY_SIZE, 2, "pair", "textbook", false, {0.3, -1}},
	{"bulk9", ANY_SIZE, 1, "get", "textbook", false, {1.0, -1}},
	{"bulk9", ANY_SIZE, 1, "put", "textbook", false, {1.0, -1}},
	{"rand9", ANY_SIZE, 1, "put", "textbook", false, {1.0, -1}},
	{"rand9", ANY_SIZE, 1, "get", "textbook", false, {1.0, -1}},
	{"repeat9", ANY_SIZE, 1, "pair", "textbook", false, {1.0, -1}},
	{"mixed", ANY_SIZE, 1, "call", "textbook", false, {1.5, 2.0}},
	{"mixed", ANY_SIZE, 1, "refused-2m", NULL, false, {0, 0}},
	{"metadata", ANY_SIZE, 1, "bits-per-frame", NULL, false, {1.05, 1.05}},
	{"fragA", ANY_SIZE, 1, "share", NULL, true, {0.97, 0.97}},
	{"fragB", ANY_SIZE, 1, "share", NULL, true, {1.0, 1.0}},
	{"fragC", ANY_SIZE, 1, "share", NULL, true, {1.0, 1.0}},
	{"init", TIB_GIB, 1, "per-GiB", NULL, false, {1e6 / TIB_GIB, -1}}, /* 1 ms a TiB */
};

struct verdict {
	unsigned due, judged, met;
};

static void judge(const struct target *t, unsigned gib, struct verdict *verdict)
{
	const struct figure *f = find(t->workload, gib, t->threads, options.judged, t->value), *b;
	double limit = t->limit[generation], v;
	if (limit < 0) {
		return;
	}
	verdict->due++;
	if (f == NULL) {
		return;
	}
	if (t->against) {
		b = find(t->workload, gib, t->threads, t->against, t->value);
		if (b == NULL) {
			return;
		}
		v = ratio_of(f, b);
	} else {
		v = median_of(f);
	}
	bool met = t->at_least ? v >= limit : v <= limit;
	verdict->judged++;
	verdict->met += met;
	char workload[64], metric[64];
	snprintf(workload, sizeof workload, "%s-%ug-%ut", t->workload, gib, t->threads);
	snprintf(metric, sizeof metric, "%s%s%s", t->value, t->against ? "-ratio-to-" : "",
		 t->against ? t->against : "");
	printf("  %-18s %-28s %10.4f  %s %8.4f  %s", workload, metric, v,
	       t->at_least ? ">=" : "<=", limit, met ? "met" : "missed");
	const struct figure *at_once =
		find(t->workload, gib, t->threads, options.judged, "at-once");
	if (at_once && median_of(at_once) < t->threads * 0.75) {
		printf(", but only %.1f threads ran at once", median_of(at_once));
	}
	printf("\n");
	snprintf(metric, sizeof metric, "target-met:%s", t->value);
	bench_line(SUITE, workload, options.judged, metric, met, "of-1");
}

static struct verdict judge_all(void)
{
	struct verdict verdict = {0, 0, 0};
	bench_title("targets of %s, built for " GENERATION, options.judged);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(targets); i++) {
		const struct target *t = &targets[i];
		if (t->gib != ANY_SIZE) {
			judge(t, t->gib, &verdict);
			continue;
		}
		for (unsigned g = 0; g < HX_ARRAY_LENGTH(planned_gib); g++) {
			judge(t, planned_gib[g], &verdict);
		}
	}
	/* In a build that counts: the same in every generation. */
	for (const struct frames_atomics *m = frames_atomics; FRAMES_COUNTS_ATOMICS && m->workload;
	     m++) {
		char value[FRAMES_NAME];
		snprintf(value, sizeof value, "%s-atomics", m->value);
		struct target t = {.workload = m->workload,
				   .threads = 1,
				   .value = value,
				   .limit = {m->most, m->most}};
		for (unsigned g = 0; g < HX_ARRAY_LENGTH(planned_gib); g++) {
			judge(&t, planned_gib[g], &verdict);
		}
	}
	printf("  %u targets: %u met, %u missed, %u not measured\n", verdict.due, verdict.met,
	       verdict.judged - verdict.met, verdict.due - verdict.judged);
	return verdict;
}

/* ---- Arguments ---- */

static _Noreturn void usage(int status)
{
	const struct frames_subject *s;
	FILE *to = status == 0 ? stdout : stderr;
	fprintf(to,
		"usage: bench-frames [--workload LIST] [--subject LIST] [--gib LIST]\n"
		"                    [--threads LIST] [--rounds N] [--judge SUBJECT]\n"
		"       bench-frames --check [--threads N]    test the workloads\n"
		"       bench-frames --small [...]    the same with 16 MiB for each GiB: a test\n"
		"LIST: names or numbers with commas between them. Workloads:");
	for (unsigned i = 0; i < frames_workload_count; i++) {
		fprintf(to, " %s%s", frames_workloads[i].name,
			frames_workloads[i].any_order ? "<order>" : "");
	}
	for (unsigned i = 0; i < FRAMES_SHAPES; i++) {
		fprintf(to, " %s", frames_shapes[i].name);
	}
	fprintf(to, " stress metadata init\nSubjects:");
	for (unsigned i = 0; (s = frames_subject_at(i)) != NULL; i++) {
		fprintf(to, " %s", s->name);
	}
	fprintf(to,
		"\nGiB: 1, 8. Threads: 1, 2, 4. Targets are those of the judged subject (tree).\n");
	exit(status);
}

static unsigned number(const char *text, unsigned most)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	if (*text == 0 || *end != 0 || n == 0 || n > most) {
		usage(2);
	}
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	bool check = false, small = false;
	for (int i = 1; i < argc; i++) {
		const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
		if (hx_streq(word, "--help")) {
			usage(0);
		}
		if (hx_streq(word, "--check")) {
			check = true;
			continue;
		}
		if (hx_streq(word, "--small")) {
			small = true;
			continue;
		}
		if (hx_streq(word, "--workload")) {
			options.workloads = value;
		} else if (hx_streq(word, "--subject")) {
			options.subjects = value;
		} else if (hx_streq(word, "--gib")) {
			options.gib = value;
		} else if (hx_streq(word, "--threads")) {
			options.threads = value;
		} else if (hx_streq(word, "--judge")) {
			options.judged = value;
		} else if (hx_streq(word, "--rounds")) {
			options.rounds = number(value, BENCH_ROUNDS_MAX);
		} else {
			usage(2);
		}
		i++;
	}
	if (check) {
		return frames_check(options.threads ? number(options.threads, FRAMES_THREADS_MAX)
						    : 1);
	}
	if (small) {
		scale.wanted = 2000;
		scale.stress = 4000;
		scale.gib_frames = HX_MIB(16) / HX_FRAME_BYTES;
		generation = 0; /* all targets */
	}
	run_all_timed();
	for (unsigned g = 0; g < HX_ARRAY_LENGTH(planned_gib); g++) {
		for (unsigned k = 0; k < FRAMES_SHAPES; k++) {
			run_shape(&frames_shapes[k], planned_gib[g]);
		}
	}
	for (unsigned g = 0; g < (options.gib ? HX_ARRAY_LENGTH(planned_gib) : 1); g++) {
		for (unsigned t = 0; t < HX_ARRAY_LENGTH(planned_threads); t++) {
			run_stress(planned_gib[g], planned_threads[t]);
		}
	}
	run_costs();
	if (figure_count == 0) {
		usage(2); /* words that name nothing */
	}
	struct verdict verdict = judge_all();
	free(figures);
	if (small) {
		bool all = verdict.judged == verdict.due;
		printf("%sok 1 - every-target-is-judged\n1..1\n", all ? "" : "not ");
		return all ? EXIT_SUCCESS : EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
