/* cuDNN through its graph API: a plan for each convolution of one shape is made when it is first met, from the heuristics' first engine that
 * cuDNN can finish, and kept; another of them can be asked for. float32 means float32: engines that round the factors to TF32 are passed over, unless
 * that was asked for. Engines whose sums are rounded to 16 bits on the way, or are taken in no fixed order, are passed over too. */
#include "dnn.h"
#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>

enum { OLDEST = 90800, MOST_ENGINES = 32, ALIGNED = 16, IN_USE = -1, X = 1, W, Y };

static cudnnHandle_t handle;
static char text[32] = "cuDNN";

static int check(const char *op, cudnnStatus_t status) {
  return status == CUDNN_STATUS_SUCCESS ? 0 : ty_fail("%s: cuDNN failed: %s", op, cudnnGetErrorString(status));
}

int dnn_accept_version(void) {
  return cudnnGetVersion() >= OLDEST ? 0 : ty_fail("%s is too old: install cuDNN 9.8 or later, or write its folder into TYCHO_CUDA_PATH", dnn_text());
}
int dnn_open(void) {
  TY_TRY(check("open", cudnnCreate(&handle)));
  return check("open", cudnnSetStream(handle, device_stream()));
}
const char *dnn_text(void) {
  int version = (int)cudnnGetVersion();
  snprintf(text, sizeof text, "cuDNN %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
  return text;
}

/* ---- descriptors ---- */

/* A backend descriptor in the making; destroyed with its owner unless it is released. The first error stays. */
struct descriptor {
  cudnnBackendDescriptor_t d = NULL;
  cudnnStatus_t status;
  explicit descriptor(cudnnBackendDescriptorType_t type) { status = cudnnBackendCreateDescriptor(type, &d); }
  ~descriptor() { if (d) cudnnBackendDestroyDescriptor(d); }
  descriptor(const descriptor &) = delete;
  void operator=(const descriptor &) = delete;
  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendSetAttribute(d, name, type, count, values);
  }
  void set(cudnnBackendAttributeName_t name, cudnnDataType_t v) { set(name, CUDNN_TYPE_DATA_TYPE, 1, &v); }
  void set(cudnnBackendAttributeName_t name, int64_t v) { set(name, CUDNN_TYPE_INT64, 1, &v); }
  void set(cudnnBackendAttributeName_t name, float v) { set(name, CUDNN_TYPE_FLOAT, 1, &v); }
  void set(cudnnBackendAttributeName_t name, const descriptor &v) {
    if (status == CUDNN_STATUS_SUCCESS) status = v.status;
    set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &v.d);
  }
  cudnnStatus_t finish(void) {
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnBackendFinalize(d);
    return status;
  }
  cudnnBackendDescriptor_t release(void) {
    cudnnBackendDescriptor_t own = d;
    d = NULL;
    return own;
  }
};

/* A channels-last image or weight (n,c,h,w). */
struct image_descriptor : descriptor {
  image_descriptor(int64_t id, int dtype, int64_t n, int64_t c, int64_t h, int64_t w, int64_t alignment) : descriptor(CUDNN_BACKEND_TENSOR_DESCRIPTOR) {
    const int64_t shape[4] = {n, c, h, w}, stride[4] = {h * w * c, 1, w * c, c};
    set(CUDNN_ATTR_TENSOR_UNIQUE_ID, id);
    set(CUDNN_ATTR_TENSOR_DATA_TYPE, dtype == TY_F16 ? CUDNN_DATA_HALF : dtype == TY_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT);
    set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, shape);
    set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, alignment);
    finish();
  }
};

struct convolution_descriptor : descriptor {
  explicit convolution_descriptor(const conv_shape *s) : descriptor(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR) {
    const int64_t one[2] = {1, 1}, stride[2] = {s->stride, s->stride}, padding[2] = {s->padding, s->padding};
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, (int64_t)2);
    set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, one);
    set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, stride);
    set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, padding);
    finish();
  }
};

