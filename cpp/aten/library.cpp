// Entry of the library `cosmic/_ops`: the schemas of torch.ops.cosmic and what runs for them.
// Documented in python/cosmic/ops.py. An error of the core is a std::runtime_error, which the
// dispatcher hands on as Python's RuntimeError.
#include <torch/csrc/stable/library.h>

#include "aten/ops.h"

STABLE_TORCH_LIBRARY(cosmic, m) {
  m.def("adam_step_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avgs, "
        "Tensor(c!)[] exp_avg_sqs, Tensor(d!)[] steps, *, float lr, float beta1, float beta2, "
        "float eps, float weight_decay, bool maximize=False, int seed=0) -> ()");
  m.def("sign_step_(Tensor(a!)[] params, Tensor[] grads, *, float lr, float beta1, "
        "float weight_decay, bool maximize=False) -> ()");
  m.def("quantize(Tensor x, int? bits=None, int block_size=128, *, str codec=\"absmax\", "
        "int seed=0) -> (Tensor codes, Tensor scales)");
  m.def("dequantize(Tensor codes, Tensor scales, SymInt[] size, int bits, int block_size, "
        "ScalarType dtype, *, str codec=\"absmax\") -> Tensor");
  m.def("_watch(Tensor[] tensors, int[] addresses) -> int"); // between the two doors
}

// For every backend, and for empty lists: a tensor that is not a dense CPU tensor is then refused
// by an error of ours that names it, not by the dispatcher.
STABLE_TORCH_LIBRARY_IMPL(cosmic, CompositeExplicitAutograd, m) {
  m.impl("adam_step_", TORCH_BOX(&cosmic::adam_step_));
  m.impl("sign_step_", TORCH_BOX(&cosmic::sign_step_));
  m.impl("quantize", TORCH_BOX(&cosmic::quantize_op));
  m.impl("dequantize", TORCH_BOX(&cosmic::dequantize_op));
  m.impl("_watch", TORCH_BOX(&cosmic::watch));
}
