// Sine and cosine in double, to 3e-16 for |x| up to 2^24. Fits as in elementary.h.
#pragma once

#include "exact/elementary.h"

namespace cosmic::COSMIC_TARGET {

// (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4 as functions of r^2, for |r| <= pi / 4.
constexpr double kSinTerms[] = {
    -0.16666666666666666,  0.008333333333330827,    -0.0001984126983657571,
    2.755731600817155e-06, -2.5051112272573243e-08, 1.5916726193889336e-10,
};
constexpr double kCosTerms[] = {
    0.041666666666666664,   -0.0013888888888887322, 2.4801587298651292e-05,
    -2.755731721268659e-07, 2.0876134024090145e-09, -1.1381754653662937e-11,
};

struct SinCos {
  F64 sin, cos;
};

COSMIC_INLINE SinCos sin_cos(F64 x) {
  using F = Format<double>;
  // quarters of a turn, of which whole multiples below 2^24 are exact in the first two parts
  constexpr double kQuarter = 0x1.921fb54p+0, kRest = 0x1.10b4612p-30,
                   kLast = -0x1.676733ae8fe48p-60;
  const F64 to_integer = F64::splat(F::kToInteger);
  const F64 shifted = x * F64::splat(0x1.45f306dc9c883p-1) + to_integer, n = shifted - to_integer;
  const F64 r = ((x - n * F64::splat(kQuarter)) - n * F64::splat(kRest)) - n * F64::splat(kLast);
  const F64 r2 = r * r;
  const F64 sin = r + r * r2 * polynomial(kSinTerms, r2);
  const F64 cos = F64::splat(1) - (F64::splat(0.5) * r2 - r2 * r2 * polynomial(kCosTerms, r2));
  const U64 quadrant = as_int(shifted) - U64::splat(F::kToIntegerBits);
  // 1 in odd quadrants, where sine and cosine change places
  const F64 odd =
      as_float((quadrant & U64::splat(1)) | U64::splat(0x4330000000000000)) - F64::splat(0x1p52);
  const F64 half = F64::splat(0.5);
  const auto signed_by = [](F64 y, U64 bit_of_two) COSMIC_LAMBDA {
    return as_float(as_int(y) ^ shift_left<62>(bit_of_two & U64::splat(2)));
  };
  return {signed_by(where_greater(odd, half, cos, sin), quadrant),
          signed_by(where_greater(odd, half, sin, cos), quadrant + U64::splat(1))};
}

} // namespace cosmic::COSMIC_TARGET
