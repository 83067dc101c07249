#include "plan/transfer.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.h"
#include "isa/dispatch.h"
#include "isa/float_environment.h"
#include "plan/coefficients.h"
#include "plan/reader.h"

namespace cosmic {

namespace {

constexpr int64_t kRun = kCopyBlocks * kBlock;
static_assert(kCopyBlocks <= kStageBlocks, "moments are converted a few blocks at a time");
using MomentStage = Stage<float, kRun>;

// Calls visit(run, its first element) for a few blocks at a time; runs of a matrix know their
// item's sums.
template <class Visit>
void for_each_run(const Row &row, const Kernels &kernels, const Coefficients &c, Visit visit) {
  const int64_t blocks = row.blocks(), share = row.item_blocks();
  for (int64_t first = 0, item = 0; first < blocks; first += share, ++item) {
    MatrixSums sums;
    if (row.matrix) sums = row.matrix->open(item);
    MomentRun run{&row.step_pass.parts,        row.m, row.m_slow, row.v, 0, 0, &c,
                  row.matrix ? &sums : nullptr};
    for_each_run(row, first, std::min(first + share, blocks), kNone, [&](const Piece &piece) {
      put_at(run, row, kernels, piece);
      visit(run, piece.element);
    });
    if (row.matrix) row.matrix->close(item, sums);
  }
}

void check_convertible(const Row &row) {
  const Composition &parts = row.step_pass.parts;
  if (row.is_f64() || (parts.m == 0 && parts.v == 0))
    throw Error(ErrorKind::value, row.name + " has no moments of float arithmetic to convert");
}

bool has(const Planes &slot) { return slot.data[0] != nullptr; }

bool has_second(const Row &row) { return row.step_pass.parts.v != 0; }

struct MeanRoot {
  double sum = 0;
  int64_t count = 0;

  template <class Real> void add(const Real *v, int64_t numel) {
    for (int64_t k = 0; k < numel; ++k) {
      const double root = std::sqrt(static_cast<double>(v[k]));
      if (!std::isfinite(root)) continue;
      sum += root;
      ++count;
    }
  }
  double value() const { return count ? sum / static_cast<double>(count) : 0.0; }
};

} // namespace

void decode_moments(const Row &row, const Group &group, const Moments &to) {
  const DefaultFloatEnvironment environment;
  check_convertible(row);
  const Kernels &kernels = chosen_kernels();
  const Coefficients c = coefficients_for(row, group, 1.0, 0, 0);
  MomentStage m(to.m, kernels), slow(to.slow, kernels), v(to.v, kernels);
  if (row.matrix) row.matrix->prepare();
  for_each_run(row, kernels, c, [&](MomentRun run, int64_t first) {
    run.m_values = m.values();
    run.slow_values = slow.values();
    run.v_values = v.values();
    kernels.decode(run);
    if (has(row.m)) m.store(first, run.count);
    if (has(row.m_slow)) slow.store(first, run.count);
    if (has_second(row)) v.store(first, run.count);
  });
}

void encode_moments(Row &row, const Group &group, uint64_t seed, const Moments &from) {
  const DefaultFloatEnvironment environment;
  check_convertible(row);
  const Kernels &kernels = chosen_kernels();
  Coefficients c = coefficients_for(row, group, 1.0, seed, 0);
  MomentStage m(from.m, kernels), slow(from.slow, kernels), v(from.v, kernels);
  const auto encode_all = [&] {
    double encoded = 0;
    if (row.matrix) row.matrix->prepare();
    for_each_run(row, kernels, c, [&](MomentRun run, int64_t first) {
      run.m_values = has(row.m) ? m.load(first, run.count) : nullptr;
      run.slow_values = has(row.m_slow) ? slow.load(first, run.count) : nullptr;
      run.v_values = has_second(row) ? v.load(first, run.count) : nullptr;
      run.encoded = &encoded;
      kernels.encode(run);
    });
    if (row.matrix) {
      row.matrix->add_up();
      row.matrix->finish();
    }
    return encoded;
  };
  const double encoded = encode_all();
  if (!row.m_codec || !row.m_codec->start) return;
  row.m_codec->start(row.m_numbers, c, encoded, static_cast<double>(row.numel),
                     codec_step(row, group));
  encode_all();
}

void decode_param(const Row &row, const Operand &to) {
  MomentStage param(row.param, chosen_kernels());
  param.keep_low(row.low);
  for (int64_t first = 0; first < row.numel; first += kRun) {
    const int64_t count = std::min(kRun, row.numel - first);
    scatter(param.load(first, count), to.walk, item_size(DType::f32), first, count, to.data);
  }
}

double mean_root(const Row &row, const Group &group) {
  const DefaultFloatEnvironment environment;
  MeanRoot mean;
  if (row.is_f64()) {
    mean.add(static_cast<const double *>(row.v.data[0]), row.numel);
    return mean.value();
  }
  check_convertible(row);
  const Coefficients c = coefficients_for(row, group, 1.0, 0, 0);
  std::vector<float> m(kRun), slow(kRun), v(kRun);
  if (row.matrix) row.matrix->prepare();
  for_each_run(row, chosen_kernels(), c, [&](MomentRun run, int64_t /*first*/) {
    run.m_values = m.data();
    run.slow_values = slow.data();
    run.v_values = v.data();
    chosen_kernels().decode(run);
    mean.add(v.data(), run.count);
  });
  return mean.value();
}

} // namespace cosmic
