/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated MMU: page-table walks with the port's codec, and a TLB that
 * keeps whatever the contract lets it keep. sim.h says how bad it is.
 *
 * Three kinds of fact are cached, all tagged with the ASID and the level (so the
 * size) of the page-table entry that they come from: pages, table pointers
 * (paging-structure caches) and, where the geometry says so, absence. They
 * stand in two hash tables with chains: by (level, virtual address) for accesses
 * and flushes, by (level, physical address) for audits. Facts that contradict
 * each other stand side by side until they are flushed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_cpu.h"

/* x86 marks table entries as accessed too; RISC-V reserves that bit in them. */
#ifdef HX_SIM_CODEC_X86_64
#define TABLE_ACCESSED HX_X86_A
#define FAULT_FLUSHES true /* of the address that faulted (SDM 3, 4.10.4.1) */
#define FAULT_SAYS_CAUSE true
#else
#define TABLE_ACCESSED UINT64_C(0)
#define FAULT_FLUSHES false
#define FAULT_SAYS_CAUSE false
#endif

#define CACHE_BITS (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)

static void (*on_stale)(const struct hx_sim_stale *s);

static bool feature(uint32_t f)
{
	return (hx_hal_geometry.features & f) != 0;
}

/* ---- Addresses ---- */

static unsigned level_shift(unsigned level)
{
	unsigned shift = hx_hal_geometry.page_shift;
	for (unsigned l = 0; l < level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	return shift;
}

static uint64_t level_bytes(unsigned level)
{
	return UINT64_C(1) << level_shift(level);
}

static bool canonical(uint64_t va)
{
	uint64_t high = va >> (hx_hal_geometry.va_bits - 1);
	return high == 0 || high == UINT64_MAX >> (hx_hal_geometry.va_bits - 1);
}

static hx_pte *entry_at(uint64_t table, unsigned level, uint64_t va)
{
	uint64_t mask = (UINT64_C(1) << hx_hal_geometry.bits[level]) - 1;
	uint64_t pa = table + (va >> level_shift(level) & mask) * sizeof(hx_pte);
	if (!hx_sim_has_memory(hx_pa(pa), sizeof(hx_pte))) {
		sim_die("the walk for 0x%llx reads a table at 0x%llx, where no memory is",
			(unsigned long long)va, (unsigned long long)pa);
	}
	return (hx_pte *)((uintptr_t)pa + hx_hal_direct_offset);
}

/* A leaf that the machine accepts: at a level that has leaves, aligned, reachable. */
static bool leaf_is_legal(hx_pte e, unsigned level)
{
	uint64_t pa = hx_hal_pte_pa(e, level).v;
	return (hx_hal_geometry.leaf_levels >> level & 1) &&
	       hx_is_aligned(pa, level_bytes(level)) && pa >> hx_hal_geometry.pa_bits == 0;
}

/* ---- The TLB's memory ---- */

static unsigned bucket(unsigned level, uint64_t address)
{
	/* It is unsigned. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
	uint64_t h = (address >> 12 ^ (uint64_t)level << 56) * UINT64_C(0x9e3779b97f4a7c15);
	return (unsigned)(h >> 52) & (SIM_BUCKETS - 1);
}

/* Tables are single frames, whatever the level of the entry that names them. */
static unsigned pa_bucket(const struct sim_entry *e)
{
	return e->kind == SIM_TABLE ? bucket(0, e->pa) : bucket(e->level, e->pa);
}

void sim_tlb_reset(struct sim_tlb *t)
{
	free(t->entries);
	memset(t, 0, sizeof *t);
	memset(t->by_va, 0xff, sizeof t->by_va);
	memset(t->by_pa, 0xff, sizeof t->by_pa);
	t->free = SIM_NONE;
}

static bool same(const struct sim_entry *a, const struct sim_entry *b)
{
	return a->va == b->va && a->pa == b->pa && a->asid == b->asid && a->level == b->level &&
	       a->kind == b->kind && ((a->flags ^ b->flags) & ~HX_PAGE_DIRTY) == 0;
}

static void insert(struct sim_tlb *t, const struct sim_entry *new)
{
	uint32_t *va_chain = &t->by_va[bucket(new->level, new->va)];
	for (uint32_t i = *va_chain; i != SIM_NONE; i = t->entries[i].next_by_va) {
		if (same(&t->entries[i], new)) {
			t->entries[i].flags |= new->flags;
			return;
		}
	}
	uint32_t slot = t->free;
	if (slot != SIM_NONE) {
		t->free = t->entries[slot].next_by_va;
	} else {
		if (t->high == t->capacity) {
			uint32_t capacity = t->capacity == 0 ? 256 : 2 * t->capacity;
			struct sim_entry *more = realloc(t->entries, capacity * sizeof *more);
			if (more == NULL) {
				sim_die("no memory for a TLB of %u entries", capacity);
			}
			t->entries = more;
			t->capacity = capacity;
		}
		slot = t->high++;
	}
	struct sim_entry *e = &t->entries[slot];
	*e = *new;
	uint32_t *pa_chain = &t->by_pa[pa_bucket(e)];
	e->next_by_va = *va_chain;
	e->next_by_pa = *pa_chain;
	*va_chain = *pa_chain = slot;
	t->live++;
}

static void drop(struct sim_tlb *t, uint32_t slot)
{
	struct sim_entry *e = &t->entries[slot];
	uint32_t *link = &t->by_va[bucket(e->level, e->va)];
	while (*link != slot) {
		link = &t->entries[*link].next_by_va;
	}
	*link = e->next_by_va;
	link = &t->by_pa[pa_bucket(e)];
	while (*link != slot) {
		link = &t->entries[*link].next_by_pa;
	}
	*link = e->next_by_pa;
	e->kind = SIM_FREE;
	e->next_by_va = t->free;
	t->free = slot;
	if (--t->live == 0) { /* nothing is chained: start over at the bottom */
		t->high = 0;
		t->free = SIM_NONE;
	}
}

static bool is_global(const struct sim_entry *e)
{
	return e->kind == SIM_PAGE && (e->flags & HX_PAGE_GLOBAL);
}

/* Can the CPU use the entry while it runs this ASID? */
static bool usable(const struct sim_entry *e, uint16_t asid)
{
	return e->asid == asid || is_global(e);
}

/* ---- Flushes ---- */

/* Does one of the addresses va, va + stride, ... lie inside the entry? */
static bool range_hits(const struct sim_entry *e, const struct hx_tlb_range *r)
{
	uint64_t stride = level_bytes(r->level), last = level_bytes(e->level) - 1;
	if (r->va.v >= e->va) {
		return r->va.v - e->va <= last;
	}
	uint64_t steps = (e->va - r->va.v + stride - 1) / stride;
	return steps < r->pages && r->va.v + steps * stride - e->va <= last;
}

/* Does any byte of the range lie inside the entry? */
static bool range_overlaps(const struct sim_entry *e, const struct hx_tlb_range *r)
{
	uint64_t last = r->va.v + (r->pages << level_shift(r->level)) - 1;
	return r->va.v <= e->va + (level_bytes(e->level) - 1) && e->va <= last;
}

static bool forgets(const struct sim_entry *e, const struct hx_tlb_range *r)
{
	if (!r->global && (e->asid != r->asid || is_global(e))) {
		return false;
	}
	if (r->pages == 0) {
		return true;
	}
	switch ((enum sim_entry_kind)e->kind) {
	case SIM_PAGE:
		return range_hits(e, r);
	case SIM_TABLE:
		return r->tables && range_overlaps(e, r);
	case SIM_ABSENT: /* an address names its page's own entry, not those above */
		return e->level == 0 ? range_hits(e, r) : r->tables && range_overlaps(e, r);
	case SIM_FREE:
		break;
	}
	return false;
}

static void flush_address(struct sim_tlb *t, const struct hx_tlb_range *r)
{
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t va = hx_align_down(r->va.v, level_bytes(level));
		for (uint32_t i = t->by_va[bucket(level, va)], next; i != SIM_NONE; i = next) {
			next = t->entries[i].next_by_va;
			if (t->entries[i].va == va && t->entries[i].level == level &&
			    forgets(&t->entries[i], r)) {
				drop(t, i);
			}
		}
	}
}

static void flush(struct sim_tlb *t, const struct hx_tlb_range *ranges, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		struct hx_tlb_range r = ranges[k];
		if (r.pages != 0 && r.pages <= 64 && !r.tables) {
			for (uint64_t left = r.pages; left > 0; left--) {
				r.pages = 1;
				flush_address(t, &r);
				r.va.v += level_bytes(r.level);
			}
			continue;
		}
		for (uint32_t i = 0; i < t->high; i++) {
			if (t->entries[i].kind != SIM_FREE && forgets(&t->entries[i], &r)) {
				drop(t, i);
			}
		}
	}
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	struct sim_cpu *cpu = sim_this_cpu();
	sim_count(&sim_counters.local_flushes);
	pthread_mutex_lock(&cpu->lock);
	flush(&cpu->tlb, ranges, n);
	pthread_mutex_unlock(&cpu->lock);
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	if (!feature(HX_MMU_BROADCAST)) {
		return false;
	}
	unsigned me = sim_this_cpu()->id;
	sim_count(&sim_counters.broadcasts);
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		if (hx_cpus_has(cpus, i) && i != me) {
			pthread_mutex_lock(&sim_cpus[i].lock);
			flush(&sim_cpus[i].tlb, ranges, n);
			pthread_mutex_unlock(&sim_cpus[i].lock);
		}
	}
	return true;
}

