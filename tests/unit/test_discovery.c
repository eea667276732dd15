/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * PVH, multiboot2 and ACPI: on what QEMU, GRUB and SeaBIOS really hand over, on
 * built tables for each rule, and on damaged ones. Physical memory is made of
 * pieces, and every request for it is answered with a copy of exactly its
 * length (blob.h).
 */
#include "blob.h"

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++) {
		p[i] = (uint8_t)(v >> (8 * i));
	}
}

static uint64_t get(const uint8_t *p, unsigned bytes)
{
	uint64_t v = 0;
	for (unsigned i = bytes; i-- > 0;) {
		v = v << 8 | p[i];
	}
	return v;
}

static bool is_range(const struct hx_memory_range *r, uint64_t base, uint64_t bytes,
		     enum hx_memory_type type)
{
	return r->base.v == base && r->bytes == bytes && r->type == type && r->node == 0;
}

HX_TEST(e820_types)
{
	static const enum hx_memory_type expected[] = {
		[0] = HX_MEMORY_RESERVED, [1] = HX_MEMORY_RAM,      [2] = HX_MEMORY_RESERVED,
		[3] = HX_MEMORY_ACPI,     [4] = HX_MEMORY_FIRMWARE, [5] = HX_MEMORY_BAD,
		[6] = HX_MEMORY_RESERVED, [7] = HX_MEMORY_DEVICE,   [8] = HX_MEMORY_RESERVED,
	};
	for (uint32_t i = 0; i < HX_ARRAY_LENGTH(expected); i++) {
		HX_CHECK_EQUAL(hx_e820_type(i), expected[i]);
	}
	HX_CHECK_EQUAL(hx_e820_type(UINT32_MAX), HX_MEMORY_RESERVED);
	HX_CHECK_EQUAL(hx_e820_type(UINT32_C(0x80000001)), HX_MEMORY_RESERVED);
}

/* ---- PVH ---- */

enum { RANGES_MAX = 64 };

static struct memory memory;
static struct hx_memory_range ranges[RANGES_MAX];
static unsigned range_count;

static bool read_pvh(struct hx_pvh *p, uint64_t start_info)
{
	range_count = 0;
	if (!hx_pvh_open(p, memory_access(&memory), hx_pa(start_info))) {
		return false;
	}
	uint32_t i = 0;
	while (range_count < RANGES_MAX && hx_pvh_memory_next(p, &i, &ranges[range_count])) {
		range_count++;
	}
	if (p->info.command_line) {
		HX_CHECK(strlen(p->info.command_line) < HX_COMMAND_LINE_MAX);
	}
	return true;
}

HX_TEST(pvh_of_a_q35_with_8_gib)
{
	struct hx_pvh p;
	memory_load(&memory, "q35-8g.pvh");
	HX_REQUIRE(read_pvh(&p, memory.pieces[0].base));
	HX_CHECK_EQUAL(range_count, 10);
	HX_CHECK(is_range(&ranges[0], 0, 0x9fc00, HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[1], 0x9fc00, 0x400, HX_MEMORY_RESERVED));
	HX_CHECK(is_range(&ranges[3], 0x100000, 0x7fee0000, HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[8], HX_GIB(4), HX_GIB(6), HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[9], UINT64_C(0xfd00000000), HX_GIB(12), HX_MEMORY_RESERVED));
	HX_CHECK(p.info.command_line && strcmp(p.info.command_line, "hx.physical=buddy") == 0);
	HX_CHECK_EQUAL(p.info.initrd.v, 2147311616);
	HX_CHECK_EQUAL(p.info.initrd_bytes, 5000);
	HX_CHECK_EQUAL(p.info.rsdp.v, 0xf59c0);
	memory_free(&memory);
}

HX_TEST(pvh_of_a_microvm)
{
	struct hx_pvh p;
	memory_load(&memory, "microvm.pvh");
	HX_REQUIRE(read_pvh(&p, memory.pieces[0].base));
	HX_CHECK_EQUAL(range_count, 6);
	HX_CHECK(is_range(&ranges[2], 0xd0000, 0x20000, HX_MEMORY_FIRMWARE));
	HX_CHECK(is_range(&ranges[5], 0, 0, HX_MEMORY_RESERVED)); /* as it came: empty */
	HX_CHECK(p.info.command_line && strcmp(p.info.command_line, "x") == 0);
	HX_CHECK_EQUAL(p.info.initrd_bytes, 0);
	memory_free(&memory);
}

