/* SPDX-License-Identifier: BSD-3-Clause
 *
 * report.c - what the passes call: findings, progress, and the batches of a repair.
 *
 * What a later round of a repair only says again is not counted twice; what it
 * finds again although it was repaired counts as not repaired.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "check_priv.h"

#define CHECK_BATCH_OPS   512
#define CHECK_BATCH_BYTES ((size_t)1 << 20)
#define CHECK_STEP        1024 /* records between two calls of progress */

/* --- findings --- */

struct report_said { /* a finding of a repair */
    uint64_t hash;  /* of where and what; paths may change, so the inode stands for its path */
    unsigned round;
    bool repaired;
};

static uint64_t
report_hash(const struct check *c, const char *where, const char *what)
{
    bool path = where == c->where && c->where_ino != 0;
    const char *rest = path ? where + c->where_path_len : where;
    uint64_t hash = XXH3_64bits(rest, strlen(rest)) * 31 + XXH3_64bits(what, strlen(what));

    if (path)
        hash = hash * 31 + c->where_ino;
    return hash != 0 ? hash : 1;
}

/* Has this been said?  Keeps the count of repairs true. */
static bool
report_said_before(struct check *c, const char *where, const char *what, bool repaired)
{
    struct report_said *said;

    if (!c->options->repair)
        return false; /* one round: nothing is said twice, and nothing need be kept */
    said = kvfs_check_table_add(&c->said, report_hash(c, where, what));
    if (said == NULL)
        return false;
    if (said->round == 0) {
        said->round = c->round;
        said->repaired = repaired;
        return false;
    }
    if (said->round < c->round && said->repaired) {
        said->repaired = false; /* it did not help */
        c->result.repaired--;
    } else if (repaired && !said->repaired && said->round < c->round) {
        said->repaired = true;
        c->result.repaired++;
    }
    said->round = c->round;
    return true;
}

void
kvfs_check_found(struct check *c, const char *where, const char *repaired, const char *fmt, ...)
{
    bool repairs = kvfs_check_repairing(c) && repaired != NULL;
    char what[700];
    size_t n;
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof(what) - 100, fmt, ap);
    va_end(ap);
    c->round_repairs += repairs;
    if (report_said_before(c, where, what, repairs))
        return;
    c->result.findings++;
    c->result.repaired += repairs;
    if (c->options->repair) {
        n = strlen(what);
        (void)snprintf(what + n, sizeof(what) - n, "; %s", repairs ? repaired : "not repaired");
    }
    if (c->options->finding != NULL)
        c->options->finding(c->options->finding_arg, where, what);
}

int
kvfs_check_step(struct check *c, uint64_t records)
{
    c->result.records += c->round == 1 ? records : 0;
    c->done += records;
    if (++c->steps % CHECK_STEP != 0 || c->options->progress == NULL)
        return 0;
    if (c->total < c->done)
        c->total = c->done;
    return c->options->progress(c->options->progress_arg, c->engine_share + c->done,
                                c->engine_share + c->total) != 0
               ? -EINTR
               : 0;
}

void
kvfs_check_id_seen(struct check *c, uint64_t id)
{
    if (id > c->id_max && id < CHECK_ID_MAX)
        c->id_max = id;
}

void
kvfs_check_said_init(struct check *c)
{
    kvfs_check_table_init(&c->said, sizeof(struct report_said));
}

/* --- repairs --- */

int
kvfs_check_apply(struct check *c, struct kvfs_error *err)
{
    struct kvfs_batch batch;
    int rc = c->batch_rc;

    if (rc < 0)
        return kvfs_error_set(err, rc, "check: a repair could not be written");
    if (c->batch == NULL || kvfs_batch_ops(c->batch) == 0)
        return 0;
    rc = kvfs_batch_end(c->batch, &batch);
    if (rc == 0)
        rc = c->engine->apply(c->db, &batch, KVFS_ORDERED, err);
    kvfs_batch_reset(c->batch);
    c->batch_rc = rc;
    return rc;
}

static int
report_apply_full(struct check *c, struct kvfs_error *err)
{
    if (kvfs_batch_ops(c->batch) < CHECK_BATCH_OPS &&
        kvfs_batch_bytes(c->batch) < CHECK_BATCH_BYTES)
        return c->batch_rc;
    return kvfs_check_apply(c, err);
}

int
kvfs_check_put(struct check *c, const struct kvfs_key *key, const void *value, size_t len,
               struct kvfs_error *err)
{
    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_batch_put(c->batch, KVFS_META, key->bytes, key->len, value, len);
    return report_apply_full(c, err);
}

int
kvfs_check_del(struct check *c, const struct kvfs_key *key, struct kvfs_error *err)
{
    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_batch_del(c->batch, KVFS_META, key->bytes, key->len);
    return report_apply_full(c, err);
}

int
kvfs_check_del_block(struct check *c, const uint8_t key[KVFS_DATA_KEY_LEN], struct kvfs_error *err)
{
    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_batch_del(c->batch, KVFS_DATA, key, KVFS_DATA_KEY_LEN);
    return report_apply_full(c, err);
}

int
kvfs_check_del_inode(struct check *c, uint64_t ino, struct kvfs_error *err)
{
    struct kvfs_key lo, hi;

    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_key_inode_part(&lo, ino, KVFS_PART_INODE);
    kvfs_key_inode_part(&hi, ino, 0xff);
    kvfs_batch_del_range(c->batch, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len);
    kvfs_key_orphan(&lo, ino);
    return kvfs_check_del(c, &lo, err);
}

int
kvfs_check_bury(struct check *c, uint64_t fork, struct kvfs_error *err)
{
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_key key;
    struct check_fork *f = kvfs_check_fork(c, fork);

    if (f != NULL)
        f->flags |= CF_DEAD;
    kvfs_key_dead(&key, fork);
    return kvfs_check_put(c, &key, value, kvfs_number_encode(0, &key, value), err);
}
