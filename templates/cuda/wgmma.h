// wgmma.h - sm_90a's product of a warpgroup (128 threads): d [64][N] float32 += a [64][16] b [16][N] bfloat16.
//
// Both operands come from shared memory in the layout that TMA's 128-byte swizzle leaves (or a from registers).
// K-major: rows of 64 elements, 128 bytes; stride = 1024 bytes, from 8 rows to the next 8; 16 further along k is 32
// bytes. MN-major (`transposed`): chunks of 64 elements of m or n by all rows of k; stride = 1024 bytes, from 8 k to
// the next 8, leading = the bytes of a chunk; 16 further along k is 2048 bytes. Tiles start at multiples of 1024 bytes.
// The order: wgmma_fence, wgmmas, wgmma_commit, wgmma_wait; d, and a in registers, are not touched in between, nor even
// read: "accessing" them before the wait is undefined behavior (PTX ISA, wgmma.wait_group).
// Thread t's d[4j + {0, 1}] lie in row 16 (t / 32) + t % 32 / 4, columns 8j + 2 (t % 4) + {0, 1}; d[4j + {2, 3}] lie 8
// rows below.
#pragma once

/* The descriptor of an operand in shared memory; `leading` and `stride` in bytes. */
DEVICE uint64_t wgmma_descriptor(uint32_t shared, uint32_t leading, uint32_t stride) {
  return static_cast<uint64_t>((shared & 0x3ffff) >> 4) | static_cast<uint64_t>(leading >> 4) << 16 |
         static_cast<uint64_t>(stride >> 4) << 32 | 1ull << 62;
}

/* Before the first wgmma, and after every ordinary access to the registers that one uses. */
DEVICE void wgmma_fence() { PTX(simt::wgmma_fence(), "wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void wgmma_commit() { PTX(simt::wgmma_commit(), "wgmma.commit_group.sync.aligned;" ::: "memory"); }
/* Waits until at most the `Pending` newest groups are under way. */
template <int Pending>
DEVICE void wgmma_wait() {
  PTX(simt::wgmma_wait(Pending), "wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/* Copies registers that are to be read while wgmma has them as a. */
template <int Count>
DEVICE void wgmma_copy(uint32_t (&to)[Count][4], const uint32_t (&from)[Count][4]) {
#pragma unroll
  for (int n = 0; n < Count; n++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      PTX(to[n][i] = from[n][i], "mov.b32 %0, %1;" : "=r"(to[n][i]) : "r"(from[n][i]));
}

/* One instruction for each width: `shared` takes both operands from shared memory, `registers` takes a from four
 * registers (in mma_bf16's order). d's old value counts only where `accumulate`. */
template <int N>
struct wgmma_instruction;

#ifdef MALC_SIMT
template <int N>
struct wgmma_instruction {
  template <int TransposedA, int TransposedB>
  static DEVICE void shared(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
    simt::wgmma(d, N, nullptr, a, b, TransposedA, TransposedB, accumulate);
  }
  template <int TransposedB>
  static DEVICE void registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {
    simt::wgmma(d, N, a, 0, b, false, TransposedB, accumulate);
  }
};
#else
// Operands 0 to N/2 - 1 are d, in fours; the rest follow, numbered by the arguments of WGMMA.
#define WGMMA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_D16(i) WGMMA_D4(i), WGMMA_D4(i + 4), WGMMA_D4(i + 8), WGMMA_D4(i + 12)
#define WGMMA_D32(i) WGMMA_D16(i), WGMMA_D16(i + 16)
#define WGMMA_D64(i) WGMMA_D32(i), WGMMA_D32(i + 32)
#define WGMMA_R4 "%0, %1, %2, %3"
#define WGMMA_R8 WGMMA_R4 ", %4, %5, %6, %7"
#define WGMMA_R16 WGMMA_R8 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_R32 WGMMA_R16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_R48 WGMMA_R32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_R64 WGMMA_R48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_R80 WGMMA_R64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_R96 WGMMA_R80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_R112 \
  WGMMA_R96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_R128 \
  WGMMA_R112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/* n, then the numbers of six operands after d, then d's registers as text and as operands. */
#define WGMMA(n, o0, o1, o2, o3, o4, o5, o6, text, ...)                                                               \
  template <>                                                                                                          \
  struct wgmma_instruction<n> {                                                                                        \
    template <int TransposedA, int TransposedB>                                                                        \
    static DEVICE void shared(float (&d)[n / 2], uint64_t a, uint64_t b, int accumulate) {                             \
      asm volatile("{ .reg .pred accumulate; setp.ne.b32 accumulate, %" #o2 ", 0; "                                    \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" text "}, %" #o0 ", %" #o1              \
                   ", accumulate, 1, 1, %" #o3 ", %" #o4 "; }"                                                         \
                   : __VA_ARGS__                                                                                       \
                   : "l"(a), "l"(b), "r"(accumulate), "n"(TransposedA), "n"(TransposedB));                             \
    }                                                                                                                  \
    template <int TransposedB>                                                                                         \
    static DEVICE void registers(float (&d)[n / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {              \
      asm volatile("{ .reg .pred accumulate; setp.ne.b32 accumulate, %" #o5 ", 0; "                                    \
                   "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" text "}, {%" #o0 ", %" #o1             \
                   ", %" #o2 ", %" #o3 "}, %" #o4 ", accumulate, 1, 1, %" #o6 "; }"                                    \
                   : __VA_ARGS__                                                                                       \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(TransposedB));           \
    }                                                                                                                  \
  };
WGMMA(8, 4, 5, 6, 7, 8, 9, 10, WGMMA_R4, WGMMA_D4(0))
WGMMA(16, 8, 9, 10, 11, 12, 13, 14, WGMMA_R8, WGMMA_D4(0), WGMMA_D4(4))
WGMMA(32, 16, 17, 18, 19, 20, 21, 22, WGMMA_R16, WGMMA_D16(0))
WGMMA(64, 32, 33, 34, 35, 36, 37, 38, WGMMA_R32, WGMMA_D32(0))
WGMMA(96, 48, 49, 50, 51, 52, 53, 54, WGMMA_R48, WGMMA_D32(0), WGMMA_D16(32))
WGMMA(128, 64, 65, 66, 67, 68, 69, 70, WGMMA_R64, WGMMA_D64(0))
WGMMA(160, 80, 81, 82, 83, 84, 85, 86, WGMMA_R80, WGMMA_D64(0), WGMMA_D16(64))
WGMMA(192, 96, 97, 98, 99, 100, 101, 102, WGMMA_R96, WGMMA_D64(0), WGMMA_D32(64))
WGMMA(224, 112, 113, 114, 115, 116, 117, 118, WGMMA_R112, WGMMA_D64(0), WGMMA_D32(64), WGMMA_D16(96))
WGMMA(256, 128, 129, 130, 131, 132, 133, 134, WGMMA_R128, WGMMA_D64(0), WGMMA_D64(64))
#endif

/* N of 8, 16, 32, 64, 96, 128, 160, 192, 224, 256; operands by wgmma_descriptor, 1 in a Transposed for MN-major. */
template <int N, int TransposedA, int TransposedB>
DEVICE void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate) {
  wgmma_instruction<N>::template shared<TransposedA, TransposedB>(d, a, b, accumulate);
}
template <int N, int TransposedB>
DEVICE void wgmma_registers(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  wgmma_instruction<N>::template registers<TransposedB>(d, a, b, accumulate);
}
