// The core's test of itself: the same bits from every ISA of this machine, for any thread count.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "isa/dispatch.h"

namespace cosmic {

// Fingerprint of the parameters and state that some steps of every combination leave, by position
// in the table of combinations.
std::vector<uint64_t> step_fingerprints(const Kernels &kernels, int threads);

struct SelfTest {
  std::vector<std::string> isas; // that were compared
  int combinations;
  std::string fingerprint; // of all of them; the same on every machine
};

// Steps every combination on every available ISA with 1 and with 2 threads, and by parts with 1;
// checks what it adds up (probe_test.h) and what it multiplies (matmul/product_test.h). Throws
// Error, which names the first combination whose bits differ, and where.
SelfTest self_test();

} // namespace cosmic
