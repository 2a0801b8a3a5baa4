/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace_file.c - see trace_file.h.
 *
 * Nothing is believed: numbers are held against what was said before, names against what a name may
 * be, so that who builds states from a trace cannot be led out of his folder.
 */
#include "trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recording.h"

#define TRACE_LINE 160

__attribute__((format(printf, 2, 3))) static int
trace_bad(char *error, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was started a line above */
    (void)vsnprintf(error, TRACE_ERROR, fmt, ap);
    va_end(ap);
    return -EBADMSG;
}

/* Field KEY of LINE into *NUMBER; 0 where it is not there. */
static bool
trace_field(const char *line, const char *key, uint64_t *number)
{
    size_t len = strlen(key);

    *number = 0;
    for (const char *p = strchr(line, ' '); p != NULL; p = strchr(p + 1, ' ')) {
        char digits[24];
        size_t n;

        if (strncmp(p + 1, key, len) != 0 || p[1 + len] != '=')
            continue;
        p += len + 2;
        n = strcspn(p, " ");
        if (n == 0 || n >= sizeof(digits))
            return false;
        memcpy(digits, p, n);
        digits[n] = '\0';
        return crashsim_parse_number(digits, number);
    }
    return true;
}

/* Is it one name of a folder's entry? */
static bool
trace_is_name(const uint8_t *bytes, size_t n)
{
    return n > 0 && n <= 255 && memchr(bytes, '/', n) == NULL && memchr(bytes, '\0', n) == NULL &&
           !(n == 1 && bytes[0] == '.') && !(n == 2 && bytes[0] == '.' && bytes[1] == '.');
}

static bool
trace_is_payload_good(const struct trace_event *e)
{
    const uint8_t *zero = e->n > 0 ? memchr(e->bytes, '\0', e->n) : NULL;
    size_t first = zero != NULL ? (size_t)(zero - e->bytes) : e->n;
    char mark[CRASHSIM_MARK_MAX + 1];

    switch (e->letter) {
    case 'N':
        if (e->kind == 'l')
            return zero != NULL && trace_is_name(e->bytes, first) && e->n - first > 1 &&
                   e->n < 8192 && memchr(zero + 1, '\0', e->n - first - 1) == NULL;
        return trace_is_name(e->bytes, e->n);
    case 'L':
    case 'U':
        return trace_is_name(e->bytes, e->n);
    case 'R':
        return zero != NULL && trace_is_name(e->bytes, first) &&
               trace_is_name(zero + 1, e->n - first - 1);
    case 'M':
        if (e->n > CRASHSIM_MARK_MAX || zero != NULL)
            return false;
        memcpy(mark, e->bytes, e->n);
        mark[e->n] = '\0';
        return crashsim_mark_is_good(mark);
    case 'E':
        if (e->n == 0 || e->n > TRACE_END_MAX)
            return false;
        for (uint32_t i = 0; i < e->n; i++) {
            if (e->bytes[i] < ' ' || e->bytes[i] > '~')
                return false;
        }
        return true;
    case 'W':
        return e->n > 0;
    default:
        return e->n == 0;
    }
}

/* LINE as an event; false: it is none. */
static bool
trace_parse(const char *line, struct trace_event *e)
{
    uint64_t obj, parent, to, mode, base, sync, punch, swap, data, bound, size, n;
    const char *kind = strstr(line, " kind=");

    *e = (struct trace_event){.letter = line[0]};
    if (kind != NULL)
        e->kind = kind[6];
    if (!trace_field(line, "obj", &obj) || !trace_field(line, "parent", &parent) ||
        !trace_field(line, "to", &to) || !trace_field(line, "mode", &mode) ||
        !trace_field(line, "base", &base) || !trace_field(line, "sync", &sync) ||
        !trace_field(line, "punch", &punch) || !trace_field(line, "swap", &swap) ||
        !trace_field(line, "data", &data) || !trace_field(line, "bound", &bound) ||
        !trace_field(line, "size", &size) || !trace_field(line, "offset", &e->offset) ||
        !trace_field(line, "count", &e->count) || !trace_field(line, "n", &n))
        return false;
    if (line[0] == '\0' || strchr("NLURWTASYME", line[0]) == NULL || line[1] != ' ' ||
        obj >= TRACE_OBJECTS_MAX || parent >= TRACE_OBJECTS_MAX || to >= TRACE_OBJECTS_MAX ||
        mode > 07777 || bound > UINT32_MAX || n > UINT32_MAX || e->offset > TRACE_FILE_MAX ||
        e->count > TRACE_FILE_MAX || size > TRACE_FILE_MAX)
        return false;
    if (line[0] == 'T')
        e->offset = size;
    e->obj = (uint32_t)obj;
    e->parent = (uint32_t)parent;
    e->to = (uint32_t)to;
    e->mode = (uint32_t)mode;
    e->bound = (uint32_t)bound;
    e->n = (uint32_t)n;
    e->base = base != 0;
    e->sync = sync != 0;
    e->punch = punch != 0;
    e->swap = swap != 0;
    e->data = data != 0;
    return true;
}

