/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Several servers, clients and processes on one volume.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <kvfs/kvfs.h>

#include "harness.h"

static const char *const file_disk[] = {"file=disk", NULL};
static const char *const readonly_disk[] = {"file=disk", "readonly=true", NULL};
static const char *const minus_r_disk[] = {"-r", "file=disk", NULL};

static void
resize(const struct harness *h, uint64_t size_bytes)
{
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_file *f = NULL;
    struct kvfs_attr attr;

    if (kvfs_volume_open(h->volume, NULL, &v, &err) < 0 ||
        kvfs_path_lookup(v, "disk", true, &attr, &err) < 0 ||
        kvfs_file_open(v, attr.ino, KVFS_OPEN_READ, &f, &err) < 0 ||
        kvfs_file_resize(f, size_bytes, &err) < 0)
        fail_msg("%s", err.msg);
    kvfs_file_close(f);
    assert_int_equal(kvfs_volume_close(v, &err), 0);
}

static void
resize__while_served__the_next_client_sees_it(void **state)
{
    struct harness h;
    struct nbd_handle *old, *new;
    char buf[8] = "", last[8] = "12345678";

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 0);
    harness_start(&h, file_disk, NULL);
    old = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(old, "unwritten", 9, 100, 0), 0);
    resize(&h, 3 << 20);
    assert_int_equal(nbd_get_size(old), 1 << 20);
    assert_int_equal(nbd_pwrite(old, "old", 3, (1 << 20) - 3, 0), 0);
    new = harness_connect(&h, "");
    assert_int_equal(nbd_get_size(new), 3 << 20);
    assert_int_equal(nbd_pwrite(new, last, 8, (3 << 20) - 8, 0), 0);
    assert_int_equal(nbd_pread(new, buf, 3, (1 << 20) - 3, 0), 0);
    assert_memory_equal(buf, "old", 3);
    assert_int_equal(nbd_flush(new, 0), 0);
    harness_disconnect(old);
    harness_disconnect(new);
    /* The growth was not undone by what the server wrote. */
    assert_int_equal(harness_peek(&h, "disk", buf, 8, (3 << 20) - 8), 0);
    assert_memory_equal(buf, last, 8);
    assert_int_equal(harness_stop(&h), 0);
    harness_start(&h, file_disk, NULL);
    new = harness_connect(&h, "");
    assert_int_equal(nbd_get_size(new), 3 << 20);
    assert_int_equal(nbd_pread(new, buf, 8, (3 << 20) - 8, 0), 0);
    assert_memory_equal(buf, last, 8);
    harness_disconnect(new);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

static void
check_reader(const char *const *args)
{
    struct harness h, reader;
    struct nbd_handle *nbd, *old, *new;
    char buf[6];

    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 0);
    harness_start(&h, file_disk, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "before", 6, 1000, LIBNBD_CMD_FLAG_FUA), 0);
    harness_second(&h, &reader);
    harness_start(&reader, args, NULL);
    old = harness_connect(&reader, "");
    assert_int_equal(nbd_is_read_only(old), 1);
    assert_int_equal(nbd_can_multi_conn(old), 0);
    assert_int_equal(nbd_pread(old, buf, 6, 1000, 0), 0);
    assert_memory_equal(buf, "before", 6);
    assert_int_equal(nbd_pwrite(nbd, "behind", 6, 1000, LIBNBD_CMD_FLAG_FUA), 0);
    /* One instant for one client; the next client sees the next. */
    new = harness_connect(&reader, "");
    assert_int_equal(nbd_pread(old, buf, 6, 1000, 0), 0);
    assert_memory_equal(buf, "before", 6);
    assert_int_equal(nbd_pread(new, buf, 6, 1000, 0), 0);
    assert_memory_equal(buf, "behind", 6);
    assert_int_equal(nbd_pwrite(new, "x", 1, 0, 0), -1);
    assert_int_equal(nbd_get_errno(), EPERM);
    assert_int_equal(nbd_flush(new, 0), 0);
    harness_disconnect(old);
    harness_disconnect(new);
    assert_int_equal(harness_stop(&reader), 0);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

