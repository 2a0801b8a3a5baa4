/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_calls.c - see trace_calls.h.
 *
 * The bytes of a write are taken when the call begins, since the program may change them while it
 * runs; what they did is noted when it ends, with the result.  A sync covers what was noted when
 * it began.  Names are resolved by the kernel, through /proc/TID.
 */
#include "trace_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define CALL_WRITE_MAX (UINT64_C(1) << 30)
#define CALL_IOV_MAX   1024
#define CALL_DSYNC     0x2 /* RWF_DSYNC */
#define CALL_SYNC      0x4
#define CALL_APPEND    0x10
#define CALL_TMPFILE   020000000 /* without O_DIRECTORY */
#define CALL_SWAP      2         /* RENAME_EXCHANGE */

/* --- the program's memory, descriptors and names --- */

static bool
call_read(const struct call *c, uint64_t at, void *buf, size_t count)
{
    struct iovec here = {buf, count}, there = {(void *)(uintptr_t)at, count};

    return count == 0 || process_vm_readv(c->tid, &here, 1, &there, 1, 0) == (ssize_t)count;
}

static bool
call_string(const struct call *c, uint64_t at, char *text, size_t size)
{
    for (size_t n = 0; n + 1 < size;) {
        size_t page = 4096 - (size_t)((at + n) % 4096), part = size - 1 - n < page ? size - 1 - n
                                                                                  : page;
        char *end;

        if (!call_read(c, at + n, text + n, part))
            return false;
        end = memchr(text + n, '\0', part);
        if (end != NULL)
            return true;
        n += part;
    }
    return false;
}

static void
call_fd_path(const struct call *c, uint64_t fd, char path[64])
{
    (void)snprintf(path, 64, "/proc/%d/fd/%d", (int)c->tid, (int)fd);
}

/* The object that descriptor FD is open on. */
static uint32_t
call_object(const struct calls *calls, const struct call *c, uint64_t fd)
{
    char path[64];
    struct stat st;

    call_fd_path(c, fd, path);
    return stat(path, &st) == 0 ? trace_record_find(calls->record, &st) : TRACE_NONE;
}

