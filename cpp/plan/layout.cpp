#include "plan/layout.h"

#include "core/error.h"

namespace cosmic {

namespace {

constexpr int kInt = 0, kUnsigned = 1, kFloat = 2, kBfloat = 4; // DLPack's type codes

int64_t blocks_of(int64_t numel) { return (numel + kBlock - 1) / kBlock; }

// A plane of codes or of what belongs to them: its key names the codec, so that nobody takes it for
// numbers.
Plane packed(const std::string &codec, const char *what, const char *dtype, int code, int bits,
             int64_t count) {
  return {"_" + codec + "_" + what, dtype, code, bits, count, false};
}

Plane codes(const std::string &codec, int bits, int64_t numel) {
  return packed(codec, "codes", "uint8", kUnsigned, 8, blocks_of(numel) * kBlock * bits / 8);
}

// Bits of a code of logarithmic levels: "vlog4" has 4; 0 for other codecs.
int log_level_bits(const std::string &codec) {
  for (const int bits : {2, 3, 4, 6, 8})
    if (codec == "vlog" + std::to_string(bits)) return bits;
  return 0;
}

Plane scales(const std::string &codec, int64_t numel) {
  return packed(codec, "scale", "bfloat16", kBfloat, 16, blocks_of(numel));
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

std::vector<Plane> slot_layout(const std::string &codec, bool second_moment, int64_t numel,
                               MatrixShape matrix) {
  if (codec == "none") return {};
  if (codec == "fp32") return {{"", "float32", kFloat, 32, numel, true}};
  if (codec == "fp64") return {{"", "float64", kFloat, 64, numel, true}};
  if (codec == "bf16") return {{"", "bfloat16", kBfloat, 16, numel, true}};
  if (second_moment) {
    if (codec == "v4")
      return {codes(codec, 4, numel), packed(codec, "scale", "int16", kInt, 16, blocks_of(numel))};
    if (codec == "q8")
      return {codes(codec, 8, numel), packed(codec, "scale", "int32", kInt, 32, blocks_of(numel))};
    if (const int bits = log_level_bits(codec))
      return {codes(codec, bits, numel),
              packed(codec, "scale", "float16", kFloat, 16, 2 * blocks_of(numel))};
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
    if (codec == "q8") return {codes(codec, 8, numel), scales(codec, numel)};
    if (codec == "u4") return {codes(codec, 4, numel), scales(codec, numel)};
    if (codec == "u2") return {codes(codec, 2, numel), scales(codec, numel)};
    if (codec == "u1") return {codes(codec, 1, numel), scales(codec, numel)};
  }
  if (!second_moment && codec == "ustate")
    return {codes(codec, 2, numel),
            packed(codec, "mean", "bfloat16", kBfloat, 16, 2 * blocks_of(numel))};
  if (!second_moment && codec == "costate")
    return {codes(codec, 1, numel),
            packed(codec, "scale", "float32", kFloat, 32, blocks_of(numel))};
  throw Error(ErrorKind::value, std::string("there is no codec '") + codec + "' for a " +
                                    (second_moment ? "second" : "first") + " moment");
}

} // namespace cosmic
