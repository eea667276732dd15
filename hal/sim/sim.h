/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * sim.h - the simulated machine, port number 0: what a host program sees of it
 * beside the contract in hx/hal.h.
 *
 * Memory. One reservation of host addresses stands for all physical addresses
 * from 0 to the end of the configured ranges. Ranges that have memory are
 * readable and writable; holes, RESERVED and BAD ranges stay without access, so
 * that a stray pointer dies on the spot.
 *
 *      hx_hal_direct_offset                                     + memory end
 *      |   RAM   |###reserved###|   RAM   |######hole######|   RAM   |
 *
 * CPUs are host threads. The thread that loads the program is CPU 0, threads
 * made by hx_sim_cpu_start() have the number asked for, and any other thread
 * that calls the HAL becomes the lowest free CPU until it ends. Interrupts are
 * flags: an interrupt that is pending is taken when the CPU has them on and
 * calls the HAL (irq_save, irq_restore, relax, sleep) or touches memory through
 * the MMU, that is, between two instructions.
 *
 * The MMU walks the page tables in simulated memory with the codec of the real
 * port. Its TLB is the worst that the contract allows:
 *
 *  - it never evicts: only an explicit flush makes it forget, and only what
 *    the flush names (a range flush drops no GLOBAL entry unless told so, no
 *    upper-level entry unless tables is set, no page that the stride skips);
 *  - it prefetches. A walk also caches the leaf's neighbours in the same cache
 *    line of the table. At accesses and loads of a root, picked at random, it
 *    caches any path that can be reached, from the root or from a table pointer
 *    that it still has; and what a flush names it fetches again at once, as the
 *    tables are then. It takes table pointers, absence (if that may be cached) and
 *    leaves that are marked ACCESSED; under speculative_accessed it marks others
 *    itself, as a processor may that runs ahead;
 *  - a leaf of a group is cached together with all its neighbours in the group, each as a
 *    fact of its own, so that forgetting one page leaves the others;
 *  - where several cached translations match it uses one that is out of date,
 *    and walks through an out-of-date table pointer where it cached one;
 *  - entries with fewer rights than the tables, and (under
 *    HX_MMU_NEGATIVE_CACHING) cached absence, raise spurious faults.
 *
 * Its walkers see plain stores to page tables late, in order: not before the CPU
 * that stored does hx_hal_pt_publish(), a TLB operation, a root_load that keeps
 * nothing or an atomic update of an entry. The first three also let its own walker
 * see the stores of all CPUs. By default on, but for x86_64, whose walkers see
 * stores in order at once. Stores into a table by plain C (it is not linked yet)
 * are not late.
 *
 * Under HX_MMU_BREAK_BEFORE_MAKE it reports a conflict when a valid value is stored
 * in an entry of which a TLB holds, or could hold, another one (of other size, address
 * or memory type, or GLOBAL where it was not), and when a TLB comes to hold two translations of one
 * address.
 *
 * Each use of an entry that grants what the current tables do not is counted and
 * reported. It is an error only once the operation that changed the table has
 * returned: tests that change a table under a running reader install a handler
 * of their own, and audit the frames when they are released.
 */
#ifndef HX_SIM_H
#define HX_SIM_H

#include <hx/hal.h>

/* ---- The machine ---- */

enum hx_sim_switch { HX_SIM_DEFAULT, HX_SIM_OFF, HX_SIM_ON };

/* All zero: the default machine. The tables are copied. */
struct hx_sim_config {
	const struct hx_memory_range *ranges; /* the firmware's words, also hostile ones */
	unsigned range_count;
	const struct hx_cpu_info *cpus;
	unsigned cpu_count;
	uint64_t memory_end;            /* 0: the end of the last range below 1 PiB */
	uint64_t boot_window_bytes;     /* 0: 4 GiB */
	uint8_t levels;                 /* 0: as built (-Dsim_paging) */
	uint8_t asid_bits;              /* 0: no address-space identifiers */
	uint8_t leaf_levels;            /* 0: all that the codec has */
	uint8_t bits[HX_LEVELS_MAX];    /* index bits of each level; bits[0] == 0: the codec's */
	enum hx_sim_switch broadcast;   /* default: on unless the codec is x86_64's */
	enum hx_sim_switch hardware_ad; /* default: as the codec says; OFF: faults instead */
	enum hx_sim_switch user_guard;  /* default: as the codec says */
	enum hx_sim_switch break_before_make;    /* default: as the codec says */
	enum hx_sim_switch groups; /* of leaves, if the codec has them; default: off */
	enum hx_sim_switch late_stores;          /* default: on unless the codec is x86_64's */
	enum hx_sim_switch prefetch;             /* of more than a cache line; default: on */
	enum hx_sim_switch speculative_accessed; /* default: off */
	uint64_t seed;                           /* of what is prefetched; 0: always the same */
};

