/* SPDX-License-Identifier: BSD-3-Clause
 *
 * What a flush, FUA and an orderly end promise, one by one.  Commits for any
 * other reason are put off for an hour, so that nothing is there by luck.
 * (crash/kill_nbd does the same under load.)
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "harness.h"

#define DISK_BYTES (4u << 20)

static const char *const lazy[] = {"file=disk", "commit-interval=3600", NULL};

static void
begin(struct harness *h)
{
    harness_begin(h);
    harness_create(h, "disk", DISK_BYTES, 4096);
    harness_start(h, lazy, NULL);
}

/* After the crash: COUNT bytes at OFFSET, through a new server. */
static void
expect(struct harness *h, const char *want, size_t count, uint64_t offset)
{
    struct nbd_handle *nbd;
    char buf[64];

    harness_start(h, lazy, NULL);
    nbd = harness_connect(h, "");
    assert_int_equal(nbd_pread(nbd, buf, count, offset, 0), 0);
    assert_memory_equal(buf, want, count);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(h), 0);
}

static void
flush__other_connection__covers_all_writes(void **state)
{
    struct harness h;
    struct nbd_handle *writer, *flusher;

    (void)state;
    begin(&h);
    writer = harness_connect(&h, "");
    flusher = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(writer, "one", 3, 10, 0), 0);
    assert_int_equal(nbd_pwrite(writer, "two", 3, 1000000, 0), 0);
    assert_int_equal(nbd_flush(flusher, 0), 0);
    harness_kill(&h);
    nbd_close(writer);
    nbd_close(flusher);
    expect(&h, "\0one\0", 5, 9);
    expect(&h, "\0two\0", 5, 999999);
    harness_end(&h);
}

static void
flush__order__the_later_survives_only_with_the_earlier(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;
    char buf[5];

    (void)state;
    begin(&h);
    nbd = harness_connect(&h, "");
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(nbd_pwrite(nbd, &"abcde"[i], 1, (uint64_t)i * 65536, 0), 0);
    assert_int_equal(nbd_flush(nbd, 0), 0);
    /* Not flushed: some prefix of these may be there. */
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(nbd_pwrite(nbd, &"ABCDE"[i], 1, (uint64_t)i * 65536, 0), 0);
    harness_kill(&h);
    nbd_close(nbd);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(harness_peek(&h, "disk", buf + i, 1, (uint64_t)i * 65536), 0);
    for (unsigned i = 0; i < 5; i++) {
        assert_true(buf[i] == (char)('a' + i) || buf[i] == (char)('A' + i));
        assert_false(i > 0 && buf[i] == (char)('A' + i) && buf[i - 1] != (char)('A' + i - 1));
    }
    harness_end(&h);
}

static void
fua__write_zero_trim__there_after_a_kill(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;

    (void)state;
    begin(&h);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "abcdefgh", 8, 4092, LIBNBD_CMD_FLAG_FUA), 0);
    harness_kill(&h);
    nbd_close(nbd);
    expect(&h, "\0abcdefgh\0", 10, 4091);

    harness_start(&h, lazy, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_zero(nbd, 2, 4093, LIBNBD_CMD_FLAG_FUA), 0);
    harness_kill(&h);
    nbd_close(nbd);
    expect(&h, "\0a\0\0defgh\0", 10, 4091);

    harness_start(&h, lazy, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_trim(nbd, 2, 4097, LIBNBD_CMD_FLAG_FUA), 0);
    harness_kill(&h);
    nbd_close(nbd);
    expect(&h, "\0a\0\0de\0\0h\0", 10, 4091);
    harness_end(&h);
}

/* FUA makes what was answered before durable with it: else B without A. */
static void
fua__after_a_plain_write__both_survive(void **state)
{
    struct harness h;
    struct nbd_handle *nbd, *other;

    (void)state;
    begin(&h);
    nbd = harness_connect(&h, "");
    other = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "A", 1, 0, 0), 0);
    assert_int_equal(nbd_pwrite(other, "B", 1, 2 << 20, LIBNBD_CMD_FLAG_FUA), 0);
    harness_kill(&h);
    nbd_close(nbd);
    nbd_close(other);
    expect(&h, "A", 1, 0);
    expect(&h, "B", 1, 2 << 20);
    harness_end(&h);
}

/* Wait until another process sees BYTE at 0: an event nobody announces. */
static bool
seen_by_others(const struct harness *h, char byte)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    char now = 0;

    for (unsigned i = 0; i < 3000; i++) {
        assert_int_equal(harness_peek(h, "disk", &now, 1, 0), 0);
        if (now == byte)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

/* Every line that nbdkit and its plugin say in an orderly end is one too many; the plugin said
 * one at the start if the engine promises less than others. */
static void
expect_silence(const struct harness *h)
{
    char *log = harness_log(h);

    assert_int_equal(harness_cut_warnings(log), harness_warnings_expected());
    if (strstr(log, "nbdkit: ") != NULL)
        fail_msg("not a silent end: %s", log);
    free(log);
}

static void
sigterm__idle_client__acknowledged_data_are_committed(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;
    char now = 1;

    (void)state;
    begin(&h);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "kept", 4, 0, 0), 0);
    assert_int_equal(harness_peek(&h, "disk", &now, 1, 0), 0);
    assert_int_equal(now, 0); /* nobody asked for a commit yet */
    assert_int_equal(kill(h.pid, SIGTERM), 0);
    /* The client stays.  Whatever nbdkit does meanwhile, the data are safe. */
    assert_true(seen_by_others(&h, 'k'));
    harness_kill(&h);
    nbd_close(nbd);
    expect(&h, "kept", 4, 0);
    harness_end(&h);
}

