// The table of combinations, by name.
#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "kernels/combinations.h"
#include "plan/plan.h"

namespace cosmic {

namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string named(const std::string &parts, const std::string &probe) {
  return lower(probe == "None" ? parts : parts + " " + probe);
}

} // namespace

std::vector<std::string> combination_names() {
#define COSMIC_NAME(Real, Rule, M, Slow, Var, Probe)                                               \
  named(#Real " " #Rule " " #M " " #Slow " " #Var, #Probe),
  return {COSMIC_COMBINATIONS(COSMIC_NAME)};
#undef COSMIC_NAME
}

int find_combination(bool f64, const std::string &rule, const std::string &m,
                     const std::string &m_slow, const std::string &v, const std::string &probe) {
  static const std::vector<std::string> names = combination_names();
  const std::string arithmetic = f64 ? "double" : "float";
  const std::string parts = arithmetic + " " + rule + " " + m + " " + m_slow + " " + v;
  const std::string wanted = probe == "none" ? parts : parts + " " + probe;
  const auto found = std::find(names.begin(), names.end(), wanted);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  std::string supported;
  for (const std::string &name : names)
    if (name.rfind(arithmetic, 0) == 0) supported += "\n  " + name;
  throw Error(ErrorKind::value,
              "no kernel combines '" + wanted +
                  "' (arithmetic, rule, m, m_slow, v, probe); supported are:" + supported);
}

} // namespace cosmic
