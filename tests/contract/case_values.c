/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_values.c - sizes: the smallest and largest keys, values and batches.
 */
#include <stdlib.h>

#include "contract.h"

#define VALUES_LARGEST ((size_t)64 << 20) /* tried; a limit beyond it is believed */

static void
keys__shortest_and_longest__kept_in_order(struct contract *c)
{
    static const size_t lens[] = {1, 2, 15, 16, 17, 255, 256, 319, 320};
    static const uint8_t fills[] = {0x01, 'a', 0x7f, 0x80, 0xff};
    struct model *model = model_new();
    uint8_t key[KVFS_META_KEY_MAX];

    contract_open(c);
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        for (size_t f = 0; f < sizeof(fills); f++) {
            memset(key, fills[f], lens[i]);
            kvfs_batch_put(c->builder, KVFS_META, key, lens[i], key, lens[i] / 2);
            key[lens[i] - 1] = 0; /* zero bytes inside and at the end are bytes */
            if (lens[i] > 1)
                kvfs_batch_put(c->builder, KVFS_META, key, lens[i], "0", 1);
        }
    }
    memset(key, 0, sizeof(key));
    kvfs_batch_put(c->builder, KVFS_DATA, key, KVFS_DATA_KEY_LEN, "first", 5);
    memset(key, 0xff, sizeof(key));
    kvfs_batch_put(c->builder, KVFS_DATA, key, KVFS_DATA_KEY_LEN, "last", 4);
    contract_commit_model(c, model, KVFS_ORDERED);
    contract_check_now(c, model);

    memset(key, 0xff, sizeof(key)); /* the very last record of each keyspace */
    kvfs_batch_del_range(c->builder, KVFS_META, key, 320, NULL, 0);
    kvfs_batch_del_range(c->builder, KVFS_DATA, key, 16, NULL, 0);
    contract_commit_model(c, model, KVFS_ORDERED);
    contract_check_now(c, model);
    contract_check_verify(c);
    contract_close(c);
    model_free(model);
}

/* Put a value in two pieces and expect it in two others. */
static void
values_put(struct contract *c, int ks, const void *key, size_t key_len, const uint8_t *value,
           size_t len)
{
    size_t cut = contract_below(c, len + 1);

    kvfs_batch_put_borrowed(c->builder, (enum kvfs_keyspace)ks, key, key_len, value, cut,
                            value + cut, len - cut);
}

static void
values__all_sizes__come_back(struct contract *c)
{
    static const size_t sizes[] = {
        0,    1,    2,    23,   24,    25,    100,   511,   512,   513,   1000,  2000,  2025, 2026,
        2027, 2040, 4055, 4056, 4057,  4079,  4080,  4081,  4095,  4096,  4097,  4104,  4120, 8175,
        8176, 8177, 8192, 8216, 16360, 16368, 16384, 16408, 32792, 65535, 65536, 65560, 66320};
    const size_t n = sizeof(sizes) / sizeof(sizes[0]);
    size_t largest;
    uint8_t *value, key[KVFS_DATA_KEY_LEN];
    struct model *model = model_new();

    contract_open(c);
    largest =
        c->limits.value_max_bytes < VALUES_LARGEST ? c->limits.value_max_bytes : VALUES_LARGEST;
    value = malloc(largest + n); /* value I starts at byte I */
    CHECK(c, value != NULL, "no memory");
    contract_random_bytes(c, value, largest + n);
    for (size_t round = 0; round < 3; round++) { /* later ones overwrite with another size */
        for (size_t i = 0; i < n; i++) {
            contract_data_key(key, round == 2, i);
            values_put(c, KVFS_DATA, key, 16, value + i, sizes[(i + round) % n]);
            values_put(c, KVFS_META, (uint8_t[]){'v', (uint8_t)i}, 2, value + i,
                       sizes[(i + 7 * round) % n]);
            c->step = round * n + i;
            if (contract_below(c, 4) == 0)
                contract_commit_model(c, model, KVFS_NONE);
        }
        contract_commit_model(c, model, KVFS_ORDERED);
        contract_check_now(c, model);
    }
    values_put(c, KVFS_DATA, key, 16, value, largest);
    contract_commit_model(c, model, KVFS_ORDERED);
    values_put(c, KVFS_META, "large", 5, value, largest);
    kvfs_batch_expect(c->builder, KVFS_DATA, key, 16, value, largest);
    contract_commit_model(c, model, KVFS_ORDERED);
    contract_check_now(c, model);
    contract_check_verify(c);
    contract_close(c);
    model_free(model);
    free(value);
}

