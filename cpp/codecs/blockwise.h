// The part that all codecs share which keep a few bits an element and one word a block: a step's
// values wait in L1 until their block's statistics are known, then they are encoded together.
// Layout: plane 0, the codes of packed.h, whole blocks; plane 1, one word a block (Format::Word).
// A value that is infinite or NaN is not encoded: its element keeps what it had, so that it cannot
// spoil its block (the parameter itself is spoiled, as in AdamW). So is padding.
#pragma once

#include "codecs/packed.h"

namespace cosmic::COSMIC_TARGET {

// The bits of the least number above zero of a block of numbers >= 0 that are not all zero.
COSMIC_INLINE uint32_t least_above_zero(const float *values) {
  I32 low = I32::splat(-1); // zero less one is above all
  for (int k = 0; k < kBlock; k += kLanes)
    low = unsigned_min(low, as_int(F32::load(values + k)) - I32::splat(1));
  return reduce_unsigned_min(low) + 1;
}

// What a format knows of a block when it encodes it.
template <class Format, bool kCompletes> struct CompletedOf {
  using type = typename Format::Summary;
};
template <class Format> struct CompletedOf<Format, true> {
  using type = typename Format::Completed;
};

// What a format's reader is opened with.
template <class Format, bool kOpensAhead> struct OpenedOf {
  using type = Nothing;
};
template <class Format> struct OpenedOf<Format, true> {
  using type = typename Format::Reader::Opened;
};

template <class Format> struct WholeBlocks;

template <class Format> struct Blockwise : CodecTraits {
  static constexpr bool kPresent = true, kCompressed = true, kStaged = true;
  static constexpr bool kUpdateUnits = Format::kUpdateUnits;
  static constexpr bool kMatrix = false, kFewUnits = Format::kFewUnits;
  static constexpr bool kWholeLevels = Format::kWholeLevels;
  using Whole = WholeBlocks<Format>;
  static constexpr bool kCompletes = Format::kCompletes, kOpensAhead = Format::kOpensAhead;
  static constexpr int kPlanes = 2;
  using Word = typename Format::Word;
  using Summary = typename Format::Summary;
  using Completed = typename CompletedOf<Format, kCompletes>::type;
  static constexpr int64_t bytes(int plane, int64_t numel) {
    return blocks_of(numel) * (plane ? (int64_t)sizeof(Word) : Codes<Format::kBits>::kBytes);
  }

  typename Format::Reader reader;
  typename Format::Statistics statistics;
  float *values; // of the block, waiting

  COSMIC_METHOD Blockwise(const Planes &planes, int64_t block, const BlockContext &context,
                          int /*slot*/, float decay, float *waiting)
      : reader(Codes<Format::kBits>::load(codes_at(planes, block)), *word_at(planes, block),
               context, decay),
        values(waiting) {}
  template <class Opened>
  COSMIC_METHOD Blockwise(const Planes &planes, int64_t block, const Opened &opened, float *waiting)
      : reader(Codes<Format::kBits>::load(codes_at(planes, block)), opened), values(waiting) {}

  using Opened = typename OpenedOf<Format, kOpensAhead>::type;
  COSMIC_METHOD static Opened open(const Planes &planes, int64_t block, const BlockContext &context,
                                   float decay) {
    return Format::Reader::open(*word_at(planes, block), context, decay);
  }

  template <int i> COSMIC_METHOD void load(Group<i> group, F32 &out) { out = reader.at(group); }
  template <int i> COSMIC_METHOD F32 unit(Group<i> group, F32 scale, F32 eps) const {
    return reader.unit(group, scale, eps);
  }
  COSMIC_METHOD static void complete(const Summary *summaries, Completed *out, int count) {
    if constexpr (kCompletes) Format::complete(summaries, out, count);
  }
  // Units of what a block that was encoded so is decoded as, in the place of those that its word
  // gives.
  COSMIC_METHOD void take_units(const Completed &of, float scale, float eps) {
    if constexpr (kCompletes && kFewUnits) reader.units = Format::units_of(of, scale, eps);
  }
  COSMIC_METHOD void invert_units(F32 scale) { reader.units = scale / reader.units; }
  template <int i> COSMIC_METHOD void store(Group<i>, const F32 &value) {
    value.store(values + i * kLanes);
    statistics.see(value);
  }

  template <bool kTail> COSMIC_METHOD Summary measure(const Planes &planes, int64_t block,
                                                      const BlockContext &context,
                                                      int64_t count) const {
    const Summary summary = statistics.summary();
    if (!kTail && __builtin_expect(Format::ordinary(summary), 1)) return summary;
    return mended(planes, block, context, values, count);
  }

  COSMIC_METHOD static void encode(const Planes &planes, int64_t block, const BlockContext &context,
                                   int slot, const float *values, const Completed &summary) {
    Codes<Format::kBits> codes = Codes<Format::kBits>::none();
    *word_at(planes, block) =
        Format::encode(values, summary, context, context.random.slot_key(slot), codes);
    codes.store(codes_at(planes, block));
  }

private:
  COSMIC_METHOD static uint8_t *codes_at(const Planes &planes, int64_t block) {
    return (uint8_t *)planes.data[0] + block * Codes<Format::kBits>::kBytes;
  }
  COSMIC_METHOD static Word *word_at(const Planes &planes, int64_t block) {
    return (Word *)planes.data[1] + block;
  }

  // Rare: the last, partial block, and blocks with values that have no code. Not a method of this
  // object, whose registers it would force into memory.
  COSMIC_CALL static Summary mended(const Planes &planes, int64_t block,
                                    const BlockContext &context, float *values, int64_t count) {
    const Blockwise old(planes, block, context, 0, 1.0f, values);
    alignas(64) float before[kBlock];
    for_each_group(
        [&](auto group) { old.reader.at(group).store(before + decltype(group)::index * kLanes); });
    for (int64_t k = 0; k < count; ++k) values[k] = Format::mend(values[k], before[k]);
    for (int64_t k = count; k < kBlock; ++k) values[k] = Format::padding(values);
    typename Format::Statistics statistics;
    for (int k = 0; k < kBlock; k += kLanes) statistics.see(F32::load(values + k));
    return statistics.summary();
  }
};

template <class Format> struct WholeBlocks : Blockwise<Format> {
  using Blockwise<Format>::Blockwise;
  COSMIC_METHOD float level() const { return this->reader.level; }
  template <int i> COSMIC_METHOD void load(Group<i> group, F32 &out) {
    out = this->reader.whole_at(group);
  }
};

} // namespace cosmic::COSMIC_TARGET
