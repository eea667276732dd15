/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * hx/status.h - the one status vocabulary, and which recovery fits each.
 *
 * Every operation returns an hx_status, or a two-register struct of a status
 * and one value, which is meaningful only when the status is HX_OK. A status
 * other than HX_OK means that nothing has changed, unless the operation's
 * comment says otherwise.
 */
#ifndef HX_STATUS_H
#define HX_STATUS_H

#include <hx/units.h>

/*
 * X(name, value, strategy, errno, description). Values never change and are
 * never reused. errno: what a POSIX system-call layer returns by default.
 */
#define HX_STATUS_LIST(X)                                                                          \
	X(OK, 0, NONE, 0, "success")                                                               \
	X(OUT_OF_MEMORY, 1, PRESSURE, 12, "no frames or pages available")                          \
	X(INVALID_ADDRESS, 2, RETURN, 14, "address outside the valid range")                       \
	X(NOT_MAPPED, 3, PAGE_FAULT, 12, "virtual address has no mapping")                         \
	X(ALREADY_MAPPED, 4, REMAP, 17, "page already has a mapping")                              \
	X(INVALID_ALIGNMENT, 5, ALIGN, 22, "address not aligned to a page boundary")               \
	X(PERMISSION_DENIED, 6, CAPABILITY, 13, "insufficient capability rights")                  \
	X(INVALID_SIZE, 16, RETURN, 22, "size is zero, overflows or is not supported")             \
	X(INVALID_ARGUMENT, 17, RETURN, 22, "argument has no meaning here")                        \
	X(NOT_INITIALIZED, 18, RETURN, 38, "used before it was initialised")                       \
	X(NOT_SUPPORTED, 19, RETURN, 95, "not available in this build or on this machine")         \
	X(BUSY, 20, RETURN, 16, "in use, try again later")                                         \
	X(DOUBLE_FREE, 32, REPORT, 22, "freed twice")                                              \
	X(FOREIGN_FREE, 33, REPORT, 22, "freed to an owner that never gave it")                    \
	X(WRONG_SIZE_FREE, 34, REPORT, 22, "freed with another size, order or start")              \
	X(CORRUPTED, 35, REPORT, 5, "a structure violates its invariant")

typedef enum hx_status {
#define HX_STATUS_ENUM(name, value, strategy, errno_value, description) HX_##name = (value),
	HX_STATUS_LIST(HX_STATUS_ENUM)
#undef HX_STATUS_ENUM
} hx_status;

/** What a caller does about a status; hx_recover() (hx/recovery.h) does it. */
enum hx_strategy {
	HX_STRATEGY_NONE,       /* nothing is wrong */
	HX_STRATEGY_PRESSURE,   /* raise a memory-pressure event, then retry once */
	HX_STRATEGY_RETURN,     /* return the error to the caller */
	HX_STRATEGY_PAGE_FAULT, /* run the page-fault handler */
	HX_STRATEGY_REMAP,      /* unmap first, then map again */
	HX_STRATEGY_ALIGN,      /* caller's bug: align up */
	HX_STRATEGY_CAPABILITY, /* check the capability token */
	HX_STRATEGY_REPORT,     /* misuse or corruption: report who and where */
	HX_STRATEGIES,
};

/** Name without the prefix, "OUT_OF_MEMORY"; "?" for no status. O(statuses). */
const char *hx_status_name(hx_status s);
/** One sentence for people; "?" for no status. */
const char *hx_status_description(hx_status s);
/** HX_STRATEGY_RETURN for no status. */
enum hx_strategy hx_status_strategy(hx_status s);
/** "pressure event, then one retry", ... */
const char *hx_strategy_name(enum hx_strategy s);
/** POSIX errno (Linux numbers); 22 (EINVAL) for no status. */
int hx_status_errno(hx_status s);

struct hx_pfn_result {
	hx_status status;
	struct hx_pfn value;
};

struct hx_pa_result {
	hx_status status;
	struct hx_pa value;
};

struct hx_va_result {
	hx_status status;
	struct hx_va value;
};

struct hx_ptr_result {
	hx_status status;
	void *value;
};

#endif
