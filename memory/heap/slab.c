/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * slab: size classes with a magazine per CPU in front; the heap of a real kernel.
 *
 *   allocate / free                       objects that this CPU freed last
 *      |
 *   magazine of (CPU, class) ---------->  the CPU's lock, nobody else near it
 *      | empty: half a magazine           | full: half a magazine
 *   slabs of the class --------------->   the class's lock
 *      | none: a new one                  | too many empty, or shrink
 *   frames
 *
 * Sizes. Eight classes per doubling, 16 bytes to 32 KiB, so that rounding a
 * size up wastes at most an eighth (above 128 bytes). A slab is a naturally
 * aligned block of 2^n frames with objects from end to end and nothing else in
 * it. Every larger object is a run of frames of its own.
 *
 * Metadata is out of line: no byte of a slab or of a free object is written
 * here, so a stray write into freed memory can harm its next owner, not the
 * heap. A descriptor (256 bytes) keeps three bits for each object:
 *
 *      free   live   loose
 *       1      0      0      in its slab
 *       0      0      0      in a magazine, or on its way
 *       0      1      0/1    handed out; 1: for a size of another class, because of
 *                            its alignment or by a resize in place
 *
 * `free` belongs to the class's lock. `live` changes by atomic fetch-or and
 * fetch-and only: the old value tells exactly one of two racing frees that it is
 * a double free, whichever CPUs they run on.
 *
 * Directory. From a pointer to its descriptor by a radix tree over the frame
 * number (9 bits a level, as many levels as the numbers need; a node is a
 * frame). All frames of a slab are in it, and the first of a large object:
 *
 *      p -> (p - direct offset) / 4096 -> node -> ... -> node -> descriptor
 *
 * It is read under the lock of the reader's CPU, which allocate and free hold
 * anyway, and changed under the backend's. Whoever takes a descriptor or a node
 * out of it then acquires and releases every CPU's lock once, one after the
 * other: whoever had found the thing before is done with it, and it can be freed
 * (wait_for_readers(), the idea of read-copy-update with these locks as the
 * readers' marks).
 *
 * Locks nest CPU -> class; the backend's lock is taken alone. None is held while
 * frames are taken or given.
 *
 * Cost: O(1) from a magazine (one uncontended lock, a few dependent loads);
 * a large free and a batch of emptied slabs cost a lock round trip per CPU.
 * Source: Bonwick 1994 (slabs), Bonwick and Adams 2001 (magazines); McKenney and
 * Slingwine 1998 (read-copy-update).
 */
#include "backend.h"

enum {
	CLASSES = 72,
	SMALL_MAX = 32768, /* bytes of the largest class */
	OBJECTS_MAX = 512, /* in a slab */
	MAP_WORDS = OBJECTS_MAX / 64,
	ORDER_FIRST = 2, /* slabs have 2^order frames */
	ORDER_LAST = 6,
	MAGAZINE_MAX = 31,
	FANOUT_BITS = 9,
	FANOUT = 1 << FANOUT_BITS,
	RELEASE_BATCH = 16, /* slabs or nodes freed behind one wait_for_readers() */
	LARGE = CLASSES,    /* instead of a class */
};

/* Which list of its class a slab is in. */
enum fill { FULL, PARTIAL, EMPTY, FILLS };

/* A slab, or a large object (then count is 1). */
struct descriptor {
	struct descriptor *next, *previous;
	uint8_t *base;  /* first object */
	uint64_t bytes; /* usable, of an object */
	struct hx_heap_run run;
	uint64_t served; /* large: the size it was last given for, in whole frames */
	uint16_t size_class;
	uint16_t count;      /* objects */
	uint16_t free_count; /* bits in `free` */
	uint16_t unused;
	uint64_t free[MAP_WORDS];
	uint64_t live[MAP_WORDS];
	uint64_t loose[MAP_WORDS];
};
_Static_assert(sizeof(struct descriptor) == 256, "sixteen to a frame");

/* A frame of descriptors: this header takes the place of the first. */
enum { POOL_SLOTS = 15 };
struct pool {
	struct pool *next, *previous; /* pools with a free slot */
	uint64_t free;                /* bit i: slot i + 1 is free */
	uint8_t unused[256 - 24];
	struct descriptor slots[POOL_SLOTS];
};
_Static_assert(sizeof(struct pool) == HX_FRAME_BYTES, "a frame");
enum { POOL_ALL_FREE = (1 << POOL_SLOTS) - 1 };

struct node {
	void *entries[FANOUT]; /* nodes; at level 0 descriptors */
};
_Static_assert(sizeof(struct node) == HX_FRAME_BYTES, "a frame");

struct magazine {
	uint64_t count;
	void *objects[MAGAZINE_MAX];
};

struct magazines {
	struct magazine of[CLASSES];
};

struct size_class {
	struct hx_lock lock;
	uint32_t bytes;
	uint16_t objects;  /* of a slab */
	uint16_t capacity; /* of a magazine */
	uint32_t order;
	uint32_t slabs;
	uint32_t empty_slabs;
	uint32_t unused;
	struct descriptor *lists[FILLS];
} __attribute__((aligned(64)));

struct cpu {
	struct hx_lock lock;
	struct magazines *magazines; /* NULL until they can be had: works without */
} __attribute__((aligned(64)));

struct control {
	struct cpu cpus[HX_CPUS_MAX];
	struct size_class classes[CLASSES];
};

struct __attribute__((may_alias)) slab {
	struct control *control;
	struct hx_heap_run control_run;
	uint64_t visitors; /* bit per CPU that ever entered */
	/* Under the backend's lock, but for the root's readers: */
	uintptr_t root;     /* top node | number of levels; 0: nothing in it */
	uint64_t nodes;     /* of the directory */
	struct pool *pools; /* with a free slot */
	uint64_t pool_count;
	struct descriptor *large;
};
_Static_assert(sizeof(struct slab) <= sizeof((struct hx_heap_backend *)0)->private, "fits");

static struct slab *slab_of(const struct hx_heap_backend *b)
{
	return (struct slab *)(uintptr_t)b->private;
}

static uint64_t frames_for(uint64_t bytes)
{
	return (bytes + HX_FRAME_BYTES - 1) >> HX_FRAME_SHIFT;
}

/* One zeroed frame of metadata, NULL when there is none. */
static void *take_frame(struct hx_heap_backend *b)
{
	struct hx_heap_run run;
	void *p;
	if (hx_heap_run_take(b, HX_FRAME_BYTES, HX_FRAME_BYTES, &run, &p) != HX_OK) {
		return NULL;
	}
	return hx_memset(p, 0, HX_FRAME_BYTES);
}

static void give_frame(struct hx_heap_backend *b, void *p)
{
	hx_heap_run_give(b, (struct hx_heap_run){hx_pa_to_pfn(hx_ptr_to_pa(p)), 1});
}

/* ---- Bits ---- */

static uint64_t bit(unsigned i)
{
	return UINT64_C(1) << i % 64;
}

static bool has_bit(const uint64_t *map, unsigned i)
{
	return (__atomic_load_n(&map[i / 64], __ATOMIC_RELAXED) & bit(i)) != 0;
}

/* Both return whether the bit was set before. */
static bool set_bit(uint64_t *map, unsigned i)
{
	return (__atomic_fetch_or(&map[i / 64], bit(i), __ATOMIC_ACQ_REL) & bit(i)) != 0;
}

static bool clear_bit(uint64_t *map, unsigned i)
{
	return (__atomic_fetch_and(&map[i / 64], ~bit(i), __ATOMIC_ACQ_REL) & bit(i)) != 0;
}

/* ---- This CPU ---- */

static struct cpu *enter(struct hx_heap_backend *b, unsigned long *irq)
{
	/* Should the caller move to another CPU now, the lock still protects the slot. */
	struct slab *s = slab_of(b);
	unsigned id = hx_hal_cpu_id();
	if ((__atomic_load_n(&s->visitors, __ATOMIC_RELAXED) & bit(id)) == 0) {
		__atomic_fetch_or(&s->visitors, bit(id), __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST); /* see wait_for_readers() */
	}
	struct cpu *cpu = &s->control->cpus[id];
	*irq = hx_lock_acquire(&cpu->lock);
	return cpu;
}

static void leave(struct cpu *cpu, unsigned long irq)
{
	hx_lock_release(&cpu->lock, irq);
}

/*
 * Everyone who read the directory before this call is done with what it found. Of
 * the two fences one comes first: either this CPU sees that the other was here, or
 * the other reads the directory as this CPU changed it.
 */
static void wait_for_readers(struct hx_heap_backend *b)
{
	struct slab *s = slab_of(b);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	uint64_t visitors = __atomic_load_n(&s->visitors, __ATOMIC_RELAXED);
	for (; visitors != 0; visitors &= visitors - 1) {
		struct cpu *cpu = &s->control->cpus[hx_ctz64(visitors)];
		leave(cpu, hx_lock_acquire(&cpu->lock));
	}
}

/* ---- Size classes ---- */

/*
 * Classes 0..7 are 16, 32, .. 128 bytes. Then each doubling [2^n, 2^(n+1)] has
 * eight steps of 2^n / 8: class 8 + 8 (n - 7) + step.
 */
static uint32_t class_bytes(unsigned k)
{
	return k < 8 ? 16 * (k + 1) : (16u << (k / 8 - 1)) * (8 + k % 8 + 1);
}

/* The smallest class of @bytes, 1..SMALL_MAX. */
static unsigned class_of(uint64_t bytes)
{
	if (bytes <= 128) {
		return (unsigned)(bytes - 1) / 16;
	}
	unsigned n = hx_log2_floor(bytes - 1);
	return 8 * (n - 6) + (unsigned)((bytes - 1) >> (n - 3)) % 8;
}

/* The smallest class whose objects hold @bytes and are multiples of @align. */
static unsigned class_for(uint64_t bytes, uint64_t align)
{
	if (bytes > SMALL_MAX || align > SMALL_MAX) {
		return LARGE;
	}
	unsigned k = class_of(bytes > align ? bytes : align);
	while (k < CLASSES && !hx_is_aligned(class_bytes(k), align)) {
		k++; /* ends at the next power of two at the latest */
	}
	return k;
}

/* Slabs start aligned to their size, as far as the direct map is itself aligned. */
static unsigned class_for_request(uint64_t bytes, uint64_t align)
{
	bool placed = align <= HX_FRAME_BYTES || hx_is_aligned(hx_hal_direct_offset, align);
	return placed ? class_for(bytes, align) : (unsigned)LARGE;
}

/* At least four objects, at most a sixteenth lost at the end if any order can do it. */
static unsigned slab_order(uint32_t bytes)
{
	if (HX_FRAME_BYTES << ORDER_FIRST > (uint64_t)OBJECTS_MAX * bytes) {
		return ORDER_FIRST - 1;
	}
	for (unsigned order = ORDER_FIRST; order < ORDER_LAST; order++) {
		uint32_t slab = (uint32_t)HX_FRAME_BYTES << order;
		if (slab / bytes >= 4 && slab % bytes <= slab / 16) {
			return order;
		}
	}
	return ORDER_LAST;
}

static void class_init(struct size_class *c, unsigned k)
{
	c->bytes = class_bytes(k);
	c->order = slab_order(c->bytes);
	c->objects = (uint16_t)(((uint32_t)HX_FRAME_BYTES << c->order) / c->bytes);
	uint32_t capacity = 16384 / c->bytes;
	c->capacity = (uint16_t)(capacity > MAGAZINE_MAX ? (uint32_t)MAGAZINE_MAX
				 : capacity < 2          ? 2
							 : capacity);
	HX_ASSERT(c->objects <= OBJECTS_MAX);
}

/* ---- Directory ---- */

static uint64_t key_of(const void *p)
{
	return hx_pa_to_pfn(hx_ptr_to_pa(p)).v;
}

static struct node *root_node(uintptr_t root)
{
	return (struct node *)(root & ~(uintptr_t)(HX_FRAME_BYTES - 1));
}

static unsigned root_levels(uintptr_t root)
{
	return (unsigned)(root & (HX_FRAME_BYTES - 1));
}

/* Does a tree of @levels reach @key? */
static bool reaches(unsigned levels, uint64_t key)
{
	return key >> (FANOUT_BITS * levels) == 0;
}

static void **entry_of(struct node *n, unsigned level, uint64_t key)
{
	return &n->entries[key >> (FANOUT_BITS * level) & (FANOUT - 1)];
}

/* The descriptor that has the frame of @p, NULL if none. In enter() .. leave(). */
static struct descriptor *directory_find(const struct hx_heap_backend *b, const void *p)
{
	uintptr_t root = __atomic_load_n(&slab_of(b)->root, __ATOMIC_ACQUIRE);
	uint64_t key = key_of(p);
	unsigned level = root_levels(root);
	if (level == 0 || !reaches(level, key)) {
		return NULL;
	}
	void *at = root_node(root);
	while (at != NULL && level-- > 0) {
		at = __atomic_load_n(entry_of(at, level, key), __ATOMIC_ACQUIRE);
	}
	return at;
}

/*
 * The level-0 node of @key, making what lacks of the way out of *@spare. NULL:
 * one more node is needed (and *@spare is NULL). The backend's lock is held.
 */
static struct node *directory_reach(struct slab *s, uint64_t key, struct node **spare)
{
	unsigned levels = root_levels(s->root);
	while (levels == 0 || !reaches(levels, key)) {
		if (*spare == NULL) {
			return NULL;
		}
		struct node *top = *spare;
		*spare = NULL;
		s->nodes++;
		if (levels == 0) { /* nothing below it: at once as high as needed */
			for (levels = 1; !reaches(levels, key); levels++) {
			}
		} else { /* what was there has the smaller keys */
			top->entries[0] = root_node(s->root);
			levels++;
		}
		__atomic_store_n(&s->root, (uintptr_t)top | levels, __ATOMIC_RELEASE);
	}
	struct node *n = root_node(s->root);
	for (unsigned level = levels - 1; level > 0; level--) {
		void **entry = entry_of(n, level, key);
		if (*entry == NULL) {
			if (*spare == NULL) {
				return NULL;
			}
			__atomic_store_n(entry, *spare, __ATOMIC_RELEASE);
			*spare = NULL;
			s->nodes++;
		}
		n = *entry;
	}
	return n;
}

/* How many of its frames are in the directory. */
static uint64_t directory_frames(const struct descriptor *d)
{
	return d->size_class == LARGE ? 1 : d->run.frames;
}

/* Let every entry of @d name @value. The backend's lock is held. */
static void directory_write(struct node *leaf, const struct descriptor *d, void *value)
{
	/* Slabs are naturally aligned and smaller than what a leaf covers. */
	uint64_t key = key_of(d->base);
	for (uint64_t i = 0; i < directory_frames(d); i++) {
		__atomic_store_n(entry_of(leaf, 0, key + i), value, __ATOMIC_RELEASE);
	}
}

/* False when a node cannot be had; nodes made on the way stay until shrink. */
static bool directory_insert(struct hx_heap_backend *b, struct descriptor *d)
{
	struct slab *s = slab_of(b);
	struct node *spare = NULL;
	struct node *leaf;
	for (;;) {
		unsigned long irq = hx_lock_acquire(&b->lock);
		leaf = directory_reach(s, key_of(d->base), &spare);
		if (leaf != NULL) {
			directory_write(leaf, d, d);
		}
		hx_lock_release(&b->lock, irq);
		if (leaf != NULL) {
			break;
		}
		spare = take_frame(b);
		if (spare == NULL) {
			return false;
		}
	}
	if (spare != NULL) {
		give_frame(b, spare);
	}
	return true;
}

static void directory_remove(struct hx_heap_backend *b, const struct descriptor *d)
{
	struct node *none = NULL;
	unsigned long irq = hx_lock_acquire(&b->lock);
	directory_write(directory_reach(slab_of(b), key_of(d->base), &none), d, NULL);
	hx_lock_release(&b->lock, irq);
}

/*
 * Unhook empty nodes from below @n, at @level, until @victims is full. True when
 * @n itself is empty then. The backend's lock is held; depth: the levels.
 */
static bool directory_prune(struct node *n, unsigned level, struct node **victims, unsigned *count)
{
	bool empty = true;
	for (unsigned i = 0; i < FANOUT; i++) {
		struct node *child = n->entries[i];
		if (child != NULL && level > 0 && *count < RELEASE_BATCH &&
		    directory_prune(child, level - 1, victims, count) && *count < RELEASE_BATCH) {
			__atomic_store_n(&n->entries[i], NULL, __ATOMIC_RELEASE);
			victims[(*count)++] = child;
			child = NULL;
		}
		if (child != NULL) {
			empty = false;
			if (level == 0) {
				break;
			}
		}
	}
	return empty;
}

/* Free the directory's empty nodes. @return frames */
static uint64_t directory_shrink(struct hx_heap_backend *b)
{
	struct slab *s = slab_of(b);
	uint64_t frames = 0;
	unsigned count;
	do {
		struct node *victims[RELEASE_BATCH];
		count = 0;
		unsigned long irq = hx_lock_acquire(&b->lock);
		struct node *top = root_node(s->root);
		if (s->root != 0 &&
		    directory_prune(top, root_levels(s->root) - 1, victims, &count) &&
		    count < RELEASE_BATCH) {
			__atomic_store_n(&s->root, 0, __ATOMIC_RELEASE);
			victims[count++] = top;
		}
		s->nodes -= count;
		hx_lock_release(&b->lock, irq);
		if (count > 0) {
			wait_for_readers(b);
		}
		for (unsigned i = 0; i < count; i++) {
			give_frame(b, victims[i]);
		}
		frames += count;
	} while (count == RELEASE_BATCH);
	return frames;
}

/* ---- Descriptors ---- */

static void pool_link(struct slab *s, struct pool *p)
{
	p->previous = NULL;
	p->next = s->pools;
	if (s->pools != NULL) {
		s->pools->previous = p;
	}
	s->pools = p;
}

static void pool_unlink(struct slab *s, struct pool *p)
{
	if (p->next != NULL) {
		p->next->previous = p->previous;
	}
	*(p->previous != NULL ? &p->previous->next : &s->pools) = p->next;
}

/* A zeroed descriptor, NULL when a frame for it cannot be had. */
static struct descriptor *descriptor_get(struct hx_heap_backend *b)
{
	struct slab *s = slab_of(b);
	struct pool *fresh = NULL;
	unsigned long irq = hx_lock_acquire(&b->lock);
	if (s->pools == NULL) {
		hx_lock_release(&b->lock, irq);
		fresh = take_frame(b);
		if (fresh == NULL) {
			return NULL;
		}
		fresh->free = POOL_ALL_FREE;
		irq = hx_lock_acquire(&b->lock);
		s->pool_count++;
		pool_link(s, fresh);
	}
	struct pool *p = s->pools;
	unsigned slot = hx_ctz64(p->free);
	p->free &= p->free - 1;
	if (p->free == 0) {
		pool_unlink(s, p);
	}
	hx_lock_release(&b->lock, irq);
	return hx_memset(&p->slots[slot], 0, sizeof(struct descriptor));
}

static void descriptor_put(struct hx_heap_backend *b, struct descriptor *d)
{
	struct slab *s = slab_of(b);
	struct pool *p = (struct pool *)((uintptr_t)d & ~(uintptr_t)(HX_FRAME_BYTES - 1));
	bool unneeded = false;
	unsigned long irq = hx_lock_acquire(&b->lock);
	if (p->free == 0) {
		pool_link(s, p);
	}
	p->free |= bit((unsigned)(d - p->slots));
	/* The last pool with room stays: the next descriptor comes from it. */
	if (p->free == POOL_ALL_FREE && (p->next != NULL || p->previous != NULL)) {
		pool_unlink(s, p);
		s->pool_count--;
		unneeded = true;
	}
	hx_lock_release(&b->lock, irq);
	if (unneeded) {
		give_frame(b, p);
	}
}

/* Free the one pool that descriptor_put() may have kept. @return frames */
static uint64_t descriptors_shrink(struct hx_heap_backend *b)
{
	struct slab *s = slab_of(b);
	unsigned long irq = hx_lock_acquire(&b->lock);
	struct pool *p = s->pools;
	while (p != NULL && p->free != POOL_ALL_FREE) {
		p = p->next;
	}
	if (p != NULL) {
		pool_unlink(s, p);
		s->pool_count--;
	}
	hx_lock_release(&b->lock, irq);
	if (p == NULL) {
		return 0;
	}
	give_frame(b, p);
	return 1;
}

static void list_link(struct descriptor **list, struct descriptor *d)
{
	d->previous = NULL;
	d->next = *list;
	if (*list != NULL) {
		(*list)->previous = d;
	}
	*list = d;
}

static void list_unlink(struct descriptor **list, struct descriptor *d)
{
	if (d->next != NULL) {
		d->next->previous = d->previous;
	}
	*(d->previous != NULL ? &d->previous->next : list) = d->next;
}

/* ---- Slabs; the class's lock is held ---- */

static enum fill fill_of(const struct descriptor *d)
{
	return d->free_count == 0 ? FULL : d->free_count == d->count ? EMPTY : PARTIAL;
}

static void class_link(struct size_class *c, struct descriptor *d)
{
	enum fill fill = fill_of(d);
	list_link(&c->lists[fill], d);
	c->empty_slabs += fill == EMPTY;
}

static void class_unlink(struct size_class *c, struct descriptor *d)
{
	enum fill fill = fill_of(d);
	list_unlink(&c->lists[fill], d);
	c->empty_slabs -= fill == EMPTY;
}

/* An object, from a slab in use if there is one; NULL: there is no slab with one. */
static void *class_get(struct size_class *c)
{
	struct descriptor *d = c->lists[PARTIAL] != NULL ? c->lists[PARTIAL] : c->lists[EMPTY];
	if (d == NULL) {
		return NULL;
	}
	unsigned word = 0;
	while (d->free[word] == 0) {
		word++;
	}
	unsigned i = word * 64 + hx_ctz64(d->free[word]);
	class_unlink(c, d);
	d->free[word] &= d->free[word] - 1;
	d->free_count--;
	class_link(c, d);
	return d->base + (size_t)i * c->bytes;
}

static void class_put(struct size_class *c, struct descriptor *d, unsigned i)
{
	HX_ASSERT((d->free[i / 64] & bit(i)) == 0);
	class_unlink(c, d);
	d->free[i / 64] |= bit(i);
	d->free_count++;
	class_link(c, d);
}

/* Which object of @d is at @p; false: none starts there. */
static bool object_index(const struct descriptor *d, const void *p, unsigned *index)
{
	if (d->size_class == LARGE) {
		*index = 0;
		return p == d->base;
	}
	uint32_t offset = (uint32_t)((uintptr_t)p - (uintptr_t)d->base);
	*index = offset / (uint32_t)d->bytes;
	return *index < d->count && *index * (uint32_t)d->bytes == offset;
}

/* More empty slabs than the class is likely to want back soon. */
static bool has_slack(const struct size_class *c)
{
	return c->empty_slabs > 4 + c->slabs / 2;
}

/*
 * Move the oldest @n objects of @m to their slabs; true when the class has slack
 * then. The CPU's lock is held.
 */
static bool flush(struct hx_heap_backend *b, struct size_class *c, struct magazine *m, uint64_t n)
{
	unsigned long irq = hx_lock_acquire(&c->lock);
	for (uint64_t k = 0; k < n; k++) {
		struct descriptor *d = directory_find(b, m->objects[k]);
		unsigned i;
		HX_ASSERT(d != NULL && object_index(d, m->objects[k], &i));
		class_put(c, d, i);
	}
	bool slack = has_slack(c);
	hx_lock_release(&c->lock, irq);
	m->count -= n;
	hx_memmove(m->objects, m->objects + n, m->count * sizeof m->objects[0]);
	return slack;
}

static void refill(struct size_class *c, struct magazine *m)
{
	unsigned long irq = hx_lock_acquire(&c->lock);
	for (unsigned n = (c->capacity + 1u) / 2; n > 0; n--) {
		void *p = class_get(c);
		if (p == NULL) {
			break;
		}
		m->objects[m->count++] = p;
	}
	hx_lock_release(&c->lock, irq);
}

/* ---- Growing and shrinking; no lock is held ---- */

/* One more slab for class @k; false when memory lacks. */
static bool class_grow(struct hx_heap_backend *b, unsigned k)
{
	struct size_class *c = &slab_of(b)->control->classes[k];
	struct descriptor *d = descriptor_get(b);
	if (d == NULL) {
		return false;
	}
	void *base;
	if (hx_heap_run_take(b, HX_FRAME_BYTES << c->order, HX_FRAME_BYTES, &d->run, &base) !=
	    HX_OK) {
		descriptor_put(b, d);
		return false;
	}
	d->base = base;
	d->bytes = c->bytes;
	d->size_class = (uint16_t)k;
	d->count = d->free_count = c->objects;
	for (unsigned i = 0; i < d->count; i++) {
		d->free[i / 64] |= bit(i);
	}
	if (!directory_insert(b, d)) {
		hx_heap_run_give(b, d->run);
		descriptor_put(b, d);
		return false;
	}
	unsigned long irq = hx_lock_acquire(&c->lock);
	c->slabs++;
	class_link(c, d);
	hx_lock_release(&c->lock, irq);
	return true;
}

/* Free up to RELEASE_BATCH empty slabs, leaving @keep. @return frames */
static uint64_t class_release(struct hx_heap_backend *b, struct size_class *c, unsigned keep)
{
	struct descriptor *batch[RELEASE_BATCH];
	unsigned n = 0;
	unsigned long irq = hx_lock_acquire(&c->lock);
	while (n < RELEASE_BATCH && c->empty_slabs > keep) {
		struct descriptor *d = c->lists[EMPTY];
		class_unlink(c, d);
		c->slabs--;
		batch[n++] = d;
	}
	hx_lock_release(&c->lock, irq);
	if (n == 0) {
		return 0;
	}
	for (unsigned i = 0; i < n; i++) {
		directory_remove(b, batch[i]);
	}
	wait_for_readers(b);
	uint64_t frames = 0;
	for (unsigned i = 0; i < n; i++) {
		frames += batch[i]->run.frames;
		hx_heap_run_give(b, batch[i]->run);
		descriptor_put(b, batch[i]);
	}
	return frames;
}

/* Give this CPU its magazines; without the memory for them it goes on without. */
static void install_magazines(struct hx_heap_backend *b)
{
	struct hx_heap_run run;
	void *p;
	if (hx_heap_run_take(b, frames_for(sizeof(struct magazines)) << HX_FRAME_SHIFT,
			     HX_FRAME_BYTES, &run, &p) != HX_OK) {
		return;
	}
	hx_memset(p, 0, sizeof(struct magazines));
	unsigned long irq;
	struct cpu *cpu = enter(b, &irq);
	bool wanted = cpu->magazines == NULL;
	if (wanted) {
		cpu->magazines = p;
	}
	leave(cpu, irq);
	if (!wanted) {
		hx_heap_run_give(b, run);
	}
}

/* Empty @cpu's magazines and free them. @return frames */
static uint64_t remove_magazines(struct hx_heap_backend *b, struct cpu *cpu)
{
	unsigned long irq = hx_lock_acquire(&cpu->lock);
	struct magazines *m = cpu->magazines;
	cpu->magazines = NULL;
	for (unsigned k = 0; m != NULL && k < CLASSES; k++) {
		if (m->of[k].count > 0) {
			flush(b, &slab_of(b)->control->classes[k], &m->of[k], m->of[k].count);
		}
	}
	leave(cpu, irq);
	if (m == NULL) {
		return 0;
	}
	uint64_t frames = frames_for(sizeof *m);
	hx_heap_run_give(b, (struct hx_heap_run){hx_pa_to_pfn(hx_ptr_to_pa(m)), frames});
	return frames;
}

uint64_t hx_heap_slab_shrink(struct hx_heap_backend *b)
{
	struct control *control = slab_of(b)->control;
	uint64_t frames = 0;
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		frames += remove_magazines(b, &control->cpus[i]);
	}
	for (unsigned k = 0; k < CLASSES; k++) {
		uint64_t given;
		do {
			given = class_release(b, &control->classes[k], 0);
			frames += given;
		} while (given > 0);
	}
	frames += directory_shrink(b);
	return frames + descriptors_shrink(b);
}