static void
readonly__while_another_process_writes__one_instant(void **state)
{
    (void)state;
    check_reader(readonly_disk);
}

static void
minus_r__while_another_process_writes__one_instant(void **state)
{
    (void)state;
    check_reader(minus_r_disk);
}

static int
count_extent(void *arg, const char *context, uint64_t offset, uint32_t *entries, size_t count,
             int *error)
{
    (void)context;
    (void)offset;
    (void)error;
    (void)entries;
    *(size_t *)arg += count / 2;
    return 0;
}

static void
readonly__every_request__served(void **state)
{
    struct harness h;
    struct nbd_handle *nbd;
    struct harness_extents e;
    size_t replied = 0;
    nbd_extent_callback one = {.callback = count_extent, .user_data = &replied};
    char buf[16];

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 4096);
    harness_start(&h, file_disk, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "data", 4, 8192, 0), 0);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_start(&h, readonly_disk, NULL);
    nbd = harness_connect(&h, "");
    harness_block_status(nbd, 1 << 20, 0, &e);
    assert_int_equal(e.count, 3);
    assert_int_equal(e.extent[1].count, 4096);
    assert_false(e.extent[1].hole);
    assert_int_equal(nbd_block_status(nbd, 1 << 20, 0, one, LIBNBD_CMD_FLAG_REQ_ONE), 0);
    assert_int_equal(replied, 1);
    assert_int_equal(nbd_cache(nbd, 1 << 20, 0, 0), 0);
    assert_int_equal(nbd_pread(nbd, buf, 4, 8192, 0), 0);
    assert_memory_equal(buf, "data", 4);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

/* `file=` is held from the start, by a server that has no client too. */
static void
second_server__same_default_export__does_not_start(void **state)
{
    struct harness h, second;
    struct nbd_handle *nbd;
    char who[64], *log;

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 0);
    harness_start(&h, file_disk, NULL);
    nbd = harness_connect(&h, ""); /* it has started */
    harness_disconnect(nbd);
    harness_second(&h, &second);
    assert_int_equal(harness_daemon(&second, h.volume, file_disk), 1);
    log = harness_log(&second);
    (void)snprintf(who, sizeof(who), "process %d (nbdkit)", (int)h.pid);
    if (strstr(log, who) == NULL || strstr(log, "'disk'") == NULL ||
        strstr(log, "readonly=true") == NULL)
        fail_msg("no '%s' in: %s", who, log);
    free(log);
    /* The first did not suffer, and once it is gone the second may start. */
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "disk", 4, 0, LIBNBD_CMD_FLAG_FUA), 0);
    harness_kill(&h);
    nbd_close(nbd);
    harness_start(&second, file_disk, NULL);
    nbd = harness_connect(&second, "");
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&second), 0);
    harness_end(&h);
}

/* The engine lets nobody else in, whatever file and even to read. */
static void
second_server__engine_for_one_process__does_not_start(void **state)
{
    const char *const *const args[] = {file_disk, readonly_disk};
    struct harness h, second;
    struct nbd_handle *nbd;
    char who[64], *log;

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 0);
    harness_start(&h, file_disk, NULL);
    nbd = harness_connect(&h, "");
    (void)snprintf(who, sizeof(who), "process %d (nbdkit)", (int)h.pid);
    harness_second(&h, &second);
    for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++) {
        assert_int_equal(harness_daemon(&second, h.volume, args[i]), 1);
        log = harness_log(&second);
        if (strstr(log, who) == NULL)
            fail_msg("no '%s' in: %s", who, log);
        free(log);
    }
    assert_int_equal(nbd_pwrite(nbd, "disk", 4, 0, LIBNBD_CMD_FLAG_FUA), 0);
    harness_kill(&h);
    nbd_close(nbd);
    harness_start(&second, file_disk, NULL);
    nbd = harness_connect(&second, "");
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&second), 0);
    harness_end(&h);
}

