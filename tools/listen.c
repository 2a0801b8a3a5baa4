/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kvfs-listen: run an NBD server on several sockets at once, and end it clean.
 *
 *     kvfs-listen [-r COMMAND] ADDRESS... -- SERVER [ARG...]
 *
 * One nbdkit process listens on one address that is named on its command line,
 * but a file of a volume has one writer, so one process must serve a TCP port
 * and a Unix socket.  nbdkit accepts any number of inherited sockets (LISTEN_FDS,
 * LISTEN_PID; nbdkit-service(1)): this program makes them.
 *
 * ADDRESS is unix:PATH or tcp:HOST:PORT (numeric).  The first must be free; a
 * later one that is not is reported and left out.  When the server greets its
 * first client (this program), `sh -c COMMAND sh ADDRESS...` is run with the
 * addresses that are served.
 *
 * SIGINT, SIGTERM or SIGHUP end the server: it gets SIGTERM, and since nbdkit
 * then still waits for each client that is connected, the receiving side of
 * those connections is shut down here (pidfd_getfd).  A client's requests that
 * have arrived are answered before nbdkit sees the end of its stream, closes the
 * disk (which commits) and exits.
 *
 * 1. The server never outlives this program (PR_SET_PDEATHSIG).
 * 2. After the fork only the server holds the listening sockets, so a server
 *    that dies early is noticed at once.
 * 3. The exit status is the server's; 128 + N if signal N ended it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define LISTEN_MAX 8        /* addresses */
#define LISTEN_FD_FIRST 3   /* SD_LISTEN_FDS_START */

struct listener {
    char *address;
    int fd;
};

struct address {
    socklen_t len;
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_storage storage;
    } u;
};

static int
address_parse(const char *text, struct address *a)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    char host[64], *end;
    const char *colon;
    unsigned long port;

    memset(a, 0, sizeof(*a));
    if (strncmp(text, "unix:", 5) == 0) {
        if (strlen(text + 5) >= sizeof(a->u.un.sun_path))
            return -ENAMETOOLONG;
        a->u.un.sun_family = AF_UNIX;
        memcpy(a->u.un.sun_path, text + 5, strlen(text + 5));
        a->len = sizeof(a->u.un);
        return 0;
    }
    colon = strrchr(text, ':');
    if (strncmp(text, "tcp:", 4) != 0 || colon < text + 4 ||
        (size_t)(colon - text - 4) >= sizeof(host))
        return -EINVAL;
    memcpy(host, text + 4, (size_t)(colon - text - 4));
    host[colon - text - 4] = '\0';
    port = strtoul(colon + 1, &end, 10); /* getaddrinfo takes 65536 for 0 */
    if (*end != '\0' || port == 0 || port > 65535 ||
        getaddrinfo(host, colon + 1, &hints, &found) != 0)
        return -EINVAL;
    memcpy(&a->u.storage, found->ai_addr, found->ai_addrlen);
    a->len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

/* A connected socket, or a negative errno. */
static int
address_connect(const struct address *a)
{
    int fd = socket(a->u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, &a->u.any, a->len) == 0)
        return fd < 0 ? -errno : fd;
    int code = -errno;

    (void)close(fd);
    return code;
}

