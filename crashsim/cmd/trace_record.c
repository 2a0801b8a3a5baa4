/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_record.c - see trace_record.h.
 *
 * 1. A file is known by device and inode number, so that a rename does not lose it.  An inode number
 *    that is used again is a new object: creation says so.
 * 2. What is mapped for writing has a shadow: its bytes as the events so far make them.  Looking
 *    compares by sectors, and what differs is a write, made between the last look and this one.
 */
#include "trace_record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recording.h"
#include "trace_file.h"

#define RECORD_CHUNK     (1u << 20)
#define RECORD_SHADOW_MAX (UINT64_C(1) << 30)
#define RECORD_DEPTH_MAX 64
#define RECORD_SECTOR    512u

struct record_object {
    dev_t dev;
    ino_t ino;
    int fd; /* mapped: to look at it; else -1 */
    uint8_t *shadow;
    uint64_t shadow_bytes;
};

struct trace_record {
    FILE *out;
    int error;
    struct record_object *objects;
    uint32_t count, cap, events;
    const char *unseen;
};

static void
record_failed(struct trace_record *t, int error)
{
    if (t->error == 0)
        t->error = error;
}

/* The line is out; now its payload. */
static void
record_payload(struct trace_record *t, const void *bytes, size_t n)
{
    if (t->error != 0)
        return;
    if (fprintf(t->out, " n=%zu\n", n) < 0 || (n > 0 && fwrite(bytes, 1, n, t->out) != n) ||
        fputc('\n', t->out) == EOF)
        record_failed(t, errno != 0 ? -errno : -EIO);
    t->events++;
}

#define RECORD(t, ...)                                                                             \
    do {                                                                                           \
        if ((t)->error == 0 && fprintf((t)->out, __VA_ARGS__) < 0)                                 \
            record_failed(t, -EIO);                                                                \
    } while (0)

uint32_t
trace_record_find(const struct trace_record *t, const struct stat *st)
{
    for (uint32_t i = t->count; i-- > 0;) { /* the newest of an inode number */
        if (t->objects[i].ino == st->st_ino && t->objects[i].dev == st->st_dev)
            return i;
    }
    return TRACE_NONE;
}

uint32_t
trace_record_count(const struct trace_record *t)
{
    return t->events;
}

static uint32_t
record_object(struct trace_record *t, const struct stat *st)
{
    if (t->count == t->cap) {
        uint32_t want = t->cap < 64 ? 64 : t->cap * 2;
        void *more = want < TRACE_OBJECTS_MAX
                         ? reallocarray(t->objects, want, sizeof(*t->objects)) : NULL;

        if (more == NULL) {
            record_failed(t, -ENOMEM);
            return TRACE_NONE;
        }
        t->objects = more;
        t->cap = want;
    }
    t->objects[t->count] = (struct record_object){st->st_dev, st->st_ino, -1, NULL, 0};
    return t->count++;
}

static uint32_t
record_new(struct trace_record *t, const struct stat *st, uint32_t parent, const char *name,
           const char *target, bool base)
{
    uint32_t obj = record_object(t, st);
    char payload[PATH_MAX + 256];
    size_t n;
    char kind = S_ISDIR(st->st_mode) ? 'd' : S_ISLNK(st->st_mode) ? 'l' : 'f';

    if (obj == TRACE_NONE)
        return obj;
    n = (size_t)snprintf(payload, sizeof(payload), "%s", name);
    if (target != NULL)
        n += 1 + (size_t)snprintf(payload + n + 1, sizeof(payload) - n - 1, "%s", target);
    RECORD(t, "N obj=%u parent=%u kind=%c mode=%u base=%d", obj, parent, kind,
           (unsigned)st->st_mode & 07777, base);
    record_payload(t, payload, n);
    return obj;
}

uint32_t
trace_record_new(struct trace_record *t, const struct stat *st, uint32_t parent, const char *name,
                 const char *target)
{
    return record_new(t, st, parent, name, target, false);
}

