/* The one contract between Tycho's libraries and Lua.
 *
 * Read by the C compiler, by nvcc and, with its '#' lines removed, by LuaJIT's ffi.cdef: so no multi-line macros, and
 * constants are enums. Each level of libtycho (float), libtycho64 (double) and the CUDA plugin export these same names.
 *
 * Conventions
 *  - A function that can fail returns 0, or 1 with one sentence left in ty_error(). Nothing aborts on bad input.
 *  - Outputs first, then inputs (const), then scalars. dx is the gradient of x. No function allocates a result.
 *  - Tags: [out] written, [acc] added to, [save] written and kept for backward, [opt] may be NULL.
 *  - "real" is the library's float type. Tensors are real unless a comment says otherwise. On a device, those marked "float" below may
 *    also be float16 or bfloat16, all of a call the same where nothing else is said; sums are taken in float32. The CPU only converts these.
 *  - Images have shape (N,C,H,W) and channels-last memory, that is strides (H*W*C, 1, W*C, C); convolution weights have
 *    shape (O,I,H,W) and memory (O,H,W,I). "image" below means such a tensor. "dense" means row-major without gaps.
 */
#ifndef TYCHO_H
#define TYCHO_H
#include <stdint.h>

enum { TY_VERSION = 9, TY_MAX_DIMS = 6 };
enum { TY_F32, TY_F64, TY_I64, TY_I32, TY_U8, TY_F16, TY_BF16 };
enum { TY_CPU, TY_CUDA, TY_CUDA_HOST }; /* devices; the last is the CUDA sources compiled for the CPU, for tests */

/* A view of memory: shape and strides in elements. Owns nothing. Scalars have ndim 0. */
typedef struct ty_tensor {
  void *data;
  int32_t ndim;
  int16_t dtype, device;
  int64_t shape[6], stride[6];
} ty_tensor;

/* ---- device.cu: the device libraries only ---- */
int ty_open(void);               /* finds the device; the first call. On failure ty_error() says why none can be used */
const char *ty_device_text(void); /* what was found, with versions */
/* Between the host's memory and a block of ty_alloc's. Upload copies the host's bytes aside and does not wait for the device, unless many earlier
 * ones have yet to arrive. Download waits for all work before it, and fails as ty_sync does. */
int ty_upload(void *block, const void *host, int64_t bytes);
int ty_download(void *host, const void *block, int64_t bytes);
int64_t ty_free_bytes(void); /* what ty_alloc can still give, in all */
/* on: products and convolutions of float32 may round their factors to TF32 (10 bits of fraction), which tensor cores multiply. Off at first. */
void ty_set_tf32(int on);
/* Waits for all work. Fails when a kernel did, or when one found an index out of range: that is known only then. */
int ty_sync(void);
int64_t ty_waits(void); /* how often the host has waited for all work */

/* ---- ring.cu: slots through which bytes of the host reach the device while it works ---- */
typedef struct ty_ring ty_ring;
/* Each slot is a block of pinned memory of the host and one of the device's, of so many bytes. NULL on failure. */
ty_ring *ty_ring_open(int64_t bytes, int slots);
/* host, block [out]: a slot's memory. Waits until what was sent from it has left the host. */
int ty_ring_fill(ty_ring *ring, int slot, void **host, void **block);
/* Copies a slot's first bytes to the device, beside its work: after what was asked for before ty_ring_release, and before all that is asked for next. */
int ty_ring_send(ty_ring *ring, int slot, int64_t bytes);
int ty_ring_release(ty_ring *ring, int slot); /* all that reads the slot on the device has been asked for */
void ty_ring_close(ty_ring *ring);

/* ---- graph.cu: work that is recorded once and launched again and again, as CUDA graphs ---- */
typedef struct ty_graph ty_graph;
/* From here on work is recorded instead of done, in memory of its own that all graphs share, until ty_capture_end: what needs its results,
 * downloads and ty_sync, fails. Uploads repeat the bytes of now. */
int ty_capture_begin(void);
/* graph [out]: what was recorded; NULL drops it. */
int ty_capture_end(ty_graph **graph);
/* Does it all once more, at the same addresses. What it leaves in the graphs' memory lasts until the next launch or capture. */
int ty_graph_launch(ty_graph *graph);
void ty_graph_free(ty_graph *graph);

/* ---- dnn.cu: the engines that cuDNN has for one convolution. direction 0 forward, 1 and 2 backward for the input and for the weight; y or its
 * gradient, and so on. engine: 0 what its heuristics name first, which is used unless another was asked for. workspace [out]: bytes that the engine
 * needs; -1 where there are fewer engines ---- */
