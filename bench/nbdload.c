/* SPDX-License-Identifier: BSD-3-Clause
 *
 * nbdload: the loads of bench/nbd.sh whose clock fio cannot stop where it must stop.
 *
 *     nbdload [OPTION...] URI
 *
 * Connections, a fixed number of requests in flight on each, then (for writes) one flush on each.
 * Two times are taken from the same start: until the last request was answered ("acked"), and
 * until the flush was answered ("flushed"); of several connections the longest.
 *
 * With --flush-every=N a flush follows every N-th write, as one of the requests in flight: the
 * writes go on meanwhile.  (fio's --fsync=N sends several flushes in a row where N-th comes at a
 * depth above 1: 551 instead of 20 for 1280 writes at depth 32, fio 3.33.)  Every block written differs from every other and no codec can
 * shrink it, so a server can neither deduplicate nor compress what it is given.
 *
 * Meanwhile a thread looks at the memory of the server (--watch=PID): anonymous and shared pages,
 * which are the server's own, apart from mapped file pages, which the kernel takes back.
 *
 * It prints one line of NAME=VALUE words: ops, bytes, acked_s, flushed_s, and with --watch
 * own_max, own_end, file_max, file_end (bytes; "end" is after the flush).
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libnbd.h>

#define DEPTH_MAX         256u
#define CONNECTIONS_MAX   64u
#define WATCH_INTERVAL_NS 20000000L

struct load;

struct slot { /* one request in flight */
    struct load *load;
    unsigned char *buf;
    bool busy;
};

struct load { /* one connection */
    struct nbd_handle *nbd;
    const char *uri;
    pthread_t thread;
    bool write, random, fua;
    uint64_t block_bytes, size_bytes, ops_max; /* ops_max 0: until the time is over */
    uint64_t flush_every;                      /* 0: never */
    double seconds;
    unsigned depth, bursts, connections;
    uint64_t seed;
    uint32_t *order; /* a permutation of the blocks, or NULL */
    uint64_t blocks;
    struct slot slots[DEPTH_MAX];
    unsigned in_flight;
    int error; /* first errno of a request */

    uint64_t ops; /* results */
    double acked_s, flushed_s;
};

