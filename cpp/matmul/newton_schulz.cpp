#include "matmul/newton_schulz.h"

#include <string>

#include "core/error.h"

namespace cosmic {

namespace {

// For one iteration, for two, and so on.
constexpr double kPolarExpress[][3] = {
    {5.5482123828123715, -13.475372948310351, 9.261008133922457}, // of 1
    {6.685520076711169, -17.811269767700782, 12.619541303795451}, // of 2
    {2.5127371282862647, -1.8195429589040293, 0.4198631216224934},
    {7.910260608141099, -22.078821746018672, 15.869113736788153}, // of 3
    {3.6073447007872126, -2.6466685703485973, 0.5110397329749125},
    {2.644818296990174, -1.9269276094795484, 0.43151111361643435},
    {8.13772386717465, -22.713708635181536, 16.325437555605063}, // of 4
    {3.965223820939575, -2.836400988165974, 0.522467436609286},
    {3.488674689299841, -2.562167297769736, 0.5016249217987446},
    {2.4866605607452774, -1.7979681239589251, 0.4175341953566064},
    {8.20516041400557, -22.90193498705603, 16.460724910180296}, // of 5
    {4.06639515994277, -2.86115408675514, 0.5183995226694738},
    {3.909594904437917, -2.8233517350395156, 0.5250369769390022},
    {3.285564017198611, -2.415301959635943, 0.4852940655279083},
    {2.27787328708398, -1.6198217652654443, 0.39848078704168416},
};
constexpr double kNearOne[3] = {15.0 / 8, -10.0 / 8, 3.0 / 8};

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
  check_iterations(iterations, kMostIterations);
  NewtonSchulz steps;
  const int own = iterations < kMostPolarExpress ? iterations : kMostPolarExpress;
  const int first = own * (own - 1) / 2;
  for (int k = 0; k < iterations; ++k) add(steps, k < own ? kPolarExpress[first + k] : kNearOne);
  steps.by_gram = true;
  return steps;
}

NewtonSchulz repeated(int iterations, double a, double b, double c) {
  check_iterations(iterations, kMostIterations);
  NewtonSchulz steps;
  for (int k = 0; k < iterations; ++k) add(steps, {a, b, c});
  return steps;
}

NewtonSchulz muon_quintic(int iterations) { return repeated(iterations, 3.4445, -4.7750, 2.0315); }

} // namespace cosmic
