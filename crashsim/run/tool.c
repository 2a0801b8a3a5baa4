/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tool.c - see tool.h.
 */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOOL_READY_MS 60000

/* In the child: become the program. */
static void
tool_become(const struct place *p, const char *const argv[], const char *preload, pid_t parent)
{
    char path[PLACE_NAME_MAX];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int log =
        open(place_name(p, "tools.err", path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127);
    (void)setpgid(0, 0); /* an interrupt from the terminal is for us, who end them in order */
    (void)dup2(null, 0);
    (void)dup2(null, 1);
    (void)dup2(log, 2);
    if (preload != NULL && *preload != '\0')
        (void)setenv("LD_PRELOAD", preload, 1); // NOLINT(concurrency-mt-unsafe): one thread
    (void)execvp(argv[0], (char *const *)(uintptr_t)argv); /* it only reads them */
    (void)fprintf(stderr, "%s: %s\n", argv[0], strerrordesc_np(errno));
    _exit(127);
}

static bool
tool_is_in(const char *path, const char *name)
{
    char file[4096];

    while (*path != '\0') {
        size_t len = strcspn(path, ":");

        if (snprintf(file, sizeof(file), "%.*s/%s", len == 0 ? 1 : (int)len, len == 0 ? "." : path,
                     name) < (int)sizeof(file) &&
            access(file, X_OK) == 0)
            return true;
        path += len + (path[len] == ':');
    }
    return false;
}

int
tool_look(const char *const names[], struct kvfs_error *err)
{
    const char *path = getenv("PATH"); // NOLINT(concurrency-mt-unsafe): nobody sets it

    for (size_t i = 0; names[i] != NULL; i++) {
        if (!tool_is_in(path != NULL ? path : "/bin:/usr/bin", names[i]))
            return kvfs_error_set(err, -ENOENT, "%s is needed, and not in $PATH", names[i]);
    }
    return 0;
}

void
tool_quiet(const struct place *p)
{
    char path[PLACE_NAME_MAX];
    int log =
        open(place_name(p, "tools.err", path), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

    if (log >= 0) {
        (void)dup2(log, STDERR_FILENO);
        (void)close(log);
    }
}

/* The end of what the tools said, on one line. */
static int
tool_failed(const struct place *p, const char *name, struct kvfs_error *err)
{
    char path[PLACE_NAME_MAX], text[161] = "";
    FILE *f = fopen(place_name(p, "tools.err", path), "re");
    size_t n = 0;

    if (f != NULL) {
        if (fseek(f, -(long)(sizeof(text) - 1), SEEK_END) != 0)
            rewind(f);
        n = fread(text, 1, sizeof(text) - 1, f);
        (void)fclose(f);
    }
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n] = '\0';
    for (char *end = text; (end = strchr(end, '\n')) != NULL;)
        *end = ' ';
    if (place_is_full(p))
        return kvfs_error_set(err, -ENOSPC, "%s failed: %s is full", name, p->path);
    return kvfs_error_set(err, -EIO, "%s failed: %s", name, text);
}

int
tool_run(const struct place *p, const char *const argv[], struct kvfs_error *err)
{
    return tool_run_preloaded(p, argv, NULL, err);
}

int
tool_run_preloaded(const struct place *p, const char *const argv[], const char *preload,
                   struct kvfs_error *err)
{
    pid_t self = getpid(), pid = fork();
    int status = 0;

    if (pid < 0)
        return kvfs_error_set(err, -errno, "fork: %s", strerrordesc_np(errno));
    if (pid == 0)
        tool_become(p, argv, preload, self);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (status == 0)
        return 0;
    (void)tool_failed(p, argv[0], err);
    return WIFSIGNALED(status) ? -EINTR : WEXITSTATUS(status) == 127 ? -ENOENT : -EIO;
}

static int
tool_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int
tool_serve(const struct place *p, const char *const argv[], const char *ready, const char *preload,
           pid_t *pidp, struct kvfs_error *err)
{
    char path[PLACE_NAME_MAX];
    struct pollfd fds[2] = {{.events = POLLIN}, {.events = POLLIN}};
    pid_t self = getpid(), pid;
    int r;

    (void)unlink(place_name(p, ready, path));
    if (mkfifo(path, 0600) < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    fds[0].fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fds[0].fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    pid = fork();
    if (pid == 0)
        tool_become(p, argv, preload, self);
    if (pid < 0) {
        (void)close(fds[0].fd);
        return kvfs_error_set(err, -errno, "fork: %s", strerrordesc_np(errno));
    }
    place_note_pid(p, pid);
    fds[1].fd = tool_pidfd(pid);
    do
        r = poll(fds, 2, TOOL_READY_MS);
    while (r < 0 && errno == EINTR);
    (void)close(fds[0].fd);
    (void)close(fds[1].fd);
    if ((fds[0].revents & POLLIN) == 0) {
        (void)tool_end(pid, SIGKILL);
        return tool_failed(p, argv[0], err);
    }
    *pidp = pid;
    return 0;
}

int
tool_end(pid_t pid, int signal)
{
    int status = 0;

    if (pid <= 0)
        return 0;
    if (signal != 0)
        (void)kill(pid, signal);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

bool
tool_wait(pid_t pid, unsigned ms, int *status)
{
    struct pollfd fd = {.fd = tool_pidfd(pid), .events = POLLIN};
    bool ended;
    int r;

    do
        r = poll(&fd, 1, (int)ms);
    while (r < 0 && errno == EINTR);
    ended = r > 0;
    if (fd.fd >= 0)
        (void)close(fd.fd);
    *status = tool_end(pid, ended ? 0 : SIGKILL);
    return ended;
}
