// A bit a weight, and the weights that are not zero one after another: taken out in order, each into its bit's place.
// Tensors: mask [out, words], values, rows [out + 1].
#include "expand.h"
#include "product.h"

namespace {

#if defined(__AVX512F__)

// vpexpand takes the mask's bits as they are. Loads are whole vectors: the format keeps 64 zeros behind the values.
inline Lanes expand(const float* p, __mmask16 bits) { return _mm512_maskz_expand_ps(bits, _mm512_loadu_ps(p)); }
inline __m256i expand_words(const void* p, __mmask16 bits) {
  return _mm256_maskz_expand_epi16(bits, _mm256_loadu_si256((const __m256i*)p));
}
inline Lanes expand(const Half* p, __mmask16 bits) { return _mm512_cvtph_ps(expand_words(p, bits)); }
inline Lanes expand(const BFloat* p, __mmask16 bits) {
  return (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32(expand_words(p, bits)), 16);
}
inline Lanes expand(const int8_t* p, __mmask16 bits) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_expand_epi8(bits, _mm_loadu_si128((const __m128i*)p))));
}

#elif defined(__AVX2__)

// For each byte of the mask, where each byte of eight floats comes from; 0x80 makes a zero. Of sixteen codes, those of the
// second byte come after as many as the first has: the sum of `bytes` of the first and `more_bytes` of the second.
struct Places {
  alignas(32) uint8_t floats[256][32], high_words[256][32], words[256][16], bytes[256][16], more_bytes[256][16];
  Places() {
    memset(this, 0x80, sizeof *this);
    for (int bits = 0; bits < 256; bits++)
      for (int lane = 0, rank = 0; lane < 8; lane++) {
        if (!(bits >> lane & 1)) continue;
        const int within = lane < 4 ? rank : rank - __builtin_popcount(bits & 15);
        for (int byte = 0; byte < 4; byte++) floats[bits][4 * lane + byte] = 4 * within + byte;
        for (int byte = 0; byte < 2; byte++) {
          high_words[bits][4 * lane + 2 + byte] = 2 * rank + byte;
          words[bits][2 * lane + byte] = 2 * rank + byte;
        }
        bytes[bits][lane] = more_bytes[bits][8 + lane] = rank++;
      }
    for (int bits = 0; bits < 256; bits++) {
      memset(bytes[bits] + 8, __builtin_popcount(bits), 8);
      memset(more_bytes[bits], 0, 8);
    }
  }
};
const Places places;

inline __m256i place(const uint8_t* table) { return _mm256_load_si256((const __m256i*)table); }
inline __m128i at(const void* p) { return _mm_loadu_si128((const __m128i*)p); }

// A byte shuffle stays within 16 bytes, so the upper four floats are read from where they begin.
inline Lanes expand(const float* p, uint32_t bits) {
  const __m256i both = _mm256_set_m128i(at(p + __builtin_popcount(bits & 15)), at(p));
  return (Lanes)_mm256_shuffle_epi8(both, place(places.floats[bits]));
}
inline Lanes expand(const BFloat* p, uint32_t bits) {
  return (Lanes)_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(at(p)), place(places.high_words[bits]));
}
inline Lanes expand(const Half* p, uint32_t bits) {
  return _mm256_cvtph_ps(_mm_shuffle_epi8(at(p), _mm_load_si128((const __m128i*)places.words[bits])));
}
// Sixteen codes.
inline __m128i expand_codes(const int8_t* p, const uint8_t* bits) {
  return _mm_shuffle_epi8(at(p), _mm_add_epi8(at(places.bytes[bits[0]]), at(places.more_bytes[bits[1]])));
}
inline Lanes expand(const int8_t* p, uint32_t bits) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_shuffle_epi8(at(p), at(places.bytes[bits]))));
}

#else

template <class V>
inline Lanes expand(const V* p, uint32_t bits) {
  Lanes result = {};
  for (int lane = 0; lane < LANES; lane++)
    if (bits >> lane & 1) result[lane] = to_float(*p++);
  return result;
}

#endif

