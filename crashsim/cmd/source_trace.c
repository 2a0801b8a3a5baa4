/* SPDX-License-Identifier: BSD-3-Clause
 *
 * source_trace.c - states of files, from a trace of system calls.  docs/CRASHSIM.md says what is legal
 * and why; in short:
 *
 * 1. Names, sizes that were set, and room (N, L, U, R, T, A) survive in order, as from a journal: one
 *    that is dropped takes with it all that came later.
 * 2. Writes survive in any subset, each by sectors; one that makes a file longer does so only if
 *    something of it survives or it is torn.
 * 3. A cached page is written down as it is: of a sector that a write covers in part, what older
 *    writes put there goes down with it.
 * 4. fsync and fdatasync make durable the writes of their file that had returned when they began, and
 *    the journal: all of it (fsync), or up to the last that concerns the file (fdatasync).
 *    msync does the same as fdatasync with the writes in its range; one that lies across its border is
 *    two from then on.
 * 5. A write behind a shortening (or a hole) that is dropped is dropped too, where the two meet: it went
 *    to blocks that nothing leads to.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "random.h"
#include "source.h"
#include "spans.h"
#include "tree.h"

#define TRACE_SECTOR UINT64_C(512)

struct trace_open {
    uint32_t event;      /* an index */
    uint64_t start, end; /* of a write: where it begins and ends now */
};

/* Of a file: what a sync is of. */
struct trace_range {
    uint64_t offset, end;
};
#define TRACE_ALL ((struct trace_range){0, UINT64_MAX})

struct source_trace {
    struct source s;
    struct trace_file file;
    struct tree durable, top; /* top: what the state has that the durable has not */
    struct trace_open *open;
    size_t open_count, open_cap;
    uint32_t event; /* the next */
    /* Of the open ones, if `indexed`: writes by place, and shortenings and holes. */
    bool indexed;
    struct crashsim_spans spans;
    struct crashsim_span *nodes;
    size_t *cuts, cuts_count, *beside; /* beside: see trace_collect() */
};

static const struct trace_event *
trace_event(const struct source_trace *t, size_t i)
{
    return &t->file.events[t->open[i].event];
}

static bool
trace_is_write(const struct source_trace *t, size_t i)
{
    return trace_event(t, i)->letter == 'W';
}

/* --- what is durable --- */

/* Open change I becomes durable. */
static int
trace_settle_one(struct source_trace *t, size_t i)
{
    const struct trace_event *e = trace_event(t, i);

    if (e->letter == 'W')
        return tree_write(&t->durable, e, t->open[i].start, t->open[i].end);
    return tree_apply(&t->durable, e);
}

/* The bytes of older open writes that a durable shortening or hole E takes away. */
static void
trace_clip(struct source_trace *t, const struct trace_event *e)
{
    for (size_t i = 0; i < t->open_count; i++) {
        const struct trace_event *w = trace_event(t, i);

        if (w->letter == 'W' && w->obj == e->obj && w < e && t->open[i].end > e->offset)
            t->open[i].end = t->open[i].start > e->offset ? t->open[i].start : e->offset;
    }
}

/* Is open change I covered by a sync of RANGE of OBJ (UINT32_MAX: of all) with the journal up to JOURNAL? */
static bool
trace_is_covered(const struct source_trace *t, size_t i, uint32_t obj, struct trace_range range,
                 uint32_t bound, uint32_t journal)
{
    const struct trace_event *e = trace_event(t, i);
    uint32_t number = t->open[i].event + 1;

    if (e->letter != 'W')
        return number <= journal;
    return number <= bound && (obj == UINT32_MAX || e->obj == obj) &&
           t->open[i].start >= range.offset && t->open[i].end <= range.end;
}

