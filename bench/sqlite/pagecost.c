/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagecost.c - what libkvfs and the VFS cost beside the engine alone; for bench/sqlite.sh.
 *
 *   pagecost [--engine=NAME[,PARAMS]] [--seconds=S] [--no-cold] FOLDER
 *
 * SQLite's pages of many small transactions are recorded once (trace.c) and replayed
 *   engine  by the engine's own `apply` and `get`, with the checksum of a block, the copy into
 *           the caller's buffer and one more record a commit, as libkvfs has it
 *   kvfs    by kvfs_txn_* and kvfs_snapshot_*
 *   vfs     by the methods of the VFS `kvfs`
 *   sqlite  by SQLite over that VFS: not the pages, but the statements, on the same rows
 * each on a store of its own with the same pages, one after the other in turns.
 *
 *   commit  a durable commit
 *   read    a read transaction, everything in memory
 *   cold    the same, each page for the first time since the kernel's cache was dropped
 *
 * One line of JSON for each: cell, way, microseconds: the median, of `cold` the mean, since a
 * read from the device brings its neighbours along.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <kvfs/kvfs.h>
#include <sqlite3.h>

#include "kvfs_sqlite.h"
#include "record.h"
#include "trace.h"

#define COST_ROWS    200000u
#define COST_COMMITS 20000u
#define COST_READS   20000u
#define COST_COLD    1500u /* reads at most: each page once is cold */
#define COST_TURNS   6
#define COST_COLD_TURNS 3
#define COST_PAGES   16384u /* at least */
#define COST_FORK    7u
#define COST_WAYS    4 /* the last one has no pages of its own, and is not in `cold` */
#define COST_PAGE_WAYS 3

static char engine_name[128] = "log:lmdb";
static const char *engine_params = "";
static double cost_seconds = 3;
static char cost_dir[COST_WAYS][400];
static struct trace trace;
static uint8_t page[TRACE_PAGE];

struct cost_way {
    const char *name;
    void (*open)(const char *dir);
    void (*close)(void);
    void (*commit)(const uint32_t *pages, size_t count);
    void (*read)(const uint32_t *pages, size_t count);
};

static _Noreturn void
cost_die(const char *what, const char *why)
{
    (void)fprintf(stderr, "pagecost: %s: %s\n", what, why);
    exit(1); // NOLINT(concurrency-mt-unsafe)
}

static double
cost_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void
cost_must(int rc, const struct kvfs_error *err)
{
    if (rc < 0)
        cost_die("kvfs", err->msg);
}

/* --- engine ------------------------------------------------------------------ */

static const struct kvfs_engine *engine;
static struct kvfs_db *engine_db;
static uint64_t engine_cut;

static void
engine_open(const char *dir)
{
    struct kvfs_engine_options options = {.create = true, .params = engine_params};
    struct kvfs_error err = {0};

    (void)mkdir(dir, 0777);
    cost_must(kvfs_engine_find(engine_name, &engine, &err), &err);
    cost_must(engine->open(engine, dir, &options, &engine_db, &err), &err);
}

static void
engine_close(void)
{
    engine->close(engine_db);
}

static void
engine_commit(const uint32_t *pages, size_t count)
{
    struct kvfs_op ops[512];
    uint8_t keys[512][KVFS_DATA_KEY_LEN];
    uint8_t trailers[512][KVFS_TRAILER_LEN];
    struct kvfs_contents_record contents = {.version = engine_cut, .cut = engine_cut};
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    struct kvfs_batch batch = {.ops = ops};
    struct kvfs_error err = {0};
    struct kvfs_key key;

    engine_cut++;
    for (size_t i = 0; i < count; i++) {
        kvfs_key_block(keys[i], COST_FORK, pages[i]);
        kvfs_block_seal(trailers[i], keys[i], page, sizeof(page), engine_cut);
        ops[i] = (struct kvfs_op){.type = KVFS_OP_PUT, .keyspace = KVFS_DATA,
                                  .key = keys[i], .key_len = KVFS_DATA_KEY_LEN,
                                  .value = {{page, sizeof(page)}, {trailers[i], KVFS_TRAILER_LEN}}};
    }
    kvfs_key_contents(&key, 1);
    ops[count] = (struct kvfs_op){.type = KVFS_OP_PUT, .keyspace = KVFS_META, .key = key.bytes,
                                  .key_len = (uint16_t)key.len, .value = {{value, 0}, {NULL, 0}}};
    ops[count].value[0].iov_len = kvfs_contents_encode(&contents, &key, value);
    batch.ops_count = count + 1;
    cost_must(engine->apply(engine_db, &batch, KVFS_DURABLE, &err), &err);
}

