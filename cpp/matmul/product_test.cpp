#include "matmul/product_test.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "isa/dispatch.h"
#include "kernels/kernels.h"
#include "matmul/batched.h"
#include "matmul/orthogonalize.h"
#include "matmul/product.h"
#include "matmul/product_kernels.h"

namespace cosmic {

namespace {

using Floats = std::vector<float>;

// Tiles at every edge, and more k than are summed at a time.
constexpr int64_t kRows = 67, kColumns = 75, kDepth = 401;

size_t floats(int64_t count) { return static_cast<size_t>(count); }

// Numbers in [-1, 1) from splitmix32's finalizer, exact in float.
Floats random_floats(int64_t count, uint32_t seed) {
  Floats out(floats(count));
  for (size_t k = 0; k < out.size(); ++k) {
    uint32_t x = seed * 0x9e3779b9u + static_cast<uint32_t>(k);
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    out[k] = std::ldexp(static_cast<float>(static_cast<int32_t>(x ^ (x >> 16)) >> 8), -23);
  }
  return out;
}

Floats plain_product(const Product &product) {
  Floats out(floats(product.rows * product.columns));
  for (int64_t i = 0; i < product.rows; ++i)
    for (int64_t j = 0; j < product.columns; ++j) {
      float sum = 0;
      for (int64_t k = 0; k < product.depth; ++k) sum += *product.a.at(i, k) * *product.b.at(k, j);
      out[floats(i * product.columns + j)] = sum;
    }
  return out;
}

template <class T> void check_same(const std::vector<T> &found, const std::vector<T> &expected,
                                   const char *what, const Kernels &kernels, int threads) {
  if (std::memcmp(found.data(), expected.data(), expected.size() * sizeof(T)) != 0)
    throw Error(ErrorKind::runtime, std::string("self-test: ") + what +
                                        " gives other bits with ISA " + kernels.isa + " and " +
                                        std::to_string(threads) + " threads than it should");
}

void check_multiplied(const Kernels &kernels, int threads) {
  const Floats a = random_floats(kRows * kDepth, 1), b = random_floats(kDepth * kColumns, 2);
  Floats c(floats(kRows * kColumns));
  Product product;
  product.rows = kRows;
  product.columns = kColumns;
  product.depth = kDepth;
  product.a = {a.data(), kDepth, 1};
  product.b = {b.data(), kColumns, 1};
  product.c = c.data();
  product.c_stride = kColumns;
  Floats scratch(floats(product_scratch(kColumns, kDepth, threads)));
  multiply_by_columns(kernels.products->f32, product, scratch.data(), threads);
  check_same(c, plain_product(product), "a product by columns", kernels, threads);
  std::fill(c.begin(), c.end(), 0.0f);
  multiply_by_rows(kernels.products->f32, product, scratch.data(), threads);
  check_same(c, plain_product(product), "a product by rows", kernels, threads);
}

// Of two pairs of matrices, one of them the other way round in memory.
template <class T> BatchedProduct<T> batched_product(const std::vector<T> &a,
                                                     const std::vector<T> &b, std::vector<T> &out) {
  BatchedProduct<T> product;
  product.batch = 2;
  product.rows = kRows;
  product.columns = kColumns;
  product.depth = kDepth;
  product.a = {a.data(), 1, kRows};
  product.a_step = kRows * kDepth;
  product.b = {b.data(), kColumns, 1};
  product.out = out.data();
  product.out_step = kRows * kColumns;
  product.out_stride = kColumns;
  product.add = b.data();
  product.add_step = 1;
  return product;
}

// Sums of type Sum over k in order.
template <class Sum, class T> std::vector<T> plain_batched(const BatchedProduct<T> &product) {
  std::vector<T> out;
  for (int64_t matrix = 0; matrix < product.batch; ++matrix)
    for (int64_t i = 0; i < product.rows; ++i)
      for (int64_t j = 0; j < product.columns; ++j) {
        Sum sum = 0;
        for (int64_t k = 0; k < product.depth; ++k)
          sum += static_cast<Sum>(product.a.at(i, k)[matrix * product.a_step]) *
                 static_cast<Sum>(*product.b.at(k, j));
        out.push_back(static_cast<T>(sum + static_cast<Sum>(product.add[j])));
      }
  return out;
}

template <class Sum, class T>
void check_batched(const Kernels &kernels, Accumulate accumulate, int threads) {
  const Floats left = random_floats(2 * kRows * kDepth, 5),
               right = random_floats(kDepth * kColumns, 6);
  const std::vector<T> a(left.begin(), left.end()), b(right.begin(), right.end());
  std::vector<T> c(floats(2 * kRows * kColumns));
  const BatchedProduct<T> product = batched_product(a, b, c);
  multiply_batched(*kernels.products, product, accumulate, threads);
  check_same(c, plain_batched<Sum>(product), "a batch of products", kernels, threads);
}

void check_symmetric(const Kernels &kernels, int threads) {
  const Floats a = random_floats(kRows * kDepth, 3);
  Floats c(floats(kRows * kRows)), scratch(floats(symmetric_scratch(kRows, kDepth)));
  Product product;
  product.rows = product.columns = kRows;
  product.depth = kDepth;
  product.a = {a.data(), kDepth, 1};
  product.b = product.a.transposed();
  product.c = c.data();
  product.c_stride = kRows;
  multiply_symmetric(kernels.products->f32, product, true, scratch.data(), threads);
  check_same(c, plain_product(product), "a symmetric product", kernels, threads);
}

Floats orthogonalized(const Kernels &kernels, int64_t rows, int64_t columns, int threads) {
  Floats matrix = random_floats(rows * columns, 4);
  Floats scratch(floats(orthogonalize_scratch(rows, columns, threads)));
  orthogonalize(kernels, {matrix.data(), rows, columns, columns}, 50, 1e-7, 0.5, polar_express(4),
                scratch.data(), threads);
  return matrix;
}

} // namespace

void check_products(const Kernels &kernels) {
  const Kernels &scalar = kernels_for("scalar");
  for (const int threads : {1, 2}) {
    check_multiplied(kernels, threads);
    check_symmetric(kernels, threads);
    check_batched<float, float>(kernels, Accumulate::fp32, threads);
    check_batched<double, float>(kernels, Accumulate::fp64, threads);
    check_batched<double, double>(kernels, Accumulate::fp64, threads);
    for (const auto &[rows, columns] : {std::pair{kRows, kDepth}, std::pair{kDepth, kRows}})
      check_same(orthogonalized(kernels, rows, columns, threads),
                 orthogonalized(scalar, rows, columns, 1), "an orthogonalization", kernels,
                 threads);
  }
}

} // namespace cosmic
