#include "plan/agar.h"

namespace cosmic {

namespace {

enum Sum { kAbsM, kV, kRatio }; // as gates/agar_probe.h adds them up

} // namespace

void AgarSample::add_up(const std::vector<Row> &rows, const std::vector<int> &active) {
  double numel = 0, abs_m = 0, v = 0, ratio = 0;
  for (size_t a = first; a < last; ++a) {
    const Row &row = rows[static_cast<size_t>(active[a])];
    numel += static_cast<double>(row.numel);
    abs_m += row.last.probed[kAbsM];
    v += row.last.probed[kV];
    ratio += row.last.probed[kRatio];
  }
  mean_abs_m = abs_m / numel;
  mean_v = v / numel;
  agar = agar_of(ratio, numel);
}

void AgarSample::add_up_looks(const std::vector<Row> &rows, const std::vector<int> &active) {
  double numel = 0, ratio = 0;
  for (size_t a = first; a < last; ++a) {
    const Row &row = rows[static_cast<size_t>(active[a])];
    numel += static_cast<double>(row.numel);
    for (const BlockLook &look : row.looks) ratio += look.ratio;
  }
  agar = agar_of(ratio, numel);
}

std::vector<AgarSample> agar_samples(AgarKind kind, const std::vector<Row> &rows,
                                     const std::vector<int> &active, std::vector<AgarGate> &gates) {
  std::vector<AgarSample> out;
  int group = -1; // of the last sample
  for (size_t a = 0; a < active.size(); ++a) {
    const Row &row = rows[static_cast<size_t>(active[a])];
    if (row.agar_kind != kind) continue;
    AgarGate &gate = gates[static_cast<size_t>(row.group)];
    if (row.group == group && !gate.by_tensor)
      out.back().last = a + 1;
    else
      out.push_back({&gate, a, a + 1});
    group = row.group;
  }
  return out;
}

void set_agar_limits(Coefficients &c, const AgarGate &gate, double mean_abs_m, double mean_v) {
  c.m_limit = gate.clamp_factor * (mean_abs_m + c.eps);
  c.v_limit = gate.clamp_factor * (mean_v + c.eps);
}

void scale_update(Coefficients &c, Row &row, double factor) {
  row.last.gate = factor;
  c.update_scale *= factor;
  c.step *= factor;
}

} // namespace cosmic
