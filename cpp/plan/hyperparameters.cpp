#include "plan/hyperparameters.h"

#include <sstream>

#include "core/error.h"

namespace cosmic {

void check(const Range &range, double x) {
  if (range.contains(x)) return;
  std::ostringstream text;
  text << range.name << " is " << x << "; expected " << range.expected;
  throw Error(ErrorKind::value, text.str());
}

} // namespace cosmic
