/* SPDX-License-Identifier: BSD-3-Clause
 *
 * txn_priv.h - the inside of a transaction, and its spilling (txn.c, spill.c).
 */
#ifndef KVFS_TXN_PRIV_H
#define KVFS_TXN_PRIV_H

#include "node.h"
#include "overlay.h"

struct kvfs_txn_file {
    struct kvfs_txn_file *next;
    struct kvfs_node *node; /* a reference */
    uint64_t version;       /* that the change was built on */
    uint64_t version_next;  /* of a large one that is being applied */
    uint64_t size_bytes;    /* as the transaction would leave it */
    bool size_set;

    uint64_t top;                /* the fork its blocks were spilled to; 0: none yet */
    uint64_t top_cut;            /* batches spilled to it so far */
    struct kvfs_holes top_holes; /* of that fork */
};

struct kvfs_txn {
    struct kvfs_volume *v;
    struct kvfs_layer *stage;
    size_t stage_max;
    struct kvfs_txn_file *files;
    struct kvfs_snapshot **bases; /* that it was built on; not its own */
    size_t bases_count;
};

int kvfs_txn_versions(const struct kvfs_txn *t, struct kvfs_error *err);

/* --- spill.c --------------------------------------------------------------- */

/* Move the stage's blocks to forks, and go on with an empty stage. */
int kvfs_spill(struct kvfs_txn *t, struct kvfs_error *err);
/* Commit a transaction that has forks. */
int kvfs_spill_commit(struct kvfs_txn *t, enum kvfs_durability durability, struct kvfs_error *err);
/* Leave the forks, if any, to the background. */
void kvfs_spill_abandon(struct kvfs_txn *t);
/* Block INDEX if the fork of TF says anything of it.  1, 0 or negative. */
int kvfs_spill_block(struct kvfs_txn *t, const struct kvfs_txn_file *tf, uint64_t index,
                     uint8_t *block, struct kvfs_error *err);

/* --- snapshot.c ------------------------------------------------------------ */

/* A snapshot that nothing is pinned by yet; kvfs_snapshot_close() takes it. */
int kvfs_snapshot_new(struct kvfs_volume *v, struct kvfs_snapshot **snapshotp,
                      struct kvfs_error *err);
/* Pin the present instant; cut lock held, exclusive. */
int kvfs_snapshot_pin_locked(struct kvfs_snapshot *s, struct kvfs_error *err);
bool kvfs_snapshot_is_pinned(const struct kvfs_snapshot *s);
/* The code of a transaction that failed and that S shows, or 0; with the cut lock held it stays. */
int kvfs_snapshot_failure(const struct kvfs_snapshot *s);
/* Make layer L, the next to be sealed, a part of it; cannot fail, once; likewise. */
void kvfs_snapshot_add_locked(struct kvfs_snapshot *s, struct kvfs_layer *l);

#endif /* KVFS_TXN_PRIV_H */
