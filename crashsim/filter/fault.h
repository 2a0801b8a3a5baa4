/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fault.h - what a disk does wrong or slowly while its power is on.
 */
#ifndef CRASHSIM_FAULT_H
#define CRASHSIM_FAULT_H

#include <stdbool.h>
#include <stdint.h>

enum fault_op { FAULT_READ, FAULT_WRITE, FAULT_FLUSH };

#define FAULT_ROTS_MAX 16

struct fault_rot { /* so many bits of a range are turned while the power is off */
    uint64_t offset, length, bits;
};

struct faults {
    double eio[3];      /* by enum fault_op: the part of requests that fail */
    double lying_flush; /* the part of flushes, and of FUA, that are answered and do nothing */
    uint32_t delay_us[3];
    uint32_t mb_per_s[2]; /* of reads and writes; 0: no limit */
    uint32_t jitter_percent;
    struct fault_rot rot[FAULT_ROTS_MAX];
    unsigned rot_count;
};

/* "0.01" or "1%"; "sd", "usb-ssd", "nvme", "none" or "READ,WRITE,FLUSH" in microseconds;
 * "OFFSET,LENGTH[,BITS]" in bytes.  false: it is not. */
bool fault_parse_rate(const char *text, double *rate);
bool fault_parse_latency(const char *text, struct faults *f);
bool fault_parse_rot(const char *text, struct faults *f);

/* Does it happen now? */
bool fault_happens(double rate, uint64_t *random);
/* How long a request of COUNT bytes takes. */
uint64_t fault_delay_ns(const struct faults *f, enum fault_op op, uint32_t count,
                        uint64_t *random);

#endif /* CRASHSIM_FAULT_H */
