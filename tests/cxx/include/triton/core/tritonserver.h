/*
 * Stands in for Triton's header of this name, which is in no package registry: the interface as the
 * project states it itself.
 */
#include <kit/abi/triton_abi.h>
