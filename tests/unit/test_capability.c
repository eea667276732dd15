/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Capability tokens: every status, forgeries, generations at their end, and
 * random histories against a model that keeps all tokens ever made as a tree.
 */
#include <hx/capability.h>

#include "hx_test.h"

enum { SLOTS = 64, HISTORY = 4096 };

static struct hx_capability slots[SLOTS];
static struct hx_capability_table table;
static int thing, other; /* objects */

#define NOTHING 0u

static struct hx_token create(const void *object, uint32_t rights)
{
	struct hx_token_result r = hx_capability_create(&table, object, rights);
	HX_CHECK_STATUS(r.status, HX_OK);
	return r.value;
}

static struct hx_token derive(struct hx_token from, uint32_t rights)
{
	struct hx_token_result r = hx_capability_derive(&table, from, rights);
	HX_CHECK_STATUS(r.status, HX_OK);
	return r.value;
}

static bool passes(struct hx_token t, const void *object, uint32_t rights)
{
	hx_status status = hx_capability_check(&table, t, object, rights);
	HX_CHECK(status == HX_OK || status == HX_PERMISSION_DENIED);
	return status == HX_OK;
}

static void start(uint32_t n)
{
	HX_CHECK_STATUS(hx_capability_init(&table, slots, n), HX_OK);
	HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
}

HX_TEST(arguments_are_checked)
{
	HX_CHECK_STATUS(hx_capability_init(NULL, slots, 1), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_init(&table, NULL, 1), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_init(&table, slots, 0), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_init(&table, slots, 65537), HX_INVALID_ARGUMENT);
	start(SLOTS);
	HX_CHECK_STATUS(hx_capability_create(NULL, &thing, 0).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_create(&table, &thing, HX_RIGHTS_ALL + 1).status,
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_derive(NULL, HX_TOKEN_NONE, 0).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_revoke(NULL, HX_TOKEN_NONE, HX_TOKEN_NONE),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_capability_check(NULL, HX_TOKEN_NONE, &thing, 0), HX_INVALID_ARGUMENT);
	HX_CHECK_EQUAL(table.live, 0);
}

HX_TEST(check_wants_life_object_and_all_rights)
{
	start(SLOTS);
	HX_CHECK(!passes(HX_TOKEN_NONE, &thing, NOTHING));
	struct hx_token t = create(&thing, HX_RIGHT_MAP | HX_RIGHT_QUERY);
	HX_CHECK(t.v != 0);
	HX_CHECK(passes(t, &thing, NOTHING));
	HX_CHECK(!passes(t, &other, NOTHING));
	HX_CHECK(!passes(t, NULL, NOTHING));
	for (uint32_t rights = 0; rights <= HX_RIGHTS_ALL; rights++) {
		bool subset = (rights & ~(HX_RIGHT_MAP | HX_RIGHT_QUERY)) == 0;
		HX_CHECK_EQUAL(passes(t, &thing, rights), subset);
	}
	for (unsigned bit = 9; bit < 32; bit++) { /* bits that mean no right */
		HX_CHECK(!passes(t, &thing, UINT32_C(1) << bit));
	}
}

/* Every pair (rights held, rights asked): derived exactly when a subset. */
HX_TEST(derive_gives_a_subset_or_nothing)
{
	for (uint32_t held = 0; held <= HX_RIGHTS_ALL; held++) {
		start(2);
		struct hx_token parent = create(&thing, held);
		for (uint32_t asked = 0; asked <= HX_RIGHTS_ALL; asked += 1 + (held & 3)) {
			bool may = (held & HX_RIGHT_DERIVE) != 0 && (asked & ~held) == 0;
			struct hx_token_result r = hx_capability_derive(&table, parent, asked);
			HX_CHECK_STATUS(r.status, may ? HX_OK : HX_PERMISSION_DENIED);
			if (r.status == HX_OK) {
				HX_CHECK(passes(r.value, &thing, asked));
				HX_CHECK(!passes(r.value, &thing, HX_RIGHTS_ALL & ~asked) ||
					 asked == HX_RIGHTS_ALL);
				hx_capability_forget(&table, &thing);
				parent = create(&thing, held);
			}
		}
		HX_REQUIRE_STATUS(hx_capability_validate(&table), HX_OK);
	}
	start(2);
	struct hx_token all = create(&thing, HX_RIGHTS_ALL);
	HX_CHECK_STATUS(hx_capability_derive(&table, all, HX_RIGHTS_ALL + 1).status,
			HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_derive(&table, all, UINT32_MAX).status, HX_PERMISSION_DENIED);
	HX_CHECK_EQUAL(table.live, 1);
}

