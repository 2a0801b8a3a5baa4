/* SPDX-License-Identifier: BSD-3-Clause
 *
 * model.c - see model.h.
 *
 * What survives a cut is judged twice: byte by byte as the choice says, and, where all changes are
 * whole sectors, without asking the choice: each sector holds what was durable, or wholly what one
 * of the open changes put there that is not older than what was durable.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "random.h"

#define SIZE      32768u
#define OPEN_MAX  4096
#define FLIGHT    6
#define COUNT_MAX 6000u

struct change {
    uint64_t id, seq; /* seq 0: in flight */
    uint32_t offset, count;
    bool fua;
    uint8_t *data; /* of zeros and trims too */
};

struct model {
    uint64_t random;
    bool aligned, quiet, bad;
    uint64_t seed;
    uint8_t base[SIZE]; /* the disk's own */
    uint8_t durable[SIZE], view[SIZE], before[SIZE];
    uint64_t durable_seq[SIZE], before_seq[SIZE];
    struct change open[OPEN_MAX];
    unsigned open_count;
    uint64_t next_seq;
    struct crashsim_disk *disk;
    struct model_counts *counts;
};

static void
model_wrong(struct model *m, const char *what, uint64_t where)
{
    if (!m->bad && !m->quiet)
        printf("seed %llu: %s at %llu\n", (unsigned long long)m->seed, what,
               (unsigned long long)where);
    m->bad = true;
}

static uint32_t
model_random(struct model *m, uint32_t below)
{
    return (uint32_t)(crashsim_random(&m->random) % below);
}

/* --- the base --- */

static int
model_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    memcpy(buf, ((struct model *)opaque)->base + offset, count);
    return 0;
}

static int
model_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    memcpy(((struct model *)opaque)->base + offset, buf, count);
    return 0;
}

static int
model_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)trim;
    memset(((struct model *)opaque)->base + offset, 0, count);
    return 0;
}

/* --- the plain disk --- */

static struct change *
model_find(struct model *m, uint64_t id)
{
    for (unsigned i = 0; i < m->open_count; i++) {
        if (m->open[i].id == id)
            return &m->open[i];
    }
    return NULL;
}

static void
model_drop(struct model *m, struct change *c)
{
    free(c->data);
    *c = m->open[--m->open_count];
}

static void
model_byte(struct model *m, const struct change *c, uint32_t at)
{
    uint64_t seq = c->seq != 0 ? c->seq : UINT64_MAX;

    if (m->durable_seq[at] > seq) {
        m->counts->kept_away++;
        return;
    }
    m->durable[at] = c->data[at - c->offset];
    m->durable_seq[at] = seq;
}

/* The sector around AT, if AT is inside one, goes down with what was answered before C. */
static void
model_beside(struct model *m, const struct change *c, uint32_t at)
{
    uint32_t start = at / 512 * 512;

    for (unsigned i = 0; i < m->open_count && at != start; i++) {
        const struct change *old = &m->open[i];

        if (old->seq == 0 || (c->seq != 0 && old->seq >= c->seq))
            continue;
        for (uint32_t k = start; k < start + 512; k++) {
            if (k >= old->offset && k < old->offset + old->count)
                model_byte(m, old, k);
        }
    }
}

static void
model_make_durable(struct model *m, const struct change *c)
{
    for (uint32_t at = c->offset; at < c->offset + c->count; at++)
        model_byte(m, c, at);
}

/* Alone, without all that is older. */
static void
model_write_through(struct model *m, const struct change *c)
{
    model_beside(m, c, c->offset);
    model_beside(m, c, c->offset + c->count);
    model_make_durable(m, c);
}

static void
model_destaged(void *opaque, const struct crashsim_write *w)
{
    struct model *m = opaque;
    struct change *c = model_find(m, w->id);

    m->counts->destaged++;
    if (c == NULL || c->seq != w->seq) {
        model_wrong(m, "destaged what is not open, change", w->id);
        return;
    }
    model_write_through(m, c);
    model_drop(m, c);
}

