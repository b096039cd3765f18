/* JPEG and PNG files to RGB bytes: libjpeg-turbo where its library is installed, stb_image elsewhere and for what the former leaves out.
 * Deliberately ignores EXIF orientation and colour profiles. A damaged file is an error, never a guess at its pixels. */
#define _GNU_SOURCE
#include "image.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* GCC tells of stb's unused static functions at the end of the file, after any pop. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic push
#pragma GCC push_options
#pragma GCC optimize("wrapv") /* stb lets signed sums and shifts overflow, on purpose and in damaged files */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#include <stb/stb_image.h>
#pragma GCC pop_options
#pragma GCC diagnostic pop

/* ---- buffers ---- */

int ty_buffer_reserve(ty_buffer *b, size_t bytes) {
  if (b->room >= bytes) return 0;
  size_t room = bytes + bytes / 4;
  free(b->data);
  b->data = malloc(room);
  b->room = b->data ? room : 0;
  return b->data ? 0 : ty_fail("out of memory: asked for %zu bytes for an image", room);
}
void ty_buffer_free(ty_buffer *b) {
  free(b->data);
  *b = (ty_buffer){0};
}

/* ---- reading ---- */

int ty_read_file(ty_decoder *d, const char *path, const char *expected) {
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not block */
  if (file < 0) return ty_fail("%s: %s", path, strerror(errno));
  struct stat info;
  int status = fstat(file, &info) ? ty_fail("%s: %s", path, strerror(errno)) : 0;
  const char *kind = S_ISDIR(info.st_mode) ? "a directory" : "no regular file";
  if (!status && !S_ISREG(info.st_mode)) status = ty_fail("%s: expected %s, got %s", path, expected, kind);
  if (!status && info.st_size == 0) status = ty_fail("%s: expected %s, got an empty file", path, expected);
  if (!status && info.st_size > INT32_MAX) status = ty_fail("%s: expected %s, got a file of %lld bytes", path, expected, (long long)info.st_size);
  if (!status) status = ty_buffer_reserve(&d->file, (size_t)info.st_size);
  d->bytes = 0;
  while (!status && d->bytes < (size_t)info.st_size) {
    ssize_t n = read(file, d->file.data + d->bytes, (size_t)info.st_size - d->bytes);
    if (n > 0) d->bytes += (size_t)n;
    else if (n == 0) break;
    else if (errno != EINTR) status = ty_fail("%s: %s", path, strerror(errno));
  }
  close(file);
  return status;
}

static int is_jpeg(const uint8_t *p, size_t n) { return n >= 3 && p[0] == 0xFF && p[1] == 0xD8 && p[2] == 0xFF; }
static int is_png(const uint8_t *p, size_t n) { return n >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8); }

/* What the header says. */
typedef struct frame { int h, w, channels; } frame;

/* Whether the Huffman tables in a DHT segment have at most 256 codes each: stb 2.27 writes past its own table otherwise. */
static int huffman_tables_fit(const uint8_t *p, size_t n) {
  while (n >= 17) {
    size_t codes = 0;
    for (int i = 1; i <= 16; i++) codes += p[i];
    if (codes > 256) return 0;
    if (n < 17 + codes) return 1; /* stb refuses such a segment */
    p += 17 + codes;
    n -= 17 + codes;
  }
  return n == 0;
}

/* What is wrong with a JPEG's marker segments, or NULL. stb fills the missing rest of some truncated files with grey. */
static const char *walk_jpeg(const uint8_t *p, size_t n, frame *f) {
  size_t at = 2;
  int scans = 0;
  while (at + 1 < n) {
    const uint8_t *found = memchr(p + at, 0xFF, n - at - 1);
    if (!found) break;
    at = (size_t)(found - p) + 1;
    uint8_t marker = p[at];
    if (marker == 0xD9) return !f->channels ? "a damaged JPEG (no frame header)" : !scans ? "a damaged JPEG (no image data)" : NULL;
    if (marker == 0xFF) continue;
    at++;
    int bare = marker <= 0x01 || (marker >= 0xD0 && marker <= 0xD8); /* stuffed zero, TEM, restart, SOI: no length follows */
    if (bare) continue;
    if (at + 1 >= n) break;
    size_t length = (size_t)(p[at] << 8 | p[at + 1]);
    if (length < 2) return "a damaged JPEG (a segment shorter than its own length field)";
    if (marker == 0xC4 && at + length <= n && !huffman_tables_fit(p + at + 2, length - 2)) return "a damaged JPEG (bad Huffman table)";
    scans += marker == 0xDA;
    int is_frame = marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
    if (is_frame && !f->channels && length >= 8 && at + 8 <= n)
      *f = (frame){p[at + 3] << 8 | p[at + 4], p[at + 5] << 8 | p[at + 6], p[at + 7]};
    at += length;
  }
  return "a truncated JPEG (no end-of-image marker)";
}