static void
engine_read(const uint32_t *pages, size_t count)
{
    uint8_t key[KVFS_DATA_KEY_LEN];
    uint8_t trailer[KVFS_TRAILER_LEN];
    uint8_t again[KVFS_TRAILER_LEN];
    struct iovec iov[2] = {{page, sizeof(page)}, {trailer, sizeof(trailer)}};
    struct kvfs_db_snap *snap;
    struct kvfs_error err = {0};
    struct kvfs_trailer t;
    size_t len;

    cost_must(engine->begin(engine_db, &snap, &err), &err);
    for (size_t i = 0; i < count; i++) {
        kvfs_key_block(key, COST_FORK, pages[i]);
        cost_must(engine->get(snap, KVFS_DATA, key, sizeof(key), 0, iov, 2, &len, &err), &err);
        if (kvfs_trailer_decode(&t, trailer) < 0)
            cost_die("engine", "a trailer is damaged");
        kvfs_block_seal(again, key, page, sizeof(page), t.cut); /* as much work as checking it */
        if (memcmp(again, trailer, sizeof(again)) != 0)
            cost_die("engine", "a block is damaged");
    }
    engine->end(snap);
}

/* --- libkvfs ------------------------------------------------------------------ */

static struct kvfs_volume *volume;
static struct kvfs_file *file;
static uint64_t file_ino;

static void
volume_open(const char *dir)
{
    struct kvfs_format_options format = {.engine = engine_name, .block_size_bytes = TRACE_PAGE};
    struct kvfs_volume_options options = {.engine_params = engine_params};
    struct kvfs_create create = {.mode = S_IFREG | 0644};
    struct kvfs_error err = {0};
    struct kvfs_attr attr;

    if (kvfs_volume_open(dir, &options, &volume, NULL) < 0) {
        cost_must(kvfs_format(dir, &format, &err), &err);
        cost_must(kvfs_volume_open(dir, &options, &volume, &err), &err);
    }
    if (kvfs_lookup(volume, KVFS_ROOT_INO, "f", &attr, NULL) < 0)
        cost_must(kvfs_create(volume, KVFS_ROOT_INO, "f", &create, &attr, &err), &err);
    file_ino = attr.ino;
    cost_must(kvfs_file_open(volume, file_ino, KVFS_OPEN_READ, &file, &err), &err);
}

static void
volume_close(void)
{
    struct kvfs_error err = {0};

    kvfs_file_close(file);
    cost_must(kvfs_volume_close(volume, &err), &err);
}

static void
volume_commit(const uint32_t *pages, size_t count)
{
    struct kvfs_file_info info;
    struct kvfs_error err = {0};
    struct kvfs_txn *txn;

    cost_must(kvfs_file_lock(file, &err), &err);
    kvfs_file_info(file, &info);
    cost_must(kvfs_txn_begin(volume, &txn, &err), &err);
    for (size_t i = 0; i < count; i++)
        cost_must(kvfs_txn_write(txn, file, info.version, page, sizeof(page),
                                 (uint64_t)pages[i] * TRACE_PAGE, &err), &err);
    cost_must(kvfs_txn_commit(txn, KVFS_DURABLE, &err), &err);
    kvfs_file_unlock(file);
}

