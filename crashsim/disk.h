/* SPDX-License-Identifier: BSD-3-Clause
 *
 * disk.h - a disk with a volatile write cache whose power can be cut.
 *
 * The model, in the words of docs/CRASHSIM.md: a change (a write, a range of zeros, a trim) is
 * *taken in*, then *answered*.  From being taken in until it is durable it is *open* and lives in
 * the cache only; what is durable is in the base.  Reads see what was answered.  A flush makes
 * durable what had been answered when the flush came; a change with FUA makes durable itself and
 * nothing else.  A cut ends everything: a choice (choice.h) says which open changes reach the
 * base, and every request fails until the power is back.
 *
 * This file knows neither nbdkit nor threads: the caller holds a lock around each call.  Given
 * the same calls in the same order, and the same seed, the same happens.
 *
 * Functions answer 0 or a negative errno; -ESHUTDOWN: the power is off, or was since the change
 * was taken in.
 */
#ifndef CRASHSIM_DISK_H
#define CRASHSIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "choice.h"
#include "pick.h"

enum crashsim_kind { CRASHSIM_WRITE, CRASHSIM_ZERO, CRASHSIM_TRIM };

struct crashsim_write {
    uint64_t id;  /* from 1, in the order of being taken in */
    uint64_t seq; /* from 1, in the order of answers; 0: not answered yet */
    enum crashsim_kind kind;
    bool fua;
    uint32_t conn; /* of the caller's choice */
    uint32_t count;
    uint64_t offset;
    const uint8_t *data; /* CRASHSIM_WRITE: count bytes; else NULL */
};

/* What is durable: bytes at addresses.  Each call answers 0 or a negative errno. */
struct crashsim_base {
    void *opaque;
    int (*pread)(void *opaque, void *buf, uint32_t count, uint64_t offset);
    int (*pwrite)(void *opaque, const void *buf, uint32_t count, uint64_t offset);
    int (*zero)(void *opaque, uint32_t count, uint64_t offset, bool trim);
    /* NULL, or told of each change that became durable only because the cache is full, or by a
     * flush that failed behind it. */
    void (*destaged)(void *opaque, const struct crashsim_write *w);
};

struct crashsim_disk_stats {
    uint64_t open, in_flight; /* changes; in_flight: those of them not answered */
    uint64_t cache_bytes;     /* what they and their index take */
    uint64_t destaged;
    uint64_t cuts;
};

struct crashsim_cut { /* of a cut: how many of the open changes were … */
    uint64_t open, in_flight;
    uint64_t kept, torn, dropped;
    uint64_t spoilt; /* sectors of tears that no disk may make */
};

struct crashsim_disk;

int crashsim_disk_new(const struct crashsim_base *base, uint64_t size_bytes, uint64_t cache_bytes,
                      uint64_t seed, struct crashsim_disk **disk);
/* What is still open is dropped. */
void crashsim_disk_free(struct crashsim_disk *d);

/* Take a change in: *ID names it.  W->id and W->seq are ignored; the data are copied. */
int crashsim_disk_submit(struct crashsim_disk *d, const struct crashsim_write *w, uint64_t *id);

/* It is about to be answered: reads see it from now on; with FUA it is durable.  After an error
 * *SEQ tells more.  0: nothing is left of it (the base took nothing from a full cache, or no
 * memory).  Else it is open as one without FUA: the base failed to write it through. */
int crashsim_disk_complete(struct crashsim_disk *d, uint64_t id, uint64_t *seq);

/* It failed and leaves nothing behind. */
void crashsim_disk_abandon(struct crashsim_disk *d, uint64_t id);

int crashsim_disk_read(struct crashsim_disk *d, void *buf, uint32_t count, uint64_t offset);

/* A flush that comes now will cover what has been answered up to *BOUND … */
int crashsim_disk_flush_begin(const struct crashsim_disk *d, uint64_t *bound);
/* … and makes that durable, in the order of answers.  After an error part of it is. */
int crashsim_disk_flush(struct crashsim_disk *d, uint64_t bound);

/* The open changes in the order of choice.h; a pointer is good until the next other call. */
size_t crashsim_disk_open_count(const struct crashsim_disk *d);
const struct crashsim_write *crashsim_disk_open(const struct crashsim_disk *d, size_t i);

/* Cut the power: those that CHOICE keeps go to the base.  The power is off whatever is answered;
 * after an error what survived is not a legal state, and the disk stays off. */
int crashsim_disk_cut(struct crashsim_disk *d, const struct crashsim_choice *choice,
                      struct crashsim_cut *cut);
/* What a cut would pass down if PICK (pick.h, of as many as are open) decided, given to SINK
 * instead of the base; nothing else happens. */
int crashsim_disk_peek(struct crashsim_disk *d, const struct crashsim_pick *pick,
                       const struct crashsim_base *sink);
/* For replayers: the answered change ID becomes durable now.  -ENOENT: it is not open. */
int crashsim_disk_destage(struct crashsim_disk *d, uint64_t id);
bool crashsim_disk_is_off(const struct crashsim_disk *d);
/* Serve the base again, with an empty cache.  -EALREADY: it was on; -EIO: see above. */
int crashsim_disk_power_on(struct crashsim_disk *d);

void crashsim_disk_stats(const struct crashsim_disk *d, struct crashsim_disk_stats *stats);

#ifdef CRASHSIM_TEST_BUGS
/* Planted, for tests that must find them. */
enum crashsim_bug {
    CRASHSIM_BUG_NONE,
    CRASHSIM_BUG_FUA_BARRIER,      /* FUA makes everything before it durable */
    CRASHSIM_BUG_OLDER_OVER_NEWER, /* an open write comes back over a newer durable one */
    CRASHSIM_BUG_FLUSH_FORGETS,    /* a flush forgets one in eight of what it covers */
    CRASHSIM_BUG_DRAIN,            /* the power comes back with the cache as it was */
    CRASHSIM_BUG_UNANSWERED,       /* what was not answered can never survive */
};
extern enum crashsim_bug crashsim_disk_bug;
#define CRASHSIM_HAS_BUG(bug) (crashsim_disk_bug == (bug))
#else
#define CRASHSIM_HAS_BUG(bug) false
#endif

#endif /* CRASHSIM_DISK_H */
