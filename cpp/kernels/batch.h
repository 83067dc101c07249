// What the passes of a step by parts hand on to each other: a few blocks' values in L1.
#pragma once

#include "kernels/pass.h"
#include "kernels/sums.h"

namespace cosmic::COSMIC_TARGET {

// Blocks of one batch: as many as are encoded together, but no more than L1 holds beside the state.
template <class Real> constexpr int kBatchBlocks = kStageBlocks;
template <> constexpr int kBatchBlocks<double> = kStageBlocks / 2;

template <class Real> constexpr int64_t kBatch = kBatchBlocks<Real> * kBlock;

// One slot of a batch: where its state lies and its values, a block after the other.
template <class Real> struct Slot {
  Planes planes;
  int64_t at; // the batch's first block in the planes
  int number; // 0, 1, 2: m, m_slow, v
  Real decay; // what is loaded comes times this
  Real *values;
};

// Whole blocks, or a tensor's last, partial one, which has its state in images of whole blocks.
template <class Real> struct Batch {
  int64_t first; // block of the tensor
  int blocks;
  int64_t count;       // elements, fewer than the blocks' in a partial one
  bool careful;        // whether what is encoded is looked at by the element: padding is no value
  bool asks_for_param; // whether memory is asked for ahead for the parameter, too
  Real *p;
  const Real *g;
  Real *units;  // of the first moment's codec: what an update unit is worth
  Real *roots;  // of the new second moment
  Real *shares; // of the signal, which rule `belief` finds
  // What one level of the first moment's codes is worth, by block, where units take it.
  float levels[kStageBlocks];
  bool by_level = false;
  bool inverse_units = false; // `units` are the correction over each, to be multiplied with
  BlockContext contexts[kStageBlocks];
  float unit_scale, correction; // of the units that a first moment in persisted units is encoded in
  LanesInL1<Real> sums;
  alignas(64) float encoded[kStageBlocks][kLanes]; // what a codec adds up, by block

  COSMIC_METHOD explicit Batch(const BlockContext &context)
      : contexts{context, context, context, context} {
    static_assert(kStageBlocks == 4, "a context for each block");
  }

  // Moves on to these blocks.
  COSMIC_METHOD void open(int64_t block, int together, int64_t elements, const RandomPlace &place) {
    first = block;
    blocks = together;
    count = elements;
    for (int k = 0; k < together; ++k) {
      contexts[k].random = BlockRandom(place.tensor_key, place.block + k, place.lane);
      contexts[k].count = elements < kBlock ? elements : kBlock;
    }
  }
};

// Lanes of padding, from element `count` of a batch on, become zero.
template <class Real>
COSMIC_INLINE Lanes<Real> inside_of(int64_t count, Lanes<Real> x, int64_t element) {
  if (__builtin_expect(count < element + kLanes, 0))
    return zero_past<Real>(x, count, (int)(element / kLanes));
  return x;
}

} // namespace cosmic::COSMIC_TARGET
