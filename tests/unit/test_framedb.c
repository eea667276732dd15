/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The frame database. Its sections lie in an array that plays the physical
 * memory of one zone: the direct map's offset is moved so that the zone's frames
 * are the array's, and moved back behind each call.
 */
#include "hx_test.h"
#include "inject.h"

#include <hx/framedb.h>

enum {
	SECTION_FRAMES = 32768,
	SECTION_ORDER = 7,
	SECTIONS = 4, /* that the zone has memory for */
	POOL_FRAMES = SECTIONS << SECTION_ORDER,
	DESCRIBED = 5 * SECTION_FRAMES + 100, /* frames with an entry; the last section is short */
};

static _Alignas(4096) unsigned char pool[POOL_FRAMES * HX_FRAME_BYTES];
static _Alignas(64) unsigned char pool_metadata[16 << 10];
static unsigned char directory[64 * sizeof(void *)];
static struct hx_frames frames;
static struct hx_framedb db;

static const uint64_t pool_first = UINT64_C(0x100000); /* 4 GiB */

static uintptr_t saved_offset;

static void enter(void)
{
	saved_offset = hx_hal_direct_offset;
	hx_hal_direct_offset = (uintptr_t)pool - (uintptr_t)(pool_first * HX_FRAME_BYTES);
}

static void leave(void)
{
	hx_hal_direct_offset = saved_offset;
}

/* Sections come from here: dirty memory, no more than SECTIONS of them. */
static bool begin_with(const struct hx_frame_trait *t)
{
	if (!t) {
		hx_test_skip("allocator not built in");
		return false;
	}
	hx_memset(pool, 0x5a, sizeof pool);
	hx_memset(directory, 0x5a, sizeof directory);
	frames = (struct hx_frames){.zone_count = 0};
	HX_CHECK_STATUS(hx_frames_add_zone(&frames, HX_ZONE_NORMAL, 0, t, hx_pfn(pool_first),
					   POOL_FRAMES, pool_metadata, sizeof pool_metadata),
			HX_OK);
	struct hx_pa end = hx_pa((DESCRIBED - 1) * HX_FRAME_BYTES + 1); /* one byte is a frame */
	HX_CHECK(hx_framedb_directory_bytes(end) == 6 * sizeof(void *));
	HX_CHECK_STATUS(hx_framedb_init(&db, &frames, directory, end), HX_OK);
	HX_CHECK_EQUAL(directory[6 * sizeof(void *)], 0x5a);
	return hx_test_failures() == 0;
}

static bool begin(void)
{
	const struct hx_frame_trait *t = hx_frame_trait_find("buddy");
	return begin_with(t ? t : hx_frame_trait_find("bitmap"));
}

static hx_status set(uint64_t first, uint64_t count, enum hx_frame_tag tag, void *owner)
{
	enter();
	hx_status status = hx_framedb_set(&db, hx_pfn(first), count, tag, owner);
	leave();
	return status;
}

/* Everything goes back to the zone. */
static void end(void)
{
	enter();
	hx_framedb_destroy(&db);
	leave();
	HX_CHECK_EQUAL(db.sections_live, 0);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), POOL_FRAMES);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_FREE), DESCRIBED);
}

static void check_entry(uint64_t f, enum hx_frame_tag tag, uint32_t references, void *owner)
{
	const struct hx_frame *e = hx_framedb_find(&db, hx_pfn(f));
	HX_CHECK_EQUAL(hx_framedb_tag(&db, hx_pfn(f)), tag);
	if (e) {
		HX_CHECK_EQUAL(e->tag, tag);
		HX_CHECK_EQUAL(e->references, references);
		HX_CHECK(e->owner == owner);
	} else {
		HX_CHECK(tag == HX_TAG_FREE);
	}
}

