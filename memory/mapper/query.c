/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * What reads the tables: translation of one address, a visit of all leaves, and
 * the validator.
 */
#include "internal.h"

/* ---- Translate ---- */

/*
 * The walk takes no lock, yet a table may be unhooked and its frame reused
 * meanwhile: then an entry read from it is anyone's data. `retirements` of the
 * address's stripe, in the table that owns the half, is raised after unhooking and
 * before the first frame is free. So an entry that was read before the number changed came
 * out of a table that was still ours, and may be followed; otherwise the walk starts over.
 * Source: the reader's side of a sequence lock (Lameter 2005; Boehm 2012 for the
 * order of the loads).
 *
 * @return false when it must start over; *end is the entry at which it ended
 */
static bool walk(const struct hx_pagetable *t, const uint32_t *retirements, uintptr_t va,
		 struct hx_translation *r, hx_pte *end)
{
	uint32_t before = __atomic_load_n(retirements, __ATOMIC_ACQUIRE);
	const hx_pte *table = hx_table_at(t->root);
	r->level = hx_root_level();
	for (unsigned shift = hx_level_shift(r->level);;) {
		unsigned index = (unsigned)(va >> shift) & (hx_level_entries(r->level) - 1);
		hx_pte e = hx_hal_pte_load(&table[index]);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(retirements, __ATOMIC_RELAXED) != before) {
			return false;
		}
		*end = e;
		switch (hx_hal_pte_kind(e, r->level)) {
		case HX_PTE_TABLE:
			table = hx_child_of(e, r->level);
			r->level--;
			shift -= hx_hal_geometry.bits[r->level];
			break;
		case HX_PTE_LEAF:
			r->status = HX_OK;
			r->pa = hx_pa(hx_hal_pte_pa(e, r->level).v +
				      (va & (((uintptr_t)1 << shift) - 1)));
			r->flags = hx_hal_pte_flags(e, r->level);
			return true;
		case HX_PTE_EMPTY:
		case HX_PTE_SOFT:
			r->status = HX_NOT_MAPPED;
			return true;
		}
	}
}

struct hx_translation hx_walk_to(const struct hx_pagetable *t, struct hx_va va, hx_pte *end)
{
	struct hx_translation r = {.status = HX_NOT_INITIALIZED};
	*end = 0;
	if (!t || !t->frames) {
		return r;
	}
	r.status = HX_INVALID_ADDRESS;
	r.level = hx_root_level();
	if (!hx_is_canonical(va.v)) {
		return r;
	}
	const struct hx_pagetable *owner = t->shared && va.v >= hx_kernel_start() ? t->shared : t;
	while (!walk(t, &owner->stripes[hx_stripe_index(va.v)].retirements, va.v, &r, end)) {
		hx_hal_relax();
	}
	return r;
}

struct hx_translation hx_translate(const struct hx_pagetable *t, struct hx_va va)
{
	hx_pte end;
	return hx_walk_to(t, va, &end);
}

/*
 * @n leaves from the leaf table that @va lies in, or under the larger leaf or the hole
 * that is there. @return false when a table was freed meanwhile
 */
