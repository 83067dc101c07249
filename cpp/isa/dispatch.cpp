#include "isa/dispatch.h"

#include <cstdlib>

#include "core/error.h"
#include "kernels/library.h"

namespace cosmic {

namespace {

std::string joined_isas() {
  std::string out;
  for (const std::string &name : available_isas()) out += (out.empty() ? "" : ", ") + name;
  return out;
}

struct Choice {
  const Kernels *kernels = nullptr;
  std::string error;

  Choice() {
    const char *asked = std::getenv("COSMIC_ISA");
    try {
      kernels = &kernels_for(asked && *asked ? asked : available_isas().front());
    } catch (const Error &caught) {
      error = std::string("environment variable COSMIC_ISA: ") + caught.what();
    }
  }
};

} // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Implementation &i : implementations())
    if (i.supported()) names.emplace_back(i.name);
  return names;
}

const Kernels &kernels_for(const std::string &isa) {
  for (const Implementation &i : implementations())
    if (isa == i.name && i.supported()) return *i.kernels;
  throw Error(ErrorKind::value, "ISA '" + isa + "' is not available here; available: " +
                                    joined_isas() + " (in lower case)");
}

const Kernels &chosen_kernels() {
  static const Choice choice;
  if (!choice.kernels) throw Error(ErrorKind::runtime, choice.error);
  return *choice.kernels;
}

} // namespace cosmic
