/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvdir: names by the thousand, one phase a line of stdin, each answered by a line of JSON.
 *
 *     kvdir --layer=kvfs --engine=NAME[,PARAMS] --dir=EMPTY-FOLDER [SHAPE]
 *     kvdir --layer=posix --dir=MOUNTED-FOLDER [SHAPE]
 *     SHAPE: --files=10000 (all in one folder), or --branch=6 --depth=3 --items=8
 *
 * The second shape is that of `mdtest -b 6 -I 8 -z 3`: a tree of folders, 8 items in each, the
 * leaves' parents too: 2072 items in 259 folders.  Phases:
 *
 *     mktree | rmtree    the folders of the tree
 *     create | stat | read | rename | remove   [kind=file|dir]   the items; read: open and close
 *     list               the folders, entry by entry
 *     quit
 *     with [threads=1] [order=sequential|random] [sync=none|end|every] [repeat=1] [drain=1]
 *
 * sync=end: all is made durable once the last operation is done, within the time; sync=every:
 * after each, within its latency (libkvfs: a commit; POSIX: fsync of the folder, and of a new
 * file).
 * Everything is done in /kvdir below --dir, which rmtree removes.  Items are addressed by their
 * whole path on both layers.
 *
 * Exit status: 0; 1, something failed; 2, an option or a line that is none.  One line on stderr.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "answer.h"
#include "dir.h"
#include "drain.h"
#include "folder.h"
#include "histogram.h"
#include "random.h"
#include "serve.h"
#include "watch.h"
#include "words.h"

#define KVDIR_PATH        512
#define KVDIR_THREADS_MAX 256u
#define KVDIR_DEPTH_MAX   8u
#define KVDIR_NODES_MAX   1000000u
#define KVDIR_USAGE                                                                                \
    "usage: kvdir --layer=kvfs|posix [--engine=NAME[,PARAMS]] --dir=FOLDER "                       \
    "[--files=10000 | --branch=6 --depth=3 --items=8]"

enum kvdir_op {
    KVDIR_MKTREE,
    KVDIR_RMTREE,
    KVDIR_CREATE,
    KVDIR_STAT,
    KVDIR_READ,
    KVDIR_RENAME,
    KVDIR_REMOVE,
    KVDIR_LIST,
};
static const char *const kvdir_ops[] = {"mktree", "rmtree", "create", "stat", "read",
                                        "rename", "remove", "list",   NULL};

enum kvdir_sync { KVDIR_SYNC_NONE, KVDIR_SYNC_END, KVDIR_SYNC_EVERY };

struct kvdir {
    const struct dir_layer *layer;
    const char *folder, *params;
    char engine[128];
    uint64_t files, branch, depth, items; /* branch 0: all files in one folder */
    uint64_t nodes;                       /* folders of the tree, the first is /kvdir */
    uint64_t phases;
    bool renamed[2]; /* of files, of folders: the items have their second name */
};

struct kvdir_phase {
    enum kvdir_op op;
    bool folders; /* the items are folders */
    unsigned threads, sync;
    bool random, drain;
    uint64_t repeat;
};

struct kvdir_run {
    struct kvdir *k;
    const struct kvdir_phase *phase;
    uint64_t ops; /* in one repetition */
    struct random_order order;
    atomic_bool stop;
};

struct kvdir_worker {
    struct kvdir_run *run;
    pthread_t thread;
    uint64_t first, end; /* of the operations */
    uint64_t entries, flushes, ops;
    struct histogram latency;
    struct kvfs_error err;
    int rc;
};

/* --- names --- */

/* The path of folder NODE, numbered as a heap: parent (NODE - 1) / branch. */
static void
kvdir_node_path(const struct kvdir *k, uint64_t node, char *path)
{
    uint64_t up[KVDIR_DEPTH_MAX + 1];
    size_t depth = 0, at;

    for (; node > 0; node = (node - 1) / k->branch)
        up[depth++] = node;
    at = (size_t)snprintf(path, KVDIR_PATH, "/kvdir");
    while (depth > 0)
        at += (size_t)snprintf(path + at, KVDIR_PATH - at, "/t%" PRIu64, up[--depth]);
}

