// A whole training without torch: a small language model, its gradients and Adam's steps by the
// kernels of the core. Its digest is the same on every machine, for any number of threads, and the
// same as of the same training through torch's autograd.
//
// The model, in float32: 16 sequences of 32 tokens out of 64, width 32, two blocks, two heads of
// 16, an MLP of 128. Its parameters, in this order:
//
//   tokens [64, 32], positions [32, 32];
//   of each block norm1.weight [32], norm1.bias [32], qkv.weight [96, 32], qkv.bias [96],
//     proj.weight [32, 32], proj.bias [32], norm2.weight [32], norm2.bias [32],
//     up.weight [128, 32], up.bias [128], down.weight [32, 128], down.bias [32];
//   norm.weight [32], norm.bias [32], head.weight [64, 32].
//
// Parameter i of two dimensions starts from fill_normal with mean 0, standard deviation 1/8 and key
// i; weights of norms start from 1, biases from 0. The batch of step s = 0, 1, ... is made of
// u [16, 33] in double, from fill_uniform in [0, 1) with key 1000 + s: the first token of a row is
// floor(64 u[0]), the next one is (5 * the last + floor(4 u[t])) mod 64. The first 32 are read, the
// last 32 are to be told.
//
//   x = tokens[id] + positions[t];  of each block
//     q, k, v = LayerNorm1(x) qkv^T + bias, in heads of 16 columns each
//     x += (softmax(q k^T / 4, causal) v) proj^T + bias
//     x += gelu(LayerNorm2(x) up^T + bias) down^T + bias, gelu that of tanh
//   logits = LayerNorm(x) head^T;  the loss is their mean cross-entropy
//
// Norms have eps 1e-5. The gradient of a token's row is 1/512. That of x before a sum is the sum of
// both gradients behind it. Then AdamW at lr 0.003 with betas 0.9 and 0.999, eps 1e-8 and no weight
// decay, its moments in float32.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/kernels.h"
#include "matmul/batched.h"

namespace cosmic {

constexpr int64_t kReferenceSteps = 50;

// SHA-256 of all parameters after so many steps: their bytes in little-endian order, one parameter
// after the other. 64 hexadecimal digits.
std::string reference_training(const Kernels &kernels, Accumulate accumulate, int threads,
                               int64_t steps = kReferenceSteps);

} // namespace cosmic
