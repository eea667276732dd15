/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The kernel command line: words between blanks, "key=value". */
#include "boot_private.h"

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

const char *hx_command_line_word(const char **at, size_t *length)
{
	const char *word = *at;
	while (is_blank(*word)) {
		word++;
	}
	const char *end = word;
	while (*end != '\0' && !is_blank(*end)) {
		end++;
	}
	*at = end;
	*length = (size_t)(end - word);
	return word;
}

bool hx_command_line_get(const char *line, const char *key, char *out, size_t size)
{
	if (!line || size == 0) {
		return false;
	}
	size_t key_length = hx_strlen(key), length;
	const char *at = line, *word;
	while (word = hx_command_line_word(&at, &length), length > 0) {
		if (length > key_length && word[key_length] == '=' &&
		    hx_memcmp(word, key, key_length) == 0) {
			size_t n = length - key_length - 1;
			n = n < size ? n : size - 1;
			hx_memcpy(out, word + key_length + 1, n);
			out[n] = '\0';
			return true;
		}
	}
	return false;
}
