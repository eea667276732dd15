/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The staged bring-up; see hx/boot.h for the stages and the address layout.
 *
 * Until stage 5 the kernel reaches physical memory only below the boot window,
 * so metadata is carved out below it and RAM above it is given to the frame
 * allocator once the direct map covers it. Nothing here is undone on failure: a
 * boot that was refused ends in a report.
 */
#include "boot_private.h"

uint8_t hx_boot_arena[HX_BOOT_ARENA_BYTES] __attribute__((aligned(4096)));

enum {
	CAPABILITY_SLOTS = 1024,
	NAME_BYTES = 32,
};

/* ---- The log's cost column ---- */

struct stopwatch {
	const struct hx_boot_args *args;
	uint64_t start;
};

static struct stopwatch start_watch(const struct hx_boot_args *args)
{
	return (struct stopwatch){args, args->ticks ? args->ticks() : 0};
}

static void done(struct hx_system *sys, const struct stopwatch *w, unsigned stage,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));

static void done(struct hx_system *sys, const struct stopwatch *w, unsigned stage,
		 const char *format, ...)
{
	char text[180];
	va_list list;
	va_start(list, format);
	hx_format_list(text, sizeof text, format, list);
	va_end(list);
	sys->stage = stage;
	if (w->args->ticks) {
		hx_log("[hx:stage %u] %s (%llu %s)", stage, text,
		       (unsigned long long)(w->args->ticks() - w->start),
		       w->args->tick_unit ? w->args->tick_unit : "ticks");
	} else {
		hx_log("[hx:stage %u] %s", stage, text);
	}
}

static hx_status refused(unsigned stage, hx_status s, const char *what)
{
	hx_log("[hx:stage %u] refused: %s: %s (%s)", stage, what, hx_status_name(s),
	       hx_status_description(s));
	return s;
}

static unsigned long long mib(uint64_t bytes)
{
	return (unsigned long long)(bytes >> 20);
}

/* ---- Choices: the command line over the profile ---- */

static const char *const library_keys[] = {"hx.physical", "hx.physical_backing", "hx.heap", "hx.wx",
					   NULL};

/* Is the word KEY=VALUE with a key among these? */
static bool has_key(const char *word, size_t length, const char *const *keys)
{
	for (; keys && *keys; keys++) {
		size_t n = hx_strlen(*keys);
		if (length > n && word[n] == '=' && hx_memcmp(word, *keys, n) == 0) {
			return true;
		}
	}
	return false;
}

static size_t list_keys(char *text, size_t size, size_t n, const char *const *keys)
{
	for (; keys && *keys && n < size; keys++) {
		n += (size_t)hx_format(text + n, size - n, " %s", *keys);
	}
	return n;
}

/* A misspelt key would choose nothing without a word. */
static hx_status check_keys(const struct hx_boot_args *args)
{
	static const char prefix[] = "hx.";
	const size_t prefix_length = sizeof prefix - 1;
	size_t length;
	const char *at = args->command_line ? args->command_line : "", *word;
	while (word = hx_command_line_word(&at, &length), length > 0) {
		if (length < prefix_length || hx_memcmp(word, prefix, prefix_length) != 0 ||
		    has_key(word, length, library_keys) || has_key(word, length, args->own_keys)) {
			continue;
		}
		char name[NAME_BYTES], allowed[120] = "";
		size_t n = length < sizeof name ? length : sizeof name - 1;
		hx_memcpy(name, word, n);
		name[n] = '\0';
		n = list_keys(allowed, sizeof allowed, 0, library_keys);
		list_keys(allowed, sizeof allowed, n, args->own_keys);
		hx_log("[hx:stage 2] refused: %s: unknown key; allowed:%s", name, allowed);
		return HX_INVALID_ARGUMENT;
	}
	return HX_OK;
}

static const char *chosen(const struct hx_boot_args *args, const char *key, const char *profile,
			  char out[NAME_BYTES])
{
	return hx_command_line_get(args->command_line, key, out, NAME_BYTES) ? out : profile;
}

