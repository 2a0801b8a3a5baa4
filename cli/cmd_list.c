/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_list.c - kvfs ls, stat: looking at names and attributes.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data.h"
#include "tree.h"

/* --- ls ---------------------------------------------------------------------- */

struct ls {
    struct cli *c;
    struct kvfs_volume *v;
    struct cli_json_list list;
    bool headers; /* name each folder before its entries */
    bool begun;
    int status;
    char **todo; /* folders still to be listed, the next one last */
    size_t todo_count, todo_cap;
};

/* "dir/name", malloc'd; NULL without memory. */
static char *
ls_join(const char *dir, const char *name)
{
    size_t n = strlen(dir);
    char *path;

    if (asprintf(&path, "%s%s%s", dir, n > 0 && dir[n - 1] != '/' ? "/" : "", name) < 0)
        return NULL;
    return path;
}

static int
ls_target(struct ls *ls, const struct kvfs_attr *attr, char target[KVFS_SYMLINK_MAX], size_t *len)
{
    *len = 0;
    if ((attr->mode & S_IFMT) != S_IFLNK)
        return 0;
    return kvfs_readlink(ls->v, attr->ino, target, KVFS_SYMLINK_MAX, len, &ls->c->err);
}

static void
ls_print(struct ls *ls, const char *name, const struct kvfs_attr *attr, const char *target,
         size_t target_len)
{
    char mode[11], when[CLI_TIME_TEXT];

    if (ls->c->o.long_listing)
        (void)printf("%s %3u %5u %5u %13" PRIu64 " %s ", cli_mode_text(attr->mode, mode),
                     attr->nlink, attr->uid, attr->gid, attr->size_bytes,
                     cli_time_text(attr->mtime_ns, false, when));
    cli_name_print(name, strlen(name));
    if (ls->c->o.long_listing && target_len > 0) {
        (void)fputs(" -> ", stdout);
        cli_name_print(target, target_len);
    }
    (void)putchar('\n');
}

static void
ls_json(struct ls *ls, const char *path, const struct kvfs_attr *attr, const char *target,
        size_t target_len)
{
    struct json_object *obj = json_object_new_object();
    char mode[11];

    cli_json_name(obj, "path", path, strlen(path));
    cli_json_u64(obj, "ino", attr->ino);
    cli_json_text(obj, "type", cli_type_text(attr->mode));
    if (ls->c->o.long_listing) {
        cli_json_text(obj, "mode", cli_mode_text(attr->mode, mode));
        cli_json_u64(obj, "nlink", attr->nlink);
        cli_json_u64(obj, "uid", attr->uid);
        cli_json_u64(obj, "gid", attr->gid);
        cli_json_u64(obj, "size_bytes", attr->size_bytes);
        (void)json_object_object_add(obj, "mtime_ns", json_object_new_int64(attr->mtime_ns));
        if (target_len > 0)
            cli_json_name(obj, "target", target, target_len);
    }
    cli_json_list_add_take(&ls->list, obj);
}

/* One line.  A damaged entry is told and does not hide the others. */
static void
ls_entry(struct ls *ls, const char *dir, const char *name, uint64_t ino, uint32_t type)
{
    struct kvfs_attr attr = {.ino = ino, .mode = type};
    char target[KVFS_SYMLINK_MAX], *path = NULL;
    size_t target_len = 0;
    int rc = 0;

    if (ls->c->o.long_listing) {
        rc = kvfs_getattr(ls->v, ino, &attr, &ls->c->err);
        if (rc == -ENOENT)
            return; /* removed since its name was read */
        if (rc == 0)
            rc = ls_target(ls, &attr, target, &target_len);
    }
    if (rc < 0) {
        ls->status = cli_fail(ls->c, rc);
    } else if (!ls->c->o.json) {
        ls_print(ls, name, &attr, target, target_len);
    } else {
        path = ls_join(dir, name);
        ls_json(ls, path != NULL ? path : name, &attr, target, target_len);
        free(path);
    }
}

