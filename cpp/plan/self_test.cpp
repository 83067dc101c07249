#include "plan/self_test.h"

#include <algorithm>
#include <cstddef>
#include <sstream>

#include "core/error.h"
#include "matmul/product_test.h"
#include "parts/registry.h"
#include "plan/layout.h"
#include "plan/plan.h"
#include "plan/probe_test.h"

namespace cosmic {

namespace {

// Two work items, the second of which ends in a partial block; rows that no block is aligned to.
constexpr int64_t kRows = 130, kColumns = 131, kNumel = kRows * kColumns;
constexpr int kSteps = 3;

uint32_t mixed(uint32_t x) { // splitmix32's finalizer
  x = (x ^ (x >> 16)) * 0x85ebca6bu;
  x = (x ^ (x >> 13)) * 0xc2b2ae35u;
  return x ^ (x >> 16);
}

// Numbers in [-1, 1), of sizes that differ by element: exact in float.
template <class Real> void fill(std::vector<Real> &values, uint32_t seed) {
  for (size_t k = 0; k < values.size(); ++k) {
    const uint32_t bits = mixed(seed * 0x9e3779b9u + static_cast<uint32_t>(k));
    values[k] = static_cast<Real>(static_cast<int32_t>(bits) >> 8) /
                static_cast<Real>(1 << (23 + bits % 7));
  }
}

// The same elements at every step, since codecs keep a second moment of zero apart: of three blocks
// the first loses all of its gradient, the second a part.
template <class Real> void silence(std::vector<Real> &gradient) {
  for (size_t k = 0; k < gradient.size(); ++k) {
    const size_t kind = k / kBlock % 3;
    if (kind == 0 || (kind == 1 && k % 7 == 0)) gradient[k] = 0;
  }
}

// FNV-1a.
void add_bytes(uint64_t &hash, const void *data, size_t count) {
  const auto *bytes = static_cast<const unsigned char *>(data);
  for (size_t k = 0; k < count; ++k) hash = (hash ^ bytes[k]) * 0x100000001b3u;
}

// One tensor with its state, which starts from zero.
template <class Real> class Subject {
public:
  Subject(const PartsOf &parts, const Part *probing) : param_(padded()), gradient_(padded()) {
    fill(param_, 1);
    Row &row = plan_.rows.emplace_back();
    row.name = "self-test";
    row.rule = parts.rule;
    if (const GatePart *gate = gate_named(row.rule->gate)) bind_gate(row, *gate, parts);
    row.m_codec = parts.m;
    row.step_pass = row.codec_pass = pass_of(parts, {probing});
    row.active = true;
    row.numel = kNumel;
    const DType dtype = sizeof(Real) == 8 ? DType::f64 : DType::f32;
    row.param = {param_.data(), dtype, {}};
    row.grad = {gradient_.data(), dtype, {}};
    bind_slot(row.m, parts.m, false);
    bind_slot(row.m_slow, parts.m_slow, false);
    bind_slot(row.v, parts.v, true);
    row.matrix = matrix_moment(parts.v, MatrixShape{kRows, kColumns}, row.v, {});
    if (row.matrix) row.v = Planes{};
    bind_numbers(row);
    if (row.rule->matrix) bind_whole(row);
    if (row.rule->second_ahead) row.second_pass = second_alone(parts.v);
    plan_.groups.push_back(group_for(parts));
    plan_.seed = 38; // with which the second step corrects all of q8's roots
  }

  uint64_t stepped(const Kernels &kernels, int threads) {
    plan_.forced_kernels = &kernels;
    for (int step = 0; step < kSteps; ++step) {
      fill(gradient_, static_cast<uint32_t>(2 + step));
      silence(gradient_);
      plan_.step(threads, step);
    }
    uint64_t hash = 0xcbf29ce484222325u;
    add_bytes(hash, param_.data(), kNumel * sizeof(Real));
    for (const Bytes &plane : planes_) add_bytes(hash, plane.data(), plane.size());
    add_bytes(hash, numbers_, 2 * sizeof(float));
    add_bytes(hash, scalars_, 2 * sizeof(double));
    return hash;
  }

private:
  using Bytes = std::vector<unsigned char>;

  static size_t padded() { return static_cast<size_t>((kNumel + kBlock - 1) / kBlock * kBlock); }

  void bind_gate(Row &row, const GatePart &gate, const PartsOf &parts) {
    row.gates.push_back({&gate});
    row.exact = gate.exact_only;
    row.gate_pass = pass_of(parts, {&gate});
    if (!gate.remember) return;
    plan_.memories.push_back(gate.remember());
    plan_.memories.back()->by_tensor = true;
  }
  static void bind_whole(Row &row) {
    const TensorView view = dense_matrix(kRows, kColumns);
    row.whole = std::make_shared<MatrixStep>(view, walk_order(view), row.name);
  }

  static Group group_for(const PartsOf &parts) {
    Group group;
    group.lr = 0.01;
    group.beta1 = 0.875;
    group.beta2 = 0.9375;
    group.weight_decay = 0.125;
    if (!parts.m_slow) return group;
    for (const RulePart *rule : all_rules())
      for (size_t k = 0; k < rule->options.size(); ++k) {
        double &value = group.options[rule->first_option + k];
        const std::string name = rule->options[k].name;
        if (name == "beta_slow") value = 0.96875;
        if (name == "alpha") value = 2;
      }
    return group;
  }

  void bind_slot(Planes &planes, const CodecPart *codec, bool second_moment) {
    const std::vector<Plane> layout =
        slot_layout(codec, second_moment, kNumel, MatrixShape{kRows, kColumns});
    for (size_t k = 0; k < layout.size(); ++k) {
      const auto bits = static_cast<size_t>(layout[k].bits);
      planes_.emplace_back(static_cast<size_t>(layout[k].count) * bits / 8);
      planes.data[k] = planes_.back().data();
    }
  }

  template <class Kept> static Kept *started(const Numbers &numbers, Kept *kept) {
    for (const Number &number : numbers.of) *kept++ = static_cast<Kept>(number.initial);
    return kept - numbers.size();
  }

  // A rule that needs a gate keeps nothing itself.
  void bind_numbers(Row &row) {
    row.step = &step_;
    if (row.rule->numbers) row.rule_numbers = started(row.rule->numbers, scalars_);
    for (RowGate &gate : row.gates)
      if (gate.part->numbers) gate.numbers = started(gate.part->numbers, scalars_);
    const CodecPart *codec = row.m_codec;
    if (!codec || !codec->numbers) return;
    row.m_numbers = started(codec->numbers, numbers_);
    if (!codec->by_block) return;
    row.by_block = std::make_shared<std::vector<float>>(padded() / kBlock);
    row.m.data[codec->first.size()] = row.by_block->data();
  }

  Plan plan_;
  std::vector<Real> param_, gradient_;
  std::vector<Bytes> planes_;
  int64_t step_ = 0;
  double scalars_[kMostNumbers] = {};
  float numbers_[kMostNumbers] = {};
};

uint64_t fingerprint_of(const std::string &name, const Kernels &kernels, int threads) {
  const Part *probing = nullptr;
  const PartsOf parts = parts_named(name, &probing);
  return parts.f64 ? Subject<double>(parts, probing).stepped(kernels, threads)
                   : Subject<float>(parts, probing).stepped(kernels, threads);
}

// The same kernels, but none inlined.
Kernels by_parts(Kernels kernels) {
  kernels.step = kernels.step_by_parts;
  kernels.measure = kernels.measure_by_parts;
  return kernels;
}

std::string hexadecimal(uint64_t value) {
  std::ostringstream out;
  out << std::hex << value;
  std::string text = out.str();
  return std::string(16 - text.size(), '0') + text;
}

} // namespace

std::vector<uint64_t> step_fingerprints(const Kernels &kernels, int threads) {
  const std::vector<std::string> &names = combination_names();
  std::vector<uint64_t> found(names.size());
  for (size_t k = 0; k < names.size(); ++k) found[k] = fingerprint_of(names[k], kernels, threads);
  return found;
}

SelfTest self_test() {
  const std::vector<std::string> &names = combination_names();
  const std::vector<uint64_t> expected = step_fingerprints(kernels_for("scalar"), 1);
  const auto compare = [&](const Kernels &kernels, int threads, const std::string &how) {
    const std::vector<uint64_t> found = step_fingerprints(kernels, threads);
    const auto differs = std::mismatch(found.begin(), found.end(), expected.begin()).first;
    if (differs != found.end())
      throw Error(ErrorKind::runtime,
                  "self-test: '" + names[static_cast<size_t>(differs - found.begin())] +
                      "' gives other bits with ISA " + kernels.isa + how + " and " +
                      std::to_string(threads) + " threads than with ISA scalar and one thread");
  };
  for (const std::string &isa : available_isas()) {
    for (const int threads : {1, 2}) compare(kernels_for(isa), threads, "");
    compare(by_parts(kernels_for(isa)), 1, " by parts");
    check_probes(kernels_for(isa));
    check_products(kernels_for(isa));
  }
  uint64_t hash = 0xcbf29ce484222325u;
  add_bytes(hash, expected.data(), expected.size() * sizeof(uint64_t));
  return {available_isas(), static_cast<int>(names.size()), hexadecimal(hash)};
}

} // namespace cosmic
