/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The log's file: whatever lies behind its head, recovery ends, hands out no more than the file
 * can hold and each record inside it, and what is appended then is found.
 *
 * The input: bit 0 of the first byte says that checksums are put right first, so that
 * mutations reach what is behind them; the second byte is the tail's place; then the
 * beginning of the records.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "../../engines/log/ring.h"

#define BYTES KVFS_RING_MIN

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t id[KVFS_RING_ID] = "0123456789abcdef";
static char folder[] = "/dev/shm/kvfs-fuzz-XXXXXX"; /* in memory: a file system would be slow */
static char name[sizeof(folder) + 8];
static uint8_t head[KVFS_RING_ALIGN];
static struct kvfs_ring_file file = {.path = name, .id = id, .epoch = 1};

static void
must(bool holds)
{
    if (!holds)
        abort();
}

static void
fuzz_end(void)
{
    (void)unlink(name);
    (void)rmdir(folder);
}

static void
fuzz_begin(void)
{
    int fd;

    must(mkdtemp(folder) != NULL && atexit(fuzz_end) == 0);
    (void)snprintf(name, sizeof(name), "%s/log", folder);
    file.folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(file.folder >= 0 && kvfs_ring_make(&file, BYTES, NULL) == 0);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && read(fd, head, sizeof(head)) == (ssize_t)sizeof(head));
    (void)close(fd);
}

/* Put right the records that lie one behind the other, by the words of ring.c's top. */
static void
fuzz_mend(uint8_t *bytes)
{
    uint64_t before = 0, seq = 1, check;

    for (size_t at = 0; at + KVFS_RING_HEAD <= BYTES - KVFS_RING_ALIGN; seq++) {
        uint8_t *r = bytes + at;
        uint32_t len;
        uint64_t number;

        memcpy(&len, r + 4, sizeof(len));
        len = le32toh(len);
        if (len > BYTES - KVFS_RING_ALIGN - at - KVFS_RING_HEAD)
            return;
        memcpy(r + 8, id, sizeof(id));
        number = htole64(1);
        memcpy(r + 24, &number, 8);
        number = htole64(seq);
        memcpy(r + 32, &number, 8);
        number = htole64(before);
        memcpy(r + 40, &number, 8);
        memset(r + 56, 0, 8);
        before = XXH3_64bits(r, KVFS_RING_HEAD + len);
        check = htole64(before);
        memcpy(r + 56, &check, 8);
        at += ((size_t)KVFS_RING_HEAD + len + KVFS_RING_ALIGN - 1) / KVFS_RING_ALIGN * KVFS_RING_ALIGN;
    }
}

struct seen {
    uint64_t next; /* sequence number */
    size_t bytes;
};

static int
seen_record(void *arg, const struct kvfs_ring_at *at, const void *payload, size_t len)
{
    static volatile uint8_t sum;
    struct seen *s = arg;

    must(at->seq == s->next++);
    must(at->offset % KVFS_RING_ALIGN == 0 && at->offset + KVFS_RING_HEAD + len <= BYTES);
    for (size_t i = 0; i < len; i++) /* for the sanitizer */
        sum = (uint8_t)(sum + ((const uint8_t *)payload)[i]);
    s->bytes += KVFS_RING_HEAD + len;
    must(s->bytes <= 2 * BYTES);
    return 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[BYTES];
    struct kvfs_ring_at tail = kvfs_ring_first(), at;
    struct seen s = {.next = 1};
    struct kvfs_ring *r;
    uint8_t *payload;
    int fd;

    if (name[0] == '\0')
        fuzz_begin();
    if (size < 2 || size - 2 > BYTES - KVFS_RING_ALIGN)
        return 0;
    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, head, sizeof(head));
    memcpy(bytes + KVFS_RING_ALIGN, data + 2, size - 2);
    if ((data[0] & 1) != 0)
        fuzz_mend(bytes + KVFS_RING_ALIGN);
    fd = open(name, O_WRONLY | O_CLOEXEC);
    must(fd >= 0 && pwrite(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes));
    (void)close(fd);
    tail.offset += data[1] % (BYTES / KVFS_RING_ALIGN) * KVFS_RING_ALIGN;
    must(kvfs_ring_open(&file, false, &r, NULL) == 0);
    must(kvfs_ring_recover(r, &tail, seen_record, &s, NULL) == 0);
    must(kvfs_ring_head(r).seq == s.next);
    payload = kvfs_ring_payload(r, 1);
    must(payload != NULL);
    *payload = 1;
    if (kvfs_ring_append(r, 1, false, &at, NULL) == 0) {
        uint64_t next = s.next;

        must(at.seq == next);
        s = (struct seen){.next = 1};
        must(kvfs_ring_recover(r, &tail, seen_record, &s, NULL) == 0 && s.next > next);
    }
    kvfs_ring_close(r);
    return 0;
}
