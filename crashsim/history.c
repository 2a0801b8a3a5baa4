/* SPDX-License-Identifier: BSD-3-Clause
 *
 * history.c - see history.h.
 *
 * 1. Nothing that a file says is believed: every number is held against the size of the disk, the
 *    length of the log and what was said before it, so that crashsim_history_apply() cannot be
 *    led astray.
 * 2. A disk numbers the changes that it is given from 1.  Those whose bytes are not in the log
 *    (they failed) are never given, so that `ids` maps what the sidecar calls them to ours.
 * 3. A log that says of more entries than it holds is truncated, and so is a sidecar that speaks of
 *    bytes behind the log's end: -EBADMSG.  The last line of a sidecar may be cut short where the
 *    writer was killed; what is before it is whole.
 */
#include "history.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "recording.h"

#define HISTORY_LINES_MAX (UINT32_MAX - 1)
#define HISTORY_DISK_MAX  (UINT64_C(1) << 44) /* bytes: a discard is many changes of 1 GiB */

struct history_reader {
    struct crashsim_history *h;
    uint64_t log_bytes, entries; /* of the log */
    uint32_t unit;               /* its sector size */
    uint64_t first_id;           /* of the sidecar: FILE.1 goes on counting where FILE ended */
    uint64_t *seqs;              /* those answered, ascending */
    size_t seqs_count, seqs_cap;
    bool over; /* the cut was seen */
    char *error;
};

__attribute__((format(printf, 2, 3))) static int
history_bad(const struct history_reader *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it was started a line above */
    (void)vsnprintf(r->error, CRASHSIM_HISTORY_ERROR, fmt, ap);
    va_end(ap);
    return -EBADMSG;
}

/* Room for one more of SIZE bytes behind COUNT. */
static int
history_grow(void **array, size_t *cap, size_t count, size_t size)
{
    size_t want = *cap < 64 ? 64 : *cap * 2;
    void *more;

    if (count < *cap)
        return 0;
    want = want > count ? want : count + 1;
    more = reallocarray(*array, want, size);
    if (more == NULL)
        return -ENOMEM;
    *array = more;
    *cap = want;
    return 0;
}

static int
history_event(struct crashsim_history *h, const struct crashsim_event *e)
{
    void *events = h->events;
    int r = history_grow(&events, &h->events_cap, h->events_count, sizeof(*e));

    h->events = events;
    if (r == 0)
        h->events[h->events_count++] = *e;
    return r;
}

static int
history_change(struct crashsim_history *h, const struct crashsim_change *c)
{
    void *changes = h->changes;
    int r = history_grow(&changes, &h->changes_cap, h->changes_count, sizeof(*c));

    h->changes = changes;
    if (r == 0)
        h->changes[h->changes_count++] = *c;
    return r;
}

static int
history_mark(struct history_reader *r, uint32_t line, const char *name, size_t len)
{
    struct crashsim_event e = {
        .kind = CRASHSIM_EVENT_MARK, .line = line, .u.name = r->h->names_len};
    char copy[CRASHSIM_MARK_MAX + 1];

    if (len > CRASHSIM_MARK_MAX || memchr(name, '\0', len) != NULL)
        return history_bad(r, "mark at %u: its name is not one", line);
    memcpy(copy, name, len);
    copy[len] = '\0';
    if (!crashsim_mark_is_good(copy))
        return history_bad(r, "mark at %u: its name is not one", line);
    for (size_t i = 0; i <= len; i++) {
        void *names = r->h->names;
        int error = history_grow(&names, &r->h->names_cap, r->h->names_len, 1);

        r->h->names = names;
        if (error < 0)
            return error;
        r->h->names[r->h->names_len++] = copy[i];
    }
    return history_event(r->h, &e);
}

static int
history_answered(struct history_reader *r, uint64_t seq)
{
    void *seqs = r->seqs;
    int error = history_grow(&seqs, &r->seqs_cap, r->seqs_count, sizeof(*r->seqs));

    r->seqs = seqs;
    if (error == 0)
        r->seqs[r->seqs_count++] = seq;
    return error;
}

/* --- the log --- */

