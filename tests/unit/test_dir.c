/* SPDX-License-Identifier: BSD-3-Clause
 *
 * Names by POSIX's rules, over every engine.  After each case all records of
 * names are held against each other (world_judge).
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

static const char *engine;
static struct world world;
#define V world.v

static int
setup(void **state)
{
    (void)state;
    world_begin(&world, engine);
    return 0;
}

static int
setup_small(void **state)
{
    (void)state;
    world.store_max_bytes = 16 << 20;
    world_begin(&world, engine);
    world.store_max_bytes = 0;
    return 0;
}

static int
teardown(void **state)
{
    char why[256] = "";
    int rc = world_judge(V, why, sizeof(why));

    (void)state;
    if (rc != 0)
        print_error("the names do not agree: %s\n", why);
    world_end(&world);
    return rc;
}

/* --- shorthands: what they make must succeed --- */

static uint64_t
make(uint64_t dir, const char *name, uint32_t mode)
{
    struct kvfs_create create = {.mode = mode, .target = S_ISLNK(mode) ? "target" : NULL};
    struct kvfs_error err = {0};
    struct kvfs_attr attr;

    if (kvfs_create(V, dir, name, &create, &attr, &err) != 0)
        fail_msg("create %s: %s", name, err.msg);
    return attr.ino;
}

static uint64_t
file(uint64_t dir, const char *name)
{
    return make(dir, name, S_IFREG | 0644);
}

static uint64_t
folder(uint64_t dir, const char *name)
{
    return make(dir, name, S_IFDIR | 0755);
}

static struct kvfs_attr
attr_of(uint64_t ino)
{
    struct kvfs_attr attr = {0};

    assert_int_equal(kvfs_getattr(V, ino, &attr, NULL), 0);
    return attr;
}

static void
assert_attr_equal(const struct kvfs_attr *a, const struct kvfs_attr *b)
{
    assert_int_equal(a->ino, b->ino);
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(a->uid, b->uid);
    assert_int_equal(a->gid, b->gid);
    assert_int_equal(a->nlink, b->nlink);
    assert_int_equal(a->rdev, b->rdev);
    assert_int_equal(a->size_bytes, b->size_bytes);
    assert_int_equal(a->block_size_bytes, b->block_size_bytes);
    assert_int_equal(a->atime_ns, b->atime_ns);
    assert_int_equal(a->mtime_ns, b->mtime_ns);
    assert_int_equal(a->ctime_ns, b->ctime_ns);
    assert_int_equal(a->crtime_ns, b->crtime_ns);
    assert_int_equal(a->version, b->version);
}

/* The inode that a name stands for; 0: there is none. */
static uint64_t
ino_of(uint64_t dir, const char *name)
{
    struct kvfs_attr attr;
    int rc = kvfs_lookup(V, dir, name, &attr, NULL);

    if (rc == -ENOENT)
        return 0;
    assert_int_equal(rc, 0);
    return attr.ino;
}

static int
create_rc(uint64_t dir, const char *name, uint32_t mode)
{
    struct kvfs_create create = {.mode = mode};

    return kvfs_create(V, dir, name, &create, NULL, NULL);
}

static int
rename_rc(uint64_t od, const char *on, uint64_t nd, const char *nn, unsigned flags)
{
    return kvfs_rename(V, od, on, nd, nn, flags, NULL);
}

static uint64_t
inodes_named(void)
{
    struct kvfs_volume_stat st;

    assert_int_equal(kvfs_volume_stat(V, &st, NULL), 0);
    return st.inodes;
}

/* --- create, lookup, getattr --- */

