/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server.c - the life of the volume inside nbdkit.
 *
 * nbdkit checks parameters, forks (unless -f), serves and is told to end:
 *
 *   .get_ready   kserver_probe   opens and closes the volume in a child process;
 *                                errors still reach the terminal
 *   .after_fork  kserver_start   opens it for good, and file= for writing
 *   SIGTERM      the closer      commits at once (below)
 *   .cleanup     kserver_stop    closes it
 *
 * 1. The process that nbdkit forks never has an engine open.
 * 2. nbdkit (1.32 at least) ends only when the last client hangs up, and
 *    an idle client may never do so; whoever asked it to end then loses
 *    patience and kills it.  So a thread waits for the request to end and
 *    commits what was acknowledged, without waiting for any client.  It goes on
 *    doing so, as a request that was already running may be acknowledged later.
 * 3. After such an end nbdkit does not call .close.  All connection threads have
 *    ended by then, so kserver_stop() closes what is on the list.  A thread that
 *    comes later finds the volume gone and is refused.
 *
 * Locks: server_lock guards the list, the volume pointer and `ending`.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "exports.h"
#include "quit.h"
#include "server.h"

#define SHOWN_MAX 64

#define LOG_PREFIX      "log:"
#define ENGINE_NAME_CAP 128 /* more than an engine's name may have */

#define READ_HINT "to serve it all the same: readonly=true"

/* How often the closer looks for more while nbdkit waits for a client. */
#define CLOSER_INTERVAL_MS 50

static pthread_mutex_t server_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t server_end = PTHREAD_COND_INITIALIZER;
static struct kvfs_volume *server_v;
static struct kvfs_file *server_default; /* file=, kept so that nobody else writes it */
static struct kserver_conn *server_conns;
static bool server_ending; /* kserver_stop() has begun */
static pthread_t server_closer;
static bool server_has_closer;

/* --- errors ---------------------------------------------------------------- */

/* NBD knows EPERM, EIO, ENOMEM, EINVAL, ENOSPC, ESHUTDOWN and (for a fast zero)
 * ENOTSUP; nbdkit itself aborts on a negative one. */
static int
server_errno(int code)
{
    switch (code < 0 ? -code : code) {
    case EPERM:
    case EACCES:
    case EROFS:
    case EBADF:
        return EPERM;
    case ENOMEM:
        return ENOMEM;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ENOSPC;
    case ESHUTDOWN:
        return ESHUTDOWN;
    case EOPNOTSUPP: /* equals ENOTSUP */
        return EOPNOTSUPP;
    case EINVAL:
    case ENOENT:
    case EISDIR:
    case ELOOP:
    case ENAMETOOLONG:
        return EINVAL;
    default:
        return EIO;
    }
}

int
kserver_fail(const struct kvfs_error *err)
{
    nbdkit_error("%s", err->msg);
    nbdkit_set_error(server_errno(err->code));
    return -1;
}

int
kserver_conn_fail(const struct kserver_conn *c, const struct kvfs_error *err)
{
    struct kvfs_error named = {0};

    (void)kvfs_error_set(&named, err->code, "export '%.128s': %s", c->name, err->msg);
    return kserver_fail(&named);
}

/* --- opening --------------------------------------------------------------- */

/* NAME without the log before it. */
static const char *
server_engine_below(const char *name)
{
    return strncmp(name, LOG_PREFIX, sizeof(LOG_PREFIX) - 1) == 0 ? name + sizeof(LOG_PREFIX) - 1
                                                                 : name;
}

/* Do what log= asks for.  What engine= insists on is judged first: a volume that is refused
 * stays as it is. */
static int
server_log(const struct kparams *params, struct kvfs_error *err)
{
    const struct kvfs_volume_options options = {.readonly = true};
    struct kvfs_volume_info info;
    struct kvfs_volume *v;
    int r = 0;

    if (params->engine != NULL) {
        const char *wanted = server_engine_below(params->engine);

        r = kvfs_volume_open(params->volume, &options, &v, err);
        if (r < 0)
            return r;
        kvfs_volume_info(v, &info);
        if (strcmp(server_engine_below(info.engine), wanted) != 0)
            r = kvfs_error_set(err, -EINVAL, "%s: the volume has engine %s, not %s", info.path,
                               server_engine_below(info.engine), wanted);
        (void)kvfs_volume_close(v, NULL);
    }
    return r < 0 ? r : kvfs_volume_log(params->volume, params->log, false, err);
}

