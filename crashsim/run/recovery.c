/* SPDX-License-Identifier: BSD-3-Clause
 *
 * recovery.c - `crashsim recovery`: how long it takes until a volume serves again after its
 * disk lost power.
 *
 * A cell is an engine, a size and an amount.  Its volume holds one file of that size; a worker overwrites
 * blocks of it without end, flushing now and then, and the power is cut when so much was written
 * since the last flush.  Then the spans of the way back are timed, one after the other, on
 * CLOCK_MONOTONIC:
 *
 *     attach   nbdfuse and a loop device on the disk: what a controller does at power-on
 *     mount    ext4 replays its journal
 *     engine   the engine's open, with its own recovery (a log in front of it included)
 *     kvfs     the rest of kvfs_volume_open(): superblock, counters, threads
 *     read     open the file and read its first block
 *     write    write one block and flush it
 *     verify   kvfs_check(); told apart, and no part of the recovery
 *
 * The cache is cold: whatever was above the filter is gone, and with it every cached page; below
 * the filter lies memory, behind the
 * latency that was asked for.  Two baselines: the same after an end in order (clean), and the
 * mount of the same disk alone, without anything that was not there before kvfs (mount_alone).
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "journal.h"
#include "random.h"
#include "scenario.h"
#include "stack.h"
#include "state.h"
#include "tool.h"

enum span {
    SPAN_ATTACH,
    SPAN_MOUNT,
    SPAN_ENGINE,
    SPAN_KVFS,
    SPAN_READ,
    SPAN_WRITE,
    SPAN_VERIFY,
    SPANS
};
static const char *const span_names[SPANS] = {"attach", "mount", "engine", "kvfs",
                                              "read",   "write", "verify"};
#define SPAN_TOTAL SPANS       /* all but verify */
#define SPAN_ALONE (SPANS + 1) /* attach and mount: what the disk takes without any engine */
#define SPAN_SUMS  (SPANS + 2)

#define CELLS_MAX  64
#define CUTS_MAX   1000
#define CUTS_CLEAN 10
#define VERIFIES   3 /* cuts of a cell that are verified */
#define CHILD_MS   600000
#define PIECE      ((size_t)1 << 20)
#define BLOCK      4096u

struct sample {
    uint64_t ns[SPAN_SUMS];
    bool verified;
};

struct cell {
    char engine[96];
    uint64_t size_bytes, unflushed_bytes;
    struct sample crash[CUTS_MAX], clean[CUTS_CLEAN];
    size_t crashes, cleans;
};

static const char *recovery_engines, *recovery_sizes = "64M",
                  *recovery_unflushed = "4M", *recovery_latency = "nvme", *recovery_tmp;
static uint64_t recovery_cuts = 30, recovery_seed = 1;
static bool recovery_json, recovery_quiet;
static struct cmd_progress recovery_progress;

/* What a child is told, and tells; shared. */
struct shared {
    _Atomic uint64_t unflushed; /* bytes written since the last flush */
    struct sample sample;
    char error[256];
};

struct timing {
    struct place *place;
    struct shared *sh;
    struct cell *cell;
    struct stack stack;
    char volume[PLACE_NAME_MAX + 16];
};

/* --- children --- */

static int
child_open(const struct timing *t, struct kvfs_volume **v, struct kvfs_file **f,
           struct kvfs_error *err)
{
    struct kvfs_attr attr = {0};
    int r = kvfs_volume_open(t->volume, NULL, v, err);

    if (r == 0)
        r = kvfs_lookup(*v, KVFS_ROOT_INO, "data", &attr, err);
    if (r == 0)
        r = kvfs_file_open(*v, attr.ino, KVFS_OPEN_WRITE, f, err);
    return r;
}

static void
child_fill(uint64_t *seed, uint8_t *buf, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        uint64_t word = crashsim_random(seed);

        memcpy(buf + i, &word, 8);
    }
}

