/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Stage 5's mappings: the image, the direct map, device windows.
 *
 *   direct map:  hx_kernel_start() + physical address -> that address
 *
 * Every region of memory (RAM and what lies in RAM: kernel, initrd, tables of
 * the firmware) is mapped there, writable and never executable; reserved ranges,
 * devices and holes are not. Frames of an image section that is not writable are
 * read-only in the direct map as well: otherwise their alias would be a way to
 * write code. Neighbours with equal rights are mapped in one piece, so that the
 * mapper finds the largest leaves.
 */
#include "boot_private.h"

#define DIRECT_WRITE                                                                               \
	(HX_PAGE_PRESENT | HX_PAGE_WRITABLE | HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL |                \
	 HX_PAGE_ACCESSED | HX_PAGE_DIRTY)
#define DIRECT_READ (HX_PAGE_PRESENT | HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL | HX_PAGE_ACCESSED)

/* A run of physical addresses that will be mapped with one set of flags. */
struct piece {
	uint64_t start, end, flags; /* empty: start == end */
};

static struct hx_va direct_va(uint64_t pa)
{
	return hx_va(hx_kernel_start() + (uintptr_t)pa);
}

static bool belongs(enum hx_memory_type type)
{
	return type == HX_MEMORY_RAM || type == HX_MEMORY_KERNEL || type == HX_MEMORY_INITRD ||
	       type == HX_MEMORY_ACPI || type == HX_MEMORY_FIRMWARE;
}

static hx_status flush_piece(struct hx_pagetable *t, struct piece *p)
{
	hx_status s = HX_OK;
	if (p->end > p->start) {
		s = hx_map(t, direct_va(p->start), hx_pa(p->start), p->end - p->start, p->flags);
	}
	p->start = p->end;
	return s;
}

static hx_status extend_piece(struct hx_pagetable *t, struct piece *p, uint64_t start, uint64_t end,
			      uint64_t flags)
{
	if (p->end != start || p->flags != flags) {
		hx_status s = flush_piece(t, p);
		if (s != HX_OK) {
			return s;
		}
		*p = (struct piece){start, start, flags};
	}
	p->end = end;
	return HX_OK;
}

/* Flags of the direct map at @at and, in *@end, where they change at the latest. */
static uint64_t flags_at(const struct hx_boot_args *args, uint64_t at, uint64_t *end)
{
	uint64_t flags = DIRECT_WRITE;
	for (unsigned i = 0; i < args->section_count; i++) {
		const struct hx_image_section *s = &args->sections[i];
		if (s->flags == 0 || (s->flags & HX_PAGE_WRITABLE)) {
			continue;
		}
		if (s->pa.v > at) {
			*end = s->pa.v < *end ? s->pa.v : *end;
		} else if (at - s->pa.v < s->bytes) {
			flags = DIRECT_READ;
			*end = s->pa.v + s->bytes < *end ? s->pa.v + s->bytes : *end;
		}
	}
	return flags;
}

hx_status hx_boot_map_direct(struct hx_system *sys, const struct hx_boot_args *args)
{
	struct piece piece = {0, 0, 0};
	for (unsigned i = 0; i < sys->map.count; i++) {
		const struct hx_memory_range *r = &sys->map.regions[i];
		uint64_t end = r->base.v + r->bytes;
		end = end < sys->direct_bytes ? end : sys->direct_bytes;
		if (!belongs(r->type)) {
			continue;
		}
		for (uint64_t at = r->base.v; at < end;) {
			uint64_t stop = end;
			uint64_t flags = flags_at(args, at, &stop);
			hx_status s = extend_piece(&sys->kernel_table, &piece, at, stop, flags);
			if (s != HX_OK) {
				return s;
			}
			at = stop;
		}
	}
	return flush_piece(&sys->kernel_table, &piece);
}

hx_status hx_boot_map_image(struct hx_system *sys, const struct hx_boot_args *args)
{
	for (unsigned i = 0; i < args->section_count; i++) {
		const struct hx_image_section *s = &args->sections[i];
		if (s->flags == 0 || s->bytes == 0) {
			continue; /* a guard */
		}
		hx_status status =
			hx_map(&sys->kernel_table, s->va, s->pa, s->bytes,
			       s->flags | HX_PAGE_GLOBAL | HX_PAGE_ACCESSED |
				       (s->flags & HX_PAGE_WRITABLE ? HX_PAGE_DIRTY : 0));
		if (status != HX_OK) {
			hx_log("[hx:stage 5] image section %s: %s", s->name,
			       hx_status_name(status));
			return status;
		}
	}
	return HX_OK;
}

hx_status hx_boot_map_devices(struct hx_system *sys, const struct hx_boot_args *args)
{
	for (unsigned i = 0; i < args->device_count; i++) {
		const struct hx_device_window *d = &args->devices[i];
		hx_status status = hx_map(&sys->kernel_table, direct_va(d->pa.v), d->pa, d->bytes,
					  DIRECT_WRITE | HX_PAGE_NO_CACHE);
		if (status != HX_OK) {
			hx_log("[hx:stage 5] device %s at 0x%llx: %s", d->name,
			       (unsigned long long)d->pa.v, hx_status_name(status));
			return status;
		}
	}
	return HX_OK;
}
