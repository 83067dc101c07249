// What every pass over blocks shares, inlined or by parts.
#pragma once

#include "codecs/context.h"
#include "kernels/kernels.h"

namespace cosmic::COSMIC_TARGET {

// How far ahead of the step memory is asked for. Always the gradient, which is read only; the
// parameter only where state is compressed. Measured: there arithmetic leaves memory idle otherwise
// (a step with u4 and factored v takes a quarter less time), elsewhere asking for what is written
// costs a few percent.
constexpr int64_t kPrefetchBytes = 4096;

// How far a pass goes: a step changes parameters and state, a measuring pass only adds up.
enum class Pass { step, measure };

// A codec that sees no gradient is not shown one.
template <class Codec, class Group, class V>
COSMIC_INLINE void load_group(Codec &codec, Group group, const V &gradient, V &out) {
  if constexpr (Codec::kSeesGradient)
    codec.load(group, gradient, out);
  else
    codec.load(group, out);
}
template <class Codec, class Group, class V>
COSMIC_INLINE void store_group(Codec &codec, Group group, const V &gradient, const V &value) {
  if constexpr (Codec::kSeesGradient)
    codec.store(group, gradient, value);
  else
    codec.store(group, value);
}

} // namespace cosmic::COSMIC_TARGET
