/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pair.c - engines called hybrid:META+DATA.
 *
 * Each name gets a place in a table, with an engine of its own, for as long as the
 * process lives.
 *
 *  1. A place is filled in under pair_lock before its engine is handed out, and never
 *     changes afterwards.
 *  2. Both names are plain: what a volume remembers leads to no file by a path, and a
 *     pair of pairs would only hide what it is.
 *  3. Either both sides outlive their process or neither does.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "hybrid_priv.h"

#define PAIR_PREFIX "hybrid:"
#define PAIR_MAX    64u

static struct kvfs_hybrid_pair pairs[PAIR_MAX];
static size_t pairs_count;
static pthread_mutex_t pair_lock = PTHREAD_MUTEX_INITIALIZER;

/* The pair whose engine SELF is. */
static const struct kvfs_hybrid_pair *
pair_self(const struct kvfs_engine *self)
{
    return (const struct kvfs_hybrid_pair *)(const void *)self;
}

static const char *
pair_version(const struct kvfs_engine *self)
{
    return pair_self(self)->version;
}

static int
pair_open(const struct kvfs_engine *self, const char *path,
          const struct kvfs_engine_options *options, struct kvfs_db **dbp, struct kvfs_error *err)
{
    return kvfs_hybrid_open(pair_self(self), path, options, dbp, err);
}

static int
pair_need(const struct kvfs_engine *self, const char *path, uint64_t *bytes, struct kvfs_error *err)
{
    return kvfs_hybrid_compact_need_bytes(pair_self(self), path, bytes, err);
}

static int
pair_compact(const struct kvfs_engine *self, const char *path, kvfs_progress_fn *progress,
             void *arg, struct kvfs_error *err)
{
    return kvfs_hybrid_compact(pair_self(self), path, progress, arg, err);
}

/* One of the two names, of LEN bytes at TEXT. */
static int
pair_side(const char *name, const char *text, size_t len, const struct kvfs_engine **enginep,
          struct kvfs_error *err)
{
    char plain[HYBRID_NAME_MAX + 1];
    struct kvfs_error why = {0};
    int rc;

    memcpy(plain, text, len);
    plain[len] = '\0';
    if (len == 0 || plain[strspn(plain, "abcdefghijklmnopqrstuvwxyz0123456789")] != '\0' ||
        strcmp(plain, "hybrid") == 0)
        return kvfs_error_set(err, -EINVAL, "engine '%s': a hybrid takes two engines by their "
                              "plain names, as hybrid:lmdb+rocksdb", name);
    rc = kvfs_engine_find(plain, enginep, &why);
    return rc == 0 ? 0 : kvfs_error_set(err, rc, "engine '%s': %s", name, why.msg);
}

static uint32_t
pair_caps(const struct kvfs_engine *const side[HYBRID_SIDES])
{
    uint32_t caps = side[HYBRID_META]->caps & side[HYBRID_DATA]->caps;

    caps &= ~((uint32_t)KVFS_CAP_MULTIPROCESS | KVFS_CAP_FORK); /* the gate is of one process */
    if ((caps & KVFS_CAP_DURABLE) == 0)
        caps &= ~(uint32_t)KVFS_CAP_ORDERED; /* two ordered ones are not ordered together */
    else
        caps |= KVFS_CAP_ORDERED; /* served as durable */
    return caps;
}

/* Under pair_lock. */
static int
pair_make(const char *name, const struct kvfs_engine *const side[HYBRID_SIDES],
          const struct kvfs_hybrid_pair **pairp, struct kvfs_error *err)
{
    struct kvfs_hybrid_pair *pair = &pairs[pairs_count];
    struct kvfs_engine *e = &pair->engine;

    for (size_t i = 0; i < pairs_count; i++)
        if (strcmp(pairs[i].name, name) == 0) {
            *pairp = &pairs[i];
            return 0;
        }
    if (pairs_count == PAIR_MAX)
        return kvfs_error_set(err, -ENFILE, "engine '%s': this process knows %u pairs already",
                              name, PAIR_MAX);
    memcpy(pair->name, name, strlen(name) + 1);
    for (int i = 0; i < HYBRID_SIDES; i++)
        pair->side[i] = side[i];
    (void)snprintf(pair->version, sizeof(pair->version), "%s %s, %s %s", side[HYBRID_META]->name,
                   side[HYBRID_META]->version(side[HYBRID_META]), side[HYBRID_DATA]->name,
                   side[HYBRID_DATA]->version(side[HYBRID_DATA]));
    kvfs_hybrid_engine_init(e);
    e->caps = pair_caps(side);
    e->name = pair->name;
    e->open = pair_open;
    e->version = pair_version;
    if (side[HYBRID_META]->compact != NULL || side[HYBRID_DATA]->compact != NULL) {
        e->compact_need_bytes = pair_need;
        e->compact = pair_compact;
    }
    if (side[HYBRID_META]->backup == NULL || side[HYBRID_DATA]->backup == NULL)
        e->backup = NULL;
    *pairp = pair;
    pairs_count++;
    return 0;
}

int
kvfs_hybrid_pair_find(const char *name, const struct kvfs_hybrid_pair **pairp,
                      struct kvfs_error *err)
{
    const struct kvfs_engine *side[HYBRID_SIDES];
    const char *meta = name + sizeof(PAIR_PREFIX) - 1, *plus;
    int rc;

    if (strlen(name) > HYBRID_NAME_MAX)
        return kvfs_error_set(err, -EINVAL, "engine '%.64s...': the name is too long", name);
    plus = strchrnul(meta, '+');
    rc = pair_side(name, meta, (size_t)(plus - meta), &side[HYBRID_META], err);
    if (rc == 0)
        rc = pair_side(name, plus + (*plus == '+'), strlen(plus + (*plus == '+')),
                       &side[HYBRID_DATA], err);
    if (rc != 0)
        return rc;
    if (((side[HYBRID_META]->caps ^ side[HYBRID_DATA]->caps) & KVFS_CAP_PERSISTENT) != 0)
        return kvfs_error_set(err, -EINVAL,
                              "engine '%s': one of the two forgets everything when its process "
                              "ends, the other does not", name);
    (void)pthread_mutex_lock(&pair_lock);
    rc = pair_make(name, side, pairp, err);
    (void)pthread_mutex_unlock(&pair_lock);
    return rc;
}

extern int kvfs_wrapper_hybrid(const char *name, const struct kvfs_engine **enginep,
                               struct kvfs_error *err);
int
kvfs_wrapper_hybrid(const char *name, const struct kvfs_engine **enginep, struct kvfs_error *err)
{
    const struct kvfs_hybrid_pair *pair;
    int rc = kvfs_hybrid_pair_find(name, &pair, err);

    if (rc == 0)
        *enginep = &pair->engine;
    return rc;
}
