/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* sim_cpu.h - a simulated CPU and its TLB: private to the simulated machine. */
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
	uint64_t flags; /* HX_PAGE_*; without DIRTY a write must walk */
	uint16_t asid;
	uint8_t level;
	uint8_t kind;
	uint32_t next_by_va, next_by_pa; /* chains; SIM_NONE ends; free list by va */
};

#define SIM_NONE UINT32_MAX
enum { SIM_BUCKETS = 1 << 12 };

struct sim_tlb {
	struct sim_entry *entries;
	uint32_t capacity, high; /* entries [0, high) have been used */
	uint32_t free;           /* chain of freed entries */
	uint32_t live;
	uint32_t by_va[SIM_BUCKETS], by_pa[SIM_BUCKETS];
};

struct sim_cpu {
	unsigned id;
	bool owned; /* a thread plays this CPU; under the machine's lock */

	/* The owner's alone. */
	bool irq_off;
	bool user_access;
	bool mmu_on;

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
	struct sim_tlb tlb;
};

extern struct sim_cpu sim_cpus[HX_CPUS_MAX];
extern struct hx_sim_counters sim_counters; /* atomic */

/** The CPU that this thread plays; makes it one when it is none yet. */
struct sim_cpu *sim_this_cpu(void);
/** Take a pending interrupt, if interrupts are on. */
void sim_deliver(struct sim_cpu *cpu);
/** Forget everything and let go of the memory. */
void sim_tlb_reset(struct sim_tlb *t);
_Noreturn void sim_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline void sim_count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

#endif
