/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The memory map against a model that knows every frame of a small universe by
 * itself: what it holds is an array, and a word is applied frame by frame. The
 * map must show the same frames, in the only canonical form that they have.
 */
#include "hx_test.h"

#include <hx/memmap.h>

enum { FRAMES_MAX = 1024, HOLE = 0xff };

struct model {
	uint64_t base; /* of the universe */
	unsigned frames;
	uint8_t type[FRAMES_MAX]; /* HOLE, or hx_memory_type */
	uint8_t node[FRAMES_MAX];
};

static struct model model;
static struct model before_model;
static struct hx_memmap map;
static struct hx_memmap before;

static const uint64_t TOP = UINT64_MAX - HX_FRAME_BYTES + 1;

/* Highest first, as the header has it. */
static const enum hx_memory_type by_precedence[] = {
	HX_MEMORY_KERNEL,   HX_MEMORY_INITRD, HX_MEMORY_FRAMEBUFFER, HX_MEMORY_FIRMWARE,
	HX_MEMORY_BAD,      HX_MEMORY_DEVICE, HX_MEMORY_ACPI,        HX_MEMORY_ROM,
	HX_MEMORY_RESERVED, HX_MEMORY_RAM,
};

static unsigned rank(unsigned type)
{
	unsigned r = 0;
	while (r < HX_ARRAY_LENGTH(by_precedence) && by_precedence[r] != type) {
		r++;
	}
	return r; /* a hole ranks last */
}

static void begin(uint64_t base, unsigned frames)
{
	hx_memmap_init(&map);
	model.base = base;
	model.frames = frames;
	hx_memset(model.type, HOLE, sizeof model.type);
	hx_memset(model.node, 0, sizeof model.node);
}

static struct hx_memory_range word(uint64_t base, uint64_t bytes, enum hx_memory_type type,
				   uint32_t node)
{
	return (struct hx_memory_range){hx_pa(base), bytes, type, node};
}

/* First and last byte of frame @f. */
static uint64_t first_byte(unsigned f)
{
	return model.base + (uint64_t)f * HX_FRAME_BYTES;
}

/* What the word means for each frame; says whether it met anything and whether it took any. */
static void model_add(const struct hx_memory_range *r, bool *met, bool *took)
{
	*met = *took = false;
	if (r->bytes == 0) {
		return;
	}
	uint64_t last = r->base.v + (r->bytes - 1); /* inclusive; cut where it wraps */
	if (last < r->base.v || last >= TOP) {
		last = TOP - 1;
	}
	if (r->base.v > last) {
		return;
	}
	for (unsigned f = 0; f < model.frames; f++) {
		uint64_t low = first_byte(f), high = low + (HX_FRAME_BYTES - 1);
		bool takes = r->type == HX_MEMORY_RAM ? low >= r->base.v && high <= last
						      : high >= r->base.v && low <= last;
		if (takes) {
			*took = true;
			*met = *met || model.type[f] != HOLE;
		}
		if (takes && rank(r->type) < rank(model.type[f])) {
			model.type[f] = (uint8_t)r->type;
			model.node[f] = (uint8_t)r->node;
		}
	}
}

static bool same_as_left(unsigned f)
{
	/* cppcheck-suppress arrayIndexOutOfBoundsCond ; f < FRAMES_MAX at every call */
	return f > 0 && model.type[f] == model.type[f - 1] && model.node[f] == model.node[f - 1];
}

/* Regions that the model's frames make. */
static unsigned model_regions(void)
{
	unsigned n = 0;
	for (unsigned f = 0; f < model.frames; f++) {
		n += model.type[f] != HOLE && !same_as_left(f);
	}
	return n;
}

