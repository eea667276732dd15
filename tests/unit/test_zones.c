/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The front: zones over memory maps, fallback, pressure, donation, misuse.
 *
 * Memory maps are made up. Only the metadata need memory: while a front is
 * built, the direct map's offset is moved so that the physical addresses below
 * the metadata limit lie in an array. That is why the suite is hosted only: a
 * board's console stands behind the same offset.
 */
#include "hx_test.h"
#include "inject.h"

#include <hx/frames.h>

enum { ARENA_BYTES = 2 << 20 };

static _Alignas(4096) unsigned char arena[ARENA_BYTES];
static _Alignas(64) unsigned char zone_metadata[64 << 10];
static struct hx_memmap map, map_before;
static struct hx_frames frames;

static const char *const names[][2] = {
	{"bump", NULL},     {"bitmap", NULL},  {"buddy", NULL},
	{"slab", "bitmap"}, {"slab", "buddy"}, {"tree", NULL},
};

/* The @i-th combination of traits; false when one is not built in. */
static bool configure(unsigned i, struct hx_frames_config *c)
{
	*c = (struct hx_frames_config){
		.physical = hx_frame_trait_find(names[i][0]),
		.backing = hx_frame_trait_find(names[i][1]),
	};
	return c->physical && (c->backing || !names[i][1]);
}

static bool frees(const struct hx_frames_config *c)
{
	return !hx_streq(c->physical->name, "bump");
}

/* Some trait that frees; false (and the case skipped) when there is none. */
static bool configure_any(struct hx_frames_config *c)
{
	for (unsigned i = 1; i < HX_ARRAY_LENGTH(names); i++) {
		if (configure(i, c)) {
			return true;
		}
	}
	hx_test_skip("no allocator that frees is built in");
	return false;
}

struct piece {
	uint64_t base, bytes;
	enum hx_memory_type type;
	uint32_t node;
};

static void read_map(const struct piece *pieces, unsigned count)
{
	hx_memmap_init(&map);
	for (unsigned i = 0; i < count; i++) {
		HX_CHECK_STATUS(hx_memmap_add(&map, (struct hx_memory_range){hx_pa(pieces[i].base),
									     pieces[i].bytes,
									     pieces[i].type,
									     pieces[i].node}),
				HX_OK);
	}
	map_before = map;
}

/* Build the front with the arena ending at physical address @limit. */
static hx_status build(struct hx_frames_config *c, uint64_t limit)
{
	uintptr_t saved = hx_hal_direct_offset;
	hx_hal_direct_offset = (uintptr_t)arena + ARENA_BYTES - (uintptr_t)limit;
	c->metadata_limit = hx_pa(limit);
	hx_memset(arena, 0xa5, sizeof arena);
	hx_status status = hx_frames_init(&frames, c, &map);
	hx_hal_direct_offset = saved;
	return status;
}

/*
 * The same where it must be refused before metadata are written. Refusals are
 * logged, and a board's console may lie in the direct map: it stays where it is.
 */
static hx_status build_refused(struct hx_frames_config *c, uint64_t limit)
{
	c->metadata_limit = hx_pa(limit);
	return hx_frames_init(&frames, c, &map);
}

/* Every kind of memory in small pieces; the arena is the 2 MiB at 32 MiB. */
static const struct piece small_machine[] = {
	{0, HX_KIB(64), HX_MEMORY_RAM, 0},
	{HX_MIB(1), HX_KIB(64), HX_MEMORY_KERNEL, 0},
	{HX_MIB(1) + HX_KIB(64), HX_KIB(64), HX_MEMORY_RAM, 0},
	{HX_MIB(16) - HX_KIB(64), HX_KIB(128), HX_MEMORY_RAM, 0}, /* across the DMA line */
	{HX_MIB(32), HX_MIB(2), HX_MEMORY_RAM, 0},
	{HX_GIB(4) - HX_KIB(16), HX_KIB(128), HX_MEMORY_RAM, 0}, /* across the DMA32 line */
	{HX_GIB(5), HX_KIB(256), HX_MEMORY_RAM, 0},
	{HX_GIB(5) + HX_KIB(256), HX_KIB(64), HX_MEMORY_INITRD, 0},
};
static const uint64_t small_limit = HX_MIB(34);
static const uint64_t small_direct = HX_GIB(5) + HX_KIB(128); /* cuts a region */

/* Few frames of each kind, to be used up; the arena ends at 17 MiB. */
static const struct piece tiny_machine[] = {
	{HX_KIB(4), HX_KIB(32), HX_MEMORY_RAM, 0},
	{HX_MIB(16), HX_MIB(1), HX_MEMORY_RAM, 0},
	{HX_GIB(4), HX_KIB(48), HX_MEMORY_RAM, 0},
	{HX_GIB(4) + HX_MIB(1), HX_KIB(64), HX_MEMORY_RAM, 0},
};
static const uint64_t tiny_limit = HX_MIB(17);
static const uint64_t tiny_direct = HX_GIB(4) + HX_MIB(1);

static bool build_tiny(struct hx_frames_config *c)
{
	read_map(tiny_machine, HX_ARRAY_LENGTH(tiny_machine));
	c->direct_limit = hx_pa(tiny_direct);
	HX_CHECK_STATUS(build(c, tiny_limit), HX_OK);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	return hx_test_failures() == 0;
}

struct shape {
	enum hx_zone_kind kind;
	uint32_t node;
	uint64_t base, end; /* bytes */
};

static void check_shapes(const struct shape *want, unsigned count)
{
	HX_CHECK_EQUAL(frames.zone_count, count);
	for (unsigned i = 0; i < count && i < frames.zone_count; i++) {
		const struct hx_zone *z = &frames.zones[i];
		HX_CHECK_EQUAL(z->kind, want[i].kind);
		HX_CHECK_EQUAL(z->node, want[i].node);
		HX_CHECK_EQUAL(z->front->base, want[i].base / HX_FRAME_BYTES);
		HX_CHECK_EQUAL(z->front->base + z->front->span_frames,
			       want[i].end / HX_FRAME_BYTES);
		HX_CHECK(hx_frames_zone_of(&frames, hx_pfn(z->front->base)) == z);
		HX_CHECK(hx_frames_zone_of(&frames, hx_pfn(want[i].end / HX_FRAME_BYTES - 1)) == z);
	}
}

HX_TEST(zones_follow_the_map)
{
	static const struct shape small[] = {
		{HX_ZONE_DMA, 0, HX_KIB(4), HX_MIB(16)},
		{HX_ZONE_DMA32, 0, HX_MIB(16), HX_GIB(4)},
		{HX_ZONE_NORMAL, 0, HX_GIB(4), HX_GIB(5) + HX_KIB(128)},
		{HX_ZONE_HIGH, 0, HX_GIB(5) + HX_KIB(128), HX_GIB(5) + HX_KIB(320)},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		read_map(small_machine, HX_ARRAY_LENGTH(small_machine));
		c.direct_limit = hx_pa(small_direct);
		HX_REQUIRE_STATUS(build(&c, small_limit), HX_OK);
		check_shapes(small, HX_ARRAY_LENGTH(small));
		HX_CHECK(!hx_frames_zone_of(&frames, hx_pfn(0)));
		HX_CHECK(!hx_frames_zone_of(&frames, hx_pa_to_pfn(hx_pa(HX_GIB(6)))));
		/* All RAM that the metadata left, but frame 0. */
		uint64_t ram = hx_memmap_total(&map, HX_MEMORY_RAM) / HX_FRAME_BYTES - 1;
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), ram);
		HX_CHECK_EQUAL(hx_frames_total_frames(&frames), ram);
		HX_CHECK_STATUS(hx_memmap_validate(&map), HX_OK);
		struct hx_frame_stats s;
		hx_frames_stats(&frames, &s);
		HX_CHECK_EQUAL(s.total_frames, ram);
		uint64_t taken = hx_memmap_total(&map_before, HX_MEMORY_RAM) -
				 hx_memmap_total(&map, HX_MEMORY_RAM);
		HX_CHECK(s.metadata_bytes <= taken && taken < s.metadata_bytes + HX_KIB(5));
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	}
}