/* Start info at 0x1000, map at 0x2000, module list at 0x3000, command line at 0x4000. */
static void build_pvh(uint32_t version, const char *line, size_t line_bytes)
{
	uint8_t *info = memory_add(&memory, 0x1000, NULL, version == 0 ? 40 : 56);
	put(info, 0x336ec578, 4);
	put(info + 4, version, 4);
	put(info + 12, 2, 4);
	put(info + 16, 0x3000, 8);
	put(info + 24, 0x4000, 8);
	put(info + 32, 0x5000, 8);
	if (version > 0) {
		put(info + 40, 0x2000, 8);
		put(info + 48, 3, 4);
	}
	uint8_t *map = memory_add(&memory, 0x2000, NULL, 3 * 24);
	for (unsigned i = 0; i < 3; i++) {
		put(map + 24 * i, HX_GIB(i), 8);
		put(map + 24 * i + 8, HX_MIB(i), 8);
		put(map + 24 * i + 16, i + 1, 4);
	}
	uint8_t *modules = memory_add(&memory, 0x3000, NULL, 2 * 32);
	put(modules, 0x700000, 8);
	put(modules + 8, 0x1234, 8);
	put(modules + 32, 0x800000, 8);
	put(modules + 40, 0x99, 8);
	memory_add(&memory, 0x4000, line, (uint32_t)line_bytes);
}

HX_TEST(pvh_versions)
{
	static const uint32_t versions[] = {0, 1, 2, UINT32_MAX};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(versions); i++) {
		struct hx_pvh p;
		build_pvh(versions[i], "abc", 4);
		HX_REQUIRE(read_pvh(&p, 0x1000));
		HX_CHECK_EQUAL(range_count, versions[i] == 0 ? 0 : 3);
		HX_CHECK_EQUAL(p.info.initrd.v, 0x700000);
		HX_CHECK_EQUAL(p.info.initrd_bytes, 0x1234);
		HX_CHECK(p.info.command_line && strcmp(p.info.command_line, "abc") == 0);
		HX_CHECK_EQUAL(p.info.rsdp.v, 0x5000);
		memory_free(&memory);
	}
}

HX_TEST(pvh_without_its_parts)
{
	struct hx_pvh p;
	build_pvh(1, "abc", 3); /* the memory behind it cannot be read */
	HX_REQUIRE(read_pvh(&p, 0x1000));
	HX_CHECK(p.info.command_line == NULL);
	uint8_t *info = memory.pieces[0].data;
	put(info + 24, UINT64_MAX, 8); /* the next address is 0 */
	HX_CHECK(read_pvh(&p, 0x1000) && p.info.command_line == NULL);
	put(info + 24, 0, 8);
	HX_CHECK(read_pvh(&p, 0x1000) && p.info.command_line == NULL);
	put(info + 16, 0x6000, 8); /* nothing there */
	HX_CHECK(read_pvh(&p, 0x1000) && p.info.initrd_bytes == 0 && p.info.initrd.v == 0);
	put(info + 16, 0, 8);
	HX_CHECK(read_pvh(&p, 0x1000) && p.info.initrd_bytes == 0);
	put(info + 12, 0, 4); /* no modules */
	put(info + 16, 0x3000, 8);
	HX_CHECK(read_pvh(&p, 0x1000) && p.info.initrd_bytes == 0);
	put(info + 48, 0, 4); /* no entries */
	HX_CHECK(read_pvh(&p, 0x1000) && range_count == 0);
	put(info + 48, 4, 4); /* one more than can be read */
	HX_CHECK(!read_pvh(&p, 0x1000));
	put(info + 48, UINT32_MAX, 4);
	HX_CHECK(!read_pvh(&p, 0x1000));
	put(info + 40, UINT64_MAX - 8, 8);
	HX_CHECK(!read_pvh(&p, 0x1000));
	put(info + 48, 3, 4);
	put(info + 40, 0, 8);
	HX_CHECK(!read_pvh(&p, 0x1000));
	put(info + 40, 0x2000, 8);
	HX_CHECK(read_pvh(&p, 0x1000) && range_count == 3);
	put(info, 0x336ec579, 4); /* magic */
	HX_CHECK(!read_pvh(&p, 0x1000));
	HX_CHECK(!read_pvh(&p, 0));
	HX_CHECK(!read_pvh(&p, 0x1001));
	HX_CHECK(!read_pvh(&p, UINT64_MAX - 3));
	memory_free(&memory);
}

HX_TEST(pvh_command_lines_have_a_bound)
{
	static char line[HX_COMMAND_LINE_MAX + 2];
	for (int more = -1; more <= 1; more++) {
		struct hx_pvh p;
		size_t length = (size_t)(HX_COMMAND_LINE_MAX - 1 + more);
		memset(line, 'x', sizeof line);
		line[length] = '\0';
		build_pvh(1, line, length + 1);
		HX_REQUIRE(read_pvh(&p, 0x1000));
		HX_CHECK_EQUAL(p.info.command_line != NULL, more <= 0);
		if (p.info.command_line) {
			HX_CHECK_EQUAL(strlen(p.info.command_line), length);
		}
		memory_free(&memory);
	}
}

