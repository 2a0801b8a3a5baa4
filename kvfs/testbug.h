/* SPDX-License-Identifier: BSD-3-Clause
 *
 * testbug.h - bugs planted for the tests that must find them.
 *
 * Built with -DKVFS_TEST_BUGS=ON, the environment variable KVFS_TEST_BUG names
 * one of:
 *   drop-block      a block of a commit does not reach the engine
 *   split-request   a commit reaches the engine in two batches, half of the blocks first
 *   meta-first      the same, the files' records first
 *   flush-early     a flush answers before anything was committed
 *   stale-hole      a trimmed range comes back when its blocks are forgotten
 *   lost-orphan     a file that is unlinked while open is not noted as an orphan
 * and in the SQLite VFS:
 *   commit-at-sync      a file is committed when SQLite syncs it
 *   no-recheck          a writer does not look whether its snapshot is the newest state
 *   free-before-repin   the lease is free before the new state is pinned
 *   keep-stage          what a failed commit had staged stays
 *   batch-per-file      each attached database is committed alone
 *   snapshot-per-file   each attached database is read at an instant of its own
 * Otherwise all of this is the constant false.
 *
 * kvfs_test_fault(STEP) stands where a step may fail: 0, or the errno that a test
 * program built so wants, by defining kvfs_test_fault_at().
 */
#ifndef KVFS_TESTBUG_H
#define KVFS_TESTBUG_H

#include <stdbool.h>

#ifdef KVFS_TEST_BUGS
#include <stdlib.h>
#include <string.h>

static inline bool
kvfs_test_bug(const char *name)
{
    const char *wanted = getenv("KVFS_TEST_BUG"); // NOLINT(concurrency-mt-unsafe): never set here

    return wanted != NULL && strcmp(wanted, name) == 0;
}

int kvfs_test_fault_at(const char *step) __attribute__((weak));

static inline int
kvfs_test_fault(const char *step)
{
    return kvfs_test_fault_at != NULL ? kvfs_test_fault_at(step) : 0;
}
#else
#define kvfs_test_bug(name) false
#define kvfs_test_fault(step) 0
#endif

#endif /* KVFS_TESTBUG_H */