HX_TEST(nodes_and_wide_holes_make_zones)
{
	static const struct piece pieces[] = {
		{HX_MIB(16), HX_MIB(8), HX_MEMORY_RAM, 0},
		{HX_MIB(24), HX_MIB(8), HX_MEMORY_RAM, 1},
		{HX_MIB(32), HX_MIB(8), HX_MEMORY_RAM, 0}, /* node 0 again, behind node 1 */
		{HX_MIB(50), HX_MIB(8), HX_MEMORY_RAM, 0}, /* a small hole */
		{HX_GIB(4), HX_MIB(8), HX_MEMORY_RAM, 0},
		{HX_GIB(64), HX_MIB(8), HX_MEMORY_RAM, 0}, /* a wide one */
		{HX_TIB(64), HX_MIB(8), HX_MEMORY_RAM, 7},
	};
	static const struct shape want[] = {
		{HX_ZONE_DMA32, 0, HX_MIB(16), HX_MIB(24)},
		{HX_ZONE_DMA32, 1, HX_MIB(24), HX_MIB(32)},
		{HX_ZONE_DMA32, 0, HX_MIB(32), HX_MIB(58)},
		{HX_ZONE_NORMAL, 0, HX_GIB(4), HX_GIB(4) + HX_MIB(8)},
		{HX_ZONE_NORMAL, 0, HX_GIB(64), HX_GIB(64) + HX_MIB(8)},
		{HX_ZONE_NORMAL, 7, HX_TIB(64), HX_TIB(64) + HX_MIB(8)},
	};
	struct hx_frames_config c;
	if (!configure_any(&c)) {
		return;
	}
	read_map(pieces, HX_ARRAY_LENGTH(pieces));
	HX_REQUIRE_STATUS(build(&c, HX_MIB(24)), HX_OK);
	check_shapes(want, HX_ARRAY_LENGTH(want));
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
}

HX_TEST(init_that_fails_leaves_nothing)
{
	struct hx_frames_config c;
	if (!configure_any(&c)) {
		return;
	}
	const struct piece rom = {HX_MIB(1), HX_MIB(1), HX_MEMORY_ROM, 0};
	const struct piece ram = {HX_MIB(32), HX_KIB(4), HX_MEMORY_RAM, 0};
	const struct piece zero = {0, HX_KIB(4), HX_MEMORY_RAM, 0};
	const struct piece *const poor[] = {&rom, &zero};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(poor); i++) {
		read_map(poor[i], 1);
		HX_CHECK_STATUS(build_refused(&c, HX_MIB(33)), HX_OUT_OF_MEMORY);
		HX_CHECK(hx_memcmp(&map, &map_before, sizeof map) == 0);
		HX_CHECK_EQUAL(frames.zone_count, 0);
	}
	read_map(&ram, 1); /* room for metadata or for frames, not for both */
	HX_CHECK_STATUS(build(&c, HX_MIB(32) + HX_KIB(4)), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(frames.zone_count, 0);

	read_map(tiny_machine, HX_ARRAY_LENGTH(tiny_machine));
	HX_CHECK_STATUS(build_refused(&c, HX_KIB(4)),
			HX_OUT_OF_MEMORY); /* nothing below the limit */
	HX_CHECK(hx_memcmp(&map, &map_before, sizeof map) == 0);

	struct hx_frames_config none = {0};
	HX_CHECK_STATUS(build_refused(&none, tiny_limit), HX_INVALID_ARGUMENT);
	struct hx_frames_config slab = {.physical = hx_frame_trait_find("slab")};
	if (slab.physical) {
		HX_CHECK_STATUS(build_refused(&slab, tiny_limit), HX_INVALID_ARGUMENT);
		slab.backing = slab.physical;
		HX_CHECK_STATUS(build_refused(&slab, tiny_limit), HX_INVALID_ARGUMENT);
		slab.backing = hx_frame_trait_find("bump"); /* takes nothing back */
		HX_CHECK_STATUS(build_refused(&slab, tiny_limit), HX_INVALID_ARGUMENT);
	}
	HX_CHECK(hx_memcmp(&map, &map_before, sizeof map) == 0);

	hx_memmap_init(&map); /* a node for every piece */
	for (unsigned i = 0; i <= HX_ZONES_MAX; i++) {
		HX_CHECK_STATUS(
			hx_memmap_add(&map, (struct hx_memory_range){hx_pa(HX_MIB(16 + i)),
								     HX_MIB(1), HX_MEMORY_RAM, i}),
			HX_OK);
	}
	map_before = map;
	HX_CHECK_STATUS(build_refused(&c, HX_MIB(17)), HX_NOT_SUPPORTED);
	HX_CHECK(hx_memcmp(&map, &map_before, sizeof map) == 0);
	HX_CHECK_EQUAL(frames.zone_count, 0);
}

static enum hx_zone_kind kind_of(struct hx_pfn f)
{
	const struct hx_zone *z = hx_frames_zone_of(&frames, f);
	return z ? z->kind : HX_ZONE_KINDS;
}

/* Any trait that needs no backing. */
static const struct hx_frame_trait *device_trait(void)
{
	const struct hx_frame_trait *t = hx_frame_trait_at(0);
	HX_CHECK(!hx_streq(t->name, "slab")); /* the last one */
	return t;
}

static void add_device(void)
{
	HX_REQUIRE_STATUS(hx_frames_add_zone(&frames, HX_ZONE_DEVICE, 0, device_trait(),
					     hx_pa_to_pfn(hx_pa(HX_GIB(2))), 16, zone_metadata,
					     sizeof zone_metadata),
			  HX_OK);
}

/* Ask for single frames of @highest until none is left; the kinds must come in @order. */
static void exhaust(enum hx_zone_kind highest, const enum hx_zone_kind *order, unsigned count,
		    uint64_t expected)
{
	unsigned at = 0;
	uint64_t got = 0;
	struct hx_pfn last = hx_pfn(0);
	for (;;) {
		struct hx_pfn_result r = hx_frames_allocate_zone(&frames, 0, highest, 0);
		if (r.status != HX_OK) {
			HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
			break;
		}
		while (at < count && kind_of(r.value) != order[at]) {
			at++;
		}
		HX_REQUIRE(at < count);
		const struct hx_memory_range *m = hx_memmap_find(&map, hx_pfn_to_pa(r.value));
		HX_CHECK(r.value.v != 0);
		HX_CHECK(order[at] == HX_ZONE_DEVICE || (m && m->type == HX_MEMORY_RAM));
		last = r.value;
		got++;
	}
	HX_CHECK_EQUAL(got, expected);
	HX_CHECK(last.v != 0);
}

static uint64_t free_of(enum hx_zone_kind kind)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < frames.zone_count; i++) {
		const struct hx_zone *z = &frames.zones[i];
		sum += z->kind == kind ? z->front->trait->free_frames(z->front) : 0;
	}
	return sum;
}

