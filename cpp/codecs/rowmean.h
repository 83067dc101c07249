// `rowmean`, `colmean`: the second moment of a matrix as one mean a row, or one a column: SlimAdam
// (arXiv 2503.01843) averages along the direction of the higher signal-to-noise ratio. The
// arithmetic is that of factored.h with the other vector held at one. Who asks for `rowmean` gets
// the one of the two that keeps more of the first gradient (plan/direction.h).
// Layout: plane 0, a float a row, or a float a column.
#pragma once

#include "codecs/factored.h"

namespace cosmic::COSMIC_TARGET {

using RowMean = Factored;
using ColMean = Factored;

} // namespace cosmic::COSMIC_TARGET