static int
ls_later(struct ls *ls, char *path)
{
    if (path != NULL && ls->todo_count == ls->todo_cap) {
        size_t cap = ls->todo_cap == 0 ? 16 : 2 * ls->todo_cap;
        char **todo = realloc(ls->todo, cap * sizeof(*todo));

        if (todo == NULL) {
            free(path);
            path = NULL;
        } else {
            ls->todo = todo;
            ls->todo_cap = cap;
        }
    }
    if (path == NULL)
        return kvfs_error_set(&ls->c->err, -ENOMEM, "no memory for the folders to list");
    ls->todo[ls->todo_count++] = path;
    return 0;
}

/* Print what was read of folder PATH, and remember the folders in it unless RC says
 * that this is the end. */
static int
ls_entries(struct ls *ls, const char *path, const struct cli_entries *e, int rc)
{
    for (size_t i = 0; i < e->count; i++)
        ls_entry(ls, path, e->list[i].name, e->list[i].ino, e->list[i].type);
    for (size_t i = e->count; i-- > 0 && ls->c->o.recursive && rc == 0;) {
        if (e->list[i].type == S_IFDIR)
            rc = ls_later(ls, ls_join(path, e->list[i].name));
    }
    return rc;
}

/* Sorted means all of a folder in memory; --unsorted reads it by the piece. */
static int
ls_folder(struct ls *ls, const char *path, uint64_t ino)
{
    size_t max = ls->c->o.unsorted ? CLI_ENTRIES_MAX : 0, count;
    uint64_t cookie = 0;
    int rc;

    if (ls->headers && !ls->c->o.json) {
        if (ls->begun)
            (void)putchar('\n');
        cli_name_print(path, strlen(path));
        (void)fputs(":\n", stdout);
    }
    ls->begun = true;
    do {
        struct cli_entries e = {NULL, 0, 0};

        rc = cli_entries_read(&e, ls->v, ino, cookie, max, &ls->c->err);
        count = e.count;
        if (max == 0)
            cli_entries_sort(&e);
        rc = ls_entries(ls, path, &e, rc); /* what was read before damage too */
        if (count > 0)
            cookie = e.list[count - 1].cookie;
        cli_entries_free(&e);
    } while (rc == 0 && max != 0 && count == max);
    return rc;
}

/* One argument and, with --recursive, all below it. */
static int
ls_path(struct ls *ls, const char *arg)
{
    struct kvfs_attr attr;
    char *path;
    int rc = kvfs_path_lookup(ls->v, arg, !ls->c->o.long_listing && !ls->c->o.directory, &attr,
                              &ls->c->err);

    if (rc < 0)
        return cli_about(&ls->c->err, rc, arg);
    if ((attr.mode & S_IFMT) != S_IFDIR || ls->c->o.directory) {
        ls_entry(ls, "", arg, attr.ino, attr.mode);
        ls->begun = true;
        return 0;
    }
    path = strdup(arg);
    rc = ls_later(ls, path);
    while (rc == 0 && ls->todo_count > 0) {
        path = ls->todo[--ls->todo_count];
        rc = kvfs_path_lookup(ls->v, path, true, &attr, &ls->c->err);
        if (rc == 0)
            rc = ls_folder(ls, path, attr.ino);
        else if (rc == -ENOENT && strcmp(path, arg) != 0)
            rc = 0; /* removed meanwhile */
        free(path);
    }
    return rc;
}

static int
ls_run(struct cli *c)
{
    static char root[] = "/";
    struct ls ls = {.c = c};
    int rc = cli_volume_open(c, c->args[0], true, &ls.v);

    if (rc < 0)
        return cli_fail(c, rc);
    ls.headers = c->o.recursive || c->args_count > 2;
    if (c->args_count < 2)
        rc = ls_path(&ls, root);
    for (int i = 1; i < c->args_count; i++) {
        rc = ls_path(&ls, c->args[i]);
        if (rc < 0)
            break;
    }
    if (c->o.json)
        cli_json_list_finish(&ls.list, rc == 0 && ls.status == CLI_OK);
    while (ls.todo_count > 0)
        free(ls.todo[--ls.todo_count]);
    free(ls.todo);
    if (rc < 0)
        ls.status = cli_fail(c, rc);
    (void)kvfs_volume_close(ls.v, NULL);
    return ls.status;
}

