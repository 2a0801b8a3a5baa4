/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scenario_guest.c - a file system inside a disk of the volume, whose own files lie on the crash
 * disk: one cut takes both.
 *
 *     inner ext4 - loop - nbdfuse - nbdkit, kvfs plugin - volume - outer ext4 - ... - crash disk
 *
 * The worker does what a careful program does: write a file under a temporary name, fsync, rename,
 * fsync the folder; it removes old ones, and appends to a log with fdatasync.  After the cut the
 * inner file system mounts, which replays its journal and repairs nothing; every file whose fsync
 * was answered is there and whole, none is there by half, and none whose removal was made durable.
 * Then a check that may change nothing (e2fsck -fn) finds nothing, and the kernel had noted no
 * error in the superblock.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disks.h"
#include "random.h"
#include "scenario.h"
#include "serve.h"
#include "tool.h"

#define GUEST_DISK  ((uint64_t)32 << 20)
#define GUEST_PIECE ((size_t)64 << 10)
#define GUEST_OPS   60u
#define GUEST_MAX   ((size_t)48 << 10)

enum guest_kind {
    GUEST_FILE,
    GUEST_REMOVE,
    GUEST_LOG
}; /* a: the file's number, its own op; count: bytes */

/* --- making --- */

/* Everything of the open file FD that is not a hole, into F. */
static int
guest_import(int fd, struct kvfs_file *f, struct kvfs_error *err)
{
    static uint8_t buf[GUEST_PIECE];
    off_t at = 0, end;
    int r = 0;

    while (r == 0 && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
        end = lseek(fd, at, SEEK_HOLE);
        while (r == 0 && at < end) {
            ssize_t n = pread(
                fd, buf, sizeof(buf) < (size_t)(end - at) ? sizeof(buf) : (size_t)(end - at), at);

            r = n <= 0 ? kvfs_error_set(err, -EIO, "the inner disk cannot be read")
                       : kvfs_file_pwrite(f, buf, (size_t)n, (uint64_t)at, 0, err);
            at += n;
        }
    }
    return r;
}

static int
guest_prepare(struct kvfs_volume *v, const struct place *place, struct kvfs_error *err)
{
    struct kvfs_create create = {
        .mode = S_IFREG | 0600, .size_bytes = GUEST_DISK, .block_size_bytes = 4096};
    char path[PLACE_NAME_MAX];
    struct kvfs_attr attr = {0};
    struct kvfs_file *f = NULL;
    int fd, r = disks_make(place, place_name(place, "inner.img", path), GUEST_DISK, err);

    if (r == 0)
        r = kvfs_create(v, KVFS_ROOT_INO, "disk", &create, &attr, err);
    if (r == 0)
        r = kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, &f, err);
    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    r = fd < 0 ? kvfs_error_set(err, -errno, "%s", path) : guest_import(fd, f, err);
    if (fd >= 0)
        (void)close(fd);
    kvfs_file_close(f);
    (void)unlink(path);
    return r == 0 ? kvfs_volume_sync(v, err) : r;
}

/* --- the worker --- */

struct inner {
    char mnt[PLACE_NAME_MAX], fuse[PLACE_NAME_MAX];
    pid_t server, client;
    struct loop loop;
    bool mounted;
};

static void
inner_down(struct inner *in)
{
    if (in->mounted)
        disks_umount(in->mnt);
    loop_detach(&in->loop);
    if (in->client > 0) {
        if (umount2(in->fuse, 0) < 0)
            (void)umount2(in->fuse, MNT_DETACH);
        (void)tool_end(in->client, SIGKILL);
    }
    (void)tool_end(in->server, SIGKILL);
    (void)rmdir(in->mnt);
    (void)rmdir(in->fuse);
}

static int
inner_up(struct inner *in, const struct subject *s, const char *volume, uint64_t seed,
         struct kvfs_error *err)
{
    char socket[PLACE_NAME_MAX], uri[PLACE_NAME_MAX + 32], file[PLACE_NAME_MAX + 8], name[32];
    char ready[PLACE_NAME_MAX];
    const char *argv[] = {"nbdfuse", "-P", ready, file, uri, NULL};
    int r;

