// The block pipeline: load p and g, decode the slots, apply the rule, encode the slots, store p.
// One pass over memory, everything between in registers.
#pragma once

#include "codecs/bf16.h"
#include "codecs/full.h"
#include "codecs/none.h"
#include "kernels/kernels.h"
#include "rules/adam.h"
#include "rules/sign.h"

namespace cosmic::COSMIC_TARGET {

constexpr int kGroups = kBlock / kLanes;
// Ahead of the gradient, which is read only. Measured: a gain there and a loss for what is written.
constexpr int64_t kPrefetchBytes = 4096;

// Lane sums of a run, loaded from and stored to where the work item carries them.
template <class Real> struct RunningSums {
  Lanes<Real> abs_gradient, square_update;

  COSMIC_METHOD explicit RunningSums(const LaneSums &from)
      : abs_gradient(load(from.abs_gradient)), square_update(load(from.square_update)) {}

  COSMIC_METHOD void store(LaneSums *to) const {
    alignas(64) Real lanes[kLanes];
    abs_gradient.store(lanes);
    for (int k = 0; k < kLanes; ++k) to->abs_gradient[k] = lanes[k];
    square_update.store(lanes);
    for (int k = 0; k < kLanes; ++k) to->square_update[k] = lanes[k];
  }

private:
  COSMIC_METHOD static Lanes<Real> load(const double *from) {
    alignas(64) Real lanes[kLanes];
    for (int k = 0; k < kLanes; ++k) lanes[k] = (Real)from[k];
    return Lanes<Real>::load(lanes);
  }
};

// Lanes at and past `count` become zero, so that padding cannot enter a sum.
template <class Real> COSMIC_INLINE Lanes<Real> zero_past(Lanes<Real> x, int64_t count, int group) {
  alignas(64) Real lanes[kLanes];
  x.store(lanes);
  for (int k = 0; k < kLanes; ++k)
    if (group * kLanes + k >= count) lanes[k] = 0;
  return Lanes<Real>::load(lanes);
}

template <bool kTail, class Real, class Rule, class M, class Slow, class Var>
COSMIC_INLINE void step_block(const Rule &rule, Real *p, const Real *g, const M &m,
                              const Slow &m_slow, const Var &v, int64_t count,
                              RunningSums<Real> &sums) {
  using V = Lanes<Real>;
#pragma GCC unroll 8
  for (int i = 0; i < kGroups; ++i) {
    __builtin_prefetch((const char *)(g + i * kLanes) + kPrefetchBytes);
    const V gradient = V::load(g + i * kLanes);
    Slots<V> slots;
    m.load(i, slots.m);
    m_slow.load(i, slots.m_slow);
    v.load(i, slots.v);
    V u;
    rule.update(V::load(p + i * kLanes), gradient, slots, u).store(p + i * kLanes);
    m.store(i, slots.m);
    m_slow.store(i, slots.m_slow);
    v.store(i, slots.v);
    if (kTail && count < (i + 1) * kLanes) u = zero_past<Real>(u, count, i);
    sums.abs_gradient = sums.abs_gradient + abs(gradient);
    sums.square_update = sums.square_update + u * u;
  }
}

// Bytes of one block in the codec's widest plane; 1 for a codec without any.
template <class Codec> constexpr int64_t widest_plane() {
  int64_t widest = 1;
  for (int k = 0; k < Codec::kPlanes; ++k)
    if (Codec::bytes(k, kBlock) > widest) widest = Codec::bytes(k, kBlock);
  return widest;
}

// The encoded image of a tensor's last, partial block, copied to where a whole block has room.
template <class Codec> struct TailImage {
  static constexpr int kImages = Codec::kPlanes ? Codec::kPlanes : 1;
  static constexpr int64_t kBytes = widest_plane<Codec>();
  alignas(64) unsigned char image[kImages][kBytes];
  Planes planes;
  const Planes &home;
  int64_t block, count;

  COSMIC_METHOD TailImage(const Planes &home, int64_t block, int64_t count)
      : home(home), block(block), count(count) {
    for (int k = 0; k < Codec::kPlanes; ++k) {
      __builtin_memset(image[k], 0, sizeof(image[k]));
      __builtin_memcpy(image[k], at(k), Codec::bytes(k, count));
      planes.data[k] = image[k];
    }
  }
  COSMIC_METHOD void write_back() const {
    for (int k = 0; k < Codec::kPlanes; ++k)
      __builtin_memcpy(at(k), image[k], Codec::bytes(k, count));
  }

private:
  COSMIC_METHOD unsigned char *at(int k) const {
    return (unsigned char *)home.data[k] + block * Codec::bytes(k, kBlock);
  }
};

template <class Real> COSMIC_INLINE int64_t count_nonfinite(const Real *g, int64_t count) {
  int64_t found = 0;
  for (int64_t k = 0; k < count; ++k) found += !__builtin_isfinite(g[k]);
  return found;
}

// A sum of |g| that is not finite is the sign to count; it costs nothing while all is well.
template <class Real>
COSMIC_INLINE void note_nonfinite(const Real *g, int64_t count, LaneSums *sums) {
  bool finite = true;
  for (int k = 0; k < kLanes; ++k) finite &= (bool)__builtin_isfinite(sums->abs_gradient[k]);
  if (!finite) sums->nonfinite += count_nonfinite(g, count);
}

template <class Real, class Rule, class M, class Slow, class Var>
void step_run(const BlockRun &run) {
  const Rule rule(*run.coefficients);
  const uint32_t key = run.coefficients->random_key;
  Real *p = (Real *)run.param;
  const Real *g = (const Real *)run.gradient;
  const int64_t whole = run.count / kBlock, tail = run.count % kBlock;
  RunningSums<Real> sums(*run.sums);
  for (int64_t b = 0; b < whole; ++b) {
    const int64_t block = run.first_block + b;
    const BlockRandom random(key, block);
    step_block<false>(rule, p + b * kBlock, g + b * kBlock, M(run.m, block, random, 0),
                      Slow(run.m_slow, block, random, 1), Var(run.v, block, random, 2), kBlock,
                      sums);
  }
  if (tail) {
    const int64_t block = run.first_block + whole;
    const BlockRandom random(key, block);
    TailImage<M> m(run.m, block, tail);
    TailImage<Slow> m_slow(run.m_slow, block, tail);
    TailImage<Var> v(run.v, block, tail);
    step_block<true>(rule, p + whole * kBlock, g + whole * kBlock, M(m.planes, 0, random, 0),
                     Slow(m_slow.planes, 0, random, 1), Var(v.planes, 0, random, 2), tail, sums);
    m.write_back();
    m_slow.write_back();
    v.write_back();
  }
  sums.store(run.sums);
  note_nonfinite(g, run.count, run.sums);
}

template <class Real> void inspect_run(const Real *g, int64_t count, LaneSums *to) {
  RunningSums<Real> sums(*to);
  for (int64_t k = 0; k < count; k += kLanes)
    sums.abs_gradient = sums.abs_gradient + abs(Lanes<Real>::load(g + k));
  sums.store(to);
  note_nonfinite(g, count, to);
}

} // namespace cosmic::COSMIC_TARGET
