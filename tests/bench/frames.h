/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * frames.h - what the parts of the frames suite share.
 *
 *   frames_baselines.c  allocators to compare with, written here
 *   frames_subjects.c   all subjects, and the machine: CPUs (threads), memory
 *   frames_workloads.c  workloads that are timed, round by round
 *   frames_shape.c      fragmentation, stress: what is left of memory, not how fast
 *   frames_check.c      the suite tests itself
 *   bench_frames.c      which subject runs what; tables, figures, targets
 *
 * A subject is a trait of hx/frames.h, and so is each baseline: all are called in the
 * very same way, through the trait's table, and none is nearer to the workload than
 * another. The baselines lack what no workload asks for.
 *
 *      workload -> a->trait->allocate(a, order, 0, NULL)      tree, buddy, ..., textbook, stack
 */
#ifndef HX_BENCH_FRAMES_H
#define HX_BENCH_FRAMES_H

#include <hx/frames.h>

#include "bench.h"
#include "hx_test.h"

#define FRAMES_BASE (UINT64_C(4) << 18) /* the span begins at physical 4 GiB */

enum {
	FRAMES_THREADS_MAX = 8,
	FRAMES_BLOCK = 1 << HX_ORDER_2M,
	FRAMES_MIXED_ORDERS = 10, /* mixed and stress: 0 to 9 */
	FRAMES_VALUES = 6,        /* that one workload reports */
};

/* ---- Subjects ---- */

struct frames_subject {
	const char *name;
	const struct hx_frame_trait *trait, *backing; /* backing: under slab */
	/* Each CPU has single frames of its own that no other may put: bound, not allocator. */
	void (*deal)(struct hx_frame_allocator *a, unsigned cpus);
};

enum { FRAMES_BASELINES = 4 };
extern const struct frames_subject frames_baselines[FRAMES_BASELINES];

/** The @p i-th subject that is built in, baselines first; NULL past the end. */
const struct frames_subject *frames_subject_at(unsigned i);

struct frames_instance {
	const struct frames_subject *subject;
	struct hx_frame_allocator *a; /* the one to call */
	struct hx_frame_allocator front, under, checker;
	uint64_t frames;
};

/** All of the span free, for CPUs 0 to @p cpus - 1. */
void frames_create(struct frames_instance *i, const struct frames_subject *s, uint64_t frames,
		   unsigned cpus);
void frames_destroy(struct frames_instance *i);
/** Blocks that can be had, while nothing is held. */
uint64_t frames_obtainable(struct frames_instance *i, unsigned order);
/** NULL: nothing is held, all of the span can be had again, also in blocks of 2 MiB. Else
 *  what is wrong. */
const char *frames_all_free(struct frames_instance *i);
/** What it keeps for itself, per frame, everything included. */
double frames_metadata_bits(const struct frames_subject *s, uint64_t frames);
/** Time of init and add of a span, in nanoseconds; its memory was touched before. */
double frames_init_ns(const struct frames_subject *s, uint64_t frames);

static inline struct hx_pfn_result frames_get(struct hx_frame_allocator *a, unsigned order)
{
	return a->trait->allocate(a, order, 0, NULL);
}

_Noreturn void frames_die(const char *subject, const char *what);

static inline void frames_put(struct hx_frame_allocator *a, struct hx_pfn frame, unsigned order)
{
	if (a->trait->free(a, frame, order) != HX_OK) {
		frames_die(a->trait->name, "refused a free");
	}
}

/** 0 to 9, order o with probability 2^-(o+1). */
static inline unsigned frames_draw_order(struct hx_random *random)
{
	uint64_t bits;
	do {
		bits = hx_random(random) >> 20 & ((1 << FRAMES_MIXED_ORDERS) - 1);
	} while (bits == 0);
	return (unsigned)__builtin_ctzll(bits);
}

/* ---- The machine ---- */

/** Zeroed, touched, in huge pages where the host has them, as a kernel's memory is. */
void *frames_memory(uint64_t bytes);

/** Run @p body on CPUs 0 (the caller) to @p cpus - 1 at once; returns when all have. */
void frames_on_cpus(unsigned cpus, void (*body)(void *context, unsigned cpu), void *context);

/* All of a number of CPUs meet here before any goes on. */
struct frames_gate {
	uint32_t arrived, generation;
	uint64_t opened; /* when the last of them came; monotonic, in nanoseconds */
};
void frames_meet(struct frames_gate *g, unsigned cpus);

/** Time that passes, in nanoseconds. */
uint64_t frames_monotonic_ns(void);

/** Let another thread run, or just wait a moment. @p tries so far */
void frames_pause(unsigned tries);

/* Atomic read-modify-writes that memory/frames made, in a build that counts them. */
#ifdef HX_COUNT_ATOMICS
extern uint64_t hx_frames_atomics;
#define FRAMES_ATOMICS (__atomic_load_n(&hx_frames_atomics, __ATOMIC_RELAXED))
enum { FRAMES_COUNTS_ATOMICS = 1 };
#else
#define FRAMES_ATOMICS UINT64_C(0)
enum { FRAMES_COUNTS_ATOMICS = 0 };
#endif

