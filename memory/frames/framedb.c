/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * framedb.c - the frame database: a directory of lazily made sections.
 *
 *      frame number   | section ... | 15 bits: entry |
 *
 *      directory[section] -> 32768 entries of 16 bytes, one block of 512 KiB
 *
 * A section is published with release order once it is zeroed and stays until
 * the database is destroyed, so readers need no lock. All sections that a range
 * lacks are allocated before the first entry changes; they wait in a list that
 * runs through their own first words. The lock is held only while sections are
 * hung into the directory.
 *
 * References are counted with compare and exchange: they stop at UINT32_MAX and
 * stay there, for a count that wrapped would free a frame in use.
 */
#include <hx/framedb.h>

enum {
	SECTION_SHIFT = 15, /* frames in 128 MiB */
	SECTION_ORDER = 7,  /* 32768 x 16 bytes */
};

#define SECTION_FRAMES (UINT64_C(1) << SECTION_SHIFT)

_Static_assert(sizeof(struct hx_frame) <= 16, "an entry is 16 bytes or less");
_Static_assert(SECTION_FRAMES * 16 == HX_FRAME_BYTES << SECTION_ORDER, "a section fills its block");

/* A section that is not in the directory yet. */
struct spare {
	struct spare *next;
};

static uint64_t sections_below(struct hx_pa end)
{
	uint64_t bytes = SECTION_FRAMES * HX_FRAME_BYTES;
	return end.v / bytes + (end.v % bytes != 0);
}

static struct hx_frame *section_at(const struct hx_framedb *db, uint64_t i)
{
	return __atomic_load_n(&db->directory[i], __ATOMIC_ACQUIRE);
}

static void free_section(struct hx_framedb *db, void *section)
{
	hx_status status =
		hx_frames_free(db->frames, hx_pa_to_pfn(hx_ptr_to_pa(section)), SECTION_ORDER);
	HX_ASSERT(status == HX_OK || status == HX_NOT_SUPPORTED); /* bump keeps it */
}

static void free_spares(struct hx_framedb *db, struct spare *list)
{
	while (list) {
		struct spare *next = list->next;
		free_section(db, list);
		list = next;
	}
}

/*
 * One spare for each section of [first, last] that is missing. No pressure event:
 * callers hold locks that reclaimers may want.
 */
static hx_status allocate_spares(struct hx_framedb *db, uint64_t first, uint64_t last,
				 struct spare **list)
{
	*list = NULL;
	for (uint64_t i = first; i <= last; i++) {
		if (section_at(db, i)) {
			continue;
		}
		struct hx_pfn_result r = hx_frames_allocate(
			db->frames, SECTION_ORDER,
			HX_ALLOC_NO_PRESSURE | HX_ALLOC_RESERVE | HX_FRAMES_PINNED);
		if (r.status != HX_OK) {
			free_spares(db, *list);
			return r.status;
		}
		struct spare *s = hx_ptr(hx_pfn_to_pa(r.value));
		hx_memset(s, 0, SECTION_FRAMES * sizeof(struct hx_frame));
		s->next = *list;
		*list = s;
	}
	return HX_OK;
}

/* Hang the spares in; what another CPU was faster with stays on the list. */
static void publish_spares(struct hx_framedb *db, uint64_t first, uint64_t last,
			   struct spare **list)
{
	unsigned long irq = hx_lock_acquire(&db->lock);
	for (uint64_t i = first; i <= last && *list; i++) {
		if (section_at(db, i)) {
			continue;
		}
		struct spare *s = *list;
		*list = s->next;
		s->next = NULL; /* all zero again: FREE */
		__atomic_store_n(&db->directory[i], (struct hx_frame *)(void *)s, __ATOMIC_RELEASE);
		db->sections_live++;
	}
	hx_lock_release(&db->lock, irq);
}

uint64_t hx_framedb_directory_bytes(struct hx_pa end)
{
	return sections_below(end) * sizeof(struct hx_frame *);
}

hx_status hx_framedb_init(struct hx_framedb *db, struct hx_frames *frames, void *directory,
			  struct hx_pa end)
{
	if (!db || !frames || !directory || end.v == 0) {
		return HX_INVALID_ARGUMENT;
	}
	*db = (struct hx_framedb){
		.frames = frames,
		.directory = directory,
		.sections = sections_below(end),
		.end = hx_pfn((end.v - 1) / HX_FRAME_BYTES + 1),
	};
	hx_memset(directory, 0, hx_framedb_directory_bytes(end));
	return HX_OK;
}

void hx_framedb_destroy(struct hx_framedb *db)
{
	for (uint64_t i = 0; db && i < db->sections; i++) {
		if (db->directory[i]) {
			free_section(db, db->directory[i]);
			db->directory[i] = NULL;
			db->sections_live--;
		}
	}
}

