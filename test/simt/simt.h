// simt.h - what CUDA C++ source includes in place of CUDA's headers when g++ compiles it for the emulator (README.md).
#pragma once
#include "language.h"
#include "numbers.h"
#include "warp.h"
#include "hardware.h"
#include "runtime.h"
