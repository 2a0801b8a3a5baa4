/* SPDX-License-Identifier: BSD-3-Clause
 *
 * oracle.c - see oracle.h for what is demanded and how it is decided.
 */
#include "oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEVER     UINT64_MAX
#define BASE      SIZE_MAX /* as a writer: what was there before all requests */
#define TRIES_MAX 5000

struct request {
    uint64_t id; /* of its bytes: unique over all epochs */
    size_t offset, count;
    uint64_t issued, acked; /* on the recorder's clock; NEVER */
    enum oracle_kind kind;
    bool fua;
};

struct oracle {
    size_t size_bytes, block_size_bytes;
    uint8_t *base;
    struct request *requests;
    size_t count, cap;
    uint64_t clock, next_id;
};

/* A piece of the disk with one writer. */
struct cell {
    size_t offset, count;
    size_t covers, covers_count;   /* requests over it: a slice of judge.pool */
    size_t writers, writers_count; /* possible ones: a slice, shrinks */
};

enum fate {
    FREE,
    IN,
    OUT
};

struct judge {
    const struct oracle *o;
    const uint8_t *image;
    struct cell *cells;
    size_t cells_count, cells_cap;
    size_t *pool;
    size_t pool_count, pool_cap;
    struct oracle_report *report;
};

/* --- recording -------------------------------------------------------------------- */

static void *
oracle_alloc(size_t count, size_t size)
{
    void *p = calloc(count, size);

    if (p == NULL) {
        (void)fprintf(stderr, "oracle: no memory\n");
        exit(1);
    }
    return p;
}

static void *
oracle_grow(void *old, size_t count, size_t *cap, size_t size)
{
    if (count < *cap)
        return old;
    *cap = *cap == 0 ? 1024 : *cap * 2;
    old = realloc(old, *cap * size);
    if (old == NULL) {
        (void)fprintf(stderr, "oracle: no memory\n");
        exit(1);
    }
    return old;
}

struct oracle *
oracle_new(size_t size_bytes, size_t block_size_bytes)
{
    struct oracle *o = oracle_alloc(1, sizeof(*o));

    o->base = oracle_alloc(1, size_bytes);
    o->size_bytes = size_bytes;
    o->block_size_bytes = block_size_bytes;
    return o;
}

void
oracle_free(struct oracle *o)
{
    free(o->base);
    free(o->requests);
    free(o);
}

size_t
oracle_issue(struct oracle *o, enum oracle_kind kind, size_t offset, size_t count, bool fua)
{
    o->requests = oracle_grow(o->requests, o->count, &o->cap, sizeof(*o->requests));
    o->requests[o->count] = (struct request){
        .id = ++o->next_id,
        .offset = offset,
        .count = count,
        .issued = ++o->clock,
        .acked = NEVER,
        .kind = kind,
        .fua = fua,
    };
    return o->count++;
}

void
oracle_ack(struct oracle *o, size_t request)
{
    o->requests[request].acked = ++o->clock;
}

void
oracle_rebase(struct oracle *o, const uint8_t *image)
{
    memcpy(o->base, image, o->size_bytes);
    o->count = 0;
}

/* --- bytes -------------------------------------------------------------------------- */

/* The 8 bytes at place WORD * 8; none is 0. */
static uint64_t
oracle_word(uint64_t id, uint64_t word)
{
    uint64_t z = (id << 40) + word + 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) | 0x0101010101010101u;
}

static void
oracle_bytes(uint64_t id, size_t offset, size_t count, uint8_t *buf)
{
    while (count > 0) {
        uint64_t word = oracle_word(id, offset / 8);
        size_t skip = offset % 8, n = 8 - skip < count ? 8 - skip : count;

        memcpy(buf, (const uint8_t *)&word + skip, n);
        buf += n;
        offset += n;
        count -= n;
    }
}

void
oracle_fill(const struct oracle *o, size_t request, uint8_t *buf)
{
    const struct request *r = &o->requests[request];

    oracle_bytes(r->id, r->offset, r->count, buf);
}

/* How many bytes from OFFSET on are those of ID. */
static size_t
oracle_match(uint64_t id, const uint8_t *image, size_t offset, size_t count)
{
    uint8_t want[512];
    size_t done = 0;

    while (done < count) {
        size_t n = count - done < sizeof(want) ? count - done : sizeof(want);

        if (done == 0 && n > 8)
            n = 8; /* most comparisons end here */
        oracle_bytes(id, offset + done, n, want);
        if (memcmp(want, image + offset + done, n) != 0) {
            for (n = 0; want[n] == image[offset + done + n];)
                n++;
            return done + n;
        }
        done += n;
    }
    return done;
}

