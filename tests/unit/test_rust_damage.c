/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_rust_damage.c - jammdb and sled with stores that are none, damaged, locked or full.
 *
 * Each store is used in a child process: a signal is a failure, and so is one that takes too
 * long.  Whatever is wrong must be an error with a line, or not matter.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#define RECORDS 600
#define FLIPS   40

static const struct kvfs_engine *engine;
static const char *file; /* of the store, in its folder */
static char folder[64], path[96];
static uint64_t seed;

static uint64_t
below(uint64_t bound)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % bound;
}

/* --- in a child -------------------------------------------------------------------- */

static int
child_put(struct kvfs_db *db, unsigned from, unsigned count, struct kvfs_error *err)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_batch batch;
    char key[17], value[3000];
    int rc;

    memset(value, 'v', sizeof(value));
    for (unsigned i = from; i < from + count; i++) {
        (void)snprintf(key, sizeof(key), "%016u", i);
        kvfs_batch_put(b, KVFS_DATA, key, 16, value, sizeof(value));
        kvfs_batch_put(b, KVFS_META, key + 8, 8, value, 40);
    }
    rc = kvfs_batch_end(b, &batch);
    if (rc == 0)
        rc = engine->apply(db, &batch, KVFS_ORDERED, err);
    kvfs_batch_free(b);
    return rc;
}

/* An error must have its line, and that none of the words that are for Rust's own people. */
static int
child_judge(int rc, const struct kvfs_error *err)
{
    static const char *const raw[] = {"backtrace", "None", "Some(", "panicked at", "os error",
                                      "/.cargo/"};

    if (rc < 0 && (err->code != rc || err->msg[0] == '\0'))
        _exit(90);
    for (size_t i = 0; rc < 0 && i < sizeof(raw) / sizeof(raw[0]); i++)
        if (strstr(err->msg, raw[i]) != NULL) {
            (void)fprintf(stderr, "%s\n", err->msg);
            _exit(93);
        }
    return rc;
}

static void
child_make(void)
{
    const struct kvfs_engine_options options = {.create = true};
    struct kvfs_error err;
    struct kvfs_db *db;

    if (engine->open(engine, folder, &options, &db, &err) != 0)
        _exit(91);
    for (unsigned i = 0; i < RECORDS; i += 50)
        if (child_put(db, i, 50, &err) != 0)
            _exit(92);
    engine->close(db);
}

static void
child_ignore(void *arg, const char *where, const char *what)
{
    unsigned *findings = arg;

    if (where[0] != '\0' && what[0] != '\0')
        ++*findings;
}

static void
child_scan(struct kvfs_db *db, unsigned flags)
{
    struct kvfs_error err = {0};
    struct kvfs_db_cursor *c;
    struct kvfs_db_snap *s;
    size_t key_len, value_len;
    const void *key;
    char value[64];
    struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
    int rc = child_judge(engine->begin(db, &s, &err), &err);

    if (rc != 0)
        return;
    if (child_judge(engine->cursor_open(s, KVFS_DATA, NULL, 0, NULL, 0, flags, &c, &err), &err) ==
        0) {
        while (child_judge(engine->cursor_next(c, &key, &key_len, &value_len, &err), &err) == 1)
            (void)child_judge(engine->cursor_value(c, 0, &iov, 1, &err), &err);
        engine->cursor_close(c);
    }
    engine->end(s);
}

/* Everything that there is to do with a store; answers what opening says. */
static int
child_use(void)
{
    const struct kvfs_engine_options options = {.create = false};
    struct kvfs_error err = {0};
    unsigned findings = 0;
    struct kvfs_db *db;
    int rc = child_judge(engine->open(engine, folder, &options, &db, &err), &err);

    if (rc != 0)
        return rc;
    (void)child_judge(engine->verify(db, child_ignore, &findings, NULL, NULL, &err), &err);
    child_scan(db, 0);
    child_scan(db, KVFS_SCAN_REVERSE);
    (void)child_judge(child_put(db, RECORDS / 2, 3, &err), &err);
    engine->close(db);
    return 0;
}

/* Errno with which a child could not open the store, or 0. */
static int
use(int (*run)(void))
{
    pid_t pid = fork();
    int status = -1;

    if (pid == 0) {
        (void)alarm(100);
        _exit(-run());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fail_msg("%s: ended by signal %d", engine->name, WTERMSIG(status));
    assert_true(WEXITSTATUS(status) < 90 || WEXITSTATUS(status) > 93);
    return WEXITSTATUS(status);
}

static int
make(void)
{
    child_make();
    return 0;
}

static int
setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/kvfs-rust-XXXXXX");
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof(path), "%s/%s", folder, file);
    assert_int_equal(use(make), 0);
    return 0;
}

static int
teardown(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command); // NOLINT(concurrency-mt-unsafe,cert-env33-c): a name of our own
}

/* --- damage ------------------------------------------------------------------------ */

static void *
slurp(size_t *len)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    char *bytes;

    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    bytes = malloc((size_t)st.st_size);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    (void)close(fd);
    *len = (size_t)st.st_size;
    return bytes;
}

static void
spill(const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, len), len);
    (void)close(fd);
}

static void
damage__flipped_bits__an_error_or_nothing(void **state)
{
    unsigned refused = 0;
    uint8_t *bytes;
    size_t len;

    (void)state;
    (void)printf("KVFS_SEED=%llu\n", (unsigned long long)seed);
    bytes = slurp(&len);
    for (unsigned i = 0; i < FLIPS; i++) {
        /* heads and keys are worth more than values: half of them in the first bytes of pages */
        size_t at = i % 2 == 0 ? below(len) : (below(len) / 4096 * 4096 + below(512)) % len;
        uint8_t bit = (uint8_t)(1u << below(8));

        bytes[at] ^= bit;
        spill(bytes, len);
        refused += use(child_use) != 0;
        bytes[at] ^= bit;
    }
    (void)printf("%s: %u of %u could not be opened\n", engine->name, refused, FLIPS);
    free(bytes);
}

