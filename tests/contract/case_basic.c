/* SPDX-License-Identifier: BSD-3-Clause
 *
 * case_basic.c - what a batch means: order, expectations, ranges, refusals.
 */
#include <stdlib.h>

#include "contract.h"

/* A store with a few records of both keyspaces, and its model. */
static struct model *
basic_filled(struct contract *c)
{
    static const char *const keys[] = {"a", "a\x01", "ab", "abc", "b", "bb", "c", "\xff"};
    struct model *model = model_new();
    uint8_t key[KVFS_DATA_KEY_LEN];

    contract_open(c);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        kvfs_batch_put(c->builder, KVFS_META, keys[i], strlen(keys[i]), keys[i], strlen(keys[i]));
    for (uint64_t i = 0; i < 8; i++) {
        contract_data_key(key, i / 4, i % 4);
        kvfs_batch_put(c->builder, KVFS_DATA, key, sizeof(key), key, sizeof(key));
    }
    contract_commit_model(c, model, KVFS_ORDERED);
    return model;
}

static void
basic_done(struct contract *c, struct model *model)
{
    contract_check_now(c, model);
    contract_check_verify(c);
    contract_close(c);
    model_free(model);
}

static void
open__no_store_without_create__enoent(struct contract *c)
{
    struct kvfs_engine_options options = {.create = false, .params = c->params};
    struct kvfs_error err = {.code = 0};
    struct kvfs_db *db = NULL;

    CHECK_CODE(c, c->engine->open(c->engine, c->store, &options, &db, &err), -ENOENT, &err, "open");
    CHECK(c, db == NULL, "a failed open set the handle");
    options.readonly = true;
    CHECK_CODE(c, c->engine->open(c->engine, c->store, &options, &db, &err), -ENOENT, &err,
               "open readonly");
    contract_open(c);
    contract_close(c);
}

static void
open__unknown_parameter__einval(struct contract *c)
{
    struct kvfs_engine_options options = {.create = true, .params = "no-such-parameter=1"};
    struct kvfs_error err = {.code = 0};
    struct kvfs_db *db = NULL;

    CHECK_CODE(c, c->engine->open(c->engine, c->store, &options, &db, &err), -EINVAL, &err, "open");
    CHECK(c, db == NULL, "a failed open set the handle");
}

