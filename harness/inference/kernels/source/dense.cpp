// Dense weights in any precision: what a product costs when nothing is left out.
// Tensors: values [out, words x 64].
#include "rows.h"

namespace {

template <class V, bool PAIR>
class Cursor {
 public:
  static constexpr bool PAIRED = PAIR && std::is_same_v<V, BFloat>;
  explicit Cursor(const V* values) : p_(values) {}
  Lanes floats(int j) const {
    if constexpr (PAIRED)
      return of_pair(p_ + j / 2 * 2 * LANES, j % 2);
    else
      return load<LANES>(p_ + j * LANES);
  }
#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
  using Codes = __m512i;
  Codes codes(int j) const { return _mm512_loadu_si512(p_ + j * 64); }
#elif defined(__AVX2__)
  using Codes = __m256i;
  Codes codes(int j) const { return _mm256_loadu_si256((const __m256i*)(p_ + j * 32)); }
#endif
  void next() {
    for (int64_t line = 0; line < (int64_t)(WORD * sizeof(V)); line += 64) fetch(p_, line);
    p_ += WORD;
  }

 private:
  const V* p_;
};

template <class V, bool PAIR>
auto at_row(const Call& call) {
  return [values = (const V*)call.tensors[0], stride = call.words() * WORD](int64_t row) {
    return Cursor<V, PAIR>(values + row * stride);
  };
}

}  // namespace

extern "C" void multiply(const Call* call) {
#if defined(__AVX2__)
  if (call->precision == INT8) return multiply_codes(*call, at_row<int8_t, true>(*call));
#endif
  by_precision(call->precision, [&](auto* type) { multiply_floats(*call, at_row<std::decay_t<decltype(*type)>, true>(*call)); });
}

extern "C" void expand(const Call* call, int64_t begin, int64_t end, float* to) {
  by_precision(call->precision, [&](auto* type) { expand_rows(*call, begin, end, to, at_row<std::decay_t<decltype(*type)>, false>(*call)); });
}