/* ---- The trait ---- */

hx_status hx_heap_slab_init(struct hx_heap_backend *b)
{
	/* Objects must be reachable through the direct map, where an arena need not be. */
	if (b->frames == NULL || b->arena != NULL) {
		return HX_INVALID_ARGUMENT;
	}
	struct slab *s = slab_of(b);
	void *p;
	hx_status status = hx_heap_run_take(b, frames_for(sizeof(struct control)) << HX_FRAME_SHIFT,
					    HX_FRAME_BYTES, &s->control_run, &p);
	if (status != HX_OK) {
		return status;
	}
	s->control = hx_memset(p, 0, sizeof(struct control));
	for (unsigned k = 0; k < CLASSES; k++) {
		class_init(&s->control->classes[k], k);
	}
	return HX_OK;
}

/* A large object; NULL when memory lacks. */
static void *allocate_large(struct hx_heap_backend *b, size_t bytes, size_t align, size_t *usable)
{
	struct descriptor *d = descriptor_get(b);
	if (d == NULL) {
		return NULL;
	}
	void *base;
	d->served = frames_for(bytes);
	if (hx_heap_run_take(b, d->served << HX_FRAME_SHIFT, align, &d->run, &base) != HX_OK) {
		descriptor_put(b, d);
		return NULL;
	}
	uint8_t *first = hx_ptr(hx_pfn_to_pa(d->run.first));
	d->base = base;
	d->bytes = (d->run.frames << HX_FRAME_SHIFT) - (uint64_t)(d->base - first);
	d->size_class = LARGE;
	d->count = 1;
	d->live[0] = 1;
	if (!directory_insert(b, d)) {
		hx_heap_run_give(b, d->run);
		descriptor_put(b, d);
		return NULL;
	}
	unsigned long irq = hx_lock_acquire(&b->lock);
	list_link(&slab_of(b)->large, d);
	hx_lock_release(&b->lock, irq);
	*usable = d->bytes;
	return base;
}

