/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Formatting, log lines, panic. */
#include <hx/core.h>

/* Counts every character, stores those that fit. */
struct sink {
	char *out;
	size_t size;
	size_t length;
};

static void put(struct sink *s, char c)
{
	if (s->length + 1 < s->size) {
		s->out[s->length] = c;
	}
	s->length++;
}

static void fill(struct sink *s, char c, int n)
{
	while (n-- > 0) {
		put(s, c);
	}
}

static void put_text(struct sink *s, const char *text, size_t n, int width, bool left)
{
	int space = width > 0 && (size_t)width > n ? width - (int)n : 0;
	fill(s, ' ', left ? 0 : space);
	for (size_t i = 0; i < n; i++) {
		put(s, text[i]);
	}
	fill(s, ' ', left ? space : 0);
}

struct conversion {
	int width;
	int precision; /* -1: none, -2: the next argument */
	bool left, zero;
	int longs; /* l: 1, ll: 2, z: 1 (size_t is a long on every port) */
};

static void put_number(struct sink *s, const struct conversion *c, uint64_t v, unsigned base,
		       bool upper, char sign)
{
	const char *digits = upper ? "0123456789ABCDEF" : "0123456789abcdef";
	char text[24];
	size_t n = 0;
	do {
		text[sizeof text - ++n] = digits[v % base];
		v /= base;
	} while (v > 0);
	int used = (int)n + (sign != '\0');
	int space = c->width > used ? c->width - used : 0;
	fill(s, ' ', !c->left && !c->zero ? space : 0);
	if (sign != '\0') {
		put(s, sign);
	}
	fill(s, '0', !c->left && c->zero ? space : 0);
	put_text(s, text + sizeof text - n, n, 0, false);
	fill(s, ' ', c->left ? space : 0);
}

static size_t bounded_length(const char *text, int precision)
{
	size_t n = 0;
	while ((precision < 0 || n < (size_t)precision) && text[n] != '\0') {
		n++;
	}
	return n;
}

static const char *parse_conversion(const char *f, struct conversion *c)
{
	*c = (struct conversion){.precision = -1};
	for (;; f++) {
		if (*f == '-') {
			c->left = true;
		} else if (*f == '0') {
			c->zero = true;
		} else {
			break;
		}
	}
	for (; *f >= '0' && *f <= '9'; f++) {
		c->width = c->width * 10 + (*f - '0');
	}
	if (*f == '.') {
		f++;
		c->precision = 0;
		if (*f == '*') {
			f++;
			c->precision = -2;
		}
		for (; *f >= '0' && *f <= '9'; f++) {
			c->precision = c->precision * 10 + (*f - '0');
		}
	}
	for (; *f == 'l' || *f == 'z'; f++) {
		c->longs++;
	}
	return f;
}

int hx_format_list(char *out, size_t size, const char *format, va_list arguments)
{
	struct sink s = {out, size, 0};
	va_list list;
	va_copy(list, arguments);
	for (const char *f = format; *f != '\0'; f++) {
		if (*f != '%') {
			put(&s, *f);
			continue;
		}
		struct conversion c;
		f = parse_conversion(f + 1, &c);
		if (c.precision == -2) {
			c.precision = va_arg(list, int);
		}
		if (*f == '\0') {
			break;
		}
		switch (*f) {
		case 'd':
		case 'i': {
			int64_t v = c.longs > 1 ? va_arg(list, long long)
				    : c.longs   ? va_arg(list, long)
						: va_arg(list, int);
			uint64_t magnitude = v < 0 ? -(uint64_t)v : (uint64_t)v;
			put_number(&s, &c, magnitude, 10, false, v < 0 ? '-' : '\0');
			break;
		}
		case 'u':
		case 'x':
		case 'X': {
			uint64_t v = c.longs > 1 ? va_arg(list, unsigned long long)
				     : c.longs   ? va_arg(list, unsigned long)
						 : va_arg(list, unsigned);
			put_number(&s, &c, v, *f == 'u' ? 10 : 16, *f == 'X', '\0');
			break;
		}
		case 'p':
			put(&s, '0');
			put(&s, 'x');
			put_number(&s, &c, (uintptr_t)va_arg(list, void *), 16, false, '\0');
			break;
		case 'c': {
			char one = (char)va_arg(list, int);
			put_text(&s, &one, 1, c.width, c.left);
			break;
		}
		case 's': {
			const char *text = va_arg(list, const char *);
			text = text ? text : "(null)";
			put_text(&s, text, bounded_length(text, c.precision), c.width, c.left);
			break;
		}
		default:
			put(&s, *f);
			break;
		}
	}
	va_end(list);
	if (size > 0) {
		out[s.length < size ? s.length : size - 1] = '\0';
	}
	return (int)s.length;
}

int hx_format(char *out, size_t size, const char *format, ...)
{
	va_list list;
	va_start(list, format);
	int n = hx_format_list(out, size, format, list);
	va_end(list);
	return n;
}

static void (*log_write)(const char *text);

void hx_log_to(void (*write)(const char *text))
{
	log_write = write;
}

void hx_log(const char *format, ...)
{
	if (!log_write) {
		return;
	}
	char line[256] = "# ";
	va_list list;
	va_start(list, format);
	/* Room for the newline; a longer line is cut. */
	int n = 2 + hx_format_list(line + 2, sizeof line - 3, format, list);
	va_end(list);
	if (n > (int)sizeof line - 2) {
		n = (int)sizeof line - 2;
	}
	line[n] = '\n';
	line[n + 1] = '\0';
	log_write(line);
}

static void trap(const char *text)
{
	(void)text;
	__builtin_trap();
}

void (*hx_panic_handler)(const char *text) = trap;

_Noreturn void hx_panic(const char *file, int line, const char *text)
{
	hx_log("[hx:panic] %s:%d: %s", file, line, text);
	hx_panic_handler(text);
	__builtin_trap();
}
