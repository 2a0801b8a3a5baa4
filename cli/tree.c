/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tree.c - reading folders in pieces, removing and naming trees.
 *
 * Trees may be deeper than a stack and wider than memory, so walks keep their
 * way down in a list and read folders by the piece.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tree.h"

#define TREE_TEMP_PREFIX ".kvfs-"

/* --- entries ------------------------------------------------------------------- */

struct entries_fill {
    struct cli_entries *e;
    size_t max;
};

static int
entries_add(void *arg, const struct kvfs_dirent *d)
{
    struct entries_fill *fill = arg;
    struct cli_entries *e = fill->e;
    struct cli_entry *n;

    if (fill->max != 0 && e->count == fill->max)
        return 1;
    if (e->count == e->cap) {
        size_t cap = e->cap == 0 ? 64 : 2 * e->cap;
        struct cli_entry *list = realloc(e->list, cap * sizeof(*list));

        if (list == NULL)
            return -ENOMEM;
        e->list = list;
        e->cap = cap;
    }
    n = &e->list[e->count];
    *n = (struct cli_entry){d->ino, d->cookie, d->type, malloc(d->name_len + 1), d->name_len};
    if (n->name == NULL)
        return -ENOMEM;
    memcpy(n->name, d->name, d->name_len);
    n->name[d->name_len] = '\0';
    e->count++;
    return 0;
}

int
cli_entries_read(struct cli_entries *e, struct kvfs_volume *v, uint64_t dir, uint64_t cookie,
                 size_t max, struct kvfs_error *err)
{
    struct entries_fill fill = {e, max};
    int rc = kvfs_readdir(v, dir, cookie, entries_add, &fill, err);

    if (rc == -ENOMEM)
        return kvfs_error_set(err, rc, "no memory for a folder's names");
    return rc < 0 ? rc : 0;
}

static int
entries_compare(const void *a, const void *b)
{
    const struct cli_entry *x = a, *y = b;

    return strcmp(x->name, y->name);
}

void
cli_entries_sort(struct cli_entries *e)
{
    if (e->count > 1)
        qsort(e->list, e->count, sizeof(*e->list), entries_compare);
}

void
cli_entries_free(struct cli_entries *e)
{
    for (size_t i = 0; i < e->count; i++)
        free(e->list[i].name);
    free(e->list);
    *e = (struct cli_entries){NULL, 0, 0};
}

/* --- removing -------------------------------------------------------------------- */

struct tree_step { /* one folder on the way down */
    uint64_t parent, ino;
    char name[KVFS_NAME_MAX + 1];
};

struct tree_way {
    struct tree_step *steps;
    size_t count, cap;
};

static int
tree_push(struct tree_way *way, uint64_t parent, uint64_t ino, const char *name,
          struct kvfs_error *err)
{
    if (way->count == way->cap) {
        size_t cap = way->cap == 0 ? 16 : 2 * way->cap;
        struct tree_step *steps = realloc(way->steps, cap * sizeof(*steps));

        if (steps == NULL)
            return kvfs_error_set(err, -ENOMEM, "no memory for a folder this deep");
        way->steps = steps;
        way->cap = cap;
    }
    way->steps[way->count] = (struct tree_step){.parent = parent, .ino = ino};
    (void)snprintf(way->steps[way->count].name, KVFS_NAME_MAX + 1, "%s", name);
    way->count++;
    return 0;
}

/* Say which of the files below it was that could not be removed. */
static int
tree_about(const struct tree_way *way, const char *name, int rc, struct kvfs_error *err)
{
    struct kvfs_error local = {0};
    char path[4096];
    size_t n = 0;

    if (rc == -EINTR)
        return rc;
    for (size_t i = 0; i < way->count && n < sizeof(path); i++)
        n += (size_t)snprintf(path + n, sizeof(path) - n, "%s/", way->steps[i].name);
    if (n < sizeof(path))
        (void)snprintf(path + n, sizeof(path) - n, "%s", name);
    return cli_about(err != NULL ? err : &local, rc, n < sizeof(path) ? path : name);
}