/* From now on such convolutions are done by this engine, if it is there; of tensors that are not aligned to 16 bytes always by the first (-1). */
int ty_use_conv_engine(int direction, const ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int engine,
                       int64_t *workspace);
/* Whether cuDNN makes a plan on a device that need not be here. device: its properties, as cuDNN's JSON; the tensors' shapes count, not their data. */
int ty_plan_conv(const char *device, int direction, const ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int engine,
                 int64_t *workspace);

/* ---- kernel.cu: kernels that are compiled at run time ---- */
int ty_architecture(void); /* 90 for compute capability 9.0; 0 for the host build */
/* kernel [out]: the function name in code, a cubin; for the host build the path of a shared object. It stays loaded. */
int ty_kernel_load(void **kernel, const char *name, const char *code);
/* grid, block: 3 sizes each; arguments: pointers to the values of the count parameters, each in 8 bytes, read before this returns. */
int ty_kernel_launch(const char *name, void *kernel, const int32_t *grid, const int32_t *block, void **arguments, int count);

/* ---- cpu.c, the CPU libraries only: levels are "avx512", "avx2" and "plain". Their results differ in the last bits: fused multiply-adds, lengths of partial sums ---- */
const char *ty_level(void);                       /* what this library was compiled for */
const char *ty_level_lacks(const char *level);    /* NULL where this machine runs the level, else what it lacks, such as "avx512f" */

/* ---- storage.c: errors, memory, threads, interrupts ---- */
const char *ty_error(void);
int ty_version(void);
int ty_real_size(void); /* bytes of "real": 4 or 8 */
/* Zero-cost blocks from a size-keyed cache; 64-byte aligned, uninitialised. NULL when the system has none. */
void *ty_alloc(int64_t bytes);
void ty_free(void *block, int64_t bytes);
void ty_cache_clear(void); /* gives cached blocks back to the system */
void ty_memory(int64_t *live, int64_t *peak, int64_t *cached); /* bytes */
void ty_memory_reset_peak(void);
int ty_threads(void);
int ty_set_threads(int n);
const char *ty_blas(void);
/* Mode 1: SIGINT (Ctrl-C) sets a flag that ty_interrupted reads and clears, and long ops end early. Mode 2: SIGTERM too, and SIGHUP unless it is ignored,
 * and a second signal ends the process, whether the flag was read or not. 3: as 2, but none ends it: files are being saved. 0: all end the process.
 * From the first mode 2 or 3 on, writing to a pipe that nobody reads fails instead of ending the process. */
void ty_catch_interrupts(int mode);
int ty_interrupted(void);
/* Points to the flag of mode 1. Ops look at it between their parts and leave the rest undone, which nobody will read: Lua raises when they return
 * (lib.check). Libraries beside the one that catches the signal are given its pointer. Optimisers alone do not look: a step is made whole. */
extern const volatile int *ty_unwanted;
double ty_now(void); /* monotonic seconds; for progress lines only, never in a result */

/* ---- hash.c ---- */
uint64_t ty_hash(const void *data, int64_t bytes); /* XXH64, seed 0 */

/* ---- copy.c ---- */
/* y = x, any dtypes and strides; x's shape must equal y's or broadcast to it. */
int ty_copy(ty_tensor *y, const ty_tensor *x);
int ty_fill(ty_tensor *y, double value);

/* ---- random.c: Philox 4x32-10, keyed by (seed, stream), counted by (step, index) ---- */
void ty_philox(uint32_t *out4, uint64_t seed, uint64_t stream, uint64_t step, uint64_t index);
void ty_philox_raw(uint32_t *counter4, uint32_t key0, uint32_t key1); /* the bare function, in place: for known-answer tests */
int ty_uniform(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step); /* [0,1), dense y */
int ty_normal(ty_tensor *y, uint64_t seed, uint64_t stream, uint64_t step);  /* N(0,1), dense y */

/* ---- map.c: one forward and its derivatives for every row of map.def; any strides, NumPy broadcasting; float, each of any type ---- */
/* NAME(y, x), NAME_back(dx, dy, x, y) for unary rows; NAME(y, a, b), NAME_back_a/_b(d, dy, a, b, y) for binary rows. */

