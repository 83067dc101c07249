#include "reference/layers.h"

#include <cstddef>

#include "exact/elements.h"

namespace cosmic::reference {

namespace {

constexpr double kEps = 1e-5;

size_t count(int64_t numbers) { return static_cast<size_t>(numbers); }

// A matrix of some rows and columns within another.
struct Place {
  const float *data;
  int64_t row_step, column_step = 1;

  Place transposed() const { return {data, column_step, row_step}; }
};

struct Shape {
  int64_t rows, depth, columns;
};

BatchedProduct<float> product_of(const Shape &shape, const Place &a, const Place &b, float *out,
                                 int64_t out_stride) {
  BatchedProduct<float> product;
  product.batch = 1;
  product.rows = shape.rows;
  product.depth = shape.depth;
  product.columns = shape.columns;
  product.a = {a.data, a.row_step, a.column_step};
  product.b = {b.data, b.row_step, b.column_step};
  product.out = out;
  product.out_stride = out_stride;
  return product;
}

void multiply(const How &how, const BatchedProduct<float> &product) {
  multiply_batched(*how.kernels.products, product, how.accumulate, how.threads);
}

} // namespace

Parameter::Parameter(int64_t rows, int64_t columns, float filled)
    : rows(rows), columns(columns), value(count(rows * columns), filled),
      grad(count(rows * columns)) {}

Floats forward(const How &how, const Linear &linear, const Floats &x) {
  const int64_t out = linear.weight.rows, in = linear.weight.columns;
  const int64_t rows = static_cast<int64_t>(x.size()) / in;
  Floats y(count(rows * out));
  BatchedProduct<float> product =
      product_of({rows, in, out}, {x.data(), in},
                 Place{linear.weight.value.data(), in}.transposed(), y.data(), out);
  if (linear.bias) product.add = linear.bias->value.data();
  product.add_step = 1;
  multiply(how, product);
  return y;
}

Floats backward(const How &how, const Linear &linear, const Floats &x, const Floats &grad) {
  const int64_t out = linear.weight.rows, in = linear.weight.columns;
  const int64_t rows = static_cast<int64_t>(x.size()) / in;
  const Place dy = {grad.data(), out};
  multiply(how, product_of({out, rows, in}, dy.transposed(), {x.data(), in},
                           linear.weight.grad.data(), in));
  if (linear.bias)
    column_sums(*how.kernels.exact, grad.data(), rows, out, linear.bias->grad.data(), how.threads);
  Floats dx(x.size());
  multiply(how, product_of({rows, out, in}, dy, {linear.weight.value.data(), in}, dx.data(), in));
  return dx;
}

Normed forward(const How &how, const LayerNorm &norm, const Floats &x) {
  const int64_t columns = norm.weight.columns;
  const int64_t rows = static_cast<int64_t>(x.size()) / columns;
  Normed normed = {Floats(x.size()), Floats(count(rows)), Floats(count(rows))};
  normalize<float>(*how.kernels.exact,
                   {rows, columns, x.data(), norm.weight.value.data(), norm.bias.value.data(), kEps,
                    normed.out.data(), normed.mean.data(), normed.rstd.data()},
                   how.threads);
  return normed;
}

Floats backward(const How &how, const LayerNorm &norm, const Floats &x, const Normed &normed,
                const Floats &grad) {
  const int64_t columns = norm.weight.columns;
  const int64_t rows = static_cast<int64_t>(x.size()) / columns;
  Floats dx(x.size());
  normalize_back<float>(*how.kernels.exact,
                        {rows, columns, x.data(), norm.weight.value.data(), normed.mean.data(),
                         normed.rstd.data(), grad.data(), dx.data(), norm.weight.grad.data(),
                         norm.bias.grad.data()},
                        how.threads);
  return dx;
}

namespace {

// Where the matrices of one sequence's head lie.
class Head {
public:
  Head(const Attention &attention, int64_t sequence, int64_t head)
      : of_(attention), token_(sequence * attention.length), column_(head * attention.width),
        square_((sequence * attention.heads + head) * attention.length * attention.length) {}

