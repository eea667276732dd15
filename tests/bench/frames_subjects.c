/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The subjects of the frames suite, and the machine that they run on; see frames.h. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <sim.h>

#include "frames.h"

_Noreturn void frames_die(const char *subject, const char *what)
{
	fprintf(stderr, "bench-frames: %s: %s\n", subject, what);
	exit(1);
}

/* ---- The machine ---- */

void *frames_memory(uint64_t bytes)
{
	uint64_t unit = bytes < HX_MIB(2) ? HX_FRAME_BYTES : HX_MIB(2), whole;
	void *p = NULL;
	if (hx_align_up(bytes != 0 ? bytes : 1, unit, &whole) && (p = aligned_alloc(unit, whole))) {
		if (unit == HX_MIB(2)) {
			(void)madvise(p, whole, MADV_HUGEPAGE);
		}
		return memset(p, 0, whole);
	}
	frames_die("memory", "the host has none left");
}

void frames_pause(unsigned tries)
{
	/* Whom this one waits for may lack a host core. */
	if (tries % 256 == 255) {
		sched_yield();
	}
#if defined(__x86_64__)
	__builtin_ia32_pause();
#endif
}

uint64_t frames_monotonic_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void frames_meet(struct frames_gate *g, unsigned cpus)
{
	uint32_t generation = __atomic_load_n(&g->generation, __ATOMIC_ACQUIRE);
	if (__atomic_add_fetch(&g->arrived, 1, __ATOMIC_ACQ_REL) == cpus) {
		__atomic_store_n(&g->arrived, 0, __ATOMIC_RELAXED);
		/* Nobody opens it again before all have gone on, and read this. */
		g->opened = frames_monotonic_ns();
		__atomic_store_n(&g->generation, generation + 1, __ATOMIC_RELEASE);
		return;
	}
	for (unsigned tries = 0; __atomic_load_n(&g->generation, __ATOMIC_ACQUIRE) == generation;
	     tries++) {
		frames_pause(tries);
	}
}

/* Threads that play CPUs 1 and up, started when first needed, asleep between calls. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned started; /* CPUs, the caller's included */
	uint64_t calls;
	unsigned wanted, running;
	void (*body)(void *context, unsigned cpu);
	void *context;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .started = 1};

static void play(void *argument)
{
	unsigned cpu = (unsigned)(uintptr_t)argument;
	pthread_mutex_lock(&pool.lock);
	for (uint64_t seen = 0;;) {
		while (pool.calls == seen || cpu >= pool.wanted) {
			seen = pool.calls;
			pthread_cond_wait(&pool.changed, &pool.lock);
		}
		seen = pool.calls;
		pthread_mutex_unlock(&pool.lock);
		pool.body(pool.context, cpu);
		pthread_mutex_lock(&pool.lock);
		pool.running--;
		pthread_cond_broadcast(&pool.changed);
	}
}

void frames_on_cpus(unsigned cpus, void (*body)(void *context, unsigned cpu), void *context)
{
	for (; pool.started < cpus; pool.started++) {
		if (!hx_sim_cpu_start(pool.started, play, (void *)(uintptr_t)pool.started)) {
			frames_die("machine", "a CPU is taken");
		}
	}
	pthread_mutex_lock(&pool.lock);
	pool.body = body;
	pool.context = context;
	pool.wanted = cpus;
	pool.running = cpus - 1;
	pool.calls++;
	pthread_cond_broadcast(&pool.changed);
	pthread_mutex_unlock(&pool.lock);
	body(context, 0);
	pthread_mutex_lock(&pool.lock);
	while (pool.running != 0) {
		pthread_cond_wait(&pool.changed, &pool.lock);
	}
	pthread_mutex_unlock(&pool.lock);
}

/* ---- Subjects ---- */

static const struct {
	const char *name, *trait, *backing;
} traits[] = {
	{"bitmap", "bitmap", NULL},
	{"buddy", "buddy", NULL},
	{"slab-over-bitmap", "slab", "bitmap"},
	{"slab-over-buddy", "slab", "buddy"},
	{"tree", "tree", NULL},
};

