/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/recovery.h - from a status to what is done about it, and memory pressure.
 *
 * Pressure: reclaimers are registered with a priority; under pressure they run
 * in that order, without any lock of this library held, until enough frames are
 * free; the allocation that found nothing is then retried once. A reclaimer may
 * allocate and free; pressure inside pressure is refused, not nested.
 */
#ifndef HX_RECOVERY_H
#define HX_RECOVERY_H

#include <hx/frames.h>

/* ---- Recovery ---- */

/** What happened, for the handler. Fields that do not apply are 0. */
struct hx_incident {
	hx_status status;
	struct hx_va va;
	uint64_t bytes;        /* or frames x HX_FRAME_BYTES */
	const void *object;    /* space, table, heap: whose operation it was */
	const char *operation; /* "mmap", "frames.allocate", ... */
};

enum hx_outcome {
	HX_OUTCOME_NONE,     /* HX_OK needs nothing */
	HX_OUTCOME_RETRY,    /* the handler mended it: try again, once */
	HX_OUTCOME_RETURN,   /* return the status to the caller */
	HX_OUTCOME_NO_HANDLER, /* nobody is registered for the strategy: return it */
};

/** @return HX_OUTCOME_RETRY or HX_OUTCOME_RETURN. Called without locks. */
typedef enum hx_outcome (*hx_recovery_fn)(void *context, const struct hx_incident *incident);

struct hx_recovery {
	struct {
		hx_recovery_fn handle;
		void *context;
		uint64_t handled; /* calls */
		uint64_t mended;  /* that ended in RETRY */
	} strategies[HX_STRATEGIES];
};

void hx_recovery_init(struct hx_recovery *r);

/** NULL unregisters. INVALID_ARGUMENT for no strategy; ALREADY_MAPPED when taken. */
HX_NODISCARD hx_status hx_recovery_register(struct hx_recovery *r, enum hx_strategy strategy,
					    hx_recovery_fn handle, void *context);

struct hx_recovered {
	enum hx_strategy strategy; /* which strategy the status asks for */
	enum hx_outcome outcome;   /* what came of it */
};

/** Carry out the strategy of @p incident's status and say what was done. */
struct hx_recovered hx_recover(struct hx_recovery *r, const struct hx_incident *incident);
const char *hx_outcome_name(enum hx_outcome o);

/* ---- Pressure ---- */

enum hx_pressure_level {
	HX_PRESSURE_NONE,     /* free >= high watermark */
	HX_PRESSURE_LOW,      /* below high */
	HX_PRESSURE_MEDIUM,   /* below low */
	HX_PRESSURE_CRITICAL, /* below min, or a request failed */
	HX_PRESSURE_LEVELS,
};

struct hx_pressure_event {
	enum hx_pressure_level level;
	uint64_t frames_wanted;
};

/** Free what you can. @return frames freed (a hint: free_frames decides) */
typedef uint64_t (*hx_reclaim_fn)(void *context, const struct hx_pressure_event *event);

enum { HX_RECLAIMERS_MAX = 16 };

struct hx_reclaimer {
	const char *name;
	int priority; /* lowest first */
	hx_reclaim_fn reclaim;
	void *context;
	uint64_t calls;
	uint64_t frames;
};

struct hx_pressure {
	struct hx_frames *frames;
	uint64_t min, low, high; /* watermarks in free frames, min <= low <= high */
	unsigned count;
	struct hx_reclaimer reclaimers[HX_RECLAIMERS_MAX]; /* by priority */
	uint64_t events;   /* raised */
	uint64_t retries;  /* that freed something */
	uint32_t busy;     /* CPUs inside a reclaimer: bit per CPU, low half; atomic */
	uint32_t running;  /* 1 while reclaimers run; atomic */
	struct hx_lock lock;
};

/** Watermarks default to 1/64, 1/32 and 1/16 of all frames, at least 8, 16, 32. */
void hx_pressure_init(struct hx_pressure *p, struct hx_frames *frames);
/** Make allocations of @p p->frames raise events here. */
void hx_pressure_attach(struct hx_pressure *p);
HX_NODISCARD hx_status hx_pressure_watermarks(struct hx_pressure *p, uint64_t min, uint64_t low,
					      uint64_t high);
/** OUT_OF_MEMORY when HX_RECLAIMERS_MAX are there; ALREADY_MAPPED for a name twice. */
HX_NODISCARD hx_status hx_pressure_register(struct hx_pressure *p, const char *name, int priority,
					    hx_reclaim_fn reclaim, void *context);
HX_NODISCARD hx_status hx_pressure_unregister(struct hx_pressure *p, const char *name);
enum hx_pressure_level hx_pressure_level(const struct hx_pressure *p);
/**
 * Run reclaimers until @p frames_wanted frames more are free, or all have run.
 * @return true when frames were freed; false when none, or when called from
 *         inside a reclaimer
 */
bool hx_pressure_raise(struct hx_pressure *p, uint64_t frames_wanted);

#endif