static void check_same(void)
{
	HX_REQUIRE_STATUS(hx_memmap_validate(&map), HX_OK);
	HX_CHECK_EQUAL(map.count, model_regions());
	uint64_t total[HX_MEMORY_TYPES] = {0};
	uint64_t ram_end = 0;
	for (unsigned f = 0; f < model.frames; f++) {
		const struct hx_memory_range *r = hx_memmap_find(&map, hx_pa(first_byte(f)));
		const struct hx_memory_range *last =
			hx_memmap_find(&map, hx_pa(first_byte(f) + HX_FRAME_BYTES - 1));
		HX_REQUIRE(r == last);
		HX_REQUIRE((r == NULL) == (model.type[f] == HOLE));
		if (r) {
			HX_REQUIRE(r->type == model.type[f] && r->node == model.node[f]);
			total[r->type] += HX_FRAME_BYTES;
			if (r->type == HX_MEMORY_RAM || r->type == HX_MEMORY_KERNEL ||
			    r->type == HX_MEMORY_INITRD) {
				ram_end = first_byte(f) + HX_FRAME_BYTES;
			}
		}
	}
	for (unsigned t = 0; t < HX_MEMORY_TYPES; t++) {
		HX_CHECK_EQUAL(hx_memmap_total(&map, (enum hx_memory_type)t), total[t]);
	}
	HX_CHECK_EQUAL(hx_memmap_ram_end(&map).v, ram_end);
}

static void remember(void)
{
	before = map;
	before_model = model;
}

static void check_unchanged(void)
{
	HX_CHECK(hx_memcmp(&map, &before, sizeof map) == 0);
	model = before_model;
}

/* Add to both; a word that needs too many regions must be refused. */
static void add(struct hx_memory_range r)
{
	bool met, took;
	remember();
	model_add(&r, &met, &took);
	hx_status s = hx_memmap_add(&map, r);
	if (model_regions() > HX_MEMMAP_REGIONS_MAX) {
		HX_CHECK_STATUS(s, HX_OUT_OF_MEMORY);
		check_unchanged();
		return;
	}
	HX_CHECK_STATUS(s, HX_OK);
	HX_CHECK_EQUAL(map.dropped, before.dropped + !took);
	if (!took) {
		HX_CHECK_EQUAL(map.adjusted, before.adjusted);
	} else if (met || (r.base.v | r.bytes) % HX_FRAME_BYTES != 0) {
		HX_CHECK_EQUAL(map.adjusted, before.adjusted + 1);
	}
	check_same();
}

/* ---- By hand ---- */

HX_TEST(ram_shrinks_and_the_rest_grows)
{
	begin(0, 16);
	add(word(0x1001, 0x2fff, HX_MEMORY_RAM, 0)); /* [0x2000, 0x4000) */
	HX_CHECK_EQUAL(map.count, 1);
	HX_CHECK_EQUAL(map.regions[0].base.v, 0x2000);
	HX_CHECK_EQUAL(map.regions[0].bytes, 0x2000);
	HX_CHECK_EQUAL(map.adjusted, 1);
	add(word(0x5fff, 2, HX_MEMORY_RESERVED, 0)); /* [0x5000, 0x7000) */
	HX_CHECK_EQUAL(map.regions[1].base.v, 0x5000);
	HX_CHECK_EQUAL(map.regions[1].bytes, 0x2000);
	HX_CHECK_EQUAL(map.adjusted, 2);
	add(word(0x8001, 0x1ffe, HX_MEMORY_RAM, 0)); /* no whole frame */
	HX_CHECK_EQUAL(map.count, 2);
	HX_CHECK_EQUAL(map.dropped, 1);
	add(word(0x9000, 0, HX_MEMORY_RESERVED, 0));
	HX_CHECK_EQUAL(map.dropped, 2);
}

