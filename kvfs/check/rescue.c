/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rescue.c - what a repair writes: inodes, contents, names in /lost+found.
 *
 * /lost+found is made when it is first needed.  Inode records are written last,
 * once, when all names and folders are as they will be.  The counter of numbers is
 * moved on in the batch that uses the first new one.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "check_priv.h"

#define RESCUE_IDS   (UINT64_C(1) << 20) /* numbers taken at once */
#define RESCUE_TRIES 1000                /* names tried */

static int64_t
rescue_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int
rescue_number_put(struct check *c, uint8_t counter, uint64_t n, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;

    kvfs_key_counter(&key, counter);
    return kvfs_check_put(c, &key, value, kvfs_number_encode(n, &key, value), err);
}

uint64_t
kvfs_check_id_new(struct check *c)
{
    if (c->id_next == 0) {
        c->id_next = c->id_max + 1;
        if (c->counter_ok[KVFS_COUNTER_ID] && c->counter[KVFS_COUNTER_ID] > c->id_next)
            c->id_next = c->counter[KVFS_COUNTER_ID];
        c->id_end = c->id_next;
    }
    if (c->id_next == c->id_end) {
        c->id_end += RESCUE_IDS;
        /* An error comes back with the next change: the batch is one. */
        (void)rescue_number_put(c, KVFS_COUNTER_ID, c->id_end, NULL);
    }
    return c->id_next++;
}

uint32_t
kvfs_check_nlink(const struct check_inode *i)
{
    return S_ISDIR(i->mode) ? 2 + i->subdirs : i->names;
}

int
kvfs_check_contents_write(struct check *c, const struct check_inode *i, struct kvfs_error *err)
{
    struct kvfs_contents_record r = {.mtime_ns = rescue_now_ns()};
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    size_t len;

    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_key_contents(&key, i->ino);
    if (kvfs_check_get(c, &key, c->spare, &len, NULL) == 0 &&
        kvfs_contents_decode(&r, &key, c->spare, len) != 0) {
        kvfs_record_reseal(&key, c->spare, len);
        (void)kvfs_contents_decode(&r, &key, c->spare, len);
    }
    r.size_bytes = i->size_bytes;
    r.cut = i->cut;
    return kvfs_check_put(c, &key, value, kvfs_contents_encode(&r, &key, value), err);
}

/* --- names --- */

