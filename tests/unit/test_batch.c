/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvfs_batch_*: what was added comes out, copied or borrowed as promised.
 */
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include <kvfs/batch.h>

/* Sanitizers else end the process where malloc() would answer NULL. */
const char *__asan_default_options(void);
const char *__tsan_default_options(void);

const char *
__asan_default_options(void)
{
    return "allocator_may_return_null=1";
}

const char *
__tsan_default_options(void)
{
    return "allocator_may_return_null=1";
}

static int
setup(void **state)
{
    *state = kvfs_batch_new();
    return *state == NULL;
}

static int
teardown(void **state)
{
    kvfs_batch_free(*state);
    return 0;
}

static void
assert_piece(const struct iovec *piece, const char *want)
{
    assert_int_equal(piece->iov_len, strlen(want));
    assert_memory_equal(piece->iov_base, want, strlen(want));
}

static void
batch_end__one_of_each__all_fields_set(void **state)
{
    struct kvfs_batch_builder *b = *state;
    char key[] = "key", value[] = "value", head[] = "head", tail[] = "tail";
    struct kvfs_batch batch;

    kvfs_batch_put(b, KVFS_META, key, 3, value, 5);
    kvfs_batch_put_borrowed(b, KVFS_DATA, key, 3, head, 4, tail, 4);
    kvfs_batch_del(b, KVFS_DATA, key, 2);
    kvfs_batch_del_range(b, KVFS_META, key, 1, "z", 1);
    kvfs_batch_del_range(b, KVFS_META, key, 1, NULL, 0);
    kvfs_batch_expect(b, KVFS_META, key, 3, value, 0);
    kvfs_batch_expect_absent(b, KVFS_META, key, 3);
    memset(key, 'X', sizeof(key)); /* all but HEAD must have been copied */
    memset(value, 'X', sizeof(value));
    memset(tail, 'X', sizeof(tail));

    assert_int_equal(kvfs_batch_ops(b), 7);
    assert_int_equal(kvfs_batch_bytes(b), (3 + 5) + (3 + 8) + 2 + 2 + 1 + 3 + 3);
    assert_int_equal(kvfs_batch_end(b, &batch), 0);
    assert_int_equal(batch.ops_count, 7);

    assert_int_equal(batch.ops[0].type, KVFS_OP_PUT);
    assert_int_equal(batch.ops[0].keyspace, KVFS_META);
    assert_int_equal(batch.ops[0].key_len, 3);
    assert_memory_equal(batch.ops[0].key, "key", 3);
    assert_piece(&batch.ops[0].value[0], "value");
    assert_int_equal(batch.ops[0].value[1].iov_len, 0);

    assert_int_equal(batch.ops[1].type, KVFS_OP_PUT);
    assert_int_equal(batch.ops[1].keyspace, KVFS_DATA);
    assert_ptr_equal(batch.ops[1].value[0].iov_base, head);
    assert_piece(&batch.ops[1].value[0], "head");
    assert_piece(&batch.ops[1].value[1], "tail");

    assert_int_equal(batch.ops[2].type, KVFS_OP_DEL);
    assert_int_equal(batch.ops[2].key_len, 2);
    assert_int_equal(batch.ops[3].type, KVFS_OP_DEL_RANGE);
    assert_int_equal(batch.ops[3].key_end_len, 1);
    assert_memory_equal(batch.ops[3].key_end, "z", 1);
    assert_int_equal(batch.ops[4].key_end_len, 0);
    assert_int_equal(batch.ops[5].type, KVFS_OP_EXPECT);
    assert_int_equal(batch.ops[5].value[0].iov_len, 0);
    assert_int_equal(batch.ops[6].type, KVFS_OP_EXPECT_ABSENT);
}

static void
batch_end__nothing_added__empty_batch(void **state)
{
    struct kvfs_batch batch = {.ops_count = 99};

    assert_int_equal(kvfs_batch_end(*state, &batch), 0);
    assert_int_equal(batch.ops_count, 0);
}

