/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The device-tree reader: on QEMU's own blobs, on one that has every form, on
 * built ones for each rule, and on damaged ones. Blobs end at an unreadable
 * page. Where the host has libfdt it is the oracle: whatever both accept, both
 * must read alike, damaged or not.
 */
#include "blob.h"

#ifdef HX_HAVE_LIBFDT
#include <libfdt.h>
#endif

enum { BLOB_MAX = 16384, RANGES_MAX = 200, CPUS_MAX = 100 };

static const char *const blobs[] = {"virt-1.dtb", "virt-numa.dtb", "spec.dtb", "spec-16.dtb",
				    "virt-8.dtb"};
/* Damaging the bytes of the last, which has no form that the others lack, would take long. */
enum { BLOBS_TO_DAMAGE = 4 };

/* ---- All that a blob says ---- */

struct answer {
	unsigned ranges, cpus;
	struct hx_memory_range range[RANGES_MAX];
	struct hx_cpu_info cpu[CPUS_MAX];
	struct hx_boot_info info;
};

static void read_all(const struct hx_fdt *f, struct answer *a)
{
	memset(a, 0, sizeof *a);
	uint32_t i = 0;
	while (a->ranges < RANGES_MAX && hx_fdt_memory_next(f, &i, &a->range[a->ranges])) {
		a->ranges++;
		HX_CHECK_EQUAL(i, a->ranges);
	}
	i = 0;
	while (a->cpus < CPUS_MAX && hx_fdt_cpu_next(f, &i, &a->cpu[a->cpus])) {
		a->cpus++;
	}
	hx_fdt_boot_info(f, &a->info);
	if (a->info.command_line) { /* ends inside the blob, or this read faults */
		const uint8_t *line = (const uint8_t *)a->info.command_line;
		HX_CHECK(line >= f->blob);
		HX_CHECK(line + strlen(a->info.command_line) < f->blob + f->total_bytes);
	}
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(f, "/cpus", "timebase-frequency", &bytes);
	HX_CHECK(!p || (p >= f->blob && p + bytes <= f->blob + f->total_bytes));
	p = hx_fdt_property(f, "/soc/plic", "reg", &bytes);
	HX_CHECK(!p || (p >= f->blob && p + bytes <= f->blob + f->total_bytes));
}

#ifdef HX_HAVE_LIBFDT

static uint64_t oracle_cells(const void *p, int cells)
{
	uint64_t v = 0;
	for (int i = 0; i < cells; i++) {
		v = v << 32 | fdt32_ld((const fdt32_t *)p + i);
	}
	return v;
}

static int oracle_cell(const void *b, int node, const char *name, int absent)
{
	int bytes;
	const void *p = fdt_getprop(b, node, name, &bytes);
	return p && bytes == 4 ? (int)fdt32_ld(p) : absent;
}

static bool oracle_says(const void *b, int node, const char *name, const char *text)
{
	int bytes;
	const char *p = fdt_getprop(b, node, name, &bytes);
	return p && strnlen(p, (size_t)bytes) < (size_t)bytes && strcmp(p, text) == 0;
}

static bool oracle_on(const void *b, int node)
{
	int bytes;
	return !fdt_getprop(b, node, "status", &bytes) || oracle_says(b, node, "status", "okay") ||
	       oracle_says(b, node, "status", "ok");
}

static bool oracle_named(const void *b, int node, const char *base)
{
	const char *name = fdt_get_name(b, node, NULL);
	size_t n = strlen(base);
	return strncmp(name, base, n) == 0 && (name[n] == '\0' || name[n] == '@');
}

static void oracle_ranges(const void *b, int node, int parent, enum hx_memory_type type,
			  struct answer *a)
{
	int address = oracle_cell(b, parent, "#address-cells", 2);
	int size = oracle_cell(b, parent, "#size-cells", 1);
	int bytes;
	const char *reg = fdt_getprop(b, node, "reg", &bytes);
	if (!reg || !oracle_on(b, node)) {
		return;
	}
	for (; bytes >= 4 * (address + size); bytes -= 4 * (address + size)) {
		if (a->ranges < RANGES_MAX) {
			a->range[a->ranges++] = (struct hx_memory_range){
				hx_pa(oracle_cells(reg, address)),
				oracle_cells(reg + 4 * address, size), type,
				type == HX_MEMORY_RAM
					? (uint32_t)oracle_cell(b, node, "numa-node-id", 0)
					: 0};
		}
		reg += 4 * (address + size);
	}
}