static void
create__file__has_what_was_asked_for(void **state)
{
    struct kvfs_create create = {.mode = S_IFREG | 04755,
                                 .uid = 7,
                                 .gid = 8,
                                 .rdev = 9,
                                 .size_bytes = 123456789,
                                 .block_size_bytes = 512};
    struct kvfs_attr made, got;

    (void)state;
    assert_int_equal(kvfs_create(V, KVFS_ROOT_INO, "disk", &create, &made, NULL), 0);
    assert_int_equal(kvfs_lookup(V, KVFS_ROOT_INO, "disk", &got, NULL), 0);
    assert_attr_equal(&made, &got);
    assert_int_equal(got.mode, S_IFREG | 04755);
    assert_true(got.uid == 7 && got.gid == 8 && got.rdev == 0 && got.nlink == 1);
    assert_true(got.size_bytes == 123456789 && got.block_size_bytes == 512);
    assert_true(got.crtime_ns > 0 && got.mtime_ns == got.crtime_ns);
    world_reopen(&world);
    assert_int_equal(kvfs_getattr(V, made.ino, &got, NULL), 0);
    assert_attr_equal(&made, &got);
}

static void
create__each_type__is_told_by_lookup(void **state)
{
    static const uint32_t modes[] = {S_IFREG | 0600, S_IFDIR | 0700, S_IFLNK | 0777, S_IFCHR | 0600,
                                     S_IFBLK | 0600, S_IFIFO | 0600, S_IFSOCK | 0600};
    struct kvfs_create create = {.target = "over/there", .rdev = 0x801};
    struct kvfs_attr attr;
    char name[] = "a";

    (void)state;
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++, name[0]++) {
        create.mode = modes[i];
        assert_int_equal(kvfs_create(V, KVFS_ROOT_INO, name, &create, NULL, NULL), 0);
        assert_int_equal(kvfs_lookup(V, KVFS_ROOT_INO, name, &attr, NULL), 0);
        assert_int_equal(attr.mode, modes[i]);
        assert_int_equal(attr.rdev, S_ISCHR(modes[i]) || S_ISBLK(modes[i]) ? 0x801 : 0);
        assert_int_equal(attr.size_bytes, S_ISLNK(modes[i]) ? 10 : 0);
        assert_int_equal(attr.nlink, S_ISDIR(modes[i]) ? 2 : 1);
    }
    assert_int_equal(attr_of(KVFS_ROOT_INO).nlink, 3);
    assert_int_equal(inodes_named(), 8);
}

static void
create__existing_name__is_eexist(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a");

    (void)state;
    assert_int_equal(create_rc(KVFS_ROOT_INO, "a", S_IFREG), -EEXIST);
    assert_int_equal(create_rc(KVFS_ROOT_INO, "a", S_IFDIR), -EEXIST);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "a"), ino);
    assert_int_equal(inodes_named(), 2);
}

static void
create__absurd_wishes__are_refused(void **state)
{
    char target[KVFS_SYMLINK_MAX + 2];
    struct kvfs_create c;

    (void)state;
#define REFUSED(code, ...)                                                          \
    do {                                                                            \
        c = (struct kvfs_create){__VA_ARGS__};                                      \
        assert_int_equal(kvfs_create(V, KVFS_ROOT_INO, "a", &c, NULL, NULL), code); \
    } while (0)
    REFUSED(-EINVAL, .mode = 0644);
    REFUSED(-EINVAL, .mode = S_IFMT);
    REFUSED(-EINVAL, .mode = S_IFREG | 0x10000);
    REFUSED(-EINVAL, .mode = S_IFREG, .block_size_bytes = 3000);
    REFUSED(-EINVAL, .mode = S_IFREG, .block_size_bytes = 256);
    REFUSED(-EINVAL, .mode = S_IFREG, .block_size_bytes = 131072);
    REFUSED(-EFBIG, .mode = S_IFREG, .size_bytes = (uint64_t)INT64_MAX + 1);
    REFUSED(-EINVAL, .mode = S_IFLNK);
    REFUSED(-EINVAL, .mode = S_IFLNK, .target = "");
    memset(target, 'a', sizeof(target));
    target[sizeof(target) - 1] = '\0';
    REFUSED(-ENAMETOOLONG, .mode = S_IFLNK, .target = target);
#undef REFUSED
    target[sizeof(target) - 2] = '\0';
    c = (struct kvfs_create){.mode = S_IFLNK, .target = target};
    assert_int_equal(kvfs_create(V, KVFS_ROOT_INO, "a", &c, NULL, NULL), 0);
    c = (struct kvfs_create){.mode = S_IFREG, .size_bytes = INT64_MAX};
    assert_int_equal(kvfs_create(V, KVFS_ROOT_INO, "b", &c, NULL, NULL), 0);
    assert_int_equal(attr_of(ino_of(KVFS_ROOT_INO, "b")).size_bytes, INT64_MAX);
}

