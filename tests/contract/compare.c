/* SPDX-License-Identifier: BSD-3-Clause
 *
 * compare.c - comparing what an engine shows with what the model holds.
 *
 * Buffers given to the engine are cut into odd pieces and lie in a field of
 * canary bytes: a byte written past what the value reaches is found.
 */
#include <stdio.h>
#include <stdlib.h>

#include "contract.h"

#define CANARY 0xa5
#define PIECES 3

/* A random view of a value: from OFFSET on, into PIECES buffers. */
struct view {
    size_t offset, cap;
    uint8_t *field; /* CAP bytes, then a few more that nobody may touch */
    struct iovec iov[PIECES];
};

static void
view_make(struct contract *c, struct view *v, size_t value_len)
{
    size_t left;

    v->offset = contract_below(c, 3) == 0 ? contract_below(c, value_len + 3) : 0;
    v->cap = contract_below(c, 3) == 0 ? contract_below(c, value_len + 3) : value_len + 3;
    v->field = malloc(v->cap + 16);
    CHECK(c, v->field != NULL, "no memory");
    memset(v->field, CANARY, v->cap + 16);
    left = v->cap;
    for (int i = 0; i < PIECES; i++) {
        size_t n = i == PIECES - 1 ? left : contract_below(c, left + 1);

        v->iov[i] = (struct iovec){.iov_base = v->field + (v->cap - left), .iov_len = n};
        left -= n;
    }
}

static void
view_check(struct contract *c, struct view *v, const struct model_value *want, const char *what)
{
    size_t n = want->len > v->offset ? want->len - v->offset : 0;

    if (n > v->cap)
        n = v->cap;
    for (size_t i = 0; i < n; i++)
        CHECK(c, v->field[i] == want->bytes[v->offset + i],
              "%s from offset %zu: byte %zu of %zu is 0x%02x, not 0x%02x", what, v->offset,
              v->offset + i, want->len, v->field[i], want->bytes[v->offset + i]);
    for (size_t i = n; i < v->cap + 16; i++)
        CHECK(c, v->field[i] == CANARY, "%s from offset %zu wrote past the value's %zu bytes", what,
              v->offset, want->len);
    free(v->field);
}

void
contract_check_key(struct contract *c, struct kvfs_db_snap *snap, const struct model *model, int ks,
                   const void *key, size_t key_len)
{
    const struct model_entry *e = model_find(model, ks, key, key_len);
    struct kvfs_error err = {.code = 0};
    size_t value_len = SIZE_MAX;
    struct view v;
    bool want_len = contract_below(c, 4) != 0;
    int r;

    view_make(c, &v, e != NULL ? e->value->len : 8);
    r = c->engine->get(snap, (enum kvfs_keyspace)ks, key, key_len, v.offset, v.iov, PIECES,
                       want_len ? &value_len : NULL, &err);
    if (e == NULL) {
        static const struct model_value none = {.len = 0};

        CHECK_CODE(c, r, -ENOENT, &err, "get of an absent key");
        CHECK(c, value_len == SIZE_MAX, "get of an absent key set the length");
        view_check(c, &v, &none, "get of an absent key");
        return;
    }
    CHECK_CODE(c, r, 0, &err, "get of a present key");
    CHECK(c, !want_len || value_len == e->value->len, "get told %zu bytes, not %zu", value_len,
          e->value->len);
    view_check(c, &v, e->value, "get");
}

struct scan { /* where the walk over the model is */
    const struct model *model;
    int ks;
    size_t from, to; /* entries that are yet to come */
    unsigned flags;
};

