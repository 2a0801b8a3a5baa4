/* SPDX-License-Identifier: BSD-3-Clause
 *
 * work.c - the background thread: commits in time, and what was put off.
 *
 * What large changes leave behind is worked off in pieces of at most WORK_RECORDS
 * records, each one batch, ORDERED, under the commit lock:
 *
 *   hole [a, b) of cut h   extents before h are deleted, `a` moves forward
 *   fork T over F at c     T's extents move into F under the number c, then T's
 *                          holes, and T is forgotten
 *   dead fork (G)          its extents, its holes, the record
 *   orphan (O), pending fork (T) whose holder died: turned into the above
 *
 * 1. A piece reads a snapshot and then deletes what it read about.  Nobody
 *    writes those extents in between: of a leased file only commits do, and
 *    they hold the commit lock too; a dead fork has no writer at all.
 * 2. A crash between two pieces leaves the record, and the next opener that
 *    leases the file (or becomes the janitor) goes on.
 * 3. A full store has little room left for deletes: a piece that it refuses is made
 *    smaller until it fits, and pieces grow again as they succeed.
 */
#include "work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lease.h"
#include "node.h"
#include "overlay.h"
#include "testbug.h"
#include "volume_file.h"

#define WORK_RECORDS   4096 /* looked at in one piece */
#define WORK_RECORDS_MIN 16
#define WORK_MOVE_MAX  ((size_t)4 << 20) /* bytes moved in one piece */
#define WORK_LEFT_MAX  64   /* orphans looked at in one go */

struct kvfs_worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    bool room;   /* writers wait, or will: bring down what is sealed */
    bool work;
};

/* Is a piece that ended with RC to be tried again, smaller?  Rule 3. */
static bool
work_again(struct kvfs_volume *v, struct kvfs_batch_builder *b, int rc)
{
    if (rc == 1 && v->work_records < WORK_RECORDS)
        v->work_records *= 2;
    if (rc != -ENOSPC || v->work_records <= WORK_RECORDS_MIN)
        return false;
    v->work_records /= 4;
    kvfs_batch_reset(b);
    return true;
}

/* --- holes ------------------------------------------------------------------- */

/* Delete from B's point of view the dead extents of HOLE; *next is where to go
 * on, hole->end if this was the rest. */
static int
work_hole_scan(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
               const struct kvfs_hole *hole, struct kvfs_batch_builder *b, uint64_t *next,
               struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    uint8_t lo[KVFS_DATA_KEY_LEN];
    uint8_t hi[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];
    struct iovec iov = {.iov_base = trailer, .iov_len = sizeof(trailer)};
    unsigned seen = 0;
    int rc;

    kvfs_key_block(lo, view->fork, hole->start);
    kvfs_key_block(hi, view->fork, hole->end);
    rc = v->engine->cursor_open(snap, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi), 0, &cursor, err);
    if (rc < 0)
        return rc;
    *next = hole->end;
    for (;;) {
        const void *key;
        size_t key_len;
        size_t len;
        struct kvfs_trailer t;
        uint64_t fork;

        rc = v->engine->cursor_next(cursor, &key, &key_len, &len, err);
        if (rc <= 0)
            break;
        if (seen++ == v->work_records) {
            kvfs_key_block_parse(key, &fork, next);
            break;
        }
        if (len < KVFS_TRAILER_LEN)
            continue; /* damage; `check` will tell */
        rc = v->engine->cursor_value(cursor, len - KVFS_TRAILER_LEN, &iov, 1, err);
        if (rc < 0)
            break;
        if (kvfs_trailer_decode(&t, trailer) == 0 && t.cut < hole->cut &&
            !kvfs_test_bug("stale-hole"))
            kvfs_batch_del(b, KVFS_DATA, key, key_len);
    }
    v->engine->cursor_close(cursor);
    return rc < 0 ? rc : 0;
}