HX_TEST(wrapping_words_are_cut_at_the_top)
{
	begin(TOP - 8 * HX_FRAME_BYTES, 8);
	add(word(TOP - 0x3000, UINT64_MAX, HX_MEMORY_RAM, 0));
	HX_CHECK_EQUAL(map.count, 1);
	HX_CHECK_EQUAL(map.regions[0].bytes, 0x3000);
	HX_CHECK_EQUAL(map.adjusted, 1);
	/* Ends exactly at 2^64: the last frame is not described. */
	add(word(TOP - 0x4000, 0x5000, HX_MEMORY_RESERVED, 0));
	HX_CHECK_EQUAL(map.regions[0].bytes, 0x4000);
	add(word(TOP, 0x1000, HX_MEMORY_KERNEL, 0));
	add(word(UINT64_MAX, 1, HX_MEMORY_KERNEL, 0));
	add(word(UINT64_MAX, UINT64_MAX, HX_MEMORY_RAM, 0));
	HX_CHECK_EQUAL(map.dropped, 3);
	HX_CHECK(hx_memmap_find(&map, hx_pa(TOP)) == NULL);
	HX_CHECK(hx_memmap_find(&map, hx_pa(UINT64_MAX)) == NULL);
	/* All of memory in one word. */
	hx_memmap_init(&map);
	HX_CHECK_STATUS(hx_memmap_add(&map, word(0, UINT64_MAX, HX_MEMORY_RAM, 0)), HX_OK);
	HX_CHECK_EQUAL(hx_memmap_total(&map, HX_MEMORY_RAM), TOP);
	HX_CHECK_EQUAL(hx_memmap_ram_end(&map).v, TOP);
	HX_CHECK_STATUS(hx_memmap_validate(&map), HX_OK);
}

HX_TEST(every_pair_of_types_resolves_by_precedence)
{
	for (unsigned a = 0; a < HX_MEMORY_TYPES; a++) {
		for (unsigned b = 0; b < HX_MEMORY_TYPES; b++) {
			begin(0, 8);
			add(word(0x1000, 0x4000, by_precedence[a], 0));
			add(word(0x3000, 0x4000, by_precedence[b], 0));
			const struct hx_memory_range *r = hx_memmap_find(&map, hx_pa(0x3000));
			HX_REQUIRE(r != NULL);
			HX_CHECK_EQUAL(r->type, by_precedence[a < b ? a : b]);
			HX_CHECK_EQUAL(map.count, a == b ? 1 : 2);
			HX_BAIL();
		}
	}
}

HX_TEST(neighbours_join_by_type_and_node)
{
	begin(0, 16);
	add(word(0x1000, 0x1000, HX_MEMORY_RAM, 0));
	add(word(0x3000, 0x1000, HX_MEMORY_RAM, 0));
	add(word(0x2000, 0x1000, HX_MEMORY_RAM, 1));
	HX_CHECK_EQUAL(map.count, 3); /* another node stays apart */
	add(word(0x5000, 0x1000, HX_MEMORY_RAM, 0));
	add(word(0x4000, 0x1000, HX_MEMORY_RAM, 0)); /* joins both sides */
	HX_CHECK_EQUAL(map.count, 3);
	add(word(0x1000, 0x5000, HX_MEMORY_RAM, 7)); /* the earlier word stands */
	HX_CHECK_EQUAL(map.count, 3);
	add(word(0x1000, 0x5000, HX_MEMORY_BAD, 7));
	HX_CHECK_EQUAL(map.count, 1);
}

HX_TEST(a_word_over_many_regions_fills_the_gaps)
{
	begin(0, 32);
	for (unsigned i = 0; i < 6; i++) {
		add(word((2 + i * 4) * HX_FRAME_BYTES, HX_FRAME_BYTES, HX_MEMORY_KERNEL, 0));
		add(word((4 + i * 4) * HX_FRAME_BYTES, HX_FRAME_BYTES, HX_MEMORY_RAM, 0));
	}
	add(word(0, 32 * HX_FRAME_BYTES, HX_MEMORY_RESERVED, 0));
	HX_CHECK_EQUAL(map.count, 13);
}

