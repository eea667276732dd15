/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/recovery.h - from a status to what is done about it, and memory pressure.
 *
 * Pressure: reclaimers are registered with a priority; under pressure they run
 * in that order, without any lock of this library held, until enough frames are
 * free; the allocation that found nothing is then retried once. A reclaimer may
 * allocate and free; pressure inside pressure is refused, not nested.
 *
 * One event runs at a time. A CPU that raises another meanwhile waits for it and
 * shares what came of it; it answers TLB shootdowns while it waits, so a
 * reclaimer may unmap. The rules that keep this free of deadlock:
 *   - who allocates with pressure holds no lock that a reclaimer takes;
 *   - a reclaimer waits for no other CPU, except through a TLB shootdown;
 *   - who raises stays on its CPU until the event is over (no migration).
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

/**
 * @return HX_OUTCOME_RETRY or HX_OUTCOME_RETURN (anything else counts as RETURN).
 * Called without locks; it may register and unregister, and call hx_recover().
 */
typedef enum hx_outcome (*hx_recovery_fn)(void *context, const struct hx_incident *incident);

struct hx_recovery {
	struct {
		hx_recovery_fn handle;
		void *context;
		uint64_t handled; /* calls */
		uint64_t mended;  /* that ended in RETRY */
	} strategies[HX_STRATEGIES];
	struct hx_lock lock;
};

void hx_recovery_init(struct hx_recovery *r);

/**
 * Let @p handle carry out @p strategy; NULL unregisters (the handler may still
 * be running on another CPU when that returns).
 * @return INVALID_ARGUMENT (no strategy, or NONE, which needs nothing);
 *         ALREADY_MAPPED when another handler is there
 */
HX_NODISCARD hx_status hx_recovery_register(struct hx_recovery *r, enum hx_strategy strategy,
					    hx_recovery_fn handle, void *context);

struct hx_recovered {
	enum hx_strategy strategy; /* which strategy the status asks for */
	enum hx_outcome outcome;   /* what came of it */
};

/**
 * Carry out the strategy of @p incident's status and say what was done.
 * Context: no lock may be held that the handler takes; its own is not held then
 */
struct hx_recovered hx_recover(struct hx_recovery *r, const struct hx_incident *incident);
/** "handled, retry", ...; "?" for no outcome. */
const char *hx_outcome_name(enum hx_outcome o);

/* ---- Pressure ---- */

enum hx_pressure_level {
	HX_PRESSURE_NONE,     /* free >= high watermark */
	HX_PRESSURE_LOW,      /* below high; also: raised while enough was free */
	HX_PRESSURE_MEDIUM,   /* below low */
	HX_PRESSURE_CRITICAL, /* below min, or a request failed */
	HX_PRESSURE_LEVELS,
};

struct hx_pressure_event {
	enum hx_pressure_level level; /* never NONE */
	uint64_t frames_wanted;       /* still: what earlier reclaimers freed is taken off */
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
	struct hx_reclaimer reclaimers[HX_RECLAIMERS_MAX]; /* by priority, then age */
	uint64_t events;   /* in which reclaimers ran */
	uint64_t retries;  /* of those, the ones that freed something */
	uint32_t runner;   /* CPU that runs the reclaimers now, plus 1; 0: none; atomic */
	struct hx_lock lock;
};

/** Watermarks default to 1/64, 1/32 and 1/16 of all frames, at least 8, 16, 32. */
void hx_pressure_init(struct hx_pressure *p, struct hx_frames *frames);
/**
 * Make allocations of @p p->frames raise events here: a request that found
 * nothing is a CRITICAL event, whatever is free (the zone or the run was short); one
 * that left a zone below its low watermark is a MEDIUM event, or what the level is.
 */
void hx_pressure_attach(struct hx_pressure *p);
/** INVALID_ARGUMENT unless min <= low <= high. */
HX_NODISCARD hx_status hx_pressure_watermarks(struct hx_pressure *p, uint64_t min, uint64_t low,
					      uint64_t high);
/**
 * Add a reclaimer; among equal priorities the older one runs first.
 * @param name  must stay valid until it is unregistered
 * @return OUT_OF_MEMORY when HX_RECLAIMERS_MAX are there; ALREADY_MAPPED for a
 *         name twice; INVALID_ARGUMENT (NULL); BUSY while an event runs
 */
HX_NODISCARD hx_status hx_pressure_register(struct hx_pressure *p, const char *name, int priority,
					    hx_reclaim_fn reclaim, void *context);
/** NOT_MAPPED for an unknown name; BUSY while an event runs, so on HX_OK it does not run. */
HX_NODISCARD hx_status hx_pressure_unregister(struct hx_pressure *p, const char *name);
/** Where the free frames stand against the watermarks. */
enum hx_pressure_level hx_pressure_level(const struct hx_pressure *p);
/**
 * Run reclaimers until @p frames_wanted frames more are free, or all have run.
 * While another CPU does so, wait for it instead (see the head of this file).
 * @return true when frames were freed; false when none, when @p frames_wanted
 *         is 0, or when called from inside a reclaimer
 * Context: interrupts on or off; takes no lock while a reclaimer runs
 */
bool hx_pressure_raise(struct hx_pressure *p, uint64_t frames_wanted);

#endif
