/* What the image sources share: the steps from a file to pixels, with their buffers. */
#ifndef TYCHO_IMAGE_H
#define TYCHO_IMAGE_H
#include "internal.h"

enum { TY_MAX_PIXELS = 100000000 };

/* A block that grows and is kept for the next use. Starts as {0}. */
typedef struct ty_buffer { uint8_t *data; size_t room; } ty_buffer;
/* Room for bytes, the old contents lost. Fails when memory is out. */
int ty_buffer_reserve(ty_buffer *b, size_t bytes);
void ty_buffer_free(ty_buffer *b);

/* ---- decode.c ---- */
/* What one thread keeps from file to file. Starts as {0}. */
typedef struct ty_decoder {
  ty_buffer file, rgb;
  size_t bytes; /* of the file that was read last */
  void *turbo;
} ty_decoder;
void ty_decoder_free(ty_decoder *d);
/* The whole file into d->file, d->bytes; expected: what it should be, for the error. */
int ty_read_file(ty_decoder *d, const char *path, const char *expected);
/* Reads the file and walks its segments, without decoding: finds what is missing, empty, no image, truncated or of absurd size. */
int ty_inspect_image(ty_decoder *d, const char *path, int *h, int *w);
/* Decodes to RGB, (h,w,3), valid until the decoder is used again. Gray is repeated, alpha dropped. */
int ty_decode_image(ty_decoder *d, const char *path, const uint8_t **rgb, int *h, int *w);

/* ---- resize.c ---- */
typedef struct ty_filter { int in, out, taps, *first, *count; int32_t *weight; int16_t *halves; } ty_filter;
/* What one thread keeps from image to image. Starts as {0}. */
typedef struct ty_resizer { ty_filter across, down; ty_buffer narrow, row; } ty_resizer;
void ty_resizer_free(ty_resizer *r);
/* y (ho,wo,3) from x (hi,wi,3). */
int ty_resample(ty_resizer *r, uint8_t *y, int ho, int wo, const uint8_t *x, int hi, int wi);

/* uint8, dense, (...,H,W,3) with 1 to TY_MAX_PIXELS pixels. */
int ty_check_rgb(const char *op, const char *arg, const ty_tensor *t, int ndim);

#endif
