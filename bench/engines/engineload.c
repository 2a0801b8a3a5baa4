/* SPDX-License-Identifier: BSD-3-Clause
 *
 * engineload: a random fill, overwrites and reads of an engine, or of its library
 * driven directly.
 *
 *     engineload --store=contract --engine=lmdb --dir=EMPTY-FOLDER [OPTION...]
 *     engineload --store=direct:sqlite --dir=EMPTY-FOLDER [--variant=WORDS] [OPTION...]
 *
 * Three phases on one store, each with the same number of blocks of 4 KiB (and 24
 * bytes, as kvfs's trailer): every block once in random order; every block once
 * more in another; then reads in a third.  Writes come in durable batches of
 * sorted blocks.  Threads share the store and split the sequence.  Bytes cannot be
 * compressed.  Reads begin with a warm cache and each is one snapshot.
 *
 * A line of NAME=VALUE words for each phase: blocks, seconds, rate (blocks a
 * second), written (bytes that the block device was given until all was down,
 * whoever wrote them: have the machine to yourself; 0 without a block device),
 * own (largest anonymous memory, bytes); and one at the end: close_s, allocated
 * (bytes of the folder's files).
 *
 * /proc/self/io would know this process alone, but counts a whole large folio
 * for each page of it that gets dirty (Linux 6.1 and later: forty times too much).
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "store.h"

#define THREADS_MAX     256u
#define BATCH_MAX       4096u
#define WATCH_PERIOD_NS 10000000L

static const struct bench_store *const load_stores[] = {
    &bench_contract,
#ifdef BENCH_LMDB
    &bench_direct_lmdb,
#endif
#ifdef BENCH_SQLITE
    &bench_direct_sqlite,
#endif
#ifdef BENCH_ROCKSDB
    &bench_direct_rocksdb,
#endif
};

struct load {
    const struct bench_store *store;
    const char *engine, *variant, *folder;
    uint32_t blocks, batch, threads;
    uint64_t seed;
    uint32_t *order;
    bool reading;
    uint64_t version; /* of the blocks' bytes */
    atomic_uint next; /* of order */
};

void
bench_die(const char *format, ...)
{
    va_list args;

    (void)fputs("engineload: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

static double
load_now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* SplitMix64: good enough that nothing shrinks it, and quick. */
static uint64_t
load_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- the sequence --- */

static void
load_shuffle(struct load *l)
{
    uint64_t state = l->seed * 3 + l->version;

    for (uint32_t i = 0; i < l->blocks; i++) {
        uint32_t j = (uint32_t)(load_random(&state) % (i + 1));

        l->order[i] = l->order[j];
        l->order[j] = i;
    }
}

static int
load_index_cmp(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void
load_key(struct bench_block *b, uint32_t index)
{
    memset(b->key, 0, BENCH_KEY);
    b->key[7] = 1;
    for (int i = 0; i < 4; i++)
        b->key[BENCH_KEY - 1 - i] = (uint8_t)(index >> 8 * i);
}

static void
load_value(struct bench_block *b, uint32_t index, uint64_t version)
{
    uint64_t state = version << 32 | index;

    for (size_t at = 0; at < BENCH_VALUE; at += sizeof(uint64_t)) {
        uint64_t word = load_random(&state);

        memcpy(b->value + at, &word, sizeof(word));
    }
}

static void
load_write(struct load *l, struct bench_block *blocks, uint32_t first, uint32_t count)
{
    uint32_t index[BATCH_MAX];

    memcpy(index, l->order + first, count * sizeof(*index));
    qsort(index, count, sizeof(*index), load_index_cmp);
    for (uint32_t i = 0; i < count; i++) {
        load_key(&blocks[i], index[i]);
        load_value(&blocks[i], index[i], l->version);
    }
    l->store->put(blocks, count);
}

static void
load_read(struct load *l, struct bench_block *got, uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        uint64_t state = (l->version - 1) << 32 | l->order[i], word;

        load_key(got, l->order[i]);
        l->store->get(got);
        word = load_random(&state);
        if (memcmp(got->value, &word, sizeof(word)) != 0)
            bench_die("block %" PRIu32 " holds other bytes than were written", l->order[i]);
    }
}

static void *
load_thread(void *arg)
{
    struct load *l = arg;
    struct bench_block *blocks = malloc(l->batch * sizeof(*blocks));
    uint32_t first;

    if (blocks == NULL)
        bench_die("no memory");
    while ((first = atomic_fetch_add(&l->next, l->batch)) < l->blocks) {
        uint32_t count = l->blocks - first < l->batch ? l->blocks - first : l->batch;

        if (l->reading)
            load_read(l, blocks, first, count);
        else
            load_write(l, blocks, first, count);
    }
    free(blocks);
    return NULL;
}

/* --- what it costs --- */

static uint64_t
load_own(void)
{
    static const char name[] = "RssAnon:";
    FILE *f = fopen("/proc/self/status", "re");
    unsigned long long value = 0;
    char line[256];

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, name, sizeof(name) - 1) == 0)
            value = strtoull(line + sizeof(name) - 1, NULL, 10) * 1024;
    if (f != NULL)
        (void)fclose(f);
    return value;
}

