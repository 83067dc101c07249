// How a pass over a block reaches its codecs: a combination's cost is the product of its parts
// where they are inlined, their sum where they are called.
#pragma once

#include "codecs/context.h"

namespace cosmic::COSMIC_TARGET {

// Inlined group by group, so that values stay in registers.
struct Inlined {
  template <class Visit> COSMIC_METHOD static void for_each(Visit visit) { for_each_group(visit); }
  template <class Codec, class Group, class V>
  COSMIC_METHOD static void load(Codec &codec, Group group, const V &gradient, V &out) {
    if constexpr (Codec::kSeesGradient)
      codec.load(group, gradient, out);
    else
      codec.load(group, out);
  }
  template <class Codec, class Group, class V>
  COSMIC_METHOD static V unit(const Codec &codec, Group group, const V &scale, const V &eps) {
    return codec.unit(group, scale, eps);
  }
  template <class Codec, class Group, class V>
  COSMIC_METHOD static void store(Codec &codec, Group group, const V &gradient, const V &value) {
    if constexpr (Codec::kSeesGradient)
      codec.store(group, gradient, value);
    else
      codec.store(group, value);
  }
  template <class Codec> COSMIC_METHOD static auto encode(const Planes &planes, int64_t block,
                                                          const BlockContext &context, int slot,
                                                          float *values,
                                                          const typename Codec::Summary &summary) {
    return Codec::encode(planes, block, context, slot, values, summary);
  }
};

// Called in a loop, through functions that all combinations share: for a tensor's last, partial
// block, which would double every combination's code, for conversions, and on the baseline.
struct Called {
  template <class Visit> COSMIC_METHOD static void for_each(Visit visit) {
    for (int i = 0; i < (int)(kBlock / kLanes); ++i) visit(AnyGroup{i});
  }
  template <class Codec, class V>
  COSMIC_CALL static void load(Codec &codec, AnyGroup group, const V &gradient, V &out) {
    with_group(group,
               [&](auto known) COSMIC_LAMBDA { Inlined::load(codec, known, gradient, out); });
  }
  template <class Codec, class V>
  COSMIC_CALL static V unit(const Codec &codec, AnyGroup group, const V &scale, const V &eps) {
    V out;
    with_group(group,
               [&](auto known) COSMIC_LAMBDA { out = Inlined::unit(codec, known, scale, eps); });
    return out;
  }
  template <class Codec, class V>
  COSMIC_CALL static void store(Codec &codec, AnyGroup group, const V &gradient, const V &value) {
    with_group(group,
               [&](auto known) COSMIC_LAMBDA { Inlined::store(codec, known, gradient, value); });
  }
  template <class Codec>
  COSMIC_CALL static auto encode(const Planes &planes, int64_t block, const BlockContext &context,
                                 int slot, float *values, const typename Codec::Summary &summary) {
    return Inlined::encode<Codec>(planes, block, context, slot, values, summary);
  }
};

template <bool kTail> struct ReachOf {
  using type = Inlined;
};
template <> struct ReachOf<true> {
  using type = Called;
};
template <bool kTail> using Reach = typename ReachOf<kTail || !kInlining>::type;

} // namespace cosmic::COSMIC_TARGET
