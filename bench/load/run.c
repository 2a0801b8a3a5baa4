/* SPDX-License-Identifier: BSD-3-Clause
 *
 * run.c - the threads of a phase.
 *
 * Each thread has its own numbers, buffers and histogram; they share the clock, a counter of what
 * a fill has handed out, and a flag that ends all when one fails.  Buffers are touched before the
 * clock starts, so that their size is the memory that the load takes.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "random.h"
#include "run.h"

#define RUN_CHUNK    64u         /* blocks that a thread of a fill takes at a time */
#define RUN_SLEEP_NS 50000000    /* longest sleep without a look at the flags */
#define RUN_THETA    0.99        /* as YCSB */

struct run {
    const struct load_layer *layer;
    struct load_store *store;
    const struct load_dataset *data;
    const struct load_phase *phase;
    uint64_t requests;        /* places that a request can have */
    uint32_t request_blocks;
    uint32_t batch;           /* writes of one call */
    struct random_order order;
    struct random_zipf zipf;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;                          /* the gate behind which the threads wait */
    uint64_t start_ns, warm_ns, end_ns; /* set before it opens */
    atomic_uint_fast64_t filled;
    atomic_bool stop, stalled;
};

struct worker {
    struct run *run;
    pthread_t thread;
    unsigned number;
    uint64_t random;
    uint64_t next, chunk_end;       /* of a fill */
    uint64_t first, span, place;    /* of a sequential load: this thread's own part */
    struct load_piece *pieces;      /* collected for one call */
    uint64_t *extra_ns;             /* what each spent before */
    uint8_t *bytes, *read_bytes;
    uint32_t collected, unflushed;
    uint64_t ops, flushes, missed, finish_ns;
    struct histogram *latency;
    int rc;
    struct kvfs_error err;
};

static uint64_t
run_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool
run_stopped(const struct run *r)
{
    return atomic_load_explicit(&r->stop, memory_order_relaxed) ||
           (r->phase->interrupted != NULL && r->phase->interrupted());
}

