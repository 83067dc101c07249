#include "plan/probe_test.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "parts/registry.h"
#include "plan/combinations.h"
#include "plan/layout.h"
#include "plan/matrix.h"

namespace cosmic {

namespace {

// Seven blocks, the last of which is partial; rows that no block is aligned to.
constexpr int64_t kRows = 9, kColumns = 91, kNumel = kRows * kColumns;
constexpr int64_t kBlocks = (kNumel + kBlock - 1) / kBlock;

// One tensor and its state, after a first step.
template <class Real> class Tensor {
public:
  Tensor(const PartsOf &parts, const Kernels &kernels)
      : kernels_(kernels), parts_(pass_of(parts, {}).parts), param_(kBlocks * kBlock),
        gradient_(kBlocks * kBlock), looks_(kBlocks) {
    for (int64_t k = 0; k < kNumel; ++k) {
      param_[static_cast<size_t>(k)] = static_cast<Real>(k % 89 - 44) / Real(64);
      gradient_[static_cast<size_t>(k)] = static_cast<Real>(k % 61 - 30) / Real(1024);
    }
    bind(m_, parts.m, false);
    bind(m_slow_, parts.m_slow, false);
    bind(v_, parts.v, true);
    if (parts.m && parts.m->by_block) m_.data[parts.m->first.size()] = plane(kBlocks * 4);
    matrix_ = matrix_moment(parts.v, MatrixShape{kRows, kColumns}, v_, {});
    c_.beta1 = 0.875, c_.gradient1 = 0.125, c_.beta2 = 0.9375, c_.gradient2 = 0.0625;
    c_.beta_slow = 0.96875, c_.gradient_slow = 0.03125, c_.alpha = 2;
    c_.m_scale = c_.v_scale = c_.v_scale_before = 1;
    c_.eps = 1e-8, c_.decay = 0.99, c_.step = 0.01;
    c_.m_before = c_.m_now = 0.5;
    for (double &of_rule : c_.of_rule) of_rule = 0.5; // no rule divides by zero
    c_.first_look = true;
    run(kernels.step, {});
    c_.random_key = 1;
  }

  LaneSums run(void (*pass)(const BlockRun &), const std::vector<AskedProbe> &probes,
               bool square_param = false) {
    LaneSums sums;
    MatrixSums of_matrix;
    if (matrix_) {
      matrix_->prepare();
      of_matrix = matrix_->open(0);
    }
    pass({&parts_, param_.data(), gradient_.data(), m_, m_slow_, v_, 0, kNumel, &c_, &sums,
          matrix_ ? &of_matrix : nullptr, looks_.data(), probes.data(),
          static_cast<int>(probes.size()), square_param});
    if (matrix_) {
      matrix_->close(0, of_matrix);
      if (pass == kernels_.measure) return sums;
      matrix_->add_up();
      matrix_->finish();
    }
    return sums;
  }

  bool holds_same(const Tensor &other) const {
    return param_ == other.param_ && planes_ == other.planes_;
  }
  double square_param() const {
    double sum = 0;
    for (int64_t k = 0; k < kNumel; ++k) { // padding does not count
      const auto p = static_cast<double>(param_[static_cast<size_t>(k)]);
      sum += p * p;
    }
    return sum;
  }

private:
  using Bytes = std::vector<unsigned char>;

  void *plane(int64_t bytes) {
    planes_.emplace_back(static_cast<size_t>(bytes)); // whose memory stays where it is
    return planes_.back().data();
  }
  void bind(Planes &planes, const CodecPart *codec, bool second) {
    int k = 0;
    for (const Plane &each : slot_layout(codec, second, kNumel, MatrixShape{kRows, kColumns}))
      planes.data[k++] = plane(each.count * each.bits / 8);
  }
  const Kernels &kernels_;
  const Composition parts_;
  std::vector<Real> param_, gradient_;
  std::vector<Bytes> planes_;
  std::vector<BlockLook> looks_;
  Planes m_, m_slow_, v_;
  std::shared_ptr<MatrixMoment> matrix_;
  Coefficients c_;
};

// Whether lanes are to the bit those of the other: numbers, none of which is negative zero or NaN.
bool same(const double *lanes, const double *other) {
  return std::equal(lanes, lanes + kLanes, other);
}

// Whether the sums of a probe from `at` on are those from `other_at` on.
bool agree(const LaneSums &sums, int at, const LaneSums &other, int other_at) {
  for (int s = 0; s < kSumsOfPart; ++s)
    if (!same(sums.probed[at + s], other.probed[other_at + s])) return false;
  return true;
}

// Whether the sums that a measuring pass has are those of the step: it may have fewer.
bool is_measure_of(const LaneSums &measured, const LaneSums &sums, int at) {
  constexpr double kNothing[kLanes] = {};
  for (int s = at; s < at + kSumsOfPart; ++s)
    if (!same(measured.probed[s], kNothing) && !same(measured.probed[s], sums.probed[s]))
      return false;
  return true;
}

// Pairs of probes, each of which is somebody's second.
std::vector<std::vector<AskedProbe>> pairs_of_probes() {
  std::vector<int> places;
  for (const Part *part : all_parts())
    if (part->probe_place) places.push_back(part->probe_place);
  std::vector<std::vector<AskedProbe>> out;
  out.reserve(places.size());
  for (size_t k = 0; k < places.size(); ++k)
    out.push_back({{places[k], 0}, {places[(k + 1) % places.size()], kSumsOfPart}});
  return out;
}

template <class Real>
void check_row(const std::string &name, const PartsOf &row, const Kernels &kernels) {
  const auto require = [&](bool holds, const char *what) {
    if (!holds)
      throw Error(ErrorKind::runtime,
                  "self-test: '" + name + "' with ISA " + kernels.isa + ": " + what);
  };
  Tensor<Real> plain(row, kernels);
  const Tensor<Real> before(row, kernels);
  plain.run(kernels.step, {});
  for (const std::vector<AskedProbe> &pair : pairs_of_probes()) {
    Tensor<Real> asked(row, kernels), measured(row, kernels);
    const LaneSums of_measure = measured.run(kernels.measure, pair);
    require(measured.holds_same(before), "a measuring pass changes state");
    const LaneSums of_both = asked.run(kernels.step, pair, true);
    require(asked.holds_same(plain), "a step that is asked for sums leaves other bits");
    for (const AskedProbe &probe : pair) {
      Tensor<Real> alone(row, kernels);
      const LaneSums sums = alone.run(kernels.step, {AskedProbe{probe.probe, 0}});
      require(alone.holds_same(plain), "a step that is asked for one probe leaves other bits");
      require(agree(sums, 0, of_both, probe.first_sum), "probes disturb each other");
      require(is_measure_of(of_measure, of_both, probe.first_sum),
              "a measuring pass finds other sums than the step");
    }
    double square = 0;
    for (const double lane : of_both.square_param) square += lane;
    require(std::fabs(square - plain.square_param()) <= 1e-5 * square,
            "sum of the squared parameter");
  }
}

} // namespace

void check_probes(const Kernels &kernels) {
  for (const std::string &name : combination_names()) {
    const Part *probing = nullptr;
    const PartsOf parts = parts_named(name, &probing);
    if (parts.f64)
      check_row<double>(name, parts, kernels);
    else
      check_row<float>(name, parts, kernels);
  }
}

} // namespace cosmic
