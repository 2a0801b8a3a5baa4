/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drain.h - waiting until what a store has postponed is done: commits, log folds, compaction,
 * blob collection.
 */
#ifndef KVFS_LOAD_DRAIN_H
#define KVFS_LOAD_DRAIN_H

#include "store.h"

#define DRAIN_MAX_S 120

/* Make all durable, then watch until the store is quiet: for some tens of milliseconds no other
 * thread runs or waits for storage, next to no CPU time is used, nothing is written, and what the
 * engine tells of its log stays.  By this and not by any engine's own words, so that all are
 * judged alike.  SYNC_ALL: the file system of FOLDER is the run's own, and synced too.
 * SECONDS: until the quiet began.  DRAINED: it came within DRAIN_MAX_S.
 * 0, -EINTR, or as the layer. */
int load_drain(const struct load_layer *layer, struct load_store *s, const char *folder,
               bool sync_all, bool (*interrupted)(void), double *seconds, bool *drained,
               struct kvfs_error *err);

#endif /* KVFS_LOAD_DRAIN_H */
