/* SPDX-License-Identifier: BSD-3-Clause
 *
 * cmd_bench.c - kvfs bench: how fast is this volume, on this medium.
 *
 * The evaluation's base point (4 KiB at random places, 4 threads, a flush every 64) and its
 * neighbours, one axis at a time, through libkvfs, by the code of the evaluation (bench/load).
 *
 * The scratch file loses its name as soon as it is open: whatever ends the command, nothing stays
 * but an orphan, which the volume itself reclaims.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <drain.h>
#include <run.h>
#include <store_kvfs.h>

#include "cli.h"

#define BENCH_BLOCK        4096u
#define BENCH_LARGE        65536u
#define BENCH_SIZE         ((uint64_t)64 << 20)
#define BENCH_SIZE_MIN     ((uint64_t)1 << 20)
#define BENCH_SECONDS      1.0
#define BENCH_SECONDS_MIN  0.05
#define BENCH_SECONDS_MAX  3600.0
#define BENCH_WARMUP       0.1 /* of the seconds */
#define BENCH_ROOM         3   /* times the size: data, copies of an overwrite, index */
#define BENCH_WORK_STEPS   64u

static const struct bench_cell {
    const char *name, *about;
    enum load_op op;
    enum load_pattern pattern;
    unsigned threads, flush;
    uint32_t request_bytes;
} bench_cells[] = {
    {"fill", "each block once", LOAD_FILL, LOAD_RANDOM, 4, 64, BENCH_BLOCK},
    {"randwrite", "", LOAD_WRITE, LOAD_RANDOM, 4, 64, BENCH_BLOCK},
    {"randwrite_1thread", "1 thread", LOAD_WRITE, LOAD_RANDOM, 1, 64, BENCH_BLOCK},
    {"randwrite_16threads", "16 threads", LOAD_WRITE, LOAD_RANDOM, 16, 64, BENCH_BLOCK},
    {"randwrite_noflush", "no flush", LOAD_WRITE, LOAD_RANDOM, 4, 0, BENCH_BLOCK},
    {"randwrite_flush1", "each write flushed", LOAD_WRITE, LOAD_RANDOM, 4, 1, BENCH_BLOCK},
    {"randwrite_64k", "64 KiB", LOAD_WRITE, LOAD_RANDOM, 4, 64, BENCH_LARGE},
    {"seqwrite", "sequential", LOAD_WRITE, LOAD_SEQUENTIAL, 4, 64, BENCH_BLOCK},
    {"randread", "", LOAD_READ, LOAD_RANDOM, 4, 0, BENCH_BLOCK},
    {"randread_1thread", "1 thread", LOAD_READ, LOAD_RANDOM, 1, 0, BENCH_BLOCK},
    {"randread_16threads", "16 threads", LOAD_READ, LOAD_RANDOM, 16, 0, BENCH_BLOCK},
    {"randread_64k", "64 KiB", LOAD_READ, LOAD_RANDOM, 4, 0, BENCH_LARGE},
    {"seqread", "sequential", LOAD_READ, LOAD_SEQUENTIAL, 4, 0, BENCH_BLOCK},
};
#define BENCH_CELLS (sizeof(bench_cells) / sizeof(bench_cells[0]))

struct bench {
    struct cli *c;
    struct kvfs_volume *volume;
    struct load_store *store;
    struct load_dataset data;
    double seconds;
    struct cli_progress progress;
    struct json_object *cells; /* with --json */
};

struct bench_found {
    struct load_result result;
    double drain_seconds;
    bool drained;
};

/* --- telling --- */

static const char *
bench_time_text(uint64_t ns, char *buf, size_t cap)
{
    if (ns < 10000)
        (void)snprintf(buf, cap, "%.1f us", (double)ns / 1e3);
    else if (ns < 10000000)
        (void)snprintf(buf, cap, "%.0f us", (double)ns / 1e3);
    else
        (void)snprintf(buf, cap, "%.0f ms", (double)ns / 1e6);
    return buf;
}

static double
bench_rate(const struct bench_found *f)
{
    return (double)f->result.ops / (f->result.seconds + f->drain_seconds);
}

static void
bench_print_head(const struct bench *b)
{
    struct kvfs_volume_info info;
    char size[CLI_SIZE_TEXT];

    kvfs_volume_info(b->volume, &info);
    (void)printf("%s, a file of %s; 4 KiB, 4 threads and a flush every 64 writes, where nothing "
                 "else is said\n%s\n%-20s %-18s %10s %9s %9s %9s %9s %9s\n",
                 info.engine, cli_size_text(b->data.blocks * BENCH_BLOCK, size),
                 info.engine_caps & KVFS_CAP_DURABLE ? "what is flushed outlives a power cut\n"
                                                     : "this engine may lose what is flushed in a "
                                                       "power cut\n",
                 "LOAD", "", "OPS/S", "MIB/S", "P50", "P99", "P99.9", "MAX");
    (void)fflush(stdout);
}

