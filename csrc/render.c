/* The toy3d renderer: ellipsoids and boxes above a floor, seen by an orthographic camera from 45 degrees above, one coloured
 * light from afar. No perspective, no reflections; parts throw a shadow on the floor only, not on each other.
 *
 * Both the camera's rays and the rays from the floor to the light are a *beam*: parallel rays o + u du + v dv + t w over the same
 * image coordinates (u,v). For each part a beam is moved into coordinates in which the part is the unit ball or cube. There the
 * intersection is a formula that vectorises along u, and the dual basis gives the rectangle of (u,v) that can hit at all. */
#include "internal.h"
#include <float.h>

enum { MAX_PARTS = 32, MAX_ROW = 4096 }; /* samples in a row */

static const float half_width = 1.15f, floor_height = -1, sqrt_half = 0.70710678f, spot = 1.6f;
static const float ambient = 0.30f, headlight = 0.40f, sunlight = 0.9f; /* on objects */
static const float floor_ambient = 0.45f, floor_sunlight = 1.1f;

typedef struct vec { float x, y, z; } vec;
typedef struct beam { vec o, du, dv, w; float u[2], v[2]; } beam; /* u, v: range that can hit */

static inline vec along(vec a, float t, vec b) { return (vec){a.x + t * b.x, a.y + t * b.y, a.z + t * b.z}; } /* a + t b */
static inline float dot(vec a, vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static inline vec cross(vec a, vec b) { return (vec){a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }

/* Columns: the object's axes in the world. Extrinsic xyz, that is Rz Ry Rx. */
static void rotation(vec axes[3], const double *euler) {
  float a = (float)cos(euler[0]), b = (float)sin(euler[0]), c = (float)cos(euler[1]), d = (float)sin(euler[1]);
  float e = (float)cos(euler[2]), f = (float)sin(euler[2]);
  axes[0] = (vec){e * c, f * c, -d};
  axes[1] = (vec){e * d * b - f * a, f * d * b + e * a, c * b};
  axes[2] = (vec){e * d * a + f * b, f * d * a - e * b, c * a};
}
static vec to_object(const vec axes[3], vec a) { return (vec){dot(axes[0], a), dot(axes[1], a), dot(axes[2], a)}; }

static vec hsv(float hue, float saturation, float value) {
  float rgb[3];
  for (int i = 0; i < 3; i++) {
    float k = fmodf((float)(5 - 2 * i) + 6 * hue, 6);
    if (k < 0) k += 6;
    rgb[i] = value * (1 - saturation * fmaxf(0, fminf(1, fminf(k, 4 - k))));
  }
  return (vec){rgb[0], rgb[1], rgb[2]};
}

/* The range of a coordinate over the unit ball or cube, where it grows by g from the origin's value. */
static void reach(float range[2], vec g, float origin, int kind) {
  float r = kind == 0 ? sqrtf(dot(g, g)) : fabsf(g.x) + fabsf(g.y) + fabsf(g.z);
  range[0] = origin - r;
  range[1] = origin + r;
}

static beam into_part(beam world, const vec axes[3], const ty_part *part) {
  vec grow = {1 / part->half[0], 1 / part->half[1], 1 / part->half[2]};
  vec centre = {part->centre[0], part->centre[1], part->centre[2]};
  vec *fields[4] = {&world.o, &world.du, &world.dv, &world.w};
  for (int i = 0; i < 4; i++) {
    vec a = to_object(axes, *fields[i]);
    if (i == 0) a = along(a, -1, centre);
    *fields[i] = (vec){a.x * grow.x, a.y * grow.y, a.z * grow.z};
  }
  vec across = cross(world.dv, world.w), down = cross(world.w, world.du);
  float volume = dot(world.du, across);
  across = (vec){across.x / volume, across.y / volume, across.z / volume};
  down = (vec){down.x / volume, down.y / volume, down.z / volume};
  reach(world.u, across, -dot(across, world.o), part->kind);
  reach(world.v, down, -dot(down, world.o), part->kind);
  return world;
}

/* Where the rays o + u du + t w of a row meet the unit ball before depth: writes depth and sets id to k. */
static void cast_ball(float *restrict depth, int32_t *restrict id, const float *restrict u, int n, vec o, vec du, vec w, int32_t k) {
  float a = 1 / dot(w, w), b0 = dot(o, w), b1 = dot(du, w), c0 = dot(o, o) - 1, c1 = 2 * dot(o, du), c2 = dot(du, du);
#pragma omp simd
  for (int i = 0; i < n; i++) {
    float b = (b0 + u[i] * b1) * a, c = (c0 + u[i] * (c1 + u[i] * c2)) * a, d = b * b - c;
    float t = -b - sqrtf(fmaxf(d, 0));
    int hit = d >= 0 && t < depth[i];
    depth[i] = hit ? t : depth[i];
    id[i] = hit ? k : id[i];
  }
}

/* The same for the unit cube. */
static void cast_cube(float *restrict depth, int32_t *restrict id, const float *restrict u, int n, vec o, vec du, vec w, int32_t k) {
  const float os[3] = {o.x, o.y, o.z}, dus[3] = {du.x, du.y, du.z}, ws[3] = {w.x, w.y, w.z};
  float middle[3], slope[3], thick[3]; /* per axis the ray is inside for t in middle + u slope -+ thick */
  for (int i = 0; i < 3; i++) {
    float inverse = 1 / (fabsf(ws[i]) > 1e-6f ? ws[i] : 1e-6f);
    middle[i] = -os[i] * inverse;
    slope[i] = -dus[i] * inverse;
    thick[i] = fabsf(inverse);
  }
#pragma omp simd
  for (int i = 0; i < n; i++) {
    float x = middle[0] + u[i] * slope[0], y = middle[1] + u[i] * slope[1], z = middle[2] + u[i] * slope[2];
    float enter = fmaxf(fmaxf(x - thick[0], y - thick[1]), z - thick[2]);
    float leave = fminf(fminf(x + thick[0], y + thick[1]), z + thick[2]);
    int hit = enter <= leave && enter < depth[i];
    depth[i] = hit ? enter : depth[i];
    id[i] = hit ? k : id[i];
  }
}

/* Casts one row of a beam at all parts. u: n samples from -half_width, step apart. */
static void cast(float *depth, int32_t *id, const float *u, int n, float step, const beam *beams, const ty_part *parts, int nparts,
                 float v) {
  for (int k = 0; k < nparts; k++) {
    const beam *b = beams + k;
    if (v < b->v[0] || v > b->v[1]) continue;
    int from = (int)fmaxf((b->u[0] + half_width) / step - 1, 0);
    int to = (int)fminf((b->u[1] + half_width) / step + 2, (float)n);
    if (to <= from) continue;
    (parts[k].kind == 0 ? cast_ball : cast_cube)(depth + from, id + from, u + from, to - from, along(b->o, v, b->dv), b->du, b->w, k);
  }
}

/* The unit normal in object coordinates at point s of the unit ball or cube. */
static inline vec normal(vec s, const ty_part *part) {
  if (part->kind == 0) {
    vec n = {s.x / part->half[0], s.y / part->half[1], s.z / part->half[2]};
    float scale = 1 / sqrtf(dot(n, n));
    return (vec){n.x * scale, n.y * scale, n.z * scale};
  }
  float x = fabsf(s.x), y = fabsf(s.y), z = fabsf(s.z);
  if (x >= y && x >= z) return (vec){copysignf(1, s.x), 0, 0};
  return y >= z ? (vec){0, copysignf(1, s.y), 0} : (vec){0, 0, copysignf(1, s.z)};
}

static inline float clamp(float x) { return fminf(fmaxf(x, 0), 1); }

/* y (h,w,3). latent: see tycho.h. */
static void render_view(uint8_t *y, int h, int w, const ty_part *parts, int nparts, const double *latent, int ss) {
  float u[MAX_ROW], fade[MAX_ROW], depth[MAX_ROW], sun_depth[MAX_ROW];
  int32_t id[MAX_ROW], sun_id[MAX_ROW];
  float sum[3 * MAX_ROW];
  beam eye[MAX_PARTS], sun[MAX_PARTS];
  vec axes[3];
  rotation(axes, latent);
  float theta = (float)latent[4], phi = (float)latent[5];
  vec light = {sinf(theta) * cosf(phi), sinf(theta) * sinf(phi), cosf(theta)};
  vec light_colour = hsv((float)latent[6], 1, 0.8f), floor_colour = hsv((float)latent[3], 0.6f, 0.6f);
  /* The floor point behind (u,v) is (u, v/sqrt_half - floor_height, floor_height). */
  vec look = {0, sqrt_half, -sqrt_half};
  beam camera = {.o = {0, 0, 0}, .du = {1, 0, 0}, .dv = {0, sqrt_half, sqrt_half}, .w = look};
  beam lamp = {.o = {0, -floor_height, floor_height}, .du = {1, 0, 0}, .dv = {0, 1 / sqrt_half, 0}, .w = light};
  for (int k = 0; k < nparts; k++) {
    eye[k] = into_part(camera, axes, parts + k);
    sun[k] = into_part(lamp, axes, parts + k);
  }
  vec object_look = to_object(axes, look), object_light = to_object(axes, light);
  int n = w * ss;
  float step = 2 * half_width / (float)n, top = step * (float)(h * ss) / 2, share = 1 / (float)(ss * ss);
  for (int i = 0; i < n; i++) {
    u[i] = ((float)i + 0.5f) * step - half_width;
    fade[i] = expf(-u[i] * u[i] / (2 * spot * spot));
  }
  for (int row = 0; row < h * ss; row++) {
    if (row % ss == 0) memset(sum, 0, (size_t)w * 3 * sizeof *sum);
    float v = top - ((float)row + 0.5f) * step, floor_y = v / sqrt_half - floor_height;
    float row_fade = floor_sunlight * light.z * expf(-floor_y * floor_y / (2 * spot * spot));
    for (int i = 0; i < n; i++) {
      depth[i] = v - floor_height / sqrt_half;
      id[i] = -1;
      sun_depth[i] = FLT_MAX;
      sun_id[i] = -1;
    }
    cast(depth, id, u, n, step, eye, parts, nparts, v);
    cast(sun_depth, sun_id, u, n, step, sun, parts, nparts, v);
    for (int i = 0; i < n; i++) {
      vec colour = floor_colour;
      float flat = floor_ambient, lit = sun_id[i] < 0 ? row_fade * fade[i] : 0;
      if (id[i] >= 0) {
        const ty_part *part = parts + id[i];
        const beam *b = eye + id[i];
        vec facing = normal(along(along(along(b->o, v, b->dv), u[i], b->du), depth[i], b->w), part);
        colour = (vec){part->albedo[0], part->albedo[1], part->albedo[2]};
        flat = ambient + headlight * fmaxf(0, -dot(facing, object_look));
        lit = sunlight * fmaxf(0, dot(facing, object_light));
      }
      float *pixel = sum + 3 * (i / ss);
      pixel[0] += clamp(colour.x * (flat + lit * light_colour.x));
      pixel[1] += clamp(colour.y * (flat + lit * light_colour.y));
      pixel[2] += clamp(colour.z * (flat + lit * light_colour.z));
    }
    if (row % ss != ss - 1) continue;
    uint8_t *line = y + (size_t)(row / ss) * w * 3;
    for (int i = 0; i < 3 * w; i++) line[i] = (uint8_t)(sum[i] * share * 255 + 0.5f);
  }
}

static int check_part(const ty_part *part, int k) {
  if (part->kind != 0 && part->kind != 1) return ty_fail("render: part %d: expected kind 0 (ellipsoid) or 1 (box), got %d", k, part->kind);
  for (int i = 0; i < 3; i++) {
    float half = part->half[i];
    if (!(half > 0 && isfinite(half))) return ty_fail("render: part %d: half axes must be positive, got %g", k, half);
    if (!isfinite(part->centre[i]) || !isfinite(part->albedo[i])) return ty_fail("render: part %d: centre and albedo must be finite", k);
  }
  return 0;
}

static int check_latent(const double *latent, int64_t view) {
  for (int i = 0; i < 7; i++)
    if (!isfinite(latent[i])) return ty_fail("render: latents must be finite, got %g in view %lld", latent[i], (long long)view);
  if (cos(latent[4]) > 0.01) return 0;
  return ty_fail("render: the light must stand above the floor, got theta %g in view %lld", latent[4], (long long)view);
}

int ty_render(ty_tensor *y, const ty_part *parts, int nparts, const ty_tensor *latents, int supersample) {
  const char *op = "render";
  TY_TRY(ty_check_dense(op, "y", y, TY_U8, 4));
  TY_TRY(ty_check_size(op, "y", y, 3, 3));
  TY_TRY(ty_check_dense(op, "latents", latents, TY_F64, 2));
  TY_TRY(ty_check_size(op, "latents", latents, 0, y->shape[0]));
  TY_TRY(ty_check_size(op, "latents", latents, 1, 7));
  int64_t n = y->shape[0], h = y->shape[1], w = y->shape[2];
  if (nparts < 0 || nparts > MAX_PARTS) return ty_fail("%s: expected 0 to %d parts, got %d", op, MAX_PARTS, nparts);
  if (supersample < 1 || h < 1 || w < 1 || w > MAX_ROW / supersample || h > MAX_ROW / supersample)
    return ty_fail("%s: expected 1 to %d rays in a row (size times supersample), got y %s and supersample %d", op, MAX_ROW,
                   ty_shape_text(y), supersample);
  for (int k = 0; k < nparts; k++) TY_TRY(check_part(parts + k, k));
  const double *latent = latents->data;
  uint8_t *view = y->data;
  for (int64_t i = 0; i < n; i++) TY_TRY(check_latent(latent + 7 * i, i));
#pragma omp parallel for schedule(dynamic) if (n > 1)
  for (int64_t i = 0; i < n; i++) {
    if (ty_is_unwanted()) continue;
    render_view(view + i * h * w * 3, (int)h, (int)w, parts, nparts, latent + 7 * i, supersample);
  }
  return 0;
}
