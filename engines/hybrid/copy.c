/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy.c - compact and backup, one side after the other.
 *
 *  1. While a backup runs, every batch that changes DATA has an intent, and none is
 *     deleted.  DATA is copied first, META behind it: so META's copy is never older,
 *     and holds the intents of all that DATA's copy lacks.  Opening the copy makes one
 *     state of the two.
 *  2. A copy becomes a store by its file `hybrid`, which comes last.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../holder.h"
#include "hybrid_priv.h"

#define COPY_PARTS ((uint64_t)1 << 20)

int
kvfs_hybrid_progress(void *arg, uint64_t done, uint64_t total)
{
    const struct kvfs_hybrid_progress *p = arg;
    uint64_t part = 0;

    if (p->fn == NULL)
        return 0;
    if (total > 0)
        part = done < total ? (uint64_t)((double)done / (double)total * (double)COPY_PARTS)
                            : COPY_PARTS;
    return p->fn(p->arg, p->side * COPY_PARTS + part, 2 * COPY_PARTS);
}

/* The pair whose store lies in the folder, held by us. */
static int
copy_hold(const struct kvfs_hybrid_pair **pairp, const char *path, bool readonly, int *fdp,
          struct kvfs_error *err)
{
    const struct kvfs_hybrid_pair *found;
    int rc = kvfs_hybrid_file_read(path, &found, err);

    if (rc == 0 && found != *pairp && (*pairp)->side[HYBRID_META] != NULL)
        rc = kvfs_error_set(err, -EINVAL, "%s: the store is one of %s, not of %s", path,
                            found->name, (*pairp)->name);
    if (rc != 0)
        return rc;
    *pairp = found;
    return kvfs_holder_take(path, readonly, fdp, err);
}

int
kvfs_hybrid_compact_need_bytes(const struct kvfs_hybrid_pair *pair, const char *path,
                               uint64_t *bytes, struct kvfs_error *err)
{
    uint64_t most = 0;
    int fd = -1, rc = copy_hold(&pair, path, true, &fd, err);

    for (int i = 0; i < HYBRID_SIDES && rc == 0; i++) {
        char *folder = kvfs_hybrid_folder(path, i);
        uint64_t need = 0;

        if (folder == NULL)
            rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
        else if (pair->side[i]->compact_need_bytes != NULL)
            rc = pair->side[i]->compact_need_bytes(pair->side[i], folder, &need, err);
        free(folder);
        most = most > need ? most : need; /* one after the other, and none grows by it */
    }
    kvfs_holder_drop(fd);
    if (rc == 0)
        *bytes = most;
    return rc;
}

int
kvfs_hybrid_compact(const struct kvfs_hybrid_pair *pair, const char *path,
                    kvfs_progress_fn *progress, void *progress_arg, struct kvfs_error *err)
{
    struct kvfs_hybrid_progress p = {.fn = progress, .arg = progress_arg};
    int fd = -1, rc = copy_hold(&pair, path, false, &fd, err);

    for (int i = 0; i < HYBRID_SIDES && rc == 0; i++) {
        char *folder = kvfs_hybrid_folder(path, i);

        p.side = (unsigned)i;
        if (folder == NULL)
            rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
        else if (pair->side[i]->compact != NULL)
            rc = pair->side[i]->compact(pair->side[i], folder, kvfs_hybrid_progress, &p, err);
        free(folder);
    }
    kvfs_holder_drop(fd);
    return rc;
}

static void
copy_count(struct kvfs_db *db, int by)
{
    (void)pthread_mutex_lock(&db->apply_lock);
    db->backups += (unsigned)by;
    (void)pthread_mutex_unlock(&db->apply_lock);
}

static int
copy_side(struct kvfs_db *db, int side, const char *path, struct kvfs_hybrid_progress *p,
          struct kvfs_error *err)
{
    char *folder = kvfs_hybrid_folder(path, side);
    int rc = 0;

    if (folder == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", path);
    if (mkdir(folder, 0777) != 0)
        rc = kvfs_error_set(err, -errno, "%s: %s", folder, strerrordesc_np(errno));
    if (rc == 0)
        rc = db->pair->side[side]->backup(db->side[side], folder, kvfs_hybrid_progress, p, err);
    free(folder);
    return rc;
}

int
kvfs_hybrid_backup(struct kvfs_db *db, const char *path, kvfs_progress_fn *progress,
                   void *progress_arg, struct kvfs_error *err)
{
    struct kvfs_hybrid_progress p = {.fn = progress, .arg = progress_arg};
    int rc = kvfs_fork_check(db->generation, db->folder, err);

    if (rc != 0)
        return rc;
    copy_count(db, 1);
    rc = copy_side(db, HYBRID_DATA, path, &p, err);
    p.side = 1;
    if (rc == 0)
        rc = copy_side(db, HYBRID_META, path, &p, err);
    copy_count(db, -1);
    return rc != 0 ? rc : kvfs_hybrid_file_write(path, db->pair, err);
}
