/* SPDX-License-Identifier: BSD-3-Clause
 *
 * set.c - records that always change together.
 *
 * Every batch writes its number under a set of keys, so a reader that finds two
 * numbers in one snapshot has seen half a batch.
 */
#include "contract.h"

#define SET_META CONTRACT_SET_META
#define SET_DATA (CONTRACT_SET_DATA - 1) /* and one that moves */
#define SET_LEN  4120                    /* of a DATA value: a block and its trailer */

static size_t
set_key(unsigned i, uint8_t key[KVFS_DATA_KEY_LEN])
{
    if (i >= SET_META) {
        contract_data_key(key, i, i);
        return KVFS_DATA_KEY_LEN;
    }
    key[0] = 's';
    key[1] = (uint8_t)i;
    return 2;
}

void
contract_set_put(struct contract *c, uint64_t n)
{
    uint8_t key[KVFS_DATA_KEY_LEN], value[SET_LEN];

    for (unsigned i = 0; i < SET_META + SET_DATA; i++) {
        bool meta = i < SET_META;
        size_t len = set_key(i, key);

        contract_number_fill(value, meta ? 40 : SET_LEN, n);
        kvfs_batch_put(c->builder, meta ? KVFS_META : KVFS_DATA, key, len, value,
                       meta ? 40 : SET_LEN);
    }
    /* One more record that moves: the number of the batch is its key. */
    contract_data_key(key, 1000, n - 1);
    kvfs_batch_del(c->builder, KVFS_DATA, key, 16);
    contract_data_key(key, 1000, n);
    kvfs_batch_put(c->builder, KVFS_DATA, key, 16, "moves", 5);
}

/* The one record that moves must be where N says. */
static void
set_check_moving(const struct contract *c, struct kvfs_db_snap *snap, uint64_t n)
{
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_cursor *cursor;
    uint8_t lo[8] = {0}, want[KVFS_DATA_KEY_LEN];
    const void *key;
    size_t key_len, value_len;

    lo[6] = 1000 >> 8;
    lo[7] = 1000 & 255;
    contract_data_key(want, 1000, n);
    CHECK_CODE(c,
               c->engine->cursor_open(snap, KVFS_DATA, lo, sizeof(lo), NULL, 0,
                                      KVFS_SCAN_KEYS_ONLY | (n % 2 == 0 ? KVFS_SCAN_REVERSE : 0),
                                      &cursor, &err),
               0, &err, "cursor_open");
    CHECK_CODE(c, c->engine->cursor_next(cursor, &key, &key_len, &value_len, &err), 1, &err,
               "cursor_next");
    CHECK(c, key_len == 16 && memcmp(key, want, 16) == 0,
          "a record deleted by batch %llu is seen with it", (unsigned long long)n);
    CHECK_CODE(c, c->engine->cursor_next(cursor, &key, &key_len, &value_len, &err), 0, &err,
               "cursor_next");
    c->engine->cursor_close(cursor);
}

uint64_t
contract_set_read(const struct contract *c, struct kvfs_db_snap *snap)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint64_t first = 0;

    for (unsigned i = 0; i < SET_META + SET_DATA; i++) {
        bool meta = i < SET_META;
        size_t len = set_key(i, key);
        uint64_t n = contract_number_read(c, snap, meta ? KVFS_META : KVFS_DATA, key, len,
                                          meta ? 40 : SET_LEN);

        if (i == 0)
            first = n;
        CHECK(c, n == first, "one snapshot shows batch %llu at the first key, %llu at key %u",
              (unsigned long long)first, (unsigned long long)n, i);
    }
    if (first != 0)
        set_check_moving(c, snap, first);
    return first;
}
