/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.c - see control.h.
 *
 * 1. One thread answers one command after the other; a client has five seconds to say its line
 *    and to take the answer, so that no one keeps others out for good.
 * 2. A socket at the path that nobody listens at was left by a process that was killed, and is
 *    replaced; anything else there is refused.
 */
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "params.h"
#include "power.h"

#define CONTROL_LINE_MAX    1024
#define CONTROL_SECONDS_MAX 5

static struct {
    int fd, stop; /* -1: none */
    struct sockaddr_un addr;
    dev_t dev; /* of the socket that is ours */
    ino_t ino;
    pthread_t thread;
    bool running;
} control = {.fd = -1, .stop = -1};

/* --- commands --- */

static int
control_refuse(char *answer, const char *word, const char *why)
{
    (void)snprintf(answer, POWER_ANSWER_MAX, "%s: %s", word, why);
    return -1;
}

struct control_cut {
    struct crashsim_choice choice;
    bool seeded, armed;
    struct trigger trigger;
};

static int
control_cut_word(const char *word, struct control_cut *cut, char *answer)
{
    const char *value = strchr(word, '=');
    size_t len = value != NULL ? (size_t)(value++ - word) : 0;
    uint64_t *count = NULL;

    if (len == 7 && strncmp(word, "survive", len) == 0)
        return crashsim_choice_parse_survive(value, &cut->choice)
                   ? 0
                   : control_refuse(answer, word, "no such mode");
    if (len == 4 && strncmp(word, "tear", len) == 0)
        return crashsim_choice_parse_tear(value, &cut->choice.tear)
                   ? 0
                   : control_refuse(answer, word, "no such tear");
    if (len == 4 && strncmp(word, "seed", len) == 0) {
        cut->seeded = true;
        return crashsim_parse_number(value, &cut->choice.seed)
                   ? 0
                   : control_refuse(answer, word, "a number from 0 to 2^64-1 is wanted");
    }
    cut->armed = true;
    if (len == 7 && strncmp(word, "at-mark", len) == 0) {
        if (!crashsim_mark_is_good(value))
            return control_refuse(answer, word, "no good name");
        (void)snprintf(cut->trigger.mark, sizeof(cut->trigger.mark), "%s", value);
        return 0;
    }
    if (len == 12 && strncmp(word, "after-writes", len) == 0)
        count = &cut->trigger.after_writes;
    else if (len == 13 && strncmp(word, "after-flushes", len) == 0)
        count = &cut->trigger.after_flushes;
    else if (len == 6 && strncmp(word, "within", len) == 0)
        count = &cut->trigger.within;
    if (count == NULL)
        return control_refuse(answer, word, "a cut does not know this");
    if (!crashsim_parse_number(value, count) || *count == 0 || *count > (uint64_t)1 << 48)
        return control_refuse(answer, word, "a number from 1 is wanted");
    return 0;
}

static int
control_cut(char *rest, char *answer)
{
    struct control_cut cut = {.choice = params.choice};
    char *word;

    while ((word = strsep(&rest, " ")) != NULL) {
        if (*word != '\0' && control_cut_word(word, &cut, answer) < 0)
            return -1;
    }
    if (cut.armed)
        return power_arm(&cut.choice, cut.seeded, &cut.trigger, answer);
    return power_cut(&cut.choice, cut.seeded, answer);
}

static int
control_command(char *line, char *answer)
{
    char *rest = line, *word = strsep(&rest, " ");

    answer[0] = '\0';
    if (strcmp(word, "cut") == 0)
        return control_cut(rest, answer);
    if (strcmp(word, "mark") == 0) {
        if (rest == NULL || !crashsim_mark_is_good(rest))
            return control_refuse(answer, "mark", "a name of 255 printable bytes at most is wanted");
        return power_mark(rest, answer);
    }
    if (rest != NULL)
        return control_refuse(answer, word, "takes nothing more, or is no command");
    if (strcmp(word, "power-on") == 0)
        return power_on(answer);
    if (strcmp(word, "stats") == 0)
        return power_stats(answer);
    return control_refuse(answer, "no such command", word);
}

/* --- the socket --- */