/* What the tree may do for one frame or block of a workload, on one CPU, on average. */
struct frames_atomics {
	const char *workload, *value; /* NULL behind the last */
	double most;
};
extern const struct frames_atomics frames_atomics[];

/* ---- Workloads ---- */

struct frames_run;

/* One CPU's part of a run. */
struct frames_worker {
	struct frames_run *run;
	unsigned cpu;
	struct hx_random random;
	/* Its share of the span, in blocks of the order, and what it holds of it. */
	uint64_t quota, count;
	struct hx_pfn *held;
	/* Made before the clock starts: which slot next, mixed: and of what order. */
	uint32_t *sequence;
	uint8_t *orders;
	uint32_t *spare; /* mixed: slots, those in use first */
	uint64_t held_frames;
	uint32_t *samples[2]; /* latency, in ticks */
	/* What the last round did; by value (see struct frames_workload). */
	uint64_t start, start_atomics, opened;
	double ns[FRAMES_VALUES]; /* of CPU time */
	double elapsed_ns;        /* all phases from gate to gate; 0: has none */
	uint64_t operations[FRAMES_VALUES], atomics[FRAMES_VALUES];
	uint64_t gets, puts;
	uint64_t refused, refused_2m;
	/* Remote: batches handed over, batches done with. */
	uint64_t handed __attribute__((aligned(64)));
	uint64_t done __attribute__((aligned(64)));
};

struct frames_workload {
	const char *name;
	const char *title;                        /* what it does, for people */
	const char *values[FRAMES_VALUES];        /* what a round measures, NULL behind the last */
	bool any_order;                           /* the name goes on with the order, as in bulk9 */
	bool singles;                             /* order 0 only: the private stacks can do it */
	uint8_t threads_min, threads_step;        /* 1, 1 unless roles differ */
	void (*prepare)(struct frames_worker *w); /* on each CPU, once */
	void (*round)(struct frames_worker *w);   /* on each CPU; only its phases are timed */
	/* Fill in value[] of the round; NULL: nanoseconds of CPU time per operation. */
	void (*evaluate)(struct frames_run *run);
};

extern const struct frames_workload frames_workloads[];
extern const unsigned frames_workload_count;

/* One subject under one workload, alive for all rounds. */
struct frames_run {
	const struct frames_workload *workload;
	struct frames_instance instance;
	unsigned order, threads;
	uint64_t wanted; /* operations of one round, all CPUs together, about */
	struct frames_gate gate;
	struct frames_worker workers[FRAMES_THREADS_MAX];
	double value[FRAMES_VALUES], atomics[FRAMES_VALUES];
	double at_once; /* CPUs that host cores really ran, on average; 0: not known */
};

enum { FRAMES_NAME = 24 };
/** Its name with the order, as in bulk9. */
void frames_name(const struct frames_workload *w, unsigned order, char out[FRAMES_NAME]);

/** May the subject take part? */
bool frames_run_possible(const struct frames_workload *w, unsigned order, unsigned threads,
			 const struct frames_subject *s);
/** @p checked: through the checker of frames_check.c */
struct frames_run *frames_run_begin(const struct frames_workload *w, unsigned order,
				    unsigned threads, const struct frames_subject *s,
				    uint64_t frames, uint64_t wanted, bool checked);
void frames_run_round(struct frames_run *r);
/** Puts everything back. @return what is wrong: something leaked; NULL: nothing is */
const char *frames_run_end(struct frames_run *r);
uint64_t frames_run_refused(const struct frames_run *r, bool only_2m);

/* ---- Shape ---- */

struct frames_shape_result {
	double figure; /* 0..1 */
	double served; /* the part of it that requests then got */
};

struct frames_shape {
	const char *name;
	const char *title;
	struct frames_shape_result (*run)(struct frames_instance *i); /* puts everything back */
};

enum { FRAMES_SHAPES = 3 };
extern const struct frames_shape frames_shapes[FRAMES_SHAPES];

/**
 * A shadow is a bit for each frame of a span: set while somebody holds it. Turn those of a
 * block over, atomically; false unless all were as they should be, and the block lies in the
 * span, aligned to its size.
 */
bool frames_shadow_turn(uint64_t *shadow, uint64_t frames, struct hx_pfn first, unsigned order,
			bool held);

struct frames_stress {
	uint64_t operations, refused;
	uint64_t wrong;  /* blocks handed out twice, outside of the span or out of line */
	uint64_t leaked; /* frames that could not be had again at the end */
};
struct frames_stress frames_stress(struct frames_instance *i, unsigned threads,
				   uint64_t operations);

/* ---- The checker ---- */

/** Calls of @p i, which has the checker's span, go through its shadow from now on. */
void frames_check_begin(struct frames_instance *i, unsigned cpus);

/** The suite's own test on @p threads CPUs, in TAP; the exit status. */
int frames_check(unsigned threads);

#endif
