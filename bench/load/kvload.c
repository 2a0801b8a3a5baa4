/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvload: loads on one dataset, one phase a line of stdin, each answered by a line of JSON.
 *
 *     kvload --layer=contract|kvfs|raw|direct --engine=NAME[,PARAMS] --dir=EMPTY-FOLDER
 *            --bytes=N [--block=4096] [--data=random|half] [--seed=1] [--device=/dev/loopN]
 *
 *     fill [order=random|sequential] [flush=64] [threads=4] [block=N] [drain=1]
 *     load op=read|write|mix [read=50] [rmw=0] [pattern=random|sequential|zipfian] [threads=4]
 *          [flush=64] [seconds=0.5] [warmup=0.1] [rate=OPS] [cold=0] [drain=1] [block=N]
 *     reopen | delete | compact | space | quit
 *
 * The store stays open from phase to phase, so that phases of several kvload beside one another
 * can take turns.  bench/README.md says what the answers hold.  Every cost (CPU, switches,
 * device) is counted until the phase has drained.
 *
 * For tests: `load stall=MS`, one operation halfway through takes so much longer.
 *
 * Exit status: 0; 1, something failed; 2, an option or a line that is none.  One line on stderr.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../direct/direct.h"
#include "answer.h"
#include "drain.h"
#include "folder.h"
#include "run.h"
#include "serve.h"
#include "watch.h"
#include "words.h"

#define KVLOAD_USAGE                                                                               \
    "usage: kvload --layer=contract|kvfs|raw|direct [--engine=NAME[,PARAMS]] "                     \
    "--dir=EMPTY-FOLDER --bytes=N [--block=4096] [--data=random|half] [--seed=1] "                 \
    "[--device=/dev/NAME]"

static const struct load_layer *const kvload_layers[] = {
    &load_layer_contract,
    &load_layer_kvfs,
    &load_layer_raw,
    &load_layer_direct,
};