HX_TEST(requests_fall_back_in_order)
{
	static const enum hx_zone_kind normal[] = {HX_ZONE_NORMAL, HX_ZONE_DMA32, HX_ZONE_DMA};
	static const enum hx_zone_kind high[] = {HX_ZONE_HIGH, HX_ZONE_NORMAL, HX_ZONE_DMA32,
						 HX_ZONE_DMA};
	static const enum hx_zone_kind device[] = {HX_ZONE_DEVICE};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		for (unsigned kind = 0; kind < HX_ZONE_KINDS && configure(i, &c); kind++) {
			if (!build_tiny(&c)) {
				return;
			}
			add_device();
			uint64_t all = 0, dev = free_of(HX_ZONE_DEVICE);
			HX_CHECK_EQUAL(dev, 16);
			for (unsigned k = 0; k <= kind; k++) {
				all += free_of((enum hx_zone_kind)k);
			}
			uint64_t rest = hx_frames_free_frames(&frames) - all;
			switch (kind) {
			case HX_ZONE_DEVICE:
				exhaust(HX_ZONE_DEVICE, device, 1, dev);
				HX_CHECK_EQUAL(hx_frames_free_frames(&frames), all - dev);
				break;
			case HX_ZONE_HIGH:
				exhaust(HX_ZONE_HIGH, high, 4, all);
				HX_CHECK_EQUAL(hx_frames_free_frames(&frames), rest);
				HX_CHECK_EQUAL(rest, dev);
				break;
			default:
				exhaust((enum hx_zone_kind)kind, normal + (HX_ZONE_NORMAL - kind),
					kind + 1, all);
				HX_CHECK_EQUAL(hx_frames_free_frames(&frames), rest);
				break;
			}
			HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
			HX_BAIL();
		}
	}
}

HX_TEST(constraints_choose_the_zone)
{
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		add_device();
		struct hx_frame_constraint any = {0};
		struct hx_frame_constraint low = {.limit = hx_pa_to_pfn(hx_pa(HX_MIB(16)))};
		struct hx_frame_constraint high = {.lowest = hx_pa_to_pfn(hx_pa(tiny_direct))};
		struct hx_frame_constraint device = {.lowest = hx_pa_to_pfn(hx_pa(HX_GIB(2))),
						     .limit = hx_pa_to_pfn(hx_pa(HX_GIB(3)))};
		struct hx_frame_constraint bad = {.align_frames = 6};
		struct hx_pfn_result r = hx_frames_allocate_constrained(&frames, 0, &any, 0);
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_NORMAL);
		r = hx_frames_allocate_constrained(&frames, 0, NULL, 0);
		HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_NORMAL);
		r = hx_frames_allocate_constrained(&frames, 1, &low, 0);
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_DMA);
		r = hx_frames_allocate_constrained(&frames, 2, &high, 0);
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_HIGH);
		/* A device is not a fallback, whatever is asked. */
		r = hx_frames_allocate_constrained(&frames, 0, &device, 0);
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		r = hx_frames_allocate_constrained(&frames, 0, &bad, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_ARGUMENT);
		r = hx_frames_allocate_constrained(&frames, HX_ORDER_MAX + 1, NULL, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	}
}

HX_TEST(contiguous_requests_are_aligned_runs)
{
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		uint64_t before = hx_frames_free_frames(&frames);
		struct hx_pfn_result r = hx_frames_allocate_contiguous(&frames, 11, 3, 0);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		HX_CHECK(hx_is_aligned(r.value.v, 8));
		HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_DMA32); /* 88 do not fit into NORMAL */
		HX_CHECK_EQUAL(kind_of(hx_pfn(r.value.v + 87)), HX_ZONE_DMA32);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before - 88);
		if (frees(&c)) {
			HX_CHECK_STATUS(hx_frames_free_run(&frames, r.value, 80),
					HX_WRONG_SIZE_FREE);
			HX_CHECK_STATUS(hx_frames_free_run(&frames, r.value, 88), HX_OK);
			HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
		}
		r = hx_frames_allocate_contiguous(&frames, 0, 0, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_SIZE);
		r = hx_frames_allocate_contiguous(&frames, 1, HX_ORDER_MAX + 1, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_SIZE);
		r = hx_frames_allocate_contiguous(&frames, UINT64_C(1) << 60, 4, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_SIZE);
		r = hx_frames_allocate_contiguous(&frames, UINT64_C(1) << 60, 3, 0);
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
	}
}

HX_TEST(frees_find_their_zone)
{
	for (unsigned i = 1; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		uint64_t before = hx_frames_free_frames(&frames);
		for (unsigned order = 0; order < 6; order++) {
			struct hx_pfn_result r = hx_frames_allocate(&frames, order, 0);
			HX_REQUIRE_STATUS(r.status, HX_OK);
			HX_CHECK_STATUS(hx_frames_free(&frames, r.value, order + 1),
					HX_WRONG_SIZE_FREE);
			HX_CHECK_STATUS(order % 2 ? hx_frames_deallocate(&frames, r.value)
						  : hx_frames_free(&frames, r.value, order),
					HX_OK);
			HX_CHECK_STATUS(hx_frames_free(&frames, r.value, order), HX_DOUBLE_FREE);
			HX_CHECK_STATUS(hx_frames_deallocate(&frames, r.value), HX_DOUBLE_FREE);
		}
		struct hx_pfn first = hx_pa_to_pfn(hx_pa(HX_GIB(4)));
		HX_CHECK_STATUS(hx_frames_reserve(&frames, first, 0), HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_frames_reserve(&frames, hx_pfn(0), 1), HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_reserve(&frames, first, 1 << 20), HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_reserve(&frames, first, UINT64_MAX), HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_reserve(&frames, first, 7), HX_OK);
		HX_CHECK_STATUS(hx_frames_reserve(&frames, hx_pfn(first.v + 6), 2),
				HX_ALREADY_MAPPED);
		HX_CHECK_STATUS(hx_frames_deallocate(&frames, hx_pfn(first.v + 1)),
				HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_frames_deallocate(&frames, first), HX_OK);
		HX_CHECK_STATUS(hx_frames_free(&frames, hx_pfn(0), 0), HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_frames_free(&frames, hx_pfn(UINT64_MAX), 0), HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_frames_free_run(&frames, hx_pfn(0), 1), HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_frames_deallocate(&frames, hx_pfn(0)), HX_FOREIGN_FREE);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
		hx_frames_drain(&frames);
		struct hx_frame_stats s;
		hx_frames_stats(&frames, &s);
		HX_CHECK_EQUAL(s.cached_frames, 0);
		HX_CHECK_EQUAL(s.allocations, 7);
		HX_CHECK_EQUAL(s.frees, 7);
		HX_CHECK_EQUAL(s.refused_frees, 6 * 3 + 1);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

static struct hx_pfn list[512];

/* All frames of the three kinds that plain requests fall back over, and no other. */
HX_TEST(bulk_crosses_zones)
{
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		add_device();
		uint64_t before = hx_frames_free_frames(&frames), order[HX_ZONE_KINDS];
		uint64_t apart = free_of(HX_ZONE_HIGH) + free_of(HX_ZONE_DEVICE);
		for (unsigned k = 0; k < HX_ZONE_KINDS; k++) {
			order[k] = free_of((enum hx_zone_kind)k);
		}
		HX_REQUIRE(before - apart < HX_ARRAY_LENGTH(list) && apart == 32);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 0, 0), 0);
		uint64_t n = hx_frames_allocate_bulk(&frames, list, HX_ARRAY_LENGTH(list),
						     HX_FRAMES_PINNED);
		HX_CHECK_EQUAL(n, before - apart);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), apart);
		enum hx_zone_kind kind = HX_ZONE_NORMAL;
		for (uint64_t k = 0; k < n; k++) {
			while (order[kind] == 0) {
				kind--;
			}
			order[kind]--;
			HX_CHECK_EQUAL(kind_of(list[k]), kind);
		}
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list + n, 1, 0), 0);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		hx_status status = HX_CORRUPTED;
		if (!frees(&c)) {
			HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, n, &status), 0);
			HX_CHECK_STATUS(status, HX_NOT_SUPPORTED);
			continue;
		}
		/* Zones take turns; among them one that no bulk comes from. */
		struct hx_random r = {i};
		list[n++] = hx_frames_allocate_zone(&frames, 0, HX_ZONE_HIGH, 0).value;
		for (uint64_t k = n - 1; k > 0; k--) {
			uint64_t other = hx_random_below(&r, k + 1);
			struct hx_pfn f = list[k];
			list[k] = list[other];
			list[other] = f;
		}
		const struct hx_pfn good = list[n / 2];
		const struct {
			uint64_t frame;
			hx_status status;
		} wrong[] = {
			{0, HX_FOREIGN_FREE},
			{hx_pa_to_pfn(hx_pa(HX_GIB(1))).v, HX_FOREIGN_FREE}, /* no zone's */
			{UINT64_MAX, HX_FOREIGN_FREE},
			{list[n / 2 - 1].v, HX_DOUBLE_FREE},
		};
		for (unsigned w = 0; w < HX_ARRAY_LENGTH(wrong); w++) {
			list[n / 2] = hx_pfn(wrong[w].frame);
			uint64_t from = w == 0 ? 0 : n / 2 - 1;
			if (w > 0) { /* what the last one freed */
				HX_CHECK_STATUS(hx_frames_reserve(&frames, list[from], 1), HX_OK);
			}
			uint64_t got = hx_frames_free_bulk(&frames, list + from, n - from, &status);
			HX_CHECK_STATUS(status, wrong[w].status);
			HX_CHECK_EQUAL(got, n / 2 - from);
			HX_CHECK_EQUAL(hx_frames_free_frames(&frames), apart - 1 + n / 2);
			HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
			HX_BAIL();
		}
		list[n / 2] = good;
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list + n / 2, n - n / 2, &status),
			       n - n / 2);
		HX_CHECK_STATUS(status, HX_OK);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 0, &status), 0);
		HX_CHECK_STATUS(status, HX_OK);
		hx_frames_drain(&frames);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

