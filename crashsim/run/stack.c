/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stack.c - see stack.h.
 */
#include "stack.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tool.h"

#ifndef CRASHSIM_FILTER_DIR
#define CRASHSIM_FILTER_DIR "/usr/local/lib/nbdkit/filters"
#endif

const char STACK_PLAIN[] = "plain";

#define FILTER_FILE "nbdkit-crashsim-filter.so"

bool
stack_beside_program(const char *name, char *path, size_t cap)
{
    char self[3000];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    char *slash;

    self[n < 0 ? 0 : n] = '\0';
    slash = strrchr(self, '/');
    if (slash == NULL)
        return false;
    *slash = '\0';
    (void)snprintf(path, cap, "%s/%s", self, name);
    return access(path, R_OK) == 0;
}

const char *
stack_filter(void)
{
    static char path[4096];
    const char *said = getenv("KVFS_CRASHSIM_FILTER"); // NOLINT(concurrency-mt-unsafe)

    if (said != NULL && *said != '\0')
        return said;
    return stack_beside_program(FILTER_FILE, path, sizeof(path)) ? path
                                                                 : CRASHSIM_FILTER_DIR
               "/" FILTER_FILE;
}

static void
stack_name(const struct stack *s, const char *what, const char *name, char buf[PLACE_NAME_MAX])
{
    (void)snprintf(buf, PLACE_NAME_MAX, "%s/%s%s", s->place->path, name, what);
}

/* The names that follow from MNT, which ends in ".mnt". */
static const char *
stack_beside(const struct stack *s, const char *what, char buf[PLACE_NAME_MAX])
{
    (void)snprintf(buf, PLACE_NAME_MAX, "%.*s%s", (int)strlen(s->mnt) - 4, s->mnt, what);
    return buf;
}

int
stack_start(struct stack *s, const struct place *p, const char *name, const char *file,
            const char *preset, struct kvfs_error *err)
{
    char sock[PLACE_NAME_MAX], ready[PLACE_NAME_MAX], fuse[PLACE_NAME_MAX], pipe[64];
    char arg_control[PLACE_NAME_MAX + 32], arg_record[PLACE_NAME_MAX + 32];
    const char *argv[16] = {"nbdkit", "-f", "-P",       ready,          "-U",        sock,
                            "file",   file, "--filter", stack_filter(), arg_control, arg_record};

    *s = (struct stack){.place = p, .loop.fd = -1};
    (void)snprintf(s->file, sizeof(s->file), "%s", file);
    stack_name(s, ".mnt", name, s->mnt);
    stack_name(s, ".rec", name, s->record);
    stack_beside(s, ".sock", sock);
    stack_beside(s, ".ready", ready);
    (void)snprintf(pipe, sizeof(pipe), "%s.ready", name);
    (void)snprintf(arg_control, sizeof(arg_control), "crashsim-control=%s",
                   stack_beside(s, ".ctl", fuse));
    (void)snprintf(arg_record, sizeof(arg_record), "crashsim-record=%s", s->record);
    if (preset != NULL)
        (void)snprintf(arg_record, sizeof(arg_record), "crashsim-latency=%s", preset);
    if (preset == STACK_PLAIN)
        argv[8] = NULL;
    if (mkdir(s->mnt, 0700) < 0 && errno != EEXIST)
        return kvfs_error_set(err, -errno, "%s: %s", s->mnt, strerrordesc_np(errno));
    if (mkdir(stack_beside(s, ".fuse", fuse), 0700) < 0 && errno != EEXIST)
        return kvfs_error_set(err, -errno, "%s: %s", fuse, strerrordesc_np(errno));
    (void)unlink(sock);
    return tool_serve(p, argv, pipe, getenv("KVFS_PRELOAD"), // NOLINT(concurrency-mt-unsafe)
                      &s->server, err);
}

/* nbdfuse, and a loop device on its file. */
int
stack_attach(struct stack *s, struct kvfs_error *err)
{
    char uri[PLACE_NAME_MAX + 64], sock[PLACE_NAME_MAX], file[PLACE_NAME_MAX + 8];
    char fuse[PLACE_NAME_MAX], ready[PLACE_NAME_MAX];
    const char *argv[] = {"nbdfuse", "-P", ready, file, uri, NULL};
    int r;

    (void)snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", stack_beside(s, ".sock", sock));
    (void)snprintf(file, sizeof(file), "%s/disk", stack_beside(s, ".fuse", fuse));
    (void)stack_beside(s, ".fuse-ready", ready);
    r = tool_serve(s->place, argv, strrchr(ready, '/') + 1, NULL, &s->fuse, err);
    if (r < 0)
        return r;
    return loop_attach(file, &s->loop, err);
}

int
stack_mount(struct stack *s, struct kvfs_error *err)
{
    int r;

    r = disks_mount(s->place, &s->loop, s->mnt, NULL, err);
    s->mounted = r == 0;
    return r;
}

void
stack_detach(struct stack *s)
{
    char fuse[PLACE_NAME_MAX];

    if (s->mounted)
        disks_umount(s->mnt);
    s->mounted = false;
    loop_detach(&s->loop);
    if (s->fuse > 0) {
        /* The loop device lets go of its file a moment after its last close. */
        if (umount2(stack_beside(s, ".fuse", fuse), 0) < 0)
            (void)umount2(fuse, MNT_DETACH);
        (void)tool_end(s->fuse, 0);
    }
    s->fuse = 0;
}

void
stack_stop(struct stack *s)
{
    stack_detach(s);
    (void)tool_end(s->server, SIGTERM);
    s->server = 0;
}

int
stack_tell(const struct stack *s, const char *command, char *answer, size_t cap,
           struct kvfs_error *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char buf[8192], path[PLACE_NAME_MAX];
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r = 0;
    size_t used = 0;
    ssize_t n;

    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", stack_beside(s, ".ctl", path));
    (void)snprintf(buf, sizeof(buf), "%s\n", command);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        send(fd, buf, strlen(buf), MSG_NOSIGNAL) < 0)
        r = kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    while (r == 0 && used < sizeof(buf) - 1 &&
           (n = recv(fd, buf + used, sizeof(buf) - 1 - used, 0)) > 0)
        used += (size_t)n;
    if (fd >= 0)
        (void)close(fd);
    if (r < 0)
        return r;
    buf[used] = '\0';
    if (strncmp(buf, "ok\n", 3) != 0) {
        buf[strcspn(buf, "\n")] = '\0';
        return kvfs_error_set(err, -EREMOTEIO, "%s: %s", command, buf);
    }
    if (answer != NULL)
        (void)snprintf(answer, cap, "%s", buf + 3);
    return 0;
}

void
stack_remove(const struct stack *s)
{
    static const char *const ends[] = {"", ".side", ".1", ".1.side"};
    char path[PLACE_NAME_MAX + 8];

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s%s", s->record, ends[i]);
        (void)unlink(path);
    }
}
