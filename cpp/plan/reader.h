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
  void round_stochastically(uint32_t key) { stage_.round_stochastically(key); }

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

// Cuts blocks [first, last) of a tensor into runs that fit the stage, or, where every operand is
// read in place, at the ends of what is, and before the partial block.
template <class Visit>
void for_each_run(int64_t numel, int64_t first, int64_t last, int64_t in_place, Visit visit) {
  const int64_t whole_end = std::min(last, numel / kBlock);
  const int64_t row = in_place / kBlock;
  for (int64_t b = first; b < whole_end;) {
    const int64_t longest = in_place == kAll ? last - b : row > 0 ? row - b % row : kCopyBlocks;
    const int64_t blocks = std::min(longest, whole_end - b);
    visit(b, blocks * kBlock);
    b += blocks;
  }
  if (last > whole_end) visit(whole_end, numel - whole_end * kBlock);
}

} // namespace cosmic