HX_TEST(sections_come_when_they_are_needed)
{
	int owner;
	if (!begin()) {
		return;
	}
	HX_CHECK_EQUAL(db.sections_live, 0);
	HX_CHECK(!hx_framedb_find(&db, hx_pfn(0)));
	HX_CHECK_EQUAL(hx_framedb_tag(&db, hx_pfn(7)), HX_TAG_FREE);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_FREE), DESCRIBED);
	/* FREE needs none. */
	HX_CHECK_STATUS(set(0, DESCRIBED, HX_TAG_FREE, NULL), HX_OK);
	HX_CHECK_EQUAL(db.sections_live, 0);
	/* Across a border: two. */
	HX_CHECK_STATUS(set(SECTION_FRAMES - 3, 5, HX_TAG_TABLE, &owner), HX_OK);
	HX_CHECK_EQUAL(db.sections_live, 2);
	HX_CHECK_EQUAL(hx_frames_free_frames(&frames), POOL_FRAMES - (2 << SECTION_ORDER));
	for (uint64_t f = SECTION_FRAMES - 10; f < SECTION_FRAMES + 10; f++) {
		bool inside = f >= SECTION_FRAMES - 3 && f < SECTION_FRAMES + 2;
		check_entry(f, inside ? HX_TAG_TABLE : HX_TAG_FREE, inside, inside ? &owner : NULL);
	}
	check_entry(0, HX_TAG_FREE, 0, NULL); /* the section was cleared, list link and all */
	check_entry(SECTION_FRAMES, HX_TAG_TABLE, 1, &owner);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_TABLE), 5);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_FREE), DESCRIBED - 5);
	/* FREE over missing and present sections forgets. */
	HX_CHECK_STATUS(set(1, DESCRIBED - 1, HX_TAG_FREE, &owner), HX_OK);
	HX_CHECK_EQUAL(db.sections_live, 2);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_TABLE), 0);
	check_entry(SECTION_FRAMES, HX_TAG_FREE, 0, NULL);
	/* From a missing section into a present one. */
	HX_CHECK_STATUS(set(2 * SECTION_FRAMES, 3, HX_TAG_TABLE, &owner), HX_OK);
	HX_CHECK_STATUS(set(SECTION_FRAMES, 3, HX_TAG_FREE, NULL), HX_OK);
	HX_CHECK_STATUS(set(3 * SECTION_FRAMES - 1, SECTION_FRAMES, HX_TAG_FREE, NULL), HX_OK);
	HX_CHECK_EQUAL(db.sections_live, 3);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_TABLE), 3);
	HX_CHECK_STATUS(set(4 * SECTION_FRAMES, 4, HX_TAG_TABLE, &owner), HX_OK);
	HX_CHECK_STATUS(set(3 * SECTION_FRAMES, DESCRIBED - 3 * SECTION_FRAMES, HX_TAG_FREE, NULL),
			HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_TABLE), 3);
	check_entry(4 * SECTION_FRAMES, HX_TAG_FREE, 0, NULL);
	HX_CHECK_STATUS(set(0, DESCRIBED, HX_TAG_FREE, NULL), HX_OK);
	end();
	if (!begin()) {
		return;
	}
	/* The last frame of the short section, and none behind it. */
	HX_CHECK_STATUS(set(DESCRIBED - 1, 1, HX_TAG_RESERVED, NULL), HX_OK);
	check_entry(DESCRIBED - 1, HX_TAG_RESERVED, 1, NULL);
	HX_CHECK(!hx_framedb_find(&db, hx_pfn(DESCRIBED)));
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_FREE), DESCRIBED - 1);
	end();
}

HX_TEST(want_of_memory_changes_nothing)
{
	int owner;
	for (unsigned present = 0; present < 4; present++) {
		if (!begin()) {
			return;
		}
		/* A section in the middle may exist before; the range spans four. */
		if (present > 0) {
			HX_CHECK_STATUS(
				set((uint64_t)present * SECTION_FRAMES, 1, HX_TAG_HEAP, &owner),
				HX_OK);
		}
		uint64_t live = db.sections_live;
		uint64_t before = hx_frames_free_frames(&frames);
		/* Five are wanted, four can be had. */
		HX_CHECK_STATUS(set(SECTION_FRAMES / 2, 4 * SECTION_FRAMES, HX_TAG_ANONYMOUS, NULL),
				HX_OUT_OF_MEMORY);
		for (uint64_t fail_at = 1; fail_at <= 4 - live; fail_at++) {
			for (unsigned forever = 0; forever < 2; forever++) {
				hx_inject_begin(&frames, fail_at, forever);
				HX_CHECK_STATUS(set(SECTION_FRAMES / 2, 3 * SECTION_FRAMES,
						    HX_TAG_ANONYMOUS, &owner),
						HX_OUT_OF_MEMORY);
				(void)hx_inject_end();
				HX_CHECK_EQUAL(db.sections_live, live);
				HX_CHECK_EQUAL(hx_frames_free_frames(&frames), before);
				HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_ANONYMOUS), 0);
				HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_HEAP), present > 0);
				HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
			}
		}
		HX_CHECK_STATUS(
			set(SECTION_FRAMES / 2, 3 * SECTION_FRAMES, HX_TAG_ANONYMOUS, &owner),
			HX_OK);
		HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_ANONYMOUS), 3 * SECTION_FRAMES);
		end();
		HX_BAIL();
	}
}

static unsigned events;

static bool on_pressure(void *context, uint64_t frames_wanted)
{
	(void)context;
	(void)frames_wanted;
	events++;
	return true;
}