/* The object was marked not live: nobody else frees it. */
static void free_large(struct hx_heap_backend *b, struct descriptor *d)
{
	directory_remove(b, d);
	wait_for_readers(b);
	unsigned long irq = hx_lock_acquire(&b->lock);
	list_unlink(&slab_of(b)->large, d);
	hx_lock_release(&b->lock, irq);
	hx_heap_run_give(b, d->run);
	descriptor_put(b, d);
}

/* From this CPU's magazine, or from the class when the CPU has none; NULL: none there. */
static void *get_cached(struct hx_heap_backend *b, struct cpu *cpu, unsigned k)
{
	struct size_class *c = &slab_of(b)->control->classes[k];
	if (cpu->magazines == NULL) {
		unsigned long irq = hx_lock_acquire(&c->lock);
		void *p = class_get(c);
		hx_lock_release(&c->lock, irq);
		return p;
	}
	struct magazine *m = &cpu->magazines->of[k];
	if (m->count == 0) {
		refill(c, m);
	}
	return m->count > 0 ? m->objects[--m->count] : NULL;
}

/* An object of class @k; @loose: for a size of another class. NULL when memory lacks. */
static void *allocate_small(struct hx_heap_backend *b, unsigned k, bool loose)
{
	for (;;) {
		unsigned long irq;
		struct cpu *cpu = enter(b, &irq);
		bool equipped = cpu->magazines != NULL;
		void *p = get_cached(b, cpu, k);
		if (p != NULL) {
			struct descriptor *d = directory_find(b, p);
			unsigned i;
			HX_ASSERT(d != NULL && object_index(d, p, &i) && !set_bit(d->live, i));
			if (loose) {
				set_bit(d->loose, i);
			}
		}
		leave(cpu, irq);
		if (p != NULL) {
			if (!equipped) { /* only now: the object itself comes first */
				install_magazines(b);
			}
			return p;
		}
		if (!class_grow(b, k)) {
			return NULL;
		}
	}
}

