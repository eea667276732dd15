/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Stores to page tables.
 *
 * Late visibility. A plain store changes memory at once, so all software sees
 * it; the walkers go on reading the value before it until the CPU that stored
 * publishes. What they read instead stands in a table by address:
 *
 *      entry at p: | old | new | seen by walkers of | stored by |
 *
 * - hx_hal_pt_publish(), a TLB operation and an atomic update of any entry make
 *   all earlier stores of the CPU that does it visible to all walkers.
 * - The first two also let its own walker see the stores of every CPU (those that
 *   it could see itself): what a fence is for on the CPU that did not store.
 * - Stores become visible in their order: now and then a store first makes those
 *   before it visible, so that walkers see any prefix of them.
 * - An entry that was changed by other means since (its frame was filled anew, or
 *   an atomic update went over it) is void.
 *
 * x86_64's stores are not late: the processor's own walker and those of others see
 * them in order, and no instruction exists that portable code would have to use.
 *
 * Break before make. Where the geometry asks for it, a valid value may be stored
 * only when no TLB can hold what the entry said before in another way. A TLB can
 * when it does, and when the old value is valid and reachable from a loaded root.
 */
#include <stdlib.h>
#include <string.h>

#include "sim_cpu.h"

struct late {
	hx_pte *p;
	hx_pte old, new;
	uint64_t seen; /* CPUs */
	uint32_t next; /* in the bucket, or in the free list */
	uint8_t cpu;
	bool used;
};

bool hx_sim_watches;

static void (*on_step)(void);
static _Thread_local bool stepping;

static struct {
	pthread_mutex_t lock;
	struct late *entries;
	uint32_t capacity, high, free;
	uint32_t count; /* atomic: zero spares the walkers the lock */
	uint32_t buckets[SIM_BUCKETS];
	uint64_t random;
} stores = {.lock = PTHREAD_MUTEX_INITIALIZER};

unsigned sim_source_bucket(const hx_pte *source)
{
	return sim_bucket(0, (uintptr_t)source << 9); /* neighbours in different ones */
}

static void choose_path(void)
{
	hx_sim_watches =
		sim_switches.late_stores || sim_switches.break_before_make || on_step != NULL;
#ifdef HX_SIM_PLAIN_STORES
	if (hx_sim_watches) {
		sim_die("built with -Dsim_stores=plain, which nobody can watch");
	}
#endif
}

void sim_stores_reset(void)
{
	pthread_mutex_lock(&stores.lock);
	free(stores.entries);
	stores.entries = NULL;
	stores.capacity = stores.high = stores.count = 0;
	stores.free = SIM_NONE;
	stores.random = UINT64_C(0x9e3779b97f4a7c15);
	memset(stores.buckets, 0xff, sizeof stores.buckets);
	pthread_mutex_unlock(&stores.lock);
	choose_path();
}

/* ---- Steps ---- */

void hx_sim_on_step(void (*step)(void))
{
	on_step = step;
	choose_path();
}

void sim_step(void)
{
	if (on_step != NULL && !stepping) {
		stepping = true;
		on_step();
		stepping = false;
	}
}

/* ---- Late stores; the lock is held ---- */

static uint32_t *find(const hx_pte *p)
{
	uint32_t *link = &stores.buckets[sim_source_bucket(p)];
	while (*link != SIM_NONE && stores.entries[*link].p != p) {
		link = &stores.entries[*link].next;
	}
	return link;
}

static void forget(uint32_t *link)
{
	uint32_t slot = *link;
	struct late *s = &stores.entries[slot];
	*link = s->next;
	s->used = false;
	s->next = stores.free;
	stores.free = slot;
	if (__atomic_sub_fetch(&stores.count, 1, __ATOMIC_RELEASE) == 0) {
		stores.high = 0;
		stores.free = SIM_NONE;
	}
}

static struct late *remember(hx_pte *p)
{
	uint32_t slot = stores.free;
	if (slot != SIM_NONE) {
		stores.free = stores.entries[slot].next;
	} else {
		if (stores.high == stores.capacity) {
			uint32_t capacity = stores.capacity == 0 ? 1024 : 2 * stores.capacity;
			struct late *more = realloc(stores.entries, capacity * sizeof *more);
			if (more == NULL) {
				sim_die("no memory for %u late stores", capacity);
			}
			stores.entries = more;
			stores.capacity = capacity;
		}
		slot = stores.high++;
	}
	uint32_t *bucket = &stores.buckets[sim_source_bucket(p)];
	stores.entries[slot] = (struct late){.p = p, .next = *bucket, .used = true};
	*bucket = slot;
	__atomic_add_fetch(&stores.count, 1, __ATOMIC_RELEASE);
	return &stores.entries[slot];
}

