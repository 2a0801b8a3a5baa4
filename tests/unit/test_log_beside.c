/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Beside a process that logs: what readers see of that which goes past the log, and what is
 * refused: an opener that hangs, a lock file taken away, a store put back.
 */
#include "log_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VALUE_LARGE 40000u /* not for a ring of 64 KiB: it goes past the log */

/* --- what goes past the log ---------------------------------------------------------------------- */

/* Writer 1 commits, until it is logged; then nothing moves any more. */
static void
child_log_one(void)
{
    struct kvfs_engine_stat stat = {.log_used_bytes = 0};

    for (uint64_t i = 1; stat.log_used_bytes == 0; i++) {
        child_commit(1, i, KVFS_DURABLE);
        if (w.engine->stat(w.db, &stat, NULL) != 0)
            child_fail("stat");
    }
    child_tell(TOLD_END);
    (void)raise(SIGSTOP);
}

/* A reader that has its snapshot of the engine below and not yet the ring. */
static pid_t
start_slow_reader(void)
{
    pid_t pid = start();
    struct kvfs_db_snap *snap;
    struct kvfs_error err = {0};

    if (pid != 0) {
        await_stop(pid);
        return pid;
    }
    child_open("unsafe-log-stop=read", true);
    if (w.engine->begin(w.db, &snap, &err) != 0)
        child_fail("the slow reader: %s", err.msg);
    if (child_number(snap, KVFS_META, 1) > 0 && child_number(snap, KVFS_META, 0) < 2)
        child_fail("a commit is seen without one from before it");
    w.engine->end(snap);
    child_close();
    _exit(0);
}

