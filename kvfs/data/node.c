/* SPDX-License-Identifier: BSD-3-Clause
 *
 * node.c - regular files that are in use in this process.
 *
 * 1. A file has at most one node in a process.  Handles and layers hold
 *    references to it.
 * 2. A node is leased while somebody here may write the file, or something
 *    written lies in a layer that the engine has not got: then no other process
 *    writes it, and what the node knows of the engine's records (`view`) stays
 *    true, but for a resize, which is met at the next commit (`expect`).
 * 3. A lease is taken and dropped under the table's lock: two descriptors of
 *    one process do not conflict, so the table is what keeps them apart.
 * 4. A file whose last name goes while it is in use here becomes an orphan
 *    (record O), removed with the last reference, or by the next process that
 *    opens the volume, if this one dies.
 *
 *      unused --open--> in use --write_begin--> leased
 *        ^                |  ^                    | write_end, and all applied
 *        +---- put -------+  +---- release -------+
 */
#include "node.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "lease.h"
#include "overlay.h"
#include "work.h"

#define NODES_CHAINS  1024
#define NODE_CHAIN_NS INT64_C(30000000) /* a lease may be handed on for so long */
#define NODE_REST_NS  INT64_C(4000000)  /* longer than others wait between two tries */

struct kvfs_nodes {
    pthread_mutex_t lock;
    pthread_cond_t settled; /* a node is no longer `unlinking` */
    struct kvfs_node *chains[NODES_CHAINS];
};

int
kvfs_nodes_new(struct kvfs_nodes **nodesp)
{
    struct kvfs_nodes *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return -ENOMEM;
    (void)pthread_mutex_init(&t->lock, NULL);
    (void)pthread_cond_init(&t->settled, NULL);
    *nodesp = t;
    return 0;
}

static void
node_free(struct kvfs_node *node)
{
    kvfs_view_free(&node->view);
    kvfs_ranges_destroy(&node->ranges);
    (void)pthread_mutex_destroy(&node->mem_lock);
    free(node);
}

void
kvfs_nodes_free(struct kvfs_nodes *nodes)
{
    if (nodes == NULL)
        return;
    for (size_t i = 0; i < NODES_CHAINS; i++) {
        while (nodes->chains[i] != NULL) {
            struct kvfs_node *node = nodes->chains[i];

            nodes->chains[i] = node->next;
            node_free(node);
        }
    }
    (void)pthread_cond_destroy(&nodes->settled);
    (void)pthread_mutex_destroy(&nodes->lock);
    free(nodes);
}

uint64_t
kvfs_node_size(struct kvfs_node *node)
{
    struct kvfs_overlay *o = node->v->overlay;
    uint64_t size;

    kvfs_cut_lock_shared(o);
    (void)pthread_mutex_lock(&node->mem_lock);
    size = node->mem.size_bytes;
    (void)pthread_mutex_unlock(&node->mem_lock);
    kvfs_cut_unlock(o);
    return size;
}

static struct kvfs_node **
node_place(struct kvfs_nodes *t, uint64_t ino)
{
    struct kvfs_node **p = &t->chains[ino % NODES_CHAINS];

    while (*p != NULL && (*p)->ino != ino)
        p = &(*p)->next;
    return p;
}

static struct kvfs_node *
node_get_locked(struct kvfs_volume *v, uint64_t ino)
{
    struct kvfs_node **place = node_place(v->nodes, ino);
    struct kvfs_node *node = *place;

    if (node == NULL) {
        node = calloc(1, sizeof(*node));
        if (node == NULL)
            return NULL;
        node->v = v;
        node->ino = ino;
        /* What earlier handles wrote is applied, else their node would still be here, but
         * it need not be durable yet, which the next flush has to make it. */
        atomic_init(&node->dirty_id, atomic_load(&v->overlay->applied_id));
        atomic_init(&node->leases, 1);
        kvfs_ranges_init(&node->ranges);
        (void)pthread_mutex_init(&node->mem_lock, NULL);
        *place = node;
    }
    node->refs++;
    return node;
}

int
kvfs_node_get(struct kvfs_volume *v, uint64_t ino, struct kvfs_node **nodep)
{
    struct kvfs_node *node;

    (void)pthread_mutex_lock(&v->nodes->lock);
    node = node_get_locked(v, ino);
    (void)pthread_mutex_unlock(&v->nodes->lock);
    if (node == NULL)
        return -ENOMEM;
    *nodep = node;
    return 0;
}