/* A volume with a file of the cell's size. */
static int
child_make(const struct timing *t, struct kvfs_error *err)
{
    static uint8_t buf[PIECE];
    struct kvfs_format_options format = {.engine = t->cell->engine};
    struct kvfs_create create = {.mode = S_IFREG | 0600, .size_bytes = t->cell->size_bytes};
    uint64_t seed = recovery_seed;
    struct kvfs_volume *v = NULL;
    struct kvfs_file *f = NULL;
    int r = kvfs_format(t->volume, &format, err);

    if (r == 0)
        r = kvfs_volume_open(t->volume, NULL, &v, err);
    if (r == 0)
        r = kvfs_create(v, KVFS_ROOT_INO, "data", &create, NULL, err);
    if (r < 0)
        return r;
    (void)kvfs_volume_close(v, NULL);
    r = child_open(t, &v, &f, err);
    for (uint64_t at = 0; r == 0 && at < t->cell->size_bytes; at += PIECE) {
        child_fill(&seed, buf, sizeof(buf));
        r = kvfs_file_pwrite(f, buf, sizeof(buf), at, 0, err);
    }
    if (r < 0)
        return r;
    kvfs_file_close(f);
    return kvfs_volume_close(v, err);
}

/* Overwrite, until killed. */
static int
child_work(const struct timing *t, struct kvfs_error *err)
{
    static uint8_t buf[16 * BLOCK];
    uint64_t seed = journal_now(), blocks = t->cell->size_bytes / BLOCK - 16, written = 0;
    struct kvfs_volume *v = NULL;
    struct kvfs_file *f = NULL;
    int r = child_open(t, &v, &f, err);

    for (uint64_t i = 0; r == 0; i++) {
        size_t count = (1 + crashsim_random(&seed) % 16) * BLOCK;

        child_fill(&seed, buf, count);
        r = kvfs_file_pwrite(f, buf, count, crashsim_random(&seed) % blocks * BLOCK, 0, err);
        written += count;
        /* Flushed often to begin with, so that engines have logs to recover; never again then. */
        if (r == 0 && written < t->cell->unflushed_bytes && i % 16 == 15)
            r = kvfs_file_flush(f, err);
        else if (written >= t->cell->unflushed_bytes)
            atomic_fetch_add(&t->sh->unflushed, count);
    }
    return r;
}

static int
child_time(const struct timing *t, bool verify, struct kvfs_error *err)
{
    struct sample *s = &t->sh->sample;
    struct kvfs_check_options check = {0};
    struct kvfs_check_result result;
    static uint8_t buf[BLOCK];
    struct kvfs_volume_info info;
    uint64_t begin = journal_now(), now;
    struct kvfs_volume *v = NULL;
    struct kvfs_attr attr = {0};
    struct kvfs_file *f = NULL;
    int r = kvfs_volume_open(t->volume, NULL, &v, err);

    if (r < 0)
        return r;
    now = journal_now();
    kvfs_volume_info(v, &info);
    s->ns[SPAN_ENGINE] = info.open_engine_ns;
    s->ns[SPAN_KVFS] = now - begin - info.open_engine_ns;
    begin = now;
    r = kvfs_lookup(v, KVFS_ROOT_INO, "data", &attr, err);
    if (r == 0)
        r = kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, &f, err);
    if (r == 0)
        r = kvfs_file_pread(f, buf, sizeof(buf), 0, err);
    s->ns[SPAN_READ] = (now = journal_now()) - begin;
    begin = now;
    if (r == 0)
        r = kvfs_file_pwrite(f, buf, sizeof(buf), t->cell->size_bytes / 2, 0, err);
    if (r == 0)
        r = kvfs_file_flush(f, err);
    s->ns[SPAN_WRITE] = journal_now() - begin;
    if (r < 0)
        return r;
    kvfs_file_close(f);
    r = kvfs_volume_close(v, err);
    if (r < 0 || !verify)
        return r;
    begin = journal_now();
    r = kvfs_check(t->volume, &check, &result, err);
    s->ns[SPAN_VERIFY] = journal_now() - begin;
    s->verified = true;
    return r < 0 || result.findings == 0 ? r : kvfs_error_set(err, -EIO, "kvfs check finds damage");
}

