// The decoded state of 16 elements, as a rule sees it.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

// A rule says by `kDecaysM` whether the first moment comes decayed, beta m, as the others do.
template <class V> struct Slots {
  V m, m_slow, v;
  V root;         // sqrt(v), for codecs that keep it
  V denominator;  // sqrt(v_hat) + eps, for codecs in update units
  V signal_share; // of rule `belief`
};

} // namespace cosmic::COSMIC_TARGET
