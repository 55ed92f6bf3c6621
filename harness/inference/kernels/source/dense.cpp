// Dense weights in any precision: what a product costs when nothing is left out.
// Tensors: values [out, words x 64].
#include "product.h"

namespace {

template <class V>
class Cursor {
 public:
  static constexpr bool PAIRED = std::is_same_v<V, BFloat>;
  static constexpr bool CODES = true;
  static constexpr int PARTS = 2, CHAINS = 2;
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

// A row's weights one by one.
template <class V>
struct Row {
  const V* p;

  template <class F>
  void word(int64_t, float scale, F f) {
    float weights[WORD];
    scaled(p, WORD, scale, weights);
    p += WORD;
    for (int64_t k = 0; k < WORD; k++) f(k, weights[k]);
  }
};

}  // namespace

extern "C" void multiply(const Matrix* matrix, const float* x, float* y, int64_t batch, int32_t threads) {
  const Call call(*matrix, x, y, batch, threads);
  by_precision(call.precision, [&](auto* type) {
    using V = std::decay_t<decltype(*type)>;
    const auto* values = (const V*)call.tensors[0];
    const int64_t stride = call.words() * WORD;
    multiply_in_order<V>(
        call, 1, [=](int64_t row) { return Cursor<V>(values + row * stride); },
        [=](int64_t row) { return Row<V>{values + row * stride}; });
  });
}
