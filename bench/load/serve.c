/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"

#define SERVE_LINE_MAX 1024

static volatile sig_atomic_t serve_signal;

static void
serve_on_signal(int signo)
{
    serve_signal = signo;
}

void
serve_signals_catch(void)
{
    struct sigaction sa = {.sa_handler = serve_on_signal}; /* reads end too */

    (void)sigaction(SIGINT, &sa, NULL);
    (void)sigaction(SIGTERM, &sa, NULL);
}

bool
serve_interrupted(void)
{
    return serve_signal != 0;
}

void
serve_signals_follow(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    int signo = serve_signal;

    if (signo == 0)
        return;
    (void)sigaction(signo, &dfl, NULL);
    (void)raise(signo);
}

/* Wait for input, or for a signal, also one that comes just before.  False: a signal. */
static bool
serve_wait(void)
{
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t block, old;

    (void)sigemptyset(&block);
    (void)sigaddset(&block, SIGINT);
    (void)sigaddset(&block, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &block, &old);
    if (!serve_interrupted())
        (void)ppoll(&fd, 1, NULL, &old);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return !serve_interrupted();
}

/* The next line, by the byte; 1: there is none, or a signal asks to end. */
static int
serve_read(char *line, size_t cap)
{
    size_t len = 0;

    while (len < cap - 2) { /* serve_lines() needs a byte more */
        if (!serve_wait() || read(STDIN_FILENO, line + len, 1) <= 0)
            return 1;
        if (line[len] == '\n') {
            line[len] = '\0';
            return 0;
        }
        len++;
    }
    return -E2BIG;
}

int
serve_lines(int (*line)(void *arg, const char *word, char *rest, struct kvfs_error *err),
            void *arg, struct kvfs_error *err)
{
    char text[SERVE_LINE_MAX];
    int rc = 0;

    while (rc == 0) {
        size_t len;

        rc = serve_read(text, sizeof(text));
        if (rc < 0)
            rc = kvfs_error_set(err, -EINVAL, "a line is too long");
        if (rc != 0)
            break;
        len = strcspn(text, " \t");
        if (text[len] == '\0')
            text[len + 1] = '\0';
        text[len] = '\0';
        if (len > 0)
            rc = line(arg, text, text + len + 1, err);
    }
    return rc > 0 ? 0 : rc;
}

int
serve_status(const char *program, int rc, const struct kvfs_error *err)
{
    if (rc == 0)
        return 0;
    (void)fprintf(stderr, "%s: %s\n", program, err->msg);
    return rc == -EINVAL ? 2 : 1;
}

double
serve_now_s(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}