enum child {
    CHILD_MAKE,
    CHILD_WORK,
    CHILD_TIME,
    CHILD_VERIFY
};

static pid_t
child_begin(struct timing *t, enum child what)
{
    pid_t self = getpid(), pid;

    t->sh->error[0] = '\0';
    atomic_store(&t->sh->unflushed, 0);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        struct kvfs_error err = {0};
        int r = -ECANCELED;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        tool_quiet(t->place);
        if (getppid() == self)
            r = what == CHILD_MAKE   ? child_make(t, &err)
                : what == CHILD_WORK ? child_work(t, &err)
                                     : child_time(t, what == CHILD_VERIFY, &err);
        if (r < 0)
            (void)snprintf(t->sh->error, sizeof(t->sh->error), "%s", err.msg);
        _exit(r < 0);
    }
    return pid;
}

static int
child_run(struct timing *t, enum child what, struct kvfs_error *err)
{
    int status;

    (void)tool_wait(child_begin(t, what), CHILD_MS, &status);
    return status == 0 ? 0
                       : kvfs_error_set(err, -EIO, "%s: %s (status 0x%x)", t->cell->engine,
                                        t->sh->error, (unsigned)status);
}

/* --- one disk --- */

static int
timing_make(struct timing *t, const char *file, struct kvfs_error *err)
{
    char mnt[PLACE_NAME_MAX];
    struct loop loop = {.fd = -1};
    int r = disks_make(t->place, file, t->cell->size_bytes * 3 + ((uint64_t)512 << 20), err);

    (void)place_name(t->place, "make.mnt", mnt);
    (void)snprintf(t->volume, sizeof(t->volume), "%s/" STATE_VOLUME, mnt);
    if (r == 0 && mkdir(mnt, 0700) < 0 && errno != EEXIST)
        r = kvfs_error_set(err, -errno, "%s: %s", mnt, strerrordesc_np(errno));
    if (r == 0)
        r = loop_attach(file, &loop, err);
    if (r == 0)
        r = disks_mount(t->place, &loop, mnt, NULL, err);
    if (r == 0) {
        r = child_run(t, CHILD_MAKE, err);
        disks_umount(mnt);
    }
    loop_detach(&loop);
    return r;
}

/* The way back, timed; everything is attached in the end. */
static int
timing_back(struct timing *t, bool verify, struct sample *s, struct kvfs_error *err)
{
    uint64_t begin = journal_now(), now;
    int r;

    memset(&t->sh->sample, 0, sizeof(t->sh->sample));
    r = stack_attach(&t->stack, err);
    now = journal_now();
    if (r < 0)
        return r;
    t->sh->sample.ns[SPAN_ATTACH] = now - begin;
    r = stack_mount(&t->stack, err);
    t->sh->sample.ns[SPAN_MOUNT] = journal_now() - now;
    (void)snprintf(t->volume, sizeof(t->volume), "%s/" STATE_VOLUME, t->stack.mnt);
    if (r == 0)
        r = child_run(t, verify ? CHILD_VERIFY : CHILD_TIME, err);
    *s = t->sh->sample;
    for (int i = 0; i < SPAN_VERIFY; i++)
        s->ns[SPAN_TOTAL] += s->ns[i];
    s->ns[SPAN_ALONE] = s->ns[SPAN_ATTACH] + s->ns[SPAN_MOUNT];
    return r;
}