static void
volume_read(const uint32_t *pages, size_t count)
{
    struct kvfs_snapshot *snap;
    struct kvfs_error err = {0};

    cost_must(kvfs_snapshot_open(volume, &snap, &err), &err);
    for (size_t i = 0; i < count; i++)
        cost_must(kvfs_snapshot_pread(snap, file_ino, page, sizeof(page),
                                      (uint64_t)pages[i] * TRACE_PAGE, &err), &err);
    kvfs_snapshot_close(snap);
}

/* --- the VFS ------------------------------------------------------------------ */

static sqlite3_file *vfs_db;
static const char *vfs_name;

static void
vfs_must(int rc)
{
    if (rc != SQLITE_OK)
        cost_die("vfs", kvfs_sqlite_error());
}

static void
vfs_open(const char *dir)
{
    sqlite3_vfs *vfs = sqlite3_vfs_find("kvfs");
    const char *params[] = {"volume", dir,  "engine",     engine_name,
                            "create", "1",  "block_size", "4096",
                            "engine_params", engine_params};
    int flags = SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    char path[512];

    (void)snprintf(path, sizeof(path), "%s/f", dir);
    vfs_name = sqlite3_create_filename(path, "", "", 5, params);
    vfs_db = calloc(1, (size_t)vfs->szOsFile);
    if (vfs_name == NULL || vfs_db == NULL)
        cost_die("vfs", "no memory");
    vfs_must(vfs->xOpen(vfs, vfs_name, vfs_db, flags, &flags));
}

static void
vfs_close(void)
{
    vfs_must(vfs_db->pMethods->xClose(vfs_db));
    free(vfs_db);
    sqlite3_free_filename(vfs_name);
}

static void
vfs_commit(const uint32_t *pages, size_t count)
{
    const sqlite3_io_methods *m = vfs_db->pMethods;

    vfs_must(m->xLock(vfs_db, SQLITE_LOCK_SHARED));
    vfs_must(m->xLock(vfs_db, SQLITE_LOCK_RESERVED));
    vfs_must(m->xLock(vfs_db, SQLITE_LOCK_EXCLUSIVE));
    for (size_t i = 0; i < count; i++)
        vfs_must(m->xWrite(vfs_db, page, sizeof(page), (sqlite3_int64)pages[i] * TRACE_PAGE));
    vfs_must(m->xFileControl(vfs_db, SQLITE_FCNTL_SYNC, NULL));
    vfs_must(m->xSync(vfs_db, SQLITE_SYNC_NORMAL));
    vfs_must(m->xFileControl(vfs_db, SQLITE_FCNTL_COMMIT_PHASETWO, NULL));
    vfs_must(m->xUnlock(vfs_db, SQLITE_LOCK_SHARED));
    vfs_must(m->xUnlock(vfs_db, SQLITE_LOCK_NONE));
}

static void
vfs_read(const uint32_t *pages, size_t count)
{
    const sqlite3_io_methods *m = vfs_db->pMethods;

    vfs_must(m->xLock(vfs_db, SQLITE_LOCK_SHARED));
    for (size_t i = 0; i < count; i++)
        vfs_must(m->xRead(vfs_db, page, sizeof(page), (sqlite3_int64)pages[i] * TRACE_PAGE));
    vfs_must(m->xUnlock(vfs_db, SQLITE_LOCK_NONE));
}

/* --- SQLite over the VFS --------------------------------------------------------- */

static sqlite3 *sql_db;
static sqlite3_stmt *sql_update, *sql_select;
static size_t sql_updates, sql_selects; /* done: the pages of a step tell no row */

static void
sql_must(int rc)
{
    if (rc != SQLITE_OK)
        cost_die("sqlite", kvfs_sqlite_error()[0] != '\0' ? kvfs_sqlite_error() : sqlite3_errmsg(sql_db));
}

static void
sql_open(const char *dir)
{
    char uri[1024];

    (void)snprintf(uri, sizeof(uri),
                   "file:f?vfs=kvfs&volume=%s&engine=%s&create=1&block_size=4096&engine_params=%s", dir,
                   engine_name, engine_params);
    sql_must(sqlite3_open_v2(uri, &sql_db,
                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, NULL));
    trace_fill(sql_db, COST_ROWS);
    sql_must(sqlite3_prepare_v2(sql_db, TRACE_UPDATE, -1, &sql_update, NULL));
    sql_must(sqlite3_prepare_v2(sql_db, TRACE_SELECT, -1, &sql_select, NULL));
}