static bool translate_pages(const struct hx_pagetable *t, const uint32_t *retirements, uintptr_t va,
			    unsigned n, uint64_t *leaves)
{
	uint32_t before = __atomic_load_n(retirements, __ATOMIC_ACQUIRE);
	const hx_pte *table = hx_table_at(t->root);
	for (unsigned level = hx_root_level(); level > 0; level--) {
		hx_pte e = hx_hal_pte_load(&table[hx_level_index(va, level)]);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		if (__atomic_load_n(retirements, __ATOMIC_RELAXED) != before) {
			return false;
		}
		if (hx_hal_pte_kind(e, level) == HX_PTE_TABLE) {
			table = hx_child_of(e, level);
			continue;
		}
		bool leaf = hx_hal_pte_kind(e, level) == HX_PTE_LEAF;
		uint64_t at =
			!leaf ? 0
			      : (hx_hal_pte_pa(e, level).v + (va & (hx_level_bytes(level) - 1))) |
					(hx_hal_pte_flags(e, level) & HX_LEAF_FLAGS);
		for (unsigned i = 0; i < n; i++, at += leaf ? HX_FRAME_BYTES : 0) {
			leaves[i] = at;
		}
		return true;
	}
	const hx_pte *begin = &table[hx_level_index(va, 0)], *end = begin + n;
	for (const hx_pte *p = begin; p < end;) {
		hx_pte e = hx_hal_pte_load(p);
		if (hx_hal_pte_kind(e, 0) == HX_PTE_LEAF) {
			p = hx_list_run(p, end, e, hx_hal_pte_flags(e, 0) & HX_LEAF_FLAGS,
					&leaves[p - begin]);
		} else {
			leaves[p++ - begin] = 0;
		}
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return __atomic_load_n(retirements, __ATOMIC_RELAXED) == before;
}

hx_status hx_translate_range(const struct hx_pagetable *t, struct hx_va va, uint64_t pages,
			     uint64_t *leaves)
{
	if (!t || !t->frames) {
		return HX_NOT_INITIALIZED;
	}
	if (!hx_is_aligned(va.v, HX_FRAME_BYTES)) {
		return HX_INVALID_ALIGNMENT;
	}
	if (pages == 0) {
		return HX_INVALID_SIZE;
	}
	uintptr_t last;
	if (pages > UINTPTR_MAX / HX_FRAME_BYTES ||
	    __builtin_add_overflow(va.v, (uintptr_t)(pages * HX_FRAME_BYTES - 1), &last) ||
	    !hx_is_canonical(va.v) || !hx_is_canonical(last) ||
	    (va.v < hx_kernel_start()) != (last < hx_kernel_start())) {
		return HX_INVALID_ADDRESS;
	}
	if (!leaves) {
		return HX_INVALID_ARGUMENT;
	}
	const struct hx_pagetable *owner = t->shared && va.v >= hx_kernel_start() ? t->shared : t;
	for (uintptr_t at = va.v, to;; at = to + 1) {
		to = hx_piece_last(at, last, 1);
		unsigned n = (unsigned)((to - at) / HX_FRAME_BYTES) + 1;
		while (!translate_pages(t, &owner->stripes[hx_stripe_index(at)].retirements, at, n,
					leaves)) {
			hx_hal_relax();
		}
		if (to == last) {
			return HX_OK;
		}
		leaves += n;
	}
}

/* ---- Visit ---- */

/* Where the @index-th entry of a table at @va begins; the root's two halves differ. */
static uintptr_t entry_va(uintptr_t va, unsigned level, unsigned index)
{
	va += (uintptr_t)index << hx_level_shift(level);
	bool upper = level == hx_root_level() && index >= hx_level_entries(level) / 2;
	return upper ? va | hx_kernel_start() : va;
}

static bool visit_table(const hx_pte *table, unsigned level, uintptr_t va, hx_leaf_fn visit,
			void *context)
{
	for (unsigned i = 0; i < hx_level_entries(level); i++) {
		hx_pte e = hx_hal_pte_load(&table[i]);
		uintptr_t at = entry_va(va, level, i);
		bool go_on = true;
		switch (hx_hal_pte_kind(e, level)) {
		case HX_PTE_LEAF:
			go_on = visit(context, hx_va(at), hx_hal_pte_pa(e, level),
				      hx_level_bytes(level), hx_hal_pte_flags(e, level));
			break;
		case HX_PTE_TABLE:
			go_on = visit_table(hx_child_of(e, level), level - 1, at, visit, context);
			break;
		case HX_PTE_SOFT:
			if (level == 0) { /* a hidden page */
				uint64_t payload = hx_hal_pte_payload(e);
				go_on = visit(context, hx_va(at), hx_soft_pa(payload),
					      hx_level_bytes(0),
					      hx_soft_flags(payload, 0) & HX_PAGE_DIRTY);
			}
			break;
		case HX_PTE_EMPTY:
			break;
		}
		if (!go_on) {
			return false;
		}
	}
	return true;
}

void hx_pagetable_visit(const struct hx_pagetable *t, hx_leaf_fn visit, void *context)
{
	if (t && t->frames) {
		(void)visit_table(hx_table_at(t->root), hx_root_level(), 0, visit, context);
	}
}

/* ---- Validate ---- */

static bool leaf_is_sound(const struct hx_pagetable *t, hx_pte e, unsigned level)
{
	uint64_t pa = hx_hal_pte_pa(e, level).v, flags = hx_hal_pte_flags(e, level);
	bool writable = (flags & HX_PAGE_WRITABLE) != 0;
	uint64_t preset = hx_feature(HX_MMU_HARDWARE_AD)
				  ? 0
				  : HX_PAGE_ACCESSED | (writable ? HX_PAGE_DIRTY : 0);
	return level <= hx_highest_leaf() && hx_is_aligned(pa, hx_level_bytes(level)) &&
	       (pa + (hx_level_bytes(level) - 1)) >> hx_hal_geometry.pa_bits == 0 &&
	       (flags & preset) == preset && (t->kernel || !(flags & HX_PAGE_GLOBAL)) &&
	       (t->wx == HX_WX_OFF || !writable || (flags & HX_PAGE_NO_EXECUTE));
}

/* The only soft entry that outlives the call that made it: a hidden page. */
static bool soft_is_sound(const struct hx_pagetable *t, hx_pte e, unsigned level)
{
	uint64_t payload = hx_hal_pte_payload(e);
	return level == 0 && !t->kernel && !t->huge && e == hx_hal_pte_soft(payload) &&
	       (payload & HX_SOFT_TABLE) == 0 &&
	       hx_soft_pa(payload).v >> hx_hal_geometry.pa_bits == 0;
}

/* Is it safe to look into the frame, and is it a table of ours? */
static bool frame_is_ours(const struct hx_pagetable *t, struct hx_pa table)
{
	struct hx_pfn frame = hx_pa_to_pfn(table);
	if (!hx_frames_zone_of(t->frames, frame)) {
		return false;
	}
	const struct hx_frame *f = t->db ? hx_framedb_find(t->db, frame) : NULL;
	return !t->db || (f && f->tag == HX_TAG_TABLE && f->owner == t);
}

/* Number of tables, and the sum of their frame numbers. */
struct tally {
	uint64_t tables, limit;
	uint32_t sum;
	uint64_t kept[HX_STRIPES]; /* that the leaves should keep, by stripe */
};

/* What a leaf of @level should keep, see hx_cursor_keep(). */
static void count_kept(const struct hx_pagetable *t, struct tally *tally, unsigned level,
		       uintptr_t va)
{
	if (hx_kept_tables(t, level, va) == 0) {
		return;
	}
	tally->kept[hx_stripe_index(va)]++;
	for (unsigned i = 0; level > 1 && i < hx_level_entries(level - 1); i++) {
		count_kept(t, tally, level - 1, va + (uintptr_t)(i * hx_level_bytes(level - 1)));
	}
}

/* Is in each stripe's chain what its leaves should keep, and nothing else? */
static bool kept_is_sound(const struct hx_pagetable *t, struct tally *tally)
{
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		uint64_t count = 0;
		for (struct hx_pa at = t->stripes[i].kept; at.v != 0;
		     at = hx_pa(hx_table_at(at)[0])) {
			if (++count > tally->kept[i] || !frame_is_ours(t, at)) {
				return false;
			}
			tally->tables++;
			tally->sum += (uint32_t)hx_pa_to_pfn(at).v;
		}
		if (count != tally->kept[i]) {
			return false;
		}
	}
	return true;
}