static int
trace_settle(struct source_trace *t, uint32_t obj, struct trace_range range, uint32_t bound,
             uint32_t journal)
{
    size_t kept = 0;
    int r = 0;

    for (size_t i = 0; r == 0 && i < t->open_count; i++) {
        const struct trace_event *e = trace_event(t, i);

        if (!trace_is_covered(t, i, obj, range, bound, journal)) {
            t->open[kept++] = t->open[i];
            continue;
        }
        r = trace_settle_one(t, i);
        if (e->letter == 'T' || (e->letter == 'A' && e->punch)) {
            /* older writes that stay open lie in front of it in the list */
            size_t count = t->open_count;

            t->open_count = kept;
            trace_clip(t, e);
            t->open_count = count;
        }
    }
    t->open_count = kept;
    return r;
}

/* The last open change of names, sizes and room up to BOUND that concerns OBJ. */
static uint32_t
trace_last_of(const struct source_trace *t, uint32_t obj, uint32_t bound)
{
    uint32_t last = 0;

    for (size_t i = 0; i < t->open_count && t->open[i].event < bound; i++) {
        const struct trace_event *e = trace_event(t, i);

        if (e->letter != 'W' && e->letter != 'R' && e->letter != 'U' && e->obj == obj)
            last = t->open[i].event + 1;
        if ((e->letter == 'R' || e->letter == 'U' || e->letter == 'N' || e->letter == 'L') &&
            (e->parent == obj || (e->letter == 'R' && e->to == obj)))
            last = t->open[i].event + 1;
    }
    return last;
}

static int
trace_reserve(struct source_trace *t, size_t count)
{
    if (count > t->open_cap) {
        size_t want = count < 64 ? 64 : count * 2;
        void *more = reallocarray(t->open, want, sizeof(*t->open));

        if (more == NULL)
            return -ENOMEM;
        t->open = more;
        t->open_cap = want;
    }
    return 0;
}

static int
trace_push(struct source_trace *t, uint32_t event)
{
    const struct trace_event *e = &t->file.events[event];
    int r = trace_reserve(t, t->open_count + 1);

    if (r == 0)
        t->open[t->open_count++] = (struct trace_open){event, e->offset, e->offset + e->n};
    return r;
}

static bool
trace_lies_across(const struct source_trace *t, size_t i, uint32_t obj, uint64_t at)
{
    return trace_is_write(t, i) && trace_event(t, i)->obj == obj && t->open[i].start < at &&
           t->open[i].end > at;
}

/* Open writes of OBJ across AT become two each. */
static int
trace_split(struct source_trace *t, uint32_t obj, uint64_t at)
{
    size_t across = 0, to;
    int r;

    for (size_t i = 0; i < t->open_count; i++)
        across += trace_lies_across(t, i, obj, at);
    r = trace_reserve(t, t->open_count + across);
    if (r < 0)
        return r;
    to = t->open_count + across;
    for (size_t i = t->open_count; across > 0; i--) {
        bool two = trace_lies_across(t, i - 1, obj, at);

        t->open[--to] = t->open[i - 1];
        if (two) {
            struct trace_open first = t->open[to];

            t->open[to].start = at;
            first.end = at;
            t->open[--to] = first;
            across--;
            t->open_count++;
        }
    }
    return 0;
}

/* fsync, fdatasync, msync. */
static int
trace_sync(struct source_trace *t, const struct trace_event *e)
{
    struct trace_range range = TRACE_ALL;
    int r = 0;

    if (e->count > 0) {
        range = (struct trace_range){e->offset, e->offset + e->count};
        r = trace_split(t, e->obj, range.offset);
        if (r == 0)
            r = trace_split(t, e->obj, range.end);
    }
    return r < 0 ? r
                 : trace_settle(t, e->obj, range, e->bound,
                                e->data ? trace_last_of(t, e->obj, e->bound) : e->bound);
}

