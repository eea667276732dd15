/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated machine as a platform. The environment shapes it: HX_SIM_RAM and
 * HX_SIM_CPUS as hx_hosted_configure(), HX_SIM_FEATURES as hx_hosted_features()
 * takes them.
 *
 * The program itself is host code, so the kernel image is a stand-in: frames of
 * simulated RAM, mapped with the rights that a kernel's sections have.
 *
 *      IMAGE_PA   text    1 MiB   r-x     at IMAGE_VA in the kernel half
 *                 rodata 512 KiB  r--
 *                 data   512 KiB  rw-
 *                 guard    4 KiB  ---
 *                 stack   60 KiB  rw-
 *                 arena    4 MiB  rw-     the bump heap
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <mailbox.h>
#include <sim.h>

#include "hosted.h"

#define IMAGE_PA HX_MIB(2)
#define IMAGE_VA UINT64_C(0xffffffff80000000)
#define DEVICE_PA UINT64_C(0xf0000000)
#define RAM_LEAST HX_MIB(16)

const char hx_platform_name[] = "hosted";
const char hx_platform_tick_unit[] = "ns";
const char *hx_hosted_command_line = "";

/* ---- The machine's size ---- */

static bool read_size(const char *text, uint64_t *out)
{
	char *end;
	unsigned long long n = strtoull(text, &end, 10);
	const char *units = "KMGT";
	unsigned shift = 0;
	if (*end != '\0') {
		const char *unit = strchr(units, *end);
		if (unit == NULL || end[1] != '\0') {
			return false;
		}
		shift = 10 * (unsigned)(unit - units + 1);
	}
	if (end == text || n == 0 || n > UINT64_MAX >> shift) {
		return false;
	}
	*out = (uint64_t)n << shift;
	return true;
}

static struct hx_sim_config machine; /* its switches */

enum { ASID_BITS = 12 }; /* of a machine that has them: as x86_64 */

bool hx_hosted_features(const char *words)
{
	static enum hx_sim_switch asids;
	static const struct {
		const char *name;
		enum hx_sim_switch *to;
	} known[] = {
		{"asids", &asids},
		{"broadcast", &machine.broadcast},
		{"hardware-ad", &machine.hardware_ad},
		{"user-guard", &machine.user_guard},
		{"groups", &machine.groups},
		{"late-stores", &machine.late_stores},
		{"prefetch", &machine.prefetch},
	};
	while (words != NULL && *(words += strspn(words, " ")) != '\0') {
		size_t length = strcspn(words, " "), i = 0;
		while (i < HX_ARRAY_LENGTH(known) &&
		       (strlen(known[i].name) + 1 != length ||
			strncmp(words + 1, known[i].name, length - 1) != 0)) {
			i++;
		}
		if (i == HX_ARRAY_LENGTH(known) || (*words != '+' && *words != '-')) {
			return false;
		}
		*known[i].to = *words == '+' ? HX_SIM_ON : HX_SIM_OFF;
		words += length;
	}
	machine.asid_bits = asids == HX_SIM_ON ? ASID_BITS : 0;
	return true;
}

bool hx_hosted_configure(const char *ram, const char *cpus)
{
	uint64_t low = HX_MIB(256), high = HX_MIB(64), count = 4;
	if (ram != NULL) {
		uint64_t total;
		if (!read_size(ram, &total) || total < RAM_LEAST || total > HX_TIB(64)) {
			return false;
		}
		low = total < HX_GIB(2) ? total : HX_GIB(2);
		high = total - low;
	}
	if (cpus != NULL && (!read_size(cpus, &count) || count > HX_CPUS_MAX)) {
		return false;
	}
	uint64_t half = hx_align_down(low / 2, HX_MIB(1)), hole = HX_MIB(8);
	struct hx_memory_range ranges[] = {
		{{0}, half, HX_MEMORY_RAM, 0},
		{{half}, hole, HX_MEMORY_RESERVED, 0},
		{{half + hole}, low - half, HX_MEMORY_RAM, 0},
		{{DEVICE_PA}, HX_FRAME_BYTES, HX_MEMORY_DEVICE, 0},
		{{HX_GIB(4)}, high, HX_MEMORY_RAM, 0},
	};
	struct hx_cpu_info list[HX_CPUS_MAX];
	for (unsigned i = 0; i < count; i++) {
		list[i] = (struct hx_cpu_info){.hardware_id = i, .boot = i == 0};
	}
	struct hx_sim_config c = machine;
	c.ranges = ranges;
	c.range_count = HX_ARRAY_LENGTH(ranges) - (high == 0);
	c.cpus = list;
	c.cpu_count = (unsigned)count;
	hx_sim_configure(&c);
	return true;
}

__attribute__((constructor(102))) static void configure_from_environment(void)
{
	if (!hx_hosted_features(getenv("HX_SIM_FEATURES")) ||
	    !hx_hosted_configure(getenv("HX_SIM_RAM"), getenv("HX_SIM_CPUS"))) {
		fputs("HX_SIM_FEATURES, HX_SIM_RAM or HX_SIM_CPUS makes no machine\n", stderr);
		exit(EXIT_FAILURE);
	}
}

/* ---- Console, exit, clock ---- */

void hx_platform_write(const char *text)
{
	fputs(text, stdout);
	fflush(stdout);
}

