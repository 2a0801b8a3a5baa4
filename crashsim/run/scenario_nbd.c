/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scenario_nbd.c - a disk of the volume, served by nbdkit and the kvfs plugin, under writes, zeros,
 * trims, flushes and FUA from several connections at once.
 *
 * The worker is one thread with requests under way on each connection, so what it saw answered
 * before it issued another is known.  oracle.h says what is demanded: an acknowledged flush
 * and FUA hold, no request is torn, and there is no hole in the order.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <libnbd.h>

#include "oracle.h"
#include "random.h"
#include "scenario.h"
#include "serve.h"
#include "tool.h"

#define NBD_DISK        ((size_t)8 << 20)
#define NBD_BLOCK       4096u
#define NBD_CONNECTIONS 4u
#define NBD_DEPTH       4u
#define NBD_REQUESTS    700u
#define NBD_REQUEST_MAX ((size_t)256 << 10)

/* op.kind: enum oracle_kind; op.c: FUA */

struct slot {
    struct load *load;
    int op; /* of the journal; -1: none under way */
    uint8_t *buf;
};

struct load {
    struct journal *j;
    struct oracle *o; /* for the bytes: request N is operation N */
    struct nbd_handle *nbd[NBD_CONNECTIONS];
    struct slot slots[NBD_CONNECTIONS][NBD_DEPTH];
    uint64_t seed;
    bool failed;
    int error; /* the errno of the first answer that had one */
};

static int
nbd_prepare(struct kvfs_volume *v, struct kvfs_error *err)
{
    struct kvfs_create create = {
        .mode = S_IFREG | 0600, .size_bytes = NBD_DISK, .block_size_bytes = NBD_BLOCK};

    return kvfs_create(v, KVFS_ROOT_INO, "disk", &create, NULL, err);
}

/* --- the worker --- */

static int
load_answered(void *arg, int *error)
{
    struct slot *s = arg;

    if (*error == 0)
        journal_ack(s->load->j, s->op);
    else if (!s->load->failed)
        s->load->error = *error;
    s->load->failed |= *error != 0;
    s->op = -1;
    return 1;
}

static uint64_t
load_random(struct load *l, uint64_t n)
{
    return crashsim_random(&l->seed) % n;
}

static void
load_place(struct load *l, struct journal_op *op)
{
    size_t align = load_random(l, 3) == 0 ? 1 : load_random(l, 2) == 0 ? 512 : 4096;
    size_t size = (size_t)512 << load_random(l, 10);

    size += load_random(l, size);
    size = (size < NBD_REQUEST_MAX ? size : NBD_REQUEST_MAX) / align * align;
    op->count = size == 0 ? align : size;
    /* Half of them crowd in an eighth of the disk. */
    op->offset =
        load_random(l, (load_random(l, 2) == 0 ? NBD_DISK / 8 : NBD_DISK) - op->count + 1) / align *
        align;
}

static bool
load_issue(struct load *l, unsigned c, struct slot *s)
{
    nbd_completion_callback done = {.callback = load_answered, .user_data = s};
    uint64_t dice = load_random(l, 100);
    struct journal_op op = {.kind = dice < 5    ? ORACLE_FLUSH
                                    : dice < 80 ? ORACLE_WRITE
                                                : ORACLE_ZERO};
    uint32_t flags;
    int64_t r;

    if (op.kind != ORACLE_FLUSH) {
        load_place(l, &op);
        op.c = load_random(l, 25) == 0;
    }
    if (dice >= 99) { /* as discard does */
        op.offset = 0;
        op.count = NBD_DISK;
    }
    flags = op.c ? LIBNBD_CMD_FLAG_FUA : 0;
    (void)oracle_issue(l->o, op.kind, op.offset, op.count, op.c);
    s->op = journal_issue(l->j, &op);
    if (s->op < 0)
        return false;
    if (op.kind == ORACLE_WRITE)
        oracle_fill(l->o, (size_t)s->op, s->buf);
    if (op.kind == ORACLE_FLUSH)
        r = nbd_aio_flush(l->nbd[c], done, 0);
    else if (op.kind == ORACLE_WRITE)
        r = nbd_aio_pwrite(l->nbd[c], s->buf, op.count, op.offset, done, flags);
    else if (dice % 2 == 0)
        r = nbd_aio_zero(l->nbd[c], op.count, op.offset, done, flags);
    else
        r = nbd_aio_trim(l->nbd[c], op.count, op.offset, done, flags);
    if (r < 0) {
        s->op = -1;
        l->failed = true;
    }
    return r >= 0;
}

