/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_random.c - random batches against the model, snapshots held meanwhile.
 *
 * Keys come from a small universe, so that operations of one batch meet each
 * other; values have sizes around those where engines change their layout.
 */
#include <stdlib.h>

#include "contract.h"

#define RANDOM_STEPS (CONTRACT_TSAN ? 300 : CONTRACT_SANITIZED ? 500 : 1500)
#define RANDOM_HELD  6

struct random_run {
    struct contract *c;
    struct model *model;
    struct kvfs_db_snap *held[RANDOM_HELD];
    struct model *held_model[RANDOM_HELD];
    uint8_t *bytes; /* values are pieces of this */
    size_t value_most;
};

#define RANDOM_BYTES ((size_t)1 << 20)

static size_t
random_key(struct contract *c, int ks, uint8_t key[KVFS_META_KEY_MAX])
{
    static const size_t lens[] = {1, 2, 3, 9, 10, 17, 64, 264, 319, 320};
    uint8_t fill;
    size_t len;

    if (ks == KVFS_DATA) {
        contract_data_key(key, contract_below(c, 4), contract_below(c, 64));
        return KVFS_DATA_KEY_LEN;
    }
    /* Equal fills and different lengths make prefixes of each other. */
    len = lens[contract_below(c, sizeof(lens) / sizeof(lens[0]))];
    fill = (uint8_t)(1 + contract_below(c, 3) * 127);
    memset(key, fill, len);
    key[len - 1] = (uint8_t)contract_below(c, 6);
    if (len == 1)
        key[0]++; /* a META key that begins with 0 belongs to wrappers */
    return len;
}

/* A bound of a range or scan: a key, a piece of one, or nothing. */
static size_t
random_bound(struct contract *c, int ks, uint8_t key[KVFS_META_KEY_MAX])
{
    size_t len = random_key(c, ks, key);

    switch (contract_below(c, 6)) {
    case 0:
        return 0;
    case 1:
        return 1 + contract_below(c, len);
    default:
        return len;
    }
}

static size_t
random_value_len(const struct random_run *run)
{
    struct contract *c = run->c;

    switch (contract_below(c, 12)) {
    case 0:
        return 0;
    case 1:
        return run->value_most < 66320 ? run->value_most : contract_below(c, 66320);
    case 2:
        return 8150 + contract_below(c, 100);
    case 3:
    case 4:
        return 4040 + contract_below(c, 100);
    case 5:
        return 1900 + contract_below(c, 200);
    default:
        return contract_below(c, 200);
    }
}

static void
random_expect(struct random_run *run, int ks, const uint8_t *key, size_t key_len)
{
    struct contract *c = run->c;
    const struct model_entry *e = model_find(run->model, ks, key, key_len);

    if (contract_below(c, 40) == 0) /* probably wrong */
        kvfs_batch_expect(c->builder, (enum kvfs_keyspace)ks, key, key_len, run->bytes,
                          e != NULL ? e->value->len : 1);
    else if (e == NULL)
        kvfs_batch_expect_absent(c->builder, (enum kvfs_keyspace)ks, key, key_len);
    else
        kvfs_batch_expect(c->builder, (enum kvfs_keyspace)ks, key, key_len, e->value->bytes,
                          e->value->len);
}

static void
random_op(struct random_run *run)
{
    struct contract *c = run->c;
    int ks = (int)contract_below(c, 2);
    uint8_t key[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX];
    size_t key_len = random_key(c, ks, key), hi_len, len, cut;
    const uint8_t *value;

    switch (contract_below(c, 10)) {
    case 0:
    case 1:
        kvfs_batch_del(c->builder, (enum kvfs_keyspace)ks, key, key_len);
        break;
    case 2: /* a wide range would leave nothing to work on */
        if (contract_below(c, 3) != 0)
            break;
        key_len = random_bound(c, ks, key);
        hi_len = random_bound(c, ks, hi);
        if (ks == KVFS_DATA && contract_below(c, 4) != 0) {
            memcpy(hi, key, 16);
            hi[15] = (uint8_t)(key[15] + contract_below(c, 8));
            hi_len = 16;
        } else if (contract_below(c, 8) != 0 && (hi_len == 0 || key_len == 0)) {
            break;
        }
        kvfs_batch_del_range(c->builder, (enum kvfs_keyspace)ks, key, key_len, hi, hi_len);
        break;
    case 3:
        random_expect(run, ks, key, key_len);
        break;
    default:
        len = random_value_len(run);
        cut = contract_below(c, len + 1);
        value = run->bytes + contract_below(c, RANDOM_BYTES - len);
        kvfs_batch_put_borrowed(c->builder, (enum kvfs_keyspace)ks, key, key_len, value, cut,
                                value + cut, len - cut);
        break;
    }
}

