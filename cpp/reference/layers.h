// Layers of a small language model, forward and backward, by the kernels of matmul/ and exact/.
// Matrices are runs of memory, a row for each token.
#pragma once

#include <cstdint>
#include <vector>

#include "exact/exact_kernels.h"
#include "exact/rows.h"
#include "kernels/kernels.h"
#include "matmul/batched.h"

namespace cosmic::reference {

using Floats = std::vector<float>;

// What computes, and how products are summed.
struct How {
  const Kernels &kernels;
  Accumulate accumulate;
  int threads;
};

struct Parameter {
  int64_t rows, columns; // one row: a vector
  Floats value, grad;

  Parameter(int64_t rows, int64_t columns, float filled);
  int64_t size() const { return rows * columns; }
};

struct Linear {
  Parameter &weight, *bias; // [out, in], and one that may be null
};
// x [rows, in] W^T + bias
Floats forward(const How &how, const Linear &linear, const Floats &x);
// The gradient of x; those of the parameters are set.
Floats backward(const How &how, const Linear &linear, const Floats &x, const Floats &grad);

struct LayerNorm {
  Parameter &weight, &bias;
};
struct Normed {
  Floats out, mean, rstd;
};
Normed forward(const How &how, const LayerNorm &norm, const Floats &x);
Floats backward(const How &how, const LayerNorm &norm, const Floats &x, const Normed &normed,
                const Floats &grad);

// Causal attention of sequences whose rows hold queries, keys and values of all heads, in this
// order, each [heads * width].
struct Attention {
  int64_t sequences, length, heads, width;
  double scale;

  int64_t row() const { return 3 * heads * width; } // numbers of a token
};
struct Attended {
  Floats shares, out; // [sequences, heads, length, length], [tokens, heads * width]
};
Attended forward(const How &how, const Attention &attention, const Floats &x);
Floats backward(const How &how, const Attention &attention, const Floats &x,
                const Attended &attended, const Floats &grad);

Floats gelu(const How &how, const Floats &x); // of tanh
Floats gelu_back(const How &how, const Floats &x, const Floats &grad);

// a + b, element by element
Floats sum(const Floats &a, const Floats &b);

} // namespace cosmic::reference
