/* SPDX-License-Identifier: BSD-3-Clause
 *
 * test_vfs_faults.c - each step of a commit fails once: the answer and all files agree, and a
 * second connection sees what the first was told.
 *
 * Steps of the VFS (testbug.h): begin, header, write; spill, into the temporary file of a large
 * transaction.  Of the engine (fault_engine.h): begin is
 * the pinning of a snapshot, among them that for after the commit; apply, a batch that is
 * refused; applied, one that is in and was answered with an error; sync.  The N-th time each,
 * with N growing until the commit is through before.
 *
 * The files that change are all, or those without main; one journal may be in memory beside
 * others that are not, and a SELECT may be open on each file meanwhile.
 *
 * And one that others had seen before it failed, and one that is rolled back from a journal
 * where an older one lies.
 */
#include "vfs_world.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>

#include "../core/fault_engine.h"
#include "testbug.h"
#include "vfs_priv.h"

#define FAULT_TIMES 40 /* a commit has fewer of each step */

static struct fault_hooks *hooks;

static struct fault {
    const char *step; /* NULL: none */
    int code;
    unsigned left; /* times that it goes well */
    bool stays; /* the folder for temporary files is full and remains so */
    bool hit;
} fault;

static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER; /* the background's steps count too */

static int
fault_step(const char *step)
{
    int code = 0;

    (void)pthread_mutex_lock(&fault_lock);
    if (fault.step != NULL && strcmp(fault.step, step) == 0) {
        if (fault.hit ? fault.stays : fault.left-- == 0) {
            fault.hit = true;
            code = fault.code;
        }
    }
    (void)pthread_mutex_unlock(&fault_lock);
    return code;
}

static void
fault_plant(const char *step, int code, unsigned times)
{
    (void)pthread_mutex_lock(&fault_lock);
    fault = (struct fault){.step = step, .code = code, .left = times,
                           .stays = step != NULL && strcmp(step, "spill") == 0};
    (void)pthread_mutex_unlock(&fault_lock);
}

/* No more of it.  Was it met? */
static bool
fault_end(void)
{
    bool hit;

    (void)pthread_mutex_lock(&fault_lock);
    fault.step = NULL;
    hit = fault.hit;
    (void)pthread_mutex_unlock(&fault_lock);
    return hit;
}

int
kvfs_test_fault_at(const char *step)
{
    return fault_step(step);
}

static _Atomic(sqlite3 *) reader; /* looks while a batch is applied, and then it is refused */
static char reader_saw[40];

static int
fault_apply(const struct kvfs_batch *batch, enum kvfs_durability durability)
{
    sqlite3 *db = atomic_exchange(&reader, NULL);

    (void)batch;
    (void)durability;
    if (db == NULL)
        return fault_step("apply");
    (void)snprintf(reader_saw, sizeof(reader_saw), "%s", world_text(db, "SELECT count(*) FROM u"));
    return -ENOSPC;
}

static int
fault_applied(int rc)
{
    int planted = rc == 0 ? fault_step("applied") : 0;

    return planted != 0 ? planted : rc;
}

static int
fault_sync(void)
{
    return fault_step("sync");
}

static int
fault_begin(void)
{
    return fault_step("pin");
}

/* --- two connections, three files --------------------------------------------------- */

struct mode {
    const char *name;
    const char *pragmas;
    const char *change; /* of every file, x to x+1 */
    size_t cache_bytes; /* 0: the default; small: the core spills into forks */
    unsigned files; /* which of them: 1 << i */
    bool selects; /* one is open on each file */
};

#define ALL    7u
#define MAIN   1u
#define OTHERS 6u

#define CHANGE(db) "UPDATE " db ".t SET x=x+1;"
#define LARGE(db)  CHANGE(db) "UPDATE " db ".big SET x=randomblob(300000);"