static void
damage__truncated__an_error_or_nothing(void **state)
{
    uint8_t *bytes;
    size_t len;

    (void)state;
    bytes = slurp(&len);
    for (size_t i = 0; i < 8; i++) {
        spill(bytes, len * i / 8 / (i % 2 + 1));
        if (use(child_use) == 0)
            assert_string_not_equal(engine->name, "jammdb"); /* it knows its length */
    }
    spill(bytes, len - 1);
    (void)use(child_use);
    free(bytes);
}

static void
open__not_a_store__refused(void **state)
{
    static const char text[] = "This is a text, and no store of anybody.\n";
    char page[8192];

    (void)state;
    memset(page, 'x', sizeof(page));
    memcpy(page, text, sizeof(text));
    if (strcmp(engine->name, "jammdb") == 0) {
        spill(page, sizeof(page));
        assert_int_equal(use(child_use), EINVAL);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(use(child_use), strcmp(engine->name, "jammdb") == 0 ? ENOENT : EIO);
}

static void
open__sled_configuration_damaged__eio(void **state)
{
    static const char text[] = "segment_size: this is no number of bytes\n";

    (void)state;
    if (strcmp(engine->name, "sled") != 0)
        return;
    (void)snprintf(path, sizeof(path), "%s/sled/conf", folder);
    spill(text, sizeof(text));
    assert_int_equal(use(child_use), EIO);
}

static void
open__locked_by_a_stranger__ebusy_and_names_it(void **state)
{
    const struct kvfs_engine_options options = {.create = false};
    char who[32];
    int fds[2], fd = open(path, O_RDWR), status;
    char line[256] = "";
    pid_t pid;

    (void)state;
    assert_true(fd >= 0 && pipe(fds) == 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    pid = fork();
    if (pid == 0) {
        struct kvfs_error err = {0};
        struct kvfs_db *db;
        int rc;

        (void)alarm(60);
        rc = engine->open(engine, folder, &options, &db, &err);
        if (write(fds[1], err.msg, strlen(err.msg)) < 0)
            _exit(1);
        _exit(-rc);
    }
    (void)close(fds[1]);
    assert_true(read(fds[0], line, sizeof(line) - 1) > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EBUSY);
    (void)snprintf(who, sizeof(who), "process %ld", (long)getpid());
    if (strstr(line, who) == NULL)
        fail_msg("'%s' does not name %s", line, who);
    (void)close(fds[0]);
    (void)close(fd);
    assert_int_equal(use(child_use), 0);
}

static int
use_as_nobody(void)
{
    return setgid(65534) != 0 || setuid(65534) != 0 ? -EXDEV : child_use();
}

static void
open__no_permission__eacces(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(use(use_as_nobody), EACCES);
}

/* --- a full medium ------------------------------------------------------------------- */

static int
fill(void)
{
    const struct kvfs_engine_options options = {.create = true};
    struct kvfs_error err = {0};
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_batch batch;
    struct kvfs_db *db;
    unsigned n = 0;
    int rc = engine->open(engine, folder, &options, &db, &err);

    for (unsigned cycle = 0; rc == 0 && cycle < 3; cycle++) {
        do
            rc = child_put(db, n, 20, &err);
        while (rc == 0 && (n += 20) < 100000);
        if (rc != -ENOSPC || n < 300) {
            (void)fprintf(stderr, "cycle %u: full at %u, %d: %s\n", cycle, n, rc, err.msg);
            return -ERANGE;
        }
        kvfs_batch_reset(b);
        kvfs_batch_del_range(b, KVFS_DATA, NULL, 0, NULL, 0);
        kvfs_batch_del_range(b, KVFS_META, NULL, 0, NULL, 0);
        rc = kvfs_batch_end(b, &batch);
        if (rc == 0)
            rc = engine->apply(db, &batch, KVFS_DURABLE, &err);
        if (rc != 0)
            (void)fprintf(stderr, "deleting on a full medium: %s\n", err.msg);
        n = 0;
    }
    kvfs_batch_free(b);
    engine->close(db);
    return rc;
}

static void
full__file_system__enospc_and_deletes_make_room(void **state)
{
    int rc;

    (void)state;
    assert_int_equal(rmdir(folder) == 0 || errno == ENOTEMPTY, 1);
    if (mount("kvfs-test", folder, "tmpfs", 0, "size=24m") != 0)
        skip(); /* not root, or not allowed here */
    rc = use(fill);
    assert_int_equal(umount(folder), 0);
    assert_int_equal(rc, 0);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(damage__flipped_bits__an_error_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(damage__truncated__an_error_or_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(open__not_a_store__refused, setup, teardown),
        cmocka_unit_test_setup_teardown(open__sled_configuration_damaged__eio, setup, teardown),
        cmocka_unit_test_setup_teardown(open__locked_by_a_stranger__ebusy_and_names_it, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(open__no_permission__eacces, setup, teardown),
        cmocka_unit_test_setup_teardown(full__file_system__enospc_and_deletes_make_room, setup,
                                        teardown),
    };
    const char *text = getenv("KVFS_SEED"); // NOLINT(concurrency-mt-unsafe): there is one thread
    struct kvfs_error err;

    if (argc != 2 || kvfs_engine_find(argv[1], &engine, &err) != 0)
        return 2;
    seed = text != NULL ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    file = strcmp(argv[1], "sled") == 0 ? "sled/db" : "store.jammdb";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
