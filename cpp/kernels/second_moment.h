// The codec of a second moment by the name in the table: q8 has another layout there.
#pragma once

#include "codecs/q8.h"

namespace cosmic::COSMIC_TARGET {

template <class Codec> struct SecondMoment {
  using type = Codec;
};
template <> struct SecondMoment<Q8> {
  using type = Q8Square;
};

} // namespace cosmic::COSMIC_TARGET