HX_TEST(parts_go_back_to_their_zone)
{
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		uint64_t before = hx_frames_free_frames(&frames);
		struct hx_pfn_result run = hx_frames_allocate_contiguous(&frames, 11, 3, 0);
		struct hx_pfn_result block = hx_frames_allocate(&frames, 3, 0);
		HX_REQUIRE_STATUS(run.status, HX_OK);
		HX_REQUIRE_STATUS(block.status, HX_OK);
		HX_CHECK(kind_of(run.value) != kind_of(block.value));
		HX_CHECK_STATUS(hx_frames_split(&frames, run.value, 88, 0), HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_frames_split(&frames, run.value, 88, 16), HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_frames_split(&frames, run.value, 0, 1), HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_frames_split(&frames, hx_pfn(0), 8, 1), HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_frames_split(&frames, hx_pfn(UINT64_MAX), 8, 1),
				HX_FOREIGN_FREE);
		if (!frees(&c)) {
			HX_CHECK_STATUS(hx_frames_split(&frames, block.value, 8, 1),
					HX_NOT_SUPPORTED);
			continue;
		}
		HX_CHECK_STATUS(hx_frames_split(&frames, run.value, 80, 8), HX_WRONG_SIZE_FREE);
		HX_CHECK_STATUS(hx_frames_split(&frames, hx_pfn(run.value.v + 8), 80, 8),
				HX_FOREIGN_FREE);
		HX_CHECK_STATUS(hx_frames_split(&frames, run.value, 88, 8), HX_OK);
		HX_CHECK_STATUS(hx_frames_split(&frames, block.value, 8, 1), HX_OK);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before - 96);
		for (uint64_t k = 0; k < 8; k++) {
			list[k] = hx_pfn(block.value.v + k);
		}
		hx_status status = HX_CORRUPTED;
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 8, &status), 8);
		HX_CHECK_STATUS(status, HX_OK);
		HX_CHECK_STATUS(hx_frames_split(&frames, block.value, 8, 1), HX_DOUBLE_FREE);
		for (uint64_t k = 0; k < 11; k++) {
			struct hx_pfn part = hx_pfn(run.value.v + k * 5 % 11 * 8);
			HX_CHECK_STATUS(k % 2 ? hx_frames_deallocate(&frames, part)
					      : hx_frames_free(&frames, part, 3),
					HX_OK);
		}
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

/* ---- What the allocators see of the flags ---- */

static struct {
	const struct hx_frame_trait *real;
	unsigned want, right, wrong;
} seen;

static void see(unsigned flags)
{
	seen.right += flags == seen.want;
	seen.wrong += flags != seen.want;
}

static struct hx_pfn_result see_allocate(struct hx_frame_allocator *a, unsigned order,
					 unsigned flags, const struct hx_frame_constraint *c)
{
	see(flags);
	return seen.real->allocate(a, order, flags, c);
}

static struct hx_pfn_result see_allocate_run(struct hx_frame_allocator *a, uint64_t count,
					     unsigned flags, const struct hx_frame_constraint *c)
{
	see(flags);
	return seen.real->allocate_run(a, count, flags, c);
}

static uint64_t see_allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out, uint64_t count,
				  unsigned flags)
{
	see(flags);
	return seen.real->allocate_bulk(a, out, count, flags);
}

HX_TEST(lifetimes_reach_the_allocator)
{
	struct hx_frames_config c;
	if (!configure_any(&c) || !build_tiny(&c)) {
		return;
	}
	seen.real = frames.zones[0].front->trait;
	struct hx_frame_trait wrapped = *seen.real;
	wrapped.allocate = see_allocate;
	wrapped.allocate_run = see_allocate_run;
	wrapped.allocate_bulk = see_allocate_bulk;
	for (unsigned i = 0; i < frames.zone_count; i++) {
		frames.zones[i].front->trait = &wrapped;
	}
	const struct hx_frame_constraint any = {.lowest = hx_pfn(1)};
	for (unsigned n = 0; n < 4; n++) {
		seen.right = seen.wrong = 0;
		seen.want = n & 1 ? HX_FRAMES_PINNED : 0;
		unsigned flags = seen.want | (n & 2 ? HX_ALLOC_NO_PRESSURE : 0);
		HX_CHECK(hx_frames_allocate(&frames, 0, flags).status == HX_OK);
		HX_CHECK(hx_frames_allocate_zone(&frames, 0, HX_ZONE_DMA32, flags).status == HX_OK);
		HX_CHECK(hx_frames_allocate_constrained(&frames, 0, &any, flags).status == HX_OK);
		HX_CHECK(hx_frames_allocate_contiguous(&frames, 2, 0, flags).status == HX_OK);
		HX_CHECK(hx_frames_allocate_bulk(&frames, list, 2, flags) == 2);
		HX_CHECK(seen.right >= 5);
		flags |= 1u << 9; /* no flag */
		seen.want = 1u << 31;
		HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, flags).status, HX_INVALID_ARGUMENT);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 2, flags), 0);
		HX_CHECK_EQUAL(seen.wrong, 0);
	}
	for (unsigned i = 0; i < frames.zone_count; i++) {
		frames.zones[i].front->trait = seen.real;
	}
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
}

