/* SPDX-License-Identifier: BSD-3-Clause
 *
 * guard.h - running code that may fall over a damaged memory map.
 */
#ifndef KVFS_LMDB_GUARD_H
#define KVFS_LMDB_GUARD_H

/* What kvfs_lmdb_guard() answers when FN did not return; outside the range of
 * LMDB's own codes (-30799 ... -30600). */
#define KVFS_LMDB_FAULT (-30990)

/* Call FN(ARG) and return what it returns, or KVFS_LMDB_FAULT if it met SIGBUS,
 * SIGSEGV or an assertion of LMDB.  FN must hold no lock and own no memory that
 * only it knows of.  Guards nest.  Threads: any. */
int kvfs_lmdb_guard(int (*fn)(void *arg), void *arg);

/* The same for code that must not be left, because another thread uses its
 * stack: after a fault ON_FAULT(ARG) is called inside the signal handler and the
 * thread then sleeps for ever. */
int kvfs_lmdb_guard_parked(int (*fn)(void *arg), void *arg, void (*on_fault)(void *arg));

/* One line about this thread's newest fault. */
const char *kvfs_lmdb_guard_text(void);

/* Install the signal handlers, unless they are in place (somebody may have put
 * others there since): a negative errno if that is impossible. */
int kvfs_lmdb_guard_init(void);

/* Hand LMDB's failed assertion to the guard that is active; returns if none
 * is.  TEXT lives as long as the process. */
void kvfs_lmdb_guard_assert(const char *text);

#endif /* KVFS_LMDB_GUARD_H */