HX_TEST(pvh_memory_that_cannot_be_read)
{
	/* Each request in turn is refused: no crash, and a map is whole or refused. */
	for (unsigned n = 1; n < 20; n++) {
		struct hx_pvh p;
		build_pvh(1, "abc", 4);
		memory.fail_at = n;
		if (hx_pvh_open(&p, memory_access(&memory), hx_pa(0x1000))) {
			uint32_t i = 0;
			unsigned got = 0;
			while (hx_pvh_memory_next(&p, &i, &ranges[0])) {
				got++;
			}
			HX_CHECK(got == 3 || memory.fail_at == 0);
		}
		memory.fail_at = 0;
		memory_free(&memory);
	}
}

HX_TEST(pvh_damaged)
{
	static const char *const files[] = {"q35-8g.pvh", "microvm.pvh"};
	struct hx_random r = {8};
	for (unsigned f = 0; f < HX_ARRAY_LENGTH(files); f++) {
		memory_load(&memory, files[f]);
		uint64_t at = memory.pieces[0].base;
		struct hx_pvh p;
		for (unsigned i = 0; i < memory.count; i++) {
			struct piece *piece = &memory.pieces[i];
			uint32_t bytes = piece->bytes;
			for (uint32_t k = 0; k < bytes; k++) {
				uint8_t was = piece->data[k];
				piece->data[k] ^= 0xff;
				read_pvh(&p, at);
				piece->data[k] = was ^ (uint8_t)(1u << (k & 7));
				read_pvh(&p, at);
				piece->data[k] = was;
				memory_release(&memory);
			}
			for (piece->bytes = 0; piece->bytes < bytes; piece->bytes++) {
				bool whole = read_pvh(&p, at);
				/* Start info and map must be all there. */
				HX_CHECK(i > 1 || !whole);
				memory_release(&memory);
			}
		}
		for (unsigned i = 0; i < 2000; i++) {
			uint8_t info[56];
			memcpy(info, memory.pieces[0].data, 56);
			put(memory.pieces[0].data + 4 * hx_random_below(&r, 14),
			    hx_random(&r) >> hx_random_below(&r, 64), 4);
			read_pvh(&p, at);
			memcpy(memory.pieces[0].data, info, 56);
			memory_release(&memory);
		}
		HX_CHECK(read_pvh(&p, at));
		memory_free(&memory);
	}
}

/* ---- Multiboot2 ---- */

static bool read_multiboot2(struct hx_multiboot2 *m, const uint8_t *blob, size_t bytes)
{
	range_count = 0;
	if (!hx_multiboot2_open(m, blob, bytes)) {
		return false;
	}
	HX_CHECK(m->total_bytes <= bytes);
	uint32_t i = 0;
	while (range_count < RANGES_MAX && hx_multiboot2_memory_next(m, &i, &ranges[range_count])) {
		range_count++;
	}
	const char *line = m->info.command_line;
	if (line) {
		HX_CHECK((const uint8_t *)line + strlen(line) < blob + m->total_bytes);
	}
	HX_CHECK(m->info.rsdp_inline == 0 || m->info.rsdp_inline + 20 <= m->total_bytes);
	return true;
}

HX_TEST(multiboot2_of_grub)
{
	struct hx_multiboot2 m;
	memory_load(&memory, "grub-bios.mb2");
	const struct piece *p = &memory.pieces[0];
	HX_REQUIRE(read_multiboot2(&m, p->data, p->bytes));
	HX_CHECK(m.info.command_line && strcmp(m.info.command_line, "hx.heap=simple quiet") == 0);
	HX_CHECK_EQUAL(m.info.initrd.v, 0x101000);
	HX_CHECK_EQUAL(m.info.initrd_bytes, 5000);
	HX_CHECK(m.info.rsdp_inline > 0 &&
		 memcmp(p->data + m.info.rsdp_inline, "RSD PTR ", 8) == 0);
	HX_CHECK_EQUAL(range_count, 10);
	HX_CHECK(is_range(&ranges[0], 0, 0x9fc00, HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[3], 0x100000, 0xfedf000, HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[9], 0xfd000000, 2560 * 480, HX_MEMORY_FRAMEBUFFER));
	memory_free(&memory);
}

struct mb2 {
	uint8_t blob[1024];
	size_t bytes;
};

static struct mb2 mb2;

static uint8_t *tag(uint32_t type, uint32_t bytes)
{
	uint8_t *at = mb2.blob + mb2.bytes;
	memset(at, 0, (bytes + 7u) & ~7u);
	put(at, type, 4);
	put(at + 4, bytes, 4);
	mb2.bytes = (mb2.bytes + bytes + 7) & ~(size_t)7;
	return at + 8;
}

static void start_mb2(void)
{
	memset(&mb2, 0, sizeof mb2);
	mb2.bytes = 8;
}

static void text_tag(uint32_t type, const char *text, size_t n)
{
	memcpy(tag(type, (uint32_t)(8 + n)), text, n);
}

