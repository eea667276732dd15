/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated MMU: page-table walks with the port's codec, and a TLB that
 * keeps whatever the contract lets it keep. sim.h says how bad it is.
 *
 * Three kinds of fact are cached, all tagged with the ASID and the level (so the
 * size) of the page-table entry that they come from: pages, table pointers
 * (paging-structure caches) and, where the geometry says so, absence. They
 * stand in three hash tables with chains: by (level, virtual address) for accesses
 * and flushes, by (level, physical address) for audits, by the entry that they
 * come from for break-before-make. Facts that contradict each other stand side by
 * side until they are flushed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_cpu.h"

/* x86 marks table entries as accessed too; RISC-V reserves that bit in them. */
#ifdef HX_SIM_CODEC_X86_64
#define TABLE_ACCESSED HX_X86_A
#define FAULT_FLUSHES true /* of the address that faulted (SDM 3, 4.10.4.1) */
#else
#define TABLE_ACCESSED UINT64_C(0)
#define FAULT_FLUSHES false
#endif
#if defined(HX_SIM_CODEC_X86_64) || defined(HX_SIM_CODEC_BBM) || defined(HX_SIM_CODEC_AARCH64)
#define FAULT_SAYS_CAUSE true
#else
#define FAULT_SAYS_CAUSE false
#endif

#ifdef HX_RV_N
#define GROUP_SIGN (HX_RV_N | HX_RV_V)
#else
#define GROUP_SIGN UINT64_C(0)
#endif

#define CACHE_BITS (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)

static void (*on_stale)(const struct hx_sim_stale *s);

/* ---- Addresses ---- */

static unsigned level_shift(unsigned level)
{
	unsigned shift = hx_hal_geometry.page_shift;
	for (unsigned l = 0; l < level; l++) {
		shift += hx_hal_geometry.bits[l];
	}
	return shift;
}

uint64_t sim_level_bytes(unsigned level)
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
	       hx_is_aligned(pa, sim_level_bytes(level)) && pa >> hx_hal_geometry.pa_bits == 0;
}

/* ---- The TLB's memory ---- */

unsigned sim_bucket(unsigned level, uint64_t address)
{
	/* It is unsigned. NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult) */
	uint64_t h = (address >> 12 ^ (uint64_t)level << 56) * UINT64_C(0x9e3779b97f4a7c15);
	return (unsigned)(h >> 52) & (SIM_BUCKETS - 1);
}

/* Tables are single frames, whatever the level of the entry that names them. */
static unsigned pa_bucket(const struct sim_entry *e)
{
	return e->kind == SIM_TABLE ? sim_bucket(0, e->pa) : sim_bucket(e->level, e->pa);
}

void sim_tlb_reset(struct sim_tlb *t)
{
	free(t->entries);
	memset(t, 0, sizeof *t);
	memset(t->by_va, 0xff, sizeof t->by_va);
	memset(t->by_pa, 0xff, sizeof t->by_pa);
	memset(t->by_source, 0xff, sizeof t->by_source);
	t->free = SIM_NONE;
}

static bool same(const struct sim_entry *a, const struct sim_entry *b)
{
	return a->va == b->va && a->pa == b->pa && a->asid == b->asid && a->level == b->level &&
	       a->kind == b->kind && a->source == b->source &&
	       ((a->flags ^ b->flags) & ~HX_PAGE_DIRTY) == 0;
}

/*
 * Two pages of one address with different sizes, frames or types: where valid
 * entries must be broken before they change, the TLB may abort, or answer with a
 * mixture of both.
 */
