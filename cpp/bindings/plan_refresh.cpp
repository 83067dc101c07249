// What a plan looks at before every step: whether the groups, the state and the gradients are still
// those that it was made for, and where they lie by now.
#include <algorithm>
#include <unordered_map>
#include <utility>

#include "bindings/plan_binding.h"
#include "bindings/shard_reader.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "core/overlap.h"
#include "plan/bind.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// What a row steps of its parameter or reads of its gradient.
TensorView part_of(const TensorView &whole, const std::optional<Slice> &part) {
  return part ? narrowed(whole, *part) : whole;
}

} // namespace

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
      if (e >= firsts_.size() || entries_[firsts_[e]].param.ptr() != items[k]) return false;
  }
  return e == firsts_.size();
}

py::object PlanBinding::local(const Entry &entry) {
  return entry.wraps ? local_of(entry.param) : entry.param;
}

bool PlanBinding::refresh_param(Entry &entry, Row &row) {
  const py::object param = local(entry);
  void *data = data_if_unchanged(param.ptr(), entry.param_view, row.name);
  if (!data ||
      data != entry.param_view.data) { // elsewhere: it may be a lazy view of other memory by now
    const TensorView view = read_tensor(param.ptr(), row.name);
    if (!view.same_geometry(entry.param_view)) return false;
    data = view.data;
  }
  if (data != entry.param_view.data) {
    if (row.numel > 0) place_of(param.ptr(), row.name); // within its storage
    entry.param_view.data = data;
    row.param.data = entry.view.data = part_of(entry.param_view, entry.part).data;
    entry.distinct = false;
  }
  return true;
}

void PlanBinding::check_gated(const Row &row) const {
  const auto group = static_cast<size_t>(row.group);
  const std::string where = "param_groups[" + std::to_string(row.group) + "] has gate '";
  const auto &memories = plan_.memories;
  for (const RowGate &gate : row.gates) {
    const GatePart &part = *gate.part;
    if (part.remember && (group >= memories.size() || !memories[group]))
      throw Error(ErrorKind::runtime, where + part.name + "', but the plan has no memory of it");
    if (row.rule->matrix && row.exact && part.square_update &&
        part.looks_together(plan_.groups[group]))
      throw Error(ErrorKind::value,
                  where + part.name + "', which looks at all of the group before the step, but " +
                      row.name + " is stepped as a whole matrix and has its update within the " +
                      "step alone; give exact=False, or have each tensor looked at by itself");
  }
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
  bind_state(row, entry.held.own(), entry.prefix, entry.codecs, entry.view, entry.order);
  return true;
}

void PlanBinding::refresh_gradient(Entry &entry, Row &row, py::object &gradient) {
  static const std::string kWhat = "gradient";
  if (entry.wraps || wraps_local(gradient.ptr()))
    check_gradient_placed(entry.param, gradient, row.name);
  gradient = local_of(std::move(gradient));
  try {
    if (entry.gradient_bound && !can_be_negated(entry.grad_view)) {
      entry.grad_view.data = data_if_unchanged(gradient.ptr(), entry.grad_view, kWhat);
      if (entry.grad_view.data) {
        row.grad.data =
            entry.part ? part_of(entry.grad_view, entry.part).data : entry.grad_view.data;
        return;
      }
    }
    entry.gradient_bound = false;
    gradient = resolved(std::move(gradient), entry.complex);
    entry.grad_view = read_tensor(gradient.ptr(), kWhat);
  } catch (const Error &error) { // composing a name costs: only where a message needs it
    throw Error(error.kind, row.name + ": " + error.what());
  }
  check_gradient(row, entry.grad_view, entry.param_view);
  bind_gradient(row, part_of(entry.grad_view, entry.part), entry.view, entry.order);
  entry.gradient_bound = true;
}

bool PlanBinding::refresh(const py::list &groups, const py::dict &states, Gradients &gradients) {
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
  std::vector<NamedSpan> spans; // of parameters as a whole: parts of one are distinct
  for (const size_t first : firsts_) {
    const Entry &entry = entries_[first];
    if (!counts(entry)) continue;
    spans.push_back(
        {&plan_.rows[static_cast<size_t>(entry.row)].name, &entry.param_view, entry.dense});
  }
  for (Entry &entry : entries_) entry.distinct = false;
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
  std::unordered_map<PyObject *, size_t> places; // by parameter
  for (size_t p = 0; p < firsts_.size(); ++p)
    if (entries_[firsts_[p]].row >= 0) places.emplace(entries_[firsts_[p]].param.ptr(), p);
  watched_.clear();
  for (const auto &[key, value] : states) {
    const auto found = places.find(key.ptr());
    if (found == places.end()) continue; // somebody else's
    const size_t first = firsts_[found->second];
    for (size_t e = first; e < end_of(found->second); ++e) {
      entries_[e].state = py::reinterpret_borrow<py::object>(value);
      entries_[e].held.set_dict(value.ptr());
    }
    watched_.push_back(&entries_[first]);
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

PlanBinding::RowRange PlanBinding::refresh_one(const py::list &groups, const py::dict &states,
                                               size_t position, const py::object &param,
                                               Gradients &gradients) {
  if (position >= firsts_.size()) return {};
  const Entry &first = entries_[firsts_[position]];
  if (first.row < 0 || first.param.ptr() != param.ptr()) return {};
  const Row &row = plan_.rows[static_cast<size_t>(first.row)];
  const auto group = static_cast<size_t>(row.group);
  if (groups.size() != readers_.size() || !PyDict_Check(groups[group].ptr())) return {};
  if (watched_size_ >= 0 &&
      PyDict_GetItemWithError(states.ptr(), param.ptr()) != first.state.ptr()) {
    if (PyErr_Occurred()) throw py::error_already_set();
    return {};
  }
  readers_[group].read(py::reinterpret_borrow<py::dict>(groups[group]), row.group,
                       plan_.groups[group]);
  const py::object gradient = param.attr("grad");
  if (gradient.is_none()) throw Error(ErrorKind::value, row.name + " has no gradient");
  if (!watch_ && !make_watch()) return {};
  bool distinct = true;
  for (size_t e = firsts_[position]; e < end_of(position); ++e) {
    Entry &entry = entries_[e];
    Row &own = plan_.rows[static_cast<size_t>(entry.row)];
    if (!refresh_tensors(entry, own, false)) return {};
    gradients.push_back(gradient);
    refresh_gradient(entry, own, gradients.back());
    distinct &= entry.distinct;
  }
  if (!distinct && !check_all_overlaps()) return {};
  const auto begin = static_cast<size_t>(first.row);
  return {begin, begin + end_of(position) - firsts_[position]};
}

} // namespace cosmic