static void
values__expected_in_pieces__compared_whole(struct contract *c)
{
    struct model *model = model_new();
    uint8_t *value;
    const size_t len = 66320;

    contract_open(c);
    value = malloc(len);
    CHECK(c, value != NULL, "no memory");
    contract_random_bytes(c, value, len);
    kvfs_batch_put(c->builder, KVFS_DATA, "0123456789abcdef", 16, value, len);
    contract_commit_model(c, model, KVFS_ORDERED);
    for (unsigned i = 0; i < 40; i++) {
        size_t cut = contract_below(c, len + 1), flip = contract_below(c, len);
        struct kvfs_op ops[2] = {
            {.type = KVFS_OP_EXPECT,
             .keyspace = KVFS_DATA,
             .key = "0123456789abcdef",
             .key_len = 16,
             .value = {{.iov_base = value, .iov_len = cut},
                       {.iov_base = value + cut, .iov_len = len - cut}}},
            {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = "k", .key_len = 1},
        };
        struct kvfs_batch batch = {.ops = ops, .ops_count = 2};
        struct kvfs_error err = {.code = 0};

        c->step = i;
        CHECK_CODE(c, c->engine->apply(c->db, &batch, KVFS_NONE, &err), 0, &err, "apply");
        value[flip] ^= 1;
        CHECK_CODE(c, c->engine->apply(c->db, &batch, KVFS_NONE, &err), -EAGAIN, &err,
                   "apply with one bit wrong");
        value[flip] ^= 1;
    }
    contract_close(c);
    model_free(model);
    free(value);
}

static void
values__beyond_the_limit__e2big_and_nothing_changed(struct contract *c)
{
    struct model *model = model_new();
    uint8_t *value;
    size_t len;

    contract_open(c);
    len = (size_t)c->limits.value_max_bytes + 1;
    if (c->limits.value_max_bytes >= ((uint32_t)1 << 30)) {
        contract_close(c);
        contract_skip(c, "values of this engine know no bound");
    }
    value = calloc(1, len);
    CHECK(c, value != NULL, "no memory");
    kvfs_batch_put(c->builder, KVFS_META, "a", 1, "a", 1);
    contract_commit_model(c, model, KVFS_ORDERED);
    for (unsigned i = 0; i < 4; i++) {
        c->step = i;
        kvfs_batch_put(c->builder, KVFS_META, "b", 1, "b", 1);
        kvfs_batch_put_borrowed(c->builder, i % 2 == 0 ? KVFS_META : KVFS_DATA, "0123456789abcdef",
                                16, value, i < 2 ? len : 1, value, i < 2 ? 0 : len - 1);
        kvfs_batch_del(c->builder, KVFS_META, "a", 1);
        contract_refused(c, -E2BIG);
        contract_check_now(c, model);
    }
    contract_close(c);
    model_free(model);
    free(value);
}

/* A batch that borrows one buffer over and over takes no memory here; an engine
 * refuses it before it copies anything. */
