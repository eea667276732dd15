/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Capability tokens: a table of generation-checked slots.
 *
 * A slot's life, by its generation g:
 *
 *      even, < 2^48   free, on the list; creating makes it g + 1
 *      odd            live: the token is  g << 16 | slot
 *      2^48           retired: 48 bits are used up, it never lives again
 *
 * A generation only grows, so a token that was good once is never good again
 * for another purpose. This is also what lets check() do without the lock: it
 * reads the slot between two looks at the generation; if both show the token's
 * own, the slot was in that one life all the time, and its object and rights,
 * which are written before a life begins and not during it, belong to it.
 * Writers keep the order
 *
 *      revoke:  generation becomes even
 *      create:  fence;  object, rights, parent;  generation becomes odd (release)
 *
 * so a reader that saw anything of a later life also sees the generation move.
 *
 * Revoking takes a subtree of parent links that may point up or down the array.
 * One pass climbs from every live slot until it meets a slot whose fate is known,
 * and marks the path with that fate: each slot is marked once, so the pass is
 * O(slots) without recursion and without memory. The marks stand in bits of the
 * rights word that mean no right; check() does not look at them.
 */
#include <hx/capability.h>

#define SLOT_BITS 16
#define RETIRED (UINT64_C(1) << 48)

/* Fates during a revocation. */
#define DOOMED 0x80000000u /* below the victim, or the victim itself */
#define SPARED 0x40000000u
#define FATE (DOOMED | SPARED)

static bool is_live(const struct hx_capability *c)
{
	return (c->generation & 1) != 0;
}

static struct hx_token token_of(const struct hx_capability_table *t, uint32_t slot)
{
	return (struct hx_token){t->slots[slot].generation << SLOT_BITS | slot};
}

/* The live slot that @token names, NULL when it is a bad token. Under the lock. */
static struct hx_capability *resolve(const struct hx_capability_table *t, struct hx_token token)
{
	uint32_t slot = (uint32_t)(token.v & ((1u << SLOT_BITS) - 1));
	if (slot >= t->slot_count) {
		return NULL;
	}
	struct hx_capability *c = &t->slots[slot];
	return is_live(c) && c->generation == token.v >> SLOT_BITS ? c : NULL;
}

static uint32_t slot_of(const struct hx_capability_table *t, const struct hx_capability *c)
{
	return (uint32_t)(c - t->slots);
}

static void put_free(struct hx_capability_table *t, uint32_t slot)
{
	t->slots[slot].parent = t->free > 0 ? t->vacant : (uint16_t)slot;
	t->vacant = (uint16_t)slot;
	t->free++;
}

/*
 * Where slot @slot's generations begin: even, below 2^47, so that at least 2^46
 * lives are left. The mixing is MurmurHash3's 64-bit finaliser (Appleby 2011).
 */
static uint64_t first_generation(uint32_t slot)
{
	uint64_t v = slot + UINT64_C(1);
	v ^= v >> 33;
	v *= UINT64_C(0xff51afd7ed558ccd);
	v ^= v >> 33;
	v *= UINT64_C(0xc4ceb9fe1a85ec53);
	v ^= v >> 33;
	return v >> 17 & ~UINT64_C(1);
}

hx_status hx_capability_init(struct hx_capability_table *t, struct hx_capability *slots, uint32_t n)
{
	if (!t || !slots || n == 0 || n > 1u << SLOT_BITS) {
		return HX_INVALID_ARGUMENT;
	}
	*t = (struct hx_capability_table){.slots = slots, .slot_count = n, .lock = HX_LOCK_INIT};
	for (uint32_t i = n; i-- > 0;) {
		slots[i] = (struct hx_capability){.generation = first_generation(i)};
		put_free(t, i);
	}
	return HX_OK;
}

