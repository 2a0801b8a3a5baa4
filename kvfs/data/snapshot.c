/* SPDX-License-Identifier: BSD-3-Clause
 *
 * snapshot.c - one instant of a volume.
 *
 * An engine snapshot and the layers that were sealed but perhaps not yet in it,
 * both taken under the cut lock.  A commit in flight may or may not be in the
 * engine snapshot; its layers are held all the same, and lie on top, so it makes
 * no difference.  What is held keeps memory and the engine's pages from being
 * used again, so the snapshot is announced to others (lease.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "extents.h"
#include "lease.h"
#include "node.h"
#include "overlay.h"
#include "read.h"
#include "txn_priv.h"

#define SNAPSHOT_FEW 8 /* layers, as a rule */

struct snapshot_file {
    struct snapshot_file *next;
    struct kvfs_view view; /* contents: with what the layers say of size and version */
};

struct kvfs_snapshot {
    struct kvfs_volume *v;
    struct kvfs_db_snap *snap;
    struct kvfs_layer **layers; /* newest first, each held */
    size_t layers_count;
    struct kvfs_layer *few[SNAPSHOT_FEW];
    int name; /* lease.c's */
    struct snapshot_file *files; /* those that were looked at */
};

/* Hold the sealed layers, with a place for one more; cut lock held. */
static int
snapshot_layers(struct kvfs_snapshot *s)
{
    struct kvfs_overlay *o = s->v->overlay;
    size_t count = 1;

    for (struct kvfs_layer *l = o->newest; l != NULL; l = l->older)
        count++;
    s->layers = s->few;
    if (count > SNAPSHOT_FEW) {
        s->layers = calloc(count, sizeof(struct kvfs_layer *));
        if (s->layers == NULL)
            return -ENOMEM;
    }
    for (struct kvfs_layer *l = o->newest; l != NULL; l = l->older) {
        kvfs_layer_hold(o, l);
        s->layers[s->layers_count++] = l;
    }
    return 0;
}

int
kvfs_snapshot_new(struct kvfs_volume *v, struct kvfs_snapshot **snapshotp, struct kvfs_error *err)
{
    struct kvfs_snapshot *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
    s->v = v;
    s->layers = s->few;
    s->name = kvfs_lease_pin(v->leases);
    *snapshotp = s;
    return 0;
}

/* Pin what is sealed; cut lock held, shared, so that no commit takes layers away meanwhile.
 * RC: of the sealing. */
static int
snapshot_pin(struct kvfs_snapshot *s, int rc, struct kvfs_error *err)
{
    struct kvfs_volume *v = s->v;

    if (rc == 0)
        rc = snapshot_layers(s);
    if (rc < 0)
        return kvfs_error_set(err, rc, "%s: no memory", v->path);
    return v->engine->begin(v->db, &s->snap, err);
}

int
kvfs_snapshot_pin_locked(struct kvfs_snapshot *s, struct kvfs_error *err)
{
    return snapshot_pin(s, kvfs_overlay_seal_locked(s->v->overlay), err);
}

void
kvfs_snapshot_add_locked(struct kvfs_snapshot *s, struct kvfs_layer *l)
{
    memmove(s->layers + 1, s->layers, s->layers_count * sizeof(struct kvfs_layer *));
    kvfs_layer_hold(s->v->overlay, l);
    s->layers[0] = l;
    s->layers_count++;
}

bool
kvfs_snapshot_is_pinned(const struct kvfs_snapshot *s)
{
    return s->snap != NULL;
}

int
kvfs_snapshot_failure(const struct kvfs_snapshot *s)
{
    int code = 0;

    for (size_t i = 0; i < s->layers_count && code == 0; i++)
        code = atomic_load(&s->layers[i]->result);
    return code;
}

bool
kvfs_snapshot_failed(const struct kvfs_snapshot *s)
{
    return kvfs_snapshot_failure(s) != 0;
}

int
kvfs_snapshot_open(struct kvfs_volume *v, struct kvfs_snapshot **snapshotp, struct kvfs_error *err)
{
    struct kvfs_snapshot *s = NULL;
    int rc = kvfs_volume_usable(v, err);

    if (rc < 0)
        return rc;
    rc = kvfs_snapshot_new(v, &s, err);
    if (rc < 0)
        return rc;
    kvfs_cut_lock_shared(v->overlay);
    if (!kvfs_overlay_is_sealed(v->overlay)) {
        kvfs_cut_unlock(v->overlay);
        kvfs_cut_lock(v->overlay);
        rc = kvfs_overlay_seal_locked(v->overlay);
    }
    rc = snapshot_pin(s, rc, err);
    kvfs_cut_unlock(v->overlay);
    if (rc < 0) {
        kvfs_snapshot_close(s);
        return rc;
    }
    *snapshotp = s;
    return 0;
}

void
kvfs_snapshot_close(struct kvfs_snapshot *s)
{
    if (s == NULL)
        return;
    while (s->files != NULL) {
        struct snapshot_file *f = s->files;

        s->files = f->next;
        kvfs_view_free(&f->view);
        free(f);
    }
    if (!atomic_load(&s->v->forked)) {
        if (s->snap != NULL)
            s->v->engine->end(s->snap);
        kvfs_lease_unpin(s->v->leases, s->name);
        for (size_t i = 0; i < s->layers_count; i++)
            kvfs_layer_drop(s->v->overlay, s->layers[i]);
    }
    if (s->layers != s->few)
        free(s->layers);
    free(s);
}

