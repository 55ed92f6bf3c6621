// Products of int8 codes with more rows of activations than registers hold, four rows by four: with the first four rows of
// activations the weights are put in their places, in the first cache, and multiplied from there with the others. To put
// them there takes other units of the processor than to multiply, so together they take less time than in turn.
#pragma once
#include "rows.h"

#if defined(__AVX512VNNI__)

constexpr int SIDE = 4;         // rows of weights, and of activations, that are multiplied together
constexpr int64_t WIDE = 4096;  // columns of the weights in the first cache
constexpr int64_t LONG = 128;   // rows of activations that stay in the second
using Square = __m512i[SIDE][SIDE];

// Lane 4 b + r is the sum of the lanes of sums[b][r].
inline __m512i totals(const Square& sums) {
  __m512i row[SIDE];
  for (int b = 0; b < SIDE; b++) {
    const __m512i* s = sums[b];
    const __m512i low = add(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
    const __m512i high = add(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
    row[b] = add(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  }
  const auto halves = [](__m512i a, __m512i b) {
    return add(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
  };
  const __m512i a = halves(row[0], row[1]), b = halves(row[2], row[3]);
  return add(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

// Four rows of codes, `codes(r, word)`, by four of bytes, whose words are `apart`.
template <class Codes>
inline __m512i square(Codes codes, const uint8_t* const* bytes, int64_t apart, int64_t words) {
  Square sums = {};
  for (int64_t word = 0; word < words; word++) {
    __m512i row[SIDE];
#pragma GCC unroll 4
    for (int r = 0; r < SIDE; r++) row[r] = codes(r, word);
#pragma GCC unroll 4
    for (int b = 0; b < SIDE; b++) {
      const __m512i some = _mm512_loadu_si512(bytes[b] + word * apart);
#pragma GCC unroll 4
      for (int r = 0; r < SIDE; r++) sums[b][r] = dot<1>(sums[b][r], some, row[r]);
    }
  }
  return totals(sums);
}

// The same of the next words of four cursors, whose codes stay in their places, WIDE apart.
template <class Cursor>
inline __m512i first_square(Cursor* cursors, int8_t* places, const uint8_t* const* bytes, int64_t apart, int64_t words) {
  Cursor now[] = {cursors[0], cursors[1], cursors[2], cursors[3]};
  const __m512i result = square(
      [&](int r, int64_t word) {
        const __m512i codes = now[r].codes(0);
        fetch_far(now[r].values());  // the next four rows'
        now[r].next();
        _mm512_store_si512(places + r * WIDE + word * WORD, codes);
        return codes;
      },
      bytes, apart, words);
  for (int r = 0; r < SIDE; r++) cursors[r] = now[r];
  return result;
}

// Four rows of weights by `batch` rows of activations from `first` on. Only `held` of the four are there: products of the
// others are not stored.
template <int PLANES, class Cursor>
void multiply_block(const Call& call, const Planes<PLANES>& x, Cursor* cursors, int64_t row, int held, int64_t first,
                    int64_t batch) {
  const int64_t columns = call.words() * WORD, groups = call.groups();
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i of_batch = _mm512_srli_epi32(lane, 2), of_row = _mm512_and_si512(lane, _mm512_set1_epi32(3));
  const __m512i places = add(_mm512_mullo_epi32(of_batch, _mm512_set1_epi32((int)call.out)), of_row);
  alignas(64) int8_t codes[SIDE][WIDE];
  alignas(64) float sums[LONG / SIDE][16], scales[SIDE] = {}, offsets[SIDE] = {}, bias[SIDE] = {};
  if (call.bias)
    for (int r = 0; r < held; r++) bias[r] = call.bias[row + r];
  for (int64_t g = 0, k = 0; k < columns; g++) {
    const int64_t stop = g + 1 == groups ? columns : (g + 1) * call.group;
    for (int r = 0; r < held; r++) {
      scales[r] = call.scale(row + r, g);
      offsets[r] = (float)OFFSET<PLANES> * (float)call.sums[(row + r) * groups + g];
    }
    while (k < stop) {
      const int64_t words = (stop - k < WIDE ? stop - k : WIDE) / WORD, next = k + words * WORD;
      for (int64_t b = 0; b < batch; b += SIDE) {
        Lanes found = {};
        for (int plane = PLANES - 1; plane >= 0; plane--) {
          const uint8_t* bytes[SIDE];
          for (int i = 0; i < SIDE; i++) bytes[i] = x.row(first + (b + i < batch ? b + i : b)) + PLANES * k + plane * WORD;
          const auto placed = [&](int r, int64_t word) { return _mm512_load_si512(codes[r] + word * WORD); };
          const __m512i products = b == 0 && plane == PLANES - 1
                                       ? first_square(cursors, codes[0], bytes, PLANES * WORD, words)
                                       : square(placed, bytes, PLANES * WORD, words);
          found = found * 128.f + (Lanes)_mm512_cvtepi32_ps(products);
        }
        const auto of = [&](const float* p) { return (Lanes)_mm512_broadcast_f32x4(_mm_load_ps(p)); };
        if (next == stop) found -= of(offsets);
        found *= of(scales);
        if (k) found += load<16>(sums[b / SIDE]);
        if (next < columns) {
          memcpy(sums[b / SIDE], &found, sizeof found);
          continue;
        }
        const __m512 steps = _mm512_permutexvar_ps(of_batch, _mm512_castps128_ps512(_mm_loadu_ps(x.steps() + first + b)));
        const __mmask16 there = _mm512_cmplt_epi32_mask(of_row, _mm512_set1_epi32(held)) &
                                _mm512_cmplt_epi32_mask(of_batch, _mm512_set1_epi32((int)(batch - b)));
        float* to = call.y + (first + b) * call.out + row;
        _mm512_mask_i32scatter_ps(to, there, places, (__m512)(found * (Lanes)steps + of(bias)), sizeof(float));
      }
      k = next;
    }
  }
}

template <int PLANES, class At>
void multiply_blocks(const Call& call, At at) {
  const Planes<PLANES> x(call, WORD);
  for (int64_t first = 0; first < call.batch; first += LONG) {
    const int64_t batch = call.batch - first < LONG ? call.batch - first : LONG;
    for_rows(call.out, call.step(), call.threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row += SIDE) {
        const int held = (int)(end - row < SIDE ? end - row : SIDE);
        const auto cursor = [&](int r) { return at(row + (r < held ? r : 0)); };
        decltype(at(0)) cursors[] = {cursor(0), cursor(1), cursor(2), cursor(3)};
        multiply_block(call, x, cursors, row, held, first, batch);
      }
    });
  }
}

#endif
