/* SPDX-License-Identifier: BSD-3-Clause
 *
 * copy_tree.c - moving a tree from one volume to another.
 *
 * Contents come from one snapshot of the source.  Names come as they are met (a
 * snapshot has none), so a file made behind the snapshot is left out and a
 * name that goes meanwhile may be missing.  A file of several names is copied
 * once; its other names become hard links.  The walk keeps its way down in a
 * list, and of each folder on it only a piece of its names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "copy.h"

struct copy_frame {
    uint64_t src, dst;
    struct kvfs_attr attr; /* of src; set on dst when all is in it */
    uint64_t cookie, names_sum;
    struct cli_entries e;
    size_t at;  /* next of e */
    bool proved; /* a folder that we made: prove it at the end */
    char name[KVFS_NAME_MAX + 1]; /* in the frame before; the first is cp->src_path */
};

/* Say which file of the source the error is about: NAME in the deepest folder, or
 * (NULL) that folder.  Of a path beyond all measure, its end. */
static int
copy_about(struct copy *cp, int rc, const char *name)
{
    char path[1024];
    size_t at = sizeof(path) - 1;

    if (rc == -EINTR)
        return rc;
    path[at] = '\0';
    for (size_t i = cp->frames_count + 1; i-- > 0;) {
        const char *part = i == cp->frames_count ? name
                           : i == 0              ? cp->src_path
                                                 : cp->frames[i].name;
        size_t len = part != NULL ? strlen(part) : 0;

        while (len > 0 && part[len - 1] == '/')
            len--;
        if (part == NULL)
            continue;
        if (len + 1 > at)
            break;
        if (path[at] != '\0')
            path[--at] = '/';
        at -= len;
        memcpy(path + at, part, len);
    }
    return cli_about(&cp->c->err, rc, path[at] != '\0' ? path + at : "/");
}

/* --- hard links ------------------------------------------------------------------ */

static size_t
copy_link_slot(const struct copy_link *links, size_t cap, uint64_t src)
{
    size_t i = (size_t)(src * 0x9e3779b97f4a7c15ULL >> 20) & (cap - 1);

    while (links[i].dst != 0 && links[i].src != src)
        i = (i + 1) & (cap - 1);
    return i;
}

/* The copy of SRC, 0 if there is none yet. */
static uint64_t
copy_link_find(const struct copy *cp, uint64_t src)
{
    return cp->links_cap == 0 ? 0 : cp->links[copy_link_slot(cp->links, cp->links_cap, src)].dst;
}

static int
copy_link_add(struct copy *cp, uint64_t src, uint64_t dst)
{
    if (2 * cp->links_count >= cp->links_cap) {
        size_t cap = cp->links_cap == 0 ? 256 : 2 * cp->links_cap;
        struct copy_link *links = calloc(cap, sizeof(*links));

        if (links == NULL)
            return kvfs_error_set(&cp->c->err, -ENOMEM, "no memory for hard links");
        for (size_t i = 0; i < cp->links_cap; i++) {
            if (cp->links[i].dst != 0)
                links[copy_link_slot(links, cap, cp->links[i].src)] = cp->links[i];
        }
        free(cp->links);
        cp->links = links;
        cp->links_cap = cap;
    }
    cp->links[copy_link_slot(cp->links, cp->links_cap, src)] = (struct copy_link){src, dst};
    cp->links_count++;
    return 0;
}

/* --- contents ---------------------------------------------------------------------- */

static int
copy_write(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct copy *cp = arg;

    cp->bytes += count;
    return kvfs_file_pwrite(cp->f, buf, count, offset, 0, err);
}

static int
copy_window(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct copy *cp = arg;

    cli_hash_window(cp->hash, buf, count, offset);
    if (!cp->single)
        cli_progress_update(&cp->progress, cp->progress.done + count, cp->progress.moved + count);
    return cli_runs(buf, count, offset, cp->block_size_bytes, copy_write, cp, err);
}

