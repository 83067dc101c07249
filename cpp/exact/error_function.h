// The error function and the normal distribution. For t >= 0
//
//     erfc(t) = e^(-t^2) w h(1 - 2 w),    w = K / (t + K),
//
// where h is a polynomial: no digits are lost where erfc is small. Fits as in elementary.h.
#pragma once

#include "exact/elementary.h"

namespace cosmic::COSMIC_TARGET {

// `kTail`: e^(t^2) erfc(t) / w as a function of 1 - 2 w on [-1, 1]. `kNearZero`: erf(x) / x as a
// function of x^2 on [0, 1].
template <class Real> struct ErrorFit;
template <> struct ErrorFit<float> {
  static constexpr double kPole = 2.5;
  static constexpr float kTail[] = {
      0.42161274f,    -0.32186076f,    0.1815657f,      -0.06849977f,
      0.011343547f,   0.0033531552f,   -0.001921382f,   -0.00016544152f,
      0.00026648832f, 1.07462365e-05f, -2.9168583e-05f,
  };
  static constexpr float kNearZero[] = {
      1.1283791f,    -0.37612626f,    0.11283594f,   -0.026854211f,
      0.0051890872f, -0.00080168643f, 7.875875e-05f,
  };
};
template <> struct ErrorFit<double> {
  static constexpr double kPole = 3.75;
  static constexpr double kTail[] = {
      0.29117944255007705,     -0.25566442044077586,   0.19635171339246765,
      -0.1307920776553812,     0.07441654640898167,    -0.03518810698092505,
      0.013098340964604773,    -0.0033429013446089834, 0.00026302348257450296,
      0.0002119528294269952,   -9.297246358353238e-05, 2.825050497165455e-06,
      9.992347750979854e-06,   -2.374350980006534e-06, -8.76948984061028e-07,
      4.4157568975268866e-07,  7.430468229009285e-08,  -7.032964192304492e-08,
      -6.9098551236288795e-09, 1.0789544344667002e-08, 7.387400829754217e-10,
      -1.4586106040956065e-09, -6.108881092349383e-11, 1.2213291042217565e-10,
  };
  static constexpr double kNearZero[] = {
      1.1283791670955126,      -0.37612638903183543,   0.11283791670945006,
      -0.02686617064323777,    0.0052239776071164225,  -0.0008548325975389692,
      0.00012055294904839707,  -1.492473690741966e-05, 1.6447424703317362e-06,
      -1.6208483801871705e-07, 1.3720064546777686e-08, -7.795898827002142e-10,
  };
};

// e^(-t^2 / divisor) for t >= 0 and a divisor of 1 or 2: the square's rounding error, which the
// exponential would enlarge, is put right.
template <class V> COSMIC_INLINE V bell(V t, double divisor) {
  using F = Format<typename RealOf<V>::type>;
  const V upper = as_float(as_int(t) & F::Bits::splat(F::kUpperHalf)),
          factor = splat<V>(-1 / divisor);
  return exp_below_0(factor * (upper * upper), factor * ((t - upper) * (t + upper)));
}

// e^(t^2) erfc(t) of w
template <class V> COSMIC_ELEMENTARY V scaled_erfc(V w) {
  using Fit = ErrorFit<typename RealOf<V>::type>;
  return w * polynomial(Fit::kTail, splat<V>(1) - (w + w));
}

template <class V> COSMIC_ELEMENTARY V erf(V x) {
  using Fit = ErrorFit<typename RealOf<V>::type>;
  const V one = splat<V>(1), t = at_most(abs(x), 28), pole = splat<V>(Fit::kPole); // erf is 1 there
  const V near = t * polynomial(Fit::kNearZero, t * t);
  const V far = one - bell(t, 1) * scaled_erfc(pole / (t + pole));
  return with_sign(where_greater(one, t, near, far), sign_of(x));
}

// Of the normal distribution at x: what lies below, and e^(-x^2 / 2).
template <class V> struct Normal {
  V below, bell;
};
template <class V> COSMIC_ELEMENTARY Normal<V> normal(V x) {
  using Fit = ErrorFit<typename RealOf<V>::type>;
  constexpr double kRoot2 = 0x1.6a09e667f3bcdp+0;
  const V t = at_most(abs(x), 40), pole = splat<V>(Fit::kPole * kRoot2); // e^(-t^2 / 2) is 0 there
  const V height = bell(t, 2);
  const V tail = splat<V>(0.5) * height * scaled_erfc(pole / (t + pole));
  return {where_greater(splat<V>(0), x, tail, splat<V>(1) - tail), height};
}

} // namespace cosmic::COSMIC_TARGET