HX_TEST(requests_that_are_none_are_refused)
{
	struct hx_frames_config c;
	if (!configure_any(&c) || !build_tiny(&c)) {
		return;
	}
	const struct hx_frame_constraint malformed[] = {
		{.align_frames = 3},
		{.boundary_frames = 12},
		{.boundary_frames = 2},
		/* Where no zone is asked as well. */
		{.align_frames = 3, .lowest = hx_pfn(UINT64_C(1) << 40)},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(malformed); i++) {
		HX_CHECK_STATUS(hx_frames_allocate_constrained(&frames, 2, &malformed[i], 0).status,
				HX_INVALID_ARGUMENT);
	}
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, ~HX_ALLOC_NO_PRESSURE).status,
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_frames_allocate_contiguous(&frames, 2, 0, 1u << 31).status,
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_frames_allocate(NULL, 0, 0).status, HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_frames_reserve(NULL, hx_pfn(1), 1), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_frames_donate(NULL, hx_pfn(1), 1), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_frames_free(NULL, hx_pfn(1), 0), HX_FOREIGN_FREE);
	HX_CHECK_STATUS(hx_frames_free_run(NULL, hx_pfn(1), 1), HX_FOREIGN_FREE);
	HX_CHECK_STATUS(hx_frames_deallocate(NULL, hx_pfn(1)), HX_FOREIGN_FREE);
	HX_CHECK_STATUS(hx_frames_split(NULL, hx_pfn(1), 2, 1), HX_FOREIGN_FREE);
	HX_CHECK_EQUAL(hx_frames_allocate_bulk(NULL, list, 1, 0), 0);
	HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, NULL, 1, 0), 0);
	HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 1, 1u << 31), 0);
	hx_status status = HX_OK;
	HX_CHECK_EQUAL(hx_frames_free_bulk(NULL, list, 1, &status), 0);
	HX_CHECK_STATUS(status, HX_FOREIGN_FREE);
	HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, NULL, 1, &status), 0);
	HX_CHECK_STATUS(status, HX_INVALID_ARGUMENT);
	HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 1, NULL), 0);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
}

HX_TEST(memory_is_donated_once)
{
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		read_map(small_machine, HX_ARRAY_LENGTH(small_machine));
		c.free_limit = hx_pa(HX_GIB(4) - HX_KIB(8)); /* inside a region */
		HX_REQUIRE_STATUS(build(&c, small_limit), HX_OK);
		uint64_t low = hx_frames_free_frames(&frames);
		HX_CHECK_EQUAL(free_of(HX_ZONE_NORMAL), 0);
		HX_CHECK_STATUS(hx_frames_allocate_zone(&frames, 0, HX_ZONE_DMA, 0).status, HX_OK);

		struct hx_pfn cut = hx_pa_to_pfn(c.free_limit);
		struct hx_pfn image = hx_pa_to_pfn(hx_pa(HX_MIB(1)));
		struct hx_pfn edge = hx_pa_to_pfn(hx_pa(HX_GIB(5) + HX_KIB(320)));
		HX_CHECK_STATUS(hx_frames_donate(&frames, cut, 0), HX_INVALID_SIZE);
		HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pfn(0), 1), HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_donate(&frames, edge, 1), HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pfn(edge.v - 1), 2),
				HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_donate(&frames, cut, UINT64_MAX), HX_INVALID_ADDRESS);
		HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pfn(cut.v - 1), 3),
				HX_INVALID_ARGUMENT);
		HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pfn(image.v + 15), 2),
				HX_INVALID_ARGUMENT);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), low - 1);
		/* Across 4 GiB, where two zones meet: all of it or nothing. */
		HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pfn(cut.v + 3), 1), HX_OK);
		HX_CHECK_STATUS(hx_frames_donate(&frames, cut, 4), HX_INVALID_ARGUMENT);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), low);
		HX_CHECK_EQUAL(free_of(HX_ZONE_NORMAL), 1);
		HX_CHECK_STATUS(hx_frames_donate(&frames, cut, 3), HX_OK);
		HX_CHECK_EQUAL(free_of(HX_ZONE_NORMAL), 2);
		HX_CHECK_STATUS(hx_frames_donate(&frames, image, 16), HX_OK);
		HX_CHECK_STATUS(hx_frames_donate(&frames, image, 1), HX_INVALID_ARGUMENT);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), low - 1 + 20);
		HX_CHECK_EQUAL(hx_frames_total_frames(&frames), low + 20);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

HX_TEST(zones_are_added_in_order)
{
	struct hx_frames_config c;
	if (!configure_any(&c)) {
		return;
	}
	const struct hx_frame_trait *t = c.backing ? c.backing : c.physical;
	frames = (struct hx_frames){.zone_count = 0};
	uint64_t bytes = t->metadata_bytes(100, 8), step = bytes;
	for (uint64_t base = 0; base < 1000; base++) { /* more where a span crosses words */
		uint64_t here = (t->metadata_bytes(base, 8) + 63) / 64 * 64;
		step = here > step ? here : step;
	}
	HX_REQUIRE(step * (HX_ZONES_MAX + 1) <= sizeof zone_metadata);
#define ADD(kind, base, count, memory, size)                                                       \
	hx_frames_add_zone(&frames, kind, 0, t, hx_pfn(base), count, memory, size)
	HX_CHECK_STATUS(ADD(HX_ZONE_KINDS, 100, 8, zone_metadata, bytes), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 100, 8, NULL, bytes), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 100, 8, zone_metadata + 8, bytes), HX_INVALID_ALIGNMENT);
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 100, 8, zone_metadata, bytes - 1), HX_INVALID_SIZE);
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 100, 0, zone_metadata, bytes), HX_INVALID_SIZE);
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 0, 1, zone_metadata, bytes), HX_INVALID_SIZE);
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, UINT64_MAX, 2, zone_metadata, bytes), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_frames_add_zone(&frames, HX_ZONE_DMA, 0, NULL, hx_pfn(1), 1,
					   zone_metadata, bytes),
			HX_INVALID_ARGUMENT);
	HX_CHECK_EQUAL(frames.zone_count, 0);
	for (unsigned i = 0; i < HX_ZONES_MAX; i++) {
		/* Kinds and addresses all mixed up; in every zone one frame is taken. */
		enum hx_zone_kind kind = (enum hx_zone_kind)(i * 3 % HX_ZONE_KINDS);
		uint64_t base = 100 + i * 7 % HX_ZONES_MAX * 16;
		HX_CHECK_STATUS(ADD(kind, base, 8, zone_metadata + i * step, step), HX_OK);
		HX_CHECK_STATUS(hx_frames_reserve(&frames, hx_pfn(base + 3), 1), HX_OK);
		HX_CHECK_STATUS(ADD(kind, base + 7, 8, zone_metadata, step), HX_ALREADY_MAPPED);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_CHECK_EQUAL(hx_frames_free_frames(&frames), (i + 1) * 7);
	}
	for (unsigned i = 1; i < HX_ZONES_MAX; i++) {
		const struct hx_zone *z = &frames.zones[i];
		HX_CHECK(z[-1].kind < z->kind ||
			 (z[-1].kind == z->kind && z[-1].front->base < z->front->base));
	}
	unsigned char *spare = zone_metadata + sizeof zone_metadata - step;
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 5000, 8, spare, step), HX_NOT_SUPPORTED);
	for (unsigned i = 0; i < HX_ZONES_MAX; i++) {
		HX_CHECK_STATUS(hx_frames_free(&frames, hx_pfn(103 + i * 16), 0), HX_OK);
	}
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), HX_ZONES_MAX * 8);
	/* Frame 0 belongs to the span, but to nobody. */
	frames = (struct hx_frames){.zone_count = 0};
	HX_CHECK_STATUS(ADD(HX_ZONE_DMA, 0, 2, zone_metadata, sizeof zone_metadata), HX_OK);
	HX_CHECK_EQUAL(hx_frames_allocate(&frames, 0, 0).value.v, 1);
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, 0).status, HX_OUT_OF_MEMORY);
#undef ADD
}

/* ---- Pressure ---- */

static struct {
	unsigned calls;
	uint64_t wanted;
	struct hx_pfn give; /* freed by the handler; 0: nothing to give */
	unsigned give_order;
	bool answer;
} event;

