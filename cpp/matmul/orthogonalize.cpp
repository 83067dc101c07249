#include "matmul/orthogonalize.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "isa/float_environment.h"
#include "kernels/kernels.h"
#include "matmul/product.h"
#include "matmul/product_kernels.h"

namespace cosmic {

namespace {

// Of the power of two nearest 1 / norm that a float can hold; of 1 where there is none.
int exponent_for(double norm) {
  if (!(norm > 0) || !std::isfinite(norm)) return 0;
  int exponent = 0;
  const double fraction = std::frexp(norm, &exponent); // from 0.5 to 1
  return std::clamp(fraction * fraction < 0.5 ? 1 - exponent : -exponent, -126, 126);
}

// How far iterations may go before G is formed anew. Its eigenvalues near zero have an error of
// some 1e-7, negative ones too, and grow by a^2 with each iteration; beyond 1 they would run away.
// Five of Muon's reach 485 in a, those of Polar Express 978.
constexpr double kMostGrowth = 1000;

int last_of_stretch(const NewtonSchulz &steps, int first) {
  int last = first + 1;
  for (double growth = steps.a[first]; last < steps.iterations; ++last) {
    growth *= steps.a[last];
    if (growth > kMostGrowth) break;
  }
  return last;
}

class Orthogonalization {
public:
  Orthogonalization(const Kernels &kernels, const SubMatrix &matrix, float *scratch, int threads)
      : kernel_(kernels.products->f32), matrix_(matrix), threads_(threads),
        size_(std::min(matrix.rows, matrix.columns)), gram_(scratch), poly_(gram_ + size_ * size_),
        total_(poly_ + size_ * size_), rest_(total_ + size_ * size_) {}

  void run(double norm, double eps, double scale, const NewtonSchulz &steps) {
    const int exponent = exponent_for(norm);
    auto factor = static_cast<float>(std::ldexp(1.0, exponent));
    form_gram(factor);
    const double trace = trace_of_gram();
    if (!std::isfinite(trace)) return fill(std::numeric_limits<float>::quiet_NaN());
    if (trace == 0 && eps == 0) return fill(0);
    double divisor = std::max(std::sqrt(trace), std::ldexp(eps, exponent));
    if (steps.by_gram && trace > 0) divisor *= std::sqrt(norm_of_gram() / trace);
    double inverse = 1 / divisor;
    for (int first = 0, last = 0; first < steps.iterations; first = last) {
      constexpr double kMost = std::numeric_limits<float>::max();
      scale_and_mirror(gram_, size_, size_, static_cast<float>(std::min(inverse * inverse, kMost)),
                       threads_);
      last = last_of_stretch(steps, first);
      iterate(steps, first, last);
      const bool more = last < steps.iterations;
      apply(factor, more ? inverse : scale * inverse);
      factor = 1;
      inverse = 1;
      if (more) form_gram(factor);
    }
  }

private:
  bool wide() const { return matrix_.rows <= matrix_.columns; }
  MatrixView view() const { return {matrix_.data, matrix_.stride, 1}; }
  MatrixView square(const float *data) const { return {data, size_, 1}; }

  void form_gram(float factor) {
    Product product;
    product.rows = product.columns = size_;
    product.depth = std::max(matrix_.rows, matrix_.columns);
    product.a = wide() ? view() : view().transposed();
    product.b = product.a.transposed();
    product.a_factor = product.b_factor = factor;
    product.c = gram_;
    product.c_stride = size_;
    multiply_symmetric(kernel_, product, false, rest_, threads_);
  }

  double trace_of_gram() const {
    double trace = 0;
    for (int64_t i = 0; i < size_; ++i) trace += gram_[i * size_ + i];
    return trace;
  }

  // Of which what lies on and below the diagonal is there yet.
  double norm_of_gram() const {
    double squares = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const float *row = gram_ + i * size_;
      double below = 0;
      for (int64_t j = 0; j < i; ++j) below += static_cast<double>(row[j]) * row[j];
      squares += 2 * below + static_cast<double>(row[i]) * row[i];
    }
    return std::sqrt(squares);
  }

  // All of these are symmetric and commute, so that products are symmetric, too. The second operand
  // is given as transposed, so that a square is seen to be one.
  Product of_squares(const float *a, const float *b, float *c) const {
    Product product;
    product.rows = product.columns = product.depth = size_;
    product.a = square(a);
    product.b = square(b).transposed();
    product.c = c;
    product.c_stride = product.d_stride = size_;
    return product;
  }

  void multiply(const Product &product) const {
    multiply_symmetric(kernel_, product, true, rest_, threads_);
  }

  // After the first polynomial Q is P; after the last one nobody asks for G.
  void iterate(const NewtonSchulz &steps, int first, int last) {
    for (int k = first; k < last; ++k) {
      float *poly = k == first ? total_ : poly_;
      Product polynomial = of_squares(gram_, gram_, poly);
      polynomial.alpha = static_cast<float>(steps.c[k]);
      polynomial.beta = static_cast<float>(steps.b[k]);
      polynomial.gamma = static_cast<float>(steps.a[k]);
      polynomial.d = gram_;
      multiply(polynomial);
      if (k > first) multiply(of_squares(poly, total_, total_));
      if (k + 1 == last) return;
      multiply(of_squares(poly, gram_, gram_));
      multiply(of_squares(poly, gram_, gram_));
    }
  }

  void apply(float factor, double alpha) {
    Product product;
    product.rows = matrix_.rows;
    product.columns = matrix_.columns;
    product.depth = size_;
    product.c = matrix_.data;
    product.c_stride = matrix_.stride;
    product.alpha = static_cast<float>(alpha);
    if (wide()) {
      product.a = square(total_);
      product.b = view();
      product.b_factor = factor;
      multiply_by_columns(kernel_, product, rest_, threads_);
    } else {
      product.a = view();
      product.b = square(total_);
      product.a_factor = factor;
      multiply_by_rows(kernel_, product, rest_, threads_);
    }
  }

  void fill(float value) {
    for (int64_t i = 0; i < matrix_.rows; ++i)
      std::fill_n(matrix_.data + i * matrix_.stride, matrix_.columns, value);
  }

  const TileKernel &kernel_;
  const SubMatrix &matrix_;
  int threads_;
  int64_t size_;
  float *gram_, *poly_, *total_, *rest_; // rest_: scratch of products
};

} // namespace

int64_t orthogonalize_scratch(int64_t rows, int64_t columns, int threads) {
  const int64_t size = std::min(rows, columns), depth = std::max(rows, columns);
  return 3 * size * size +
         std::max(symmetric_scratch(size, depth), product_scratch(size, size, threads));
}

void orthogonalize(const Kernels &kernels, const SubMatrix &matrix, double norm, double eps,
                   double scale, const NewtonSchulz &steps, float *scratch, int threads) {
  if (matrix.rows == 0 || matrix.columns == 0) return;
  const DefaultFloatEnvironment environment;
  Orthogonalization(kernels, matrix, scratch, threads).run(norm, eps, scale, steps);
}

} // namespace cosmic
