// `rowmean`, `colmean`: the second moment of a matrix as one mean a row, or one a column: SlimAdam
// (arXiv 2503.01843) averages along the direction of the higher signal-to-noise ratio. The
// arithmetic is that of factored.h with the other vector held at one. Who asks for `rowmean` gets
// the one of the two that keeps more of the first gradient (plan/direction.h).
// Layout: plane 0, a float a row, or a float a column.
#pragma once

#if defined(COSMIC_TARGET) // the arithmetic, on lanes

#include "codecs/factored.h"

namespace cosmic::COSMIC_TARGET {

using RowMean = Factored;
using ColMean = Factored;

} // namespace cosmic::COSMIC_TARGET

#else // what it says of itself

#include "parts/codec.h"

namespace cosmic::parts {

inline CodecPart rowmean() {
  CodecPart part;
  part.name = "rowmean";
  part.second = {planes::rows()};
  part.by_rows = true;
  return part;
}

inline CodecPart colmean() {
  CodecPart part;
  part.name = "colmean";
  part.second = {planes::columns()};
  part.by_columns = true;
  return part;
}

} // namespace cosmic::parts

#endif
