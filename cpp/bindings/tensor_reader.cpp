#include "bindings/tensor_reader.h"

#include <ATen/dlpack.h> // DLPack's own header, which torch carries: plain C declarations

#include <iterator>

#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

namespace {

std::string attribute_text(PyObject *object, const char *name) {
  const py::object value = py::reinterpret_steal<py::object>(PyObject_GetAttrString(object, name));
  if (!value) {
    PyErr_Clear();
    return "?";
  }
  return py::str(value);
}

constexpr const char *kDense =
    "For a sparse gradient: param.grad = param.grad.to_dense() before the step, or "
    "nn.Embedding(..., sparse=False), which makes it dense.";

[[noreturn]] void throw_unreadable(PyObject *tensor, const std::string &what,
                                   const std::string &why) {
  std::string text = what + " cannot be used: ";
  std::string advice;
  if (PyObject_HasAttrString(tensor, "layout"))
    text += "dtype " + attribute_text(tensor, "dtype") + ", layout " +
            attribute_text(tensor, "layout") + ", device " + attribute_text(tensor, "device");
  else
    text += std::string("type ") + Py_TYPE(tensor)->tp_name;
  if (text.find("torch.sparse") != std::string::npos) advice = std::string(" ") + kDense;
  throw Error(ErrorKind::tensor, text + ". " + why + advice);
}

constexpr const char *kWanted =
    "Expected a dense (strided) CPU tensor of dtype float32, bfloat16, float16, float64, or "
    "complex; make sparse gradients dense, and move accelerator or meta tensors to the CPU.";

const DLPackExchangeAPI *find_exchange_api(PyTypeObject *type) {
  const py::object capsule = py::reinterpret_steal<py::object>(
      PyObject_GetAttrString(reinterpret_cast<PyObject *>(type), "__dlpack_c_exchange_api__"));
  const void *api = nullptr;
  if (capsule) api = PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api");
  PyErr_Clear();
  const auto *found = static_cast<const DLPackExchangeAPI *>(api);
  return found && found->header.version.major == DLPACK_MAJOR_VERSION ? found : nullptr;
}

// Remembers the types seen last: a step reads parameters and gradients in turn.
const DLPackExchangeAPI *exchange_api(PyTypeObject *type) {
  struct Known {
    PyTypeObject *type; // held, so that no other type can come to its address
    const DLPackExchangeAPI *api;
  };
  static Known known[4] = {};
  static size_t next = 0;
  for (const Known &entry : known)
    if (entry.type == type) return entry.api;
  Known &entry = known[next++ % std::size(known)];
  Py_INCREF(type);
  Py_XDECREF(entry.type);
  entry = {type, find_exchange_api(type)};
  return entry.api;
}

// Borrowed for as long as the tensor lives and is not resized.
class DLTensorOf {
public:
  DLTensorOf(PyObject *tensor, const std::string &what) {
    if (const DLPackExchangeAPI *api = exchange_api(Py_TYPE(tensor))) {
      if (api->dltensor_from_py_object_no_sync(tensor, &value) != 0) {
        PyErr_Clear();
        throw_unreadable(tensor, what, kWanted);
      }
    } else {
      from_capsule(tensor, what);
    }
    if (value.device.device_type != kDLCPU) throw_unreadable(tensor, what, kWanted);
    if (value.ndim > kMaxDims - 1) // a complex tensor's real view has one more
      throw_unreadable(tensor, what,
                       "It has " + std::to_string(value.ndim) + " dimensions; at most " +
                           std::to_string(kMaxDims - 1) + " are supported: reshape it.");
  }

  DLTensor value; // filled by the constructor, or it throws

private:
  void from_capsule(PyObject *tensor, const std::string &what) {
    const py::object export_method =
        py::reinterpret_steal<py::object>(PyObject_GetAttrString(tensor, "__dlpack__"));
    if (export_method)
      capsule_ = py::reinterpret_steal<py::object>(PyObject_CallNoArgs(export_method.ptr()));
    if (!capsule_ || !PyCapsule_IsValid(capsule_.ptr(), "dltensor")) {
      PyErr_Clear();
      throw_unreadable(tensor, what, kWanted);
    }
    value =
        static_cast<DLManagedTensor *>(PyCapsule_GetPointer(capsule_.ptr(), "dltensor"))->dl_tensor;
  }

  py::object capsule_; // its destructor gives the export back
};

bool dtype_of(const DLDataType &type, DType &out) {
  if (type.lanes != 1) return false;
  if (type.code == kDLBfloat) {
    out = DType::bf16;
    return type.bits == 16;
  }
  if (type.code != kDLFloat && type.code != kDLComplex) return false;
  const int bits = type.code == kDLComplex ? type.bits / 2 : type.bits;
  out = bits == 64 ? DType::f64 : bits == 32 ? DType::f32 : DType::f16;
  return bits == 64 || bits == 32 || bits == 16;
}

bool flag(PyObject *tensor, PyObject *name) {
  const py::object set = py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(tensor, name));
  if (!set) PyErr_Clear(); // not a torch tensor: no such flag
  return set && PyObject_IsTrue(set.ptr()) == 1;
}

