/* Compiles the ABI header as C++: its names keep C linkage and its types are complete enough to be
 * used by a backend written in C++. */
#include "triton_abi.h"

#include <type_traits>

static_assert(std::is_same<decltype(&TRITONBACKEND_ModelInstanceExecute),
                           TRITONSERVER_Error *(*)(TRITONBACKEND_ModelInstance *,
                                                   TRITONBACKEND_Request **, uint32_t)>::value,
              "the one entry point that every backend has");

extern "C" TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *model)
{
    void *state = nullptr;
    return TRITONBACKEND_ModelState(model, &state);
}