HX_TEST(a_full_table_refuses)
{
	start(3);
	struct hx_token t[3];
	for (unsigned i = 0; i < 3; i++) {
		t[i] = create(&thing, HX_RIGHTS_ALL);
	}
	HX_CHECK_STATUS(hx_capability_create(&table, &thing, 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(hx_capability_derive(&table, t[1], 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
	HX_CHECK_STATUS(hx_capability_revoke(&table, t[1], t[1]), HX_OK);
	HX_CHECK(!passes(t[1], &thing, NOTHING));
	struct hx_token again = create(&other, HX_RIGHT_MAP);
	HX_CHECK(again.v != t[1].v); /* the same slot, another life */
	HX_CHECK_EQUAL(again.v & 0xffff, t[1].v & 0xffff);
	HX_CHECK(!passes(t[1], &thing, NOTHING) && !passes(t[1], &other, NOTHING));
	HX_CHECK(passes(t[0], &thing, NOTHING) && passes(t[2], &thing, NOTHING));
}

HX_TEST(revoke_needs_the_right_and_the_line)
{
	start(SLOTS);
	struct hx_token root = create(&thing, HX_RIGHTS_ALL);
	struct hx_token child = derive(root, HX_RIGHTS_ALL);
	struct hx_token sibling = derive(root, HX_RIGHTS_ALL);
	struct hx_token weak = derive(child, HX_RIGHT_DERIVE);
	struct hx_token leaf = derive(weak, 0);
	struct hx_token stranger = create(&thing, HX_RIGHTS_ALL);
	HX_CHECK_STATUS(hx_capability_revoke(&table, weak, leaf), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, weak, weak), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, child, root), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, sibling, leaf), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, stranger, leaf), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, HX_TOKEN_NONE, leaf), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, root, HX_TOKEN_NONE), HX_PERMISSION_DENIED);
	HX_CHECK_EQUAL(table.live, 6);
	HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
	/* From far above: weak and leaf go, the others stay. */
	HX_CHECK_STATUS(hx_capability_revoke(&table, root, weak), HX_OK);
	HX_CHECK(!passes(weak, &thing, NOTHING) && !passes(leaf, &thing, NOTHING));
	HX_CHECK(passes(root, &thing, NOTHING) && passes(child, &thing, NOTHING) &&
		 passes(sibling, &thing, NOTHING) && passes(stranger, &thing, NOTHING));
	/* A token that is gone is nobody's victim and revokes nothing. */
	HX_CHECK_STATUS(hx_capability_revoke(&table, root, weak), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, weak, weak), HX_PERMISSION_DENIED);
	HX_CHECK_STATUS(hx_capability_revoke(&table, root, root), HX_OK);
	HX_CHECK_EQUAL(table.live, 1);
	HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
}

/* A chain through all slots, whose parents lie above and below their children. */
HX_TEST(a_long_line_goes_at_once)
{
	start(SLOTS);
	struct hx_token line[SLOTS];
	for (unsigned round = 0; round < 8; round++) {
		line[0] = create(&thing, HX_RIGHTS_ALL);
		for (unsigned i = 1; i < SLOTS; i++) {
			line[i] = derive(line[i - 1], HX_RIGHTS_ALL);
		}
		unsigned cut = 1 + round * 7;
		HX_CHECK_STATUS(hx_capability_revoke(&table, line[0], line[cut]), HX_OK);
		for (unsigned i = 0; i < SLOTS; i++) {
			HX_CHECK_EQUAL(passes(line[i], &thing, HX_RIGHTS_ALL), i < cut);
		}
		HX_REQUIRE_STATUS(hx_capability_validate(&table), HX_OK);
		/* The freed slots come back in another order. */
		(void)derive(line[cut - 1], 0);
		hx_capability_forget(&table, &thing);
		HX_CHECK_EQUAL(table.live, 0);
		HX_REQUIRE_STATUS(hx_capability_validate(&table), HX_OK);
	}
}

