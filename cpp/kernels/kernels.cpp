// Compiled once per ISA, with COSMIC_TARGET set to its name: one function table.
#include "kernels/kernels.h"

#include "codecs/absmax.h"
#include "kernels/convert.h"
#include "kernels/descend.h"
#include "kernels/inlined.h"
#include "kernels/master.h"
#include "kernels/parts.h"

namespace cosmic::COSMIC_TARGET {

namespace {

// Whether a run asks for the probes of the row of the table that is inlined, and for no others.
bool asks_as_row(const BlockRun &run, ProbeAt own) {
  if (own == ProbeAt::none) return run.probe_count == 0;
  return run.probe_count == 1 && run.probes[0].probe == (int)own && run.probes[0].first_sum == 0;
}

// The inlined pass that a run may take, or null.
RunPass inlined_for(const BlockRun &run, const RunPass *passes) {
  const int row = run.parts->hot;
  return row >= 0 && asks_as_row(run, kTable.rows[row].probe) ? passes[row] : nullptr;
}

// A run of what is left after the whole blocks.
BlockRun after_whole_blocks(BlockRun run) {
  const int64_t whole = run.count / kBlock, bytes = whole * kBlock * (run.parts->f64 ? 8 : 4);
  run.first_block += whole;
  run.count -= whole * kBlock;
  if (run.param) run.param = (char *)run.param + bytes;
  run.gradient = (const char *)run.gradient + bytes;
  return run;
}

template <class Real> void pass_by_parts(const BlockRun &run, Pass pass) {
  ByParts<Real> parts(run, pass);
  if (pass == Pass::step)
    parts.step();
  else
    parts.measure();
}

void by_parts(const BlockRun &run, Pass pass) {
  if (run.parts->f64)
    pass_by_parts<double>(run, pass);
  else
    pass_by_parts<float>(run, pass);
}

// An inlined pass leaves the new parameter in L1, from where its squares are added up.
constexpr int64_t kSquaredBlocks = 8;

template <class Real> void add_squares(const BlockRun &run) {
  alignas(64) Real lanes[kLanes];
  narrow_lanes(run.sums->square_param, lanes);
  square_pass((const Real *)run.param, run.count / kBlock, run.count, lanes);
  widen_lanes(lanes, run.sums->square_param);
  run.sums->more = true;
}

BlockRun blocks_of(BlockRun run, int64_t first, int64_t blocks) {
  const int64_t bytes = first * kBlock * (run.parts->f64 ? 8 : 4);
  run.first_block += first;
  run.count = blocks * kBlock;
  run.param = (char *)run.param + bytes;
  run.gradient = (const char *)run.gradient + bytes;
  return run;
}

void inlined_with_squares(const BlockRun &run, RunPass inlined) {
  const int64_t whole = run.count / kBlock;
  for (int64_t b = 0; b < whole; b += kSquaredBlocks) {
    const BlockRun piece =
        blocks_of(run, b, whole - b < kSquaredBlocks ? whole - b : kSquaredBlocks);
    inlined(piece);
    run.parts->f64 ? add_squares<double>(piece) : add_squares<float>(piece);
  }
}

void note_nonfinite_of(const BlockRun &run) {
  if (run.parts->f64)
    note_nonfinite((const double *)run.gradient, run.count, run.sums);
  else
    note_nonfinite((const float *)run.gradient, run.count, run.sums);
}

void run_over(const BlockRun &run, Pass pass, RunPass inlined) {
  if (!inlined) {
    by_parts(run, pass);
  } else {
    if (run.count >= kBlock)
      (pass == Pass::step && run.square_param) ? inlined_with_squares(run, inlined) : inlined(run);
    if (run.count % kBlock) by_parts(after_whole_blocks(run), pass);
  }
  note_nonfinite_of(run);
}

int64_t plane_bytes(int codec, bool second_moment, int plane, int64_t numel) {
  PlaneSizes sizes =
      second_moment ? kSecondPasses<float>[codec].sizes : kFirstPasses<float>[codec].sizes;
  if (sizes.planes == 0) // of doubles, if it is any codec
    sizes = second_moment ? kSecondPasses<double>[codec].sizes : kFirstPasses<double>[codec].sizes;
  return plane < sizes.planes ? sizes.bytes(plane, numel) : -1;
}

void step(const BlockRun &run) { run_over(run, Pass::step, inlined_for(run, kInlinedSteps)); }
void step_by_parts(const BlockRun &run) { run_over(run, Pass::step, nullptr); }
void measure(const BlockRun &run) {
  const bool squares = run.square_param || run.square_update;
  run_over(run, Pass::measure, squares ? nullptr : inlined_for(run, kInlinedMeasures));
}
void measure_by_parts(const BlockRun &run) { run_over(run, Pass::measure, nullptr); }

void widen_bf16(const uint16_t *from, int64_t count, float *to) {
  for (int64_t k = 0; k < count; k += kLanes) {
    if (k % (2 * kLanes) == 0) __builtin_prefetch((const char *)(from + k) + kPrefetchBytes);
    as_float(shift_left<16>(load_u16(from + k))).store(to + k);
  }
}

void narrow_bf16(const float *from, int64_t count, uint16_t *to) {
  for (int64_t k = 0; k < count; k += kLanes) {
    const F32 x = F32::load(from + k);
    // half a unit less one, and the kept bit's parity: to nearest, ties to even
    const I32 parity = shift_right<16>(as_int(x)) & I32::splat(1);
    store_u16(to + k, float_to_bf16(x, parity + I32::splat(0x7fff)));
  }
}

void round_bf16(const float *from, int64_t count, const RandomPlace &place, uint16_t *to) {
  for (int64_t k = 0; k < count; k += kBlock) {
    const BlockRandom block(place.tensor_key, place.block + k / kBlock, place.lane);
    const RandomLanes random(block.slot_key(kParamSlot));
    for_each_group([&](auto group) COSMIC_LAMBDA {
      const int64_t at = k + group.index * kLanes;
      if (at >= count) return;
      const I32 rounding = shift_right<16>(random.of(group.index));
      store_u16(to + at, float_to_bf16(F32::load(from + at), rounding));
    });
  }
}

void widen_f16(const uint16_t *from, int64_t count, float *to) {
  for (int64_t k = 0; k < count; k += kLanes) load_f16(from + k).store(to + k);
}

void narrow_f16(const float *from, int64_t count, uint16_t *to) {
  for (int64_t k = 0; k < count; k += kLanes) store_f16(to + k, F32::load(from + k));
}

} // namespace

extern const ProductKernels product_kernels;
extern const ExactKernels exact_kernels;
extern const WireKernels wire_kernels;
extern const Kernels kernels;
const Kernels kernels = {
    COSMIC_ISA_NAME,
    plane_bytes,
    step,
    step_by_parts,
    measure,
    measure_by_parts,
    decode_run,
    encode_run,
#define COSMIC_UNPACK(name, Codec) unpack_run<Codec>,
#define COSMIC_PACK(name, Codec) pack_run<Codec>,
    {COSMIC_PLAIN_CODECS(COSMIC_UNPACK)},
    {COSMIC_PLAIN_CODECS(COSMIC_PACK)},
#undef COSMIC_UNPACK
#undef COSMIC_PACK
    inspect_run<float>,
    inspect_run<double>,
    descend_run,
    widen_bf16,
    widen_f16,
    narrow_bf16,
    round_bf16,
    narrow_f16,
    join_24,
    split_24,
    round_24,
    quantize_absmax,
    dequantize_absmax,
    &product_kernels, // kernels/products.cpp
    &exact_kernels,   // kernels/exact.cpp
    &wire_kernels,    // kernels/wire.cpp
};

} // namespace cosmic::COSMIC_TARGET
