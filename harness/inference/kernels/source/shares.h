// Work handed out so that each thread comes back to its own.
#pragma once
#include <omp.h>
#include <atomic>
#include <new>
#include "activations.h"

// Calls the function that `make` gives each thread for 0 to `count`: for a share of its own, the same at every product, so that
// what it reads and writes stays in its cache; when it is done, for what is left of others' shares.
template <class Make>
void for_shares(int64_t count, int threads, Make make) {
  struct alignas(64) Share { std::atomic<int64_t> next; };
  const Buffer<Share> shares(threads);
  for (int64_t t = 0; t < threads; t++) new (shares.get() + t) Share{{t * count / threads}};
#pragma omp parallel num_threads(threads) if (threads > 1)
  {
    auto f = make();
    for (int64_t t = 0; t < threads; t++) {
      const int64_t of = (omp_get_thread_num() + t) % threads, end = (of + 1) * count / threads;
      for (int64_t i; (i = shares.get()[of].next++) < end;) f(i);
    }
  }
}

// Rows of weights whose results fill whole lines of the cache, so that no two threads write to one; `parts` is how often.
inline int64_t block_of_rows(const Call& call, int64_t parts) {
  const int64_t rows = call.out * parts / (8 * call.threads) / LANES * LANES;
  return rows < LANES ? LANES : rows > MOST_STEP ? MOST_STEP : rows;
}
