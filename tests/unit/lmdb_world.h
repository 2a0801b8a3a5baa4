/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lmdb_world.h - what the tests of the lmdb engine share: a scratch folder, a
 * store in it, numbered blocks, and the file's pages from outside.
 */
#ifndef LMDB_WORLD_H
#define LMDB_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "lmdb_priv.h"

#define WORLD_TRAILER 24

struct world {
    char folder[64]; /* scratch; removed at the end */
    char store[80];  /* the store's folder */
    char file[96];   /* data.mdb */
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
    struct kvfs_batch_builder *batch;
    struct kvfs_error err;
    uint32_t block; /* bytes; the engine's favourite block */
    uint64_t random;
};

/* cmocka's setup and teardown of one test.  The scratch folder is in $TMPDIR or
 * /tmp; _in_memory: in /dev/shm where there is one, for tests that open, flush and
 * verify thousands of times. */
int world_setup(void **state);
int world_setup_in_memory(void **state);
int world_teardown(void **state);

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, world_setup, world_teardown)
#define TEST_IN_MEMORY(fn) \
    cmocka_unit_test_setup_teardown(fn, world_setup_in_memory, world_teardown)

uint64_t world_seed(void); /* KVFS_SEED, or a new one that is printed */
uint64_t world_random(struct world *w);

/* Open; the answer of the engine. */
int world_try(struct world *w, const struct kvfs_engine_options *options);
void world_open(struct world *w);
void world_open_limit(struct world *w, uint64_t bytes);
void world_close(struct world *w);

void world_key(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t fork, uint64_t index);
/* Block INDEX in version N: incompressible, with a trailer of its own. */
void world_put(struct world *w, uint64_t index, uint64_t n);
void world_del(struct world *w, uint64_t index);
void world_meta(struct world *w, const char *key, const void *value, size_t len);
int world_apply(struct world *w, enum kvfs_durability durability);
void world_commit(struct world *w, enum kvfs_durability durability);

/* Is block INDEX there in version N?  0, -ENOENT, -EIO (also: other bytes) ... */
int world_check(struct world *w, uint64_t index, uint64_t n);
struct kvfs_engine_stat world_stat(struct world *w);

/* Findings of verify; FIRST becomes the first one's text. */
unsigned world_verify(struct world *w, char first[256]);

/* --- the file ----------------------------------------------------------------- */
struct world_file {
    int fd;
    size_t psize;
    struct kvfs_lmdb_meta meta;
    struct page_db tree[4]; /* META, DATA, the free list, the main tree */
};
enum { WORLD_META, WORLD_DATA, WORLD_FREE, WORLD_MAIN };

void world_file_open(struct world *w, struct world_file *f);
void world_file_close(struct world_file *f);
void world_file_read(struct world_file *f, uint64_t pgno, void *page);
void world_file_write(struct world_file *f, uint64_t pgno, const void *page);
/* The first page of a type in a tree: PAGE_BRANCH, PAGE_LEAF or PAGE_OVERFLOW; 0: none. */
uint64_t world_file_find(struct world_file *f, int tree, unsigned type);

/* fork(); the child dies with its parent. */
int world_fork(void);
void world_join(int pid);

#endif /* LMDB_WORLD_H */
