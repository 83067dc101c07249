// Exponential, logarithm, hyperbolic tangent and logistic function from IEEE operations alone: the
// same bits on every ISA and with every C library. Float results are within 2 units of the last
// place, double ones within 4e-16.
//
// The polynomials interpolate, at Chebyshev nodes of the interval and in 60 digits (mpmath), the
// function that is named beside them; coefficients are rounded to the type, lowest power first.
#pragma once

#include "exact/numbers.h"

namespace cosmic::COSMIC_TARGET {

// On the baseline, where lanes are many registers, whole functions are called: a third of the code.
#if defined(COSMIC_LANES_AVX512) || defined(COSMIC_LANES_AVX2) || defined(COSMIC_LANES_NEON)
#define COSMIC_ELEMENTARY COSMIC_INLINE
#else
#define COSMIC_ELEMENTARY static COSMIC_CALL
#endif

// Even and odd powers apart: two chains, which do not wait for each other.
template <int kFirst, class Real, int kTerms>
COSMIC_INLINE Lanes<Real> every_other_term(const Real (&c)[kTerms], Lanes<Real> x2) {
  const auto term = Lanes<Real>::splat(c[kFirst]);
  if constexpr (kFirst + 2 < kTerms)
    return every_other_term<kFirst + 2>(c, x2) * x2 + term;
  else
    return term;
}
template <class Real, int kTerms>
COSMIC_INLINE Lanes<Real> polynomial(const Real (&c)[kTerms], Lanes<Real> x) {
  const auto x2 = x * x;
  return every_other_term<1>(c, x2) * x + every_other_term<0>(c, x2);
}

// (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2, and ln(2) in two parts, of which whole multiples of the
// first are exact.
template <class Real> struct ExpFit;
template <> struct ExpFit<float> {
  static constexpr float kTerms[] = {0.5f, 0.16666576f, 0.041666552f, 0.008363233f, 0.001392625f};
  static constexpr float kLog2e = 0x1.715476p0f, kLn2 = 0x1.63p-1f, kLn2Rest = -0x1.bd0106p-13f;
  static constexpr float kLeast = -104, kMost = 89; // e^x is 0 below, infinite above
  static constexpr float kLeastNormal = -87;        // e^x is a normal number from here on
};
template <> struct ExpFit<double> {
  static constexpr double kTerms[] = {
      0.5,
      0.1666666666666667,
      0.04166666666666667,
      0.008333333333326084,
      0.0013888888888883711,
      0.0001984126987500228,
      2.480158732567746e-05,
      2.755725517000089e-06,
      2.755727347871858e-07,
      2.5105312729622103e-08,
      2.09147553258932e-09,
  };
  static constexpr double kLog2e = 0x1.71547652b82fep+0, kLn2 = 0x1.62e42fefa4p-1,
                          kLn2Rest = -0x1.8432a1b0e2634p-43;
  static constexpr double kLeast = -746, kMost = 710, kLeastNormal = -708;
};

// x = n ln(2) + r; `shifted` has n in its last bits.
template <class V> struct Reduced {
  V shifted, r;
};
template <class V> COSMIC_INLINE Reduced<V> reduced(V x) {
  using Real = typename RealOf<V>::type;
  using Fit = ExpFit<Real>;
  const V to_integer = V::splat(Format<Real>::kToInteger);
  const V shifted = x * V::splat(Fit::kLog2e) + to_integer, n = shifted - to_integer;
  return {shifted, (x - n * V::splat(Fit::kLn2)) - n * V::splat(Fit::kLn2Rest)};
}
template <class V> COSMIC_INLINE V exp_less_1_of_rest(V r) {
  return r + r * r * polynomial(ExpFit<typename RealOf<V>::type>::kTerms, r);
}
template <class V> COSMIC_INLINE V power_of_two(V shifted) { // a normal number
  using F = Format<typename RealOf<V>::type>;
  const auto n = as_int(shifted) - F::Bits::splat(F::kToIntegerBits - F::kBias);
  return as_float(shift_left<F::kMantissa>(n));
}

template <class V> COSMIC_ELEMENTARY V exp(V x) {
  using Real = typename RealOf<V>::type;
  using F = Format<Real>;
  x = at_most(at_least(x, ExpFit<Real>::kLeast), ExpFit<Real>::kMost);
  const auto [shifted, r] = reduced(x);
  // a product of two powers, since one alone may be no normal number
  const Bits<Real> n = as_int(shifted) - Bits<Real>::splat(F::kToIntegerBits - 2 * F::kBias);
  const Bits<Real> half = shift_right<1>(n);
  const V power = as_float(shift_left<F::kMantissa>(half)),
          other = as_float(shift_left<F::kMantissa>(n - half));
  return (exp_less_1_of_rest(r) + splat<V>(1)) * power * other;
}

// e^(x + more) for x <= 0, `more` a small correction; 0 instead of denormals, which are slow and of
// no weight beside a 1.
template <bool kMore, class V> COSMIC_ELEMENTARY V exp_of_negative(V x, V more) {
  const V least = V::splat(ExpFit<typename RealOf<V>::type>::kLeastNormal);
  auto [shifted, r] = reduced(greater(least, x));
  if constexpr (kMore) r = r + more;
  const V found = (exp_less_1_of_rest(r) + splat<V>(1)) * power_of_two(shifted);
  return where_greater(least, x, splat<V>(0), found);
}
template <class V> COSMIC_INLINE V exp_below_0(V x, V more) {
  return exp_of_negative<true>(x, more);
}
template <class V> COSMIC_INLINE V exp_below_0(V x) { return exp_of_negative<false>(x, x); }

// e^x - 1 for 0 <= x <= 80, relative to its own size.
template <class V> COSMIC_ELEMENTARY V exp_less_1(V x) {
  const auto [shifted, r] = reduced(x);
  const V power = power_of_two(shifted);
  return power * exp_less_1_of_rest(r) + (power - splat<V>(1));
}

// tanh(x) = (e^2|x| - 1) / (e^2|x| + 1) with the sign of x
template <class V> COSMIC_ELEMENTARY V tanh(V x) {
  const V size = at_most(abs(x), 22); // 1 above
  const V e = exp_less_1(size + size);
  return with_sign(e / (e + splat<V>(2)), sign_of(x));
}

// 1 / (1 + e^-x) and its derivative, neither of which loses digits where it is small.
template <class V> struct Logistic {
  V value, slope;
};
template <class V> COSMIC_ELEMENTARY Logistic<V> logistic(V x) {
  const V one = splat<V>(1), e = exp_below_0(negative_abs(x)), over = one / (one + e);
  const V small = e * over; // of -|x|
  return {where_greater(splat<V>(0), x, small, over), small * over};
}

// (ln(1 + f) - 2 s) / s^3, s = f / (2 + f), as a function of s^2, for 1 + f between the roots of
// 1/2 and 2; and the bits of the first.
template <class Real> struct LogFit;
template <> struct LogFit<float> {
  static constexpr float kTerms[] = {0.6666667f, 0.40000123f, 0.28550735f, 0.23332761f};
  static constexpr int32_t kRootOfHalf = 0x3f3504f3;
};
template <> struct LogFit<double> {
  static constexpr double kTerms[] = {
      0.666666666666667,   0.3999999999989827, 0.28571428626533335, 0.22222211043823487,
      0.18182895746801428, 0.1533150172120742, 0.1461916477718642,
  };
  static constexpr uint64_t kRootOfHalf = 0x3fe6a09e667f3bcd;
};

// ln of positive normal numbers: ln(1 + f) = f - (f^2 / 2 - s (f^2 / 2 + s^2 p(s^2)))
template <class V> COSMIC_ELEMENTARY V natural_log(V x) {
  using Real = typename RealOf<V>::type;
  using F = Format<Real>;
  using B = Bits<Real>;
  using Word = typename F::Word;
  constexpr Word kFraction = ((Word)1 << F::kMantissa) - 1, kBias = (Word)F::kBias << F::kMantissa;
  const B above = as_int(x) - B::splat(LogFit<Real>::kRootOfHalf);
  const B exponent = shift_right<F::kMantissa>(above + B::splat(kBias)); // of 2, and the bias
  const V n =
      as_float(exponent | B::splat(F::kToIntegerBits)) - V::splat(F::kToInteger + (Real)F::kBias);
  const V f = as_float(as_int(x) - (above & B::splat(~kFraction))) - splat<V>(1);
  const V s = f / (f + splat<V>(2)), s2 = s * s, square = f * f * splat<V>(0.5);
  const V rest = s * (square + s2 * polynomial(LogFit<Real>::kTerms, s2)) +
                 n * V::splat(ExpFit<Real>::kLn2Rest);
  return n * V::splat(ExpFit<Real>::kLn2) - ((square - rest) - f);
}

// ln of any number: -infinity of zeros, NaN below.
template <class V> COSMIC_ELEMENTARY V log(V x) {
  using F = Format<typename RealOf<V>::type>;
  constexpr double kInfinity = __builtin_inf(), kLn2 = 0x1.62e42fefa39efp-1;
  const V zero = splat<V>(0), least = V::splat(F::kSmallestNormal);
  // denormals have their digits moved up by a power of two, which is taken off again
  const V up = where_greater(least, x, splat<V>(0x1p64), splat<V>(1));
  const V down = where_greater(least, x, splat<V>(64 * kLn2), zero);
  const V positive = natural_log(x * up) - down;
  const V finite = where_greater(splat<V>(kInfinity), x, positive, x);
  return where_greater(
      x, zero, finite,
      where_greater(zero, x, splat<V>(__builtin_nan("")), abs(x) - splat<V>(kInfinity)));
}

} // namespace cosmic::COSMIC_TARGET
