/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.h - which file of the volume an export name means.
 */
#ifndef KVFS_PLUGIN_EXPORTS_H
#define KVFS_PLUGIN_EXPORTS_H

#include <kvfs/dir.h>

#include "params.h"

/* Find the regular file with path NAME.  Names of clients come in as they are:
 * -EINVAL, -ENOENT, -EISDIR, -ELOOP ... and one line, whatever they hold. */
int kexports_find(struct kvfs_volume *v, const char *name, struct kvfs_attr *attr,
                  struct kvfs_error *err);

/* The default export: FILE (file=, may be NULL), else the one regular file in
 * the root.  NAME holds KPARAMS_NAME_MAX + 1 bytes.  -ENOENT if there is none,
 * or more than one, to choose from. */
int kexports_default(struct kvfs_volume *v, const char *file, char *name, struct kvfs_error *err);

/* Call FN for each regular file that NBD can name, folder by folder, until it
 * returns non-zero (which is returned) or KEXPORTS_LIST_MAX entries were seen.
 * What is left out is said to nbdkit_debug(). */
#define KEXPORTS_LIST_MAX 10000
int kexports_list(struct kvfs_volume *v,
                  int (*fn)(void *arg, const char *name, const char *description), void *arg,
                  struct kvfs_error *err);

/* "1 GiB, blocks of 4096 bytes"; TEXT holds KEXPORTS_DESCRIPTION_MAX bytes. */
#define KEXPORTS_DESCRIPTION_MAX 80
void kexports_describe(uint64_t size_bytes, uint32_t block_size_bytes, char *text);

#endif /* KVFS_PLUGIN_EXPORTS_H */