static const struct mode modes[] = {
    {"one file", "PRAGMA journal_mode=delete", CHANGE("main"), 0, MAIN, false},
    {"one file, exclusive", "PRAGMA locking_mode=exclusive", CHANGE("main"), 0, MAIN, false},
    {"three files, super-journal", "PRAGMA journal_mode=delete",
     CHANGE("main") CHANGE("b") CHANGE("c"), 0, ALL, false},
    {"three files, no super-journal", "PRAGMA journal_mode=memory",
     CHANGE("main") CHANGE("b") CHANGE("c"), 0, ALL, false},
    {"one large file", "PRAGMA cache_size=10", LARGE("main"), (size_t)1 << 20, MAIN, false},
    {"one large file, exclusive", "PRAGMA cache_size=10; PRAGMA locking_mode=exclusive",
     CHANGE("main") "UPDATE main.wide SET y=randomblob(3000);", (size_t)1 << 20, MAIN, false},
    {"three large files", "PRAGMA cache_size=10", LARGE("main") LARGE("b") LARGE("c"),
     (size_t)1 << 20, ALL, false},
    {"three files, a SELECT on each", "PRAGMA journal_mode=delete",
     CHANGE("main") CHANGE("b") CHANGE("c"), 0, ALL, true},
    {"three files, exclusive", "PRAGMA locking_mode=exclusive",
     CHANGE("main") CHANGE("b") CHANGE("c"), 0, ALL, false},
    {"b and c, a SELECT on each", "PRAGMA journal_mode=persist", CHANGE("b") CHANGE("c"), 0,
     OTHERS, true},
    {"b and c, main only read", "PRAGMA journal_mode=delete",
     "SELECT x FROM main.t;" CHANGE("b") CHANGE("c"), 0, OTHERS, false},
    {"b and c, exclusive", "PRAGMA b.locking_mode=exclusive; PRAGMA c.locking_mode=exclusive",
     CHANGE("b") CHANGE("c"), 0, OTHERS, false},
    {"three files, one journal in memory", "PRAGMA main.journal_mode=memory",
     CHANGE("main") CHANGE("b") CHANGE("c"), 0, ALL, true},
    {"b and c, c's journal in memory, exclusive",
     "PRAGMA b.locking_mode=exclusive; PRAGMA c.locking_mode=exclusive;"
     "PRAGMA c.journal_mode=memory", CHANGE("b") CHANGE("c"), 0, OTHERS, false},
};

struct pair {
    const struct mode *mode;
    struct world *w;
    struct kvfs_volume *v; /* keeps the cache's size */
    sqlite3 *one, *other;
    int x; /* in every file */
};

static const char *const names[] = {"main", "b", "c"};

static void
pair_open(struct pair *p)
{
    struct kvfs_volume_options options = {.cache_bytes = p->mode->cache_bytes};
    char sql[300];

    assert_int_equal(kvfs_volume_open(p->w->volume, &options, &p->v, NULL), 0);
    (void)snprintf(sql, sizeof(sql), "ATTACH '%s/b.db' AS b; ATTACH '%s/c.db' AS c", p->w->volume,
                   p->w->volume);
    p->one = world_open(p->w, "a.db", "");
    p->other = world_open(p->w, "a.db", "");
    world_sql(p->one, sql);
    world_sql(p->other, sql);
    world_sql(p->one, p->mode->pragmas);
}

/* 0, or -EIO of a poisoned volume. */
static int
pair_close(struct pair *p)
{
    world_close(p->other);
    (void)sqlite3_close(p->one);
    return kvfs_volume_close(p->v, NULL);
}

/* X of file I; -1: it cannot be read. */
static int
pair_get(sqlite3 *db, unsigned i)
{
    char sql[60];
    const char *text;

    (void)snprintf(sql, sizeof(sql), "SELECT x FROM %s.t", names[i]);
    text = world_text(db, sql);
    return strncmp(text, "error", 5) == 0 ? -1 : (int)strtol(text, NULL, 10);
}

static bool
pair_is(sqlite3 *db, unsigned files, int x)
{
    for (unsigned i = 0; i < 3; i++) {
        if (pair_get(db, i) != ((files >> i & 1) != 0 ? x : 0))
            return false;
    }
    return true;
}

static void
pair_reopen(struct pair *p)
{
    (void)pair_close(p);
    pair_open(p);
}

