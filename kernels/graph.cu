/* Work that is recorded once and launched again and again. */
#include "device.h"
#include <vector>

struct ty_graph {
  cudaGraphExec_t executable = NULL;
  std::vector<void *> constants; /* pinned memory that its uploads read */
};
static ty_graph *current; /* the one that is captured */
static std::vector<ty_graph *> unwanted; /* freed during a capture, which nothing may wait in */
static int count;

bool device_is_capturing(void) { return current != NULL; }
bool device_has_graphs(void) { return count > 0; }

void *device_capture_constant(int64_t bytes) {
  void *block = NULL;
  if (cudaHostAlloc(&block, (size_t)bytes, cudaHostAllocDefault) != cudaSuccess) {
    cudaGetLastError(); /* forgets it: the caller tells */
    return NULL;
  }
  current->constants.push_back(block);
  return block;
}

static void destroy(ty_graph *graph) {
  cudaStreamSynchronize(device_stream()); /* it may run */
  if (graph->executable) cudaGraphExecDestroy(graph->executable);
  for (void *block : graph->constants) cudaFreeHost(block);
  delete graph;
  count--;
}

int ty_capture_begin(void) {
  if (current) return ty_fail("a step is being captured already");
  /* Relaxed: memory may be allocated meanwhile. */
  TY_TRY(device_check("capture", cudaStreamBeginCapture(device_stream(), cudaStreamCaptureModeRelaxed)));
  current = new ty_graph;
  count++;
  memory_begin_capture();
  return 0;
}

int ty_capture_end(ty_graph **graph) {
  if (!current) return ty_fail("no step is being captured");
  ty_graph *own = current;
  cudaGraph_t recorded = NULL;
  current = NULL;
  memory_end_capture();
  int failed = device_check("capture", cudaStreamEndCapture(device_stream(), &recorded));
  if (!failed && graph) failed = device_check("capture", cudaGraphInstantiate(&own->executable, recorded, 0));
  if (recorded) cudaGraphDestroy(recorded);
  if (failed || !graph) destroy(own);
  else *graph = own;
  for (ty_graph *other : unwanted) destroy(other);
  unwanted.clear();
  return failed;
}

int ty_graph_launch(ty_graph *graph) {
  TY_TRY(device_check("captured step", cudaGraphLaunch(graph->executable, device_stream())));
  return device_launched("captured step");
}

void ty_graph_free(ty_graph *graph) {
  if (current) unwanted.push_back(graph);
  else destroy(graph);
}
