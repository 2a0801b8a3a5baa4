/* SPDX-License-Identifier: BSD-3-Clause
 *
 * undo.c - taking a batch's META half back.
 *
 * DATA may refuse its half for want of room after META has taken its own.  Nobody has
 * seen that yet (the gate), so META is put back: every key that the batch names gets
 * what it held, so their order does not matter.  That is read before META changes, and
 * its snapshot has ended by then: an engine may wait for readers to make room.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <kvfs/batch.h>

#include "hybrid_priv.h"

struct undo {
    struct kvfs_db *db;
    struct kvfs_db_snap *before;
    struct kvfs_batch_builder *b;
    struct kvfs_error *err;
};

static int
undo_key(struct undo *u, const void *key, size_t key_len)
{
    const struct kvfs_engine *meta = u->db->pair->side[HYBRID_META];
    size_t len = 0;
    uint8_t *value;
    struct iovec iov;
    int rc = meta->get(u->before, KVFS_META, key, key_len, 0, NULL, 0, &len, u->err);

    if (rc == -ENOENT) {
        kvfs_batch_del(u->b, KVFS_META, key, key_len);
        return 0;
    }
    if (rc != 0)
        return rc;
    value = malloc(len + 1);
    if (value == NULL)
        return kvfs_error_set(u->err, -ENOMEM, "%s: no memory", u->db->folder);
    iov = (struct iovec){value, len};
    rc = meta->get(u->before, KVFS_META, key, key_len, 0, &iov, 1, &len, u->err);
    if (rc == 0)
        kvfs_batch_put(u->b, KVFS_META, key, key_len, value, len);
    free(value);
    return rc;
}

static int
undo_range(struct undo *u, const struct kvfs_op *op)
{
    const struct kvfs_engine *meta = u->db->pair->side[HYBRID_META];
    struct kvfs_db_cursor *c;
    size_t key_len, value_len;
    const void *key;
    int rc = meta->cursor_open(u->before, KVFS_META, op->key, op->key_len, op->key_end,
                               op->key_end_len, KVFS_SCAN_KEYS_ONLY, &c, u->err);

    if (rc != 0)
        return rc;
    while ((rc = meta->cursor_next(c, &key, &key_len, &value_len, u->err)) == 1)
        if ((rc = undo_key(u, key, key_len)) != 0)
            break;
    meta->cursor_close(c);
    return rc;
}

int
kvfs_hybrid_undo(struct kvfs_db *db, const struct kvfs_op *ops, size_t ops_count,
                 struct kvfs_batch_builder **builderp, struct kvfs_error *err)
{
    const struct kvfs_engine *meta = db->pair->side[HYBRID_META];
    struct undo u = {.db = db, .b = kvfs_batch_new(), .err = err};
    int rc;

    if (u.b == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", db->folder);
    rc = meta->begin(db->side[HYBRID_META], &u.before, err);
    if (rc == 0) {
        for (size_t i = 0; i < ops_count && rc == 0; i++) {
            if (ops[i].type == KVFS_OP_DEL_RANGE)
                rc = undo_range(&u, &ops[i]);
            else if (ops[i].type < KVFS_OP_DEL_RANGE)
                rc = undo_key(&u, ops[i].key, ops[i].key_len);
        }
        meta->end(u.before);
    }
    if (rc == 0)
        *builderp = u.b;
    else
        kvfs_batch_free(u.b);
    return rc;
}
