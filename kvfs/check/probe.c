/* SPDX-License-Identifier: BSD-3-Clause
 *
 * probe.c - the engine's own part of a check, in a child process.
 *
 * A library may crash or walk for ever on a store that is damaged.  So, where the
 * caller allows a child, the store is first opened, verified and closed in one; how
 * the child ends is a finding.  Only a store that survived this is opened here.
 *
 *  1. The child tells everything through a pipe, in messages of a fixed head and a
 *     text; the last one is the result.  An end without a result is a crash.
 *  2. A child that says nothing for `patience_s` hangs: it is killed.
 *  3. Where verifying found damage, or the engine has no such call, the child reads
 *     every record as well: the passes of the check do so too.
 *  4. The child never outlives its parent, leaves no core, and leaves by _exit().
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check_priv.h"

#define PROBE_PATIENCE_S 600
#define PROBE_TICK_MS    200 /* between two looks whether the caller wants to stop */
#define PROBE_TEXT_MAX   2000u
#define PROBE_STEP       1024u /* records between two signs of life */

enum probe_type {
    PROBE_STAGE,    /* number: enum probe_stage */
    PROBE_RECORDS,  /* number */
    PROBE_PROGRESS, /* number of total */
    PROBE_FINDING,  /* text: where, a newline, what */
    PROBE_RESULT,   /* number: a negative errno negated, or 0; text: the error's line */
};

enum probe_stage {
    PROBE_OPENING,
    PROBE_VERIFYING,
    PROBE_READING,
    PROBE_CLOSING,
};

struct probe_head {
    uint32_t type, text_len;
    uint64_t number, total;
};

/* --- the child -------------------------------------------------------------------- */

struct probe_child {
    int fd;
    bool damaged;
    const struct kvfs_engine *engine;
    struct kvfs_db *db;
};