static void map_tag(uint32_t entry_bytes, uint32_t entries, uint32_t more)
{
	uint8_t *at = tag(6, 16 + entry_bytes * entries + more);
	put(at, entry_bytes, 4);
	for (uint32_t i = 0; i < entries && entry_bytes >= 24; i++) {
		put(at + 8 + i * entry_bytes, HX_GIB(i + 1), 8);
		put(at + 8 + i * entry_bytes + 8, 0x5000, 8);
		put(at + 8 + i * entry_bytes + 16, i + 1, 4);
	}
}

/* With its end tag, at an unreadable page. */
static bool finish_mb2(struct hx_multiboot2 *m)
{
	static struct fence fence;
	if (!fence.end) {
		fence = fence_make(sizeof mb2.blob);
	}
	tag(0, 8);
	put(mb2.blob, mb2.bytes, 4);
	return read_multiboot2(m, fence_put(&fence, mb2.blob, mb2.bytes), mb2.bytes);
}

HX_TEST(multiboot2_tags)
{
	struct hx_multiboot2 m;
	start_mb2();
	HX_REQUIRE(finish_mb2(&m)); /* nothing but an end */
	HX_CHECK(range_count == 0 && m.info.command_line == NULL && m.info.initrd_bytes == 0);
	HX_CHECK_EQUAL(m.info.rsdp_inline, 0);

	start_mb2();
	text_tag(1, "first", 6);
	text_tag(1, "second", 7);
	put(tag(3, 17), UINT64_C(0x0000300000002000), 8); /* 0x2000..0x3000 */
	put(tag(3, 17), UINT64_C(0x0000600000005000), 8);
	tag(15, 8 + 36);
	tag(14, 8 + 20);
	tag(4711, 9);
	map_tag(24, 2, 0);
	map_tag(40, 2, 8); /* larger entries, and a rest that is none */
	uint8_t *frame = tag(8, 31);
	put(frame, 0xe0000000, 8);
	put(frame + 8, UINT32_MAX, 4);
	put(frame + 16, UINT32_MAX, 4);
	HX_REQUIRE(finish_mb2(&m));
	HX_CHECK(m.info.command_line && strcmp(m.info.command_line, "first") == 0);
	HX_CHECK_EQUAL(m.info.initrd.v, 0x2000);
	HX_CHECK_EQUAL(m.info.initrd_bytes, 0x1000);
	HX_CHECK_EQUAL(get(m.blob + m.info.rsdp_inline - 8, 4), 15); /* the newer one */
	HX_CHECK_EQUAL(range_count, 5);
	HX_CHECK(is_range(&ranges[0], HX_GIB(1), 0x5000, HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[1], HX_GIB(2), 0x5000, HX_MEMORY_RESERVED));
	HX_CHECK(is_range(&ranges[2], HX_GIB(1), 0x5000, HX_MEMORY_RAM));
	HX_CHECK(is_range(&ranges[3], HX_GIB(2), 0x5000, HX_MEMORY_RESERVED));
	HX_CHECK(is_range(&ranges[4], 0xe0000000, (uint64_t)UINT32_MAX * UINT32_MAX,
			  HX_MEMORY_FRAMEBUFFER));
}

HX_TEST(multiboot2_damaged_parts_are_absent)
{
	struct hx_multiboot2 m;
	start_mb2();
	text_tag(1, "no end", 6);
	put(tag(3, 17), UINT64_C(0x0000200000002000), 8); /* empty */
	tag(3, 15);                                       /* too short */
	tag(14, 8 + 19);
	tag(15, 8 + 35);
	tag(8, 29);
	HX_REQUIRE(finish_mb2(&m));
	HX_CHECK(range_count == 0 && m.info.command_line == NULL && m.info.initrd_bytes == 0);
	HX_CHECK_EQUAL(m.info.rsdp_inline, 0);
	/* A later whole one counts. */
	start_mb2();
	text_tag(1, "no end", 6);
	text_tag(1, "", 1);
	tag(15, 8 + 35);
	tag(14, 8 + 20);
	tag(8, 29);
	tag(8, 30);
	HX_REQUIRE(finish_mb2(&m));
	HX_CHECK(m.info.command_line && m.info.command_line[0] == '\0');
	HX_CHECK_EQUAL(get(m.blob + m.info.rsdp_inline - 8, 4), 14);
	HX_CHECK_EQUAL(range_count, 1);
	/* But a map must be readable. */
	for (uint32_t entry = 0; entry < 26; entry++) {
		start_mb2();
		map_tag(entry, 1, 0);
		HX_CHECK_EQUAL(finish_mb2(&m), entry >= 24);
	}
	start_mb2();
	tag(6, 15);
	HX_CHECK(!finish_mb2(&m));
}

