/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store_kvfs.h - a dataset in a volume that somebody else has open.
 */
#ifndef KVFS_LOAD_STORE_KVFS_H
#define KVFS_LOAD_STORE_KVFS_H

#include "store.h"

/* The file INO of V as a store of load_layer_kvfs.  V stays the caller's, outlives the store, and
 * `close` leaves it open. */
int load_kvfs_attach(struct kvfs_volume *v, uint64_t ino, const struct load_dataset *data,
                     struct load_store **storep, struct kvfs_error *err);

/* What a volume and its engine tell of themselves.  Errors: those of kvfs_volume_stat(). */
int load_kvfs_info(struct kvfs_volume *v, struct load_info *info, struct kvfs_error *err);

#endif /* KVFS_LOAD_STORE_KVFS_H */
