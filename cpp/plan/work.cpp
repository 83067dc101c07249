#include "plan/work.h"

#include <algorithm>

#include "plan/copy.h"
#include "plan/reader.h"

namespace cosmic {

namespace {

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
  run.square_update = pass.square_update;
  return run;
}

// What becomes of the parameter goes to `target`.
template <class Real> void step_typed(const Row &row, const Operand &target, const Kernels &kernels,
                                      const Coefficients &coefficients, int64_t first, int64_t last,
                                      LaneSums &sums, MatrixSums *matrix) {
  Reader<Real> param(target, kernels), grad(row.grad, kernels);
  const bool of_row = &target == &row.param;
  if (of_row) param.keep_low(row.low);
  if (row.stochastic_rounding && of_row)
    param.round_stochastically(coefficients.random_key, row.place);
  BlockRun run = run_of(row, row.step_pass, coefficients, sums, matrix);
  CopyWriter<Real> copy(row, kernels);
  const bool copies = row.copy.data && of_row;
  const int64_t in_place = both_in_place(param.in_place(), grad.in_place());
  for_each_run(row, first, last, copies ? copy.in_place(in_place) : in_place,
               [&](const Piece &piece) {
                 put_at(run, row, kernels, piece);
                 run.param = param.at(piece.element, piece.count);
                 run.gradient = grad.at(piece.element, piece.count);
                 kernels.step(run);
                 param.write_back(piece.element, piece.count);
                 if (copies)
                   copy.take(static_cast<const Real *>(run.param), piece.element, piece.count);
               });
}

// Reads the parameter only where its squares are asked for.
template <class Real> void measure_typed(Row &row, const Kernels &kernels,
                                         const Coefficients &coefficients, int64_t first,
                                         int64_t last, LaneSums &sums, MatrixSums *matrix) {
  Reader<Real> grad(row.grad, kernels), param(row, kernels);
  BlockRun run = run_of(row, *row.measuring, coefficients, sums, matrix);
  run.looks = row.looks.data();
  const bool reads = run.square_param;
  const int64_t in_place =
      reads ? both_in_place(param.in_place(), grad.in_place()) : grad.in_place();
  for_each_run(row, first, last, in_place, [&](const Piece &piece) {
    put_at(run, row, kernels, piece);
    run.gradient = grad.at(piece.element, piece.count);
    if (reads) run.param = param.at(piece.element, piece.count);
    kernels.measure(run);
  });
}

template <class Real> double move_typed(const Row &row, const Real *moves, const Kernels &kernels,
                                        const Coefficients &coefficients, int64_t first,
                                        int64_t last) {
  Reader<Real> param(row, kernels);
  if (row.stochastic_rounding) param.round_stochastically(coefficients.random_key, row.place);
  const auto decay = static_cast<Real>(coefficients.decay);
  double squares = 0;
  CopyWriter<Real> copy(row, kernels);
  const int64_t in_place = copy.in_place(param.in_place());
  for_each_run(row, first, last, in_place, [&](const Piece &piece) {
    Real *const p = param.at(piece.element, piece.count);
    for (int64_t k = 0; k < piece.count; ++k) {
      p[k] = decay * p[k] + moves[piece.element + k];
      squares += static_cast<double>(p[k]) * static_cast<double>(p[k]);
    }
    param.write_back(piece.element, piece.count);
    copy.take(p, piece.element, piece.count);
  });
  return squares;
}

template <class Real> void inspect_typed(const Row &row, const Kernels &kernels, int64_t first,
                                         int64_t last, LaneSums &sums) {
  Reader<Real> grad(row.grad, kernels);
  for_each_run(row, first, last, grad.in_place(), [&](const Piece &piece) {
    const Real *values = grad.at(piece.element, piece.count);
    if constexpr (sizeof(Real) == 4)
      kernels.inspect_f32(values, piece.count, &sums);
    else
      kernels.inspect_f64(values, piece.count, &sums);
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

void step_aside(const Row &row, void *memory, const Kernels &kernels,
                const Coefficients &coefficients, int64_t first, int64_t last, LaneSums &sums,
                MatrixSums *matrix) {
  const Operand target{memory, row.is_f64() ? DType::f64 : DType::f32, {}};
  if (row.is_f64())
    step_typed<double>(row, target, kernels, coefficients, first, last, sums, matrix);
  else
    step_typed<float>(row, target, kernels, coefficients, first, last, sums, matrix);
}

double move_blocks(const Row &row, const void *memory, const Kernels &kernels,
                   const Coefficients &coefficients, int64_t first, int64_t last) {
  return row.is_f64() ? move_typed(row, static_cast<const double *>(memory), kernels, coefficients,
                                   first, last)
                      : move_typed(row, static_cast<const float *>(memory), kernels, coefficients,
                                   first, last);
}

void descend_blocks(const Row &row, const float *memory, const Kernels &kernels,
                    const Coefficients &coefficients, int64_t first, int64_t last, LaneSums &sums) {
  Reader<float> param(row, kernels);
  if (row.stochastic_rounding) param.round_stochastically(coefficients.random_key, row.place);
  CopyWriter<float> copy(row, kernels);
  const int64_t in_place = copy.in_place(param.in_place());
  for_each_run(row, first, last, in_place, [&](const Piece &piece) {
    float *values = param.at(piece.element, piece.count);
    kernels.descend(values, memory + piece.element, piece.count, coefficients,
                    row.step_pass.square_param, &sums);
    param.write_back(piece.element, piece.count);
    copy.take(values, piece.element, piece.count);
  });
}

void copy_blocks(const Row &row, const Kernels &kernels, int64_t first, int64_t last) {
  Reader<float> param(row, kernels);
  CopyWriter<float> copy(row, kernels);
  for_each_run(row, first, last, kNone, [&](const Piece &piece) {
    copy.take(param.at(piece.element, piece.count), piece.element, piece.count);
  });
}

void measure_direction(const Row &row, const float *memory, const Kernels &kernels, int64_t first,
                       int64_t last, LaneSums &sums) {
  Reader<float> param(row, kernels);
  Coefficients still; // moves nothing
  for_each_run(row, first, last, kNone, [&](const Piece &piece) {
    alignas(64) float values[kCopyBlocks * kBlock] = {};
    std::copy_n(param.at(piece.element, piece.count), piece.count, values);
    kernels.descend(values, memory + piece.element, piece.count, still, true, &sums);
  });
}

void measure_blocks(Row &row, const Kernels &kernels, const Coefficients &coefficients,
                    int64_t first, int64_t last, LaneSums &sums, MatrixSums *matrix) {
  if (!row.measuring->sees_more())
    inspect_blocks(row, kernels, first, last, sums);
  else if (row.is_f64())
    measure_typed<double>(row, kernels, coefficients, first, last, sums, matrix);
  else
    measure_typed<float>(row, kernels, coefficients, first, last, sums, matrix);
}

void add_up_second(const Row &row, const Kernels &kernels, const Coefficients &coefficients,
                   int64_t first, int64_t last, MatrixSums &matrix) {
  alignas(64) float moved[kCopyBlocks * kBlock] = {}; // in the place of the parameter
  Reader<float> grad(row.grad, kernels);
  LaneSums sums;
  BlockRun run = run_of(row, row.second_pass, coefficients, sums, &matrix);
  run.param = moved;
  for_each_run(row, first, last, kNone, [&](const Piece &piece) {
    put_at(run, row, kernels, piece);
    run.gradient = grad.at(piece.element, piece.count);
    kernels.step(run);
  });
}

void inspect_blocks(const Row &row, const Kernels &kernels, int64_t first, int64_t last,
                    LaneSums &sums) {
  if (row.is_f64())
    inspect_typed<double>(row, kernels, first, last, sums);
  else
    inspect_typed<float>(row, kernels, first, last, sums);
}

} // namespace cosmic