HX_TEST(multiboot2_tags_must_stay_inside)
{
	struct hx_multiboot2 m;
	static const uint32_t lengths[] = {0, 1, 7, 41, 1000, UINT32_MAX, UINT32_MAX - 7};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(lengths); i++) {
		start_mb2();
		put(tag(2, 24) - 4, lengths[i], 4);
		HX_CHECK(!finish_mb2(&m));
	}
	/* The end is missing. */
	start_mb2();
	tag(2, 24);
	put(mb2.blob, mb2.bytes, 4);
	HX_CHECK(!read_multiboot2(&m, mb2.blob, mb2.bytes));
	for (uint32_t total = 0; total < 16; total++) {
		start_mb2();
		tag(0, 8);
		put(mb2.blob, total, 4);
		HX_CHECK(!read_multiboot2(&m, mb2.blob, 16));
	}
}

HX_TEST(multiboot2_damaged)
{
	struct hx_multiboot2 m;
	struct fence fence = fence_make(4096);
	memory_load(&memory, "grub-bios.mb2");
	uint8_t *data = memory.pieces[0].data;
	uint32_t n = memory.pieces[0].bytes;
	for (uint32_t k = 0; k < n; k++) {
		HX_CHECK(!read_multiboot2(&m, fence_put(&fence, data, k), k));
		uint8_t *cut = fence_put(&fence, data, k);
		if (k >= 4) {
			put(cut, k, 4); /* and says so */
			HX_CHECK(!read_multiboot2(&m, cut, k));
		}
		for (unsigned bit = 0; bit <= 8; bit++) {
			uint8_t *at = fence_put(&fence, data, n);
			at[k] ^= (uint8_t)(bit < 8 ? 1u << bit : 0xff);
			read_multiboot2(&m, at, n);
		}
		HX_BAIL();
	}
	struct hx_random r = {9};
	for (unsigned i = 0; i < 5000; i++) {
		uint8_t *at = fence_put(&fence, data, n);
		for (unsigned k = 0; k < 3; k++) {
			put(at + 4 * hx_random_below(&r, n / 4),
			    hx_random(&r) >> (32 + hx_random_below(&r, 32)), 4);
		}
		read_multiboot2(&m, at, n);
	}
	memory_free(&memory);
}

/* ---- ACPI ---- */

enum { CPUS_MAX = 64 };

static struct hx_cpu_info cpus[CPUS_MAX];
static unsigned cpu_count;

static bool read_acpi(struct hx_acpi *a, uint64_t rsdp)
{
	cpu_count = 0;
	if (!hx_acpi_open(a, memory_access(&memory), hx_pa(rsdp))) {
		return false;
	}
	uint32_t i = 0;
	while (cpu_count < CPUS_MAX && hx_acpi_cpu_next(a, &i, &cpus[cpu_count])) {
		HX_CHECK(!cpus[cpu_count].boot);
		cpu_count++;
	}
	(void)hx_acpi_node_of(a, hx_pa(0));
	(void)hx_acpi_node_of(a, hx_pa(UINT64_MAX));
	return true;
}

HX_TEST(acpi_of_a_q35_with_two_nodes)
{
	struct hx_acpi a;
	memory_load(&memory, "q35-numa.acpi");
	HX_REQUIRE(read_acpi(&a, memory.pieces[0].base));
	HX_CHECK_EQUAL(a.local_apic, 0xfee00000);
	HX_CHECK_EQUAL(cpu_count, 4);
	for (unsigned i = 0; i < cpu_count; i++) {
		HX_CHECK_EQUAL(cpus[i].hardware_id, i);
		HX_CHECK_EQUAL(cpus[i].node, i / 2);
	}
	HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(0)), 0);
	HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(HX_MIB(128) - 1)), 0);
	HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(HX_MIB(128))), 1);
	HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(HX_MIB(512) - 1)), 1);
	HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(HX_MIB(512))), 0);
	HX_CHECK_EQUAL(hx_acpi_node_end(&a, hx_pa(HX_MIB(1))), HX_MIB(128));
	HX_CHECK_EQUAL(hx_acpi_node_end(&a, hx_pa(HX_MIB(128))), HX_MIB(512));
	HX_CHECK_EQUAL(hx_acpi_node_end(&a, hx_pa(HX_MIB(512))), UINT64_MAX);
	/* The same RSDP is found where BIOSes put it. */
	struct hx_pa found;
	HX_CHECK(hx_acpi_find_rsdp(memory_access(&memory), &found));
	HX_CHECK_EQUAL(found.v, memory.pieces[0].base);
	memory_free(&memory);
}

HX_TEST(acpi_of_a_microvm)
{
	struct hx_acpi a;
	memory_load(&memory, "microvm.acpi"); /* revision 2, XSDT */
	HX_REQUIRE(read_acpi(&a, memory.pieces[0].base));
	HX_CHECK_EQUAL(memory.pieces[0].data[15], 2);
	HX_CHECK_EQUAL(cpu_count, 2);
	HX_CHECK_EQUAL(a.srat.v, 0);
	HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(0)), 0);
	memory_free(&memory);
}

