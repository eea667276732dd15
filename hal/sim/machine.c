/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * The simulated machine: memory, the firmware's words, CPUs and interrupts.
 * sim.h describes it; mmu.c is its MMU.
 */
#include <linux/membarrier.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sim_cpu.h"

enum { RANGES_MAX = 1024 };

#define ADDRESS_LIMIT HX_TIB(1024) /* more than any host maps */

/* Do other CPUs' invalidations take an interrupt, or firmware's fences? */
#ifdef HX_SIM_CODEC_X86_64
#define BROADCAST_BY_DEFAULT HX_SIM_OFF
#else
#define BROADCAST_BY_DEFAULT HX_SIM_ON
#endif
#if defined(HX_SIM_CODEC_X86_64) || defined(HX_SIM_PLAIN_STORES)
#define STORES_ARE_LATE false /* total store order, or nobody to delay them */
#else
#define STORES_ARE_LATE true
#endif

#ifdef HX_RV_N
#define GROUP_BITS HX_RV_GROUP_BITS
#else
#define GROUP_BITS 0
#endif

enum { LEAVE_MS_MAX = 10000 };

uintptr_t hx_hal_direct_offset;
uint64_t hx_hal_boot_window_bytes;
struct hx_geometry hx_hal_geometry;

struct sim_cpu sim_cpus[HX_CPUS_MAX];
struct hx_sim_counters sim_counters;
struct sim_switches sim_switches;
unsigned sim_cpus_end;

static struct {
	struct hx_memory_range ranges[RANGES_MAX];
	unsigned range_count;
	struct hx_cpu_info cpus[HX_CPUS_MAX];
	unsigned cpu_count;
	void *memory;
	uint64_t memory_end;
	struct hx_geometry geometry;
} machine;

/* Guards the ownership of CPU numbers. */
static pthread_mutex_t cpus_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t thread_end;
_Thread_local struct sim_cpu *hx_sim_this_cpu;
_Thread_local unsigned hx_sim_number;

static void play(struct sim_cpu *cpu)
{
	hx_sim_this_cpu = cpu;
	hx_sim_number = cpu->id;
}

void sim_die(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	fputs("sim: ", stderr);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	abort();
}

/* ---- Memory ---- */

static const struct hx_memory_range default_ranges[] = {
	{{0}, HX_MIB(128), HX_MEMORY_RAM, 0},
	{{HX_MIB(128)}, HX_MIB(8), HX_MEMORY_RESERVED, 0},
	{{HX_MIB(136)}, HX_MIB(128), HX_MEMORY_RAM, 0},
	{{HX_GIB(4)}, HX_MIB(64), HX_MEMORY_RAM, 0},
};

static const struct hx_cpu_info default_cpus[] = {
	{0, 0, true}, {1, 0, false}, {2, 0, false}, {3, 0, false}};

static bool has_memory(enum hx_memory_type type)
{
	return type != HX_MEMORY_RESERVED && type != HX_MEMORY_BAD;
}

/* The end of a range, cut where the reservation can no longer reach. */
static uint64_t range_end(const struct hx_memory_range *r)
{
	uint64_t end;
	if (__builtin_add_overflow(r->base.v, r->bytes, &end) || end > ADDRESS_LIMIT) {
		return ADDRESS_LIMIT;
	}
	return end;
}

static void protect(const struct hx_memory_range *r, int protection)
{
	uint64_t first = hx_align_down(r->base.v, HX_FRAME_BYTES), end = range_end(r);
	if (first >= machine.memory_end || r->bytes == 0) {
		return;
	}
	if (end > machine.memory_end) {
		end = machine.memory_end;
	}
	if (mprotect((char *)machine.memory + first, end - first, protection) != 0) {
		sim_die("mprotect of simulated memory failed");
	}
}

