/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * chunk.h - chunks of memory cut into blocks: what bump and simple stand on.
 *
 *   chunk                                                            chunk->end
 *   | chunk header | block | object ... | block | object ... | block | ... |
 *
 * A chunk is the arena, or frames. Blocks fill it without a gap, up to `top`
 * (bump: the first byte never handed out; simple: the end). A block is its
 * 16-byte header and what follows it:
 *
 *      63 ................ 4  3 .. 0     63 ..................... 0
 *     | bytes, header included | state |  | check                    |
 *
 * `check` is a hash of the header's address, of its first word and of a salt of
 * the backend. So a pointer is known as the start of an object without a walk,
 * a header copied elsewhere is worth nothing, and a damaged one is noticed. The
 * hash is no secret: it stands against accidents, not against an attacker who
 * can read and write kernel memory.
 */
#ifndef HX_HEAP_CHUNK_H
#define HX_HEAP_CHUNK_H

#include "backend.h"

enum hx_heap_block_state {
	HX_HEAP_BLOCK_FREE = 1, /* also: was free when a neighbour swallowed it */
	HX_HEAP_BLOCK_LIVE = 2,
	HX_HEAP_BLOCK_SHRUNK = 3, /* live, resized to less than its block's worth */
	HX_HEAP_BLOCK_GAP = 4,    /* never handed out: in front of an aligned object */
	HX_HEAP_BLOCK_STATES = 15,
};

struct hx_heap_block {
	uint64_t word; /* bytes | state */
	uint64_t check;
};

enum {
	HX_HEAP_GRAIN = 16, /* blocks are multiples of it */
	HX_HEAP_BLOCK_BYTES = sizeof(struct hx_heap_block),
};

struct hx_heap_chunk {
	struct hx_heap_chunk *next;
	uint8_t *top;
	uint8_t *end;
	struct hx_heap_run run; /* frames == 0: the arena */
	uint64_t check;
};

/*
 * How bump and simple begin their words of the backend. The salt differs for
 * every backend that is ever set up, so that headers left in memory by an
 * earlier one are not taken for its own.
 */
struct __attribute__((may_alias)) hx_heap_chunks {
	struct hx_heap_chunk *newest; /* an arena's is the last */
	uint64_t salt;
};

static inline struct hx_heap_chunks *hx_heap_chunks_of(const struct hx_heap_backend *b)
{
	return (struct hx_heap_chunks *)(uintptr_t)b->private;
}

static inline uint64_t hx_heap_block_bytes(const struct hx_heap_block *block)
{
	return block->word & ~(uint64_t)HX_HEAP_BLOCK_STATES;
}

static inline unsigned hx_heap_block_state(const struct hx_heap_block *block)
{
	return (unsigned)(block->word & HX_HEAP_BLOCK_STATES);
}

static inline struct hx_heap_block *hx_heap_block_after(struct hx_heap_block *block)
{
	return (struct hx_heap_block *)(void *)((uint8_t *)block + hx_heap_block_bytes(block));
}

static inline struct hx_heap_block *hx_heap_block_of(const void *object)
{
	return (struct hx_heap_block *)(void *)((uint8_t *)(uintptr_t)object - HX_HEAP_BLOCK_BYTES);
}

static inline void *hx_heap_block_object(struct hx_heap_block *block)
{
	return block + 1;
}

static inline struct hx_heap_block *hx_heap_chunk_first(struct hx_heap_chunk *chunk)
{
	return (struct hx_heap_block *)(void *)(chunk + 1);
}

/** Bytes of the block for an object of @p bytes. */
static inline uint64_t hx_heap_block_need(uint64_t bytes)
{
	return ((bytes + HX_HEAP_GRAIN - 1) & ~(uint64_t)(HX_HEAP_GRAIN - 1)) + HX_HEAP_BLOCK_BYTES;
}

/** The check word of @p word standing at @p at. */
uint64_t hx_heap_check(const struct hx_heap_backend *b, const void *at, uint64_t word);

static inline void hx_heap_block_write(const struct hx_heap_backend *b, struct hx_heap_block *block,
				       uint64_t bytes, enum hx_heap_block_state state)
{
	block->word = bytes | state;
	block->check = hx_heap_check(b, block, block->word);
}

static inline bool hx_heap_block_sound(const struct hx_heap_backend *b,
				       const struct hx_heap_block *block)
{
	return block->check == hx_heap_check(b, block, block->word);
}

/** Choose the salt; comes before anything else here. */
void hx_heap_chunks_init(struct hx_heap_backend *b);
/**
 * The header of the chunk over the backend's arena; top is its first block.
 * @return NULL when the arena is too small for a chunk and the smallest object
 */
struct hx_heap_chunk *hx_heap_chunk_of_arena(struct hx_heap_backend *b);
/**
 * A chunk from the frames that holds an object of @p bytes at @p align; larger,
 * as the backend grows, when that can be had. Takes no lock of the backend.
 */
struct hx_heap_chunk *hx_heap_chunk_grow(struct hx_heap_backend *b, uint64_t bytes, uint64_t align);
/** The chunk ends at @p end, not below its top, from now on. */
void hx_heap_chunk_cut(const struct hx_heap_backend *b, struct hx_heap_chunk *chunk, uint8_t *end);
/** The backend's chunk with @p p in its blocks, below top; NULL if none. */
struct hx_heap_chunk *hx_heap_chunk_find(const struct hx_heap_backend *b, const void *p);
/** Is the header what this backend wrote there? (next and top apart) */
bool hx_heap_chunk_sound(const struct hx_heap_backend *b, const struct hx_heap_chunk *chunk);

/**
 * The live block of the object at @p p.
 * @return HX_OK; DOUBLE_FREE, FOREIGN_FREE, CORRUPTED (its header, or one before it)
 * Cost:   O(chunks); O(blocks of the chunk) when the header there is not sound
 */
HX_NODISCARD hx_status hx_heap_block_find(const struct hx_heap_backend *b, const void *p,
					  struct hx_heap_block **out);
/**
 * What a backend's find() answers: the bytes that the object at @p p may use.
 * Takes the backend's lock. Otherwise as hx_heap_block_find().
 */
HX_NODISCARD hx_status hx_heap_block_usable(struct hx_heap_backend *b, const void *p,
					    size_t *usable);

#endif
