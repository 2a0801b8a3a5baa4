/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bank.c - transfers between accounts in somebody else's store, for the tests of `crashsim trace`.
 *
 *     bank STORE MODE write N     open the accounts if there are none, then N transfers, in the
 *                                 present folder, a mark for each commit
 *     bank STORE MODE check DIR   do the accounts have what they had, and is each marked commit there?
 *
 * STORE: lmdb (MODE: default, nosync, writemap) or sqlite (MODE: JOURNAL-SYNCHRONOUS, as wal-full).
 * MODE with a + behind it: the check does not ask for marked commits.
 *
 * With BANK_WRITEBACK set, dirty pages go to the disk behind each commit, without a flush, as the kernel
 * may send them at any time.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef BANK_LMDB
#include <lmdb.h>
#endif
#ifdef BANK_SQLITE
#include <sqlite3.h>
#endif

#define ACCOUNTS 20u
#define BALANCE  1000L
#define MAP_SIZE (8u << 20)

static void
bank_die(const char *what, const char *why)
{
    (void)fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* Everything that is dirty in the present folder. */
static void
bank_writeback(void)
{
    DIR *d = opendir(".");
    struct dirent *e;

    while (d != NULL && (e = readdir(d)) != NULL) { // NOLINT(concurrency-mt-unsafe): one thread
        int fd = e->d_type == DT_REG ? open(e->d_name, O_RDWR | O_CLOEXEC) : -1;

        if (fd >= 0 && (sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) < 0 ||
                        close(fd) < 0))
            bank_die(e->d_name, "cannot be written out");
    }
    if (d != NULL)
        (void)closedir(d);
}

/* In a line of its own, by one write: the trace takes it when it is written.  A disk takes it by a
 * command. */
static void
bank_mark(unsigned long n)
{
    const char *name = getenv("CRASHSIM_MARKS"), *command = getenv("CRASHSIM_MARK");
    FILE *f = name != NULL ? fopen(name, "a") : NULL;
    char line[1024];

    if (getenv("BANK_WRITEBACK") != NULL)
        bank_writeback();
    if (f != NULL && (fprintf(f, "%lu\n", n) < 0 || fclose(f) != 0))
        bank_die(name, "cannot be written");
    (void)snprintf(line, sizeof(line), "%s %lu", command != NULL ? command : "", n);
    if (command != NULL && system(line) != 0) // NOLINT(cert-env33-c): the test's own
        bank_die(command, "failed");
}

static unsigned long
bank_marked(void)
{
    const char *name = getenv("CRASHSIM_MARKS");
    FILE *f = name != NULL ? fopen(name, "r") : NULL;
    char line[64];
    unsigned long n = 0;

    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        n = strtoul(line, NULL, 10);
    if (f != NULL)
        (void)fclose(f);
    return n;
}

static void
bank_judge(long sum, unsigned long last, int marks)
{
    if (sum != (long)ACCOUNTS * BALANCE) {
        (void)fprintf(stderr, "torn: the accounts have %ld\n", sum);
        exit(1);
    }
    if (marks && last < bank_marked()) {
        (void)fprintf(stderr, "lost: commit %lu is the last, not %lu\n", last, bank_marked());
        exit(1);
    }
}

#ifdef BANK_LMDB
static void
lmdb_ok(int rc, const char *what)
{
    if (rc != 0)
        bank_die(what, mdb_strerror(rc));
}

static MDB_env *
lmdb_open(const char *dir, const char *mode, MDB_dbi *dbi)
{
    unsigned flags = strncmp(mode, "nosync", 6) == 0 ? MDB_NOSYNC
                     : strncmp(mode, "writemap", 8) == 0 ? MDB_WRITEMAP : 0;
    MDB_env *env;
    MDB_txn *txn;

    lmdb_ok(mdb_env_create(&env), "create");
    lmdb_ok(mdb_env_set_mapsize(env, MAP_SIZE), "mapsize");
    lmdb_ok(mdb_env_open(env, dir, flags, 0644), "open");
    lmdb_ok(mdb_txn_begin(env, NULL, 0, &txn), "begin");
    lmdb_ok(mdb_dbi_open(txn, NULL, 0, dbi), "dbi");
    mdb_txn_abort(txn);
    return env;
}

static void
lmdb_put(MDB_txn *txn, MDB_dbi dbi, unsigned key, const long *value)
{
    long room[32] = {value[0], value[1]}; /* so that more than a page is taken */
    MDB_val k = {sizeof(key), &key}, v = {sizeof(room), room};

    lmdb_ok(mdb_put(txn, dbi, &k, &v, 0), "put");
}

static long
lmdb_get(MDB_txn *txn, MDB_dbi dbi, unsigned key)
{
    MDB_val k = {sizeof(key), &key}, v;
    long value;
    int rc = mdb_get(txn, dbi, &k, &v);

    if (rc == MDB_NOTFOUND)
        return 0;
    lmdb_ok(rc, "get");
    if (v.mv_size < sizeof(value))
        bank_die("get", "a value of another size");
    memcpy(&value, v.mv_data, sizeof(value));
    return value;
}