static void
create__bad_names__are_refused(void **state)
{
    static const char *const bad[] = {"", ".", "..", "/", "a/b", "a/", "/a"};
    char name[258];

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(create_rc(KVFS_ROOT_INO, bad[i], S_IFREG), -EINVAL);
        assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, bad[i], NULL), -EINVAL);
        assert_int_equal(kvfs_rmdir(V, KVFS_ROOT_INO, bad[i], NULL), -EINVAL);
        assert_int_equal(rename_rc(KVFS_ROOT_INO, bad[i], KVFS_ROOT_INO, "x", 0), -EINVAL);
        assert_int_equal(rename_rc(KVFS_ROOT_INO, "x", KVFS_ROOT_INO, bad[i], 0), -EINVAL);
        assert_int_equal(kvfs_link(V, KVFS_ROOT_INO, KVFS_ROOT_INO, bad[i], NULL), -EINVAL);
    }
    memset(name, 'n', sizeof(name));
    name[256] = '\0';
    assert_int_equal(create_rc(KVFS_ROOT_INO, name, S_IFREG), -ENAMETOOLONG);
    assert_int_equal(kvfs_lookup(V, KVFS_ROOT_INO, name, &(struct kvfs_attr){0}, NULL),
                     -ENAMETOOLONG);
    name[255] = '\0';
    assert_int_equal(create_rc(KVFS_ROOT_INO, name, S_IFREG), 0);
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, name, NULL), 0);
}

static void
create__every_byte_in_a_name__is_kept(void **state)
{
    char name[3] = "";

    (void)state;
    for (unsigned byte = 1; byte < 256; byte++) {
        name[0] = (char)byte;
        name[1] = byte % 2 == 0 ? '\xff' : '\0';
        if (byte == '/' || (byte == '.' && name[1] == '\0')) {
            assert_int_equal(create_rc(KVFS_ROOT_INO, name, S_IFREG), -EINVAL);
            continue;
        }
        assert_int_equal(ino_of(KVFS_ROOT_INO, name), 0);
        assert_int_equal(ino_of(KVFS_ROOT_INO, name), 0);
        file(KVFS_ROOT_INO, name);
        assert_int_not_equal(ino_of(KVFS_ROOT_INO, name), 0);
    }
}

static void
create__below_no_folder__is_refused(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a");

    (void)state;
    assert_int_equal(create_rc(ino, "b", S_IFREG), -ENOTDIR);
    assert_int_equal(create_rc(99999, "b", S_IFREG), -ENOENT);
    assert_int_equal(kvfs_lookup(V, ino, "b", &(struct kvfs_attr){0}, NULL), -ENOTDIR);
    assert_int_equal(kvfs_lookup(V, 99999, "b", &(struct kvfs_attr){0}, NULL), -ENOENT);
    assert_int_equal(kvfs_getattr(V, 99999, &(struct kvfs_attr){0}, NULL), -ENOENT);
}

static void
lookup__dots__are_the_folder_and_the_one_above(void **state)
{
    uint64_t a = folder(KVFS_ROOT_INO, "a"), b = folder(a, "b");

    (void)state;
    assert_int_equal(ino_of(b, "."), b);
    assert_int_equal(ino_of(b, ".."), a);
    assert_int_equal(ino_of(KVFS_ROOT_INO, ".."), KVFS_ROOT_INO);
}