static void fix(uint8_t *table, uint32_t bytes, uint32_t checksum)
{
	uint8_t sum = 0;
	table[checksum] = 0;
	for (uint32_t i = 0; i < bytes; i++) {
		sum = (uint8_t)(sum + table[i]);
	}
	table[checksum] = (uint8_t)-sum;
}

static uint8_t *table(uint64_t at, const char *signature, uint32_t bytes)
{
	uint8_t *t = memory_add(&memory, at, NULL, bytes);
	memcpy(t, signature, 4);
	put(t + 4, bytes, 4);
	t[8] = 3; /* revision */
	return t;
}

/* Fix the checksum of every table, and of the RSDP (the first piece). */
static void fix_all(void)
{
	for (unsigned i = 0; i < memory.count; i++) {
		struct piece *p = &memory.pieces[i];
		if (i == 0) {
			fix(p->data, 20, 8);
			if (p->bytes >= 36) {
				fix(p->data, 36, 32);
			}
		} else if (p->bytes >= 36) {
			fix(p->data, p->bytes, 9);
		}
	}
}

static uint8_t *madt, *srat, *root, *rsdp;

/* RSDP at 0xe1230, RSDT and XSDT at 0x10001 and 0x20003, MADT 0x30000, SRAT 0x40001. */
static void build_acpi(unsigned revision, bool with_xsdt, uint32_t madt_records,
		       uint32_t srat_records)
{
	rsdp = memory_add(&memory, 0xe1230, NULL, revision >= 2 ? 36 : 20);
	memcpy(rsdp, "RSD PTR ", 8);
	rsdp[15] = (uint8_t)revision;
	put(rsdp + 16, 0x10001, 4);
	if (revision >= 2) {
		put(rsdp + 20, 36, 4);
		put(rsdp + 24, with_xsdt ? 0x20003 : 0, 8);
	}
	uint32_t width = with_xsdt ? 8 : 4;
	root = with_xsdt ? table(0x20003, "XSDT", 36 + 3 * 8) : table(0x10001, "RSDT", 36 + 3 * 4);
	put(root + 36, 0x50000, width);
	put(root + 36 + width, 0x30000, width);
	put(root + 36 + 2 * width, 0x40001, width);
	table(0x50000, "FACP", 36);
	madt = table(0x30000, "APIC", 44 + madt_records);
	put(madt + 36, 0xfee00000, 4);
	srat = table(0x40001, "SRAT", 48 + srat_records);
	madt += 44;
	srat += 48;
}

static uint8_t *record(uint8_t **at, uint8_t type, uint8_t bytes)
{
	uint8_t *r = *at;
	r[0] = type;
	r[1] = bytes;
	*at += bytes;
	return r;
}

static void add_apic(uint8_t id, uint32_t flags)
{
	uint8_t *r = record(&madt, 0, 8);
	r[3] = id;
	put(r + 4, flags, 4);
}

static void add_x2apic(uint32_t id, uint32_t flags)
{
	uint8_t *r = record(&madt, 9, 16);
	put(r + 4, id, 4);
	put(r + 8, flags, 4);
}

HX_TEST(acpi_roots)
{
	for (unsigned form = 0; form < 3; form++) {
		struct hx_acpi a;
		build_acpi(form > 0 ? 2 : 0, form == 2, 8, 0);
		add_apic(5, 1);
		fix_all();
		HX_REQUIRE(read_acpi(&a, 0xe1230));
		HX_CHECK_EQUAL(cpu_count, 1);
		HX_CHECK_EQUAL(cpus[0].hardware_id, 5);
		struct hx_pa found = hx_pa(0);
		HX_CHECK(hx_acpi_find_rsdp(memory_access(&memory), &found));
		HX_CHECK_EQUAL(found.v, 0xe1230);
		rsdp[8]++; /* checksum */
		HX_CHECK(!read_acpi(&a, 0xe1230));
		HX_CHECK(!hx_acpi_find_rsdp(memory_access(&memory), &found));
		rsdp[8]--;
		memcpy(root, "SSDT", 4); /* not the root that was promised */
		fix_all();
		HX_CHECK(!read_acpi(&a, 0xe1230));
		memory_free(&memory);
	}
	struct hx_acpi a;
	HX_CHECK(!read_acpi(&a, 0));
	HX_CHECK(!read_acpi(&a, UINT64_MAX - 10));
	struct hx_pa found;
	HX_CHECK(!hx_acpi_find_rsdp(memory_access(&memory), &found));
	/* At both ends of the BIOS area; not between its 16-byte marks, not behind it. */
	static const struct {
		uint64_t at;
		bool there;
	} places[] = {{0xe0000, true},
		      {0xfffe0, true},
		      {0xe0008, false},
		      {0x100000, false},
		      {0xdfff0, false}};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(places); i++) {
		static const uint8_t blank[20] = "RSD PTR ";
		memory_add(&memory, places[i].at, blank, sizeof blank);
		fix(memory.pieces[0].data, 20, 8);
		HX_CHECK_EQUAL(hx_acpi_find_rsdp(memory_access(&memory), &found), places[i].there);
		memory_free(&memory);
	}
}

