/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvfs.h - all public headers of libkvfs.
 */
#ifndef KVFS_KVFS_H
#define KVFS_KVFS_H

#include <kvfs/batch.h>
#include <kvfs/check.h>
#include <kvfs/dir.h>
#include <kvfs/file.h>
#include <kvfs/txn.h>
#include <kvfs/volume.h>

#endif /* KVFS_KVFS_H */
