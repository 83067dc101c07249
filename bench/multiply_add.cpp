// What a core can do at most in multiplications and additions apart, from registers alone: built
// and called by bench/matmul.py.
#include <cstdint>

namespace {

constexpr int kChains = 12; // more than the latency of an addition holds back

// Chains of vectors, each of which grows by a product; `z` is hidden so that no product is kept.
template <class Vector> __attribute__((always_inline)) inline void grow(int64_t rounds, float *io) {
  Vector chain[kChains], y = {};
  for (int k = 0; k < kChains; ++k) chain[k] = y + io[k];
  y = y + io[kChains];
  Vector z = y;
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kChains; ++k) {
#if defined(__x86_64__)
      __asm__("" : "+v"(z));
#else
      __asm__("" : "+w"(z));
#endif
      chain[k] = chain[k] + z * y;
    }
  }
  for (int k = 0; k < kChains; ++k) io[k] = chain[k][0];
}

template <int kBytes> struct Of {
  typedef float Vector __attribute__((vector_size(kBytes)));
};

} // namespace

// Floating-point operations of `rounds`; `io` holds 13 numbers.
extern "C" {
int64_t multiply_add_scalar(int64_t rounds, float *io) {
  grow<Of<16>::Vector>(rounds, io);
  return rounds * kChains * 2 * 4;
}
#if defined(__x86_64__)
__attribute__((target("avx2"))) int64_t multiply_add_avx2(int64_t rounds, float *io) {
  grow<Of<32>::Vector>(rounds, io);
  return rounds * kChains * 2 * 8;
}
__attribute__((target("avx512f"))) int64_t multiply_add_avx512(int64_t rounds, float *io) {
  grow<Of<64>::Vector>(rounds, io);
  return rounds * kChains * 2 * 16;
}
#else
int64_t multiply_add_neon(int64_t rounds, float *io) { return multiply_add_scalar(rounds, io); }
#endif
}
