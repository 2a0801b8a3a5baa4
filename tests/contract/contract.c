/* SPDX-License-Identifier: BSD-3-Clause
 *
 * contract.c - failing, opening, applying; see compare.c for comparing.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "contract.h"

#define OPS_PRINTED 40

static const char *const op_names[] = {"put", "del", "del_range", "expect", "expect_absent"};

static void
print_key(const void *key, size_t len)
{
    const uint8_t *k = key;

    for (size_t i = 0; i < len && i < 24; i++)
        (void)fprintf(stderr, "%02x", k[i]);
    (void)fprintf(stderr, "%s(%zu)", len > 24 ? ".." : "", len);
}

static void
print_batch(const struct kvfs_batch *batch)
{
    (void)fprintf(stderr, "  the last batch, %zu operations:\n", batch->ops_count);
    for (size_t i = 0; i < batch->ops_count && i < OPS_PRINTED; i++) {
        const struct kvfs_op *op = &batch->ops[i];

        (void)fprintf(stderr, "  %4zu %s %s ", i, op->keyspace == KVFS_META ? "META" : "DATA",
                      op->type <= KVFS_OP_EXPECT_ABSENT ? op_names[op->type] : "?");
        print_key(op->key, op->key_len);
        if (op->type == KVFS_OP_DEL_RANGE) {
            (void)fprintf(stderr, " .. ");
            print_key(op->key_end, op->key_end_len);
        } else if (op->type == KVFS_OP_PUT || op->type == KVFS_OP_EXPECT) {
            (void)fprintf(stderr, " value %zu + %zu", op->value[0].iov_len, op->value[1].iov_len);
        }
        (void)fprintf(stderr, "\n");
    }
    if (batch->ops_count > OPS_PRINTED)
        (void)fprintf(stderr, "   ...\n");
}

void
contract_fail(const struct contract *c, const char *file, int line, const char *fmt, ...)
{
    const char *base = strrchr(file, '/');
    va_list ap;

    (void)fflush(stdout);
    flockfile(stderr);
    (void)fprintf(stderr,
                  "CONTRACT FAILED %s: %s: KVFS_SEED=%llu step %llu, %s:%d: ", c->engine->name,
                  c->case_name, (unsigned long long)c->seed, (unsigned long long)c->step,
                  base != NULL ? base + 1 : file, line);
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "\n");
    if (c->last.ops_count > 0)
        print_batch(&c->last);
    (void)fflush(stderr);
    funlockfile(stderr);
    _exit(1);
}

void
contract_skip(const struct contract *c, const char *why)
{
    (void)printf("             %s: %s\n", c->case_name, why);
    (void)fflush(stdout);
    _exit(CONTRACT_SKIPPED);
}

void
contract_check_code(const struct contract *c, const char *file, int line, int got, int want,
                    const struct kvfs_error *err, const char *what)
{
    if (got != want)
        contract_fail(c, file, line, "%s answered %d (%s), not %d%s%s", what, got,
                      got < 0 ? strerrorname_np(-got) : "no error", want, got < 0 ? ": " : "",
                      got < 0 && err != NULL ? err->msg : "");
    if (got < 0 && err != NULL && err->code != got)
        contract_fail(c, file, line, "%s answered %d, but the error it told is %d (%s)", what, got,
                      err->code, err->msg);
    if (got < 0 && err != NULL && err->msg[0] == '\0')
        contract_fail(c, file, line, "%s answered %d without a message", what, got);
}

/* --- random numbers ------------------------------------------------------------ */

