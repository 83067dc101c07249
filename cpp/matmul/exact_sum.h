// Sums of products without error: an integer wide enough for every product of two numbers of a
// type, and the float nearest to it. The order of what is added makes no difference.
#pragma once

#include <cstdint>

namespace cosmic {

template <class T> class ExactSum {
public:
  void add_product(T a, T b);
  void add(T x) { add_product(x, 1); }
  // To nearest, ties to even; zero is positive where the sum is zero. Infinities of both signs, and
  // infinity times zero, make a NaN, as they do in any order of sums.
  T rounded();

private:
  static constexpr bool kIsFloat = sizeof(T) == 4;
  static constexpr int kDigits = kIsFloat ? 24 : 53;      // of a significand, in bits
  static constexpr int kLowest = kIsFloat ? -149 : -1074; // exponent of a number's last bit
  static constexpr int kHighest = kIsFloat ? 128 : 1024;  // above every number
  static constexpr int kLimbBits = 32;
  // of a product's bits, and of as many carries as there may be products
  static constexpr int kLimbs = (2 * kHighest - 2 * kLowest + 64) / kLimbBits + 1;
  static constexpr int64_t kMostUncarried = int64_t{1} << 29;

  void add_shifted(__int128 value, int position);
  void carry();
  void negate();
  bool bit(int position) const;
  bool any_below(int position) const;

  // Limb i counts 2^(32 i + 2 kLowest); carries wait in its upper half.
  int64_t limbs_[kLimbs] = {};
  int64_t uncarried_ = 0;
  T special_ = 0; // the sum of what is not finite
};

extern template class ExactSum<float>;
extern template class ExactSum<double>;

} // namespace cosmic
