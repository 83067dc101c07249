#include "bindings/state_reader.h"

#include <vector>

#include "bindings/tensor_reader.h"
#include "core/error.h"
#include "plan/bind.h"
#include "plan/layout.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// Binds the entries of one parameter's state.
class StateReader {
public:
  StateReader(Row &row, const py::dict &state, const std::string &prefix, const TensorView &param,
              const WalkOrder &order)
      : row_(row), state_(state), prefix_(prefix), param_(param), order_(order),
        matrix_(row.shard.matrix ? row.shard.matrix : matrix_shape(param, order)) {}

  void slot(const std::string &key, const CodecPart *codec, bool second_moment,
            Planes &planes) const {
    const std::vector<Plane> layout = slot_layout(codec, second_moment, row_.numel, matrix_);
    for (size_t k = 0; k < layout.size(); ++k)
      planes.data[k] = plane(key + layout[k].suffix, *codec, layout[k]);
  }

  // A second moment by rows and columns is not the kernels' to address.
  void matrix(const CodecPart *codec) const {
    row_.matrix = matrix_moment(codec, matrix_, row_.v, row_.shard);
    if (row_.matrix) row_.v = Planes{};
  }

  // Numbers of a part: one contiguous tensor. Null if it keeps none.
  void *numbers(const std::string &key, const Numbers &of) const {
    if (!of) return nullptr;
    const int bits = of.f32 ? 32 : 64;
    return raw(key, kFloatCode, bits, of.size(),
               "its rung needs " + std::to_string(of.size()) + " of float" + std::to_string(bits));
  }
  double *numbers(const Part *part, bool kept = true) const {
    if (!part || !kept) return nullptr;
    return static_cast<double *>(numbers(part->numbers.key, part->numbers));
  }

  // What a first moment's codec keeps of the whole tensor, and what it leaves by block.
  void codec_numbers(const char *slot, const CodecPart *codec) const {
    row_.m_codec = codec;
    if (!codec) return;
    row_.m_numbers =
        static_cast<float *>(numbers(std::string(slot) + "_" + codec->numbers.key, codec->numbers));
    if (!codec->by_block) return;
    row_.by_block = std::make_shared<std::vector<float>>(
        static_cast<size_t>((row_.numel + kBlock - 1) / kBlock));
    row_.m.data[codec->first.size()] = row_.by_block->data();
  }

  int64_t *count() const {
    return static_cast<int64_t *>(raw("step", kIntCode, 64, 1, "one int64"));
  }

  double *signal() const {
    if (!has("budget_signal")) return nullptr;
    return static_cast<double *>(raw("budget_signal", kFloatCode, 64, 1, "one float64"));
  }

  // 8 bits more of a parameter in bf16, where the state has them.
  int8_t *low() const {
    const std::string key = "master_low";
    if (!has(key)) return nullptr;
    const TensorView view = read_bytes(entry(key).ptr(), what(key));
    if (param_.dtype != DType::bf16 || !view.same_sizes(param_) ||
        !walk_along(view, order_).contiguous())
      throw Error(ErrorKind::value, what(key) + " is of shape " + sizes_text(view) +
                                        "; expected an int8 tensor of shape " + sizes_text(param_) +
                                        ", laid out in memory as its parameter in bfloat16");
    return static_cast<int8_t *>(view.data);
  }

  // An optional count of steps, which says when something started: a plain int, 0 if it is absent.
  int64_t start(const char *key, int64_t steps) const {
    if (!has(key)) return 0;
    const py::object value = entry(key);
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
  bool has(const std::string &key) const { return state_.contains((prefix_ + key).c_str()); }
  py::object entry(const std::string &key) const { return state_[(prefix_ + key).c_str()]; }
  std::string what(const std::string &key) const {
    return "state '" + prefix_ + key + "' of " + row_.name;
  }

  void *plane(const std::string &key, const CodecPart &codec, const Plane &plane) const {
    if (!has(key)) throw Error(ErrorKind::value, what(key) + " is missing");
    if (!plane.shaped)
      return raw(key, plane.code, plane.bits, plane.count,
                 "codec " + codec.name + " needs " + std::to_string(plane.count) + " of " +
                     plane.dtype);
    const py::object tensor = entry(key);
    return bind_slot(read_tensor(tensor.ptr(), what(key)), codec, what(key), param_, order_);
  }

  void *raw(const std::string &key, int code, int bits, int64_t count,
            const std::string &needed) const {
    if (!has(key)) throw Error(ErrorKind::value, what(key) + " is missing");
    const RawTensor tensor = read_raw(entry(key).ptr(), what(key));
    if (tensor.code != code || tensor.bits != bits || tensor.numel != count || !tensor.contiguous)
      throw Error(ErrorKind::value, what(key) + " has another dtype or size than its rung needs: " +
                                        needed + ", contiguous");
    return tensor.data;
  }

  Row &row_;
  const py::dict &state_;
  const std::string &prefix_;
  const TensorView &param_;
  const WalkOrder &order_;
  MatrixShape matrix_;
};

} // namespace

void bind_state(Row &row, const py::dict &state, const std::string &prefix,
                const SlotCodecs &codecs, const TensorView &param, const WalkOrder &order) {
  const StateReader read(row, state, prefix, param, order);
  read.slot("exp_avg", codecs.m, false, row.m);
  read.codec_numbers("exp_avg", codecs.m);
  read.slot("exp_avg_slow", codecs.m_slow, false, row.m_slow);
  read.slot(row.rule->second_name, codecs.v, true, row.v);
  read.matrix(codecs.v);
  if (row.rule->counts) row.step = read.count();
  row.rule_numbers = read.numbers(row.rule);
  for (RowGate &gate : row.gates)
    gate.numbers = read.numbers(gate.part, !row.exact || gate.part->keeps_if_exact);
  row.signal = read.signal();
  row.low = read.low();
  if (row.rule->first) row.m_start = read.start("exp_avg_start", *row.step);
}

} // namespace cosmic
