#include "plan/coefficients.h"

#include <cmath>

#include "gates/snr.h"
#include "gates/trust_focus.h"
#include "plan/tensor_numbers.h"
#include "rules/scalar_magnitude.h"
#include "rules/update_clip.h"

namespace cosmic {

namespace {

constexpr double kSignalDecay = 0.9;

// By squaring: the same bits from every C library, unlike pow.
double integer_power(double base, int64_t exponent) {
  double out = 1.0;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) out *= base;
  return out;
}

int64_t steps_taken(const Row &row) { return row.step ? *row.step : 0; }

// AdEMAMix's schedules (arXiv 2409.03137, section 3): alpha rises linearly, beta_slow so that the
// average's half-life rises linearly from beta1's.
void set_slow(Coefficients &c, const Group &group, int64_t t, double sign) {
  double alpha = group.alpha, beta = group.beta_slow;
  if (t < group.slow_warmup) {
    const double share = static_cast<double>(t) / static_cast<double>(group.slow_warmup);
    alpha *= share;
    if (group.beta1 > 0) {
      const double from = std::log(group.beta1), to = std::log(group.beta_slow);
      beta = std::exp(from * to / ((1.0 - share) * to + share * from));
      beta = std::fmin(beta, group.beta_slow);
    }
  }
  c.alpha = alpha;
  c.beta_slow = beta;
  c.gradient_slow = sign * (1.0 - beta);
}

void set_second_moment(Coefficients &c, const Group &group, int64_t t) {
  const double correction2 = 1.0 - integer_power(group.beta2, t);
  c.beta2 = group.beta2;
  c.gradient2 = 1.0 - group.beta2;
  c.v_scale = 1.0 / std::sqrt(correction2);
  // the first step has no state in update units: any scale will do
  c.v_scale_before = t > 1 ? 1.0 / std::sqrt(1.0 - integer_power(group.beta2, t - 1)) : 1.0;
  c.eps = group.eps;
}

void set_first_moment(Coefficients &c, const Row &row, const Group &group, double sign) {
  const int64_t t = steps_taken(row) + 1 - row.m_start;
  c.beta1 = group.beta1;
  c.gradient1 = sign * (1.0 - group.beta1);
  c.m_correction = 1.0 - integer_power(group.beta1, t);
  if (t > 1) c.m_correction_before = 1.0 - integer_power(group.beta1, t - 1);
}

void set_adam(Coefficients &c, const Row &row, const Group &group, double gate, double sign) {
  const int64_t t = steps_taken(row) + 1;
  set_first_moment(c, row, group, sign);
  set_second_moment(c, group, t);
  if (row.m_slow.data[0]) {
    c.m_scale = 1.0 / c.m_correction;
    set_slow(c, group, t, sign);
    c.update_scale = gate;
  } else {
    c.update_scale = gate / c.m_correction;
  }
  c.step = group.lr * c.update_scale;
}

void set_belief(Coefficients &c, const Row &row, const Group &group, double gate, double sign) {
  set_first_moment(c, row, group, sign);
  set_second_moment(c, group, steps_taken(row) + 1);
  c.m_scale = 1.0 / c.m_correction;
  c.focus_scale = 1.0 / trust_focus::mean(row.gate);
  c.focus_floor = group.rel_floor;
  c.update_scale = gate;
  c.step = group.lr * c.update_scale;
}

void set_rmsprop(Coefficients &c, const Row &row, const Group &group, double gate, double sign) {
  set_second_moment(c, group, steps_taken(row) + 1);
  c.update_scale = update_clip::kScale * update_clip::factor(*row.update_rms) * gate;
  c.step = sign * group.lr * c.update_scale;
}

void set_sign(Coefficients &c, const Row &row, const Group &group, double gate, double sign) {
  double magnitude = 1.0;
  if (row.magnitude)
    magnitude =
        scalar_magnitude::value(row.magnitude, 1.0 - integer_power(group.beta1, steps_taken(row)),
                                1.0 - integer_power(group.beta2, steps_taken(row)), group.eps);
  c.update_scale = sign_scale(group.beta1) * magnitude * gate;
  c.step = sign * group.lr * c.update_scale;
}

using Setter = void (*)(Coefficients &, const Row &, const Group &, double, double);

Setter setter_of(Rule rule) {
  switch (rule) {
  case Rule::adam:
    return set_adam;
  case Rule::belief:
    return set_belief;
  case Rule::rmsprop:
    return set_rmsprop;
  default:
    return set_sign;
  }
}

} // namespace