HX_TEST(acpi_cpus)
{
	struct hx_acpi a;
	build_acpi(2, true, 8 * 5 + 16 * 5 + 12 + 8, 0);
	add_apic(0, 1);
	add_apic(1, 0);    /* off */
	add_apic(2, 2);    /* could be switched on, is not */
	add_apic(0xff, 1); /* that is everyone */
	record(&madt, 1, 12);
	add_x2apic(300, 1);
	add_x2apic(301, 0);
	add_x2apic(0, 1);          /* named above */
	add_x2apic(UINT32_MAX, 1); /* everyone again */
	add_x2apic(70000, 3);
	add_apic(7, 3);
	record(&madt, 0, 4); /* a record that is too short for what it says it is */
	fix_all();
	HX_REQUIRE(read_acpi(&a, 0xe1230));
	HX_CHECK_EQUAL(cpu_count, 4);
	static const uint64_t expected[] = {0, 300, 70000, 7};
	for (unsigned i = 0; i < 4; i++) {
		HX_CHECK_EQUAL(cpus[i].hardware_id, expected[i]);
	}
	memory_free(&memory);
}

HX_TEST(acpi_records_end_at_the_first_broken_one)
{
	static const uint8_t lengths[] = {0, 1, 17, 255};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(lengths); i++) {
		struct hx_acpi a;
		build_acpi(0, false, 8 + 8 + 8, 0);
		add_apic(1, 1);
		uint8_t *broken = madt;
		add_apic(2, 1);
		add_apic(3, 1);
		broken[1] = lengths[i];
		fix_all();
		HX_REQUIRE(read_acpi(&a, 0xe1230));
		HX_CHECK_EQUAL(cpu_count, 1);
		memory_free(&memory);
	}
}

HX_TEST(acpi_nodes)
{
	for (unsigned revision = 1; revision <= 3; revision++) {
		struct hx_acpi a;
		build_acpi(2, true, 8 + 16 + 8, 16 + 24 + 3 * 40 + 16);
		uint8_t *s = srat - 48;
		s[8] = (uint8_t)revision;
		add_apic(4, 1);
		add_x2apic(500, 1);
		add_apic(9, 1);
		uint8_t *r = record(&srat, 0, 16);
		r[2] = 0x11;
		r[3] = 4;
		put(r + 4, 1, 4);
		put(r + 9, 0x443322, 3);
		r = record(&srat, 2, 24);
		put(r + 4, 0x102, 4);
		put(r + 8, 500, 4);
		put(r + 12, 1, 4);
		for (unsigned i = 0; i < 3; i++) {
			r = record(&srat, 1, 40);
			put(r + 2, i == 2 ? 0x10000007 : i + 5, 4);
			put(r + 8, i == 2 ? UINT64_MAX - 0xfff : HX_GIB(i), 8);
			put(r + 16, i == 2 ? UINT64_MAX : HX_GIB(1), 8); /* the last would wrap */
			put(r + 28, i != 1, 4);                          /* the second is off */
		}
		r = record(&srat, 0, 16); /* off */
		r[2] = 3;
		r[3] = 9;
		fix_all();
		HX_REQUIRE(read_acpi(&a, 0xe1230));
		HX_CHECK_EQUAL(cpu_count, 3);
		HX_CHECK_EQUAL(cpus[0].node, revision == 1 ? 0x11 : 0x44332211);
		HX_CHECK_EQUAL(cpus[1].node, revision == 1 ? 2 : 0x102);
		HX_CHECK_EQUAL(cpus[2].node, 0);
		HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(0)), 5);
		HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(HX_GIB(1) - 1)), 5);
		HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(HX_GIB(1))), 0);
		HX_CHECK_EQUAL(hx_acpi_node_of(&a, hx_pa(UINT64_MAX)),
			       revision == 1 ? 7 : 0x10000007);
		HX_CHECK_EQUAL(hx_acpi_node_end(&a, hx_pa(0)), HX_GIB(1));
		HX_CHECK_EQUAL(hx_acpi_node_end(&a, hx_pa(HX_GIB(1))), UINT64_MAX - 0xfff);
		HX_CHECK_EQUAL(hx_acpi_node_end(&a, hx_pa(UINT64_MAX)), UINT64_MAX);
		/* A broken SRAT is no SRAT. */
		s[9]++;
		HX_REQUIRE(read_acpi(&a, 0xe1230));
		HX_CHECK_EQUAL(a.srat.v, 0);
		HX_CHECK_EQUAL(cpus[0].node, 0);
		memory_free(&memory);
	}
}

