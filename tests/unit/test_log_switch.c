/* SPDX-License-Identifier: BSD-3-Clause
 *
 * A volume's log is switched on or off, or the volume formatted anew, by another process at the
 * worst instant: when the file `volume` was read and the volume's lock is not yet held.  Whoever
 * opens works with what the volume is by then, or refuses; nothing committed is missed.
 *
 * The instant is met exactly: the lock's calls are wrapped, and the one that is armed has the
 * other process act and end before it goes on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kvfs/kvfs.h>

#include "lease.h"

#define LOCK_VOLUME ((off_t)1 << 40) /* lease.c */

/* What the other process does; it ends without closing what it opened. */
enum act {
    ACT_NONE,
    ACT_ON,     /* switch the log on, make the file `new`, durably */
    ACT_OFF,    /* switch it off */
    ACT_FORMAT, /* format by force, without a log */
};

static struct world {
    char folder[64];
    pid_t other;
    int asks[2], answers[2];
    enum act at_table; /* armed: before the table of leases opens */
    bool alone;        /* ... or only where it wants the volume alone */
    enum act at_lock;  /* armed: the lock file is open, the volume's byte not yet locked */
} w;

static const struct kvfs_create new_file = {.mode = S_IFREG | 0600};

/* --- the other process ------------------------------------------------------------------- */

static int
act(enum act what)
{
    const struct kvfs_format_options anew = {.engine = "lmdb", .force = true};
    struct kvfs_volume *v;
    int rc;

    if (what == ACT_FORMAT)
        return kvfs_format(w.folder, &anew, NULL);
    rc = kvfs_volume_log(w.folder, what == ACT_ON, false, NULL);
    if (rc < 0 || what == ACT_OFF)
        return rc;
    rc = kvfs_volume_open(w.folder, NULL, &v, NULL);
    if (rc == 0)
        rc = kvfs_create(v, KVFS_ROOT_INO, "new", &new_file, NULL, NULL);
    return rc == 0 ? kvfs_volume_sync(v, NULL) : rc;
}

/* A child for each act: its death leaves what it did not fold in the log. */
static void
other_serve(void)
{
    uint8_t what;

    while (read(w.asks[0], &what, 1) == 1) {
        int status = 1;
        pid_t pid = fork();
        uint8_t answer;

        if (pid == 0)
            _exit(act((enum act)what) == 0 ? 0 : 1);
        if (pid > 0)
            (void)waitpid(pid, &status, 0);
        answer = status == 0;
        if (write(w.answers[1], &answer, 1) != 1)
            break;
    }
    _exit(0);
}

/* Did it work? */
static bool
other_acts(enum act what)
{
    uint8_t byte = (uint8_t)what;

    assert_int_equal(write(w.asks[1], &byte, 1), 1);
    assert_int_equal(read(w.answers[0], &byte, 1), 1);
    return byte == 1;
}

/* --- the instant ----------------------------------------------------------------------------- */

int __real_kvfs_lease_table_open(const char *path, bool readonly, bool exclusive,
                                 struct kvfs_lease_table **tablep, struct kvfs_error *err);
int __wrap_kvfs_lease_table_open(const char *path, bool readonly, bool exclusive,
                                 struct kvfs_lease_table **tablep, struct kvfs_error *err);
int __real_fcntl64(int fd, int cmd, void *arg);
int __wrap_fcntl64(int fd, int cmd, void *arg);

static void
armed(enum act *what)
{
    enum act now = *what;

    *what = ACT_NONE;
    if (now != ACT_NONE)
        assert_true(other_acts(now));
}

int
__wrap_kvfs_lease_table_open(const char *path, bool readonly, bool exclusive,
                             struct kvfs_lease_table **tablep, struct kvfs_error *err)
{
    if (exclusive || !w.alone)
        armed(&w.at_table);
    return __real_kvfs_lease_table_open(path, readonly, exclusive, tablep, err);
}

int
__wrap_fcntl64(int fd, int cmd, void *arg)
{
    if (cmd == F_OFD_SETLK && ((const struct flock *)arg)->l_start == LOCK_VOLUME)
        armed(&w.at_lock);
    return __real_fcntl64(fd, cmd, arg);
}

/* --- cases -------------------------------------------------------------------------------- */