/* ---- reduce.c: y keeps x's number of dims, reduced dims have size 1 ---- */
int ty_sum(ty_tensor *y, const ty_tensor *x); /* x float, y real */
int ty_max(ty_tensor *y, ty_tensor *index, const ty_tensor *x); /* last dim of x; index int64 [out]; first of equals */
int ty_softmax(ty_tensor *y, const ty_tensor *x);               /* last dim, dense */
int ty_softmax_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y);
int ty_normalize(ty_tensor *y, ty_tensor *norm, const ty_tensor *x, double eps); /* x/max(|x|,eps) over the last dim; norm [save] (rows) */
int ty_normalize_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *y, const ty_tensor *norm, double eps);

/* ---- index.c ---- */
int ty_gather(ty_tensor *y, const ty_tensor *x, const ty_tensor *index);       /* y[i] = x[index[i]] along dim 0; index int64 (n) */
int ty_scatter_add(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index); /* dx[index[i]] += dy[i]; dx [acc] */

/* ---- gemm.c ---- */
/* y = a b + beta y. a (...,M,K), b (...,K,N), y (...,M,N) with equal leading dims (stride 0 allowed in a and b); any strides.
 * a and b float, y of their type or real. */
int ty_matmul(ty_tensor *y, const ty_tensor *a, const ty_tensor *b, double beta);
/* y (M,N) = x (M,K) w(N,K)^T + b (N) [opt]; float, b of any such type */
int ty_linear(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, const ty_tensor *b);

/* ---- conv.c: float images; w (O,I,KH,KW) over (O,KH,KW,I); equal stride and zero padding on both axes ---- */
/* grad != 0: y will have a gradient. */
int ty_conv2d(ty_tensor *y, const ty_tensor *x, const ty_tensor *w, int stride, int padding, int grad);
int ty_conv2d_back_input(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *w, int stride, int padding);
int ty_conv2d_back_weight(ty_tensor *dw, const ty_tensor *dy, const ty_tensor *x, int stride, int padding);
/* on != 0: no convolution rounds more than direct summation does (relative error below 1e-6, of a weight's gradient below 3e-6). 0, the default:
 * that holds for a y with a gradient; the gradients, and a y without, may come from larger Winograd tiles (below 1e-5). For the whole process. */
int ty_set_exact(int on);
int ty_exact(void);

/* ---- batch_norm.c: x, float images or (N,C), and what has its shape; weight, bias, mean, rstd, running_mean, running_var (C) ---- */
/* mean and rstd = 1 / sqrt(variance + eps) of this batch, over N,H,W. running_* [opt] move by momentum, the variance towards the unbiased one. */
int ty_batch_norm_statistics(ty_tensor *mean, ty_tensor *rstd, ty_tensor *running_mean, ty_tensor *running_var, const ty_tensor *x, double momentum,
                             double eps);
int ty_batch_norm_rstd(ty_tensor *rstd, const ty_tensor *var, double eps); /* of the running variance, for eval mode */
/* y = act((x - mean) * rstd * weight + bias + residual), act = ReLU when relu != 0. residual [opt]. */
int ty_batch_norm(ty_tensor *y, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight, const ty_tensor *bias,
                  const ty_tensor *residual, int relu);
/* y, index [save] = ty_max_pool2d of that without a residual, which is stored nowhere. */
int ty_batch_norm_pool(ty_tensor *y, ty_tensor *index, const ty_tensor *x, const ty_tensor *mean, const ty_tensor *rstd, const ty_tensor *weight,
                       const ty_tensor *bias, int relu, int kernel, int stride, int padding);
/* The result's gradient is dy + more [opt]. dresidual [opt]. With relu, it is masked by y > 0; without a residual y may be NULL and is computed
 * from x. fixed != 0: mean and rstd are constants (eval mode). */
int ty_batch_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, ty_tensor *dresidual, const ty_tensor *dy, const ty_tensor *more,
                       const ty_tensor *x, const ty_tensor *y, const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean,
                       const ty_tensor *rstd, int relu, int fixed);
int ty_batch_norm_pool_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *index, const ty_tensor *x,
                            const ty_tensor *weight, const ty_tensor *bias, const ty_tensor *mean, const ty_tensor *rstd, int relu, int fixed,
                            int kernel, int stride, int padding);

/* ---- layer_norm.c ---- */
/* Over the last dim, dense; rows = all others. weight, bias (D); mean, rstd [save] (rows). */
int ty_layer_norm(ty_tensor *y, ty_tensor *mean, ty_tensor *rstd, const ty_tensor *x, const ty_tensor *weight, const ty_tensor *bias, double eps);
int ty_layer_norm_back(ty_tensor *dx, ty_tensor *dweight, ty_tensor *dbias, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *weight,
                       const ty_tensor *mean, const ty_tensor *rstd);