/* Work on the first of the file's holes. */
static int
work_hole(struct kvfs_volume *v, struct kvfs_node *node, struct kvfs_batch_builder *b,
          struct kvfs_error *err)
{
    struct kvfs_view *view = &node->view;
    struct kvfs_hole hole = view->holes.v[0];
    struct kvfs_hole_record r = {.end = hole.end, .cut = hole.cut};
    struct kvfs_db_snap *snap;
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    uint64_t next = 0;
    size_t len;
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = work_hole_scan(v, snap, view, &hole, b, &next, err);
    v->engine->end(snap);
    if (rc < 0)
        return rc;
    kvfs_key_hole(&key, view->fork, hole.start);
    kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
    if (next < hole.end) {
        kvfs_key_hole(&key, view->fork, next);
        len = kvfs_hole_encode(&r, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
    }
    rc = kvfs_volume_apply(v, b, KVFS_ORDERED, err);
    if (rc < 0)
        return rc;
    kvfs_cut_lock(v->overlay);
    if (next < hole.end)
        view->holes.v[0].start = next;
    else
        view->holes.v[0] = view->holes.v[--view->holes.count];
    kvfs_cut_unlock(v->overlay);
    return 1;
}

/* --- forks over forks ---------------------------------------------------------- */

/* What F holds of a block is newer than cut C? */
static int
work_is_newer(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
              uint64_t index, uint64_t cut, struct kvfs_error *err)
{
    struct kvfs_trailer t;
    bool zeros;
    int rc;

    if (kvfs_holes_cut(&view->holes, index) > cut)
        return 1;
    rc = kvfs_fork_trailer(v, snap, view, view->fork, index, &t, &zeros, err);
    return rc == 1 ? t.cut > cut : rc;
}

/* Move one extent of the fork on top down; *moved counts bytes. */
static int
work_move(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
          uint64_t index, struct kvfs_batch_builder *b, size_t *moved, struct kvfs_error *err)
{
    const struct kvfs_over *o = &view->overs[0];
    uint8_t block[KVFS_BLOCK_SIZE_MAX];
    uint8_t top[KVFS_DATA_KEY_LEN];
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];
    uint8_t *value;
    struct kvfs_trailer t;
    int rc = work_is_newer(v, snap, view, index, o->cut, err);

    if (rc < 0)
        return rc;
    kvfs_key_block(top, o->top, index);
    kvfs_key_block(key, view->fork, index);
    kvfs_batch_del(b, KVFS_DATA, top, sizeof(top));
    if (rc == 1)
        return 0;
    rc = kvfs_fork_block(v, snap, view, o->top, index, block, &t, err);
    if (rc <= 0)
        return rc;
    if (t.cut < kvfs_holes_cut(&o->holes, index))
        return 0;
    if (t.raw_len == 0) { /* a mark of zeros */
        kvfs_batch_del(b, KVFS_DATA, key, sizeof(key));
        return 0;
    }
    kvfs_block_seal(trailer, key, block, view->block_size, o->cut);
    value = malloc(view->block_size + KVFS_TRAILER_LEN);
    if (value == NULL)
        return -ENOMEM;
    memcpy(value, block, view->block_size);
    memcpy(value + view->block_size, trailer, sizeof(trailer));
    kvfs_batch_put(b, KVFS_DATA, key, sizeof(key), value, view->block_size + KVFS_TRAILER_LEN);
    free(value);
    *moved += view->block_size;
    return 0;
}

/* Move a bounded number of extents.  1: there are more; 0: none left. */
static int
work_over_extents(struct kvfs_volume *v, struct kvfs_db_snap *snap, const struct kvfs_view *view,
                  struct kvfs_batch_builder *b, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    uint8_t lo[KVFS_DATA_KEY_LEN];
    uint8_t hi[KVFS_DATA_KEY_LEN];
    size_t moved = 0;
    unsigned seen = 0;
    int rc;

    kvfs_key_block(lo, view->overs[0].top, 0);
    kvfs_key_block(hi, view->overs[0].top + 1, 0);
    rc = v->engine->cursor_open(snap, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi),
                                KVFS_SCAN_KEYS_ONLY, &cursor, err);
    if (rc < 0)
        return rc;
    for (;;) {
        const void *key;
        size_t key_len;
        size_t len;
        uint64_t fork;
        uint64_t index;

        rc = v->engine->cursor_next(cursor, &key, &key_len, &len, err);
        if (rc <= 0)
            break;
        if (seen++ == v->work_records || moved >= WORK_MOVE_MAX)
            break;
        kvfs_key_block_parse(key, &fork, &index);
        rc = work_move(v, snap, view, index, b, &moved, err);
        if (rc < 0)
            break;
    }
    v->engine->cursor_close(cursor);
    return rc;
}

