// The plan as Python sees it: rows that hold a parameter, or a part of one, and its state dict.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/group_reader.h"
#include "bindings/held_state.h"
#include "bindings/place_reader.h"
#include "bindings/state_reader.h"
#include "core/tensor_watch.h"
#include "plan/plan.h"
#include "plan/transfer.h"

namespace cosmic {

class PlanBinding {
public:
  explicit PlanBinding(uint64_t seed) { plan_.seed = seed; }

  // A parameter without state: it is expected to have no gradient.
  void add_idle(const pybind11::object &param);

  // A dimension, where the part begins along it, and its size: of a DTensor in its local tensor,
  // which may have nothing of a part.
  using PartGiven = std::tuple<int, int64_t, int64_t>;

  // A parameter with the state of its rung, as tensors in `state`. Or a part of one, whose keys in
  // `state` begin with `prefix`; a parameter's parts come one after another, from the first element
  // of the dimension on.
  void add_row(const pybind11::object &param, const std::string &name, int group, uint32_t index,
               const std::string &rule, const std::string &m, const std::string &m_slow,
               const std::string &v, const std::string &gate, bool exact,
               const pybind11::dict &state, double lr_scale, const std::optional<PartGiven> &part,
               const std::string &prefix, const std::optional<PlaceGiven> &place,
               const std::optional<MatrixOfShard> &matrix);

  // Sums of rows with a place from now on go through `exchange(sums, rows)`, which adds to each of
  // `sums`, a buffer of doubles, those of the other shards, in place; `rows` says whose they are,
  // as (position among the plan's rows, how many). None: each shard's are its own.
  void set_exchange(const pybind11::object &exchange);

  // What the gate of a parameter group keeps of it.
  void set_memory(size_t group, std::shared_ptr<GateMemory> memory);

  // Steps every parameter that has a gradient and returns these parameters, and of those that wrap
  // others their local tensors, too; returns None, and has
  // changed nothing, if the plan no longer describes the groups and must be built anew. Where the
  // gate refuses the gradients, the list is empty and `refused` has them.
  // `states` is the optimizer's state by parameter.
  // `steps` counts the optimizer's steps before this one.
  // `copies`: None, or of each parameter None or a tensor in 16 bits that the step leaves a copy
  // in; those that it has written follow the parameters.
  pybind11::object step(const pybind11::list &groups, const pybind11::dict &states, int threads,
                        int64_t steps, const pybind11::object &copies);

  // As `step`, but only looks: (index of the row, mean of |g|, non-finite elements) a row.
  pybind11::object inspect(const pybind11::list &groups, const pybind11::dict &states, int threads);

  // A step whose parameters come one at a time, as their gradients do: `begin` it, then `step_one`
  // each. False, with nothing changed, if the plan no longer describes the groups.
  bool begin(const pybind11::list &groups, const pybind11::dict &states);

  // Steps `param`, the `position`-th of the groups' parameters, all its parts, and nothing else.
  // False, with nothing changed, if the plan no longer describes it. Costs nothing for the other
  // parameters.
  bool step_one(const pybind11::list &groups, const pybind11::dict &states, int threads,
                int64_t steps, size_t position, const pybind11::object &param,
                const pybind11::object &copy);

  // As `step_one`, but only looks: the non-finite elements of the gradient, or None.
  pybind11::object inspect_one(const pybind11::list &groups, const pybind11::dict &states,
                               int threads, size_t position, const pybind11::object &param);

  // Takes over what `before` has seen of a step that has begun and that this plan ends.
  void inherit(const PlanBinding &before);

  // The moments of the row added last, decoded to, or encoded from, the tensors exp_avg,
  // exp_avg_slow and exp_avg_sq of a dict, which have the parameter's shape.
  void read_moments(const pybind11::dict &group, const pybind11::dict &to) const;
  void write_moments(const pybind11::dict &group, const pybind11::dict &from);

  // The numbers of another rule with which the row added last, one with a second moment, goes on
  // when it gives up its moments.
  std::vector<double> started_numbers(const std::string &rule, const pybind11::dict &group) const;

  // The state that the rows were made with is the optimizer's now: its dicts, in which others may
  // keep entries, take the place of those that `add_row` was given. From now on `step` notices if
  // a parameter's dict is removed or exchanged, or another entry comes to `states`.
  void watch(const pybind11::dict &states);

