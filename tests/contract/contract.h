/* SPDX-License-Identifier: BSD-3-Clause
 *
 * contract.h - what the cases of the engine contract's suite share.
 *
 * Each case runs in a process of its own with a fresh folder, so that a crash
 * inside an engine is one failed case, and so that nothing is shared with what
 * ran before.  A check that fails prints engine, case, seed, step and the last
 * batch, and ends that process at once; so checks may be used from any thread.
 */
#ifndef KVFS_CONTRACT_H
#define KVFS_CONTRACT_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#include "model.h"

#define CONTRACT_SKIPPED 77

/* Sanitized code is slower and takes more memory: do less of the same. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONTRACT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CONTRACT_SANITIZED 1
#endif
#endif
#ifndef CONTRACT_SANITIZED
#define CONTRACT_SANITIZED 0
#endif
#if defined(__SANITIZE_THREAD__) /* gcc; most of all with one thread, where it finds little */
#define CONTRACT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CONTRACT_TSAN 1
#endif
#endif
#ifndef CONTRACT_TSAN
#define CONTRACT_TSAN 0
#endif

struct contract {
    const struct kvfs_engine *engine;
    const char *params;    /* --params */
    const char *case_name; /* for messages */
    const char *folder;    /* scratch folder of the case */
    char store[256];       /* the store's folder in it */
    uint64_t seed;         /* of the whole run */
    uint64_t random;       /* state of contract_random() */
    uint64_t step;         /* for messages */

    struct kvfs_db *db; /* while open */
    struct kvfs_engine_limits limits;
    struct kvfs_batch_builder *builder; /* of the batch to come */
    struct kvfs_batch_builder *builders[2];
    struct kvfs_batch last; /* the batch applied last, for messages */
};

struct contract_case {
    const char *name;
    void (*run)(struct contract *c);
    uint32_t caps; /* without these the case does not apply */
};

/* Tables of the case files, each ended by an empty name. */
extern const struct contract_case contract_cases_basic[];
extern const struct contract_case contract_cases_values[];
extern const struct contract_case contract_cases_random[];
extern const struct contract_case contract_cases_threads[];
extern const struct contract_case contract_cases_crash[];
extern const struct contract_case contract_cases_process[];
extern const struct contract_case contract_cases_space[];
extern const struct contract_case contract_cases_upkeep[];

/* --- failing ----------------------------------------------------------------- */
void contract_fail(const struct contract *c, const char *file, int line, const char *fmt, ...)
    __attribute__((noreturn, format(printf, 4, 5)));
/* End the case: it does not apply to this engine. */
void contract_skip(const struct contract *c, const char *why) __attribute__((noreturn));

#define CHECK(c, condition, ...)                                 \
    do {                                                         \
        if (!(condition))                                        \
            contract_fail((c), __FILE__, __LINE__, __VA_ARGS__); \
    } while (0)

/* A call answered GOT: it must be WANT, and ERR must tell the same error. */
#define CHECK_CODE(c, got, want, err, what) \
    contract_check_code((c), __FILE__, __LINE__, (got), (want), (err), (what))
void contract_check_code(const struct contract *c, const char *file, int line, int got, int want,
                         const struct kvfs_error *err, const char *what);

/* --- random numbers ------------------------------------------------------------ */
uint64_t contract_random(struct contract *c);
uint64_t contract_below(struct contract *c, uint64_t bound); /* [0, bound) */
void contract_random_bytes(struct contract *c, void *buf, size_t len);

/* --- the store ------------------------------------------------------------------ */
void contract_open(struct contract *c); /* makes it if there is none */
void contract_open_options(struct contract *c, const struct kvfs_engine_options *options);
void contract_close(struct contract *c);
void contract_reopen(struct contract *c); /* without `create` */

/* Apply what c->builder holds; answers what the engine does. */
int contract_apply(struct contract *c, enum kvfs_durability durability);
/* ... which must be 0. */
void contract_commit(struct contract *c, enum kvfs_durability durability);
/* ... which must be CODE. */
void contract_refused(struct contract *c, int code);
/* ... which must be what MODEL answers, and MODEL changes too. */
void contract_commit_model(struct contract *c, struct model *model,
                           enum kvfs_durability durability);
struct kvfs_db_snap *contract_begin(const struct contract *c);

/* A copy for a thread: its own builders and random numbers, the same store. */
void contract_thread(const struct contract *c, struct contract *mine, uint64_t number);
void contract_thread_end(struct contract *mine);

/* --- comparing ------------------------------------------------------------------- */
/* Everything SNAP shows is what MODEL holds: each key by get, both keyspaces
 * by scans forwards and backwards. */
void contract_check_all(struct contract *c, struct kvfs_db_snap *snap, const struct model *model);
/* The same over a snapshot taken now; and the counts that `stat` tells. */
void contract_check_now(struct contract *c, const struct model *model);
/* One key, absent or not, by `get` with a random offset and pieces of buffer. */
void contract_check_key(struct contract *c, struct kvfs_db_snap *snap, const struct model *model,
                        int ks, const void *key, size_t key_len);

struct contract_range {
    const void *lo, *hi;
    size_t lo_len, hi_len;
};
/* One scan.  ks, flags: as cursor_open. */
void contract_check_scan(struct contract *c, struct kvfs_db_snap *snap, const struct model *model,
                         int ks, const struct contract_range *range, unsigned flags);
/* `verify` finds nothing. */
void contract_check_verify(struct contract *c);

/* --- small things ------------------------------------------------------------------ */
/* A DATA key: fork and index, big-endian. */
/* Does stat count records exactly? */
static inline bool
contract_counts(const struct contract *c)
{
    return (c->engine->caps & KVFS_CAP_COUNTS) != 0;
}
void contract_data_key(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t fork, uint64_t index);
/* A value that can be told from all others: fills VALUE with bytes made of N. */
void contract_number_fill(uint8_t *value, size_t len, uint64_t n);
/* Read it back from a key: checks that it is whole and answers N; 0: no such key. */
uint64_t contract_number_read(const struct contract *c, struct kvfs_db_snap *snap, int ks,
                              const void *key, size_t key_len, size_t len);

/* A set of records that change together (set.c).  _put adds to the batch what
 * makes N, at least 1, the set's number, N - 1 being the one before.  _read
 * checks that SNAP shows one number at all records and answers it; 0: no set. */
#define CONTRACT_SET_META 8 /* records */
#define CONTRACT_SET_DATA 9
void contract_set_put(struct contract *c, uint64_t n);
uint64_t contract_set_read(const struct contract *c, struct kvfs_db_snap *snap);

/* fork(); the child dies with its parent.  Before any engine is opened unless
 * it has KVFS_CAP_FORK. */
pid_t contract_fork(const struct contract *c);
/* The child must have ended with status 0. */
void contract_join(const struct contract *c, pid_t pid);

#endif /* KVFS_CONTRACT_H */
