/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/mapper.h - page tables: one generic walker over the HAL's geometry and
 * codec, for every port and every number of levels.
 *
 * Ranges are whole pages. The mapper picks the largest leaf that alignment,
 * length and the port allow (unless told otherwise), splits huge leaves where a
 * range ends inside one, and frees tables that become empty. Tables come from
 * the frames given at init.
 *
 * Where the machine has groups (hx/hal.h) neighbouring pages that were mapped with ACCESSED,
 * and DIRTY or not WRITABLE, are marked as one, 64 KiB on riscv64 with Svnapot: by hx_map()
 * as far as its range holds them whole, and by hx_fold(). They stay pages in every other
 * respect. Who sets the rights of one of them, unmaps it or clears its marks parts the group.
 *
 * A huge leaf keeps the tables that splitting it down to pages takes from the time
 * that it is made, as many as pages would have taken, so that no split fails for want
 * of memory. Leaves of the kernel's direct map (hx_pagetable_direct()) keep none. Nor do
 * leaves above 1 GiB elsewhere: a call that would split one is NOT_SUPPORTED.
 *
 * Teardown keeps one order: unhook (in place: a leaf, or the entry of a table
 * that empties, becomes a soft entry that remembers its frame), invalidate on
 * every CPU that may hold it, then release data frames and table frames. One
 * broadcast serves a call of any size, but for what a call says of its cost.
 *
 * When a call returns, nothing that it took away can be used any more on any
 * CPU. What it gave is different: a CPU may have cached that a page was absent,
 * or had fewer rights. For the kernel's table such entries are invalidated as
 * well, because kernel code cannot take faults on them. For a user table they
 * are not: the access faults once, and hx_pagetable_spurious() tells the fault
 * handler to let it run again.
 */
#ifndef HX_MAPPER_H
#define HX_MAPPER_H

#include <hx/framedb.h>
#include <hx/frames.h>

/** What to do with a mapping asked for as both writable and executable. */
enum hx_wx_policy {
	HX_WX_FORCE,  /* make it non-executable (default) */
	HX_WX_REFUSE, /* PERMISSION_DENIED */
	HX_WX_OFF,    /* allow it */
};

struct hx_mapper_counters {
	uint64_t tables; /* table frames now, the root and those kept for splits included */
	/* Since the table was made; a stripe's share of each begins anew after 2^32. */
	uint64_t local_flushes; /* invalidations on the calling CPU */
	uint64_t broadcasts;    /* invalidations that other CPUs had to do */
	uint64_t ipis;          /* CPUs interrupted for them */
	uint64_t splits;        /* huge leaves split */
	uint64_t locks;         /* locks of stripes that were taken */
};

/*
 * The addresses under one entry of level 1 (2 MiB, one leaf table) are a stripe;
 * 32 consecutive ones have 32 different locks. A call locks the stripes of its
 * range, all 32 when the range is longer, so calls on disjoint ranges run at the
 * same time unless 32 stripes, or a multiple, lie between them. As long as they make
 * and free no tables they write no common cache line either; tables come from frames
 * and are linked in tables that they share (see memory/mapper/cursor.c for what a
 * stripe's lock guards).
 */
enum { HX_STRIPES = 32 };

struct hx_stripe {
	struct hx_lock lock;
	uint32_t retirements; /* batches of tables freed, for hx_translate(); atomic */
	/* Shares of the sums that hx_pagetable_counters() gives; single ones wrap. */
	uint32_t tables;
	uint32_t table_sum; /* of the frame numbers of the tables, for the validator */
	uint32_t splits;
	uint64_t locks;
	uint32_t local_flushes, broadcasts, ipis; /* atomic */
	/* The leaf table that was found last, and whose it is: memory/mapper/cursor.c. */
	uint32_t leaf_tag;
	uint64_t *leaf_table;
	struct hx_pa kept; /* tables for splits, chained through their first words; 0: none */
} __attribute__((aligned(64)));

