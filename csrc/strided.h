/* A loop over up to five strided operands that broadcast to the first one's shape; what elementwise operations and copies share. */
#ifndef TYCHO_STRIDED_H
#define TYCHO_STRIDED_H
#include "internal.h"

enum { TY_OPERANDS = 5 };

/* Such a loop's operands: dims ordered by the output's memory and merged where they are one run for all; operand 0 is the output. */
typedef struct ty_plan {
  int ndim, operands;
  int64_t total, shape[TY_MAX_DIMS], stride[TY_OPERANDS][TY_MAX_DIMS];
  char *data[TY_OPERANDS];
  int size[TY_OPERANDS], dtype[TY_OPERANDS]; /* of an element: bytes and type */
} ty_plan;

/* Fails when an input does not broadcast to y's shape. */
int ty_plan_strided(ty_plan *p, const char *op, const ty_tensor *y, const ty_tensor *const *inputs, int count);

/* One group of x's dims, ordered by x's memory and merged where they are one run; out: y's strides. */
typedef struct ty_dims { int n; int64_t total, shape[TY_MAX_DIMS], stride[TY_MAX_DIMS], out[TY_MAX_DIMS]; } ty_dims;

/* n elements along one dim: p[0] is the output, s[] are strides in elements. */
typedef void (*ty_row_loop)(int64_t n, void *const *p, const int64_t *s);

/* Runs loop over y and count inputs. Fails when an input does not broadcast to y's shape. */
int ty_strided(const char *op, ty_row_loop loop, ty_tensor *y, const ty_tensor *const *inputs, int count);

#endif
