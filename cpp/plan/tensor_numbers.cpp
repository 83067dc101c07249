#include "plan/tensor_numbers.h"

#include <algorithm>
#include <cmath>

#include "isa/dispatch.h"
#include "kernels/kernels.h"

namespace cosmic {

namespace {

enum UStateNumber { kDecode, kEncode };

// The place of a percentile among `count` sorted numbers, as turboadam 0.1.0 takes it.
size_t lower_place(double share, int64_t count) {
  return static_cast<size_t>(
      std::max<int64_t>(0, static_cast<int64_t>(share * static_cast<double>(count)) - 1));
}
size_t upper_place(double share, int64_t count) {
  return static_cast<size_t>(
      std::min(count - 1, static_cast<int64_t>(share * static_cast<double>(count))));
}

// What is too large for a half stays as it is.
float to_half_and_back(float x) {
  const Kernels &kernels = chosen_kernels();
  float lanes[kLanes] = {x};
  uint16_t halves[kLanes];
  kernels.narrow_f16(lanes, kLanes, halves);
  kernels.widen_f16(halves, kLanes, lanes);
  return std::isfinite(lanes[0]) ? lanes[0] : x;
}

void classify_blocks(const Row &row, const Group &group) {
  const auto count = static_cast<int64_t>(row.ratios->size());
  if (count == 0) return;
  std::vector<float> sorted = *row.ratios;
  std::sort(sorted.begin(), sorted.end());
  const float null_below = sorted[lower_place(group.null_pct, count)];
  const float amplitude_from = sorted[upper_place(group.amp_pct, count)];
  auto *scales = static_cast<float *>(row.m.data[1]);
  for (int64_t b = 0; b < count; ++b) {
    const float ratio = (*row.ratios)[static_cast<size_t>(b)];
    if (ratio >= amplitude_from)
      scales[b] = to_half_and_back(scales[b]);
    else if (ratio < null_below)
      scales[b] = 0;
  }
}

} // namespace

void set_tensor_numbers(Coefficients &c, const Row &row, const Group &group) {
  if (row.m_codec == TensorCodec::ustate) {
    c.m_before = row.m_numbers[kDecode];
    const bool first = *row.step == row.m_start;
    c.m_now = first ? static_cast<float>(group.m_step_factor) : row.m_numbers[kEncode];
  }
  if (row.m_codec == TensorCodec::costate) c.m_before = row.m_numbers[0];
}

void set_measured_numbers(Coefficients &c, const Row &row) {
  if (row.m_codec != TensorCodec::costate) return;
  const double along = row.last.probed[0], square = row.last.probed[1];
  const auto alpha = static_cast<float>(square > 0 ? along / square : 0.0);
  c.m_now = std::isfinite(alpha) ? alpha : 0.0f;
}

float code_step(double square_sum, int64_t numel, double factor, float last) {
  const double step = std::sqrt(square_sum / static_cast<double>(numel)) * factor;
  return std::isfinite(step) ? static_cast<float>(step) : last;
}

void finish_tensor_numbers(Row &row, const Group &group, const Coefficients &c) {
  if (row.m_codec == TensorCodec::ustate) {
    row.m_numbers[kDecode] = static_cast<float>(c.m_now);
    row.m_numbers[kEncode] =
        code_step(row.last.encoded, row.numel, group.m_step_factor, static_cast<float>(c.m_now));
  }
  if (row.m_codec == TensorCodec::costate) {
    row.m_numbers[0] = static_cast<float>(c.m_now);
    classify_blocks(row, group);
  }
}

} // namespace cosmic
