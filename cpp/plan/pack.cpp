#include "plan/pack.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "isa/dispatch.h"
#include "isa/float_environment.h"
#include "kernels/kernels.h"
#include "parts/registry.h"
#include "plan/coefficients.h"
#include "plan/first_index.h"
#include "plan/layout.h"
#include "plan/stage.h"

namespace cosmic {

namespace {

using BlockStage = Stage<float, kBlock>;

#define COSMIC_PLAIN_NAME(name, Codec) name,
constexpr const char *kNames[] = {COSMIC_PLAIN_CODECS(COSMIC_PLAIN_NAME)};
#undef COSMIC_PLAIN_NAME

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }

PlainRun run_of(const uint8_t *codes, const void *words, int64_t block, int64_t count,
                float *values) {
  PlainRun run{};
  run.planes.data[0] = const_cast<uint8_t *>(codes);
  run.planes.data[1] = const_cast<void *>(words);
  run.first_block = block;
  run.count = count;
  run.values = values;
  return run;
}

} // namespace

PlainCodec plain_codec(const std::string &name) {
  const auto *found = std::find(std::begin(kNames), std::end(kNames), name);
  if (found == std::end(kNames)) {
    std::string known;
    for (const char *each : kNames) known += std::string(", ") + each;
    throw Error(ErrorKind::value, "codec is '" + name + "'; expected absmax" + known);
  }
  const bool square = name[0] == 'v';
  // in a state, the second moment's form of 8 bits goes by the name of the first's
  const std::vector<Plane> planes =
      slot_layout(codec_named(name == "v8" ? "q8" : name), square, kBlock, MatrixShape{});
  const int bits = static_cast<int>(planes[0].count * 8 / kBlock);
  const Plane &word = planes[1];
  return {
      static_cast<int>(found - std::begin(kNames)), bits, square, word.dtype, word.code, word.bits};
}

int64_t packed_code_bytes(int64_t count, const PlainCodec &codec) {
  return blocks_of(count) * kBlock * codec.bits / 8;
}

int64_t packed_words(int64_t count) { return blocks_of(count); }

int64_t pack(const Operand &from, int64_t count, const PlainCodec &codec, uint64_t seed,
             uint8_t *codes, void *words, int threads) {
  const Kernels &kernels = chosen_kernels();
  const int64_t blocks = blocks_of(count);
  const uint32_t key = random_key(seed, 0, 0);
  FirstIndex first_bad(count);
#pragma omp parallel num_threads(threads) if (blocks > 64)
  {
    const DefaultFloatEnvironment environment;
    BlockStage stage(from, kernels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = b * kBlock, here = std::min(kBlock, count - first);
      float *values = stage.load(first, here);
      const auto *bad = std::find_if(values, values + here, [&](float x) {
        return !std::isfinite(x) || (codec.nonnegative && x < 0);
      });
      if (bad != values + here) {
        first_bad.report(first + (bad - values));
        continue;
      }
      if (codec.nonnegative) // -0 has the bits of a negative number
        for (int64_t k = 0; k < here; ++k) values[k] = std::fabs(values[k]);
      PlainRun run = run_of(codes, words, b, here, values);
      run.random_key = key;
      kernels.pack[codec.index](run);
    }
  }
  return first_bad.value();
}

void unpack(const uint8_t *codes, const void *words, int64_t count, const PlainCodec &codec,
            const Operand &to, int threads) {
  const Kernels &kernels = chosen_kernels();
  const int64_t blocks = blocks_of(count);
#pragma omp parallel num_threads(threads) if (blocks > 64)
  {
    const DefaultFloatEnvironment environment;
    BlockStage stage(to, kernels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = b * kBlock, here = std::min(kBlock, count - first);
      kernels.unpack[codec.index](run_of(codes, words, b, here, stage.values()));
      stage.store(first, here);
    }
  }
}

} // namespace cosmic
