/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/space.h - an address space per process: regions, POSIX mmap, munmap,
 * mprotect and brk, demand-zero memory.
 *
 * The space's regions stand in a balanced tree ordered by address, augmented
 * with the largest gap in each subtree; equal neighbours are joined. Pages
 * appear when they are touched: hx_space_fault() fills them.
 *
 * Every call looks at its arguments first, then at the token, then at the space;
 * one that fails has changed nothing. A space that is not initialised answers
 * NOT_INITIALIZED.
 *
 * Rights. Whatever can be accessed can be read: WRITE and EXEC include READ. Under
 * W^X (config.wx) WRITE with EXEC loses EXEC or is refused. Pages of a NONE region
 * keep their contents, but neither user mode nor the kernel reaches them.
 *
 *   0 .. HX_SPACE_LOW_BYTES   never mapped
 *     .. brk start ->         the heap segment, grows up
 *   <- mmap base ..           mmap places top down
 *   hx_user_end() - one page  never mapped (the last page of the half)
 */
#ifndef HX_SPACE_H
#define HX_SPACE_H

#include <hx/capability.h>
#include <hx/heap.h>
#include <hx/mapper.h>

/* The numbers are Linux's, so that a system-call layer passes them through. */
#define HX_PROT_NONE  0u
#define HX_PROT_READ  1u
#define HX_PROT_WRITE 2u
#define HX_PROT_EXEC  4u

#define HX_MAP_SHARED          0x01u
#define HX_MAP_PRIVATE         0x02u
#define HX_MAP_FIXED           0x10u
#define HX_MAP_ANONYMOUS       0x20u
#define HX_MAP_FIXED_NOREPLACE 0x100000u

#define HX_SPACE_LOW_BYTES HX_KIB(64) /* lowest address that can be mapped */

struct hx_region {
	struct hx_region *parent, *left, *right;
	uintptr_t start, end;   /* bytes, whole pages; end exclusive */
	uintptr_t gap_below;    /* free bytes between the previous region and start */
	uintptr_t largest_gap;  /* maximum of gap_below in this subtree */
	uint8_t prot;           /* HX_PROT_* */
	uint8_t height;
	uint8_t flags;          /* HX_REGION_* */
};

#define HX_REGION_HEAP 1u /* the brk segment */

struct hx_space_stats {
	uint64_t regions;
	uint64_t mapped_bytes;   /* of all regions */
	uint64_t resident_pages; /* frames that the space holds */
	uint64_t faults;         /* resolved */
	uint64_t faults_refused;
};

struct hx_space {
	struct hx_pagetable table;
	struct hx_region *tree;
	struct hx_frames *frames;
	struct hx_framedb *db;
	struct hx_heap *heap; /* region records come from here */
	struct hx_capability_table *capabilities;
	uint32_t region_limit;
	uintptr_t brk_start, brk; /* bytes; brk_start is a page boundary */
	struct hx_lock lock;
	struct hx_space_stats stats;
};

struct hx_space_config {
	struct hx_frames *frames;
	struct hx_framedb *db; /* may be NULL */
	struct hx_heap *heap;
	struct hx_pagetable *kernel; /* sealed; its half is shared */
	/** NULL: capabilities are off and every token is accepted. */
	struct hx_capability_table *capabilities;
	enum hx_wx_policy wx;
	uint32_t region_limit; /* 0: 65530 */
	struct hx_va brk_start; /* 0: 4 GiB / a quarter of the user half if smaller */
};

/**
 * Make an empty space. With capabilities on, its owner creates the first token:
 * hx_capability_create(table, s, rights).
 * @return INVALID_ARGUMENT (NULL; frames, heap or kernel missing), NOT_INITIALIZED
 *         (kernel not sealed), INVALID_ALIGNMENT, INVALID_ADDRESS (brk_start),
 *         OUT_OF_MEMORY
 */
HX_NODISCARD hx_status hx_space_init(struct hx_space *s, const struct hx_space_config *c);
/**
 * Free every page, table and region, and revoke every token over the space.
 * Nobody else may be using it.
 * @return BUSY while it is loaded on a CPU
 * Cost: O(pages + regions), with interrupts off
 */
HX_NODISCARD hx_status hx_space_destroy(struct hx_space *s);
/**
 * Make it this CPU's user half; NULL: the kernel's table alone (then kernel code touches
 * no user address: hx_pagetable_load()).
 * @param kernel  the table that the CPU runs on without a space
 */
void hx_space_load(struct hx_space *s, struct hx_pagetable *kernel);
/** The space that this CPU runs, NULL for none. */
struct hx_space *hx_space_current(void);

