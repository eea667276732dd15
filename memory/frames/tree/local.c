/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* tree: what CPUs hold for themselves, and how it is taken from them; see tree.h. */
#include "tree.h"

/* Looks at a CPU that is in the middle of a call before it is left alone. */
enum { PATIENCE = 10000 };

/* ---- Held rows ---- */

static bool holds(const struct held_row *held, uint64_t row, uint64_t bit)
{
	const uint64_t before = hx_word_load(&held->row);
	const uint64_t mask = hx_word_load(&held->mask);
	return before != NO_ROW && (uint32_t)before == row && (mask & bit) != 0 &&
	       hx_word_load(&held->row) == before;
}

bool hx_tree_is_held(const struct hx_tree *t, uint64_t frame)
{
	const uint64_t row = (frame - t->first) / ROW_FRAMES;
	const uint64_t bit = UINT64_C(1) << frame % ROW_FRAMES;
	for (uint64_t cpus = hx_word_load(&t->cpus); cpus != 0; cpus &= cpus - 1) {
		const struct hx_tree_cpu *p = &t->cpu[hx_bits_ctz(cpus)];
		bool held = holds(&p->pending, row, bit);
		for (unsigned c = 0; c < CLASSES; c++) {
			held |= holds(&p->private_row[c], row, bit);
		}
		if (held) {
			return true;
		}
	}
	return false;
}

void hx_tree_hold(struct hx_tree_cpu *p, struct held_row *held, uint64_t row, uint64_t mask)
{
	/* A reader takes the mask for this row's only if it saw the same use before and after. */
	__atomic_store_n(&held->row, NO_ROW, __ATOMIC_RELAXED);
	__atomic_store_n(&held->mask, mask, __ATOMIC_RELEASE);
	__atomic_store_n(&held->row, (uint64_t)++p->uses << 32 | row, __ATOMIC_RELEASE);
}

void hx_tree_let_go(struct hx_tree *t, struct held_row *held)
{
	const uint64_t row = (uint32_t)hx_word_peek(&held->row), mask = hx_word_peek(&held->mask);
	if (mask != 0) {
		/* Free first, then no longer held: whoever looks in between sees one of them. */
		hx_word_and(row_word(t, row), ~mask);
		__atomic_store_n(&held->mask, 0, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&held->row, NO_ROW, __ATOMIC_RELEASE);
}

/* ---- Children ---- */

void hx_tree_keep(struct hx_tree *t, uint32_t *slot, uint32_t child)
{
	const uint64_t me = UINT64_C(1) << hx_hal_cpu_id();
	if ((hx_word_peek(&t->cpus) & me) == 0) {
		hx_word_or(&t->cpus, me);
	}
	__atomic_store_n(slot, child, __ATOMIC_RELAXED);
}

void hx_tree_drop(struct hx_tree *t, uint32_t *slot)
{
	const uint32_t child = __atomic_load_n(slot, __ATOMIC_RELAXED);
	if (child != NO_CHILD) {
		__atomic_store_n(slot, NO_CHILD, __ATOMIC_RELAXED);
		hx_tree_publish(t, child, kind_of_state(hx_tree_state(t, child)));
	}
}

void hx_tree_drain_cpu(struct hx_tree *t, struct hx_tree_cpu *p)
{
	hx_tree_let_go(t, &p->pending);
	for (unsigned c = 0; c < CLASSES; c++) {
		hx_tree_let_go(t, &p->private_row[c]);
		hx_tree_drop(t, &p->singles[c]);
		for (unsigned g = 0; g < GROUPS; g++) {
			hx_tree_drop(t, &p->mixed[g][c]);
		}
	}
	hx_tree_drop(t, &p->putting);
}

/* ---- Standing still ---- */

/*
 * The CPU stores busy, then loads stop; this side stores stop, makes all of them pass a
 * full barrier, then loads busy. So one of the two sees the other's store, although the
 * CPU has no fence between its two accesses.
 */
uint64_t hx_tree_stop(struct hx_tree *t)
{
	const uint64_t cpus = hx_word_load(&t->cpus);
	uint64_t stopped = 0;
	for (uint64_t left = cpus; left != 0; left &= left - 1) {
		__atomic_store_n(&t->cpu[hx_bits_ctz(left)].stop, 1, __ATOMIC_RELAXED);
	}
	hx_cpu_barrier((struct hx_cpus){cpus});
	for (uint64_t left = cpus; left != 0; left &= left - 1) {
		struct hx_tree_cpu *p = &t->cpu[hx_bits_ctz(left)];
		unsigned patience = hx_bits_ctz(left) == hx_hal_cpu_id() ? 1 : PATIENCE;
		while (__atomic_load_n(&p->busy, __ATOMIC_ACQUIRE) != 0 && --patience > 0) {
			hx_upcall_tlb_ipi(); /* it may wait for this CPU's answer */
			hx_hal_relax();
		}
		if (__atomic_load_n(&p->busy, __ATOMIC_ACQUIRE) == 0) {
			hx_tree_drain_cpu(t, p);
			stopped |= left & -left;
		} else {
			__atomic_store_n(&p->stop, 0, __ATOMIC_RELEASE);
		}
	}
	return stopped;
}

void hx_tree_resume(struct hx_tree *t, uint64_t stopped)
{
	for (; stopped != 0; stopped &= stopped - 1) {
		__atomic_store_n(&t->cpu[hx_bits_ctz(stopped)].stop, 0, __ATOMIC_RELEASE);
	}
}