/*
 * Start the machine anew: memory zero, TLBs empty, no CPU but the caller's,
 * which becomes CPU 0. No other CPU may be running; one that ends is waited for.
 * Never fails: what cannot be had ends the program with a message. Without a call the
 * default machine stands: 256 MiB of RAM from 0 in two pieces with a reserved hole
 * between them, 64 MiB at 4 GiB, 4 CPUs.
 */
void hx_sim_configure(const struct hx_sim_config *c);

/** True when all of [a, a + bytes) has memory behind it. */
bool hx_sim_has_memory(struct hx_pa a, uint64_t bytes);

/* ---- CPUs ---- */

/** Run @p entry(@p argument) as CPU @p cpu; false when that number is taken. */
bool hx_sim_cpu_start(unsigned cpu, void (*entry)(void *argument), void *argument);

/**
 * From now on this thread plays CPU @p cpu, which no other thread may; it may go
 * back to one that it played before. Interrupts of those that it does not play just
 * now are taken where the one that it plays waits (hx_hal_relax()). So one thread
 * can run a whole machine, in an order that comes again.
 */
void hx_sim_play(unsigned cpu);

/**
 * Call @p step around every change of a page-table entry and every TLB operation,
 * on the CPU that makes it; NULL: no more. What @p step itself does is not stepped.
 */
void hx_sim_on_step(void (*step)(void));

/** Wait for an interrupt or for hx_sim_wake(); an interrupt is taken if they are on. */
void hx_sim_sleep(void);
/** End the sleep of @p cpu, or its next one. */
void hx_sim_wake(unsigned cpu);

/* ---- The MMU ---- */

/* One access, as an instruction makes it. */
struct hx_sim_reference {
	struct hx_va va;
	enum hx_access access; /* EXECUTE fetches */
	bool user;             /* the CPU is in user mode */
	uint8_t bytes;         /* 1, 2, 4 or 8; va is a multiple of it */
	uint64_t value;        /* in: written; out: read or fetched */
	struct hx_pa pa;       /* out: where it went */
};

/**
 * Make the access through this CPU's TLB and tables.
 * @return false when it faults (*fault is filled, nothing was accessed)
 */
bool hx_sim_access(struct hx_sim_reference *r, struct hx_fault *fault);

/*
 * A cached translation was used that the current tables do not give; or was kept by
 * a load that says it was right; or is in conflict (see above). Or an entry has the sign
 * of a group and is none.
 */
struct hx_sim_stale {
	unsigned cpu;
	struct hx_va va;
	enum hx_access access;
	bool table;             /* a cached table pointer, not a cached page */
	bool present;           /* the tables do map va */
	bool kept;              /* by hx_hal_root_load(keep) */
	bool conflict;          /* va may be 0: nobody has it cached, but could */
	bool reserved;          /* the walker came upon a group that this machine has not */
	struct hx_pa used, now; /* page, or table frame */
	uint64_t used_flags, now_flags;
};

/** Who hears of stale uses; NULL: a line on standard error. */
void hx_sim_on_stale(void (*report)(const struct hx_sim_stale *s));

/**
 * True when a TLB that can be used at once still names the frame: as a page or a
 * table, GLOBAL or under the ASID that its CPU runs. Tests call it where a frame
 * is released.
 */
bool hx_sim_audit_frame(struct hx_pfn frame);

/**
 * Compare every usable entry of every CPU's TLB with the tables that the CPU has
 * loaded. @return entries that grant more than the tables, or name a table that
 * is no longer there
 */
unsigned hx_sim_audit(void);

/**
 * Frames that are just being released: entries that can be used and reach one of
 * them, except through the direct map (where that is what the tables say).
 */
unsigned hx_sim_audit_release(struct hx_pfn first, uint64_t count);

/**
 * Entries of any CPU that would be wrong if it loaded @p root under @p asid and kept
 * what it has.
 */
unsigned hx_sim_audit_asid(struct hx_pa root, uint16_t asid);

struct hx_sim_counters {
	uint64_t walks;      /* TLB misses */
	uint64_t stale_uses; /* and what else is reported */
	uint64_t conflicts;
	uint64_t spurious_faults; /* the tables would have allowed the access */
	uint64_t local_flushes;   /* calls of hx_hal_tlb_local() */
	uint64_t broadcasts;      /* calls of hx_hal_tlb_broadcast() that were carried out */
	uint64_t ipis;            /* CPUs interrupted by hx_hal_ipi_tlb() */
	uint64_t root_loads;
};

/** Since the machine was configured, all CPUs together. */
struct hx_sim_counters hx_sim_counters(void);

#endif