void
trace_record_name(struct trace_record *t, char letter, uint32_t obj, uint32_t parent,
                  const char *name)
{
    RECORD(t, "%c obj=%u parent=%u", letter, obj, parent);
    record_payload(t, name, strlen(name));
}

void
trace_record_rename(struct trace_record *t, uint32_t parent, const char *name, uint32_t to,
                    const char *name2, bool swap)
{
    char payload[1024];
    int n = snprintf(payload, sizeof(payload), "%s%c%s", name, '\0', name2);

    RECORD(t, "R parent=%u to=%u swap=%d", parent, to, swap);
    record_payload(t, payload, (size_t)n);
}

static void
record_shadow(struct record_object *o, uint64_t offset, const void *data, size_t count)
{
    if (o->shadow == NULL || offset + count > RECORD_SHADOW_MAX)
        return;
    if (offset + count > o->shadow_bytes) {
        uint8_t *more = realloc(o->shadow, offset + count);

        if (more == NULL)
            return;
        memset(more + o->shadow_bytes, 0, offset + count - o->shadow_bytes);
        o->shadow = more;
        o->shadow_bytes = offset + count;
    }
    memcpy(o->shadow + offset, data, count);
}

static void
record_write(struct trace_record *t, uint32_t obj, uint64_t offset, const void *data, size_t count,
             bool sync, bool base)
{
    RECORD(t, "W obj=%u offset=%" PRIu64 " sync=%d base=%d", obj, offset, sync, base);
    record_payload(t, data, count);
    record_shadow(&t->objects[obj], offset, data, count);
}

void
trace_record_write(struct trace_record *t, uint32_t obj, uint64_t offset, const void *data,
                   size_t count, bool sync)
{
    record_write(t, obj, offset, data, count, sync, false);
}

void
trace_record_size(struct trace_record *t, uint32_t obj, uint64_t size)
{
    struct record_object *o = &t->objects[obj];

    RECORD(t, "T obj=%u size=%" PRIu64, obj, size);
    record_payload(t, NULL, 0);
    if (o->shadow != NULL && size < o->shadow_bytes)
        o->shadow_bytes = size;
}

void
trace_record_room(struct trace_record *t, uint32_t obj, uint64_t offset, uint64_t count, bool punch)
{
    struct record_object *o = &t->objects[obj];

    RECORD(t, "A obj=%u offset=%" PRIu64 " count=%" PRIu64 " punch=%d", obj, offset, count, punch);
    record_payload(t, NULL, 0);
    if (punch && o->shadow != NULL && offset < o->shadow_bytes)
        memset(o->shadow + offset, 0,
               count < o->shadow_bytes - offset ? count : o->shadow_bytes - offset);
}

void
trace_record_sync(struct trace_record *t, uint32_t obj, bool data, uint32_t bound)
{
    RECORD(t, "S obj=%u data=%d bound=%u", obj, data, bound);
    record_payload(t, NULL, 0);
}

void
trace_record_sync_range(struct trace_record *t, uint32_t obj, uint32_t bound, uint64_t offset,
                        uint64_t count)
{
    RECORD(t, "S obj=%u data=1 bound=%u offset=%" PRIu64 " count=%" PRIu64, obj, bound, offset, count);
    record_payload(t, NULL, 0);
}

void
trace_record_sync_all(struct trace_record *t, uint32_t bound)
{
    RECORD(t, "Y bound=%u", bound);
    record_payload(t, NULL, 0);
}

void
trace_record_mark(struct trace_record *t, const char *name, size_t len)
{
    char mark[CRASHSIM_MARK_MAX + 1];

    (void)snprintf(mark, sizeof(mark), "%.*s", (int)(len < sizeof(mark) ? len : sizeof(mark) - 1),
                   name);
    if (len > CRASHSIM_MARK_MAX || !crashsim_mark_is_good(mark)) {
        if (len > 0)
            trace_record_unseen(t, "a mark that is no name");
        return;
    }
    RECORD(t, "M obj=0");
    record_payload(t, mark, strlen(mark));
}

void
trace_record_end(struct trace_record *t, const char *what, bool unsound)
{
    RECORD(t, "E obj=0 kind=%c", unsound ? 'u' : 'e');
    record_payload(t, what, strnlen(what, TRACE_END_MAX));
}