/* ---- pool.c: float images ---- */
/* index [save] uint8, y's shape and strides: position of the first maximum in its window, row-major; padding counts as -inf. */
int ty_max_pool2d(ty_tensor *y, ty_tensor *index, const ty_tensor *x, int kernel, int stride, int padding);
int ty_max_pool2d_back(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *index, int kernel, int stride, int padding);
int ty_avg_pool2d(ty_tensor *y, const ty_tensor *x); /* global: x (N,C,H,W) -> y (N,C) dense, of x's type */
int ty_avg_pool2d_back(ty_tensor *dx, const ty_tensor *dy);

/* ---- attention.c ---- */
/* y = softmax(scale q k^T, masked) v. q, y (B,H,T,D); k, v (B,H,S,D), last dim of stride 1; mask [opt] uint8 (T,S), dense, 0 = -inf.
 * p [save] (B,H,T,M+S) dense: the probabilities. All float.
 * memory_k, memory_v [opt] (H,M,D): keys and values that every sequence sees in full, before its own. */
int ty_attention(ty_tensor *y, ty_tensor *p, const ty_tensor *q, const ty_tensor *k, const ty_tensor *v, const ty_tensor *mask,
                 const ty_tensor *memory_k, const ty_tensor *memory_v, double scale);
/* Without memory (memory is for frozen models). */
int ty_attention_back(ty_tensor *dq, ty_tensor *dk, ty_tensor *dv, const ty_tensor *dy, const ty_tensor *p, const ty_tensor *q,
                      const ty_tensor *k, const ty_tensor *v, double scale);

/* ---- loss.c ---- */
/* loss (scalar) = mean over rows of -log softmax(x)[target]; x, p [save] (rows, classes) dense; target int64 (rows). */
int ty_cross_entropy(ty_tensor *loss, ty_tensor *p, const ty_tensor *x, const ty_tensor *target);
int ty_cross_entropy_back(ty_tensor *dx, const ty_tensor *dloss, const ty_tensor *p, const ty_tensor *target);
/* Rows 2k and 2k+1 of s (R,R), dense, are a pair's. loss (scalar) = mean over rows i of -log softmax(v_i)[i's partner], without column i, where
 * v = max(s, floor) / temperature; floor may be -infinity. lse [save] (R): log of the sums of exp(v_i). */
int ty_pair_cross_entropy(ty_tensor *loss, ty_tensor *lse, const ty_tensor *s, double temperature, double floor);
int ty_pair_cross_entropy_back(ty_tensor *ds, const ty_tensor *dloss, const ty_tensor *lse, const ty_tensor *s, double temperature, double floor);

/* ---- optim.c: in place, one pass over all parameters of an optimiser ---- */
/* A parameter, what is kept for it and its gradient, of one layout without gaps. v is Adam's alone; m [opt] is SGD's velocity, NULL without
 * momentum. number: its entry in steps. */
typedef struct ty_parameter { ty_tensor *w, *m, *v; const ty_tensor *g; int64_t number; } ty_parameter;
/* Both: steps [acc] int64, dense: how many each parameter has taken, one more for each in the list. scale [opt]: the gradients are those of
 * scale times the loss; overflow [opt]: where it is not 0, nothing changes; lr: the learning rate, float64. All three are scalars that the device
 * reads. */
/* Adam (Kingma & Ba 2015). weight_decay is added to the gradient (L2), or shrinks w directly when decoupled (AdamW). */
int ty_adam(const ty_parameter *list, int64_t count, ty_tensor *steps, const ty_tensor *scale, const ty_tensor *overflow,
            const ty_tensor *lr, double beta1, double beta2, double eps, double weight_decay, int decoupled);
/* With momentum the velocity begins at 0, so that its first value is the gradient (as in PyTorch). */
int ty_sgd(const ty_parameter *list, int64_t count, ty_tensor *steps, const ty_tensor *scale, const ty_tensor *overflow,
           const ty_tensor *lr, double momentum, double weight_decay);
/* overflow (scalar) = 1 where a gradient in the list holds a NaN or an infinity, else 0. */
int ty_find_overflow(ty_tensor *overflow, const ty_parameter *list, int64_t count);
/* Dynamic loss scaling (Micikevicius et al. 2018) by PyTorch's rules: scale *= backoff where overflow is not 0; scale *= growth, unless that is
 * infinite, after every interval steps without one. counts [acc] int64 (3): steps since the scale last changed, overflows in a row, overflows. */
int ty_update_scale(ty_tensor *scale, ty_tensor *counts, const ty_tensor *overflow, double growth, double backoff, int64_t interval);

