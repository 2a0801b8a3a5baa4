/* SPDX-License-Identifier: BSD-3-Clause
 *
 * power.c - see power.h.
 *
 * 1. One lock covers the disk, the recording, the counters and every call into the plugin: nbdkit's
 *    own locks do not know of the control thread, and its plugin may want one request at a time.
 * 2. A change is taken in under the lock, takes its time without it, and is answered under it.  A
 *    cut between the two finds it in flight, and the request fails afterwards.  A flush covers
 *    what was answered when it came, not when it ends.
 * 3. The N-th write of "after N writes" has been answered, with success, when the power goes: the
 *    cut is made under the same lock as its completion, before the request returns.
 * 4. What is durable is so in the plugin too: flush and FUA go on to it, so that nbdkit may be
 *    killed over a plugin that keeps something back itself.  After a cut nothing reaches it until
 *    the power is on again, but for bits that rot.
 * 5. Each cut that was given no seed has one of its own, made of crashsim-seed and the number of
 *    the cut (the first has crashsim-seed itself); the answer and the statistics tell it.
 */
#include "power.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../random.h"
#include "fault.h"

#define POWER_ZEROS_BYTES 65536

static struct {
    pthread_mutex_t lock;
    nbdkit_next *next;
    struct crashsim_disk *disk;
    uint64_t size_bytes;
    int can_zero, can_flush, can_fua;
    uint32_t base_flags; /* NBDKIT_FLAG_FUA while a change with FUA is written through */
    struct crashsim_record *record;
    unsigned records; /* begun */
    bool record_failed;
    uint64_t random; /* of faults */
    /* the next cut that comes by itself; UINT64_MAX: none */
    uint64_t writes_at, flushes_at, event_at;
    char mark[CRASHSIM_MARK_MAX + 1];
    struct crashsim_choice choice;
    bool seeded;
    /* counters */
    uint64_t events, reads, writes, zeros, trims, flushes, fua, marks;
    uint64_t eio_reads, eio_writes, eio_flushes, lies, rotten_bits;
    uint64_t cuts;
    void (*on_cut)(void);
    struct crashsim_choice last_choice;
    struct crashsim_cut last;
} power = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void
power_lock(void)
{
    (void)pthread_mutex_lock(&power.lock);
}

static void
power_unlock(void)
{
    (void)pthread_mutex_unlock(&power.lock);
}

/* --- the base: the plugin --- */

static int
power_base_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    nbdkit_next *next = opaque;
    int err = EIO;

    return next->pread(next, buf, count, offset, 0, &err) < 0 ? -err : 0;
}

static int
power_base_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    nbdkit_next *next = opaque;
    int err = EIO;

    return next->pwrite(next, buf, count, offset, power.base_flags, &err) < 0 ? -err : 0;
}

/* A trim may leave what it likes; here it leaves zeros, so that what is read is known. */
static int
power_base_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    static const uint8_t zeros[POWER_ZEROS_BYTES];
    nbdkit_next *next = opaque;
    int err = EIO, r = 0;

    if (power.can_zero != NBDKIT_ZERO_NONE) {
        r = next->zero(next, count, offset,
                       power.base_flags | (trim ? NBDKIT_FLAG_MAY_TRIM : 0), &err);
        return r < 0 ? -err : 0;
    }
    while (r == 0 && count > 0) {
        uint32_t n = count < sizeof(zeros) ? count : (uint32_t)sizeof(zeros);

        r = power_base_pwrite(opaque, zeros, n, offset);
        offset += n;
        count -= n;
    }
    return r;
}

static int
power_base_flush(void)
{
    int err = EIO;

    return power.can_flush && power.next->flush(power.next, 0, &err) < 0 ? -err : 0;
}

static void
power_base_destaged(void *opaque, const struct crashsim_write *w)
{
    (void)opaque;
    if (power.record != NULL)
        crashsim_record_destage(power.record, w->id);
}

/* --- the recording --- */

/* An error is told once; the disk goes on, the recording does not. */
static void
power_record_check(void)
{
    if (power.record == NULL || power.record_failed || crashsim_record_error(power.record) == 0)
        return;
    power.record_failed = true;
    errno = -crashsim_record_error(power.record);
    nbdkit_error("%s: %m; the recording ends here", params.record);
}