/* Work until enough is unflushed, and cut. */
static int
timing_cut(struct timing *t, uint64_t seed, struct kvfs_error *err)
{
    char command[64];
    pid_t pid = child_begin(t, CHILD_WORK);
    uint64_t end = journal_now() + (uint64_t)CHILD_MS * 1000000u;
    struct timespec nap = {.tv_nsec = 500000};
    int status, r;

    /* There is no event to wait for: how much lies in memory is what a moment is chosen by. */
    while (atomic_load(&t->sh->unflushed) < t->cell->unflushed_bytes && journal_now() < end &&
           t->sh->error[0] == '\0' && !cmd_interrupted())
        (void)nanosleep(&nap, NULL);
    (void)snprintf(command, sizeof(command), "cut seed=%" PRIu64, seed);
    r = stack_tell(&t->stack, command, NULL, 0, err);
    if (t->sh->error[0] != '\0' && atomic_load(&t->sh->unflushed) == 0)
        r = kvfs_error_set(err, -EIO, "%s: %s", t->cell->engine, t->sh->error);
    status = tool_end(pid, SIGKILL);
    stack_detach(&t->stack);
    (void)status;
    return r < 0 ? r : stack_tell(&t->stack, "power-on", NULL, 0, err);
}

static int
timing_cell(struct timing *t, const char *file, struct kvfs_error *err)
{
    struct cell *c = t->cell;
    struct sample s;
    int r = timing_make(t, file, err);

    if (r == 0)
        r = stack_start(&t->stack, t->place, "rec", file, recovery_latency, err);
    if (r < 0)
        return r;
    for (uint64_t i = 0; r == 0 && i < CUTS_CLEAN && !cmd_interrupted(); i++) {
        r = timing_back(t, false, &c->clean[i], err);
        stack_detach(&t->stack);
        c->cleans += r == 0;
    }
    if (r == 0)
        r = timing_back(t, false, &s, err);
    for (uint64_t i = 0; r == 0 && i < recovery_cuts && i < CUTS_MAX && !cmd_interrupted(); i++) {
        cmd_progress_show(&recovery_progress, "%s, %" PRIu64 " MiB: cut %" PRIu64 " of %" PRIu64,
                          c->engine, c->size_bytes >> 20, i + 1, recovery_cuts);
        r = timing_cut(t, crashsim_hash2(recovery_seed, i), err);
        if (r == 0)
            r = timing_back(t, i < VERIFIES, &c->crash[i], err);
        c->crashes += r == 0;
    }
    stack_stop(&t->stack);
    return r;
}

/* --- telling --- */

static int
sample_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

struct summary {
    double median, p95, max; /* milliseconds */
};

static struct summary
sample_summary(const struct sample *s, size_t count, int span)
{
    uint64_t v[CUTS_MAX];
    size_t n = 0, median, p95;

    for (size_t i = 0; i < count; i++) {
        if (span != SPAN_VERIFY || s[i].verified)
            v[n++] = s[i].ns[span];
    }
    if (n == 0)
        return (struct summary){0};
    qsort(v, n, sizeof(v[0]), sample_compare);
    median = n / 2;
    p95 = (n * 95 + 99) / 100 - 1;
    return (struct summary){.median = (double)v[median] / 1e6,
                            .p95 = (double)v[p95] / 1e6,
                            .max = (double)v[n - 1] / 1e6};
}

static const char *
span_name(int span)
{
    return span == SPAN_TOTAL ? "total" : span == SPAN_ALONE ? "mount_alone" : span_names[span];
}

/* As "64 MiB, 4096 KiB unflushed". */
static const char *
cell_text(const struct cell *c, char buf[64])
{
    bool small = c->unflushed_bytes % 1024 != 0;

    (void)snprintf(buf, 64, "%" PRIu64 " MiB, %" PRIu64 " %s unflushed", c->size_bytes >> 20,
                   small ? c->unflushed_bytes : c->unflushed_bytes >> 10, small ? "bytes" : "KiB");
    return buf;
}

static void
recovery_print(const struct cell *c)
{
    char text[64];

    (void)printf("%s, %s, %zu cuts (milliseconds)\n  %-11s %9s %9s %9s   %9s\n", c->engine,
                 cell_text(c, text), c->crashes, "span", "median", "p95", "max", "clean");
    for (int i = 0; i < SPAN_SUMS; i++) {
        struct summary crash = sample_summary(c->crash, c->crashes, i);
        struct summary clean = sample_summary(c->clean, c->cleans, i);

        (void)printf("  %-11s %9.2f %9.2f %9.2f", span_name(i), crash.median, crash.p95, crash.max);
        if (i != SPAN_VERIFY)
            (void)printf("   %9.2f", clean.median);
        (void)putchar('\n');
    }
    (void)fflush(stdout);
}