static void
lmdb_write(const char *mode, unsigned long n)
{
    MDB_dbi dbi;
    MDB_env *env = lmdb_open(".", mode, &dbi);

    for (unsigned long i = 0; i <= n; i++) { /* 0: the accounts are opened */
        unsigned from = (unsigned)(i % ACCOUNTS), to = (unsigned)((i * 7 + 3) % ACCOUNTS);
        MDB_txn *txn;
        long last[2] = {(long)i, 0}, a[2] = {BALANCE, 0};

        lmdb_ok(mdb_txn_begin(env, NULL, 0, &txn), "begin");
        if (i == 0 && lmdb_get(txn, dbi, 0) != 0) {
            mdb_txn_abort(txn);
            continue;
        }
        for (unsigned k = 0; i == 0 && k < ACCOUNTS; k++)
            lmdb_put(txn, dbi, k, a);
        a[0] = lmdb_get(txn, dbi, from) - (long)i;
        lmdb_put(txn, dbi, from, a);
        a[0] = lmdb_get(txn, dbi, to) + (long)i;
        lmdb_put(txn, dbi, to, a);
        lmdb_put(txn, dbi, ACCOUNTS, last);
        lmdb_ok(mdb_txn_commit(txn), "commit");
        bank_mark(i);
    }
    if (n == 0)
        mdb_env_close(env);
    _exit(0); /* closing would sync */
}

static void
lmdb_check(const char *mode, const char *dir)
{
    unsigned long last;
    MDB_dbi dbi;
    MDB_env *env = lmdb_open(dir, "default", &dbi);
    MDB_txn *txn;
    long sum = 0;

    lmdb_ok(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), "begin");
    for (unsigned k = 0; k < ACCOUNTS; k++)
        sum += lmdb_get(txn, dbi, k);
    last = (unsigned long)lmdb_get(txn, dbi, ACCOUNTS);
    mdb_txn_abort(txn);
    mdb_env_close(env);
    bank_judge(sum, last, strchr(mode, '+') == NULL);
}
#endif

#ifdef BANK_SQLITE
static void
sqlite_do(sqlite3 *db, const char *text)
{
    char *error = NULL;

    if (sqlite3_exec(db, text, NULL, NULL, &error) != SQLITE_OK)
        bank_die(text, error != NULL ? error : "failed");
}

static long
sqlite_get(sqlite3 *db, const char *text)
{
    sqlite3_stmt *stmt;
    long value;

    if (sqlite3_prepare_v2(db, text, -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        bank_die(text, sqlite3_errmsg(db));
    value = sqlite3_column_type(stmt, 0) == SQLITE_TEXT
                ? strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0
                : (long)sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return value;
}

static sqlite3 *
sqlite_open(const char *dir)
{
    char name[4096];
    sqlite3 *db;

    (void)snprintf(name, sizeof(name), "%s/bank.db", dir);
    if (sqlite3_open(name, &db) != SQLITE_OK)
        bank_die(name, sqlite3_errmsg(db));
    return db;
}

static void
sqlite_write(const char *mode, unsigned long n)
{
    sqlite3 *db = sqlite_open(".");
    char text[512];
    int len = (int)strcspn(mode, "-");

    (void)snprintf(text, sizeof(text), "PRAGMA journal_mode=%.*s; PRAGMA synchronous=%.*s", len, mode,
                   (int)strcspn(mode + len + 1, "+"), mode + len + 1);
    sqlite_do(db, "PRAGMA page_size=1024");
    sqlite_do(db, text);
    sqlite_do(db, "PRAGMA wal_autocheckpoint=8; BEGIN");
    if (sqlite_get(db, "SELECT count(*) FROM sqlite_master") == 0)
        sqlite_do(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v); CREATE TABLE l(i, x);"
                      "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i+1 FROM c WHERE i<19)"
                      "INSERT INTO t SELECT i,1000 FROM c; INSERT INTO l VALUES(0,'')");
    sqlite_do(db, "COMMIT");
    bank_mark(0);
    for (unsigned long i = 1; i <= n; i++) {
        (void)snprintf(text, sizeof(text),
                       "BEGIN; UPDATE t SET v=v-%lu WHERE k=%lu; UPDATE t SET v=v+%lu WHERE k=%lu;"
                       "INSERT INTO l VALUES(%lu, hex(randomblob(300))); COMMIT",
                       i, i % ACCOUNTS, i, (i * 7 + 3) % ACCOUNTS, i);
        sqlite_do(db, text);
        bank_mark(i);
    }
    if (n == 0)
        (void)sqlite3_close(db);
    _exit(0); /* closing would write back */
}

static void
sqlite_check(const char *mode, const char *dir)
{
    sqlite3 *db = sqlite_open(dir);

    if (sqlite_get(db, "PRAGMA integrity_check") != 1)
        bank_die("integrity_check", "is not ok");
    bank_judge(sqlite_get(db, "SELECT sum(v) FROM t"),
               (unsigned long)sqlite_get(db, "SELECT max(i) FROM l"), strchr(mode, '+') == NULL);
    (void)sqlite3_close(db);
}
#endif

int
main(int argc, char **argv)
{
    int writes = argc == 5 && strcmp(argv[3], "write") == 0;

    if (argc != 5)
        bank_die("usage", "bank STORE MODE write N | bank STORE MODE check DIR");
#ifdef BANK_LMDB
    if (strcmp(argv[1], "lmdb") == 0) {
        if (writes)
            lmdb_write(argv[2], strtoul(argv[4], NULL, 10));
        lmdb_check(argv[2], argv[4]);
        return 0;
    }
#endif
#ifdef BANK_SQLITE
    if (strcmp(argv[1], "sqlite") == 0) {
        if (writes)
            sqlite_write(argv[2], strtoul(argv[4], NULL, 10));
        sqlite_check(argv[2], argv[4]);
        return 0;
    }
#endif
    (void)writes;
    bank_die(argv[1], "not built in");
}
