// Which kernels this process runs: the best that the CPU has, or the one that COSMIC_ISA names.
#pragma once

#include <string>
#include <vector>

namespace cosmic {

struct Kernels; // kernels/kernels.h

// Names of the ISAs that this build has and this CPU runs, best first; "scalar" is always last.
std::vector<std::string> available_isas();

// The kernels of the named ISA. Throws Error if this build or this CPU does not have it.
const Kernels &kernels_for(const std::string &isa);

// The kernels chosen when the process started. Throws Error, at every call, if COSMIC_ISA names
// an ISA that is unknown or not available: an unknown name is never ignored.
const Kernels &chosen_kernels();

} // namespace cosmic
