/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * ACPI: from the RSDP to the MADT's CPUs and the SRAT's nodes (ACPI 6.5, 5.2).
 * All numbers are little-endian; no table is aligned.
 *
 *   RSDP  0 "RSD PTR "  8 checksum of 20 bytes  15 revision  16 RSDT (32 bits)
 *         and from revision 2 on  20 bytes  24 XSDT (64 bits)  32 checksum of all
 *   table 0 signature  4 bytes  8 revision  9 checksum  ...  36 content
 *   RSDT  36 addresses of tables, 32 bits each;   XSDT  64 bits each
 *   MADT  36 local APIC address  40 flags  44 records:  0 type  1 bytes
 *          type 0 local APIC    3 id (8 bits)   4 flags
 *          type 9 local x2APIC  4 id (32 bits)  8 flags
 *   SRAT  48 records:  0 type  1 bytes
 *          type 0 local APIC    2 node 7..0  3 id  4 flags  9 node 31..8
 *          type 1 memory        2 node  8 base  16 bytes  28 flags
 *          type 2 local x2APIC  4 node  8 id  12 flags
 *
 * Bit 0 of every flags word: enabled. Before revision 2 of the SRAT only the low
 * 8 bits of a node count.
 */
#include "bytes.h"

enum {
	RSDP_BYTES_V1 = 20,
	RSDP_BYTES_V2 = 36,
	RSDP_BYTES_MAX = 4096,
	HEADER_BYTES = 36,
	TABLE_BYTES_MAX = 1 << 24, /* no table comes near; bounds the checksum's loop */
	MADT_RECORDS = 44,
	SRAT_RECORDS = 48,
	RECORD_BYTES = 2,
};

/* ---- Tables ---- */

/* The table at @a when it has @signature; its length, not yet its checksum. */
static bool has_signature(const struct hx_physical *p, struct hx_pa a, const char *signature,
			  uint32_t *bytes)
{
	const uint8_t *header = physical_bytes(p, a, HEADER_BYTES);
	if (!header || !same_bytes(header, signature, 4)) {
		return false;
	}
	*bytes = le32(header + 4);
	return true;
}

/* All of the table, when its length and its checksum are right. */
static const uint8_t *whole_table(const struct hx_physical *p, struct hx_pa a, uint32_t bytes,
				  uint32_t least)
{
	if (bytes < least || bytes > TABLE_BYTES_MAX) {
		return NULL;
	}
	const uint8_t *table = physical_bytes(p, a, bytes);
	return table && sums_to_zero(table, bytes) ? table : NULL;
}

/* Root table: which one, and how wide its addresses are. */
struct root {
	const uint8_t *table;
	uint32_t bytes;
	uint32_t width;
};

static bool is_rsdp(const uint8_t *rsdp)
{
	return same_bytes(rsdp, "RSD PTR ", 8) && sums_to_zero(rsdp, RSDP_BYTES_V1);
}

static bool open_root(const struct hx_physical *p, struct hx_pa a, struct root *out)
{
	const uint8_t *rsdp = physical_bytes(p, a, RSDP_BYTES_V1);
	if (!rsdp || !is_rsdp(rsdp)) {
		return false;
	}
	struct hx_pa address = hx_pa(le32(rsdp + 16));
	struct root r = {.width = 4};
	if (rsdp[15] >= 2) {
		rsdp = physical_bytes(p, a, RSDP_BYTES_V2);
		uint32_t bytes = rsdp ? le32(rsdp + 20) : 0;
		if (bytes < RSDP_BYTES_V2 || bytes > RSDP_BYTES_MAX) {
			return false;
		}
		rsdp = physical_bytes(p, a, bytes);
		if (!rsdp || !sums_to_zero(rsdp, bytes)) {
			return false;
		}
		if (le64(rsdp + 24) != 0) {
			address = hx_pa(le64(rsdp + 24));
			r.width = 8;
		}
	}
	if (!has_signature(p, address, r.width == 8 ? "XSDT" : "RSDT", &r.bytes)) {
		return false;
	}
	r.table = whole_table(p, address, r.bytes, HEADER_BYTES);
	*out = r;
	return r.table != NULL;
}

bool hx_acpi_open(struct hx_acpi *a, struct hx_physical physical, struct hx_pa rsdp)
{
	struct root root;
	if (!open_root(&physical, rsdp, &root)) {
		return false;
	}
	struct hx_acpi r = {.physical = physical};
	for (uint32_t at = HEADER_BYTES; within(root.bytes, at, root.width); at += root.width) {
		const uint8_t *entry = root.table + at;
		struct hx_pa address = hx_pa(root.width == 8 ? le64(entry) : le32(entry));
		const uint8_t *table;
		uint32_t bytes;
		if (r.madt.v == 0 && has_signature(&physical, address, "APIC", &bytes)) {
			table = whole_table(&physical, address, bytes, MADT_RECORDS);
			if (!table) {
				return false;
			}
			r.madt = address;
			r.madt_bytes = bytes;
			r.local_apic = le32(table + HEADER_BYTES);
		} else if (r.srat.v == 0 && has_signature(&physical, address, "SRAT", &bytes) &&
			   whole_table(&physical, address, bytes, SRAT_RECORDS)) {
			r.srat = address;
			r.srat_bytes = bytes;
		}
	}
	if (r.madt.v == 0) {
		return false;
	}
	*a = r;
	return true;
}