/* What differs between the three directions. */
static const struct {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t convolution, x, w, y, alpha, beta;
} directions[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

/* ---- plans ---- */

/* alignment: of all three tensors, in bytes; most engines want ALIGNED. engine: its number in the heuristics' order, among those that fit;
 * of a plan that is looked for IN_USE too: whichever is. */
struct plan {
  dnn_direction of;
  conv_shape shape;
  int dtype;
  bool tf32;
  int64_t alignment;
  int engine;
  cudnnBackendDescriptor_t execution;
  int64_t workspace;
  plan *next;
};
static plan *plans; /* of a convolution's the first is in use; the others stay, as captured graphs may launch their kernels */

/* Whether an engine rounds more than the plan allows, or repeats no result bit for bit. */
static bool is_unfit(const descriptor &config, const plan *p) {
  descriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t count = 0;
  if (cudnnBackendGetAttribute(config.d, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &count, &engine.d) !=
          CUDNN_STATUS_SUCCESS ||
      cudnnBackendGetAttribute(engine.d, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT,
                               &count, notes) != CUDNN_STATUS_SUCCESS)
    return true;
  for (int64_t i = 0; i < count; i++)
    switch (notes[i]) {
    case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
    case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
      if (p->dtype == TY_F32 && !p->tf32) return true;
      break;
    case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
    case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC: return true;
    default: break;
    }
  return false;
}

/* Fills in execution and workspace, from number p->engine of the engines that are fit and can be finished, those of the fallback list last, where some
 * may be there twice; leaves execution NULL where there are some, but fewer. device: a device's properties for a plan that is never run, NULL for the
 * device in use. */
static int make_plan(plan *p, const descriptor *device) {
  const conv_shape *s = &p->shape;
  auto &direction = directions[p->of];
  image_descriptor x(X, p->dtype, s->n, s->in, s->h, s->w, p->alignment), w(W, p->dtype, s->out, s->in, s->kh, s->kw, p->alignment),
      y(Y, p->dtype, s->n, s->out, s->oh, s->ow, p->alignment);
  convolution_descriptor convolution(s);
  descriptor operation(direction.type), graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  operation.set(direction.convolution, convolution);
  operation.set(direction.x, x);
  operation.set(direction.w, w);
  operation.set(direction.y, y);
  operation.set(direction.alpha, 1.0f);
  operation.set(direction.beta, 0.0f);
  operation.finish();
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  if (!device) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  graph.finish();
  const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
  cudnnStatus_t last = graph.status;
  int finished = 0;
  for (int m = 0; m < 2 && graph.status == CUDNN_STATUS_SUCCESS; m++) {
    descriptor search(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    search.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    search.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &modes[m]);
    if (device) search.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, *device);
    if (search.finish() != CUDNN_STATUS_SUCCESS) {
      last = search.status;
      continue;
    }
    int64_t count = 0;
    cudnnBackendGetAttribute(search.d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, &count, NULL);
    if (count > MOST_ENGINES) count = MOST_ENGINES;
    cudnnBackendDescriptor_t found[MOST_ENGINES];
    for (int64_t i = 0; i < count; i++) cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &found[i]);
    int64_t given = count;
    cudnnBackendGetAttribute(search.d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, &given, found);
    for (int64_t i = 0; i < count; i++) {
      descriptor config(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
      cudnnBackendDestroyDescriptor(config.d);
      config.d = found[i];
      if (p->execution || i >= given || is_unfit(config, p)) continue;
      descriptor execution(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
      execution.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
      if (device) execution.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, *device);
      else execution.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
      if (execution.finish() != CUDNN_STATUS_SUCCESS) {
        last = execution.status;
        continue;
      }
      if (finished++ < p->engine) continue;
      int64_t n = 0;
      cudnnBackendGetAttribute(execution.d, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &p->workspace);
      p->execution = execution.release();
    }
    if (p->execution) return 0;
  }
  if (finished) return 0;
  return ty_fail("conv2d: cuDNN has no %s engine for x (%lld, %lld, %lld, %lld) and w (%lld, %lld, %lld, %lld), stride %lld, padding %lld%s%s",
                 ty_dtype_name(p->dtype), (long long)s->n, (long long)s->in, (long long)s->h, (long long)s->w, (long long)s->out, (long long)s->in,
                 (long long)s->kh, (long long)s->kw, (long long)s->stride, (long long)s->padding,
                 last == CUDNN_STATUS_SUCCESS ? "" : ": ", last == CUDNN_STATUS_SUCCESS ? "" : cudnnGetErrorString(last));
}

