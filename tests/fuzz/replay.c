/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * A main() for fuzz targets where there is no libFuzzer.
 *
 *     fuzz-fdt FILE...                  run these inputs
 *     fuzz-fdt -n 20000 [-s 1] FILE...  run 20000 mutations of them; always the same
 *     fuzz-fdt -i 4711 [-s 1] FILE...   only mutation 4711, the one that failed
 *
 * Every input ends at an unreadable page. Prints TAP.
 */
#include "fuzz.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "blob.h"

enum { FILES_MAX = 32, INPUT_MAX = 65536 };

static struct {
	uint8_t *data;
	size_t bytes;
} files[FILES_MAX];
static unsigned file_count;

static unsigned long current; /* mutation that runs */

/* Also from a signal handler: nothing but write(). */
static void say_which(void)
{
	char text[] = "# mutation                     \n";
	size_t at = sizeof text - 2; /* the newline; digits go before it */
	unsigned long n = current;
	do {
		text[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n > 0);
	(void)!write(2, text, sizeof text - 1);
}

static void on_signal(int number)
{
	say_which();
	signal(number, SIG_DFL);
	raise(number);
}

/* Sanitizers end by themselves, but tell. */
__attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)(void));

static void load(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (!f || file_count == FILES_MAX) {
		fprintf(stderr, "cannot read %s\n", path);
		exit(2);
	}
	files[file_count].data = malloc(INPUT_MAX);
	if (!files[file_count].data) {
		exit(2);
	}
	files[file_count].bytes = fread(files[file_count].data, 1, INPUT_MAX / 2, f);
	file_count++;
	fclose(f);
}

/* Numbers that lie at the edges of something. */
static uint32_t edge(struct hx_random *r, size_t bytes)
{
	const uint32_t edges[] = {0,
				  1,
				  2,
				  3,
				  4,
				  8,
				  16,
				  24,
				  UINT32_MAX,
				  INT32_MAX,
				  1u << 31,
				  4096,
				  (uint32_t)bytes,
				  (uint32_t)bytes - 1,
				  (uint32_t)bytes + 1,
				  (uint32_t)(hx_random(r) >> hx_random_below(r, 64))};
	return edges[hx_random_below(r, HX_ARRAY_LENGTH(edges))];
}

static void mutate_once(struct hx_random *r, uint8_t *data, size_t *bytes)
{
	size_t n = *bytes, at = n ? hx_random_below(r, n) : 0;
	size_t length = 1 + hx_random_below(r, 32);
	uint32_t value = edge(r, n);
	switch (hx_random_below(r, 7)) {
	case 0: /* a bit */
		data[at] ^= (uint8_t)(1u << hx_random_below(r, 8));
		break;
	case 1: /* a byte */
		data[at] = (uint8_t)value;
		break;
	case 2: /* a word, little-endian */
	case 3: /* a word, big-endian */
		at &= ~(size_t)3;
		for (unsigned i = 0; i < 4 && at + i < n; i++) {
			data[at + i] =
				(uint8_t)(value >>
					  (hx_random_below(r, 64) < 32 ? 8 * i : 24 - 8 * i));
		}
		break;
	case 4: /* a piece of it elsewhere */
		for (size_t i = 0, from = n ? hx_random_below(r, n) : 0; i < length; i++) {
			if (at + i < n && from + i < n) {
				data[at + i] = data[from + i];
			}
		}
		break;
	case 5: /* a piece less */
		if (at + length < n) {
			memmove(data + at, data + at + length, n - at - length);
			*bytes = n - length;
		}
		break;
	default: /* a piece more */
		if (n + length < INPUT_MAX) {
			memmove(data + at + length, data + at, n - at);
			*bytes = n + length;
		}
		break;
	}
}

static void run(const struct fence *fence, const uint8_t *data, size_t bytes)
{
	LLVMFuzzerTestOneInput(fence_put(fence, data, bytes), bytes);
}

static void run_mutation(const struct fence *fence, unsigned long number, uint64_t seed)
{
	static uint8_t work[INPUT_MAX];
	struct hx_random r = {seed * UINT64_C(0x9e3779b97f4a7c15) + number + 1};
	for (unsigned i = 0; i < 4; i++) {
		(void)hx_random(&r); /* neighbouring seeds part */
	}
	unsigned file = (unsigned)(number % file_count);
	size_t bytes = files[file].bytes;
	memcpy(work, files[file].data, bytes);
	for (uint64_t n = 1 + hx_random_below(&r, 6); n > 0; n--) {
		mutate_once(&r, work, &bytes);
	}
	current = number;
	run(fence, work, bytes);
}

int main(int argc, char **argv)
{
	unsigned long mutations = 0, first = 0;
	uint64_t seed = 1;
	for (int option; (option = getopt(argc, argv, "n:s:i:")) != -1;) {
		switch (option) {
		case 'n':
			mutations = strtoul(optarg, NULL, 10);
			break;
		case 's':
			seed = strtoul(optarg, NULL, 10);
			break;
		case 'i':
			first = strtoul(optarg, NULL, 10);
			mutations = 1;
			break;
		default:
			return 2;
		}
	}
	while (optind < argc) {
		load(argv[optind++]);
	}
	if (file_count == 0) {
		fprintf(stderr, "no inputs\n");
		return 2;
	}
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
	signal(SIGABRT, on_signal);
	if (__sanitizer_set_death_callback) {
		__sanitizer_set_death_callback(say_which);
	}
	printf("1..2\n");
	struct fence fence = fence_make(INPUT_MAX);
	for (unsigned i = 0; i < file_count; i++) {
		run(&fence, files[i].data, files[i].bytes);
	}
	printf("ok 1 - %u inputs as they are\n", file_count);
	for (unsigned long i = 0; i < mutations; i++) {
		run_mutation(&fence, first + i, seed);
	}
	printf("ok 2 - %lu mutations\n", mutations);
	return 0;
}