struct hx_ptr_result hx_heap_slab_allocate(struct hx_heap_backend *b, size_t bytes, size_t align,
					   size_t *usable)
{
	unsigned k = class_for_request(bytes, align);
	void *p;
	if (k == LARGE) {
		p = allocate_large(b, bytes, align, usable);
	} else {
		*usable = class_bytes(k);
		p = allocate_small(b, k, class_of(bytes) != k);
	}
	if (p == NULL) { /* metadata that were made on the way go back */
		directory_shrink(b);
		descriptors_shrink(b);
		return (struct hx_ptr_result){HX_OUT_OF_MEMORY, NULL};
	}
	return (struct hx_ptr_result){HX_OK, p};
}

/* The live object at @p, in enter() .. leave(). */
static hx_status object_at(struct hx_heap_backend *b, const void *p, struct descriptor **out,
			   unsigned *index)
{
	struct descriptor *d = directory_find(b, p);
	if (d == NULL || !object_index(d, p, index)) {
		return HX_FOREIGN_FREE;
	}
	*out = d;
	return has_bit(d->live, *index) ? HX_OK : HX_DOUBLE_FREE;
}

/* Is @bytes a size that leads to such an object by itself? */
static bool is_own_size(const struct descriptor *d, uint64_t bytes)
{
	if (bytes > d->bytes) {
		return false;
	}
	if (d->size_class == LARGE) {
		return frames_for(bytes) == d->served;
	}
	return class_of(bytes) == d->size_class;
}