static void oracle_read(const void *b, struct answer *a)
{
	memset(a, 0, sizeof *a);
	int node, child;
	fdt_for_each_subnode(node, b, 0)
	{
		if (oracle_named(b, node, "memory") ||
		    oracle_says(b, node, "device_type", "memory")) {
			oracle_ranges(b, node, 0, HX_MEMORY_RAM, a);
		}
	}
	fdt_for_each_subnode(node, b, 0)
	{
		if (oracle_named(b, node, "reserved-memory")) {
			fdt_for_each_subnode(child, b, node)
			{
				oracle_ranges(b, child, node, HX_MEMORY_RESERVED, a);
			}
		}
	}
	uint64_t base, bytes;
	for (int i = 0; fdt_get_mem_rsv(b, i, &base, &bytes) == 0 && (base | bytes) != 0; i++) {
		if (a->ranges < RANGES_MAX) {
			a->range[a->ranges++] =
				(struct hx_memory_range){hx_pa(base), bytes, HX_MEMORY_RESERVED, 0};
		}
	}
	fdt_for_each_subnode(node, b, 0)
	{
		if (!oracle_named(b, node, "cpus")) {
			continue;
		}
		int cells = oracle_cell(b, node, "#address-cells", 2);
		fdt_for_each_subnode(child, b, node)
		{
			int length;
			const char *reg = fdt_getprop(b, child, "reg", &length);
			if ((!oracle_named(b, child, "cpu") &&
			     !oracle_says(b, child, "device_type", "cpu")) ||
			    !oracle_on(b, child)) {
				continue;
			}
			for (; reg && length >= 4 * cells; length -= 4 * cells, reg += 4 * cells) {
				uint64_t id = oracle_cells(reg, cells);
				if (a->cpus < CPUS_MAX) {
					a->cpu[a->cpus++] = (struct hx_cpu_info){
						id,
						(uint32_t)oracle_cell(b, child, "numa-node-id", 0),
						id == fdt_boot_cpuid_phys(b)};
				}
			}
		}
	}
	int chosen = -1;
	fdt_for_each_subnode(node, b, 0)
	{
		if (strcmp(fdt_get_name(b, node, NULL), "chosen") == 0) {
			chosen = node;
			break;
		}
	}
	if (chosen >= 0) {
		int n, m;
		const char *line = fdt_getprop(b, chosen, "bootargs", &n);
		a->info.command_line = line && strnlen(line, (size_t)n) < (size_t)n ? line : NULL;
		const void *start = fdt_getprop(b, chosen, "linux,initrd-start", &n);
		const void *end = fdt_getprop(b, chosen, "linux,initrd-end", &m);
		if (start && end && (n == 4 || n == 8) && (m == 4 || m == 8) &&
		    oracle_cells(end, m / 4) > oracle_cells(start, n / 4)) {
			a->info.initrd = hx_pa(oracle_cells(start, n / 4));
			a->info.initrd_bytes = oracle_cells(end, m / 4) - a->info.initrd.v;
		}
	}
}

static void compare(const struct answer *ours, const struct answer *theirs)
{
	HX_CHECK_EQUAL(ours->ranges, theirs->ranges);
	HX_CHECK_EQUAL(ours->cpus, theirs->cpus);
	HX_BAIL();
	for (unsigned i = 0; i < ours->ranges; i++) {
		HX_CHECK_EQUAL(ours->range[i].base.v, theirs->range[i].base.v);
		HX_CHECK_EQUAL(ours->range[i].bytes, theirs->range[i].bytes);
		HX_CHECK_EQUAL(ours->range[i].type, theirs->range[i].type);
		HX_CHECK_EQUAL(ours->range[i].node, theirs->range[i].node);
	}
	for (unsigned i = 0; i < ours->cpus; i++) {
		HX_CHECK_EQUAL(ours->cpu[i].hardware_id, theirs->cpu[i].hardware_id);
		HX_CHECK_EQUAL(ours->cpu[i].node, theirs->cpu[i].node);
		HX_CHECK_EQUAL(ours->cpu[i].boot, theirs->cpu[i].boot);
	}
	HX_CHECK_EQUAL(ours->info.initrd.v, theirs->info.initrd.v);
	HX_CHECK_EQUAL(ours->info.initrd_bytes, theirs->info.initrd_bytes);
	const char *a = ours->info.command_line, *b = theirs->info.command_line;
	HX_CHECK((a == NULL) == (b == NULL));
	HX_CHECK(!a || !b || strcmp(a, b) == 0);
}

/* @return whether libfdt accepts the blob, too */
static bool check_oracle(const struct hx_fdt *f, const struct answer *ours)
{
	static _Alignas(8) uint8_t copy[BLOB_MAX];
	static struct answer theirs;
	memcpy(copy, f->blob, f->total_bytes);
	if (fdt_check_full(copy, f->total_bytes) != 0) {
		return false;
	}
	oracle_read(copy, &theirs);
	compare(ours, &theirs);
	return true;
}

#else

static bool check_oracle(const struct hx_fdt *f, const struct answer *ours)
{
	(void)f;
	(void)ours;
	return false;
}

#endif

/* Read a blob of @n bytes that may be anything; says whether it was accepted. */
static bool try_blob(const struct fence *fence, const uint8_t *data, size_t n)
{
	static struct answer a;
	const uint8_t *at = fence_put(fence, data, n);
	struct hx_fdt f;
	if (!hx_fdt_open(&f, at, n)) {
		return false;
	}
	HX_CHECK(f.total_bytes <= n);
	read_all(&f, &a);
	check_oracle(&f, &a);
	return true;
}

/* ---- Real blobs ---- */

static bool open_data(const char *name, struct hx_fdt *f, uint8_t **data)
{
	size_t n;
	*data = load_data(name, &n);
	return hx_fdt_open(f, *data, n);
}

