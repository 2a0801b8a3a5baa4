/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The end of RocksDB's MANIFEST that a power cut tore (engines/rocksdb/manifest.c): the store
 * opens with all that was acknowledged, and what is no such end is refused as before.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <kvfs/batch.h>

#define RECORDS 20
#define SECTOR  512u
#define HEADER  7u

static char folder[64], manifest[128];
static struct kvfs_error err;

static const struct kvfs_engine *
engine(void)
{
    const struct kvfs_engine *e;

    assert_int_equal(kvfs_engine_find("rocksdb", &e, NULL), 0);
    return e;
}

static struct kvfs_db *
must_open(bool create)
{
    struct kvfs_engine_options options = {.create = create};
    struct kvfs_db *db = NULL;

    if (engine()->open(engine(), folder, &options, &db, &err) != 0)
        fail_msg("%s", err.msg);
    return db;
}

static void
find_manifest(void)
{
    char name[40] = "", path[100];
    FILE *f;

    (void)snprintf(path, sizeof(path), "%s/CURRENT", folder);
    f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(name, sizeof(name), f));
    (void)fclose(f);
    name[strcspn(name, "\n")] = '\0';
    (void)snprintf(manifest, sizeof(manifest), "%s/%s", folder, name);
}

static int
setup(void **state)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_batch batch;
    struct kvfs_db *db;

    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/kvfs-manifest-XXXXXX");
    assert_non_null(mkdtemp(folder));
    db = must_open(true);
    for (uint8_t i = 0; i < RECORDS; i++)
        kvfs_batch_put(b, KVFS_META, &i, 1, &i, 1);
    assert_int_equal(kvfs_batch_end(b, &batch), 0);
    assert_int_equal(engine()->apply(db, &batch, KVFS_DURABLE, &err), 0);
    kvfs_batch_free(b);
    engine()->close(db);
    find_manifest();
    return 0;
}

static int
teardown(void **state)
{
    char command[100];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

static void
must_have_all(void)
{
    struct kvfs_db *db = must_open(false);
    struct kvfs_db_snap *snap;

    assert_int_equal(engine()->begin(db, &snap, &err), 0);
    for (uint8_t i = 0; i < RECORDS; i++) {
        uint8_t got = 0;
        struct iovec iov = {.iov_base = &got, .iov_len = 1};
        size_t len = 0;

        assert_int_equal(engine()->get(snap, KVFS_META, &i, 1, 0, &iov, 1, &len, &err), 0);
        assert_int_equal(got, i);
    }
    engine()->end(snap);
    engine()->close(db);
}

static int
open_manifest(uint64_t *size)
{
    int fd = open(manifest, O_RDWR | O_CLOEXEC);
    struct stat st;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    *size = (uint64_t)st.st_size;
    return fd;
}

/* Write an edit of LEN bytes at AT, as far as sectors let it through: bit N of LOST is the Nth that
 * begins behind AT. */
static void
write_torn(int fd, uint64_t at, uint16_t len, unsigned lost)
{
    size_t count = HEADER + (size_t)len;
    uint8_t *edit = malloc(count);

    assert_non_null(edit);
    memset(edit, 0xa5, count);
    edit[4] = (uint8_t)len;
    edit[5] = (uint8_t)(len >> 8);
    edit[6] = 1; /* whole */
    for (size_t i = 0; i < count; i++) {
        uint64_t sector = (at + i) / SECTOR - at / SECTOR;

        if (sector > 0 && (lost >> (sector - 1) & 1u) != 0)
            edit[i] = 0;
    }
    assert_int_equal(pwrite(fd, edit, count, (off_t)at), count);
    free(edit);
}

static void
open__torn_edit_at_the_end__all_acknowledged_is_there(void **state)
{
    static const struct {
        uint16_t len;
        unsigned lost;
    } edits[] = {{SECTOR, 1}, {SECTOR, 3}, {3 * SECTOR, 2}, {3 * SECTOR, 4}, {3 * SECTOR, 15},
                 {20 * SECTOR, 0x0ff00}};

    (void)state;
    for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
        struct kvfs_engine_options readonly = {.readonly = true};
        struct kvfs_db *db;
        uint64_t size, torn;
        int fd = open_manifest(&size);

        write_torn(fd, size, edits[i].len, edits[i].lost);
        (void)close(fd);
        assert_int_equal(engine()->open(engine(), folder, &readonly, &db, &err), -EIO);
        assert_non_null(strstr(err.msg, "opening for writing mends it"));
        fd = open_manifest(&torn);
        (void)close(fd);
        assert_int_equal(torn, size + HEADER + edits[i].len); /* nothing was written */
        must_have_all();
        find_manifest();
    }
}

static void
open__wrong_edit_that_is_not_torn__refused_and_left(void **state)
{
    struct kvfs_engine_options options = {.create = false};
    uint64_t size, after;
    struct kvfs_db *db;
    int fd = open_manifest(&size);

    (void)state;
    write_torn(fd, size, 3 * SECTOR, 0); /* no sector is missing */
    assert_int_equal(engine()->open(engine(), folder, &options, &db, &err), -EIO);
    write_torn(fd, size, 3 * SECTOR, 1); /* one is, but far from the end */
    assert_int_equal(ftruncate(fd, (off_t)size + 40000), 0);
    (void)close(fd);
    assert_int_equal(engine()->open(engine(), folder, &options, &db, &err), -EIO);
    fd = open_manifest(&after);
    (void)close(fd);
    assert_int_equal(after, size + 40000);
}

/* Anything at the end: the store opens, or is refused with one line. */
static void
open__random_end__opens_or_refused(void **state)
{
    const char *env = getenv("KVFS_SEED"); /* NOLINT(concurrency-mt-unsafe): one thread */
    unsigned short seed[3] = {0};

    (void)state;
    seed[0] = env != NULL ? (unsigned short)strtoul(env, NULL, 0) : (unsigned short)getpid();
    print_message("KVFS_SEED=%u\n", seed[0]);
    for (int round = 0; round < 100; round++) {
        struct kvfs_engine_options options = {.create = false};
        uint8_t bytes[4 * SECTOR];
        struct kvfs_db *db = NULL;
        uint64_t size;
        int rc, fd = open_manifest(&size);
        size_t count = 1 + (size_t)nrand48(seed) % sizeof(bytes);
        bool few = nrand48(seed) % 2 == 0; /* most of them zeros */

        for (size_t i = 0; i < count; i++)
            bytes[i] = few && nrand48(seed) % 64 > 0 ? 0 : (uint8_t)nrand48(seed);
        assert_int_equal(pwrite(fd, bytes, count, (off_t)size), count);
        rc = engine()->open(engine(), folder, &options, &db, &err);
        if (rc == 0) {
            engine()->close(db);
            must_have_all();
            find_manifest();
        } else {
            assert_int_equal(rc, -EIO);
            assert_null(strchr(err.msg, '\n'));
            assert_int_equal(ftruncate(fd, (off_t)size), 0);
        }
        (void)close(fd);
    }
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(open__torn_edit_at_the_end__all_acknowledged_is_there),
        CASE(open__random_end__opens_or_refused),
        CASE(open__wrong_edit_that_is_not_torn__refused_and_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
