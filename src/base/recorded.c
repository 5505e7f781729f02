/*
 * Where the flight recorder's pages lie.
 */
#include "base/recorded.h"

_Alignas(UMO_RECORDED_ALIGN) umo_recorded_pages umo_recorded;
