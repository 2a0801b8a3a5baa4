/* SPDX-License-Identifier: BSD-3-Clause
 *
 * forks.c - pass 5 of the checker: what belongs to forks.
 *
 * - A fork over another must lie over a file's own fork, and be nobody else's.
 *   A damaged record of that kind is written anew when the fork it speaks of is
 *   certain: what is left of it names a stray one, or there is but one.
 * - A hole must be of a fork that is there.  A damaged hole is removed: what it
 *   hid may show again, which is said; guessing could hide what was written.
 * - A fork that nobody owns goes to the background to be deleted, if all files are
 *   accounted for.  If not, it may hold the data of one of the others, and becomes
 *   a file in /lost+found.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "check_priv.h"

#define FORKS_DAMAGED "damaged: its checksum does not match or its fields are impossible"

static const char *
forks_where(struct check *c, uint64_t fork)
{
    const struct check_fork *f = kvfs_check_fork(c, fork);

    if (f != NULL && f->ino != 0)
        return kvfs_check_where_inode(c, f->ino);
    (void)kvfs_check_where(c, "fork %" PRIu64, fork);
    return c->where;
}

/* A fork whose records mean something: not one that is being deleted. */
static bool
forks_live(const struct check_fork *f)
{
    return f != NULL && (f->flags & (CF_FILE | CF_TOP | CF_PENDING)) != 0;
}

/* --- forks over forks --- */

/* The one stray fork; 0: none, or several. */
static uint64_t
forks_only_stray(struct check *c)
{
    uint64_t only = 0;

    for (size_t n = 0; n < c->forks.count; n++) {
        const struct check_fork *f = kvfs_check_table_at(&c->forks, n);

        if (!kvfs_check_fork_stray(f))
            continue;
        if (only != 0)
            return 0;
        only = f->fork;
    }
    return only;
}

static int
forks_over_damaged(struct check *c, struct check_record *r, const struct kvfs_key_parts *p,
                   struct kvfs_error *err)
{
    struct check_fork *base = kvfs_check_fork(c, p->id);
    struct kvfs_over_record o = {.top = 0};
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct check_fork *top;

    kvfs_record_reseal(&r->key, c->value, r->value_len);
    if (kvfs_over_decode(&o, &r->key, c->value, r->value_len) != 0)
        o.top = 0;
    top = o.top != 0 ? kvfs_check_fork(c, o.top) : NULL;
    if (top == NULL || !kvfs_check_fork_stray(top)) {
        o.top = forks_only_stray(c);
        top = o.top != 0 ? kvfs_check_fork(c, o.top) : NULL;
    }
    if (base == NULL || (base->flags & CF_FILE) == 0) {
        kvfs_check_found(c, forks_where(c, p->id), "removed",
                         "the record of a fork over it is " FORKS_DAMAGED);
        return kvfs_check_del(c, &r->key, err);
    }
    if (top == NULL) {
        c->strays_wanted = true;
        kvfs_check_found(c, forks_where(c, p->id), NULL,
                         "the record of a fork over it is " FORKS_DAMAGED);
        return 0;
    }
    kvfs_check_found(c, forks_where(c, p->id), "written anew",
                     "the record of a fork over it is " FORKS_DAMAGED);
    top->flags |= CF_TOP;
    top->below = p->id;
    top->over_cut = p->second;
    top->ino = base->ino;
    return kvfs_check_put(c, &r->key, value, kvfs_over_encode(&o, &r->key, value), err);
}

static int
forks_over(struct check *c, struct check_record *r, const struct kvfs_key_parts *p,
           struct kvfs_error *err)
{
    struct check_fork *base = kvfs_check_fork(c, p->id);
    struct check_fork *top;
    struct kvfs_over_record o;
    int rc = kvfs_over_decode(&o, &r->key, c->value, r->value_len);

    if (rc == -ENOTSUP) {
        kvfs_check_found(c, forks_where(c, p->id), NULL, "a fork over it is of a newer version");
        return 0;
    }
    if (rc != 0)
        return forks_over_damaged(c, r, p, err);
    top = kvfs_check_fork(c, o.top);
    if (top == NULL)
        return 0; /* an empty one: allowed */
    if (base != NULL && p->second > base->cut_max)
        base->cut_max = p->second;
    if (base != NULL && (base->flags & CF_FILE) != 0) {
        top->ino = base->ino;
        if ((top->flags & (CF_FILE | CF_DEAD | CF_PENDING)) != 0)
            kvfs_check_found(c, forks_where(c, p->id), NULL,
                             "fork %" PRIu64 " over it is in use elsewhere too", o.top);
        return 0;
    }
    kvfs_check_found(c, forks_where(c, o.top), "removed",
                     "lies over fork %" PRIu64 ", which is no file's", p->id);
    rc = kvfs_check_del(c, &r->key, err);
    return rc < 0 || (top->flags & (CF_FILE | CF_DEAD)) != 0 ? rc : kvfs_check_bury(c, o.top, err);
}