static bool
oracle_is_zero(const uint8_t *p, size_t count)
{
    return count == 0 || (p[0] == 0 && memcmp(p, p + 1, count - 1) == 0);
}

/* --- cells ---------------------------------------------------------------------------- */

static void
judge_push(struct judge *j, size_t n)
{
    j->pool = oracle_grow(j->pool, j->pool_count, &j->pool_cap, sizeof(*j->pool));
    j->pool[j->pool_count++] = n;
}

/* Find who may have written cell C. */
static void
judge_writers(struct judge *j, struct cell *c)
{
    const uint8_t *bytes = j->image + c->offset;
    bool zero = oracle_is_zero(bytes, c->count);

    c->writers = j->pool_count;
    if (memcmp(bytes, j->o->base + c->offset, c->count) == 0)
        judge_push(j, BASE);
    for (size_t i = 0; i < c->covers_count; i++) {
        size_t n = j->pool[c->covers + i];
        const struct request *r = &j->o->requests[n];

        if (r->kind == ORACLE_ZERO
                ? zero
                : !zero && oracle_match(r->id, j->image, c->offset, c->count) == c->count)
            judge_push(j, n);
    }
    c->writers_count = j->pool_count - c->writers;
}

struct edge {
    size_t at;
    size_t request; /* BASE: the edge of a block */
};

