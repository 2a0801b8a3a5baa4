/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - is there room in the store for what is about to be committed?
 *
 * Asked when SQLite says FCNTL_SYNC, while it can still roll back in peace.  First as if each
 * unit that is staged were a new block; only if that does not fit, the stages are read: units
 * of zeros, which SQLite's secure_delete writes over all that was deleted, take no room but give
 * some, and a transaction that adds nothing may use what is kept for such ones.
 *
 * A rollback after a spill says FCNTL_SYNC too, and must not be stopped: it has put the change
 * counter back, where a commit counts it up.  With locking_mode=EXCLUSIVE SQLite counts only
 * once; then only the commit itself may be refused.
 */
#include <errno.h>
#include <string.h>

#include "vfs_priv.h"

#define ROOM_PIECE 65536u

struct room_sum {
    struct vfs_file *f;
    uint64_t blocks; /* that are not zeros */
    int64_t added;   /* of them, less those that were there before */
};

/* Is there a byte other than zero? */
static bool
room_is_data(const uint8_t *p, size_t n)
{
    return n > 0 && (p[0] != 0 || memcmp(p, p + 1, n - 1) != 0);
}

static int
room_piece(void *arg, const void *buf, size_t n, uint64_t offset)
{
    struct room_sum *sum = arg;
    struct vfs_file *f = sum->f;
    size_t unit = (size_t)1 << f->stage.shift;
    size_t inside = offset >= f->stage.base_end        ? 0
                    : f->stage.base_end - offset < n ? (size_t)(f->stage.base_end - offset)
                                                       : n;
    uint8_t before[ROOM_PIECE];
    int rc = inside > 0 ? f->stage.base(f, before, inside, offset) : SQLITE_OK;

    if (rc != SQLITE_OK)
        memset(before, 1, inside); /* damaged, but there */
    for (size_t at = 0; at < n; at += unit) {
        size_t len = n - at < unit ? n - at : unit;
        size_t old = at >= inside ? 0 : inside - at < len ? inside - at : len;
        bool data = room_is_data((const uint8_t *)buf + at, len);

        sum->blocks += data;
        sum->added += data - (int64_t)room_is_data(before + at, old);
    }
    return SQLITE_OK;
}

int
vfs_room_check(struct vfs_file *const *files, size_t count, struct kvfs_volume *v)
{
    struct room_sum sum = {0};
    struct kvfs_error err = {0};
    uint64_t units = 0;
    uint32_t unit = 512; /* the largest of theirs */
    int rc = SQLITE_OK;
    int code;

    for (size_t i = 0; i < count; i++) {
        const struct vfs_stage *s = &files[i]->stage;

        if (files[i]->v != v || !s->active)
            continue;
        units += s->slots_count + s->spilled;
        if (1u << s->shift > unit)
            unit = 1u << s->shift;
    }
    if (units == 0 || kvfs_txn_room(v, units, unit, true, &err) != -ENOSPC)
        return SQLITE_OK; /* other errors are the commit's */
    if (!vfs_header_grew(files[0]))
        return SQLITE_OK;
    for (size_t i = 0; i < count && rc == SQLITE_OK; i++) {
        sum.f = files[i];
        if (files[i]->v == v && files[i]->stage.active)
            rc = vfs_stage_each(&files[i]->stage, room_piece, &sum);
    }
    if (rc != SQLITE_OK)
        return SQLITE_OK;
    code = kvfs_txn_room(v, sum.blocks, unit, sum.added > 0, &err);
    return code == -ENOSPC ? vfs_error(code, SQLITE_FULL, &err) : SQLITE_OK;
}
