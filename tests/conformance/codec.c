/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Conformance: geometry and codec, as pure functions. */
#include "conformance.h"

HX_CONFORMANCE(geometry_is_consistent)
{
	(void)hx_test_machine();
	const struct hx_geometry *g = &hx_hal_geometry;
	HX_REQUIRE(g->levels >= 2 && g->levels <= HX_LEVELS_MAX);
	unsigned bits = g->page_shift;
	for (unsigned l = 0; l < g->levels; l++) {
		HX_CHECK(g->bits[l] > 0);
		bits += g->bits[l];
	}
	HX_CHECK_EQUAL(g->page_shift, 12);
	HX_CHECK_EQUAL(g->va_bits, bits);
	HX_CHECK(g->pa_bits >= 32 && g->pa_bits <= 56);
	HX_CHECK(g->asid_bits <= 16);
	HX_CHECK(has_leaf(0));
	HX_CHECK_EQUAL(g->leaf_levels >> g->levels, 0);
	HX_CHECK_EQUAL(hx_user_end(), UINT64_C(1) << (g->va_bits - 1));
	HX_CHECK_EQUAL(hx_kernel_start(), ~UINT64_C(0) << (g->va_bits - 1));
	HX_CHECK(g->group_bits == 0 ||
		 (g->group_bits <= g->bits[0] && !has_feature(HX_MMU_BREAK_BEFORE_MAKE)));
	hx_log("%u levels, leaves at 0x%x, groups of %u, %u bits of physical address, %u of "
	       "identifiers, features 0x%x",
	       g->levels, g->leaf_levels, 1u << g->group_bits, g->pa_bits, g->asid_bits,
	       (unsigned)g->features);
}

/* Each address bit of a leaf of @level by itself, and the edges of the field. */
static unsigned addresses_of(unsigned level, uint64_t out[64])
{
	uint64_t size = level_bytes(level), end = UINT64_C(1) << hx_hal_geometry.pa_bits;
	unsigned n = 0;
	out[n++] = 0;
	if (size >= end) {
		return n;
	}
	for (uint64_t bit = size; bit < end; bit <<= 1) {
		out[n++] = bit;
	}
	out[n++] = end - size;
	out[n++] = hx_align_down(UINT64_C(0x5555555555555555) & (end - 1), size);
	return n;
}

/* Bit b of @set chooses the b-th flag. */
static uint64_t flags_of(unsigned set)
{
	static const uint64_t bits[] = {
		HX_PAGE_WRITABLE, HX_PAGE_USER,  HX_PAGE_WRITE_THROUGH, HX_PAGE_NO_CACHE,
		HX_PAGE_ACCESSED, HX_PAGE_DIRTY, HX_PAGE_GLOBAL,        HX_PAGE_NO_EXECUTE,
	};
	uint64_t flags = HX_PAGE_PRESENT;
	for (unsigned b = 0; b < HX_ARRAY_LENGTH(bits); b++) {
		flags |= set >> b & 1 ? bits[b] : 0;
	}
	return flags;
}

enum { FLAG_SETS = 1 << 8 };

/* All flags at all levels, each address bit. A reserved encoding would not be a LEAF. */
static void check_round_trips(void)
{
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		uint64_t addresses[64];
		unsigned n = addresses_of(level, addresses);
		uint64_t huge = level > 0 ? HX_PAGE_HUGE : 0;
		for (unsigned set = 0; has_leaf(level) && set < FLAG_SETS; set++) {
			uint64_t flags = flags_of(set);
			hx_pte prot = hx_hal_pte_prot(flags, level);
			/* HUGE is no input; neither is a bit that the word does not have. */
			HX_CHECK_EQUAL(hx_hal_pte_prot(flags | HX_PAGE_HUGE, level), prot);
			for (unsigned i = 0; i < n; i++) {
				hx_pte e = hx_hal_pte_leaf(hx_pa(addresses[i]), prot, level);
				HX_CHECK_EQUAL(hx_hal_pte_kind(e, level), HX_PTE_LEAF);
				HX_CHECK_EQUAL(hx_hal_pte_pa(e, level).v, addresses[i]);
				HX_CHECK_EQUAL(hx_hal_pte_flags(e, level), flags | huge);
			}
		}
	}
}

HX_CONFORMANCE(leaves_round_trip_with_all_flags)
{
	(void)hx_test_machine();
	check_round_trips();
}

