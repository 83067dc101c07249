// The compiled table of what a step does, and the one OpenMP region that does it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "plan/exchange.h"
#include "plan/gating.h"
#include "plan/row.h"

namespace cosmic {

class Plan {
public:
  std::vector<Row> rows;
  std::vector<Group> groups;
  std::vector<std::shared_ptr<GateMemory>> memories; // by group, of gates that keep any
  uint64_t seed = 0;
  const Kernels *forced_kernels = nullptr; // null: those of the process
  // Where rows are shards: sums over all of them. None: each shard's sums are its own. Whatever a
  // gate, a rule, a codec or a second moment by rows and columns is told of a tensor is exchanged,
  // but for what is found within the step: the norms of each row, the norms of a direction and the
  // direction itself, which rules of whole matrices find of the shard, and the percentiles of
  // blocks. What it throws leaves `step`, which then has changed what it had changed by then.
  ExchangeSums exchange;

  // Steps every active row on at most `threads` threads. The result does not depend on `threads`.
  // `steps`: the optimizer's steps before this one.
  // Everything that can fail has failed before the first element changes. False, with nothing
  // changed, if rows whose gate refuses them have gradients that are not finite: `last` has how
  // many.
  bool step(int threads, int64_t steps = 0);

  // As `step`, for the rows from `first` up to `last` alone: the same bits as in a step of all.
  // Other rows keep what is `last` known of them.
  void step_rows(size_t first, size_t last, int threads, int64_t steps);

  // Looks at every active row's gradient and fills `last`: |g| and non-finite elements.
  void inspect(int threads);
  void inspect_rows(size_t first, size_t last, int threads);

private:
  // Sums of one work item, reduced over lanes.
  struct ItemSums {
    double abs_gradient = 0, square_update = 0, square_param = 0;
    double probed[kProbeSums] = {};
    double encoded = 0;
    int64_t nonfinite = 0;

    ItemSums() = default;
    explicit ItemSums(const LaneSums &lanes);
    void add(const ItemSums &other);
  };

  // Sums of one row, and the same as they are exchanged.
  struct RowSums {
    ItemSums sums;
    double looked = 0; // of what a probe keeps by block
    std::vector<double> numbers;

    void lay_out();
    void take_back();
  };

  const Kernels &kernels_in_use() const {
    return forced_kernels ? *forced_kernels : chosen_kernels();
  }
  // Rows from `first` up to `last`.
  bool step_range(size_t first, size_t last, int threads, int64_t steps);
  void partition(size_t first, size_t last);
  void prepare(int64_t steps); // coefficients of the active rows
  // Of rows that are stepped side by side, by their shares in `elements`.
  template <class Work>
  void for_each_item(int threads, const std::vector<int64_t> &elements, Work work);
  template <class Visit> void for_each_matrix(int threads, Visit visit);
  // Sums of the rows that are marked, over what they are about to become.
  void measure(const Kernels &kernels, int threads);
  void measure_item(const Kernels &kernels, size_t a, int64_t item);
  // Second moments by rows and columns that divide as they will be kept.
  void look_ahead(const Kernels &kernels, int threads);
  // What codecs must know of this step before it.
  void measure_codecs(const Kernels &kernels, int threads);
  // What gates must. False if one refuses the gradients.
  bool measure_gates(const Kernels &kernels, int threads);
  void measure_samples(const std::vector<const GateSample *> &samples, bool first_look,
                       const Kernels &kernels, int threads);
  bool refused(const GateSample &sample) const;
  void mark(const std::vector<const GateSample *> &samples, bool first_look);
  Gating gating() { return {rows, active_, groups, memories, coefficients_}; }
  // Rows of rules that step whole matrices, in whole_rows.cpp.
  struct WholeRows {
    std::vector<size_t> places; // in active_
    std::vector<MatrixHow> hows;
    std::unique_ptr<MatrixRoom> room;
    std::unique_ptr<float[]> memory;
  };
  WholeRows whole_rows(int threads);
  void step_whole_rows(const WholeRows &whole, const Kernels &kernels, int threads);
  void step_whole(const Kernels &kernels, size_t a, const MatrixHow &how, float *memory,
                  int threads);
  // Rows whose gates look at each row of the tensor, in by_row.cpp.
  void step_rows_by_row(const Kernels &kernels, int threads);
  template <class Real> void step_by_row(const Kernels &kernels, size_t a, int threads);
  // What the gates of such a matrix must know of the direction in `memory`.
  void gate_whole(const Kernels &kernels, size_t a, const float *memory, int threads);
  MatrixHow how_of(const Row &row) const;
  void step_item(const Kernels &kernels, size_t a, int64_t item);
  // In reduction.cpp: after a step, of all active rows, together with what second moments by rows
  // and columns share; after a pass before it, of those that it measured; or of this process alone.
  enum class Reduced { stepped, measured, inspected };
  void reduce_rows(Reduced which);
  ItemSums add_up(size_t a) const;
  static void keep_sums(Row &row, const ItemSums &sums, int64_t elements);
  void add_matrices(SumExchange &exchanged, bool ahead);

  std::vector<int> active_;         // rows with a gradient, and an element in some shard
  std::vector<int64_t> first_item_; // of each active row, and their total at the end
  // Likewise for shares of equal size, of all, and without rows that are stepped as a whole.
  std::vector<int64_t> first_element_, first_shared_;
  std::vector<ItemSums> item_sums_;
  std::vector<Coefficients> coefficients_; // by position in active_
  std::vector<MatrixMoment *> matrices_;   // of the active rows
};

} // namespace cosmic
