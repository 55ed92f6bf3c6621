// Products with many rows of activations by weights in their places, zeros too: a panel of TALL rows of weights is expanded
// into the first cache, once for as many rows of activations as stay in the second, and multiplied from there, each weight by
// up to ACROSS vectors of activations at a time, so that sums fill the registers.
#pragma once
#include <memory>
#include "expand.h"
#include "wide.h"

constexpr int TALL = LANES == 16 ? 8 : 4, ACROSS = 3;
constexpr int64_t DEEP = 512;            // columns of a panel
constexpr int64_t APART = DEEP + LANES;  // from row to row: no power of two, so that they fall into different sets of the cache
constexpr int64_t LASTING = 240;         // rows of activations whose DEEP columns stay in the second cache

// A panel, `columns` of TALL rows, by N vectors of rows of activations, `apart` from each other, added to `sums` or the first.
template <int N = ACROSS>
inline void multiply_panel(int64_t vectors, const float* weights, const float* x, int64_t apart, int64_t columns, bool first,
                           float* sums, int64_t width) {
  if constexpr (N > 1)
    if (vectors < N) return multiply_panel<N - 1>(vectors, weights, x, apart, columns, first, sums, width);
  Lanes part[TALL][N];
#pragma GCC unroll 8
  for (int r = 0; r < TALL; r++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) part[r][v] = first ? Lanes{} : load<LANES>(sums + r * width + v * LANES);
  for (int64_t k = 0; k < columns; k++) {
    Lanes column[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) column[v] = load<LANES>(x + v * apart + k * LANES);
#pragma GCC unroll 8
    for (int r = 0; r < TALL; r++)
#pragma GCC unroll 4
      for (int v = 0; v < N; v++) part[r][v] += weights[r * APART + k] * column[v];
  }
#pragma GCC unroll 8
  for (int r = 0; r < TALL; r++)
#pragma GCC unroll 4
    for (int v = 0; v < N; v++) memcpy(sums + r * width + v * LANES, &part[r][v], sizeof part[r][v]);
}

// Rows `begin` to `end` of the weights by `width` rows of activations from `first` on.
template <class At>
void multiply_rows(const Call& call, At at, const Columns<LANES>& x, int64_t begin, int64_t end, int64_t first, int64_t width) {
  const int64_t words = call.words(), each = call.scales ? (call.group + WORD - 1) / WORD : words;
  decltype(at(0)) cursors[MOST_STEP];
  for (int64_t row = begin; row < end; row++) cursors[row - begin] = at(row);
  const int64_t vectors = width / LANES, turns = (vectors + ACROSS - 1) / ACROSS;
  alignas(64) float weights[TALL * APART];
  const Buffer<float> sums((end - begin + LANES) * width);
#if defined(__AVX2__)
  for (int64_t b = first; b < first + width && b < call.batch; b++)  // by now the results' lines are on their way
    for (int64_t row = begin; row < end; row += LANES) asm volatile("prefetchw %0" ::"m"(call.y[b * call.out + row]));
#endif
  for (int64_t word = 0; word < words; word += DEEP / WORD) {
    const int64_t last = word + DEEP / WORD < words ? word + DEEP / WORD : words;
    for (int64_t row = begin; row < end; row += TALL) {
      for (int r = 0; r < TALL && row + r < end; r++) {
        auto cursor = cursors[row + r - begin];
        float* to = weights + r * APART;
        for (int64_t w = word; w < last; w++, to += WORD) expand_word(cursor, call.scale(row + r, w / each), to);
        cursors[row + r - begin] = cursor;
      }
      for (int64_t turn = 0; turn < turns; turn++) {
        const int64_t v = turn * vectors / turns, next = (turn + 1) * vectors / turns;
        multiply_panel(next - v, weights, x.at(word * WORD, v), x.apart(), (last - word) * WORD, word == 0,
                       sums.get() + (row - begin) * width + v * LANES, width);
      }
    }
  }
  store_tiles(call, sums.get(), begin, end, width, first);
}

// The first `batch` rows of activations.
template <class At>
void multiply_panels(const Call& call, int64_t batch, At at) {
  const int64_t parts = (batch + LASTING - 1) / LASTING;
  const int64_t each = ((batch + parts - 1) / parts + LANES - 1) / LANES * LANES;
  const int64_t step = block_of_rows(call, parts), blocks = (call.out + step - 1) / step;
  for_shares(parts * blocks, call.threads, [&] {
    return [&, x = std::unique_ptr<Columns<LANES>>(), now = int64_t(-1)](int64_t i) mutable {
      const int64_t part = i / blocks, begin = i % blocks * step, first = part * each;
      const int64_t left = (batch - first + LANES - 1) / LANES * LANES, width = left < each ? left : each;
      if (part != now) x = std::make_unique<Columns<LANES>>(call, first, width, 1, decltype(at(0))::PAIRED);
      now = part;
      multiply_rows(call, at, *x, begin, begin + step < call.out ? begin + step : call.out, first, width);
    };
  });
}