void
bench_die(const char *format, ...)
{
    va_list args;

    (void)fputs("kvload: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

struct kvload {
    const struct load_layer *layer;
    struct load_target target;
    struct load_store *store;
    uint64_t bytes;
    char engine[128], stat_path[64];
    const char *device; /* stat_path or NULL */
    uint64_t phases;
};

/* --- the command line --- */

static int
kvload_layer(struct kvload *k, const char *word, const char *name, struct kvfs_error *err)
{
    for (size_t i = 0; i < sizeof(kvload_layers) / sizeof(kvload_layers[0]); i++)
        if (strcmp(kvload_layers[i]->name, name) == 0) {
            k->layer = kvload_layers[i];
            return 0;
        }
    return kvfs_error_set(err, -EINVAL, "%s: there is no such layer", word);
}

static int
kvload_option(struct kvload *k, const char *word, struct kvfs_error *err)
{
    static const char *const data[] = {"random", "half", NULL};
    const char *value;
    uint64_t number;
    unsigned index;
    int rc = 0;

    if (word_is(word, "--layer", &value))
        return kvload_layer(k, word, value, err);
    if (word_is(word, "--engine", &value)) {
        rc = word_engine(word, value, k->engine, sizeof(k->engine), &k->target.params, err);
        k->target.engine = k->engine;
    } else if (word_is(word, "--dir", &value)) {
        k->target.folder = value;
    } else if (word_is(word, "--bytes", &value)) {
        rc = word_number(word, value, 4096, (uint64_t)1 << 50, &k->bytes, err);
    } else if (word_is(word, "--block", &value)) {
        rc = word_number(word, value, 4096, KVFS_BLOCK_SIZE_MAX, &number, err);
        if (rc == 0 && (number & (number - 1)) != 0)
            rc = kvfs_error_set(err, -EINVAL, "%s: not a power of two", word);
        if (rc == 0)
            k->target.data.block_bytes = (uint32_t)number;
    } else if (word_is(word, "--data", &value)) {
        rc = word_choice(word, value, data, &index, err);
        if (rc == 0)
            k->target.data.half = index == 1;
    } else if (word_is(word, "--seed", &value)) {
        rc = word_number(word, value, 0, UINT32_MAX, &k->target.data.seed, err);
    } else if (word_is(word, "--device", &value)) {
        rc = watch_device(value, k->stat_path, sizeof(k->stat_path));
        if (rc != 0)
            return kvfs_error_set(err, -EINVAL, "%s: no block device", word);
        k->device = k->stat_path;
    } else {
        rc = kvfs_error_set(err, -EINVAL, "%s: unknown option; %s", word, KVLOAD_USAGE);
    }
    return rc;
}

static int
kvload_options(struct kvload *k, int argc, char **argv, struct kvfs_error *err)
{
    struct load_dataset *d = &k->target.data;
    int rc = 0;

    *d = (struct load_dataset){.block_bytes = 4096, .seed = 1, .sparse = true};
    for (int i = 1; rc == 0 && i < argc; i++)
        rc = kvload_option(k, argv[i], err);
    if (rc != 0)
        return rc;
    if (k->layer == NULL || k->target.folder == NULL || k->bytes == 0)
        return kvfs_error_set(err, -EINVAL, "%s", KVLOAD_USAGE);
    if ((k->target.engine == NULL) != (k->layer == &load_layer_raw))
        return kvfs_error_set(err, -EINVAL, "layer %s %s --engine", k->layer->name,
                              k->target.engine == NULL ? "needs" : "has no");
    if (k->bytes % d->block_bytes != 0)
        return kvfs_error_set(err, -EINVAL, "--bytes=%llu: not a multiple of %u",
                              (unsigned long long)k->bytes, d->block_bytes);
    d->blocks = k->bytes / d->block_bytes;
    return 0;
}

/* --- phases that load --- */

struct kvload_extra {
    bool cold, drain, drain_given, op_given;
};

/* What a fill and a load have both.  1: another word. */
static int
phase_word_any(struct load_phase *p, struct kvload_extra *x, const char *word,
               struct kvfs_error *err)
{
    uint64_t number = 0;
    const char *value;
    int rc;

    if (word_is(word, "threads", &value)) {
        rc = word_number(word, value, 1, LOAD_THREADS_MAX, &number, err);
        p->threads = (unsigned)number;
    } else if (word_is(word, "flush", &value)) {
        rc = word_number(word, value, 0, LOAD_FLUSH_MAX, &number, err);
        p->flush = (unsigned)number;
    } else if (word_is(word, "block", &value)) {
        rc = word_number(word, value, 4096, 1u << 20, &number, err);
        p->request_bytes = (uint32_t)number;
    } else if (word_is(word, "drain", &value)) {
        rc = word_number(word, value, 0, 1, &number, err);
        x->drain = number != 0;
        x->drain_given = true;
    } else {
        rc = 1;
    }
    return rc;
}

static int
phase_word_fill(struct load_phase *p, const char *word, struct kvfs_error *err)
{
    static const char *const orders[] = {"random", "sequential", NULL};
    unsigned index = 0;
    const char *value;
    int rc;

    if (!word_is(word, "order", &value))
        return kvfs_error_set(err, -EINVAL, "%s: unknown word", word);
    rc = word_choice(word, value, orders, &index, err);
    p->pattern = index == 0 ? LOAD_RANDOM : LOAD_SEQUENTIAL;
    return rc;
}

static int
phase_word_load(struct load_phase *p, struct kvload_extra *x, const char *word,
                struct kvfs_error *err)
{
    static const char *const patterns[] = {"random", "sequential", "zipfian", NULL};
    static const char *const ops[] = {"read", "write", "mix", NULL};
    uint64_t number = 0;
    unsigned index = 0;
    const char *value;
    int rc;

    if (word_is(word, "op", &value)) {
        rc = word_choice(word, value, ops, &index, err);
        p->op = LOAD_READ + index;
        x->op_given = true;
    } else if (word_is(word, "pattern", &value)) {
        rc = word_choice(word, value, patterns, &index, err);
        p->pattern = LOAD_RANDOM + index;
    } else if (word_is(word, "read", &value)) {
        rc = word_number(word, value, 0, 100, &number, err);
        p->read_percent = (unsigned)number;
    } else if (word_is(word, "rmw", &value)) {
        rc = word_number(word, value, 0, 1, &number, err);
        p->rmw = number != 0;
    } else if (word_is(word, "seconds", &value)) {
        rc = word_seconds(word, value, SERVE_DAY_S, &p->seconds, err);
    } else if (word_is(word, "warmup", &value)) {
        rc = word_seconds(word, value, SERVE_DAY_S, &p->warmup, err);
    } else if (word_is(word, "rate", &value)) {
        rc = word_seconds(word, value, 1e9, &p->rate, err);
    } else if (word_is(word, "cold", &value)) {
        rc = word_number(word, value, 0, 1, &number, err);
        x->cold = number != 0;
    } else if (word_is(word, "stall", &value)) {
        rc = word_number(word, value, 0, 60000, &number, err);
        p->stall_ms = (unsigned)number;
    } else {
        rc = kvfs_error_set(err, -EINVAL, "%s: unknown word", word);
    }
    return rc;
}

static int
phase_parse(struct kvload *k, char *words, bool load, struct load_phase *p, struct kvload_extra *x,
            struct kvfs_error *err)
{
    char *next = NULL, *word;
    int rc = 0;

    *p = (struct load_phase){.op = load ? LOAD_READ : LOAD_FILL,
                             .read_percent = 50,
                             .threads = 4,
                             .flush = 64,
                             .seconds = 0.5,
                             .warmup = load ? 0.1 : 0,
                             .seed = k->target.data.seed + ++k->phases,
                             .interrupted = serve_interrupted};
    *x = (struct kvload_extra){.cold = false};
    while (rc == 0 && (word = strtok_r(words, " \t", &next)) != NULL) {
        words = NULL;
        rc = phase_word_any(p, x, word, err);
        if (rc > 0)
            rc = load ? phase_word_load(p, x, word, err) : phase_word_fill(p, word, err);
    }
    if (rc == 0 && load && !x->op_given)
        rc = kvfs_error_set(err, -EINVAL, "load: op= is missing");
    if (rc == 0 && p->request_bytes % k->target.data.block_bytes != 0)
        rc = kvfs_error_set(err, -EINVAL, "block=%u: not a multiple of the dataset's %u",
                            p->request_bytes, k->target.data.block_bytes);
    if (rc == 0 && p->rate > 0 && p->rate < p->threads)
        rc = kvfs_error_set(err, -EINVAL, "rate=%.3f: less than one a thread and second", p->rate);
    if (!x->drain_given)
        x->drain = p->op != LOAD_READ;
    return rc;
}

static int
kvload_cold(struct kvload *k, const char **how, uint64_t *resident, struct kvfs_error *err)
{
    int rc = k->layer->close(k->store, err);

    k->store = NULL;
    if (rc == 0)
        rc = folder_drop_cache(k->target.folder, how, resident, err);
    if (rc == 0)
        rc = k->layer->open(&k->target, false, &k->store, err);
    return rc;
}

struct kvload_measured {
    struct load_result result;
    struct watch watch;
    struct watch_counters cost;
    double drain_seconds;
    bool drained;
    const char *cold; /* how, or NULL */
    uint64_t cold_resident;
};

static int
phase_answer(struct kvload *k, const struct load_phase *p, const struct kvload_extra *x,
             struct kvload_measured *m, struct kvfs_error *err)
{
    const struct load_result *r = &m->result;
    struct load_info info;
    int rc = k->layer->info(k->store, &info, err);

    if (rc != 0)
        return rc;
    answer_begin(p->op == LOAD_FILL ? "fill" : "load");
    answer_u64("ops", r->ops);
    answer_double("seconds", r->seconds);
    answer_double("rate", (double)r->ops / r->seconds);
    if (x->drain)
        answer_double("rate_drained", (double)r->ops / (r->seconds + m->drain_seconds));
    else
        answer_null("rate_drained");
    answer_double("drain_seconds", x->drain ? m->drain_seconds : 0);
    if (x->drain)
        answer_bool("drained", m->drained);
    else
        answer_null("drained");
    answer_u64("errors", 0);
    answer_u64("missed", r->missed);
    answer_latency("latency_ns", &r->latency);
    answer_cost(&m->cost, &m->watch);
    answer_u64("flushes_acknowledged", r->flushes);
    if (k->device != NULL) {
        answer_object("device");
        answer_u64("written", m->cost.device_written);
        answer_u64("flushes", m->cost.device_flushes);
        answer_object_end();
    } else {
        answer_null("device");
    }
    answer_text("cold", m->cold);
    if (m->cold != NULL)
        answer_u64("cold_resident_bytes", m->cold_resident);
    answer_caps("durable", info.caps);
    answer_end();
    return 0;
}

static void
kvload_started(void *arg)
{
    struct kvload_measured *m = arg;

    atomic_store(&m->watch.not_own, m->result.buffer_bytes);
    watch_mark(&m->watch);
}

static int
kvload_phase(struct kvload *k, char *words, bool load, struct kvfs_error *err)
{
    struct kvload_measured m = {.cold = NULL};
    struct kvload_extra x;
    struct load_phase p;
    int rc = phase_parse(k, words, load, &p, &x, err);

    if (rc == 0 && x.cold)
        rc = kvload_cold(k, &m.cold, &m.cold_resident, err);
    if (rc != 0)
        return rc;
    rc = watch_start(&m.watch, k->device);
    if (rc != 0)
        return kvfs_error_set(err, rc, "no thread");
    rc = load_run(k->layer, k->store, &k->target.data, &p, kvload_started, &m, &m.result, err);
    atomic_store(&m.watch.not_own, 0);
    if (rc == 0 && x.drain)
        rc = load_drain(k->layer, k->store, k->target.folder, k->device != NULL, serve_interrupted,
                        &m.drain_seconds, &m.drained, err);
    watch_stop(&m.watch, &m.cost);
    if (rc != 0)
        return rc;
    if (p.op == LOAD_FILL)
        k->target.data.sparse = false;
    return phase_answer(k, &p, &x, &m, err);
}

/* --- the others --- */

static int
kvload_reopen(struct kvload *k, struct kvfs_error *err)
{
    double start = serve_now_s(), closed;
    int rc = k->layer->close(k->store, err);

    closed = serve_now_s();
    k->store = NULL;
    if (rc == 0)
        rc = k->layer->open(&k->target, false, &k->store, err);
    if (rc != 0)
        return rc;
    answer_begin("reopen");
    answer_double("close_seconds", closed - start);
    answer_double("open_seconds", serve_now_s() - closed);
    answer_end();
    return 0;
}

static int
kvload_delete(struct kvload *k, struct kvfs_error *err)
{
    double start = serve_now_s(), removed, drain = 0;
    bool drained = false;
    int rc = k->layer->remove(k->store, err);

    removed = serve_now_s();
    if (rc == 0)
        rc = load_drain(k->layer, k->store, k->target.folder, k->device != NULL, serve_interrupted,
                        &drain, &drained, err);
    if (rc != 0)
        return rc;
    k->target.data.sparse = true;
    answer_begin("delete");
    answer_double("seconds", removed - start);
    answer_double("drain_seconds", drain);
    answer_bool("drained", drained);
    answer_end();
    return 0;
}

/* Closed, compacted, opened.  What cannot compact says so. */
static int
kvload_compact(struct kvload *k, struct kvfs_error *err)
{
    double start = serve_now_s();
    bool supported = k->layer->compact != NULL;
    int rc = k->layer->close(k->store, err);

    k->store = NULL;
    if (rc == 0 && supported)
        rc = k->layer->compact(&k->target, err);
    if (rc == -ENOTSUP) {
        supported = false;
        rc = 0;
    }
    if (rc == 0)
        rc = k->layer->open(&k->target, false, &k->store, err);
    if (rc != 0)
        return rc;
    answer_begin("compact");
    answer_bool("supported", supported);
    answer_double("seconds", serve_now_s() - start);
    answer_end();
    return 0;
}

static int
kvload_space(struct kvload *k, struct kvfs_error *err)
{
    struct load_info info;
    uint64_t allocated;
    int rc = folder_allocated(k->target.folder, &allocated, err);

    if (rc == 0)
        rc = k->layer->info(k->store, &info, err);
    if (rc != 0)
        return rc;
    answer_begin("space");
    answer_u64("allocated_bytes", allocated);
    answer_u64("dataset_bytes", k->bytes);
    answer_u64("used_bytes", info.used_bytes);
    answer_end();
    return 0;
}

static int
kvload_quit(struct kvload *k, struct kvfs_error *err)
{
    (void)k;
    (void)err;
    return 1;
}

static int
kvload_open(struct kvload *k, struct kvfs_error *err)
{
    double start = serve_now_s(), seconds;
    struct load_info info;
    int rc;

    if (!folder_empty(k->target.folder))
        return kvfs_error_set(err, -ENOTEMPTY, "--dir=%s: no folder, or not empty",
                              k->target.folder);
    rc = k->layer->open(&k->target, true, &k->store, err);
    seconds = serve_now_s() - start;
    if (rc == 0)
        rc = k->layer->info(k->store, &info, err);
    if (rc != 0)
        return rc;
    answer_begin("open");
    answer_double("seconds", seconds);
    answer_text("layer", k->layer->name);
    answer_text("engine", k->target.engine);
    answer_text("version", info.version);
    answer_caps("caps", info.caps);
    answer_text("params", k->target.params);
    answer_end();
    return 0;
}

/* 1: it was the last. */
static int
kvload_line(void *arg, const char *word, char *rest, struct kvfs_error *err)
{
    static const struct {
        const char *name;
        int (*run)(struct kvload *k, struct kvfs_error *err);
    } phases[] = {
        {"reopen", kvload_reopen},
        {"delete", kvload_delete},
        {"compact", kvload_compact},
        {"space", kvload_space},
        {"quit", kvload_quit},
    };
    struct kvload *k = arg;

    if (strcmp(word, "fill") == 0 || strcmp(word, "load") == 0)
        return kvload_phase(k, rest, *word == 'l', err);
    if (*rest != '\0')
        return kvfs_error_set(err, -EINVAL, "%s: no such phase, or none that takes words", word);
    for (size_t i = 0; i < sizeof(phases) / sizeof(phases[0]); i++)
        if (strcmp(word, phases[i].name) == 0)
            return phases[i].run(k, err);
    return kvfs_error_set(err, -EINVAL, "%s: unknown phase", word);
}

static int
kvload_serve(struct kvload *k, struct kvfs_error *err)
{
    int rc = kvload_open(k, err), closed = 0;

    if (rc == 0)
        rc = serve_lines(kvload_line, k, err);
    if (k->store != NULL)
        closed = k->layer->close(k->store, rc == 0 ? err : NULL);
    return rc == 0 ? closed : rc;
}

int
main(int argc, char **argv)
{
    struct kvfs_error err = {.code = 0};
    struct kvload k = {.layer = NULL};
    int rc;

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)puts("kvload " KVFS_VERSION);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)puts(KVLOAD_USAGE);
        return 0;
    }
    serve_signals_catch();
    rc = kvload_options(&k, argc, argv, &err);
    if (rc == 0)
        rc = kvload_serve(&k, &err);
    serve_signals_follow();
    return serve_status("kvload", rc, &err);
}
