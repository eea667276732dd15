/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The kernel command line: words between blanks, "key=value". */
#include <hx/boot.h>

bool hx_command_line_get(const char *line, const char *key, char *out, size_t size)
{
	if (!line || size == 0) {
		return false;
	}
	size_t key_length = hx_strlen(key);
	for (const char *word = line; *word != '\0';) {
		while (*word == ' ' || *word == '\t') {
			word++;
		}
		const char *end = word;
		while (*end != '\0' && *end != ' ' && *end != '\t') {
			end++;
		}
		size_t length = (size_t)(end - word);
		if (length > key_length && word[key_length] == '=' &&
		    hx_memcmp(word, key, key_length) == 0) {
			size_t n = length - key_length - 1;
			n = n < size ? n : size - 1;
			hx_memcpy(out, word + key_length + 1, n);
			out[n] = '\0';
			return true;
		}
		word = end;
	}
	return false;
}