// A tensor that carries its sign or conjugation as a flag has other values than its memory; only a
// complex one can be conjugated.
bool is_lazy(PyObject *tensor, bool complex) {
  static PyObject *is_neg = PyUnicode_InternFromString("is_neg");
  static PyObject *is_conj = PyUnicode_InternFromString("is_conj");
  return flag(tensor, is_neg) || (complex && flag(tensor, is_conj));
}

constexpr const char *kNoMemory =
    "It has no memory of its own: it wraps other tensors (FakeTensor, a subclass), or its "
    "storage was freed. Step the plain tensors inside.";

// Null for a tensor without elements, and for one without memory of its own.
void *data_of(const DLTensor &tensor) {
  return tensor.data ? static_cast<char *>(tensor.data) + tensor.byte_offset : nullptr;
}

// From the first element's first byte to the last one's last.
int64_t bytes_of(const DLTensor &t) {
  int64_t last = 0, contiguous = 1;
  for (int d = t.ndim - 1; d >= 0; --d) {
    if (t.shape[d] == 0) return 0;
    last += (t.shape[d] - 1) * (t.strides ? t.strides[d] : contiguous);
    contiguous *= t.shape[d];
  }
  return (last + 1) * t.dtype.bits * t.dtype.lanes / 8;
}

// A view into a storage that was freed has its offset for an address.
bool looks_freed(const void *data) { return reinterpret_cast<uintptr_t>(data) >> 32 == 0; }

void check_memory(PyObject *tensor, const DLTensor &t, const std::string &what) {
  const int64_t bytes = bytes_of(t);
  if (bytes == 0) return;
  if (!data_of(t)) throw_unreadable(tensor, what, kNoMemory);
  if (looks_freed(data_of(t))) check_within_storage(tensor, data_of(t), bytes, what);
}

} // namespace

namespace {

// Sizes and strides in elements of a real type, of which a complex one has `width`.
TensorView geometry_of(const DLTensor &t, int64_t width) {
  TensorView view;
  view.data = data_of(t);
  view.ndim = t.ndim;
  int64_t contiguous = width;
  for (int d = t.ndim - 1; d >= 0; --d) {
    view.sizes[d] = t.shape[d];
    view.strides[d] = t.strides ? t.strides[d] * width : contiguous;
    contiguous *= t.shape[d];
  }
  if (width > 1) {
    view.sizes[view.ndim] = width;
    view.strides[view.ndim++] = 1;
  }
  return view;
}

} // namespace

TensorView read_tensor(PyObject *tensor, const std::string &what) {
  const DLTensorOf dl(tensor, what);
  const DLTensor &t = dl.value;
  DType dtype = DType::f32;
  if (!dtype_of(t.dtype, dtype)) throw_unreadable(tensor, what, kWanted);
  const bool complex = t.dtype.code == kDLComplex;
  if (is_lazy(tensor, complex))
    throw_unreadable(tensor, what,
                     "It is a lazily conjugated or negated view, whose memory holds other values; "
                     "use its resolve_conj().resolve_neg().");
  TensorView view = geometry_of(t, complex ? 2 : 1);
  view.dtype = dtype;
  check_memory(tensor, t, what);
  return view;
}

TensorView read_bytes(PyObject *tensor, const std::string &what) {
  const DLTensorOf dl(tensor, what);
  const DLTensor &t = dl.value;
  if (t.dtype.code != kDLInt || t.dtype.bits != 8 || t.dtype.lanes != 1)
    throw_unreadable(tensor, what, "Expected a dense (strided) CPU tensor of dtype int8.");
  check_memory(tensor, t, what);
  return geometry_of(t, 1);
}

namespace {

// A type's own way to `grad`, where that is a plain C getter and attributes are looked up as usual.
const PyGetSetDef *gradient_getter(PyTypeObject *type) {
  if (type->tp_getattro != PyObject_GenericGetAttr) return nullptr;
  const py::object found = py::reinterpret_steal<py::object>(
      PyObject_GetAttrString(reinterpret_cast<PyObject *>(type), "grad"));
  PyErr_Clear();
  if (!found || Py_TYPE(found.ptr()) != &PyGetSetDescr_Type) return nullptr;
  return reinterpret_cast<PyGetSetDescrObject *>(found.ptr())->d_getset; // the type's base has it
}

} // namespace

