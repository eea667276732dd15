/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Audits: what the TLBs hold against what the tables say.
 *
 * An entry is stale when it grants what the tables that its CPU runs do not: it
 * names another frame, or has more rights, another memory type, or (where a change
 * of size needs a break) another size. It can be used when it is GLOBAL or has the
 * ASID that its CPU runs; one of another ASID can after a load that keeps it.
 */
#include "sim_cpu.h"

#define CACHE_BITS (HX_PAGE_WRITE_THROUGH | HX_PAGE_NO_CACHE)

/* Of the page's parts, from byte @at of it to what @now covers. */
static bool part_exceeds(const struct sim_entry *e, uint64_t at, const struct sim_translation *now)
{
	const uint64_t grants = HX_PAGE_WRITABLE | HX_PAGE_USER;
	uint64_t offset = (e->va + at) & (sim_level_bytes(now->level) - 1);
	return !now->present || ((e->flags ^ now->flags) & CACHE_BITS) != 0 ||
	       (e->flags & ~now->flags & grants) != 0 ||
	       (~e->flags & now->flags & HX_PAGE_NO_EXECUTE) != 0 ||
	       e->pa + at != now->pa + offset ||
	       (sim_feature(HX_MMU_BREAK_BEFORE_MAKE) && now->level != e->level);
}

bool sim_exceeds(struct hx_pa root, const struct sim_entry *e)
{
	if (e->kind == SIM_TABLE) {
		return e->pa != sim_consult(root, e->va).tables[e->level];
	}
	uint64_t step, bytes = e->kind == SIM_PAGE ? sim_level_bytes(e->level) : 0;
	for (uint64_t at = 0; at < bytes; at += step) {
		struct sim_translation now = sim_consult(root, e->va + at);
		if (part_exceeds(e, at, &now)) {
			return true;
		}
		step = sim_level_bytes(now.level < e->level ? now.level : e->level);
	}
	return false;
}

static bool is_stale(const struct sim_cpu *cpu, const struct sim_entry *e)
{
	return sim_usable(e, cpu->asid) && sim_exceeds(cpu->root, e);
}

/* Entries of all CPUs for which @wanted holds; their tables do not change meanwhile. */
static unsigned count_entries(bool (*wanted)(const struct sim_cpu *cpu, const struct sim_entry *e,
					     const void *argument),
			      const void *argument)
{
	unsigned found = 0, end = __atomic_load_n(&sim_cpus_end, __ATOMIC_ACQUIRE);
	for (unsigned k = 0; k < end; k++) {
		struct sim_cpu *cpu = &sim_cpus[k];
		pthread_mutex_lock(&cpu->lock);
		for (uint32_t i = 0; cpu->root_loaded && i < cpu->tlb.high; i++) {
			const struct sim_entry *e = &cpu->tlb.entries[i];
			found += e->kind != SIM_FREE && wanted(cpu, e, argument);
		}
		pthread_mutex_unlock(&cpu->lock);
	}
	return found;
}

static bool wants_stale(const struct sim_cpu *cpu, const struct sim_entry *e, const void *argument)
{
	(void)argument;
	return is_stale(cpu, e);
}

unsigned hx_sim_audit(void)
{
	return count_entries(wants_stale, NULL);
}

struct space {
	struct hx_pa root;
	uint16_t asid;
};

static bool wants_kept(const struct sim_cpu *cpu, const struct sim_entry *e, const void *argument)
{
	const struct space *s = argument;
	(void)cpu;
	return e->asid == s->asid && sim_exceeds(s->root, e);
}

unsigned hx_sim_audit_asid(struct hx_pa root, uint16_t asid)
{
	return count_entries(wants_kept, &(struct space){root, asid});
}

/* ---- Frames ---- */

/* The kernel's map of all memory names every frame, and rightly so. */
static bool is_direct(const struct sim_entry *e)
{
	uint64_t kernel = ~UINT64_C(0) << (hx_hal_geometry.va_bits - 1);
	return e->va - kernel == e->pa;
}

static bool names(const struct sim_entry *e, uint64_t pa)
{
	if (e->kind == SIM_TABLE) {
		return e->pa == pa;
	}
	return e->kind == SIM_PAGE && pa - e->pa < sim_level_bytes(e->level);
}

/*
 * Calls @found for the usable entries that name the frame until it returns true.
 */
static bool find_naming(const struct sim_cpu *cpu, uint64_t pa,
			bool (*found)(const struct sim_cpu *cpu, const struct sim_entry *e))
{
	const struct sim_tlb *t = &cpu->tlb;
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t first = hx_align_down(pa, sim_level_bytes(level));
		for (uint32_t i = t->by_pa[sim_bucket(level, first)]; i != SIM_NONE;
		     i = t->entries[i].next_by_pa) {
			const struct sim_entry *e = &t->entries[i];
			if (names(e, pa) && sim_usable(e, cpu->asid) && found(cpu, e)) {
				return true;
			}
		}
	}
	return false;
}

static bool any(const struct sim_cpu *cpu, const struct sim_entry *e)
{
	(void)cpu;
	(void)e;
	return true;
}

/* It is stale, or the frame goes while it is still mapped. */
static bool reaches_released(const struct sim_cpu *cpu, const struct sim_entry *e)
{
	return !is_direct(e) || is_stale(cpu, e);
}

static bool audit_frame(struct hx_pfn frame,
			bool (*wrong)(const struct sim_cpu *cpu, const struct sim_entry *e))
{
	bool found = false;
	unsigned end = __atomic_load_n(&sim_cpus_end, __ATOMIC_ACQUIRE);
	for (unsigned i = 0; i < end && !found; i++) {
		struct sim_cpu *cpu = &sim_cpus[i];
		pthread_mutex_lock(&cpu->lock);
		found = cpu->root_loaded && (cpu->root.v == hx_pfn_to_pa(frame).v ||
					     find_naming(cpu, hx_pfn_to_pa(frame).v, wrong));
		pthread_mutex_unlock(&cpu->lock);
	}
	return found;
}

bool hx_sim_audit_frame(struct hx_pfn frame)
{
	return audit_frame(frame, any);
}

struct frames {
	uint64_t first, last;
};

static bool wants_released(const struct sim_cpu *cpu, const struct sim_entry *e,
			   const void *argument)
{
	const struct frames *f = argument;
	uint64_t bytes = e->kind == SIM_TABLE ? HX_FRAME_BYTES : sim_level_bytes(e->level);
	return e->kind != SIM_ABSENT && e->pa <= f->last && e->pa + (bytes - 1) >= f->first &&
	       sim_usable(e, cpu->asid) && reaches_released(cpu, e);
}

unsigned hx_sim_audit_release(struct hx_pfn first, uint64_t count)
{
	if (count == 1) {
		return audit_frame(first, reaches_released);
	}
	uint64_t base = hx_pfn_to_pa(first).v;
	return count_entries(wants_released,
			     &(struct frames){base, base + count * HX_FRAME_BYTES - 1});
}