/* Of engine and kvfs together: what is before it is the same for all. */
static double
recovery_open_ms(const struct cell *c)
{
    return sample_summary(c->crash, c->crashes, SPAN_ENGINE).median +
           sample_summary(c->crash, c->crashes, SPAN_KVFS).median;
}

/* The pair of which the study says that one recovers in half the time. */
static const char *
recovery_is_study(const struct cell *a, const struct cell *b)
{
    return (strcmp(a->engine, "jammdb") == 0 && strcmp(b->engine, "sled") == 0) ||
                   (strcmp(a->engine, "sled") == 0 && strcmp(b->engine, "jammdb") == 0)
               ? "  (the study: twice as fast)"
               : "";
}

static void
recovery_ratios(const struct cell *cells, size_t count, struct json_object *list)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = i + 1; k < count; k++) {
            double a = recovery_open_ms(&cells[i]), b = recovery_open_ms(&cells[k]);
            double ta = sample_summary(cells[i].crash, cells[i].crashes, SPAN_TOTAL).median;
            double tb = sample_summary(cells[k].crash, cells[k].crashes, SPAN_TOTAL).median;

            if (cells[i].size_bytes != cells[k].size_bytes ||
                cells[i].unflushed_bytes != cells[k].unflushed_bytes || a == 0 || b == 0)
                continue;
            if (list != NULL) {
                struct json_object *o = json_object_new_object();

                cmd_json_text(o, "engine", cells[i].engine);
                cmd_json_text(o, "to", cells[k].engine);
                cmd_json_u64(o, "size", cells[i].size_bytes);
                cmd_json_u64(o, "unflushed", cells[i].unflushed_bytes);
                (void)json_object_object_add(o, "open", json_object_new_double(a / b));
                (void)json_object_object_add(o, "total", json_object_new_double(ta / tb));
                (void)json_object_array_add(list, o);
            } else {
                char text[64];

                (void)printf("%s: %s : %s is %.2f to open, %.2f in all%s\n",
                             cell_text(&cells[i], text), cells[i].engine, cells[k].engine, a / b,
                             ta / tb, recovery_is_study(&cells[i], &cells[k]));
            }
        }
    }
}

static struct json_object *
recovery_object(const struct sample *s, size_t count)
{
    struct json_object *o = json_object_new_object();

    for (int i = 0; i < SPAN_SUMS; i++) {
        struct summary sum = sample_summary(s, count, i);
        struct json_object *one = json_object_new_object(), *raw = json_object_new_array();

        (void)json_object_object_add(one, "median_ms", json_object_new_double(sum.median));
        (void)json_object_object_add(one, "p95_ms", json_object_new_double(sum.p95));
        (void)json_object_object_add(one, "max_ms", json_object_new_double(sum.max));
        for (size_t k = 0; k < count; k++) {
            if (i != SPAN_VERIFY || s[k].verified)
                (void)json_object_array_add(raw, json_object_new_double((double)s[k].ns[i] / 1e6));
        }
        (void)json_object_object_add(one, "raw_ms", raw);
        (void)json_object_object_add(o, span_name(i), one);
    }
    return o;
}

static void
recovery_print_json(const struct cell *cells, size_t count)
{
    struct json_object *all = json_object_new_object(), *list = json_object_new_array();
    struct json_object *ratios = json_object_new_array();

    for (size_t i = 0; i < count; i++) {
        struct json_object *o = json_object_new_object();

        cmd_json_text(o, "engine", cells[i].engine);
        cmd_json_u64(o, "size", cells[i].size_bytes);
        cmd_json_u64(o, "unflushed", cells[i].unflushed_bytes);
        cmd_json_u64(o, "cuts", cells[i].crashes);
        (void)json_object_object_add(o, "crash", recovery_object(cells[i].crash, cells[i].crashes));
        (void)json_object_object_add(o, "clean", recovery_object(cells[i].clean, cells[i].cleans));
        (void)json_object_array_add(list, o);
    }
    recovery_ratios(cells, count, ratios);
    cmd_json_text(all, "latency", recovery_latency);
    cmd_json_u64(all, "seed", recovery_seed);
    (void)json_object_object_add(all, "cells", list);
    (void)json_object_object_add(all, "ratios", ratios);
    cmd_json_print_take(all);
}