static void
kvdir_item_path(const struct kvdir *k, uint64_t item, bool folders, bool renamed, char *path)
{
    static const char letters[2][2] = {{'f', 'g'}, {'d', 'e'}};
    size_t at;

    kvdir_node_path(k, k->branch > 0 ? item / k->items : 0, path);
    at = strlen(path);
    (void)snprintf(path + at, KVDIR_PATH - at, "/%c%08" PRIu64, letters[folders][renamed], item);
}

static uint64_t
kvdir_items(const struct kvdir *k)
{
    return k->branch > 0 ? k->nodes * k->items : k->files;
}

/* --- operations --- */

static int
worker_item(struct kvdir_worker *w, uint64_t item, char *path)
{
    const struct kvdir_phase *p = w->run->phase;
    struct kvdir *k = w->run->k;
    bool renamed = k->renamed[p->folders];
    char to[KVDIR_PATH];

    kvdir_item_path(k, item, p->folders, p->op != KVDIR_CREATE && renamed, path);
    switch (p->op) {
    case KVDIR_CREATE: return k->layer->create(path, p->folders, &w->err);
    case KVDIR_STAT: return k->layer->stat(path, &w->err);
    case KVDIR_READ: return k->layer->read(path, p->folders, &w->err);
    case KVDIR_REMOVE: return k->layer->remove(path, p->folders, &w->err);
    default:
        kvdir_item_path(k, item, p->folders, !renamed, to);
        return k->layer->rename(path, to, &w->err);
    }
}

static int
worker_node(struct kvdir_worker *w, uint64_t node, char *path)
{
    const struct kvdir_phase *p = w->run->phase;
    struct kvdir *k = w->run->k;

    if (p->op == KVDIR_RMTREE)
        node = k->nodes - 1 - node; /* the lowest first */
    kvdir_node_path(k, node, path);
    if (p->op == KVDIR_MKTREE)
        return k->layer->create(path, true, &w->err);
    if (p->op == KVDIR_RMTREE)
        return k->layer->remove(path, true, &w->err);
    return k->layer->list(path, &w->entries, &w->err);
}

static bool
kvdir_changes(const struct kvdir_phase *p)
{
    return p->op != KVDIR_STAT && p->op != KVDIR_READ && p->op != KVDIR_LIST;
}

static uint64_t
kvdir_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int
worker_one(struct kvdir_worker *w, uint64_t i)
{
    const struct kvdir_phase *p = w->run->phase;
    struct kvdir_run *r = w->run;
    char path[KVDIR_PATH];
    uint64_t from;
    int rc;

    i %= r->ops;
    if (p->random)
        i = random_order_at(&r->order, i);
    from = kvdir_now_ns();
    if (p->op == KVDIR_MKTREE || p->op == KVDIR_RMTREE || p->op == KVDIR_LIST)
        rc = worker_node(w, i, path);
    else
        rc = worker_item(w, i, path);
    if (rc == 0 && p->sync == KVDIR_SYNC_EVERY && kvdir_changes(p)) {
        rc = r->k->layer->flush(path, p->op == KVDIR_CREATE && !p->folders, &w->err);
        w->flushes++;
    }
    histogram_add(&w->latency, kvdir_now_ns() - from, 1);
    w->ops++;
    return rc;
}

static void *
worker_main(void *arg)
{
    struct kvdir_worker *w = arg;
    struct kvdir_run *r = w->run;

    for (uint64_t i = w->first; w->rc == 0 && i < w->end && !atomic_load(&r->stop); i++) {
        w->rc = worker_one(w, i);
        if (w->rc == 0 && serve_interrupted())
            w->rc = kvfs_error_set(&w->err, -EINTR, "interrupted");
    }
    if (w->rc != 0)
        atomic_store(&r->stop, true);
    return NULL;
}

/* --- a phase --- */

struct kvdir_found {
    struct kvdir_worker sum;
    struct watch watch;
    struct watch_counters cost;
    double seconds, sync_seconds, drain_seconds;
    bool drained;
};

