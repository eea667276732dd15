/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * mmap, munmap, mprotect, brk: everything that changes the region table.
 *
 * All four are made of one change: the range [start, end) becomes one region
 * with given rights, or free.
 *
 *      before   |---- a ----|     |-- b --|  |--- c ---|
 *      change         [================================)
 *      after    |- a -|              new               |c|
 *
 *      left  = the region that holds start - 1, right = the one that holds end
 *      (both may be the same); regions inside go; new joins left or right where
 *      rights and flags are equal.
 *
 * An operation runs as an attempt under the space's lock:
 *
 *      check the token -> find the place -> examine the change, which tells the
 *      regions before and after and the records that it takes -> refuse, or
 *      page-table work (which may refuse) -> apply, which cannot fail
 *
 * Records are allocated without the lock, for the allocation may raise pressure
 * and reclaimers may come back to this very space. An attempt that lacks records
 * says how many, is given them, and starts from the beginning: what it saw may
 * have changed. Two are the most that one operation takes (both edges of a range
 * inside one region), so at most three attempts are made. Records that an
 * operation sets free serve it first; what is left goes back to the heap after
 * the lock is dropped.
 *
 * Arguments are checked first (they alone decide), then the token, then the state
 * of the space.
 */
#include "space_private.h"

#define PAGE ((uintptr_t)HX_FRAME_BYTES)

/* Bytes that can be mapped at all. */
static uintptr_t mappable_bytes(void)
{
	return hx_space_top() - HX_SPACE_LOW_BYTES;
}

/* Round @bytes up to whole pages: false when more than @limit, which is whole pages. */
static bool whole_pages(uint64_t bytes, uintptr_t limit, uintptr_t *out)
{
	uint64_t rounded;
	if (!hx_align_up(bytes, HX_FRAME_BYTES, &rounded) || rounded > limit) {
		return false;
	}
	*out = (uintptr_t)rounded;
	return true;
}

/* W^X: the rights that a mapping asked for with @prot gets. */
static hx_status effective_prot(const struct hx_space *s, unsigned prot, uint8_t *out)
{
	if ((prot & HX_PROT_WRITE) != 0 && (prot & HX_PROT_EXEC) != 0) {
		if (s->table.wx == HX_WX_REFUSE) {
			return HX_PERMISSION_DENIED;
		}
		if (s->table.wx == HX_WX_FORCE) {
			prot &= ~HX_PROT_EXEC;
		}
	}
	*out = (uint8_t)prot;
	return HX_OK;
}

/* ---- Operations and their spare records ---- */

struct operation {
	hx_status (*attempt)(struct hx_space *s, struct operation *op);
	/* Asked for. */
	struct hx_token token;
	uintptr_t start, end;
	uintptr_t hint;
	unsigned prot, flags;
	/* Answer. */
	uintptr_t result;
	/* Records: a list through their right links. */
	struct hx_region *spare;
	int64_t spare_count;
	int64_t needed; /* more than spare_count: try again with so many */
};

static void put_spare(struct operation *op, struct hx_region *r)
{
	r->right = op->spare;
	op->spare = r;
	op->spare_count++;
}

static struct hx_region *take_spare(struct operation *op)
{
	struct hx_region *r = op->spare;
	HX_ASSERT(r != NULL);
	op->spare = r->right;
	op->spare_count--;
	return r;
}

/* Have as many records as the attempt needed. No lock is held. */
static bool fetch_records(struct hx_space *s, struct operation *op)
{
	while (op->spare_count < op->needed) {
		struct hx_ptr_result r = hx_heap_allocate(s->heap, sizeof(struct hx_region), 0, 0);
		if (r.status != HX_OK) {
			return false;
		}
		put_spare(op, r.value);
	}
	return true;
}

static hx_status run(struct hx_space *s, struct operation *op)
{
	hx_status status;
	bool again;
	do {
		op->needed = 0;
		unsigned long irq = hx_lock_acquire(&s->lock);
		status = op->attempt(s, op);
		hx_lock_release(&s->lock, irq);
		again = status == HX_OUT_OF_MEMORY && op->needed > op->spare_count;
	} while (again && fetch_records(s, op));

	while (op->spare) {
		HX_ASSERT(hx_heap_free(s->heap, take_spare(op)) == HX_OK);
	}
	return status;
}

/* ---- One change of the region table ---- */

