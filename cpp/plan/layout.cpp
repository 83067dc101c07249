#include "plan/layout.h"

#include "core/error.h"

namespace cosmic {

namespace {

constexpr int kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4; // DLPack's type codes

int64_t blocks_of(int64_t numel) { return (numel + kBlock - 1) / kBlock; }

Plane codes(int bits, int64_t numel) {
  return {"", "uint8", kUnsigned, 8, blocks_of(numel) * kBlock * bits / 8, false};
}

// Bits of a code of logarithmic levels: "vlog4" has 4; 0 for other codecs.
int log_level_bits(const std::string &codec) {
  for (const int bits : {2, 3, 4, 6, 8})
    if (codec == "vlog" + std::to_string(bits)) return bits;
  return 0;
}

Plane scales(int64_t numel) { return {"_scale", "bfloat16", kBfloat, 16, blocks_of(numel), false}; }

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

std::vector<Plane> slot_layout(const std::string &codec, bool second_moment, int64_t numel,
                               MatrixShape matrix) {
  if (codec == "none") return {};
  if (codec == "fp32") return {{"", "float32", kFloat, 32, numel, true}};
  if (codec == "fp64") return {{"", "float64", kFloat, 64, numel, true}};
  if (codec == "bf16") return {{"", "bfloat16", kBfloat, 16, numel, true}};
  if (second_moment) {
    if (codec == "v4")
      return {codes(4, numel), {"_scale", "int16", kInt, 16, blocks_of(numel), false}};
    if (codec == "q8")
      return {codes(8, numel), {"_scale", "int32", kInt, 32, blocks_of(numel), false}};
    if (const int bits = log_level_bits(codec))
      return {codes(bits, numel), {"_scale", "float16", kFloat, 16, 2 * blocks_of(numel), false}};
    const Plane row{"_row", "float32", kFloat, 32, matrix.rows, false};
    const Plane column{"_col", "float32", kFloat, 32, matrix.columns, false};
    const bool of_matrix = codec == "factored" || codec == "rowmean" || codec == "colmean";
    if (of_matrix && !matrix)
      throw Error(ErrorKind::value, "codec " + codec +
                                        " needs a matrix of at least 2 rows and 16 columns; the "
                                        "parameter cannot be seen as one");
    if (codec == "factored") return {row, column};
    if (codec == "rowmean") return {row};
    if (codec == "colmean") return {column};
  } else {
    if (codec == "q8") return {codes(8, numel), scales(numel)};
    if (codec == "u4") return {codes(4, numel), scales(numel)};
    if (codec == "u2") return {codes(2, numel), scales(numel)};
    if (codec == "u1") return {codes(1, numel), scales(numel)};
  }
  if (!second_moment && codec == "ustate")
    return {codes(2, numel), {"_mean", "bfloat16", kBfloat, 16, 2 * blocks_of(numel), false}};
  if (!second_moment && codec == "costate")
    return {codes(1, numel), {"_scale", "float32", kFloat, 32, blocks_of(numel), false}};
  throw Error(ErrorKind::value, std::string("there is no codec '") + codec + "' for a " +
                                    (second_moment ? "second" : "first") + " moment");
}

} // namespace cosmic
