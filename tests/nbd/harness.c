/* SPDX-License-Identifier: BSD-3-Clause
 *
 * harness.c - see harness.h.
 *
 * nbdkit gets its socket by socket activation: it is listening before nbdkit
 * runs, so a client need not ask again and again whether it is there yet.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <kvfs/kvfs.h>

void
harness_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    exit(1);
}

void
harness_need_nbdkit(void)
{
    const char *plugin = getenv("KVFS_PLUGIN");

    if (plugin == NULL || access(plugin, R_OK) < 0 || !chosen_is_there() ||
        system("nbdkit --version >/dev/null 2>&1") != 0) {
        printf("skipped: needs nbdkit, KVFS_PLUGIN and the engine %s\n", chosen_engine());
        exit(77);
    }
    (void)signal(SIGPIPE, SIG_IGN);
}

static void
harness_make_dir(struct harness *h)
{
    const char *tmp = getenv("TMPDIR");

    memset(h, 0, sizeof(*h));
    /* A socket's path is at most 107 bytes. */
    if (tmp == NULL || strlen(tmp) > 40)
        tmp = "/tmp";
    (void)snprintf(h->dir, sizeof(h->dir), "%s/kvfs-nbd-XXXXXX", tmp);
    if (mkdtemp(h->dir) == NULL)
        harness_die("%s: %s", h->dir, strerror(errno));
    (void)snprintf(h->volume, sizeof(h->volume), "%s/volume", h->dir);
    (void)snprintf(h->socket, sizeof(h->socket), "%s/socket", h->dir);
    (void)snprintf(h->log, sizeof(h->log), "%s/log", h->dir);
}

static void
harness_format(struct harness *h)
{
    struct kvfs_format_options options = {.engine = chosen_engine()};
    struct kvfs_error err = {0};

    if (kvfs_format(h->volume, &options, &err) < 0)
        harness_die("format: %s", err.msg);
}

void
harness_begin(struct harness *h)
{
    harness_make_dir(h);
    harness_format(h);
}

void
harness_begin_tmpfs(struct harness *h, const char *options)
{
    harness_make_dir(h);
    if (mount("kvfs-test", h->dir, "tmpfs", 0, options) < 0) {
        printf("skipped: cannot mount a tmpfs: %s\n", strerror(errno));
        (void)rmdir(h->dir);
        exit(77);
    }
    h->mounted = true;
    harness_format(h);
}

static int
harness_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void
harness_end(struct harness *h)
{
    if (h->pid != 0)
        harness_kill(h);
    if (h->mounted && umount2(h->dir, MNT_DETACH) < 0)
        harness_die("umount %s: %s", h->dir, strerror(errno));
    if (nftw(h->dir, harness_remove, 16, FTW_DEPTH | FTW_PHYS) != 0)
        harness_die("cannot remove %s", h->dir);
}

void
harness_create(struct harness *h, const char *path, uint64_t size_bytes, uint32_t block_size_bytes)
{
    struct kvfs_create create = {
        .mode = S_IFREG | 0600,
        .size_bytes = size_bytes,
        .block_size_bytes = block_size_bytes,
    };
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    char name[KVFS_NAME_MAX + 1];
    uint64_t dir;

    if (kvfs_volume_open(h->volume, NULL, &v, &err) < 0 ||
        kvfs_path_parent(v, path, &dir, name, &err) < 0 ||
        kvfs_create(v, dir, name, &create, NULL, &err) < 0 || kvfs_volume_close(v, &err) < 0)
        harness_die("create %s: %s", path, err.msg);
}

void
harness_second(const struct harness *h, struct harness *second)
{
    *second = *h;
    (void)snprintf(second->socket, sizeof(second->socket), "%s/socket2", h->dir);
    (void)snprintf(second->log, sizeof(second->log), "%s/log2", h->dir);
    second->pid = 0;
}

int
harness_peek(const struct harness *h, const char *path, void *buf, size_t count, uint64_t offset)
{
    struct kvfs_volume_options options = {.readonly = true};
    struct kvfs_error err = {0};
    struct kvfs_volume *v;
    struct kvfs_file *f;
    struct kvfs_attr attr;
    int r;

    if (kvfs_volume_open(h->volume, &options, &v, &err) < 0)
        harness_die("peek: %s", err.msg);
    r = kvfs_path_lookup(v, path, true, &attr, &err);
    if (r == 0)
        r = kvfs_file_open(v, attr.ino, KVFS_OPEN_READ, &f, &err);
    if (r == 0) {
        r = kvfs_file_pread(f, buf, count, offset, &err);
        kvfs_file_close(f);
    }
    if (kvfs_volume_close(v, &err) < 0)
        harness_die("peek: %s", err.msg);
    return r;
}

/* --- nbdkit ------------------------------------------------------------------- */

