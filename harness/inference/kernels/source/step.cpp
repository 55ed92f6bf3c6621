// One decode step of a stack of blocks in one call: a program of a few operations over rows of activations.
// Python writes the program in native/program.py; both describe the same structures.
#include <cfloat>
#include <type_traits>
#include "activations.h"

namespace {

enum Kind : int64_t { NORM, PRODUCT, ADD, ROTATE, ATTEND, ACTIVATE };
enum Norm : int64_t { RMS, LAYER };
enum Function : int64_t { SILU, RELU, GELU, GELU_TANH };
constexpr int64_t ABSENT = -1;
constexpr int64_t WORTH = 1 << 16;  // multiplications that are worth another thread

// Some columns of a register: [batch, width] floats that begin at batch x start.
struct View { int64_t start, width, column; };

struct Op {
  int64_t kind, mode;
  View a, b, c, to;
  int64_t heads, shared, dim, layer;  // shared: heads of keys and values
  const float *weight, *bias;
  const Matrix* matrix;
  void (*multiply)(const Matrix*, const float*, float*, int64_t, int32_t);
  double value;
};

// One layer's keys and values, [batch, heads, room, dim], and how many of the room are filled.
struct Cached {
  float *keys, *values;
  int64_t batch, head, length;  // floats from one row, and from one head, to the next
};

// What may be attended to: bytes or 64-bit numbers, [batch, length], 0 for what may not. Null: everything.
struct Mask {
  const void* kept;
  int64_t width, bytes;
  bool operator()(int64_t b, int64_t j) const {
    if (!kept) return true;
    const int64_t place = b * width + j;
    return bytes == 1 ? ((const uint8_t*)kept)[place] != 0 : ((const int64_t*)kept)[place] != 0;
  }
};

}  // namespace

struct Step {
  const Op* ops;
  int64_t count, size, threads, batch;  // size: floats of all registers for one row
  View from, result;
  const float* x;
  float* y;
  const Cached *own, *crossed;  // by layer
  Mask mask, crossed_mask;
  const int64_t* positions;  // [batch], rows of cosines and sines
  const float *cosines, *sines;  // [positions, dim]
  const float* distances;  // [heads, reach]: what is added to the score of a key so many tokens before; null: nothing
  int64_t reach;
};

namespace {

// e^x to about 2 units in the last place, 0 below -87: 2^k e^r with |r| <= ln 2 / 2 (Cephes' polynomial).
inline Lanes exponential(Lanes x) {
  typedef int32_t Bits __attribute__((vector_size(sizeof(Lanes))));
  constexpr float ROUND = 0x1.8p23f;  // added to a number, it leaves the nearest integer in the low bits
  const Lanes low = Lanes{} - 87.f, high = Lanes{} + 88.f, zero = {};
  const Lanes held = x < low ? low : x > high ? high : x, shifted = held * 1.44269504f + ROUND, k = shifted - ROUND;
  const Lanes r = held - k * 0.693359375f + k * 2.12194440e-4f;
  Lanes y = r * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * r * r + r + 1.f;
  Bits power;
  memcpy(&power, &shifted, sizeof power);
  power = (power << 23) + 0x3f800000;
  Lanes scale;
  memcpy(&scale, &power, sizeof scale);
  return x < low ? zero : y * scale;
}

template <class F>
inline void map(const float* x, float* y, int64_t count, F f) {
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const Lanes value = f(load<LANES>(x + i));
    memcpy(y + i, &value, sizeof value);
  }
  if (i < count) {
    float rest[LANES] = {};
    memcpy(rest, x + i, (count - i) * sizeof(float));
    const Lanes value = f(load<LANES>(rest));
    memcpy(y + i, &value, (count - i) * sizeof(float));
  }
}

template <class F>
inline float total(int64_t count, F of) {
  Lanes part[4] = {};
  int64_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES)
    for (int j = 0; j < 4; j++) part[j] += of(i + j * LANES, std::integral_constant<int, LANES>());
  float rest = 0;
  for (; i < count; i++) rest += of(i, std::integral_constant<int, 1>());
  return rest + sum((part[0] + part[1]) + (part[2] + part[3]));
}

