// Weights given one by one, a 16-bit column and a value each, in runs of 8: rows of format index, the tail of format slot.
#pragma once
#include "activations.h"

// A row's, one by one; fillers come last and find column 0, whichever the word.
template <class V>
struct EntriesOfRow {
  const uint16_t* columns;
  const V* values;
  int64_t count;

  template <class F>
  void word(int64_t word, float scale, F f) {
    for (; count && *columns < (word + 1) * WORD; count--, columns++, values++) {
      f(*columns - word * WORD, to_float(*values) * scale);
    }
  }
};

template <class V>
struct Entries {
  const uint16_t* columns;
  const V* values;
  const int64_t* rows;

  Entries(const Call& call, int first)
      : columns((const uint16_t*)call.tensors[first]),
        values((const V*)call.tensors[first + 1]),
        rows((const int64_t*)call.tensors[first + 2]) {}
  EntriesOfRow<V> row(int64_t row) const { return {columns + rows[row], values + rows[row], rows[row + 1] - rows[row]}; }
};

inline Floats<8> gather(const float* x, const uint16_t* columns) {
#if defined(__AVX512F__)
  return _mm256_i32gather_ps(x, _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)columns)), 4);
#elif defined(__AVX2__)
  // Eight loads into their places took two thirds of the time of a gather instruction on Zen 3.
  __m128 low = _mm_load_ss(x + columns[0]), high = _mm_load_ss(x + columns[4]);
  low = _mm_insert_ps(low, _mm_load_ss(x + columns[1]), 0x10);
  high = _mm_insert_ps(high, _mm_load_ss(x + columns[5]), 0x10);
  low = _mm_insert_ps(low, _mm_load_ss(x + columns[2]), 0x20);
  high = _mm_insert_ps(high, _mm_load_ss(x + columns[6]), 0x20);
  low = _mm_insert_ps(low, _mm_load_ss(x + columns[3]), 0x30);
  high = _mm_insert_ps(high, _mm_load_ss(x + columns[7]), 0x30);
  return _mm256_set_m128(high, low);
#else
  Floats<8> result;
  for (int i = 0; i < 8; i++) result[i] = x[columns[i]];
  return result;
#endif
}

// The product of one row with one row of activations.
template <class V>
inline float entries_of_row(const Entries<V>& of, int64_t row, const float* x) {
  Floats<8> part[2] = {};
  int64_t i = of.rows[row];
  const int64_t end = of.rows[row + 1];
  for (; i + 16 <= end; i += 16) {
    fetch_far(of.columns + i);
    fetch_far(of.values + i);
    part[0] += load<8>(of.values + i) * gather(x, of.columns + i);
    part[1] += load<8>(of.values + i + 8) * gather(x, of.columns + i + 8);
  }
  if (i < end) part[0] += load<8>(of.values + i) * gather(x, of.columns + i);
  return sum(part[0] + part[1]);
}

// The products of one row with a batch of WIDTH rows of activations, an entry for all of them at once.
template <int WIDTH, class V>
inline void entries_of_batch(const Entries<V>& of, int64_t row, const Transposed& x, float* to) {
  constexpr int PARTS = WIDTH / 8;
  Floats<8> part[4][PARTS] = {};
  for (int64_t i = of.rows[row]; i < of.rows[row + 1]; i += 8) {
    fetch_far(of.columns + i);
    fetch_far(of.values + i);
    const Floats<8> weights = load<8>(of.values + i);
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
      const float* column = x.column(of.columns[i + j]);
#pragma GCC unroll 2
      for (int v = 0; v < PARTS; v++) part[j % 4][v] += weights[j] * load<8>(column + 8 * v);
    }
  }
  for (int v = 0; v < PARTS; v++) {
    const Floats<8> total = (part[0][v] + part[1][v]) + (part[2][v] + part[3][v]);
    memcpy(to + 8 * v, &total, sizeof total);
  }
}
