/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * main() of a program for boards that runs on the simulated machine:
 *
 *     program [--ram SIZE] [--cpus N] [WORD...]
 *
 * The words, joined by blanks, are the kernel's command line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hosted.h"

int main(int argc, char **argv)
{
	const char *ram = getenv("HX_SIM_RAM"), *cpus = getenv("HX_SIM_CPUS");
	int i = 1;
	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
		if (strcmp(argv[i], "--ram") == 0) {
			ram = argv[i + 1];
		} else if (strcmp(argv[i], "--cpus") == 0) {
			cpus = argv[i + 1];
		} else {
			break;
		}
	}
	if ((i < argc && strncmp(argv[i], "--", 2) == 0) || !hx_hosted_configure(ram, cpus)) {
		fprintf(stderr, "usage: %s [--ram SIZE (at least 16M)] [--cpus 1..64] [WORD...]\n",
			argv[0]);
		return EXIT_FAILURE;
	}
	size_t length = 1;
	for (int k = i; k < argc; k++) {
		length += strlen(argv[k]) + 1;
	}
	char *line = calloc(length, 1);
	if (line == NULL) {
		return EXIT_FAILURE;
	}
	for (int k = i; k < argc; k++) {
		strcat(line, argv[k]);
		strcat(line, k + 1 < argc ? " " : "");
	}
	hx_hosted_command_line = line;
	hx_main();
	hx_platform_exit(false); /* a program that is well says so itself */
}