/* The fork on top has no extents left: its holes move, then it is forgotten. */
static int
work_over_end(const struct kvfs_view *view, struct kvfs_holes *holes, struct kvfs_batch_builder *b)
{
    const struct kvfs_over *o = &view->overs[0];
    struct kvfs_key key;
    struct kvfs_key end;
    int rc = kvfs_holes_copy(holes, &view->holes);

    for (size_t i = 0; i < o->holes.count && rc == 0; i++) {
        struct kvfs_hole hole = {.start = o->holes.v[i].start, .end = o->holes.v[i].end,
                                 .cut = o->cut};

        rc = kvfs_holes_cover(holes, hole, view->fork, b);
    }
    kvfs_key_hole(&key, o->top, 0);
    kvfs_key_hole(&end, o->top + 1, 0);
    kvfs_batch_del_range(b, KVFS_META, key.bytes, key.len, end.bytes, end.len);
    kvfs_key_over(&key, view->fork, o->cut);
    kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
    return rc;
}

static int
work_over(struct kvfs_volume *v, struct kvfs_node *node, struct kvfs_batch_builder *b,
          struct kvfs_error *err)
{
    struct kvfs_view *view = &node->view;
    struct kvfs_holes holes = {0};
    struct kvfs_db_snap *snap;
    bool ended = false;
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = work_over_extents(v, snap, view, b, err);
    v->engine->end(snap);
    if (rc == 0) {
        ended = true;
        rc = work_over_end(view, &holes, b);
    }
    if (rc >= 0)
        rc = kvfs_volume_apply(v, b, KVFS_ORDERED, err);
    if (rc == 0 && ended) {
        kvfs_cut_lock(v->overlay);
        free(view->holes.v);
        view->holes = holes;
        holes.v = NULL;
        free(view->overs[0].holes.v);
        view->overs_count--;
        memmove(view->overs, view->overs + 1, view->overs_count * sizeof(*view->overs));
        kvfs_cut_unlock(v->overlay);
    }
    free(holes.v);
    return rc < 0 ? rc : 1;
}

