/* SPDX-License-Identifier: BSD-3-Clause
 *
 * crashsimctl - tell a running nbdkit-crashsim-filter what to do.
 *
 *     crashsimctl SOCKET cut [--survive=MODE] [--tear=SECTOR] [--seed=N] [--json]
 *                            [--after-writes=N | --after-flushes=N | --within=N | --at-mark=NAME]
 *     crashsimctl SOCKET power-on
 *     crashsimctl SOCKET mark NAME
 *     crashsimctl SOCKET stats [--json]
 *     crashsimctl SOCKET wait [--json]
 *
 * The command goes over as one line (filter/control.h); the filter judges it, so that what is
 * good is said in one place.  Exit status: 0 done, 1 refused or nobody there, 2 usage.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CTL_LINE_MAX   1000
#define CTL_ANSWER_MAX 8192

static const char ctl_usage[] =
    "usage: crashsimctl SOCKET cut [--survive=MODE] [--tear=SECTOR] [--seed=N] [--json]\n"
    "                              [--after-writes=N] [--after-flushes=N] [--within=N]\n"
    "                              [--at-mark=NAME]\n"
    "       crashsimctl SOCKET power-on\n"
    "       crashsimctl SOCKET mark NAME\n"
    "       crashsimctl SOCKET stats [--json]\n"
    "       crashsimctl SOCKET wait [--json]\n"
    "MODE: drop-all, prefix[:N], leave-one-out[:N], only-one[:N], random, subset[:MASK].\n"
    "SECTOR: none, 512, 4096, byte, garbage.  nbdkit-crashsim-filter(1) says more.\n";

static void ctl_die(int status, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), noreturn));

static void
ctl_die(int status, const char *fmt, ...)
{
    char text[CTL_ANSWER_MAX];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    for (char *p = text; *p != '\0'; p++) { /* whatever was said before: one line */
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    }
    (void)fprintf(stderr, "crashsimctl: %s", text);
    (void)fputs(status == 2 ? " (--help says more)\n" : "\n", stderr);
    exit(status); // NOLINT(concurrency-mt-unsafe): one thread
}

static int
ctl_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(addr.sun_path))
        ctl_die(1, "%s: the path of a socket has at most %zu bytes", path,
                sizeof(addr.sun_path) - 1);
    (void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        ctl_die(1, "%s: %s", path, strerror(errno)); // NOLINT(concurrency-mt-unsafe): one thread
    return fd;
}

/* The command line as the filter wants it. */
static void
ctl_line(int argc, char **argv, char *line, bool *json)
{
    bool cut = strcmp(argv[2], "cut") == 0, mark = strcmp(argv[2], "mark") == 0;
    size_t used = (size_t)snprintf(line, CTL_LINE_MAX, "%s", argv[2]);
    const char *last = NULL; /* goes to the line's end, as it may have spaces */

    *json = false;
    for (int i = 3; i < argc; i++) {
        const char *word = argv[i];

        if (!mark && strcmp(word, "--json") == 0) {
            *json = true;
            continue;
        }
        if (cut && strncmp(word, "--", 2) == 0 && strchr(word, '=') != NULL)
            word += 2;
        else if (!mark || i > 3)
            ctl_die(2, "%s: not understood", argv[i]);
        if (strchr(word, '\n') != NULL)
            ctl_die(2, "'%s': no line ends here", word);
        if (cut && strncmp(word, "at-mark=", 8) == 0) {
            last = word;
            continue;
        }
        if (cut && strchr(word, ' ') != NULL)
            ctl_die(2, "'%s': no spaces in an option", word);
        if (used < CTL_LINE_MAX)
            used += (size_t)snprintf(line + used, CTL_LINE_MAX - used, " %s", word);
    }
    if (last != NULL && used < CTL_LINE_MAX)
        used += (size_t)snprintf(line + used, CTL_LINE_MAX - used, " %s", last);
    if (used >= CTL_LINE_MAX)
        ctl_die(2, "the command is too long");
    if (mark && argc != 4)
        ctl_die(2, "mark wants one NAME");
}

static void
ctl_string(const char *s)
{
    (void)putchar('"');
    for (; *s != '\0'; s++)
        (void)printf(*s == '"' || *s == '\\' ? "\\%c" : "%c", *s);
    (void)putchar('"');
}

/* Lines of key=value, as they are or as one object. */
static void
ctl_print(char *lines, bool json)
{
    char *line, *value;
    bool first = true;

    if (!json) {
        (void)fputs(lines, stdout);
        return;
    }
    (void)putchar('{');
    while ((line = strsep(&lines, "\n")) != NULL) {
        value = strchr(line, '=');
        if (value == NULL)
            continue;
        *value++ = '\0';
        (void)fputs(first ? "" : ", ", stdout);
        first = false;
        ctl_string(line);
        (void)fputs(": ", stdout);
        if (value[0] != '\0' && value[strspn(value, "0123456789")] == '\0')
            (void)fputs(value, stdout);
        else
            ctl_string(value);
    }
    (void)puts("}");
}

int
main(int argc, char **argv)
{
    static const char *const commands[] = {"cut", "power-on", "mark", "stats", "wait"};
    char line[CTL_LINE_MAX + 1], answer[CTL_ANSWER_MAX + 1];
    const size_t count = sizeof(commands) / sizeof(commands[0]);
    size_t used = 0, known = 0;
    bool json;
    ssize_t n;
    int fd;

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs(ctl_usage, stdout);
        return 0;
    }
    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        (void)puts("crashsimctl " KVFS_VERSION);
        return 0;
    }
    if (argc < 3)
        ctl_die(2, "a SOCKET and a command are wanted");
    while (known < count && strcmp(argv[2], commands[known]) != 0)
        known++;
    if (known == count)
        ctl_die(2, "%s is none of cut, power-on, mark, stats, wait", argv[2]);
    ctl_line(argc, argv, line, &json);
    (void)snprintf(line + strlen(line), 2, "\n");
    fd = ctl_connect(argv[1]);
    if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
        ctl_die(1, "%s: the command could not be sent", argv[1]);
    while (used < CTL_ANSWER_MAX && (n = recv(fd, answer + used, CTL_ANSWER_MAX - used, 0)) > 0)
        used += (size_t)n;
    answer[used] = '\0';
    (void)close(fd);
    if (strncmp(answer, "error ", 6) == 0) {
        answer[strcspn(answer, "\n")] = '\0';
        ctl_die(1, "%s", answer + 6);
    }
    if (strncmp(answer, "ok\n", 3) != 0)
        ctl_die(1, "%s: nbdkit has ended without an answer", argv[1]);
    ctl_print(answer + 3, json);
    return fflush(stdout) == 0 ? 0 : 1;
}
