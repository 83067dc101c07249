// Tensors of PyTorch's dispatcher as borrowed views, through the stable C shims.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <string>
#include <vector>

#include "core/strided.h"

namespace cosmic {

using torch::stable::Tensor;

enum class Access { read, write }; // a lazily copied tensor is copied before it is written

// A complex tensor is read as its real view, with a last dimension of 2. `what` names the tensor
// in errors ("grads[3]"). Throws Error for tensors that are not dense CPU tensors of a floating or
// complex dtype.
TensorView read_tensor(const Tensor &tensor, const std::string &what, Access access);

// As above, but refuses complex tensors.
TensorView read_real(const Tensor &tensor, const std::string &what, Access access);

// The memory of a contiguous CPU tensor of `dtype` (a code of the shims, named `dtype_name`) with
// `numel` elements; throws Error for any other.
void *read_raw(const Tensor &tensor, const std::string &what, Access access, int32_t dtype,
               const char *dtype_name, int64_t numel);

} // namespace cosmic
