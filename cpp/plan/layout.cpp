#include "plan/layout.h"

#include "core/error.h"

namespace cosmic {

namespace {

int64_t blocks_of(int64_t numel) { return (numel + kBlock - 1) / kBlock; }

int64_t count_of(const PlaneOf &plane, int64_t numel, MatrixShape matrix) {
  switch (plane.each) {
  case PlaneOf::Each::element:
    return numel * plane.count;
  case PlaneOf::Each::block:
    return blocks_of(numel) * plane.count;
  case PlaneOf::Each::row:
    return matrix.rows * plane.count;
  default:
    return matrix.columns * plane.count;
  }
}

// The key of what is packed names the codec, so that nobody takes it for numbers; means of rows and
// columns are what they are.
std::string suffix_of(const CodecPart &codec, const PlaneOf &plane) {
  if (plane.what.empty()) return "";
  return plane.each == PlaneOf::Each::block ? "_" + codec.name + "_" + plane.what
                                            : "_" + plane.what;
}

} // namespace

MatrixShape matrix_shape(const TensorView &tensor, const WalkOrder &order, int64_t least_columns) {
  MatrixShape best;
  const int64_t numel = tensor.numel();
  int64_t rows = 1;
  for (int k = 0; numel > 0 && k + 1 < order.ndim; ++k) {
    rows *= tensor.sizes[order.dims[k]];
    const int64_t columns = numel / rows;
    const bool fits = rows >= 2 && columns >= least_columns;
    if (fits && (!best || rows + columns < best.rows + best.columns)) best = {rows, columns};
  }
  return best;
}

std::vector<Plane> slot_layout(const CodecPart *codec, bool second_moment, int64_t numel,
                               MatrixShape matrix) {
  if (!codec) return {};
  const std::vector<PlaneOf> &planes = second_moment ? codec->second : codec->first;
  if (planes.empty())
    throw Error(ErrorKind::value, "there is no codec '" + codec->name + "' for a " +
                                      (second_moment ? "second" : "first") + " moment");
  if (codec->of_matrix() && !matrix)
    throw Error(ErrorKind::value, "codec " + codec->name +
                                      " needs a matrix of at least 2 rows and 16 columns; the "
                                      "parameter cannot be seen as one");
  std::vector<Plane> out;
  out.reserve(planes.size());
  for (const PlaneOf &plane : planes)
    out.push_back({suffix_of(*codec, plane), plane.dtype, plane.code, plane.bits,
                   count_of(plane, numel, matrix), plane.what.empty()});
  return out;
}

} // namespace cosmic
