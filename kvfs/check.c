/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check.c - verifying a volume: the rounds and their passes, findings, repairs.
 *
 * A repaired volume is checked again, until a round finds nothing to repair: a
 * file's blocks can be judged only after its inode was rebuilt.  What a later
 * round only says again is not counted twice; what it finds again although it was
 * repaired counts as not repaired.  A repair can be interrupted: each batch leaves
 * a volume with which the next run goes on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "check_priv.h"

#define CHECK_BATCH_OPS   512
#define CHECK_BATCH_BYTES ((size_t)1 << 20)
#define CHECK_ROUNDS_MAX  5
#define CHECK_STEP        1024 /* records between two calls of progress */

/* --- findings --- */

struct check_said { /* a finding of a repair */
    uint64_t hash;  /* of where and what; paths may change, so the inode stands for its path */
    unsigned round;
    bool repaired;
};

static uint64_t
check_hash(const struct check *c, const char *where, const char *what)
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
check_said_before(struct check *c, const char *where, const char *what, bool repaired)
{
    struct check_said *said;

    if (!c->options->repair)
        return false; /* one round: nothing is said twice, and nothing need be kept */
    said = kvfs_check_table_add(&c->said, check_hash(c, where, what));
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
    if (check_said_before(c, where, what, repairs))
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
    return c->options->progress(c->options->progress_arg, c->done, c->total) != 0 ? -EINTR : 0;
}

void
kvfs_check_id_seen(struct check *c, uint64_t id)
{
    if (id > c->id_max && id < CHECK_ID_MAX)
        c->id_max = id;
}

/* --- repairs --- */

static int
check_apply(struct check *c, struct kvfs_error *err)
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
check_apply_full(struct check *c, struct kvfs_error *err)
{
    if (kvfs_batch_ops(c->batch) < CHECK_BATCH_OPS &&
        kvfs_batch_bytes(c->batch) < CHECK_BATCH_BYTES)
        return c->batch_rc;
    return check_apply(c, err);
}

int
kvfs_check_put(struct check *c, const struct kvfs_key *key, const void *value, size_t len,
               struct kvfs_error *err)
{
    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_batch_put(c->batch, KVFS_META, key->bytes, key->len, value, len);
    return check_apply_full(c, err);
}

int
kvfs_check_del(struct check *c, const struct kvfs_key *key, struct kvfs_error *err)
{
    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_batch_del(c->batch, KVFS_META, key->bytes, key->len);
    return check_apply_full(c, err);
}

