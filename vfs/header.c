/* SPDX-License-Identifier: BSD-3-Clause
 *
 * header.c - what must hold of a database's first 100 bytes whatever SQLite writes there.
 *
 * - Read and write version (bytes 18, 19) are 1: exclusive mode with journal_mode=wal, and a
 *   backup from a WAL-mode source, write 2, which nobody could open.
 * - The change counter (bytes 24-27, and 92-95, which say for which counter the size in the
 *   header is right) grows with every commit, or others would keep their old page cache:
 *   with locking_mode=EXCLUSIVE SQLite counts only once.
 * - A schema cookie (bytes 40-43) means one schema.  That of a commit which failed after others
 *   in this process had seen it is burnt: who keeps that schema must find another cookie.
 *
 * Source: sqlite.org/fileformat2.html, "The Database Header".
 */
#include <string.h>

#include "vfs_priv.h"

#define HEADER_LEN 100

static uint32_t
header_get(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int
header_put(struct vfs_stage *s, uint32_t value, uint64_t offset)
{
    uint8_t b[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                    (uint8_t)value};

    return vfs_stage_write(s, b, 4, offset);
}

static int
header_count_put(struct vfs_stage *s, uint32_t count)
{
    int rc = header_put(s, count, 24);

    return rc == SQLITE_OK ? header_put(s, count, 92) : rc;
}

static bool
header_is(const uint8_t *h)
{
    return memcmp(h, "SQLite format 3", 16) == 0;
}

int
vfs_header_written(struct vfs_stage *s, uint64_t offset, size_t n)
{
    static const uint8_t plain[2] = {1, 1};
    uint8_t h[HEADER_LEN];
    int rc;

    if (offset > 19 || offset + n <= 18 || s->size < HEADER_LEN)
        return SQLITE_OK;
    rc = vfs_stage_read(s, h, sizeof(h), 0);
    if (rc != SQLITE_OK || !header_is(h) || (h[18] < 2 && h[19] < 2))
        return rc;
    rc = vfs_stage_write(s, plain, 2, 18);
    return rc == SQLITE_OK ? header_count_put(s, header_get(h + 24) + 1) : rc;
}

/* Both headers, as staged and as stored, zeros of a new one; *known: they are a database's. */
static int
header_both(struct vfs_file *f, uint8_t *staged, uint8_t *stored, bool *known)
{
    int rc;

    *known = false;
    memset(stored, 0, HEADER_LEN);
    if (f->stage.size < HEADER_LEN || (f->size > 0 && f->size < HEADER_LEN))
        return SQLITE_OK;
    rc = vfs_stage_read(&f->stage, staged, HEADER_LEN, 0);
    if (rc == SQLITE_OK && f->size > 0)
        rc = f->stage.base(f, stored, HEADER_LEN, 0);
    *known = rc == SQLITE_OK && header_is(staged) && (f->size == 0 || header_is(stored));
    return rc;
}

bool
vfs_header_grew(struct vfs_file *f)
{
    uint8_t staged[HEADER_LEN];
    uint8_t stored[HEADER_LEN];
    bool known;

    if (f->exclusive) /* then SQLite's own count stands still, and ours does not */
        return false;
    if (f->size == 0) /* a new one: a rollback leaves nothing of it */
        return f->stage.size > 0;
    return header_both(f, staged, stored, &known) == SQLITE_OK && known &&
           (int32_t)(header_get(staged + 24) - header_get(stored + 24)) > 0;
}

void
vfs_header_burn(struct vfs_file *f)
{
    uint8_t h[HEADER_LEN];
    uint32_t cookie;

    if (f->stage.size < HEADER_LEN || vfs_stage_read(&f->stage, h, sizeof(h), 0) != SQLITE_OK)
        return;
    cookie = header_get(h + 40);
    vfs_lock();
    for (struct vfs_file *o = vfs_file_first(); o != NULL; o = o->next) {
        if (o->v != f->v || o->ino != f->ino)
            continue;
        if (!o->cookie_burns || (int32_t)(cookie - o->cookie_burnt) > 0)
            o->cookie_burnt = cookie;
        o->cookie_burns = true;
    }
    vfs_unlock();
}

/* A new schema gets a cookie that none had; *again: so SQLite has to read page 1 anew. */
static int
header_cookie(struct vfs_file *f, const uint8_t *staged, const uint8_t *stored, bool *again)
{
    uint32_t cookie = header_get(staged + 40);
    uint32_t next;

    vfs_lock();
    *again = f->cookie_burns && cookie != header_get(stored + 40) &&
             (int32_t)(cookie - f->cookie_burnt) <= 0;
    next = f->cookie_burnt + 1;
    vfs_unlock();
    return *again ? header_put(&f->stage, next, 40) : SQLITE_OK;
}

int
vfs_header_count(struct vfs_file *f)
{
    uint8_t staged[HEADER_LEN];
    uint8_t stored[HEADER_LEN];
    uint32_t count;
    bool again = false;
    bool known;
    int rc = header_both(f, staged, stored, &known);

    if (rc == SQLITE_OK && known)
        rc = header_cookie(f, staged, stored, &again);
    if (rc != SQLITE_OK || !known)
        return rc;
    count = header_get(staged + 24);
    if ((int32_t)(count - header_get(stored + 24)) <= 0)
        return header_count_put(&f->stage, header_get(stored + 24) + 1);
    return again ? header_count_put(&f->stage, count + 1) : SQLITE_OK;
}
