/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Template: the part of the contract (hx/hal.h) that is calls. Split it into
 * mmu.c, trap.c and discovery.c when it grows.
 *
 * A body whose result can say "no" says so. The others end in
 * hx_template_missing(), which names them: run, write the one that was named,
 * run again. In the finished port nothing of it is left.
 */
#include <hx/discovery.h>
#include <hx/hal.h>

/* Filled by the boot CPU's hx_hal_mmu_init(). */
struct hx_geometry hx_hal_geometry;

/* Set by the boot code, before it calls anything of memory/. */
uintptr_t hx_hal_direct_offset;
uint64_t hx_hal_boot_window_bytes;

/* Weak: a program that has a console may print the name. */
__attribute__((weak)) _Noreturn void hx_template_missing(const char *function)
{
	(void)function;
	__builtin_trap();
}

/* ---- MMU ---- */

/*
 * On every CPU: paging features on, user access off. The boot CPU also asks the
 * machine for its widths and features and fills hx_hal_geometry. Translation is on
 * already, under the boot code's tables, which stay loaded.
 */
void hx_hal_mmu_init(void)
{
	hx_template_missing("hx_hal_mmu_init");
}

/*
 * The page-table root register. keep: drop nothing. Otherwise drop what is cached
 * for asid (all but GLOBAL entries when the machine has no identifiers).
 */
void hx_hal_root_load(struct hx_pa root, uint16_t asid, bool keep)
{
	(void)root;
	(void)asid;
	(void)keep;
	hx_template_missing("hx_hal_root_load");
}

/*
 * Forget the ranges on this CPU, before returning. One address at a time, or all
 * from some number of pages on. Mind `tables` (upper-level entries), `global`
 * (entries that an identifier does not cover) and pages == 0 (everything).
 * A flush of everything is right in every case: begin with that.
 */
void hx_hal_tlb_local(const struct hx_tlb_range *ranges, unsigned n)
{
	(void)ranges;
	(void)n;
	hx_template_missing("hx_hal_tlb_local");
}

/*
 * Optional: the same on other CPUs, by the machine or by firmware, finished on
 * return. False: portable code interrupts them instead. HX_MMU_BROADCAST says
 * which of the two.
 */
bool hx_hal_tlb_broadcast(const struct hx_tlb_range *ranges, unsigned n, struct hx_cpus cpus)
{
	(void)ranges;
	(void)n;
	(void)cpus;
	return false;
}

/*
 * Interrupt the CPUs of the set, this one excepted, so that each calls
 * hx_upcall_tlb_ipi(). Not needed on one CPU, nor where broadcast never refuses.
 * All earlier stores must be visible to them when the interrupt comes.
 */
void hx_hal_ipi_tlb(struct hx_cpus cpus)
{
	(void)cpus;
	hx_template_missing("hx_hal_ipi_tlb");
}

/* ---- Traps ---- */

/*
 * @frame is what the port's trap entry saved. False for all but page faults. A
 * machine that has one cause for absent and refused says HX_FAULT_UNKNOWN.
 */
bool hx_hal_fault_decode(const void *frame, struct hx_fault *out)
{
	(void)frame;
	(void)out;
	return false;
}

/* ---- Discovery ---- */

/*
 * Firmware's ranges as they come, through a reader of hx/discovery.h, and what
 * firmware does not say: the image (KERNEL), the initrd (INITRD), its own tables
 * and the boot protocol's blobs (FIRMWARE). Order and overlaps do not matter.
 */
bool hx_hal_memory_next(uint32_t *iterator, struct hx_memory_range *out)
{
	(void)iterator;
	(void)out;
	return false;
}

/* The CPUs that may be started; boot is set for the one that runs. */
bool hx_hal_cpu_next(uint32_t *iterator, struct hx_cpu_info *out)
{
	(void)iterator;
	(void)out;
	return false;
}