int
kvfs_check_del_block(struct check *c, const uint8_t key[KVFS_DATA_KEY_LEN], struct kvfs_error *err)
{
    if (!kvfs_check_repairing(c))
        return 0;
    kvfs_batch_del(c->batch, KVFS_DATA, key, KVFS_DATA_KEY_LEN);
    return check_apply_full(c, err);
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

/* --- rounds --- */

static void
check_engine_finding(void *arg, const char *where, const char *what)
{
    struct check *c = arg;

    c->unsound = true;
    kvfs_check_found(c, where, NULL, "%s", what);
}

static int
check_engine_progress(void *arg, uint64_t done, uint64_t total)
{
    struct check *c = arg;

    (void)done;
    (void)total;
    return c->options->progress != NULL &&
           c->options->progress(c->options->progress_arg, c->done, c->total) != 0;
}

/* The engine's own structure, before anything else trusts it. */
static int
check_engine(struct check *c, struct kvfs_error *err)
{
    struct kvfs_engine_stat stat;
    struct kvfs_error local = {0};
    int rc = c->engine->stat(c->db, &stat, &local);

    if (rc == 0)
        c->total = stat.meta_records + stat.data_records;
    else
        check_engine_finding(c, "store", local.msg);
    if (c->engine->verify == NULL) /* of an engine loaded from elsewhere */
        return 0;
    rc = c->engine->verify(c->db, check_engine_finding, c, check_engine_progress, c, err);
    if (rc == -EIO) {
        check_engine_finding(c, "store", err != NULL ? err->msg : "cannot be verified");
        rc = 0;
    }
    return rc;
}

static int
check_readable(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    struct kvfs_error local;

    (void)err;
    if (kvfs_check_value(c, r, &local) == -EIO) {
        c->incomplete = true;
        kvfs_check_found(c, kvfs_check_where_key(c, &r->key), NULL, "cannot be read: %s",
                         local.msg);
    }
    return kvfs_check_step(c, 0);
}

/* A repair first makes sure that it will see everything. */
static int
check_before_repair(struct check *c, struct kvfs_error *err)
{
    int rc = 0;

    if (!c->unsound)
        rc = kvfs_check_scan(c, KVFS_META, NULL, NULL, true, check_readable, err);
    if (rc < 0 || (!c->unsound && !c->incomplete))
        return rc;
    kvfs_batch_free(c->batch);
    c->batch = NULL;
    kvfs_check_found(c, "volume", NULL,
                     "the store itself is damaged: nothing was changed; copy what can be read to "
                     "a new volume");
    return 0;
}

static int
check_passes(struct check *c, struct kvfs_error *err)
{
    int rc = kvfs_check_meta(c, err);

    if (rc == 0)
        rc = kvfs_check_super(c, err);
    if (rc == 0)
        rc = kvfs_check_names_count(c, err);
    if (rc == 0)
        rc = kvfs_check_blocks(c, err);
    if (rc == 0 && c->incomplete)
        return 0; /* half the records: conclusions would be wrong */
    if (rc == 0)
        rc = kvfs_check_rebuild(c, err);
    if (rc == 0)
        rc = kvfs_check_forks(c, err);
    if (rc == 0)
        rc = kvfs_check_names_judge(c, err);
    return rc == 0 ? kvfs_check_tree(c, err) : rc;
}

static void
check_forget(struct check *c)
{
    kvfs_check_table_free(&c->inodes);
    kvfs_check_table_free(&c->forks);
    kvfs_check_table_init(&c->inodes, sizeof(struct check_inode));
    kvfs_check_table_init(&c->forks, sizeof(struct check_fork));
    free(c->holes.holes.v);
    free(c->holes_below.holes.v);
    free(c->holes_above.holes.v);
    memset(&c->holes, 0, sizeof(c->holes));
    memset(&c->holes_below, 0, sizeof(c->holes_below));
    memset(&c->holes_above, 0, sizeof(c->holes_above));
    memset(c->counter_ok, 0, sizeof(c->counter_ok));
    c->super_ok = c->extra_keys = c->strays_wanted = false;
    c->id_max = c->id_next = c->id_end = 0;
    c->lost_found = c->rescued = 0;
    c->path_ino = 0;
    c->done = 0;
    c->round_repairs = 0;
}

static void
check_count_inodes(struct check *c)
{
    c->result.inodes = 0;
    for (size_t n = 0; n < c->inodes.count; n++)
        c->result.inodes += kvfs_check_exists(kvfs_check_table_at(&c->inodes, n));
}

static int
check_round(struct check *c, struct kvfs_error *err)
{
    int rc;

    check_forget(c);
    rc = c->engine->begin(c->db, &c->snap, err);
    if (rc < 0)
        return rc;
    if (c->batch != NULL)
        rc = check_before_repair(c, err);
    if (rc == 0)
        rc = check_passes(c, err);
    if (rc == 0)
        rc = check_apply(c, err);
    check_count_inodes(c);
    c->engine->end(c->snap);
    c->snap = NULL;
    return rc;
}

static int
check_rounds(struct check *c, struct kvfs_error *err)
{
    int rc = check_engine(c, err);

    do {
        c->round++;
        if (rc == 0)
            rc = check_round(c, err);
    } while (rc == 0 && c->round_repairs > 0 && c->round < CHECK_ROUNDS_MAX);
    if (rc == 0 && c->options->repair && c->result.repaired > 0)
        rc = c->engine->sync(c->db, err);
    if (rc == 0 && c->options->progress != NULL)
        (void)c->options->progress(c->options->progress_arg, c->done, c->done);
    return rc;
}

int
kvfs_check(const char *path, const struct kvfs_check_options *options,
           struct kvfs_check_result *result, struct kvfs_error *err)
{
    static const struct kvfs_check_options defaults;
    struct kvfs_error local = {0};
    struct check *c = calloc(1, sizeof(*c));
    int rc = -ENOMEM;

    if (err == NULL)
        err = &local;
    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "check: no memory");
    c->options = options != NULL ? options : &defaults;
    c->value = malloc(KVFS_RECORD_MAX);
    c->spare = malloc(KVFS_RECORD_MAX);
    kvfs_check_table_init(&c->said, sizeof(struct check_said));
    check_forget(c);
    if (c->options->repair)
        c->batch = kvfs_batch_new();
    if (c->value == NULL || c->spare == NULL || (c->options->repair && c->batch == NULL))
        (void)kvfs_error_set(err, rc, "check: no memory");
    else
        rc = kvfs_check_open(c, path, err);
    if (rc == 0 && c->db != NULL)
        rc = check_rounds(c, err);
    kvfs_check_close(c);
    if (rc == 0)
        *result = c->result;
    check_forget(c);
    kvfs_check_table_free(&c->said);
    kvfs_batch_free(c->batch);
    free(c->value);
    free(c->spare);
    free(c);
    return rc;
}