/* The memory types that a codec writes only where the machine has them. */
HX_CONFORMANCE(leaves_round_trip_with_and_without_types)
{
	(void)hx_test_machine();
	hx_hal_geometry.features ^= HX_MMU_MEMORY_TYPES;
	check_round_trips();
	hx_hal_geometry.features ^= HX_MMU_MEMORY_TYPES;
}

/* What a level cannot hold is not taken for something that it can. */
HX_CONFORMANCE(levels_decide_what_an_entry_is)
{
	(void)hx_test_machine();
	unsigned levels = hx_hal_geometry.levels;
	uint8_t legal = hx_pte_geometry(levels).leaf_levels;
	for (unsigned level = 0; level < levels; level++) {
		for (unsigned set = 0; set < FLAG_SETS; set++) {
			hx_pte prot = hx_hal_pte_prot(flags_of(set), level);
			hx_pte e = hx_hal_pte_leaf(hx_pa(0), prot, level);
			enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
			HX_CHECK_EQUAL(kind, legal >> level & 1 ? HX_PTE_LEAF : HX_PTE_SOFT);
		}
	}
	HX_CHECK(hx_hal_pte_kind(hx_hal_pte_table(hx_pa(PAGE)), 0) != HX_PTE_TABLE);
}

HX_CONFORMANCE(tables_are_never_leaves)
{
	(void)hx_test_machine();
	uint64_t addresses[64];
	unsigned n = addresses_of(0, addresses);
	for (unsigned i = 0; i < n; i++) {
		hx_pte e = hx_hal_pte_table(hx_pa(addresses[i]));
		for (unsigned level = 1; level < hx_hal_geometry.levels; level++) {
			HX_CHECK_EQUAL(hx_hal_pte_kind(e, level), HX_PTE_TABLE);
			HX_CHECK_EQUAL(hx_hal_pte_pa(e, level).v, addresses[i]);
		}
	}
}

static void check_soft(uint64_t payload)
{
	/* Marks that the machine makes by itself, on some parts even where nothing is present. */
	static const uint64_t marks = HX_PAGE_ACCESSED | HX_PAGE_DIRTY;
	hx_pte e = hx_hal_pte_soft(payload);
	HX_CHECK(e != 0);
	HX_CHECK_EQUAL(hx_hal_pte_payload(e), payload);
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		HX_CHECK_EQUAL(hx_hal_pte_kind(e, level), HX_PTE_SOFT);
		hx_pte marked = hx_hal_pte_prot(HX_PAGE_PRESENT | marks, level) &
				~hx_hal_pte_prot(HX_PAGE_PRESENT, level);
		HX_CHECK(!has_feature(HX_MMU_HARDWARE_AD) || (e & marked) == 0);
	}
}

HX_CONFORMANCE(soft_entries_carry_their_payload)
{
	(void)hx_test_machine();
	struct hx_random r = {3};
	const uint64_t all = (UINT64_C(1) << HX_SOFT_BITS) - 1;
	check_soft(0);
	check_soft(all);
	for (unsigned b = 0; b < HX_SOFT_BITS; b++) {
		check_soft(UINT64_C(1) << b);
		check_soft(all ^ UINT64_C(1) << b);
	}
	for (unsigned i = 0; i < 1000; i++) {
		check_soft(hx_random(&r) >> (i % 60) & all);
	}
}

/* A CPU that speculates on an entry that is not present finds no memory there. */
HX_CONFORMANCE(soft_entries_name_no_memory)
{
	uint64_t end = hx_memmap_ram_end(&hx_test_system()->map).v >> HX_FRAME_SHIFT;
	struct hx_random r = {5};
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t frame = i == 0 ? 0 : i == 1 ? end - 1 : hx_random_below(&r, end);
		uint64_t beside = hx_random_below(&r, 16) << 44; /* flags of portable code */
		hx_pte e = hx_hal_pte_soft(frame | beside);
		HX_CHECK(hx_hal_pte_pa(e, 0).v >= UINT64_C(1) << 48);
		HX_CHECK(hx_hal_pte_pa(e, 0).v >> HX_FRAME_SHIFT >= end);
	}
}