/* "hx.physical=x is not built in; allowed: bump bitmap buddy" */
static hx_status unknown_name(unsigned stage, const char *key, const char *name,
			      const char *(*name_at)(unsigned i))
{
	char allowed[100] = "";
	size_t n = 0;
	for (unsigned i = 0; name_at(i) && n < sizeof allowed; i++) {
		n += (size_t)hx_format(allowed + n, sizeof allowed - n, " %s", name_at(i));
	}
	hx_log("[hx:stage %u] refused: %s=%s is not built in; allowed:%s", stage, key, name,
	       allowed);
	return HX_INVALID_ARGUMENT;
}

static const char *physical_name_at(unsigned i)
{
	const struct hx_frame_trait *t = hx_frame_trait_at(i);
	return t ? t->name : NULL;
}

/* Under slab stands what takes frames back one by one: neither bump nor slab itself. */
static const char *backing_name_at(unsigned i)
{
	const char *name;
	for (unsigned k = 0; (name = physical_name_at(k)) != NULL; k++) {
		if (!hx_streq(name, "bump") && !hx_streq(name, "slab") && i-- == 0) {
			return name;
		}
	}
	return NULL;
}

static const char *heap_name_at(unsigned i)
{
	const struct hx_heap_trait *t = hx_heap_trait_at(i);
	return t ? t->name : NULL;
}

static const char *wx_names[] = {
	[HX_WX_FORCE] = "force", [HX_WX_REFUSE] = "refuse", [HX_WX_OFF] = "off"};

static const char *wx_name_at(unsigned i)
{
	return i < HX_ARRAY_LENGTH(wx_names) ? wx_names[i] : NULL;
}

/* Index of @name, or of the end. */
static unsigned index_of(const char *name, const char *(*name_at)(unsigned i))
{
	unsigned i = 0;
	while (name_at(i) && !hx_streq(name_at(i), name)) {
		i++;
	}
	return i;
}

/* What slab stands on; a name that was given is looked at even where nothing is under slab. */
static hx_status choose_backing(struct hx_system *sys, const struct hx_boot_args *args)
{
	static const char key[] = "hx.physical_backing";
	char text[NAME_BYTES];
	bool slab = hx_streq(sys->physical->name, "slab");
	if (!slab && !hx_command_line_get(args->command_line, key, text, sizeof text)) {
		return HX_OK;
	}
	const char *name = chosen(args, key, HX_CONFIG_BACKING, text);
	if (!backing_name_at(index_of(name, backing_name_at))) {
		return unknown_name(2, key, name, backing_name_at);
	}
	sys->backing = slab ? hx_frame_trait_find(name) : NULL;
	return HX_OK;
}

static hx_status choose(struct hx_system *sys, const struct hx_boot_args *args)
{
	hx_status s = check_keys(args);
	if (s != HX_OK) {
		return s;
	}
	char text[NAME_BYTES];
	const char *name = chosen(args, "hx.physical", HX_CONFIG_PHYSICAL, text);
	sys->physical = hx_frame_trait_find(name);
	if (!sys->physical) {
		return unknown_name(2, "hx.physical", name, physical_name_at);
	}
	s = choose_backing(sys, args);
	if (s != HX_OK) {
		return s;
	}
	name = chosen(args, "hx.heap", HX_CONFIG_HEAP, text);
	sys->heap_trait = hx_heap_trait_find(name);
	if (!sys->heap_trait) {
		return unknown_name(2, "hx.heap", name, heap_name_at);
	}
	name = chosen(args, "hx.wx", HX_CONFIG_WX, text);
	unsigned wx = index_of(name, wx_name_at);
	if (!wx_name_at(wx)) {
		return unknown_name(2, "hx.wx", name, wx_name_at);
	}
	sys->wx = (enum hx_wx_policy)wx;
	sys->huge_pages = HX_CONFIG_HUGE_PAGES;
	return HX_OK;
}

/* ---- Stage 2: the bump heap ---- */

/* The first objects of the heap: they outlive the bump allocator. */
static hx_status keep_words(struct hx_system *sys, const struct hx_boot_args *args)
{
	size_t length = args->command_line ? hx_strlen(args->command_line) : 0;
	struct hx_ptr_result line = hx_heap_allocate(&sys->heap, length + 1, 0, HX_HEAP_ZERO);
	if (line.status != HX_OK) {
		return line.status;
	}
	hx_memcpy(line.value, args->command_line, length);
	sys->command_line = line.value;
	struct hx_ptr_result map =
		hx_heap_allocate(&sys->heap, sizeof *sys->firmware_map, 0, HX_HEAP_ZERO);
	sys->firmware_map = map.value;
	return map.status;
}

