/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The flattened device tree (Devicetree Specification 0.4, chapter 5). All
 * numbers are big-endian.
 *
 *    0 magic 0xd00dfeed   20 version             structure block, tokens:
 *    4 total bytes        24 last compatible      1 begin node, name\0, padding
 *    8 structure          28 boot CPU             2 end node
 *   12 strings            32 strings bytes        3 property, bytes, name, value,
 *   16 reservations       36 structure bytes        padding
 *                            (from version 17)    4 nothing     9 end
 *
 *   reservations: pairs of 64-bit address and size, ended by a pair of zeros
 *
 * There is one walk, next_node(), which yields every node in the order of the
 * blob with its depth and the path to it, kept in an array of fixed length. Properties come before
 * child nodes, so all of a node's properties are known when the node is: their order does not
 * matter. An iterator is the number of ranges already given; a call walks the blob once and skips
 * them by whole "reg" properties.
 */
#include "bytes.h"

#define MAGIC UINT32_C(0xd00dfeed)

enum {
	HEADER_BYTES_V16 = 36,
	HEADER_BYTES_V17 = 40,
	TOKEN_BYTES = 4,
	TOKEN_BEGIN = 1,
	TOKEN_END_NODE = 2,
	TOKEN_PROPERTY = 3,
	TOKEN_NOP = 4,
	TOKEN_END = 9,
	RESERVATION_BYTES = 16,
};

/* ---- Tokens ---- */

struct token {
	uint32_t type;
	const char *name;     /* BEGIN, PROPERTY; otherwise empty */
	const uint8_t *value; /* PROPERTY */
	uint32_t bytes;
	uint32_t next; /* where the next token stands, from the start of the structure block */
};

/* The token at @at of the structure block; false when it is not wholly inside. */
static bool read_token(const struct hx_fdt *f, uint32_t at, struct token *out)
{
	const uint8_t *block = f->blob + f->structure;
	if (!within(f->structure_bytes, at, TOKEN_BYTES)) {
		return false;
	}
	struct token t = {.type = be32(block + at), .name = ""};
	uint64_t next = (uint64_t)at + TOKEN_BYTES;
	uint64_t length;
	switch (t.type) {
	case TOKEN_BEGIN:
		if (!string_length(block + next, f->structure_bytes - next, &length)) {
			return false;
		}
		t.name = (const char *)block + next;
		next += length + 1;
		break;
	case TOKEN_PROPERTY: {
		if (!within(f->structure_bytes, next, 8)) {
			return false;
		}
		t.bytes = be32(block + next);
		uint32_t name = be32(block + next + 4);
		next += 8;
		if (name >= f->strings_bytes ||
		    !string_length(f->blob + f->strings + name, f->strings_bytes - name, &length)) {
			return false;
		}
		t.name = (const char *)f->blob + f->strings + name;
		t.value = block + next;
		next += t.bytes;
		break;
	}
	case TOKEN_END_NODE:
	case TOKEN_NOP:
	case TOKEN_END:
		break;
	default:
		return false;
	}
	next = (next + 3) & ~UINT64_C(3);
	if (next > f->structure_bytes) { /* a value that leaves the block, too */
		return false;
	}
	t.next = (uint32_t)next;
	*out = t;
	return true;
}

/* ---- Strings; all of them are known to end ---- */