static int
server_open_volume(const struct kparams *params, struct kvfs_volume **vp, struct kvfs_error *err)
{
    struct kvfs_volume_options options = {
        .engine = params->engine,
        .engine_params = params->engine_params,
        .readonly = params->readonly,
        .cache_bytes = params->cache_bytes,
        .commit_interval_ms = params->commit_interval_ms,
    };
    char engine[ENGINE_NAME_CAP];
    struct kvfs_error why = {0};
    int r = params->log_given ? server_log(params, &why) : 0;

    if (params->log_given && params->engine != NULL) { /* what it is called from now on */
        (void)snprintf(engine, sizeof(engine), "%s%s", params->log ? LOG_PREFIX : "",
                       server_engine_below(params->engine));
        options.engine = engine;
    }

    if (r >= 0)
        r = kvfs_volume_open(params->volume, &options, vp, &why);

    if (r == -ENOENT)
        return kvfs_error_set(err, r, "%s (to make a volume: kvfs format %s)", why.msg,
                              strlen(params->volume) < SHOWN_MAX ? params->volume : "PATH");
    if (r == -EROFS && !params->readonly)
        return kvfs_error_set(err, r, "%s (" READ_HINT ")", why.msg);
    if (r < 0)
        return kvfs_error_set(err, r, "%s", why.msg);
    return 0;
}

/* What the engine does not keep: said once, or reason enough not to serve. */
static int
server_check_caps(struct kvfs_volume *v, const struct kparams *params, struct kvfs_error *err)
{
    struct kvfs_volume_info info;

    kvfs_volume_info(v, &info);
    if (params->readonly || (info.engine_caps & KVFS_CAP_DURABLE) != 0)
        return 0;
    if (params->strict)
        return kvfs_error_set(err, -ENOTSUP,
                              "strict=true: a flush on engine %s is not proof against a power cut",
                              info.engine);
    if ((info.engine_caps & KVFS_CAP_PERSISTENT) != 0)
        nbdkit_error("WARNING: a flush on engine %s is NOT PROOF AGAINST A POWER CUT: what clients "
                     "were told is on stable storage may be lost or damaged (strict=true refuses "
                     "to serve)", info.engine);
    return 0;
}

/* Make file= with the size of create=, if it is not there. */
static int
server_create(struct kvfs_volume *v, const struct kparams *params, struct kvfs_error *err)
{
    struct kvfs_create create = {
        .mode = S_IFREG | 0600,
        .uid = (uint32_t)getuid(),
        .gid = (uint32_t)getgid(),
        .size_bytes = params->create_bytes,
        .block_size_bytes = params->block_size_bytes,
    };
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;
    int r = kvfs_path_parent(v, params->file, &dir, name, err);

    if (r == 0)
        r = kvfs_create(v, dir, name, &create, NULL, err);
    if (r == 0)
        return kvfs_volume_sync(v, err);
    return r == -EEXIST ? 0 : r;
}

/* Find file= and open it for writing; *FILEP becomes NULL if it cannot be
 * written anyway.  What create= did not make may be of another block size. */
static int
server_open_default(struct kvfs_volume *v, const struct kparams *params, struct kvfs_file **filep,
                    struct kvfs_error *err)
{
    struct kvfs_error why = {0};
    struct kvfs_attr attr;
    int r = kexports_find(v, params->file, &attr, err);

    *filep = NULL;
    if (r < 0)
        return r;
    if (params->block_size_bytes != 0 && params->block_size_bytes != attr.block_size_bytes)
        return kvfs_error_set(err, -EINVAL,
                              "block-size=%u: the file '%.*s' is there already, with blocks of %u "
                              "bytes",
                              params->block_size_bytes, SHOWN_MAX, params->file,
                              attr.block_size_bytes);
    if (params->readonly)
        return 0;
    r = kvfs_file_open(v, attr.ino, KVFS_OPEN_WRITE, filep, &why);
    if (r == -EBUSY)
        return kvfs_error_set(err, r, "'%.*s': %s (" READ_HINT ")", SHOWN_MAX, params->file,
                              why.msg);
    return r < 0 ? kvfs_error_set(err, r, "'%.*s': %s", SHOWN_MAX, params->file, why.msg) : 0;
}

