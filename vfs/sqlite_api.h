/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sqlite_api.h - SQLite's functions: of the program that loads the extension, or those linked.
 */
#ifndef KVFS_VFS_SQLITE_API_H
#define KVFS_VFS_SQLITE_API_H

#ifdef KVFS_SQLITE_EXTENSION
#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT3
#else
#include <sqlite3.h>
#endif

#endif /* KVFS_VFS_SQLITE_API_H */
