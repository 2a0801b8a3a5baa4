/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.c - see control.h.
 *
 * 1. One thread serves all clients and never waits for one of them.  A client has five seconds to
 *    say its line; only one that asked to wait for a cut may stay.  At most CONTROL_CLIENTS_MAX are
 *    served at once, others queue at the socket.
 * 2. A socket at the path that nobody listens at was left by a process that was killed, and is
 *    replaced; anything else there is refused.
 */
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <nbdkit-filter.h>

#include "params.h"
#include "power.h"

#define CONTROL_LINE_MAX    1024
#define CONTROL_PATIENCE_MS 5000
#define CONTROL_CLIENTS_MAX 64

struct client {
    int fd; /* -1: nobody */
    int64_t until_ms;
    bool waits;
    uint64_t cuts; /* of power_wait_begin() */
    size_t used;
    char line[CONTROL_LINE_MAX];
};

static struct {
    int fd, wake; /* -1: none */
    struct sockaddr_un addr;
    dev_t dev; /* of the socket that is ours */
    ino_t ino;
    pthread_t thread;
    bool running;
    atomic_bool end;
    struct client clients[CONTROL_CLIENTS_MAX];
} control = {.fd = -1, .wake = -1};

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

    while (rest != NULL) {
        word = rest; /* a mark may have spaces */
        if (strncmp(word, "at-mark=", 8) == 0)
            rest = NULL;
        else
            word = strsep(&rest, " ");
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

/* --- clients --- */

static void
control_drop(struct client *c)
{
    (void)close(c->fd);
    *c = (struct client){.fd = -1};
}

/* The last that C hears.  It fits into the socket's buffer, so nobody is waited for. */
static void
control_tell(struct client *c, const char *head, const char *text)
{
    char out[POWER_ANSWER_MAX + 16];
    int len = snprintf(out, sizeof(out), "%s%s%s", head, text, head[0] == 'e' ? "\n" : "");

    (void)send(c->fd, out, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
    control_drop(c);
}

static void
control_line(struct client *c)
{
    char answer[POWER_ANSWER_MAX];

    if (strcmp(c->line, "wait") == 0) {
        c->cuts = power_wait_begin();
        c->waits = true;
        if (power_wait_is_over(c->cuts, answer))
            control_tell(c, "ok\n", answer);
    } else if (control_command(c->line, answer) < 0) {
        control_tell(c, "error ", answer);
    } else {
        control_tell(c, "ok\n", answer);
    }
}

static void
control_read(struct client *c)
{
    char *end;
    ssize_t n = recv(c->fd, c->line + c->used, sizeof(c->line) - 1 - c->used, MSG_DONTWAIT);

    if (n <= 0) {
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            control_drop(c);
        return;
    }
    if (c->waits)
        return; /* it has said all that it may */
    c->used += (size_t)n;
    end = memchr(c->line, '\n', c->used);
    if (end != NULL) {
        *end = '\0';
        c->used = 0;
        control_line(c);
    } else if (c->used == sizeof(c->line) - 1) {
        control_tell(c, "error ", "the line is too long");
    }
}

static void
control_accept(int64_t now_ms)
{
    struct client *c = control.clients;
    int fd = accept4(control.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    while (c->fd >= 0) /* there is one: see control_poll() */
        c++;
    *c = (struct client){.fd = fd, .until_ms = now_ms + CONTROL_PATIENCE_MS};
}

static int64_t
control_now_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Fills FDS for `wake`, the socket (while another client fits) and the clients; answers after how
 * many milliseconds somebody's patience ends, -1: never. */
static int
control_prepare(struct pollfd *fds, int64_t now_ms)
{
    int64_t until_ms = INT64_MAX;
    bool room = false;

    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        const struct client *c = &control.clients[i];

        fds[2 + i] = (struct pollfd){.fd = c->fd, .events = POLLIN};
        room = room || c->fd < 0;
        if (c->fd >= 0 && !c->waits && c->until_ms < until_ms)
            until_ms = c->until_ms;
    }
    fds[0] = (struct pollfd){.fd = control.wake, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = room ? control.fd : -1, .events = POLLIN};
    if (until_ms == INT64_MAX)
        return -1;
    return until_ms > now_ms ? (int)(until_ms - now_ms) : 0;
}

static void
control_serve(struct client *c, const struct pollfd *fd, int64_t now_ms)
{
    char answer[POWER_ANSWER_MAX];

    if (fd->revents != 0)
        control_read(c);
    if (c->fd >= 0 && c->waits && power_wait_is_over(c->cuts, answer))
        control_tell(c, "ok\n", answer);
    if (c->fd >= 0 && !c->waits && c->until_ms <= now_ms)
        control_tell(c, "error ", "no command came within 5 seconds");
}

static void *
control_main(void *arg)
{
    struct pollfd fds[2 + CONTROL_CLIENTS_MAX];
    uint64_t count;

    while (!atomic_load(&control.end)) {
        int r = poll(fds, 2 + CONTROL_CLIENTS_MAX, control_prepare(fds, control_now_ms()));
        int64_t now_ms = control_now_ms();

        if (r < 0)
            continue;
        if (fds[0].revents != 0 && read(control.wake, &count, sizeof(count)) < 0)
            continue;
        for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
            if (fds[2 + i].fd >= 0)
                control_serve(&control.clients[i], &fds[2 + i], now_ms);
        }
        if (fds[1].revents != 0)
            control_accept(now_ms);
    }
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (control.clients[i].fd >= 0)
            control_drop(&control.clients[i]);
    }
    return arg;
}

static void
control_wake(void)
{
    const uint64_t one = 1;

    (void)!write(control.wake, &one, sizeof(one));
}

/* --- the socket --- */

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
    if (r < 0 || listen(fd, 128) < 0 || lstat(path, &st) < 0) {
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
    control.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (control.wake < 0) {
        nbdkit_error("eventfd: %m");
        return -1;
    }
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        control.clients[i].fd = -1;
    power_watch(control_wake);
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
    struct stat st;

    if (control.running) {
        atomic_store(&control.end, true);
        control_wake();
        (void)pthread_join(control.thread, NULL);
        control.running = false;
        power_watch(NULL);
    }
    if (control.wake >= 0)
        (void)close(control.wake);
    if (control.fd < 0)
        return;
    (void)close(control.fd);
    if (lstat(control.addr.sun_path, &st) == 0 && st.st_dev == control.dev &&
        st.st_ino == control.ino)
        (void)unlink(control.addr.sun_path);
    control.fd = control.wake = -1;
}