static int
harness_listen(struct harness *h)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", h->socket);
    (void)unlink(h->socket);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
        harness_die("%s: %s", h->socket, strerror(errno));
    return fd;
}

/* In the child: become nbdkit.  HEAD and those of ARGS that begin with '-' come
 * before the plugin. */
static void
harness_exec(struct harness *h, const char *const *head, const char *volume,
             const char *const *args)
{
    const char *argv[HARNESS_KVFS_ARGS_MAX + 16] = {"nbdkit"};
    const char *preload = getenv("KVFS_PRELOAD"), *asan = getenv("ASAN_OPTIONS");
    char options[512];
    int n = 1, log = open(h->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    /* A test that fails must not leave a server behind. */
    if (log < 0 || dup2(log, STDERR_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(126);
    for (size_t i = 0; head[i] != NULL; i++)
        argv[n++] = head[i];
    for (size_t i = 0; args != NULL && args[i] != NULL; i++) {
        if (args[i][0] == '-')
            argv[n++] = args[i];
    }
    argv[n++] = getenv("KVFS_PLUGIN");
    if (volume != NULL)
        argv[n++] = volume;
    for (size_t i = 0; args != NULL && args[i] != NULL && n < HARNESS_KVFS_ARGS_MAX + 15; i++) {
        if (args[i][0] != '-')
            argv[n++] = args[i];
    }
    argv[n] = NULL;
    if (preload != NULL && *preload != '\0') {
        setenv("LD_PRELOAD", preload, 1);
        (void)snprintf(options, sizeof(options), "%s:exitcode=0", asan != NULL ? asan : "");
        setenv("ASAN_OPTIONS", options, 1); /* see harness_check_leaks() */
    }
    execvp("nbdkit", (char *const *)(uintptr_t)argv);
    _exit(127);
}

void
harness_start(struct harness *h, const char *const *args, const char *env)
{
    static const char *const head[] = {"-f", NULL};
    int fd = harness_listen(h);
    char pid[24];

    h->pid = fork();
    if (h->pid < 0)
        harness_die("fork: %s", strerror(errno));
    if (h->pid == 0) {
        (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "1", 1);
        if (env != NULL)
            putenv((char *)(uintptr_t)env);
        if (fd == 3)
            (void)fcntl(fd, F_SETFD, 0);
        else
            (void)dup2(fd, 3);
        harness_exec(h, head, h->volume, args);
    }
    close(fd);
}

/* A sanitized plugin tells of leaks when nbdkit ends.  nbdkit itself leaks a
 * little, so its exit status says nothing; a leak is ours if what allocated it
 * (frame 1) is not nbdkit. */
static void
harness_check_leaks(const struct harness *h)
{
    char *log = harness_log(h);

    for (const char *at = log; (at = strstr(at, "leak of ")) != NULL; at++) {
        const char *frame = strstr(at, "    #1 ");

        if (frame == NULL || memmem(frame, strcspn(frame, "\n"), "bin/nbdkit+", 11) == NULL)
            harness_die("the plugin leaks: %s", log);
    }
    free(log);
}

static void
harness_wait(struct harness *h)
{
    while (waitpid(h->pid, &h->status, 0) < 0) {
        if (errno != EINTR)
            harness_die("waitpid: %s", strerror(errno));
    }
    h->pid = 0;
    harness_check_leaks(h);
}

int
harness_daemon(struct harness *h, const char *volume, const char *const *args)
{
    char pidfile[128];
    const char *head[] = {"-U", h->socket, "-P", pidfile, NULL};

    (void)snprintf(pidfile, sizeof(pidfile), "%s/pid", h->dir);
    (void)unlink(h->socket);
    h->pid = fork();
    if (h->pid < 0)
        harness_die("fork: %s", strerror(errno));
    if (h->pid == 0)
        harness_exec(h, head, volume, args);
    harness_wait(h);
    return WIFEXITED(h->status) ? WEXITSTATUS(h->status) : -1;
}

int
harness_stop(struct harness *h)
{
    if (kill(h->pid, SIGTERM) < 0)
        harness_die("kill: %s", strerror(errno));
    harness_wait(h);
    return WIFEXITED(h->status) ? WEXITSTATUS(h->status) : -1;
}

void
harness_kill(struct harness *h)
{
    if (kill(h->pid, SIGKILL) < 0)
        harness_die("kill: %s", strerror(errno));
    harness_wait(h);
}

char *
harness_log(const struct harness *h)
{
    size_t cap = 1 << 16, n = 0;
    char *text = calloc(1, cap + 1);
    FILE *fp = fopen(h->log, "r");

    if (text == NULL)
        harness_die("no memory");
    if (fp != NULL) {
        n = fread(text, 1, cap, fp);
        (void)fclose(fp);
    }
    text[n] = '\0';
    return text;
}

unsigned
harness_warnings_expected(void)
{
    return chosen_has(KVFS_CAP_DURABLE) ? 0 : 1;
}

unsigned
harness_cut_warnings(char *log)
{
    unsigned count = 0;

    for (char *at = log; (at = strstr(at, "nbdkit: ")) != NULL;) {
        size_t len = strcspn(at, "\n");

        if (memmem(at, len, "NOT PROOF AGAINST A POWER CUT", 29) == NULL) {
            at += len;
            continue;
        }
        count++;
        memmove(at, at + len, strlen(at + len) + 1);
    }
    return count;
}

/* --- clients ------------------------------------------------------------------ */

struct nbd_handle *
harness_try_connect(struct harness *h, const char *export)
{
    struct nbd_handle *nbd = nbd_create();

    if (nbd == NULL || nbd_set_export_name(nbd, export) < 0 || nbd_set_full_info(nbd, true) < 0 ||
        nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
        nbd_set_strict_mode(nbd, LIBNBD_STRICT_COMMANDS | LIBNBD_STRICT_FLAGS) < 0)
        harness_die("libnbd: %s", nbd_get_error());
    if (nbd_connect_unix(nbd, h->socket) < 0) {
        /* nbd_close() would forget why. */
        nbd_close(nbd);
        return NULL;
    }
    return nbd;
}

struct nbd_handle *
harness_connect(struct harness *h, const char *export)
{
    struct nbd_handle *nbd = harness_try_connect(h, export);

    if (nbd == NULL) {
        char *log = harness_log(h);

        harness_die("connect to '%s' failed; nbdkit said: %s", export, log);
    }
    return nbd;
}

void
harness_disconnect(struct nbd_handle *nbd)
{
    if (nbd_shutdown(nbd, 0) < 0)
        harness_die("shutdown: %s", nbd_get_error());
    nbd_close(nbd);
}

#define STATUS_MAX (((uint64_t)1 << 32) - 4096) /* of the protocol's 32 bits */

struct harness_status {
    struct harness_extents *extents;
    uint64_t at;
};

static int
harness_status_entries(void *arg, const char *context, uint64_t offset, uint32_t *entries,
                       size_t count, int *error)
{
    struct harness_status *status = arg;
    struct harness_extents *e = status->extents;

    (void)context;
    (void)error;
    if (offset != status->at)
        harness_die("block status of another place");
    for (size_t i = 0; i + 1 < count && status->at < e->end; i += 2) {
        uint64_t left = e->end - status->at, n = entries[i] < left ? entries[i] : left;
        bool hole = entries[i + 1] == (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO);

        if (n == 0 || (!hole && entries[i + 1] != 0))
            harness_die("block status: length %u, flags %u", entries[i], entries[i + 1]);
        if (e->count == 0 || e->extent[e->count - 1].hole != hole) {
            if (e->count == HARNESS_EXTENTS_MAX)
                harness_die("block status: too many extents");
            e->extent[e->count].count = 0;
            e->extent[e->count++].hole = hole;
        }
        e->extent[e->count - 1].count += n;
        status->at += n;
    }
    return 0;
}

void
harness_block_status(struct nbd_handle *nbd, uint64_t count, uint64_t offset,
                     struct harness_extents *extents)
{
    struct harness_status status = {.extents = extents, .at = offset};
    nbd_extent_callback entries = {.callback = harness_status_entries, .user_data = &status};

    memset(extents, 0, sizeof(*extents));
    extents->end = offset + count;
    while (status.at < extents->end) {
        uint64_t before = status.at, n = extents->end - before;

        n = n > STATUS_MAX ? STATUS_MAX : n;
        if (nbd_block_status(nbd, n, before, entries, 0) < 0)
            harness_die("block status: %s", nbd_get_error());
        if (status.at == before)
            harness_die("block status goes nowhere");
    }
}

/* --- small things --------------------------------------------------------------- */

uint64_t
harness_random(uint64_t *seed)
{
    uint64_t z = *seed += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t
harness_seed(void)
{
    const char *text = getenv("KVFS_SEED");
    struct timespec now;
    uint64_t seed;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    seed = text != NULL && *text != '\0' ? strtoull(text, NULL, 0)
                                         : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    printf("KVFS_SEED=%llu\n", (unsigned long long)seed);
    (void)fflush(stdout);
    return seed;
}

uint64_t
harness_memory(const struct harness *h)
{
    char path[64], line[256];
    uint64_t sum = 0;
    FILE *fp;

    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)h->pid);
    fp = fopen(path, "r");
    if (fp == NULL)
        harness_die("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof(line), fp) != NULL) {
        if (strncmp(line, "RssAnon:", 8) == 0 || strncmp(line, "RssShmem:", 9) == 0)
            sum += strtoull(strchr(line, ':') + 1, NULL, 10) * 1024;
    }
    (void)fclose(fp);
    return sum;
}
