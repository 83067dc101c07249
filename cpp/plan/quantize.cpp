#include "plan/quantize.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "isa/dispatch.h"
#include "isa/float_environment.h"
#include "plan/first_index.h"
#include "plan/stage.h"

namespace cosmic {

namespace {

constexpr int64_t kMaxBlock = 4096;
using BlockStage = Stage<float, kMaxBlock>;

int64_t blocks_of(int64_t count, int64_t block_size) {
  return (count + block_size - 1) / block_size;
}

} // namespace

void check_quantization(int bits, int64_t block_size) {
  if (bits != 4 && bits != 8)
    throw Error(ErrorKind::value, "bits is " + std::to_string(bits) + "; expected 4 or 8");
  if (block_size < 8 || block_size > kMaxBlock || block_size % 8 != 0)
    throw Error(ErrorKind::value, "block_size is " + std::to_string(block_size) +
                                      "; expected a multiple of 8 from 8 to 4096");
}

int64_t quantized_code_bytes(int64_t count, int bits, int64_t block_size) {
  return blocks_of(count, block_size) * block_size * bits / 8;
}

int64_t quantize(const Operand &from, int64_t count, int bits, int64_t block_size, uint8_t *codes,
                 float *scales, int threads) {
  const Kernels &kernels = chosen_kernels();
  const int64_t blocks = blocks_of(count, block_size);
  FirstIndex first_bad(count);
#pragma omp parallel num_threads(threads) if (blocks > 64)
  {
    const DefaultFloatEnvironment environment;
    BlockStage stage(from, kernels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = b * block_size, here = std::min(block_size, count - first);
      const float *values = stage.load(first, here);
      const float *bad =
          std::find_if(values, values + here, [](float x) { return !std::isfinite(x); });
      if (bad != values + here) {
        first_bad.report(first + (bad - values));
        continue;
      }
      kernels.quantize(values, here, bits, block_size, codes + b * block_size * bits / 8,
                       scales + b);
    }
  }
  return first_bad.value();
}

void dequantize(const uint8_t *codes, const float *scales, int64_t count, int bits,
                int64_t block_size, const Operand &to, int threads) {
  const Kernels &kernels = chosen_kernels();
  const int64_t blocks = blocks_of(count, block_size);
#pragma omp parallel num_threads(threads) if (blocks > 64)
  {
    const DefaultFloatEnvironment environment;
    BlockStage stage(to, kernels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = b * block_size, here = std::min(block_size, count - first);
      kernels.dequantize(codes + b * block_size * bits / 8, scales + b, here, bits, block_size,
                         stage.values());
      stage.store(first, here);
    }
  }
}

} // namespace cosmic
