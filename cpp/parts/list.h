// The one list of parts: a line for each, beside the file that it is in. X gets the function that
// describes the part, and what its arithmetic is called in the kernels.
#pragma once

#include "codecs/bf16.h"
#include "codecs/costate.h"
#include "codecs/factored.h"
#include "codecs/full.h"
#include "codecs/q8.h"
#include "codecs/rowmean.h"
#include "codecs/u1.h"
#include "codecs/u2.h"
#include "codecs/u4.h"
#include "codecs/ustate.h"
#include "codecs/v4.h"
#include "codecs/v_log.h"
#include "gates/agar.h"
#include "gates/calibrated_agar.h"
#include "gates/snr.h"
#include "rules/adam.h"
#include "rules/belief.h"
#include "rules/rmsprop.h"
#include "rules/scalar_sign.h"
#include "rules/sign.h"

#define COSMIC_RULE_PARTS(X)                                                                       \
  X(sign, Sign)                                                                                    \
  X(scalar_sign, Sign)                                                                             \
  X(rmsprop, RmsProp)                                                                              \
  X(adam, Adam)                                                                                    \
  X(belief, Belief)

#define COSMIC_GATE_PARTS(X)                                                                       \
  X(snr, None)                                                                                     \
  X(agar, Share)                                                                                   \
  X(calibrated_agar, Agar)

#define COSMIC_CODEC_PARTS(X)                                                                      \
  X(fp32, Fp32, Fp32)                                                                              \
  X(fp64, Fp64, Fp64)                                                                              \
  X(bf16, Bf16, Bf16)                                                                              \
  X(q8, Q8, Q8Square)                                                                              \
  X(u4, U4, None)                                                                                  \
  X(u2, U2, None)                                                                                  \
  X(u1, U1, None)                                                                                  \
  X(ustate, UState, None)                                                                          \
  X(costate, CoState, None)                                                                        \
  X(v4, None, V4)                                                                                  \
  X(vlog2, None, VLog2)                                                                            \
  X(vlog3, None, VLog3)                                                                            \
  X(vlog4, None, VLog4)                                                                            \
  X(vlog6, None, VLog6)                                                                            \
  X(vlog8, None, VLog8)                                                                            \
  X(factored, None, Factored)                                                                      \
  X(rowmean, None, RowMean)                                                                        \
  X(colmean, None, ColMean)
