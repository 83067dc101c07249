// The decoded state of 16 elements, as a rule sees it.
#pragma once

#include "isa/lanes.h"

namespace cosmic::COSMIC_TARGET {

template <class V> struct Slots {
  V m, m_slow, v;
};

} // namespace cosmic::COSMIC_TARGET
