// Dense weights in any precision: what a product costs when nothing is left out.
// Tensors: values [out, words x 64].
#include "expand.h"
#include "product.h"

namespace {

template <class V>
class Cursor {
 public:
  static constexpr bool PAIRED = std::is_same_v<V, BFloat>;
  static constexpr bool CODES = true;
  static constexpr int PARTS = 2, CHAINS = 2;
  Cursor() = default;
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
  const V* values() const { return p_; }
  void next() {
    for (int64_t line = 0; line < (int64_t)(WORD * sizeof(V)); line += 64) fetch(p_, line);
    p_ += WORD;
  }

 private:
  const V* p_;
};

template <class F>
void with_rows(const Call& call, F f) {
  by_precision(call.precision, [&](auto* type) {
    using V = std::decay_t<decltype(*type)>;
    const auto* values = (const V*)call.tensors[0];
    const int64_t stride = call.words() * WORD;
    f(type, [=](int64_t row) { return Cursor<V>(values + row * stride); });
  });
}

}  // namespace

extern "C" void expand(const Matrix* matrix, int64_t first, int64_t last, float* to, int32_t threads) {
  const Call call(*matrix, nullptr, nullptr, 0, threads);
  with_rows(call, [&](auto*, auto at) { expand_in_order(call, first, last, to, at); });
}

// No weight is multiplied by itself: there are no zeros to leave out.
extern "C" void multiply(const Matrix* matrix, const float* x, float* y, int64_t batch, int32_t threads) {
  const Call call(*matrix, x, y, batch, threads);
  with_rows(call, [&](auto* type, auto at) { multiply_in_order<std::decay_t<decltype(*type)>>(call, 1, at, nullptr); });
}
