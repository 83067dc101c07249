// The operators' implementations, as library.cpp registers them; their schemas are there.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace cosmic {

void adam_step_(const std::vector<torch::stable::Tensor> &params,
                const std::vector<torch::stable::Tensor> &grads,
                const std::vector<torch::stable::Tensor> &exp_avgs,
                const std::vector<torch::stable::Tensor> &exp_avg_sqs,
                const std::vector<torch::stable::Tensor> &steps, double lr, double beta1,
                double beta2, double eps, double weight_decay, bool maximize, int64_t seed);

void sign_step_(const std::vector<torch::stable::Tensor> &params,
                const std::vector<torch::stable::Tensor> &grads, double lr, double beta1,
                double weight_decay, bool maximize);

std::tuple<torch::stable::Tensor, torch::stable::Tensor>
quantize_op(const torch::stable::Tensor &x, std::optional<int64_t> bits, int64_t block_size,
            const std::string &codec, int64_t seed);

torch::stable::Tensor dequantize_op(const torch::stable::Tensor &codes,
                                    const torch::stable::Tensor &scales,
                                    const std::vector<int64_t> &size, int64_t bits,
                                    int64_t block_size, torch::headeronly::ScalarType dtype,
                                    const std::string &codec);

// A TensorWatch of tensors that lie at these addresses, as a pointer that the caller owns, for the
// door to Python alone; 0 where they do not.
int64_t watch(const std::vector<torch::stable::Tensor> &tensors,
              const std::vector<int64_t> &addresses);

} // namespace cosmic
