/* SPDX-License-Identifier: BSD-3-Clause
 *
 * gate.c - a moment without any snapshot.
 *
 * The map, and after a failed write of a meta page the whole environment, can be
 * replaced only while nobody uses them.  Whoever does counts as open: snapshots,
 * and holds for the few calls without one.  Closing the gate lets no new ones in
 * and waits for those there are, but not for ever: a pinned snapshot may last.
 */
#include <time.h>

#include "lmdb_priv.h"

#define GATE_WAIT_SECONDS 2

bool
kvfs_lmdb_gate_close(struct kvfs_db *db)
{
    struct timespec until;
    bool alone;
    int rc = 0;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += GATE_WAIT_SECONDS;
    (void)pthread_mutex_lock(&db->pool_lock);
    db->gate_closed = true;
    while (db->open_count > 0 && rc == 0)
        rc = pthread_cond_timedwait(&db->pool_cond, &db->pool_lock, &until);
    alone = db->open_count == 0;
    (void)pthread_mutex_unlock(&db->pool_lock);
    if (!alone)
        kvfs_lmdb_gate_open(db);
    return alone;
}

void
kvfs_lmdb_gate_open(struct kvfs_db *db)
{
    (void)pthread_mutex_lock(&db->pool_lock);
    db->gate_closed = false;
    (void)pthread_cond_broadcast(&db->pool_cond);
    (void)pthread_mutex_unlock(&db->pool_lock);
}

void
kvfs_lmdb_hold(struct kvfs_db *db)
{
    (void)pthread_mutex_lock(&db->pool_lock);
    while (db->gate_closed)
        (void)pthread_cond_wait(&db->pool_cond, &db->pool_lock);
    db->open_count++;
    (void)pthread_mutex_unlock(&db->pool_lock);
}

void
kvfs_lmdb_unhold(struct kvfs_db *db)
{
    (void)pthread_mutex_lock(&db->pool_lock);
    db->open_count--;
    (void)pthread_cond_broadcast(&db->pool_cond);
    (void)pthread_mutex_unlock(&db->pool_lock);
}
