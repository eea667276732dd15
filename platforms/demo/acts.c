/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The demo's acts: each does one visible thing and says how it went. */
#include "demo.h"

#define SYS (&demo_system)

static const char *name_of(hx_status s)
{
	return hx_status_name(s);
}

static unsigned long long ull(uint64_t v)
{
	return v;
}

static hx_status free_frame(struct hx_pfn f)
{
	return hx_frames_free(&SYS->frames, f, 0);
}

/* ---- Frames ---- */

enum { PLAYGROUND_FRAMES = 256 };

static void play_with(const struct hx_frame_trait *trait, struct hx_pfn first, void *metadata,
		      void *backing_metadata)
{
	struct hx_frame_allocator backing = {
		.trait = hx_frame_trait_find(HX_CONFIG_BACKING),
		.base = first.v,
		.span_frames = PLAYGROUND_FRAMES,
		.metadata = backing_metadata,
		.metadata_bytes = HX_KIB(64),
	};
	struct hx_frame_allocator a = backing;
	a.trait = trait;
	a.metadata = metadata;
	hx_status s = HX_OK;
	if (hx_streq(trait->name, "slab")) {
		a.backing = &backing;
		s = backing.trait->init(&backing);
	}
	if (s == HX_OK) {
		s = trait->init(&a);
	}
	if (s == HX_OK) {
		s = trait->add(&a, first, PLAYGROUND_FRAMES);
	}
	struct hx_pfn_result one = trait->allocate(&a, 0, 0, NULL);
	struct hx_pfn_result run = trait->allocate_run(&a, 5, 0, NULL);
	/* cppcheck-suppress duplicateAssignExpression ; the same again, on purpose */
	hx_status freed = trait->free(&a, one.value, 0);
	hx_status again = trait->free(&a, one.value, 0);
	hx_status run_freed = trait->free_run(&a, run.value, 5);
	trait->drain(&a);
	bool frees = freed != HX_NOT_SUPPORTED; /* bump never does */
	demo_result(s == HX_OK && one.status == HX_OK && run.status == HX_OK &&
			    (!frees ||
			     (freed == HX_OK && again == HX_DOUBLE_FREE && run_freed == HX_OK &&
			      trait->free_frames(&a) == PLAYGROUND_FRAMES)),
		    "%-6s frame 0x%llx, run of 5 at 0x%llx; free %s, again %s; %llu of %u free",
		    trait->name, ull(one.value.v), ull(run.value.v), name_of(freed), name_of(again),
		    ull(trait->free_frames(&a)), PLAYGROUND_FRAMES);
}

void act_frame_allocators(void)
{
	struct hx_pfn_result ground =
		hx_frames_allocate_contiguous(&SYS->frames, PLAYGROUND_FRAMES, 0, 0);
	struct hx_ptr_result metadata = hx_heap_allocate(&SYS->heap, HX_KIB(64), 64, 0);
	struct hx_ptr_result backing = hx_heap_allocate(&SYS->heap, HX_KIB(64), 64, 0);
	if (ground.status != HX_OK || metadata.status != HX_OK || backing.status != HX_OK) {
		demo_result(false, "no memory for the playground");
		return;
	}
	const struct hx_frame_trait *t;
	for (unsigned i = 0; (t = hx_frame_trait_at(i)) != NULL; i++) {
		play_with(t, ground.value, metadata.value, backing.value);
	}
	hx_status s = hx_frames_free_run(&SYS->frames, ground.value, PLAYGROUND_FRAMES);
	hx_status m = hx_heap_free(&SYS->heap, metadata.value);
	hx_status b = hx_heap_free(&SYS->heap, backing.value);
	demo_result(s == HX_OK && m == HX_OK && b == HX_OK, "playground given back");
}

/* ---- Mapping ---- */

static bool probe(struct hx_va va, enum hx_access access, uint64_t *value, struct hx_fault *fault)
{
	struct hx_probe p = {.va = va, .access = access, .value = *value};
	hx_platform_probe(&p);
	*value = p.value;
	if (fault) {
		*fault = p.fault;
	}
	return !p.faulted;
}