static void
probe_write(int fd, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;

    while (len > 0) {
        ssize_t n = write(fd, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            _exit(1); /* nobody listens any more */
        at += n;
        len -= (size_t)n;
    }
}

static void
probe_tell(int fd, enum probe_type type, uint64_t number, uint64_t total, const char *text)
{
    size_t len = text != NULL ? strnlen(text, PROBE_TEXT_MAX) : 0;
    struct probe_head head = {
        .type = type, .text_len = (uint32_t)len, .number = number, .total = total};

    probe_write(fd, &head, sizeof(head));
    probe_write(fd, text, len);
}

static void
probe_finding(void *arg, const char *where, const char *what)
{
    struct probe_child *p = arg;
    char text[PROBE_TEXT_MAX + 1];

    p->damaged = true;
    (void)snprintf(text, sizeof(text), "%.900s\n%.1000s", where, what);
    probe_tell(p->fd, PROBE_FINDING, 0, 0, text);
}

static int
probe_progress(void *arg, uint64_t done, uint64_t total)
{
    struct probe_child *p = arg;

    probe_tell(p->fd, PROBE_PROGRESS, done, total, NULL);
    return 0;
}

/* Step over every record.  Errors are for the passes to find. */
static void
probe_read(struct probe_child *p, enum kvfs_keyspace keyspace)
{
    struct kvfs_db_cursor *cursor;
    struct kvfs_db_snap *snap;
    struct iovec iov = {.iov_base = malloc(KVFS_RECORD_MAX), .iov_len = KVFS_RECORD_MAX};
    size_t key_len, value_len;
    const void *key;

    if (iov.iov_base == NULL || p->engine->begin(p->db, &snap, NULL) != 0) {
        free(iov.iov_base);
        return;
    }
    if (p->engine->cursor_open(snap, keyspace, NULL, 0, NULL, 0, 0, &cursor, NULL) == 0) {
        for (unsigned n = 0; p->engine->cursor_next(cursor, &key, &key_len, &value_len, NULL) == 1;
             n++) {
            (void)p->engine->cursor_value(cursor, 0, &iov, 1, NULL);
            if (n % PROBE_STEP == 0)
                probe_tell(p->fd, PROBE_STAGE, PROBE_READING, 0, NULL);
        }
        p->engine->cursor_close(cursor);
    }
    p->engine->end(snap);
    free(iov.iov_base);
}

static int
probe_work(struct probe_child *p, const char *path, const struct kvfs_engine_options *options,
           struct kvfs_error *err)
{
    struct kvfs_engine_stat stat;
    struct kvfs_error local = {0};
    int rc;

    probe_tell(p->fd, PROBE_STAGE, PROBE_OPENING, 0, NULL);
    rc = p->engine->open(p->engine, path, options, &p->db, err);
    if (rc != 0)
        return rc;
    probe_tell(p->fd, PROBE_STAGE, PROBE_VERIFYING, 0, NULL);
    if (p->engine->stat(p->db, &stat, &local) == 0)
        probe_tell(p->fd, PROBE_RECORDS, stat.meta_records + stat.data_records, 0, NULL);
    if (p->engine->verify != NULL) {
        rc = p->engine->verify(p->db, probe_finding, p, probe_progress, p, &local);
        if (rc == -EIO)
            probe_finding(p, "store", local.msg);
    }
    if (p->damaged || p->engine->verify == NULL) {
        probe_tell(p->fd, PROBE_STAGE, PROBE_READING, 0, NULL);
        probe_read(p, KVFS_META);
        probe_read(p, KVFS_DATA);
    }
    probe_tell(p->fd, PROBE_STAGE, PROBE_CLOSING, 0, NULL);
    p->engine->close(p->db);
    if (rc != 0 && rc != -EIO)
        return kvfs_error_set(err, rc, "%s", local.msg);
    return 0;
}

static void
probe_child(const struct kvfs_engine *engine, const char *path,
            const struct kvfs_engine_options *options, int fd)
{
    struct probe_child p = {.fd = fd, .engine = engine};
    struct rlimit none = {0};
    struct kvfs_error err = {0};
    int rc;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setrlimit(RLIMIT_CORE, &none);
    (void)signal(SIGPIPE, SIG_IGN);
    rc = probe_work(&p, path, options, &err);
    probe_tell(fd, PROBE_RESULT, (uint64_t)-rc, 0, err.msg);
    _exit(0);
}

/* --- the parent ------------------------------------------------------------------- */

struct probe {
    struct check *c;
    int fd;
    pid_t pid;
    enum probe_stage stage;
    uint64_t done, total;
    bool answered; /* the result has come */
    int rc;
    struct kvfs_error *err;
};

static bool
probe_wanted(const struct probe *p)
{
    struct check *c = p->c;
    double part = p->total > 0 ? (double)p->done / (double)p->total : 0;

    return c->options->progress == NULL ||
           c->options->progress(c->options->progress_arg,
                                (uint64_t)((double)c->engine_share * (part < 1 ? part : 1)),
                                c->engine_share + c->total) == 0;
}

/* COUNT bytes.  1: there; 0: the child is gone; -EINTR; -ETIMEDOUT. */
static int
probe_get(struct probe *p, void *buf, size_t count)
{
    unsigned patience_s = p->c->options->patience_s;
    uint64_t ticks = 0, most = (uint64_t)(patience_s != 0 ? patience_s : PROBE_PATIENCE_S) * 1000;
    uint8_t *at = buf;

    while (count > 0) {
        struct pollfd fds = {.fd = p->fd, .events = POLLIN};
        int n = poll(&fds, 1, PROBE_TICK_MS);
        ssize_t got;

        if (n == 0) {
            if (!probe_wanted(p))
                return -EINTR;
            if (++ticks * PROBE_TICK_MS >= most)
                return -ETIMEDOUT;
            continue;
        }
        got = n < 0 ? -1 : read(p->fd, at, count);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        at += got;
        count -= (size_t)got;
    }
    return 1;
}

static void
probe_heard(struct probe *p, const struct probe_head *head, char *text)
{
    char *what;

    switch (head->type) {
    case PROBE_STAGE:
        p->stage = (enum probe_stage)head->number;
        break;
    case PROBE_RECORDS:
        p->c->total = p->c->engine_share = head->number;
        break;
    case PROBE_PROGRESS:
        p->done = head->number;
        p->total = head->total;
        break;
    case PROBE_FINDING:
        what = strchr(text, '\n');
        if (what != NULL)
            *what++ = '\0';
        p->c->unsound = true;
        kvfs_check_found(p->c, text, NULL, "%s", what != NULL ? what : "damaged");
        break;
    default:
        p->answered = true;
        p->rc = -(int)head->number;
        if (p->rc != 0)
            (void)kvfs_error_set(p->err, p->rc, "%s", text);
        break;
    }
}

/* Until the end of the pipe.  0, -EINTR or -ETIMEDOUT. */
static int
probe_listen(struct probe *p)
{
    char text[PROBE_TEXT_MAX + 1];
    struct probe_head head;
    int rc;

    while ((rc = probe_get(p, &head, sizeof(head))) == 1) {
        if (head.text_len > PROBE_TEXT_MAX)
            return 0; /* its memory is gone: as a crash */
        rc = probe_get(p, text, head.text_len);
        if (rc != 1)
            break;
        text[head.text_len] = '\0';
        probe_heard(p, &head, text);
        if (!probe_wanted(p))
            return -EINTR;
    }
    return rc;
}

static void
probe_crashed(struct probe *p, const char *name, int status, bool hung)
{
    static const char *const doing[] = {"opening", "verifying", "reading", "closing"};
    struct check *c = p->c;
    char how[100];

    if (hung)
        (void)snprintf(how, sizeof(how), "hangs (no sign of life for %u s)",
                       c->options->patience_s != 0 ? c->options->patience_s : PROBE_PATIENCE_S);
    else if (WIFSIGNALED(status))
        (void)snprintf(how, sizeof(how), "crashed (signal %d, %s)", WTERMSIG(status),
                       sigdescr_np(WTERMSIG(status)));
    else
        (void)snprintf(how, sizeof(how), "ended its process (status %d)", WEXITSTATUS(status));
    c->unsound = true;
    kvfs_check_found(c, "store", NULL, "the engine %s %s while %s it%s", name, how,
                     doing[p->stage <= PROBE_CLOSING ? p->stage : PROBE_OPENING],
                     c->options->repair ? ": nothing was changed" : "");
}

int
kvfs_check_probe(struct check *c, const char *path, const struct kvfs_engine *engine,
                 const char *params, struct kvfs_error *err)
{
    const struct kvfs_engine_options options = {.readonly = !c->options->repair, .params = params};
    struct probe p = {.c = c, .err = err};
    int pipes[2], status = 0, rc;

    if (!c->options->child)
        return 0;
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return kvfs_error_set(err, -errno, "%s: a pipe: %s", path, kvfs_errno_text(errno));
    p.pid = fork();
    if (p.pid == 0) {
        (void)close(pipes[0]);
        probe_child(engine, path, &options, pipes[1]);
    }
    (void)close(pipes[1]);
    p.fd = pipes[0];
    if (p.pid < 0) {
        rc = kvfs_error_set(err, -errno, "%s: a child process: %s", path, kvfs_errno_text(errno));
        (void)close(p.fd);
        return rc;
    }
    rc = probe_listen(&p);
    (void)close(p.fd);
    if (!p.answered)
        (void)kill(p.pid, SIGKILL); /* one that has crashed keeps its status */
    while (waitpid(p.pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (rc == -EINTR)
        return kvfs_error_set(err, rc, "%s: interrupted", path);
    if (!p.answered) {
        probe_crashed(&p, engine->name, status, rc == -ETIMEDOUT);
        return 1;
    }
    c->probed = p.rc == 0;
    return p.rc;
}
