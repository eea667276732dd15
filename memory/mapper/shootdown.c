/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * TLB shootdown: make every CPU that may have cached a translation forget it.
 *
 * Each CPU has a mailbox. An initiator writes its request into its own mailbox,
 * sets its bit in the inbox of each target, interrupts them, invalidates its own
 * TLB meanwhile, and waits until no target is left in its `waiting`:
 *
 *      mailbox of initiator 2           mailbox of target 5
 *      ranges, n  <-------------------  inbox: bit 2
 *      waiting: bit 5  <-- cleared when 5 has invalidated
 *
 * There is no lock, so any number of initiators run at once. One that waits does
 * so with interrupts off and serves its own inbox; so does a CPU that waits for
 * a lock (hx/lock.h). Serving takes no lock and waits for nobody, hence nobody
 * waits in a circle: a target answers from its interrupt, from one of these two
 * loops, or a bounded time later, when it turns interrupts on.
 *
 * A mailbox holds one request because its CPU makes one at a time: interrupts
 * are off from the first write until the last answer.
 */
#include "internal.h"

/*
 * A range of more pages is flushed as a whole. An address costs some hundred
 * cycles to invalidate on x86_64 and a fence on RISC-V, refilling a TLB of a
 * thousand entries costs some ten thousand: they meet at about this many.
 */
enum { FLUSH_PAGES_MAX = 64 };

struct mailbox {
	uint64_t inbox;   /* CPUs that ask this one; atomic */
	uint64_t waiting; /* CPUs that this one still waits for; atomic */
	const struct hx_tlb_range *ranges;
	unsigned n;
	struct hx_pagetable *table; /* whose they are; NULL: not said */
} __attribute__((aligned(64)));

static struct mailbox mailboxes[HX_CPUS_MAX];

/*
 * A CPU that has left the user table meanwhile may still have its entries, but
 * cannot use them before it loads the table again: then it forgets them. One that
 * is lazy forgets them now, and is not asked again (load.c).
 */
static void serve(const struct mailbox *m, unsigned me)
{
	if (m->n == 0) { /* hx_cpu_barrier() */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		return;
	}
	if (hx_lazy_leave(m->table)) {
		return;
	}
	if (m->table && !m->table->kernel && m->ranges[0].asid != hx_loaded_asid()) {
		__atomic_fetch_or(&m->table->stale.bits, hx_cpus_of(me).bits, __ATOMIC_SEQ_CST);
		return;
	}
	hx_hal_tlb_local(m->ranges, m->n);
}

void hx_upcall_tlb_ipi(void)
{
	unsigned me = hx_hal_cpu_id();
	if (__atomic_load_n(&mailboxes[me].inbox, __ATOMIC_RELAXED) == 0) {
		return;
	}
	/* Acquire: the requests, and the changes of tables before them, are visible. */
	uint64_t from = __atomic_exchange_n(&mailboxes[me].inbox, 0, __ATOMIC_ACQUIRE);
	for (; from != 0; from &= from - 1) {
		struct mailbox *m = &mailboxes[hx_ctz64(from)];
		serve(m, me);
		/* The last touch: once it is out, the initiator may go. */
		__atomic_fetch_and(&m->waiting, ~hx_cpus_of(me).bits, __ATOMIC_RELEASE);
	}
}

/* Interrupt @p others and have them invalidate; they do so from now on. */
static void ask(struct mailbox *m, unsigned me, const struct hx_tlb_range *ranges, unsigned n,
		struct hx_cpus others, struct hx_pagetable *t)
{
	m->ranges = ranges;
	m->n = n;
	m->table = t;
	__atomic_store_n(&m->waiting, others.bits, __ATOMIC_RELAXED);
	for (uint64_t to = others.bits; to != 0; to &= to - 1) {
		__atomic_fetch_or(&mailboxes[hx_ctz64(to)].inbox, hx_cpus_of(me).bits,
				  __ATOMIC_RELEASE);
	}
	hx_hal_ipi_tlb(others);
}

/* Until all have answered. */
static void await(struct mailbox *m)
{
	while (__atomic_load_n(&m->waiting, __ATOMIC_ACQUIRE) != 0) {
		hx_upcall_tlb_ipi();
		hx_hal_relax();
	}
}

