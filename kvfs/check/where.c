/* SPDX-License-Identifier: BSD-3-Clause
 *
 * where.c - saying where: paths of inodes, bytes of keys.
 *
 * A path is found upwards: each folder that names the inode is searched for the
 * name.  That costs a scan of the folder, only for what is damaged, and the last
 * path is kept because damage comes in runs.  Control characters are written as
 * \xNN, so a finding is one line.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"

#define WHERE_DEPTH_MAX 256

static size_t
where_escape(char *out, size_t cap, const char *name, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len && n + 5 < cap; i++) {
        unsigned char b = (unsigned char)name[i];

        if (b < 0x20 || b == 0x7f)
            n += (size_t)snprintf(out + n, cap - n, "\\x%02x", b);
        else
            out[n++] = (char)b;
    }
    out[n] = '\0';
    return n;
}

void
kvfs_check_name_in(struct check *c, uint64_t dir, uint64_t ino, char *name, size_t *len)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo, hi;
    const void *key;
    size_t key_len, value_len;

    *len = 0;
    kvfs_key_inode_part(&lo, dir, KVFS_PART_DENTRY);
    kvfs_key_inode_part(&hi, dir, KVFS_PART_COOKIE);
    if (c->engine->cursor_open(c->snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len, 0, &cursor,
                               NULL) != 0)
        return;
    while (c->engine->cursor_next(cursor, &key, &key_len, &value_len, NULL) == 1) {
        uint8_t value[KVFS_SMALL_RECORD_MAX];
        struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
        struct kvfs_dentry_record d;
        struct kvfs_key_parts parts;
        struct kvfs_key k;

        if (key_len > sizeof(k.bytes) || value_len > sizeof(value) ||
            c->engine->cursor_value(cursor, 0, &iov, 1, NULL) != 0)
            continue;
        memcpy(k.bytes, key, key_len);
        k.len = key_len;
        if (kvfs_dentry_decode(&d, &k, value, value_len) != 0 || d.ino != ino ||
            kvfs_check_key(&k, &parts) != 0)
            continue;
        memcpy(name, parts.name, parts.name_len);
        *len = parts.name_len;
        break;
    }
    c->engine->cursor_close(cursor);
}

static uint64_t
where_dir_of(struct check *c, uint64_t ino)
{
    const struct check_inode *i = kvfs_check_inode(c, ino);

    if (i == NULL)
        return 0;
    return i->dir != 0 ? i->dir : i->parent;
}

/* Fill c->path; false: no path leads there. */
static bool
where_path(struct check *c, uint64_t ino)
{
    size_t start = sizeof(c->path) - 1;
    uint64_t at = ino;

    if (c->path_ino == ino)
        return true;
    c->path_ino = 0;
    c->path[start] = '\0';
    for (unsigned depth = 0; at != KVFS_ROOT_INO; depth++) {
        char name[KVFS_NAME_MAX];
        char text[KVFS_NAME_MAX * 4 + 8];
        uint64_t dir = where_dir_of(c, at);
        size_t len;

        if (dir == 0 || depth == WHERE_DEPTH_MAX)
            return false;
        kvfs_check_name_in(c, dir, at, name, &len);
        if (len == 0)
            return false;
        len = where_escape(text, sizeof(text), name, len);
        if (start < len + 1)
            return false;
        start -= len;
        memcpy(c->path + start, text, len);
        c->path[--start] = '/';
        at = dir;
    }
    if (c->path[start] == '\0')
        c->path[--start] = '/';
    memmove(c->path, c->path + start, sizeof(c->path) - start);
    c->path_ino = ino;
    return true;
}

static const char *
where_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "folder";
    case S_IFLNK:
        return "link";
    case S_IFREG:
    case 0:
        return "file";
    default:
        return "special file";
    }
}

const char *
kvfs_check_where(struct check *c, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(c->where, sizeof(c->where), fmt, ap);
    va_end(ap);
    c->where_ino = 0;
    c->where_path_len = 0;
    return c->where;
}

/* Write "file /a/b" or "inode 12" into c->where; returns its length. */
static size_t
where_inode(struct check *c, uint64_t ino)
{
    const struct check_inode *i = kvfs_check_inode(c, ino);
    int n;

    if (where_path(c, ino))
        n = snprintf(c->where, sizeof(c->where), "%s %s", where_type(i != NULL ? i->mode : S_IFDIR),
                     c->path);
    else
        n = snprintf(c->where, sizeof(c->where), "inode %" PRIu64, ino);
    c->where_ino = ino;
    c->where_path_len = (size_t)n;
    return (size_t)n;
}

const char *
kvfs_check_where_inode(struct check *c, uint64_t ino)
{
    (void)where_inode(c, ino);
    return c->where;
}

const char *
kvfs_check_where_block(struct check *c, uint64_t ino, uint64_t index, uint32_t block_size_bytes)
{
    size_t n = where_inode(c, ino);

    if (block_size_bytes != 0 && index <= UINT64_MAX / block_size_bytes)
        (void)snprintf(c->where + n, sizeof(c->where) - n,
                       " block %" PRIu64 " (offset %" PRIu64 ")", index, index * block_size_bytes);
    else
        (void)snprintf(c->where + n, sizeof(c->where) - n, " block %" PRIu64, index);
    return c->where;
}

static const char *
where_with(struct check *c, uint64_t ino, const char *what, const char *name, size_t len)
{
    size_t n = where_inode(c, ino);

    n += (size_t)snprintf(c->where + n, sizeof(c->where) - n, " %s '", what);
    n += where_escape(c->where + n, sizeof(c->where) - n - 2, name, len);
    (void)snprintf(c->where + n, sizeof(c->where) - n, "'");
    return c->where;
}

const char *
kvfs_check_where_name(struct check *c, uint64_t dir, const char *name, size_t len)
{
    return where_with(c, dir, "entry", name, len);
}

const char *
kvfs_check_where_xattr(struct check *c, uint64_t ino, const char *name, size_t len)
{
    return where_with(c, ino, "attribute", name, len);
}

const char *
kvfs_check_where_key(struct check *c, const struct kvfs_key *key)
{
    size_t n = strlen(kvfs_check_where(c, "record"));

    for (size_t i = 0; i < key->len; i++) {
        if (i == 40) {
            (void)snprintf(c->where + n, sizeof(c->where) - n, " ..");
            break;
        }
        n += (size_t)snprintf(c->where + n, sizeof(c->where) - n, " %02x", key->bytes[i]);
    }
    return c->where;
}