static void
bench_print(const struct bench_cell *cell, const struct bench_found *f)
{
    static const double shares[] = {0.5, 0.99, 0.999, 1};
    double rate = bench_rate(f);
    char text[16];

    (void)printf("%-20s %-18s %10.0f %9.1f", cell->name, cell->about, rate,
                 rate * cell->request_bytes / (1 << 20));
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++)
        (void)printf(" %9s",
                     bench_time_text(histogram_percentile_ns(&f->result.latency, shares[i]), text,
                                     sizeof(text)));
    (void)putchar('\n');
    (void)fflush(stdout);
}

static void
bench_json_double(struct json_object *obj, const char *key, double value)
{
    (void)json_object_object_add(obj, key, json_object_new_double(value));
}

static struct json_object *
bench_json(const struct bench_cell *cell, const struct bench_found *f)
{
    static const char *const patterns[] = {"random", "sequential", "zipfian"};
    static const char *const ops[] = {"fill", "read", "write", "mix"};
    const struct load_result *r = &f->result;
    struct json_object *obj = json_object_new_object(), *ns = json_object_new_object();

    cli_json_text(obj, "name", cell->name);
    cli_json_text(obj, "op", ops[cell->op]);
    cli_json_text(obj, "pattern", patterns[cell->pattern]);
    cli_json_u64(obj, "request_bytes", cell->request_bytes);
    cli_json_u64(obj, "threads", cell->threads);
    cli_json_u64(obj, "flush", cell->flush);
    cli_json_u64(obj, "ops", r->ops);
    cli_json_u64(obj, "flushes", r->flushes);
    bench_json_double(obj, "seconds", r->seconds);
    bench_json_double(obj, "drain_seconds", f->drain_seconds);
    (void)json_object_object_add(obj, "drained", json_object_new_boolean(f->drained));
    bench_json_double(obj, "rate", (double)r->ops / r->seconds);
    bench_json_double(obj, "rate_drained", bench_rate(f));
    cli_json_u64(ns, "p50", histogram_percentile_ns(&r->latency, 0.5));
    cli_json_u64(ns, "p99", histogram_percentile_ns(&r->latency, 0.99));
    cli_json_u64(ns, "p999", histogram_percentile_ns(&r->latency, 0.999));
    cli_json_u64(ns, "max", r->latency.max_ns);
    (void)json_object_object_add(obj, "latency_ns", ns);
    return obj;
}

static void
bench_json_print(struct bench *b)
{
    struct json_object *obj = json_object_new_object();
    struct kvfs_volume_info info;

    kvfs_volume_info(b->volume, &info);
    cli_json_text(obj, "engine", info.engine);
    (void)json_object_object_add(
        obj, "durable", json_object_new_boolean((info.engine_caps & KVFS_CAP_DURABLE) != 0));
    cli_json_u64(obj, "size_bytes", b->data.blocks * BENCH_BLOCK);
    (void)json_object_object_add(obj, "cells", json_object_get(b->cells));
    cli_json_print_take(obj);
}

/* --- measuring --- */

static int
bench_cell_run(struct bench *b, const struct bench_cell *cell, struct bench_found *f)
{
    const struct load_phase phase = {
        .op = cell->op,
        .pattern = cell->pattern,
        .threads = cell->threads,
        .flush = cell->flush,
        .request_bytes = cell->request_bytes,
        .seconds = b->seconds,
        .warmup = b->seconds * BENCH_WARMUP,
        .seed = (uint64_t)(cell - bench_cells),
        .interrupted = cli_interrupted,
    };
    int rc;

    *f = (struct bench_found){.drained = true};
    rc = load_run(&load_layer_kvfs, b->store, &b->data, &phase, NULL, NULL, &f->result, &b->c->err);
    if (rc == 0 && cell->op != LOAD_READ)
        rc = load_drain(&load_layer_kvfs, b->store, NULL, false, cli_interrupted,
                        &f->drain_seconds, &f->drained, &b->c->err);
    return rc;
}

static int
bench_cells_run(struct bench *b)
{
    int rc = 0;

    if (!b->c->o.json)
        bench_print_head(b);
    cli_progress_start(&b->progress, b->c, "bench", BENCH_CELLS, false);
    for (size_t i = 0; rc == 0 && i < BENCH_CELLS; i++) {
        struct bench_found f;

        rc = bench_cell_run(b, &bench_cells[i], &f);
        if (rc != 0)
            break;
        if (b->c->o.json) {
            (void)json_object_array_add(b->cells, bench_json(&bench_cells[i], &f));
        } else {
            if (b->progress.drawn)
                (void)fputs("\r\033[K", stderr); /* the bar would share the line */
            bench_print(&bench_cells[i], &f);
        }
        b->data.sparse = false; /* the first fills it */
        cli_progress_update(&b->progress, i + 1, 0);
    }
    cli_progress_end(&b->progress);
    if (rc == 0 && b->c->o.json)
        bench_json_print(b);
    return rc;
}

/* --- the scratch file --- */

