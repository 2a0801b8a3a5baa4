/* SPDX-License-Identifier: BSD-3-Clause
 *
 * readdir.c - walking a folder while it changes.
 *
 * Entries are met in the order of their cookies, which are numbers never given
 * twice: an entry keeps its place however the folder changes, and a cookie
 * says where to go on without anything being kept open.  A chunk at a time is
 * read from a fresh snapshot, which has ended before the caller sees the chunk:
 * a slow caller holds no reader of the engine.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "names.h"

#define READDIR_CHUNK 64

struct readdir_entry {
    uint64_t cookie;
    struct kvfs_dentry_record dentry;
    size_t name_len;
    char name[KVFS_NAME_MAX + 1];
};

struct readdir_chunk {
    size_t count;
    struct readdir_entry entries[READDIR_CHUNK];
};

/* The record under the cursor: a cookie and its name. */
static int
readdir_entry_read(struct kvfs_volume *v, struct kvfs_db_cursor *cursor, const void *key,
                   size_t key_len, size_t value_len, struct readdir_entry *entry,
                   struct kvfs_error *err)
{
    uint8_t value[KVFS_NAME_MAX + 16];
    struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
    struct kvfs_key_parts parts;
    struct kvfs_key k;
    const void *name;
    int rc;

    if (kvfs_key_parse(key, key_len, &parts) != 0)
        return kvfs_error_set(err, -EIO, "a key among the cookies is damaged");
    memcpy(k.bytes, key, key_len);
    k.len = key_len;
    rc = value_len <= sizeof(value) ? v->engine->cursor_value(cursor, 0, &iov, 1, err) : -EIO;
    if (rc == 0)
        rc = kvfs_bytes_decode(&name, &entry->name_len, &k, value, value_len) == 0 ? 0 : -EIO;
    if (rc != 0)
        return kvfs_error_set(err, rc, "folder %llu: the record of cookie %llu is damaged",
                              (unsigned long long)parts.id, (unsigned long long)parts.second);
    entry->cookie = parts.second;
    memcpy(entry->name, name, entry->name_len);
    entry->name[entry->name_len] = '\0';
    return 0;
}

/* Behind COOKIE, as many as fit. */
static int
readdir_scan(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t dir, uint64_t cookie,
             struct readdir_chunk *chunk, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo, hi;
    size_t key_len, value_len;
    const void *key;
    int rc;

    if (cookie == UINT64_MAX)
        return 0;
    kvfs_key_cookie(&lo, dir, cookie + 1);
    kvfs_key_inode_part(&hi, dir, KVFS_PART_COOKIE + 1);
    rc = v->engine->cursor_open(snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len, 0, &cursor,
                                err);
    if (rc != 0)
        return rc;
    while (chunk->count < READDIR_CHUNK) {
        rc = v->engine->cursor_next(cursor, &key, &key_len, &value_len, err);
        if (rc != 1)
            break;
        rc = readdir_entry_read(v, cursor, key, key_len, value_len, &chunk->entries[chunk->count],
                                err);
        if (rc != 0)
            break;
        chunk->count++;
    }
    v->engine->cursor_close(cursor);
    return rc;
}

static int
readdir_chunk_read(struct kvfs_volume *v, uint64_t dir, uint64_t cookie,
                   struct readdir_chunk *chunk, struct kvfs_error *err)
{
    struct kvfs_inode_record rec;
    struct kvfs_db_snap *snap;
    struct kvfs_shown shown;
    int rc = kvfs_names_begin(v, &snap, err);

    chunk->count = 0;
    if (rc != 0)
        return rc;
    rc = kvfs_folder_read(v, snap, dir, &rec, err);
    if (rc == 0)
        rc = readdir_scan(v, snap, dir, cookie, chunk, err);
    for (size_t i = 0; rc == 0 && i < chunk->count; i++) {
        struct readdir_entry *e = &chunk->entries[i];

        rc = kvfs_dentry_read(v, snap, dir, e->name, e->name_len, &e->dentry, err);
        if (rc == -ENOENT || (rc == 0 && e->dentry.cookie != e->cookie))
            rc = kvfs_error_set(err, -EIO, "folder %llu: '%s' does not have the cookie %llu",
                                (unsigned long long)dir,
                                kvfs_name_show(&shown, e->name, e->name_len),
                                (unsigned long long)e->cookie);
    }
    v->engine->end(snap);
    return rc;
}

static int
readdir_walk(struct kvfs_volume *v, uint64_t dir, uint64_t cookie, struct readdir_chunk *chunk,
             int (*fn)(void *arg, const struct kvfs_dirent *entry), void *arg,
             struct kvfs_error *err)
{
    bool first = true;
    int rc;

    do {
        rc = readdir_chunk_read(v, dir, cookie, chunk, err);
        if (rc == -ENOENT && !first)
            return 0; /* the folder was removed meanwhile, so it was empty */
        if (rc != 0)
            return rc;
        for (size_t i = 0; i < chunk->count; i++) {
            const struct readdir_entry *e = &chunk->entries[i];
            const struct kvfs_dirent entry = {.ino = e->dentry.ino,
                                              .cookie = e->cookie,
                                              .type = e->dentry.type,
                                              .name = e->name,
                                              .name_len = e->name_len};

            rc = fn(arg, &entry);
            if (rc != 0)
                return rc;
            cookie = e->cookie;
        }
        first = false;
    } while (chunk->count == READDIR_CHUNK);
    return 0;
}

int
kvfs_readdir(struct kvfs_volume *v, uint64_t dir, uint64_t cookie,
             int (*fn)(void *arg, const struct kvfs_dirent *entry), void *arg,
             struct kvfs_error *err)
{
    struct readdir_chunk *chunk = calloc(1, sizeof(*chunk));
    int rc;

    if (chunk == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory to walk a folder");
    rc = readdir_walk(v, dir, cookie, chunk, fn, arg, err);
    free(chunk);
    return rc;
}
