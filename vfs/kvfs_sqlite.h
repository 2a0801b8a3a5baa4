/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvfs_sqlite.h - the SQLite VFS `kvfs`, linked into a program.
 *
 * The same code is the loadable extension kvfs_sqlite.so, which needs no call.
 * See kvfs-sqlite(7).
 */
#ifndef KVFS_SQLITE_H
#define KVFS_SQLITE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Register the VFS `kvfs` with the SQLite that the program uses; MAKE_DEFAULT: not 0: databases
 * are looked for in volumes unless another VFS is named.  Once more does no harm, and may change
 * the default.  Temporary files go to the VFS that was the default at the first call.
 * Answers an SQLite result code.  Threads: any; before the first fork of a program that forks. */
int kvfs_sqlite_register(int make_default);

/* The last thing that went wrong in this thread, in one line; never NULL.  Valid until the
 * next call into SQLite by this thread. */
const char *kvfs_sqlite_error(void);

#ifdef __cplusplus
}
#endif

#endif /* KVFS_SQLITE_H */
