/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvdir.c - make, look at, list, rename and remove names, one phase a line of stdin, each answered
 * by a line of JSON.
 *
 *     kvdir --layer=kvfs --engine=NAME --dir=NEW-FOLDER   through libkvfs, a new volume
 *     kvdir --layer=posix --dir=NEW-FOLDER                through system calls
 *           --shape=flat|tree [--files=10000]
 *
 * flat: all names in one folder.  tree: mdtest's `-b 6 -I 8 -z 3`: 259 folders, six below each, three
 * deep, with eight names in each; --files counts for nothing.
 * Phases, each for all names, in this order: dir-create, dir-stat, dir-rename, dir-remove,
 * file-create, file-stat, file-read (open, read what is there, which is nothing, close), file-list
 * (an operation is an entry), file-rename, file-remove.
 * An answer: ops, seconds and rate of the calls alone; rate_synced, after all that was changed was
 * made durable once at the end (kvfs_volume_sync, syncfs); latency_ns of the calls.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <kvfs/kvfs.h>

#include "answer.h"
#include "words.h"

#define DIR_BRANCHES  6u
#define DIR_DEPTH     3u
#define DIR_TREE_MAX  259u /* 1 + 6 + 36 + 216 */
#define DIR_TREE_EACH 8u
#define DIR_NAME_MAX  32

static const char *const shapes[] = {"flat", "tree", NULL};
static const char *const layers[] = {"kvfs", "posix", NULL};

static struct {
    unsigned shape, layer;
    const char *engine, *dir;
    uint64_t each;       /* names in a folder */
    unsigned folders;    /* that hold names */
    struct kvfs_volume *v;
    uint64_t at[DIR_TREE_MAX]; /* each folder: inode number, or descriptor */
    uint64_t listed;
} run;

/* What is done to one name; answers 0 or a negative errno. */
typedef int dir_op(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err);

static uint64_t
now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- libkvfs --- */

static int
kvfs_make(uint64_t dir, const char *name, uint32_t mode, struct kvfs_attr *attr, struct kvfs_error *err)
{
    const struct kvfs_create create = {.mode = mode};

    return kvfs_create(run.v, dir, name, &create, attr, err);
}

static int
kvfs_op_mkdir(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)new_name;
    return kvfs_make(dir, name, S_IFDIR | 0755, NULL, err);
}

static int
kvfs_op_create(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)new_name;
    return kvfs_make(dir, name, S_IFREG | 0644, NULL, err);
}

static int
kvfs_op_stat(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    struct kvfs_attr attr;

    (void)new_name;
    return kvfs_lookup(run.v, dir, name, &attr, err);
}

static int
kvfs_op_rename(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    return kvfs_rename(run.v, dir, name, dir, new_name, 0, err);
}

static int
kvfs_op_rmdir(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)name;
    return kvfs_rmdir(run.v, dir, new_name, err);
}

static int
kvfs_op_unlink(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)name;
    return kvfs_unlink(run.v, dir, new_name, err);
}

static int
kvfs_op_read(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    struct kvfs_file *f;
    struct kvfs_attr attr;
    char byte;
    int rc = kvfs_lookup(run.v, dir, name, &attr, err);

    (void)new_name;
    if (rc == 0)
        rc = kvfs_file_open(run.v, attr.ino, 0, &f, err);
    if (rc != 0)
        return rc;
    rc = kvfs_file_pread(f, &byte, 0, 0, err);
    kvfs_file_close(f);
    return rc;
}

static int
kvfs_count(void *arg, const struct kvfs_dirent *entry)
{
    (void)entry;
    ++*(uint64_t *)arg;
    return 0;
}

static int
kvfs_op_list(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)name;
    (void)new_name;
    return kvfs_readdir(run.v, dir, 0, kvfs_count, &run.listed, err);
}

/* --- system calls --- */

static int
posix_result(int rc, const char *name, struct kvfs_error *err)
{
    return rc >= 0 ? 0 : kvfs_error_set(err, -errno, "%s: %s", name, strerrordesc_np(errno));
}

static int
posix_op_mkdir(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)new_name;
    return posix_result(mkdirat((int)dir, name, 0755), name, err);
}

