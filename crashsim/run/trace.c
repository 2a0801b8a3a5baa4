/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace.c - reading a sidecar and its log; see trace.h.
 */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRACE_SECTOR 512

/* While reading: which event took in the change with this number. */
struct trace_reader {
    struct trace *t;
    size_t *taken; /* by id: index + 1, 0: none */
    size_t taken_cap, events_cap;
};

static bool
trace_field(const char *line, const char *name, uint64_t *value)
{
    size_t len = strlen(name);

    for (const char *p = line; (p = strchr(p, ' ')) != NULL;) {
        p++;
        if (strncmp(p, name, len) == 0 && p[len] == '=') {
            char *end;

            *value = strtoull(p + len + 1, &end, 10);
            return end != p + len + 1;
        }
    }
    return false;
}

static bool
trace_kind(const char *line, enum crashsim_kind *kind)
{
    const char *p = strstr(line, " kind=");

    if (p == NULL)
        return false;
    switch (p[6]) {
    case 'w':
        *kind = CRASHSIM_WRITE;
        return true;
    case 'z':
        *kind = CRASHSIM_ZERO;
        return true;
    case 't':
        *kind = CRASHSIM_TRIM;
        return true;
    default:
        return false;
    }
}

static struct trace_event *
trace_add(struct trace_reader *rd)
{
    struct trace *t = rd->t;

    if (t->count == rd->events_cap) {
        size_t cap = rd->events_cap == 0 ? 4096 : rd->events_cap * 2;
        struct trace_event *events = realloc(t->events, cap * sizeof(*events));

        if (events == NULL)
            return NULL;
        t->events = events;
        rd->events_cap = cap;
    }
    t->events[t->count] = (struct trace_event){0};
    return &t->events[t->count++];
}

static bool
trace_take(struct trace_reader *rd, const char *line, struct trace_event *e)
{
    struct crashsim_write *w = &e->write;
    uint64_t count, conn, fua;

    if (!trace_field(line, "offset", &w->offset) || !trace_field(line, "count", &count) ||
        !trace_field(line, "conn", &conn) || !trace_field(line, "fua", &fua) ||
        !trace_kind(line, &w->kind) || count > UINT32_MAX || e->id == 0 || e->id > (1u << 28))
        return false;
    w->count = (uint32_t)count;
    w->conn = (uint32_t)conn;
    w->fua = fua != 0;
    while (e->id >= rd->taken_cap) {
        size_t cap = rd->taken_cap == 0 ? 4096 : rd->taken_cap * 2;
        size_t *taken = realloc(rd->taken, cap * sizeof(*taken));

        if (taken == NULL)
            return false;
        memset(taken + rd->taken_cap, 0, (cap - rd->taken_cap) * sizeof(*taken));
        rd->taken = taken;
        rd->taken_cap = cap;
    }
    rd->taken[e->id] = rd->t->count;
    if (e->id > rd->t->ids_max)
        rd->t->ids_max = e->id;
    return true;
}

/* A line says where in the log the bytes of change ID lie. */
static bool
trace_data(struct trace_reader *rd, const char *line, uint64_t id)
{
    struct crashsim_write *w;
    uint64_t at;

    if (id >= rd->taken_cap || rd->taken[id] == 0 || !trace_field(line, "at", &at))
        return false;
    w = &rd->t->events[rd->taken[id] - 1].write;
    if (w->kind != CRASHSIM_WRITE)
        return true;
    at += TRACE_SECTOR + w->offset % TRACE_SECTOR;
    if (at > rd->t->map_bytes || w->count > rd->t->map_bytes - at)
        return false;
    w->data = rd->t->map + at;
    return true;
}

/* The value of a field that is a word. */
static bool
trace_word(const char *line, const char *name, char word[64])
{
    const char *p = strstr(line, name);

    if (p == NULL)
        return false;
    p += strlen(name);
    (void)snprintf(word, 64, "%.*s", (int)strcspn(p, " "), p);
    return true;
}

static bool
trace_cut(const char *line, struct crashsim_choice *c)
{
    char word[64];

    return trace_word(line, " survive=", word) && crashsim_choice_parse_survive(word, c) &&
           trace_word(line, " tear=", word) && crashsim_choice_parse_tear(word, &c->tear) &&
           trace_field(line, "seed", &c->seed);
}

