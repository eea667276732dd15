/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Page faults: demand-zero memory, and the port's upcall.
 *
 *      lock; region?  no: NOT_MAPPED     rights?  no: PERMISSION_DENIED
 *            mapped already?  yes: forget the page here, done
 *            frame in hand?   yes: map it, done
 *      unlock; get a frame, zero it, tag it; from the top
 *
 * The frame is fetched without the lock, because that may raise pressure (and
 * zeroing takes its time); what was true before is looked at again. Of two CPUs
 * that fault on one page both fetch a frame, one maps its own, the other finds
 * the page mapped and gives its frame back.
 *
 * A fault on a page that is mapped with sufficient rights is no error: another
 * CPU was quicker, or this CPU's TLB still knows that the page was absent or had
 * fewer rights, since giving rights flushes nothing. Forgetting the page here ends
 * that. A leaf always has exactly the rights of its region, so every other case
 * is a broken invariant, CORRUPTED.
 */
#include "space_private.h"

/* A frame that is ready to be mapped. */
struct hand {
	bool held;
	bool relieved; /* pressure for table frames was raised, once */
	struct hx_pfn frame;
};

/* May memory with rights @prot be accessed so? Everything accessible is readable. */
static bool permits(unsigned prot, const struct hx_fault *fault)
{
	if (!fault->user && !fault->user_access) {
		return false; /* a stray kernel pointer: no page would help */
	}
	switch (fault->access) {
	case HX_ACCESS_READ:
		return prot != HX_PROT_NONE;
	case HX_ACCESS_WRITE:
		return (prot & HX_PROT_WRITE) != 0;
	case HX_ACCESS_EXECUTE:
		return fault->user && (prot & HX_PROT_EXEC) != 0; /* never by the kernel */
	}
	return false;
}

/* Under the lock. OUT_OF_MEMORY: a frame or table frames are lacking. */
static hx_status resolve(struct hx_space *s, const struct hx_fault *fault, struct hand *hand)
{
	const struct hx_region *r = hx_tree_at(s->tree, fault->va.v);
	if (!r) {
		return HX_NOT_MAPPED;
	}
	if (!permits(r->prot, fault)) {
		return HX_PERMISSION_DENIED;
	}
	struct hx_va page = hx_va((uintptr_t)hx_align_down(fault->va.v, HX_FRAME_BYTES));
	uint64_t flags = hx_space_leaf_flags(r->prot);
	struct hx_translation t = hx_translate(&s->table, page);
	if (t.status == HX_OK) {
		const uint64_t rights = HX_PAGE_USER | HX_PAGE_WRITABLE | HX_PAGE_NO_EXECUTE;
		if ((t.flags & rights) != (flags & rights)) {
			return HX_CORRUPTED;
		}
		hx_pagetable_forget_page(page);
		return HX_OK;
	}
	if (!hand->held) {
		return HX_OUT_OF_MEMORY;
	}
	hx_status status =
		hx_map(&s->table, page, hx_pfn_to_pa(hand->frame), HX_FRAME_BYTES, flags);
	if (status == HX_OK) {
		hand->held = false;
		s->stats.resident_pages++;
	}
	return status;
}

static bool raise_pressure(struct hx_space *s, uint64_t frames)
{
	struct hx_frames *f = s->frames;
	return f->pressure && f->pressure(f->pressure_context, frames);
}

/* A zeroed frame, tagged as anonymous memory. No lock is held. */
static bool fetch_frame(struct hx_space *s, struct hand *hand)
{
	struct hx_pfn_result r = hx_frames_allocate(s->frames, 0, HX_ALLOC_RESERVE);
	if (r.status != HX_OK) {
		return false;
	}
	if (s->db) {
		hx_status status = hx_framedb_set(s->db, r.value, 1, HX_TAG_ANONYMOUS, NULL);
		if (status != HX_OK) {
			hx_space_return_frame(s, r.value);
			return false;
		}
	}
	hx_memset(hx_ptr(hx_pfn_to_pa(r.value)), 0, HX_FRAME_BYTES);
	hand->frame = r.value;
	hand->held = true;
	return true;
}

/* Get what the last try lacked: the page's frame, then, once, room for its tables. */
static bool supply(struct hx_space *s, struct hand *hand)
{
	if (!hand->held) {
		return fetch_frame(s, hand);
	}
	if (hand->relieved) {
		return false;
	}
	hand->relieved = true;
	return raise_pressure(s, hx_hal_geometry.levels - 1u);
}

hx_status hx_space_fault(struct hx_space *s, const struct hx_fault *fault)
{
	if (!s || !s->frames) {
		return HX_NOT_INITIALIZED;
	}
	if (!fault) {
		return HX_INVALID_ARGUMENT;
	}
	hx_status status = HX_INVALID_ADDRESS;
	if (fault->va.v < hx_user_end()) {
		struct hand hand = {0};
		do {
			unsigned long irq = hx_lock_acquire(&s->lock);
			status = resolve(s, fault, &hand);
			hx_lock_release(&s->lock, irq);
		} while (status == HX_OUT_OF_MEMORY && supply(s, &hand));
		if (hand.held) {
			hx_space_free_frame(s, hand.frame);
		}
	}
	uint64_t *counter = status == HX_OK ? &s->stats.faults : &s->stats.faults_refused;
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
	return status;
}

/* ---- The port's upcall ---- */

static struct hx_fault_record last_fault[HX_CPUS_MAX];

const struct hx_fault_record *hx_fault_last(void)
{
	return &last_fault[hx_hal_cpu_id()];
}

bool hx_upcall_fault(const struct hx_fault *fault)
{
	struct hx_space *s = hx_space_current();
	hx_status status = fault->va.v >= hx_user_end() ? HX_INVALID_ADDRESS
			   : !s                         ? HX_NOT_MAPPED
							: hx_space_fault(s, fault);
	/* Spurious ones are also in the kernel half, or in a user half without a space. */
	if (status == HX_OK || hx_pagetable_spurious(fault)) {
		return true;
	}
	last_fault[hx_hal_cpu_id()] = (struct hx_fault_record){*fault, status};
	return false;
}