HX_CONFORMANCE(every_word_has_a_kind)
{
	(void)hx_test_machine();
	struct hx_random r = {4};
	for (unsigned level = 0; level < hx_hal_geometry.levels; level++) {
		HX_CHECK_EQUAL(hx_hal_pte_kind(0, level), HX_PTE_EMPTY);
		for (unsigned i = 0; i < 20000; i++) {
			hx_pte e = hx_random(&r);
			e &= hx_random(&r);
			e |= i & 1; /* the bit that makes it valid, on the ports so far */
			enum hx_pte_kind kind = hx_hal_pte_kind(e, level);
			HX_CHECK((kind == HX_PTE_EMPTY) == (e == 0));
			HX_CHECK(kind == HX_PTE_EMPTY || kind == HX_PTE_SOFT ||
				 (kind == HX_PTE_TABLE && level > 0) || kind == HX_PTE_LEAF);
			if (kind != HX_PTE_LEAF ||
			    !hx_is_aligned(hx_hal_pte_pa(e, level).v, level_bytes(level))) {
				continue;
			}
			/* What is read from a leaf makes a leaf that reads the same. */
			uint64_t flags = hx_hal_pte_flags(e, level);
			hx_pte again = hx_hal_pte_leaf(hx_hal_pte_pa(e, level),
						       hx_hal_pte_prot(flags, level), level);
			HX_CHECK_EQUAL(hx_hal_pte_kind(again, level), HX_PTE_LEAF);
			HX_CHECK_EQUAL(hx_hal_pte_pa(again, level).v, hx_hal_pte_pa(e, level).v);
			HX_CHECK_EQUAL(hx_hal_pte_flags(again, level), flags);
		}
	}
}

/* ---- Groups ---- */

/* Every leaf of a group with each set of flags and each address bit above the group's. */
HX_CONFORMANCE(a_group_is_its_leaves)
{
	if (!has_groups()) {
		hx_test_skip("the machine has no groups");
		return;
	}
	static hx_pte entries[4 * GROUP] __attribute__((aligned(PAGE)));
	const unsigned leaves = 1u << hx_hal_geometry.group_bits;
	HX_REQUIRE(leaves <= 2 * GROUP);
	uint64_t addresses[64];
	unsigned n = addresses_of(0, addresses);
	for (unsigned set = 0; set < FLAG_SETS; set++) {
		hx_pte prot = hx_hal_pte_prot(flags_of(set), 0);
		for (unsigned i = 0; i < n; i++) {
			uint64_t pa = hx_align_down(addresses[i], (uint64_t)leaves * PAGE);
			for (unsigned k = 0; k < leaves; k++, pa += PAGE) {
				hx_pte e = hx_hal_pte_leaf(hx_pa(pa), prot, 0);
				hx_pte *p = &entries[leaves + k];
				hx_hal_pte_store(p, e);
				HX_CHECK_EQUAL(hx_hal_pte_raw(p), e);
				HX_CHECK_EQUAL(hx_hal_pte_load(p), e);
				hx_hal_pte_store(p, hx_hal_pte_group(e));
				HX_CHECK_EQUAL(hx_hal_pte_raw(p), hx_hal_pte_group(e));
				HX_CHECK_EQUAL(hx_hal_pte_kind(hx_hal_pte_raw(p), 0), HX_PTE_SOFT);
				HX_CHECK_EQUAL(hx_hal_pte_load(p), e);
			}
		}
	}
	hx_memset(entries, 0, sizeof entries);
}

/* Loading changes nothing but a group's leaf: here nothing at all. */
HX_CONFORMANCE(without_groups_no_entry_is_one)
{
	(void)hx_test_machine();
	static hx_pte entries[2] __attribute__((aligned(16)));
	const uint8_t bits = hx_hal_geometry.group_bits;
	struct hx_random r = {6};
	hx_hal_geometry.group_bits = 0;
	for (unsigned i = 0; i < 20000; i++) {
		hx_pte leaf =
			hx_hal_pte_leaf(hx_pa(PAGE), hx_hal_pte_prot(flags_of(i % 256), 0), 0);
		hx_pte e = i % 2 ? hx_random(&r) : hx_hal_pte_group(leaf);
		__atomic_store_n(&entries[i / 2 % 2], e, __ATOMIC_RELAXED);
		HX_CHECK_EQUAL(hx_hal_pte_load(&entries[i / 2 % 2]), e);
	}
	hx_hal_geometry.group_bits = bits;
}