static hx_status stage2(struct hx_system *sys, const struct hx_boot_args *args)
{
	struct stopwatch w = start_watch(args);
	hx_heap_init(&sys->heap);
	hx_status s = choose(sys, args);
	if (s != HX_OK) {
		return s;
	}
	s = hx_heap_use(&sys->heap, &(struct hx_heap_config){
					    .trait = &hx_heap_bump,
					    .arena = args->arena,
					    .arena_bytes = HX_BOOT_ARENA_BYTES,
				    });
	if (s == HX_OK) {
		s = keep_words(sys, args);
	}
	if (s != HX_OK) {
		return refused(2, s, "bump heap");
	}
	done(sys, &w, 2, "bump heap: %u KiB, static", (unsigned)HX_BOOT_ARENA_BYTES >> 10);
	return HX_OK;
}

/* ---- Stage 3: frame discovery ---- */

/* The words as they came, for people to see; what does not fit is only normalised. */
static unsigned record_words(struct hx_memmap *raw)
{
	unsigned words = 0;
	uint32_t iterator = 0;
	struct hx_memory_range r;
	while (hx_hal_memory_next(&iterator, &r)) {
		if (raw->count < HX_MEMMAP_REGIONS_MAX) {
			raw->regions[raw->count++] = r;
		}
		words++;
	}
	return words;
}

/* The boot CPU becomes CPU 0. Of more than HX_CPUS_MAX the last ones are left out. */
static void read_cpus(struct hx_system *sys)
{
	uint32_t iterator = 0;
	struct hx_cpu_info c;
	while (hx_hal_cpu_next(&iterator, &c)) {
		if (c.boot && sys->cpu_count > 0) {
			struct hx_cpu_info first = sys->cpus[0];
			sys->cpus[0] = c;
			c = first;
		}
		if (sys->cpu_count < HX_CPUS_MAX) {
			sys->cpus[sys->cpu_count++] = c;
		}
	}
}

/*
 * Whatever firmware says: the image is the kernel's, frame 0 nobody's, and what
 * the MMU cannot address does not exist.
 */
static hx_status protect_own(struct hx_system *sys, const struct hx_boot_args *args)
{
	uint64_t top = UINT64_C(1) << hx_hal_geometry.pa_bits;
	struct hx_memory_range frame0 = {hx_pa(0), HX_FRAME_BYTES, HX_MEMORY_RESERVED, 0};
	struct hx_memory_range beyond = {hx_pa(top), -top, HX_MEMORY_RESERVED, 0};
	hx_status s = hx_memmap_add(&sys->map, frame0);
	if (s == HX_OK && hx_memmap_ram_end(&sys->map).v > top) {
		s = hx_memmap_add(&sys->map, beyond);
	}
	for (unsigned i = 0; s == HX_OK && i < args->section_count; i++) {
		const struct hx_image_section *p = &args->sections[i];
		const struct hx_memory_range *in = hx_memmap_find(&sys->map, p->pa);
		s = hx_memmap_add(&sys->map,
				  (struct hx_memory_range){p->pa, p->bytes, HX_MEMORY_KERNEL,
							   in ? in->node : 0});
	}
	return s;
}

static hx_status stage3(struct hx_system *sys, const struct hx_boot_args *args)
{
	struct stopwatch w = start_watch(args);
	unsigned words = record_words(sys->firmware_map);
	read_cpus(sys);
	hx_memmap_init(&sys->map);
	hx_status s = hx_memmap_read_firmware(&sys->map);
	if (s != HX_OK) {
		return refused(3, s, "firmware's memory map does not fit");
	}
	s = protect_own(sys, args);
	if (s != HX_OK) {
		return refused(3, s, "kernel image");
	}
	s = hx_memmap_validate(&sys->map);
	if (s != HX_OK) {
		return refused(3, s, "normalised map");
	}
	uint64_t ram = hx_memmap_total(&sys->map, HX_MEMORY_RAM);
	if (ram == 0) {
		return refused(3, HX_OUT_OF_MEMORY, "firmware names no usable RAM");
	}
	done(sys, &w, 3, "%u words of firmware, %u regions, %llu MiB of free RAM, %u CPUs", words,
	     sys->map.count, mib(ram), sys->cpu_count);
	return HX_OK;
}