/* Begin a SELECT on each file, where the mode wants it; OPEN are theirs. */
static void
pair_selects(const struct pair *p, sqlite3_stmt **open)
{
    for (unsigned i = 0; i < 3; i++) {
        char sql[60];

        open[i] = NULL;
        if (!p->mode->selects)
            continue;
        (void)snprintf(sql, sizeof(sql), "SELECT 1 FROM %s.big", names[i]);
        assert_int_equal(sqlite3_prepare_v2(p->one, sql, -1, &open[i], NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(open[i]), SQLITE_ROW);
    }
}

static void
pair_selects_end(sqlite3_stmt **open)
{
    for (unsigned i = 0; i < 3; i++) {
        (void)sqlite3_finalize(open[i]);
        open[i] = NULL;
    }
}

/* One commit with the fault; false: it was not met any more. */
static bool
pair_fault(struct pair *p, const char *step, int code, unsigned times)
{
    char sql[400];
    unsigned files = p->mode->files;
    unsigned first = (files & MAIN) != 0 ? 0 : 1;
    sqlite3_stmt *open[3];
    bool unknown, hit;
    int rc;

    (void)snprintf(sql, sizeof(sql), "BEGIN; %s COMMIT", p->mode->change);
    pair_selects(p, open);
    fault_plant(step, code, times);
    rc = world_run(p->one, sql);
    if (fault.stays && rc != SQLITE_OK) {
        assert_non_null(strstr(kvfs_sqlite_error(), "temporary file"));
        if (sqlite3_get_autocommit(p->one) == 0)
            (void)world_run(p->one, "ROLLBACK");
        (void)pair_is(p->one, files, p->x); /* may find that there is no room to roll back */
        assert_true(pair_is(p->one, files, p->x));
    }
    hit = fault_end();
    if (sqlite3_get_autocommit(p->one) == 0)
        (void)world_run(p->one, "ROLLBACK");
    unknown = hit && code == -EIO && (strcmp(step, "apply") == 0 ||
                                             strcmp(step, "applied") == 0 ||
                                             strcmp(step, "sync") == 0);
    if (unknown && rc != SQLITE_OK) {
        assert_int_equal(rc & 0xff, SQLITE_IOERR);
        if (strcmp(step, "apply") == 0) /* it is not in */
            assert_true(pair_is(p->other, files, p->x));
        assert_int_not_equal(world_run(p->one, CHANGE("main")), SQLITE_OK);
        pair_selects_end(open);
        pair_reopen(p);
        if (strcmp(step, "apply") != 0 && pair_get(p->one, first) == p->x + 1)
            p->x++; /* all or nothing */
    } else if (rc == SQLITE_OK) {
        p->x++;
    } else {
        assert_true(hit);
        assert_int_equal(rc & 0xff, code == -ENOSPC   ? SQLITE_FULL
                                    : code == -ENOMEM ? SQLITE_NOMEM
                                    : code == -EBUSY && (rc & 0xff) == SQLITE_BUSY ? SQLITE_BUSY
                                                      : SQLITE_IOERR);
    }
    assert_true(pair_is(p->other, files, p->x));
    if (!pair_is(p->one, files, p->x)) { /* the place for the new snapshot was not had */
        assert_true(hit && rc == SQLITE_OK && strcmp(step, "pin") == 0);
        pair_selects_end(open);
        assert_true(pair_is(p->one, files, p->x));
    }
    pair_selects_end(open);
    assert_true(pair_is(p->one, files, p->x));
    return hit;
}

static void
pair_step(struct pair *p, const char *step, int code)
{
    bool many = p->mode->cache_bytes != 0 && /* a block each, or a page */
                (strcmp(step, "write") == 0 || strcmp(step, "spill") == 0);
    unsigned times = 0;

    vfs_stage_memory_max_bytes = (size_t)(strcmp(step, "spill") == 0 ? 256 : 32768) << 10;
    while (times < FAULT_TIMES && pair_fault(p, step, code, many ? 97 * times : times)) {
        times++;
        /* The next transaction finds nothing in its way. */
        if (world_run(p->one, CHANGE("main") "UPDATE main.t SET x=x-1") != SQLITE_OK) {
            pair_reopen(p); /* background work that met the fault poisoned the volume */
            world_sql(p->one, CHANGE("main") "UPDATE main.t SET x=x-1");
        }
    }
    print_message("%s, %s %d: %u times\n", p->mode->name, step, code, times);
    assert_true(times < FAULT_TIMES);
    /* What a large commit leaves is pinned at the unlock, and there may be none. */
    if (strcmp(step, "sync") != 0 && (strcmp(step, "spill") != 0 || p->mode->cache_bytes != 0) &&
        (strcmp(step, "pin") != 0 || p->mode->cache_bytes == 0))
        assert_true(times > 0);
}

static void
pair_make(const struct pair *p)
{
    for (int i = 0; i < 3; i++) {
        char sql[200];

        (void)snprintf(sql, sizeof(sql), "CREATE TABLE %s.t(x); INSERT INTO %s.t VALUES(0);"
                       "CREATE TABLE %s.big(x); INSERT INTO %s.big VALUES(zeroblob(10)),"
                       "(NULL),(NULL),(NULL)", names[i], names[i], names[i], names[i]);
        world_sql(p->one, sql);
    }
}

/* Pages that are changed in place: to roll back is to write them all again. */
static void
pair_make_wide(const struct pair *p)
{
    world_sql(p->one, "CREATE TABLE main.wide(y); WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL "
                      "SELECT i+1 FROM n LIMIT 300) INSERT INTO wide SELECT zeroblob(3000) FROM n");
}

static void
each_step__fails__files_and_answer_agree(void **state)
{
    static const struct {
        const char *step;
        int code;
    } steps[] = {
        {"spill", -ENOSPC},
        {"begin", -ENOMEM}, {"begin", -EIO},  {"header", -EIO}, {"write", -ENOSPC},
        {"write", -EIO},    {"pin", -EBUSY},  {"pin", -EIO},    {"apply", -ENOSPC},
        {"apply", -EIO},    {"applied", -EIO}, {"sync", -EIO},
    };

    (void)state;
    for (size_t m = 0; m < sizeof(modes) / sizeof(modes[0]); m++) {
        struct pair p = {.mode = &modes[m]};
        void *w = NULL;

        (void)world_setup(&w);
        p.w = w;
        pair_open(&p);
        pair_make(&p);
        if (p.mode->cache_bytes != 0)
            pair_make_wide(&p);
        for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++)
            pair_step(&p, steps[s].step, steps[s].code);
        for (int i = 0; i < 3; i++) {
            char sql[60];

            (void)snprintf(sql, sizeof(sql), "PRAGMA %s.integrity_check", names[i]);
            assert_string_equal(world_text(p.one, sql), "ok");
        }
        (void)pair_close(&p);
        (void)world_teardown(&w);
    }
}

