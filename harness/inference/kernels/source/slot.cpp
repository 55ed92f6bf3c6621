// Tiles of 8 rows x 16 columns with up to 8 slots a row, and a tail of single entries for what did not fit.
// Tensors: tiles [row groups, records, bytes of a record], columns, values, rows [out + 1].
#include "entries.h"
#include "expand.h"
#include "rows.h"
#include "tiles.h"
#include "wide.h"

namespace {

constexpr int ROWS = 8;

struct Tiles {
  const uint8_t* bytes;
  int64_t turns, records;  // of a row group
  int slots;

  explicit Tiles(const Call& call)
      : bytes((const uint8_t*)call.tensors[0]),
        turns(((call.in + TILE - 1) / TILE + tiles_of(call.slots) - 1) / tiles_of(call.slots)),
        records(turns * turn_of(call.slots)),
        slots(call.slots) {}
  template <class V>
  const uint8_t* group(int64_t g) const { return bytes + g * records * RECORD<V>; }
  int64_t tile(int64_t record, int slot) const { return (4 * record + slot) / slots; }
};

#if defined(__AVX2__)

// The tiles' part of 8 rows' products in floats.
template <int SLOTS, int B, class V>
inline void tiles_of_floats(const Tiles& of, int64_t g, const BytePlanes& x, int64_t first, float* to) {
  Floats<8> part[B][2] = {};
  const uint8_t* record = of.group<V>(g);
  for (int64_t turn = 0; turn < of.turns; turn++)
    in_turn<SLOTS>([&](auto tile, auto own) {
      for (int64_t line = 0; line < RECORD<V>; line += 64) fetch_far(record, line);
      const __m256i where = numbers(record);
      Floats<8> weights[4], picks[4];
      values((const V*)(record + 16), weights);
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) {
        pick<own.value>(x.tile(first + b, turn * tiles_of(SLOTS) + tile), where, picks);
#pragma GCC unroll 4
        for (int slot = 0; slot < 4; slot++) part[b][slot % 2] += weights[slot] * picks[slot];
      }
      record += RECORD<V>;
    });
  for (int b = 0; b < B; b++) {
    part[b][0] += part[b][1];
    memcpy(to + b * ROWS, &part[b][0], sizeof part[b][0]);
  }
}

// The same of int8 codes and planes of activations: exact integers, a lane a row.
template <int SLOTS, int PLANES, int B>
inline void tiles_of_codes(const Tiles& of, int64_t g, const Planes<PLANES>& x, const int32_t* sums, int64_t first, float* to) {
  __m256i part[B][PLANES] = {};
  const uint8_t* record = of.group<int8_t>(g);
  for (int64_t turn = 0; turn < of.turns; turn++)
    in_turn<SLOTS>([&](auto tile, auto own) {
      fetch_far(record);
      const __m256i where = numbers(record), codes = _mm256_loadu_si256((const __m256i*)(record + 16));
#pragma GCC unroll 4
      for (int b = 0; b < B; b++)
#pragma GCC unroll 2
        for (int plane = 0; plane < PLANES; plane++) {
          const uint8_t* bytes = x.row(first + b) + (PLANES * (turn * tiles_of(SLOTS) + tile) + plane) * TILE;
          const __m256i picks = picked<own.value>(bytes, bytes + PLANES * TILE, where);
          part[b][plane] = dot<PLANES>(part[b][plane], picks, codes);
        }
      record += RECORD<int8_t>;
    });
  constexpr int TOP = OFFSET<PLANES> >> 7 * (PLANES - 1);
  const __m256i offset = _mm256_mullo_epi32(_mm256_loadu_si256((const __m256i*)sums), _mm256_set1_epi32(TOP));
  for (int b = 0; b < B; b++) {
    Floats<8> products = _mm256_cvtepi32_ps(_mm256_sub_epi32(part[b][PLANES - 1], offset));
    if (PLANES == 2) products = products * 128.f + _mm256_cvtepi32_ps(part[b][0]);
    products *= x.steps()[first + b];
    memcpy(to + b * ROWS, &products, sizeof products);
  }
}

#else

template <int, int B, class V>
inline void tiles_of_floats(const Tiles& of, int64_t g, const Activations& x, int64_t first, float* to) {
  memset(to, 0, B * ROWS * sizeof(float));
  const uint8_t* record = of.group<V>(g);
  for (int64_t r = 0; r < of.records; r++, record += RECORD<V>)
    for (int row = 0; row < ROWS; row++)
      for (int slot = 0; slot < 4; slot++)
        for (int b = 0; b < B; b++)
          to[b * ROWS + row] += value_at((const V*)(record + 16), row, slot) *
                                x.row(first + b)[of.tile(r, slot) * TILE + number_at<V>(record, row, slot)];
}
using BytePlanes = Activations;

#endif