static int
bench_room(struct bench *b)
{
    const uint64_t size = b->data.blocks * BENCH_BLOCK;
    char need[CLI_SIZE_TEXT], there[CLI_SIZE_TEXT];
    struct kvfs_volume_stat stat;
    int rc = kvfs_volume_stat(b->volume, &stat, &b->c->err);

    if (rc == 0 && stat.engine.avail_bytes / BENCH_ROOM < size)
        rc = kvfs_error_set(&b->c->err, -ENOSPC, "needs %s of space, there is %s (--size)",
                            cli_size_text(size * BENCH_ROOM, need),
                            cli_size_text(stat.engine.avail_bytes, there));
    return rc;
}

static int
bench_open(struct bench *b)
{
    const struct kvfs_create create = {.mode = S_IFREG | 0600, .uid = geteuid(), .gid = getegid(),
                                       .size_bytes = b->data.blocks * BENCH_BLOCK};
    struct kvfs_error *err = &b->c->err;
    struct kvfs_attr attr;
    char name[32];
    int rc, unlinked;

    (void)snprintf(name, sizeof(name), ".kvfs-bench-%ld", (long)getpid());
    rc = kvfs_create(b->volume, KVFS_ROOT_INO, name, &create, &attr, err);
    if (rc != 0)
        return cli_about(err, rc, name);
    rc = load_kvfs_attach(b->volume, attr.ino, &b->data, &b->store, err);
    unlinked = kvfs_unlink(b->volume, KVFS_ROOT_INO, name, rc == 0 ? err : NULL);
    return rc == 0 ? unlinked : rc;
}

/* The orphan goes, with all its blocks, also where the command was interrupted. */
static int
bench_close(struct bench *b)
{
    struct kvfs_error err = {.code = 0};
    int rc = 0;

    if (b->store != NULL)
        rc = load_layer_kvfs.close(b->store, &err);
    while (rc == 0 && (rc = kvfs_volume_work(b->volume, BENCH_WORK_STEPS, &err)) > 0)
        rc = 0;
    if (rc == 0)
        rc = kvfs_volume_sync(b->volume, &err);
    if (rc != 0)
        b->c->err = err;
    return rc;
}

static int
bench_options(struct bench *b)
{
    uint64_t size = BENCH_SIZE;
    struct cli *c = b->c;

    if (c->o.size != NULL && cli_size_any(c, "--size", c->o.size, &size) != CLI_OK)
        return CLI_USAGE;
    if (size < BENCH_SIZE_MIN || size % BENCH_LARGE != 0 ||
        size > KVFS_FILE_SIZE_MAX / BENCH_ROOM) {
        (void)cli_error(c, "--size: '%s' is not 1M or more and a multiple of 64K", c->o.size);
        return CLI_USAGE;
    }
    b->seconds = BENCH_SECONDS;
    if (c->o.seconds != NULL) {
        char *end;

        b->seconds = strtod(c->o.seconds, &end);
        if (c->o.seconds[0] < '0' || c->o.seconds[0] > '9' || *end != '\0' ||
            !(b->seconds >= BENCH_SECONDS_MIN && b->seconds <= BENCH_SECONDS_MAX)) {
            (void)cli_error(c, "--seconds: '%s' is not a number from %g to %g", c->o.seconds,
                            BENCH_SECONDS_MIN, BENCH_SECONDS_MAX);
            return CLI_USAGE;
        }
    }
    b->data = (struct load_dataset){
        .blocks = size / BENCH_BLOCK, .block_bytes = BENCH_BLOCK, .sparse = true, .seed = 1};
    return CLI_OK;
}

static int
bench_run(struct cli *c)
{
    struct bench b = {.c = c};
    int status = bench_options(&b), rc, closed;

    if (status != CLI_OK)
        return status;
    cli_signals_catch();
    rc = cli_volume_open(c, c->args[0], false, &b.volume);
    if (rc < 0)
        return cli_fail(c, rc);
    b.cells = json_object_new_array();
    rc = bench_room(&b);
    if (rc == 0)
        rc = bench_open(&b);
    if (rc == 0)
        rc = bench_cells_run(&b);
    status = rc < 0 ? cli_fail(c, rc) : CLI_OK;
    closed = bench_close(&b);
    if (closed < 0 && status == CLI_OK)
        status = cli_fail(c, closed);
    (void)json_object_put(b.cells);
    return cli_volume_close(c, b.volume, status);
}

static const struct cli_option bench_options_table[] = {
    CLI_VALUE(0, "size", "SIZE", size, "size of the scratch file; default: 64M"),
    CLI_VALUE(0, "seconds", "N", seconds, "of each load, 0.05 to 3600; default: 1"),
    CLI_NETWORK,
    CLI_JSON,
    CLI_QUIET,
    CLI_LAST,
};

const struct cli_command cli_bench = {
    "bench",
    "VOLUME",
    "measure how fast a volume is",
    "Reads and writes a scratch file of its own in the volume; nothing else is touched.\n"
    "Rates of writes count the time until all background work is done too.\n",
    bench_options_table,
    1,
    1,
    bench_run,
};