struct hx_pagetable {
	struct hx_pa root;
	struct hx_frames *frames;
	struct hx_framedb *db; /* tags table frames; may be NULL */
	enum hx_wx_policy wx;
	bool kernel;  /* owns the kernel half; otherwise the user half */
	bool sealed;  /* kernel: root entries of the kernel half are fixed */
	bool huge;    /* leaves above level 0 are allowed */
	/* What a call may ask for, and gets, so that it is looked up and not worked out. */
	struct {
		uintptr_t first, bytes_less_1;  /* the half that it owns */
		uint64_t no_address;            /* bits that no frame's address has */
		uint64_t looked_at;             /* flags of which only PRESENT may, and must, be set */
		uint64_t always, when_writable; /* flags that a leaf has besides */
		uint8_t table_shift;            /* log2 of the bytes under one leaf table */
		bool told;                      /* of what it maps all CPUs are told */
	} rules;
	uint64_t asid_token; /* its address-space identifier (memory/mapper/asid.c); atomic */
	/**
	 * CPUs on which it is loaded, lazily or not (hx_pagetable_load()); of the kernel's
	 * table: on which it, or one that shares its half, is. Atomic, as are the two below.
	 */
	struct hx_cpus active;
	struct hx_cpus cached; /* may have entries of it, loaded or not */
	struct hx_cpus stale;  /* of these: forget them when it is loaded next */
	uint32_t pruning; /* calls about to free a table that they have found EMPTY; atomic */
	uintptr_t direct_last; /* kernel: the direct map is [hx_kernel_start(), this]; 0: none */
	struct hx_pagetable *shared; /* whose kernel half this one shows; NULL: its own */
	struct hx_stripe stripes[HX_STRIPES];
};

struct hx_pagetable_config {
	struct hx_frames *frames;
	struct hx_framedb *db;
	enum hx_wx_policy wx;
	bool huge;
	/**
	 * NULL: this is the kernel's table. Otherwise its kernel half is shared:
	 * the root entries are copied, and @p kernel must be sealed.
	 */
	struct hx_pagetable *kernel;
};

/**
 * Allocate the root.
 * @return OUT_OF_MEMORY, NOT_INITIALIZED (kernel not sealed, or ended), INVALID_ARGUMENT
 *         (no frames, @p c->kernel is no kernel table, no such policy),
 *         NOT_SUPPORTED (a geometry that the walker cannot walk): *t is unchanged
 */
HX_NODISCARD hx_status hx_pagetable_init(struct hx_pagetable *t,
					 const struct hx_pagetable_config *c);

/**
 * Free every table of the half that it owns; mappings are dropped, data frames
 * are not touched. Nothing else may use it any more; a kernel table must have
 * outlived all that share it. Waits for CPUs that are lazy on it.
 * @return BUSY while a CPU runs it (hx_pagetable_is_loaded()), NOT_INITIALIZED
 */
HX_NODISCARD hx_status hx_pagetable_destroy(struct hx_pagetable *t);

/**
 * Kernel table: create every root entry that [va, va + bytes) needs, so that
 * spaces created later share what is mapped there. The tables that hang off a
 * kernel table's root stay for good, empty or not.
 * @return INVALID_ALIGNMENT, INVALID_SIZE, INVALID_ADDRESS as hx_map();
 *         INVALID_ARGUMENT (no kernel table), NOT_SUPPORTED (sealed, and an entry
 *         is missing), OUT_OF_MEMORY: nothing changed
 */
HX_NODISCARD hx_status hx_pagetable_prepare(struct hx_pagetable *t, struct hx_va va,
					    uint64_t bytes);
/**
 * Kernel table: the first @p bytes of the kernel half are the direct map. Its leaves
 * may be of every level and keep no tables, which would be a 512th of all memory;
 * splitting one allocates them and may be OUT_OF_MEMORY. On a machine that demands
 * break-before-make a leaf of it above level 0 is not split and keeps its cache
 * attributes: NOT_SUPPORTED, for the tables are reached through it; nor is any folded. A
 * single page of it may get others if it holds no table, no stack and nothing else that
 * the call reaches. No leaf lies on both sides of its end: HX_MAP_LEVEL_* is NOT_SUPPORTED
 * there. Before anything is mapped.
 * @return INVALID_ARGUMENT (no kernel table, something is mapped), INVALID_ALIGNMENT,
 *         INVALID_SIZE, INVALID_ADDRESS as hx_map()
 */
HX_NODISCARD hx_status hx_pagetable_direct(struct hx_pagetable *t, uint64_t bytes);

