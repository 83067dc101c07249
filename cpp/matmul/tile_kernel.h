// The arithmetic of a tile (matmul/tile.h): all of its sums are kept in registers while k runs.
#pragma once

#include <limits>
#include <utility>

#include "isa/lanes.h"
#include "matmul/tile.h"

namespace cosmic::COSMIC_TARGET {

template <class T> struct Register {
  typedef T type __attribute__((vector_size(kRegisterBytes)));
};
template <class T> using RegisterOf = typename Register<T>::type;

template <class T, class From> COSMIC_INLINE T loaded(const From *from) {
  T out;
  __builtin_memcpy(&out, from, sizeof(out));
  return out;
}

// x in all lanes: one load, where a sum with zero would be another instruction.
COSMIC_INLINE RegisterOf<float> splat(float x) {
#if defined(COSMIC_LANES_AVX512)
  return _mm512_set1_ps(x);
#elif defined(COSMIC_LANES_AVX2)
  return _mm256_set1_ps(x);
#else
  return RegisterOf<float>{x, x, x, x};
#endif
}
COSMIC_INLINE RegisterOf<double> splat(double x) {
#if defined(COSMIC_LANES_AVX512)
  return _mm512_set1_pd(x);
#elif defined(COSMIC_LANES_AVX2)
  return _mm256_set1_pd(x);
#else
  return RegisterOf<double>{x, x};
#endif
}

// a b + c of an exact product: with a fused multiply-add where the ISA has one.
COSMIC_INLINE RegisterOf<double> add_exact_product(RegisterOf<double> a, RegisterOf<double> b,
                                                   RegisterOf<double> c) {
#if defined(COSMIC_LANES_AVX512)
  return _mm512_fmadd_pd(a, b, c);
#elif defined(COSMIC_LANES_AVX2)
  return _mm256_fmadd_pd(a, b, c);
#elif defined(COSMIC_LANES_NEON)
  return vfmaq_f64(c, a, b);
#else
  return c + a * b;
#endif
}

template <class Visit, int... k>
COSMIC_INLINE void visit_numbers(std::integer_sequence<int, k...> /*numbers*/, Visit visit) {
  (visit(Number<k>{}), ...);
}

// Tiles of kRows x (kRegisters registers), of products that are exact in Sum or are rounded.
template <class Sum, class Out, int kRows, int kRegisters, bool kExactProducts> class TileRun {
public:
  static constexpr TileKernelOf<Sum, Out> kernel() noexcept { return {kRows, kColumns, run}; }

private:
  static constexpr int kWidth = kRegisterBytes / (int)sizeof(Sum);
  static constexpr int kColumns = kRegisters * kWidth;
  static_assert(kRows <= kMostPanel && kColumns <= kMostPanel);
  static_assert(kRows * kColumns <= kMostTileElements);
  using Wide = RegisterOf<Sum>;
  struct Sums {
    Wide at[kRows][kRegisters];
  };

  COSMIC_CALL static void run(const TileOf<Sum, Out> &tile) {
    // what is written at the end is on its way while k runs
    if (tile.last)
      for (int r = 0; r < kRows; ++r) __builtin_prefetch(tile.out + r * tile.out_stride, 1);
    Sums sums;
    open(tile, sums);
    const Sum *a = tile.a, *b = tile.b;
    const Sum *const end = a + tile.depth * kRows;
#pragma GCC unroll 4
    for (; a != end; a += kRows, b += kColumns) add_products(a, b, sums);
    tile.last ? finish(tile, sums) : keep(tile, sums);
  }

  template <class Visit> COSMIC_INLINE void for_each_register(Visit visit) {
    visit_numbers(std::make_integer_sequence<int, kRegisters>{}, visit);
  }
  // visit(row, register, sums) of all
  template <class Visit> COSMIC_INLINE void for_each(Sums &sums, Visit visit) {
    visit_numbers(std::make_integer_sequence<int, kRows>{}, [&](auto row) COSMIC_LAMBDA {
      for_each_register([&](auto column) COSMIC_LAMBDA {
        constexpr int r = decltype(row)::value, j = decltype(column)::value;
        visit(r, j * kWidth, sums.at[r][j]);
      });
    });
  }

  COSMIC_INLINE void open(const TileOf<Sum, Out> &tile, Sums &sums) {
    for_each(sums, [&](int r, int j, Wide &sum) COSMIC_LAMBDA {
      sum = tile.first ? Wide{} : loaded<Wide>(tile.c + r * tile.c_stride + j);
    });
  }

  COSMIC_INLINE void add_products(const Sum *a, const Sum *b, Sums &sums) {
    Wide of_b[kRegisters];
    for_each_register([&](auto column) COSMIC_LAMBDA {
      constexpr int j = decltype(column)::value;
      of_b[j] = loaded<Wide>(b + j * kWidth);
    });
    visit_numbers(std::make_integer_sequence<int, kRows>{}, [&](auto row) COSMIC_LAMBDA {
      constexpr int r = decltype(row)::value;
      const Wide of_a = splat(a[r]);
      for_each_register([&](auto column) COSMIC_LAMBDA {
        constexpr int j = decltype(column)::value;
        if constexpr (kExactProducts)
          sums.at[r][j] = add_exact_product(of_a, of_b[j], sums.at[r][j]);
        else
          sums.at[r][j] = sums.at[r][j] + of_a * of_b[j];
      });
    });
  }

  COSMIC_INLINE void keep(const TileOf<Sum, Out> &tile, Sums &sums) {
    for_each(sums, [&](int r, int j, Wide &sum) COSMIC_LAMBDA {
      __builtin_memcpy(tile.c + r * tile.c_stride + j, &sum, sizeof(sum));
    });
  }

  COSMIC_INLINE void finish(const TileOf<Sum, Out> &tile, Sums &sums) {
    typedef Out Rounded __attribute__((vector_size(kWidth * sizeof(Out))));
    const Wide nan = splat(std::numeric_limits<Sum>::quiet_NaN());
    for_each(sums, [&](int r, int j, Wide &sum) COSMIC_LAMBDA {
      Wide x = sum * tile.alpha;
      if (tile.d) x = x + loaded<Wide>(tile.d + r * tile.d_stride + j) * tile.beta;
      x = x == x ? x : nan; // NOLINT(misc-redundant-expression): a NaN is not itself
      const Rounded out = __builtin_convertvector(x, Rounded);
      __builtin_memcpy(tile.out + r * tile.out_stride + j, &out, sizeof(out));
    });
  }
};

// As many sums as leave registers for a row of b, an a and a product.
#if defined(COSMIC_LANES_AVX512)
using TileF32 = TileRun<float, float, 16, 1, false>; // 16 of 32 registers
using TileF64 = TileRun<double, double, 8, 2, false>;
using TileWidened = TileRun<double, float, 8, 2, true>;
#elif defined(COSMIC_LANES_AVX2)
using TileF32 = TileRun<float, float, 6, 2, false>; // 12 of 16
using TileF64 = TileRun<double, double, 6, 2, false>;
using TileWidened = TileRun<double, float, 6, 2, true>;
#elif defined(COSMIC_LANES_NEON)
using TileF32 = TileRun<float, float, 6, 4, false>; // 24 of 32
using TileF64 = TileRun<double, double, 6, 4, false>;
using TileWidened = TileRun<double, float, 6, 4, true>;
#else
using TileF32 = TileRun<float, float, 2, 4, false>; // 8 of 16
using TileF64 = TileRun<double, double, 2, 4, false>;
using TileWidened = TileRun<double, float, 2, 4, true>;
#endif

} // namespace cosmic::COSMIC_TARGET