/* A journal that is kept open.  The records of an older transaction lie behind those of the one
 * that is rolled back, right where the pager looks for more: found by trying. */
static void
journal__is_kept_open__the_older_transaction_is_not_rolled_back(void **state)
{
    static const char *const steps[] = {
        "INSERT INTO w.wide(x,y) VALUES(75,zeroblob(3000))",
        "INSERT INTO w.wide(x,y) VALUES(712,zeroblob(400))",
        "BEGIN; INSERT INTO t VALUES(1); INSERT INTO w.wide(x,y) VALUES(622,zeroblob(100)); COMMIT",
        "DELETE FROM w.wide WHERE id%5=1",
        "DELETE FROM w.wide WHERE id%4=1",
        "BEGIN; INSERT INTO t VALUES(1); DELETE FROM w.wide WHERE id%4=1; COMMIT",
        "UPDATE w.wide SET x=x+1,y=zeroblob(100) WHERE id%4=0",
        "INSERT INTO w.wide(x,y) VALUES(582,zeroblob(400))",
        "BEGIN; INSERT INTO t VALUES(1); DELETE FROM w.wide WHERE id%3=1; COMMIT",
    };
    static const char sums[] =
        "SELECT count(*)||' '||sum(x*id)||' '||sum(length(y)*id) FROM w.wide";
    struct world *w = *state;
    sqlite3 *one = world_open(w, "m.db", "");
    sqlite3 *other = world_open(w, "m.db", "");
    char attach[120];

    (void)snprintf(attach, sizeof(attach), "ATTACH '%s/w.db' AS w", w->volume);
    world_sql(one, attach);
    world_sql(other, attach);
    world_sql(one, "CREATE TABLE t(x); PRAGMA w.page_size=512;"
                   "CREATE TABLE w.wide(id INTEGER PRIMARY KEY, x, y);"
                   "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n LIMIT 60)"
                   "INSERT INTO w.wide SELECT i,0,zeroblob(10) FROM n;"
                   "PRAGMA locking_mode=exclusive; PRAGMA w.cache_size=5;"
                   "PRAGMA main.journal_mode=memory"); /* its commit point is the first */
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        bool fails = i % 3 == 2;

        if (fails)
            fault_plant("write", -ENOSPC, 0);
        assert_int_equal(world_run(one, steps[i]) & 0xff, fails ? SQLITE_FULL : SQLITE_OK);
        if (fails)
            assert_true(fault_end());
        assert_string_equal(world_text(one, sums), world_text(other, sums));
    }
    assert_string_equal(world_text(one, "PRAGMA w.integrity_check"), "ok");
    world_close(one);
    world_close(other);
}