void hx_hal_pt_publish(void)
{
	struct sim_cpu *cpu = sim_this_cpu();
	if (!feature(HX_MMU_NEGATIVE_CACHING)) {
		return;
	}
	pthread_mutex_lock(&cpu->lock);
	struct sim_tlb *t = &cpu->tlb;
	for (uint32_t i = 0; i < t->high; i++) {
		if (t->entries[i].kind == SIM_ABSENT) {
			drop(t, i);
		}
	}
	pthread_mutex_unlock(&cpu->lock);
}

void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	struct sim_cpu *cpu = sim_this_cpu();
	if (!cpu->mmu_on) {
		sim_die("CPU %u loads a page table before hx_hal_mmu_init()", cpu->id);
	}
	if (asid >> hx_hal_geometry.asid_bits != 0) {
		sim_die("ASID %u has more than %u bits", asid, hx_hal_geometry.asid_bits);
	}
	if (!hx_is_aligned(root.v, HX_FRAME_BYTES) || !hx_sim_has_memory(root, HX_FRAME_BYTES)) {
		sim_die("the root 0x%llx is no frame of memory", (unsigned long long)root.v);
	}
	sim_count(&sim_counters.root_loads);
	pthread_mutex_lock(&cpu->lock);
	cpu->root = root;
	cpu->asid = asid;
	cpu->root_loaded = true;
	if (!keep) {
		flush(&cpu->tlb, &(struct hx_tlb_range){.asid = asid}, 1);
	}
	pthread_mutex_unlock(&cpu->lock);
}