static void look_for_conflict(struct sim_cpu *cpu, const struct sim_entry *new)
{
	const struct sim_tlb *t = &cpu->tlb;
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t va = hx_align_down(new->va, sim_level_bytes(level));
		for (uint32_t i = t->by_va[sim_bucket(level, va)]; i != SIM_NONE;
		     i = t->entries[i].next_by_va) {
			const struct sim_entry *e = &t->entries[i];
			if (e->kind != SIM_PAGE || e->va != va || e->level != level ||
			    !sim_usable(e, cpu->asid) ||
			    (level == new->level && e->pa == new->pa &&
			     ((e->flags ^ new->flags) & CACHE_BITS) == 0 &&
			     !(new->flags & ~e->flags &HX_PAGE_GLOBAL))) {
				continue;
			}
			sim_count(&sim_counters.conflicts);
			sim_report(&(struct hx_sim_stale){
				.cpu = cpu->id,
				.conflict = true,
				.va = hx_va(new->va),
				.present = true,
				.used = hx_pa(e->pa),
				.now = hx_pa(new->pa),
				.used_flags = e->flags,
				.now_flags = new->flags,
			});
		}
	}
}

static void insert(struct sim_cpu *cpu, const struct sim_entry *new)
{
	struct sim_tlb *t = &cpu->tlb;
	uint32_t *va_chain = &t->by_va[sim_bucket(new->level, new->va)];
	for (uint32_t i = *va_chain; i != SIM_NONE; i = t->entries[i].next_by_va) {
		if (same(&t->entries[i], new)) {
			t->entries[i].flags |= new->flags;
			return;
		}
	}
	if (new->kind == SIM_PAGE && sim_feature(HX_MMU_BREAK_BEFORE_MAKE)) {
		look_for_conflict(cpu, new);
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
	uint32_t *source_chain = &t->by_source[sim_source_bucket(e->source)];
	e->next_by_va = *va_chain;
	e->next_by_pa = *pa_chain;
	e->next_by_source = *source_chain;
	*va_chain = *pa_chain = *source_chain = slot;
	t->live++;
}

static void drop(struct sim_tlb *t, uint32_t slot)
{
	struct sim_entry *e = &t->entries[slot];
	uint32_t *link = &t->by_va[sim_bucket(e->level, e->va)];
	while (*link != slot) {
		link = &t->entries[*link].next_by_va;
	}
	*link = e->next_by_va;
	link = &t->by_pa[pa_bucket(e)];
	while (*link != slot) {
		link = &t->entries[*link].next_by_pa;
	}
	*link = e->next_by_pa;
	link = &t->by_source[sim_source_bucket(e->source)];
	while (*link != slot) {
		link = &t->entries[*link].next_by_source;
	}
	*link = e->next_by_source;
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

bool sim_usable(const struct sim_entry *e, uint16_t asid)
{
	return e->asid == asid || is_global(e);
}

/* ---- Flushes ---- */

/* Does one of the addresses va, va + stride, ... lie inside the entry? */
static bool range_hits(const struct sim_entry *e, const struct hx_tlb_range *r)
{
	uint64_t stride = sim_level_bytes(r->level), last = sim_level_bytes(e->level) - 1;
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
	return r->va.v <= e->va + (sim_level_bytes(e->level) - 1) && e->va <= last;
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
		uint64_t va = hx_align_down(r->va.v, sim_level_bytes(level));
		for (uint32_t i = t->by_va[sim_bucket(level, va)], next; i != SIM_NONE; i = next) {
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
				r.va.v += sim_level_bytes(r.level);
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

void hx_hal_user_access(bool allowed)
{
	sim_this_cpu()->user_access = allowed;
}

/* ---- Walks ---- */

enum { NO_TABLE = 1 };

struct sim_translation sim_consult(struct hx_pa root, uint64_t va)
{
	struct sim_translation t = {.level = hx_hal_geometry.levels - 1u};
	for (unsigned l = 0; l < HX_LEVELS_MAX; l++) {
		t.tables[l] = NO_TABLE;
	}
	for (uint64_t table = root.v;; t.level--) {
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
	if (!r->user && user_page && sim_feature(HX_MMU_USER_GUARD) &&
	    (r->access == HX_ACCESS_EXECUTE || !cpu->user_access)) {
		return false;
	}
	switch (r->access) {
	case HX_ACCESS_WRITE:
		return (flags & HX_PAGE_WRITABLE) != 0;
	case HX_ACCESS_EXECUTE:
		return !(flags & HX_PAGE_NO_EXECUTE) || !sim_feature(HX_MMU_NO_EXECUTE);
	case HX_ACCESS_READ:
		break;
	}
	return true;
}

/* Does the cached page grant something that the tables, as they are now, do not? */
static bool exceeds(const struct sim_cpu *cpu, const struct sim_entry *e,
		    const struct sim_translation *now, const struct hx_sim_reference *r)
{
	uint64_t offset = r->va.v & (sim_level_bytes(e->level) - 1);
	return !now->present || ((e->flags ^ now->flags) & CACHE_BITS) != 0 ||
	       !allows(cpu, now->flags, r) ||
	       e->pa + offset != now->pa + (r->va.v & (sim_level_bytes(now->level) - 1));
}

void sim_report(const struct hx_sim_stale *s)
{
	sim_count(&sim_counters.stale_uses);
	void (*to)(const struct hx_sim_stale *) = __atomic_load_n(&on_stale, __ATOMIC_ACQUIRE);
	if (to != NULL) {
		to(s);
		return;
	}
	if (s->reserved) {
		fprintf(stderr, "sim: CPU %u finds a false group for 0x%llx\n", s->cpu,
			(unsigned long long)s->va.v);
		return;
	}
	fprintf(stderr, "sim: CPU %u %s a stale %s for 0x%llx: 0x%llx, now %s0x%llx\n", s->cpu,
		s->conflict ? "has" : "uses", s->table ? "table" : "page",
		(unsigned long long)s->va.v, (unsigned long long)s->used.v,
		s->present ? "" : "absent ", (unsigned long long)s->now.v);
}

void hx_sim_on_stale(void (*report_to)(const struct hx_sim_stale *s))
{
	__atomic_store_n(&on_stale, report_to, __ATOMIC_RELEASE);
}

static void report_use(const struct sim_cpu *cpu, const struct hx_sim_reference *r,
		       const struct sim_entry *e, const struct sim_translation *now)
{
	sim_report(&(struct hx_sim_stale){
		.cpu = cpu->id,
		.va = r->va,
		.access = r->access,
		.table = e->kind == SIM_TABLE,
		.present = now->present,
		.used = hx_pa(e->pa),
		.now = hx_pa(e->kind == SIM_TABLE ? now->tables[e->level] : now->pa),
		.used_flags = e->flags,
		.now_flags = now->flags,
	});
}

/*
 * The walker's own update of an entry that it read as @e; it is coherent, so it
 * also shows a store that was late. @return false when it was another one
 */
static bool mark(struct sim_cpu *cpu, hx_pte *p, hx_pte e, hx_pte marked)
{
	if (__atomic_compare_exchange_n(p, &e, marked, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		return true;
	}
	sim_walker_sees(cpu, p);
	return false;
}

/* What the walker makes of @e at @p: a leaf of a group as a plain one, SOFT of a false group. */
static hx_pte understand(const struct sim_cpu *cpu, hx_pte e, const hx_pte *p, unsigned level,
			 uint64_t va)
{
	hx_pte leaf = hx_hal_pte_plain(e, p);
	bool has_sign = GROUP_SIGN != 0 && (e & GROUP_SIGN) == GROUP_SIGN;
	if (has_sign && (leaf == e || level > 0)) {
		sim_report(&(struct hx_sim_stale){
			.cpu = cpu->id, .reserved = true, .va = hx_va((uintptr_t)va)});
		return hx_hal_pte_soft(0);
	}
	return leaf;
}

/* A leaf; one of a group says what the others should say, and stands for them. */
static void insert_leaf(struct sim_cpu *cpu, const struct sim_entry *leaf, bool grouped)
{
	struct sim_entry each = *leaf;
	const unsigned count = grouped ? 1u << hx_hal_geometry.group_bits : 1;
	const uint64_t bytes = sim_level_bytes(leaf->level);
	const uint64_t before = leaf->va & (count * bytes - 1);
	each.va -= before;
	each.pa -= before;
	each.source -= before / bytes;
	for (unsigned i = 0; i < count; i++) {
		insert(cpu, &each);
		each.va += bytes;
		each.pa += bytes;
		each.source++;
	}
}

/*
 * Where the walk begins: at an out-of-date table pointer if one is cached, else
 * at the deepest one that is cached, else at the root.
 */
static uint64_t walk_start(struct sim_cpu *cpu, const struct hx_sim_reference *r,
			   const struct sim_translation *now, unsigned *level)
{
	const struct sim_tlb *t = &cpu->tlb;
	uint64_t table = cpu->root.v;
	*level = hx_hal_geometry.levels - 1u;
	for (unsigned l = hx_hal_geometry.levels - 1u; l > 0; l--) {
		uint64_t va = hx_align_down(r->va.v, sim_level_bytes(l));
		for (uint32_t i = t->by_va[sim_bucket(l, va)]; i != SIM_NONE;
		     i = t->entries[i].next_by_va) {
			const struct sim_entry *e = &t->entries[i];
			if (e->kind != SIM_TABLE || e->va != va || e->level != l ||
			    e->asid != cpu->asid) {
				continue;
			}
			table = e->pa;
			*level = l - 1;
			if (e->pa != now->tables[l]) {
				report_use(cpu, r, e, now);
				return table;
			}
		}
	}
	return table;
}

/* ---- What is fetched ahead ---- */

static uint64_t random_below(struct sim_cpu *cpu, uint64_t n)
{
	cpu->random = cpu->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (cpu->random >> 33) % n;
}

/* May the walker keep the table entry, or leaf, though no instruction asked for it? */
static bool may_be_kept(hx_pte *p, hx_pte *e, hx_pte accessed)
{
	if ((*e & accessed) == accessed) {
		return true;
	}
	if (!sim_switches.speculative_accessed || !sim_feature(HX_MMU_HARDWARE_AD)) {
		return false;
	}
	*e |= accessed;
	hx_pte expected = *e & ~accessed;
	return __atomic_compare_exchange_n(p, &expected, *e, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_RELAXED);
}

/*
 * Keep what the entry @p of @level for @va says, if the architecture lets the
 * walker: valid entries that are marked ACCESSED already (or that it may mark), and
 * absence. @return the next table, 0 at the end
 */
static uint64_t keep(struct sim_cpu *cpu, hx_pte *p, unsigned level, uint64_t va)
{
	bool late = false;
	hx_pte raw = sim_walker_load(cpu, p, &late), e = understand(cpu, raw, p, level, va);
	enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
	struct sim_entry fact = {
		.va = va & ~(sim_level_bytes(level) - 1),
		.source = p,
		.asid = cpu->asid,
		.level = (uint8_t)level,
	};
	hx_pte accessed = kind == HX_PTE_TABLE ? TABLE_ACCESSED
					       : hx_hal_pte_prot(HX_PAGE_ACCESSED, level) &
							 ~hx_hal_pte_prot(0, level);
	if (kind == HX_PTE_TABLE || (kind == HX_PTE_LEAF && leaf_is_legal(e, level))) {
		bool grouped = raw != e;
		if (late ? (e & accessed) != accessed : !may_be_kept(p, &e, accessed)) {
			return 0;
		}
		fact.kind = kind == HX_PTE_TABLE ? SIM_TABLE : SIM_PAGE;
		fact.pa = hx_hal_pte_pa(e, level).v;
		fact.flags = kind == HX_PTE_TABLE ? 0 : hx_hal_pte_flags(e, level);
		insert_leaf(cpu, &fact, grouped);
		return kind == HX_PTE_TABLE ? fact.pa : 0;
	}
	if (sim_feature(HX_MMU_NEGATIVE_CACHING)) {
		fact.kind = SIM_ABSENT;
		insert(cpu, &fact);
	}
	return 0;
}

/* The walker has read a whole cache line of the table: it may keep the leaf's neighbours. */
static void fetch_line(struct sim_cpu *cpu, hx_pte *p, const struct sim_entry *leaf)
{
	enum { LINE = 64 / sizeof(hx_pte) };
	unsigned mine = (uintptr_t)p / sizeof *p % LINE;
	for (unsigned i = 0; i < LINE; i++) {
		hx_pte e = hx_hal_pte_load(p - mine + i);
		if (i != mine && hx_hal_pte_kind(e, leaf->level) == HX_PTE_LEAF) {
			(void)keep(cpu, p - mine + i, leaf->level,
				   leaf->va + ((uint64_t)i - mine) * sim_level_bytes(leaf->level));
		}
	}
}

/* As if an instruction that is then not executed had touched @va. */
static void fetch_address(struct sim_cpu *cpu, uint64_t va)
{
	uint64_t table = cpu->root.v;
	for (unsigned level = hx_hal_geometry.levels - 1u; table != 0; level--) {
		hx_pte *p = entry_at(table, level, va);
		table = keep(cpu, p, level, va);
	}
}

/*
 * Anything reachable: from the root, or from a table that is still cached, down
 * through entries that are picked at random among those that are not empty.
 */
static void fetch_anything(struct sim_cpu *cpu)
{
	uint64_t table = cpu->root.v, va = 0;
	unsigned level = hx_hal_geometry.levels - 1u;
	if (cpu->tlb.high > 0 && random_below(cpu, 2) == 0) {
		const struct sim_entry *e = &cpu->tlb.entries[random_below(cpu, cpu->tlb.high)];
		if (e->kind == SIM_TABLE && e->asid == cpu->asid) {
			table = e->pa;
			va = e->va;
			level = e->level - 1u;
		}
	}
	for (; table != 0; level--) {
		unsigned n = 1u << hx_hal_geometry.bits[level];
		unsigned first = (unsigned)random_below(cpu, n), i = first;
		hx_pte *entries = entry_at(table, level, 0);
		while (hx_hal_pte_load(&entries[i]) == 0) {
			i = (i + 1) % n;
			if (i == first) {
				break;
			}
		}
		/* Entries stand in clusters: not always the first of one. */
		for (uint64_t skip = random_below(cpu, 16);
		     skip > 0 && hx_hal_pte_load(&entries[(i + 1) % n]) != 0; skip--) {
			i = (i + 1) % n;
		}
		va += (uint64_t)i * sim_level_bytes(level);
		if (level == hx_hal_geometry.levels - 1u && i >= n / 2) { /* the kernel half */
			va |= ~UINT64_C(0) << (hx_hal_geometry.va_bits - 1);
		}
		table = keep(cpu, &entries[i], level, va);
	}
}

/* ... once in @n times. */
static void fetch_sometimes(struct sim_cpu *cpu, unsigned n)
{
	if (sim_switches.prefetch && cpu->root_loaded && random_below(cpu, n) == 0) {
		fetch_anything(cpu);
	}
}

/* What has just been forgotten is fetched anew, as it stands in the tables now. */
static void fetch_again(struct sim_cpu *cpu, const struct hx_tlb_range *ranges, unsigned n)
{
	for (unsigned i = 0; sim_switches.prefetch && cpu->root_loaded && i < n; i++) {
		const struct hx_tlb_range *r = &ranges[i];
		if (r->pages == 0) {
			fetch_anything(cpu);
		} else if (r->asid == cpu->asid || r->global) {
			uint64_t page = sim_level_bytes(r->level);
			fetch_address(cpu, r->va.v);
			fetch_address(cpu, r->va.v + random_below(cpu, r->pages) * page);
			fetch_address(cpu, r->va.v + (r->pages - 1) * page);
		}
	}
}

/* ---- Walks ---- */

enum outcome { DONE, FAULT_MISSING, FAULT_PROTECTION };

/*
 * Walk as the machine does: fill the TLB, set ACCESSED and DIRTY. @late is set when
 * a store that was not visible yet was passed over.
 */
static enum outcome walk(struct sim_cpu *cpu, const struct hx_sim_reference *r,
			 const struct sim_translation *now, struct sim_entry *out, bool *late)
{
	sim_count(&sim_counters.walks);
	unsigned level;
	uint64_t table = walk_start(cpu, r, now, &level);
	for (;;) {
		hx_pte *p = entry_at(table, level, r->va.v);
		hx_pte raw = sim_walker_load(cpu, p, late), marked = raw;
		hx_pte e = understand(cpu, raw, p, level, r->va.v);
		struct sim_entry fact = {
			.va = hx_align_down(r->va.v, sim_level_bytes(level)),
			.source = p,
			.asid = cpu->asid,
			.level = (uint8_t)level,
		};
		enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
		if (kind == HX_PTE_TABLE) {
			marked |= TABLE_ACCESSED;
			if (marked != raw && !mark(cpu, p, raw, marked)) {
				continue; /* it changed meanwhile: look again */
			}
			fact.kind = SIM_TABLE;
			fact.pa = table = hx_hal_pte_pa(e, level).v;
			insert(cpu, &fact);
			level--;
			continue;
		}
		if (kind != HX_PTE_LEAF || !leaf_is_legal(e, level)) {
			if (sim_feature(HX_MMU_NEGATIVE_CACHING)) {
				fact.kind = SIM_ABSENT;
				insert(cpu, &fact);
			}
			return FAULT_MISSING;
		}
		fact.kind = SIM_PAGE;
		fact.pa = hx_hal_pte_pa(e, level).v;
		fact.flags = hx_hal_pte_flags(e, level);
		uint64_t wanted =
			HX_PAGE_ACCESSED | (r->access == HX_ACCESS_WRITE ? HX_PAGE_DIRTY : 0);
		bool allowed = allows(cpu, fact.flags, r);
		if (!allowed ||
		    ((fact.flags & wanted) != wanted && !sim_feature(HX_MMU_HARDWARE_AD))) {
			insert_leaf(cpu, &fact, raw != e); /* a refusal is cached as well */
			return FAULT_PROTECTION;
		}
		marked |= hx_hal_pte_prot(wanted, level) & ~hx_hal_pte_prot(0, level);
		if (marked != raw && !mark(cpu, p, raw, marked)) {
			continue;
		}
		fact.flags |= wanted;
		insert_leaf(cpu, &fact, raw != e);
		fetch_line(cpu, p, &fact);
		*out = fact;
		return DONE;
	}
}

/* ---- Accesses ---- */

/* The cached page, or refusal, that serves @r worst; otherwise a walk. */
static enum outcome translate(struct sim_cpu *cpu, const struct hx_sim_reference *r,
			      const struct sim_translation *now, struct sim_entry *out)
{
	struct sim_tlb *t = &cpu->tlb;
	uint64_t wanted = HX_PAGE_ACCESSED | (r->access == HX_ACCESS_WRITE ? HX_PAGE_DIRTY : 0);
	const struct sim_entry *good = NULL;
	bool refused = false, absent = false;
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t va = hx_align_down(r->va.v, sim_level_bytes(level));
		for (uint32_t i = t->by_va[sim_bucket(level, va)]; i != SIM_NONE;
		     i = t->entries[i].next_by_va) {
			const struct sim_entry *e = &t->entries[i];
			if (e->va != va || e->level != level || !sim_usable(e, cpu->asid)) {
				continue;
			}
			if (e->kind == SIM_ABSENT) {
				absent = true;
			} else if (e->kind == SIM_PAGE && !allows(cpu, e->flags, r)) {
				refused = true;
			} else if (e->kind == SIM_PAGE && (e->flags & wanted) == wanted) {
				if (exceeds(cpu, e, now, r)) {
					report_use(cpu, r, e, now);
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
	bool late = false;
	enum outcome outcome = walk(cpu, r, now, out, &late);
	if (outcome == DONE && late) {
		struct sim_translation visible = sim_consult(cpu->root, r->va.v);
		if (exceeds(cpu, out, &visible, r)) {
			report_use(cpu, r, out, &visible);
		}
	}
	return outcome;
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
		struct sim_translation now = sim_consult(cpu->root, r->va.v);
		struct sim_entry used;
		fetch_sometimes(cpu, 16);
		outcome = translate(cpu, r, &now, &used);
		if (outcome == DONE) {
			r->pa = hx_pa(used.pa + (r->va.v & (sim_level_bytes(used.level) - 1)));
			transfer(r);
		} else {
			uint64_t wanted = sim_feature(HX_MMU_HARDWARE_AD) ? 0
					  : r->access == HX_ACCESS_WRITE
						  ? HX_PAGE_ACCESSED | HX_PAGE_DIRTY
						  : HX_PAGE_ACCESSED;
			if (now.present && allows(cpu, now.flags, r) &&
			    (now.flags & wanted) == wanted) {
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
		.user_access = cpu->user_access || !sim_feature(HX_MMU_USER_GUARD),
		.cause = !FAULT_SAYS_CAUSE             ? HX_FAULT_UNKNOWN
			 : outcome == FAULT_PROTECTION ? HX_FAULT_PROTECTION
						       : HX_FAULT_MISSING,
	};
	return false;
}

/* ---- Operations ---- */

static void flush_cpu(struct sim_cpu *cpu, const struct hx_tlb_range *ranges, unsigned n)
{
	pthread_mutex_lock(&cpu->lock);
	flush(&cpu->tlb, ranges, n);
	fetch_again(cpu, ranges, n);
	pthread_mutex_unlock(&cpu->lock);
}

void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	struct sim_cpu *cpu = sim_this_cpu();
	sim_count(&sim_counters.local_flushes);
	sim_step();
	sim_publish(cpu);
	flush_cpu(cpu, ranges, n);
	sim_step();
}

bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	if (!sim_feature(HX_MMU_BROADCAST)) {
		return false;
	}
	const struct sim_cpu *me = sim_this_cpu();
	sim_count(&sim_counters.broadcasts);
	sim_step();
	sim_publish(me);
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		if (hx_cpus_has(cpus, i) && i != me->id) {
			sim_publish(&sim_cpus[i]);
			flush_cpu(&sim_cpus[i], ranges, n);
		}
	}
	sim_step();
	return true;
}

void sim_forget_absence(struct sim_cpu *cpu)
{
	if (!sim_feature(HX_MMU_NEGATIVE_CACHING)) {
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

/* The caller says that all that is cached for the ASID is still right: is it? */
static void look_for_stale(const struct sim_cpu *cpu)
{
	for (uint32_t i = 0; i < cpu->tlb.high; i++) {
		const struct sim_entry *e = &cpu->tlb.entries[i];
		if (e->asid != cpu->asid || !sim_exceeds(cpu->root, e)) {
			continue;
		}
		struct sim_translation now = sim_consult(cpu->root, e->va);
		sim_report(&(struct hx_sim_stale){
			.cpu = cpu->id,
			.kept = true,
			.va = hx_va(e->va),
			.table = e->kind == SIM_TABLE,
			.present = now.present,
			.used = hx_pa(e->pa),
			.now = hx_pa(e->kind == SIM_TABLE ? now.tables[e->level] : now.pa),
			.used_flags = e->flags,
			.now_flags = now.flags,
		});
	}
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
	sim_step();
	if (!keep) {
		sim_publish(cpu);
	}
	pthread_mutex_lock(&cpu->lock);
	cpu->root = root;
	cpu->asid = asid;
	cpu->root_loaded = true;
	if (!keep) {
		flush(&cpu->tlb, &(struct hx_tlb_range){.asid = asid}, 1);
	} else {
		look_for_stale(cpu);
	}
	fetch_sometimes(cpu, 2);
	pthread_mutex_unlock(&cpu->lock);
	sim_step();
}
