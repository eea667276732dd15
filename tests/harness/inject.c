/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Failure injection under the zones; see inject.h. */
#include "inject.h"

static struct {
	struct hx_frames *frames; /* NULL: off */
	uint64_t fail_at, seen;
	bool forever;
	/* The zone tried last and whether it refused: a lower one then goes on for it. */
	unsigned last_zone;
	bool last_refused;
	const struct hx_frame_trait *original[HX_ZONES_MAX];
	struct hx_frame_trait wrapped[HX_ZONES_MAX];
} inject;

static unsigned zone_index(const struct hx_frame_allocator *a)
{
	unsigned i = 0;
	while (inject.frames->zones[i].front != a) {
		i++;
		HX_ASSERT(i < inject.frames->zone_count);
	}
	return i;
}

/* Count a try in @zone; true: it is to fail. */
static bool refuses(unsigned zone)
{
	if (!inject.last_refused || zone >= inject.last_zone) {
		inject.seen++;
	}
	inject.last_zone = zone;
	return inject.fail_at != 0 &&
	       (inject.seen == inject.fail_at || (inject.forever && inject.seen > inject.fail_at));
}

static struct hx_pfn_result noted(struct hx_pfn_result r)
{
	inject.last_refused = r.status != HX_OK;
	return r;
}

static const struct hx_pfn_result nothing = {.status = HX_OUT_OF_MEMORY};

static struct hx_pfn_result allocate(struct hx_frame_allocator *a, unsigned order, unsigned flags,
				     const struct hx_frame_constraint *c)
{
	unsigned zone = zone_index(a);
	return noted(refuses(zone) ? nothing : inject.original[zone]->allocate(a, order, flags, c));
}

static struct hx_pfn_result allocate_run(struct hx_frame_allocator *a, uint64_t count,
					 unsigned flags, const struct hx_frame_constraint *c)
{
	unsigned zone = zone_index(a);
	return noted(refuses(zone) ? nothing
				   : inject.original[zone]->allocate_run(a, count, flags, c));
}

/* One request, however many frames it is for. */
static uint64_t allocate_bulk(struct hx_frame_allocator *a, struct hx_pfn *out, uint64_t count,
			      unsigned flags)
{
	unsigned zone = zone_index(a);
	uint64_t n = refuses(zone) ? 0 : inject.original[zone]->allocate_bulk(a, out, count, flags);
	inject.last_refused = n < count;
	return n;
}

void hx_inject_begin(struct hx_frames *f, uint64_t fail_at, bool forever)
{
	HX_ASSERT(!inject.frames);
	inject.frames = f;
	inject.fail_at = fail_at;
	inject.forever = forever;
	inject.seen = 0;
	inject.last_refused = false;
	for (unsigned i = 0; i < f->zone_count; i++) {
		inject.original[i] = f->zones[i].front->trait;
		inject.wrapped[i] = *inject.original[i];
		inject.wrapped[i].allocate = allocate;
		inject.wrapped[i].allocate_run = allocate_run;
		inject.wrapped[i].allocate_bulk = allocate_bulk;
		f->zones[i].front->trait = &inject.wrapped[i];
	}
}

uint64_t hx_inject_end(void)
{
	HX_ASSERT(inject.frames);
	for (unsigned i = 0; i < inject.frames->zone_count; i++) {
		inject.frames->zones[i].front->trait = inject.original[i];
	}
	inject.frames = NULL;
	return inject.seen;
}