static int
copy_contents(struct copy *cp, struct cli_snapshot_source *source, uint64_t dst)
{
    int rc = kvfs_file_open(cp->dst, dst, KVFS_OPEN_WRITE, &cp->f, &cp->c->err);

    if (rc < 0)
        return rc;
    rc = cli_source_walk(&source->base, copy_window, cp, cp->single ? &cp->progress : NULL,
                         &cp->c->err);
    if (rc == 0) /* before the times are set */
        rc = cp->single ? kvfs_file_flush(cp->f, &cp->c->err) : 0;
    kvfs_file_close(cp->f);
    return rc;
}

static int
copy_times(struct copy *cp, const struct kvfs_attr *attr, uint64_t dst)
{
    return kvfs_setattr(cp->dst, dst, KVFS_SET_ATIME | KVFS_SET_MTIME, attr, &cp->c->err);
}

/* --- inodes ------------------------------------------------------------------------ */

static int
copy_push(struct copy *cp, const struct copy_frame *frame)
{
    if (cp->frames_count == cp->frames_cap) {
        size_t cap = cp->frames_cap == 0 ? 16 : 2 * cp->frames_cap;
        struct copy_frame *frames = realloc(cp->frames, cap * sizeof(*frames));

        if (frames == NULL)
            return kvfs_error_set(&cp->c->err, -ENOMEM, "no memory for a folder this deep");
        cp->frames = frames;
        cp->frames_cap = cap;
    }
    cp->frames[cp->frames_count++] = *frame;
    return 0;
}

/* All but folders. */
static int
copy_inode(struct copy *cp, const struct kvfs_attr *src, uint64_t dir, const char *name,
           const struct kvfs_create *wanted)
{
    char target[KVFS_SYMLINK_MAX + 1];
    struct kvfs_create create = *wanted;
    struct kvfs_error *err = &cp->c->err;
    struct cli_snapshot_source source;
    struct kvfs_attr made;
    uint64_t xattrs;
    size_t len = 0;
    int rc = 0;

    if (S_ISREG(src->mode)) {
        rc = cli_snapshot_source_init(&source, cp->snapshot, src->ino, err);
        if (rc == -ENOENT)
            return 1; /* made since */
        create.size_bytes = source.base.size_bytes;
        create.block_size_bytes = cp->block_size_bytes = src->block_size_bytes;
    } else if (S_ISLNK(src->mode)) {
        rc = kvfs_readlink(cp->src, src->ino, target, KVFS_SYMLINK_MAX, &len, err);
        if (rc == 0)
            target[len] = '\0';
        create.target = target;
    }
    if (rc == 0)
        rc = kvfs_create(cp->dst, dir, name, &create, &made, err);
    if (rc == 0)
        rc = copy_xattrs(cp, cp->src, src->ino, made.ino, &xattrs);
    if (rc != 0)
        return rc;
    copy_hash_begin(cp, src, create.size_bytes, xattrs, target, len);
    if (S_ISREG(src->mode))
        rc = copy_contents(cp, &source, made.ino);
    if (rc == 0)
        rc = copy_times(cp, src, made.ino);
    if (rc == 0)
        rc = copy_proof_add(cp, made.ino, 0);
    if (rc == 0 && src->nlink > 1)
        rc = copy_link_add(cp, src->ino, made.ino);
    cp->files += S_ISREG(src->mode);
    cp->others += !S_ISREG(src->mode);
    return rc;
}

/* One name.  1: the inode is no longer, or not yet, there. */
static int
copy_entry(struct copy *cp, uint64_t ino, uint64_t dir, const char *name)
{
    struct kvfs_error *err = &cp->c->err;
    struct kvfs_create create;
    struct kvfs_attr attr, made;
    struct copy_frame frame;
    uint64_t twin;
    int rc = kvfs_getattr(cp->src, ino, &attr, err);

    if (rc < 0)
        return rc == -ENOENT ? 1 : rc;
    cp->names++;
    create = (struct kvfs_create){
        .mode = attr.mode, .uid = attr.uid, .gid = attr.gid, .rdev = attr.rdev};
    if (!S_ISDIR(attr.mode)) {
        twin = attr.nlink > 1 ? copy_link_find(cp, ino) : 0;
        return twin != 0 ? kvfs_link(cp->dst, twin, dir, name, err)
                         : copy_inode(cp, &attr, dir, name, &create);
    }
    rc = kvfs_create(cp->dst, dir, name, &create, &made, err);
    if (rc < 0)
        return rc;
    cp->folders++;
    frame = (struct copy_frame){.src = ino, .dst = made.ino, .attr = attr, .proved = true};
    (void)snprintf(frame.name, sizeof(frame.name), "%s", name);
    return copy_push(cp, &frame);
}

