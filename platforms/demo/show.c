/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The demo's pictures: the memory map before and after, and RAM in characters. */
#include "demo.h"

static unsigned long long ull(uint64_t v)
{
	return v;
}

void demo_show_map(const char *title, const struct hx_memmap *map)
{
	hx_log("%s:", title);
	for (unsigned i = 0; i < map->count; i++) {
		const struct hx_memory_range *r = &map->regions[i];
		hx_log("  0x%012llx + 0x%012llx  node %u  %s", ull(r->base.v), ull(r->bytes),
		       r->node, hx_memory_type_name(r->type));
	}
	hx_log("  total RAM %llu KiB, reserved %llu KiB, kernel %llu KiB, initrd %llu KiB",
	       ull(hx_memmap_total(map, HX_MEMORY_RAM) >> 10),
	       ull(hx_memmap_total(map, HX_MEMORY_RESERVED) >> 10),
	       ull(hx_memmap_total(map, HX_MEMORY_KERNEL) >> 10),
	       ull(hx_memmap_total(map, HX_MEMORY_INITRD) >> 10));
}

/* What a cell of the drawing can be made of; the first one present wins: rare before common. */
enum ink { INK_BUMP, INK_TABLES, INK_HEAP, INK_IMAGE, INK_OTHER, INK_FREE, INK_HOLE, INKS };

static const char ink_letter[INKS] = {'b', 'T', 'h', 'K', 'r', '.', ' '};

/* Physical address of an address in the image; 0 when no section maps it. */
static uint64_t image_pa(uintptr_t va)
{
	const struct hx_boot_args *args = hx_platform_boot_args();
	for (unsigned i = 0; i < args->section_count; i++) {
		const struct hx_image_section *s = &args->sections[i];
		if (va - s->va.v < s->bytes) {
			return s->pa.v + (va - s->va.v);
		}
	}
	return 0;
}

static enum ink ink_of_frame(uint64_t pa, uint64_t arena, uint64_t arena_end)
{
	const struct hx_memory_range *r = hx_memmap_find(&demo_system.map, hx_pa(pa));
	if (!r) {
		return INK_HOLE;
	}
	if (pa >= arena && pa < arena_end) {
		return INK_BUMP;
	}
	enum hx_frame_tag tag = hx_framedb_tag(&demo_system.framedb, hx_pa_to_pfn(hx_pa(pa)));
	if (tag == HX_TAG_TABLE) {
		return INK_TABLES;
	}
	if (tag == HX_TAG_HEAP) {
		return INK_HEAP;
	}
	if (r->type == HX_MEMORY_KERNEL) {
		return pa >= arena_end && pa < arena + HX_BOOT_ARENA_BYTES ? INK_FREE : INK_IMAGE;
	}
	return r->type == HX_MEMORY_RAM ? INK_FREE : INK_OTHER;
}

enum { CELLS = 64, SAMPLES = 4096, ROWS = 6, ENLARGED_FRAMES = 16 };

/* Where the part of the bump arena that is in use lies. */
struct arena {
	uint64_t start, used_end;
};

/* What is in [start, end): a bit for each kind. Of more than SAMPLES frames some are looked at. */
static unsigned inks_of(uint64_t start, uint64_t end, const struct arena *arena)
{
	uint64_t frames = (end - start) >> HX_FRAME_SHIFT;
	uint64_t step = (frames + SAMPLES - 1) / SAMPLES;
	unsigned inks = 0;
	for (uint64_t f = 0; f < frames; f += step) {
		inks |= 1u << ink_of_frame(start + (f << HX_FRAME_SHIFT), arena->start,
					   arena->used_end);
	}
	return inks;
}

/* More than one kind that is neither free nor a hole. */
static bool is_mixed(unsigned inks)
{
	inks &= ~(1u << INK_FREE | 1u << INK_HOLE);
	return (inks & (inks - 1)) != 0;
}