HX_TEST(one_cpu_as_qemu_was_told)
{
	static struct answer a;
	struct hx_fdt f;
	uint8_t *data;
	HX_REQUIRE(open_data("virt-1.dtb", &f, &data));
	read_all(&f, &a);
	HX_CHECK_EQUAL(a.ranges, 1);
	HX_CHECK_EQUAL(a.range[0].base.v, 0x80000000);
	HX_CHECK_EQUAL(a.range[0].bytes, HX_MIB(64));
	HX_CHECK_EQUAL(a.range[0].type, HX_MEMORY_RAM);
	HX_CHECK_EQUAL(a.cpus, 1);
	HX_CHECK(a.cpu[0].boot);
	HX_CHECK(strcmp(a.info.command_line, "hx.physical=bitmap hx.heap=simple") == 0);
	HX_CHECK_EQUAL(a.info.initrd_bytes, 0);
	uint32_t bytes;
	const uint8_t *p = hx_fdt_property(&f, "/cpus", "timebase-frequency", &bytes);
	HX_REQUIRE(p && bytes == 4);
	HX_CHECK_EQUAL(p[1] << 16 | p[2] << 8 | p[3], 10000000);
	free(data);
}

HX_TEST(two_nodes_and_an_initrd_as_qemu_was_told)
{
	static struct answer a;
	struct hx_fdt f;
	uint8_t *data;
	HX_REQUIRE(open_data("virt-numa.dtb", &f, &data));
	read_all(&f, &a);
	HX_CHECK_EQUAL(a.ranges, 2);
	HX_CHECK_EQUAL(a.range[0].bytes, HX_MIB(128));
	HX_CHECK_EQUAL(a.range[0].node, 0);
	HX_CHECK_EQUAL(a.range[1].base.v, 0x88000000);
	HX_CHECK_EQUAL(a.range[1].bytes, HX_MIB(384));
	HX_CHECK_EQUAL(a.range[1].node, 1);
	HX_CHECK_EQUAL(a.cpus, 4);
	for (unsigned i = 0; i < a.cpus; i++) {
		HX_CHECK_EQUAL(a.cpu[i].hardware_id, i);
		HX_CHECK_EQUAL(a.cpu[i].node, i / 2);
		HX_CHECK_EQUAL(a.cpu[i].boot, i == 0);
	}
	HX_CHECK_EQUAL(a.info.initrd.v, 0x88200000);
	HX_CHECK_EQUAL(a.info.initrd_bytes, 100000);
	free(data);
}

HX_TEST(eight_cpus_and_64_gib_as_qemu_was_told)
{
	static struct answer a;
	struct hx_fdt f;
	uint8_t *data;
	HX_REQUIRE(open_data("virt-8.dtb", &f, &data));
	read_all(&f, &a);
	HX_CHECK_EQUAL(a.ranges, 1);
	HX_CHECK_EQUAL(a.range[0].bytes, HX_GIB(64));
	HX_CHECK_EQUAL(a.cpus, 8);
	HX_CHECK(a.info.command_line == NULL);
	free(data);
}

HX_TEST(every_form_in_both_versions)
{
	static const struct hx_memory_range expected[] = {
		{{0x40000000}, 0x10000000, HX_MEMORY_RAM, 1},
		{{0x100000000}, 0x80000000, HX_MEMORY_RAM, 1},
		{{0x200000000}, 0x1000, HX_MEMORY_RAM, 0},
		{{0x40000000}, 0x80000, HX_MEMORY_RESERVED, 0},
		{{0x44000000}, 0x1000, HX_MEMORY_RESERVED, 0},
		{{0x45000000}, 0x2000, HX_MEMORY_RESERVED, 0},
		{{0x40000000}, 0x1000, HX_MEMORY_RESERVED, 0},
		{{0x41000000}, 0x2345, HX_MEMORY_RESERVED, 0},
	};
	for (unsigned version = 16; version <= 17; version++) {
		static struct answer a;
		struct hx_fdt f;
		uint8_t *data;
		HX_REQUIRE(open_data(version == 16 ? "spec-16.dtb" : "spec.dtb", &f, &data));
		read_all(&f, &a);
		HX_CHECK_EQUAL(a.ranges, HX_ARRAY_LENGTH(expected));
		for (unsigned i = 0; i < HX_ARRAY_LENGTH(expected); i++) {
			HX_CHECK_EQUAL(a.range[i].base.v, expected[i].base.v);
			HX_CHECK_EQUAL(a.range[i].bytes, expected[i].bytes);
			HX_CHECK_EQUAL(a.range[i].type, expected[i].type);
			HX_CHECK_EQUAL(a.range[i].node, expected[i].node);
		}
		HX_CHECK_EQUAL(a.cpus, 2);
		HX_CHECK_EQUAL(a.cpu[0].hardware_id, 3);
		HX_CHECK_EQUAL(a.cpu[0].node, 1);
		HX_CHECK(a.cpu[0].boot && !a.cpu[1].boot);
		HX_CHECK_EQUAL(a.cpu[1].hardware_id, UINT64_C(0x100000004));
		HX_CHECK(strcmp(a.info.command_line, "a b=c") == 0);
		HX_CHECK_EQUAL(a.info.initrd.v, 0x48000000);
		HX_CHECK_EQUAL(a.info.initrd_bytes, 0x123456);
		HX_CHECK_EQUAL(a.info.boot_hart, 3);
		free(data);
	}
}

HX_TEST(libfdt_reads_the_same)
{
#ifdef HX_HAVE_LIBFDT
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(blobs); i++) {
		static struct answer a;
		struct hx_fdt f;
		uint8_t *data;
		HX_REQUIRE(open_data(blobs[i], &f, &data));
		read_all(&f, &a);
		HX_CHECK(check_oracle(&f, &a));
		free(data);
	}
#else
	hx_test_skip("this host has no libfdt");
#endif
}

/* ---- Damaged blobs ---- */

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++) {
		p[i] = (uint8_t)(v >> (24 - 8 * i));
	}
}

