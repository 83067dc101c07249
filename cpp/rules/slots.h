// The decoded state of 16 elements, as a rule sees it.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

template <class V> struct Slots {
  V m, m_slow, v;
  V denominator; // what the rule divided by, for codecs in update units
};

} // namespace cosmic::COSMIC_TARGET