    *in = (struct inner){.loop.fd = -1};
    (void)snprintf(name, sizeof(name), "g%ld.mnt", (long)getpid());
    (void)place_name(s->place, name, in->mnt);
    (void)snprintf(name, sizeof(name), "g%ld.fuse", (long)getpid());
    (void)place_name(s->place, name, in->fuse);
    (void)snprintf(name, sizeof(name), "g%ld.ready", (long)getpid());
    (void)place_name(s->place, name, ready);
    if (mkdir(in->mnt, 0700) < 0 || mkdir(in->fuse, 0700) < 0)
        return kvfs_error_set(err, -errno, "%s: %s", in->mnt, strerrordesc_np(errno));
    r = serve_volume(s, volume, "disk", seed, socket, &in->server, err);
    (void)snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", socket);
    (void)snprintf(file, sizeof(file), "%s/disk", in->fuse);
    if (r == 0)
        r = tool_serve(s->place, argv, name, NULL, &in->client, err);
    if (r == 0)
        r = loop_attach(file, &in->loop, err);
    if (r == 0)
        r = disks_mount(s->place, &in->loop, in->mnt, NULL, err);
    in->mounted = r == 0;
    return r;
}

static void
guest_bytes(uint32_t op, uint8_t *buf, size_t count)
{
    for (size_t i = 0; i < count; i++)
        buf[i] = (uint8_t)(crashsim_hash2(op, i / 8) >> (i % 8 * 8));
}

static int
guest_fail(const char *what, struct kvfs_error *err)
{
    return kvfs_error_set(err, -errno, "%s: %s", what, strerrordesc_np(errno));
}

