/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Extended attributes, over every engine.
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
#include <sys/xattr.h>

#include <cmocka.h>

#include "names_world.h"

static const char *engine;
static struct world world;
static uint64_t ino;

static int
setup(void **state)
{
    struct kvfs_create create = {.mode = S_IFREG | 0644};
    struct kvfs_attr attr;

    (void)state;
    world_begin(&world, engine);
    assert_int_equal(kvfs_create(world.v, KVFS_ROOT_INO, "a", &create, &attr, NULL), 0);
    ino = attr.ino;
    return 0;
}

static int
teardown(void **state)
{
    char why[256] = "";
    int rc = world_judge(world.v, why, sizeof(why));

    (void)state;
    if (rc != 0)
        print_error("the names do not agree: %s\n", why);
    world_end(&world);
    return rc;
}

static int
set(const char *name, const char *value, int flags)
{
    return kvfs_xattr_set(world.v, ino, name, value, strlen(value), flags, NULL);
}

static void
assert_value(const char *name, const char *value)
{
    char buf[64];
    size_t len;

    assert_int_equal(kvfs_xattr_get(world.v, ino, name, buf, sizeof(buf), &len, NULL), 0);
    assert_int_equal(len, strlen(value));
    assert_memory_equal(buf, value, len);
}

static void
xattr__set__comes_back_after_reopen(void **state)
{
    (void)state;
    assert_int_equal(set("user.a", "one", 0), 0);
    assert_int_equal(set("user.b", "", 0), 0);
    assert_value("user.a", "one");
    assert_int_equal(set("user.a", "two and more", 0), 0);
    world_reopen(&world);
    assert_value("user.a", "two and more");
    assert_value("user.b", "");
}

static void
xattr__flags__tell_new_from_old(void **state)
{
    (void)state;
    assert_int_equal(set("user.a", "1", XATTR_REPLACE), -ENODATA);
    assert_int_equal(set("user.a", "1", XATTR_CREATE), 0);
    assert_int_equal(set("user.a", "2", XATTR_CREATE), -EEXIST);
    assert_value("user.a", "1");
    assert_int_equal(set("user.a", "3", XATTR_REPLACE), 0);
    assert_value("user.a", "3");
    assert_int_equal(set("user.a", "4", XATTR_CREATE | XATTR_REPLACE), -EINVAL);
    assert_int_equal(set("user.a", "4", 4), -EINVAL);
}

static void
xattr__missing__is_enodata(void **state)
{
    size_t len;

    (void)state;
    assert_int_equal(kvfs_xattr_get(world.v, ino, "user.a", NULL, 0, &len, NULL), -ENODATA);
    assert_int_equal(kvfs_xattr_remove(world.v, ino, "user.a", NULL), -ENODATA);
    assert_int_equal(set("user.a", "1", 0), 0);
    assert_int_equal(kvfs_xattr_remove(world.v, ino, "user.a", NULL), 0);
    assert_int_equal(kvfs_xattr_get(world.v, ino, "user.a", NULL, 0, &len, NULL), -ENODATA);
    assert_int_equal(kvfs_xattr_get(world.v, 99999, "user.a", NULL, 0, &len, NULL), -ENOENT);
    assert_int_equal(kvfs_xattr_set(world.v, 99999, "user.a", "", 0, 0, NULL), -ENOENT);
    assert_int_equal(kvfs_xattr_remove(world.v, 99999, "user.a", NULL), -ENOENT);
}

static void
xattr__largest_value__comes_back(void **state)
{
    uint8_t *value = malloc(KVFS_XATTR_VALUE_MAX + 1), *back = malloc(KVFS_XATTR_VALUE_MAX);
    size_t len = 0;

    (void)state;
    assert_true(value != NULL && back != NULL);
    for (size_t i = 0; i <= KVFS_XATTR_VALUE_MAX; i++)
        value[i] = (uint8_t)(i * 31 >> 3);
    assert_int_equal(
        kvfs_xattr_set(world.v, ino, "user.a", value, KVFS_XATTR_VALUE_MAX + 1, 0, NULL), -E2BIG);
    assert_int_equal(kvfs_xattr_set(world.v, ino, "user.a", value, KVFS_XATTR_VALUE_MAX, 0, NULL),
                     0);
    assert_int_equal(kvfs_xattr_get(world.v, ino, "user.a", back, KVFS_XATTR_VALUE_MAX, &len, NULL),
                     0);
    assert_int_equal(len, KVFS_XATTR_VALUE_MAX);
    assert_memory_equal(back, value, len);
    memset(back, 0, 8);
    assert_int_equal(kvfs_xattr_get(world.v, ino, "user.a", back, 4, &len, NULL), 0);
    assert_int_equal(len, KVFS_XATTR_VALUE_MAX); /* all there is, not all that was copied */
    assert_memory_equal(back, value, 4);
    assert_memory_equal(back + 4, "\0\0\0\0", 4);
    free(value);
    free(back);
}

static void
xattr__bad_names__are_refused(void **state)
{
    char name[300];

    (void)state;
    assert_int_equal(set("", "1", 0), -EINVAL);
    assert_int_equal(set("a/b", "1", 0), -EINVAL);
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    assert_int_equal(set(name, "1", 0), -ENAMETOOLONG);
    name[255] = '\0';
    assert_int_equal(set(name, "1", 0), 0);
    assert_value(name, "1");
}

static int
list_one(void *arg, const char *name)
{
    unsigned *seen = arg;

    seen[strtoul(name + 5, NULL, 10)]++; /* NOLINT(cert-err34-c) */
    return 0;
}

static int
list_stop(void *arg, const char *name)
{
    (void)name;
    return ++*(int *)arg == 40 ? 17 : 0;
}

static void
xattr__list__tells_each_name_once(void **state)
{
    unsigned seen[100] = {0};
    char name[16];
    int calls = 0;

    (void)state;
    assert_int_equal(kvfs_xattr_list(world.v, ino, list_stop, &calls, NULL), 0);
    assert_int_equal(calls, 0);
    for (int i = 0; i < 100; i++) {
        (void)snprintf(name, sizeof(name), "user.%d", i);
        assert_int_equal(set(name, "1", 0), 0);
    }
    assert_int_equal(kvfs_xattr_list(world.v, ino, list_one, seen, NULL), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(seen[i], 1);
    assert_int_equal(kvfs_xattr_list(world.v, ino, list_stop, &calls, NULL), 17);
    assert_int_equal(calls, 40);
    assert_int_equal(kvfs_xattr_list(world.v, 99999, list_stop, &calls, NULL), -ENOENT);
}

static void
xattr__change__moves_ctime_only(void **state)
{
    struct kvfs_attr before, after;

    (void)state;
    assert_int_equal(kvfs_getattr(world.v, ino, &before, NULL), 0);
    assert_int_equal(set("user.a", "1", 0), 0);
    assert_int_equal(kvfs_getattr(world.v, ino, &after, NULL), 0);
    assert_true(after.ctime_ns > before.ctime_ns && after.mtime_ns == before.mtime_ns);
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(xattr__set__comes_back_after_reopen), CASE(xattr__flags__tell_new_from_old),
        CASE(xattr__missing__is_enodata),          CASE(xattr__largest_value__comes_back),
        CASE(xattr__bad_names__are_refused),       CASE(xattr__list__tells_each_name_once),
        CASE(xattr__change__moves_ctime_only),
    };
    int failed = 0;

    for (unsigned n = 0; (engine = world_engine_at(n)) != NULL; n++) {
        print_message("engine %s\n", engine);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