/* It stops at each of its tries. */
static void
await_slow_reader(pid_t pid)
{
    int status;

    do {
        (void)kill(pid, SIGCONT);
        assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    } while (WIFSTOPPED(status));
    check_told();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
end_stopped(pid_t writer)
{
    while (await_byte() != TOLD_END)
        continue;
    await_stop(writer);
}

/* Two writers, the first commits a batch beside the other. */
static void
start_two(pid_t pids[2])
{
    drain();
    for (int i = 0; i < 2; i++) {
        pids[i] = start();
        if (pids[i] == 0) {
            child_open("log-size=65536", false);
            child_tell(0);
            child_await(i);
            if (i == 1) {
                child_log_one();
            } else {
                child_commit(0, 2, KVFS_DURABLE);
                child_await(i);
                child_close();
            }
            _exit(0);
        }
        (void)await_byte();
    }
}

static void
read__batch_past_the_log_meanwhile__not_missing(void **state)
{
    pid_t writer, reader;

    (void)state;
    drain();
    writer = start();
    if (writer == 0) {
        child_open("log-size=65536", false);
        child_tell(0);
        child_await(0);
        w.value_len = VALUE_LARGE;
        child_commit(0, 2, KVFS_DURABLE);
        w.value_len = VALUE_LEN;
        child_log_one();
        _exit(0);
    }
    (void)await_byte();
    reader = start_slow_reader();
    let_go(0);
    end_stopped(writer);
    await_slow_reader(reader);
    (void)kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
    look(false);
}

static void
read__others_wrote_meanwhile__not_missing(void **state)
{
    pid_t writers[2], reader;

    (void)state;
    start_two(writers);
    reader = start_slow_reader();
    let_go(0);
    (void)await_byte();
    let_go(0);
    await_end(writers[0], 0);
    let_go(1); /* it logs again */
    end_stopped(writers[1]);
    await_slow_reader(reader);
    (void)kill(writers[1], SIGKILL);
    await_end(writers[1], SIGKILL);
    look(false);
}

static void
read__others_wrote_and_went_meanwhile__not_missing(void **state)
{
    pid_t writers[2], writer, reader;

    (void)state;
    start_two(writers);
    reader = start_slow_reader();
    let_go(0);
    (void)await_byte();
    (void)kill(writers[1], SIGSTOP); /* it does not see that it is alone */
    await_stop(writers[1]);
    for (int i = 0; i < 2; i++) {
        (void)kill(writers[i], SIGKILL);
        await_end(writers[i], SIGKILL);
    }
    writer = start();
    if (writer == 0) {
        child_open("log-size=65536", false);
        child_log_one();
        _exit(0);
    }
    end_stopped(writer);
    await_slow_reader(reader);
    (void)kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
    look(false);
}

/* One that reads tells the same of the log as often as it looks, and no more than there is. */
static void
stat__read_again__log_as_full_as_before(void **state)
{
    pid_t writer = start_writer(1, "log-size=65536,log-unfolded=1048576", 0), reader;

    (void)state;
    for (int i = 0; i < 3; i++)
        (void)await_byte();
    (void)kill(writer, SIGSTOP);
    await_stop(writer);
    reader = start();
    if (reader == 0) {
        struct kvfs_engine_stat stat[3];
        struct kvfs_db_snap *snap;

        child_open("", true);
        for (int i = 0; i < 3; i++) {
            struct kvfs_error err = {0};

            if (w.engine->begin(w.db, &snap, &err) != 0 ||
                w.engine->stat(w.db, &stat[i], &err) != 0)
                child_fail("%s", err.msg);
            w.engine->end(snap);
        }
        for (int i = 1; i < 3; i++)
            if (stat[i].log_used_bytes != stat[0].log_used_bytes ||
                stat[i].used_bytes != stat[0].used_bytes)
                child_fail("the log has %llu bytes, then %llu",
                           (unsigned long long)stat[0].log_used_bytes,
                           (unsigned long long)stat[i].log_used_bytes);
        child_close();
        _exit(0);
    }
    await_end(reader, 0);
    (void)kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
}

/* --- what is refused ------------------------------------------------------------------------------ */

static void
open__other_stopped_while_it_opens__ebusy_and_its_pid(void **state)
{
    pid_t first, stopped, other;

    (void)state;
    drain();
    first = start_writer(0, "", 0);
    (void)await_byte();
    stopped = start_writer(1, "unsafe-log-stop=replay", 5);
    await_stop(stopped);
    other = start();
    if (other == 0) {
        struct kvfs_error err = {0};
        char pid[32];

        (void)alarm(60); /* rather than for ever */
        if (child_try_open("log-wait-ms=50", false, &err) != -EBUSY)
            child_fail("opening beside a stopped process: %s", err.msg);
        (void)snprintf(pid, sizeof(pid), "process %d ", (int)stopped);
        if (strstr(err.msg, pid) == NULL)
            child_fail("'%s' does not name %s", err.msg, pid);
        _exit(0);
    }
    await_end(other, 0);
    (void)kill(stopped, SIGCONT);
    await_end(stopped, 0);
    (void)kill(first, SIGKILL);
    await_end(first, SIGKILL);
    look(false);
}

/* Somebody takes the lock file away: whoever comes next cannot know of who is there. */
static void
write__lock_file_removed__refused(void **state)
{
    char path[96];
    pid_t writer;

    (void)state;
    drain();
    (void)snprintf(path, sizeof(path), "%s/log.lock", w.folder);
    writer = start();
    if (writer == 0) {
        static const struct kvfs_op op = {
            .type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "k", .key_len = 1};
        const struct kvfs_batch batch = {.ops = &op, .ops_count = 1};
        struct kvfs_error err = {0};

        child_open("", false);
        child_commit(0, 2, KVFS_DURABLE);
        child_await(0);
        if (w.engine->apply(w.db, &batch, KVFS_DURABLE, &err) != -EIO ||
            strstr(err.msg, "log.lock") == NULL)
            child_fail("a commit without the lock file: %s", err.msg);
        child_close();
        _exit(0);
    }
    (void)await_byte();
    assert_int_equal(unlink(path), 0);
    run_writer(1, "", 3); /* it replays */
    let_go(0);
    await_end(writer, 0);
    look(false);
}

/* As a checksum or a backup would; the locks of lock.mdb are LMDB's own. */
static void
child_touch_files(void)
{
    DIR *dir = opendir(w.folder);
    const struct dirent *e;

    while (dir != NULL && (e = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe): one dir
        int fd = strcmp(e->d_name, "lock.mdb") == 0
                     ? -1 : openat(dirfd(dir), e->d_name, O_RDONLY | O_CLOEXEC);

        if (fd >= 0)
            (void)close(fd);
    }
    (void)closedir(dir);
}

/* Something else in the process closes the lock file: it still keeps others from logging. */
static void
write__lock_file_read_and_closed__not_alone_beside_another(void **state)
{
    pid_t writer, other;

    (void)state;
    drain();
    writer = start();
    if (writer == 0) {
        child_open("", false);
        child_commit(0, 2, KVFS_DURABLE);
        child_touch_files();
        child_tell(0);
        child_await(0);
        child_look("who closed the lock file", NULL);
        for (uint64_t i = 3; i < 23; i++)
            child_commit(0, i, KVFS_DURABLE);
        child_close();
        _exit(0);
    }
    for (int i = 0; i < 2; i++)
        (void)await_byte();
    other = start_writer(1, "", 0);
    for (int i = 0; i < 20; i++)
        (void)await_byte();
    (void)kill(other, SIGKILL); /* it folds nothing */
    await_end(other, SIGKILL);
    let_go(0);
    await_end(writer, 0);
    look(false);
}

/* A child that sleeps does not keep its parent's log. */
static void
open__holder_killed_its_child_sleeps__replayed(void **state)
{
    pid_t writer;

    (void)state;
    drain();
    writer = start();
    if (writer == 0) {
        child_open("", false);
        child_commit(0, 2, KVFS_DURABLE);
        if (fork() == 0) {
            if (w.engine->begin(w.db, &(struct kvfs_db_snap *){NULL}, NULL) != -EBADF)
                child_fail("a handle crossed fork()");
            child_close();
            child_tell(0);
            child_await(1);
            _exit(0);
        }
        child_await(0);
        _exit(1);
    }
    for (int i = 0; i < 2; i++)
        (void)await_byte();
    (void)kill(writer, SIGKILL);
    await_end(writer, SIGKILL);
    run_writer(1, "log-wait-ms=500", 3);
    let_go(1);
    look(false);
}

static void
copy_file(const char *from, const char *to)
{
    char path[2][128];
    uint8_t bytes[4096];
    ssize_t n;
    int in, out;

    (void)snprintf(path[0], sizeof(path[0]), "%s/%s", w.folder, from);
    (void)snprintf(path[1], sizeof(path[1]), "%s/%s", w.folder, to);
    in = open(path[0], O_RDONLY | O_CLOEXEC);
    out = open(path[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, bytes, sizeof(bytes))) > 0)
        assert_int_equal(write(out, bytes, (size_t)n), n);
    assert_int_equal(n, 0);
    (void)close(in);
    (void)close(out);
}