template <int N>
inline auto at(const float* p) {
  if constexpr (N == 1) return *p;
  else return load<N>(p);
}

inline float dot(const float* a, const float* b, int64_t count) {
  return total(count, [&](int64_t i, auto n) { return at<n.value>(a + i) * at<n.value>(b + i); });
}

class Run {
 public:
  explicit Run(const Step& step) : step_(step), rows_(step.batch * step.size) {}

  void operator()() const {
    each(step_.from, [&](int64_t b, float* row) { memcpy(row, step_.x + b * step_.from.width, step_.from.width * sizeof(float)); });
    for (int64_t i = 0; i < step_.count; i++) run(step_.ops[i]);
    each(step_.result, [&](int64_t b, float* row) { memcpy(step_.y + b * step_.result.width, row, step_.result.width * sizeof(float)); });
  }

 private:
  float* row(const View& view, int64_t b) const {
    return rows_.get() + step_.batch * view.start + b * view.width + view.column;
  }
  template <class F>
  void each(const View& view, F f) const {
    for (int64_t b = 0; b < step_.batch; b++) f(b, row(view, b));
  }

  void run(const Op& op) const {
    switch (op.kind) {
      case NORM: return each(op.to, [&](int64_t b, float* to) { norm(op, row(op.a, b), to); });
      case PRODUCT: return product(op);
      case ADD: return each(op.to, [&](int64_t b, float* to) { add(row(op.a, b), to, op.dim); });
      case ROTATE: return each(op.to, [&](int64_t b, float* to) { rotate(op, b, to); });
      case ATTEND: return attend(op);
      default: return each(op.to, [&](int64_t b, float* to) { activate(op, row(op.a, b), op.b.start == ABSENT ? nullptr : row(op.b, b), to); });
    }
  }

  // Each head, or the whole row as the only one, by itself.
  static void norm(const Op& op, const float* x, float* to) {
    for (int64_t head = 0; head < op.heads; head++, x += op.dim, to += op.dim) {
      const float mean = op.mode == RMS ? 0 : total(op.dim, [&](int64_t i, auto n) { return at<n.value>(x + i); }) / op.dim;
      const float squares = total(op.dim, [&](int64_t i, auto n) {
        const auto off = at<n.value>(x + i) - mean;
        return off * off;
      });
      const float scale = (float)(1 / std::sqrt(squares / op.dim + op.value));
      for (int64_t i = 0; i < op.dim; i++) {
        const float value = (x[i] - mean) * scale;
        to[i] = (op.weight ? value * op.weight[i] : value) + (op.bias ? op.bias[i] : 0);
      }
    }
  }

  void product(const Op& op) const {
    op.multiply(op.matrix, row(op.a, 0), row(op.to, 0), step_.batch, (int32_t)step_.threads);
  }

  static void add(const float* x, float* to, int64_t count) {
    for (int64_t i = 0; i < count; i++) to[i] += x[i];
  }

  // (u, v) -> (u cos - v sin, v cos + u sin) for the first and the second half of each head.
  void rotate(const Op& op, int64_t b, float* x) const {
    const int64_t half = op.dim / 2;
    const float *cosines = step_.cosines + step_.positions[b] * op.dim, *sines = step_.sines + step_.positions[b] * op.dim;
    for (int64_t head = 0; head < op.heads; head++, x += op.dim)
      for (int64_t i = 0; i < half; i++) {
        const float u = x[i], v = x[half + i];
        x[i] = u * cosines[i] - v * sines[i];
        x[half + i] = v * cosines[half + i] + u * sines[half + i];
      }
  }