static int
run_workers(struct kvdir_run *r, struct kvdir_worker *workers, struct kvdir_found *f,
            struct kvfs_error *err)
{
    const unsigned threads = r->phase->threads;
    const uint64_t all = r->ops * r->phase->repeat;
    unsigned count = 0;
    int rc = 0;

    for (; rc == 0 && count < threads; count += rc == 0) {
        struct kvdir_worker *w = &workers[count];

        w->run = r;
        w->first = all * count / threads;
        w->end = all * (count + 1) / threads;
        rc = pthread_create(&w->thread, NULL, worker_main, w);
    }
    if (rc != 0) {
        atomic_store(&r->stop, true);
        rc = kvfs_error_set(err, -rc, "%u threads: no thread", threads);
    }
    while (count > 0) {
        struct kvdir_worker *w = &workers[--count];

        (void)pthread_join(w->thread, NULL);
        if (w->rc != 0 && rc == 0)
            rc = kvfs_error_set(err, w->rc, "%s", w->err.msg);
        histogram_merge(&f->sum.latency, &w->latency);
        f->sum.ops += w->ops;
        f->sum.entries += w->entries;
        f->sum.flushes += w->flushes;
    }
    return rc;
}

static const struct dir_layer *drain_dir;

static int
drain_settle(struct load_store *s, struct kvfs_error *err)
{
    (void)s;
    return drain_dir->settle(err);
}

static int
drain_info(struct load_store *s, struct load_info *info, struct kvfs_error *err)
{
    (void)s;
    return drain_dir->info(info, err);
}

/* What load_drain() asks of a layer. */
static const struct load_layer drain_layer = {.settle = drain_settle, .info = drain_info};

static int
kvdir_sync_end(struct kvdir *k, struct kvdir_found *f, struct kvfs_error *err)
{
    double start = serve_now_s();
    int rc = k->layer->sync(err);

    f->sync_seconds = serve_now_s() - start;
    f->sum.flushes++;
    return rc;
}

static int
kvdir_measure(struct kvdir *k, const struct kvdir_phase *p, struct kvdir_found *f,
              struct kvfs_error *err)
{
    const bool nodes = p->op == KVDIR_MKTREE || p->op == KVDIR_RMTREE || p->op == KVDIR_LIST;
    struct kvdir_run r = {.k = k, .phase = p, .ops = nodes ? k->nodes : kvdir_items(k)};
    struct kvdir_worker *workers = calloc(p->threads, sizeof(*workers));
    double start;
    int rc;

    if (workers == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    memset(workers, 0, p->threads * sizeof(*workers)); /* touched before the clock starts */
    random_order_init(&r.order, r.ops, ++k->phases);
    atomic_store(&f->watch.not_own, p->threads * sizeof(*workers));
    watch_mark(&f->watch);
    start = serve_now_s();
    rc = run_workers(&r, workers, f, err);
    if (rc == 0 && p->sync == KVDIR_SYNC_END && kvdir_changes(p))
        rc = kvdir_sync_end(k, f, err);
    f->seconds = serve_now_s() - start;
    free(workers);
    atomic_store(&f->watch.not_own, 0);
    drain_dir = k->layer;
    if (rc == 0 && p->drain && kvdir_changes(p))
        rc = load_drain(&drain_layer, NULL, NULL, false, serve_interrupted, &f->drain_seconds,
                        &f->drained, err);
    return rc;
}

static int
kvdir_answer(struct kvdir *k, const struct kvdir_phase *p, struct kvdir_found *f,
             struct kvfs_error *err)
{
    const bool drained = p->drain && kvdir_changes(p);
    const double ops = (double)(p->op == KVDIR_LIST ? f->sum.entries : f->sum.ops);
    struct load_info info;
    int rc = k->layer->info(&info, err);

