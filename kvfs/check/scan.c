/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scan.c - walking a keyspace for the checker, also past damage.
 *
 * An engine answers -EIO where its structure is broken.  The scan then begins
 * anew some way behind the last record it saw, at twice the distance each time
 * it fails again, so that one lost page costs its neighbours and not the rest of
 * the keyspace.  The number of such attempts is bounded for the whole check.
 */
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "check_priv.h"

#define SCAN_UNREADABLE_MAX 1000 /* attempts, over the whole check */
#define SCAN_STEPS_MAX      40   /* doublings inside one fork or kind */

/* A place in a keyspace: a key cut down to what numbers say. */
struct scan_place {
    uint8_t letter;  /* META */
    uint64_t first;  /* META: the number behind the letter; DATA: fork */
    uint64_t second; /* DATA: index */
};

static void
scan_place_of(enum kvfs_keyspace ks, const struct kvfs_key *key, struct scan_place *p)
{
    *p = (struct scan_place){0};
    if (ks == KVFS_DATA) {
        if (key->len >= 16) {
            p->first = kvfs_be64_get(key->bytes);
            p->second = kvfs_be64_get(key->bytes + 8);
        }
        return;
    }
    p->letter = key->len > 0 ? key->bytes[0] : 0;
    if (key->len >= 9)
        p->first = kvfs_be64_get(key->bytes + 1);
}

/* The smallest known fork above FORK; 0: none. */
static uint64_t
scan_fork_above(const struct check *c, uint64_t fork)
{
    uint64_t best = 0;

    for (size_t i = 0; i < c->forks.count; i++) {
        const struct check_fork *f = kvfs_check_table_at(&c->forks, i);

        if (f->fork > fork && (best == 0 || f->fork < best))
            best = f->fork;
    }
    return best;
}

/* Where to go on behind LAST after STEPS failures in a row; false: nowhere. */
static bool
scan_resume(const struct check *c, enum kvfs_keyspace ks, struct scan_place *p, unsigned steps,
            struct kvfs_key *lo)
{
    uint64_t far = UINT64_C(1) << (steps < SCAN_STEPS_MAX ? steps : SCAN_STEPS_MAX);

    if (ks == KVFS_DATA) {
        if (steps >= SCAN_STEPS_MAX || p->second > UINT64_MAX - far) {
            p->first = scan_fork_above(c, p->first);
            p->second = 0;
            if (p->first == 0)
                return false;
        } else {
            p->second += far;
        }
        kvfs_key_block(lo->bytes, p->first, p->second);
        lo->len = KVFS_DATA_KEY_LEN;
        return true;
    }
    if (p->letter != 'I' || steps >= SCAN_STEPS_MAX || p->first > UINT64_MAX - far) {
        if (p->letter >= 'Z')
            return false;
        p->letter++;
        p->first = 0;
        kvfs_key_letter(lo, (char)p->letter);
        return true;
    }
    p->first += far;
    kvfs_key_letter(lo, (char)p->letter);
    kvfs_be64_put(lo->bytes + 1, p->first);
    lo->len = 9;
    return true;
}

static bool
scan_before(const struct kvfs_key *a, const struct kvfs_key *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int d = memcmp(a->bytes, b->bytes, n);

    return d != 0 ? d < 0 : a->len < b->len;
}

/* One unbroken run of records from LO.  R holds the last key seen. */
static int
scan_run(struct check *c, enum kvfs_keyspace ks, const struct kvfs_key *lo,
         const struct kvfs_key *hi, check_record_fn *fn, struct check_record *r, bool *broken,
         struct kvfs_error *err)
{
    const void *key;
    size_t key_len;
    int rc = c->engine->cursor_open(c->snap, ks, lo->bytes, lo->len, hi->bytes, hi->len, 0,
                                    &r->cursor, err);

    *broken = rc == -EIO;
    if (rc != 0)
        return rc;
    while ((rc = c->engine->cursor_next(r->cursor, &key, &key_len, &r->value_len, err)) == 1) {
        if (key_len > sizeof(r->key.bytes)) {
            rc = kvfs_error_set(err, -EIO, "a key of %zu bytes", key_len);
            break;
        }
        memcpy(r->key.bytes, key, key_len);
        r->key.len = key_len;
        rc = fn(c, r, err);
        if (rc != 0)
            goto out; /* not the engine's word: no reason to step over anything */
    }
    *broken = rc == -EIO;
out:
    c->engine->cursor_close(r->cursor);
    return rc;
}

static void
scan_report(struct check *c, enum kvfs_keyspace ks, const struct kvfs_key *last, bool loud,
            const struct kvfs_error *err)
{
    const char *name = ks == KVFS_META ? "META" : "DATA";

    if (ks == KVFS_META)
        c->incomplete = true;
    if (!loud)
        return;
    if (last->len == 0)
        kvfs_check_found(c, name, NULL, "the first records cannot be read: %s", err->msg);
    else
        kvfs_check_found(c, kvfs_check_where_key(c, last), NULL,
                         "%s records behind this one cannot be read: %s", name, err->msg);
}

int
kvfs_check_scan(struct check *c, enum kvfs_keyspace ks, const struct kvfs_key *lo,
                const struct kvfs_key *hi, bool loud, check_record_fn *fn, struct kvfs_error *err)
{
    static const struct kvfs_key edge = {.len = 0};
    struct kvfs_key from = lo != NULL ? *lo : edge;
    struct check_record r = {.key = from};
    struct kvfs_error local = {0};
    struct scan_place place = {.first = 0};
    unsigned steps = 0;

    if (hi == NULL)
        hi = &edge;
    for (;;) {
        struct kvfs_key before = r.key;
        bool broken;
        int rc = scan_run(c, ks, &from, hi, fn, &r, &broken, &local);

        if (rc == 0)
            return 0;
        if (!broken) {
            if (err != NULL)
                *err = local;
            return rc;
        }
        if (scan_before(&before, &r.key))
            steps = 0; /* it went on meanwhile: a new place */
        if (steps == 0) {
            scan_report(c, ks, &r.key, loud, &local);
            scan_place_of(ks, &r.key, &place);
        }
        if (++c->unreadable > SCAN_UNREADABLE_MAX || !scan_resume(c, ks, &place, steps, &from))
            return 0;
        if (hi->len > 0 && !scan_before(&from, hi))
            return 0;
        steps++;
    }
}

int
kvfs_check_key(const struct kvfs_key *key, struct kvfs_key_parts *parts)
{
    int rc = kvfs_key_parse(key->bytes, key->len, parts);

    return rc == 0 && parts->id >= CHECK_ID_MAX ? -EIO : rc;
}

int
kvfs_check_value(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    struct iovec iov = {.iov_base = c->value, .iov_len = r->value_len};

    if (r->value_len > KVFS_RECORD_MAX) {
        r->value_len = 0;
        return 0;
    }
    return c->engine->cursor_value(r->cursor, 0, &iov, 1, err);
}

int
kvfs_check_get(struct check *c, const struct kvfs_key *key, uint8_t *buf, size_t *len,
               struct kvfs_error *err)
{
    struct iovec iov = {.iov_base = buf, .iov_len = KVFS_RECORD_MAX};
    size_t value_len;
    int rc = c->engine->get(c->snap, KVFS_META, key->bytes, key->len, 0, &iov, 1, &value_len, err);

    if (rc != 0)
        return rc;
    *len = value_len > KVFS_RECORD_MAX ? 0 : value_len;
    return 0;
}
