/* XXH64 (Yann Collet; specification 0.1.1, github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md): a checksum at memory speed. Not a
 * cryptographic one: it finds damage, not malice. */
#include "internal.h"

#define P1 0x9E3779B185EBCA87ull
#define P2 0xC2B2AE3D27D4EB4Full
#define P3 0x165667B19E3779F9ull
#define P4 0x85EBCA77C2B2AE63ull
#define P5 0x27D4EB2F165667C5ull

static uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }
static uint64_t mix(uint64_t lane, uint64_t word) { return rotate(lane + word * P2, 31) * P1; }

/* The specification reads words as little-endian. */
static uint64_t word64(const uint8_t *p) {
  uint64_t w;
  memcpy(&w, p, sizeof w);
  return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? __builtin_bswap64(w) : w;
}
static uint32_t word32(const uint8_t *p) {
  uint32_t w;
  memcpy(&w, p, sizeof w);
  return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? __builtin_bswap32(w) : w;
}

uint64_t ty_hash(const void *data, int64_t bytes) {
  const uint8_t *p = data, *end = p + bytes;
  uint64_t h = P5;
  if (bytes >= 32) {
    uint64_t lane[4] = {P1 + P2, P2, 0, 0 - P1};
    for (; end - p >= 32; p += 32)
      for (int i = 0; i < 4; i++) lane[i] = mix(lane[i], word64(p + 8 * i));
    h = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
    for (int i = 0; i < 4; i++) h = (h ^ mix(0, lane[i])) * P1 + P4;
  }
  h += (uint64_t)bytes;
  for (; end - p >= 8; p += 8) h = rotate(h ^ mix(0, word64(p)), 27) * P1 + P4;
  for (; end - p >= 4; p += 4) h = rotate(h ^ word32(p) * P1, 23) * P2 + P3;
  for (; p < end; p++) h = rotate(h ^ *p * P5, 11) * P1;
  h = (h ^ h >> 33) * P2;
  h = (h ^ h >> 29) * P3;
  return h ^ h >> 32;
}