static int
setup(void **state)
{
    const struct kvfs_format_options options = {.engine = "lmdb"};

    (void)state;
    memset(&w, 0, sizeof(w));
    (void)snprintf(w.folder, sizeof(w.folder), "/tmp/kvfs-switch-XXXXXX");
    assert_non_null(mkdtemp(w.folder));
    assert_int_equal(kvfs_format(w.folder, &options, NULL), 0);
    assert_int_equal(pipe2(w.asks, O_CLOEXEC), 0);
    assert_int_equal(pipe2(w.answers, O_CLOEXEC), 0);
    w.other = fork();
    assert_true(w.other >= 0);
    if (w.other == 0) {
        (void)close(w.asks[1]);
        other_serve();
    }
    (void)close(w.asks[0]);
    (void)close(w.answers[1]);
    return 0;
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int
teardown(void **state)
{
    (void)state;
    (void)close(w.asks[1]); /* its end */
    (void)close(w.answers[0]);
    (void)waitpid(w.other, NULL, 0);
    // NOLINTNEXTLINE(concurrency-mt-unsafe): there is one thread
    (void)nftw(w.folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static struct kvfs_volume *
must_open(bool readonly, const char *engine)
{
    const struct kvfs_volume_options options = {.readonly = readonly};
    struct kvfs_volume_info info;
    struct kvfs_error err = {0};
    struct kvfs_volume *v = NULL;

    if (kvfs_volume_open(w.folder, &options, &v, &err) != 0)
        fail_msg("open: %s", err.msg);
    kvfs_volume_info(v, &info);
    assert_string_equal(info.engine, engine);
    return v;
}

/* Is the file `new` there? */
static bool
has_new(struct kvfs_volume *v)
{
    struct kvfs_attr attr;

    return kvfs_lookup(v, KVFS_ROOT_INO, "new", &attr, NULL) == 0;
}

static void
open__log_switched_on_before_the_lock__what_was_committed_is_there(void **state)
{
    (void)state;
    for (int readonly = 1; readonly >= 0; readonly--) {
        struct kvfs_volume *v;

        w.at_table = ACT_ON;
        v = must_open(readonly == 1, "log:lmdb");
        assert_true(has_new(v));
        if (readonly == 0)
            assert_int_equal(kvfs_create(v, KVFS_ROOT_INO, "more", &new_file, NULL, NULL), 0);
        assert_int_equal(kvfs_volume_close(v, NULL), 0);
        v = must_open(true, "log:lmdb");
        assert_true(has_new(v));
        assert_int_equal(kvfs_volume_close(v, NULL), 0);
        assert_true(other_acts(ACT_FORMAT));
    }
}

static void
open__log_switched_off_before_the_lock__no_log_is_made(void **state)
{
    char log[96];

    (void)state;
    (void)snprintf(log, sizeof(log), "%s/log", w.folder);
    for (int readonly = 1; readonly >= 0; readonly--) {
        struct kvfs_volume *v;

        assert_int_equal(kvfs_volume_log(w.folder, true, false, NULL), 0);
        w.at_table = ACT_OFF;
        v = must_open(readonly == 1, "lmdb");
        assert_int_equal(kvfs_volume_close(v, NULL), 0);
        assert_int_equal(access(log, F_OK), -1);
    }
}

static void
open__lock_file_replaced_before_it_is_locked__the_new_one_is_held(void **state)
{
    struct kvfs_volume *v;

    (void)state;
    w.at_lock = ACT_FORMAT;
    v = must_open(false, "lmdb");
    assert_false(other_acts(ACT_ON)); /* it is in use */
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
    assert_true(other_acts(ACT_ON));
}

static void
check__repair_and_log_switched_on__checks_what_the_log_holds(void **state)
{
    const struct kvfs_check_options options = {.repair = true};
    struct kvfs_check_result result;
    struct kvfs_volume *v;

    (void)state;
    w.at_table = ACT_ON;
    assert_int_equal(kvfs_check(w.folder, &options, &result, NULL), 0);
    assert_int_equal(result.findings, 0);
    assert_int_equal(result.inodes, 2);
    v = must_open(false, "log:lmdb");
    assert_true(has_new(v));
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

/* The file as it was read must not be written back over another volume. */
static void
log__volume_formatted_before_the_lock__refused_and_left_alone(void **state)
{
    struct kvfs_volume *v;

    (void)state;
    w.alone = true;
    w.at_table = ACT_FORMAT;
    assert_int_equal(kvfs_volume_log(w.folder, true, false, NULL), -EBUSY);
    v = must_open(false, "lmdb");
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

static void
compact__log_switched_on_before_the_lock__refused(void **state)
{
    struct kvfs_volume *v;

    (void)state;
    w.alone = true;
    w.at_table = ACT_ON;
    assert_int_equal(kvfs_volume_compact(w.folder, 0, NULL, NULL, NULL, NULL), -EBUSY);
    v = must_open(true, "log:lmdb");
    assert_true(has_new(v));
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

/* What a dead process left in the log is lost with it: the rest is whole, and that it is lost
 * is a finding. */
static void
check__repair_without_the_log_of_a_dead_process__the_rest_is_whole(void **state)
{
    const struct kvfs_check_options options = {.repair = true};
    struct kvfs_check_result result;
    struct kvfs_volume *v;
    char log[96];

    (void)state;
    (void)snprintf(log, sizeof(log), "%s/log", w.folder);
    assert_true(other_acts(ACT_ON));
    assert_int_equal(unlink(log), 0);
    assert_int_equal(kvfs_volume_open(w.folder, NULL, &v, NULL), -EIO);
    assert_int_equal(kvfs_check(w.folder, &options, &result, NULL), 0);
    assert_int_equal(result.findings, 1);
    assert_int_equal(result.repaired, 1);
    assert_int_equal(kvfs_check(w.folder, NULL, &result, NULL), 0);
    assert_int_equal(result.findings, 0);
    v = must_open(false, "log:lmdb");
    assert_int_equal(kvfs_create(v, KVFS_ROOT_INO, "after", &new_file, NULL, NULL), 0);
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
    v = must_open(true, "log:lmdb");
    assert_int_equal(kvfs_volume_close(v, NULL), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(open__log_switched_on_before_the_lock__what_was_committed_is_there),
        TEST(open__log_switched_off_before_the_lock__no_log_is_made),
        TEST(open__lock_file_replaced_before_it_is_locked__the_new_one_is_held),
        TEST(check__repair_and_log_switched_on__checks_what_the_log_holds),
        TEST(log__volume_formatted_before_the_lock__refused_and_left_alone),
        TEST(compact__log_switched_on_before_the_lock__refused),
        TEST(check__repair_without_the_log_of_a_dead_process__the_rest_is_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
