#include "bindings/state_reader.h"

#include <vector>

#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "gates/snr.h"
#include "gates/trust_focus.h"
#include "plan/agar.h"
#include "plan/bind.h"
#include "plan/layout.h"
#include "rules/scalar_magnitude.h"

namespace py = pybind11;

namespace cosmic {

namespace {

int64_t gate_size(Gate gate) {
  return gate == Gate::trust_focus ? int64_t{trust_focus::kStateSize} : int64_t{snr::kStateSize};
}

// Binds the entries of one parameter's state.
class StateReader {
public:
  StateReader(Row &row, const py::dict &state, const TensorView &param, const WalkOrder &order)
      : row_(row), state_(state), param_(param), order_(order),
        matrix_(matrix_shape(param, order)) {}

  void slot(const char *key, const std::string &codec, bool second_moment, Planes &planes) const {
    const std::vector<Plane> layout = slot_layout(codec, second_moment, row_.numel, matrix_);
    for (size_t k = 0; k < layout.size(); ++k)
      planes.data[k] = plane(key + layout[k].suffix, codec, layout[k]);
  }

  // A second moment by rows and columns is not the kernels' to address.
  void matrix(const std::string &codec) const {
    if (codec != "factored" && codec != "rowmean" && codec != "colmean") return;
    auto *first = static_cast<float *>(row_.v.data[0]);
    auto *second = static_cast<float *>(row_.v.data[1]);
    row_.v = Planes{};
    row_.matrix = std::make_shared<MatrixMoment>(matrix_, codec == "colmean" ? nullptr : first,
                                                 codec == "factored"  ? second
                                                 : codec == "colmean" ? first
                                                                      : nullptr);
  }

  // Scalars of a rung: one contiguous tensor of 8-byte elements; null if there is none.
  void *scalars(const char *key, int code, int64_t count) const {
    if (!state_.contains(key)) return nullptr;
    return raw(key, code, 64, count, "its rung needs " + std::to_string(count) + " of 64 bits");
  }

  // Numbers of the whole tensor, which a first moment's codec keeps beside its planes.
  void tensor_numbers(const std::string &codec) const {
    const bool ustate = codec == "ustate";
    if (!ustate && codec != "costate") return;
    const std::string key = ustate ? "exp_avg_ustate_steps" : "exp_avg_costate_alpha";
    if (!state_.contains(key.c_str())) throw Error(ErrorKind::value, what(key) + " is missing");
    row_.m_numbers = static_cast<float *>(
        raw(key, kFloatCode, 32, ustate ? 2 : 1, "codec " + codec + " needs float32"));
    row_.m_codec = ustate ? TensorCodec::ustate : TensorCodec::costate;
    if (ustate) return;
    row_.ratios = std::make_shared<std::vector<float>>(
        static_cast<size_t>((row_.numel + kBlock - 1) / kBlock));
    row_.m.data[2] = row_.ratios->data();
  }

  // An optional count of steps, which says when something started: a plain int, 0 if it is absent.
  int64_t start(const char *key, int64_t steps) const {
    if (!state_.contains(key)) return 0;
    const py::object value = state_[key];
    const bool is_int = PyLong_CheckExact(value.ptr());
    const int64_t start = is_int ? PyLong_AsLongLong(value.ptr()) : -1;
    PyErr_Clear(); // of an int with more than 64 bits, which became -1
    if (start < 0 || start > steps)
      throw Error(ErrorKind::value, what(key) + " is " + std::string(py::repr(value)) +
                                        "; expected an int from 0 to its step, " +
                                        std::to_string(steps));
    return start;
  }

private:
  std::string what(const std::string &key) const { return "state '" + key + "' of " + row_.name; }

  void *plane(const std::string &key, const std::string &codec, const Plane &plane) const {
    if (!state_.contains(key.c_str())) throw Error(ErrorKind::value, what(key) + " is missing");
    if (!plane.shaped)
      return raw(key, plane.code, plane.bits, plane.count,
                 "codec " + codec + " needs " + std::to_string(plane.count) + " of " + plane.dtype);
    const py::object tensor = state_[key.c_str()];
    return bind_slot(read_tensor(tensor.ptr(), what(key)), codec, what(key), param_, order_);
  }

  void *raw(const std::string &key, int code, int bits, int64_t count,
            const std::string &needed) const {
    const RawTensor tensor = read_raw(py::object(state_[key.c_str()]).ptr(), what(key));
    if (tensor.code != code || tensor.bits != bits || tensor.numel != count || !tensor.contiguous)
      throw Error(ErrorKind::value, what(key) + " has another dtype or size than its rung needs: " +
                                        needed + ", contiguous");
    return tensor.data;
  }

  Row &row_;
  const py::dict &state_;
  const TensorView &param_;
  const WalkOrder &order_;
  MatrixShape matrix_;
};

} // namespace

void bind_state(Row &row, const py::dict &state, const SlotCodecs &codecs, const std::string &gate,
                const TensorView &param, const WalkOrder &order) {
  const StateReader read(row, state, param, order);
  read.slot("exp_avg", codecs.m, false, row.m);
  read.tensor_numbers(codecs.m);
  read.slot("exp_avg_slow", codecs.m_slow, false, row.m_slow);
  read.slot(row.rule == Rule::belief ? "exp_avg_var" : "exp_avg_sq", codecs.v, true, row.v);
  read.matrix(codecs.v);
  row.step = static_cast<int64_t *>(read.scalars("step", kIntCode, 1));
  row.magnitude =
      static_cast<double *>(read.scalars("magnitude", kFloatCode, scalar_magnitude::kStateSize));
  row.update_rms = static_cast<double *>(read.scalars("update_rms", kFloatCode, 1));
  const std::string numbers = "gate_" + gate;
  if (row.gate_kind != Gate::none)
    row.gate =
        static_cast<double *>(read.scalars(numbers.c_str(), kFloatCode, gate_size(row.gate_kind)));
  if (row.agar_kind == AgarKind::lagged)
    row.agar = static_cast<double *>(read.scalars(numbers.c_str(), kFloatCode, agar_state::kSize));
  if (row.agar_kind == AgarKind::lagged && !row.agar)
    throw Error(ErrorKind::value, "state '" + numbers + "' of " + row.name + " is missing");
  row.signal = static_cast<double *>(read.scalars("budget_signal", kFloatCode, 1));
  if (row.rule != Rule::sign && !row.step)
    throw Error(ErrorKind::value, "state 'step' of " + row.name + " is missing");
  if (row.rule == Rule::adam || row.rule == Rule::belief)
    row.m_start = read.start("exp_avg_start", *row.step);
  if (row.gate_kind != Gate::none && !row.gate)
    throw Error(ErrorKind::value, "state '" + numbers + "' of " + row.name + " is missing");
  if (row.rule == Rule::rmsprop && !row.update_rms)
    throw Error(ErrorKind::value, "state 'update_rms' of " + row.name + " is missing");
  if (row.rule == Rule::scalar_sign && !row.magnitude)
    throw Error(ErrorKind::value, "state 'magnitude' of " + row.name + " is missing");
}

} // namespace cosmic