static const char *access_name(enum hx_access a)
{
	static const char *const names[] = {[HX_ACCESS_READ] = "read",
					    [HX_ACCESS_WRITE] = "write",
					    [HX_ACCESS_EXECUTE] = "fetch"};
	return names[a];
}

#define DATA_FLAGS (HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE | HX_PAGE_GLOBAL)

void act_map_and_unmap(void)
{
	struct hx_va va = SYS->dynamic_base;
	struct hx_pfn_result frame = hx_frames_allocate(&SYS->frames, 0, 0);
	if (frame.status != HX_OK) {
		demo_result(false, "no frame");
		return;
	}
	struct hx_pa pa = hx_pfn_to_pa(frame.value);
	hx_status s = hx_map(&SYS->kernel_table, va, pa, HX_FRAME_BYTES, DATA_FLAGS);
	demo_result(s == HX_OK, "map 0x%llx -> 0x%llx: %s", ull(va.v), ull(pa.v), name_of(s));

	uint64_t word = 0x68656c6978; /* "helix" */
	bool written = probe(va, HX_ACCESS_WRITE, &word, NULL);
	uint64_t alias = *(volatile uint64_t *)hx_ptr(pa);
	demo_result(written && alias == word, "written there, read through the direct map: 0x%llx",
		    ull(alias));

	s = hx_unmap(&SYS->kernel_table, va, HX_FRAME_BYTES, NULL, NULL);
	struct hx_fault fault = {.va = {0}};
	bool late = probe(va, HX_ACCESS_READ, &word, &fault);
	demo_result(s == HX_OK && !late && fault.va.v == va.v && fault.access == HX_ACCESS_READ,
		    "unmapped; a late access faults: %s at 0x%llx, %s mode, %s",
		    access_name(fault.access), ull(fault.va.v), fault.user ? "user" : "supervisor",
		    name_of(hx_fault_last()->status));
	s = free_frame(frame.value);
	demo_result(s == HX_OK, "frame given back");
}

struct remote_read {
	struct hx_va va;
	bool worked;
};

static void read_remotely(void *argument)
{
	struct remote_read *r = argument;
	uint64_t value = 0;
	r->worked = probe(r->va, HX_ACCESS_READ, &value, NULL);
}

static unsigned readers(struct hx_va va)
{
	unsigned worked = 0;
	for (unsigned cpu = 1; cpu < demo_cpus; cpu++) {
		struct remote_read r = {va, false};
		if (hx_platform_run_on(cpu, read_remotely, &r)) {
			hx_platform_join(cpu);
			worked += r.worked;
		}
	}
	return worked;
}

void act_shootdown(void)
{
	if (demo_cpus < 2) {
		demo_result(true, "one CPU: nobody to tell");
		return;
	}
	struct hx_va va = SYS->dynamic_base;
	struct hx_pfn_result frame = hx_frames_allocate(&SYS->frames, 0, 0);
	if (frame.status != HX_OK) {
		demo_result(false, "no frame");
		return;
	}
	hx_status s = hx_map(&SYS->kernel_table, va, hx_pfn_to_pa(frame.value), HX_FRAME_BYTES,
			     DATA_FLAGS);
	unsigned before = readers(va);
	uint64_t broadcasts = hx_pagetable_counters(&SYS->kernel_table).broadcasts;
	hx_status u = hx_unmap(&SYS->kernel_table, va, HX_FRAME_BYTES, NULL, NULL);
	broadcasts = hx_pagetable_counters(&SYS->kernel_table).broadcasts - broadcasts;
	unsigned after = readers(va);
	demo_result(s == HX_OK && u == HX_OK && before == demo_cpus - 1 && after == 0 &&
			    broadcasts == 1,
		    "%u other CPUs read the page, %llu broadcast, %u read it after unmap", before,
		    ull(broadcasts), after);
	s = free_frame(frame.value);
	demo_result(s == HX_OK, "frame given back");
}

/* ---- A process's space ---- */

static struct hx_space space;
static struct hx_token token;

