// Prints the ISAs that were compared, how many combinations, and their fingerprint.
#include <cstdio>
#include <exception>

#include "plan/self_test.h"

int main() {
  try {
    const cosmic::SelfTest test = cosmic::self_test();
    for (const std::string &isa : test.isas) std::printf("%s ", isa.c_str());
    std::printf("%d %s\n", test.combinations, test.fingerprint.c_str());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