// `tiles(g, b, first, to)` computes the tiles' part for b rows of activations; the tail and the scales are the same for all.
template <class V, class Part>
void multiply_by(const Call& call, const Tiles& of, Part tiles) {
  const Entries<V> tail(call, 1);
  const Transposed x(call);
  for_rows((call.out + ROWS - 1) / ROWS, call.step() / ROWS, call.threads, [&](int64_t begin, int64_t end) {
    float slotted[BATCH * ROWS], rest[BATCH];
    for (int64_t g = begin; g < end; g++) {
      in_parts<4>(call.batch, [&](auto b, int64_t first) { tiles(g, b, first, slotted + first * ROWS); });
      const uint8_t* next = of.group<V>(g + 1) + FAR;
      for (int64_t row = g * ROWS; row < (g + 1) * ROWS && row < call.out; row++) {
        // A tail of int8 keeps arithmetic busier than memory, which brings the next group's tiles meanwhile.
        if (sizeof(V) == 1)
          for (int64_t i = tail.rows[row]; i + 16 <= tail.rows[row + 1]; i += 16, next += 64) __builtin_prefetch(next, 0, 2);
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

template <class V, int SLOTS>
void multiply_floats_by(const Call& call) {
  const Tiles tiles(call);
  const BytePlanes x(call);
  multiply_by<V>(call, tiles, [&](int64_t g, auto b, int64_t first, float* to) {
    tiles_of_floats<SLOTS, decltype(b)::value, V>(tiles, g, x, first, to);
  });
}

// A row's weights, one by one: its slots in a word's tiles, then its tail there.
template <class V>
struct Row {
  const uint8_t* group;
  const Tiles* of;
  int row;
  EntriesOfRow<V> tail;

  template <class F>
  void word(int64_t word, float scale, F f) {
    const int64_t each = WORD / TILE * of->slots / 4;
    int64_t column = 0;
    int left = of->slots;  // of the tile that begins there
    for (int64_t r = word * each; r < (word + 1) * each && r < of->records; r++) {
      const uint8_t* record = group + r * RECORD<V>;
      for (int slot = 0; slot < 4; slot++, left--) {
        if (!left) column += TILE, left = of->slots;
        f(column + number_at<V>(record, row, slot), value_at((const V*)(record + 16), row, slot) * scale);
      }
    }
    tail.word(word, scale, f);
  }
};

#if defined(__AVX2__)
template <int PLANES, int SLOTS>
void multiply_codes(const Call& call) {
  const Tiles tiles(call);
  const Planes<PLANES> x(call, TILE);
  const int64_t groups = (call.out + ROWS - 1) / ROWS;
  const Buffer<int32_t> sums(groups * ROWS);
  memset(sums.get(), 0, groups * ROWS * sizeof(int32_t));
  memcpy(sums.get(), call.sums, call.out * sizeof(int32_t));
  multiply_by<int8_t>(call, tiles, [&](int64_t g, auto b, int64_t first, float* to) {
    tiles_of_codes<SLOTS, PLANES, decltype(b)::value>(tiles, g, x, sums.get() + g * ROWS, first, to);
  });
}
#endif

template <class V, int SLOTS>
void multiply_few(const Call& call) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<V, int8_t>)
    return by_planes(call, [&](auto planes) { multiply_codes<planes.value, SLOTS>(call); });
#endif
  multiply_floats_by<V, SLOTS>(call);
}

template <class F>
void by_slots(int32_t slots, F f) {
  switch (slots) {
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    default: return f(std::integral_constant<int, 8>());
  }
}

}  // namespace

// The tail of a row is multiplied in floats, so what activations are rounded to stands in floats too.
extern "C" void multiply(const Matrix* matrix, const float* x, float* y, int64_t batch, int32_t threads) {
  const Call call(*matrix, x, y, batch, threads);
  with_rounded(call, [](const Call& own) {
    by_precision(own.precision, [&](auto* type) {
      using V = std::decay_t<decltype(*type)>;
      if (own.batch <= DECODE)
        return by_slots(own.slots, [&](auto slots) { by_batch(own, multiply_few<V, slots.value>); });
      const Tiles of(own);
      const Entries<V> tail(own, 1);
      multiply_columns(own, [&](int64_t row) {
        return Row<V>{of.group<V>(row / ROWS), &of, (int)(row % ROWS), tail.row(row)};
      });
    });
  });
}

extern "C" void expand(const Matrix* matrix, int64_t first, int64_t last, float* to, int32_t threads) {
  const Call call(*matrix, nullptr, nullptr, 0, threads);
  by_precision(call.precision, [&](auto* type) {
    using V = std::decay_t<decltype(*type)>;
    const Tiles of(call);
    const Entries<V> tail(call, 1);
    expand_one_by_one(call, first, last, to, [&](int64_t row) {
      return Row<V>{of.group<V>(row / ROWS), &of, (int)(row % ROWS), tail.row(row)};
    });
  });
}