/**
 * Kernel table: from now on its root entries are fixed, other tables copy them. A
 * call that would make, change or remove one (of a leaf of the root level) is
 * NOT_SUPPORTED. Of any other table it means nothing.
 */
void hx_pagetable_seal(struct hx_pagetable *t);

/**
 * Load it on this CPU; @p previous is the table that was loaded here, NULL for a
 * foreign one (firmware's, the boot code's). Until a CPU has loaded another table
 * it takes part in every shootdown, so it must be able to serve interrupts.
 *
 * Where the machine has address-space identifiers, what the CPU has cached of either is
 * kept as far as it is right. Where it has none, a CPU that loads the kernel's table after
 * a user's that shares its half becomes lazy: the user's root stays in place, and loading
 * that table again costs nothing. The next shootdown of that table, or the end of it
 * (hx_pagetable_is_loaded()), interrupts the CPU once more, and makes it leave. While the
 * kernel's table is loaded, kernel code must not touch user addresses: anything, or
 * nothing, is there. The kernel's table loaded over itself makes the CPU leave at once, as
 * it must before it is turned off or sleeps too deeply to answer.
 * Context: any
 */
void hx_pagetable_load(struct hx_pagetable *t, struct hx_pagetable *previous);

/**
 * Does any CPU run it? Lazy ones are first made to leave it, and waited for.
 * Context: as hx_tlb_shootdown()
 */
HX_NODISCARD bool hx_pagetable_is_loaded(struct hx_pagetable *t);

/** Forget one page on this CPU, and that it, or a table above it, was absent. */
void hx_pagetable_forget_page(struct hx_va va);

/**
 * Was @p fault spurious: does the table that this CPU has loaded allow the access
 * after all? New mappings and added rights of a user table are told to no CPU that
 * may have cached that there were none. If so, this CPU forgets the page. On a machine
 * that demands break-before-make, is the page away just for as long as another CPU takes
 * to make its leaf anew? Then the access comes back here until it is made.
 * @return true: retry the access
 * Context: any; takes no lock
 */
HX_NODISCARD bool hx_pagetable_spurious(const struct hx_fault *fault);

/* Flags beside HX_PAGE_* for hx_map(). */
#define HX_MAP_NO_HUGE (UINT64_C(1) << 52) /* level 0 leaves only */
#define HX_MAP_LEVEL_1 (UINT64_C(1) << 53) /* all leaves at level 1 (2 MiB) or INVALID_ALIGNMENT */
#define HX_MAP_LEVEL_2 (UINT64_C(1) << 54) /* all leaves at level 2 (1 GiB) or INVALID_ALIGNMENT */

/**
 * Map [va, va + bytes) to [pa, pa + bytes).
 * @param flags  HX_PAGE_* with PRESENT; HUGE is ignored; A and D are set where
 *               the machine does not set them itself; GLOBAL only in the kernel's
 *               table (in another it would outlive its address space), where it is
 *               always set on machines with address-space identifiers
 * @return INVALID_ALIGNMENT, INVALID_SIZE (0), INVALID_ADDRESS (wraps, not
 *         canonical, the half that the table does not own, pa too wide),
 *         INVALID_ARGUMENT (PRESENT missing, unknown flag, GLOBAL in a user table),
 *         PERMISSION_DENIED (W^X), ALREADY_MAPPED, NOT_SUPPORTED (sealed, leaf
 *         level), OUT_OF_MEMORY (raises no pressure event: locks are held),
 *         NOT_INITIALIZED: nothing changed in every case
 * Context: IRQ-safe; locks the range; never sleeps
 * Cost:    two descents per leaf table, then one store per leaf; one page in the leaf
 *          table that was used last in its stripe: no descent, 120 instructions at most
 */
HX_NODISCARD hx_status hx_map(struct hx_pagetable *t, struct hx_va va, struct hx_pa pa,
			      uint64_t bytes, uint64_t flags);

/*
 * A leaf in one word: its address, a multiple of the page size, and of HX_PAGE_*
 * those below bit 12. 0 is no leaf.
 */
#define HX_LEAF_FLAGS UINT64_C(0xfff)
static inline struct hx_pa hx_leaf_pa(uint64_t leaf)
{
	return hx_pa(leaf & ~HX_LEAF_FLAGS);
}

