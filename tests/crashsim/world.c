/* SPDX-License-Identifier: BSD-3-Clause
 *
 * world.c - see world.h.
 *
 * nbdkit gets a socket that listens already, so a client may connect at once and waits in the
 * kernel until it is served; the control socket exists when the first client has been greeted.
 */
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORLD_ARGS_MAX 32

void
world_die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was started a line above */
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fputc('\n', stderr);
    exit(1);
}

void
world_begin(struct world *w)
{
    if (getenv("KVFS_CRASHSIM_FILTER") == NULL || getenv("KVFS_CRASHSIMCTL") == NULL ||
        system("nbdkit --version >/dev/null 2>&1") != 0) {
        printf("skipped: needs nbdkit, KVFS_CRASHSIM_FILTER and KVFS_CRASHSIMCTL\n");
        exit(77);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    memset(w, 0, sizeof(*w));
    strcpy(w->dir, "/tmp/crashsim-test-XXXXXX");
    if (mkdtemp(w->dir) == NULL)
        world_die("%s: %s", w->dir, strerror(errno));
    (void)snprintf(w->socket, sizeof(w->socket), "%s/nbd", w->dir);
    (void)snprintf(w->control, sizeof(w->control), "%s/control", w->dir);
    (void)snprintf(w->record, sizeof(w->record), "%s/record", w->dir);
    (void)snprintf(w->log, sizeof(w->log), "%s/log", w->dir);
}

static int
world_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void
world_end(struct world *w)
{
    if (w->pid != 0)
        world_kill(w);
    if (nftw(w->dir, world_remove, 16, FTW_DEPTH | FTW_PHYS) != 0)
        world_die("cannot remove %s", w->dir);
}

static void
world_exec(struct world *w, const char *const *args)
{
    const char *argv[WORLD_ARGS_MAX] = {"nbdkit", "-f", "-t", "8", "--filter"};
    const char *preload = getenv("KVFS_PRELOAD"), *asan = getenv("ASAN_OPTIONS");
    char control[128], options[512];
    int n = w->plain ? 4 : 5, log = open(w->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (log < 0 || dup2(log, STDERR_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(126);
    if (!w->plain)
        argv[n++] = getenv("KVFS_CRASHSIM_FILTER");
    for (; *args != NULL && n < WORLD_ARGS_MAX - 2; args++)
        argv[n++] = *args;
    (void)snprintf(control, sizeof(control), "crashsim-control=%s", w->control);
    if (!w->plain)
        argv[n++] = control;
    argv[n] = NULL;
    if (preload != NULL && *preload != '\0') {
        setenv("LD_PRELOAD", preload, 1);
        (void)snprintf(options, sizeof(options), "%s:exitcode=0", asan != NULL ? asan : "");
        setenv("ASAN_OPTIONS", options, 1); /* nbdkit itself leaks a little; world_check() */
    }
    execvp("nbdkit", (char *const *)(uintptr_t)argv);
    _exit(127);
}

void
world_start(struct world *w, const char *const *args)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct nbd_handle *nbd;
    char pid[24];

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", w->socket);
    (void)unlink(w->socket);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0)
        world_die("%s: %s", w->socket, strerror(errno));
    w->pid = fork();
    if (w->pid < 0)
        world_die("fork: %s", strerror(errno));
    if (w->pid == 0) {
        (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
        setenv("LISTEN_PID", pid, 1);
        setenv("LISTEN_FDS", "1", 1);
        if (fd == 3)
            (void)fcntl(fd, F_SETFD, 0);
        else
            (void)dup2(fd, 3);
        world_exec(w, args);
    }
    close(fd);
    nbd = world_connect(w);
    nbd_close(nbd);
}

static char *
world_read_log(const struct world *w)
{
    char *text = calloc(1, 1 << 16);
    FILE *fp = fopen(w->log, "r");

    if (text == NULL)
        world_die("no memory");
    if (fp != NULL) {
        (void)fread(text, 1, (1 << 16) - 1, fp);
        (void)fclose(fp);
    }
    return text;
}

static void
world_wait(struct world *w, int want)
{
    char *log;
    int status;

    while (waitpid(w->pid, &status, 0) < 0) {
        if (errno != EINTR)
            world_die("waitpid: %s", strerror(errno));
    }
    w->pid = 0;
    log = world_read_log(w);
    if (strstr(log, "ERROR: AddressSanitizer") != NULL || strstr(log, "runtime error") != NULL ||
        strstr(log, "WARNING: ThreadSanitizer") != NULL ||
        (want == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)))
        world_die("nbdkit ended with status %x: %s", (unsigned)status, log);
    /* A leak is ours if what allocated it (frame 1) is in the filter. */
    for (const char *at = log; (at = strstr(at, "leak of ")) != NULL; at++) {
        const char *frame = strstr(at, "    #1 ");

        if (frame != NULL && memmem(frame, strcspn(frame, "\n"), "crashsim", 8) != NULL)
            world_die("the filter leaks: %s", log);
    }
    free(log);
}

void
world_stop(struct world *w)
{
    if (kill(w->pid, SIGTERM) < 0)
        world_die("kill: %s", strerror(errno));
    world_wait(w, 0);
}

void
world_kill(struct world *w)
{
    if (kill(w->pid, SIGKILL) < 0)
        world_die("kill: %s", strerror(errno));
    world_wait(w, -1);
}

struct nbd_handle *
world_connect(const struct world *w)
{
    struct nbd_handle *nbd = nbd_create();

    if (nbd == NULL || nbd_set_strict_mode(nbd, LIBNBD_STRICT_COMMANDS | LIBNBD_STRICT_FLAGS) < 0)
        world_die("libnbd: %s", nbd_get_error());
    if (nbd_connect_unix(nbd, w->socket) < 0)
        world_die("connect: %s; nbdkit said: %s", nbd_get_error(), world_read_log(w));
    return nbd;
}

int
world_ctl(const struct world *w, const char *command, char **out)
{
    char line[1024];
    size_t used = 0, n;
    char *text = calloc(1, 16384);
    FILE *fp;
    int status;

    (void)snprintf(line, sizeof(line), "'%s' '%s' %s 2>&1", getenv("KVFS_CRASHSIMCTL"),
                   w->control, command);
    fp = text != NULL ? popen(line, "r") : NULL; // NOLINT(cert-env33-c)
    if (fp == NULL)
        world_die("popen: %s", strerror(errno));
    while ((n = fread(text + used, 1, 16383 - used, fp)) > 0)
        used += n;
    status = pclose(fp);
    if (out != NULL)
        *out = text;
    else
        free(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

uint64_t
world_stat(const struct world *w, const char *key)
{
    char *text, *at, want[64];
    uint64_t n;

    if (world_ctl(w, "stats", &text) != 0)
        world_die("stats: %s", text);
    (void)snprintf(want, sizeof(want), "\n%s=", key);
    at = strstr(text, want);
    if (at == NULL)
        world_die("stats have no %s: %s", key, text);
    n = strtoull(at + strlen(want), NULL, 10);
    free(text);
    return n;
}
