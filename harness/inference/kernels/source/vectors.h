// Vectors of N floats and stored values read as floats, for AVX-512, AVX2 and any other processor.
#pragma once
#include <cmath>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#include "call.h"

template <int N> struct Vector { typedef float type __attribute__((vector_size(N * 4))); };
template <int N> using Floats = typename Vector<N>::type;

#if defined(__AVX512F__)
constexpr int LANES = 16;
#else
constexpr int LANES = 8;  // without AVX the compiler makes two or more registers of it
#endif
using Lanes = Floats<LANES>;
typedef int32_t Whole __attribute__((vector_size(LANES * 4)));
typedef uint8_t Bytes __attribute__((vector_size(LANES)));

// The nearest whole numbers, of a tie the even one.
inline Whole nearest(Lanes v) {
#if defined(__AVX512F__)
  return (Whole)_mm512_cvtps_epi32((__m512)v);
#elif defined(__AVX2__)
  return (Whole)_mm256_cvtps_epi32((__m256)v);
#else
  Whole result;
  for (int lane = 0; lane < LANES; lane++) result[lane] = (int32_t)std::nearbyint(v[lane]);
  return result;
#endif
}

// The low byte of each; for AVX2 the compiler would take every lane out by itself.
inline Bytes low_bytes(Whole v) {
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i fours = _mm256_shuffle_epi8((__m256i)v, _mm256_set1_epi32(0x0c080400));
  const __m256i eight = _mm256_permutevar8x32_epi32(fours, _mm256_set_epi32(0, 0, 0, 0, 0, 0, 4, 0));
  return (Bytes)_mm_cvtsi128_si64(_mm256_castsi256_si128(eight));
#else
  return __builtin_convertvector(v, Bytes);
#endif
}

inline float to_float(float value) { return value; }
inline float to_float(int8_t value) { return value; }
inline float to_float(BFloat value) {
  const uint32_t bits = (uint32_t)value.bits << 16;
  float result;
  memcpy(&result, &bits, 4);
  return result;
}
inline float to_float(Half value) {
  // Exponent and mantissa in the places of a float, then a factor of 2^112 makes good the other bias, subnormals too.
  const uint32_t magnitude = (uint32_t)(value.bits & 0x7fff) << 13, sign = (uint32_t)(value.bits & 0x8000) << 16;
  float result;
  memcpy(&result, &magnitude, 4);
  result *= 0x1p112f;
  uint32_t bits;
  memcpy(&bits, &result, 4);
  bits |= sign;
  memcpy(&result, &bits, 4);
  return result;
}

template <int N, class V>
inline Floats<N> load(const V* p) {
  Floats<N> result;
  if constexpr (sizeof(V) == 4) {
    memcpy(&result, p, sizeof result);
  } else {
    for (int i = 0; i < N; i++) result[i] = to_float(p[i]);
  }
  return result;
}

#if defined(__AVX2__)
template <> inline Floats<8> load<8>(const BFloat* p) {
  return (Floats<8>)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
}
template <> inline Floats<8> load<8>(const Half* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
template <> inline Floats<8> load<8>(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
#endif
#if defined(__AVX512F__)
template <> inline Floats<16> load<16>(const BFloat* p) {
  return (Floats<16>)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
}
template <> inline Floats<16> load<16>(const Half* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
template <> inline Floats<16> load<16>(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
#endif

// The even or the odd ones of 2 x LANES values.
inline Lanes of_pair(const void* p, bool odd) {
  typedef uint32_t Bits __attribute__((vector_size(sizeof(Lanes))));
  Bits both;
  memcpy(&both, p, sizeof both);
  return (Lanes)(odd ? both & 0xffff0000u : both << 16);
}

inline float sum(Floats<8> v) {
#if defined(__AVX2__)
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#else
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
#endif
}
#if defined(__AVX512F__)
inline float sum(Floats<16> v) { return _mm512_reduce_add_ps(v); }
#endif

// Memory is asked for so many bytes ahead. Where a pair of streams goes on for many rows: a little, into the first cache.
// Where streams take turns: far, into the second, so that the first one's few places for lines on their way stay free, and
// once more when they are near, into the first.
constexpr int64_t NEAR = 512, AHEAD = 2048, FAR = 8192;
template <class V>
inline void fetch(const V* p, int64_t line = 0) { __builtin_prefetch((const char*)p + AHEAD + line); }
template <class V>
inline void fetch_far(const V* p, int64_t line = 0) {
  __builtin_prefetch((const char*)p + FAR + line, 0, 2);
  __builtin_prefetch((const char*)p + NEAR + line);
}
