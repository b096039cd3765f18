/* A loop over up to five strided operands that broadcast to the first one's shape; what elementwise operations and copies share. */
#ifndef TYCHO_STRIDED_H
#define TYCHO_STRIDED_H
#include "internal.h"

enum { TY_OPERANDS = 5 };

/* n elements along one dim: p[0] is the output, s[] are strides in elements. */
typedef void (*ty_row_loop)(int64_t n, void *const *p, const int64_t *s);

/* Runs loop over y and count inputs. Fails when an input does not broadcast to y's shape. */
int ty_strided(const char *op, ty_row_loop loop, ty_tensor *y, const ty_tensor *const *inputs, int count);

#endif
