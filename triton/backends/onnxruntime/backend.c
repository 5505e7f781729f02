/* The backend umo_onnxruntime: ONNX models on the CPU by ONNX Runtime, computed in the clients' own
 * memory. */
#include "model.h"

const umo_backend umo_backend_table = {
    .name = "umo_onnxruntime",
    .model_init = ort_model_init,
    .model_finish = ort_model_finish,
    .model_complete = ort_model_complete,
    .model_check = ort_model_check,
    .instance_init = ort_instance_init,
    .instance_finish = ort_instance_finish,
    .execute = ort_instance_execute,
};