/* Begin a life in a free slot; @parent NULL: a root. Under the lock. */
static struct hx_token_result begin(struct hx_capability_table *t, const void *object,
				    uint32_t rights, const struct hx_capability *parent)
{
	if (t->free == 0) {
		return (struct hx_token_result){HX_OUT_OF_MEMORY, HX_TOKEN_NONE};
	}
	uint32_t slot = t->vacant;
	struct hx_capability *c = &t->slots[slot];
	t->vacant = c->parent;
	t->free--;
	t->live++;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&c->object, object, __ATOMIC_RELAXED);
	__atomic_store_n(&c->rights, rights, __ATOMIC_RELAXED);
	c->parent = (uint16_t)(parent ? slot_of(t, parent) : slot);
	__atomic_store_n(&c->generation, c->generation + 1, __ATOMIC_RELEASE);
	return (struct hx_token_result){HX_OK, token_of(t, slot)};
}

/* End the life of a live slot. Under the lock. */
static void end(struct hx_capability_table *t, struct hx_capability *c)
{
	__atomic_store_n(&c->generation, c->generation + 1, __ATOMIC_RELEASE);
	t->live--;
	if (c->generation < RETIRED) {
		put_free(t, slot_of(t, c));
	}
}

struct hx_token_result hx_capability_create(struct hx_capability_table *t, const void *object,
					    uint32_t rights)
{
	if (!t || (rights & ~HX_RIGHTS_ALL) != 0) {
		return (struct hx_token_result){HX_INVALID_ARGUMENT, HX_TOKEN_NONE};
	}
	unsigned long irq = hx_lock_acquire(&t->lock);
	struct hx_token_result r = begin(t, object, rights, NULL);
	hx_lock_release(&t->lock, irq);
	return r;
}

struct hx_token_result hx_capability_derive(struct hx_capability_table *t, struct hx_token from,
					    uint32_t rights)
{
	if (!t) {
		return (struct hx_token_result){HX_INVALID_ARGUMENT, HX_TOKEN_NONE};
	}
	struct hx_token_result r = {HX_PERMISSION_DENIED, HX_TOKEN_NONE};
	unsigned long irq = hx_lock_acquire(&t->lock);
	const struct hx_capability *c = resolve(t, from);
	if (c && (c->rights & HX_RIGHT_DERIVE) != 0 && (rights & ~c->rights) == 0) {
		r = begin(t, c->object, rights, c);
	}
	hx_lock_release(&t->lock, irq);
	return r;
}

static void set_fate(struct hx_capability *c, uint32_t fate)
{
	__atomic_store_n(&c->rights, c->rights | fate, __ATOMIC_RELAXED);
}

/* Mark every live slot: DOOMED at and below @victim, SPARED elsewhere. */
static void mark(struct hx_capability_table *t, struct hx_capability *victim)
{
	set_fate(victim, DOOMED);
	for (uint32_t i = 0; i < t->slot_count; i++) {
		if (!is_live(&t->slots[i])) {
			continue;
		}
		struct hx_capability *c = &t->slots[i];
		while ((c->rights & FATE) == 0 && &t->slots[c->parent] != c) {
			c = &t->slots[c->parent];
		}
		uint32_t fate = (c->rights & DOOMED) != 0 ? DOOMED : SPARED;
		set_fate(c, fate); /* a root met for the first time */
		for (c = &t->slots[i]; (c->rights & FATE) == 0; c = &t->slots[c->parent]) {
			set_fate(c, fate);
		}
	}
}

static void end_doomed(struct hx_capability_table *t)
{
	for (uint32_t i = 0; i < t->slot_count; i++) {
		struct hx_capability *c = &t->slots[i];
		if (!is_live(c)) {
			continue;
		}
		bool doomed = (c->rights & DOOMED) != 0;
		__atomic_store_n(&c->rights, c->rights & ~FATE, __ATOMIC_RELAXED);
		if (doomed) {
			end(t, c);
		}
	}
}

/* Is @c @above, or derived from it? */
static bool descends(const struct hx_capability_table *t, const struct hx_capability *c,
		     const struct hx_capability *above)
{
	while (c != above && &t->slots[c->parent] != c) {
		c = &t->slots[c->parent];
	}
	return c == above;
}

