// What every kernel is called with. Python fills the same `Matrix` in kernels/build.py.
#pragma once
#include <cstdint>

struct BFloat { uint16_t bits; };
struct Half { uint16_t bits; };

enum Precision : int32_t { FP32 = 0, BF16 = 1, FP16 = 2, INT8 = 3 };

constexpr int64_t WORD = 64;  // columns that are read together
constexpr int BATCH = 16;     // most rows of activations that a decode kernel takes at a time
constexpr int64_t DECODE = 32;  // most rows of activations for which it is used
constexpr int64_t MOST_STEP = 64;  // most rows of weights handed out together

// What is the same in every product with a matrix.
struct Matrix {
  const void* const* tensors;  // of the format, in its order
  const float* bias;           // [out] or null
  const float* scales;         // [out, groups], int8 only
  const int32_t* sums;         // [out, groups], int8 only, null where the format has none
  int64_t out, in, group;      // group: columns with a common scale
  int32_t precision, threads, slots, activations;  // threads: the most; activations: their bits with int8, 8 or 14
};

struct Call : Matrix {
  const float* x;  // [batch, in]
  float* y;        // [batch, out]
  int64_t batch;

  Call(const Matrix& matrix, const float* x, float* y, int64_t batch, int32_t most) : Matrix(matrix), x(x), y(y), batch(batch) {
    if (threads > most) threads = most;
  }
  bool rounds() const { return precision == INT8 && activations == 8; }

  int64_t groups() const { return in > 0 ? (in + group - 1) / group : 1; }
  int64_t words() const { return (in + WORD - 1) / WORD; }
  // Rows handed out together: many blocks a thread, but long ones, because memory asked for ahead of an end is wasted.
  int64_t step() const {
    const int64_t rows = out / (8 * threads) / 8 * 8;
    return rows < 8 ? 8 : rows > MOST_STEP ? MOST_STEP : rows;
  }
  float scale(int64_t row, int64_t g) const { return scales ? scales[row * groups() + g] : 1.f; }
  void store(int64_t row, int64_t b, float value) const { y[b * out + row] = bias ? value + bias[row] : value; }
};

// Calls f with a null pointer of the type that the precision's values are stored in.
template <class F>
void by_precision(int32_t precision, F f) {
  switch (precision) {
    case FP32: return f((const float*)nullptr);
    case BF16: return f((const BFloat*)nullptr);
    case FP16: return f((const Half*)nullptr);
    default: return f((const int8_t*)nullptr);
  }
}

// Rows are handed out in groups from a counter: with fixed shares one late thread would hold up the product.
template <class F>
void for_rows(int64_t rows, int64_t step, int threads, F f) {
  const int64_t blocks = (rows + step - 1) / step;
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t last = (block + 1) * step < rows ? (block + 1) * step : rows;
    f(block * step, last);
  }
}

// The batch in parts that a decode kernel takes at a time.
template <class F>
void by_batch(const Call& call, F f) {
  Call part = call;
  for (int64_t b = 0; b < call.batch; b += BATCH) {
    part.batch = call.batch - b < BATCH ? call.batch - b : BATCH;
    part.x = call.x + b * call.in;
    part.y = call.y + b * call.out;
    f(part);
  }
}
