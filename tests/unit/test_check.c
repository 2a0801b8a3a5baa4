/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The checker: each kind of damage, done through the engine to a volume with
 * known contents, is found and named; a repair makes the volume clean but for what
 * was lost, and no file that was not damaged changes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_vol.h"

static const char *engine_name = "mem";

struct damage {
    const char *name;
    void (*make)(struct vol *t);
    const char *where, *what;
    bool lost; /* stays after a repair */
};

static uint8_t value[KVFS_RECORD_MAX];
static struct kvfs_key key;
static char where_exact[128]; /* set by a damage whose `where` is NULL */

/* --- blocks --- */

/* The nth block that DISK0 has. */
static uint64_t
block_nth(const struct vol *t, unsigned n)
{
    static const uint8_t zeros[VOL_BLOCK];

    for (uint64_t i = 0; i < 40; i++) {
        if (memcmp(t->files[VOL_DISK0].bytes + i * VOL_BLOCK, zeros, VOL_BLOCK) != 0 && n-- == 0)
            return i;
    }
    fail();
    return 0;
}

static void
block_key(struct vol *t, unsigned n)
{
    vol_block_key(&key, t->files[VOL_DISK0].fork, block_nth(t, n));
}

static void
block_flip(struct vol *t)
{
    block_key(t, 2);
    vol_flip(t, KVFS_DATA, &key, 1234, 5);
    (void)snprintf(where_exact, sizeof(where_exact),
                   "file /a/disk0 block %llu (offset %llu):", (unsigned long long)block_nth(t, 2),
                   (unsigned long long)block_nth(t, 2) * VOL_BLOCK);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_trailer_flip(struct vol *t)
{
    block_key(t, 2);
    vol_flip(t, KVFS_DATA, &key, VOL_BLOCK + 11, 3);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_swap(struct vol *t)
{
    uint8_t other[sizeof(value)];
    struct kvfs_key first;
    size_t len, other_len;

    block_key(t, 3);
    first = key;
    len = vol_get(t, KVFS_DATA, &first, value);
    block_key(t, 4);
    other_len = vol_get(t, KVFS_DATA, &key, other);
    vol_put(t, KVFS_DATA, &key, value, len);
    vol_put(t, KVFS_DATA, &first, other, other_len);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_cut_off(struct vol *t)
{
    block_key(t, 1);
    vol_put(t, KVFS_DATA, &key, value, vol_get(t, KVFS_DATA, &key, value) - 1);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_tiny(struct vol *t)
{
    block_key(t, 1);
    vol_put(t, KVFS_DATA, &key, "x", 1);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_put(struct vol *t, uint64_t fork, uint64_t index, size_t len, uint64_t cut)
{
    memset(value, 0x5a, len);
    vol_block_key(&key, fork, index);
    kvfs_block_seal(value + len, key.bytes, value, len, cut);
    vol_put(t, KVFS_DATA, &key, value, len + KVFS_TRAILER_LEN);
}

static void
block_other_size(struct vol *t)
{
    block_put(t, t->files[VOL_DISK0].fork, block_nth(t, 0), 512, 1);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_beyond(struct vol *t)
{
    block_put(t, t->files[VOL_DISK0].fork, 40, VOL_BLOCK, 1);
}

static void
block_far_beyond(struct vol *t)
{
    block_put(t, t->files[VOL_DISK0].fork, UINT64_MAX, VOL_BLOCK, 1);
}

static void
block_new_cut(struct vol *t)
{
    block_put(t, t->files[VOL_DISK0].fork, block_nth(t, 0), VOL_BLOCK, 1000000);
    t->files[VOL_DISK0].damaged = true;
}

static void
block_of_nobody(struct vol *t)
{
    block_put(t, 30583, 5, VOL_BLOCK, 1);
}

/* --- records by key: flipped, removed --- */

#define DAMAGE_RECORD(name, build)          \
    static void name##_flip(struct vol *t)  \
    {                                       \
        build;                              \
        vol_flip(t, KVFS_META, &key, 5, 1); \
    }                                       \
    static void name##_del(struct vol *t)   \
    {                                       \
        build;                              \
        vol_del(t, KVFS_META, &key);        \
    }

static uint64_t
cookie_of(struct vol *t, uint64_t dir, const char *name)
{
    struct kvfs_dentry_record d;

    kvfs_key_dentry(&key, dir, name, strlen(name));
    assert_int_equal(kvfs_dentry_decode(&d, &key, value, vol_get(t, KVFS_META, &key, value)), 0);
    return d.cookie;
}

DAMAGE_RECORD(super, ((void)t, kvfs_key_super(&key)))
DAMAGE_RECORD(inode, kvfs_key_inode(&key, t->files[VOL_DISK0].ino))
DAMAGE_RECORD(inode_thin, kvfs_key_inode(&key, t->files[VOL_THIN].ino))
DAMAGE_RECORD(root, ((void)t, kvfs_key_inode(&key, KVFS_ROOT_INO)))
DAMAGE_RECORD(folder, kvfs_key_inode(&key, t->dir_b))
DAMAGE_RECORD(link_inode, kvfs_key_inode(&key, t->link))
DAMAGE_RECORD(pipe_inode, kvfs_key_inode(&key, t->pipe))
DAMAGE_RECORD(contents, (t->files[VOL_DEEP].damaged = true, /* the size is an estimate */
                         kvfs_key_contents(&key, t->files[VOL_DEEP].ino)))
DAMAGE_RECORD(dentry, kvfs_key_dentry(&key, t->dir_a, "disk0", 5))
DAMAGE_RECORD(dentry_dir, kvfs_key_dentry(&key, t->dir_b, "c", 1))
DAMAGE_RECORD(cookie, kvfs_key_cookie(&key, t->dir_a, cookie_of(t, t->dir_a, "disk1")))
DAMAGE_RECORD(symlink, kvfs_key_symlink(&key, t->link))
DAMAGE_RECORD(ids, ((void)t, kvfs_key_counter(&key, KVFS_COUNTER_ID)))
DAMAGE_RECORD(inodes, ((void)t, kvfs_key_counter(&key, KVFS_COUNTER_INODES)))

static void
xattr_flip(struct vol *t)
{
    kvfs_key_xattr(&key, t->files[VOL_DISK0].ino, "user.x", 6);
    vol_flip(t, KVFS_META, &key, 3, 0);
}

static void
size_flip(struct vol *t) /* a bit of the size itself */
{
    kvfs_key_contents(&key, t->files[VOL_DISK0].ino);
    vol_flip(t, KVFS_META, &key, 7, 4);
    t->files[VOL_DISK0].damaged = true;
}

static void
version_flip(struct vol *t) /* the size is still there */
{
    kvfs_key_contents(&key, t->files[VOL_THIN].ino);
    vol_flip(t, KVFS_META, &key, 2 + 8 + 7, 0);
}

/* --- records with wrong facts and right checksums --- */

static void
dentry_put(struct vol *t, uint64_t dir, const char *name, uint64_t ino, uint64_t cookie,
           uint32_t type)
{
    struct kvfs_dentry_record d = {.ino = ino, .cookie = cookie, .type = type};

    kvfs_key_dentry(&key, dir, name, strlen(name));
    vol_put(t, KVFS_META, &key, value, kvfs_dentry_encode(&d, &key, value));
    kvfs_key_cookie(&key, dir, cookie);
    vol_put(t, KVFS_META, &key, value, kvfs_bytes_encode(name, strlen(name), &key, value));
}

static void
dentry_dangling(struct vol *t)
{
    dentry_put(t, t->dir_a, "gone", 9999, 9998, S_IFREG);
}

static void
dentry_of_root(struct vol *t)
{
    dentry_put(t, t->dir_a, "up", KVFS_ROOT_INO, 900, S_IFDIR);
}

static void
dentry_second_folder(struct vol *t)
{
    dentry_put(t, t->dir_a, "c2", t->dir_c, 900, S_IFDIR);
}

static void
dentry_third_link(struct vol *t)
{
    dentry_put(t, t->dir_b, "third", t->files[VOL_DISK1].ino, 900, S_IFREG);
}

static void
dentry_type(struct vol *t)
{
    dentry_put(t, KVFS_ROOT_INO, "empty", t->files[VOL_EMPTY].ino,
               cookie_of(t, KVFS_ROOT_INO, "empty"), S_IFLNK);
}

static void
dentry_in_file(struct vol *t)
{
    dentry_put(t, t->files[VOL_DISK0].ino, "x", t->files[VOL_DISK1].ino, 900, S_IFREG);
}

static void
cookie_stale(struct vol *t)
{
    kvfs_key_cookie(&key, t->dir_a, 901);
    vol_put(t, KVFS_META, &key, value, kvfs_bytes_encode("disk0", 5, &key, value));
}

static void
cookie_of_nothing(struct vol *t)
{
    kvfs_key_cookie(&key, t->dir_a, 901);
    vol_put(t, KVFS_META, &key, value, kvfs_bytes_encode("ghost", 5, &key, value));
}

static void
cookie_shared(struct vol *t) /* disk0 has the cookie of disk1 */
{
    struct kvfs_dentry_record d = {.ino = t->files[VOL_DISK0].ino, .type = S_IFREG};

    d.cookie = cookie_of(t, t->dir_a, "disk1");
    kvfs_key_dentry(&key, t->dir_a, "disk0", 5);
    vol_put(t, KVFS_META, &key, value, kvfs_dentry_encode(&d, &key, value));
}

static void
inode_change(struct vol *t, uint64_t ino, void (*change)(struct kvfs_inode_record *r, uint64_t to),
             uint64_t to)
{
    struct kvfs_inode_record r;

    kvfs_key_inode(&key, ino);
    assert_int_equal(kvfs_inode_decode(&r, &key, value, vol_get(t, KVFS_META, &key, value)), 0);
    change(&r, to);
    vol_put(t, KVFS_META, &key, value, kvfs_inode_encode(&r, &key, value));
}

static void
set_nlink(struct kvfs_inode_record *r, uint64_t to)
{
    r->nlink = (uint32_t)to;
}

static void
set_parent(struct kvfs_inode_record *r, uint64_t to)
{
    r->parent = to;
}

static void
set_fork(struct kvfs_inode_record *r, uint64_t to)
{
    r->fork = to;
}

static void
nlink_file(struct vol *t)
{
    inode_change(t, t->files[VOL_DISK1].ino, set_nlink, 7);
}

static void
nlink_folder(struct vol *t)
{
    inode_change(t, t->dir_b, set_nlink, 2);
}

static void
parent_wrong(struct vol *t)
{
    inode_change(t, t->dir_c, set_parent, t->dir_a);
}

static void
fork_shared(struct vol *t)
{
    inode_change(t, t->files[VOL_EMPTY].ino, set_fork, t->files[VOL_DISK0].fork);
    t->files[VOL_EMPTY].damaged = true;
}

static void
circle(struct vol *t) /* /b moves below /b/c */
{
    uint64_t cookie = cookie_of(t, KVFS_ROOT_INO, "b");

    vol_del(t, KVFS_META, &key);
    kvfs_key_cookie(&key, KVFS_ROOT_INO, cookie);
    vol_del(t, KVFS_META, &key);
    dentry_put(t, t->dir_c, "b", t->dir_b, 900, S_IFDIR);
    inode_change(t, t->dir_b, set_parent, t->dir_c);
    inode_change(t, t->dir_c, set_nlink, 3);
    inode_change(t, KVFS_ROOT_INO, set_nlink, 3);
}

static void
number_put(struct vol *t, uint64_t n)
{
    vol_put(t, KVFS_META, &key, value, kvfs_number_encode(n, &key, value));
}

static void
orphan_named(struct vol *t)
{
    kvfs_key_orphan(&key, t->files[VOL_DISK0].ino);
    number_put(t, 0);
}

static void
orphan_of_nothing(struct vol *t)
{
    kvfs_key_orphan(&key, 9999);
    number_put(t, 0);
}

static void
orphan_damaged(struct vol *t)
{
    orphan_of_nothing(t);
    vol_flip(t, KVFS_META, &key, 4, 1);
}

static void
orphan_missing(struct vol *t) /* a name is taken away, the count says 0 */
{
    cookie_del(t);
    kvfs_key_dentry(&key, t->dir_a, "disk1", 5);
    vol_del(t, KVFS_META, &key);
    kvfs_key_cookie(&key, t->dir_a, cookie_of(t, t->dir_a, "twin"));
    vol_del(t, KVFS_META, &key);
    kvfs_key_dentry(&key, t->dir_a, "twin", 4);
    vol_del(t, KVFS_META, &key);
    inode_change(t, t->files[VOL_DISK1].ino, set_nlink, 0);
    t->files[VOL_DISK1].damaged = true;
}

static void
ids_small(struct vol *t)
{
    kvfs_key_counter(&key, KVFS_COUNTER_ID);
    number_put(t, 17);
}

static void
inodes_wrong(struct vol *t)
{
    kvfs_key_counter(&key, KVFS_COUNTER_INODES);
    number_put(t, 3);
}

static void
moves_damaged(struct vol *t)
{
    kvfs_key_counter(&key, KVFS_COUNTER_MOVES);
    number_put(t, 3);
    vol_flip(t, KVFS_META, &key, 4, 1);
}

static void
dead_damaged(struct vol *t)
{
    kvfs_key_dead(&key, 777);
    number_put(t, 0);
    vol_flip(t, KVFS_META, &key, 4, 1);
}

static void
hole_put(struct vol *t, uint64_t fork, uint64_t start, uint64_t end, uint64_t cut)
{
    struct kvfs_hole_record h = {.end = end, .cut = cut};

    kvfs_key_hole(&key, fork, start);
    vol_put(t, KVFS_META, &key, value, kvfs_hole_encode(&h, &key, value));
}

static void
hole_of_nobody(struct vol *t)
{
    hole_put(t, 888, 1, 5, 1);
}

static void
hole_damaged(struct vol *t) /* over nothing: no byte depends on it */
{
    hole_put(t, t->files[VOL_THIN].fork, 1, 5, 1);
    vol_flip(t, KVFS_META, &key, 4, 1);
}

static void
hole_new_cut(struct vol *t)
{
    hole_put(t, t->files[VOL_THIN].fork, 1, 5, 5000);
}

static void
block_hidden(struct vol *t) /* damaged, but under a hole */
{
    hole_put(t, t->files[VOL_THIN].fork, 1, 5, 5);
    block_put(t, t->files[VOL_THIN].fork, 3, VOL_BLOCK, 1);
    vol_flip(t, KVFS_DATA, &key, 77, 0);
}

static void
over_put(struct vol *t, uint64_t fork, uint64_t cut, uint64_t top)
{
    struct kvfs_over_record o = {.top = top};

    kvfs_key_over(&key, fork, cut);
    vol_put(t, KVFS_META, &key, value, kvfs_over_encode(&o, &key, value));
}

static void
over_of_nobody(struct vol *t)
{
    block_put(t, 779, 0, VOL_BLOCK, 1);
    over_put(t, 778, 1, 779);
}

static void
over_damaged(struct vol *t) /* one fork without an owner: it must be that */
{
    block_put(t, 779, 0, VOL_BLOCK, 1);
    over_put(t, t->files[VOL_THIN].fork, 1, 779);
    vol_flip(t, KVFS_META, &key, 9, 1);
    t->files[VOL_THIN].damaged = true;
}

static void
over_block_flip(struct vol *t)
{
    over_put(t, t->files[VOL_THIN].fork, 1, 779);
    block_put(t, 779, 3, VOL_BLOCK, 1);
    vol_flip(t, KVFS_DATA, &key, 77, 0);
    t->files[VOL_THIN].damaged = true;
}

static void
pending_damaged(struct vol *t)
{
    struct kvfs_pending_record p = {.ino = t->files[VOL_DISK0].ino};

    kvfs_key_pending(&key, 780);
    vol_put(t, KVFS_META, &key, value, kvfs_pending_encode(&p, &key, value));
    vol_flip(t, KVFS_META, &key, 4, 1);
}

static void
pending_block_flip(struct vol *t)
{
    struct kvfs_pending_record p = {.ino = t->files[VOL_DISK0].ino};

    kvfs_key_pending(&key, 780);
    vol_put(t, KVFS_META, &key, value, kvfs_pending_encode(&p, &key, value));
    block_put(t, 780, 3, VOL_BLOCK, 1);
    vol_flip(t, KVFS_DATA, &key, 77, 0);
}

static void
contents_of_folder(struct vol *t)
{
    struct kvfs_contents_record r = {.size_bytes = 1};

    kvfs_key_contents(&key, t->dir_a);
    vol_put(t, KVFS_META, &key, value, kvfs_contents_encode(&r, &key, value));
}

static void
target_of_file(struct vol *t)
{
    kvfs_key_symlink(&key, t->files[VOL_DISK0].ino);
    vol_put(t, KVFS_META, &key, value, kvfs_bytes_encode("x", 1, &key, value));
}

static void
key_unknown(struct vol *t)
{
    memcpy(key.bytes, "Quite", 5);
    key.len = 5;
    vol_put(t, KVFS_META, &key, "x", 1);
}

static void
value_swap(struct vol *t) /* two inode records in each other's place */
{
    uint8_t other[KVFS_RECORD_MAX];
    size_t len, other_len;

    kvfs_key_inode(&key, t->files[VOL_DISK0].ino);
    len = vol_get(t, KVFS_META, &key, value);
    kvfs_key_inode(&key, t->files[VOL_DISK1].ino);
    other_len = vol_get(t, KVFS_META, &key, other);
    vol_put(t, KVFS_META, &key, value, len);
    kvfs_key_inode(&key, t->files[VOL_DISK0].ino);
    vol_put(t, KVFS_META, &key, other, other_len);
    t->files[VOL_DISK0].damaged = t->files[VOL_DISK1].damaged = true; /* who is who? */
}

static void
file_write(struct vol *t, const char *text)
{
    char name[128];
    FILE *f;

    (void)snprintf(name, sizeof(name), "%s/volume", t->path);
    f = fopen(name, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void
file_garbage(struct vol *t)
{
    file_write(t, "once upon a time\n");
}

static void
file_other_uuid(struct vol *t)
{
    bool log = strncmp(t->engine, "log:", 4) == 0;
    char text[256];

    (void)snprintf(text, sizeof(text),
                   "kvfs-volume 1\nuuid 01234567-0123-4123-8123-0123456789ab\nengine %s\nlog %s\n",
                   t->engine + (log ? 4 : 0), log ? "on" : "off");
    file_write(t, text);
}

#define DAMAGED "damaged"
#define DISK0   "file /a/disk0"

static const struct damage damages[] = {
    {"block_flip", block_flip, NULL, "checksum does not match", true},
    {"block_trailer_flip", block_trailer_flip, DISK0 " block ", "checksum does not match", true},
    {"block_swap", block_swap, DISK0 " block ", "checksum does not match", true},
    {"block_cut_off", block_cut_off, DISK0 " block ", "checksum does not match", true},
    {"block_tiny", block_tiny, DISK0 " block ", "checksum does not match", true},
    {"block_other_size", block_other_size, DISK0 " block ", "holds 512 bytes", true},
    {"block_beyond", block_beyond, DISK0 " block 40 (offset 163840)", "beyond the end", false},
    {"block_far_beyond", block_far_beyond, DISK0 " block 18446744073709551615", "beyond the end",
     false},
    {"block_new_cut", block_new_cut, DISK0, "blocks of cut 1000000", false},
    {"block_of_nobody", block_of_nobody, "fork 30583", "belong to no file", false},
    {"super_flip", super_flip, "superblock", DAMAGED, false},
    {"super_del", super_del, "superblock", "missing", false},
    {"inode_flip", inode_flip, DISK0, "inode record", false},
    {"inode_del", inode_del, DISK0, "missing", false},
    {"inode_thin_flip", inode_thin_flip, "file /thin", "inode record", false},
    {"inode_thin_del", inode_thin_del, "file /thin", "inode record", false},
    {"root_flip", root_flip, "folder /", "inode record", false},
    {"root_del", root_del, "folder /", "inode record", false},
    {"folder_flip", folder_flip, "folder /b", "inode record", false},
    {"folder_del", folder_del, "folder /b", "inode record", false},
    {"link_inode_flip", link_inode_flip, "link /s", "inode record", false},
    {"link_inode_del", link_inode_del, "link /s", "inode record", false},
    {"pipe_inode_flip", pipe_inode_flip, "special file /p", "inode record", false},
    {"pipe_inode_del", pipe_inode_del, "folder / entry 'p'", "does not exist", false},
    {"contents_flip", contents_flip, "file /b/c/deep", "contents record", false},
    {"contents_del", contents_del, "file /b/c/deep", "(size) is missing", false},
    {"dentry_flip", dentry_flip, "folder /a entry 'disk0'", DAMAGED, false},
    {"dentry_del", dentry_del, "inode ", "has no name", false},
    {"dentry_dir_flip", dentry_dir_flip, "folder /b entry 'c'", DAMAGED, false},
    {"dentry_dir_del", dentry_dir_del, "inode ", "has no name", false},
    {"cookie_flip", cookie_flip, "folder /a", "cookie", false},
    {"cookie_del", cookie_del, "folder /a entry 'disk1'", "has no record", false},
    {"symlink_flip", symlink_flip, "link /s", "target is damaged", true},
    {"symlink_del", symlink_del, "link /s", "target is missing", true},
    {"xattr_flip", xattr_flip, DISK0 " attribute 'user.x'", DAMAGED, true},
    {"size_flip", size_flip, DISK0, "contents record (size) is damaged", false},
    {"version_flip", version_flip, "file /thin", "contents record", false},
    {"ids_flip", ids_flip, "counter of numbers", DAMAGED, false},
    {"ids_del", ids_del, "counter of numbers", "missing", false},
    {"inodes_flip", inodes_flip, "counter of inodes", DAMAGED, false},
    {"inodes_del", inodes_del, "counter of inodes", "missing", false},
    {"dentry_dangling", dentry_dangling, "folder /a entry 'gone'", "does not exist", false},
    {"dentry_of_root", dentry_of_root, "folder /a entry 'up'", "names the root", false},
    {"dentry_second_folder", dentry_second_folder, "folder /a entry 'c2'", "second name", false},
    {"dentry_third_link", dentry_third_link, "file /", "its link count is 2, it has 3", false},
    {"dentry_type", dentry_type, "folder / entry 'empty'", "says type", false},
    {"dentry_in_file", dentry_in_file, DISK0, "is no folder", false},
    {"cookie_stale", cookie_stale, "folder /a entry 'disk0'", "beside the one it uses", false},
    {"cookie_of_nothing", cookie_of_nothing, "folder /a entry 'ghost'", "no such entry", false},
    {"cookie_shared", cookie_shared, "folder /a entry 'disk0'", "belongs to another name", false},
    {"nlink_file", nlink_file, "file /a/", "its link count is 7, it has 2", false},
    {"nlink_folder", nlink_folder, "folder /b", "its link count is 2, it has 3", false},
    {"parent_wrong", parent_wrong, "folder /b/c", "is above it", false},
    {"fork_shared", fork_shared, "file /", "in use elsewhere", true},
    {"circle", circle, "inode ", "circle", false},
    {"orphan_named", orphan_named, DISK0, "a name and an orphan record", false},
    {"orphan_of_nothing", orphan_of_nothing, "inode 9999", "does not exist", false},
    {"orphan_damaged", orphan_damaged, "orphan inode 9999", DAMAGED, false},
    {"orphan_missing", orphan_missing, "inode ", "no orphan record", false},
    {"ids_small", ids_small, "counter of numbers", "in use", false},
    {"inodes_wrong", inodes_wrong, "counter of inodes", "is 3, but there are 11", false},
    {"moves_damaged", moves_damaged, "counter of moves", DAMAGED, false},
    {"dead_damaged", dead_damaged, "dead fork 777", DAMAGED, false},
    {"hole_of_nobody", hole_of_nobody, "fork 888", "is no file's", false},
    {"hole_damaged", hole_damaged, "file /thin", "a hole from block 1 is damaged", false},
    {"hole_new_cut", hole_new_cut, "file /thin", "cut 5000", false},
    {"block_hidden", block_hidden, "file /thin block 3", "checksum", false},
    {"over_of_nobody", over_of_nobody, "fork 779", "over fork 778", false},
    {"over_damaged", over_damaged, "file /thin", "a fork over it is damaged", false},
    {"over_block_flip", over_block_flip, "file /thin block 3", "checksum", true},
    {"pending_damaged", pending_damaged, "unfinished fork 780", DAMAGED, false},
    {"pending_block_flip", pending_block_flip, "unfinished fork 780 block 3", "checksum", false},
    {"contents_of_folder", contents_of_folder, "folder /a", "is no regular file", false},
    {"target_of_file", target_of_file, DISK0, "is no link", false},
    {"key_unknown", key_unknown, "record 51 75 69 74 65", "no record of this format", false},
    {"value_swap", value_swap, DISK0, "inode record", false},
    {"file_garbage", file_garbage, "file 'volume'", "", false},
    {"file_other_uuid", file_other_uuid, "file 'volume'", "another uuid", false},
};

static void
expect_found(const struct damage *d, const struct vol_findings *f)
{
    const char *where = d->where != NULL ? d->where : where_exact;

    if (f->rc != 0)
        fail_msg("%s: check: %s", d->name, f->err.msg);
    if (!vol_found(f, where, d->what))
        fail_msg("%s: not found: '%s' '%s' among:\n%s", d->name, where, d->what, f->text);
}

static void
damage_one(const struct damage *d, uint64_t seed)
{
    struct vol_findings f;
    struct vol t;

    vol_make(&t, engine_name, seed);
    vol_raw_open(&t);
    d->make(&t);
    vol_raw_close(&t);

    vol_check(&t, false, &f);
    expect_found(d, &f);
    assert_int_equal(f.result.repaired, 0);
    assert_true(f.result.findings > 0);
    vol_findings_free(&f);

    vol_check(&t, true, &f);
    expect_found(d, &f);
    if ((f.result.findings == f.result.repaired) == d->lost)
        fail_msg("%s: %llu findings, %llu repaired:\n%s", d->name,
                 (unsigned long long)f.result.findings, (unsigned long long)f.result.repaired,
                 f.text);
    vol_findings_free(&f);

    vol_check(&t, true, &f);
    if (f.rc != 0 || f.result.repaired != 0 || (f.result.findings > 0) != d->lost)
        fail_msg("%s: after the repair: %s\n%s", d->name, f.err.msg, f.text);
    vol_findings_free(&f);

    vol_compare(&t);
    vol_check(&t, false, &f); /* the volume was in use meanwhile */
    if (f.rc != 0 || (f.result.findings > 0) != d->lost)
        fail_msg("%s: after use: %s\n%s", d->name, f.err.msg, f.text);
    vol_findings_free(&f);
    vol_remove(&t);
}

static void
check__each_damage__found_named_and_repaired(void **state)
{
    uint64_t seed = vol_seed();
    const char *only = getenv("KVFS_DAMAGE"); // NOLINT(concurrency-mt-unsafe): one thread

    (void)state;
    for (size_t i = 0; i < sizeof(damages) / sizeof(damages[0]); i++) {
        if (only == NULL || strcmp(only, damages[i].name) == 0)
            damage_one(&damages[i], seed);
    }
}

static void
check__clean_volume__no_findings(void **state)
{
    struct vol_findings f;
    struct vol t;

    (void)state;
    vol_make(&t, engine_name, vol_seed());
    for (int repair = 0; repair < 2; repair++) {
        vol_check(&t, repair != 0, &f);
        assert_string_equal(f.text, "");
        assert_int_equal(f.rc, 0);
        assert_int_equal(f.result.findings, 0);
        assert_int_equal(f.result.inodes, 11);
        assert_true(f.result.blocks > 10);
        assert_true(f.result.records > f.result.blocks + 30);
        vol_findings_free(&f);
    }
    vol_compare(&t);
    vol_remove(&t);
}

static void
check__volume_in_use__reads_but_repairs_nothing(void **state)
{
    struct kvfs_error err = {0};
    struct vol_findings f;
    struct kvfs_volume *v;
    struct kvfs_file *file;
    struct vol t;

    (void)state;
    vol_make(&t, engine_name, vol_seed());
    assert_int_equal(kvfs_volume_open(t.path, NULL, &v, &err), 0);
    assert_int_equal(kvfs_file_open(v, t.files[VOL_DISK0].ino, KVFS_OPEN_WRITE, &file, &err), 0);
    /* An orphan, a trimmed range and unwritten data are nothing bad. */
    assert_int_equal(kvfs_unlink(v, t.dir_a, "disk0", &err), 0);
    assert_int_equal(kvfs_file_zero(file, 30 * VOL_BLOCK, VOL_BLOCK, 0, &err), 0);
    assert_int_equal(kvfs_file_pwrite(file, "new", 3, 5, 0, &err), 0);
    vol_check(&t, false, &f);
    assert_string_equal(f.text, "");
    assert_int_equal(f.rc, 0);
    vol_findings_free(&f);
    assert_int_equal(kvfs_file_flush(file, &err), 0);
    vol_check(&t, false, &f);
    assert_string_equal(f.text, "");
    vol_findings_free(&f);
    vol_check(&t, true, &f);
    assert_int_equal(f.rc, -EBUSY);
    vol_findings_free(&f);
    kvfs_file_close(file);
    assert_int_equal(kvfs_volume_close(v, &err), 0);
    vol_check(&t, false, &f);
    assert_string_equal(f.text, "");
    vol_findings_free(&f);
    vol_remove(&t);
}

static void
check__damaged_block__others_still_read(void **state)
{
    struct kvfs_error err = {0};
    struct vol_findings f;
    struct kvfs_volume *v;
    struct kvfs_file *file;
    uint8_t got[VOL_BLOCK];
    struct vol t;
    uint64_t bad;

    (void)state;
    vol_make(&t, engine_name, vol_seed());
    vol_raw_open(&t);
    block_flip(&t);
    vol_raw_close(&t);
    bad = block_nth(&t, 2);
    vol_check(&t, true, &f);
    vol_findings_free(&f);
    assert_int_equal(kvfs_volume_open(t.path, NULL, &v, &err), 0);
    assert_int_equal(kvfs_file_open(v, t.files[VOL_DISK0].ino, KVFS_OPEN_READ, &file, &err), 0);
    for (uint64_t i = 0; i < 40; i++) {
        int rc = kvfs_file_pread(file, got, VOL_BLOCK, i * VOL_BLOCK, &err);

        assert_int_equal(rc, i == bad ? -EIO : 0);
        if (i != bad)
            assert_memory_equal(got, t.files[VOL_DISK0].bytes + i * VOL_BLOCK, VOL_BLOCK);
    }
    kvfs_file_close(file);
    assert_int_equal(kvfs_volume_close(v, &err), 0);
    vol_remove(&t);
}

static void
check__lost_inodes__data_are_found_in_lost_and_found(void **state)
{
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_attr attr;
    struct kvfs_file *file;
    struct vol_findings f;
    struct vol t;
    char name[64];
    uint8_t *got;

    (void)state;
    vol_make(&t, engine_name, vol_seed());
    vol_raw_open(&t);
    for (int i = 0; i < 2; i++) {
        kvfs_key_inode(&key, t.files[i].ino);
        vol_del(&t, KVFS_META, &key);
    }
    vol_raw_close(&t);
    vol_check(&t, true, &f);
    assert_int_equal(f.rc, 0);
    vol_findings_free(&f);
    assert_int_equal(kvfs_volume_open(t.path, NULL, &v, &err), 0);
    for (int i = 0; i < 2; i++) {
        const struct vol_file *vf = &t.files[i];

        (void)snprintf(name, sizeof(name), "/lost+found/#fork-%llu", (unsigned long long)vf->fork);
        assert_int_equal(kvfs_path_lookup(v, name, false, &attr, &err), 0);
        assert_int_equal(kvfs_file_open(v, attr.ino, KVFS_OPEN_READ, &file, &err), 0);
        got = calloc(1, (size_t)vf->size);
        assert_non_null(got);
        assert_int_equal(
            kvfs_file_pread(file, got,
                            (size_t)(attr.size_bytes < vf->size ? attr.size_bytes : vf->size), 0,
                            &err),
            0);
        assert_memory_equal(got, vf->bytes, (size_t)vf->size);
        free(got);
        kvfs_file_close(file);
    }
    assert_int_equal(kvfs_volume_close(v, &err), 0);
    vol_remove(&t);
}

/* A fork over a file hides what lies below it, also behind the end, until it is worked off. */
static void
check__block_behind_the_end_under_a_fork__is_nothing_bad(void **state)
{
    struct kvfs_contents_record contents;
    struct vol_findings f;
    struct vol t;

    (void)state;
    vol_make(&t, engine_name, vol_seed());
    vol_raw_open(&t);
    kvfs_key_contents(&key, t.files[VOL_DISK1].ino);
    assert_int_equal(
        kvfs_contents_decode(&contents, &key, value, vol_get(&t, KVFS_META, &key, value)), 0);
    block_put(&t, t.files[VOL_DISK1].fork, 20, VOL_BLOCK, contents.cut - 1);
    hole_put(&t, 779, 15, 30, 1);
    over_put(&t, t.files[VOL_DISK1].fork, contents.cut, 779);
    block_put(&t, 779, 40, 0, 1); /* a mark of zeros behind the end */
    vol_raw_close(&t);
    vol_check(&t, false, &f);
    assert_string_equal(f.text, "");
    assert_int_equal(f.rc, 0);
    vol_findings_free(&f);
    vol_remove(&t);
}

static int
stop_at_once(void *arg, uint64_t done, uint64_t total)
{
    ++*(int *)arg;
    (void)done;
    (void)total;
    return 1;
}

struct progress_seen {
    uint64_t done, total;
    bool engine_half, backwards, no_total;
    int calls;
};

static int
progress_look(void *arg, uint64_t done, uint64_t total)
{
    struct progress_seen *p = arg;

    p->calls++;
    p->backwards |= done < p->done;
    p->no_total |= total == 0;
    p->engine_half |= done > 0 && done == total / 2;
    p->done = done;
    p->total = total;
    return 0;
}

/* The bar goes on while the engine looks at its structure, which is half of the work. */
static void
check__progress__engine_is_the_first_half(void **state)
{
    struct progress_seen seen = {.done = 0};
    struct kvfs_check_options options = {.progress = progress_look, .progress_arg = &seen};
    struct kvfs_check_result result;
    struct kvfs_error err = {0};
    struct vol t;

    (void)state;
    vol_make(&t, engine_name, vol_seed());
    vol_raw_open(&t);
    for (uint64_t i = 0; i < 2000; i++)
        block_put(&t, t.files[VOL_THIN].fork, i, 512, 1);
    vol_raw_close(&t);
    assert_int_equal(kvfs_check(t.path, &options, &result, &err), 0);
    assert_true(seen.calls > 2);
    assert_true(seen.engine_half);
    assert_false(seen.backwards);
    assert_false(seen.no_total);
    assert_int_equal(seen.done, seen.total);
    vol_remove(&t);
}

static void
check__not_a_volume_or_interrupted__says_so(void **state)
{
    int calls = 0;
    struct kvfs_check_options options = {.progress = stop_at_once, .progress_arg = &calls};
    struct kvfs_check_result result;
    struct kvfs_error err = {0};
    struct vol t;

    (void)state;
    assert_int_equal(kvfs_check("/nonexistent", NULL, &result, &err), -ENOENT);
    assert_int_equal(kvfs_check("/tmp", NULL, &result, NULL), -ENOENT);
    vol_make(&t, engine_name, vol_seed());
    vol_raw_open(&t);
    for (uint64_t i = 0; i < 2000; i++)
        block_put(&t, t.files[VOL_THIN].fork, i, 512, 1);
    vol_raw_close(&t);
    assert_int_equal(kvfs_check(t.path, &options, &result, &err), -EINTR);
    assert_int_equal(calls, 1);
    vol_remove(&t);
}

static int
use_chosen(void **state)
{
    (void)state;
    engine_name = chosen_engine();
    return 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check__clean_volume__no_findings),
        cmocka_unit_test(check__each_damage__found_named_and_repaired),
        cmocka_unit_test(check__volume_in_use__reads_but_repairs_nothing),
        cmocka_unit_test(check__damaged_block__others_still_read),
        cmocka_unit_test(check__lost_inodes__data_are_found_in_lost_and_found),
        cmocka_unit_test(check__block_behind_the_end_under_a_fork__is_nothing_bad),
        cmocka_unit_test(check__progress__engine_is_the_first_half),
        cmocka_unit_test(check__not_a_volume_or_interrupted__says_so),
    };
    int failed = 0;

    if (!chosen_by_name())
        failed += cmocka_run_group_tests_name("check, mem", tests, NULL, NULL);
    if (chosen_is_there())
        failed += cmocka_run_group_tests_name("check", tests, use_chosen, NULL);
    return failed;
}