static void
engine__facts__are_told(struct contract *c)
{
    const struct kvfs_engine *e = c->engine;

    CHECK(c, e->abi == KVFS_ENGINE_ABI, "interface version %u", e->abi);
    CHECK(c, e->name != NULL && e->name[0] != '\0', "no name");
    for (const char *p = e->name; *p != '\0'; p++)
        CHECK(c,
              (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9') ||
                  (p > e->name && (*p == ':' || *p == '+')), /* a wrapper's, and what it is on */
              "name '%s'", e->name);
    CHECK(c, e->description != NULL && strchr(e->description, '\n') == NULL, "description");
    CHECK(c, e->version(e) != NULL && e->version(e)[0] != '\0', "no version");
    CHECK(c, (e->compact == NULL) == (e->compact_need_bytes == NULL),
          "compact and compact_need_bytes come together");
    CHECK(c,
          (e->caps & KVFS_CAP_PERSISTENT) != 0 ||
              (e->caps & (KVFS_CAP_ORDERED | KVFS_CAP_DURABLE)) == 0,
          "nothing can be durable in a store that is not persistent");
    contract_open(c);
    /* The longest META record of the volume format, and the largest block's. */
    CHECK(c, c->limits.value_max_bytes >= 66320, "value_max_bytes %u", c->limits.value_max_bytes);
    CHECK(c, c->limits.value_best_bytes >= 512 && c->limits.value_best_bytes <= 65536,
          "value_best_bytes %u", c->limits.value_best_bytes);
    /* The largest request is to be one batch, with some records beside it. */
    CHECK(c, c->limits.batch_max_bytes >= ((uint64_t)40 << 20), "batch_max_bytes %llu",
          (unsigned long long)c->limits.batch_max_bytes);
    CHECK(c, c->limits.batch_max_ops >= 70000, "batch_max_ops %llu",
          (unsigned long long)c->limits.batch_max_ops);
    CHECK(c, c->limits.snapshots_max >= 32, "snapshots_max %u", c->limits.snapshots_max);
    contract_close(c);
}

static void
apply__empty_batch__nothing_happens(struct contract *c)
{
    struct model *model = basic_filled(c);

    contract_commit_model(c, model, KVFS_NONE);
    contract_commit_model(c, model, KVFS_DURABLE);
    basic_done(c, model);
}

static void
apply__same_key_many_times__last_one_counts(struct contract *c)
{
    struct model *model = basic_filled(c);
    struct kvfs_batch_builder *b = c->builder;

    kvfs_batch_put(b, KVFS_META, "new", 3, "1", 1);
    kvfs_batch_put(b, KVFS_META, "new", 3, "two", 3);
    kvfs_batch_del(b, KVFS_META, "a", 1);
    kvfs_batch_put(b, KVFS_META, "a", 1, "back", 4);
    kvfs_batch_put(b, KVFS_META, "gone", 4, "x", 1);
    kvfs_batch_del(b, KVFS_META, "gone", 4);
    kvfs_batch_del(b, KVFS_META, "never there", 11);
    kvfs_batch_put(b, KVFS_META, "b5", 2, "x", 1); /* inside the range */
    kvfs_batch_del_range(b, KVFS_META, "b", 1, "c", 1);
    kvfs_batch_put(b, KVFS_META, "b7", 2, "y", 1); /* behind the range's delete */
    contract_commit_model(c, model, KVFS_ORDERED);
    CHECK(c, model_find(model, KVFS_META, "b7", 2) != NULL, "the model is wrong");
    basic_done(c, model);
}

/* Two keyspaces know nothing of each other, even for equal keys. */
static void
apply__same_key_in_both_keyspaces__kept_apart(struct contract *c)
{
    struct model *model = basic_filled(c);
    const char *key = "0123456789abcdef";

    kvfs_batch_put(c->builder, KVFS_META, key, 16, "meta", 4);
    kvfs_batch_put(c->builder, KVFS_DATA, key, 16, "data!", 5);
    contract_commit_model(c, model, KVFS_ORDERED);
    kvfs_batch_del(c->builder, KVFS_DATA, key, 16);
    contract_commit_model(c, model, KVFS_ORDERED);
    kvfs_batch_put(c->builder, KVFS_DATA, key, 16, "data", 4);
    kvfs_batch_del_range(c->builder, KVFS_META, NULL, 0, NULL, 0);
    contract_commit_model(c, model, KVFS_ORDERED);
    CHECK(c, model->count[KVFS_META] == 0 && model->count[KVFS_DATA] == 9, "the model is wrong");
    basic_done(c, model);
}

static void
del_range__all_kinds_of_bounds__exactly_the_range(struct contract *c)
{
    static const struct {
        const char *lo, *hi;
    } ranges[] = {
        {"b", "b"},    {"c", "a"},     {"ab", "abc"},    {"a\x02", "a\x03"}, {"bb", "c"},
        {"", "a"},     {"", "a\x01"},  {"d", "\xff"},    {"\xff", ""},       {"c", ""},
        {"aa", "abb"}, {"b\x01", "c"}, {"\xff\xff", ""}, {"", ""},
    };
    struct model *model = basic_filled(c);

    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        c->step = i;
        kvfs_batch_del_range(c->builder, KVFS_META, ranges[i].lo, strlen(ranges[i].lo),
                             ranges[i].hi, strlen(ranges[i].hi));
        contract_commit_model(c, model, KVFS_ORDERED);
        contract_check_now(c, model);
    }
    CHECK(c, model->count[KVFS_META] == 0, "the model is wrong");
    basic_done(c, model);
}

