/* SPDX-License-Identifier: BSD-3-Clause
 *
 * output.c - JSON, the clock, a line of progress.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cmd.h"

#define PROGRESS_EACH_NS 100000000LL

void
cmd_json_u64(struct json_object *obj, const char *key, uint64_t value)
{
    (void)json_object_object_add(obj, key, json_object_new_uint64(value));
}

void
cmd_json_text(struct json_object *obj, const char *key, const char *value)
{
    (void)json_object_object_add(obj, key, json_object_new_string(value));
}

/* Length of the UTF-8 sequence at P, which ends with '\0'; 0: there is none. */
static size_t
output_utf8(const unsigned char *p)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = *p < 0x80 ? 1 : (*p & 0xe0) == 0xc0 ? 2 : (*p & 0xf0) == 0xe0 ? 3
               : (*p & 0xf8) == 0xf0 ? 4 : 0;
    uint32_t code = n < 2 ? *p : *p & (0x7fu >> n);

    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    return code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : n;
}

/* Names, marks and what a check said may be any bytes; JSON is UTF-8. */
void
cmd_json_print_take(struct json_object *obj)
{
    const char *text = json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PRETTY |
                                                               JSON_C_TO_STRING_NOSLASHESCAPE);

    while (*text != '\0') {
        size_t n = output_utf8((const unsigned char *)text);

        if (n != 0)
            (void)fwrite(text, 1, n, stdout);
        else
            (void)fputs("\xef\xbf\xbd", stdout); /* the replacement character */
        text += n != 0 ? n : 1;
    }
    (void)fputc('\n', stdout);
    (void)json_object_put(obj);
}

void
cmd_quote(FILE *out, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./:=,+@%";

    if (text[0] != '\0' && strspn(text, plain) == strlen(text)) {
        (void)fputs(text, out);
        return;
    }
    (void)fputc('\'', out);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '\'')
            (void)fputs("'\\''", out);
        else
            (void)fputc(*p, out);
    }
    (void)fputc('\'', out);
}

int64_t
cmd_now_ns(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void
cmd_progress_start(struct cmd_progress *p, bool quiet)
{
    *p = (struct cmd_progress){.on = !quiet && isatty(STDERR_FILENO) == 1};
}

void
cmd_progress_show(struct cmd_progress *p, const char *fmt, ...)
{
    int64_t now = p->on ? cmd_now_ns() : 0;
    struct winsize ws = {0};
    int columns = 80;
    char line[256];
    va_list ap;

    if (!p->on || now - p->last_ns < PROGRESS_EACH_NS)
        return;
    p->last_ns = now;
    p->drawn = true;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0)
        columns = ws.ws_col;
    va_start(ap, fmt);
    // NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): version 14 does not know va_start here
    (void)vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "\r\033[K%.*s", columns - 1, line);
    (void)fflush(stderr);
}

void
cmd_progress_end(struct cmd_progress *p)
{
    if (p->drawn) {
        (void)fputs("\r\033[K", stderr);
        (void)fflush(stderr);
    }
    p->drawn = false;
}