static void
power_record_end(void)
{
    if (power.record == NULL)
        return;
    power_record_check();
    if (crashsim_record_free(power.record) < 0 && !power.record_failed) {
        power.record_failed = true;
        nbdkit_error("%s: the recording could not be ended", params.record);
    }
    power.record = NULL;
}

/* The first is FILE; what follows a cut cannot be replayed over what came before it, so the
 * time after each power-on has a recording of its own, FILE.1, FILE.2, … */
static int
power_record_begin(void)
{
    char *path = NULL;
    int r;

    if (params.record == NULL)
        return 0;
    r = power.records == 0 ? asprintf(&path, "%s", params.record)
                           : asprintf(&path, "%s.%u", params.record, power.records);
    if (r < 0)
        return -ENOMEM;
    r = crashsim_record_new(path, power.size_bytes, params.seed, &power.record);
    if (r < 0) {
        power.record = NULL;
        errno = -r;
        nbdkit_error("crashsim-record: %s: %m", path);
    }
    free(path);
    power.records++;
    return r;
}

/* --- triggers --- */

static void
power_disarm(void)
{
    power.writes_at = power.flushes_at = power.event_at = UINT64_MAX;
    power.mark[0] = '\0';
}

static uint64_t
power_writes(void)
{
    return power.writes + power.zeros + power.trims;
}

static void
power_set_trigger(const struct trigger *t, const struct crashsim_choice *choice, bool seeded)
{
    power_disarm();
    power.choice = *choice;
    power.seeded = seeded;
    if (t->after_writes != 0)
        power.writes_at = power_writes() + t->after_writes;
    if (t->after_flushes != 0)
        power.flushes_at = power.flushes + t->after_flushes;
    if (t->within != 0) /* each request has two events: it comes, it is answered */
        power.event_at = power.events + 1 +
                         crashsim_hash2(choice->seed, 0x77 + power.events) % (2 * t->within);
    (void)snprintf(power.mark, sizeof(power.mark), "%s", t->mark);
}

static void
power_rot(void)
{
    for (unsigned i = 0; i < params.faults.rot_count; i++) {
        const struct fault_rot *rot = &params.faults.rot[i];

        for (uint64_t k = 0; k < rot->bits; k++) {
            uint64_t r = crashsim_random(&power.random), at = rot->offset + (r >> 3) % rot->length;
            uint8_t byte;

            if (at >= power.size_bytes ||
                power_base_pread(power.next, &byte, 1, at) < 0)
                continue;
            byte ^= (uint8_t)(1u << (r & 7));
            if (power_base_pwrite(power.next, &byte, 1, at) == 0)
                power.rotten_bits++;
        }
    }
}

/* Under the lock, with the power on. */
static int
power_cut_now(const struct crashsim_choice *wanted, bool seeded)
{
    struct crashsim_choice choice = *wanted;
    size_t open = crashsim_disk_open_count(power.disk);
    int r;

    if (!seeded)
        choice.seed = power.cuts == 0 ? params.seed : crashsim_hash2(params.seed, power.cuts);
    if (choice.survive == CRASHSIM_SUBSET && open > CRASHSIM_SUBSET_MAX) {
        nbdkit_error("%zu writes are open, subset is for %d: random instead", open,
                     CRASHSIM_SUBSET_MAX);
        choice.survive = CRASHSIM_RANDOM;
    }
    power_disarm();
    if (power.record != NULL)
        crashsim_record_cut(power.record, power.disk, &choice);
    r = crashsim_disk_cut(power.disk, &choice, &power.last);
    power.last_choice = choice;
    power_record_end();
    power_rot();
    if (r == 0)
        r = power_base_flush();
    power.cuts++;
    if (power.on_cut != NULL)
        power.on_cut();
    if (r < 0) {
        errno = -r;
        nbdkit_error("the cut's surviving state could not be written: %m");
    }
    return r;
}

static void
power_event(void)
{
    power.events++;
    if (crashsim_disk_is_off(power.disk))
        return;
    if (power.events >= power.event_at || power_writes() >= power.writes_at ||
        power.flushes >= power.flushes_at)
        (void)power_cut_now(&power.choice, power.seeded);
}

/* --- requests --- */

/* Without the lock; the request goes on when nbdkit is about to end, too. */
static void
power_delay(uint64_t ns)
{
    if (ns != 0)
        (void)nbdkit_nanosleep((unsigned)(ns / 1000000000u), (unsigned)(ns % 1000000000u));
}

