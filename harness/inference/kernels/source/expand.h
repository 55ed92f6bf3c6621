// Rows of weights in their places as floats, for the product of many rows of activations by a dense library: rows `first` to
// `last`, [last - first, words x 64], zeros behind the columns that there are.
#pragma once
#include "vectors.h"

constexpr int64_t EXPANDED = 8;  // rows handed out together

// Calls f(row, to) for each row, on the threads.
template <class F>
void expand_rows(const Call& call, int64_t first, int64_t last, float* to, F f) {
  for_rows(last - first, EXPANDED, call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) f(first + row, to + row * call.words() * WORD);
  });
}

// The next word of a cursor, LANES weights at a time, in its order.
template <class Cursor>
inline void expand_word(Cursor& cursor, float scale, float* to) {
#pragma GCC unroll 8
  for (int j = 0; j < WORD / LANES; j++) {
    const Lanes weights = cursor.floats(j) * scale;
    memcpy(to + j * LANES, &weights, sizeof weights);
  }
  cursor.next();
}

// By cursors, word by word.
template <class At>
void expand_in_order(const Call& call, int64_t first, int64_t last, float* to, At at) {
  const int64_t words = call.words(), each = call.scales ? (call.group + WORD - 1) / WORD : words;
  expand_rows(call, first, last, to, [&](int64_t row, float* place) {
    auto cursor = at(row);
    for (int64_t begin = 0, g = 0; begin < words; begin += each, g++) {
      const float scale = call.scale(row, g);
      const int64_t end = begin + each < words ? begin + each : words;
      for (int64_t word = begin; word < end; word++, place += WORD) {
        expand_word(cursor, scale, place);
        if constexpr (decltype(cursor)::PAIRED)
          for (int k = 0; k < WORD; k += 2 * LANES) {
            float both[2 * LANES];
            for (int i = 0; i < LANES; i++) both[2 * i] = place[k + i], both[2 * i + 1] = place[k + LANES + i];
            memcpy(place + k, both, sizeof both);
          }
      }
    }
  });
}

// One by one; more than one weight in a place are a weight and fillers, which are zero.
template <class At>
void expand_one_by_one(const Call& call, int64_t first, int64_t last, float* to, At at) {
  expand_rows(call, first, last, to, [&](int64_t row, float* place) {
    auto weights = at(row);
    memset(place, 0, call.words() * WORD * sizeof(float));
    for (int64_t word = 0; word < call.words(); word++, place += WORD)
      weights.word(word, call.scale(row, 0), [&](int64_t k, float weight) { place[k] += weight; });
  });
}