static int
server_probe_here(const struct kparams *params, struct kvfs_error *err)
{
    struct kvfs_volume *v;
    struct kvfs_error why = {0};
    struct kvfs_file *f = NULL;
    int r = server_open_volume(params, &v, err);
    int closed;

    if (r < 0)
        return r;
    r = server_check_caps(v, params, &why);
    if (r == 0 && params->create_bytes != 0)
        r = server_create(v, params, &why);
    if (r == 0 && params->file != NULL)
        r = server_open_default(v, params, &f, &why);
    if (f != NULL)
        kvfs_file_close(f);
    closed = kvfs_volume_close(v, r == 0 ? &why : NULL);
    if (r == 0)
        r = closed;
    return r < 0 ? kvfs_error_set(err, r, "%s: %s", params->volume, why.msg) : 0;
}

/* The number that an argument of -u or -g is, or -1. */
static long
server_id(const char *text)
{
    char *end;
    long id = strtol(text, &end, 0);

    return *text == '\0' || *end != '\0' || id < 0 || id >= UINT32_MAX ? -1 : id;
}

/* -u and -g, as nbdkit will do it; -1 if it will fail, and say why. */
static int
server_change_user(const struct kcmdline *nbdkit)
{
    if (nbdkit->group != NULL) {
        /* One thread runs here. */
        const struct group *found = getgrnam(nbdkit->group); // NOLINT(concurrency-mt-unsafe)
        long id = found != NULL ? (long)found->gr_gid : server_id(nbdkit->group);
        gid_t gid = (gid_t)id;

        if (id < 0 || setgid(gid) < 0 || setgroups(1, &gid) < 0)
            return -1;
    }
    if (nbdkit->user != NULL) {
        const struct passwd *found = getpwnam(nbdkit->user); // NOLINT(concurrency-mt-unsafe)
        long id = found != NULL ? (long)found->pw_uid : server_id(nbdkit->user);

        if (id < 0 || setuid((uid_t)id) < 0)
            return -1;
    }
    return 0;
}

int
kserver_probe(const struct kparams *params, const struct kcmdline *nbdkit, struct kvfs_error *err)
{
    struct kvfs_error said = {0};
    int fds[2], status = 0;
    ssize_t n;
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) < 0)
        return kvfs_error_set(err, -errno, "pipe: %s", strerrordesc_np(errno));
    pid = fork();
    if (pid < 0) {
        int code = -errno;

        close(fds[0]);
        close(fds[1]);
        return kvfs_error_set(err, code, "fork: %s", strerrordesc_np(-code));
    }
    if (pid == 0) {
        int r;

        if (server_change_user(nbdkit) < 0)
            _exit(0);
        r = server_probe_here(params, &said);
        /* Less than PIPE_BUF: written whole. */
        if (r < 0 && write(fds[1], &said, sizeof(said)) != (ssize_t)sizeof(said))
            _exit(2);
        _exit(r < 0);
    }
    close(fds[1]);
    do {
        n = read(fds[0], &said, sizeof(said));
    } while (n < 0 && errno == EINTR);
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (n == (ssize_t)sizeof(said))
        return kvfs_error_set(err, said.code, "%s", said.msg);
    return kvfs_error_set(err, -EIO, "%s: the process that tried the volume died (status 0x%x)",
                          params->volume, (unsigned)status);
}

/* --- the closer ------------------------------------------------------------ */

/* 0, or why not; said once only, as it is tried again and again. */
static int
server_commit(struct kvfs_volume *v, int before)
{
    struct kvfs_error err = {0};
    struct kvfs_volume_stat stat;
    int r;

    if (kvfs_volume_stat(v, &stat, NULL) == 0 && stat.dirty_bytes == 0)
        return 0;
    r = kvfs_volume_sync(v, &err);
    if (r < 0 && r != before)
        nbdkit_error("committing at the end: %s", err.msg);
    return r;
}

static void *
server_closer_main(void *arg)
{
    struct kvfs_volume *v = arg;
    struct timespec until;
    int r = 0;

    kquit_wait();
    pthread_mutex_lock(&server_lock);
    while (!server_ending) {
        pthread_mutex_unlock(&server_lock);
        r = server_commit(v, r);
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += CLOSER_INTERVAL_MS * 1000000L;
        if (until.tv_nsec >= 1000000000L) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000L;
        }
        pthread_mutex_lock(&server_lock);
        if (!server_ending)
            pthread_cond_timedwait(&server_end, &server_lock, &until);
    }
    pthread_mutex_unlock(&server_lock);
    return NULL;
}

