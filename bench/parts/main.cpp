// Times the rows of the table of combinations, inlined and by parts in turn, on one thread: what
// says which rows are to be hot. Prints a line a row: its name, nanoseconds an element inlined, and
// by parts as a multiple of that, in pairs and of the shortest times, for the step and, where there
// is one, for the measuring pass.
//   parts [elements] [rounds] [ISA] [text]      in cache by default; rows whose names have the text
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "isa/dispatch.h"
#include "isa/float_environment.h"
#include "kernels/kernels.h"
#include "plan/combinations.h"
#include "plan/layout.h"
#include "plan/matrix.h"

namespace {

using namespace cosmic;

constexpr int64_t kColumns = 1024;

struct Pseudorandom {
  uint32_t state = 1;
  double next() { // in [-1, 1)
    state = state * 1664525u + 1013904223u;
    return static_cast<double>(static_cast<int32_t>(state)) * 0x1p-31;
  }
};

// One tensor with the state that a row of the table keeps.
class Subject {
public:
  Subject(const PartsOf &parts, const Part *probing, int row, int64_t numel)
      : parts_(pass_of(parts, {}).parts), probe_{probing ? probing->probe_place : 0}, numel_(numel),
        param_(bytes_of_elements()), gradient_(bytes_of_elements()),
        looks_(static_cast<size_t>(numel / kBlock)) {
    parts_.hot = row;
    fill(param_);
    fill(gradient_);
    set_coefficients();
    bind(m_, parts.m, false);
    bind(m_slow_, parts.m_slow, false);
    bind(v_, parts.v, true);
    matrix_ = matrix_moment(parts.v, shape(), v_);
    if (matrix_) matrix_->prepare();
    if (parts.m && parts.m->by_block) m_.data[parts.m->first.size()] = plane(numel / kBlock * 4);
  }

  bool measures() const { return probe_.probe != 0 && !matrix_; }

  double seconds(void (*pass)(const BlockRun &), int64_t repeats) {
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t k = 0; k < repeats; ++k) run(pass);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    return passed.count() / static_cast<double>(repeats);
  }

private:
  using Bytes = std::vector<unsigned char>;

  void run(void (*pass)(const BlockRun &)) {
    constexpr int64_t kItem = kChunkBlocks * kBlock;
    const int64_t item = parts_.f64 ? 8 : 4, share = matrix_ ? numel_ : kItem;
    c_.random_key += 0x9e3779b9u;
    MatrixSums sums_of_matrix;
    if (matrix_) sums_of_matrix = matrix_->open(0);
    for (int64_t first = 0; first < numel_; first += share) {
      LaneSums sums;
      pass({&parts_, param_.data() + first * item, gradient_.data() + first * item, m_, m_slow_, v_,
            first / kBlock, std::min(share, numel_ - first), &c_, &sums,
            matrix_ ? &sums_of_matrix : nullptr, looks_.data(), &probe_, probe_.probe ? 1 : 0});
    }
  }

  size_t bytes_of_elements() const { return static_cast<size_t>(numel_) * (parts_.f64 ? 8 : 4); }
  void fill(Bytes &bytes) {
    Pseudorandom random;
    for (int64_t k = 0; k < numel_; ++k)
      if (parts_.f64)
        reinterpret_cast<double *>(bytes.data())[k] = random.next() * random.next();
      else
        reinterpret_cast<float *>(bytes.data())[k] =
            static_cast<float>(random.next() * random.next());
  }
  void set_coefficients() {
    c_.beta1 = 0.9, c_.gradient1 = 0.1, c_.beta2 = 0.999, c_.gradient2 = 0.001;
    c_.beta_slow = 0.9999, c_.gradient_slow = 0.0001, c_.alpha = 2;
    c_.m_scale = c_.v_scale = c_.v_scale_before = 1;
    c_.eps = 1e-8, c_.decay = 0.9999, c_.step = 1e-4;
    c_.m_before = c_.m_now = 0.5;
    c_.first_look = true;
  }
  void *plane(int64_t bytes) {
    planes_.emplace_back(static_cast<size_t>(bytes + 64));
    return planes_.back().data();
  }
  void bind(Planes &planes, const CodecPart *codec, bool second) {
    int k = 0;
    for (const Plane &each : slot_layout(codec, second, numel_, shape()))
      planes.data[k++] = plane(each.count * each.bits / 8);
  }
  MatrixShape shape() const { return {numel_ / kColumns, kColumns}; }

  Composition parts_;
  AskedProbe probe_;
  int64_t numel_;
  Bytes param_, gradient_;
  std::vector<Bytes> planes_;
  std::vector<BlockLook> looks_;
  Planes m_, m_slow_, v_;
  std::shared_ptr<MatrixMoment> matrix_;
  Coefficients c_;
};

struct Comparison {
  double inlined, ratio = 0, of_shortest; // nanoseconds an element; the median pair, if any agrees
};

Comparison compared(Subject &subject, int64_t numel, int rounds, void (*inlined)(const BlockRun &),
                    void (*by_parts)(const BlockRun &)) {
  const int64_t repeats = std::max<int64_t>(1, 131072 / numel);
  std::vector<double> ratios;
  double best = 1e9, best_by_parts = 1e9;
  for (int k = 0; k < rounds; ++k) {
    const double a = subject.seconds(inlined, repeats), b = subject.seconds(by_parts, repeats);
    const double c = subject.seconds(inlined, repeats);
    best = std::min(best, std::min(a, c));
    best_by_parts = std::min(best_by_parts, b);
    if (std::max(a, c) < 1.05 * std::min(a, c)) ratios.push_back(2 * b / (a + c)); // undisturbed
  }
  Comparison out{best / static_cast<double>(numel) * 1e9, 0, best_by_parts / best};
  if (ratios.empty()) return out;
  std::nth_element(ratios.begin(), ratios.begin() + static_cast<long>(ratios.size() / 2),
                   ratios.end());
  out.ratio = ratios[ratios.size() / 2];
  return out;
}

} // namespace

int main(int argc, char **argv) {
  const int64_t numel = argc > 1 ? std::atoll(argv[1]) : 16384;
  const int rounds = argc > 2 ? std::atoi(argv[2]) : 200;
  const Kernels &kernels = kernels_for(argc > 3 ? argv[3] : available_isas().front());
  const DefaultFloatEnvironment environment;
  const std::vector<std::string> &names = combination_names();
  const std::string text = argc > 4 ? argv[4] : "";
  for (size_t row = 0; row < names.size(); ++row) {
    if (names[row].find(text) == std::string::npos) continue;
    const Part *probing = nullptr;
    const PartsOf parts = parts_named(names[row], &probing);
    Subject subject(parts, probing, static_cast<int>(row), numel); // the table's rows come first
    const Comparison step = compared(subject, numel, rounds, kernels.step, kernels.step_by_parts);
    std::printf("%-48s %6.3f ns %5.2f %5.2f", names[row].c_str(), step.inlined, step.ratio,
                step.of_shortest);
    if (subject.measures()) {
      const Comparison look =
          compared(subject, numel, rounds, kernels.measure, kernels.measure_by_parts);
      std::printf("   measuring %6.3f ns %5.2f %5.2f", look.inlined, look.ratio, look.of_shortest);
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return 0;
}