static bool open_space(void)
{
	hx_status s = hx_space_init(&space, &(struct hx_space_config){
						    .frames = &SYS->frames,
						    .db = &SYS->framedb,
						    .heap = &SYS->heap,
						    .kernel = &SYS->kernel_table,
						    .capabilities = &SYS->capabilities,
						    .wx = SYS->wx,
					    });
	if (s != HX_OK) {
		demo_result(false, "space: %s", name_of(s));
		return false;
	}
	struct hx_token_result t = hx_capability_create(&SYS->capabilities, &space, HX_RIGHTS_ALL);
	token = t.value;
	hx_space_load(&space, &SYS->kernel_table);
	return true;
}

static void close_space(void)
{
	hx_space_load(NULL, &SYS->kernel_table);
	hx_status s = hx_space_destroy(&space);
	demo_result(s == HX_OK, "space gone: %s", name_of(s));
}

static struct hx_va_result anonymous(uint64_t bytes)
{
	return hx_mmap(&space, token, hx_va(0), bytes, HX_PROT_READ | HX_PROT_WRITE,
		       HX_MAP_PRIVATE | HX_MAP_ANONYMOUS, NULL, 0);
}

/* One word through the MMU, as the process would touch it. */
static bool user_probe(struct hx_va va, enum hx_access access, uint64_t *value)
{
	struct hx_probe p = {.va = va, .access = access, .user = true, .value = *value};
	hx_platform_probe(&p);
	*value = p.value;
	return !p.faulted;
}

void act_demand_zero(void)
{
	if (!open_space()) {
		return;
	}
	/* 64 MiB, or a third of what is free where that is less: it is there twice. */
	uint64_t bytes = HX_MIB(64);
	uint64_t third = hx_frames_free_frames(&SYS->frames) / 3 << HX_FRAME_SHIFT;
	bytes = bytes < third ? bytes : third;
	struct hx_va_result from = anonymous(bytes), to = anonymous(bytes);
	if (from.status != HX_OK || to.status != HX_OK) {
		demo_result(false, "mmap: %s, %s", name_of(from.status), name_of(to.status));
		close_space();
		return;
	}
	uint64_t mark = 0x5eed;
	bool marked =
		user_probe(hx_va(from.value.v + (uintptr_t)bytes - 8), HX_ACCESS_WRITE, &mark);
	bool copied = hx_platform_copy(to.value, from.value, bytes);
	uint64_t first = 1, last = 0;
	bool read = user_probe(to.value, HX_ACCESS_READ, &first) &&
		    user_probe(hx_va(to.value.v + (uintptr_t)bytes - 8), HX_ACCESS_READ, &last);
	struct hx_space_stats s;
	hx_space_stats(&space, &s);
	uint64_t pages = bytes >> HX_FRAME_SHIFT;
	demo_result(marked && copied && read && first == 0 && last == mark &&
			    s.faults >= 2 * pages && s.resident_pages == 2 * pages,
		    "copied %llu MiB of %llu pages: %llu faults, %llu pages resident",
		    ull(bytes >> 20), ull(pages), ull(s.faults), ull(s.resident_pages));
	close_space();
}

void act_mprotect(void)
{
	if (!open_space()) {
		return;
	}
	struct hx_va_result page = anonymous(3 * HX_FRAME_BYTES);
	struct hx_va middle = hx_va(page.value.v + (uintptr_t)HX_FRAME_BYTES);
	uint64_t value = 41;
	bool before = user_probe(middle, HX_ACCESS_WRITE, &value);
	hx_status s = hx_mprotect(&space, token, middle, HX_FRAME_BYTES, HX_PROT_READ);
	uint64_t other = 42;
	bool refused = !user_probe(middle, HX_ACCESS_WRITE, &other);
	hx_status why = hx_fault_last()->status;
	bool read = user_probe(middle, HX_ACCESS_READ, &value);
	struct hx_space_stats stats;
	hx_space_stats(&space, &stats);
	demo_result(before && s == HX_OK && refused && why == HX_PERMISSION_DENIED && read &&
			    value == 41 && stats.regions == 3,
		    "write refused (%s), content still %llu, %llu regions", name_of(why),
		    ull(value), ull(stats.regions));
	s = hx_mprotect(&space, token, middle, HX_FRAME_BYTES, HX_PROT_READ | HX_PROT_WRITE);
	bool again = user_probe(middle, HX_ACCESS_WRITE, &other);
	hx_space_stats(&space, &stats);
	demo_result(s == HX_OK && again && stats.regions == 1,
		    "made writable again, the regions joined to %llu", ull(stats.regions));
	close_space();
}

