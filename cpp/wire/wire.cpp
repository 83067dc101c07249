#include "wire/wire.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "core/error.h"
#include "isa/float_environment.h"
#include "kernels/kernels.h"
#include "plan/coefficients.h"
#include "plan/stage.h"

namespace cosmic {

namespace {

constexpr int64_t kRunBlocks = 8; // staged together
constexpr int64_t kRun = kRunBlocks * kBlock;
using RunStage = Stage<float, kRun>;

int64_t blocks_of(int64_t count) { return (count + kBlock - 1) / kBlock; }
int64_t runs_of(int64_t count) { return (count + kRun - 1) / kRun; }
int64_t bytes_of_block(WireFormat format) { return kWireBytes[static_cast<int>(format)]; }

// Whether an element is not zero; NaN is not.
bool has_elements(const Kernels &kernels, const Operand &gradient, int64_t count, int threads) {
  std::atomic<bool> found{false};
#pragma omp parallel num_threads(threads) if (count > 64 * kBlock)
  {
    const DefaultFloatEnvironment environment;
    RunStage stage(gradient, kernels);
#pragma omp for schedule(static)
    for (int64_t run = 0; run < runs_of(count); ++run) {
      if (found.load(std::memory_order_relaxed)) continue;
      const int64_t first = run * kRun, here = std::min(kRun, count - first);
      const float *values = stage.load(first, here);
      if (std::any_of(values, values + here, [](float x) { return x != 0; }))
        found.store(true, std::memory_order_relaxed);
    }
  }
  return found;
}

} // namespace

WireFormat wire_format(const std::string &name) {
  std::string known;
  for (int k = 0; k < kWireFormats; ++k) {
    if (name == kWireNames[k]) return static_cast<WireFormat>(k);
    known += (k ? ", " : "") + std::string(kWireNames[k]);
  }
  throw Error(ErrorKind::value, "codec is '" + name + "'; expected one of " + known);
}

int64_t wire_bytes(int64_t count, WireFormat format) {
  return blocks_of(count) * bytes_of_block(format);
}

uint32_t wire_key(const WireCounter &counter) {
  // another odd number than the one that steps are multiplied with, so that ranks are no steps
  const uint64_t of_rank = counter.seed + 0xd1b54a32d192ed03u * static_cast<uint64_t>(counter.rank);
  return random_key(of_rank, counter.step, counter.index);
}

void wire_encode(const Kernels &kernels, const Operand &gradient, const Operand *residual,
                 double decay, int64_t count, WireFormat format, bool stochastic,
                 const WireCounter &counter, uint8_t *bytes, int threads) {
  if (!has_elements(kernels, gradient, count, threads)) {
    std::fill(bytes, bytes + wire_bytes(count, format), uint8_t{0});
    return;
  }
  const auto encode = kernels.wire->encode[static_cast<int>(format)];
  const uint32_t key = wire_key(counter);
#pragma omp parallel num_threads(threads) if (count > 64 * kBlock)
  {
    const DefaultFloatEnvironment environment;
    RunStage gradients(gradient, kernels);
    std::optional<RunStage> kept;
    if (residual) kept.emplace(*residual, kernels).round_stochastically(key);
#pragma omp for schedule(static)
    for (int64_t run = 0; run < runs_of(count); ++run) {
      const int64_t first = run * kRun, here = std::min(kRun, count - first);
      const int64_t block = first / kBlock;
      encode({gradients.load(first, here), kept ? kept->load(first, here) : nullptr,
              static_cast<float>(decay), block, blocks_of(here),
              bytes + block * bytes_of_block(format), stochastic, key});
      if (kept) kept->store(first, here);
    }
  }
}

void wire_decode(const Kernels &kernels, const uint8_t *bytes, int64_t stride, int ranks,
                 int64_t count, WireFormat format, const Operand &to, int threads) {
  const auto decode = kernels.wire->decode[static_cast<int>(format)];
#pragma omp parallel num_threads(threads) if (count > 64 * kBlock)
  {
    const DefaultFloatEnvironment environment;
    RunStage stage(to, kernels);
#pragma omp for schedule(static)
    for (int64_t run = 0; run < runs_of(count); ++run) {
      const int64_t first = run * kRun, here = std::min(kRun, count - first);
      const uint8_t *from = bytes + first / kBlock * bytes_of_block(format);
      decode({from, stride, ranks, blocks_of(here), stage.values()});
      stage.store(first, here);
    }
  }
}

} // namespace cosmic