/* No place for a reader is left: BUSY, and later there is one. */
static void
readers__too_many__busy(void **state)
{
    sqlite3 *db = world_open(*state, "p.db", "");

    world_sql(db, "CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    fault_plant("pin", -EBUSY, 0);
    assert_int_equal(world_run(db, "SELECT x FROM t"), SQLITE_BUSY);
    assert_true(fault_end());
    assert_string_equal(world_text(db, "SELECT x FROM t"), "1");
    fault_plant("pin", -EBUSY, 0);
    assert_int_equal(world_run(db, "UPDATE t SET x=2"), SQLITE_BUSY);
    assert_true(fault_end());
    world_sql(db, "UPDATE t SET x=x+1");
    assert_string_equal(world_text(db, "SELECT x FROM t"), "2");
    world_close(db);
}

/* The same schema cookie for two schemas would have the reader take one for the other. */
static void
schema_seen(struct world *w, const char *file, bool fresh)
{
    sqlite3 *one = world_open(w, file, "");
    sqlite3 *other = world_open(w, file, "");

    if (!fresh)
        world_sql(one, "CREATE TABLE t(x)");
    assert_string_equal(world_text(other, "SELECT count(*) FROM sqlite_schema"), fresh ? "0" : "1");
    reader = other;
    assert_int_equal(world_run(one, "CREATE TABLE u(a)") & 0xff, SQLITE_FULL);
    assert_string_equal(reader_saw, "0");
    world_sql(one, "CREATE TABLE v(b); INSERT INTO v VALUES(42)");
    assert_string_equal(world_text(other, "SELECT count(*) FROM v"), "1");
    assert_int_not_equal(world_run(other, "SELECT a FROM u"), SQLITE_OK);
    world_sql(one, "CREATE TABLE u(c,d); INSERT INTO u VALUES(1,2)");
    assert_string_equal(world_text(other, "SELECT c+d FROM u"), "3");
    assert_string_equal(world_text(other, "PRAGMA integrity_check"), "ok");
    world_close(other);
    world_close(one);
}

static void
schema__was_seen_and_failed__is_forgotten(void **state)
{
    schema_seen(*state, "a.db", false);
    schema_seen(*state, "b.db", true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step__fails__files_and_answer_agree),
        cmocka_unit_test_setup_teardown(
            journal__is_kept_open__the_older_transaction_is_not_rolled_back, world_setup,
            world_teardown),
        cmocka_unit_test_setup_teardown(readers__too_many__busy, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(schema__was_seen_and_failed__is_forgotten, world_setup,
                                        world_teardown),
    };
    void *dl = dlopen(KVFS_FAULT_ENGINE, RTLD_NOW | RTLD_LOCAL);

    if (dl == NULL || (hooks = dlsym(dl, "kvfs_fault_hooks")) == NULL) {
        print_error("%s: %s\n", KVFS_FAULT_ENGINE, dlerror()); // NOLINT(concurrency-mt-unsafe)
        return 1;
    }
    world_engine_path = KVFS_FAULT_ENGINE;
    hooks->apply = fault_apply;
    hooks->applied = fault_applied;
    hooks->sync = fault_sync;
    hooks->begin = fault_begin;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