void hx_hal_user_access(bool allowed)
{
	sim_this_cpu()->user_access = allowed;
}

/* ---- Walks ---- */

struct translation {
	bool present;
	unsigned level; /* of the last entry read */
	uint64_t pa;    /* of the page */
	uint64_t flags;
	uint64_t tables[HX_LEVELS_MAX]; /* [l]: the table that an entry of level l names; 1: none */
};

enum { NO_TABLE = 1 };

/* What the tables say now; changes nothing. */
static struct translation consult(const struct sim_cpu *cpu, uint64_t va)
{
	struct translation t = {.level = hx_hal_geometry.levels - 1u};
	for (unsigned l = 0; l < HX_LEVELS_MAX; l++) {
		t.tables[l] = NO_TABLE;
	}
	for (uint64_t table = cpu->root.v;; t.level--) {
		hx_pte e = hx_hal_pte_load(entry_at(table, t.level, va));
		switch (hx_hal_pte_kind(e, t.level)) {
		case HX_PTE_TABLE:
			table = t.tables[t.level] = hx_hal_pte_pa(e, t.level).v;
			continue;
		case HX_PTE_LEAF:
			t.present = leaf_is_legal(e, t.level);
			t.pa = hx_hal_pte_pa(e, t.level).v;
			t.flags = hx_hal_pte_flags(e, t.level);
			return t;
		case HX_PTE_EMPTY:
		case HX_PTE_SOFT:
			return t;
		}
	}
}