static const struct cli_option ls_options[] = {
    CLI_SWITCH('l', "long", long_listing, "mode, links, owner, size and time too"),
    CLI_SWITCH('R', "recursive", recursive, "also what lies in the folders below"),
    CLI_SWITCH('d', "directory", directory, "a folder itself, not what is in it"),
    CLI_SWITCH('U', "unsorted", unsorted, "in the volume's order; for very large folders"),
    CLI_NETWORK,
    CLI_JSON,
    CLI_LAST,
};

const struct cli_command cli_ls = {
    "ls", "VOLUME [PATH]...", "list files and folders", NULL, ls_options, 1, -1, ls_run,
};

/* --- stat -------------------------------------------------------------------- */

struct stat_view {
    struct cli *c;
    struct kvfs_volume *v;
    struct kvfs_snapshot *snapshot; /* with --used */
    struct cli_json_list list;
    struct json_object *xattrs;
};

static int
stat_xattr(void *arg, const char *name)
{
    struct json_object *xattrs = arg, *obj = json_object_new_object();

    cli_json_name(obj, "name", name, strlen(name));
    (void)json_object_array_add(xattrs, obj);
    return 0;
}

static int
stat_extent(void *arg, uint64_t offset, uint64_t count, bool hole)
{
    uint64_t *at = arg; /* [0]: bytes of data, [1]: looked at so far */

    if (!hole)
        at[0] += count;
    at[1] = offset + count;
    return 0;
}

/* Bytes of data in the file, from its index. */
static int
stat_used(struct stat_view *view, const struct kvfs_attr *attr, uint64_t *used)
{
    uint64_t at[2] = {0, 0};
    int rc = 0;

    while (rc == 0 && at[1] < attr->size_bytes && !cli_interrupted()) {
        uint64_t before = at[1];

        rc = kvfs_snapshot_extents(view->snapshot, attr->ino, attr->size_bytes - before, before,
                                   1024, stat_extent, at, &view->c->err);
        if (rc == 0 && at[1] == before)
            break;
    }
    *used = at[0];
    return cli_interrupted() ? -EINTR : rc;
}

static void
stat_time(struct json_object *obj, const char *key, int64_t ns)
{
    char name[24], text[CLI_TIME_TEXT];

    cli_json_text(obj, key, cli_time_text(ns, true, text));
    (void)snprintf(name, sizeof(name), "%s_ns", key);
    (void)json_object_object_add(obj, name, json_object_new_int64(ns));
}

/* Everything about one inode as one object, which both outputs show. */
static int
stat_collect(struct stat_view *view, const char *path, const struct kvfs_attr *attr,
             struct json_object *obj)
{
    struct json_object *xattrs = json_object_new_array();
    char mode[11], target[KVFS_SYMLINK_MAX];
    size_t len = 0;
    uint64_t used;
    int rc;

