#include "matmul/newton_schulz.h"

#include <string>

#include "core/error.h"

namespace cosmic {

namespace {

constexpr double kPolarExpress[kMostPolarExpress][3] = {
    {8.20516041400557, -22.90193498705603, 16.460724910180296},
    {4.06639515994277, -2.86115408675514, 0.5183995226694738},
    {3.909594904437917, -2.8233517350395156, 0.5250369769390022},
    {3.285564017198611, -2.415301959635943, 0.4852940655279083},
    {2.27787328708398, -1.6198217652654443, 0.39848078704168416},
};
constexpr double kMuon[3] = {3.4445, -4.7750, 2.0315};

void check_iterations(int iterations, int most) {
  if (iterations < 1 || iterations > most)
    throw Error(ErrorKind::value, "iterations must be from 1 to " + std::to_string(most) +
                                      ", not " + std::to_string(iterations));
}

void add(NewtonSchulz &steps, const double (&coefficients)[3]) {
  steps.a[steps.iterations] = coefficients[0];
  steps.b[steps.iterations] = coefficients[1];
  steps.c[steps.iterations] = coefficients[2];
  ++steps.iterations;
}

} // namespace

NewtonSchulz polar_express(int iterations) {
  check_iterations(iterations, kMostPolarExpress);
  NewtonSchulz steps;
  for (int k = 0; k < iterations; ++k) add(steps, kPolarExpress[k]);
  return steps;
}

NewtonSchulz muon_quintic(int iterations) {
  check_iterations(iterations, kMostIterations);
  NewtonSchulz steps;
  for (int k = 0; k < iterations; ++k) add(steps, kMuon);
  return steps;
}

} // namespace cosmic