/* Bounds in DATA need not be whole keys: a fork's eight bytes are a bound. */
static void
del_range__prefix_bounds_in_data__exactly_the_range(struct contract *c)
{
    struct model *model = basic_filled(c);
    uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];

    contract_data_key(lo, 0, 1);
    contract_data_key(hi, 0, 3);
    kvfs_batch_del_range(c->builder, KVFS_DATA, lo, 16, hi, 16);
    contract_commit_model(c, model, KVFS_ORDERED);
    contract_check_now(c, model);
    CHECK(c, model->count[KVFS_DATA] == 6, "the model is wrong");
    contract_data_key(hi, 1, 0);
    kvfs_batch_del_range(c->builder, KVFS_DATA, NULL, 0, hi, 8); /* fork 0 */
    contract_commit_model(c, model, KVFS_ORDERED);
    contract_check_now(c, model);
    CHECK(c, model->count[KVFS_DATA] == 4, "the model is wrong");
    kvfs_batch_del_range(c->builder, KVFS_DATA, hi, 8, NULL, 0);
    contract_commit_model(c, model, KVFS_ORDERED);
    CHECK(c, model->count[KVFS_DATA] == 0, "the model is wrong");
    basic_done(c, model);
}

/* Keys and bounds that begin with 0 get longer in a wrapper: a bound may then be longer than any
 * key.  Reopened, since an engine may keep in memory what it was given last. */
static void
ranges__longest_bounds_of_zeros__exactly_the_range(struct contract *c)
{
    uint8_t bounds[4][KVFS_META_KEY_MAX] = {{0}};
    struct contract_range range = {.hi = "\x01", .hi_len = 1};
    struct model *model = basic_filled(c);
    struct kvfs_db_snap *snap;

    memset(bounds[1] + 1, 0xff, sizeof(bounds[1]) - 1);
    bounds[2][1] = 7;
    memset(bounds[3] + 2, 0xff, sizeof(bounds[3]) - 2);
    for (unsigned i = 0; i < 4 * 3; i++) /* and keys beside them */
        kvfs_batch_put(c->builder, KVFS_META, bounds[i / 3], KVFS_META_KEY_MAX - 2 - i % 3, &i, 1);
    contract_commit_model(c, model, KVFS_DURABLE);
    contract_reopen(c);
    snap = contract_begin(c);
    for (unsigned i = 0; i < 4 * 4 * 4; i++) {
        range = (struct contract_range){bounds[i / 16], bounds[i / 4 % 4], KVFS_META_KEY_MAX,
                                        KVFS_META_KEY_MAX};
        c->step = i;
        contract_check_scan(c, snap, model, KVFS_META, &range, i % 4);
        range.hi_len = 0;
        contract_check_scan(c, snap, model, KVFS_META, &range, i % 4);
        range.hi_len = KVFS_META_KEY_MAX;
        range.lo_len = 0;
        contract_check_scan(c, snap, model, KVFS_META, &range, i % 4);
    }
    c->engine->end(snap);
    for (unsigned i = 0; i < 5; i++) { /* up to each of them in their order, and all behind */
        static const unsigned order[] = {0, 3, 2, 1, 0};

        c->step = i;
        kvfs_batch_del_range(c->builder, KVFS_META, i < 4 ? NULL : bounds[0],
                             i < 4 ? 0 : KVFS_META_KEY_MAX, bounds[order[i]],
                             i < 4 ? KVFS_META_KEY_MAX : 0);
        contract_commit_model(c, model, KVFS_DURABLE);
        contract_reopen(c);
        contract_check_now(c, model);
    }
    basic_done(c, model);
}

static void
expect__true_in_the_state_before__applied(struct contract *c)
{
    struct model *model = basic_filled(c);
    struct kvfs_batch_builder *b = c->builder;

    kvfs_batch_put(b, KVFS_META, "new", 3, "", 0);
    kvfs_batch_expect_absent(b, KVFS_META, "new", 3); /* put above, absent before */
    kvfs_batch_del(b, KVFS_META, "ab", 2);
    kvfs_batch_expect(b, KVFS_META, "ab", 2, "ab", 2); /* deleted above, there before */
    kvfs_batch_expect(b, KVFS_META, "a", 1, "a", 1);
    kvfs_batch_put(b, KVFS_META, "a", 1, "changed", 7);
    contract_commit_model(c, model, KVFS_ORDERED);
    contract_check_now(c, model);
    b = c->builder;                                   /* the builders take turns */
    kvfs_batch_expect(b, KVFS_META, "new", 3, "", 0); /* empty is not absent */
    kvfs_batch_expect_absent(b, KVFS_META, "ab", 2);
    kvfs_batch_expect(b, KVFS_META, "a", 1, "changed", 7);
    contract_commit_model(c, model, KVFS_ORDERED); /* nothing but expectations */
    basic_done(c, model);
}

