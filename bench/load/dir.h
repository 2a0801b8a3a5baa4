/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dir.h - what kvdir works on: names, behind one of two interfaces.
 *
 * Paths begin with a slash, at the root of what was opened, and every call resolves its whole
 * path, as mdtest's do.  Functions answer 0 or a negative errno and one line in ERR.  Threads:
 * any, but for open, close and settle.
 */
#ifndef KVFS_LOAD_DIR_H
#define KVFS_LOAD_DIR_H

#include <stdint.h>

#include "store.h"

struct dir_layer {
    const char *name;
    int (*open)(const char *folder, const char *engine, const char *params, struct kvfs_error *err);
    int (*close)(struct kvfs_error *err);
    int (*create)(const char *path, bool folder, struct kvfs_error *err);
    int (*stat)(const char *path, struct kvfs_error *err);
    int (*read)(const char *path, bool folder, struct kvfs_error *err); /* open, and close */
    int (*list)(const char *path, uint64_t *entries, struct kvfs_error *err);
    int (*rename)(const char *from, const char *to, struct kvfs_error *err);
    int (*remove)(const char *path, bool folder, struct kvfs_error *err);
    /* Make the change of PATH that was just made durable: of a NEW file it and its folder. */
    int (*flush)(const char *path, bool new_file, struct kvfs_error *err);
    int (*sync)(struct kvfs_error *err); /* make all durable */
    /* The same, and some postponed work; 1: more is left, call again. */
    int (*settle)(struct kvfs_error *err);
    int (*info)(struct load_info *info, struct kvfs_error *err);
};

extern const struct dir_layer dir_layer_kvfs, dir_layer_posix;

#endif /* KVFS_LOAD_DIR_H */
