// Products with many rows of activations, weight by weight: each that is stored is multiplied by its column of the
// activations, so that zeros cost no arithmetic (Elsen et al. 2020, "Fast Sparse ConvNets"). A format gives a row's weights
// through `word(word, scale, f)`, which is called once for each word of 64 columns, in order, and calls f(column, weight).
#pragma once
#include "activations.h"

// Rows become columns.
inline void transpose(Lanes* tile) {
#if defined(__AVX512F__)
#pragma GCC unroll 4
  for (int apart = 8; apart; apart /= 2) {
    int first[16], second[16];
#pragma GCC unroll 16
    for (int lane = 0; lane < 16; lane++) {
      first[lane] = lane & apart ? 16 + lane - apart : lane;
      second[lane] = lane & apart ? 16 + lane : lane + apart;
    }
    const __m512i low = _mm512_loadu_si512(first), high = _mm512_loadu_si512(second);
#pragma GCC unroll 16
    for (int row = 0; row < 16; row++) {
      if (row & apart) continue;
      const Lanes a = tile[row], b = tile[row + apart];
      tile[row] = _mm512_permutex2var_ps(a, low, b);
      tile[row + apart] = _mm512_permutex2var_ps(a, high, b);
    }
  }
#else
  for (int row = 0; row < LANES; row++)
    for (int lane = 0; lane < row; lane++) {
      const float other = tile[row][lane];
      tile[row][lane] = tile[lane][row];
      tile[lane][row] = other;
    }
#endif
}

// Rows `first` and on of the activations side by side, [words x 64, WIDTH], filled up with zeros.
template <int64_t WIDTH>
class Columns {
 public:
  Columns(const Call& call, int64_t first) : columns_(call.words() * WORD * WIDTH) {
    for_rows(call.words() * WORD, WORD, call.threads, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; k += LANES)
        for (int64_t b = 0; b < WIDTH; b += LANES) {
          Lanes tile[LANES] = {};
          const int64_t held = k + LANES < call.in ? LANES : call.in > k ? call.in - k : 0;
          for (int64_t i = 0; i < LANES && first + b + i < call.batch; i++)
            memcpy(&tile[i], call.x + (first + b + i) * call.in + k, held * sizeof(float));
          transpose(tile);
          for (int i = 0; i < LANES; i++) memcpy(columns_.get() + (k + i) * WIDTH + b, &tile[i], sizeof tile[i]);
        }
    });
  }
  const float* at(int64_t k) const { return columns_.get() + k * WIDTH; }

 private:
  Buffer<float> columns_;
};

// A word's stored weights as floats.
template <class V>
inline void scaled(const V* values, int64_t count, float scale, float* to) {
  for (int64_t i = 0; i < count; i += LANES) {
    const Lanes some = load<LANES>(values + i) * scale;
    memcpy(to + i, &some, sizeof some);
  }
}

// Stores a tile, LANES rows of weights by as many rows of activations from `first` on; `held` rows are there.
inline void store_tile(const Call& call, Lanes* tile, int64_t row, int64_t held, int64_t first) {
  transpose(tile);
  Lanes bias = {};
  if (call.bias) memcpy(&bias, call.bias + row, held * sizeof(float));
  for (int64_t i = 0; i < LANES && first + i < call.batch; i++) {
    const Lanes result = tile[i] + bias;
    memcpy(call.y + (first + i) * call.out + row, &result, held * sizeof(float));
  }
}

// The products with N vectors of rows of activations; `at(row)` gives a row's weights.
template <int N, class At>
void multiply_part(const Call& call, int64_t first, At at) {
  constexpr int64_t WIDTH = N * LANES;
  const Columns<WIDTH> x(call, first);
  const int64_t words = call.words(), each = call.scales ? (call.group + WORD - 1) / WORD : words;
  for_rows(call.out, call.step(), call.threads, [&](int64_t begin, int64_t end) {
    decltype(at(0)) rows[MOST_STEP];
    for (int64_t row = begin; row < end; row++) rows[row - begin] = at(row);
    const Buffer<float> sums((end - begin + LANES) * WIDTH);
    memset(sums.get(), 0, (end - begin + LANES) * WIDTH * sizeof(float));
    for (int64_t word = 0; word < words; word++)
      for (int64_t row = begin; row < end; row++) {
        float* place = sums.get() + (row - begin) * WIDTH;
        Lanes part[N];
        memcpy(part, place, sizeof part);
        rows[row - begin].word(word, call.scale(row, word / each), [&](int64_t k, float weight) {
          const float* column = x.at(word * WORD + k);
#pragma GCC unroll 8
          for (int v = 0; v < N; v++) part[v] += weight * load<LANES>(column + v * LANES);
        });
        memcpy(place, part, sizeof part);
      }
    for (int64_t row = begin; row < end; row += LANES)
      for (int64_t b = 0; b < WIDTH; b += LANES) {
        Lanes tile[LANES];
        for (int i = 0; i < LANES; i++) tile[i] = load<LANES>(sums.get() + (row - begin + i) * WIDTH + b);
        store_tile(call, tile, row, row + LANES < end ? LANES : end - row, first + b);
      }
  });
}

// The whole batch, in parts of 8 vectors and what remains in as few as hold it.
template <int N = 8, class At>
void multiply_columns(const Call& call, At at, int64_t first = 0) {
  for (; first + N * LANES <= call.batch; first += N * LANES) multiply_part<N>(call, first, at);
  if (first == call.batch) return;
  if constexpr (N > 1)
    if (first + N / 2 * LANES >= call.batch) return multiply_columns<N / 2>(call, at, first);
  multiply_part<N>(call, first, at);
}