/* Each of these fails, whatever else is in the batch. */
static void
expect__false__eagain_and_nothing_changed(struct contract *c)
{
    static const struct {
        enum kvfs_op_type type;
        const char *key, *value;
    } wrong[] = {
        {KVFS_OP_EXPECT_ABSENT, "a", NULL}, {KVFS_OP_EXPECT, "ab", "a"},
        {KVFS_OP_EXPECT, "ab", "abc"},      {KVFS_OP_EXPECT, "ab", "aB"},
        {KVFS_OP_EXPECT, "ab", ""},         {KVFS_OP_EXPECT, "missing", ""},
        {KVFS_OP_EXPECT, "missing", "x"},   {KVFS_OP_EXPECT, "put here", "x"},
    };
    struct model *model = basic_filled(c);

    for (size_t i = 0; i < 3 * sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *key = wrong[i / 3].key, *value = wrong[i / 3].value;
        struct kvfs_batch_builder *b = c->builder;

        c->step = i; /* the wrong one comes first, in the middle, last */
        for (size_t place = 0; place < 3; place++) {
            if (place == i % 3 && value == NULL)
                kvfs_batch_expect_absent(b, KVFS_META, key, strlen(key));
            else if (place == i % 3)
                kvfs_batch_expect(b, KVFS_META, key, strlen(key), value, strlen(value));
            if (place == 0)
                kvfs_batch_put(b, KVFS_META, "put here", 8, "x", 1);
            if (place == 1)
                kvfs_batch_del_range(b, KVFS_META, "b", 1, NULL, 0);
            kvfs_batch_expect(b, KVFS_META, "c", 1, "c", 1);
        }
        contract_refused(c, -EAGAIN);
        contract_check_now(c, model);
    }
    basic_done(c, model);
}

static void
basic_bad_op(struct kvfs_op *op, enum kvfs_op_type type, int ks, const void *key, size_t key_len)
{
    *op = (struct kvfs_op){
        .type = (uint8_t)type, .keyspace = (uint8_t)ks, .key = key, .key_len = (uint16_t)key_len};
}

static void
basic_refuse(struct contract *c, const struct model *model, const struct kvfs_op *bad)
{
    struct kvfs_op ops[3];
    struct kvfs_batch batch = {.ops = ops, .ops_count = 3};
    struct kvfs_error err = {.code = 0};

    basic_bad_op(&ops[0], KVFS_OP_PUT, KVFS_META, "z", 1);
    ops[1] = *bad;
    basic_bad_op(&ops[2], KVFS_OP_DEL, KVFS_META, "a", 1);
    c->last = batch;
    CHECK_CODE(c, c->engine->apply(c->db, &batch, KVFS_ORDERED, &err), -EINVAL, &err, "apply");
    contract_check_now(c, model);
    CHECK_CODE(c, c->engine->apply(c->db, &batch, KVFS_ORDERED, NULL), -EINVAL, NULL, "apply");
    c->last.ops_count = 0;
}

