// Prints the ISAs that were compared, how many combinations, and their fingerprint; then, for each
// way to sum products, the digest of the reference training.
#include <cstdio>
#include <exception>

#include "isa/dispatch.h"
#include "plan/self_test.h"
#include "reference/reference_training.h"

int main() {
  try {
    const cosmic::SelfTest test = cosmic::self_test();
    for (const std::string &isa : test.isas) std::printf("%s ", isa.c_str());
    std::printf("%d %s\n", test.combinations, test.fingerprint.c_str());
    for (const char *accumulate : {"fp32", "fp64"})
      std::printf("%s %s\n", accumulate,
                  cosmic::reference_training(cosmic::chosen_kernels(),
                                             cosmic::accumulate_named(accumulate), 2)
                      .c_str());
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
