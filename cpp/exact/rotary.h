// Angles of rotary embeddings.
#pragma once

#include "exact/trigonometry.h"

namespace cosmic::COSMIC_TARGET {

// scaling * cos and sin of 16 angles
inline COSMIC_CALL void turn(F64 angles, double scaling, double *cos, double *sin) {
  const SinCos turned = sin_cos(angles);
  (turned.cos * F64::splat(scaling)).store(cos);
  (turned.sin * F64::splat(scaling)).store(sin);
}

template <class Real> void rotary_row(double position, const double *frequencies, int64_t half,
                                      double scaling, Real *cos, Real *sin) {
  for_each_group_of(half, [&](int64_t k, auto group) COSMIC_LAMBDA {
    alignas(64) double wide_cos[kLanes], wide_sin[kLanes];
    turn(F64::splat(position) * group.load(frequencies + k), scaling, wide_cos, wide_sin);
    const auto c = narrow_to<Real>(F64::load(wide_cos)), s = narrow_to<Real>(F64::load(wide_sin));
    group.store(c, cos + k), group.store(c, cos + half + k);
    group.store(s, sin + k), group.store(s, sin + half + k);
  });
}

inline void inverse_frequencies(double base, int64_t count, double *out) {
  const F64 exponent = negative(log(F64::splat(base)));
  for_each_group_of(count, [&](int64_t k, auto group) COSMIC_LAMBDA {
    const F64 number = numbers_of_lanes<double>() + F64::splat((double)k);
    group.store(exp(number / F64::splat((double)count) * exponent), out + k);
  });
}

} // namespace cosmic::COSMIC_TARGET
