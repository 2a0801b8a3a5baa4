/* SPDX-License-Identifier: BSD-3-Clause
 *
 * image.h - the bytes of a disk at a cut, and fresh files that hold a state of it.
 *
 * The image is a sparse file of ours with what is durable.  A state is the image under an overlay
 * of blocks, in memory; it is written into a file only when somebody wants to look at it.  That
 * file is used again for the next state: what its last user wrote is found by comparing, not
 * believed.
 */
#ifndef CRASHSIM_IMAGE_H
#define CRASHSIM_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "disk.h"

struct image;

/* Make FILE, of SIZE bytes, and copy BASE into it (NULL: zeros).  0 or a negative errno; -EFBIG:
 * BASE is larger than SIZE. */
int image_open(const char *file, const char *base, uint64_t size, struct image **image);
void image_close(struct image *im);
/* Forget all changes: the base again. */
int image_reset(struct image *im);

/* What a simulated disk stands on: writes through it change the image. */
struct crashsim_base image_base(struct image *im);
/* The same for the overlay. */
struct crashsim_base image_overlay(struct image *im);
void image_overlay_clear(struct image *im);

/* Names the bytes of image and overlay; equal bytes over an equal base have an equal number. */
uint64_t image_hash(const struct image *im);

/* Let FILE hold the image under the overlay.  It is made if it is not there, or not of our
 * making any more. */
int image_build(struct image *im, const char *file);
/* Write the overlay into the image. */
int image_settle(struct image *im);

#endif /* CRASHSIM_IMAGE_H */
