/* SPDX-License-Identifier: BSD-3-Clause
 *
 * logload: durable writes of one block each, and how long each takes.
 *
 *     logload --store=contract --engine=log:lmdb --dir=EMPTY-FOLDER [OPTION...]
 *     logload --store=file --dir=EMPTY-FOLDER [--bytes=N] [--beside=BYTES] [OPTION...]
 *
 * With the contract every write is a batch of one block of 4 KiB (and 24 bytes, as kvfs's
 * trailer) at a random place among --blocks.  With a file it is one pwrite() of --bytes in
 * turn into a preallocated file, and fdatasync(): the least that a durable write can cost
 * here.  --beside: another process meanwhile writes that many bytes a second into a second
 * file, and flushes them in pieces of --piece bytes, as a fold does.
 *
 * One line of NAME=VALUE words: writes, seconds, rate (writes a second), p50_us, p99_us,
 * p999_us, max_us, written (bytes that the block device was given until all was down,
 * whoever wrote them: have the machine to yourself), own (anonymous memory at the end).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../load/store.h"

#define THREADS_MAX    256u
#define LOAD_BLOCK     4096u
#define LOAD_BYTES_MAX ((size_t)3 * LOAD_BLOCK)
#define RING_BYTES     ((uint64_t)16 << 20) /* of the file */

struct load {
    const char *folder, *engine;
    bool file;
    uint32_t threads, blocks, bytes, writes;
    uint64_t beside, piece;
    int fd;
    struct load_store *store;
    atomic_uint next;
    uint32_t *took_ns; /* of each write, at most 4 s */
};

