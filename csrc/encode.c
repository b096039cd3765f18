/* JPEG and PNG files from bytes, by stb_image_write. A file appears whole or not at all. */
#define _GNU_SOURCE
#include "image.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* GCC tells of stb's unused static functions at the end of the file, after any pop. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic push
#pragma GCC push_options
#pragma GCC optimize("wrapv") /* stb lets signed sums and shifts overflow, on purpose */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#include <stb/stb_image_write.h>
#pragma GCC pop_options
#pragma GCC diagnostic pop

typedef struct buffer { uint8_t *data; size_t size, room; int failed; } buffer;

static void append(void *context, void *data, int n) {
  buffer *b = context;
  if (b->failed) return;
  if (b->size + (size_t)n > b->room) {
    size_t room = 2 * b->room + (size_t)n;
    uint8_t *grown = realloc(b->data, room);
    if (!grown) {
      b->failed = 1;
      return;
    }
    b->data = grown;
    b->room = room;
  }
  memcpy(b->data + b->size, data, (size_t)n);
  b->size += (size_t)n;
}

/* Writes to PATH.<pid>.tmp and renames, so that PATH is either complete or as it was. lua/tycho/io/file.lua removes what a killed process leaves. */
static int save(const char *op, const char *path, const buffer *b) {
  struct stat info;
  /* A rename would replace a device such as /dev/null by a file. */
  if (!stat(path, &info) && !S_ISREG(info.st_mode)) return ty_fail("%s: %s is not a regular file", op, path);
  size_t length = strlen(path) + 32;
  char *temporary = malloc(length);
  if (!temporary) return ty_fail("%s: %s: %s", op, path, strerror(ENOMEM));
  snprintf(temporary, length, "%s.%ld.tmp", path, (long)getpid());
  int reason = 0, file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) {
    reason = errno;
  } else {
    for (size_t done = 0; !reason && done < b->size;) {
      ssize_t n = write(file, b->data + done, b->size - done);
      if (n > 0) done += (size_t)n;
      else if (n < 0 && errno != EINTR) reason = errno;
    }
    if (close(file) && !reason) reason = errno;
    if (!reason && rename(temporary, path)) reason = errno;
    if (reason) unlink(temporary);
  }
  free(temporary);
  return reason ? ty_fail("%s: %s: %s", op, path, strerror(reason)) : 0;
}

static int finish(const char *op, const char *path, buffer *b, int encoded) {
  int status = encoded && !b->failed ? save(op, path, b) : ty_fail("%s: %s: out of memory while encoding", op, path);
  free(b->data);
  return status;
}

int ty_write_jpeg(const char *path, const ty_tensor *x, int quality) {
  TY_TRY(ty_check_rgb("write_jpeg", "x", x, 3));
  if (x->shape[0] > 65535 || x->shape[1] > 65535)
    return ty_fail("write_jpeg: x must be at most 65535 pixels high and wide, got shape %s", ty_shape_text(x));
  if (quality < 1 || quality > 100) return ty_fail("write_jpeg: quality must be 1 to 100, got %d", quality);
  buffer b = {0};
  int encoded = stbi_write_jpg_to_func(append, &b, (int)x->shape[1], (int)x->shape[0], 3, x->data, quality);
  return finish("write_jpeg", path, &b, encoded);
}

int ty_write_png(const char *path, const ty_tensor *x) {
  TY_TRY(ty_check_dense("write_png", "x", x, TY_U8, 3));
  int64_t h = x->shape[0], w = x->shape[1], c = x->shape[2];
  if (c != 1 && c != 3 && c != 4) return ty_fail("write_png: x must have 1, 3 or 4 channels in dim 2, got shape %s", ty_shape_text(x));
  if (h < 1 || w < 1 || h > TY_MAX_PIXELS || w > TY_MAX_PIXELS || h * w > TY_MAX_PIXELS)
    return ty_fail("write_png: x must have 1 to %d pixels, got shape %s", TY_MAX_PIXELS, ty_shape_text(x));
  buffer b = {0};
  int encoded = stbi_write_png_to_func(append, &b, (int)w, (int)h, (int)c, x->data, (int)(w * c));
  return finish("write_png", path, &b, encoded);
}
