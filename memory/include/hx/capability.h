/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/capability.h - rights as tokens.
 *
 * A token is a number without meaning of its own:
 *
 *      63 ............ 16 15 ....... 0
 *     |    generation    |   slot     |      0 is no token
 *
 * The table holds, per slot: generation, rights, object, parent. A token is
 * good only while its slot's generation equals its own; revoking bumps the
 * generation, and a slot whose generation would wrap is retired. Derived tokens
 * form a tree: revoking one revokes all below it.
 *
 * Generations start scattered over 47 bits, so that no live token is a few bits
 * away from another. They are no secret: a kernel keeps the tokens of a process
 * in a table of its own and lets user mode name them by index.
 */
#ifndef HX_CAPABILITY_H
#define HX_CAPABILITY_H

#include <hx/core.h>
#include <hx/lock.h>

struct hx_token {
	uint64_t v;
};

#define HX_TOKEN_NONE ((struct hx_token){0})

#define HX_RIGHT_MAP     (1u << 0) /* mmap, brk upwards */
#define HX_RIGHT_UNMAP   (1u << 1) /* munmap, brk downwards, MAP_FIXED */
#define HX_RIGHT_PROTECT (1u << 2) /* mprotect */
#define HX_RIGHT_EXECUTE (1u << 3) /* PROT_EXEC */
#define HX_RIGHT_QUERY   (1u << 4) /* lookup, statistics */
#define HX_RIGHT_FRAMES  (1u << 5) /* frames of a zone */
#define HX_RIGHT_DEVICE  (1u << 6) /* device memory */
#define HX_RIGHT_DERIVE  (1u << 7) /* make a token with fewer rights */
#define HX_RIGHT_REVOKE  (1u << 8) /* revoke tokens derived from it */
#define HX_RIGHTS_ALL    ((1u << 9) - 1)

struct hx_capability {
	uint64_t generation; /* odd: live; even: free; 2^48: retired */
	uint32_t rights;
	uint16_t parent; /* slot, or its own for a root; free: the next free one, or its own */
	const void *object;
};

struct hx_capability_table {
	struct hx_capability *slots;
	uint32_t slot_count; /* at most 65536 */
	uint32_t live;
	uint32_t free;    /* slots on the free list */
	uint16_t vacant;  /* first of them, when there are any */
	struct hx_lock lock;
};

/**
 * Make a table without tokens.
 * @param slots  storage of the caller, @p n entries, 1..65536
 * @return INVALID_ARGUMENT (NULL, @p n out of range)
 * Cost:   O(n)
 */
HX_NODISCARD hx_status hx_capability_init(struct hx_capability_table *t,
					  struct hx_capability *slots, uint32_t n);

struct hx_token_result {
	hx_status status;
	struct hx_token value;
};

/**
 * A token with @p rights over @p object, derived from nothing.
 * @return OUT_OF_MEMORY when no slot is free; INVALID_ARGUMENT (unknown rights)
 * Cost:   O(1)
 */
HX_NODISCARD struct hx_token_result hx_capability_create(struct hx_capability_table *t,
							 const void *object, uint32_t rights);

/**
 * A token with a subset of @p from's rights over the same object.
 * @return PERMISSION_DENIED (no DERIVE right, rights not a subset, bad token);
 *         OUT_OF_MEMORY when no slot is free
 * Cost:   O(1)
 */
HX_NODISCARD struct hx_token_result hx_capability_derive(struct hx_capability_table *t,
							 struct hx_token from, uint32_t rights);

/**
 * Revoke @p victim and everything derived from it. @p by must be victim itself
 * or an ancestor of it, and hold REVOKE. When it returns no check lets any of
 * them pass any more.
 * @return PERMISSION_DENIED (no right, a bad token, @p victim not below @p by)
 * Context: takes the table's lock for O(slots)
 */
HX_NODISCARD hx_status hx_capability_revoke(struct hx_capability_table *t, struct hx_token by,
					    struct hx_token victim);

/**
 * HX_OK when @p token is live, is over @p object and holds all of @p rights (0:
 * being live suffices); PERMISSION_DENIED otherwise.
 * Context: takes no lock, waits for nobody
 * Cost:    O(1)
 */
HX_NODISCARD hx_status hx_capability_check(struct hx_capability_table *t, struct hx_token token,
					   const void *object, uint32_t rights);

/** Revoke every token over @p object (it is going away). O(slots). */
void hx_capability_forget(struct hx_capability_table *t, const void *object);

/** Rights, tree and free list of a quiet table: HX_OK or CORRUPTED. O(slots x depth). */
HX_NODISCARD hx_status hx_capability_validate(const struct hx_capability_table *t);

#endif
