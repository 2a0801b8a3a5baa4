/* SPDX-License-Identifier: BSD-3-Clause
 *
 * read.h - the part of a read that both live files and snapshots share (read.c).
 */
#ifndef KVFS_READ_H
#define KVFS_READ_H

#include "layer.h"
#include "view.h"

#define KVFS_READ_BLOCKS 256 /* looked at in one piece */

/* One piece of a request: COUNT bytes at OFFSET, at most KVFS_READ_BLOCKS blocks. */
struct kvfs_read {
    uint8_t *buf;
    uint64_t offset;
    size_t count;
    uint64_t first; /* block */
    size_t blocks;
    size_t missing;                     /* blocks that no layer knows */
    uint8_t state[KVFS_READ_BLOCKS];    /* enum kvfs_slot_state */
    uint64_t hole_cut[KVFS_READ_BLOCKS]; /* of the missing ones */
};

/* Begin a piece at OFFSET of a request for COUNT bytes in all. */
void kvfs_read_begin(struct kvfs_read *r, const struct kvfs_view *view, void *buf, uint64_t offset,
                     size_t count);

/* The part of block number I of the piece that is wanted: where it goes, from
 * which byte of the block, how long. */
uint8_t *kvfs_read_part(const struct kvfs_read *r, const struct kvfs_view *view, size_t i,
                        size_t *from, size_t *len);

/* Fill in the blocks that are still missing from the engine. */
int kvfs_read_engine(struct kvfs_volume *v, struct kvfs_db_snap *snap,
                     const struct kvfs_view *view, const struct kvfs_read *r,
                     struct kvfs_error *err);

struct kvfs_node;
/* Read a piece of a leased file: the layers, then the engine.  The cut
 * lock is held, shared, and is released. */
int kvfs_read_leased(struct kvfs_node *node, struct kvfs_read *r, struct kvfs_error *err);

#endif /* KVFS_READ_H */
