#include "bindings/group_reader.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "parts/registry.h"
#include "plan/hyperparameters.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// Of every group, whatever its parts.
constexpr const char *kKeys[] = {"lr",           "betas",    "eps",
                                 "weight_decay", "maximize", "stochastic_rounding"};
enum Key { kLr, kBetas, kEps, kWeightDecay, kMaximize, kStochasticRounding, kFirstOfParts };

// An entry of a group: one of every group, or an option that one or more parts read.
struct Wanted {
  struct Place {
    size_t at; // in Group::options
    const PartOption *option;
  };
  const char *name;
  PyObject *key;             // interned
  const PartOption *option;  // the first of the name; null for one of every group
  std::vector<Place> places; // of all parts that read it
};

std::vector<Wanted> make_wanted() {
  std::vector<Wanted> out;
  for (const char *name : kKeys)
    out.push_back({name, PyUnicode_InternFromString(name), nullptr, {}});
  for (const Part *part : all_parts())
    for (size_t k = 0; k < part->options.size(); ++k) {
      const PartOption &option = part->options[k];
      auto found = std::find_if(out.begin(), out.end(), [&](const Wanted &each) {
        return std::string_view(each.name) == option.name;
      });
      if (found == out.end())
        found =
            out.insert(found, {option.name, PyUnicode_InternFromString(option.name), &option, {}});
      found->places.push_back({part->first_option + k, &option});
    }
  return out;
}

const std::vector<Wanted> &wanted() {
  static const std::vector<Wanted> every = make_wanted();
  return every;
}

class Entry {
public:
  Entry(int group, const char *name, py::object value)
      : group_(group), name_(name), value_(std::move(value)) {}

  [[noreturn]] void fail(const char *expected) const {
    throw Error(ErrorKind::value, "param_groups[" + std::to_string(group_) + "]['" + name_ +
                                      "'] is " + std::string(py::repr(value_)) + "; expected " +
                                      expected);
  }

  // A number, or a tensor or array of one element.
  double in(const Range &range) const { return checked(value_.ptr(), range, range.expected); }

  void pair(double &first, double &second) const {
    constexpr const char *kExpected = "two numbers in [0, 1)";
    const py::object items =
        py::reinterpret_steal<py::object>(PySequence_Fast(value_.ptr(), "not a sequence"));
    if (!items || PySequence_Fast_GET_SIZE(items.ptr()) != 2) {
      PyErr_Clear();
      fail(kExpected);
    }
    first = checked(PySequence_Fast_GET_ITEM(items.ptr(), 0), ranges::kBeta1, kExpected);
    second = checked(PySequence_Fast_GET_ITEM(items.ptr(), 1), ranges::kBeta2, kExpected);
  }

  double whole(const Range &range) const {
    if (!PyLong_CheckExact(value_.ptr())) fail(range.expected);
    return in(range);
  }

  double halves(const Range &range) const {
    const double x = in(range);
    if (2 * x != std::floor(2 * x)) fail(range.expected);
    return x;
  }

  double of_three(int place, const Range &range) const {
    const py::object items =
        py::reinterpret_steal<py::object>(PySequence_Fast(value_.ptr(), "not a sequence"));
    if (!items || PySequence_Fast_GET_SIZE(items.ptr()) != 3) {
      PyErr_Clear();
      fail(range.expected);
    }
    return checked(PySequence_Fast_GET_ITEM(items.ptr(), place), range, range.expected);
  }

  // The place of a text.
  double choice(const char *const *choices, const char *expected) const {
    if (PyUnicode_Check(value_.ptr())) {
      const auto text = value_.cast<std::string>();
      for (int k = 0; choices[k]; ++k)
        if (text == choices[k]) return k;
    }
    fail(expected);
  }

  bool is_none() const { return value_.is_none(); }
  bool is_absent() const { return !value_; }

