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

#endif /* KVFS_TXN_PRIV_H */
