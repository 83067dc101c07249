// Gate `tiger_literal`: what scales an update of rule `tiger` (rules/tiger.h), as the formulas of
// the optimizer Tiger, release 2.2, have it. Norms are Euclidean, over a tensor; p is the parameter
// after weight decay, d the update with what clips it.
//   first look:   rms(m), which the rule's direction needs, and |p|
//   second look:  |u| and |m P|
//   d = a u       a = min(1, agc_clip (|p| + agc_eps) / |u|)
//   k = min(1, rms_clip_threshold / rms(d))
//   q = min(trust_clip, average(|p| / (|d| + 1e-12))), or |m P| in the place of |d|
//   factor = a k q
// A ratio whose norms are zero is 1. The average, if there is one, is of the group: its tensors
// enter it in order. Everything is of this very step.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "gates/no_probe.h"
#include "rules/tiger.h"

namespace cosmic::COSMIC_TARGET {

namespace tiger {
enum { kSquareM, kSquareUpdate, kSquarePreconditioned, kSums }; // as the descriptor reads them
} // namespace tiger

template <class Real> struct TigerMomentum {
  using Look = NoLook;
  using V = Lanes<Real>;
  static constexpr int kFirstSum = tiger::kSquareM, kSums = tiger::kSquareUpdate;
  static constexpr bool kMeasures = true, kLooksTwice = false, kSelects = false, kSeesV = false;

  COSMIC_METHOD explicit TigerMomentum(const Coefficients & /*c*/) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V & /*gradient*/, V *terms) const {
    terms[tiger::kSquareM] = slots.m * slots.m;
  }
};

template <class Real> struct TigerUpdate {
  using Look = NoLook;
  using V = Lanes<Real>;
  static constexpr int kFirstSum = tiger::kSquareUpdate, kSums = tiger::kSums;
  static constexpr bool kMeasures = true, kLooksTwice = false, kSelects = false, kSeesV = true;
  TigerDirection<Real> direction;

  COSMIC_METHOD explicit TigerUpdate(const Coefficients &c) : direction(c) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V & /*gradient*/, V *terms) const {
    const V divisor = direction.divisor(sqrt(slots.v) + direction.eps);
    const V u = direction.numerator(slots.m) / divisor, by_momentum = slots.m / divisor;
    terms[tiger::kSquareUpdate] = u * u;
    terms[tiger::kSquarePreconditioned] = by_momentum * by_momentum;
  }
};

template <class Real> struct TigerProbe {
  using Look = NoLook;
  using V = Lanes<Real>;
  static constexpr int kFirstSum = 0, kSums = tiger::kSums;
  static constexpr bool kMeasures = true, kLooksTwice = true, kSelects = false, kSeesV = true;
  using FirstLook = TigerMomentum<Real>;
  using SecondLook = TigerUpdate<Real>;
  FirstLook first;
  SecondLook second;

  COSMIC_METHOD explicit TigerProbe(const Coefficients &c) : first(c), second(c) {}
  COSMIC_METHOD void look(const Slots<V> &slots, const V &gradient, V *terms) const {
    first.look(slots, gradient, terms);
    second.look(slots, gradient, terms);
  }
};

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include <memory>
#include <optional>

#include "parts/gate.h"

namespace cosmic {

// The options of one parameter group, and the average of its trust ratios.
class TigerLiteral : public GateMemory {
public:
  struct Options {
    bool trusts = true;       // whether there is a ratio
    bool by_momentum = false; // to |m P|, else to |d|
    double trust_clip = 10, trust_ema_beta = 0;
    double agc_clip = 0, agc_eps = 1e-12, rms_clip_threshold = 0; // 0: none
  };
  // What the two looks have found of a tensor.
  struct Norms {
    double param = 0, update = 0, preconditioned = 0, numel = 1;
  };

  void set_options(const NamedValues &options) override;
  // A ratio, before the clip; one that is not finite is not kept, and is 1.
  double take(double ratio) override;
  NamedValues save() const override;
  void load(const NamedValues &saved) override;
  bool settled() const override { return average_.has_value(); }
  NamedValues seen() const override { return {}; }

  double factor(const Norms &norms);

private:
  Options options_;
  std::optional<double> average_;
};

namespace parts {
GatePart tiger_literal();
} // namespace parts

} // namespace cosmic

#endif
