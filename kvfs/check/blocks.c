/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blocks.c - pass 3 of the checker: every DATA record.
 *
 * DATA is streamed in key order, so all blocks of a fork come together.  A block
 * is sound when its checksum matches, its length is its file's block size and it
 * lies inside the file.  A damaged block cannot be repaired: it stays as it is and
 * reads keep answering -EIO.  But one that nobody can see (under a pending hole,
 * of a transaction that never ended) is removed.  Blocks of dead forks are only
 * counted: nothing will ever read them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"
#include "data/view.h"

#define BLOCKS_DEPTH_MAX 64 /* forks over forks */

/* Load the sound holes of FORK, unless they are those that C keeps. */
static const struct kvfs_holes *
blocks_holes(struct check *c, uint64_t fork, struct check_holes *kept)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo, hi, key;
    const void *found;
    size_t key_len, value_len;

    if (kept->fork == fork)
        return &kept->holes;
    kept->fork = fork;
    kept->holes.count = 0;
    kvfs_key_hole(&lo, fork, 0);
    kvfs_key_hole(&hi, fork + 1, 0);
    if (c->engine->cursor_open(c->snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len, 0, &cursor,
                               NULL) != 0)
        return &kept->holes;
    while (c->engine->cursor_next(cursor, &found, &key_len, &value_len, NULL) == 1) {
        uint8_t value[KVFS_SMALL_RECORD_MAX];
        struct iovec iov = {.iov_base = value, .iov_len = sizeof(value)};
        struct kvfs_key_parts parts;
        struct kvfs_hole_record h;

        if (key_len > sizeof(key.bytes) || value_len > sizeof(value))
            continue;
        memcpy(key.bytes, found, key_len);
        key.len = key_len;
        if (c->engine->cursor_value(cursor, 0, &iov, 1, NULL) == 0 &&
            kvfs_hole_decode(&h, &key, value, value_len) == 0 &&
            kvfs_check_key(&key, &parts) == 0 &&
            kvfs_holes_add(&kept->holes, parts.second, h.end, h.cut) != 0)
            break; /* without memory a block counts as visible, and stays */
    }
    c->engine->cursor_close(cursor);
    return &kept->holes;
}

/* Does fork TOP, which lies over another, say anything of block INDEX? */
static bool
blocks_covers(struct check *c, const struct check_fork *top, uint64_t index)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    size_t len;

    if (kvfs_holes_cut(blocks_holes(c, top->fork, &c->holes_above), index) != 0)
        return true;
    kvfs_key_block(key, top->fork, index);
    return c->engine->get(c->snap, KVFS_DATA, key, sizeof(key), 0, NULL, 0, &len, NULL) == 0;
}

/* Is the block under what a fork over BASE says, as of a later cut than CUT? */
static bool
blocks_overlaid(struct check *c, const struct check_fork *base, uint64_t index, uint64_t cut)
{
    if (base == NULL || (base->flags & CF_BASE) == 0)
        return false;
    for (size_t n = 0; n < c->forks.count; n++) {
        const struct check_fork *top = kvfs_check_table_at(&c->forks, n);

        if ((top->flags & CF_TOP) != 0 && top->below == base->fork && top->over_cut > cut &&
            blocks_covers(c, top, index))
            return true;
    }
    return false;
}

/* Is block INDEX of F, written by CUT (in F's own count), under a pending hole or a
 * newer fork? */
static bool
blocks_hidden(struct check *c, const struct check_fork *f, uint64_t index, uint64_t cut)
{
    if (cut < kvfs_holes_cut(blocks_holes(c, f->fork, &c->holes), index))
        return true;
    if ((f->flags & CF_TOP) == 0)
        return blocks_overlaid(c, f, index, cut);
    return f->over_cut < kvfs_holes_cut(blocks_holes(c, f->below, &c->holes_below), index) ||
           blocks_overlaid(c, kvfs_check_fork(c, f->below), index, f->over_cut);
}

/* The block's cut if its trailer alone is sound. */
static bool
blocks_cut(const struct check *c, size_t value_len, uint64_t *cut)
{
    struct kvfs_trailer t;

    if (value_len < KVFS_TRAILER_LEN ||
        kvfs_trailer_decode(&t, c->value + value_len - KVFS_TRAILER_LEN) != 0)
        return false;
    *cut = t.cut;
    return true;
}

static const char *
blocks_where(struct check *c, const struct check_fork *f, const struct check_inode *i,
             uint64_t index)
{
    if (i != NULL)
        return kvfs_check_where_block(c, i->ino, index, i->block_size_bytes);
    (void)kvfs_check_where(c, "unfinished fork %" PRIu64 " block %" PRIu64, f->fork, index);
    return c->where;
}

/* A block that is not as it should be: removed when nobody can see it. */
static int
blocks_bad(struct check *c, struct check_record *r, const struct check_fork *f, uint64_t index,
           const char *what, struct kvfs_error *err)
{
    const struct check_inode *i = f->ino != 0 ? kvfs_check_inode(c, f->ino) : NULL;
    uint64_t cut;
    bool unseen = (f->flags & CF_PENDING) != 0 ||
                  (blocks_cut(c, r->value_len, &cut) && blocks_hidden(c, f, index, cut));

    kvfs_check_found(c, blocks_where(c, f, i, index), unseen ? "removed, nothing showed it" : NULL,
                     "%s", what);
    return unseen ? kvfs_check_del_block(c, r->key.bytes, err) : 0;
}