static void __attribute__((noreturn, format(printf, 1, 2)))
load_die(const char *format, ...)
{
    va_list args;

    (void)fputs("logload: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

static uint64_t
load_now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* SplitMix64. */
static uint64_t
load_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- files ------------------------------------------------------------------------------- */

static int
load_file(const struct load *l, const char *name, uint64_t bytes)
{
    char path[4096];
    void *zeros = calloc(1, 1 << 20);
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", l->folder, name);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || zeros == NULL)
        load_die("%s: %s", path, strerror(errno)); // NOLINT(concurrency-mt-unsafe): alone
    for (uint64_t at = 0; at < bytes; at += 1 << 20)
        if (pwrite(fd, zeros, 1 << 20, (off_t)at) != 1 << 20)
            load_die("%s: short write", path);
    if (fsync(fd) != 0)
        load_die("%s: no sync", path);
    free(zeros);
    return fd;
}

/* Write beside, until killed. */
static void
load_beside(const struct load *l)
{
    const uint64_t begun = load_now_ns();
    uint8_t *piece = malloc(l->piece);
    uint64_t done = 0, at = 0, state = 7;
    int fd = load_file(l, "beside", 64 << 20);

    if (piece == NULL)
        load_die("no memory");
    for (uint64_t i = 0; i + 8 <= l->piece; i += 8) {
        uint64_t word = load_random(&state);

        memcpy(piece + i, &word, sizeof(word));
    }
    for (;;) {
        uint64_t due = begun + (uint64_t)((double)done / (double)l->beside * 1e9);
        const struct timespec until = {.tv_sec = (time_t)(due / 1000000000u),
                                       .tv_nsec = (long)(due % 1000000000u)};

        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        if (pwrite(fd, piece, l->piece, (off_t)at) != (ssize_t)l->piece || fdatasync(fd) != 0)
            load_die("writing beside: %s", strerror(errno)); // NOLINT(concurrency-mt-unsafe): alone
        done += l->piece;
        at = (at + l->piece) % ((uint64_t)64 << 20);
    }
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
        load_die("%s: %s", l->folder, strerror(errno)); // NOLINT(concurrency-mt-unsafe): alone
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

/* --- writes ------------------------------------------------------------------------------ */

static void
load_one(const struct load *l, uint8_t *bytes, uint32_t i)
{
    struct kvfs_error err = {.code = 0};
    struct load_piece piece;
    uint64_t state = i, index;

    if (l->file) {
        off_t at = (off_t)((uint64_t)i * l->bytes % RING_BYTES);

        if (pwrite(l->fd, bytes, l->bytes, at) != (ssize_t)l->bytes || fdatasync(l->fd) != 0)
            load_die("writing: %s", strerror(errno)); // NOLINT(concurrency-mt-unsafe): at its end
        return;
    }
    index = load_random(&state) % l->blocks;
    memcpy(bytes, &state, sizeof(state));
    piece = (struct load_piece){.index = index, .count = 1, .bytes = bytes};
    if (load_layer_contract.write(l->store, &piece, 1, true, &err) != 0)
        load_die("%s", err.msg);
}

static void *
load_thread(void *arg)
{
    struct load *l = arg;
    uint8_t *bytes = calloc(1, LOAD_BYTES_MAX);
    uint64_t state = 3;
    uint32_t i;

    if (bytes == NULL)
        load_die("no memory");
    for (size_t at = 0; at < LOAD_BLOCK; at += 8) {
        uint64_t word = load_random(&state);

        memcpy(bytes + at, &word, sizeof(word));
    }
    while ((i = atomic_fetch_add(&l->next, 1)) < l->writes) {
        uint64_t begun = load_now_ns(), took;

        load_one(l, bytes, i);
        took = load_now_ns() - begun;
        l->took_ns[i] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    }
    free(bytes);
    return NULL;
}

static int
load_cmp(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static double
load_us(const struct load *l, double part)
{
    return (double)l->took_ns[(size_t)((double)(l->writes - 1) * part)] / 1000;
}

static void
load_open(struct load *l)
{
    size_t len = strcspn(l->engine, ",");
    char name[128];
    struct load_target target = {.folder = l->folder, .engine = name,
                                 .params = l->engine[len] == ',' ? l->engine + len + 1 : NULL,
                                 .data = {.blocks = l->blocks, .block_bytes = LOAD_BLOCK}};
    struct kvfs_error err = {.code = 0};

    (void)snprintf(name, sizeof(name), "%.*s", (int)len, l->engine);
    if (load_layer_contract.open(&target, true, &l->store, &err) != 0)
        load_die("%s", err.msg);
}

static void
load_run(struct load *l)
{
    pthread_t threads[THREADS_MAX];
    uint64_t written = load_written(l), begun = load_now_ns();
    double seconds;

    for (uint32_t i = 0; i < l->threads; i++)
        if (pthread_create(&threads[i], NULL, load_thread, l) != 0)
            load_die("no thread");
    for (uint32_t i = 0; i < l->threads; i++)
        (void)pthread_join(threads[i], NULL);
    seconds = (double)(load_now_ns() - begun) * 1e-9;
    uint64_t own = load_own();
    if (!l->file)
        (void)load_layer_contract.close(l->store, NULL);
    written = load_written(l) - written;
    qsort(l->took_ns, l->writes, sizeof(*l->took_ns), load_cmp);
    (void)printf("writes=%u seconds=%.3f rate=%.0f p50_us=%.1f p99_us=%.1f p999_us=%.1f "
                 "max_us=%.1f written=%" PRIu64 " own=%" PRIu64 "\n",
                 l->writes, seconds, l->writes / seconds, load_us(l, 0.5), load_us(l, 0.99),
                 load_us(l, 0.999), load_us(l, 1), written, own);
}

/* --- arguments ----------------------------------------------------------------------------- */

static uint64_t
load_number(const char *text, uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || n < least || n > most)
        load_die("'%s': a number from %" PRIu64 " to %" PRIu64, text, least, most);
    return n;
}

static void
load_options(struct load *l, int argc, char **argv)
{
    static const struct option longs[] = {
        {"store", 1, NULL, 's'},  {"engine", 1, NULL, 'e'}, {"dir", 1, NULL, 'd'},
        {"threads", 1, NULL, 't'}, {"blocks", 1, NULL, 'b'}, {"writes", 1, NULL, 'w'},
        {"bytes", 1, NULL, 'y'},  {"beside", 1, NULL, 'B'}, {"piece", 1, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) { // NOLINT(concurrency-mt-unsafe)
        switch (c) {
        case 's': l->file = strcmp(optarg, "file") == 0; break;
        case 'e': l->engine = optarg; break;
        case 'd': l->folder = optarg; break;
        case 't': l->threads = (uint32_t)load_number(optarg, 1, THREADS_MAX); break;
        case 'b': l->blocks = (uint32_t)load_number(optarg, 1, UINT32_MAX); break;
        case 'w': l->writes = (uint32_t)load_number(optarg, 1, 1u << 30); break;
        case 'y': l->bytes = (uint32_t)load_number(optarg, 1, LOAD_BYTES_MAX); break;
        case 'B': l->beside = load_number(optarg, 0, UINT64_MAX); break;
        case 'p': l->piece = load_number(optarg, 512, (uint64_t)64 << 20); break;
        default: exit(2);
        }
    }
    if (l->folder == NULL || optind != argc || (!l->file && l->engine == NULL))
        load_die("--dir=FOLDER and --engine=NAME or --store=file are wanted");
}

int
main(int argc, char **argv)
{
    struct load l = {.threads = 1, .blocks = 65536, .writes = 20000, .bytes = LOAD_BLOCK,
                     .piece = 2 << 20, .fd = -1};
    pid_t child = 0;

    load_options(&l, argc, argv);
    l.took_ns = calloc(l.writes, sizeof(*l.took_ns));
    if (l.took_ns == NULL)
        load_die("no memory");
    if (l.beside > 0 && (child = fork()) == 0)
        load_beside(&l);
    if (child < 0)
        load_die("no process");
    if (l.file)
        l.fd = load_file(&l, "ring", RING_BYTES);
    else
        load_open(&l);
    load_run(&l);
    if (child > 0) {
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
    }
    free(l.took_ns);
    return 0;
}
