/* SPDX-License-Identifier: BSD-3-Clause
 *
 * folder.h - the files of a store, whatever they are.
 */
#ifndef KVFS_LOAD_FOLDER_H
#define KVFS_LOAD_FOLDER_H

#include <stdbool.h>
#include <stdint.h>

#include <kvfs/error.h>

bool folder_empty(const char *folder); /* and there */

/* Allocated bytes of all files in it. */
int folder_allocated(const char *folder, uint64_t *bytes, struct kvfs_error *err);

/* Of a closed store: sync, and let go the cached pages of every file in it: by file, and where
 * that leaves some and we may, of the whole machine.  HOW: "fadvise", "drop_caches", or "partly",
 * with what is still RESIDENT in bytes. */
int folder_drop_cache(const char *folder, const char **how, uint64_t *resident,
                      struct kvfs_error *err);

#endif /* KVFS_LOAD_FOLDER_H */
