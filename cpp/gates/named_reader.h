// Values that a door has handed in, by name, checked as they are read.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "core/error.h"
#include "parts/gate.h"

namespace cosmic {

// Values by name, each of which may be missing, which is as None.
class NamedReader {
public:
  // `before` and `after` stand around a name in messages.
  NamedReader(const NamedValues &values, const char *before, const char *after)
      : values_(values), before_(before), after_(after) {}

  const Named &get(const char *name) const {
    static const Named absent{"", {}, "None"};
    for (const Named &each : values_)
      if (each.name == name) return each;
    return absent;
  }
  bool has(const char *name) const {
    return !std::holds_alternative<std::monostate>(get(name).value);
  }
  double number(const char *name, double low, double high, const char *expected) const {
    const Named &entry = get(name);
    const auto *real = std::get_if<double>(&entry.value);
    const auto *whole = std::get_if<int64_t>(&entry.value);
    const double x = real ? *real : whole ? static_cast<double>(*whole) : NAN;
    if (!(x >= low && x <= high)) refuse(name, expected);
    return x;
  }
  double share(const char *name) const { return number(name, 0, 1, "a number in [0, 1]"); }
  bool truth(const char *name) const {
    const auto *found = std::get_if<bool>(&get(name).value);
    if (!found) refuse(name, "True or False");
    return *found;
  }
  int64_t whole(const char *name, int64_t least, const char *expected) const {
    const auto *found = std::get_if<int64_t>(&get(name).value);
    if (!found || *found < least) refuse(name, expected);
    return *found;
  }
  std::vector<double> numbers(const char *name, double low, double high,
                              const char *expected) const {
    const auto *found = std::get_if<std::vector<double>>(&get(name).value);
    if (!found) refuse(name, expected);
    for (const double x : *found)
      if (!(x >= low && x <= high)) refuse(name, expected);
    return *found;
  }
  [[noreturn]] void refuse(const char *name, const char *expected) const {
    throw Error(ErrorKind::value,
                before_ + name + after_ + get(name).text + "; expected " + expected);
  }

private:
  const NamedValues &values_;
  const std::string before_, after_;
};

} // namespace cosmic