static void map_memory(uint64_t end)
{
	if (machine.memory != NULL) {
		munmap(machine.memory, machine.memory_end);
	}
	machine.memory_end = hx_align_down(end + HX_FRAME_BYTES - 1, HX_FRAME_BYTES);
	machine.memory = mmap(NULL, machine.memory_end, PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (machine.memory == MAP_FAILED) {
		sim_die("no room for 0x%llx bytes of simulated memory",
			(unsigned long long)machine.memory_end);
	}
	/* What must not be touched wins over what may. */
	for (unsigned pass = 0; pass < 2; pass++) {
		for (unsigned i = 0; i < machine.range_count; i++) {
			const struct hx_memory_range *r = &machine.ranges[i];
			if (has_memory(r->type) == (pass == 0)) {
				protect(r, pass == 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
			}
		}
	}
	hx_hal_direct_offset = (uintptr_t)machine.memory;
}

bool hx_sim_has_memory(struct hx_pa a, uint64_t bytes)
{
	uint64_t end;
	if (__builtin_add_overflow(a.v, bytes, &end) || end > machine.memory_end) {
		return false;
	}
	uint64_t at = a.v; /* [a, at) is known to have memory */
	for (bool moved = true; moved && at < end;) {
		moved = false;
		for (unsigned i = 0; i < machine.range_count; i++) {
			const struct hx_memory_range *r = &machine.ranges[i];
			uint64_t r_end = range_end(r);
			if (!has_memory(r->type)) {
				if (r->base.v < end && r_end > a.v) {
					return false;
				}
			} else if (r->base.v <= at && at < r_end) {
				at = r_end;
				moved = true;
			}
		}
	}
	return at >= end;
}

static void set_feature(struct hx_geometry *g, uint32_t feature, enum hx_sim_switch to)
{
	if (to == HX_SIM_ON) {
		g->features |= feature;
	} else if (to == HX_SIM_OFF) {
		g->features &= ~feature;
	}
}

/* Does the thread that plays @me play @cpu as well? */
static bool plays(const struct sim_cpu *me, const struct sim_cpu *cpu)
{
	for (const struct sim_cpu *c = me->also; c != NULL && c != me; c = c->also) {
		if (c == cpu) {
			return true;
		}
	}
	return false;
}

void hx_sim_configure(const struct hx_sim_config *c)
{
	const struct hx_memory_range *ranges = default_ranges;
	unsigned range_count = HX_ARRAY_LENGTH(default_ranges);
	if (c->range_count > 0) {
		ranges = c->ranges;
		range_count = c->range_count;
	}
	const struct hx_cpu_info *cpus = default_cpus;
	unsigned cpu_count = HX_ARRAY_LENGTH(default_cpus);
	if (c->cpu_count > 0) {
		cpus = c->cpus;
		cpu_count = c->cpu_count;
	}
	if (range_count > RANGES_MAX || cpu_count > HX_CPUS_MAX) {
		sim_die("%u ranges and %u CPUs are too many", range_count, cpu_count);
	}
	memcpy(machine.ranges, ranges, range_count * sizeof *ranges);
	memcpy(machine.cpus, cpus, cpu_count * sizeof *cpus);
	machine.range_count = range_count;
	machine.cpu_count = cpu_count;

	uint64_t end = c->memory_end;
	for (unsigned i = 0; i < range_count && c->memory_end == 0; i++) {
		uint64_t r_end = range_end(&ranges[i]);
		if (has_memory(ranges[i].type) && r_end < ADDRESS_LIMIT && r_end > end) {
			end = r_end;
		}
	}
	map_memory(end);
	hx_hal_boot_window_bytes = c->boot_window_bytes != 0 ? c->boot_window_bytes : HX_GIB(4);

	struct hx_geometry *g = &machine.geometry;
	*g = hx_pte_geometry(c->levels != 0 ? c->levels : HX_SIM_LEVELS);
	if (c->bits[0] != 0) {
		memcpy(g->bits, c->bits, sizeof g->bits);
		g->va_bits = g->page_shift;
		for (unsigned l = 0; l < g->levels; l++) {
			g->va_bits += g->bits[l];
		}
	}
	g->asid_bits = c->asid_bits;
	if (c->leaf_levels != 0) {
		g->leaf_levels &= c->leaf_levels;
	}
	if (c->groups == HX_SIM_ON) {
		g->group_bits = GROUP_BITS;
	}
	set_feature(g, HX_MMU_BROADCAST, BROADCAST_BY_DEFAULT);
	set_feature(g, HX_MMU_BROADCAST, c->broadcast);
	set_feature(g, HX_MMU_HARDWARE_AD, c->hardware_ad);
	set_feature(g, HX_MMU_USER_GUARD, c->user_guard);
	set_feature(g, HX_MMU_BREAK_BEFORE_MAKE, c->break_before_make);
	sim_switches = (struct sim_switches){
		.late_stores = c->late_stores == HX_SIM_DEFAULT ? STORES_ARE_LATE
								: c->late_stores == HX_SIM_ON,
		.break_before_make = (g->features & HX_MMU_BREAK_BEFORE_MAKE) != 0,
		.prefetch = c->prefetch != HX_SIM_OFF,
		.speculative_accessed = c->speculative_accessed == HX_SIM_ON,
	};
	sim_stores_reset();
	/* The MMU is off: portable code knows the geometry once it turned it on. */
	memset(&hx_hal_geometry, 0, sizeof hx_hal_geometry);
	memset(&sim_counters, 0, sizeof sim_counters);

	pthread_mutex_lock(&cpus_lock);
	struct sim_cpu *me = hx_sim_this_cpu != NULL ? hx_sim_this_cpu : &sim_cpus[0];
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		/* A thread that has left its entry function gives its CPU back a little later. */
		unsigned waited = 0;
		while (sim_cpus[i].owned && &sim_cpus[i] != me && !plays(me, &sim_cpus[i])) {
			if (waited++ == LEAVE_MS_MAX) {
				sim_die("CPU %u runs while the machine is configured", i);
			}
			pthread_mutex_unlock(&cpus_lock);
			(void)usleep(1000);
			pthread_mutex_lock(&cpus_lock);
		}
	}
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		struct sim_cpu *cpu = &sim_cpus[i];
		cpu->id = i;
		cpu->owned = false;
		cpu->irq_off = cpu->user_access = cpu->mmu_on = false;
		cpu->ipi = cpu->wake = false;
		cpu->root_loaded = false;
		cpu->also = NULL;
		cpu->random = (c->seed != 0 ? c->seed : 1) * (i + 1);
		sim_tlb_reset(&cpu->tlb);
	}
	sim_cpus[0].owned = true;
	play(&sim_cpus[0]);
	sim_cpus_end = 1;
	pthread_mutex_unlock(&cpus_lock);
}

bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	if (*iterator >= machine.range_count) {
		return false;
	}
	*out = machine.ranges[(*iterator)++];
	return true;
}

bool hx_hal_cpu_next(uint32_t *iterator, struct hx_cpu_info *out)
{
	if (*iterator >= machine.cpu_count) {
		return false;
	}
	*out = machine.cpus[(*iterator)++];
	return true;
}

/* ---- CPUs ---- */

/* The thread lets go of its CPUs; the next thread to take one finds it as new. */
static void release_cpu(void *argument)
{
	struct sim_cpu *first = argument, *cpu = first, *next;
	pthread_mutex_lock(&cpus_lock);
	do {
		sim_publish(cpu);
		pthread_mutex_lock(&cpu->lock);
		cpu->root_loaded = false;
		sim_tlb_reset(&cpu->tlb);
		pthread_mutex_unlock(&cpu->lock);
		cpu->irq_off = cpu->user_access = cpu->mmu_on = false;
		cpu->ipi = cpu->wake = false;
		next = cpu->also;
		cpu->also = NULL;
		cpu->owned = false;
		cpu = next;
	} while (cpu != NULL && cpu != first);
	pthread_mutex_unlock(&cpus_lock);
}

/* Make this thread the CPU; false when another one is. */
static bool take_cpu(struct sim_cpu *cpu)
{
	pthread_mutex_lock(&cpus_lock);
	bool taken = !cpu->owned;
	if (taken) {
		cpu->owned = true;
		play(cpu);
		pthread_setspecific(thread_end, cpu);
		if (cpu->id >= sim_cpus_end) {
			__atomic_store_n(&sim_cpus_end, cpu->id + 1, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&cpus_lock);
	return taken;
}

struct sim_cpu *sim_this_cpu(void)
{
	for (unsigned i = 1; hx_sim_this_cpu == NULL; i++) {
		if (i == HX_CPUS_MAX) {
			sim_die("more than %u threads play CPUs", HX_CPUS_MAX);
		}
		(void)take_cpu(&sim_cpus[i]);
	}
	return hx_sim_this_cpu;
}

struct start {
	struct sim_cpu *cpu;
	void (*entry)(void *argument);
	void *argument;
	int taken; /* 0: not known yet, 1: yes, -1: no */
	pthread_mutex_t lock;
	pthread_cond_t known;
};

static void *run_cpu(void *argument)
{
	struct start *s = argument;
	void (*entry)(void *) = s->entry;
	void *entry_argument = s->argument;
	bool taken = take_cpu(s->cpu);
	pthread_mutex_lock(&s->lock);
	s->taken = taken ? 1 : -1;
	pthread_cond_signal(&s->known);
	pthread_mutex_unlock(&s->lock); /* s is the starter's: gone from here on */
	if (taken) {
		entry(entry_argument);
	}
	return NULL;
}

bool hx_sim_cpu_start(unsigned cpu, void (*entry)(void *argument), void *argument)
{
	if (cpu >= HX_CPUS_MAX) {
		return false;
	}
	struct start s = {
		.cpu = &sim_cpus[cpu],
		.entry = entry,
		.argument = argument,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.known = PTHREAD_COND_INITIALIZER,
	};
	pthread_t thread;
	pthread_attr_t detached;
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &detached, run_cpu, &s) != 0) {
		sim_die("no thread for CPU %u", cpu);
	}
	pthread_attr_destroy(&detached);
	pthread_mutex_lock(&s.lock);
	while (s.taken == 0) {
		pthread_cond_wait(&s.known, &s.lock);
	}
	pthread_mutex_unlock(&s.lock);
	return s.taken > 0;
}

