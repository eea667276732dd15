/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/hal.h - the whole architecture contract.
 *
 * A port is a folder hal/<port>/ with
 *   hx_port.h   static inline bodies of the functions marked [inline] below,
 *               found through the include path that Meson sets
 *   pte.h       geometry and PTE codec, pure C without a privileged instruction
 * and the rest in *.c and *.S. hal/PORTING.md lists them in the order in which to
 * write them, hal/template is a port that compiles and supports nothing.
 *
 * The port translates and executes; it decides nothing. Walking, splitting,
 * gathering, CPU masks, ASID generations, thresholds and the order
 *
 *      unhook -> invalidate on every CPU that may hold it -> free
 *
 * are portable code's. Context: every function may be called with interrupts
 * on or off and takes no lock, unless its comment says otherwise.
 */
#ifndef HX_HAL_H
#define HX_HAL_H

#include <hx/units.h>

/* ---- Page flags: architecture-independent word, translated by the codec ---- */

#define HX_PAGE_PRESENT       (UINT64_C(1) << 0)
#define HX_PAGE_WRITABLE      (UINT64_C(1) << 1)
#define HX_PAGE_USER          (UINT64_C(1) << 2)
#define HX_PAGE_WRITE_THROUGH (UINT64_C(1) << 3) /* neither of these two: write-back */
#define HX_PAGE_NO_CACHE      (UINT64_C(1) << 4) /* alone: device; both: write-combining */
#define HX_PAGE_ACCESSED      (UINT64_C(1) << 5)
#define HX_PAGE_DIRTY         (UINT64_C(1) << 6)
#define HX_PAGE_HUGE          (UINT64_C(1) << 7) /* out: leaf above level 0 */
#define HX_PAGE_GLOBAL        (UINT64_C(1) << 8)
#define HX_PAGE_NO_EXECUTE    (UINT64_C(1) << 63)

#define HX_PAGE_KERNEL_READ  (HX_PAGE_PRESENT)
#define HX_PAGE_KERNEL_WRITE (HX_PAGE_PRESENT | HX_PAGE_WRITABLE)
#define HX_PAGE_KERNEL_CODE  (HX_PAGE_PRESENT)
#define HX_PAGE_USER_READ    (HX_PAGE_PRESENT | HX_PAGE_USER)
#define HX_PAGE_USER_WRITE   (HX_PAGE_PRESENT | HX_PAGE_USER | HX_PAGE_WRITABLE)
#define HX_PAGE_USER_CODE    (HX_PAGE_PRESENT | HX_PAGE_USER)

/* ---- Geometry: what the MMU looks like, fixed after hx_hal_mmu_init() ---- */

enum { HX_LEVELS_MAX = 5 };
#define HX_MMU_BREAK_BEFORE_MAKE (1u << 0) /* invalidate between two valid values */
#define HX_MMU_NEGATIVE_CACHING  (1u << 1) /* absent entries may be cached */
#define HX_MMU_HARDWARE_AD       (1u << 2) /* the machine sets ACCESSED and DIRTY */
#define HX_MMU_BROADCAST         (1u << 3) /* tlb_broadcast reaches other CPUs by itself */
#define HX_MMU_NO_EXECUTE        (1u << 4) /* NO_EXECUTE is enforced */
#define HX_MMU_EXECUTE_ONLY      (1u << 5) /* executable without readable exists */
#define HX_MMU_USER_GUARD        (1u << 6) /* kernel mode: no USER code, data by user_access */
#define HX_MMU_MEMORY_TYPES      (1u << 7) /* the cache flags rule; else the machine's map does */

/*
 * Level 0 is the table whose entries map single pages; the root is level
 * levels - 1. A virtual address is  | sign | idx[levels-1] .. idx[0] | offset |
 * with bits[l] index bits at level l and page_shift offset bits. Addresses are
 * canonical: bits va_bits and up repeat bit va_bits - 1; the half with that bit
 * clear is the user's.
 */
struct hx_geometry {
	uint8_t levels;     /* 2..HX_LEVELS_MAX */
	uint8_t page_shift; /* log2 of the page size in bytes: 12 */
	uint8_t va_bits;    /* page_shift + all bits[] */
	uint8_t pa_bits;    /* physical addresses are below 2^pa_bits */
	uint8_t asid_bits;  /* 0: no address-space identifiers */
	uint8_t leaf_levels; /* bit l set: a leaf is legal at level l */
	uint8_t group_bits;  /* log2 of the leaves in a group (see the codec); 0: no groups */
	uint8_t bits[HX_LEVELS_MAX];
	uint32_t features; /* HX_MMU_* */
};

extern struct hx_geometry hx_hal_geometry;

/* ---- Page-table entries: the codec (pte.h) ---- */

