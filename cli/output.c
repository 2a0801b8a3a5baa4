/* SPDX-License-Identifier: BSD-3-Clause
 *
 * output.c - names, times and JSON on standard output.
 *
 * A name is any bytes but '/' and NUL, so it may be no text at all: people get
 * it with dangerous bytes masked when they look at a terminal, programs get it
 * exactly (through a pipe as it is, in JSON beside its hex form).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

/* Length of the UTF-8 sequence at P, 0 if it is none. */
static size_t
output_utf8(const unsigned char *p, size_t len, uint32_t *codep)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = *p < 0x80 ? 1 : (*p & 0xe0) == 0xc0 ? 2 : (*p & 0xf0) == 0xe0 ? 3
               : (*p & 0xf8) == 0xf0 ? 4 : 0;
    uint32_t code = *p;

    *codep = code;
    if (n == 1)
        return 1;
    if (n == 0 || n > len)
        return 0;
    code = *p & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0;
    *codep = code;
    return n;
}

size_t
cli_text_step(const char *p, size_t len, size_t *skip)
{
    uint32_t code;
    size_t n = output_utf8((const unsigned char *)p, len, &code);

    *skip = n != 0 ? n : 1;
    if (n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0))
        return 0;
    if ((code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069))
        return 0; /* ends or reorders a line */
    return n;
}

void
cli_name_print(const char *name, size_t len)
{
    static int tty = -1;
    size_t skip;

    if (tty < 0)
        tty = isatty(STDOUT_FILENO);
    if (tty != 1) {
        (void)fwrite(name, 1, len, stdout);
        return;
    }
    for (; len > 0; name += skip, len -= skip) {
        size_t step = cli_text_step(name, len, &skip);

        (void)fwrite(step != 0 ? name : "?", 1, step != 0 ? step : 1, stdout);
    }
}

void
cli_json_name(struct json_object *obj, const char *key, const char *name, size_t len)
{
    const unsigned char *p = (const unsigned char *)name;
    char *text = malloc(3 * len + 1), *hex = malloc(2 * len + 1), hex_key[32];
    uint32_t code;
    size_t n = 0;
    bool exact = true;

    if (text != NULL && hex != NULL) {
        text[0] = hex[0] = '\0';
        for (size_t i = 0; i < len;) {
            size_t step = output_utf8(p + i, len - i, &code);

            exact = exact && step != 0;
            memcpy(text + n, step != 0 ? name + i : "\xef\xbf\xbd", step != 0 ? step : 3);
            n += step != 0 ? step : 3;
            i += step != 0 ? step : 1;
        }
        (void)json_object_object_add(obj, key, json_object_new_string_len(text, (int)n));
        if (!exact) {
            for (size_t i = 0; i < len; i++)
                (void)snprintf(hex + 2 * i, 3, "%02x", p[i]);
            (void)snprintf(hex_key, sizeof(hex_key), "%s_hex", key);
            cli_json_text(obj, hex_key, hex);
        }
    }
    free(text);
    free(hex);
}

void
cli_json_u64(struct json_object *obj, const char *key, uint64_t value)
{
    (void)json_object_object_add(obj, key, json_object_new_uint64(value));
}

void
cli_json_text(struct json_object *obj, const char *key, const char *value)
{
    (void)json_object_object_add(obj, key, json_object_new_string(value));
}

static void
output_json(struct json_object *obj, int flags)
{
    const char *text = json_object_to_json_string_ext(obj, flags | JSON_C_TO_STRING_NOSLASHESCAPE);

    (void)fputs(text != NULL ? text : "null", stdout);
    (void)json_object_put(obj);
}

void
cli_json_print_take(struct json_object *obj)
{
    output_json(obj, JSON_C_TO_STRING_PRETTY);
    (void)putchar('\n');
}

void
cli_json_list_add_take(struct cli_json_list *list, struct json_object *obj)
{
    (void)fputs(list->count++ == 0 ? "[\n  " : ",\n  ", stdout);
    output_json(obj, JSON_C_TO_STRING_SPACED);
}

void
cli_json_list_end(struct cli_json_list *list)
{
    (void)fputs(list->count == 0 ? "[]" : "\n]", stdout);
}

void
cli_json_list_finish(struct cli_json_list *list, bool complete)
{
    if (list->count == 0 && !complete)
        return;
    cli_json_list_end(list);
    (void)putchar('\n');
}

const char *
cli_time_text(int64_t ns, bool nanoseconds, char *buf)
{
    int64_t rest = ns % 1000000000;
    time_t seconds = (time_t)(ns / 1000000000 - (rest < 0));
    struct tm tm;
    char zone[8];
    size_t n;

    if (localtime_r(&seconds, &tm) == NULL)
        memset(&tm, 0, sizeof(tm));
    n = strftime(buf, CLI_TIME_TEXT, "%Y-%m-%d %H:%M:%S", &tm);
    if (nanoseconds && strftime(zone, sizeof(zone), "%z", &tm) > 0)
        (void)snprintf(buf + n, CLI_TIME_TEXT - n, ".%09d %s",
                       (int)(rest < 0 ? rest + 1000000000 : rest), zone);
    return buf;
}

const char *
cli_type_text(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return "file";
    case S_IFDIR:
        return "folder";
    case S_IFLNK:
        return "link";
    case S_IFIFO:
        return "fifo";
    case S_IFSOCK:
        return "socket";
    case S_IFCHR:
        return "character device";
    case S_IFBLK:
        return "block device";
    default:
        return "unknown";
    }
}

const char *
cli_mode_text(uint32_t mode, char *buf)
{
    static const char rwx[] = "rwxrwxrwx";
    static const uint32_t types[] = {S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO,
                                     S_IFSOCK, S_IFCHR, S_IFBLK};

    buf[0] = '?';
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if ((mode & S_IFMT) == types[i])
            buf[0] = "-dlpscb"[i];
    }
    for (unsigned i = 0; i < 9; i++)
        buf[1 + i] = (char)(mode & (0400u >> i) ? rwx[i] : '-');
    if (mode & S_ISUID)
        buf[3] = mode & 0100 ? 's' : 'S';
    if (mode & S_ISGID)
        buf[6] = mode & 0010 ? 's' : 'S';
    if (mode & S_ISVTX)
        buf[9] = mode & 0001 ? 't' : 'T';
    buf[10] = '\0';
    return buf;
}