static int
power_answer(int r, int *err)
{
    power_record_check();
    power_unlock();
    if (r < 0)
        *err = -r;
    return r < 0 ? -1 : 0;
}

int
power_read(void *buf, uint32_t count, uint64_t offset, int *err)
{
    uint64_t ns, cuts;
    int r;

    power_lock();
    ns = fault_delay_ns(&params.faults, FAULT_READ, count, &power.random);
    cuts = power.cuts;
    power_unlock();
    power_delay(ns);
    power_lock();
    /* It came before a cut, and the power may be on again. */
    r = power.cuts == cuts ? crashsim_disk_read(power.disk, buf, count, offset) : -ESHUTDOWN;
    if (r == 0) {
        power.reads++;
        if (fault_happens(params.faults.eio[FAULT_READ], &power.random)) {
            power.eio_reads++;
            r = -EIO;
        }
    }
    return power_answer(r, err);
}

static void
power_count_change(const struct crashsim_write *w, bool fua)
{
    switch (w->kind) {
    case CRASHSIM_WRITE:
        power.writes++;
        break;
    case CRASHSIM_ZERO:
        power.zeros++;
        break;
    case CRASHSIM_TRIM:
        power.trims++;
        break;
    }
    if (fua)
        power.fua++;
}

/* Under the lock: the change W is over.  FAILS: the client is told that it failed, though it did
 * not. */
static int
power_complete(struct crashsim_write *w, bool fua, bool fails)
{
    int r;

    power.base_flags = w->fua && power.can_fua != NBDKIT_FUA_NONE ? NBDKIT_FLAG_FUA : 0;
    r = crashsim_disk_complete(power.disk, w->id, &w->seq);
    power.base_flags = 0;
    if (r == -ESHUTDOWN)
        return r;
    w->fua = w->fua && r == 0;
    if (power.record != NULL) {
        if (w->seq != 0)
            crashsim_record_write(power.record, power.disk, w);
        if (r < 0 || fails)
            crashsim_record_fail(power.record, w->id, r < 0 ? -r : EIO);
    }
    if (r == 0)
        power_count_change(w, fua);
    power_event();
    return r == 0 && fails ? -EIO : r;
}

int
power_change(struct crashsim_write *w, int *err)
{
    bool fua = w->fua, fails;
    uint64_t ns;
    int r;

    power_lock();
    fails = fault_happens(params.faults.eio[FAULT_WRITE], &power.random);
    if (fails && !crashsim_disk_is_off(power.disk)) {
        power.eio_writes++;
        if (crashsim_random(&power.random) & 1) /* the disk may have it all the same */
            return power_answer(-EIO, err);
        w->fua = false;
    }
    if (w->fua && fault_happens(params.faults.lying_flush, &power.random)) {
        power.lies++;
        w->fua = false;
    }
    ns = fault_delay_ns(&params.faults, FAULT_WRITE,
                        w->kind == CRASHSIM_WRITE ? w->count : 0, &power.random);
    r = crashsim_disk_submit(power.disk, w, &w->id);
    if (r < 0)
        return power_answer(r, err);
    if (power.record != NULL)
        crashsim_record_submit(power.record, w);
    power_event();
    power_unlock();
    power_delay(ns);
    power_lock();
    return power_answer(power_complete(w, fua, fails), err);
}

int
power_flush(uint32_t conn, int *err)
{
    uint64_t bound, ns, cuts;
    bool lies;
    int r;

    power_lock();
    r = crashsim_disk_flush_begin(power.disk, &bound);
    if (r < 0)
        return power_answer(r, err);
    cuts = power.cuts;
    ns = fault_delay_ns(&params.faults, FAULT_FLUSH, 0, &power.random);
    if (fault_happens(params.faults.eio[FAULT_FLUSH], &power.random)) {
        power.eio_flushes++;
        return power_answer(-EIO, err);
    }
    power_event();
    power_unlock();
    power_delay(ns);
    power_lock();
    if (power.cuts != cuts) /* and the power may be on again */
        return power_answer(-ESHUTDOWN, err);
    lies = fault_happens(params.faults.lying_flush, &power.random);
    if (lies)
        power.lies++;
    else
        r = crashsim_disk_flush(power.disk, bound);
    if (r == 0 && !lies) {
        r = power_base_flush();
        if (r < 0 && power.record != NULL) /* is it durable below, or not? */
            crashsim_record_give_up(power.record, r);
    }
    if (r == 0) {
        if (power.record != NULL)
            crashsim_record_flush(power.record, conn, bound, lies);
        power.flushes++;
    }
    power_event();
    return power_answer(r, err);
}