typedef uint64_t hx_pte; /* 0 is EMPTY in every port, and nothing else is */
enum hx_pte_kind {
	HX_PTE_EMPTY, /* maps nothing */
	HX_PTE_SOFT,  /* maps nothing, carries a payload of portable code */
	HX_PTE_TABLE, /* names the table of the level below */
	HX_PTE_LEAF,  /* maps a page of its level's size */
};

/* [inline] hx_pte hx_hal_pte_prot(uint64_t flags, unsigned level);
 *     the attribute bits of a leaf at @level; ACCESSED and DIRTY as given
 * [inline] hx_pte hx_hal_pte_leaf(struct hx_pa pa, hx_pte prot, unsigned level);
 *     pa must be aligned to the level's size and below 2^pa_bits
 * [inline] hx_pte hx_hal_pte_table(struct hx_pa pa);
 * [inline] enum hx_pte_kind hx_hal_pte_kind(hx_pte e, unsigned level);  total
 * [inline] struct hx_pa hx_hal_pte_pa(hx_pte e, unsigned level);  TABLE, LEAF
 * [inline] uint64_t hx_hal_pte_flags(hx_pte e, unsigned level);   LEAF;
 *     inverse of pte_prot; HUGE is set when level > 0
 * [inline] hx_pte hx_hal_pte_soft(uint64_t payload);
 *     payload < 2^HX_SOFT_BITS; never present, and no address bit of it names
 *     low memory (a speculating CPU may follow it)
 * [inline] uint64_t hx_hal_pte_payload(hx_pte e);  SOFT
 *
 * Groups: with group_bits > 0 the machine may cache 2^group_bits leaves of level 0 as one,
 * or all of them when it reads one, if each bears a sign. They are neighbours in their table,
 * an aligned array, map neighbouring frames, aligned alike, have the same flags, and are
 * settled: ACCESSED, and DIRTY or not WRITABLE, so that a machine with HARDWARE_AD sets no
 * mark in one of them alone. No groups with BREAK_BEFORE_MAKE.
 * [inline, optional] hx_pte hx_hal_pte_group(hx_pte e);  macro
 *     what stands for the leaf @e in a group: never a LEAF by its kind
 * [inline, optional] hx_pte hx_hal_pte_plain(hx_pte e, const hx_pte *p);
 *     the leaf that @e, which stands at @p, is by itself; anything else as it is
 *
 * [inline] hx_pte hx_hal_pte_raw(const hx_pte *p);   acquire; as it stands
 * [inline] hx_pte hx_hal_pte_load(const hx_pte *p);  acquire; plain
 * [inline] void hx_hal_pte_store(hx_pte *p, hx_pte e);          release
 * [inline] hx_pte hx_hal_pte_exchange(hx_pte *p, hx_pte e);     acquire-release
 * [inline] bool hx_hal_pte_update(hx_pte *p, hx_pte *expected, hx_pte desired);
 *     compare and exchange; false: *expected holds what stood there. Live leaves
 *     change only by exchange and update: no ACCESSED or DIRTY bit is lost. Both
 *     know entries as they stand
 * [inline] void hx_hal_pt_publish(void);
 *     after a batch of EMPTY or SOFT -> valid stores: makes them visible to
 *     this CPU's walker (a fence where absence may be cached, else nothing). With
 *     NEGATIVE_CACHING or BREAK_BEFORE_MAKE walkers may see no plain store before
 *     it or a TLB operation of the CPU that stored
 * [inline, optional] void hx_hal_pt_publish_page(struct hx_va va);
 *     the same for one leaf of level 0; absence of a table above it may stay cached
 */
enum { HX_SOFT_BITS = 48 };

/* ---- TLB ---- */

enum { HX_ASID_KERNEL = 0 };
/*
 * What to forget: @pages pages of the size of level @level from @va in address
 * space @asid, the one that the CPU has loaded unless @global is set. pages == 0
 * means the whole address space. @tables: table frames were unhooked in the range,
 * so cached upper-level entries must go too. @global: the range is of the kernel
 * half, which every address space shows: entries marked GLOBAL go as well and, with
 * pages == 0 or @tables, those of every address space. Single pages that are not
 * GLOBAL may stay in those not loaded: with asid_bits > 0 the kernel half has none.
 */
struct hx_tlb_range {
	struct hx_va va;
	uint64_t pages;
	uint16_t asid;
	uint8_t level;
	bool tables;
	bool global;
};

/** Invalidate @n ranges on this CPU. Cost: O(pages) or one full flush. */
void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n);
/* [inline, optional] void hx_hal_tlb_page(struct hx_va va, uint16_t asid, bool global);
 *     the same for one leaf of level 0; @asid is loaded, or @global set
 */

/**
 * Invalidate @n ranges on the other CPUs in @cpus (this one's bit is ignored).
 * @return true when every one of them has done so; false when the port cannot,
 *         and the caller must send hx_hal_ipi_tlb() and wait
 */
HX_NODISCARD bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n,
				       struct hx_cpus cpus);

