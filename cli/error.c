/* SPDX-License-Identifier: BSD-3-Clause
 *
 * error.c - the one line on standard error.
 *
 * What comes from a volume may be any bytes: none reaches a terminal that could
 * steer it.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

static void
error_line(const struct cli *c, const char *text)
{
    char line[1024];
    size_t n = 0, left = strlen(text), skip;

    while (left > 0 && n < sizeof(line) - 4) {
        size_t step = cli_text_step(text, left, &skip);

        memcpy(line + n, step != 0 ? text : "?", step != 0 ? step : 1);
        n += step != 0 ? step : 1;
        text += skip;
        left -= skip;
    }
    line[n] = '\0';
    if (c->command != NULL)
        (void)fprintf(stderr, "kvfs: %s: %s\n", c->command->name, line);
    else
        (void)fprintf(stderr, "kvfs: %s\n", line);
}

int
cli_error(const struct cli *c, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    error_line(c, text);
    return CLI_FAILED;
}

void
cli_say(const struct cli *c, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    error_line(c, text);
}

int
cli_fail(const struct cli *c, int rc)
{
    if (rc == -EINTR && cli_interrupted())
        return cli_error(c, "interrupted");
    if (c->err.code != 0 && c->err.msg[0] != '\0')
        error_line(c, c->err.msg);
    else
        return cli_error(c, "%s", strerrordesc_np(-rc));
    return CLI_FAILED;
}

/* PATH as libkvfs writes names in its messages, so that one name has one spelling. */
static void
error_path(char *shown, size_t cap, const char *path)
{
    size_t at = 0;

    for (; *path != '\0' && at + 5 <= cap; path++) {
        unsigned char ch = (unsigned char)*path;

        if (ch < ' ' || ch == 0x7f || ch == '\\')
            at += (size_t)snprintf(shown + at, 5, "\\x%02x", ch);
        else
            shown[at++] = *path;
    }
    shown[at] = '\0';
}

/* Does MSG begin with the name SHOWN in quotes, or, as long names are, with its start? */
static bool
error_quotes(const char *msg, const char *shown)
{
    size_t n = 0;

    if (*msg++ != '\'')
        return false;
    while (shown[n] != '\0' && msg[n] == shown[n])
        n++;
    return (shown[n] == '\0' && msg[n] == '\'') || (n > 0 && strncmp(msg + n, "...'", 4) == 0);
}

int
cli_about(struct kvfs_error *err, int rc, const char *path)
{
    char shown[4 * 256], whole[4 * (KVFS_NAME_MAX + 1)];
    size_t len = strlen(path), n;
    bool cut = len > 100; /* the reason must fit behind it */

    error_path(whole, sizeof(whole), path);
    if (err->code != 0 && error_quotes(err->msg, whole))
        return rc;
    if (cut)
        path += len - 96;
    while (cut && ((unsigned char)*path & 0xc0) == 0x80)
        path++;
    (void)snprintf(shown, sizeof(shown), "%s", cut ? "..." : "");
    error_path(shown + strlen(shown), sizeof(shown) - strlen(shown), path);
    n = strlen(shown);
    if (err->code == 0 || err->msg[0] == '\0')
        return kvfs_error_set(err, rc, "%s: %s", shown, strerrordesc_np(-rc));
    if (strncmp(err->msg, shown, n) == 0 && (err->msg[n] == ':' || err->msg[n] == '/'))
        return rc;
    return kvfs_error_set(err, rc, "%s: %s", shown, err->msg);
}