static void
change__in_a_folder__moves_its_times(void **state)
{
    uint64_t dir = folder(KVFS_ROOT_INO, "d");
    int64_t before = attr_of(dir).mtime_ns;

    (void)state;
    for (int i = 0; i < 5; i++) {
        struct kvfs_attr a;

        if (i == 0)
            file(dir, "a");
        else if (i == 1)
            assert_int_equal(kvfs_link(V, ino_of(dir, "a"), dir, "b", NULL), 0);
        else if (i == 2)
            assert_int_equal(rename_rc(dir, "b", dir, "c", 0), 0);
        else if (i == 3)
            assert_int_equal(kvfs_unlink(V, dir, "c", NULL), 0);
        else
            folder(dir, "f");
        a = attr_of(dir);
        assert_true(a.mtime_ns > before && a.ctime_ns == a.mtime_ns);
        before = a.mtime_ns;
    }
}

static void
readonly__volume__refuses_changes(void **state)
{
    struct kvfs_volume_options options = {.readonly = true};
    uint64_t ino = file(KVFS_ROOT_INO, "a");

    (void)state;
    assert_int_equal(kvfs_volume_close(V, NULL), 0);
    assert_int_equal(kvfs_volume_open(world.path, &options, &V, NULL), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "a"), ino);
    assert_int_equal(create_rc(KVFS_ROOT_INO, "b", S_IFREG), -EROFS);
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, "a", NULL), -EROFS);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), -EROFS);
    assert_int_equal(kvfs_xattr_set(V, ino, "user.a", "1", 1, 0, NULL), -EROFS);
}

/* --- links --- */

static void
link__second_name__is_the_same_file(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a"), dir = folder(KVFS_ROOT_INO, "d");
    int64_t ctime = attr_of(ino).ctime_ns;

    (void)state;
    assert_int_equal(kvfs_link(V, ino, dir, "b", NULL), 0);
    assert_int_equal(ino_of(dir, "b"), ino);
    assert_int_equal(attr_of(ino).nlink, 2);
    assert_true(attr_of(ino).ctime_ns > ctime);
    assert_int_equal(inodes_named(), 3);
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, "a", NULL), 0);
    assert_int_equal(attr_of(ino).nlink, 1);
    assert_int_equal(kvfs_unlink(V, dir, "b", NULL), 0);
    assert_int_equal(kvfs_getattr(V, ino, &(struct kvfs_attr){0}, NULL), -ENOENT);
    assert_int_equal(inodes_named(), 2);
}

static void
link__wrong_ends__are_refused(void **state)
{
    uint64_t dir = folder(KVFS_ROOT_INO, "d"), ino = file(KVFS_ROOT_INO, "a");

    (void)state;
    assert_int_equal(kvfs_link(V, dir, KVFS_ROOT_INO, "b", NULL), -EPERM);
    assert_int_equal(kvfs_link(V, ino, KVFS_ROOT_INO, "d", NULL), -EEXIST);
    assert_int_equal(kvfs_link(V, 99999, KVFS_ROOT_INO, "b", NULL), -ENOENT);
    assert_int_equal(kvfs_link(V, ino, ino, "b", NULL), -ENOTDIR);
    assert_int_equal(kvfs_link(V, ino, 99999, "b", NULL), -ENOENT);
    assert_int_equal(attr_of(ino).nlink, 1);
}

static void
readlink__targets__come_back(void **state)
{
    uint64_t ino = make(KVFS_ROOT_INO, "l", S_IFLNK | 0777);
    char buf[16] = "................";
    size_t len;

    (void)state;
    assert_int_equal(kvfs_readlink(V, ino, buf, sizeof(buf), &len, NULL), 0);
    assert_int_equal(len, 6);
    assert_memory_equal(buf, "target..", 8);
    assert_int_equal(kvfs_readlink(V, ino, buf + 8, 3, &len, NULL), 0);
    assert_int_equal(len, 6);
    assert_memory_equal(buf + 8, "tar...", 6);
    assert_int_equal(kvfs_readlink(V, KVFS_ROOT_INO, buf, 1, &len, NULL), -EINVAL);
    assert_int_equal(kvfs_readlink(V, 99999, buf, 1, &len, NULL), -ENOENT);
}

