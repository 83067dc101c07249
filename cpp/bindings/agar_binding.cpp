// The state of gate `calibrated_agar`, with the field names of casmo-optimizer's checkpoints.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/register.h"
#include "core/error.h"
#include "gates/calibrated_agar.h"

namespace py = pybind11;

namespace cosmic {

namespace {

constexpr int64_t kLeastSamples = 50;

CalibratedAgar::Options options_of(int64_t tau_init_steps, std::pair<double, double> range,
                                   double c_min) {
  const auto fail = [](const std::string &what) { throw Error(ErrorKind::value, what); };
  if (tau_init_steps < kLeastSamples)
    fail("tau_init_steps is " + std::to_string(tau_init_steps) +
         "; expected an int >= " + std::to_string(kLeastSamples));
  if (!(range.first <= range.second) || !std::isfinite(range.first) || !std::isfinite(range.second))
    fail("tau_clip_range is (" + std::to_string(range.first) + ", " + std::to_string(range.second) +
         "); expected two finite numbers, the lower first");
  if (!(c_min >= 0 && c_min <= 1))
    fail("c_min is " + std::to_string(c_min) + "; expected a number in [0, 1]");
  return {tau_init_steps, range.first, range.second, c_min};
}

py::dict state_of(const CalibratedAgar &agar) {
  const auto &found = agar.calibration();
  const auto known = [&](double CalibratedAgar::Calibration::*field) -> py::object {
    return found ? py::object(py::float_((*found).*field)) : py::none();
  };
  using Found = CalibratedAgar::Calibration;
  py::dict out;
  out["tau"] = known(&Found::tau);
  out["tau_initialized"] = found.has_value();
  out["agar_buffer"] = std::vector<double>(agar.samples().begin(), agar.samples().end());
  out["agar_buffer_maxlen"] = agar.capacity();
  out["agar_mean"] = known(&Found::mean);
  out["agar_std"] = known(&Found::std);
  out["agar_median"] = known(&Found::median);
  out["agar_p10"] = known(&Found::p10);
  out["agar_p90"] = known(&Found::p90);
  out["c_min"] = found ? found->c_min : agar.options().c_min;
  return out;
}

// Reads a saved state's entries, each of which may be missing or None.
class Saved {
public:
  explicit Saved(const py::dict &state) : state_(state) {}

  py::object get(const char *key) const {
    return state_.contains(key) ? py::object(state_[key]) : py::none();
  }
  double number(const char *key, double low, double high, const std::string &expected) const {
    const py::object value = get(key);
    const double x = PyBool_Check(value.ptr()) ? NAN : PyFloat_AsDouble(value.ptr());
    const bool is_number = !PyErr_Occurred();
    PyErr_Clear();
    if (!is_number || !(x >= low && x <= high)) fail(key, value, expected);
    return x;
  }
  double share(const char *key) const { return number(key, 0, 1, "a number in [0, 1]"); }
  [[noreturn]] static void fail(const char *key, const py::object &value,
                                const std::string &expected) {
    throw Error(ErrorKind::value, "saved calibration has " + std::string(key) + " " +
                                      std::string(py::repr(value)) + "; expected " + expected);
  }

private:
  const py::dict &state_;
};

std::optional<CalibratedAgar::Calibration> calibration_of(const Saved &saved) {
  const py::object initialized = saved.get("tau_initialized");
  if (!initialized.is_none() && !PyBool_Check(initialized.ptr()))
    Saved::fail("tau_initialized", initialized, "True or False");
  if (!initialized.is(py::bool_(true))) return std::nullopt;
  CalibratedAgar::Calibration out{};
  out.tau = saved.number("tau", -1e300, 1e300, "a finite number");
  out.mean = saved.share("agar_mean");
  out.std = saved.number("agar_std", 1e-300, 1e300, "a finite number > 0");
  out.median = saved.share("agar_median");
  out.p10 = saved.share("agar_p10");
  out.p90 = saved.share("agar_p90");
  out.c_min = saved.share("c_min");
  return out;
}

std::deque<double> samples_of(const Saved &saved) {
  const py::object value = saved.get("agar_buffer");
  if (value.is_none()) return {};
  constexpr const char *kExpected = "a list of numbers in [0, 1]";
  if (!PyList_Check(value.ptr())) Saved::fail("agar_buffer", value, kExpected);
  std::deque<double> out;
  for (const py::handle item : py::reinterpret_borrow<py::list>(value)) {
    const double x = PyFloat_AsDouble(item.ptr());
    PyErr_Clear();
    if (!(x >= 0 && x <= 1)) Saved::fail("agar_buffer", value, kExpected);
    out.push_back(x);
  }
  return out;
}

void load(CalibratedAgar &agar, const py::dict &state) {
  const Saved saved(state);
  const auto calibration = calibration_of(saved);
  std::deque<double> samples = samples_of(saved);
  int64_t capacity = 0;
  if (const py::object value = saved.get("agar_buffer_maxlen"); !value.is_none()) {
    capacity = PyLong_Check(value.ptr()) ? PyLong_AsLongLong(value.ptr()) : -1;
    PyErr_Clear(); // of an int with more than 64 bits, which became -1
    if (capacity < 0) Saved::fail("agar_buffer_maxlen", value, "None or an int >= 0");
  }
  agar.restore(calibration, std::move(samples), capacity);
}

} // namespace

void register_agar(py::module_ &m) {
  const auto made = [](int64_t tau_init_steps, std::pair<double, double> range, double c_min) {
    return std::make_shared<CalibratedAgar>(options_of(tau_init_steps, range, c_min));
  };
  const auto set_options = [](CalibratedAgar &agar, int64_t tau_init_steps,
                              std::pair<double, double> range, double c_min) {
    agar.set_options(options_of(tau_init_steps, range, c_min));
  };
  py::class_<CalibratedAgar, std::shared_ptr<CalibratedAgar>>(m, "CalibratedAgar")
      .def(py::init(made), py::arg("tau_init_steps"), py::arg("tau_clip_range"), py::arg("c_min"))
      .def("set_options", set_options, py::arg("tau_init_steps"), py::arg("tau_clip_range"),
           py::arg("c_min"))
      .def("confidence", &CalibratedAgar::confidence, py::arg("agar"))
      .def("state", &state_of)
      .def("load", &load, py::arg("state"))
      .def_property_readonly("calibrated",
                             [](const CalibratedAgar &a) { return a.calibration().has_value(); })
      .def_property_readonly("current_agar", &CalibratedAgar::current_agar)
      .def_property_readonly("current_confidence", &CalibratedAgar::current_confidence);
}

} // namespace cosmic
