// updates.cu - the optimizers of templates/cuda/optimizer.h and muon.h behind a plain function, for a test to call.
#include <cstdio>
#include <utility>
#include "muon.h"

/* An update of `count` matrices of rows x columns, by the rule of this number, from what is in the arrays, which are
 * padded to whole fours. `numbers` is a malc_terms; the gradient is scaled by `scale`. Returns CUDA's error. */
extern "C" int update(int rule, int count, int rows, int columns, const float *numbers, float scale, float *weights,
                      float *gradients, float *first, float *second, float *averages) {
  const int64_t all = static_cast<int64_t>(count) * rows * columns, padded = (all + 3) / 4 * 4;
  const size_t bytes = static_cast<size_t>(padded) * sizeof(float);
  const malc_muon_matrices stack = {rows, columns, count};
  const int32_t longer = rule == 4 ? (rows > columns ? rows : columns) : 0;
  const malc_task task = {0, static_cast<int32_t>(all), 1, 1, nullptr, 0, 0, 0, longer};
  malc_results results = {};
  results.scale = scale;
  results.moves = 1;
  const auto make = [](const void *values, size_t size) {
    void *memory = nullptr;
    cudaMalloc(&memory, size);
    if (values) cudaMemcpy(memory, values, size, cudaMemcpyHostToDevice);
    return static_cast<float *>(memory);
  };
  float *host[] = {weights, gradients, first, second, averages}, *device[5];
  for (int n = 0; n < 5; n++) device[n] = make(host[n], bytes);
  float *const terms_memory = make(numbers, sizeof(malc_terms)), *const results_memory = make(&results, sizeof results);
  float *const task_memory = make(&task, sizeof task);
  float *const room = make(nullptr, static_cast<size_t>(count * malc_muon_room(rows, columns)) * sizeof(float));
  const auto *const terms = reinterpret_cast<const malc_terms *>(terms_memory);
  const auto *const outcome = reinterpret_cast<const malc_results *>(results_memory);
  const malc_values values = {device[0], device[1], device[2], device[3], device[4]};
  malc_status status = {cudaSuccess, nullptr};
  if (rule == 4) malc_muon_directions(device[1], device[2], stack, terms, room, &status, outcome, nullptr);
  void (*const kernels[])(const malc_task *, malc_values, const malc_terms *, const malc_results *) = {
      malc_update_weights<malc_adamw>, malc_update_weights<malc_lion>, malc_update_weights<malc_sgd>,
      malc_update_weights<malc_plain>, malc_muon_update};
  malc_note(&status, malc_launch(kernels[rule], 1u, 256, 0, nullptr, reinterpret_cast<const malc_task *>(task_memory),
                                 values, terms, outcome), "update");
  for (int n = 0; n < 5; n++)
    malc_note(&status, cudaMemcpy(host[n], device[n], bytes, cudaMemcpyDeviceToHost), "results");
  if (status.error != cudaSuccess) fprintf(stderr, "%s: %s\n", status.place, cudaGetErrorString(status.error));
  for (float *piece : device) cudaFree(piece);
  for (float *piece : {terms_memory, results_memory, task_memory, room}) cudaFree(piece);
  return status.error;
}
