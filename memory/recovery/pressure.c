/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Memory pressure: registered reclaimers, one event at a time.
 *
 *      runner == 0 ---- raise on CPU n ----> runner == n + 1 ---- done ----> 0
 *                                            |  reclaimers run, no lock held
 *            raise on the same CPU: refused -+- raise on another: waits
 *
 * Invariants: the table of reclaimers changes only under the lock and only while
 * runner is 0, so the runner reads it without the lock; events, retries and the
 * reclaimers' counters are written by the runner alone.
 *
 * Why a second CPU waits: the frames that it lacks are just being freed; failing
 * its request would be an out-of-memory that is none. Why that cannot deadlock:
 * a reclaimer that needed something which the waiting CPU holds would need the
 * same from the running one, had that raised the event; hence the rules in
 * hx/recovery.h. The one thing that a reclaimer may wait for, a TLB shootdown,
 * the waiting CPU serves itself, for its interrupts may be off.
 *
 * Success is judged by the frames that are free, not by what a reclaimer claims.
 */
#include <hx/recovery.h>

static uint64_t at_least(uint64_t v, uint64_t least)
{
	return v < least ? least : v;
}

void hx_pressure_init(struct hx_pressure *p, struct hx_frames *frames)
{
	uint64_t total = hx_frames_total_frames(frames);
	*p = (struct hx_pressure){
		.frames = frames,
		.min = at_least(total / 64, 8),
		.low = at_least(total / 32, 16),
		.high = at_least(total / 16, 32),
		.lock = HX_LOCK_INIT,
	};
}

hx_status hx_pressure_watermarks(struct hx_pressure *p, uint64_t min, uint64_t low, uint64_t high)
{
	if (!p || min > low || low > high) {
		return HX_INVALID_ARGUMENT;
	}
	unsigned long irq = hx_lock_acquire(&p->lock);
	p->min = min;
	p->low = low;
	p->high = high;
	hx_lock_release(&p->lock, irq);
	return HX_OK;
}

enum hx_pressure_level hx_pressure_level(const struct hx_pressure *p)
{
	uint64_t free = hx_frames_free_frames(p->frames);
	return free >= p->high  ? HX_PRESSURE_NONE
	       : free >= p->low ? HX_PRESSURE_LOW
	       : free >= p->min ? HX_PRESSURE_MEDIUM
				: HX_PRESSURE_CRITICAL;
}

/* ---- The table ---- */

static uint32_t runner_of(const struct hx_pressure *p)
{
	return __atomic_load_n(&p->runner, __ATOMIC_ACQUIRE);
}

/* Index of the reclaimer called @name, p->count when there is none. */
static unsigned find(const struct hx_pressure *p, const char *name)
{
	unsigned i = 0;
	while (i < p->count && !hx_streq(p->reclaimers[i].name, name)) {
		i++;
	}
	return i;
}

static hx_status add_reclaimer(struct hx_pressure *p, const struct hx_reclaimer *r)
{
	if (runner_of(p) != 0) {
		return HX_BUSY;
	}
	if (find(p, r->name) < p->count) {
		return HX_ALREADY_MAPPED;
	}
	if (p->count == HX_RECLAIMERS_MAX) {
		return HX_OUT_OF_MEMORY;
	}
	unsigned i = p->count++;
	for (; i > 0 && p->reclaimers[i - 1].priority > r->priority; i--) {
		p->reclaimers[i] = p->reclaimers[i - 1];
	}
	p->reclaimers[i] = *r;
	return HX_OK;
}

static hx_status drop_reclaimer(struct hx_pressure *p, const char *name)
{
	if (runner_of(p) != 0) {
		return HX_BUSY;
	}
	unsigned i = find(p, name);
	if (i == p->count) {
		return HX_NOT_MAPPED;
	}
	p->count--;
	for (; i < p->count; i++) {
		p->reclaimers[i] = p->reclaimers[i + 1];
	}
	return HX_OK;
}