HX_TEST(acpi_lengths)
{
	static const uint32_t lengths[] = {0, 1, 35, 43, 53, 1000, 1u << 24, UINT32_MAX};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(lengths); i++) {
		for (unsigned which = 0; which < 3; which++) {
			struct hx_acpi a;
			build_acpi(2, true, 8, 0);
			add_apic(1, 1);
			uint8_t *victim = which == 0   ? rsdp + 20
					  : which == 1 ? root + 4
						       : madt - 48;
			put(victim, lengths[i], 4);
			/* A checksum over the length that it claims, where that is there. */
			fix_all();
			if (which == 0) {
				fix(rsdp, 20, 8);
			}
			HX_CHECK(!read_acpi(&a, 0xe1230));
			memory_free(&memory);
		}
	}
	/* No MADT among the tables. */
	struct hx_acpi a;
	build_acpi(2, true, 8, 0);
	memcpy(madt - 44, "CIPA", 4);
	fix_all();
	HX_CHECK(!read_acpi(&a, 0xe1230));
	memory_free(&memory);
}

HX_TEST(acpi_damaged)
{
	static const char *const files[] = {"q35-numa.acpi", "microvm.acpi"};
	for (unsigned f = 0; f < HX_ARRAY_LENGTH(files); f++) {
		struct hx_acpi a;
		memory_load(&memory, files[f]);
		uint64_t at = memory.pieces[0].base;
		for (unsigned i = 0; i < memory.count; i++) {
			struct piece *p = &memory.pieces[i];
			bool needed = i < 2 || memcmp(p->data, "APIC", 4) == 0;
			for (uint32_t k = 0; k < p->bytes; k++) {
				uint8_t was = p->data[k];
				p->data[k] ^= (uint8_t)(1u << (k & 7));
				/* Any change to what is needed breaks a checksum. */
				HX_CHECK_EQUAL(read_acpi(&a, at) && needed, false);
				if (i > 0 && p->bytes > 36 && k != 9) { /* damage that sums up */
					uint8_t sum = p->data[9];
					fix(p->data, p->bytes, 9);
					read_acpi(&a, at);
					p->data[9] = sum;
				}
				p->data[k] = was;
				memory_release(&memory);
			}
			uint32_t bytes = p->bytes;
			for (p->bytes = 0; p->bytes < bytes; p->bytes++) {
				HX_CHECK_EQUAL(read_acpi(&a, at) && needed, false);
				memory_release(&memory);
			}
		}
		HX_CHECK(read_acpi(&a, at));
		for (unsigned n = 1; n < 60; n++) { /* each request in turn refused */
			memory.fail_at = n;
			read_acpi(&a, at);
			memory.fail_at = 0;
			memory_release(&memory);
		}
		memory_free(&memory);
	}
}

HX_TEST(acpi_random_records)
{
	struct hx_random r = {10};
	memory_load(&memory, "q35-numa.acpi");
	uint64_t at = memory.pieces[0].base;
	for (unsigned i = 0; i < 3000; i++) {
		struct piece *p = &memory.pieces[1 + hx_random_below(&r, memory.count - 1)];
		if (p->bytes <= 44) {
			continue;
		}
		struct hx_acpi a;
		uint32_t k = 36 + (uint32_t)hx_random_below(&r, p->bytes - 36);
		uint8_t was = p->data[k], sum = p->data[9];
		p->data[k] = (uint8_t)hx_random(&r);
		fix(p->data, p->bytes, 9);
		read_acpi(&a, at);
		if (hx_random_below(&r, 4)) { /* else the damage adds up */
			p->data[k] = was;
			p->data[9] = sum;
		}
		memory_release(&memory);
	}
	memory_free(&memory);
}

HX_SUITE(discovery, HX_CASE(e820_types), HX_CASE(pvh_of_a_q35_with_8_gib),
	 HX_CASE(pvh_of_a_microvm), HX_CASE(pvh_versions), HX_CASE(pvh_without_its_parts),
	 HX_CASE(pvh_command_lines_have_a_bound), HX_CASE(pvh_memory_that_cannot_be_read),
	 HX_CASE(pvh_damaged), HX_CASE(multiboot2_of_grub), HX_CASE(multiboot2_tags),
	 HX_CASE(multiboot2_damaged_parts_are_absent), HX_CASE(multiboot2_tags_must_stay_inside),
	 HX_CASE(multiboot2_damaged), HX_CASE(acpi_of_a_q35_with_two_nodes),
	 HX_CASE(acpi_of_a_microvm), HX_CASE(acpi_roots), HX_CASE(acpi_cpus),
	 HX_CASE(acpi_records_end_at_the_first_broken_one), HX_CASE(acpi_nodes),
	 HX_CASE(acpi_lengths), HX_CASE(acpi_damaged), HX_CASE(acpi_random_records));
