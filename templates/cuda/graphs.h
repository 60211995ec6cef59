// graphs.h - the launches of a call as CUDA graphs: captured once for each shape of the work, and replayed.
#pragma once
#include "launch.h"
#include "status.h"

/* What a graph is captured for. Work of the same shape is the same launches with the same arguments: whatever else
 * differs from call to call, kernels read in device memory. */
struct malc_shape {
  int64_t what, batch, time; /* in decoding: what, texts, and which of two places their states are in */
};

struct malc_graph {
  malc_shape shape;
  cudaGraphExec_t executable; /* null: the place is free */
  int64_t used;               /* when it was last replayed */
};

enum { MALC_GRAPHS = 16 }; // kept at once: micro-batches of a few sizes, evaluation, decoding with some texts fewer

struct malc_graphs {
  malc_graph kept[MALC_GRAPHS];
  int64_t replays; /* so far: the clock of `used` */
  bool off;        /* launches are queued one by one */
};

inline bool malc_is_shape(const malc_graph *graph, malc_shape shape) {
  return graph->executable && graph->shape.what == shape.what && graph->shape.batch == shape.batch &&
         graph->shape.time == shape.time;
}

/* The graph of this shape; else a free place, for which the graph that was not used for the longest time may have to
 * go. It may still be running: that is waited for. */
inline malc_graph *malc_find_graph(malc_graphs *graphs, malc_shape shape, cudaStream_t queue, malc_status *status) {
  malc_graph *oldest = &graphs->kept[0];
  for (malc_graph &graph : graphs->kept) {
    if (malc_is_shape(&graph, shape)) return &graph;
    if (!graph.executable) graph.used = 0;
    if (graph.used < oldest->used) oldest = &graph;
  }
  if (oldest->executable) {
    malc_note(status, cudaStreamSynchronize(queue), "a graph's last replay");
    malc_note(status, cudaGraphExecDestroy(oldest->executable), "a graph");
  }
  *oldest = {shape, nullptr, 0};
  return oldest;
}

/* Queues `work`, a function that queues launches, copies and clears on `queue` and does nothing else on the device: of
 * a shape that it had before as the graph that is kept of it. */
template <class Work>
void malc_replay(malc_graphs *graphs, malc_shape shape, cudaStream_t queue, malc_status *status, Work work) {
  if (status->error != cudaSuccess) return;
  if (graphs->off) return work();
  malc_graph *const graph = malc_find_graph(graphs, shape, queue, status);
  if (!graph->executable) {
    // Relaxed, for a kernel's code may be loaded when it is first launched, and that may allocate.
    malc_note(status, cudaStreamBeginCapture(queue, cudaStreamCaptureModeRelaxed), "the capture of a graph");
    if (status->error != cudaSuccess) return;
    work();
    cudaGraph_t captured = nullptr;
    malc_note(status, cudaStreamEndCapture(queue, &captured), "the capture of a graph");
    if (status->error == cudaSuccess)
      malc_note(status, cudaGraphInstantiate(&graph->executable, captured, 0), "a captured graph");
    if (captured) cudaGraphDestroy(captured);
    if (status->error != cudaSuccess) return;
  }
  graph->used = ++graphs->replays;
  malc_note(status, cudaGraphLaunch(graph->executable, queue), "a graph");
}

inline void malc_drop_graphs(malc_graphs *graphs) {
  for (malc_graph &graph : graphs->kept)
    if (graph.executable) cudaGraphExecDestroy(graph.executable);
}