/* A sound block of file I: does it belong there? */
static int
blocks_place(struct check *c, struct check_record *r, const struct check_fork *f,
             const struct check_inode *i, const struct kvfs_trailer *t, uint64_t index,
             struct kvfs_error *err)
{
    char what[128];

    if (t->raw_len != i->block_size_bytes && t->raw_len != 0) {
        (void)snprintf(what, sizeof(what), "holds %u bytes, but the file's blocks have %u",
                       t->raw_len, i->block_size_bytes);
        return blocks_bad(c, r, f, index, what, err);
    }
    /* A mark of zeros behind the end says nothing. */
    if ((i->flags & CI_CONTENTS) == 0 || t->raw_len == 0 ||
        index < i->size_bytes / i->block_size_bytes + (i->size_bytes % i->block_size_bytes != 0) ||
        blocks_hidden(c, f, index, t->cut))
        return 0;
    kvfs_check_found(c, blocks_where(c, f, i, index), "removed",
                     "lies beyond the end of the file (%" PRIu64 " bytes)", i->size_bytes);
    return kvfs_check_del_block(c, r->key.bytes, err);
}

static void
blocks_note(struct check_fork *f, uint64_t index, const struct kvfs_trailer *t)
{
    f->flags |= CF_USED;
    f->blocks++;
    f->index_last = index;
    if (t == NULL)
        return;
    if (f->raw_len == 0) /* still, after a mark of zeros */
        f->raw_len = t->raw_len;
    if (t->cut > f->cut_max)
        f->cut_max = t->cut;
}

static int
blocks_judge(struct check *c, struct check_record *r, struct check_fork *f, uint64_t index,
             struct kvfs_error *err)
{
    const struct check_inode *i = f->ino != 0 ? kvfs_check_inode(c, f->ino) : NULL;
    bool owned = i != NULL || (f->flags & CF_PENDING) != 0;
    struct kvfs_trailer t;
    struct kvfs_error local = {0};
    size_t len = r->value_len;
    int rc;

    if (kvfs_check_value(c, r, &local) != 0) {
        blocks_note(f, index, NULL);
        kvfs_check_found(c, blocks_where(c, f, i, index), NULL, "cannot be read: %s", local.msg);
        return 0;
    }
    rc = r->value_len < KVFS_TRAILER_LEN
             ? -EIO
             : kvfs_block_check(&t, c->value + len - KVFS_TRAILER_LEN, r->key.bytes, c->value,
                                len - KVFS_TRAILER_LEN);
    blocks_note(f, index, rc == 0 ? &t : NULL);
    if (!owned)
        return 0; /* a stray fork: judged as a whole */
    if (rc == -ENOTSUP) {
        kvfs_check_found(c, blocks_where(c, f, i, index), NULL, "is of a newer version");
        return 0;
    }
    if (rc != 0)
        return blocks_bad(c, r, f, index, "its checksum does not match", err);
    return i != NULL ? blocks_place(c, r, f, i, &t, index, err) : 0;
}

static int
blocks_record(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    uint64_t fork, index;
    struct check_fork *f;
    int rc = kvfs_check_step(c, 1);

    if (rc < 0)
        return rc;
    c->result.blocks += c->round == 1;
    if (r->key.len != KVFS_DATA_KEY_LEN)
        return 0; /* no engine has such a thing */
    kvfs_key_block_parse(r->key.bytes, &fork, &index);
    if (fork == 0 || fork >= CHECK_ID_MAX) {
        kvfs_check_found(c, kvfs_check_where_key(c, &r->key), "removed",
                         "no block of this format has such a key");
        return kvfs_check_del_block(c, r->key.bytes, err);
    }
    kvfs_check_id_seen(c, fork);
    f = kvfs_check_table_add(&c->forks, fork);
    if (f == NULL)
        return kvfs_error_set(err, -ENOMEM, "check: no memory for the tables of inodes and forks");
    if ((f->flags & CF_DEAD) != 0)
        return 0;
    return blocks_judge(c, r, f, index, err);
}

/* The file that a fork over others belongs to. */
static uint64_t
blocks_owner(struct check *c, const struct check_fork *f)
{
    for (unsigned depth = 0; f != NULL && depth < BLOCKS_DEPTH_MAX; depth++) {
        if ((f->flags & CF_TOP) == 0)
            return f->ino;
        f = kvfs_check_fork(c, f->below);
    }
    return 0;
}

int
kvfs_check_blocks(struct check *c, struct kvfs_error *err)
{
    for (size_t n = 0; n < c->forks.count; n++) {
        struct check_fork *f = kvfs_check_table_at(&c->forks, n);

        if ((f->flags & CF_TOP) != 0)
            f->ino = blocks_owner(c, f);
    }
    return kvfs_check_scan(c, KVFS_DATA, NULL, NULL, true, blocks_record, err);
}
