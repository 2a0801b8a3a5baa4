/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tree.c - see tree.h.
 */
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define TREE_BLOCK     4096u
#define TREE_ROOM      (UINT64_C(1) << 16)
#define TREE_FILE_MAX  (UINT64_C(1) << 33) /* bytes of a file that we hold in memory */
#define TREE_DEPTH_MAX 64

static const uint8_t tree_zeros[TREE_BLOCK];

int
tree_open(struct tree *t, uint32_t objects)
{
    *t = (struct tree){.objects_count = objects};
    t->objects = calloc(objects > 0 ? objects : 1, sizeof(*t->objects));
    if (t->objects == NULL)
        return -ENOMEM;
    t->objects[0] = (struct tree_object){.kind = 'd', .mode = 0755};
    return 0;
}

static void
tree_forget_names(struct tree *t)
{
    for (size_t i = 0; i < t->entries_count; i++)
        free(t->entries[i].name);
    t->entries_count = 0;
}

void
tree_close(struct tree *t)
{
    for (uint32_t i = 0; t->objects != NULL && i < t->objects_count; i++) {
        if (t->objects[i].bytes != NULL)
            (void)munmap(t->objects[i].bytes, (size_t)t->objects[i].room);
    }
    tree_forget_names(t);
    free(t->entries);
    free(t->objects);
    *t = (struct tree){.objects_count = 0};
}

/* --- names --- */

static size_t
tree_find(const struct tree *t, uint32_t parent, const uint8_t *name, size_t n)
{
    size_t i = 0;

    while (i < t->entries_count &&
           (t->entries[i].parent != parent || strncmp(t->entries[i].name, (const char *)name, n) != 0 ||
            t->entries[i].name[n] != '\0'))
        i++;
    return i;
}

static int
tree_enter(struct tree *t, uint32_t parent, const uint8_t *name, size_t n, uint32_t obj)
{
    size_t i = tree_find(t, parent, name, n);

    if (i < t->entries_count) {
        t->entries[i].obj = obj;
        return 0;
    }
    if (t->entries_count == t->entries_cap) {
        size_t want = t->entries_cap < 16 ? 16 : t->entries_cap * 2;
        void *more = reallocarray(t->entries, want, sizeof(*t->entries));

        if (more == NULL)
            return -ENOMEM;
        t->entries = more;
        t->entries_cap = want;
    }
    t->entries[i] = (struct tree_entry){parent, obj, strndup((const char *)name, n)};
    if (t->entries[i].name == NULL)
        return -ENOMEM;
    t->entries_count++;
    return 0;
}

static void
tree_drop(struct tree *t, size_t i)
{
    if (i == t->entries_count)
        return;
    free(t->entries[i].name);
    t->entries[i] = t->entries[--t->entries_count];
}

int
tree_copy_names(struct tree *t, const struct tree *from)
{
    int r = 0;

    tree_forget_names(t);
    for (size_t i = 0; r == 0 && i < from->entries_count; i++)
        r = tree_enter(t, from->entries[i].parent, (const uint8_t *)from->entries[i].name,
                       strlen(from->entries[i].name), from->entries[i].obj);
    return r;
}

static int
tree_rename(struct tree *t, const struct trace_event *e)
{
    const uint8_t *zero = memchr(e->bytes, '\0', e->n);
    size_t n = (size_t)(zero - e->bytes), n2 = e->n - n - 1, i, k;
    uint32_t obj, other;
    int r;

    i = tree_find(t, e->parent, e->bytes, n);
    k = tree_find(t, e->to, zero + 1, n2);
    if (i == t->entries_count)
        return 0; /* it came from elsewhere */
    obj = t->entries[i].obj;
    other = k < t->entries_count ? t->entries[k].obj : obj;
    r = tree_enter(t, e->to, zero + 1, n2, obj);
    if (r < 0)
        return r;
    if (e->swap)
        t->entries[i].obj = other;
    else
        tree_drop(t, tree_find(t, e->parent, e->bytes, n));
    return 0;
}

/* --- bytes --- */