static int
model_order(const void *a, const void *b)
{
    const struct change *x = a, *y = b;

    if ((x->seq == 0) != (y->seq == 0))
        return x->seq == 0 ? 1 : -1;
    if (x->seq != y->seq)
        return x->seq < y->seq ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static void
model_flush(struct model *m, uint64_t bound)
{
    unsigned kept = 0;

    qsort(m->open, m->open_count, sizeof(m->open[0]), model_order);
    for (unsigned i = 0; i < m->open_count; i++) {
        if (m->open[i].seq != 0 && m->open[i].seq <= bound) {
            model_make_durable(m, &m->open[i]);
            free(m->open[i].data);
        } else {
            m->open[kept++] = m->open[i];
        }
    }
    m->open_count = kept;
    m->counts->flushes++;
}

/* --- operations --- */

static void
model_submit(struct model *m)
{
    struct crashsim_write w = {.kind = (enum crashsim_kind)(model_random(m, 6) < 4
                                                                ? CRASHSIM_WRITE
                                                                : 1 + model_random(m, 2)),
                               .fua = model_random(m, 6) == 0};
    struct change *c = &m->open[m->open_count];

    if (m->open_count == OPEN_MAX)
        return;
    w.offset = model_random(m, SIZE);
    if (m->aligned)
        w.offset = w.offset / 512 * 512;
    w.count = 1 + model_random(m, COUNT_MAX);
    if (m->aligned)
        w.count = (w.count + 511) / 512 * 512;
    if (w.count > SIZE - w.offset)
        w.count = SIZE - (uint32_t)w.offset;
    *c = (struct change){.offset = (uint32_t)w.offset, .count = w.count, .fua = w.fua};
    c->data = calloc(1, w.count);
    if (c->data == NULL)
        abort();
    if (w.kind == CRASHSIM_WRITE) {
        for (uint32_t i = 0; i < w.count; i++)
            c->data[i] = (uint8_t)model_random(m, 256);
        w.data = c->data;
    }
    if (crashsim_disk_submit(m->disk, &w, &c->id) < 0)
        model_wrong(m, "submit failed", w.offset);
    m->open_count++;
}

static struct change *
model_some_in_flight(struct model *m)
{
    unsigned n = 0, k;

    for (unsigned i = 0; i < m->open_count; i++)
        n += m->open[i].seq == 0;
    if (n == 0)
        return NULL;
    k = model_random(m, n);
    for (unsigned i = 0;; i++) {
        if (m->open[i].seq == 0 && k-- == 0)
            return &m->open[i];
    }
}

static void
model_complete(struct model *m)
{
    struct change *c = model_some_in_flight(m);
    uint64_t seq, id;

    if (c == NULL)
        return;
    id = c->id;
    c->seq = ++m->next_seq; /* the disk may destage it at once */
    memcpy(m->view + c->offset, c->data, c->count);
    if (c->fua) {
        m->counts->fua++;
        model_write_through(m, c);
        model_drop(m, c);
    }
    if (crashsim_disk_complete(m->disk, id, &seq) < 0 || seq != m->next_seq)
        model_wrong(m, "complete failed, change", id);
}

static void
model_abandon(struct model *m)
{
    struct change *c = model_some_in_flight(m);

    if (c == NULL)
        return;
    crashsim_disk_abandon(m->disk, c->id);
    model_drop(m, c);
}

static void
model_read(struct model *m, uint32_t offset, uint32_t count)
{
    uint8_t buf[SIZE];

    if (count > SIZE - offset)
        count = SIZE - offset;
    if (crashsim_disk_read(m->disk, buf, count, offset) < 0)
        model_wrong(m, "read failed", offset);
    else
        for (uint32_t i = 0; i < count; i++) {
            if (buf[i] != m->view[offset + i]) {
                model_wrong(m, "read something else", offset + i);
                return;
            }
        }
}

/* --- cuts --- */

static struct crashsim_choice
model_choose(struct model *m)
{
    struct crashsim_choice c = {
        .survive = (enum crashsim_survive)model_random(m, 6),
        .tear = (enum crashsim_tear)model_random(m, 3),
        .seed = crashsim_random(&m->random),
        .indexed = model_random(m, 4) == 0,
    };

    if (c.indexed)
        c.index = model_random(m, m->open_count + 2);
    return c;
}

static void
model_survive(struct model *m, const struct crashsim_choice *choice)
{
    for (unsigned i = 0; i < m->open_count; i++) {
        const struct change *c = &m->open[i];
        enum crashsim_fate fate = crashsim_choice_fate(choice, i, m->open_count);
        uint64_t end;

        m->counts->kept += fate == CRASHSIM_KEPT;
        m->counts->torn += fate == CRASHSIM_TORN;
        m->counts->dropped += fate == CRASHSIM_DROPPED;
        m->counts->in_flight_kept += fate == CRASHSIM_KEPT && c->seq == 0;
        for (uint32_t at = c->offset; fate != CRASHSIM_DROPPED && at < c->offset + c->count; at++) {
            if (fate == CRASHSIM_TORN &&
                !crashsim_choice_piece(choice, i, c->offset, c->count, at, &end))
                continue;
            if (at == c->offset)
                model_beside(m, c, at);
            if (at == c->offset + c->count - 1)
                model_beside(m, c, at + 1);
            model_byte(m, c, at);
        }
    }
}

/* May this sector hold what it holds? */
static bool
model_sector_is_legal(const struct model *m, uint32_t start)
{
    if (memcmp(m->base + start, m->before + start, 512) == 0)
        return true;
    for (unsigned i = 0; i < m->open_count; i++) {
        const struct change *c = &m->open[i];

        if (c->offset <= start && start + 512 <= c->offset + c->count &&
            (c->seq == 0 || c->seq > m->before_seq[start]) &&
            memcmp(m->base + start, c->data + (start - c->offset), 512) == 0)
            return true;
    }
    return false;
}

static void
model_cut(struct model *m)
{
    struct crashsim_choice choice = model_choose(m);
    struct crashsim_cut cut;
    uint64_t id, bound;
    uint8_t byte;

    qsort(m->open, m->open_count, sizeof(m->open[0]), model_order);
    memcpy(m->before, m->durable, SIZE);
    memcpy(m->before_seq, m->durable_seq, sizeof(m->durable_seq));
    if (crashsim_disk_open_count(m->disk) != m->open_count)
        model_wrong(m, "another number of changes is open", m->open_count);
    model_survive(m, &choice);
    if (crashsim_disk_cut(m->disk, &choice, &cut) < 0 || cut.open != m->open_count ||
        cut.kept + cut.torn + cut.dropped != cut.open || cut.spoilt != 0)
        model_wrong(m, "the cut counts otherwise", cut.open);
    for (uint32_t at = 0; at < SIZE; at++) {
        if (m->base[at] != m->durable[at])
            model_wrong(m, "survived otherwise than chosen", at);
    }
    for (uint32_t at = 0; m->aligned && at < SIZE; at += 512) {
        if (!model_sector_is_legal(m, at))
            model_wrong(m, "no disk may leave that", at);
    }
    if (crashsim_disk_read(m->disk, &byte, 1, 0) == 0 ||
        crashsim_disk_submit(m->disk, &(struct crashsim_write){.kind = CRASHSIM_ZERO, .count = 1},
                             &id) == 0 ||
        crashsim_disk_flush_begin(m->disk, &bound) == 0 || crashsim_disk_flush(m->disk, 0) == 0 ||
        crashsim_disk_cut(m->disk, &choice, &cut) == 0)
        model_wrong(m, "it serves without power", 0);
    if (crashsim_disk_power_on(m->disk) < 0 || crashsim_disk_power_on(m->disk) == 0)
        model_wrong(m, "the power does not come back", 0);
    for (unsigned i = 0; i < m->open_count; i++) { /* a planted bug may take some away */
        if (m->open[i].seq == 0 && crashsim_disk_complete(m->disk, m->open[i].id, &id) == 0)
            model_wrong(m, "answered across a cut, change", m->open[i].id);
    }
    for (unsigned i = 0; i < m->open_count; i++)
        free(m->open[i].data);
    m->open_count = 0;
    memset(m->durable_seq, 0, sizeof(m->durable_seq));
    memcpy(m->view, m->durable, SIZE);
    model_read(m, 0, SIZE);
    m->counts->cuts++;
}

static void
model_step(struct model *m, uint64_t *bound, bool *flushing)
{
    uint32_t r = model_random(m, 100);

    if (r < 35) {
        if (m->open_count < OPEN_MAX)
            model_submit(m);
    } else if (r < 72) {
        model_complete(m);
    } else if (r < 74) {
        model_abandon(m);
    } else if (r < 78) {
        if (!*flushing) { /* it covers what was answered when it came */
            *flushing = true;
            if (crashsim_disk_flush_begin(m->disk, bound) < 0 || *bound != m->next_seq)
                model_wrong(m, "a flush did not begin", 0);
        } else {
            *flushing = false;
            if (crashsim_disk_flush(m->disk, *bound) < 0)
                model_wrong(m, "a flush failed", 0);
            model_flush(m, *bound);
        }
    } else if (r < 97) {
        model_read(m, model_random(m, SIZE), 1 + model_random(m, COUNT_MAX));
    } else {
        model_cut(m);
        *flushing = false;
    }
}

bool
model_round(uint64_t seed, unsigned ops, bool quiet, struct model_counts *counts)
{
    static const uint64_t caches[] = {1 << 20, 1 << 20, 40000, 12000, 0};
    struct model *m = calloc(1, sizeof(*m));
    struct crashsim_base base = {m, model_pread, model_pwrite, model_zero, model_destaged};
    uint64_t bound = 0;
    bool flushing = false, good;

    if (m == NULL)
        abort();
    m->random = m->seed = seed;
    m->quiet = quiet;
    m->counts = counts;
    m->aligned = model_random(m, 2) == 0;
    for (uint32_t i = 0; i < SIZE; i++)
        m->base[i] = m->durable[i] = m->view[i] = (uint8_t)model_random(m, 256);
    if (crashsim_disk_new(&base, SIZE, caches[model_random(m, 5)], seed, &m->disk) < 0)
        abort();
    for (unsigned i = 0; i < ops && !m->bad; i++)
        model_step(m, &bound, &flushing);
    if (!m->bad)
        model_cut(m);
    while (m->open_count > 0)
        model_drop(m, &m->open[0]);
    crashsim_disk_free(m->disk);
    good = !m->bad;
    free(m);
    return good;
}

uint64_t
model_seed(void)
{
    const char *text = getenv("KVFS_SEED");
    struct timespec now = {0};
    uint64_t seed;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    seed = text != NULL && *text != '\0' ? strtoull(text, NULL, 0)
                                         : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    printf("KVFS_SEED=%llu\n", (unsigned long long)seed);
    (void)fflush(stdout);
    return seed;
}

unsigned
model_scale(void)
{
    const char *text = getenv("KVFS_SCALE");
    unsigned long n = text != NULL ? strtoul(text, NULL, 10) : 1;

    return n > 0 && n < 1000 ? (unsigned)n : 1;
}
