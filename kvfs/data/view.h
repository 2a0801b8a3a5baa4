/* SPDX-License-Identifier: BSD-3-Clause
 *
 * view.h - what the engine holds of one file (view.c).
 */
#ifndef KVFS_VIEW_H
#define KVFS_VIEW_H

#include "volume_priv.h"

struct kvfs_hole { /* blocks [start, end) of cuts before CUT read as zeros */
    uint64_t start, end, cut;
};

struct kvfs_holes { /* none overlap another; in no order */
    struct kvfs_hole *v;
    size_t count, cap;
};

struct kvfs_over { /* fork TOP lies over the file's own fork as of CUT */
    uint64_t top, cut;
    struct kvfs_holes holes; /* TOP's own, in its own count of cuts */
};

struct kvfs_view {
    uint64_t ino;
    uint32_t block_size;
    unsigned shift; /* of the block size */
    uint64_t fork;
    struct kvfs_contents_record contents;
    uint8_t stored[KVFS_SMALL_RECORD_MAX]; /* the contents record, byte for byte */
    size_t stored_len;
    struct kvfs_holes holes;
    struct kvfs_over *overs; /* oldest first */
    size_t overs_count;
};

/* Load file INO as it is in SNAP.  -ENOENT; -EISDIR; -EINVAL (no regular file);
 * -EIO (damage).  Free it even after a failure. */
int kvfs_view_load(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t ino,
                   struct kvfs_view *view, struct kvfs_error *err);
void kvfs_view_free(struct kvfs_view *view);

/* Reread only the contents record. */
int kvfs_view_contents(struct kvfs_volume *v, struct kvfs_db_snap *snap, struct kvfs_view *view,
                       struct kvfs_error *err);

int kvfs_holes_add(struct kvfs_holes *h, uint64_t start, uint64_t end, uint64_t cut);
/* Load the forks over view->fork, with their holes. */
int kvfs_view_overs(struct kvfs_volume *v, struct kvfs_db_snap *snap, struct kvfs_view *view,
                    struct kvfs_error *err);

/* Copy SRC into the empty DST. */
int kvfs_holes_copy(struct kvfs_holes *dst, const struct kvfs_holes *src);
/* Add a hole to a list in which none overlap, so that none overlap after:
 * older ones lose what it covers, it loses what newer ones cover.  B gets what
 * the same change of the records of FORK takes. */
int kvfs_holes_cover(struct kvfs_holes *h, struct kvfs_hole hole, uint64_t fork,
                     struct kvfs_batch_builder *b);
/* The newest cut of the holes that cover a block; 0: none does. */
uint64_t kvfs_holes_cut(const struct kvfs_holes *h, uint64_t index);
/* Load the holes of FORK. */
int kvfs_holes_load(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t fork,
                    struct kvfs_holes *h, struct kvfs_error *err);

/* Read block INDEX whole into BUF.  HOLE_CUT is kvfs_holes_cut() of the block,
 * taken before SNAP began.  -EIO names the block. */
int kvfs_view_block(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                    uint64_t index, uint64_t hole_cut, void *buf, struct kvfs_error *err);

/* One block of one fork, as it is stored.  1: there, T is set and BUF filled
 * (zeros for a mark of zeros); 0: absent. */
int kvfs_fork_block(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                    uint64_t fork, uint64_t index, void *buf, struct kvfs_trailer *t,
                    struct kvfs_error *err);

/* Its trailer alone; *zeros: it is a mark of zeros.  1, 0 or negative. */
int kvfs_fork_trailer(struct kvfs_volume *v, struct kvfs_db_snap *snap,
                      const struct kvfs_view *view, uint64_t fork, uint64_t index,
                      struct kvfs_trailer *t, bool *zeros, struct kvfs_error *err);

/* Is there data at the block, by trailers alone? 1, 0, or negative. */
int kvfs_view_is_data(struct kvfs_volume *v, struct kvfs_db_snap *snap,
                      const struct kvfs_view *view, uint64_t index, struct kvfs_error *err);

#endif /* KVFS_VIEW_H */