static bool allows(const struct sim_cpu *cpu, uint64_t flags, const struct hx_sim_reference *r)
{
	bool user_page = (flags & HX_PAGE_USER) != 0;
	if (r->user && !user_page) {
		return false;
	}
	if (!r->user && user_page && feature(HX_MMU_USER_GUARD) &&
	    (r->access == HX_ACCESS_EXECUTE || !cpu->user_access)) {
		return false;
	}
	switch (r->access) {
	case HX_ACCESS_WRITE:
		return (flags & HX_PAGE_WRITABLE) != 0;
	case HX_ACCESS_EXECUTE:
		return !(flags & HX_PAGE_NO_EXECUTE) || !feature(HX_MMU_NO_EXECUTE);
	case HX_ACCESS_READ:
		break;
	}
	return true;
}

/* Does the cached page grant something that the tables, as they are now, do not? */
static bool exceeds(const struct sim_cpu *cpu, const struct sim_entry *e,
		    const struct translation *now, const struct hx_sim_reference *r)
{
	uint64_t offset = r->va.v & (level_bytes(e->level) - 1);
	return !now->present || ((e->flags ^ now->flags) & CACHE_BITS) != 0 ||
	       !allows(cpu, now->flags, r) ||
	       e->pa + offset != now->pa + (r->va.v & (level_bytes(now->level) - 1));
}

static void report(const struct sim_cpu *cpu, const struct hx_sim_reference *r,
		   const struct sim_entry *e, const struct translation *now)
{
	struct hx_sim_stale s = {
		.cpu = cpu->id,
		.va = r->va,
		.access = r->access,
		.table = e->kind == SIM_TABLE,
		.present = now->present,
		.used = hx_pa(e->pa),
		.now = hx_pa(e->kind == SIM_TABLE ? now->tables[e->level] : now->pa),
		.used_flags = e->flags,
		.now_flags = now->flags,
	};
	sim_count(&sim_counters.stale_uses);
	void (*to)(const struct hx_sim_stale *) = __atomic_load_n(&on_stale, __ATOMIC_ACQUIRE);
	if (to != NULL) {
		to(&s);
		return;
	}
	fprintf(stderr, "sim: CPU %u uses a stale %s for 0x%llx: 0x%llx, now %s0x%llx\n", s.cpu,
		s.table ? "table" : "page", (unsigned long long)s.va.v,
		(unsigned long long)s.used.v, s.present ? "" : "absent ",
		(unsigned long long)s.now.v);
}

void hx_sim_on_stale(void (*report_to)(const struct hx_sim_stale *s))
{
	__atomic_store_n(&on_stale, report_to, __ATOMIC_RELEASE);
}

/*
 * Where the walk begins: at an out-of-date table pointer if one is cached, else
 * at the deepest one that is cached, else at the root.
 */
static uint64_t walk_start(struct sim_cpu *cpu, const struct hx_sim_reference *r,
			   const struct translation *now, unsigned *level)
{
	const struct sim_tlb *t = &cpu->tlb;
	uint64_t table = cpu->root.v;
	*level = hx_hal_geometry.levels - 1u;
	for (unsigned l = hx_hal_geometry.levels - 1u; l > 0; l--) {
		uint64_t va = hx_align_down(r->va.v, level_bytes(l));
		for (uint32_t i = t->by_va[bucket(l, va)]; i != SIM_NONE;
		     i = t->entries[i].next_by_va) {
			const struct sim_entry *e = &t->entries[i];
			if (e->kind != SIM_TABLE || e->va != va || e->level != l ||
			    e->asid != cpu->asid) {
				continue;
			}
			table = e->pa;
			*level = l - 1;
			if (e->pa != now->tables[l]) {
				report(cpu, r, e, now);
				return table;
			}
		}
	}
	return table;
}

