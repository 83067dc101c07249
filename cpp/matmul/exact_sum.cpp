#include "matmul/exact_sum.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace cosmic {

namespace {

// x = significand 2^exponent, of a finite x.
struct Parts {
  int64_t significand;
  int exponent;
};

template <class T> Parts parts_of(T x) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr int kFraction = sizeof(T) == 4 ? 23 : 52, kLowest = sizeof(T) == 4 ? -149 : -1074;
  Bits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const Bits one = 1, fraction = bits & ((one << kFraction) - 1);
  const auto biased = static_cast<int>(static_cast<Bits>(bits << 1) >> (kFraction + 1));
  const auto size = static_cast<int64_t>(biased ? fraction | (one << kFraction) : fraction);
  return {bits >> (8 * sizeof(T) - 1) ? -size : size, kLowest + std::max(biased - 1, 0)};
}

} // namespace

template <class T> void ExactSum<T>::add_product(T a, T b) {
  if (!std::isfinite(a) || !std::isfinite(b)) {
    special_ += a * b;
    return;
  }
  const Parts x = parts_of(a), y = parts_of(b);
  const int position = x.exponent + y.exponent - 2 * kLowest;
  if constexpr (kIsFloat) {
    add_shifted(x.significand * y.significand, position);
  } else { // in two, each of which leaves room for a shift
    constexpr int kLow = 26;
    const int64_t high = y.significand >> kLow, low = y.significand - high * (int64_t{1} << kLow);
    add_shifted(static_cast<__int128>(x.significand) * low, position);
    add_shifted(static_cast<__int128>(x.significand) * high, position + kLow);
  }
  if (++uncarried_ == kMostUncarried) carry();
}

// A value of less than 2^96.
template <class T> void ExactSum<T>::add_shifted(__int128 value, int position) {
  int64_t *limb = limbs_ + position / kLimbBits;
  value *= static_cast<__int128>(1) << (position % kLimbBits);
  limb[0] += static_cast<uint32_t>(value);
  limb[1] += static_cast<uint32_t>(value >> kLimbBits);
  if constexpr (kIsFloat) { // less than 2^80 when shifted
    limb[2] += static_cast<int64_t>(value >> (2 * kLimbBits));
  } else {
    limb[2] += static_cast<uint32_t>(value >> (2 * kLimbBits));
    limb[3] += static_cast<int64_t>(value >> (3 * kLimbBits));
  }
}

// All limbs but the last then hold from 0 to 2^32 - 1; the last one has the sign.
template <class T> void ExactSum<T>::carry() {
  for (int i = 0; i + 1 < kLimbs; ++i) {
    const int64_t rest = static_cast<uint32_t>(limbs_[i]);
    limbs_[i + 1] += (limbs_[i] - rest) / (int64_t{1} << kLimbBits);
    limbs_[i] = rest;
  }
  uncarried_ = 0;
}

template <class T> void ExactSum<T>::negate() {
  for (int64_t &limb : limbs_) limb = -limb;
  carry();
}

template <class T> bool ExactSum<T>::bit(int position) const {
  return position >= 0 && limbs_[position / kLimbBits] >> (position % kLimbBits) & 1;
}

template <class T> bool ExactSum<T>::any_below(int position) const {
  if (position <= 0) return false;
  const int limb = position / kLimbBits;
  if (limbs_[limb] & ((int64_t{1} << (position % kLimbBits)) - 1)) return true;
  return std::any_of(limbs_, limbs_ + limb, [](int64_t x) { return x != 0; });
}

template <class T> T ExactSum<T>::rounded() {
  if (special_ != 0) return std::isnan(special_) ? std::numeric_limits<T>::quiet_NaN() : special_;
  carry();
  const bool negative = limbs_[kLimbs - 1] < 0;
  if (negative) negate();
  int highest = kLimbs - 1;
  while (highest >= 0 && limbs_[highest] == 0) --highest;
  if (highest < 0) return 0;
  int top = (highest + 1) * kLimbBits - 1;
  while (!bit(top)) --top;
  // of the last bit that the result has: a subnormal number has fewer than others
  const int last = std::max(top - kDigits + 1, -kLowest);
  int64_t significand = 0;
  for (int position = top; position >= last; --position)
    significand = 2 * significand + (bit(position) ? 1 : 0);
  const bool half = bit(last - 1);
  if (half && (any_below(last - 1) || significand % 2 != 0)) ++significand;
  const T size = std::ldexp(static_cast<T>(significand), last + 2 * kLowest);
  return negative ? -size : size;
}

template class ExactSum<float>;
template class ExactSum<double>;

} // namespace cosmic
