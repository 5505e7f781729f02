/*
 * The part of the server's interface that unified_backend.hpp calls, over plain values.
 */
#ifndef UMO_TESTS_CXX_STUB_SERVER_H
#define UMO_TESTS_CXX_STUB_SERVER_H

#include <triton/core/tritonbackend.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

struct TRITONSERVER_Error {
    TRITONSERVER_Error_Code code;
    std::string text;
};

struct TRITONBACKEND_Input {
    TRITONSERVER_DataType dtype;
    std::vector<std::int64_t> shape;
    std::vector<std::string> pieces;
    std::uint64_t size_bytes; /* as it says */
    TRITONSERVER_MemoryType type;
};

struct TRITONBACKEND_Request {
    std::map<std::string, TRITONBACKEND_Input> inputs;
    int answers;
    int errors; /* among them */
    int releases;
};

struct TRITONBACKEND_Output {
    TRITONSERVER_DataType dtype;
    std::vector<std::int64_t> shape;
    std::vector<char> bytes;
};

struct TRITONBACKEND_Response {
    TRITONBACKEND_Request *request;
    std::map<std::string, TRITONBACKEND_Output> outputs;
};

struct TRITONBACKEND_Model {
    std::string config;
    void *state;
};

struct TRITONBACKEND_ModelInstance {
    TRITONBACKEND_Model *model;
};

extern TRITONSERVER_MemoryType stub_output_type; /* where outputs go */
extern int stub_errors;                          /* that nobody has deleted */
extern int stub_responses;                       /* that nobody has sent */

#endif