/*
 * The walker has read a whole cache line of the table: it may keep the neighbours
 * of the leaf @p that need no mark, those that are ACCESSED already.
 */
static void prefetch(struct sim_cpu *cpu, const hx_pte *p, const struct sim_entry *leaf)
{
	enum { LINE = 64 / sizeof(hx_pte) };
	unsigned mine = (uintptr_t)p / sizeof *p % LINE;
	for (unsigned i = 0; i < LINE; i++) {
		hx_pte e = hx_hal_pte_load(p - mine + i);
		if (i == mine || hx_hal_pte_kind(e, leaf->level) != HX_PTE_LEAF ||
		    !leaf_is_legal(e, leaf->level)) {
			continue;
		}
		struct sim_entry neighbour = *leaf;
		neighbour.va = leaf->va + ((uint64_t)i - mine) * level_bytes(leaf->level);
		neighbour.pa = hx_hal_pte_pa(e, leaf->level).v;
		neighbour.flags = hx_hal_pte_flags(e, leaf->level);
		if (neighbour.flags & HX_PAGE_ACCESSED) {
			insert(&cpu->tlb, &neighbour);
		}
	}
}

enum outcome { DONE, FAULT_MISSING, FAULT_PROTECTION };

/* Walk as the machine does: fill the TLB, set ACCESSED and DIRTY. */
static enum outcome walk(struct sim_cpu *cpu, const struct hx_sim_reference *r,
			 const struct translation *now, struct sim_entry *out)
{
	sim_count(&sim_counters.walks);
	unsigned level;
	uint64_t table = walk_start(cpu, r, now, &level);
	for (;;) {
		hx_pte *p = entry_at(table, level, r->va.v);
		hx_pte e = hx_hal_pte_load(p), marked = e;
		struct sim_entry fact = {
			.va = hx_align_down(r->va.v, level_bytes(level)),
			.asid = cpu->asid,
			.level = (uint8_t)level,
		};
		enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
		if (kind == HX_PTE_TABLE) {
			marked |= TABLE_ACCESSED;
			if (marked != e && !hx_hal_pte_update(p, &e, marked)) {
				continue; /* it changed meanwhile: look again */
			}
			fact.kind = SIM_TABLE;
			fact.pa = table = hx_hal_pte_pa(e, level).v;
			insert(&cpu->tlb, &fact);
			level--;
			continue;
		}
		if (kind != HX_PTE_LEAF || !leaf_is_legal(e, level)) {
			if (feature(HX_MMU_NEGATIVE_CACHING)) {
				fact.kind = SIM_ABSENT;
				insert(&cpu->tlb, &fact);
			}
			return FAULT_MISSING;
		}
		fact.kind = SIM_PAGE;
		fact.pa = hx_hal_pte_pa(e, level).v;
		fact.flags = hx_hal_pte_flags(e, level);
		uint64_t wanted =
			HX_PAGE_ACCESSED | (r->access == HX_ACCESS_WRITE ? HX_PAGE_DIRTY : 0);
		bool allowed = allows(cpu, fact.flags, r);
		if (!allowed || ((fact.flags & wanted) != wanted && !feature(HX_MMU_HARDWARE_AD))) {
			insert(&cpu->tlb, &fact); /* a refusal is cached as well */
			return FAULT_PROTECTION;
		}
		marked |= hx_hal_pte_prot(wanted, level) & ~hx_hal_pte_prot(0, level);
		if (marked != e && !hx_hal_pte_update(p, &e, marked)) {
			continue;
		}
		fact.flags |= wanted;
		insert(&cpu->tlb, &fact);
		prefetch(cpu, p, &fact);
		*out = fact;
		return DONE;
	}
}