int
kvfs_work_node(struct kvfs_volume *v, struct kvfs_node *node, struct kvfs_error *err)
{
    struct kvfs_batch_builder *b;
    bool any;
    int rc = 0;

    kvfs_cut_lock_shared(v->overlay);
    any = node->leased && (node->view.overs_count > 0 || node->view.holes.count > 0);
    kvfs_cut_unlock(v->overlay);
    if (!any)
        return 0;
    b = kvfs_batch_new();
    if (b == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
    /* While it is `working` and the commit lock is held the view stays as it is. */
    kvfs_cut_lock(v->overlay);
    node->working = any = node->leased;
    kvfs_cut_unlock(v->overlay);
    if (any && (node->view.overs_count > 0 || node->view.holes.count > 0)) {
        do
            rc = node->view.overs_count > 0 ? work_over(v, node, b, err)
                                            : work_hole(v, node, b, err);
        while (work_again(v, b, rc));
    }
    kvfs_cut_lock(v->overlay);
    node->working = false;
    kvfs_node_release_locked(node); /* if its last writer has left meanwhile */
    kvfs_cut_unlock(v->overlay);
    kvfs_batch_free(b);
    return rc;
}

/* --- what belongs to no file ---------------------------------------------------- */

int
kvfs_reclaim_ops(struct kvfs_volume *v, struct kvfs_db_snap *snap, struct kvfs_batch_builder *b,
                 uint64_t ino, uint64_t fork, struct kvfs_error *err)
{
    struct kvfs_view view = {0};
    struct kvfs_key key;
    struct kvfs_key end;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    int rc = 0;

    kvfs_key_inode(&key, ino);
    kvfs_key_inode(&end, ino + 1);
    kvfs_batch_del_range(b, KVFS_META, key.bytes, key.len, end.bytes, end.len);
    if (fork == 0)
        return 0;
    view.fork = fork;
    rc = kvfs_view_overs(v, snap, &view, err);
    for (size_t i = 0; i < view.overs_count && rc == 0; i++) {
        kvfs_key_dead(&key, view.overs[i].top);
        len = kvfs_number_encode(0, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
        kvfs_key_over(&key, fork, view.overs[i].cut);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
    }
    kvfs_view_free(&view);
    kvfs_key_dead(&key, fork);
    len = kvfs_number_encode(0, &key, value);
    kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
    return rc;
}

/* The first key of a kind.  1, 0 or negative. */
static int
work_first(struct kvfs_volume *v, struct kvfs_db_snap *snap, char letter, uint64_t after,
           struct kvfs_key_parts *parts, struct kvfs_error *err)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_key lo;
    struct kvfs_key hi;
    const void *key;
    size_t key_len;
    size_t len;
    int rc;

    kvfs_key_letter(&lo, letter);
    kvfs_key_letter(&hi, (char)(letter + 1));
    if (after != 0 && letter == 'O')
        kvfs_key_orphan(&lo, after + 1);
    if (after != 0 && letter == 'T')
        kvfs_key_pending(&lo, after + 1);
    rc = v->engine->cursor_open(snap, KVFS_META, lo.bytes, lo.len, hi.bytes, hi.len,
                                KVFS_SCAN_KEYS_ONLY, &cursor, err);
    if (rc < 0)
        return rc;
    rc = v->engine->cursor_next(cursor, &key, &key_len, &len, err);
    if (rc == 1 && kvfs_key_parse(key, key_len, parts) < 0)
        rc = 0; /* damage; `check` will tell */
    v->engine->cursor_close(cursor);
    return rc;
}

/* One piece of one dead fork. */
static int
work_dead(struct kvfs_volume *v, struct kvfs_batch_builder *b, struct kvfs_error *err)
{
    struct kvfs_key_parts parts = {0};
    struct kvfs_db_snap *snap;
    struct kvfs_db_cursor *cursor;
    struct kvfs_key key;
    struct kvfs_key end;
    uint8_t lo[KVFS_DATA_KEY_LEN];
    uint8_t hi[KVFS_DATA_KEY_LEN];
    unsigned seen = 0;
    int rc = v->engine->begin(v->db, &snap, err);

    if (rc < 0)
        return rc;
    rc = work_first(v, snap, 'G', 0, &parts, err);
    if (rc != 1) {
        v->engine->end(snap);
        return rc;
    }
    kvfs_key_block(lo, parts.id, 0);
    kvfs_key_block(hi, parts.id + 1, 0);
    rc = v->engine->cursor_open(snap, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi),
                                KVFS_SCAN_KEYS_ONLY, &cursor, err);
    while (rc >= 0) {
        const void *found;
        size_t key_len;
        size_t len;

        rc = v->engine->cursor_next(cursor, &found, &key_len, &len, err);
        if (rc == 1 && seen++ == v->work_records)
            memcpy(hi, found, sizeof(hi)); /* up to here, and on in the next piece */
        if (rc <= 0 || seen > v->work_records) {
            v->engine->cursor_close(cursor);
            break;
        }
    }
    v->engine->end(snap);
    if (rc < 0)
        return rc;
    kvfs_batch_del_range(b, KVFS_DATA, lo, sizeof(lo), hi, sizeof(hi));
    if (rc == 0) {
        kvfs_key_hole(&key, parts.id, 0);
        kvfs_key_hole(&end, parts.id + 1, 0);
        kvfs_batch_del_range(b, KVFS_META, key.bytes, key.len, end.bytes, end.len);
        kvfs_key_dead(&key, parts.id);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
    }
    rc = kvfs_volume_apply(v, b, KVFS_ORDERED, err);
    return rc < 0 ? rc : 1;
}