/* A write that was durable when it returned, with those before it that share a sector. */
static int
trace_sync_write(struct source_trace *t, const struct trace_event *w)
{
    uint32_t number = (uint32_t)(w - t->file.events) + 1;
    uint32_t journal = trace_last_of(t, w->obj, number);
    size_t kept = 0;
    int r = trace_settle(t, UINT32_MAX - 1, TRACE_ALL, 0, journal); /* the journal alone */

    for (size_t i = 0; r == 0 && i < t->open_count; i++) {
        const struct trace_event *e = trace_event(t, i);
        bool meets = e->letter == 'W' && e->obj == w->obj &&
                     t->open[i].start / TRACE_SECTOR * TRACE_SECTOR < w->offset + w->n &&
                     w->offset / TRACE_SECTOR * TRACE_SECTOR < t->open[i].end;

        if (meets)
            r = trace_settle_one(t, i);
        else
            t->open[kept++] = t->open[i];
    }
    t->open_count = kept;
    return r < 0 ? r : tree_apply(&t->durable, w);
}

static int
trace_step(struct source_trace *t)
{
    uint32_t i = t->event++;
    const struct trace_event *e = &t->file.events[i];

    if (e->letter == 'M' || e->letter == 'E')
        return 0;
    if (e->base)
        return tree_apply(&t->durable, e);
    if (e->letter == 'Y')
        return trace_settle(t, UINT32_MAX, TRACE_ALL, e->bound, e->bound);
    if (e->letter == 'S')
        return trace_sync(t, e);
    if (e->letter == 'W' && e->sync)
        return trace_sync_write(t, e);
    return trace_push(t, i);
}

static int
trace_fresh(struct source_trace *t)
{
    tree_close(&t->durable);
    t->open_count = 0;
    t->event = 0;
    t->s.at = 0;
    return tree_open(&t->durable, t->file.objects);
}

static int
trace_seek(struct source *s, uint32_t at)
{
    struct source_trace *t = (struct source_trace *)s;
    int r = at < s->at ? trace_fresh(t) : 0;

    t->indexed = t->indexed && at == s->at;
    while (r == 0 && t->event < at)
        r = trace_step(t);
    s->at = at;
    return r;
}

/* --- a state --- */

static size_t
trace_open_count(const struct source *s)
{
    return ((const struct source_trace *)s)->open_count;
}

static void
trace_shape(const void *source, size_t i, uint64_t *offset, uint64_t *count)
{
    const struct source_trace *t = source;
    const struct trace_event *e = trace_event(t, i);

    *offset = t->open[i].start;
    *count = e->letter == 'W' ? t->open[i].end - t->open[i].start : 0;
}

/* A name of OBJ, for people. */
static const char *
trace_name(const struct source_trace *t, uint32_t obj, char *buf, size_t size)
{
    for (uint32_t i = 0; i < t->file.count; i++) {
        const struct trace_event *e = &t->file.events[i];

        if (e->letter == 'N' && e->obj == obj) {
            (void)snprintf(buf, size, "%.*s", (int)e->n, (const char *)e->bytes);
            return buf;
        }
    }
    return ".";
}

static void
trace_describe(const struct source *s, size_t i, char *text, size_t size)
{
    const struct source_trace *t = (const struct source_trace *)s;
    const struct trace_event *e = trace_event(t, i);
    const char *second = e->letter == 'R' ? (const char *)memchr(e->bytes, '\0', e->n) + 1 : "";
    char name[256], what[256];

    (void)snprintf(what, sizeof(what), "%.*s", (int)(e->n < 200 ? e->n : 200),
                   e->letter != 'W' ? (const char *)e->bytes : "");
    (void)trace_name(t, e->obj, name, sizeof(name));
    switch (e->letter) {
    case 'W':
        (void)snprintf(text, size, "write of %" PRIu64 " bytes at %" PRIu64 " of %s",
                       t->open[i].end - t->open[i].start, t->open[i].start, name);
        break;
    case 'T':
        (void)snprintf(text, size, "size %" PRIu64 " of %s", e->offset, name);
        break;
    case 'A':
        (void)snprintf(text, size, "%s of %" PRIu64 " bytes at %" PRIu64 " of %s",
                       e->punch ? "hole" : "room", e->count, e->offset, name);
        break;
    case 'R':
        (void)snprintf(text, size, "rename of %s to %.*s", what,
                       (int)(e->n - (size_t)(second - (const char *)e->bytes)), second);
        break;
    default:
        (void)snprintf(text, size, "%s of %s",
                       e->letter == 'N' ? "creation" : e->letter == 'L' ? "link" : "unlink", what);
        break;
    }
}