HX_TEST(truncated_at_every_length)
{
	struct fence fence = fence_make(BLOB_MAX);
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(blobs); i++) {
		size_t n;
		uint8_t *data = load_data(blobs[i], &n);
		for (size_t k = 0; k < n; k++) {
			HX_CHECK(!try_blob(&fence, data, k));
		}
		HX_CHECK(try_blob(&fence, data, n));
		/* The same with a header that says so. */
		for (size_t k = 8; k <= n; k++) {
			put32(data + 4, (uint32_t)k);
			try_blob(&fence, data, k);
		}
		free(data);
	}
}

HX_TEST(byte_after_byte_damaged)
{
	struct fence fence = fence_make(BLOB_MAX);
	unsigned accepted = 0, refused = 0;
	for (unsigned i = 0; i < BLOBS_TO_DAMAGE; i++) {
		size_t n;
		uint8_t *data = load_data(blobs[i], &n);
		bool small = n < 2000;
		/* Inverted, one bit, and zero: all three in small blobs, else in turn. */
		for (size_t k = 0; k < n; k += small ? 1 : 2) {
			uint8_t was = data[k];
			uint8_t damage[] = {0xff, (uint8_t)(1u << (k & 7)), was};
			for (unsigned d = 0; d < (small ? 3 : 1); d++) {
				data[k] = was ^ damage[(k + d) % 3];
				if (try_blob(&fence, data, n)) {
					accepted++;
				} else {
					refused++;
				}
			}
			data[k] = was;
		}
		free(data);
		HX_BAIL();
	}
	HX_CHECK(accepted > 1000 && refused > 1000);
}

HX_TEST(random_words_damaged)
{
	struct fence fence = fence_make(BLOB_MAX);
	struct hx_random r = {7};
	unsigned accepted = 0;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(blobs); i++) {
		size_t n;
		uint8_t *data = load_data(blobs[i], &n);
		uint8_t *work = malloc(n);
		HX_REQUIRE(work != NULL);
		for (unsigned round = 0; round < 1500; round++) {
			memcpy(work, data, n);
			for (uint64_t k = 1 + hx_random_below(&r, 4); k > 0; k--) {
				const uint32_t values[] = {0,
							   1,
							   2,
							   3,
							   4,
							   9,
							   UINT32_MAX,
							   INT32_MAX,
							   (uint32_t)n,
							   (uint32_t)n - 4,
							   (uint32_t)hx_random(&r),
							   (uint32_t)hx_random_below(&r, n)};
				/* Half of the blows fall on the header. */
				uint64_t words = hx_random_below(&r, 2) ? 10 : n / 4;
				put32(work + 4 * hx_random_below(&r, words),
				      values[hx_random_below(&r, HX_ARRAY_LENGTH(values))]);
			}
			accepted += try_blob(&fence, work, n);
			HX_BAIL();
		}
		free(work);
		free(data);
	}
	HX_CHECK(accepted > 100);
}

/* ---- Built blobs: one rule each ---- */

struct builder {
	uint8_t structure[4096];
	char strings[1024];
	uint8_t reservations[256];
	size_t structure_bytes, strings_bytes, reservations_bytes;
	uint32_t version, compatible;
};

static void token(struct builder *b, uint32_t v)
{
	put32(b->structure + b->structure_bytes, v);
	b->structure_bytes += 4;
}

static void bytes_of(struct builder *b, const void *data, size_t n)
{
	memcpy(b->structure + b->structure_bytes, data, n);
	b->structure_bytes = (b->structure_bytes + n + 3) & ~(size_t)3;
}

static void node(struct builder *b, const char *name)
{
	token(b, 1);
	bytes_of(b, name, strlen(name) + 1);
}

static void end(struct builder *b)
{
	token(b, 2);
}

static void property(struct builder *b, const char *name, const void *value, size_t n)
{
	token(b, 3);
	token(b, (uint32_t)n);
	token(b, (uint32_t)b->strings_bytes);
	memcpy(b->strings + b->strings_bytes, name, strlen(name) + 1);
	b->strings_bytes += strlen(name) + 1;
	bytes_of(b, value, n);
}

static void text(struct builder *b, const char *name, const char *value)
{
	property(b, name, value, strlen(value) + 1);
}

static void cells(struct builder *b, const char *name, unsigned n, const uint32_t *values)
{
	uint8_t value[64];
	for (unsigned i = 0; i < n; i++) {
		put32(value + 4 * i, values[i]);
	}
	property(b, name, value, 4 * n);
}

#define CELLS(b, name, ...)                                                                        \
	cells(b, name, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (uint32_t[]){__VA_ARGS__})

static void reserve(struct builder *b, uint64_t base, uint64_t size)
{
	uint8_t *p = b->reservations + b->reservations_bytes;
	put32(p, (uint32_t)(base >> 32));
	put32(p + 4, (uint32_t)base);
	put32(p + 8, (uint32_t)(size >> 32));
	put32(p + 12, (uint32_t)size);
	b->reservations_bytes += 16;
}

static void start(struct builder *b)
{
	memset(b, 0, sizeof *b);
	b->version = 17;
	b->compatible = 16;
}