HX_TEST(unknown_types_are_refused)
{
	begin(0, 8);
	remember();
	enum hx_memory_type none = HX_MEMORY_TYPES;
	HX_CHECK_STATUS(hx_memmap_add(&map, word(0, 0x1000, none, 0)), HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_memmap_add(&map, word(0, 0, (enum hx_memory_type)999, 0)),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(0), 0x1000, none), HX_INVALID_ARGUMENT);
	check_unchanged();
	HX_CHECK(hx_streq(hx_memory_type_name(none), "?"));
	for (unsigned t = 0; t < HX_MEMORY_TYPES; t++) {
		for (unsigned u = 0; u < t; u++) {
			HX_CHECK(!hx_streq(hx_memory_type_name((enum hx_memory_type)t),
					   hx_memory_type_name((enum hx_memory_type)u)));
		}
	}
}

HX_TEST(the_validator_sees_damage)
{
	begin(0, 16);
	add(word(0x1000, 0x2000, HX_MEMORY_RAM, 0));
	add(word(0x3000, 0x2000, HX_MEMORY_RESERVED, 0));
	add(word(0x7000, 0x2000, HX_MEMORY_RAM, 0));
	HX_CHECK_EQUAL(map.count, 3);
	remember();
#define DAMAGED(statement)                                                                         \
	do {                                                                                       \
		statement;                                                                         \
		HX_CHECK_STATUS(hx_memmap_validate(&map), HX_CORRUPTED);                           \
		map = before;                                                                      \
		HX_CHECK_STATUS(hx_memmap_validate(&map), HX_OK);                                  \
	} while (0)
	DAMAGED(map.count = HX_MEMMAP_REGIONS_MAX + 1);
	DAMAGED(map.regions[0].base.v += 1);
	DAMAGED(map.regions[0].bytes -= 1);
	DAMAGED(map.regions[1].bytes = 0);
	DAMAGED(map.regions[0].bytes += 0x1000);            /* overlaps */
	DAMAGED(map.regions[0].base.v = 0x9000);            /* unsorted */
	DAMAGED(map.regions[1].type = HX_MEMORY_RAM);       /* unjoined */
	DAMAGED(map.regions[2].type = HX_MEMORY_TYPES);     /* no type */
	DAMAGED(map.regions[2].bytes = TOP - 0x6000);       /* beyond the top */
	DAMAGED(map.regions[2].bytes = UINT64_MAX - 0xfff); /* wraps */
	DAMAGED(map.regions[2].base.v = TOP);
#undef DAMAGED
}

HX_TEST(find_in_an_empty_map)
{
	begin(0, 8);
	HX_CHECK(hx_memmap_find(&map, hx_pa(0)) == NULL);
	HX_CHECK(hx_memmap_find(&map, hx_pa(UINT64_MAX)) == NULL);
	HX_CHECK_EQUAL(hx_memmap_ram_end(&map).v, 0);
	HX_CHECK_STATUS(hx_memmap_validate(&map), HX_OK);
	HX_CHECK_STATUS(hx_memmap_take(&map, 1, HX_FRAME_BYTES, hx_pa(UINT64_MAX)).status,
			HX_OUT_OF_MEMORY);
}