  // What the last step saw, one tuple a row with a gradient:
  // (index, group, mean of |g|, RMS of the update before the learning rate, gate factor).
  pybind11::list statistics() const;

  // (index, non-finite elements) of each row for whose gradient the last step was refused.
  pybind11::list refused() const;

  int64_t nonfinite() const; // elements of gradients at the last step

private:
  struct Entry {
    pybind11::object param;
    bool wraps = false; // the parameter is a DTensor: what is stepped lies in its local tensor
    int row = -1;       // in plan_.rows; -1: idle
    std::optional<Slice> part; // of the parameter that the row steps; none: all of it
    pybind11::object state;
    std::string prefix;                    // of the row's keys in `state`
    HeldState held;                        // of `state`
    size_t first_watched = 0, watched = 0; // tensors of `held` in watch_
    SlotCodecs codecs;
    bool complex = false;
    TensorView param_view, grad_view, copy_view; // whole
    bool dense = true;                           // the whole parameter
    TensorView view;                             // what the row steps of it
    WalkOrder order;                             // of `view`
    bool gradient_bound = false;                 // grad_view describes the row's gradient
    bool copy_bound = false; // copy_view describes the copy that was last asked for
    bool distinct = false;   // known to share no memory with another active parameter
  };

  // Rows of one parameter, side by side; none: the plan must be built anew.
  struct RowRange {
    size_t first = 0, last = 0;
    bool empty() const { return first == last; }
  };
  // Gradients are held for as long as the rows' addresses are used.
  using Gradients = std::vector<pybind11::object>;

  // Takes note of which parameter an entry is of. Throws Error where parts do not follow each
  // other.
  void add_entry(Entry entry);
  bool refresh(const pybind11::list &groups, const pybind11::dict &states, Gradients &gradients);
  // The rows of one parameter with its gradient bound.
  RowRange refresh_one(const pybind11::list &groups, const pybind11::dict &states, size_t position,
                       const pybind11::object &param, Gradients &gradients);
  void mark(const RowRange &range, bool active);
  // One past the last of the entries of the `position`-th parameter.
  size_t end_of(size_t position) const {
    return position + 1 < firsts_.size() ? firsts_[position + 1] : entries_.size();
  }
  bool refresh_groups(const pybind11::list &groups);
  bool refresh_param(Entry &entry, Row &row);
  void check_gated(const Row &row) const;
  // False if some tensor of the row is not what it was made with; follows those that have moved.
  // `same` says that none has.
  bool refresh_tensors(Entry &entry, Row &row, bool same);
  static bool refresh_state(Entry &entry, Row &row);
  bool make_watch(); // false if a tensor has changed before it
  bool still_watched(PyObject *states) const;
  // Binds the gradient, or a copy that takes its place in `gradient` if it is a lazy view.
  void refresh_gradient(Entry &entry, Row &row, pybind11::object &gradient);
  // Binds the copies that rows with a gradient are to leave, of all parameters or of one.
  void refresh_copies(const pybind11::object &copies);
  void refresh_copy(size_t position, const pybind11::object &copy);
  static void bind_copy(Entry &entry, Row &row, PyObject *copy);
  void check_copies(size_t first, size_t last) const;
  // The memory of an entry's parameter.
  static pybind11::object local(const Entry &entry);
  bool check_all_overlaps();          // false if a parameter's geometry changed
  void check_overlaps(bool idle_too); // idle: rows without a gradient at this step
  Moments moments(const pybind11::dict &tensors) const;

  Plan plan_;
  std::vector<Entry> entries_; // in the order of the groups' parameters, and of their parts
  std::vector<size_t> firsts_; // by parameter, its first entry
  std::vector<GroupReader> readers_;
  std::unique_ptr<TensorWatch> watch_; // of the state; null: to be made anew
  size_t watched_tensors_ = 0;
  std::vector<const Entry *> watched_; // in the order of the optimizer's state
  Py_ssize_t watched_size_ = -1;       // of the optimizer's state; -1: it is not watched
  bool refused_ = false;               // the last step
  bool copying_ = false;               // some row may have a copy of an earlier call
};

} // namespace cosmic
