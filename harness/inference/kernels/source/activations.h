// Activations made ready once a call: fp32 rows filled up to whole words, or two planes of 7 bits for int8 products.
#pragma once
#include <cmath>
#include <new>
#include "vectors.h"

template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) : data_((T*)operator new(count * sizeof(T) + 64, std::align_val_t(64))) {}
  ~Buffer() { operator delete(data_, std::align_val_t(64)); }
  Buffer(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

// Rows begin a cache line off a power of two, so that the same column of 16 rows does not fall into one set of the cache.
class Activations {
 public:
  explicit Activations(const Call& call, bool paired = false)
      : stride_(call.words() * WORD + 16), rows_(call.batch * stride_) {
    for (int64_t b = 0; b < call.batch; b++) {
      float* row = rows_.get() + b * stride_;
      memcpy(row, call.x + b * call.in, call.in * sizeof(float));
      memset(row + call.in, 0, (stride_ - call.in) * sizeof(float));
      if (paired) pair(row, call.words() * WORD);
    }
  }
  const float* row(int64_t b) const { return rows_.get() + b * stride_; }

 private:
  // Of each 2 x LANES columns, the even ones come before the odd ones.
  static void pair(float* row, int64_t columns) {
    for (int64_t k = 0; k < columns; k += 2 * LANES) {
      float both[2 * LANES];
      memcpy(both, row + k, sizeof both);
      for (int i = 0; i < LANES; i++) row[k + i] = both[2 * i], row[k + LANES + i] = both[2 * i + 1];
    }
  }
  int64_t stride_;
  Buffer<float> rows_;
};

// Columns of the activations side by side, [in, width]: what a single weight is multiplied with for a whole batch. Empty
// for a batch of one, which needs none.
class Transposed {
 public:
  explicit Transposed(const Call& call) : width(call.batch == 1 ? 0 : call.batch <= 8 ? 8 : 16), columns_(call.in * width) {
    for (int64_t k = 0; k < call.in; k++)
      for (int64_t b = 0; b < width; b++) columns_.get()[k * width + b] = b < call.batch ? call.x[b * call.in + k] : 0.f;
  }
  const float* column(int64_t k) const { return columns_.get() + k * width; }
  const int64_t width;

 private:
  Buffer<float> columns_;
};

constexpr int LEVELS = 8191;           // of a 14-bit activation, to either side of zero
constexpr int64_t OFFSET = LEVELS + 1;  // makes it unsigned, as the multiplying instruction wants it
constexpr float SMALLEST = 1e-30f;      // range of the levels, so that its inverse is finite
constexpr int64_t SEGMENT = 4096;       // columns after which 32-bit sums of products are carried over

// Infinite where an element is infinite or not a number.
inline float max_magnitude(const float* x, int64_t count) {
  Lanes largest = {};
  float most = 0;
  int64_t k = 0;
  for (; k + LANES <= count; k += LANES) {
    const Lanes value = load<LANES>(x + k), magnitude = value < 0 ? -value : value;
    largest = magnitude <= largest ? largest : magnitude == magnitude ? magnitude : INFINITY - Lanes{};
  }
  for (int i = 0; i < LANES; i++) most = largest[i] > most ? largest[i] : most;
  for (; k < count; k++) most = std::fabs(x[k]) <= most ? most : std::isnan(x[k]) ? INFINITY : std::fabs(x[k]);
  return most;
}

// x = step * (low + 128 * high - 8192) with low and high from 0 to 127: small enough for exact sums in 16 bits.
// `run` columns of the low plane are followed by the same of the high plane.
class Planes {
 public:
  Planes(const Call& call, int64_t run) : stride_(2 * call.words() * WORD + 64), bytes_(call.batch * stride_) {
    for (int64_t b = 0; b < call.batch; b++) fill(call.x + b * call.in, call.in, call.words() * WORD, run, b);
  }
  const uint8_t* row(int64_t b) const { return bytes_.get() + b * stride_; }
  float step(int64_t b) const { return steps_[b]; }

 private:
  void fill(const float* x, int64_t in, int64_t padded, int64_t run, int64_t b) {
    const float largest = std::fmax(max_magnitude(x, in), SMALLEST), inverse = LEVELS / largest;
    const bool usable = largest < INFINITY;  // else the product is NaN, as it is in floats
    steps_[b] = usable ? largest / LEVELS : NAN;
    for (int64_t first = 0; first < padded; first += run) {
      uint8_t *low = bytes_.get() + b * stride_ + 2 * first, *high = low + run;
      const int64_t held = first + run <= in ? run : in > first ? in - first : 0;
      for (int64_t i = 0; i < held; i++) {
        const int32_t level = usable ? (int32_t)(x[first + i] * inverse + (OFFSET + 0.5f)) : 0;
        low[i] = level & 127;
        high[i] = level >> 7;
      }
      memset(low + held, 0, run - held);
      memset(high + held, OFFSET >> 7, run - held);
    }
  }
  int64_t stride_;
  Buffer<uint8_t> bytes_;
  float steps_[BATCH];
};

#if defined(__AVX2__)
// Sums of four neighbouring products of unsigned and signed bytes, added to 32-bit sums.
inline __m256i dot(__m256i sums, __m256i bytes, __m256i codes) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sums, bytes, codes);
#else
  const __m256i pairs = _mm256_maddubs_epi16(bytes, codes);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
#endif
#if defined(__AVX512VNNI__)
inline __m512i dot(__m512i sums, __m512i bytes, __m512i codes) { return _mm512_dpbusd_epi32(sums, bytes, codes); }
#endif