/* -EBADMSG: it ends before. */
static int
history_pread(int log, void *buf, size_t count, uint64_t at)
{
    uint8_t *p = buf;

    while (count > 0) {
        ssize_t n = pread(log, p, count, (off_t)at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EBADMSG;
        p += n;
        at += (uint64_t)n;
        count -= (size_t)n;
    }
    return 0;
}

static int
history_super(struct history_reader *r)
{
    struct crashsim_log_super super;
    struct stat st;
    int error;

    if (fstat(r->h->log, &st) < 0)
        return -errno;
    r->log_bytes = (uint64_t)st.st_size;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    if (S_ISREG(st.st_mode) && r->log_bytes < sizeof(super))
        return history_bad(r, "no recording: it has %" PRIu64 " bytes", r->log_bytes);
    if (!S_ISREG(st.st_mode)) { /* a disk with a log on it */
        off_t end = lseek(r->h->log, 0, SEEK_END);

        if (end < 0)
            return -errno;
        r->log_bytes = (uint64_t)end;
    }
    error = history_pread(r->h->log, &super, sizeof(super), 0);
    if (error < 0)
        return error;
    if (le64toh(super.magic) != CRASHSIM_LOG_MAGIC)
        return history_bad(r, "no recording: no log of dm-log-writes begins so");
    if (le64toh(super.version) != CRASHSIM_LOG_VERSION)
        return history_bad(r, "a log of version %" PRIu64 ", not 1", le64toh(super.version));
    r->entries = le64toh(super.nr_entries);
    r->unit = le32toh(super.sectorsize);
    if (r->unit != 512 && r->unit != 4096)
        return history_bad(r, "a log with sectors of %" PRIu32 " bytes", r->unit);
    return 0;
}

/* An entry with data, or a discard: pieces of at most 1 GiB, as a disk takes them. */
static int
history_entry_change(struct history_reader *r, uint32_t line, const struct crashsim_log_entry *e,
                     uint64_t at)
{
    uint64_t offset = le64toh(e->sector) * r->unit, left = le64toh(e->nr_sectors) * r->unit;
    uint64_t flags = le64toh(e->flags);
    int error = 0;

    while (error == 0 && left > 0) {
        uint32_t count = left < (1u << 30) ? (uint32_t)left : 1u << 30;
        struct crashsim_change c = {
            .id = line, .offset = offset, .at = at, .count = count, .known = true,
            .kind = (flags & CRASHSIM_LOG_DISCARD) != 0 ? CRASHSIM_TRIM : CRASHSIM_WRITE,
            .fua = (flags & CRASHSIM_LOG_FUA) != 0, .answered = true};
        struct crashsim_event submit = {CRASHSIM_EVENT_SUBMIT, line, {r->h->changes_count}};
        struct crashsim_event done = {CRASHSIM_EVENT_COMPLETE, line, {r->h->changes_count}};

        error = history_change(r->h, &c);
        if (error == 0)
            error = history_event(r->h, &submit);
        if (error == 0)
            error = history_event(r->h, &done);
        if (error == 0)
            error = history_answered(r, r->seqs_count + 1);
        offset += count;
        at += count;
        left -= count;
    }
    if (offset > r->h->size_bytes)
        r->h->size_bytes = offset;
    return error;
}

static int
history_entry(struct history_reader *r, uint32_t line, uint64_t *at)
{
    struct crashsim_log_entry e;
    uint64_t flags, sectors, first, len, limit = HISTORY_DISK_MAX / r->unit;
    uint8_t name[CRASHSIM_LOG_SECTOR];
    int error;

    if (*at > r->log_bytes || r->log_bytes - *at < r->unit)
        return history_bad(r, "truncated: entry %u of %" PRIu64 " lies behind its end", line,
                           r->entries);
    error = history_pread(r->h->log, name, sizeof(name), *at);
    if (error < 0)
        return error;
    memcpy(&e, name, sizeof(e));
    flags = le64toh(e.flags);
    sectors = le64toh(e.nr_sectors);
    first = le64toh(e.sector);
    len = le64toh(e.data_len);
    *at += r->unit;
    if ((flags & CRASHSIM_LOG_MARK) != 0) {
        if (len > sizeof(name) - sizeof(e))
            return history_bad(r, "entry %u: a mark of %" PRIu64 " bytes", line, len);
        return history_mark(r, line, (const char *)name + sizeof(e),
                            strnlen((const char *)name + sizeof(e), len));
    }
    if (sectors > limit || first > limit - sectors)
        return history_bad(r, "entry %u: beyond every disk", line);
    if ((flags & CRASHSIM_LOG_DISCARD) == 0 && sectors * r->unit > r->log_bytes - *at)
        return history_bad(r, "truncated: the data of entry %u of %" PRIu64
                           " lie behind its end", line, r->entries);
    if ((flags & CRASHSIM_LOG_FLUSH) != 0) {
        struct crashsim_event flush = {CRASHSIM_EVENT_FLUSH, line, {.bound = r->seqs_count}};

        error = history_event(r->h, &flush);
    }
    if (error == 0)
        error = history_entry_change(r, line, &e, *at);
    if ((flags & CRASHSIM_LOG_DISCARD) == 0)
        *at += sectors * r->unit;
    return error;
}

static int
history_log(struct history_reader *r)
{
    uint64_t at = r->unit;
    int error = 0;

    if (at == 0) /* history_super() let none pass */
        return -EBADMSG;
    if (r->entries > HISTORY_LINES_MAX || r->entries > r->log_bytes / r->unit)
        return history_bad(r, "truncated: it says of %" PRIu64 " entries, and has %" PRIu64
                           " bytes", r->entries, r->log_bytes);
    for (uint32_t i = 1; error == 0 && i <= r->entries; i++) {
        r->h->lines = i;
        error = history_entry(r, i, &at);
    }
    return error;
}

/* --- the sidecar --- */

/* The value of KEY in LINE ("K key=value key=value"), which ends with '\0'. */
static bool
history_field(const char *line, const char *key, const char **value)
{
    size_t len = strlen(key);

    for (const char *p = strchr(line, ' '); p != NULL; p = strchr(p + 1, ' ')) {
        if (strncmp(p + 1, key, len) == 0 && p[1 + len] == '=') {
            *value = p + len + 2;
            return true;
        }
    }
    return false;
}

static bool
history_number(const char *line, const char *key, uint64_t *number)
{
    const char *value;
    char digits[24];
    size_t len;

    if (!history_field(line, key, &value))
        return false;
    len = strcspn(value, " ");
    if (len == 0 || len >= sizeof(digits))
        return false;
    memcpy(digits, value, len);
    digits[len] = '\0';
    return crashsim_parse_number(digits, number);
}

static int
history_side_submit(struct history_reader *r, uint32_t line, const char *text)
{
    struct crashsim_event e = {CRASHSIM_EVENT_SUBMIT, line, {r->h->changes_count}};
    struct crashsim_change c = {0};
    uint64_t id, count, fua, conn;
    const char *kind;
    int error;

    if (!history_number(text, "id", &id) || !history_number(text, "offset", &c.offset) ||
        !history_number(text, "count", &count) || !history_number(text, "fua", &fua) ||
        !history_number(text, "conn", &conn) || !history_field(text, "kind", &kind))
        return history_bad(r, "line %u of the sidecar: no such line", line);
    if (r->h->changes_count == 0)
        r->first_id = id;
    if (id < r->first_id || id - r->first_id != r->h->changes_count)
        return history_bad(r, "line %u of the sidecar: change %" PRIu64 " out of order", line, id);
    if (count == 0 || count > UINT32_MAX || c.offset > r->h->size_bytes ||
        count > r->h->size_bytes - c.offset)
        return history_bad(r, "line %u of the sidecar: beyond the disk's end", line);
    c.kind = kind[0] == 'w' ? CRASHSIM_WRITE : kind[0] == 'z' ? CRASHSIM_ZERO : CRASHSIM_TRIM;
    if (strchr("wzt", kind[0]) == NULL || kind[0] == '\0')
        return history_bad(r, "line %u of the sidecar: no such kind", line);
    c.id = id;
    c.count = (uint32_t)count;
    c.conn = (uint32_t)conn;
    c.fua = fua != 0;
    error = history_change(r->h, &c);
    return error < 0 ? error : history_event(r->h, &e);
}

/* The change that LINE speaks of. */
static int
history_side_which(struct history_reader *r, uint32_t line, const char *text,
                   struct crashsim_change **c)
{
    uint64_t id;

    if (!history_number(text, "id", &id))
        return history_bad(r, "line %u of the sidecar: no such line", line);
    if (id < r->first_id || id - r->first_id >= r->h->changes_count)
        return history_bad(r, "line %u of the sidecar: of change %" PRIu64 ", which is not", line,
                           id);
    *c = &r->h->changes[id - r->first_id];
    return 0;
}

/* Is the entry at AT of the log that of C?  Else FILE and FILE.side are of two recordings. */
static int
history_side_head_fits(const struct history_reader *r, uint32_t line,
                       const struct crashsim_change *c, uint64_t at)
{
    uint64_t first = c->offset / CRASHSIM_LOG_SECTOR;
    uint64_t end = (c->offset + c->count - 1) / CRASHSIM_LOG_SECTOR + 1, sectors;
    struct crashsim_log_entry e;
    int error = at <= r->log_bytes ? history_pread(r->h->log, &e, sizeof(e), at) : -EBADMSG;

    if (error == -EBADMSG)
        return history_bad(r, "truncated: line %u of the sidecar says of bytes behind its end",
                           line);
    if (error < 0)
        return error;
    sectors = le64toh(e.nr_sectors);
    if (le64toh(e.sector) != first || sectors == 0 || sectors > end - first ||
        (c->kind == CRASHSIM_WRITE && sectors != end - first) ||
        (le64toh(e.flags) & CRASHSIM_LOG_MARK) != 0)
        return history_bad(r, "line %u of the sidecar is not of this recording: there is another entry",
                           line);
    return 0;
}

/* C: answered; I: in flight at the cut.  Either says where the bytes are. */
static int
history_side_done(struct history_reader *r, uint32_t line, const char *text, bool answered)
{
    struct crashsim_event e = {CRASHSIM_EVENT_COMPLETE, line, {0}};
    struct crashsim_change *c;
    uint64_t at, seq = 0;
    int error = history_side_which(r, line, text, &c);

    if (error < 0)
        return error;
    if (!history_number(text, "at", &at) || (answered && !history_number(text, "seq", &seq)))
        return history_bad(r, "line %u of the sidecar: no such line", line);
    if (c->answered || c->known ||
        (answered && r->seqs_count > 0 && seq <= r->seqs[r->seqs_count - 1]))
        return history_bad(r, "line %u of the sidecar: answered twice, or out of order", line);
    c->at = at + CRASHSIM_LOG_SECTOR + c->offset % CRASHSIM_LOG_SECTOR;
    if (c->kind == CRASHSIM_WRITE &&
        (at > r->log_bytes || c->at > r->log_bytes || c->count > r->log_bytes - c->at))
        return history_bad(r, "truncated: line %u of the sidecar says of bytes behind its end",
                           line);
    error = history_side_head_fits(r, line, c, at);
    if (error < 0)
        return error;
    c->known = true;
    e.u.change = (size_t)(c - r->h->changes);
    if (!answered) {
        e.kind = CRASHSIM_EVENT_NONE;
        return history_event(r->h, &e);
    }
    c->answered = true;
    error = history_answered(r, seq);
    return error < 0 ? error : history_event(r->h, &e);
}

/* D: destaged; E: failed. */
static int
history_side_other(struct history_reader *r, uint32_t line, const char *text)
{
    struct crashsim_event e = {CRASHSIM_EVENT_NONE, line, {0}};
    struct crashsim_change *c;
    int error = history_side_which(r, line, text, &c);

    if (error < 0)
        return error;
    e.u.change = (size_t)(c - r->h->changes);
    if (text[0] == 'D') {
        if (c->destaged)
            return history_bad(r, "line %u of the sidecar: destaged twice", line);
        c->destaged = !c->answered;
        e.kind = c->answered ? CRASHSIM_EVENT_DESTAGE : CRASHSIM_EVENT_NONE;
    } else if (c->answered) {
        c->fua = false; /* it may be there, but nobody was promised that it is */
    } else {
        e.kind = CRASHSIM_EVENT_ABANDON;
    }
    return history_event(r->h, &e);
}

static int
history_side_flush(struct history_reader *r, uint32_t line, const char *text)
{
    struct crashsim_event e = {CRASHSIM_EVENT_FLUSH, line, {0}};
    uint64_t bound, lies;
    size_t lo = 0, hi = r->seqs_count;

    if (!history_number(text, "bound", &bound) || !history_number(text, "lies", &lies))
        return history_bad(r, "line %u of the sidecar: no such line", line);
    while (lo < hi) { /* how many were answered up to BOUND */
        size_t mid = lo + (hi - lo) / 2;

        if (r->seqs[mid] <= bound)
            lo = mid + 1;
        else
            hi = mid;
    }
    e.u.bound = lo;
    if (lies != 0)
        e.kind = CRASHSIM_EVENT_NONE;
    return history_event(r->h, &e);
}

static int
history_side_cut(struct history_reader *r, uint32_t line, const char *text)
{
    struct crashsim_event e = {CRASHSIM_EVENT_NONE, line, {0}};
    struct crashsim_choice *cut = &r->h->cut;
    const char *survive, *tear;
    char word[64];

    if (!history_field(text, "survive", &survive) || !history_field(text, "tear", &tear) ||
        !history_number(text, "seed", &cut->seed))
        return history_bad(r, "line %u of the sidecar: no such line", line);
    (void)snprintf(word, sizeof(word), "%.*s", (int)strcspn(survive, " "), survive);
    if (!crashsim_choice_parse_survive(word, cut))
        return history_bad(r, "line %u of the sidecar: no such choice", line);
    (void)snprintf(word, sizeof(word), "%.*s", (int)strcspn(tear, " "), tear);
    if (!crashsim_choice_parse_tear(word, &cut->tear))
        return history_bad(r, "line %u of the sidecar: no such tear", line);
    r->h->has_cut = r->over = true;
    r->h->cut_line = line;
    return history_event(r->h, &e);
}

static int
history_side_line(struct history_reader *r, uint32_t line, const char *text)
{
    const char *name;

    if (r->over && text[0] != 'M')
        return history_bad(r, "line %u of the sidecar: it goes on behind the cut", line);
    if (text[0] == '\0' || text[1] != ' ')
        return history_bad(r, "line %u of the sidecar: no such line", line);
    switch (text[0]) {
    case 'S':
        return history_side_submit(r, line, text);
    case 'C':
    case 'I':
        return history_side_done(r, line, text, text[0] == 'C');
    case 'D':
    case 'E':
        return history_side_other(r, line, text);
    case 'F':
        return history_side_flush(r, line, text);
    case 'X':
        return history_side_cut(r, line, text);
    case 'M':
        name = strstr(text, " name=");
        if (name != NULL)
            return history_mark(r, line, name + 6, strlen(name + 6));
        break;
    default:
        break;
    }
    return history_bad(r, "line %u of the sidecar: no such line", line);
}

static int
history_side_head(struct history_reader *r, const char *text)
{
    uint64_t version, sector;

    if (sscanf(text, "crashsim-sidecar %" SCNu64, &version) != 1) /* NOLINT(cert-err34-c) */
        return history_bad(r, "its sidecar is none");
    if (version != 1 || !history_number(text, "sector", &sector) || sector != 512 ||
        !history_number(text, "size", &r->h->size_bytes) || r->h->size_bytes > INT64_MAX)
        return history_bad(r, "its sidecar is of a kind that this version does not read");
    return 0;
}

static int
history_side(struct history_reader *r, const char *side, size_t side_len)
{
    const char *p = side, *end = side + side_len;
    int error = 0;

    r->h->sidecar = true;
    for (uint64_t line = 0; error == 0 && p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        char text[1024];

        if (stop == NULL) {
            r->h->unfinished = true;
            return line == 0 ? history_bad(r, "its sidecar is none") : 0;
        }
        if ((size_t)(stop - p) >= sizeof(text) || memchr(p, '\0', (size_t)(stop - p)) != NULL ||
            line > HISTORY_LINES_MAX)
            return history_bad(r, "line %" PRIu64 " of the sidecar: no such line", line);
        memcpy(text, p, (size_t)(stop - p));
        text[stop - p] = '\0';
        p = stop + 1;
        r->h->lines = (uint32_t)line;
        error = line == 0 ? history_side_head(r, text) : history_side_line(r, (uint32_t)line, text);
    }
    return error == 0 && side_len == 0 ? history_bad(r, "its sidecar is empty") : error;
}

/* Number those that have bytes as a disk will. */
static void
history_number_changes(struct crashsim_history *h)
{
    uint64_t id = 0;

    for (size_t i = 0; i < h->changes_count; i++) {
        if (h->changes[i].known)
            h->changes[i].id = ++id;
    }
}

int
crashsim_history_read(int log, const char *side, size_t side_len,
                      struct crashsim_history **history, char *error)
{
    struct history_reader r = {.h = calloc(1, sizeof(*r.h)), .unit = CRASHSIM_LOG_SECTOR, .error = error};
    int failed;

    error[0] = '\0';
    if (r.h == NULL) {
        (void)close(log);
        (void)snprintf(error, CRASHSIM_HISTORY_ERROR, "no memory");
        return -ENOMEM;
    }
    r.h->log = log;
    failed = history_super(&r);
    if (failed == 0)
        failed = side != NULL ? history_side(&r, side, side_len) : history_log(&r);
    free(r.seqs);
    if (failed < 0) {
        if (error[0] == '\0')
            (void)snprintf(error, CRASHSIM_HISTORY_ERROR, "%s",
                           failed == -EBADMSG ? "truncated" : strerrordesc_np(-failed));
        crashsim_history_close(r.h);
        return failed;
    }
    history_number_changes(r.h);
    *history = r.h;
    return 0;
}

static int
history_slurp(const char *path, char **text, size_t *len)
{
    FILE *f = fopen(path, "re");
    size_t cap = 0;
    int r = 0;

    *text = NULL;
    *len = 0;
    if (f == NULL)
        return -errno;
    for (size_t n = 1; r == 0 && n > 0; *len += n) {
        void *more = *text;

        r = history_grow(&more, &cap, *len + 65536, 1);
        *text = more;
        n = r == 0 ? fread(*text + *len, 1, 65536, f) : 0;
    }
    if (r == 0 && ferror(f))
        r = -EIO;
    (void)fclose(f);
    return r;
}

int
crashsim_history_open(const char *file, struct crashsim_history **history, char *error)
{
    char *name = NULL, *side = NULL;
    size_t side_len = 0;
    int log = open(file, O_RDONLY | O_CLOEXEC), r;

    if (log < 0 || asprintf(&name, "%s.side", file) < 0) {
        r = -errno;
        if (log >= 0)
            (void)close(log);
        (void)snprintf(error, CRASHSIM_HISTORY_ERROR, "%s", strerrordesc_np(-r));
        return r;
    }
    r = history_slurp(name, &side, &side_len);
    free(name);
    if (r < 0 && r != -ENOENT) {
        (void)snprintf(error, CRASHSIM_HISTORY_ERROR, "its sidecar: %s", strerrordesc_np(-r));
        (void)close(log);
    } else {
        r = crashsim_history_read(log, r == 0 ? side : NULL, side_len, history, error);
    }
    free(side);
    return r;
}

void
crashsim_history_close(struct crashsim_history *h)
{
    if (h == NULL)
        return;
    if (h->log >= 0)
        (void)close(h->log);
    free(h->events);
    free(h->changes);
    free(h->names);
    free(h);
}

/* --- doing it again --- */

int
crashsim_history_data(const struct crashsim_history *h, size_t change, void *buf)
{
    return history_pread(h->log, buf, h->changes[change].count, h->changes[change].at);
}

static int
history_submit(const struct crashsim_history *h, size_t i, struct crashsim_disk *d)
{
    const struct crashsim_change *c = &h->changes[i];
    struct crashsim_write w = {.kind = c->kind, .fua = c->fua, .conn = c->conn,
                               .count = c->count, .offset = c->offset};
    uint8_t *data = NULL;
    uint64_t id;
    int r = 0;

    if (c->kind == CRASHSIM_WRITE) {
        data = malloc(c->count);
        r = data != NULL ? crashsim_history_data(h, i, data) : -ENOMEM;
        w.data = data;
    }
    if (r == 0)
        r = crashsim_disk_submit(d, &w, &id);
    free(data);
    return r;
}

int
crashsim_history_apply(const struct crashsim_history *h, size_t i, struct crashsim_disk *d)
{
    const struct crashsim_event *e = &h->events[i];
    const struct crashsim_change *c;
    uint64_t seq;
    int r;

    if (e->kind == CRASHSIM_EVENT_FLUSH)
        return crashsim_disk_flush(d, e->u.bound);
    if (e->kind == CRASHSIM_EVENT_MARK || e->kind == CRASHSIM_EVENT_NONE)
        return 0;
    c = &h->changes[e->u.change];
    if (!c->known)
        return 0;
    if (e->kind == CRASHSIM_EVENT_SUBMIT)
        return history_submit(h, e->u.change, d);
    if (e->kind == CRASHSIM_EVENT_ABANDON) {
        crashsim_disk_abandon(d, c->id);
        return 0;
    }
    r = e->kind == CRASHSIM_EVENT_COMPLETE ? crashsim_disk_complete(d, c->id, &seq) : 0;
    if (r == 0 && (e->kind == CRASHSIM_EVENT_DESTAGE || c->destaged)) {
        r = crashsim_disk_destage(d, c->id);
        r = r == -ENOENT ? 0 : r; /* it had FUA, or a flush came before */
    }
    return r;
}
