// What a codec says of itself: how a slot is stored between steps.
#pragma once

#include "parts/part.h"

namespace cosmic {

// A tensor of a slot's state: so many elements for each element, block, row or column.
struct PlaneOf {
  enum class Each { element, block, row, column };

  std::string what;  // of the key: "codes", "scale", ...; empty where the slot's own key is enough
  const char *dtype; // torch's name
  int code, bits;    // DLPack's type code, bits of one element
  Each each;
  int64_t count = 1;
};

namespace dlpack {
inline constexpr int kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4; // type codes
} // namespace dlpack

// Planes that several codecs have.
namespace planes {

inline PlaneOf of_element(const char *dtype, int code, int bits) {
  return {"", dtype, code, bits, PlaneOf::Each::element};
}
inline PlaneOf codes(int bits) {
  return {"codes", "uint8", dlpack::kUnsigned, 8, PlaneOf::Each::block, kBlock * bits / 8};
}
inline PlaneOf bf16_of_block(const char *what, int64_t count = 1) {
  return {what, "bfloat16", dlpack::kBfloat, 16, PlaneOf::Each::block, count};
}
inline PlaneOf rows() { return {"row", "float32", dlpack::kFloat, 32, PlaneOf::Each::row}; }
inline PlaneOf columns() { return {"col", "float32", dlpack::kFloat, 32, PlaneOf::Each::column}; }

} // namespace planes

struct CodecStep {
  const Group &group;
  const double *options;
  bool first; // nothing has been encoded yet
};

// What a codec of a first moment may change after a step.
struct Encoded {
  Planes planes;
  const float *by_block; // what the kernels left for each block, where the codec has them do so
  int64_t blocks;
};

struct CodecPart : Part {
  // Tensors of a first, or of a second moment; none where it is no codec of that.
  std::vector<PlaneOf> first, second;
  // Codecs of the other moment that rule adam takes together with it.
  std::vector<std::string> goes_with;
  bool by_rows = false, by_columns = false; // a matrix's, which the kernels do not address
  bool by_block = false; // kernels leave a float a block behind the planes, which is no state
  bool of_next_gradient = false; // nobody can decode it without that
  bool measured = false;         // its probe's sums are taken before the step

  // Of a first moment with numbers of the whole tensor. What they are for a step; what follows from
  // sums that were measured before it; what is left of it.
  void (*coefficients)(Coefficients &c, const float *numbers, const CodecStep &step) = nullptr;
  void (*measure)(Coefficients &c, const double *probed) = nullptr;
  void (*finish)(float *numbers, const Coefficients &c, double encoded, double numel,
                 const Encoded &state, const CodecStep &step) = nullptr;
  // Where moments are encoded outside a step: once to see, and again with what this has set.
  void (*start)(float *numbers, Coefficients &c, double encoded, double numel,
                const CodecStep &step) = nullptr;

  bool is_plain() const { // one number an element
    const auto &any = first.empty() ? second : first;
    return any.size() == 1 && any[0].what.empty();
  }
  bool of_matrix() const { return by_rows || by_columns; }
};

} // namespace cosmic