int
tree_resize(struct tree *t, uint32_t obj, uint64_t size)
{
    struct tree_object *o = &t->objects[obj];

    if (size > TREE_FILE_MAX)
        return -EFBIG;
    o->hashed = false;
    if (size > o->room) {
        uint64_t room = o->room > 0 ? o->room : TREE_ROOM;
        void *bytes;

        while (room < size)
            room *= 2;
        bytes = o->bytes != NULL
                    ? mremap(o->bytes, (size_t)o->room, (size_t)room, MREMAP_MAYMOVE)
                    : mmap(NULL, (size_t)room, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (bytes == MAP_FAILED)
            return -ENOMEM;
        o->bytes = bytes;
        o->room = room;
    }
    if (size < o->size)
        memset(o->bytes + size, 0, (size_t)(o->size - size));
    o->size = size;
    return 0;
}

int
tree_write(struct tree *t, const struct trace_event *w, uint64_t at, uint64_t to)
{
    struct tree_object *o = &t->objects[w->obj];
    int r = to > o->size ? tree_resize(t, w->obj, to) : 0;

    if (r < 0 || at >= to)
        return r;
    memcpy(o->bytes + at, w->bytes + (at - w->offset), (size_t)(to - at));
    o->hashed = false;
    return 0;
}

static int
tree_room(struct tree *t, const struct trace_event *e)
{
    struct tree_object *o = &t->objects[e->obj];
    uint64_t end = e->offset + e->count;

    if (!e->punch)
        return end > o->size ? tree_resize(t, e->obj, end) : 0;
    o->hashed = false;
    if (e->offset < o->size)
        memset(o->bytes + e->offset, 0, (size_t)((end < o->size ? end : o->size) - e->offset));
    return 0;
}

int
tree_copy_object(struct tree *t, const struct tree *from, uint32_t obj)
{
    const struct tree_object *o = &from->objects[obj];
    int r;

    t->objects[obj].kind = o->kind;
    t->objects[obj].mode = o->mode;
    r = tree_resize(t, obj, 0);
    if (r == 0)
        r = tree_resize(t, obj, o->size);
    for (uint64_t at = 0; r == 0 && at < o->size; at += TREE_BLOCK) {
        size_t n = o->size - at < TREE_BLOCK ? (size_t)(o->size - at) : TREE_BLOCK;

        if (memcmp(o->bytes + at, tree_zeros, n) != 0) /* holes take no memory */
            memcpy(t->objects[obj].bytes + at, o->bytes + at, n);
    }
    return r;
}

static int
tree_new(struct tree *t, const struct trace_event *e)
{
    const uint8_t *zero = e->kind == 'l' ? memchr(e->bytes, '\0', e->n) : NULL;
    size_t n = zero != NULL ? (size_t)(zero - e->bytes) : e->n;
    struct tree_object *o = &t->objects[e->obj];
    int r = 0;

    o->kind = e->kind;
    o->mode = e->mode;
    if (zero != NULL) {
        r = tree_resize(t, e->obj, e->n - n);
        if (r == 0)
            memcpy(o->bytes, zero + 1, e->n - n - 1);
    }
    return r < 0 ? r : tree_enter(t, e->parent, e->bytes, n, e->obj);
}

int
tree_apply(struct tree *t, const struct trace_event *e)
{
    switch (e->letter) {
    case 'N':
        return tree_new(t, e);
    case 'L': /* a second name of a folder would make a circle possible */
        if (t->objects[e->obj].kind == 'd')
            return -EBADMSG;
        return tree_enter(t, e->parent, e->bytes, e->n, e->obj);
    case 'U':
        tree_drop(t, tree_find(t, e->parent, e->bytes, e->n));
        return 0;
    case 'R':
        return tree_rename(t, e);
    case 'W':
        return tree_write(t, e, e->offset, e->offset + e->n);
    case 'T':
        return tree_resize(t, e->obj, e->offset);
    case 'A':
        return tree_room(t, e);
    default:
        return 0;
    }
}

/* --- all of it --- */

static int
tree_compare(const void *a, const void *b)
{
    const struct tree_entry *x = a, *y = b;

    if (x->parent != y->parent)
        return x->parent < y->parent ? -1 : 1;
    return strcmp(x->name, y->name);
}

static struct tree_object *
tree_object(const struct tree *top, const struct tree *below, uint32_t obj)
{
    return top->objects[obj].kind != '\0' ? &top->objects[obj] : &below->objects[obj];
}

static uint64_t
tree_hash_object(struct tree_object *o)
{
    if (!o->hashed)
        o->hash = o->size > 0 ? XXH3_64bits(o->bytes, (size_t)o->size) : 0;
    o->hashed = true;
    return o->hash;
}

uint64_t
tree_hash(const struct tree *names, struct tree *top, struct tree *below)
{
    struct tree_entry *sorted = calloc(names->entries_count + 1, sizeof(*sorted));
    uint64_t hash = 0;

    if (sorted == NULL)
        return 0;
    if (names->entries_count > 0)
        memcpy(sorted, names->entries, names->entries_count * sizeof(*sorted));
    qsort(sorted, names->entries_count, sizeof(*sorted), tree_compare);
    for (size_t i = 0; i < names->entries_count; i++) {
        struct tree_object *o = tree_object(top, below, sorted[i].obj);
        uint64_t one[5] = {hash, sorted[i].parent, (uint8_t)o->kind, o->size,
                           o->kind == 'd' ? sorted[i].obj : tree_hash_object(o)};

        hash = XXH3_64bits_withSeed(one, sizeof(one), XXH3_64bits(sorted[i].name,
                                                                  strlen(sorted[i].name)));
    }
    free(sorted);
    return hash;
}

/* The bytes of O, without its holes. */
static int
tree_build_file(const struct tree_object *o, int dir, const char *name)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, o->mode | 0600), r = 0;

    if (fd < 0)
        return -errno;
    for (uint64_t at = 0; r == 0 && at < o->size;) {
        uint64_t to = at;

        while (to < o->size && to - at < (1u << 20)) {
            size_t n = o->size - to < TREE_BLOCK ? (size_t)(o->size - to) : TREE_BLOCK;

            if (memcmp(o->bytes + to, tree_zeros, n) == 0)
                break;
            to += n;
        }
        if (to > at && pwrite(fd, o->bytes + at, (size_t)(to - at), (off_t)at) !=
                           (ssize_t)(to - at))
            r = errno != 0 ? -errno : -ENOSPC;
        at = to > at ? to : to + TREE_BLOCK;
    }
    if (r == 0 && ftruncate(fd, (off_t)o->size) < 0)
        r = -errno;
    if (close(fd) < 0 && r == 0)
        r = -errno;
    return r;
}

