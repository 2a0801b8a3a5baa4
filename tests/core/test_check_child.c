/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The engine's part of a check in a child process: an engine that crashes or hangs
 * on a store is a finding with its name (mad_engine.c goes mad where it is told).
 */
#include "core_world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK_LEN 4096u

static int
setup(void **state)
{
    struct kvfs_volume *v;
    struct kvfs_file *f;

    (void)state;
    assert_int_equal(unsetenv("KVFS_MAD"), 0);
    world_make("mad", BLOCK_LEN);
    v = world_open(NULL, 0);
    (void)world_file(v, "d", 1 << 20);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    world_fill(f, 0, 1 << 20, 'x');
    MUST(kvfs_file_flush(f, &world_err));
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    (void)unsetenv("KVFS_MAD");
    world_remove();
    return 0;
}

struct seen {
    char text[4096];
};

static void
finding(void *arg, const char *where, const char *what)
{
    struct seen *seen = arg;
    size_t n = strlen(seen->text);

    (void)snprintf(seen->text + n, sizeof(seen->text) - n, "%s: %s\n", where, what);
}

static void
run(bool repair, struct seen *seen, struct kvfs_check_result *result)
{
    struct kvfs_check_options options = {
        .repair = repair, .child = true, .patience_s = 1, .finding = finding, .finding_arg = seen};

    memset(seen, 0, sizeof(*seen));
    MUST(kvfs_check(world_path, &options, result, &world_err));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

static void
check__engine_goes_mad__finding_with_its_name(void **state)
{
    static const struct {
        const char *mad, *words;
    } table[] = {
        {"open segv", "the engine mad crashed (signal 11, Segmentation fault) while opening it"},
        {"open abort", "the engine mad crashed (signal 6, Aborted) while opening it"},
        {"open hang", "the engine mad hangs (no sign of life for 1 s) while opening it"},
        {"verify segv", "the engine mad crashed (signal 11, Segmentation fault) while verifying"},
        {"verify hang", "the engine mad hangs (no sign of life for 1 s) while verifying it"},
        {"verify exit", "the engine mad ended its process (status 3) while verifying it"},
        {"read segv", "the engine mad crashed (signal 11, Segmentation fault) while reading it"},
        {"close abort", "the engine mad crashed (signal 6, Aborted) while closing it"},
    };
    struct kvfs_check_result result;
    struct seen seen;

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (int repair = 0; repair < 2; repair++) {
            assert_int_equal(setenv("KVFS_MAD", table[i].mad, 1), 0);
            run(repair, &seen, &result);
            if (strstr(seen.text, table[i].words) == NULL)
                fail_msg("%s: no '%s' in: %s", table[i].mad, table[i].words, seen.text);
            assert_int_equal(result.findings, strncmp(table[i].mad, "read", 4) == 0 ? 2 : 1);
            assert_int_equal(result.repaired, 0);
        }
    }
    assert_int_equal(unsetenv("KVFS_MAD"), 0);
    run(true, &seen, &result); /* nobody was hurt */
    assert_string_equal(seen.text, "");
    assert_int_equal(result.blocks, (1 << 20) / BLOCK_LEN);
}

static void
check__sound_engine__as_without_a_child(void **state)
{
    struct kvfs_check_options options = {0};
    struct kvfs_check_result with, without;
    struct seen seen;

    (void)state;
    run(false, &seen, &with);
    assert_string_equal(seen.text, "");
    MUST(kvfs_check(world_path, &options, &without, &world_err));
    assert_int_equal(with.records, without.records);
    assert_int_equal(with.blocks, without.blocks);
    assert_int_equal(with.inodes, without.inodes);
}

static int
stop(void *arg, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    return ++*(int *)arg > 2;
}

static void
check__interrupted_while_the_child_hangs__ends(void **state)
{
    int calls = 0;
    struct kvfs_check_options options = {
        .child = true, .progress = stop, .progress_arg = &calls};
    struct kvfs_check_result result;

    (void)state;
    assert_int_equal(setenv("KVFS_MAD", "verify hang", 1), 0);
    assert_int_equal(kvfs_check(world_path, &options, &result, &world_err), -EINTR);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(check__engine_goes_mad__finding_with_its_name, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(check__sound_engine__as_without_a_child, setup, teardown),
        cmocka_unit_test_setup_teardown(check__interrupted_while_the_child_hangs__ends, setup,
                                        teardown),
    };

    return cmocka_run_group_tests_name("check in a child", tests, NULL, NULL);
}
