/* SPDX-License-Identifier: BSD-3-Clause
 *
 * file_write.h - one request that changes a file (file_write.c).
 */
#ifndef KVFS_FILE_WRITE_H
#define KVFS_FILE_WRITE_H

#include "node.h"

/* What a request changes in one go. */
struct kvfs_file_write {
    struct kvfs_node *node;
    const uint8_t *buf; /* NULL: zeros */
    uint64_t offset, count;
    uint64_t first, last; /* blocks touched */
    uint8_t *head, *tail; /* the first and last block, whole, if only a part is written */
    uint64_t new_size;    /* size to set; UINT64_MAX: leave it, or grow with `extend` */
    bool extend;
};

/* Acknowledge the request: on return it lies in the overlay, whole.  FLAGS: KVFS_FUA. */
int kvfs_file_write_run(struct kvfs_file_write *w, unsigned flags, struct kvfs_error *err);

/* The same in steps: kvfs_overlay_admit(), range lock, this, unlock, _admitted(). */
int kvfs_file_write_locked(struct kvfs_file_write *w, struct kvfs_error *err);
size_t kvfs_file_zero_cost(const struct kvfs_node *node);

/* A request that sets the size and nothing else. */
int kvfs_file_size_insert(struct kvfs_file_write *w, struct kvfs_error *err);

#endif /* KVFS_FILE_WRITE_H */