static void
sql_close(void)
{
    (void)sqlite3_finalize(sql_update);
    (void)sqlite3_finalize(sql_select);
    sql_must(sqlite3_close(sql_db));
}

static void
sql_commit(const uint32_t *pages, size_t count)
{
    (void)pages;
    (void)count;
    trace_run(sql_db, sql_update, sql_updates++, COST_ROWS);
}

static void
sql_read(const uint32_t *pages, size_t count)
{
    (void)pages;
    (void)count;
    (void)sqlite3_db_release_memory(sql_db); /* as it was recorded */
    trace_run(sql_db, sql_select, sql_selects++, COST_ROWS);
}

/* --- cells ---------------------------------------------------------------------- */

static const struct cost_way ways[COST_WAYS] = {
    {"engine", engine_open, engine_close, engine_commit, engine_read},
    {"kvfs", volume_open, volume_close, volume_commit, volume_read},
    {"vfs", vfs_open, vfs_close, vfs_commit, vfs_read},
    {"sqlite", sql_open, sql_close, sql_commit, sql_read},
};

static int
cost_compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct cost_samples {
    double *us;
    size_t count;
};

static void
cost_print(const char *cell, bool mean, int count, struct cost_samples *s)
{
    for (int w = 0; w < count; w++) {
        double sum = 0;

        for (size_t i = 0; i < s[w].count; i++)
            sum += s[w].us[i];
        qsort(s[w].us, s[w].count, sizeof(double), cost_compare);
        (void)printf("{\"cell\": \"%s\", \"way\": \"%s\", \"us\": %.3f}\n", cell, ways[w].name,
                     mean ? sum / (double)s[w].count : s[w].us[s[w].count / 2]);
        free(s[w].us);
    }
}

static void
cost_samples_new(struct cost_samples *s, int count, size_t cap)
{
    for (int w = 0; w < count; w++) {
        s[w] = (struct cost_samples){.us = calloc(cap, sizeof(double))};
        if (s[w].us == NULL)
            cost_die("calloc", "no memory");
    }
}

/* Replay steps of the trace in turns, the ways side by side. */
static void
cost_cell(const char *cell, const struct trace_step *steps, size_t count,
          void (*const op[COST_WAYS])(const uint32_t *, size_t))
{
    struct cost_samples s[COST_WAYS];
    size_t at[COST_WAYS] = {0};

    cost_samples_new(s, COST_WAYS, count);
    for (int turn = 0; turn < COST_TURNS; turn++) {
        for (int n = 0; n < COST_WAYS; n++) {
            int w = (n + turn) % COST_WAYS;
            double end = cost_now() + cost_seconds * 1e6 / COST_TURNS;

            while (cost_now() < end && at[w] < count) {
                const struct trace_step *step = &steps[at[w]++];
                double before = cost_now();

                op[w](trace.pages + step->first, step->count);
                s[w].us[s[w].count++] = cost_now() - before;
            }
        }
    }
    cost_print(cell, false, COST_WAYS, s);
}

/* Let the kernel forget all files below DIR. */
static void
cost_forget(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        char name[1024];
        int fd;

        (void)snprintf(name, sizeof(name), "%s/%s", dir, e->d_name);
        if (e->d_type == DT_DIR && e->d_name[0] != '.')
            cost_forget(name);
        if (e->d_type != DT_REG || (fd = open(name, O_RDONLY | O_CLOEXEC)) < 0)
            continue;
        (void)fsync(fd);
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        (void)close(fd);
    }
    if (d != NULL)
        (void)closedir(d);
}