static void
sigterm__client_that_leaves_later__orderly_end(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;

    (void)state;
    begin(&h);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "kept", 4, 0, 0), 0);
    assert_int_equal(kill(h.pid, SIGTERM), 0);
    assert_true(seen_by_others(&h, 'k'));
    nbd_close(nbd); /* nbdkit calls no .close after this */
    assert_int_equal(harness_stop(&h), 0);
    expect_silence(&h);
    expect(&h, "kept", 4, 0);
    harness_end(&h);
}

static void
sigterm__no_client__all_is_committed(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;

    (void)state;
    begin(&h);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "kept", 4, 0, 0), 0);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    expect_silence(&h);
    expect(&h, "kept", 4, 0);
    harness_end(&h);
}

/* SIGHUP, Ctrl-C and Ctrl-\ end nbdkit as SIGTERM does; SIGPIPE does nothing. */
static void
other_signals__idle_client__as_sigterm(void **state)
{
    static const int signals[] = {SIGINT, SIGQUIT, SIGHUP};
    struct harness h;
    struct nbd_handle *nbd;

    (void)state;
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        begin(&h);
        nbd = harness_connect(&h, "");
        assert_int_equal(kill(h.pid, SIGPIPE), 0);
        assert_int_equal(nbd_pwrite(nbd, "kept", 4, 0, 0), 0);
        assert_int_equal(kill(h.pid, signals[i]), 0);
        assert_true(seen_by_others(&h, 'k'));
        nbd_close(nbd);
        assert_int_equal(harness_stop(&h), 0);
        expect_silence(&h);
        harness_end(&h);
    }
}

/* nbdkit -s: one client on stdin, no signal, no socket. */
static void
single_client__hangs_up__all_is_committed(void **state)
{
    struct harness h;
    struct nbd_handle *nbd = nbd_create();
    const char *preload = getenv("KVFS_PRELOAD");
    char env[512];
    const char *argv[] = {"env",
                          env,
                          "nbdkit",
                          "-s",
                          getenv("KVFS_PLUGIN"),
                          h.volume,
                          "file=disk",
                          "create=1M",
                          "commit-interval=3600",
                          NULL};
    char buf[4];

    (void)state;
    (void)snprintf(env, sizeof(env), "LD_PRELOAD=%s", preload != NULL ? preload : "");
    harness_begin(&h);
    assert_non_null(nbd);
    assert_int_equal(nbd_set_strict_mode(nbd, LIBNBD_STRICT_COMMANDS), 0);
    assert_int_equal(nbd_connect_command(nbd, (char **)(uintptr_t)argv), 0);
    assert_int_equal(nbd_pwrite(nbd, "kept", 4, 0, 0), 0);
    assert_int_equal(nbd_shutdown(nbd, 0), 0);
    nbd_close(nbd); /* waits for nbdkit */
    assert_int_equal(harness_peek(&h, "disk", buf, 4, 0), 0);
    assert_memory_equal(buf, "kept", 4);
    harness_end(&h);
}

static void
commit_interval__short__others_see_it_soon(void **state)
{
    static const char *const eager[] = {"file=disk", "commit-interval=0.05", NULL};
    struct harness h;
    struct nbd_handle *nbd;

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", DISK_BYTES, 4096);
    harness_start(&h, eager, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "soon", 4, 0, 0), 0);
    assert_true(seen_by_others(&h, 's'));
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flush__other_connection__covers_all_writes),
        cmocka_unit_test(flush__order__the_later_survives_only_with_the_earlier),
        cmocka_unit_test(fua__write_zero_trim__there_after_a_kill),
        cmocka_unit_test(fua__after_a_plain_write__both_survive),
        cmocka_unit_test(sigterm__no_client__all_is_committed),
        cmocka_unit_test(single_client__hangs_up__all_is_committed),
    };
    const struct CMUnitTest shared[] = {
        /* another process looks while the server runs */
        cmocka_unit_test(sigterm__idle_client__acknowledged_data_are_committed),
        cmocka_unit_test(sigterm__client_that_leaves_later__orderly_end),
        cmocka_unit_test(other_signals__idle_client__as_sigterm),
        cmocka_unit_test(commit_interval__short__others_see_it_soon),
    };
    int failed;

    harness_need_nbdkit();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chosen_has(KVFS_CAP_MULTIPROCESS))
        failed += cmocka_run_group_tests(shared, NULL, NULL);
    return failed;
}