/*
 * Into this CPU's magazine, or to the slab when the CPU has none; true when the
 * class was found to have slack.
 */
static bool put_cached(struct hx_heap_backend *b, struct cpu *cpu, struct size_class *c,
		       struct descriptor *d, unsigned i)
{
	if (cpu->magazines == NULL) {
		unsigned long irq = hx_lock_acquire(&c->lock);
		class_put(c, d, i);
		bool slack = has_slack(c);
		hx_lock_release(&c->lock, irq);
		return slack;
	}
	struct magazine *m = &cpu->magazines->of[d->size_class];
	bool slack = m->count == c->capacity && flush(b, c, m, (c->capacity + 1u) / 2);
	m->objects[m->count++] = d->base + (size_t)i * c->bytes;
	return slack;
}

hx_status hx_heap_slab_free(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable)
{
	struct descriptor *d;
	unsigned i;
	unsigned long irq;
	struct cpu *cpu = enter(b, &irq);
	hx_status status = object_at(b, p, &d, &i);
	bool loose = status == HX_OK && has_bit(d->loose, i);
	if (status == HX_OK && bytes != 0 && !is_own_size(d, bytes) &&
	    (bytes > d->bytes || !loose)) {
		status = HX_WRONG_SIZE_FREE;
	}
	if (status == HX_OK && !clear_bit(d->live, i)) {
		status = HX_DOUBLE_FREE; /* another CPU was faster */
	}
	if (status != HX_OK) {
		leave(cpu, irq);
		return status;
	}
	if (loose) {
		clear_bit(d->loose, i);
	}
	*usable = d->bytes;
	if (d->size_class == LARGE) {
		leave(cpu, irq);
		free_large(b, d);
		return HX_OK;
	}

	struct size_class *c = &slab_of(b)->control->classes[d->size_class];
	bool slack = put_cached(b, cpu, c, d, i);
	leave(cpu, irq);
	if (slack) {
		class_release(b, c, 1);
	}
	return HX_OK;
}

