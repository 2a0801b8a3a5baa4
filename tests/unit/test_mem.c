/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The mem engine beyond the contract: how long a store lives, and what happens
 * when there is no memory.  Linked with --wrap for malloc, calloc and realloc.
 */
#include <errno.h>
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

static const struct kvfs_engine *mem;
static char folder[64], marker[80];

/* --- allocations that fail on demand ------------------------------------------ */

static unsigned fail_at; /* the how-manieth allocation from now fails; 0: none */
static bool failed;

static bool
fails_now(void)
{
    if (fail_at == 0 || --fail_at > 0)
        return false;
    failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

void *
__wrap_malloc(size_t size)
{
    return fails_now() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
    return fails_now() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
    return fails_now() ? NULL : __real_realloc(p, size);
}

/* --- small things ----------------------------------------------------------------- */

static int
setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof(folder), "/tmp/kvfs-test-mem-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    (void)snprintf(marker, sizeof(marker), "%s/mem", folder);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    (void)unlink(marker);
    return rmdir(folder);
}

static int
try_open(bool create, struct kvfs_db **db, struct kvfs_error *err)
{
    struct kvfs_engine_options options = {.create = create};

    err->msg[0] = '\0';
    return mem->open(mem, folder, &options, db, err);
}

static struct kvfs_db *
must_open(bool create)
{
    struct kvfs_db *db = NULL;
    struct kvfs_error err;

    if (try_open(create, &db, &err) != 0)
        fail_msg("%s", err.msg);
    return db;
}

static void
put(struct kvfs_db *db, const char *key)
{
    struct kvfs_op op = {.type = KVFS_OP_PUT, .key = key, .key_len = (uint16_t)strlen(key)};
    struct kvfs_batch batch = {.ops = &op, .ops_count = 1};

    assert_int_equal(mem->apply(db, &batch, KVFS_NONE, NULL), 0);
}

static uint64_t
records(struct kvfs_db *db)
{
    struct kvfs_engine_stat stat;

    assert_int_equal(mem->stat(db, &stat, NULL), 0);
    return stat.meta_records + stat.data_records;
}

/* --- how long a store lives --------------------------------------------------------- */

static void
mem_open__again_in_one_process__store_is_still_there(void **state)
{
    struct kvfs_db *db = must_open(true);

    (void)state;
    put(db, "a");
    mem->close(db);
    db = must_open(false);
    assert_int_equal(records(db), 1);
    put(db, "b");
    mem->close(db);
    db = must_open(true);
    assert_int_equal(records(db), 2);
    mem->close(db);
}

static void
mem_open__folder_renamed__same_store(void **state)
{
    char other[sizeof(folder)];
    struct kvfs_db *db = must_open(true);

    (void)state;
    put(db, "a");
    mem->close(db);
    (void)snprintf(other, sizeof(other), "/tmp/kvfs-test-mem-%d-renamed", (int)getpid());
    assert_int_equal(rename(folder, other), 0);
    (void)snprintf(folder, sizeof(folder), "%s", other);
    (void)snprintf(marker, sizeof(marker), "%s/mem", folder);
    db = must_open(false);
    assert_int_equal(records(db), 1);
    mem->close(db);
}

static void
mem_open__marker_removed__store_is_gone(void **state)
{
    struct kvfs_db *db = must_open(true);
    struct kvfs_error err;

    (void)state;
    put(db, "a");
    mem->close(db);
    assert_int_equal(unlink(marker), 0);
    assert_int_equal(try_open(false, &db, &err), -ENOENT);
    db = must_open(true);
    assert_int_equal(records(db), 0);
    mem->close(db);
}

static void
mem_open__store_of_another_process__enoent_says_whose(void **state)
{
    struct kvfs_db *db = NULL;
    struct kvfs_error err;
    FILE *fp = fopen(marker, "w");

    (void)state;
    assert_non_null(fp);
    assert_true(fprintf(fp, "kvfs-mem 4242\n") > 0);
    assert_int_equal(fclose(fp), 0);
    assert_int_equal(try_open(false, &db, &err), -ENOENT);
    assert_null(db);
    assert_non_null(strstr(err.msg, "4242"));
    db = must_open(true); /* whose process may be dead: a new one can be made */
    assert_int_equal(records(db), 0);
    mem->close(db);
}

static void
mem_open__something_else_of_that_name__einval_and_left_alone(void **state)
{
    struct kvfs_db *db = NULL;
    struct kvfs_error err;
    struct stat st;
    FILE *fp = fopen(marker, "w");

    (void)state;
    assert_non_null(fp);
    assert_true(fprintf(fp, "my notes, which are longer than any magic number is\n") > 0);
    assert_int_equal(fclose(fp), 0);
    assert_int_equal(try_open(true, &db, &err), -EINVAL);
    assert_int_equal(stat(marker, &st), 0);
    assert_int_equal(st.st_size, 52);
}