void act_brk(void)
{
	if (!open_space()) {
		return;
	}
	struct hx_va start = hx_brk(&space, token, hx_va(0)).value;
	struct hx_va_result up = hx_brk(&space, token, hx_va(start.v + 100000));
	uint64_t value = 7;
	bool written = user_probe(hx_va(start.v + 65536), HX_ACCESS_WRITE, &value);
	struct hx_va_result down = hx_brk(&space, token, start);
	uint64_t gone = 0;
	bool late = user_probe(hx_va(start.v + 65536), HX_ACCESS_READ, &gone);
	struct hx_va_result again = hx_brk(&space, token, hx_va(start.v + 100000));
	uint64_t fresh = 1;
	bool read = user_probe(hx_va(start.v + 65536), HX_ACCESS_READ, &fresh);
	demo_result(up.status == HX_OK && up.value.v == start.v + 100000 && written,
		    "up by 100000 bytes to 0x%llx", ull(up.value.v));
	demo_result(down.status == HX_OK && down.value.v == start.v && !late,
		    "down again: a late read faults (%s)", name_of(hx_fault_last()->status));
	demo_result(again.status == HX_OK && read && fresh == 0, "up again: the memory is zero");
	close_space();
}

/* ---- Heap ---- */

void act_heap(void)
{
	struct hx_heap *h = &SYS->heap;
	struct hx_ptr_result small = hx_heap_allocate(h, 100, 0, HX_HEAP_ZERO);
	struct hx_ptr_result aligned = hx_heap_allocate(h, 3000, 4096, 0);
	struct hx_ptr_result large = hx_heap_allocate(h, 300000, 0, 0);
	bool got = small.status == HX_OK && aligned.status == HX_OK && large.status == HX_OK;
	demo_result(got && hx_is_aligned((uintptr_t)aligned.value, 4096),
		    "100 bytes zeroed, 3000 bytes on a page boundary, 300000 bytes");
	if (!got) {
		return;
	}
	hx_memset(small.value, 0x5a, 100);
	struct hx_ptr_result grown = hx_heap_reallocate(h, small.value, 5000, 0, 0);
	const uint8_t *bytes = grown.value;
	demo_result(grown.status == HX_OK && bytes[0] == 0x5a && bytes[99] == 0x5a,
		    "reallocated to 5000, contents kept");
	hx_status s = hx_heap_free_sized(h, aligned.value, 3000);
	hx_status again = hx_heap_free(h, aligned.value);
	hx_status interior = hx_heap_free(h, (uint8_t *)large.value + 64);
	demo_result(s == HX_OK && again == HX_DOUBLE_FREE && interior == HX_FOREIGN_FREE,
		    "freed: %s; twice: %s; in the middle of an object: %s", name_of(s),
		    name_of(again), name_of(interior));
	hx_status l = hx_heap_free(h, large.value), g = hx_heap_free(h, grown.value);
	struct hx_heap_stats stats;
	hx_heap_stats(h, &stats);
	demo_result(l == HX_OK && g == HX_OK, "%s heap: %llu objects live, %llu KiB managed",
		    hx_heap_name(h), ull(stats.live_objects), ull(stats.managed_bytes >> 10));
}

/* ---- Pressure ---- */

/*
 * The memory that runs out is written down in pages of its own, so that a block of
 * 1 GiB is taken without a word in it being touched.
 */
struct ledger {
	struct ledger *next;
	uint64_t count;
	uint64_t blocks[HX_FRAME_BYTES / 8 - 2]; /* frame number << 8 | order */
};