/* ---- Accesses ---- */

/* The cached page, or refusal, that serves @r worst; otherwise a walk. */
static enum outcome translate(struct sim_cpu *cpu, const struct hx_sim_reference *r,
			      const struct translation *now, struct sim_entry *out)
{
	struct sim_tlb *t = &cpu->tlb;
	uint64_t wanted = HX_PAGE_ACCESSED | (r->access == HX_ACCESS_WRITE ? HX_PAGE_DIRTY : 0);
	const struct sim_entry *good = NULL;
	bool refused = false, absent = false;
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t va = hx_align_down(r->va.v, level_bytes(level));
		for (uint32_t i = t->by_va[bucket(level, va)]; i != SIM_NONE;
		     i = t->entries[i].next_by_va) {
			const struct sim_entry *e = &t->entries[i];
			if (e->va != va || e->level != level || !usable(e, cpu->asid)) {
				continue;
			}
			if (e->kind == SIM_ABSENT) {
				absent = true;
			} else if (e->kind == SIM_PAGE && !allows(cpu, e->flags, r)) {
				refused = true;
			} else if (e->kind == SIM_PAGE && (e->flags & wanted) == wanted) {
				if (exceeds(cpu, e, now, r)) {
					report(cpu, r, e, now);
					*out = *e;
					return DONE;
				}
				good = e;
			}
		}
	}
	if (refused) {
		return FAULT_PROTECTION;
	}
	if (absent) {
		return FAULT_MISSING;
	}
	if (good != NULL) {
		*out = *good;
		return DONE;
	}
	return walk(cpu, r, now, out);
}

static void transfer(struct hx_sim_reference *r)
{
	if (!hx_sim_has_memory(r->pa, r->bytes)) {
		sim_die("0x%llx leads to physical address 0x%llx, where no memory is",
			(unsigned long long)r->va.v, (unsigned long long)r->pa.v);
	}
	uintptr_t at = (uintptr_t)r->pa.v + hx_hal_direct_offset;
	bool write = r->access == HX_ACCESS_WRITE;
#define TRANSFER(type)                                                                             \
	do {                                                                                       \
		if (write) {                                                                       \
			__atomic_store_n((type *)at, (type)r->value, __ATOMIC_RELAXED);            \
		} else {                                                                           \
			r->value = __atomic_load_n((type *)at, __ATOMIC_RELAXED);                  \
		}                                                                                  \
	} while (0)
	switch (r->bytes) {
	case 1:
		TRANSFER(uint8_t);
		break;
	case 2:
		TRANSFER(uint16_t);
		break;
	case 4:
		TRANSFER(uint32_t);
		break;
	default:
		TRANSFER(uint64_t);
		break;
	}
#undef TRANSFER
}

bool hx_sim_access(struct hx_sim_reference *r, struct hx_fault *fault)
{
	struct sim_cpu *cpu = sim_this_cpu();
	if ((r->bytes != 1 && r->bytes != 2 && r->bytes != 4 && r->bytes != 8) ||
	    !hx_is_aligned(r->va.v, r->bytes)) {
		sim_die("an access of %u bytes at 0x%llx", r->bytes, (unsigned long long)r->va.v);
	}
	sim_deliver(cpu);
	pthread_mutex_lock(&cpu->lock);
	if (!cpu->root_loaded) {
		sim_die("CPU %u touches 0x%llx without a page table", cpu->id,
			(unsigned long long)r->va.v);
	}
	enum outcome outcome = FAULT_MISSING;
	if (canonical(r->va.v)) {
		struct translation now = consult(cpu, r->va.v);
		struct sim_entry used;
		outcome = translate(cpu, r, &now, &used);
		if (outcome == DONE) {
			r->pa = hx_pa(used.pa + (r->va.v & (level_bytes(used.level) - 1)));
			transfer(r);
		} else {
			if (now.present && allows(cpu, now.flags, r) &&
			    (feature(HX_MMU_HARDWARE_AD))) {
				sim_count(&sim_counters.spurious_faults);
			}
			if (FAULT_FLUSHES) {
				struct hx_tlb_range all = {.va = r->va, .pages = 1, .tables = true};
				all.va.v = (uintptr_t)hx_align_down(r->va.v, HX_FRAME_BYTES);
				all.asid = cpu->asid;
				flush(&cpu->tlb, &all, 1);
				all.global = true;
				all.tables = false;
				flush(&cpu->tlb, &all, 1);
			}
		}
	}
	pthread_mutex_unlock(&cpu->lock);
	if (outcome == DONE) {
		return true;
	}
	*fault = (struct hx_fault){
		.va = r->va,
		.access = r->access,
		.user = r->user,
		.user_access = cpu->user_access || !feature(HX_MMU_USER_GUARD),
		.cause = !FAULT_SAYS_CAUSE             ? HX_FAULT_UNKNOWN
			 : outcome == FAULT_PROTECTION ? HX_FAULT_PROTECTION
						       : HX_FAULT_MISSING,
	};
	return false;
}

