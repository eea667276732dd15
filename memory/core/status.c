/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Names, descriptions, strategies and errno of the statuses, from the one list. */
#include <hx/status.h>

struct entry {
	hx_status status;
	enum hx_strategy strategy;
	int errno_value;
	const char *name;
	const char *description;
};

static const struct entry entries[] = {
#define ENTRY(n, value, strategy, errno_value, description)                                        \
	{HX_##n, HX_STRATEGY_##strategy, errno_value, #n, description},
	HX_STATUS_LIST(ENTRY)
#undef ENTRY
};

static const struct entry *find(hx_status s)
{
	for (size_t i = 0; i < HX_ARRAY_LENGTH(entries); i++) {
		if (entries[i].status == s) {
			return &entries[i];
		}
	}
	return NULL;
}

const char *hx_status_name(hx_status s)
{
	const struct entry *e = find(s);
	return e ? e->name : "?";
}

const char *hx_status_description(hx_status s)
{
	const struct entry *e = find(s);
	return e ? e->description : "?";
}

enum hx_strategy hx_status_strategy(hx_status s)
{
	const struct entry *e = find(s);
	return e ? e->strategy : HX_STRATEGY_RETURN;
}

int hx_status_errno(hx_status s)
{
	const struct entry *e = find(s);
	return e ? e->errno_value : 22;
}

const char *hx_strategy_name(enum hx_strategy s)
{
	static const char *const names[HX_STRATEGIES] = {
		[HX_STRATEGY_NONE] = "nothing to do",
		[HX_STRATEGY_PRESSURE] = "memory pressure event, then one retry",
		[HX_STRATEGY_RETURN] = "return the error to the caller",
		[HX_STRATEGY_PAGE_FAULT] = "page-fault handler",
		[HX_STRATEGY_REMAP] = "unmap first, then remap",
		[HX_STRATEGY_ALIGN] = "caller's bug: align up",
		[HX_STRATEGY_CAPABILITY] = "check the capability token",
		[HX_STRATEGY_REPORT] = "report the misuse",
	};
	return (unsigned)s < HX_STRATEGIES ? names[s] : "?";
}