struct change {
	uintptr_t start, end;
	bool mapped; /* becomes a region with these rights; otherwise free */
	uint8_t prot, flags;
	/* What examine() found. */
	struct hx_region *left, *right;
	bool join_left, join_right; /* then there is one */
	int64_t removed;        /* regions wholly inside */
	int64_t growth;         /* of the number of regions */
	uintptr_t first, last;  /* what is mapped in the range now lies between these */
	uintptr_t mapped_bytes; /* of it, how much */
};

static bool is_like(const struct hx_region *r, const struct change *c)
{
	return r && r->prot == c->prot && r->flags == c->flags;
}

/* Cost: O(log n + regions in the range) */
static void examine(const struct hx_space *s, struct change *c)
{
	c->left = hx_tree_at(s->tree, c->start - 1);
	c->right = hx_tree_at(s->tree, c->end);
	c->join_left = c->mapped && is_like(c->left, c);
	c->join_right = c->mapped && is_like(c->right, c);
	c->removed = 0;
	c->first = c->last = c->start;
	c->mapped_bytes = 0;
	struct hx_region *r = hx_tree_from(s->tree, c->start);
	for (; r && r->start < c->end; r = hx_tree_next(r)) {
		uintptr_t from = r->start > c->start ? r->start : c->start;
		uintptr_t to = r->end < c->end ? r->end : c->end;
		if (c->mapped_bytes == 0) {
			c->first = from;
		}
		c->last = to;
		c->mapped_bytes += to - from;
		c->removed += from == r->start && to == r->end;
	}
	bool split = c->left && c->left == c->right;
	c->growth = (int64_t)split + c->mapped - c->join_left - c->join_right - c->removed;
}

/*
 * May the table grow by @growth regions? Regions that go leave their records, so
 * growth is also the number of records that must be at hand.
 */
static hx_status afford(const struct hx_space *s, struct operation *op, int64_t growth,
			int64_t records)
{
	if ((int64_t)s->stats.regions + growth > (int64_t)s->region_limit && growth > 0) {
		return HX_OUT_OF_MEMORY;
	}
	op->needed = records;
	return records > op->spare_count ? HX_OUT_OF_MEMORY : HX_OK;
}

static void add_region(struct hx_space *s, struct operation *op, uintptr_t start, uintptr_t end,
		       uint8_t prot, uint8_t flags)
{
	struct hx_region *r = take_spare(op);
	*r = (struct hx_region){.start = start, .end = end, .prot = prot, .flags = flags};
	hx_tree_insert(&s->tree, r);
}

static void drop_region(struct hx_space *s, struct operation *op, struct hx_region *r)
{
	hx_tree_remove(&s->tree, r);
	put_spare(op, r);
}

/* Make [start, end) free; left and right keep what is theirs. */
static void clear_range(struct hx_space *s, struct operation *op, struct change *c)
{
	if (c->left && c->left == c->right) {
		uintptr_t end = c->left->end;
		hx_tree_resize(c->left, c->left->start, c->start);
		add_region(s, op, c->end, end, c->left->prot, c->left->flags);
		return;
	}
	struct hx_region *r = hx_tree_from(s->tree, c->start);
	while (r && r->end <= c->end) {
		struct hx_region *next = hx_tree_next(r);
		if (r != c->left) {
			drop_region(s, op, r);
		}
		r = next;
	}
	if (c->left && c->left->end > c->start) {
		hx_tree_resize(c->left, c->left->start, c->start);
	}
	if (c->right && c->right->start < c->end) {
		hx_tree_resize(c->right, c->end, c->right->end);
	}
}

