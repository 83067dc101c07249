// State to numbers and numbers to state, outside a step, through the passes of the codecs: carrying
// moments to another rung, to and from AdamW's checkpoints, and quantizing plain tensors.
#pragma once

#include "kernels/parts.h"

namespace cosmic::COSMIC_TARGET {

// Calls visit(blocks before it, elements) for the whole blocks of a run, at most a batch, and for a
// partial one.
template <class Visit> void for_each_part_of(int64_t count, Visit visit) {
  const int64_t whole = count / kBlock * kBlock;
  if (whole) visit(0, whole);
  if (count > whole) visit(whole / kBlock, count - whole);
}

// A batch outside a step: there is no gradient, and every element is looked at.
struct StillBatch {
  alignas(64) float zeros[kBatch<float>] = {}, units[kBatch<float>], roots[kBatch<float>];
  Batch<float> batch;

  StillBatch(const Coefficients &c, int64_t block, int64_t count, int64_t shift, int lane,
             MatrixSums *matrix)
      : batch(BlockContext(c, block, kBlock, matrix)) {
    batch.open(block, (int)((count + kBlock - 1) / kBlock), count,
               {c.random_key, block + shift, lane});
    batch.careful = true;
    batch.p = nullptr;
    batch.g = zeros;
    batch.units = units;
    batch.roots = roots;
    batch.unit_scale = batch.contexts[0].v_scale_before;
    batch.correction = batch.contexts[0].m_correction_before;
  }
};

// The state of a batch: in place, or the image of a partial block.
struct StateAt {
  TailImage image;
  Slot<float> slot;
  const bool partial;

  StateAt(const PlaneSizes &sizes, const Planes &planes, int64_t block, int64_t count, int number,
          float *values)
      : image(count < kBlock ? sizes : PlaneSizes{0, nullptr}, planes, block, count),
        slot{planes, block, number, 1.0f, values}, partial(count < kBlock) {
    if (!partial) return;
    slot.planes = image.planes;
    slot.at = 0;
  }
  void write_back() const {
    if (partial) image.write_back();
  }
};

inline float *after(float *values, int64_t blocks) {
  return values ? values + blocks * kBlock : nullptr;
}

// The moments of some whole blocks or of a partial one.
struct StillMoments {
  const Codecs<float> codecs;
  StillBatch still;
  StateAt m, slow, v;

  StillMoments(const MomentRun &run, int64_t before, int64_t count)
      : codecs(Codecs<float>::of_state(*run.parts)),
        still(*run.coefficients, run.first_block + before, count, run.shift, run.lane, run.matrix),
        m(codecs.m.sizes, run.m, run.first_block + before, count, 0, after(run.m_values, before)),
        slow(codecs.m_slow.sizes, run.m_slow, run.first_block + before, count, 1,
             after(run.slow_values, before)),
        v(codecs.v.sizes, run.v, run.first_block + before, count, 2, after(run.v_values, before)) {}
};

static void decode_run(const MomentRun &run) {
  for_each_part_of(run.count, [&](int64_t before, int64_t count) {
    StillMoments of(run, before, count);
    of.codecs.load(of.still.batch, of.m.slot, of.slow.slot, of.v.slot);
  });
}

// What a step would have found beside the second moment: its roots, and what an update unit is.
static void find_units(StillBatch &still, const float *v) {
  const BlockContext &context = still.batch.contexts[0];
  const F32 scale = F32::splat(context.v_scale_before), eps = F32::splat(context.eps);
  for (int64_t k = 0; k < still.batch.blocks * kBlock; k += kLanes) {
    const F32 root = sqrt(F32::load(v + k));
    root.store(still.roots + k);
    (root * scale + eps).store(still.units + k);
  }
}

static void encode_run(const MomentRun &run) {
  for_each_part_of(run.count, [&](int64_t before, int64_t count) {
    StillMoments of(run, before, count);
    Batch<float> &batch = of.still.batch;
    if (of.codecs.v.present) find_units(of.still, of.v.slot.values);
    if (of.codecs.v.keeps_roots) of.v.slot.values = of.still.roots;
    of.codecs.store(batch, of.m.slot, of.slow.slot, of.v.slot);
    of.m.write_back();
    of.slow.write_back();
    of.v.write_back();
    if (of.codecs.m.adds_up)
      for (int k = 0; k < batch.blocks; ++k)
        *run.encoded += reduce_add(F32::load(batch.encoded[k]));
  });
}

// A plain tensor of one codec, as a slot that is in no units.
template <class Codec, class Visit> void for_each_plain(const PlainRun &run, Visit visit) {
  Coefficients none;
  none.random_key = run.random_key;
  none.v_scale_before = 1;
  for_each_part_of(run.count, [&](int64_t before, int64_t count) {
    const int64_t block = run.first_block + before;
    StillBatch still(none, block, count, 0, 0, nullptr);
    const F32 one = F32::splat(1.0f);
    for (int64_t k = 0; k < kBatch<float>; k += kLanes) one.store(still.units + k);
    StateAt state(kPlaneSizes<Codec>, run.planes, block, count, 0, after(run.values, before));
    visit(still.batch, state);
  });
}

template <class Codec> void unpack_run(const PlainRun &run) {
  for_each_plain<Codec>(
      run, [](Batch<float> &batch, const StateAt &state) { load_first<Codec>(batch, state.slot); });
}

template <class Codec> void pack_run(const PlainRun &run) {
  for_each_plain<Codec>(run, [](Batch<float> &batch, const StateAt &state) {
    store_slot<Codec>(batch, state.slot);
    state.write_back();
  });
}

} // namespace cosmic::COSMIC_TARGET
