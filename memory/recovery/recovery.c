/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * From a status to the handler that is registered for its strategy.
 *
 * The lock guards only the pair (function, context): it is copied out, the lock
 * dropped, and the handler runs on the copy. So a handler may do anything that
 * its caller may, also register another handler or meet an incident of its own.
 */
#include <hx/recovery.h>

void hx_recovery_init(struct hx_recovery *r)
{
	*r = (struct hx_recovery){.lock = HX_LOCK_INIT};
}

hx_status hx_recovery_register(struct hx_recovery *r, enum hx_strategy strategy,
			       hx_recovery_fn handle, void *context)
{
	if (!r || (unsigned)strategy >= HX_STRATEGIES || strategy == HX_STRATEGY_NONE) {
		return HX_INVALID_ARGUMENT;
	}
	hx_status status = HX_OK;
	unsigned long irq = hx_lock_acquire(&r->lock);
	if (handle && r->strategies[strategy].handle) {
		status = HX_ALREADY_MAPPED;
	} else {
		r->strategies[strategy].handle = handle;
		r->strategies[strategy].context = context;
	}
	hx_lock_release(&r->lock, irq);
	return status;
}

struct hx_recovered hx_recover(struct hx_recovery *r, const struct hx_incident *incident)
{
	struct hx_recovered done = {hx_status_strategy(incident->status), HX_OUTCOME_NONE};
	if (done.strategy == HX_STRATEGY_NONE) {
		return done;
	}
	unsigned long irq = hx_lock_acquire(&r->lock);
	hx_recovery_fn handle = r->strategies[done.strategy].handle;
	void *context = r->strategies[done.strategy].context;
	if (handle) {
		r->strategies[done.strategy].handled++;
	}
	hx_lock_release(&r->lock, irq);

	if (!handle) {
		done.outcome = HX_OUTCOME_NO_HANDLER;
		return done;
	}
	done.outcome = HX_OUTCOME_RETURN;
	if (handle(context, incident) == HX_OUTCOME_RETRY) {
		done.outcome = HX_OUTCOME_RETRY;
		irq = hx_lock_acquire(&r->lock);
		r->strategies[done.strategy].mended++;
		hx_lock_release(&r->lock, irq);
	}
	return done;
}

const char *hx_outcome_name(enum hx_outcome o)
{
	switch (o) {
	case HX_OUTCOME_NONE:
		return "nothing to do";
	case HX_OUTCOME_RETRY:
		return "handled, retry";
	case HX_OUTCOME_RETURN:
		return "returned to the caller";
	case HX_OUTCOME_NO_HANDLER:
		return "no handler, returned to the caller";
	}
	return "?";
}