hx_status hx_framedb_set(struct hx_framedb *db, struct hx_pfn first, uint64_t count,
			 enum hx_frame_tag tag, void *owner)
{
	if (count == 0) {
		return HX_INVALID_SIZE;
	}
	if ((unsigned)tag >= HX_TAGS) {
		return HX_INVALID_ARGUMENT;
	}
	if (!db) {
		return HX_OK;
	}
	if (first.v >= db->end.v || count > db->end.v - first.v) {
		return HX_INVALID_ADDRESS;
	}
	uint64_t low = first.v >> SECTION_SHIFT, high = (first.v + count - 1) >> SECTION_SHIFT;
	if (tag != HX_TAG_FREE) { /* without a section they are FREE as it is */
		struct spare *spares;
		hx_status status = allocate_spares(db, low, high, &spares);
		if (status != HX_OK) {
			return status;
		}
		publish_spares(db, low, high, &spares);
		free_spares(db, spares);
	}
	uint32_t references = tag != HX_TAG_FREE;
	for (uint64_t f = first.v; f < first.v + count; f++) {
		struct hx_frame *e = hx_framedb_find(db, hx_pfn(f));
		if (!e) {
			f |= SECTION_FRAMES - 1; /* on to the next section */
			continue;
		}
		e->owner = references != 0 ? owner : NULL;
		__atomic_store_n(&e->references, references, __ATOMIC_RELAXED);
		__atomic_store_n(&e->tag, (uint32_t)tag, __ATOMIC_RELEASE);
	}
	return HX_OK;
}

struct hx_frame *hx_framedb_find(const struct hx_framedb *db, struct hx_pfn frame)
{
	if (!db || frame.v >= db->end.v) {
		return NULL;
	}
	struct hx_frame *section = section_at(db, frame.v >> SECTION_SHIFT);
	return section ? &section[frame.v & (SECTION_FRAMES - 1)] : NULL;
}

enum hx_frame_tag hx_framedb_tag(const struct hx_framedb *db, struct hx_pfn frame)
{
	const struct hx_frame *e = hx_framedb_find(db, frame);
	return e ? (enum hx_frame_tag)__atomic_load_n(&e->tag, __ATOMIC_ACQUIRE) : HX_TAG_FREE;
}

hx_status hx_framedb_get(struct hx_framedb *db, struct hx_pfn frame)
{
	struct hx_frame *e = hx_framedb_find(db, frame);
	if (!e || __atomic_load_n(&e->tag, __ATOMIC_ACQUIRE) == HX_TAG_FREE) {
		return HX_NOT_MAPPED;
	}
	uint32_t old = __atomic_load_n(&e->references, __ATOMIC_RELAXED);
	do {
		if (old == 0) {
			return HX_NOT_MAPPED; /* the last put was here: it must not come back */
		}
		if (old == UINT32_MAX) {
			return HX_OK;
		}
	} while (!__atomic_compare_exchange_n(&e->references, &old, old + 1, true, __ATOMIC_RELAXED,
					      __ATOMIC_RELAXED));
	return HX_OK;
}

hx_status hx_framedb_put(struct hx_framedb *db, struct hx_pfn frame, bool *last)
{
	struct hx_frame *e = hx_framedb_find(db, frame);
	*last = false;
	if (!e) {
		return HX_DOUBLE_FREE;
	}
	uint32_t old = __atomic_load_n(&e->references, __ATOMIC_RELAXED);
	do {
		if (old == 0) {
			return HX_DOUBLE_FREE;
		}
		if (old == UINT32_MAX) {
			return HX_OK;
		}
	} while (!__atomic_compare_exchange_n(&e->references, &old, old - 1, true, __ATOMIC_ACQ_REL,
					      __ATOMIC_RELAXED));
	*last = old == 1;
	return HX_OK;
}

uint64_t hx_framedb_count(const struct hx_framedb *db, enum hx_frame_tag tag)
{
	uint64_t sum = 0;
	for (uint64_t i = 0; db && i < db->sections; i++) {
		const struct hx_frame *section = section_at(db, i);
		uint64_t frames = db->end.v - (i << SECTION_SHIFT);
		frames = frames < SECTION_FRAMES ? frames : SECTION_FRAMES;
		if (!section) {
			sum += tag == HX_TAG_FREE ? frames : 0;
			continue;
		}
		for (uint64_t k = 0; k < frames; k++) {
			sum += __atomic_load_n(&section[k].tag, __ATOMIC_RELAXED) == (uint32_t)tag;
		}
	}
	return sum;
}

const char *hx_frame_tag_name(enum hx_frame_tag tag)
{
	static const char *const names[HX_TAGS] = {
		[HX_TAG_FREE] = "free",   [HX_TAG_RESERVED] = "reserved",
		[HX_TAG_TABLE] = "table", [HX_TAG_ANONYMOUS] = "anonymous",
		[HX_TAG_HEAP] = "heap",   [HX_TAG_DEVICE] = "device",
	};
	return (unsigned)tag < HX_TAGS ? names[tag] : "?";
}
