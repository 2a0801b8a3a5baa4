/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store.h - what a load goes to: one dataset behind one of several interfaces (layers).
 *
 * Functions answer 0 or a negative errno and one line in ERR.  Threads: read, write and flush
 * from any, else the caller alone.
 */
#ifndef KVFS_LOAD_STORE_H
#define KVFS_LOAD_STORE_H

#include <kvfs/kvfs.h>

#include "data.h"

struct load_target {
    const char *folder; /* there, and empty when the store is made */
    const char *engine; /* NULL: the layer has none */
    const char *params; /* NULL: none */
    struct load_dataset data;
};

struct load_store; /* one open dataset; each layer's own */

/* COUNT adjoining blocks from INDEX on. */
struct load_piece {
    uint64_t index;
    uint32_t count;
    uint8_t *bytes;
};

struct load_info {
    const char *version; /* of the library underneath; static */
    uint32_t caps;       /* enum kvfs_cap */
    uint64_t used_bytes; /* that the engine tells; 0: it cannot */
    uint64_t behind;     /* what the engine has postponed, in its own measure; 0: nothing known */
};

struct load_layer {
    const char *name;
    /* A write takes many pieces as one call, which is durable or not as a whole; else a write is
     * one piece, and `flush` makes all written before durable. */
    bool batches;

    int (*open)(const struct load_target *t, bool create, struct load_store **storep,
                struct kvfs_error *err);
    int (*close)(struct load_store *s, struct kvfs_error *err); /* gone whatever it answers */

    /* PIECES are sorted; DURABLE of batches only. */
    int (*write)(struct load_store *s, const struct load_piece *pieces, uint32_t count,
                 bool durable, struct kvfs_error *err);
    /* -ENOENT: a block of it was never written. */
    int (*read)(struct load_store *s, const struct load_piece *piece, struct kvfs_error *err);
    int (*flush)(struct load_store *s, struct kvfs_error *err); /* NULL with `batches` */

    /* Make everything durable and begin what can be begun of postponed work.  1: call again. */
    int (*settle)(struct load_store *s, struct kvfs_error *err);
    int (*info)(struct load_store *s, struct load_info *info, struct kvfs_error *err);
    int (*remove)(struct load_store *s, struct kvfs_error *err); /* the blocks, durably */
    /* Of a closed store; NULL: the layer has none.  -ENOTSUP: the engine has none. */
    int (*compact)(const struct load_target *t, struct kvfs_error *err);
};

extern const struct load_layer load_layer_contract, load_layer_kvfs, load_layer_raw;
extern const struct load_layer load_layer_direct; /* of kvload, not of kvfs_load */

#endif /* KVFS_LOAD_STORE_H */