/* Where FD stands, and its flags. */
static bool
call_position(const struct call *c, uint64_t fd, uint64_t *pos, unsigned *flags)
{
    char path[64], text[256];
    ssize_t n;
    int info;
    const char *p;

    (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", (int)c->tid, (int)fd);
    info = open(path, O_RDONLY | O_CLOEXEC);
    n = info >= 0 ? read(info, text, sizeof(text) - 1) : -1;
    if (info >= 0)
        (void)close(info);
    if (n <= 0)
        return false;
    text[n] = '\0';
    p = strstr(text, "flags:");
    if (strncmp(text, "pos:", 4) != 0 || p == NULL)
        return false;
    *pos = strtoull(text + 4, NULL, 10);
    *flags = (unsigned)strtoul(p + 6, NULL, 8);
    return true;
}

/* The entry that the path at AT, from folder DIRFD, names.  false: it cannot be read, or is not
 * below our folder. */
static bool
call_resolve(const struct calls *calls, const struct call *c, uint64_t dirfd, uint64_t at,
             struct call_name *name)
{
    char text[PATH_MAX] = "", folder[PATH_MAX + 64], *slash;
    const char *last;
    struct stat st;
    size_t len;

    name->parent = TRACE_NONE;
    if (!call_string(c, at, text, sizeof(text)))
        return false;
    for (len = strlen(text); len > 1 && text[len - 1] == '/'; len--)
        text[len - 1] = '\0';
    slash = strrchr(text, '/');
    last = slash != NULL ? slash + 1 : text;
    if (strlen(last) >= sizeof(name->name))
        return false;
    memcpy(name->name, last, strlen(last) + 1);
    if (slash != NULL)
        *slash = '\0';
    if (slash != NULL && text[0] == '\0')
        (void)snprintf(folder, sizeof(folder), "/proc/%d/root/", (int)c->tid);
    else if (slash != NULL && text[0] == '/')
        (void)snprintf(folder, sizeof(folder), "/proc/%d/root%s", (int)c->tid, text);
    else if ((int)dirfd == AT_FDCWD)
        (void)snprintf(folder, sizeof(folder), "/proc/%d/cwd/%s", (int)c->tid,
                       slash != NULL ? text : "");
    else
        (void)snprintf(folder, sizeof(folder), "/proc/%d/fd/%d/%s", (int)c->tid, (int)dirfd,
                       slash != NULL ? text : "");
    if (stat(folder, &st) < 0)
        return false;
    name->parent = trace_record_find(calls->record, &st);
    (void)snprintf(name->path, sizeof(name->path), "%s/%s", folder, name->name);
    name->exists = lstat(name->path, &name->st) == 0;
    return name->parent != TRACE_NONE;
}

/* --- writes --- */

/* Does descriptor FD take marks, or is it one of ours? */
static bool
write_is_ours(struct calls *calls, struct call *c, uint64_t fd)
{
    char path[64];
    struct stat st;

    call_fd_path(c, fd, path);
    if (stat(path, &st) < 0)
        return false;
    c->obj = trace_record_find(calls->record, &st);
    c->is_mark = st.st_ino == calls->marks.st_ino && st.st_dev == calls->marks.st_dev;
    return c->obj != TRACE_NONE || c->is_mark;
}

static bool
write_take(struct call *c, uint64_t at, uint64_t count)
{
    c->count = count < CALL_WRITE_MAX ? count : CALL_WRITE_MAX;
    c->data = malloc(c->count + 1);
    if (c->data != NULL && call_read(c, at, c->data, c->count))
        return true;
    c->count = 0; /* the kernel will fail it too, or write in part */
    return true;
}

static bool
write_take_vector(struct call *c, uint64_t at, uint64_t count)
{
    struct iovec iov[CALL_IOV_MAX] = {{NULL, 0}};
    uint64_t total = 0, n = 0;

    if (count > CALL_IOV_MAX || !call_read(c, at, iov, count * sizeof(iov[0])))
        return true;
    for (uint64_t i = 0; i < count; i++)
        total += iov[i].iov_len < CALL_WRITE_MAX ? iov[i].iov_len : CALL_WRITE_MAX;
    if (total > CALL_WRITE_MAX)
        return true;
    c->data = malloc(total + 1);
    for (uint64_t i = 0; c->data != NULL && i < count; n += iov[i++].iov_len) {
        if (!call_read(c, (uint64_t)(uintptr_t)iov[i].iov_base, c->data + n, iov[i].iov_len))
            return true;
        c->count = n + iov[i].iov_len;
    }
    return true;
}

static bool
write_enter(struct calls *calls, struct call *c)
{
    c->offset = -1;
    return write_is_ours(calls, c, c->args[0]) && write_take(c, c->args[1], c->args[2]);
}

static bool
pwrite_enter(struct calls *calls, struct call *c)
{
    c->offset = (int64_t)c->args[3];
    return write_is_ours(calls, c, c->args[0]) && write_take(c, c->args[1], c->args[2]);
}

static bool
writev_enter(struct calls *calls, struct call *c)
{
    c->offset = -1;
    return write_is_ours(calls, c, c->args[0]) && write_take_vector(c, c->args[1], c->args[2]);
}

static bool
pwritev_enter(struct calls *calls, struct call *c)
{
    c->offset = (int64_t)c->args[3];
    return write_is_ours(calls, c, c->args[0]) && write_take_vector(c, c->args[1], c->args[2]);
}

static bool
pwritev2_enter(struct calls *calls, struct call *c)
{
    c->sync = (c->args[5] & (CALL_DSYNC | CALL_SYNC)) != 0;
    if ((c->args[5] & CALL_APPEND) != 0)
        trace_record_unseen(calls->record, "a write with RWF_APPEND");
    return pwritev_enter(calls, c);
}

static void
write_marks(struct calls *calls, const struct call *c, size_t count)
{
    const char *p = (const char *)c->data, *end = p + count;

    while (p < end) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));

        stop = stop != NULL ? stop : end;
        trace_record_mark(calls->record, p, (size_t)(stop - p));
        p = stop + 1;
    }
}

