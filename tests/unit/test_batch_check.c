/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_batch_check.c - what every engine refuses of a batch (engines/batch.h).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../engines/batch.h"

static const struct kvfs_engine_limits limits = {
    .value_max_bytes = 100,
    .batch_max_bytes = 300,
    .batch_max_ops = 4,
};

static int
check(const struct kvfs_op *ops, size_t count, struct kvfs_error *err)
{
    const struct kvfs_batch batch = {ops, count};

    return kvfs_batch_check(&batch, &limits, "here", err);
}

static void
op__lengths_at_the_edge__sound_or_einval(void **state)
{
    const uint16_t meta = KVFS_META_KEY_MAX, data = KVFS_DATA_KEY_LEN;
    const struct {
        unsigned type, keyspace;
        uint16_t key_len, key_end_len;
        int want;
    } cases[] = {
        {KVFS_OP_PUT, KVFS_META, 0, 0, -EINVAL},
        {KVFS_OP_PUT, KVFS_META, 1, 0, 0},
        {KVFS_OP_DEL, KVFS_META, meta, 0, 0},
        {KVFS_OP_EXPECT_ABSENT, KVFS_META, (uint16_t)(meta + 1), 0, -EINVAL},
        {KVFS_OP_PUT, KVFS_DATA, (uint16_t)(data - 1), 0, -EINVAL},
        {KVFS_OP_EXPECT, KVFS_DATA, data, 0, 0},
        {KVFS_OP_DEL, KVFS_DATA, (uint16_t)(data + 1), 0, -EINVAL},
        {KVFS_OP_DEL_RANGE, KVFS_META, 0, 0, 0},
        {KVFS_OP_DEL_RANGE, KVFS_META, 0, (uint16_t)(meta + 1), -EINVAL},
        {KVFS_OP_DEL_RANGE, KVFS_DATA, 3, data, 0},
        {KVFS_OP_DEL_RANGE, KVFS_DATA, (uint16_t)(data + 1), 0, -EINVAL},
        {KVFS_OP_DEL_RANGE, KVFS_DATA, 0, (uint16_t)(data + 1), -EINVAL},
        {KVFS_OP_EXPECT_ABSENT + 1, KVFS_META, 1, 0, -EINVAL},
        {KVFS_OP_PUT, KVFS_DATA + 1, data, 0, -EINVAL},
    };
    struct kvfs_engine_limits wide = limits;

    (void)state;
    wide.batch_max_bytes = UINT64_MAX;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kvfs_op op = {.key_len = cases[i].key_len, .key_end_len = cases[i].key_end_len};
        const struct kvfs_batch batch = {&op, 1};

        op.type = (uint8_t)cases[i].type;
        op.keyspace = (uint8_t)cases[i].keyspace;
        if (kvfs_batch_check(&batch, &wide, "here", NULL) != cases[i].want)
            fail_msg("case %zu", i);
    }
}

static void
value__over_the_limit_in_two_pieces__e2big(void **state)
{
    struct kvfs_op op = {.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key_len = 1};
    struct kvfs_error err = {.msg = ""};

    (void)state;
    op.value[0].iov_len = 60;
    op.value[1].iov_len = 40;
    assert_int_equal(check(&op, 1, &err), 0);
    op.value[1].iov_len = 41;
    assert_int_equal(check(&op, 1, &err), -E2BIG);
    assert_non_null(strstr(err.msg, "here: operation 0 has a value of over 100 bytes"));
    op.value[1].iov_len = SIZE_MAX - 20; /* their sum is small again */
    assert_int_equal(check(&op, 1, NULL), -E2BIG);
}

static void
batch__over_its_limits__e2big(void **state)
{
    struct kvfs_op ops[5];
    struct kvfs_error err = {.msg = ""};

    (void)state;
    memset(ops, 0, sizeof(ops));
    for (size_t i = 0; i < 5; i++) {
        ops[i].type = KVFS_OP_PUT;
        ops[i].keyspace = KVFS_META;
        ops[i].key_len = 10;
    }
    assert_int_equal(check(ops, 4, NULL), 0);
    assert_int_equal(check(ops, 5, &err), -E2BIG);
    assert_non_null(strstr(err.msg, "here: a batch of 5 operations; at most 4"));
    for (size_t i = 0; i < 3; i++)
        ops[i].value[0].iov_len = 90;
    assert_int_equal(check(ops, 3, NULL), 0); /* 300 bytes */
    ops[2].key_len = 11;
    assert_int_equal(check(ops, 3, &err), -E2BIG);
    assert_non_null(strstr(err.msg, "here: a batch of 301 bytes; at most 300"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(op__lengths_at_the_edge__sound_or_einval),
        cmocka_unit_test(value__over_the_limit_in_two_pieces__e2big),
        cmocka_unit_test(batch__over_its_limits__e2big),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