static void publish(unsigned cpu, bool observe)
{
	uint32_t high = stores.high; /* falls when nothing is left */
	for (uint32_t i = 0; i < high && stores.count > 0; i++) {
		struct late *s = &stores.entries[i];
		if (s->used && s->cpu == cpu) {
			forget(find(s->p));
		} else if (s->used && observe) {
			s->seen |= hx_cpus_of(cpu).bits;
		}
	}
}

void sim_publish(const struct sim_cpu *cpu)
{
	if (__atomic_load_n(&stores.count, __ATOMIC_ACQUIRE) > 0) {
		pthread_mutex_lock(&stores.lock);
		publish(cpu->id, true);
		pthread_mutex_unlock(&stores.lock);
	}
}

static void store_late(unsigned cpu, hx_pte *p, hx_pte e)
{
	enum { PREFIX = 8 }; /* one store in so many makes those before it visible */
	pthread_mutex_lock(&stores.lock);
	stores.random = stores.random * UINT64_C(6364136223846793005) + 1;
	if ((stores.random >> 40) % PREFIX == 0) {
		publish(cpu, false);
	}
	hx_pte before = __atomic_load_n(p, __ATOMIC_RELAXED);
	uint32_t *link = find(p);
	struct late *s = *link != SIM_NONE ? &stores.entries[*link] : remember(p);
	if (s->new != before || s->old == s->new || s->seen != 0) {
		s->old = before; /* it is new, or void, or no walker may go back behind it */
	}
	s->new = e;
	s->cpu = (uint8_t)cpu;
	s->seen = 0;
	__atomic_store_n(p, e, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&stores.lock);
}

hx_pte sim_walker_load(const struct sim_cpu *cpu, const hx_pte *p, bool *late)
{
	hx_pte e = __atomic_load_n(p, __ATOMIC_ACQUIRE);
	if (__atomic_load_n(&stores.count, __ATOMIC_ACQUIRE) == 0) {
		return e;
	}
	pthread_mutex_lock(&stores.lock);
	e = __atomic_load_n(p, __ATOMIC_ACQUIRE);
	uint32_t slot = *find(p);
	if (slot != SIM_NONE && stores.entries[slot].new == e &&
	    !(stores.entries[slot].seen >> cpu->id & 1)) {
		e = stores.entries[slot].old;
		*late = true;
	}
	pthread_mutex_unlock(&stores.lock);
	return e;
}

void sim_walker_sees(const struct sim_cpu *cpu, const hx_pte *p)
{
	pthread_mutex_lock(&stores.lock);
	uint32_t slot = *find(p);
	if (slot != SIM_NONE) {
		stores.entries[slot].seen |= hx_cpus_of(cpu->id).bits;
	}
	pthread_mutex_unlock(&stores.lock);
}

/* An atomic update of @p: what the CPU stored before is visible, and so is this. */
static void update_at_once(const hx_pte *p)
{
	if (__atomic_load_n(&stores.count, __ATOMIC_ACQUIRE) > 0) {
		pthread_mutex_lock(&stores.lock);
		publish(sim_this_cpu()->id, false);
		uint32_t *link = find(p);
		if (*link != SIM_NONE) {
			forget(link);
		}
		pthread_mutex_unlock(&stores.lock);
	}
}

/* ---- Break before make ---- */

/*
 * May an entry of @level that said @old say @new, with no invalidation between?
 * Rights and marks may change; size, address and memory type may not, and what was
 * not GLOBAL may not become so: it would overlap what is cached without.
 */
static bool may_follow(hx_pte old, hx_pte new, unsigned level)
{
	const uint64_t fixed = HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE;
	enum hx_pte_kind was = hx_hal_pte_kind(old, level), is = hx_hal_pte_kind(new, level);
	bool was_valid = was == HX_PTE_LEAF || was == HX_PTE_TABLE;
	bool is_valid = is == HX_PTE_LEAF || is == HX_PTE_TABLE;
	if (!was_valid || !is_valid) {
		return true;
	}
	if (was != is || hx_hal_pte_pa(old, level).v != hx_hal_pte_pa(new, level).v) {
		return false;
	}
	uint64_t before = hx_hal_pte_flags(old, level), after = hx_hal_pte_flags(new, level);
	return is == HX_PTE_TABLE ||
	       (((before ^ after) & fixed) == 0 && !(after & ~before & HX_PAGE_GLOBAL));
}

/* The value that the cached fact came from, as far as may_follow() looks at it. */
static hx_pte said(const struct sim_entry *e)
{
	switch ((enum sim_entry_kind)e->kind) {
	case SIM_PAGE:
		return hx_hal_pte_leaf(hx_pa(e->pa), hx_hal_pte_prot(e->flags, e->level), e->level);
	case SIM_TABLE:
		return hx_hal_pte_table(hx_pa(e->pa));
	case SIM_ABSENT:
	case SIM_FREE:
		break;
	}
	return 0;
}

