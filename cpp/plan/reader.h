// Blocks of a tensor as the kernels read them: where they lie, or a staged copy.
#pragma once

#include <algorithm>
#include <numeric>

#include "plan/stage.h"

namespace cosmic {

// Blocks of a copy. Measured where memory binds, with AVX-512: with 8 or 16 a step of bf16
// parameters takes a tenth to a third longer.
inline constexpr int64_t kCopyBlocks = 4;

// How many elements can be read in place at a time: all of them, or none.
inline constexpr int64_t kAll = 0, kNone = -1;

// Of a tensor in the arithmetic type also the rows, where each is whole blocks of one run of
// memory.
template <class Real> int64_t elements_in_place(const Operand &operand) {
  if (is_direct<Real>(operand)) return kAll;
  const int64_t run = operand.walk.run_length();
  return operand.dtype == kArithmetic<Real> && run % kBlock == 0 ? run : kNone;
}

// Of two tensors that are read together.
inline int64_t both_in_place(int64_t a, int64_t b) {
  return a == kNone || b == kNone ? kNone : std::gcd(a, b); // with kAll it is the other
}

// A look at memory that is there, or a staged copy of it.
template <class Real> class Reader {
public:
  Reader(const Operand &operand, const Kernels &kernels)
      : stage_(operand, kernels), operand_(operand), in_place_(elements_in_place<Real>(operand)) {}

  // The row's parameter, with all of its bits.
  Reader(const Row &row, const Kernels &kernels) : Reader(row.param, kernels) {
    stage_.keep_low(row.low);
  }

  Real *at(int64_t first, int64_t count) {
    // the last, partial block is staged anyway: kernels read whole blocks
    staged_ = count % kBlock || !lies_in_place(first, count);
    if (staged_) return stage_.load(first, count);
    return static_cast<Real *>(operand_.data) + operand_.walk.offset_of(first);
  }
  void write_back(int64_t first, int64_t count) {
    if (staged_) stage_.store(first, count);
  }
  int64_t in_place() const { return in_place_; }
  void keep_low(int8_t *low) { stage_.keep_low(low); }
  void round_stochastically(uint32_t key, const BlockPlace &place) {
    stage_.round_stochastically(key, place);
  }

private:
  bool lies_in_place(int64_t first, int64_t count) const {
    if (in_place_ == kAll || in_place_ == kNone) return in_place_ == kAll;
    return first / in_place_ == (first + count - 1) / in_place_;
  }

  Stage<Real, kCopyBlocks * kBlock> stage_;
  const Operand &operand_;
  int64_t in_place_;
  bool staged_ = false;
};

// Cuts blocks [first, last) of a row into pieces that fit the stage, or, where every operand is
// read in place, at the ends of what is; at the ends of a shard's rows, behind which the whole
// tensor goes on elsewhere; and after and before a partial block. One place calls `visit`, which is
// then part of the loop: of a copied tensor a piece is short.
template <class Visit>
void for_each_run(const Row &row, int64_t first, int64_t last, int64_t in_place, Visit visit) {
  const BlockPlace &place = row.place;
  if (place.lead && in_place != kAll) in_place = kNone; // its rows begin in mid-block
  const int64_t end = place.lead + row.numel, whole_end = end / kBlock, run = in_place / kBlock;
  for (int64_t b = first, blocks; b < last; b += blocks) {
    blocks = 1;
    if (b < whole_end && (b > 0 || !place.lead)) {
      const int64_t longest = in_place == kAll ? last - b : run > 0 ? run - b % run : kCopyBlocks;
      blocks = std::min(longest, std::min(last, whole_end) - b);
      if (place.in_rows()) blocks = std::min(blocks, place.local_per_row - b % place.local_per_row);
    }
    const int64_t from = b > 0 ? b * kBlock - place.lead : 0;
    visit(Piece{b, from, std::min((b + blocks) * kBlock, end) - place.lead - from});
  }
}

// Where a piece lies in the state, and in the whole tensor. Where blocks begin before the shard
// does, so do its planes, which have one number an element then: only the partial first block lies
// where the shard does.
template <class Run>
void put_at(Run &run, const Row &row, const Kernels &kernels, const Piece &piece) {
  run.first_block = piece.block;
  run.count = piece.count;
  run.shift = row.place.of(piece.block) - piece.block;
  if (!row.place.lead) return;
  run.lane = piece.element == 0 ? static_cast<int>(row.place.lead) : 0;
  const int64_t before = piece.element == 0 ? 0 : row.place.lead;
  const auto from = [&](const Planes &own, int codec, bool second) {
    Planes planes = own;
    if (own.data[0])
      planes.data[0] =
          static_cast<char *>(own.data[0]) - kernels.plane_bytes(codec, second, 0, before);
    return planes;
  };
  run.m = from(row.m, run.parts->m, false);
  run.m_slow = from(row.m_slow, run.parts->m_slow, false);
  run.v = from(row.v, run.parts->v, true);
}

} // namespace cosmic