void
kvfs_node_hold(struct kvfs_node *node)
{
    (void)pthread_mutex_lock(&node->v->nodes->lock);
    node->refs++;
    (void)pthread_mutex_unlock(&node->v->nodes->lock);
}

/* Remove an orphan's inode.  What fails is found again by the next opener. */
static void
node_reclaim(struct kvfs_volume *v, uint64_t ino)
{
    struct kvfs_batch_builder *b = kvfs_batch_new();
    struct kvfs_db_snap *snap = NULL;
    struct kvfs_view view = {0};
    struct kvfs_key key;

    if (b == NULL || v->engine->begin(v->db, &snap, NULL) < 0)
        goto out;
    if (kvfs_view_load(v, snap, ino, &view, NULL) == 0 &&
        kvfs_reclaim_ops(v, snap, b, ino, view.fork, NULL) == 0) {
        kvfs_key_orphan(&key, ino);
        kvfs_batch_del(b, KVFS_META, key.bytes, key.len);
        (void)kvfs_volume_apply(v, b, KVFS_ORDERED, NULL);
        kvfs_work_wake(v);
    }
    kvfs_view_free(&view);
out:
    if (snap != NULL)
        v->engine->end(snap);
    kvfs_batch_free(b);
}

/* The removal of the last name is over, whatever came of it. */
static void
node_settle_locked(struct kvfs_node *node)
{
    node->unlinking = false;
    kvfs_lease_drop(node->v->leases, node->ino);
    (void)pthread_cond_broadcast(&node->v->nodes->settled);
}

void
kvfs_node_put(struct kvfs_node *node)
{
    struct kvfs_volume *v = node->v;
    struct kvfs_node **place;

    (void)pthread_mutex_lock(&v->nodes->lock);
    if (node->refs == 1 && node->orphan && !node->leased && !node->unlinking &&
        kvfs_lease_take(v->leases, node->ino, true, NULL) == 0) { /* else its holder is the last user */
        node->orphan = false;
        node->unlinking = true;
        (void)pthread_mutex_unlock(&v->nodes->lock);
        node_reclaim(v, node->ino);
        (void)pthread_mutex_lock(&v->nodes->lock);
        node_settle_locked(node);
    }
    if (--node->refs == 0 && !node->leased) {
        place = node_place(v->nodes, node->ino);
        *place = node->next;
        (void)pthread_mutex_unlock(&v->nodes->lock);
        node_free(node);
        return;
    }
    (void)pthread_mutex_unlock(&v->nodes->lock);
}

static int64_t
node_now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t
kvfs_node_version_next(struct kvfs_node *node)
{
    if (node->version_top < node->mem.version)
        node->version_top = node->mem.version;
    return ++node->version_top;
}

/* Writers of this process may hand a lease on among themselves before it is free, again and
 * again.  Where other processes have the volume open, they get it after a while: nobody here
 * begins until all is applied and the lease was dropped, nor for a little after that. */
static int
node_rest(struct kvfs_node *node, struct kvfs_error *err)
{
    struct kvfs_volume *v = node->v;
    int64_t now = node_now_ns();

    if (node->leased && now - node->leased_ns > NODE_CHAIN_NS &&
        atomic_load(&node->dirty_id) > atomic_load(&v->overlay->applied_id)) {
        if (kvfs_lease_table_alone(v->leases))
            node->leased_ns = now; /* asked once in a while */
        else
            node->rest_ns = now + NODE_REST_NS;
    }
    if (now >= node->rest_ns)
        return 0;
    return kvfs_error_set(err, -EBUSY, "the file's lease is left to other processes");
}

/* Take the lease and load; table and cut lock held. */
static int
node_lease_locked(struct kvfs_node *node, bool lasting, struct kvfs_error *err)
{
    struct kvfs_volume *v = node->v;
    struct kvfs_db_snap *snap;
    int rc;

    if (node->leased)
        return 0;
    rc = kvfs_lease_take(v->leases, node->ino, lasting, err);
    if (rc < 0)
        return rc;
    rc = v->engine->begin(v->db, &snap, err);
    if (rc == 0) {
        rc = kvfs_view_load(v, snap, node->ino, &node->view, err);
        v->engine->end(snap);
    }
    if (rc < 0) {
        kvfs_view_free(&node->view);
        kvfs_lease_drop(v->leases, node->ino);
        return rc;
    }
    kvfs_overlay_expect(v->overlay, node->view.block_size);
    node->mem = node->view.contents;
    node->leased = true;
    atomic_fetch_add(&node->leases, 1);
    node->leased_ns = node_now_ns();
    if (node->view.block_size < atomic_load(&v->overlay->block_min))
        atomic_store(&v->overlay->block_min, node->view.block_size);
    return 0;
}

