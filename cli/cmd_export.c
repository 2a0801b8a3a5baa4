/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_export.c - kvfs export: a file of the volume becomes a file or a stream.
 *
 * All bytes come from one snapshot, so the result is one instant of the file,
 * also while it is being served.  Three kinds of target:
 *
 *   a file      written without a name (O_TMPFILE; beside its name where the
 *               file system cannot), synced, then put in place of what was there
 *               in one step; holes are left out (the size is set at the end)
 *   in place    standard output that is a regular file: the same, without the name
 *   a device    holes are punched, or written as zeros where that fails
 *   a stream    holes are written as zeros
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data.h"
#include "tree.h"

#define EXPORT_ZEROS_BYTES  ((size_t)1 << 20)
#define EXPORT_FILE_BLOCK   4096 /* holes of the target are multiples of it */
#define EXPORT_LINKS_MAX    40   /* as the kernel */
#define EXPORT_NAMES_MAX    1000 /* temporary ones that are tried */

struct export {
    struct cli *c;
    struct kvfs_volume *v;
    struct kvfs_snapshot *snapshot;
    struct cli_snapshot_source source;
    const char *target; /* for errors */
    int fd;
    enum {
        EXPORT_SPARSE,
        EXPORT_DEVICE,
        EXPORT_STREAM
    } kind;
    off_t start;       /* of the file in the target */
    uint64_t written;  /* stream, device: all before it is done */
    bool punch_failed;
    char *zeros;
    char *path, *folder; /* of a target that gets its name at the end; else NULL */
    char *temp;          /* its temporary name; NULL: none so far */
    struct cli_progress progress;
};

static int
export_errno(struct export *ex, int code)
{
    return kvfs_error_set(&ex->c->err, -code, "%s: %s", ex->target, strerrordesc_np(code));
}

/* --- bytes ------------------------------------------------------------------- */

static int
export_bytes(struct export *ex, const void *buf, size_t count, uint64_t offset)
{
    for (size_t done = 0; done < count;) {
        const char *p = (const char *)buf + done;
        ssize_t n;

        if (cli_interrupted())
            return -EINTR;
        if (ex->kind == EXPORT_STREAM)
            n = write(ex->fd, p, count - done);
        else
            n = pwrite(ex->fd, p, count - done, ex->start + (off_t)(offset + done));
        if (n < 0 && errno != EINTR)
            return export_errno(ex, errno);
        if (n > 0)
            done += (size_t)n;
    }
    return 0;
}

/* Make [ex->written, TO) read as zeros; a sparse target does already. */
static int
export_gap(struct export *ex, uint64_t to)
{
    uint64_t gap = to - ex->written;
    int rc = 0;

    if (ex->kind == EXPORT_DEVICE && gap > 0 && !ex->punch_failed) {
        if (fallocate(ex->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      ex->start + (off_t)ex->written, (off_t)gap) == 0)
            ex->written = to;
        else
            ex->punch_failed = true;
    }
    while (ex->kind != EXPORT_SPARSE && ex->written < to && rc == 0) {
        size_t n = to - ex->written < EXPORT_ZEROS_BYTES ? (size_t)(to - ex->written)
                                                         : EXPORT_ZEROS_BYTES;

        rc = export_bytes(ex, ex->zeros, n, ex->written);
        ex->written += n;
        cli_progress_update(&ex->progress, ex->written, ex->progress.moved + n);
    }
    return rc;
}

static int
export_run_bytes(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct export *ex = arg;
    int rc = export_gap(ex, offset);

    (void)err; /* ex->c->err, the same */
    if (rc == 0)
        rc = export_bytes(ex, buf, count, offset);
    ex->written = offset + count;
    return rc;
}

static int
export_window(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct export *ex = arg;

    if (ex->kind == EXPORT_STREAM) /* zeros have to go out anyway */
        return export_run_bytes(ex, buf, count, offset, err);
    return cli_runs(buf, count, offset, EXPORT_FILE_BLOCK, export_run_bytes, ex, err);
}

