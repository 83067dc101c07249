#include "bindings/plan_binding.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "parts/registry.h"
#include "plan/bind.h"
#include "plan/coefficients.h"
#include "plan/transfer.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// What a row's passes run: its gate looks in the step, for the next one, or before it.
void set_passes(Row &row, const SlotCodecs &codecs) {
  const PartsOf parts{row.is_f64(), row.rule, codecs.m, codecs.m_slow, codecs.v};
  check_combination(parts);
  row.step_pass = pass_of(parts, {row.rule, row.exact ? nullptr : row.gate});
  if (row.m_codec && row.m_codec->measured) row.codec_pass = pass_of(parts, {row.m_codec});
  if (row.exact) row.gate_pass = pass_of(parts, {row.gate});
}

// A matrix by itself: rows, columns, and how it is stacked.
using MatrixGiven = std::tuple<int64_t, int64_t, int, std::vector<int64_t>>;

MatrixStep matrix_of(const MatrixGiven &given) {
  const auto &[rows, columns, along, stack] = given;
  const TensorView view = dense_matrix(rows, columns);
  return {view, walk_order(view), Stack{along, stack}, "the parameter"};
}

// Bytes that a step takes besides for matrices that `rule` steps, each in a group.
int64_t scratch_of_matrices(const std::string &rule, const std::vector<MatrixGiven> &matrices,
                            const py::list &groups, int threads) {
  const RulePart *part = rule_named(rule);
  std::vector<MatrixStep> made;
  std::vector<MatrixHow> hows;
  for (size_t k = 0; k < matrices.size(); ++k) {
    Group group;
    GroupReader().read(groups[k], 0, group);
    made.push_back(matrix_of(matrices[k]));
    hows.push_back(part->matrix(group, part->options_in(group)));
  }
  std::vector<const MatrixStep *> places;
  places.reserve(made.size());
  for (const MatrixStep &each : made) places.push_back(&each);
  return MatrixRoom(places, hows, threads).floats() * static_cast<int64_t>(sizeof(float));
}

} // namespace

void PlanBinding::add_idle(const py::object &param) {
  Entry entry;
  entry.param = param;
  entries_.push_back(std::move(entry));
}

void PlanBinding::add_row(const py::object &param, const std::string &name, int group,
                          uint32_t index, const std::string &rule, const std::string &m,
                          const std::string &m_slow, const std::string &v, const std::string &gate,
                          bool exact, const py::dict &state, int stacked_along,
                          const std::vector<int64_t> &stack, double lr_scale) {
  Entry entry;
  Row row;
  entry.param = param;
  entry.state = state;
  row.name = name;
  row.group = group;
  row.lr_scale = lr_scale;
  row.index = index;
  row.rule = rule_named(rule);
  if (!row.rule) throw Error(ErrorKind::value, "rule is 'none'; expected a rule's name");
  row.gate = gate_named(gate);
  row.exact = row.gate && exact;
  entry.codecs = {codec_named(m), codec_named(m_slow), codec_named(v)};
  row.m_codec = entry.codecs.m;
  entry.param_view = read_tensor(param.ptr(), name);
  entry.complex =
      PyObject_HasAttrString(param.ptr(), "is_complex") && param.attr("is_complex")().cast<bool>();
  if (entry.param_view.numel() > 0) place_of(param.ptr(), name); // within its storage
  entry.order = bind_param(row, entry.param_view);
  set_passes(row, entry.codecs);
  if (row.rule->matrix)
    row.whole = std::make_shared<MatrixStep>(entry.param_view, entry.order,
                                             Stack{stacked_along, stack}, name);
  entry.held = HeldState(state);
  bind_state(row, state, entry.codecs, entry.param_view, entry.order);
  entry.row = static_cast<int>(plan_.rows.size());
  plan_.rows.push_back(std::move(row));
  entries_.push_back(std::move(entry));
}

void PlanBinding::set_memory(size_t group, std::shared_ptr<GateMemory> memory) {
  if (plan_.memories.size() <= group) plan_.memories.resize(group + 1);
  plan_.memories[group] = std::move(memory);
}