static void
cost_cold(void)
{
    uint32_t *order = calloc(trace.pages_max, sizeof(*order));
    size_t count = COST_COLD; /* fewer than there are */
    struct cost_samples s[COST_PAGE_WAYS];

    if (order == NULL)
        cost_die("calloc", "no memory");
    cost_samples_new(s, COST_PAGE_WAYS, COST_COLD_TURNS * count);
    for (uint32_t i = 0; i < trace.pages_max; i++)
        order[i] = i;
    for (uint32_t i = trace.pages_max - 1; i > 0; i--) {
        uint32_t j = (uint32_t)random() % (i + 1); // NOLINT(cert-msc30-c,cert-msc50-cpp)
        uint32_t t = order[i];

        order[i] = order[j];
        order[j] = t;
    }
    for (int n = 0; n < COST_PAGE_WAYS * COST_COLD_TURNS; n++) {
        int w = (n + n / COST_PAGE_WAYS) % COST_PAGE_WAYS; /* who is first changes */

        ways[w].close();
        for (int i = 0; i < COST_PAGE_WAYS; i++)
            cost_forget(cost_dir[i]);
        ways[w].open(cost_dir[w]);
        ways[w].read(order, 1); /* the roots of the trees */
        for (size_t i = 1; i <= count; i++) {
            double before = cost_now();

            ways[w].read(order + i, 1);
            s[w].us[s[w].count++] = cost_now() - before;
        }
    }
    cost_print("cold", true, COST_PAGE_WAYS, s);
    free(order);
}

static void
cost_fill(const struct cost_way *way)
{
    uint32_t numbers[256];

    for (uint32_t at = 0; at < trace.pages_max; at += 256) {
        size_t count = trace.pages_max - at < 256 ? trace.pages_max - at : 256;

        for (size_t i = 0; i < count; i++)
            numbers[i] = at + (uint32_t)i;
        way->commit(numbers, count);
    }
}

/* NAME[,PARAMS] */
static void
cost_engine(char *text)
{
    size_t len = strcspn(text, ",");

    if (len >= sizeof(engine_name))
        cost_die(text, "no name of an engine");
    (void)snprintf(engine_name, sizeof(engine_name), "%.*s", (int)len, text);
    engine_params = text[len] == ',' ? text + len + 1 : "";
}

int
main(int argc, char **argv)
{
    void (*const commits[COST_WAYS])(const uint32_t *, size_t) = {engine_commit, volume_commit,
                                                                  vfs_commit, sql_commit};
    void (*const reads[COST_WAYS])(const uint32_t *, size_t) = {engine_read, volume_read, vfs_read,
                                                                sql_read};
    const char *folder = NULL;
    bool cold = true;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--engine=", 9) == 0)
            cost_engine(argv[i] + 9);
        else if (strncmp(argv[i], "--seconds=", 10) == 0)
            cost_seconds = strtod(argv[i] + 10, NULL);
        else if (strcmp(argv[i], "--no-cold") == 0)
            cold = false;
        else
            folder = argv[i];
    }
    if (folder == NULL || kvfs_sqlite_register(0) != SQLITE_OK)
        cost_die("usage", "pagecost [--engine=NAME[,PARAMS]] [--seconds=S] [--no-cold] FOLDER");
    trace_record(&trace, folder, COST_ROWS, COST_COMMITS, COST_READS);
    if (trace.pages_max < COST_PAGES)
        trace.pages_max = COST_PAGES;
    for (size_t i = 0; i < sizeof(page); i++)
        page[i] = (uint8_t)(i * 7 + (i >> 8));
    for (int w = 0; w < COST_WAYS; w++) {
        (void)snprintf(cost_dir[w], sizeof(cost_dir[w]), "%s/%s", folder, ways[w].name);
        ways[w].open(cost_dir[w]);
        if (w < COST_PAGE_WAYS)
            cost_fill(&ways[w]);
    }
    cost_cell("commit", trace.commits, trace.commits_count, commits);
    cost_cell("read", trace.reads, trace.reads_count, reads);
    if (cold)
        cost_cold();
    for (int w = 0; w < COST_WAYS; w++)
        ways[w].close();
    trace_free(&trace);
    return 0;
}