/* Move what can be moved.  false: a connection is dead. */
static bool
load_poll(struct load *l)
{
    struct pollfd fds[NBD_CONNECTIONS];

    for (unsigned c = 0; c < NBD_CONNECTIONS; c++) {
        unsigned dir = nbd_aio_get_direction(l->nbd[c]);

        if (nbd_aio_is_dead(l->nbd[c]) > 0 || nbd_aio_is_closed(l->nbd[c]) > 0)
            return false;
        fds[c] = (struct pollfd){.fd = nbd_aio_get_fd(l->nbd[c])};
        fds[c].events = (short)(((dir & LIBNBD_AIO_DIRECTION_READ) != 0 ? POLLIN : 0) |
                                ((dir & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? POLLOUT : 0));
    }
    if (poll(fds, NBD_CONNECTIONS, 30000) <= 0)
        return false;
    for (unsigned c = 0; c < NBD_CONNECTIONS; c++) {
        if ((fds[c].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
            (void)nbd_aio_notify_read(l->nbd[c]);
        else if ((fds[c].revents & POLLOUT) != 0)
            (void)nbd_aio_notify_write(l->nbd[c]);
    }
    return true;
}

static bool
load_busy(const struct load *l)
{
    for (unsigned i = 0; i < NBD_CONNECTIONS * NBD_DEPTH; i++) {
        if (l->slots[i / NBD_DEPTH][i % NBD_DEPTH].op >= 0)
            return true;
    }
    return false;
}

static void
load_run(struct load *l)
{
    unsigned issued = 0;

    while (!l->failed && (issued < NBD_REQUESTS || load_busy(l))) {
        for (unsigned i = 0; i < NBD_CONNECTIONS * NBD_DEPTH && issued < NBD_REQUESTS; i++) {
            struct slot *s = &l->slots[i / NBD_DEPTH][i % NBD_DEPTH];

            if (s->op >= 0)
                continue;
            if (!load_issue(l, i / NBD_DEPTH, s))
                return;
            issued++;
        }
        if (!load_poll(l))
            return;
    }
}

static int
load_connect(struct load *l, const char *socket, struct kvfs_error *err)
{
    for (unsigned i = 0; i < NBD_CONNECTIONS * NBD_DEPTH; i++) {
        struct slot *slot = &l->slots[i / NBD_DEPTH][i % NBD_DEPTH];

        *slot = (struct slot){.load = l, .op = -1, .buf = malloc(NBD_REQUEST_MAX)};
        if (slot->buf == NULL)
            return kvfs_error_set(err, -ENOMEM, "no memory");
    }
    for (unsigned c = 0; c < NBD_CONNECTIONS; c++) {
        l->nbd[c] = nbd_create();
        if (l->nbd[c] == NULL || nbd_set_strict_mode(l->nbd[c], 0) < 0 ||
            nbd_connect_unix(l->nbd[c], socket) < 0)
            return kvfs_error_set(err, -EIO, "the disk: %s", nbd_get_error());
    }
    return 0;
}

static void
load_free(struct load *l)
{
    for (unsigned i = 0; i < NBD_CONNECTIONS * NBD_DEPTH; i++)
        free(l->slots[i / NBD_DEPTH][i % NBD_DEPTH].buf);
    for (unsigned c = 0; c < NBD_CONNECTIONS; c++)
        nbd_close(l->nbd[c]);
    oracle_free(l->o);
}

/* All requests, on the disk at SOCKET. */
static int
load_work(struct load *l, const char *socket, struct journal *j, struct kvfs_error *err)
{
    int r;

    l->j = j;
    l->seed = j->seed;
    l->o = oracle_new(NBD_DISK, NBD_BLOCK);
    r = load_connect(l, socket, err);
    if (r == 0)
        load_run(l);
    if (r == 0 && (l->failed || load_busy(l)))
        r = kvfs_error_set(err, l->error > 0 ? -l->error : -EIO, "a request failed: %s",
                           l->error > 0              ? strerrordesc_np(l->error)
                           : nbd_get_error() != NULL ? nbd_get_error()
                                                     : "the disk is gone");
    return r;
}

static int
nbd_work(const struct subject *s, const char *volume, struct journal *j, struct kvfs_error *err)
{
    static struct load l;
    char socket[PLACE_NAME_MAX];
    pid_t server;
    int r = serve_volume(s, volume, "disk", j->seed, socket, &server, err);

    if (r < 0)
        return r;
    r = load_work(&l, socket, j, err);
    (void)tool_end(server, SIGKILL);
    return r; /* the process ends, and all that is L's */
}

/* --- the oracle --- */

struct moment {
    uint64_t t;
    uint32_t op;
    bool ack;
};

static int
moment_compare(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;

    if (x->t != y->t)
        return x->t < y->t ? -1 : 1;
    return x->ack - y->ack; /* at one instant: not one before the other */
}

/* The oracle as it stood at the cut. */
static struct oracle *
judge_oracle(const struct judge *j)
{
    uint32_t issued = journal_issued_at(j->j, j->t_ns), n = 0;
    struct moment *m = calloc((size_t)issued * 2 + 1, sizeof(*m));
    struct oracle *o = oracle_new(NBD_DISK, NBD_BLOCK);
    bool durable = judge_expects_durable(j);

    for (uint32_t i = 0; m != NULL && i < issued; i++) {
        m[n++] = (struct moment){.t = j->j->ops[i].issued_ns, .op = i};
        if (journal_acked_at(j->j, i, j->t_ns))
            m[n++] =
                (struct moment){.t = atomic_load(&j->j->ops[i].acked_ns), .op = i, .ack = true};
    }
    if (m != NULL)
        qsort(m, n, sizeof(*m), moment_compare);
    for (uint32_t i = 0; i < n; i++) {
        const struct journal_op *op = &j->j->ops[m[i].op];

        if (m[i].ack && (durable || op->kind != ORACLE_FLUSH))
            oracle_ack(o, m[i].op);
        else if (!m[i].ack)
            (void)oracle_issue(o, op->kind, op->offset, op->count, durable && op->c);
    }
    free(m);
    return o;
}

static int
nbd_judge(struct judge *j, struct kvfs_error *err)
{
    uint8_t *image = malloc(NBD_DISK);
    struct oracle_report report = {0};
    enum oracle_verdict verdict;
    struct kvfs_attr attr = {0};
    struct kvfs_file *f = NULL;
    struct oracle *o;
    int r = image == NULL ? kvfs_error_set(err, -ENOMEM, "no memory")
                          : kvfs_lookup(j->v, KVFS_ROOT_INO, "disk", &attr, err);

    if (r == 0)
        r = kvfs_file_open(j->v, attr.ino, KVFS_OPEN_READ, &f, err);
    if (r == 0) {
        r = kvfs_file_pread(f, image, NBD_DISK, 0, err);
        kvfs_file_close(f);
    }
    if (r == 0) {
        o = judge_oracle(j);
        verdict = oracle_judge(o, image, &report);
        if (verdict == ORACLE_BAD)
            judge_bad(j, "%s", report.text);
        j->verdict->undecided = verdict == ORACLE_UNDECIDED;
        j->verdict->lost = report.requests - report.in_cut;
        oracle_free(o);
        j->digest = judge_digest(image, NBD_DISK);
    }
    free(image);
    return r;
}

int
scenario_nbd_memory(const struct place *p, uint64_t seed, char *text, size_t cap,
                    struct kvfs_error *err)
{
    static struct load l;
    char socket[PLACE_NAME_MAX], ready[PLACE_NAME_MAX];
    const char *argv[] = {"nbdkit", "-f", "-P", ready, "-U", socket, "memory", "8M", NULL};
    struct oracle_report report = {0};
    uint8_t *image = malloc(NBD_DISK);
    struct journal *j = journal_new();
    const struct subject subject = {.caps = KVFS_CAP_DURABLE | KVFS_CAP_ORDERED, .place = p};
    struct judge judge = {.s = &subject, .j = j, .t_ns = UINT64_MAX};
    pid_t server = 0;
    int r = j == NULL || image == NULL ? kvfs_error_set(err, -ENOMEM, "no memory") : 0;

    l = (struct load){0};
    (void)place_name(p, "memory.sock", socket);
    (void)place_name(p, "memory.ready", ready);
    if (r == 0)
        r = tool_serve(p, argv, "memory.ready", NULL, &server, err);
    if (r == 0) {
        j->seed = seed;
        r = load_work(&l, socket, j, err);
        if (r == 0 && nbd_pread(l.nbd[0], image, NBD_DISK, 0, 0) < 0)
            r = kvfs_error_set(err, -EIO, "reading: %s", nbd_get_error());
        load_free(&l);
    }
    if (r == 0) {
        struct oracle *o = judge_oracle(&judge);

        *text = '\0';
        if (oracle_judge(o, image, &report) != ORACLE_GOOD)
            (void)snprintf(text, cap, "%s", report.text[0] != '\0' ? report.text : "undecided");
        oracle_free(o);
    }
    (void)tool_end(server, SIGTERM);
    free(image);
    journal_free(j);
    return r;
}

static const char *const nbd_tools[] = {"nbdkit", NULL};

const struct scenario scenario_nbd = {
    .name = "nbd",
    .tools = nbd_tools,
    .serves = true,
    .summary = "writes, zeros, trims, flushes and FUA on a served disk, from several connections",
    .prepare = nbd_prepare,
    .work = nbd_work,
    .judge = nbd_judge,
};