/* CRC-32, four bytes at a time (Kounavis and Berry 2005): crc_table[k] takes a byte that k more follow. */
static uint32_t crc_table[4][256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;
static void fill_crc_table(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    crc_table[0][i] = crc;
  }
  for (int k = 1; k < 4; k++)
    for (int i = 0; i < 256; i++) crc_table[k][i] = crc_table[0][crc_table[k - 1][i] & 255] ^ crc_table[k - 1][i] >> 8;
}
static uint32_t crc32_of(const uint8_t *p, size_t n) {
  uint32_t crc = ~0u;
  for (; n >= 4; n -= 4, p += 4) {
    crc ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    crc = crc_table[3][crc & 255] ^ crc_table[2][crc >> 8 & 255] ^ crc_table[1][crc >> 16 & 255] ^ crc_table[0][crc >> 24];
  }
  for (; n > 0; n--, p++) crc = crc_table[0][(crc ^ *p) & 255] ^ crc >> 8;
  return ~crc;
}

static uint32_t big32(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

/* What is wrong with a PNG's chunks, or NULL. stb looks at no checksum. */
static const char *walk_png(const uint8_t *p, size_t n) {
  pthread_once(&crc_once, fill_crc_table);
  for (size_t at = 8; n - at >= 12;) {
    size_t length = big32(p + at);
    if (length > n - at - 12) break;
    if (crc32_of(p + at + 4, length + 4) != big32(p + at + 8 + length)) return "a damaged PNG (a checksum does not match)";
    if (!memcmp(p + at + 4, "IEND", 4)) return NULL;
    at += length + 12;
  }
  return "a truncated PNG (no IEND chunk)";
}

static int check_kind(const char *path, const uint8_t *p, size_t n, frame *f) {
  if (!is_jpeg(p, n) && !is_png(p, n)) {
    char head[16] = "";
    for (size_t i = 0; i < 4 && i < n; i++) snprintf(head + 3 * i, 4, " %02x", p[i]);
    return ty_fail("%s: expected a JPEG or PNG image, got a file that begins with the bytes%s", path, head);
  }
  const char *fault = is_jpeg(p, n) ? walk_jpeg(p, n, f) : walk_png(p, n);
  if (fault) return ty_fail("%s: expected a JPEG or PNG image, got %s", path, fault);
  if (is_png(p, n) && !stbi_info_from_memory(p, (int)n, &f->w, &f->h, &f->channels))
    return ty_fail("%s: expected a JPEG or PNG image, got a damaged or unsupported PNG (%s)", path, stbi_failure_reason());
  if (f->h < 1 || f->w < 1 || (int64_t)f->w * f->h > TY_MAX_PIXELS)
    return ty_fail("%s: expected 1 to %d pixels, got %d x %d", path, TY_MAX_PIXELS, f->w, f->h);
  return 0;
}

static int read_checked(ty_decoder *d, const char *path, frame *f) {
  *f = (frame){0};
  TY_TRY(ty_read_file(d, path, "a JPEG or PNG image"));
  return check_kind(path, d->file.data, d->bytes, f);
}

int ty_inspect_image(ty_decoder *d, const char *path, int *h, int *w) {
  frame f;
  TY_TRY(read_checked(d, path, &f));
  *h = f.h;
  *w = f.w;
  return 0;
}

/* ---- libjpeg-turbo, by its TurboJPEG interface (turbojpeg.h 2.0 and later) ---- */

enum { RGB = 0, ACCURATE_DCT = 4096, CMYK_CHANNELS = 4 };

static struct {
  void *library;
  void *(*init)(void);
  int (*destroy)(void *);
  int (*decompress)(void *, const unsigned char *, unsigned long, unsigned char *, int width, int pitch, int height, int format, int flags);
  char *(*error)(void *);
  char name[128]; /* of the library's file, which holds its version */
} turbo;
static int use_turbo;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load_turbo(void) {
  void *library = dlopen("libturbojpeg.so.0", RTLD_NOW | RTLD_LOCAL);
  if (!library) return;
  *(void **)&turbo.init = dlsym(library, "tjInitDecompress");
  *(void **)&turbo.destroy = dlsym(library, "tjDestroy");
  *(void **)&turbo.decompress = dlsym(library, "tjDecompress2");
  *(void **)&turbo.error = dlsym(library, "tjGetErrorStr2");
  Dl_info info;
  if (!turbo.init || !turbo.destroy || !turbo.decompress || !turbo.error || !dladdr(*(void **)&turbo.init, &info)) return;
  char *file = realpath(info.dli_fname, NULL);
  const char *path = file ? file : info.dli_fname, *slash = strrchr(path, '/');
  snprintf(turbo.name, sizeof turbo.name, "%s", slash ? slash + 1 : path);
  free(file);
  turbo.library = library;
  use_turbo = 1;
}

const char *ty_jpeg_decoder(void) {
  pthread_once(&once, load_turbo);
  return use_turbo ? turbo.name : "stb_image";
}
int ty_set_jpeg_decoder(int which) {
  pthread_once(&once, load_turbo);
  if (which == TY_JPEG_TURBO && !turbo.library) return ty_fail("libturbojpeg.so.0 cannot be loaded; install the package libturbojpeg0");
  use_turbo = which == TY_JPEG_STB ? 0 : turbo.library != NULL;
  return 0;
}

/* The same accurate inverse DCT and smooth upsampling as Pillow. A warning, of data that does not fit its frame, counts as damage. */
static int decode_turbo(ty_decoder *d, const char *path, const frame *f) {
  if (!d->turbo && !(d->turbo = turbo.init())) return ty_fail("%s: cannot start libturbojpeg: %s", path, turbo.error(NULL));
  TY_TRY(ty_buffer_reserve(&d->rgb, (size_t)f->h * (size_t)f->w * 3));
  if (!turbo.decompress(d->turbo, d->file.data, d->bytes, d->rgb.data, f->w, 0, f->h, RGB, ACCURATE_DCT)) return 0;
  return ty_fail("%s: expected a JPEG or PNG image, got a damaged or unsupported JPEG (%s)", path, turbo.error(d->turbo));
}

/* ---- stb_image ---- */

static int decode_stb(ty_decoder *d, const char *path, const frame *f) {
  const uint8_t *p = d->file.data;
  int w, h, channels;
  uint8_t *rgb = stbi_load_from_memory(p, (int)d->bytes, &w, &h, &channels, 3);
  if (!rgb) {
    const char *kind = is_jpeg(p, d->bytes) ? "JPEG" : "PNG", *reason = stbi_failure_reason();
    /* The PNG test runs first; its reason stays when the JPEG decoder gives none. */
    if (!reason || (is_jpeg(p, d->bytes) && !strcmp(reason, "bad png sig"))) reason = "bad segment";
    return ty_fail("%s: expected a JPEG or PNG image, got a damaged or unsupported %s (%s)", path, kind, reason);
  }
  int status = w == f->w && h == f->h ? 0 : ty_fail("%s: expected %d x %d pixels by the header, got %d x %d", path, f->w, f->h, w, h);
  /* Its block becomes ours: stb allocates with malloc. */
  ty_buffer_free(&d->rgb);
  d->rgb = (ty_buffer){rgb, (size_t)w * (size_t)h * 3};
  return status;
}

int ty_decode_image(ty_decoder *d, const char *path, const uint8_t **rgb, int *h, int *w) {
  frame f;
  pthread_once(&once, load_turbo);
  TY_TRY(read_checked(d, path, &f));
  /* TurboJPEG turns no CMYK into RGB, and reads no PNG. */
  int by_turbo = use_turbo && is_jpeg(d->file.data, d->bytes) && f.channels < CMYK_CHANNELS;
  TY_TRY((by_turbo ? decode_turbo : decode_stb)(d, path, &f));
  *rgb = d->rgb.data;
  *h = f.h;
  *w = f.w;
  return 0;
}

void ty_decoder_free(ty_decoder *d) {
  ty_buffer_free(&d->file);
  ty_buffer_free(&d->rgb);
  if (d->turbo) turbo.destroy(d->turbo);
  d->turbo = NULL;
}

int ty_image_size(int32_t *height, int32_t *width, const char *path) {
  ty_decoder d = {0};
  int status = ty_inspect_image(&d, path, height, width);
  ty_decoder_free(&d);
  return status;
}
