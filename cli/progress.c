/* SPDX-License-Identifier: BSD-3-Clause
 *
 * progress.c - a bar with rate and time left, for people at a terminal.
 *
 * Quiet where stderr is no terminal (a log would fill up) and in the first
 * second (most work is done by then); then at most ten lines a second.
 */
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define PROGRESS_FIRST_NS 1000000000LL
#define PROGRESS_EACH_NS  100000000LL
#define PROGRESS_BAR_MAX  40

static int64_t
progress_now(void)
{
    struct timespec ts = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void
cli_progress_start(struct cli_progress *p, const struct cli *c, const char *verb, uint64_t total,
                   bool bytes)
{
    *p = (struct cli_progress){.verb = verb, .total = total, .bytes = bytes};
    p->on = !c->o.quiet && isatty(STDERR_FILENO) == 1;
    p->start_ns = progress_now();
    p->last_ns = p->start_ns + PROGRESS_FIRST_NS - PROGRESS_EACH_NS;
}

static const char *
progress_count(const struct cli_progress *p, uint64_t n, char *buf)
{
    if (p->bytes)
        return cli_size_text(n, buf);
    (void)snprintf(buf, CLI_SIZE_TEXT, "%.4g", (double)n);
    if (n < 100000000)
        (void)snprintf(buf, CLI_SIZE_TEXT, "%u", (unsigned)n);
    return buf;
}

static void
progress_draw(const struct cli_progress *p, double seconds)
{
    char line[256], done[CLI_SIZE_TEXT], total[CLI_SIZE_TEXT], rate[CLI_SIZE_TEXT];
    char bar[PROGRESS_BAR_MAX + 1] = "";
    double part = p->total > 0 ? (double)p->done / (double)p->total : 0;
    struct winsize ws = {0};
    int columns = 80, n;

    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0)
        columns = ws.ws_col;
    if (part > 1)
        part = 1;
    (void)progress_count(p, p->done, done);
    (void)progress_count(p, (uint64_t)((double)p->moved / seconds), rate);
    if (p->total == 0) {
        n = snprintf(line, sizeof(line), "%s  %s  %s/s", p->verb, done, rate);
    } else {
        int width = columns - 60 < PROGRESS_BAR_MAX ? columns - 60 : PROGRESS_BAR_MAX;
        double left_s = part > 0 ? seconds * (1 - part) / part : 1e9;
        unsigned left = left_s < 3.6e6 ? (unsigned)left_s : 0;
        char eta[32] = "-:--:--"; /* nothing done yet, or next to nothing */

        for (int i = 0; i < width; i++)
            bar[i] = i < (int)(part * width) ? '#' : '.';
        if (left_s < 3.6e6)
            (void)snprintf(eta, sizeof(eta), "%u:%02u:%02u", left / 3600, left / 60 % 60, left % 60);
        n = snprintf(line, sizeof(line), "%s %3d%% %s %s/%s  %s/s  ETA %s", p->verb,
                     (int)(part * 100), bar, done, progress_count(p, p->total, total), rate, eta);
    }
    if (n >= columns)
        n = columns - 1;
    (void)fprintf(stderr, "\r\033[K%.*s", n, line);
    (void)fflush(stderr);
}

void
cli_progress_update(struct cli_progress *p, uint64_t done, uint64_t moved)
{
    int64_t now;

    p->done = done;
    p->moved = moved;
    if (!p->on)
        return;
    now = progress_now();
    if (now - p->last_ns < PROGRESS_EACH_NS)
        return;
    p->last_ns = now;
    p->drawn = true;
    progress_draw(p, (double)(now - p->start_ns) / 1e9);
}

void
cli_progress_end(struct cli_progress *p)
{
    if (p->drawn) {
        (void)fputs("\r\033[K", stderr); /* an error line must stand alone */
        (void)fflush(stderr);
    }
    p->on = p->drawn = false;
}

int
cli_progress_call(void *arg, uint64_t done, uint64_t total)
{
    struct cli_progress *p = arg;

    p->total = total;
    cli_progress_update(p, done, done);
    return cli_interrupted() ? 1 : 0;
}