static void
control_answer(int fd)
{
    static const struct timeval patience = {.tv_sec = CONTROL_SECONDS_MAX};
    char line[CONTROL_LINE_MAX], answer[POWER_ANSWER_MAX], *end;
    char out[POWER_ANSWER_MAX + 16];
    size_t used = 0, len;
    ssize_t n;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    do {
        n = recv(fd, line + used, sizeof(line) - 1 - used, 0);
        if (n <= 0)
            return;
        used += (size_t)n;
        line[used] = '\0';
        end = strchr(line, '\n');
    } while (end == NULL && used < sizeof(line) - 1);
    if (end != NULL)
        *end = '\0';
    if (end == NULL)
        (void)snprintf(out, sizeof(out), "error the line is too long\n");
    else if (control_command(line, answer) < 0)
        (void)snprintf(out, sizeof(out), "error %s\n", answer);
    else
        (void)snprintf(out, sizeof(out), "ok\n%s", answer);
    len = strlen(out);
    for (used = 0; used < len; used += (size_t)n) {
        n = send(fd, out + used, len - used, MSG_NOSIGNAL);
        if (n <= 0)
            return;
    }
}

static void *
control_main(void *arg)
{
    struct pollfd fds[2] = {{.fd = control.stop, .events = POLLIN},
                            {.fd = control.fd, .events = POLLIN}};

    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        int fd;

        if (fds[0].revents != 0)
            break;
        if (fds[1].revents == 0)
            continue;
        fd = accept4(control.fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        control_answer(fd);
        (void)close(fd);
    }
    return arg;
}

/* Somebody listens at ADDR; or nobody does, and the socket is removed. */
static bool
control_is_taken(const struct sockaddr_un *addr)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool taken = true;
    struct stat st;

    if (fd < 0)
        return true;
    if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) < 0 && errno == ECONNREFUSED &&
        lstat(addr->sun_path, &st) == 0 && S_ISSOCK(st.st_mode))
        taken = unlink(addr->sun_path) < 0;
    (void)close(fd);
    return taken;
}

int
control_listen(const char *path)
{
    struct sockaddr_un *addr = &control.addr;
    struct stat st;
    int fd, r;

    if (strlen(path) >= sizeof(addr->sun_path)) {
        nbdkit_error("crashsim-control=%s: the path of a socket has at most %zu bytes", path,
                     sizeof(addr->sun_path) - 1);
        return -1;
    }
    addr->sun_family = AF_UNIX;
    (void)snprintf(addr->sun_path, sizeof(addr->sun_path), "%s", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    r = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)addr, sizeof(*addr));
    if (r < 0 && fd >= 0 && errno == EADDRINUSE) {
        r = control_is_taken(addr) ? -1 : bind(fd, (const struct sockaddr *)addr, sizeof(*addr));
        errno = EADDRINUSE;
    }
    if (r < 0 || listen(fd, 16) < 0 || lstat(path, &st) < 0) {
        if (errno == EADDRINUSE)
            nbdkit_error("crashsim-control=%s: there is a file, or another server listens", path);
        else
            nbdkit_error("crashsim-control=%s: %m", path);
        if (fd >= 0)
            (void)close(fd);
        return -1;
    }
    control.fd = fd;
    control.dev = st.st_dev;
    control.ino = st.st_ino;
    return 0;
}

int
control_start(void)
{
    sigset_t all, old;
    int r;

    if (control.fd < 0)
        return 0;
    control.stop = eventfd(0, EFD_CLOEXEC);
    if (control.stop < 0) {
        nbdkit_error("eventfd: %m");
        return -1;
    }
    (void)sigfillset(&all); /* nbdkit's signals are for its own threads */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&control.thread, NULL, control_main, NULL);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r != 0) {
        errno = r;
        nbdkit_error("pthread_create: %m");
        return -1;
    }
    control.running = true;
    return 0;
}

void
control_end(void)
{
    uint64_t one = 1;
    struct stat st;

    if (control.running) {
        if (write(control.stop, &one, sizeof(one)) == sizeof(one))
            (void)pthread_join(control.thread, NULL);
        control.running = false;
    }
    if (control.stop >= 0)
        (void)close(control.stop);
    if (control.fd < 0)
        return;
    (void)close(control.fd);
    if (lstat(control.addr.sun_path, &st) == 0 && st.st_dev == control.dev &&
        st.st_ino == control.ino)
        (void)unlink(control.addr.sun_path);
    control.fd = control.stop = -1;
}