/* Enough to need many chunks and a grown array; earlier copies stay put. */
static void
fill(struct kvfs_batch_builder *b, unsigned count, size_t value_len)
{
    char *value = malloc(value_len);

    assert_non_null(value);
    for (unsigned i = 0; i < count; i++) {
        memset(value, (int)(i & 0xff), value_len);
        kvfs_batch_put(b, KVFS_META, &i, sizeof(i), value, value_len);
    }
    free(value);
}

static void
assert_filled(struct kvfs_batch_builder *b, unsigned count, size_t value_len)
{
    struct kvfs_batch batch;

    assert_int_equal(kvfs_batch_end(b, &batch), 0);
    assert_int_equal(batch.ops_count, count);
    assert_int_equal(kvfs_batch_bytes(b), count * (sizeof(count) + value_len));
    for (unsigned i = 0; i < count; i++) {
        const unsigned char *v = batch.ops[i].value[0].iov_base;

        assert_memory_equal(batch.ops[i].key, &i, sizeof(i));
        assert_int_equal(batch.ops[i].value[0].iov_len, value_len);
        for (size_t at = 0; at < value_len; at += 997)
            assert_int_equal(v[at], i & 0xff);
        assert_int_equal(v[value_len - 1], i & 0xff);
    }
}

static void
batch_put__many_chunks__nothing_moves(void **state)
{
    fill(*state, 5000, 100);
    assert_filled(*state, 5000, 100);
}

static void
batch_reset__sizes_change__refilled_right(void **state)
{
    static const size_t sizes[] = {100, 200000, 1, 65536, 65537, 3000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        fill(*state, 40, sizes[i]);
        assert_filled(*state, 40, sizes[i]);
        kvfs_batch_reset(*state);
        assert_int_equal(kvfs_batch_ops(*state), 0);
        assert_int_equal(kvfs_batch_bytes(*state), 0);
    }
}

static void
batch_end__key_longer_than_an_op_can_say__einval_until_reset(void **state)
{
    static char key[UINT16_MAX + 1];
    struct kvfs_batch batch;

    kvfs_batch_del(*state, KVFS_META, key, sizeof(key));
    kvfs_batch_del(*state, KVFS_META, key, 1);
    assert_int_equal(kvfs_batch_end(*state, &batch), -EINVAL);
    kvfs_batch_reset(*state);
    kvfs_batch_del_range(*state, KVFS_META, key, 1, key, sizeof(key));
    assert_int_equal(kvfs_batch_end(*state, &batch), -EINVAL);
    kvfs_batch_reset(*state);
    kvfs_batch_del(*state, KVFS_META, key, 1);
    assert_int_equal(kvfs_batch_end(*state, &batch), 0);
    assert_int_equal(batch.ops_count, 1);
}

static void
batch_end__no_memory_for_a_value__enomem(void **state)
{
    struct kvfs_batch batch;

    /* More than any machine has; nothing of it is read before the allocation. */
    kvfs_batch_put(*state, KVFS_META, "k", 1, "v", (size_t)1 << 62);
    assert_int_equal(kvfs_batch_end(*state, &batch), -ENOMEM);
    kvfs_batch_reset(*state);
    assert_int_equal(kvfs_batch_end(*state, &batch), 0);
}

static void
batch_free__null__allowed(void **state)
{
    (void)state;
    kvfs_batch_free(NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(batch_end__one_of_each__all_fields_set, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_end__nothing_added__empty_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_put__many_chunks__nothing_moves, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_reset__sizes_change__refilled_right, setup, teardown),
        cmocka_unit_test_setup_teardown(
            batch_end__key_longer_than_an_op_can_say__einval_until_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(batch_end__no_memory_for_a_value__enomem, setup, teardown),
        cmocka_unit_test(batch_free__null__allowed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
