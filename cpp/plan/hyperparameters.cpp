#include "plan/hyperparameters.h"

#include <cmath>
#include <sstream>

#include "core/error.h"

namespace cosmic {

bool Range::contains(double x) const {
  return std::isfinite(x) && x >= low && x <= high && !(open_high && x == high);
}

void check(const Range &range, double x) {
  if (range.contains(x)) return;
  std::ostringstream text;
  text << range.name << " is " << x << "; expected " << range.expected;
  throw Error(ErrorKind::value, text.str());
}

} // namespace cosmic