HX_TEST(no_pressure_is_raised)
{
	if (!begin()) {
		return;
	}
	frames.pressure = on_pressure;
	HX_CHECK_STATUS(set(0, DESCRIBED, HX_TAG_DEVICE, NULL), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(events, 0);
	end();
}

/* What cannot be given back is lost, but the database stays right. */
HX_TEST(sections_from_bump_are_kept)
{
	if (!begin_with(hx_frame_trait_find("bump"))) {
		return;
	}
	HX_CHECK_STATUS(set(0, DESCRIBED, HX_TAG_HEAP, NULL), HX_OUT_OF_MEMORY);
	HX_CHECK_EQUAL(db.sections_live, 0);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_FREE), DESCRIBED);
	if (!begin_with(hx_frame_trait_find("bump"))) {
		return;
	}
	HX_CHECK_STATUS(set(0, 2 * SECTION_FRAMES, HX_TAG_HEAP, NULL), HX_OK);
	HX_CHECK_EQUAL(hx_framedb_count(&db, HX_TAG_HEAP), 2 * SECTION_FRAMES);
	enter();
	hx_framedb_destroy(&db);
	leave();
	HX_CHECK_EQUAL(db.sections_live, 0);
	HX_CHECK_STATUS(hx_frames_validate(&frames), HX_OK);
}

HX_TEST(references_are_counted)
{
	bool last = true;
	if (!begin()) {
		return;
	}
	HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(5)), HX_NOT_MAPPED);
	HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(5), &last), HX_DOUBLE_FREE);
	HX_CHECK(!last);
	HX_CHECK_STATUS(set(5, 1, HX_TAG_ANONYMOUS, NULL), HX_OK);
	HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(4)), HX_NOT_MAPPED); /* has an entry, FREE */
	HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(4), &last), HX_DOUBLE_FREE);
	for (unsigned i = 0; i < 9; i++) {
		HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(5)), HX_OK);
	}
	check_entry(5, HX_TAG_ANONYMOUS, 10, NULL);
	for (unsigned i = 0; i < 10; i++) {
		last = i != 9;
		HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(5), &last), HX_OK);
		HX_CHECK(last == (i == 9));
	}
	last = true;
	HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(5), &last), HX_DOUBLE_FREE);
	HX_CHECK(!last);
	HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(5)), HX_NOT_MAPPED); /* it is on its way out */
	check_entry(5, HX_TAG_ANONYMOUS, 0, NULL);
	HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(DESCRIBED)), HX_NOT_MAPPED);
	HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(UINT64_MAX), &last), HX_DOUBLE_FREE);
	end();
}

HX_TEST(references_saturate)
{
	bool last = true;
	if (!begin()) {
		return;
	}
	HX_CHECK_STATUS(set(9, 1, HX_TAG_ANONYMOUS, NULL), HX_OK);
	struct hx_frame *e = hx_framedb_find(&db, hx_pfn(9));
	HX_REQUIRE(e != NULL);
	e->references = UINT32_MAX - 2;
	for (unsigned i = 0; i < 5; i++) {
		HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(9)), HX_OK);
	}
	HX_CHECK_EQUAL(e->references, UINT32_MAX);
	for (unsigned i = 0; i < 5; i++) {
		last = true;
		HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(9), &last), HX_OK);
		HX_CHECK(!last);
	}
	HX_CHECK_EQUAL(e->references, UINT32_MAX); /* it never frees again */
	e->references = UINT32_MAX - 1;
	HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(9), &last), HX_OK);
	HX_CHECK_EQUAL(e->references, UINT32_MAX - 2);
	end();
}

