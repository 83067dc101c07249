// What a codec needs of a block beside its own memory.
#pragma once

#include "codecs/random.h"
#include "kernels/matrix_sums.h"

namespace cosmic::COSMIC_TARGET {

struct BlockContext {
  BlockRandom random;
  float v_scale_before, eps; // of the denominator that the last step's update units were made with
  MatrixSums *matrix;        // of a codec that keeps rows and columns
  int64_t count;             // elements of the block
  float v_scale;             // of this step's denominator
  float m_correction_before, m_correction; // as in Coefficients, and
  float m_before, m_now;

  COSMIC_METHOD BlockContext(const Coefficients &c, int64_t block, int64_t count,
                             MatrixSums *matrix)
      : random(c.random_key, block), v_scale_before((float)c.v_scale_before), eps((float)c.eps),
        matrix(matrix), count(count), v_scale((float)c.v_scale),
        m_correction_before((float)c.m_correction_before), m_correction((float)c.m_correction),
        m_before((float)c.m_before), m_now((float)c.m_now) {}
};

// What most codecs are, and what the others say of themselves.
struct CodecTraits {
  // Its update units are those of the bias-corrected moments, and of the second moment as that is
  // kept, after encoding. The values that wait to be encoded are no units yet; the pipeline makes
  // them so.
  static constexpr bool kPersistedUnits = false;
  // A second moment of which it keeps the square root: that is what it stores.
  static constexpr bool kKeepsRoots = false;
  // A second moment whose units are looked up among a block's few. `invert_units` makes them
  // `scale` over each, once for all elements.
  static constexpr bool kFewUnits = false;
  // A first moment in update units that `Whole`, in its place, loads as whole numbers of one
  // `level`: what a unit is made of takes the level, so that the product with the unit needs no
  // other.
  static constexpr bool kWholeLevels = false;
  // It loads and stores relative to the gradient.
  static constexpr bool kSeesGradient = false;
  // Encoding returns lanes of a sum over the tensor.
  static constexpr bool kAddsUp = false;
  // Its state is the values themselves, in the type of the arithmetic.
  static constexpr bool kDirect = false;
  // It finds its way from group to group by itself, and does not look at their numbers. Where a
  // pass does nothing but read, `skip` moves it on, as storing does.
  static constexpr bool kWalks = false;
  // Opening a block takes a chain of operations: `open` finds what comes out of it ahead, `Opened`,
  // for blocks that are encoded together.
  static constexpr bool kOpensAhead = false;
  // From the summaries of blocks that are encoded together it finds what else encoding them needs,
  // `Completed`: chains of dependent operations, which take less time side by side.
  static constexpr bool kCompletes = false;
  // Asks for memory ahead, where a pass does nothing but read.
  template <class Group> COSMIC_METHOD void prefetch(Group, int64_t /*bytes*/) const {}
  COSMIC_METHOD static void ask(const Planes & /*planes*/, int64_t /*block*/) {}
};

// A group of 16 lanes of a block, by number: known when compiling, so that shifts are constants.
template <int kIndex> struct Group {
  static constexpr int index = kIndex;
};

template <class Visit> COSMIC_INLINE void for_each_group(Visit visit) {
  visit(Group<0>{}), visit(Group<1>{}), visit(Group<2>{}), visit(Group<3>{});
  visit(Group<4>{}), visit(Group<5>{}), visit(Group<6>{}), visit(Group<7>{});
}

template <class Real> COSMIC_INLINE Lanes<Real> lane_numbers() {
  alignas(64) static const Real numbers[kLanes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                   8, 9, 10, 11, 12, 13, 14, 15};
  return Lanes<Real>::load(numbers);
}

// Lanes at and past `count` become zero, so that padding cannot enter a sum.
template <class Real> COSMIC_INLINE Lanes<Real> zero_past(Lanes<Real> x, int64_t count, int group) {
  const auto end = Lanes<Real>::splat((Real)(count - group * kLanes));
  return where_greater(end, lane_numbers<Real>(), x, Lanes<Real>::splat((Real)0));
}

// What a codec that stores each element as it comes leaves to be encoded: nothing.
struct Nothing {};

// Codecs of blocks that are encoded together, each opened when it is needed, or all of them ahead.
template <class Codec, bool kAhead = Codec::kOpensAhead> struct Openings {
  COSMIC_METHOD void open(int /*k*/, const Planes &, int64_t /*block*/, const BlockContext &,
                          float /*decay*/) {}
  template <class Form, class Real>
  COSMIC_METHOD Form at(int /*k*/, const Planes &planes, int64_t block, const BlockContext &context,
                        int slot, Real decay, float *waiting) const {
    return Form(planes, block, context, slot, decay, waiting);
  }
};
template <class Codec> struct Openings<Codec, true> {
  typename Codec::Opened opened[kStageBlocks];
  COSMIC_METHOD void open(int k, const Planes &planes, int64_t block, const BlockContext &context,
                          float decay) {
    opened[k] = Codec::open(planes, block, context, decay);
  }
  template <class Form> COSMIC_METHOD Form at(int k, const Planes &planes, int64_t block,
                                              const BlockContext &, int, float,
                                              float *waiting) const {
    return Form(planes, block, opened[k], waiting);
  }
};

// What encoding knows of the blocks that are encoded together.
template <class Codec, bool kCompletes = Codec::kCompletes> struct Summaries {
  typename Codec::Summary of[kStageBlocks];
  COSMIC_METHOD void complete(int /*count*/) {}
  COSMIC_METHOD const typename Codec::Summary &operator[](int k) const { return of[k]; }
};
template <class Codec> struct Summaries<Codec, true> {
  typename Codec::Summary of[kStageBlocks];
  typename Codec::Completed completed[kStageBlocks];
  COSMIC_METHOD void complete(int count) { Codec::complete(of, completed, count); }
  COSMIC_METHOD const typename Codec::Completed &operator[](int k) const { return completed[k]; }
};

constexpr uint32_t kInfinityBits = 0x7f800000u;

COSMIC_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}
COSMIC_INLINE float float_of(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

} // namespace cosmic::COSMIC_TARGET
