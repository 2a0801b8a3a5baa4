/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_control.c - the control socket of a running filter: clients that are slow, many or talk
 * nonsense keep nobody out, and `wait` ends with the power.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "world.h"

static const char *const memory[] = {"memory", "1M", NULL};

static int
dial(const struct world *w)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", w->control);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void
say(int fd, const void *bytes, size_t count)
{
    assert_int_equal(send(fd, bytes, count, MSG_NOSIGNAL), (ssize_t)count);
}

/* All that FD hears until it is closed. */
static char *
hear(int fd)
{
    static char text[8192];
    size_t used = 0;
    ssize_t n;

    while ((n = recv(fd, text + used, sizeof(text) - 1 - used, 0)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    close(fd);
    return text;
}

static void
clients__slow_or_many_or_gone__keep_nobody_out(void **state)
{
    int slow[40], fd;
    struct world w;

    (void)state;
    world_begin(&w);
    world_start(&w, memory);
    for (int i = 0; i < 40; i++) { /* each alone has five seconds; together they have no more */
        slow[i] = dial(&w);
        say(slow[i], "st", 2);
    }
    assert_int_equal(world_stat(&w, "open"), 0);
    say(slow[7], "ats\n", 4);
    assert_int_equal(strncmp(hear(slow[7]), "ok\npower=on\n", 12), 0);
    for (int i = 0; i < 2000; i++) {
        fd = dial(&w);
        if (i % 3 == 0)
            say(fd, "stats\n", 6);
        close(fd);
    }
    assert_int_equal(world_ctl(&w, "mark still", NULL), 0);
    assert_int_equal(world_stat(&w, "marks"), 1);
    for (int i = 0; i < 40; i++) {
        if (i != 7 && i != 8)
            close(slow[i]);
    }
    assert_non_null(strstr(hear(slow[8]), "error no command came")); /* its patience is over */
    world_stop(&w);
    world_end(&w);
}

static void
garbage__sent__is_an_error_or_nothing(void **state)
{
    char line[4096];
    struct world w;
    int fd;

    (void)state;
    world_begin(&w);
    world_start(&w, memory);
    memset(line, 0xff, sizeof(line));
    fd = dial(&w);
    (void)send(fd, line, sizeof(line), MSG_NOSIGNAL);
    (void)hear(fd);
    fd = dial(&w);
    say(fd, "\0\0cut\n", 6);
    assert_int_equal(strncmp(hear(fd), "error ", 6), 0);
    fd = dial(&w);
    say(fd, "stats\ncut\n", 10); /* one command a connection */
    assert_int_equal(strncmp(hear(fd), "ok\npower=on\n", 12), 0);
    fd = dial(&w);
    say(fd, "\n", 1);
    assert_int_equal(strncmp(hear(fd), "error ", 6), 0);
    assert_int_equal(world_stat(&w, "cuts"), 0);
    world_stop(&w);
    world_end(&w);
}

static void
wait__for_a_cut__ends_with_it_even_if_the_power_is_on_again(void **state)
{
    struct nbd_handle *nbd;
    struct world w;
    int waiting[3];
    char byte = 'x';

    (void)state;
    world_begin(&w);
    world_start(&w, memory);
    for (int i = 0; i < 3; i++) {
        waiting[i] = dial(&w);
        say(waiting[i], "wait\n", 5);
    }
    assert_int_equal(world_ctl(&w, "cut --after-writes=2 --survive=drop-all --seed=9", NULL), 0);
    nbd = world_connect(&w);
    assert_int_equal(nbd_pwrite(nbd, &byte, 1, 0, 0), 0);
    assert_int_equal(nbd_pwrite(nbd, &byte, 1, 512, 0), 0);
    assert_int_equal(world_ctl(&w, "wait", NULL), 0); /* off already */
    assert_int_equal(world_ctl(&w, "wait --json", NULL), 0);
    assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
    for (int i = 0; i < 2; i++) {
        const char *said = hear(waiting[i]);

        assert_true(strncmp(said, "ok\nopen=2\n", 10) == 0 && strstr(said, "\nseed=9\n") != NULL);
    }
    close(waiting[2]);
    waiting[0] = dial(&w); /* the power is on: this one waits for the next cut, or the end */
    say(waiting[0], "wait\n", 5);
    assert_int_equal(world_stat(&w, "cuts"), 1);
    nbd_close(nbd);
    world_stop(&w);
    assert_string_equal(hear(waiting[0]), "");
    world_end(&w);
}

/* Whether the read or the cut is first is the machine's; where the read is, it fails. */
static void
read__under_way_at_a_cut__fails_though_the_power_is_on_again(void **state)
{
    static const char *const slow[] = {"memory", "1M", "crashsim-latency=400000,0,0", NULL};
    bool failed = false;
    struct world w;

    (void)state;
    world_begin(&w);
    world_start(&w, slow);
    for (int i = 0; i < 20 && !failed; i++) {
        struct nbd_handle *nbd = world_connect(&w);
        char bytes[512] = "";
        int64_t cookie = nbd_aio_pread(nbd, bytes, sizeof(bytes), 0, NBD_NULL_COMPLETION, 0);
        int r;

        assert_true(cookie > 0);
        assert_int_equal(nbd_pwrite(nbd, bytes, sizeof(bytes), 512, 0), 0); /* sent behind it */
        assert_int_equal(world_ctl(&w, "cut", NULL), 0);
        assert_int_equal(world_ctl(&w, "power-on", NULL), 0);
        while ((r = nbd_aio_command_completed(nbd, (uint64_t)cookie)) == 0)
            assert_true(nbd_poll(nbd, -1) >= 0);
        failed = r < 0;
        nbd_close(nbd);
    }
    assert_true(failed);
    world_stop(&w);
    world_end(&w);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients__slow_or_many_or_gone__keep_nobody_out),
        cmocka_unit_test(garbage__sent__is_an_error_or_nothing),
        cmocka_unit_test(read__under_way_at_a_cut__fails_though_the_power_is_on_again),
        cmocka_unit_test(wait__for_a_cut__ends_with_it_even_if_the_power_is_on_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