/* A fork that a dead process was filling, of a file that nobody writes. */
static int
work_pending(struct kvfs_volume *v, struct kvfs_db_snap *snap, uint64_t fork,
             struct kvfs_batch_builder *b)
{
    struct kvfs_pending_record r;
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    bool open = true;
    int rc;

    kvfs_key_pending(&key, fork);
    rc = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, NULL);
    if (rc < 0 || kvfs_pending_decode(&r, &key, value, len) < 0 ||
        kvfs_node_unlink_prepare(v, r.ino, &open, NULL) < 0)
        return 0;
    if (!open) {
        kvfs_batch_expect(b, KVFS_META, key.bytes, key.len, value, len);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
        kvfs_key_dead(&key, fork);
        len = kvfs_number_encode(0, &key, value);
        kvfs_batch_put(b, KVFS_META, key.bytes, key.len, value, len);
        rc = kvfs_volume_apply(v, b, KVFS_ORDERED, NULL);
        kvfs_node_unlink_done(v, r.ino);
    }
    return rc == 0 && !open;
}

/* What processes that died left: orphans (O) or pending forks (T). */
static int
work_left(struct kvfs_volume *v, char letter, struct kvfs_batch_builder *b, struct kvfs_error *err)
{
    uint64_t after = 0;

    for (int n = 0; n < WORK_LEFT_MAX; n++) {
        struct kvfs_key_parts parts = {0};
        struct kvfs_db_snap *snap;
        int rc = v->engine->begin(v->db, &snap, err);

        if (rc < 0)
            return rc;
        rc = work_first(v, snap, letter, after, &parts, err);
        if (rc == 1 && letter == 'T')
            (void)work_pending(v, snap, parts.id, b);
        v->engine->end(snap);
        if (rc <= 0)
            break;
        after = parts.id;
        if (letter == 'O')
            kvfs_node_orphan_left(v, parts.id);
    }
    return 0;
}

static void
work_left_all(struct kvfs_volume *v, const char *letters)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();

    if (b != NULL && kvfs_lease_janitor(v->leases)) {
        for (; *letters != '\0'; letters++)
            (void)work_left(v, *letters, b, NULL);
        kvfs_lease_janitor_drop(v->leases);
    }
    kvfs_batch_free(b);
}

/* --- the thread -------------------------------------------------------------------- */

struct work_pass {
    struct kvfs_volume *v;
    struct kvfs_error *err;
    bool more;
};

static int
work_pass_node(void *arg, struct kvfs_node *node)
{
    struct work_pass *pass = arg;
    int rc;

    (void)pthread_mutex_lock(&pass->v->overlay->commit_lock);
    rc = kvfs_node_borrow(node); /* a database is leased in transactions only */
    if (rc == 0) {
        rc = kvfs_work_node(pass->v, node, pass->err);
        kvfs_cut_lock(pass->v->overlay);
        kvfs_node_release_locked(node); /* between the pieces another may have it */
        kvfs_cut_unlock(pass->v->overlay);
    } else {
        rc = 0; /* another process writes it; later */
    }
    (void)pthread_mutex_unlock(&pass->v->overlay->commit_lock);
    if (rc == 1)
        pass->more = true;
    return rc < 0 ? rc : 0;
}

/* One piece of everything.  1: there is more. */
static int
work_pass(struct kvfs_volume *v, struct kvfs_error *err)
{
    struct work_pass pass = {.v = v, .err = err};
    struct kvfs_batch_builder *b;
    int rc = kvfs_node_each(v, work_pass_node, &pass);

    if (rc < 0 || !kvfs_lease_janitor(v->leases))
        return rc < 0 ? rc : pass.more;
    b = kvfs_batch_new();
    rc = b == NULL ? -ENOMEM : 0;
    (void)pthread_mutex_lock(&v->overlay->commit_lock);
    if (rc == 0) {
        do
            rc = work_dead(v, b, err);
        while (work_again(v, b, rc));
    }
    (void)pthread_mutex_unlock(&v->overlay->commit_lock);
    kvfs_batch_free(b);
    kvfs_lease_janitor_drop(v->leases);
    return rc < 0 ? rc : rc == 1 || pass.more;
}