int
kserver_start(const struct kparams *params, struct kvfs_error *err)
{
    struct kvfs_volume *v;
    int r = server_open_volume(params, &v, err);

    if (r < 0)
        return r;
    server_v = v;
    if (params->readonly)
        return 0;
    if (params->file != NULL && (r = server_open_default(v, params, &server_default, err)) < 0) {
        kserver_stop();
        return r;
    }
    kquit_watch();
    r = pthread_create(&server_closer, NULL, server_closer_main, v);
    if (r != 0) {
        kquit_unwatch();
        kserver_stop();
        return kvfs_error_set(err, -r, "pthread_create: %s", strerrordesc_np(r));
    }
    server_has_closer = true;
    return 0;
}

void
kserver_stop(void)
{
    struct kvfs_error err = {0};
    struct kvfs_volume *v;

    pthread_mutex_lock(&server_lock);
    server_ending = true;
    pthread_cond_broadcast(&server_end);
    pthread_mutex_unlock(&server_lock);
    if (server_has_closer) {
        kquit_unwatch();
        kquit_wake(); /* where no signal came: nbdkit -s, a filter */
        pthread_join(server_closer, NULL);
        server_has_closer = false;
    }
    for (struct kserver_conn *c = server_conns, *next; c != NULL; c = next) {
        next = c->next;
        kserver_conn_close(c);
    }
    if (server_default != NULL)
        kvfs_file_close(server_default);
    server_default = NULL;
    v = server_v;
    server_v = NULL;
    if (v != NULL && kvfs_volume_close(v, &err) < 0)
        nbdkit_error("closing the volume: %s", err.msg);
}

struct kvfs_volume *
kserver_volume(void)
{
    return server_v;
}

/* --- connections ------------------------------------------------------------ */

/* A writer sees everything at once.  A reader (nbdkit -r, readonly=true) gets one
 * instant: what another process writes meanwhile comes in commits, and a file
 * system must not change under a mount.  nbdkit knows readers and writers only
 * for a whole server, so none shares a process with a writer. */
static int
server_conn_attach(struct kserver_conn *c, uint64_t ino, bool readonly, struct kvfs_error *err)
{
    int r;

    if (readonly) {
        r = kvfs_snapshot_open(server_v, &c->snapshot, err);
        return r < 0 ? r : kvfs_snapshot_info(c->snapshot, ino, &c->info, err);
    }
    r = kvfs_file_open(server_v, ino, KVFS_OPEN_WRITE, &c->file, err);
    if (r == 0)
        r = kvfs_file_refresh(c->file, err);
    if (r == 0)
        kvfs_file_info(c->file, &c->info);
    return r;
}

static void
server_conn_free(struct kserver_conn *c)
{
    if (c->file != NULL)
        kvfs_file_close(c->file);
    if (c->snapshot != NULL)
        kvfs_snapshot_close(c->snapshot);
    pthread_mutex_destroy(&c->snapshot_lock);
    free(c);
}

int
kserver_conn_open(uint64_t ino, bool readonly, struct kserver_conn **connp, struct kvfs_error *err)
{
    struct kserver_conn *c = calloc(1, sizeof(*c));
    int r;

    if (c == NULL)
        return kvfs_error_set(err, -ENOMEM, "no memory for a connection");
    pthread_mutex_init(&c->snapshot_lock, NULL);
    pthread_mutex_lock(&server_lock);
    if (server_ending)
        r = kvfs_error_set(err, -ESHUTDOWN, "the server is ending");
    else
        r = server_conn_attach(c, ino, readonly, err);
    if (r == 0) {
        c->next = server_conns;
        if (c->next != NULL)
            c->next->prev = c;
        server_conns = c;
    }
    pthread_mutex_unlock(&server_lock);
    if (r < 0) {
        server_conn_free(c);
        return r;
    }
    *connp = c;
    return 0;
}

void
kserver_conn_close(struct kserver_conn *c)
{
    pthread_mutex_lock(&server_lock);
    if (c->prev != NULL)
        c->prev->next = c->next;
    else
        server_conns = c->next;
    if (c->next != NULL)
        c->next->prev = c->prev;
    pthread_mutex_unlock(&server_lock);
    server_conn_free(c);
}
