/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Address-space identifiers (PCID, ASID): which table runs under which, and when
 * what a CPU has cached under one may be kept.
 *
 * The kernel's tables run under HX_ASID_KERNEL. A user table gets an identifier when
 * it is loaded first, out of a common pool. None is given back: when the pool is
 * empty a new generation begins, in which only the tables that run on some CPU keep
 * theirs. So an identifier names one table in one generation, and a table that ends
 * needs no flush.
 *
 *      token   63 ............. 16 | 15 ........ 0
 *             |    generation      |  identifier  |      0: none yet
 *
 * Where even a new generation has none to give, a table's token has HX_ASID_KERNEL in that
 * place, and it stays so as long as it runs anywhere: it must not run under two.
 *
 * A load whose token is of the present generation takes no lock: it exchanges the
 * CPU's `running` token for the new one. The beginning of a generation takes every
 * CPU's token away, so an exchange that comes too late finds 0 and takes the lock.
 *
 * A CPU that leaves a table keeps what it has cached of it. Its bit stays in the
 * table's `cached` mask, and is set in `stale` when something was invalidated while
 * it was away; the next load there keeps or forgets accordingly (see load.c). With a
 * new identifier the mask is empty: each CPU's first load forgets what another table
 * had cached there under it in an earlier generation.
 *
 * Invariants: no two user tables have tokens of the present generation with one
 * identifier of a user's; a table that runs somewhere has the token with which it runs there.
 *
 * Source: the generations of Linux's arm64 (Deacon 2015) and of Alpha before it.
 */
#include "internal.h"

enum {
	ID_BITS = 16,
	POOL_MAX = 4096, /* more identifiers would be flushed as seldom as to no avail */
};

static struct {
	struct hx_lock lock;
	uint64_t generation; /* in the place that it has in a token; atomic */
	unsigned next;       /* where the search for a free identifier goes on */
	uint64_t used[POOL_MAX / 64];
} pool = {.generation = UINT64_C(1) << ID_BITS};

static struct {
	uint64_t running;  /* token; 0: taken away; atomic */
	uint64_t reserved; /* what it ran when the generation began; under the pool's lock */
} __attribute__((aligned(64))) cpus[HX_CPUS_MAX];

static unsigned pool_size(void)
{
	unsigned bits = hx_hal_geometry.asid_bits;
	return bits == 0 ? 0 : bits >= 12 ? POOL_MAX : 1u << bits;
}

static bool is_present(uint64_t token)
{
	return token != 0 &&
	       ((token ^ __atomic_load_n(&pool.generation, __ATOMIC_SEQ_CST)) >> ID_BITS) == 0;
}

static uint64_t id_of(uint64_t token)
{
	return token & ((UINT64_C(1) << ID_BITS) - 1);
}

static bool take(uint64_t id)
{
	uint64_t bit = UINT64_C(1) << (id & 63), *word = &pool.used[id >> 6];
	bool was_free = (*word & bit) == 0;
	*word |= bit;
	return was_free;
}

static void begin_generation(void)
{
	/* First the number, then the tokens: who still exchanges one by the old is found out. */
	__atomic_store_n(&pool.generation, pool.generation + (UINT64_C(1) << ID_BITS),
			 __ATOMIC_SEQ_CST);
	hx_memset(pool.used, 0, sizeof pool.used);
	(void)take(HX_ASID_KERNEL);
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		uint64_t token = __atomic_exchange_n(&cpus[i].running, 0, __ATOMIC_SEQ_CST);
		/* 0: it has loaded nothing since the generation before. */
		cpus[i].reserved = token != 0 ? token : cpus[i].reserved;
		if (id_of(cpus[i].reserved) < pool_size()) {
			(void)take(id_of(cpus[i].reserved));
		}
	}
}

/*
 * Does @token run somewhere? Then it goes on as @renewed. Those without an identifier are
 * not told apart.
 */
static bool renew_reserved(uint64_t token, uint64_t renewed)
{
	bool found = false;
	for (unsigned i = 0; i < HX_CPUS_MAX; i++) {
		uint64_t reserved = cpus[i].reserved;
		bool none = reserved != 0 && id_of(reserved) == 0 && id_of(token) == 0;
		if (reserved == token || none) {
			cpus[i].reserved = renewed;
			found = true;
		}
	}
	return found;
}

/* @return an identifier, 0 when even a new generation has none */
static uint64_t find_id(void)
{
	unsigned size = pool_size();
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < size; i++) {
			unsigned id = (pool.next + i) % size;
			if (take(id)) {
				pool.next = id + 1;
				return id;
			}
		}
		if (round == 0) {
			begin_generation();
		}
	}
	return 0;
}

/* A token of the present generation for a table whose own is not. Under the lock. */
static uint64_t new_token(struct hx_pagetable *t, uint64_t old)
{
	uint64_t id = id_of(old);
	if (old != 0) {
		uint64_t renewed = pool.generation | id;
		if (renew_reserved(old, renewed)) {
			return renewed;
		}
	}
	(void)take(HX_ASID_KERNEL);
	if (old == 0 || id >= pool_size() || !take(id)) {
		id = find_id();
	}
	/* What CPUs have cached of it is out of reach; what they have under @id is not of it. */
	__atomic_store_n(&t->cached.bits, 0, __ATOMIC_SEQ_CST);
	return pool.generation | id; /* without an identifier, too: then it has none anywhere */
}

uint16_t hx_asid_enter(struct hx_pagetable *t)
{
	if (t->kernel || pool_size() == 0) {
		return HX_ASID_KERNEL;
	}
	unsigned cpu = hx_hal_cpu_id();
	uint64_t token = __atomic_load_n(&t->asid_token, __ATOMIC_SEQ_CST);
	uint64_t running = __atomic_load_n(&cpus[cpu].running, __ATOMIC_SEQ_CST);
	if (running != 0 && is_present(token) &&
	    __atomic_compare_exchange_n(&cpus[cpu].running, &running, token, false,
					__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		return (uint16_t)id_of(token);
	}
	hx_lock_acquire_irqs_off(&pool.lock);
	token = __atomic_load_n(&t->asid_token, __ATOMIC_SEQ_CST);
	if (!is_present(token)) {
		token = new_token(t, token);
		__atomic_store_n(&t->asid_token, token, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&cpus[cpu].running, token, __ATOMIC_SEQ_CST);
	hx_lock_release_irqs_off(&pool.lock);
	return (uint16_t)id_of(token);
}