static void count(uint32_t *counter, uint32_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static unsigned shootdown(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus,
			  struct hx_pagetable *t, struct hx_stripe *counters)
{
	unsigned long irq = hx_hal_irq_save();
	unsigned me = hx_hal_cpu_id();
	struct hx_cpus others = {cpus.bits & ~hx_cpus_of(me).bits};
	/* Lazy ones are interrupted, whatever the machine can do: they are to leave. */
	struct hx_cpus asked = hx_lazy_on(t, others);
	struct hx_cpus busy = {others.bits & ~asked.bits};
	if (busy.bits != 0 && !hx_hal_tlb_broadcast(ranges, n, busy)) {
		asked = others;
	}
	if (others.bits != 0) {
		count(&counters->broadcasts, 1);
	}
	if (asked.bits != 0) {
		ask(&mailboxes[me], me, ranges, n, asked, t);
		count(&counters->ipis, hx_popcount64(asked.bits));
	}
	if (hx_cpus_has(cpus, me) && !hx_lazy_leave(t)) {
		hx_hal_tlb_local(ranges, n);
		count(&counters->local_flushes, 1);
	}
	if (asked.bits != 0) {
		await(&mailboxes[me]);
	}
	hx_hal_irq_restore(irq);
	return hx_popcount64(others.bits);
}

void hx_cpu_barrier(struct hx_cpus cpus)
{
#ifdef hx_hal_cpu_barrier
	hx_hal_cpu_barrier(cpus);
#else
	/* A request to invalidate nothing. */
	unsigned long irq = hx_hal_irq_save();
	unsigned me = hx_hal_cpu_id();
	cpus.bits &= ~hx_cpus_of(me).bits;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (cpus.bits != 0) {
		ask(&mailboxes[me], me, NULL, 0, cpus, NULL);
		await(&mailboxes[me]);
	}
	hx_hal_irq_restore(irq);
#endif
}

unsigned hx_tlb_shootdown(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	struct hx_stripe nobody = {0};
	return n == 0 ? 0 : shootdown(ranges, n, cpus, NULL, &nobody);
}

/*
 * Which CPUs may use a translation of @t that has just been changed? Those in its
 * mask now. A CPU that is not there either left before, or its bit comes later in
 * the one order of sequentially consistent operations; it loads the root after
 * that, so its walks see the change (see hx_pagetable_load()). The fence puts the
 * change before the look.
 *
 * Those that left with entries in their TLB are told by `stale` not to keep them. It
 * is set before the last look at `active`: a CPU that comes back sets its bit in
 * `active` and then looks at `stale`, so at least one of the two is seen.
 */
static struct hx_cpus who_may_have(struct hx_pagetable *t)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uint64_t active = __atomic_load_n(&t->active.bits, __ATOMIC_SEQ_CST);
	for (uint64_t before = ~active; before != active;) {
		uint64_t away = __atomic_load_n(&t->cached.bits, __ATOMIC_SEQ_CST) & ~active;
		if ((away & ~__atomic_load_n(&t->stale.bits, __ATOMIC_SEQ_CST)) != 0) {
			__atomic_fetch_or(&t->stale.bits, away, __ATOMIC_SEQ_CST);
		}
		before = active;
		active = __atomic_load_n(&t->active.bits, __ATOMIC_SEQ_CST);
	}
	return (struct hx_cpus){active};
}

/* A kernel table's entries may be GLOBAL; a user table has none. */
static struct hx_tlb_range everything(const struct hx_pagetable *t)
{
	return (struct hx_tlb_range){.asid = hx_asid_of(t), .tables = true, .global = t->kernel};
}

/* Ranges for what was gathered: one for all of @t when it is many pages. */
static unsigned ranges_of(const struct hx_pagetable *t, const struct hx_gather *g,
			  struct hx_tlb_range ranges[HX_GATHER_MAX])
{
	uint64_t total = 0;
	for (unsigned i = 0; i < g->count; i++) {
		const struct hx_piece *p = &g->pieces[i];
		uint64_t pages = (uint64_t)((p->last - p->first) >> hx_level_shift(p->level)) + 1;
		total += pages;
		if (total > FLUSH_PAGES_MAX || pages > FLUSH_PAGES_MAX) {
			ranges[0] = everything(t);
			return 1;
		}
		ranges[i] = (struct hx_tlb_range){
			.va = hx_va(p->first),
			.pages = pages,
			.asid = hx_asid_of(t),
			.level = (uint8_t)p->level,
			.tables = g->tables,
			.global = t->kernel,
		};
	}
	return g->count;
}

static void flush(struct hx_pagetable *t, struct hx_stripe *home, const struct hx_gather *g,
		  bool others_only)
{
	if (g->count == 0) {
		return;
	}
	struct hx_tlb_range ranges[HX_GATHER_MAX];
	struct hx_cpus cpus = who_may_have(t);
	unsigned n = ranges_of(t, g, ranges); /* after that: with the identifier of who is there */
	if (others_only) {
		cpus.bits &= ~hx_cpus_of(hx_hal_cpu_id()).bits;
	}
	(void)shootdown(ranges, n, cpus, t, home);
}

void hx_gather_flush(struct hx_pagetable *t, struct hx_stripe *home, const struct hx_gather *g)
{
	flush(t, home, g, false);
}

void hx_gather_flush_others(struct hx_pagetable *t, struct hx_stripe *home,
			    const struct hx_gather *g)
{
	flush(t, home, g, true);
}

void hx_cursor_flush(struct hx_cursor *c)
{
	hx_gather_flush(c->t, c->home, &c->gather);
}

void hx_cursor_flush_others(struct hx_cursor *c)
{
	hx_gather_flush_others(c->t, c->home, &c->gather);
}

void hx_flush_table(struct hx_pagetable *t)
{
	struct hx_cpus cpus = who_may_have(t);
	struct hx_tlb_range r = everything(t);
	(void)shootdown(&r, 1, cpus, t, &t->stripes[0]);
}

bool hx_pagetable_is_loaded(struct hx_pagetable *t)
{
	if (!t || !t->frames) {
		return false;
	}
	struct hx_cpus active = {__atomic_load_n(&t->active.bits, __ATOMIC_SEQ_CST)};
	struct hx_cpus lazy = hx_lazy_on(t, active);
	if (lazy.bits != 0) {
		struct hx_tlb_range r = everything(t);
		(void)shootdown(&r, 1, lazy, t, &t->stripes[0]);
	}
	return __atomic_load_n(&t->active.bits, __ATOMIC_SEQ_CST) != 0;
}

void hx_flush_this_cpu(struct hx_pagetable *t)
{
	struct hx_tlb_range r = {.asid = hx_asid_of(t), .tables = true, .global = true};
	hx_hal_tlb_local(&r, 1);
	count(&t->stripes[0].local_flushes, 1);
}