/* The same with the structure block at the very end. */
static size_t assemble_structure_last(const struct builder *b, uint8_t *out)
{
	size_t at = 40;
	memset(out, 0, at);
	put32(out, 0xd00dfeed);
	put32(out + 20, 17);
	put32(out + 24, 16);
	put32(out + 32, (uint32_t)b->strings_bytes);
	put32(out + 36, (uint32_t)b->structure_bytes);
	put32(out + 16, (uint32_t)at);
	memcpy(out + at, b->reservations, b->reservations_bytes);
	at += b->reservations_bytes;
	put32(out + 12, (uint32_t)at);
	memcpy(out + at, b->strings, b->strings_bytes);
	at = (at + b->strings_bytes + 3) & ~(size_t)3;
	put32(out + 8, (uint32_t)at);
	memcpy(out + at, b->structure, b->structure_bytes);
	at += b->structure_bytes;
	put32(out + 4, (uint32_t)at);
	return at;
}

/* Header, structure, strings; reservations last, so that they may lack an end. */
static size_t assemble(const struct builder *b, uint8_t *out)
{
	size_t at = b->version >= 17 ? 40 : 36;
	memset(out, 0, at);
	put32(out, 0xd00dfeed);
	put32(out + 20, b->version);
	put32(out + 24, b->compatible);
	put32(out + 32, (uint32_t)b->strings_bytes);
	if (b->version >= 17) {
		put32(out + 36, (uint32_t)b->structure_bytes);
	}
	put32(out + 8, (uint32_t)at);
	memcpy(out + at, b->structure, b->structure_bytes);
	at += b->structure_bytes;
	put32(out + 12, (uint32_t)at);
	memcpy(out + at, b->strings, b->strings_bytes);
	at = (at + b->strings_bytes + 7) & ~(size_t)7;
	put32(out + 16, (uint32_t)at);
	memcpy(out + at, b->reservations, b->reservations_bytes);
	at += b->reservations_bytes;
	put32(out + 4, (uint32_t)at);
	return at;
}

static struct builder build;
static struct answer answer;

/* Open what was built, read it into answer, with the oracle's consent. */
static bool read_built(struct hx_fdt *f)
{
	static uint8_t blob[8192];
	static struct fence fence;
	if (!fence.end) {
		fence = fence_make(sizeof blob);
	}
	size_t n = assemble(&build, blob);
	uint8_t *at = fence_put(&fence, blob, n);
	if (!hx_fdt_open(f, at, n)) {
		return false;
	}
	read_all(f, &answer);
	check_oracle(f, &answer);
	return true;
}

/* End the tree and the reservations, and read. */
static bool finish(struct hx_fdt *f)
{
	token(&build, 9);
	reserve(&build, 0, 0);
	return read_built(f);
}

HX_TEST(cells_of_one_and_two_and_their_defaults)
{
	struct hx_fdt f;
	for (uint32_t address = 0; address <= 4; address++) {
		for (uint32_t size = 0; size <= 3; size++) {
			start(&build);
			node(&build, "");
			CELLS(&build, "#address-cells", address);
			CELLS(&build, "#size-cells", size);
			node(&build, "memory");
			uint32_t reg[8] = {0};
			if (address + size > 0) {
				reg[address > 0 ? address - 1 : 0] = 0x1000;
				reg[address + size - 1] = 0x2000;
			}
			cells(&build, "reg", address + size, reg);
			end(&build);
			end(&build);
			bool fine = address >= 1 && address <= 2 && size >= 1 && size <= 2;
			HX_CHECK_EQUAL(finish(&f), fine);
			if (fine) {
				HX_CHECK_EQUAL(answer.ranges, 1);
				HX_CHECK_EQUAL(answer.range[0].base.v, 0x1000);
				HX_CHECK_EQUAL(answer.range[0].bytes, 0x2000);
			}
		}
	}
	/* Without the properties: 2 and 1, and not what the grandparent says. */
	start(&build);
	node(&build, "");
	node(&build, "memory");
	CELLS(&build, "reg", 1, 0x1000, 0x2000);
	end(&build);
	node(&build, "reserved-memory");
	CELLS(&build, "#address-cells", 1);
	node(&build, "a");
	CELLS(&build, "reg", 0x3000, 0x4000);
	end(&build);
	end(&build);
	end(&build);
	HX_REQUIRE(finish(&f));
	HX_CHECK_EQUAL(answer.ranges, 2);
	HX_CHECK_EQUAL(answer.range[0].base.v, UINT64_C(0x100001000));
	HX_CHECK_EQUAL(answer.range[0].bytes, 0x2000);
	HX_CHECK_EQUAL(answer.range[1].base.v, 0x3000);
	HX_CHECK_EQUAL(answer.range[1].bytes, 0x4000);
	/* A cell count that is no cell. */
	start(&build);
	node(&build, "");
	property(&build, "#address-cells", "\0\0\0\0\0\0\0\1", 8);
	node(&build, "memory");
	CELLS(&build, "reg", 1, 0x1000, 0x2000);
	end(&build);
	end(&build);
	HX_CHECK(!finish(&f));
}

