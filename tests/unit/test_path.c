/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Paths: parts, dots, slashes, links that lead on, up, around and nowhere.
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

#include <cmocka.h>

#include "names_world.h"

/* The tree of every case: /a/b/file, /top, and links. */
static struct world world;
static uint64_t a, b, file, top;

static uint64_t
make(uint64_t dir, const char *name, uint32_t mode, const char *target)
{
    struct kvfs_create create = {.mode = mode, .target = target};
    struct kvfs_error err = {0};
    struct kvfs_attr attr;

    if (kvfs_create(world.v, dir, name, &create, &attr, &err) != 0)
        fail_msg("create %s: %s", name, err.msg);
    return attr.ino;
}

static int
setup(void **state)
{
    (void)state;
    world_begin(&world, world_engine_at(0));
    a = make(KVFS_ROOT_INO, "a", S_IFDIR | 0755, NULL);
    b = make(a, "b", S_IFDIR | 0755, NULL);
    file = make(b, "file", S_IFREG | 0644, NULL);
    top = make(KVFS_ROOT_INO, "top", S_IFREG | 0644, NULL);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    world_end(&world);
    return 0;
}

/* The inode that a path leads to, or a negative errno. */
static int64_t
find(const char *path, bool follow)
{
    struct kvfs_error err = {0};
    struct kvfs_attr attr;
    int rc = kvfs_path_lookup(world.v, path, follow, &attr, &err);

    assert_int_equal(err.code, rc);
    return rc == 0 ? (int64_t)attr.ino : rc;
}

static void
path__parts_and_dots__are_walked(void **state)
{
    (void)state;
    assert_int_equal(find("", true), KVFS_ROOT_INO);
    assert_int_equal(find("/", true), KVFS_ROOT_INO);
    assert_int_equal(find("//.//", true), KVFS_ROOT_INO);
    assert_int_equal(find("..", true), KVFS_ROOT_INO);
    assert_int_equal(find("/../../top", true), top);
    assert_int_equal(find("top", true), top);
    assert_int_equal(find("/a/b/file", true), file);
    assert_int_equal(find("a//b/./file", true), file);
    assert_int_equal(find("a/b/../b/..", true), a);
    assert_int_equal(find("a/b/", true), b);
    assert_int_equal(find("a/b/.", true), b);
}

static void
path__that_leads_nowhere__is_refused(void **state)
{
    char name[300];

    (void)state;
    assert_int_equal(find("/x", true), -ENOENT);
    assert_int_equal(find("/a/x/file", true), -ENOENT);
    assert_int_equal(find("/top/x", true), -ENOTDIR);
    assert_int_equal(find("/top/..", true), -ENOTDIR);
    assert_int_equal(find("/top/", true), -ENOTDIR);
    assert_int_equal(find("/top/.", true), -ENOTDIR);
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    assert_int_equal(find(name, true), -ENAMETOOLONG);
    name[255] = '\0';
    assert_int_equal(find(name, true), -ENOENT);
}

static void
path__links__are_followed(void **state)
{
    uint64_t last, up;

    (void)state;
    make(a, "rel", S_IFLNK | 0777, "b/file");
    make(b, "abs", S_IFLNK | 0777, "/a/b");
    up = make(b, "up", S_IFLNK | 0777, "../../top");
    last = make(KVFS_ROOT_INO, "chain", S_IFLNK | 0777, "a/b/abs/abs/abs/up");
    make(KVFS_ROOT_INO, "slash", S_IFLNK | 0777, "top/");
    make(KVFS_ROOT_INO, "gone", S_IFLNK | 0777, "nowhere");
    assert_int_equal(find("/a/rel", true), file);
    assert_int_equal(find("/a/b/abs/file", true), file);
    assert_int_equal(find("/chain", true), top);
    assert_int_equal(find("/chain", false), last);
    assert_int_equal(find("/a/b/abs/up", false), up); /* links on the way are followed */
    assert_int_equal(find("/a/b/abs/", false), b);    /* a slash behind asks for the folder */
    assert_int_equal(find("/slash", true), -ENOTDIR);
    assert_int_equal(find("/gone", true), -ENOENT);
    assert_int_equal(find("/chain/x", true), -ENOTDIR);
}