struct watch { /* the server's memory, in bytes */
    long pid;
    atomic_bool stop;
    pthread_t thread;
    uint64_t own_max, own_end, file_max, file_end;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *format, ...)
{
    va_list args;

    (void)fputs("nbdload: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
    exit(1);
}

static double
now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* SplitMix64: good enough that nothing shrinks it, and quick. */
static uint64_t
random_next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* --- memory of the server --- */

static void
watch_look(struct watch *w)
{
    char path[64], line[256];
    uint64_t own = 0, file = 0;
    unsigned long kb;
    FILE *f;

    (void)snprintf(path, sizeof path, "/proc/%ld/status", w->pid);
    f = fopen(path, "re");
    if (f == NULL)
        die("%s: %m", path);
    while (fgets(line, sizeof line, f) != NULL) {
        char *colon = strchr(line, ':');

        if (colon == NULL)
            continue;
        kb = strtoul(colon + 1, NULL, 10);
        if (strncmp(line, "RssAnon:", 8) == 0 || strncmp(line, "RssShmem:", 9) == 0)
            own += kb * 1024u;
        else if (strncmp(line, "RssFile:", 8) == 0)
            file = kb * 1024u;
    }
    (void)fclose(f);
    w->own_end = own;
    w->file_end = file;
    if (own > w->own_max)
        w->own_max = own;
    if (file > w->file_max)
        w->file_max = file;
}

static void *
watch_main(void *arg)
{
    struct watch *w = arg;
    const struct timespec interval = {0, WATCH_INTERVAL_NS};

    while (!atomic_load(&w->stop)) {
        watch_look(w);
        (void)nanosleep(&interval, NULL);
    }
    return NULL;
}

/* --- requests --- */

static int
slot_done(void *arg, int *error)
{
    struct slot *s = arg;

    if (*error != 0 && s->load->error == 0)
        s->load->error = *error;
    s->busy = false;
    s->load->in_flight--;
    return 1; /* retire the command */
}

static void
slot_send(struct load *l, struct slot *s, uint64_t op)
{
    nbd_completion_callback done = {.callback = slot_done, .user_data = s};
    uint64_t index = op % l->blocks, offset;
    int64_t cookie;

    offset = (l->order == NULL ? index : l->order[index]) * l->block_bytes;
    s->busy = true;
    l->in_flight++;
    if (l->write) {
        /* A new stamp in every 512 bytes makes the block differ from all before. */
        for (uint64_t i = 0; i + 512 <= l->block_bytes; i += 512) {
            uint64_t stamp = random_next(&l->seed);

            memcpy(s->buf + i, &stamp, sizeof stamp);
        }
        cookie = nbd_aio_pwrite(l->nbd, s->buf, l->block_bytes, offset, done,
                                l->fua ? LIBNBD_CMD_FLAG_FUA : 0);
    } else {
        cookie = nbd_aio_pread(l->nbd, s->buf, l->block_bytes, offset, done, 0);
    }
    if (cookie < 0)
        die("%s", nbd_get_error());
}

/* A free slot, of which there is one. */
static struct slot *
load_slot(struct load *l)
{
    for (unsigned i = 0; i < l->depth; i++)
        if (!l->slots[i].busy)
            return &l->slots[i];
    die("no slot");
}

static void
slot_flush(struct load *l, struct slot *s)
{
    nbd_completion_callback done = {.callback = slot_done, .user_data = s};

    s->busy = true;
    l->in_flight++;
    if (nbd_aio_flush(l->nbd, done, 0) < 0)
        die("%s", nbd_get_error());
}

static void
load_wait(struct load *l)
{
    if (nbd_poll(l->nbd, -1) < 0)
        die("%s", nbd_get_error());
    if (l->error != 0)
        die("a request failed: %s", strerror(l->error));
}

/* Send as many requests as asked for, and wait for all answers. */
static void
load_run(struct load *l, double deadline)
{
    uint64_t sent = 0, unflushed = 0;

    while (l->ops_max != 0 ? sent < l->ops_max : (sent & 63) != 0 || now_s() < deadline) {
        if (l->flush_every != 0 && unflushed == l->flush_every) {
            slot_flush(l, load_slot(l));
            unflushed = 0;
        } else {
            slot_send(l, load_slot(l), l->ops + sent++);
            unflushed++;
        }
        while (l->in_flight == l->depth)
            load_wait(l);
    }
    while (l->in_flight > 0)
        load_wait(l);
    l->ops += sent;
}

static void
load_order(struct load *l)
{
    l->blocks = l->size_bytes / l->block_bytes;
    if (l->blocks == 0 || l->blocks > UINT32_MAX)
        die("the size must hold 1 to 2^32 - 1 blocks");
    if (!l->random)
        return;
    l->order = calloc(l->blocks, sizeof *l->order);
    if (l->order == NULL)
        die("%m");
    for (uint64_t i = 0; i < l->blocks; i++) { /* Fisher and Yates, inside out */
        uint64_t j = random_next(&l->seed) % (i + 1);

        l->order[i] = l->order[j];
        l->order[j] = (uint32_t)i;
    }
}

static void
load_open(struct load *l)
{
    int64_t size;

    l->nbd = nbd_create();
    if (l->nbd == NULL || nbd_set_uri_allow_local_file(l->nbd, true) < 0 ||
        nbd_connect_uri(l->nbd, l->uri) < 0)
        die("%s", nbd_get_error());
    size = nbd_get_size(l->nbd);
    if (size < 0)
        die("%s", nbd_get_error());
    if (l->size_bytes == 0)
        l->size_bytes = (uint64_t)size;
    if (l->size_bytes > (uint64_t)size)
        die("the disk has %" PRId64 " bytes only", size);
    load_order(l);
    if (l->seconds == 0 && l->ops_max == 0)
        l->ops_max = l->blocks;
    for (unsigned i = 0; i < l->depth; i++) {
        struct slot *s = &l->slots[i];

        s->load = l;
        s->buf = malloc(l->block_bytes);
        if (s->buf == NULL)
            die("%m");
        for (uint64_t at = 0; at + 8 <= l->block_bytes; at += 8) {
            uint64_t word = random_next(&l->seed);

            memcpy(s->buf + at, &word, sizeof word);
        }
    }
}

static void *
load_main(void *arg)
{
    struct load *l = arg;

    for (unsigned i = 0; i < l->bursts; i++) {
        double start = now_s();

        load_run(l, start + l->seconds);
        l->acked_s += now_s() - start;
        if (l->write && nbd_flush(l->nbd, 0) < 0)
            die("%s", nbd_get_error());
        l->flushed_s += now_s() - start;
    }
    return NULL;
}

static void
load_close(struct load *l)
{
    if (nbd_shutdown(l->nbd, 0) < 0)
        die("%s", nbd_get_error());
    nbd_close(l->nbd);
    for (unsigned i = 0; i < l->depth; i++)
        free(l->slots[i].buf);
    free(l->order);
}

/* --- command line --- */

static uint64_t
number(const char *text)
{
    static const char units[] = "KMGT";
    char *end;
    uint64_t n;
    const char *unit;

    errno = 0;
    n = strtoull(text, &end, 10);
    unit = *end == '\0' ? NULL : strchr(units, *end);
    if (errno != 0 || end == text || (*end != '\0' && (unit == NULL || end[1] != '\0')))
        die("not a number: %s", text);
    return unit == NULL ? n : n << (10 * (unit - units + 1));
}

static const struct option options[] = {
    {"write", no_argument, NULL, 'w'},
    {"random", no_argument, NULL, 'r'},
    {"block", required_argument, NULL, 'b'},
    {"depth", required_argument, NULL, 'd'},
    {"size", required_argument, NULL, 's'},
    {"seconds", required_argument, NULL, 't'},
    {"ops", required_argument, NULL, 'n'},
    {"bursts", required_argument, NULL, 'u'},
    {"flush-every", required_argument, NULL, 'f'},
    {"fua", no_argument, NULL, 'a'},
    {"connections", required_argument, NULL, 'c'},
    {"seed", required_argument, NULL, 'e'},
    {"watch", required_argument, NULL, 'p'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

static const char help[] =
    "usage: nbdload [OPTION...] URI\n"
    "  --write        write (else read); ends with a flush\n"
    "  --random       each block once in a random order, then again (else in order)\n"
    "  --block=BYTES  of one request (4K)\n"
    "  --depth=N      requests in flight (32)\n"
    "  --size=BYTES   use that much of the disk (all)\n"
    "  --ops=N        stop after so many requests; default: each block once\n"
    "  --seconds=S    or after that time\n"
    "  --flush-every=N  a flush after every N writes\n"
    "  --fua          every write is flushed before it is answered\n"
    "  --connections=N  each with all of the above (1)\n"
    "  --bursts=N     N times --ops requests and a flush each (1); the times add up\n"
    "  --seed=N       of order and contents (1)\n"
    "  --watch=PID    look at that process's memory meanwhile\n";

static void
options_parse(struct load *l, struct watch *w, int argc, char **argv)
{
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'w':
            l->write = true;
            break;
        case 'r':
            l->random = true;
            break;
        case 'b':
            l->block_bytes = number(optarg);
            break;
        case 'd':
            l->depth = (unsigned)number(optarg);
            break;
        case 's':
            l->size_bytes = number(optarg);
            break;
        case 't':
            l->seconds = strtod(optarg, NULL);
            break;
        case 'n':
            l->ops_max = number(optarg);
            break;
        case 'u':
            l->bursts = (unsigned)number(optarg);
            break;
        case 'f':
            l->flush_every = number(optarg);
            break;
        case 'a':
            l->fua = true;
            break;
        case 'c':
            l->connections = (unsigned)number(optarg);
            break;
        case 'e':
            l->seed = number(optarg);
            break;
        case 'p':
            w->pid = (long)number(optarg);
            break;
        case 'h':
            (void)fputs(help, stdout);
            exit(0);
        default:
            (void)fputs(help, stderr);
            exit(2);
        }
    }
    if (argc - optind != 1 || l->depth == 0 || l->depth > DEPTH_MAX || l->block_bytes == 0 ||
        l->connections == 0 || l->connections > CONNECTIONS_MAX) {
        (void)fputs(help, stderr);
        exit(2);
    }
    l->uri = argv[optind];
}

static void
watch_start(struct watch *w)
{
    if (w->pid != 0 && pthread_create(&w->thread, NULL, watch_main, w) != 0)
        die("no thread");
}

static void
watch_print(struct watch *w)
{
    if (w->pid == 0)
        return;
    atomic_store(&w->stop, true);
    (void)pthread_join(w->thread, NULL);
    watch_look(w);
    (void)printf(" own_max=%" PRIu64 " own_end=%" PRIu64 " file_max=%" PRIu64 " file_end=%" PRIu64,
                 w->own_max, w->own_end, w->file_max, w->file_end);
}

int
main(int argc, char **argv)
{
    struct load model = {
        .block_bytes = 4096, .depth = 32, .bursts = 1, .connections = 1, .seed = 1};
    struct load *loads;
    struct watch w = {0};
    double acked_s = 0, flushed_s = 0;
    uint64_t ops = 0;

    options_parse(&model, &w, argc, argv);
    loads = calloc(model.connections, sizeof *loads);
    if (loads == NULL)
        die("%m");
    for (unsigned i = 0; i < model.connections; i++) {
        loads[i] = model;
        loads[i].seed = model.seed * CONNECTIONS_MAX + i;
        load_open(&loads[i]);
    }
    watch_start(&w);
    for (unsigned i = 0; i < model.connections; i++)
        if (pthread_create(&loads[i].thread, NULL, load_main, &loads[i]) != 0)
            die("no thread");
    for (unsigned i = 0; i < model.connections; i++) {
        (void)pthread_join(loads[i].thread, NULL);
        ops += loads[i].ops;
        acked_s = loads[i].acked_s > acked_s ? loads[i].acked_s : acked_s;
        flushed_s = loads[i].flushed_s > flushed_s ? loads[i].flushed_s : flushed_s;
    }
    (void)printf("ops=%" PRIu64 " bytes=%" PRIu64 " acked_s=%.6f flushed_s=%.6f", ops,
                 ops * model.block_bytes, acked_s, flushed_s);
    watch_print(&w);
    (void)putchar('\n');
    for (unsigned i = 0; i < model.connections; i++)
        load_close(&loads[i]);
    free(loads);
    return 0;
}
