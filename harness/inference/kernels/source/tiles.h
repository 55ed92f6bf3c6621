// A record of format slot: 4 slots for each of 8 rows, 32 column numbers of 4 bits and 32 values. A tile's 16 columns have
// SLOTS of them, so a record's first OWN slots may be of one tile and the others of the next.
// `slot.py` fixes the order of both; the two must agree.
#pragma once
#include <utility>
#include "activations.h"

template <class V> constexpr int64_t RECORD = 16 + 32 * (int64_t)sizeof(V);
constexpr int TILE = 16;  // columns

// The records of a turn, after which a tile begins with a record again, and its tiles.
constexpr int turn_of(int slots) { return slots % 4 == 0 ? slots / 4 : slots % 2 == 0 ? slots / 2 : slots; }
constexpr int tiles_of(int slots) { return turn_of(slots) * 4 / slots; }

// Calls f(tile, own) for each record of a turn, both known when this is compiled.
template <int SLOTS, class F, int... I>
inline void in_turn(F f, std::integer_sequence<int, I...>) {
  constexpr auto own = [](int record) {
    const int left = (4 * record / SLOTS + 1) * SLOTS - 4 * record;
    return left < 4 ? left : 4;
  };
  (f(std::integral_constant<int, 4 * I / SLOTS>(), std::integral_constant<int, own(I)>()), ...);
}
template <int SLOTS, class F>
inline void in_turn(F f) {
  in_turn<SLOTS>(f, std::make_integer_sequence<int, turn_of(SLOTS)>());
}

// Activations as four planes of bytes for each tile: a byte shuffle fetches 32 of a tile's 16 from each plane.
class BytePlanes {
 public:
  explicit BytePlanes(const Call& call) : stride_(call.words() * WORD * 4 + 64), bytes_(call.batch * stride_) {
    for (int64_t b = 0; b < call.batch; b++) {
      memset(bytes_.get() + b * stride_, 0, stride_);
      for (int64_t k = 0; k < call.in; k++) {
        uint8_t* place = bytes_.get() + b * stride_ + k / TILE * 64 + k % TILE;
        for (int byte = 0; byte < 4; byte++) place[16 * byte] = ((const uint8_t*)(call.x + b * call.in + k))[byte];
      }
    }
  }
  const uint8_t* tile(int64_t b, int64_t tile) const { return bytes_.get() + b * stride_ + tile * 64; }

 private:
  int64_t stride_;
  Buffer<uint8_t> bytes_;
};

// The column number and the value of one slot of a row.
template <class V>
inline int number_at(const uint8_t* record, int row, int slot) {
  const int place = sizeof(V) == 1 ? 4 * (row % 4) + slot : 4 * slot + row % 4;
  return record[place] >> (row / 4 * 4) & 15;
}
inline float value_at(const int8_t* values, int row, int slot) { return values[4 * row + slot]; }
inline float value_at(const BFloat* values, int row, int slot) { return to_float(values[slot / 2 * 16 + 2 * row + slot % 2]); }
template <class V>
inline float value_at(const V* values, int row, int slot) { return to_float(values[8 * slot + row]); }

#if defined(__AVX2__)

// 32 column numbers: rows 0 to 3 in the lower half, from the low nibbles, rows 4 to 7 in the upper half.
inline __m256i numbers(const uint8_t* record) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)record));
  return _mm256_and_si256(_mm256_srlv_epi64(both, _mm256_set_epi64x(4, 4, 0, 0)), _mm256_set1_epi8(15));
}

inline __m256i picked(const uint8_t* plane, __m256i numbers) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)plane)), numbers);
}

// The same where the four slots of a row lie together and the last ones are of the tile whose plane is `next`.
template <int OWN>
inline __m256i picked(const uint8_t* plane, const uint8_t* next, __m256i numbers) {
  const __m256i first = picked(plane, numbers);
  if (OWN == 4) return first;
  const __m256i second = picked(next, numbers);
  if (OWN == 2) return _mm256_blend_epi16(first, second, 0xaa);
  return _mm256_blendv_epi8(first, second, _mm256_set1_epi32(-1u << 8 * OWN % 32));
}

// The activations of 4 slots of 8 rows.
template <int OWN>
inline void pick(const uint8_t* tile, __m256i numbers, Floats<8>* to) {
  constexpr int OTHERS = 0xf << OWN & 0xf;
  const auto plane = [&](int byte) {
    const __m256i some = picked(tile + 16 * byte, numbers);
    return OTHERS ? _mm256_blend_epi32(some, picked(tile + 64 + 16 * byte, numbers), OTHERS * 0x11) : some;
  };
  const __m256i p0 = plane(0), p1 = plane(1), p2 = plane(2), p3 = plane(3);
  const __m256i low01 = _mm256_unpacklo_epi8(p0, p1), high01 = _mm256_unpackhi_epi8(p0, p1);
  const __m256i low23 = _mm256_unpacklo_epi8(p2, p3), high23 = _mm256_unpackhi_epi8(p2, p3);
  to[0] = (Floats<8>)_mm256_unpacklo_epi16(low01, low23);
  to[1] = (Floats<8>)_mm256_unpackhi_epi16(low01, low23);
  to[2] = (Floats<8>)_mm256_unpacklo_epi16(high01, high23);
  to[3] = (Floats<8>)_mm256_unpackhi_epi16(high01, high23);
}

// The values of 4 slots of 8 rows.
template <class V>
inline void values(const V* p, Floats<8>* to) {
  for (int slot = 0; slot < 4; slot++) to[slot] = load<8>(p + 8 * slot);
}
// Two slots share a vector, the first in the lower halves: it becomes a float by a shift, the second by a mask.
inline void values(const BFloat* p, Floats<8>* to) {
  typedef uint32_t Bits __attribute__((vector_size(32)));
  for (int pair = 0; pair < 2; pair++) {
    Bits both;
    memcpy(&both, p + 16 * pair, sizeof both);
    to[2 * pair] = (Floats<8>)(both << 16);
    to[2 * pair + 1] = (Floats<8>)(both & 0xffff0000u);
  }
}

#endif