static int
tree_build_folder(const struct tree *names, const struct tree *top, const struct tree *below,
                  uint32_t obj, int dir, unsigned depth)
{
    int r = depth > TREE_DEPTH_MAX ? -ELOOP : 0;

    for (size_t i = 0; r == 0 && i < names->entries_count; i++) {
        const struct tree_entry *e = &names->entries[i];
        const struct tree_object *o = tree_object(top, below, e->obj);

        if (e->parent != obj)
            continue;
        if (o->kind == 'f') {
            r = tree_build_file(o, dir, e->name);
        } else if (o->kind == 'l') {
            r = symlinkat((const char *)o->bytes, dir, e->name) < 0 ? -errno : 0;
        } else if (o->kind == 'd') {
            int fd = mkdirat(dir, e->name, o->mode | 0700) == 0
                         ? openat(dir, e->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

            r = fd < 0 ? -errno : tree_build_folder(names, top, below, e->obj, fd, depth + 1);
            if (fd >= 0)
                (void)close(fd);
        }
    }
    return r;
}

int
tree_build(const struct tree *names, const struct tree *top, const struct tree *below,
           const char *path)
{
    int fd = mkdir(path, 0700) == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, r;

    if (fd < 0)
        return -errno;
    r = tree_build_folder(names, top, below, 0, fd, 0);
    (void)close(fd);
    return r;
}

static int
tree_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    return (type == FTW_DP ? rmdir(path) : unlink(path)) < 0 ? errno : 0;
}

int
tree_remove(const char *path)
{
    int r;

    if (access(path, F_OK) < 0)
        return errno == ENOENT ? 0 : -errno;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this command has one thread */
    r = nftw(path, tree_remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    return r < 0 ? -errno : -r;
}