static struct ledger *ledger;
static uint64_t ballast_blocks;

/* Room for one more entry; false when not even a frame for a page is left. */
static bool ledger_has_room(void)
{
	if (ledger && ledger->count < HX_ARRAY_LENGTH(ledger->blocks)) {
		return true;
	}
	struct hx_pfn_result r = hx_frames_allocate(&SYS->frames, 0, HX_ALLOC_NO_PRESSURE);
	if (r.status != HX_OK) {
		return false;
	}
	struct ledger *page = hx_ptr(hx_pfn_to_pa(r.value));
	page->next = ledger;
	page->count = 0;
	ledger = page;
	return true;
}

/* @return frames given back, 0 when none is left or a free was refused */
static uint64_t drop_one_block(void)
{
	if (!ledger) {
		return 0;
	}
	uint64_t frames = 0;
	hx_status s = HX_OK;
	if (ledger->count > 0) {
		uint64_t entry = ledger->blocks[--ledger->count];
		unsigned order = entry & 0xff;
		frames = UINT64_C(1) << order;
		ballast_blocks--;
		s = hx_frames_free(&SYS->frames, hx_pfn(entry >> 8), order);
	}
	if (s == HX_OK && ledger->count == 0) {
		struct ledger *empty = ledger;
		ledger = empty->next;
		frames++;
		s = hx_frames_free(&SYS->frames, hx_pa_to_pfn(hx_ptr_to_pa(empty)), 0);
	}
	return s == HX_OK ? frames : 0;
}

static uint64_t reclaim_ballast(void *context, const struct hx_pressure_event *event)
{
	(void)event;
	++*(unsigned *)context;
	return drop_one_block();
}

static void fill_memory(void)
{
	for (unsigned order = HX_ORDER_MAX + 1; order-- > 0;) {
		while (ledger_has_room()) {
			struct hx_pfn_result r =
				hx_frames_allocate(&SYS->frames, order, HX_ALLOC_NO_PRESSURE);
			if (r.status != HX_OK) {
				break;
			}
			ledger->blocks[ledger->count++] = r.value.v << 8 | order;
			ballast_blocks++;
		}
	}
}

void act_pressure(void)
{
	if (hx_streq(SYS->physical->name, "bump")) {
		demo_result(true, "the bump allocator never frees: nothing could be reclaimed");
		return;
	}
	unsigned calls = 0;
	hx_status s = hx_pressure_register(&SYS->pressure, "ballast", 0, reclaim_ballast, &calls);
	demo_result(s == HX_OK, "a reclaimer is registered");
	uint64_t events = SYS->pressure.events;
	fill_memory();
	struct hx_pfn_result plain = hx_frames_allocate(&SYS->frames, 0, HX_ALLOC_NO_PRESSURE);
	demo_result(plain.status == HX_OUT_OF_MEMORY, "memory is full: %llu blocks hold it, %s",
		    ull(ballast_blocks), name_of(plain.status));
	struct hx_pfn_result rescued = hx_frames_allocate(&SYS->frames, 0, 0);
	demo_result(rescued.status == HX_OK && calls == 1 && SYS->pressure.events == events + 1,
		    "the same request with pressure: %llu event, reclaimer called %u times, "
		    "retry %s",
		    ull(SYS->pressure.events - events), calls, name_of(rescued.status));
	while (ledger) {
		if (drop_one_block() == 0) {
			demo_result(false, "a block could not be freed");
			break;
		}
	}
	s = rescued.status == HX_OK ? free_frame(rescued.value) : HX_OK;
	hx_status u = hx_pressure_unregister(&SYS->pressure, "ballast");
	demo_result(s == HX_OK && u == HX_OK, "all given back");
}

/* ---- Capabilities ---- */