void
kvfs_node_release_locked(struct kvfs_node *node)
{
    struct kvfs_volume *v = node->v;

    (void)pthread_mutex_lock(&v->nodes->lock);
    if (node->leased && !node->working && node->writers == 0 && node->locked_by == NULL &&
        atomic_load(&node->dirty_id) <= atomic_load(&v->overlay->applied_id)) {
        node->leased = false;
        node->behind = node->view.overs_count > 0 || node->view.holes.count > 0;
        kvfs_view_free(&node->view);
        kvfs_lease_drop(v->leases, node->ino);
    }
    (void)pthread_mutex_unlock(&v->nodes->lock);
}

int
kvfs_node_borrow(struct kvfs_node *node)
{
    struct kvfs_volume *v = node->v;
    int rc = 0;

    kvfs_cut_lock(v->overlay);
    (void)pthread_mutex_lock(&v->nodes->lock);
    if (!node->leased)
        rc = node->unlinking ? -EBUSY : node_lease_locked(node, false, NULL);
    (void)pthread_mutex_unlock(&v->nodes->lock);
    kvfs_cut_unlock(v->overlay);
    return rc;
}

static int
node_begin(struct kvfs_node *node, const void *owner, unsigned own_writers, struct kvfs_error *err)
{
    struct kvfs_volume *v = node->v;
    bool behind;
    int rc = kvfs_volume_writable(v, err);

    if (rc < 0)
        return rc;
    /* While somebody looks whether the file can go, its lease is his: wait. */
    (void)pthread_mutex_lock(&v->nodes->lock);
    while (node->unlinking)
        (void)pthread_cond_wait(&v->nodes->settled, &v->nodes->lock);
    node->starting++;
    (void)pthread_mutex_unlock(&v->nodes->lock);
    kvfs_cut_lock(v->overlay);
    (void)pthread_mutex_lock(&v->nodes->lock);
    node->starting--;
    if (node->locked_by != NULL || (owner != NULL && node->writers > own_writers))
        rc = kvfs_error_set(err, -EBUSY, "the file is being written by this process");
    if (rc == 0 && owner != NULL && own_writers == 0)
        rc = node_rest(node, err);
    if (rc == 0)
        rc = node_lease_locked(node, owner == NULL, err);
    if (rc == 0 && owner != NULL)
        node->locked_by = owner;
    if (rc == 0 && owner == NULL)
        node->writers++;
    (void)pthread_mutex_unlock(&v->nodes->lock);
    behind = rc == 0 && (node->view.holes.count > 0 || node->view.overs_count > 0);
    kvfs_cut_unlock(v->overlay);
    if (behind)
        kvfs_work_wake(v);
    return rc;
}

static void
node_end(struct kvfs_node *node, const void *owner)
{
    struct kvfs_volume *v = node->v;
    bool behind;
    bool idle;

    (void)pthread_mutex_lock(&v->nodes->lock);
    if (owner == NULL)
        node->writers--;
    else if (node->locked_by == owner)
        node->locked_by = NULL;
    idle = node->writers == 0 && node->locked_by == NULL;
    (void)pthread_mutex_unlock(&v->nodes->lock);
    if (!idle)
        return;
    /* The lease goes as soon as the engine has everything. */
    if (owner == NULL && atomic_load(&node->dirty_id) > atomic_load(&v->overlay->applied_id))
        (void)kvfs_commit(v, atomic_load(&node->dirty_id), KVFS_ORDERED, NULL);
    /* Not under the hands of a commit, which has a layer of it then and lets go of the file
     * itself, or of background work (`working`): so nobody waits here for another's flush. */
    kvfs_cut_lock(v->overlay);
    kvfs_node_release_locked(node);
    behind = node->behind;
    kvfs_cut_unlock(v->overlay);
    if (behind)
        kvfs_work_wake(v);
}

int
kvfs_node_write_begin(struct kvfs_node *node, struct kvfs_error *err)
{
    return node_begin(node, NULL, 0, err);
}

void
kvfs_node_write_end(struct kvfs_node *node)
{
    node_end(node, NULL);
}

int
kvfs_node_lock(struct kvfs_node *node, const void *owner, unsigned own_writers,
               struct kvfs_error *err)
{
    return node_begin(node, owner, own_writers, err);
}

