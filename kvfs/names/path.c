/* SPDX-License-Identifier: BSD-3-Clause
 *
 * path.c - from a path to an inode.
 *
 * A path is resolved within one snapshot, so it is resolved as of one instant.
 * What is left to walk is kept in one string; a link's target is put in front
 * of it.  Whatever is followed by a slash must be a folder, as POSIX wants.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "names.h"

#define PATH_LINKS_MAX 40

struct path_walk {
    struct kvfs_volume *v;
    struct kvfs_db_snap *snap;
    struct kvfs_error *err;
    uint64_t ino; /* where the walk is */
    struct kvfs_inode_record rec;
    char *buf; /* owns what REST points into */
    const char *rest;
    unsigned links;
};

/* The next part, empty ones and "." skipped; NULL at the end. */
static const char *
path_next(struct path_walk *w, size_t *len)
{
    const char *part;

    for (;;) {
        w->rest += strspn(w->rest, "/");
        if (*w->rest == '\0')
            return NULL;
        part = w->rest;
        *len = strcspn(part, "/");
        w->rest += *len;
        if (*len != 1 || part[0] != '.')
            return part;
    }
}

static bool
path_is_last(const struct path_walk *w)
{
    struct path_walk ahead = *w;
    size_t len;

    return path_next(&ahead, &len) == NULL;
}

static int
path_enter(struct path_walk *w, uint64_t ino)
{
    w->ino = ino;
    return kvfs_inode_read(w->v, w->snap, ino, &w->rec, w->err);
}

/* Put the target of link INO, an entry of the present folder, before the rest. */
static int
path_follow(struct path_walk *w, uint64_t ino)
{
    char target[KVFS_SYMLINK_MAX + 1];
    size_t target_len, rest_len = strlen(w->rest);
    char *buf;
    int rc;

    if (++w->links > PATH_LINKS_MAX)
        return kvfs_error_set(w->err, -ELOOP, "more than %d symbolic links in a path",
                              PATH_LINKS_MAX);
    rc = kvfs_target_read(w->v, w->snap, ino, target, &target_len, w->err);
    if (rc != 0)
        return rc;
    buf = malloc(target_len + rest_len + 1);
    if (buf == NULL)
        return kvfs_error_set(w->err, -ENOMEM, "no memory for a path");
    memcpy(buf, target, target_len);
    memcpy(buf + target_len, w->rest, rest_len + 1); /* it begins with a slash or is empty */
    free(w->buf);
    w->buf = buf;
    w->rest = buf;
    return target[0] == '/' ? path_enter(w, KVFS_ROOT_INO) : 0;
}

static int
path_folder_judge(struct path_walk *w, const char *part, size_t len)
{
    struct kvfs_shown shown;

    if (S_ISDIR(w->rec.mode))
        return 0;
    return kvfs_error_set(w->err, -ENOTDIR, "'%s' is below something that is no folder",
                          kvfs_name_show(&shown, part, len));
}

/* One step to PART.  FOLLOW: also if it is the last one and a link. */
static int
path_step(struct path_walk *w, const char *part, size_t len, bool follow)
{
    struct kvfs_inode_record found;
    struct kvfs_dentry_record dentry;
    struct kvfs_shown shown;
    int rc = path_folder_judge(w, part, len);

    if (rc != 0)
        return rc;
    if (kvfs_name_is_dots(part, len))
        return path_enter(w, w->rec.parent); /* "." never comes here */
    if (len > KVFS_NAME_MAX)
        return kvfs_error_set(w->err, -ENAMETOOLONG, "a name of %zu bytes; the longest is %d", len,
                              KVFS_NAME_MAX);
    rc = kvfs_dentry_read(w->v, w->snap, w->ino, part, len, &dentry, w->err);
    if (rc == -ENOENT && *w->rest == '/')
        return kvfs_error_set(w->err, rc, "there is no folder '%s'",
                              kvfs_name_show(&shown, part, len));
    if (rc != 0)
        return rc;
    rc = kvfs_inode_read(w->v, w->snap, dentry.ino, &found, w->err);
    if (rc == -ENOENT)
        return kvfs_error_set(w->err, -EIO, "'%s' names inode %llu, which is missing",
                              kvfs_name_show(&shown, part, len), (unsigned long long)dentry.ino);
    if (rc != 0)
        return rc;
    if (S_ISLNK(found.mode) && (follow || *w->rest == '/'))
        return path_follow(w, dentry.ino);
    w->ino = dentry.ino;
    w->rec = found;
    if (*w->rest == '/' && !S_ISDIR(found.mode))
        return kvfs_error_set(w->err, -ENOTDIR, "'%s' is no folder",
                              kvfs_name_show(&shown, part, len));
    return 0;
}

static int
path_begin(struct path_walk *w, struct kvfs_volume *v, const char *path, struct kvfs_error *err)
{
    int rc;

    *w = (struct path_walk){.v = v, .err = err, .buf = strdup(path)};
    if (w->buf == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory for a path");
    w->rest = w->buf;
    rc = kvfs_names_begin(v, &w->snap, err);
    if (rc != 0) {
        free(w->buf);
        return rc;
    }
    return 0;
}

static void
path_end(struct path_walk *w)
{
    w->v->engine->end(w->snap);
    free(w->buf);
}

int
kvfs_path_lookup(struct kvfs_volume *v, const char *path, bool follow, struct kvfs_attr *attr,
                 struct kvfs_error *err)
{
    struct path_walk w;
    const char *part;
    size_t len;
    int rc = path_begin(&w, v, path, err);

    if (rc != 0)
        return rc;
    rc = path_enter(&w, KVFS_ROOT_INO);
    while (rc == 0 && (part = path_next(&w, &len)) != NULL)
        rc = path_step(&w, part, len, follow);
    if (rc == 0)
        rc = kvfs_attr_read(v, w.snap, w.ino, attr, err);
    path_end(&w);
    return rc;
}

static int
path_last_take(struct path_walk *w, const char *part, size_t len, uint64_t *dir, char *name)
{
    int rc;

    if (part == NULL || kvfs_name_is_dots(part, len))
        return kvfs_error_set(w->err, -EINVAL, part == NULL ? "the path names the root folder"
                                                            : "the path ends in '..'");
    if (len > KVFS_NAME_MAX)
        return kvfs_error_set(w->err, -ENAMETOOLONG, "a name of %zu bytes; the longest is %d", len,
                              KVFS_NAME_MAX);
    rc = path_folder_judge(w, part, len);
    if (rc == 0) {
        memcpy(name, part, len);
        name[len] = '\0';
        *dir = w->ino;
    }
    return rc;
}

int
kvfs_path_parent(struct kvfs_volume *v, const char *path, uint64_t *dir, char *name,
                 struct kvfs_error *err)
{
    struct path_walk w;
    const char *part = NULL;
    size_t len = 0;
    int rc = path_begin(&w, v, path, err);

    if (rc != 0)
        return rc;
    rc = path_enter(&w, KVFS_ROOT_INO);
    while (rc == 0) {
        part = path_next(&w, &len);
        if (part == NULL || path_is_last(&w))
            break;
        rc = path_step(&w, part, len, true);
    }
    if (rc == 0)
        rc = path_last_take(&w, part, len, dir, name);
    path_end(&w);
    return rc;
}