/* --- unlink, rmdir --- */

static void
unlink__folder_or_nothing__is_refused(void **state)
{
    (void)state;
    folder(KVFS_ROOT_INO, "d");
    file(KVFS_ROOT_INO, "a");
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, "d", NULL), -EISDIR);
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, "x", NULL), -ENOENT);
    assert_int_equal(kvfs_rmdir(V, KVFS_ROOT_INO, "a", NULL), -ENOTDIR);
    assert_int_equal(kvfs_rmdir(V, KVFS_ROOT_INO, "x", NULL), -ENOENT);
}

static void
unlink__last_name__takes_attributes_along(void **state)
{
    uint64_t ino = make(KVFS_ROOT_INO, "l", S_IFLNK | 0777);

    (void)state;
    assert_int_equal(kvfs_xattr_set(V, ino, "user.a", "1", 1, 0, NULL), 0);
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, "l", NULL), 0);
    assert_int_equal(kvfs_getattr(V, ino, &(struct kvfs_attr){0}, NULL), -ENOENT);
    /* The teardown finds records that were left behind. */
}

static void
unlink__open_file__lives_until_it_is_closed(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a");
    struct kvfs_file *f;
    char back[4];

    (void)state;
    assert_int_equal(kvfs_file_open(V, ino, KVFS_OPEN_WRITE, &f, NULL), 0);
    assert_int_equal(kvfs_unlink(V, KVFS_ROOT_INO, "a", NULL), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "a"), 0);
    assert_int_equal(attr_of(ino).nlink, 0);
    assert_int_equal(inodes_named(), 1);
    assert_int_equal(kvfs_link(V, ino, KVFS_ROOT_INO, "b", NULL), -ENOENT);
    assert_int_equal(kvfs_file_pwrite(f, "data", 4, 0, KVFS_EXTEND, NULL), 0);
    assert_int_equal(kvfs_file_flush(f, NULL), 0);
    assert_int_equal(kvfs_file_pread(f, back, 4, 0, NULL), 0);
    assert_memory_equal(back, "data", 4);
    kvfs_file_close(f);
    assert_int_equal(kvfs_getattr(V, ino, &(struct kvfs_attr){0}, NULL), -ENOENT);
}

static void
unlink__full_store__makes_room(void **state)
{
    struct kvfs_create create = {.mode = S_IFREG | 0644};
    static uint8_t value[KVFS_XATTR_VALUE_MAX];
    struct kvfs_error err = {0};
    struct kvfs_attr attr;
    char name[16];
    int made = 0, rc;

    (void)state;
    do { /* fill it with attributes, then with names alone */
        (void)snprintf(name, sizeof(name), "n%d", made);
        rc = kvfs_create(V, KVFS_ROOT_INO, name, &create, &attr, &err);
        if (rc == 0 && kvfs_xattr_set(V, attr.ino, "user.a", value, sizeof(value), 0, &err) != 0)
            assert_int_equal(err.code, -ENOSPC);
        made += rc == 0;
        assert_true(made < 100000);
    } while (rc == 0);
    if (rc != -ENOSPC)
        fail_msg("%s", err.msg);
    assert_true(err.code == -ENOSPC && err.msg[0] != '\0');
    for (int i = 0; i < made; i++) {
        (void)snprintf(name, sizeof(name), "n%d", i);
        if (kvfs_unlink(V, KVFS_ROOT_INO, name, &err) != 0)
            fail_msg("unlink %d of %d: %s", i, made, err.msg);
    }
    file(KVFS_ROOT_INO, "again");
}

static void
rmdir__not_empty__is_refused(void **state)
{
    uint64_t dir = folder(KVFS_ROOT_INO, "d");

    (void)state;
    file(dir, "a");
    assert_int_equal(kvfs_rmdir(V, KVFS_ROOT_INO, "d", NULL), -ENOTEMPTY);
    assert_int_equal(kvfs_unlink(V, dir, "a", NULL), 0);
    assert_int_equal(attr_of(KVFS_ROOT_INO).nlink, 3);
    assert_int_equal(kvfs_rmdir(V, KVFS_ROOT_INO, "d", NULL), 0);
    assert_int_equal(attr_of(KVFS_ROOT_INO).nlink, 2);
    assert_int_equal(create_rc(dir, "a", S_IFREG), -ENOENT);
    assert_int_equal(inodes_named(), 1);
}