static int
rescue_name_put(struct check *c, uint64_t dir, const char *name, uint64_t ino, uint32_t mode,
                struct kvfs_error *err)
{
    struct kvfs_dentry_record d = {.ino = ino, .type = mode & S_IFMT};
    uint8_t value[KVFS_NAME_MAX + 16 + KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    int rc;

    d.cookie = kvfs_check_id_new(c);
    kvfs_key_dentry(&key, dir, name, strlen(name));
    rc = kvfs_check_put(c, &key, value, kvfs_dentry_encode(&d, &key, value), err);
    if (rc < 0)
        return rc;
    kvfs_key_cookie(&key, dir, d.cookie);
    return kvfs_check_put(c, &key, value, kvfs_bytes_encode(name, strlen(name), &key, value), err);
}

/* 0: NAME is free in DIR; else what it names: its inode, or UINT64_MAX when damaged. */
static uint64_t
rescue_lookup(struct check *c, uint64_t dir, const char *name)
{
    struct kvfs_dentry_record d;
    struct kvfs_key key;
    size_t len;
    int rc;

    kvfs_key_dentry(&key, dir, name, strlen(name));
    rc = kvfs_check_get(c, &key, c->spare, &len, NULL);
    if (rc == -ENOENT)
        return 0;
    if (rc != 0 || kvfs_dentry_decode(&d, &key, c->spare, len) != 0)
        return UINT64_MAX;
    return d.ino;
}

static int
rescue_folder_make(struct check *c, const char *name, struct kvfs_error *err)
{
    uint64_t ino = kvfs_check_id_new(c);
    struct check_inode *i = kvfs_check_table_add(&c->inodes, ino);
    struct check_inode *root;

    if (i == NULL)
        return kvfs_error_set(err, -ENOMEM, "check: no memory for the tables of inodes and forks");
    i->mode = S_IFDIR | 0700;
    i->dir = i->parent = KVFS_ROOT_INO;
    i->names = 1;
    i->flags = CI_REBUILT | CI_NAMED | CI_REACHED;
    root = kvfs_check_inode(c, KVFS_ROOT_INO);
    root->subdirs++;
    root->rescued++;
    root->flags |= CI_REWRITE;
    c->lost_found = ino;
    c->rescued++;
    return rescue_name_put(c, KVFS_ROOT_INO, name, ino, i->mode, err);
}

/* Set c->lost_found. */
static int
rescue_folder(struct check *c, struct kvfs_error *err)
{
    char name[32] = "lost+found";

    for (unsigned n = 1; c->lost_found == 0 && n < RESCUE_TRIES; n++) {
        uint64_t ino = rescue_lookup(c, KVFS_ROOT_INO, name);
        const struct check_inode *i = ino != 0 ? kvfs_check_inode(c, ino) : NULL;

        if (ino == 0)
            return rescue_folder_make(c, name, err);
        if (kvfs_check_exists(i) && S_ISDIR(i->mode) && i->dir == KVFS_ROOT_INO &&
            ino != KVFS_ROOT_INO)
            c->lost_found = ino;
        (void)snprintf(name, sizeof(name), "lost+found.%u", n);
    }
    return c->lost_found != 0 ? 0
                              : kvfs_error_set(err, -EEXIST, "check: no name free for /lost+found");
}

/* Name INO in /lost+found "#BASE", or "#BASE.1", ... */
static int
rescue_name(struct check *c, const char *base, uint64_t ino, uint32_t mode, struct kvfs_error *err)
{
    char name[64];
    int rc = rescue_folder(c, err);

    (void)snprintf(name, sizeof(name), "#%s", base);
    for (unsigned n = 1; rc == 0 && rescue_lookup(c, c->lost_found, name) != 0; n++) {
        if (n == RESCUE_TRIES)
            rc = kvfs_error_set(err, -EEXIST, "check: no name free in /lost+found");
        (void)snprintf(name, sizeof(name), "#%s.%u", base, n);
    }
    return rc < 0 ? rc : rescue_name_put(c, c->lost_found, name, ino, mode, err);
}

int
kvfs_check_rescue_inode(struct check *c, uint64_t ino, struct kvfs_error *err)
{
    struct check_inode *i = kvfs_check_inode(c, ino);
    uint32_t mode = i->mode;
    char base[32];
    int rc;

    i->names = 1; /* also where nothing is repaired: it will count */
    if (!kvfs_check_repairing(c))
        return 0;
    (void)snprintf(base, sizeof(base), "%" PRIu64, ino);
    rc = rescue_name(c, base, ino, mode, err);
    if (rc < 0)
        return rc;
    i = kvfs_check_inode(c, ino); /* the table may have grown */
    i->dir = c->lost_found;
    i->flags |= CI_REWRITE;
    if (S_ISDIR(mode)) {
        struct check_inode *lost = kvfs_check_inode(c, c->lost_found);

        i->parent = c->lost_found;
        i->flags |= CI_NAMED;
        lost->subdirs++;
        lost->rescued++;
        lost->flags |= CI_REWRITE;
    }
    return 0;
}

int
kvfs_check_rescue_fork(struct check *c, uint64_t fork, struct kvfs_error *err)
{
    struct check_fork *f = kvfs_check_fork(c, fork);
    struct check_inode *i;
    char base[32];
    uint64_t ino;
    int rc;

    if (!kvfs_check_repairing(c))
        return 0;
    ino = kvfs_check_id_new(c);
    i = kvfs_check_table_add(&c->inodes, ino);
    if (i == NULL)
        return kvfs_error_set(err, -ENOMEM, "check: no memory for the tables of inodes and forks");
    f->flags |= CF_FILE;
    f->ino = ino;
    i->mode = S_IFREG | 0600;
    i->names = 1;
    i->fork = fork;
    i->block_size_bytes = f->raw_len;
    i->cut = f->cut_max;
    i->size_bytes = f->index_last >= KVFS_FILE_SIZE_MAX / f->raw_len
                        ? KVFS_FILE_SIZE_MAX
                        : (f->index_last + 1) * f->raw_len;
    i->flags = CI_REBUILT | CI_CONTENTS;
    c->rescued++;
    rc = kvfs_check_contents_write(c, i, err);
    (void)snprintf(base, sizeof(base), "fork-%" PRIu64, fork);
    if (rc == 0)
        rc = rescue_name(c, base, ino, S_IFREG, err);
    i = kvfs_check_inode(c, ino);
    i->dir = c->lost_found;
    return rc;
}

int
kvfs_check_rescue_unname(struct check *c, uint64_t dir, uint64_t ino, struct kvfs_error *err)
{
    struct kvfs_dentry_record d;
    struct kvfs_key key;
    char name[KVFS_NAME_MAX];
    size_t name_len, len;
    int rc;

    kvfs_check_name_in(c, dir, ino, name, &name_len);
    if (name_len == 0)
        return 0;
    kvfs_key_dentry(&key, dir, name, name_len);
    rc = kvfs_check_get(c, &key, c->spare, &len, err);
    if (rc < 0 || kvfs_dentry_decode(&d, &key, c->spare, len) != 0)
        return rc;
    rc = kvfs_check_del(c, &key, err);
    if (rc < 0)
        return rc;
    kvfs_key_cookie(&key, dir, d.cookie);
    return kvfs_check_del(c, &key, err);
}

/* --- inode records --- */

static int
rescue_write_inode(struct check *c, const struct check_inode *i, struct kvfs_error *err)
{
    struct kvfs_inode_record r = {.crtime_ns = rescue_now_ns()};
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    size_t len;

    r.atime_ns = r.mtime_ns = r.ctime_ns = r.crtime_ns;
    kvfs_key_inode(&key, i->ino);
    if (kvfs_check_get(c, &key, c->spare, &len, NULL) == 0 &&
        kvfs_inode_decode(&r, &key, c->spare, len) != 0 && (i->flags & CI_GUESS) != 0) {
        kvfs_record_reseal(&key, c->spare, len);
        (void)kvfs_inode_decode(&r, &key, c->spare, len);
    }
    r.mode = i->mode;
    r.nlink = i->names == 0 && i->ino != KVFS_ROOT_INO ? 0 : kvfs_check_nlink(i);
    r.fork = S_ISREG(i->mode) ? i->fork : 0;
    r.block_size_bytes = S_ISREG(i->mode) ? i->block_size_bytes : 0;
    r.parent = !S_ISDIR(i->mode) ? 0 : i->ino == KVFS_ROOT_INO ? KVFS_ROOT_INO : i->dir;
    if (S_ISDIR(i->mode) && r.parent == 0)
        r.parent = KVFS_ROOT_INO;
    return kvfs_check_put(c, &key, value, kvfs_inode_encode(&r, &key, value), err);
}

int
kvfs_check_rescue_write(struct check *c, struct kvfs_error *err)
{
    int rc = 0;

    for (size_t n = 0; rc == 0 && kvfs_check_repairing(c) && n < c->inodes.count; n++) {
        const struct check_inode *i = kvfs_check_table_at(&c->inodes, n);

        if ((i->flags & (CI_REBUILT | CI_REWRITE)) != 0 && (i->flags & CI_NEWER) == 0)
            rc = rescue_write_inode(c, i, err);
    }
    return rc;
}

/* --- counters --- */

static uint64_t
rescue_inodes(const struct check *c)
{
    uint64_t count = 0;

    for (size_t n = 0; n < c->inodes.count; n++) {
        const struct check_inode *i = kvfs_check_table_at(&c->inodes, n);

        if (kvfs_check_exists(i) && (i->names > 0 || i->ino == KVFS_ROOT_INO))
            count++;
    }
    return count;
}

static int
rescue_counter_id(struct check *c, struct kvfs_error *err)
{
    uint64_t next = c->id_end > c->id_max ? c->id_end : c->id_max + 1;
    uint64_t n = c->counter[KVFS_COUNTER_ID];

    if (c->counter_ok[KVFS_COUNTER_ID] && n > c->id_max)
        return 0;
    if (c->counter_ok[KVFS_COUNTER_ID])
        kvfs_check_found(c, "counter of numbers", "corrected",
                         "is %" PRIu64 ", but %" PRIu64 " is in use", n, c->id_max);
    else
        kvfs_check_found(c, "counter of numbers", "written anew",
                         "its record is damaged or missing");
    return rescue_number_put(c, KVFS_COUNTER_ID, next, err);
}

static int
rescue_counter_inodes(struct check *c, struct kvfs_error *err)
{
    uint64_t inodes = rescue_inodes(c);
    uint64_t n = c->counter[KVFS_COUNTER_INODES];

    if (!c->counter_ok[KVFS_COUNTER_INODES])
        kvfs_check_found(c, "counter of inodes", "written anew",
                         "its record is damaged or missing");
    else if (n != inodes - c->rescued)
        kvfs_check_found(c, "counter of inodes", "corrected",
                         "is %" PRIu64 ", but there are %" PRIu64, n, inodes - c->rescued);
    else if (n == inodes)
        return 0;
    return rescue_number_put(c, KVFS_COUNTER_INODES, inodes, err);
}

int
kvfs_check_counters(struct check *c, struct kvfs_error *err)
{
    int rc = rescue_counter_id(c, err);

    return rc < 0 ? rc : rescue_counter_inodes(c, err);
}
