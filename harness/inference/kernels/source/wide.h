// Products with many rows of activations, weight by weight: each that is stored is multiplied by its column of the
// activations, so that zeros cost no arithmetic (Elsen et al. 2020, "Fast Sparse ConvNets"). A format gives a row's weights
// through `word(word, scale, f)`, which is called once for each word of 64 columns, in order, and calls f(column, weight).
#pragma once
#include "shares.h"

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

// The first `held` of LANES floats, zeros behind them.
inline Lanes load_some(const float* p, int64_t held) {
  if (held >= LANES) return load<LANES>(p);
  Lanes some = {};
  if (held > 0) memcpy(&some, p, held * sizeof(float));
  return some;
}

// Rows `first` and on of the activations side by side, [parts, words x 64, WIDTH], filled up with zeros to `rows`. Where they
// are PAIRED for a cursor, the even ones of 2 x LANES columns come first.
template <int64_t WIDTH>
class Columns {
 public:
  Columns(const Call& call, int64_t first, int64_t rows, int threads, bool paired = false)
      : columns_(call.words() * WORD), x_((rows + WIDTH - 1) / WIDTH * WIDTH * columns_) {
    for_rows(columns_, (columns_ / threads + WORD - 1) / WORD * WORD, threads, [&](int64_t begin, int64_t end) {
      for (int64_t b = 0; b < rows; b += LANES)
        for (int64_t k = begin; k < end; k += LANES) {
          const float* from = call.x + (first + b) * call.in + k;
          Lanes tile[LANES];
          if (k + LANES <= call.in && first + b + LANES <= call.batch)
            for (int i = 0; i < LANES; i++) tile[i] = load<LANES>(from + i * call.in);
          else
            for (int i = 0; i < LANES; i++)
              tile[i] = load_some(from + i * call.in, first + b + i < call.batch ? call.in - k : 0);
          transpose(tile);
          float* to = x_.get() + b / WIDTH * apart() + b % WIDTH;
          for (int i = 0; i < LANES; i++) memcpy(to + (paired ? in_pairs(k + i) : k + i) * WIDTH, &tile[i], sizeof tile[i]);
        }
    });
  }
  const float* at(int64_t k, int64_t part = 0) const { return x_.get() + part * apart() + k * WIDTH; }
  int64_t apart() const { return columns_ * WIDTH; }

 private:
  static int64_t in_pairs(int64_t k) { return k / (2 * LANES) * 2 * LANES + k % 2 * LANES + k % (2 * LANES) / 2; }
  int64_t columns_;
  Buffer<float> x_;
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
  const Lanes bias = call.bias ? load_some(call.bias + row, held) : Lanes{};
  for (int64_t i = 0; i < LANES && first + i < call.batch; i++) {
    const Lanes result = tile[i] + bias;
    float* to = call.y + (first + i) * call.out + row;
    if (held == LANES)
      memcpy(to, &result, sizeof result);
    else
      memcpy(to, &result, held * sizeof(float));
  }
}

// The same of all rows from `begin` to `end` and `width` rows of activations; `sums` [rows, width].
inline void store_tiles(const Call& call, const float* sums, int64_t begin, int64_t end, int64_t width, int64_t first) {
  for (int64_t b = 0; b < width; b += LANES)
    for (int64_t row = begin; row < end; row += LANES) {
      Lanes tile[LANES];
      for (int i = 0; i < LANES; i++) tile[i] = load<LANES>(sums + (row - begin + i) * width + b);
      store_tile(call, tile, row, row + LANES < end ? LANES : end - row, first + b);
    }
}

// The products with N vectors of rows of activations; `at(row)` gives a row's weights.
template <int N, class At>
void multiply_part(const Call& call, int64_t first, At at) {
  constexpr int64_t WIDTH = N * LANES;
  const Columns<WIDTH> x(call, first, WIDTH, call.threads);
  const int64_t words = call.words(), each = call.scales ? (call.group + WORD - 1) / WORD : words;
  const int64_t step = block_of_rows(call, 1), blocks = (call.out + step - 1) / step;
  const auto block = [&](int64_t i) {
    const int64_t begin = i * step, end = begin + step < call.out ? begin + step : call.out;
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
    store_tiles(call, sums.get(), begin, end, WIDTH, first);
  };
  for_shares(blocks, call.threads, [&] { return block; });
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
