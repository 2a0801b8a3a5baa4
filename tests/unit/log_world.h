/* SPDX-License-Identifier: BSD-3-Clause
 *
 * log_world.h - several processes at one store with a log (log:lmdb).
 *
 * The parent opens nothing: it starts and ends children, which tell in shared memory how far
 * they are and by a byte in a pipe that something happened, so nothing waits for a time.
 * KVFS_SEED repeats what the parent does, though not when the children get there.
 */
#ifndef LOG_WORLD_H
#define LOG_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include <kvfs/batch.h>
#include <kvfs/engine.h>

#define WRITERS         3
#define VALUE_LEN       3000u
#define VALUE_LEN_MAX   65536u
#define TOLD_END        0x80u /* and the writer: it commits no more */

struct shared {
    atomic_ulong acked[WRITERS]; /* the number that each writer's last commit put */
    atomic_int stop;
    char wrong[512]; /* the first child's that found something */
    atomic_flag told;
};

extern struct world {
    struct shared *shared;
    char folder[64];
    int pipe[2];
    int go[2][2]; /* pipes that two children wait at */
    size_t value_len;
    uint64_t random, seed;
    struct kvfs_db *db; /* in a child */
    const struct kvfs_engine *engine;
    struct kvfs_batch_builder *b;
} w;

/* Random: below BOUND. */
uint64_t draw(uint64_t bound);

/* --- in a child --- */

void child_tell(uint8_t what);
/* The test fails with this, and the child ends. */
__attribute__((format(printf, 1, 2), noreturn)) void child_fail(const char *format, ...);
int child_try_open(const char *params, bool readonly, struct kvfs_error *err);
void child_open(const char *params, bool readonly);
void child_close(void);
/* What WRITER last put into KS; 0: nothing. */
uint64_t child_number(struct kvfs_db_snap *snap, enum kvfs_keyspace ks, unsigned writer);
/* Look at all writers' numbers: whole batches, and none acknowledged is missing; those in NUMBERS
 * if not NULL. */
void child_look(const char *who, uint64_t numbers[WRITERS]);
/* Commit NUMBER of WRITER, whose last one was NUMBER - 1, with a value of w.value_len. */
void child_commit(unsigned writer, uint64_t number, enum kvfs_durability durability);
/* Open, look, commit COUNT batches; 0: until killed. */
void child_write(unsigned writer, const char *params, uint64_t count);
/* Wait until the parent lets go. */
void child_await(int i);

/* --- in the parent --- */

/* A child, which returns from here too, with 0. */
pid_t start(void);
void check_told(void);
/* By exit 0, or by SIGNAL. */
void await_end(pid_t pid, int signal);
void await_stop(pid_t pid);
/* Wait for what a child tells: a commit of writer I, or with TOLD_END that it ends. */
unsigned await_byte(void);
void let_go(int i);
/* Forget what was told. */
void drain(void);
/* In a process of its own: look, and see that nothing is missing. */
void look(bool readonly);
/* Open as a writer, and go on with WRITER's commits. */
pid_t start_writer(unsigned writer, const char *params, uint64_t count);
/* The same, from beginning to end. */
void run_writer(unsigned writer, const char *params, uint64_t count);

/* For cmocka: a store with one commit of writer 0, in a folder of its own. */
int world_setup(void **state);
int world_teardown(void **state);

#endif /* LOG_WORLD_H */