static bool on_pressure(void *context, uint64_t frames_wanted)
{
	event.calls++;
	event.wanted = frames_wanted;
	/* No lock is held: the handler may use the front, as reclaimers do. */
	struct hx_frames *f = context;
	struct hx_pfn_result r = hx_frames_allocate(f, 0, HX_ALLOC_NO_PRESSURE);
	if (r.status == HX_OK) {
		HX_CHECK_STATUS(hx_frames_free(f, r.value, 0), HX_OK);
	}
	if (event.give.v != 0) {
		HX_CHECK_STATUS(hx_frames_free(f, event.give, event.give_order), HX_OK);
		event.give = hx_pfn(0);
	}
	return event.answer;
}

HX_TEST(pressure_is_raised_once_and_retried_once)
{
	for (unsigned i = 1; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		struct hx_pfn_result block = hx_frames_allocate(&frames, 3, 0);
		HX_REQUIRE_STATUS(block.status, HX_OK);
		while (hx_frames_allocate(&frames, 0, 0).status == HX_OK) {
		}
		frames.pressure = on_pressure;
		frames.pressure_context = &frames;
		event.calls = 0;
		event.answer = true;
		event.give = hx_pfn(0);
		struct hx_pfn_result r = hx_frames_allocate(&frames, 3, HX_ALLOC_NO_PRESSURE);
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		HX_CHECK_EQUAL(event.calls, 0);
		r = hx_frames_allocate(&frames, 3, 0); /* "freed", but nothing was */
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		HX_CHECK_EQUAL(event.calls, 1);
		HX_CHECK_EQUAL(event.wanted, 8);
		event.answer = false;
		event.give = block.value;
		event.give_order = 3;
		r = hx_frames_allocate_contiguous(&frames, 5, 0, 0); /* freed, but not said */
		HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
		HX_CHECK_EQUAL(event.calls, 2);
		HX_CHECK_EQUAL(event.wanted, 5);
		r = hx_frames_allocate(&frames, 3, 0); /* there by now: no event */
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK_EQUAL(event.calls, 2);
		event.answer = true;
		event.give = r.value;
		r = hx_frames_allocate(&frames, 3, 0);
		HX_CHECK_STATUS(r.status, HX_OK);
		HX_CHECK_EQUAL(event.calls, 3);
		/* A request that no memory would satisfy is no want of memory. */
		struct hx_frame_constraint bad = {.align_frames = 3};
		r = hx_frames_allocate_constrained(&frames, 0, &bad, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_ARGUMENT);
		r = hx_frames_allocate(&frames, HX_ORDER_MAX + 1, 0);
		HX_CHECK_STATUS(r.status, HX_INVALID_SIZE);
		HX_CHECK_EQUAL(event.calls, 3);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

/* What is missing is asked for once; what came before the event stays the caller's. */
HX_TEST(bulk_raises_pressure_once)
{
	for (unsigned i = 1; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!configure(i, &c)) {
			continue;
		}
		if (!build_tiny(&c)) {
			return;
		}
		struct hx_pfn_result block = hx_frames_allocate(&frames, 3, 0);
		HX_REQUIRE_STATUS(block.status, HX_OK);
		while (hx_frames_allocate(&frames, 0, 0).status == HX_OK) {
		}
		frames.pressure = on_pressure;
		frames.pressure_context = &frames;
		event.calls = 0;
		event.answer = true;
		event.give = block.value;
		event.give_order = 3;
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 12, HX_ALLOC_NO_PRESSURE), 0);
		HX_CHECK_EQUAL(event.calls, 0);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 12, 0), 8);
		HX_CHECK_EQUAL(event.calls, 1);
		HX_CHECK_EQUAL(event.wanted, 12);
		hx_status status = HX_CORRUPTED;
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 4, &status), 4);
		event.answer = false;
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 4, 0), 4);
		HX_CHECK_EQUAL(event.calls, 1); /* nothing was missing */
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 4, &status), 4);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 6, 0), 4);
		HX_CHECK_EQUAL(event.calls, 2);
		HX_CHECK_EQUAL(event.wanted, 2);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

/* ---- Watermarks ---- */

static const struct hx_zone_shares quarters = {250, 500, 750};

static struct hx_zone *zone_of_kind(enum hx_zone_kind kind)
{
	unsigned i = 0;
	while (frames.zones[i].kind != kind) {
		i++;
		HX_ASSERT(i < frames.zone_count);
	}
	return &frames.zones[i];
}

static bool build_marked(unsigned i, struct hx_frames_config *c)
{
	if (!configure(i, c)) {
		return false;
	}
	c->watermarks = quarters;
	return build_tiny(c);
}

static uint64_t failures(void)
{
	struct hx_frame_stats s;
	hx_frames_stats(&frames, &s);
	return s.failures;
}

/* Every zone gives all but a quarter; the reserves only then, and to who may have them. */
HX_TEST(reserves_are_for_who_may_have_them)
{
	enum { FLAGS = HX_ALLOC_NO_PRESSURE };
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		for (unsigned bulk = 0; bulk < 2 && build_marked(i, &c); bulk++) {
			HX_CHECK_EQUAL(zone_of_kind(HX_ZONE_NORMAL)->min, 3);
			HX_CHECK_EQUAL(zone_of_kind(HX_ZONE_NORMAL)->low, 6);
			HX_CHECK_EQUAL(zone_of_kind(HX_ZONE_NORMAL)->high, 9);
			uint64_t kept = 0, n;
			for (unsigned k = HX_ZONE_DMA; k <= HX_ZONE_NORMAL; k++) {
				kept += zone_of_kind((enum hx_zone_kind)k)->min;
			}
			uint64_t all = hx_frames_free_frames(&frames) - free_of(HX_ZONE_HIGH);
			/* Not by one request, either, and not by one that wraps. */
			struct hx_pfn_result r =
				hx_frames_allocate_contiguous(&frames, UINT64_MAX, 0, FLAGS);
			HX_CHECK_STATUS(r.status, HX_OUT_OF_MEMORY);
			r = hx_frames_allocate_contiguous(&frames, 10, 0, FLAGS);
			HX_CHECK_STATUS(r.status, HX_OK);
			HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_DMA32); /* 12 in NORMAL less 3 */
			n = 10;
			if (bulk != 0) {
				n += hx_frames_allocate_bulk(&frames, list, HX_ARRAY_LENGTH(list),
							     FLAGS);
			}
			while (hx_frames_allocate(&frames, 0, FLAGS).status == HX_OK) {
				HX_CHECK(bulk == 0);
				n++;
			}
			HX_CHECK_EQUAL(n, all - kept);
			for (unsigned k = HX_ZONE_DMA; k <= HX_ZONE_NORMAL; k++) {
				HX_CHECK_EQUAL(free_of((enum hx_zone_kind)k),
					       zone_of_kind((enum hx_zone_kind)k)->min);
			}
			uint64_t before = failures();
			HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, FLAGS).status,
					HX_OUT_OF_MEMORY);
			HX_CHECK_EQUAL(failures() - before, 3); /* each zone's */
			HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 1, FLAGS), 0);
			HX_CHECK_EQUAL(failures() - before, 6);
			/* From the top again, to the last one. */
			const unsigned may = FLAGS | HX_ALLOC_RESERVE;
			r = hx_frames_allocate(&frames, 0, may);
			HX_CHECK_STATUS(r.status, HX_OK);
			HX_CHECK_EQUAL(kind_of(r.value), HX_ZONE_NORMAL);
			n = 1;
			if (bulk != 0) {
				n += hx_frames_allocate_bulk(&frames, list, kept, may);
			}
			while (hx_frames_allocate(&frames, 0, may).status == HX_OK) {
				HX_CHECK(bulk == 0);
				n++;
			}
			HX_CHECK_EQUAL(n, kept);
			HX_CHECK_EQUAL(hx_frames_free_frames(&frames), free_of(HX_ZONE_HIGH));
			HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
			HX_BAIL();
		}
	}
}