py::object PlanBinding::step(const py::list &groups, const py::dict &states, int threads,
                             int64_t steps) {
  std::vector<py::object> gradients; // held while the GIL is away
  if (!refresh(groups, states, gradients)) return py::none();
  for (const Row &row : plan_.rows)
    if (row.active) check_gated(row);
  {
    const py::gil_scoped_release released;
    refused_ = !plan_.step(threads, steps);
  }
  py::list stepped;
  if (refused_) return stepped;
  for (const Entry &entry : entries_)
    if (entry.row >= 0 && plan_.rows[static_cast<size_t>(entry.row)].active)
      stepped.append(entry.param);
  return stepped;
}

bool PlanBinding::begin(const py::list &groups, const py::dict &states) {
  if (!refresh_groups(groups) || !still_watched(states.ptr())) return false;
  for (Row &row : plan_.rows) {
    row.active = false;
    row.last = Statistics{};
  }
  return true;
}

bool PlanBinding::step_one(const py::list &groups, const py::dict &states, int threads,
                           int64_t steps, size_t position, const py::object &param) {
  py::object gradient; // held while the GIL is away
  Row *row = refresh_one(groups, states, position, param, gradient);
  if (!row) return false;
  row->active = true;
  const py::gil_scoped_release released;
  plan_.step_row(static_cast<size_t>(row - plan_.rows.data()), threads, steps);
  return true;
}

py::object PlanBinding::inspect_one(const py::list &groups, const py::dict &states, int threads,
                                    size_t position, const py::object &param) {
  py::object gradient;
  Row *row = refresh_one(groups, states, position, param, gradient);
  if (!row) return py::none();
  row->active = true;
  {
    const py::gil_scoped_release released;
    plan_.inspect_row(static_cast<size_t>(row - plan_.rows.data()), threads);
  }
  const int64_t found = row->last.nonfinite;
  row->active = false; // it has not been stepped
  row->last = Statistics{};
  return py::int_(found);
}

void PlanBinding::inherit(const PlanBinding &before) {
  for (size_t k = 0; k < std::min(entries_.size(), before.entries_.size()); ++k) {
    const Entry &to = entries_[k], &from = before.entries_[k];
    if (to.param.ptr() != from.param.ptr() || to.row < 0 || from.row < 0) continue;
    const Row &seen = before.plan_.rows[static_cast<size_t>(from.row)];
    Row &row = plan_.rows[static_cast<size_t>(to.row)];
    row.active = seen.active;
    row.last = seen.last;
  }
}

py::object PlanBinding::inspect(const py::list &groups, const py::dict &states, int threads) {
  std::vector<py::object> gradients;
  if (!refresh(groups, states, gradients)) return py::none();
  {
    const py::gil_scoped_release released;
    plan_.inspect(threads);
  }
  py::list found;
  for (const Row &row : plan_.rows)
    if (row.active)
      found.append(py::make_tuple(row.index, row.last.mean_abs_gradient, row.last.nonfinite));
  return found;
}

Moments PlanBinding::moments(const py::dict &tensors) const {
  const Entry &entry = entries_.back();
  const auto operand = [&](const char *key) -> Operand {
    if (!tensors.contains(key)) return {};
    const TensorView view = read_tensor(py::object(tensors[key]).ptr(), key);
    if (!view.same_sizes(entry.param_view) || view.dtype == DType::f64)
      throw Error(ErrorKind::value, std::string(key) + " is " + dtype_name(view.dtype) +
                                        " of shape " + sizes_text(view) +
                                        "; expected float32, bfloat16 or float16 of shape " +
                                        sizes_text(entry.param_view));
    return {view.data, view.dtype, walk_along(view, entry.order)};
  };
  const Moments out{operand("exp_avg"), operand("exp_avg_slow"), operand("exp_avg_sq")};
  const Row &row = plan_.rows.back();
  const Composition &parts = row.step_pass.parts;
  const bool complete =
      (out.m.data || !parts.m) && (out.slow.data || !parts.m_slow) && (out.v.data || !parts.v);
  if (row.numel > 0 && !complete)
    throw Error(ErrorKind::value, "moments of " + row.name + " are missing");
  return out;
}