/* --- running --- */

static bool
recovery_size(const char *text, size_t len, uint64_t *bytes)
{
    char digits[32];
    unsigned shift = 0;

    if (len == 0 || len >= sizeof(digits))
        return false;
    memcpy(digits, text, len);
    digits[len] = '\0';
    if (strchr("KMG", digits[len - 1]) != NULL) {
        shift = digits[len - 1] == 'K' ? 10 : digits[len - 1] == 'M' ? 20 : 30;
        digits[len - 1] = '\0';
    }
    if (!crashsim_parse_number(digits, bytes) || *bytes > (uint64_t)1 << 40)
        return false;
    *bytes <<= shift;
    return true;
}

/* The cells of one size and amount, an engine each, behind the N there are. */
static bool
recovery_cells_of(struct cell *cells, size_t *n, uint64_t size_bytes, uint64_t unflushed_bytes)
{
    size_t len;

    for (const char *e = recovery_engines; *e != '\0'; e += len + (e[len] == ',')) {
        const struct kvfs_engine *engine;
        struct kvfs_error err = {0};
        struct cell *c = &cells[*n];

        if (*n == CELLS_MAX)
            return cmd_error("more than %d cells", CELLS_MAX) == CMD_OK;
        len = strcspn(e, ",");
        (void)snprintf(c->engine, sizeof(c->engine), "%.*s", (int)len, e);
        c->size_bytes = size_bytes;
        c->unflushed_bytes = unflushed_bytes;
        if (kvfs_engine_find(c->engine, &engine, &err) < 0)
            return cmd_error("%s", err.msg) == CMD_OK;
        if ((engine->caps & KVFS_CAP_PERSISTENT) == 0)
            return cmd_error("%s keeps nothing", c->engine) == CMD_OK;
        (*n)++;
    }
    return true;
}

/* The cells, by engines within amounts within sizes; 0: bad input, said. */
static size_t
recovery_cells(struct cell *cells)
{
    size_t n = 0, slen, ulen;
    uint64_t size, unflushed;

    for (const char *s = recovery_sizes; *s != '\0'; s += slen + (s[slen] == ',')) {
        slen = strcspn(s, ",");
        if (!recovery_size(s, slen, &size) || size < PIECE || size % PIECE != 0 ||
            size > (uint64_t)64 << 30) {
            (void)cmd_error("--sizes=%s: sizes of 1M to 64G with commas between", recovery_sizes);
            return 0;
        }
        for (const char *u = recovery_unflushed; *u != '\0'; u += ulen + (u[ulen] == ',')) {
            ulen = strcspn(u, ",");
            if (!recovery_size(u, ulen, &unflushed) || unflushed > (uint64_t)1 << 30) {
                (void)cmd_error("--unflushed=%s: sizes up to 1G with commas between",
                                recovery_unflushed);
                return 0;
            }
            if (!recovery_cells_of(cells, &n, size, unflushed))
                return 0;
        }
    }
    return n;
}

/* What there is of the usual ones. */
static const char *
recovery_usual(char *buf, size_t cap)
{
    static const char *const names[] = {"lmdb", "sqlite", "rocksdb", "jammdb", "sled", "log:lmdb"};
    const struct kvfs_engine *e;
    size_t n = 0;

    *buf = '\0';
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (kvfs_engine_find(names[i], &e, NULL) == 0)
            n += (size_t)snprintf(buf + n, cap - n, "%s%s", n > 0 ? "," : "", names[i]);
    }
    return buf;
}