/* One step of the scan; false at the end. */
static bool
scan_step(struct contract *c, struct scan *s, struct kvfs_db_cursor *cursor)
{
    bool reverse = (s->flags & KVFS_SCAN_REVERSE) != 0;
    size_t key_len = 0, value_len = 0, at;
    const struct model_entry *e;
    struct kvfs_error err = {.code = 0};
    const void *key = NULL;
    struct view v;
    int r = c->engine->cursor_next(cursor, &key, &key_len, &value_len, &err);

    if (s->from >= s->to) {
        CHECK(c, r != 1, "scan (flags %u) goes on past its end", s->flags);
        CHECK_CODE(c, r, 0, &err, "cursor_next at the end");
        return false;
    }
    CHECK_CODE(c, r, 1, &err, "cursor_next");
    at = reverse ? --s->to : s->from++;
    e = &s->model->entries[s->ks][at];
    CHECK(c, key_len == e->key_len && memcmp(key, e->key, key_len) == 0,
          "scan (flags %u) of keyspace %d: record %zu of the model was to come, "
          "not a key of %zu bytes",
          s->flags, s->ks, at, key_len);
    if ((s->flags & KVFS_SCAN_KEYS_ONLY) != 0)
        return true;
    CHECK(c, value_len == e->value->len, "scan: a value of %zu bytes, not %zu", value_len,
          e->value->len);
    if (contract_below(c, 4) == 0)
        return true; /* a value need not be read */
    view_make(c, &v, value_len);
    r = c->engine->cursor_value(cursor, v.offset, v.iov, PIECES, &err);
    CHECK_CODE(c, r, 0, &err, "cursor_value");
    view_check(c, &v, e->value, "cursor_value");
    return true;
}

void
contract_check_scan(struct contract *c, struct kvfs_db_snap *snap, const struct model *model,
                    int ks, const struct contract_range *range, unsigned flags)
{
    struct scan s = {.model = model, .ks = ks, .flags = flags};
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_cursor *cursor = NULL;
    uint8_t lo[KVFS_META_KEY_MAX], hi[KVFS_META_KEY_MAX];

    s.from = model_lower(model, ks, range->lo, range->lo_len);
    s.to = range->hi_len == 0 ? model->count[ks] : model_lower(model, ks, range->hi, range->hi_len);
    if (range->lo_len > 0)
        memcpy(lo, range->lo, range->lo_len);
    if (range->hi_len > 0)
        memcpy(hi, range->hi, range->hi_len);
    CHECK_CODE(c,
               c->engine->cursor_open(snap, (enum kvfs_keyspace)ks, lo, range->lo_len, hi,
                                      range->hi_len, flags, &cursor, &err),
               0, &err, "cursor_open");
    memset(lo, CANARY, sizeof(lo)); /* the bounds were to be copied */
    memset(hi, CANARY, sizeof(hi));
    while (scan_step(c, &s, cursor)) {
        /* each step checks itself */
    }
    (void)scan_step(c, &s, cursor); /* the end stays the end */
    c->engine->cursor_close(cursor);
}

void
contract_check_all(struct contract *c, struct kvfs_db_snap *snap, const struct model *model)
{
    static const struct contract_range all = {.lo = NULL, .hi = NULL};

    for (int ks = 0; ks < 2; ks++) {
        for (size_t i = 0; i < model->count[ks]; i++) {
            const struct model_entry *e = &model->entries[ks][i];

            contract_check_key(c, snap, model, ks, e->key, e->key_len);
        }
        contract_check_scan(c, snap, model, ks, &all, 0);
        contract_check_scan(c, snap, model, ks, &all, KVFS_SCAN_REVERSE);
    }
}

void
contract_check_now(struct contract *c, const struct model *model)
{
    struct kvfs_engine_stat stat;
    struct kvfs_error err = {.code = 0};
    struct kvfs_db_snap *snap = contract_begin(c);

    contract_check_all(c, snap, model);
    c->engine->end(snap);
    CHECK_CODE(c, c->engine->stat(c->db, &stat, &err), 0, &err, "stat");
    CHECK(c,
          !contract_counts(c) || (stat.meta_records == model->count[KVFS_META] &&
                                  stat.data_records == model->count[KVFS_DATA]),
          "stat tells %llu META and %llu DATA records, there are %zu and %zu",
          (unsigned long long)stat.meta_records, (unsigned long long)stat.data_records,
          model->count[KVFS_META], model->count[KVFS_DATA]);
}

static void
verify_finding(void *arg, const char *where, const char *what)
{
    const struct contract *c = arg;

    contract_fail(c, __FILE__, __LINE__, "verify finds damage at %s: %s", where, what);
}

void
contract_check_verify(struct contract *c)
{
    struct kvfs_error err = {.code = 0};

    CHECK(c, c->engine->verify != NULL, "the engine has no verify");
    CHECK_CODE(c, c->engine->verify(c->db, verify_finding, c, NULL, NULL, &err), 0, &err, "verify");
}
