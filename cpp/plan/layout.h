// How the state of a slot lies in memory: what a codec says of its planes, for one tensor.
#pragma once

#include <string>
#include <vector>

#include "core/strided.h"
#include "parts/codec.h"

namespace cosmic {

// A matrix that a tensor's walk can be seen as: element k is (k / columns, k % columns).
struct MatrixShape {
  int64_t rows = 0, columns = 0; // both zero: there is none; of a shard one may be
  explicit operator bool() const { return rows > 0 || columns > 0; }
};

// Of all ways to cut the tensor's dimensions in two, in walk order, the one with the fewest rows
// and columns together; at least 2 rows and `least_columns` columns. Codecs of rows and columns
// need kLanes.
MatrixShape matrix_shape(const TensorView &tensor, const WalkOrder &order,
                         int64_t least_columns = kLanes);

// One tensor of a slot's state.
struct Plane {
  std::string suffix; // of the slot's key in the state, such as "_u4_codes" or "_row"
  const char *dtype;  // torch's name
  int code, bits;     // DLPack's type code, bits of one element
  int64_t count;      // elements
  bool shaped;        // has the parameter's shape and layout, not one dimension
};

// The planes of a codec for a moment of `numel` elements; none without a codec. Throws Error for a
// codec that the slot cannot have, and for rows and columns without a matrix.
std::vector<Plane> slot_layout(const CodecPart *codec, bool second_moment, int64_t numel,
                               MatrixShape matrix);

} // namespace cosmic