HX_TEST(a_full_map_refuses_and_stays)
{
	begin(0, FRAMES_MAX);
	for (unsigned i = 0; i < HX_MEMMAP_REGIONS_MAX; i++) {
		HX_REQUIRE_STATUS(hx_memmap_add(&map, word((uint64_t)i * 3 * HX_FRAME_BYTES,
							   2 * HX_FRAME_BYTES, HX_MEMORY_RAM, 0)),
				  HX_OK);
		model.type[i * 3] = model.type[i * 3 + 1] = HX_MEMORY_RAM;
	}
	check_same();
	HX_CHECK_EQUAL(map.count, HX_MEMMAP_REGIONS_MAX);
	add(word(900 * HX_FRAME_BYTES, HX_FRAME_BYTES, HX_MEMORY_RESERVED, 0)); /* one too many */
	add(word(3 * HX_FRAME_BYTES, HX_FRAME_BYTES, HX_MEMORY_RESERVED, 0));   /* cuts one */
	HX_CHECK_EQUAL(map.count, HX_MEMMAP_REGIONS_MAX);
	add(word(3 * HX_FRAME_BYTES, 2 * HX_FRAME_BYTES, HX_MEMORY_RESERVED, 0)); /* replaces one */
	add(word(6 * HX_FRAME_BYTES, HX_FRAME_BYTES, HX_MEMORY_RAM, 0));          /* is there */
	add(word(2 * HX_FRAME_BYTES, HX_FRAME_BYTES, HX_MEMORY_RESERVED, 0));     /* joins */
	HX_CHECK_EQUAL(map.count, HX_MEMMAP_REGIONS_MAX);
	remember();
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(9 * HX_FRAME_BYTES), 1, HX_MEMORY_KERNEL),
			HX_OUT_OF_MEMORY);
	HX_CHECK_STATUS(hx_memmap_take(&map, 1, HX_FRAME_BYTES, hx_pa(UINT64_MAX)).status,
			HX_OUT_OF_MEMORY);
	check_unchanged();
	/* Whole regions need no record. */
	struct hx_pa_result r =
		hx_memmap_take(&map, 2 * HX_FRAME_BYTES, HX_FRAME_BYTES, hx_pa(UINT64_MAX));
	HX_CHECK_STATUS(r.status, HX_OK);
	HX_CHECK_EQUAL(r.value.v, 255 * 3 * HX_FRAME_BYTES);
	/* All in one word: one region. */
	HX_CHECK_STATUS(
		hx_memmap_add(&map, word(0, FRAMES_MAX * HX_FRAME_BYTES, HX_MEMORY_KERNEL, 0)),
		HX_OK);
	HX_CHECK_EQUAL(map.count, 1);
}

/* ---- Every case of a small universe ---- */

HX_TEST(every_triple_of_words_on_four_frames)
{
	static const enum hx_memory_type types[] = {HX_MEMORY_RAM, HX_MEMORY_RESERVED,
						    HX_MEMORY_KERNEL};
	static struct hx_memory_range words[60];
	unsigned n = 0;
	for (unsigned from = 0; from < 4; from++) {
		for (unsigned to = from + 1; to <= 4; to++) {
			for (unsigned t = 0; t < HX_ARRAY_LENGTH(types); t++) {
				words[n++] = word(from * HX_FRAME_BYTES,
						  (to - from) * HX_FRAME_BYTES, types[t], 0);
			}
			words[n++] = word(from * HX_FRAME_BYTES, (to - from) * HX_FRAME_BYTES,
					  HX_MEMORY_RAM, 1);
		}
	}
	for (unsigned i = 0; i < n; i++) {
		for (unsigned j = 0; j < n; j++) {
			for (unsigned k = 0; k < n; k++) {
				begin(0, 4);
				bool met, took;
				model_add(&words[i], &met, &took);
				model_add(&words[j], &met, &took);
				model_add(&words[k], &met, &took);
				HX_CHECK_STATUS(hx_memmap_add(&map, words[i]), HX_OK);
				HX_CHECK_STATUS(hx_memmap_add(&map, words[j]), HX_OK);
				HX_CHECK_STATUS(hx_memmap_add(&map, words[k]), HX_OK);
				check_same();
				HX_BAIL();
			}
		}
	}
}

/* ---- Random and hostile ---- */

/* A word near the universe: any alignment, often empty, huge or wrapping. */
static struct hx_memory_range random_word(struct hx_random *r)
{
	uint64_t span = (uint64_t)(model.frames + 4) * HX_FRAME_BYTES;
	uint64_t base = model.base - 2 * HX_FRAME_BYTES + hx_random_below(r, span);
	uint64_t bytes;
	switch (hx_random_below(r, 8)) {
	case 0:
		bytes = 0;
		break;
	case 1:
		bytes = hx_random(r); /* mostly beyond everything, often wrapping */
		break;
	case 2:
		bytes = UINT64_MAX - hx_random_below(r, 3);
		break;
	case 3:
		bytes = hx_random_below(r, span);
		break;
	default:
		bytes = hx_random_below(r, 6 * HX_FRAME_BYTES);
		break;
	}
	if (hx_random_below(r, 2)) {
		base = hx_align_down(base, HX_FRAME_BYTES);
		bytes = hx_align_down(bytes, HX_FRAME_BYTES);
	}
	if (model.base == 0 && base > UINT64_MAX / 2) {
		base = 0; /* below the universe there is nothing */
	}
	return word(base, bytes, (enum hx_memory_type)hx_random_below(r, HX_MEMORY_TYPES),
		    (uint32_t)hx_random_below(r, 2));
}