void act_token(void)
{
	if (!open_space()) {
		return;
	}
	struct hx_token_result viewer =
		hx_capability_derive(&SYS->capabilities, token, HX_RIGHT_QUERY);
	struct hx_va_result refused =
		hx_mmap(&space, viewer.value, hx_va(0), HX_FRAME_BYTES, HX_PROT_READ,
			HX_MAP_PRIVATE | HX_MAP_ANONYMOUS, NULL, 0);
	demo_result(viewer.status == HX_OK && refused.status == HX_PERMISSION_DENIED,
		    "mmap with a token that may only look: %s", name_of(refused.status));
	hx_status revoked = hx_capability_revoke(&SYS->capabilities, token, viewer.value);
	struct hx_region_info look = hx_space_lookup(&space, viewer.value, hx_va(0));
	demo_result(revoked == HX_OK && look.status == HX_PERMISSION_DENIED,
		    "revoked; a look with it: %s", name_of(look.status));
	close_space();
}

/* ---- The six errors ---- */

struct repair {
	struct hx_va va;
	struct hx_pa pa;
	const char *did;
};

static struct repair repair;

/* NOT_MAPPED: map the page. */
static enum hx_outcome handle_page_fault(void *context, const struct hx_incident *incident)
{
	struct repair *r = context;
	r->did = "mapped the page";
	return hx_map(&SYS->kernel_table, incident->va, r->pa, HX_FRAME_BYTES, DATA_FLAGS) == HX_OK
		       ? HX_OUTCOME_RETRY
		       : HX_OUTCOME_RETURN;
}

/* ALREADY_MAPPED: unmap what is there. */
static enum hx_outcome handle_remap(void *context, const struct hx_incident *incident)
{
	struct repair *r = context;
	r->did = "unmapped what was there";
	return hx_unmap(&SYS->kernel_table, incident->va, incident->bytes, NULL, NULL) == HX_OK
		       ? HX_OUTCOME_RETRY
		       : HX_OUTCOME_RETURN;
}

/* INVALID_ALIGNMENT: the caller's bug; tell the address that would do. */
static enum hx_outcome handle_alignment(void *context, const struct hx_incident *incident)
{
	struct repair *r = context;
	uint64_t up;
	r->did = "aligned up";
	if (!hx_align_up(incident->va.v, HX_FRAME_BYTES, &up)) {
		return HX_OUTCOME_RETURN;
	}
	r->va = hx_va((uintptr_t)up);
	return HX_OUTCOME_RETRY;
}

/* PERMISSION_DENIED: look at the token; nothing that a handler may grant. */
static enum hx_outcome handle_capability(void *context, const struct hx_incident *incident)
{
	struct repair *r = context;
	(void)incident;
	r->did = "checked the token: the right is not there";
	return HX_OUTCOME_RETURN;
}

static void show_recovery(hx_status provoked, hx_status expected, struct hx_recovered recovered,
			  hx_status after)
{
	bool retried = recovered.outcome == HX_OUTCOME_RETRY;
	demo_result(provoked == expected, "%-17s -> %s: %s%s%s", name_of(provoked),
		    hx_strategy_name(recovered.strategy), repair.did ? repair.did : "done",
		    retried ? ", retried: " : ", returned: ", name_of(after));
}

static struct hx_recovered recover(hx_status s, struct hx_va va, uint64_t bytes,
				   const char *operation)
{
	repair.did = NULL;
	return hx_recover(&SYS->recovery,
			  &(struct hx_incident){.status = s, .va = va, .bytes = bytes,
						.object = SYS, .operation = operation});
}

static void error_out_of_memory(void)
{
	/* More than any machine has: the event fires, nothing can help, it is returned. */
	uint64_t frames = hx_frames_total_frames(&SYS->frames) + 1;
	struct hx_pfn_result r =
		hx_frames_allocate_contiguous(&SYS->frames, frames, 0, HX_ALLOC_NO_PRESSURE);
	struct hx_recovered how = recover(r.status, hx_va(0), frames << HX_FRAME_SHIFT, "frames");
	repair.did = "raised the pressure event";
	hx_status after = r.status;
	if (how.outcome == HX_OUTCOME_RETRY) {
		after = hx_frames_allocate_contiguous(&SYS->frames, frames, 0,
						      HX_ALLOC_NO_PRESSURE).status;
	}
	show_recovery(r.status, HX_OUT_OF_MEMORY, how, after);
}