/**
 * POSIX mmap: anonymous private memory, zero-filled on first touch.
 * @param hint    wanted address, rounded down to a page (and up to the lowest one);
 *                not wholly free there, or 0: the highest place that is. FIXED
 *                takes exactly it, replacing what is there
 * @param bytes   rounded up to whole pages
 * @param prot    HX_PROT_*; NONE makes a guard
 * @param flags   ANONYMOUS | PRIVATE, and FIXED or FIXED_NOREPLACE
 * @param object  NULL (memory objects: not yet) @param offset page multiple
 * @return the address; INVALID_SIZE (0, or larger than user space),
 *         INVALID_ARGUMENT (flags, prot), INVALID_ALIGNMENT (FIXED, offset),
 *         INVALID_ADDRESS (FIXED outside user space), ALREADY_MAPPED (NOREPLACE),
 *         PERMISSION_DENIED (token, W^X refuse), NOT_SUPPORTED (SHARED, object),
 *         OUT_OF_MEMORY (no gap, region limit, records): nothing changed
 * Rights:  MAP; EXECUTE with PROT_EXEC; UNMAP with FIXED
 * Context: takes the space's lock; pressure for records runs without it
 * Cost:    O(log regions); FIXED as hx_munmap()
 * Source:  behaviour POSIX.1-2024 and Linux mmap(2); tree.c names the tree's
 */
HX_NODISCARD struct hx_va_result hx_mmap(struct hx_space *s, struct hx_token token,
					 struct hx_va hint, uint64_t bytes, unsigned prot,
					 unsigned flags, void *object, uint64_t offset);

/**
 * POSIX munmap: remove every page of the range; holes are no error. Splits
 * regions at the edges. Every page freed is invalid on all CPUs on return.
 * @return INVALID_ALIGNMENT, INVALID_SIZE (0), INVALID_ADDRESS, PERMISSION_DENIED,
 *         OUT_OF_MEMORY (a split needs a record or exceeds the region limit)
 * Rights:  UNMAP
 * Context: as hx_mmap()
 * Cost:    O(regions in the range x log regions + pages), one TLB shootdown
 */
HX_NODISCARD hx_status hx_munmap(struct hx_space *s, struct hx_token token, struct hx_va va,
				 uint64_t bytes);

/**
 * POSIX mprotect: change rights of every page of the range; contents stay.
 * @return INVALID_ALIGNMENT, INVALID_ARGUMENT (prot), INVALID_ADDRESS (wraps,
 *         kernel), NOT_MAPPED (a hole: nothing changed), PERMISSION_DENIED,
 *         OUT_OF_MEMORY; bytes == 0 is HX_OK
 * Rights:  PROTECT; EXECUTE with PROT_EXEC
 * Context: as hx_mmap(); no CPU has a right that was taken when it returns
 * Cost:    as hx_munmap()
 */
HX_NODISCARD hx_status hx_mprotect(struct hx_space *s, struct hx_token token, struct hx_va va,
				   uint64_t bytes, unsigned prot);

/**
 * Move the break. The value is the break after the call, also on failure, as
 * Linux returns it; below the start of the heap segment: unchanged, HX_OK.
 * Growth adds zeroed READ | WRITE pages; going down unmaps whatever is there.
 * @return OUT_OF_MEMORY when the way up is blocked (one page stays free) or records
 *         lack; NOT_MAPPED when nothing at all is mapped on the way down;
 *         PERMISSION_DENIED
 * Rights:  MAP upwards, UNMAP downwards; a live token to ask
 * Context: as hx_mmap()
 */
HX_NODISCARD struct hx_va_result hx_brk(struct hx_space *s, struct hx_token token, struct hx_va to);

struct hx_region_info {
	hx_status status; /* HX_OK, else NOT_MAPPED or PERMISSION_DENIED and the rest 0 */
	struct hx_va start;
	uint64_t bytes;
	unsigned prot;
	unsigned flags; /* HX_REGION_* */
};
/** The region that holds @p va. Rights: QUERY. Cost: O(log regions) */
HX_NODISCARD struct hx_region_info hx_space_lookup(struct hx_space *s, struct hx_token token,
						   struct hx_va va);

/**
 * Resolve a fault in the user half: demand zero, or tell why not.
 * @return HX_OK: retry the access; NOT_MAPPED (no region: SIGSEGV MAPERR);
 *         PERMISSION_DENIED (region refuses it: ACCERR; also a kernel access that
 *         did not ask for user memory, or would execute it); OUT_OF_MEMORY;
 *         INVALID_ADDRESS (kernel half); CORRUPTED (page table against regions)
 * Context: interrupts off or on; takes the space's lock; pressure runs without it
 * Cost:    O(log regions), one page zeroed
 */
HX_NODISCARD hx_status hx_space_fault(struct hx_space *s, const struct hx_fault *fault);

void hx_space_stats(struct hx_space *s, struct hx_space_stats *out);
/** Tree order, balance, gaps, canonical form, region count, page table, residency. */
HX_NODISCARD hx_status hx_space_validate(struct hx_space *s);

/** Last fault on this CPU that hx_upcall_fault() could not resolve, with its status. */
struct hx_fault_record {
	struct hx_fault fault;
	hx_status status;
};
const struct hx_fault_record *hx_fault_last(void);

#endif