HX_TEST(nonsense_is_refused)
{
	if (!begin()) {
		return;
	}
	HX_CHECK_STATUS(set(0, 0, HX_TAG_HEAP, NULL), HX_INVALID_SIZE);
	HX_CHECK_STATUS(set(0, 1, HX_TAGS, NULL), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(set(DESCRIBED, 1, HX_TAG_HEAP, NULL), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(set(DESCRIBED - 1, 2, HX_TAG_HEAP, NULL), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(set(1, UINT64_MAX, HX_TAG_HEAP, NULL), HX_INVALID_ADDRESS);
	HX_CHECK_STATUS(set(UINT64_MAX, 2, HX_TAG_FREE, NULL), HX_INVALID_ADDRESS);
	HX_CHECK_EQUAL(db.sections_live, 0);
	struct hx_framedb other;
	struct hx_pa one = hx_pa(1);
	HX_CHECK_STATUS(hx_framedb_init(NULL, &frames, directory, one), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_framedb_init(&other, NULL, directory, one), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_framedb_init(&other, &frames, NULL, one), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_framedb_init(&other, &frames, directory, hx_pa(0)), HX_INVALID_ARGUMENT);
	HX_CHECK_EQUAL(hx_framedb_directory_bytes(hx_pa(0)), 0);
	HX_CHECK_EQUAL(hx_framedb_directory_bytes(hx_pa(HX_MIB(128))), sizeof(void *));
	HX_CHECK_EQUAL(hx_framedb_directory_bytes(hx_pa(HX_MIB(128) + 1)), 2 * sizeof(void *));
	HX_CHECK_EQUAL(hx_framedb_directory_bytes(hx_pa(HX_TIB(1))), 8192 * sizeof(void *));
	HX_CHECK_EQUAL(hx_framedb_directory_bytes(hx_pa(UINT64_MAX)),
		       (UINT64_C(1) << 37) * sizeof(void *));
	end();
}

HX_TEST(no_database_is_one_that_knows_nothing)
{
	bool last = true;
	HX_CHECK_STATUS(hx_framedb_set(NULL, hx_pfn(1), 1, HX_TAG_HEAP, NULL), HX_OK);
	HX_CHECK(!hx_framedb_find(NULL, hx_pfn(1)));
	HX_CHECK_EQUAL(hx_framedb_tag(NULL, hx_pfn(1)), HX_TAG_FREE);
	HX_CHECK_STATUS(hx_framedb_get(NULL, hx_pfn(1)), HX_NOT_MAPPED);
	HX_CHECK_STATUS(hx_framedb_put(NULL, hx_pfn(1), &last), HX_DOUBLE_FREE);
	HX_CHECK(!last);
	HX_CHECK_EQUAL(hx_framedb_count(NULL, HX_TAG_FREE), 0);
	hx_framedb_destroy(NULL);
}

/* Random ranges against an array; OUT_OF_MEMORY cannot happen, three sections do. */
HX_TEST(random_descriptions_match_a_model)
{
	enum { SPAN = 3 * SECTION_FRAMES };
	static uint8_t tags[SPAN], references[SPAN];
	struct hx_random r = {77};
	if (!begin()) {
		return;
	}
	for (unsigned step = 0; step < 3000; step++) {
		uint64_t f = hx_random_below(&r, SPAN);
		bool last = false;
		switch (hx_random_below(&r, 3)) {
		case 0: {
			uint64_t most = step % 100 == 0 ? SPAN : 300;
			uint64_t left = SPAN - f, n = 1 + hx_random_below(&r, most);
			unsigned tag = (unsigned)hx_random_below(&r, HX_TAGS);
			n = n < left ? n : left;
			HX_CHECK_STATUS(set(f, n, (enum hx_frame_tag)tag, &tags[f]), HX_OK);
			hx_memset(&tags[f], (int)tag, n);
			hx_memset(&references[f], tag != HX_TAG_FREE, n);
			break;
		}
		case 1:
			if (references[f] < UINT8_MAX) {
				HX_CHECK_STATUS(hx_framedb_get(&db, hx_pfn(f)),
						references[f] ? HX_OK : HX_NOT_MAPPED);
				references[f] += references[f] != 0;
			}
			break;
		default:
			HX_CHECK_STATUS(hx_framedb_put(&db, hx_pfn(f), &last),
					references[f] ? HX_OK : HX_DOUBLE_FREE);
			HX_CHECK(last == (references[f] == 1));
			references[f] -= references[f] != 0;
			break;
		}
		HX_BAIL();
	}
	uint64_t counts[HX_TAGS] = {DESCRIBED - SPAN};
	for (uint64_t f = 0; f < SPAN; f++) {
		const struct hx_frame *e = hx_framedb_find(&db, hx_pfn(f));
		counts[tags[f]]++;
		HX_CHECK(hx_framedb_tag(&db, hx_pfn(f)) == (enum hx_frame_tag)tags[f]);
		HX_CHECK((e ? e->references : 0) == references[f]);
		HX_CHECK((e && e->owner != NULL) == (tags[f] != HX_TAG_FREE));
	}
	for (unsigned t = 0; t < HX_TAGS; t++) {
		HX_CHECK_EQUAL(hx_framedb_count(&db, (enum hx_frame_tag)t), counts[t]);
		HX_CHECK(!hx_streq(hx_frame_tag_name((enum hx_frame_tag)t), "?"));
	}
	HX_CHECK(hx_streq(hx_frame_tag_name(HX_TAGS), "?"));
	end();
}

HX_SUITE(framedb, HX_CASE(sections_come_when_they_are_needed),
	 HX_CASE(want_of_memory_changes_nothing), HX_CASE(no_pressure_is_raised),
	 HX_CASE(sections_from_bump_are_kept), HX_CASE(references_are_counted),
	 HX_CASE(references_saturate), HX_CASE(nonsense_is_refused),
	 HX_CASE(no_database_is_one_that_knows_nothing),
	 HX_CASE(random_descriptions_match_a_model));
