// The plan's rows whose rule steps whole matrices.
#include <algorithm>
#include <cmath>
#include <memory>

#include "core/threads.h"
#include "isa/float_environment.h"
#include "plan/by_row.h"
#include "plan/plan.h"
#include "plan/side_by_side.h"
#include "plan/work.h"

namespace cosmic {

MatrixHow Plan::how_of(const Row &row) const {
  const Group &group = groups[static_cast<size_t>(row.group)];
  return row.rule->matrix(group, row.rule->options_in(group));
}

Plan::WholeRows Plan::whole_rows(int threads) {
  WholeRows out;
  std::vector<const MatrixStep *> matrices;
  for (size_t a = 0; a < active_.size(); ++a) {
    const Row &row = rows[static_cast<size_t>(active_[a])];
    if (!row.whole) continue;
    out.places.push_back(a);
    out.hows.push_back(how_of(row));
    matrices.push_back(row.whole.get());
  }
  if (matrices.empty()) return out;
  out.room = std::make_unique<MatrixRoom>(matrices, out.hows, threads);
  out.memory.reset(new float[static_cast<size_t>(out.room->floats())]);
  return out;
}

void Plan::step_whole_rows(const WholeRows &whole, const Kernels &kernels, int threads) {
  if (!whole.room) return;
  const MatrixRoom &room = *whole.room;
  const auto count = static_cast<int64_t>(whole.places.size());
#pragma omp parallel for schedule(dynamic)                                                         \
    num_threads(room.side_by_side()) if (room.side_by_side() > 1)
  for (int64_t k = 0; k < count; ++k) {
    const DefaultFloatEnvironment environment;
    const auto at = static_cast<size_t>(k);
    float *const memory = whole.memory.get() + thread_number() * room.of_small();
    if (room.is_small(at)) step_whole(kernels, whole.places[at], whole.hows[at], memory, 1);
  }
  for (size_t k = 0; k < whole.places.size(); ++k)
    if (!room.is_small(k))
      step_whole(kernels, whole.places[k], whole.hows[k], whole.memory.get(), std::max(threads, 1));
}

void Plan::step_whole(const Kernels &kernels, size_t a, const MatrixHow &how, float *memory,
                      int threads) {
  Row &row = rows[static_cast<size_t>(active_[a])];
  const int64_t items = first_item_[a + 1] - first_item_[a], share = row.item_blocks();
  ItemSums *const sums = item_sums_.data() + first_item_[a];
  const auto end_of = [&](int64_t item) { return std::min((item + 1) * share, row.blocks()); };
  for_each_side_by_side(items, threads, [&](int64_t item) {
    LaneSums lanes;
    step_aside(row, memory, kernels, coefficients_[a], item * share, end_of(item), lanes, nullptr);
    sums[item] = ItemSums(lanes);
    sums[item].square_update = 0; // of a matrix that does not move, and is not looked at
    sums[item].square_param = NAN;
  });
  if (!takes_turn(row.index, how.every, row.steps_taken())) {
    if (row.copy.data)
      for_each_side_by_side(items, threads, [&](int64_t item) {
        copy_blocks(row, kernels, item * share, end_of(item));
      });
    return;
  }
  row.whole->orthogonalize(kernels, how, memory, threads);
  if (gating().measures_whole(row)) gate_whole(kernels, a, memory, threads);
  if (row.by_row) {
    const double unit = 1 / row.last.rule_scale;
    row.last.gate *= RowGating<float>(gating(), row, kernels, memory, unit).scale(threads);
  }
  for_each_side_by_side(items, threads, [&](int64_t item) {
    LaneSums lanes;
    descend_blocks(row, memory, kernels, coefficients_[a], item * share, end_of(item), lanes);
    const ItemSums moved(lanes);
    sums[item].square_update = moved.square_update;
    sums[item].square_param = moved.square_param;
  });
}

void Plan::gate_whole(const Kernels &kernels, size_t a, const float *memory, int threads) {
  Row &row = rows[static_cast<size_t>(active_[a])];
  const int64_t items = first_item_[a + 1] - first_item_[a], share = row.item_blocks();
  const int64_t blocks = row.blocks();
  std::vector<ItemSums> found(static_cast<size_t>(items));
  for_each_side_by_side(items, threads, [&](int64_t item) {
    LaneSums lanes;
    measure_direction(row, memory, kernels, item * share, std::min((item + 1) * share, blocks),
                      lanes);
    found[static_cast<size_t>(item)] = ItemSums(lanes);
  });
  ItemSums all;
  for (const ItemSums &item : found) all.add(item);
  const auto n = static_cast<double>(row.numel);
  row.last.unscaled_rms = std::sqrt(all.square_update / n);
  row.last.param_rms = std::sqrt(all.square_param / n);
  gating().take_whole(a);
}

} // namespace cosmic