    if (rc != 0)
        return rc;
    answer_begin(kvdir_ops[p->op]);
    answer_text("kind", p->folders ? "dir" : "file");
    answer_u64("ops", (uint64_t)ops);
    if (p->op == KVDIR_LIST)
        answer_u64("folders", f->sum.ops);
    answer_double("seconds", f->seconds);
    answer_double("rate", ops / f->seconds);
    if (drained)
        answer_double("rate_drained", ops / (f->seconds + f->drain_seconds));
    else
        answer_null("rate_drained");
    answer_double("drain_seconds", f->drain_seconds);
    if (drained)
        answer_bool("drained", f->drained);
    else
        answer_null("drained");
    answer_double("sync_seconds", f->sync_seconds);
    answer_u64("errors", 0);
    answer_latency("latency_ns", &f->sum.latency);
    answer_cost(&f->cost, &f->watch);
    answer_u64("flushes_acknowledged", f->sum.flushes);
    answer_caps("durable", info.caps);
    answer_end();
    return 0;
}

static int
phase_word(struct kvdir_phase *p, const char *word, struct kvfs_error *err)
{
    static const char *const kinds[] = {"file", "dir", NULL};
    static const char *const orders[] = {"sequential", "random", NULL};
    static const char *const syncs[] = {"none", "end", "every", NULL};
    const bool tree = p->op == KVDIR_MKTREE || p->op == KVDIR_RMTREE;
    uint64_t number = 0;
    unsigned index = 0;
    const char *value;
    int rc;

    if (word_is(word, "kind", &value) && !tree && p->op != KVDIR_LIST) {
        rc = word_choice(word, value, kinds, &index, err);
        p->folders = index == 1;
    } else if (word_is(word, "order", &value) && !tree) {
        rc = word_choice(word, value, orders, &index, err);
        p->random = index == 1;
    } else if (word_is(word, "sync", &value)) {
        rc = word_choice(word, value, syncs, &p->sync, err);
    } else if (word_is(word, "threads", &value) && !tree) {
        rc = word_number(word, value, 1, KVDIR_THREADS_MAX, &number, err);
        p->threads = (unsigned)number;
    } else if (word_is(word, "repeat", &value) && !kvdir_changes(p)) {
        rc = word_number(word, value, 1, 1000000, &p->repeat, err);
    } else if (word_is(word, "drain", &value)) {
        rc = word_number(word, value, 0, 1, &number, err);
        p->drain = number != 0;
    } else {
        rc = kvfs_error_set(err, -EINVAL, "%s: unknown word", word);
    }
    return rc;
}

static int
kvdir_line(void *arg, const char *word, char *rest, struct kvfs_error *err)
{
    struct kvdir_phase p = {.threads = 1, .repeat = 1, .drain = true};
    struct kvdir *k = arg;
    struct kvdir_found *f;
    char *next = NULL;
    unsigned op;
    int rc = 0;

    if (strcmp(word, "quit") == 0)
        return 1;
    rc = word_choice(word, word, kvdir_ops, &op, err);
    p.op = op;
    if (rc == 0 && (p.op == KVDIR_MKTREE || p.op == KVDIR_RMTREE || p.op == KVDIR_LIST))
        p.folders = true;
    while (rc == 0 && (word = strtok_r(rest, " \t", &next)) != NULL) {
        rest = NULL;
        rc = phase_word(&p, word, err);
    }
    if (rc != 0)
        return rc;
    f = calloc(1, sizeof(*f));
    if (f == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory");
    rc = watch_start(&f->watch, NULL);
    if (rc == 0) {
        rc = kvdir_measure(k, &p, f, err);
        watch_stop(&f->watch, &f->cost);
    }
    if (rc == 0 && p.op == KVDIR_RENAME)
        k->renamed[p.folders] = !k->renamed[p.folders];
    if (rc == 0 && p.op == KVDIR_CREATE)
        k->renamed[p.folders] = false;
    if (rc == 0)
        rc = kvdir_answer(k, &p, f, err);
    free(f);
    return rc == -EINVAL ? kvfs_error_set(err, -EIO, "%s", err->msg) : rc;
}

/* --- the command line --- */

static int
kvdir_option(struct kvdir *k, const char *word, struct kvfs_error *err)
{
    const char *value;
    int rc = 0;

    if (word_is(word, "--layer", &value)) {
        static const char *const layers[] = {"kvfs", "posix", NULL};
        unsigned index = 0;

        rc = word_choice(word, value, layers, &index, err);
        if (rc == 0)
            k->layer = index == 0 ? &dir_layer_kvfs : &dir_layer_posix;
    } else if (word_is(word, "--engine", &value)) {
        rc = word_engine(word, value, k->engine, sizeof(k->engine), &k->params, err);
    } else if (word_is(word, "--dir", &value)) {
        k->folder = value;
    } else if (word_is(word, "--files", &value)) {
        rc = word_number(word, value, 1, 100000000, &k->files, err);
    } else if (word_is(word, "--branch", &value)) {
        rc = word_number(word, value, 1, 1000, &k->branch, err);
    } else if (word_is(word, "--depth", &value)) {
        rc = word_number(word, value, 0, KVDIR_DEPTH_MAX, &k->depth, err);
    } else if (word_is(word, "--items", &value)) {
        rc = word_number(word, value, 1, 1000000, &k->items, err);
    } else {
        rc = kvfs_error_set(err, -EINVAL, "%s: unknown option; %s", word, KVDIR_USAGE);
    }
    return rc;
}

static int
kvdir_options(struct kvdir *k, int argc, char **argv, struct kvfs_error *err)
{
    uint64_t level = 1;
    int rc = 0;

    for (int i = 1; rc == 0 && i < argc; i++)
        rc = kvdir_option(k, argv[i], err);
    if (rc != 0)
        return rc;
    if (k->layer == NULL || k->folder == NULL)
        return kvfs_error_set(err, -EINVAL, "%s", KVDIR_USAGE);
    if ((k->engine[0] != '\0') != (k->layer == &dir_layer_kvfs))
        return kvfs_error_set(err, -EINVAL, "layer %s %s --engine", k->layer->name,
                              k->engine[0] == '\0' ? "needs" : "has no");
    if ((k->branch > 0) != (k->items > 0) || (k->branch == 0 && k->depth > 0) ||
        (k->branch > 0 && k->files > 0))
        return kvfs_error_set(err, -EINVAL, "--files, or --branch, --depth and --items; %s",
                              KVDIR_USAGE);
    if (k->branch == 0 && k->files == 0)
        k->files = 10000;
    k->nodes = 1;
    for (uint64_t i = 0; i < k->depth; i++) {
        level *= k->branch;
        k->nodes += level;
        if (k->nodes > KVDIR_NODES_MAX)
            return kvfs_error_set(err, -EINVAL, "--branch, --depth: more than %u folders",
                                  KVDIR_NODES_MAX);
    }
    return 0;
}

static int
kvdir_serve(struct kvdir *k, struct kvfs_error *err)
{
    double start = serve_now_s(), seconds;
    struct load_info info;
    int rc, closed;

    if (k->layer == &dir_layer_kvfs && !folder_empty(k->folder))
        return kvfs_error_set(err, -ENOTEMPTY, "--dir=%s: no folder, or not empty", k->folder);
    rc = k->layer->open(k->folder, k->engine, k->params, err);
    seconds = serve_now_s() - start;
    if (rc != 0)
        return rc;
    rc = k->layer->info(&info, err);
    if (rc == 0) {
        answer_begin("open");
        answer_double("seconds", seconds);
        answer_text("layer", k->layer->name);
        answer_text("engine", k->engine[0] != '\0' ? k->engine : NULL);
        answer_text("version", info.version);
        answer_caps("caps", info.caps);
        answer_text("params", k->params);
        answer_u64("items", kvdir_items(k));
        answer_u64("folders", k->nodes);
        answer_end();
        rc = serve_lines(kvdir_line, k, err);
    }
    closed = k->layer->close(rc == 0 ? err : NULL);
    return rc == 0 ? closed : rc;
}

int
main(int argc, char **argv)
{
    struct kvfs_error err = {.code = 0};
    struct kvdir k = {.layer = NULL};
    int rc;

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)puts("kvdir " KVFS_VERSION);
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        (void)puts(KVDIR_USAGE);
        return 0;
    }
    serve_signals_catch();
    rc = kvdir_options(&k, argc, argv, &err);
    if (rc == 0)
        rc = kvdir_serve(&k, &err);
    serve_signals_follow();
    return serve_status("kvdir", rc, &err);
}
