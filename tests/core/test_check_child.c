/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The engine's part of a check in a child process: an engine that crashes or hangs
 * on a store is a finding with its name (mad_engine.c goes mad where it is told).
 */
#include "core_world.h"

#include "../aside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCK_LEN 4096u

static void
make(void *arg)
{
    struct kvfs_volume *v;
    struct kvfs_file *f;

    (void)arg;
    world_format("mad", BLOCK_LEN);
    v = world_open(NULL, 0);
    (void)world_file(v, "d", 1 << 20);
    f = world_file_open(v, "d", KVFS_OPEN_WRITE);
    world_fill(f, 0, 1 << 20, 'x');
    MUST(kvfs_file_flush(f, &world_err));
    kvfs_file_close(f);
    MUST(kvfs_volume_close(v, &world_err));
}

static int
setup(void **state)
{
    (void)state;
    assert_int_equal(unsetenv("KVFS_MAD"), 0);
    world_folder();
    aside(make, NULL);
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

/* What one check said, and how it is made. */
struct seen {
    char text[4096];
    bool repair, child;
    unsigned patience_s;
    struct kvfs_check_result result;
};

static void
finding(void *arg, const char *where, const char *what)
{
    struct seen *seen = arg;
    size_t n = strlen(seen->text);

    (void)snprintf(seen->text + n, sizeof(seen->text) - n, "%s: %s\n", where, what);
}

static void
run_aside(void *arg)
{
    struct seen *seen = arg;
    struct kvfs_check_options options = {.repair = seen->repair,
                                         .child = seen->child,
                                         .patience_s = seen->patience_s,
                                         .finding = finding,
                                         .finding_arg = seen};

    MUST(kvfs_check(world_path, &options, &seen->result, &world_err));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

/* Long enough for a sound store to be opened on a busy machine, unless nobody will. */
static unsigned
patience(void)
{
    const char *mad = getenv("KVFS_MAD"); /* NOLINT(concurrency-mt-unsafe): one thread */

    if (mad == NULL || strstr(mad, "hang") == NULL)
        return 60;
    return strncmp(mad, "open", 4) == 0 ? 1 : 4;
}

static void
run(bool repair, bool child, struct seen *seen)
{
    memset(seen, 0, sizeof(*seen));
    seen->repair = repair;
    seen->child = child;
    seen->patience_s = patience();
    aside(run_aside, seen);
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
        {"verify hang", "the engine mad hangs (no sign of life for 4 s) while verifying it"},
        {"verify exit", "the engine mad ended its process (status 3) while verifying it"},
        {"read segv", "the engine mad crashed (signal 11, Segmentation fault) while reading it"},
        {"close abort", "the engine mad crashed (signal 6, Aborted) while closing it"},
    };
    struct seen *seen = aside_shared(sizeof(*seen));

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        for (int repair = 0; repair < 2; repair++) {
            assert_int_equal(setenv("KVFS_MAD", table[i].mad, 1), 0);
            run(repair, true, seen);
            if (strstr(seen->text, table[i].words) == NULL)
                fail_msg("%s: no '%s' in: %s", table[i].mad, table[i].words, seen->text);
            assert_int_equal(seen->result.findings,
                             strncmp(table[i].mad, "read", 4) == 0 ? 2 : 1);
            assert_int_equal(seen->result.repaired, 0);
        }
    }
    assert_int_equal(unsetenv("KVFS_MAD"), 0);
    run(true, true, seen); /* nobody was hurt */
    assert_string_equal(seen->text, "");
    assert_int_equal(seen->result.blocks, (1 << 20) / BLOCK_LEN);
}

static void
check__sound_engine__as_without_a_child(void **state)
{
    struct seen *with = aside_shared(sizeof(*with)), *without = aside_shared(sizeof(*without));

    (void)state;
    run(false, true, with);
    assert_string_equal(with->text, "");
    run(false, false, without);
    assert_string_equal(without->text, "");
    assert_int_equal(with->result.records, without->result.records);
    assert_int_equal(with->result.blocks, without->result.blocks);
    assert_int_equal(with->result.inodes, without->result.inodes);
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