hx_status hx_heap_slab_find(struct hx_heap_backend *b, const void *p, size_t *usable)
{
	struct descriptor *d;
	unsigned i;
	unsigned long irq;
	struct cpu *cpu = enter(b, &irq);
	hx_status status = object_at(b, p, &d, &i);
	if (status == HX_OK) {
		*usable = d->bytes;
	}
	leave(cpu, irq);
	return status;
}

hx_status hx_heap_slab_resize(struct hx_heap_backend *b, void *p, size_t bytes, size_t *usable)
{
	struct descriptor *d;
	unsigned i;
	unsigned long irq;
	struct cpu *cpu = enter(b, &irq);
	hx_status status = object_at(b, p, &d, &i);
	if (status == HX_OK && bytes > d->bytes) {
		status = HX_OUT_OF_MEMORY;
	}
	if (status == HX_OK) {
		if (d->size_class == LARGE) {
			d->served = frames_for(bytes);
		} else if (is_own_size(d, bytes)) {
			clear_bit(d->loose, i);
		} else {
			set_bit(d->loose, i);
		}
		*usable = d->bytes;
	}
	leave(cpu, irq);
	return status;
}

void hx_heap_slab_stats(struct hx_heap_backend *b, struct hx_heap_stats *out)
{
	out->managed_bytes = __atomic_load_n(&b->taken_bytes, __ATOMIC_RELAXED);
	for (unsigned k = CLASSES; k-- > 0 && out->largest_free == 0;) {
		struct size_class *c = &slab_of(b)->control->classes[k];
		unsigned long irq = hx_lock_acquire(&c->lock);
		if (c->lists[PARTIAL] != NULL || c->lists[EMPTY] != NULL) {
			out->largest_free = c->bytes;
		}
		hx_lock_release(&c->lock, irq);
	}
}