  bool truth() const {
    if (!PyBool_Check(value_.ptr())) fail("True or False");
    return value_.ptr() == Py_True;
  }

private:
  double checked(PyObject *object, const Range &range, const char *expected) const {
    const double x = PyBool_Check(object) ? -1.0 : PyFloat_AsDouble(object);
    if (PyErr_Occurred() || PyBool_Check(object) || !range.contains(x)) {
      PyErr_Clear();
      fail(expected);
    }
    return x;
  }

  int group_;
  const char *name_;
  py::object value_;
};

py::object value_of(const py::dict &group, int index, const Wanted &entry) {
  PyObject *value = PyDict_GetItemWithError(group.ptr(), entry.key);
  if (!value) {
    PyErr_Clear();
    if (entry.option && entry.option->allows_absence()) return {};
    throw Error(ErrorKind::value, "param_groups[" + std::to_string(index) + "] has no '" +
                                      entry.name +
                                      "'; was it removed, loaded from another "
                                      "optimizer's state_dict, or the group appended by hand? "
                                      "(add_param_group fills in what it lacks)");
  }
  return py::reinterpret_borrow<py::object>(value);
}

using Form = PartOption::Form;

double option_of(const Entry &entry, const PartOption &option) {
  if (entry.is_absent()) return option.fallback;
  if (option.allows_none() && entry.is_none()) return option.none;
  const Range range{option.name, option.low, option.high, option.expected};
  switch (option.form) {
  case Form::truth:
    return entry.truth();
  case Form::whole:
    return entry.whole(range);
  case Form::halves:
    return entry.halves(range);
  case Form::first:
  case Form::second:
  case Form::third:
    return entry.of_three(static_cast<int>(option.form) - static_cast<int>(Form::first), range);
  case Form::choice:
    return entry.choice(option.choices, option.expected);
  default:
    return entry.in(range);
  }
}

Group parse(const std::vector<py::object> &values, int index) {
  const auto entry = [&](size_t key) { return Entry(index, wanted()[key].name, values[key]); };
  Group g;
  g.lr = entry(kLr).in(ranges::kLr);
  entry(kBetas).pair(g.beta1, g.beta2);
  g.eps = entry(kEps).in(ranges::kEps);
  g.weight_decay = entry(kWeightDecay).in(ranges::kWeightDecay);
  g.maximize = entry(kMaximize).truth();
  g.stochastic_rounding = entry(kStochasticRounding).truth();
  for (size_t key = kFirstOfParts; key < wanted().size(); ++key) {
    const Entry value = entry(key);
    for (const auto &[at, option] : wanted()[key].places) g.options[at] = option_of(value, *option);
  }
  for (const Part *part : all_parts())
    if (const char *wrong = part->refuse ? part->refuse(part->options_in(g)) : nullptr)
      throw Error(ErrorKind::value, "param_groups[" + std::to_string(index) + "] has " + wrong);
  return g;
}

// Values that cannot change behind their identity.
bool immutable(const py::object &value) {
  if (!value) return true; // an option that is not there
  if (PyTuple_CheckExact(value.ptr())) {
    for (const py::handle item : py::reinterpret_borrow<py::tuple>(value))
      if (!PyFloat_CheckExact(item.ptr())) return false;
    return true;
  }
  return value.is_none() || PyFloat_CheckExact(value.ptr()) || PyLong_CheckExact(value.ptr()) ||
         PyBool_Check(value.ptr()) || PyUnicode_CheckExact(value.ptr());
}

} // namespace

void GroupReader::read(const py::dict &group, int index, Group &out) {
  const std::vector<Wanted> &keys = wanted();
  bool same = seen_.size() == keys.size();
  for (size_t k = 0; same && k < keys.size(); ++k) {
    const PyObject *value = PyDict_GetItemWithError(group.ptr(), keys[k].key);
    same = value == seen_[k].ptr() && immutable(seen_[k]);
  }
  if (same) return;
  PyErr_Clear();
  std::vector<py::object> values;
  values.reserve(keys.size());
  for (const Wanted &key : keys) values.push_back(value_of(group, index, key));
  out = parse(values, index);
  seen_ = std::move(values);
}

} // namespace cosmic