static void
apply__impossible_operation__einval_and_nothing_changed(struct contract *c)
{
    static const uint8_t key[KVFS_META_KEY_MAX + 1] = {1, 2, 3};
    static const enum kvfs_op_type types[] = {KVFS_OP_PUT, KVFS_OP_DEL, KVFS_OP_EXPECT,
                                              KVFS_OP_EXPECT_ABSENT};
    struct model *model = basic_filled(c);
    struct kvfs_op bad;

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        c->step = i;
        basic_bad_op(&bad, types[i], KVFS_META, key, 0);
        basic_refuse(c, model, &bad);
        basic_bad_op(&bad, types[i], KVFS_META, key, KVFS_META_KEY_MAX + 1);
        basic_refuse(c, model, &bad);
        basic_bad_op(&bad, types[i], KVFS_DATA, key, KVFS_DATA_KEY_LEN - 1);
        basic_refuse(c, model, &bad);
        basic_bad_op(&bad, types[i], KVFS_DATA, key, KVFS_DATA_KEY_LEN + 1);
        basic_refuse(c, model, &bad);
        basic_bad_op(&bad, types[i], KVFS_DATA, key, 0);
        basic_refuse(c, model, &bad);
        basic_bad_op(&bad, types[i], 2, key, KVFS_DATA_KEY_LEN);
        basic_refuse(c, model, &bad);
    }
    basic_bad_op(&bad, KVFS_OP_DEL_RANGE, KVFS_META, key, KVFS_META_KEY_MAX + 1);
    basic_refuse(c, model, &bad);
    basic_bad_op(&bad, KVFS_OP_DEL_RANGE, KVFS_DATA, key, KVFS_DATA_KEY_LEN);
    bad.key_end = key;
    bad.key_end_len = KVFS_DATA_KEY_LEN + 1;
    basic_refuse(c, model, &bad);
    basic_bad_op(&bad, (enum kvfs_op_type)(KVFS_OP_EXPECT_ABSENT + 1), KVFS_META, key, 1);
    basic_refuse(c, model, &bad);
    basic_done(c, model);
}

static void
scan__all_kinds_of_bounds__exactly_the_range(struct contract *c)
{
    static const char *const bounds[] = {"",   "\x01", "a",    "a\x01",   "a\x01\x01",
                                         "ab", "abb",  "b",    "bb",      "bbbb",
                                         "c",  "d",    "\xff", "\xff\xff"};
    const size_t n = sizeof(bounds) / sizeof(bounds[0]);
    struct model *model = basic_filled(c);
    struct kvfs_db_snap *snap = contract_begin(c);

    for (size_t i = 0; i < n * n; i++) {
        struct contract_range range = {.lo = bounds[i / n],
                                       .lo_len = strlen(bounds[i / n]),
                                       .hi = bounds[i % n],
                                       .hi_len = strlen(bounds[i % n])};

        c->step = i;
        for (unsigned flags = 0; flags < 4; flags++)
            contract_check_scan(c, snap, model, KVFS_META, &range, flags);
    }
    for (unsigned i = 0; i < 4 * 25; i++) { /* prefixes of a DATA key */
        uint8_t lo[KVFS_DATA_KEY_LEN], hi[KVFS_DATA_KEY_LEN];
        struct contract_range range = {
            .lo = lo, .lo_len = contract_below(c, 17), .hi = hi, .hi_len = contract_below(c, 17)};

        c->step = i;
        contract_data_key(lo, contract_below(c, 3), contract_below(c, 5));
        contract_data_key(hi, contract_below(c, 3), contract_below(c, 5));
        contract_check_scan(c, snap, model, KVFS_DATA, &range, i % 4);
    }
    c->engine->end(snap);
    basic_done(c, model);
}

static void
scan__empty_store__ends_at_once(struct contract *c)
{
    struct model *model = model_new();

    contract_open(c);
    contract_check_now(c, model);
    basic_done(c, model);
}

/* A snapshot for each of many states; all stay what they were. */
static void
snapshot__many_held_at_once__each_keeps_its_state(struct contract *c)
{
    struct kvfs_db_snap *snaps[64];
    struct model *models[64], *model = basic_filled(c);
    size_t n = c->limits.snapshots_max < 64 ? c->limits.snapshots_max : 64;

    for (size_t i = 0; i < n; i++) {
        uint8_t key[2] = {'k', (uint8_t)i};

        snaps[i] = contract_begin(c);
        models[i] = model_clone(model);
        kvfs_batch_put(c->builder, KVFS_META, key, 2, "value", 5);
        kvfs_batch_put(c->builder, KVFS_META, "a", 1, key, 2);
        if (i % 8 == 7)
            kvfs_batch_del_range(c->builder, KVFS_META, "k", 1, key, 2);
        contract_commit_model(c, model, KVFS_NONE);
    }
    for (size_t i = 0; i < n; i++) {
        size_t at = (i * 37) % n; /* ended in another order than begun */

        if (snaps[at] == NULL)
            continue;
        c->step = at;
        contract_check_all(c, snaps[at], models[at]);
        c->engine->end(snaps[at]);
        snaps[at] = NULL;
    }
    for (size_t i = 0; i < n; i++) {
        if (snaps[i] != NULL)
            c->engine->end(snaps[i]);
        model_free(models[i]);
    }
    basic_done(c, model);
}