/* ---- Validation ---- */

/* What was found, to be compared with what is counted. */
struct tally {
	uint64_t frames;           /* of slabs, large objects, nodes, pools, magazines */
	uint64_t directory_frames; /* that descriptors say are in the directory */
	uint64_t descriptors;
	uint64_t cached[CLASSES]; /* neither free nor live */
};

static bool in_directory(const struct hx_heap_backend *b, const struct descriptor *d)
{
	for (uint64_t i = 0; i < directory_frames(d); i++) {
		if (directory_find(b, d->base + (i << HX_FRAME_SHIFT)) != d) {
			return false;
		}
	}
	return true;
}

/* The bits of word @w of a map that stand for objects. */
static uint64_t map_mask(const struct descriptor *d, unsigned w)
{
	unsigned below = w * 64;
	if (d->count <= below) {
		return 0;
	}
	return d->count - below >= 64 ? UINT64_MAX : bit(d->count) - 1;
}

static bool descriptor_sound(const struct hx_heap_backend *b, const struct descriptor *d,
			     struct tally *t)
{
	unsigned free = 0, live = 0;
	for (unsigned w = 0; w < MAP_WORDS; w++) {
		if (((d->free[w] | d->live[w] | d->loose[w]) & ~map_mask(d, w)) != 0 ||
		    (d->free[w] & d->live[w]) != 0 || (d->loose[w] & ~d->live[w]) != 0) {
			return false;
		}
		free += hx_popcount64(d->free[w]);
		live += hx_popcount64(d->live[w]);
	}
	t->frames += d->run.frames;
	t->directory_frames += directory_frames(d);
	t->descriptors++;
	if (d->size_class != LARGE) {
		t->cached[d->size_class] += d->count - free - live;
	}
	return free == d->free_count && in_directory(b, d) &&
	       (d->next == NULL || d->next->previous == d);
}