/* A few looks at the newest state, and at one that is held. */
static void
random_look(struct random_run *run)
{
    struct contract *c = run->c;
    uint8_t key[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX];
    struct kvfs_db_snap *snap = contract_begin(c);
    size_t at = contract_below(c, RANDOM_HELD);

    for (unsigned i = 0; i < 4; i++) {
        int ks = (int)contract_below(c, 2);
        size_t len = random_key(c, ks, key);
        struct contract_range range = {.lo = key, .hi = hi};

        contract_check_key(c, snap, run->model, ks, key, len);
        range.lo_len = random_bound(c, ks, key);
        range.hi_len = random_bound(c, ks, hi);
        if (i < 2)
            contract_check_scan(c, snap, run->model, ks, &range, (unsigned)contract_below(c, 4));
        if (run->held[at] != NULL)
            contract_check_scan(c, run->held[at], run->held_model[at], ks, &range,
                                (unsigned)contract_below(c, 4));
    }
    c->engine->end(snap);
}

static void
random_release(struct random_run *run, size_t at)
{
    if (run->held[at] == NULL)
        return;
    contract_check_all(run->c, run->held[at], run->held_model[at]);
    run->c->engine->end(run->held[at]);
    model_free(run->held_model[at]);
    run->held[at] = NULL;
    run->held_model[at] = NULL;
}

static void
random_step(struct random_run *run, bool reopen)
{
    struct contract *c = run->c;
    uint64_t ops = contract_below(c, 8) == 0 ? contract_below(c, 60) : contract_below(c, 8);
    size_t at = contract_below(c, RANDOM_HELD);

    while (ops-- > 0)
        random_op(run);
    contract_commit_model(c, run->model,
                          contract_below(c, 16) == 0  ? KVFS_DURABLE
                          : contract_below(c, 2) == 0 ? KVFS_ORDERED
                                                      : KVFS_NONE);
    random_look(run);
    if (contract_below(c, 12) == 0) {
        random_release(run, at);
        run->held[at] = contract_begin(c);
        run->held_model[at] = model_clone(run->model);
    }
    if (c->step % 100 == 99)
        contract_check_now(c, run->model);
    if (c->step % 250 != 249)
        return;
    contract_check_verify(c);
    for (size_t i = 0; i < RANDOM_HELD; i++)
        random_release(run, i);
    if (reopen) {
        contract_reopen(c);
        contract_check_now(c, run->model);
    }
}

static void
random_run_all(struct contract *c, bool reopen)
{
    struct random_run run = {.c = c, .model = model_new(), .bytes = malloc(RANDOM_BYTES)};

    CHECK(c, run.bytes != NULL, "no memory");
    contract_random_bytes(c, run.bytes, RANDOM_BYTES);
    contract_open(c);
    run.value_most = c->limits.value_max_bytes;
    for (c->step = 0; c->step < RANDOM_STEPS; c->step++)
        random_step(&run, reopen);
    for (size_t i = 0; i < RANDOM_HELD; i++)
        random_release(&run, i);
    contract_check_now(c, run.model);
    contract_check_verify(c);
    contract_close(c);
    model_free(run.model);
    free(run.bytes);
}

static void
random__batches_and_snapshots__as_the_model(struct contract *c)
{
    random_run_all(c, false);
}

static void
random__reopened_in_between__as_the_model(struct contract *c)
{
    random_run_all(c, true);
}

const struct contract_case contract_cases_random[] = {
    {"random__batches_and_snapshots__as_the_model", random__batches_and_snapshots__as_the_model, 0},
    {"random__reopened_in_between__as_the_model", random__reopened_in_between__as_the_model,
     KVFS_CAP_PERSISTENT},
    {NULL, NULL, 0},
};
