/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hal/template with the whole library on it: bodies that can say "no" do, the
 * others name themselves when they are reached. Prints TAP.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <hx/helix.h>

static jmp_buf reached;
static const char *missing;

_Noreturn void hx_template_missing(const char *function)
{
	missing = function;
	longjmp(reached, 1);
}

/* Names the body that ended the call, NULL when it returned. */
#define ENDS_IN(call) (missing = NULL, setjmp(reached) == 0 ? (void)(call) : (void)0, missing)

static unsigned number;
static int status;

static void result(bool well, const char *name)
{
	printf("%s %u - %s\n", well ? "ok" : "not ok", ++number, name);
	status |= !well;
}

static void expect(const char *ended, const char *name)
{
	result(ended && strcmp(ended, name) == 0, name);
}

static hx_status boot(void)
{
	static struct hx_system sys;
	static const struct hx_boot_args args = {.arena = hx_boot_arena};
	return hx_boot(&sys, &args);
}

int main(void)
{
	printf("1..24\n");
	struct hx_memory_range range = {.bytes = 1};
	struct hx_cpu_info cpu = {.hardware_id = 1};
	struct hx_fault fault;
	struct hx_tlb_range tlb = {.pages = 0};
	uint32_t iterator = 0;
	hx_pte entry = 0;
	result(hx_pte_geometry(4).levels == 0, "geometry has no levels");
	result(!hx_hal_memory_next(&iterator, &range) && range.bytes == 1, "no memory");
	result(!hx_hal_cpu_next(&iterator, &cpu) && cpu.hardware_id == 1, "no CPUs");
	result(!hx_hal_fault_decode(&iterator, &fault), "no faults");
	result(!hx_hal_tlb_broadcast(&tlb, 1, hx_cpus_of(1)), "no broadcast");
	result(hx_hal_pte_kind(0, 0) == HX_PTE_EMPTY, "0 is empty");
	hx_hal_pte_store(&entry, 5);
	result(hx_hal_pte_load(&entry) == 5, "entries are loaded and stored");
	hx_hal_user_access(true);
	hx_hal_relax();

	expect(ENDS_IN(hx_hal_pte_prot(0, 0)), "hx_hal_pte_prot");
	expect(ENDS_IN(hx_hal_pte_leaf(hx_pa(0), 0, 0)), "hx_hal_pte_leaf");
	expect(ENDS_IN(hx_hal_pte_table(hx_pa(0))), "hx_hal_pte_table");
	expect(ENDS_IN(hx_hal_pte_kind(1, 0)), "hx_hal_pte_kind");
	expect(ENDS_IN(hx_hal_pte_pa(1, 0)), "hx_hal_pte_pa");
	expect(ENDS_IN(hx_hal_pte_flags(1, 0)), "hx_hal_pte_flags");
	expect(ENDS_IN(hx_hal_pte_soft(1)), "hx_hal_pte_soft");
	expect(ENDS_IN(hx_hal_pte_payload(1)), "hx_hal_pte_payload");
	expect(ENDS_IN(hx_hal_pt_publish()), "hx_hal_pt_publish");
	expect(ENDS_IN(hx_hal_cpu_id()), "hx_hal_cpu_id");
	expect(ENDS_IN(hx_hal_irq_save()), "hx_hal_irq_save");
	expect(ENDS_IN(hx_hal_irq_restore(0)), "hx_hal_irq_restore");
	expect(ENDS_IN(hx_hal_mmu_init()), "hx_hal_mmu_init");
	expect(ENDS_IN(hx_hal_tlb_local(&tlb, 1)), "hx_hal_tlb_local");
	expect(ENDS_IN(hx_hal_ipi_tlb(hx_cpus_of(1))), "hx_hal_ipi_tlb");
	expect(ENDS_IN(hx_hal_root_load(hx_pa(0), 0, false)), "hx_hal_root_load");
	/* The library comes as far as the first body that it needs. */
	const char *ended = ENDS_IN((void)boot());
	printf("# boot ends in %s\n", ended ? ended : "a refusal");
	result(ended != NULL, "boot names what is to be written next");
	return status;
}