/* ---- decode.c, resize.c, image.c, encode.c: JPEG and PNG files; the float library only ---- */
enum { TY_JPEG_AUTO, TY_JPEG_TURBO, TY_JPEG_STB };
/* What decodes JPEG files: libjpeg-turbo where its library is installed, or stb_image, which also decodes PNG and CMYK. For the whole process,
 * not while a loader runs. */
int ty_set_jpeg_decoder(int which);
const char *ty_jpeg_decoder(void); /* its name, with the version where it tells */
int ty_image_size(int32_t *height, int32_t *width, const char *path);
int ty_resize(ty_tensor *y, const ty_tensor *x); /* Pillow's antialiased bilinear; uint8 (H,W,3) dense */
/* y[i] = (x[index[i]]/255 - mean[c]) / std[c]. x uint8 (n,H,W,3) dense; y float image (m,3,H,W); index int64 (m) [opt]; mean, std of 3. */
int ty_normalize_images(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, const double *mean, const double *std);
int ty_write_jpeg(const char *path, const ty_tensor *x, int quality); /* uint8 (H,W,3) dense; written to a temporary name, then renamed */
int ty_write_png(const char *path, const ty_tensor *x);               /* uint8 (H,W,C), C = 1, 3 or 4 */

/* ---- loader.c: threads that read files while the caller goes on; the float library only ---- */
/* What becomes of file i, by the dtype of y:
 *   uint8 (N,H,W,3)  decoded to RGB, resized to (H,W) with Pillow's antialiased bilinear filter (as is when the size is equal), into y[rows[i]]
 *   float64 (N,L)    must be the head_bytes of head and L doubles, which go to y[rows[i]]
 *   int64 (N)        an image checked as far as that goes without decoding it, its size in bytes into y[rows[i]] */
typedef struct ty_loader ty_loader;
/* Starts up to `threads` threads (at most the machine's cores) on n files; with 0 the caller does the work before the function returns. The
 * result does not depend on their number. rows [opt]: NULL for row i; no row twice. y's memory must live until ty_loader_stop; paths, rows and
 * head are copied. NULL on failure. */
ty_loader *ty_loader_start(ty_tensor *y, const char *const *paths, const int64_t *rows, int64_t n, const void *head,
                           int64_t head_bytes, int threads);
/* The same for rows of memory: y[i] = x[index[i]]; both dense and of one dtype, index int64 (n). x's memory must live as long as y's. */
ty_loader *ty_loader_gather(ty_tensor *y, const ty_tensor *x, const ty_tensor *index, int threads);
int ty_loader_wait(ty_loader *l, double seconds);         /* 1 when every file has been tried, 0 when the time is over */
const char *ty_loader_error(const ty_loader *l, int64_t i); /* what was wrong with file i, NULL for nothing; after the wait */
void ty_loader_stop(ty_loader *l);                        /* ends the threads after the file that each is at, and frees l */
/* Asks the system to read rows index (int64 (m)) of a mapped x (dense) ahead of their use; returns at once. */
int ty_read_ahead(const ty_tensor *x, const ty_tensor *index);

/* ---- render.c: the toy3d renderer; the float library only ---- */
/* One convex part of an object. kind 0 = ellipsoid, 1 = box; centre, half axes in object coordinates; albedo RGB. */
typedef struct ty_part { int32_t kind; float centre[3], half[3], albedo[3]; } ty_part;
/* Renders n views of one object in parallel. y uint8 (n,H,W,3) dense; latents float64 (n,7) dense: Euler x y z (extrinsic, radians),
 * floor hue, light theta, light phi, light hue. supersample: rays per pixel axis. */
int ty_render(ty_tensor *y, const ty_part *parts, int nparts, const ty_tensor *latents, int supersample);

#define TY_BACK1(name) int ty_##name(ty_tensor *dx, const ty_tensor *dy, const ty_tensor *x, const ty_tensor *y);
#define TY_BACK2(name) int ty_##name(ty_tensor *d, const ty_tensor *dy, const ty_tensor *a, const ty_tensor *b, const ty_tensor *y);
#define MAP1(name, f, d) int ty_##name(ty_tensor *y, const ty_tensor *x); TY_BACK1(name##_back)
#define TY_BOTH(name) TY_BACK2(name##_back_a) TY_BACK2(name##_back_b)
#define MAP2(name, f, da, db) int ty_##name(ty_tensor *y, const ty_tensor *a, const ty_tensor *b); TY_BOTH(name)
#include "map.def"
#undef MAP1
#undef MAP2
#undef TY_BACK1
#undef TY_BACK2
#undef TY_BOTH
#endif