/* ---- Audits ---- */

static bool names_frame(const struct sim_cpu *cpu, struct hx_pa pa)
{
	const struct sim_tlb *t = &cpu->tlb;
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t first = hx_align_down(pa.v, level_bytes(level));
		for (uint32_t i = t->by_pa[bucket(level, first)]; i != SIM_NONE;
		     i = t->entries[i].next_by_pa) {
			const struct sim_entry *e = &t->entries[i];
			if (e->kind != SIM_ABSENT && e->pa == first && usable(e, cpu->asid) &&
			    (e->kind == SIM_TABLE ? level == 0 : e->level == level)) {
				return true;
			}
		}
	}
	return false;
}

bool hx_sim_audit_frame(struct hx_pfn frame)
{
	bool found = false;
	for (unsigned i = 0; i < HX_CPUS_MAX && !found; i++) {
		struct sim_cpu *cpu = &sim_cpus[i];
		pthread_mutex_lock(&cpu->lock);
		found = cpu->root_loaded && (cpu->root.v == hx_pfn_to_pa(frame).v ||
					     names_frame(cpu, hx_pfn_to_pa(frame)));
		pthread_mutex_unlock(&cpu->lock);
	}
	return found;
}

/* Does the cached page grant anything that the tables do not, in any part of it? */
static bool page_exceeds(const struct sim_cpu *cpu, const struct sim_entry *e)
{
	uint64_t step;
	for (uint64_t at = 0; at < level_bytes(e->level); at += step) {
		struct translation now = consult(cpu, e->va + at);
		uint64_t offset = (e->va + at) & (level_bytes(now.level) - 1);
		if (!now.present || ((e->flags ^ now.flags) & CACHE_BITS) != 0 ||
		    (e->flags & ~now.flags & (HX_PAGE_WRITABLE | HX_PAGE_USER)) != 0 ||
		    (~e->flags & now.flags & HX_PAGE_NO_EXECUTE) != 0 ||
		    e->pa + at != now.pa + offset) {
			return true;
		}
		step = level_bytes(now.level < e->level ? now.level : e->level);
	}
	return false;
}

unsigned hx_sim_audit(void)
{
	unsigned found = 0;
	for (unsigned k = 0; k < HX_CPUS_MAX; k++) {
		struct sim_cpu *cpu = &sim_cpus[k];
		pthread_mutex_lock(&cpu->lock);
		for (uint32_t i = 0; cpu->root_loaded && i < cpu->tlb.high; i++) {
			const struct sim_entry *e = &cpu->tlb.entries[i];
			if (e->kind == SIM_FREE || e->kind == SIM_ABSENT || !usable(e, cpu->asid)) {
				continue;
			}
			found += e->kind == SIM_PAGE
					 ? page_exceeds(cpu, e)
					 : e->pa != consult(cpu, e->va).tables[e->level];
		}
		pthread_mutex_unlock(&cpu->lock);
	}
	return found;
}