/* Entries [first, end) of a table and all below; counts tables. */
static bool is_sound(const struct hx_pagetable *t, const hx_pte *table, unsigned level,
		     unsigned first, unsigned end, uintptr_t va, struct tally *tally)
{
	bool root = level == hx_root_level();
	for (unsigned i = first; i < end; i++) {
		hx_pte e = hx_hal_pte_load(&table[i]);
		switch (hx_hal_pte_kind(e, level)) {
		case HX_PTE_EMPTY:
			break;
		case HX_PTE_SOFT:
			if (!soft_is_sound(t, e, level)) {
				return false;
			}
			break;
		case HX_PTE_LEAF:
			if (!leaf_is_sound(t, e, level) || !hx_group_is_sound(&table[i], level)) {
				return false;
			}
			count_kept(t, tally, level, entry_va(va, level, i));
			break;
		case HX_PTE_TABLE: {
			unsigned entries = hx_level_entries(level - 1);
			/* More than the counter knows: a circle, perhaps. */
			tally->sum += (uint32_t)hx_pa_to_pfn(hx_hal_pte_pa(e, level)).v;
			if (++tally->tables > tally->limit ||
			    !frame_is_ours(t, hx_hal_pte_pa(e, level))) {
				return false;
			}
			const hx_pte *child = hx_child_of(e, level);
			bool may_be_empty =
				(root && t->kernel) ||
				(level > 1 && __atomic_load_n(&t->pruning, __ATOMIC_RELAXED) > 0);
			if (!may_be_empty && hx_table_is_empty(child, 0, entries)) {
				return false;
			}
			if (!is_sound(t, child, level - 1, 0, entries, entry_va(va, level, i),
				      tally)) {
				return false;
			}
			break;
		}
		}
	}
	return true;
}