static bool same_text(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* True when @name is @base, with or without a unit address behind it. */
static bool is_named(const char *name, const char *base)
{
	while (*base != '\0' && *name == *base) {
		name++;
		base++;
	}
	return *base == '\0' && (*name == '\0' || *name == '@');
}

/* ---- Properties of one node, whose first token behind its name is at @at ---- */

static const uint8_t *find_property(const struct hx_fdt *f, uint32_t at, const char *name,
				    uint32_t *bytes)
{
	struct token t;
	for (; read_token(f, at, &t); at = t.next) {
		if (t.type == TOKEN_PROPERTY) {
			if (same_text(t.name, name)) {
				*bytes = t.bytes;
				return t.value;
			}
		} else if (t.type != TOKEN_NOP) {
			break;
		}
	}
	return NULL;
}

/* The value of a one-cell property, @absent when there is none, @broken for another length. */
static uint32_t cell_or(const struct hx_fdt *f, uint32_t at, const char *name, uint32_t absent,
			uint32_t broken)
{
	uint32_t bytes;
	const uint8_t *value = find_property(f, at, name, &bytes);
	if (!value) {
		return absent;
	}
	return bytes == 4 ? be32(value) : broken;
}

/* True when the property is the string @text. */
static bool has_text(const struct hx_fdt *f, uint32_t at, const char *name, const char *text)
{
	uint32_t bytes;
	uint64_t length;
	const uint8_t *value = find_property(f, at, name, &bytes);
	return value && string_length(value, bytes, &length) &&
	       same_text((const char *)value, text);
}

static bool enabled(const struct hx_fdt *f, uint32_t at)
{
	uint32_t bytes;
	return !find_property(f, at, "status", &bytes) || has_text(f, at, "status", "okay") ||
	       has_text(f, at, "status", "ok");
}

/* ---- Nodes ---- */

/* A node on the path from the root to the one yielded last. */
struct node {
	const char *name;
	uint32_t properties; /* its first token */
};

struct walk {
	uint32_t at;                            /* next token */
	bool behind_child;                      /* no property may follow */
	bool ended;                             /* the END token was met, with every node closed */
	unsigned depth;                         /* of the node yielded last: the root has 1 */
	struct node path[HX_FDT_DEPTH_MAX + 1]; /* by depth */
};

/*
 * Step to the next node. False: there is none (ended) or the blob is broken
 * (not ended). The walk begins as {0}.
 */
static bool next_node(const struct hx_fdt *f, struct walk *w)
{
	struct token t;
	for (; !w->ended && read_token(f, w->at, &t); w->at = t.next) {
		switch (t.type) {
		case TOKEN_BEGIN:
			/* One root only, and it comes first. */
			if (w->depth == HX_FDT_DEPTH_MAX || (w->depth == 0 && w->behind_child)) {
				return false;
			}
			w->at = t.next;
			w->behind_child = false;
			w->path[++w->depth] = (struct node){t.name, t.next};
			return true;
		case TOKEN_END_NODE:
			if (w->depth == 0) {
				return false;
			}
			w->depth--;
			w->behind_child = true;
			break;
		case TOKEN_PROPERTY:
			if (w->depth == 0 || w->behind_child) {
				return false;
			}
			break;
		case TOKEN_END:
			w->ended = w->depth == 0 && w->behind_child;
			return false;
		default:
			break;
		}
	}
	return false;
}

/* ---- What the kernel wants to know of a node ---- */

enum role { OTHER, MEMORY, RESERVED, CPU };

static enum role role_of(const struct hx_fdt *f, const struct walk *w)
{
	const struct node *n = &w->path[w->depth];
	const char *parent = w->path[w->depth - 1].name;
	if (w->depth == 2 &&
	    (is_named(n->name, "memory") || has_text(f, n->properties, "device_type", "memory"))) {
		return MEMORY;
	}
	if (w->depth == 3 && is_named(parent, "reserved-memory")) {
		return RESERVED;
	}
	if (w->depth == 3 && is_named(parent, "cpus") &&
	    (is_named(n->name, "cpu") || has_text(f, n->properties, "device_type", "cpu"))) {
		return CPU;
	}
	return OTHER;
}

/* The "reg" of a node: @count entries; count is 0 when it has none. */
struct reg {
	const uint8_t *value;
	uint32_t count;
	uint32_t address_cells, size_cells; /* of an entry, by the parent's words */
};

/* False when the property is there but has no meaning. */
static bool read_reg(const struct hx_fdt *f, const struct walk *w, enum role role, struct reg *out)
{
	uint32_t parent = w->path[w->depth - 1].properties;
	struct reg r = {0};
	uint32_t bytes;
	r.value = find_property(f, w->path[w->depth].properties, "reg", &bytes);
	if (r.value) {
		r.address_cells = cell_or(f, parent, "#address-cells", 2, UINT32_MAX);
		r.size_cells = cell_or(f, parent, "#size-cells", 1, UINT32_MAX);
		uint32_t size_least = role == CPU ? 0 : 1, size_most = role == CPU ? 0 : 2;
		if (r.address_cells < 1 || r.address_cells > 2 || r.size_cells < size_least ||
		    r.size_cells > size_most) {
			return false;
		}
		uint32_t entry = 4 * (r.address_cells + r.size_cells);
		if (bytes % entry != 0) {
			return false;
		}
		r.count = bytes / entry;
	}
	*out = r;
	return true;
}

static uint64_t read_cells(const uint8_t *p, uint32_t cells)
{
	return cells == 2 ? (uint64_t)be32(p) << 32 | be32(p + 4) : be32(p);
}

/* Entry @i of @r. */
static void reg_entry(const struct reg *r, uint32_t i, uint64_t *address, uint64_t *size)
{
	const uint8_t *p = r->value + (uint64_t)i * 4 * (r->address_cells + r->size_cells);
	*address = read_cells(p, r->address_cells);
	*size = r->size_cells > 0 ? read_cells(p + 4 * (size_t)r->address_cells, r->size_cells) : 0;
}

/*
 * Entry number *@skip of the "reg" of all enabled nodes with @role; false when
 * there are fewer, and *@skip is then less by their number. (A CPU node has an
 * entry for each of its threads, and a thread is a CPU to us.)
 */
static bool find_entry(const struct hx_fdt *f, enum role role, uint32_t *skip, struct walk *w,
		       uint64_t *address, uint64_t *size)
{
	*w = (struct walk){0};
	while (next_node(f, w)) {
		struct reg r;
		if (role_of(f, w) != role || !enabled(f, w->path[w->depth].properties) ||
		    !read_reg(f, w, role, &r)) {
			continue;
		}
		if (*skip < r.count) {
			reg_entry(&r, *skip, address, size);
			return true;
		}
		*skip -= r.count;
	}
	return false;
}

/* Entry @i of the reservation block; false at its end or outside the blob. */
static bool read_reservation(const struct hx_fdt *f, uint32_t i, uint64_t *address, uint64_t *size)
{
	uint64_t at = f->reservations + (uint64_t)i * RESERVATION_BYTES;
	if (!within(f->total_bytes, at, RESERVATION_BYTES)) {
		return false;
	}
	*address = read_cells(f->blob + at, 2);
	*size = read_cells(f->blob + at + 8, 2);
	return true;
}

/* ---- The interface ---- */

bool hx_fdt_open(struct hx_fdt *f, const void *blob, uint64_t limit)
{
	const uint8_t *header = blob;
	if (limit < HEADER_BYTES_V16 || be32(header) != MAGIC) {
		return false;
	}
	struct hx_fdt r = {
		.blob = blob,
		.total_bytes = be32(header + 4),
		.structure = be32(header + 8),
		.strings = be32(header + 12),
		.strings_bytes = be32(header + 32),
		.reservations = be32(header + 16),
	};
	uint32_t version = be32(header + 20), compatible = be32(header + 24);
	if (version < 16 || compatible > 17 || r.total_bytes > limit ||
	    r.total_bytes < (version == 16 ? HEADER_BYTES_V16 : HEADER_BYTES_V17)) {
		return false;
	}
	if (r.structure > r.total_bytes || r.structure % TOKEN_BYTES != 0 ||
	    !within(r.total_bytes, r.strings, r.strings_bytes)) {
		return false;
	}
	/* Version 16 does not say where the structure block ends: its END token does. */
	r.structure_bytes = version == 16 ? r.total_bytes - r.structure : be32(header + 36);
	if (!within(r.total_bytes, r.structure, r.structure_bytes)) {
		return false;
	}

	struct walk w = {0};
	while (next_node(&r, &w)) {
		enum role role = role_of(&r, &w);
		struct reg reg;
		if (role != OTHER && !read_reg(&r, &w, role, &reg)) {
			return false;
		}
	}
	if (!w.ended) {
		return false;
	}
	uint64_t address, size;
	uint32_t i = 0;
	do {
		if (!read_reservation(&r, i++, &address, &size)) {
			return false;
		}
	} while ((address | size) != 0);
	*f = r;
	return true;
}

bool hx_fdt_memory_next(const struct hx_fdt *f, uint32_t *iterator, struct hx_memory_range *out)
{
	uint32_t skip = *iterator;
	struct walk w;
	uint64_t base, bytes;
	struct hx_memory_range r = {.type = HX_MEMORY_RAM};
	if (find_entry(f, MEMORY, &skip, &w, &base, &bytes)) {
		r.node = cell_or(f, w.path[w.depth].properties, "numa-node-id", 0, 0);
	} else {
		r.type = HX_MEMORY_RESERVED;
		if (!find_entry(f, RESERVED, &skip, &w, &base, &bytes) &&
		    (!read_reservation(f, skip, &base, &bytes) || (base | bytes) == 0)) {
			return false;
		}
	}
	r.base = hx_pa(base);
	r.bytes = bytes;
	*out = r;
	++*iterator;
	return true;
}

bool hx_fdt_cpu_next(const struct hx_fdt *f, uint32_t *iterator, struct hx_cpu_info *out)
{
	uint32_t skip = *iterator;
	struct walk w;
	uint64_t id, none;
	if (!find_entry(f, CPU, &skip, &w, &id, &none)) {
		return false;
	}
	*out = (struct hx_cpu_info){
		.hardware_id = id,
		.node = cell_or(f, w.path[w.depth].properties, "numa-node-id", 0, 0),
		.boot = id == be32(f->blob + 28),
	};
	++*iterator;
	return true;
}

/* An address in a property of 4 or 8 bytes. */
static bool read_address(const struct hx_fdt *f, uint32_t at, const char *name, uint64_t *out)
{
	uint32_t bytes;
	const uint8_t *value = find_property(f, at, name, &bytes);
	if (!value || (bytes != 4 && bytes != 8)) {
		return false;
	}
	*out = read_cells(value, bytes / 4);
	return true;
}

void hx_fdt_boot_info(const struct hx_fdt *f, struct hx_boot_info *out)
{
	*out = (struct hx_boot_info){.boot_hart = be32(f->blob + 28)};
	struct walk w = {0};
	while (next_node(f, &w)) {
		if (w.depth != 2 || !same_text(w.path[2].name, "chosen")) {
			continue;
		}
		uint32_t bytes, chosen = w.path[2].properties;
		uint64_t length, start, end;
		const uint8_t *line = find_property(f, chosen, "bootargs", &bytes);
		if (line && string_length(line, bytes, &length)) {
			out->command_line = (const char *)line;
		}
		if (read_address(f, chosen, "linux,initrd-start", &start) &&
		    read_address(f, chosen, "linux,initrd-end", &end) && end > start) {
			out->initrd = hx_pa(start);
			out->initrd_bytes = end - start;
		}
		return;
	}
}

/*
 * True when @name is what the next part of @path says; a part without a unit
 * address fits any. *@exact: to the letter. *@rest: the path behind that part.
 */
static bool fits(const char *name, const char *path, bool *exact, const char **rest)
{
	/* Every node of a path has a name. NOLINTNEXTLINE(clang-analyzer-core.NullDereference) */
	while (*path != '\0' && *path != '/' && *path == *name) {
		path++;
		name++;
	}
	*rest = path;
	*exact = *name == '\0';
	return (*path == '\0' || *path == '/') && (*name == '\0' || *name == '@');
}

const uint8_t *hx_fdt_property(const struct hx_fdt *f, const char *path, const char *name,
			       uint32_t *bytes)
{
	struct walk node = {0}; /* the node that the path so far names */
	if (*path != '/' || !next_node(f, &node)) {
		return NULL;
	}
	for (;;) {
		while (*path == '/') {
			path++;
		}
		if (*path == '\0') {
			return find_property(f, node.path[node.depth].properties, name, bytes);
		}
		/* Among its children: the exact one, or the only one that fits. */
		struct walk w = node, found = {0};
		unsigned fitting = 0;
		bool exact = false;
		const char *rest = path;
		while (!exact && next_node(f, &w) && w.depth > node.depth) {
			const char *behind;
			if (w.depth == node.depth + 1 &&
			    fits(w.path[w.depth].name, path, &exact, &behind)) {
				found = w;
				rest = behind;
				fitting++;
			} else {
				exact = false;
			}
		}
		if (!exact && fitting != 1) {
			return NULL;
		}
		node = found;
		path = rest;
	}
}
