#include "bindings/plan_binding.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <tuple>
#include <utility>

#include "bindings/register.h"
#include "bindings/shard_reader.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "parts/registry.h"
#include "plan/bind.h"
#include "plan/coefficients.h"
#include "plan/transfer.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// Gates by their names, joined by a plus, in the order of the registry.
std::vector<RowGate> gates_named(const std::string &names) {
  std::set<const GatePart *> asked;
  std::istringstream words(names);
  for (std::string name; std::getline(words, name, '+');)
    if (const GatePart *part = gate_named(name)) asked.insert(part);
  std::vector<RowGate> out;
  std::set<std::string> keys;
  for (const GatePart *part : all_gates())
    if (asked.count(part))
      out.push_back({part, nullptr, !part->numbers || keys.insert(part->numbers.key).second});
  return out;
}

// What a row's passes run: its gates look in the step, for the next one, or before it, as they also
// do where they know nothing yet.
void set_passes(Row &row, const SlotCodecs &codecs) {
  const PartsOf parts{row.is_f64(), row.rule, codecs.m, codecs.m_slow, codecs.v};
  check_combination(parts);
  std::vector<const Part *> lagged = {row.rule}, measured;
  for (const RowGate &gate : row.gates) {
    if (!row.exact) lagged.push_back(gate.part);
    if (row.exact || gate.part->starts) measured.push_back(gate.part);
  }
  row.step_pass = pass_of(parts, lagged);
  if (row.m_codec && row.m_codec->measured) row.codec_pass = pass_of(parts, {row.m_codec});
  row.gate_pass = pass_of(parts, measured);
  row.gate_pass.square_update = row.asks_for_update();
  if (row.rule->second_ahead) row.second_pass = second_alone(codecs.v);
}

// A matrix by itself: rows, columns.
using MatrixGiven = std::tuple<int64_t, int64_t>;

MatrixStep matrix_of(const MatrixGiven &given) {
  const auto &[rows, columns] = given;
  const TensorView view = dense_matrix(rows, columns);
  return {view, walk_order(view), "the parameter"};
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

// Whether one of the gates of a group looks at all of its tensors together.
bool looks_together(const std::string &gates, const py::dict &group, int index) {
  Group parsed;
  GroupReader().read(group, index, parsed);
  const std::vector<RowGate> asked = gates_named(gates);
  return std::any_of(asked.begin(), asked.end(),
                     [&](const RowGate &gate) { return gate.part->looks_together(parsed); });
}

Slice slice_of(const PlanBinding::PartGiven &given, const TensorView &param, bool of_shard,
               const std::string &name) {
  const auto &[dimension, start, size] = given;
  const Slice slice{dimension, start, size};
  const bool has_dimension = dimension >= 0 && dimension < param.ndim;
  const bool nothing = of_shard && has_dimension && size == 0 && start >= 0;
  if (slice.lies_within(param) || (nothing && start <= param.sizes[dimension])) return slice;
  throw Error(ErrorKind::value, name + " is said to be " + std::to_string(size) +
                                    " elements from " + std::to_string(start) +
                                    " on along dimension " + std::to_string(dimension) +
                                    " of a parameter of shape " + sizes_text(param));
}

} // namespace

void PlanBinding::add_idle(const py::object &param) {
  Entry entry;
  entry.param = param;
  add_entry(std::move(entry));
}

void PlanBinding::add_entry(Entry entry) {
  const Entry *before = entries_.empty() ? nullptr : &entries_.back();
  if (before && before->param.ptr() != entry.param.ptr()) before = nullptr;
  const bool continues = entry.part && (before || entry.part->start > 0);
  if (continues) {
    const bool follows = before && before->part &&
                         before->part->dimension == entry.part->dimension &&
                         before->part->start + before->part->size == entry.part->start;
    if (!follows)
      throw Error(ErrorKind::value,
                  "a part begins at " + std::to_string(entry.part->start) +
                      " of its parameter; expected it where the part before ends");
  } else {
    firsts_.push_back(entries_.size());
  }
  entries_.push_back(std::move(entry));
}

