// What Python says of a row that is a shard of a larger tensor.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "bindings/state_reader.h"
#include "plan/exchange.h"
#include "plan/row.h"

namespace cosmic {

// Where a shard lies in its whole tensor: its first block's number there; blocks of a row of the
// shard and of the whole; elements of the first block that are another shard's; the whole tensor's
// elements, and its first dimension.
using PlaceGiven = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t>;

// Of a second moment by rows and columns: the shard's matrix, the whole one, and how that is cut:
// "rows", "columns" or "both".
using Sides = std::tuple<int64_t, int64_t>;
using MatrixOfShard = std::tuple<Sides, Sides, std::string>;

// Puts the row, whose rule and tensor are known, in its place. Throws Error where it cannot lie
// there.
void put_shard(Row &row, const PlaceGiven &place, const std::optional<MatrixOfShard> &matrix,
               const SlotCodecs &codecs, const TensorView &view, const WalkOrder &order);

// From a callable that takes a buffer of doubles, which is there for the call alone, and (position
// among the plan's rows, how many) for each row in it; None: nothing is exchanged.
ExchangeSums exchange_through(const pybind11::object &callable);

} // namespace cosmic