static int
judge_edge_compare(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* All edges in order: those of blocks, and of requests (each shows up twice). */
static struct edge *
judge_edges(const struct oracle *o, size_t *count)
{
    size_t n = 0, cap = 2 * o->count + o->size_bytes / o->block_size_bytes + 2;
    struct edge *edges = oracle_alloc(cap, sizeof(*edges));

    for (size_t at = 0; at < o->size_bytes; at += o->block_size_bytes)
        edges[n++] = (struct edge){at, BASE};
    edges[n++] = (struct edge){o->size_bytes, BASE};
    for (size_t i = 0; i < o->count; i++) {
        const struct request *r = &o->requests[i];

        if (r->kind == ORACLE_FLUSH)
            continue;
        edges[n++] = (struct edge){r->offset, i};
        edges[n++] = (struct edge){r->offset + r->count, i};
    }
    qsort(edges, n, sizeof(*edges), judge_edge_compare);
    *count = n;
    return edges;
}

/* Sweep over the disk. */
static void
judge_divide(struct judge *j)
{
    const struct oracle *o = j->o;
    size_t edges_count, active_count = 0, active_cap = 0;
    struct edge *edges = judge_edges(o, &edges_count);
    size_t *active = NULL;

    for (size_t i = 0; i + 1 < edges_count; i++) {
        size_t n = edges[i].request, k;
        struct cell *c;

        if (n != BASE && edges[i].at == o->requests[n].offset) {
            active = oracle_grow(active, active_count, &active_cap, sizeof(*active));
            active[active_count++] = n;
        } else if (n != BASE) {
            for (k = 0; active[k] != n; k++)
                ;
            active[k] = active[--active_count];
        }
        if (edges[i].at == edges[i + 1].at)
            continue;
        j->cells = oracle_grow(j->cells, j->cells_count, &j->cells_cap, sizeof(*j->cells));
        c = &j->cells[j->cells_count++];
        c->offset = edges[i].at;
        c->count = edges[i + 1].at - edges[i].at;
        c->covers = j->pool_count;
        c->covers_count = active_count;
        for (k = 0; k < active_count; k++)
            judge_push(j, active[k]);
        judge_writers(j, c);
    }
    free(active);
    free(edges);
}

/* --- deciding ------------------------------------------------------------------------- */

/* What is known: FATE of each request, and of each cell how many of its possible
 * writers are left (they are kept at the front of the slice). */
struct known {
    uint8_t *fate;
    const char *conflict; /* NULL while there is none */
    size_t at;            /* the request in conflict, or the cell */
};

static bool
judge_before(const struct judge *j, size_t a, size_t b)
{
    if (a == BASE || b == BASE)
        return a == BASE && b != BASE;
    return j->o->requests[a].acked < j->o->requests[b].issued;
}

static bool
judge_set(struct known *k, size_t request, enum fate fate, const char *conflict)
{
    if (request == BASE || k->fate[request] == fate)
        return false;
    if (k->fate[request] != FREE) {
        if (k->conflict == NULL) {
            k->conflict = conflict;
            k->at = request;
        }
        return false;
    }
    k->fate[request] = (uint8_t)fate;
    return true;
}

/* Demand 2: close IN and OUT in time. */
static bool
judge_close(const struct judge *j, struct known *k)
{
    const struct request *r = j->o->requests;
    uint64_t latest_issue = 0, earliest_ack = NEVER;
    bool changed = false;

    for (size_t i = 0; i < j->o->count; i++) {
        if (k->fate[i] == IN && r[i].issued > latest_issue)
            latest_issue = r[i].issued;
        if (k->fate[i] == OUT && r[i].acked < earliest_ack)
            earliest_ack = r[i].acked;
    }
    for (size_t i = 0; i < j->o->count; i++) {
        if (r[i].kind == ORACLE_FLUSH)
            continue;
        if (r[i].acked < latest_issue)
            changed |= judge_set(k, i, IN, "is missing, but one issued after its answer is there");
        if (r[i].issued > earliest_ack)
            changed |= judge_set(k, i, OUT, "is there, but one answered before its issue is not");
    }
    return changed;
}

/* Demand 3 for W as the writer of C. */
static bool
judge_writer(const struct judge *j, struct known *k, const struct cell *c, size_t w)
{
    bool changed = judge_set(k, w, IN, "shows in one place, but must be missing by another");

    for (size_t i = 0; i < c->covers_count; i++) {
        size_t x = j->pool[c->covers + i];

        if (x != w && judge_before(j, w, x))
            changed |= judge_set(k, x, OUT,
                                 "does not show where it must, but is there elsewhere "
                                 "or was flushed");
    }
    return changed;
}

/* Can W still be the writer of C? */
static bool
judge_possible(const struct judge *j, const struct known *k, const struct cell *c, size_t w)
{
    if (w != BASE && k->fate[w] == OUT)
        return false;
    for (size_t i = 0; i < c->covers_count; i++) {
        size_t x = j->pool[c->covers + i];

        if (x != w && k->fate[x] == IN && judge_before(j, w, x))
            return false;
    }
    return true;
}

/* What one cell says now.  *open: its writer may be none that is known to be IN. */
static bool
judge_cell(const struct judge *j, struct known *k, const struct cell *c, bool *open)
{
    size_t possible = 0, last = BASE;
    bool in = false;

    *open = false;
    for (size_t i = 0; i < c->writers_count; i++) {
        size_t w = j->pool[c->writers + i];

        if (!judge_possible(j, k, c, w))
            continue;
        possible++;
        last = w;
        in |= w == BASE || k->fate[w] == IN;
    }
    if (possible == 0 && k->conflict == NULL) {
        k->conflict = "";
        k->at = (size_t)(c - j->cells);
    }
    *open = possible > 1 && !in;
    return possible == 1 && judge_writer(j, k, c, last);
}

/* Until nothing changes.  The number of a cell that is left open, or SIZE_MAX. */
static size_t
judge_settle(const struct judge *j, struct known *k)
{
    bool changed = true;
    size_t open_cell = SIZE_MAX;

    while (changed && k->conflict == NULL) {
        changed = judge_close(j, k);
        open_cell = SIZE_MAX;
        for (size_t i = 0; i < j->cells_count && k->conflict == NULL; i++) {
            bool open;

            if (j->cells[i].covers_count == 0)
                continue;
            changed |= judge_cell(j, k, &j->cells[i], &open);
            if (open && open_cell == SIZE_MAX)
                open_cell = i;
        }
    }
    return open_cell;
}

/* Try each writer that is left for an open cell. */
static enum oracle_verdict
judge_search(const struct judge *j, struct known *k)
{
    size_t cell = judge_settle(j, k);
    const struct cell *c;

    if (k->conflict != NULL)
        return ORACLE_BAD;
    if (cell == SIZE_MAX)
        return ORACLE_GOOD;
    c = &j->cells[cell];
    for (size_t i = 0; i < c->writers_count; i++) {
        size_t w = j->pool[c->writers + i];
        struct known next = {.fate = oracle_alloc(1, j->o->count)};
        enum oracle_verdict verdict;

        memcpy(next.fate, k->fate, j->o->count);
        if (++j->report->tried > TRIES_MAX) {
            free(next.fate);
            return ORACLE_UNDECIDED;
        }
        verdict = ORACLE_BAD;
        if (judge_possible(j, k, c, w)) {
            (void)judge_writer(j, &next, c, w);
            verdict = judge_search(j, &next);
        }
        if (verdict == ORACLE_GOOD)
            memcpy(k->fate, next.fate, j->o->count);
        free(next.fate);
        if (verdict == ORACLE_GOOD || verdict == ORACLE_UNDECIDED)
            return verdict;
    }
    return ORACLE_BAD;
}

/* --- verdict ----------------------------------------------------------------------------- */

static void
judge_name(const struct judge *j, size_t n, char *text, size_t cap)
{
    static const char *const kinds[] = {"write", "zero", "flush"};
    const struct request *r;

    if (n == BASE) {
        (void)snprintf(text, cap, "the old bytes");
        return;
    }
    r = &j->o->requests[n];
    (void)snprintf(text, cap, "%s%s #%zu [%zu, +%zu) issued %llu answered %lld", kinds[r->kind],
                   r->fua ? "+FUA" : "", n, r->offset, r->count, (unsigned long long)r->issued,
                   r->acked == NEVER ? -1LL : (long long)r->acked);
}

/* A cell that nobody can have written: say whose bytes it begins with and, if
 * they are all there, what should have come over them. */
static void
judge_explain_cell(const struct judge *j, const struct known *k, const struct cell *c)
{
    char name[160] = "nobody", later[160] = "";
    size_t best = 0, writer = BASE;

    for (size_t i = 0; i < c->covers_count; i++) {
        size_t n = j->pool[c->covers + i];
        size_t match = j->o->requests[n].kind == ORACLE_WRITE
                           ? oracle_match(j->o->requests[n].id, j->image, c->offset, c->count)
                           : 0;

        if (match > best) {
            best = match;
            writer = n;
        }
    }
    if (c->writers_count > 0) {
        writer = j->pool[c->writers];
        best = c->count;
    }
    if (best > 0)
        judge_name(j, writer, name, sizeof(name));
    for (size_t i = 0; i < c->covers_count && c->writers_count > 0; i++) {
        size_t n = j->pool[c->covers + i];

        if (n != writer && k->fate[n] == IN && judge_before(j, writer, n))
            judge_name(j, n, later, sizeof(later));
    }
    (void)snprintf(
        j->report->text, sizeof(j->report->text),
        "bytes [%zu, +%zu) are those of no possible request; the first %zu are of %s%s%s",
        c->offset, c->count, best, name, *later != '\0' ? ", but there is later " : "", later);
}

static void
judge_explain(const struct judge *j, const struct known *k)
{
    char name[160];

    if (k->conflict == NULL) {
        (void)snprintf(j->report->text, sizeof(j->report->text),
                       "no choice among the zeros explains all bytes (%zu tried)",
                       j->report->tried);
    } else if (*k->conflict == '\0') {
        judge_explain_cell(j, k, &j->cells[k->at]);
    } else {
        judge_name(j, k->at, name, sizeof(name));
        (void)snprintf(j->report->text, sizeof(j->report->text), "%s %s", name, k->conflict);
    }
}

/* Demand 1. */
static void
judge_flushed(const struct judge *j, struct known *k)
{
    const struct request *r = j->o->requests;
    uint64_t flush = 0;

    for (size_t i = 0; i < j->o->count; i++) {
        if (r[i].acked == NEVER)
            continue;
        if (r[i].kind == ORACLE_FLUSH && r[i].issued > flush)
            flush = r[i].issued;
        if (r[i].kind != ORACLE_FLUSH && r[i].fua)
            k->fate[i] = IN;
    }
    for (size_t i = 0; i < j->o->count; i++) {
        if (r[i].kind != ORACLE_FLUSH && r[i].acked < flush)
            k->fate[i] = IN;
    }
}

enum oracle_verdict
oracle_judge(const struct oracle *o, const uint8_t *image, struct oracle_report *report)
{
    struct judge j = {.o = o, .image = image, .report = report};
    struct known k = {.fate = oracle_alloc(1, o->count + 1)};
    enum oracle_verdict verdict;

    memset(report, 0, sizeof(*report));
    report->requests = o->count;
    judge_divide(&j);
    report->cells = j.cells_count;
    for (size_t i = 0; i < j.cells_count; i++) {
        report->ambiguous += j.cells[i].writers_count > 1;
        /* A cell that no request covers holds what it held. */
        if (j.cells[i].writers_count == 0 && k.conflict == NULL) {
            k.conflict = "";
            k.at = i;
        }
    }
    judge_flushed(&j, &k);
    verdict = k.conflict != NULL ? ORACLE_BAD : judge_search(&j, &k);
    if (verdict == ORACLE_BAD)
        judge_explain(&j, &k);
    for (size_t i = 0; i < o->count; i++) {
        report->acked += o->requests[i].acked != NEVER;
        report->in_cut += k.fate[i] == IN;
    }
    free(k.fate);
    free(j.cells);
    free(j.pool);
    return verdict;
}