static void run_random(uint64_t base, unsigned frames, unsigned rounds, uint64_t seed)
{
	struct hx_random r = {seed};
	for (unsigned i = 0; i < rounds; i++) {
		begin(base, frames);
		for (unsigned k = 1 + (unsigned)hx_random_below(&r, 24); k > 0; k--) {
			struct hx_memory_range w = random_word(&r);
			uint64_t end = model.base + (uint64_t)frames * HX_FRAME_BYTES;
			/* The model sees the universe only: keep the word inside. */
			if (w.base.v < model.base) {
				w.base.v = model.base;
			}
			if (w.base.v >= end && end != TOP) {
				continue;
			}
			if (end != TOP && (w.bytes > end - w.base.v)) {
				w.bytes = end - w.base.v;
			}
			add(w);
			HX_BAIL();
		}
	}
}

HX_TEST(random_words_at_zero)
{
	run_random(0, 96, 300, 1);
}

HX_TEST(random_words_in_the_middle)
{
	run_random(HX_GIB(4) - 32 * HX_FRAME_BYTES, 64, 300, 2);
}

HX_TEST(random_words_at_the_top)
{
	run_random(TOP - 96 * HX_FRAME_BYTES, 96, 300, 3);
}

HX_TEST(random_words_in_a_full_map)
{
	struct hx_random r = {4};
	unsigned refused = 0;
	for (unsigned round = 0; round < 3; round++) {
		begin(HX_MIB(64), 700);
		for (unsigned i = 0; i < 900; i++) {
			/* Short words keep the count near the limit; a long one clears. */
			uint64_t length =
				hx_random_below(&r, 60) == 0 ? hx_random_below(&r, 300) : 1;
			uint64_t from = hx_random_below(&r, 700 - length);
			struct hx_memory_range w =
				word(first_byte((unsigned)from), (length + 1) * HX_FRAME_BYTES,
				     hx_random_below(&r, 2) ? HX_MEMORY_RAM : HX_MEMORY_RESERVED,
				     (uint32_t)hx_random_below(&r, 3));
			w.bytes = length == 1 ? HX_FRAME_BYTES : w.bytes;
			unsigned was = map.count;
			add(w);
			HX_BAIL();
			refused += map.count == was && was == HX_MEMMAP_REGIONS_MAX;
		}
	}
	HX_CHECK(refused > 10); /* else the test does not test */
}

/* ---- Reserving and taking ---- */

static hx_status model_reserve(uint64_t base, uint64_t bytes, enum hx_memory_type type)
{
	if (type == HX_MEMORY_RAM) {
		return HX_INVALID_ARGUMENT;
	}
	if (bytes == 0 || base + bytes < base || base + bytes > TOP) {
		return HX_INVALID_SIZE;
	}
	unsigned from = 0, to = 0; /* frames of the universe that it touches */
	bool inside = base >= model.base;
	for (unsigned f = 0; f < model.frames; f++) {
		if (first_byte(f) + (HX_FRAME_BYTES - 1) >= base &&
		    first_byte(f) <= base + (bytes - 1)) {
			from = to == 0 ? f : from;
			to = f + 1;
			inside = inside && model.type[f] == HX_MEMORY_RAM;
		}
	}
	if (!inside || to == 0 || base + (bytes - 1) > first_byte(to - 1) + (HX_FRAME_BYTES - 1)) {
		return HX_ALREADY_MAPPED;
	}
	unsigned cuts =
		(same_as_left(from) ? 1u : 0u) + (to < model.frames && same_as_left(to) ? 1u : 0u);
	if (model_regions() + cuts > HX_MEMMAP_REGIONS_MAX) {
		return HX_OUT_OF_MEMORY;
	}
	for (unsigned f = from; f < to; f++) {
		model.type[f] = (uint8_t)type;
	}
	return HX_OK;
}