/** @p count leaves of @p bytes each, one behind the other from @p va; some may be 0. */
struct hx_released {
	struct hx_va va;
	uint64_t bytes;
	unsigned count;
	/** Flags: PRESENT, WRITABLE, USER, DIRTY, and HUGE above level 0; DIRTY is final. */
	const uint64_t *leaves;
};

/**
 * Called for batches of leaves, in address order, after no CPU can use them any
 * more. A huge leaf that was unmapped in part has been split and comes piece by
 * piece. The range is locked: no call for the same table from here.
 */
typedef void (*hx_released_fn)(void *context, const struct hx_released *batch);

/**
 * Unmap every page of the range; all must be mapped.
 * @param released  may be NULL
 * @return INVALID_ALIGNMENT, INVALID_SIZE, INVALID_ADDRESS, NOT_INITIALIZED as
 *         hx_map(); NOT_MAPPED when a page of the range is not mapped;
 *         NOT_SUPPORTED (sealed); OUT_OF_MEMORY when a huge leaf of the direct map must
 *         be split and no table is to be had: nothing changed in every case
 * Context: IRQ-safe; locks the range; never sleeps
 * Cost:    two descents per leaf table; a table wholly in the range is unhooked
 *          with one store; at most one shootdown, and one more for each huge leaf that
 *          is split on a machine that demands break-before-make, and for each end of
 *          the range where another call has emptied the same table above level 0.
 *          One page beside another, in the leaf table that was used last in its stripe,
 *          that no other CPU runs: no descent, 120 instructions at most
 */
HX_NODISCARD hx_status hx_unmap(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				hx_released_fn released, void *context);

/** The same, but pages that are not mapped are passed over. */
HX_NODISCARD hx_status hx_unmap_sparse(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				       hx_released_fn released, void *context);

/**
 * Give every page of the range the rights in @p flags (PRESENT with WRITABLE,
 * USER, NO_EXECUTE, GLOBAL, cache bits); ACCESSED and DIRTY stay as the machine
 * left them. All pages must be mapped. Flushes only when a right was taken away, a
 * cache attribute changed or a huge leaf was split (and for the kernel's table
 * when a right was given: see above).
 *
 * Flags of 0 hide the pages: they keep frame, contents and DIRTY and are still
 * unmapped and released as others, but nobody, not even the kernel, reaches them;
 * hx_translate() says NOT_MAPPED. Other flags show them again. Only in user tables
 * without huge leaves.
 * @return as hx_unmap(); INVALID_ARGUMENT (also: hiding elsewhere),
 *         PERMISSION_DENIED as hx_map()
 * Context: IRQ-safe; locks the range; never sleeps
 * Cost:    two descents per leaf table; at most one shootdown, and on a machine that
 *          demands break-before-make one more for each huge leaf that is split, and
 *          one when a cache attribute changes beside a right that is taken away
 */
HX_NODISCARD hx_status hx_update_flags(struct hx_pagetable *t, struct hx_va va, uint64_t bytes,
				       uint64_t flags);
/** The same, but pages that are not mapped are passed over. */
HX_NODISCARD hx_status hx_update_flags_sparse(struct hx_pagetable *t, struct hx_va va,
					      uint64_t bytes, uint64_t flags);

/** Sums over all stripes; moves on while others change the table. O(stripes). */
struct hx_mapper_counters hx_pagetable_counters(const struct hx_pagetable *t);

struct hx_translation {
	hx_status status; /* HX_OK, NOT_MAPPED, INVALID_ADDRESS, NOT_INITIALIZED */
	struct hx_pa pa;  /* of the very byte */
	uint64_t flags;   /* HX_PAGE_*; HUGE above level 0 */
	unsigned level;   /* of the leaf; when NOT_MAPPED: where the walk ended */
};

/**
 * Walk for one address, any half. Sees the table before or after a concurrent
 * call, page by page; on a machine that wants break-before-make a leaf that is
 * just being split, folded or given another memory type may read as NOT_MAPPED.
 * Context: IRQ-safe, takes no lock.
 */
HX_NODISCARD struct hx_translation hx_translate(const struct hx_pagetable *t, struct hx_va va);

