/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * sim_cpu.h - a simulated CPU and its TLB: private to the simulated machine.
 *
 *   machine.c  memory, firmware's words, CPUs, interrupts
 *   mmu.c      walks, the TLB, its flushes, what it fetches ahead
 *   store.c    stores to page tables: late visibility, break before make
 *   audit.c    what the TLBs hold against what the tables say
 *
 * Locks: a CPU's `lock`, then that of store.c. No other two are held at once.
 */
#ifndef HX_SIM_CPU_H
#define HX_SIM_CPU_H

#include <pthread.h>

#include "sim.h"

enum sim_entry_kind {
	SIM_FREE,
	SIM_PAGE,   /* a leaf */
	SIM_TABLE,  /* an entry of level @level names the table at pa */
	SIM_ABSENT, /* an entry of level @level was not valid */
};

/* One cached fact about [va, va + size of level). */
struct sim_entry {
	uint64_t va;
	uint64_t pa;
	uint64_t flags;       /* HX_PAGE_*; without DIRTY a write must walk */
	const hx_pte *source; /* the page-table entry that said so */
	uint16_t asid;
	uint8_t level;
	uint8_t kind;
	/* Chains; SIM_NONE ends; the free list goes by va. */
	uint32_t next_by_va, next_by_pa, next_by_source;
};

#define SIM_NONE UINT32_MAX
enum { SIM_BUCKETS = 1 << 12 };

struct sim_tlb {
	struct sim_entry *entries;
	uint32_t capacity, high; /* entries [0, high) have been used */
	uint32_t free;           /* chain of freed entries */
	uint32_t live;
	uint32_t by_va[SIM_BUCKETS], by_pa[SIM_BUCKETS], by_source[SIM_BUCKETS];
};

struct sim_cpu {
	unsigned id;
	bool owned; /* a thread plays this CPU; under the machine's lock */

	/* The owner's alone. */
	bool irq_off;
	bool user_access;
	bool mmu_on;
	struct sim_cpu *also; /* next CPU that the same thread plays (hx_sim_play()) */

	/* Interrupts and sleep. */
	bool ipi; /* pending; atomic */
	bool wake;
	pthread_mutex_t sleep_lock;
	pthread_cond_t sleep;

	/*
	 * Held for the whole of an access: a flush by another CPU waits for the
	 * instruction that is under way, as on a real machine.
	 */
	pthread_mutex_t lock;
	bool root_loaded;
	struct hx_pa root;
	uint16_t asid;
	uint64_t random; /* state of the generator that picks what is fetched ahead */
	struct sim_tlb tlb;
};

extern struct sim_cpu sim_cpus[HX_CPUS_MAX];
extern struct hx_sim_counters sim_counters; /* atomic */
extern unsigned sim_cpus_end;               /* CPUs from here on were never used; atomic */

/* The switches of the configuration that are looked at while the machine runs. */
struct sim_switches {
	bool late_stores, break_before_make, prefetch, speculative_accessed;
};
extern struct sim_switches sim_switches;

/* ---- machine.c ---- */

/** The CPU that this thread plays; makes it one when it is none yet. */
struct sim_cpu *sim_this_cpu(void);
/** Take a pending interrupt, if interrupts are on. */
void sim_deliver(struct sim_cpu *cpu);
_Noreturn void sim_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- mmu.c ---- */

/** Forget everything and let go of the memory. */
void sim_tlb_reset(struct sim_tlb *t);

struct sim_translation {
	bool present;
	unsigned level; /* of the last entry read */
	uint64_t pa;    /* of the page */
	uint64_t flags;
	uint64_t tables[HX_LEVELS_MAX]; /* [l]: the table that an entry of level l names; 1: none */
};

uint64_t sim_level_bytes(unsigned level);
/** What the tables below @root say now, as loads of the CPU see them; changes nothing. */
struct sim_translation sim_consult(struct hx_pa root, uint64_t va);
/** Does the entry grant anything that the tables below @root do not, in any part of it? */
bool sim_exceeds(struct hx_pa root, const struct sim_entry *e);
/** Can the CPU use the entry while it runs this ASID? */
bool sim_usable(const struct sim_entry *e, uint16_t asid);
unsigned sim_bucket(unsigned level, uint64_t address);
unsigned sim_source_bucket(const hx_pte *source);
/** Forget cached absence on the CPU. */
void sim_forget_absence(struct sim_cpu *cpu);
/** Tell who listens (hx_sim_on_stale()). */
void sim_report(const struct hx_sim_stale *s);

/* ---- store.c ---- */

/** Start anew; after the switches and the geometry are set. */
void sim_stores_reset(void);
/** What the walker of @cpu reads; *late is set when a store is not visible to it. */
hx_pte sim_walker_load(const struct sim_cpu *cpu, const hx_pte *p, bool *late);
/** The walker of @cpu updates the entry itself: it has seen what was stored there. */
void sim_walker_sees(const struct sim_cpu *cpu, const hx_pte *p);
/** From now on all walkers see the stores of @cpu, and its own walker those of all. */
void sim_publish(const struct sim_cpu *cpu);
/** Let the test in (hx_sim_on_step()). */
void sim_step(void);

static inline void sim_count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static inline bool sim_feature(uint32_t f)
{
	return (hx_hal_geometry.features & f) != 0;
}

#endif