/* --- rename --- */

static void
rename__to_a_new_name__moves(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a"), dir = folder(KVFS_ROOT_INO, "d");

    (void)state;
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "a"), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "b"), ino);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "b", dir, "b", KVFS_RENAME_NOREPLACE), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "b"), 0);
    assert_int_equal(ino_of(dir, "b"), ino);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "x", dir, "y", 0), -ENOENT);
    assert_int_equal(rename_rc(dir, "b", ino, "y", 0), -ENOTDIR);
    assert_int_equal(rename_rc(dir, "b", 99999, "y", 0), -ENOENT);
}

static void
rename__over_a_file__replaces_it(void **state)
{
    uint64_t a = file(KVFS_ROOT_INO, "a"), b = file(KVFS_ROOT_INO, "b");

    (void)state;
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", KVFS_RENAME_NOREPLACE),
                     -EEXIST);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "a"), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "b"), a);
    assert_int_equal(kvfs_getattr(V, b, &(struct kvfs_attr){0}, NULL), -ENOENT);
    assert_int_equal(inodes_named(), 2);
}

static void
rename__over_one_of_two_names__keeps_the_other(void **state)
{
    uint64_t b;

    (void)state;
    file(KVFS_ROOT_INO, "a");
    b = file(KVFS_ROOT_INO, "b");
    assert_int_equal(kvfs_link(V, b, KVFS_ROOT_INO, "c", NULL), 0);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "c"), b);
    assert_int_equal(attr_of(b).nlink, 1);
}

static void
rename__over_an_open_file__makes_an_orphan(void **state)
{
    uint64_t a = file(KVFS_ROOT_INO, "a"), b = file(KVFS_ROOT_INO, "b");
    struct kvfs_file *f;

    (void)state;
    assert_int_equal(kvfs_file_open(V, b, KVFS_OPEN_READ, &f, NULL), 0);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), 0);
    assert_int_equal(attr_of(b).nlink, 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "b"), a);
    kvfs_file_close(f);
    assert_int_equal(kvfs_getattr(V, b, &(struct kvfs_attr){0}, NULL), -ENOENT);
}

static void
rename__two_names_of_one_file__does_nothing(void **state)
{
    uint64_t a = file(KVFS_ROOT_INO, "a");

    (void)state;
    assert_int_equal(kvfs_link(V, a, KVFS_ROOT_INO, "b", NULL), 0);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), 0);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "a", 0), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "a"), a);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "b"), a);
    assert_int_equal(attr_of(a).nlink, 2);
}

static void
rename__file_and_folder__do_not_replace_each_other(void **state)
{
    (void)state;
    file(KVFS_ROOT_INO, "a");
    folder(KVFS_ROOT_INO, "d");
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "d", 0), -EISDIR);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "d", KVFS_ROOT_INO, "a", 0), -ENOTDIR);
}

static void
rename__folder_over_folder__wants_it_empty(void **state)
{
    uint64_t a = folder(KVFS_ROOT_INO, "a"), b = folder(KVFS_ROOT_INO, "b");

    (void)state;
    file(b, "x");
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), -ENOTEMPTY);
    assert_int_equal(kvfs_unlink(V, b, "x", NULL), 0);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", KVFS_ROOT_INO, "b", 0), 0);
    assert_int_equal(ino_of(KVFS_ROOT_INO, "b"), a);
    assert_int_equal(attr_of(KVFS_ROOT_INO).nlink, 3);
    assert_int_equal(inodes_named(), 2);
}