/* --- commands --- */

static int
power_command(int r)
{
    power_record_check();
    power_unlock();
    return r;
}

static void
power_print_choice(char *answer, const char *prefix, const struct crashsim_choice *c)
{
    size_t used = strlen(answer);
    char index[32] = "";

    if (c->indexed)
        (void)snprintf(index, sizeof(index), ":%" PRIu64, c->index);
    (void)snprintf(answer + used, POWER_ANSWER_MAX - used,
                   "%ssurvive=%s%s\n%stear=%s\n%sseed=%" PRIu64 "\n", prefix,
                   crashsim_choice_survive_name(c->survive), index, prefix,
                   crashsim_choice_tear_name(c->tear), prefix, c->seed);
}

static void
power_print_cut(char *answer, const char *prefix, const struct crashsim_cut *c)
{
    size_t used = strlen(answer);

    (void)snprintf(answer + used, POWER_ANSWER_MAX - used,
                   "%sopen=%" PRIu64 "\n%sin_flight=%" PRIu64 "\n%skept=%" PRIu64
                   "\n%storn=%" PRIu64 "\n%sdropped=%" PRIu64 "\n%sspoilt=%" PRIu64 "\n",
                   prefix, c->open, prefix, c->in_flight, prefix, c->kept, prefix, c->torn, prefix,
                   c->dropped, prefix, c->spoilt);
}

static int
power_is_off(char *answer)
{
    if (!crashsim_disk_is_off(power.disk))
        return 0;
    (void)snprintf(answer, POWER_ANSWER_MAX, "the power is off already");
    return -1;
}

int
power_cut(const struct crashsim_choice *choice, bool seeded, char *answer)
{
    size_t open;
    int r;

    power_lock();
    if (power_is_off(answer) < 0)
        return power_command(-1);
    open = crashsim_disk_open_count(power.disk);
    if (choice->survive == CRASHSIM_SUBSET && open > CRASHSIM_SUBSET_MAX) {
        (void)snprintf(answer, POWER_ANSWER_MAX, "%zu writes are open, subset is for at most %d",
                       open, CRASHSIM_SUBSET_MAX);
        return power_command(-1);
    }
    r = power_cut_now(choice, seeded);
    if (r < 0) {
        errno = -r;
        (void)snprintf(answer, POWER_ANSWER_MAX,
                       "the power is off, but what survived could not be written: %m");
        return power_command(-1);
    }
    answer[0] = '\0';
    power_print_cut(answer, "", &power.last);
    power_print_choice(answer, "", &power.last_choice);
    return power_command(0);
}

void
power_watch(void (*on_cut)(void))
{
    power_lock();
    power.on_cut = on_cut;
    power_unlock();
}

uint64_t
power_wait_begin(void)
{
    uint64_t cuts;

    power_lock();
    cuts = power.cuts - (crashsim_disk_is_off(power.disk) ? 1 : 0);
    power_unlock();
    return cuts;
}

bool
power_wait_is_over(uint64_t cuts, char *answer)
{
    bool over;

    power_lock();
    over = power.cuts > cuts;
    answer[0] = '\0';
    if (over) {
        power_print_cut(answer, "", &power.last);
        power_print_choice(answer, "", &power.last_choice);
    }
    power_unlock();
    return over;
}

int
power_arm(const struct crashsim_choice *choice, bool seeded, const struct trigger *trigger,
          char *answer)
{
    power_lock();
    if (power_is_off(answer) < 0)
        return power_command(-1);
    power_set_trigger(trigger, choice, seeded);
    answer[0] = '\0';
    return power_command(0);
}

int
power_on(char *answer)
{
    int r;

    power_lock();
    r = crashsim_disk_power_on(power.disk);
    answer[0] = '\0';
    if (r == -EALREADY)
        (void)snprintf(answer, POWER_ANSWER_MAX, "the power is on");
    else if (r < 0)
        (void)snprintf(answer, POWER_ANSWER_MAX, "the last cut could not write what survived");
    else if (power_record_begin() < 0)
        (void)snprintf(answer, POWER_ANSWER_MAX,
                       "the power is on, but the next recording could not be begun");
    return power_command(answer[0] == '\0' ? 0 : -1);
}