HX_TEST(forget_takes_one_object_only)
{
	start(SLOTS);
	struct hx_token a = create(&thing, HX_RIGHTS_ALL), b = create(&other, HX_RIGHTS_ALL);
	struct hx_token a2 = derive(a, HX_RIGHTS_ALL), b2 = derive(b, HX_RIGHTS_ALL);
	hx_capability_forget(&table, &thing);
	HX_CHECK(!passes(a, &thing, NOTHING) && !passes(a2, &thing, NOTHING));
	HX_CHECK(passes(b, &other, HX_RIGHTS_ALL) && passes(b2, &other, HX_RIGHTS_ALL));
	HX_CHECK_EQUAL(table.live, 2);
	HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
}

/* All tokens one or two bits away from a live one, over the same object. */
HX_TEST(flipped_bits_are_refused)
{
	start(SLOTS);
	struct hx_token live[SLOTS];
	for (unsigned i = 0; i < SLOTS; i++) {
		live[i] = create(&thing, HX_RIGHTS_ALL);
	}
	/* Some slots in their second and third life. */
	for (unsigned i = 0; i < SLOTS; i += 3) {
		HX_CHECK_STATUS(hx_capability_revoke(&table, live[i], live[i]), HX_OK);
		live[i] = create(&thing, HX_RIGHTS_ALL);
		if (i % 2) {
			HX_CHECK_STATUS(hx_capability_revoke(&table, live[i], live[i]), HX_OK);
			live[i] = create(&thing, HX_RIGHTS_ALL);
		}
	}
	unsigned accepted = 0;
	for (unsigned i = 0; i < SLOTS; i++) {
		HX_CHECK(passes(live[i], &thing, HX_RIGHTS_ALL));
		for (unsigned a = 0; a < 64; a++) {
			for (unsigned b = a; b < 64; b++) {
				uint64_t flip = UINT64_C(1) << a | UINT64_C(1) << b;
				struct hx_token forged = {live[i].v ^ flip};
				accepted += passes(forged, &thing, NOTHING);
				HX_CHECK(a != b || hx_capability_derive(&table, forged, 0).status ==
							   HX_PERMISSION_DENIED);
			}
		}
	}
	HX_CHECK_EQUAL(accepted, 0);
	HX_CHECK_EQUAL(table.live, SLOTS);
}

HX_TEST(a_million_random_tokens_are_refused)
{
	start(SLOTS);
	for (unsigned i = 0; i < SLOTS; i++) {
		(void)create(&thing, HX_RIGHTS_ALL);
	}
	struct hx_random r = {7};
	unsigned accepted = 0;
	for (unsigned i = 0; i < 1000000; i++) {
		/* Every second one names a slot that exists. */
		uint64_t v = hx_random(&r);
		struct hx_token forged = {i % 2 ? v : (v & ~UINT64_C(0xffff)) | (v & (SLOTS - 1))};
		accepted += passes(forged, &thing, NOTHING);
	}
	HX_CHECK_EQUAL(accepted, 0);
}