HX_TEST(order_of_properties_does_not_matter)
{
	struct hx_fdt f;
	for (unsigned order = 0; order < 6; order++) {
		static const uint8_t permutation[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
							  {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
		start(&build);
		node(&build, "");
		node(&build, "ram");
		for (unsigned i = 0; i < 3; i++) {
			switch (permutation[order][i]) {
			case 0:
				CELLS(&build, "reg", 0, 0x1000, 0x2000, 0, 0x5000, 0x1000);
				break;
			case 1:
				CELLS(&build, "numa-node-id", 3);
				break;
			default:
				text(&build, "device_type", "memory");
				break;
			}
			token(&build, 4); /* a hole in the blob */
		}
		end(&build);
		end(&build);
		HX_REQUIRE(finish(&f));
		HX_CHECK_EQUAL(answer.ranges, 2);
		HX_CHECK_EQUAL(answer.range[1].base.v, 0x5000);
		HX_CHECK_EQUAL(answer.range[0].node, 3);
		HX_CHECK_EQUAL(answer.range[1].node, 3);
	}
}

HX_TEST(status_decides)
{
	static const struct {
		const char *status;
		bool on;
	} cases[] = {{"okay", true},   {"ok", true}, {"disabled", false}, {"fail", false},
		     {"okay!", false}, {"", false},  {"reserved", false}};
	struct hx_fdt f;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		start(&build);
		node(&build, "");
		node(&build, "memory@1000");
		CELLS(&build, "reg", 0, 0x1000, 0x2000);
		text(&build, "status", cases[i].status);
		end(&build);
		node(&build, "cpus");
		CELLS(&build, "#address-cells", 1);
		CELLS(&build, "#size-cells", 0);
		node(&build, "cpu@7");
		text(&build, "status", cases[i].status);
		CELLS(&build, "reg", 7);
		end(&build);
		end(&build);
		end(&build);
		HX_REQUIRE(finish(&f));
		HX_CHECK_EQUAL(answer.ranges, cases[i].on);
		HX_CHECK_EQUAL(answer.cpus, cases[i].on);
	}
	/* A status without its end is no "okay". */
	start(&build);
	node(&build, "");
	node(&build, "memory@1000");
	property(&build, "status", "okay", 4);
	CELLS(&build, "reg", 0, 0x1000, 0x2000);
	end(&build);
	end(&build);
	HX_REQUIRE(finish(&f));
	HX_CHECK_EQUAL(answer.ranges, 0);
}

HX_TEST(reg_must_be_whole_entries)
{
	struct hx_fdt f;
	for (unsigned bytes = 0; bytes <= 36; bytes++) {
		static const uint8_t zeros[36];
		start(&build);
		node(&build, "");
		node(&build, "memory");
		property(&build, "reg", zeros, bytes);
		end(&build);
		end(&build);
		HX_CHECK_EQUAL(finish(&f), bytes % 12 == 0);
	}
	/* A node that reserves without a place says nothing. */
	start(&build);
	node(&build, "");
	node(&build, "reserved-memory");
	node(&build, "pool");
	CELLS(&build, "size", 0x1000);
	end(&build);
	end(&build);
	end(&build);
	HX_CHECK(finish(&f));
	HX_CHECK_EQUAL(answer.ranges, 0);
	/* CPUs have no size. */
	start(&build);
	node(&build, "");
	node(&build, "cpus");
	CELLS(&build, "#address-cells", 1);
	node(&build, "cpu@0");
	CELLS(&build, "reg", 0, 0);
	end(&build);
	end(&build);
	end(&build);
	HX_CHECK(!finish(&f));
}

HX_TEST(values_must_stay_inside)
{
	static const uint32_t lengths[] = {5, 6, 8, 9, 64, INT32_MAX, UINT32_MAX - 3, UINT32_MAX};
	struct fence fence = fence_make(4096);
	static uint8_t blob[4096];
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(lengths); i++) {
		/* A value without an end, the last thing in the blob. */
		struct hx_fdt f;
		start(&build);
		reserve(&build, 0, 0);
		node(&build, "");
		node(&build, "n");
		property(&build, "device_type", "memo", 4);
		put32(build.structure + build.structure_bytes - 12, lengths[i]);
		size_t n = assemble_structure_last(&build, blob);
		HX_CHECK(!hx_fdt_open(&f, fence_put(&fence, blob, n), n));
		/* Once more with a name that does not end. */
		put32(blob + n - 16, 1);
		memset(blob + n - 12, 'x', 12);
		HX_CHECK(!hx_fdt_open(&f, fence_put(&fence, blob, n), n));
	}
	/* The builder's order of blocks is not what is refused. */
	struct hx_fdt f;
	start(&build);
	reserve(&build, 0, 0);
	node(&build, "");
	node(&build, "n");
	text(&build, "device_type", "memory");
	CELLS(&build, "reg", 0, 0x1000, 0x2000);
	end(&build);
	end(&build);
	token(&build, 9);
	size_t n = assemble_structure_last(&build, blob);
	HX_REQUIRE(hx_fdt_open(&f, fence_put(&fence, blob, n), n));
	read_all(&f, &answer);
	HX_CHECK_EQUAL(answer.ranges, 1);
}

HX_TEST(only_the_right_nodes_count)
{
	struct hx_fdt f;
	start(&build);
	node(&build, "");
	node(&build, "memory-controller@1000"); /* other name */
	CELLS(&build, "reg", 0, 0x1000, 0x2000);
	end(&build);
	node(&build, "bus");
	CELLS(&build, "#address-cells", 7);
	node(&build, "memory@1000"); /* not a child of the root */
	CELLS(&build, "reg", 0, 0x1000, 0x2000);
	end(&build);
	node(&build, "cpus");
	node(&build, "cpu@0");
	CELLS(&build, "reg", 0, 0);
	end(&build);
	end(&build);
	end(&build);
	node(&build, "cpus");
	CELLS(&build, "#size-cells", 0);
	node(&build, "cpu-map");
	end(&build);
	node(&build, "l2-cache");
	CELLS(&build, "reg", 0, 0);
	end(&build);
	end(&build);
	end(&build);
	HX_REQUIRE(finish(&f));
	HX_CHECK_EQUAL(answer.ranges, 0);
	HX_CHECK_EQUAL(answer.cpus, 0);
}

