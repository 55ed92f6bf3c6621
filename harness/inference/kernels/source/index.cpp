// Each weight with its column. One row of activations is gathered from; a batch is multiplied side by side, with VNNI as bytes
// where it has 8 bits.
// Tensors: columns, values, rows [out + 1].
#include "entries.h"
#include "expand.h"
#include "wide.h"

namespace {

template <class V>
void multiply_by(const Call& call) {
  const Entries<V> entries(call, 0);
  if (call.batch == 1)
    return for_rows(call.out, call.step(), call.threads, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++)
        call.store(row, 0, entries_of_row(entries, row, call.x) * call.scale(row, 0));
    });
  const Transposed x(call);
  for_rows(call.out, call.step(), call.threads, [&](int64_t begin, int64_t end) {
    float products[BATCH];
    for (int64_t row = begin; row < end; row++) {
      if (x.width == 8)
        entries_of_batch<8>(entries, row, x, products);
      else
        entries_of_batch<16>(entries, row, x, products);
      for (int64_t b = 0; b < call.batch; b++) call.store(row, b, products[b] * call.scale(row, 0));
    }
  });
}

#if defined(__AVX512VNNI__)

// Levels of 16 rows of activations side by side, [words x 64, 16] bytes.
class Levels {
 public:
  explicit Levels(const Call& call) : planes_(call, WORD), columns_(call.words() * WORD * BATCH) {
    for (int64_t k = 0; k < call.in; k += BATCH) {
      __m128i tile[BATCH], other[BATCH];
      for (int64_t b = 0; b < BATCH; b++)
        tile[b] = _mm_loadu_si128((const __m128i*)(planes_.row(b < call.batch ? b : 0) + k));
      for (int stage = 0; stage < 4; stage++) {
        for (int i = 0; i < BATCH / 2; i++) {
          other[2 * i] = _mm_unpacklo_epi8(tile[i], tile[i + BATCH / 2]);
          other[2 * i + 1] = _mm_unpackhi_epi8(tile[i], tile[i + BATCH / 2]);
        }
        memcpy(tile, other, sizeof tile);
      }
      memcpy(columns_.get() + k * BATCH, tile, sizeof tile);
    }
  }
  __m128i column(int64_t k) const { return _mm_load_si128((const __m128i*)(columns_.get() + k * BATCH)); }
  Lanes steps(int64_t batch) const {
    Lanes result = {};
    memcpy(&result, planes_.steps(), batch * sizeof(float));
    return result;
  }

 private:
  Planes<1> planes_;
  Buffer<uint8_t> columns_;
};

// A row by 16 rows of levels, a lane each: four entries' columns at once, the bytes of each lane brought together.
inline Lanes entries_of_levels(const Entries<int8_t>& of, int64_t row, const Levels& x) {
  const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i order = _mm512_add_epi8(_mm512_mullo_epi32(lane, _mm512_set1_epi32(0x01010101)), _mm512_set1_epi32(0x30201000));
  __m512i part[2] = {};
  __m128i codes = {};
  for (int64_t i = of.rows[row]; i < of.rows[row + 1]; i += 8) {
    fetch_far(of.columns + i);
    fetch_far(of.values + i);
    codes = _mm_dpbusd_epi32(codes, _mm_set1_epi8(1), _mm_loadl_epi64((const __m128i*)(of.values + i)));
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      const uint16_t* columns = of.columns + i + 4 * half;
      __m512i levels = _mm512_castsi128_si512(x.column(columns[0]));
      levels = _mm512_inserti32x4(levels, x.column(columns[1]), 1);
      levels = _mm512_inserti32x4(levels, x.column(columns[2]), 2);
      levels = _mm512_inserti32x4(levels, x.column(columns[3]), 3);
      int32_t values;
      memcpy(&values, of.values + i + 4 * half, sizeof values);
      part[half] = dot<1>(part[half], _mm512_permutexvar_epi8(order, levels), _mm512_set1_epi32(values));
    }
  }
  const int32_t sum = _mm_extract_epi32(codes, 0) + _mm_extract_epi32(codes, 1);
  return (Lanes)_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_add_epi32(part[0], part[1]), _mm512_set1_epi32(OFFSET<1> * sum)));
}

void multiply_levels(const Call& call) {
  const Entries<int8_t> entries(call, 0);
  const Levels x(call);
  const Lanes steps = x.steps(call.batch);
  for_rows(call.out, call.step(), call.threads, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row += LANES) {
      const int64_t held = row + LANES < end ? LANES : end - row;
      Lanes tile[LANES] = {};
      for (int64_t r = 0; r < held; r++) tile[r] = entries_of_levels(entries, row + r, x) * steps * call.scale(row + r, 0);
      store_tile(call, tile, row, held, 0);
    }
  });
}

#endif

}  // namespace

extern "C" void multiply(const Matrix* matrix, const float* x, float* y, int64_t batch, int32_t threads) {
  const Call call(*matrix, x, y, batch, threads);
#if defined(__AVX512VNNI__)
  if (call.rounds() && call.batch > 1 && call.batch <= DECODE) return by_batch(call, multiply_levels);
#endif
  with_rounded(call, [](const Call& own) {
    by_precision(own.precision, [&](auto* type) {
      using V = std::decay_t<decltype(*type)>;
      const Entries<V> entries(own, 0);
      if (own.batch > DECODE) return multiply_columns(own, [&](int64_t row) { return entries.row(row); });
      by_batch(own, [](const Call& part) { multiply_by<V>(part); });
    });
  });
}

extern "C" void expand(const Matrix* matrix, int64_t first, int64_t last, float* to, int32_t threads) {
  const Call call(*matrix, nullptr, nullptr, 0, threads);
  by_precision(call.precision, [&](auto* type) {
    const Entries<std::decay_t<decltype(*type)>> entries(call, 0);
    expand_one_by_one(call, first, last, to, [&](int64_t row) { return entries.row(row); });
  });
}