/* Is the leaf table that a stripe remembers the one that a walk finds? All else is sound. */
static bool leaf_table_is_sound(const struct hx_pagetable *t, unsigned stripe)
{
	const struct hx_stripe *s = &t->stripes[stripe];
	if (s->leaf_tag == 0) {
		return true;
	}
	uintptr_t number = (s->leaf_tag & (UINT32_MAX >> 1)) * (uintptr_t)HX_STRIPES + stripe;
	uintptr_t va = number << hx_level_shift(1) | (t->kernel ? hx_kernel_start() : 0);
	return hx_is_inside(t, va, va) && s->leaf_table &&
	       hx_find_leaf_table(t, va) == s->leaf_table;
}

/*
 * The half that it does not own: EMPTY in a kernel table, the kernel's entries in
 * another. The machine may mark root entries as accessed, in each root apart.
 */
static bool other_half_is_sound(const struct hx_pagetable *t)
{
	unsigned level = hx_root_level(), half = hx_level_entries(level) / 2;
	const hx_pte *root = hx_table_at(t->root);
	if (t->kernel) {
		return hx_table_is_empty(root, 0, half);
	}
	const hx_pte *from = hx_table_at(t->shared->root);
	for (unsigned i = half; i < 2 * half; i++) {
		hx_pte ours = hx_hal_pte_load(&root[i]), theirs = hx_hal_pte_load(&from[i]);
		enum hx_pte_kind kind = hx_hal_pte_kind(theirs, level);
		if (hx_hal_pte_kind(ours, level) != kind) {
			return false;
		}
		if (kind != HX_PTE_EMPTY &&
		    hx_hal_pte_pa(ours, level).v != hx_hal_pte_pa(theirs, level).v) {
			return false;
		}
	}
	return true;
}

hx_status hx_pagetable_validate(struct hx_pagetable *t)
{
	if (!t || !t->frames) {
		return HX_NOT_INITIALIZED;
	}
	struct hx_cursor c;
	hx_cursor_open(&c, t, 0, UINTPTR_MAX);
	unsigned level = hx_root_level(), half = hx_level_entries(level) / 2;
	uint32_t sum = 0;
	for (unsigned i = 0; i < HX_STRIPES; i++) {
		struct hx_stripe *s = &t->stripes[i];
		sum += s->table_sum;
		__atomic_store_n(&s->locks, s->locks - 1, __ATOMIC_RELAXED); /* a look only */
	}
	struct tally tally = {
		.tables = 1,
		.limit = hx_pagetable_counters(t).tables,
		.sum = (uint32_t)hx_pa_to_pfn(t->root).v,
	};
	bool sound = frame_is_ours(t, t->root) && other_half_is_sound(t) &&
		     is_sound(t, hx_table_at(t->root), level, t->kernel ? half : 0,
			      t->kernel ? 2 * half : half, 0, &tally) &&
		     kept_is_sound(t, &tally) && tally.tables == tally.limit && tally.sum == sum;
	for (unsigned i = 0; sound && i < HX_STRIPES; i++) {
		sound = leaf_table_is_sound(t, i);
	}
	hx_cursor_close(&c);
	return sound ? HX_OK : HX_CORRUPTED;
}