/* --- holes --- */

static int
forks_hole(struct check *c, struct check_record *r, const struct kvfs_key_parts *p,
           struct kvfs_error *err)
{
    struct check_fork *f = kvfs_check_fork(c, p->id);
    struct kvfs_hole_record h;
    int rc = kvfs_hole_decode(&h, &r->key, c->value, r->value_len);

    if (rc == -ENOTSUP) {
        kvfs_check_found(c, forks_where(c, p->id), NULL, "a hole of it is of a newer version");
        return 0;
    }
    if (f != NULL && (f->flags & CF_DEAD) != 0)
        return 0; /* goes with its fork, whatever it says */
    if (!forks_live(f)) {
        kvfs_check_found(c, forks_where(c, p->id), "removed",
                         "has a hole from block %" PRIu64 ", but is no file's", p->second);
        return kvfs_check_del(c, &r->key, err);
    }
    if (rc != 0) {
        kvfs_check_found(c, forks_where(c, p->id), "removed; what was zeroed there may show again",
                         "the record of a hole from block %" PRIu64 " is " FORKS_DAMAGED,
                         p->second);
        return kvfs_check_del(c, &r->key, err);
    }
    f->flags |= CF_USED;
    if (h.cut > f->cut_max)
        f->cut_max = h.cut;
    return 0;
}

static int
forks_record(struct check *c, struct check_record *r, struct kvfs_error *err)
{
    struct kvfs_key_parts parts;
    int rc = kvfs_check_step(c, 0);

    if (rc < 0)
        return rc;
    if (kvfs_check_key(&r->key, &parts) != 0 || kvfs_check_value(c, r, NULL) != 0)
        return 0;
    if (parts.kind == KVFS_KEY_OVER)
        return forks_over(c, r, &parts, err);
    return parts.kind == KVFS_KEY_HOLE ? forks_hole(c, r, &parts, err) : 0;
}

static int
forks_scan(struct check *c, char letter, struct kvfs_error *err)
{
    struct kvfs_key lo, hi;

    kvfs_key_letter(&lo, letter);
    kvfs_key_letter(&hi, (char)(letter + 1));
    return kvfs_check_scan(c, KVFS_META, &lo, &hi, false, forks_record, err);
}

/* --- forks that nobody owns --- */

/* Is any regular file without its data, so that a stray fork may be it? */
static bool
forks_wanted(struct check *c)
{
    for (size_t n = 0; n < c->inodes.count; n++) {
        const struct check_inode *i = kvfs_check_table_at(&c->inodes, n);

        if (!kvfs_check_exists(i) && (S_ISREG(i->mode) || (i->mode & S_IFMT) == 0))
            return true;
    }
    return c->strays_wanted;
}

static int
forks_strays(struct check *c, struct kvfs_error *err)
{
    bool wanted = forks_wanted(c);
    size_t count = c->forks.count; /* a rescue adds none that matters */

    for (size_t n = 0; n < count; n++) {
        const struct check_fork *f = kvfs_check_table_at(&c->forks, n);
        bool rescue = wanted && f->raw_len != 0;
        uint64_t fork = f->fork;
        int rc;

        if (!kvfs_check_fork_stray(f))
            continue;
        (void)kvfs_check_where(c, "fork %" PRIu64, fork);
        kvfs_check_found(c, c->where, rescue ? "made a file in /lost+found" : "left to be deleted",
                         "%" PRIu64 " blocks that belong to no file", f->blocks);
        rc = rescue ? kvfs_check_rescue_fork(c, fork, err) : kvfs_check_bury(c, fork, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int
kvfs_check_forks(struct check *c, struct kvfs_error *err)
{
    int rc;

    if (c->incomplete)
        return 0;
    rc = forks_scan(c, 'V', err);
    if (rc == 0)
        rc = forks_scan(c, 'H', err);
    return rc < 0 ? rc : forks_strays(c, err);
}
