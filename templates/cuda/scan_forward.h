// scan_forward.h - the selective scan, forward: a block takes some channels of a sequence through all its positions,
// with their state in registers.
#pragma once
#include "scan.h"

/* What the kernel is given: see its frame, scan_forward.cu.hbs. */
struct scan_forward_given {
  int64_t time;
  const float *x, *delta, *a, *b, *c, *start;
  const int32_t *ends;
  float *output, *state;
};

/* Two chunks: one is computed with while the next is on its way. */
template <class Shape>
struct scan_forward_memory {
  typename scan_layout<Shape>::mixings b[2], c[2];
  typename scan_layout<Shape>::signals x[2], delta[2];
};

template <class Shape>
static DEVICE void scan_forward(const scan_forward_given &given) {
  typedef scan_layout<Shape> layout;
  typedef scan_forward_memory<Shape> memory_type;
  static_assert(sizeof(memory_type) == Shape::forward_bytes, "the launch asks for as much");
  memory_type &memory = *reinterpret_cast<memory_type *>(dynamic_shared());
  const int64_t sequence = blockIdx.x;
  const malc_piece piece = malc_piece_of(sequence, given.time, given.ends);
  const int64_t kept = sequence * layout::channels * layout::states;
  float rate[layout::own], h[layout::own];
  layout::load_rates(rate, given.a);
  layout::load(h, given.start ? given.start + kept : nullptr);

  const auto fetch = [&](int64_t first) {
    const int64_t signal = (piece.first + first) * layout::channels, mixing = (piece.first + first) * layout::states;
    const int which = first / layout::chunk % 2;
    if (first < piece.count) {
      layout::fetch_signals(memory.x[which], given.x + signal, piece.count - first);
      layout::fetch_signals(memory.delta[which], given.delta + signal, piece.count - first);
      layout::fetch_mixings(memory.b[which], given.b + mixing, piece.count - first);
      layout::fetch_mixings(memory.c[which], given.c + mixing, piece.count - first);
    }
    cp_async_commit();
  };
  fetch(0);
  for (int64_t first = 0; first < piece.count; first += layout::chunk) {
    fetch(first + layout::chunk);
    cp_async_wait<1>();
    __syncthreads();
    const int which = first / layout::chunk % 2;
    const int positions = piece.count - first < layout::chunk ? (int)(piece.count - first) : layout::chunk;
    const int64_t place = (piece.first + first) * layout::channels + layout::channel();
#pragma unroll 4
    for (int t = 0; t < positions; t++) {
      const float step = memory.delta[which][t][layout::column()];
      const float drive = step * memory.x[which][t][layout::column()];
      float b[layout::own], c[layout::own], sum = 0.0f;
      layout::load_mixing(b, memory.b[which][t]);
      layout::load_mixing(c, memory.c[which][t]);
#pragma unroll
      for (int n = 0; n < layout::own; n++) {
        h[n] = exp2_approximate(step * rate[n]) * h[n] + drive * b[n];
        sum += c[n] * h[n];
      }
#pragma unroll
      for (int distance = layout::lanes / 2; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
      if (given.output && layout::lane() == 0 && layout::channel() < layout::channels)
        given.output[place + t * layout::channels] = sum;
    }
    __syncthreads(); // the next chunk but one takes its place
  }
  if (given.state) layout::store(given.state + kept, h);
}