/* A Unix socket outlives a server that was killed: remove it if nobody answers. */
static void
address_remove_stale(const struct address *a)
{
    struct stat st;
    int fd;

    if (a->u.any.sa_family != AF_UNIX || lstat(a->u.un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
        return;
    fd = address_connect(a);
    if (fd >= 0)
        (void)close(fd);
    else if (fd == -ECONNREFUSED)
        (void)unlink(a->u.un.sun_path);
}

static int
listener_open(struct listener *l)
{
    struct address a;
    int one = 1, code = address_parse(l->address, &a);

    if (code < 0)
        return code;
    address_remove_stale(&a);
    l->fd = socket(a.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (l->fd < 0)
        return -errno;
    if (a.u.any.sa_family != AF_UNIX)
        (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(l->fd, &a.u.any, a.len) == 0 && listen(l->fd, SOMAXCONN) == 0)
        return 0;
    code = -errno;
    (void)close(l->fd);
    return code;
}

static void
listener_remove(const struct listener *l)
{
    if (strncmp(l->address, "unix:", 5) == 0)
        (void)unlink(l->address + 5);
}

/* In the child: the sockets to 3, 4, ..., told as nbdkit expects, and exec. */
static void
server_exec(const struct listener *ls, size_t count, char **argv)
{
    int high[LISTEN_MAX];
    char text[16];
    sigset_t none;

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    for (size_t i = 0; i < count; i++)
        high[i] = fcntl(ls[i].fd, F_DUPFD_CLOEXEC, LISTEN_FD_FIRST + LISTEN_MAX);
    for (size_t i = 0; i < count; i++) {
        if (dup2(high[i], LISTEN_FD_FIRST + (int)i) < 0)
            _exit(126);
    }
    (void)snprintf(text, sizeof(text), "%zu", count);
    (void)setenv("LISTEN_FDS", text, 1); // NOLINT(concurrency-mt-unsafe): one thread
    (void)snprintf(text, sizeof(text), "%d", (int)getpid());
    (void)setenv("LISTEN_PID", text, 1); // NOLINT(concurrency-mt-unsafe)
    (void)sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
    (void)execvp(argv[0], argv);
    (void)fprintf(stderr, "kvfs-listen: %s: %s\n", argv[0],
                  strerror(errno)); // NOLINT(concurrency-mt-unsafe)
    _exit(127);
}

/* Shut the receiving side of every connection of the server. */
static int
server_shut_connections(pid_t server)
{
    char path[32];
    struct dirent *entry;
    int code = 0, pidfd = (int)syscall(SYS_pidfd_open, server, 0);
    DIR *dir;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)server);
    dir = opendir(path);
    if (dir == NULL || pidfd < 0)
        code = errno != 0 ? -errno : -EIO;
    while (dir != NULL && code == 0 && (entry = readdir(dir)) != NULL) { // NOLINT(concurrency-mt-unsafe)
        struct sockaddr_storage peer;
        socklen_t len = sizeof(peer);
        int copy, fd = (int)strtol(entry->d_name, NULL, 10); /* 0 for "." */

        if (fd < LISTEN_FD_FIRST) /* may be a socket that is not the server's alone */
            continue;
        copy = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
        if (copy < 0) { /* EBADF: closed meanwhile */
            code = errno == EBADF ? 0 : -errno;
            continue;
        }
        if (getpeername(copy, (struct sockaddr *)&peer, &len) == 0) /* no socket: an error */
            (void)shutdown(copy, SHUT_RD);
        (void)close(copy);
    }
    if (dir != NULL)
        (void)closedir(dir);
    if (pidfd >= 0)
        (void)close(pidfd);
    return code;
}

static void
ready_run(char *command, const struct listener *ls, size_t count)
{
    char name[] = "sh", option[] = "-c";
    char *argv[4 + LISTEN_MAX + 1] = {name, option, command, name};
    pid_t pid;

    for (size_t i = 0; i < count; i++)
        argv[4 + i] = ls[i].address;
    pid = fork();
    if (pid == 0) {
        sigset_t none;

        (void)sigemptyset(&none);
        (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
        (void)execv("/bin/sh", argv);
        _exit(127);
    }
    if (pid > 0)
        (void)waitpid(pid, NULL, 0);
}

/* Bytes of the server's greeting, NBDMAGIC IHAVEOPT flags: it is up.  Answered
 * with client flags and NBD_OPT_ABORT, which ends the connection politely. */
static bool
probe_greeted(int fd)
{
    static const uint8_t bye[] = {0, 0, 0, 1, 'I', 'H', 'A', 'V', 'E', 'O',
                                  'P', 'T', 0, 0, 0, 2, 0, 0, 0, 0};
    uint8_t greeting[18], rest[64];

    if (recv(fd, greeting, sizeof(greeting), MSG_WAITALL) != (ssize_t)sizeof(greeting) ||
        memcmp(greeting, "NBDMAGIC", 8) != 0)
        return false;
    if (send(fd, bye, sizeof(bye), MSG_NOSIGNAL) == (ssize_t)sizeof(bye)) {
        while (recv(fd, rest, sizeof(rest), 0) > 0)
            continue;
    }
    return true;
}

/* True while the server lives; *status is set when it does not. */
static bool
server_lives(pid_t server, int *status)
{
    int raw;

    if (waitpid(server, &raw, WNOHANG) != server)
        return true;
    *status = WIFEXITED(raw) ? WEXITSTATUS(raw) : 128 + WTERMSIG(raw);
    return false;
}

/* Until the server ends.  PROBE is a connection to it, -1: none. */
static int
server_watch(pid_t server, int signals, int probe, char *command,
             const struct listener *ls, size_t count)
{
    struct pollfd fds[2] = {{.fd = signals, .events = POLLIN},
                            {.fd = probe < 0 ? -1 : probe, .events = POLLIN}};
    bool ending = false, told = false;
    int status = 0, shut = 0;

    while (server_lives(server, &status)) {
        struct signalfd_siginfo info;
        int events;

        /* A client may be between connecting and its first request when the
         * connections are shut down: look again.  Where that failed the server
         * may just have ended by itself: only one that lives on waits for clients. */
        events = poll(fds, 2, !ending || told ? -1 : shut == 0 ? 200 : 1000);
        if (events < 0 && errno != EINTR)
            break;
        if (events == 0 && shut != 0) {
            (void)fprintf(stderr, "kvfs-listen: waiting for the clients that are connected; "
                                  "disconnect them (nbd-client -d DEVICE)\n");
            told = true;
        }
        if (fds[1].revents != 0) {
            bool up = probe_greeted(probe);

            (void)close(probe);
            fds[1] = (struct pollfd){.fd = -1};
            if (up && command != NULL)
                ready_run(command, ls, count);
        }
        while (read(signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            if (info.ssi_signo != SIGCHLD) {
                ending = true;
                (void)kill(server, SIGTERM);
            }
        }
        if (ending && shut == 0)
            shut = server_shut_connections(server);
    }
    return status;
}

static int
listeners_open(char **addresses, size_t given, struct listener *ls, size_t *count)
{
    for (size_t i = 0; i < given; i++) {
        struct listener *l = &ls[*count];
        int code;

        l->address = addresses[i];
        code = listener_open(l);
        if (code == 0) {
            (*count)++;
            continue;
        }
        (void)fprintf(stderr, "kvfs-listen: %s: %s%s\n", addresses[i],
                      strerror(-code), // NOLINT(concurrency-mt-unsafe): one thread
                      i > 0 ? "; not served there" : "");
        if (i == 0)
            return -1;
    }
    return 0;
}

static int
listen_run(struct listener *ls, size_t count, char *command, char **argv)
{
    struct address first;
    sigset_t set;
    pid_t server;
    int signals, probe;

    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGCHLD);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    server = signals < 0 ? -1 : fork();
    if (server == 0)
        server_exec(ls, count, argv);
    for (size_t i = 0; i < count; i++)
        (void)close(ls[i].fd);
    if (server < 0) {
        perror("kvfs-listen");
        return 1;
    }
    probe = address_parse(ls[0].address, &first) == 0 ? address_connect(&first) : -1;
    return server_watch(server, signals, probe, command, ls, count);
}

int
main(int argc, char **argv)
{
    struct listener ls[LISTEN_MAX];
    char *command = NULL;
    size_t count = 0;
    int at = 1, dashes, status = 1;

    if (argc > 2 && strcmp(argv[1], "-r") == 0) {
        command = argv[2];
        at = 3;
    }
    for (dashes = at; dashes < argc && strcmp(argv[dashes], "--") != 0; dashes++)
        continue;
    if (dashes == at || dashes - at > LISTEN_MAX || dashes + 1 >= argc) {
        (void)fprintf(stderr,
                      "usage: kvfs-listen [-r COMMAND] unix:PATH|tcp:HOST:PORT ... -- SERVER ...\n");
        return 2;
    }
    if (listeners_open(argv + at, (size_t)(dashes - at), ls, &count) == 0)
        status = listen_run(ls, count, command, argv + dashes + 1);
    for (size_t i = 0; i < count; i++)
        listener_remove(&ls[i]);
    return status;
}
