// Functions of elements and what a gradient is multiplied by on its way back, in closed form.
// Where a factor is 0 in the limit, x is held within bounds, so that infinities give the limit.
#pragma once

#include "exact/error_function.h"
#include "exact/exact_kernels.h"

namespace cosmic::COSMIC_TARGET {

constexpr double kSaturated = 1024; // beyond it all of them are their limits

template <class V> COSMIC_INLINE V within(V x, double bound) {
  return at_most(at_least(x, -bound), bound);
}

struct ExpMap {
  template <class V> COSMIC_METHOD static V value(V x) { return exp(x); }
  template <class V> COSMIC_METHOD static V back(V x, V grad) { return grad * exp(x); }
};

struct LogMap {
  template <class V> COSMIC_METHOD static V value(V x) { return log(x); }
  template <class V> COSMIC_METHOD static V back(V x, V grad) { return grad / x; }
};

struct TanhMap {
  template <class V> COSMIC_METHOD static V value(V x) { return tanh(x); }
  template <class V> COSMIC_METHOD static V back(V x, V grad) { // 1 - tanh^2
    return grad * (splat<V>(4) * logistic(x + x).slope);
  }
};

struct ErfMap {
  template <class V> COSMIC_METHOD static V value(V x) { return erf(x); }
  template <class V> COSMIC_METHOD static V back(V x, V grad) {
    constexpr double kTwoOverRootPi = 0x1.20dd750429b6dp+0;
    return grad * (splat<V>(kTwoOverRootPi) * bell(at_most(abs(x), 28), 1));
  }
};

struct SigmoidMap {
  template <class V> COSMIC_METHOD static V value(V x) { return logistic(x).value; }
  template <class V> COSMIC_METHOD static V back(V x, V grad) { return grad * logistic(x).slope; }
};

// x times the normal distribution's share below x
struct GeluMap {
  template <class V> COSMIC_METHOD static V value(V x) {
    return at_least(x, -40) * normal(x).below;
  }
  template <class V> COSMIC_METHOD static V back(V x, V grad) {
    constexpr double kOverRoot2Pi = 0x1.9884533d43651p-2;
    const Normal<V> at = normal(x);
    return grad * (at.below + within(x, 40) * (splat<V>(kOverRoot2Pi) * at.bell));
  }
};

// x / 2 (1 + tanh(u)) = x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
struct GeluTanhMap {
  static constexpr double kFirst = 0x1.9884533d43651p+0, kThird = kFirst * 0.044715; // of 2 u

  template <class V> COSMIC_METHOD static V value(V x) {
    const V inside = within(x, kSaturated);
    const V twice_u = inside * (splat<V>(kFirst) + splat<V>(kThird) * (inside * inside));
    return at_least(x, -kSaturated) * logistic(twice_u).value;
  }
  template <class V> COSMIC_METHOD static V back(V x, V grad) {
    x = within(x, kSaturated);
    const V first = splat<V>(kFirst), third = splat<V>(kThird) * (x * x);
    const Logistic<V> at = logistic(x * (first + third));
    const V slope_of_u = first + (third + third + third);
    return grad * (at.value + x * at.slope * slope_of_u);
  }
};

struct SiluMap {
  template <class V> COSMIC_METHOD static V value(V x) {
    return at_least(x, -kSaturated) * logistic(x).value;
  }
  template <class V> COSMIC_METHOD static V back(V x, V grad) {
    const Logistic<V> at = logistic(x);
    return grad * (at.value + within(x, kSaturated) * at.slope);
  }
};

template <class Map, class Real>
COSMIC_CALL void map_groups(const Real *x, int64_t groups, Real *out) {
  for (int64_t k = 0; k < groups * kLanes; k += kLanes)
    Map::value(Lanes<Real>::load(x + k)).store(out + k);
}
template <class Map, class Real>
COSMIC_CALL void map_back_groups(const Real *x, const Real *grad, int64_t groups, Real *out) {
  for (int64_t k = 0; k < groups * kLanes; k += kLanes)
    Map::back(Lanes<Real>::load(x + k), Lanes<Real>::load(grad + k)).store(out + k);
}

// What is left after the whole groups, by way of one.
template <class Real> struct LastGroup {
  alignas(64) Real lanes[kLanes];

  LastGroup(const Real *from, int64_t count) { fill_lanes(from, count, Real(0), lanes); }
  void store(Real *to, int64_t count) const { take_lanes(lanes, count, to); }
};

template <class Map, class Real> void map_run(const Real *x, int64_t count, Real *out) {
  const int64_t groups = count / kLanes, whole = groups * kLanes;
  map_groups<Map>(x, groups, out);
  if (whole == count) return;
  LastGroup<Real> last(x + whole, count - whole);
  map_groups<Map>(last.lanes, 1, last.lanes);
  last.store(out + whole, count - whole);
}

template <class Map, class Real>
void map_back_run(const Real *x, const Real *grad, int64_t count, Real *out) {
  const int64_t groups = count / kLanes, whole = groups * kLanes;
  map_back_groups<Map>(x, grad, groups, out);
  if (whole == count) return;
  LastGroup<Real> last(x + whole, count - whole), along(grad + whole, count - whole);
  map_back_groups<Map>(last.lanes, along.lanes, 1, last.lanes);
  last.store(out + whole, count - whole);
}

} // namespace cosmic::COSMIC_TARGET