/* RESULT bytes are there: where? */
static bool
write_where(struct call *c, uint64_t fd, uint64_t result, uint64_t *offset)
{
    uint64_t pos;
    unsigned flags;
    char path[64];
    struct stat st;

    if (!call_position(c, fd, &pos, &flags))
        return false;
    c->sync |= (flags & O_DSYNC) != 0;
    *offset = c->offset >= 0 ? (uint64_t)c->offset : pos - result;
    if (c->offset < 0 || (flags & O_APPEND) == 0)
        return true;
    call_fd_path(c, fd, path); /* Linux appends, whatever the offset */
    if (stat(path, &st) < 0)
        return false;
    *offset = (uint64_t)st.st_size - result;
    return true;
}

static void
write_leave(struct calls *calls, struct call *c, int64_t result)
{
    uint64_t offset;

    if ((uint64_t)result > c->count || result == 0) {
        if (result != 0)
            trace_record_unseen(calls->record, "a write whose bytes could not be read");
    } else if (c->is_mark) {
        trace_record_look(calls->record);
        write_marks(calls, c, (size_t)result);
    } else if (write_where(c, c->args[0], (uint64_t)result, &offset)) {
        trace_record_write(calls->record, c->obj, offset, c->data, (size_t)result, c->sync);
    } else {
        trace_record_unseen(calls->record, "a write whose place could not be read");
    }
}

/* sendfile, copy_file_range, splice: the bytes are read from the file when it is over. */
static void
copy_leave(struct calls *calls, struct call *c, int64_t result)
{
    uint64_t fd = c->args[(size_t)c->count], offset = 0;
    char path[64];
    ssize_t n = -1;
    int file;

    if (result == 0)
        return;
    if (c->offset > 0) { /* a pointer; what it points at has moved on */
        if (!call_read(c, (uint64_t)c->offset, &offset, sizeof(offset)))
            return;
        c->offset = (int64_t)(offset - (uint64_t)result);
    } else {
        c->offset = -1;
    }
    call_fd_path(c, fd, path);
    file = open(path, O_RDONLY | O_CLOEXEC);
    c->data = (uint64_t)result <= CALL_WRITE_MAX ? malloc((size_t)result) : NULL;
    if (file >= 0 && c->data != NULL && write_where(c, fd, (uint64_t)result, &offset))
        n = pread(file, c->data, (size_t)result, (off_t)offset);
    if (n == result)
        trace_record_write(calls->record, c->obj, offset, c->data, (size_t)result, c->sync);
    else
        trace_record_unseen(calls->record, "a copy whose bytes could not be read");
    if (file >= 0)
        (void)close(file);
}

static bool
copy_enter(struct calls *calls, struct call *c, unsigned fd, uint64_t pointer)
{
    c->offset = (int64_t)pointer;
    c->count = fd;
    return write_is_ours(calls, c, c->args[fd]) && !c->is_mark;
}

static bool
sendfile_enter(struct calls *calls, struct call *c)
{
    return copy_enter(calls, c, 0, 0);
}

static bool
copy_file_range_enter(struct calls *calls, struct call *c)
{
    return copy_enter(calls, c, 2, c->args[3]);
}

/* --- size and room --- */

static bool
truncate_enter(struct calls *calls, struct call *c)
{
    struct stat st;

    if (!call_resolve(calls, c, (uint64_t)AT_FDCWD, c->args[0], &c->a) ||
        stat(c->a.path, &st) < 0)
        return false;
    c->obj = trace_record_find(calls->record, &st);
    return c->obj != TRACE_NONE;
}

static bool
object_enter(struct calls *calls, struct call *c)
{
    c->obj = call_object(calls, c, c->args[0]);
    return c->obj != TRACE_NONE;
}

static void
truncate_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    trace_record_size(calls->record, c->obj, c->args[1]);
}