static int
snapshot_file(struct kvfs_snapshot *s, uint64_t ino, struct snapshot_file **filep,
              struct kvfs_error *err)
{
    struct snapshot_file *f;
    int rc = kvfs_volume_usable(s->v, err);

    if (rc < 0)
        return rc;
    for (f = s->files; f != NULL; f = f->next) {
        if (f->view.ino == ino) {
            *filep = f;
            return 0;
        }
    }
    f = calloc(1, sizeof(*f));
    if (f == NULL)
        return kvfs_error_set(err, -ENOMEM, "%s: no memory", s->v->path);
    rc = kvfs_view_load(s->v, s->snap, ino, &f->view, err);
    if (rc < 0) {
        kvfs_view_free(&f->view);
        free(f);
        return rc;
    }
    for (size_t i = s->layers_count; i-- > 0;) { /* oldest first: the newest wins */
        const struct kvfs_layer_node *ln = kvfs_layer_node_find(s->layers[i], ino);

        if (ln != NULL && ln->size_set)
            f->view.contents.size_bytes = ln->size_bytes;
        if (ln != NULL && ln->version_set)
            f->view.contents.version = ln->version;
    }
    f->next = s->files;
    s->files = f;
    *filep = f;
    return 0;
}

int
kvfs_snapshot_info(struct kvfs_snapshot *s, uint64_t ino, struct kvfs_file_info *info,
                   struct kvfs_error *err)
{
    struct snapshot_file *f;
    int rc = snapshot_file(s, ino, &f, err);

    if (rc == 0)
        *info = (struct kvfs_file_info){.ino = ino,
                                        .size_bytes = f->view.contents.size_bytes,
                                        .block_size_bytes = f->view.block_size,
                                        .version = f->view.contents.version};
    return rc;
}

static enum kvfs_slot_state
snapshot_get(const struct kvfs_snapshot *s, uint64_t ino, uint64_t index, void *buf, size_t from,
             size_t len)
{
    enum kvfs_slot_state state = KVFS_SLOT_EMPTY;

    for (size_t i = 0; i < s->layers_count && state == KVFS_SLOT_EMPTY; i++)
        state = kvfs_layer_get(s->layers[i], ino, index, buf, from, len);
    return state;
}

static int
snapshot_range(const struct kvfs_snapshot *s, const struct snapshot_file *f, uint64_t count,
               uint64_t offset, struct kvfs_error *err)
{
    uint64_t size = f->view.contents.size_bytes;

    if (offset > size || count > size - offset)
        return kvfs_error_set(err, -EINVAL,
                              "%s: inode %llu: %llu bytes at %llu reach beyond the end at %llu",
                              s->v->path, (unsigned long long)f->view.ino,
                              (unsigned long long)count, (unsigned long long)offset,
                              (unsigned long long)size);
    return 0;
}

int
kvfs_snapshot_pread(struct kvfs_snapshot *s, uint64_t ino, void *buf, size_t count, uint64_t offset,
                    struct kvfs_error *err)
{
    struct snapshot_file *f = NULL;
    struct kvfs_read r;
    int rc = snapshot_file(s, ino, &f, err);

    if (rc != 0)
        return rc;
    rc = snapshot_range(s, f, count, offset, err);
    for (size_t done = 0; rc == 0 && done < count; done += r.count) {
        kvfs_read_begin(&r, &f->view, (uint8_t *)buf + done, offset + done, count - done);
        for (size_t i = 0; i < r.blocks; i++) {
            size_t from;
            size_t len;
            uint8_t *to = kvfs_read_part(&r, &f->view, i, &from, &len);

            r.state[i] = (uint8_t)snapshot_get(s, ino, r.first + i, to, from, len);
            if (r.state[i] == KVFS_SLOT_ZEROS)
                memset(to, 0, len);
            if (r.state[i] == KVFS_SLOT_EMPTY)
                r.missing++;
            r.hole_cut[i] = kvfs_holes_cut(&f->view.holes, r.first + i);
        }
        if (r.missing > 0)
            rc = kvfs_read_engine(s->v, s->snap, &f->view, &r, err);
    }
    return rc;
}

int
kvfs_snapshot_extents(struct kvfs_snapshot *s, uint64_t ino, uint64_t count, uint64_t offset,
                      unsigned limit, kvfs_extent_fn *fn, void *arg, struct kvfs_error *err)
{
    struct kvfs_extents x = {.offset = offset, .count = count, .limit = limit, .fn = fn,
                             .arg = arg};
    struct kvfs_known known = {0};
    struct snapshot_file *f = NULL;
    int rc = snapshot_file(s, ino, &f, err);

    if (rc == 0)
        rc = snapshot_range(s, f, count, offset, err);
    if (rc < 0 || count == 0)
        return rc;
    for (size_t i = 0; i < s->layers_count && rc == 0; i++)
        rc = kvfs_known_add(&known, s->layers[i], ino, offset >> f->view.shift,
                            (offset + count - 1) >> f->view.shift);
    kvfs_known_sort(&known);
    for (size_t i = 0; i < known.blocks_count; i++)
        known.blocks[i].data =
            snapshot_get(s, ino, known.blocks[i].index, NULL, 0, 0) == KVFS_SLOT_DATA;
    if (rc < 0)
        rc = kvfs_error_set(err, rc, "%s: no memory", s->v->path);
    else
        rc = kvfs_extents_walk(s->v, s->snap, &f->view, &known, &x, err);
    kvfs_known_free(&known);
    return rc;
}
