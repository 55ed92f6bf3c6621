// Each weight with its column. One row of activations is gathered from; a batch is multiplied side by side.
// Tensors: columns, values, rows [out + 1].
#include "entries.h"
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

}  // namespace

extern "C" void multiply(const Matrix* matrix, const float* x, float* y, int64_t batch, int32_t threads) {
  const Call call(*matrix, x, y, batch, threads);
  with_rounded(call, [](const Call& own) {
    by_precision(own.precision, [&](auto* type) {
      using V = std::decay_t<decltype(*type)>;
      const Entries<V> entries(own, 0);
      if (own.batch > DECODE) return multiply_columns(own, [&](int64_t row) { return entries.row(row); });
      by_batch(own, [](const Call& part) { multiply_by<V>(part); });
    });
  });
}