/* A seeded random choice is made anew: how much of the journal, and how many of the writes.  With
 * even odds for each, a long journal would never survive in whole. */
static void
trace_adapt(const struct source *s, struct crashsim_pick *pick)
{
    static const unsigned odds[] = {0, 64, 128, 128, 192, 224, 256, 256};
    const struct source_trace *t = (const struct source_trace *)s;
    size_t names = 0, seen = 0;
    uint64_t left, r = crashsim_hash2(pick->choice.seed, 5);

    if (pick->choice.survive != CRASHSIM_RANDOM)
        return;
    for (size_t i = 0; i < pick->count; i++)
        names += !trace_is_write(t, i);
    left = r % 4 == 0 ? names : r / 4 % (names + 1);
    for (size_t i = 0; i < pick->count; i++) {
        uint64_t one = crashsim_hash2(pick->choice.seed, 1000 + (uint64_t)i);

        if (!trace_is_write(t, i)) {
            pick->fates[i].fate = seen++ < left ? CRASHSIM_KEPT : CRASHSIM_DROPPED;
        } else if (one % 256 >= odds[r / 65536 % 8]) {
            pick->fates[i].fate = CRASHSIM_DROPPED;
        } else {
            pick->fates[i].fate = pick->choice.tear != CRASHSIM_TEAR_NONE && one / 256 % 4 == 0
                                      ? CRASHSIM_TORN : CRASHSIM_KEPT;
        }
    }
}

/* The object of E is to be changed: let `top` have it. */
static int
trace_lift(struct source_trace *t, const struct trace_event *e)
{
    bool bytes = e->letter == 'W' || e->letter == 'T' || e->letter == 'A';

    if (!bytes || t->top.objects[e->obj].kind != '\0')
        return 0;
    return tree_copy_object(&t->top, &t->durable, e->obj);
}

/* --- which open changes meet --- */

/* Addresses for `spans`: all files one behind the other. */
static uint64_t
trace_address(uint32_t obj, uint64_t offset)
{
    return (uint64_t)obj * (2 * TRACE_FILE_MAX) + offset;
}

/* What is open here, by place; it stays so for all states of a cut. */
static int
trace_index(struct source_trace *t)
{
    struct crashsim_span *nodes;
    size_t *lists;

    if (t->indexed)
        return 0;
    nodes = reallocarray(t->nodes, t->open_count + 1, sizeof(*nodes));
    t->nodes = nodes != NULL ? nodes : t->nodes;
    lists = reallocarray(t->cuts, 2 * t->open_count + 1, sizeof(*lists));
    t->cuts = lists != NULL ? lists : t->cuts;
    if (nodes == NULL || lists == NULL)
        return -ENOMEM;
    t->beside = lists + t->open_count;
    t->spans.root = NULL;
    t->cuts_count = 0;
    for (size_t i = 0; i < t->open_count; i++) {
        const struct trace_event *e = trace_event(t, i);

        nodes[i] = (struct crashsim_span){.start = trace_address(e->obj, t->open[i].start),
                                          .end = trace_address(e->obj, t->open[i].end),
                                          .order = i + 1};
        if (e->letter == 'W' && nodes[i].start < nodes[i].end)
            crashsim_spans_add(&t->spans, &nodes[i]);
        if (e->letter == 'T' || (e->letter == 'A' && e->punch))
            t->cuts[t->cuts_count++] = i;
    }
    t->indexed = true;
    return 0;
}

/* Does a shortening or a hole of OBJ, one of the open changes from FIRST on and in front of I, reach
 * what lies in front of END? */
static bool
trace_is_cut(const struct source_trace *t, uint32_t obj, size_t first, size_t i, uint64_t end)
{
    for (size_t k = t->cuts_count; k-- > 0 && t->cuts[k] >= first;) {
        const struct trace_event *e = trace_event(t, t->cuts[k]);

        if (t->cuts[k] < i && e->obj == obj && end > e->offset)
            return true;
    }
    return false;
}