/* Slots with two lives left: afterwards they are retired, and no token returns. */
HX_TEST(generations_end_in_retirement)
{
	start(4);
	const uint64_t end = UINT64_C(1) << 48;
	for (unsigned i = 0; i < 4; i++) {
		slots[i].generation = end - 4;
	}
	struct hx_token seen[8];
	for (unsigned i = 0; i < 8; i++) {
		seen[i] = create(&thing, HX_RIGHTS_ALL);
		for (unsigned k = 0; k < i; k++) {
			HX_CHECK(seen[k].v != seen[i].v);
			HX_CHECK(!passes(seen[k], &thing, NOTHING));
		}
		HX_CHECK(passes(seen[i], &thing, HX_RIGHTS_ALL));
		HX_CHECK_STATUS(hx_capability_revoke(&table, seen[i], seen[i]), HX_OK);
		HX_REQUIRE_STATUS(hx_capability_validate(&table), HX_OK);
	}
	HX_CHECK_STATUS(hx_capability_create(&table, &thing, 0).status, HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(table.live, 0);
	HX_CHECK_EQUAL(table.free, 0);
	for (unsigned i = 0; i < 4; i++) {
		HX_CHECK_EQUAL(slots[i].generation, end);
		/* Generation 2^48 cut to 48 bits is 0: that token is no token either. */
		HX_CHECK(!passes((struct hx_token){i}, &thing, NOTHING));
	}
	for (unsigned i = 0; i < 8; i++) {
		HX_CHECK(!passes(seen[i], &thing, NOTHING));
	}
}

HX_TEST(the_validator_sees_damage)
{
	start(8);
	struct hx_token root = create(&thing, HX_RIGHT_DERIVE | HX_RIGHT_MAP);
	struct hx_token child = derive(root, HX_RIGHT_MAP);
	uint32_t c = child.v & 0xffff, p = root.v & 0xffff;
	struct hx_capability kept[8];
#define DAMAGED(change)                                                                            \
	do {                                                                                       \
		hx_memcpy(kept, slots, sizeof kept);                                               \
		change;                                                                            \
		HX_CHECK_STATUS(hx_capability_validate(&table), HX_CORRUPTED);                     \
		hx_memcpy(slots, kept, sizeof kept);                                               \
		HX_REQUIRE_STATUS(hx_capability_validate(&table), HX_OK);                          \
	} while (0)
	DAMAGED(slots[c].rights |= HX_RIGHT_UNMAP);
	DAMAGED(slots[c].rights |= UINT32_C(1) << 31);
	DAMAGED(slots[c].object = &other);
	DAMAGED(slots[c].parent = 7);
	DAMAGED(slots[c].parent = 8);
	DAMAGED(slots[c].generation++);
	DAMAGED(slots[c].generation += UINT64_C(1) << 48);
	DAMAGED(slots[p].parent = (uint16_t)c);
	DAMAGED(slots[p].rights &= ~HX_RIGHT_DERIVE);
	DAMAGED(slots[table.vacant].parent = table.vacant);
	DAMAGED(slots[slots[table.vacant].parent].parent = table.vacant);
	DAMAGED(slots[table.vacant].parent = (uint16_t)c);
	DAMAGED(slots[table.vacant].generation = (UINT64_C(1) << 48) + 2);
#undef DAMAGED
}

/* ---- Random histories against a tree ---- */

struct node {
	struct hx_token token;
	const void *object;
	uint32_t rights;
	unsigned parent; /* its own index: a root */
	bool live;
};

static struct node nodes[HISTORY];
static unsigned node_count;

static unsigned model_live(void)
{
	unsigned n = 0;
	for (unsigned i = 0; i < node_count; i++) {
		n += nodes[i].live;
	}
	return n;
}

static bool below(unsigned i, unsigned above)
{
	while (i != above && nodes[i].parent != i) {
		i = nodes[i].parent;
	}
	return i == above;
}

static void model_add(struct hx_token token, const void *object, uint32_t rights, unsigned parent)
{
	nodes[node_count] = (struct node){token, object, rights, parent, true};
	node_count++;
}

/* A node among the newest, live or not; most are worth asking about. */
static unsigned pick(struct hx_random *r)
{
	unsigned window = node_count < 96 ? node_count : 96;
	return node_count - 1 - (unsigned)hx_random_below(r, window);
}

static void random_step(struct hx_random *r)
{
	static const int objects[3];
	const void *object = &objects[hx_random_below(r, 3)];
	uint32_t rights = (uint32_t)hx_random(r) & HX_RIGHTS_ALL;
	unsigned op = (unsigned)hx_random_below(r, 100);
	if (op < 20 || node_count == 0) {
		rights |= HX_RIGHT_DERIVE | HX_RIGHT_REVOKE;
		struct hx_token_result t = hx_capability_create(&table, object, rights);
		HX_CHECK_STATUS(t.status, model_live() < SLOTS ? HX_OK : HX_OUT_OF_MEMORY);
		if (t.status == HX_OK) {
			model_add(t.value, object, rights, node_count);
		}
	} else if (op < 65) {
		unsigned from = pick(r);
		rights &= op < 60 ? nodes[from].rights : HX_RIGHTS_ALL;
		bool may = nodes[from].live && (nodes[from].rights & HX_RIGHT_DERIVE) != 0 &&
			   (rights & ~nodes[from].rights) == 0;
		hx_status expected = !may                   ? HX_PERMISSION_DENIED
				     : model_live() < SLOTS ? HX_OK
							    : HX_OUT_OF_MEMORY;
		struct hx_token_result t = hx_capability_derive(&table, nodes[from].token, rights);
		HX_CHECK_STATUS(t.status, expected);
		if (t.status == HX_OK) {
			model_add(t.value, nodes[from].object, rights, from);
		}
	} else if (op < 97) {
		unsigned by = pick(r), victim = pick(r);
		if (op < 80) { /* likelier to be allowed */
			for (by = victim; nodes[by].parent != by && hx_random_below(r, 2);) {
				by = nodes[by].parent;
			}
		}
		bool may = nodes[by].live && nodes[victim].live && below(victim, by) &&
			   (nodes[by].rights & HX_RIGHT_REVOKE) != 0;
		HX_CHECK_STATUS(hx_capability_revoke(&table, nodes[by].token, nodes[victim].token),
				may ? HX_OK : HX_PERMISSION_DENIED);
		for (unsigned i = 0; may && i < node_count; i++) {
			nodes[i].live = nodes[i].live && !below(i, victim);
		}
	} else {
		hx_capability_forget(&table, object);
		for (unsigned i = 0; i < node_count; i++) {
			nodes[i].live = nodes[i].live && nodes[i].object != object;
		}
	}
}

HX_TEST(random_histories_match_a_tree)
{
	for (unsigned seed = 1; seed <= 4; seed++) {
		start(SLOTS);
		node_count = 0;
		struct hx_random r = {seed};
		for (unsigned step = 0; step < 3000 && node_count < HISTORY; step++) {
			random_step(&r);
			HX_CHECK_STATUS(hx_capability_validate(&table), HX_OK);
			HX_CHECK_EQUAL(table.live, model_live());
			for (unsigned k = 0; k < 8; k++) {
				unsigned i = k < 6 ? pick(&r)
						   : (unsigned)hx_random_below(&r, node_count);
				uint32_t rights = (uint32_t)hx_random(&r) & HX_RIGHTS_ALL;
				rights = k % 2 ? rights & nodes[i].rights : rights;
				bool good = nodes[i].live && (rights & ~nodes[i].rights) == 0;
				HX_CHECK_EQUAL(passes(nodes[i].token, nodes[i].object, rights),
					       good);
			}
			HX_BAIL();
		}
	}
}

HX_SUITE(capability, HX_CASE(arguments_are_checked),
	 HX_CASE(check_wants_life_object_and_all_rights), HX_CASE(derive_gives_a_subset_or_nothing),
	 HX_CASE(a_full_table_refuses), HX_CASE(revoke_needs_the_right_and_the_line),
	 HX_CASE(a_long_line_goes_at_once), HX_CASE(forget_takes_one_object_only),
	 HX_CASE(flipped_bits_are_refused), HX_CASE(a_million_random_tokens_are_refused),
	 HX_CASE(generations_end_in_retirement), HX_CASE(the_validator_sees_damage),
	 HX_CASE(random_histories_match_a_tree));