/* Does the CPU's TLB hold what @p said before, so that @new contradicts it? */
static const struct sim_entry *holds(const struct sim_cpu *cpu, const hx_pte *p, hx_pte new)
{
	const struct sim_tlb *t = &cpu->tlb;
	for (uint32_t i = t->by_source[sim_source_bucket(p)]; i != SIM_NONE;
	     i = t->entries[i].next_by_source) {
		const struct sim_entry *e = &t->entries[i];
		if (e->source == p && sim_usable(e, cpu->asid) &&
		    !may_follow(said(e), new, e->level)) {
			return e;
		}
	}
	return NULL;
}

/* Is @p an entry of a table of @level, found at or below @table? */
static bool reaches(uint64_t table, unsigned at, unsigned level, const hx_pte *p)
{
	if (!hx_sim_has_memory(hx_pa(table), HX_FRAME_BYTES)) {
		return false;
	}
	const hx_pte *entries = (const hx_pte *)((uintptr_t)table + hx_hal_direct_offset);
	unsigned n = 1u << hx_hal_geometry.bits[at];
	if (at == level) {
		return p >= entries && p < entries + n;
	}
	for (unsigned i = 0; i < n; i++) {
		hx_pte e = hx_hal_pte_load(&entries[i]);
		if (hx_hal_pte_kind(e, at) == HX_PTE_TABLE &&
		    reaches(hx_hal_pte_pa(e, at).v, at - 1, level, p)) {
			return true;
		}
	}
	return false;
}

static void report_conflict(const struct sim_cpu *cpu, const struct sim_entry *e, const hx_pte *p,
			    hx_pte new, unsigned level)
{
	hx_pte old = __atomic_load_n(p, __ATOMIC_RELAXED);
	sim_count(&sim_counters.conflicts);
	sim_report(&(struct hx_sim_stale){
		.cpu = cpu->id,
		.conflict = true,
		.va = hx_va(e != NULL ? e->va : 0),
		.table = hx_hal_pte_kind(new, level) == HX_PTE_TABLE,
		.present = true,
		.used = e != NULL ? hx_pa(e->pa) : hx_hal_pte_pa(old, level),
		.now = hx_hal_pte_pa(new, level),
		.used_flags = e != NULL ? e->flags : 0,
	});
}

static void check_make(const hx_pte *p, hx_pte new)
{
	if (new == 0 || !sim_feature(HX_MMU_BREAK_BEFORE_MAKE)) {
		return;
	}
	hx_pte old = __atomic_load_n(p, __ATOMIC_RELAXED);
	unsigned end = __atomic_load_n(&sim_cpus_end, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < end; i++) {
		struct sim_cpu *cpu = &sim_cpus[i];
		pthread_mutex_lock(&cpu->lock);
		const struct sim_entry *held = cpu->root_loaded ? holds(cpu, p, new) : NULL;
		if (held != NULL) {
			report_conflict(cpu, held, p, new, held->level);
		}
		for (unsigned l = 0; cpu->root_loaded && held == NULL && l < hx_hal_geometry.levels;
		     l++) {
			if (!may_follow(old, new, l) &&
			    reaches(cpu->root.v, hx_hal_geometry.levels - 1u, l, p)) {
				report_conflict(cpu, NULL, p, new, l);
			}
		}
		pthread_mutex_unlock(&cpu->lock);
	}
}

/* ---- The port's functions ---- */

void hx_sim_pte_store(hx_pte *p, hx_pte e)
{
	sim_step();
	check_make(p, e);
	if (sim_switches.late_stores) {
		store_late(sim_this_cpu()->id, p, e);
	} else {
		__atomic_store_n(p, e, __ATOMIC_RELEASE);
	}
	sim_step();
}

hx_pte hx_sim_pte_exchange(hx_pte *p, hx_pte e)
{
	sim_step();
	check_make(p, e);
	update_at_once(p);
	hx_pte old = __atomic_exchange_n(p, e, __ATOMIC_ACQ_REL);
	sim_step();
	return old;
}

bool hx_sim_pte_update(hx_pte *p, hx_pte *expected, hx_pte desired)
{
	sim_step();
	if (hx_hal_pte_raw(p) == *expected) { /* otherwise nothing is made */
		check_make(p, desired);
	}
	update_at_once(p);
	bool done = __atomic_compare_exchange_n(p, expected, desired, false, __ATOMIC_ACQ_REL,
						__ATOMIC_ACQUIRE);
	sim_step();
	return done;
}

void hx_hal_pt_publish(void)
{
	sim_step();
	struct sim_cpu *cpu = sim_this_cpu();
	sim_publish(cpu);
	sim_forget_absence(cpu);
	sim_step();
}
