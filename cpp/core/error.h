// The core's one exception; each door to the core turns it into its own.
#pragma once

#include <stdexcept>
#include <string>

namespace cosmic {

// tensor: one that cannot be used, by its layout, device, dtype or memory. index: one that reaches
// outside of what it is to be found in.
enum class ErrorKind { value, tensor, runtime, index };

struct Error : std::runtime_error {
  ErrorKind kind;
  Error(ErrorKind kind, const std::string &message) : std::runtime_error(message), kind(kind) {}
};

} // namespace cosmic
