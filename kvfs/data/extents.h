/* SPDX-License-Identifier: BSD-3-Clause
 *
 * extents.h - what is data and what is a hole (extents.c).
 */
#ifndef KVFS_EXTENTS_H
#define KVFS_EXTENTS_H

#include "layer.h"
#include "view.h"

typedef int kvfs_extent_fn(void *arg, uint64_t offset, uint64_t count, bool hole);

/* What is asked for. */
struct kvfs_extents {
    uint64_t offset, count;
    unsigned limit; /* calls of FN; 0: no limit */
    kvfs_extent_fn *fn;
    void *arg;
};

/* What the layers know of the range, collected before the engine is asked. */
struct kvfs_known {
    struct kvfs_known_block {
        uint64_t index;
        bool data;
    } *blocks; /* sorted, none twice */
    size_t blocks_count, blocks_cap;
    struct kvfs_layer_hole *holes;
    size_t holes_count, holes_cap;
};

/* Add what layer L knows of blocks [first, last] of INO; then, after the last
 * layer, sort, and set `data` of each block by what the caller's layers say. */
int kvfs_known_add(struct kvfs_known *k, struct kvfs_layer *l, uint64_t ino, uint64_t first,
                   uint64_t last);
void kvfs_known_sort(struct kvfs_known *k);
void kvfs_known_free(struct kvfs_known *k);

/* Walk the range over K and the engine. */
int kvfs_extents_walk(struct kvfs_volume *v, struct kvfs_db_snap *snap,
                      const struct kvfs_view *view, const struct kvfs_known *k,
                      const struct kvfs_extents *x, struct kvfs_error *err);

#endif /* KVFS_EXTENTS_H */
