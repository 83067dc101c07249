// Random numbers of a tensor's elements from a counter: of a key of 64 bits and the element's
// index, so that they depend neither on the dtype nor on how the tensor is cut.
#pragma once

#include "exact/exact_kernels.h"
#include "exact/trigonometry.h"

namespace cosmic::COSMIC_TARGET {

COSMIC_INLINE I32 hash32(I32 x) { // as codecs/random.h, on lanes
  x = multiply(x ^ shift_right<16>(x), I32::splat(0x7feb352d));
  x = multiply(x ^ shift_right<15>(x), I32::splat((int32_t)0x846ca68bu));
  return x ^ shift_right<16>(x);
}

// 32 random bits an element: hash(hash(index ^ first) + second), both words from the key, from
// which of an element's numbers it is, and from the upper half of the index.
struct CounterRandom {
  I32 first, second, lane_numbers;

  COSMIC_METHOD CounterRandom(const CounterRun &run, uint32_t number) {
    const auto upper = (uint32_t)((uint64_t)run.first >> 32);
    const uint32_t low = hash32((uint32_t)run.key + number * kWeyl);
    const uint32_t high = hash32((uint32_t)(run.key >> 32) ^ hash32(low + upper * kWeyl));
    first = I32::splat((int32_t)low);
    second = I32::splat((int32_t)high);
    lane_numbers = weyl_lanes<1>();
  }
  // of 16 elements from `index` on
  COSMIC_METHOD I32 of(int64_t index) const {
    const I32 counter = lane_numbers + I32::splat((int32_t)(uint32_t)index);
    return hash32(hash32(counter ^ first) + second);
  }
};

template <class Real>
void dropout_run(const CounterRun &run, int32_t threshold, double scale, const Real *x, Real *out) {
  using V = Lanes<Real>;
  const CounterRandom random(run, 0);
  const V factor = V::splat((Real)scale);
  for_each_group_of(run.count, [&](int64_t k, auto group) COSMIC_LAMBDA {
    const I32 dropped = where_greater(I32::splat(threshold), random.of(run.first + k),
                                      I32::splat(1), I32::splat(0));
    const V zero = V::splat(Real(0));
    const V lanes = narrow_to<Real>(widen(to_float(dropped)));
    group.store(where_greater(lanes, zero, zero, group.load(x + k) * factor), out + k);
  });
}

// The lanes as doubles in [0, 2^32).
COSMIC_INLINE F64 as_unsigned(I32 bits) {
  alignas(64) uint32_t words[kLanes];
  alignas(64) double lanes[kLanes];
  bits.store((int32_t *)words);
  for (int k = 0; k < kLanes; ++k) lanes[k] = words[k];
  return F64::load(lanes);
}

// Both of an element's numbers, and how 16 doubles are made of them.
struct TwoNumbers {
  CounterRandom first, second;

  COSMIC_METHOD explicit TwoNumbers(const CounterRun &run) : first(run, 0), second(run, 1) {}

  // multiples of 2^-53 in [0, 1)
  COSMIC_CALL void uniform(int64_t index, double *to) const {
    (as_unsigned(first.of(index)) * F64::splat(0x1p-32) +
     as_unsigned(shift_right<11>(second.of(index))) * F64::splat(0x1p-53))
        .store(to);
  }
  // sqrt(-2 ln(u)) cos(2 pi w), u and w multiples of 2^-32 in (0, 1] and [0, 1): up to 6.66
  // standard deviations (Box and Muller 1958)
  COSMIC_CALL void normal(int64_t index, double *to) const {
    constexpr double kTurn = 0x1.921fb54442d18p+2;
    const F64 u = (as_unsigned(first.of(index)) + F64::splat(1)) * F64::splat(0x1p-32);
    const F64 w = as_unsigned(second.of(index)) * F64::splat(0x1p-32 * kTurn);
    const F64 size = sqrt(abs(F64::splat(2) * natural_log(u))); // the logarithm is not positive
    (size * sin_cos(w).cos).store(to);
  }
};

// low + (high - low) u
template <class Real> void uniform_run(const CounterRun &run, double low, double high, Real *out) {
  const TwoNumbers random(run);
  for_each_group_of(run.count, [&](int64_t k, auto group) COSMIC_LAMBDA {
    alignas(64) double u[kLanes];
    random.uniform(run.first + k, u);
    group.store(narrow_to<Real>(F64::splat(low) + F64::splat(high - low) * F64::load(u)), out + k);
  });
}

// mean + std z
template <class Real> void normal_run(const CounterRun &run, double mean, double std, Real *out) {
  const TwoNumbers random(run);
  for_each_group_of(run.count, [&](int64_t k, auto group) COSMIC_LAMBDA {
    alignas(64) double z[kLanes];
    random.normal(run.first + k, z);
    group.store(narrow_to<Real>(F64::splat(mean) + F64::splat(std) * F64::load(z)), out + k);
  });
}

} // namespace cosmic::COSMIC_TARGET