py::object gradient_of(PyObject *tensor) {
  static PyTypeObject *known = nullptr; // held, so that no other type can come to its address
  static const PyGetSetDef *getter = nullptr;
  if (Py_TYPE(tensor) != known) {
    Py_INCREF(Py_TYPE(tensor));
    Py_XDECREF(known);
    known = Py_TYPE(tensor);
    getter = gradient_getter(known);
  }
  static PyObject *name = PyUnicode_InternFromString("grad");
  PyObject *gradient =
      getter ? getter->get(tensor, getter->closure) : PyObject_GetAttr(tensor, name);
  if (!gradient) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(gradient);
}

py::object resolved(py::object tensor, bool complex) {
  if (!is_lazy(tensor.ptr(), complex)) return tensor;
  return tensor.attr("resolve_conj")().attr("resolve_neg")();
}

bool can_be_negated(const TensorView &view) {
  for (int d = 0; d < view.ndim; ++d)
    if (view.sizes[d] > 1 && view.strides[d] % 2 != 0) return false;
  return true;
}

void *data_if_unchanged(PyObject *tensor, const TensorView &known, const std::string &what) {
  const DLTensorOf dl(tensor, what);
  const DLTensor &t = dl.value;
  DType dtype = DType::f32;
  // complex tensors have a flag to look at, and another geometry than their real view
  if (t.dtype.code == kDLComplex || !dtype_of(t.dtype, dtype) || dtype != known.dtype ||
      t.ndim != known.ndim || !t.strides)
    return nullptr;
  for (int d = 0; d < t.ndim; ++d)
    if (t.shape[d] != known.sizes[d] || t.strides[d] != known.strides[d]) return nullptr;
  return looks_freed(data_of(t)) ? nullptr : data_of(t);
}

RawTensor read_raw(PyObject *tensor, const std::string &what) {
  const DLTensorOf dl(tensor, what);
  const DLTensor &t = dl.value;
  RawTensor raw;
  raw.data = data_of(t);
  raw.code = t.dtype.code;
  raw.bits = t.dtype.bits * t.dtype.lanes;
  raw.numel = 1;
  raw.contiguous = true;
  for (int d = t.ndim - 1; d >= 0; --d) {
    if (t.strides && t.shape[d] > 1 && t.strides[d] != raw.numel) raw.contiguous = false;
    raw.numel *= t.shape[d];
  }
  check_memory(tensor, t, what);
  return raw;
}

TensorPlace::Seen TensorPlace::look(PyObject *tensor) const {
  const DLPackExchangeAPI *api = exchange_api(Py_TYPE(tensor));
  DLTensor t;
  if (!api) return Seen::unreadable; // of another library, or no tensor any more
  if (api->dltensor_from_py_object_no_sync(tensor, &t) != 0) {
    PyErr_Clear();
    return Seen::unreadable;
  }
  if (t.device.device_type != kDLCPU) return Seen::unreadable;
  if (t.dtype.code != code_ || t.dtype.bits * t.dtype.lanes != bits_ || t.ndim != ndim_ ||
      (ndim_ > 0 && !t.strides))
    return Seen::changed;
  const int64_t *sizes = geometry_.data(), *strides = sizes + ndim_;
  for (int d = 0; d < ndim_; ++d)
    if (t.shape[d] != sizes[d] || t.strides[d] != strides[d]) return Seen::changed;
  return data_of(t) == data_ ? Seen::same : Seen::moved;
}

TensorPlace place_of(PyObject *tensor, const std::string &what) {
  const DLTensorOf dl(tensor, what);
  const DLTensor &t = dl.value;
  check_memory(tensor, t, what);
  if (const int64_t bytes = bytes_of(t)) check_within_storage(tensor, data_of(t), bytes, what);
  TensorPlace place;
  place.data_ = data_of(t);
  place.code_ = t.dtype.code;
  place.bits_ = t.dtype.bits * t.dtype.lanes;
  place.ndim_ = t.ndim;
  place.geometry_.assign(t.shape, t.shape + t.ndim);
  if (t.strides) place.geometry_.insert(place.geometry_.end(), t.strides, t.strides + t.ndim);
  return place;
}

void check_within_storage(PyObject *tensor, const void *data, int64_t bytes,
                          const std::string &what) {
  const py::object make =
      py::reinterpret_steal<py::object>(PyObject_GetAttrString(tensor, "untyped_storage"));
  if (!make) { // not torch's
    PyErr_Clear();
    return;
  }
  const py::object storage = make();
  const auto begin = storage.attr("data_ptr")().cast<uintptr_t>();
  const auto size = storage.attr("nbytes")().cast<int64_t>();
  const auto first = reinterpret_cast<uintptr_t>(data);
  if (first < begin || first - begin + static_cast<uintptr_t>(bytes) > static_cast<uintptr_t>(size))
    throw_unreadable(tensor, what,
                     "Its storage holds " + std::to_string(size) +
                         " bytes and was freed or made smaller behind it; give the storage back "
                         "(untyped_storage().resize_) before the step.");
}

} // namespace cosmic
