/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The regions' AVL tree, augmented with gaps.
 *
 *                     [ 5..7 ]   gap_below 1, largest_gap 4
 *                    /        \
 *              [ 2..4 ]      [ 11..12 ]   gap_below 4
 *
 * Invariants, which hx_tree_validate() checks:
 *   - in-order, regions ascend and do not overlap;
 *   - the heights of a node's subtrees differ by at most one, so n regions stand
 *     at most 1.44 log2(n) deep;
 *   - gap_below = start - end of the predecessor (or HX_SPACE_LOW_BYTES);
 *   - largest_gap = the largest gap_below of the subtree.
 *
 * Every change ends in a walk from the lowest node that it touched to the root,
 * which recomputes height and largest_gap from the children and rotates where
 * the balance is lost. Nodes are relinked, never copied: a pointer to a region
 * stays good while the region lives.
 *
 * Source: Adelson-Velsky and Landis 1962 (balance); the augmentation is Knuth's
 * rank technique (TAOCP 3, 6.2.3) with a maximum in place of a count.
 */
#include "tree.h"

static int height_of(const struct hx_region *r)
{
	return r ? r->height : 0;
}

static uintptr_t largest_gap_of(const struct hx_region *r)
{
	return r ? r->largest_gap : 0;
}

static uintptr_t larger(uintptr_t a, uintptr_t b)
{
	return a > b ? a : b;
}

static int expected_height(const struct hx_region *r)
{
	int left = height_of(r->left), right = height_of(r->right);
	return 1 + (left > right ? left : right);
}

static uintptr_t expected_largest_gap(const struct hx_region *r)
{
	uintptr_t below = larger(largest_gap_of(r->left), largest_gap_of(r->right));
	return larger(below, r->gap_below);
}

static uintptr_t expected_gap_below(struct hx_region *r)
{
	const struct hx_region *previous = hx_tree_previous(r);
	return r->start - (previous ? previous->end : HX_SPACE_LOW_BYTES);
}

/* Recompute what @r derives from its children. */
static void refresh(struct hx_region *r)
{
	r->height = (uint8_t)expected_height(r);
	r->largest_gap = expected_largest_gap(r);
}

/* ---- Looking ---- */

struct hx_region *hx_tree_from(struct hx_region *root, uintptr_t a)
{
	struct hx_region *best = NULL;
	for (struct hx_region *r = root; r;) {
		if (a < r->end) {
			best = r;
			r = r->left;
		} else {
			r = r->right;
		}
	}
	return best;
}

struct hx_region *hx_tree_at(struct hx_region *root, uintptr_t a)
{
	struct hx_region *r = hx_tree_from(root, a);
	return r && r->start <= a ? r : NULL;
}

struct hx_region *hx_tree_first(struct hx_region *root)
{
	while (root && root->left) {
		root = root->left;
	}
	return root;
}

struct hx_region *hx_tree_last(struct hx_region *root)
{
	while (root && root->right) {
		root = root->right;
	}
	return root;
}

struct hx_region *hx_tree_next(struct hx_region *r)
{
	if (r->right) {
		return hx_tree_first(r->right);
	}
	while (r->parent && r->parent->right == r) {
		r = r->parent;
	}
	return r->parent;
}

struct hx_region *hx_tree_previous(struct hx_region *r)
{
	if (r->left) {
		return hx_tree_last(r->left);
	}
	while (r->parent && r->parent->left == r) {
		r = r->parent;
	}
	return r->parent;
}

uintptr_t hx_tree_find_gap(struct hx_region *root, uintptr_t bytes, uintptr_t top)
{
	const struct hx_region *last = hx_tree_last(root);
	uintptr_t highest_end = last ? last->end : HX_SPACE_LOW_BYTES;
	if (top - highest_end >= bytes) {
		return top - bytes;
	}
	if (largest_gap_of(root) < bytes) {
		return 0;
	}
	for (const struct hx_region *r = root;;) { /* right, here, left: highest first */
		if (largest_gap_of(r->right) >= bytes) {
			r = r->right;
		} else if (r->gap_below >= bytes) {
			return r->start - bytes;
		} else {
			r = r->left;
		}
	}
}

/* ---- Changing ---- */

/* Hang @new where @old hung; @new may be NULL. */
static void replace(struct hx_region **root, struct hx_region *old, struct hx_region *new)
{
	struct hx_region *parent = old->parent;
	if (!parent) {
		*root = new;
	} else if (parent->left == old) {
		parent->left = new;
	} else {
		parent->right = new;
	}
	if (new) {
		new->parent = parent;
	}
}