/* The highest run of one node's RAM that fits, frame by frame. */
static struct hx_pa_result model_take(uint64_t bytes, uint64_t align, uint64_t limit)
{
	if (align < HX_FRAME_BYTES || (align & (align - 1)) != 0) {
		return (struct hx_pa_result){HX_INVALID_ALIGNMENT, hx_pa(0)};
	}
	if (bytes == 0 || bytes > TOP) {
		return (struct hx_pa_result){HX_INVALID_SIZE, hx_pa(0)};
	}
	uint64_t frames = (bytes + HX_FRAME_BYTES - 1) / HX_FRAME_BYTES;
	for (unsigned f = model.frames; f-- > 0;) {
		bool fits = frames <= model.frames - f && hx_is_aligned(first_byte(f), align);
		for (unsigned k = f; fits && k < f + frames; k++) {
			fits = model.type[k] == HX_MEMORY_RAM && model.node[k] == model.node[f] &&
			       first_byte(k) + HX_FRAME_BYTES <= limit;
		}
		if (fits) {
			hx_status s = model_reserve(first_byte(f), frames * HX_FRAME_BYTES,
						    HX_MEMORY_KERNEL);
			return (struct hx_pa_result){s, hx_pa(s == HX_OK ? first_byte(f) : 0)};
		}
	}
	return (struct hx_pa_result){HX_OUT_OF_MEMORY, hx_pa(0)};
}

static void random_ram(struct hx_random *r)
{
	begin(HX_MIB(1) * hx_random_below(r, 3), 96);
	for (unsigned k = 0; k < 6; k++) {
		uint64_t from = hx_random_below(r, 90);
		add(word(first_byte((unsigned)from),
			 (1 + hx_random_below(r, 96 - from)) * HX_FRAME_BYTES,
			 hx_random_below(r, 4) ? HX_MEMORY_RAM : HX_MEMORY_DEVICE,
			 (uint32_t)hx_random_below(r, 2)));
	}
}

HX_TEST(reserve_against_the_model)
{
	struct hx_random r = {5};
	unsigned done = 0, refused = 0;
	for (unsigned i = 0; i < 300; i++) {
		random_ram(&r);
		for (unsigned k = 0; k < 12; k++) {
			uint64_t base = model.base + hx_random_below(&r, 98 * HX_FRAME_BYTES);
			uint64_t bytes = hx_random_below(&r, 12 * HX_FRAME_BYTES);
			if (hx_random_below(&r, 16) == 0) {
				bytes = UINT64_MAX - hx_random_below(&r, 8 * HX_FRAME_BYTES);
			}
			enum hx_memory_type type =
				(enum hx_memory_type)hx_random_below(&r, HX_MEMORY_TYPES);
			remember();
			hx_status expected = model_reserve(base, bytes, type);
			HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(base), bytes, type),
					expected);
			if (expected != HX_OK) {
				check_unchanged();
				refused++;
			} else {
				done++;
			}
			check_same();
			HX_BAIL();
		}
	}
	HX_CHECK(done > 100 && refused > 100);
}

HX_TEST(reserve_refuses_what_has_no_size)
{
	begin(0, 8);
	add(word(0, 8 * HX_FRAME_BYTES, HX_MEMORY_RAM, 0));
	remember();
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(0), 0, HX_MEMORY_KERNEL), HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(1), UINT64_MAX, HX_MEMORY_KERNEL),
			HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(UINT64_MAX), 1, HX_MEMORY_KERNEL),
			HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(0), UINT64_MAX, HX_MEMORY_KERNEL),
			HX_INVALID_SIZE);
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(0), 0x1000, HX_MEMORY_RAM),
			HX_INVALID_ARGUMENT);
	HX_CHECK_STATUS(hx_memmap_reserve(&map, hx_pa(0x7fff), 2, HX_MEMORY_KERNEL),
			HX_ALREADY_MAPPED);
	check_unchanged();
}

