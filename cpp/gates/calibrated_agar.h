// Gate `calibrated_agar`: a factor in [c_min, 1] on the updates of a parameter group from how well
// its gradients agree over time, as casmo-optimizer 0.3 has it. With the new moments m and v of
// each element, held within limits against outliers,
//   s = m^2      n = max(v - s, eps)      agar = mean(s / (s + n + eps))
// is near 1 where gradients repeat and near 0 where they are noise. The first samples calibrate:
//   tau = median, within bounds      sigma = max(standard deviation, 0.01)
//   factor = c + (1 - c) / (1 + exp(-(agar - tau) / sigma))
// with c = 0.1, 0.3 or 0.5, less the more the samples vary. Until then factor = max(agar, c_min).
// The limits are a multiple of the means of |m| and v, if one is asked for.
// Its probe adds up |m|, v and the ratio. In the step, for the next one, all three; there an
// element whose moment is not finite adds nothing. Before the step the means come first, which the
// limits follow from, and by block the ratio without limits and the largest |m| and v; then the
// ratio of the blocks that a limit reaches.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/context.h"
#include "gates/no_probe.h"

namespace cosmic::COSMIC_TARGET {

namespace agar {

enum { kAbsM, kV, kRatio, kSums }; // as the descriptor reads them

// Of finite numbers.
COSMIC_INLINE F64 min(F64 a, F64 b) { return where_greater(a, b, b, a); }
COSMIC_INLINE F64 max(F64 a, F64 b) { return where_greater(a, b, a, b); }
COSMIC_INLINE F32 min(F32 a, F32 b) { return COSMIC_TARGET::min(a, b); }
COSMIC_INLINE F32 max(F32 a, F32 b) { return COSMIC_TARGET::max(a, b); }

// Over the lanes; of numbers >= 0.
COSMIC_INLINE double sum_of(F32 x) { return reduce_add(x); }
COSMIC_INLINE double largest_of(F32 x) { return float_of(reduce_unsigned_max(as_int(x))); }
COSMIC_INLINE double sum_of(F64 x) {
  alignas(64) double lanes[kLanes];
  x.store(lanes);
  double sum = 0;
  for (int k = 0; k < kLanes; ++k) sum += lanes[k];
  return sum;
}
COSMIC_INLINE double largest_of(F64 x) {
  alignas(64) double lanes[kLanes];
  x.store(lanes);
  double largest = 0;
  for (int k = 0; k < kLanes; ++k) largest = lanes[k] > largest ? lanes[k] : largest;
  return largest;
}

template <class Real> struct Limits {
  using V = Lanes<Real>;
  V m, v, eps;

  COSMIC_METHOD explicit Limits(const Coefficients &c)
      : m(V::splat((Real)c.m_limit)), v(V::splat((Real)c.v_limit)), eps(V::splat((Real)c.eps)) {}

  COSMIC_METHOD V ratio(V magnitude, V square) const {
    const V root = agar::min(magnitude, m), signal = root * root;
    const V noise = agar::max(agar::min(square, v) - signal, eps);
    return signal / (signal + noise + eps);
  }
};

} // namespace agar

// The ratio of one block and what decides whether limits change it.
template <class Real> struct AgarLook {
  using V = Lanes<Real>;
  agar::Limits<Real> limits;
  V ratio, largest_m, largest_v;

  template <class Probe> COSMIC_METHOD explicit AgarLook(const Probe &probe)
      : limits(probe.limits), ratio(V::splat(Real(0))), largest_m(ratio), largest_v(ratio) {}
  template <class Inside> COSMIC_METHOD void see(const Slots<V> &slots, Inside inside) {
    const V m = inside(abs(slots.m)), v = inside(slots.v);
    ratio = ratio + inside(limits.ratio(m, v));
    largest_m = where_greater(m, largest_m, m, largest_m);
    largest_v = where_greater(v, largest_v, v, largest_v);
  }
  COSMIC_METHOD void close(BlockLook *looks, int64_t block) const {
    looks[block] = {agar::sum_of(ratio), agar::largest_of(largest_m), agar::largest_of(largest_v)};
  }
};

// The first look before a step, within limits that nothing reaches.
template <class Real> struct AgarMeans {
  using Look = AgarLook<Real>;
  static constexpr int kFirstSum = agar::kAbsM, kSums = agar::kRatio;
  static constexpr bool kMeasures = true, kLooksTwice = false, kSelects = false, kSeesV = true;
  agar::Limits<Real> limits;

  COSMIC_METHOD explicit AgarMeans(const Coefficients &c) : limits(c) {}
  template <class V>
  COSMIC_METHOD void look(const Slots<V> &slots, const V & /*gradient*/, V *terms) const {
    terms[agar::kAbsM] = abs(slots.m);
    terms[agar::kV] = slots.v;
  }
};

// The second: of the blocks that a limit reaches.
template <class Real> struct AgarRatio {
  using Look = AgarLook<Real>;
  static constexpr int kFirstSum = 0, kSums = 0;
  static constexpr bool kMeasures = true, kLooksTwice = false, kSelects = true, kSeesV = true;
  agar::Limits<Real> limits;
  const double m_limit, v_limit;

  COSMIC_METHOD explicit AgarRatio(const Coefficients &c)
      : limits(c), m_limit(c.m_limit), v_limit(c.v_limit) {}
  COSMIC_METHOD bool wants(const BlockLook &look) const {
    return !(look.largest_m < m_limit && look.largest_v < v_limit);
  }
  template <class V> COSMIC_METHOD void look(const Slots<V> & /*slots*/, const V & /*gradient*/,
                                             V * /*terms*/) const {}
};

template <class Real> struct AgarProbe {
  using Look = NoLook;
  static constexpr int kFirstSum = agar::kAbsM, kSums = agar::kSums;
  static constexpr bool kMeasures = true, kLooksTwice = true, kSelects = false, kSeesV = true;
  using FirstLook = AgarMeans<Real>;
  using SecondLook = AgarRatio<Real>;
  agar::Limits<Real> limits;

  COSMIC_METHOD explicit AgarProbe(const Coefficients &c) : limits(c) {}
  template <class V>
  COSMIC_METHOD void look(const Slots<V> &slots, const V & /*gradient*/, V *terms) const {
    const V zero = V::splat(Real(0)), infinity = V::splat((Real)__builtin_inf());
    const V magnitude = abs(slots.m);
    const V m = where_greater(infinity, magnitude, magnitude, zero);
    const V v = where_greater(infinity, slots.v, slots.v, zero);
    const V ratio = limits.ratio(m, v);
    terms[agar::kAbsM] = m;
    terms[agar::kV] = v;
    terms[agar::kRatio] =
        where_greater(ratio, zero, ratio, zero); // 0 / 0 without an eps, inf / inf
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <deque>
#include <memory>
#include <optional>

#include "parts/gate.h"

namespace cosmic {

// The memory of one parameter group.
class CalibratedAgar : public GateMemory {
public:
  struct Options {
    int64_t tau_init_steps = 500;                // samples that calibrate
    double tau_lowest = 0.01, tau_highest = 0.5; // bounds of tau
    double c_min = 0.1;                          // before calibration
    std::optional<double> clamp_factor;          // limits of |m| and v, in means
  };
  // What the samples said; known once calibrated.
  struct Calibration {
    double tau, mean, std, median, p10, p90, c_min;
  };

  void set_options(const NamedValues &options) override;
  // A sample that is not finite is not kept and has the least factor.
  double take(double agar) override;
  // With the field names of casmo-optimizer's checkpoints.
  NamedValues save() const override;
  void load(const NamedValues &saved) override;
  bool settled() const override { return calibration_.has_value(); }
  NamedValues seen() const override;

  std::optional<double> clamp_factor() const { return options_.clamp_factor; }

private:
  void collect(double agar);
  double factor(double agar) const;

  Options options_;
  int64_t capacity_ = 0;       // of samples; older ones go
  std::deque<double> samples_; // empty once calibrated
  std::optional<Calibration> calibration_;
  std::optional<double> current_agar_, current_confidence_;
};

namespace parts {
GatePart calibrated_agar();
} // namespace parts

} // namespace cosmic

#endif
