#include "plan/work.h"

#include <algorithm>

#include "plan/stage.h"

namespace cosmic {

namespace {

// Blocks of a copy. Measured where memory binds, with AVX-512: with 8 or 16 a step of bf16
// parameters takes a tenth to a third longer.
constexpr int64_t kCopyBlocks = 4;

// A look at memory that is there, or a staged copy of it.
template <class Real> class Reader {
public:
  Reader(const Operand &operand, const Kernels &kernels)
      : stage_(operand, kernels), base_(is_direct<Real>(operand) ? operand.data : nullptr) {}

  Real *at(int64_t first, int64_t count) {
    // a direct tensor's last, partial block is staged too: kernels read whole blocks
    staged_ = !base_ || count % kBlock;
    return staged_ ? stage_.load(first, count) : static_cast<Real *>(base_) + first;
  }
  void write_back(int64_t first, int64_t count) {
    if (staged_) stage_.store(first, count);
  }
  bool direct() const { return base_; }
  void round_stochastically(uint32_t key) { stage_.round_stochastically(key); }

private:
  Stage<Real, kCopyBlocks * kBlock> stage_;
  void *base_;
  bool staged_ = false;
};

// Cuts blocks [first, last) of a tensor into runs that fit the stage, or, where every operand is
// read in place, into the whole blocks and the partial one.
template <class Visit>
void for_each_run(int64_t numel, int64_t first, int64_t last, bool direct, Visit visit) {
  const int64_t whole_end = std::min(last, numel / kBlock);
  const int64_t longest = direct ? last - first : kCopyBlocks;
  for (int64_t b = first; b < whole_end; b += longest) {
    const int64_t blocks = std::min(longest, whole_end - b);
    visit(b, blocks * kBlock);
  }
  if (last > whole_end) visit(whole_end, numel - whole_end * kBlock);
}

// What all runs of an item have in common: a short one costs little besides.
BlockRun run_of(const Row &row, const PassOf &pass, const Coefficients &coefficients,
                LaneSums &sums, MatrixSums *matrix) {
  BlockRun run{};
  run.parts = &pass.parts;
  run.m = row.m;
  run.m_slow = row.m_slow;
  run.v = row.v;
  run.matrix = matrix;
  run.coefficients = &coefficients;
  run.sums = &sums;
  run.probes = pass.probes.data();
  run.probe_count = static_cast<int>(pass.probes.size());
  run.square_param = pass.square_param;
  return run;
}

// What becomes of the parameter goes to `target`.
template <class Real> void step_typed(const Row &row, const Operand &target, const Kernels &kernels,
                                      const Coefficients &coefficients, int64_t first, int64_t last,
                                      LaneSums &sums, MatrixSums *matrix) {
  Reader<Real> param(target, kernels), grad(row.grad, kernels);
  if (row.stochastic_rounding && &target == &row.param)
    param.round_stochastically(coefficients.random_key);
  BlockRun run = run_of(row, row.step_pass, coefficients, sums, matrix);
  for_each_run(row.numel, first, last, param.direct() && grad.direct(),
               [&](int64_t block, int64_t count) {
                 const int64_t element = block * kBlock;
                 run.first_block = block;
                 run.count = count;
                 run.param = param.at(element, count);
                 run.gradient = grad.at(element, count);
                 kernels.step(run);
                 param.write_back(element, count);
               });
}

// Reads no parameter: a measuring pass has no use for it.
template <class Real> void measure_typed(Row &row, const Kernels &kernels,
                                         const Coefficients &coefficients, int64_t first,
                                         int64_t last, LaneSums &sums, MatrixSums *matrix) {
  Reader<Real> grad(row.grad, kernels);
  BlockRun run = run_of(row, *row.measuring, coefficients, sums, matrix);
  run.looks = row.looks.data();
  for_each_run(row.numel, first, last, grad.direct(), [&](int64_t block, int64_t count) {
    run.first_block = block;
    run.count = count;
    run.gradient = grad.at(block * kBlock, count);
    kernels.measure(run);
  });
}

// All that is asked of the moments' next values is nothing.
bool sees_gradient_alone(const PassOf &pass) { return pass.probes.empty(); }

template <class Real> void inspect_typed(const Row &row, const Kernels &kernels, int64_t first,
                                         int64_t last, LaneSums &sums) {
  Reader<Real> grad(row.grad, kernels);
  for_each_run(row.numel, first, last, grad.direct(), [&](int64_t block, int64_t count) {
    const Real *values = grad.at(block * kBlock, count);
    if constexpr (sizeof(Real) == 4)
      kernels.inspect_f32(values, count, &sums);
    else
      kernels.inspect_f64(values, count, &sums);
  });
}

} // namespace

void step_blocks(const Row &row, const Kernels &kernels, const Coefficients &coefficients,
                 int64_t first, int64_t last, LaneSums &sums, MatrixSums *matrix) {
  if (row.is_f64())
    step_typed<double>(row, row.param, kernels, coefficients, first, last, sums, matrix);
  else
    step_typed<float>(row, row.param, kernels, coefficients, first, last, sums, matrix);
}

void average_blocks(const Row &row, float *memory, const Kernels &kernels,
                    const Coefficients &coefficients, int64_t first, int64_t last, LaneSums &sums) {
  const Operand target{memory, DType::f32, {}};
  step_typed<float>(row, target, kernels, coefficients, first, last, sums, nullptr);
}

void descend_blocks(const Row &row, const float *memory, const Kernels &kernels,
                    const Coefficients &coefficients, int64_t first, int64_t last, LaneSums &sums) {
  Reader<float> param(row.param, kernels);
  if (row.stochastic_rounding) param.round_stochastically(coefficients.random_key);
  for_each_run(row.numel, first, last, param.direct(), [&](int64_t block, int64_t count) {
    const int64_t element = block * kBlock;
    float *values = param.at(element, count);
    kernels.descend(values, memory + element, count, coefficients, row.step_pass.square_param,
                    &sums);
    param.write_back(element, count);
  });
}

void measure_blocks(Row &row, const Kernels &kernels, const Coefficients &coefficients,
                    int64_t first, int64_t last, LaneSums &sums, MatrixSums *matrix) {
  if (sees_gradient_alone(*row.measuring))
    inspect_blocks(row, kernels, first, last, sums);
  else if (row.is_f64())
    measure_typed<double>(row, kernels, coefficients, first, last, sums, matrix);
  else
    measure_typed<float>(row, kernels, coefficients, first, last, sums, matrix);
}

void inspect_blocks(const Row &row, const Kernels &kernels, int64_t first, int64_t last,
                    LaneSums &sums) {
  if (row.is_f64())
    inspect_typed<double>(row, kernels, first, last, sums);
  else
    inspect_typed<float>(row, kernels, first, last, sums);
}

} // namespace cosmic