hx_status hx_pressure_register(struct hx_pressure *p, const char *name, int priority,
			       hx_reclaim_fn reclaim, void *context)
{
	if (!p || !name || !reclaim) {
		return HX_INVALID_ARGUMENT;
	}
	struct hx_reclaimer r = {
		.name = name, .priority = priority, .reclaim = reclaim, .context = context};
	unsigned long irq = hx_lock_acquire(&p->lock);
	hx_status status = add_reclaimer(p, &r);
	hx_lock_release(&p->lock, irq);
	return status;
}

hx_status hx_pressure_unregister(struct hx_pressure *p, const char *name)
{
	if (!p || !name) {
		return HX_INVALID_ARGUMENT;
	}
	unsigned long irq = hx_lock_acquire(&p->lock);
	hx_status status = drop_reclaimer(p, name);
	hx_lock_release(&p->lock, irq);
	return status;
}

/* ---- Events ---- */

/* Become the runner. @return 0, or who runs already, plus 1 */
static uint32_t enter(struct hx_pressure *p, uint32_t self)
{
	unsigned long irq = hx_lock_acquire(&p->lock);
	uint32_t runner = runner_of(p);
	if (runner == 0) {
		__atomic_store_n(&p->runner, self, __ATOMIC_RELAXED);
	}
	hx_lock_release(&p->lock, irq);
	return runner;
}

/* Another CPU runs an event: wait until it is over. @return did it free anything? */
static bool wait_for_other(struct hx_pressure *p, uint32_t runner, uint64_t retries)
{
	while (runner_of(p) == runner) {
		unsigned long irq = hx_hal_irq_save();
		hx_upcall_tlb_ipi();
		hx_hal_irq_restore(irq);
		hx_hal_relax();
	}
	return __atomic_load_n(&p->retries, __ATOMIC_RELAXED) != retries;
}

static bool run_reclaimers(struct hx_pressure *p, enum hx_pressure_level level, uint64_t wanted)
{
	bool freed = false;
	for (unsigned i = 0; i < p->count && wanted > 0; i++) {
		struct hx_reclaimer *r = &p->reclaimers[i];
		struct hx_pressure_event event = {level, wanted};
		uint64_t before = hx_frames_free_frames(p->frames);
		(void)r->reclaim(r->context, &event);
		uint64_t after = hx_frames_free_frames(p->frames);
		uint64_t gained = after > before ? after - before : 0;
		r->calls++;
		r->frames += gained;
		freed |= gained > 0;
		wanted -= gained < wanted ? gained : wanted;
	}
	return freed;
}

static bool raise_event(struct hx_pressure *p, enum hx_pressure_level level, uint64_t wanted)
{
	if (wanted == 0) {
		return false;
	}
	uint32_t self = hx_hal_cpu_id() + 1;
	uint64_t retries = __atomic_load_n(&p->retries, __ATOMIC_RELAXED);
	uint32_t runner = enter(p, self);
	if (runner != 0) {
		return runner != self && wait_for_other(p, runner, retries);
	}
	bool freed = run_reclaimers(p, level, wanted);
	p->events++;
	__atomic_store_n(&p->retries, p->retries + freed, __ATOMIC_RELAXED);
	__atomic_store_n(&p->runner, 0, __ATOMIC_RELEASE);
	return freed;
}

bool hx_pressure_raise(struct hx_pressure *p, uint64_t frames_wanted)
{
	enum hx_pressure_level level = hx_pressure_level(p);
	return raise_event(p, level == HX_PRESSURE_NONE ? HX_PRESSURE_LOW : level, frames_wanted);
}

/* What hx_frames calls when a request found nothing. */
static bool request_failed(void *context, uint64_t frames_wanted)
{
	return raise_event(context, HX_PRESSURE_CRITICAL, frames_wanted);
}

/* And when one left a zone with little. */
static void zone_low(void *context, uint64_t frames_missing)
{
	enum hx_pressure_level level = hx_pressure_level(context);
	level = level < HX_PRESSURE_MEDIUM ? HX_PRESSURE_MEDIUM : level;
	(void)raise_event(context, level, frames_missing);
}

void hx_pressure_attach(struct hx_pressure *p)
{
	p->frames->pressure_context = p;
	p->frames->pressure = request_failed;
	p->frames->low = zone_low;
}
