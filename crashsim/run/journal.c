/* SPDX-License-Identifier: BSD-3-Clause
 *
 * journal.c - see journal.h.  A saved journal is the memory's own bytes up to the last operation,
 * good for this machine's build of the program.
 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const char journal_magic[16] = "crashsim-ops 3\n";

const char *const journal_phase_names[RECOVERY_PHASES] = {
    "mount", "engine", "kvfs", "read", "write", "close", "check", "again",
};

uint64_t
journal_now(void)
{
    struct timespec t = {0};

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int journal_marks = -1; /* of this process; -1: none */

static void
journal_mark(char kind, size_t number)
{
    char line[32];
    int n;

    if (journal_marks < 0)
        return;
    n = snprintf(line, sizeof(line), "%c%zu\n", kind, number);
    (void)!write(journal_marks, line, (size_t)n); /* one call: a line is whole */
}

struct journal *
journal_new(void)
{
    struct journal *j = mmap(NULL, sizeof(*j), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return j == MAP_FAILED ? NULL : j;
}

void
journal_free(struct journal *j)
{
    if (j != NULL)
        (void)munmap(j, sizeof(*j));
}

int
journal_issue(struct journal *j, const struct journal_op *op)
{
    uint32_t n = atomic_load(&j->count);

    if (n == JOURNAL_MAX)
        return -ENOSPC;
    j->ops[n] = *op;
    atomic_store(&j->ops[n].acked_ns, 0);
    j->ops[n].issued_ns = journal_now();
    atomic_store(&j->count, n + 1);
    journal_mark('i', n);
    return (int)n;
}

void
journal_ack(struct journal *j, int number)
{
    atomic_store(&j->ops[number].acked_ns, journal_now());
    journal_mark('a', (size_t)number);
}

void
journal_end(struct journal *j, int r, const struct kvfs_error *err)
{
    j->ended_error = r < 0 ? r : 0;
    if (r < 0)
        (void)snprintf(j->ended, sizeof(j->ended), "%s", err->msg);
}

void
journal_note(struct journal_recovery *r, uint64_t *moment)
{
    *moment = journal_now();
    journal_mark('r', (size_t)((const char *)moment - (const char *)r));
}

int
journal_mark_to(const char *file)
{
    journal_marks = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
    return journal_marks < 0 ? -errno : 0;
}

bool
journal_marked(struct journal *j, const char *mark, uint64_t t_ns)
{
    char *end;
    unsigned long n = strtoul(mark + (*mark != '\0'), &end, 10);

    if (*end != '\0' || end == mark + 1)
        return false;
    if (*mark == 'r' && n % sizeof(t_ns) == 0 && n < offsetof(struct journal_recovery, digest))
        memcpy((char *)&j->recovery + n, &t_ns, sizeof(t_ns));
    else if (*mark == 'i' && n < atomic_load(&j->count))
        j->ops[n].issued_ns = t_ns;
    else if (*mark == 'a' && n < atomic_load(&j->count))
        atomic_store(&j->ops[n].acked_ns, t_ns);
    else
        return false;
    return true;
}

uint32_t
journal_issued_at(const struct journal *j, uint64_t t_ns)
{
    uint32_t lo = 0, hi = atomic_load(&j->count);

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;

        if (j->ops[mid].issued_ns < t_ns)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool
journal_acked_at(const struct journal *j, uint32_t op, uint64_t t_ns)
{
    uint64_t acked = atomic_load(&j->ops[op].acked_ns);

    return acked != 0 && acked < t_ns;
}

static size_t
journal_bytes(uint32_t count)
{
    return offsetof(struct journal, ops) + count * sizeof(struct journal_op);
}

int
journal_save(const struct journal *j, const char *path, struct kvfs_error *err)
{
    size_t bytes = journal_bytes(atomic_load(&j->count));
    FILE *f = fopen(path, "we");
    int r = f == NULL || fwrite(journal_magic, sizeof(journal_magic), 1, f) != 1 ||
                    fwrite(j, bytes, 1, f) != 1
                ? -errno
                : 0;

    if (f != NULL && fclose(f) != 0 && r == 0)
        r = -errno;
    return r == 0 ? 0 : kvfs_error_set(err, r, "%s: %s", path, strerrordesc_np(-r));
}

int
journal_load(struct journal *j, const char *path, struct kvfs_error *err)
{
    char magic[sizeof(journal_magic)];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = -1;

    if (fd < 0)
        return kvfs_error_set(err, -errno, "%s: %s", path, strerrordesc_np(errno));
    if (read(fd, magic, sizeof(magic)) == sizeof(magic) &&
        memcmp(magic, journal_magic, sizeof(magic)) == 0)
        n = read(fd, j, sizeof(*j));
    (void)close(fd);
    j->scenario[sizeof(j->scenario) - 1] = j->engine[sizeof(j->engine) - 1] = '\0';
    j->params[sizeof(j->params) - 1] = '\0';
    if (n < (ssize_t)journal_bytes(0) || atomic_load(&j->count) > JOURNAL_MAX ||
        (size_t)n != journal_bytes(atomic_load(&j->count)))
        return kvfs_error_set(err, -EINVAL, "%s: not the journal of a run", path);
    return 0;
}