  int64_t row() const { return of_.row(); }
  int64_t width_of_all() const { return of_.heads * of_.width; }
  // Queries, keys, values: part 0, 1, 2.
  int64_t at(int64_t part) const { return token_ * row() + part * width_of_all() + column_; }
  int64_t out() const { return token_ * width_of_all() + column_; }
  int64_t square() const { return square_; }

private:
  const Attention &of_;
  int64_t token_, column_, square_;
};

template <class Visit> void for_each_head(const Attention &attention, Visit visit) {
  for (int64_t sequence = 0; sequence < attention.sequences; ++sequence)
    for (int64_t head = 0; head < attention.heads; ++head) visit(Head(attention, sequence, head));
}

} // namespace

Attended forward(const How &how, const Attention &attention, const Floats &x) {
  const int64_t length = attention.length, width = attention.width;
  const int64_t matrices = attention.sequences * attention.heads;
  Floats scores(count(matrices * length * length));
  for_each_head(attention, [&](const Head &head) {
    const Place q = {x.data() + head.at(0), head.row()}, k = {x.data() + head.at(1), head.row()};
    multiply(how, product_of({length, width, length}, q, k.transposed(),
                             scores.data() + head.square(), length));
  });
  Attended attended = {Floats(scores.size()), Floats(x.size() / 3)};
  softmax(*how.kernels.exact, {matrices, length, length, true}, scores.data(), attention.scale,
          attended.shares.data(), how.threads);
  for_each_head(attention, [&](const Head &head) {
    const Place shares = {attended.shares.data() + head.square(), length};
    multiply(how, product_of({length, length, width}, shares, {x.data() + head.at(2), head.row()},
                             attended.out.data() + head.out(), head.width_of_all()));
  });
  return attended;
}

Floats backward(const How &how, const Attention &attention, const Floats &x,
                const Attended &attended, const Floats &grad) {
  const int64_t length = attention.length, width = attention.width;
  const int64_t matrices = attention.sequences * attention.heads;
  Floats dx(x.size()), of_shares(attended.shares.size()), of_scores(attended.shares.size());
  for_each_head(attention, [&](const Head &head) {
    const Place shares = {attended.shares.data() + head.square(), length};
    const Place dy = {grad.data() + head.out(), head.width_of_all()};
    const Place v = {x.data() + head.at(2), head.row()};
    multiply(how, product_of({length, length, width}, shares.transposed(), dy,
                             dx.data() + head.at(2), head.row()));
    multiply(how, product_of({length, width, length}, dy, v.transposed(),
                             of_shares.data() + head.square(), length));
  });
  softmax_back(*how.kernels.exact, matrices * length, length, attended.shares.data(),
               of_shares.data(), attention.scale, of_scores.data(), how.threads);
  for_each_head(attention, [&](const Head &head) {
    const Place ds = {of_scores.data() + head.square(), length};
    const Place q = {x.data() + head.at(0), head.row()}, k = {x.data() + head.at(1), head.row()};
    multiply(how, product_of({length, length, width}, ds, k, dx.data() + head.at(0), head.row()));
    multiply(how, product_of({length, length, width}, ds.transposed(), q, dx.data() + head.at(1),
                             head.row()));
  });
  return dx;
}

Floats gelu(const How &how, const Floats &x) {
  Floats y(x.size());
  map_elements(*how.kernels.exact, MapAt::gelu_tanh, x.data(), static_cast<int64_t>(x.size()),
               y.data(), how.threads);
  return y;
}

Floats gelu_back(const How &how, const Floats &x, const Floats &grad) {
  Floats dx(x.size());
  map_elements_back(*how.kernels.exact, MapAt::gelu_tanh, x.data(), grad.data(),
                    static_cast<int64_t>(x.size()), dx.data(), how.threads);
  return dx;
}

Floats sum(const Floats &a, const Floats &b) {
  Floats out(a.size());
  for (size_t k = 0; k < a.size(); ++k) out[k] = a[k] + b[k];
  return out;
}

} // namespace cosmic::reference
