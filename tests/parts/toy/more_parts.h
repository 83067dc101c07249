// Parts that the package does not have, for the test that builds it with them.
#pragma once

#include "clamped.h"
#include "f16.h"
#include "quiet.h"

#define COSMIC_MORE_RULES(X) X(clamped, Clamped)
#define COSMIC_MORE_GATES(X) X(quiet, NonZero)
#define COSMIC_MORE_CODECS(X) X(f16, F16, None, NoProbe)