    cli_json_name(obj, "path", path, strlen(path));
    cli_json_u64(obj, "ino", attr->ino);
    cli_json_text(obj, "type", cli_type_text(attr->mode));
    cli_json_text(obj, "mode", cli_mode_text(attr->mode, mode));
    (void)snprintf(mode, sizeof(mode), "%04o", attr->mode & 07777);
    cli_json_text(obj, "mode_octal", mode);
    cli_json_u64(obj, "uid", attr->uid);
    cli_json_u64(obj, "gid", attr->gid);
    cli_json_u64(obj, "nlink", attr->nlink);
    cli_json_u64(obj, "rdev", attr->rdev);
    cli_json_u64(obj, "size_bytes", attr->size_bytes);
    cli_json_u64(obj, "block_size_bytes", attr->block_size_bytes);
    cli_json_u64(obj, "version", attr->version);
    stat_time(obj, "atime", attr->atime_ns);
    stat_time(obj, "mtime", attr->mtime_ns);
    stat_time(obj, "ctime", attr->ctime_ns);
    stat_time(obj, "crtime", attr->crtime_ns);
    (void)json_object_object_add(obj, "xattrs", xattrs);
    rc = kvfs_xattr_list(view->v, attr->ino, stat_xattr, xattrs, &view->c->err);
    if (rc == 0 && (attr->mode & S_IFMT) == S_IFLNK) {
        rc = kvfs_readlink(view->v, attr->ino, target, sizeof(target), &len, &view->c->err);
        if (rc == 0)
            cli_json_name(obj, "target", target, len);
    }
    if (rc == 0 && view->snapshot != NULL && (attr->mode & S_IFMT) == S_IFREG) {
        rc = stat_used(view, attr, &used);
        if (rc == 0)
            cli_json_u64(obj, "used_bytes", used);
    }
    return rc;
}

static void
stat_print(struct json_object *obj)
{
    json_object_object_foreach(obj, key, value)
    {
        size_t n = strlen(key);

        if (n > 3 && strcmp(key + n - 3, "_ns") == 0)
            continue; /* the readable form stands before it */
        if (json_object_is_type(value, json_type_array)) {
            for (size_t i = 0; i < json_object_array_length(value); i++) {
                struct json_object *x = json_object_array_get_idx(value, i), *name;

                if (!json_object_object_get_ex(x, "name", &name))
                    continue;
                (void)printf("%-18s", "xattr");
                cli_name_print(json_object_get_string(name), strlen(json_object_get_string(name)));
                (void)putchar('\n');
            }
            continue;
        }
        (void)printf("%-18s", key);
        cli_name_print(json_object_get_string(value), strlen(json_object_get_string(value)));
        (void)putchar('\n');
    }
}

static int
stat_path(struct stat_view *view, const char *path)
{
    struct json_object *obj;
    struct kvfs_attr attr;
    int rc = kvfs_path_lookup(view->v, path, false, &attr, &view->c->err);

    if (rc < 0)
        return cli_about(&view->c->err, rc, path);
    obj = json_object_new_object();
    rc = stat_collect(view, path, &attr, obj);
    if (rc == 0 && view->c->o.json) {
        cli_json_list_add_take(&view->list, obj);
        return 0;
    }
    if (rc == 0)
        stat_print(obj);
    (void)json_object_put(obj);
    return rc;
}

static int
stat_run(struct cli *c)
{
    struct stat_view view = {.c = c};
    int rc = cli_volume_open(c, c->args[0], true, &view.v);

    if (rc < 0)
        return cli_fail(c, rc);
    cli_signals_catch();
    if (c->o.used)
        rc = kvfs_snapshot_open(view.v, &view.snapshot, &c->err);
    for (int i = 1; i < c->args_count && rc == 0; i++) {
        if (i > 1 && !c->o.json)
            (void)putchar('\n');
        rc = stat_path(&view, c->args[i]);
    }
    if (c->o.json)
        cli_json_list_finish(&view.list, rc == 0);
    if (view.snapshot != NULL)
        kvfs_snapshot_close(view.snapshot);
    (void)kvfs_volume_close(view.v, NULL);
    return rc < 0 ? cli_fail(c, rc) : CLI_OK;
}

static const struct cli_option stat_options[] = {
    CLI_SWITCH('u', "used", used, "count the bytes of data in a file; reads its index"),
    CLI_NETWORK,
    CLI_JSON,
    CLI_LAST,
};

const struct cli_command cli_stat = {
    "stat", "VOLUME PATH...", "show all attributes", "A link itself is shown, not its target.\n",
    stat_options, 2, -1, stat_run,
};