/* ---- Stage 4: physical allocator ---- */

static uint64_t lower(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static hx_status stage4(struct hx_system *sys, const struct hx_boot_args *args)
{
	struct stopwatch w = start_watch(args);
	/* The direct map takes the lower half of the kernel half. */
	sys->direct_bytes = UINT64_C(1) << (hx_hal_geometry.va_bits - 2);
	uint64_t window = lower(hx_hal_boot_window_bytes, sys->direct_bytes);
	struct hx_pa end = hx_memmap_ram_end(&sys->map);

	uint64_t directory_bytes = hx_framedb_directory_bytes(end);
	struct hx_pa_result directory =
		hx_memmap_take(&sys->map, directory_bytes, HX_FRAME_BYTES, hx_pa(window));
	if (directory.status != HX_OK) {
		return refused(4, directory.status, "RAM too small for the frame database");
	}
	hx_status s = hx_frames_init(&sys->frames,
				     &(struct hx_frames_config){
					     .physical = sys->physical,
					     .backing = sys->backing,
					     .direct_limit = hx_pa(sys->direct_bytes),
					     .metadata_limit = hx_pa(window),
					     .free_limit = hx_pa(window),
				     },
				     &sys->map);
	if (s != HX_OK) {
		return refused(4, s, "RAM too small for the physical allocator of the profile");
	}
	s = hx_framedb_init(&sys->framedb, &sys->frames, hx_ptr(directory.value), end);
	if (s != HX_OK) {
		return refused(4, s, "frame database");
	}
	done(sys, &w, 4, "%s%s%s: %llu frames free in %u zones", sys->physical->name,
	     sys->backing ? " over " : "", sys->backing ? sys->backing->name : "",
	     (unsigned long long)hx_frames_free_frames(&sys->frames), sys->frames.zone_count);
	return HX_OK;
}

/* ---- Stage 5: kernel page table ---- */

/* Root entries that later spaces must share: dynamic window and image. */
static hx_status prepare_windows(struct hx_system *sys, const struct hx_boot_args *args)
{
	const struct hx_geometry *g = &hx_hal_geometry;
	sys->dynamic_base = hx_va(hx_kernel_start() + (uintptr_t)sys->direct_bytes);
	/* One root entry's worth. */
	sys->dynamic_bytes = UINT64_C(1) << (g->va_bits - g->bits[g->levels - 1]);
	hx_status s =
		hx_pagetable_prepare(&sys->kernel_table, sys->dynamic_base, sys->dynamic_bytes);
	for (unsigned i = 0; s == HX_OK && i < args->section_count; i++) {
		s = hx_pagetable_prepare(&sys->kernel_table, args->sections[i].va,
					 args->sections[i].bytes);
	}
	return s;
}

/* RAM that the boot window did not reach is mapped now, or HIGH: it may be handed out. */
static hx_status donate_high_memory(struct hx_system *sys)
{
	uint64_t window = lower(hx_hal_boot_window_bytes, sys->direct_bytes) >> HX_FRAME_SHIFT;
	for (unsigned i = 0; i < sys->map.count; i++) {
		const struct hx_memory_range *r = &sys->map.regions[i];
		uint64_t first = hx_pa_to_pfn(r->base).v;
		uint64_t end = first + (r->bytes >> HX_FRAME_SHIFT);
		first = first > window ? first : window;
		if (r->type != HX_MEMORY_RAM || first >= end) {
			continue;
		}
		hx_status s = hx_frames_donate(&sys->frames, hx_pfn(first), end - first);
		if (s != HX_OK) {
			return s;
		}
	}
	return HX_OK;
}

static hx_status build_kernel_table(struct hx_system *sys, const struct hx_boot_args *args)
{
	hx_status s = hx_pagetable_init(&sys->kernel_table, &(struct hx_pagetable_config){
								    .frames = &sys->frames,
								    .db = &sys->framedb,
								    .wx = sys->wx,
								    .huge = sys->huge_pages,
							    });
	if (s == HX_OK) {
		s = hx_pagetable_direct(&sys->kernel_table, sys->direct_bytes);
	}
	if (s == HX_OK) {
		s = hx_boot_map_image(sys, args);
	}
	if (s == HX_OK) {
		s = hx_boot_map_direct(sys, args);
	}
	if (s == HX_OK) {
		s = hx_boot_map_devices(sys, args);
	}
	if (s == HX_OK) {
		s = prepare_windows(sys, args);
	}
	return s;
}

struct leaf_count {
	uint64_t pages, huge, writable_executable;
};

static bool count_leaf(void *context, struct hx_va va, struct hx_pa pa, uint64_t bytes,
		       uint64_t flags)
{
	(void)va;
	(void)pa;
	(void)bytes;
	struct leaf_count *c = context;
	c->pages += !(flags & HX_PAGE_HUGE);
	c->huge += (flags & HX_PAGE_HUGE) != 0;
	c->writable_executable += (flags & HX_PAGE_WRITABLE) && !(flags & HX_PAGE_NO_EXECUTE);
	return true;
}

static hx_status stage5(struct hx_system *sys, const struct hx_boot_args *args)
{
	struct stopwatch w = start_watch(args);
	hx_status s = build_kernel_table(sys, args);
	if (s != HX_OK) {
		return refused(5, s, "kernel page table");
	}
	hx_pagetable_seal(&sys->kernel_table);
	hx_pagetable_load(&sys->kernel_table, NULL);
	s = donate_high_memory(sys);
	if (s != HX_OK) {
		return refused(5, s, "RAM beyond the boot window");
	}
	s = hx_pagetable_validate(&sys->kernel_table);
	if (s != HX_OK) {
		return refused(5, s, "kernel page table's validator");
	}
	struct leaf_count leaves = {0, 0, 0};
	hx_pagetable_visit(&sys->kernel_table, count_leaf, &leaves);
	done(sys, &w, 5,
	     "MMU on our tables: %u levels%s, %llu tables, %llu huge and %llu small leaves, %llu "
	     "writable and executable",
	     hx_hal_geometry.levels, hx_hal_geometry.group_bits > 0 ? ", leaves in groups" : "",
	     (unsigned long long)hx_pagetable_counters(&sys->kernel_table).tables,
	     (unsigned long long)leaves.huge, (unsigned long long)leaves.pages,
	     (unsigned long long)leaves.writable_executable);
	return HX_OK;
}

/* ---- Stage 6: kernel heap; the bump arena retires ---- */

/* Physical address of byte @va of the image. */
static bool image_pa(const struct hx_boot_args *args, uintptr_t va, struct hx_pa *out)
{
	for (unsigned i = 0; i < args->section_count; i++) {
		const struct hx_image_section *s = &args->sections[i];
		if (va - s->va.v < s->bytes) {
			*out = hx_pa(s->pa.v + (va - s->va.v));
			return true;
		}
	}
	return false;
}

/*
 * Whole frames of the arena that were never handed out leave the image mapping
 * and go to the frame allocator. Objects handed out stay where they are, and
 * hx_heap_free() keeps taking them.
 */
static hx_status donate_arena(struct hx_system *sys, const struct hx_boot_args *args)
{
	const uint8_t *top = hx_heap_bump_top(&sys->heap.backends[0]);
	sys->bump_used_bytes = (uint64_t)(top - (const uint8_t *)args->arena);
	uint64_t kept = hx_align_down(sys->bump_used_bytes + HX_FRAME_BYTES - 1, HX_FRAME_BYTES);
	uint64_t rest = HX_BOOT_ARENA_BYTES - kept;
	struct hx_va va = hx_va(args->arena_va.v + (uintptr_t)kept);
	struct hx_pa pa;
	if (rest == 0 || !image_pa(args, va.v, &pa)) {
		return HX_OK;
	}
	hx_status s = hx_unmap(&sys->kernel_table, va, rest, NULL, NULL);
	if (s != HX_OK) {
		return s;
	}
	s = hx_frames_donate(&sys->frames, hx_pa_to_pfn(pa), rest >> HX_FRAME_SHIFT);
	if (s != HX_OK) {
		return s;
	}
	sys->bump_donated_bytes = rest;
	return hx_heap_bump_cut(&sys->heap.backends[0], kept);
}

static hx_status use_heap(struct hx_system *sys)
{
	return hx_heap_use(&sys->heap,
			   &(struct hx_heap_config){
				   .trait = sys->heap_trait,
				   .frames = &sys->frames,
				   .db = &sys->framedb,
				   .limit_bytes = (uint64_t)HX_CONFIG_HEAP_LIMIT_KB << 10,
			   });
}

static enum hx_outcome relieve(void *context, const struct hx_incident *incident)
{
	uint64_t wanted = (incident->bytes + HX_FRAME_BYTES - 1) >> HX_FRAME_SHIFT;
	return hx_pressure_raise(context, wanted > 0 ? wanted : 1) ? HX_OUTCOME_RETRY
								   : HX_OUTCOME_RETURN;
}

static bool raise_pressure(void *context, uint64_t frames_wanted)
{
	return hx_pressure_raise(context, frames_wanted);
}

static uint64_t shrink_heap(void *context, const struct hx_pressure_event *event)
{
	(void)event;
	return hx_heap_shrink(context);
}

/* Recovery, pressure and capabilities: what the full stack has beside memory. */
static hx_status start_services(struct hx_system *sys)
{
	hx_recovery_init(&sys->recovery);
	hx_pressure_init(&sys->pressure, &sys->frames);
	hx_pressure_attach(&sys->pressure);
	sys->heap.pressure = raise_pressure;
	sys->heap.pressure_context = &sys->pressure;
	hx_status s = hx_pressure_register(&sys->pressure, "heap", 100, shrink_heap, &sys->heap);
	if (s == HX_OK) {
		s = hx_recovery_register(&sys->recovery, HX_STRATEGY_PRESSURE, relieve,
					 &sys->pressure);
	}
	if (s != HX_OK) {
		return s;
	}
	struct hx_ptr_result slots = hx_heap_allocate_array(&sys->heap, CAPABILITY_SLOTS,
							    sizeof(struct hx_capability), 0);
	if (slots.status != HX_OK) {
		return slots.status;
	}
	s = hx_capability_init(&sys->capabilities, slots.value, CAPABILITY_SLOTS);
	if (s != HX_OK) {
		return s;
	}
	struct hx_token_result token = hx_capability_create(&sys->capabilities, sys, HX_RIGHTS_ALL);
	sys->root_token = token.value;
	return token.status;
}

static hx_status stage6(struct hx_system *sys, const struct hx_boot_args *args)
{
	struct stopwatch w = start_watch(args);
	hx_status s = use_heap(sys);
	if (s != HX_OK) {
		return refused(6, s, "kernel heap");
	}
	s = donate_arena(sys, args);
	if (s != HX_OK) {
		return refused(6, s, "giving the bump arena's rest to the frames");
	}
	s = start_services(sys);
	if (s != HX_OK) {
		return refused(6, s, "recovery services");
	}
	done(sys, &w, 6, "%s heap; bump retired: %llu bytes stay, %llu KiB given to the frames",
	     hx_heap_name(&sys->heap), (unsigned long long)sys->bump_used_bytes,
	     (unsigned long long)sys->bump_donated_bytes >> 10);
	return HX_OK;
}

/* ---- All of it ---- */

hx_status hx_boot(struct hx_system *sys, const struct hx_boot_args *args)
{
	if (!sys || !args || !args->arena || (args->section_count > 0 && !args->sections) ||
	    (args->device_count > 0 && !args->devices)) {
		return HX_INVALID_ARGUMENT;
	}
	hx_memset(sys, 0, sizeof *sys);
	static hx_status (*const stages[])(struct hx_system *, const struct hx_boot_args *) = {
		stage2, stage3, stage4, stage5, stage6,
	};
	hx_hal_mmu_init();
	sys->stage = 1;
	for (unsigned i = 0; i < HX_ARRAY_LENGTH(stages); i++) {
		hx_status s = stages[i](sys, args);
		if (s != HX_OK) {
			return s;
		}
	}
	return HX_OK;
}

void hx_boot_secondary(struct hx_system *sys)
{
	hx_hal_mmu_init();
	hx_pagetable_load(&sys->kernel_table, NULL);
}