static int
posix_op_create(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    int fd = openat((int)dir, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);

    (void)new_name;
    return posix_result(fd < 0 ? fd : close(fd), name, err);
}

static int
posix_op_stat(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    struct stat st;

    (void)new_name;
    return posix_result(fstatat((int)dir, name, &st, 0), name, err);
}

static int
posix_op_rename(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    return posix_result(renameat((int)dir, name, (int)dir, new_name), name, err);
}

static int
posix_op_rmdir(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)name;
    return posix_result(unlinkat((int)dir, new_name, AT_REMOVEDIR), new_name, err);
}

static int
posix_op_unlink(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    (void)name;
    return posix_result(unlinkat((int)dir, new_name, 0), new_name, err);
}

static int
posix_op_read(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    int fd = openat((int)dir, name, O_RDONLY | O_CLOEXEC);
    char byte;
    ssize_t n;

    (void)new_name;
    if (fd < 0)
        return posix_result(fd, name, err);
    n = read(fd, &byte, 1);
    (void)close(fd);
    return posix_result(n < 0 ? -1 : 0, name, err);
}

static int
posix_op_list(uint64_t dir, const char *name, const char *new_name, struct kvfs_error *err)
{
    int fd = openat((int)dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    (void)new_name;
    if (d == NULL)
        return posix_result(-1, name, err);
    while ((entry = readdir(d)) != NULL) // NOLINT(concurrency-mt-unsafe)
        run.listed += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    (void)closedir(d);
    return 0;
}

/* --- the place --- */

static int
place_open(struct kvfs_error *err)
{
    const struct kvfs_format_options format = {.engine = run.engine};
    int fd, rc;

    if (run.layer == 1) {
        rc = mkdir(run.dir, 0755);
        fd = rc < 0 ? rc : open(run.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        run.at[0] = (uint64_t)fd;
        return posix_result(fd, run.dir, err);
    }
    rc = kvfs_format(run.dir, &format, err);
    run.at[0] = KVFS_ROOT_INO;
    return rc == 0 ? kvfs_volume_open(run.dir, NULL, &run.v, err) : rc;
}

static int
place_folder(uint64_t parent, const char *name, uint64_t *at, struct kvfs_error *err)
{
    struct kvfs_attr attr;
    int fd, rc;

    if (run.layer == 0) {
        rc = kvfs_make(parent, name, S_IFDIR | 0755, &attr, err);
        *at = attr.ino;
        return rc;
    }
    rc = posix_op_mkdir(parent, name, NULL, err);
    if (rc != 0)
        return rc;
    fd = openat((int)parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *at = (uint64_t)fd;
    return posix_result(fd, name, err);
}

/* The folders of a tree, each after its parent. */
static int
place_tree(struct kvfs_error *err)
{
    char name[DIR_NAME_MAX];
    unsigned count = 1;
    int rc = 0;

    for (unsigned parent = 0; rc == 0 && count < DIR_TREE_MAX; parent++)
        for (unsigned b = 0; rc == 0 && b < DIR_BRANCHES; b++) {
            (void)snprintf(name, sizeof(name), "tree%u", b);
            rc = place_folder(run.at[parent], name, &run.at[count++], err);
        }
    return rc;
}

static int
place_sync(struct kvfs_error *err)
{
    return run.layer == 0 ? kvfs_volume_sync(run.v, err)
                          : posix_result(syncfs((int)run.at[0]), run.dir, err);
}

/* --- phases --- */

static const struct phase {
    const char *name, *prefix;
    dir_op *ops[2]; /* by layer */
    bool changes, listing;
} phases[] = {
    {"dir-create", "d", {kvfs_op_mkdir, posix_op_mkdir}, true, false},
    {"dir-stat", "d", {kvfs_op_stat, posix_op_stat}, false, false},
    {"dir-rename", "d", {kvfs_op_rename, posix_op_rename}, true, false},
    {"dir-remove", "d", {kvfs_op_rmdir, posix_op_rmdir}, true, false},
    {"file-create", "f", {kvfs_op_create, posix_op_create}, true, false},
    {"file-stat", "f", {kvfs_op_stat, posix_op_stat}, false, false},
    {"file-read", "f", {kvfs_op_read, posix_op_read}, false, false},
    {"file-list", "f", {kvfs_op_list, posix_op_list}, false, true},
    {"file-rename", "f", {kvfs_op_rename, posix_op_rename}, true, false},
    {"file-remove", "f", {kvfs_op_unlink, posix_op_unlink}, true, false},
};

static int
phase_calls(const struct phase *p, struct histogram *h, struct kvfs_error *err)
{
    uint64_t each = p->listing ? 1 : run.each, before, after = now_ns();
    char name[DIR_NAME_MAX], new_name[DIR_NAME_MAX];
    int rc = 0;

    for (unsigned d = 0; rc == 0 && d < run.folders; d++)
        for (uint64_t i = 0; rc == 0 && i < each; i++) {
            (void)snprintf(name, sizeof(name), "%s%08llu", p->prefix, (unsigned long long)i);
            (void)snprintf(new_name, sizeof(new_name), "%sr%08llu", p->prefix, (unsigned long long)i);
            before = after;
            rc = p->ops[run.layer](run.at[d], name, new_name, err);
            after = now_ns();
            histogram_add(h, after - before, 1);
        }
    return rc;
}

static int
phase_run(const struct phase *p, struct kvfs_error *err)
{
    static struct histogram h;
    uint64_t start = now_ns(), called, ops;
    double seconds, synced;
    int rc;

    h = (struct histogram){.count = 0};
    run.listed = 0;
    rc = phase_calls(p, &h, err);
    called = now_ns();
    if (rc == 0 && p->changes)
        rc = place_sync(err);
    if (rc != 0)
        return rc;
    seconds = (double)(called - start) * 1e-9;
    synced = (double)(now_ns() - start) * 1e-9;
    ops = p->listing ? run.listed : h.count;
    answer_begin(p->name);
    answer_u64("ops", ops);
    answer_double("seconds", seconds);
    answer_double("rate", (double)ops / seconds);
    answer_double("rate_synced", (double)ops / synced);
    answer_latency("latency_ns", &h);
    answer_end();
    return 0;
}

static int
phase_line(const char *line, struct kvfs_error *err)
{
    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
        if (strcmp(phases[i].name, line) == 0)
            return phase_run(&phases[i], err);
    return kvfs_error_set(err, -EINVAL, "%s: no such phase", line);
}

static int
options(int argc, char **argv, struct kvfs_error *err)
{
    const char *value;
    uint64_t files = 10000;
    int rc = 0;

    for (int i = 1; rc == 0 && i < argc; i++) {
        if (word_is(argv[i], "--layer", &value))
            rc = word_choice(argv[i], value, layers, &run.layer, err);
        else if (word_is(argv[i], "--shape", &value))
            rc = word_choice(argv[i], value, shapes, &run.shape, err);
        else if (word_is(argv[i], "--engine", &value))
            run.engine = value;
        else if (word_is(argv[i], "--dir", &value))
            run.dir = value;
        else if (word_is(argv[i], "--files", &value))
            rc = word_number(argv[i], value, 1, 10000000, &files, err);
        else
            rc = kvfs_error_set(err, -EINVAL, "%s: unknown option", argv[i]);
    }
    if (rc == 0 && (run.dir == NULL || (run.layer == 0) != (run.engine != NULL)))
        rc = kvfs_error_set(err, -EINVAL, "usage: kvdir --layer=kvfs --engine=NAME|--layer=posix "
                                          "--dir=NEW-FOLDER --shape=flat|tree [--files=N]");
    run.each = run.shape == 0 ? files : DIR_TREE_EACH;
    run.folders = run.shape == 0 ? 1 : DIR_TREE_MAX;
    return rc;
}

int
main(int argc, char **argv)
{
    struct kvfs_error err = {.code = 0};
    char line[64];
    int rc = options(argc, argv, &err), closed = 0;

    if (rc == 0)
        rc = place_open(&err);
    if (rc == 0 && run.shape == 1)
        rc = place_tree(&err);
    while (rc == 0 && fgets(line, sizeof(line), stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        rc = phase_line(line, &err);
    }
    if (run.v != NULL)
        closed = kvfs_volume_close(run.v, rc == 0 ? &err : NULL);
    if (rc == 0 && closed == 0)
        return 0;
    (void)fprintf(stderr, "kvdir: %s\n", err.msg);
    return rc == -EINVAL ? 2 : 1;
}
