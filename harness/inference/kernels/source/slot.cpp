// Tiles of 8 rows x 16 columns with 4 or 8 slots a row, and a tail of single entries for what did not fit.
// Tensors: tiles [row groups, records, bytes of a record], columns, values, rows [out + 1].
#include "entries.h"
#include "rows.h"
#include "tiles.h"
#include "wide.h"

namespace {

constexpr int ROWS = 8;

struct Tiles {
  const uint8_t* bytes;
  int64_t tiles, each;  // records of a tile

  explicit Tiles(const Call& call)
      : bytes((const uint8_t*)call.tensors[0]), tiles((call.in + TILE - 1) / TILE), each(call.slots / 4) {}
  template <class V>
  const uint8_t* group(int64_t g) const { return bytes + g * tiles * each * RECORD<V>; }
};

#if defined(__AVX2__)

// The tiles' part of 8 rows' products in floats.
template <int B, class V>
inline void tiles_of_floats(const Tiles& of, int64_t g, const BytePlanes& x, int64_t first, float* to) {
  Floats<8> part[B][2] = {};
  const uint8_t* record = of.group<V>(g);
  for (int64_t tile = 0; tile < of.tiles; tile++)
    for (int64_t r = 0; r < of.each; r++, record += RECORD<V>) {
      for (int64_t line = 0; line < RECORD<V>; line += 64) fetch_far(record, line);
      const __m256i where = numbers(record);
      Floats<8> weights[4], picks[4];
      values((const V*)(record + 16), weights);
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) {
        pick(x.tile(first + b, tile), where, picks);
#pragma GCC unroll 4
        for (int slot = 0; slot < 4; slot++) part[b][slot % 2] += weights[slot] * picks[slot];
      }
    }
  for (int b = 0; b < B; b++) {
    part[b][0] += part[b][1];
    memcpy(to + b * ROWS, &part[b][0], sizeof part[b][0]);
  }
}

// The same of int8 codes and activations of 14 bits: exact integers, a lane a row.
template <int B>
inline void tiles_of_codes(const Tiles& of, int64_t g, const Planes& x, const int32_t* sums, int64_t first, float* to) {
  __m256i low[B] = {}, high[B] = {};
  const uint8_t* record = of.group<int8_t>(g);
  for (int64_t tile = 0; tile < of.tiles; tile++)
    for (int64_t r = 0; r < of.each; r++, record += RECORD<int8_t>) {
      fetch_far(record);
      const __m256i where = numbers(record), codes = _mm256_loadu_si256((const __m256i*)(record + 16));
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) {
        const uint8_t* planes = x.row(first + b) + 2 * TILE * tile;
        low[b] = dot(low[b], picked(planes, where), codes);
        high[b] = dot(high[b], picked(planes + TILE, where), codes);
      }
    }
  const __m256i offset = _mm256_slli_epi32(_mm256_loadu_si256((const __m256i*)sums), 6);
  for (int b = 0; b < B; b++) {
    const Floats<8> upper = _mm256_cvtepi32_ps(_mm256_sub_epi32(high[b], offset)), lower = _mm256_cvtepi32_ps(low[b]);
    const Floats<8> products = (lower + 128.f * upper) * x.step(first + b);
    memcpy(to + b * ROWS, &products, sizeof products);
  }
}

#else

template <int B, class V>
inline void tiles_of_floats(const Tiles& of, int64_t g, const Activations& x, int64_t first, float* to) {
  memset(to, 0, B * ROWS * sizeof(float));
  const uint8_t* record = of.group<V>(g);
  for (int64_t tile = 0; tile < of.tiles; tile++)
    for (int64_t r = 0; r < of.each; r++, record += RECORD<V>)
      for (int row = 0; row < ROWS; row++)
        for (int slot = 0; slot < 4; slot++)
          for (int b = 0; b < B; b++)
            to[b * ROWS + row] += value_at((const V*)(record + 16), row, slot) *
                                  x.row(first + b)[tile * TILE + number_at<V>(record, row, slot)];
}
using BytePlanes = Activations;

#endif

// `tiles(g, b, first, to)` computes the tiles' part for b rows of activations; the tail and the scales are the same for all.
template <class V, class Part>
void multiply_by(const Call& call, Part tiles) {
  const Entries<V> tail(call, 1);
  const Transposed x(call);
  for_rows((call.out + ROWS - 1) / ROWS, call.step() / ROWS, call.threads, [&](int64_t begin, int64_t end) {
    float slotted[BATCH * ROWS], rest[BATCH];
    for (int64_t g = begin; g < end; g++) {
      in_parts<4>(call.batch, [&](auto b, int64_t first) { tiles(g, b, first, slotted + first * ROWS); });
      for (int64_t row = g * ROWS; row < (g + 1) * ROWS && row < call.out; row++) {
        if (call.batch == 1)
          rest[0] = entries_of_row(tail, row, call.x);
        else if (x.width == 8)
          entries_of_batch<8>(tail, row, x, rest);
        else
          entries_of_batch<16>(tail, row, x, rest);
        for (int64_t b = 0; b < call.batch; b++)
          call.store(row, b, (slotted[b * ROWS + row % ROWS] + rest[b]) * call.scale(row, 0));
      }
    }
  });
}

template <class V>
void multiply_floats_by(const Call& call) {
  const Tiles tiles(call);
  const BytePlanes x(call);
  multiply_by<V>(call, [&](int64_t g, auto b, int64_t first, float* to) {
    tiles_of_floats<decltype(b)::value, V>(tiles, g, x, first, to);
  });
}

// A row's weights, one by one: its slots in a word's tiles, then its tail there.
template <class V>
struct Row {
  const uint8_t* group;
  int64_t tiles, each;
  int row;
  EntriesOfRow<V> tail;

  template <class F>
  void word(int64_t word, float scale, F f) {
    constexpr int64_t TILES = WORD / TILE;
    for (int64_t tile = 0; tile < TILES && word * TILES + tile < tiles; tile++)
      for (int64_t r = 0; r < each; r++) {
        const uint8_t* record = group + ((word * TILES + tile) * each + r) * RECORD<V>;
        for (int slot = 0; slot < 4; slot++)
          f(tile * TILE + number_at<V>(record, row, slot), value_at((const V*)(record + 16), row, slot) * scale);
      }
    tail.word(word, scale, f);
  }
};

}  // namespace

extern "C" void multiply(const Call* call) {
#if defined(__AVX2__)
  if (call->precision == INT8) {
    const Tiles tiles(*call);
    const Planes x(*call, TILE);
    const int64_t groups = (call->out + ROWS - 1) / ROWS;
    const Buffer<int32_t> sums(groups * ROWS);
    memset(sums.get(), 0, groups * ROWS * sizeof(int32_t));
    memcpy(sums.get(), call->sums, call->out * sizeof(int32_t));
    return multiply_by<int8_t>(*call, [&](int64_t g, auto b, int64_t first, float* to) {
      tiles_of_codes<decltype(b)::value>(tiles, g, x, sums.get() + g * ROWS, first, to);
    });
  }
#endif
  by_precision(call->precision, [&](auto* type) { multiply_floats_by<std::decay_t<decltype(*type)>>(*call); });
}

extern "C" void multiply_many(const Call* call) {
  by_precision(call->precision, [&](auto* type) {
    using V = std::decay_t<decltype(*type)>;
    const Tiles of(*call);
    const Entries<V> tail(*call, 1);
    multiply_columns(*call, [&](int64_t row) {
      return Row<V>{of.group<V>(row / ROWS), of.tiles, of.each, (int)(row % ROWS), tail.row(row)};
    });
  });
}