void
kvfs_node_unlock(struct kvfs_node *node, const void *owner)
{
    node_end(node, owner);
}

bool
kvfs_node_is_locked(struct kvfs_node *node, const void *owner)
{
    bool locked;

    (void)pthread_mutex_lock(&node->v->nodes->lock);
    locked = node->locked_by == owner;
    (void)pthread_mutex_unlock(&node->v->nodes->lock);
    return locked;
}

int
kvfs_node_each(struct kvfs_volume *v, int (*fn)(void *arg, struct kvfs_node *node), void *arg)
{
    int rc = 0;

    for (size_t i = 0; i < NODES_CHAINS && rc == 0; i++) {
        struct kvfs_node *node;
        struct kvfs_node *held[64];
        size_t count = 0;

        (void)pthread_mutex_lock(&v->nodes->lock);
        for (node = v->nodes->chains[i]; node != NULL && count < 64; node = node->next) {
            if (node->leased || node->behind) {
                node->refs++;
                held[count++] = node;
            }
        }
        (void)pthread_mutex_unlock(&v->nodes->lock);
        for (size_t n = 0; n < count; n++) {
            if (rc == 0)
                rc = fn(arg, held[n]);
            kvfs_node_put(held[n]);
        }
    }
    return rc;
}

bool
kvfs_node_contents(struct kvfs_volume *v, uint64_t ino, struct kvfs_contents_record *c)
{
    struct kvfs_node *node;
    bool leased = false;

    kvfs_cut_lock_shared(v->overlay);
    (void)pthread_mutex_lock(&v->nodes->lock);
    node = *node_place(v->nodes, ino);
    if (node != NULL && node->leased) {
        leased = true;
        (void)pthread_mutex_lock(&node->mem_lock);
        *c = node->mem;
        (void)pthread_mutex_unlock(&node->mem_lock);
    }
    (void)pthread_mutex_unlock(&v->nodes->lock);
    kvfs_cut_unlock(v->overlay);
    return leased;
}

int
kvfs_node_unlink_prepare(struct kvfs_volume *v, uint64_t ino, bool *open, struct kvfs_error *err)
{
    struct kvfs_node *node;
    int rc = 0;

    (void)pthread_mutex_lock(&v->nodes->lock);
    node = node_get_locked(v, ino);
    if (node == NULL) {
        rc = kvfs_error_set(err, -ENOMEM, "%s: no memory", v->path);
    } else if (node->leased || node->unlinking || node->starting > 0) {
        node->refs--;
        *open = true;
    } else {
        rc = kvfs_lease_take(v->leases, ino, true, err); /* nobody else writes it? */
        if (rc == 0 && node->refs > 1) {
            kvfs_lease_drop(v->leases, ino);
            node->refs--;
            *open = true;
        } else if (rc == 0) {
            node->unlinking = true; /* the reference stays until _done */
            *open = false;
        }
    }
    (void)pthread_mutex_unlock(&v->nodes->lock);
    if (rc < 0 && node != NULL)
        kvfs_node_put(node);
    return rc;
}

void
kvfs_node_unlink_done(struct kvfs_volume *v, uint64_t ino)
{
    struct kvfs_db_snap *snap;
    struct kvfs_node *node;
    struct kvfs_key key;
    uint8_t value[KVFS_SMALL_RECORD_MAX];
    size_t len;
    bool orphan = false;

    /* Did the name really go? The record tells. */
    if (v->engine->begin(v->db, &snap, NULL) == 0) {
        kvfs_key_orphan(&key, ino);
        orphan = kvfs_meta_get(v, snap, &key, value, sizeof(value), &len, NULL) == 0;
        v->engine->end(snap);
    }
    (void)pthread_mutex_lock(&v->nodes->lock);
    node = *node_place(v->nodes, ino);
    if (node != NULL && node->unlinking) {
        node_settle_locked(node);
        orphan = false;
    } else if (node != NULL) {
        node->orphan = orphan;
        node->refs++; /* so that, if it was closed meanwhile, this is its last use */
    }
    (void)pthread_mutex_unlock(&v->nodes->lock);
    if (node != NULL)
        kvfs_node_put(node);
    else if (orphan)
        node_reclaim(v, ino);
}

void
kvfs_node_orphan_left(struct kvfs_volume *v, uint64_t ino)
{
    bool open = true;

    if (kvfs_node_unlink_prepare(v, ino, &open, NULL) < 0)
        return;
    if (!open) {
        node_reclaim(v, ino);
        kvfs_node_unlink_done(v, ino);
    }
}