static void
path__too_many_links__is_eloop(void **state)
{
    char name[8], target[8];

    (void)state;
    make(KVFS_ROOT_INO, "self", S_IFLNK | 0777, "self");
    make(KVFS_ROOT_INO, "ping", S_IFLNK | 0777, "pong/x");
    make(KVFS_ROOT_INO, "pong", S_IFLNK | 0777, "ping/x");
    assert_int_equal(find("self", true), -ELOOP);
    assert_int_equal(find("self/x", false), -ELOOP);
    assert_int_equal(find("ping", true), -ELOOP);
    for (int i = 41; i >= 1; i--) { /* l41 -> l40 -> ... -> l1 -> top */
        (void)snprintf(name, sizeof(name), "l%d", i);
        (void)snprintf(target, sizeof(target), i > 1 ? "l%d" : "top", i - 1);
        make(KVFS_ROOT_INO, name, S_IFLNK | 0777, target);
    }
    assert_int_equal(find("l40", true), top);
    assert_int_equal(find("l41", true), -ELOOP);
}

static void
path_parent__last_name__is_split_off(void **state)
{
    static const struct {
        const char *path, *name;
        const uint64_t *dir;
    } good[] = {
        {"/a/b/new", "new", &b},
        {"a/b/new/", "new", &b},
        {"a/link/new//.", "new", &b},
        {"a/b/..//b/file", "file", &b},
    };
    static const struct {
        const char *path;
        int rc;
    } bad[] = {
        {"", -EINVAL},   {"/", -EINVAL},    {".", -EINVAL},      {"a/..", -EINVAL},
        {"..", -EINVAL}, {"/x/y", -ENOENT}, {"top/x", -ENOTDIR}, {"a/b/file/x", -ENOTDIR},
    };
    char name[KVFS_NAME_MAX + 1], path[300];
    uint64_t dir;

    (void)state;
    make(a, "link", S_IFLNK | 0777, "b");
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(kvfs_path_parent(world.v, good[i].path, &dir, name, NULL), 0);
        assert_int_equal(dir, *good[i].dir);
        assert_string_equal(name, good[i].name);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(kvfs_path_parent(world.v, bad[i].path, &dir, name, NULL), bad[i].rc);
    assert_int_equal(kvfs_path_parent(world.v, "a/link", &dir, name, NULL), 0);
    assert_true(dir == a && strcmp(name, "link") == 0); /* the last part is not followed */
    memset(path, 'n', sizeof(path));
    path[255] = '\0';
    assert_int_equal(kvfs_path_parent(world.v, path, &dir, name, NULL), 0);
    assert_string_equal(name, path);
    path[255] = 'n';
    path[256] = '\0';
    assert_int_equal(kvfs_path_parent(world.v, path, &dir, name, NULL), -ENAMETOOLONG);
}

static void
error__of_a_hostile_name__stays_one_line(void **state)
{
    char path[256];
    struct kvfs_error err;
    struct kvfs_attr attr;

    (void)state;
    for (unsigned i = 0; i < 255; i++)
        path[i] = (char)(unsigned char)(i + 1 == '/' ? 'x' : i + 1);
    path[255] = '\0';
    assert_int_equal(kvfs_path_lookup(world.v, path, true, &attr, &err), -ENOENT);
    for (const char *p = err.msg; *p != '\0'; p++)
        assert_true((unsigned char)*p >= ' ' && *p != 0x7f);
    assert_non_null(strstr(err.msg, "\\x0a"));
    assert_non_null(strstr(err.msg, "...'"));
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(path__parts_and_dots__are_walked),
        CASE(path__that_leads_nowhere__is_refused),
        CASE(path__links__are_followed),
        CASE(path__too_many_links__is_eloop),
        CASE(path_parent__last_name__is_split_off),
        CASE(error__of_a_hostile_name__stays_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
