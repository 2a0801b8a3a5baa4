/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_import.c - kvfs import: a file or a pipe becomes a file of the volume.
 *
 * The contents go into a file under a temporary name in the same folder, are
 * made durable, and only then get the name asked for, in one step.  So nobody
 * ever sees half of it, an interrupted import leaves nothing, and --force
 * replaces what was there whole or not at all.  Holes and blocks of zeros are
 * not stored.  A SQLite database is made whole on the way, see database.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data.h"
#include "database.h"
#include "tree.h"

struct import {
    struct cli *c;
    struct kvfs_volume *v;
    struct kvfs_file *f;
    const char *source; /* for errors */
    int fd;
    bool pipe;   /* no size, no seeking */
    off_t start; /* of what is read, where it can be sought */
    uint64_t size_bytes, read_bytes;
    uint32_t block_size_bytes;
    struct cli_database database;
    struct cli_progress progress;
};

static int
import_errno(struct import *im, int code)
{
    return kvfs_error_set(&im->c->err, -code, "%s: %s", im->source, strerrordesc_np(code));
}

static int
import_open_source(struct import *im, const char *source)
{
    struct stat st;
    off_t end;

    if (source == NULL || strcmp(source, "-") == 0) {
        im->source = "standard input";
        im->fd = STDIN_FILENO;
    } else {
        im->source = source;
        im->fd = open(source, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    }
    if (im->fd < 0 || fstat(im->fd, &st) < 0)
        return import_errno(im, errno);
    if (S_ISDIR(st.st_mode))
        return import_errno(im, EISDIR);
    if (S_ISREG(st.st_mode) && im->fd != STDIN_FILENO && !im->c->o.as_is) {
        int rc = cli_database_prepare(im->c, source, &im->fd, &im->database);

        if (rc < 0)
            return rc;
        if (fstat(im->fd, &st) < 0)
            return import_errno(im, errno);
    }
    /* What the kernel makes up (/proc) has size 0 and contents all the same. */
    im->pipe = (!S_ISREG(st.st_mode) || st.st_size == 0) && !S_ISBLK(st.st_mode);
    if (im->pipe)
        return 0;
    im->start = lseek(im->fd, 0, SEEK_CUR);
    end = im->start < 0 ? -1 : lseek(im->fd, 0, SEEK_END);
    if (end < 0)
        return import_errno(im, errno);
    im->size_bytes = end > im->start ? (uint64_t)(end - im->start) : 0;
    (void)posix_fadvise(im->fd, im->start, 0, POSIX_FADV_SEQUENTIAL);
    return 0;
}

/* --- the contents ---------------------------------------------------------------- */

static int
import_write(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct import *im = arg;
    int rc = kvfs_file_pwrite(im->f, buf, count, offset, im->pipe ? KVFS_EXTEND : 0, err);

    return rc < 0 ? cli_about(err, rc, im->c->args[1]) : 0;
}

static int
import_window(void *arg, const void *buf, size_t count, uint64_t offset, struct kvfs_error *err)
{
    struct import *im = arg;

    return cli_runs(buf, count, offset, im->block_size_bytes, import_write, im, err);
}

/* Fill BUF as far as the pipe has bytes; *n short of the size means the end. */
static int
import_fill(struct import *im, char *buf, size_t *n)
{
    *n = 0;
    while (*n < CLI_WINDOW_BYTES) {
        ssize_t got;

        if (cli_interrupted())
            return -EINTR;
        got = read(im->fd, buf + *n, CLI_WINDOW_BYTES - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return import_errno(im, errno);
        if (got == 0)
            break;
        *n += (size_t)got;
        cli_progress_update(&im->progress, im->read_bytes + *n, im->read_bytes + *n);
    }
    return 0;
}

static int
import_pipe(struct import *im)
{
    char *buf = malloc(CLI_WINDOW_BYTES);
    size_t n = CLI_WINDOW_BYTES;
    int rc = 0;

    if (buf == NULL)
        return kvfs_error_set(&im->c->err, -ENOMEM, "no memory");
    while (rc == 0 && n == CLI_WINDOW_BYTES) {
        rc = import_fill(im, buf, &n);
        if (rc == 0 && n > 0)
            rc = import_window(im, buf, n, im->read_bytes, &im->c->err);
        im->read_bytes += n;
    }
    free(buf);
    if (rc == 0) { /* zeros at the end were not written */
        struct kvfs_file_info info;

        kvfs_file_info(im->f, &info);
        if (info.size_bytes < im->read_bytes)
            rc = kvfs_file_resize(im->f, im->read_bytes, &im->c->err);
    }
    return rc;
}

static int
import_contents(struct import *im)
{
    static const char plain[2] = {1, 1}; /* read and write version of a database */
    struct cli_fd_source source;
    int rc;

    cli_progress_start(&im->progress, im->c, "import", im->size_bytes, true);
    if (im->pipe) {
        rc = import_pipe(im);
    } else {
        cli_fd_source_init(&source, im->fd, im->source, im->start, im->size_bytes);
        rc = cli_source_walk(&source.base, import_window, im, &im->progress, &im->c->err);
    }
    if (rc == 0 && im->database.wal_header && !im->database.recovered)
        rc = kvfs_file_pwrite(im->f, plain, 2, 18, 0, &im->c->err);
    if (rc == 0)
        rc = kvfs_file_flush(im->f, &im->c->err);
    cli_progress_end(&im->progress);
    return rc;
}

/* --- the name ---------------------------------------------------------------------- */

/* Where the file goes.  Judged before anything is read, and by the rename again. */
static int
import_place(struct import *im, uint64_t *dir, char *name)
{
    struct cli *c = im->c;
    struct kvfs_attr attr;
    int rc = cli_path_split(im->v, c->args[1], true, dir, name, &c->err);

    if (rc < 0)
        return rc;
    rc = kvfs_lookup(im->v, *dir, name, &attr, &c->err);
    if (rc == -ENOENT)
        return 0;
    if (rc == 0 && (attr.mode & S_IFMT) == S_IFDIR)
        rc = kvfs_error_set(&c->err, -EISDIR, "is a folder");
    else if (rc == 0 && !c->o.force)
        rc = kvfs_error_set(&c->err, -EEXIST, "exists (--force replaces it)");
    return rc < 0 ? cli_about(&c->err, rc, c->args[1]) : 0;
}

/* The durable contents get their name, in one step. */
static int
import_name(struct import *im, uint64_t dir, const char *temp, const char *name)
{
    struct cli *c = im->c;
    int rc = kvfs_rename(im->v, dir, temp, dir, name, c->o.force ? 0 : KVFS_RENAME_NOREPLACE,
                         &c->err);

    return rc < 0 ? cli_about(&c->err, rc, c->args[1]) : 0;
}

static int
import_file(struct import *im)
{
    struct kvfs_create create = {.mode = S_IFREG | 0644, .uid = geteuid(), .gid = getegid()};
    struct cli *c = im->c;
    char name[KVFS_NAME_MAX + 1], temp[KVFS_NAME_MAX + 1];
    struct kvfs_attr attr;
    uint64_t dir;
    int rc = import_place(im, &dir, name);

    if (rc < 0)
        return rc;
    cli_temp_collect(im->v, dir);
    cli_temp_name("import", temp);
    create.size_bytes = im->size_bytes;
    create.block_size_bytes = im->block_size_bytes;
    rc = kvfs_create(im->v, dir, temp, &create, &attr, &c->err);
    if (rc < 0)
        return cli_about(&c->err, rc, c->args[1]);
    im->block_size_bytes = attr.block_size_bytes;
    rc = kvfs_file_open(im->v, attr.ino, KVFS_OPEN_WRITE, &im->f, &c->err);
    if (rc == 0) {
        rc = import_contents(im);
        kvfs_file_close(im->f);
    }
    if (rc == 0)
        rc = import_name(im, dir, temp, name);
    if (rc < 0)
        (void)kvfs_unlink(im->v, dir, temp, NULL);
    return rc < 0 ? rc : kvfs_volume_sync(im->v, &c->err);
}

static int
import_run(struct cli *c)
{
    struct import im = {.c = c};
    int rc = cli_size_block(c, &im.block_size_bytes);

    if (rc != CLI_OK)
        return rc;
    cli_signals_catch();
    rc = import_open_source(&im, c->args[2]);
    if (rc == 0)
        rc = cli_volume_open(c, c->args[0], false, &im.v);
    if (rc < 0) {
        rc = cli_fail(c, rc);
    } else {
        rc = import_file(&im);
        rc = cli_volume_close(c, im.v, rc < 0 ? cli_fail(c, rc) : CLI_OK);
        if (rc == CLI_OK)
            cli_database_say(c, im.source, &im.database);
    }
    if (im.fd > STDIN_FILENO)
        (void)close(im.fd);
    return rc;
}

static const struct cli_option import_options[] = {
    CLI_SWITCH(0, "force", force,
               "replace FILE if it is there, in one step; accept a network file system"),
    CLI_VALUE(0, "block-size", "N", block_size, "512 to 64K; default: the volume's"),
    CLI_SWITCH(0, "as-is", as_is, "take a SQLite database without what is in its journal"),
    CLI_SWITCH('q', "quiet", quiet, "no progress bar, no word about databases"),
    CLI_LAST,
};

const struct cli_command cli_import = {
    "import", "VOLUME FILE [SOURCE|-]", "copy a file or a pipe into a volume",
    "SOURCE may be a file, a block device or a pipe; default: standard input.  Holes stay\n"
    "holes, the size is kept to the byte.  The file appears under its name when all of it is\n"
    "durable; an interrupted import leaves nothing behind.\n"
    "A SOURCE that is a SQLite database is made whole on the way: a hot journal is rolled back\n"
    "or its WAL put in, in a private copy (below TMPDIR, else /var/tmp).  What comes from a\n"
    "pipe is taken as it is: without the WAL, which it may need.\n",
    import_options, 2, 3, import_run,
};
