// Reads memory from end to end and does nothing else: what a product bound by memory cannot be faster than.
#include "call.h"

extern "C" uint64_t stream(const uint64_t* p, int64_t count, int32_t threads) {
  constexpr int64_t BLOCK = 1 << 17;
  uint64_t result = 0;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) reduction(+ : result)
  for (int64_t begin = 0; begin < count; begin += BLOCK) {
    const int64_t end = begin + BLOCK < count ? begin + BLOCK : count;
    for (int64_t i = begin; i < end; i++) result += p[i];
  }
  return result;
}