/* Work on the folder that was met last: remove the files in it and go down into
 * the folders, or, once it is empty, remove it.  Somebody else may remove things
 * at the same time. */
static int
tree_step_remove(struct kvfs_volume *v, struct tree_way *way, bool interruptible,
                 struct kvfs_error *err)
{
    const struct tree_step here = way->steps[way->count - 1];
    struct cli_entries e = {NULL, 0, 0};
    int rc = cli_entries_read(&e, v, here.ino, 0, CLI_ENTRIES_MAX, err);

    for (size_t i = 0; i < e.count && rc == 0; i++) {
        if (interruptible && cli_interrupted())
            rc = -EINTR;
        else if (e.list[i].type != S_IFDIR)
            rc = kvfs_unlink(v, here.ino, e.list[i].name, err);
        else
            rc = tree_push(way, here.ino, e.list[i].ino, e.list[i].name, err);
        if (rc == -ENOENT)
            rc = 0; /* somebody was quicker */
        if (rc < 0)
            rc = tree_about(way, e.list[i].name, rc, err);
    }
    if (rc == 0 && e.count == 0) {
        rc = kvfs_rmdir(v, here.parent, here.name, err);
        way->count--;
    }
    cli_entries_free(&e);
    return rc == -ENOENT ? 0 : rc;
}

int
cli_tree_remove(struct kvfs_volume *v, uint64_t dir, const char *name, bool interruptible,
                struct kvfs_error *err)
{
    struct tree_way way = {NULL, 0, 0};
    struct kvfs_attr attr;
    int rc = kvfs_lookup(v, dir, name, &attr, err);

    if (rc < 0)
        return rc;
    if ((attr.mode & S_IFMT) != S_IFDIR)
        return kvfs_unlink(v, dir, name, err);
    rc = tree_push(&way, dir, attr.ino, name, err);
    while (rc == 0 && way.count > 0)
        rc = tree_step_remove(v, &way, interruptible, err);
    free(way.steps);
    return rc;
}

/* --- places ------------------------------------------------------------------------ */

/* The last part as it is written, slashes behind it left out; "" for the root. */
static const char *
path_last(const char *path, size_t *len)
{
    const char *end = path + strlen(path), *start;

    while (end > path && end[-1] == '/')
        end--;
    for (start = end; start > path && start[-1] != '/';)
        start--;
    *len = (size_t)(end - start);
    return start;
}

static bool
path_ends_in_slash(const char *path)
{
    size_t len = strlen(path);

    return len > 0 && path[len - 1] == '/';
}

static int
path_no_file(const char *path, struct kvfs_error *err)
{
    (void)kvfs_error_set(err, -ENOTDIR, "a file's name cannot end in a slash");
    return cli_about(err, -ENOTDIR, path);
}

int
cli_path_split(struct kvfs_volume *v, const char *path, bool file, uint64_t *dir,
               char name[KVFS_NAME_MAX + 1], struct kvfs_error *err)
{
    size_t len;
    const char *last = path_last(path, &len);
    int rc;

    if (len == 0)
        rc = kvfs_error_set(err, -EINVAL, "is the root folder, which is always there");
    else if ((len == 1 && last[0] == '.') || (len == 2 && memcmp(last, "..", 2) == 0))
        rc = kvfs_error_set(err, -EINVAL, "'%.*s' is no name; it stands for a folder that is there",
                            (int)len, last);
    else
        rc = kvfs_path_parent(v, path, dir, name, err);
    if (rc == 0 && file && path_ends_in_slash(path))
        return path_no_file(path, err);
    return rc < 0 ? cli_about(err, rc, path) : 0;
}

