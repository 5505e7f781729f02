/*
 * What the server is told of each response of a decoupled model; it shows them in the model's
 * statistics by their number.
 *
 * Servers that give the same version of their interface have these calls or have them not: they
 * came in between. So they are looked for, and without them nothing is told. Their object is made
 * once for each place that reports, and used again.
 */
#include "kit/streams.h"

#ifdef __ELF__
#pragma weak TRITONBACKEND_ModelInstanceReportResponseStatistics
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsNew
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsDelete
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd
#pragma weak TRITONBACKEND_ModelInstanceResponseStatisticsSetError
#define SERVER_HAS_THEM (TRITONBACKEND_ModelInstanceResponseStatisticsNew != NULL)
#else
#define SERVER_HAS_THEM true
#endif

kit_statistics *kit_statistics_create(void)
{
    kit_statistics *made = NULL;
    if (SERVER_HAS_THEM) {
        (void)kit_from_triton(TRITONBACKEND_ModelInstanceResponseStatisticsNew(&made), NULL);
    }
    return made;
}

void kit_statistics_destroy(kit_statistics *statistics)
{
    if (statistics != NULL) {
        (void)kit_from_triton(TRITONBACKEND_ModelInstanceResponseStatisticsDelete(statistics),
                              NULL);
    }
}

void kit_statistics_report(kit_statistics *statistics, const umo_request *request,
                           uint64_t start_ns, uint64_t output_ns, TRITONSERVER_Error *failure)
{
    if (statistics == NULL) {
        return;
    }
    TRITONSERVER_Error *(*const set_time[])(kit_statistics *, uint64_t) = {
        TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseStart,
        TRITONBACKEND_ModelInstanceResponseStatisticsSetComputeOutputStart,
        TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseEnd,
    };
    const uint64_t times[] = {start_ns, output_ns, kit_now_ns()};
    umo_status status =
        kit_from_triton(TRITONBACKEND_ModelInstanceResponseStatisticsSetModelInstance(
                            statistics, request->flight->instance->triton),
                        NULL);
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONBACKEND_ModelInstanceResponseStatisticsSetResponseFactory(
                                     statistics, request->factory),
                                 NULL);
    }
    for (size_t i = 0; i < 3 && status == UMO_OK; i++) {
        status = kit_from_triton(set_time[i](statistics, times[i]), NULL);
    }
    if (status == UMO_OK) {
        status = kit_from_triton(
            TRITONBACKEND_ModelInstanceResponseStatisticsSetError(statistics, failure), NULL);
    }
    if (status == UMO_OK) {
        (void)kit_from_triton(TRITONBACKEND_ModelInstanceReportResponseStatistics(statistics),
                              NULL);
    }
}
