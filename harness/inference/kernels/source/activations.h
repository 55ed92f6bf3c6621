// Activations made ready once a call: fp32 rows filled up to whole words, or planes of bytes for int8 products.
#pragma once
#include <cmath>
#include <new>
#include <type_traits>
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

// An activation is a level from -LEVELS to LEVELS times a step: of 8 bits in one plane of bytes, of 14 in two of 7 bits.
template <int PLANES> constexpr int LEVELS = PLANES == 1 ? 127 : 8191;
#if defined(__AVX512VNNI__)
constexpr bool SIGNED = false;
#else
constexpr bool SIGNED = true;  // one plane of bytes: sums of two products stay within 16 bits, as AVX2 makes them
#endif
// What makes a level unsigned, as multiplying instructions want it; PLANES - 1 times 7 bits of it are zero.
template <int PLANES> constexpr int OFFSET = PLANES == 1 && SIGNED ? 0 : LEVELS<PLANES> + 1;
constexpr float SMALLEST = 1e-30f;      // range of the levels, so that its inverse is finite
constexpr int64_t SEGMENT = 4096;       // columns after which 32-bit sums of products are carried over

// Infinite where an element is infinite or not a number. Without their signs, floats are in the order of their bits.
inline float max_magnitude(const float* x, int64_t count) {
  constexpr int32_t NUMBER = 0x7fffffff, INFINITE = 0x7f800000;
  Whole most[4] = {};
  int64_t k = 0;
  const auto take = [&](Whole& most, const void* p, size_t size) {
    Whole bits = {};
    memcpy(&bits, p, size);
    bits &= NUMBER;
    most = bits > most ? bits : most;
  };
  for (; k + 4 * LANES <= count; k += 4 * LANES)
    for (int i = 0; i < 4; i++) take(most[i], x + k + i * LANES, sizeof(Whole));
  for (; k + LANES <= count; k += LANES) take(most[0], x + k, sizeof(Whole));
  take(most[1], x + k, (count - k) * sizeof(float));
  int32_t largest = 0;
  for (const Whole& each : most)
    for (int lane = 0; lane < LANES; lane++) largest = each[lane] > largest ? each[lane] : largest;
  float result = INFINITY;
  if (largest < INFINITE) memcpy(&result, &largest, sizeof result);
  return result;
}

// The levels of a row of activations, the nearest ones, of a tie the even.
template <int PLANES>
struct Grid {
  float inverse, step;  // NaN where an element is not finite: then the product is, as it is in floats

  Grid(const float* x, int64_t count) {
    const float largest = std::fmax(max_magnitude(x, count), SMALLEST);
    inverse = LEVELS<PLANES> / largest;
    step = largest < INFINITY ? largest / LEVELS<PLANES> : NAN;
  }
  // Of LANES elements, `held` of which there are.
  Whole levels(const float* x, int64_t held) const {
    Lanes some = {};
    if (step != step) return Whole{};
    if (held >= LANES) return nearest(load<LANES>(x) * inverse);
    memcpy(&some, x, (held > 0 ? held : 0) * sizeof(float));
    return nearest(some * inverse);
  }
};

// `run` columns of a plane of bytes are followed by the same of the next, the higher bits.
template <int PLANES>
class Planes {
 public:
  Planes(const Call& call, int64_t run)
      : stride_(PLANES * call.words() * WORD + 64), bytes_(call.batch * stride_), steps_(call.batch) {
    for_rows(call.batch, 1, call.batch * call.in < WORTH ? 1 : call.threads, [&](int64_t b, int64_t) {
      fill(call.x + b * call.in, call.in, call.words() * WORD, run, b);
    });
  }
  const uint8_t* row(int64_t b) const { return bytes_.get() + b * stride_; }
  const float* steps() const { return steps_.get(); }

 private:
  static constexpr int64_t WORTH = 1 << 15;  // activations that are worth another thread

  void fill(const float* x, int64_t in, int64_t padded, int64_t run, int64_t b) {
    const Grid<PLANES> grid(x, in);
    steps_.get()[b] = grid.step;
    uint8_t* to = bytes_.get() + b * stride_;
    for (int64_t first = 0; first < padded; first += run, to += PLANES * run)
      for (int64_t k = 0; k < run; k += LANES) {
        const Whole level = grid.levels(x + first + k, in - first - k) + OFFSET<PLANES>;
        for (int plane = 0; plane < PLANES; plane++) {
          const Bytes bytes = low_bytes(PLANES == 1 ? level : level >> (7 * plane) & 127);
          memcpy(to + plane * run + k, &bytes, sizeof bytes);
        }
      }
  }
  int64_t stride_;
  Buffer<uint8_t> bytes_;
  Buffer<float> steps_;
};

// Calls f with what a kernel of floats multiplies: where activations have 8 bits, with what their levels stand for.
template <class F>
void with_rounded(const Call& call, F f) {
  if (!call.rounds()) return f(call);
  const Buffer<float> rounded(call.batch * call.in);
  for_rows(call.batch, 1, call.threads, [&](int64_t b, int64_t) {
    const float* x = call.x + b * call.in;
    const Grid<1> grid(x, call.in);
    for (int64_t k = 0; k < call.in; k += LANES) {
      const int64_t held = call.in - k < LANES ? call.in - k : LANES;
      const Lanes some = __builtin_convertvector(grid.levels(x + k, held), Lanes) * grid.step;
      memcpy(rounded.get() + b * call.in + k, &some, held * sizeof(float));
    }
  });
  Call own = call;
  own.x = rounded.get();
  f(own);
}

// Calls f with as many planes as activations have.
template <class F>
void by_planes(const Call& call, F f) {
  return call.activations == 8 ? f(std::integral_constant<int, 1>()) : f(std::integral_constant<int, 2>());
}

#if defined(__AVX512VNNI__)
// Sums of four neighbouring products of unsigned and signed bytes, added to 32-bit sums. Of the intrinsic GCC 12 copies every
// sum of a loop to another register and back.
template <int PLANES, class Codes>
inline Codes dot(Codes sums, Codes bytes, Codes codes) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(bytes), "vm"(codes));
  return sums;
}
#elif defined(__AVX2__)
// Of two signed bytes the code gives its sign to the level, which is never -128, as a code may be.
template <int PLANES>
inline __m256i dot(__m256i sums, __m256i bytes, __m256i codes) {
  const __m256i pairs = PLANES == 1 ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(bytes, codes))
                                    : _mm256_maddubs_epi16(bytes, codes);
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
