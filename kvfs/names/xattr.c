/* SPDX-License-Identifier: BSD-3-Clause
 *
 * xattr.c - extended attributes: one record each, `I ino 20 name`.
 *
 * A change moves the inode's ctime, so that setting an attribute and removing
 * the inode, or two settings of one attribute, meet at the inode's record.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "names.h"

#define XATTR_CHUNK 32

struct xattr {
    uint64_t ino;
    const char *name;
    size_t name_len;
    const void *value;
    size_t value_len;
    int flags;
    uint8_t *record; /* room for the record */
};

static int
xattr_name_check(const char *name, size_t *len, struct kvfs_error *err)
{
    struct kvfs_shown shown;
    size_t n = strlen(name);

    if (n > KVFS_NAME_MAX)
        return kvfs_error_set(err, -ENAMETOOLONG,
                              "an attribute's name of %zu bytes; the longest is %d", n,
                              KVFS_NAME_MAX);
    if (!kvfs_name_valid(name, n))
        return kvfs_error_set(err, -EINVAL, "'%s' is no name of an attribute",
                              kvfs_name_show(&shown, name, n));
    *len = n;
    return 0;
}

static int
xattr_missing(const char *name, size_t len, struct kvfs_error *err)
{
    struct kvfs_shown shown;

    return kvfs_error_set(err, -ENODATA, "there is no attribute '%s'",
                          kvfs_name_show(&shown, name, len));
}

/* Whether the attribute is there; 1, 0 or a negative errno. */
static int
xattr_exists(struct kvfs_change *c, const struct kvfs_key *key)
{
    size_t len;
    int rc = c->v->engine->get(c->snap, KVFS_META, key->bytes, key->len, 0, NULL, 0, &len, c->err);

    if (rc == -ENOENT)
        return 0;
    return rc == 0 ? 1 : rc;
}

static int
xattr_set_change(struct kvfs_change *c, void *arg)
{
    const struct xattr *a = arg;
    struct kvfs_change_inode *inode;
    struct kvfs_shown shown;
    struct kvfs_key key;
    int rc = kvfs_change_inode(c, a->ino, &inode);

    if (rc != 0)
        return rc;
    kvfs_key_xattr(&key, a->ino, a->name, a->name_len);
    rc = xattr_exists(c, &key);
    if (rc < 0)
        return rc;
    if (rc == 1 && (a->flags & XATTR_CREATE) != 0)
        return kvfs_error_set(c->err, -EEXIST, "there is an attribute '%s' already",
                              kvfs_name_show(&shown, a->name, a->name_len));
    if (rc == 0 && (a->flags & XATTR_REPLACE) != 0)
        return xattr_missing(a->name, a->name_len, c->err);
    kvfs_change_touch(c, inode, false);
    kvfs_batch_put(c->b, KVFS_META, key.bytes, key.len, a->record,
                   kvfs_bytes_encode(a->value, a->value_len, &key, a->record));
    return 0;
}

int
kvfs_xattr_set(struct kvfs_volume *v, uint64_t ino, const char *name, const void *value, size_t len,
               int flags, struct kvfs_error *err)
{
    struct xattr a = {.ino = ino, .name = name, .value = value, .value_len = len, .flags = flags};
    int rc = xattr_name_check(name, &a.name_len, err);

    if (rc != 0)
        return rc;
    if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0 || flags == (XATTR_CREATE | XATTR_REPLACE))
        return kvfs_error_set(err, -EINVAL, "%#x are no flags of an attribute", (unsigned)flags);
    if (len > KVFS_XATTR_VALUE_MAX)
        return kvfs_error_set(err, -E2BIG, "an attribute of %zu bytes; the longest is %d", len,
                              KVFS_XATTR_VALUE_MAX);
    a.record = malloc(len + 16);
    if (a.record == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory for an attribute");
    rc = kvfs_change_run(v, xattr_set_change, &a, err);
    free(a.record);
    return rc;
}

static int
xattr_remove_change(struct kvfs_change *c, void *arg)
{
    const struct xattr *a = arg;
    struct kvfs_change_inode *inode;
    struct kvfs_key key;
    int rc = kvfs_change_inode(c, a->ino, &inode);

    if (rc != 0)
        return rc;
    kvfs_key_xattr(&key, a->ino, a->name, a->name_len);
    rc = xattr_exists(c, &key);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return xattr_missing(a->name, a->name_len, c->err);
    kvfs_change_touch(c, inode, false);
    kvfs_batch_del(c->b, KVFS_META, key.bytes, key.len);
    return 0;
}

int
kvfs_xattr_remove(struct kvfs_volume *v, uint64_t ino, const char *name, struct kvfs_error *err)
{
    struct xattr a = {.ino = ino, .name = name};
    int rc = xattr_name_check(name, &a.name_len, err);

    return rc != 0 ? rc : kvfs_change_run(v, xattr_remove_change, &a, err);
}

