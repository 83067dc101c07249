// Coefficients of the odd polynomials that bring singular values to 1, one after the other.
#pragma once

namespace cosmic {

constexpr int kMostIterations = 10;

// Each iteration takes a singular value x to a x + b x^3 + c x^5.
struct NewtonSchulz {
  int iterations = 0;
  double a[kMostIterations] = {}, b[kMostIterations] = {}, c[kMostIterations] = {};
};

constexpr int kMostPolarExpress = 5;

// Polar Express (arXiv 2505.16932) for singular values from 0.001 to 1, with room for values 1 %
// larger, by tests/reference/polar_express.py. At most kMostPolarExpress iterations.
NewtonSchulz polar_express(int iterations);

// The one polynomial of torch.optim.Muon. At most kMostIterations iterations.
NewtonSchulz muon_quintic(int iterations);

} // namespace cosmic