void hx_sim_play(unsigned id)
{
	struct sim_cpu *me = sim_this_cpu(), *cpu = &sim_cpus[id];
	if (cpu == me) {
		return;
	}
	if (!plays(me, cpu)) {
		if (!take_cpu(cpu)) {
			sim_die("CPU %u is another thread's", id);
		}
		/* A ring of all that the thread plays. */
		cpu->also = me->also != NULL ? me->also : me;
		me->also = cpu;
	}
	play(cpu);
}

unsigned hx_sim_cpu_id(void)
{
	return sim_this_cpu()->id;
}

/* ---- Interrupts ---- */

void sim_deliver(struct sim_cpu *cpu)
{
	while (!cpu->irq_off && __atomic_exchange_n(&cpu->ipi, false, __ATOMIC_ACQ_REL)) {
		cpu->irq_off = true;
		hx_upcall_tlb_ipi();
		cpu->irq_off = false;
	}
}

unsigned long hx_hal_irq_save(void)
{
	struct sim_cpu *cpu = sim_this_cpu();
	sim_deliver(cpu); /* it may just as well have come now */
	bool on = !cpu->irq_off;
	cpu->irq_off = true;
	return on;
}

void hx_hal_irq_restore(unsigned long state)
{
	struct sim_cpu *cpu = sim_this_cpu();
	if (state != 0) {
		cpu->irq_off = false;
		sim_deliver(cpu);
	}
}

void hx_hal_relax(void)
{
	struct sim_cpu *me = sim_this_cpu();
	sim_deliver(me);
	if (me->also == NULL) {
		sched_yield(); /* whom this CPU waits for may lack a host core */
		return;
	}
	for (struct sim_cpu *cpu = me->also; cpu != me; cpu = cpu->also) {
		play(cpu);
		sim_deliver(cpu);
	}
	play(me);
}

void hx_sim_wake(unsigned id)
{
	struct sim_cpu *cpu = &sim_cpus[id];
	pthread_mutex_lock(&cpu->sleep_lock);
	cpu->wake = true;
	pthread_cond_signal(&cpu->sleep);
	pthread_mutex_unlock(&cpu->sleep_lock);
}

void hx_sim_sleep(void)
{
	struct sim_cpu *cpu = sim_this_cpu();
	pthread_mutex_lock(&cpu->sleep_lock);
	while (!cpu->wake && !__atomic_load_n(&cpu->ipi, __ATOMIC_ACQUIRE)) {
		pthread_cond_wait(&cpu->sleep, &cpu->sleep_lock);
	}
	cpu->wake = false;
	pthread_mutex_unlock(&cpu->sleep_lock);
	sim_deliver(cpu);
}

static void register_for_barriers(void)
{
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) {
		sim_die("the host has no membarrier()");
	}
}

void hx_sim_barrier(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, register_for_barriers);
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
		sim_die("no barrier");
	}
}

void hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		if (!hx_cpus_has(cpus, i)) {
			continue;
		}
		struct sim_cpu *cpu = &sim_cpus[i];
		sim_count(&sim_counters.ipis);
		pthread_mutex_lock(&cpu->sleep_lock);
		__atomic_store_n(&cpu->ipi, true, __ATOMIC_RELEASE);
		pthread_cond_signal(&cpu->sleep);
		pthread_mutex_unlock(&cpu->sleep_lock);
	}
}

bool hx_hal_fault_decode(const void *frame, struct hx_fault *out)
{
	/* The machine's trap frame is the fault itself. */
	*out = *(const struct hx_fault *)frame;
	return true;
}

void hx_hal_mmu_init(void)
{
	struct sim_cpu *cpu = sim_this_cpu();
	if (cpu->id == 0) {
		hx_hal_geometry = machine.geometry;
	}
	cpu->mmu_on = true;
}

struct hx_sim_counters hx_sim_counters(void)
{
	const uint64_t *from = (const uint64_t *)&sim_counters;
	struct hx_sim_counters out = {0};
	uint64_t *to = (uint64_t *)&out;
	for (unsigned i = 0; i < sizeof out / sizeof *to; i++) {
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	}
	return out;
}

/* The machine stands before main() and before any other constructor of the program's. */
__attribute__((constructor(101))) static void power_on(void)
{
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		pthread_mutex_init(&sim_cpus[i].sleep_lock, NULL);
		pthread_cond_init(&sim_cpus[i].sleep, NULL);
		pthread_mutex_init(&sim_cpus[i].lock, NULL);
	}
	if (pthread_key_create(&thread_end, release_cpu) != 0) {
		sim_die("no thread-local key");
	}
	hx_sim_configure(&(struct hx_sim_config){0});
}