static int
recovery_all(struct place *place, struct cell *cells, size_t count)
{
    struct timing t = {.place = place};
    char file[PLACE_NAME_MAX];
    int status = CMD_OK;

    t.sh = mmap(NULL, sizeof(*t.sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (t.sh == MAP_FAILED)
        return cmd_error("no memory");
    (void)place_name(place, "disk.img", file);
    for (size_t i = 0; i < count && !cmd_interrupted() && status == CMD_OK; i++) {
        struct kvfs_error err = {0};

        t.cell = &cells[i];
        if (timing_cell(&t, file, &err) < 0) {
            stack_stop(&t.stack);
            cmd_progress_end(&recovery_progress);
            status = cmd_error("%s", err.msg);
        }
        (void)unlink(file);
        cmd_progress_end(&recovery_progress);
        if (status == CMD_OK && !recovery_json)
            recovery_print(&cells[i]);
    }
    (void)munmap(t.sh, sizeof(*t.sh));
    return status;
}

static int
recovery_run(int argc, char **argv)
{
    static const char *const tools[] = {"mkfs.ext4", "e2fsck", "nbdkit", "nbdfuse", NULL};
    struct cell *cells = calloc(CELLS_MAX, sizeof(*cells));
    char usual[128];
    struct kvfs_error err = {0};
    struct place place;
    size_t count;
    int status = CMD_USAGE;

    (void)argc;
    (void)argv;
    if (cells == NULL)
        return cmd_error("no memory");
    if (recovery_engines == NULL)
        recovery_engines = recovery_usual(usual, sizeof(usual));
    count = recovery_cells(cells);
    if (count > 0 && (recovery_cuts == 0 || recovery_cuts > CUTS_MAX))
        (void)cmd_error("--cuts takes a number from 1 to %d", CUTS_MAX);
    else if (count > 0 && geteuid() != 0) {
        (void)cmd_error("mounting needs root");
        status = CMD_NEEDS_ROOT;
    } else if (count > 0 && (tool_look(tools, &err) < 0 || place_make(&place, recovery_tmp, &err) < 0)) {
        (void)cmd_error("%s", err.msg);
    } else if (count > 0) {
        cmd_signals_catch();
        cmd_progress_start(&recovery_progress, recovery_quiet);
        status = recovery_all(&place, cells, count);
        place_remove(&place);
        if (status == CMD_OK && recovery_json)
            recovery_print_json(cells, count);
        else if (status == CMD_OK)
            recovery_ratios(cells, count, NULL);
    }
    free(cells);
    return status;
}

static const struct cmd_option recovery_options[] = {
    {"engines", CMD_TEXT, 0, "A,B", "engines to time (those of lmdb,sqlite,rocksdb,jammdb,sled,log:lmdb)",
     &recovery_engines},
    {"sizes", CMD_TEXT, 0, "A,B", "sizes of the volume's file (64M)", &recovery_sizes},
    {"cuts", CMD_NUMBER, 0, "N", "of each engine and size (30)", &recovery_cuts},
    {"unflushed", CMD_TEXT, 0, "A,B", "written since the last flush when the power is cut (4M)",
     &recovery_unflushed},
    {"latency", CMD_TEXT, 0, "PRESET", "of the disk: sd, usb-ssd, nvme, none, R,W,F in us (nvme)",
     &recovery_latency},
    {"seed", CMD_NUMBER, 0, "N", "of what survives (1)", &recovery_seed},
    {"tmp", CMD_TEXT, 0, "FOLDER", "for the disk (/dev/shm)", &recovery_tmp},
    {"json", CMD_SWITCH, 0, NULL, "print JSON", &recovery_json},
    {"quiet", CMD_SWITCH, 'q', NULL, "no progress", &recovery_quiet},
    {NULL, CMD_SWITCH, 0, NULL, NULL, NULL},
};

const struct cmd cmd_recovery = {
    .name = "recovery",
    .synopsis = "",
    .summary = "Time the way back after a power cut, span by span",
    .options = recovery_options,
    .run = recovery_run,
};
