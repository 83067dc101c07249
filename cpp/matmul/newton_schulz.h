// Coefficients of the odd polynomials that bring singular values to 1, one after the other.
#pragma once

namespace cosmic {

constexpr int kMostIterations = 99;

// Each iteration takes a singular value x to a x + b x^3 + c x^5.
struct NewtonSchulz {
  int iterations = 0;
  double a[kMostIterations] = {}, b[kMostIterations] = {}, c[kMostIterations] = {};
  // Whether the matrix is divided not by its Frobenius norm, which of singular values x is
  // (sum x^2)^(1/2), but by (sum x^4)^(1/4), the root of its Gram matrix's: no less than the
  // largest either, but nearer to it, by as much as an iteration brings.
  bool by_gram = false;
};

constexpr int kMostPolarExpress = 5;

// Polar Express (arXiv 2505.16932) with room for values 1 % larger, for singular values down to
// 0.1, 0.05, 0.01, 0.003 and 0.001 by one to five iterations: tests/reference/polar_express.py.
// Beyond kMostPolarExpress the values are near 1, and what is best there, 15/8, -10/8, 3/8, is
// repeated. `by_gram`.
NewtonSchulz polar_express(int iterations);

// The same polynomial so many times.
NewtonSchulz repeated(int iterations, double a, double b, double c);

// The one polynomial of torch.optim.Muon. At most kMostIterations iterations.
NewtonSchulz muon_quintic(int iterations);

} // namespace cosmic