static void
rename__folder_to_another_parent__moves_its_dots(void **state)
{
    uint64_t a = folder(KVFS_ROOT_INO, "a"), b = folder(KVFS_ROOT_INO, "b"), x = folder(a, "x");
    uint64_t y = folder(b, "y");

    (void)state;
    assert_int_equal(rename_rc(a, "x", b, "x", 0), 0);
    assert_int_equal(ino_of(x, ".."), b);
    assert_int_equal(attr_of(a).nlink, 2);
    assert_int_equal(attr_of(b).nlink, 4);
    assert_int_equal(rename_rc(b, "x", b, "y", 0), 0); /* over an empty folder */
    assert_int_equal(attr_of(b).nlink, 3);
    assert_int_equal(kvfs_getattr(V, y, &(struct kvfs_attr){0}, NULL), -ENOENT);
    folder(a, "z");
    assert_int_equal(rename_rc(b, "y", a, "z", 0), 0); /* both at once */
    assert_int_equal(attr_of(b).nlink, 2);
    assert_int_equal(attr_of(a).nlink, 3);
    assert_int_equal(ino_of(x, ".."), a);
}

static void
rename__folder_below_itself__is_einval(void **state)
{
    uint64_t a = folder(KVFS_ROOT_INO, "a"), b = folder(a, "b"), c = folder(b, "c");

    (void)state;
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", a, "x", 0), -EINVAL);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", c, "x", 0), -EINVAL);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", b, "c", 0), -EINVAL);
    assert_int_equal(rename_rc(b, "c", KVFS_ROOT_INO, "a", 0), -ENOTEMPTY);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", b, "c", KVFS_RENAME_EXCHANGE), -EINVAL);
    assert_int_equal(rename_rc(b, "c", KVFS_ROOT_INO, "a", KVFS_RENAME_EXCHANGE), -EINVAL);
    assert_int_equal(rename_rc(b, "c", KVFS_ROOT_INO, "c", 0), 0);
    assert_int_equal(rename_rc(KVFS_ROOT_INO, "a", c, "a", 0), 0);
    assert_int_equal(ino_of(a, ".."), c);
}

static void
rename__exchange__swaps(void **state)
{
    uint64_t d = folder(KVFS_ROOT_INO, "d"), e = folder(KVFS_ROOT_INO, "e");
    uint64_t a = file(d, "a"), b = folder(e, "b"), c = folder(d, "c");

    (void)state;
    file(b, "inside");
    assert_int_equal(rename_rc(d, "a", e, "b", KVFS_RENAME_EXCHANGE), 0);
    assert_int_equal(ino_of(d, "a"), b);
    assert_int_equal(ino_of(e, "b"), a);
    assert_int_equal(ino_of(b, ".."), d);
    assert_int_equal(attr_of(d).nlink, 4);
    assert_int_equal(attr_of(e).nlink, 2);
    assert_int_equal(rename_rc(d, "a", d, "c", KVFS_RENAME_EXCHANGE), 0);
    assert_int_equal(ino_of(d, "a"), c);
    assert_int_equal(ino_of(d, "c"), b);
    assert_int_equal(rename_rc(d, "a", d, "none", KVFS_RENAME_EXCHANGE), -ENOENT);
    assert_int_equal(rename_rc(d, "a", d, "c", KVFS_RENAME_EXCHANGE | KVFS_RENAME_NOREPLACE),
                     -EINVAL);
    assert_int_equal(rename_rc(d, "a", d, "c", 4), -EINVAL);
}

/* --- attributes --- */

static void
setattr__each_bit__changes_its_field_only(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a");
    struct kvfs_attr set = {.mode = S_IFDIR | 07111,
                            .uid = 1,
                            .gid = 2,
                            .atime_ns = -3,
                            .mtime_ns = 4,
                            .nlink = 99,
                            .size_bytes = 99};
    struct kvfs_attr before, after;

    (void)state;
    for (unsigned bit = 0; bit < 5; bit++) {
        before = attr_of(ino);
        assert_int_equal(kvfs_setattr(V, ino, 1u << bit, &set, NULL), 0);
        after = attr_of(ino);
        assert_true(after.ctime_ns > before.ctime_ns);
        before.ctime_ns = after.ctime_ns;
        if (bit == 0)
            before.mode = S_IFREG | 07111;
        if (bit == 1)
            before.uid = 1;
        if (bit == 2)
            before.gid = 2;
        if (bit == 3)
            before.atime_ns = -3;
        if (bit == 4)
            before.mtime_ns = 4;
        assert_attr_equal(&before, &after);
    }
    assert_int_equal(kvfs_setattr(V, 99999, KVFS_SET_UID, &set, NULL), -ENOENT);
}