  void activate(const Op& op, const float* x, const float* gated, float* to) const {
    switch (op.mode) {
      case SILU: map(x, to, op.dim, [](Lanes v) { return v / (1.f + exponential(-v)); }); break;
      case RELU: map(x, to, op.dim, [](Lanes v) { return v < 0 ? Lanes{} : v; }); break;
      case GELU:
        for (int64_t i = 0; i < op.dim; i++) to[i] = 0.5f * x[i] * (1.f + std::erf(x[i] * 0.70710678f));
        break;
      default:  // x (1 + tanh u) / 2 = x - x / (e^2u + 1)
        map(x, to, op.dim, [](Lanes v) { return v - v / (exponential(1.59576912f * (v + 0.044715f * v * v * v)) + 1.f); });
    }
    if (gated)
      for (int64_t i = 0; i < op.dim; i++) to[i] *= gated[i];
  }

  // One query a head. Of its own layer's, the new key and value are appended first; those of an encoder are there.
  void attend(const Op& op) const {
    const bool own = op.b.start != ABSENT;
    Cached cached = own ? step_.own[op.layer] : step_.crossed[op.layer];
    if (own) {
      for (int64_t b = 0; b < step_.batch; b++)
        for (int64_t head = 0; head < op.shared; head++) {
          const int64_t place = b * cached.batch + head * cached.head + cached.length * op.dim;
          memcpy(cached.keys + place, row(op.b, b) + head * op.dim, op.dim * sizeof(float));
          memcpy(cached.values + place, row(op.c, b) + head * op.dim, op.dim * sizeof(float));
        }
      cached.length++;
    }
    const int64_t tasks = step_.batch * op.heads, work = 1 + tasks * cached.length * op.dim / WORTH;
    for_rows(tasks, 1, (int)(work < step_.threads ? work : step_.threads), [&](int64_t task, int64_t) {
      const int64_t b = task / op.heads, head = task % op.heads, group = head / (op.heads / op.shared);
      const int64_t place = b * cached.batch + group * cached.head;
      const float* distances = own && step_.distances ? step_.distances + head * step_.reach + cached.length - 1 : nullptr;
      const auto bias = [&](int64_t j) { return distances ? distances[-j] : 0.f; };
      attend_one(row(op.a, b) + head * op.dim, cached.keys + place, cached.values + place, cached.length, op.dim, (float)op.value,
                 own ? step_.mask : step_.crossed_mask, b, bias, row(op.to, b) + head * op.dim);
    });
  }

  template <class Bias>
  static void attend_one(const float* query, const float* keys, const float* values, int64_t length, int64_t dim, float scale,
                         const Mask& mask, int64_t b, Bias bias, float* to) {
    const Buffer<float> held(length);
    float *scores = held.get(), most = -FLT_MAX;
    for (int64_t j = 0; j < length; j++) {
      scores[j] = mask(b, j) ? dot(query, keys + j * dim, dim) * scale + bias(j) : -FLT_MAX;
      most = scores[j] > most || std::isnan(scores[j]) ? scores[j] : most;
    }
    map(scores, scores, length, [&](Lanes v) { return exponential(v - most); });
    const float inverse = 1 / total(length, [&](int64_t j, auto n) { return at<n.value>(scores + j); });
    int64_t i = 0;
    for (; i + 4 * LANES <= dim; i += 4 * LANES) mix<4 * LANES>(scores, values + i, length, dim, inverse, to + i);
    for (; i + LANES <= dim; i += LANES) mix<LANES>(scores, values + i, length, dim, inverse, to + i);
    for (; i < dim; i++) mix<1>(scores, values + i, length, dim, inverse, to + i);
  }

  // `N` columns of the values, weighted by the scores.
  template <int N>
  static void mix(const float* scores, const float* values, int64_t length, int64_t dim, float inverse, float* to) {
    constexpr int WIDE = N == 1 ? 1 : LANES, PARTS = N / WIDE;
    std::decay_t<decltype(at<WIDE>(values))> part[PARTS] = {};
    for (int64_t j = 0; j < length; j++)
      for (int p = 0; p < PARTS; p++) part[p] += scores[j] * at<WIDE>(values + j * dim + p * WIDE);
    for (int p = 0; p < PARTS; p++) {
      part[p] *= inverse;
      memcpy(to + p * WIDE, &part[p], sizeof part[p]);
    }
  }

  const Step& step_;
  Buffer<float> rows_;
};

}  // namespace

extern "C" void step(const Step* given) {
  const Run run(*given);
  run();
}
