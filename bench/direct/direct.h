/* SPDX-License-Identifier: BSD-3-Clause
 *
 * direct.h - a library driven directly by a minimal program: the layer "direct" of kvload.
 *
 * It keeps records as the engine's adapter does, and does nothing else that the adapter
 * does: no page checks, no headroom, no snapshots that threads share.  The difference is what
 * the adapter costs.
 *
 * Every function ends the program when something fails: bench_die().
 */
#ifndef BENCH_DIRECT_H
#define BENCH_DIRECT_H

#include <stddef.h>
#include <stdint.h>

#define BENCH_KEY     16   /* a DATA key: fork, index */
#define BENCH_BLOCK   4096
#define BENCH_TRAILER 24   /* as kvfs's: a block's record is block and trailer */
#define BENCH_VALUE   (BENCH_BLOCK + BENCH_TRAILER)

struct bench_block {
    uint8_t key[BENCH_KEY];
    uint8_t value[BENCH_VALUE];
};

struct bench_direct {
    const char *name; /* of the engine */
    /* VARIANT: words for experiments, or NULL. */
    void (*open)(const char *folder, const char *variant);
    /* Put BLOCKS, sorted by key, as one batch that is durable on return.  Threads: any. */
    void (*put)(const struct bench_block *blocks, size_t count);
    void (*get)(struct bench_block *block); /* the value of its key; NULL: not of this one */
    void (*close)(void);
};

extern const struct bench_direct bench_direct_lmdb;
extern const struct bench_direct bench_direct_sqlite;
extern const struct bench_direct bench_direct_rocksdb;

void __attribute__((noreturn, format(printf, 1, 2))) bench_die(const char *format, ...);

#endif /* BENCH_DIRECT_H */
