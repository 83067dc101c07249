#include "bindings/group_reader.h"

#include <cmath>
#include <iterator>
#include <string>

#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

namespace {

constexpr const char *kKeys[] = {"lr",        "betas", "eps",         "weight_decay", "maximize",
                                 "beta_slow", "alpha", "slow_warmup", "c_min"};
enum Key { kLr, kBetas, kEps, kWeightDecay, kMaximize, kBetaSlow, kAlpha, kSlowWarmup, kCMin };

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
  double number(const char *expected) const { return as_double(value_.ptr(), expected); }

  double in_range(double low, double high, bool open_high, const char *expected) const {
    return checked(number(expected), low, high, open_high, expected);
  }

  void pair(double &first, double &second, const char *expected) const {
    const py::object items =
        py::reinterpret_steal<py::object>(PySequence_Fast(value_.ptr(), "not a sequence"));
    if (!items || PySequence_Fast_GET_SIZE(items.ptr()) != 2) {
      PyErr_Clear();
      fail(expected);
    }
    double *out[] = {&first, &second};
    for (Py_ssize_t k = 0; k < 2; ++k)
      *out[k] = checked(as_double(PySequence_Fast_GET_ITEM(items.ptr(), k), expected), 0, 1, true,
                        expected);
  }

  bool is_none() const { return value_.is_none(); }

  bool truth() const {
    if (!PyBool_Check(value_.ptr())) fail("True or False");
    return value_.ptr() == Py_True;
  }

private:
  double as_double(PyObject *object, const char *expected) const {
    const double x = PyBool_Check(object) ? -1.0 : PyFloat_AsDouble(object);
    if (PyErr_Occurred() || PyBool_Check(object)) {
      PyErr_Clear();
      fail(expected);
    }
    return x;
  }
  double checked(double x, double low, double high, bool open_high, const char *expected) const {
    if (!std::isfinite(x) || x < low || x > high || (open_high && x == high)) fail(expected);
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
    throw Error(ErrorKind::value, "param_groups[" + std::to_string(index) + "] has no '" +
                                      kKeys[key] +
                                      "'; was it removed, or loaded from another "
                                      "optimizer's state_dict?");
  }
  return py::reinterpret_borrow<py::object>(value);
}

constexpr double kHuge = 1e300;

Group parse(const std::vector<py::object> &values, int index) {
  const auto entry = [&](Key key) { return Entry(index, key, values[key]); };
  Group g;
  g.lr = entry(kLr).in_range(0, kHuge, false, "a finite number >= 0");
  entry(kBetas).pair(g.beta1, g.beta2, "two numbers in [0, 1)");
  g.eps = entry(kEps).in_range(0, kHuge, false, "a finite number >= 0");
  g.weight_decay = entry(kWeightDecay).in_range(0, kHuge, false, "a finite number >= 0");
  g.maximize = entry(kMaximize).truth();
  const Entry slow = entry(kBetaSlow);
  if (!slow.is_none()) {
    g.beta_slow = slow.in_range(0, 1, true, "None, or a number in (0, 1)");
    if (g.beta_slow == 0) slow.fail("None, or a number in (0, 1)");
  }
  g.alpha = entry(kAlpha).in_range(0, kHuge, false, "a finite number >= 0");
  const Entry warmup = entry(kSlowWarmup);
  if (!warmup.is_none())
    g.slow_warmup =
        static_cast<int64_t>(warmup.in_range(0, 1e15, false, "None, or a number of steps >= 0"));
  g.c_min = entry(kCMin).in_range(0, 1, false, "a number in [0, 1]");
  return g;
}

// Values that cannot change behind their identity.
bool immutable(const py::object &value) {
  return value.is_none() || PyFloat_CheckExact(value.ptr()) || PyLong_CheckExact(value.ptr()) ||
         PyBool_Check(value.ptr()) || PyTuple_CheckExact(value.ptr());
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
