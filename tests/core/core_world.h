/* SPDX-License-Identifier: BSD-3-Clause
 *
 * core_world.h - what the tests of the core share: a volume in a folder of its
 * own, files in it, and calls that must succeed.
 */
#ifndef CORE_WORLD_H
#define CORE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <kvfs/kvfs.h>

#include "../chosen.h"

/* Fails the test with the error's own words. */
#define MUST(call)                                                                                 \
    do {                                                                                           \
        struct kvfs_error *must_err = &world_err;                                                  \
        int must_rc = (call);                                                                      \
        if (must_rc < 0)                                                                           \
            fail_msg("%s: %d %s", #call, must_rc, must_err->msg);                                  \
    } while (0)

extern struct kvfs_error world_err;
extern char world_path[64]; /* the volume's folder */

/* Make a folder and a volume in it; ENGINE may be a path; NULL: the chosen one. */
void world_make(const char *engine, uint32_t block_size);
/* The same in two steps. */
void world_folder(void);
void world_format(const char *engine, uint32_t block_size);
void world_remove(void);

struct kvfs_volume *world_open(const char *engine, size_t cache_bytes);
/* The file's number; made with SIZE if missing. */
uint64_t world_file(struct kvfs_volume *v, const char *name, uint64_t size);
struct kvfs_file *world_file_open(struct kvfs_volume *v, const char *name, unsigned flags);

/* Are COUNT bytes at OFFSET all equal to BYTE? */
bool world_is(struct kvfs_file *f, uint64_t offset, size_t count, int byte);
void world_fill(struct kvfs_file *f, uint64_t offset, size_t count, int byte);
/* The version that a transaction may build on. */
uint64_t world_version(struct kvfs_file *f);

/* The seed: KVFS_SEED, or a fresh one; printed. */
unsigned world_seed(void);

/* How many rounds: N times KVFS_SCALE. */
unsigned world_rounds(unsigned n);

#endif /* CORE_WORLD_H */