static enum ink rarest(unsigned inks)
{
	enum ink ink = INK_BUMP;
	while (ink < INK_HOLE && !(inks & 1u << ink)) {
		ink++;
	}
	return ink;
}

/*
 * A row of at most CELLS cells; a cell shows the rarest kind found in it. Below
 * it, cells that hold several kinds are drawn as rows of their own, ROWS at the
 * most in all. A terabyte is drawn as fast as a gigabyte.
 */
static void draw_row(uint64_t start, uint64_t end, const struct arena *arena, unsigned *rows)
{
	char row[CELLS + 1];
	uint64_t mixed = 0, frames = (end - start) >> HX_FRAME_SHIFT;
	if (frames == 0) {
		return;
	}
	unsigned cells = frames < CELLS ? (unsigned)frames : CELLS;
	for (unsigned c = 0; c < cells; c++) {
		uint64_t first = frames * c / cells, last = frames * (c + 1) / cells;
		unsigned inks = inks_of(start + (first << HX_FRAME_SHIFT),
					start + (last << HX_FRAME_SHIFT), arena);
		row[c] = ink_letter[rarest(inks)];
		mixed |= (uint64_t)(is_mixed(inks) && last - first > ENLARGED_FRAMES) << c;
	}
	row[cells] = '\0';
	hx_log("  0x%012llx |%s| %llu KiB a cell", ull(start), row,
	       ull((end - start) / cells >> 10));
	for (unsigned c = 0; *rows > 0 && c < cells; c++) {
		if (mixed >> c & 1) {
			uint64_t first = frames * c / cells, last = frames * (c + 1) / cells;
			--*rows;
			draw_row(start + (first << HX_FRAME_SHIFT),
				 start + (last << HX_FRAME_SHIFT), arena, rows);
		}
	}
}

void demo_draw_memory(void)
{
	const struct hx_boot_args *args = hx_platform_boot_args();
	uint64_t used = demo_system.bump_used_bytes;
	struct arena arena = {.start = image_pa(args->arena_va.v)};
	arena.used_end = arena.start + hx_align_down(used + HX_FRAME_BYTES - 1, HX_FRAME_BYTES);
	unsigned rows = ROWS;
	hx_log("memory, drawn: K kernel image and metadata, b bump objects, T page tables, "
	       "h heap,");
	hx_log("               r reserved and firmware, . free; what is mixed is enlarged below");
	const struct hx_memmap *map = &demo_system.map;
	for (unsigned i = 0; i < map->count;) {
		uint64_t start = map->regions[i].base.v, end = start;
		bool ram = false;
		/* Regions that touch share a row; one without RAM is not drawn. */
		for (; i < map->count && map->regions[i].base.v == end; i++) {
			end += map->regions[i].bytes;
			ram = ram || map->regions[i].type == HX_MEMORY_RAM;
		}
		if (ram) {
			draw_row(start, end, &arena, &rows);
		}
	}
}

void demo_show_choices(void)
{
	struct hx_frame_stats s;
	hx_frames_stats(&demo_system.frames, &s);
	hx_log("chosen: physical %s%s%s, heap %s, huge pages %s, profile %s",
	       demo_system.physical->name, demo_system.backing ? " over " : "",
	       demo_system.backing ? demo_system.backing->name : "",
	       hx_heap_name(&demo_system.heap), demo_system.huge_pages ? "on" : "off",
	       HX_CONFIG_PROFILE);
	for (unsigned i = 0; i < demo_system.frames.zone_count; i++) {
		const struct hx_zone *z = &demo_system.frames.zones[i];
		hx_log("  zone %-6s node %u: %llu frames, %llu free", hx_zone_kind_name(z->kind),
		       z->node, ull(z->front->total_frames),
		       ull(z->front->trait->free_frames(z->front)));
	}
	hx_log("  allocator metadata: %llu KiB", ull(s.metadata_bytes >> 10));
}