/* --- the walk ------------------------------------------------------------------------ */

/* All of the deepest folder was copied. */
static int
copy_pop(struct copy *cp)
{
    struct copy_frame *top = &cp->frames[cp->frames_count - 1];
    uint64_t xattrs;
    int rc = 0;

    if (top->proved) {
        rc = copy_xattrs(cp, cp->src, top->src, top->dst, &xattrs);
        if (rc == 0)
            rc = copy_times(cp, &top->attr, top->dst);
        copy_hash_begin(cp, &top->attr, 0, xattrs, NULL, 0);
        if (rc == 0)
            rc = copy_proof_add(cp, top->dst, top->names_sum);
    }
    cli_entries_free(&top->e);
    cp->frames_count--;
    return rc;
}

static int
copy_step(struct copy *cp)
{
    struct copy_frame *top = &cp->frames[cp->frames_count - 1];
    size_t index = cp->frames_count - 1;
    const struct cli_entry *entry;
    uint64_t sum;
    int rc;

    if (cli_interrupted())
        return -EINTR;
    if (top->at == top->e.count) {
        cli_entries_free(&top->e);
        top->at = 0;
        rc = cli_entries_read(&top->e, cp->src, top->src, top->cookie, CLI_ENTRIES_MAX,
                              &cp->c->err);
        if (rc == -ENOENT) /* the folder itself is gone */
            rc = 0;
        if (rc < 0 || top->e.count == 0)
            return rc < 0 ? copy_about(cp, rc, NULL) : copy_pop(cp);
        top->cookie = top->e.list[top->e.count - 1].cookie;
    }
    entry = &top->e.list[top->at++];
    if (cp->src == cp->dst && entry->ino == cp->stage)
        return 0; /* the copy does not copy itself */
    sum = copy_hash_name(entry->name, entry->name_len, entry->type);
    rc = copy_entry(cp, entry->ino, top->dst, entry->name);
    if (rc == 0)
        cp->frames[index].names_sum += sum; /* TOP may have moved */
    return rc < 0 ? copy_about(cp, rc, entry->name) : 0;
}

static int
copy_walk(struct copy *cp)
{
    int rc = 0;

    while (rc == 0 && cp->frames_count > 0)
        rc = copy_step(cp);
    return rc;
}

int
copy_tree(struct copy *cp, uint64_t src_ino, uint64_t dir, const char *name)
{
    int rc = copy_entry(cp, src_ino, dir, name);

    if (rc > 0)
        return kvfs_error_set(&cp->c->err, -ENOENT, "the source was removed");
    return rc < 0 ? cli_about(&cp->c->err, rc, cp->src_path) : copy_walk(cp);
}

int
copy_children(struct copy *cp, uint64_t src_ino, uint64_t dir)
{
    const struct copy_frame frame = {.src = src_ino, .dst = dir};
    int rc = copy_push(cp, &frame);

    return rc < 0 ? rc : copy_walk(cp);
}

int
copy_attributes(struct copy *cp, uint64_t src_ino, uint64_t dst_ino)
{
    struct kvfs_error *err = &cp->c->err;
    struct kvfs_attr attr;
    uint64_t xattrs;
    int rc = kvfs_getattr(cp->src, src_ino, &attr, err);

    if (rc == 0)
        rc = copy_xattrs(cp, cp->src, src_ino, dst_ino, &xattrs);
    if (rc == 0)
        rc = kvfs_setattr(cp->dst, dst_ino,
                          KVFS_SET_MODE | KVFS_SET_UID | KVFS_SET_GID | KVFS_SET_ATIME |
                              KVFS_SET_MTIME,
                          &attr, err);
    return rc;
}

void
copy_tree_free(struct copy *cp)
{
    while (cp->frames_count > 0)
        cli_entries_free(&cp->frames[--cp->frames_count].e);
    free(cp->frames);
    free(cp->links);
}
