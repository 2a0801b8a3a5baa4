/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_program.c - see trace_program.h.
 */
#include "trace_program.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

bool
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

void
call_fd_path(const struct call *c, uint64_t fd, char path[64])
{
    (void)snprintf(path, 64, "/proc/%d/fd/%d", (int)c->tid, (int)fd);
}

int
call_stat(const char *path, struct stat *st)
{
    struct statx x;

    if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO, &x) < 0)
        return -1;
    *st = (struct stat){.st_dev = makedev(x.stx_dev_major, x.stx_dev_minor),
                        .st_ino = x.stx_ino,
                        .st_mode = x.stx_mode};
    return 0;
}

uint32_t
call_object(const struct calls *calls, const struct call *c, uint64_t fd)
{
    char path[64];
    struct stat st;

    call_fd_path(c, fd, path);
    return call_stat(path, &st) == 0 ? trace_record_find(calls->record, &st) : TRACE_NONE;
}

bool
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

bool
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
    if (call_stat(folder, &st) < 0)
        return false;
    name->parent = trace_record_find(calls->record, &st);
    if (name->parent == TRACE_NONE) /* to look into it may wait for who serves it */
        return false;
    (void)snprintf(name->path, sizeof(name->path), "%s/%s", folder, name->name);
    name->exists = lstat(name->path, &name->st) == 0;
    return true;
}

/* A line of /proc/TID/maps. */
struct call_mapping {
    uint64_t from, to, offset, ino;
    unsigned major, minor;
    bool shared;
    int name; /* where it begins in the line */
};

static bool
call_mapping_parse(const char *line, struct call_mapping *m)
{
    char perms[8];

    *m = (struct call_mapping){.name = 0};
    /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %x:%x %" SCNu64 " %n", &m->from, &m->to,
               perms, &m->offset, &m->major, &m->minor, &m->ino, &m->name) != 7)
        return false;
    m->shared = perms[3] == 's';
    return true;
}

static uint32_t
call_mapping_object(const struct calls *calls, const struct call *c, const struct call_mapping *m,
                    const char *line, char path[CALL_MAPPED_PATH])
{
    uint32_t obj;
    struct stat st;

    (void)snprintf(path, CALL_MAPPED_PATH, "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)c->tid,
                   m->from, m->to);
    if (call_stat(path, &st) == 0)
        return trace_record_find(calls->record, &st);
    (void)snprintf(path, CALL_MAPPED_PATH, "/proc/%d/root%.*s", (int)c->tid,
                   (int)strcspn(line + m->name, "\n"), line + m->name);
    st.st_dev = makedev(m->major, m->minor);
    st.st_ino = m->ino;
    obj = trace_record_find(calls->record, &st);
    if (obj == TRACE_NONE && stat(path, &st) == 0 && st.st_ino == m->ino) /* btrfs has two devices */
        obj = trace_record_find(calls->record, &st);
    return obj;
}

/* Does B go on where A ends, in memory and in the file? */
static bool
call_mapping_goes_on(const struct call_mapping *a, const struct call_mapping *b)
{
    return b->shared && b->from == a->to && b->ino == a->ino && b->major == a->major &&
           b->minor == a->minor && b->offset == a->offset + (a->to - a->from);
}

uint32_t
call_mapped(const struct calls *calls, const struct call *c, uint64_t address,
            char path[CALL_MAPPED_PATH], struct call_range *range)
{
    struct call_mapping m, last = {.to = 0};
    char maps[64], *line = NULL;
    uint32_t obj = TRACE_NONE;
    size_t cap = 0;
    FILE *f;

    (void)snprintf(maps, sizeof(maps), "/proc/%d/maps", (int)c->tid);
    f = fopen(maps, "re");
    while (f != NULL && getline(&line, &cap, f) > 0) {
        if (!call_mapping_parse(line, &m) || address >= m.to)
            continue;
        if (last.to == 0 ? address < m.from || !m.shared : !call_mapping_goes_on(&last, &m))
            break;
        if (last.to == 0)
            obj = call_mapping_object(calls, c, &m, line, path);
        if (last.to == 0 && range != NULL)
            range->offset = m.offset + (address - m.from);
        if (range != NULL)
            range->count = m.to - address;
        last = m;
    }
    free(line);
    if (f != NULL)
        (void)fclose(f);
    return obj;
}