void PlanBinding::add_row(const py::object &param, const std::string &name, int group,
                          uint32_t index, const std::string &rule, const std::string &m,
                          const std::string &m_slow, const std::string &v, const std::string &gate,
                          bool exact, const py::dict &state, double lr_scale,
                          const std::optional<PartGiven> &part, const std::string &prefix,
                          const std::optional<PlaceGiven> &place,
                          const std::optional<MatrixOfShard> &matrix) {
  Entry entry;
  Row row;
  entry.param = param;
  entry.state = state;
  entry.prefix = prefix;
  row.name = name;
  row.group = group;
  row.lr_scale = lr_scale;
  row.index = index;
  row.rule = rule_named(rule);
  if (!row.rule) throw Error(ErrorKind::value, "rule is 'none'; expected a rule's name");
  row.gates = gates_named(gate);
  row.exact = !row.gates.empty() && exact;
  for (const RowGate &each : row.gates)
    if (each.part->exact_only && !exact)
      throw Error(ErrorKind::value, "gate '" + each.part->name + "' of " + name +
                                        " measures before the step; expected exact=True");
  entry.codecs = {codec_named(m), codec_named(m_slow), codec_named(v)};
  row.m_codec = entry.codecs.m;
  entry.wraps = wraps_local(param.ptr());
  const py::object here = local(entry);
  entry.param_view = read_tensor(here.ptr(), name);
  entry.complex =
      PyObject_HasAttrString(here.ptr(), "is_complex") && here.attr("is_complex")().cast<bool>();
  if (entry.param_view.numel() > 0) place_of(here.ptr(), name); // within its storage
  entry.view = entry.param_view;
  entry.order = bind_param(row, entry.param_view);
  entry.dense = entry.order.dense;
  if (part) {
    entry.part = slice_of(*part, entry.param_view, entry.wraps, name);
    entry.view = narrowed(entry.param_view, *entry.part);
    entry.order = bind_param(row, entry.view);
  }
  set_passes(row, entry.codecs);
  if (place) {
    put_shard(row, *place, matrix, entry.codecs, entry.view, entry.order);
  }
  if (row.rule->matrix && !(row.shard && row.numel == 0))
    row.whole = std::make_shared<MatrixStep>(entry.view, entry.order, name);
  entry.held = HeldState(state, prefix);
  bind_state(row, state, prefix, entry.codecs, entry.view, entry.order);
  entry.row = static_cast<int>(plan_.rows.size());
  add_entry(std::move(entry));
  plan_.rows.push_back(std::move(row));
}

void PlanBinding::set_exchange(const py::object &exchange) {
  plan_.exchange = exchange_through(exchange);
}

void PlanBinding::set_memory(size_t group, std::shared_ptr<GateMemory> memory) {
  if (plan_.memories.size() <= group) plan_.memories.resize(group + 1);
  plan_.memories[group] = std::move(memory);
}

py::object PlanBinding::step(const py::list &groups, const py::dict &states, int threads,
                             int64_t steps, const py::object &copies) {
  Gradients gradients; // held while the GIL is away
  if (!refresh(groups, states, gradients)) return py::none();
  const py::list given = copies.is_none() ? py::list() : py::list(copies); // held likewise
  refresh_copies(copies);
  for (const Row &row : plan_.rows)
    if (row.active) check_gated(row);
  {
    const py::gil_scoped_release released;
    refused_ = !plan_.step(threads, steps);
  }
  py::list stepped, written;
  if (refused_) return stepped;
  for (size_t p = 0; p < firsts_.size(); ++p) {
    const Entry &entry = entries_[firsts_[p]];
    if (entry.row < 0 || !plan_.rows[static_cast<size_t>(entry.row)].active) continue;
    stepped.append(entry.param);
    if (entry.wraps) stepped.append(local(entry));
    if (copying_ && !given[p].is_none()) written.append(given[p]);
  }
  for (const py::handle copy : written) stepped.append(copy);
  return stepped;
}

bool PlanBinding::begin(const py::list &groups, const py::dict &states) {
  if (!refresh_groups(groups) || !still_watched(states.ptr())) return false;
  for (Row &row : plan_.rows) {
    for (const RowGate &gate : row.gates)
      if (gate.part->looks_together(plan_.groups[static_cast<size_t>(row.group)]))
        throw Error(ErrorKind::value, "gate '" + gate.part->name + "' of param_groups[" +
                                          std::to_string(row.group) +
                                          "] looks at all tensors of the group together; a step "
                                          "in backward has one at a time");
    row.active = false;
    row.last = Statistics{};
  }
  return true;
}

