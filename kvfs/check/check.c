/* SPDX-License-Identifier: BSD-3-Clause
 *
 * check.c - verifying a volume: the rounds and their passes.
 *
 * A repaired volume is checked again, until a round finds nothing to repair: a
 * file's blocks can be judged only after its inode was rebuilt.  A repair can be
 * interrupted: each batch leaves a volume with which the next run goes on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check_priv.h"

#define CHECK_ROUNDS_MAX 5

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
    double part = total > 0 ? (double)done / (double)total : 0;

    return c->options->progress != NULL &&
           c->options->progress(c->options->progress_arg,
                                (uint64_t)((double)c->engine_share * (part < 1 ? part : 1)),
                                c->engine_share + c->total) != 0;
}

/* The engine's own structure, before anything else trusts it. */
static int
check_engine(struct check *c, struct kvfs_error *err)
{
    struct kvfs_engine_stat stat;
    struct kvfs_error local = {0};
    int rc;

    if (c->probed)
        return 0;
    rc = c->engine->stat(c->db, &stat, &local);
    if (rc == 0)
        c->total = stat.meta_records + stat.data_records;
    else
        check_engine_finding(c, "store", local.msg);
    if (c->engine->verify == NULL) /* of an engine loaded from elsewhere */
        return 0;
    c->engine_share = c->total;
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
        rc = kvfs_check_apply(c, err);
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
        (void)c->options->progress(c->options->progress_arg, c->engine_share + c->done,
                                   c->engine_share + c->done);
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
    kvfs_check_said_init(c);
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
    *result = c->result;
    check_forget(c);
    kvfs_check_table_free(&c->said);
    kvfs_batch_free(c->batch);
    free(c->value);
    free(c->spare);
    free(c);
    return rc;
}
