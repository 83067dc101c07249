// The copies of parameters that a step is asked to write: bound, and held apart from all else.
#include <pybind11/stl.h>

#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings/plan_binding.h"
#include "bindings/register.h"
#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "core/overlap.h"
#include "plan/bind.h"

namespace py = pybind11;

namespace cosmic {

namespace {

const std::string &copy_name() {
  static const std::string name = "its copy in copy_to";
  return name;
}

void check_copy(const TensorView &copy, const TensorView &param) {
  if (copy.dtype != DType::bf16 && copy.dtype != DType::f16)
    throw Error(ErrorKind::tensor,
                copy_name() + " is " + dtype_name(copy.dtype) + "; expected bfloat16 or float16");
  if (!copy.same_sizes(param))
    throw Error(ErrorKind::value, copy_name() + " has shape " + sizes_text(copy) +
                                      "; expected the parameter's, " + sizes_text(param));
  if (walk_order(copy).overlaps)
    throw Error(ErrorKind::value,
                copy_name() +
                    " overlaps itself (an expanded or overlapping view); expected a tensor "
                    "whose elements are distinct");
}

// A copy of a parameter on its own.
TensorView read_copy(PyObject *copy, const TensorView &param, const std::string &owner) {
  try {
    const TensorView view = read_tensor(copy, copy_name());
    check_copy(view, param);
    if (view.numel() > 0) place_of(copy, copy_name()); // within its storage
    return view;
  } catch (const Error &error) {
    throw Error(error.kind, owner + ": " + error.what());
  }
}

void add_span(std::vector<NamedSpan> &to, const std::string &name, const TensorView &view) {
  to.push_back({&name, &view, walk_order(view).dense});
}

struct Named {
  std::string name;
  TensorView view;
};

// The check of all copies where parameters are stepped one at a time.
void check_all_copies(const std::vector<std::tuple<std::string, py::object, py::object>> &copies,
                      const std::vector<std::pair<std::string, py::object>> &params) {
  std::vector<Named> written, read;
  for (const auto &[name, copy, param] : copies)
    written.push_back({name, read_copy(copy.ptr(), read_tensor(param.ptr(), name), name)});
  for (const auto &[name, param] : params) read.push_back({name, read_tensor(param.ptr(), name)});
  std::vector<NamedSpan> spans, others;
  for (const Named &each : written) add_span(spans, each.name, each.view);
  for (const Named &each : read) add_span(others, each.name, each.view);
  check_apart(spans, others);
}

} // namespace

void PlanBinding::bind_copy(Entry &entry, Row &row, PyObject *copy) {
  void *data = entry.copy_bound ? data_if_unchanged(copy, entry.copy_view, copy_name()) : nullptr;
  if (!data || data != entry.copy_view.data) {
    entry.copy_view = read_copy(copy, entry.param_view, row.name);
    entry.copy_bound = true;
  }
  const TensorView part = entry.part ? narrowed(entry.copy_view, *entry.part) : entry.copy_view;
  row.copy = {part.data, part.dtype, walk_along(part, entry.order)};
}

// Of the entries [first, last), what is written by the step and what it reads, but for the state.
void PlanBinding::check_copies(size_t first, size_t last) const {
  std::vector<NamedSpan> copies, others;
  for (size_t e = first; e < last; ++e) {
    const Entry &entry = entries_[e];
    const bool seen = e > first && entries_[e - 1].param.is(entry.param); // with its first part
    if (entry.row < 0 || seen) continue;
    const Row &row = plan_.rows[static_cast<size_t>(entry.row)];
    if (row.copy.data) add_span(copies, row.name, entry.copy_view);
    add_span(others, row.name, entry.param_view);
    const bool stepped = row.active || row.copy.data; // on its own it is not active yet
    if (stepped) add_span(others, row.name, entry.grad_view);
  }
  check_apart(copies, others);
}

void PlanBinding::refresh_copies(const py::object &copies) {
  if (copies.is_none() && !copying_) return;
  copying_ = !copies.is_none();
  for (Row &row : plan_.rows) row.copy = {};
  if (!copying_) return;
  const py::list given = copies;
  if (given.size() != firsts_.size())
    throw Error(ErrorKind::value, "copy_to has " + std::to_string(given.size()) +
                                      " tensors; expected one, or None, for each of " +
                                      std::to_string(firsts_.size()) + " parameters");
  for (size_t p = 0; p < firsts_.size(); ++p) {
    PyObject *copy = PyList_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(p));
    if (copy == Py_None) continue;
    for (size_t e = firsts_[p]; e < end_of(p); ++e) {
      if (entries_[e].row < 0) break; // idle
      Row &row = plan_.rows[static_cast<size_t>(entries_[e].row)];
      if (row.active) bind_copy(entries_[e], row, copy);
    }
  }
  check_copies(0, entries_.size());
}

void PlanBinding::refresh_copy(size_t position, const py::object &copy) {
  copying_ = true; // the next step of all forgets this one, also where it is refused here
  for (size_t e = firsts_[position]; e < end_of(position); ++e) {
    Row &row = plan_.rows[static_cast<size_t>(entries_[e].row)];
    row.copy = {};
    if (!copy.is_none()) bind_copy(entries_[e], row, copy.ptr());
  }
  if (!copy.is_none()) check_copies(firsts_[position], end_of(position));
}

void register_copies(py::module_ &m) {
  m.def("check_copies", &check_all_copies, py::arg("copies"), py::arg("params"));
}

} // namespace cosmic
