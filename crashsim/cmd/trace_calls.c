/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_calls.c - see trace_calls.h.
 *
 * The bytes of a write and its place are taken when the call begins, since the program may change them
 * while it runs, or be killed before we look; what they did is noted when it ends, with the result.  A
 * sync covers what was noted when it began.  Calls that change the same are made one after the other
 * (tracer.c): what a call finds when it begins and when it ends, nobody else has changed between.  Not
 * so splice(), which may wait for another thread.
 */
#include "trace_calls.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "trace_program.h"

#define CALL_WRITE_MAX (UINT64_C(1) << 30)
#define CALL_IOV_MAX   1024
#define CALL_DSYNC     0x2 /* RWF_DSYNC */
#define CALL_SYNC      0x4
#define CALL_APPEND    0x10
#define CALL_NOAPPEND  0x20
#define CALL_TMPFILE   020000000 /* without O_DIRECTORY */
#define CALL_SWAP      2         /* RENAME_EXCHANGE */

/* --- writes --- */

/* Does descriptor FD take marks, or is it one of ours? */
static bool
write_is_ours(struct calls *calls, struct call *c, uint64_t fd)
{
    char path[64];
    struct stat st;

    call_fd_path(c, fd, path);
    if (call_stat(path, &st) < 0)
        return false;
    c->obj = trace_record_find(calls->record, &st);
    c->is_mark = st.st_ino == calls->marks.st_ino && st.st_dev == calls->marks.st_dev;
    return c->obj != TRACE_NONE || c->is_mark;
}

/* Where does a write to FD go, of which PASSED bytes are there already?  None, if it may append. */
static bool
write_where(struct call *c, uint64_t fd, uint64_t passed, uint64_t *offset)
{
    uint64_t pos;
    unsigned flags;
    char path[64];
    struct stat st;

    if (!call_position(c, fd, &pos, &flags))
        return false;
    c->sync |= (flags & O_DSYNC) != 0;
    *offset = c->offset >= 0 ? (uint64_t)c->offset : pos - passed;
    if (!c->append && ((flags & O_APPEND) == 0 || c->not_append))
        return true;
    call_fd_path(c, fd, path); /* Linux appends, whatever the offset */
    if (stat(path, &st) < 0)
        return false;
    *offset = (uint64_t)st.st_size;
    return true;
}