static int
export_contents(struct export *ex)
{
    uint64_t size = ex->source.base.size_bytes;
    int rc;

    cli_progress_start(&ex->progress, ex->c, "export", size, true);
    rc = cli_source_walk(&ex->source.base, export_window, ex, &ex->progress, &ex->c->err);
    if (rc == 0)
        rc = export_gap(ex, size);
    if (rc == 0 && ex->kind == EXPORT_SPARSE && ftruncate(ex->fd, ex->start + (off_t)size) < 0)
        rc = export_errno(ex, errno);
    if (rc == 0 && ex->kind == EXPORT_SPARSE) /* whoever shares the descriptor goes on behind */
        (void)lseek(ex->fd, ex->start + (off_t)size, SEEK_SET);
    if (rc == 0 && ex->kind != EXPORT_STREAM && fsync(ex->fd) < 0)
        rc = export_errno(ex, errno);
    cli_progress_end(&ex->progress);
    return rc;
}

/* --- targets ------------------------------------------------------------------- */

/* Something that is there already: standard output, a device, a fifo. */
static int
export_adopt(struct export *ex)
{
    struct stat st;
    off_t end;
    int flags = fcntl(ex->fd, F_GETFL);

    if (flags < 0 || fstat(ex->fd, &st) < 0)
        return export_errno(ex, errno);
    ex->kind = EXPORT_STREAM;
    if (S_ISREG(st.st_mode) && (flags & O_APPEND) == 0) {
        ex->start = lseek(ex->fd, 0, SEEK_CUR);
        if (ex->start >= 0 && ex->start >= st.st_size) /* else old bytes would show in holes */
            ex->kind = EXPORT_SPARSE;
    } else if (S_ISBLK(st.st_mode)) {
        ex->kind = EXPORT_DEVICE;
        end = lseek(ex->fd, 0, SEEK_END);
        if (end >= 0 && (uint64_t)end < ex->source.base.size_bytes)
            return kvfs_error_set(&ex->c->err, -ENOSPC,
                                  "%s: has %" PRIu64 " bytes, the file has %" PRIu64, ex->target,
                                  (uint64_t)end, ex->source.base.size_bytes);
    }
    return 0;
}

/* What TARGET, a name of a regular file or of none, leads to: a link stays a link, also
 * one whose own target is still to be made.  NULL: errno says why. */
static char *
export_resolve(const char *target)
{
    char *path = realpath(target, NULL), *next, *slash, to[PATH_MAX];
    ssize_t n;

    if (path != NULL || errno != ENOENT)
        return path;
    path = strdup(target);
    for (unsigned hops = 0; path != NULL && hops < EXPORT_LINKS_MAX; hops++) {
        n = readlink(path, to, sizeof(to) - 1);
        if (n < 0)
            return path;
        slash = strrchr(path, '/');
        if (asprintf(&next, "%.*s%.*s",
                     to[0] == '/' || slash == NULL ? 0 : (int)(slash + 1 - path), path, (int)n,
                     to) < 0)
            next = NULL;
        free(path);
        path = next;
    }
    errno = path != NULL ? ELOOP : ENOMEM;
    free(path);
    return NULL;
}

/* A temporary name in the target's folder. */
static int
export_temp(struct export *ex)
{
    char *temp;

    if (asprintf(&temp, "%s/.kvfs-export-XXXXXX", ex->folder) < 0)
        return export_errno(ex, ENOMEM);
    ex->temp = temp;
    return 0;
}

/* A regular file, old or new, by way of another in the same folder: one without a name
 * where the file system can, which nothing is left of whatever happens. */
