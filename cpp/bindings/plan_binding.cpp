#include "bindings/plan_binding.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "core/overlap.h"
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
  row.step_pass = pass_of(parts, {row.exact ? nullptr : row.gate});
  if (row.m_codec && row.m_codec->measured) row.codec_pass = pass_of(parts, {row.m_codec});
  if (row.exact) row.gate_pass = pass_of(parts, {row.gate});
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
                          bool exact, const py::dict &state) {
  Entry entry;
  Row row;
  entry.param = param;
  entry.state = state;
  row.name = name;
  row.group = group;
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

bool PlanBinding::refresh_groups(const py::list &groups) {
  for (const py::handle group : groups)
    if (!PyDict_Check(group.ptr())) return false;
  readers_.resize(groups.size());
  plan_.groups.resize(groups.size());
  for (size_t k = 0; k < groups.size(); ++k)
    readers_[k].read(py::reinterpret_borrow<py::dict>(groups[k]), static_cast<int>(k),
                     plan_.groups[k]);
  static PyObject *params_key = PyUnicode_InternFromString("params");
  size_t e = 0;
  for (const py::handle group : groups) {
    PyObject *params = PyDict_GetItemWithError(group.ptr(), params_key);
    if (!params || !(PyList_Check(params) || PyTuple_Check(params))) return false;
    PyObject *const *items = PySequence_Fast_ITEMS(params);
    for (Py_ssize_t k = 0; k < PySequence_Fast_GET_SIZE(params); ++k, ++e)
      if (e >= entries_.size() || entries_[e].param.ptr() != items[k]) return false;
  }
  return e == entries_.size();
}

bool PlanBinding::refresh_param(Entry &entry, Row &row) {
  void *data = data_if_unchanged(entry.param.ptr(), entry.param_view, row.name);
  if (!data || data != row.param.data) { // elsewhere: it may be a lazy view of other memory by now
    const TensorView view = read_tensor(entry.param.ptr(), row.name);
    if (!view.same_geometry(entry.param_view)) return false;
    data = view.data;
  }
  if (data != row.param.data) {
    if (row.numel > 0) place_of(entry.param.ptr(), row.name); // within its storage
    row.param.data = entry.param_view.data = data;
    entry.distinct = false;
  }
  return true;
}

void PlanBinding::check_gated(const Row &row) const {
  const auto group = static_cast<size_t>(row.group);
  const auto &memories = plan_.memories;
  if (row.gate && row.gate->remember && (group >= memories.size() || !memories[group]))
    throw Error(ErrorKind::runtime, "param_groups[" + std::to_string(row.group) + "] has gate '" +
                                        row.gate->name + "', but the plan has no memory of it");
}

bool PlanBinding::make_watch() {
  py::list tensors, addresses;
  for (Entry &entry : entries_) {
    if (entry.row < 0) continue;
    if (!entry.held.is_within(entry.state.ptr()) ||
        !refresh_state(entry, plan_.rows[static_cast<size_t>(entry.row)]))
      return false;
    entry.first_watched = tensors.size();
    entry.held.append_to(tensors, addresses);
    entry.watched = tensors.size() - entry.first_watched;
  }
  watched_tensors_ = tensors.size();
  const py::object watch = py::module_::import("cosmic.ops").attr("_watch");
  const auto address = static_cast<intptr_t>(watch(tensors, addresses).cast<int64_t>());
  watch_.reset(reinterpret_cast<TensorWatch *>(address)); // null: each is looked at through Python
  return true;
}

bool PlanBinding::refresh_tensors(Entry &entry, Row &row, bool same) {
  if (!entry.held.is_within(entry.state.ptr()) || !refresh_param(entry, row)) return false;
  if (same || (watch_ && watch_->same(entry.first_watched, entry.watched))) return true;
  watch_.reset();
  return refresh_state(entry, row);
}

bool PlanBinding::refresh_state(Entry &entry, Row &row) {
  const HeldState::Seen seen = entry.held.look(row.name);
  if (seen == HeldState::Seen::changed) return false;
  entry.held.follow(row.name); // which looks whether they lie within their storages
  if (seen == HeldState::Seen::same) return true;
  bind_state(row, entry.held.own(), entry.codecs, entry.param_view, entry.order);
  return true;
}

void PlanBinding::refresh_gradient(Entry &entry, Row &row, py::object &gradient) {
  static const std::string kWhat = "gradient";
  try {
    if (entry.gradient_bound && !can_be_negated(entry.grad_view)) {
      row.grad.data = data_if_unchanged(gradient.ptr(), entry.grad_view, kWhat);
      if (row.grad.data) return;
    }
    entry.gradient_bound = false;
    gradient = resolved(std::move(gradient), entry.complex);
    entry.grad_view = read_tensor(gradient.ptr(), kWhat);
  } catch (const Error &error) { // composing a name costs: only where a message needs it
    throw Error(error.kind, row.name + ": " + error.what());
  }
  bind_gradient(row, entry.grad_view, entry.param_view, entry.order);
  entry.gradient_bound = true;
}

bool PlanBinding::refresh(const py::list &groups, const py::dict &states,
                          std::vector<py::object> &gradients) {
  if (!refresh_groups(groups) || !still_watched(states.ptr())) return false;
  if (!watch_ && !make_watch()) return false;
  gradients.reserve(entries_.size());
  // in one go: looking is waiting for memory
  const bool same = watch_ && watch_->same(0, watched_tensors_);
  bool unchecked = false; // some active parameter's memory has not been compared with the others'
  for (Entry &entry : entries_) {
    py::object gradient = gradient_of(entry.param.ptr());
    if (entry.row >= 0) plan_.rows[static_cast<size_t>(entry.row)].active = !gradient.is_none();
    if (gradient.is_none()) continue;
    if (entry.row < 0) return false;
    Row &row = plan_.rows[static_cast<size_t>(entry.row)];
    if (!refresh_tensors(entry, row, same)) return false;
    refresh_gradient(entry, row, gradient);
    gradients.push_back(std::move(gradient));
    unchecked |= !entry.distinct;
  }
  if (unchecked) check_overlaps(false);
  return true;
}

void PlanBinding::check_overlaps(bool idle_too) {
  const auto counts = [&](const Entry &entry) {
    return entry.row >= 0 && (idle_too || plan_.rows[static_cast<size_t>(entry.row)].active);
  };
  std::vector<NamedSpan> spans;
  for (Entry &entry : entries_) {
    entry.distinct = false;
    if (!counts(entry)) continue;
    spans.push_back(
        {&plan_.rows[static_cast<size_t>(entry.row)].name, &entry.param_view, entry.order.dense});
  }
  check_distinct(spans);
  for (Entry &entry : entries_) entry.distinct = counts(entry);
}

// Where parameters come one at a time, the first must not be stepped if a later one shares its
// memory: all are compared, where they lie now.
bool PlanBinding::check_all_overlaps() {
  for (Entry &entry : entries_)
    if (entry.row >= 0 && !refresh_param(entry, plan_.rows[static_cast<size_t>(entry.row)]))
      return false;
  check_overlaps(true);
  return true;
}

void PlanBinding::watch(const py::dict &states) {
  std::unordered_map<PyObject *, Entry *> rows;
  for (Entry &entry : entries_)
    if (entry.row >= 0) rows.emplace(entry.param.ptr(), &entry);
  watched_.clear();
  for (const auto &[key, value] : states) {
    const auto found = rows.find(key.ptr());
    if (found == rows.end()) continue; // somebody else's
    found->second->state = py::reinterpret_borrow<py::object>(value);
    found->second->held.set_dict(value.ptr());
    watched_.push_back(found->second);
  }
  watched_size_ = PyDict_GET_SIZE(states.ptr());
}

bool PlanBinding::still_watched(PyObject *states) const {
  if (watched_size_ < 0) return true;
  if (PyDict_GET_SIZE(states) != watched_size_) return false;
  PyObject *key = nullptr, *value = nullptr;
  auto expected = watched_.begin();
  for (Py_ssize_t at = 0; expected != watched_.end() && PyDict_Next(states, &at, &key, &value);) {
    if (key != (*expected)->param.ptr()) continue;
    if (value != (*expected)->state.ptr()) return false;
    ++expected;
  }
  return expected == watched_.end();
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

Row *PlanBinding::refresh_one(const py::list &groups, const py::dict &states, size_t position,
                              const py::object &param, py::object &gradient) {
  if (position >= entries_.size()) return nullptr;
  Entry &entry = entries_[position];
  if (entry.row < 0 || entry.param.ptr() != param.ptr()) return nullptr;
  Row &row = plan_.rows[static_cast<size_t>(entry.row)];
  const auto group = static_cast<size_t>(row.group);
  if (groups.size() != readers_.size() || !PyDict_Check(groups[group].ptr())) return nullptr;
  if (watched_size_ >= 0 &&
      PyDict_GetItemWithError(states.ptr(), param.ptr()) != entry.state.ptr()) {
    if (PyErr_Occurred()) throw py::error_already_set();
    return nullptr;
  }
  readers_[group].read(py::reinterpret_borrow<py::dict>(groups[group]), row.group,
                       plan_.groups[group]);
  gradient = param.attr("grad");
  if (gradient.is_none()) throw Error(ErrorKind::value, row.name + " has no gradient");
  if ((!watch_ && !make_watch()) || !refresh_tensors(entry, row, false)) return nullptr;
  refresh_gradient(entry, row, gradient);
  return entry.distinct || check_all_overlaps() ? &row : nullptr;
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
  const bool m = row.m.data[0] != nullptr, slow = row.m_slow.data[0] != nullptr;
  if (row.numel > 0 && (!out.v.data || (m && !out.m.data) || (slow && !out.slow.data)))
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
           py::arg("gate"), py::arg("exact"), py::arg("state"))
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
}

} // namespace cosmic