_Noreturn void hx_platform_exit(bool well)
{
	fflush(stdout);
	_Exit(well ? EXIT_SUCCESS : EXIT_FAILURE); /* the other CPUs stop where they are */
}

uint64_t hx_platform_ticks(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

/* ---- Boot ---- */

#define SECTION(section, at, size, rights)                                                         \
	{                                                                                          \
		section, {IMAGE_VA + (at)}, {IMAGE_PA + (at)}, size, rights                        \
	}
#define READ_ONLY (HX_PAGE_KERNEL_READ | HX_PAGE_NO_EXECUTE)
#define WRITE (HX_PAGE_KERNEL_WRITE | HX_PAGE_NO_EXECUTE)
#define ARENA_AT (HX_MIB(2) + HX_KIB(64))

const struct hx_boot_args *hx_platform_boot_args(void)
{
	static const struct hx_image_section sections[] = {
		SECTION("text", 0, HX_MIB(1), HX_PAGE_KERNEL_CODE),
		SECTION("rodata", HX_MIB(1), HX_KIB(512), READ_ONLY),
		SECTION("data", HX_KIB(1536), HX_KIB(512), WRITE),
		SECTION("guard", HX_MIB(2), HX_FRAME_BYTES, 0),
		SECTION("stack", HX_MIB(2) + HX_FRAME_BYTES, HX_KIB(60), WRITE),
		SECTION("arena", ARENA_AT, HX_BOOT_ARENA_BYTES, WRITE),
	};
	static const struct hx_device_window devices[] = {
		{"registers", {DEVICE_PA}, HX_FRAME_BYTES}};
	static struct hx_boot_args args = {
		.arena_va = {IMAGE_VA + ARENA_AT},
		.sections = sections,
		.section_count = HX_ARRAY_LENGTH(sections),
		.devices = devices,
		.device_count = HX_ARRAY_LENGTH(devices),
		.ticks = hx_platform_ticks,
		.tick_unit = hx_platform_tick_unit,
	};
	args.command_line = hx_hosted_command_line;
	args.arena = (void *)((uintptr_t)(IMAGE_PA + ARENA_AT) + hx_hal_direct_offset);
	return &args;
}

/* ---- CPUs ---- */

void hx_board_wake(unsigned cpu)
{
	hx_sim_wake(cpu);
}

void hx_board_idle(void)
{
	hx_sim_sleep();
	hx_hal_irq_restore(1); /* what woke it is taken here */
	(void)hx_hal_irq_save();
}

struct secondary {
	struct hx_system *sys;
	unsigned ready; /* atomic */
};

static void run_secondary(void *argument)
{
	struct secondary *s = argument;
	hx_boot_secondary(s->sys);
	hx_mailbox_open();
	__atomic_fetch_add(&s->ready, 1, __ATOMIC_RELEASE); /* s may be gone from here on */
	hx_mailbox_serve();
}

unsigned hx_platform_start_cpus(struct hx_system *sys)
{
	struct secondary s = {sys, 0};
	unsigned started = 0;
	for (unsigned cpu = 1; cpu < sys->cpu_count; cpu++) {
		started += hx_sim_cpu_start(cpu, run_secondary, &s);
	}
	while (__atomic_load_n(&s.ready, __ATOMIC_ACQUIRE) < started) {
		hx_hal_relax();
	}
	return 1 + started;
}

/* ---- Probes ---- */

const uint8_t hx_platform_return_code[] = {'r', 'e', 't', 'u', 'r', 'n', ';', '\0'};
const size_t hx_platform_return_code_bytes = sizeof hx_platform_return_code;

void hx_platform_code_written(void)
{
}

static void check_code(const struct hx_sim_reference *r)
{
	if (r->access == HX_ACCESS_EXECUTE &&
	    memcmp(&r->value, hx_platform_return_code, sizeof r->value) != 0) {
		fprintf(stderr, "hosted: what stands at 0x%llx is no code\n",
			(unsigned long long)r->va.v);
		abort();
	}
}

void hx_platform_probe(struct hx_probe *p)
{
	enum { RETRIES_MAX = 1000 }; /* a fault that is resolved so often is not */
	struct hx_sim_reference r = {
		.va = p->va,
		.access = p->access,
		.user = p->user,
		.bytes = 8,
		.value = p->value,
	};
	for (unsigned i = 0; i < RETRIES_MAX; i++) {
		p->faulted = !hx_sim_access(&r, &p->fault);
		if (!p->faulted) {
			check_code(&r);
			p->value = r.value;
			return;
		}
		if (!hx_upcall_fault(&p->fault)) {
			return;
		}
	}
	fprintf(stderr, "hosted: the fault at 0x%llx is resolved without end\n",
		(unsigned long long)p->va.v);
	abort();
}

bool hx_platform_copy(struct hx_va to, struct hx_va from, uint64_t bytes)
{
	bool whole = true;
	hx_hal_user_access(true);
	for (uintptr_t at = 0; whole && at < bytes; at += sizeof(uint64_t)) {
		struct hx_probe p = {.va = hx_va(from.v + at), .access = HX_ACCESS_READ};
		hx_platform_probe(&p);
		struct hx_probe q = {
			.va = hx_va(to.v + at), .access = HX_ACCESS_WRITE, .value = p.value};
		if (!p.faulted) {
			hx_platform_probe(&q);
		}
		whole = !p.faulted && !q.faulted;
	}
	hx_hal_user_access(false);
	return whole;
}