/*
 *        r                     s
 *       / \                   / \
 *      a   s       --->      r   c       (and its mirror image)
 *         / \               / \
 *        b   c             a   b
 */
static struct hx_region *rotate_left(struct hx_region **root, struct hx_region *r)
{
	struct hx_region *s = r->right;
	replace(root, r, s);
	r->right = s->left;
	if (r->right) {
		r->right->parent = r;
	}
	s->left = r;
	r->parent = s;
	refresh(r);
	refresh(s);
	return s;
}

static struct hx_region *rotate_right(struct hx_region **root, struct hx_region *r)
{
	struct hx_region *s = r->left;
	replace(root, r, s);
	r->left = s->right;
	if (r->left) {
		r->left->parent = r;
	}
	s->right = r;
	r->parent = s;
	refresh(r);
	refresh(s);
	return s;
}

/* Restore the balance of @r, whose subtrees are balanced. @return what stands there now */
static struct hx_region *balance(struct hx_region **root, struct hx_region *r)
{
	int tilt = height_of(r->left) - height_of(r->right);
	if (tilt > 1) {
		if (height_of(r->left->left) < height_of(r->left->right)) {
			rotate_left(root, r->left);
		}
		return rotate_right(root, r);
	}
	if (tilt < -1) {
		if (height_of(r->right->right) < height_of(r->right->left)) {
			rotate_right(root, r->right);
		}
		return rotate_left(root, r);
	}
	refresh(r);
	return r;
}

static void balance_upwards(struct hx_region **root, struct hx_region *r)
{
	while (r) {
		r = balance(root, r)->parent;
	}
}

/* @r's lower neighbour changed, or its own start. */
static void gap_changed(struct hx_region *r)
{
	if (r) {
		r->gap_below = expected_gap_below(r);
		for (; r; r = r->parent) {
			refresh(r);
		}
	}
}

void hx_tree_insert(struct hx_region **root, struct hx_region *r)
{
	struct hx_region **link = root;
	struct hx_region *parent = NULL;
	while (*link) {
		parent = *link;
		link = r->start < parent->start ? &parent->left : &parent->right;
	}
	*link = r;
	r->parent = parent;
	r->left = r->right = NULL;
	r->gap_below = expected_gap_below(r);
	balance_upwards(root, r);
	gap_changed(hx_tree_next(r));
}

void hx_tree_remove(struct hx_region **root, struct hx_region *r)
{
	struct hx_region *next = hx_tree_next(r);
	struct hx_region *lowest; /* from here upwards subtrees changed */
	if (!r->left || !r->right) {
		lowest = r->parent;
		replace(root, r, r->left ? r->left : r->right);
	} else {
		/* The successor, leftmost in the right subtree, takes r's place. */
		lowest = next->parent == r ? next : next->parent;
		if (next->parent != r) {
			replace(root, next, next->right);
			next->right = r->right;
			next->right->parent = next;
		}
		replace(root, r, next);
		next->left = r->left;
		next->left->parent = next;
	}
	balance_upwards(root, lowest);
	gap_changed(next);
}

void hx_tree_resize(struct hx_region *r, uintptr_t start, uintptr_t end)
{
	r->start = start;
	r->end = end;
	gap_changed(r);
	gap_changed(hx_tree_next(r));
}

/* ---- Validation ---- */

static bool node_is_sound(struct hx_region *r, uintptr_t previous_end)
{
	int tilt = height_of(r->left) - height_of(r->right);
	return r->start >= previous_end && r->start < r->end &&
	       r->gap_below == r->start - previous_end && tilt >= -1 && tilt <= 1 &&
	       r->height == expected_height(r) && r->largest_gap == expected_largest_gap(r) &&
	       (!r->left || r->left->parent == r) && (!r->right || r->right->parent == r);
}

/*
 * Goes in order, so no recursion. Starts ascend, so a cycle of links cannot keep
 * it going: a region seen again would not lie above the one before it.
 */
hx_status hx_tree_validate(struct hx_region *root, uint64_t *count)
{
	*count = 0;
	if (root && root->parent) {
		return HX_CORRUPTED;
	}
	uintptr_t previous_end = HX_SPACE_LOW_BYTES;
	for (struct hx_region *r = hx_tree_first(root); r; r = hx_tree_next(r)) {
		if (!node_is_sound(r, previous_end)) {
			return HX_CORRUPTED;
		}
		previous_end = r->end;
		++*count;
	}
	return HX_OK;
}