int
power_mark(const char *name, char *answer)
{
    power_lock();
    answer[0] = '\0';
    if (power_is_off(answer) < 0)
        return power_command(-1);
    power.marks++;
    if (power.record != NULL)
        crashsim_record_mark(power.record, name);
    if (power.mark[0] != '\0' && strcmp(power.mark, name) == 0)
        (void)power_cut_now(&power.choice, power.seeded);
    return power_command(0);
}

int
power_stats(char *answer)
{
    struct crashsim_disk_stats stats;
    size_t used;

    power_lock();
    crashsim_disk_stats(power.disk, &stats);
    (void)snprintf(
        answer, POWER_ANSWER_MAX,
        "power=%s\nsize=%" PRIu64 "\nseed=%" PRIu64 "\nopen=%" PRIu64 "\nin_flight=%" PRIu64
        "\ncache_bytes=%" PRIu64 "\ncache_limit=%" PRIu64 "\ndestaged=%" PRIu64 "\nreads=%" PRIu64
        "\nwrites=%" PRIu64 "\nzeros=%" PRIu64 "\ntrims=%" PRIu64 "\nflushes=%" PRIu64
        "\nfua=%" PRIu64 "\nmarks=%" PRIu64 "\neio_reads=%" PRIu64 "\neio_writes=%" PRIu64
        "\neio_flushes=%" PRIu64 "\nlies=%" PRIu64 "\nrotten_bits=%" PRIu64 "\nrecording=%s\ncuts=%"
        PRIu64 "\n",
        crashsim_disk_is_off(power.disk) ? "off" : "on", power.size_bytes, params.seed, stats.open,
        stats.in_flight, stats.cache_bytes, params.cache_bytes, stats.destaged, power.reads,
        power.writes, power.zeros, power.trims, power.flushes, power.fua, power.marks,
        power.eio_reads, power.eio_writes, power.eio_flushes, power.lies, power.rotten_bits,
        power.record_failed ? "failed" : power.record != NULL ? "on" : "off", stats.cuts);
    if (power.cuts > 0) {
        power_print_cut(answer, "cut_", &power.last);
        power_print_choice(answer, "cut_", &power.last_choice);
    }
    used = strlen(answer);
    return power_command(used < POWER_ANSWER_MAX ? 0 : -1);
}

/* --- the process --- */

int
power_start(nbdkit_next *next, uint64_t size_bytes, int can_zero, int can_flush, int can_fua)
{
    struct crashsim_base base = {
        .opaque = next,
        .pread = power_base_pread,
        .pwrite = power_base_pwrite,
        .zero = power_base_zero,
        .destaged = power_base_destaged,
    };
    int r;

    power_lock();
    power.next = next;
    power.size_bytes = size_bytes;
    power.can_zero = can_zero;
    power.can_flush = can_flush;
    power.can_fua = can_fua;
    power.random = crashsim_hash2(params.seed, 0xfa);
#ifdef CRASHSIM_TEST_BUGS
    if (getenv("CRASHSIM_BUG") != NULL) // NOLINT(concurrency-mt-unsafe): before the threads
        crashsim_disk_bug = (enum crashsim_bug)atoi(getenv("CRASHSIM_BUG")); // NOLINT
#endif
    power_set_trigger(&params.trigger, &params.choice, false);
    r = crashsim_disk_new(&base, size_bytes, params.cache_bytes, params.seed, &power.disk);
    if (r == 0) {
        r = power_record_begin();
    } else {
        errno = -r;
        nbdkit_error("crashsim: %m");
    }
    power_unlock();
    return r < 0 ? -1 : 0;
}

void
power_end(void)
{
    uint64_t bound;
    int r = 0;

    power_lock();
    if (power.disk != NULL && crashsim_disk_flush_begin(power.disk, &bound) == 0) {
        r = crashsim_disk_flush(power.disk, bound);
        if (r == 0)
            r = power_base_flush();
        if (r < 0) {
            errno = -r;
            nbdkit_error("what was in the cache could not be written: %m");
        }
    }
    power_record_end();
    crashsim_disk_free(power.disk);
    power.disk = NULL;
    power_unlock();
}