static bool
write_take(struct call *c, uint64_t at, uint64_t count)
{
    c->placed = c->is_mark || write_where(c, c->args[0], 0, &c->place);
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
    uint64_t total = 0;

    c->placed = c->is_mark || write_where(c, c->args[0], 0, &c->place);
    if (count > CALL_IOV_MAX || !call_read(c, at, iov, count * sizeof(iov[0])))
        return true;
    for (uint64_t i = 0; i < count; i++) { /* the lengths are the program's, and may be anything */
        if (iov[i].iov_len > CALL_WRITE_MAX - total)
            return true;
        total += iov[i].iov_len;
    }
    c->data = malloc(total + 1);
    for (uint64_t i = 0; c->data != NULL && i < count; i++) {
        if (!call_read(c, (uint64_t)(uintptr_t)iov[i].iov_base, c->data + c->count,
                       iov[i].iov_len))
            return true;
        c->count += iov[i].iov_len;
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
    c->append = (c->args[5] & CALL_APPEND) != 0;
    c->not_append = (c->args[5] & CALL_NOAPPEND) != 0;
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

static void
write_leave(struct calls *calls, struct call *c, int64_t result)
{
    if ((uint64_t)result > c->count || result == 0) {
        if (result != 0)
            trace_record_unseen(calls->record, "a write whose bytes could not be read");
    } else if (c->is_mark) {
        trace_record_look(calls->record);
        write_marks(calls, c, (size_t)result);
    } else if (c->placed) {
        trace_record_write(calls->record, c->obj, c->place, c->data, (size_t)result, c->sync);
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
    if (c->a.exists && S_ISLNK(c->a.st.st_mode) && c->obj == TRACE_NONE && (flags & O_CREAT) != 0)
        trace_record_unseen(calls->record, "a file made through a symbolic link");
    else if (!c->a.exists)
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
        if (!S_ISREG(st.st_mode)) /* a FIFO: who opens it may wait */
            return false;
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

/* A device, FIFO or socket holds no bytes of ours. */
static void
mknod_leave(struct calls *calls, struct call *c, int64_t result)
{
    struct stat st;

    (void)result;
    if (lstat(c->a.path, &st) == 0 && S_ISREG(st.st_mode))
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

/* What was mapped for reading may be written from now on. */
static bool
mprotect_enter(struct calls *calls, struct call *c)
{
    char path[CALL_MAPPED_PATH];

    if ((c->args[2] & PROT_WRITE) != 0) {
        c->obj = call_mapped(calls, c, c->args[0], path, NULL);
        if (c->obj != TRACE_NONE)
            trace_record_map(calls->record, c->obj, path);
    }
    return false;
}

static bool
msync_enter(struct calls *calls, struct call *c)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), count = (c->args[1] + page - 1) / page * page;
    char path[CALL_MAPPED_PATH];
    struct call_range range;

    if ((c->args[2] & MS_SYNC) == 0)
        return false;
    c->obj = call_mapped(calls, c, c->args[0], path, &range);
    if (c->obj == TRACE_NONE || count == 0)
        return false;
    if (range.count < count)
        trace_record_unseen(calls->record, "an msync of more than one mapping");
    c->place = range.offset;
    c->count = count;
    trace_record_look(calls->record);
    c->bound = trace_record_count(calls->record);
    return true;
}

static void
msync_leave(struct calls *calls, struct call *c, int64_t result)
{
    (void)result;
    trace_record_sync_range(calls->record, c->obj, c->bound, c->place, c->count);
}

static bool
munmap_enter(struct calls *calls, struct call *c)
{
    (void)c;
    trace_record_look(calls->record);
    return false;
}

/* It takes the threads of its process along, out of the middle of their calls: see calls_meet(). */
static bool
exit_enter(struct calls *calls, struct call *c)
{
    (void)calls;
    c->last = true;
    return true;
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
    {__NR_write, CALL_BYTES, write_enter, write_leave},
    {__NR_pwrite64, CALL_BYTES, pwrite_enter, write_leave},
    {__NR_writev, CALL_BYTES, writev_enter, write_leave},
    {__NR_pwritev, CALL_BYTES, pwritev_enter, write_leave},
    {__NR_pwritev2, CALL_BYTES, pwritev2_enter, write_leave},
    {__NR_sendfile, CALL_BYTES, sendfile_enter, copy_leave},
    {__NR_copy_file_range, CALL_BYTES, copy_file_range_enter, copy_leave},
    {__NR_splice, 0, copy_file_range_enter, copy_leave},
    {__NR_truncate, CALL_BYTES, truncate_enter, truncate_leave},
    {__NR_ftruncate, CALL_BYTES, object_enter, truncate_leave},
    {__NR_fallocate, CALL_BYTES, object_enter, fallocate_leave},
    {__NR_openat, CALL_NAMES | CALL_BYTES, openat_enter, open_leave},
    {__NR_openat2, CALL_NAMES | CALL_BYTES, openat2_enter, open_leave},
    {__NR_mknodat, CALL_NAMES, name_enter, mknod_leave},
    {__NR_mkdirat, CALL_NAMES, name_enter, mkdir_leave},
    {__NR_symlinkat, CALL_NAMES, symlinkat_enter, symlink_leave},
    {__NR_unlinkat, CALL_NAMES, name_enter, unlink_leave},
    {__NR_linkat, CALL_NAMES, two_names_enter, link_leave},
    {__NR_renameat2, CALL_NAMES, two_names_enter, rename_leave},
    {__NR_fsync, 0, sync_enter, fsync_leave},
    {__NR_fdatasync, 0, sync_enter, fdatasync_leave},
    {__NR_sync, 0, sync_all_enter, sync_all_leave},
    {__NR_syncfs, 0, syncfs_enter, sync_all_leave},
    {__NR_mmap, 0, mmap_enter, mmap_leave},
    {__NR_msync, 0, msync_enter, msync_leave},
    {__NR_mprotect, 0, mprotect_enter, NULL},
    {__NR_munmap, 0, munmap_enter, NULL},
    {__NR_exit_group, 0, exit_enter, NULL},
#ifdef __NR_renameat
    {__NR_renameat, CALL_NAMES, renameat_enter, rename_leave},
#endif
#ifdef __NR_open
    {__NR_open, CALL_NAMES | CALL_BYTES, open_enter, open_leave},
    {__NR_creat, CALL_NAMES | CALL_BYTES, creat_enter, open_leave},
    {__NR_mknod, CALL_NAMES, old_name_enter, mknod_leave},
    {__NR_mkdir, CALL_NAMES, old_name_enter, mkdir_leave},
    {__NR_symlink, CALL_NAMES, old_symlink_enter, symlink_leave},
    {__NR_unlink, CALL_NAMES, old_name_enter, unlink_leave},
    {__NR_rmdir, CALL_NAMES, old_name_enter, unlink_leave},
    {__NR_link, CALL_NAMES, old_two_names_enter, link_leave},
    {__NR_rename, CALL_NAMES, old_two_names_enter, rename_leave},
#endif
};

const struct call_kind *
calls_kinds(size_t *count)
{
    *count = sizeof(call_kinds) / sizeof(call_kinds[0]);
    return call_kinds;
}

void
calls_forget(struct call *c)
{
    free(c->data);
    c->data = NULL;
    c->kind = NULL;
    c->count = 0;
    c->sync = c->is_mark = c->append = c->not_append = false;
}

static bool
call_same(const struct call *a, const struct call *b)
{
    unsigned both = a->kind != NULL && b->kind != NULL ? a->kind->changes & b->kind->changes : 0;

    return (both & CALL_NAMES) != 0 ||
           ((both & CALL_BYTES) != 0 && a->obj == b->obj && a->obj != TRACE_NONE);
}

bool
calls_meet(const struct call *a, const struct call *b)
{
    if (a->last || b->last) {
        const struct call *other = a->last ? b : a;

        return other->kind != NULL && other->kind->changes != 0;
    }
    return call_same(a, b);
}

void
calls_begin(struct calls *calls, struct call *c, int number, const uint64_t args[6])
{
    calls_forget(c);
    for (size_t i = 0; i < sizeof(call_kinds) / sizeof(call_kinds[0]); i++) {
        if (call_kinds[i].number != number)
            continue;
        memcpy(c->args, args, sizeof(c->args));
        c->bound = trace_record_count(calls->record);
        c->obj = TRACE_NONE;
        if (call_kinds[i].enter(calls, c))
            c->kind = &call_kinds[i];
        else
            calls_forget(c);
        return;
    }
}

void
calls_end(struct calls *calls, struct call *c, int64_t result)
{
    if (c->kind != NULL && result >= 0 && c->kind->leave != NULL)
        c->kind->leave(calls, c, result);
    calls_forget(c);
}
