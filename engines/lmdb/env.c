/* SPDX-License-Identifier: BSD-3-Clause
 *
 * env.c - small calls of LMDB that touch a map, each inside a guard.
 *
 * The data file is mapped, and so is the lock file with the table of readers.
 * Either may be cut short under us.
 */
#include "lmdb_priv.h"

struct env_info {
    MDB_env *env;
    MDB_envinfo *info;
    MDB_stat *stat;
};

static int
env_info_guarded(void *arg)
{
    struct env_info *i = arg;
    int rc = mdb_env_info(i->env, i->info);

    return rc != 0 ? rc : mdb_env_stat(i->env, i->stat);
}

int
kvfs_lmdb_env_info(struct kvfs_db *db, MDB_envinfo *info)
{
    MDB_stat ignored;
    struct env_info i = {.env = db->env, .info = info, .stat = &ignored};

    return kvfs_lmdb_guard(env_info_guarded, &i);
}

int
kvfs_lmdb_env_psize(struct kvfs_db *db, size_t *psize)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct env_info i = {.env = db->env, .info = &info, .stat = &stat};
    int rc = kvfs_lmdb_guard(env_info_guarded, &i);

    if (rc == 0)
        *psize = stat.ms_psize;
    return rc;
}

static int
env_reader_check_guarded(void *arg)
{
    return mdb_reader_check(arg, NULL);
}

void
kvfs_lmdb_reader_check(struct kvfs_db *db)
{
    (void)kvfs_lmdb_guard(env_reader_check_guarded, db->env);
}

struct env_reader_list {
    MDB_env *env;
    MDB_msg_func *fn;
    void *arg;
};

static int
env_reader_list_guarded(void *arg)
{
    struct env_reader_list *l = arg;

    return mdb_reader_list(l->env, l->fn, l->arg);
}

void
kvfs_lmdb_reader_list(struct kvfs_db *db, MDB_msg_func *fn, void *arg)
{
    struct env_reader_list l = {.env = db->env, .fn = fn, .arg = arg};

    (void)kvfs_lmdb_guard(env_reader_list_guarded, &l);
}

static int
env_txn_reset_guarded(void *arg)
{
    mdb_txn_reset(arg);
    return 0;
}

int
kvfs_lmdb_txn_reset(MDB_txn *txn)
{
    return kvfs_lmdb_guard(env_txn_reset_guarded, txn);
}

static int
env_txn_abort_guarded(void *arg)
{
    mdb_txn_abort(arg);
    return 0;
}

int
kvfs_lmdb_txn_abort(MDB_txn *txn)
{
    return kvfs_lmdb_guard(env_txn_abort_guarded, txn);
}