static int
trace_compare(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;

    return x < y ? -1 : x > y;
}

/* The writes older than open write I that are to be seen in the sector of its file at FROM, into
 * beside[], oldest first; their number.  Of those that begin at one place an older one is seen only
 * where it is longer, or where the newer was cut off. */
static size_t
trace_collect(struct source_trace *t, size_t i, uint64_t from)
{
    uint32_t obj = trace_event(t, i)->obj;
    uint64_t low = trace_address(obj, from), high = low + TRACE_SECTOR, at = high;
    struct crashsim_span *s;
    size_t n = 0;

    while ((s = crashsim_spans_before(&t->spans, at, 0, low)) != NULL) {
        uint64_t order = i + 1, end = low;

        at = s->start;
        while (end < high && (s = crashsim_spans_before(&t->spans, at, order, end)) != NULL &&
               s->start == at) {
            uint64_t stop = s->end < high ? s->end : high;

            order = s->order;
            if (trace_is_cut(t, obj, (size_t)order, i, stop - low + from))
                continue;
            t->beside[n++] = (size_t)order - 1;
            end = s->end;
        }
    }
    if (n > 1)
        qsort(t->beside, n, sizeof(*t->beside), trace_compare);
    return n;
}

/* What older writes than open write I put into the sector of AT, as far as it is not on a border. */
static int
trace_beside(struct source_trace *t, size_t i, uint64_t at)
{
    uint64_t from = at / TRACE_SECTOR * TRACE_SECTOR, to = from + TRACE_SECTOR;
    size_t n = at != from ? trace_collect(t, i, from) : 0;
    int r = 0;

    for (size_t k = 0; r == 0 && k < n; k++) {
        const struct trace_event *e = trace_event(t, t->beside[k]);
        const struct trace_open *o = &t->open[t->beside[k]];

        r = tree_write(&t->top, e, o->start > from ? o->start : from, o->end < to ? o->end : to);
    }
    return r;
}

/* [AT, TO) of open write I survives. */
static int
trace_keep(struct source_trace *t, size_t i, uint64_t at, uint64_t to)
{
    int r = trace_beside(t, i, at);

    if (r == 0)
        r = trace_beside(t, i, to);
    return r < 0 ? r : tree_write(&t->top, trace_event(t, i), at, to);
}

static int
trace_tear(struct source_trace *t, const struct crashsim_pick *pick, size_t i)
{
    const struct crashsim_pick_fate *f = &pick->fates[i];
    const struct trace_event *e = trace_event(t, i);
    uint64_t start = t->open[i].start, at = start, end = t->open[i].end, count = end - at, stop;
    int r = 0;

    if (t->top.objects[e->obj].size < end) /* longer, with zeros where nothing came */
        r = tree_resize(&t->top, e->obj, end);
    for (size_t piece = 0; r == 0 && at < end; piece++, at = stop) {
        bool keep = crashsim_choice_piece(&pick->choice, i, start, count, at, &stop);

        if (f->pieces != NULL ? crashsim_pick_keeps(pick, i, piece) : keep)
            r = trace_keep(t, i, at, stop);
    }
    return r;
}

/* The objects that the last state had of its own. */
static int
trace_clear(struct source_trace *t)
{
    tree_close(&t->top);
    return tree_open(&t->top, t->file.objects);
}