HX_TEST(take_against_the_model)
{
	struct hx_random r = {6};
	unsigned done = 0, refused = 0;
	for (unsigned i = 0; i < 300; i++) {
		random_ram(&r);
		for (unsigned k = 0; k < 12; k++) {
			uint64_t bytes = hx_random_below(&r, 10 * HX_FRAME_BYTES);
			uint64_t align = HX_FRAME_BYTES << hx_random_below(&r, 5);
			uint64_t limit = model.base + hx_random_below(&r, 100 * HX_FRAME_BYTES);
			if (hx_random_below(&r, 16) == 0) {
				align = hx_random_below(&r, 3 * HX_FRAME_BYTES);
			}
			if (hx_random_below(&r, 16) == 0) {
				bytes = UINT64_MAX - hx_random_below(&r, 2 * HX_FRAME_BYTES);
			}
			if (hx_random_below(&r, 4) == 0) {
				limit = UINT64_MAX;
			}
			remember();
			struct hx_pa_result expected = model_take(bytes, align, limit);
			struct hx_pa_result actual =
				hx_memmap_take(&map, bytes, align, hx_pa(limit));
			HX_CHECK_STATUS(actual.status, expected.status);
			if (expected.status != HX_OK) {
				check_unchanged();
				refused++;
			} else {
				HX_CHECK_EQUAL(actual.value.v, expected.value.v);
				done++;
			}
			check_same();
			HX_BAIL();
		}
	}
	HX_CHECK(done > 100 && refused > 100);
}

/* ---- The machine's own map ---- */

HX_TEST(the_firmware_map_is_read_whole)
{
	hx_memmap_init(&map);
	HX_REQUIRE_STATUS(hx_memmap_read_firmware(&map), HX_OK);
	HX_CHECK_STATUS(hx_memmap_validate(&map), HX_OK);
	HX_CHECK(hx_memmap_total(&map, HX_MEMORY_RAM) > 0);
	uint32_t iterator = 0;
	struct hx_memory_range r;
	while (hx_hal_memory_next(&iterator, &r)) {
		if (r.bytes == 0 || r.base.v >= TOP) {
			continue;
		}
		/* Its first whole frame is there, as its type or as one that goes before it. */
		uint64_t first = r.base.v, end = r.base.v + r.bytes;
		if (r.type == HX_MEMORY_RAM &&
		    (!hx_align_up(first, HX_FRAME_BYTES, &first) || end < first + HX_FRAME_BYTES)) {
			continue;
		}
		const struct hx_memory_range *found = hx_memmap_find(&map, hx_pa(first));
		HX_REQUIRE(found != NULL);
		HX_CHECK(rank(found->type) <= rank(r.type));
	}
	HX_CHECK(!hx_hal_memory_next(&iterator, &r)); /* the end is a lasting one */
}

HX_SUITE(memmap, HX_CASE(ram_shrinks_and_the_rest_grows),
	 HX_CASE(wrapping_words_are_cut_at_the_top),
	 HX_CASE(every_pair_of_types_resolves_by_precedence),
	 HX_CASE(neighbours_join_by_type_and_node),
	 HX_CASE(a_word_over_many_regions_fills_the_gaps), HX_CASE(unknown_types_are_refused),
	 HX_CASE(the_validator_sees_damage), HX_CASE(find_in_an_empty_map),
	 HX_CASE(a_full_map_refuses_and_stays), HX_CASE(every_triple_of_words_on_four_frames),
	 HX_CASE(random_words_at_zero), HX_CASE(random_words_in_the_middle),
	 HX_CASE(random_words_at_the_top), HX_CASE(random_words_in_a_full_map),
	 HX_CASE(reserve_against_the_model), HX_CASE(reserve_refuses_what_has_no_size),
	 HX_CASE(take_against_the_model), HX_CASE(the_firmware_map_is_read_whole));