const struct frames_subject *frames_subject_at(unsigned i)
{
	static struct frames_subject built_in[HX_ARRAY_LENGTH(traits)];
	if (i < FRAMES_BASELINES) {
		return &frames_baselines[i];
	}
	i -= FRAMES_BASELINES;
	for (unsigned k = 0; k < HX_ARRAY_LENGTH(traits); k++) {
		const struct hx_frame_trait *t = hx_frame_trait_find(traits[k].trait);
		const struct hx_frame_trait *under = hx_frame_trait_find(traits[k].backing);
		if (t != NULL && (under != NULL || traits[k].backing == NULL) && i-- == 0) {
			built_in[k] = (struct frames_subject){
				.name = traits[k].name, .trait = t, .backing = under};
			return &built_in[k];
		}
	}
	return NULL;
}

static void must(const struct frames_subject *s, hx_status status)
{
	if (status != HX_OK) {
		frames_die(s->name, hx_status_name(status));
	}
}

static void lay_out(const struct frames_subject *s, struct hx_frame_allocator *a,
		    const struct hx_frame_trait *t, struct hx_frame_allocator *backing,
		    uint64_t frames)
{
	*a = (struct hx_frame_allocator){
		.trait = t, .base = FRAMES_BASE, .span_frames = frames, .backing = backing};
	a->metadata_bytes = t->metadata_bytes(FRAMES_BASE, frames);
	if (a->metadata_bytes == 0) {
		frames_die(s->name, "cannot have this span");
	}
	a->metadata = frames_memory(a->metadata_bytes);
	memset(a->metadata, 0x55, a->metadata_bytes); /* init may not count on zeros */
}

static void layers(struct frames_instance *i, const struct frames_subject *s, uint64_t frames)
{
	*i = (struct frames_instance){.subject = s, .frames = frames};
	i->a = &i->front;
	if (s->backing) {
		lay_out(s, &i->under, s->backing, NULL, frames);
	}
	lay_out(s, &i->front, s->trait, s->backing ? &i->under : NULL, frames);
}

static void bring_up(struct frames_instance *i)
{
	const struct frames_subject *s = i->subject;
	if (s->backing) {
		must(s, s->backing->init(&i->under));
	}
	must(s, s->trait->init(&i->front));
	must(s, s->trait->add(&i->front, hx_pfn(FRAMES_BASE), i->frames));
}

void frames_create(struct frames_instance *i, const struct frames_subject *s, uint64_t frames,
		   unsigned cpus)
{
	layers(i, s, frames);
	bring_up(i);
	if (s->deal) {
		s->deal(&i->front, cpus);
	}
}

void frames_destroy(struct frames_instance *i)
{
	free(i->front.metadata);
	free(i->under.metadata);
}

uint64_t frames_obtainable(struct frames_instance *i, unsigned order)
{
	struct hx_frame_allocator *a = i->a;
	uint64_t n = 0, most = i->frames >> order;
	if (i->subject->deal) {
		return a->trait->free_frames(a) >> order; /* only this CPU's could be had */
	}
	struct hx_pfn *all = frames_memory(most * sizeof *all);
	for (; n < most; n++) {
		struct hx_pfn_result r = frames_get(a, order);
		if (r.status != HX_OK) {
			break;
		}
		all[n] = r.value;
	}
	for (uint64_t k = 0; k < n; k++) {
		frames_put(a, all[k], order);
	}
	free(all);
	return n;
}

const char *frames_all_free(struct frames_instance *i)
{
	struct hx_frame_allocator *a = i->a;
	if (frames_obtainable(i, 0) != i->frames) {
		return "not every frame can be had again";
	}
	a->trait->drain(a);
	if (frames_obtainable(i, HX_ORDER_2M) != i->frames / FRAMES_BLOCK) {
		return "not every 2 MiB block can be had again";
	}
	if (a->trait->free_frames(a) != i->frames) {
		return "it does not count every frame as free";
	}
	if (a->trait->validate && a->trait->validate(a) != HX_OK) {
		return "validate says CORRUPTED";
	}
	return NULL;
}

double frames_metadata_bits(const struct frames_subject *s, uint64_t frames)
{
	uint64_t bytes =
		sizeof(struct hx_frame_allocator) + s->trait->metadata_bytes(FRAMES_BASE, frames);
	if (s->backing) {
		bytes += sizeof(struct hx_frame_allocator) +
			 s->backing->metadata_bytes(FRAMES_BASE, frames);
	}
	return (double)bytes * 8 / (double)frames;
}

double frames_init_ns(const struct frames_subject *s, uint64_t frames)
{
	struct frames_instance i;
	layers(&i, s, frames);
	uint64_t start = bench_clock();
	bring_up(&i);
	double ns = (double)(bench_clock() - start);
	frames_destroy(&i);
	return ns;
}