static bool is_for(const plan *p, const plan *wanted) {
  return p->of == wanted->of && p->dtype == wanted->dtype && p->tf32 == wanted->tf32 && p->alignment == wanted->alignment &&
         memcmp(&p->shape, &wanted->shape, sizeof p->shape) == 0;
}
/* The plan in use for the wanted convolution, or, where wanted has an engine, the one of that engine, which is in use from then on; made where there
 * is none. NULL where there are fewer engines. */
static int plan_for(plan **found, const plan *wanted) {
  for (plan **link = &plans; *link; link = &(*link)->next) {
    plan *p = *link;
    if (!is_for(p, wanted) || (wanted->engine != IN_USE && p->engine != wanted->engine)) continue;
    if (wanted->engine != IN_USE) *link = p->next, p->next = plans, plans = p;
    *found = p;
    return 0;
  }
  plan p = *wanted;
  if (p.engine == IN_USE) p.engine = 0;
  p.next = plans;
  TY_TRY(make_plan(&p, NULL));
  *found = p.execution ? plans = (plan *)memcpy(malloc(sizeof p), &p, sizeof p) : NULL;
  return 0;
}

static bool is_aligned(const void *x, const void *w, const void *y) { return ((uintptr_t)x | (uintptr_t)w | (uintptr_t)y) % ALIGNED == 0; }

/* Not made yet. */
static plan plan_of(int direction, const conv_shape *s, int dtype, int64_t alignment, int engine) {
  return {(dnn_direction)direction, *s, dtype, dtype == TY_F32 && device_tf32(), alignment, engine, NULL, 0, NULL};
}

static int run(dnn_direction of, const conv_shape *s, int dtype, const void *x, const void *w, const void *y) {
  plan *p, wanted = plan_of(of, s, dtype, is_aligned(x, w, y) ? (int64_t)ALIGNED : (int64_t)ty_dtype_size(dtype), IN_USE);
  TY_TRY(plan_for(&p, &wanted));
  scratch<char> workspace(p->workspace);
  TY_TRY(workspace.missing("conv2d"));
  const int64_t ids[3] = {X, W, Y};
  const void *data[3] = {x, w, y};
  descriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids);
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, data);
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace.data);
  TY_TRY(check("conv2d", pack.finish()));
  cudnnStatus_t status = cudnnBackendExecute(handle, p->execution, pack.d);
  return status == CUDNN_STATUS_SUCCESS ? device_launched("conv2d")
                                        : ty_fail("conv2d: cuDNN failed: %s%s", cudnnGetErrorString(status), device_hint());
}
int dnn_forward(const conv_shape *s, int dtype, void *y, const void *x, const void *w) { return run(FORWARD, s, dtype, x, w, y); }
int dnn_back_input(const conv_shape *s, int dtype, void *dx, const void *dy, const void *w) { return run(BACK_INPUT, s, dtype, dx, w, dy); }
int dnn_back_weight(const conv_shape *s, int dtype, void *dw, const void *dy, const void *x) { return run(BACK_WEIGHT, s, dtype, x, dw, dy); }

int dnn_use_engine(int direction, const conv_shape *s, int dtype, const void *x, const void *w, const void *y, int engine, int64_t *workspace) {
  plan *p = NULL, wanted = plan_of(direction, s, dtype, ALIGNED, engine);
  if (is_aligned(x, w, y)) TY_TRY(plan_for(&p, &wanted));
  *workspace = p ? p->workspace : -1;
  return 0;
}

/* ---- plans without a device ---- */

int ty_plan_conv(const char *device, int direction, const ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int engine,
                 int64_t *workspace) {
  conv_shape s;
  TY_TRY(ty_accept_conv(&s, "plan_conv", "x", x, "w", w, "y", y, stride, padding));
  plan p = plan_of(direction, &s, x->dtype, ALIGNED, engine);
  descriptor properties(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  properties.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(device) + 1, device);
  TY_TRY(check("plan_conv", properties.finish()));
  TY_TRY(make_plan(&p, &properties));
  *workspace = p.execution ? p.workspace : -1;
  if (p.execution) cudnnBackendDestroyDescriptor(p.execution);
  return 0;
}