/* No reserve is touched while a lower zone has frames to spare, nor HIGH's before. */
HX_TEST(reserves_come_last)
{
	const unsigned may = HX_ALLOC_NO_PRESSURE | HX_ALLOC_RESERVE;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!build_marked(i, &c)) {
			continue;
		}
		enum hx_zone_kind kinds[] = {HX_ZONE_NORMAL, HX_ZONE_DMA32, HX_ZONE_DMA,
					     HX_ZONE_HIGH};
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(kinds); k++) {
			while (free_of(kinds[k]) > zone_of_kind(kinds[k])->min) {
				struct hx_pfn_result r =
					hx_frames_allocate_constrained(&frames, 0, NULL, may);
				HX_REQUIRE_STATUS(r.status, HX_OK);
				HX_REQUIRE(kind_of(r.value) == kinds[k]);
			}
		}
		HX_CHECK_STATUS(
			hx_frames_allocate_constrained(&frames, 0, NULL, HX_ALLOC_NO_PRESSURE)
				.status,
			HX_OUT_OF_MEMORY);
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(kinds); k++) {
			while (free_of(kinds[k]) > 0) {
				struct hx_pfn_result r =
					hx_frames_allocate_constrained(&frames, 0, NULL, may);
				HX_REQUIRE_STATUS(r.status, HX_OK);
				HX_REQUIRE(kind_of(r.value) == kinds[k]);
			}
		}
		/* A zone without a reserve is not asked for it. */
		for (unsigned k = 0; k < HX_ARRAY_LENGTH(kinds); k++) {
			HX_CHECK_STATUS(hx_zone_watermarks(zone_of_kind(kinds[k]), 0, 0, 0), HX_OK);
		}
		uint64_t before = failures();
		HX_CHECK_STATUS(hx_frames_allocate_constrained(&frames, 0, NULL, may).status,
				HX_OUT_OF_MEMORY);
		HX_CHECK_EQUAL(failures() - before, 4);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 3, may), 0);
		HX_CHECK_EQUAL(failures() - before, 7);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	}
}

static struct {
	unsigned calls;
	uint64_t missing;
	unsigned gives; /* frames of the list that the handler frees */
	uint64_t held;  /* frames in the list */
} low;

static void on_low(void *context, uint64_t frames_missing)
{
	struct hx_frames *f = context;
	low.calls++;
	low.missing = frames_missing;
	/* No lock is held, and the event is not raised again from here. */
	struct hx_pfn_result r = hx_frames_allocate(f, 0, 0);
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_STATUS(hx_frames_free(f, r.value, 0), HX_OK);
	for (; low.gives > 0; low.gives--) {
		HX_CHECK_STATUS(hx_frames_free(f, list[--low.held], 0), HX_OK);
	}
}

/* Take single frames until @left are free in NORMAL. */
static void take_down_to(uint64_t left, unsigned flags)
{
	while (free_of(HX_ZONE_NORMAL) > left) {
		struct hx_pfn_result r = hx_frames_allocate(&frames, 0, flags);
		HX_REQUIRE_STATUS(r.status, HX_OK);
		list[low.held++] = r.value;
	}
}

static void give_back(unsigned count)
{
	for (; count > 0; count--) {
		HX_CHECK_STATUS(hx_frames_free(&frames, list[--low.held], 0), HX_OK);
	}
}

HX_TEST(low_is_told_once)
{
	for (unsigned i = 1; i < HX_ARRAY_LENGTH(names); i++) {
		struct hx_frames_config c;
		if (!build_marked(i, &c)) { /* NORMAL: 12 frames, 3, 6, 9 */
			continue;
		}
		frames.low = on_low;
		frames.pressure_context = &frames;
		low.calls = low.gives = 0;
		low.held = 0;
		take_down_to(6, 0);
		HX_CHECK_EQUAL(low.calls, 0);
		take_down_to(5, 0);
		HX_CHECK_EQUAL(low.calls, 1);
		HX_CHECK_EQUAL(low.missing, 4);
		take_down_to(4, 0);
		give_back(4); /* 8 free: not high yet */
		take_down_to(4, 0);
		HX_CHECK_EQUAL(low.calls, 1);
		give_back(5); /* 9 */
		take_down_to(6, 0);
		HX_CHECK_EQUAL(low.calls, 1);
		/* Who may raise none leaves it to the next one that may. */
		take_down_to(5, HX_ALLOC_NO_PRESSURE);
		HX_CHECK_EQUAL(low.calls, 1);
		take_down_to(4, 0);
		HX_CHECK_EQUAL(low.calls, 2);
		HX_CHECK_EQUAL(low.missing, 5);
		/* What the handler frees counts: told, and armed again at once. */
		give_back(5);
		take_down_to(6, 0);
		low.gives = 4;
		take_down_to(5, 0); /* 5 and 4 more; again down to 5 */
		HX_CHECK_EQUAL(low.calls, 4);
		/* In bulk, in one piece, and by runs and bulk given back. */
		while (low.held > 0) {
			give_back(1);
		}
		hx_status status;
		HX_CHECK_EQUAL(free_of(HX_ZONE_NORMAL), 12);
		HX_CHECK_EQUAL(hx_frames_allocate_bulk(&frames, list, 7, 0), 7);
		HX_CHECK_EQUAL(low.calls, 5);
		HX_CHECK_EQUAL(low.missing, 4);
		HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, 7, &status), 7);
		struct hx_pfn_result r = hx_frames_allocate_contiguous(&frames, 8, 0, 0);
		HX_CHECK_EQUAL(low.calls, 6);
		HX_CHECK_STATUS(hx_frames_free_run(&frames, r.value, 8), HX_OK);
		r = hx_frames_allocate_contiguous(&frames, 7, 0, 0);
		HX_CHECK_EQUAL(low.calls, 7);
		HX_CHECK_STATUS(hx_frames_deallocate(&frames, r.value), HX_OK);
		/* Nobody to tell: it is told as soon as there is one. */
		frames.low = NULL;
		take_down_to(4, 0);
		frames.low = on_low;
		take_down_to(3, 0);
		HX_CHECK_EQUAL(low.calls, 8);
		HX_CHECK_EQUAL(low.missing, 6);
		HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
		HX_BAIL();
	}
}

