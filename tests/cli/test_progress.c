/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The bar: what it says of the time left, at a terminal.  No time passes: the
 * start is set back.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "cli.h"

/* What progress.c takes from the rest of the command. */
bool
cli_interrupted(void)
{
    return false;
}

const char *
cli_size_text(uint64_t bytes, char *buf)
{
    (void)snprintf(buf, CLI_SIZE_TEXT, "%u B", (unsigned)bytes);
    return buf;
}

/* The line drawn by a check that took 10 s for DONE of TOTAL. */
static void
bar_after(uint64_t done, uint64_t total, char *line, size_t cap)
{
    const struct winsize ws = {.ws_row = 25, .ws_col = 100};
    const struct cli c = {.command = NULL};
    struct cli_progress p;
    int fd = posix_openpt(O_RDWR | O_NOCTTY), tty, old = dup(STDERR_FILENO);
    ssize_t n;

    assert_true(fd >= 0 && old >= 0);
    assert_int_equal(grantpt(fd), 0);
    assert_int_equal(unlockpt(fd), 0);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    tty = open(ptsname(fd), O_RDWR | O_NOCTTY);
    assert_true(tty >= 0);
    assert_int_equal(ioctl(tty, TIOCSWINSZ, &ws), 0);
    assert_true(dup2(tty, STDERR_FILENO) >= 0);
    cli_progress_start(&p, &c, "check", 0, false);
    p.start_ns -= 10000000000;
    p.last_ns -= 10000000000;
    (void)cli_progress_call(&p, done, total);
    assert_true(dup2(old, STDERR_FILENO) >= 0);
    n = read(fd, line, cap - 1);
    assert_true(n > 0);
    line[n] = '\0';
    (void)close(old);
    (void)close(tty);
    (void)close(fd);
}

static void
bar__nothing_done__time_left_is_unknown(void **state)
{
    char line[512];

    (void)state;
    bar_after(0, 1000, line, sizeof(line));
    assert_non_null(strstr(line, "check   0%"));
    assert_non_null(strstr(line, "ETA -:--:--"));
    bar_after(1, UINT64_MAX / 2, line, sizeof(line)); /* longer than anybody waits */
    assert_non_null(strstr(line, "ETA -:--:--"));
}

static void
bar__part_done__time_left_follows(void **state)
{
    char line[512];

    (void)state;
    bar_after(500, 1000, line, sizeof(line));
    assert_non_null(strstr(line, "check  50%"));
    assert_true(strstr(line, "ETA 0:00:10") != NULL || strstr(line, "ETA 0:00:09") != NULL ||
                strstr(line, "ETA 0:00:11") != NULL);
}

static void
bar__no_total__no_time_left(void **state)
{
    char line[512];

    (void)state;
    bar_after(500, 0, line, sizeof(line));
    assert_null(strstr(line, "ETA"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bar__nothing_done__time_left_is_unknown),
        cmocka_unit_test(bar__part_done__time_left_follows),
        cmocka_unit_test(bar__no_total__no_time_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