HX_TEST(nesting_has_a_limit)
{
	struct hx_fdt f;
	for (unsigned depth = 1; depth < 200; depth++) {
		start(&build);
		for (unsigned i = 0; i < depth; i++) {
			node(&build, i ? "n" : "");
		}
		for (unsigned i = 0; i < depth; i++) {
			end(&build);
		}
		HX_CHECK_EQUAL(finish(&f), depth <= HX_FDT_DEPTH_MAX);
	}
}

/* A tree of the tokens in @script: < node, > end, p property, . nothing, $ end of all. */
static bool script_is_read(const char *script)
{
	struct hx_fdt f;
	start(&build);
	bool root = true;
	for (; *script != '\0'; script++) {
		switch (*script) {
		case '<':
			node(&build, root ? "" : "child");
			root = false;
			break;
		case '>':
			end(&build);
			break;
		case 'p':
			CELLS(&build, "p", 1);
			break;
		case '.':
			token(&build, 4);
			break;
		case '$':
			token(&build, 9);
			break;
		default:
			token(&build, 5); /* no token */
			break;
		}
	}
	reserve(&build, 0, 0);
	return read_built(&f);
}

HX_TEST(the_tree_must_be_well_formed)
{
	static const char *const good[] = {"<>$", "<p>$", ".<.p.>.$", "<<>>$", "<p<p><p<>>>$"};
	static const char *const bad[] = {
		"",      "$",      "<>",   "<$",   ">$", "<>>$", "<<>$",  "p<>$",     "<>p$",
		"<><>$", "<<>p>$", "<?>$", "?<>$", "<p", "<p>",  "<p>>$", "<p<p>p>$",
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(good); i++) {
		if (!script_is_read(good[i])) {
			hx_test_fail(__FILE__, __LINE__, "refused: %s", good[i]);
		}
	}
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(bad); i++) {
		if (script_is_read(bad[i])) {
			hx_test_fail(__FILE__, __LINE__, "accepted: %s", bad[i]);
		}
	}
}

HX_TEST(reservations_must_end)
{
	struct hx_fdt f;
	for (unsigned n = 0; n < 5; n++) {
		for (unsigned ended = 0; ended < 2; ended++) {
			start(&build);
			node(&build, "");
			end(&build);
			token(&build, 9);
			for (unsigned i = 0; i < n; i++) {
				reserve(&build, i * HX_GIB(8), i == 2 ? 0 : 0x1001);
			}
			if (ended) {
				reserve(&build, 0, 0);
			}
			if (n == 3) {
				/* An entry of no size does not end the block; libfdt thinks so. */
				static uint8_t blob[1024];
				size_t bytes = assemble(&build, blob);
				HX_CHECK_EQUAL(hx_fdt_open(&f, blob, bytes), ended);
				continue;
			}
			HX_CHECK_EQUAL(read_built(&f), ended);
			if (ended && n < 3) {
				HX_CHECK_EQUAL(answer.ranges, n);
			}
		}
	}
}

HX_TEST(versions_16_and_17)
{
	static const struct {
		uint32_t version, compatible;
		bool fine;
	} cases[] = {{15, 15, false}, {16, 16, true},         {16, 1, true},
		     {17, 16, true},  {18, 17, true},         {18, 18, false},
		     {3, 2, false},   {UINT32_MAX, 16, true}, {0, 0, false}};
	struct hx_fdt f;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(cases); i++) {
		start(&build);
		build.version = cases[i].version;
		build.compatible = cases[i].compatible;
		node(&build, "");
		node(&build, "memory");
		CELLS(&build, "reg", 0, 0x1000, 0x2000);
		end(&build);
		end(&build);
		HX_CHECK_EQUAL(finish(&f), cases[i].fine);
		if (cases[i].fine) {
			HX_CHECK_EQUAL(answer.ranges, 1);
		}
	}
}

static bool read_chosen(struct hx_fdt *f, const void *line, size_t line_bytes, size_t start_bytes,
			size_t end_bytes)
{
	static const uint8_t start_value[16] = {0, 0, 0, 1, 0, 0, 0, 2};
	static const uint8_t end_value[16] = {0, 0, 0, 2, 0, 0, 0, 1};
	start(&build);
	node(&build, "");
	node(&build, "chosen");
	property(&build, "linux,initrd-end", end_value, end_bytes);
	property(&build, "bootargs", line, line_bytes);
	property(&build, "linux,initrd-start", start_value, start_bytes);
	end(&build);
	end(&build);
	return finish(f);
}

