// The one list of parts: a line for each, beside the file that it is in. X gets the part's name,
// which is also that of the function that describes it, and what its arithmetic is called on lanes:
// of a rule; of a gate its probe; of a codec that of a first moment, of a second one, and its
// probe.
#pragma once

#include <cstdint>

#include "codecs/bf16.h"
#include "codecs/costate.h"
#include "codecs/factored.h"
#include "codecs/full.h"
#include "codecs/m1.h"
#include "codecs/m2.h"
#include "codecs/m4.h"
#include "codecs/m8.h"
#include "codecs/q8.h"
#include "codecs/rowmean.h"
#include "codecs/u1.h"
#include "codecs/u2.h"
#include "codecs/u4.h"
#include "codecs/ustate.h"
#include "codecs/v4.h"
#include "codecs/v_log.h"
#include "gates/agar.h"
#include "gates/agc.h"
#include "gates/calibrated_agar.h"
#include "gates/snr.h"
#include "gates/tiger_literal.h"
#include "gates/trust.h"
#include "gates/update_clipping.h"
#include "rules/adam.h"
#include "rules/belief.h"
#include "rules/muon.h"
#include "rules/muon_gradient.h"
#include "rules/rmsprop.h"
#include "rules/scalar_sign.h"
#include "rules/sign.h"
#include "rules/softsign.h"
#include "rules/tiger.h"

// Parts of somebody's own, in lists of the same form: the CMake option COSMIC_MORE_PARTS names the
// folder with this file.
#if defined(COSMIC_HAS_MORE_PARTS)
#include "more_parts.h"
#else
#define COSMIC_MORE_RULES(X)
#define COSMIC_MORE_GATES(X)
#define COSMIC_MORE_CODECS(X)
#endif

#define COSMIC_RULES(X)                                                                            \
  X(sign, Sign)                                                                                    \
  X(scalar_sign, Sign)                                                                             \
  X(rmsprop, RmsProp)                                                                              \
  X(adam, Adam)                                                                                    \
  X(belief, Belief)                                                                                \
  X(softsign, SoftSign)                                                                            \
  X(tiger, Tiger)                                                                                  \
  X(muon, Muon)                                                                                    \
  X(muon_gradient, MuonGradient)                                                                   \
  COSMIC_MORE_RULES(X)

#define COSMIC_GATES(X)                                                                            \
  X(snr, NoProbe)                                                                                  \
  X(agar, Share)                                                                                   \
  X(calibrated_agar, AgarProbe)                                                                    \
  X(tiger_literal, TigerProbe)                                                                     \
  X(trust, NoProbe)                                                                                \
  X(agc, NoProbe)                                                                                  \
  X(update_clipping, NoProbe)                                                                      \
  COSMIC_MORE_GATES(X)

#define COSMIC_CODECS(X)                                                                           \
  X(fp32, Fp32, Fp32, NoProbe)                                                                     \
  X(fp64, Fp64, Fp64, NoProbe)                                                                     \
  X(bf16, Bf16, Bf16, NoProbe)                                                                     \
  X(q8, Q8, Q8Square, NoProbe)                                                                     \
  X(u4, U4, None, NoProbe)                                                                         \
  X(u2, U2, None, NoProbe)                                                                         \
  X(u1, U1, None, NoProbe)                                                                         \
  X(m8, M8, None, NoProbe)                                                                         \
  X(m4, M4, None, NoProbe)                                                                         \
  X(m2, M2, None, NoProbe)                                                                         \
  X(m1, M1, None, NoProbe)                                                                         \
  X(ustate, UState, None, NoProbe)                                                                 \
  X(costate, CoState, None, Alignment)                                                             \
  X(v4, None, V4, NoProbe)                                                                         \
  X(vlog2, None, VLog2, NoProbe)                                                                   \
  X(vlog3, None, VLog3, NoProbe)                                                                   \
  X(vlog4, None, VLog4, NoProbe)                                                                   \
  X(vlog6, None, VLog6, NoProbe)                                                                   \
  X(vlog8, None, VLog8, NoProbe)                                                                   \
  X(factored, None, Factored, NoProbe)                                                             \
  X(rowmean, None, RowMean, NoProbe)                                                               \
  X(colmean, None, ColMean, NoProbe)                                                               \
  COSMIC_MORE_CODECS(X)

namespace cosmic {

// Places in the lists: how the plan tells the kernels which parts a step is made of. A probe's is
// that of the gate or the codec that it is of.
#define COSMIC_PLACE(name, ...) name,
enum class RuleAt : uint8_t { COSMIC_RULES(COSMIC_PLACE) };
enum class CodecAt : uint8_t { none, COSMIC_CODECS(COSMIC_PLACE) };
enum class ProbeAt : uint8_t { none, COSMIC_GATES(COSMIC_PLACE) COSMIC_CODECS(COSMIC_PLACE) };
#undef COSMIC_PLACE

} // namespace cosmic