/**
 * Make @root the page table of this CPU under @asid, below 2^asid_bits.
 * @param keep  true: translations cached for @asid are still right; false: forget
 *              them, GLOBAL ones excepted. Without identifiers nothing is kept
 */
void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep);

/* ---- Discovery: the firmware's own words, unsorted and unchecked ---- */

enum hx_memory_type {
	HX_MEMORY_RAM,
	HX_MEMORY_ROM,
	HX_MEMORY_DEVICE,
	HX_MEMORY_RESERVED,
	HX_MEMORY_ACPI,     /* ACPI tables, reclaimable once read */
	HX_MEMORY_FIRMWARE, /* firmware's run-time data, ACPI NVS, boot blobs */
	HX_MEMORY_BAD,      /* reported defective */
	HX_MEMORY_KERNEL,
	HX_MEMORY_INITRD,
	HX_MEMORY_FRAMEBUFFER,
	HX_MEMORY_TYPES,
};

struct hx_memory_range {
	struct hx_pa base;
	uint64_t bytes; /* base + bytes may wrap: the caller checks */
	enum hx_memory_type type;
	uint32_t node;
};

struct hx_cpu_info {
	uint64_t hardware_id; /* hart id, APIC id */
	uint32_t node;
	bool boot; /* this one runs already */
};

/**
 * Read the next range of the firmware's map, initrd and boot blobs included.
 * @param iterator  0 at first; the port's afterwards
 * @return false at the end (*out unchanged)
 */
HX_NODISCARD bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out);

/** The same for the CPUs that the firmware names as usable. */
HX_NODISCARD bool hx_hal_cpu_next(uint32_t *iterator, struct hx_cpu_info *out);

/* ---- CPU services ---- */

enum hx_access { HX_ACCESS_READ, HX_ACCESS_WRITE, HX_ACCESS_EXECUTE };

enum hx_fault_cause {
	HX_FAULT_UNKNOWN,    /* the machine does not say: walk the table */
	HX_FAULT_MISSING,    /* no valid translation */
	HX_FAULT_PROTECTION, /* a translation that refuses the access */
};

struct hx_fault {
	struct hx_va va; /* the address that faulted */
	struct hx_va pc;
	enum hx_access access;
	enum hx_fault_cause cause;
	bool user, user_access; /* the CPU was in user mode; else: could touch USER pages */
};

/* [inline] unsigned hx_hal_cpu_id(void);        logical, 0..HX_CPUS_MAX-1
 * [inline] unsigned long hx_hal_irq_save(void);  interrupts off; old state
 * [inline] void hx_hal_irq_restore(unsigned long state);
 * [inline] void hx_hal_relax(void);              in spin loops
 * [inline] void hx_hal_user_access(bool allowed); supervisor may touch USER pages
 */

/** Interrupt the CPUs in @cpus so that each calls hx_upcall_tlb_ipi(). */
void hx_hal_ipi_tlb(struct hx_cpus cpus);

/* [optional] void hx_hal_cpu_barrier(struct hx_cpus cpus);  macro
 *     all of them have passed a full memory barrier when it returns; else they are interrupted
 */

/** Read the trap frame of the port's trap entry: false when it is no page fault. */
HX_NODISCARD bool hx_hal_fault_decode(const void *frame, struct hx_fault *out);

/** Turn this CPU's paging features on; the boot CPU's call fills the geometry. */
void hx_hal_mmu_init(void);

/**
 * Added to a physical address gives the pointer through which the kernel
 * reaches it. Set by the port before anything else runs. On boards it is the
 * direct map's base (the lowest address of the kernel half), already so under
 * the port's boot tables, at least for physical addresses below
 * hx_hal_boot_window_bytes; from stage 5 on for all of RAM.
 */
extern uintptr_t hx_hal_direct_offset;
extern uint64_t hx_hal_boot_window_bytes;

/* ---- Upcalls: portable code defines them, ports and platforms call them ---- */

/**
 * @return true when the fault is resolved and the access is to be retried; also
 *         when it was spurious (the CPU had cached fewer rights, or absence)
 */
bool hx_upcall_fault(const struct hx_fault *fault);

/** Runs the pending invalidations of this CPU; interrupts are off. */
void hx_upcall_tlb_ipi(void);

#include <hx_port.h>

/* ---- Optional operations: a port that has one defines it as a macro ---- */

#ifndef hx_hal_pt_publish_page
static HX_ALWAYS_INLINE void hx_hal_pt_publish_page(struct hx_va va)
{
	(void)va;
	hx_hal_pt_publish();
}
#endif

#ifndef hx_hal_tlb_page
static inline void hx_hal_tlb_page(struct hx_va va, uint16_t asid, bool global)
{
	const struct hx_tlb_range r = {.va = va, .pages = 1, .asid = asid, .global = global};
	hx_hal_tlb_local(&r, 1);
}
#endif

#endif