HX_TEST(chosen_is_believed_only_when_whole)
{
	struct hx_fdt f;
	HX_REQUIRE(read_chosen(&f, "abc", 4, 8, 8));
	HX_CHECK(answer.info.command_line && strcmp(answer.info.command_line, "abc") == 0);
	HX_CHECK_EQUAL(answer.info.initrd.v, UINT64_C(0x100000002));
	HX_CHECK_EQUAL(answer.info.initrd_bytes, UINT64_C(0xffffffff));
	HX_REQUIRE(read_chosen(&f, "abc", 3, 4, 4)); /* no end */
	HX_CHECK(answer.info.command_line == NULL);
	HX_CHECK_EQUAL(answer.info.initrd.v, 1);
	HX_CHECK_EQUAL(answer.info.initrd_bytes, 1);
	HX_REQUIRE(read_chosen(&f, "abc", 0, 8, 4)); /* ends before it starts */
	HX_CHECK(answer.info.command_line == NULL);
	HX_CHECK_EQUAL(answer.info.initrd_bytes, 0);
	HX_REQUIRE(read_chosen(&f, "", 1, 4, 12)); /* twelve bytes are no address */
	HX_CHECK(answer.info.command_line && answer.info.command_line[0] == '\0');
	HX_CHECK_EQUAL(answer.info.initrd_bytes, 0);
	HX_REQUIRE(read_chosen(&f, "a\0b", 4, 0, 8));
	HX_CHECK(answer.info.command_line && strcmp(answer.info.command_line, "a") == 0);
	HX_CHECK_EQUAL(answer.info.initrd_bytes, 0);
	/* No /chosen at all. */
	HX_CHECK(script_is_read("<>$"));
	HX_CHECK(answer.info.command_line == NULL);
}

static uint32_t lookup(const struct hx_fdt *f, const char *path, const char *name)
{
	uint32_t bytes = 0;
	const uint8_t *p = hx_fdt_property(f, path, name, &bytes);
	return p && bytes == 4 ? p[3] : 0;
}

HX_TEST(properties_by_path)
{
	struct hx_fdt f;
	start(&build);
	node(&build, "");
	CELLS(&build, "v", 1);
	node(&build, "soc@1");
	CELLS(&build, "v", 2);
	node(&build, "serial@10");
	CELLS(&build, "v", 3);
	end(&build);
	node(&build, "serial@20");
	CELLS(&build, "v", 4);
	end(&build);
	node(&build, "plic@30");
	CELLS(&build, "v", 5);
	node(&build, "serial"); /* deeper: not a child of soc */
	CELLS(&build, "v", 6);
	end(&build);
	end(&build);
	end(&build);
	node(&build, "bus@1");
	node(&build, "x");
	end(&build);
	end(&build);
	node(&build, "bus");
	CELLS(&build, "v", 7);
	end(&build);
	node(&build, "last");
	property(&build, "empty", "", 0);
	end(&build);
	end(&build);
	HX_REQUIRE(finish(&f));
	HX_CHECK_EQUAL(lookup(&f, "/", "v"), 1);
	HX_CHECK_EQUAL(lookup(&f, "/soc", "v"), 2);
	HX_CHECK_EQUAL(lookup(&f, "/soc@1", "v"), 2);
	HX_CHECK_EQUAL(lookup(&f, "/soc/", "v"), 2);
	HX_CHECK_EQUAL(lookup(&f, "/soc@1/serial@10", "v"), 3);
	HX_CHECK_EQUAL(lookup(&f, "/soc/serial@20", "v"), 4);
	HX_CHECK_EQUAL(lookup(&f, "/soc//plic", "v"), 5);
	HX_CHECK_EQUAL(lookup(&f, "/soc/plic/serial", "v"), 6);
	HX_CHECK_EQUAL(lookup(&f, "/bus", "v"), 7);        /* to the letter goes before bus@1 */
	HX_CHECK_EQUAL(lookup(&f, "/soc/serial", "v"), 0); /* two fit */
	HX_CHECK_EQUAL(lookup(&f, "/soc/serial@1", "v"), 0);
	HX_CHECK_EQUAL(lookup(&f, "/so", "v"), 0);
	HX_CHECK_EQUAL(lookup(&f, "/soc2", "v"), 0);
	HX_CHECK_EQUAL(lookup(&f, "soc", "v"), 0);
	HX_CHECK_EQUAL(lookup(&f, "", "v"), 0);
	HX_CHECK_EQUAL(lookup(&f, "/soc", "w"), 0);
	HX_CHECK_EQUAL(lookup(&f, "/soc", "vv"), 0);
	HX_CHECK_EQUAL(lookup(&f, "/last/none", "v"), 0);
	uint32_t bytes = 99;
	HX_CHECK(hx_fdt_property(&f, "/last", "empty", &bytes) != NULL);
	HX_CHECK_EQUAL(bytes, 0);
}

HX_SUITE(fdt, HX_CASE(one_cpu_as_qemu_was_told), HX_CASE(two_nodes_and_an_initrd_as_qemu_was_told),
	 HX_CASE(eight_cpus_and_64_gib_as_qemu_was_told), HX_CASE(every_form_in_both_versions),
	 HX_CASE(libfdt_reads_the_same), HX_CASE(truncated_at_every_length),
	 HX_CASE(byte_after_byte_damaged), HX_CASE(random_words_damaged),
	 HX_CASE(cells_of_one_and_two_and_their_defaults),
	 HX_CASE(order_of_properties_does_not_matter), HX_CASE(status_decides),
	 HX_CASE(reg_must_be_whole_entries), HX_CASE(values_must_stay_inside),
	 HX_CASE(only_the_right_nodes_count), HX_CASE(nesting_has_a_limit),
	 HX_CASE(the_tree_must_be_well_formed), HX_CASE(reservations_must_end),
	 HX_CASE(versions_16_and_17), HX_CASE(chosen_is_believed_only_when_whole),
	 HX_CASE(properties_by_path));