static int
trace_prepare(struct source *s, const struct crashsim_pick *pick, uint64_t *hash)
{
    struct source_trace *t = (struct source_trace *)s;
    size_t first_lost = SIZE_MAX;
    int r = trace_index(t);

    if (r == 0)
        r = trace_clear(t);
    if (r == 0)
        r = tree_copy_names(&t->top, &t->durable);
    for (size_t i = 0; r == 0 && i < pick->count; i++) {
        const struct trace_event *e = trace_event(t, i);
        enum crashsim_fate fate = pick->fates[i].fate;

        if (e->letter != 'W') {
            if (first_lost != SIZE_MAX || fate != CRASHSIM_KEPT) {
                first_lost = first_lost < i ? first_lost : i;
                continue;
            }
            r = trace_lift(t, e);
            if (r == 0)
                r = tree_apply(&t->top, e);
            continue;
        }
        if (fate == CRASHSIM_DROPPED || t->open[i].end <= t->open[i].start ||
            trace_is_cut(t, e->obj, first_lost, i, t->open[i].end))
            continue; /* what it was written behind was dropped: it went where nothing leads to */
        r = trace_lift(t, e);
        if (r == 0)
            r = fate == CRASHSIM_TORN ? trace_tear(t, pick, i)
                                      : trace_keep(t, i, t->open[i].start, t->open[i].end);
    }
    *hash = r == 0 ? tree_hash(&t->top, &t->top, &t->durable) : 0;
    return r;
}

static int
trace_build(struct source *s, const char *path)
{
    struct source_trace *t = (struct source_trace *)s;
    int r = tree_remove(path);

    return r < 0 ? r : tree_build(&t->top, &t->top, &t->durable, path);
}

static void
trace_close(struct source *s)
{
    struct source_trace *t = (struct source_trace *)s;

    for (size_t i = 0; i < t->s.marks_count; i++)
        free((void *)(uintptr_t)t->s.marks[i].name);
    free(t->s.marks);
    t->s.marks = NULL;
    tree_close(&t->durable);
    tree_close(&t->top);
    trace_file_close(&t->file);
    free(t->open);
    free(t->nodes);
    free(t->cuts);
    free(t);
}

static const struct source_ops trace_ops = {
    .seek = trace_seek,
    .open_count = trace_open_count,
    .shape = trace_shape,
    .describe = trace_describe,
    .adapt = trace_adapt,
    .prepare = trace_prepare,
    .build = trace_build,
    .close = trace_close,
};

static int
trace_survey(struct source_trace *t)
{
    size_t cap = 0;
    int r = 0;

    t->s.marks = calloc((size_t)t->file.count + 1, sizeof(*t->s.marks));
    if (t->s.marks == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; r == 0 && i < t->file.count; i++) {
        const struct trace_event *e = &t->file.events[i];

        t->s.bytes += e->n;
        if (e->letter == 'S' || e->letter == 'Y' || e->sync)
            r = source_add_cut(&t->s, &cap, i);
        if (e->letter == 'E') {
            (void)snprintf(t->s.ended, sizeof(t->s.ended), "%.*s", (int)e->n, (const char *)e->bytes);
            t->s.unsound = t->s.unsound || e->kind == 'u';
        }
        if (e->letter == 'M') {
            char *name = strndup((const char *)e->bytes, e->n);

            if (name == NULL)
                return -ENOMEM;
            t->s.marks[t->s.marks_count++] = (struct source_mark){i + 1, name};
            r = source_add_cut(&t->s, &cap, i + 1);
        }
    }
    return r < 0 ? r : source_add_cut(&t->s, &cap, t->file.count);
}

int
source_open_trace(const char *file, struct source **source)
{
    struct source_trace *t = calloc(1, sizeof(*t));
    char error[TRACE_ERROR];
    int r;

    if (t == NULL)
        return cmd_error("no memory");
    t->s = (struct source){.ops = &trace_ops, .file = file, .what = "folder"};
    if (trace_file_open(file, &t->file, error) < 0) {
        free(t);
        return cmd_error("%s: %s", file, error);
    }
    t->s.lines = t->file.count;
    r = trace_fresh(t);
    if (r == 0)
        r = trace_survey(t);
    if (r < 0) {
        source_close(&t->s);
        return cmd_error("%s: %s", file, strerrordesc_np(-r));
    }
    if (t->s.unsound) {
        (void)cmd_error("%s: no state of it is sound: the command %s", file, t->s.ended);
        source_close(&t->s);
        return CMD_USAGE;
    }
    *source = &t->s;
    return CMD_OK;
}