static void
cursor__several_over_one_snapshot__independent(struct contract *c)
{
    struct model *model = basic_filled(c);
    struct kvfs_db_snap *snap = contract_begin(c);
    struct kvfs_db_cursor *cursors[8] = {NULL};
    struct kvfs_error err = {.code = 0};
    size_t n = model->count[KVFS_META], key_len, value_len;
    const void *key;

    for (unsigned i = 0; i < 8; i++) { /* cursor i starts when i steps were made */
        CHECK_CODE(c,
                   c->engine->cursor_open(snap, KVFS_META, NULL, 0, NULL, 0,
                                          i % 2 == 0 ? 0 : KVFS_SCAN_REVERSE, &cursors[i], &err),
                   0, &err, "cursor_open");
        for (unsigned j = 0; j <= i; j++) {
            size_t at = j % 2 == 0 ? i - j : n - 1 - (i - j);
            const struct model_entry *e = &model->entries[KVFS_META][at];

            CHECK_CODE(c, c->engine->cursor_next(cursors[j], &key, &key_len, &value_len, &err), 1,
                       &err, "cursor_next");
            CHECK(c, model_compare(key, key_len, e->key, e->key_len) == 0,
                  "cursor %u is disturbed by the others", j);
        }
    }
    for (unsigned i = 0; i < 8; i++)
        c->engine->cursor_close(cursors[i]);
    c->engine->end(snap);
    basic_done(c, model);
}

const struct contract_case contract_cases_basic[] = {
    {"engine__facts__are_told", engine__facts__are_told, 0},
    {"open__no_store_without_create__enoent", open__no_store_without_create__enoent, 0},
    {"open__unknown_parameter__einval", open__unknown_parameter__einval, 0},
    {"apply__empty_batch__nothing_happens", apply__empty_batch__nothing_happens, 0},
    {"apply__same_key_many_times__last_one_counts", apply__same_key_many_times__last_one_counts, 0},
    {"apply__same_key_in_both_keyspaces__kept_apart", apply__same_key_in_both_keyspaces__kept_apart,
     0},
    {"apply__impossible_operation__einval_and_nothing_changed",
     apply__impossible_operation__einval_and_nothing_changed, 0},
    {"del_range__all_kinds_of_bounds__exactly_the_range",
     del_range__all_kinds_of_bounds__exactly_the_range, 0},
    {"del_range__prefix_bounds_in_data__exactly_the_range",
     del_range__prefix_bounds_in_data__exactly_the_range, 0},
    {"ranges__longest_bounds_of_zeros__exactly_the_range",
     ranges__longest_bounds_of_zeros__exactly_the_range, 0},
    {"expect__true_in_the_state_before__applied", expect__true_in_the_state_before__applied, 0},
    {"expect__false__eagain_and_nothing_changed", expect__false__eagain_and_nothing_changed, 0},
    {"scan__all_kinds_of_bounds__exactly_the_range", scan__all_kinds_of_bounds__exactly_the_range,
     0},
    {"scan__empty_store__ends_at_once", scan__empty_store__ends_at_once, 0},
    {"snapshot__many_held_at_once__each_keeps_its_state",
     snapshot__many_held_at_once__each_keeps_its_state, 0},
    {"cursor__several_over_one_snapshot__independent",
     cursor__several_over_one_snapshot__independent, 0},
    {NULL, NULL, 0},
};