bool hx_acpi_find_rsdp(struct hx_physical physical, struct hx_pa *out)
{
	for (uint64_t at = 0xe0000; at + RSDP_BYTES_V1 <= 0x100000; at += 16) {
		const uint8_t *rsdp = physical_bytes(&physical, hx_pa(at), RSDP_BYTES_V1);
		if (rsdp && is_rsdp(rsdp)) {
			*out = hx_pa(at);
			return true;
		}
	}
	return false;
}

/* ---- Records ---- */

/* The records of a MADT or an SRAT from @at on. */
struct records {
	const uint8_t *table;
	uint32_t bytes, at;
};

/* The next record, NULL at the end or at one that leaves the table. */
static const uint8_t *next_record(struct records *r)
{
	if (!within(r->bytes, r->at, RECORD_BYTES)) {
		return NULL;
	}
	const uint8_t *record = r->table + r->at;
	if (record[1] < RECORD_BYTES || !within(r->bytes, r->at, record[1])) {
		return NULL;
	}
	r->at += record[1];
	return record;
}

static struct records open_records(const struct hx_acpi *a, struct hx_pa table, uint32_t bytes,
				   uint32_t first)
{
	struct records r = {physical_bytes(&a->physical, table, bytes), bytes, first};
	if (!r.table) {
		r.bytes = 0;
	}
	return r;
}

/* Identity of the CPU that MADT record @record enables. */
static bool enabled_cpu(const uint8_t *record, uint32_t *id)
{
	if (record[0] == 0 && record[1] >= 8) {
		*id = record[3];
		return (le32(record + 4) & 1) != 0 && *id != 0xff; /* 0xff: everyone */
	}
	if (record[0] == 9 && record[1] >= 16) {
		*id = le32(record + 4);
		return (le32(record + 8) & 1) != 0 && *id != UINT32_MAX;
	}
	return false;
}

/* Node in SRAT record @record; revision 1 has but 8 bits of it. */
static uint32_t node_in(const uint8_t *srat, const uint8_t *record)
{
	uint32_t node;
	switch (record[0]) {
	case 0:
		node = record[2] | (uint32_t)record[9] << 8 | (uint32_t)le16(record + 10) << 16;
		break;
	case 1:
		node = le32(record + 2);
		break;
	default:
		node = le32(record + 4);
		break;
	}
	return srat[8] < 2 ? node & 0xff : node;
}

static uint32_t node_of_cpu(const struct hx_acpi *a, uint32_t id)
{
	struct records r = open_records(a, a->srat, a->srat_bytes, SRAT_RECORDS);
	const uint8_t *record;
	while ((record = next_record(&r)) != NULL) {
		bool apic = record[0] == 0 && record[1] >= 16 && (le32(record + 4) & 1) != 0 &&
			    record[3] == id;
		bool x2apic = record[0] == 2 && record[1] >= 24 && (le32(record + 12) & 1) != 0 &&
			      le32(record + 8) == id;
		if (apic || x2apic) {
			return node_in(r.table, record);
		}
	}
	return 0;
}

uint32_t hx_acpi_node_of(const struct hx_acpi *a, struct hx_pa address)
{
	struct records r = open_records(a, a->srat, a->srat_bytes, SRAT_RECORDS);
	const uint8_t *record;
	while ((record = next_record(&r)) != NULL) {
		if (record[0] == 1 && record[1] >= 40 && (le32(record + 28) & 1) != 0 &&
		    address.v >= le64(record + 8) &&
		    address.v - le64(record + 8) < le64(record + 16)) {
			return node_in(r.table, record);
		}
	}
	return 0;
}

uint64_t hx_acpi_node_end(const struct hx_acpi *a, struct hx_pa address)
{
	uint64_t nearest = UINT64_MAX;
	struct records r = open_records(a, a->srat, a->srat_bytes, SRAT_RECORDS);
	const uint8_t *record;
	while ((record = next_record(&r)) != NULL) {
		if (record[0] != 1 || record[1] < 40 || (le32(record + 28) & 1) == 0) {
			continue;
		}
		uint64_t start = le64(record + 8), end;
		if (__builtin_add_overflow(start, le64(record + 16), &end)) {
			end = UINT64_MAX;
		}
		nearest = start > address.v && start < nearest ? start : nearest;
		nearest = end > address.v && end < nearest ? end : nearest;
	}
	return nearest;
}

/* True when a record before the one that ends at @end names CPU @id already. */
static bool named_before(struct records madt, uint32_t end, uint32_t id)
{
	const uint8_t *record;
	madt.at = MADT_RECORDS;
	while ((record = next_record(&madt)) != NULL && madt.at < end) {
		uint32_t other;
		if (enabled_cpu(record, &other) && other == id) {
			return true;
		}
	}
	return false;
}

bool hx_acpi_cpu_next(const struct hx_acpi *a, uint32_t *iterator, struct hx_cpu_info *out)
{
	/* The iterator is the offset of the next record; 0 stands for the first. */
	uint32_t first = *iterator > MADT_RECORDS ? *iterator : MADT_RECORDS;
	struct records r = open_records(a, a->madt, a->madt_bytes, first);
	const uint8_t *record;
	while ((record = next_record(&r)) != NULL) {
		uint32_t id;
		if (enabled_cpu(record, &id) && !named_before(r, r.at, id)) {
			*out = (struct hx_cpu_info){.hardware_id = id, .node = node_of_cpu(a, id)};
			*iterator = r.at;
			return true;
		}
	}
	return false;
}