/**
 * Translate @p pages pages from @p va on, any half, into leaves[0..pages): the address of
 * each page with the flags below bit 12 and NO_EXECUTE left out; 0 where nothing is mapped.
 * Sees each page before or after a concurrent call, as hx_translate() does.
 * @return HX_OK; INVALID_ALIGNMENT, INVALID_SIZE (0), INVALID_ADDRESS (wraps or not
 *         canonical), INVALID_ARGUMENT (no room), NOT_INITIALIZED: leaves[] unchanged
 * Context: IRQ-safe, takes no lock
 * Cost:    one descent a leaf table, then one load and one store a page
 */
HX_NODISCARD hx_status hx_translate_range(const struct hx_pagetable *t, struct hx_va va,
					  uint64_t pages, uint64_t *leaves);

/**
 * The same for a range of the half that the table owns, with its marks: ACCESSED and
 * DIRTY stand in leaves[] as they were, and those in @p clear are cleared, in all of a
 * huge leaf that the range touches.
 * @return as hx_translate_range(), and INVALID_ADDRESS for the other half;
 *         INVALID_ARGUMENT (@p clear has other flags); NOT_SUPPORTED: marks are to be
 *         cleared that the machine would not set again
 * Context: IRQ-safe; locks the range; never sleeps
 * Cost:    one descent a leaf table; at most one shootdown, none when nothing was set and
 *          no leaf is above level 1
 */
HX_NODISCARD hx_status hx_harvest(struct hx_pagetable *t, struct hx_va va, uint64_t pages,
				  uint64_t clear, uint64_t *leaves);

/**
 * Make one leaf of each table, all of whose addresses are in the range, that maps what
 * one leaf could: neighbouring frames, aligned, all with the same flags. ACCESSED and
 * DIRTY of the parts become the whole's. Of other pages in the range, make groups.
 * @return HX_OK, whatever there was to do; as hx_unmap(); NOT_SUPPORTED (a table
 *         without huge leaves)
 * Context: IRQ-safe; locks the range; never sleeps
 * Cost:    a look at every entry; a shootdown for each leaf that is made, two in the
 *          kernel's table where break-before-make and absence may be cached
 * Source:  superpage promotion (Navarro et al. 2002)
 */
HX_NODISCARD hx_status hx_fold(struct hx_pagetable *t, struct hx_va va, uint64_t bytes);

/**
 * Forget cached translations of the range on every CPU that has the table loaded.
 * @return INVALID_ALIGNMENT, INVALID_SIZE, INVALID_ADDRESS, NOT_INITIALIZED
 */
HX_NODISCARD hx_status hx_flush(struct hx_pagetable *t, struct hx_va va, uint64_t bytes);
/** Forget all of the table's translations, GLOBAL ones when it is the kernel's. */
void hx_flush_all(struct hx_pagetable *t);

/** Called for every leaf in address order; false stops the walk. */
typedef bool (*hx_leaf_fn)(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
			   uint64_t flags);
/**
 * Visit the leaves of the whole table (the shared kernel half too); hidden pages
 * come without PRESENT. Takes no lock: the caller keeps changes away.
 */
void hx_pagetable_visit(const struct hx_pagetable *t, hx_leaf_fn visit, void *context);

/**
 * Walk everything that the table owns: reserved encodings, misaligned and unreachable
 * leaves, empty tables, tables that are no frames of ours (by the database when
 * there is one, else by the zones), tables lost or linked twice, or remembered
 * where there is none (leaf_table), the half that it does not own, GLOBAL leaves in
 * a user table, writable and executable leaves under W^X. HX_OK or CORRUPTED;
 * NOT_INITIALIZED.
 * Context: locks all of the table. Cost: O(tables)
 */
HX_NODISCARD hx_status hx_pagetable_validate(struct hx_pagetable *t);

/** First byte behind the user half: user ranges lie in [0, this). */
uintptr_t hx_user_end(void);
/** Lowest address of the kernel half: the direct map starts there. */
uintptr_t hx_kernel_start(void);

/* ---- Shootdown: used by the mapper; here for tests and other layers ---- */

/**
 * Invalidate on this CPU (if it is in @p cpus) and on every other CPU in
 * @p cpus; returns when all have. Serves this CPU's own pending requests while
 * it waits, and so does hx_lock_acquire(): initiators that cross, or that hold a
 * lock that their target waits for, cannot deadlock.
 * @return number of other CPUs that had to do something
 * Context: any, also with interrupts off and locks held
 */
unsigned hx_tlb_shootdown(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus);

#endif