void
trace_record_unseen(struct trace_record *t, const char *what)
{
    if (t->unseen == NULL)
        t->unseen = what;
}

const char *
trace_record_what_unseen(const struct trace_record *t)
{
    return t->unseen;
}

/* --- stores into mapped files --- */

void
trace_record_map(struct trace_record *t, uint32_t obj, const char *path)
{
    struct record_object *o = &t->objects[obj];
    struct stat st;

    if (o->fd >= 0)
        return;
    o->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (o->fd < 0 || fstat(o->fd, &st) < 0) {
        trace_record_unseen(t, "a mapping that cannot be looked at");
        return;
    }
    if ((uint64_t)st.st_size > RECORD_SHADOW_MAX)
        trace_record_unseen(t, "a mapping of more than 1 GiB");
    o->shadow_bytes = (uint64_t)st.st_size < RECORD_SHADOW_MAX ? (uint64_t)st.st_size
                                                               : RECORD_SHADOW_MAX;
    o->shadow = calloc(1, o->shadow_bytes + 1);
    /* A look at what was mapped an instant ago: nothing was stored yet. */
    if (o->shadow == NULL || pread(o->fd, o->shadow, o->shadow_bytes, 0) < 0)
        trace_record_unseen(t, "a mapping that cannot be looked at");
}

/* Events for what differs between NOW and the shadow of OBJ at AT. */
static void
record_differences(struct trace_record *t, uint32_t obj, const uint8_t *now, uint64_t at, size_t n)
{
    for (size_t k = 0; k < n;) {
        size_t from, left;

        while (k < n) {
            left = n - k < RECORD_SECTOR ? n - k : RECORD_SECTOR;
            if (memcmp(now + k, t->objects[obj].shadow + at + k, left) != 0)
                break;
            k += left;
        }
        from = k;
        while (k < n) {
            left = n - k < RECORD_SECTOR ? n - k : RECORD_SECTOR;
            if (memcmp(now + k, t->objects[obj].shadow + at + k, left) == 0)
                break;
            k += left;
        }
        if (k > from)
            trace_record_write(t, obj, at + from, now + from, k - from, false);
    }
}

static void
record_look(struct trace_record *t, uint32_t obj, uint8_t *buf)
{
    struct record_object *o = &t->objects[obj];
    uint64_t at = 0;

    while (at < RECORD_SHADOW_MAX) {
        off_t data = lseek(o->fd, (off_t)at, SEEK_DATA);
        ssize_t n;

        if (data < 0)
            return;
        at = (uint64_t)data / RECORD_SECTOR * RECORD_SECTOR;
        n = pread(o->fd, buf, RECORD_CHUNK, (off_t)at);
        if (n <= 0)
            return;
        if (at + (uint64_t)n > o->shadow_bytes) { /* grown by what was not mapped */
            uint8_t *more = realloc(o->shadow, at + (uint64_t)n);

            if (more == NULL)
                return;
            memset(more + o->shadow_bytes, 0, at + (uint64_t)n - o->shadow_bytes);
            o->shadow = more;
            o->shadow_bytes = at + (uint64_t)n;
        }
        record_differences(t, obj, buf, at, (size_t)n);
        at += (uint64_t)n;
    }
}

void
trace_record_look(struct trace_record *t)
{
    uint8_t *buf = NULL;

    for (uint32_t i = 0; i < t->count; i++) {
        if (t->objects[i].fd < 0 || t->objects[i].shadow == NULL)
            continue;
        if (buf == NULL)
            buf = malloc(RECORD_CHUNK);
        if (buf != NULL)
            record_look(t, i, buf);
    }
    free(buf);
}

/* --- the base --- */