static void
mem_open__twice__ebusy(void **state)
{
    struct kvfs_db *db = must_open(true), *second = NULL;
    struct kvfs_error err;

    (void)state;
    assert_int_equal(try_open(true, &second, &err), -EBUSY);
    assert_null(second);
    mem->close(db);
}

static void
mem_open__no_folder__enoent(void **state)
{
    struct kvfs_engine_options options = {.create = true};
    struct kvfs_db *db = NULL;
    struct kvfs_error err;

    (void)state;
    assert_int_equal(mem->open(mem, "/nonexistent/folder", &options, &db, &err), -ENOENT);
}

/* --- no memory ------------------------------------------------------------------------- */

static void
add_operations(struct kvfs_batch_builder *b)
{
    char key[KVFS_DATA_KEY_LEN + 1];

    for (unsigned i = 0; i < 40; i++) {
        (void)snprintf(key, sizeof(key), "%016u", i * 37 % 100);
        kvfs_batch_put(b, KVFS_DATA, key, 16, key, 16);
        if (i % 4 == 0)
            kvfs_batch_del(b, KVFS_DATA, key, 16);
    }
    kvfs_batch_del_range(b, KVFS_DATA, "0000000000000040", 16, "0000000000000060", 16);
}

static void
mem_apply__no_memory_at_any_allocation__enomem_and_nothing_changed(void **state)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_db *db = must_open(true);
    struct kvfs_db_snap *snap = NULL;
    struct kvfs_batch batch;
    unsigned at = 0;
    int r;

    (void)state;
    for (int i = 0; i < 26; i++)
        put(db, (char[]){(char)('a' + i), '\0'});
    add_operations(b);
    assert_int_equal(kvfs_batch_end(b, &batch), 0);
    assert_int_equal(mem->apply(db, &batch, KVFS_NONE, NULL), 0);
    assert_int_equal(mem->begin(db, &snap, NULL), 0); /* so that nodes have to be copied */
    do {
        uint64_t before = records(db);

        failed = false;
        fail_at = ++at;
        r = mem->apply(db, &batch, KVFS_NONE, NULL);
        fail_at = 0;
        assert_int_equal(r, failed ? -ENOMEM : 0);
        if (failed)
            assert_int_equal(records(db), before);
        assert_int_equal(mem->verify(db, NULL, NULL, NULL, NULL, NULL), 0);
    } while (failed);
    assert_true(at > 100);
    mem->end(snap);
    mem->close(db);
    kvfs_batch_free(b);
}

static void
mem_others__no_memory_at_any_allocation__enomem(void **state)
{
    struct kvfs_error err;
    struct kvfs_db *db;
    unsigned at = 0;

    (void)state;
    do {
        failed = false;
        fail_at = ++at;
        db = NULL;
        if (try_open(true, &db, &err) == 0) {
            struct kvfs_db_snap *snap;
            struct kvfs_db_cursor *cursor;

            if (mem->begin(db, &snap, &err) == 0) {
                if (mem->cursor_open(snap, KVFS_META, "a", 1, "b", 1, 0, &cursor, &err) == 0)
                    mem->cursor_close(cursor);
                mem->end(snap);
            }
            mem->close(db);
        }
        fail_at = 0;
        if (failed)
            assert_true(err.msg[0] != '\0');
    } while (failed);
    assert_true(at >= 4);
}

static void
batch_end__no_memory_at_any_allocation__enomem(void **state)
{
    unsigned at = 0;

    (void)state;
    do {
        struct kvfs_batch_builder *b;
        struct kvfs_batch batch = {.ops_count = 0};

        failed = false;
        fail_at = ++at;
        b = kvfs_batch_new();
        if (b != NULL) {
            for (unsigned i = 0; i < 10; i++)
                add_operations(b);
            assert_int_equal(kvfs_batch_end(b, &batch), failed ? -ENOMEM : 0);
        } else {
            assert_true(failed);
        }
        fail_at = 0;
        kvfs_batch_free(b);
    } while (failed);
    assert_true(at > 4);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(mem_open__again_in_one_process__store_is_still_there),
        CASE(mem_open__folder_renamed__same_store),
        CASE(mem_open__marker_removed__store_is_gone),
        CASE(mem_open__store_of_another_process__enoent_says_whose),
        CASE(mem_open__something_else_of_that_name__einval_and_left_alone),
        CASE(mem_open__twice__ebusy),
        CASE(mem_open__no_folder__enoent),
        CASE(mem_apply__no_memory_at_any_allocation__enomem_and_nothing_changed),
        CASE(mem_others__no_memory_at_any_allocation__enomem),
        CASE(batch_end__no_memory_at_any_allocation__enomem),
    };

    if (kvfs_engine_find("mem", &mem, NULL) != 0)
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