static void
times__write_and_setattr__the_later_holds(void **state)
{
    uint64_t ino = file(KVFS_ROOT_INO, "a");
    struct kvfs_attr set = {.mtime_ns = 1000}, got;
    struct kvfs_file *f;
    int64_t written;

    (void)state;
    assert_int_equal(kvfs_file_open(V, ino, KVFS_OPEN_WRITE, &f, NULL), 0);
    written = attr_of(ino).mtime_ns;
    assert_int_equal(kvfs_file_pwrite(f, "x", 1, 0, KVFS_EXTEND, NULL), 0);
    got = attr_of(ino);
    assert_true(got.mtime_ns > written && got.size_bytes == 1); /* ahead of the engine */
    assert_int_equal(got.ctime_ns, got.mtime_ns);
    written = got.mtime_ns;
    assert_int_equal(kvfs_setattr(V, ino, KVFS_SET_MODE, &set, NULL), 0);
    assert_int_equal(attr_of(ino).mtime_ns, written); /* other attributes leave it */
    assert_int_equal(kvfs_setattr(V, ino, KVFS_SET_MTIME, &set, NULL), 0);
    assert_int_equal(attr_of(ino).mtime_ns, 1000); /* also back */
    assert_int_equal(kvfs_file_flush(f, NULL), 0);
    assert_int_equal(attr_of(ino).mtime_ns, 1000);
    kvfs_file_close(f);
    assert_int_equal(attr_of(ino).mtime_ns, 1000);
    world_reopen(&world);
    assert_int_equal(attr_of(ino).mtime_ns, 1000);
}

int
main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(create__file__has_what_was_asked_for),
        CASE(create__each_type__is_told_by_lookup),
        CASE(create__existing_name__is_eexist),
        CASE(create__absurd_wishes__are_refused),
        CASE(create__bad_names__are_refused),
        CASE(create__every_byte_in_a_name__is_kept),
        CASE(create__below_no_folder__is_refused),
        CASE(lookup__dots__are_the_folder_and_the_one_above),
        CASE(change__in_a_folder__moves_its_times),
        CASE(readonly__volume__refuses_changes),
        CASE(link__second_name__is_the_same_file),
        CASE(link__wrong_ends__are_refused),
        CASE(readlink__targets__come_back),
        CASE(unlink__folder_or_nothing__is_refused),
        CASE(unlink__last_name__takes_attributes_along),
        CASE(unlink__open_file__lives_until_it_is_closed),
        cmocka_unit_test_setup_teardown(unlink__full_store__makes_room, setup_small, teardown),
        CASE(rmdir__not_empty__is_refused),
        CASE(rename__to_a_new_name__moves),
        CASE(rename__over_a_file__replaces_it),
        CASE(rename__over_one_of_two_names__keeps_the_other),
        CASE(rename__over_an_open_file__makes_an_orphan),
        CASE(rename__two_names_of_one_file__does_nothing),
        CASE(rename__file_and_folder__do_not_replace_each_other),
        CASE(rename__folder_over_folder__wants_it_empty),
        CASE(rename__folder_to_another_parent__moves_its_dots),
        CASE(rename__folder_below_itself__is_einval),
        CASE(rename__exchange__swaps),
        CASE(setattr__each_bit__changes_its_field_only),
        CASE(times__write_and_setattr__the_later_holds),
    };
    int failed = 0;

    for (unsigned n = 0; (engine = world_engine_at(n)) != NULL; n++) {
        print_message("engine %s\n", engine);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
