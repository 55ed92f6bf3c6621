// Products row by row, for formats that give a row's weights in order: a cursor stands on a word of 64 columns and takes
// LANES weights of it at a time as floats, or 32 or 64 codes as bytes. A cursor that is PAIRED takes the even ones of
// 2 x LANES columns first, then the odd ones: two bf16 that share 32 bits become floats by a shift and by a mask. It has as
// many CHAINS, sums of codes that do not wait for each other, as its own work leaves waits to fill.
#pragma once
#include <type_traits>
#include "activations.h"

// Rows that are multiplied side by side.
struct Rows {
  int64_t first, apart;
  int64_t operator[](int r) const { return first + r * apart; }
};

// Two rows side by side share the loads of the activations and wait for memory at the same time.
template <int R, int B, class Cursor>
inline void rows_of_floats(Cursor* cursors, const Call& call, const Activations& x, Rows rows, int64_t first) {
  constexpr int CHAINS = R * B <= 4 ? 2 : 1;  // sums that do not wait for each other
  float totals[R][B] = {};
  const int64_t words = call.words(), each = call.scales ? (call.group + WORD - 1) / WORD : words;
  for (int64_t begin = 0, g = 0; begin < words; begin += each, g++) {
    Lanes part[R][B][CHAINS] = {};
    const int64_t end = begin + each < words ? begin + each : words;
    for (int64_t word = begin; word < end; word++) {
#pragma GCC unroll 8
      for (int j = 0; j < WORD / LANES; j++) {
        Lanes weights[R];
        for (int r = 0; r < R; r++) weights[r] = cursors[r].floats(j);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
          const Lanes values = load<LANES>(x.row(first + b) + word * WORD + j * LANES);
          for (int r = 0; r < R; r++) part[r][b][j % CHAINS] += weights[r] * values;
        }
      }
      for (int r = 0; r < R; r++) cursors[r].next();
    }
    for (int r = 0; r < R; r++)
      for (int b = 0; b < B; b++) {
        for (int chain = 1; chain < CHAINS; chain++) part[r][b][0] += part[r][b][chain];
        totals[r][b] += sum(part[r][b][0]) * call.scale(rows[r], g);
      }
  }
  for (int r = 0; r < R; r++)
    for (int b = 0; b < B; b++) call.store(rows[r], first + b, totals[r][b]);
}

#if defined(__AVX2__)
inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
inline int64_t total(__m256i v) {
  int32_t lanes[8], result = 0;
  _mm256_storeu_si256((__m256i*)lanes, v);
  for (int32_t lane : lanes) result += lane;
  return result;
}
#if defined(__AVX512F__)
inline __m512i add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
inline int64_t total(__m512i v) { return _mm512_reduce_add_epi32(v); }
#endif

template <int PLANES, int R, int B, class Cursor>
inline void rows_of_codes(Cursor* cursors, const Call& call, const Planes<PLANES>& x, Rows rows, int64_t first) {
  using Codes = typename Cursor::Codes;
  constexpr int STEPS = WORD / sizeof(Codes);
  constexpr int CHAINS = R * B <= 2 ? Cursor::CHAINS : 1;
  const int64_t columns = call.words() * WORD, groups = call.groups();
  float totals[R][B] = {};
  for (int64_t g = 0, k = 0; g < groups; g++) {
    const int64_t end = g + 1 == groups ? columns : (g + 1) * call.group;
    int64_t levels[R][B] = {};
    while (k < end) {
      Codes sums[CHAINS][R][B][PLANES] = {};
      const auto word = [&](int chain) {
#pragma GCC unroll 2
        for (int j = 0; j < STEPS; j++) {
          Codes codes[R];
          for (int r = 0; r < R; r++) codes[r] = cursors[r].codes(j);
#pragma GCC unroll 8
          for (int b = 0; b < B; b++)
#pragma GCC unroll 2
            for (int plane = 0; plane < PLANES; plane++) {
              const Codes bytes = *(const Codes*)(x.row(first + b) + PLANES * k + plane * WORD + j * sizeof(Codes));
              for (int r = 0; r < R; r++)
                sums[chain][r][b][plane] = dot<PLANES>(sums[chain][r][b][plane], bytes, codes[r]);
            }
        }
        for (int r = 0; r < R; r++) cursors[r].next();
        k += WORD;
      };
      const int64_t stop = k + SEGMENT < end ? k + SEGMENT : end;
      while (k + CHAINS * WORD <= stop) {
#pragma GCC unroll 2
        for (int chain = 0; chain < CHAINS; chain++) word(chain);
      }
      while (k < stop) word(0);
      for (int r = 0; r < R; r++)
        for (int b = 0; b < B; b++)
          for (int plane = 0; plane < PLANES; plane++) {
            if constexpr (CHAINS == 2) sums[0][r][b][plane] = add(sums[0][r][b][plane], sums[1][r][b][plane]);
            levels[r][b] += total(sums[0][r][b][plane]) * (1 << 7 * plane);
          }
    }
    for (int r = 0; r < R; r++) {
      const int64_t offset = (int64_t)OFFSET<PLANES> * call.sums[rows[r] * groups + g];
      for (int b = 0; b < B; b++) totals[r][b] += (float)(levels[r][b] - offset) * call.scale(rows[r], g);
    }
  }
  for (int r = 0; r < R; r++)
    for (int b = 0; b < B; b++) call.store(rows[r], first + b, totals[r][b] * x.steps()[first + b]);
}
#endif

