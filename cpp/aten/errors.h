// The core's exception as one that PyTorch's dispatcher hands on to its caller.
#pragma once

#include <stdexcept>

#include "core/error.h"

namespace cosmic {

// Runs `body`. An error of the core leaves as a standard exception, because no class of libtorch
// may be named: Python sees ValueError for a value, RuntimeError for a tensor of the wrong kind.
template <class Body> auto with_standard_errors(Body body) -> decltype(body()) {
  try {
    return body();
  } catch (const Error &error) {
    if (error.kind == ErrorKind::value) throw std::invalid_argument(error.what());
    throw std::runtime_error(error.what());
  }
}

} // namespace cosmic
