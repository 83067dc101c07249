#include "bindings/place_reader.h"

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace py = pybind11;

namespace cosmic {

namespace {

// Where state is not one number an element, or a rule steps the matrix as a whole, blocks begin
// where the shard does; so they do where its elements are walked in another order than the whole
// tensor's.
BlockPlace blocks_at(const PlaceGiven &given, const SlotCodecs &codecs, const RulePart &rule,
                     const WalkOrder &order) {
  BlockPlace place;
  place.first = std::get<0>(given);
  place.local_per_row = std::get<1>(given);
  place.global_per_row = std::get<2>(given);
  place.lead = std::get<3>(given);
  const bool by_index = std::is_sorted(order.dims, order.dims + order.ndim);
  const bool rows_first = order.ndim > 0 && order.dims[0] == 0 && !place.in_rows();
  if (!by_index && !rows_first) return {place.first};
  const auto is_plain = [](const CodecPart *codec) { return !codec || codec->is_plain(); };
  const bool plain = is_plain(codecs.m) && is_plain(codecs.m_slow) && is_plain(codecs.v);
  if (place.lead && (!plain || rule.matrix)) {
    place.lead = 0;
    ++place.first; // the one that begins first in the shard
  }
  return place;
}

ShardOf shard_of(const PlaceGiven &given, const std::optional<MatrixOfShard> &matrix,
                 const TensorView &view) {
  ShardOf shard;
  shard.numel = std::get<4>(given);
  shard.has_rows = view.ndim > 1 && std::get<5>(given) > 1;
  if (!matrix) return shard;
  const auto &[own, whole, cut] = *matrix;
  shard.matrix = {std::get<0>(own), std::get<1>(own)};
  shard.whole_matrix = {std::get<0>(whole), std::get<1>(whole)};
  if (cut != "rows" && cut != "columns" && cut != "both")
    throw Error(ErrorKind::value,
                "a matrix is cut along '" + cut + "'; expected 'rows', 'columns' or 'both'");
  shard.cut = cut == "rows" ? Cut::rows : cut == "columns" ? Cut::columns : Cut::both;
  return shard;
}

void check_shard(const Row &row) {
  const BlockPlace &place = row.place;
  const bool placed =
      place.first >= 0 && place.lead >= 0 && place.lead < kBlock &&
      (!place.in_rows() || ((place.local_per_row > 0 || row.numel == 0) && place.lead == 0 &&
                            place.local_per_row < place.global_per_row));
  if (!placed || row.shard.numel < row.numel)
    throw Error(ErrorKind::value,
                row.name + " cannot lie there in its whole tensor: expected a first block >= 0, 0 "
                           "to 127 elements before it, rows of the shard that are shorter than "
                           "those of the whole, and at least its own elements in that");
  const MatrixShape &matrix = row.shard.matrix;
  if (matrix &&
      (matrix.rows * matrix.columns != row.numel || (row.numel > 0 && matrix.columns < kLanes)))
    throw Error(ErrorKind::value,
                row.name + " is said to be a matrix of " + std::to_string(matrix.rows) +
                    " rows and " + std::to_string(matrix.columns) + " columns; expected its " +
                    std::to_string(row.numel) + " elements in rows of at least 16");
}

} // namespace

void put_shard(Row &row, const PlaceGiven &place, const std::optional<MatrixOfShard> &matrix,
               const SlotCodecs &codecs, const TensorView &view, const WalkOrder &order) {
  row.place = blocks_at(place, codecs, *row.rule, order);
  row.shard = shard_of(place, matrix, view);
  check_shard(row);
}

ExchangeSums exchange_through(const py::object &callable) {
  if (callable.is_none()) return nullptr;
  return [callable](double *sums, const std::vector<ExchangedRow> &rows) {
    const py::gil_scoped_acquire held;
    py::list whose;
    py::ssize_t count = 0;
    for (const ExchangedRow &row : rows) {
      whose.append(py::make_tuple(row.row, row.count));
      count += static_cast<py::ssize_t>(row.count);
    }
    callable(py::memoryview::from_buffer(sums, {count}, {py::ssize_t{sizeof(double)}}), whose);
  };
}

} // namespace cosmic