static void
batch__beyond_the_limits__e2big_and_nothing_changed(struct contract *c)
{
    size_t len = 65536, many;
    struct model *model = model_new();
    struct kvfs_op *ops;
    struct kvfs_error err = {.code = 0};
    uint8_t *value = calloc(1, len);
    struct kvfs_batch batch;

    contract_open(c);
    kvfs_batch_put(c->builder, KVFS_META, "a", 1, "a", 1);
    contract_commit_model(c, model, KVFS_ORDERED);
    if (c->limits.batch_max_bytes <= ((uint64_t)16 << 30)) {
        many = (size_t)(c->limits.batch_max_bytes / len + 1);
        ops = calloc(many, sizeof(*ops));
        CHECK(c, ops != NULL && value != NULL, "no memory");
        for (size_t i = 0; i < many; i++)
            ops[i] = (struct kvfs_op){.type = KVFS_OP_PUT,
                                      .keyspace = KVFS_META,
                                      .key = "b",
                                      .key_len = 1,
                                      .value = {{.iov_base = value, .iov_len = len}}};
        batch = (struct kvfs_batch){.ops = ops, .ops_count = many};
        CHECK_CODE(c, c->engine->apply(c->db, &batch, KVFS_NONE, &err), -E2BIG, &err,
                   "apply of too many bytes");
        contract_check_now(c, model);
        free(ops);
    }
    if (c->limits.batch_max_ops <= ((uint64_t)8 << 20)) {
        many = (size_t)c->limits.batch_max_ops + 1;
        ops = calloc(many, sizeof(*ops));
        CHECK(c, ops != NULL, "no memory");
        for (size_t i = 0; i < many; i++)
            ops[i] = (struct kvfs_op){
                .type = KVFS_OP_DEL, .keyspace = KVFS_META, .key = "a", .key_len = 1};
        batch = (struct kvfs_batch){.ops = ops, .ops_count = many};
        CHECK_CODE(c, c->engine->apply(c->db, &batch, KVFS_NONE, &err), -E2BIG, &err,
                   "apply of too many operations");
        contract_check_now(c, model);
        free(ops);
    }
    contract_close(c);
    model_free(model);
    free(value);
}

/* What kvfs does with its largest request: 32 MiB in blocks of 512 bytes. */
static void
batch__as_large_as_a_request_can_be__applied_whole(struct contract *c)
{
    const size_t blocks = 65536, len = 512;
    uint8_t key[KVFS_DATA_KEY_LEN], value[512 + 24];
    struct kvfs_engine_stat stat;
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap;

    contract_open(c);
    for (uint64_t round = 1; round <= 2; round++) {
        for (size_t i = 0; i < blocks; i++) {
            contract_data_key(key, 1, i);
            contract_number_fill(value, len + 24, round << 32 | i);
            kvfs_batch_put(c->builder, KVFS_DATA, key, 16, value, len + 24);
        }
        contract_commit(c, KVFS_ORDERED);
        snap = contract_begin(c);
        for (size_t i = 0; i < blocks; i += 97) {
            contract_data_key(key, 1, i);
            CHECK(c,
                  contract_number_read(c, snap, KVFS_DATA, key, 16, len + 24) == (round << 32 | i),
                  "block %zu of round %llu", i, (unsigned long long)round);
        }
        c->engine->end(snap);
        CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
        CHECK(c, !contract_counts(c) || stat.data_records == blocks, "%llu records",
              (unsigned long long)stat.data_records);
    }
    contract_close(c);
}

const struct contract_case contract_cases_values[] = {
    {"keys__shortest_and_longest__kept_in_order", keys__shortest_and_longest__kept_in_order, 0},
    {"values__all_sizes__come_back", values__all_sizes__come_back, 0},
    {"values__expected_in_pieces__compared_whole", values__expected_in_pieces__compared_whole, 0},
    {"values__beyond_the_limit__e2big_and_nothing_changed",
     values__beyond_the_limit__e2big_and_nothing_changed, 0},
    {"batch__beyond_the_limits__e2big_and_nothing_changed",
     batch__beyond_the_limits__e2big_and_nothing_changed, 0},
    {"batch__as_large_as_a_request_can_be__applied_whole",
     batch__as_large_as_a_request_can_be__applied_whole, 0},
    {NULL, NULL, 0},
};