static int
export_make(struct export *ex, const char *target, mode_t mode)
{
    const char *slash;
    int rc;

    ex->path = export_resolve(target);
    if (ex->path == NULL)
        return export_errno(ex, errno);
    slash = strrchr(ex->path, '/');
    ex->folder = slash == NULL       ? strdup(".")
                 : slash == ex->path ? strdup("/")
                                     : strndup(ex->path, (size_t)(slash - ex->path));
    if (ex->folder == NULL)
        return export_errno(ex, ENOMEM);
    if (access("/proc/self/fd", X_OK) == 0) /* it gets its name through this */
        ex->fd = open(ex->folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (ex->fd < 0) {
        rc = export_temp(ex);
        if (rc < 0)
            return rc;
        ex->fd = mkostemp(ex->temp, O_CLOEXEC);
        if (ex->fd < 0) {
            free(ex->temp);
            ex->temp = NULL;
            return export_errno(ex, errno);
        }
    }
    return fchmod(ex->fd, mode) < 0 ? export_errno(ex, errno) : 0;
}

static int
export_open_target(struct export *ex)
{
    const char *target = ex->c->args[2];
    struct stat st;
    mode_t mask;

    ex->kind = EXPORT_SPARSE;
    if (target == NULL || strcmp(target, "-") == 0) {
        ex->target = "standard output";
        ex->fd = STDOUT_FILENO;
        if (target == NULL && isatty(ex->fd) == 1)
            return kvfs_error_set(&ex->c->err, -EINVAL,
                                  "standard output is a terminal; name a TARGET");
        return export_adopt(ex);
    }
    ex->target = target;
    if (stat(target, &st) == 0) {
        if (S_ISDIR(st.st_mode))
            return export_errno(ex, EISDIR);
        if (S_ISREG(st.st_mode))
            return export_make(ex, target, st.st_mode & 07777);
        ex->fd = open(target, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return ex->fd < 0 ? export_errno(ex, errno) : export_adopt(ex);
    }
    if (errno != ENOENT)
        return export_errno(ex, errno);
    mask = umask(0);
    (void)umask(mask);
    return export_make(ex, target, 0666 & ~mask);
}

/* Link the nameless file: to its own name if that is free, else to a temporary one, for
 * only rename() replaces. */
static int
export_link(struct export *ex)
{
    char from[64];
    int rc;

    (void)snprintf(from, sizeof(from), "/proc/self/fd/%d", ex->fd);
    if (linkat(AT_FDCWD, from, AT_FDCWD, ex->path, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    for (unsigned n = 0; errno == EEXIST && n < EXPORT_NAMES_MAX; n++) {
        free(ex->temp);
        ex->temp = NULL;
        rc = export_temp(ex);
        if (rc < 0)
            return rc;
        (void)snprintf(ex->temp + strlen(ex->temp) - 6, 7, "%06u",
                       ((unsigned)getpid() + n) % 1000000u);
        if (linkat(AT_FDCWD, from, AT_FDCWD, ex->temp, AT_SYMLINK_FOLLOW) == 0)
            return 0;
    }
    rc = export_errno(ex, errno);
    free(ex->temp); /* not ours */
    ex->temp = NULL;
    return rc;
}

/* Give the finished file its name, durably. */
static int
export_name(struct export *ex)
{
    int fd, rc = ex->temp == NULL ? export_link(ex) : 0;

    if (rc < 0)
        return rc;
    if (ex->temp != NULL && rename(ex->temp, ex->path) < 0)
        return export_errno(ex, errno);
    free(ex->temp);
    ex->temp = NULL;
    fd = open(ex->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        rc = export_errno(ex, errno);
    if (fd >= 0)
        (void)close(fd);
    return rc;
}

static void
export_end(struct export *ex)
{
    if (ex->temp != NULL)
        (void)unlink(ex->temp);
    free(ex->temp);
    free(ex->path);
    free(ex->folder);
    free(ex->zeros);
    if (ex->fd > STDOUT_FILENO)
        (void)close(ex->fd);
    if (ex->snapshot != NULL)
        kvfs_snapshot_close(ex->snapshot);
    if (ex->v != NULL)
        (void)kvfs_volume_close(ex->v, NULL); /* readonly: nothing to lose */
}

/* Beside a database SQLite takes a log or a journal of that name for the database's own, and
 * reads other rows: one that an earlier database left is not passed over. */
static int
export_beside(struct export *ex)
{
    static const char *const tails[] = {"-wal", "-journal"};
    char head[16] = "", first = 0;
    char *name;
    ssize_t n;
    int fd, rc;

    rc = kvfs_snapshot_pread(ex->snapshot, ex->source.ino, head,
                             ex->source.base.size_bytes < sizeof(head) ? 0 : sizeof(head), 0,
                             &ex->c->err);
    if (rc < 0)
        return cli_about(&ex->c->err, rc, ex->source.name);
    if (memcmp(head, "SQLite format 3", sizeof(head)) != 0)
        return 0;
    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        if (asprintf(&name, "%s%s", ex->path, tails[i]) < 0)
            return export_errno(ex, ENOMEM);
        fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        n = fd >= 0 ? read(fd, &first, 1) : 0; /* a journal that begins with 0 is a finished one */
        if (n > 0 && (i == 0 || first != 0))
            rc = kvfs_error_set(&ex->c->err, -EEXIST, "%s is there, and SQLite would take it for "
                                "a part of the exported database: remove it first", name);
        if (fd >= 0)
            (void)close(fd);
        free(name);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- the command ----------------------------------------------------------------- */

static int
export_open_source(struct export *ex)
{
    struct cli *c = ex->c;
    struct kvfs_attr attr;
    int rc = cli_volume_open(c, c->args[0], true, &ex->v);

    if (rc == 0)
        rc = kvfs_path_lookup(ex->v, c->args[1], true, &attr, &c->err);
    if (rc == 0 && (attr.mode & S_IFMT) != S_IFREG)
        rc = kvfs_error_set(&c->err, -EINVAL, "is a %s, not a file", cli_type_text(attr.mode));
    if (rc != 0) /* of the volume itself: its path is said already */
        return ex->v == NULL ? rc : cli_about(&c->err, rc, c->args[1]);
    rc = kvfs_snapshot_open(ex->v, &ex->snapshot, &c->err);
    if (rc < 0)
        return rc;
    rc = cli_snapshot_source_init(&ex->source, ex->snapshot, attr.ino, &c->err);
    ex->source.name = c->args[1];
    return rc < 0 ? cli_about(&c->err, rc, c->args[1]) : 0;
}

static int
export_run(struct cli *c)
{
    struct export ex = {.c = c, .fd = -1, .zeros = calloc(1, EXPORT_ZEROS_BYTES)};
    int rc = ex.zeros == NULL ? -ENOMEM : 0;

    cli_signals_catch();
    (void)signal(SIGPIPE, SIG_IGN); /* a reader that goes away is an error like others */
    if (rc == 0)
        rc = export_open_source(&ex);
    if (rc == 0)
        rc = export_open_target(&ex);
    if (rc == 0 && ex.path != NULL)
        rc = export_beside(&ex);
    if (rc == 0)
        rc = export_contents(&ex);
    if (rc == 0 && ex.path != NULL)
        rc = export_name(&ex);
    export_end(&ex);
    return rc < 0 ? cli_fail(c, rc) : CLI_OK;
}

static const struct cli_option export_options[] = {CLI_NETWORK, CLI_QUIET, CLI_LAST};

const struct cli_command cli_export = {
    "export", "VOLUME FILE [TARGET|-]", "copy a file out of a volume",
    "TARGET may be a file, a block device or a pipe; default: standard output.  The bytes are\n"
    "those of one instant, also while the file is being served.  A regular TARGET is replaced\n"
    "in one step when all is written; holes stay holes.  A database is not put beside another's\n"
    "TARGET-wal or TARGET-journal.\n",
    export_options, 2, 3, export_run,
};