static void
fallocate_leave(struct calls *calls, struct call *c, int64_t result)
{
    uint64_t mode = c->args[1];

    (void)result;
    if ((mode & ~(uint64_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE |
                            FALLOC_FL_UNSHARE_RANGE)) != 0)
        trace_record_unseen(calls->record, "fallocate() that moves bytes");
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0)
        trace_record_room(calls->record, c->obj, c->args[2], c->args[3], true);
    if ((mode & FALLOC_FL_KEEP_SIZE) == 0)
        trace_record_room(calls->record, c->obj, c->args[2], c->args[3], false);
}

/* --- names --- */

static void
open_note(struct calls *calls, struct call *c, uint64_t flags, int64_t fd)
{
    struct stat st;
    char path[64];

    call_fd_path(c, (uint64_t)fd, path);
    if (stat(path, &st) < 0)
        return;
    if (!c->a.exists)
        (void)trace_record_new(calls->record, &st, c->a.parent, c->a.name, NULL);
    else if ((flags & O_TRUNC) != 0 && c->obj != TRACE_NONE && c->count > 0)
        trace_record_size(calls->record, c->obj, 0);
}

static bool
open_enter_at(struct calls *calls, struct call *c, uint64_t dirfd, uint64_t path, uint64_t flags)
{
    struct stat st;

    if ((flags & CALL_TMPFILE) != 0) {
        trace_record_unseen(calls->record, "O_TMPFILE");
        return false;
    }
    if ((flags & (O_CREAT | O_TRUNC)) == 0 || !call_resolve(calls, c, dirfd, path, &c->a))
        return false;
    c->obj = TRACE_NONE;
    if (c->a.exists && stat(c->a.path, &st) == 0) { /* its size, if it is to lose it */
        c->obj = trace_record_find(calls->record, &st);
        c->count = (uint64_t)st.st_size;
    }
    c->offset = (int64_t)flags;
    return true;
}

static bool
openat_enter(struct calls *calls, struct call *c)
{
    return open_enter_at(calls, c, c->args[0], c->args[1], c->args[2]);
}

static bool
openat2_enter(struct calls *calls, struct call *c)
{
    struct open_how how;

    return call_read(c, c->args[2], &how, sizeof(how)) &&
           open_enter_at(calls, c, c->args[0], c->args[1], how.flags);
}

static void
open_leave(struct calls *calls, struct call *c, int64_t result)
{
    open_note(calls, c, (uint64_t)c->offset, result);
}

static bool
name_enter(struct calls *calls, struct call *c)
{
    return call_resolve(calls, c, c->args[0], c->args[1], &c->a);
}

static void
mkdir_leave(struct calls *calls, struct call *c, int64_t result)
{
    struct stat st;

    (void)result;
    if (lstat(c->a.path, &st) == 0)
        (void)trace_record_new(calls->record, &st, c->a.parent, c->a.name, NULL);
}

static bool
symlinkat_enter(struct calls *calls, struct call *c)
{
    return call_resolve(calls, c, c->args[1], c->args[2], &c->a);
}

static void
symlink_leave(struct calls *calls, struct call *c, int64_t result)
{
    char target[PATH_MAX];
    struct stat st;
    ssize_t n = readlink(c->a.path, target, sizeof(target) - 1);

    (void)result;
    if (n <= 0 || lstat(c->a.path, &st) < 0)
        return;
    target[n] = '\0';
    (void)trace_record_new(calls->record, &st, c->a.parent, c->a.name, target);
}

static void
unlink_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    trace_record_name(calls->record, 'U', 0, c->a.parent, c->a.name);
}

static bool
two_names_enter(struct calls *calls, struct call *c)
{
    bool a = call_resolve(calls, c, c->args[0], c->args[1], &c->a);
    bool b = call_resolve(calls, c, c->args[2], c->args[3], &c->b);

    return a || b;
}

static void
link_leave(struct calls *calls, struct call *c, int64_t result)
{
    struct stat st;
    uint32_t obj = TRACE_NONE;

    (void)result;
    if (c->b.parent == TRACE_NONE)
        return;
    if (lstat(c->b.path, &st) == 0)
        obj = trace_record_find(calls->record, &st);
    if (obj == TRACE_NONE)
        trace_record_unseen(calls->record, "a link to a file from elsewhere");
    else
        trace_record_name(calls->record, 'L', obj, c->b.parent, c->b.name);
}