/* Does E speak of objects that there are? */
static bool
trace_fits(struct trace_file *t, const struct trace_event *e)
{
    if (e->letter == 'N') {
        if (e->obj != t->objects || e->kind == '\0' || strchr("fdl", e->kind) == NULL)
            return false;
        t->objects++;
    }
    return e->obj < t->objects && e->parent < t->objects && e->to < t->objects &&
           e->bound <= t->count;
}

static int
trace_add(struct trace_file *t, const struct trace_event *e)
{
    if (t->count == t->cap) {
        uint32_t want = t->cap < 256 ? 256 : t->cap * 2;
        void *more = want > t->cap ? reallocarray(t->events, want, sizeof(*e)) : NULL;

        if (more == NULL)
            return -ENOMEM;
        t->events = more;
        t->cap = want;
    }
    t->events[t->count++] = *e;
    return 0;
}

int
trace_file_read(const uint8_t *bytes, uint64_t count, struct trace_file *t,
                char error[TRACE_ERROR])
{
    const uint8_t *p = bytes + strlen(TRACE_MAGIC), *end = bytes + count;
    int r = 0;

    *t = (struct trace_file){.objects = 1};
    if (count < strlen(TRACE_MAGIC) || memcmp(bytes, TRACE_MAGIC, strlen(TRACE_MAGIC)) != 0)
        return trace_bad(error, "no trace: it does not begin so");
    while (r == 0 && p < end) {
        size_t left = (size_t)(end - p), look = left < TRACE_LINE ? left : TRACE_LINE;
        const uint8_t *stop = memchr(p, '\n', look);
        struct trace_event e = {.n = 0};
        char line[TRACE_LINE] = "";

        if (stop == NULL && left < TRACE_LINE) {
            r = trace_bad(error, "truncated behind event %u", t->count);
            break;
        }
        if (stop != NULL) {
            memcpy(line, p, (size_t)(stop - p));
            line[stop - p] = '\0';
        }
        if (stop == NULL || strlen(line) != (size_t)(stop - p) || !trace_parse(line, &e)) {
            r = trace_bad(error, "event %u: no such line", t->count + 1);
            break;
        }
        p = stop + 1;
        if ((uint64_t)(end - p) <= e.n) {
            r = trace_bad(error, "truncated: the bytes of event %u lie behind its end",
                          t->count + 1);
            break;
        }
        e.bytes = p;
        p += e.n;
        if (*p++ != '\n' || !trace_is_payload_good(&e) || !trace_fits(t, &e))
            r = trace_bad(error, "event %u says what cannot be", t->count + 1);
        else
            r = trace_add(t, &e);
    }
    if (r < 0) {
        if (r == -ENOMEM)
            (void)trace_bad(error, "no memory");
        free(t->events);
        *t = (struct trace_file){.count = 0};
    }
    return r;
}

int
trace_file_open(const char *path, struct trace_file *t, char error[TRACE_ERROR])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;
    struct stat st = {0};
    void *map = MAP_FAILED;

    if (fd < 0 || fstat(fd, &st) < 0)
        r = -errno;
    if (r == 0 && st.st_size > 0) {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        r = map == MAP_FAILED ? -errno : 0;
    }
    if (fd >= 0)
        (void)close(fd);
    if (r < 0) {
        (void)trace_bad(error, "%s", strerrordesc_np(-r));
        return r;
    }
    if (map == MAP_FAILED)
        return trace_bad(error, "no trace: it is empty");
    r = trace_file_read(map, (uint64_t)st.st_size, t, error);
    if (r < 0) {
        (void)munmap(map, (size_t)st.st_size);
        return r;
    }
    t->map = map;
    t->map_bytes = (uint64_t)st.st_size;
    return 0;
}

void
trace_file_close(struct trace_file *t)
{
    if (t->map != NULL)
        (void)munmap((void *)(uintptr_t)t->map, (size_t)t->map_bytes);
    free(t->events);
    *t = (struct trace_file){.count = 0};
}
