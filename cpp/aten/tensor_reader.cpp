#include "aten/tensor_reader.h"

#include <cstdint>

#include "core/error.h"

namespace cosmic {

namespace {

struct Element {
  DType dtype;
  bool complex;
};

// False for a dtype that the core does not step.
bool element_of(const Tensor &tensor, Element &out) {
  static const struct {
    int32_t code;
    Element element;
  } kElements[] = {
      {aoti_torch_dtype_float32(), {DType::f32, false}},
      {aoti_torch_dtype_bfloat16(), {DType::bf16, false}},
      {aoti_torch_dtype_float16(), {DType::f16, false}},
      {aoti_torch_dtype_float64(), {DType::f64, false}},
      {aoti_torch_dtype_complex64(), {DType::f32, true}},
      {aoti_torch_dtype_complex32(), {DType::f16, true}},
      {aoti_torch_dtype_complex128(), {DType::f64, true}},
  };
  int32_t code;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
  for (const auto &known : kElements)
    if (known.code == code) {
      out = known.element;
      return true;
    }
  return false;
}

void check_dense_cpu(const Tensor &tensor, const std::string &what) {
  int32_t layout;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(tensor.get(), &layout));
  if (layout != aoti_torch_layout_strided())
    throw Error(ErrorKind::tensor,
                what + " cannot be used: its layout is sparse or opaque; make it dense (strided)");
  if (!tensor.is_cpu())
    throw Error(ErrorKind::tensor, what + " cannot be used: it is not on the CPU; move it there");
}

void *memory_of(const Tensor &tensor, Access access) {
  if (access == Access::write) return tensor.mutable_data_ptr();
  return const_cast<void *>(tensor.const_data_ptr());
}

} // namespace

TensorView read_tensor(const Tensor &tensor, const std::string &what, Access access) {
  check_dense_cpu(tensor, what);
  Element element;
  if (!element_of(tensor, element))
    throw Error(ErrorKind::tensor, what +
                                       " cannot be used: its dtype is none of float32, bfloat16, "
                                       "float16, float64 and complex; cast it first");
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  if (sizes.size() >= static_cast<size_t>(kMaxDims))
    throw Error(ErrorKind::value, what + " has " + std::to_string(sizes.size()) +
                                      " dimensions; expected fewer than " +
                                      std::to_string(kMaxDims));
  TensorView view;
  view.dtype = element.dtype;
  view.data = memory_of(tensor, access);
  for (size_t d = 0; d < sizes.size(); ++d, ++view.ndim) {
    view.sizes[d] = sizes[d];
    view.strides[d] = strides[d] * (element.complex ? 2 : 1);
  }
  if (element.complex) {
    view.sizes[view.ndim] = 2;
    view.strides[view.ndim++] = 1;
  }
  return view;
}

TensorView read_real(const Tensor &tensor, const std::string &what, Access access) {
  Element element;
  if (element_of(tensor, element) && element.complex)
    throw Error(ErrorKind::tensor, what + " is complex; give its torch.view_as_real instead");
  return read_tensor(tensor, what, access);
}

void *read_raw(const Tensor &tensor, const std::string &what, Access access, int32_t dtype,
               const char *dtype_name, int64_t numel) {
  check_dense_cpu(tensor, what);
  int32_t code;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
  if (code != dtype || tensor.numel() != numel || !tensor.is_contiguous())
    throw Error(ErrorKind::value, what + " must be a contiguous " + dtype_name +
                                      " tensor with numel " + std::to_string(numel));
  return memory_of(tensor, access);
}

} // namespace cosmic
