/* SPDX-License-Identifier: BSD-3-Clause
 *
 * store.c - a small store on a disk, right or with a flaw, for the tests of `crashsim explore`.
 *
 *     store record FLAW FILE N     append N records to a simulated disk and record that
 *     store check STATE            is what is there a store?  CRASHSIM_MARKS: those acknowledged
 *
 * Record I is 8 KiB at 8192 * I, all of it the number I; the first sector of the disk says how many
 * there are.  It is written, with FUA, behind a flush of the record.  The flaws: "early" leaves
 * that flush out, "ack" acknowledges before the sector is durable, "none" has none.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recording.h"

#define DISK_BYTES   (4u << 20)
#define RECORD_BYTES 8192u

static uint8_t store_disk[DISK_BYTES];

static int
store_pread(void *opaque, void *buf, uint32_t count, uint64_t offset)
{
    (void)opaque;
    memcpy(buf, store_disk + offset, count);
    return 0;
}

static int
store_pwrite(void *opaque, const void *buf, uint32_t count, uint64_t offset)
{
    (void)opaque;
    memcpy(store_disk + offset, buf, count);
    return 0;
}

static int
store_zero(void *opaque, uint32_t count, uint64_t offset, bool trim)
{
    (void)opaque;
    (void)trim;
    memset(store_disk + offset, 0, count);
    return 0;
}

static void
store_die(const char *what)
{
    (void)fprintf(stderr, "%s\n", what);
    exit(1);
}

static void
store_change(struct crashsim_disk *d, struct crashsim_record *r, uint64_t number, uint64_t offset,
             uint32_t count, bool fua)
{
    uint64_t data[RECORD_BYTES / 8] = {number};
    struct crashsim_write w = {.kind = CRASHSIM_WRITE, .fua = fua, .count = count,
                               .offset = offset, .data = (const uint8_t *)data};

    for (size_t i = 0; offset > 0 && i < RECORD_BYTES / 8; i++)
        data[i] = number;
    if (crashsim_disk_submit(d, &w, &w.id) < 0)
        store_die("submit");
    crashsim_record_submit(r, &w);
    if (crashsim_disk_complete(d, w.id, &w.seq) < 0)
        store_die("complete");
    crashsim_record_write(r, d, &w);
}

static void
store_flush(struct crashsim_disk *d, struct crashsim_record *r)
{
    uint64_t bound;

    if (crashsim_disk_flush_begin(d, &bound) < 0 || crashsim_disk_flush(d, bound) < 0)
        store_die("flush");
    crashsim_record_flush(r, 0, bound, false);
}

static void
store_record(const char *flaw, const char *file, uint64_t n)
{
    struct crashsim_base base = {NULL, store_pread, store_pwrite, store_zero, NULL};
    bool early = strcmp(flaw, "early") == 0, ack = strcmp(flaw, "ack") == 0;
    struct crashsim_record *r;
    struct crashsim_disk *d;
    char mark[32];

    if (n > DISK_BYTES / RECORD_BYTES - 1 || (!early && !ack && strcmp(flaw, "none") != 0))
        store_die("no such flaw, or too many");
    if (crashsim_disk_new(&base, DISK_BYTES, 1u << 30, 0, &d) < 0 ||
        crashsim_record_new(file, DISK_BYTES, 0, &r) < 0)
        store_die("it cannot begin");
    for (uint64_t i = 1; i <= n; i++) {
        store_change(d, r, i, i * RECORD_BYTES, RECORD_BYTES, false);
        if (!early)
            store_flush(d, r);
        (void)snprintf(mark, sizeof(mark), "%" PRIu64, i);
        if (ack)
            crashsim_record_mark(r, mark);
        store_change(d, r, i, 0, 512, !early);
        if (early)
            store_flush(d, r);
        if (!ack)
            crashsim_record_mark(r, mark);
    }
    if (crashsim_record_free(r) < 0)
        store_die("it cannot end");
    crashsim_disk_free(d);
}

/* The number in the last line of the marks. */
static uint64_t
store_acknowledged(void)
{
    const char *file = getenv("CRASHSIM_MARKS");
    FILE *f = file != NULL ? fopen(file, "r") : NULL;
    char line[64];
    uint64_t n = 0;

    if (f == NULL)
        store_die("no marks");
    while (fgets(line, sizeof(line), f) != NULL)
        n = strtoull(line, NULL, 10);
    (void)fclose(f);
    return n;
}

static void
store_check(const char *state)
{
    FILE *f = fopen(state, "r+");
    uint64_t count = 0, acknowledged = store_acknowledged(), record[RECORD_BYTES / 8];

    if (f == NULL || fread(&count, sizeof(count), 1, f) != 1)
        store_die("no disk");
    for (uint64_t i = 1; i <= count; i++) {
        if (fseek(f, (long)(i * RECORD_BYTES), SEEK_SET) != 0 ||
            fread(record, sizeof(record), 1, f) != 1)
            store_die("too short");
        for (size_t k = 0; k < RECORD_BYTES / 8; k++) {
            if (record[k] != i) {
                (void)fprintf(stderr, "record %" PRIu64 " of %" PRIu64 " is broken\n", i, count);
                exit(1);
            }
        }
    }
    if (count < acknowledged) {
        (void)fprintf(stderr, "%" PRIu64 " of %" PRIu64 " are there\n", count, acknowledged);
        exit(1);
    }
    /* A check may write: the next state must not see it. */
    memset(record, 0x5a, sizeof(record));
    if (fseek(f, 0, SEEK_SET) != 0 || fwrite(record, sizeof(record), 1, f) != 1 ||
        fseek(f, DISK_BYTES - RECORD_BYTES, SEEK_SET) != 0 ||
        fwrite(record, sizeof(record), 1, f) != 1 || fclose(f) != 0)
        store_die("it cannot be written");
}

int
main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "record") == 0)
        store_record(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    else if (argc == 3 && strcmp(argv[1], "check") == 0)
        store_check(argv[2]);
    else
        store_die("usage: store record FLAW FILE N | store check STATE");
    return 0;
}