HX_TEST(watermarks_follow_the_size)
{
	struct hx_frames_config c;
	if (!configure_any(&c)) {
		return;
	}
	const struct hx_zone_shares wrong[] = {{2, 1, 3}, {1, 3, 2}, {0, 0, 1001}, {1, 0, 0}};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(wrong); i++) {
		read_map(small_machine, HX_ARRAY_LENGTH(small_machine));
		c.watermarks = wrong[i];
		HX_CHECK_STATUS(build_refused(&c, small_limit), HX_INVALID_ARGUMENT);
		HX_CHECK(hx_memcmp(&map, &map_before, sizeof map) == 0);
	}
	read_map(small_machine, HX_ARRAY_LENGTH(small_machine));
	c.watermarks = (struct hx_zone_shares){0, 500, 1000};
	c.free_limit = hx_pa(HX_GIB(4));
	HX_REQUIRE_STATUS(build(&c, small_limit), HX_OK);
	struct hx_zone *z = zone_of_kind(HX_ZONE_NORMAL);
	HX_CHECK_EQUAL(z->high, 0);
	HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pa_to_pfn(hx_pa(HX_GIB(4))), 20), HX_OK);
	HX_CHECK_EQUAL(z->min, 0);
	HX_CHECK_EQUAL(z->low, 10);
	HX_CHECK_EQUAL(z->high, 20);
	/* Less than a thousandth of a frame is none. */
	z = zone_of_kind(HX_ZONE_DMA);
	HX_CHECK_EQUAL(z->low, z->front->total_frames / 2);
	/* Frames that the caller names stay. */
	z = zone_of_kind(HX_ZONE_NORMAL);
	HX_CHECK_STATUS(hx_zone_watermarks(z, 3, 2, 4), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_zone_watermarks(z, 1, 5, 4), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_zone_watermarks(NULL, 1, 2, 3), HX_INVALID_ARGUMENT);
	HX_CHECK_EQUAL(z->low, 10);
	HX_CHECK_STATUS(hx_zone_watermarks(z, 1, 2, UINT64_MAX), HX_OK);
	HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pa_to_pfn(hx_pa(HX_GIB(5))), 8), HX_OK);
	HX_CHECK_EQUAL(z->min, 1);
	HX_CHECK_EQUAL(z->low, 2);
	HX_CHECK_EQUAL(z->high, UINT64_MAX);
	/* All of it kept back: the zone gives nothing but by right. */
	HX_CHECK_STATUS(hx_zone_watermarks(z, UINT64_MAX, UINT64_MAX, UINT64_MAX), HX_OK);
	HX_CHECK_EQUAL(kind_of(hx_frames_allocate(&frames, 0, 0).value), HX_ZONE_DMA32);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	z->low = 1;
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_CORRUPTED);
	/* Donated frames count: what was low is high again. */
	HX_CHECK_STATUS(hx_zone_watermarks(z, 0, 30, 36), HX_OK);
	frames.low = on_low;
	frames.pressure_context = &frames;
	low.calls = low.gives = 0;
	HX_CHECK_STATUS(hx_frames_allocate(&frames, 0, 0).status, HX_OK);
	HX_CHECK_EQUAL(low.calls, 1);
	HX_CHECK(z->below_low);
	HX_CHECK_STATUS(hx_frames_donate(&frames, hx_pfn(z->front->base + 20), 12), HX_OK);
	HX_CHECK(!z->below_low);
}

/* ---- The failure injector that other suites rely on ---- */

HX_TEST(the_chosen_allocation_fails)
{
	struct hx_frames_config c;
	if (!configure_any(&c) || !build_tiny(&c)) {
		return;
	}
	const struct hx_frame_trait *t = frames.zones[0].front->trait;
	uint64_t before = hx_frames_free_frames(&frames);
	for (uint64_t fail_at = 0; fail_at <= 7; fail_at++) {
		for (unsigned forever = 0; forever < 2; forever++) {
			hx_inject_begin(&frames, fail_at, forever);
			/* A bulk over two zones, as well, is one request. */
			uint64_t most = free_of(HX_ZONE_NORMAL) + 9;
			uint64_t got = hx_frames_allocate_bulk(&frames, list, most, 0);
			hx_status freed;
			HX_CHECK_EQUAL(got, fail_at == 1 ? 0 : most);
			HX_CHECK_EQUAL(hx_frames_free_bulk(&frames, list, got, &freed), got);
			hx_frames_drain(&frames);
			for (uint64_t n = 2; n <= 6; n++) {
				/* A refusal in one zone must not be made good by the next. */
				struct hx_pfn_result r =
					n % 2 ? hx_frames_allocate(&frames, 0, 0)
					      : hx_frames_allocate_contiguous(&frames, 3, 0, 0);
				bool fails =
					fail_at != 0 && (n == fail_at || (forever && n > fail_at));
				HX_CHECK_STATUS(r.status, fails ? HX_OUT_OF_MEMORY : HX_OK);
				if (r.status == HX_OK) {
					HX_CHECK_STATUS(hx_frames_deallocate(&frames, r.value),
							HX_OK);
				}
			}
			HX_CHECK_EQUAL(hx_inject_end(), 6);
			HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
		}
	}
	HX_CHECK(frames.zones[0].front->trait == t);
}

HX_TEST(fragmentation_is_exact_at_its_ends)
{
	struct hx_frame_stats s = {0};
	for (unsigned o = 0; o <= HX_ORDER_MAX + 1; o++) {
		HX_CHECK_EQUAL(hx_frames_fragmentation(&s, o), 0); /* nothing is free */
	}
	s.free_blocks[HX_ORDER_2M] = 3;
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, HX_ORDER_2M), 0);
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, HX_ORDER_2M + 1), 1000);
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, HX_ORDER_MAX + 1), 1000);
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, UINT32_MAX), 1000);
	s.free_blocks[0] = 512;
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, 1), 250);
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, 0), 0);
	/* All frames there are, and one of them alone: not 0. */
	s = (struct hx_frame_stats){.total_frames = 0};
	s.free_blocks[HX_ORDER_MAX] = (UINT64_C(1) << (52 - HX_ORDER_MAX)) - 1;
	s.free_blocks[0] = 1;
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, 0), 0);
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, 1), 1);
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, HX_ORDER_MAX), 1);
	/* The other way round: not 1000. */
	s.free_blocks[0] = UINT64_C(1) << 51;
	s.free_blocks[HX_ORDER_MAX] = 1;
	HX_CHECK_EQUAL(hx_frames_fragmentation(&s, 1), 999);
}

HX_TEST(metadata_are_small)
{
	static const struct {
		const char *trait;
		uint64_t tenths; /* most bits a frame, times ten */
	} limits[] = {{"bump", 1}, {"bitmap", 21}, {"buddy", 51}, {"slab", 21}};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(limits); i++) {
		const struct hx_frame_trait *t = hx_frame_trait_find(limits[i].trait);
		uint64_t span = HX_TIB(1) / HX_FRAME_BYTES;
		HX_CHECK(!t || t->metadata_bytes(1, span) * 8 * 10 <= limits[i].tenths * span);
	}
}

HX_TEST(traits_are_found_by_name)
{
	unsigned count = 0;
	for (const struct hx_frame_trait *t; (t = hx_frame_trait_at(count)) != NULL; count++) {
		HX_CHECK(hx_frame_trait_find(t->name) == t);
	}
	HX_CHECK(count > 0);
	HX_CHECK(!hx_frame_trait_find("no such trait"));
	HX_CHECK(!hx_frame_trait_find(""));
	HX_CHECK(!hx_frame_trait_find(NULL));
	for (unsigned k = 0; k < HX_ZONE_KINDS; k++) {
		HX_CHECK(!hx_streq(hx_zone_kind_name((enum hx_zone_kind)k), "?"));
	}
	HX_CHECK(hx_streq(hx_zone_kind_name(HX_ZONE_KINDS), "?"));
}

HX_SUITE(zones, HX_CASE(zones_follow_the_map), HX_CASE(nodes_and_wide_holes_make_zones),
	 HX_CASE(init_that_fails_leaves_nothing), HX_CASE(requests_fall_back_in_order),
	 HX_CASE(constraints_choose_the_zone), HX_CASE(contiguous_requests_are_aligned_runs),
	 HX_CASE(frees_find_their_zone), HX_CASE(bulk_crosses_zones),
	 HX_CASE(parts_go_back_to_their_zone), HX_CASE(lifetimes_reach_the_allocator),
	 HX_CASE(requests_that_are_none_are_refused), HX_CASE(memory_is_donated_once),
	 HX_CASE(zones_are_added_in_order), HX_CASE(pressure_is_raised_once_and_retried_once),
	 HX_CASE(bulk_raises_pressure_once), HX_CASE(reserves_are_for_who_may_have_them),
	 HX_CASE(reserves_come_last), HX_CASE(low_is_told_once),
	 HX_CASE(watermarks_follow_the_size), HX_CASE(the_chosen_allocation_fails),
	 HX_CASE(fragmentation_is_exact_at_its_ends), HX_CASE(metadata_are_small),
	 HX_CASE(traits_are_found_by_name));