/* Until UNTIL_NS of the monotonic clock; false: the run was stopped. */
static bool
run_sleep(const struct run *r, uint64_t until_ns)
{
    uint64_t now;

    while (!run_stopped(r)) {
        struct timespec t;

        now = run_now_ns();
        if (now >= until_ns)
            return true;
        now = until_ns - now > RUN_SLEEP_NS ? now + RUN_SLEEP_NS : until_ns;
        t = (struct timespec){.tv_sec = (time_t)(now / 1000000000u),
                              .tv_nsec = (long)(now % 1000000000u)};
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
    return false;
}

/* --- which operation, when, where --- */

/* When operation number I of this thread is due. */
static uint64_t
worker_due_ns(const struct worker *w, uint64_t i)
{
    const struct load_phase *p = w->run->phase;
    double position = (double)i * p->threads + w->number;

    return w->run->start_ns + (uint64_t)(position * 1e9 / p->rate);
}

/* The next request's number; false: a fill has them all. */
static bool
worker_place(struct worker *w, uint64_t *place)
{
    struct run *r = w->run;

    switch (r->phase->op == LOAD_FILL ? LOAD_SEQUENTIAL : r->phase->pattern) {
    case LOAD_RANDOM: *place = random_next(&w->random) % r->requests; return true;
    case LOAD_ZIPFIAN:
        *place = random_order_at(&r->order, random_zipf_rank(&r->zipf, &w->random));
        return true;
    case LOAD_SEQUENTIAL: break;
    }
    if (r->phase->op != LOAD_FILL) {
        *place = w->first + w->place;
        w->place = (w->place + 1) % w->span;
        return true;
    }
    if (w->next == w->chunk_end) {
        w->next = atomic_fetch_add(&r->filled, RUN_CHUNK);
        if (w->next >= r->requests) {
            w->chunk_end = w->next;
            return false;
        }
        w->chunk_end = w->next + RUN_CHUNK < r->requests ? w->next + RUN_CHUNK : r->requests;
    }
    *place = r->phase->pattern == LOAD_RANDOM ? random_order_at(&r->order, w->next) : w->next;
    w->next++;
    return true;
}

static bool
worker_writes(struct worker *w)
{
    const struct load_phase *p = w->run->phase;

    if (p->op == LOAD_MIX)
        return random_next(&w->random) % 100 >= p->read_percent;
    return p->op != LOAD_READ;
}

/* --- doing it --- */

static void
worker_count(struct worker *w, uint64_t from_ns, uint64_t end_ns, uint64_t extra_ns)
{
    if (from_ns < w->run->warm_ns)
        return;
    histogram_add(w->latency, end_ns - from_ns + extra_ns, 1);
    w->ops++;
}

/* The planted pause: a store that stops for a while. */
static void
worker_stall(const struct worker *w)
{
    struct run *r = w->run;
    uint64_t now = run_now_ns();

    if (r->phase->stall_ms > 0 && now > r->warm_ns + (r->end_ns - r->warm_ns) / 2 &&
        !atomic_exchange(&r->stalled, true))
        (void)run_sleep(r, now + r->phase->stall_ms * UINT64_C(1000000));
}

static int
worker_read(struct worker *w, uint64_t place)
{
    struct run *r = w->run;
    struct load_piece piece = {.index = place * r->request_blocks,
                               .count = r->request_blocks,
                               .bytes = w->read_bytes};
    int rc;

    worker_stall(w);
    rc = r->layer->read(r->store, &piece, &w->err);
    if (rc == -ENOENT && r->data->sparse)
        return 0;
    if (rc == 0 && !load_data_right(r->data, piece.index, piece.count, piece.bytes))
        rc = kvfs_error_set(&w->err, -EIO, "block %llu holds other bytes than were written",
                            (unsigned long long)piece.index);
    return rc;
}

static int
piece_cmp(const void *a, const void *b)
{
    uint64_t x = ((const struct load_piece *)a)->index, y = ((const struct load_piece *)b)->index;

    return x < y ? -1 : x > y;
}

/* Write what was collected; the latency counts from FROM_NS. */
static int
worker_apply(struct worker *w, uint64_t from_ns)
{
    struct run *r = w->run;
    bool flush = r->phase->flush > 0 && (w->unflushed += w->collected) >= r->phase->flush;
    uint64_t end_ns;
    int rc;

    worker_stall(w);
    if (w->collected > 1)
        qsort(w->pieces, w->collected, sizeof(*w->pieces), piece_cmp);
    rc = r->layer->write(r->store, w->pieces, w->collected, r->phase->flush > 0, &w->err);
    if (rc == 0 && flush && !r->layer->batches)
        rc = r->layer->flush(r->store, &w->err);
    end_ns = run_now_ns();
    if (rc == 0) {
        for (uint32_t i = 0; i < w->collected; i++)
            worker_count(w, from_ns, end_ns, w->extra_ns[i]);
        if (from_ns >= r->warm_ns && (r->layer->batches ? r->phase->flush > 0 : flush))
            w->flushes++;
    }
    if (flush)
        w->unflushed = 0;
    w->collected = 0;
    return rc;
}

/* Collect a write; its call comes with the last of a batch. */
static int
worker_write(struct worker *w, uint64_t place, uint64_t due_ns)
{
    struct run *r = w->run;
    struct load_piece *piece = &w->pieces[w->collected];
    uint64_t read_ns = 0;
    int rc = 0;

    if (r->phase->rmw) {
        read_ns = run_now_ns();
        rc = worker_read(w, place);
        read_ns = run_now_ns() - read_ns;
    }
    piece->index = place * r->request_blocks;
    piece->count = r->request_blocks;
    piece->bytes = w->bytes + (size_t)w->collected * r->request_blocks * r->data->block_bytes;
    load_data_make(r->data, piece->index, piece->count, &w->random, piece->bytes);
    w->extra_ns[w->collected++] = due_ns != 0 ? 0 : read_ns;
    if (rc != 0 || w->collected < r->batch)
        return rc;
    return worker_apply(w, due_ns != 0 ? due_ns : run_now_ns());
}

/* One operation, due at DUE_NS (0: now); 1: there is none left. */
static int
worker_one(struct worker *w, uint64_t due_ns)
{
    uint64_t place, from_ns;
    int rc;

    if (!worker_place(w, &place))
        return 1;
    if (worker_writes(w))
        return worker_write(w, place, due_ns);
    from_ns = due_ns != 0 ? due_ns : run_now_ns();
    rc = worker_read(w, place);
    if (rc == 0)
        worker_count(w, from_ns, run_now_ns(), 0);
    return rc;
}

/* What was due from operation I on, and never begun. */
static void
worker_miss(struct worker *w, uint64_t i)
{
    uint64_t now = run_now_ns(), due;

    for (; (due = worker_due_ns(w, i)) < w->run->end_ns; i++) {
        if (due < w->run->warm_ns)
            continue;
        histogram_add(w->latency, now - due, 1);
        w->missed++;
    }
}

static int
worker_loop_open(struct worker *w)
{
    struct run *r = w->run;
    int rc = 0;

    for (uint64_t i = 0; rc == 0; i++) {
        uint64_t due = worker_due_ns(w, i);

        if (due >= r->end_ns || !run_sleep(r, due))
            return 0;
        if (run_now_ns() >= r->end_ns) {
            worker_miss(w, i);
            return 0;
        }
        rc = worker_one(w, due);
    }
    return rc;
}

static int
worker_loop_closed(struct worker *w)
{
    struct run *r = w->run;
    int rc = 0;

    /* One operation at least: a slow call may last longer than the whole phase. */
    while (rc == 0 && !run_stopped(r) && (run_now_ns() < r->end_ns || w->ops == 0))
        rc = worker_one(w, 0);
    return rc > 0 ? 0 : rc;
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    struct run *r = w->run;

    (void)prctl(PR_SET_TIMERSLACK, 1UL); /* ns; an open loop sleeps often */
    (void)pthread_mutex_lock(&r->lock);
    while (!r->open)
        (void)pthread_cond_wait(&r->changed, &r->lock);
    (void)pthread_mutex_unlock(&r->lock);
    w->rc = r->phase->rate > 0 ? worker_loop_open(w) : worker_loop_closed(w);
    if (w->rc == 0 && w->collected > 0)
        w->rc = worker_apply(w, run_now_ns());
    w->finish_ns = run_now_ns();
    if (w->rc != 0)
        atomic_store(&r->stop, true);
    return NULL;
}

/* --- all of them --- */

static void
worker_fini(struct worker *w)
{
    free(w->pieces);
    free(w->extra_ns);
    free(w->bytes);
    free(w->latency);
}

static int
worker_init(struct worker *w, struct run *r, unsigned number, uint64_t *buffer_bytes)
{
    size_t request = (size_t)r->request_blocks * r->data->block_bytes;
    size_t size = request * (r->batch + 1);
    uint64_t seed = r->phase->seed + UINT64_C(0x10000) * (number + 1u);

    *w = (struct worker){.run = r, .number = number, .random = random_next(&seed)};
    w->first = r->requests * number / r->phase->threads;
    w->span = r->requests * (number + 1) / r->phase->threads - w->first;
    if (w->span == 0) { /* more threads than requests */
        w->first = number % r->requests;
        w->span = 1;
    }
    w->pieces = calloc(r->batch, sizeof(*w->pieces));
    w->extra_ns = calloc(r->batch, sizeof(*w->extra_ns));
    w->bytes = malloc(size);
    w->latency = calloc(1, sizeof(*w->latency));
    if (w->pieces == NULL || w->extra_ns == NULL || w->bytes == NULL || w->latency == NULL)
        return -ENOMEM;
    memset(w->bytes, 1, size);
    w->read_bytes = w->bytes + size - request;
    *buffer_bytes += size + sizeof(*w->latency);
    return 0;
}

static void
run_open_gate(struct run *r)
{
    const struct load_phase *p = r->phase;

    (void)pthread_mutex_lock(&r->lock);
    r->start_ns = run_now_ns();
    r->warm_ns = r->start_ns + (uint64_t)(p->op == LOAD_FILL ? 0 : p->warmup * 1e9);
    r->end_ns = p->op == LOAD_FILL ? UINT64_MAX : r->warm_ns + (uint64_t)(p->seconds * 1e9);
    r->open = true;
    (void)pthread_cond_broadcast(&r->changed);
    (void)pthread_mutex_unlock(&r->lock);
}

static int
run_collect(const struct run *r, struct worker *workers, struct load_result *result,
            struct kvfs_error *err)
{
    uint64_t finish_ns = r->warm_ns;
    int rc = 0;

    for (unsigned i = 0; i < r->phase->threads; i++) {
        struct worker *w = &workers[i];

        if (w->rc != 0 && rc == 0)
            rc = kvfs_error_set(err, w->rc, "%s", w->err.msg);
        result->ops += w->ops;
        result->flushes += w->flushes;
        result->missed += w->missed;
        histogram_merge(&result->latency, w->latency);
        if (w->finish_ns > finish_ns)
            finish_ns = w->finish_ns;
    }
    result->seconds = (double)(finish_ns - r->warm_ns) * 1e-9;
    return rc;
}

static int
run_threads(struct run *r, struct worker *workers, void (*started)(void *arg), void *arg,
            struct kvfs_error *err)
{
    unsigned count = 0;
    int rc = 0;

    while (count < r->phase->threads && rc == 0) {
        rc = pthread_create(&workers[count].thread, NULL, worker_main, &workers[count]);
        count += rc == 0;
    }
    if (rc != 0)
        atomic_store(&r->stop, true);
    else if (started != NULL && (r->phase->op == LOAD_FILL || r->phase->warmup <= 0))
        started(arg);
    run_open_gate(r);
    if (rc == 0 && started != NULL && r->warm_ns > r->start_ns && run_sleep(r, r->warm_ns))
        started(arg);
    while (count > 0)
        (void)pthread_join(workers[--count].thread, NULL);
    return rc == 0 ? 0 : kvfs_error_set(err, -rc, "%u threads: no thread", r->phase->threads);
}

static int
run_prepare(struct run *r, struct kvfs_error *err)
{
    const struct load_phase *p = r->phase;
    const struct load_dataset *d = r->data;
    uint32_t request = p->request_bytes > 0 ? p->request_bytes : d->block_bytes;

    if (request % d->block_bytes != 0 || request / d->block_bytes > d->blocks)
        return kvfs_error_set(err, -EINVAL,
                              "requests of %u bytes do not fit %llu blocks of %u bytes", request,
                              (unsigned long long)d->blocks, d->block_bytes);
    r->request_blocks = request / d->block_bytes;
    r->requests = d->blocks / r->request_blocks;
    r->batch = !r->layer->batches ? 1 : p->flush > 0 ? p->flush : LOAD_BATCH;
    random_order_init(&r->order, r->requests, p->op == LOAD_FILL ? p->seed : d->seed);
    random_zipf_init(&r->zipf, r->requests, RUN_THETA);
    return 0;
}

int
load_run(const struct load_layer *layer, struct load_store *s, const struct load_dataset *d,
         const struct load_phase *phase, void (*started)(void *arg), void *arg,
         struct load_result *result, struct kvfs_error *err)
{
    struct run r = {.layer = layer, .store = s, .data = d, .phase = phase,
                    .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct worker *workers = calloc(phase->threads, sizeof(*workers));
    int rc = workers == NULL ? -ENOMEM : run_prepare(&r, err);

    memset(result, 0, sizeof(*result));
    for (unsigned i = 0; rc == 0 && i < phase->threads; i++)
        rc = worker_init(&workers[i], &r, i, &result->buffer_bytes);
    if (rc == -ENOMEM)
        (void)kvfs_error_set(err, rc, "no memory");
    if (rc == 0)
        rc = run_threads(&r, workers, started, arg, err);
    if (rc == 0)
        rc = run_collect(&r, workers, result, err);
    if (rc == 0 && phase->interrupted != NULL && phase->interrupted())
        rc = kvfs_error_set(err, -EINTR, "interrupted");
    for (unsigned i = 0; workers != NULL && i < phase->threads; i++)
        worker_fini(&workers[i]);
    free(workers);
    return rc;
}
