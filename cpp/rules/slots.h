// The decoded state of 16 elements, as a rule sees it.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

// A rule is of an arithmetic, and of whether there is a slow average: `kSlow`, false in a rule that
// takes none. It says by `kDecaysM` whether the first moment comes decayed, beta m, as the others
// do, by `kFirst` and `kSecond` which moments it has, by `kShares` whether it finds `signal_share`,
// and by `kMomentsApart` whether the second moment needs nothing of the first, so that a block's
// can come first: `update_second`, `update_first`, and `held`, a copy for the registers of one
// half.
template <class V> struct Slots {
  V m, m_slow, v;
  V root;         // sqrt(v), for codecs that keep it
  V denominator;  // sqrt(v_hat) + eps, for codecs in update units
  V signal_share; // of rule `belief`
};

} // namespace cosmic::COSMIC_TARGET
