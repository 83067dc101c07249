#include "matmul/exact_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "isa/float_environment.h"
#include "matmul/exact_sum.h"

namespace cosmic {

namespace {

template <class T>
T exact_element(const BatchedProduct<T> &p, int64_t matrix, int64_t i, int64_t j) {
  const T *a = p.a.at(i, 0) + matrix * p.a_step, *b = p.b.at(0, j) + matrix * p.b_step;
  ExactSum<T> sum;
  for (int64_t k = 0; k < p.depth; ++k)
    sum.add_product(a[k * p.a.column_step], b[k * p.b.row_step]);
  if (p.add) sum.add(p.add[j * p.add_step]);
  return sum.rounded();
}

// Products of floats are doubles, and a sum in twice their precision nearly always says what the
// exact sum is rounded to: it is within a bound of it, and both ends of that are rounded alike.
// Where they are not, an integer decides.
constexpr int kTogether = 8; // columns

typedef double Pair __attribute__((vector_size(16)));
constexpr int kPairs = kTogether / 2;

struct DoubledSums {
  Pair sum[kPairs] = {}, rest[kPairs] = {}, size[kPairs] = {};

  // Knuth's sum of two and its error.
  void add(const Pair (&x)[kPairs]) {
    for (int v = 0; v < kPairs; ++v) {
      const Pair total = sum[v] + x[v], part = total - sum[v];
      rest[v] = rest[v] + ((sum[v] - (total - part)) + (x[v] - part));
      sum[v] = total;
      size[v] = size[v] + (x[v] > 0 ? x[v] : -x[v]);
    }
  }
};

// Whether the sum of `terms` numbers is certain to round to `out`. Their sum and the sum of their
// errors are off by (terms 2^-53)^2 of their sizes at most (Ogita, Rump and Oishi 2005); the bound
// below is more than twice that and what it takes to compute it.
bool rounds_to(double sum, double rest, double size, int64_t terms, float &out) {
  if (!std::isfinite(size)) return false;
  const double total = sum + rest, part = total - sum;
  const double beyond = (sum - (total - part)) + (rest - part);
  const double unit = static_cast<double>(terms) * 0x1p-53;
  const double bound = 2 * std::fabs(beyond) + 4 * unit * unit * size + 0x1p-52 * std::fabs(total);
  const auto low = static_cast<float>(total - bound), high = static_cast<float>(total + bound);
  out = high;
  return low == high && std::signbit(low) == std::signbit(high);
}

// Some columns of one of the matrices B, and what is added to them.
class Columns {
public:
  Columns(const BatchedProduct<float> &product, int64_t matrix, int64_t first)
      : product_(product), matrix_(matrix), first_(first),
        count_(std::min<int64_t>(kTogether, product.columns - first)),
        numbers_(static_cast<size_t>((product.depth + 1) * kTogether)) {
    for (int64_t k = 0; k < product.depth; ++k)
      for (int64_t j = 0; j < count_; ++j)
        at(k)[j] = product.b.at(k, first + j)[matrix * product.b_step];
    if (product.add)
      for (int64_t j = 0; j < count_; ++j)
        at(product.depth)[j] = product.add[(first + j) * product.add_step];
  }

  void multiply(int64_t i) const {
    const BatchedProduct<float> &p = product_;
    const float *a = p.a.at(i, 0) + matrix_ * p.a_step;
    DoubledSums sums;
    for (int64_t k = 0; k < p.depth; ++k) add(sums, a[k * p.a.column_step], k);
    add(sums, 1, p.depth);
    double sum[kTogether], rest[kTogether], size[kTogether];
    std::memcpy(sum, sums.sum, sizeof(sum));
    std::memcpy(rest, sums.rest, sizeof(rest));
    std::memcpy(size, sums.size, sizeof(size));
    float *out = p.out + matrix_ * p.out_step + i * p.out_stride + first_;
    for (int64_t j = 0; j < count_; ++j)
      if (!rounds_to(sum[j], rest[j], size[j], p.depth + 1, out[j]))
        out[j] = exact_element(p, matrix_, i, first_ + j);
  }

private:
  double *at(int64_t k) { return numbers_.data() + k * kTogether; }

  void add(DoubledSums &sums, double a, int64_t k) const {
    Pair x[kPairs];
    std::memcpy(x, numbers_.data() + k * kTogether, sizeof(x));
    for (Pair &pair : x) pair = pair * a;
    sums.add(x);
  }

  const BatchedProduct<float> &product_;
  const int64_t matrix_, first_, count_;
  std::vector<double> numbers_; // of each k those of the columns; zero where there is none
};

int64_t pieces_of(int64_t size, int64_t piece) { return (size + piece - 1) / piece; }

} // namespace

void multiply_exactly(const BatchedProduct<float> &product, int threads) {
  constexpr int64_t kRows = 64; // of a task
  const int64_t across = pieces_of(product.columns, kTogether),
                down = pieces_of(product.rows, kRows);
#pragma omp parallel num_threads(std::max(threads, 1)) if (threads > 1)
  {
    const DefaultFloatEnvironment environment;
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < product.batch * across * down; ++task) {
      const Columns columns(product, task / down / across, task / down % across * kTogether);
      const int64_t first = task % down * kRows;
      for (int64_t i = first; i < std::min(first + kRows, product.rows); ++i) columns.multiply(i);
    }
  }
}

void multiply_exactly(const BatchedProduct<double> &product, int threads) {
#pragma omp parallel num_threads(std::max(threads, 1)) if (threads > 1)
  {
    const DefaultFloatEnvironment environment;
#pragma omp for schedule(dynamic)
    for (int64_t row = 0; row < product.batch * product.rows; ++row) {
      const int64_t matrix = row / product.rows, i = row % product.rows;
      double *out = product.out + matrix * product.out_step + i * product.out_stride;
      for (int64_t j = 0; j < product.columns; ++j) out[j] = exact_element(product, matrix, i, j);
    }
  }
}

} // namespace cosmic
