// Which way a batch is multiplied in a format that gives a row's weights in order, `at(row)` a cursor and `one(row)` one by
// one, or null: int8 with activations of bytes where the cursor gives codes, else in floats. In up to so many PARTS as
// registers hold a batch reads the codes anew for each part: it costs less than a block if they need not be put in their
// places. In floats, more rows of activations than registers hold are multiplied in panels, or weight by weight where few
// weights are stored; the last few, which would leave most of a vector empty, by themselves.
#pragma once
#include <cstddef>
#include "blocks.h"
#include "panels.h"
#include "wide.h"

// Weights that are not zero, as a share, from which on two planes of bytes are faster for many rows than floats.
constexpr double DENSE = 0.26;
// The share from which on weights are multiplied with the zeros between them, in panels: so much, less FEW / rows of activations.
constexpr double SHARE = LANES == 16 ? 0.5 : 0.72, FEW = 12;

template <class V, class At, class One>
void multiply_in_order(const Call& call, double share, At at, One one) {
#if defined(__AVX2__)
  if constexpr (std::is_same_v<V, int8_t> && decltype(at(0))::CODES) {
#if defined(__AVX512VNNI__)
    if (call.rounds() || call.batch <= DECODE || share > DENSE)
      return by_planes(call, [&](auto planes) {
        if (call.batch > decltype(at(0))::PARTS * REGISTERS / planes.value) return multiply_blocks<planes.value>(call, at);
        multiply_codes<planes.value>(call, at);
      });
#else
    if (call.batch <= DECODE)
      return by_planes(call, [&](auto planes) {
        by_batch(call, [&](const Call& part) { multiply_codes<planes.value>(part, at); });
      });
#endif
  }
#endif
  with_rounded(call, [&](const Call& own) {
    if (own.batch <= REGISTERS) return multiply_floats(own, at);
    if constexpr (!std::is_same_v<One, std::nullptr_t>)
      if (share < SHARE - FEW / own.batch) return multiply_columns(own, one);
    Call few = own;
    few.batch = own.batch > LANES && own.batch % LANES <= LANES / 4 ? own.batch % LANES : 0;
    multiply_panels(own, own.batch - few.batch, at);
    few.x += (own.batch - few.batch) * own.in, few.y += (own.batch - few.batch) * own.out;
    if (few.batch) multiply_floats(few, at);
  });
}
