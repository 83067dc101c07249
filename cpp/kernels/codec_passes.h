// The passes of a codec over a batch: from state to values and back. Compiled once for each codec,
// and shared by all combinations that it is part of.
#pragma once

#include <type_traits>

#include "codecs/none.h"
#include "kernels/batch.h"
#include "kernels/tail_image.h"
#include "parts/list.h"

namespace cosmic::COSMIC_TARGET {

// Of a codec, by rows and columns or not, the one block k of a batch.
template <class Codec, class Real>
COSMIC_INLINE Codec opened(const Batch<Real> &batch, const Slot<Real> &slot, int k,
                           const BlockContext &context, float *waiting) {
  const int64_t at = Codec::kMatrix ? batch.first + k : slot.at + k;
  return Codec(slot.planes, at, context, slot.number, slot.decay, waiting);
}

// Every group of a block; in a loop where the codec finds its way without the group's number.
template <class Codec, class Visit> COSMIC_INLINE void for_each_group_of(Visit visit) {
  if constexpr (Codec::kWalks)
    for (int i = 0; i < (int)(kBlock / kLanes); ++i) visit(Group<0>{}, i);
  else
    for_each_group([&](auto group) COSMIC_LAMBDA { visit(group, decltype(group)::index); });
}

// Calls visit with the form of a codec of rows and columns that the block calls for.
template <class Codec, class Visit>
COSMIC_INLINE void with_form(const BlockContext &context, int64_t block, Visit visit) {
  if constexpr (Codec::kMatrix) {
    if (Codec::InRow::fits(*context.matrix, block))
      visit((typename Codec::InRow *)nullptr);
    else
      visit((Codec *)nullptr);
  } else {
    visit((Codec *)nullptr);
  }
}

// A first moment. What is kept in update units comes times the batch's.
template <class Codec, class Real>
COSMIC_CALL void load_first(Batch<Real> &batch, const Slot<Real> &slot) {
  using V = Lanes<Real>;
  for (int k = 0; k < batch.blocks; ++k) {
    const Real *const g = batch.g + k * kBlock, *const units = batch.units + k * kBlock;
    Real *const values = slot.values + k * kBlock;
    auto codec = opened<Codec>(batch, slot, k, batch.contexts[k], nullptr);
    for_each_group_of<Codec>([&](auto group, int i) COSMIC_LAMBDA {
      V gradient, value;
      if constexpr (Codec::kSeesGradient) gradient = V::load(g + i * kLanes);
      load_group(codec, group, gradient, value);
      if constexpr (Codec::kUpdateUnits) value = value * V::load(units + i * kLanes);
      value.store(values + i * kLanes);
    });
  }
}

// Of a first moment whose levels go into the units.
template <class Codec, class Real>
COSMIC_CALL void find_levels(Batch<Real> &batch, const Slot<Real> &slot) {
  for (int k = 0; k < batch.blocks; ++k)
    batch.levels[k] =
        opened<typename Codec::Whole>(batch, slot, k, batch.contexts[k], nullptr).level();
}

// What a second moment is loaded for besides: nothing, the units of a first one, or their inverse.
enum class Units { none, as_such, inverse };

template <class Codec, Units kUnits, class Real> COSMIC_INLINE void
load_second_block(Batch<Real> &batch, const Slot<Real> &slot, int k, const BlockContext &context) {
  using V = Lanes<Real>;
  Real *const values = slot.values + k * kBlock, *const units = batch.units + k * kBlock;
  const V scale = V::splat((Real)context.v_scale_before), eps = V::splat((Real)context.eps);
  with_form<Codec>(context, batch.first + k, [&](auto *form) COSMIC_LAMBDA {
    using Form = std::remove_pointer_t<decltype(form)>;
    auto codec = opened<Form>(batch, slot, k, context, nullptr);
    if constexpr (kUnits == Units::inverse) codec.invert_units(F32::splat(1.0f / batch.correction));
    for_each_group_of<Form>([&](auto group, int i) COSMIC_LAMBDA {
      V value;
      codec.load(group, value);
      value.store(values + i * kLanes);
      if constexpr (kUnits != Units::none) codec.unit(group, scale, eps).store(units + i * kLanes);
      if constexpr (Form::kWalks) codec.skip();
    });
  });
}

template <class Codec, Units kUnits, class Real>
COSMIC_CALL void load_second(Batch<Real> &batch, const Slot<Real> &slot) {
  for (int k = 0; k < batch.blocks; ++k) {
    BlockContext context = batch.contexts[k];
    context.v_scale_before = batch.unit_scale;
    if (batch.by_level) {
      context.v_scale_before *= batch.levels[k];
      context.eps *= batch.levels[k];
    }
    load_second_block<Codec, kUnits>(batch, slot, k, context);
  }
}

// From a new value to what the codec is given.
template <class Codec, class Real>
COSMIC_INLINE Lanes<Real> as_kept(const Batch<Real> &batch, Lanes<Real> value, const Real *units) {
  if constexpr (Codec::kPersistedUnits)
    return batch.inverse_units ? value * F32::load(units)
                               : value * F32::splat(1.0f / batch.correction) / F32::load(units);
  else if constexpr (Codec::kUpdateUnits)
    return value / Lanes<Real>::load(units);
  else
    return value;
}

// One block's values to its codec, which stores them, or what it must know before it encodes them.
template <class Codec, class Real> COSMIC_INLINE typename Codec::Summary
store_block(const Batch<Real> &batch, const Slot<Real> &slot, int k) {
  using V = Lanes<Real>;
  const BlockContext &context = batch.contexts[k];
  const Real *const g = batch.g + k * kBlock, *const units = batch.units + k * kBlock;
  Real *const values = slot.values + k * kBlock;
  float *waiting = nullptr;
  if constexpr (sizeof(Real) == 4) waiting = values;
  typename Codec::Summary summary;
  with_form<Codec>(context, batch.first + k, [&](auto *form) COSMIC_LAMBDA {
    using Form = std::remove_pointer_t<decltype(form)>;
    auto codec = opened<Form>(batch, slot, k, context, waiting);
    for_each_group_of<Form>([&](auto group, int i) COSMIC_LAMBDA {
      const V value = V::load(values + i * kLanes);
      V gradient, before;
      if constexpr (Codec::kSeesGradient) gradient = V::load(g + i * kLanes);
      if constexpr (Codec::kMatrix) codec.load(group, before); // which says where it is
      store_group(codec, group, gradient, as_kept<Codec>(batch, value, units + i * kLanes));
    });
    summary = batch.careful
                  ? codec.template measure<true>(slot.planes, slot.at + k, context, context.count)
                  : codec.template measure<false>(slot.planes, slot.at + k, context, kBlock);
  });
  return summary;
}

template <class Codec, class Real>
COSMIC_CALL void store_slot(Batch<Real> &batch, const Slot<Real> &slot) {
  Summaries<Codec> summaries;
  for (int k = 0; k < batch.blocks; ++k) summaries.of[k] = store_block<Codec>(batch, slot, k);
  summaries.complete(batch.blocks);
  if constexpr (Codec::kStaged || Codec::kSeesGradient)
    for (int k = 0; k < batch.blocks; ++k) {
      float *const values = slot.values + k * kBlock;
      const auto encode = [&]() COSMIC_LAMBDA {
        return Codec::encode(slot.planes, slot.at + k, batch.contexts[k], slot.number, values,
                             summaries[k]);
      };
      if constexpr (Codec::kAddsUp)
        encode().store(batch.encoded[k]);
      else
        encode();
    }
}

// ---- tables -------------------------------------------------------------------------------------

template <class Codec> constexpr PlaneSizes plane_sizes() {
  static_assert(Codec::kPlanes <= TailImage::kMostPlanes, "a codec has 3 planes at most");
  return {Codec::kPlanes, Codec::bytes};
}
template <class Codec> constexpr PlaneSizes kPlaneSizes = plane_sizes<Codec>();

template <class Real> using CodecPass = void (*)(Batch<Real> &batch, const Slot<Real> &slot);

// A codec of an average of the gradient. Null where there is nothing to do.
template <class Real> struct FirstPasses {
  CodecPass<Real> load = nullptr, store = nullptr;
  CodecPass<Real> find_levels = nullptr, load_whole = nullptr; // where units take the levels
  PlaneSizes sizes = kPlaneSizes<None>;
  bool present = false, compressed = false, direct = false;
  bool update_units = false, persisted_units = false, adds_up = false;
};

// A codec of the second moment.
template <class Real> struct SecondPasses {
  CodecPass<Real> load = nullptr, load_with_units = nullptr, store = nullptr;
  CodecPass<Real> load_with_inverse_units = nullptr; // where that is cheap
  PlaneSizes sizes = kPlaneSizes<None>;
  bool present = false, compressed = false, direct = false, keeps_roots = false;
};

// Whether a codec is of this arithmetic.
template <class Real, class Codec> constexpr bool kIsOf = sizeof(Real) == 4;
template <> constexpr bool kIsOf<float, Fp64> = false;
template <> constexpr bool kIsOf<double, Fp64> = true;

template <class Real, class Codec> constexpr FirstPasses<Real> first_passes() {
  FirstPasses<Real> out;
  if constexpr (Codec::kPresent && kIsOf<Real, Codec>) {
    out.load = load_first<Codec, Real>;
    out.store = store_slot<Codec, Real>;
    if constexpr (Codec::kWholeLevels) {
      out.find_levels = find_levels<Codec, Real>;
      out.load_whole = load_first<typename Codec::Whole, Real>;
    }
    out.sizes = kPlaneSizes<Codec>;
    out.update_units = Codec::kUpdateUnits;
    out.persisted_units = Codec::kPersistedUnits;
    out.adds_up = Codec::kAddsUp;
    out.present = true;
    out.compressed = Codec::kCompressed;
    out.direct = Codec::kDirect;
  }
  return out;
}

template <class Real, class Codec> constexpr SecondPasses<Real> second_passes() {
  SecondPasses<Real> out;
  if constexpr (Codec::kPresent && kIsOf<Real, Codec>) {
    out.load = load_second<Codec, Units::none, Real>;
    out.load_with_units = load_second<Codec, Units::as_such, Real>;
    if constexpr (Codec::kFewUnits)
      out.load_with_inverse_units = load_second<Codec, Units::inverse, Real>;
    out.store = store_slot<Codec, Real>;
    out.sizes = kPlaneSizes<Codec>;
    out.present = true;
    out.keeps_roots = Codec::kKeepsRoots;
    out.compressed = Codec::kCompressed;
    out.direct = Codec::kDirect;
  }
  return out;
}

// By CodecAt.
#define COSMIC_FIRST(name, First, Second, Probe) first_passes<Real, First>(),
template <class Real> constexpr FirstPasses<Real> kFirstPasses[] = {first_passes<Real, None>(),
                                                                    COSMIC_CODECS(COSMIC_FIRST)};
#undef COSMIC_FIRST
#define COSMIC_SECOND(name, First, Second, Probe) second_passes<Real, Second>(),
template <class Real> constexpr SecondPasses<Real> kSecondPasses[] = {second_passes<Real, None>(),
                                                                      COSMIC_CODECS(COSMIC_SECOND)};
#undef COSMIC_SECOND

} // namespace cosmic::COSMIC_TARGET
