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

int
cli_about(struct kvfs_error *err, int rc, const char *path)
{
    char shown[128];
    size_t len = strlen(path), n;
    bool cut = len > 100; /* the reason must fit behind it */

    if (cut)
        path += len - 96;
    while (cut && ((unsigned char)*path & 0xc0) == 0x80)
        path++;
    (void)snprintf(shown, sizeof(shown), "%s%s", cut ? "..." : "", path);
    n = strlen(shown);
    if (err->code == 0 || err->msg[0] == '\0')
        return kvfs_error_set(err, rc, "%s: %s", shown, strerrordesc_np(-rc));
    if (strncmp(err->msg, shown, n) == 0 && (err->msg[n] == ':' || err->msg[n] == '/'))
        return rc;
    if (err->msg[0] == '\'' && strncmp(err->msg + 1, shown, n) == 0 && err->msg[n + 1] == '\'')
        return rc;
    return kvfs_error_set(err, rc, "%s: %s", shown, err->msg);
}