/* An older copy of the engine's file beside the log of a later epoch: its records do not belong to
 * what they would be put on. */
static void
open__older_store_beside_the_log__eio(void **state)
{
    char to[96], folder[64];
    pid_t child;

    (void)state;
    (void)snprintf(to, sizeof(to), "%s/copy", w.folder);
    assert_int_equal(mkdir(to, 0777), 0);
    child = start();
    if (child == 0) {
        child_open("", false);
        if (w.engine->backup(w.db, to, NULL, NULL, NULL) != 0)
            child_fail("backup");
        child_close();
        _exit(0);
    }
    await_end(child, 0);
    memcpy(folder, w.folder, sizeof(folder));
    memcpy(w.folder, to, sizeof(folder)); /* the copy's log has a new epoch */
    copy_file("data.mdb", "old");
    drain();
    child = start_writer(0, "", 0);
    (void)await_byte();
    (void)kill(child, SIGKILL);
    await_end(child, SIGKILL);
    copy_file("old", "data.mdb");
    for (int readonly = 0; readonly < 2; readonly++) {
        child = start();
        if (child == 0) {
            struct kvfs_db_snap *snap;
            struct kvfs_error err = {0};
            int rc = child_try_open("", readonly == 1, &err);

            if (rc == 0)
                rc = w.engine->begin(w.db, &snap, &err);
            if (rc != -EIO || strstr(err.msg, "newer") == NULL)
                child_fail("an older store: %d: %s", rc, err.msg);
            _exit(0);
        }
        await_end(child, 0);
    }
    memcpy(w.folder, folder, sizeof(folder));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, world_setup, world_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(read__batch_past_the_log_meanwhile__not_missing),
        TEST(read__others_wrote_meanwhile__not_missing),
        TEST(read__others_wrote_and_went_meanwhile__not_missing),
        TEST(stat__read_again__log_as_full_as_before),
        TEST(open__other_stopped_while_it_opens__ebusy_and_its_pid),
        TEST(write__lock_file_removed__refused),
        TEST(write__lock_file_read_and_closed__not_alone_beside_another),
        TEST(open__holder_killed_its_child_sleeps__replayed),
        TEST(open__older_store_beside_the_log__eio),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
