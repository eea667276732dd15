/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/framedb.h - the frame database: what each frame is used for.
 *
 * A side column of 16 bytes a frame, in sections of 128 MiB of RAM that are
 * allocated when the first frame in them is described, so that a terabyte costs
 * nothing until it is used. Optional: a NULL database answers FREE to all, and
 * set() on it succeeds and does nothing.
 *
 *      directory[pa / 128 MiB] -> section: 32768 x { tag, references, owner }
 */
#ifndef HX_FRAMEDB_H
#define HX_FRAMEDB_H

#include <hx/frames.h>

enum hx_frame_tag {
	HX_TAG_FREE,      /* nothing is known; also: with the allocator */
	HX_TAG_RESERVED,  /* firmware, kernel image, metadata */
	HX_TAG_TABLE,     /* page table; owner: its hx_pagetable */
	HX_TAG_ANONYMOUS, /* user page; owner: none, references: mappings */
	HX_TAG_HEAP,      /* kernel heap; owner: the heap's backend */
	HX_TAG_DEVICE,
	HX_TAGS,
};

struct hx_frame {
	uint32_t tag;        /* enum hx_frame_tag */
	uint32_t references; /* saturates at UINT32_MAX and then never frees */
	void *owner;
};

struct hx_framedb {
	struct hx_frames *frames; /* sections come from here */
	struct hx_frame **directory;
	uint64_t sections; /* entries of the directory */
	struct hx_pfn end; /* first frame that cannot be described */
	uint64_t sections_live;
	struct hx_lock lock;
};

/** Bytes of directory for frames below @p end. */
uint64_t hx_framedb_directory_bytes(struct hx_pa end);

/** @param directory  hx_framedb_directory_bytes(end) bytes, zeroed by this call */
HX_NODISCARD hx_status hx_framedb_init(struct hx_framedb *db, struct hx_frames *frames,
				       void *directory, struct hx_pa end);

/** Give all sections back. */
void hx_framedb_destroy(struct hx_framedb *db);

/**
 * Describe @p count frames; references becomes 1 (0 for FREE, which allocates
 * nothing and forgets the owner). Raises no pressure event, so that callers may
 * hold locks.
 * @return OUT_OF_MEMORY when a section cannot be allocated, INVALID_ADDRESS
 *         beyond the end, INVALID_SIZE (no frames), INVALID_ARGUMENT (no such
 *         tag); nothing changed in all cases
 */
HX_NODISCARD hx_status hx_framedb_set(struct hx_framedb *db, struct hx_pfn first, uint64_t count,
				      enum hx_frame_tag tag, void *owner);

/** The frame's entry, NULL when its section does not exist (tag FREE). O(1). */
struct hx_frame *hx_framedb_find(const struct hx_framedb *db, struct hx_pfn frame);
enum hx_frame_tag hx_framedb_tag(const struct hx_framedb *db, struct hx_pfn frame);

/** One more reference; NOT_MAPPED for a FREE frame and for one that has none left. Atomic. */
HX_NODISCARD hx_status hx_framedb_get(struct hx_framedb *db, struct hx_pfn frame);
/** One reference less; *@p last is set when none is left. DOUBLE_FREE at zero. Atomic. */
HX_NODISCARD hx_status hx_framedb_put(struct hx_framedb *db, struct hx_pfn frame, bool *last);

/** Frames below the end with @p tag. O(sections x 32768). */
uint64_t hx_framedb_count(const struct hx_framedb *db, enum hx_frame_tag tag);
const char *hx_frame_tag_name(enum hx_frame_tag tag);

#endif
