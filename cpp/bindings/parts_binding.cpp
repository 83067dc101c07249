// The list of parts for Python, and what gates keep of parameter groups.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>

#include "bindings/register.h"
#include "core/error.h"
#include "parts/registry.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// ---- what parts say of themselves ---------------------------------------------------------------

py::object default_of(const PartOption &option) {
  if (option.form == PartOption::Form::choice)
    return py::str(option.choices[static_cast<size_t>(option.fallback)]);
  if (option.fallback == option.none && option.allows_none()) return py::none();
  if (option.form == PartOption::Form::truth) return py::bool_(option.fallback != 0);
  if (option.form == PartOption::Form::whole)
    return py::int_(static_cast<int64_t>(option.fallback));
  return py::float_(option.fallback);
}

py::dict described(const Part &part) {
  py::list options, numbers;
  for (const PartOption &option : part.options) {
    using Form = PartOption::Form;
    if (option.form == Form::second || option.form == Form::third) continue; // of the first's name
    py::dict one;
    one["name"] = option.name;
    one["expected"] = option.expected;
    one["default"] = default_of(option);
    options.append(one);
  }
  for (const Number &number : part.numbers.of)
    numbers.append(py::make_tuple(number.name, number.initial));
  py::dict out;
  out["name"] = part.name;
  out["options"] = options;
  out["key"] = part.numbers ? py::object(py::str(part.numbers.key)) : py::object(py::none());
  out["numbers"] = numbers;
  out["dtype"] = part.numbers.f32 ? "float32" : "float64";
  out["probe"] = part.probe;
  return out;
}

py::dict described(const RulePart &rule) {
  py::dict out = described(static_cast<const Part &>(rule));
  out["tier"] = rule.tier;
  out["first"] = rule.first;
  out["second"] = rule.second;
  out["slow"] = rule.slow;
  out["variant"] = rule.variant;
  out["second_name"] = rule.second_name;
  out["gate"] = rule.gate;
  out["counts"] = rule.counts;
  out["starts"] = rule.start != nullptr;
  out["matrix"] = rule.matrix != nullptr;
  return out;
}

py::dict described(const GatePart &gate) {
  py::dict out = described(static_cast<const Part &>(gate));
  out["rule"] = gate.rule;
  out["remembers"] = gate.remember != nullptr;
  out["keeps_if_exact"] = gate.keeps_if_exact;
  out["implied_by"] =
      gate.implied_by.empty() ? py::object(py::none()) : py::object(py::str(gate.implied_by));
  return out;
}

py::dict described(const CodecPart &codec) {
  py::dict out = described(static_cast<const Part &>(codec));
  out["first"] = !codec.first.empty();
  out["second"] = !codec.second.empty();
  out["plain"] = codec.is_plain();
  out["matrix"] = codec.of_matrix();
  out["of_next_gradient"] = codec.of_next_gradient;
  return out;
}

template <class Kind> py::dict by_name(const std::vector<const Kind *> &parts) {
  py::dict out;
  for (const Kind *part : parts) out[py::str(part->name)] = described(*part);
  return out;
}

py::dict parts_of() {
  py::dict out;
  out["rules"] = by_name(all_rules());
  out["gates"] = by_name(all_gates());
  out["codecs"] = by_name(all_codecs());
  return out;
}

// ---- what gates keep of groups
// --------------------------------------------------------------------

Named::Value numbers_of(const py::handle value) {
  std::vector<double> out;
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(value)) {
    const double x = PyBool_Check(item.ptr()) ? -1 : PyFloat_AsDouble(item.ptr());
    if (PyErr_Occurred() || PyBool_Check(item.ptr())) {
      PyErr_Clear();
      return Named::Other{};
    }
    out.push_back(x);
  }
  return out;
}

Named::Value value_of(const py::handle value) {
  if (value.is_none()) return {};
  if (PyBool_Check(value.ptr())) return value.ptr() == Py_True;
  if (PyLong_Check(value.ptr())) {
    const auto whole = static_cast<int64_t>(PyLong_AsLongLong(value.ptr()));
    if (!PyErr_Occurred()) return whole;
    PyErr_Clear();
    return Named::Other{};
  }
  if (PyList_Check(value.ptr()) || PyTuple_Check(value.ptr())) return numbers_of(value);
  const double x = PyFloat_AsDouble(value.ptr());
  if (!PyErr_Occurred()) return x;
  PyErr_Clear();
  return Named::Other{};
}

NamedValues values_of(const py::dict &values) {
  NamedValues out;
  for (const auto &[key, value] : values)
    out.push_back({py::str(key), value_of(value), py::repr(value)});
  return out;
}

py::dict dict_of(const NamedValues &values) {
  py::dict out;
  for (const Named &each : values)
    out[py::str(each.name)] = std::visit(
        [](const auto &value) -> py::object {
          using T = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<T, std::monostate> || std::is_same_v<T, Named::Other>)
            return py::none();
          else
            return py::cast(value);
        },
        each.value);
  return out;
}

std::shared_ptr<GateMemory> memory_for(const std::string &gate, bool by_tensor,
                                       const py::dict &options) {
  const GatePart *part = gate_named(gate);
  if (!part || !part->remember)
    throw Error(ErrorKind::value, "gate '" + gate + "' keeps nothing of a parameter group");
  std::shared_ptr<GateMemory> memory = part->remember();
  memory->by_tensor = by_tensor;
  memory->set_options(values_of(options));
  return memory;
}

} // namespace

void register_parts(py::module_ &m) {
  m.def("parts", &parts_of);
  py::class_<GateMemory, std::shared_ptr<GateMemory>>(m, "GateMemory")
      .def(py::init(&memory_for), py::arg("gate"), py::arg("by_tensor"), py::arg("options"))
      .def(
          "set_options",
          [](GateMemory &memory, bool by_tensor, const py::dict &options) {
            memory.set_options(values_of(options));
            memory.by_tensor = by_tensor;
          },
          py::arg("by_tensor"), py::arg("options"))
      .def("take", &GateMemory::take, py::arg("sample"))
      .def_property_readonly("settled", &GateMemory::settled)
      .def("state", [](const GateMemory &memory) { return dict_of(memory.save()); })
      .def(
          "load", [](GateMemory &memory, const py::dict &saved) { memory.load(values_of(saved)); },
          py::arg("saved"))
      .def("seen", [](const GateMemory &memory) { return dict_of(memory.seen()); });
}

} // namespace cosmic