double gate_factor(const Row &row, const Group &group) {
  switch (row.gate_kind) {
  case Gate::snr:
    return snr::factor(row.gate);
  case Gate::trust_focus:
    return trust_focus::factor(row.gate, group.c_min, group.robustness);
  default:
    return 1.0;
  }
}

uint32_t random_key(uint64_t seed, int64_t step, uint32_t tensor) {
  // splitmix64's finalizer over the three counters (Steele, Lea & Flood, OOPSLA 2014)
  uint64_t x = seed + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(step) + 1);
  x ^= static_cast<uint64_t>(tensor) << 32 | tensor;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return static_cast<uint32_t>((x ^ (x >> 31)) >> 32);
}

double sign_scale(double beta1) { return std::sqrt((1.0 - beta1) / (1.0 + beta1)); }

Coefficients coefficients_for(const Row &row, const Group &group, uint64_t seed, int64_t steps) {
  Coefficients c;
  const double gate = gate_factor(row, group);
  const double sign = group.maximize ? -1.0 : 1.0;
  c.decay = 1.0 - group.lr * group.weight_decay;
  c.random_key = random_key(seed, row.step ? *row.step : steps, row.index);
  setter_of(row.rule)(c, row, group, gate, sign);
  set_tensor_numbers(c, row, group);
  return c;
}

bool shares_coefficients(const Row &a, const Row &b) {
  const auto has_scalars = [](const Row &row) {
    return row.gate || row.magnitude || row.update_rms || row.m_numbers;
  };
  return a.group == b.group && a.rule == b.rule && steps_taken(a) == steps_taken(b) &&
         a.m_start == b.m_start && !a.m_slow.data[0] == !b.m_slow.data[0] && !has_scalars(a) &&
         !has_scalars(b);
}

Coefficients with_random_key(const Coefficients &of, const Row &row, uint64_t seed, int64_t steps) {
  Coefficients c = of;
  c.random_key = random_key(seed, row.step ? *row.step : steps, row.index);
  return c;
}

void start_magnitude(double *state, double mean_root, const Row &row, const Group &group) {
  const int64_t t = steps_taken(row);
  const double correction1 = 1.0 - integer_power(group.beta1, t);
  const double correction2 = 1.0 - integer_power(group.beta2, t);
  scalar_magnitude::start(state, mean_root, correction1, correction2);
}

void finish_step(Row &row, const Group &group, const Coefficients &c) {
  const double x = row.last.mean_abs_gradient;
  const bool counted =
      !row.magnitude || scalar_magnitude::observe(row.magnitude, x, group.beta1, group.beta2);
  if (row.update_rms) update_clip::observe(*row.update_rms, row.last.unscaled_rms);
  if (row.gate_kind == Gate::snr) snr::observe(row.gate, x, group.c_min);
  if (row.gate_kind == Gate::trust_focus)
    trust_focus::observe(row.gate, row.last.probed[0] / static_cast<double>(row.numel));
  finish_tensor_numbers(row, group, c);
  if (row.signal && std::isfinite(x))
    *row.signal = *row.signal > 0 ? kSignalDecay * *row.signal + (1.0 - kSignalDecay) * x : x;
  if (row.step && counted) ++*row.step;
}

} // namespace cosmic