static void
rename_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    if (c->b.parent == TRACE_NONE)
        trace_record_name(calls->record, 'U', 0, c->a.parent, c->a.name);
    else if (c->a.parent == TRACE_NONE)
        trace_record_unseen(calls->record, "a rename of a file from elsewhere");
    else if (!c->a.exists || !c->b.exists || c->a.st.st_ino != c->b.st.st_ino)
        trace_record_rename(calls->record, c->a.parent, c->a.name, c->b.parent, c->b.name,
                            (c->args[4] & CALL_SWAP) != 0);
}

/* --- syncs and mappings --- */

static bool
sync_enter(struct calls *calls, struct call *c)
{
    if (!object_enter(calls, c))
        return false;
    trace_record_look(calls->record); /* what was stored before is covered */
    c->bound = trace_record_count(calls->record);
    return true;
}

static void
fsync_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    trace_record_sync(calls->record, c->obj, false, c->bound);
}

static void
fdatasync_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    trace_record_sync(calls->record, c->obj, true, c->bound);
}

static bool
sync_all_enter(struct calls *calls, struct call *c)
{
    trace_record_look(calls->record);
    c->bound = trace_record_count(calls->record);
    return true;
}

static bool
syncfs_enter(struct calls *calls, struct call *c)
{
    return object_enter(calls, c) && sync_all_enter(calls, c);
}

static void
sync_all_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    trace_record_sync_all(calls->record, c->bound);
}

static bool
mmap_enter(struct calls *calls, struct call *c)
{
    uint64_t type = c->args[3] & 0xf;

    return (c->args[2] & PROT_WRITE) != 0 && (type == MAP_SHARED || type == MAP_SHARED_VALIDATE) &&
           (c->args[3] & MAP_ANONYMOUS) == 0 &&
           (c->obj = call_object(calls, c, c->args[4])) != TRACE_NONE;
}

static void
mmap_leave(struct calls *calls, struct call *c, int64_t result)
{
    char path[64];

    (void)result;
    call_fd_path(c, c->args[4], path);
    trace_record_map(calls->record, c->obj, path);
}

/* The object that is mapped at ADDRESS, by /proc/TID/maps. */
static uint32_t
msync_object(const struct calls *calls, const struct call *c, uint64_t address)
{
    char path[64], *line = NULL;
    uint32_t obj = TRACE_NONE;
    size_t cap = 0;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)c->tid);
    f = fopen(path, "re");
    while (f != NULL && obj == TRACE_NONE && getline(&line, &cap, f) > 0) {
        uint64_t from, to;
        char name[64];
        struct stat st;

        /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
        if (sscanf(line, "%" SCNx64 "-%" SCNx64, &from, &to) != 2 || address < from ||
            address >= to)
            continue;
        (void)snprintf(name, sizeof(name), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64,
                       (int)c->tid, from, to);
        if (stat(name, &st) == 0)
            obj = trace_record_find(calls->record, &st);
    }
    free(line);
    if (f != NULL)
        (void)fclose(f);
    return obj;
}

static bool
msync_enter(struct calls *calls, struct call *c)
{
    if ((c->args[2] & MS_SYNC) == 0)
        return false;
    c->obj = msync_object(calls, c, c->args[0]);
    trace_record_look(calls->record);
    c->bound = trace_record_count(calls->record);
    return c->obj != TRACE_NONE;
}

static bool
munmap_enter(struct calls *calls, struct call *c)
{
    (void)c;
    trace_record_look(calls->record);
    return false;
}

/* --- all --- */

#ifdef __NR_open /* the old forms, as the new ones */
static bool
open_enter(struct calls *calls, struct call *c)
{
    return open_enter_at(calls, c, (uint64_t)AT_FDCWD, c->args[0], c->args[1]);
}

static bool
creat_enter(struct calls *calls, struct call *c)
{
    return open_enter_at(calls, c, (uint64_t)AT_FDCWD, c->args[0], O_CREAT | O_TRUNC);
}

static bool
old_name_enter(struct calls *calls, struct call *c)
{
    return call_resolve(calls, c, (uint64_t)AT_FDCWD, c->args[0], &c->a);
}