static void fill_range(struct hx_space *s, struct operation *op, struct change *c)
{
	if (c->join_left && c->join_right) {
		uintptr_t end = c->right->end;
		drop_region(s, op, c->right);
		/* join_left. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
		hx_tree_resize(c->left, c->left->start, end);
	} else if (c->join_left) {
		/* join_left. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
		hx_tree_resize(c->left, c->left->start, c->end);
	} else if (c->join_right) {
		hx_tree_resize(c->right, c->start, c->right->end);
	} else {
		add_region(s, op, c->start, c->end, c->prot, c->flags);
	}
}

/* Carry out an examined change that can be afforded: cannot fail. */
static void apply(struct hx_space *s, struct operation *op, struct change *c)
{
	s->stats.regions += (uint64_t)c->growth;
	s->stats.mapped_bytes -= c->mapped_bytes;
	s->stats.mapped_bytes += c->mapped ? c->end - c->start : 0;
	if (c->left && c->left == c->right && c->join_left) {
		return; /* one region stood there, and the same will */
	}
	clear_range(s, op, c);
	if (c->mapped) {
		fill_range(s, op, c);
	}
}

/* Examine and carry out one change together with its pages. */
static hx_status commit(struct hx_space *s, struct operation *op, struct change *c)
{
	hx_status status = afford(s, op, c->growth, c->growth);
	if (status == HX_OK && c->mapped_bytes > 0) {
		status = hx_space_drop_pages(s, c->first, c->last);
	}
	if (status == HX_OK) {
		apply(s, op, c);
	}
	return status;
}

/* ---- mmap ---- */

#define MAP_KNOWN                                                                                  \
	(HX_MAP_SHARED | HX_MAP_PRIVATE | HX_MAP_FIXED | HX_MAP_ANONYMOUS | HX_MAP_FIXED_NOREPLACE)

static hx_status mmap_flags(unsigned prot, unsigned flags, const void *object)
{
	if ((flags & ~MAP_KNOWN) != 0 || (prot & ~HX_PROT_ALL) != 0) {
		return HX_INVALID_ARGUMENT;
	}
	bool shared = (flags & HX_MAP_SHARED) != 0, private = (flags & HX_MAP_PRIVATE) != 0;
	if (shared == private) {
		return HX_INVALID_ARGUMENT;
	}
	if (!(flags & HX_MAP_ANONYMOUS) && !object) {
		return HX_INVALID_ARGUMENT;
	}
	return shared || object ? HX_NOT_SUPPORTED : HX_OK;
}

/* [start, end) of an mmap at exactly @at. */
static hx_status fixed_range(uintptr_t at, uintptr_t bytes, struct operation *op)
{
	uintptr_t end;
	if (!hx_is_aligned(at, PAGE)) {
		return HX_INVALID_ALIGNMENT;
	}
	if (__builtin_add_overflow(at, bytes, &end) || at < HX_SPACE_LOW_BYTES ||
	    end > hx_space_top()) {
		return HX_INVALID_ADDRESS;
	}
	op->start = at;
	op->end = end;
	return HX_OK;
}

static bool is_free(const struct hx_space *s, uintptr_t start, uintptr_t end)
{
	const struct hx_region *r = hx_tree_from(s->tree, start);
	return !r || r->start >= end;
}

/* A place for @bytes: at the hint when all of it is free there, else the highest gap. */
static bool place(const struct hx_space *s, uintptr_t hint, uintptr_t bytes, uintptr_t *at)
{
	hint &= ~(PAGE - 1);
	if (hint != 0) {
		*at = hint < HX_SPACE_LOW_BYTES ? (uintptr_t)HX_SPACE_LOW_BYTES : hint;
		if (*at <= hx_space_top() && bytes <= hx_space_top() - *at &&
		    is_free(s, *at, *at + bytes)) {
			return true;
		}
	}
	*at = hx_tree_find_gap(s->tree, bytes, hx_space_top());
	return *at != 0;
}

static hx_status attempt_mmap(struct hx_space *s, struct operation *op)
{
	uint32_t rights = HX_RIGHT_MAP | (op->flags & HX_MAP_FIXED ? HX_RIGHT_UNMAP : 0) |
			  (op->prot & HX_PROT_EXEC ? HX_RIGHT_EXECUTE : 0);
	hx_status status = hx_space_allowed(s, op->token, rights);
	if (status != HX_OK) {
		return status;
	}
	struct change c = {.start = op->start, .end = op->end, .mapped = true};
	status = effective_prot(s, op->prot, &c.prot);
	if (status != HX_OK) {
		return status;
	}
	if ((op->flags & (HX_MAP_FIXED | HX_MAP_FIXED_NOREPLACE)) == 0) {
		uintptr_t bytes = op->end - op->start;
		if (!place(s, op->hint, bytes, &c.start)) {
			return HX_OUT_OF_MEMORY;
		}
		c.end = c.start + bytes;
	}
	examine(s, &c);
	if ((op->flags & HX_MAP_FIXED_NOREPLACE) != 0 && c.mapped_bytes > 0) {
		return HX_ALREADY_MAPPED;
	}
	op->result = c.start;
	return commit(s, op, &c);
}

struct hx_va_result hx_mmap(struct hx_space *s, struct hx_token token, struct hx_va hint,
			    uint64_t bytes, unsigned prot, unsigned flags, void *object,
			    uint64_t offset)
{
	struct hx_va_result r = {HX_OK, {0}};
	struct operation op = {.attempt = attempt_mmap,
			       .token = token,
			       .hint = hint.v,
			       .prot = prot,
			       .flags = flags};
	uintptr_t length;
	if (!s || !s->frames) {
		r.status = HX_NOT_INITIALIZED;
	} else if (!hx_is_aligned(offset, HX_FRAME_BYTES)) {
		r.status = HX_INVALID_ALIGNMENT;
	} else if (bytes == 0 || !whole_pages(bytes, mappable_bytes(), &length)) {
		r.status = HX_INVALID_SIZE;
	} else if ((r.status = mmap_flags(prot, flags, object)) != HX_OK) {
		return r;
	} else if ((flags & HX_MAP_FIXED_NOREPLACE) != 0) {
		op.flags &= ~HX_MAP_FIXED; /* nothing is replaced */
		r.status = fixed_range(hint.v, length, &op);
	} else if ((flags & HX_MAP_FIXED) != 0) {
		r.status = fixed_range(hint.v, length, &op);
	} else {
		op.end = length; /* the attempt finds the place */
	}
	if (r.status == HX_OK) {
		r.status = run(s, &op);
		r.value = hx_va(r.status == HX_OK ? op.result : 0);
	}
	return r;
}

/* ---- munmap ---- */

/* [start, end) of whole pages in the user half. */
static hx_status user_range(struct hx_va va, uint64_t bytes, struct operation *op)
{
	uintptr_t length;
	if (!whole_pages(bytes, hx_user_end(), &length) || va.v > hx_user_end() - length) {
		return HX_INVALID_ADDRESS;
	}
	op->start = va.v;
	op->end = va.v + length;
	return HX_OK;
}

static hx_status attempt_munmap(struct hx_space *s, struct operation *op)
{
	hx_status status = hx_space_allowed(s, op->token, HX_RIGHT_UNMAP);
	if (status != HX_OK) {
		return status;
	}
	struct change c = {.start = op->start, .end = op->end};
	examine(s, &c);
	return c.mapped_bytes > 0 ? commit(s, op, &c) : HX_OK;
}

hx_status hx_munmap(struct hx_space *s, struct hx_token token, struct hx_va va, uint64_t bytes)
{
	if (!s || !s->frames) {
		return HX_NOT_INITIALIZED;
	}
	if (!hx_is_aligned(va.v, PAGE)) {
		return HX_INVALID_ALIGNMENT;
	}
	if (bytes == 0) {
		return HX_INVALID_SIZE;
	}
	struct operation op = {.attempt = attempt_munmap, .token = token};
	hx_status status = user_range(va, bytes, &op);
	return status == HX_OK ? run(s, &op) : status;
}

/* ---- mprotect ---- */

/* Is all of the range mapped? *same: with rights @prot already? */
static bool is_covered(const struct hx_space *s, uintptr_t start, uintptr_t end, uint8_t prot,
		       bool *same)
{
	*same = true;
	struct hx_region *r = hx_tree_at(s->tree, start);
	while (r) {
		*same &= r->prot == prot;
		if (r->end >= end) {
			return true;
		}
		struct hx_region *next = hx_tree_next(r);
		r = next && next->start == r->end ? next : NULL;
	}
	return false;
}

/*
 * The next piece of [op->start, op->end) at @at, which lies in a region: all of
 * one kind (flags), to get rights @prot.
 */
static struct change next_piece(const struct hx_space *s, const struct operation *op, uintptr_t at,
				uint8_t prot)
{
	struct hx_region *r = hx_tree_at(s->tree, at);
	struct change c = {.start = at, .mapped = true, .prot = prot, .flags = r->flags};
	do {
		c.end = r->end;
		r = hx_tree_next(r);
	} while (c.end < op->end && r->flags == c.flags);
	c.end = c.end < op->end ? c.end : op->end;
	examine(s, &c);
	return c;
}

static hx_status attempt_mprotect(struct hx_space *s, struct operation *op)
{
	uint32_t rights = HX_RIGHT_PROTECT | (op->prot & HX_PROT_EXEC ? HX_RIGHT_EXECUTE : 0);
	hx_status status = hx_space_allowed(s, op->token, rights);
	if (status != HX_OK || op->start == op->end) {
		return status;
	}
	uint8_t prot;
	status = effective_prot(s, op->prot, &prot);
	if (status != HX_OK) {
		return status;
	}
	bool same;
	if (!is_covered(s, op->start, op->end, prot, &same)) {
		return HX_NOT_MAPPED;
	}
	if (same) {
		return HX_OK;
	}
	/*
	 * Pieces of different kinds never join, so what one costs does not depend
	 * on the others. They are carried out in order; records that one sets free
	 * serve the later ones, so the largest running total must be at hand.
	 */
	int64_t growth = 0, records = 0;
	struct change c;
	for (uintptr_t at = op->start; at < op->end; at = c.end) {
		c = next_piece(s, op, at, prot);
		growth += c.growth;
		records = growth > records ? growth : records;
	}
	status = afford(s, op, growth, records);
	if (status == HX_OK) {
		status = hx_update_flags_sparse(&s->table, hx_va(op->start), op->end - op->start,
						hx_space_leaf_flags(prot));
	}
	if (status != HX_OK) {
		return status;
	}
	for (uintptr_t at = op->start; at < op->end; at = c.end) {
		c = next_piece(s, op, at, prot);
		apply(s, op, &c);
	}
	return HX_OK;
}

hx_status hx_mprotect(struct hx_space *s, struct hx_token token, struct hx_va va, uint64_t bytes,
		      unsigned prot)
{
	if (!s || !s->frames) {
		return HX_NOT_INITIALIZED;
	}
	if (!hx_is_aligned(va.v, PAGE)) {
		return HX_INVALID_ALIGNMENT;
	}
	struct operation op = {.attempt = attempt_mprotect, .token = token, .prot = prot};
	hx_status status = HX_OK;
	if (bytes > 0) { /* an empty range is right anywhere, with any rights */
		status = user_range(va, bytes, &op);
		if (status == HX_OK && (prot & ~HX_PROT_ALL) != 0) {
			status = HX_INVALID_ARGUMENT;
		}
	}
	return status == HX_OK ? run(s, &op) : status;
}

/* ---- brk ---- */

/* Remove the pages [to, from) of the heap segment, and whatever else was mapped there. */
static hx_status shrink(struct hx_space *s, struct operation *op, uintptr_t to, uintptr_t from)
{
	struct change c = {.start = to, .end = from};
	examine(s, &c);
	return c.mapped_bytes > 0 ? commit(s, op, &c) : HX_NOT_MAPPED;
}

/* Add the pages [from, to); the page behind them must be free, too. */
static hx_status grow(struct hx_space *s, struct operation *op, uintptr_t from, uintptr_t to)
{
	if (to > hx_space_top() || !is_free(s, from, to + PAGE)) {
		return HX_OUT_OF_MEMORY;
	}
	struct change c = {.start = from,
			   .end = to,
			   .mapped = true,
			   .prot = HX_PROT_READ | HX_PROT_WRITE,
			   .flags = HX_REGION_HEAP};
	examine(s, &c);
	return commit(s, op, &c);
}

static hx_status attempt_brk(struct hx_space *s, struct operation *op)
{
	uintptr_t to = op->start;
	bool down = to >= s->brk_start && to<s->brk, up = to> s->brk;
	op->result = s->brk;
	hx_status status = hx_space_allowed(s, op->token,
					    up     ? HX_RIGHT_MAP
					    : down ? HX_RIGHT_UNMAP
						   : 0);
	if (status != HX_OK || (!up && !down)) {
		return status;
	}
	uintptr_t old_page, new_page;
	if (!whole_pages(s->brk, hx_space_top(), &old_page) ||
	    !whole_pages(to, hx_space_top(), &new_page)) {
		return HX_OUT_OF_MEMORY;
	}
	if (new_page > old_page) {
		status = grow(s, op, old_page, new_page);
	} else if (new_page < old_page) {
		status = shrink(s, op, new_page, old_page);
	}
	if (status == HX_OK) {
		s->brk = op->result = to;
	}
	return status;
}

struct hx_va_result hx_brk(struct hx_space *s, struct hx_token token, struct hx_va to)
{
	if (!s || !s->frames) {
		return (struct hx_va_result){HX_NOT_INITIALIZED, {0}};
	}
	struct operation op = {.attempt = attempt_brk, .token = token, .start = to.v};
	hx_status status = run(s, &op);
	return (struct hx_va_result){status, hx_va(op.result)};
}