static void error_invalid_address(void)
{
	struct hx_va outside = hx_va(hx_user_end()); /* the canonical hole */
	hx_status s = hx_map(&SYS->kernel_table, outside, hx_pa(0), HX_FRAME_BYTES, DATA_FLAGS);
	struct hx_recovered how = recover(s, outside, HX_FRAME_BYTES, "map");
	show_recovery(s, HX_INVALID_ADDRESS, how, s);
}

void act_six_errors(void)
{
	struct hx_pfn_result frame = hx_frames_allocate(&SYS->frames, 0, 0);
	if (frame.status != HX_OK) {
		demo_result(false, "no frame");
		return;
	}
	struct hx_pa pa = hx_pfn_to_pa(frame.value);
	struct hx_va va = SYS->dynamic_base;
	repair = (struct repair){.pa = pa};
	static const struct {
		enum hx_strategy strategy;
		hx_recovery_fn handle;
	} handlers[] = {
		{HX_STRATEGY_PAGE_FAULT, handle_page_fault},
		{HX_STRATEGY_REMAP, handle_remap},
		{HX_STRATEGY_ALIGN, handle_alignment},
		{HX_STRATEGY_CAPABILITY, handle_capability},
	};
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(handlers); i++) {
		hx_status s = hx_recovery_register(&SYS->recovery, handlers[i].strategy,
						   handlers[i].handle, &repair);
		if (s != HX_OK) {
			demo_result(false, "handler: %s", name_of(s));
		}
	}

	error_out_of_memory();
	error_invalid_address();

	hx_status s = hx_translate(&SYS->kernel_table, va).status;
	struct hx_recovered how = recover(s, va, HX_FRAME_BYTES, "translate");
	show_recovery(s, HX_NOT_MAPPED, how, hx_translate(&SYS->kernel_table, va).status);

	s = hx_map(&SYS->kernel_table, va, pa, HX_FRAME_BYTES, DATA_FLAGS);
	how = recover(s, va, HX_FRAME_BYTES, "map");
	hx_status after = hx_map(&SYS->kernel_table, va, pa, HX_FRAME_BYTES, DATA_FLAGS);
	show_recovery(s, HX_ALREADY_MAPPED, how, after);
	bool undone = hx_unmap(&SYS->kernel_table, va, HX_FRAME_BYTES, NULL, NULL) == HX_OK;

	struct hx_va crooked = hx_va(va.v + 12);
	s = hx_map(&SYS->kernel_table, crooked, pa, HX_FRAME_BYTES, DATA_FLAGS);
	how = recover(s, crooked, HX_FRAME_BYTES, "map");
	after = hx_map(&SYS->kernel_table, repair.va, pa, HX_FRAME_BYTES, DATA_FLAGS);
	show_recovery(s, HX_INVALID_ALIGNMENT, how, after);
	undone &= hx_unmap(&SYS->kernel_table, repair.va, HX_FRAME_BYTES, NULL, NULL) == HX_OK;

	struct hx_token_result weak = hx_capability_create(&SYS->capabilities, SYS, HX_RIGHT_QUERY);
	s = hx_capability_check(&SYS->capabilities, weak.value, SYS, HX_RIGHT_FRAMES);
	how = recover(s, hx_va(0), 0, "frames of a zone");
	show_recovery(s, HX_PERMISSION_DENIED, how, s);
	/* Without REVOKE it stays, and is forgotten with its object. */
	undone &= hx_capability_revoke(&SYS->capabilities, weak.value, weak.value) ==
		  HX_PERMISSION_DENIED;

	for (unsigned i = 0; i < HX_ARRAY_LENGTH(handlers); i++) {
		undone &= hx_recovery_register(&SYS->recovery, handlers[i].strategy, NULL, NULL) ==
			  HX_OK;
	}
	undone &= free_frame(frame.value) == HX_OK;
	demo_result(undone, "frame given back");
}