static bool
old_symlink_enter(struct calls *calls, struct call *c)
{
    return call_resolve(calls, c, (uint64_t)AT_FDCWD, c->args[1], &c->a);
}

static bool
old_two_names_enter(struct calls *calls, struct call *c)
{
    c->args[3] = c->args[1];
    c->args[1] = c->args[0];
    c->args[0] = c->args[2] = (uint64_t)AT_FDCWD;
    c->args[4] = 0;
    return two_names_enter(calls, c);
}
#endif

#ifdef __NR_renameat
static bool
renameat_enter(struct calls *calls, struct call *c)
{
    c->args[4] = 0; /* it has no flags */
    return two_names_enter(calls, c);
}
#endif

static const struct call_kind call_kinds[] = {
    {__NR_write, write_enter, write_leave},
    {__NR_pwrite64, pwrite_enter, write_leave},
    {__NR_writev, writev_enter, write_leave},
    {__NR_pwritev, pwritev_enter, write_leave},
    {__NR_pwritev2, pwritev2_enter, write_leave},
    {__NR_sendfile, sendfile_enter, copy_leave},
    {__NR_copy_file_range, copy_file_range_enter, copy_leave},
    {__NR_splice, copy_file_range_enter, copy_leave},
    {__NR_truncate, truncate_enter, truncate_leave},
    {__NR_ftruncate, object_enter, truncate_leave},
    {__NR_fallocate, object_enter, fallocate_leave},
    {__NR_openat, openat_enter, open_leave},
    {__NR_openat2, openat2_enter, open_leave},
    {__NR_mkdirat, name_enter, mkdir_leave},
    {__NR_symlinkat, symlinkat_enter, symlink_leave},
    {__NR_unlinkat, name_enter, unlink_leave},
    {__NR_linkat, two_names_enter, link_leave},
    {__NR_renameat2, two_names_enter, rename_leave},
    {__NR_fsync, sync_enter, fsync_leave},
    {__NR_fdatasync, sync_enter, fdatasync_leave},
    {__NR_sync, sync_all_enter, sync_all_leave},
    {__NR_syncfs, syncfs_enter, sync_all_leave},
    {__NR_mmap, mmap_enter, mmap_leave},
    {__NR_msync, msync_enter, fdatasync_leave},
    {__NR_munmap, munmap_enter, NULL},
#ifdef __NR_renameat
    {__NR_renameat, renameat_enter, rename_leave},
#endif
#ifdef __NR_open
    {__NR_open, open_enter, open_leave},
    {__NR_creat, creat_enter, open_leave},
    {__NR_mkdir, old_name_enter, mkdir_leave},
    {__NR_symlink, old_symlink_enter, symlink_leave},
    {__NR_unlink, old_name_enter, unlink_leave},
    {__NR_rmdir, old_name_enter, unlink_leave},
    {__NR_link, old_two_names_enter, link_leave},
    {__NR_rename, old_two_names_enter, rename_leave},
#endif
};

const struct call_kind *
calls_kinds(size_t *count)
{
    *count = sizeof(call_kinds) / sizeof(call_kinds[0]);
    return call_kinds;
}

static void
call_reset(struct call *c)
{
    free(c->data);
    c->data = NULL;
    c->kind = NULL;
    c->count = 0;
    c->sync = c->is_mark = false;
}

void
calls_begin(struct calls *calls, struct call *c, int number, const uint64_t args[6])
{
    call_reset(c);
    for (size_t i = 0; i < sizeof(call_kinds) / sizeof(call_kinds[0]); i++) {
        if (call_kinds[i].number != number)
            continue;
        memcpy(c->args, args, sizeof(c->args));
        c->bound = trace_record_count(calls->record);
        c->obj = TRACE_NONE;
        if (call_kinds[i].enter(calls, c))
            c->kind = &call_kinds[i];
        else
            call_reset(c);
        return;
    }
}

void
calls_end(struct calls *calls, struct call *c, int64_t result)
{
    if (c->kind != NULL && result >= 0 && c->kind->leave != NULL)
        c->kind->leave(calls, c, result);
    call_reset(c);
}
