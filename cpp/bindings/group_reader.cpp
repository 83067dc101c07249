#include "bindings/group_reader.h"

#include <iterator>
#include <string>

#include "core/error.h"
#include "plan/hyperparameters.h"

namespace py = pybind11;

namespace cosmic {

namespace {

constexpr const char *kKeys[] = {
    "lr",         "betas",     "eps",           "weight_decay", "maximize",
    "beta_slow",  "alpha",     "slow_warmup",   "c_min",        "stochastic_rounding",
    "robustness", "rel_floor", "m_step_factor", "null_pct",     "amp_pct"};
enum Key {
  kLr,
  kBetas,
  kEps,
  kWeightDecay,
  kMaximize,
  kBetaSlow,
  kAlpha,
  kSlowWarmup,
  kCMin,
  kStochasticRounding,
  kRobustness,
  kRelFloor,
  kFirstOptional, // from here on options of presets, which other groups do not have
  kMStepFactor = kFirstOptional,
  kNullPct,
  kAmpPct
};

PyObject *interned(size_t key) {
  static PyObject *names[std::size(kKeys)] = {};
  if (!names[key]) names[key] = PyUnicode_InternFromString(kKeys[key]);
  return names[key];
}

class Entry {
public:
  Entry(int group, Key key, py::object value)
      : group_(group), key_(key), value_(std::move(value)) {}

  [[noreturn]] void fail(const char *expected) const {
    throw Error(ErrorKind::value, "param_groups[" + std::to_string(group_) + "]['" + kKeys[key_] +
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
  Key key_;
  py::object value_;
};

py::object value_of(const py::dict &group, int index, size_t key) {
  PyObject *value = PyDict_GetItemWithError(group.ptr(), interned(key));
  if (!value) {
    PyErr_Clear();
    if (key >= kFirstOptional) return {};
    throw Error(ErrorKind::value, "param_groups[" + std::to_string(index) + "] has no '" +
                                      kKeys[key] +
                                      "'; was it removed, loaded from another "
                                      "optimizer's state_dict, or the group appended by hand? "
                                      "(add_param_group fills in what it lacks)");
  }
  return py::reinterpret_borrow<py::object>(value);
}

Group parse(const std::vector<py::object> &values, int index) {
  const auto entry = [&](Key key) { return Entry(index, key, values[key]); };
  Group g;
  g.lr = entry(kLr).in(ranges::kLr);
  entry(kBetas).pair(g.beta1, g.beta2);
  g.eps = entry(kEps).in(ranges::kEps);
  g.weight_decay = entry(kWeightDecay).in(ranges::kWeightDecay);
  g.maximize = entry(kMaximize).truth();
  if (const Entry slow = entry(kBetaSlow); !slow.is_none())
    g.beta_slow = slow.in(ranges::kBetaSlow);
  g.alpha = entry(kAlpha).in(ranges::kAlpha);
  if (const Entry warmup = entry(kSlowWarmup); !warmup.is_none())
    g.slow_warmup = static_cast<int64_t>(warmup.in(ranges::kSlowWarmup));
  g.c_min = entry(kCMin).in(ranges::kCMin);
  g.stochastic_rounding = entry(kStochasticRounding).truth();
  g.robustness = entry(kRobustness).in(ranges::kRobustness);
  g.rel_floor = entry(kRelFloor).in(ranges::kRelFloor);
  const auto optional = [&](Key key, const Range &range, double &out) {
    if (const Entry value = entry(key); !value.is_absent()) out = value.in(range);
  };
  optional(kMStepFactor, ranges::kMStepFactor, g.m_step_factor);
  optional(kNullPct, ranges::kNullPct, g.null_pct);
  optional(kAmpPct, ranges::kAmpPct, g.amp_pct);
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
         PyBool_Check(value.ptr());
}

} // namespace

void GroupReader::read(const py::dict &group, int index, Group &out) {
  std::vector<py::object> values;
  bool same = seen_.size() == std::size(kKeys);
  for (size_t key = 0; same && key < std::size(kKeys); ++key) {
    const PyObject *value = PyDict_GetItemWithError(group.ptr(), interned(key));
    same = value == seen_[key].ptr() && immutable(seen_[key]);
  }
  if (same) return;
  PyErr_Clear();
  values.reserve(std::size(kKeys));
  for (size_t key = 0; key < std::size(kKeys); ++key) values.push_back(value_of(group, index, key));
  out = parse(values, index);
  seen_ = std::move(values);
}

} // namespace cosmic