// The batch in the largest parts that the registers hold.
template <int MOST, class F>
inline void in_parts(int64_t batch, F part) {
  int64_t b = 0;
  if constexpr (MOST >= 8)
    for (; b + 8 <= batch; b += 8) part(std::integral_constant<int, 8>(), b);
  if constexpr (MOST >= 4)
    for (; b + 4 <= batch; b += 4) part(std::integral_constant<int, 4>(), b);
  for (; b + 2 <= batch; b += 2) part(std::integral_constant<int, 2>(), b);
  if (b < batch) part(std::integral_constant<int, 1>(), b);
}

constexpr int64_t PASSED = 16;  // rows of a block through which parts of a batch go in turn

// Rows two by two. A block's first half goes beside its second: so two streams are read, each without a break, which the
// processor sees coming; of neighbours, each would begin anew where the other ends. A part of the batch goes through a
// whole block before the next: its activations stay in the first cache, the block's weights in the second.
// `at(row)` gives the cursor on a row's first word.
template <int MOST, class At, class F>
inline void in_pairs(const Call& call, At at, F product) {
  using Cursor = decltype(at(0));
  const int64_t step = call.batch > MOST ? PASSED : call.step();
  for_rows(call.out, step, call.threads, [&](int64_t begin, int64_t end) {
    const int64_t half = (end - begin) / 2;
    in_parts<MOST>(call.batch, [&](auto b, int64_t first) {
      for (int64_t row = begin; row < begin + half; row++) {
        Cursor cursors[] = {at(row), at(row + half)};
        product(std::integral_constant<int, 2>(), b, cursors, Rows{row, half}, first);
      }
      if (begin + 2 * half < end) {
        Cursor cursors[] = {at(end - 1)};
        product(std::integral_constant<int, 1>(), b, cursors, Rows{end - 1, 0}, first);
      }
    });
  });
}

constexpr int REGISTERS = LANES == 16 ? 8 : 4;  // rows of activations whose sums they hold, for two rows of weights

template <class At>
void multiply_floats(const Call& call, At at) {
  const Activations x(call, decltype(at(0))::PAIRED);
  in_pairs<REGISTERS>(call, at, [&](auto r, auto b, auto* cursors, Rows rows, int64_t first) {
    rows_of_floats<decltype(r)::value, decltype(b)::value>(cursors, call, x, rows, first);
  });
}

#if defined(__AVX2__)
template <int PLANES, class At>
void multiply_codes(const Call& call, At at) {
  const Planes<PLANES> x(call, WORD);
  in_pairs<REGISTERS / PLANES>(call, at, [&](auto r, auto b, auto* cursors, Rows rows, int64_t first) {
    rows_of_codes<PLANES, decltype(r)::value, decltype(b)::value>(cursors, call, x, rows, first);
  });
}
#endif
