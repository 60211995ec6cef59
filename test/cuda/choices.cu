// choices.cu - malc_choose_tokens of templates/cuda/sampling.h behind a plain function, for a test to call.
#include <cstdio>
#include <vector>
#include "launch.h"
#include "sampling.h"

/* Row n's logits are those that follow a text of lengths[n] tokens; texts is [rows][context]. Returns CUDA's error. */
extern "C" int choose(const float *logits, int rows, int count, const malc_sampler *samplers, const int32_t *texts,
                      const int32_t *lengths, int context, int32_t *chosen) {
  std::vector<int32_t> lasts, positions, ends;
  for (int row = 0; row < rows; row++) { // each brings its last token alone
    lasts.push_back(row);
    positions.push_back(lengths[row] - 1);
    ends.push_back(row + 1);
  }
  const auto sent = [](const auto *values, size_t number) {
    void *memory = nullptr;
    cudaMalloc(&memory, number * sizeof *values);
    cudaMemcpy(memory, values, number * sizeof *values, cudaMemcpyHostToDevice);
    return memory;
  };
  const auto rows_of = static_cast<size_t>(rows);
  void *const memory[] = {
      sent(logits, rows_of * static_cast<size_t>(count)), sent(samplers, rows_of),
      sent(lasts.data(), rows_of), sent(positions.data(), rows_of), sent(ends.data(), rows_of),
      sent(texts, rows_of * static_cast<size_t>(context)), sent(chosen, rows_of),
  };
  const unsigned bits = static_cast<unsigned>(count + 31) / 32 * 4;
  cudaError_t error = malc_launch(
      malc_choose_tokens, static_cast<unsigned>(rows), MALC_CHOICE_THREADS, bits, nullptr,
      static_cast<float *>(memory[0]), count, static_cast<const malc_sampler *>(memory[1]),
      static_cast<const int32_t *>(memory[2]), static_cast<const int32_t *>(memory[3]),
      static_cast<const int32_t *>(memory[4]), static_cast<const int32_t *>(memory[5]), static_cast<int64_t>(context),
      static_cast<int32_t *>(memory[6]));
  if (error == cudaSuccess) error = cudaMemcpy(chosen, memory[6], rows_of * 4, cudaMemcpyDeviceToHost);
  if (error != cudaSuccess) fprintf(stderr, "%s\n", cudaGetErrorString(error));
  for (void *piece : memory) cudaFree(piece);
  return error;
}