void PlanBinding::read_moments(const py::dict &group, const py::dict &to) const {
  Group parsed;
  GroupReader().read(group, 0, parsed);
  decode_moments(plan_.rows.back(), parsed, moments(to));
}

void PlanBinding::write_moments(const py::dict &group, const py::dict &from) {
  Group parsed;
  GroupReader().read(group, 0, parsed);
  encode_moments(plan_.rows.back(), parsed, plan_.seed, moments(from));
}

std::vector<double> PlanBinding::started_numbers(const std::string &rule,
                                                 const py::dict &group) const {
  Group parsed;
  GroupReader().read(group, 0, parsed);
  const Row &row = plan_.rows.back();
  return cosmic::started_numbers(*rule_named(rule), mean_root(row, parsed), row, parsed);
}

py::list PlanBinding::statistics() const {
  py::list out;
  for (const Row &row : plan_.rows)
    if (row.active)
      out.append(py::make_tuple(row.index, row.group, row.last.mean_abs_gradient,
                                row.last.update_rms, row.last.gate));
  return out;
}

py::list PlanBinding::refused() const {
  py::list out;
  for (const Row &row : plan_.rows)
    if (refused_ && row.last.nonfinite) out.append(py::make_tuple(row.index, row.last.nonfinite));
  return out;
}

int64_t PlanBinding::nonfinite() const {
  int64_t total = 0;
  for (const Row &row : plan_.rows) total += row.last.nonfinite;
  return total;
}

void register_plan(py::module_ &m) {
  py::class_<PlanBinding>(m, "Plan")
      .def(py::init<uint64_t>(), py::arg("seed"))
      .def("add_idle", &PlanBinding::add_idle, py::arg("param"))
      .def("add_row", &PlanBinding::add_row, py::arg("param"), py::arg("name"), py::arg("group"),
           py::arg("index"), py::arg("rule"), py::arg("m"), py::arg("m_slow"), py::arg("v"),
           py::arg("gate"), py::arg("exact"), py::arg("state"), py::arg("stacked_along") = 0,
           py::arg("stack") = std::vector<int64_t>{}, py::arg("lr_scale") = 1.0)
      .def("set_memory", &PlanBinding::set_memory, py::arg("group"), py::arg("memory"))
      .def("step", &PlanBinding::step, py::arg("groups"), py::arg("states"), py::arg("threads"),
           py::arg("steps"))
      .def("inspect", &PlanBinding::inspect, py::arg("groups"), py::arg("states"),
           py::arg("threads"))
      .def("begin", &PlanBinding::begin, py::arg("groups"), py::arg("states"))
      .def("step_one", &PlanBinding::step_one, py::arg("groups"), py::arg("states"),
           py::arg("threads"), py::arg("steps"), py::arg("position"), py::arg("param"))
      .def("inspect_one", &PlanBinding::inspect_one, py::arg("groups"), py::arg("states"),
           py::arg("threads"), py::arg("position"), py::arg("param"))
      .def("inherit", &PlanBinding::inherit, py::arg("before"))
      .def("read_moments", &PlanBinding::read_moments, py::arg("group"), py::arg("to"))
      .def("write_moments", &PlanBinding::write_moments, py::arg("group"), py::arg("source"))
      .def("started_numbers", &PlanBinding::started_numbers, py::arg("rule"), py::arg("group"))
      .def("watch", &PlanBinding::watch, py::arg("states"))
      .def("statistics", &PlanBinding::statistics)
      .def_property_readonly("refused", &PlanBinding::refused)
      .def_property_readonly("nonfinite", &PlanBinding::nonfinite);
  m.def(
      "check_group",
      [](const py::dict &group, int index) {
        Group parsed;
        GroupReader().read(group, index, parsed);
      },
      py::arg("group"), py::arg("index"));
  m.def("combinations", &combination_names);
  m.def("scratch_of_matrices", &scratch_of_matrices, py::arg("rule"), py::arg("matrices"),
        py::arg("groups"), py::arg("threads"));
}

} // namespace cosmic