static int
guest_write_file(int dir, uint32_t op, size_t count, struct kvfs_error *err)
{
    static uint8_t buf[GUEST_MAX];
    char name[32];
    int fd = openat(dir, "temporary", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r = 0;

    guest_bytes(op, buf, count);
    (void)snprintf(name, sizeof(name), "f%u", op);
    if (fd < 0 || write(fd, buf, count) != (ssize_t)count || fsync(fd) < 0)
        r = guest_fail(name, err);
    if (fd >= 0)
        (void)close(fd);
    if (r == 0 && (renameat(dir, "temporary", dir, name) < 0 || fsync(dir) < 0))
        r = guest_fail(name, err);
    return r;
}

static int
guest_write_log(int dir, uint32_t op, struct kvfs_error *err)
{
    char line[32];
    int fd = openat(dir, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), r = 0;

    (void)snprintf(line, sizeof(line), "%07u\n", op);
    if (fd < 0 || write(fd, line, 8) != 8 || fdatasync(fd) < 0)
        r = guest_fail("log", err);
    if (fd >= 0)
        (void)close(fd);
    /* The first one makes the name. */
    return r == 0 && fsync(dir) < 0 ? guest_fail("log", err) : r;
}

static int
guest_step(int dir, struct journal *j, uint64_t *seed, struct kvfs_error *err)
{
    uint32_t dice = (uint32_t)(crashsim_random(seed) % 10), n = atomic_load(&j->count);
    struct journal_op op = {.kind = dice < 6 ? GUEST_FILE : dice < 8 ? GUEST_LOG : GUEST_REMOVE};
    char name[32];
    int number, r;

    op.count = 1 + crashsim_random(seed) % (GUEST_MAX - 1);
    op.a = n;
    if (op.kind == GUEST_REMOVE) {
        op.a = n == 0 ? 0 : (uint32_t)(crashsim_random(seed) % n);
        if (n == 0 || j->ops[op.a].kind != GUEST_FILE)
            return 0;
    }
    number = journal_issue(j, &op);
    if (number < 0)
        return kvfs_error_set(err, number, "the journal is full");
    if (op.kind == GUEST_FILE) {
        r = guest_write_file(dir, op.a, op.count, err);
    } else if (op.kind == GUEST_LOG) {
        r = guest_write_log(dir, op.a, err);
    } else {
        (void)snprintf(name, sizeof(name), "f%u", op.a);
        r = (unlinkat(dir, name, 0) < 0 && errno != ENOENT) || fsync(dir) < 0
                ? guest_fail(name, err)
                : 0;
    }
    if (r == 0)
        journal_ack(j, number);
    return r;
}

static int
guest_work(const struct subject *s, const char *volume, struct journal *j, struct kvfs_error *err)
{
    uint64_t seed = j->seed;
    struct inner in;
    int dir = -1, r = inner_up(&in, s, volume, j->seed, err);

    if (r == 0) {
        dir = open(in.mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = dir < 0 ? guest_fail(in.mnt, err) : 0;
    }
    for (unsigned i = 0; r == 0 && i < GUEST_OPS; i++)
        r = guest_step(dir, j, &seed, err);
    if (dir >= 0)
        (void)close(dir);
    if (r == 0) /* all is acknowledged: the plugin dies first, so that nothing more gets through */
        (void)kill(in.server, SIGKILL);
    inner_down(&in);
    return r;
}

/* --- the oracle --- */

/* Is file NUMBER there?  -1: there, and not what was written. */
static int
look_file(int dir, uint32_t number, size_t count)
{
    static uint8_t want[GUEST_MAX], have[GUEST_MAX + 1];
    char name[32];
    ssize_t n;
    int fd;

    (void)snprintf(name, sizeof(name), "f%u", number);
    fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    n = read(fd, have, sizeof(have));
    (void)close(fd);
    guest_bytes(number, want, count);
    return n == (ssize_t)count && memcmp(want, have, count) == 0 ? 1 : -1;
}

static void
look_log(struct judge *j, int dir, uint32_t issued)
{
    char text[8 * GUEST_OPS + 8] = "", line[32];
    int fd = openat(dir, "log", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    size_t at = 0, durable = 0;

    if (fd >= 0)
        (void)close(fd);
    for (uint32_t i = 0; i < issued; i++) {
        if (j->j->ops[i].kind != GUEST_LOG)
            continue;
        (void)snprintf(line, sizeof(line), "%07u\n", i);
        if (at + 8 <= (size_t)n && memcmp(text + at, line, 8) != 0)
            judge_bad(j, "the log holds something else where line %u must be", i);
        at += 8;
        if (journal_acked_at(j->j, i, j->t_ns) && judge_expects_durable(j))
            durable = at;
    }
    if ((size_t)n < durable)
        judge_bad(j, "the log has %zd bytes, %zu were durable", n, durable);
    if ((size_t)n > at)
        judge_bad(j, "the log has %zd bytes, %zu were written", n, at);
}

static void
look_files(struct judge *j, int dir)
{
    uint32_t issued = journal_issued_at(j->j, j->t_ns);

    for (uint32_t i = 0; i < issued; i++) {
        const struct journal_op *op = &j->j->ops[i];
        bool removing = false, removed = false;
        int there;

        if (op->kind != GUEST_FILE)
            continue;
        for (uint32_t k = i + 1; k < issued; k++) {
            if (j->j->ops[k].kind == GUEST_REMOVE && j->j->ops[k].a == i) {
                removing = true;
                removed = removed || journal_acked_at(j->j, k, j->t_ns);
            }
        }
        there = look_file(dir, i, op->count);
        if (there < 0)
            judge_bad(j, "file f%u is there by half", i);
        if (there == 0 && !removing && journal_acked_at(j->j, i, j->t_ns) &&
            judge_expects_durable(j))
            judge_bad(j, "file f%u was fsynced and is not there", i);
        if (there > 0 && removed && judge_expects_durable(j))
            judge_bad(j, "file f%u was removed durably and is there", i);
    }
    look_log(j, dir, issued);
}

struct copying {
    struct kvfs_file *f;
    int fd;
    uint64_t digest;
    struct kvfs_error *err;
    int rc;
    bool failed; /* the copy, not the volume */
};

static int
export_extent(void *arg, uint64_t offset, uint64_t count, bool hole)
{
    static uint8_t buf[GUEST_PIECE];
    struct copying *e = arg;

    for (uint64_t end = offset + count; !hole && offset < end && e->rc == 0;) {
        size_t n = end - offset < sizeof(buf) ? (size_t)(end - offset) : sizeof(buf);

        e->rc = kvfs_file_pread(e->f, buf, n, offset, e->err);
        if (e->rc == 0 && pwrite(e->fd, buf, n, (off_t)offset) != (ssize_t)n) {
            e->failed = true;
            e->rc = kvfs_error_set(e->err, -EIO, "the inner disk's copy cannot be written");
        }
        e->digest = crashsim_hash2(e->digest, judge_digest(buf, n) ^ offset);
        offset += n;
    }
    return e->rc;
}

/* The inner disk as a file. */
static int
guest_export(struct judge *j, const char *path, struct kvfs_error *err)
{
    struct copying e = {.err = err};
    struct kvfs_attr attr = {0};
    int r = kvfs_lookup(j->v, KVFS_ROOT_INO, "disk", &attr, err);

    if (r == 0)
        r = kvfs_file_open(j->v, attr.ino, KVFS_OPEN_READ, &e.f, err);
    if (r < 0)
        return r;
    e.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (e.fd < 0 || ftruncate(e.fd, (off_t)GUEST_DISK) < 0)
        r = judge_could_not(j, guest_fail(path, err), err);
    else
        r = kvfs_file_extents(e.f, GUEST_DISK, 0, UINT32_MAX, export_extent, &e, err);
    kvfs_file_close(e.f);
    if (e.fd >= 0)
        (void)close(e.fd);
    j->digest = e.digest;
    if (e.failed)
        (void)judge_could_not(j, e.rc, err);
    return r < 0 ? r : e.rc;
}

/* What the kernel noted while it was mounted: e2fsck -fn says nothing of it. */
static void
look_super(struct judge *j, const char *path)
{
    uint8_t super[1024] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool read = fd >= 0 && pread(fd, super, sizeof(super), 1024) == (ssize_t)sizeof(super);

    if (fd >= 0)
        (void)close(fd);
    if (!read || super[0x38] != 0x53 || super[0x39] != 0xef)
        judge_bad(j, "the inner file system has no superblock");
    else if ((super[0x3a] & 2) != 0 || super[0x194] != 0)
        judge_bad(j, "the inner file system noted an error");
}

/* Replay the journal by mounting, look at the files, then let e2fsck look. */
static int
guest_look(struct judge *j, const char *path, const char *mnt, struct kvfs_error *err)
{
    const char *fsck[] = {"e2fsck", "-fn", path, NULL};
    struct loop loop = {.fd = -1};
    int dir, r = loop_attach(path, &loop, err);

    if (r < 0)
        return judge_could_not(j, r, err);
    if (mount(loop.name, mnt, "ext4", MS_NOATIME, "") < 0) {
        judge_bad(j, "the inner file system does not mount: %s", strerrordesc_np(errno));
        loop_detach(&loop);
        return 0;
    }
    dir = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        judge_bad(j, "the inner file system has no root: %s", strerrordesc_np(errno));
    else
        look_files(j, dir);
    if (dir >= 0)
        (void)close(dir);
    disks_umount(mnt);
    loop_detach(&loop);
    look_super(j, path);
    r = tool_run(j->s->place, fsck, err);
    if (r == -EIO)
        judge_bad(j, "%s", err->msg);
    return r == -EIO ? 0 : judge_could_not(j, r, err);
}

static int
guest_judge(struct judge *j, struct kvfs_error *err)
{
    char path[PLACE_NAME_MAX], mnt[PLACE_NAME_MAX], name[32];
    int r;

    (void)snprintf(name, sizeof(name), "i%ld.img", (long)getpid());
    (void)place_name(j->s->place, name, path);
    (void)snprintf(name, sizeof(name), "i%ld.mnt", (long)getpid());
    (void)place_name(j->s->place, name, mnt);
    if (mkdir(mnt, 0700) < 0 && errno != EEXIST)
        return judge_could_not(j, guest_fail(mnt, err), err);
    r = guest_export(j, path, err);
    if (r == 0)
        r = guest_look(j, path, mnt, err);
    (void)unlink(path);
    (void)rmdir(mnt);
    return r;
}

static const char *const guest_tools[] = {"mkfs.ext4", "e2fsck", "nbdkit", "nbdfuse", NULL};

const struct scenario scenario_guest = {
    .name = "guest",
    .tools = guest_tools,
    .serves = true,
    .summary = "ext4 inside a disk of the volume; one cut takes both",
    .prepare_in = guest_prepare,
    .work = guest_work,
    .judge = guest_judge,
};