static void
record_base_bytes(struct trace_record *t, uint32_t obj, int dir, const char *name,
                  const struct stat *st)
{
    int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    uint8_t *buf = malloc(RECORD_CHUNK);
    uint64_t at = 0;

    if (fd < 0 || buf == NULL)
        record_failed(t, fd < 0 ? -errno : -ENOMEM);
    while (t->error == 0) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        ssize_t n = data >= 0 ? pread(fd, buf, RECORD_CHUNK, data) : 0;

        if (n < 0)
            record_failed(t, -errno);
        if (n <= 0)
            break;
        record_write(t, obj, (uint64_t)data, buf, (size_t)n, false, true);
        at = (uint64_t)data + (uint64_t)n;
    }
    if (t->error == 0 && at < (uint64_t)st->st_size) { /* a hole at the end */
        RECORD(t, "T obj=%u size=%" PRIu64 " base=1", obj, (uint64_t)st->st_size);
        record_payload(t, NULL, 0);
    }
    free(buf);
    if (fd >= 0)
        (void)close(fd);
}

static void record_base_folder(struct trace_record *t, uint32_t obj, int fd, unsigned depth);

static void
record_base_entry(struct trace_record *t, uint32_t parent, int dir, const char *name,
                  unsigned depth)
{
    char target[PATH_MAX];
    struct stat st;
    uint32_t obj;
    ssize_t n;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        record_failed(t, -errno);
        return;
    }
    obj = trace_record_find(t, &st);
    if (obj != TRACE_NONE && !S_ISDIR(st.st_mode)) { /* a hard link */
        RECORD(t, "L obj=%u parent=%u base=1", obj, parent);
        record_payload(t, name, strlen(name));
    } else if (S_ISLNK(st.st_mode)) {
        n = readlinkat(dir, name, target, sizeof(target) - 1);
        if (n <= 0)
            record_failed(t, n < 0 ? -errno : -EINVAL);
        else
            target[n] = '\0', (void)record_new(t, &st, parent, name, target, true);
    } else if (S_ISREG(st.st_mode)) {
        obj = record_new(t, &st, parent, name, NULL, true);
        if (obj != TRACE_NONE)
            record_base_bytes(t, obj, dir, name, &st);
    } else if (S_ISDIR(st.st_mode)) {
        obj = record_new(t, &st, parent, name, NULL, true);
        if (obj != TRACE_NONE)
            record_base_folder(t, obj, openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
                               depth + 1);
    } /* sockets and the like do not outlive a crash in any way that matters */
}

static void
record_base_folder(struct trace_record *t, uint32_t obj, int fd, unsigned depth)
{
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *e;

    if (dir == NULL || depth > RECORD_DEPTH_MAX) {
        record_failed(t, dir == NULL ? -errno : -ELOOP);
        if (dir != NULL)
            (void)closedir(dir);
        return;
    }
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): a stream of our own */
    while (t->error == 0 && (e = readdir(dir)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            record_base_entry(t, obj, dirfd(dir), e->d_name, depth);
    }
    (void)closedir(dir);
}

int
trace_record_open(const char *file, const char *folder, struct trace_record **record)
{
    struct trace_record *t = calloc(1, sizeof(*t));
    int out, fd, r = 0;
    struct stat st;

    if (t == NULL)
        return -ENOMEM;
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    out = fd >= 0 ? open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
    t->out = out >= 0 ? fdopen(out, "w") : NULL;
    if (t->out == NULL || fstat(fd, &st) < 0) {
        r = -errno;
        if (t->out != NULL)
            (void)fclose(t->out);
        if (fd >= 0)
            (void)close(fd);
        free(t);
        return r;
    }
    if (fputs(TRACE_MAGIC, t->out) < 0)
        record_failed(t, -EIO);
    (void)record_object(t, &st);
    record_base_folder(t, 0, fd, 0);
    if (t->error < 0) {
        r = t->error;
        (void)trace_record_close(t);
        (void)unlink(file);
        return r;
    }
    *record = t;
    return 0;
}

int
trace_record_close(struct trace_record *t)
{
    int r;

    if (fclose(t->out) != 0)
        record_failed(t, -errno);
    r = t->error;
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->objects[i].fd >= 0)
            (void)close(t->objects[i].fd);
        free(t->objects[i].shadow);
    }
    free(t->objects);
    free(t);
    return r;
}