hx_status hx_capability_revoke(struct hx_capability_table *t, struct hx_token by,
			       struct hx_token victim)
{
	if (!t) {
		return HX_INVALID_ARGUMENT;
	}
	hx_status status = HX_PERMISSION_DENIED;
	unsigned long irq = hx_lock_acquire(&t->lock);
	const struct hx_capability *holder = resolve(t, by);
	struct hx_capability *c = resolve(t, victim);
	if (holder && c && (holder->rights & HX_RIGHT_REVOKE) != 0 && descends(t, c, holder)) {
		mark(t, c);
		end_doomed(t);
		status = HX_OK;
	}
	hx_lock_release(&t->lock, irq);
	return status;
}

hx_status hx_capability_check(struct hx_capability_table *t, struct hx_token token,
			      const void *object, uint32_t rights)
{
	if (!t) {
		return HX_INVALID_ARGUMENT;
	}
	uint64_t slot = token.v & ((1u << SLOT_BITS) - 1);
	uint64_t generation = token.v >> SLOT_BITS;
	if (slot >= t->slot_count || (generation & 1) == 0) {
		return HX_PERMISSION_DENIED;
	}
	const struct hx_capability *c = &t->slots[slot];
	uint64_t before = __atomic_load_n(&c->generation, __ATOMIC_ACQUIRE);
	const void *its_object = __atomic_load_n(&c->object, __ATOMIC_RELAXED);
	uint32_t its_rights = __atomic_load_n(&c->rights, __ATOMIC_RELAXED) & HX_RIGHTS_ALL;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	uint64_t after = __atomic_load_n(&c->generation, __ATOMIC_RELAXED);
	bool good = before == generation && after == generation && its_object == object &&
		    (rights & ~its_rights) == 0;
	return good ? HX_OK : HX_PERMISSION_DENIED;
}

void hx_capability_forget(struct hx_capability_table *t, const void *object)
{
	/* A derived token is over the same object: whole trees go, no orphan stays. */
	unsigned long irq = hx_lock_acquire(&t->lock);
	for (uint32_t i = 0; i < t->slot_count; i++) {
		if (is_live(&t->slots[i]) && t->slots[i].object == object) {
			end(t, &t->slots[i]);
		}
	}
	hx_lock_release(&t->lock, irq);
}

/* ---- Validation ---- */

static bool live_slot_is_sound(const struct hx_capability_table *t, uint32_t slot)
{
	const struct hx_capability *c = &t->slots[slot];
	if (c->generation >= RETIRED || (c->rights & ~HX_RIGHTS_ALL) != 0) {
		return false;
	}
	/* Up to the root: live, same object, no fewer rights at every step. */
	for (uint32_t steps = 0; steps < t->slot_count; steps++) {
		if (c->parent >= t->slot_count) {
			return false;
		}
		const struct hx_capability *parent = &t->slots[c->parent];
		if (parent == c) {
			return true;
		}
		if (!is_live(parent) || parent->object != c->object ||
		    (c->rights & ~parent->rights) != 0 || (parent->rights & HX_RIGHT_DERIVE) == 0) {
			return false;
		}
		c = parent;
	}
	return false; /* a cycle */
}

hx_status hx_capability_validate(const struct hx_capability_table *t)
{
	uint32_t live = 0, free = 0;
	for (uint32_t i = 0; i < t->slot_count; i++) {
		if (is_live(&t->slots[i])) {
			live++;
			if (!live_slot_is_sound(t, i)) {
				return HX_CORRUPTED;
			}
		} else if (t->slots[i].generation < RETIRED) {
			free++;
		} else if (t->slots[i].generation > RETIRED) {
			return HX_CORRUPTED;
		}
	}
	if (live != t->live || free != t->free) {
		return HX_CORRUPTED;
	}
	/* The list ends at the slot that names itself; a cycle would never get there. */
	uint32_t slot = t->vacant;
	for (uint32_t left = free; left > 0; left--) {
		if (slot >= t->slot_count || is_live(&t->slots[slot]) ||
		    t->slots[slot].generation >= RETIRED ||
		    (t->slots[slot].parent == slot) != (left == 1)) {
			return HX_CORRUPTED;
		}
		slot = t->slots[slot].parent;
	}
	return HX_OK;
}