static void
second_writer__same_file__refused_by_name_of_the_first(void **state)
{
    struct harness h, second;
    struct nbd_handle *nbd, *other;
    char who[64], *log;

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 0);
    harness_create(&h, "free", 1 << 20, 0);
    harness_start(&h, file_disk, NULL);
    nbd = harness_connect(&h, "");
    harness_second(&h, &second);
    harness_start(&second, NULL, NULL);
    assert_null(harness_try_connect(&second, "disk"));
    /* Another file of the volume is nobody's. */
    other = harness_connect(&second, "free");
    assert_int_equal(nbd_pwrite(other, "free", 4, 0, LIBNBD_CMD_FLAG_FUA), 0);
    assert_int_equal(nbd_pwrite(nbd, "disk", 4, 0, LIBNBD_CMD_FLAG_FUA), 0);
    harness_disconnect(other);
    (void)snprintf(who, sizeof(who), "process %d (nbdkit)", (int)h.pid);
    log = harness_log(&second);
    if (strstr(log, who) == NULL || strstr(log, "export 'disk'") == NULL)
        fail_msg("no '%s' in: %s", who, log);
    free(log);
    /* A dead process holds nothing. */
    harness_kill(&h);
    nbd_close(nbd);
    nbd = harness_connect(&second, "disk");
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&second), 0);
    harness_end(&h);
}

static void
writer__gone__the_file_is_free(void **state)
{
    struct harness h, second;
    struct nbd_handle *nbd;
    char buf[4];

    (void)state;
    harness_begin(&h);
    harness_create(&h, "disk", 1 << 20, 0);
    harness_start(&h, file_disk, NULL);
    nbd = harness_connect(&h, "");
    assert_int_equal(nbd_pwrite(nbd, "left", 4, 0, 0), 0);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&h), 0);
    harness_second(&h, &second);
    harness_start(&second, file_disk, NULL);
    nbd = harness_connect(&second, "");
    assert_int_equal(nbd_pread(nbd, buf, 4, 0, 0), 0);
    assert_memory_equal(buf, "left", 4);
    harness_disconnect(nbd);
    assert_int_equal(harness_stop(&second), 0);
    harness_end(&h);
}

static void
two_files__one_server__do_not_mix(void **state)
{
    struct harness h;
    struct nbd_handle *a, *b;
    char buf[2];

    (void)state;
    harness_begin(&h);
    harness_create(&h, "a", 1 << 20, 0);
    harness_create(&h, "b", 1 << 20, 512);
    harness_start(&h, NULL, NULL);
    a = harness_connect(&h, "a");
    b = harness_connect(&h, "b");
    assert_int_equal(nbd_pwrite(a, "a", 1, 5, 0), 0);
    assert_int_equal(nbd_pwrite(b, "b", 1, 6, 0), 0);
    assert_int_equal(nbd_flush(a, 0), 0);
    assert_int_equal(nbd_pread(a, buf, 2, 5, 0), 0);
    assert_memory_equal(buf, "a\0", 2);
    assert_int_equal(nbd_pread(b, buf, 2, 5, 0), 0);
    assert_memory_equal(buf, "\0b", 2);
    harness_disconnect(a);
    harness_disconnect(b);
    assert_int_equal(harness_stop(&h), 0);
    harness_end(&h);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readonly__every_request__served),
        cmocka_unit_test(writer__gone__the_file_is_free),
        cmocka_unit_test(two_files__one_server__do_not_mix),
    };
    const struct CMUnitTest shared[] = {
        cmocka_unit_test(resize__while_served__the_next_client_sees_it),
        cmocka_unit_test(readonly__while_another_process_writes__one_instant),
        cmocka_unit_test(minus_r__while_another_process_writes__one_instant),
        cmocka_unit_test(second_server__same_default_export__does_not_start),
        cmocka_unit_test(second_writer__same_file__refused_by_name_of_the_first),
    };
    const struct CMUnitTest unshared[] = {
        cmocka_unit_test(second_server__engine_for_one_process__does_not_start),
    };
    int failed;

    harness_need_nbdkit();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chosen_has(KVFS_CAP_MULTIPROCESS))
        failed += cmocka_run_group_tests(shared, NULL, NULL);
    else
        failed += cmocka_run_group_tests(unshared, NULL, NULL);
    return failed;
}