bool PlanBinding::step_one(const py::list &groups, const py::dict &states, int threads,
                           int64_t steps, size_t position, const py::object &param,
                           const py::object &copy) {
  Gradients gradients; // held while the GIL is away
  const RowRange range = refresh_one(groups, states, position, param, gradients);
  if (range.empty()) return false;
  refresh_copy(position, copy);
  mark(range, true);
  const py::gil_scoped_release released;
  plan_.step_rows(range.first, range.last, threads, steps);
  return true;
}

void PlanBinding::mark(const RowRange &range, bool active) {
  for (size_t r = range.first; r < range.last; ++r) plan_.rows[r].active = active;
}

py::object PlanBinding::inspect_one(const py::list &groups, const py::dict &states, int threads,
                                    size_t position, const py::object &param) {
  Gradients gradients;
  const RowRange range = refresh_one(groups, states, position, param, gradients);
  if (range.empty()) return py::none();
  mark(range, true);
  {
    const py::gil_scoped_release released;
    plan_.inspect_rows(range.first, range.last, threads);
  }
  int64_t found = 0;
  for (size_t r = range.first; r < range.last; ++r) {
    found += plan_.rows[r].last.nonfinite;
    plan_.rows[r].last = Statistics{};
  }
  mark(range, false); // it has not been stepped
  return py::int_(found);
}

void PlanBinding::inherit(const PlanBinding &before) {
  for (size_t p = 0; p < std::min(firsts_.size(), before.firsts_.size()); ++p) {
    const size_t first = firsts_[p], from = before.firsts_[p], count = end_of(p) - first;
    if (entries_[first].param.ptr() != before.entries_[from].param.ptr()) continue;
    if (before.end_of(p) - from != count) continue; // in other parts
    for (size_t k = 0; k < count; ++k) {
      const Entry &to = entries_[first + k], &old = before.entries_[from + k];
      if (to.row < 0 || old.row < 0) continue;
      const Row &seen = before.plan_.rows[static_cast<size_t>(old.row)];
      Row &row = plan_.rows[static_cast<size_t>(to.row)];
      row.active = seen.active;
      row.last = seen.last;
    }
  }
}

py::object PlanBinding::inspect(const py::list &groups, const py::dict &states, int threads) {
  Gradients gradients;
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
    if (!view.same_sizes(entry.view) || view.dtype == DType::f64)
      throw Error(ErrorKind::value, std::string(key) + " is " + dtype_name(view.dtype) +
                                        " of shape " + sizes_text(view) +
                                        "; expected float32, bfloat16 or float16 of shape " +
                                        sizes_text(entry.view));
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

void register_plan(py::module_ &m) {
  py::class_<PlanBinding>(m, "Plan")
      .def(py::init<uint64_t>(), py::arg("seed"))
      .def("add_idle", &PlanBinding::add_idle, py::arg("param"))
      .def("add_row", &PlanBinding::add_row, py::arg("param"), py::arg("name"), py::arg("group"),
           py::arg("index"), py::arg("rule"), py::arg("m"), py::arg("m_slow"), py::arg("v"),
           py::arg("gate"), py::arg("exact"), py::arg("state"), py::arg("lr_scale") = 1.0,
           py::arg("part") = py::none(), py::arg("prefix") = "", py::arg("place") = py::none(),
           py::arg("matrix") = py::none())
      .def("set_exchange", &PlanBinding::set_exchange, py::arg("exchange"))
      .def("set_memory", &PlanBinding::set_memory, py::arg("group"), py::arg("memory"))
      .def("step", &PlanBinding::step, py::arg("groups"), py::arg("states"), py::arg("threads"),
           py::arg("steps"), py::arg("copies") = py::none())
      .def("inspect", &PlanBinding::inspect, py::arg("groups"), py::arg("states"),
           py::arg("threads"))
      .def("begin", &PlanBinding::begin, py::arg("groups"), py::arg("states"))
      .def("step_one", &PlanBinding::step_one, py::arg("groups"), py::arg("states"),
           py::arg("threads"), py::arg("steps"), py::arg("position"), py::arg("param"),
           py::arg("copy") = py::none())
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
  m.def("looks_together",
        py::overload_cast<const std::string &, const py::dict &, int>(&looks_together),
        py::arg("gates"), py::arg("group"), py::arg("index"));
  m.def("combinations", &combination_names);
  m.def("scratch_of_matrices", &scratch_of_matrices, py::arg("rule"), py::arg("matrices"),
        py::arg("groups"), py::arg("threads"));
}

} // namespace cosmic
