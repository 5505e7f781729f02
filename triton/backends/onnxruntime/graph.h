/**
 * @file graph.h
 * Which tensors of a model may steer more than numbers: they reach an operator whose steps or
 * addresses depend on the values (sorting, selecting, indexing, control flow). Such bytes must not
 * stay where a client can still write to them: a sort over values that change under it leaves its
 * array.
 */
#ifndef UMO_ORT_GRAPH_H
#define UMO_ORT_GRAPH_H

#include <umo/status.h>

/** The nodes of a model file. */
typedef struct ort_graph ort_graph;

/**
 * Reads the nodes of an ONNX file, those of inner graphs included; weights are skipped.
 *
 * Errors:    UNSUPPORTED  not in ONNX's own form (ONNX Runtime's, for one).
 *            NOMEM, SYSTEM.
 * Ownership: ort_graph_destroy().
 * Cost:      one pass over the file's structure, not over its weights.
 */
UMO_MUST_USE umo_status ort_graph_read(const char *path, ort_graph **out, umo_error *error);
/** NULL is allowed. */
void ort_graph_destroy(ort_graph *graph);

/** Whether any node reads the tensor. */
bool ort_graph_reads(const ort_graph *graph, const char *tensor);

/**
 * Whether the tensor's bytes may reach an operator that is not known to do the same whatever they
 * are; also behind operators that an optimiser may remove or that only look at the same bytes in
 * another shape.
 *
 * @param integer  Its elements are whole numbers: division by a changed zero is an exception then.
 */
bool ort_graph_is_steered(const ort_graph *graph, const char *tensor, bool integer);

#endif