int
cli_path_entry(struct kvfs_volume *v, const char *path, uint64_t *dir,
               char name[KVFS_NAME_MAX + 1], struct kvfs_error *err)
{
    struct kvfs_attr attr;
    int rc = cli_path_split(v, path, false, dir, name, err);

    if (rc < 0 || !path_ends_in_slash(path))
        return rc;
    rc = kvfs_lookup(v, *dir, name, &attr, err);
    if (rc == 0 && (attr.mode & S_IFMT) != S_IFDIR)
        rc = kvfs_error_set(err, -ENOTDIR, "'%s' is no folder", name);
    return rc < 0 ? cli_about(err, rc, path) : 0;
}

void
cli_path_base(const char *path, char name[KVFS_NAME_MAX + 1])
{
    size_t len;
    const char *last = path_last(path, &len);

    (void)snprintf(name, KVFS_NAME_MAX + 1, "%.*s",
                   (int)(len > KVFS_NAME_MAX ? KVFS_NAME_MAX : len), last);
}

int
cli_place_find(struct kvfs_volume *v, const char *target, const char *source, bool exact,
               struct cli_place *place, struct kvfs_error *err)
{
    struct kvfs_attr attr;
    int rc = exact ? -ENOENT : kvfs_path_lookup(v, target, true, &attr, err);

    place->slash = place->inside = false;
    if (rc == 0 && (attr.mode & S_IFMT) == S_IFDIR) {
        place->dir = attr.ino;
        place->inside = true;
        cli_path_base(source, place->name);
        if (place->name[0] == '\0')
            return kvfs_error_set(err, -EINVAL, "%s: has no name to use in %s", source, target);
    } else {
        if (rc < 0 && rc != -ENOENT)
            return cli_about(err, rc, target);
        rc = cli_path_split(v, target, false, &place->dir, place->name, err);
        if (rc < 0)
            return rc;
        place->slash = path_ends_in_slash(target);
    }
    rc = kvfs_lookup(v, place->dir, place->name, &place->attr, err);
    place->exists = rc == 0;
    return rc == -ENOENT || rc == 0 ? 0 : cli_about(err, rc, target);
}

int
cli_place_file(const struct cli_place *place, const char *target, struct kvfs_error *err)
{
    return place->slash ? path_no_file(target, err) : 0;
}

/* --- things half made ----------------------------------------------------------------- */

void
cli_temp_name(const char *kind, char name[KVFS_NAME_MAX + 1])
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(name, KVFS_NAME_MAX + 1, TREE_TEMP_PREFIX "%s-%ld-%llx%08lx", kind,
                   (long)getpid(), (unsigned long long)now.tv_sec, (unsigned long)now.tv_nsec);
}

/* Is NAME one of ours whose process is no more? */
static bool
temp_dead(const char *name)
{
    static const char *const kinds[] = {TREE_TEMP_PREFIX "import-", TREE_TEMP_PREFIX "copy-"};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t n = strlen(kinds[i]);
        char *end;
        long pid;

        if (strncmp(name, kinds[i], n) != 0)
            continue;
        pid = strtol(name + n, &end, 10);
        return pid > 0 && *end == '-' && kill((pid_t)pid, 0) < 0 && errno == ESRCH;
    }
    return false;
}

void
cli_temp_collect(struct kvfs_volume *v, uint64_t dir)
{
    struct cli_entries e = {NULL, 0, 0};
    uint64_t cookie = 0;

    do {
        cli_entries_free(&e);
        if (cli_entries_read(&e, v, dir, cookie, CLI_ENTRIES_MAX, NULL) < 0)
            break;
        for (size_t i = 0; i < e.count; i++) {
            if (temp_dead(e.list[i].name)) /* also a lease of it would refuse */
                (void)cli_tree_remove(v, dir, e.list[i].name, true, NULL);
        }
        if (e.count > 0)
            cookie = e.list[e.count - 1].cookie;
    } while (e.count == CLI_ENTRIES_MAX);
    cli_entries_free(&e);
}