int
kvfs_volume_work(struct kvfs_volume *v, unsigned max_steps, struct kvfs_error *err)
{
    int rc = kvfs_volume_writable(v, err);

    for (unsigned i = 0; rc == 0 && i < max_steps; i++) {
        rc = work_pass(v, err);
        if (rc <= 0)
            return rc;
        rc = 0;
    }
    return rc < 0 ? rc : 1;
}

/* Wait until there is something to do; *commit, *room: what of commits. */
static bool
work_wait(struct kvfs_volume *v, bool more, bool *commit, bool *room)
{
    struct kvfs_worker *w = v->worker;
    struct timespec until;
    bool stop;
    int rc = 0;

    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += v->commit_interval_ms / 1000;
    until.tv_nsec += (long)(v->commit_interval_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    (void)pthread_mutex_lock(&w->lock);
    while (!w->stop && !w->room && !w->work && !more && rc == 0)
        rc = pthread_cond_timedwait(&w->wake, &w->lock, &until);
    *commit = rc == ETIMEDOUT;
    *room = w->room;
    w->room = w->work = false;
    stop = w->stop;
    (void)pthread_mutex_unlock(&w->lock);
    return !stop;
}

static int64_t
work_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void *
work_thread(void *arg)
{
    struct kvfs_volume *v = arg;
    int64_t last = work_now_ms();
    int64_t told = last;
    bool commit;
    bool room;
    int more = 1;

    work_left_all(v, "OT");
    while (work_wait(v, more == 1, &commit, &room)) {
        if (commit || work_now_ms() - told >= (int64_t)v->commit_interval_ms) {
            kvfs_lease_announce(v->leases);
            told = work_now_ms();
        }
        /* Errors are met again by whoever writes or flushes next. */
        if (commit || work_now_ms() - last >= (int64_t)v->commit_interval_ms) {
            (void)kvfs_commit_all(v, KVFS_ORDERED, NULL);
            last = work_now_ms();
        } else if (room && kvfs_commit_full(v, NULL) == 0 &&
                   atomic_load(&v->overlay->bytes) >= v->overlay->bound_bytes / 2) {
            kvfs_worker_room(v); /* begun late (file_write.c), so well ahead of the next writers */
        }
        kvfs_overlay_wake(v->overlay);
        more = work_pass(v, NULL);
    }
    return NULL;
}

int
kvfs_worker_start(struct kvfs_volume *v, struct kvfs_error *err)
{
    struct kvfs_worker *w = calloc(1, sizeof(*w));
    pthread_condattr_t attr;

    if (w == NULL)
        return -ENOMEM;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&w->wake, &attr);
    (void)pthread_condattr_destroy(&attr);
    v->worker = w;
    kvfs_lease_announce(v->leases); /* from now on */
    v->work_records = WORK_RECORDS;
    /* Before anybody opens the files they are of: a program that opens its database at once, and
     * keeps it open, would leave them there. */
    work_left_all(v, "T");
    if (pthread_create(&w->thread, NULL, work_thread, v) != 0) {
        (void)pthread_mutex_destroy(&w->lock);
        (void)pthread_cond_destroy(&w->wake);
        free(w);
        v->worker = NULL;
        return kvfs_error_set(err, -EAGAIN, "%s: the background thread cannot be started", v->path);
    }
    return 0;
}

void
kvfs_worker_stop(struct kvfs_volume *v)
{
    struct kvfs_worker *w = v->worker;

    if (w == NULL)
        return;
    (void)pthread_mutex_lock(&w->lock);
    w->stop = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    (void)pthread_mutex_destroy(&w->lock);
    (void)pthread_cond_destroy(&w->wake);
    free(w);
    v->worker = NULL;
}

/* Raise one of the worker's flags. */
static void
work_ask(struct kvfs_worker *w, bool *flag)
{
    (void)pthread_mutex_lock(&w->lock);
    *flag = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
}

void
kvfs_worker_room(struct kvfs_volume *v)
{
    if (v->worker != NULL)
        work_ask(v->worker, &v->worker->room);
}

void
kvfs_work_wake(struct kvfs_volume *v)
{
    if (v->worker != NULL)
        work_ask(v->worker, &v->worker->work);
}
