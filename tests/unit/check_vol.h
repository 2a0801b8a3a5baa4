/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check_vol.h - a volume with known contents, to be damaged and checked.
 */
#ifndef CHECK_VOL_H
#define CHECK_VOL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <kvfs/batch.h>
#include <kvfs/kvfs.h>

#include "../../kvfs/record.h"
#include "../chosen.h"

#define VOL_FILES 5
#define VOL_BLOCK ((size_t)4096)

struct vol_file { /* a regular file, as it was written */
    const char *path;
    uint64_t ino, fork;
    uint64_t size;
    uint8_t *bytes; /* NULL: all zeros */
    bool damaged;   /* by the test: not compared */
};

struct vol {
    char path[64];
    const char *engine;
    struct vol_file files[VOL_FILES];
    uint64_t dir_a, dir_b, dir_c; /* /a, /b, /b/c */
    uint64_t link, pipe;          /* /s, /p */
    const struct kvfs_engine *raw_engine;
    struct kvfs_db *raw; /* while damage is done */
};

enum {
    VOL_DISK0,
    VOL_DISK1,
    VOL_DEEP,
    VOL_THIN,
    VOL_EMPTY
};

/* Make the volume: /a/disk0, /a/disk1 (also /a/twin), /b/c/deep, /thin, /empty, the
 * link /s, the pipe /p, attribute "user.x" on /a/disk0. */
void vol_make(struct vol *t, const char *engine, uint64_t seed);
void vol_remove(struct vol *t);

/* Raw access to the closed volume's store. */
void vol_raw_open(struct vol *t);
void vol_raw_close(struct vol *t);
/* VALUE has KVFS_RECORD_MAX bytes.  Returns the length. */
size_t vol_get(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k, uint8_t *value);
void vol_put(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k, const void *value,
             size_t len);
void vol_del(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k);
/* Flip bit BIT of byte AT; both are taken modulo what there is. */
void vol_flip(struct vol *t, enum kvfs_keyspace ks, const struct kvfs_key *k, size_t at,
              unsigned bit);
void vol_block_key(struct kvfs_key *k, uint64_t fork, uint64_t index);
/* All keys of a keyspace; the caller frees. */
struct kvfs_key *vol_keys(struct vol *t, enum kvfs_keyspace ks, size_t *count);

struct vol_findings {
    char *text; /* lines "where: what" */
    size_t len;
    struct kvfs_check_result result;
    int rc;
    struct kvfs_error err;
};

void vol_check(struct vol *t, bool repair, struct vol_findings *f);
void vol_findings_free(struct vol_findings *f);
/* A line has all three. */
bool vol_found(const struct vol_findings *f, const char *where, const char *what);

/* Every file that is not marked as damaged reads as it was written. */
void vol_compare(struct vol *t);

uint64_t vol_random(uint64_t *state); /* splitmix64 */
uint64_t vol_seed(void);              /* KVFS_SEED, or of the clock; printed */
unsigned vol_scale(void);             /* KVFS_SCALE */

#endif /* CHECK_VOL_H */
