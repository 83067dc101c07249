#include "kernels/convert.h"

#include "codecs/bf16.h"
#include "codecs/costate.h"
#include "codecs/full.h"
#include "codecs/none.h"
#include "codecs/rowmean.h"
#include "codecs/u1.h"
#include "codecs/u2.h"
#include "codecs/u4.h"
#include "codecs/ustate.h"
#include "codecs/v4.h"
#include "codecs/v_log.h"
#include "kernels/reach.h"
#include "kernels/second_moment.h"
#include "kernels/tail_image.h"

namespace cosmic::COSMIC_TARGET {

namespace {

int64_t elements_of_block(int64_t count, int64_t b) {
  return count - b * kBlock < kBlock ? count - b * kBlock : kBlock;
}

// One block of one codec, worked on in a copy that has room for whole blocks.
template <class Codec> class OneBlock {
public:
  OneBlock(const Planes &planes, int64_t block, int64_t count, const BlockContext &context,
           int slot)
      : image_(planes, block, count), context_(context), slot_(slot), count_(count),
        codec_(image_.planes, Codec::kMatrix ? block : 0, context, slot, 1.0f, waiting_) {}

  // There is no gradient outside a step.
  void load(AnyGroup group, F32 &out) { Called::load(codec_, group, F32::splat(0.0f), out); }
  void store(AnyGroup group, const F32 &value) {
    Called::store(codec_, group, F32::splat(0.0f), value);
  }
  F32 unit(AnyGroup group, const F32 &scale, const F32 &eps) const {
    return Called::unit(codec_, group, scale, eps);
  }
  // The waiting values become update units of a second moment that has been encoded.
  template <class Var> void to_persisted_units(const OneBlock<Var> &v) {
    const Var decoded(v.image_.planes, 0, context_, 2, 1.0f, nullptr);
    const F32 scale = F32::splat(context_.v_scale_before), eps = F32::splat(context_.eps);
    const F32 corrected = F32::splat(1.0f / context_.m_correction_before);
    Called::for_each([&](AnyGroup group) {
      float *at = waiting_ + group.index * kLanes;
      (F32::load(at) * corrected / Called::unit(decoded, group, scale, eps)).store(at);
    });
  }
  // After every group has been stored.
  void encode(double *encoded = nullptr) {
    const auto summary = codec_.template measure<true>(image_.planes, 0, context_, count_);
    const auto encode = Called::encode<Codec>;
    if constexpr (Codec::kAddsUp)
      *encoded += reduce_add(encode(image_.planes, 0, context_, slot_, waiting_, summary));
    else
      encode(image_.planes, 0, context_, slot_, waiting_, summary);
    image_.write_back();
  }

private:
  template <class Other> friend class OneBlock;

  alignas(64) float waiting_[kBlock];
  TailImage<Codec> image_;
  const BlockContext &context_;
  int slot_;
  int64_t count_;
  Codec codec_;
};

BlockContext context_of(const MomentRun &run, int64_t block, int64_t count) {
  return BlockContext(*run.coefficients, block, count, run.matrix);
}

template <class M, class Slow, class Var> void decode_run(const MomentRun &run) {
  for (int64_t b = 0; b * kBlock < run.count; ++b) {
    const int64_t block = run.first_block + b, count = elements_of_block(run.count, b);
    const BlockContext context = context_of(run, block, count);
    const F32 scale = F32::splat(context.v_scale_before), eps = F32::splat(context.eps);
    OneBlock<M> m(run.m, block, count, context, 0);
    OneBlock<Slow> slow(run.m_slow, block, count, context, 1);
    OneBlock<Var> v(run.v, block, count, context, 2);
    Called::for_each([&](AnyGroup group) {
      const int64_t at = b * kBlock + group.index * kLanes;
      F32 values, average;
      v.load(group, values);
      values.store(run.v_values + at);
      F32 unit = F32::splat(1.0f);
      if constexpr (M::kUpdateUnits) unit = v.unit(group, scale, eps);
      if constexpr (M::kPresent) {
        m.load(group, average);
        (M::kUpdateUnits ? average * unit : average).store(run.m_values + at);
      }
      if constexpr (Slow::kPresent) {
        slow.load(group, average);
        (M::kUpdateUnits ? average * unit : average).store(run.slow_values + at);
      }
      // a codec of rows and columns moves on to the next group; nothing is written back
      v.store(group, values);
    });
  }
}

template <class M, class Slow, class Var> void encode_run(const MomentRun &run) {
  for (int64_t b = 0; b * kBlock < run.count; ++b) {
    const int64_t block = run.first_block + b, count = elements_of_block(run.count, b);
    const BlockContext context = context_of(run, block, count);
    const F32 scale = F32::splat(context.v_scale_before), eps = F32::splat(context.eps);
    OneBlock<M> m(run.m, block, count, context, 0);
    OneBlock<Slow> slow(run.m_slow, block, count, context, 1);
    OneBlock<Var> v(run.v, block, count, context, 2);
    Called::for_each([&](AnyGroup group) {
      const int64_t at = b * kBlock + group.index * kLanes;
      const F32 values = F32::load(run.v_values + at), root = sqrt(values);
      const F32 unit = root * scale + eps;
      F32 before;
      v.load(group, before); // a codec of rows and columns looks where it is
      v.store(group, Var::kKeepsRoots ? root : values);
      if constexpr (M::kPresent) {
        const F32 average = F32::load(run.m_values + at);
        m.store(group, M::kUpdateUnits && !M::kPersistedUnits ? average / unit : average);
      }
      if constexpr (Slow::kPresent) {
        const F32 slower = F32::load(run.slow_values + at);
        slow.store(group, M::kUpdateUnits ? slower / unit : slower);
      }
    });
    v.encode();
    slow.encode();
    if constexpr (M::kPersistedUnits) m.to_persisted_units(v);
    m.encode(run.encoded);
  }
}

BlockContext plain_context(const PlainRun &run, int64_t block, int64_t count) {
  Coefficients none;
  none.random_key = run.random_key;
  none.v_scale_before = 1;
  return BlockContext(none, block, count, nullptr);
}

template <class Codec> void unpack_run(const PlainRun &run) {
  for (int64_t b = 0; b * kBlock < run.count; ++b) {
    const int64_t block = run.first_block + b, count = elements_of_block(run.count, b);
    const BlockContext context = plain_context(run, block, count);
    OneBlock<Codec> one(run.planes, block, count, context, 0);
    Called::for_each([&](AnyGroup group) {
      F32 values;
      one.load(group, values);
      values.store(run.values + b * kBlock + group.index * kLanes);
    });
  }
}

template <class Codec> void pack_run(const PlainRun &run) {
  for (int64_t b = 0; b * kBlock < run.count; ++b) {
    const int64_t block = run.first_block + b, count = elements_of_block(run.count, b);
    const BlockContext context = plain_context(run, block, count);
    OneBlock<Codec> one(run.planes, block, count, context, 0);
    Called::for_each([&](AnyGroup group) {
      one.store(group, F32::load(run.values + b * kBlock + group.index * kLanes));
    });
    one.encode();
  }
}

// Both directions for a row of the table of combinations.
template <class Real, class M, class Slow, class Var> struct Conversion {
  static constexpr auto kDecode = &decode_run<M, Slow, typename SecondMoment<Var>::type>;
  static constexpr auto kEncode = &encode_run<M, Slow, typename SecondMoment<Var>::type>;
};
template <class M, class Slow, class Var> struct Conversion<double, M, Slow, Var> {
  static constexpr void (*kDecode)(const MomentRun &) = nullptr;
  static constexpr void (*kEncode)(const MomentRun &) = nullptr;
};
template <> struct Conversion<float, None, None, None> {
  static constexpr void (*kDecode)(const MomentRun &) = nullptr;
  static constexpr void (*kEncode)(const MomentRun &) = nullptr;
};

} // namespace

const Converters converters = {
#define COSMIC_DECODE(Real, Rule, M, Slow, Var, Probe) Conversion<Real, M, Slow, Var>::kDecode,
#define COSMIC_ENCODE(Real, Rule, M, Slow, Var, Probe) Conversion<Real, M, Slow, Var>::kEncode,
#define COSMIC_UNPACK(name, Codec) unpack_run<Codec>,
#define COSMIC_PACK(name, Codec) pack_run<Codec>,
    {COSMIC_COMBINATIONS(COSMIC_DECODE)},
    {COSMIC_COMBINATIONS(COSMIC_ENCODE)},
    {COSMIC_PLAIN_CODECS(COSMIC_UNPACK)},
    {COSMIC_PLAIN_CODECS(COSMIC_PACK)},
#undef COSMIC_DECODE
#undef COSMIC_ENCODE
#undef COSMIC_UNPACK
#undef COSMIC_PACK
};

} // namespace cosmic::COSMIC_TARGET