/* RECORD holds KVFS_RECORD_MAX bytes. */
static int
xattr_read(struct kvfs_volume *v, const struct xattr *a, const void **value, size_t *len,
           struct kvfs_error *err)
{
    struct kvfs_inode_record rec;
    struct kvfs_db_snap *snap;
    struct kvfs_shown shown;
    struct kvfs_key key;
    size_t record_len;
    int rc = kvfs_names_begin(v, &snap, err);

    if (rc != 0)
        return rc;
    rc = kvfs_inode_read(v, snap, a->ino, &rec, err);
    if (rc == 0) {
        kvfs_key_xattr(&key, a->ino, a->name, a->name_len);
        rc = kvfs_meta_get(v, snap, &key, a->record, KVFS_RECORD_MAX, &record_len, err);
        if (rc == -ENOENT)
            rc = xattr_missing(a->name, a->name_len, err);
    }
    v->engine->end(snap);
    if (rc == 0 && kvfs_bytes_decode(value, len, &key, a->record, record_len) != 0)
        rc = kvfs_error_set(err, -EIO, "inode %llu: attribute '%s' is damaged",
                            (unsigned long long)a->ino,
                            kvfs_name_show(&shown, a->name, a->name_len));
    return rc;
}

int
kvfs_xattr_get(struct kvfs_volume *v, uint64_t ino, const char *name, void *buf, size_t cap,
               size_t *len, struct kvfs_error *err)
{
    struct xattr a = {.ino = ino, .name = name};
    const void *value;
    size_t value_len;
    int rc = xattr_name_check(name, &a.name_len, err);

    if (rc != 0)
        return rc;
    a.record = malloc(KVFS_RECORD_MAX);
    if (a.record == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory for an attribute");
    rc = xattr_read(v, &a, &value, &value_len, err);
    if (rc == 0) {
        if (cap > 0)
            memcpy(buf, value, value_len < cap ? value_len : cap);
        *len = value_len;
    }
    free(a.record);
    return rc;
}

struct xattr_chunk {
    size_t count;
    char names[XATTR_CHUNK][KVFS_NAME_MAX + 1];
};

/* The names behind AFTER ("": all), as many as fit. */
static int
xattr_scan(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino, const char *after,
           struct xattr_chunk *chunk, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key_parts parts;
    struct kvfs_key lo, hi;
    size_t key_len, value_len;
    const void *key;
    int rc;

    chunk->count = 0;
    kvfs_key_xattr(&lo, ino, after, strlen(after));
    lo.bytes[lo.len++] = 0; /* the next key there can be */
    kvfs_key_inode_part(&hi, ino, KVFS_PART_XATTR + 1);
    rc = v->engine->cursor_open(snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len,
                                KVFS_SCAN_KEYS_ONLY, &cursor, err);
    if (rc != 0)
        return rc;
    while (chunk->count < XATTR_CHUNK) {
        char *name = chunk->names[chunk->count];

        rc = v->engine->cursor_next(cursor, &key, &key_len, &value_len, err);
        if (rc != 1)
            break;
        rc = kvfs_key_parse(key, key_len, &parts);
        if (rc != 0) {
            rc = kvfs_error_set(err, rc, "inode %llu: an attribute's key is damaged",
                                (unsigned long long)ino);
            break;
        }
        memcpy(name, parts.name, parts.name_len);
        name[parts.name_len] = '\0';
        chunk->count++;
    }
    v->engine->cursor_close(cursor);
    return rc;
}

static int
xattr_chunk_read(struct kvfs_volume *v, uint64_t ino, const char *after, struct xattr_chunk *chunk,
                 struct kvfs_error *err)
{
    struct kvfs_inode_record rec;
    struct kvfs_db_snap *snap;
    int rc = kvfs_names_begin(v, &snap, err);

    if (rc != 0)
        return rc;
    rc = kvfs_inode_read(v, snap, ino, &rec, err);
    if (rc == 0)
        rc = xattr_scan(v, snap, ino, after, chunk, err);
    v->engine->end(snap);
    return rc;
}

int
kvfs_xattr_list(struct kvfs_volume *v, uint64_t ino, int (*fn)(void *arg, const char *name),
                void *arg, struct kvfs_error *err)
{
    struct xattr_chunk *chunk = malloc(sizeof(*chunk));
    char after[KVFS_NAME_MAX + 1] = "";
    int rc;

    if (chunk == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory to list attributes");
    do {
        rc = xattr_chunk_read(v, ino, after, chunk, err);
        for (size_t i = 0; rc == 0 && i < chunk->count; i++)
            rc = fn(arg, chunk->names[i]);
        if (rc == 0 && chunk->count > 0)
            memcpy(after, chunk->names[chunk->count - 1], sizeof(after));
    } while (rc == 0 && chunk->count == XATTR_CHUNK);
    free(chunk);
    return rc;
}