/* Bytes that the device below the folder was given so far. */
static uint64_t
load_written(const struct load *l)
{
    unsigned long long sectors = 0;
    char path[64];
    struct stat st;
    FILE *f;
    int fd = open(l->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || syncfs(fd) != 0 || fstat(fd, &st) != 0)
        bench_die("%s: %s", l->folder, strerror(errno)); // NOLINT(concurrency-mt-unsafe): alone
    (void)close(fd);
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat", major(st.st_dev),
                   minor(st.st_dev));
    f = fopen(path, "re");
    if (f == NULL)
        return 0;
    if (fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &sectors) != 1) // NOLINT(cert-err34-c)
        sectors = 0;
    (void)fclose(f);
    return sectors * 512;
}

struct watch {
    pthread_t thread;
    atomic_bool stop;
    uint64_t own_max;
};

static void *
watch_thread(void *arg)
{
    const struct timespec period = {.tv_nsec = WATCH_PERIOD_NS};
    struct watch *w = arg;

    while (!atomic_load(&w->stop)) {
        uint64_t own = load_own();

        if (own > w->own_max)
            w->own_max = own;
        (void)nanosleep(&period, NULL); /* a sampling period */
    }
    return NULL;
}

static void
load_phase(struct load *l, const char *name)
{
    struct watch watch = {.stop = false};
    pthread_t threads[THREADS_MAX];
    uint64_t written;
    double start, seconds;

    l->version++;
    load_shuffle(l);
    atomic_store(&l->next, 0);
    if (pthread_create(&watch.thread, NULL, watch_thread, &watch) != 0)
        bench_die("no thread");
    written = load_written(l);
    start = load_now_s();
    for (uint32_t i = 0; i < l->threads; i++)
        if (pthread_create(&threads[i], NULL, load_thread, l) != 0)
            bench_die("no thread");
    for (uint32_t i = 0; i < l->threads; i++)
        (void)pthread_join(threads[i], NULL);
    seconds = load_now_s() - start;
    written = load_written(l) - written;
    atomic_store(&watch.stop, true);
    (void)pthread_join(watch.thread, NULL);
    (void)printf("phase=%s blocks=%" PRIu32 " seconds=%.3f rate=%.0f written=%" PRIu64
                 " own=%" PRIu64 "\n",
                 name, l->blocks, seconds, (double)l->blocks / seconds, written, watch.own_max);
    (void)fflush(stdout);
}

static uint64_t load_allocated;

static int
load_add_file(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)path;
    (void)ftw;
    if (flag == FTW_F)
        load_allocated += (uint64_t)st->st_blocks * 512;
    return 0;
}

/* --- the command line --- */

static uint32_t
load_number(const char *name, const char *text, uint32_t max)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value < 1 || value > max)
        bench_die("--%s=%s: a number from 1 to %" PRIu32 " is wanted", name, text, max);
    return (uint32_t)value;
}

static const struct bench_store *
load_find(const char *name)
{
    for (size_t i = 0; i < sizeof(load_stores) / sizeof(load_stores[0]); i++)
        if (strcmp(load_stores[i]->name, name) == 0)
            return load_stores[i];
    bench_die("--store=%s: not built in", name);
}

static void
load_options(struct load *l, int argc, char **argv)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'},   {"engine", required_argument, NULL, 'e'},
        {"dir", required_argument, NULL, 'd'},     {"blocks", required_argument, NULL, 'n'},
        {"batch", required_argument, NULL, 'b'},   {"threads", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 'r'},    {"variant", required_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 's': l->store = load_find(optarg); break;
        case 'e': l->engine = optarg; break;
        case 'v': l->variant = optarg; break;
        case 'd': l->folder = optarg; break;
        case 'n': l->blocks = load_number("blocks", optarg, 1u << 28); break;
        case 'b': l->batch = load_number("batch", optarg, BATCH_MAX); break;
        case 't': l->threads = load_number("threads", optarg, THREADS_MAX); break;
        case 'r': l->seed = load_number("seed", optarg, UINT32_MAX); break;
        default: exit(2);
        }
    }
    if (optind != argc || l->store == NULL || l->folder == NULL ||
        (l->engine == NULL) != (l->store != &bench_contract))
        bench_die("usage: engineload --store=contract --engine=NAME | --store=direct:NAME "
                  "[--variant=WORDS] --dir=EMPTY-FOLDER [--blocks=N] [--batch=N] [--threads=N] "
                  "[--seed=N]");
}

int
main(int argc, char **argv)
{
    struct load l = {.blocks = 65536, .batch = 64, .threads = 1, .seed = 1};
    double start;

    load_options(&l, argc, argv);
    l.order = calloc(l.blocks, sizeof(*l.order));
    if (l.order == NULL)
        bench_die("no memory");
    l.store->open(l.folder, l.engine != NULL ? l.engine : l.variant);
    load_phase(&l, "fill");
    load_phase(&l, "overwrite");
    l.reading = true;
    if (l.store->get != NULL)
        load_phase(&l, "read");
    start = load_now_s();
    l.store->close();
    if (nftw(l.folder, load_add_file, 16, FTW_PHYS) != 0)
        bench_die("%s: %s", l.folder, strerror(errno)); // NOLINT(concurrency-mt-unsafe): alone
    (void)printf("phase=end close_s=%.3f allocated=%" PRIu64 "\n", load_now_s() - start,
                 load_allocated);
    free(l.order);
    return 0;
}