static bool class_sound(const struct hx_heap_backend *b, unsigned k, struct tally *t)
{
	const struct size_class *c = &slab_of(b)->control->classes[k];
	uint64_t slabs = 0, empty = 0;
	for (unsigned fill = 0; fill < FILLS; fill++) {
		for (const struct descriptor *d = c->lists[fill]; d != NULL; d = d->next) {
			if (fill_of(d) != fill || d->size_class != k || d->bytes != c->bytes ||
			    d->count != c->objects || !descriptor_sound(b, d, t)) {
				return false;
			}
			slabs++;
			empty += fill == EMPTY;
		}
	}
	return slabs == c->slabs && empty == c->empty_slabs;
}

/* Every object in a magazine is of its class, neither free nor live, and there once. */
static bool magazine_sound(const struct hx_heap_backend *b, const struct magazine *m, unsigned k,
			   struct tally *t)
{
	if (m->count > slab_of(b)->control->classes[k].capacity || m->count > t->cached[k]) {
		return false;
	}
	t->cached[k] -= m->count;
	for (uint64_t n = 0; n < m->count; n++) {
		const struct descriptor *d = directory_find(b, m->objects[n]);
		unsigned i;
		if (d == NULL || d->size_class != k || !object_index(d, m->objects[n], &i) ||
		    ((d->free[i / 64] | d->live[i / 64]) & bit(i)) != 0) {
			return false;
		}
		for (uint64_t earlier = 0; earlier < n; earlier++) {
			if (m->objects[earlier] == m->objects[n]) {
				return false;
			}
		}
	}
	return true;
}

static void directory_count(const struct node *n, unsigned level, uint64_t *nodes,
			    uint64_t *entries)
{
	(*nodes)++;
	for (unsigned i = 0; i < FANOUT; i++) {
		if (n->entries[i] != NULL) {
			if (level == 0) {
				(*entries)++;
			} else {
				directory_count(n->entries[i], level - 1, nodes, entries);
			}
		}
	}
}

hx_status hx_heap_slab_validate(struct hx_heap_backend *b)
{
	const struct slab *s = slab_of(b);
	struct tally t = {.frames = s->control_run.frames + s->nodes + s->pool_count};
	for (unsigned k = 0; k < CLASSES; k++) {
		if (!class_sound(b, k, &t)) {
			return HX_CORRUPTED;
		}
	}
	for (const struct descriptor *d = s->large; d != NULL; d = d->next) {
		if (d->size_class != LARGE || d->count != 1 || d->free_count != 0 ||
		    d->live[0] != 1 || !descriptor_sound(b, d, &t)) {
			return HX_CORRUPTED;
		}
	}
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		const struct magazines *m = s->control->cpus[i].magazines;
		if (m != NULL) {
			t.frames += frames_for(sizeof *m);
		}
		for (unsigned k = 0; m != NULL && k < CLASSES; k++) {
			if (!magazine_sound(b, &m->of[k], k, &t)) {
				return HX_CORRUPTED;
			}
		}
	}
	for (unsigned k = 0; k < CLASSES; k++) {
		if (t.cached[k] != 0) {
			return HX_CORRUPTED; /* an object in no magazine is lost */
		}
	}
	uint64_t nodes = 0, entries = 0, free_slots = 0;
	if (s->root != 0) {
		directory_count(root_node(s->root), root_levels(s->root) - 1, &nodes, &entries);
	}
	for (const struct pool *p = s->pools; p != NULL; p = p->next) {
		free_slots += hx_popcount64(p->free);
	}
	bool sound = nodes == s->nodes && entries == t.directory_frames &&
		     t.descriptors + free_slots == s->pool_count * POOL_SLOTS &&
		     t.frames << HX_FRAME_SHIFT == b->taken_bytes;
	return sound ? HX_OK : HX_CORRUPTED;
}

HX_HEAP_TRAIT_DEFINE(slab);