static bool
trace_line(struct trace_reader *rd, const char *line)
{
    uint64_t id = 0, lies = 0;
    struct trace_event *e;

    if (line[0] == 'M')
        return true;
    if (strchr("SCEDI", line[0]) != NULL && !trace_field(line, "id", &id))
        return false;
    if (line[0] == 'I')
        return trace_data(rd, line, id);
    if (strchr("SCEDFX", line[0]) == NULL || line[1] != ' ')
        return false;
    if (line[0] == 'C' && !trace_data(rd, line, id))
        return false;
    e = trace_add(rd);
    if (e == NULL || !trace_field(line, "t", &e->t))
        return false;
    e->type = line[0];
    e->id = id;
    if (e->type == 'S')
        return trace_take(rd, line, e);
    if (e->type == 'F')
        return trace_field(line, "bound", &e->bound) && trace_field(line, "lies", &lies) &&
               (lies == 0 || (e->bound = 0) == 0);
    if (e->type == 'X') {
        rd->t->cut_ns = e->t;
        return trace_cut(line, &rd->t->cut);
    }
    if (e->type == 'C' && !trace_field(line, "seq", &e->bound))
        return false;
    return id < rd->taken_cap && rd->taken[id] != 0;
}

static int
trace_side(struct trace_reader *rd, FILE *f, const char *file, struct kvfs_error *err)
{
    char *line = NULL;
    size_t cap = 0, number = 0;
    bool good = true;
    ssize_t n;

    while (good && (n = getline(&line, &cap, f)) > 0) {
        number++;
        if (line[n - 1] != '\n')
            break; /* the last line of a killed server */
        line[n - 1] = '\0';
        if (number == 1)
            good = strncmp(line, "crashsim-sidecar 1 ", 19) == 0 &&
                   trace_field(line, "size", &rd->t->size_bytes);
        else
            good = trace_line(rd, line);
    }
    free(line);
    if (!good || number == 0)
        return kvfs_error_set(err, -EINVAL, "%s.side: line %zu is no line of a recording", file,
                              number);
    return 0;
}

/* Changes whose bytes nobody recorded: taken in, then the server was killed, or failed. */
static void
trace_drop_lost(struct trace *t, const struct trace_reader *rd)
{
    size_t kept = 0;

    for (size_t i = 0; i < t->count; i++) {
        const struct trace_event *e = &t->events[i];
        bool change = e->type == 'S' || e->type == 'C' || e->type == 'E' || e->type == 'D';
        const struct crashsim_write *w = e->type == 'S' ? &e->write : NULL;

        if (change && (rd->taken == NULL || e->id >= rd->taken_cap))
            continue;
        /* Decided by the S event, which is not moved before its others were seen. */
        if (w != NULL && w->kind == CRASHSIM_WRITE && w->data == NULL)
            rd->taken[e->id] = 0;
        if (change && rd->taken[e->id] == 0)
            continue;
        if (e->type == 'S')
            rd->taken[e->id] = kept + 1;
        t->events[kept++] = *e;
    }
    t->count = kept;
}

/* FUA and failures aside: it only weighs instants. */
static void
trace_count_open(struct trace *t)
{
    uint64_t last = 0;
    uint32_t open = 0, answered = 0;

    for (size_t i = 0; i < t->count; i++) {
        struct trace_event *e = &t->events[i];

        open += e->type == 'S';
        if (e->type == 'C') {
            answered++;
            last = e->bound;
        } else if (e->type == 'F' && e->bound != 0) {
            uint32_t left = last > e->bound ? (uint32_t)(last - e->bound) : 0;

            open -= answered > left ? answered - left : 0;
            answered = left < answered ? left : answered;
        }
        e->open = open;
    }
}

size_t
trace_open_count(const struct trace *t, size_t at)
{
    return at == 0 ? 0 : t->events[at - 1].open;
}

int
trace_open(const char *file, struct trace *t, struct kvfs_error *err)
{
    struct trace_reader rd = {.t = t};
    char side[4096];
    struct stat st;
    int fd = open(file, O_RDONLY | O_CLOEXEC), r = 0;
    FILE *f;

    *t = (struct trace){.cut_ns = UINT64_MAX};
    (void)snprintf(side, sizeof(side), "%s.side", file);
    f = fopen(side, "re");
    if (fd < 0 || f == NULL || fstat(fd, &st) < 0) {
        r = kvfs_error_set(err, -errno, "%s: %s", fd < 0 ? file : side, strerrordesc_np(errno));
        goto out;
    }
    t->map_bytes = (size_t)st.st_size;
    t->map =
        t->map_bytes == 0 ? MAP_FAILED : mmap(NULL, t->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (t->map == MAP_FAILED) {
        t->map = NULL;
        r = kvfs_error_set(err, -EINVAL, "%s: no recording", file);
        goto out;
    }
    r = trace_side(&rd, f, file, err);
    if (r == 0)
        trace_drop_lost(t, &rd);
    trace_count_open(t);
out:
    if (fd >= 0)
        (void)close(fd);
    if (f != NULL)
        (void)fclose(f);
    free(rd.taken);
    if (r < 0)
        trace_close(t);
    return r;
}

void
trace_close(struct trace *t)
{
    if (t->map != NULL)
        (void)munmap((void *)(uintptr_t)t->map, t->map_bytes);
    free(t->events);
    *t = (struct trace){0};
}

uint64_t
trace_time(const struct trace *t, size_t at)
{
    return at < t->count ? t->events[at].t : UINT64_MAX;
}