template <class V>
class Cursor {
 public:
#if defined(__AVX512F__)
  static constexpr bool PAIRED = std::is_same_v<V, BFloat>;
#else
  static constexpr bool PAIRED = false;
#endif
  Cursor() = default;
  Cursor(const uint64_t* mask, const V* values) : mask_(mask), p_(values) {}
  // The j-th LANES of a word's weights; called once for each j in order.
#if defined(__AVX512F__)
  Lanes floats(int j) {
    if constexpr (PAIRED) {
      if (j % 2 == 0) pair_ = _mm512_maskz_expand_epi16(*mask_ >> (j * LANES), _mm512_loadu_si512(before(j)));
      return of_pair(&pair_, j % 2);
    }
    return expand(before(j), _load_mask16((__mmask16*)mask_ + j));
  }
#else
  Lanes floats(int j) {
    const uint32_t bits = *mask_ >> (j * LANES) & ((1u << LANES) - 1);
    const V* first = p_ + taken_;
    taken_ += __builtin_popcount(bits);
    return expand(first, bits);
  }
#endif
#if defined(__AVX512VNNI__)
  static constexpr bool CODES = true;
  static constexpr int PARTS = 1, CHAINS = 2;
  using Codes = __m512i;
  Codes codes(int) const { return _mm512_maskz_expand_epi8(*mask_, _mm512_loadu_si512(p_)); }
#elif defined(__AVX2__)
  static constexpr bool CODES = true;
  static constexpr int PARTS = 1, CHAINS = 1;
  using Codes = __m256i;
  Codes codes(int j) const {
    const auto part = [&](int k) {
      const V* first = k ? p_ + __builtin_popcountll(*mask_ << (WORD - 16 * k)) : p_;
      return expand_codes(first, (const uint8_t*)mask_ + 2 * k);
    };
    return _mm256_set_m128i(part(2 * j + 1), part(2 * j));
  }
#else
  static constexpr bool CODES = false;
#endif
  const V* values() const { return p_; }
  void next() {
    p_ += __builtin_popcountll(*mask_);
#if !defined(__AVX512F__)
    taken_ = 0;
#endif
    mask_++;
    // As many lines as half of a word's values fill: at higher sparsities some are asked for twice, at lower ones not.
    for (int64_t line = 0; line < (int64_t)(WORD / 2 * sizeof(V)); line += 64) fetch(p_, line);
    if ((uintptr_t)mask_ % 64 == 0) fetch(mask_);
  }

 private:
  const uint64_t* mask_;
  const V* p_;
#if defined(__AVX512F__)
  // Where the values of the j-th LANES columns begin.
  const V* before(int j) const { return j ? p_ + __builtin_popcountll(*mask_ << (WORD - j * LANES)) : p_; }
  __m512i pair_;
#else
  int64_t taken_ = 0;  // of the word's values
#endif
};

// A row's weights one by one.
template <class V>
struct Row {
  const uint64_t* mask;
  const V* p;

  template <class F>
  void word(int64_t word, float scale, F f) {
    uint64_t bits = mask[word];
    const int64_t taken = __builtin_popcountll(bits);
    float weights[WORD];
    scaled(p, taken, scale, weights);
    p += taken;
    __builtin_prefetch((const char*)p + 128);
    for (const float* weight = weights; bits; bits &= bits - 1) f(__builtin_ctzll(bits), *weight++);
  }
};

// A matrix by its rows: words at a time, or weights one by one.
template <class V>
struct Stored {
  const uint64_t* mask;
  const V* values;
  const int64_t* rows;
  int64_t words;

  explicit Stored(const Call& call)
      : mask((const uint64_t*)call.tensors[0]),
        values((const V*)call.tensors[1]),
        rows((const int64_t*)call.tensors[2]),
        words(call.words()) {}
  Cursor<V> cursor(int64_t row) const { return Cursor<V>(mask + row * words, values + rows[row]); }
  Row<V> row(int64_t row) const { return Row<V>{mask + row * words, values + rows[row]}; }
};

}  // namespace

extern "C" void multiply(const Matrix* matrix, const float* x, float* y, int64_t batch, int32_t threads) {
  const Call call(*matrix, x, y, batch, threads);
  by_precision(call.precision, [&](auto* type) {
    using V = std::decay_t<decltype(*type)>;
    const Stored<V> stored(call);
    const double share = (double)stored.rows[call.out] / (double)(call.out * call.in);
    multiply_in_order<V>(
        call, share, [=](int64_t row) { return stored.cursor(row); }, [=](int64_t row) { return stored.row(row); });
  });
}

extern "C" void expand(const Matrix* matrix, int64_t first, int64_t last, float* to, int32_t threads) {
  const Call call(*matrix, nullptr, nullptr, 0, threads);
  by_precision(call.precision, [&](auto* type) {
    using V = std::decay_t<decltype(*type)>;
    const Stored<V> stored(call);
    expand_in_order(call, first, last, to, [=](int64_t row) { return stored.cursor(row); });
  });
}
