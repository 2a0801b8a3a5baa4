/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pair.c - engines called hybrid:META+DATA.
 *
 * An engine's `open` and `compact` are told a folder and no name, but one name here
 * stands for each two engines.  So each name gets a place in a table, for as long as
 * the process lives, and functions of its own that know that place.
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
#define PAIR_MAX    64u /* as many as PAIR_SLOTS makes */

static struct kvfs_hybrid_pair pairs[PAIR_MAX];
static size_t pairs_count;
static pthread_mutex_t pair_lock = PTHREAD_MUTEX_INITIALIZER;

/* The functions of place N. */
#define PAIR_SLOT(n)                                                                           \
    static int pair_open_##n(const char *path, const struct kvfs_engine_options *options,      \
                             struct kvfs_db **dbp, struct kvfs_error *err)                     \
    {                                                                                          \
        return kvfs_hybrid_open(&pairs[0##n], path, options, dbp, err);                        \
    }                                                                                          \
    static int pair_need_##n(const char *path, uint64_t *bytes, struct kvfs_error *err)        \
    {                                                                                          \
        return kvfs_hybrid_compact_need_bytes(&pairs[0##n], path, bytes, err);                 \
    }                                                                                          \
    static int pair_compact_##n(const char *path, kvfs_progress_fn *progress, void *arg,       \
                                struct kvfs_error *err)                                        \
    {                                                                                          \
        return kvfs_hybrid_compact(&pairs[0##n], path, progress, arg, err);                    \
    }                                                                                          \
    static const char *pair_version_##n(void)                                                  \
    {                                                                                          \
        return pairs[0##n].version;                                                            \
    }
/* Numbers are octal: two digits, 00 to 77. */
#define PAIR_EIGHT(F, d) F(d##0) F(d##1) F(d##2) F(d##3) F(d##4) F(d##5) F(d##6) F(d##7)
#define PAIR_SLOTS(F)                                                                \
    PAIR_EIGHT(F, 0) PAIR_EIGHT(F, 1) PAIR_EIGHT(F, 2) PAIR_EIGHT(F, 3)              \
    PAIR_EIGHT(F, 4) PAIR_EIGHT(F, 5) PAIR_EIGHT(F, 6) PAIR_EIGHT(F, 7)
PAIR_SLOTS(PAIR_SLOT)

static const struct {
    int (*open)(const char *path, const struct kvfs_engine_options *options, struct kvfs_db **dbp,
                struct kvfs_error *err);
    int (*need)(const char *path, uint64_t *bytes, struct kvfs_error *err);
    int (*compact)(const char *path, kvfs_progress_fn *progress, void *arg,
                   struct kvfs_error *err);
    const char *(*version)(void);
} pair_slots[PAIR_MAX] = {
#define PAIR_ROW(n) {pair_open_##n, pair_need_##n, pair_compact_##n, pair_version_##n},
    PAIR_SLOTS(PAIR_ROW)
#undef PAIR_ROW
};

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
                   side[HYBRID_META]->version(), side[HYBRID_DATA]->name,
                   side[HYBRID_DATA]->version());
    kvfs_hybrid_engine_init(e);
    e->caps = pair_caps(side);
    e->name = pair->name;
    e->open = pair_slots[pairs_count].open;
    e->version = pair_slots[pairs_count].version;
    if (side[HYBRID_META]->compact != NULL || side[HYBRID_DATA]->compact != NULL) {
        e->compact_need_bytes = pair_slots[pairs_count].need;
        e->compact = pair_slots[pairs_count].compact;
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