uint64_t
contract_random(struct contract *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t
contract_below(struct contract *c, uint64_t bound)
{
    return contract_random(c) % bound;
}

void
contract_random_bytes(struct contract *c, void *buf, size_t len)
{
    uint8_t *at = buf;

    while (len > 0) {
        uint64_t word = contract_random(c);
        size_t n = len < sizeof(word) ? len : sizeof(word);

        memcpy(at, &word, n);
        at += n;
        len -= n;
    }
}

/* --- the store ------------------------------------------------------------------ */

void
contract_open_options(struct contract *c, const struct kvfs_engine_options *options)
{
    struct kvfs_engine_options o = *options;
    struct kvfs_error err = {.code = 0};

    if (o.params == NULL)
        o.params = c->params;
    CHECK_CODE(c, c->engine->open(c->engine, c->store, &o, &c->db, &err), 0, &err, "open");
    CHECK(c, c->db != NULL, "open set no handle");
    c->engine->limits(c->db, &c->limits);
}

void
contract_open(struct contract *c)
{
    contract_open_options(c, &(struct kvfs_engine_options){.create = true});
}

void
contract_close(struct contract *c)
{
    c->engine->close(c->db);
    c->db = NULL;
}

void
contract_reopen(struct contract *c)
{
    contract_close(c);
    contract_open_options(c, &(struct kvfs_engine_options){.create = false});
}

/* Apply what the builder holds; it stays readable for messages until the next
 * batch is applied, so the two builders take turns. */
static int
apply_turn(struct contract *c, struct model *model, enum kvfs_durability durability, int *want)
{
    struct kvfs_error err = {.code = 0};
    int r;

    CHECK(c, kvfs_batch_end(c->builder, &c->last) == 0, "the test could not build its batch");
    c->builder = c->builder == c->builders[0] ? c->builders[1] : c->builders[0];
    kvfs_batch_reset(c->builder);
    if (model != NULL)
        *want = model_apply(model, &c->last);
    r = c->engine->apply(c->db, &c->last, durability, &err);
    CHECK_CODE(c, r, want != NULL ? *want : r, &err, "apply");
    CHECK(c, r <= 0, "apply answered %d", r);
    return r;
}

int
contract_apply(struct contract *c, enum kvfs_durability durability)
{
    return apply_turn(c, NULL, durability, NULL);
}

void
contract_commit(struct contract *c, enum kvfs_durability durability)
{
    int want = 0;

    (void)apply_turn(c, NULL, durability, &want);
}

void
contract_refused(struct contract *c, int code)
{
    (void)apply_turn(c, NULL, KVFS_NONE, &code);
}

void
contract_commit_model(struct contract *c, struct model *model, enum kvfs_durability durability)
{
    int want = 0;

    (void)apply_turn(c, model, durability, &want);
}

struct kvfs_db_snap *
contract_begin(const struct contract *c)
{
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap = NULL;

    CHECK_CODE(c, c->engine->begin(c->db, &snap, &err), 0, &err, "begin");
    CHECK(c, snap != NULL, "begin set no snapshot");
    return snap;
}

void
contract_thread(const struct contract *c, struct contract *mine, uint64_t number)
{
    *mine = *c;
    mine->last = (struct kvfs_batch){.ops_count = 0};
    mine->random = c->random + number * 0x632be59bd9b4e019u;
    for (int i = 0; i < 2; i++) {
        mine->builders[i] = kvfs_batch_new();
        CHECK(c, mine->builders[i] != NULL, "no memory");
    }
    mine->builder = mine->builders[0];
}

void
contract_thread_end(struct contract *mine)
{
    kvfs_batch_free(mine->builders[0]);
    kvfs_batch_free(mine->builders[1]);
}

/* --- small things ---------------------------------------------------------------- */

void
contract_data_key(uint8_t key[KVFS_DATA_KEY_LEN], uint64_t fork_id, uint64_t index)
{
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)(fork_id >> (56 - 8 * i));
        key[8 + i] = (uint8_t)(index >> (56 - 8 * i));
    }
}

void
contract_number_fill(uint8_t *value, size_t len, uint64_t n)
{
    for (size_t i = 0; i < len; i++)
        value[i] = (uint8_t)(n >> (8 * (i % 8)));
}

uint64_t
contract_number_read(const struct contract *c, struct kvfs_db_snap *snap, int ks, const void *key,
                     size_t key_len, size_t len)
{
    struct kvfs_error err = {.code = 0};
    uint8_t *value = malloc(len), *want = malloc(len);
    struct iovec iov = {.iov_base = value, .iov_len = len};
    size_t value_len = 0;
    uint64_t n = 0;
    int r;

    CHECK(c, value != NULL && want != NULL, "no memory");
    r = c->engine->get(snap, (enum kvfs_keyspace)ks, key, key_len, 0, &iov, 1, &value_len, &err);
    if (r != -ENOENT) {
        CHECK_CODE(c, r, 0, &err, "get");
        CHECK(c, value_len == len, "a value of %zu bytes came back as one of %zu", len, value_len);
        for (size_t i = 0; i < 8; i++)
            n |= (uint64_t)value[i] << (8 * i);
        contract_number_fill(want, len, n);
        CHECK(c, memcmp(value, want, len) == 0, "a value is a mixture of several that were put");
    }
    free(value);
    free(want);
    return n;
}

pid_t
contract_fork(const struct contract *c)
{
    pid_t parent = getpid(), pid;

    (void)fflush(NULL);
    pid = fork();
    CHECK(c, pid >= 0, "fork failed");
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

void
contract_join(const struct contract *c, pid_t pid)
{
    int status = -1;

    CHECK(c, waitpid(pid, &status, 0) == pid, "waitpid failed");
    CHECK(c, WIFEXITED(status) && WEXITSTATUS(status) == 0, "child process: wait status 0x%x",
          (unsigned)status);
}
